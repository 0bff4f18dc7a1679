//! The way from the server to an agent: over a connection that the agent opened and holds.
//!
//! After the upgrade the roles swap: on that connection the agent serves HTTP/2 and we are its client. Agents therefore open no port.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use super::Api;
use super::auth::Identity;
use super::failure::Failure;

/// The protocol's name in the `Upgrade` header.
pub const PROTOCOL: &str = "portolan-tunnel";
/// How long the connection may take to become a tunnel.
const OPEN_TIME: Duration = Duration::from_secs(10);
/// How often we look whether an agent is still there, and how long it has to answer.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIME: Duration = Duration::from_secs(10);
/// How long a request waits for an agent that is not connected now: it may be on its way back.
const RETURN_TIME: Duration = Duration::from_secs(5);
/// How long an agent may take to begin its answer: starting a process in a container is the slowest thing that it does.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// How much of one answer may be on its way to us before we have read it, in bytes; and of all together. An answer that a client does not
/// take (a log that nobody scrolls) keeps its window, so there is room for all that an agent may send at once.
const WINDOW: u32 = 256 * 1024;
const WINDOWS: u32 = 500 * WINDOW;
/// The longest error that an agent may answer.
const ERROR_MAX: usize = 64 * 1024;

/// The agents that are connected.
#[derive(Default)]
pub(super) struct Tunnels {
    open: Mutex<BTreeMap<String, Tunnel>>,
    opened: Notify,
    number: AtomicU64,
}

#[derive(Clone)]
struct Tunnel {
    number: u64,
    sender: SendRequest<Body>,
}

impl Api {
    /// `GET /apis/portolan.dev/v1alpha1/nodes/{node}/tunnel`
    pub(super) fn open_tunnel(
        &self,
        identity: &Identity,
        node: &str,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Failure> {
        if identity.host() != Some(node) {
            return Err(Failure::forbidden_path(&identity.name, "get", request.uri().path()));
        }
        let asked = request.headers().get(header::UPGRADE).and_then(|v| v.to_str().ok());
        if !asked.is_some_and(|p| p.eq_ignore_ascii_case(PROTOCOL)) {
            return Err(Failure::bad_request(format!("a tunnel is opened with the header `Upgrade: {PROTOCOL}`")));
        }
        let upgrade = hyper::upgrade::on(&mut request);
        let (api, identity, node) = (self.clone(), identity.clone(), node.to_owned());
        tokio::spawn(async move {
            match tokio::time::timeout(OPEN_TIME, upgrade).await {
                Ok(Ok(upgraded)) => api.hold_tunnel(&identity, &node, upgraded).await,
                Ok(Err(error)) => tracing::debug!(node, "open a tunnel: {error}"),
                Err(_) => tracing::debug!(node, "open a tunnel: not in time"),
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
        Ok(response)
    }

    async fn hold_tunnel(&self, identity: &Identity, node: &str, upgraded: hyper::upgrade::Upgraded) {
        let handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIME)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOWS)
            .handshake::<_, Body>(upgraded);
        let (sender, connection) = match tokio::time::timeout(OPEN_TIME, handshake).await {
            Ok(Ok(opened)) => opened,
            _ => return tracing::debug!(node, "open a tunnel: the agent does not speak HTTP/2 on it"),
        };
        let tunnels = &self.inner.tunnels;
        let number = tunnels.number.fetch_add(1, Ordering::Relaxed);
        // A newer tunnel takes the place of an older one, whose connection the agent has given up; streams on it may end in peace.
        tunnels.open.lock().insert(node.to_owned(), Tunnel { number, sender });
        tunnels.opened.notify_waiters();
        tracing::debug!(node, "the agent is connected");
        let stay = self.stay_valid(identity);
        tokio::select! {
            ended = connection => {
                if let Err(error) = ended {
                    tracing::debug!(node, "the tunnel broke: {error}");
                }
            }
            () = self.inner.stopping.cancelled() => {}
            () = stay.over() => tracing::info!(node, "the agent's certificate is no longer good: its tunnel is closed"),
        }
        let mut open = tunnels.open.lock();
        if open.get(node).is_some_and(|tunnel| tunnel.number == number) {
            open.remove(node);
        }
    }

    /// Whether an agent is connected now.
    pub fn connected(&self, node: &str) -> bool {
        self.inner.tunnels.open.lock().get(node).is_some_and(|t| !t.sender.is_closed())
    }

    async fn tunnel_to(&self, node: &str) -> Result<SendRequest<Body>, Failure> {
        let deadline = tokio::time::Instant::now() + RETURN_TIME;
        loop {
            let opened = self.inner.tunnels.opened.notified();
            let open = self.inner.tunnels.open.lock().get(node).cloned();
            if let Some(tunnel) = open.filter(|t| !t.sender.is_closed()) {
                return Ok(tunnel.sender);
            }
            if tokio::time::timeout_at(deadline, opened).await.is_err() {
                return Err(Failure::unavailable(format!("the agent of node {node:?} is not connected")));
            }
        }
    }

    /// Asks an agent. Anything but 200 is a failure, in the agent's own words; a redirect is never followed.
    pub(super) async fn ask_agent(&self, node: &str, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        let mut sender = self.tunnel_to(node).await?;
        let answer = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let response = match tokio::time::timeout(ANSWER_TIME, answer).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(Failure::unavailable(format!("ask the agent of node {node:?}: {error}"))),
            Err(_) => return Err(Failure::timeout(format!("the agent of node {node:?} did not answer in time"))),
        };
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let body = tokio::time::timeout(OPEN_TIME, Limited::new(response.into_body(), ERROR_MAX).collect()).await;
        let bytes = body.ok().and_then(Result::ok).map(|b| b.to_bytes()).unwrap_or_default();
        let status: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let message =
            status["message"].as_str().map_or_else(|| format!("the agent of node {node:?} answered {code}"), str::to_owned);
        Err(match code {
            400 => Failure::bad_request(message),
            404 => Failure::missing(message),
            503 => Failure::unavailable(message),
            504 => Failure::timeout(message),
            _ => Failure::internal(message),
        })
    }
}
