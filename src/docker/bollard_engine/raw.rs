//! Connections of our own to the daemon, for what flows: logs, exec and attach.
//!
//! bollard guesses from the bytes whether a stream is that of a terminal. What a program writes to a terminal is up to the program, so a
//! guess can be led astray; we know from the container, and cut the stream accordingly.

use std::path::Path;
use std::pin::Pin;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, BodyStream, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite;
use tokio::net::UnixStream;

use super::errors::{About, chain, judge};
use crate::docker::{Channel, Chunk, EngineError, Flow, LogEntry};

/// The longest error text that is read from the daemon, in bytes.
const ERROR_MAX: usize = 64 * 1024;
/// The longest line of a terminal's log that is kept together, in bytes.
const LINE_MAX: usize = 64 * 1024;
/// The longest log message that is believed, in bytes: a broken stream must not make us wait for gigabytes.
const MESSAGE_MAX: usize = 4 * 1024 * 1024;

/// Sends one request over a connection of its own and returns the answer's head; an answer that is an error becomes one.
async fn request(
    socket: &Path,
    method: Method,
    path: &str,
    upgrade: bool,
    body: Bytes,
    about: About<'_>,
) -> Result<Response<Incoming>, EngineError> {
    let unavailable = |error: &dyn std::error::Error| EngineError::Unavailable { message: chain(error) };
    let stream = UnixStream::connect(socket).await.map_err(|error| unavailable(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| unavailable(&error))?;
    // Ends with the body or the upgraded stream, whose reader gets its error.
    tokio::spawn(async move { _ = connection.with_upgrades().await });
    let mut request =
        Request::builder().method(method).uri(path).header("host", "docker").header("content-type", "application/json");
    if upgrade {
        request = request.header("connection", "Upgrade").header("upgrade", "tcp");
    }
    let request = request.body(Full::new(body)).map_err(|error| EngineError::Refused { message: error.to_string() })?;
    let response = sender.send_request(request).await.map_err(|error| unavailable(&error))?;
    let status = response.status();
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let text = Limited::new(response.into_body(), ERROR_MAX).collect().await.map(http_body_util::Collected::to_bytes);
    let text = text.unwrap_or_default();
    let message = match serde_json::from_slice::<serde_json::Value>(&text) {
        Ok(value) => value["message"].as_str().unwrap_or_default().to_string(),
        Err(_) => String::from_utf8_lossy(&text).into_owned(),
    };
    Err(judge(status.as_u16(), &message, about))
}

/// A log whose entries the daemon has marked with their times.
pub(super) async fn logs(socket: &Path, path: &str, tty: bool, id: &str) -> Result<Flow<LogEntry>, EngineError> {
    let response = request(socket, Method::GET, path, false, Bytes::new(), About::Container(id)).await?;
    let bytes = BodyStream::new(response.into_body()).filter_map(|frame| async move {
        match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(EngineError::Unavailable { message: chain(&error) })),
        }
    });
    let cut: fn(&mut BytesMut, bool) -> Result<Option<LogEntry>, EngineError> = if tty { cut_line } else { cut_message };
    Ok(cut_up(bytes, cut))
}

/// A stream in both directions: the daemon's half as chunks, ours as a writer.
pub(super) async fn hijack(
    socket: &Path,
    path: &str,
    body: Bytes,
    tty: bool,
    id: &str,
) -> Result<(Flow<Chunk>, Pin<Box<dyn AsyncWrite + Send>>), EngineError> {
    let response = request(socket, Method::POST, path, true, body, About::Container(id)).await?;
    let upgraded = hyper::upgrade::on(response).await.map_err(|error| EngineError::Unavailable { message: chain(&error) })?;
    let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
    let bytes = tokio_util::io::ReaderStream::new(reader)
        .map(|bytes| bytes.map_err(|error| EngineError::Unavailable { message: chain(&error) }));
    let output = if tty {
        bytes.map(|bytes| bytes.map(|bytes| Chunk { channel: Channel::Stdout, bytes })).boxed()
    } else {
        let mut left = Left::default();
        cut_up(bytes, move |buffer, _| left.cut(buffer))
    };
    Ok((output, Box::pin(writer)))
}

/// Cuts a stream of bytes into items. `cut` takes one off the front of the buffer, or nothing when it needs more; it is told when the
/// stream has ended.
fn cut_up<T: Send + 'static>(
    bytes: impl Stream<Item = Result<Bytes, EngineError>> + Send + 'static,
    cut: impl FnMut(&mut BytesMut, bool) -> Result<Option<T>, EngineError> + Send + 'static,
) -> Flow<T> {
    let state = (Box::pin(bytes), cut, BytesMut::new(), false);
    futures_util::stream::unfold(Some(state), |state| async move {
        let (mut bytes, mut cut, mut buffer, mut ended) = state?;
        loop {
            match cut(&mut buffer, ended) {
                Ok(Some(item)) => return Some((Ok(item), Some((bytes, cut, buffer, ended)))),
                Err(error) => return Some((Err(error), None)),
                Ok(None) if ended => return None,
                Ok(None) => {}
            }
            match bytes.next().await {
                Some(Ok(more)) => buffer.extend_from_slice(&more),
                Some(Err(error)) => return Some((Err(error), None)),
                None => ended = true,
            }
        }
    })
    .boxed()
}

/// The head of a frame: which output, and how many bytes follow.
fn head(buffer: &mut BytesMut) -> Result<Option<(Option<Channel>, usize)>, EngineError> {
    if buffer.len() < 8 {
        return Ok(None);
    }
    let channel = match buffer[0] {
        // 0 is the echo of an input, which nobody asked for.
        0 => None,
        1 => Some(Channel::Stdout),
        2 => Some(Channel::Stderr),
        // The daemon's own words about a failed stream.
        3 => Some(Channel::Stderr),
        other => {
            return Err(EngineError::Failed { message: format!("the container engine sent a frame of unknown kind {other}") });
        }
    };
    let length = u32::from_be_bytes([buffer[4], buffer[5], buffer[6], buffer[7]]) as usize;
    buffer.advance(8);
    Ok(Some((channel, length)))
}

/// What is left of the frame that has begun. Its bytes are handed on as they come, so that a large frame needs no memory.
#[derive(Default)]
struct Left {
    channel: Option<Channel>,
    length: usize,
}

impl Left {
    fn cut(&mut self, buffer: &mut BytesMut) -> Result<Option<Chunk>, EngineError> {
        loop {
            if self.length == 0 {
                let Some((channel, length)) = head(buffer)? else { return Ok(None) };
                *self = Left { channel, length };
                continue;
            }
            if buffer.is_empty() {
                return Ok(None);
            }
            let bytes = buffer.split_to(buffer.len().min(self.length)).freeze();
            self.length -= bytes.len();
            if let Some(channel) = self.channel {
                return Ok(Some(Chunk { channel, bytes }));
            }
        }
    }
}

/// One framed message of a log.
fn cut_message(buffer: &mut BytesMut, _ended: bool) -> Result<Option<LogEntry>, EngineError> {
    loop {
        if buffer.len() < 8 {
            return Ok(None);
        }
        let length = u32::from_be_bytes([buffer[4], buffer[5], buffer[6], buffer[7]]) as usize;
        if length > MESSAGE_MAX {
            return Err(EngineError::Failed { message: format!("the container engine sent a log message of {length} bytes") });
        }
        if buffer.len() < 8 + length {
            return Ok(None);
        }
        let Some((channel, length)) = head(buffer)? else { return Ok(None) };
        let message = buffer.split_to(length).freeze();
        if let Some(channel) = channel {
            return Ok(Some(entry(channel, message)));
        }
    }
}

/// One line of a terminal's log.
fn cut_line(buffer: &mut BytesMut, ended: bool) -> Result<Option<LogEntry>, EngineError> {
    let length = match buffer.iter().take(LINE_MAX).position(|byte| *byte == b'\n') {
        Some(at) => at + 1,
        None if buffer.len() >= LINE_MAX => LINE_MAX,
        None if ended && !buffer.is_empty() => buffer.len(),
        None => return Ok(None),
    };
    Ok(Some(entry(Channel::Stdout, buffer.split_to(length).freeze())))
}

/// Takes the time off the front.
fn entry(channel: Channel, mut message: Bytes) -> LogEntry {
    // `2026-11-21T04:00:00.123456789Z ` is the longest.
    let space = message.iter().take(40).position(|byte| *byte == b' ');
    let at = space.and_then(|space| std::str::from_utf8(&message[..space]).ok()).and_then(|text| text.parse().ok());
    if let (Some(space), Some(_)) = (space, at) {
        message.advance(space + 1);
    }
    LogEntry { channel, at, bytes: message }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 0, 0, 0];
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        out.extend_from_slice(payload);
        out
    }

    /// The stream in pieces of any size.
    fn pieces(bytes: &[u8], size: usize) -> impl Stream<Item = Result<Bytes, EngineError>> + Send + 'static {
        stream::iter(bytes.chunks(size.max(1)).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>())
    }

    fn all<T: Send + 'static>(flow: Flow<T>) -> Vec<T> {
        futures_util::FutureExt::now_or_never(flow.map(Result::unwrap).collect()).unwrap()
    }

    #[test]
    fn a_log_is_cut_where_its_messages_end() {
        let mut bytes = frame(1, b"2026-11-21T04:00:00.5Z hello world\n");
        bytes.extend(frame(2, b"2026-11-21T04:00:01Z \n"));
        bytes.extend(frame(1, b"no time\n"));
        for size in 1..bytes.len() {
            let entries = all(cut_up(pieces(&bytes, size), cut_message));
            let shown: Vec<String> =
                entries.iter().map(|e| format!("{:?} {:?} {:?}", e.channel, e.at.map(|at| at.to_string()), e.bytes)).collect();
            assert_eq!(
                shown,
                [
                    r#"Stdout Some("2026-11-21T04:00:00.5Z") b"hello world\n""#,
                    r#"Stderr Some("2026-11-21T04:00:01Z") b"\n""#,
                    r#"Stdout None b"no time\n""#,
                ]
            );
        }
    }

    #[test]
    fn a_terminal_may_write_what_looks_like_a_frame() {
        let mut bytes = b"2026-11-21T04:00:00Z ".to_vec();
        bytes.extend(b"\x01\x00\x00\x00\xff\xff\xff\xff\n2026-11-21T04:00:01Z last");
        for size in 1..bytes.len() {
            let entries = all(cut_up(pieces(&bytes, size), cut_line));
            assert_eq!(entries.len(), 2);
            assert_eq!(&entries[0].bytes[..], b"\x01\x00\x00\x00\xff\xff\xff\xff\n");
            assert_eq!(&entries[1].bytes[..], b"last");
        }
    }

    #[test]
    fn an_absurd_length_is_an_error_and_not_a_wait() {
        let flow = cut_up(pieces(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], 9), cut_message);
        let items: Vec<_> = futures_util::FutureExt::now_or_never(flow.collect()).unwrap();
        assert!(matches!(items[..], [Err(EngineError::Failed { .. })]));
    }

    proptest! {
        #[test]
        fn a_session_gets_every_byte_on_its_channel(
            frames in prop::collection::vec((1u8..3, prop::collection::vec(any::<u8>(), 0..50)), 0..20),
            size in 1usize..64,
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
            let mut left = Left::default();
            let chunks = all(cut_up(pieces(&bytes, size), move |buffer, _| left.cut(buffer)));
            for (kind, channel) in [(1, Channel::Stdout), (2, Channel::Stderr)] {
                let sent: Vec<u8> = frames.iter().filter(|(k, _)| *k == kind).flat_map(|(_, payload)| payload.clone()).collect();
                let got: Vec<u8> = chunks.iter().filter(|c| c.channel == channel).flat_map(|c| c.bytes.to_vec()).collect();
                prop_assert_eq!(sent, got);
            }
        }
    }
}
