//! Where the store's records go. A small trait, so that the rules of the store (order, groups, reservation, checks) are written once.
//!
//! An engine keeps bytes. It does not know objects, and it has no opinion about which records are still needed.

pub mod fjall;
pub mod memory;

use bytes::Bytes;

use crate::object::Revision;

/// One version of one object, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which version of which object.
    pub id: RecordId,
    /// Its place in its transaction, from 0.
    pub nth: u32,
    /// How many records its transaction wrote: after a crash there are all of them, or the log is damaged.
    pub of: u32,
    /// Whether the object ended at this revision. Its JSON is then the last version, carrying this revision.
    pub deleted: bool,
    /// The object's canonical JSON.
    pub json: Bytes,
}

/// Names a record: its revision, and the key that was written. Records are kept in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// The revision.
    pub revision: Revision,
    /// `group/plural/namespace/name`.
    pub path: Box<str>,
}

/// What the store notes about itself with each group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The newest revision in the log.
    pub revision: Revision,
    /// No revision up to here is given out again: those above `revision` may have been shown to somebody before they were lost.
    pub reserved: Revision,
    /// Changes up to here are not complete any more.
    pub floor: Revision,
    /// How many objects exist.
    pub live: u64,
    /// The sum of the hashes of all existing objects: a version that got lost or was changed is noticed at the next start.
    pub digest: u128,
}

/// What is written together.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// New records, in the order of their revisions.
    pub records: Vec<Record>,
    /// Records that nobody needs any more.
    pub remove: Vec<RecordId>,
    /// The note that goes with them.
    pub mark: Mark,
}

/// Keeps records. Used by one writer at a time.
pub trait Engine: Send {
    /// The last note; none in a new store. Asked for once, before anything else.
    fn mark(&mut self) -> Result<Option<Mark>, EngineError>;
    /// Reads all records, in order, as fast as they are taken. Called once, before the first append. Damage that the engine can see is an
    /// error, never fewer records.
    fn records(&mut self, take: &mut dyn FnMut(Record)) -> Result<(), EngineError>;
    /// Adds a group: after a crash there is all of it or nothing, and nothing only if no later group is there.
    fn append(&mut self, group: &Group) -> Result<(), EngineError>;
    /// Returns when everything appended would survive a power cut. An error leaves what is on disk unknown: the caller must not go on.
    fn sync(&mut self) -> Result<(), EngineError>;
}

/// What an engine could not do.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}")]
pub struct EngineError {
    /// What was attempted: `sync the store's log`.
    pub attempt: String,
    /// Why it failed, if something below said so.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl EngineError {
    /// An error without a cause below it.
    pub fn new(attempt: impl Into<String>) -> Self {
        EngineError { attempt: attempt.into(), source: None }
    }
    /// An error with its cause.
    pub fn caused(attempt: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        EngineError { attempt: attempt.into(), source: Some(source.into()) }
    }
}
