//! How a host becomes a node: a short-lived token buys one client certificate, and a certificate buys the next one.
//!
//! For each node a Secret remembers the keys that its certificates may have. So two hosts cannot be one node: when a name was given anew,
//! the certificate of whoever had it before is worth nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Response, header, request};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::auth::{Identity, NODE_PREFIX, NODES};
use super::authn::Peer;
use super::failure::{Failure, json_response};
use super::{Api, new_uid};
use crate::object::admit::{self, Stamp, names};
use crate::object::{Key, Object, Revision, kind_of};
use crate::store::Txn;

/// Where tokens and the keys of nodes are kept.
pub const NAMESPACE: &str = "kube-system";
/// A certificate request is about a kilobyte; a stranger gets no more room than this.
const REQUEST_MAX: usize = 32 * 1024;
/// The longest name of a node: with our prefix it still has to be a Secret's name.
const NAME_MAX: usize = 200;

/// The Secret that makes a join token valid until `expires`.
pub fn token_secret(id: &str, secret: &str, expires: Timestamp) -> Value {
    let text = |s: &str| STANDARD.encode(s);
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": NAMESPACE},
        "data": {
            "token-id": text(id), "token-secret": text(secret), "expiration": text(&expires.to_string()),
            "usage-bootstrap-authentication": text("true"), "usage-bootstrap-signing": text("true"),
        },
    })
}

/// A new token's id (6 characters) and secret (32 characters, 160 bits).
pub fn new_token() -> (String, String) {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut bytes = [0u8; 38];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    let text: String = bytes.iter().map(|b| char::from(ALPHABET[usize::from(b % 32)])).collect();
    (text[..6].to_owned(), text[6..].to_owned())
}

/// Compares without telling by its time how much was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

fn identity_key(node: &str) -> Key {
    Key::of::<core::Secret>(NAMESPACE, &format!("node-identity-{node}"))
}

impl Api {
    /// `POST /apis/portolan.dev/v1alpha1/join`
    pub(super) async fn join(
        &self,
        identity: Option<Identity>,
        parts: &request::Parts,
        body: Body,
    ) -> Result<Response<Body>, Failure> {
        let authority = self.authority().ok_or_else(|| Failure::unavailable("this server signs no certificates"))?;
        let renewing = identity.filter(|i| i.host().is_some());
        if renewing.is_none() && !self.token_holds(&parts.headers) {
            self.inner.memory.failed(parts.extensions.get::<Peer>().map(|peer| peer.0), self.now());
            return Err(Failure::unauthorized());
        }
        let read = tokio::time::timeout(std::time::Duration::from_secs(10), Limited::new(body, REQUEST_MAX).collect());
        let bytes = match read.await {
            Ok(Ok(body)) => body.to_bytes(),
            _ => return Err(Failure::bad_request("the body must be a join request of at most 32 KiB")),
        };
        let request: Value =
            serde_json::from_slice(&bytes).map_err(|e| Failure::bad_request(format!("the body must be JSON: {e}")))?;
        let (Some(node), Some(csr)) = (request["node"].as_str(), request["csr"].as_str()) else {
            return Err(Failure::bad_request("a join request has the fields `node` and `csr`"));
        };
        if let Some(why) = names::subdomain(node).into_iter().next() {
            return Err(Failure::unprocessable(format!("node: Invalid value: {node:?}: {why}")));
        }
        if node.len() > NAME_MAX {
            return Err(Failure::unprocessable(format!("node: Too long: may not be more than {NAME_MAX} bytes")));
        }
        let nodes = kind_of::<core::Node>();
        // Who renews proves to be that node, and gets no other name.
        if renewing.as_ref().is_some_and(|i| i.host() != Some(node)) {
            return Err(Failure::forbidden(nodes, node, "a node may renew only its own certificate"));
        }
        let (certificate, key) = authority
            .sign(csr, &format!("{NODE_PREFIX}{node}"), &[NODES])
            .map_err(|e| Failure::bad_request(format!("csr: {e:#}")))?;
        for _ in 0..5 {
            let view = self.store().view();
            let known = view.get(&identity_key(node));
            let keys = known.and_then(|o| o.typed::<core::Secret>().ok()).map(|s| keys_of(&s)).unwrap_or_default();
            let there = view.get(&Key::new(nodes, "", node));
            // The same key again is the same host again, whose first answer was lost.
            if there.is_some() && renewing.is_none() && keys.first() != Some(&key) {
                let mut failure = Failure::already_exists(nodes, node);
                failure.message.push_str(": a host of this name has joined before; delete the node first if it is gone for good");
                return Err(failure);
            }
            let mut txn = Txn::new();
            // Between the look and the write nobody may have become this node.
            txn.expect(Key::new(nodes, "", node), there.map(|o| o.revision));
            // What it showed stays good, in case the answer is lost.
            let previous = renewing.as_ref().and_then(|i| i.key.clone());
            self.write_key(&mut txn, known, node, &key, previous)?;
            if let Ok(committed) = self.commit(kind_of::<core::Secret>(), txn).await? {
                tracing::info!(node, revision = committed.revision, renewed = renewing.is_some(), "signed a certificate");
                return Ok(json_response(200, &json!({"certificate": certificate})));
            }
        }
        Err(Failure::modified(nodes, node))
    }

    /// Writes down which key a node's certificates have from now on, and which one before stays good.
    fn write_key(
        &self,
        txn: &mut Txn,
        known: Option<&Arc<Object>>,
        node: &str,
        key: &str,
        previous: Option<String>,
    ) -> Result<(), Failure> {
        let mut data = json!({"key": STANDARD.encode(key)});
        if let Some(previous) = previous.filter(|previous| previous != key) {
            data["previous"] = STANDARD.encode(previous).into();
        }
        let now = self.now();
        match known {
            Some(old) => {
                let mut value = old.value();
                value["data"] = data;
                if let Some(draft) = admit::update(old, value, None, now).map_err(|r| Failure::invalid(&r))? {
                    txn.update(draft, old.revision);
                }
            }
            None => {
                let secret = identity_key(node);
                let value = json!({
                    "apiVersion": "v1", "kind": "Secret", "type": "portolan.dev/node-identity", "data": data,
                    "metadata": {"name": &*secret.name, "namespace": NAMESPACE},
                });
                let stamp = Stamp { uid: new_uid(), now };
                txn.create(admit::create(secret.kind, value, &stamp).map_err(|r| Failure::invalid(&r))?);
            }
        }
        Ok(())
    }

    /// Whether a node has joined under this name, or is there.
    pub(super) fn node_is_taken(&self, node: &str) -> bool {
        let view = self.store().view();
        view.get(&identity_key(node)).is_some() || view.get(&Key::of::<core::Node>("", node)).is_some()
    }

    /// Takes on the key of a certificate that was signed for an agent on request. The one before stays good.
    pub(super) async fn adopt_key(&self, node: &str, key: &str) -> Result<(), Failure> {
        for _ in 0..5 {
            let known = self.store().get(&identity_key(node));
            let before = known.as_ref().and_then(|o| o.typed::<core::Secret>().ok()).and_then(|s| keys_of(&s).first().cloned());
            let mut txn = Txn::new();
            self.write_key(&mut txn, known.as_ref(), node, key, before)?;
            if txn.is_empty() || self.commit(kind_of::<core::Secret>(), txn).await?.is_ok() {
                return Ok(());
            }
        }
        Err(Failure::modified(kind_of::<core::Node>(), node))
    }

    /// Whether the request carries a token that is valid now. An unknown id and a wrong secret are told apart by nothing.
    fn token_holds(&self, headers: &HeaderMap) -> bool {
        let token = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
        let Some((id, given)) = token.and_then(|t| t.trim().split_once('.')) else { return false };
        let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if id.len() != 6 || !plain(id) {
            return false;
        }
        let secret = self.store().get(&Key::of::<core::Secret>(NAMESPACE, &format!("bootstrap-token-{id}")));
        let secret = secret.filter(|s| !s.meta.deleting()).and_then(|s| s.typed::<core::Secret>().ok());
        let field = |name: &str| -> &[u8] {
            secret.as_ref().and_then(|s| s.data.as_ref()?.get(name)).map_or(&[], |bytes| bytes.0.as_slice())
        };
        let (wanted, ends) = (field("token-secret"), std::str::from_utf8(field("expiration")).unwrap_or(""));
        // A token that never ends, or that has no secret, is no token.
        let in_time = ends.parse::<Timestamp>().is_ok_and(|end| self.now() < end);
        let typed = secret.as_ref().is_some_and(|s| s.type_.as_deref() == Some("bootstrap.kubernetes.io/token"));
        let meant = field("token-id") == id.as_bytes() && field("usage-bootstrap-authentication") == b"true";
        same(given.as_bytes(), wanted) & !wanted.is_empty() & in_time & typed & meant
    }

    /// Whether a node's certificate has one of the keys that its name has now.
    pub(super) fn key_stands(&self, node: &str, key: &str) -> bool {
        let object = self.store().get(&identity_key(node));
        let mut known = self.inner.node_keys.0.lock();
        let Some(object) = object else {
            known.remove(node);
            return false;
        };
        if let Some((revision, keys)) = known.get(node)
            && *revision == object.revision
        {
            return keys.iter().any(|k| k == key);
        }
        let keys = object.typed::<core::Secret>().map(|secret| keys_of(&secret)).unwrap_or_default();
        let stands = keys.iter().any(|k| k == key);
        known.insert(node.to_owned(), (object.revision, keys));
        stands
    }
}

/// The keys of nodes as they were read last, and from which version: each request of an agent asks, and each look at its watch.
#[derive(Default)]
pub(super) struct NodeKeys(Mutex<BTreeMap<String, (Revision, Vec<String>)>>);

/// The keys that a node's certificates may have, the newest first.
fn keys_of(secret: &core::Secret) -> Vec<String> {
    ["key", "previous"]
        .iter()
        .filter_map(|name| String::from_utf8(secret.data.as_ref()?.get(*name)?.0.clone()).ok())
        .filter(|key| !key.is_empty())
        .collect()
}
