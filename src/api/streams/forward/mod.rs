//! Port-forward: connections to ports of a pod, as many as the client likes, over one connection of the client.
//!
//! Each is a request of its own to the agent, whose bodies are the two directions. A client's connection is SPDY, raw or inside a
//! WebSocket: for each connection the client opens two streams with the same `requestid`, one for what went wrong and one for the
//! data. Older libraries have a pair of WebSocket channels for each port instead (`channels`).

mod channels;

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, future};
use http::{Method, Response, request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::front::{Front, spdy_upgrade};
use super::session::farewell;
use super::{LONGEST, SHORT_FAREWELL, agent_request, told};
use crate::api::Api;
use crate::api::auth::Identity;
use crate::api::failure::Failure;
use crate::api::path::{Query, Target, encode};
use crate::api::spdy::{Frame, Gone, Headers, Reader, Writer, link};

/// SPDY inside a WebSocket, as kubectl speaks it from 1.31 on.
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";
/// What a WebSocket may carry, the best first.
const WEBSOCKET: [&str; 2] = [TUNNELLED, "v4.channel.k8s.io"];
/// What SPDY may carry.
const SPDY: [&str; 1] = ["portforward.k8s.io"];
/// Connections at once for one client.
const LINES: usize = 256;
/// Pieces of at most 32 KiB that may wait for a pod that does not read. Then the client is not heard further.
pub(super) const AHEAD: usize = 8;

/// Where a pod is.
#[derive(Clone)]
pub(super) struct Pod {
    pub(super) node: String,
    /// `{namespace}/{pod}`, escaped.
    pub(super) path: String,
}

impl Api {
    /// `pods/portforward`
    pub(in crate::api) async fn port_forward(
        &self,
        identity: &Identity,
        target: &Target,
        query: &Query,
        mut parts: request::Parts,
    ) -> Result<Response<Body>, Failure> {
        let front = Front::of(&mut parts, &WEBSOCKET, &SPDY).await?;
        let object = self.find(target).await?.value();
        let node = object["spec"]["nodeName"].as_str().unwrap_or("").to_owned();
        if node.is_empty() {
            return Err(Failure::bad_request(format!("pod {} does not have a host assigned", target.name)));
        }
        let pod = Pod { node, path: format!("{}/{}", encode(&target.namespace), encode(&target.name)) };
        let ports = match &front {
            Front::WebSocket { protocol, .. } if protocol != TUNNELLED => channels::ports(query)?,
            _ => Vec::new(),
        };
        let seat = self.seat()?;
        // Whether the host is there and has the pod, while an error can still be one.
        self.ask_agent(&pod.node, agent_request(Method::GET, &format!("/portForward/{}", pod.path), Body::empty())?).await?;
        let (api, identity) = (self.clone(), identity.clone());
        Ok(match front {
            Front::Spdy { upgrade, protocol } => spdy_upgrade(upgrade, &protocol, move |stream| async move {
                api.forward(&identity, pod, stream).await;
                drop(seat);
            }),
            Front::WebSocket { upgrade, protocol } if protocol == TUNNELLED => upgrade.on_upgrade(move |socket| async move {
                api.forward(&identity, pod, tunnelled(socket)).await;
                drop(seat);
            }),
            Front::WebSocket { upgrade, .. } => upgrade.on_upgrade(move |socket| async move {
                channels::forward(&api, &identity, &pod, &ports, socket).await;
                drop(seat);
            }),
        })
    }

    /// Connects to a port of a pod. `said` is what goes there; its end is the end of that direction only.
    pub(super) async fn dial(&self, pod: &Pod, port: u16, said: mpsc::Receiver<Bytes>) -> Result<Incoming, Failure> {
        let path = format!("/portForward/{}?port={port}", pod.path);
        let request = agent_request(Method::POST, &path, Body::from_stream(told(said, |bytes| bytes)))?;
        Ok(self.ask_agent(&pod.node, request).await?.into_body())
    }

    async fn forward(&self, identity: &Identity, pod: Pod, stream: impl AsyncRead + AsyncWrite + Send + 'static) {
        let (reader, writer, writing) = link(stream);
        let lines = Lines {
            api: self.clone(),
            pod,
            writer: writer.clone(),
            halves: BTreeMap::new(),
            senders: BTreeMap::new(),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            newest: 0,
        };
        let mut reader = reader;
        let over = tokio::select! {
            newest = lines.run(&mut reader) => newest,
            () = self.until_cut(identity) => None,
            () = tokio::time::sleep(LONGEST) => None,
        };
        if let Some(newest) = over {
            let _ = tokio::time::timeout(SHORT_FAREWELL, writer.goodbye(newest)).await;
        }
        farewell(reader, writer, writing, SHORT_FAREWELL).await;
    }
}

/// The bytes in the binary messages of a WebSocket.
fn tunnelled(socket: WebSocket) -> impl AsyncRead + AsyncWrite + Send + 'static {
    let (sink, stream) = socket.split();
    let bytes = stream.take_while(|message| future::ready(!matches!(message, Ok(Message::Close(_))))).filter_map(|message| {
        future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(_) => None,
            Err(error) => Some(Err(std::io::Error::other(error))),
        })
    });
    let message = |bytes: Bytes| future::ready(Ok::<_, std::io::Error>(Message::Binary(bytes)));
    let sink = sink.sink_map_err(std::io::Error::other).with(message);
    tokio::io::join(StreamReader::new(bytes), SinkWriter::new(CopyToBytes::new(sink)))
}

/// The connections of one client.
struct Lines {
    api: Api,
    pod: Pod,
    writer: Writer,
    /// Requests of which not both streams are open, by `requestid`.
    halves: BTreeMap<String, Half>,
    /// To the pod, by data stream.
    senders: BTreeMap<u32, mpsc::Sender<Bytes>>,
    /// By data stream.
    running: BTreeMap<u32, AbortHandle>,
    tasks: JoinSet<u32>,
    newest: u32,
}

#[derive(Default)]
struct Half {
    error: Option<u32>,
    data: Option<(u32, u16, mpsc::Receiver<Bytes>)>,
}

impl Lines {
    /// Until the client hangs up (`None`) or says what is no SPDY (the last stream that was good).
    async fn run<R: AsyncRead + Unpin>(mut self, reader: &mut Reader<R>) -> Option<u32> {
        loop {
            let frame = tokio::select! {
                frame = reader.next() => frame,
                Some(ended) = self.tasks.join_next() => {
                    if let Ok(stream) = ended {
                        self.running.remove(&stream);
                        self.senders.remove(&stream);
                    }
                    continue;
                }
            };
            let done = match frame {
                Ok(Some(Frame::Open { stream, headers, last })) => self.opened(stream, &headers, last).await,
                Ok(Some(Frame::Data { stream, bytes, last })) => {
                    if let Some(sender) = self.senders.get(&stream)
                        && !bytes.is_empty()
                    {
                        // A pod that is gone hears nothing; its task tells the client.
                        let _ = sender.send(bytes).await;
                    }
                    if last {
                        self.senders.remove(&stream);
                    }
                    Ok(())
                }
                Ok(Some(Frame::Reset { stream })) => {
                    self.senders.remove(&stream);
                    if let Some(task) = self.running.remove(&stream) {
                        task.abort();
                    }
                    Ok(())
                }
                Ok(Some(Frame::Ping { id })) => {
                    self.writer.pong(id);
                    Ok(())
                }
                Ok(Some(Frame::GoAway)) => Ok(()),
                Ok(None) => return None,
                Err(error) => {
                    tracing::debug!("port-forward: {error}");
                    return Some(self.newest);
                }
            };
            if done.is_err() {
                return None;
            }
        }
    }

    async fn opened(&mut self, stream: u32, headers: &Headers, last: bool) -> Result<(), Gone> {
        let port: u16 = headers.get("port").parse().unwrap_or(0);
        let kind = headers.get("streamtype");
        // The very first clients sent no number: their error stream is the one before the data stream.
        let request = match (headers.get("requestid"), kind) {
            ("", "data") => format!("stream {}", stream.saturating_sub(2)),
            ("", _) => format!("stream {stream}"),
            (id, _) => id.to_owned(),
        };
        let full = self.halves.len() + self.running.len() >= LINES && !self.halves.contains_key(&request);
        if stream <= self.newest || port == 0 || full || !matches!(kind, "data" | "error") {
            return self.writer.refuse(stream).await;
        }
        self.newest = stream;
        let half = self.halves.entry(request.clone()).or_default();
        if kind == "error" {
            half.error = Some(stream);
        } else {
            let (sender, receiver) = mpsc::channel(AHEAD);
            if !last {
                self.senders.insert(stream, sender);
            }
            half.data = Some((stream, port, receiver));
        }
        self.writer.accept(stream).await?;
        if let (Some(error), Some((data, port, said))) = (half.error, half.data.take()) {
            self.halves.remove(&request);
            let line = carry(self.api.clone(), self.pod.clone(), port, said, self.writer.clone(), (data, error));
            self.running.insert(data, self.tasks.spawn(line));
        }
        Ok(())
    }
}

/// One connection, until the pod ends it.
async fn carry(api: Api, pod: Pod, port: u16, said: mpsc::Receiver<Bytes>, writer: Writer, (data, error): (u32, u32)) -> u32 {
    let problem = match api.dial(&pod, port, said).await {
        Ok(mut answer) => loop {
            match answer.frame().await {
                Some(Ok(piece)) => {
                    let Ok(bytes) = piece.into_data() else { continue };
                    if writer.data(data, &bytes, false).await.is_err() {
                        return data;
                    }
                }
                Some(Err(_)) => break format!("error forwarding port {port} to pod: the connection to the host broke"),
                None => break String::new(),
            }
        },
        Err(failure) => failure.message,
    };
    // What went wrong first: a client that sees the end of the data looks for it.
    let _ = writer.data(error, problem.as_bytes(), true).await;
    let _ = writer.data(data, &[], true).await;
    data
}
