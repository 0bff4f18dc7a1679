//! A list that keeps itself up to date.

use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::Method;
use k8s_openapi::Resource;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Client, Error, Event, path};

/// How long the server may keep one watch open, in seconds. It is simply opened again where it ended.
const OPEN_FOR: u64 = 600;
/// The first and the longest pause while the server does not answer.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// The longest event, in bytes: larger than any object that a server stores.
const EVENT_MAX: usize = 16 << 20;

struct State<K> {
    client: Client,
    namespace: String,
    selectors: String,
    quiet: Duration,
    /// Where to go on; `None` lists first.
    revision: Option<String>,
    open: Option<BoxStream<'static, Result<bytes::Bytes, Error>>>,
    buffer: BytesMut,
    pause: Duration,
    kind: std::marker::PhantomData<fn() -> K>,
}

#[derive(serde::Deserialize)]
struct Line {
    r#type: String,
    object: Value,
}

enum Heard<K> {
    Event(Event<K>),
    /// Nothing to tell.
    Nothing,
    /// The connection is of no more use.
    End,
    /// Where we were is no longer known to the server.
    Expired,
}

pub(super) fn watch<K>(client: Client, namespace: String, selectors: String, quiet: Duration) -> BoxStream<'static, Event<K>>
where
    K: Resource + DeserializeOwned + Send + 'static,
{
    let state = State {
        client,
        namespace,
        selectors,
        quiet,
        revision: None,
        open: None,
        buffer: BytesMut::new(),
        pause: PAUSES.0,
        kind: std::marker::PhantomData,
    };
    futures_util::stream::unfold(state, |mut state| async move {
        let event = state.next().await;
        Some((event, state))
    })
    .boxed()
}

impl<K: Resource + DeserializeOwned> State<K> {
    async fn next(&mut self) -> Event<K> {
        loop {
            let Some(revision) = self.revision.clone() else {
                match self.client.list_at::<K>(&self.namespace, &self.selectors).await {
                    Ok((items, revision)) => {
                        self.revision = Some(revision);
                        self.pause = PAUSES.0;
                        return Event::All(items);
                    }
                    Err(error) => {
                        self.wait(&error).await;
                        continue;
                    }
                }
            };
            if self.open.is_none() {
                let and = if self.selectors.is_empty() { "" } else { "&" };
                let path = format!(
                    "{}?{}{and}watch=true&allowWatchBookmarks=true&timeoutSeconds={OPEN_FOR}&resourceVersion={revision}",
                    path::<K>(&self.namespace, "", None),
                    self.selectors
                );
                match self.client.stream(Method::GET, &path).await {
                    Ok(stream) => {
                        self.buffer.clear();
                        self.open = Some(stream);
                    }
                    Err(Error::Status { code: 410, .. }) => self.revision = None,
                    Err(error) => self.wait(&error).await,
                }
                continue;
            }
            match self.hear().await {
                Heard::Event(event) => {
                    self.pause = PAUSES.0;
                    return event;
                }
                Heard::Nothing => self.pause = PAUSES.0,
                Heard::End => {
                    self.open = None;
                    // A server that closes at once must not be asked in a tight loop.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Heard::Expired => {
                    self.open = None;
                    self.revision = None;
                }
            }
        }
    }

    async fn wait(&mut self, error: &Error) {
        tracing::debug!(kind = K::KIND, %error, cause = ?std::error::Error::source(error), "watch: the server does not answer");
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
    }

    async fn hear(&mut self) -> Heard<K> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(end + 1);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return self.read(&line);
            }
            let Some(open) = &mut self.open else { return Heard::End };
            match tokio::time::timeout(self.quiet, open.next()).await {
                Ok(Some(Ok(bytes))) if self.buffer.len() + bytes.len() <= EVENT_MAX => self.buffer.extend_from_slice(&bytes),
                _ => return Heard::End,
            }
        }
    }

    fn read(&mut self, line: &[u8]) -> Heard<K> {
        let Ok(Line { r#type, object }) = serde_json::from_slice::<Line>(line) else { return Heard::End };
        if r#type == "ERROR" {
            tracing::debug!(kind = K::KIND, %object, "watch ended by the server");
            return if object["code"] == 410 { Heard::Expired } else { Heard::End };
        }
        let revision = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let heard = match r#type.as_str() {
            "BOOKMARK" => Heard::Nothing,
            kind => match serde_json::from_value::<K>(object) {
                Ok(object) if kind == "DELETED" => Heard::Event(Event::Gone(object)),
                Ok(object) => Heard::Event(Event::Put(object)),
                Err(error) => {
                    // One object that we cannot read must not hide all others.
                    tracing::warn!(kind = K::KIND, %error, "watch: an object that makes no sense");
                    Heard::Nothing
                }
            },
        };
        if !revision.is_empty() {
            self.revision = Some(revision);
        }
        heard
    }
}
