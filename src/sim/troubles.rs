//! What was wrong in the house, and when: what the auditor excuses, it excuses by this.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use crate::object::kind_of;
use crate::store::View;

/// For how long a good release has to be left in peace so that it can arrive, whatever was wrong before.
pub(super) const ENOUGH: SignedDuration = SignedDuration::from_secs(90);
/// How old the beginning of a silence may be that nobody has noticed yet: a sign of life is overdue after a third of a lease of 40
/// seconds. After a silence that was noticed, everything soaks again for 5 seconds, in which the word of what happened arrives.
const UNNOTICED: SignedDuration = SignedDuration::from_secs(14);

/// What was wrong, and when.
pub(super) struct Troubles {
    pub(super) now: Timestamp,
    /// When something was last wrong, or somebody last meddled.
    disturbed: Timestamp,
    /// Until then, spells in which nothing was.
    calm: Vec<(Timestamp, Timestamp)>,
    /// When each host last could not be heard: no link, no agent, no daemon, no power.
    deaf: BTreeMap<String, Timestamp>,
    /// When the server last was not there.
    absent: Timestamp,
}

impl Default for Troubles {
    fn default() -> Self {
        Troubles {
            now: Timestamp::UNIX_EPOCH,
            disturbed: Timestamp::UNIX_EPOCH,
            calm: Vec::new(),
            deaf: BTreeMap::new(),
            absent: Timestamp::UNIX_EPOCH,
        }
    }
}

impl Troubles {
    /// Something is wrong now.
    pub(super) fn disturb(&mut self, now: Timestamp) {
        if now.duration_since(self.disturbed) >= SignedDuration::from_secs(1) {
            self.calm.push((self.disturbed, now));
        }
        self.disturbed = now;
    }

    /// Nobody can hear this host now.
    pub(super) fn cut_off(&mut self, host: &str, now: Timestamp) {
        match self.deaf.get_mut(host) {
            Some(at) => *at = now,
            None => _ = self.deaf.insert(host.to_owned(), now),
        }
        self.disturb(now);
    }

    /// The server is not there now.
    pub(super) fn server_away(&mut self, now: Timestamp) {
        self.absent = now;
        self.disturb(now);
    }

    /// Whether the server may not have heard of a crash in time: it was away itself, or a host with pods was cut off for so short a time
    /// and so shortly ago that nobody can have noticed.
    pub(super) fn unheard(&self, view: &View) -> bool {
        let lately = |at: &Timestamp| self.now.duration_since(*at) < UNNOTICED;
        let mut hosts = view.list(kind_of::<Pod>()).map(|pod| pod.field("spec.nodeName"));
        lately(&self.absent) || hosts.any(|host| self.deaf.get(host).is_some_and(lately))
    }

    /// The longest time without a fault since then.
    pub(super) fn longest_calm(&self, since: Timestamp) -> SignedDuration {
        let spells = self.calm.iter().copied().chain([(self.disturbed, self.now)]);
        let within = spells.filter(|(_, to)| *to > since).map(|(from, to)| to.duration_since(from.max(since)));
        within.max().unwrap_or_default()
    }
}
