//! The real engine: starting again, two servers on one directory, a torn end, and damage that must never be served.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::super::engine::{fjall, memory::Disk};
use super::*;

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        text = format!("{text}: {cause}");
        at = cause.source();
    }
    text
}

fn filled(directory: &Path, writes: u64) -> Vec<String> {
    let store = Store::open(fjall::open(directory).unwrap()).unwrap();
    for i in 0..writes {
        store.commit(txn(|t| t.put(map(&format!("k{}", i % 7), i)).put(pod("shop", &format!("p{i}"), "n1", "")))).unwrap();
    }
    store.commit(txn(|t| t.delete(pod_key("shop", "p0"), None))).unwrap();
    dump(&store.view())
}

#[test]
fn fjall_keeps_objects_history_and_revision_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let before = filled(directory.path(), 20);
    let store = Store::open(fjall::open(directory.path()).unwrap()).unwrap();
    assert_eq!(dump(&store.view()), before);
    assert_eq!(store.revision(), 41);
    let past = store.changes(10).unwrap();
    assert_eq!(past.len(), 31);
    assert_eq!(past.last().unwrap().last.as_ref().unwrap().revision, 41);
    let second = fjall::open(directory.path()).err().unwrap();
    assert!(second.to_string().contains("another process uses"), "{second}");
}

#[test]
fn st7_a_flipped_bit_in_the_log_is_found_and_never_served() {
    let directory = tempfile::tempdir().unwrap();
    let before = filled(directory.path(), 12);
    let journal = journal(directory.path());
    let bytes = std::fs::read(&journal).unwrap();
    let end = bytes.iter().rposition(|b| *b != 0).unwrap();
    let (mut found, mut harmless) = (0, 0);
    for position in (0..end).step_by(end / 40) {
        let copy = tempfile::tempdir().unwrap();
        copy_all(directory.path(), copy.path());
        let damaged = self::journal(copy.path());
        let mut file = std::fs::OpenOptions::new().read(true).write(true).open(&damaged).unwrap();
        file.seek(SeekFrom::Start(position as u64)).unwrap();
        let mut byte = [0];
        file.read_exact(&mut byte).unwrap();
        file.seek(SeekFrom::Start(position as u64)).unwrap();
        file.write_all(&[byte[0] ^ 0x10]).unwrap();
        drop(file);
        match fjall::open(copy.path()).map_err(|e| e.to_string()).and_then(|e| Store::open(e).map_err(|e| error_chain(&e))) {
            Err(_) => found += 1,
            Ok(store) => {
                assert_eq!(dump(&store.view()), before, "byte {position} flipped, and something else was served");
                harmless += 1;
            }
        }
    }
    assert!(found > 30 && harmless < 10, "found {found}, harmless {harmless}");
}

#[test]
fn st7_a_record_that_says_something_else_or_is_gone_is_found() {
    let fill = || {
        let disk = Disk::new();
        let (store, mut steps) = Store::stepped(disk.engine()).unwrap();
        for i in 0..6 {
            store.commit(txn(|t| t.put(map("a", i)).put(map(&format!("b{i}"), i)))).unwrap();
        }
        steps.settle();
        disk
    };
    let opens =
        |disk: &Disk| Store::stepped(disk.crash(0).engine()).map(|_| "opens".to_owned()).unwrap_or_else(|e| e.to_string());
    let mut seen = Vec::new();
    let disk = fill();
    disk.tamper(11, |r| r.json = String::from_utf8_lossy(&r.json).replace("\"v\":\"5\"", "\"v\":\"6\"").into_bytes().into());
    seen.push(opens(&disk));
    let disk = fill();
    disk.lose(3);
    seen.push(opens(&disk));
    let disk = fill();
    disk.tamper(0, |r| r.json = "{}".into());
    seen.push(opens(&disk));
    let disk = fill();
    disk.tamper(2, |r| r.id.path = "/configmaps/shop/z".into());
    seen.push(opens(&disk));
    expect_test::expect![[r#"
        the store is damaged: it should hold 7 objects at revision 12, and holds 7, not all in the version that was written
        the store is damaged: record /configmaps/shop/a of revision 3 is one of 2 of a transaction, and not all of them are there
        the store is damaged: record /configmaps/shop/a of revision 1 cannot be read: unknown kind null/null
        the store is damaged: record /configmaps/shop/z of revision 3 holds configmaps shop/a @3 instead"#]]
    .assert_eq(&seen.join("\n"));
}

#[test]
fn a_torn_end_costs_only_what_was_never_synced() {
    let directory = tempfile::tempdir().unwrap();
    let before = filled(directory.path(), 12);
    let path = journal(directory.path());
    let bytes = std::fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|b| *b != 0).unwrap() + 1;
    // Half of a group that was being written when the power went: the beginning of an earlier one does for that.
    let mut torn = bytes[..end].to_vec();
    torn.extend_from_slice(&bytes[..200]);
    std::fs::write(&path, &torn).unwrap();
    let store = Store::open(fjall::open(directory.path()).unwrap()).unwrap();
    assert_eq!(dump(&store.view()), before);
    drop(store);
    // A log that lost what had been synced is refused.
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 12);
    let path = journal(directory.path());
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(end as u64 / 2).unwrap();
    let error = Store::open(fjall::open(directory.path()).unwrap()).err().unwrap();
    let text = error_chain(&error);
    assert!(text.contains("but was on disk up to 25. Its end is damaged"), "{text}");
}

/// The engine's journal: the only one, so soon after the start.
fn journal(directory: &Path) -> PathBuf {
    let mut journals: Vec<_> = std::fs::read_dir(fjall::log_of(directory))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "jnl"))
        .collect();
    journals.sort();
    journals.pop().unwrap()
}

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
