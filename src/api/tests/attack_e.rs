//! Attack class E: authentication and sessions. Each case is something that was a hole somewhere; here it is refused.
//!
//! Names and accounts that there are not are answered like those that there are (CVE-2022-41354, CVE-2024-36106, CVE-2020-11576 by words):
//! `rights::somebody_without_a_binding`, `joining::tokens_refused`; secrets are compared in a time that tells nothing of them
//! (`join::same`). That a session ends with its credential's time is in `sessions`, too.
//!
//! What there is nothing to attack of: a page to log in (CVE-2022-24905), plugins that prove who somebody is (CVE-2021-43415), and ports of
//! hosts, as agents listen nowhere (CVE-2020-8558, CVE-2023-1782).

use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::net::TcpListener;

use super::accounts::AUTHENTICATION;
use super::rights::RBAC;
use super::sessions::shop;
use super::tunnelling::raw;
use super::*;
use crate::api::Settings;
use crate::api::authn::jwt::Signer;
use crate::api::authn::{Peer, oidc};

fn forged(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode(signature))
}

fn parts(token: &str) -> (Value, Value) {
    let mut parts =
        token.split('.').map(|p| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(p).unwrap_or_default()).unwrap_or_default());
    (parts.next().unwrap(), parts.next().unwrap())
}

const ME: &str = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";

/// CVE-2022-29165 (claims trusted unsigned), CVE-2023-22482 (audience), CVE-2026-23990 (empty claims).
#[tokio::test]
async fn e_tokens_that_say_what_they_like() {
    let w = world();
    w.account("ci").await;
    let good = w.account_token(json!({})).await;
    let (header, claims) = parts(&good);
    let other = Signer::in_memory().unwrap();
    let with = |changes: Value| {
        let mut claims = claims.clone();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let sign = |claims: &Value| w.authority.accounts.sign(claims).unwrap();
    let mut private = claims["kubernetes.io"].clone();
    private["serviceaccount"]["name"] = "admin".into();
    let mut without_uid = claims["kubernetes.io"].clone();
    without_uid["serviceaccount"]["uid"] = "".into();
    let mut other_uid = claims["kubernetes.io"].clone();
    other_uid["serviceaccount"]["uid"] = "00000000-0000-4000-8000-000000000000".into();
    let mut odd_bond = claims["kubernetes.io"].clone();
    odd_bond["pod"] = json!({"name": "x"});
    let none = json!({"alg": "none", "kid": header["kid"]});
    let rows = [
        ("no algorithm", forged(&none, &claims, b"")),
        (
            "no algorithm, an administrator",
            forged(&none, &with(json!({"sub": "system:admin", "groups": ["system:masters"]})), b""),
        ),
        ("the public key as a secret", forged(&json!({"alg": "HS256", "kid": header["kid"]}), &claims, &[7; 32])),
        ("somebody else's key", other.sign(&claims).unwrap()),
        ("somebody else's key under our name", forged(&header, &claims, &[9; 64])),
        (
            "a key that it brings itself",
            forged(&json!({"alg": "ES256", "kid": "x", "jwk": other.key().jwk()}), &claims, &[9; 64]),
        ),
        (
            "a key from elsewhere",
            forged(&json!({"alg": "ES256", "kid": header["kid"], "jku": "https://evil.example/k"}), &claims, &[9; 64]),
        ),
        ("another issuer", sign(&with(json!({"iss": "https://evil.example"})))),
        ("no issuer", sign(&with(json!({"iss": ""})))),
        ("another audience", sign(&with(json!({"aud": ["https://evil.example"]})))),
        ("no audience", sign(&with(json!({"aud": []})))),
        ("an empty audience", sign(&with(json!({"aud": ""})))),
        ("expired", sign(&with(json!({"exp": claims["iat"]})))),
        ("no end", sign(&with(json!({"exp": null})))),
        ("not yet", sign(&with(json!({"nbf": claims["exp"]})))),
        ("no subject", sign(&with(json!({"sub": ""})))),
        ("a person as subject", sign(&with(json!({"sub": "portolan-admin"})))),
        ("half a subject", sign(&with(json!({"sub": "system:serviceaccount:shop:"})))),
        ("a subject with too many parts", sign(&with(json!({"sub": "system:serviceaccount:shop:ci:x"})))),
        ("subject and account differ", sign(&with(json!({"sub": "system:serviceaccount:kube-system:ci"})))),
        ("another account within", sign(&with(json!({"kubernetes.io": private})))),
        ("no uid", sign(&with(json!({"kubernetes.io": without_uid})))),
        ("the uid of somebody before", sign(&with(json!({"kubernetes.io": other_uid})))),
        ("bound to something without a uid", sign(&with(json!({"kubernetes.io": odd_bond})))),
        ("nothing private", sign(&with(json!({"kubernetes.io": null})))),
        ("empty", String::new()),
        ("dots", "..".to_owned()),
        ("long", "a".repeat(100_000)),
    ];
    assert_eq!(w.with_token(&good, ME, json!({})).await.code, 201);
    for (what, token) in rows {
        assert_eq!(w.with_token(&token, ME, json!({})).await.show(), "401 Unauthorized: Unauthorized", "{what}");
    }
    assert_eq!(w.with_token(&good, ME, json!({})).await.code, 201);
}

/// CVE-2026-44883 (a token in the address), CVE-2026-20896 (headers of a proxy), CVE-2026-44882 (going on after a failed check).
#[tokio::test]
async fn e_credentials_in_the_wrong_place() {
    let w = world();
    w.account("ci").await;
    let good = w.account_token(json!({})).await;
    for headers in [
        vec![("x-remote-user", "system:admin"), ("x-remote-group", "system:masters")],
        vec![("x-forwarded-user", "portolan-admin")],
        vec![("impersonate-user", "portolan-admin"), ("impersonate-group", "system:masters")],
        vec![("x-forwarded-client-cert", "Subject=\"CN=portolan-admin,O=system:masters\"")],
        vec![("authorization", "Bearer nonsense"), ("impersonate-user", "portolan-admin")],
        vec![("authorization", "Basic cG9ydG9sYW4tYWRtaW46")],
        vec![("cookie", "token=x")],
    ] {
        for line in [
            "GET /api/v1/secrets",
            "GET /api",
            "GET /metrics",
            "GET /nope",
            // CVE-2018-12678: a terminal without a login.
            "GET /api/v1/namespaces/shop/pods/x/exec?command=sh&stdin=true",
            "POST /api/v1/namespaces/shop/pods/x/exec?command=sh",
            "GET /api/v1/namespaces/shop/pods/x/log",
            "GET /apis/portolan.dev/v1alpha1/nodes/h1/tunnel",
        ] {
            assert_eq!(w.send(None, line, &headers, "").await.code, 401, "{headers:?} {line}");
        }
    }
    for name in ["access_token", "token", "authorization"] {
        assert_eq!(w.send(None, &format!("GET /api?{name}={good}"), &[], "").await.code, 401, "{name}");
    }
    let bearer = format!("Bearer {good}");
    assert_eq!(w.send(None, "GET /api", &[("authorization", &bearer)], "").await.code, 200);
    assert_eq!(w.send(None, "GET /api", &[("authorization", &bearer), ("authorization", &bearer)], "").await.code, 401);
    // A join token joins, and says nothing about who somebody is.
    let (id, secret) = crate::api::join::new_token();
    let expires = "2026-11-22T10:00:00Z".parse().unwrap();
    w.must("POST /api/v1/namespaces/kube-system/secrets", crate::api::join::token_secret(&id, &secret, expires)).await;
    let join = format!("Bearer {id}.{secret}");
    for line in ["GET /api", "GET /api/v1/nodes", "POST /api/v1/nodes"] {
        assert_eq!(w.send(None, line, &[("authorization", &join)], "{}").await.code, 401, "{line}");
    }
}

/// Whoever has shown a token that was good is known on that connection, over each protocol: its pauses are those of common clients. A
/// stranger's are short.
#[tokio::test]
async fn e_a_token_makes_a_stranger_known() {
    use tokio::io::AsyncReadExt;
    let w = world();
    super::tunnelling::real_clock(&w);
    w.account("ci").await;
    let good = w.account_token(json!({})).await;
    let address = w.listen().await;
    let ask = |token: &str| format!("GET /api HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    let read = async |stream: &mut tokio_rustls::client::TlsStream<tokio::net::TcpStream>, token: &str| {
        let head = super::tunnelling::raw(stream, &ask(token)).await;
        let length =
            head.to_lowercase().split("content-length: ").nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        head
    };
    let mut known = w.connect(address, None).await.unwrap();
    assert!(read(&mut known, &good).await.starts_with("HTTP/1.1 200"));
    let mut stranger = w.connect(address, None).await.unwrap();
    assert!(read(&mut stranger, "nonsense").await.starts_with("HTTP/1.1 401"));
    let mut byte = [0];
    let cut = tokio::time::timeout(std::time::Duration::from_secs(20), stranger.read(&mut byte)).await;
    assert!(matches!(cut, Ok(Ok(0) | Err(_))), "a stranger that says nothing may stay: {cut:?}");
    assert!(read(&mut known, &good).await.starts_with("HTTP/1.1 200"), "it was taken for a stranger");
}

/// CVE-2020-8827, CVE-2024-21652, CVE-2024-21662: guessing is slow, and failing does not make it faster; who is known is not held up.
#[tokio::test]
async fn e_guessing_is_limited_by_address() {
    let w = world();
    w.account("ci").await;
    let good = w.account_token(json!({})).await;
    let from = async |address: [u8; 4], line: &str, token: &str| {
        let (method, path) = line.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        let mut request = request.body(Body::from("{}")).unwrap();
        request.extensions_mut().insert(Peer(IpAddr::V4(Ipv4Addr::from(address))));
        w.api.handle(request).await.status().as_u16()
    };
    assert_eq!(from([10, 0, 0, 1], ME, &good).await, 201);
    let mut codes = std::collections::BTreeMap::new();
    for n in 0..100 {
        *codes.entry(from([10, 0, 0, 1], "GET /api", &format!("guess{n}")).await).or_insert(0) += 1;
    }
    assert_eq!(codes, [(401, 60), (429, 40)].into());
    assert_eq!(from([10, 0, 0, 1], ME, &good).await, 201, "a token that was good a moment ago");
    assert_eq!(from([10, 0, 0, 2], ME, &good).await, 201, "another address");
    let join = "POST /apis/portolan.dev/v1alpha1/join";
    for n in 0..60 {
        assert_eq!(from([10, 0, 0, 3], join, &format!("abcdef.guess{n}")).await, 401);
    }
    assert_eq!(from([10, 0, 0, 3], join, "abcdef.more").await, 429);
    w.pass(60);
    assert_eq!(from([10, 0, 0, 1], "GET /api", "guess").await, 401);
}

/// CVE-2023-40025, CVE-2024-41666: what is open ends with the right that opened it, and with a revoked credential.
#[tokio::test]
async fn e_revoked_means_cut() {
    let w = world();
    w.account("ci").await;
    let binding = json!({"metadata": {"name": "ci"}, "roleRef": {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "ServiceAccount", "name": "ci", "namespace": "shop"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings";
    let follow = async |token: &str| {
        let request = Request::builder()
            .uri("/api/v1/namespaces/shop/configmaps?watch=true")
            .header("authorization", format!("Bearer {token}"))
            .body(Body::empty())
            .unwrap();
        let response = w.api.handle(request).await;
        assert_eq!(response.status(), 200);
        response.into_body()
    };
    let ends = async |mut body: Body| {
        let before = tokio::time::Instant::now();
        assert!(body.frame().await.is_none());
        assert!(before.elapsed() <= std::time::Duration::from_secs(5));
    };
    // The binding goes.
    w.must(&format!("POST {bindings}"), binding.clone()).await;
    let token = w.account_token(json!({})).await;
    let open = follow(&token).await;
    w.must(&format!("DELETE {bindings}/ci"), Value::Null).await;
    ends(open).await;
    // The credential is revoked, by the id that whoami shows.
    w.must(&format!("POST {bindings}"), binding).await;
    let open = follow(&token).await;
    let info = w.with_token(&token, ME, json!({})).await.value["status"]["userInfo"].clone();
    let id = info["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap().replacen('=', ".", 1);
    let list = json!({"metadata": {"name": "revoked-credentials"}, "data": {id: "lost laptop"}});
    w.must("POST /api/v1/namespaces/kube-system/configmaps", list).await;
    ends(open).await;
    assert_eq!(w.with_token(&token, ME, json!({})).await.code, 401);
    let fresh = w.account_token(json!({})).await;
    assert_eq!(w.with_token(&fresh, ME, json!({})).await.code, 201, "the account is not to blame");
    // The account goes.
    let open = follow(&fresh).await;
    w.must("DELETE /api/v1/namespaces/shop/serviceaccounts/ci", Value::Null).await;
    ends(open).await;
}

/// The same for what runs through a host: a log that is followed and a terminal are cut within seconds of the right, and of the account.
#[tokio::test]
async fn e_revoked_means_cut_for_terminals_and_logs() {
    use tokio::io::AsyncReadExt;
    let (w, address) = shop().await;
    w.pod_on("endless", "h1", json!({})).await;
    let rules = json!([{"apiGroups": [""], "resources": ["pods/log", "pods/exec"], "verbs": ["get", "create"]}]);
    w.role("shop", "looks", rules).await;
    let ends = async |cut: &str| {
        w.account("ci").await;
        w.bind("shop", "looks", "Role/looks", json!({"kind": "ServiceAccount", "name": "ci", "namespace": "shop"})).await;
        let token = w.account_token(json!({})).await;
        let log = Request::get("/api/v1/namespaces/shop/pods/endless/log?follow=true")
            .header("authorization", format!("Bearer {token}"));
        let mut log = w.api.handle(log.body(Body::empty()).unwrap()).await.into_body();
        assert!(log.frame().await.unwrap().is_ok(), "it is followed");
        let mut terminal = w.connect(address, None).await.unwrap();
        let request = format!(
            "POST /api/v1/namespaces/shop/pods/web/exec?command=cat&stdin=true&stdout=true HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\
             Authorization: Bearer {token}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
        );
        let answer = raw(&mut terminal, &request).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        let mut peer = super::super::spdy::tests::Peer::new(terminal);
        for (stream, name) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
            peer.open(stream, &[("streamtype", name)]).await;
        }
        w.must(cut, Value::Null).await;
        let before = tokio::time::Instant::now();
        let log_ends = async { while let Some(Ok(_)) = log.frame().await {} };
        let terminal_ends = async { while peer.next().await.is_some() {} };
        let both = async { tokio::join!(log_ends, terminal_ends) };
        tokio::time::timeout(std::time::Duration::from_secs(10), both).await.expect("something stays open");
        assert!(before.elapsed() <= std::time::Duration::from_secs(6), "{:?}", before.elapsed());
        w.ask("DELETE /api/v1/namespaces/shop/serviceaccounts/ci", Value::Null).await;
        w.ask(&format!("DELETE {RBAC}/namespaces/shop/rolebindings/looks"), Value::Null).await;
    };
    ends(&format!("DELETE {RBAC}/namespaces/shop/rolebindings/looks")).await;
    ends("DELETE /api/v1/namespaces/shop/serviceaccounts/ci").await;
    // Nothing is left of it at the host's end either: the next one is served.
    let mut stream = super::sessions::admin(&w, address).await;
    let answer = raw(&mut stream, "GET /api/v1/namespaces/shop/pods/web/log HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let _ = stream.read(&mut [0; 1]).await;
}

/// CVE-2021-26921: there is no credential without an end, the administrator's own neither.
#[tokio::test]
async fn e_every_credential_ends() {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    let w = world();
    super::tunnelling::real_clock(&w);
    let now = *w.clock.lock();
    let ends = |pem: &str| {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let expires = super::super::authority::identify(&der).unwrap().expires.expect("it ends");
        expires.duration_since(now).as_hours() / 24
    };
    let admin = w.authority.client("portolan-admin", &["system:masters"]).unwrap();
    let (host, _) = w.host("h1").await;
    assert!((1..=366).contains(&ends(&admin.certificate)), "{} days", ends(&admin.certificate));
    assert!((1..=91).contains(&ends(&host)), "{} days", ends(&host));
    w.account("ci").await;
    for wanted in [json!({}), json!({"expirationSeconds": i64::MAX}), json!({"expirationSeconds": null})] {
        let Some(token) =
            w.ask(super::accounts::TOKEN, json!({"spec": wanted})).await.value["status"]["token"].as_str().map(str::to_owned)
        else {
            continue; // refused: as good
        };
        let (_, claims) = parts(&token);
        let lasts = claims["exp"].as_i64().unwrap() - now.as_second();
        assert!(lasts <= 366 * 24 * 3600, "{lasts}");
    }
}

/// CVE-2021-37218: a certificate that makes somebody a client does not make him a server. An agent that met one would give it its pods.
#[tokio::test]
async fn e_a_client_is_no_server() {
    let w = world();
    super::tunnelling::real_clock(&w);
    let (host, key) = w.host("h1").await;
    let admin = w.authority.client("127.0.0.1", &["system:masters"]).unwrap();
    for (certificate, key) in [(host, key), (admin.certificate, admin.key)] {
        use rustls_pki_types::pem::PemObject;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![rustls_pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                rustls_pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let pretending = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let serving = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            pretending.accept(stream).await.is_ok()
        });
        let refused = w.connect(address, None).await;
        assert!(refused.is_err(), "it was taken for the server");
        assert!(!serving.await.unwrap());
    }
    let address = w.listen().await;
    assert!(w.connect(address, None).await.is_ok(), "the server is");
}

/// CVE-2022-31034: what must not be guessed is made of the operating system's chance, all of it.
#[test]
fn e_secrets_are_chance() {
    const MANY: usize = 4_000;
    let tokens: Vec<(String, String)> = (0..MANY).map(|_| crate::api::join::new_token()).collect();
    let secrets: std::collections::BTreeSet<&str> = tokens.iter().map(|(_, secret)| secret.as_str()).collect();
    assert_eq!(secrets.len(), MANY);
    let uids: std::collections::BTreeSet<String> = (0..MANY).map(|_| new_uid()).collect();
    assert_eq!(uids.len(), MANY);
    // Each place of a secret takes each of 32 letters about as often: 125 times, give or take 11.
    for place in 0..32 {
        let mut counts = std::collections::BTreeMap::new();
        for (_, secret) in &tokens {
            *counts.entry(secret.as_bytes()[place]).or_insert(0) += 1;
        }
        assert!(counts.len() == 32 && counts.values().all(|n| (60..=200).contains(n)), "place {place}: {counts:?}");
    }
    // And none follows from the one before.
    let same = tokens.windows(2).map(|two| two[0].1.bytes().zip(two[1].1.bytes()).filter(|(a, b)| a == b).count()).sum::<usize>();
    assert!((3_000..=5_000).contains(&same), "{same} of 128,000 letters are those of the one before; one of 32 is chance");
}

/// CVE-2018-19367 (the first visitor becomes administrator), CVE-2024-37152 (settings readable without login).
#[tokio::test]
async fn e_nothing_is_set_up_over_the_network() {
    let w = world();
    for line in [
        "GET /",
        "GET /setup",
        "POST /api/users/admin/init",
        "GET /api/v1/settings",
        "GET /debug/pprof",
        "GET /metrics",
        "GET /openapi/v2",
    ] {
        let answer = w.send(None, line, &[], "{}").await;
        assert!(matches!(answer.code, 401 | 404), "{line}: {}", answer.code);
    }
}

/// An identity provider over real TLS: keys are fetched, a new key is found, a foreign one is not, and nothing goes over a bad certificate.
#[tokio::test]
async fn e_people_of_an_identity_provider() {
    let clock: super::super::Clock = Arc::new(crate::clock::now);
    let authority = Arc::new(Authority::in_memory(clock.clone()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let signers = Arc::new(Mutex::new(vec![Signer::in_memory().unwrap()]));
    let tls = tokio_rustls::TlsAcceptor::from(authority.listener(vec!["localhost".to_owned()]).unwrap());
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (keys, counter, name) = (signers.clone(), asked.clone(), issuer.clone());
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = tls.accept(stream).await else { continue };
            let (keys, counter, name) = (keys.clone(), counter.clone(), name.clone());
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let body = match request.uri().path() {
                    "/keys" => json!({"keys": keys.lock().iter().map(|s| s.key().jwk()).collect::<Vec<_>>()}),
                    _ => json!({"issuer": name, "jwks_uri": format!("{name}/keys")}),
                };
                async move { Ok::<_, std::convert::Infallible>(http::Response::new(Body::from(body.to_string()))) }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(stream), service),
            );
        }
    });
    let options = |ca: &str| oidc::Options {
        issuer: issuer.clone(),
        client_id: "portolan".into(),
        username_claim: "email".into(),
        groups_claim: "groups".into(),
        groups_prefix: "id:".into(),
        ca: ca.into(),
        ..oidc::Options::default()
    };
    let api = |ca: &str| {
        let provider = Some(Arc::new(oidc::Provider::new(options(ca)).unwrap()));
        let w = world();
        let settings = Settings { oidc: provider, ..Settings::default() };
        let api = Api::with_settings(w.store.clone(), clock.clone(), Some(w.authority.clone()), settings, w.stop.clone());
        World { api, ..w }
    };
    let w = api(authority.pem());
    let claims = |more: Value| {
        let mut claims = json!({"iss": issuer, "aud": "portolan", "sub": "1", "email": "jane@example.org", "groups": ["dev"],
            "exp": crate::clock::now().as_second() + 600});
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let sign = |signer: usize, more: Value| signers.lock()[signer].sign(&claims(more)).unwrap();
    let me = w.with_token(&sign(0, json!({})), ME, json!({})).await;
    assert_eq!(me.code, 201, "{}", me.show());
    assert_eq!(
        me.value["status"]["userInfo"],
        json!({"username": "jane@example.org", "groups": ["id:dev", "system:authenticated"]})
    );
    let before = asked.load(std::sync::atomic::Ordering::Relaxed);
    for (what, token) in [
        ("a key that the provider does not have", Signer::in_memory().unwrap().sign(&claims(json!({}))).unwrap()),
        ("another audience", sign(0, json!({"aud": "others"}))),
        ("no name", sign(0, json!({"email": ""}))),
        ("an account of ours", sign(0, json!({"email": "system:serviceaccount:shop:ci"}))),
        (
            "our issuer with the provider's key",
            sign(0, json!({"iss": crate::api::authn::account::ISSUER, "sub": "system:serviceaccount:shop:ci"})),
        ),
        ("no signature", forged(&json!({"alg": "none"}), &claims(json!({})), b"")),
    ] {
        assert_eq!(w.with_token(&token, ME, json!({})).await.code, 401, "{what}");
    }
    let masters = w.with_token(&sign(0, json!({"groups": ["system:masters"]})), "GET /api/v1/secrets", Value::Null).await;
    assert_eq!(masters.code, 403);
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), before, "made-up keys do not become a storm of questions");
    // Without its authority the provider is not believed: no key, nobody.
    let stranger = api(Authority::in_memory(clock.clone()).unwrap().pem());
    assert_eq!(stranger.with_token(&sign(0, json!({})), ME, json!({})).await.code, 401);
    let review = json!({"spec": {"token": sign(0, json!({}))}});
    assert_eq!(
        w.must(&format!("POST {AUTHENTICATION}/tokenreviews"), review).await["status"]["user"]["username"],
        "jane@example.org"
    );
    serving.abort();
}
