//! Calls of the engine as values.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::{
    ContainerSpec, ContainerState, Engine, EngineError, ExecSpec, ImageState, Info, LogOptions, RegistryAuth, Resources, Summary,
};

/// One thing to ask of an engine.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Operation {
    /// [`Engine::info`].
    Info,
    /// [`Engine::list`].
    List {
        /// Labels, as `key` or `key=value`.
        labels: Vec<String>,
    },
    /// [`Engine::inspect`].
    Inspect {
        /// Id or name.
        id: String,
    },
    /// [`Engine::create`].
    Create {
        /// The name.
        name: String,
        /// What to create.
        spec: Box<ContainerSpec>,
    },
    /// [`Engine::start`].
    Start {
        /// Id or name.
        id: String,
    },
    /// [`Engine::stop`].
    Stop {
        /// Id or name.
        id: String,
        /// How long it may take, in seconds.
        grace: u32,
    },
    /// [`Engine::kill`].
    Kill {
        /// Id or name.
        id: String,
        /// The signal, such as `SIGKILL`.
        signal: String,
    },
    /// [`Engine::remove`].
    Remove {
        /// Id or name.
        id: String,
        /// Whether to kill first.
        force: bool,
    },
    /// [`Engine::update`].
    Update {
        /// Id or name.
        id: String,
        /// The new limits.
        resources: Resources,
    },
    /// [`Engine::image`].
    Image {
        /// Name or id.
        reference: String,
    },
    /// [`Engine::pull`].
    Pull {
        /// The image.
        reference: String,
        /// Who we are. Never written down.
        #[serde(skip)]
        auth: Option<RegistryAuth>,
    },
    /// [`Engine::remove_image`].
    RemoveImage {
        /// Name or id.
        reference: String,
    },
    /// Runs a command in a container to its end, as a probe or a hook does.
    Run {
        /// Id or name.
        id: String,
        /// Program and arguments.
        command: Vec<String>,
        /// How long it may take.
        timeout: Duration,
    },
    /// The end of a container's log, as one piece.
    LogTail {
        /// Id or name.
        id: String,
        /// At most so many entries.
        lines: u64,
        /// At most so many bytes, counted from the end.
        bytes: usize,
    },
}

/// What an [`Operation`] gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is done; there is nothing to tell.
    Done,
    /// The host.
    Info(Box<Info>),
    /// The containers.
    Containers(Vec<Summary>),
    /// The container.
    Container(Box<ContainerState>),
    /// The id of the new container.
    Created {
        /// The id.
        id: String,
    },
    /// The image.
    Image(Box<ImageState>),
    /// The command ran, or was given up.
    Ran(Ran),
    /// The end of the log.
    Log(Bytes),
}

/// How a command in a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// The exit code; `None` when the command took too long. It may then still run.
    pub exit_code: Option<i64>,
    /// The first bytes of both its outputs, mixed.
    pub output: Bytes,
}

/// How much output of a command is kept, in bytes: enough for an event's message, and a bound for a probe that never stops talking.
pub const RUN_OUTPUT_MAX: usize = 10 * 1024;

impl Operation {
    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Operation::Info => "info",
            Operation::List { .. } => "list",
            Operation::Inspect { .. } => "inspect",
            Operation::Create { .. } => "create",
            Operation::Start { .. } => "start",
            Operation::Stop { .. } => "stop",
            Operation::Kill { .. } => "kill",
            Operation::Remove { .. } => "remove",
            Operation::Update { .. } => "update",
            Operation::Image { .. } => "image",
            Operation::Pull { .. } => "pull",
            Operation::RemoveImage { .. } => "remove image",
            Operation::Run { .. } => "run",
            Operation::LogTail { .. } => "log",
        }
    }

    /// Whether it only looks.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Operation::Info
                | Operation::List { .. }
                | Operation::Inspect { .. }
                | Operation::Image { .. }
                | Operation::LogTail { .. }
        )
    }

    /// Carries it out.
    pub async fn perform(&self, engine: &dyn Engine) -> Result<Outcome, EngineError> {
        Ok(match self {
            Operation::Info => Outcome::Info(Box::new(engine.info().await?)),
            Operation::List { labels } => Outcome::Containers(engine.list(labels).await?),
            Operation::Inspect { id } => Outcome::Container(Box::new(engine.inspect(id).await?)),
            Operation::Create { name, spec } => Outcome::Created { id: engine.create(name, spec).await? },
            Operation::Start { id } => engine.start(id).await.map(|()| Outcome::Done)?,
            Operation::Stop { id, grace } => engine.stop(id, *grace).await.map(|()| Outcome::Done)?,
            Operation::Kill { id, signal } => engine.kill(id, signal).await.map(|()| Outcome::Done)?,
            Operation::Remove { id, force } => engine.remove(id, *force).await.map(|()| Outcome::Done)?,
            Operation::Update { id, resources } => engine.update(id, resources).await.map(|()| Outcome::Done)?,
            Operation::Image { reference } => Outcome::Image(Box::new(engine.image(reference).await?)),
            Operation::Pull { reference, auth } => {
                Outcome::Image(Box::new(engine.pull(reference, auth.as_ref(), &|_| {}).await?))
            }
            Operation::RemoveImage { reference } => engine.remove_image(reference).await.map(|()| Outcome::Done)?,
            Operation::Run { id, command, timeout } => Outcome::Ran(run(engine, id, command, *timeout).await?),
            Operation::LogTail { id, lines, bytes } => Outcome::Log(log_tail(engine, id, *lines, *bytes).await?),
        })
    }
}

/// Runs a command to its end. Output beyond [`RUN_OUTPUT_MAX`] is read and dropped, so that the command does not block on a full pipe.
async fn run(engine: &dyn Engine, id: &str, command: &[String], timeout: Duration) -> Result<Ran, EngineError> {
    let spec = ExecSpec { command: command.to_vec(), stdout: true, stderr: true, ..ExecSpec::default() };
    let mut session = engine.exec(id, &spec).await?;
    let mut output = BytesMut::new();
    let to_the_end = async {
        while let Some(chunk) = session.output.next().await {
            let bytes = chunk?.bytes;
            let room = RUN_OUTPUT_MAX.saturating_sub(output.len());
            output.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        exit_code(engine, &session.id).await
    };
    match tokio::time::timeout(timeout, to_the_end).await {
        Err(_) => Ok(Ran { exit_code: None, output: output.freeze() }),
        Ok(code) => Ok(Ran { exit_code: Some(code?), output: output.freeze() }),
    }
}

/// Waits for the exit code of a session whose output has ended. The engine may say "still running" for a moment after that.
pub(crate) async fn exit_code(engine: &dyn Engine, session: &str) -> Result<i64, EngineError> {
    // 10 ms, 20, 40 ... at most one second: about ten seconds in all. A process that closed its outputs and goes on has no exit code
    // that anybody could wait for.
    let mut pause = Duration::from_millis(10);
    for _ in 0..16 {
        if let Some(code) = engine.exec_exit(session).await? {
            return Ok(code);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
    Err(EngineError::Failed { message: "the command closed its output and still runs".into() })
}

/// The last bytes of the last lines.
async fn log_tail(engine: &dyn Engine, id: &str, lines: u64, bytes: usize) -> Result<Bytes, EngineError> {
    let options = LogOptions { tail: Some(lines), ..LogOptions::default() };
    let mut flow = engine.logs(id, &options).await?;
    let mut tail = BytesMut::new();
    while let Some(entry) = flow.next().await {
        tail.extend_from_slice(&entry?.bytes);
        if tail.len() > 2 * bytes {
            let _ = tail.split_to(tail.len() - bytes);
        }
    }
    if tail.len() > bytes {
        let _ = tail.split_to(tail.len() - bytes);
    }
    Ok(tail.freeze())
}
