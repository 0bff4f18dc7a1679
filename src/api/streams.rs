//! Logs, exec and attach: from a client, through the tunnel, to the agent that runs the pod, and back.
//!
//! Exec and attach come as WebSockets with Kubernetes' channel protocols; towards the agent they are frames (`object::stream`). An
//! upgrade is granted only after the agent has agreed, so that errors stay errors (CVE-2018-1002105).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http::{Method, Request, Response, request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;

use super::Api;
use super::auth::Identity;
use super::failure::{Failure, bytes_response};
use super::path::{Query, Target, encode};
use crate::object::stream::{CLOSE, ERROR, FRAME_MAX, Frame, RESIZE, STDERR, STDIN, STDOUT};

/// Protocols for exec and attach, the best first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// The largest message of a client. kubectl sends 32 KiB at a time.
const MESSAGE_MAX: usize = 4 << 20;
/// Frames that may wait for a slow agent: then the client waits.
const WAITING: usize = 16;
/// How often to look whether the client still may (SE7: at most five seconds).
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How often an idle session is kept awake, for the boxes in between.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long a session may last: Kubernetes' limit for idle ones, for all.
const SESSION: Duration = Duration::from_secs(4 * 3600);

/// Where a container is.
struct Place {
    node: String,
    /// `{namespace}/{pod}/{container}`, escaped.
    path: String,
}

impl Api {
    /// The container that a request means, and the node that runs it.
    async fn container(&self, target: &Target, query: &Query) -> Result<Place, Failure> {
        let pod = self.find(target).await?.value();
        let spec = &pod["spec"];
        let names = |list: &str| -> Vec<String> {
            spec[list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
        };
        let (plain, inits, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
        let preferred = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str().unwrap_or("");
        let container = match (query.get("container"), plain.as_slice()) {
            ("", [only]) => only.clone(),
            ("", _) if plain.iter().any(|name| name == preferred) => preferred.to_owned(),
            ("", _) => {
                let mut why =
                    format!("a container name must be specified for pod {}, choose one of: [{}]", target.name, plain.join(" "));
                if !inits.is_empty() {
                    why.push_str(&format!(" or one of the init containers: [{}]", inits.join(" ")));
                }
                return Err(Failure::bad_request(why));
            }
            (name, _) => name.to_owned(),
        };
        if ![&plain, &inits, &ephemeral].iter().any(|list| list.contains(&container)) {
            return Err(Failure::bad_request(format!("container {container} is not valid for pod {}", target.name)));
        }
        let node = spec["nodeName"].as_str().unwrap_or("");
        if node.is_empty() {
            return Err(Failure::bad_request(format!("pod {} does not have a host assigned", target.name)));
        }
        let path = format!("{}/{}/{}", encode(&target.namespace), encode(&target.name), encode(&container));
        Ok(Place { node: node.to_owned(), path })
    }

    /// `pods/log`
    pub(super) async fn log(&self, identity: &Identity, target: &Target, query: &Query) -> Result<Response<Body>, Failure> {
        let place = self.container(target, query).await?;
        let mut flags = Vec::new();
        for name in ["follow", "previous", "timestamps"] {
            if query.flag(name) {
                flags.push(format!("{name}=true"));
            }
        }
        for name in ["tailLines", "sinceSeconds", "limitBytes"] {
            if let Some(number) = query.number(name)? {
                let least = i64::from(name != "tailLines");
                if number < least {
                    return Err(Failure::unprocessable(format!(
                        "PodLogOptions.core \"\" is invalid: {name}: Invalid value: {number}: must be greater than or equal to {least}"
                    )));
                }
                flags.push(format!("{name}={number}"));
            }
        }
        if !query.get("sinceTime").is_empty() {
            let time: Timestamp = query.get("sinceTime").parse().map_err(|_| {
                Failure::bad_request(format!("sinceTime: Invalid value: {:?}: must be a time", query.get("sinceTime")))
            })?;
            if !query.get("sinceSeconds").is_empty() {
                return Err(Failure::unprocessable(
                    "PodLogOptions.core \"\" is invalid: sinceSeconds: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
                ));
            }
            flags.push(format!("sinceTime={}", encode(&time.to_string())));
        }
        let request = agent_request(Method::GET, &format!("/containerLogs/{}?{}", place.path, flags.join("&")), Body::empty())?;
        let response = self.ask_agent(&place.node, request).await?;
        let (api, identity) = (self.clone(), identity.clone());
        let over = async move { api.until_cut(&identity).await };
        let pieces = response.into_body().into_data_stream().take_until(Box::pin(over));
        Ok(bytes_response(200, "text/plain", Body::from_stream(pieces)))
    }

    /// Ready when a stream has to be cut: the credential is no longer good, or the server stops.
    async fn until_cut(&self, identity: &Identity) {
        loop {
            tokio::select! {
                () = self.inner.stopping.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {
                    if !self.still_valid(identity) {
                        return;
                    }
                }
            }
        }
    }

    /// `pods/exec` and `pods/attach`
    pub(super) async fn session(
        &self,
        identity: &Identity,
        target: &Target,
        query: &Query,
        mut parts: request::Parts,
    ) -> Result<Response<Body>, Failure> {
        let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
            .await
            .map_err(|_| Failure::bad_request("Upgrade request required: this server speaks WebSockets for exec and attach"))?
            .max_message_size(MESSAGE_MAX)
            .protocols(PROTOCOLS);
        let Some(protocol) = upgrade.selected_protocol().cloned() else {
            return Err(Failure::bad_request(format!("the client must offer one of the protocols {}", PROTOCOLS.join(", "))));
        };
        let place = self.container(target, query).await?;
        let mut flags: Vec<String> = Vec::new();
        for (name, short) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
            flags.push(format!("{name}={}", query.flag(name) || query.flag(short)));
        }
        if target.subresource == "exec" {
            let command: Vec<&str> = query.all("command").collect();
            if command.is_empty() {
                return Err(Failure::bad_request("PodExecOptions.core \"\" is invalid: command: Required value"));
            }
            flags.splice(0..0, command.iter().map(|word| format!("command={}", encode(word))));
        }
        let (sender, receiver) = mpsc::channel::<Frame>(WAITING);
        let frames = stream::unfold(receiver, |mut receiver| async move {
            let frame = receiver.recv().await?;
            Some((Ok::<Bytes, Infallible>(frame.encode()), receiver))
        });
        let path = format!("/{}/{}?{}", target.subresource, place.path, flags.join("&"));
        let request = agent_request(Method::POST, &path, Body::from_stream(frames))?;
        let response = self.ask_agent(&place.node, request).await?;
        let half_close = protocol == PROTOCOLS[0];
        let (api, identity) = (self.clone(), identity.clone());
        Ok(upgrade.on_upgrade(move |socket| async move {
            let output = response.into_body();
            let waiting = VecDeque::new();
            let session = Session { socket, sender: Some(sender), waiting, output, buffer: BytesMut::new(), half_close };
            let cut = async move { api.until_cut(&identity).await };
            session.run(cut).await;
        }))
    }
}

fn agent_request(method: Method, path: &str, body: Body) -> Result<Request<Body>, Failure> {
    // The authority of the address means nothing on a tunnel, but HTTP/2 wants one.
    Request::builder()
        .method(method)
        .uri(format!("http://agent{path}"))
        .body(body)
        .map_err(|e| Failure::bad_request(format!("the request cannot be passed on: {e}")))
}

/// One exec or attach, between a client's WebSocket and an agent's frames.
struct Session {
    socket: WebSocket,
    /// To the agent; gone when the client has nothing more to say.
    sender: Option<mpsc::Sender<Frame>>,
    /// What the client said and the agent has no room for yet. The client is not heard further until it is gone, but its output flows on:
    /// a process that waits for somebody to read would otherwise never read itself.
    waiting: VecDeque<Frame>,
    output: Incoming,
    buffer: BytesMut,
    /// Whether the client can close its standard input alone.
    half_close: bool,
}

impl Session {
    async fn run(mut self, cut: impl Future<Output = ()>) {
        let mut cut = std::pin::pin!(cut);
        let end = tokio::time::sleep(SESSION);
        let mut end = std::pin::pin!(end);
        let mut ping = tokio::time::interval(PING_EVERY);
        let mut told = false;
        let why = loop {
            let sender = self.sender.clone();
            let room = async move { sender?.reserve_owned().await.ok() };
            tokio::select! {
                message = self.socket.recv(), if self.waiting.is_empty() => match message {
                    Some(Ok(message)) => {
                        if !self.hear_client(message) {
                            return;
                        }
                    }
                    _ => return,
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
                        match self.tell_client().await {
                            Ok(finished) => told |= finished,
                            Err(()) => return,
                        }
                        if told {
                            break "";
                        }
                    }
                    Some(Err(_)) => break "the connection to the host broke",
                    None => break "the host ended the session without a result",
                },
                _ = ping.tick() => {
                    if self.socket.send(Message::Ping(Bytes::new())).await.is_err() {
                        return;
                    }
                }
                () = cut.as_mut() => break "the session was ended by the server",
                () = end.as_mut() => break "the session has lasted too long",
            }
        };
        if !told {
            let status = Failure::internal(why).status();
            let _ = self.send(ERROR, status.to_string().as_bytes()).await;
        }
        // Without the code kubectl takes the end for an accident.
        let close = CloseFrame { code: axum::extract::ws::close_code::NORMAL, reason: "".into() };
        let _ = self.socket.send(Message::Close(Some(close))).await;
        // The client answers; leaving earlier could cost it the last output.
        let drain = async { while let Some(Ok(_)) = self.socket.recv().await {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), drain).await;
    }

    async fn send(&mut self, channel: u8, payload: &[u8]) -> Result<(), ()> {
        let mut message = BytesMut::with_capacity(payload.len() + 1);
        message.put_u8(channel);
        message.put_slice(payload);
        self.socket.send(Message::Binary(message.freeze())).await.map_err(|_| ())
    }

    /// Takes what the client says. `false`: it has left.
    fn hear_client(&mut self, message: Message) -> bool {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => return false,
            _ => return true,
        };
        let Some(&channel) = bytes.first() else { return true };
        let payload = bytes.slice(1..);
        if !(matches!(channel, STDIN | RESIZE) || (channel == CLOSE && self.half_close)) {
            return true;
        }
        if self.sender.is_none() {
            return true;
        }
        let mut rest = payload;
        loop {
            let payload = rest.split_to(rest.len().min(FRAME_MAX));
            self.waiting.push_back(Frame { channel, payload });
            if rest.is_empty() {
                return true;
            }
        }
    }

    /// Passes on what the agent has said. `true`: the result was among it.
    async fn tell_client(&mut self) -> Result<bool, ()> {
        loop {
            match Frame::decode(&mut self.buffer) {
                Ok(Some(frame)) => match frame.channel {
                    STDOUT | STDERR => self.send(frame.channel, &frame.payload).await?,
                    ERROR => {
                        self.send(ERROR, &frame.payload).await?;
                        return Ok(true);
                    }
                    _ => {}
                },
                Ok(None) => return Ok(false),
                Err(error) => {
                    let status = json!({
                        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "reason": "InternalError", "message": error.to_string(), "code": 500,
                    });
                    self.send(ERROR, status.to_string().as_bytes()).await?;
                    return Ok(true);
                }
            }
        }
    }
}
