//! Following the store from outside: only what is on disk, in order, without a gap.
//!
//! Watches are indexed by what they look at, so that a change of one pod wakes the one agent that runs it and not five thousand. A
//! watcher that does not keep up is cut off, and told so: it never slows the store or other watchers, nor grows without bound.
//!
//! What a client calls ADDED and DELETED depends on its selector: that is `api`'s, which gets the versions before and after.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::history::Change;
use super::view::{View, slot};
use super::writer::Broken;
use crate::mutant::{self, Mutant};
use crate::object::{Kind, Object, Revision};

/// How many changes may wait for one watcher. An informer that handles an event in a millisecond is then half a minute behind, and
/// better off with a fresh list.
const WAITING_CHANGES: usize = 32 * 1024;
/// How many bytes of JSON may wait for one watcher: the bound on what one lazy client costs.
const WAITING_BYTES: usize = 16 << 20;

/// What a watch looks at: one kind, perhaps in one namespace, perhaps with one value of one field or of one name.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The kind.
    pub kind: &'static Kind,
    /// Only this namespace.
    pub namespace: Option<Arc<str>>,
    /// Only objects that have, or had before the change, this value in this selectable field (`spec.nodeName`); `metadata.name` too.
    pub field: Option<(Arc<str>, Arc<str>)>,
}

impl Scope {
    /// All objects of a kind.
    pub fn all(kind: &'static Kind) -> Self {
        Scope { kind, namespace: None, field: None }
    }
    /// All objects of a kind in a namespace.
    pub fn namespace(kind: &'static Kind, namespace: &str) -> Self {
        Scope { namespace: Some(namespace.into()), ..Scope::all(kind) }
    }
    /// Narrows to one value of one field: a path from `Kind::selectable`, or `metadata.name`.
    pub fn with_field(self, path: &str, value: &str) -> Self {
        Scope { field: Some((path.into(), value.into())), ..self }
    }

    fn shows(&self, change: &Change) -> bool {
        change.key.kind == self.kind
            && self.namespace.as_ref().is_none_or(|ns| *ns == change.key.namespace)
            && self.field.as_ref().is_none_or(|(path, value)| {
                let has = |o: &Arc<Object>| field(o, path).is_some_and(|v| v == &**value);
                change.old.as_ref().is_some_and(has) || change.new.as_ref().is_some_and(has)
            })
    }
}

fn field<'a>(object: &'a Object, path: &str) -> Option<&'a str> {
    if path == "metadata.name" {
        return Some(&object.key.name);
    }
    let place = object.key.kind.selectable.iter().position(|s| *s == path)?;
    object.meta.fields.get(place)
}

/// Why a watch gives no more changes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Ended {
    /// More changes waited than one watcher may keep. The client has to list again (410 on the wire).
    #[error("the watcher did not keep up: more than {WAITING_CHANGES} changes or {WAITING_BYTES} bytes waited for it")]
    Slow,
    /// The store stopped.
    #[error("the store stopped")]
    Stopped(#[source] Option<Broken>),
}

/// A stream of changes in one scope. Dropping it ends it.
pub struct Watch {
    /// What had happened before the watch began: known at the start, so it counts against no bound.
    backlog: VecDeque<Change>,
    seat: Arc<Seat>,
    hub: Arc<Hub>,
    id: u64,
    scope: Scope,
    complete: Revision,
}

/// Where the store puts what a watcher has not taken yet.
struct Seat {
    queue: Mutex<Waiting>,
    bell: Notify,
}

#[derive(Default)]
struct Waiting {
    changes: VecDeque<Change>,
    bytes: usize,
    ended: Option<Ended>,
}

impl Watch {
    /// The next change in scope. Waits for one; may be dropped and called again without losing any.
    pub async fn next(&mut self) -> Result<Change, Ended> {
        loop {
            let seat = self.seat.clone();
            let rung = seat.bell.notified();
            if let Some(change) = self.try_next()? {
                return Ok(change);
            }
            rung.await;
        }
    }

    /// Waits until there is something to take, or the watch has ended. Takes nothing.
    pub async fn ready(&self) {
        loop {
            let rung = self.seat.bell.notified();
            if !self.backlog.is_empty() || self.seat.rings() {
                return;
            }
            rung.await;
        }
    }

    /// The next change in scope if there is one now.
    pub fn try_next(&mut self) -> Result<Option<Change>, Ended> {
        if let Some(change) = self.backlog.pop_front() {
            return Ok(Some(change));
        }
        // Read before the queue: what was delivered up to here is in the queue or was taken from it.
        let delivered = self.hub.delivered();
        let mut waiting = self.seat.queue.lock();
        if let Some(change) = waiting.changes.pop_front() {
            waiting.bytes -= change.object().size();
            return Ok(Some(change));
        }
        if let Some(ended) = &waiting.ended {
            return Err(ended.clone());
        }
        self.complete = self.complete.max(delivered);
        Ok(None)
    }

    /// Up to which revision this watch has given everything: what a bookmark may say. It moves when `next` has nothing left to give,
    /// also when nothing in scope happened.
    pub fn complete(&mut self) -> Revision {
        let delivered = self.hub.delivered();
        let waiting = self.seat.queue.lock();
        let complete = match self.backlog.front().or(waiting.changes.front()) {
            _ if mutant::on(Mutant::EarlyBookmark) => delivered,
            Some(next) => next.revision - 1,
            // Who was cut off misses what waited: nothing more can be promised.
            None if waiting.ended.is_some() => self.complete,
            None => delivered,
        };
        self.complete = self.complete.max(complete);
        self.complete
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.hub.seats.lock().leave(&self.scope, self.id);
    }
}

/// All watchers, by what they look at.
pub(super) struct Hub {
    seats: Mutex<Seats>,
    delivered: AtomicU64,
}

/// A kind's place and perhaps a namespace.
type Place = (usize, Option<Arc<str>>);

/// Watches of one place, each with the revision that it starts after.
type Row = BTreeMap<u64, (Arc<Seat>, Revision)>;

/// Watches of one place that name a field, by that field and then by its value.
type ByField = BTreeMap<Arc<str>, HashMap<Arc<str>, Row>>;

struct Seats {
    next_id: u64,
    /// The state that everybody may see.
    settled: View,
    /// Watches without a field.
    plain: HashMap<Place, Row>,
    /// Watches with a field: first which fields somebody watches, then by value.
    fields: HashMap<Place, ByField>,
    stopped: Option<Option<Broken>>,
}

impl Hub {
    pub(super) fn new(settled: View) -> Self {
        let delivered = AtomicU64::new(settled.revision);
        let seats = Seats { next_id: 0, settled, plain: HashMap::new(), fields: HashMap::new(), stopped: None };
        Hub { seats: Mutex::new(seats), delivered }
    }

    pub(super) fn delivered(&self) -> Revision {
        self.delivered.load(Ordering::Acquire)
    }

    /// The state that everybody may see.
    pub(super) fn settled(&self) -> View {
        self.seats.lock().settled.clone()
    }

    /// Starts a watch. `past` are the changes after `after` that history has, durable or not. The caller holds the lock under which
    /// changes enter history.
    pub(super) fn join<'a>(self: &Arc<Self>, scope: Scope, after: Revision, past: impl Iterator<Item = &'a Change>) -> Watch {
        let mut seats = self.seats.lock();
        let delivered = self.delivered();
        let known = |c: &&Change| c.revision <= delivered || mutant::on(Mutant::EventBeforeSync);
        let backlog = past.take_while(known).filter(|c| scope.shows(c)).cloned().collect();
        let seat = Arc::new(Seat { queue: Mutex::default(), bell: Notify::new() });
        let id = seats.next_id;
        seats.next_id += 1;
        match &seats.stopped {
            Some(broken) => seat.queue.lock().ended = Some(Ended::Stopped(broken.clone())),
            None => {
                seats.row(&scope).insert(id, (seat.clone(), after));
            }
        }
        Watch { backlog, seat, hub: self.clone(), id, scope, complete: after }
    }

    /// Hands out a group of changes that reached the disk, and the state after them.
    pub(super) fn deliver(&self, changes: &[Change], settled: View) {
        let mut seats = self.seats.lock();
        for change in changes {
            seats.deliver(change);
        }
        self.delivered.store(settled.revision, Ordering::Release);
        seats.settled = settled;
    }

    /// Ends all watches.
    pub(super) fn stop(&self, broken: Option<Broken>) {
        let mut seats = self.seats.lock();
        seats.stopped = Some(broken.clone());
        let plain = std::mem::take(&mut seats.plain);
        let fields = std::mem::take(&mut seats.fields);
        let rows = plain.into_values().chain(fields.into_values().flat_map(|f| f.into_values().flat_map(HashMap::into_values)));
        for (seat, _) in rows.flat_map(BTreeMap::into_values) {
            seat.queue.lock().ended = Some(Ended::Stopped(broken.clone()));
            seat.bell.notify_one();
        }
    }
}

impl Seats {
    fn row(&mut self, scope: &Scope) -> &mut Row {
        let place = (slot(scope.kind), scope.namespace.clone());
        match &scope.field {
            None => self.plain.entry(place).or_default(),
            Some((path, value)) => {
                self.fields.entry(place).or_default().entry(path.clone()).or_default().entry(value.clone()).or_default()
            }
        }
    }

    fn leave(&mut self, scope: &Scope, id: u64) {
        let place = (slot(scope.kind), scope.namespace.clone());
        match &scope.field {
            None => {
                if let Some(row) = self.plain.get_mut(&place) {
                    row.remove(&id);
                    if row.is_empty() {
                        self.plain.remove(&place);
                    }
                }
            }
            Some((path, value)) => {
                let Some(fields) = self.fields.get_mut(&place) else { return };
                if let Some(values) = fields.get_mut(path) {
                    if let Some(row) = values.get_mut(value) {
                        row.remove(&id);
                        if row.is_empty() {
                            values.remove(value);
                        }
                    }
                    if values.is_empty() {
                        fields.remove(path);
                    }
                }
                if fields.is_empty() {
                    self.fields.remove(&place);
                }
            }
        }
    }

    fn deliver(&mut self, change: &Change) {
        if mutant::on(Mutant::LostEvent) && change.revision.is_multiple_of(17) {
            return;
        }
        let kind = slot(change.key.kind);
        let give = |row: &mut Row| {
            row.retain(|_, (seat, after)| change.revision <= *after || seat.take(change));
        };
        for place in [(kind, None), (kind, Some(change.key.namespace.clone()))] {
            if let Some(row) = self.plain.get_mut(&place) {
                give(row);
            }
            for (path, values) in self.fields.get_mut(&place).into_iter().flatten() {
                let before = change.old.as_ref().and_then(|o| field(o, path));
                let after = change.new.as_ref().and_then(|o| field(o, path)).filter(|v| Some(*v) != before);
                for value in before.into_iter().chain(after) {
                    if let Some(row) = values.get_mut(value) {
                        give(row);
                    }
                }
            }
        }
    }
}

impl Seat {
    /// Whether there is something to take, or the watch has ended.
    fn rings(&self) -> bool {
        let waiting = self.queue.lock();
        !waiting.changes.is_empty() || waiting.ended.is_some()
    }

    /// Puts a change down for the watcher. False: it already had too many, and was cut off.
    fn take(&self, change: &Change) -> bool {
        let mut waiting = self.queue.lock();
        let full = waiting.changes.len() >= WAITING_CHANGES || waiting.bytes >= WAITING_BYTES;
        if full && mutant::on(Mutant::SlowLosesSome) {
            waiting.changes.clear();
            waiting.bytes = 0;
            return true;
        }
        if full {
            // What waits is given up too: it would only be followed by a gap.
            *waiting = Waiting { ended: Some(Ended::Slow), ..Waiting::default() };
        } else {
            waiting.bytes += change.object().size();
            waiting.changes.push_back(change.clone());
        }
        drop(waiting);
        self.bell.notify_one();
        !full
    }
}
