//! The stream on which the server reaches this host: logs, exec, attach, port-forward, and what a kubelet says of its host.
//!
//! The agent dials out and opens no port. It asks the server to turn an HTTP/1.1 connection into a tunnel, and from then on the roles are
//! swapped: the agent serves HTTP/2 on it and the server asks. When the stream breaks, it is dialled again, with a pause that grows.
//!
//! Which container is meant is for [`Lookup`] to say; who may see it was for the server to decide.

mod dial;
mod forward;
mod logs;
mod query;
mod session;
#[cfg(test)]
mod tests;
mod usage;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::client::Access;
use crate::docker::{Engine, EngineError};
use query::Query;

/// How often a silent stream is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long the answer may take: a connection that died without a word is given up after fifteen seconds.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests at the same time. More than a person opens, fewer than would hurt a small host.
const STREAMS_MAX: u32 = 500;
/// How much of a request may be on its way to us before we have read it, in bytes; and of all together, so that those whose reader is
/// stuck leave room for the others.
const WINDOW: u32 = 256 * 1024;
const WINDOWS: u32 = STREAMS_MAX * WINDOW;
/// How long requests under way may take to end when the agent stops.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// The first pause before dialling again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// A stream that lasted this long was a good one: the next pause is the first again.
const GOOD: Duration = Duration::from_secs(10);

/// Finds the container that a request means.
pub trait Lookup: Send + Sync + 'static {
    /// The container of a pod that is bound to this host. An empty name means the only one. `previous` asks for the run before this one.
    fn find<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
        previous: bool,
    ) -> BoxFuture<'a, Result<Found, Missing>>;
    /// The container that holds the network of a pod, and runs.
    fn sandbox<'a>(&'a self, namespace: &'a str, pod: &'a str) -> BoxFuture<'a, Result<String, Missing>>;
    /// The pods that are bound to this host, as it sees them.
    fn pods(&self) -> Vec<Pod>;
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// A container of the engine, running or not, by id.
    Container(String),
    /// A container that is gone, and the end of its log. Its lines may begin with their times, as in [`saved_log`].
    Saved(Bytes),
}

/// Why nothing was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// This host has no such pod.
    Pod,
    /// The pod has no such container.
    Container,
    /// The container has not been created yet, and why, such as `ContainerCreating`.
    Waiting(String),
    /// The container had no run before this one, or its log is gone.
    Previous,
}

/// Keeps the stream to the server open until `stop`. `access` is asked for each connection, because certificates are renewed. `ours` are
/// the labels of this agent's containers.
pub async fn run(
    access: impl Fn() -> Access + Send + Sync,
    node: &str,
    engine: Arc<dyn Engine>,
    lookup: Arc<dyn Lookup>,
    ours: Vec<String>,
    stop: CancellationToken,
) {
    let handler = Handler::new(engine, lookup, ours);
    let mut pause = PAUSES.0;
    let mut reported = String::new();
    while !stop.is_cancelled() {
        let began = tokio::time::Instant::now();
        let dialled = tokio::select! {
            dialled = async { dial::dial(&access(), node).await } => dialled,
            () = stop.cancelled() => return,
        };
        let result = match dialled {
            Ok(stream) => {
                tracing::debug!(node, "the server can reach this host");
                serve(stream, handler.clone(), &stop).await.map_err(dial::DialError::Broken)
            }
            Err(error) => Err(error),
        };
        if began.elapsed() >= GOOD {
            pause = PAUSES.0;
            reported.clear();
        }
        if let Err(error) = &result {
            // The same words every fifteen seconds would hide everything else.
            let words = format!("{error}{}", error.cause());
            // A stream that broke is dialled again at once; whether that fails is worth a warning, and comes next.
            if words == reported || matches!(error, dial::DialError::Broken(_)) {
                tracing::debug!(error = %words, "the server cannot reach this host");
            } else {
                tracing::warn!(error = %words, "the server cannot reach this host: no logs and exec until it can");
                reported = words;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => {}
            () = stop.cancelled() => {}
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Between half and all of a pause, so that the hosts of a restarted server do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    let mut dice = [0u8; 2];
    let _ = getrandom::fill(&mut dice);
    pause / 2 + pause.mul_f64(f64::from(u16::from_le_bytes(dice)) / f64::from(u16::MAX) / 2.0)
}

/// Answers requests on one stream until it ends.
pub(super) async fn serve<S>(stream: S, handler: Handler, stop: &CancellationToken) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request| {
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(handler.answer(request).await) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOWS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    tokio::time::timeout(STOP_GRACE, connection).await.unwrap_or(Ok(()))
}

/// What a stream inside a body may end with.
type BodyError = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Answers the server.
#[derive(Clone)]
pub(super) struct Handler {
    engine: Arc<dyn Engine>,
    lookup: Arc<dyn Lookup>,
    usage: Arc<usage::Usage>,
}

impl Handler {
    fn new(engine: Arc<dyn Engine>, lookup: Arc<dyn Lookup>, ours: Vec<String>) -> Self {
        let usage = Arc::new(usage::Usage::new(engine.clone(), ours));
        Handler { engine, lookup, usage }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let parts: Vec<String> = head.uri.path().split('/').skip(1).map(query::decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let answered = match (&head.method, &parts[..]) {
            (&Method::GET, ["containerLogs", namespace, pod, container]) => self.logs(namespace, pod, container, &query).await,
            (&Method::POST, ["exec", namespace, pod, container]) => {
                self.session(session::Target::Exec, [namespace, pod, container], &query, body).await
            }
            (&Method::POST, ["attach", namespace, pod, container]) => {
                self.session(session::Target::Attach, [namespace, pod, container], &query, body).await
            }
            (&Method::GET, ["portForward", namespace, pod]) => {
                self.sandbox(namespace, pod).await.map(|_| streamed("text/plain", futures_util::stream::empty()))
            }
            (&Method::POST, ["portForward", namespace, pod]) => self.forward(namespace, pod, &query, body).await,
            (&Method::GET, ["healthz"]) => self.health().await,
            (&Method::GET, ["pods"]) => Ok(listed(&List { items: self.lookup.pods(), ..List::default() })),
            (&Method::GET, ["runningpods"]) => self.running_pods().await,
            (&Method::GET, ["stats", "summary"]) => self.summary().await,
            (&Method::GET, ["usage"]) => self.used().await,
            _ => Err(Failure::new(StatusCode::NOT_FOUND, "the agent has nothing there")),
        };
        answered.unwrap_or_else(|failure| failure.response())
    }

    async fn running_pods(&self) -> Result<Response<Body>, Failure> {
        let running = self.usage.running().await;
        running.map(|pods| listed(&pods)).map_err(|error| Failure::of(&error, "ask the container engine"))
    }

    async fn summary(&self) -> Result<Response<Body>, Failure> {
        let said = self.usage.summary(crate::clock::now()).await;
        said.map(|said| listed(&said)).map_err(|error| Failure::of(&error, "measure this host"))
    }

    async fn used(&self) -> Result<Response<Body>, Failure> {
        let used = self.usage.now().await.map_err(|error| Failure::of(&error, "measure this host"))?;
        let body = Full::new(Bytes::from(used.to_string())).map_err(|never| match never {}).boxed_unsync();
        Ok(Response::new(body))
    }

    async fn find(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Result<Found, Failure> {
        self.lookup.find(namespace, pod, container, previous).await.map_err(|missing| match missing {
            Missing::Pod => Failure::new(StatusCode::NOT_FOUND, format!("pods \"{pod}\" not found")),
            Missing::Container => {
                Failure::new(StatusCode::BAD_REQUEST, format!("container {container} is not valid for pod {pod}"))
            }
            Missing::Waiting(reason) => Failure::new(
                StatusCode::BAD_REQUEST,
                format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}"),
            ),
            Missing::Previous => Failure::new(
                StatusCode::BAD_REQUEST,
                format!("previous terminated container \"{container}\" in pod \"{pod}\" not found"),
            ),
        })
    }

    async fn logs(&self, namespace: &str, pod: &str, container: &str, query: &Query) -> Result<Response<Body>, Failure> {
        let wanted = logs::Wanted::parse(query, crate::clock::now())?;
        let entries = match self.find(namespace, pod, container, wanted.previous).await? {
            Found::Container(id) => {
                let flow = self.engine.logs(&id, &wanted.options).await;
                flow.map_err(|error| Failure::of(&error, &format!("read the log of container {container}")))?
            }
            Found::Saved(text) => logs::replay(&text, &wanted.options),
        };
        Ok(streamed("text/plain", logs::text(entries, &wanted).map(|bytes| bytes.map_err(Into::into))))
    }

    /// A container that runs, for exec and attach.
    async fn running(&self, namespace: &str, pod: &str, container: &str) -> Result<String, Failure> {
        match self.find(namespace, pod, container, false).await? {
            Found::Container(id) => Ok(id),
            Found::Saved(_) => Err(Failure::new(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")"))),
        }
    }

    /// Exec and attach: `place` is namespace, pod and container.
    async fn session(
        &self,
        target: session::Target,
        place: [&str; 3],
        query: &Query,
        body: Incoming,
    ) -> Result<Response<Body>, Failure> {
        let [namespace, pod, container] = place;
        let id = self.running(namespace, pod, container).await?;
        let session = session::begin(&*self.engine, target, &id, container, query).await?;
        let frames = session::converse(Arc::clone(&self.engine), target, session, body);
        Ok(streamed("application/octet-stream", frames.map(|frame| Ok(frame.encode()))))
    }

    /// Whether this host can run pods: its engine answers.
    async fn health(&self) -> Result<Response<Body>, Failure> {
        let ok = |_| streamed("text/plain", futures_util::stream::iter([Ok(Bytes::from_static(b"ok"))]));
        self.engine.info().await.map(ok).map_err(|error| Failure::of(&error, "ask the container engine"))
    }

    /// The sandbox of a pod that has a network.
    async fn sandbox(&self, namespace: &str, pod: &str) -> Result<String, Failure> {
        self.lookup.sandbox(namespace, pod).await.map_err(|missing| match missing {
            Missing::Pod => Failure::new(StatusCode::NOT_FOUND, format!("pods \"{pod}\" not found")),
            _ => Failure::new(StatusCode::BAD_REQUEST, format!("unable to forward port because pod {pod} is not running")),
        })
    }

    async fn forward(&self, namespace: &str, pod: &str, query: &Query, body: Incoming) -> Result<Response<Body>, Failure> {
        let port = match query.number("port")?.map(u16::try_from) {
            Some(Ok(port @ 1..)) => port,
            _ => return Err(query::invalid("port", query.get("port").unwrap_or_default())),
        };
        let sandbox = self.sandbox(namespace, pod).await?;
        let bytes = forward::connect(&*self.engine, &sandbox, pod, port, body).await?;
        Ok(streamed("application/octet-stream", bytes))
    }
}

/// An answer that is a document.
fn listed(document: &impl serde::Serialize) -> Response<Body> {
    let bytes = serde_json::to_vec(document).unwrap_or_default().into();
    streamed("application/json", futures_util::stream::iter([Ok(bytes)]))
}

/// An answer that goes on.
fn streamed(
    content_type: &'static str,
    bytes: impl futures_util::Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
) -> Response<Body> {
    let body = StreamBody::new(bytes.map(|bytes| bytes.map(Frame::data)));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

/// An answer that is a Kubernetes `Status`.
struct Failure {
    code: StatusCode,
    message: String,
}

impl Failure {
    fn new(code: StatusCode, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    /// What the engine's refusal is to whoever asked.
    fn of(error: &EngineError, attempted: &str) -> Failure {
        let code = match error {
            EngineError::NotFound { .. } => StatusCode::NOT_FOUND,
            EngineError::Refused { .. } | EngineError::Conflict { .. } => StatusCode::BAD_REQUEST,
            EngineError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            EngineError::Deadline { .. } => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Failure::new(code, format!("{attempted}: {error}"))
    }

    fn response(self) -> Response<Body> {
        let reason = match self.code {
            StatusCode::NOT_FOUND => "NotFound",
            StatusCode::BAD_REQUEST => "BadRequest",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
            StatusCode::GATEWAY_TIMEOUT => "Timeout",
            _ => "InternalError",
        };
        let status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": reason,
            "code": self.code.as_u16(),
        });
        let mut response =
            Response::new(Full::new(Bytes::from(status.to_string())).map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = self.code;
        response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        response
    }
}

pub use logs::saved_log;
