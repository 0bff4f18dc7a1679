//! The loops: wake, read, plan, commit.
//!
//! A [`Loop`] looks at the store, asks a planner in `plan` what should happen, and commits that with the versions that it read. It is
//! synchronous and is told the time, so that the simulator can call it in any order. The async part (the wake-ups, timers and back-off)
//! is [`drive`], shared by all. Work is keyed: after the first full look a step costs what changed, not what exists, and at rest a loop
//! writes nothing.
//!
//! You will not find here: decisions (they are in `plan`), HTTP, or Docker.

mod account;
mod aggregate;
mod definition;
mod deployment;
pub mod event;
pub mod fetch;
mod forget;
mod garbage;
mod keyed;
mod namespace;
pub mod node;
pub mod release;
mod replica_set;
mod schedule;
#[cfg(test)]
mod tests;
mod write;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use crate::clock;
use crate::plan::schedule::Strategy;
use crate::store::{Conflict, Store};

/// What a server's operator may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which of the nodes that fit a pod gets.
    pub strategy: Strategy,
    /// For [`Strategy::Random`].
    pub seed: u64,
    /// What a host's silence means, and how fast its pods are given up.
    pub nodes: crate::plan::node::Options,
    /// How many pods that have ended are kept for people to look at.
    pub ended_pods: usize,
    /// The certificate of the API's authority, PEM, for the pods in every namespace.
    pub certificate: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            strategy: Strategy::Spread,
            seed: 0,
            nodes: crate::plan::node::Options::default(),
            ended_pods: 500,
            certificate: None,
        }
    }
}

/// The loops of a server, beside the one that follows git.
pub fn loops(options: &Options) -> Vec<Box<dyn Loop>> {
    vec![
        Box::new(deployment::Deployments::new()),
        Box::new(replica_set::ReplicaSets::new()),
        Box::new(schedule::Schedule::new(options.strategy, options.seed)),
        Box::new(node::Nodes::new(options.nodes.clone())),
        Box::new(garbage::Garbage::default()),
        Box::new(namespace::Namespaces::default()),
        Box::new(forget::Forget::new(options.ended_pods)),
        Box::new(aggregate::Aggregate::default()),
        Box::new(definition::Definitions::default()),
        Box::new(account::Accounts::new(options.certificate.clone())),
    ]
}

/// What a step is given.
pub struct Context<'a> {
    /// The one truth.
    pub store: &'a Store,
    /// The time of this step.
    pub now: Timestamp,
    /// Where new names come from.
    pub ids: &'a mut Ids,
}

/// Something that looks at the store, decides, and writes back. Woken by changes and by time; told nothing.
pub trait Loop: Send {
    /// A short name for logs: `deployment`.
    fn name(&self) -> &'static str;
    /// Looks once. Says when to look again if nothing happens before.
    ///
    /// # Errors
    /// Something that the plan was made from changed meanwhile: look again. What the loop had to do is not lost.
    fn step(&mut self, cx: &mut Context<'_>) -> Result<Next, Conflict>;
    /// What rings when something outside of the store happened that this loop wants to see.
    fn wake(&self) -> Option<Arc<Notify>> {
        None
    }
}

/// When a loop wants to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When the store changes.
    Idle,
    /// When the store changes, or at this time.
    At(Timestamp),
    /// At once: there was more to do than one step should.
    Again,
}

impl Next {
    /// The earlier of two wishes.
    pub fn or(self, other: Next) -> Next {
        match (self, other) {
            (Next::Again, _) | (_, Next::Again) => Next::Again,
            (Next::At(a), Next::At(b)) => Next::At(a.min(b)),
            (Next::Idle, n) | (n, Next::Idle) => n,
        }
    }
    /// The wish for a time, if there is one.
    pub fn at(time: Option<Timestamp>) -> Next {
        time.map_or(Next::Idle, Next::At)
    }
}

/// Where uids and name suffixes come from: the operating system, or a seed.
pub struct Ids {
    seed: Option<u64>,
}

impl Ids {
    /// Unpredictable identifiers.
    pub fn system() -> Self {
        Ids { seed: None }
    }
    /// The same identifiers for the same seed, for tests and the simulator.
    pub fn seeded(seed: u64) -> Self {
        Ids { seed: Some(seed) }
    }
    /// A new uid, in the form of a version 4 UUID.
    pub fn uid(&mut self) -> String {
        let (a, b) = (self.number(), self.number());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            0x8000 | (b >> 50),
            b & 0xffff_ffff_ffff
        )
    }
    /// A name suffix of `n` characters from Kubernetes' alphabet: no vowels, no look-alikes.
    pub fn suffix(&mut self, n: usize) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..n).map(|_| char::from(ALPHABET[(self.number() % ALPHABET.len() as u64) as usize])).collect()
    }
    /// Any number.
    pub fn number(&mut self) -> u64 {
        match &mut self.seed {
            None => getrandom::u64().expect("the operating system gives random numbers"),
            // splitmix64: one addition and three mixes per number, and every seed is a good one.
            Some(seed) => {
                *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *seed;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            }
        }
    }
}

/// How long a loop waits after its first conflict in a row; it doubles with each further one.
const FIRST_BACK_OFF: Duration = Duration::from_millis(2);
/// The longest wait after a conflict. Conflicts are ordinary (an agent reported in between) and pass at once.
const LAST_BACK_OFF: Duration = Duration::from_millis(500);
/// Heartbeats and events wake nobody ([`Store::newest`]); they are seen this late when nothing else happens.
const LAZY_NAP: Duration = Duration::from_millis(500);
/// Timers are compared with the clock at least this often, because a wall clock can jump.
const LONGEST_NAP: Duration = Duration::from_secs(30);

/// One loop and when it wants to be called.
struct Slot {
    body: Box<dyn Loop>,
    next: Next,
    conflicts: u32,
}

impl Slot {
    fn step(&mut self, store: &Store, ids: &mut Ids) {
        let now = clock::now();
        let name = self.body.name();
        let begun = (std::time::Instant::now(), store.revision());
        let outcome = catch_unwind(AssertUnwindSafe(|| self.body.step(&mut Context { store, now, ids: &mut *ids })));
        let revision = store.revision();
        if revision != begun.1 {
            tracing::trace!(name, from = begun.1, to = revision, us = begun.0.elapsed().as_micros(), "stepped");
        }
        let wait = match outcome {
            Ok(Ok(next)) => {
                self.conflicts = 0;
                self.next = next;
                return;
            }
            Ok(Err(conflict)) => {
                tracing::debug!(name, %conflict, "looks again");
                self.conflicts += 1;
                (FIRST_BACK_OFF * 2u32.pow(self.conflicts.min(10) - 1)).min(LAST_BACK_OFF)
            }
            Err(_) => {
                tracing::error!(name, "a step panicked; the loop goes on");
                Duration::from_secs(1)
            }
        };
        self.next = Next::At(now + SignedDuration::try_from(wait).unwrap_or_default());
    }

    fn due(&self, now: Timestamp) -> bool {
        match self.next {
            Next::Again => true,
            Next::At(time) => time <= now,
            Next::Idle => false,
        }
    }
}

/// Calls the loops, each when the store changed or when it asked to be called, until `stop` is ready.
///
/// All loops run in one task, one step at a time: what they do is quick, and two loops that never run at the same time cannot meet in
/// a conflict.
pub async fn drive(loops: Vec<Box<dyn Loop>>, store: Store, stop: impl Future<Output = ()>) {
    let mut ids = Ids::system();
    let mut slots: Vec<Slot> = loops.into_iter().map(|body| Slot { body, next: Next::Again, conflicts: 0 }).collect();
    let mut newest = store.newest();
    let mut stop = std::pin::pin!(stop);
    // One loop looks outside (at git); if more do, this becomes a list.
    let outside = slots.iter().find_map(|slot| slot.body.wake()).unwrap_or_default();
    let mut changed = true;
    let mut gathering = None;
    loop {
        // What one commit leads to (a release, its objects, their pods, where those run) is written in several transactions, one after
        // the other and within a few milliseconds. They go to the disk together when nobody has anything more to do.
        gathering.get_or_insert_with(|| store.gather());
        let seen = *newest.borrow_and_update();
        for slot in &mut slots {
            // A loop that met a conflict waits for its time even when the store changes, or two writers would chase each other.
            if slot.due(clock::now()) || (changed && slot.conflicts == 0) {
                slot.step(&store, &mut ids);
                tokio::task::yield_now().await;
            }
        }
        if !newest.has_changed().unwrap_or(false) {
            gathering = None;
        }
        let now = clock::now();
        let nap = slots
            .iter()
            .map(|slot| match slot.next {
                Next::Again => Duration::ZERO,
                Next::At(time) => time.duration_since(now).try_into().unwrap_or(Duration::ZERO),
                Next::Idle => LONGEST_NAP,
            })
            .min()
            .map_or(LONGEST_NAP, |nap| nap.min(LONGEST_NAP));
        changed = tokio::select! {
            biased;
            () = &mut stop => break,
            news = newest.changed() => match news {
                Ok(()) => true,
                Err(_) => break, // the store is gone, and with it the reason to run
            },
            () = outside.notified() => true,
            () = tokio::time::sleep(nap.min(LAZY_NAP)) => *newest.borrow() != seen,
        };
    }
    tracing::debug!(loops = slots.len(), "stopped");
}
