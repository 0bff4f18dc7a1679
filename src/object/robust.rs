//! Whatever a client or a file says, nothing here panics: documents with something wrong in any place go through every door.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::admit::{self, Coerce, Stamp};
use super::patch::{self, apply, managed};
use super::{KINDS, Kind, Object};

fn documents() -> Vec<(&'static str, Value)> {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {
        "containers": [{"name": "a", "image": "a:1", "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "ports": [{"containerPort": 80, "hostPort": 80}], "resources": {"limits": {"cpu": "1"}}, "livenessProbe": {"httpGet": {"port": 80}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}}],
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "h", "labelSelector": {"matchLabels": {"a": "b"}}}]}},
    }});
    let meta = json!({"name": "web", "namespace": "shop", "labels": {"a": "b"}, "finalizers": ["a/b"], "annotations": {"x": "y"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}],
        "managedFields": [{"manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]});
    let with = |rest: Value| {
        let mut value = rest;
        value["metadata"] = meta.clone();
        value
    };
    vec![
        (
            "Deployment",
            with(json!({"spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template,
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}, "status": {"replicas": 1, "conditions": [{"type": "A", "status": "True"}]}})),
        ),
        ("Pod", with(json!({"spec": template["spec"], "status": {"phase": "Running"}}))),
        ("Secret", with(json!({"type": "Opaque", "data": {"a": "eA=="}, "stringData": {"b": "c"}}))),
        ("ConfigMap", with(json!({"data": {"a": "b"}, "binaryData": {"c": "eA=="}, "immutable": true}))),
        ("Node", with(json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}, "status": {"capacity": {"cpu": "1"}}}))),
        ("Namespace", with(json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}))),
        (
            "Application",
            with(
                json!({"spec": {"source": {"repository": "/r"}, "policy": {"prune": true}, "dependsOn": ["a"], "pin": {"release": "r"}}}),
            ),
        ),
        ("Event", with(json!({"involvedObject": {"kind": "Pod", "namespace": "shop"}, "count": 1}))),
    ]
}

fn junk() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[null]])),
        Just(json!({"$patch": "delete"})),
        Just(json!([{"$patch": "replace"}, 5, {"name": "a"}])),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ]
}

/// Puts something else in one place of a document.
fn spoil(value: &mut Value, route: &[usize], junk: &Value) {
    let children = match value {
        Value::Object(fields) => fields.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    match route.split_first() {
        Some((step, rest)) if children > 0 => {
            let place = step % children;
            let child = match value {
                Value::Object(fields) => fields.values_mut().nth(place),
                Value::Array(items) => items.get_mut(place),
                _ => None,
            };
            spoil(child.expect("there is such a child"), rest, junk);
        }
        _ => *value = junk.clone(),
    }
}

fn everything(kind: &'static Kind, whole: &Value, spoilt: &Value) {
    let now = jiff::Timestamp::UNIX_EPOCH;
    let stamp = Stamp { uid: "u".to_owned(), now };
    for mode in [Coerce::Json, Coerce::Yaml, Coerce::YamlPlain(&|_| true)] {
        admit::shape(kind, &mut spoilt.clone(), mode);
    }
    let mut prepared = spoilt.clone();
    admit::prepare(kind, &mut prepared);
    let once = prepared.clone();
    admit::prepare(kind, &mut prepared);
    assert_eq!(once, prepared);
    let _ = admit::create(kind, spoilt.clone(), &stamp).map(|draft| draft.seal(1));
    let old: Object = admit::create(kind, whole.clone(), &stamp).unwrap_or_else(|e| panic!("{e}")).seal(1);
    admit::problems(kind, spoilt, Some(&old));
    for subresource in [None, Some("status"), Some("binding"), Some("finalize"), Some("scale")] {
        if let Ok(Some(draft)) = admit::update(&old, spoilt.clone(), subresource, now) {
            admit::gone(&draft);
            let _ = admit::delete(&draft.seal(2), &admit::DeleteOptions::default(), now);
        }
    }
    let live = old.value();
    let _ = patch::strategic(kind, &live, spoilt);
    let _ = patch::strategic(kind, spoilt, whole);
    let _ = patch::merge_patch(&live, spoilt);
    let _ = patch::json_patch(&live, spoilt);
    patch::three_way(kind, Some(spoilt), whole, &live);
    patch::three_way(kind, Some(whole), spoilt, &live);
    patch::three_way(kind, Some(whole), whole, spoilt);
    let _ = apply::apply(kind, Some(&live), spoilt, "m", false, now);
    let _ = apply::apply(kind, Some(spoilt), whole, "m", true, now);
    managed::track(kind, Some(&live), &mut spoilt.clone(), "m", managed::Operation::Update, None, now);
    managed::track(kind, Some(spoilt), &mut live.clone(), "m", managed::Operation::Update, Some("status"), now);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn nothing_panics(which in 0..8usize, route in proptest::collection::vec(0..20usize, 0..9), junk in junk()) {
        let (name, mut whole) = documents().swap_remove(which);
        let kind = KINDS.iter().find(|k| k.kind == name).unwrap();
        if !kind.namespaced {
            whole["metadata"].as_object_mut().unwrap().remove("namespace");
        }
        let mut spoilt = whole.clone();
        spoil(&mut spoilt, &route, &junk);
        everything(kind, &whole, &spoilt);
    }
}
