//! Equal parts of different objects, kept once: the pods of a replica set have the same labels, annotations and owners, and there may be
//! fifty thousand of them. And many short texts, kept as one.
//!
//! Not here: what the parts mean. Nothing depends on two equal parts being the same one; it only saves room.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3Default;

/// Labels or annotations.
pub type Texts = BTreeMap<String, String>;

/// How many parts are remembered of each sort. Two that fall on the same place take turns: then a part is kept twice, that is all.
const PLACES: usize = 4096;

/// The parts that were seen lately.
pub struct Alike<T>(Box<[Option<Arc<T>>]>);

impl<T: PartialEq> Alike<T> {
    /// A part like one that was seen lately, or the part itself. Equal parts have equal hashes ([`hash`]).
    pub fn share(&mut self, hash: u64, part: T) -> Arc<T> {
        let place = &mut self.0[usize::try_from(hash % PLACES as u64).unwrap_or(0)];
        match place {
            Some(known) if **known == part => known.clone(),
            _ => place.insert(Arc::new(part)).clone(),
        }
    }
}

impl<T> Clone for Alike<T> {
    fn clone(&self) -> Self {
        Alike(self.0.clone())
    }
}

impl<T> Default for Alike<T> {
    fn default() -> Self {
        Alike((0..PLACES).map(|_| None).collect())
    }
}

impl<T> fmt::Debug for Alike<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} parts", self.0.iter().flatten().count())
    }
}

/// What tells most parts apart.
pub fn hash(of: &impl Hash) -> u64 {
    let mut hasher = Xxh3Default::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// A map like one that was seen lately, or the map itself.
pub(super) fn texts(map: Texts) -> Arc<Texts> {
    static SEEN: LazyLock<Mutex<Alike<Texts>>> = LazyLock::new(Mutex::default);
    let hash = hash(&map);
    SEEN.lock().share(hash, map)
}

/// Owners like some that were seen lately, or the owners themselves.
pub(super) fn owners(owners: Vec<OwnerReference>) -> Arc<Vec<OwnerReference>> {
    static SEEN: LazyLock<Mutex<Alike<Vec<OwnerReference>>>> = LazyLock::new(Mutex::default);
    let hash = hash(&owners.iter().map(|owner| owner.uid.as_str()).collect::<Vec<_>>());
    SEEN.lock().share(hash, owners)
}

/// A few texts in two allocations, where a list of strings takes one more for each.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Packed {
    text: Box<str>,
    /// Where each of them ends.
    ends: Box<[u32]>,
}

impl Packed {
    /// The one at this place.
    pub fn get(&self, place: usize) -> Option<&str> {
        let end = *self.ends.get(place)?;
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(start as usize..end as usize)
    }
    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).filter_map(|place| self.get(place))
    }
}

impl FromIterator<String> for Packed {
    fn from_iter<I: IntoIterator<Item = String>>(texts: I) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::new());
        for one in texts {
            text.push_str(&one);
            ends.push(u32::try_from(text.len()).expect("an object is far shorter than 4 GB"));
        }
        Packed { text: text.into(), ends: ends.into() }
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_maps_are_one() {
        let map = |value: &str| texts(Texts::from([("app".to_owned(), value.to_owned())]));
        let (one, other) = (map("alike-web"), map("alike-db"));
        assert!(Arc::ptr_eq(&one, &map("alike-web")));
        assert_eq!((&one["app"], &other["app"]), (&"alike-web".to_owned(), &"alike-db".to_owned()));
    }

    #[test]
    fn owners_of_one_uid_that_differ_stay_apart() {
        let owner = |name: &str| vec![OwnerReference { uid: "u".into(), name: name.into(), ..OwnerReference::default() }];
        assert_eq!((owners(owner("a"))[0].name.as_str(), owners(owner("b"))[0].name.as_str()), ("a", "b"));
    }

    #[test]
    fn texts_come_out_as_they_went_in() {
        let texts = ["", "h1", "", "Läuft", ""];
        let packed: Packed = texts.iter().map(|t| (*t).to_owned()).collect();
        assert_eq!(packed.iter().collect::<Vec<_>>(), texts);
        assert_eq!((packed.get(1), packed.get(5)), (Some("h1"), None));
        assert_eq!(Packed::default().get(0), None);
    }
}
