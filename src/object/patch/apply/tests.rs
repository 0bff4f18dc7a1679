//! Tables of managers.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::object::KINDS;
use crate::object::patch::managed::track;

fn kind(name: &str) -> &'static Kind {
    KINDS.iter().find(|k| k.kind == name).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"}, "spec": spec})
}

fn containers(containers: Value) -> Value {
    json!({"template": {"spec": {"containers": containers}}})
}

/// Who owns what, one line each.
fn owners(object: &Value) -> String {
    let line = |m: Manager| {
        format!(
            "{} {:?}{}: {}\n",
            m.name,
            m.operation,
            if m.subresource.is_empty() { "" } else { " status" },
            m.fields.paths().join(" ")
        )
    };
    managed::read(object).into_iter().map(line).collect()
}

fn check(object: &Value, expected: Expect) {
    expected.assert_eq(&owners(object));
}

fn applied(live: Option<&Value>, config: Value, manager: &str, second: i64) -> Value {
    apply(kind("Deployment"), live, &config, manager, false, at(second)).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn a_manager_owns_what_it_mentions() {
    let mut config =
        deployment(containers(json!([{"name": "a", "image": "a:1", "ports": [{"containerPort": 80}], "args": ["x", "y"]}])));
    config["metadata"]["labels"] = json!({"app": "web"});
    config["metadata"]["finalizers"] = json!(["x/y"]);
    let object = applied(None, config, "me", 0);
    check(
        &object,
        expect![[r#"
        me Apply: .metadata.finalizers[="x/y"] .metadata.labels.app .spec.template.spec.containers[name="a"] .spec.template.spec.containers[name="a"].args .spec.template.spec.containers[name="a"].image .spec.template.spec.containers[name="a"].name .spec.template.spec.containers[name="a"].ports[containerPort=80,protocol="TCP"] .spec.template.spec.containers[name="a"].ports[containerPort=80,protocol="TCP"].containerPort
    "#]],
    );
    assert_eq!(
        object["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"a\"}"]
            ["f:image"],
        json!({})
    );
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!(
        (&entry["manager"], &entry["operation"], &entry["apiVersion"], &entry["fieldsType"]),
        (&json!("me"), &json!("Apply"), &json!("apps/v1"), &json!("FieldsV1"))
    );
}

#[test]
fn what_a_manager_no_longer_mentions_goes() {
    let probe = json!({"httpGet": {"port": 80}});
    let first = containers(json!([
        {"name": "a", "image": "a:1", "livenessProbe": probe, "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
        {"name": "b", "image": "b:1"},
    ]));
    let mut object = applied(None, deployment(first), "me", 0);
    admit::prepare(kind("Deployment"), &mut object);
    object["spec"]["template"]["spec"]["containers"][0]["env"].as_array_mut().unwrap().push(json!({"name": "Z", "value": "3"}));
    let second = containers(json!([{"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "2"}]}]));
    let object = applied(Some(&object), deployment(second), "me", 1);
    let containers = object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0]["image"], "a:2");
    assert_eq!(containers[0]["env"], json!([{"name": "Y", "value": "2"}, {"name": "Z", "value": "3"}]));
    assert!(containers[0].get("livenessProbe").is_none(), "with its defaults");
    assert_eq!(containers[0]["terminationMessagePolicy"], "File", "a default that nobody owned stays");
}

#[test]
fn ap8_conflicts_change_nothing_and_force_takes_over() {
    let object = applied(None, deployment(json!({"replicas": 2, "paused": false})), "git", 0);
    let mut scaled = object.clone();
    scaled["spec"]["replicas"] = 5.into();
    track(kind("Deployment"), Some(&object), &mut scaled, "kubectl-scale", managed::Operation::Update, None, at(1));
    check(
        &scaled,
        expect![[r#"
        git Apply: .spec.paused
        kubectl-scale Update: .spec.replicas
    "#]],
    );
    let again = deployment(json!({"replicas": 2, "paused": false}));
    let conflicts = apply(kind("Deployment"), Some(&scaled), &again, "git", false, at(2)).unwrap_err();
    assert_eq!(
        conflicts.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-scale\" using apps/v1: .spec.replicas"
    );
    let forced = apply(kind("Deployment"), Some(&scaled), &again, "git", true, at(2)).unwrap();
    assert_eq!(forced["spec"]["replicas"], 2);
    assert!(owners(&forced).starts_with("git Apply: .spec.paused .spec.replicas\n"), "{}", owners(&forced));
    // The same value is no conflict: both own it, and it stays until both let go.
    let both = applied(Some(&forced), deployment(json!({"replicas": 2})), "other", 3);
    let one_left = applied(Some(&both), deployment(json!({"paused": false})), "git", 4);
    assert_eq!(one_left["spec"]["replicas"], 2);
    let none_left = applied(Some(&one_left), deployment(json!({})), "other", 5);
    assert!(none_left["spec"].get("replicas").is_none());
}

/// Where what only others have stands among what is wanted.
#[test]
fn lists_are_merged_in_kubernetes_order() {
    let names =
        |text: &str| deployment(containers(text.chars().map(|name| json!({"name": name.to_string(), "image": "i"})).collect()));
    for (live, wanted, after) in [
        ("a", "b", "ab"),
        ("ab", "ba", "ba"),
        ("axb", "ba", "xba"),
        ("abx", "ba", "bxa"),
        ("xab", "acb", "xacb"),
        ("axby", "abc", "axbyc"),
        ("ab", "", "ab"),
        ("abcx", "cdb", "acxdb"),
    ] {
        let live = (!live.is_empty()).then(|| applied(None, names(live), "other", 0));
        let object = applied(live.as_ref(), names(wanted), "me", 1);
        let found = object["spec"]["template"]["spec"]["containers"].as_array().cloned().unwrap_or_default();
        let found: String = found.iter().map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(found, after, "{wanted} applied to {live:?}");
    }
}

#[test]
fn several_conflicts_are_grouped() {
    let object = applied(None, deployment(json!({"replicas": 2, "paused": false})), "git", 0);
    let conflicts =
        apply(kind("Deployment"), Some(&object), &deployment(json!({"replicas": 3, "paused": true})), "me", false, at(1))
            .unwrap_err();
    assert_eq!(conflicts.to_string(), "Apply failed with 2 conflicts: conflicts with \"git\":\n- .spec.paused\n- .spec.replicas");
}

#[test]
fn what_was_there_before_has_an_owner() {
    let live = deployment(json!({"replicas": 2}));
    let conflicts = apply(kind("Deployment"), Some(&live), &deployment(json!({"replicas": 3})), "me", false, at(1)).unwrap_err();
    assert_eq!(conflicts.fields[0].message, "conflict with \"before-first-apply\" using apps/v1");
}

#[test]
fn a_status_has_its_own_owner() {
    let mut object = applied(None, deployment(json!({"replicas": 2})), "git", 0);
    admit::prepare(kind("Deployment"), &mut object);
    let mut with_status = object.clone();
    with_status["status"] = json!({"replicas": 2, "conditions": [{"type": "Available", "status": "True"}]});
    track(kind("Deployment"), Some(&object), &mut with_status, "controller", managed::Operation::Update, Some("status"), at(1));
    check(
        &with_status,
        expect![[r#"
        git Apply: .spec.replicas
        controller Update status: .status.conditions[type="Available"] .status.conditions[type="Available"].status .status.conditions[type="Available"].type .status.replicas
    "#]],
    );
    let before = with_status.clone();
    track(kind("Deployment"), Some(&before), &mut with_status, "controller", managed::Operation::Update, Some("status"), at(9));
    assert_eq!(with_status, before, "nothing changed, not even the time");
}

#[test]
fn who_writes_again_owns_what_it_changed_and_no_default() {
    // As if it had been stored before any default was known.
    let mut object = applied(None, deployment(json!({"replicas": 2})), "git", 0);
    let mut write = |change: Value, who: &str, second: i64| {
        let mut new = object.clone();
        crate::object::patch::merge(&mut new, &change);
        track(kind("Deployment"), Some(&object), &mut new, who, managed::Operation::Update, None, at(second));
        for default in ["revisionHistoryLimit", "progressDeadlineSeconds", "strategy"] {
            assert!(new["spec"].as_object_mut().unwrap().remove(default).is_some(), "{default} came with the write");
        }
        object = new;
        owners(&object)
    };
    write(json!({"spec": {"paused": true}}), "edit", 1);
    let again = write(json!({"spec": {"paused": false}}), "edit", 2);
    let more = write(json!({"spec": {"paused": true, "minReadySeconds": 5}}), "edit", 3);
    let taken = write(json!({"spec": {"paused": false, "replicas": 3}}), "scale", 4);
    expect![[r#"
        git Apply: .spec.replicas
        edit Update: .spec.paused

        git Apply: .spec.replicas
        edit Update: .spec.minReadySeconds .spec.paused

        edit Update: .spec.minReadySeconds
        scale Update: .spec.paused .spec.replicas
    "#]]
    .assert_eq(&format!("{again}\n{more}\n{taken}"));
    let times: Vec<String> = managed::read(&object).into_iter().map(|m| format!("{} {}", m.name, m.time)).collect();
    expect![[r#"
        edit 2027-01-15T08:00:03Z
        scale 2027-01-15T08:00:04Z"#]]
    .assert_eq(&times.join("\n"));
}

/// Of those that do not apply ten are known by name, in each version's words; the oldest are one.
#[test]
fn those_who_update_are_ten_at_most() {
    let map = kind("ConfigMap");
    let with = |object: &Value, name: &str| {
        let mut new = object.clone();
        new["data"][name] = "x".into();
        new
    };
    let first = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "shop"}, "data": {}});
    let mut object = apply(map, None, &with(&first, "applied"), "git", false, at(0)).unwrap();
    let mut largest = 0;
    for n in 0..400 {
        let mut new = with(&object, &format!("k{}", n % 20));
        new["data"][format!("k{}", n % 20)] = n.into();
        track(map, Some(&object), &mut new, &format!("client-{n:03}"), Operation::Update, None, at(n));
        object = new;
        largest = largest.max(managed::read(&object).len());
    }
    assert_eq!(largest, 11, "ten and the one who applied");
    check(
        &object,
        expect![[r#"
            git Apply: .data.applied
            ancient-changes Update: .data.k0 .data.k1 .data.k10 .data.k2 .data.k3 .data.k4 .data.k5 .data.k6 .data.k7 .data.k8 .data.k9
            client-391 Update: .data.k11
            client-392 Update: .data.k12
            client-393 Update: .data.k13
            client-394 Update: .data.k14
            client-395 Update: .data.k15
            client-396 Update: .data.k16
            client-397 Update: .data.k17
            client-398 Update: .data.k18
            client-399 Update: .data.k19
        "#]],
    );
    // What is one for all of them is still somebody's: who applies it meets a conflict.
    let taken = apply(map, Some(&object), &with(&first, "k0"), "git", false, at(500)).unwrap_err();
    assert_eq!(taken.to_string(), "Apply failed with 1 conflict: conflict with \"ancient-changes\" using v1: .data.k0");
}

#[test]
fn deletions_take_ownership_along() {
    let live = applied(None, deployment(containers(json!([{"name": "a", "image": "a"}, {"name": "b", "image": "b"}]))), "git", 0);
    let mut new = live.clone();
    new["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap().remove(1);
    track(kind("Deployment"), Some(&live), &mut new, "kubectl-edit", managed::Operation::Update, None, at(1));
    assert!(!owners(&new).contains("name=\"b\""), "{}", owners(&new));
    new["metadata"]["managedFields"] = json!([{}]);
    let before = new.clone();
    track(kind("Deployment"), Some(&before), &mut new, "kubectl", managed::Operation::Update, None, at(2));
    assert!(new["metadata"].get("managedFields").is_none());
}

fn map() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-d]", "[xyz]", 0..4).prop_map(
        |data| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "labels": data}, "data": data}),
    )
}

proptest! {
    #[test]
    fn ap8_applying_twice_is_once(configs in proptest::collection::vec((map(), 0..3usize), 1..8)) {
        let k = kind("ConfigMap");
        let mut live: Option<Value> = None;
        for (i, (config, who)) in configs.iter().enumerate() {
            let manager = ["a", "b", "c"][*who];
            let once = apply(k, live.as_ref(), config, manager, true, at(i as i64)).unwrap();
            let twice = apply(k, Some(&once), config, manager, false, at(99)).unwrap();
            prop_assert_eq!(&once, &twice);
            for (key, value) in config["data"].as_object().unwrap() {
                prop_assert_eq!(&once["data"][key], value);
            }
            live = Some(once);
        }
    }

    #[test]
    fn sets_of_fields_read_back(config in map()) {
        let set = fields::all(Some(schema::of(kind("ConfigMap"))), None, &config);
        prop_assert_eq!(Fields::read(&set.write()), set);
    }
}
