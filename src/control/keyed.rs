//! What loops share: following the store from where they were, and working through keys one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::{SignedDuration, Timestamp};

use super::Next;
use crate::object::{DecodeError, Key, Revision};
use crate::store::{Change, Conflict, Store, View};

/// How far a loop has read.
#[derive(Debug, Default)]
pub(super) struct Cursor(Option<Revision>);

/// What a loop has not seen yet.
pub(super) enum News {
    /// Look at everything: the first time, and when the loop was asleep for longer than changes are kept.
    Everything(View),
    /// What changed, in order.
    Changes(Vec<Change>),
}

impl Cursor {
    /// What happened since the last call.
    pub(super) fn news(&mut self, store: &Store) -> News {
        let read = self.0.map(|after| store.changes(after));
        match read {
            Some(Ok(changes)) => {
                self.0 = changes.last().map(|c| c.revision).or(self.0);
                News::Changes(changes)
            }
            Some(Err(_)) | None => {
                let view = store.view();
                self.0 = Some(view.revision());
                News::Everything(view)
            }
        }
    }
}

/// Why a key could not be worked on.
pub(super) enum Trouble {
    /// What the plan was made from changed: at once again.
    Conflict(Conflict),
    /// The object itself is to blame: later again, and the others are not held up.
    Bad(String),
}

impl From<Conflict> for Trouble {
    fn from(conflict: Conflict) -> Self {
        Trouble::Conflict(conflict)
    }
}

impl From<DecodeError> for Trouble {
    fn from(error: DecodeError) -> Self {
        Trouble::Bad(format!("{error}: {}", error.source))
    }
}

/// The first wait after a key made trouble; it doubles each time. A change of the object ends it early.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(1);
/// The longest such wait.
const LAST_WAIT: SignedDuration = SignedDuration::from_mins(5);
/// How many keys one step works on, so that other loops get their turn when everything changed at once.
const BUDGET: usize = 32;

/// The keys that a loop has to look at, now or later. A key is in here once, however often it was named.
#[derive(Debug, Default)]
pub(super) struct Keys {
    due: BTreeSet<Key>,
    later: BTreeSet<(Timestamp, Key)>,
    when: BTreeMap<Key, Timestamp>,
    troubles: BTreeMap<Key, u32>,
}

impl Keys {
    /// Look at this one.
    pub(super) fn add(&mut self, key: Key) {
        self.due.insert(key);
    }

    fn set_timer(&mut self, key: &Key, at: Option<Timestamp>) {
        if let Some(old) = self.when.remove(key) {
            self.later.remove(&(old, key.clone()));
        }
        if let Some(at) = at {
            self.later.insert((at, key.clone()));
            self.when.insert(key.clone(), at);
        }
    }

    /// Works on what is due. `work` says when it wants to see a key again if nothing happens before.
    pub(super) fn run(
        &mut self,
        loop_name: &str,
        now: Timestamp,
        mut work: impl FnMut(&Key) -> Result<Option<Timestamp>, Trouble>,
    ) -> Result<Next, Conflict> {
        while let Some((at, key)) = self.later.first().cloned() {
            if at > now {
                break;
            }
            self.set_timer(&key, None);
            self.due.insert(key);
        }
        let mut conflict = None;
        // In the order of names, and not in turns: who is worked on comes to its end, with what was read for it at hand. In turns an update of
        // 500 Deployments decodes three times as much, and takes half as long again.
        let batch: Vec<Key> = self.due.iter().take(BUDGET).cloned().collect();
        for key in batch {
            self.due.remove(&key);
            let outcome = catch_unwind(AssertUnwindSafe(|| work(&key)))
                .unwrap_or_else(|_| Err(Trouble::Bad("this program made a mistake and panicked".to_owned())));
            match outcome {
                Ok(again) => {
                    self.troubles.remove(&key);
                    self.set_timer(&key, again);
                }
                Err(Trouble::Conflict(met)) => {
                    self.due.insert(key);
                    conflict = Some(met);
                }
                Err(Trouble::Bad(why)) => {
                    let times = self.troubles.entry(key.clone()).or_default();
                    let wait = (FIRST_WAIT * 2i32.pow((*times).min(10))).min(LAST_WAIT);
                    *times += 1;
                    tracing::warn!(name = loop_name, %key, why, "left alone for a while");
                    self.set_timer(&key, Some(now + wait));
                }
            }
        }
        if let Some(conflict) = conflict {
            return Err(conflict);
        }
        if !self.due.is_empty() {
            return Ok(Next::Again);
        }
        Ok(Next::at(self.later.first().map(|(at, _)| *at)))
    }
}
