//! kill -9 of a real process in the middle of its writes. The process is this test binary again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::super::engine::fjall;
use super::*;

const DIRECTORY: &str = "PORTOLAN_STORE_TEST_CHILD";

/// The process that gets killed: three hands count up, each its own key, and say what was acknowledged.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let store = Store::open(fjall::open(Path::new(&directory)).unwrap()).unwrap();
    let hands: Vec<_> = (0..3)
        .map(|hand| {
            let store = store.clone();
            std::thread::spawn(move || {
                let name = format!("k{hand}");
                let mut next = store.get(&map_key(&name)).map_or(0, |o| value(&o));
                loop {
                    next += 1;
                    let twins = txn(|t| t.put(map(&name, next)).put(map(&format!("{name}-twin"), next)));
                    let revision = store.commit(twins).unwrap().revision;
                    wait(store.until_durable(revision)).unwrap();
                    let lazy = store.commit(txn(|t| t.put(lease(&name, next)))).unwrap().revision;
                    if writeln!(std::io::stdout(), "ack {name} {next} {lazy}").is_err() {
                        return;
                    }
                }
            })
        })
        .collect();
    for hand in hands {
        let _ = hand.join();
    }
}

#[test]
fn st1_an_acknowledged_write_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    let mut shown = 0;
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["store::tests::kill::child", "--exact", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut first, mut acks) = (None, 0);
        for line in lines.map_while(Result::ok) {
            let words: Vec<&str> = line.split(' ').collect();
            // The last line may be cut in the middle.
            if let ["ack", name, value, revision] = words[..]
                && let (Ok(value), Ok(revision)) = (value.parse::<u64>(), revision.parse::<u64>())
            {
                acks += 1;
                acknowledged.insert(name.to_owned(), value);
                shown = shown.max(revision);
                let first = *first.get_or_insert_with(Instant::now);
                if first.elapsed() > Duration::from_millis(30 + 37 * round) {
                    let _ = child.kill();
                }
            }
        }
        child.wait().unwrap();
        assert!(acks > 0, "round {round}: the process did nothing");
        let store = Store::open(fjall::open(directory.path()).unwrap()).unwrap();
        for (name, acked) in &acknowledged {
            let kept = value(&store.get(&map_key(name)).expect("it was acknowledged"));
            let twin = value(&store.get(&map_key(&format!("{name}-twin"))).expect("it was acknowledged"));
            assert!(kept >= *acked, "round {round}: {name} was acknowledged at {acked} and is {kept}");
            assert_eq!(kept, twin, "ST2: half a transaction");
        }
        assert!(store.revision() >= shown, "ST3: revision {shown} was shown, the store goes on from {}", store.revision());
    }
}
