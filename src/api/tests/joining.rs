//! How hosts become nodes, and how they do not.

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::super::authority::identify;
use super::super::join::{new_token, token_secret};
use super::*;

const JOIN: &str = "POST /apis/portolan.dev/v1alpha1/join";

fn request(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

impl World {
    async fn token(&self, seconds: i64) -> (String, String) {
        let (id, secret) = new_token();
        let expires = *self.clock.lock() + SignedDuration::from_secs(seconds);
        self.must("POST /api/v1/namespaces/kube-system/secrets", token_secret(&id, &secret, expires)).await;
        (id, secret)
    }
    async fn join(&self, who: Option<&Identity>, token: &str, node: &str, key: &KeyPair) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.send(who, JOIN, &headers[usize::from(token.is_empty())..], json!({"node": node, "csr": request(key)}).to_string())
            .await
    }
}

fn identity(answer: &Answer) -> Identity {
    let pem = answer.value["certificate"].as_str().unwrap_or_else(|| panic!("{}", answer.show()));
    identify(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_makes_a_node_once() {
    let w = world();
    let (id, secret) = w.token(600).await;
    let token = format!("{id}.{secret}");
    let key = KeyPair::generate().unwrap();
    let h1 = identity(&w.join(None, &token, "h1", &key).await);
    assert_eq!((h1.host(), h1.is_master()), (Some("h1"), false));
    assert_eq!(w.ask_as(&h1, "POST /api/v1/nodes", json!({"metadata": {"name": "h1"}})).await.code, 201);
    // The first answer was lost: the same key may ask again.
    identity(&w.join(None, &token, "h1", &key).await);
    // Somebody else with a token takes over nothing.
    let thief = KeyPair::generate().unwrap();
    let refused = w.join(None, &token, "h1", &thief).await;
    assert_eq!((refused.code, refused.value["reason"].as_str()), (409, Some("AlreadyExists")));
    // When the node is gone for good its name is free, and its old certificate is worth nothing.
    w.must("DELETE /api/v1/nodes/h1", json!({})).await;
    let new = identity(&w.join(None, &token, "h1", &thief).await);
    assert_eq!(w.ask_as(&new, "GET /api/v1/nodes/h1", Value::Null).await.code, 404);
    assert_eq!(w.ask_as(&h1, "GET /api/v1/nodes/h1", Value::Null).await.code, 401);
    // And a node whose record is gone has no key at all.
    w.must("DELETE /api/v1/namespaces/kube-system/secrets/node-identity-h1", json!({})).await;
    assert_eq!(w.ask_as(&new, "GET /api/v1/nodes/h1", Value::Null).await.code, 401);
}

#[tokio::test]
async fn a_certificate_buys_the_next() {
    let w = world();
    let (id, secret) = w.token(600).await;
    let first = KeyPair::generate().unwrap();
    let old = identity(&w.join(None, &format!("{id}.{secret}"), "h1", &first).await);
    w.ask_as(&old, "POST /api/v1/nodes", json!({"metadata": {"name": "h1"}})).await;
    let second = KeyPair::generate().unwrap();
    let new = identity(&w.join(Some(&old), "", "h1", &second).await);
    assert!(new.key != old.key);
    // Until the new one is used for the next renewal, both are good: the answer could have been lost.
    for who in [&old, &new] {
        assert_eq!(w.ask_as(who, "GET /api/v1/nodes/h1", Value::Null).await.code, 200);
    }
    let third = identity(&w.join(Some(&new), "", "h1", &KeyPair::generate().unwrap()).await);
    assert_eq!(w.ask_as(&old, "GET /api/v1/nodes/h1", Value::Null).await.code, 401);
    assert_eq!(w.ask_as(&third, "GET /api/v1/nodes/h1", Value::Null).await.code, 200);
    // It does not buy another name.
    assert_eq!(w.join(Some(&third), "", "h2", &second).await.code, 403);
    // An end is an end.
    w.pass(91 * 24 * 3600);
    assert_eq!(w.join(Some(&third), "", "h1", &second).await.code, 401);
}

#[tokio::test]
async fn tokens_refused() {
    let w = world();
    let (id, secret) = w.token(600).await;
    let (ended, ended_secret) = w.token(-1).await;
    let mut endless = token_secret("endles", "s", *w.clock.lock());
    endless["data"].as_object_mut().unwrap().remove("expiration");
    w.must("POST /api/v1/namespaces/kube-system/secrets", endless).await;
    let mut empty = token_secret("empty1", "", *w.clock.lock() + SignedDuration::from_secs(600));
    empty["type"] = "bootstrap.kubernetes.io/token".into();
    w.ask("POST /api/v1/namespaces/kube-system/secrets", empty).await;
    let mut other = token_secret("other1", "s", *w.clock.lock() + SignedDuration::from_secs(600));
    other["type"] = "Opaque".into();
    w.ask("POST /api/v1/namespaces/kube-system/secrets", other).await;
    let mut unmeant = token_secret("signer", "s", *w.clock.lock() + SignedDuration::from_secs(600));
    unmeant["data"].as_object_mut().unwrap().remove("usage-bootstrap-authentication");
    w.ask("POST /api/v1/namespaces/kube-system/secrets", unmeant).await;
    let key = KeyPair::generate().unwrap();
    for token in [
        "".to_owned(),
        format!("{id}."),
        format!("{id}.{}", &secret[..secret.len() - 1]),
        format!("{id}.{secret}x"),
        format!("{id}{secret}"),
        format!("zzzzzz.{secret}"),
        format!("{ended}.{ended_secret}"),
        "endles.s".to_owned(),
        "empty1.".to_owned(),
        "other1.s".to_owned(),
        "signer.s".to_owned(),
        format!("../{id}.{secret}"),
    ] {
        let answer = w.join(None, &token, "h1", &key).await;
        assert_eq!((answer.code, answer.value["message"].as_str()), (401, Some("Unauthorized")), "{token:?}");
    }
    // Replayed after its end, and after it was taken back.
    let token = format!("{id}.{secret}");
    assert_eq!(w.join(None, &token, "h1", &key).await.code, 200);
    w.must(&format!("DELETE /api/v1/namespaces/kube-system/secrets/bootstrap-token-{id}"), json!({})).await;
    assert_eq!(w.join(None, &token, "h2", &key).await.code, 401);
    let (id, secret) = w.token(600).await;
    w.pass(601);
    assert_eq!(w.join(None, &format!("{id}.{secret}"), "h2", &key).await.code, 401);
}

#[tokio::test]
async fn requests_refused() {
    let w = world();
    let (id, secret) = w.token(600).await;
    let token = format!("Bearer {id}.{secret}");
    let key = KeyPair::generate().unwrap();
    let long = "a".repeat(201);
    for (body, code) in [
        (json!({"node": "h1", "csr": request(&key)}).to_string(), 200),
        (json!({"node": "H1", "csr": request(&key)}).to_string(), 422),
        (json!({"node": "../admin", "csr": request(&key)}).to_string(), 422),
        (json!({"node": "", "csr": request(&key)}).to_string(), 422),
        (json!({"node": long, "csr": request(&key)}).to_string(), 422),
        (json!({"node": "h2", "csr": "nonsense"}).to_string(), 400),
        (json!({"node": "h2"}).to_string(), 400),
        ("{".to_owned(), 400),
        (" ".repeat(40_000), 400),
    ] {
        let answer = w.send(None, JOIN, &[("authorization", token.as_str())], body.clone()).await;
        assert_eq!(answer.code, code, "{body:.80}: {}", answer.show());
    }
    assert_eq!(w.send(None, "GET /apis/portolan.dev/v1alpha1/join", &[("authorization", token.as_str())], "").await.code, 405);
    // A token is for joining, and for nothing else.
    assert_eq!(w.send(None, "GET /api/v1/nodes", &[("authorization", token.as_str())], "").await.code, 401);
}
