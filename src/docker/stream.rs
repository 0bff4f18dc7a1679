//! What flows between us and a container: logs, exec and attach sessions, hints.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use tokio::io::AsyncWrite;

use super::EngineError;

/// Values that arrive one by one. An error is the last.
pub type Flow<T> = BoxStream<'static, Result<T, EngineError>>;

/// Which output a byte came from. A terminal has only [`Channel::Stdout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Some output of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it came from.
    pub channel: Channel,
    /// The bytes, as they came: not lines.
    pub bytes: Bytes,
}

/// One entry of a log: a line with its newline, or a piece of a long line without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it came from.
    pub channel: Channel,
    /// When it was written, where the engine says.
    pub at: Option<Timestamp>,
    /// The bytes.
    pub bytes: Bytes,
}

/// What to read of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogOptions {
    /// Whether to go on until the container ends.
    pub follow: bool,
    /// Only the last so many entries.
    pub tail: Option<u64>,
    /// Only entries at this time or later.
    pub since: Option<Timestamp>,
    /// Whether standard output is wanted.
    pub stdout: bool,
    /// Whether standard error is wanted.
    pub stderr: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions { follow: false, tail: None, since: None, stdout: true, stderr: true }
    }
}

/// A process to start in a running container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether it gets a standard input.
    pub stdin: bool,
    /// Whether its standard output is wanted.
    pub stdout: bool,
    /// Whether its standard error is wanted.
    pub stderr: bool,
    /// The terminal's first size, width and height.
    pub size: Option<(u16, u16)>,
}

/// What to connect to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttachSpec {
    /// Whether standard input is wanted.
    pub stdin: bool,
    /// Whether standard output is wanted.
    pub stdout: bool,
    /// Whether standard error is wanted.
    pub stderr: bool,
}

/// A process that we talk to.
pub struct Session {
    /// For [`resize_exec`](super::Engine::resize_exec) and [`exec_exit`](super::Engine::exec_exit); the container's id when attached.
    pub id: String,
    /// What it writes. Ends when the process ends or lets go of its outputs.
    pub output: Flow<Chunk>,
    /// Where to write its standard input. Shutting it down is the end of input.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// Something happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The container.
    pub container: String,
    /// What: `create`, `start`, `die`, `oom`, `destroy`, or another word of the engine.
    pub action: String,
}
