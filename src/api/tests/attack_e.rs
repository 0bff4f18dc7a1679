//! Attack class E: authentication and sessions. Each case is something that was a hole somewhere; here it is refused.

use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::net::TcpListener;

use super::accounts::AUTHENTICATION;
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
