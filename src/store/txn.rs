//! What a writer asks for: writes that happen together or not at all, and the versions they were decided from.
//!
//! Whether the store grants it is in `commit`; what the objects should say is decided elsewhere.

use std::fmt;

use crate::object::{Draft, Key, Revision};

/// Several writes that happen together, or none of them happens. They get revisions one after the other.
///
/// Keys are checked against the state before the transaction. One key may be written more than once; the last write wins.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    pub(super) expects: Vec<(Key, Option<Revision>)>,
    pub(super) writes: Vec<Write>,
}

/// One write of a transaction.
#[derive(Clone, Debug)]
pub(super) enum Write {
    /// The key must not exist.
    Create(Draft),
    /// The key must exist at exactly this revision.
    Update(Draft, Revision),
    /// Whatever is there is replaced.
    Put(Draft),
    /// The key must exist, at this revision if one is named.
    Delete(Key, Option<Revision>),
}

impl Txn {
    /// An empty transaction. Committing it changes nothing and gives the current revision.
    pub fn new() -> Self {
        Txn::default()
    }
    /// Demands that the key still has the revision that the writer read (`None`: that it is absent), without writing it.
    pub fn expect(&mut self, key: Key, revision: Option<Revision>) -> &mut Self {
        self.expects.push((key, revision));
        self
    }
    /// Adds an object that must not exist yet.
    pub fn create(&mut self, draft: Draft) -> &mut Self {
        self.writes.push(Write::Create(draft));
        self
    }
    /// Replaces the version that the writer read.
    pub fn update(&mut self, draft: Draft, read: Revision) -> &mut Self {
        self.writes.push(Write::Update(draft, read));
        self
    }
    /// Writes an object whatever is there now.
    pub fn put(&mut self, draft: Draft) -> &mut Self {
        self.writes.push(Write::Put(draft));
        self
    }
    /// Removes an object: the version that was read, or any with `None`. A key that is absent is a conflict.
    pub fn delete(&mut self, key: Key, read: Option<Revision>) -> &mut Self {
        self.writes.push(Write::Delete(key, read));
        self
    }
    /// Whether nothing would be written.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
    /// How many objects would be written.
    pub fn len(&self) -> usize {
        self.writes.len()
    }
}

/// Why a transaction did not happen. Nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Conflict {
    /// The first key that stood in the way.
    pub key: Key,
    /// In which way.
    pub kind: ConflictKind,
}

/// In which way a key stood in the way of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConflictKind {
    /// It should not have existed.
    Exists,
    /// It should have existed.
    Missing,
    /// It is not the version that the writer read.
    Changed {
        /// The revision that the writer read.
        expected: Revision,
        /// The revision that is there.
        found: Revision,
    },
    /// It holds what the transaction wanted for another object.
    Claimed(String),
    /// The store no longer takes writes, because its engine failed or it is closing. Planning again will not help.
    Stopped,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ConflictKind::Exists => write!(f, "{} exists already", self.key),
            ConflictKind::Missing => write!(f, "{} does not exist", self.key),
            ConflictKind::Changed { expected, found } => {
                write!(f, "{} was changed meanwhile: read at revision {expected}, now at {found}", self.key)
            }
            ConflictKind::Claimed(ref claim) => write!(f, "{} holds {claim}", self.key),
            ConflictKind::Stopped => write!(f, "{} was not written: the store takes no more writes", self.key),
        }
    }
}
