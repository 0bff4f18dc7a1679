//! Carrying committed transactions to the engine, in groups.
//!
//! What queued while the last sync ran goes into the next group: one sync for all of it. A failed append or sync stops the store for
//! good. It is never tried again: after a failed fsync the kernel may have dropped the pages and would report success for nothing. The
//! way on is to start again from what is on disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_128;

use super::engine::{Engine, EngineError, Group, Mark, Record, RecordId};
use super::history::Change;
use super::view::View;
use super::{Head, Inner};
use crate::mutant::{self, Mutant};
use crate::object::{Key, Object, Revision};

/// How long lazy records may wait for company before they are synced by themselves: what a power cut may cost of heartbeats and events.
pub(super) const LAZY: Duration = Duration::from_millis(900);
/// How long other records may wait for the rest of what belongs together, while somebody gathers it.
pub(super) const GATHER: Duration = Duration::from_millis(10);
/// How far revisions are reserved ahead of what is on disk. Far more than can be queued ([`QUEUE_CHANGES`]), so that no revision is ever
/// shown to anybody that is not reserved.
pub(super) const RESERVE: Revision = 65_536;
/// How many changes may wait for the writer. Then commits wait too: a disk that is slower than its writers must slow them down.
pub(super) const QUEUE_CHANGES: usize = 8_192;
/// How many bytes of JSON may wait for the writer.
pub(super) const QUEUE_BYTES: usize = 32 << 20;
/// How many superseded records one group removes: removing is never what others wait for.
const REMOVE_AT_ONCE: usize = 2_048;

/// The engine failed, and the store stopped. What was acknowledged is on disk.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store stopped, because it could not {attempt}; what was acknowledged is safe, start again to go on from it")]
pub struct Broken {
    /// What was attempted.
    pub attempt: String,
    /// What the engine said.
    #[source]
    pub source: Arc<EngineError>,
}

/// What waits for the writer.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) changes: Vec<Change>,
    pub(super) bytes: usize,
    /// When it has to go to the disk; `None` while nothing waits.
    pub(super) due: Option<Instant>,
    /// Only of a stepped store: for each transaction how many changes there are up to its end, and the state after it.
    pub(super) ends: std::collections::VecDeque<(usize, View)>,
}

impl Queue {
    /// What waits goes to the disk no later than this. Says whether that is earlier than before.
    pub(super) fn due_by(&mut self, at: Instant) -> bool {
        let earlier = self.due.is_none_or(|due| at < due);
        if earlier {
            self.due = Some(at);
        }
        earlier
    }
    pub(super) fn full(&self) -> bool {
        self.changes.len() >= QUEUE_CHANGES || self.bytes >= QUEUE_BYTES
    }
}

/// What the writer takes at once.
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    pub(super) view: View,
    pub(super) floor: Revision,
    /// Nothing follows, so no revision needs to stay reserved.
    pub(super) last: bool,
}

/// The writer's side of the engine.
pub(super) struct Writer {
    engine: Box<dyn Engine>,
    mark: Mark,
    /// Records that are not needed once the floor has reached the revision beside them; ordered by it.
    doomed: std::collections::VecDeque<(Revision, RecordId)>,
}

impl Writer {
    pub(super) fn new(engine: Box<dyn Engine>, mark: Mark, doomed: std::collections::VecDeque<(Revision, RecordId)>) -> Self {
        Writer { engine, mark, doomed }
    }

    /// Whether there is something to remove, given the floor.
    pub(super) fn untidy(&self) -> bool {
        self.doomed.front().is_some_and(|(at, _)| *at <= self.mark.floor)
    }

    /// Appends a batch. It is not durable before [`Writer::sync`].
    pub(super) fn append(&mut self, batch: &Batch) -> Result<(), EngineError> {
        let mut records = records(&batch.changes);
        if mutant::on(Mutant::TornTransaction) && records.last().is_some_and(|r| r.of > 1) {
            records.pop();
        }
        for change in &batch.changes {
            if let Some(old) = &change.old {
                self.mark.live -= 1;
                self.mark.digest = self.mark.digest.wrapping_sub(hash(old));
                self.doomed.push_back((change.revision, id(&old.key, old.revision)));
            }
            match &change.new {
                Some(new) => {
                    self.mark.live += 1;
                    self.mark.digest = self.mark.digest.wrapping_add(hash(new));
                }
                None => self.doomed.push_back((change.revision, id(&change.key, change.revision))),
            }
        }
        self.mark.revision = batch.view.revision;
        self.mark.reserved = if batch.last { batch.view.revision } else { batch.view.revision + RESERVE };
        self.mark.floor = self.mark.floor.max(batch.floor);
        let due = self.doomed.iter().take(REMOVE_AT_ONCE).take_while(|(at, _)| *at <= self.mark.floor).count();
        let remove = self.doomed.drain(..due).map(|(_, id)| id).collect();
        self.engine.append(&Group { records, remove, mark: self.mark })
    }

    pub(super) fn sync(&mut self) -> Result<(), EngineError> {
        self.engine.sync()
    }
}

/// The records of some changes; each knows its place in its transaction.
fn records(changes: &[Change]) -> Vec<Record> {
    let mut records = Vec::with_capacity(changes.len());
    for same in changes.chunk_by(|a, b| a.transaction == b.transaction) {
        for (nth, change) in same.iter().enumerate() {
            records.push(Record {
                id: id(&change.key, change.revision),
                nth: nth as u32,
                of: same.len() as u32,
                deleted: change.new.is_none(),
                json: change.object().json(),
            });
        }
    }
    records
}

/// The name of a version's record.
pub(super) fn id(key: &Key, revision: Revision) -> RecordId {
    RecordId { revision, path: format!("{}/{}/{}/{}", key.kind.group, key.kind.plural, key.namespace, key.name).into() }
}

/// What an existing object adds to the digest of the whole state.
pub(super) fn hash(object: &Object) -> u128 {
    xxh3_128(&object.json())
}

/// The writer's thread: waits for work, takes what there is, and carries it to disk. Returns when the store closes or breaks.
pub(super) fn run(inner: &Inner, mut writer: Writer) {
    loop {
        let mut head = inner.head.lock();
        loop {
            let now = Instant::now();
            let ripe = head.queue.due.is_some_and(|due| due <= now);
            if ripe || head.closing || writer.untidy() {
                break;
            }
            let until = head.queue.due.unwrap_or(now + Duration::from_secs(5));
            if inner.work.wait_until(&mut head, until).timed_out() && head.queue.due.is_none() {
                break; // Nothing happens: time to look at the age of what is kept.
            }
        }
        let closing = head.closing;
        let batch = take(&mut head, inner, closing);
        drop(head);
        inner.room.notify_all();
        let idle = batch.changes.is_empty() && !closing && batch.floor == writer.mark.floor && !writer.untidy();
        let begun = Instant::now();
        if !idle && let Err(error) = writer.append(&batch).and_then(|()| writer.sync()) {
            inner.stop(Some(error));
            return;
        }
        if !batch.changes.is_empty() {
            let (revision, changes) = (batch.view.revision, batch.changes.len());
            tracing::trace!(revision, changes, us = begun.elapsed().as_micros(), "synced");
            inner.publish(&batch.changes, batch.view);
        }
        if closing {
            inner.stop(None);
            return;
        }
    }
}

/// Takes what waits, and applies the bounds on the past.
pub(super) fn take(head: &mut Head, inner: &Inner, last: bool) -> Batch {
    let floor = head.history.due(&inner.retention, Instant::now(), head.state.revision, inner.hub.delivered());
    head.history.compact(floor);
    take_only(head, last)
}

/// Takes the first so many transactions of what waits.
pub(super) fn take_some(head: &mut Head, transactions: usize) -> Batch {
    if transactions >= head.queue.ends.len() {
        return take_only(head, false);
    }
    let (count, view) = head.queue.ends.drain(..transactions).next_back().unwrap_or_else(|| (0, head.state.clone()));
    head.queue.ends.iter_mut().for_each(|(end, _)| *end -= count);
    let changes: Vec<Change> = head.queue.changes.drain(..count).collect();
    head.queue.bytes -= changes.iter().map(|c| c.object().size()).sum::<usize>();
    Batch { changes, view, floor: head.history.floor, last: false }
}

/// Takes what waits.
pub(super) fn take_only(head: &mut Head, last: bool) -> Batch {
    let queue = std::mem::take(&mut head.queue);
    Batch { changes: queue.changes, view: head.state.clone(), floor: head.history.floor, last }
}
