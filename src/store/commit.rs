//! Granting a transaction: compare and write under one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::history::Change;
use super::txn::{Conflict, ConflictKind, Txn, Write};
use super::view::View;
use super::writer::{GATHER, LAZY};
use super::{Store, Writes};
use crate::count;
use crate::mutant::{self, Mutant};
use crate::object::kind::Durability;
use crate::object::{Draft, Key, Object, Revision};

/// What a transaction became.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The revision of its last write; the current one if it wrote nothing.
    pub revision: Revision,
    /// What it wrote, in the order of its writes; of deleted objects the last version, carrying the revision of the deletion.
    pub objects: Vec<Arc<Object>>,
}

impl Store {
    /// Does all of a transaction, in memory, and queues it for the disk; or nothing of it.
    ///
    /// It returns at once, unless so much waits for the disk already that writers have to be slowed down. It is on disk when
    /// [`Store::until_durable`] of its revision says so. It goes there at once, with what is committed until the last sync ended; while
    /// somebody gathers ([`Store::gather`]), a moment later with more.
    pub fn commit(&self, txn: Txn) -> Result<Committed, Conflict> {
        let inner = &*self.inner;
        let mut head = inner.head.lock();
        while head.writes == Writes::Thread && !head.closing && head.queue.full() {
            head.queue.due = Some(Instant::now());
            inner.work.notify_one();
            inner.room.wait(&mut head);
        }
        check(&head.state, &txn)?;
        let writes = effective(txn.writes);
        if writes.is_empty() {
            return Ok(Committed { revision: head.state.revision, objects: Vec::new() });
        }
        if head.closing || head.writes == Writes::Stopped {
            return Err(Conflict { key: key_of(&writes[0]).clone(), kind: ConflictKind::Stopped });
        }
        let mut changes: Vec<Change> = Vec::with_capacity(writes.len());
        for write in writes {
            let shared = mutant::on(Mutant::SharedRevision) && !changes.is_empty();
            let revision = head.state.revision + u64::from(!shared);
            let change = match write {
                Write::Create(draft) | Write::Update(draft, _) | Write::Put(draft) => {
                    let new = Arc::new(draft.seal(revision));
                    let old = head.state.insert(new.clone());
                    Change { revision, transaction: 0, key: new.key.clone(), old, new: Some(new), last: None }
                }
                Write::Delete(key, _) => {
                    // Only a key that the same transaction created first can be absent here.
                    let Some(old) = head.state.remove(&key) else { continue };
                    let last = Some(Arc::new(old.at(revision)));
                    Change { revision, transaction: 0, key, old: Some(old), new: None, last }
                }
            };
            head.state.revision = revision;
            changes.push(change);
        }
        let revision = head.state.revision;
        count::WRITES.add(changes.len() as u64);
        for change in &mut changes {
            change.transaction = revision;
            head.history.push(change.clone());
        }
        let objects = changes.iter().map(|c| c.object().clone()).collect();
        let lazy = changes.iter().all(|c| c.key.kind.durability == Durability::Lazy);
        match head.writes {
            Writes::Nowhere => {
                if revision.is_multiple_of(1024) {
                    let floor = head.history.due(&inner.retention, Instant::now(), revision, revision - 1);
                    head.history.compact(floor);
                }
                inner.publish(&changes, head.state.clone());
            }
            _ => {
                let head = &mut *head;
                let queue = &mut head.queue;
                queue.bytes += changes.iter().map(|c| c.object().size()).sum::<usize>();
                queue.changes.append(&mut changes);
                if head.writes == Writes::Stepped {
                    queue.ends.push_back((queue.changes.len(), head.state.clone()));
                }
                let patience = match lazy {
                    true => LAZY,
                    false if head.gathering > 0 => GATHER,
                    false => Duration::ZERO,
                };
                // The writer sleeps until something is due: it has to hear of what is due earlier.
                if queue.due_by(Instant::now() + patience) {
                    inner.work.notify_one();
                }
            }
        }
        inner.newest.send_if_modified(|newest| {
            *newest = revision;
            !lazy
        });
        Ok(Committed { revision, objects })
    }
}

/// Whether the state is the one that the transaction was decided from.
fn check(state: &View, txn: &Txn) -> Result<(), Conflict> {
    if mutant::on(Mutant::BlindWrite) {
        return Ok(());
    }
    let require = |key: &Key, expected: Option<Revision>| {
        let kind = match (expected, state.get(key)) {
            (None, None) => return Ok(()),
            (None, Some(_)) => ConflictKind::Exists,
            (Some(_), None) => ConflictKind::Missing,
            (Some(expected), Some(found)) if found.revision == expected => return Ok(()),
            (Some(expected), Some(found)) => ConflictKind::Changed { expected, found: found.revision },
        };
        Err(Conflict { key: key.clone(), kind })
    };
    for (key, revision) in &txn.expects {
        require(key, *revision)?;
    }
    for write in &txn.writes {
        match write {
            Write::Create(draft) => require(&draft.key, None)?,
            Write::Update(draft, read) => require(&draft.key, Some(*read))?,
            Write::Put(_) => {}
            Write::Delete(key, Some(read)) => require(key, Some(*read))?,
            Write::Delete(key, None) if state.get(key).is_none() => {
                return Err(Conflict { key: key.clone(), kind: ConflictKind::Missing });
            }
            Write::Delete(_, None) => {}
        }
    }
    check_claims(state, &txn.writes)
}

/// Whether what the written objects hold is free, or let go by the same transaction.
fn check_claims(state: &View, writes: &[Write]) -> Result<(), Conflict> {
    let drafts = || writes.iter().filter_map(draft_of);
    if drafts().all(|draft| draft.meta.claims.is_empty()) {
        return Ok(());
    }
    let mut wanted: BTreeMap<&str, &Key> = BTreeMap::new();
    for draft in drafts() {
        for claim in &draft.meta.claims {
            let other = wanted.insert(claim, &draft.key).filter(|other| **other != draft.key);
            let holder = state.claimant(claim).filter(|holder| **holder != draft.key);
            // A holder that this transaction writes as well lets go of everything that it does not want again.
            let holder = holder.filter(|holder| !writes.iter().any(|write| key_of(write) == *holder));
            if let Some(key) = other.or(holder) {
                return Err(Conflict { key: key.clone(), kind: ConflictKind::Claimed(claim.clone()) });
            }
        }
    }
    Ok(())
}

fn draft_of(write: &Write) -> Option<&Draft> {
    match write {
        Write::Create(draft) | Write::Update(draft, _) | Write::Put(draft) => Some(draft),
        Write::Delete(..) => None,
    }
}

/// The writes without those that a later write to the same key makes pointless.
fn effective(mut writes: Vec<Write>) -> Vec<Write> {
    if writes.len() > 1 {
        let mut seen = BTreeSet::new();
        writes.reverse();
        writes.retain(|w| seen.insert(key_of(w).clone()));
        writes.reverse();
    }
    writes
}

fn key_of(write: &Write) -> &Key {
    match write {
        Write::Create(draft) | Write::Update(draft, _) | Write::Put(draft) => &draft.key,
        Write::Delete(key, _) => key,
    }
}
