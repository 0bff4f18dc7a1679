//! The listener: TLS, HTTP/1.1 and HTTP/2, and everything that bounds what a stranger costs.
//!
//! Handshakes have a number and a deadline, headers a size and a deadline, connections a number. Who has no certificate gets less time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Api;
use super::authn::Peer;
use super::authority::identify;

/// Handshakes at once. One costs a few kilobytes and under a millisecond; beyond this the newest are dropped.
const HANDSHAKES: usize = 512;
/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Connections at once: 5,000 agents with two each, and people.
const CONNECTIONS: usize = 12_000;
/// How long a request's headers may take, counted from the end of the last answer: for those with a certificate longer than the 90 s for
/// which common clients keep an idle connection, so that it is they who close it.
const HEADER_TIME: Duration = Duration::from_secs(120);
/// The same for strangers.
const STRANGER_HEADER_TIME: Duration = Duration::from_secs(10);
/// The largest headers, in bytes.
const HEADERS_MAX: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection, as in Kubernetes.
const STREAMS: u32 = 250;
/// How long requests may take to finish when the server stops.
const FINISH: Duration = Duration::from_secs(5);

/// Accepts connections until `stop`, then lets requests finish.
pub async fn serve(api: Api, listener: TcpListener, tls: Arc<rustls::ServerConfig>, stop: CancellationToken) {
    let acceptor = TlsAcceptor::from(tls);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
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
        let (Ok(place), Ok(seat)) = (handshakes.clone().try_acquire_owned(), connections.clone().try_acquire_owned()) else {
            continue;
        };
        tasks.spawn(connection(api.clone(), acceptor.clone(), (stream, peer), place, seat, stop.clone()));
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(FINISH, tasks.wait()).await.is_err() {
        tracing::info!("some requests did not finish in time");
    }
}

async fn connection(
    api: Api,
    acceptor: TlsAcceptor,
    (stream, peer): (TcpStream, SocketAddr),
    handshake: OwnedSemaphorePermit,
    seat: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    // Small answers and watch events must not wait for each other.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!("TLS handshake: {error}"),
        Err(_) => return tracing::debug!("TLS handshake: not in time"),
    };
    drop(handshake);
    let session = stream.get_ref().1;
    let identity = session.peer_certificates().and_then(|chain| chain.first()).and_then(|der| identify(der));
    let header_time = if identity.is_some() { HEADER_TIME } else { STRANGER_HEADER_TIME };
    let http2 = session.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request: Request<Incoming>| {
        let (api, identity) = (api.clone(), identity.clone());
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer.ip().to_canonical()));
            if let Some(identity) = identity {
                request.extensions_mut().insert(identity);
            }
            Ok::<_, Infallible>(api.handle(request).await)
        }
    });
    let io = TokioIo::new(stream);
    if http2 {
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADERS_MAX as u32)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20))
            .serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => {}
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    } else {
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header_time)
            .max_buf_size(HEADERS_MAX)
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => {}
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }
    drop(seat);
}
