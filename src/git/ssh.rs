//! Git over ssh, through the machine's own ssh program: its keys, its agent, its `known_hosts`, its configuration.
//!
//! Every argument is either a constant or a part of a strictly parsed address (see `address`), and the host stands behind `--`. A host
//! key that is not known is refused; nobody is ever asked a question.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::address::Address;
use super::error::FetchErrorKind;
use super::transport::Connection;

/// Of what ssh complains, this much is kept, in bytes.
const MOST_COMPLAINT: usize = 4096;

/// A running `git-upload-pack` on the other side.
pub(super) struct Pipe {
    connection: Arc<Connection>,
    input: Option<ChildStdin>,
    output: ChildStdout,
    child: Arc<Mutex<Child>>,
    complaint: Arc<Mutex<Vec<u8>>>,
    listener: Option<JoinHandle<()>>,
    /// Dropped to tell the watchdog that all is over.
    _alive: Sender<()>,
    _keys: Vec<Secret>,
}

/// Starts the program and hands back its ends.
pub(super) fn open(connection: &Arc<Connection>) -> Result<Pipe, git2::Error> {
    let fail = |kind, text: String| connection.fail(connection.error(kind, text));
    let Address::Ssh { user, host, port, path } = &connection.address else {
        return Err(fail(FetchErrorKind::BadAddress, "this is not an ssh address".into()));
    };
    let mut keys = Vec::new();
    let mut command = Command::new("ssh");
    command.args(["-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=15"]);
    command.args([
        "-o",
        "ServerAliveInterval=10",
        "-o",
        "ServerAliveCountMax=3",
        "-o",
        "ForwardAgent=no",
        "-o",
        "ClearAllForwardings=yes",
    ]);
    command.args(["-o", "PermitLocalCommand=no"]);
    let secret = |text: &str, keys: &mut Vec<Secret>| -> Result<PathBuf, git2::Error> {
        let file = Secret::write(&connection.scratch, text)
            .map_err(|e| fail(FetchErrorKind::Local, format!("a key could not be written: {e}")))?;
        let path = file.0.clone();
        keys.push(file);
        Ok(path)
    };
    let given = &connection.credentials;
    if !given.ssh_private_key.is_empty() {
        // With a key of its own the connection is to be the same whoever runs us.
        let path = secret(&given.ssh_private_key, &mut keys)?;
        command.args(["-F", "none", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-i"]).arg(path);
    }
    if !given.known_hosts.is_empty() {
        let path = secret(&given.known_hosts, &mut keys)?;
        command
            .arg("-o")
            .arg(format!("UserKnownHostsFile=\"{}\"", path.display()))
            .args(["-o", "GlobalKnownHostsFile=/dev/null"]);
    }
    if let Some(port) = port {
        command.arg("-p").arg(port.to_string());
    }
    if let Some(user) = user {
        command.arg("-l").arg(user);
    }
    // The address has no quotes, so one pair of them is enough for the shell on the other side.
    command.arg("--").arg(host.trim_matches(['[', ']'])).arg(format!("git-upload-pack '{path}'"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("GIT_SSH_COMMAND").env("LC_ALL", "C");
    let mut child =
        command.spawn().map_err(|e| fail(FetchErrorKind::Local, format!("the ssh program could not be started: {e}")))?;
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(input), Some(output), Some(mut errors)) = (input, output, errors) else {
        return Err(fail(FetchErrorKind::Local, "the ssh program has no pipes".into()));
    };
    let child = Arc::new(Mutex::new(child));
    let (alive, over) = channel::<()>();
    let (watched, left) = (child.clone(), connection.left());
    std::thread::spawn(move || {
        if over.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            let _ = watched.lock().kill();
        }
    });
    let complaint = Arc::new(Mutex::new(Vec::new()));
    let heard = complaint.clone();
    let listener = std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(n @ 1..) = errors.read(&mut buffer) {
            let mut heard = heard.lock();
            let room = MOST_COMPLAINT.saturating_sub(heard.len());
            heard.extend_from_slice(&buffer[..n.min(room)]);
        }
    });
    let connection = connection.clone();
    Ok(Pipe { connection, input: Some(input), output, child, complaint, listener: Some(listener), _alive: alive, _keys: keys })
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.output.read(buffer)?;
        self.connection.count(n)?;
        if n == 0 && !buffer.is_empty() {
            return Err(self.explain());
        }
        Ok(n)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.input.as_mut().map_or(Ok(0), |i| i.write(bytes));
        done.map_err(|_| self.explain())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.input.as_mut().map_or(Ok(()), ChildStdin::flush)
    }
}

impl Pipe {
    /// The other side ended too early: what ssh and git said about it.
    fn explain(&mut self) -> io::Error {
        self.input = None;
        if let Some(listener) = self.listener.take() {
            // Its output has ended, so it is about to go; if it is not, it is made to.
            for _ in 0..40 {
                if matches!(self.child.lock().try_wait(), Ok(Some(_))) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = self.child.lock().kill();
            let _ = listener.join();
        }
        let said = String::from_utf8_lossy(&self.complaint.lock()).into_owned();
        let (kind, hint) = judge(&said);
        let cause = if said.trim().is_empty() { "the connection ended early" } else { said.trim() };
        let error = self.connection.error(kind, cause);
        let error = match hint {
            Some(hint) => error.hint(hint),
            None => error,
        };
        io::Error::other(self.connection.fail(error).message().to_owned())
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.input = None;
        let mut child = self.child.lock();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// What kind of failure ssh's words mean.
fn judge(said: &str) -> (FetchErrorKind, Option<&'static str>) {
    let has = |words: &[&str]| words.iter().any(|w| said.contains(w));
    if has(&["Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED", "No matching host key"]) {
        let hint =
            "add the host's key to known_hosts of the server's user, or as `known_hosts` to the Secret in spec.source.secretName";
        return (FetchErrorKind::Denied, Some(hint));
    }
    if has(&["Permission denied", "Too many authentication failures", "Access denied", "access rights"]) {
        let hint = "give a key that may read the repository as `ssh-privatekey` in the Secret that spec.source.secretName names";
        return (FetchErrorKind::Denied, Some(hint));
    }
    if has(&["does not appear to be a git repository", "epository not found", "not exist", "not found"]) {
        return (FetchErrorKind::NoSuchRepository, None);
    }
    (FetchErrorKind::Unreachable, None)
}

/// A file that only we can read and that goes away with us.
struct Secret(PathBuf);

impl Secret {
    fn write(scratch: &Path, text: &str) -> io::Result<Secret> {
        use std::os::unix::fs::OpenOptionsExt;
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        std::fs::create_dir_all(scratch)?;
        let path = scratch.join(format!("key-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
        // Left over by a process of the same id that was killed.
        let _ = std::fs::remove_file(&path);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let secret = Secret(path);
        file.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            file.write_all(b"\n")?; // ssh refuses a key whose last line does not end
        }
        Ok(secret)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
