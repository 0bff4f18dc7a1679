//! Against a real daemon, when `PORTOLAN_DOCKER_SOCK` names its socket. Nothing is pulled: the tests bring their image, made from the
//! machine's static busybox.
//!
//! Every container carries the label `portolan.dev/test`, and each test removes its own, also when it fails.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use tokio::io::AsyncWriteExt;

use super::BollardEngine;
use crate::docker::container::{Bind, IpcMode, NetworkMode, PidMode, PortBinding, Status, Tmpfs};
use crate::docker::pause::{docker_archive, ensure_pause_image, id, tar};
use crate::docker::simulated::{Costs, Settings, SimulatedEngine};
use crate::docker::{
    AttachSpec, Channel, ContainerSpec, Engine, EngineError, ExecSpec, LogOptions, Operation, Outcome, Resources, Session,
};

const LABEL: &str = "portolan.dev/test";
const BUSYBOX: &str = "/bin/busybox";

/// The engine, an image with busybox, and a prefix for this test's names. `None`, said aloud, without a daemon.
async fn host(test: &str) -> Option<Host> {
    let Ok(socket) = std::env::var("PORTOLAN_DOCKER_SOCK") else {
        skip(&format!("docker::{test}"), "PORTOLAN_DOCKER_SOCK is not set");
        return None;
    };
    let Ok(busybox) = std::fs::read(BUSYBOX) else {
        skip(&format!("docker::{test}"), "there is no /bin/busybox (package busybox-static)");
        return None;
    };
    let engine = Arc::new(BollardEngine::new(socket));
    let config = serde_json::json!({ "Cmd": ["/bin/busybox", "sleep", "1000"], "Env": ["PATH=/bin"] });
    let image = docker_archive("portolan.dev/test-busybox", &tar(&[("bin/busybox", 0o755, &busybox)]), &config);
    if engine.image(&image.id).await.is_err() {
        engine.load(image.archive.clone()).await.unwrap();
    }
    Some(Host { engine, image: image.id, test: test.into() })
}

/// Counts and names a test that could not run here: in the file that `make test` sums up, or past the capture of the test runner.
pub(crate) fn skip(test: &str, why: &str) {
    let line = format!("SKIPPED {test}: {why}\n");
    let _ = match std::env::var_os("PORTOLAN_TEST_SKIPS") {
        Some(file) => {
            std::fs::OpenOptions::new().create(true).append(true).open(file).and_then(|mut file| file.write_all(line.as_bytes()))
        }
        None => std::io::stderr().write_all(line.as_bytes()),
    };
}

pub(crate) struct Host {
    pub(crate) engine: Arc<BollardEngine>,
    image: String,
    test: String,
}

impl Host {
    fn name(&self, name: &str) -> String {
        format!("portolan-test-{}-{name}", self.test)
    }

    /// A container that runs a line of shell.
    pub(crate) fn shell(&self, script: &str) -> ContainerSpec {
        ContainerSpec {
            image: self.image.clone(),
            entrypoint: Some(vec!["/bin/busybox".into(), "sh".into(), "-c".into()]),
            cmd: Some(vec![script.into()]),
            labels: [(LABEL.to_string(), self.test.clone())].into(),
            network: NetworkMode::None,
            ..ContainerSpec::default()
        }
    }

    pub(crate) async fn run(&self, name: &str, spec: &ContainerSpec) -> String {
        let id = self.engine.create(&self.name(name), spec).await.unwrap();
        self.engine.start(&id).await.unwrap();
        id
    }

    /// Waits until a shell has said that it stands: before, it has no traps.
    async fn up(&self, id: &str) {
        for _ in 0..200 {
            let tail = Operation::LogTail { id: id.into(), lines: 100, bytes: 1000 }.perform(&*self.engine).await.unwrap();
            if matches!(&tail, Outcome::Log(log) if log.starts_with(b"up\n")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{id} does not come up");
    }

    async fn ended(&self, id: &str) -> crate::docker::ContainerState {
        for _ in 0..200 {
            let state = self.engine.inspect(id).await.unwrap();
            if state.status == Status::Exited {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{id} does not end");
    }

    async fn clean(&self) {
        for found in self.engine.list(&[format!("{LABEL}={}", self.test)]).await.unwrap() {
            self.engine.remove(&found.id, true).await.unwrap();
        }
    }
}

/// Runs a test's body on a host and cleans up behind it.
pub(crate) async fn with_host<F: Future<Output = ()>>(test: &str, body: impl FnOnce(Arc<Host>) -> F) {
    let Some(host) = host(test).await else { return };
    let host = Arc::new(host);
    host.clean().await;
    let result = std::panic::AssertUnwindSafe(body(Arc::clone(&host))).catch_unwind().await;
    host.clean().await;
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

async fn all_of(session: &mut Session) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(chunk) = session.output.next().await {
        let chunk = chunk.unwrap();
        if chunk.channel == Channel::Stdout { &mut out } else { &mut err }.extend_from_slice(&chunk.bytes);
    }
    (String::from_utf8_lossy(&out).into_owned(), String::from_utf8_lossy(&err).into_owned())
}

#[tokio::test]
async fn real_host() {
    with_host("host", async |host| {
        let info = host.engine.info().await.unwrap();
        assert!(info.cpus > 0 && info.memory > 1 << 20 && info.os == "linux", "{info:?}");
        assert!(
            !info.hostname.is_empty() && !info.version.is_empty() && !info.kernel.is_empty() && !info.root_dir.is_empty(),
            "{info:?}"
        );
        assert!(["amd64", "arm64"].contains(&info.architecture.as_str()), "{info:?}");
        assert!(host.engine.images().await.unwrap().iter().any(|image| image.id == host.image));
    })
    .await;
}

#[tokio::test]
async fn real_pause() {
    with_host("pause", async |host| {
        let engine = &*host.engine;
        let pause = ensure_pause_image(engine).await.unwrap();
        assert_eq!(ensure_pause_image(engine).await.unwrap(), pause);
        assert_eq!(pause, id());
        assert!(engine.list(&["portolan.dev/engine-probe".into()]).await.unwrap().is_empty());
        let sandbox = ContainerSpec {
            image: pause,
            labels: [(LABEL.to_string(), host.test.clone())].into(),
            hostname: Some("web-1".into()),
            ipc: IpcMode::Shareable,
            security: vec!["no-new-privileges".into()],
            oom_score_adj: Some(-998),
            resources: Resources { cpu_shares: Some(2), memory: Some(16 << 20), pids: Some(16), ..Resources::default() },
            extra_hosts: vec![("db".into(), "10.1.2.3".into())],
            ..ContainerSpec::default()
        };
        let sandbox = host.run("sandbox", &sandbox).await;
        let state = engine.inspect(&sandbox).await.unwrap();
        assert!(state.ip.is_some() && state.pid > 0 && state.network == "bridge" && !state.hosts_path.is_empty(), "{state:?}");

        // A member shares its network, name and processes; an orphan is reaped by the sandbox.
        let member = ContainerSpec {
            network: NetworkMode::Container(sandbox.clone()),
            ipc: IpcMode::Container(sandbox.clone()),
            pid: PidMode::Container(sandbox.clone()),
            ..host.shell(
                "busybox hostname; busybox cat /etc/hosts; (busybox sh -c 'busybox sleep 0.1 &'); busybox sleep 0.5; busybox ps",
            )
        };
        let member = host.run("member", &member).await;
        assert_eq!(host.ended(&member).await.exit_code, 0);
        let Outcome::Log(log) = Operation::LogTail { id: member, lines: 100, bytes: 4096 }.perform(engine).await.unwrap() else {
            panic!()
        };
        let log = String::from_utf8_lossy(&log).into_owned();
        assert!(
            log.starts_with("web-1\n") && log.contains("10.1.2.3\tdb") && log.contains("/pause") && !log.contains("sleep 0.1"),
            "{log}"
        );

        let before = Instant::now();
        engine.stop(&sandbox, 10).await.unwrap();
        assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
        assert_eq!(engine.inspect(&sandbox).await.unwrap().exit_code, 0);
    })
    .await;
}

#[tokio::test]
async fn real_life() {
    with_host("life", async |host| {
        let engine = &*host.engine;
        let name = host.name("a");
        let mut spec = host.shell("trap 'echo bye; exit 3' TERM; echo up; while :; do busybox sleep 0.05; done");
        spec.labels.insert("other".into(), "1".into());
        let id = engine.create(&name, &spec).await.unwrap();
        assert_eq!(engine.inspect(&id).await.unwrap().status, Status::Created);
        assert_eq!(engine.create(&name, &spec).await, Err(EngineError::NameTaken { name: name.clone(), holder: id.clone() }));
        engine.start(&id).await.unwrap();
        engine.start(&id).await.unwrap();
        host.up(&id).await;
        let state = engine.inspect(&name).await.unwrap();
        assert!(state.is_alive() && state.started_at >= state.created_at && state.finished_at.is_none(), "{state:?}");
        assert_eq!(
            (state.id.as_str(), state.name.as_str(), state.image_id.as_str()),
            (id.as_str(), name.as_str(), host.image.as_str())
        );
        let listed = engine.list(&[format!("{LABEL}={}", host.test), "other".into()]).await.unwrap();
        assert_eq!(listed.iter().map(|c| (&c.id, &c.name, c.status)).collect::<Vec<_>>(), [(&id, &name, Status::Running)]);
        assert_eq!(listed[0].labels, spec.labels);
        assert!(engine.list(&["other=2".into()]).await.unwrap().is_empty());
        engine.update(&id, &Resources { memory: Some(64 << 20), ..Resources::default() }).await.unwrap();
        let stats = engine.stats(&id).await.unwrap();
        assert!(stats.cpu > 0 && stats.pids > 0, "{stats:?}");
        assert!(matches!(engine.remove(&id, false).await, Err(EngineError::Conflict { .. })));
        engine.stop(&id, 10).await.unwrap();
        engine.stop(&id, 10).await.unwrap();
        let state = engine.inspect(&id).await.unwrap();
        assert!(state.status == Status::Exited && state.exit_code == 3 && state.finished_at > state.started_at, "{state:?}");
        assert_eq!(
            Operation::LogTail { id: id.clone(), lines: 1, bytes: 100 }.perform(engine).await.unwrap(),
            Outcome::Log("bye\n".into())
        );
        engine.kill(&id, "SIGKILL").await.unwrap();
        engine.remove(&id, false).await.unwrap();
        engine.remove(&id, false).await.unwrap();
        assert_eq!(engine.inspect(&id).await, Err(EngineError::NotFound { id: id.clone() }));
        assert_eq!(engine.start(&id).await, Err(EngineError::NotFound { id }));
    })
    .await;
}

#[tokio::test]
async fn real_ends() {
    with_host("ends", async |host| {
        let engine = &*host.engine;
        let deaf = host.run("deaf", &host.shell("trap '' TERM; while :; do busybox sleep 0.05; done")).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = Instant::now();
        engine.stop(&deaf, 1).await.unwrap();
        assert!(before.elapsed() > Duration::from_millis(900), "{:?}", before.elapsed());
        let state = engine.inspect(&deaf).await.unwrap();
        assert_eq!((state.exit_code, state.oom_killed), (137, false));

        let mut hog = host.shell("busybox head -c 200m /dev/zero | busybox tail | busybox sleep 5");
        hog.resources.memory = Some(16 << 20);
        hog.entrypoint = Some(vec!["/bin/busybox".into(), "tail".into(), "/dev/zero".into()]);
        hog.cmd = None;
        let hog = host.run("hog", &hog).await;
        let state = host.ended(&hog).await;
        assert_eq!((state.exit_code, state.oom_killed), (137, true));
    })
    .await;
}

#[tokio::test]
async fn real_refusals() {
    with_host("refusals", async |host| {
        let engine = &*host.engine;
        let create = |name: &str, spec: ContainerSpec| {
            let name = host.name(name);
            async move { engine.create(&name, &spec).await }
        };
        let error = create("a", ContainerSpec { image: "portolan.dev/nobody:1".into(), ..host.shell("") }).await.unwrap_err();
        assert!(matches!(error, EngineError::ImageNotFound { .. }), "{error:?}");
        let missing = Bind { source: "/nowhere/at/all".into(), target: "/x".into(), ..Bind::default() };
        let error = create("a", ContainerSpec { binds: vec![missing], ..host.shell("") }).await.unwrap_err();
        assert!(matches!(error, EngineError::Refused { .. }), "{error:?}");
        let error = create("a/../b", host.shell("")).await.unwrap_err();
        assert!(matches!(error, EngineError::Refused { .. }), "{error:?}");

        let norun = create("norun", ContainerSpec { entrypoint: Some(vec!["/nope".into()]), ..host.shell("") }).await.unwrap();
        let error = engine.start(&norun).await.unwrap_err();
        let state = engine.inspect(&norun).await.unwrap();
        assert!(matches!(error, EngineError::Refused { .. }), "{error:?}");
        assert_eq!((state.status, state.exit_code), (Status::Created, 127), "{state:?}");

        let port = PortBinding { container_port: 80, host_port: 38_471, ..PortBinding::default() };
        let publish =
            || ContainerSpec { network: NetworkMode::Bridge, ports: vec![port.clone()], ..host.shell("busybox sleep 100") };
        host.run("port-a", &publish()).await;
        let second = create("port-b", publish()).await.unwrap();
        let error = engine.start(&second).await.unwrap_err();
        assert!(matches!(error, EngineError::PortTaken { .. }), "{error:?}");

        let error = engine.exec(&second, &ExecSpec { command: vec!["x".into()], ..ExecSpec::default() }).await.err().unwrap();
        assert!(matches!(error, EngineError::Conflict { .. }), "{error:?}");
        let error = engine.attach(&second, &AttachSpec::default()).await.err().unwrap();
        assert!(matches!(error, EngineError::Conflict { .. }), "{error:?}");
        let error = engine.pull("127.0.0.1:1/nobody/home:1", None, &|_| {}).await.unwrap_err();
        assert!(matches!(error, EngineError::PullFailed { .. }), "{error:?}");
        let error = engine.remove_image(&host.image).await.unwrap_err();
        assert!(matches!(error, EngineError::Refused { .. }), "{error:?}");
        engine.remove_image("portolan.dev/nobody:1").await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn real_exec() {
    with_host("exec", async |host| {
        let engine = &*host.engine;
        let mut spec = host.shell("busybox sleep 1000");
        spec.tmpfs = vec![Tmpfs { target: "/tmp".into(), size: Some(1 << 20), mode: Some(0o1777) }];
        let id = host.run("a", &spec).await;
        let run = |script: &str, timeout: u64| Operation::Run {
            id: id.clone(),
            command: ["busybox", "sh", "-c", script].map(Into::into).to_vec(),
            timeout: Duration::from_millis(timeout),
        };
        let Outcome::Ran(ran) = run("echo out; echo err >&2; exit 7", 10_000).perform(engine).await.unwrap() else { panic!() };
        assert_eq!((ran.exit_code, ran.output.len()), (Some(7), 8));
        let Outcome::Ran(ran) = run("busybox yes | busybox head -c 1000000; exit 3", 20_000).perform(engine).await.unwrap()
        else {
            panic!()
        };
        assert_eq!((ran.exit_code, ran.output.len()), (Some(3), 10 * 1024));
        let Outcome::Ran(ran) = run("busybox sleep 10", 300).perform(engine).await.unwrap() else { panic!() };
        assert_eq!(ran.exit_code, None);
        let nope = Operation::Run { id: id.clone(), command: vec!["/nope".into()], timeout: Duration::from_secs(10) };
        match nope.perform(engine).await {
            Ok(Outcome::Ran(ran)) => assert!(matches!(ran.exit_code, Some(126 | 127)), "{ran:?}"),
            other => assert!(matches!(other, Err(EngineError::Refused { .. } | EngineError::Failed { .. })), "{other:?}"),
        }

        // Input that ends, both outputs apart.
        let command: Vec<String> = ["busybox", "sh", "-c", "busybox cat; echo done >&2"].map(Into::into).to_vec();
        let both = ExecSpec { command, stdin: true, stdout: true, stderr: true, ..ExecSpec::default() };
        let mut session = engine.exec(&id, &both).await.unwrap();
        let large = vec![b'x'; 300_000];
        let mut input = session.input;
        let writing = tokio::spawn(async move {
            input.write_all(&large).await.unwrap();
            input.shutdown().await.unwrap();
            input
        });
        session.input = Box::pin(tokio::io::sink());
        let (out, err) = all_of(&mut session).await;
        writing.await.unwrap();
        assert_eq!((out.len(), err.as_str()), (300_000, "done\n"));
        assert_eq!(engine.exec_exit(&session.id).await.unwrap(), Some(0));

        // A terminal: its size, and bytes that look like a frame.
        let script = "busybox stty size; busybox printf '\\001\\000\\000\\000\\377\\377\\377\\377'; exit 4";
        let command: Vec<String> = ["busybox", "sh", "-c", &format!("busybox sleep 0.5; {script}")].map(Into::into).to_vec();
        let tty = ExecSpec { command, tty: true, stdin: true, stdout: true, size: Some((123, 45)), ..ExecSpec::default() };
        let mut session = engine.exec(&id, &tty).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(chunk) = session.output.next().await {
            bytes.extend_from_slice(&chunk.unwrap().bytes);
        }
        assert_eq!(bytes, b"45 123\r\n\x01\0\0\0\xff\xff\xff\xff");
        assert_eq!(engine.exec_exit(&session.id).await.unwrap(), Some(4));
    })
    .await;
}

#[tokio::test]
async fn real_logs() {
    with_host("logs", async |host| {
        let engine = &*host.engine;
        let id = host.run("a", &host.shell("echo one; echo two >&2; busybox sleep 0.6; echo three; busybox printf four")).await;
        let read = async |options: LogOptions| {
            let entries: Vec<_> = engine.logs(&id, &options).await.unwrap().map(Result::unwrap).collect().await;
            assert!(entries.iter().all(|entry| entry.at.is_some()));
            let text = |entry: &crate::docker::LogEntry| String::from_utf8_lossy(&entry.bytes).into_owned();
            (entries.iter().map(text).collect::<String>(), entries)
        };
        let (followed, entries) = read(LogOptions { follow: true, ..LogOptions::default() }).await;
        // The two outputs are two pipes; which comes first is nobody's promise.
        assert!(["one\ntwo\nthree\nfour", "two\none\nthree\nfour"].contains(&followed.as_str()), "{followed:?}");
        let third = entries.iter().find(|entry| entry.bytes == "three\n").unwrap().at;
        assert_eq!(read(LogOptions { since: third, ..LogOptions::default() }).await.0, "three\nfour");
        assert_eq!(read(LogOptions { tail: Some(2), ..LogOptions::default() }).await.0, "three\nfour");
        assert_eq!(read(LogOptions { stdout: false, ..LogOptions::default() }).await.0, "two\n");
        assert_eq!(
            engine.logs("portolan-test-nobody", &LogOptions::default()).await.err(),
            Some(EngineError::NotFound { id: "portolan-test-nobody".into() })
        );

        // A daemon keeps text: what is not UTF-8 is lost, so the bytes are chosen from what is.
        let evil =
            ContainerSpec { tty: true, ..host.shell("busybox printf '\\001\\000\\000\\000\\177\\177\\177\\177x\\n'; echo end") };
        let evil = host.run("evil", &evil).await;
        host.ended(&evil).await;
        let flow = engine.logs(&evil, &LogOptions::default()).await.unwrap();
        let bytes: Vec<u8> =
            flow.map(Result::unwrap).collect::<Vec<_>>().await.iter().flat_map(|entry| entry.bytes.to_vec()).collect();
        assert_eq!(bytes, b"\x01\0\0\0\x7f\x7f\x7f\x7fx\r\nend\r\n");
    })
    .await;
}

#[tokio::test]
async fn real_attach_and_hints() {
    with_host("attach", async |host| {
        let engine = &*host.engine;
        let mut hints = engine.events(&[format!("{LABEL}={}", host.test)]).await.unwrap();
        let spec = ContainerSpec { open_stdin: true, ..host.shell("while read line; do echo \"got $line\"; done; exit 5") };
        // The stream begins when it is first read, which must not wait for the first hint.
        let collect = tokio::spawn(async move {
            let mut actions = Vec::new();
            while let Some(hint) = hints.next().await {
                let action = hint.unwrap().action;
                let last = action == "destroy";
                actions.push(action);
                if last {
                    break;
                }
            }
            actions
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        let id = host.run("a", &spec).await;
        let mut session = engine.attach(&id, &AttachSpec { stdin: true, stdout: true, stderr: true }).await.unwrap();
        session.input.write_all(b"hello\n").await.unwrap();
        let chunk = session.output.next().await.unwrap().unwrap();
        assert_eq!((chunk.channel, &chunk.bytes[..]), (Channel::Stdout, &b"got hello\n"[..]));
        drop(session);
        engine.remove(&id, true).await.unwrap();
        let actions = tokio::time::timeout(Duration::from_secs(10), collect).await.unwrap().unwrap();
        for action in ["create", "start", "die", "destroy"] {
            assert!(actions.iter().any(|a| a == action), "{actions:?}");
        }
        assert!(actions.iter().all(|action| !action.starts_with("exec")), "{actions:?}");
    })
    .await;
}

#[tokio::test]
async fn real_upload() {
    with_host("upload", async |host| {
        let engine = &*host.engine;
        let name = host.name("a");
        let id = engine.create(&name, &host.shell("busybox cat /hello")).await.unwrap();
        engine.upload(&id, "/", tar(&[("hello", 0o644, b"from outside")]).into()).await.unwrap();
        engine.start(&id).await.unwrap();
        host.ended(&id).await;
        let log = Operation::LogTail { id: id.clone(), lines: 10, bytes: 100 }.perform(engine).await.unwrap();
        assert_eq!(log, Outcome::Log("from outside".into()));
        assert!(matches!(engine.upload(&id, "/", tar(&[]).into()).await, Err(EngineError::Refused { .. })));
    })
    .await;
}

/// `PORTOLAN_TEST_REGISTRY` is the address of an empty registry that the daemon trusts, such as `10.77.0.254:5000`.
#[tokio::test]
async fn real_pull() {
    let Ok(registry) = std::env::var("PORTOLAN_TEST_REGISTRY") else {
        return skip("docker::pull", "PORTOLAN_TEST_REGISTRY is not set");
    };
    with_host("pull", async |host| {
        let engine = &*host.engine;
        let image = docker_archive("x", &tar(&[("hello", 0o644, b"hello")]), &serde_json::json!({ "Cmd": ["/hello"] }));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.tar");
        std::fs::write(&file, &image.archive).unwrap();
        let name = format!("{registry}/portolan-test/x");
        let copy = std::process::Command::new("skopeo")
            .args(["copy", "--quiet", "--dest-tls-verify=false"])
            .arg(format!("docker-archive:{}", file.display()))
            .arg(format!("docker://{name}:latest"))
            .status();
        assert!(copy.unwrap().success());
        let steps = std::sync::Mutex::new(Vec::new());
        let pulled = engine.pull(&name, None, &|step| steps.lock().unwrap().push(step)).await.unwrap();
        assert_eq!((pulled.cmd, pulled.tags), (vec!["/hello".to_string()], vec![format!("{name}:latest")]));
        assert!(pulled.digests[0].starts_with(&format!("{name}@sha256:")), "{:?}", pulled.digests);
        assert!(steps.lock().unwrap().iter().any(|step| step.message.contains("Digest")));
        let again = engine.pull(&pulled.digests[0], None, &|_| {}).await.unwrap();
        assert_eq!(again.id, pulled.id);
        for missing in [format!("{name}:nope"), format!("{registry}/portolan-test/nope:1")] {
            let error = engine.pull(&missing, None, &|_| {}).await.unwrap_err();
            assert!(matches!(error, EngineError::ImageNotFound { .. }), "{error:?}");
        }
        engine.remove_image(&format!("{name}:latest")).await.unwrap();
        engine.remove_image(&pulled.digests[0]).await.unwrap();
        assert!(matches!(engine.image(&pulled.id).await, Err(EngineError::ImageNotFound { .. })));
    })
    .await;
}

#[tokio::test]
async fn no_daemon_is_unavailable() {
    let directory = tempfile::tempdir().unwrap();
    let engine = BollardEngine::new(directory.path().join("docker.sock"));
    assert!(matches!(engine.info().await, Err(EngineError::Unavailable { .. })));
    // A socket that nobody listens on any more.
    let path = directory.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let engine = BollardEngine::new(path);
    let error = engine.info().await.unwrap_err();
    assert!(matches!(&error, EngineError::Unavailable { message } if message.contains("refused")), "{error:?}");
}

#[tokio::test]
async fn a_daemon_that_hangs_runs_into_a_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hung.sock");
    // It takes connections, as a stopped process's kernel does, and never answers.
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let engine = BollardEngine { haste: 100, ..BollardEngine::new(path) };
    let error = engine.info().await.unwrap_err();
    assert!(matches!(error, EngineError::Deadline { call: "version", .. }), "{error:?}");
    assert_eq!(error.outlook(), crate::docker::Outlook::Unknown);
}

/// The model against the truth: the same calls, and after each the same answers and the same states.
#[tokio::test]
async fn real_and_simulated_agree() {
    with_host("agree", async |host| {
        let settings = Settings { hostname: "a".into(), cpus: 2, memory: 1 << 30, costs: Costs::NONE };
        let model = SimulatedEngine::memory(&settings);
        model.pull("sim/web:v1", None, &|_| {}).await.unwrap();
        // A shell that is told to stop ends with code 0, as the model's containers do.
        let web = "trap 'exit 0' TERM; echo up; while :; do busybox sleep 0.02; done";
        let deaf = "trap '' TERM; echo up; while :; do busybox sleep 0.02; done";
        let script = [
            "inspect a",
            "start a",
            "stop a 1",
            "kill a",
            "remove a",
            "create a web",
            "inspect a",
            "create a web",
            "stop a 1",
            "kill a",
            "start a",
            "start a",
            "inspect a",
            "run a",
            "remove a",
            "create b join",
            "start b",
            "inspect b",
            "stop a 5",
            "inspect a",
            "run a",
            "kill a",
            "start b",
            "inspect b",
            "stop b 5",
            "start b",
            "inspect b",
            "start a",
            "inspect a",
            "kill a",
            "inspect a",
            "force a",
            "inspect a",
            "force a",
            "start b",
            "create a deaf",
            "start a",
            "stop a 1",
            "inspect a",
            "force a",
            "create a crash",
            "start a",
            "wait",
            "inspect a",
            "start a",
            "wait",
            "inspect a",
            "force a",
            "create c norun",
            "start c",
            "inspect c",
            "stop c 1",
            "force c",
            "create p port",
            "start p",
            "create q port",
            "start q",
            "inspect q",
            "stop p 5",
            "start q",
            "inspect q",
            "start p",
        ];
        let mut crashes = false;
        for line in script {
            let words: Vec<&str> = line.split(' ').collect();
            if line == "wait" {
                host.ended(&host.name("a")).await;
                while model.inspect(&host.name("a")).await.unwrap().is_alive() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                continue;
            }
            let name = host.name(words[1]);
            crashes = if words[0] == "create" { words[2] == "crash" } else { crashes };
            let operation = |real: bool| match words[0] {
                "inspect" => Operation::Inspect { id: name.clone() },
                "start" => Operation::Start { id: name.clone() },
                "stop" => Operation::Stop { id: name.clone(), grace: words[2].parse().unwrap() },
                "kill" => Operation::Kill { id: name.clone(), signal: "SIGKILL".into() },
                "remove" => Operation::Remove { id: name.clone(), force: false },
                "force" => Operation::Remove { id: name.clone(), force: true },
                "run" => Operation::Run {
                    id: name.clone(),
                    command: if real { vec!["busybox".into(), "true".into()] } else { vec!["true".into()] },
                    timeout: Duration::from_secs(10),
                },
                _ => {
                    let shell = |script| ContainerSpec { network: NetworkMode::Bridge, ..host.shell(script) };
                    let mut spec = match words[2] {
                        "deaf" => shell(deaf),
                        "crash" => shell("busybox sleep 0.3; exit 4"),
                        "norun" => ContainerSpec { entrypoint: Some(vec!["/nope".into()]), ..shell("") },
                        _ => shell(web),
                    };
                    match words[2] {
                        "join" => spec.network = NetworkMode::Container(host.name("a")),
                        "port" => {
                            spec.ports = vec![PortBinding { container_port: 80, host_port: 38_472, ..PortBinding::default() }];
                        }
                        behaviour if !real => {
                            let words = if behaviour == "crash" { "crash=4-300ms" } else { behaviour };
                            spec.env = vec![("SIM".into(), words.into())];
                        }
                        _ => {}
                    }
                    if !real {
                        spec.image = "sim/web:v1".into();
                    }
                    Operation::Create { name: name.clone(), spec: Box::new(spec) }
                }
            };
            let real = operation(true).perform(&*host.engine).await;
            if words[0] == "start" && real.is_ok() && !crashes {
                host.up(&name).await;
            }
            let simulated = operation(false).perform(&model).await;
            assert_eq!(essence(&real), essence(&simulated), "{line}\nreal: {real:?}\nsimulated: {simulated:?}");
        }
    })
    .await;
}

/// What has to agree of an answer.
fn essence(answer: &Result<Outcome, EngineError>) -> String {
    match answer {
        Err(error) => format!("{:?} {:?}", error.outlook(), format!("{error:?}").split([' ', '{']).next()),
        Ok(Outcome::Created { .. }) => "created".into(),
        Ok(Outcome::Ran(ran)) => format!("ran {:?}", ran.exit_code),
        Ok(Outcome::Container(state)) => format!(
            "{:?} code {} oom {} pid {} error {} ip {} started {} finished {}",
            state.status,
            state.exit_code,
            state.oom_killed,
            state.pid > 0,
            !state.error.is_empty(),
            state.ip.is_some(),
            state.started_at.is_some(),
            state.finished_at.is_some()
        ),
        Ok(other) => format!("{other:?}"),
    }
}
