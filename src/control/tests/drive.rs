//! The driver with real time: loops that meet other writers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use crate::control::{Context, Loop, Next, drive};
use crate::object::{Draft, Key, kind_of};
use crate::store::{Conflict, Store, Txn};

/// Counts its steps and does as it is told.
struct Told<F: FnMut(&mut Context<'_>, usize) -> Result<Next, Conflict> + Send>(Arc<AtomicUsize>, F);

impl<F: FnMut(&mut Context<'_>, usize) -> Result<Next, Conflict> + Send> Loop for Told<F> {
    fn name(&self) -> &'static str {
        "told"
    }
    fn step(&mut self, cx: &mut Context<'_>) -> Result<Next, Conflict> {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        (self.1)(cx, number)
    }
}

fn draft(name: &str, text: &str) -> Draft {
    Draft::new(kind_of::<ConfigMap>(), json!({"metadata": {"name": name, "namespace": "d", "uid": name}, "data": {"t": text}}))
}

async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within five seconds: {what}");
}

#[tokio::test]
async fn loops_are_called_for_changes_and_for_their_time_and_survive_conflicts_and_panics() {
    let store = Store::memory();
    let counts: Vec<Arc<AtomicUsize>> = (0..4).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let settled = Arc::new(AtomicBool::new(false));
    let done = settled.clone();
    let loops: Vec<Box<dyn Loop>> = vec![
        Box::new(Told(counts[0].clone(), |_, _| Ok(Next::Idle))),
        Box::new(Told(counts[1].clone(), |cx, n| {
            Ok(if n < 3 { Next::At(cx.now + SignedDuration::from_millis(20)) } else { Next::Idle })
        })),
        Box::new(Told(counts[2].clone(), move |cx, n| {
            // Three conflicts in a row, then it succeeds.
            let mut txn = Txn::new();
            txn.expect(Key::of::<ConfigMap>("d", "nothing"), (n < 3).then_some(1));
            txn.put(draft("made", "x"));
            if !done.load(Ordering::SeqCst) {
                cx.store.commit(txn)?;
                done.store(true, Ordering::SeqCst);
            }
            Ok(Next::Idle)
        })),
        Box::new(Told(counts[3].clone(), |_, n| if n == 0 { panic!("a mistake") } else { Ok(Next::Idle) })),
    ];
    let stop = tokio_util::sync::CancellationToken::new();
    let driver = tokio::spawn(drive(loops, store.clone(), stop.clone().cancelled_owned()));
    let count = |i: usize| counts[i].load(Ordering::SeqCst);
    until("a loop that asks for its time gets it", || count(1) >= 4).await;
    until("a loop that met conflicts succeeds", || settled.load(Ordering::SeqCst)).await;
    assert_eq!(count(2).min(5), count(2), "and is not called without end");
    until("a loop that panicked is called again", || count(3) >= 2).await;
    let before = count(0);
    let mut txn = Txn::new();
    txn.put(draft("other", "y"));
    store.commit(txn).unwrap();
    until("a change wakes everybody", || count(0) > before).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let rest: Vec<usize> = (0..4).map(count).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(rest, (0..4).map(count).collect::<Vec<_>>(), "at rest nobody is called");
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), driver).await.expect("it stops").unwrap();
}
