//! Both ends of the stream: an agent with a simulated host, and a server that asks.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use expect_test::{Expect, expect};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Either, Empty, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio_util::sync::CancellationToken;

use super::{Found, Handler, Lookup, Missing, dial, saved_log, serve};
use crate::agent::translate;
use crate::client::{Access, Identity};
use crate::docker::simulated::{Costs, Settings, SimulatedEngine};
use crate::docker::{ContainerSpec, Engine};
use crate::object::stream::{CLOSE, Frame, STDERR, STDIN};

/// Pod `web` of namespace `shop` with container `app`, and what became of its run before.
struct Pods {
    id: String,
    previous: Bytes,
}

impl Lookup for Pods {
    fn find<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
        previous: bool,
    ) -> BoxFuture<'a, Result<Found, Missing>> {
        let found = match (namespace, pod, container) {
            ("shop", "web", "new") => Err(Missing::Waiting("ContainerCreating".into())),
            ("shop", "web", "app") if previous && self.previous.is_empty() => Err(Missing::Previous),
            ("shop", "web", "app") if previous => Ok(Found::Saved(self.previous.clone())),
            ("shop", "web", "app") => Ok(Found::Container(self.id.clone())),
            ("shop", "web", _) => Err(Missing::Container),
            _ => Err(Missing::Pod),
        };
        Box::pin(std::future::ready(found))
    }

    fn sandbox<'a>(&'a self, namespace: &'a str, pod: &'a str) -> BoxFuture<'a, Result<String, Missing>> {
        let found = match (namespace, pod) {
            ("shop", "web") => Ok(self.id.clone()),
            ("shop", "new") => Err(Missing::Waiting("ContainerCreating".into())),
            _ => Err(Missing::Pod),
        };
        Box::pin(std::future::ready(found))
    }

    fn pods(&self) -> Vec<Pod> {
        vec![Pod { metadata: ObjectMeta { name: Some("web".into()), ..ObjectMeta::default() }, ..Pod::default() }]
    }
}

type ChannelBody =
    StreamBody<futures_util::stream::BoxStream<'static, Result<hyper::body::Frame<Bytes>, std::convert::Infallible>>>;
type Ask = Either<Empty<Bytes>, ChannelBody>;

/// A body that is said bit by bit.
fn channel() -> (tokio::sync::mpsc::Sender<Bytes>, ChannelBody) {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let frames = futures_util::stream::unfold(receiver, |mut receiver: tokio::sync::mpsc::Receiver<Bytes>| async move {
        receiver.recv().await.map(|bytes| (Ok(hyper::body::Frame::data(bytes)), receiver))
    });
    (sender, StreamBody::new(frames.boxed()))
}

/// A host that runs one container, and the server's end of its stream.
struct World {
    engine: SimulatedEngine,
    id: String,
    server: SendRequest<Ask>,
}

async fn handler(sim: &str, previous: &'static str) -> (SimulatedEngine, String, Handler) {
    let settings = Settings { hostname: "a".into(), cpus: 2, memory: 1 << 30, costs: Costs::NONE };
    let engine = SimulatedEngine::memory(&settings);
    engine.pull("sim/web:v1", None, &|_| {}).await.unwrap();
    let labels = [
        (translate::POD_NAME, "web"),
        (translate::POD_NAMESPACE, "shop"),
        (translate::POD_UID, "u"),
        (translate::CONTAINER, "app"),
    ];
    let spec = ContainerSpec {
        image: "sim/web:v1".into(),
        env: vec![("SIM".into(), sim.into())],
        labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..ContainerSpec::default()
    };
    let id = engine.create("app", &spec).await.unwrap();
    engine.start(&id).await.unwrap();
    let lookup = Arc::new(Pods { id: id.clone(), previous: previous.into() });
    (engine.clone(), id, Handler::new(Arc::new(engine), lookup, Vec::new()))
}

async fn world(sim: &str, previous: &'static str) -> World {
    let (engine, id, handler) = handler(sim, previous).await;
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move { serve(ours, handler, &CancellationToken::new()).await });
    World { engine, id, server: shake_hands(theirs).await }
}

async fn shake_hands<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static>(stream: S) -> SendRequest<Ask> {
    let (server, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    server
}

async fn get(server: &mut SendRequest<Ask>, path: &str) -> http::Response<Incoming> {
    let request = Request::get(format!("http://agent{path}")).body(Either::Left(Empty::new())).unwrap();
    tokio::time::timeout(Duration::from_secs(10), server.send_request(request)).await.unwrap().unwrap()
}

/// The answer's code, and its text or its Status's message.
async fn shown(response: http::Response<Incoming>) -> String {
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    match serde_json::from_slice::<serde_json::Value>(&body) {
        Ok(status) if code != 200 => format!("{code} {} {}", status["reason"], status["message"]),
        _ => format!("{code} {}", String::from_utf8_lossy(&body)),
    }
}

async fn check_get(previous: &'static str, path: &str, expect: Expect) {
    let mut world = world("", previous).await;
    expect.assert_eq(&shown(get(&mut world.server, path).await).await);
}

#[tokio::test]
async fn logs_and_why_not() {
    check_get(
        "",
        "/containerLogs/shop/web/app",
        expect![[r#"
        200 sim/web:v1 started
    "#]],
    )
    .await;
    check_get(
        "",
        "/containerLogs/shop/web/app?previous=true",
        expect![[r#"400 "BadRequest" "previous terminated container \"app\" in pod \"web\" not found""#]],
    )
    .await;
    check_get(
        "first\nlast\n",
        "/containerLogs/shop/web/app?previous=true&tailLines=1",
        expect![[r#"
        200 last
    "#]],
    )
    .await;
    check_get(
        "",
        "/containerLogs/shop/web/app?tailLines=x",
        expect![[r#"400 "BadRequest" "invalid value for tailLines: \"x\"""#]],
    )
    .await;
    check_get(
        "",
        "/containerLogs/shop/web/new",
        expect![[r#"400 "BadRequest" "container \"new\" in pod \"web\" is waiting to start: ContainerCreating""#]],
    )
    .await;
    check_get("", "/containerLogs/shop/web/other", expect![[r#"400 "BadRequest" "container other is not valid for pod web""#]])
        .await;
    check_get("", "/containerLogs/shop/db/app", expect![[r#"404 "NotFound" "pods \"db\" not found""#]]).await;
    check_get("", "/healthz", expect!["200 ok"]).await;
    check_get(
        "",
        "/pods",
        expect![[r#"200 {"apiVersion":"v1","kind":"PodList","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"}}],"metadata":{}}"#]],
    )
    .await;
    check_get(
        "",
        "/runningpods",
        expect![[r#"200 {"apiVersion":"v1","kind":"PodList","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"shop","uid":"u"},"spec":{"containers":[{"image":"sim/web:v1","name":"app"}]}}],"metadata":{}}"#]],
    )
    .await;
    check_get("", "/somewhere", expect![[r#"404 "NotFound" "the agent has nothing there""#]]).await;
}

#[tokio::test]
async fn a_followed_log_ends_with_its_container_and_with_its_reader() {
    let mut world = world("chatty=10ms", "").await;
    let response = get(&mut world.server, "/containerLogs/shop/web/app?follow=true&timestamps=true").await;
    let mut body = response.into_body().into_data_stream();
    let first = body.next().await.unwrap().unwrap();
    assert!(first.ends_with(b"Z sim/web:v1 started\n"), "{first:?}");
    body.next().await.unwrap().unwrap();
    // Another reader goes away in the middle; this one is not disturbed.
    drop(get(&mut world.server, "/containerLogs/shop/web/app?follow=true").await);
    world.engine.stop(&world.id, 1).await.unwrap();
    let mut rest = BytesMut::new();
    while let Some(more) = tokio::time::timeout(Duration::from_secs(5), body.next()).await.unwrap() {
        rest.extend_from_slice(&more.unwrap());
    }
    assert!(rest.ends_with(b" stopping\n"), "{rest:?}");
}

#[tokio::test]
async fn a_log_outlives_its_container() {
    let mut world = world("chatty=1ms", "").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.engine.stop(&world.id, 1).await.unwrap();
    let saved = saved_log(&world.engine, &world.id, 500).await.unwrap();
    assert!(saved.len() <= 500 && saved.ends_with(b"Z stopping\n"), "{saved:?}");
    let whole = shown(get(&mut world.server, "/containerLogs/shop/web/app?timestamps=true").await).await;
    assert!(whole.ends_with(std::str::from_utf8(&saved).unwrap()));
    let wanted = super::logs::replay(&saved, &crate::docker::LogOptions { tail: Some(1), ..Default::default() });
    let entries: Vec<_> = wanted.collect().await;
    assert_eq!(entries[0].as_ref().unwrap().bytes, "stopping\n");
    assert!(entries[0].as_ref().unwrap().at.is_some());
}

/// Sends frames, then shows what comes back.
async fn converse(server: &mut SendRequest<Ask>, path: &str, frames: &[Frame], stay: bool) -> String {
    let (sender, body) = channel();
    let request = Request::post(format!("http://agent{path}")).body(Either::Right(body)).unwrap();
    let response = tokio::time::timeout(Duration::from_secs(10), server.send_request(request)).await.unwrap().unwrap();
    if response.status() != StatusCode::OK {
        return shown(response).await;
    }
    for frame in frames {
        sender.send(frame.encode()).await.unwrap();
    }
    let kept = stay.then_some(sender);
    let answer = tokio::time::timeout(Duration::from_secs(10), response.into_body().collect()).await.unwrap().unwrap().to_bytes();
    drop(kept);
    let mut buffer = BytesMut::from(&answer[..]);
    // How much of a channel fits a frame is a matter of timing.
    let (mut words, mut last) = (String::new(), None);
    while let Some(frame) = Frame::decode(&mut buffer).unwrap() {
        if last != Some(frame.channel) {
            words += &format!("{}: ", frame.channel);
        }
        last = Some(frame.channel);
        words += &String::from_utf8_lossy(&frame.payload);
    }
    words.push('\n');
    assert!(buffer.is_empty());
    words
}

fn frame(channel: u8, payload: &'static [u8]) -> Frame {
    Frame { channel, payload: Bytes::from_static(payload) }
}

#[tokio::test]
async fn exec() {
    let mut world = world("", "").await;
    let server = &mut world.server;
    let path = "/exec/shop/web/app?stdout=true&stderr=true";
    let check = async |server: &mut SendRequest<Ask>, query: &str, frames: &[Frame], stay: bool, expect: Expect| {
        expect.assert_eq(&converse(server, &format!("{path}{query}"), frames, stay).await);
    };
    check(
        server,
        "&command=echo&command=hello%20there",
        &[],
        true,
        expect![[r#"
        1: hello there
        3: {"metadata":{},"status":"Success"}
    "#]],
    )
    .await;
    check(server, "&command=false", &[], true, expect![[r#"
        3: {"details":{"causes":[{"message":"1","reason":"ExitCode"}]},"message":"command terminated with non-zero exit code: exit status 1","metadata":{},"reason":"NonZeroExitCode","status":"Failure"}
    "#]]).await;
    // Input that is closed by a frame, and input that just ends.
    let input = [frame(STDIN, b"one\n"), frame(STDIN, b"two\n"), frame(CLOSE, &[STDIN])];
    check(
        server,
        "&command=cat&stdin=true",
        &input,
        true,
        expect![[r#"
        1: one
        two
        3: {"metadata":{},"status":"Success"}
    "#]],
    )
    .await;
    check(
        server,
        "&command=cat&stdin=true",
        &input[..2],
        false,
        expect![[r#"
        1: one
        two
        3: {"metadata":{},"status":"Success"}
    "#]],
    )
    .await;
    let typed = [frame(4, br#"{"Width":80,"Height":24}"#), frame(STDIN, b"echo hi\nexit 3\n")];
    check(server, "&command=sh&stdin=true&tty=true", &typed, true, expect![[r#"
        1: $ hi
        $ 3: {"details":{"causes":[{"message":"3","reason":"ExitCode"}]},"message":"command terminated with non-zero exit code: exit status 3","metadata":{},"reason":"NonZeroExitCode","status":"Failure"}
    "#]]).await;
    check(server, "", &[], true, expect![[r#"400 "BadRequest" "you must specify at least one command for the container""#]])
        .await;
    expect![[r#"400 "BadRequest" "you must specify at least one of stdin, stdout, stderr""#]]
        .assert_eq(&converse(server, "/exec/shop/web/app?command=true", &[], true).await);
    world.engine.stop(&world.id, 1).await.unwrap();
    let error = converse(server, &format!("{path}&command=true"), &[], true).await;
    expect![[r#"400 "BadRequest" "run a command in container app: Container <id> is not running""#]]
        .assert_eq(&error.replace(&world.id, "<id>"));
}

#[tokio::test]
async fn attach_ends_with_the_container() {
    let mut world = world("crash=2-300ms", "").await;
    let said = converse(&mut world.server, "/attach/shop/web/app?stdout=true&stderr=true", &[], true).await;
    assert_eq!(said, format!("{STDERR}: ending with code 2\n3: {{\"metadata\":{{}},\"status\":\"Success\"}}\n"));
}

#[tokio::test]
async fn ports() {
    let mut world = world("", "").await;
    let path = "/portForward/shop/web?port=80";
    let refused = converse(&mut world.server, path, &[], true).await;
    expect![[r#"503 "ServiceUnavailable" "error forwarding port 80 to pod web: failed to connect to localhost:80 inside the network of the pod: Connection refused (os error 111)""#]]
        .assert_eq(&refused);
    // Something that listens in that network.
    let network = crate::docker::container::NetworkMode::Container(world.id.clone());
    let spec = ContainerSpec { image: "sim/web:v1".into(), network, ..ContainerSpec::default() };
    let listener = world.engine.create("listener", &spec).await.unwrap();
    world.engine.start(&listener).await.unwrap();
    assert_eq!(shown(get(&mut world.server, "/portForward/shop/web").await).await, "200 ");
    let (sender, body) = channel();
    let request = Request::post(format!("http://agent{path}")).body(Either::Right(body)).unwrap();
    let response = world.server.send_request(request).await.unwrap();
    let mut answer = response.into_body();
    sender.send(Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
    let large = Bytes::from(vec![b'x'; 200_000]);
    let rest = tokio::spawn(async move {
        sender.send(large).await.unwrap();
        // Dropping it is the end of this direction; the echo is still heard.
        sender
    });
    let mut echoed = 0;
    while echoed < 200_000 {
        let piece = tokio::time::timeout(Duration::from_secs(5), answer.frame()).await.unwrap().unwrap().unwrap();
        echoed += piece.into_data().unwrap().len();
    }
    drop(rest.await.unwrap());
    for (path, wanted) in [
        ("/portForward/shop/web?port=0", "400 \"BadRequest\" \"invalid value for port: \\\"0\\\"\""),
        ("/portForward/shop/web?port=70000", "400 \"BadRequest\" \"invalid value for port: \\\"70000\\\"\""),
        ("/portForward/shop/new?port=80", "400 \"BadRequest\" \"unable to forward port because pod new is not running\""),
        ("/portForward/shop/db?port=80", "404 \"NotFound\" \"pods \\\"db\\\" not found\""),
    ] {
        assert_eq!(converse(&mut world.server, path, &[], true).await, wanted, "{path}");
    }
}

#[tokio::test]
async fn a_client_that_breaks_the_rules_is_cut_off() {
    let mut world = world("", "").await;
    let (sender, body) = channel();
    let request =
        Request::post("http://agent/exec/shop/web/app?command=cat&stdin=true&stdout=true").body(Either::Right(body)).unwrap();
    let response = world.server.send_request(request).await.unwrap();
    sender.send(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff])).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), response.into_body().collect()).await.unwrap().unwrap();
    assert!(answer.to_bytes().is_empty());
}

/// The same through a real daemon: input of some size, both outputs, codes, a terminal that is resized, and a client that goes away.
#[tokio::test]
async fn real_sessions() {
    crate::docker::bollard_engine::real_tests::with_host("sessions", async |host| {
        let id = host.run("a", &host.shell("busybox sleep 1000")).await;
        let lookup = Arc::new(Pods { id: id.clone(), previous: Bytes::new() });
        let handler = Handler::new(Arc::clone(&host.engine) as Arc<dyn Engine>, lookup, Vec::new());
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move { serve(ours, handler, &CancellationToken::new()).await });
        let mut server = shake_hands(theirs).await;
        let path = |script: &str, more: &str| {
            let script: String = script.bytes().map(|byte| format!("%{byte:02X}")).collect();
            format!("/exec/shop/web/app?stdout=true&stderr=true&command=busybox&command=sh&command=-c&command={script}{more}")
        };
        let input: Vec<Frame> = (0..40).map(|_| frame(STDIN, &[b'x'; 10_000])).chain([frame(CLOSE, &[STDIN])]).collect();
        let counted = converse(&mut server, &path("busybox wc -c; echo done >&2; exit 5", "&stdin=true"), &input, true).await;
        // The two outputs are two pipes; which comes first is nobody's promise.
        for line in ["1: 400000\n", "2: done\n"] {
            assert!(counted.contains(line), "{counted}");
        }
        assert!(counted.contains(r#""message":"5""#), "{counted}");

        let resize = frame(4, br#"{"Width":101,"Height":33}"#);
        let script = path("busybox sleep 1; busybox stty size", "&stdin=true&tty=true");
        let size = converse(&mut server, &script, &[resize], true).await;
        assert!(size.starts_with("1: 33 101\r\n3: "), "{size}");

        // The input of a client that went away ends, and so does what reads it.
        let (sender, body) = channel();
        let request = Request::post(format!("http://agent{}", path("busybox cat; echo gone > /gone", "&stdin=true")));
        let response = server.send_request(request.body(Either::Right(body)).unwrap()).await.unwrap();
        sender.send(frame(STDIN, b"hello").encode()).await.unwrap();
        let mut answer = response.into_body().into_data_stream();
        assert!(answer.next().await.unwrap().unwrap().ends_with(b"hello"));
        drop((answer, sender));
        let look = path("until busybox test -e /gone; do busybox sleep 0.05; done; busybox cat /gone", "");
        let gone = tokio::time::timeout(Duration::from_secs(10), converse(&mut server, &look, &[], true)).await.unwrap();
        assert!(gone.starts_with("1: gone\n3: "), "{gone}");
    })
    .await;
}

/// A certificate authority, and what it signs.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Authority { pem: certificate.pem(), issuer: rcgen::Issuer::new(params, key) }
    }

    /// Certificate and key, PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_string()]).unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn der(
    certificate: &str,
    key: &str,
) -> (Vec<rustls_pki_types::CertificateDer<'static>>, rustls_pki_types::PrivateKeyDer<'static>) {
    use rustls_pki_types::pem::PemObject;
    let chain = rustls_pki_types::CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
    (chain, rustls_pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
}

/// A server that asks for a client certificate.
fn acceptor(authority: &Authority) -> tokio_rustls::TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der(&authority.pem, &authority.sign("x").1).0.remove(0)).unwrap();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let (certificate, key) = authority.sign("127.0.0.1");
    let (chain, key) = der(&certificate, &key);
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

/// Takes one agent in and gives the stream on which to ask it; or answers with an error status.
async fn take_in(
    listener: &tokio::net::TcpListener,
    acceptor: &tokio_rustls::TlsAcceptor,
    status: StatusCode,
) -> Option<SendRequest<Ask>> {
    let (tcp, _) = listener.accept().await.unwrap();
    let tls = acceptor.accept(tcp).await.ok()?;
    assert!(tls.get_ref().1.peer_certificates().is_some());
    let (give, take) = tokio::sync::oneshot::channel();
    let give = std::sync::Mutex::new(Some(give));
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        assert_eq!(request.uri().path(), "/apis/portolan.dev/v1alpha1/nodes/host-1/tunnel");
        assert_eq!(request.headers()["upgrade"], dial::PROTOCOL);
        let mut response = http::Response::new(r#"{"kind":"Status","message":"not you"}"#.to_string());
        *response.status_mut() = status;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            *response.body_mut() = String::new();
            response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
            response.headers_mut().insert("upgrade", dial::PROTOCOL.parse().unwrap());
            let _ = give.lock().unwrap().take().unwrap().send(hyper::upgrade::on(request));
        }
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).with_upgrades();
    tokio::spawn(connection);
    let upgraded = take.await.ok()?.await.unwrap();
    Some(shake_hands(TokioIo::new(upgraded)).await)
}

#[tokio::test]
async fn the_stream_is_dialled_again_until_it_stands() {
    let authority = Authority::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());
    let (certificate, key) = authority.sign("host-1");
    let access = Access {
        server,
        authority: Some(authority.pem.clone()),
        identity: Identity::Certificate { certificate, key },
        ..Access::default()
    };
    let (_engine, _id, Handler { engine, lookup, .. }) = handler("", "").await;
    let stop = CancellationToken::new();
    let agent = tokio::spawn({
        let stop = stop.clone();
        async move { super::run(move || access.clone(), "host-1", engine, lookup, Vec::new(), stop).await }
    });
    let acceptor = acceptor(&authority);
    // A server that nobody here trusts, one that says no, one that goes away, and one that stays.
    let stranger = Authority::new();
    let other = self::acceptor(&stranger);
    assert!(take_in(&listener, &other, StatusCode::SWITCHING_PROTOCOLS).await.is_none());
    assert!(take_in(&listener, &acceptor, StatusCode::FORBIDDEN).await.is_none());
    drop(take_in(&listener, &acceptor, StatusCode::SWITCHING_PROTOCOLS).await.unwrap());
    let mut server = take_in(&listener, &acceptor, StatusCode::SWITCHING_PROTOCOLS).await.unwrap();
    assert_eq!(shown(get(&mut server, "/containerLogs/shop/web/app").await).await, "200 sim/web:v1 started\n");
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), agent).await.unwrap().unwrap();
}
