//! What has to leave because what it belonged to has left.
//!
//! An object with owners stays while one of them is there. Whether an owner is there is asked of the store at the moment of the
//! decision, by uid: a new object of the same name is not the owner (AP5).

use crate::object::Meta;
use jiff::{SignedDuration, Timestamp};

/// The finalizer of an object whose dependents go first.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents are to be let go.
pub const ORPHAN: &str = "orphan";

/// How an owner is found when it is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It is there.
    There,
    /// It is being deleted and waits for its dependents to go first.
    WaitsForUs,
    /// It is not there, or another object has its name.
    Gone,
    /// It is of a kind that is not known here, so nobody can say.
    Unknown,
}

/// What becomes of an object, by its owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays as it is.
    Stay,
    /// It stays, without these owners (their indices): they are gone, but others are there.
    Forget(Vec<usize>),
    /// It goes. `dependents_first`: because its owner waits, and it has dependents of its own that should go before it.
    Go {
        /// Whether its own dependents go first.
        dependents_first: bool,
    },
}

/// What becomes of an object whose owners were found like this, in the order of its references. `has_blocking`: whether something
/// depends on it in turn.
pub fn fate(owners: &[Owner], has_dependents: bool) -> Fate {
    if owners.is_empty() || owners.iter().all(|o| *o == Owner::There || *o == Owner::Unknown) {
        return Fate::Stay;
    }
    if owners.iter().any(|o| *o == Owner::There || *o == Owner::Unknown) {
        let lost = owners.iter().enumerate().filter(|(_, o)| matches!(o, Owner::Gone | Owner::WaitsForUs)).map(|(i, _)| i);
        return Fate::Forget(lost.collect());
    }
    Fate::Go { dependents_first: has_dependents && owners.contains(&Owner::WaitsForUs) }
}

/// Whether an object waits for its dependents to go, or to be let go, and which of the two.
pub fn waits(meta: &Meta) -> Option<&'static str> {
    let has = |name: &str| meta.finalizers.iter().any(|f| f == name);
    let found = [ORPHAN, FOREGROUND].into_iter().find(|name| has(name));
    found.filter(|_| meta.deleting())
}

/// Which pods that have ended are forgotten: the oldest beyond `keep`. The pods come with the time at which they were created.
pub fn ended_beyond<K: Ord + Clone>(pods: &[(Timestamp, K)], keep: usize) -> Vec<K> {
    let mut pods = pods.to_vec();
    pods.sort();
    let excess = pods.len().saturating_sub(keep);
    pods.into_iter().take(excess).map(|(_, key)| key).collect()
}

/// How long a pod stays bound to a node that does not exist before it is forgotten: a node may be on its way back. Kubernetes' time.
pub const MISSING_NODE: SignedDuration = SignedDuration::from_secs(40);
