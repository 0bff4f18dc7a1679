//! Pods that have to go for more important ones, through the whole of the loops.

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::{World, key};
use crate::control::Options;
use crate::object::Key;

fn world() -> World {
    let mut world = World::new(&Options::default());
    world.node("a", "2");
    for (name, value, policy) in [("high", 10, "PreemptLowerPriority"), ("patient", 10, "Never")] {
        world.apply(json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value, "preemptionPolicy": policy,
        }));
    }
    world
}

fn workload(world: &mut World, name: &str, replicas: i32, cpu: &str, more: Value) {
    let mut spec = json!({"containers": [{"name": "c", "image": format!("{name}:1"), "resources": {"requests": {"cpu": cpu}}}]});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    let template = json!({"metadata": {"labels": {"app": name}}, "spec": spec});
    world.deployment(name, replicas, "", json!({ "template": template }));
}

/// A node that two pods of `low` fill.
fn full(more: Value) -> World {
    let mut world = world();
    workload(&mut world, "low", 2, "1", more);
    world.settle();
    world
}

/// Then comes `top`.
fn ask(world: &mut World, replicas: i32, cpu: &str, class: &str) {
    workload(world, "top", replicas, cpu, json!({"priorityClassName": class}));
    world.settle();
}

/// Each pod in a line, without what is random in its name.
fn check(world: &World, expect: Expect) {
    let line = |pod: &Pod| {
        let app = pod.metadata.labels.clone().unwrap_or_default()["app"].clone();
        let node = pod.spec.as_ref().unwrap().node_name.clone().unwrap_or_else(|| "-".to_owned());
        let status = pod.status.clone().unwrap_or_default();
        let mut line = format!("{app} on {node}");
        if let Some(nominated) = status.nominated_node_name {
            line += &format!(", is to get {nominated}");
        }
        if pod.metadata.deletion_timestamp.is_some() {
            line += ", leaves";
        }
        for condition in status.conditions.iter().flatten().filter(|c| c.type_ != "Ready") {
            line += &format!(", {}={}", condition.type_, condition.status);
            line += &condition.reason.as_ref().map(|r| format!("({r})")).unwrap_or_default();
        }
        line + "\n"
    };
    let mut lines: Vec<String> = world.list::<Pod>().iter().map(|(_, pod)| line(pod)).collect();
    lines.sort();
    expect.assert_eq(&lines.concat());
}

#[test]
fn a_pod_waits_for_the_place_that_others_leave() {
    let mut world = full(json!({}));
    // Its agent does not get to it for a while.
    world.silent = vec!["a".to_owned()];
    ask(&mut world, 1, "1", "high");
    // Before and after another server process has taken over.
    let waits = |world: &World| {
        check(
            world,
            expect![[r#"
                low on -, PodScheduled=False(Unschedulable)
                low on a, PodScheduled=True
                low on a, leaves, PodScheduled=True, DisruptionTarget=True(PreemptionByScheduler)
                top on -, is to get a, PodScheduled=False(Unschedulable)
            "#]],
        );
    };
    waits(&world);
    assert!(world.events().contains("Pod Preempted: Preempted by pod "), "{}", world.events());
    world.restart(&Options::default());
    world.settle();
    waits(&world);
    world.silent.clear();
    world.settle();
    check(
        &world,
        expect![[r#"
            low on -, PodScheduled=False(Unschedulable)
            low on a, PodScheduled=True
            top on a, PodScheduled=True
        "#]],
    );
}

#[test]
fn who_needs_no_time_to_go_is_replaced_at_once() {
    let mut world = full(json!({"terminationGracePeriodSeconds": 0}));
    ask(&mut world, 2, "1", "high");
    check(
        &world,
        expect![[r#"
            low on -, PodScheduled=False(Unschedulable)
            low on -, PodScheduled=False(Unschedulable)
            top on a, PodScheduled=True
            top on a, PodScheduled=True
        "#]],
    );
}

#[test]
fn nobody_goes_for_a_pod_that_would_rather_wait() {
    let mut world = full(json!({}));
    ask(&mut world, 1, "1", "patient");
    check(
        &world,
        expect![[r#"
            low on a, PodScheduled=True
            low on a, PodScheduled=True
            top on -, PodScheduled=False(Unschedulable)
        "#]],
    );
}

#[test]
fn a_place_that_cannot_be_had_any_more_is_no_longer_kept() {
    let mut world = full(json!({}));
    world.silent = vec!["a".to_owned()];
    ask(&mut world, 1, "2", "high");
    world.edit(&Key::of::<Node>("", "a"), None, |v| v["spec"]["unschedulable"] = json!(true));
    world.silent.clear();
    world.settle();
    check(
        &world,
        expect![[r#"
            low on -, PodScheduled=False(Unschedulable)
            low on -, PodScheduled=False(Unschedulable)
            top on -, PodScheduled=False(Unschedulable)
        "#]],
    );
    world.edit(&Key::of::<Node>("", "a"), None, |v| v["spec"]["unschedulable"] = json!(false));
    world.settle();
    let top = world.list::<Pod>().into_iter().filter(|(_, p)| p.metadata.labels.as_ref().unwrap()["app"] == "top");
    assert!(top.map(|(_, p)| p.spec.as_ref().unwrap().node_name.clone()).eq([Some("a".to_owned())]));
}

#[test]
fn budgets_are_kept_where_that_is_possible() {
    let mut world = world();
    world.node("b", "2");
    workload(&mut world, "low", 1, "2", json!({}));
    world.settle();
    workload(&mut world, "other", 2, "1", json!({}));
    world.settle();
    world.apply(json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "low", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "low"}}},
    }));
    ask(&mut world, 1, "2", "high");
    check(
        &world,
        expect![[r#"
            low on a, PodScheduled=True
            other on -, PodScheduled=False(Unschedulable)
            other on -, PodScheduled=False(Unschedulable)
            top on b, PodScheduled=True
        "#]],
    );
    assert!(world.store.get(&key::<k8s_openapi::api::policy::v1::PodDisruptionBudget>("low")).is_some());
}
