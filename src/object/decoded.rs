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
static KEPT: Mutex<[Vec<Weak<Slot>>; 2]> = Mutex::new([Vec::new(), Vec::new()]);

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
        KEPT.lock()[0].push(Arc::downgrade(self));
        fresh
    }
}

/// Lets go what was decoded before the call before this one. How many that were.
pub fn age() -> usize {
    let old = {
        let mut kept = KEPT.lock();
        let young = std::mem::take(&mut kept[0]);
        std::mem::replace(&mut kept[1], young)
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
}
