//! Any bytes at all on a connection that was upgraded: SPDY frames, the messages and channels of WebSockets, ports, a host's tunnel, and
//! what a host answers. Nothing panics, every session ends when its client is gone, and others are served all the while.
//!
//! Frames are made from what real clients send, with something wrong in any place. `FUZZ=100` looks a hundred times as long.

use std::net::SocketAddr;
use std::time::Duration;

use http::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::super::spdy::Frame as Spoken;
use super::super::spdy::tests::{Peer, Speaker, control, data};
use super::hostile::{Dice, seed};
use super::sessions::shop;
use super::tunnelling::raw;
use super::*;
use crate::object::robust;
use crate::object::stream::Frame;

/// Sessions of each round.
const SESSIONS: usize = 60;
/// A host may say this much before it is thought to go on for ever.
const NOISE: usize = 64 * 1024;

struct Town {
    w: World,
    address: SocketAddr,
    admin: (String, String),
    /// How many sessions there is room for when there is none.
    seats: usize,
}

/// Pod `web` on a host that behaves, pod `noise` on one that answers with anything.
async fn town(seed: u64) -> Town {
    let (w, address) = shop().await;
    w.pod_on("noise", "h2", json!({})).await;
    let pair = w.host("h2").await;
    noisy(&w, address, "h2", &pair, seed).await;
    let admin = w.authority.client("portolan-admin", &["system:masters"]).unwrap();
    let seats = w.api.inner.sessions.available_permits();
    Town { w, address, admin: (admin.certificate, admin.key), seats }
}

async fn tunnel(w: &World, address: SocketAddr, name: &str, pair: &(String, String)) -> TlsStream<TcpStream> {
    let mut stream = w.connect(address, Some((&pair.0, &pair.1))).await.unwrap();
    let path = format!("/apis/portolan.dev/v1alpha1/nodes/{name}/tunnel");
    let upgrade = "Connection: Upgrade\r\nUpgrade: portolan-tunnel";
    let answer = raw(&mut stream, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    stream
}

/// A host that answers with whatever comes to its mind.
async fn noisy(w: &World, address: SocketAddr, name: &str, pair: &(String, String), seed: u64) {
    let stream = tunnel(w, address, name, pair).await;
    let dice = Arc::new(Mutex::new(Dice(seed)));
    tokio::spawn(async move {
        let service = service_fn(move |_: Request<Incoming>| {
            let dice = dice.clone();
            async move {
                let mut dice = dice.lock();
                let mut said = Vec::new();
                for _ in 0..dice.below(6) {
                    match dice.below(3) {
                        0 => said.extend((0..dice.below(NOISE)).map(|_| dice.next() as u8)),
                        _ => {
                            let payload = dice.text().into_bytes().into();
                            said.extend_from_slice(&Frame { channel: dice.below(7) as u8, payload }.encode());
                        }
                    }
                }
                if dice.one_in(3) {
                    dice.scratch(&mut said);
                }
                let mut response = Response::new(Body::from(said));
                if dice.one_in(4) {
                    let code = [204, 301, 400, 404, 418, 500, 503, 599][dice.below(8)];
                    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
                }
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let connection =
            hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
        let _ = connection.await;
    });
    while !w.api.connected(name) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a client of SPDY says, more or less.
fn spdy(dice: &mut Dice) -> Vec<u8> {
    let mut speaker = Speaker::new();
    let mut bytes = Vec::new();
    for n in 0..1 + dice.below(20) as u32 {
        let stream = if dice.one_in(5) { dice.next() as u32 >> 1 } else { 2 * (n % 7) + 1 };
        bytes.extend(match dice.below(9) {
            0..=3 => {
                let sort = dice.pick(&["error", "stdin", "stdout", "stderr", "resize", "data", "", "x"]).to_owned();
                let (port, id) = (dice.pick(&["80", "81", "0", "-1", "65536", "x", ""]).to_owned(), dice.below(4).to_string());
                let (name, value) = (dice.text(), dice.text());
                let mut headers = vec![("streamtype", sort.as_str()), ("port", &port), ("requestid", &id)];
                if dice.one_in(4) {
                    headers.push((&name, &value));
                }
                speaker.open(stream, &headers, dice.one_in(4))
            }
            4 | 5 => {
                let text = dice.text().into_bytes();
                data(stream, &text, dice.one_in(4))
            }
            6 => data(stream, format!("{{\"Width\":{},\"Height\":{}", dice.next(), dice.text()).as_bytes(), false),
            7 => control(dice.below(12) as u16, dice.next() as u8, &stream.to_be_bytes().repeat(1 + dice.below(3))),
            _ => control(3, 0, &[stream.to_be_bytes(), 5u32.to_be_bytes()].concat()),
        });
    }
    if dice.one_in(2) {
        dice.scratch(&mut bytes);
    }
    bytes
}

/// What a client of a WebSocket says, more or less.
fn websocket(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + dice.below(12) {
        let mut payload = match dice.below(4) {
            0 => (0..dice.below(300)).map(|_| dice.next() as u8).collect(),
            1 => vec![b'x'; dice.below(70_000)],
            _ => dice.text().into_bytes(),
        };
        payload.insert(0, if dice.one_in(4) { dice.next() as u8 } else { dice.pick(&[&[0u8][..], &[1], &[3], &[4], &[255]])[0] });
        // Mostly binary and whole; else text, parts, closes, pings, and what does not exist.
        let head = if dice.one_in(3) { dice.next() as u8 } else { 0x82 };
        bytes.push(head);
        let masked = if dice.one_in(15) { 0 } else { 0x80u8 };
        let claimed = if dice.one_in(20) { dice.next() as usize } else { payload.len() };
        match claimed {
            0..126 => bytes.push(masked | claimed as u8),
            126..0x1_0000 => bytes.extend([&[masked | 126][..], &(claimed as u16).to_be_bytes()].concat()),
            _ => bytes.extend([&[masked | 127][..], &(claimed as u64).to_be_bytes()].concat()),
        }
        let mask = (dice.next() as u32).to_be_bytes();
        if masked != 0 {
            bytes.extend(mask);
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
        bytes.extend(payload);
    }
    if dice.one_in(4) {
        dice.scratch(&mut bytes);
    }
    bytes
}

impl Town {
    async fn connect(&self) -> TlsStream<TcpStream> {
        self.w.connect(self.address, Some((&self.admin.0, &self.admin.1))).await.unwrap()
    }

    /// One client that means harm, from its first byte to its last.
    async fn session(&self, dice: &mut Dice) {
        let pod = dice.pick(&["web", "web", "noise"]);
        let what = dice.pick(&[
            "exec?command=cat&stdin=true&stdout=true&stderr=true",
            "exec?command=cat&stdin=true&stdout=true&tty=true",
            "attach?stdin=true&stdout=true",
            "portforward",
            "portforward?ports=80&ports=81",
        ]);
        let path = format!("/api/v1/namespaces/shop/pods/{pod}/{what}");
        let spoken = dice.one_in(2);
        let version =
            dice.pick(&["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "channel.k8s.io", "portforward.k8s.io"]);
        let request = match spoken {
            true => format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
                 X-Stream-Protocol-Version: {version}\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n"
            ),
            false => format!(
                "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {version}, v4.channel.k8s.io\r\n\r\n"
            ),
        };
        let mut stream = self.connect().await;
        let answer = raw(&mut stream, &request).await;
        let known = ["101", "400", "404", "500", "503"].iter().any(|code| answer.starts_with(&format!("HTTP/1.1 {code}")));
        assert!(known, "{path}: {answer}");
        let bytes = if spoken { spdy(dice) } else { websocket(dice) };
        let (mut reader, mut writer) = tokio::io::split(stream);
        let reading = tokio::spawn(async move {
            let mut buffer = [0; 8192];
            while matches!(reader.read(&mut buffer).await, Ok(n) if n > 0) {}
        });
        let size = 1 + dice.below(5000);
        for piece in bytes.chunks(size) {
            if writer.write_all(piece).await.is_err() || writer.flush().await.is_err() {
                break;
            }
        }
        match dice.below(3) {
            0 => drop(writer.shutdown().await),
            1 => tokio::time::sleep(Duration::from_millis(dice.below(20) as u64)).await,
            _ => {}
        }
        reading.abort();
    }

    /// A host that says anything at all on its tunnel, instead of what was agreed.
    async fn strange_host(&self, dice: &mut Dice) {
        let pair = self.w.host("h3").await;
        let mut stream = tunnel(&self.w, self.address, "h3", &pair).await;
        let mut bytes = match dice.below(3) {
            // Settings, and then frames of any sort.
            0 => (0..dice.below(20)).fold(vec![0, 0, 0, 4, 0, 0, 0, 0, 0], |mut bytes, _| {
                let payload = dice.text().into_bytes();
                bytes.extend(&(payload.len() as u32).to_be_bytes()[1..]);
                bytes.extend([dice.below(12) as u8, dice.next() as u8]);
                bytes.extend((dice.below(6) as u32).to_be_bytes());
                bytes.extend(payload);
                bytes
            }),
            1 => (0..dice.below(5000)).map(|_| dice.next() as u8).collect(),
            _ => b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        };
        dice.scratch(&mut bytes);
        let _ = stream.write_all(&bytes).await;
        let _ = stream.flush().await;
        // Whoever asks for something there now is told, soon.
        self.w.pod_on("strange", "h3", json!({})).await;
        let log = self.w.ask("GET /api/v1/namespaces/shop/pods/strange/log", Value::Null);
        let answer = tokio::time::timeout(Duration::from_secs(30), log).await.expect("an answer about a strange host");
        assert!(answer.code >= 400 && answer.value["kind"] == "Status", "{answer:?}");
        self.w.must("DELETE /api/v1/namespaces/shop/pods/strange?gracePeriodSeconds=0", Value::Null).await;
    }

    /// An honest client is served.
    async fn serves(&self) {
        let mut stream = self.connect().await;
        let path = "/api/v1/namespaces/shop/pods/web/exec?command=cat&stdin=true&stdout=true";
        let upgrade = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io";
        let answer =
            raw(&mut stream, &format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{upgrade}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        let mut peer = Peer::new(stream);
        for (stream, name) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
            peer.open(stream, &[("streamtype", name)]).await;
        }
        peer.say(&data(3, b"still there", true)).await;
        let mut said = Vec::new();
        while let Some(frame) = peer.next().await {
            if let Spoken::Data { stream: 5, bytes, .. } = frame {
                said.extend_from_slice(&bytes);
            }
        }
        assert_eq!(said, b"still there");
    }

    /// Every session has ended.
    async fn is_quiet(&self) {
        let seats = || self.w.api.inner.sessions.available_permits();
        let quiet = async {
            while seats() < self.seats {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), quiet).await;
        assert!(waited.is_ok(), "{} sessions of clients that are gone go on", self.seats - seats());
    }
}

#[tokio::test]
async fn any_bytes_on_a_stream_end_that_stream_and_nothing_else() {
    let seed = seed();
    let town = town(seed).await;
    let mut dice = Dice(seed ^ 0xbeef);
    for round in 0..robust::times().unwrap_or(1) {
        let panics = panics::in_this_thread();
        for _ in 0..SESSIONS {
            town.session(&mut dice).await;
        }
        for _ in 0..3 {
            town.strange_host(&mut dice).await;
        }
        town.serves().await;
        town.is_quiet().await;
        assert_eq!(panics::in_this_thread(), panics, "FUZZ_SEED={seed}, round {round}: a panic, see above");
    }
}
