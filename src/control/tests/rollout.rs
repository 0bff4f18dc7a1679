//! Deployments, replica sets and the scheduler together.

use expect_test::expect;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::{World, key};
use crate::control::Options;
use crate::plan::rollout::{active, available, bounds};

fn three_nodes() -> World {
    let mut world = World::new(&Options::default());
    for name in ["a", "b", "c"] {
        world.node(name, "4");
    }
    world
}

#[test]
fn a_deployment_becomes_ready_pods_spread_over_the_nodes() {
    let mut world = three_nodes();
    world.deployment("web", 3, "web:1", json!({}));
    world.settle();
    expect![[r#"
        deployment web 3/3 updated 3 ready 3 available 3 Available=True(MinimumReplicasAvailable) Progressing=True(NewReplicaSetAvailable)
          set web:1 revision 1: 3/3 ready 3
            pod web:1 on a ready x1
            pod web:1 on b ready x1
            pod web:1 on c ready x1
    "#]].assert_eq(&world.show());
    expect![[r#"
        Deployment ScalingReplicaSet: Scaled up replica set web-764b995d5b from 0 to 3 x1
        ReplicaSet SuccessfulCreate: Created pod: web-764b995d5b-z6kmc x1
        ReplicaSet SuccessfulCreate: Created pod: web-764b995d5b-d242v x1
        ReplicaSet SuccessfulCreate: Created pod: web-764b995d5b-ksvcm x1
        Pod Scheduled: Successfully assigned default/web-764b995d5b-d242v to a x1
        Pod Scheduled: Successfully assigned default/web-764b995d5b-ksvcm to b x1
        Pod Scheduled: Successfully assigned default/web-764b995d5b-z6kmc to c x1
    "#]]
    .assert_eq(&world.events());
}

/// WK1 and WK2 after every single step.
fn within_bounds(world: &World) {
    for (object, deployment) in world.list::<Deployment>() {
        let bounds = bounds(&deployment);
        let pods = world.list::<Pod>();
        let mine: Vec<_> =
            pods.iter().map(|(_, p)| p).filter(|p| p.metadata.labels.as_ref().unwrap()["app"] == *object.key.name).collect();
        let count = mine.iter().filter(|p| active(p)).count() as i32;
        assert!(count <= bounds.most(), "{count} pods\n{}", world.show());
        let serving = mine.iter().filter(|p| active(p) && available(p, 0, world.now)).count() as i32;
        let begun = deployment
            .status
            .as_ref()
            .is_some_and(|s| s.conditions.iter().flatten().any(|c| c.reason.as_deref() == Some("NewReplicaSetAvailable")))
            || deployment.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("begun"));
        if begun {
            assert!(serving >= bounds.least(), "{serving} serving\n{}", world.show());
        }
    }
}

#[test]
fn wk1_wk2_a_rolling_update_stays_within_its_bounds() {
    let mut world = three_nodes();
    world.deployment("web", 5, "web:1", json!({"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}));
    world.settle();
    world.edit(&key::<Deployment>("web"), None, |v| v["metadata"]["annotations"]["begun"] = json!("yes"));
    world.check = within_bounds;
    world.start_seconds = 2;
    world.deployment("web", 5, "web:2", json!({"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}));
    world.pass(30);
    expect![[r#"
        deployment web 5/5 updated 5 ready 5 available 5 Available=True(MinimumReplicasAvailable) Progressing=True(NewReplicaSetAvailable)
          set web:1 revision 1: 0/0 ready 0
          set web:2 revision 2: 5/5 ready 5
            pod web:2 on a ready x2
            pod web:2 on b ready x1
            pod web:2 on c ready x2
    "#]].assert_eq(&world.show());
}

#[test]
fn recreate_stops_the_old_before_it_starts_the_new() {
    let mut world = three_nodes();
    let recreate = json!({"strategy": {"type": "Recreate"}});
    world.deployment("web", 2, "web:1", recreate.clone());
    world.settle();
    world.check = |world| {
        let images: std::collections::BTreeSet<_> = world
            .list::<Pod>()
            .iter()
            .map(|(_, p)| p.spec.as_ref().unwrap().containers[0].image.clone().unwrap_or_default())
            .collect();
        assert!(images.len() <= 1, "{}", world.show());
    };
    world.silent = vec!["a".into(), "b".into(), "c".into()];
    world.deployment("web", 2, "web:2", recreate);
    world.settle();
    expect![[r#"
        deployment web 0/2 updated 0 ready 0 available 0 Progressing=True(NewReplicaSetAvailable) Available=False(MinimumReplicasUnavailable)
          set web:1 revision 1: 0/0 ready 0
            pod web:1 on a leaving x1
            pod web:1 on b leaving x1
    "#]].assert_eq(&world.show());
    world.silent.clear();
    world.settle();
    expect![[r#"
        deployment web 2/2 updated 2 ready 2 available 2 Available=True(MinimumReplicasAvailable) Progressing=True(NewReplicaSetAvailable)
          set web:1 revision 1: 0/0 ready 0
          set web:2 revision 2: 2/2 ready 2
            pod web:2 on a ready x1
            pod web:2 on b ready x1
    "#]].assert_eq(&world.show());
}

#[test]
fn a_paused_deployment_does_not_roll_but_scales() {
    let mut world = three_nodes();
    world.deployment("web", 4, "web:1", json!({}));
    world.settle();
    world.deployment("web", 4, "web:2", json!({"paused": true}));
    world.settle();
    expect![[r#"
        deployment web 4/4 updated 0 ready 4 available 4 Available=True(MinimumReplicasAvailable) Progressing=Unknown(DeploymentPaused)
          set web:1 revision 1: 4/4 ready 4
            pod web:1 on a ready x2
            pod web:1 on b ready x1
            pod web:1 on c ready x1
    "#]].assert_eq(&world.show());
    world.deployment("web", 6, "web:2", json!({"paused": true}));
    world.settle();
    expect![[r#"
        deployment web 6/6 updated 0 ready 6 available 6 Progressing=Unknown(DeploymentPaused) Available=True(MinimumReplicasAvailable)
          set web:1 revision 1: 6/6 ready 6
            pod web:1 on a ready x2
            pod web:1 on b ready x2
            pod web:1 on c ready x2
    "#]].assert_eq(&world.show());
    world.deployment("web", 6, "web:2", json!({}));
    world.settle();
    expect![[r#"
        deployment web 6/6 updated 6 ready 6 available 6 Available=True(MinimumReplicasAvailable) Progressing=True(NewReplicaSetAvailable)
          set web:1 revision 1: 0/0 ready 0
          set web:2 revision 2: 6/6 ready 6
            pod web:2 on a ready x2
            pod web:2 on b ready x2
            pod web:2 on c ready x2
    "#]].assert_eq(&world.show());
}

#[test]
fn a_rollout_that_cannot_finish_is_late_and_scaling_it_keeps_proportions() {
    let mut world = three_nodes();
    let strategy = json!({"strategy": {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}, "progressDeadlineSeconds": 20});
    world.deployment("web", 10, "web:1", strategy.clone());
    world.settle();
    world.broken.push("web:2".into());
    world.deployment("web", 10, "web:2", strategy.clone());
    world.pass(19);
    expect![[r#"
        deployment web 13/10 updated 5 ready 8 available 8 Available=True(MinimumReplicasAvailable) Progressing=True(ReplicaSetUpdated)
          set web:1 revision 1: 8/8 ready 8
          set web:2 revision 2: 5/5 ready 0
            pod web:1 on a ready x2
            pod web:1 on b ready x3
            pod web:1 on c ready x3
            pod web:2 on a not ready x2
            pod web:2 on b not ready x2
            pod web:2 on c not ready x1
    "#]].assert_eq(&world.show());
    world.pass(3);
    assert!(world.show().contains("Progressing=False(ProgressDeadlineExceeded)"), "{}", world.show());
    // Kubernetes' own example: 10 replicas become 15 in the middle of a rollout of 8 + 5.
    world.deployment("web", 15, "web:2", strategy);
    world.settle();
    expect![[r#"
        deployment web 18/15 updated 7 ready 11 available 11 Available=False(MinimumReplicasUnavailable) Progressing=True(ReplicaSetUpdated)
          set web:1 revision 1: 11/11 ready 11
          set web:2 revision 2: 7/7 ready 0
            pod web:1 on a ready x4
            pod web:1 on b ready x3
            pod web:1 on c ready x4
            pod web:2 on a not ready x2
            pod web:2 on b not ready x3
            pod web:2 on c not ready x2
    "#]].assert_eq(&world.show());
}

#[test]
fn what_is_scaled_in_the_middle_of_a_rollout_that_cannot_finish_still_follows_the_next_commit() {
    let rolling = |surge, unavailable| json!({"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
    let recreate = json!({"type": "Recreate"});
    let mut left_behind = String::new();
    for first in [rolling(json!(1), json!(0)), rolling(json!(0), json!(1)), rolling(json!("50%"), json!(0))] {
        for (before, after, last) in (1..=4).flat_map(|b| (1..=4).flat_map(move |a| [false, true].map(move |last| (b, a, last))))
        {
            let last = if last { recreate.clone() } else { first.clone() };
            let mut world = three_nodes();
            world.broken.push("web:2".into());
            world.deployment("web", before, "web:1", json!({"strategy": first}));
            world.settle();
            world.deployment("web", before, "web:2", json!({"strategy": first}));
            world.settle();
            world.deployment("web", after, "web:2", json!({"strategy": first}));
            world.settle();
            world.deployment("web", before, "web:3", json!({"strategy": last}));
            world.settle();
            if !world.show().contains(&format!("{before}/{before} updated {before} ready {before} available {before}")) {
                left_behind += &format!("{first} from {before} to {after} and back with {last}\n{}", world.show());
            }
        }
    }
    assert!(left_behind.is_empty(), "{left_behind}");
}

#[test]
fn going_back_uses_the_old_replica_set_and_history_is_kept_short() {
    let mut world = three_nodes();
    let short = json!({"revisionHistoryLimit": 2});
    for image in ["web:1", "web:2", "web:3", "web:4", "web:2"] {
        world.deployment("web", 2, image, short.clone());
        world.settle();
    }
    expect![[r#"
        deployment web 2/2 updated 2 ready 2 available 2 Available=True(MinimumReplicasAvailable) Progressing=True(NewReplicaSetAvailable)
          set web:2 revision 5: 2/2 ready 2
          set web:3 revision 3: 0/0 ready 0
          set web:4 revision 4: 0/0 ready 0
            pod web:2 on b ready x1
            pod web:2 on c ready x1
    "#]].assert_eq(&world.show());
    let sets = world.list::<k8s_openapi::api::apps::v1::ReplicaSet>();
    let two = sets.iter().find(|(o, _)| o.meta.annotations.contains_key("deployment.kubernetes.io/revision-history"));
    let history = two.map(|(o, _)| o.meta.annotations["deployment.kubernetes.io/revision-history"].clone());
    assert_eq!(history.as_deref(), Some("2"));
    let deployment = world.store.get(&key::<Deployment>("web")).unwrap();
    assert_eq!(deployment.meta.annotations["deployment.kubernetes.io/revision"], "5");
}

#[test]
fn wk4_a_taken_name_is_a_collision_and_another_name_is_found() {
    let mut world = three_nodes();
    world.deployment("web", 1, "web:1", json!({}));
    world.settle();
    let name = world.list::<k8s_openapi::api::apps::v1::ReplicaSet>()[0].0.key.name.clone();
    let mut other = three_nodes();
    other.apply(json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": &*name, "namespace": "default"},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"x": "y"}},
            "template": {"metadata": {"labels": {"x": "y"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    }));
    other.deployment("web", 1, "web:1", json!({}));
    other.settle();
    let (_, deployment) = other.list::<Deployment>().remove(0);
    assert_eq!(deployment.status.as_ref().unwrap().collision_count, Some(1));
    assert!(other.show().contains("web:1 revision 1: 1/1 ready 1"), "{}", other.show());
}

#[test]
fn wk5_pods_are_adopted_by_selector_and_let_go_when_they_no_longer_match() {
    let mut world = three_nodes();
    world.apply(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stray", "namespace": "default", "labels": {"app": "web", "tier": "x"}},
        "spec": {"containers": [{"name": "c", "image": "web:1"}]},
    }));
    world.settle();
    world.apply(json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "set", "namespace": "default"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "web:1"}]}},
        },
    }));
    world.settle();
    assert_eq!(world.list::<Pod>().len(), 2, "{}", world.show());
    let owner = |world: &World| world.store.get(&key::<Pod>("stray")).unwrap().meta.controller().map(|o| o.name.clone());
    assert_eq!(owner(&world).as_deref(), Some("set"));
    world.edit(&key::<Pod>("stray"), None, |v| v["metadata"]["labels"] = json!({"app": "quarantined"}));
    world.settle();
    assert_eq!(owner(&world), None);
    assert_eq!(world.list::<Pod>().len(), 3, "{}", world.show());
}

#[test]
fn min_ready_seconds_delay_availability() {
    let mut world = three_nodes();
    world.deployment("web", 2, "web:1", json!({"minReadySeconds": 10}));
    world.pass(9);
    assert!(world.show().contains("ready 2 available 0"), "{}", world.show());
    world.pass(2);
    assert!(world.show().contains("ready 2 available 2"), "{}", world.show());
}

#[test]
fn wk7_at_rest_nothing_is_written() {
    let mut world = three_nodes();
    world.deployment("web", 5, "web:1", json!({"minReadySeconds": 5}));
    world.deployment(
        "big",
        2,
        "web:1",
        json!({"template": {
            "metadata": {"labels": {"app": "big"}},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "64"}}}]},
        }}),
    );
    world.pass(20);
    let before = world.store.revision();
    world.pass(60);
    // Agents renew their leases, and that is all.
    let others = world.store.changes(before).unwrap().into_iter().filter(|c| c.key.kind.kind != "Lease");
    assert_eq!(others.map(|c| c.key.to_string()).collect::<Vec<_>>(), Vec::<String>::new());
}
