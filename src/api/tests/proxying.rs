//! Requests to what runs in pods, behind services and on hosts: to a program that says what it heard.

use std::convert::Infallible;
use std::net::SocketAddr;

use http::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::{ReaderStream, StreamReader};

use super::tunnelling::{agent, raw, real_clock};
use super::*;

const PODS: &str = "/api/v1/namespaces/shop/pods";
const SERVICES: &str = "/api/v1/namespaces/shop/services";

/// The other end of a forwarded port: an HTTP server that says what it heard, sends from `/moved` to `/login`, and echoes when the
/// connection becomes an `echo`.
pub(super) fn http_server(said: Incoming, tls: bool) -> Body {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (answers, mut questions) = tokio::io::split(ours);
    tokio::spawn(async move {
        let mut said =
            StreamReader::new(futures_util::StreamExt::map(said.into_data_stream(), |p| p.map_err(std::io::Error::other)));
        let _ = tokio::io::copy(&mut said, &mut questions).await;
        let _ = questions.shutdown().await;
    });
    let service = service_fn(|mut request: Request<Incoming>| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        let (head, body) = request.into_parts();
        if head.headers.get("upgrade").is_some_and(|protocol| protocol == "echo") {
            tokio::spawn(async move {
                let (mut from, mut to) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
            let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "echo");
            return Ok::<_, Infallible>(response.body(Body::empty()).unwrap());
        }
        let response = Response::builder().header("x-pod", "web").header("access-control-allow-origin", "*");
        if head.uri.path() == "/moved" {
            return Ok(response.status(302).header("location", "/login").body(Body::empty()).unwrap());
        }
        let body = body.collect().await.unwrap().to_bytes();
        let mut names: Vec<&str> = head.headers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        let words = format!("{} {} [{}] {}", head.method, head.uri, names.join(" "), String::from_utf8_lossy(&body));
        Ok(response.status(if head.uri.path() == "/teapot" { 418 } else { 200 }).body(words.into()).unwrap())
    });
    tokio::spawn(async move {
        let server = hyper::server::conn::http1::Builder::new();
        if tls {
            let theirs = tls_of_its_own().accept(theirs).await.unwrap();
            let _ = server.serve_connection(TokioIo::new(theirs), service).with_upgrades().await;
        } else {
            let _ = server.serve_connection(TokioIo::new(theirs), service).with_upgrades().await;
        }
    });
    Body::from_stream(ReaderStream::new(answers))
}

/// With a certificate that nobody knows.
fn tls_of_its_own() -> tokio_rustls::TlsAcceptor {
    let pair = rcgen::generate_simple_self_signed(["web".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key)
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

/// Pods `web` and `spare` on a host that is connected; only the first is ready. Service `front` has both.
async fn shop() -> (World, SocketAddr) {
    let w = world();
    real_clock(&w);
    let address = w.listen().await;
    for name in ["web", "spare"] {
        let ports = json!([{"name": "http", "containerPort": 8080}]);
        w.pod_on(name, "h1", json!({"containers": [{"name": "c", "image": "i", "ports": ports}]})).await;
        w.must(&format!("PATCH {PODS}/{name}"), json!({"metadata": {"labels": {"app": "shop"}}})).await;
    }
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    w.must(&format!("PATCH {PODS}/web/status"), ready).await;
    let ports = json!([{"name": "web", "port": 80, "targetPort": "http"}, {"name": "odd", "port": 81, "targetPort": "nothing"}]);
    w.must(
        &format!("POST {SERVICES}"),
        json!({"metadata": {"name": "front"}, "spec": {"selector": {"app": "shop"}, "ports": ports}}),
    )
    .await;
    let one = json!({"selector": {"app": "none"}, "ports": [{"port": 80}]});
    w.must(&format!("POST {SERVICES}"), json!({"metadata": {"name": "lonely"}, "spec": one})).await;
    let pair = w.host("h1").await;
    agent(&w, address, "h1", &pair).await;
    (w, address)
}

#[tokio::test]
async fn what_pods_and_services_answer() {
    let (w, _) = shop().await;
    let heard = async |line: &str| {
        let answer = w.send(Some(&Identity::admin()), line, &[("authorization", "Bearer x"), ("x-mine", "1")], "").await;
        match answer.value["status"] == "Failure" {
            true => answer.show(),
            false => format!("{} {}", answer.code, answer.value.as_str().unwrap_or_default()),
        }
    };
    let seen = "[host x-forwarded-host x-forwarded-proto x-forwarded-uri x-mine] ";
    for (line, wanted) in [
        (format!("GET {PODS}/web/proxy/a%20b//..?c=d"), format!("200 GET /a%20b//..?c=d {seen}")),
        (format!("GET {PODS}/web:8080/proxy/"), format!("200 GET / {seen}")),
        (format!("GET {PODS}/http:web:http/proxy/teapot"), format!("418 GET /teapot {seen}")),
        (format!("GET {SERVICES}/front:80/proxy/x"), format!("200 GET /x {seen}")),
        (format!("GET {SERVICES}/front:web/proxy/x"), format!("200 GET /x {seen}")),
        (format!("GET {SERVICES}/http:front:web/proxy/x"), format!("200 GET /x {seen}")),
        (format!("GET {PODS}/https:web:8443/proxy/x"), format!("200 GET /x {seen}")),
        (format!("DELETE {PODS}/web/proxy/it"), format!("200 DELETE /it {seen}")),
        (
            format!("GET {PODS}/web:81/proxy/"),
            "503 ServiceUnavailable: error trying to reach service: container is waiting to start".to_owned(),
        ),
        // What answers, but in no TLS, or no HTTP.
        (
            format!("GET {PODS}/https:web:82/proxy/"),
            "503 ServiceUnavailable: error trying to reach service: received unexpected handshake message: got ClientHello when expecting ServerHello or HelloRetryRequest".to_owned(),
        ),
        (
            format!("GET {PODS}/web:82/proxy/"),
            "503 ServiceUnavailable: error trying to reach service: invalid HTTP version parsed".to_owned(),
        ),
        (format!("GET {PODS}/web:none/proxy/"), "400 BadRequest: invalid port \"none\"".to_owned()),
        (format!("GET {PODS}/a:b:c:d/proxy/"), "400 BadRequest: invalid pod request \"a:b:c:d\"".to_owned()),
        (format!("GET {PODS}/nobody/proxy/"), "404 NotFound: pods \"nobody\" not found".to_owned()),
        (
            format!("GET {SERVICES}/front:8/proxy/"),
            "503 ServiceUnavailable: no service port 8 found for service \"front\"".to_owned(),
        ),
        // Of two names none is the one without; a port that no pod has; a selector that fits none.
        (
            format!("GET {SERVICES}/front/proxy/"),
            "503 ServiceUnavailable: no endpoints available for service \"front\"".to_owned(),
        ),
        (
            format!("GET {SERVICES}/front:odd/proxy/"),
            "503 ServiceUnavailable: no endpoints available for service \"front\"".to_owned(),
        ),
        (
            format!("GET {SERVICES}/lonely/proxy/"),
            "503 ServiceUnavailable: no endpoints available for service \"lonely\"".to_owned(),
        ),
    ] {
        assert_eq!(heard(&line).await, wanted, "{line}");
    }
    let posted = w.send(Some(&Identity::admin()), &format!("POST {PODS}/web/proxy"), &[], "x".repeat(300_000)).await;
    assert!(posted.value.as_str().unwrap().starts_with("POST / [") && posted.value.as_str().unwrap().ends_with("xxx"));
    assert_eq!(posted.value.as_str().unwrap().len(), 300_000 + posted.value.as_str().unwrap().find("] ").unwrap() + 2);
    assert_eq!(posted.headers["x-pod"], "web");
    assert!(!posted.headers.contains_key("access-control-allow-origin"));
    let moved = w.ask(&format!("GET {PODS}/web/proxy/moved"), Value::Null).await;
    assert_eq!((moved.code, &moved.headers["location"]), (302, &format!("{PODS}/web/proxy/login").parse().unwrap()));
    let bare = w.ask(&format!("GET {PODS}/web/proxy?a=b"), Value::Null).await;
    assert_eq!((bare.code, &bare.headers["location"]), (301, &format!("{PODS}/web/proxy/?a=b").parse().unwrap()));
}

#[tokio::test]
async fn a_connection_that_becomes_another() {
    let (w, address) = shop().await;
    let admin = w.authority.client("portolan-admin", &["system:masters"]).unwrap();
    let mut stream = w.connect(address, Some((&admin.certificate, &admin.key))).await.unwrap();
    let request = format!("GET {PODS}/web/proxy/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    let answer = raw(&mut stream, &request).await;
    assert!(answer.starts_with("HTTP/1.1 101") && answer.to_lowercase().contains("upgrade: echo"), "{answer}");
    for _ in 0..3 {
        stream.write_all(b"anybody there?").await.unwrap();
        let mut heard = [0; 14];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"anybody there?");
    }
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn each_method_is_a_right_of_its_own() {
    let (w, _) = shop().await;
    let jane = Identity::new("jane", &["team"]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop";
    let rules = json!([
        {"apiGroups": [""], "resources": ["pods/proxy"], "verbs": ["get"], "resourceNames": ["web:8080"]},
        {"apiGroups": [""], "resources": ["services/proxy"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["*"]},
    ]);
    w.must(&format!("POST {rbac}/roles"), json!({"metadata": {"name": "looks"}, "rules": rules})).await;
    let binding = json!({
        "metadata": {"name": "looks"}, "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "Role", "name": "looks", "apiGroup": "rbac.authorization.k8s.io"},
    });
    w.must(&format!("POST {rbac}/rolebindings"), binding).await;
    for (line, code) in [
        (format!("GET {PODS}/web:8080/proxy/"), 200),
        (format!("GET {PODS}/web/proxy/"), 403),
        (format!("POST {PODS}/web:8080/proxy/"), 403),
        (format!("GET {SERVICES}/front:80/proxy/"), 403),
        (format!("POST {SERVICES}/front:80/proxy/"), 200),
        (format!("PUT {SERVICES}/front:80/proxy/"), 403),
        (format!("OPTIONS {SERVICES}/front:80/proxy/"), 405),
        ("GET /api/v1/nodes/h1/proxy/healthz".to_owned(), 403),
    ] {
        assert_eq!(w.ask_as(&jane, &line, Value::Null).await.code, code, "{line}");
    }
}

#[tokio::test]
async fn what_a_host_says_of_itself() {
    let (w, _) = shop().await;
    w.must("POST /api/v1/nodes", json!({"metadata": {"name": "h1"}})).await;
    let at = "GET /api/v1/nodes/h1/proxy";
    assert_eq!(w.must(&format!("{at}/healthz"), Value::Null).await, "fine");
    assert_eq!(w.must("GET /api/v1/nodes/https:h1:10250/proxy/healthz", Value::Null).await, "fine");
    let log = w.must(&format!("{at}/containerLogs/shop/web/c?tailLines=1"), Value::Null).await;
    assert!(log.as_str().unwrap().ends_with("/containerLogs/shop/web/c?tailLines=1"), "{log}");
    // The host of this test has nothing to say of the rest; that it was asked is what counts.
    for path in ["pods", "pods/", "runningpods/", "stats/summary", "stats/summary?only_cpu_and_memory=true"] {
        let asked = w.ask(&format!("{at}/{path}"), Value::Null).await;
        assert!(asked.show().contains("container is waiting to start"), "{path}: {}", asked.show());
    }
    for path in ["", "metrics", "configz", "stats", "stats/summary/x", "run/shop/web/c", "debug/pprof", "logs/"] {
        let nothing = w.ask(&format!("{at}/{path}"), Value::Null).await;
        assert!(nothing.show().contains("the agent of node \"h1\" has nothing at"), "{path}: {}", nothing.show());
    }
    for (line, wanted) in [
        (format!("{at}/exec/shop/web/c"), "404 NotFound: the agent of node \"h1\" has nothing at /exec/shop/web/c"),
        (
            format!("{at}/containerLogs/shop/../web"),
            "404 NotFound: the agent of node \"h1\" has nothing at /containerLogs/shop/../web",
        ),
        (format!("{at}/portForward/shop/web"), "404 NotFound: the agent of node \"h1\" has nothing at /portForward/shop/web"),
        (
            "POST /api/v1/nodes/h1/proxy/healthz".to_owned(),
            "405 MethodNotAllowed: the server does not allow this method on the requested resource",
        ),
        (
            "GET /api/v1/nodes/h1:22/proxy/healthz".to_owned(),
            "400 BadRequest: the agent of node \"h1\" opens no ports: leave the port out",
        ),
        ("GET /api/v1/nodes/h2/proxy/healthz".to_owned(), "404 NotFound: nodes \"h2\" not found"),
    ] {
        assert_eq!(w.ask(&line, Value::Null).await.show(), wanted, "{line}");
    }
}
