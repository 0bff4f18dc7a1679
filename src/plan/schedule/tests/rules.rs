//! Tables of rules about other pods: namespaces, spreading with all its switches, and wishes of pods that are there already.

use expect_test::{Expect, expect};

use super::super::{Decision, Scheduler, Strategy, awaits_node, order};
use super::{empty, read, told};

/// Like the other tables, with namespaces: `name label=value`.
fn check_in(namespaces: &[&str], picture: &str, expect: Expect) {
    let (nodes, pods) = read(picture);
    let mut cluster = empty(&nodes);
    for line in namespaces {
        let (name, label) = line.split_once(' ').unwrap();
        let (key, value) = label.split_once('=').unwrap();
        cluster.set_namespace(name, Some(&[(key.to_owned(), value.to_owned())].into()));
    }
    let (mut waiting, there): (Vec<_>, Vec<_>) = pods.into_iter().partition(awaits_node);
    there.iter().for_each(|pod| cluster.set_pod(pod));
    waiting.sort_by_cached_key(order);
    let mut scheduler = Scheduler::new(Strategy::Spread, 0);
    let mut text = String::new();
    for pod in &waiting {
        let name = pod.metadata.name.as_deref().unwrap();
        text += &told(name, scheduler.decide(&mut cluster, pod));
    }
    expect.assert_eq(&text);
}

fn check(picture: &str, expect: Expect) {
    check_in(&[], picture, expect);
}

/// Required rules about pods with `app=db`, in namespaces that are chosen so.
fn near(kind: &str, choice: &str) -> String {
    format!(
        "spec affinity={{\"{kind}\":{{\"requiredDuringSchedulingIgnoredDuringExecution\":[{{\"labelSelector\":{{\"matchLabels\":{{\"app\":\"db\"}}}},\
         \"topologyKey\":\"zone\"{choice}}}]}}}}"
    )
}

#[test]
fn namespaces_are_chosen_by_name_by_label_or_all() {
    let there = "node a cpu 4 mem 8Gi label zone=x
         node b cpu 4 mem 8Gi label zone=y
         node c cpu 4 mem 8Gi label zone=z
         pod db1 on a label app=db in-namespace one
         pod db2 on b label app=db in-namespace two
         pod db3 on c label app=db in-namespace three";
    let labels = ["one team=red", "two team=blue", "three team=green"];
    let blue = ",\"namespaceSelector\":{\"matchLabels\":{\"team\":\"blue\"}}";
    let green_or_one = ",\"namespaces\":[\"one\"],\"namespaceSelector\":{\"matchLabels\":{\"team\":\"green\"}}";
    let picture = format!(
        "{there}
         pod p1 {}
         pod p2 {}
         pod p3 {}
         pod p4 {}
         pod p5 {}",
        near("podAffinity", ""),
        near("podAffinity", ",\"namespaces\":[\"three\"]"),
        near("podAffinity", blue),
        near("podAntiAffinity", green_or_one),
        near("podAntiAffinity", ",\"namespaceSelector\":{}"),
    );
    check_in(
        &labels,
        &picture,
        expect![[r#"
            p1 waits: 0/3 nodes are available: 3 node(s) didn't match pod affinity rules.
            p2 -> c
            p3 -> b
            p4 -> b
            p5 waits: 0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.
        "#]],
    );
}

#[test]
fn a_namespace_that_changes_its_labels_changes_what_rules_see() {
    let (nodes, pods) = read(&format!(
        "node a cpu 4 mem 8Gi label zone=x
         pod db on a label app=db in-namespace one
         pod p {}
         pod q {}",
        near("podAffinity", ",\"namespaceSelector\":{\"matchLabels\":{\"team\":\"blue\"}}"),
        near("podAffinity", ",\"namespaceSelector\":{\"matchLabels\":{\"team\":\"blue\"}}"),
    ));
    let mut cluster = empty(&nodes);
    cluster.set_pod(&pods[0]);
    let mut scheduler = Scheduler::new(Strategy::Spread, 0);
    assert!(matches!(scheduler.decide(&mut cluster, &pods[1]), Decision::Wait(_)));
    cluster.set_namespace("one", Some(&[("team".to_owned(), "blue".to_owned())].into()));
    assert!(matches!(scheduler.decide(&mut cluster, &pods[1]), Decision::Place(_)));
    cluster.set_namespace("one", None);
    assert!(matches!(scheduler.decide(&mut cluster, &pods[2]), Decision::Wait(_)));
}

#[test]
fn several_rules_each_look_for_their_own_pods() {
    check(
        "node a cpu 4 mem 8Gi label zone=x
         node b cpu 4 mem 8Gi label zone=y
         pod db on b label app=db
         pod w1 label app=web near app=db@zone near app=web@host
         pod w2 label app=web near app=db@zone near app=web@host",
        expect![[r#"
            w1 -> b
            w2 -> b
        "#]],
    );
}

#[test]
fn wishes_of_those_who_are_there_count_too() {
    check(
        "node a cpu 4 mem 8Gi
         node b cpu 4 mem 8Gi
         pod fan on b cpu 1 label app=fan likes app=star@host
         pod star cpu 1 label app=star
         pod other cpu 1",
        expect![[r#"
            other -> a
            star -> b
        "#]],
    );
}

/// A constraint on zones with these further fields, of pods with `app=web`.
fn spread(more: &str) -> String {
    format!(
        "label app=web spec topologySpreadConstraints=[{{\"labelSelector\":{{\"matchLabels\":{{\"app\":\"web\"}}}},\"topologyKey\":\"zone\",\
         \"maxSkew\":1,\"whenUnsatisfiable\":\"DoNotSchedule\"{more}}}]"
    )
}

#[test]
fn spreading_knows_all_its_switches() {
    // Fewer domains than wanted: the emptiest that is not there counts.
    check(
        &format!(
            "node a cpu 4 mem 8Gi label zone=x
             node b cpu 4 mem 8Gi label zone=y
             pod w1 {0}
             pod w2 {0}
             pod w3 {0}",
            spread(",\"minDomains\":3")
        ),
        expect![[r#"
            w1 -> a
            w2 -> b
            w3 waits: 0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints.
        "#]],
    );
    // Nodes that the pod could not go to count neither as domains nor with their pods; unless the policy says so.
    let picture = |policy: &str| {
        format!(
            "node a cpu 4 mem 8Gi label zone=x label disk=ssd
             node b cpu 4 mem 8Gi label zone=y
             node c cpu 4 mem 8Gi label zone=x
             pod old on c label app=web
             pod old2 on c label app=web
             pod w1 select disk=ssd {0}
             pod w2 select disk=ssd {0}",
            spread(policy)
        )
    };
    check(
        &picture(""),
        expect![[r#"
            w1 -> a
            w2 -> a
        "#]],
    );
    check(
        &picture(",\"nodeAffinityPolicy\":\"Ignore\""),
        expect![[r#"
            w1 waits: 0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints, 2 node(s) didn't match Pod's node affinity/selector.
            w2 waits: 0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints, 2 node(s) didn't match Pod's node affinity/selector.
        "#]],
    );
    // A tainted zone holds the others up, unless taints are honoured.
    let picture = |policy: &str| {
        format!(
            "node a cpu 4 mem 8Gi label zone=x
             node b cpu 4 mem 8Gi label zone=y taint k=v:NoSchedule
             pod w1 {0}
             pod w2 {0}",
            spread(policy)
        )
    };
    check(
        &picture(""),
        expect![[r#"
            w1 -> a
            w2 waits: 0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) had untolerated taint {k: v}.
        "#]],
    );
    check(
        &picture(",\"nodeTaintsPolicy\":\"Honor\""),
        expect![[r#"
            w1 -> a
            w2 -> a
        "#]],
    );
    // Only pods of the same version are counted.
    check(
        &format!(
            "node a cpu 4 mem 8Gi label zone=x
             node b cpu 4 mem 8Gi label zone=y
             pod old on b cpu 1 label app=web label version=1
             pod w1 cpu 3 label version=2 {0}
             pod w2 cpu 2 label version=2 {0}",
            spread(",\"matchLabelKeys\":[\"version\"]")
        ),
        expect![[r#"
            w1 -> a
            w2 -> b
        "#]],
    );
}

#[test]
fn rules_follow_nodes_that_change_their_domain() {
    let (nodes, pods) = read(
        "node a cpu 4 mem 8Gi label zone=x
         node b cpu 4 mem 8Gi label zone=y
         node a cpu 4 mem 8Gi label zone=y
         pod db on a label app=db
         pod p near app=db@zone cpu 1
         pod q near app=db@zone cpu 4",
    );
    let mut cluster = empty(&nodes[..2]);
    cluster.set_pod(&pods[0]);
    let mut scheduler = Scheduler::new(Strategy::Spread, 0);
    assert_eq!(scheduler.decide(&mut cluster, &pods[1]), Decision::Place("a".into()));
    cluster.remove_pod(&("d".to_owned(), "p".to_owned()));
    cluster.set_node(&nodes[2]);
    assert_eq!(scheduler.decide(&mut cluster, &pods[1]), Decision::Place("b".into()));
    assert_eq!(scheduler.decide(&mut cluster, &pods[2]), Decision::Place("a".into()));
    cluster.remove_node("a");
    cluster.remove_pod(&("d".to_owned(), "p".to_owned()));
    assert!(matches!(scheduler.decide(&mut cluster, &pods[1]), Decision::Wait(_)));
}
