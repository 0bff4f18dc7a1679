//! Port-forward: from the server to a port on the loopback of a pod, as Kubernetes does it, so that what listens only there is reached too.
//!
//! Only a process inside the pod's network can connect there. The sandbox has a program for that (`docker::pause`), which carries bytes
//! between the port and its own input and output; each connection is one such process.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::{BodyError, Failure};
use crate::docker::{Channel, Chunk, Engine, ExecSpec, Session, pause};

/// How long the process may take to start and to connect.
const CONNECT: Duration = Duration::from_secs(15);
/// Pieces that may wait for a slow client.
const AHEAD: usize = 8;
/// The longest piece that is handed to the process, in bytes: its length has to fit two bytes.
const PIECE: usize = 32 * 1024;

/// Connects to a port. `body` is what goes there, and what comes back is returned; an error means that nothing listens.
pub(super) async fn connect<B>(
    engine: &dyn Engine,
    sandbox: &str,
    pod: &str,
    port: u16,
    body: B,
) -> Result<impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static, Failure>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    let attempted = format!("error forwarding port {port} to pod {pod}");
    let spec = ExecSpec { command: pause::connect(port), stdin: true, stdout: true, stderr: true, ..ExecSpec::default() };
    let mut session = engine.exec(sandbox, &spec).await.map_err(|error| Failure::of(&error, &attempted))?;
    let refused = |why: &str| {
        let why = format!("{attempted}: failed to connect to localhost:{port} inside the network of the pod: {why}");
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, why)
    };
    let first = tokio::time::timeout(CONNECT, session.output.next()).await.map_err(|_| refused("not in time"))?;
    let first = match first {
        Some(Ok(Chunk { channel: Channel::Stdout, bytes })) => bytes,
        Some(Ok(Chunk { bytes, .. })) if bytes.first() == Some(&b'+') => Bytes::new(),
        Some(Ok(Chunk { bytes, .. })) => {
            let mut text = bytes.to_vec();
            // The number may come digit by digit, if it is one.
            while let Ok(Some(Ok(more))) = tokio::time::timeout(Duration::from_secs(1), session.output.next()).await
                && text.len() < 1024
            {
                text.extend_from_slice(&more.bytes);
            }
            let text = String::from_utf8_lossy(&text).into_owned();
            let why = text.parse().map(|number| std::io::Error::from_raw_os_error(number).to_string());
            return Err(refused(&why.unwrap_or(text)));
        }
        Some(Err(error)) => return Err(Failure::of(&error, &attempted)),
        None => return Err(refused("the program of the sandbox ended at once")),
    };
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let Session { output, input, .. } = session;
        tokio::select! {
            // The client is gone, or has had enough. Dropping the input ends the process, and the connection with it.
            () = sender.closed() => {}
            () = listen(input, body) => {}
            () = talk(first, output, &sender) => {}
        }
    });
    Ok(stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|item| (item, receiver)) }))
}

/// What the client says, to the process. Returns only when the client is lost.
async fn listen<B>(mut input: std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>, mut body: B)
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin,
{
    while let Some(part) = body.frame().await {
        let Ok(part) = part else { return };
        let Ok(mut data) = part.into_data() else { continue };
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            let mut framed = BytesMut::with_capacity(piece.len() + 2);
            framed.put_u16(piece.len() as u16);
            framed.put_slice(&piece);
            if input.write_all(&framed).await.is_err() || input.flush().await.is_err() {
                return std::future::pending().await; // the process tells how it ended
            }
        }
    }
    // The end of this direction; the other goes on.
    let _ = input.write_all(&[0, 0]).await;
    let _ = input.flush().await;
    std::future::pending().await
}

/// What the pod says, to the client.
async fn talk(first: Bytes, mut output: crate::docker::Flow<Chunk>, sender: &mpsc::Sender<Result<Bytes, BodyError>>) {
    if !first.is_empty() && sender.send(Ok(first)).await.is_err() {
        return;
    }
    while let Some(chunk) = output.next().await {
        let piece = match chunk {
            Ok(Chunk { channel: Channel::Stdout, bytes }) => Ok(bytes),
            Ok(_) => continue,
            Err(error) => Err(error.into()),
        };
        if sender.send(piece).await.is_err() {
            return;
        }
    }
}
