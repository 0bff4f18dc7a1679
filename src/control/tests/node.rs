//! Hosts that fall silent, and come back.

use expect_test::expect;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;

use super::{World, key};
use crate::control::Options;
use crate::object::Key;

fn world(nodes: &[&str], replicas: i32) -> World {
    let mut world = World::new(&Options::default());
    for name in nodes {
        world.node(name, "4");
    }
    world.pass(10);
    world.deployment("web", replicas, "web:1", json!({}));
    world.settle();
    world
}

fn taints(world: &World) -> String {
    let taint = |t: &k8s_openapi::api::core::v1::Taint| format!("{}:{}", t.key, t.effect);
    let line = |node: &Node| {
        let taints: Vec<_> = node.spec.iter().flat_map(|s| s.taints.iter().flatten()).map(taint).collect();
        let ready = crate::plan::node::ready_condition(node).map(|c| c.status.clone()).unwrap_or_default();
        let line = format!("{} Ready={ready} {}", node.metadata.name.as_deref().unwrap_or_default(), taints.join(" "));
        line.trim_end().to_owned() + "\n"
    };
    world.list::<Node>().iter().map(|(_, node)| line(node)).collect()
}

#[test]
fn pods_of_a_lost_host_are_replaced_and_the_surplus_goes_when_it_returns() {
    let mut world = world(&["a", "b", "c"], 3);
    world.silent.push("b".into());
    world.pass(40);
    expect![[r#"
        a Ready=True
        b Ready=True
        c Ready=True
    "#]]
    .assert_eq(&taints(&world));
    world.pass(2);
    expect![[r#"
        a Ready=True
        b Ready=Unknown node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute
        c Ready=True
        deployment web 3/3 updated 3 ready 2 available 2 Progressing=True(NewReplicaSetAvailable) Available=False(MinimumReplicasUnavailable)
          set web:1 revision 1: 3/3 ready 2
            pod web:1 on a ready x1
            pod web:1 on b not ready x1
            pod web:1 on c ready x1
    "#]].assert_eq(&(taints(&world) + &world.show()));
    world.pass(31);
    expect![[r#"
        deployment web 3/3 updated 3 ready 3 available 3 Progressing=True(NewReplicaSetAvailable) Available=True(MinimumReplicasAvailable)
          set web:1 revision 1: 3/3 ready 3
            pod web:1 on a ready x2
            pod web:1 on b leaving x1
            pod web:1 on c ready x1
    "#]].assert_eq(&world.show());
    world.silent.clear();
    world.pass(11);
    expect![[r#"
        a Ready=True
        b Ready=True
        c Ready=True
        deployment web 3/3 updated 3 ready 3 available 3 Progressing=True(NewReplicaSetAvailable) Available=True(MinimumReplicasAvailable)
          set web:1 revision 1: 3/3 ready 3
            pod web:1 on a ready x2
            pod web:1 on c ready x1
    "#]].assert_eq(&(taints(&world) + &world.show()));
}

#[test]
fn le4_a_new_server_process_starts_every_timer_anew() {
    let mut world = world(&["a", "b", "c"], 3);
    world.silent.push("b".into());
    world.pass(35);
    world.restart(&Options::default());
    world.pass(39);
    assert!(!taints(&world).contains("Unknown"), "{}", taints(&world));
    world.pass(3);
    assert!(taints(&world).contains("b Ready=Unknown"), "{}", taints(&world));
    world.pass(20);
    world.restart(&Options::default());
    world.pass(29);
    assert!(!world.show().contains("leaving"), "the wait for its pods starts anew as well\n{}", world.show());
    world.pass(3);
    assert!(world.show().contains("on b leaving"), "{}", world.show());
}

#[test]
fn le4_a_server_that_was_stopped_blames_nobody() {
    let mut world = world(&["a", "b", "c"], 3);
    world.now += jiff::SignedDuration::from_hours(1);
    world.settle();
    assert!(!taints(&world).contains("Unknown"), "{}", taints(&world));
}

#[test]
fn le5_nothing_is_given_up_when_most_hosts_fall_silent() {
    let mut world = world(&["a", "b", "c"], 3);
    world.silent = vec!["a".into(), "b".into()];
    world.pass(300);
    assert!(!world.show().contains("leaving"), "{}", world.show());
    assert!(world.events().contains("2 of 3 hosts are not ready"), "{}", world.events());
    world.silent.pop();
    world.pass(29);
    assert!(!world.show().contains("leaving"), "the wait starts when the stop ends\n{}", world.show());
    world.pass(20);
    expect![[r#"
        a Ready=Unknown node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute
        b Ready=True
        c Ready=True
        deployment web 3/3 updated 3 ready 3 available 3 Progressing=True(NewReplicaSetAvailable) Available=True(MinimumReplicasAvailable)
          set web:1 revision 1: 3/3 ready 3
            pod web:1 on a leaving x1
            pod web:1 on b ready x2
            pod web:1 on c ready x1
    "#]].assert_eq(&(taints(&world) + &world.show()));
}

#[test]
fn le5_hosts_are_given_up_one_after_the_other() {
    let mut world = world(&["a", "b", "c", "d", "e", "f", "g"], 7);
    world.silent = vec!["a".into(), "b".into(), "c".into()];
    let mut when = Vec::new();
    for second in 0..120 {
        world.pass(1);
        let count = taints(&world).matches("unreachable:NoExecute").count();
        if when.len() < count {
            when.push(second);
        }
    }
    expect!["[40, 50, 60]"].assert_eq(&format!("{when:?}"));
}

#[test]
fn a_pod_that_tolerates_it_longer_stays_longer() {
    let mut world = world(&["a", "b", "c"], 0);
    let toleration =
        json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 100}]);
    world.edit(&key::<Deployment>("web"), None, |v| {
        v["spec"]["template"]["spec"]["tolerations"] = toleration;
        v["spec"]["replicas"] = json!(3);
    });
    world.settle();
    world.silent.push("c".into());
    world.pass(140);
    assert!(!world.show().contains("leaving"), "{}", world.show());
    world.pass(5);
    assert!(world.show().contains("leaving"), "{}", world.show());
}

#[test]
fn a_cordoned_node_gets_no_pods_and_a_taint_of_ones_own_acts_at_once() {
    let mut world = world(&["a", "b"], 2);
    world.edit(&Key::of::<Node>("", "a"), None, |v| v["spec"]["unschedulable"] = json!(true));
    world.settle();
    world.edit(&Key::of::<Node>("", "b"), None, |v| {
        v["spec"]["taints"] = json!([{"key": "mine", "value": "x", "effect": "NoExecute"}]);
    });
    world.settle();
    let waiting: Vec<String> = world
        .list::<Pod>()
        .iter()
        .filter(|(_, p)| p.spec.as_ref().unwrap().node_name.is_none())
        .map(|(_, p)| p.status.as_ref().unwrap().conditions.as_ref().unwrap()[0].message.clone().unwrap_or_default())
        .collect();
    expect!["0/2 nodes are available: 1 node(s) had untolerated taint {mine: x}, 1 node(s) were unschedulable."]
        .assert_eq(&waiting.join("\n"));
    expect![[r#"
        deployment web 2/2 updated 2 ready 1 available 1 Progressing=True(NewReplicaSetAvailable) Available=False(MinimumReplicasUnavailable)
          set web:1 revision 1: 2/2 ready 1
            pod web:1 on a ready x1
            pod web:1 on no node not ready x1
    "#]].assert_eq(&world.show());
}
