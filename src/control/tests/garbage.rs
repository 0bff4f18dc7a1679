//! What goes when its owner goes.

use base64::Engine as _;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::json;

use super::{World, key};
use crate::control::Options;
use crate::object::Key;
use crate::object::admit::{DeleteOptions, Propagation};

fn world() -> World {
    let mut world = World::new(&Options::default());
    world.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}));
    world.node("a", "4");
    world.deployment("web", 3, "web:1", json!({}));
    world.settle();
    world
}

fn by(propagation: Propagation) -> DeleteOptions {
    DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() }
}

#[test]
fn ap4_dependents_follow_their_owner() {
    let mut world = world();
    world.delete(&key::<Deployment>("web"), &by(Propagation::Background));
    assert!(world.list::<Deployment>().is_empty());
    world.settle();
    assert!(world.list::<ReplicaSet>().is_empty() && world.list::<Pod>().is_empty(), "{}", world.show());
}

#[test]
fn ap4_an_owner_in_the_foreground_leaves_after_its_dependents() {
    let mut world = world();
    world.silent.push("a".into());
    world.delete(&key::<Deployment>("web"), &by(Propagation::Foreground));
    world.settle();
    let left = (world.list::<Deployment>().len(), world.list::<ReplicaSet>().len(), world.list::<Pod>().len());
    assert_eq!(left, (1, 1, 3), "the pods have not stopped yet");
    assert!(world.list::<Pod>().iter().all(|(o, _)| o.meta.deleting()));
    world.silent.clear();
    world.settle();
    let left = (world.list::<Deployment>().len(), world.list::<ReplicaSet>().len(), world.list::<Pod>().len());
    assert_eq!(left, (0, 0, 0));
}

#[test]
fn ap4_orphans_survive_without_their_owner_and_are_adopted_again() {
    let mut world = world();
    world.delete(&key::<Deployment>("web"), &by(Propagation::Orphan));
    world.settle();
    assert!(world.list::<Deployment>().is_empty());
    assert_eq!((world.list::<ReplicaSet>().len(), world.list::<Pod>().len()), (1, 3));
    assert!(world.list::<ReplicaSet>()[0].0.meta.owners.is_empty());
    world.deployment("web", 3, "web:1", json!({}));
    world.settle();
    assert_eq!((world.list::<ReplicaSet>().len(), world.list::<Pod>().len()), (1, 3), "{}", world.show());
    assert_eq!(world.list::<ReplicaSet>()[0].0.meta.owners.len(), 1);
}

#[test]
fn ap5_another_object_of_the_same_name_is_not_the_owner() {
    let mut world = world();
    let owner = json!([{"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": "somebody-else"}]);
    world.apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}}));
    world.apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "child", "namespace": "default", "ownerReferences": owner},
    }));
    world.settle();
    assert!(world.list::<ConfigMap>().is_empty());
    let uid = world.store.get(&key::<Secret>("s")).unwrap().meta.uid.clone();
    let owners = json!([
        {"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": uid},
        {"apiVersion": "v1", "kind": "Secret", "name": "gone", "uid": "gone"},
        {"apiVersion": "example.com/v1", "kind": "Thing", "name": "t", "uid": "t"},
    ]);
    world.apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "child", "namespace": "default", "ownerReferences": owners},
    }));
    world.settle();
    let owners = world.list::<ConfigMap>()[0].0.meta.owners.clone();
    assert_eq!(owners.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["s", "t"], "gone is forgotten, unknown is kept");
}

/// CVE-2024-7598: what pods stand on, and what guards them, goes after them.
#[test]
fn ap2_a_namespace_goes_when_it_is_empty() {
    let mut world = world();
    world.silent.push("a".into());
    world.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "default"}}));
    world.apply(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny", "namespace": "default"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }));
    // Whenever anything of the namespace has gone or is going, all pods have gone.
    world.check = |world| {
        let pods = world.list::<Pod>().len();
        let intact = world.list::<ConfigMap>().len() + world.list::<NetworkPolicy>().len() + world.list::<Deployment>().len();
        assert!(pods == 0 || intact == 3, "{pods} pods run, and only {intact} of 3 objects are there");
    };
    let namespace = Key::of::<Namespace>("", "default");
    world.delete(&namespace, &DeleteOptions::default());
    world.settle();
    let object = world.store.get(&namespace).expect("its pods have not stopped yet");
    assert_eq!(
        object.value()["status"]["conditions"][0]["message"],
        "Some resources are remaining: pods has 3 resource instances"
    );
    assert_eq!(world.list::<Pod>().len(), 3, "no new ones either");
    world.silent.clear();
    world.settle();
    assert!(world.store.get(&namespace).is_none());
}

#[test]
fn events_and_join_tokens_end_and_pods_of_a_removed_node_are_forgotten() {
    let mut world = world();
    assert!(!world.list::<Event>().is_empty());
    let ends = base64::engine::general_purpose::STANDARD.encode((world.now + jiff::SignedDuration::from_mins(30)).to_string());
    world.apply(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-abc", "namespace": "kube-system"}, "data": {"expiration": ends},
    }));
    world.silent.push("a".into());
    world.delete(&Key::of::<Node>("", "a"), &DeleteOptions::default());
    world.pass(39);
    assert!(world.list::<Pod>().iter().all(|(_, p)| p.spec.as_ref().unwrap().node_name.is_some()));
    world.pass(2);
    assert!(world.list::<Pod>().iter().all(|(_, p)| p.spec.as_ref().unwrap().node_name.is_none()), "{}", world.show());
    for _ in 0..60 {
        world.now += jiff::SignedDuration::from_mins(1);
        world.settle();
        let minutes = world.now.duration_since("2026-11-21T00:00:00Z".parse().unwrap()).as_mins();
        assert_eq!(world.list::<Secret>().is_empty(), minutes >= 30, "at minute {minutes}");
    }
    world.now += jiff::SignedDuration::from_mins(2);
    world.settle();
    assert!(world.list::<Event>().is_empty(), "{}", world.events());
}
