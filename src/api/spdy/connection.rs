//! The two halves of a connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::frame::{self, CHUNK, Decoder, Frame};

/// Frames that may wait for a slow client: half a megabyte at most. Then whoever writes has to wait.
const AHEAD: usize = 16;
/// How much is read at a time, in bytes.
const READ: usize = 32 * 1024;

/// The client is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) struct Gone;

/// Makes a connection of a stream of bytes: its reader, its writer, and the task that ends when all writers are gone and all is written.
pub(in crate::api) fn link<S>(stream: S) -> (Reader<ReadHalf<S>>, Writer, JoinHandle<()>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, mut write) = tokio::io::split(stream);
    let (queue, mut waiting) = mpsc::channel::<Bytes>(AHEAD);
    let task = tokio::spawn(async move {
        while let Some(bytes) = waiting.recv().await {
            if write.write_all(&bytes).await.is_err() || (waiting.is_empty() && write.flush().await.is_err()) {
                return;
            }
        }
        let _ = write.shutdown().await;
    });
    (
        Reader { stream: read, buffer: BytesMut::new(), decoder: Decoder::new() },
        Writer { queue, first: Arc::new(AtomicBool::new(true)) },
        task,
    )
}

/// Hears the client.
pub(in crate::api) struct Reader<R> {
    stream: R,
    buffer: BytesMut,
    decoder: Decoder,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// The next frame; `None` at the end. Nothing is lost when the future is dropped.
    pub(in crate::api) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            match self.decoder.decode(&mut self.buffer) {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) => {}
                Err(malformed) => return Err(io::Error::new(io::ErrorKind::InvalidData, malformed)),
            }
            self.buffer.reserve(READ);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// Speaks to the client. Clones write to the same connection; the frames of each keep their order.
#[derive(Clone)]
pub(in crate::api) struct Writer {
    queue: mpsc::Sender<Bytes>,
    /// No stream has been taken yet.
    first: Arc<AtomicBool>,
}

impl Writer {
    async fn put(&self, frame: Bytes) -> Result<(), Gone> {
        self.queue.send(frame).await.map_err(|_| Gone)
    }
    /// Takes a stream that the client opened. Only for whoever has the reader: these answers are one compressed stream.
    pub(in crate::api) async fn accept(&self, stream: u32) -> Result<(), Gone> {
        self.put(frame::accept(stream, self.first.swap(false, Ordering::Relaxed))).await
    }
    /// Sends bytes on a stream. `last`: there are no more.
    pub(in crate::api) async fn data(&self, stream: u32, mut bytes: &[u8], last: bool) -> Result<(), Gone> {
        loop {
            let (chunk, rest) = bytes.split_at(bytes.len().min(CHUNK));
            if !chunk.is_empty() || last {
                self.put(frame::data(stream, chunk, last && rest.is_empty())).await?;
            }
            if rest.is_empty() {
                return Ok(());
            }
            bytes = rest;
        }
    }
    /// Answers a ping, unless there is so much on its way already that the client knows we live.
    pub(in crate::api) fn pong(&self, id: u32) {
        let _ = self.queue.try_send(frame::ping(id));
    }
    /// Refuses a stream that the client opened.
    pub(in crate::api) async fn refuse(&self, stream: u32) -> Result<(), Gone> {
        self.put(frame::refuse(stream)).await
    }
    /// Says that the connection is over. `stream` is the last one that was looked at.
    pub(in crate::api) async fn goodbye(&self, stream: u32) -> Result<(), Gone> {
        self.put(frame::goodbye(stream)).await
    }
}
