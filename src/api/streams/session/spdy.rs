//! A client that speaks SPDY: a stream for each channel, opened by the client with the header `streamtype`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf};
use tokio::task::JoinHandle;

use super::last_words;
use crate::api::spdy::{Frame as Spoken, Gone, Headers, Reader, Writer, link};
use crate::api::streams::HANG_UP;
use crate::object::stream::{CLOSE, ERROR, Frame, RESIZE, STDERR, STDIN, STDOUT};

/// How long a client may take to open its streams, as in Kubernetes.
const OPENING: Duration = Duration::from_secs(30);
/// What a client may say before it has opened all streams: frames.
const EARLY: usize = 64;
/// The longest resize message, in bytes.
const RESIZE_MAX: usize = 1024;

pub(super) struct Client<S> {
    reader: Reader<ReadHalf<S>>,
    writer: Writer,
    /// Ends when everything is written.
    writing: JoinHandle<()>,
    version: u8,
    /// Channels by stream.
    streams: BTreeMap<u32, u8>,
    newest: u32,
    /// Heard, and not yet asked for.
    heard: VecDeque<Frame>,
    /// A size that has not come to its end.
    size: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> Client<S> {
    /// Waits until the client has opened the streams of these channels.
    pub(super) async fn open(stream: S, wanted: &[u8], version: u8) -> Result<Self, Gone> {
        let (reader, writer, writing) = link(stream);
        let mut client = Client {
            reader,
            writer,
            writing,
            version,
            streams: BTreeMap::new(),
            newest: 0,
            heard: VecDeque::new(),
            size: BytesMut::new(),
        };
        let opening = async {
            while !wanted.iter().all(|channel| client.streams.values().any(|open| open == channel)) {
                match client.reader.next().await {
                    Ok(Some(Spoken::Open { stream, headers, .. })) => client.opened(stream, &headers, wanted).await?,
                    Ok(Some(frame)) if client.heard.len() < EARLY => client.said(frame).await?,
                    _ => return Err(Gone),
                }
            }
            Ok(())
        };
        tokio::time::timeout(OPENING, opening).await.unwrap_or(Err(Gone))?;
        Ok(client)
    }

    async fn opened(&mut self, stream: u32, headers: &Headers, wanted: &[u8]) -> Result<(), Gone> {
        let channel = match headers.get("streamtype") {
            "stdin" => STDIN,
            "stdout" => STDOUT,
            "stderr" => STDERR,
            "error" => ERROR,
            "resize" => RESIZE,
            _ => CLOSE,
        };
        let taken = self.streams.values().any(|open| *open == channel);
        if stream <= self.newest || taken || !wanted.contains(&channel) {
            return self.writer.refuse(stream).await;
        }
        self.newest = stream;
        self.streams.insert(stream, channel);
        self.writer.accept(stream).await
    }

    /// Takes in one frame.
    async fn said(&mut self, frame: Spoken) -> Result<(), Gone> {
        match frame {
            Spoken::Data { stream, bytes, last } => match self.streams.get(&stream) {
                Some(&STDIN) => {
                    if !bytes.is_empty() {
                        self.heard.push_back(Frame { channel: STDIN, payload: bytes });
                    }
                    if last {
                        self.heard.push_back(Frame { channel: CLOSE, payload: Bytes::from_static(&[STDIN]) });
                    }
                }
                Some(&RESIZE) => self.resized(&bytes),
                _ => {}
            },
            Spoken::Reset { stream } => {
                if self.streams.remove(&stream) == Some(STDIN) {
                    self.heard.push_back(Frame { channel: CLOSE, payload: Bytes::from_static(&[STDIN]) });
                }
            }
            Spoken::Ping { id } => self.writer.pong(id),
            Spoken::GoAway => {}
            Spoken::Open { stream, .. } => self.writer.refuse(stream).await?,
        }
        Ok(())
    }

    /// Sizes come as JSON objects one behind the other, cut anywhere.
    fn resized(&mut self, bytes: &[u8]) {
        self.size.extend_from_slice(bytes);
        while let Some(end) = self.size.iter().position(|byte| *byte == b'}') {
            let payload = self.size.split_to(end + 1).freeze();
            self.heard.push_back(Frame { channel: RESIZE, payload });
        }
        if self.size.len() > RESIZE_MAX {
            self.size.clear();
        }
    }

    fn stream(&self, channel: u8) -> Option<u32> {
        self.streams.iter().find(|(_, open)| **open == channel).map(|(stream, _)| *stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> super::Client for Client<S> {
    async fn hear(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.heard.pop_front() {
                return Some(frame);
            }
            let frame = self.reader.next().await.ok()??;
            self.said(frame).await.ok()?;
        }
    }

    async fn tell(&mut self, channel: u8, payload: &Bytes) -> Result<(), Gone> {
        match self.stream(channel) {
            Some(stream) => self.writer.data(stream, payload, false).await,
            None => Ok(()),
        }
    }

    async fn stir(&mut self) -> Result<(), Gone> {
        // kubectl pings us, and the kernel notices a client that is gone.
        Ok(())
    }

    async fn end(self, status: &[u8], patience: Duration) {
        let words = last_words(self.version, status).unwrap_or_default();
        let outputs = [STDOUT, STDERR].map(|channel| self.stream(channel));
        let (error, newest, writer) = (self.stream(ERROR), self.newest, &self.writer);
        let telling = async {
            for stream in outputs.into_iter().flatten() {
                writer.data(stream, &[], true).await?;
            }
            if let Some(stream) = error {
                writer.data(stream, &words, true).await?;
            }
            writer.goodbye(newest).await
        };
        if !matches!(tokio::time::timeout(patience, telling).await, Ok(Ok(()))) {
            self.writing.abort();
            return;
        }
        farewell(self.reader, self.writer, self.writing, patience).await;
    }
}

/// Waits until everything is written, and then for the client to hang up; what it still says nobody needs.
pub(in crate::api::streams) async fn farewell<R: AsyncRead + Unpin>(
    mut reader: Reader<R>,
    writer: Writer,
    mut writing: JoinHandle<()>,
    patience: Duration,
) {
    drop(writer);
    if tokio::time::timeout(patience, &mut writing).await.is_err() {
        writing.abort();
        return;
    }
    let listen = async { while let Ok(Some(_)) = reader.next().await {} };
    let _ = tokio::time::timeout(HANG_UP, listen).await;
}
