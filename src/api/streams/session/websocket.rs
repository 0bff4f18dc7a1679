//! A client that speaks over a WebSocket: each message is a channel's number and bytes.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::{BufMut, Bytes, BytesMut};

use super::last_words;
use crate::api::spdy::Gone;
use crate::api::streams::HANG_UP;
use crate::object::stream::{CLOSE, ERROR, Frame, RESIZE, STDIN};

pub(super) struct Client {
    socket: WebSocket,
    version: u8,
}

impl Client {
    pub(super) fn new(socket: WebSocket, version: u8) -> Client {
        Client { socket, version }
    }
    async fn send(&mut self, channel: u8, payload: &[u8]) -> Result<(), Gone> {
        let mut message = BytesMut::with_capacity(payload.len() + 1);
        message.put_u8(channel);
        message.put_slice(payload);
        self.socket.send(Message::Binary(message.freeze())).await.map_err(|_| Gone)
    }
}

impl super::Client for Client {
    async fn hear(&mut self) -> Option<Frame> {
        loop {
            let bytes = match self.socket.recv().await? {
                Ok(Message::Binary(bytes)) => bytes,
                // The Python client sends what it was given as text in a text message.
                Ok(Message::Text(text)) => text.into(),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => continue,
            };
            let Some(&channel) = bytes.first() else { continue };
            if matches!(channel, STDIN | RESIZE) || (channel == CLOSE && self.version >= 5) {
                return Some(Frame { channel, payload: bytes.slice(1..) });
            }
        }
    }

    async fn tell(&mut self, channel: u8, payload: &Bytes) -> Result<(), Gone> {
        self.send(channel, payload).await
    }

    async fn stir(&mut self) -> Result<(), Gone> {
        self.socket.send(Message::Ping(Bytes::new())).await.map_err(|_| Gone)
    }

    async fn end(mut self, status: &[u8], patience: Duration) {
        let words = last_words(self.version, status);
        let telling = async {
            if let Some(words) = words {
                let _ = self.send(ERROR, &words).await;
            }
        };
        if tokio::time::timeout(patience, telling).await.is_ok() {
            hang_up(self.socket).await;
        }
    }
}

/// Closes a WebSocket so that the client takes it for an end and not for an accident.
pub(in crate::api::streams) async fn hang_up(mut socket: WebSocket) {
    // Without the code kubectl reports an error.
    let close = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    let farewell = async {
        let _ = socket.send(Message::Close(Some(close))).await;
        while let Some(Ok(_)) = socket.recv().await {}
    };
    let _ = tokio::time::timeout(HANG_UP, farewell).await;
}
