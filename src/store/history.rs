//! The recent past: which object changed at which revision, from what to what.
//!
//! It is what loops follow and what a watch resumes from. It is bounded: old changes are dropped, and whoever asks for them is told so
//! ([`Compacted`], 410 on the wire), never given a list with a hole.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mutant::{self, Mutant};
use crate::object::{Key, Object, Revision};

/// One object's step from one version to the next.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its revision, which no other change has: who was told of this one can go on behind it.
    pub revision: Revision,
    /// The revision of the last change of the same transaction. Those that share it happened together.
    pub transaction: Revision,
    /// Which object.
    pub key: Key,
    /// The version before; `None` if it was added.
    pub old: Option<Arc<Object>>,
    /// The version after; `None` if it was deleted.
    pub new: Option<Arc<Object>>,
    /// Only of a deletion: the last version again, carrying the revision that deleted it, as watchers want to see it.
    pub last: Option<Arc<Object>>,
}

impl Change {
    /// The version that this change wrote: the new one, or the last one of a deleted object.
    pub fn object(&self) -> &Arc<Object> {
        self.new.as_ref().or(self.last.as_ref()).expect("a change has a new version or a last one")
    }
    fn weight(&self) -> usize {
        self.object().size()
    }
}

/// The changes that were asked for are no longer kept. The way on is to list, and to follow from that list's revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the changes after revision {asked} are no longer kept: the oldest revision to continue from is {floor}")]
pub struct Compacted {
    /// The revision to continue from.
    pub asked: Revision,
    /// The oldest revision that one can continue from.
    pub floor: Revision,
}

/// How much of the past is kept. Whichever bound is reached first counts.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// How old a change gets. Kubernetes compacts after five minutes; twice that lets an informer survive a slow restart.
    pub age: Duration,
    /// How many changes.
    pub changes: usize,
    /// How many bytes of JSON. This bounds memory, where the other two do not: a status of 10 KB may change often.
    pub bytes: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { age: Duration::from_secs(600), changes: 100_000, bytes: 64 << 20 }
    }
}

/// The changes with a revision above `floor`, oldest first.
#[derive(Default)]
pub(super) struct History {
    pub(super) floor: Revision,
    changes: VecDeque<Change>,
    bytes: usize,
    /// When which revision was the newest: what makes a bound by age possible without a time in each change. Oldest first.
    times: VecDeque<(Instant, Revision)>,
}

impl History {
    pub(super) fn push(&mut self, change: Change) {
        self.bytes += change.weight();
        self.changes.push_back(change);
    }

    pub(super) fn after(&self, after: Revision) -> Result<impl Iterator<Item = &Change>, Compacted> {
        let after = if mutant::on(Mutant::SkipOnResume) { after + 1 } else { after };
        if after < self.floor && !mutant::on(Mutant::SilentCompaction) {
            return Err(Compacted { asked: after, floor: self.floor });
        }
        let start = self.changes.partition_point(|c| c.revision <= after);
        Ok(self.changes.range(start..))
    }

    /// Forgets what is at or below a revision.
    pub(super) fn compact(&mut self, floor: Revision) {
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        while self.changes.front().is_some_and(|c| c.revision <= floor) {
            let gone = self.changes.pop_front().expect("it was looked at");
            self.bytes -= gone.weight();
        }
        while self.times.front().is_some_and(|(_, r)| *r <= floor) {
            self.times.pop_front();
        }
    }

    /// The floor that the bounds call for, never above `limit`.
    pub(super) fn due(&mut self, keep: &Retention, now: Instant, newest: Revision, limit: Revision) -> Revision {
        if self.times.back().is_none_or(|(t, r)| *r < newest && now.duration_since(*t) >= Duration::from_secs(1)) {
            self.times.push_back((now, newest));
        }
        let by_age = self.times.iter().take_while(|(t, _)| now.duration_since(*t) > keep.age).last().map_or(0, |(_, r)| *r);
        let excess = self.changes.len().saturating_sub(keep.changes);
        let by_count = if excess > 0 { self.changes[excess - 1].revision } else { 0 };
        let mut by_size = 0;
        let mut over = self.bytes.saturating_sub(keep.bytes);
        for change in &self.changes {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(change.weight());
            by_size = change.revision;
        }
        by_age.max(by_count).max(by_size).min(limit).max(self.floor)
    }
}
