//! The API over a store in memory: requests in, answers out.

mod access;
mod accounts;
mod attack_e;
mod attack_f;
mod attack_i;
mod attack_j;
mod auditing;
mod certificates;
mod defining;
mod ephemeral;
mod hostile;
mod hostile_streams;
mod joining;
mod kinds;
mod panics;
mod parts;
mod proxying;
mod rights;
mod sessions;
mod truth;
mod tunnelling;
mod verbs;
mod watching;

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::authority::Authority;
use super::{Api, Identity, new_uid};
use crate::object::admit::{self, Stamp};
use crate::object::kind_of;
use crate::store::{Store, Txn};

/// A store with the namespaces `default`, `shop`, `kube-system` and `kube-node-lease`, an API over it, and a clock that a test moves.
struct World {
    api: Api,
    store: Store,
    authority: Arc<Authority>,
    clock: Arc<Mutex<Timestamp>>,
    stop: CancellationToken,
}

fn world() -> World {
    let clock = Arc::new(Mutex::new("2026-11-21T10:00:00Z".parse::<Timestamp>().unwrap()));
    let ticking = clock.clone();
    let now: super::Clock = Arc::new(move || *ticking.lock());
    let store = Store::memory();
    for name in ["default", "shop", "kube-system", "kube-node-lease"] {
        let stamp = Stamp { uid: new_uid(), now: now() };
        let mut txn = Txn::new();
        txn.create(admit::create(kind_of::<core::Namespace>(), json!({"metadata": {"name": name}}), &stamp).unwrap());
        store.commit(txn).unwrap();
    }
    super::auth::defaults::reconcile(&store, now()).unwrap();
    let authority = Arc::new(Authority::in_memory(now.clone()).unwrap());
    let stop = CancellationToken::new();
    let api = Api::with_authority(store.clone(), now, Some(authority.clone()), stop.clone());
    World { api, store, authority, clock, stop }
}

/// An answer.
#[derive(Debug)]
struct Answer {
    code: u16,
    value: Value,
    headers: http::HeaderMap,
}

impl Answer {
    /// `200`, or `404 NotFound: pods "x" not found`.
    fn show(&self) -> String {
        match self.value["status"].as_str() {
            Some("Failure") => {
                format!("{} {}: {}", self.code, self.value["reason"].as_str().unwrap(), self.value["message"].as_str().unwrap())
            }
            _ => self.code.to_string(),
        }
    }
    fn revision(&self) -> String {
        self.value["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
    }
    fn names(&self) -> Vec<String> {
        let items = self.value["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }
}

impl World {
    /// Sends `METHOD path` with headers and a body.
    async fn send(&self, who: Option<&Identity>, line: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body.into()).unwrap();
        if let Some(who) = who {
            request.extensions_mut().insert(who.clone());
        }
        let response = self.api.handle(request).await;
        let (code, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let value = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
        Answer { code, value, headers }
    }
    /// The administrator sends JSON.
    async fn ask(&self, line: &str, body: Value) -> Answer {
        self.ask_as(&Identity::admin(), line, body).await
    }
    /// Somebody sends JSON; a PATCH is a merge patch.
    async fn ask_as(&self, who: &Identity, line: &str, body: Value) -> Answer {
        let sort = if line.starts_with("PATCH") { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(Some(who), line, &[("content-type", sort)], body).await
    }
    async fn must(&self, line: &str, body: Value) -> Value {
        let answer = self.ask(line, body).await;
        assert!(answer.code < 300, "{line}: {}", answer.show());
        answer.value
    }
    fn pass(&self, seconds: i64) {
        *self.clock.lock() += SignedDuration::from_secs(seconds);
    }
    /// A pod in `shop`, bound to a host.
    async fn pod_on(&self, name: &str, host: &str, spec: Value) -> Value {
        let mut pod =
            json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        for (field, value) in spec.as_object().into_iter().flatten() {
            pod["spec"][field] = value.clone();
        }
        self.must("POST /api/v1/namespaces/shop/pods", pod).await;
        let binding = json!({"target": {"kind": "Node", "name": host}});
        self.must(&format!("POST /api/v1/namespaces/shop/pods/{name}/binding"), binding).await;
        self.must(&format!("GET /api/v1/namespaces/shop/pods/{name}"), Value::Null).await
    }
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
        },
    })
}
