//! Bringing a store up from what its engine kept, and closing it.
//!
//! Everything is checked before anything is served: a record that does not say what it said when it was written, a transaction that is
//! only half there, or an object that got lost stops the start with a plain text.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::engine::{Engine, EngineError, Loaded, Mark, Record, RecordId};
use super::history::{Change, History, Retention};
use super::view::View;
use super::watch::Hub;
use super::writer::{self, Batch, Queue, Writer};
use super::{Durable, Head, Inner, Store, Writes};
use crate::mutant::{self, Mutant};
use crate::object::{Object, Revision};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The engine could not do its part.
    #[error("open the store")]
    Engine(#[from] EngineError),
    /// What the engine kept is not what was written. Nothing is served from it.
    #[error("the store is damaged: {what}")]
    Damaged {
        /// What does not fit, naming the record.
        what: String,
    },
}

impl Store {
    /// A store without a disk: everything counts as durable at once. For tests and offline work.
    pub fn memory() -> Store {
        Store { inner: Arc::new(Inner::new(View::empty(), History::default(), Writes::Nowhere)), keeper: None }
    }

    /// Opens what an engine kept, and starts the writer's thread.
    pub fn open(engine: Box<dyn Engine>) -> Result<Store, OpenError> {
        Store::open_keeping(engine, Retention::default())
    }

    /// The same, with other bounds on the past.
    pub fn open_keeping(engine: Box<dyn Engine>, retention: Retention) -> Result<Store, OpenError> {
        let (mut inner, writer) = bring_up(engine, Writes::Thread)?;
        inner.retention = retention;
        let inner = Arc::new(inner);
        let shared = inner.clone();
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer::run(&shared, writer))
            .map_err(|e| EngineError::caused("start the store's thread", e))?;
        let keeper = Keeper { inner: inner.clone(), thread: Mutex::new(Some(thread)) };
        Ok(Store { inner, keeper: Some(Arc::new(keeper)) })
    }

    /// Opens what an engine kept, without a thread: the caller decides when the disk does its next step. No time passes in it. For the
    /// simulated house and for tests.
    pub fn stepped(engine: Box<dyn Engine>) -> Result<(Store, Stepped), OpenError> {
        let (inner, writer) = bring_up(engine, Writes::Stepped)?;
        let inner = Arc::new(inner);
        Ok((Store { inner: inner.clone(), keeper: None }, Stepped { inner, writer, flying: None }))
    }
}

/// Ends the writer's thread with the last handle.
pub(super) struct Keeper {
    inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Keeper {
    pub(super) fn close(&self) {
        self.inner.head.lock().closing = true;
        self.inner.work.notify_one();
        self.inner.room.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the writer was reported by the panic hook; there is nothing left to write with.
            let _ = thread.join();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.close();
    }
}

/// The disk of a store that was opened with [`Store::stepped`]: one append or one sync at a time.
pub struct Stepped {
    inner: Arc<Inner>,
    writer: Writer,
    flying: Option<Batch>,
}

impl Stepped {
    /// Does the next step: appends what is queued, or syncs what was appended and shows it to the outside. False: there was nothing to
    /// do. If the engine fails, the store stops.
    pub fn step(&mut self) -> bool {
        self.step_some(usize::MAX)
    }

    /// As [`Stepped::step`], but appends at most so many transactions: what a crash can come between.
    pub fn step_some(&mut self, transactions: usize) -> bool {
        if let Some(batch) = self.flying.take() {
            match self.writer.sync() {
                Ok(()) if mutant::on(Mutant::AckBeforeSync) => {}
                Ok(()) => self.inner.publish(&batch.changes, batch.view),
                Err(error) => self.inner.stop(Some(error)),
            }
            return true;
        }
        let mut head = self.inner.head.lock();
        if head.writes == Writes::Stopped || (head.queue.due.is_none() && !self.writer.untidy()) {
            return false;
        }
        let batch = writer::take_some(&mut head, transactions.max(1));
        drop(head);
        match self.writer.append(&batch) {
            Ok(()) => {
                if mutant::on(Mutant::AckBeforeSync) {
                    self.inner.publish(&batch.changes, batch.view.clone());
                }
                self.flying = Some(batch);
            }
            Err(error) => self.inner.stop(Some(error)),
        }
        true
    }

    /// Steps until everything is on disk.
    pub fn settle(&mut self) {
        while self.step() {}
    }
}

impl Inner {
    fn new(state: View, history: History, writes: Writes) -> Self {
        let revision = state.revision;
        Inner {
            hub: Arc::new(Hub::new(state.clone())),
            head: Mutex::new(Head { state, history, queue: Queue::default(), writes, gathering: 0, closing: false }),
            work: Condvar::new(),
            room: Condvar::new(),
            newest: tokio::sync::watch::Sender::new(revision),
            durable: tokio::sync::watch::Sender::new(Durable { revision, stopped: false, broken: None }),
            retention: Retention::default(),
        }
    }
}

fn bring_up(mut engine: Box<dyn Engine>, writes: Writes) -> Result<(Inner, Writer), OpenError> {
    let loaded = engine.load()?;
    let Replayed { mut state, history, doomed, mut mark } = replay(loaded)?;
    // Revisions up to the reservation may have been shown to somebody before they were lost: none of them is given out again.
    state.revision = if mutant::on(Mutant::ReuseRevision) { mark.revision } else { mark.reserved.max(mark.revision) };
    mark.revision = state.revision;
    let mut writer = Writer::new(engine, mark, doomed);
    let first = Batch { changes: Vec::new(), view: state.clone(), floor: history.floor, last: false };
    writer.append(&first)?;
    writer.sync()?;
    Ok((Inner::new(state, history, writes), writer))
}

/// What paths call the kind of a record: the second part of its own path.
fn plural(id: &RecordId) -> &str {
    id.path.split('/').nth(1).unwrap_or_default()
}

struct Replayed {
    state: View,
    history: History,
    doomed: VecDeque<(Revision, RecordId)>,
    mark: Mark,
}

fn replay(loaded: Loaded) -> Result<Replayed, OpenError> {
    let damaged = |what: String| OpenError::Damaged { what };
    let Some(mark) = loaded.mark else {
        if loaded.records.is_empty() {
            return Ok(Replayed {
                state: View::empty(),
                history: History::default(),
                doomed: VecDeque::new(),
                mark: Mark::default(),
            });
        }
        return Err(damaged("there are records, but the note that says how far they go is missing".to_owned()));
    };
    let mut state = View::empty();
    let mut history = History::default();
    history.compact(mark.floor);
    let mut doomed = VecDeque::new();
    let mut before: Option<&Record> = None;
    let objects = objects(&loaded.records);
    for (index, (record, object)) in loaded.records.iter().zip(objects).enumerate() {
        let revision = record.id.revision;
        let named = || format!("record {} of revision {revision}", record.id.path);
        if revision > mark.revision {
            return Err(damaged(format!("there is a record of revision {revision}, but the log ends at {}", mark.revision)));
        }
        let next = loaded.records.get(index + 1);
        if revision > mark.floor && !whole(before, record, next, mark.floor) {
            return Err(damaged(format!("{} is one of {} of a transaction, and not all of them are there", named(), record.of)));
        }
        let object = object.map_err(|e| damaged(format!("{} cannot be read: {e}", named())))?;
        if writer::id(&object.key, object.revision) != record.id {
            return Err(damaged(format!("{} holds {object:?} instead", named())));
        }
        let object = Arc::new(object);
        let key = object.key.clone();
        let transaction = revision + u64::from(record.of.saturating_sub(record.nth + 1));
        let change = if record.deleted {
            let old = state.remove(&key);
            doomed.push_back((revision, record.id.clone()));
            Change { revision, transaction, key, old, new: None, last: Some(object) }
        } else {
            let old = state.insert(object.clone());
            Change { revision, transaction, key, old, new: Some(object), last: None }
        };
        if let Some(old) = &change.old {
            doomed.push_back((revision, writer::id(&old.key, old.revision)));
        }
        if revision > mark.floor {
            history.push(change);
        }
        before = Some(record);
    }
    let live = state.all().count() as u64;
    let digest = state.all().fold(0u128, |sum, o| sum.wrapping_add(writer::hash(o)));
    if (live, digest) != (mark.live, mark.digest) {
        return Err(damaged(format!(
            "it should hold {} objects at revision {}, and holds {live}{}",
            mark.live,
            mark.revision,
            if live == mark.live { ", not all in the version that was written" } else { "" }
        )));
    }
    Ok(Replayed { state, history, doomed, mark })
}

/// The objects that records hold. Reading them takes most of the time of a start, so all processors share it where there are many.
fn objects(records: &[Record]) -> Vec<serde_json::Result<Object>> {
    const MANY: usize = 4096;
    let read = |records: &[Record]| -> Vec<_> {
        records.iter().map(|record| Object::from_json(record.json.clone(), plural(&record.id))).collect()
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if records.len() < MANY || processors == 1 {
        return read(records);
    }
    std::thread::scope(|scope| {
        let parts = records.chunks(records.len().div_ceil(processors));
        let readers: Vec<_> = parts.map(|part| scope.spawn(move || read(part))).collect();
        let read = readers.into_iter().flat_map(|r| r.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        read.collect()
    })
}

/// Whether the neighbours of a record are those that its transaction wrote, as far as they must still be there.
fn whole(before: Option<&Record>, record: &Record, next: Option<&Record>, floor: Revision) -> bool {
    let follows = |a: &Record, b: &Record| (a.id.revision + 1, a.nth + 1, a.of) == (b.id.revision, b.nth, b.of);
    let begins = record.nth == 0 || record.id.revision <= floor + 1 || before.is_some_and(|b| follows(b, record));
    let ends = record.nth + 1 >= record.of || next.is_some_and(|n| follows(record, n));
    begins && ends
}
