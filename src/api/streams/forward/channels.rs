//! Port-forward in the channels of a WebSocket (`v4.channel.k8s.io`), as client libraries speak it: two for each port, the first for data,
//! the second for what went wrong. Each begins, from our side, with the number of its port.

use axum::extract::ws::{Message, WebSocket};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{AHEAD, Pod};
use crate::api::Api;
use crate::api::auth::Identity;
use crate::api::failure::Failure;
use crate::api::path::Query;
use crate::api::streams::LONGEST;
use crate::api::streams::session::hang_up;

/// Ports of one connection: a channel's number has one byte, and nobody asks for that many.
const PORTS: usize = 32;
/// Messages that may wait for a slow client.
const WAITING: usize = 16;

/// The ports that a client asks for.
pub(super) fn ports(query: &Query) -> Result<Vec<u16>, Failure> {
    let named = query.all("ports").chain(query.all("port")).flat_map(|list| list.split(','));
    let ports: Result<Vec<u16>, Failure> = named
        .map(|text| match text.trim().parse() {
            Ok(port @ 1..) => Ok(port),
            _ => Err(Failure::bad_request(format!("query parameter \"port\" must be a number from 1 to 65535, not {text:?}"))),
        })
        .collect();
    match ports? {
        ports if ports.is_empty() => Err(Failure::bad_request("query parameter \"port\" is required")),
        ports if ports.len() > PORTS => Err(Failure::bad_request(format!("at most {PORTS} ports at once"))),
        ports => Ok(ports),
    }
}

fn message(channel: usize, payload: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(payload.len() + 1);
    bytes.put_u8(channel as u8);
    bytes.put_slice(payload);
    Message::Binary(bytes.freeze())
}

pub(super) async fn forward(api: &Api, identity: &Identity, pod: &Pod, ports: &[u16], socket: WebSocket) {
    let (mut sink, mut stream) = socket.split();
    let (tell, mut waiting) = mpsc::channel::<Message>(WAITING);
    let mut lines = JoinSet::new();
    let mut senders = Vec::new();
    for (number, port) in ports.iter().copied().enumerate() {
        let (sender, said) = mpsc::channel(AHEAD);
        senders.push(sender);
        lines.spawn(carry(api.clone(), pod.clone(), number * 2, port, said, tell.clone()));
    }
    drop(tell);
    let writing = async {
        while let Some(message) = waiting.recv().await {
            if sink.send(message).await.is_err() {
                return false;
            }
        }
        true // every line is over
    };
    let hearing = async {
        while let Some(Ok(message)) = stream.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => return,
                _ => continue,
            };
            let Some(&channel) = bytes.first() else { continue };
            // Data channels are the even ones.
            if channel % 2 == 0
                && bytes.len() > 1
                && let Some(sender) = senders.get(usize::from(channel / 2))
            {
                let _ = sender.send(bytes.slice(1..)).await;
            }
        }
    };
    let over = tokio::select! {
        over = writing => over,
        () = hearing => false,
        () = api.until_cut(identity) => true,
        () = tokio::time::sleep(LONGEST) => true,
    };
    lines.shutdown().await;
    if over && let Ok(socket) = sink.reunite(stream) {
        hang_up(socket).await;
    }
}

/// One connection, until the pod ends it.
async fn carry(api: Api, pod: Pod, channel: usize, port: u16, said: mpsc::Receiver<Bytes>, tell: mpsc::Sender<Message>) {
    let number = port.to_le_bytes();
    if tell.send(message(channel, &number)).await.is_err() || tell.send(message(channel + 1, &number)).await.is_err() {
        return;
    }
    let problem = match api.dial(&pod, port, said).await {
        Ok(mut answer) => loop {
            match answer.frame().await {
                Some(Ok(piece)) => {
                    let Ok(bytes) = piece.into_data() else { continue };
                    if !bytes.is_empty() && tell.send(message(channel, &bytes)).await.is_err() {
                        return;
                    }
                }
                Some(Err(_)) => break format!("error forwarding port {port} to pod: the connection to the host broke"),
                None => return,
            }
        },
        Err(failure) => failure.message,
    };
    let _ = tell.send(message(channel + 1, problem.as_bytes())).await;
}
