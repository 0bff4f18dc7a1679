//! Exec and attach: one process, between a client's channels and an agent's frames (`object::stream`).

mod spdy;
mod websocket;

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{Method, Response, request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::mpsc;

pub(super) use spdy::farewell;
pub(super) use websocket::hang_up;

use super::front::{Front, spdy_upgrade};
use super::{FAREWELL, LONGEST, SHORT_FAREWELL, agent_request, told};
use crate::api::Api;
use crate::api::auth::Identity;
use crate::api::failure::Failure;
use crate::api::path::{Query, Target, encode};
use crate::api::spdy::Gone;
use crate::object::stream::{ERROR, FRAME_MAX, Frame, RESIZE, STDERR, STDIN, STDOUT};

/// What the channels of a WebSocket may mean, the best first. Version 5 can close standard input alone.
const WEBSOCKET: [&str; 5] =
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// What the streams of SPDY may mean, the best first. Version 5 adds nothing to 4 there.
const SPDY: [&str; 5] = ["v4.channel.k8s.io", "v5.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// Frames that may wait for a slow agent: then the client waits.
const WAITING: usize = 16;
/// How often an idle session is kept awake, for the boxes in between.
const STIR_EVERY: Duration = Duration::from_secs(30);

/// The version of the channels' protocol.
fn version(protocol: &str) -> u8 {
    protocol.strip_prefix('v').and_then(|rest| rest.split('.').next()?.parse().ok()).unwrap_or(1)
}

/// The side of the client.
trait Client: Send {
    /// What it says next: frames of [`STDIN`], [`RESIZE`] and [`crate::object::stream::CLOSE`], of any length. `None`: it has left.
    /// Nothing is lost when the future is dropped.
    fn hear(&mut self) -> impl Future<Output = Option<Frame>> + Send;
    /// Tells it what the process wrote.
    fn tell(&mut self, channel: u8, payload: &Bytes) -> impl Future<Output = Result<(), Gone>> + Send;
    /// Makes some traffic.
    fn stir(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;
    /// Tells it how the process ended, and hangs up. It has so long to read what is left.
    fn end(self, status: &[u8], patience: Duration) -> impl Future<Output = ()> + Send;
}

impl Api {
    /// `pods/exec` and `pods/attach`
    pub(in crate::api) async fn session(
        &self,
        identity: &Identity,
        target: &Target,
        query: &Query,
        mut parts: request::Parts,
    ) -> Result<Response<Body>, Failure> {
        let front = Front::of(&mut parts, &WEBSOCKET, &SPDY).await?;
        let place = self.container(target, query).await?;
        let wants = |name: &str, short: &str| query.flag(name) || query.flag(short);
        let (stdin, stdout, tty) = (wants("stdin", "input"), wants("stdout", "output"), wants("tty", "tty"));
        // A terminal has one output.
        let stderr = wants("stderr", "error") && !tty;
        let mut flags = vec![format!("stdin={stdin}&stdout={stdout}&stderr={stderr}&tty={tty}")];
        if target.subresource == "exec" {
            let command: Vec<&str> = query.all("command").collect();
            if command.is_empty() {
                return Err(Failure::bad_request("PodExecOptions.core \"\" is invalid: command: Required value"));
            }
            flags.splice(0..0, command.iter().map(|word| format!("command={}", encode(word))));
        }
        let seat = self.seat()?;
        let (sender, receiver) = mpsc::channel::<Frame>(WAITING);
        let path = format!("/{}/{}?{}", target.subresource, place.path, flags.join("&"));
        let body = Body::from_stream(told(receiver, |frame: Frame| frame.encode()));
        let response = self.ask_agent(&place.node, agent_request(Method::POST, &path, body)?).await?;
        let (api, identity) = (self.clone(), identity.clone());
        let talk = Talk { sender: Some(sender), waiting: VecDeque::new(), output: response.into_body(), buffer: BytesMut::new() };
        Ok(match front {
            Front::WebSocket { upgrade, protocol } => upgrade.on_upgrade(move |socket| async move {
                let client = websocket::Client::new(socket, version(&protocol));
                talk.run(client, api.until_cut(&identity)).await;
                drop(seat);
            }),
            Front::Spdy { upgrade, protocol } => {
                let version = version(&protocol);
                let mut wanted = vec![ERROR];
                wanted.extend([(stdin, STDIN), (stdout, STDOUT), (stderr, STDERR)].iter().filter(|w| w.0).map(|w| w.1));
                wanted.extend((tty && version >= 3).then_some(RESIZE));
                spdy_upgrade(upgrade, &protocol, move |stream| async move {
                    if let Ok(client) = spdy::Client::open(stream, &wanted, version).await {
                        talk.run(client, api.until_cut(&identity)).await;
                    }
                    drop(seat);
                })
            }
        })
    }
}

/// What goes on between the two sides.
struct Talk {
    /// To the agent; gone when it hears no more.
    sender: Option<mpsc::Sender<Frame>>,
    /// What the client said and the agent has no room for yet. The client is not heard further until it is gone, but its output flows on:
    /// a process that waits for somebody to read would otherwise never read itself.
    waiting: VecDeque<Frame>,
    output: Incoming,
    buffer: BytesMut,
}

impl Talk {
    async fn run(mut self, mut client: impl Client, cut: impl Future<Output = ()>) {
        let mut cut = std::pin::pin!(cut);
        let end = tokio::time::sleep(LONGEST);
        let mut end = std::pin::pin!(end);
        let mut stir = tokio::time::interval(STIR_EVERY);
        let (status, patience) = loop {
            let sender = self.sender.clone();
            let room = async move { sender?.reserve_owned().await.ok() };
            tokio::select! {
                frame = client.hear(), if self.waiting.is_empty() => match frame {
                    Some(frame) => self.heard(frame),
                    None => return,
                },
                room = room, if !self.waiting.is_empty() => match (room, self.waiting.pop_front()) {
                    (Some(room), Some(frame)) => _ = room.send(frame),
                    _ => {
                        // The agent hears no more; its output may still come.
                        self.sender = None;
                        self.waiting.clear();
                    }
                },
                piece = self.output.frame() => match piece {
                    Some(Ok(piece)) => {
                        if let Ok(data) = piece.into_data() {
                            self.buffer.extend_from_slice(&data);
                        }
                        match self.pass_on(&mut client).await {
                            Ok(None) => {}
                            Ok(Some(status)) => break (status, FAREWELL),
                            Err(Gone) => return,
                        }
                    }
                    Some(Err(_)) => break (failed("the connection to the host broke"), FAREWELL),
                    None => break (failed("the host ended the session without a result"), FAREWELL),
                },
                _ = stir.tick() => {
                    if client.stir().await.is_err() {
                        return;
                    }
                }
                () = cut.as_mut() => break (failed("the session was ended by the server"), SHORT_FAREWELL),
                () = end.as_mut() => break (failed("the session has lasted too long"), SHORT_FAREWELL),
            }
        };
        client.end(&status, patience).await;
    }

    fn heard(&mut self, frame: Frame) {
        if self.sender.is_none() {
            return;
        }
        let mut rest = frame.payload;
        loop {
            let payload = rest.split_to(rest.len().min(FRAME_MAX));
            self.waiting.push_back(Frame { channel: frame.channel, payload });
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Passes on what the agent has said, up to the final status.
    async fn pass_on(&mut self, client: &mut impl Client) -> Result<Option<Bytes>, Gone> {
        loop {
            match Frame::decode(&mut self.buffer) {
                Ok(Some(frame)) => match frame.channel {
                    STDOUT | STDERR => client.tell(frame.channel, &frame.payload).await?,
                    ERROR => return Ok(Some(frame.payload)),
                    _ => {}
                },
                Ok(None) => return Ok(None),
                Err(error) => return Ok(Some(failed(&error.to_string()))),
            }
        }
    }
}

fn failed(why: &str) -> Bytes {
    Failure::internal(why).status().to_string().into()
}

/// How a client of some version of the protocol is told the end: from 4 on as a Status, before that as a sentence, or not at all.
fn last_words(version: u8, status: &[u8]) -> Option<Vec<u8>> {
    if version >= 4 {
        return Some(status.to_vec());
    }
    let status: Value = serde_json::from_slice(status).unwrap_or_default();
    (status["status"] != "Success").then(|| status["message"].as_str().unwrap_or("the session failed").as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_clients_are_told_in_words() {
        let failure = br#"{"status":"Failure","message":"command terminated with exit code 7"}"#;
        assert_eq!(last_words(3, failure).unwrap(), b"command terminated with exit code 7");
        assert_eq!(last_words(1, br#"{"metadata":{},"status":"Success"}"#), None);
        assert_eq!(last_words(4, failure).unwrap(), failure);
        assert_eq!(["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io", ""].map(version), [5, 4, 1, 1]);
    }
}
