//! exec, port-forward, logs and debug with the real kubectl, new and old, against simulated hosts: the way through API, tunnel and agent.
//! What only real containers show is in `hosts/streams.rs`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Cluster, eventually, old_kubectl, text};

fn cluster(manifests: &str) -> Cluster {
    let mut cluster = Cluster::start("127.0.0.1", &[]);
    cluster.start_simulated("n1");
    cluster.await_nodes(1);
    let file = cluster.dir.join("pods.yaml");
    std::fs::write(&file, manifests).unwrap();
    cluster.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    cluster
}

/// A pod with these containers, each a name and what its simulation does.
fn pod(name: &str, containers: &[(&str, &str)]) -> String {
    let mut out =
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  containers:\n");
    for (name, sim) in containers {
        out += &format!("    - {{name: {name}, image: \"sim/web:1\", env: [{{name: SIM, value: \"{sim}\"}}]}}\n");
    }
    out + "---\n"
}

/// What port-forward finds a pod through.
const FRONT: &str = "apiVersion: v1
kind: Service
metadata: {name: front}
spec: {selector: {app: web}, ports: [{port: 8080, targetPort: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec: {containers: [{name: c, image: \"sim/web:1\"}]}
";

/// A port-forward that runs until it is dropped, and its local port.
pub(crate) struct Forward {
    child: Child,
    pub(crate) port: u16,
}

impl Forward {
    pub(crate) fn start(cluster: &Cluster, kubectl: &Path, what: &str, port: u16) -> Forward {
        let mut command = cluster.command(kubectl, &["port-forward", what, &format!(":{port}")]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut line).unwrap();
        // `Forwarding from 127.0.0.1:40123 -> 80`
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        let Some(port) = port else {
            let mut problem = String::new();
            child.stderr.take().unwrap().read_to_string(&mut problem).unwrap();
            panic!("{line}{problem}");
        };
        // It says a line for each connection; nobody reads them, and a full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Forward { child, port }
    }
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
    /// What it complained of, once it has ended by itself or was ended.
    pub(crate) fn complaints(mut self) -> String {
        std::thread::sleep(Duration::from_millis(500));
        let _ = self.child.kill();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kubectls(test: &str) -> Vec<PathBuf> {
    [Some(PathBuf::from("kubectl")), old_kubectl(test)].into_iter().flatten().collect()
}

/// Runs a command with an input; its exit code, output and complaints.
pub(crate) fn with_input(cluster: &Cluster, kubectl: &Path, args: &[&str], input: &[u8]) -> (i32, Vec<u8>, String) {
    let mut command = cluster.command(kubectl, args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let feeding = std::thread::spawn(move || stdin.write_all(&input));
    let out = child.wait_with_output().unwrap();
    let _ = feeding.join().unwrap();
    (out.status.code().unwrap_or(-1), out.stdout, text(&out.stderr))
}

#[test]
fn exec_and_port_forward_new_and_old() {
    let cluster = cluster(&(pod("web", &[("c", "")]) + &pod("mute", &[("c", "unready")]) + FRONT));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=30s"]);
    cluster.kubectl(&["rollout", "status", "deployment/many", "--timeout=60s"]);
    for kubectl in kubectls("kubectl_streams::exec_and_port_forward_new_and_old") {
        let kubectl = kubectl.as_path();
        let run = |args: &[&str], input: &[u8]| with_input(&cluster, kubectl, args, input);
        let (code, out, err) = run(&["exec", "web", "--", "echo", "hello there"], b"");
        assert_eq!((code, text(&out).as_str()), (0, "hello there\n"), "{kubectl:?} {err}");
        let (code, _, err) = run(&["exec", "web", "--", "sh", "-c", "exit 7"], b"");
        assert!(code == 7 && err.contains("exit code 7"), "{kubectl:?} {code} {err}");
        let (code, _, err) = run(&["exec", "web", "-c", "other", "--", "true"], b"");
        assert!(code == 1 && err.contains("container other is not valid for pod web"), "{kubectl:?} {err}");
        let large: Vec<u8> = (0..500_000u32).map(|n| (n % 251) as u8).collect();
        let (code, out, err) = run(&["exec", "-i", "web", "--", "cat"], &large);
        assert!(code == 0 && out == large, "{kubectl:?} {} of {} bytes came back {err}", out.len(), large.len());

        let forward = Forward::start(&cluster, kubectl, "pod/web", 80);
        let mut streams: Vec<TcpStream> = (0..10).map(|_| forward.connect()).collect();
        for (number, stream) in streams.iter_mut().enumerate() {
            let said = format!("connection {number}");
            stream.write_all(said.as_bytes()).unwrap();
            let mut heard = vec![0; said.len()];
            stream.read_exact(&mut heard).unwrap();
            assert_eq!(text(&heard), said, "{kubectl:?}");
        }
        for (what, port) in [("svc/front", 8080), ("deploy/many", 80)] {
            let forward = Forward::start(&cluster, kubectl, what, port);
            let mut stream = forward.connect();
            stream.write_all(b"hello").unwrap();
            let mut heard = [0; 5];
            stream.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"hello", "{kubectl:?} {what}");
        }
        let mut stream = streams.pop().unwrap();
        let mut other = stream.try_clone().unwrap();
        let sent = large.clone();
        let writing = std::thread::spawn(move || other.write_all(&sent));
        let mut heard = vec![0; large.len()];
        stream.read_exact(&mut heard).unwrap();
        writing.join().unwrap().unwrap();
        assert!(heard == large, "{kubectl:?}");
        drop(forward);

        eventually(20, "the mute pod runs", || {
            (cluster.json(&["get", "pod", "mute"])["status"]["phase"] == "Running").then_some(())
        });
        let forward = Forward::start(&cluster, kubectl, "pod/mute", 80);
        let mut stream = forward.connect();
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "{kubectl:?}");
        let said = forward.complaints();
        assert!(
            said.contains("error forwarding port 80 to pod mute") && said.contains("Connection refused"),
            "{kubectl:?} {said}"
        );
    }
}

#[test]
fn logs_with_every_flag() {
    let manifests = pod("one", &[("a", "chatty=50ms"), ("b", "")]) + &pod("crash", &[("c", "crash=3-100ms")]);
    let missing = pod("missing", &[("c", "")]).replace("sim/web:1", "sim/missing:1");
    let cluster = cluster(&(manifests + &missing));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/one", "--timeout=30s"]);
    let logs = |args: &[&str]| {
        let out = cluster.try_kubectl(&[&["logs"], args].concat());
        (out.status.success(), text(&out.stdout), text(&out.stderr))
    };
    let lines = |args: &[&str]| {
        let (good, out, err) = logs(args);
        assert!(good, "{args:?}: {err}");
        out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    eventually(20, "there is something to read", || (lines(&["one", "-c", "a"]).len() > 5).then_some(()));
    assert_eq!(lines(&["one", "-c", "a", "--tail=3"]).len(), 3);
    assert_eq!(lines(&["one", "-c", "a", "--limit-bytes=4"]).concat().len(), 4);
    let stamped = lines(&["one", "-c", "a", "--timestamps", "--tail=2"]);
    let since = stamped[1].split(' ').next().unwrap().to_owned();
    assert!(since.ends_with('Z') && since.len() == 30, "{stamped:?}");
    let later = lines(&["one", "-c", "a", "--timestamps", &format!("--since-time={since}")]);
    assert!(later.iter().all(|line| line[..19] >= since[..19]), "{since} {later:?}");
    assert!(lines(&["one", "-c", "a", "--since=1h"]).len() > 5);
    let both = lines(&["one", "--all-containers", "--prefix"]);
    for prefix in ["[pod/one/a] ", "[pod/one/b] "] {
        assert!(both.iter().any(|line| line.starts_with(prefix)), "{both:?}");
    }
    assert!(lines(&["-l", "app in (one)", "--all-containers", "--tail=-1"]).len() > 5);
    let (good, _, err) = logs(&["-l", "app=one", "--all-containers", "-f", "--max-log-requests=1"]);
    assert!(!good && err.contains("you are attempting to follow 2 log streams, but maximum allowed concurrency is 1"), "{err}");
    let (good, _, err) = logs(&["one", "-c", "a", "--since=1s", "--since-time=2026-01-01T00:00:00Z"]);
    assert!(
        !good && err.contains("at most one of `sinceTime` or `sinceSeconds` may be specified") || err.contains("only one of"),
        "{err}"
    );
    let (good, _, err) = logs(&["one", "--previous"]);
    assert!(!good && err.contains("previous terminated container \"a\" in pod \"one\" not found"), "{err}");

    // A container that ended is read; one that waits to be started again too, and that was its last state.
    eventually(30, "it has crashed twice", || {
        let status = &cluster.json(&["get", "pod", "crash"])["status"]["containerStatuses"][0];
        (status["restartCount"].as_i64() >= Some(1) && status["state"]["waiting"]["reason"] == "CrashLoopBackOff").then_some(())
    });
    for args in [&["crash"][..], &["crash", "--previous"]] {
        assert!(lines(args).iter().any(|line| line.contains("ending with code 3")), "{args:?}");
    }
    let why = eventually(30, "the image is missed", || {
        let (good, _, err) = logs(&["missing"]);
        assert!(!good);
        err.contains("pull").then_some(err)
    });
    assert!(why.contains("container \"c\" in pod \"missing\" is waiting to start: "), "{why}");
    let (good, out, err) = logs(&["-l", "app=missing", "--ignore-errors", "--prefix"]);
    assert!(good && out.contains("waiting to start"), "{out}{err}");
}

#[test]
fn debug_adds_a_container_that_is_never_restarted() {
    let cluster = cluster(&pod("web", &[("c", "")]));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=30s"]);
    cluster.kubectl(&["debug", "web", "--image=sim/tool:1", "--target=c", "-c", "look", "--", "exit", "4"]);
    let status = eventually(30, "it has ended", || {
        let pod = cluster.json(&["get", "pod", "web"]);
        let status = pod["status"]["ephemeralContainerStatuses"][0].clone();
        (!status["state"]["terminated"].is_null()).then_some(status)
    });
    assert_eq!((&status["name"], &status["state"]["terminated"]["exitCode"]), (&"look".into(), &4.into()));
    cluster.kubectl(&["debug", "web", "--image=sim/tool:1", "-c", "again"]);
    eventually(30, "the second runs", || {
        let pod = cluster.json(&["get", "pod", "web"]);
        (!pod["status"]["ephemeralContainerStatuses"][1]["state"]["running"].is_null()).then_some(())
    });
    let pod = cluster.json(&["get", "pod", "web"]);
    // What it last wrote may have been added to how it ended.
    let now = &pod["status"]["ephemeralContainerStatuses"][0];
    for part in ["/containerID", "/restartCount", "/state/terminated/startedAt"] {
        assert_eq!(now.pointer(part), status.pointer(part), "it was not started again");
    }
    assert_eq!(pod["status"]["containerStatuses"][0]["ready"], Value::Bool(true));
    assert_eq!(pod["status"]["phase"], "Running");
    assert!(cluster.kubectl(&["logs", "web", "-c", "again"]).contains("started"));
    assert_eq!(cluster.kubectl(&["exec", "web", "-c", "again", "--", "echo", "hi"]), "hi\n");
    let out = cluster.try_kubectl(&["debug", "web", "--image=sim/tool:1", "--target=nobody", "-c", "lost"]);
    assert!(text(&out.stderr).contains("targetContainerName: Not found: \"nobody\""), "{}", text(&out.stderr));
}
