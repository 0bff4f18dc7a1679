//! Tests of the store: its rules as tables, a plain model beside it, crashes, damage, and many hands at once.

mod damage;
mod hands;
mod kill;
mod model;
mod rules;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use serde_json::json;

use super::*;
use crate::object::{Draft, Packer, kind_of};

/// A config map with one value.
fn map(name: &str, value: u64) -> Draft {
    let value =
        json!({"metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}")}, "data": {"v": value.to_string()}});
    Draft::new(kind_of::<ConfigMap>(), value)
}

/// A pod, perhaps on a node, perhaps with an owner.
fn pod(namespace: &str, name: &str, node: &str, owner: &str) -> Draft {
    let mut value = json!({"metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{namespace}-{name}")}, "spec": {"containers": []}});
    if !node.is_empty() {
        value["spec"]["nodeName"] = node.into();
    }
    if !owner.is_empty() {
        value["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": true}]);
    }
    Draft::new(kind_of::<Pod>(), value)
}

/// A lease: lazy.
fn lease(name: &str, turn: u64) -> Draft {
    let value = json!({"metadata": {"namespace": "kube-node-lease", "name": name}, "spec": {"leaseTransitions": turn}});
    Draft::new(kind_of::<Lease>(), value)
}

fn map_key(name: &str) -> Key {
    Key::of::<ConfigMap>("shop", name)
}

fn pod_key(namespace: &str, name: &str) -> Key {
    Key::of::<Pod>(namespace, name)
}

/// The value of a config map.
fn value(object: &Object) -> u64 {
    object.value()["data"]["v"].as_str().and_then(|v| v.parse().ok()).expect("a test's config map")
}

/// A transaction from a closure.
fn txn(fill: impl for<'a> FnOnce(&'a mut Txn) -> &'a mut Txn) -> Txn {
    let mut txn = Txn::new();
    fill(&mut txn);
    txn
}

/// Everything in a state, as text.
fn dump(view: &View) -> Vec<String> {
    view.all().map(|o| format!("{o:?} {}", String::from_utf8_lossy(&o.json()))).collect()
}

/// Waits without an async runtime around.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}
