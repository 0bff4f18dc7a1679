//! The listener: TLS, HTTP/1.1 and HTTP/2, and everything that bounds what a stranger costs.
//!
//! Handshakes have a number and a deadline, headers a size and a deadline, connections a number. Whoever has not said who it is, with a
//! certificate or with a token, gets less time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use http::Request;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::rt::{Sleep, Timer};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Api;
use super::authn::Peer;
use super::authority::identify;

/// Handshakes at once. One costs a few kilobytes and under a millisecond. When more begin, the one that has lasted longest gives way: who
/// is quick is not kept out by those who are not.
const HANDSHAKES: usize = 512;
/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Connections at once: 5,000 agents with two each, and people.
const CONNECTIONS: usize = 12_000;
/// Of those, of whoever has not said who it is.
const STRANGERS: usize = 4_000;
/// How long a request's headers may take, counted from the end of the last answer: for those with a certificate longer than the 90 s for
/// which common clients keep an idle connection, so that it is they who close it.
const HEADER_TIME: Duration = Duration::from_secs(120);
/// The same for strangers.
const STRANGER_HEADER_TIME: Duration = Duration::from_secs(10);
/// The largest headers, in bytes.
const HEADERS_MAX: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection, as in Kubernetes.
const STREAMS: u32 = 250;
/// Streams that a client opened and reset before we looked at them, on one connection. Then it is closed (CVE-2023-44487).
const RESETS_WAITING: usize = 20;
/// Streams that we had to reset, on one connection. Then it is closed (CVE-2025-8671).
const RESETS: usize = 256;
/// What may wait in one HTTP/2 stream for a client that does not read.
const STREAM_BUFFER: usize = 64 * 1024;
/// How long an idle connection may take to part.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long requests may take to finish when the server stops.
const FINISH: Duration = Duration::from_secs(5);

/// Accepts connections until `stop`, then lets requests finish.
pub async fn serve(api: Api, listener: TcpListener, tls: Arc<rustls::ServerConfig>, stop: CancellationToken) {
    let house = Arc::new(House {
        api,
        acceptor: TlsAcceptor::from(tls),
        doorstep: Doorstep::default(),
        strangers: Arc::new(Semaphore::new(STRANGERS)),
        stop,
    });
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = house.stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely. The loop must not end, nor spin.
                tracing::warn!("accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(seat) = connections.clone().try_acquire_owned() else {
            continue;
        };
        tasks.spawn(house.clone().connection((stream, peer), seat));
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(FINISH, tasks.wait()).await.is_err() {
        tracing::info!("some requests did not finish in time");
    }
}

/// What all connections share.
struct House {
    api: Api,
    acceptor: TlsAcceptor,
    doorstep: Doorstep,
    strangers: Arc<Semaphore>,
    stop: CancellationToken,
}

/// The handshakes that are going on, the oldest first.
#[derive(Default)]
struct Doorstep(Mutex<(u64, VecDeque<(u64, CancellationToken)>)>);

impl Doorstep {
    fn enter(&self) -> (u64, CancellationToken) {
        let mut waiting = self.0.lock();
        if waiting.1.len() >= HANDSHAKES
            && let Some((_, oldest)) = waiting.1.pop_front()
        {
            oldest.cancel();
        }
        waiting.0 += 1;
        let (number, told) = (waiting.0, CancellationToken::new());
        waiting.1.push_back((number, told.clone()));
        (number, told)
    }
    fn leave(&self, number: u64) {
        let mut waiting = self.0.lock();
        if let Ok(at) = waiting.1.binary_search_by_key(&number, |(n, _)| *n) {
            waiting.1.remove(at);
        }
    }
}

impl House {
    async fn connection(self: Arc<Self>, (stream, peer): (TcpStream, SocketAddr), seat: OwnedSemaphorePermit) {
        // Small answers and watch events must not wait for each other.
        let _ = stream.set_nodelay(true);
        let (number, sent_away) = self.doorstep.enter();
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(HANDSHAKE_TIME, self.acceptor.accept(stream)) => shaken,
            () = sent_away.cancelled() => return tracing::debug!("TLS handshake: others came after it and were quicker"),
        };
        self.doorstep.leave(number);
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!("TLS handshake: {error}"),
            Err(_) => return tracing::debug!("TLS handshake: not in time"),
        };
        let session = stream.get_ref().1;
        let identity = session.peer_certificates().and_then(|chain| chain.first()).and_then(|der| identify(der));
        let standing = match identity.is_some() {
            true => Standing::known(),
            false => match self.strangers.clone().try_acquire_owned() {
                Ok(place) => Standing::stranger(place),
                Err(_) => return tracing::debug!("too many connections of strangers"),
            },
        };
        let standing = Arc::new(standing);
        let http2 = session.alpn_protocol() == Some(b"h2");
        let pulse = Arc::new(Pulse::new());
        let (api, beating, asking) = (self.api.clone(), pulse.clone(), standing.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (api, identity, beat, asking) = (api.clone(), identity.clone(), beating.begin(), asking.clone());
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(Peer(peer.ip().to_canonical()));
                match identity {
                    Some(identity) => drop(request.extensions_mut().insert(identity)),
                    None => drop(request.extensions_mut().insert(asking)),
                }
                // A request lasts until its answer has been sent.
                Ok::<_, Infallible>(api.handle(request).await.map(|body| Held { body, _beat: beat }))
            }
        });
        let io = TokioIo::new(stream);
        if http2 {
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS)
                .max_pending_accept_reset_streams(RESETS_WAITING)
                .max_local_error_reset_streams(RESETS)
                .max_header_list_size(HEADERS_MAX as u32)
                .max_send_buf_size(STREAM_BUFFER)
                .keep_alive_interval(Duration::from_secs(30))
                .keep_alive_timeout(Duration::from_secs(20))
                .serve_connection(io, service);
            // HTTP/1.1 has this in its reading of headers; here a client that says nothing, or only answers pings, would stay.
            see_out(connection, |connection| connection.graceful_shutdown(), &self.stop, pulse.idle(&standing)).await;
        } else {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(Patience(standing))
                .header_read_timeout(HEADER_TIME)
                .max_buf_size(HEADERS_MAX)
                .serve_connection(io, service)
                .with_upgrades();
            see_out(connection, |connection| connection.graceful_shutdown(), &self.stop, std::future::pending()).await;
        }
        drop(seat);
    }
}

/// Serves a connection to its end; until then, on a stop or when it idles, asks it to come to one.
async fn see_out<C: Future>(connection: C, end: impl Fn(Pin<&mut C>), stop: &CancellationToken, idle: impl Future<Output = ()>) {
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stop.cancelled() => {
            end(connection.as_mut());
            let _ = connection.await;
        }
        () = idle => {
            end(connection.as_mut());
            let _ = tokio::time::timeout(FAREWELL, connection).await;
        }
    }
}

/// Whether whoever is at the other end of a connection has said who it is. One that asks with a token is a stranger until it has asked.
pub(super) struct Standing {
    known: AtomicBool,
    /// A stranger's place among the strangers.
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Standing {
    fn known() -> Self {
        Standing { known: AtomicBool::new(true), place: Mutex::new(None) }
    }
    fn stranger(place: OwnedSemaphorePermit) -> Self {
        Standing { known: AtomicBool::new(false), place: Mutex::new(Some(place)) }
    }
    /// It has said who it is, and that was true.
    pub(super) fn introduced(&self) {
        if !self.known.swap(true, Ordering::Relaxed) {
            drop(self.place.lock().take());
        }
    }
    /// How long it may be idle.
    fn patience(&self) -> Duration {
        if self.known.load(Ordering::Relaxed) { HEADER_TIME } else { STRANGER_HEADER_TIME }
    }
}

/// The clock of an HTTP/1.1 connection, which knows one time for all headers: a stranger's deadlines come sooner.
struct Patience(Arc<Standing>);

impl Patience {
    fn sooner(&self, deadline: Instant) -> Instant {
        deadline - (HEADER_TIME - self.0.patience())
    }
}

impl Timer for Patience {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        TokioTimer::new().sleep(duration)
    }
    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        TokioTimer::new().sleep_until(self.sooner(deadline))
    }
    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        TokioTimer::new().reset(sleep, self.sooner(deadline));
    }
    fn now(&self) -> Instant {
        TokioTimer::new().now()
    }
}

/// Whether a connection has requests, and since when it has none.
struct Pulse {
    requests: AtomicUsize,
    since: Mutex<Instant>,
}

/// One request, until its answer has been sent.
struct Beat(Arc<Pulse>);

impl Pulse {
    fn new() -> Self {
        Pulse { requests: AtomicUsize::new(0), since: Mutex::new(Instant::now()) }
    }
    fn begin(self: &Arc<Self>) -> Beat {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Beat(self.clone())
    }
    /// Ready when there has been no request for as long as one in this standing may be idle.
    async fn idle(&self, standing: &Standing) {
        loop {
            tokio::time::sleep(standing.patience() / 4).await;
            if self.requests.load(Ordering::Relaxed) == 0 && self.since.lock().elapsed() >= standing.patience() {
                return;
            }
        }
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        *self.0.since.lock() = Instant::now();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body that keeps its request alive.
struct Held {
    body: Body,
    _beat: Beat,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
