//! What becomes of commits, from the first push to the last rollback.

use expect_test::expect;
use serde_json::json;

use super::*;

#[test]
fn a_good_commit_becomes_last_good_and_then_nothing_is_written() {
    let mut house = House::with_app(json!({"soakSeconds": 5}));
    house.push("c1", &[config("settings", "1"), web("web:1")]);
    house.pass(7);
    expect![[r#"
        app Synced Healthy good=app-1 target=app-1: serving app-1 (c1)
          app-1 c1 Healthy Good: good
        config settings {"key":"1"}
        deployment web web:1 3/3
          pods web:1 x3
    "#]]
    .assert_eq(&house.show());
    let before = house.store.revision();
    house.others.clear();
    for _ in 0..100 {
        house.now += SignedDuration::from_secs(10);
        house.round();
    }
    assert_eq!(house.store.revision(), before, "at rest nothing is written");
}

/// A good release, at rest.
fn good() -> House {
    let mut house = House::with_app(json!({"soakSeconds": 2}));
    house.push("c1", &[config("settings", "1"), web("web:1")]);
    house.pass(4);
    assert_eq!(house.status("app").last_good, "app-1", "{}", house.show());
    house
}

#[test]
fn rb1_rb5_a_bad_commit_goes_back_to_exactly_the_last_good_and_a_fix_goes_forward() {
    let mut house = good();
    let before = (house.running(), house.identities());
    house.push("c2", &[config("settings", "2"), config("extra", "x"), web("crash:2")]);
    house.pass(1);
    expect![[r#"
        app OutOfSync RollingOut good=app-1 trial=app-2 target=app-2: rolling out app-2
          waits on Deployment default/web: 1 of 3 new replicas are there; pod web-86d6f9679b-46fj4 on a: Error: container c ended with exit code 3, restarted 1 times
          app-1 c1 Healthy Good: good
          app-2 c2 RollingOut no verdict: is being rolled out
        config extra {"key":"x"}
        config settings {"key":"2"}
        deployment web crash:2 3/3
          pods crash:2 x1
          pods web:1 x3
    "#]].assert_eq(&house.show());
    house.pass(9);
    expect![[r#"
        app Held RolledBack good=app-1 target=app-1: serving app-1 (c1), because app-2 was bad: Deployment default/web: pod web-86d6f9679b-46fj4 on a: CrashLoopBackOff: container c ended with exit code 3, restarted 2 times
          app-1 c1 Healthy Good: good
          app-2 c2 RolledBack RolledBack: bad: Deployment default/web: pod web-86d6f9679b-46fj4 on a: CrashLoopBackOff: container c ended with exit code 3, restarted 2 times
        config settings {"key":"1"}
        deployment web web:1 3/3
          pods web:1 x3
    "#]].assert_eq(&house.show());
    assert_eq!((house.running(), house.identities()), before, "the very same pods serve");
    // GI2: the same content under another commit is not tried again.
    house.push("c3", &[config("settings", "2"), config("extra", "x"), web("crash:2")]);
    house.pass(30);
    assert_eq!((house.running(), house.identities()), before);
    assert_eq!(house.status("app").releases, 2);
    house.push("c4", &[config("settings", "2"), web("web:3")]);
    house.pass(5);
    expect![[r#"
        app Synced Healthy good=app-3 target=app-3: serving app-3 (c4)
          app-1 c1 Healthy Good: good
          app-2 c2 RolledBack RolledBack: bad: Deployment default/web: pod web-86d6f9679b-46fj4 on a: CrashLoopBackOff: container c ended with exit code 3, restarted 2 times
          app-3 c4 Healthy Good: good
        config settings {"key":"2"}
        deployment web web:3 3/3
          pods web:3 x3
    "#]].assert_eq(&house.show());
    expect![[r#"
        RolloutStarted: app-1: commit c1 subject of c1
        Good: app-1 (c1) is good
        RolloutStarted: app-2: commit c2 subject of c2
        Bad: app-2 (c2) is bad, it goes back to app-1: Deployment default/web: pod web-86d6f9679b-46fj4 on a: CrashLoopBackOff: container c ended with exit code 3, restarted 2 times
        Pruned: deleted what git no longer has: ConfigMap default/extra
        RolledBack: back at app-1 (c1)
        RolloutStarted: app-3: commit c4 subject of c4
        Good: app-3 (c4) is good"#]].assert_eq(&house.events().join("\n"));
}

#[test]
fn a_revert_is_synced_at_once_and_restarts_nothing() {
    let mut house = good();
    let before = house.identities();
    house.push("c2", &[config("settings", "2"), web("crash:2")]);
    house.pass(10);
    let revision = house.store.revision();
    let objects: Vec<_> = house.list::<Deployment>().into_iter().map(|(o, _)| o.revision).collect();
    house.push("c3", &[config("settings", "1"), web("web:1")]);
    house.settle();
    let status = house.status("app");
    assert_eq!(
        (format!("{:?} {:?}", status.sync, status.phase), status.observed_commit.as_str()),
        ("Synced Healthy".into(), "c3")
    );
    assert_eq!(house.identities(), before);
    assert_eq!(
        house.list::<Deployment>().into_iter().map(|(o, _)| o.revision).collect::<Vec<_>>(),
        objects,
        "not even an annotation"
    );
    assert!(house.store.revision() <= revision + 2, "one status");
}

#[test]
fn a_newer_commit_supersedes_a_stuck_trial_at_once() {
    let mut house = good();
    house.push("c2", &[config("settings", "1"), web("never:2")]);
    house.pass(3);
    expect![[r#"
        app OutOfSync RollingOut good=app-1 trial=app-2 target=app-2: rolling out app-2
          waits on Deployment default/web: 1 of 3 new replicas are there; pod web-8566d6d9f5-hz46f: container c: running, not ready
          app-1 c1 Healthy Good: good
          app-2 c2 RollingOut no verdict: is being rolled out
        config settings {"key":"1"}
        deployment web never:2 3/3
          pods never:2 x1
          pods web:1 x3
    "#]].assert_eq(&house.show());
    house.push("c3", &[config("settings", "1"), web("web:3")]);
    house.pass(4);
    expect![[r#"
        app Synced Healthy good=app-3 target=app-3: serving app-3 (c3)
          app-1 c1 Healthy Good: good
          app-2 c2 RollingOut Superseded: superseded by app-3 (c3)
          app-3 c3 Healthy Good: good
        config settings {"key":"1"}
        deployment web web:3 3/3
          pods web:3 x3
    "#]]
    .assert_eq(&house.show());
    // A revert in the middle of a trial: back without a verdict on anybody.
    house.push("c4", &[config("settings", "1"), web("never:4")]);
    house.pass(2);
    house.push("c5", &[config("settings", "1"), web("web:3")]);
    house.pass(2);
    expect![[r#"
        app Synced Healthy good=app-3 target=app-3: serving app-3 (c3)
          app-1 c1 Healthy Good: good
          app-2 c2 RollingOut Superseded: superseded by app-3 (c3)
          app-3 c3 Healthy Good: good
          app-4 c4 RollingOut Superseded: superseded by app-3
        config settings {"key":"1"}
        deployment web web:3 3/3
          pods web:3 x3
    "#]]
    .assert_eq(&house.show());
}

#[test]
fn without_progress_a_release_is_bad_at_its_deadline_and_says_what_it_waited_on() {
    let mut house = House::with_app(json!({"soakSeconds": 1, "progressDeadlineSeconds": 30}));
    house.push("c1", &[web("web:1")]);
    house.pass(3);
    house.push("c2", &[web("never:2")]);
    house.pass(29);
    assert_eq!(house.status("app").trial, "app-2");
    house.pass(3);
    expect![[r#"
        app Held RolledBack good=app-1 target=app-1: serving app-1 (c1), because app-2 was bad: Deployment default/web: ProgressDeadlineExceeded: nothing moved for 30 seconds: 1 of 3 new replicas are there; pod web-8566d6d9f5-znhz4: container c: running, not ready
          app-1 c1 Healthy Good: good
          app-2 c2 RolledBack RolledBack: bad: Deployment default/web: ProgressDeadlineExceeded: nothing moved for 30 seconds: 1 of 3 new replicas are there; pod web-8566d6d9f5-znhz4: container c: running, not ready
        deployment web web:1 3/3
          pods web:1 x3
    "#]].assert_eq(&house.show());
}

#[test]
fn a_first_release_that_is_bad_stays_and_is_stuck_until_a_fix() {
    let mut house = House::with_app(json!({"soakSeconds": 1}));
    house.push("c1", &[web("missing:1")]);
    house.pass(5);
    expect![[r#"
        app Paused Stuck target=app-1: app-1 is stuck: Deployment default/web: pod web-75cc6f64cd-5wfqm on a: ImagePullBackOff: manifest unknown
          waits on a new commit, `portolan retry` or `portolan rollback`
          app-1 c1 Stuck Stuck: bad: Deployment default/web: pod web-75cc6f64cd-5wfqm on a: ImagePullBackOff: manifest unknown
        deployment web missing:1 0/3
          pods missing:1 x3
    "#]].assert_eq(&house.show());
    house.push("c2", &[web("web:2")]);
    house.pass(4);
    assert_eq!(house.status("app").last_good, "app-2", "{}", house.show());
}

#[test]
fn rb6_a_rollback_is_never_rolled_back() {
    let mut house = good();
    house.push("c2", &[config("settings", "2"), web("crash:2")]);
    // The registry lost the good image and the old pods are gone: the way back fails as well.
    house.pass(1);
    for (object, pod) in house.list::<Pod>() {
        if pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("web:1") {
            house.delete(&object.key);
        }
    }
    house.lost = vec!["web:1".to_owned()];
    house.pass(60);
    expect![[r#"
        app Held Stuck good=app-1 target=app-1: app-1 is stuck: Deployment default/web: pod web-764b995d5b-dh2dd on b: ImagePullBackOff: manifest unknown
          waits on a new commit, `portolan retry` or `portolan rollback`
          app-1 c1 Healthy Good: good
          app-2 c2 Stuck Stuck: bad: Deployment default/web: pod web-86d6f9679b-hz46f on a: CrashLoopBackOff: container c ended with exit code 3, restarted 2 times; going to app-1 failed as well: Deployment default/web: pod web-764b995d5b-dh2dd on b: ImagePullBackOff: manifest unknown
        config settings {"key":"1"}
        deployment web web:1 0/3
          pods crash:2 x1
          pods web:1 x3
    "#]].assert_eq(&house.show());
    // It comes back by itself, and that is noticed.
    house.lost.clear();
    house.pass(5);
    expect![[r#"
        app Held RolledBack good=app-1 target=app-1: serving app-1 (c1), because app-2 was bad: Deployment default/web: pod web-86d6f9679b-hz46f on a: CrashLoopBackOff: container c ended with exit code 3, restarted 2 times
          app-1 c1 Healthy Good: good
          app-2 c2 RolledBack RolledBack: bad: Deployment default/web: pod web-86d6f9679b-hz46f on a: CrashLoopBackOff: container c ended with exit code 3, restarted 2 times; going to app-1 failed as well: Deployment default/web: pod web-764b995d5b-dh2dd on b: ImagePullBackOff: manifest unknown
        config settings {"key":"1"}
        deployment web web:1 3/3
          pods web:1 x3
    "#]].assert_eq(&house.show());
}

#[test]
fn a_registry_that_is_away_is_nobodys_fault() {
    let mut house = good();
    house.push("c2", &[config("settings", "1"), web("away:2")]);
    house.pass(700);
    expect![[r#"
        app OutOfSync Errored good=app-1 trial=app-2 target=app-2: rolling out app-2
          waits on Deployment default/web: 1 of 3 new replicas are there; pod web-f9cf7675f-hz46f on a: ImagePullBackOff: dial tcp: connection refused
          app-1 c1 Healthy Good: good
          app-2 c2 Errored no verdict: is being rolled out
        config settings {"key":"1"}
        deployment web away:2 3/3
          pods away:2 x1
          pods web:1 x3
    "#]].assert_eq(&house.show());
    assert!(house.status("app").quarantine.is_empty());
}

#[test]
fn gi11_git_away_changes_nothing_and_rb3_is_not_needed_to_go_back() {
    let mut house = good();
    house.push("c2", &[config("settings", "2"), web("crash:2")]);
    house.pass(1);
    house.say("app", Head::Away);
    house.pass(9);
    assert!(house.running().contains(r#"config settings {"key":"1"}"#), "{}", house.show());
    let before = house.identities();
    house.pass(60);
    assert_eq!(house.identities(), before);
    expect![[r#"
        app Held RolledBack good=app-1 target=app-1: serving app-1 (c1), because app-2 was bad: Deployment default/web: pod web-86d6f9679b-hz46f on a: CrashLoopBackOff: container c ended with exit code 3, restarted 2 times
          app-1 c1 Healthy Good: good
          app-2 c2 RolledBack RolledBack: bad: Deployment default/web: pod web-86d6f9679b-hz46f on a: CrashLoopBackOff: container c ended with exit code 3, restarted 2 times
        config settings {"key":"1"}
        deployment web web:1 3/3
          pods web:1 x3
    "#]].assert_eq(&house.show());
}

#[test]
fn gi4_one_bad_object_and_nothing_is_written() {
    let mut house = good();
    let before = house.running();
    house.say("app", Head::Broken("c2".to_owned()));
    house.pass(3);
    // An immutable field, a Secret that nobody has, a namespace that is not there: all at once, with their places.
    let mut moved = web("web:3");
    moved["spec"]["selector"]["matchLabels"]["app"] = json!("other");
    moved["spec"]["template"]["metadata"]["labels"]["app"] = json!("other");
    let mut needy = deployment("needy", "web:1", 1);
    needy["spec"]["template"]["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "nobody"}}]);
    let mut lost = config("lost", "1");
    lost["metadata"]["namespace"] = json!("nowhere");
    house.push("c3", &[config("settings", "3"), moved, needy, lost]);
    house.pass(3);
    expect![[r#"
        app Invalid Healthy good=app-1 target=app-1: commit c3 was refused; still serving app-1 (c1)
          problem all.yaml:2: Deployment default/web: spec.selector: Invalid value: {"matchLabels":{"app":"other"}}: field is immutable
          problem all.yaml:3: Deployment default/needy needs Secret "nobody", which is neither in this commit nor in the cluster
          problem all.yaml:4: namespace "nowhere" does not exist
          app-1 c1 Healthy Good: good
          app-2 c2 Preflight Rejected: commit c2 was refused: 1 problem
          app-3 c3 Preflight Rejected: commit c3 was refused: 3 problems
        config settings {"key":"1"}
        deployment web web:1 3/3
          pods web:1 x3
    "#]].assert_eq(&house.show());
    assert_eq!(house.running(), before);
    house.push("c4", &[config("settings", "1"), web("web:1")]);
    house.pass(1);
    assert!(house.status("app").problems.is_empty());
}

#[test]
fn gi6_a_commit_without_objects_prunes_nothing() {
    let mut house = good();
    let before = house.running();
    house.push("c2", &[]);
    house.pass(10);
    assert_eq!(house.running(), before);
    expect![[r#"
        app Invalid Healthy good=app-1 target=app-1: commit c2 was refused; still serving app-1 (c1)
          problem app:0: the commit has no object at all
          app-1 c1 Healthy Good: good
          app-2 c2 Preflight Rejected: commit c2 was refused: 1 problem
        config settings {"key":"1"}
        deployment web web:1 3/3
          pods web:1 x3
    "#]]
    .assert_eq(&house.show());
    // Consent comes later, and counts then.
    house.edit(&app("app"), None, |v| v["spec"]["policy"]["allowEmpty"] = json!(true));
    house.pass(6);
    expect![[r#"
        app Synced Healthy good=app-3 target=app-3: serving app-3 (c2)
          app-1 c1 Healthy Good: good
          app-2 c2 Preflight Rejected: commit c2 was refused: 1 problem
          app-3 c2 Healthy Good: good
    "#]]
    .assert_eq(&house.show());
}

#[test]
fn gi6_a_prune_happens_after_everything_is_healthy_and_within_its_budget() {
    let mut house = House::with_app(json!({"soakSeconds": 2}));
    house.push("c1", &[config("a", "1"), config("b", "1"), config("c", "1"), web("web:1")]);
    house.pass(4);
    house.push("c2", &[config("a", "1"), config("b", "1"), web("slow:2")]);
    house.pass(1);
    assert!(house.running().contains("config c"), "not before the soak");
    house.pass(20);
    assert!(!house.running().contains("config c"), "{}", house.show());
    assert_eq!(house.status("app").last_good, "app-2");
    house.push("c3", &[config("b", "1"), web("slow:2")]);
    house.pass(8);
    assert!(!house.running().contains("config a"), "a third is within the budget");
    // Somebody else's object of the same name is not ours, whatever is written on it.
    house.push("c4", &[config("b", "1"), config("d", "1"), web("slow:2")]);
    house.pass(5);
    house.delete(&Key::of::<ConfigMap>("default", "d"));
    let mut foreign = config("d", "foreign");
    foreign["metadata"]["annotations"] = json!({"portolan.dev/application": "portolan-system/app"});
    house.apply(foreign);
    house.push("c5", &[config("b", "1"), web("slow:2")]);
    house.pass(8);
    assert!(house.running().contains("config d"), "{}", house.show());
}

#[test]
fn gi7_two_applications_never_own_one_object_and_a_move_is_a_hand_over() {
    let mut house = good();
    house.application("two", json!({"policy": {"soakSeconds": 1}}));
    house.say("two", Head::Objects("d1".to_owned(), vec![config("settings", "two"), config("mine", "1")]));
    house.pass(5);
    expect![[r#"
        app Synced Healthy good=app-1 target=app-1: serving app-1 (c1)
          app-1 c1 Healthy Good: good
        two Invalid Preflight: commit d1 was refused, and there was none before it
          problem all.yaml:1: ConfigMap default/settings belongs to Application portolan-system/app
          two-1 d1 Preflight Rejected: commit d1 was refused: 1 problem
        config settings {"key":"1"}
        deployment web web:1 3/3
          pods web:1 x3
    "#]]
    .assert_eq(&house.show());
    // `app` gives it up and `two` takes it, in one commit: nothing is deleted in between.
    let uid = |house: &House| house.store.get(&Key::of::<ConfigMap>("default", "settings")).unwrap().meta.uid.clone();
    let before = uid(&house);
    house.push("c2", &[web("web:1")]);
    house.pass(10);
    assert_eq!(uid(&house), before);
    expect![[r#"
        app Synced Healthy good=app-2 target=app-2: serving app-2 (c2)
          app-1 c1 Healthy Good: good
          app-2 c2 Healthy Good: good
        two Synced Healthy good=two-2 target=two-2: serving two-2 (d1)
          two-1 d1 Preflight Rejected: commit d1 was refused: 1 problem
          two-2 d1 Healthy Good: good
        config mine {"key":"1"}
        config settings {"key":"two"}
        deployment web web:1 3/3
          pods web:1 x3
    "#]]
    .assert_eq(&house.show());
}

#[test]
fn gi10_drift_is_put_back_once_and_a_fight_slows_down() {
    let mut house = good();
    let key = Key::of::<ConfigMap>("default", "settings");
    house.edit(&key, None, |v| v["data"]["key"] = json!("by hand"));
    let before = house.store.get(&key).unwrap().revision;
    house.settle();
    assert!(house.running().contains(r#"{"key":"1"}"#));
    assert!(house.store.get(&key).unwrap().revision > before);
    let mut repairs = 0;
    for _ in 0..60 {
        let value = house.store.get(&key).unwrap().value();
        if value["data"]["key"] == "1" {
            repairs += 1;
            house.edit(&key, None, |v| v["data"]["key"] = json!("by hand"));
        }
        house.pass(1);
    }
    assert!(repairs < 8, "{repairs} repairs in a minute are a fight");
    house.delete(&Key::of::<Deployment>("default", "web"));
    house.pass(3);
    assert!(house.running().contains("deployment web web:1 3/3"), "{}", house.show());
    assert_eq!(house.status("app").releases, 1, "drift is no release");
}

#[test]
fn drift_is_left_alone_where_the_author_says_so() {
    let mut house = House::with_app(json!({"soakSeconds": 1}));
    let mut free = config("free", "1");
    free["metadata"]["annotations"] = json!({"portolan.dev/self-heal": "false"});
    house.push("c1", &[free.clone(), web("web:1")]);
    house.pass(3);
    let key = Key::of::<ConfigMap>("default", "free");
    house.edit(&key, None, |v| v["data"]["key"] = json!("by hand"));
    house.pass(3);
    assert_eq!(house.store.get(&key).unwrap().value()["data"]["key"], "by hand");
    assert_eq!(format!("{:?}", house.status("app").sync), "OutOfSync");
    free["data"]["key"] = json!("2");
    house.push("c2", &[free, web("web:1")]);
    house.pass(3);
    assert_eq!(house.store.get(&key).unwrap().value()["data"]["key"], "2", "a commit still counts");
}

#[test]
fn rb10_a_pin_and_a_suspension_win_and_a_retry_counts_once() {
    let mut house = good();
    house.push("c2", &[config("settings", "2"), web("web:2")]);
    house.pass(5);
    let expires = stamp(house.now + SignedDuration::from_secs(20));
    let pin = json!({"release": "app-1", "reason": "the new one is slow", "expires": expires});
    house.edit(&app("app"), None, |v| v["spec"]["pin"] = pin);
    house.pass(3);
    expect![[r#"
        app Held Healthy good=app-2 target=app-1: pinned to app-1 (c1): the new one is slow
          app-1 c1 Healthy Good: good
          app-2 c2 Healthy Good: good
        config settings {"key":"1"}
        deployment web web:1 3/3
          pods web:1 x3
    "#]]
    .assert_eq(&house.show());
    house.push("c3", &[config("settings", "3"), web("web:3")]);
    house.pass(3);
    assert!(house.running().contains("web:1 3/3"), "{}", house.show());
    house.pass(20);
    expect![[r#"
        app Synced Healthy good=app-3 target=app-3: serving app-3 (c3)
          app-1 c1 Healthy Good: good
          app-2 c2 Healthy Good: good
          app-3 c3 Healthy Good: good
        config settings {"key":"3"}
        deployment web web:3 3/3
          pods web:3 x3
    "#]]
    .assert_eq(&house.show());
    house.edit(&app("app"), None, |v| v["spec"]["suspend"] = json!(true));
    house.push("c4", &[config("settings", "4"), web("crash:4")]);
    house.edit(&Key::of::<ConfigMap>("default", "settings"), None, |v| v["data"]["key"] = json!("by hand"));
    house.pass(5);
    assert!(house.running().contains("by hand") && house.status("app").releases == 3, "{}", house.show());
    house.edit(&app("app"), None, |v| v["spec"]["suspend"] = json!(false));
    house.pass(15);
    assert_eq!((house.status("app").releases, house.status("app").quarantine.len()), (4, 1), "{}", house.show());
    let bad = house.status("app").observed_digest;
    house.edit(&app("app"), None, |v| v["spec"]["retry"] = json!({"digest": bad, "nonce": "1"}));
    house.pass(30);
    assert_eq!((house.status("app").releases, house.status("app").quarantine.len()), (5, 1), "{}", house.show());
    // The same by a trailer in a commit.
    house.push("c5-retry", &[config("settings", "4"), web("crash:4")]);
    house.pass(30);
    assert_eq!((house.status("app").releases, house.status("app").quarantine.len()), (6, 1), "{}", house.show());
}

/// A trial that people pinned has arrived without a verdict. When they let go of it, it is judged like any other.
#[test]
fn lv1_a_trial_that_was_pinned_gets_its_verdict_in_the_end() {
    let pinned = || {
        let mut house = House::with_app(json!({"soakSeconds": 5}));
        house.push("c1", &[web("web:1")]);
        house.pass(8);
        house.push("c2", &[web("web:2")]);
        house.pass(2);
        house.edit(&app("app"), None, |v| v["spec"]["pin"] = json!({"release": "app-2", "reason": "show it"}));
        house.pass(20);
        expect![[r#"
            app Held Healthy good=app-1 trial=app-2 target=app-2: pinned to app-2 (c2): show it
              app-1 c1 Healthy Good: good
              app-2 c2 Verifying no verdict: is being rolled out
            deployment web web:2 3/3
              pods web:2 x3
        "#]]
        .assert_eq(&house.show());
        house
    };
    let mut house = pinned();
    let before = house.identities();
    house.edit(&app("app"), None, |v| v["spec"]["pin"] = json!(null));
    house.pass(2);
    assert_eq!(house.status("app").last_good, "app-1", "it soaks first:\n{}", house.show());
    house.pass(6);
    expect![[r#"
        app Synced Healthy good=app-2 target=app-2: serving app-2 (c2)
          app-1 c1 Healthy Good: good
          app-2 c2 Healthy Good: good
        deployment web web:2 3/3
          pods web:2 x3
    "#]]
    .assert_eq(&house.show());
    assert_eq!(before, house.identities(), "a verdict restarts nothing");
    // That it broke while it was pinned is no excuse.
    let mut house = pinned();
    house.lost.push("web:2".to_owned());
    house.pass(2);
    house.edit(&app("app"), None, |v| v["spec"]["pin"] = json!(null));
    house.pass(8);
    let status = house.status("app");
    assert_eq!((&*status.target, &*status.quarantine[0].release), ("app-1", "app-2"), "{}", house.show());
}

/// RB9: what a release wrote that was never judged is not excused as broken before; what breaks under the last good release is.
#[test]
fn rb9_what_nobody_judged_is_no_excuse_for_the_next_release() {
    let pin = |house: &mut House, pin: Value| house.edit(&app("app"), None, |v| v["spec"]["pin"] = pin);
    let mut house = House::with_app(json!({"soakSeconds": 5}));
    house.push("c1", &[deployment("mail", "mail:1", 1), web("web:1")]);
    house.pass(8);
    house.push("c2", &[deployment("mail", "mail:2", 1), web("web:1")]);
    house.pass(2);
    pin(&mut house, json!({"release": "app-2", "reason": "show it"}));
    house.pass(2);
    house.lost.push("mail:2".to_owned());
    house.push("c3", &[deployment("mail", "mail:2", 1), web("web:3")]);
    house.pass(2);
    pin(&mut house, json!(null));
    house.pass(15);
    let status = house.status("app");
    assert_eq!((&*status.target, &*status.quarantine[0].release), ("app-1", "app-3"), "{}", house.show());
    house.lost.push("mail:1".to_owned());
    house.pass(2);
    house.push("c4", &[deployment("mail", "mail:1", 1), web("web:4")]);
    house.pass(15);
    assert_eq!(house.status("app").last_good, "app-4", "{}", house.show());
}

#[test]
fn a_dependency_comes_first_and_a_circle_is_refused() {
    let mut house = House::new();
    house.application("db", json!({"policy": {"soakSeconds": 3}}));
    house.application("app", json!({"policy": {"soakSeconds": 1}, "dependsOn": ["db"]}));
    house.say("app", Head::Objects("c1".to_owned(), vec![web("web:1")]));
    house.say("db", Head::Objects("c1".to_owned(), vec![deployment("db", "db:1", 1)]));
    house.pass(1);
    expect![[r#"
        app OutOfSync Blocked: commit c1 waits for other Applications
          waits on Application db is Verifying and OutOfSync
        db OutOfSync Verifying trial=db-1 target=db-1: rolling out db-1
          waits on the soak
          db-1 c1 Verifying no verdict: is being rolled out
        deployment db db:1 1/1
          pods db:1 x1
    "#]]
    .assert_eq(&house.show());
    house.pass(6);
    assert_eq!(house.status("app").last_good, "app-1", "{}", house.show());
    house.edit(&app("db"), None, |v| v["spec"]["dependsOn"] = json!(["app"]));
    house.say("db", Head::Objects("c2".to_owned(), vec![deployment("db", "db:2", 1)]));
    house.pass(3);
    expect![[r#"
        app Synced Healthy good=app-1 target=app-1: serving app-1 (c1)
          app-1 c1 Healthy Good: good
        db Invalid Healthy good=db-1 target=db-1: commit c2 was refused; still serving db-1 (c1)
          problem spec.dependsOn:0: dependsOn goes in a circle: db -> app -> db
          db-1 c1 Healthy Good: good
          db-2 c2 Preflight Rejected: commit c2 was refused: 1 problem
        deployment db db:1 1/1
        deployment web web:1 3/3
          pods db:1 x1
          pods web:1 x3
    "#]]
    .assert_eq(&house.show());
}

#[test]
fn losing_most_hosts_pauses_a_trial_and_does_not_roll_back() {
    let mut house = House::with_app(json!({"soakSeconds": 2, "progressDeadlineSeconds": 60}));
    house.push("c1", &[web("web:1")]);
    house.pass(4);
    house.push("c2", &[web("slow:2")]);
    house.pass(1);
    house.silent = vec!["a".to_owned(), "b".to_owned()];
    house.pass(200);
    expect![[r#"
        app OutOfSync Errored good=app-1 trial=app-2 target=app-2: rolling out app-2
          waits on 2 of 3 hosts do not answer
          waits on Deployment default/web: 1 of 3 new replicas are there; pod web-7df678fc8-znhz4: host a does not answer
          app-1 c1 Healthy Good: good
          app-2 c2 Errored no verdict: is being rolled out
        deployment web slow:2 1/3
          pods slow:2 x1
          pods web:1 x3
    "#]]
    .assert_eq(&house.show());
    house.silent.clear();
    house.pass(60);
    assert_eq!(house.status("app").last_good, "app-2", "{}", house.show());
}

#[test]
fn a_host_that_is_given_up_makes_nothing_good() {
    let mut house = House::with_app(json!({"soakSeconds": 20}));
    house.push("c1", &[web("web:1")]);
    house.pass(2);
    house.silent = vec!["a".to_owned()];
    house.pass(50);
    assert_eq!(
        house.list::<Node>().iter().filter(|(_, node)| super::super::facts::ready(node) == Some(false)).count(),
        1,
        "it is given up"
    );
    assert_eq!(house.status("app").last_good, "", "{}", house.show());
    house.pass(400);
    assert_eq!(house.status("app").last_good, "app-1", "its pods were replaced: {}", house.show());
}

#[test]
fn what_can_never_fit_is_refused_and_what_does_not_fit_now_waits() {
    let mut house = good();
    let mut picky = web("web:2");
    picky["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "gold"});
    house.push("c2", &[config("settings", "1"), picky]);
    house.pass(2);
    expect![[r#"
        app Invalid Healthy good=app-1 target=app-1: commit c2 was refused; still serving app-1 (c1)
          problem all.yaml:2: no host can ever run a pod of Deployment default/web: 0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.
          app-1 c1 Healthy Good: good
          app-2 c2 Preflight Rejected: commit c2 was refused: 1 problem
        config settings {"key":"1"}
        deployment web web:1 3/3
          pods web:1 x3
    "#]].assert_eq(&house.show());
    house.push("c3", &[config("settings", "1"), deployment("web", "web:3", 300)]);
    house.pass(2);
    expect![[r#"
        app OutOfSync Errored good=app-1 target=app-1: commit c3 cannot be rolled out now; it is tried again
          waits on 240 of 300 pods of Deployment default/web have room now: 0/3 nodes are available: 3 Insufficient cpu.
          app-1 c1 Healthy Good: good
          app-2 c2 Preflight Rejected: commit c2 was refused: 1 problem
        config settings {"key":"1"}
        deployment web web:1 3/3
          pods web:1 x3
    "#]]
    .assert_eq(&house.show());
    assert!(house.status("app").quarantine.is_empty());
}

#[test]
fn a_deleted_application_lets_go_unless_it_is_told_to_prune() {
    for (on_delete, left) in [("orphan", true), ("prune", false)] {
        let mut house = House::with_app(json!({"soakSeconds": 1, "onDelete": on_delete}));
        house.push("c1", &[config("settings", "1"), web("web:1")]);
        house.pass(3);
        house.delete(&app("app"));
        house.pass(5);
        assert!(house.store.get(&app("app")).is_none(), "{on_delete}:\n{}", house.show());
        let settings = house.store.get(&Key::of::<ConfigMap>("default", "settings"));
        assert_eq!(settings.is_some(), left, "{on_delete}");
        assert!(settings.is_none_or(|s| s.meta.annotations.is_empty()), "nobody's");
        assert_eq!(house.running().contains("web:1"), left, "{on_delete}");
    }
}

#[test]
fn history_is_bounded_and_keeps_what_one_can_go_back_to() {
    let mut house = House::with_app(json!({"soakSeconds": 0, "historyLimit": 2}));
    for n in 0..6 {
        house.push(&format!("c{n}"), &[config("settings", &n.to_string())]);
        house.pass(2);
    }
    expect![[r#"
        app Synced Healthy good=app-6 target=app-6: serving app-6 (c5)
          app-4 c3 Healthy Good: good
          app-5 c4 Healthy Good: good
          app-6 c5 Healthy Good: good
        config settings {"key":"5"}
    "#]]
    .assert_eq(&house.show());
}

#[test]
fn pause_and_continue_do_what_they_say() {
    for (policy, expected) in [("pause", "Paused Stuck"), ("continue", "OutOfSync RollingOut")] {
        let mut house = House::with_app(json!({"soakSeconds": 1, "onFailure": policy}));
        house.push("c1", &[web("web:1")]);
        house.pass(3);
        house.push("c2", &[web("crash:2")]);
        house.pass(20);
        let status = house.status("app");
        assert_eq!(format!("{:?} {:?}", status.sync, status.phase), expected, "{}", house.show());
        house.push("c3", &[web("web:3")]);
        house.pass(4);
        assert_eq!(house.status("app").last_good, "app-3", "{}", house.show());
    }
}

#[test]
fn an_image_that_nobody_has_stops_nothing_even_with_recreate() {
    let mut house = House::with_app(json!({"soakSeconds": 1}));
    let recreate = |image: &str| {
        let mut web = web(image);
        web["spec"]["strategy"] = json!({"type": "Recreate"});
        web
    };
    house.push("c1", &[config("settings", "1"), recreate("web:1")]);
    house.pass(3);
    let before = (house.running(), house.identities());
    house.push("c2", &[config("settings", "2"), recreate("missing:2")]);
    house.pass(5);
    expect![[r#"
        app Held RolledBack good=app-1 target=app-1: serving app-1 (c1), because app-2 was bad: Deployment default/web: pod app-2-image-0 on a: ImagePullBackOff: image missing:2: manifest unknown
          app-1 c1 Healthy Good: good
          app-2 c2 Preflight Rejected: bad: Deployment default/web: pod app-2-image-0 on a: ImagePullBackOff: image missing:2: manifest unknown
        config settings {"key":"1"}
        deployment web web:1 3/3
          pods web:1 x3
    "#]].assert_eq(&house.show());
    assert_eq!((house.running(), house.identities()), before);
    house.push("c3", &[config("settings", "2"), recreate("away:3")]);
    house.pass(5);
    expect![[r#"
        app OutOfSync Errored good=app-1 trial=app-3 target=app-3: rolling out app-3
          waits on image away:3: pod app-3-image-0 on a: ImagePullBackOff: dial tcp: connection refused
          app-1 c1 Healthy Good: good
          app-2 c2 Preflight Rejected: bad: Deployment default/web: pod app-2-image-0 on a: ImagePullBackOff: image missing:2: manifest unknown
          app-3 c3 Errored no verdict: is being rolled out
        config settings {"key":"1"}
        deployment web web:1 3/3
          pods away:3 x1
          pods web:1 x3
    "#]].assert_eq(&house.show());
    house.push("c4", &[config("settings", "2"), recreate("web:4")]);
    house.pass(5);
    expect![[r#"
        app Synced Healthy good=app-4 target=app-4: serving app-4 (c4)
          app-1 c1 Healthy Good: good
          app-2 c2 Preflight Rejected: bad: Deployment default/web: pod app-2-image-0 on a: ImagePullBackOff: image missing:2: manifest unknown
          app-3 c3 Errored Superseded: superseded by app-4 (c4)
          app-4 c4 Healthy Good: good
        config settings {"key":"2"}
        deployment web web:4 3/3
          pods web:4 x3
    "#]].assert_eq(&house.show());
}

/// RB4, GI12: whatever is forgotten in between, the end is the same, and no digest is ever applied out of order.
#[test]
fn a_crash_between_any_two_writes_changes_nothing() {
    let story = |forgetful: bool| {
        let mut house = House::with_app(json!({"soakSeconds": 2}));
        house.forgetful = forgetful;
        house.check = |house| {
            // Each object that carries our name was recorded in a release before it was written.
            let recorded: Vec<String> = house
                .list::<Application>()
                .iter()
                .flat_map(|(o, _)| {
                    super::super::record::releases(&house.store.view(), &o.key).into_iter().map(|(_, r)| r.spec.commit.clone())
                })
                .collect();
            for (object, _) in house.list::<ConfigMap>() {
                let commit = object.meta.annotations.get("portolan.dev/commit");
                assert!(commit.is_none_or(|c| recorded.contains(c)), "{object:?} before its record");
            }
        };
        let mut states = Vec::new();
        for (commit, objects) in [
            ("c1", vec![config("settings", "1"), web("web:1")]),
            ("c2", vec![config("settings", "2"), config("extra", "2"), web("crash:2")]),
            ("c3", vec![config("settings", "3"), deployment("second", "web:3", 1), web("web:1")]),
            ("c4", vec![config("settings", "3"), web("never:4"), deployment("second", "web:3", 1)]),
            ("c5", vec![config("settings", "1"), web("web:1")]),
        ] {
            house.push(commit, &objects);
            house.pass(8);
            states.push(house.show());
        }
        states
    };
    let (steady, forgetful) = (story(false), story(true));
    for (a, b) in steady.iter().zip(&forgetful) {
        assert_eq!(a, b);
    }
    expect![[r#"
        app Synced Healthy good=app-5 target=app-5: serving app-5 (c5)
          app-1 c1 Healthy Good: good
          app-2 c2 RolledBack RolledBack: bad: Deployment default/web: pod web-86d6f9679b-46fj4 on a: CrashLoopBackOff: container c ended with exit code 3, restarted 2 times
          app-3 c3 Healthy Good: good
          app-4 c4 RollingOut Superseded: superseded by app-5 (c5)
          app-5 c5 Healthy Good: good
        config settings {"key":"1"}
        deployment web web:1 3/3
          pods web:1 x3
    "#]].assert_eq(forgetful.last().unwrap());
}
