//! Over real sockets: TLS, certificates, the tunnel, and what travels through it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body_util::{Full, StreamBody};
use hyper::body::{Frame as Piece, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::join::{new_token, token_secret};
use super::super::listen;
use super::sessions::shop;
use super::*;
use crate::object::stream::{self, Frame};

impl World {
    pub(super) async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = self.authority.listener(vec!["127.0.0.1".to_owned()]).unwrap();
        tokio::spawn(listen::serve(self.api.clone(), listener, tls, self.stop.clone()));
        address
    }
    pub(super) async fn connect(&self, address: SocketAddr, pair: Option<(&str, &str)>) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match pair {
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await
    }
    /// Joins as a host; the certificate and its key.
    pub(super) async fn host(&self, name: &str) -> (String, String) {
        let (id, secret) = new_token();
        let expires = *self.clock.lock() + SignedDuration::from_secs(600);
        self.must("POST /api/v1/namespaces/kube-system/secrets", token_secret(&id, &secret, expires)).await;
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let bearer = format!("Bearer {id}.{secret}");
        let body = json!({"node": name, "csr": csr}).to_string();
        let answer = self.send(None, "POST /apis/portolan.dev/v1alpha1/join", &[("authorization", &bearer)], body).await;
        (answer.value["certificate"].as_str().unwrap().to_owned(), key.serialize_pem())
    }
}

pub(super) async fn raw(stream: &mut TlsStream<TcpStream>, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Byte by byte: what comes behind an upgrade's answer belongs to the next protocol.
    let mut buffer = [0u8; 1];
    while !answer.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

pub(super) fn real_clock(w: &World) {
    *w.clock.lock() = jiff::Timestamp::now();
}

/// What a host would serve on its end of the tunnel: logs say their path, exec echoes its input and ends with the code 7, ports echo until
/// their input ends, except for port 8080, which speaks HTTP, 8443, which does so in TLS, and 81, where nobody listens, and pod `moved` is
/// elsewhere.
pub(super) async fn agent(w: &World, address: SocketAddr, name: &str, pair: &(String, String)) {
    agent_that(w, address, name, pair, |request| async move {
        let path = request.uri().to_string();
        if path.contains("/containerLogs/shop/web/c") {
            Response::new(Body::from(path))
        } else if path.contains("/containerLogs/shop/endless/") {
            let pieces = futures_util::stream::repeat(Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'x'; 10_000])));
            Response::new(Body::from_stream(pieces))
        } else if path.contains("/exec/shop/web/") {
            Response::new(echo(request.into_body()))
        } else if path.contains("/moved") {
            let builder = Response::builder().status(302).header("location", "http://127.0.0.1:1/steal");
            builder.body(Body::empty()).unwrap()
        } else if path.contains("/portForward/shop/web") && path.ends_with("port=8080") {
            Response::new(super::proxying::http_server(request.into_body(), false))
        } else if path.contains("/portForward/shop/web") && path.ends_with("port=8443") {
            Response::new(super::proxying::http_server(request.into_body(), true))
        } else if path.ends_with("/healthz") {
            Response::new(Body::from("fine"))
        } else if path.contains("/portForward/shop/web") && !path.ends_with("port=81") {
            Response::new(Body::new(request.into_body()))
        } else {
            let status = json!({"kind": "Status", "status": "Failure", "message": "container is waiting to start", "code": 400});
            let mut response = Response::new(Body::new(Full::from(status.to_string())));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
        }
    })
    .await;
}

/// A host that answers in its own way.
pub(super) async fn agent_that<F, T>(w: &World, address: SocketAddr, name: &str, pair: &(String, String), answer: F)
where
    F: Fn(Request<Incoming>) -> T + Send + Sync + 'static,
    T: Future<Output = Response<Body>> + Send + 'static,
{
    let mut stream = w.connect(address, Some((&pair.0, &pair.1))).await.unwrap();
    let request = format!(
        "GET /apis/portolan.dev/v1alpha1/nodes/{name}/tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: portolan-tunnel\r\n\r\n"
    );
    let said = raw(&mut stream, &request).await;
    assert!(said.starts_with("HTTP/1.1 101"), "{said}");
    tokio::spawn(async move {
        let service = service_fn(|request| {
            let response = answer(request);
            async move { Ok::<_, std::convert::Infallible>(response.await) }
        });
        let _ =
            hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    });
    while !w.api.connected(name) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn echo(mut input: Incoming) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(8);
    tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        'input: while let Some(Ok(piece)) = input.frame().await {
            buffer.extend_from_slice(&piece.into_data().unwrap());
            while let Some(frame) = Frame::decode(&mut buffer).unwrap() {
                match frame.channel {
                    stream::STDIN => {
                        let _ = sender.send(Frame { channel: stream::STDOUT, payload: frame.payload }.encode()).await;
                    }
                    stream::RESIZE => {
                        let payload = [b"size ", &frame.payload[..]].concat().into();
                        let _ = sender.send(Frame { channel: stream::STDOUT, payload }.encode()).await;
                    }
                    stream::CLOSE => break 'input,
                    _ => {}
                }
            }
        }
        let status = json!({
            "kind": "Status", "status": "Failure", "reason": "NonZeroExitCode", "message": "it ended with code 7",
            "details": {"causes": [{"reason": "ExitCode", "message": "7"}]},
        });
        let _ = sender.send(Frame { channel: stream::ERROR, payload: status.to_string().into() }.encode()).await;
    });
    Body::new(StreamBody::new(futures_util::stream::unfold(receiver, |mut receiver| async move {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(Piece::data(bytes)), receiver))
    })))
}

#[tokio::test]
async fn tls_tells_who_asks() {
    let w = world();
    real_clock(&w);
    let address = w.listen().await;
    let get = "GET /api/v1/namespaces HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut nobody = w.connect(address, None).await.unwrap();
    assert!(raw(&mut nobody, get).await.starts_with("HTTP/1.1 401"));
    let admin = w.authority.client("portolan-admin", &["system:masters"]).unwrap();
    let mut somebody = w.connect(address, Some((&admin.certificate, &admin.key))).await.unwrap();
    assert!(raw(&mut somebody, get).await.starts_with("HTTP/1.1 200"));
    // A certificate of another authority gets no connection, whatever it says.
    let other =
        Authority::in_memory(Arc::new(jiff::Timestamp::now)).unwrap().client("portolan-admin", &["system:masters"]).unwrap();
    let refused = match w.connect(address, Some((&other.certificate, &other.key))).await {
        Ok(mut stream) => raw(&mut stream, get).await,
        Err(error) => error.to_string(),
    };
    assert!(!refused.starts_with("HTTP/1.1 2"), "{refused}");
}

#[tokio::test]
async fn f14_slow_and_large_requests_are_cut() {
    let w = world();
    real_clock(&w);
    let address = w.listen().await;
    let mut large = w.connect(address, None).await.unwrap();
    let head = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(200 * 1024));
    assert!(!raw(&mut large, &head).await.contains(" 200 "));
    // Half a handshake, and silence: others are served all the same.
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut other = w.connect(address, None).await.unwrap();
    assert!(raw(&mut other, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.contains(" 200 "));
}

#[tokio::test]
async fn logs_through_the_tunnel() {
    let w = world();
    real_clock(&w);
    let address = w.listen().await;
    w.pod_on("web", "h1", json!({})).await;
    let log = async |query: &str| w.ask(&format!("GET /api/v1/namespaces/shop/pods/web/log{query}"), Value::Null).await;
    let pair = w.host("h1").await;
    agent(&w, address, "h1", &pair).await;
    let flags = "?follow=true&previous=true&tailLines=3&sinceSeconds=60&timestamps=true&limitBytes=100";
    assert_eq!(
        log(flags).await.value.as_str().unwrap().split_once("/containerLogs").unwrap().1,
        "/shop/web/c?follow=true&previous=true&timestamps=true&tailLines=3&sinceSeconds=60&limitBytes=100"
    );
    for (query, wanted) in [
        ("?container=other", "400 BadRequest: container other is not valid for pod web"),
        ("?tailLines=-1", "422 Invalid"),
        ("?tailLines=many", "400 BadRequest"),
        ("?sinceSeconds=0", "422 Invalid"),
        ("?sinceTime=yesterday", "400 BadRequest"),
        ("?sinceTime=2026-11-21T10:00:00Z&sinceSeconds=3", "422 Invalid"),
    ] {
        assert!(log(query).await.show().starts_with(wanted), "{query}: {}", log(query).await.show());
    }
    // A second tunnel takes the place of the first; what the agent refuses is refused in its words.
    agent(&w, address, "h1", &pair).await;
    assert_eq!(log("").await.code, 200);
    w.pod_on("two", "h1", json!({})).await;
    let refused = w.ask("GET /api/v1/namespaces/shop/pods/two/log", Value::Null).await;
    assert_eq!(refused.show(), "400 BadRequest: container is waiting to start");
    // Nobody else opens a tunnel in its name.
    let other = w.host("h2").await;
    let mut stream = w.connect(address, Some((&other.0, &other.1))).await.unwrap();
    let request = "GET /apis/portolan.dev/v1alpha1/nodes/h1/tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: portolan-tunnel\r\n\r\n";
    assert!(raw(&mut stream, request).await.starts_with("HTTP/1.1 403"));
}

/// The administrator's client.
pub(super) fn client(w: &World, address: SocketAddr) -> kube::Client {
    let admin = w.authority.client("portolan-admin", &["system:masters"]).unwrap();
    let text = |s: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, s);
    let mut config = kube::Config::new(format!("https://{address}").parse().unwrap());
    config.root_cert = Some(vec![CertificateDer::from_pem_slice(w.authority.pem().as_bytes()).unwrap().to_vec()]);
    let pair = json!({"client-certificate-data": text(&admin.certificate), "client-key-data": text(&admin.key)});
    config.auth_info = serde_json::from_value(pair).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    kube::Client::try_from(config).unwrap()
}

#[tokio::test]
async fn exec_over_a_websocket() {
    let (w, address) = shop().await;
    let client = client(&w, address);
    let pods: kube::Api<core::Pod> = kube::Api::namespaced(client, "shop");
    let params = kube::api::AttachParams::default().stdin(true).stdout(true).stderr(false);
    let mut process = pods.exec("web", ["cat", "-", "a b&c"], &params).await.unwrap();
    let (mut stdin, mut stdout) = (process.stdin().unwrap(), process.stdout().unwrap());
    stdin.write_all(b"hello").await.unwrap();
    let mut first = [0u8; 5];
    stdout.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"hello");
    // More than one frame holds.
    let large = vec![b'x'; 200_000];
    let writer = tokio::spawn(async move {
        stdin.write_all(&large).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).await.unwrap();
    writer.await.unwrap();
    assert_eq!(rest.len(), 200_000);
    let status = process.take_status().unwrap().await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    assert_eq!(status.details.unwrap().causes.unwrap()[0].message.as_deref(), Some("7"));
    // Without an upgrade, or without a command, it is an ordinary refusal.
    assert_eq!(w.ask("POST /api/v1/namespaces/shop/pods/web/exec?command=ls", Value::Null).await.code, 400);
}
