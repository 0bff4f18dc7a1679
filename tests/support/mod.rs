//! What the tests of whole processes share: a cluster of real processes, a repository, and the ways in which people look at them.
//!
//! Nothing here knows what is being tested. Docker hosts come from `tests/hosts/hosts.sh`, which `make test` runs before; a test that
//! needs them and has none says so by name and is counted as skipped.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The binary under test.
pub(crate) const PORTOLAN: &str = env!("CARGO_BIN_EXE_portolan");

/// The Docker hosts of this run.
pub(crate) struct Hosts {
    /// The directory of `hosts.sh`.
    pub(crate) dir: PathBuf,
    /// The address of the bridge, on which servers listen.
    pub(crate) bridge: String,
    /// One test at a time has the hosts: they share two cores.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());
static PORT: AtomicU16 = AtomicU16::new(0);

impl Hosts {
    /// The hosts, or a named skip.
    pub(crate) fn take(test: &str) -> Option<Hosts> {
        let Some(dir) = std::env::var_os("PORTOLAN_TEST_HOSTS").map(PathBuf::from) else {
            skip(test, "PORTOLAN_TEST_HOSTS names no Docker hosts (make test starts them)");
            return None;
        };
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let env = std::fs::read_to_string(dir.join("env")).expect("the hosts are up");
        let bridge = env.lines().find_map(|l| l.strip_prefix("BRIDGE_IP=")).expect("the bridge has an address").to_owned();
        let hosts = Hosts { dir, bridge, _turn: turn };
        for host in hosts.names() {
            // What an earlier test left: its cluster is gone, so nobody else will remove it.
            for container in hosts.containers(&host).iter().filter(|c| !c.pod_uid.is_empty()) {
                hosts.docker(&host, "DELETE", &format!("/containers/{}?force=1&v=1", container.id));
            }
        }
        Some(hosts)
    }
    /// The names of the hosts.
    pub(crate) fn names(&self) -> Vec<String> {
        ["h1", "h2", "h3"].map(str::to_owned).to_vec()
    }
    /// The containers of pods (not their sandboxes) that run now, on all hosts, with the host's name.
    pub(crate) fn running(&self) -> Vec<(String, Container)> {
        let mut all = Vec::new();
        for host in self.names() {
            for container in self.containers(&host) {
                if container.state == "running" && !container.pod_uid.is_empty() && container.container != "POD" {
                    all.push((host.clone(), container));
                }
            }
        }
        all.sort();
        all
    }
    /// Runs a verb of `hosts.sh`.
    pub(crate) fn sh(&self, verb: &str, args: &[&str]) -> String {
        let mut command = Command::new(script());
        command.arg(verb).arg(&self.dir).args(args);
        // Not a pipe: a daemon that the script starts would hold its end open.
        let out = self.dir.join(format!("{verb}.out"));
        let file = std::fs::File::create(&out).unwrap();
        let status = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
        let text = std::fs::read_to_string(&out).unwrap();
        assert!(status.success(), "hosts.sh {verb} {args:?}: {text}");
        text
    }
    /// The Docker socket of a host.
    pub(crate) fn socket(&self, host: &str) -> PathBuf {
        self.dir.join(host).join("docker.sock")
    }
    /// Asks a host's Docker.
    pub(crate) fn docker(&self, host: &str, method: &str, path: &str) -> Value {
        let out = run(Command::new("curl")
            .args(["-sS", "--max-time", "20", "-X", method, "--unix-socket"])
            .arg(self.socket(host))
            .arg(format!("http://docker{path}")));
        serde_json::from_str(&out).unwrap_or(Value::Null)
    }
    /// All containers of a host, or of a pod namespace's cluster, running or not.
    pub(crate) fn containers(&self, host: &str) -> Vec<Container> {
        let list = self.docker(host, "GET", "/containers/json?all=1");
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        list.as_array()
            .into_iter()
            .flatten()
            .map(|c| Container {
                id: text(&c["Id"]),
                name: text(&c["Names"][0]).trim_start_matches('/').to_owned(),
                state: text(&c["State"]),
                image: text(&c["Image"]),
                pod: text(&c["Labels"]["io.kubernetes.pod.name"]),
                pod_uid: text(&c["Labels"]["io.kubernetes.pod.uid"]),
                container: text(&c["Labels"]["io.kubernetes.container.name"]),
            })
            .collect()
    }
}

/// One container, as Docker shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Container {
    /// Docker's id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// `running`, `exited` …
    pub(crate) state: String,
    /// Its image, as asked for.
    pub(crate) image: String,
    /// The pod's name; empty for foreign containers.
    pub(crate) pod: String,
    /// The pod's uid.
    pub(crate) pod_uid: String,
    /// The container's name in the pod; `POD` is the sandbox.
    pub(crate) container: String,
}

/// Counts and names a test that could not run here.
pub(crate) fn skip(test: &str, why: &str) {
    let line = format!("SKIPPED {test}: {why}\n");
    match std::env::var_os("PORTOLAN_TEST_SKIPS") {
        Some(file) => {
            std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap().write_all(line.as_bytes()).unwrap();
        }
        None => eprint!("{line}"),
    }
}

/// A kubectl that speaks only SPDY (`tests/hosts/install.sh test` fetches it), or a named skip.
pub(crate) fn old_kubectl(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PORTOLAN_TEST_OLD_KUBECTL").map(PathBuf::from);
    let path =
        path.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/kubernetes-client/usr/bin/kubectl"));
    if path.exists() {
        return Some(path);
    }
    skip(test, "no kubectl from before WebSockets (make test fetches one)");
    None
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts/hosts.sh")
}

/// Runs a command that must succeed, and returns what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let out = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}\n{}{}", out.status, text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

/// Bytes as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until a condition holds; says what it waited for when it never does.
pub(crate) fn eventually<T>(seconds: u64, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A git repository with a work tree, to which tests commit.
pub(crate) struct Repo {
    /// The work tree.
    pub(crate) dir: PathBuf,
    bare: PathBuf,
}

impl Repo {
    /// A repository whose bare twin (the one that is watched) is beside it.
    pub(crate) fn new(dir: &Path) -> Repo {
        let (work, bare) = (dir.join("work"), dir.join("shop.git"));
        run(Command::new("git").args(["init", "-q", "--bare", "-b", "main"]).arg(&bare));
        run(Command::new("git").args(["init", "-q", "-b", "main"]).arg(&work));
        let repo = Repo { dir: work, bare };
        repo.git(&["config", "user.name", "Ada"]);
        repo.git(&["config", "user.email", "ada@example.org"]);
        repo.git(&["remote", "add", "origin", repo.bare.to_str().unwrap()]);
        repo
    }
    /// The repository that portolan watches.
    pub(crate) fn url(&self) -> &str {
        self.bare.to_str().unwrap()
    }
    /// Runs git in the work tree.
    pub(crate) fn git(&self, args: &[&str]) -> String {
        run(Command::new("git").arg("-C").arg(&self.dir).args(args)).trim().to_owned()
    }
    /// Writes a file of the work tree.
    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    /// Replaces text in a file of the work tree; the text must be there.
    pub(crate) fn edit(&self, path: &str, from: &str, to: &str) {
        let file = self.dir.join(path);
        let old = std::fs::read_to_string(&file).unwrap();
        assert!(old.contains(from), "{path} has no {from:?}");
        std::fs::write(file, old.replace(from, to)).unwrap();
    }
    /// Commits everything and pushes; the commit's id.
    pub(crate) fn push(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["push", "-q", "-f", "origin", "HEAD:main"]);
        self.head()
    }
    /// Reverts the newest commit and pushes.
    pub(crate) fn revert(&self) -> String {
        self.git(&["revert", "--no-edit", "HEAD"]);
        self.git(&["push", "-q", "origin", "HEAD:main"]);
        self.head()
    }
    /// The newest commit.
    pub(crate) fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }
    /// Puts the example repository into the work tree.
    pub(crate) fn copy_examples(&self) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples-repo/.");
        run(Command::new("cp").arg("-r").arg(from).arg(&self.dir));
    }
}

/// A server, agents, and a repository that it follows. Everything ends with it.
pub(crate) struct Cluster {
    /// Its files.
    pub(crate) dir: PathBuf,
    /// What it follows.
    pub(crate) repo: Repo,
    /// The server's address.
    pub(crate) url: String,
    listen: String,
    flags: Vec<String>,
    server: Option<Child>,
    agents: BTreeMap<String, Child>,
    keep: Option<tempfile::TempDir>,
}

impl Cluster {
    /// A running server that follows an empty repository's `main`, path `apps`. `listen` is an address without a port.
    pub(crate) fn start(listen: &str, flags: &[&str]) -> Cluster {
        let keep = tempfile::Builder::new().prefix("portolan-test-").tempdir().unwrap();
        let dir = keep.path().to_owned();
        // Ports below the ephemeral range, different in each test of a run and hardly the same in two runs.
        let base = 20000 + (std::process::id() % 1000) as u16 * 10;
        let listen = format!("{listen}:{}", base + PORT.fetch_add(1, Ordering::Relaxed));
        let mut cluster = Cluster {
            repo: Repo::new(&dir),
            url: format!("https://{listen}"),
            listen,
            flags: flags.iter().map(|f| (*f).to_owned()).collect(),
            server: None,
            agents: BTreeMap::new(),
            keep: Some(keep),
            dir,
        };
        cluster.start_server();
        std::fs::write(cluster.kubeconfig(), run(cluster.portolan(&["kubeconfig"]))).unwrap();
        cluster
    }
    /// Starts the server and waits until it serves.
    pub(crate) fn start_server(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("server.log")).unwrap();
        let child = Command::new(PORTOLAN)
            .arg("server")
            .arg("--data-dir")
            .arg(self.dir.join("server"))
            .args(["--listen", &self.listen, "--repo", self.repo.url(), "--revision", "main", "--path", "apps"])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(child);
        let url = format!("{}/readyz", self.url);
        eventually(20, "the server is ready", || {
            let ok = Command::new("curl").args(["-fsk", "--max-time", "2", &url]).output().unwrap().status.success();
            ok.then_some(())
        });
    }
    /// The server's process id.
    pub(crate) fn server_pid(&self) -> u32 {
        self.server.as_ref().expect("the server runs").id()
    }
    /// kill -9.
    pub(crate) fn kill_server(&mut self) {
        let mut child = self.server.take().expect("the server runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    /// Asks the server to stop, and waits until it has.
    pub(crate) fn stop_server(&mut self) {
        let mut child = self.server.take().expect("the server runs");
        run(Command::new("kill").args(["-TERM", &child.id().to_string()]));
        child.wait().unwrap();
    }
    /// Starts an agent on a Docker host, in its network.
    pub(crate) fn start_agent(&mut self, hosts: &Hosts, host: &str) {
        let netns = format!("/run/netns/{}{host}", hosts.sh("env", &[]).lines().find_map(|l| l.strip_prefix("PREFIX=")).unwrap());
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={netns}")).arg(PORTOLAN);
        self.spawn_agent(command, host, &["--docker", hosts.socket(host).to_str().unwrap()]);
    }
    /// Starts an agent with the simulated engine.
    pub(crate) fn start_simulated(&mut self, node: &str) {
        self.spawn_agent(Command::new(PORTOLAN), node, &["--engine", "simulated"]);
    }
    fn spawn_agent(&mut self, mut command: Command, node: &str, flags: &[&str]) {
        let data = self.dir.join(node);
        let token = if data.exists() { String::new() } else { run(self.portolan(&["token", "create"])).trim().to_owned() };
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join(format!("{node}.log"))).unwrap();
        command
            .arg("agent")
            .args(["--server", &self.url, "--node-name", node, "--heartbeat", "2s", "--node-lease", "8s"])
            .arg("--data-dir")
            .arg(data)
            .args(flags);
        if !token.is_empty() {
            command.args(["--token", &token]);
        }
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.agents.insert(node.to_owned(), child);
    }
    /// kill -9.
    pub(crate) fn kill_agent(&mut self, node: &str) {
        let mut child = self.agents.remove(node).expect("the agent runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    /// Waits until so many nodes are Ready.
    pub(crate) fn await_nodes(&self, count: usize) {
        eventually(30, &format!("{count} nodes are ready"), || {
            let nodes = self.json(&["get", "nodes"]);
            let ready = items(&nodes).filter(|n| condition(n, "Ready") == "True").count();
            (ready >= count).then_some(())
        });
    }
    /// The admin's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }
    /// A portolan command against this cluster.
    pub(crate) fn portolan<'a>(&self, args: &[&'a str]) -> &'a mut Command {
        let mut command = Box::new(Command::new(PORTOLAN));
        command.args(args).env("PORTOLAN_DATA_DIR", self.dir.join("server")).current_dir(&self.repo.dir).stdin(Stdio::null());
        Box::leak(command)
    }
    /// Runs a portolan command to its end, whatever its exit code.
    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.portolan(args).output().unwrap()
    }
    /// The exit code of `portolan wait` for a commit.
    pub(crate) fn wait(&self, commit: &str, seconds: u32) -> i32 {
        let out = self.output(&["wait", "--commit", commit, "--timeout", &format!("{seconds}s")]);
        let code = out.status.code().unwrap_or(-1);
        eprintln!("wait {commit}: {code}\n{}{}", text(&out.stdout), text(&out.stderr));
        code
    }
    /// The real kubectl; must succeed.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        let out = self.try_kubectl(args);
        assert!(out.status.success(), "kubectl {args:?}: {}{}", text(&out.stdout), text(&out.stderr));
        text(&out.stdout)
    }
    /// The real kubectl, whatever comes of it.
    pub(crate) fn try_kubectl(&self, args: &[&str]) -> Output {
        self.command("kubectl".as_ref(), args).output().expect("kubectl is installed")
    }
    /// Some kubectl against this cluster, without an input.
    pub(crate) fn command(&self, kubectl: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(kubectl);
        command.args(args).env("KUBECONFIG", self.kubeconfig()).env("HOME", &self.dir).stdin(Stdio::null());
        command
    }
    /// A command in a terminal of its own. Each line of the talk is done when the terminal shows, after what was awaited before, what it
    /// waits for. What the terminal showed, and the exit code.
    pub(crate) fn in_a_terminal(&self, kubectl: &Path, args: &[&str], talk: &[(&str, Do)]) -> (String, i32) {
        let quoted: Vec<String> = args.iter().map(|word| format!("'{word}'")).collect();
        let tty = self.dir.join("tty");
        let line = format!("stty rows 24 cols 80; tty >{}; exec {} {}", tty.display(), kubectl.display(), quoted.join(" "));
        let mut command = self.command("script".as_ref(), &["-qefc", &line, "/dev/null"]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script is installed");
        let mut child = Ended(child);
        let mut input = child.0.stdin.take().unwrap();
        let mut output = child.0.stdout.take().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = screen.clone();
        let reading = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                shown.lock().unwrap().push_str(&text(&buffer[..read]));
            }
        });
        let mut from = 0;
        for (awaited, act) in talk {
            let deadline = Instant::now() + Duration::from_secs(60);
            from = loop {
                let now = screen.lock().unwrap().clone();
                if let Some(at) = now[from..].find(awaited) {
                    break from + at + awaited.len();
                }
                assert!(Instant::now() < deadline, "{args:?}: {awaited:?} is not shown: {now}");
                std::thread::sleep(Duration::from_millis(50));
            };
            match act {
                Do::Type(line) => input.write_all(format!("{line}\n").as_bytes()).unwrap(),
                Do::Resize(rows, columns) => {
                    let path = std::fs::read_to_string(&tty).unwrap();
                    run(Command::new("stty").args(["-F", path.trim(), "rows", &rows.to_string(), "cols", &columns.to_string()]));
                }
            }
        }
        let code = eventually(60, &format!("{args:?} ends: {}", screen.lock().unwrap()), || child.0.try_wait().unwrap());
        reading.join().unwrap();
        let shown = screen.lock().unwrap().clone();
        (shown, code.code().unwrap_or(-1))
    }
    /// What kubectl gets, as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let out = self.try_kubectl(&[args, &["-o", "json"]].concat());
        serde_json::from_slice(&out.stdout).unwrap_or(Value::Null)
    }
    /// The server's log.
    pub(crate) fn log(&self, of: &str) -> String {
        std::fs::read_to_string(self.dir.join(format!("{of}.log"))).unwrap_or_default()
    }
}

/// What somebody does at a terminal.
pub(crate) enum Do {
    /// Types a line.
    Type(&'static str),
    /// Gives it so many rows and columns.
    Resize(u16, u16),
}

/// A process that is ended with its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for of in ["server"].into_iter().chain(self.agents.keys().map(String::as_str)) {
                let log = self.log(of);
                let tail = log.lines().rev().take(60).collect::<Vec<_>>();
                eprintln!("--- {of}.log, the last lines");
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
            eprintln!("--- status\n{}", text(&self.output(&["status"]).stdout));
            eprintln!("--- pods\n{}", text(&self.try_kubectl(&["get", "pods", "-A", "-o", "wide"]).stdout));
            if std::env::var_os("KEEP").is_some() {
                eprintln!("--- kept: {}", self.keep.take().unwrap().keep().display());
            }
        }
        for child in self.agents.values_mut().chain(self.server.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The items of a list.
pub(crate) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// The status of a condition: `True`, `False`, `Unknown`, or nothing.
pub(crate) fn condition<'a>(object: &'a Value, name: &str) -> &'a str {
    object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["type"] == name)
        .and_then(|c| c["status"].as_str())
        .unwrap_or_default()
}
