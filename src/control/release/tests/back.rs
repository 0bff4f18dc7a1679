//! The way back, and what is waited for: what is there again afterwards, what serves meanwhile, and what is said.

use expect_test::expect;
use serde_json::json;

use super::*;
use crate::object::ours::{Phase, Release, Rendering};

fn data(house: &House, name: &str) -> Option<Value> {
    house.store.get(&Key::of::<ConfigMap>("default", name)).map(|o| o.value()["data"].clone())
}

fn protected(name: &str, value: &str) -> Value {
    let mut config = config(name, value);
    config["metadata"]["annotations"] = json!({"portolan.dev/prune": "false"});
    config
}

/// A good release that does not want `extra`, which stays because it is protected.
fn keep_extra(house: &mut House) {
    house.push("c1", &[protected("extra", "1"), config("settings", "1"), web("web:1")]);
    house.pass(4);
    house.push("c2", &[config("settings", "1"), web("web:1")]);
    house.pass(4);
    assert_eq!(house.status("app").last_good, "app-2", "{}", house.show());
}

#[test]
fn rb1_what_was_kept_when_a_release_was_good_comes_back_as_it_was() {
    for forgetful in [false, true] {
        let mut house = House::with_app(json!({"soakSeconds": 2}));
        house.forgetful = forgetful;
        keep_extra(&mut house);
        assert!(house.store.get(&Key::of::<ConfigMap>("default", "extra")).is_some(), "protected");
        let mut changed = config("extra", "bad");
        changed["data"]["more"] = json!("bad");
        house.push("c3", &[changed, config("settings", "3"), web("crash:3")]);
        house.pass(1);
        assert_eq!(data(&house, "extra"), Some(json!({"key": "bad", "more": "bad"})));
        house.pass(15);
        expect![[r#"
            app Held RolledBack good=app-2 target=app-2: serving app-2 (c2), because app-3 was bad: Deployment default/web: pod web-8554f4fff7-h2ddv on a: CrashLoopBackOff: container c ended with exit code 3, restarted 2 times
              app-1 c1 Healthy Good: good
              app-2 c2 Healthy Good: good
              app-3 c3 RolledBack RolledBack: bad: Deployment default/web: pod web-8554f4fff7-h2ddv on a: CrashLoopBackOff: container c ended with exit code 3, restarted 2 times
            config extra {"key":"1"}
            config settings {"key":"1"}
            deployment web web:1 3/3
              pods web:1 x3
        "#]]
        .assert_eq(&house.show());
        assert_eq!(data(&house, "extra"), Some(json!({"key": "1"})));
        let extra = house.store.get(&Key::of::<ConfigMap>("default", "extra")).unwrap();
        assert_eq!(extra.meta.annotations.get("portolan.dev/prune").map(String::as_str), Some("false"));
        assert!(house.status("app").inventory.items().any(|i| i.name == "extra"), "it is still known");
        // What is kept is nobody's drift.
        house.edit(&Key::of::<ConfigMap>("default", "extra"), None, |v| v["data"]["key"] = json!("by hand"));
        house.pass(3);
        assert_eq!(data(&house, "extra"), Some(json!({"key": "by hand"})));
    }
}

#[test]
fn rb1_what_a_failed_trial_took_over_is_given_back() {
    for forgetful in [false, true] {
        let mut house = good();
        house.forgetful = forgetful;
        house.apply(config("theirs", "before"));
        let before = house.store.get(&Key::of::<ConfigMap>("default", "theirs")).unwrap();
        let mut changed = config("theirs", "bad");
        changed["data"]["more"] = json!("bad");
        // A first trial that takes it over is superseded by another one, which is bad.
        house.push("c2", &[changed, config("settings", "1"), web("never:2")]);
        house.pass(2);
        house.push("c3", &[config("theirs", "worse"), config("settings", "1"), web("crash:3")]);
        house.pass(1);
        assert_eq!(data(&house, "theirs"), Some(json!({"key": "worse"})));
        house.pass(15);
        assert_eq!(format!("{:?}", house.status("app").phase), "RolledBack", "{}", house.show());
        let after = house.store.get(&Key::of::<ConfigMap>("default", "theirs")).unwrap();
        assert_eq!(after.value()["data"], before.value()["data"]);
        assert_eq!((&after.meta.uid, &after.meta.annotations), (&before.meta.uid, &before.meta.annotations), "nobody's again");
        assert!(!house.status("app").inventory.items().any(|i| i.name == "theirs"), "forgotten");
        let revision = after.revision;
        house.pass(20);
        assert_eq!(house.store.get(&after.key).unwrap().revision, revision);
    }
}

/// A release with `extra` that stays because it is protected, and one that is bad, creates `new` and `mail`, changes `extra` and takes over
/// `theirs`. It ends while it goes back, or with the trial if that never comes to an end by itself.
fn bad_and_under_way(image: &str) -> House {
    let mut house = House::with_app(json!({"soakSeconds": 2}));
    house.apply(config("theirs", "before"));
    keep_extra(&mut house);
    let bad = [config("extra", "bad"), config("theirs", "bad"), config("new", "bad"), deployment("mail", image, 1)];
    house.push("c3", &[config("settings", "1"), web("web:1")].into_iter().chain(bad).collect::<Vec<_>>());
    for _ in 0..20 {
        house.now += SignedDuration::from_secs(1);
        house.heartbeat();
        while house.round() {
            if house.status("app").phase == Phase::RollingBack {
                return house;
            }
        }
    }
    assert_eq!(data(&house, "theirs"), Some(json!({"key": "bad"})), "{}", house.show());
    house
}

/// Everything is as it was before the bad release.
fn is_undone(house: &House, release: &str) {
    assert_eq!((data(house, "theirs"), data(house, "new")), (Some(json!({"key": "before"})), None), "{}", house.show());
    assert_eq!(data(house, "extra"), Some(json!({"key": "1"})), "{}", house.show());
    assert!(house.store.get(&Key::of::<Deployment>("default", "mail")).is_none(), "{}", house.show());
    let inventory = house.status("app").inventory;
    let items: Vec<_> = inventory.items().map(|i| i.name.as_str()).collect();
    assert_eq!(items, ["extra", "settings", "web"], "what was given back is forgotten, and what is kept is not");
    let kept = Key::of::<Rendering>(SYSTEM_NAMESPACE, &format!("{release}-kept-0"));
    assert!(house.store.get(&kept).is_some(), "a way back to {release} leads back to what it kept");
}

#[test]
fn rb1_a_commit_that_interrupts_the_way_back_undoes_what_that_would_have() {
    let mut house = bad_and_under_way("crash:3");
    assert_eq!(house.status("app").phase, Phase::RollingBack, "{}", house.show());
    house.push("c4", &[config("settings", "4"), web("web:1")]);
    house.pass(20);
    expect![[r#"
        app Synced Healthy good=app-4 target=app-4: serving app-4 (c4)
          app-1 c1 Healthy Good: good
          app-2 c2 Healthy Good: good
          app-3 c3 RolledBack RolledBack: bad: Deployment default/mail: pod mail-65d8f784b-hwsxl on a: CrashLoopBackOff: container c ended with exit code 3, restarted 2 times
          app-4 c4 Healthy Good: good
        config extra {"key":"1"}
        config settings {"key":"4"}
        config theirs {"key":"before"}
        deployment web web:1 3/3
          pods web:1 x3
    "#]]
    .assert_eq(&house.show());
    is_undone(&house, "app-4");
}

#[test]
fn rb1_so_does_one_that_overtakes_a_trial() {
    let mut house = bad_and_under_way("never:3");
    assert_eq!(house.status("app").trial, "app-3", "{}", house.show());
    house.push("c4", &[config("settings", "4"), web("web:1")]);
    house.pass(20);
    assert_eq!(house.status("app").last_good, "app-4", "{}", house.show());
    is_undone(&house, "app-4");
}

#[test]
fn rb1_a_refused_commit_does_not_end_the_way_back() {
    let mut house = bad_and_under_way("crash:3");
    assert_eq!(house.status("app").phase, Phase::RollingBack, "{}", house.show());
    let mut recreated = web("missing:4");
    recreated["spec"]["strategy"] = json!({"type": "Recreate"});
    house.push("c4", &[config("settings", "1"), recreated]);
    house.pass(40);
    let status = house.status("app");
    assert_eq!((status.phase, &*status.last_good, &*status.target), (Phase::RolledBack, "app-2", "app-2"), "{}", house.show());
    assert!(house.show().contains("app-4 c4 Preflight Rejected"), "{}", house.show());
    is_undone(&house, "app-2");
}

/// What a first trial gave back, and people changed since, is noted again by the next one that takes it over.
#[test]
fn rb1_what_was_given_back_is_its_owners_again() {
    let mut house = bad_and_under_way("crash:3");
    house.push("c4", &[config("settings", "4"), web("web:1"), deployment("slow", "never:4", 1)]);
    house.pass(3);
    assert_eq!(data(&house, "theirs"), Some(json!({"key": "before"})), "{}", house.show());
    house.edit(&Key::of::<ConfigMap>("default", "theirs"), None, |v| v["data"]["key"] = json!("mine"));
    house.push("c5", &[config("settings", "5"), web("crash:5"), config("theirs", "taken again")]);
    house.pass(1);
    assert_eq!(data(&house, "theirs"), Some(json!({"key": "taken again"})), "{}", house.show());
    house.pass(40);
    assert_eq!(house.status("app").phase, Phase::RolledBack, "{}", house.show());
    assert_eq!(data(&house, "theirs"), Some(json!({"key": "mine"})), "{}", house.show());
}

/// A good release, at rest.
fn good() -> House {
    let mut house = House::with_app(json!({"soakSeconds": 2}));
    house.push("c1", &[config("settings", "1"), web("web:1")]);
    house.pass(4);
    assert_eq!(house.status("app").last_good, "app-1", "{}", house.show());
    house
}

/// The number of pods with this image that are ready and stay.
fn serving(house: &House, image: &str) -> usize {
    let ready = |pod: &Pod| {
        let is = |c: &k8s_openapi::api::core::v1::PodCondition| c.type_ == "Ready" && c.status == "True";
        pod.status.as_ref().is_some_and(|s| s.conditions.iter().flatten().any(is))
    };
    let of = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image);
    house.list::<Pod>().iter().filter(|(o, pod)| !o.meta.deleting() && of(pod) && ready(pod)).count()
}

#[test]
fn wk2_a_bad_trial_never_costs_a_serving_pod_and_its_surge_goes() {
    let careful = |image: &str| {
        let mut web = web(image);
        web["spec"]["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 2}});
        web
    };
    for bad in ["crash:2", "missing:2"] {
        let mut house = House::with_app(json!({"soakSeconds": 2}));
        house.push("c1", &[config("settings", "1"), careful("web:1"), deployment("other", "other:1", 2)]);
        house.pass(5);
        assert_eq!(house.status("app").last_good, "app-1", "{}", house.show());
        let before = house.identities();
        let generations = |house: &House| {
            house.list::<Deployment>().iter().map(|(o, _)| (o.key.clone(), o.meta.generation)).collect::<BTreeMap<_, _>>()
        };
        let other = Key::of::<Deployment>("default", "other");
        let untouched = generations(&house)[&other];
        house.check = |house| assert!(serving(house, "web:1") >= 3, "fewer than asked for serve:\n{}", house.show());
        house.push("c2", &[config("settings", "2"), careful(bad), deployment("other", "other:1", 2)]);
        house.pass(1);
        if bad == "crash:2" {
            assert!(house.running().contains("pods crash:2 x2"), "{}", house.show());
        }
        house.pass(20);
        assert_eq!(format!("{:?}", house.status("app").phase), "RolledBack", "{}", house.show());
        assert_eq!(house.identities(), before, "the surge is gone and the very same pods serve");
        assert_eq!(generations(&house)[&other], untouched, "what did not change is not written");
        assert_eq!(data(&house, "settings"), Some(json!({"key": "1"})));
    }
}

#[test]
fn rb5_configuration_alone_goes_back_without_a_restart() {
    let mut house = House::with_app(json!({"soakSeconds": 2}));
    house.push("c1", &[config("settings", "1"), web("web:1")]);
    house.pass(4);
    let before = house.identities();
    house.push("c2", &[config("settings", "2"), web("web:1"), deployment("new", "crash:1", 1)]);
    house.pass(15);
    expect![[r#"
        app Held RolledBack good=app-1 target=app-1: serving app-1 (c1), because app-2 was bad: Deployment default/new: pod new-5fdf9695ff-46fj4 on a: CrashLoopBackOff: container c ended with exit code 3, restarted 2 times
          app-1 c1 Healthy Good: good
          app-2 c2 RolledBack RolledBack: bad: Deployment default/new: pod new-5fdf9695ff-46fj4 on a: CrashLoopBackOff: container c ended with exit code 3, restarted 2 times
        config settings {"key":"1"}
        deployment web web:1 3/3
          pods web:1 x3
    "#]]
    .assert_eq(&house.show());
    assert_eq!(house.identities(), before);
}

#[test]
fn pods_that_find_no_room_are_named_and_a_newer_commit_comes_at_once() {
    let mut house = good();
    // Every host is closed in the moment after the look at whether there is room.
    house.push("c2", &[config("settings", "1"), web("web:2")]);
    house.release_step();
    for node in ["a", "b", "c"] {
        house.edit(&Key::of::<Node>("", node), None, |v| v["spec"]["unschedulable"] = json!(true));
    }
    house.pass(700);
    expect![[r#"
        app OutOfSync Errored good=app-1 trial=app-2 target=app-2: rolling out app-2
          waits on Deployment default/web: 1 of 3 new replicas are there; pod web-78548fb599-hz46f: Unschedulable: 0/3 nodes are available: 3 node(s) were unschedulable.
          app-1 c1 Healthy Good: good
          app-2 c2 Errored no verdict: is being rolled out
        config settings {"key":"1"}
        deployment web web:2 3/3
          pods web:1 x3
          pods web:2 x1
    "#]]
    .assert_eq(&house.show());
    let on = house.list::<Release>().iter().find(|(o, _)| &*o.key.name == "app-2").unwrap().1.status.clone().unwrap().waiting_on;
    assert_eq!(on, house.status("app").waiting_on, "the record says it as well");
    assert!(house.status("app").quarantine.is_empty());
    // Configuration needs no room.
    house.push("c3", &[config("settings", "3"), web("web:1")]);
    house.pass(3);
    expect![[r#"
        app Synced Healthy good=app-3 target=app-3: serving app-3 (c3)
          app-1 c1 Healthy Good: good
          app-2 c2 Errored Superseded: superseded by app-3 (c3)
          app-3 c3 Healthy Good: good
        config settings {"key":"3"}
        deployment web web:1 3/3
          pods web:1 x3
    "#]]
    .assert_eq(&house.show());
}

#[test]
fn a_host_that_is_not_well_yet_is_waited_for_and_then_it_goes_at_once() {
    let nodes = ["a", "b", "c"].map(|name| Key::of::<Node>("", name));
    for ill in ["not ready", "no condition", "cordoned", "pressure", "none"] {
        let mut house = House::with_app(json!({"soakSeconds": 1}));
        let well: Vec<Value> = nodes.iter().map(|key| house.store.get(key).unwrap().value()).collect();
        for key in &nodes {
            let conditions = match ill {
                "not ready" => json!([{"type": "Ready", "status": "False", "lastTransitionTime": stamp(house.now)}]),
                _ => json!([]),
            };
            match ill {
                "none" => house.delete(key),
                "cordoned" => house.edit(key, None, |v| v["spec"]["unschedulable"] = json!(true)),
                "pressure" => {
                    let taint = json!({"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"});
                    house.edit(key, None, |v| v["spec"]["taints"] = json!([taint]));
                }
                _ => house.edit(key, Some("status"), |v| v["status"]["conditions"] = conditions),
            }
        }
        house.settle();
        house.push("c1", &[config("settings", "1"), web("web:1")]);
        house.pass(30);
        let status = house.status("app");
        assert_eq!((status.releases, status.problems.len()), (0, 0), "{ill}:\n{}", house.show());
        assert_eq!(format!("{:?}", status.phase), "Errored", "{ill}:\n{}", house.show());
        assert!(!status.waiting_on.is_empty(), "{ill}");
        for (key, well) in nodes.iter().zip(&well) {
            if ill == "none" {
                house.apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": &*key.name}}));
            }
            house.edit(key, None, |v| {
                v["spec"] = well["spec"].clone();
            });
            house.edit(key, Some("status"), |v| v["status"] = well["status"].clone());
        }
        house.heartbeat();
        house.settle();
        assert_eq!(house.status("app").trial, "app-1", "{ill}, and no time passed:\n{}", house.show());
    }
}

#[test]
fn without_hosts_configuration_goes_through() {
    let mut house = House::with_app(json!({"soakSeconds": 1}));
    for node in ["a", "b", "c"] {
        house.delete(&Key::of::<Node>("", node));
    }
    house.push("c1", &[config("settings", "1"), deployment("later", "web:1", 0)]);
    house.pass(4);
    assert_eq!(house.status("app").last_good, "app-1", "{}", house.show());
}

#[test]
fn pods_that_want_to_be_near_pods_of_the_same_commit_are_no_impossibility() {
    let mut house = House::with_app(json!({"soakSeconds": 1}));
    let mut near = deployment("a", "web:1", 1);
    near["spec"]["template"]["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
        json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "b"}}}]);
    for node in ["a", "b", "c"] {
        house.edit(&Key::of::<Node>("", node), None, |v| v["metadata"]["labels"] = json!({"kubernetes.io/hostname": node}));
    }
    house.push("c1", &[near, deployment("b", "web:1", 1)]);
    house.pass(4);
    assert_eq!(house.status("app").last_good, "app-1", "{}", house.show());
}

#[test]
fn wk7_at_rest_nothing_is_written_while_git_is_away() {
    let mut house = good();
    house.say("app", Head::Away);
    house.pass(1);
    let before = house.store.revision();
    house.others.clear();
    for _ in 0..100 {
        house.now += SignedDuration::from_secs(10);
        house.say("app", Head::Away);
        house.round();
    }
    assert_eq!(house.store.revision(), before, "an error that stays is no news");
    assert!(house.status("app").fetch_error.contains("nobody answers"));
}
