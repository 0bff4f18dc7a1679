//! Planted mistakes, to prove that the simulated house and the API's tests would notice them.
//!
//! Each variant is a mistake that somebody could make, and stands at the place where it would be made, as `if mutant::on(...)`. In a
//! build without tests and without the feature `mutants`, [`on`] is `false` at compile time and nothing is left of it.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// The store shows and acknowledges writes that were appended but not synced.
    AckBeforeSync,
    /// The store writes over a version that the writer has not read.
    BlindWrite,
    /// The store starts again from the last revision on disk, although later ones were shown.
    ReuseRevision,
    /// A watch loses an event now and then.
    LostEvent,
    /// A rolling update takes pods away whatever `maxUnavailable` says.
    IgnoreMaxUnavailable,
    /// A rolling update makes one pod too many.
    SurgeOffByOne,
    /// Each look makes another replica set for the same template.
    ReplicaSetPerLook,
    /// The scheduler counts no requests.
    BindWithoutCapacity,
    /// The scheduler binds pods that are bound already.
    Rebind,
    /// The way back leads to the previous release, not to the last good one.
    BackToPrevious,
    /// A bad commit is remembered by its id, not by what it renders to.
    QuarantineByCommit,
    /// A bad release is not remembered at all.
    NoQuarantine,
    /// The way back leaves configuration as the bad release had it.
    BackWithoutConfiguration,
    /// Objects are pruned by the annotation they carry, not by the inventory's uid.
    PruneByLabel,
    /// A commit without objects prunes everything.
    PruneOnEmpty,
    /// A commit with errors is applied as far as it is right.
    PartialAdmission,
    /// A passing fault of a registry condemns the release.
    InconclusiveIsFailed,
    /// A restarted agent does not look for the containers that it made.
    DoubleAfterRestart,
    /// The agent starts containers of a pod whose deletion it saw.
    StartTombstoned,
    /// The agent removes containers that are not ours.
    TouchForeign,
    /// The agent lets a pod's object go before its containers have ended.
    EarlyFarewell,
    /// The agent leaves the containers of pods that are gone.
    LeaveOrphans,
    /// A watch says that it is complete before it has given everything.
    EarlyBookmark,
    /// A new watch gives what is not on disk yet, and then again.
    EventBeforeSync,
    /// A watcher that does not keep up loses what waited, and is not told.
    SlowLosesSome,
    /// A watch goes on one revision too late.
    SkipOnResume,
    /// What was compacted is left out, and nobody is told.
    SilentCompaction,
    /// The disk gets a transaction without its last write.
    TornTransaction,
    /// The writes of a transaction share a revision, so that nobody can go on between them.
    SharedRevision,
    /// A list shows what is not on disk.
    UnsyncedRead,
    /// An answer does not wait for the disk.
    AnswerBeforeSync,
    /// An object that leaves a selector just falls silent.
    SilentLeave,
    /// An object that leaves a selector is shown as it is now, not as it last matched.
    LeaveAsItIs,
    /// The next page of a list shows what is there now.
    PageOfNow,
    /// A page of a list repeats the last object of the page before.
    PageOverlap,
    /// The agent says that its engine answers, whatever it does.
    TrustSilentEngine,
}

/// Those that the API's own tests look for (`api::tests::truth`): they concern what clients are told.
pub const TOLD: &[Mutant] = &[
    Mutant::BlindWrite,
    Mutant::ReuseRevision,
    Mutant::AckBeforeSync,
    Mutant::LostEvent,
    Mutant::EarlyBookmark,
    Mutant::EventBeforeSync,
    Mutant::SlowLosesSome,
    Mutant::SkipOnResume,
    Mutant::SilentCompaction,
    Mutant::TornTransaction,
    Mutant::SharedRevision,
    Mutant::UnsyncedRead,
    Mutant::AnswerBeforeSync,
    Mutant::SilentLeave,
    Mutant::LeaveAsItIs,
    Mutant::PageOfNow,
    Mutant::PageOverlap,
];

/// Those that the simulated house looks for.
pub const ALL: &[Mutant] = &[
    Mutant::AckBeforeSync,
    Mutant::BlindWrite,
    Mutant::ReuseRevision,
    Mutant::LostEvent,
    Mutant::IgnoreMaxUnavailable,
    Mutant::SurgeOffByOne,
    Mutant::ReplicaSetPerLook,
    Mutant::BindWithoutCapacity,
    Mutant::Rebind,
    Mutant::BackToPrevious,
    Mutant::QuarantineByCommit,
    Mutant::NoQuarantine,
    Mutant::BackWithoutConfiguration,
    Mutant::PruneByLabel,
    Mutant::PruneOnEmpty,
    Mutant::PartialAdmission,
    Mutant::InconclusiveIsFailed,
    Mutant::DoubleAfterRestart,
    Mutant::StartTombstoned,
    Mutant::TouchForeign,
    Mutant::EarlyFarewell,
    Mutant::LeaveOrphans,
    Mutant::TrustSilentEngine,
];

#[cfg(any(test, feature = "mutants"))]
mod planted {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Whether this mistake is made in this thread now.
    pub fn on(mutant: Mutant) -> bool {
        PLANTED.get() == Some(mutant)
    }

    /// Makes a mistake in this thread (or none) while something runs.
    pub fn planted<T>(mutant: Option<Mutant>, run: impl FnOnce() -> T) -> T {
        struct Restore(Option<Mutant>);
        impl Drop for Restore {
            fn drop(&mut self) {
                PLANTED.set(self.0);
            }
        }
        let _restore = Restore(PLANTED.replace(mutant));
        run()
    }
}

#[cfg(any(test, feature = "mutants"))]
pub use planted::{on, planted};

/// Never, in this build.
#[cfg(not(any(test, feature = "mutants")))]
#[inline(always)]
pub const fn on(_: Mutant) -> bool {
    false
}
