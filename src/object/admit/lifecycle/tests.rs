//! Tables of lives.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::object::KINDS;

fn kind(name: &str) -> &'static Kind {
    KINDS.iter().find(|k| k.kind == name).unwrap()
}

fn now() -> Timestamp {
    "2026-11-21T10:00:00.7Z".parse().unwrap()
}

fn stamp() -> Stamp {
    Stamp { uid: "uid-1".to_owned(), now: now() }
}

fn created(name: &str, value: Value) -> Object {
    create(kind(name), value, &stamp()).unwrap_or_else(|e| panic!("{e}")).seal(5)
}

fn deployment() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "mine", "generation": 9, "resourceVersion": "1", "deletionTimestamp": "2020-01-01T00:00:00Z"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}},
        },
        "status": {"replicas": 4},
    })
}

fn pod() -> Value {
    json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}})
}

fn bound() -> Object {
    let pod = created("Pod", pod());
    update(&pod, json!({"spec": {"nodeName": "h1"}}), Some("binding"), now()).unwrap().unwrap().seal(6)
}

fn marked(deletion: Deletion) -> Draft {
    match deletion {
        Deletion::Mark(draft) => draft,
        other => panic!("{other:?}"),
    }
}

#[test]
fn creation_stamps_and_drops() {
    let object = created("Deployment", deployment());
    let value = object.value();
    assert_eq!(
        value["metadata"],
        json!({"name": "web", "namespace": "shop", "uid": "uid-1", "generation": 1, "resourceVersion": "5", "creationTimestamp": "2026-11-21T10:00:00Z"})
    );
    assert!(value.get("status").is_none());
    assert_eq!(value["spec"]["replicas"], 1);
    assert_eq!(created("Pod", pod()).value()["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    let namespace = created("Namespace", json!({"metadata": {"name": "shop"}})).value();
    assert_eq!((&namespace["status"], &namespace["spec"]), (&json!({"phase": "Active"}), &json!({"finalizers": ["kubernetes"]})));
    assert!(namespace["metadata"].get("generation").is_none());
    let node = created("Node", json!({"metadata": {"name": "h1"}, "status": {"capacity": {"cpu": "2000m"}}})).value();
    assert_eq!(node["status"], json!({"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}));
    let generated = created("Pod", {
        let mut pod = pod();
        pod["metadata"] = json!({"generateName": "web-", "namespace": "shop"});
        pod
    });
    assert!(generated.key.name.starts_with("web-") && generated.key.name.len() == 9, "{}", generated.key);
}

#[test]
fn refusals_read_as_in_kubernetes() {
    let refused =
        create(kind("Deployment"), json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {}}), &stamp()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Deployment.apps \"web\" is invalid: [spec.selector: Required value, spec.template: Required value]"
    );
    let refused = create(kind("Pod"), json!({"metadata": {"name": "p", "namespace": "shop"}}), &stamp()).unwrap_err();
    assert_eq!(refused.to_string(), "Pod \"p\" is invalid: spec.containers: Required value");
}

#[test]
fn ap1_generation_counts_changes_of_the_spec_only() {
    let object = created("Deployment", deployment());
    let unchanged = |value: Value, part: Option<&str>| update(&object, value, part, now()).unwrap();
    assert!(unchanged(object.value(), None).is_none(), "the same again");
    assert!(unchanged(deployment_without_server_fields(), None).is_none(), "defaults are no change");
    let mut value = object.value();
    value["status"] = json!({"replicas": 9});
    assert!(unchanged(value.clone(), None).is_none(), "a status is not written this way");
    value["spec"]["replicas"] = 7.into();
    value["metadata"]["labels"] = json!({"a": "b"});
    let status = unchanged(value.clone(), Some("status")).unwrap();
    assert_eq!(status.value()["status"], json!({"replicas": 9}));
    assert_eq!((status.value()["spec"]["replicas"].clone(), status.meta.generation, status.meta.labels.len()), (1.into(), 1, 0));
    let spec = unchanged(value, None).unwrap();
    assert_eq!((spec.value()["spec"]["replicas"].clone(), spec.meta.generation, spec.meta.labels.len()), (7.into(), 2, 1));
    assert!(spec.value().get("status").is_none());
    let mut labelled = object.value();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(unchanged(labelled, None).unwrap().meta.generation, 1);
}

fn deployment_without_server_fields() -> Value {
    let mut value = deployment();
    value["metadata"] = json!({"name": "web", "namespace": "shop"});
    value
}

#[test]
fn identity_does_not_change() {
    let object = created("Deployment", deployment());
    let mut value = object.value();
    value["metadata"]["uid"] = "other".into();
    value["metadata"]["name"] = "new".into();
    let refused = update(&object, value, None, now()).unwrap_err();
    let fields: Vec<&str> = refused.causes.iter().map(|c| c.field.as_str()).collect();
    assert_eq!(fields, ["metadata.name", "metadata.uid"]);
}

#[test]
fn sc1_a_pod_is_bound_once() {
    let pod = bound();
    assert_eq!(pod.meta.fields.get(0), Some("h1"));
    let again = update(&pod, json!({"spec": {"nodeName": "h2"}}), Some("binding"), now()).unwrap_err();
    assert_eq!(again.to_string(), "Pod \"p\" is invalid: spec.nodeName: Forbidden: pod is already assigned to node \"h1\"");
    assert!(update(&pod, json!({"spec": {"nodeName": "h1"}}), Some("binding"), now()).unwrap().is_none());
}

#[test]
fn ap2_a_pod_that_runs_goes_after_its_grace() {
    let pod = bound();
    let first = marked(delete(&pod, &DeleteOptions::default(), now()).unwrap());
    let meta = &first.value()["metadata"];
    assert_eq!((&meta["deletionTimestamp"], &meta["deletionGracePeriodSeconds"]), (&json!("2026-11-21T10:00:30Z"), &json!(30)));
    assert!(!gone(&first) && first.meta.generation == pod.meta.generation + 1);
    let first = first.seal(7);
    // AP3: never later, never undone, only shorter.
    let later = DeleteOptions { grace_seconds: Some(60), ..Default::default() };
    assert!(matches!(delete(&first, &later, now()), Ok(Deletion::Unchanged)));
    assert!(matches!(delete(&first, &DeleteOptions::default(), now()), Ok(Deletion::Unchanged)));
    let sooner = DeleteOptions { grace_seconds: Some(5), ..Default::default() };
    let shorter = marked(delete(&first, &sooner, now()).unwrap());
    assert_eq!(shorter.value()["metadata"]["deletionTimestamp"], "2026-11-21T10:00:05Z");
    let mut undone = first.value();
    undone["metadata"].as_object_mut().unwrap().remove("deletionTimestamp");
    undone["metadata"]["finalizers"] = json!(["a/b"]);
    let refused = update(&first, undone, None, now()).unwrap_err();
    assert_eq!(refused.causes[0].field, "metadata.finalizers");
    let confirmed = DeleteOptions { grace_seconds: Some(0), uid: Some("uid-1".to_owned()), ..Default::default() };
    assert!(matches!(delete(&first, &confirmed, now()), Ok(Deletion::Remove)));
    let other = DeleteOptions { uid: Some("x".to_owned()), ..Default::default() };
    assert!(matches!(delete(&first, &other, now()), Err(NotDeleted::Uid { .. })));
    let unbound = created("Pod", self::pod());
    assert!(matches!(delete(&unbound, &DeleteOptions::default(), now()), Ok(Deletion::Remove)));
}

#[test]
fn ap2_finalizers_hold_an_object() {
    let mut value = deployment();
    value["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let object = created("Deployment", value);
    let held = marked(delete(&object, &DeleteOptions::default(), now()).unwrap());
    assert_eq!(held.value()["metadata"]["deletionGracePeriodSeconds"], 0);
    assert!(!gone(&held));
    let held = held.seal(6);
    assert!(matches!(delete(&held, &DeleteOptions::default(), now()), Ok(Deletion::Unchanged)));
    let mut released = held.value();
    released["metadata"]["finalizers"] = json!([]);
    let last = update(&held, released, None, now()).unwrap().unwrap();
    assert!(gone(&last));
    assert!(matches!(delete(&last.seal(7), &DeleteOptions::default(), now()), Ok(Deletion::Remove)));
}

#[test]
fn propagation_is_a_finalizer() {
    let object = created("Deployment", deployment());
    let with = |propagation| DeleteOptions { propagation: Some(propagation), ..Default::default() };
    let foreground = marked(delete(&object, &with(Propagation::Foreground), now()).unwrap());
    assert_eq!(foreground.meta.finalizers, ["foregroundDeletion"]);
    let orphan = marked(delete(&foreground.seal(6), &with(Propagation::Orphan), now()).unwrap());
    assert_eq!(orphan.meta.finalizers, ["orphan"]);
    assert!(matches!(delete(&orphan.seal(7), &with(Propagation::Background), now()), Ok(Deletion::Remove)));
    assert!(matches!(delete(&object, &with(Propagation::Background), now()), Ok(Deletion::Remove)));
}

#[test]
fn a_namespace_waits_until_it_is_empty() {
    let object = created("Namespace", json!({"metadata": {"name": "shop"}}));
    let terminating = marked(delete(&object, &DeleteOptions::default(), now()).unwrap());
    assert_eq!(terminating.value()["status"]["phase"], "Terminating");
    assert!(!gone(&terminating));
    let terminating = terminating.seal(6);
    assert!(matches!(delete(&terminating, &DeleteOptions::default(), now()), Ok(Deletion::Unchanged)));
    let mut value = terminating.value();
    value["spec"]["finalizers"] = json!([]);
    assert!(update(&terminating, value.clone(), None, now()).unwrap().is_none(), "only through finalize");
    let empty = update(&terminating, value, Some("finalize"), now()).unwrap().unwrap();
    assert!(gone(&empty));
}

#[test]
fn ag5_a_status_does_not_come_back_from_its_end() {
    let pod = bound();
    let with = |status: Value| json!({"status": status});
    let ended = update(&pod, with(json!({"phase": "Failed"})), Some("status"), now()).unwrap().unwrap().seal(7);
    assert!(update(&ended, with(json!({"phase": "Running"})), Some("status"), now()).is_err());
}

/// A loop that decodes, changes nothing and writes back has changed nothing.
#[test]
fn typed_objects_come_back_the_same() {
    fn check<K: k8s_openapi::Resource + serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static>(value: Value) {
        let object = created(K::KIND, value);
        let typed = object.typed::<K>().unwrap();
        let again = update(&object, serde_json::to_value(&*typed).unwrap(), None, now()).unwrap_or_else(|e| panic!("{e}"));
        assert!(again.is_none(), "{} {:#} {:#}", K::KIND, object.value(), again.unwrap().value());
    }
    use k8s_openapi::api::{
        apps::v1::Deployment,
        core::v1::{Namespace, Node, Pod, Secret},
    };
    check::<Deployment>(deployment());
    check::<Pod>(pod());
    check::<Namespace>(json!({"metadata": {"name": "shop"}}));
    check::<Node>(
        json!({"metadata": {"name": "h"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}, "status": {"capacity": {"cpu": "1"}}}),
    );
    check::<Secret>(json!({"metadata": {"name": "s", "namespace": "shop"}, "stringData": {"a": "b"}}));
    let spec = json!({"source": {"repository": "/r"}, "suspend": false, "dependsOn": []});
    check::<crate::object::ours::Application>(json!({"metadata": {"name": "a", "namespace": "shop"}, "spec": spec}));
}

/// Not a benchmark, only a fence: far above what it takes even in a debug build, far below what would hurt.
#[test]
fn admission_of_a_pod_is_quick() {
    let mut value = pod();
    value["spec"]["containers"] = (0..5)
        .map(|i| json!({"name": format!("c{i}"), "image": "a:1", "env": (0..20).map(|e| json!({"name": format!("E{e}"), "value": "x"})).collect::<Vec<_>>(), "livenessProbe": {"httpGet": {"port": 80}}}))
        .collect::<Vec<_>>()
        .into();
    value["apiVersion"] = "v1".into();
    value["kind"] = "Pod".into();
    let row = kind("Pod");
    let mut work = value.clone();
    assert!(crate::object::admit::shape(row, &mut work, crate::object::admit::Coerce::Json).is_empty());
    #[allow(clippy::disallowed_methods)] // a test may look at the clock
    let start = std::time::Instant::now();
    for _ in 0..50 {
        let mut value = value.clone();
        crate::object::admit::shape(row, &mut value, crate::object::admit::Coerce::Json);
        create(row, value, &stamp()).unwrap();
    }
    let each = start.elapsed() / 50;
    assert!(each < std::time::Duration::from_millis(50), "{each:?}");
}
