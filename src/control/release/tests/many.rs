//! What many objects have in common from one release to the next.

use super::super::record;
use super::*;
use crate::object::ours::Release;

fn config(n: usize, text: &str) -> Value {
    let metadata = json!({"name": format!("config-{n:03}"), "namespace": "default"});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"text": text}})
}

/// The pieces of a release, and all Renderings that there are.
fn pieces(house: &House, release: &str) -> (Vec<String>, Vec<String>) {
    let all = house.list::<crate::object::ours::Rendering>().into_iter().map(|(o, _)| o.key.name.to_string()).collect();
    let view = house.store.view();
    let release = record::release(&view, &app("app"), release).expect("it is recorded");
    (release.spec.renderings.clone(), all)
}

#[test]
fn a_release_writes_only_the_piece_that_changed() {
    let mut house = House::with_app(json!({"soakSeconds": 0, "historyLimit": 1}));
    let objects = |changed: usize, text: &str| -> Vec<Value> {
        (0..300).map(|n| config(n, if n == changed { text } else { "same" })).collect()
    };
    house.push("c1", &objects(150, "1"));
    house.pass(1);
    let (first, all) = pieces(&house, "app-1");
    assert!(first.len() > 3, "{first:?}");
    assert_eq!(all.len(), first.len());

    let before = house.store.revision();
    house.push("c2", &objects(150, "2"));
    house.pass(1);
    let (second, all) = pieces(&house, "app-2");
    let new: Vec<&String> = second.iter().filter(|piece| !first.contains(piece)).collect();
    assert_eq!((new.len(), second.len(), all.len()), (1, first.len(), first.len() + 1), "one piece is another");
    assert_eq!(house.status("app").last_good, "app-2");
    let written = house.store.changes(before).unwrap();
    let written: Vec<&str> = written.iter().filter(|c| c.key.kind.kind == "ConfigMap").map(|c| &*c.key.name).collect();
    assert_eq!(written, ["config-150"], "nothing else is touched");

    // What the first release says again is the first release's pieces, all of them.
    house.push("c3", &objects(150, "1"));
    house.pass(1);
    assert_eq!(pieces(&house, "app-3").0, first);
    // The limit is one beside the last good one: the first is forgotten, its pieces are still needed.
    let (third, all) = pieces(&house, "app-3");
    assert!(record::release(&house.store.view(), &app("app"), "app-1").is_none());
    assert!(third.iter().all(|piece| all.contains(piece)));
    // And what only forgotten releases had goes with them.
    for round in 0..3 {
        house.push(&format!("d{round}"), &objects(7, &format!("x{round}")));
        house.pass(1);
    }
    let (_, all) = pieces(&house, "app-6");
    assert!(!all.contains(new[0]), "{all:?}");
    let used: std::collections::BTreeSet<String> =
        house.list::<Release>().into_iter().flat_map(|(_, release)| release.spec.renderings.clone()).collect();
    assert_eq!(all.into_iter().collect::<std::collections::BTreeSet<_>>(), used);
}

#[test]
fn of_many_objects_only_what_changed_is_compared() {
    let mut house = House::with_app(json!({"soakSeconds": 0}));
    let mut objects: Vec<Value> = (0..300).map(|n| config(n, "same")).collect();
    house.push("c1", &objects);
    house.pass(1);
    objects[40]["data"]["text"] = json!("other");
    house.push("c2", &objects);
    crate::object::DECODED.set(0);
    house.pass(1);
    assert_eq!(house.status("app").last_good, "app-2");
    let decoded = crate::object::DECODED.get();
    assert!(decoded < 60, "{decoded} objects were read to change one of 300");

    // Drift is seen all the same, and by a loop that remembers nothing as well.
    for forgetful in [false, true] {
        house.forgetful = forgetful;
        house.edit(&Key::of::<k8s_openapi::api::core::v1::ConfigMap>("default", "config-222"), None, |v| {
            v["data"]["text"] = json!("by hand");
        });
        house.pass(20);
        let mended = house.store.get(&Key::of::<k8s_openapi::api::core::v1::ConfigMap>("default", "config-222")).unwrap();
        assert_eq!(mended.value()["data"]["text"], "same");
    }
}

#[test]
fn while_very_much_happens_the_health_of_all_of_it_is_looked_at_now_and_then() {
    let mut house = House::with_app(json!({"soakSeconds": 0}));
    let objects: Vec<Value> = (0..20).map(|n| deployment(&format!("web-{n:02}"), "web:1", 1)).collect();
    house.push("c1", &objects);
    house.pass(5);
    let health = |house: &House| house.status("app").health;
    assert_eq!(health(&house), "Healthy");
    house.lost.push("web:1".to_owned());
    house.pass(1);
    let unwell = health(&house);
    assert_ne!(unwell, "Healthy");
    house.lost.clear();
    house.now += SignedDuration::from_millis(39);
    house.settle();
    assert_eq!(health(&house), unwell, "twenty objects, two milliseconds each");
    house.now += SignedDuration::from_millis(1);
    house.settle();
    assert_eq!(health(&house), "Healthy", "and nobody has to wake it");
}
