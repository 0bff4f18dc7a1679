//! Many hands at once: the recorded history must be that of one hand.

use super::super::engine::memory::Disk;
use super::*;

#[test]
fn st4_concurrent_increments_are_all_counted_and_the_watch_shows_each_once() {
    const HANDS: u64 = 4;
    const EACH: u64 = 150;
    let disk = Disk::new();
    let store = Store::open(disk.engine()).unwrap();
    let start = store.revision();
    store.commit(txn(|t| t.create(map("count", 0)).create(map("twin", 0)))).unwrap();
    let watch = store.watch(Scope::namespace(kind_of::<ConfigMap>(), "shop"), start).unwrap();
    let hands: Vec<_> = (0..HANDS)
        .map(|_| {
            let store = store.clone();
            std::thread::spawn(move || {
                let mut done = Vec::new();
                while (done.len() as u64) < EACH {
                    let view = store.view();
                    let (count, twin) = (view.get(&map_key("count")).unwrap(), view.get(&map_key("twin")).unwrap());
                    assert_eq!(value(count), value(twin), "a view never shows half a transaction");
                    let next = value(count) + 1;
                    let step = txn(|t| t.update(map("count", next), count.revision).update(map("twin", next), twin.revision));
                    if let Ok(committed) = store.commit(step) {
                        wait(store.until_durable(committed.revision)).unwrap();
                        done.push((committed.revision, next));
                    }
                }
                done
            })
        })
        .collect();
    let mut all: Vec<(Revision, u64)> = hands.into_iter().flat_map(|h| h.join().unwrap()).collect();
    all.sort_unstable();
    let expected: Vec<u64> = (1..=HANDS * EACH).collect();
    assert_eq!(
        all.iter().map(|(_, v)| *v).collect::<Vec<_>>(),
        expected,
        "revisions and values in the same order, none lost or doubled"
    );
    let mut watch = watch;
    let mut seen = Vec::new();
    while let Some(change) = watch.try_next().unwrap() {
        if &*change.key.name == "count" {
            seen.push(value(change.object()));
        }
    }
    assert_eq!(seen[1..], expected[..], "the watch shows each step once, in order");
    let groups = disk.operations() / 2;
    assert!(groups <= HANDS * EACH + 2, "{groups} groups");
    drop(store);
    let again = Store::open(disk.crash(0).engine()).unwrap();
    assert_eq!(value(&again.get(&map_key("twin")).unwrap()), HANDS * EACH);
}

#[test]
fn dropping_the_last_handle_writes_what_is_queued_and_releases_no_revision() {
    let disk = Disk::new();
    let store = Store::open(disk.engine()).unwrap();
    let revision = store.commit(txn(|t| t.put(lease("n", 1)))).unwrap().revision;
    drop(store);
    let again = Store::open(disk.crash(0).engine()).unwrap();
    assert_eq!(again.revision(), revision, "an orderly end needs no reservation");
    assert!(again.get(&Key::of::<k8s_openapi::api::coordination::v1::Lease>("kube-node-lease", "n")).is_some());
}

#[test]
fn of_very_many_records_most_are_packed_while_they_are_read_and_say_what_they_said() {
    let words = (0..100).map(|word| format!("what every pod of the shop says, {word}")).collect::<Vec<_>>();
    let wordy = |nth: usize| {
        let name = format!("web-{nth}");
        let metadata =
            json!({"namespace": "shop", "name": name, "uid": format!("uid-{nth}"), "annotations": {"words": words.concat()}});
        Draft::new(kind_of::<Pod>(), json!({"metadata": metadata, "spec": {"containers": []}}))
    };
    let disk = Disk::new();
    let store = Store::open(disk.engine()).unwrap();
    for some in (0..10_000).collect::<Vec<usize>>().chunks(500) {
        store.commit(txn(|t| some.iter().fold(t, |t, nth| t.create(wordy(*nth))))).unwrap();
    }
    let before = dump(&store.view());
    drop(store);
    let again = Store::open(disk.crash(0).engine()).unwrap();
    assert_eq!(dump(&again.view()), before);
    let packed = again.view().all().filter(|object| object.held() < object.size()).count();
    assert!((7_000..10_000).contains(&packed), "{packed} are packed, and the others serve as their models");
}
