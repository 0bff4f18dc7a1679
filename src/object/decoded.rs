//! Typed objects, kept for a moment.
//!
//! Several loops look at the same version within moments, so it is decoded once for all of them. A typed pod takes several times the room
//! of its JSON, though, and most versions are never looked at again: whoever runs a server lets what was decoded go with [`age`]. It is
//! decoded again if somebody asks again. What the time is, is not known here.

use std::any::Any;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// A typed object.
pub(super) type Typed = Arc<dyn Any + Send + Sync>;

/// Where the typed form of one version is kept.
#[derive(Default)]
pub(super) struct Slot(Mutex<Option<Typed>>);

/// What was decoded since the last call of [`age`], and between that and the one before.
#[derive(Default)]
struct Kept {
    young: Vec<Weak<Slot>>,
    old: Vec<Weak<Slot>>,
    /// How many young ones there may be before those are left out whose objects are gone. Not everybody calls [`age`].
    room: usize,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { young: Vec::new(), old: Vec::new(), room: 0 });

impl Kept {
    /// Costs no more than a look at each of them, however many there are: the room doubles.
    fn push(&mut self, slot: &Arc<Slot>) {
        const LEAST: usize = 1024;
        if self.young.len() >= self.room.max(LEAST) {
            self.young.retain(|slot| slot.strong_count() > 0);
            self.room = self.young.len() * 2;
        }
        self.young.push(Arc::downgrade(slot));
    }
}

impl Slot {
    /// What is kept, if it is.
    pub(super) fn get(&self) -> Option<Typed> {
        self.0.lock().clone()
    }

    /// Keeps what was decoded, unless somebody was faster; what is kept then.
    pub(super) fn keep(self: &Arc<Slot>, fresh: Typed) -> Typed {
        let mut kept = self.0.lock();
        if let Some(known) = &*kept {
            return known.clone();
        }
        *kept = Some(fresh.clone());
        drop(kept);
        KEPT.lock().push(self);
        fresh
    }
}

/// Lets go what was decoded before the call before this one. How many that were.
pub fn age() -> usize {
    let old = {
        let mut kept = KEPT.lock();
        let young = std::mem::take(&mut kept.young);
        std::mem::replace(&mut kept.old, young)
    };
    let live = old.into_iter().filter_map(|slot| slot.upgrade());
    // Dropped one by one: nobody waits for a lock meanwhile.
    live.map(|slot| drop(slot.0.lock().take())).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_decoded_is_kept_from_one_call_to_the_next_but_one() {
        // Other tests decode and nobody else ages, so only this slot is looked at.
        let slot = Arc::new(Slot::default());
        let first = slot.keep(Arc::new(1));
        assert!(Arc::ptr_eq(&first, &slot.keep(Arc::new(2))), "who came first counts");
        age();
        assert!(slot.get().is_some(), "it is young");
        age();
        assert!(slot.get().is_none(), "it is old");
        slot.keep(Arc::new(3));
        assert!(slot.get().is_some(), "it may come back");
    }
    #[test]
    fn what_is_gone_is_not_kept_in_mind_though_nobody_ages() {
        let mut kept = Kept::default();
        let alive: Vec<Arc<Slot>> = (0..100).map(|_| Arc::default()).collect();
        alive.iter().for_each(|slot| kept.push(slot));
        (0..100_000).for_each(|_| kept.push(&Arc::default()));
        assert!(kept.young.len() <= 1024, "{}", kept.young.len());
        assert_eq!(kept.young.iter().filter(|slot| slot.strong_count() > 0).count(), 100);
    }
}
