//! Frames: reading what a client sends, writing what it needs to hear.
//!
//! Nothing that a client sends makes the decoder panic or hold more than [`CONTROL_MAX`] bytes: control frames have a longest length,
//! the payload of data frames is passed on as it comes, and header blocks may not grow beyond [`HEADERS_MAX`] when unpacked.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};

use super::dictionary::DICTIONARY;

/// The longest control frame that is read, in bytes. Those of Kubernetes clients have about a hundred.
const CONTROL_MAX: usize = 16 * 1024;
/// The longest header block when unpacked, in bytes.
const HEADERS_MAX: usize = 64 * 1024;
/// The most headers of one stream.
const HEADERS_COUNT: u32 = 64;
/// The longest payload that is written in one data frame, in bytes.
pub(super) const CHUNK: usize = 32 * 1024;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;
/// The flag of a frame that is its sender's last on the stream.
const FIN: u8 = 1;
/// The bit that makes a frame a control frame.
const CONTROL: u32 = 0x8000_0000;

/// Names, in lower case, and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::api) struct Headers(pub(in crate::api) Vec<(String, String)>);

impl Headers {
    /// The value of a name; empty when it is not there.
    pub(in crate::api) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) enum Frame {
    /// A new stream, and what it is for. `last`: the client will write nothing on it.
    Open { stream: u32, headers: Headers, last: bool },
    /// Bytes of a stream; `last`: there are no more.
    Data { stream: u32, bytes: Bytes, last: bool },
    /// The client no longer wants the stream.
    Reset { stream: u32 },
    /// Is anybody there? To be answered with the same number.
    Ping { id: u32 },
    /// The client opens no more streams.
    GoAway,
}

/// Bytes that are not SPDY/3, or more than we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed SPDY frame: {0}")]
pub(in crate::api) struct Malformed(&'static str);

/// Cuts a client's bytes into frames. After an error it must not be used again.
pub(super) struct Decoder {
    inflate: Decompress,
    /// The rest of a data frame that has begun: stream, bytes to come, and whether it ends the stream.
    left: Option<(u32, usize, bool)>,
}

impl Decoder {
    pub(super) fn new() -> Decoder {
        Decoder { inflate: Decompress::new(true), left: None }
    }

    /// Takes one frame off the buffer. `None`: more bytes are needed.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        loop {
            if let Some((stream, length, last)) = self.left {
                if buffer.is_empty() && length > 0 {
                    return Ok(None);
                }
                let bytes = buffer.split_to(buffer.len().min(length)).freeze();
                let more = length - bytes.len();
                self.left = (more > 0).then_some((stream, more, last));
                if bytes.is_empty() && !last {
                    continue;
                }
                return Ok(Some(Frame::Data { stream, bytes, last: last && more == 0 }));
            }
            if buffer.len() < 8 {
                return Ok(None);
            }
            let word = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
            let flags = buffer[4];
            let length = u32::from_be_bytes([0, buffer[5], buffer[6], buffer[7]]) as usize;
            if word & CONTROL == 0 {
                if word == 0 {
                    return Err(Malformed("data for stream 0"));
                }
                buffer.advance(8);
                self.left = Some((word, length, flags & FIN != 0));
                continue;
            }
            if word >> 16 & 0x7fff != 3 {
                return Err(Malformed("not version 3"));
            }
            if length > CONTROL_MAX {
                return Err(Malformed("a control frame that is too long"));
            }
            if buffer.len() < 8 + length {
                return Ok(None);
            }
            buffer.advance(8);
            let body = buffer.split_to(length).freeze();
            if let Some(frame) = self.control(word as u16, flags, &body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn control(&mut self, kind: u16, flags: u8, body: &[u8]) -> Result<Option<Frame>, Malformed> {
        let number = |at: usize| {
            let bytes = body.get(at..at + 4).ok_or(Malformed("a control frame that is too short"))?;
            Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        let stream = || number(0).map(|id| id & !CONTROL);
        match kind {
            SYN_STREAM => {
                let block = body.get(10..).ok_or(Malformed("a control frame that is too short"))?;
                let headers = self.headers(block)?;
                match stream()? {
                    0 => Err(Malformed("a stream with number 0")),
                    // Even numbers are ours, and we open none.
                    stream if stream % 2 == 0 => Err(Malformed("a stream with an even number")),
                    stream => Ok(Some(Frame::Open { stream, headers, last: flags & FIN != 0 })),
                }
            }
            // Nobody needs them, but all blocks are one compressed stream.
            SYN_REPLY | HEADERS => {
                let block = body.get(4..).ok_or(Malformed("a control frame that is too short"))?;
                self.headers(block).map(|_| None)
            }
            RST_STREAM => stream().map(|stream| Some(Frame::Reset { stream })),
            PING => number(0).map(|id| Some(Frame::Ping { id })),
            GOAWAY => Ok(Some(Frame::GoAway)),
            SETTINGS | WINDOW_UPDATE => Ok(None),
            _ => Err(Malformed("a control frame of unknown kind")),
        }
    }

    fn headers(&mut self, block: &[u8]) -> Result<Headers, Malformed> {
        let unpacked = self.unpack(block)?;
        let mut rest = &unpacked[..];
        let cut = |rest: &mut &[u8]| -> Result<String, Malformed> {
            let length = take_number(rest)? as usize;
            let text = rest.get(..length).ok_or(Malformed("a header that is longer than its block"))?;
            *rest = &rest[length..];
            Ok(String::from_utf8_lossy(text).into_owned())
        };
        let count = take_number(&mut rest)?;
        if count > HEADERS_COUNT {
            return Err(Malformed("too many headers"));
        }
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = cut(&mut rest)?.to_ascii_lowercase();
            headers.push((name, cut(&mut rest)?));
        }
        if !rest.is_empty() {
            return Err(Malformed("a header block that is longer than its headers"));
        }
        Ok(Headers(headers))
    }

    fn unpack(&mut self, mut block: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::new();
        let mut piece = [0; 1024];
        loop {
            let before = (self.inflate.total_in(), self.inflate.total_out());
            let result = self.inflate.decompress(block, &mut piece, FlushDecompress::Sync);
            let taken = (self.inflate.total_in() - before.0) as usize;
            let given = (self.inflate.total_out() - before.1) as usize;
            block = block.get(taken..).unwrap_or_default();
            out.extend_from_slice(&piece[..given.min(piece.len())]);
            if out.len() > HEADERS_MAX {
                return Err(Malformed("headers that are too long"));
            }
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate.set_dictionary(&DICTIONARY).map_err(|_| Malformed("headers of another dictionary"))?;
                }
                Err(_) => return Err(Malformed("headers that cannot be unpacked")),
                Ok(Status::StreamEnd) => return Err(Malformed("the end of all headers")),
                // A full piece may have more behind it, even when all input is taken.
                Ok(_) if given == piece.len() => {}
                Ok(_) if block.is_empty() => return Ok(out),
                Ok(_) if taken == 0 && given == 0 => return Err(Malformed("headers that cannot be unpacked")),
                Ok(_) => {}
            }
        }
    }
}

fn take_number(rest: &mut &[u8]) -> Result<u32, Malformed> {
    let bytes = rest.get(..4).ok_or(Malformed("a header block that is too short"))?;
    *rest = &rest[4..];
    Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn control(kind: u16, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + body.len());
    out.put_u32(CONTROL | 3 << 16 | u32::from(kind));
    out.put_u32(body.len() as u32);
    out.put_slice(body);
    out.freeze()
}

/// The answer to a stream that was opened, without headers. `first`: it is the first of its connection.
///
/// The header block is a part of one compressed stream. Four zero bytes, "no headers", are not worth compressing: each block is stored
/// as it is, which deflate allows, and so no compressor has to be kept.
pub(super) fn accept(stream: u32, first: bool) -> Bytes {
    let mut body = stream.to_be_bytes().to_vec();
    if first {
        body.extend_from_slice(&[0x78, 0x01]);
    }
    body.extend_from_slice(&[0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0]);
    control(SYN_REPLY, &body)
}

/// Bytes for a stream: at most [`CHUNK`].
pub(super) fn data(stream: u32, bytes: &[u8], last: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + bytes.len());
    out.put_u32(stream);
    out.put_u32(u32::from(last) * u32::from(FIN) << 24 | bytes.len() as u32);
    out.put_slice(bytes);
    out.freeze()
}

/// The answer to a ping.
pub(super) fn ping(id: u32) -> Bytes {
    control(PING, &id.to_be_bytes())
}

/// The refusal of a stream (status 3, REFUSED_STREAM).
pub(super) fn refuse(stream: u32) -> Bytes {
    control(RST_STREAM, &[&stream.to_be_bytes()[..], &3u32.to_be_bytes()].concat())
}

/// The end of the connection, without an error. `stream` is the last one that was looked at.
pub(super) fn goodbye(stream: u32) -> Bytes {
    control(GOAWAY, &[&stream.to_be_bytes()[..], &[0; 4]].concat())
}
