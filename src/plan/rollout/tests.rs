//! Tables of the rollout's numbers and orders. Whole rollouts are played in `control`'s tests.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use expect_test::expect;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::deployment::{self, Member};
use super::replica_set::{self, BURST};
use super::{Claim, READ, active, available, bounds, claim, ended, ready, ready_since, same_template, template_hash};
use crate::object::{Draft, kind_of};

const NOW: &str = "2026-11-21T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn web(spec: Value) -> Deployment {
    let mut value = json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "dep", "generation": 1},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "web:1"}]}},
        },
    });
    for (key, field) in spec.as_object().into_iter().flatten() {
        value["spec"][key] = field.clone();
    }
    serde_json::from_value(value).unwrap()
}

#[test]
fn what_is_read_of_a_pod_is_as_in_the_whole() {
    let value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web-1", "namespace": "d", "uid": "u", "labels": {"app": "web"}, "creationTimestamp": NOW,
            "annotations": {"controller.kubernetes.io/pod-deletion-cost": "7"}, "deletionTimestamp": NOW,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "set", "controller": true}],
        },
        "spec": {"nodeName": "h1", "containers": [{"name": "c", "image": "web:1", "env": [{"name": "A", "value": "b"}]}]},
        "status": {
            "phase": "Running", "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": NOW}],
            "containerStatuses": [
                {"name": "c", "image": "web:1", "imageID": "", "ready": true, "restartCount": 3, "state": {"running": {"startedAt": NOW}}},
            ],
        },
    });
    let object = || Draft::new(kind_of::<Pod>(), value.clone()).seal(7);
    let part = object().part::<Pod>(&READ).unwrap();
    let whole = object().typed::<Pod>().unwrap();
    let facts = |pod: &Pod| {
        let crowds = BTreeMap::from([("h1".to_owned(), 2)]);
        let told = (active(pod), ended(pod), ready(pod), ready_since(pod), available(pod, 5, now()));
        (told, pod.metadata.owner_references.clone(), pod.metadata.labels.clone(), replica_set::worth(pod, &crowds))
    };
    assert_eq!(facts(&part), facts(&whole));
    assert!(part.spec.as_ref().unwrap().containers.is_empty(), "and no more");
}

#[test]
fn percentages_are_rounded_up_for_the_surge_and_down_for_what_may_be_missing() {
    let mut text = String::new();
    for (replicas, surge, unavailable) in [
        (10, json!("25%"), json!("25%")),
        (1, json!("25%"), json!("25%")),
        (0, json!("25%"), json!("25%")),
        (3, json!(1), json!(0)),
        (3, json!(0), json!(0)),
        (3, json!("0%"), json!("10%")),
        (2, json!(0), json!(5)),
        (4, json!("100%"), json!("100%")),
        (7, json!("1%"), json!("99%")),
    ] {
        let rolling = json!({"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
        let is = bounds(&web(json!({"replicas": replicas, "strategy": rolling})));
        let _ = writeln!(text, "{replicas} +{surge} -{unavailable}: +{} -{}", is.surge, is.unavailable);
    }
    let is = bounds(&web(json!({"strategy": {"type": "Recreate"}})));
    let _ = writeln!(text, "recreate: +{} -{}", is.surge, is.unavailable);
    expect![[r#"
        10 +"25%" -"25%": +3 -2
        1 +"25%" -"25%": +1 -0
        0 +"25%" -"25%": +0 -0
        3 +1 -0: +1 -0
        3 +0 -0: +0 -1
        3 +"0%" -"10%": +0 -1
        2 +0 -5: +0 -2
        4 +"100%" -"100%": +4 -4
        7 +"1%" -"99%": +1 -6
        recreate: +0 -3
    "#]]
    .assert_eq(&text);
}

#[test]
fn the_hash_ignores_our_own_label_and_differs_with_collisions() {
    let template = web(json!({})).spec.template;
    let mut labelled = template.clone();
    labelled.metadata.get_or_insert_default().labels.get_or_insert_default().insert("pod-template-hash".into(), "x".into());
    assert!(same_template(&template, &labelled));
    assert_eq!(template_hash(&template, None), template_hash(&labelled, None));
    let hashes: Vec<String> = [None, Some(1), Some(2)].into_iter().map(|n| template_hash(&template, n)).collect();
    assert_ne!(hashes[0], hashes[1]);
    assert_ne!(hashes[1], hashes[2]);
    // Names of replica sets outlive this program's version.
    expect!["5d98bb5557 888ff5db8 5d96999f9"].assert_eq(&hashes.join(" "));
}

fn pod(name: &str, parts: &[(&str, &str)]) -> Pod {
    let mut value = json!({
        "metadata": {
            "name": name, "namespace": "d", "uid": name, "labels": {"app": "web"}, "creationTimestamp": "2026-11-21T10:00:00Z",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "set", "controller": true}],
        },
        "spec": {"containers": [{"name": "c"}]},
        "status": {"phase": "Pending"},
    });
    for (what, with) in parts {
        match *what {
            "on" => value["spec"]["nodeName"] = json!(with),
            "phase" => value["status"]["phase"] = json!(with),
            "ready" => {
                value["status"]["conditions"] = json!([{"type": "Ready", "status": "True", "lastTransitionTime": with}]);
            }
            "cost" => value["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": with}),
            "restarts" => {
                let count: i32 = with.parse().unwrap();
                value["status"]["containerStatuses"] =
                    json!([{"name": "c", "ready": true, "restartCount": count, "image": "", "imageID": ""}]);
            }
            "created" => value["metadata"]["creationTimestamp"] = json!(with),
            other => panic!("{other}?"),
        }
    }
    serde_json::from_value(value).unwrap()
}

fn set(replicas: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": "web-1", "namespace": "d", "uid": "set", "generation": 1},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}},
        },
    }))
    .unwrap()
}

#[test]
fn the_least_useful_pod_goes_first() {
    let at = |hour: u8| format!("2026-11-21T{hour:02}:30:00Z");
    let (early, late) = (at(9), at(11));
    let pods = [
        pod("old", &[("on", "a"), ("phase", "Running"), ("ready", &early)]),
        pod("fresh", &[("on", "a"), ("phase", "Running"), ("ready", &late)]),
        pod("restarted", &[("on", "b"), ("phase", "Running"), ("ready", &early), ("restarts", "3")]),
        pod("cheap", &[("on", "b"), ("phase", "Running"), ("ready", &early), ("cost", "-5")]),
        pod("dear", &[("on", "b"), ("phase", "Running"), ("ready", &early), ("cost", "5")]),
        pod("broken", &[("on", "b"), ("phase", "Running")]),
        pod("starting", &[("on", "c")]),
        pod("unassigned", &[]),
        pod("younger", &[("on", "c"), ("phase", "Running"), ("ready", &early), ("created", &at(10))]),
        pod("alone", &[("on", "c"), ("phase", "Running"), ("ready", &early)]),
    ];
    let crowds = BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 4), ("c".to_owned(), 3)]);
    let set = set(0);
    let input = replica_set::Input { set: &set, pods: pods.iter().collect(), crowds: &crowds, spare: None, now: now() };
    let name = |i: &usize| pods[*i].metadata.name.clone().unwrap();
    let all: Vec<String> = replica_set::plan(&input).delete.iter().map(name).collect();
    expect!["unassigned starting broken cheap restarted younger alone fresh old dear"].assert_eq(&all.join(" "));
    // Who cannot spare pods that serve keeps them, and lets the others go.
    let input = replica_set::Input { spare: Some(1), ..input };
    let some: Vec<String> = replica_set::plan(&input).delete.iter().map(name).collect();
    expect!["unassigned starting broken cheap"].assert_eq(&some.join(" "));
}

#[test]
fn pods_come_in_bounded_batches() {
    let (set, none) = (set(100_000), BTreeMap::new());
    let input = replica_set::Input { set: &set, pods: Vec::new(), crowds: &none, spare: None, now: now() };
    assert_eq!(replica_set::plan(&input).create, BURST);
}

#[test]
fn wk5_claims() {
    let set = set(1);
    let mine = pod("p", &[]);
    let mut text = String::new();
    let mut row = |what: &str, set: &ReplicaSet, pod: &Pod| {
        let _ = writeln!(text, "{what}: {:?}", claim(&set.metadata, &set.spec.selector, &pod.metadata));
    };
    row("controlled and matching", &set, &mine);
    let mut other = mine.clone();
    other.metadata.labels = None;
    row("controlled, no match", &set, &other);
    let mut free = mine.clone();
    free.metadata.owner_references = None;
    row("free and matching", &set, &free);
    let mut leaving = free.clone();
    leaving.metadata.deletion_timestamp = Some(super::stamp(now()));
    row("free, matching, leaving", &set, &leaving);
    let mut foreign = mine.clone();
    foreign.metadata.owner_references.as_mut().unwrap()[0].uid = "other".into();
    row("somebody else's", &set, &foreign);
    let mut going = set.clone();
    going.metadata.deletion_timestamp = Some(super::stamp(now()));
    row("free, but the owner is leaving", &going, &free);
    row("no match, but the owner is leaving", &going, &other);
    let mut greedy = set.clone();
    greedy.spec.selector = Default::default();
    row("an empty selector", &greedy, &free);
    expect![[r#"
        controlled and matching: Mine
        controlled, no match: Release
        free and matching: Adopt
        free, matching, leaving: Foreign
        somebody else's: Foreign
        free, but the owner is leaving: Foreign
        no match, but the owner is leaving: Mine
        an empty selector: Foreign
    "#]]
    .assert_eq(&text);
    assert_eq!(claim(&set.metadata, &set.spec.selector, &mine.metadata), Claim::Mine);
}

#[test]
fn planning_what_was_just_planned_plans_nothing() {
    let mut deployment = web(json!({}));
    let free = |_: &str| false;
    let input = deployment::Input { deployment: &deployment, sets: Vec::new(), taken: &free, now: now() };
    let first = deployment::plan(&input);
    let created = *first.create.clone().expect("a replica set");
    assert_eq!(created.spec.replicas, Some(3));
    deployment.status = first.status;
    deployment.metadata.annotations = first.annotations;
    let sets = vec![Member { set: &created, pods: Vec::new() }];
    let again = deployment::plan(&deployment::Input { deployment: &deployment, sets, taken: &free, now: now() });
    assert!(again.is_empty(), "{again:?}");
    assert_eq!(again.again, Some(now() + jiff::SignedDuration::from_secs(601)), "the progress deadline");
}

/// LV1: a pod that is to go and cannot be spared takes a place, and so does one that serves nobody. The latter goes, or nothing ever would.
#[test]
fn what_serves_nobody_makes_room_while_what_serves_is_kept() {
    let rolling = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
    let deployment = web(json!({"strategy": rolling}));
    let old = |name: &str, replicas: i32| {
        let mut set = set(replicas);
        set.metadata.name = Some(name.to_owned());
        set.spec.template.as_mut().unwrap().spec.as_mut().unwrap().containers[0].image = Some(name.to_owned());
        set
    };
    let (going, broken, serving, new) = (old("going", 0), old("broken", 1), old("serving", 1), {
        let mut set = old("new", 0);
        set.spec.template.as_mut().unwrap().spec.as_mut().unwrap().containers[0].image = Some("web:1".to_owned());
        set
    });
    let ready = pod("ready", &[("ready", "2026-11-21T11:59:50Z")]);
    let unready = pod("unready", &[]);
    let free = |_: &str| false;
    let sets = vec![
        Member { set: &going, pods: vec![&ready] },
        Member { set: &broken, pods: vec![&unready] },
        Member { set: &serving, pods: vec![&ready] },
        Member { set: &new, pods: Vec::new() },
    ];
    let plan = deployment::plan(&deployment::Input { deployment: &deployment, sets, taken: &free, now: now() });
    assert_eq!(plan.create, None);
    let sizes: Vec<(usize, Option<i32>)> = plan.update.iter().map(|(index, set)| (*index, set.spec.replicas)).collect();
    assert_eq!(sizes.iter().find(|(index, _)| *index == 1), Some(&(1, Some(0))), "{sizes:?}");
    assert_eq!(sizes.iter().find(|(index, _)| *index == 2).and_then(|(_, size)| *size).unwrap_or(1), 1, "{sizes:?}");
}

#[test]
fn ready_for_long_enough_is_available() {
    let since = pod("p", &[("ready", "2026-11-21T11:59:50Z")]);
    assert!(available(&since, 0, now()) && available(&since, 10, now()) && !available(&since, 11, now()));
    assert!(!available(&pod("p", &[]), 0, now()));
}
