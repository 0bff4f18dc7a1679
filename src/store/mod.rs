//! The one truth: every object, its versions, and what happened lately.
//!
//! One versioned map in memory with optimistic concurrency; a log on disk behind it. Loops run ahead on what is in memory; the outside
//! only ever sees what is on disk: a watch shows durable changes only, and `api` waits with [`Store::until_durable`] before it answers.
//! There is one log, in order, so a crash loses only a suffix that nobody outside has seen.
//!
//! You will not find here: any opinion about what *should* be, HTTP, selectors by label, or defaults.

pub mod bench;
mod commit;
pub mod engine;
mod history;
mod open;
mod pack;
mod replay;
mod txn;
mod view;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

pub use commit::Committed;
pub use engine::Engine;
pub use history::{Change, Compacted, Retention};
pub use open::{OpenError, Stepped};
pub use txn::{Conflict, ConflictKind, Txn};
pub use view::{Shelf, Step, View};
pub use watch::{Ended, Scope, Watch};
pub use writer::Broken;

use crate::mutant::{self, Mutant};
use crate::object::{Key, Kind, Object, Revision};
use engine::EngineError;
use history::History;
use watch::Hub;
use writer::Queue;

/// A handle to the store; clones share it. When the last one is dropped, what is queued is written and the engine is closed.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    keeper: Option<Arc<open::Keeper>>,
}

/// What handles and the writer share.
struct Inner {
    head: Mutex<Head>,
    /// The writer waits here for work.
    work: Condvar,
    /// Commits wait here while the queue is full.
    room: Condvar,
    newest: tokio::sync::watch::Sender<Revision>,
    durable: tokio::sync::watch::Sender<Durable>,
    hub: Arc<Hub>,
    retention: Retention,
}

/// The newest state, and what led to it.
struct Head {
    state: View,
    history: History,
    queue: Queue,
    writes: Writes,
    /// How many gather what belongs together.
    gathering: usize,
    /// Asked to close: no more writes are taken.
    closing: bool,
}

/// Who carries writes to the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writes {
    /// Nobody: memory is all there is.
    Nowhere,
    /// A thread of its own.
    Thread,
    /// The caller, step by step.
    Stepped,
    /// Nobody any more: the engine failed, or the store was closed.
    Stopped,
}

/// How far the disk is.
#[derive(Clone, Debug)]
struct Durable {
    revision: Revision,
    stopped: bool,
    broken: Option<Broken>,
}

impl Store {
    /// The newest revision, on disk or not.
    pub fn revision(&self) -> Revision {
        self.inner.head.lock().state.revision
    }

    /// The revision up to which everything is on disk.
    pub fn durable(&self) -> Revision {
        self.inner.durable.borrow().revision
    }

    /// Waits until everything up to a revision is on disk. Fails if the engine failed before that, or the store was closed.
    pub async fn until_durable(&self, revision: Revision) -> Result<(), Broken> {
        if self.durable() >= revision {
            return Ok(());
        }
        self.hurry();
        let mut progress = self.inner.durable.subscribe();
        let seen = progress.wait_for(|d| d.revision >= revision || d.stopped).await.expect("the store holds the sender");
        if seen.revision >= revision { Ok(()) } else { Err(seen.broken.clone().unwrap_or_else(closed)) }
    }

    /// Waits until the store stops by itself, and says why. A server ends then, with this text. Never returns if the store is closed
    /// in an orderly way.
    pub async fn until_broken(&self) -> Broken {
        let mut progress = self.inner.durable.subscribe();
        let seen = progress.wait_for(|d| d.broken.is_some()).await.expect("the store holds the sender");
        seen.broken.clone().expect("it was waited for")
    }

    /// The newest version of an object, on disk or not.
    pub fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.inner.head.lock().state.get(key).cloned()
    }

    /// The newest state, on disk or not: what loops plan from.
    pub fn view(&self) -> View {
        self.inner.head.lock().state.clone()
    }

    /// The newest state that is on disk: what may be shown to the outside at once, without waiting for the disk. Every write that was
    /// acknowledged after its sync is in it.
    pub fn durable_view(&self) -> View {
        if mutant::on(Mutant::UnsyncedRead) {
            return self.view();
        }
        self.inner.hub.settled()
    }

    /// Everything that changed after a revision, in order, on disk or not: how a loop follows the store. A transaction's changes are
    /// all there.
    pub fn changes(&self, after: Revision) -> Result<Vec<Change>, Compacted> {
        Ok(self.inner.head.lock().history.after(after)?.cloned().collect())
    }

    /// The same of one kind.
    pub fn changes_of(&self, kind: &'static Kind, after: Revision) -> Result<Vec<Change>, Compacted> {
        Ok(self.inner.head.lock().history.after(after)?.filter(|change| change.key.kind == kind).cloned().collect())
    }

    /// Shows the newest revision as it moves. Wakes loops, but not for heartbeats and events alone: of those there may be hundreds a
    /// second when nothing else happens, and each would wake all loops. The value is always right; who sleeps looks at it now and then.
    pub fn newest(&self) -> tokio::sync::watch::Receiver<Revision> {
        self.inner.newest.subscribe()
    }

    /// Follows a scope from a revision: durable changes only, in order, without a gap. A revision that is too old is [`Compacted`]; one
    /// that is yet to come is waited for.
    pub fn watch(&self, scope: Scope, after: Revision) -> Result<Watch, Compacted> {
        let head = self.inner.head.lock();
        let past = head.history.after(after)?;
        Ok(self.inner.hub.join(scope, after, past))
    }

    /// The oldest revision that a watch can continue from.
    pub fn floor(&self) -> Revision {
        self.inner.head.lock().history.floor
    }

    /// Forgets the changes up to a revision, and in the background what is on disk of them. Objects that exist stay as they are. What is
    /// not on disk yet is kept.
    pub fn compact(&self, keep_after: Revision) {
        let mut head = self.inner.head.lock();
        let floor = keep_after.min(self.inner.hub.delivered());
        head.history.compact(floor);
        drop(head);
        self.inner.work.notify_one();
    }

    /// Refuses further writes, writes what is queued, and returns when it is on disk. Also done when the last handle is dropped.
    pub fn close(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.close();
        } else {
            self.inner.stop(None);
        }
    }

    /// Until the guard is dropped, what is committed may wait a few milliseconds for what belongs to it: one sync for a chain of small
    /// transactions, each of which leads to the next, instead of two or three. Whoever waits ([`Store::until_durable`]) still hurries
    /// the disk.
    pub fn gather(&self) -> Gathering {
        self.inner.head.lock().gathering += 1;
        Gathering { store: self.clone() }
    }

    /// Tells the writer that somebody waits.
    fn hurry(&self) {
        let mut head = self.inner.head.lock();
        if head.queue.due.is_some() && head.queue.due_by(Instant::now()) {
            self.inner.work.notify_one();
        }
    }
}

/// Somebody commits things that belong together. When it is dropped, they go to the disk.
#[must_use]
pub struct Gathering {
    store: Store,
}

impl Drop for Gathering {
    fn drop(&mut self) {
        let mut head = self.store.inner.head.lock();
        head.gathering -= 1;
        // What is lazy stays so.
        let soon = Instant::now() + writer::GATHER;
        if head.queue.due.is_some_and(|due| due <= soon) && head.queue.due_by(Instant::now()) {
            self.store.inner.work.notify_one();
        }
    }
}

impl Inner {
    /// Shows a group to the outside: it is on disk.
    fn publish(&self, changes: &[Change], view: View) {
        let revision = view.revision;
        self.hub.deliver(changes, view);
        self.durable.send_modify(|d| d.revision = d.revision.max(revision));
    }

    /// Takes no more writes, and ends all watches and waits.
    fn stop(&self, error: Option<EngineError>) {
        let broken = error.map(|e| Broken { attempt: e.attempt.clone(), source: Arc::new(e) });
        let mut head = self.head.lock();
        head.writes = Writes::Stopped;
        head.closing = true;
        drop(head);
        self.room.notify_all();
        self.hub.stop(broken.clone());
        self.durable.send_modify(|d| {
            d.stopped = true;
            d.broken = broken;
        });
    }
}

/// What somebody is told who waits for a store that was closed in an orderly way.
fn closed() -> Broken {
    let attempt = "take writes after it was closed";
    Broken { attempt: attempt.to_owned(), source: Arc::new(EngineError::new(attempt)) }
}
