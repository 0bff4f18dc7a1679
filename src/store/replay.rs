//! From the records that an engine kept to the state that they led to.
//!
//! Everything is checked before anything is served: a record that does not say what it said when it was written, a transaction that is
//! only half there, or an object that got lost stops the start with a plain text.
//!
//! Of many records the disk reads the next ones while others are taken apart on all processors, and those before them take their place in
//! the state: a start takes as long as the slowest of the three.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc;

use parking_lot::Mutex;

use super::engine::{Engine, EngineError, Mark, Record, RecordId};
use super::history::{Change, History};
use super::open::OpenError;
use super::view::View;
use super::writer;
use crate::object::{Object, Packer, Revision};

/// What an engine's records led to.
pub(super) struct Replayed {
    pub(super) state: View,
    pub(super) history: History,
    /// Records that are only there for the past, and from which revision on nobody needs them.
    pub(super) doomed: VecDeque<(Revision, RecordId)>,
    pub(super) mark: Mark,
}

/// Reads what an engine kept.
pub(super) fn replay(engine: &mut dyn Engine) -> Result<Replayed, OpenError> {
    let mark = engine.mark()?;
    let mut replay = Replay::new(mark.unwrap_or_default());
    let mut damage = None;
    let pack = mark.is_some_and(|mark| mark.live > LARGE);
    read(engine, pack, &mut |record, object| {
        if damage.is_none() && mark.is_some() {
            damage = replay.take(&record, object).err();
        } else if mark.is_none() {
            damage = Some("there are records, but the note that says how far they go is missing".to_owned());
        }
    })?;
    match damage {
        Some(what) => Err(OpenError::Damaged { what }),
        None => replay.finish().map_err(|what| OpenError::Damaged { what }),
    }
}

/// A record's place.
#[derive(Clone, Copy, Debug)]
struct Place {
    revision: Revision,
    nth: u32,
    of: u32,
}

impl Place {
    fn of(record: &Record) -> Place {
        Place { revision: record.id.revision, nth: record.nth, of: record.of }
    }
    fn follows(self, before: Place) -> bool {
        (before.revision + 1, before.nth + 1, before.of) == (self.revision, self.nth, self.of)
    }
}

/// A state in the making.
struct Replay {
    so_far: Replayed,
    /// The last record, and what to call it.
    last: Option<(Place, RecordId)>,
}

impl Replay {
    fn new(mark: Mark) -> Replay {
        let mut history = History::default();
        history.compact(mark.floor);
        Replay { so_far: Replayed { state: View::empty(), history, doomed: VecDeque::new(), mark }, last: None }
    }

    /// Does what the next record says. An error says what is damaged.
    fn take(&mut self, record: &Record, object: serde_json::Result<Object>) -> Result<(), String> {
        let Replayed { state, history, doomed, mark } = &mut self.so_far;
        let revision = record.id.revision;
        let place = Place::of(record);
        if revision > mark.revision {
            return Err(format!("there is a record of revision {revision}, but the log ends at {}", mark.revision));
        }
        if let Some((last, id)) = &self.last
            && last.revision > mark.floor
            && last.nth + 1 < last.of
            && !place.follows(*last)
        {
            return Err(half(id, last.of));
        }
        // Those that came before what is still known of the past need not be there any more.
        let begins =
            place.nth == 0 || revision <= mark.floor + 1 || self.last.as_ref().is_some_and(|(last, _)| place.follows(*last));
        if revision > mark.floor && !begins {
            return Err(half(&record.id, record.of));
        }
        let object = object.map_err(|e| format!("{} cannot be read: {e}", named(&record.id)))?;
        if writer::id(&object.key, object.revision) != record.id {
            return Err(format!("{} holds {object:?} instead", named(&record.id)));
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
        self.last = Some((place, record.id.clone()));
        Ok(())
    }

    /// Checks that nothing is missing. An error says what is.
    fn finish(self) -> Result<Replayed, String> {
        let Replayed { state, mark, .. } = &self.so_far;
        if let Some((last, id)) = &self.last
            && last.revision > mark.floor
            && last.nth + 1 < last.of
        {
            return Err(half(id, last.of));
        }
        let live = state.all().count() as u64;
        let digest = state.all().fold(0u128, |sum, o| sum.wrapping_add(writer::hash(o)));
        if (live, digest) != (mark.live, mark.digest) {
            return Err(format!(
                "it should hold {} objects at revision {}, and holds {live}{}",
                mark.live,
                mark.revision,
                if live == mark.live { ", not all in the version that was written" } else { "" }
            ));
        }
        Ok(self.so_far)
    }
}

fn named(id: &RecordId) -> String {
    format!("record {} of revision {}", id.path, id.revision)
}

fn half(id: &RecordId, of: u32) -> String {
    format!("{} is one of {of} of a transaction, and not all of them are there", named(id))
}

/// What a record became.
type Read = (Record, serde_json::Result<Object>);

/// The JSON of a store with more objects than this is packed while it is read, which makes a start longer: or all of it would be there unpacked
/// in the moment in which everybody comes back. That of a smaller one is packed when there is time.
const LARGE: u64 = if cfg!(test) { 5_000 } else { 450_000 };

/// Reads all records and what they hold, in order.
fn read(
    engine: &mut dyn Engine,
    pack: bool,
    take: &mut dyn FnMut(Record, serde_json::Result<Object>),
) -> Result<(), EngineError> {
    /// So many are read sooner than a thread is started for them.
    const PIECE: usize = 2048;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        // The disk is no further ahead than this.
        let (to_do, open) = mpsc::sync_channel::<(usize, Vec<Record>)>(2 * processors);
        let (done, ready) = mpsc::channel::<(usize, Vec<Read>)>();
        let mut start = Some(move || {
            let open = Arc::new(Mutex::new(open));
            for _ in 0..processors {
                let (open, done) = (open.clone(), done.clone());
                scope.spawn(move || {
                    let mut packer = Packer::default();
                    let next = || open.lock().recv();
                    while let Ok((nth, piece)) = next() {
                        let piece: Vec<Read> = piece.into_iter().map(hold).collect();
                        if pack {
                            piece.iter().flat_map(|(_, object)| object).for_each(|object| object.pack(&mut packer));
                        }
                        // Nobody listens any more when the disk failed.
                        let _ = done.send((nth, piece));
                    }
                });
            }
        });
        let mut order = Order { next: 0, early: BTreeMap::new(), take };
        let mut piece = Vec::new();
        let mut pieces = 0;
        engine.records(&mut |record| {
            piece.push(record);
            if piece.len() == PIECE {
                if let Some(start) = start.take() {
                    start();
                }
                let mut next = (pieces, std::mem::take(&mut piece));
                pieces += 1;
                // There are readers, and they end only when this channel does.
                while let Err(mpsc::TrySendError::Full(later)) = to_do.try_send(next) {
                    next = later;
                    ready.recv().into_iter().for_each(|(nth, read)| order.put(nth, read));
                }
                ready.try_iter().for_each(|(nth, read)| order.put(nth, read));
            }
        })?;
        drop((to_do, start));
        let rest = (pieces, piece.into_iter().map(hold).collect());
        ready.into_iter().chain([rest]).for_each(|(nth, read)| order.put(nth, read));
        Ok(())
    })
}

fn hold(record: Record) -> Read {
    // What paths call the kind of a record is the second part of its own path.
    let plural = record.id.path.split('/').nth(1).unwrap_or_default();
    let object = Object::from_json(record.json.clone(), plural);
    (record, object)
}

/// Pieces that are ready in any order, taken in theirs.
struct Order<'t> {
    next: usize,
    early: BTreeMap<usize, Vec<Read>>,
    take: &'t mut dyn FnMut(Record, serde_json::Result<Object>),
}

impl Order<'_> {
    fn put(&mut self, nth: usize, read: Vec<Read>) {
        self.early.insert(nth, read);
        while let Some(read) = self.early.remove(&self.next) {
            self.next += 1;
            read.into_iter().for_each(|(record, object)| (self.take)(record, object));
        }
    }
}
