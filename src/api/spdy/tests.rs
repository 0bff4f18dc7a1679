//! The decoder against what clients send, and against what nobody should; and a client's side for the tests of sessions.

use bytes::{Bytes, BytesMut};
use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

use super::frame::{self, Decoder};
use super::{DICTIONARY, Frame, Headers};

/// A client's frames.
pub(in crate::api) struct Speaker {
    deflate: Compress,
}

impl Speaker {
    pub(in crate::api) fn new() -> Speaker {
        let mut deflate = Compress::new(Compression::best(), true);
        deflate.set_dictionary(&DICTIONARY).unwrap();
        Speaker { deflate }
    }
    fn block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut block = Vec::with_capacity(plain.len() * 2 + 100);
        self.deflate.compress_vec(&plain, &mut block, FlushCompress::Sync).unwrap();
        block
    }
    pub(in crate::api) fn open(&mut self, stream: u32, headers: &[(&str, &str)], last: bool) -> Vec<u8> {
        let block = self.block(headers);
        control(1, u8::from(last), &[&stream.to_be_bytes()[..], &[0; 6], &block].concat())
    }
}

pub(in crate::api) fn control(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&[0x80, 3][..], &kind.to_be_bytes(), &[flags], &length[1..], body].concat()
}

pub(in crate::api) fn data(stream: u32, bytes: &[u8], last: bool) -> Vec<u8> {
    let length = (bytes.len() as u32).to_be_bytes();
    [&stream.to_be_bytes()[..], &[u8::from(last)], &length[1..], bytes].concat()
}

/// All frames of a stream that arrives in pieces of this size, and the error that ends it.
fn decode(bytes: &[u8], size: usize) -> (Vec<Frame>, Option<String>) {
    let (mut decoder, mut buffer, mut frames) = (Decoder::new(), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(size.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error.to_string())),
            }
        }
    }
    (frames, None)
}

fn session() -> Vec<u8> {
    let mut speaker = Speaker::new();
    let mut bytes = speaker.open(1, &[("streamtype", "error")], false);
    bytes.extend(control(4, 0, &[0; 4]));
    bytes.extend(speaker.open(3, &[("streamtype", "data"), ("port", "8080"), ("requestid", "0")], true));
    bytes.extend(data(1, b"", false));
    bytes.extend(data(1, b"hello", false));
    bytes.extend(control(9, 0, &[0, 0, 0, 1, 0, 0, 1, 0]));
    bytes.extend(control(6, 0, &[0, 0, 0, 9]));
    // Headers that nobody needs still move the compressed stream along.
    let block = speaker.block(&[("noise", "x")]);
    bytes.extend(control(8, 0, &[&1u32.to_be_bytes()[..], &block].concat()));
    bytes.extend(data(1, b"", true));
    bytes.extend(speaker.open(5, &[("streamtype", "stdin")], false));
    bytes.extend(control(3, 0, &[0, 0, 0, 5, 0, 0, 0, 5]));
    bytes.extend(control(7, 0, &[0; 8]));
    bytes
}

#[test]
fn frames_are_the_same_however_they_arrive() {
    let headers = |list: &[(&str, &str)]| Headers(list.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect());
    let hello = Bytes::from_static(b"hello");
    let wanted = [
        Frame::Open { stream: 1, headers: headers(&[("streamtype", "error")]), last: false },
        Frame::Open { stream: 3, headers: headers(&[("streamtype", "data"), ("port", "8080"), ("requestid", "0")]), last: true },
        Frame::Data { stream: 1, bytes: hello, last: false },
        Frame::Ping { id: 9 },
        Frame::Data { stream: 1, bytes: Bytes::new(), last: true },
        Frame::Open { stream: 5, headers: headers(&[("streamtype", "stdin")]), last: false },
        Frame::Reset { stream: 5 },
        Frame::GoAway,
    ];
    let bytes = session();
    assert_eq!(decode(&bytes, bytes.len()), (wanted.to_vec(), None));
    for size in 1..64 {
        let (frames, error) = decode(&bytes, size);
        assert_eq!(error, None);
        let control = |frames: &[Frame]| frames.iter().filter(|f| !matches!(f, Frame::Data { .. })).cloned().collect::<Vec<_>>();
        assert_eq!(control(&frames), control(&wanted));
        let text: Vec<u8> =
            frames.iter().flat_map(|f| if let Frame::Data { bytes, .. } = f { bytes.to_vec() } else { vec![] }).collect();
        assert_eq!(text, b"hello");
    }
}

#[test]
fn what_is_not_spdy_ends_the_connection() {
    let mut speaker = Speaker::new();
    let good = speaker.block(&[("streamtype", "error")]);
    let with_block = |block: &[u8]| control(1, 0, &[&1u32.to_be_bytes()[..], &[0; 6], block].concat());
    let bomb = Speaker::new().open(1, &[("a", &"x".repeat(1 << 20))], false);
    assert!(bomb.len() < 16 * 1024, "it is small on the wire");
    let many: Vec<(&str, &str)> = vec![("a", "b"); 65];
    let rows = [
        (data(0, b"x", false), "data for stream 0"),
        (vec![0x80, 2, 0, 1, 0, 0, 0, 0], "not version 3"),
        (control(1, 0, &[0; 5]), "a control frame that is too short"),
        (control(77, 0, &[]), "a control frame of unknown kind"),
        (vec![0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], "a control frame that is too long"),
        (Speaker::new().open(0, &[], false), "a stream with number 0"),
        (Speaker::new().open(2, &[], false), "a stream with an even number"),
        (with_block(b"not compressed"), "headers that cannot be unpacked"),
        (with_block(&good[..good.len() - 8]), "a header that is longer than its block"),
        (bomb, "headers that are too long"),
        (Speaker::new().open(1, &many, false), "too many headers"),
    ];
    for (bytes, why) in rows {
        let (frames, error) = decode(&bytes, 7);
        assert_eq!((frames.len(), error.as_deref()), (0, Some(format!("malformed SPDY frame: {why}").as_str())));
    }
}

#[test]
fn answers_can_be_unpacked() {
    for reply in [frame::accept(1, true), frame::accept(3, false)] {
        assert!(reply.ends_with(&[0, 0, 0, 0xff, 0xff]), "Go waits for the mark of a flush");
    }
    let replies = [frame::accept(1, true), frame::accept(3, false), frame::accept(5, false)].concat();
    // No error: the three blocks are one compressed stream, though without headers.
    assert_eq!(decode(&replies, 5), (vec![], None));
    let said = [frame::data(1, b"abc", true), frame::ping(9), frame::refuse(7), frame::goodbye(5)].concat();
    let abc = Bytes::from_static(b"abc");
    let wanted =
        [Frame::Data { stream: 1, bytes: abc, last: true }, Frame::Ping { id: 9 }, Frame::Reset { stream: 7 }, Frame::GoAway];
    assert_eq!(decode(&said, 100), (wanted.to_vec(), None));
}

proptest! {
    #![proptest_config(crate::object::robust::cases(500))]
    #[test]
    fn any_bytes_are_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2000), size in 1usize..100) {
        decode(&bytes, size);
    }

    #[test]
    fn a_session_with_wrong_bytes_is_frames_or_an_error(
        wrong in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        size in 1usize..100,
    ) {
        let mut bytes = session();
        for (at, byte) in wrong {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        decode(&bytes, size);
    }
}

/// A client over a real connection.
pub(in crate::api) struct Peer<S> {
    stream: S,
    decoder: Decoder,
    buffer: BytesMut,
    pub(in crate::api) speaker: Speaker,
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Peer<S> {
    pub(in crate::api) fn new(stream: S) -> Self {
        Peer { stream, decoder: Decoder::new(), buffer: BytesMut::new(), speaker: Speaker::new() }
    }
    pub(in crate::api) async fn say(&mut self, bytes: &[u8]) {
        tokio::io::AsyncWriteExt::write_all(&mut self.stream, bytes).await.unwrap();
    }
    pub(in crate::api) async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
        let bytes = self.speaker.open(stream, headers, false);
        self.say(&bytes).await;
    }
    /// What comes next; `None` when the other side has hung up.
    pub(in crate::api) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            let read = tokio::io::AsyncReadExt::read_buf(&mut self.stream, &mut self.buffer);
            let read = tokio::time::timeout(std::time::Duration::from_secs(20), read).await.expect("the server says something");
            if matches!(read, Ok(0) | Err(_)) {
                return None;
            }
        }
    }
    /// What a stream carries until it ends, while others are not listened to; with the rest of what they said.
    pub(in crate::api) async fn all(&mut self) -> std::collections::BTreeMap<u32, String> {
        let mut said = std::collections::BTreeMap::new();
        while let Some(frame) = self.next().await {
            let (stream, text) = match frame {
                Frame::Data { stream, bytes, last } => {
                    (stream, String::from_utf8_lossy(&bytes).into_owned() + if last { "|" } else { "" })
                }
                Frame::Reset { stream } => (stream, "reset".to_owned()),
                Frame::GoAway => (0, "bye".to_owned()),
                _ => continue,
            };
            *said.entry(stream).or_insert_with(String::new) += &text;
            if stream == 0 {
                break;
            }
        }
        said
    }
}
