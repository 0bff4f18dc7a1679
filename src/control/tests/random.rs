//! Rollouts in any order of steps, readiness, failures and edits: never too many pods, never too few by our own hand, and always an end.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::json;

use super::{World, key};
use crate::control::Options;
use crate::object::admit::DeleteOptions;
use crate::plan::rollout::{active, available, bounds, ended};

#[derive(Clone, Debug)]
enum Act {
    /// One loop takes a step.
    Step(usize),
    /// A pod becomes ready, or stops being so.
    Ready(usize, bool),
    /// A pod fails for good.
    Fail(usize),
    /// A pod that was asked to go has gone.
    Stopped(usize),
    /// Another template.
    Image(u8),
    /// Another size.
    Scale(i32),
    Pause(bool),
    Wait(i64),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => (0..7usize).prop_map(Act::Step),
        8 => (0..8usize, proptest::bool::weighted(0.8)).prop_map(|(pod, ready)| Act::Ready(pod, ready)),
        1 => (0..8usize).prop_map(Act::Fail),
        4 => (0..8usize).prop_map(Act::Stopped),
        2 => (0..4u8).prop_map(Act::Image),
        1 => (0..7i32).prop_map(Act::Scale),
        1 => any::<bool>().prop_map(Act::Pause),
        1 => (1..20i64).prop_map(Act::Wait),
        1 => Just(Act::Restart),
    ]
}

fn counts(world: &World, min_ready: i32) -> (i32, i32) {
    let pods = world.list::<Pod>();
    let here = pods.iter().map(|(_, p)| p).filter(|p| active(p));
    let serving = here.clone().filter(|p| available(p, min_ready, world.now)).count() as i32;
    (here.count() as i32, serving)
}

fn set_ready(world: &mut World, which: usize, ready: bool, phase: &str) {
    let pods = world.list::<Pod>();
    let alive: Vec<_> = pods.iter().filter(|(o, p)| !o.meta.deleting() && !ended(p)).collect();
    if alive.is_empty() {
        return;
    }
    let key = alive[which % alive.len()].0.key.clone();
    let now = crate::plan::rollout::stamp(world.now);
    world.edit(&key, Some("status"), |v| {
        v["status"]["phase"] = json!(phase);
        v["status"]["conditions"] =
            json!([{"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": now}]);
    });
}

fn play(surge: i32, unavailable: i32, min_ready: i32, acts: Vec<Act>) {
    let mut world = World::new(&Options::default());
    for name in ["a", "b"] {
        world.node(name, "64");
    }
    let strategy = json!({"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
    world.deployment("web", 3, "web:0", json!({"strategy": strategy, "minReadySeconds": min_ready}));
    world.settle();
    world.pass(i64::from(min_ready) + 1);
    let web = key::<Deployment>("web");
    let mut most = 3 + surge;
    let mut bound: std::collections::BTreeMap<String, String> = Default::default();
    for act in acts {
        match act.clone() {
            Act::Step(index) => {
                let before = counts(&world, min_ready);
                world.step(index);
                let after = counts(&world, min_ready);
                let bounds = bounds(&world.list::<Deployment>()[0].1);
                // WK2: what was taken away was not needed.
                assert!(after.1 >= before.1.min(bounds.least()), "{act:?}: {before:?} -> {after:?}\n{}", world.show());
            }
            Act::Ready(which, ready) => set_ready(&mut world, which, ready, "Running"),
            Act::Fail(which) => set_ready(&mut world, which, false, "Failed"),
            Act::Stopped(which) => {
                let pods = world.list::<Pod>();
                let leaving: Vec<_> = pods.iter().filter(|(o, _)| o.meta.deleting()).collect();
                if !leaving.is_empty() {
                    let key = leaving[which % leaving.len()].0.key.clone();
                    world.delete(&key, &DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() });
                }
            }
            Act::Image(n) => world.edit(&web, None, |v| {
                v["spec"]["template"]["spec"]["containers"][0]["image"] = json!(format!("web:{n}"));
            }),
            Act::Scale(n) => {
                most = most.max(n + surge);
                world.edit(&web, None, |v| v["spec"]["replicas"] = json!(n));
            }
            Act::Pause(paused) => world.edit(&web, None, |v| v["spec"]["paused"] = json!(paused)),
            Act::Wait(seconds) => {
                // The hosts are well here: it is about pods.
                world.now += jiff::SignedDuration::from_secs(seconds);
                world.heartbeat();
            }
            Act::Restart => world.restart(&Options::default()),
        }
        let (count, _) = counts(&world, min_ready);
        assert!(count <= most.max(3 + surge.max(1)), "WK1 {act:?}: {count} pods, at most {most}\n{}", world.show());
        for (object, pod) in world.list::<Pod>() {
            if let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.clone()) {
                let first = bound.entry(object.meta.uid.clone()).or_insert_with(|| node.clone());
                assert_eq!(*first, node, "SC1 {act:?}: {}\n{}", object.key, world.show());
            }
        }
        // WK4: no two replica sets have the same template.
        let images: Vec<_> = world
            .list::<ReplicaSet>()
            .iter()
            .map(|(_, s)| s.spec.template.clone().unwrap().spec.unwrap().containers[0].image.clone())
            .collect();
        let distinct: std::collections::BTreeSet<_> = images.iter().cloned().collect();
        assert_eq!(images.len(), distinct.len(), "{}", world.show());
    }
    // Once nothing is in the way any more, it ends as it should, and then rests.
    world.edit(&web, None, |v| v["spec"]["paused"] = json!(false));
    world.settle();
    world.pass(i64::from(min_ready) * 12 + 2);
    let (_, deployment) = world.list::<Deployment>().remove(0);
    let (wanted, status) = (deployment.spec.replicas.unwrap(), deployment.status.clone().unwrap());
    let n = |n: Option<i32>| n.unwrap_or(0);
    let told = (n(status.replicas), n(status.updated_replicas), n(status.ready_replicas), n(status.available_replicas));
    assert_eq!(told, (wanted, wanted, wanted, wanted), "WK13\n{}", world.show());
    assert_eq!(status.observed_generation, deployment.metadata.generation);
    assert_eq!(counts(&world, min_ready), (wanted, wanted), "{}", world.show());
    let rest = world.store.revision();
    world.settle();
    assert_eq!(world.store.revision(), rest, "WK7");
}

/// Few by default, as many as one likes with `PROPTEST_CASES`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn wk1_wk2_wk4_wk7_wk13_in_any_order(
        surge in 0..3i32, unavailable in 0..3i32, min_ready in prop_oneof![Just(0), Just(3)],
        acts in proptest::collection::vec(act(), 1..80),
    ) {
        prop_assume!(surge > 0 || unavailable > 0);
        play(surge, unavailable, min_ready, acts);
    }
}

/// The property is worth something: it notices each of these mistakes.
#[test]
fn planted_mistakes_are_found() {
    use crate::mutant::{Mutant, planted};
    use proptest::strategy::ValueTree;
    for mutant in [Mutant::IgnoreMaxUnavailable, Mutant::SurgeOffByOne, Mutant::ReplicaSetPerLook, Mutant::Rebind] {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let given = (1..3i32, 0..2i32, proptest::collection::vec(act(), 40..80));
        let found = (0..100).any(|_| {
            let (surge, unavailable, acts) = given.new_tree(&mut runner).unwrap().current();
            let run = || play(surge, unavailable, 0, acts);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| planted(Some(mutant), run))).is_err()
        });
        assert!(found, "{mutant:?}");
    }
}
