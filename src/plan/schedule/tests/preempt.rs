//! Tables of who has to go for whom.

use expect_test::{Expect, expect};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::json;

use super::super::{Budget, Decision, Resort, Scheduler, Strategy, awaits_node, order};
use super::{empty, read};

/// Decides for everybody who waits, in order; whoever is asked to go is gone when all were looked at, and then those for whom a place is
/// kept free are looked at again. Budgets are lines `label=value least`.
fn check(picture: &str, budgets: &[&str], expect: Expect) {
    let (nodes, mut pods) = read(picture);
    let mut cluster = empty(&nodes);
    pods.sort_by_cached_key(order);
    let (waiting, there): (Vec<_>, Vec<_>) = pods.into_iter().partition(awaits_node);
    there.iter().for_each(|pod| cluster.set_pod(pod));
    let budget = |line: &&str| {
        let (selector, least) = line.split_once(' ').unwrap();
        let (key, value) = selector.split_once('=').unwrap();
        let budget: PodDisruptionBudget = serde_json::from_value(json!({
            "metadata": {"name": "b", "namespace": "d"},
            "spec": {"minAvailable": least.parse::<i32>().unwrap(), "selector": {"matchLabels": {key: value}}},
        }))
        .unwrap();
        Budget::of(&budget, there.iter())
    };
    let budgets: Vec<Budget> = budgets.iter().map(budget).collect();
    let mut scheduler = Scheduler::new(Strategy::Spread, 0);
    let mut text = String::new();
    let mut gone = Vec::new();
    for round in 0..2 {
        for pod in &waiting {
            let name = pod.metadata.name.as_deref().unwrap();
            let key = ("d".to_owned(), name.to_owned());
            if cluster.placed(&key).is_some() || (round > 0 && !cluster.is_promised(&key)) {
                continue;
            }
            let class = Scheduler::class(pod);
            text += &match scheduler.decide_in(&class, &mut cluster, pod) {
                Decision::Place(node) => format!("{name} -> {node}\n"),
                Decision::Wait(_) => match scheduler.resort(&class, &mut cluster, pod, &budgets) {
                    Resort::Preempt(room) => {
                        let names = |list: &[(String, String)]| list.iter().map(|n| n.1.clone()).collect::<Vec<_>>().join(", ");
                        let outbid =
                            if room.outbid.is_empty() { String::new() } else { format!(" (not for {})", names(&room.outbid)) };
                        let line = format!("{name} will get {}{outbid} without [{}]\n", room.node, names(&room.victims));
                        gone.extend(room.victims);
                        line
                    }
                    Resort::Expect => format!("{name} expects a place\n"),
                    Resort::Nothing => format!("{name} waits\n"),
                },
            };
        }
        if round == 0 {
            text += "--\n";
            there.iter().filter(|p| p.metadata.deletion_timestamp.is_some()).for_each(|p| {
                cluster.remove_pod(&("d".to_owned(), p.metadata.name.clone().unwrap()));
            });
            gone.drain(..).for_each(|victim| cluster.remove_pod(&victim));
        }
    }
    expect.assert_eq(&text);
}

#[test]
fn the_least_important_go_and_as_few_as_possible() {
    check(
        "node a cpu 4 mem 8Gi
         node b cpu 4 mem 8Gi
         node c cpu 4 mem 8Gi
         pod a1 on a cpu 2 priority 1
         pod a2 on a cpu 2 priority 5
         pod b1 on b cpu 2 priority 1
         pod b2 on b cpu 1 priority 1
         pod b3 on b cpu 1 priority 1
         pod c1 on c cpu 4 priority 9
         pod one cpu 2 priority 9
         pod two cpu 3 priority 9
         pod low cpu 1 priority 1",
        &[],
        expect![[r#"
            one will get a without [a1]
            two will get b without [b1, b3]
            low waits
            --
            one -> a
            two -> b
        "#]],
    );
}

#[test]
fn equals_stay_and_so_do_all_when_it_would_not_help() {
    check(
        "node a cpu 4 mem 8Gi
         node b cpu 8 mem 8Gi cordoned
         pod a1 on a cpu 3 priority 5
         pod b1 on b cpu 8
         pod same cpu 2 priority 5
         pod huge cpu 5 priority 9
         pod never cpu 2 priority 9 never
         pod wrong cpu 1 priority 9 select disk=ssd",
        &[],
        expect![[r#"
            huge waits
            never waits
            wrong waits
            same waits
            --
        "#]],
    );
}

#[test]
fn the_youngest_go_first_and_the_important_ones_stay() {
    check(
        "node a cpu 4 mem 8Gi
         node b cpu 4 mem 8Gi
         pod a1 on a cpu 4 born 3
         pod b1 on b cpu 4 born 9
         pod top cpu 1 priority 1",
        &[],
        expect![[r#"
            top will get b without [b1]
            --
            top -> b
        "#]],
    );
    check(
        "node a cpu 4 mem 8Gi
         pod a1 on a cpu 1 priority 3
         pod a2 on a cpu 1 priority 2 born 1
         pod a3 on a cpu 1 priority 2 born 2
         pod a4 on a cpu 1 priority 1
         pod top cpu 2 priority 5",
        &[],
        expect![[r#"
            top will get a without [a3, a4]
            --
            top -> a
        "#]],
    );
}

#[test]
fn budgets_are_broken_last() {
    let picture = "node a cpu 4 mem 8Gi
         node b cpu 4 mem 8Gi
         pod a1 on a cpu 4 label app=db ready
         pod b1 on b cpu 2 priority 3 label app=web ready
         pod b2 on b cpu 2 priority 3 label app=web ready
         pod top cpu 4 priority 5";
    check(
        picture,
        &[],
        expect![[r#"
            top will get a without [a1]
            --
            top -> a
        "#]],
    );
    check(
        picture,
        &["app=db 1"],
        expect![[r#"
            top will get b without [b1, b2]
            --
            top -> b
        "#]],
    );
    // One breach on either node: importance decides again.
    check(
        picture,
        &["app=db 1", "app=web 1"],
        expect![[r#"
            top will get a without [a1]
            --
            top -> a
        "#]],
    );
}

#[test]
fn a_place_is_kept_free_but_not_from_more_important_ones() {
    check(
        "node a cpu 4 mem 8Gi
         pod old on a cpu 4 leaving
         pod high cpu 3 priority 5
         pod low cpu 2 priority 1
         pod tiny cpu 1 priority 1",
        &[],
        expect![[r#"
            high will get a without []
            low waits
            tiny will get a without []
            --
            high -> a
            tiny -> a
        "#]],
    );
}

#[test]
fn rules_about_other_pods_can_be_cleared_too() {
    check(
        "node a cpu 4 mem 8Gi label zone=x
         node b cpu 4 mem 8Gi label zone=y
         pod a1 on a cpu 1 label app=loud
         pod a2 on a cpu 1
         pod b1 on b cpu 1 label app=loud priority 9
         pod quiet cpu 1 apart app=loud@zone priority 5
         pod fussy cpu 1 near app=db@zone priority 5",
        &[],
        expect![[r#"
            fussy waits
            quiet will get a without [a1]
            --
            quiet -> a
        "#]],
    );
    // A pod that keeps others out goes as well.
    check(
        "node a cpu 4 mem 8Gi
         pod shy on a cpu 1 apart app=loud@host
         pod other on a cpu 1
         pod loud cpu 1 label app=loud priority 5",
        &[],
        expect![[r#"
            loud will get a without [shy]
            --
            loud -> a
        "#]],
    );
}
