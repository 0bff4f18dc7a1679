//! A house for a benchmark: a server, agents and a repository, as processes and files of their own, ended and removed with it.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};

use super::{Host, Options};

/// A running house.
pub(super) struct House {
    /// Its files.
    pub dir: PathBuf,
    /// Where the server listens.
    pub address: SocketAddr,
    /// The server's process id.
    pub server: u32,
    /// The agents' process ids.
    pub agents: Vec<u32>,
    logs: PathBuf,
    repository: git2::Repository,
    /// The arguments that the server was started with.
    arguments: Vec<OsString>,
    /// The server first.
    children: Vec<Child>,
}

impl House {
    /// A server with an empty repository, and agents on these hosts.
    pub(super) async fn start(options: &Options, hosts: &[Host]) -> Result<House> {
        House::start_with(options, hosts, &[]).await
    }

    /// The same, with more flags for the server.
    pub(super) async fn start_with(options: &Options, hosts: &[Host], flags: &[&str]) -> Result<House> {
        let mut noise = [0; 6];
        getrandom::fill(&mut noise).context("draw a name")?;
        let dir = std::env::temp_dir().join(format!("portolan-bench-{}", noise.map(|b| format!("{b:02x}")).concat()));
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let repository = repository(&dir)?;
        let logs = options.logs.clone().unwrap_or_else(|| dir.clone());
        std::fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        commit_files::<&str, &str>(&repository, "Nothing yet", &[])?;
        let address = TcpListener::bind((options.listen.as_str(), 0)).and_then(|l| l.local_addr()).context("find a free port")?;
        let listen = address.to_string();
        let mut arguments: Vec<OsString> =
            ["server", "--listen", &listen, "--revision", "main", "--path", "apps", "--repo"].map(Into::into).into();
        arguments.extend([repository.path().into(), "--data-dir".into(), dir.join("server").into()]);
        arguments.extend(flags.iter().map(Into::into));
        let mut house = House { dir, address, server: 0, agents: Vec::new(), logs, repository, arguments, children: Vec::new() };
        let mut server = house.command(None)?;
        server.args(&house.arguments);
        house.server = house.spawn(server, "server")?;
        house.retry("reach the server", &["get", "nodes"]).await?;

        for host in hosts {
            let token = house.portolan(&["token", "create"]).await?;
            let mut agent = house.command(host.netns.as_deref())?;
            agent.args(["agent", "--server", &format!("https://{listen}"), "--token", token.trim(), "--node-name", &host.name]);
            agent.arg("--docker").arg(&host.socket).arg("--data-dir").arg(house.dir.join(&host.name));
            let pid = house.spawn(agent, &host.name)?;
            house.agents.push(pid);
        }
        for _ in 0..300 {
            let nodes = house.json(&["get", "nodes", "-o", "json"]).await?;
            let ready = nodes["items"].as_array().into_iter().flatten().filter(|node| {
                let conditions = node["status"]["conditions"].as_array();
                conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
            });
            if ready.count() >= hosts.len() {
                return Ok(house);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("the agents did not register");
    }

    fn command(&self, netns: Option<&Path>) -> Result<Command> {
        let exe = std::env::current_exe().context("find this binary")?;
        Ok(match netns {
            None => Command::new(exe),
            Some(netns) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", netns.display())).arg(exe);
                command
            }
        })
    }

    fn spawn(&mut self, mut command: Command, name: &str) -> Result<u32> {
        let log = std::fs::File::options().create(true).append(true).open(self.logs.join(format!("{name}.log")));
        let log = log.context("open a log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share a log")?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let pid = child.id().context("it ended at once")?;
        self.children.push(child);
        Ok(pid)
    }

    /// Kills the server, as a power cut would, and starts it again.
    pub(super) async fn restart(&mut self) -> Result<()> {
        self.children[0].kill().await.context("kill the server")?;
        let mut server = self.command(None)?;
        server.args(&self.arguments);
        self.server = self.spawn(server, "server")?;
        let started = self.children.pop().expect("it was just started");
        self.children[0] = started;
        Ok(())
    }

    /// Runs a portolan command against this house; what it printed.
    pub(super) async fn portolan(&self, args: &[&str]) -> Result<String> {
        let mut command = self.command(None)?;
        command.args(args).env("PORTOLAN_DATA_DIR", self.dir.join("server")).stdin(Stdio::null());
        let out = command.output().await.with_context(|| format!("run portolan {}", args.join(" ")))?;
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        ensure!(out.status.success(), "portolan {}: {}: {}", args.join(" "), out.status, text.trim());
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Like [`House::portolan`], for commands that print JSON.
    pub(super) async fn json(&self, args: &[&str]) -> Result<serde_json::Value> {
        serde_json::from_str(&self.portolan(args).await?)
            .with_context(|| format!("read what portolan {} printed", args.join(" ")))
    }

    async fn retry(&self, what: &str, args: &[&str]) -> Result<()> {
        let mut last = None;
        for _ in 0..200 {
            match self.portolan(args).await {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(last.expect("it was tried").context(what.to_owned()))
    }

    /// Commits these files (and no others) below `apps/`, straight into the repository that is watched. The commit's id.
    pub(super) fn commit<A: AsRef<str>, B: AsRef<str>>(&self, message: &str, files: &[(A, B)]) -> Result<String> {
        commit_files(&self.repository, message, files)
    }

    /// A commit on top of `main` in which one file below `apps/` is another. Nobody has it yet: `main` is where it was.
    pub(super) fn change(&self, message: &str, path: &str, content: &str) -> Result<String> {
        let write = || -> Result<git2::Oid, git2::Error> {
            let parent = self.repository.find_reference("refs/heads/main")?.peel_to_commit()?;
            let blob = self.repository.blob(content.as_bytes())?;
            let mut update = git2::build::TreeUpdateBuilder::new();
            update.upsert(format!("apps/{path}"), blob, git2::FileMode::Blob);
            let tree = self.repository.find_tree(update.create_updated(&self.repository, &parent.tree()?)?)?;
            let author = git2::Signature::now("bench", "bench@example.org")?;
            self.repository.commit(None, &author, &author, message, &tree, &[&parent])
        };
        Ok(write().context("make a commit")?.to_string())
    }

    /// Moves `main` to a commit, as the end of a push does.
    pub(super) fn push(&self, commit: &str) -> Result<()> {
        let id = git2::Oid::from_str(commit).context("read a commit id")?;
        self.repository.reference("refs/heads/main", id, true, "push").context("move main")?;
        Ok(())
    }

    /// The repository that is watched.
    pub(super) fn repository(&self) -> &Path {
        self.repository.path()
    }

    /// Ends the house and removes the containers of its own pods from these hosts.
    pub(super) async fn end(self, hosts: &[Host]) -> Result<()> {
        let pods = self.json(&["get", "pods", "-A", "-o", "json"]).await?;
        let uids: Vec<_> = pods["items"].as_array().into_iter().flatten().filter_map(|p| p["metadata"]["uid"].as_str()).collect();
        let mut ours = Vec::new();
        for host in hosts {
            let engine = super::engine(host);
            for container in engine.list(&["io.kubernetes.pod.uid".to_owned()]).await? {
                if container.labels.get("io.kubernetes.pod.uid").is_some_and(|uid| uids.contains(&uid.as_str())) {
                    ours.push((engine.clone(), container.id));
                }
            }
        }
        drop(self);
        for (engine, id) in ours {
            engine.remove(&id, true).await?;
        }
        Ok(())
    }

    /// Waits until a commit is healthy.
    pub(super) async fn healthy(&self, commit: &str) -> Result<()> {
        self.portolan(&["wait", "--commit", commit, "--timeout", "300s"]).await.map(drop)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// An empty bare repository in a directory.
pub(super) fn repository(dir: &Path) -> Result<git2::Repository> {
    let mut init = git2::RepositoryInitOptions::new();
    init.bare(true).initial_head("main");
    git2::Repository::init_opts(dir.join("repository.git"), &init).context("create a repository")
}

/// A push of so many objects arrives as one pack: git's own limit (`transfer.unpackLimit`).
const PACKED: usize = 100;

/// Commits these files (and no others) below `apps/` to `main`. Paths may have directories. The commit's id.
pub(super) fn commit_files<A: AsRef<str>, B: AsRef<str>>(
    repository: &git2::Repository,
    message: &str,
    files: &[(A, B)],
) -> Result<String> {
    let write = || -> Result<git2::Oid, git2::Error> {
        // Objects are gathered in memory and go to the disk as what a push of as many would be there: a pack, or files.
        let gathered = git2::Repository::open(repository.path())?;
        let odb = gathered.odb()?;
        let pack = if files.len() >= PACKED { Some(odb.add_new_mempack_backend(1000)?) } else { None };
        let mut update = git2::build::TreeUpdateBuilder::new();
        for (path, content) in files {
            let blob = gathered.blob(content.as_ref().as_bytes())?;
            update.upsert(format!("apps/{}", path.as_ref()), blob, git2::FileMode::Blob);
        }
        let empty = gathered.find_tree(gathered.treebuilder(None)?.write()?)?;
        let changed = if files.is_empty() {
            let mut root = gathered.treebuilder(None)?;
            root.insert("apps", empty.id(), 0o040_000)?;
            root.write()?
        } else {
            update.create_updated(&gathered, &empty)?
        };
        let tree = gathered.find_tree(changed)?;
        let author = git2::Signature::now("bench", "bench@example.org")?;
        let parent = gathered.head().and_then(|head| head.peel_to_commit()).ok();
        let parents: Vec<_> = parent.iter().collect();
        let commit = gathered.commit(None, &author, &author, message, &tree, &parents)?;
        if let Some(pack) = pack {
            let mut bytes = git2::Buf::new();
            pack.dump(&gathered, &mut bytes)?;
            let into = repository.odb()?;
            let mut writer = into.packwriter()?;
            std::io::Write::write_all(&mut writer, &bytes).map_err(|e| git2::Error::from_str(&e.to_string()))?;
            writer.commit()?;
        }
        repository.reference("refs/heads/main", commit, true, message)?;
        Ok(commit)
    };
    Ok(write().context("commit to the repository")?.to_string())
}

/// A Deployment of `replicas` pods that stop at once, spread evenly by the scheduler. They speak to nobody and get no token.
pub(super) fn deployment(name: &str, replicas: usize, image: &str, version: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: {name}}}}}\n  \
         strategy: {{rollingUpdate: {{maxSurge: 1, maxUnavailable: 0}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      \
         automountServiceAccountToken: false\n      containers:\n        - name: main\n          image: {image}\n          env: [{{name: VERSION, value: \"{version}\"}}]\n"
    )
}
