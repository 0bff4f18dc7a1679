//! The store's rules, one at a time.

use std::time::Duration;

use super::super::engine::memory::Disk;
use super::*;

fn names<'a>(objects: impl Iterator<Item = &'a Arc<Object>>) -> String {
    objects.map(|o| format!("{}/{}", o.key.namespace, o.key.name)).collect::<Vec<_>>().join(" ")
}

#[test]
fn st6_a_write_succeeds_only_from_the_version_that_was_read() {
    let store = Store::memory();
    let one = store.commit(txn(|t| t.create(map("a", 1)))).unwrap().revision;
    let refuse = |t: Txn| store.commit(t).unwrap_err().to_string();
    expect_test::expect![[r#"
        configmaps shop/a exists already
        configmaps shop/a was changed meanwhile: read at revision 7, now at 1
        configmaps shop/b does not exist
        configmaps shop/b does not exist
        configmaps shop/a was changed meanwhile: read at revision 9, now at 1
        configmaps shop/a exists already
        configmaps shop/b does not exist"#]]
    .assert_eq(
        &[
            refuse(txn(|t| t.create(map("a", 2)))),
            refuse(txn(|t| t.update(map("a", 2), 7))),
            refuse(txn(|t| t.update(map("b", 2), 1))),
            refuse(txn(|t| t.delete(map_key("b"), None))),
            refuse(txn(|t| t.delete(map_key("a"), Some(9)))),
            refuse(txn(|t| t.expect(map_key("a"), None).put(map("c", 1)))),
            // All or nothing: `c` is not written either.
            refuse(txn(|t| t.put(map("c", 1)).update(map("b", 1), one))),
        ]
        .join("\n"),
    );
    assert_eq!(store.revision(), one, "a refused transaction takes no revision");
    assert!(store.get(&map_key("c")).is_none());
    let two = store.commit(txn(|t| t.update(map("a", 2), one).create(map("b", 1)))).unwrap();
    assert_eq!((two.revision, two.objects[0].revision, two.objects[1].revision), (3, 2, 3), "one after the other");
    let gone = store.commit(txn(|t| t.delete(map_key("a"), Some(2)))).unwrap();
    assert_eq!((gone.objects[0].revision, value(&gone.objects[0])), (4, 2), "the last version, at the revision that ended it");
    assert!(gone.objects[0].json().windows(21).any(|w| w == b"\"resourceVersion\":\"4\""), "also in its bytes");
    assert_eq!(store.commit(Txn::new()).unwrap().revision, 4, "nothing to write: no new revision");
}

#[test]
fn the_last_write_of_a_key_in_a_transaction_wins() {
    let store = Store::memory();
    let done = store.commit(txn(|t| t.put(map("a", 1)).put(map("a", 2)))).unwrap();
    assert_eq!((done.objects.len(), value(&store.get(&map_key("a")).unwrap())), (1, 2));
    assert_eq!(store.changes(0).unwrap().len(), 1);
}

#[test]
fn what_one_object_holds_no_other_can_be_stored_with() {
    let store = Store::memory();
    let service = |name: &str, ip: &str| {
        let value = json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"clusterIP": ip}});
        Draft::new(kind_of::<Service>(), value)
    };
    let key = |name: &str| Key::of::<Service>("shop", name);
    let refuse = |t: Txn| store.commit(t).unwrap_err().to_string();
    let one = store.commit(txn(|t| t.create(service("a", "10.96.0.9")))).unwrap().revision;
    assert_eq!(refuse(txn(|t| t.create(service("b", "10.96.0.9")))), "services shop/a holds address 10.96.0.9");
    assert_eq!(
        refuse(txn(|t| t.create(service("b", "10.96.0.8")).create(service("c", "10.96.0.8")))),
        "services shop/b holds address 10.96.0.8",
        "nor two of one transaction"
    );
    // The same again, another for it, and the first one for somebody else in the same moment.
    let two = store.commit(txn(|t| t.update(service("a", "10.96.0.9"), one))).unwrap().revision;
    let three = store.commit(txn(|t| t.update(service("a", "10.96.0.7"), two).create(service("b", "10.96.0.9")))).unwrap();
    assert_eq!(store.view().claimant("address 10.96.0.9"), Some(&key("b")));
    assert_eq!(store.view().claimant("address 10.96.0.7"), Some(&key("a")));
    store.commit(txn(|t| t.delete(key("b"), None))).unwrap();
    assert_eq!(store.view().claimant("address 10.96.0.9"), None, "who goes lets go");
    store.commit(txn(|t| t.update(service("a", "None"), three.objects[0].revision).create(service("c", "None")))).unwrap();
    assert_eq!(store.view().claimant("address None"), None, "nothing is no address");
}

#[test]
fn a_view_finds_by_order_field_and_owner() {
    let store = Store::memory();
    let kind = kind_of::<Pod>();
    for (ns, name, node, owner) in
        [("b", "2", "n1", "rs"), ("a", "1", "n1", ""), ("b", "1", "", "rs"), ("a", "10", "n2", "rs"), ("ab", "0", "n1", "")]
    {
        store.commit(txn(|t| t.create(pod(ns, name, node, owner)))).unwrap();
    }
    let before = store.view();
    store.commit(txn(|t| t.put(pod("b", "2", "n2", "")).put(pod("b", "1", "n1", "rs")))).unwrap();
    store.commit(txn(|t| t.delete(pod_key("a", "1"), None))).unwrap();
    let show = |view: &View| {
        [
            names(view.list(kind)),
            names(view.list_in(kind, "a")),
            names(view.list_after(kind, "a", "10").take(2)),
            names(view.by_field(kind, "spec.nodeName", "n1")),
            names(view.by_field(kind, "spec.nodeName", "")),
            names(view.by_field(kind, "spec.restartPolicy", "")),
            names(view.by_field(kind, "no.such", "")),
            names(view.owned_by("rs")),
            view.len(kind).to_string(),
        ]
        .join("\n")
    };
    expect_test::expect![[r#"
        a/10 ab/0 b/1 b/2
        a/10
        ab/0 b/1
        ab/0 b/1

        a/10 ab/0 b/1 b/2

        a/10 b/1
        4"#]]
    .assert_eq(&show(&store.view()));
    expect_test::expect![[r#"
        a/1 a/10 ab/0 b/1 b/2
        a/1 a/10
        ab/0 b/1
        a/1 ab/0 b/2
        b/1
        a/1 a/10 ab/0 b/1 b/2

        a/10 b/1 b/2
        5"#]]
    .assert_eq(&show(&before));
}

#[test]
fn wa1_a_watch_gives_what_is_on_disk_in_order_and_says_how_far_it_is() {
    let (store, mut disk) = Store::stepped(Disk::new().engine()).unwrap();
    let start = store.revision();
    store.commit(txn(|t| t.create(pod("a", "1", "n1", "")))).unwrap();
    let mut all = store.watch(Scope::all(kind_of::<Pod>()), start).unwrap();
    let mut mine = store.watch(Scope::all(kind_of::<Pod>()).with_field("spec.nodeName", "n1"), start).unwrap();
    let mut named = store.watch(Scope::namespace(kind_of::<Pod>(), "a").with_field("metadata.name", "1"), start).unwrap();
    let mut other = store.watch(Scope::namespace(kind_of::<Pod>(), "b"), start).unwrap();
    assert!(all.try_next().unwrap().is_none(), "it is not on disk");
    assert_eq!(all.complete(), start);
    assert!(disk.step());
    assert!(all.try_next().unwrap().is_none(), "it is not synced");
    assert!(disk.step());
    store.commit(txn(|t| t.put(pod("a", "1", "n2", "")).create(pod("b", "1", "n1", "")))).unwrap();
    store.commit(txn(|t| t.delete(pod_key("b", "1"), None).create(map("m", 1)))).unwrap();
    disk.settle();
    let end = store.revision();
    let mut late = store.watch(Scope::all(kind_of::<Pod>()).with_field("spec.nodeName", "n1"), start + 1).unwrap();
    let show = |watch: &mut Watch| {
        let mut lines = Vec::new();
        while let Some(c) = watch.try_next().unwrap() {
            let node = |o: &Option<Arc<Object>>| o.as_ref().map_or("-".to_owned(), |o| o.field("spec.nodeName").to_owned());
            let complete = watch.complete() - start;
            lines.push(format!(
                "{}/{} +{} {}>{} complete to +{complete}",
                c.key.namespace,
                c.key.name,
                c.revision - start,
                node(&c.old),
                node(&c.new)
            ));
        }
        assert_eq!(watch.complete(), end, "nothing is left to give");
        lines.join("\n")
    };
    expect_test::expect![[r#"
        a/1 +1 ->n1 complete to +1
        a/1 +2 n1>n2 complete to +2
        b/1 +3 ->n1 complete to +3
        b/1 +4 n1>- complete to +5"#]]
    .assert_eq(&show(&mut all));
    expect_test::expect![[r#"
        a/1 +1 ->n1 complete to +1
        a/1 +2 n1>n2 complete to +2
        b/1 +3 ->n1 complete to +3
        b/1 +4 n1>- complete to +5"#]]
    .assert_eq(&show(&mut mine));
    expect_test::expect![[r#"
        a/1 +1 ->n1 complete to +1
        a/1 +2 n1>n2 complete to +5"#]]
    .assert_eq(&show(&mut named));
    expect_test::expect![[r#"
        b/1 +3 ->n1 complete to +3
        b/1 +4 n1>- complete to +5"#]]
    .assert_eq(&show(&mut other));
    expect_test::expect![[r#"
        a/1 +2 n1>n2 complete to +2
        b/1 +3 ->n1 complete to +3
        b/1 +4 n1>- complete to +5"#]]
    .assert_eq(&show(&mut late));
}

#[test]
fn wa6_a_slow_watcher_is_cut_and_the_others_are_not() {
    let store = Store::memory();
    let mut slow = store.watch(Scope::all(kind_of::<ConfigMap>()), 0).unwrap();
    let mut quick = store.watch(Scope::all(kind_of::<ConfigMap>()), 0).unwrap();
    for i in 0..40_000 {
        store.commit(txn(|t| t.put(map("a", i)))).unwrap();
        assert!(quick.try_next().unwrap().is_some());
    }
    assert!(matches!(slow.try_next(), Err(Ended::Slow)));
    assert!(matches!(wait(slow.next()), Err(Ended::Slow)));
}

#[test]
fn what_was_written_lately_is_told_and_what_is_packed_says_the_same() {
    let store = Store::memory();
    let name = |n: u32| format!("web-{n:02}");
    // Long enough to be worth it.
    let long = |n: u32| pod("shop", &name(n), &"node".repeat(100), "owner");
    (0..20).for_each(|n| drop(store.commit(txn(|t| t.create(long(n)))).unwrap()));
    store.commit(txn(|t| t.delete(pod_key("shop", "web-00"), None))).unwrap();
    let told = |after, until| {
        let (objects, reached) = store.written(after, until);
        (objects.iter().map(|o| o.revision).collect::<Vec<_>>(), reached)
    };
    assert_eq!(told(17, 19), (vec![18, 19], 19));
    assert_eq!(told(19, 21), (vec![20, 21], 21), "the last version of what was deleted too");
    store.compact(5);
    assert_eq!(told(2, 21), (vec![3, 4, 5], 5), "first what exists of what is past");
    assert_eq!(told(5, 6), (vec![6], 6));
    assert_eq!(told(0, 3), (vec![2, 3], 3), "and what is gone is not told");

    let before = dump(&store.view());
    let mut packer = Packer::default();
    store.view().all().for_each(|object| object.pack(&mut packer));
    assert_eq!(dump(&store.view()), before);
    let gone = store.commit(txn(|t| t.delete(pod_key("shop", "web-07"), None))).unwrap();
    assert_eq!(gone.objects[0].value()["metadata"]["resourceVersion"], "22");
    assert_eq!(gone.objects[0].value()["spec"], long(7).value()["spec"]);
}

#[test]
fn what_was_compacted_is_refused_and_never_skipped() {
    let store = Store::memory();
    for i in 1..=10 {
        store.commit(txn(|t| t.put(map("a", i)))).unwrap();
    }
    store.compact(4);
    assert_eq!(store.changes(3).unwrap_err(), Compacted { asked: 3, floor: 4 });
    assert_eq!(store.watch(Scope::all(kind_of::<ConfigMap>()), 0).err(), Some(Compacted { asked: 0, floor: 4 }));
    assert_eq!(store.changes(4).unwrap().iter().map(|c| c.revision).collect::<Vec<_>>(), [5, 6, 7, 8, 9, 10]);
    store.compact(2);
    assert_eq!(store.floor(), 4, "the floor only rises");
}

#[test]
fn a_watch_that_is_ahead_waits() {
    let store = Store::memory();
    let mut watch = store.watch(Scope::all(kind_of::<ConfigMap>()), 2).unwrap();
    for i in 1..=3 {
        store.commit(txn(|t| t.put(map("a", i)))).unwrap();
    }
    assert_eq!(watch.try_next().unwrap().unwrap().revision, 3);
}

#[test]
fn lazy_records_reach_the_disk_within_a_second_and_at_once_if_asked() {
    let disk = Disk::new();
    let store = Store::open(disk.engine()).unwrap();
    let begin = std::time::Instant::now();
    let beat = store.commit(txn(|t| t.put(lease("n1", 1)))).unwrap().revision;
    assert!(store.durable() < beat);
    while store.durable() < beat {
        assert!(begin.elapsed() < Duration::from_millis(1500), "it should have been synced by now");
        std::thread::sleep(Duration::from_millis(10));
    }
    let beat = store.commit(txn(|t| t.put(lease("n1", 2)))).unwrap().revision;
    let begin = std::time::Instant::now();
    wait(store.until_durable(beat)).unwrap();
    assert!(begin.elapsed() < Duration::from_millis(500), "somebody waited for it");
    store.close();
    assert!(matches!(store.commit(txn(|t| t.put(map("a", 1)))).unwrap_err().kind, ConflictKind::Stopped));
}

#[test]
fn f07_a_failed_sync_stops_the_store_and_is_never_taken_for_success() {
    // The start appends and syncs once (operations 0 and 1); a write appends (2) and syncs (3).
    for (fails_at, attempt) in [(2, "append to the disk in memory"), (3, "sync the disk in memory")] {
        let disk = Disk::new();
        disk.fail_at(fails_at);
        let store = Store::open(disk.engine()).unwrap();
        let mut watch = store.watch(Scope::all(kind_of::<ConfigMap>()), 0).unwrap();
        let revision = store.commit(txn(|t| t.create(map("a", 1)))).unwrap().revision;
        let broken = wait(store.until_durable(revision)).unwrap_err();
        assert_eq!(broken.attempt, attempt);
        expect_test::expect![[r#"it could not"#]].assert_eq(&broken.to_string()[27..39]);
        assert!(matches!(watch.try_next(), Err(Ended::Stopped(Some(_)))), "never shown");
        assert_eq!(store.commit(txn(|t| t.put(map("a", 2)))).unwrap_err().kind, ConflictKind::Stopped);
        assert_eq!(wait(store.until_broken()).attempt, attempt);
        let operations = disk.operations();
        drop(store);
        assert_eq!(disk.operations(), operations, "nothing is tried again");
    }
}

#[test]
fn superseded_records_leave_the_disk_when_nobody_can_ask_for_them() {
    let disk = Disk::new();
    let (store, mut steps) = Store::stepped(disk.engine()).unwrap();
    for i in 0..50 {
        store.commit(txn(|t| t.put(map("a", i)).put(map("b", i)))).unwrap();
    }
    store.commit(txn(|t| t.delete(map_key("b"), None))).unwrap();
    steps.settle();
    assert_eq!(disk.len(), 101);
    let floor = store.revision() - 1;
    store.compact(floor);
    store.commit(txn(|t| t.create(map("c", 1)))).unwrap();
    steps.settle();
    assert_eq!(disk.len(), 4, "a, the last b and its end, and c");
    let (again, _steps) = Store::stepped(disk.crash(0).engine()).unwrap();
    assert_eq!(dump(&again.view()), dump(&store.view()));
    assert_eq!(again.floor(), floor);
    let back = again.changes(floor).unwrap();
    assert_eq!(back.len(), 2);
    assert_eq!(value(back[0].last.as_ref().unwrap()), 49, "a watch can resume over a restart");
}

#[test]
fn what_is_gathered_goes_to_the_disk_together() {
    let disk = Disk::new();
    let store = Store::open(disk.engine()).unwrap();
    let before = disk.operations();
    let begun = std::time::Instant::now();
    let gathering = store.gather();
    let last = ["a", "b", "c"].map(|name| store.commit(txn(|t| t.create(map(name, 1)))).unwrap().revision)[2];
    drop(gathering);
    let quick = begun.elapsed() < super::super::writer::GATHER;
    wait(store.until_durable(last)).unwrap();
    // A machine that takes longer than that for three commits in memory has more than one group, and rightly so.
    assert!(!quick || disk.operations() - before == 2, "one append and one sync, not {}", disk.operations() - before);

    let _gathering = store.gather();
    let waited = store.commit(txn(|t| t.create(map("d", 1)))).unwrap().revision;
    wait(store.until_durable(waited)).unwrap();
    let begun = std::time::Instant::now();
    let lazy = store.commit(txn(|t| t.put(lease("h1", 1)))).unwrap().revision;
    drop(store.gather());
    let early = store.durable() >= lazy;
    assert!(!early || begun.elapsed() >= super::super::writer::LAZY, "what nobody waits for is not hurried");
}
