//! Opening a store, and closing it.
//!
//! You will not find here: how what an engine kept becomes a state again (`replay`).

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::engine::{Engine, EngineError};
use super::history::{History, Retention};
use super::replay::{Replayed, replay};
use super::view::View;
use super::watch::Hub;
use super::writer::{self, Batch, Queue, Writer};
use super::{Durable, Head, Inner, Store, Writes};
use crate::mutant::{self, Mutant};

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
    let Replayed { mut state, history, doomed, mut mark } = replay(&mut *engine)?;
    // Revisions up to the reservation may have been shown to somebody before they were lost: none of them is given out again.
    state.revision = if mutant::on(Mutant::ReuseRevision) { mark.revision } else { mark.reserved.max(mark.revision) };
    mark.revision = state.revision;
    let mut writer = Writer::new(engine, mark, doomed);
    let first = Batch { changes: Vec::new(), view: state.clone(), floor: history.floor, last: false };
    writer.append(&first)?;
    writer.sync()?;
    Ok((Inner::new(state, history, writes), writer))
}
