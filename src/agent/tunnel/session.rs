//! Exec and attach: frames of the server on one side, a session of the engine on the other.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::Failure;
use super::query::Query;
use crate::docker::{AttachSpec, Channel, Engine, EngineError, ExecSpec, Session};
use crate::object::stream::{CLOSE, ERROR, FRAME_MAX, Frame, RESIZE, STDERR, STDIN, STDOUT};

/// Frames that may wait for a slow client. With the largest frames this is a megabyte per session.
const FRAMES_AHEAD: usize = 16;
/// How often a resize is tried: a process cannot be resized before it has quite started.
const RESIZE_TRIES: u32 = 6;

/// What a session talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A process of its own, with an exit code.
    Exec,
    /// The container's main process.
    Attach,
}

/// Begins a session in a container that runs.
pub(super) async fn begin(
    engine: &dyn Engine,
    target: Target,
    id: &str,
    container: &str,
    query: &Query,
) -> Result<Session, Failure> {
    let (stdin, stdout, stderr, tty) = (query.flag("stdin")?, query.flag("stdout")?, query.flag("stderr")?, query.flag("tty")?);
    let command = query.all("command");
    if target == Target::Exec && command.is_empty() {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "you must specify at least one command for the container"));
    }
    if !stdin && !stdout && !stderr {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "you must specify at least one of stdin, stdout, stderr"));
    }
    match target {
        Target::Exec => {
            // A terminal has one output.
            let spec = ExecSpec { command, tty, stdin, stdout, stderr: stderr && !tty, size: None };
            let session = engine.exec(id, &spec).await;
            session.map_err(|error| Failure::of(&error, &format!("run a command in container {container}")))
        }
        Target::Attach => {
            let session = engine.attach(id, &AttachSpec { stdin, stdout, stderr }).await;
            session.map_err(|error| Failure::of(&error, &format!("attach to container {container}")))
        }
    }
}

/// Carries frames both ways until the session or the client ends. The last frame is the final `Status`.
pub(super) fn converse<B>(
    engine: Arc<dyn Engine>,
    target: Target,
    session: Session,
    body: B,
) -> impl Stream<Item = Frame> + Send + 'static
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    let (sender, receiver) = mpsc::channel(FRAMES_AHEAD);
    tokio::spawn(async move {
        let Session { id, output, input } = session;
        let ended = tokio::select! {
            // The client is gone. Dropping the session closes its input, which is what a lost terminal does.
            () = sender.closed() => return,
            Lost = listen(&*engine, target, &id, input, body) => return,
            ended = talk(output, &sender) => ended,
        };
        let status = match (ended, target) {
            (Err(error), _) => failed(&error),
            (Ok(()), Target::Attach) => json!({ "metadata": {}, "status": "Success" }),
            (Ok(()), Target::Exec) => match crate::docker::exit_code(&*engine, &id).await {
                Ok(0) => json!({ "metadata": {}, "status": "Success" }),
                Ok(code) => exited(code),
                Err(error) => failed(&error),
            },
        };
        let _ = sender.send(Frame { channel: ERROR, payload: status.to_string().into() }).await;
    });
    stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|frame| (frame, receiver)) })
}

/// The client hung up in the middle.
struct Lost;

/// The client's frames, to the process. Returns only when the client is lost: one that has no more to say still listens, and the engine's
/// stream goes both ways, so letting go of this half would close the other.
async fn listen<B>(
    engine: &dyn Engine,
    target: Target,
    id: &str,
    mut input: std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>,
    mut body: B,
) -> Lost
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin,
{
    let mut buffer = BytesMut::new();
    let mut open = true;
    while let Some(part) = body.frame().await {
        let Ok(part) = part else { return Lost };
        let Ok(data) = part.into_data() else { continue };
        buffer.extend_from_slice(&data);
        loop {
            let frame = match Frame::decode(&mut buffer) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return Lost,
            };
            match frame.channel {
                // A process that no longer reads is not an error of the session: its output and its code still matter.
                STDIN if open => open = input.write_all(&frame.payload).await.is_ok() && input.flush().await.is_ok(),
                CLOSE if frame.payload.first() == Some(&STDIN) => {
                    open = false;
                    let _ = input.shutdown().await;
                }
                RESIZE => resize(engine, target, id, &frame.payload).await,
                _ => {}
            }
        }
    }
    let _ = input.shutdown().await;
    std::future::pending().await
}

async fn resize(engine: &dyn Engine, target: Target, id: &str, payload: &[u8]) {
    let Ok(size) = serde_json::from_slice::<Value>(payload) else { return };
    let of = |name: &str| size[name].as_u64().and_then(|size| u16::try_from(size).ok()).filter(|size| *size > 0);
    let (Some(width), Some(height)) = (of("Width"), of("Height")) else { return };
    for attempt in 0..RESIZE_TRIES {
        let resized = match target {
            Target::Exec => engine.resize_exec(id, width, height).await,
            Target::Attach => engine.resize(id, width, height).await,
        };
        match resized {
            Ok(()) => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(20 << attempt)).await,
        }
    }
}

/// The process's output, to the client.
async fn talk(mut output: crate::docker::Flow<crate::docker::Chunk>, sender: &mpsc::Sender<Frame>) -> Result<(), EngineError> {
    while let Some(chunk) = output.next().await {
        let chunk = chunk?;
        let channel = if chunk.channel == Channel::Stderr { STDERR } else { STDOUT };
        let mut bytes = chunk.bytes;
        while !bytes.is_empty() {
            let payload = bytes.split_to(bytes.len().min(FRAME_MAX));
            if sender.send(Frame { channel, payload }).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// How Kubernetes says that a command ended with a code.
fn exited(code: i64) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}

fn failed(error: &EngineError) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("error executing command in container: {error}"),
        "reason": "InternalError",
        "details": { "causes": [{ "message": error.to_string() }] },
        "code": 500,
    })
}
