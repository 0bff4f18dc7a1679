//! Typed objects, kept for a moment.
//!
//! Several loops look at the same version within moments, so it is decoded once for all of them. A typed pod takes several times the room
//! of its JSON, though, and most versions are never looked at again: whoever runs a server lets what was decoded go with [`age`], and no
//! more than so many are kept at once. It is decoded again if somebody asks again. What the time is, is not known here.

use std::any::Any;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::fields::Fields;

/// A typed object.
pub(super) type Typed = Arc<dyn Any + Send + Sync>;

/// Where the typed form of one version is kept, and a part of it.
#[derive(Default)]
pub(super) struct Slot(Mutex<Forms>);

#[derive(Default)]
struct Forms {
    whole: Option<Typed>,
    /// With the part that was asked for.
    part: Option<(&'static Fields, Typed)>,
}

/// So many typed objects are kept, and what is decoded then is not: a loop that goes along all pods of a large cluster would have them all in
/// memory, and those that it began with again would be gone when it begins anew. A typed pod takes 3 to 10 KB.
const MOST: usize = 32_768;

/// What was decoded since the last call of [`age`], and between that and the one before.
#[derive(Default)]
struct Kept {
    young: Vec<Weak<Slot>>,
    old: Vec<Weak<Slot>>,
    /// How many young ones there may be before those are left out whose objects are gone. Not everybody calls [`age`].
    room: usize,
    /// How many were refused since then.
    refused: usize,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { young: Vec::new(), old: Vec::new(), room: 0, refused: 0 });

impl Kept {
    /// Whether there is room for one more. Costs no more than a few looks at each of them, however many there are: the room doubles.
    fn push(&mut self, slot: &Arc<Slot>) -> bool {
        const LEAST: usize = 1024;
        if self.young.len() >= self.room.max(LEAST) || self.refused >= MOST {
            self.young.retain(|slot| slot.strong_count() > 0);
            (self.room, self.refused) = (self.young.len() * 2, 0);
        }
        if self.young.len() + self.old.len() >= MOST {
            self.refused += 1;
            return false;
        }
        self.young.push(Arc::downgrade(slot));
        true
    }
}

impl Slot {
    /// What is kept, if it is.
    pub(super) fn get(&self) -> Option<Typed> {
        self.0.lock().whole.clone()
    }

    /// The part that is kept, if it is this one.
    pub(super) fn part(&self, fields: &'static Fields) -> Option<Typed> {
        let forms = self.0.lock();
        forms.part.as_ref().filter(|(of, _)| std::ptr::eq(*of, fields)).map(|(_, part)| part.clone())
    }

    /// Keeps what was decoded, unless somebody was faster; what is kept then.
    pub(super) fn keep(self: &Arc<Slot>, fresh: Typed) -> Typed {
        if !KEPT.lock().push(self) {
            return fresh;
        }
        self.0.lock().whole.get_or_insert(fresh).clone()
    }

    /// The same of a part.
    pub(super) fn keep_part(self: &Arc<Slot>, fields: &'static Fields, fresh: Typed) -> Typed {
        if KEPT.lock().push(self) {
            self.0.lock().part = Some((fields, fresh.clone()));
        }
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
    live.map(|slot| drop(std::mem::take(&mut *slot.0.lock()))).count()
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
        assert!(alive.iter().all(|slot| kept.push(slot)));
        assert!((0..100_000).all(|_| kept.push(&Arc::default())));
        assert!(kept.young.len() <= 1024, "{}", kept.young.len());
        assert_eq!(kept.young.iter().filter(|slot| slot.strong_count() > 0).count(), 100);
    }

    #[test]
    fn no_more_than_so_many_are_kept_and_later_ones_again() {
        let mut kept = Kept::default();
        let mut alive: Vec<Arc<Slot>> = (0..MOST).map(|_| Arc::default()).collect();
        assert!(alive.iter().all(|slot| kept.push(slot)));
        assert!((0..10).all(|_| !kept.push(&alive[0])), "there is no room");
        alive.clear();
        let late = Arc::default();
        let waits = (0..2 * MOST).position(|_| kept.push(&late));
        assert!(waits.is_some_and(|times| times <= MOST), "those whose objects are gone are left out in the end");
    }
}
