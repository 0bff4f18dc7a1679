//! What the engine is known to have, and how that knowledge is kept fresh.
//!
//! Hints say where to look; every so often everything is listed, because hints get lost. Only what was looked at is believed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{Ask, Heart, Slot, Ticket, Work};
use crate::agent::translate;
use crate::docker::container::Status;
use crate::docker::{ContainerState, EngineError, Operation, Outcome, Outlook, Summary};
use crate::mutant::{self, Mutant};
use crate::plan::pod::{Cell, Seen, backoff};

/// The longest wait before the engine is asked again after it did not answer, in seconds.
const RETRY_LONGEST: u32 = 5;
/// How long a container without a pod has to end, in seconds: nobody knows what its manifest said.
const ORPHAN_GRACE: u32 = 10;
/// For how long after its start a container is young. Most of those that fail fail soon, and a release is judged by what it starts.
const YOUNG: SignedDuration = SignedDuration::from_secs(30);
/// How often everything is listed while something is young: as long as that nobody knows of an end whose hint was lost.
const YOUNG_EVERY: SignedDuration = SignedDuration::from_secs(3);

pub(super) struct EngineView {
    /// Our containers by id.
    known: BTreeMap<String, Known>,
    /// Ids by pod.
    by_pod: BTreeMap<String, BTreeSet<String>>,
    /// Whether everything was listed at least once.
    pub(super) listed: bool,
    /// When everything is listed next.
    pub(super) relist_at: Timestamp,
    /// Calls in a row without a known outcome.
    pub(super) failures: u32,
    /// The newest call that was answered, whatever the answer.
    answered: Ticket,
    /// The call that ended last.
    ended: Ticket,
    /// Whether a list is under way, and what of it.
    relist: Option<Relist>,
    /// Containers being looked at.
    looking: BTreeMap<String, Looking>,
    /// Orphans being removed.
    orphans: BTreeSet<String>,
    /// Counts changes, to tell what is newer than a list.
    serial: u64,
    /// Names with digests by image id, for the status.
    pub(super) digests: BTreeMap<String, String>,
}

#[derive(Default)]
struct Looking {
    /// Something happened meanwhile: look once more.
    again: bool,
    /// Slots of pods that wait for what is seen.
    holds: Vec<(String, Slot)>,
}

struct Known {
    uid: String,
    cell: Cell,
    status: Status,
    serial: u64,
}

struct Relist {
    since: u64,
    /// `None` until the list itself has come.
    waiting: Option<BTreeSet<String>>,
    failed: bool,
}

impl EngineView {
    pub(super) fn new(now: Timestamp) -> EngineView {
        EngineView {
            known: BTreeMap::new(),
            by_pod: BTreeMap::new(),
            listed: false,
            relist_at: now,
            failures: 0,
            answered: 0,
            ended: 0,
            relist: None,
            looking: BTreeMap::new(),
            orphans: BTreeSet::new(),
            serial: 0,
            digests: BTreeMap::new(),
        }
    }
    /// A call has ended, with an answer or without.
    pub(super) fn spoke(&mut self, call: Ticket, answered: bool) {
        self.ended = call;
        if answered {
            self.answered = self.answered.max(call);
        }
    }
    /// Whether something began so lately that it may end any moment.
    fn has_young(&self, now: Timestamp) -> bool {
        self.known.values().any(|known| is_young(&known.cell, now))
    }
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.relist.is_none().then_some(self.relist_at)
    }
    pub(super) fn seen(&self, uid: &str) -> Seen {
        let mut seen = Seen::default();
        for known in self.by_pod.get(uid).into_iter().flatten().filter_map(|id| self.known.get(id)) {
            let mut cell = known.cell.clone();
            if let Some(digest) = self.digests.get(&cell.image_id) {
                cell.image_id = digest.clone();
            }
            if cell.container.is_empty() { seen.sandboxes.push(cell) } else { seen.containers.push(cell) }
        }
        seen.sort();
        seen
    }
}

fn is_young(cell: &Cell, now: Timestamp) -> bool {
    !cell.container.is_empty() && cell.state.alive() && cell.started_at.is_some_and(|at| now.duration_since(at) < YOUNG)
}

impl Heart {
    /// Begins a list when it is time.
    pub(super) fn look_at_engine(&mut self) {
        if self.engine.relist.is_some() || self.engine.relist_at > self.now {
            return;
        }
        self.engine.relist = Some(Relist { since: self.engine.serial, waiting: None, failed: false });
        let labels = translate::ours(&self.settings);
        self.engine(Operation::List { labels }, Ask::List);
    }

    /// Somebody says that something happened to this container.
    pub(super) fn hint(&mut self, id: &str) {
        // What our own call does is looked at when the call has ended, however it ends. A look before that would be one too many, and
        // the later look would have to wait for it.
        if !self.asked.values().any(|ask| ask.changes(id)) {
            self.look_at(id);
        }
    }

    /// Looks at one container. One look per container at a time, so that an old answer cannot overtake a new one.
    pub(super) fn look_at(&mut self, id: &str) {
        if let Some(looking) = self.engine.looking.get_mut(id) {
            looking.again = true;
            return;
        }
        self.engine.looking.insert(id.to_owned(), Looking::default());
        self.engine(Operation::Inspect { id: id.to_owned() }, Ask::Inspect { id: id.to_owned(), adopt: None });
    }

    /// Looks at one container, and lets nothing else take this slot before it is seen.
    pub(super) fn look_and_hold(&mut self, id: &str, uid: &str, slot: Slot) {
        self.look_at(id);
        let ticket = self.last_ticket;
        if let Some(looking) = self.engine.looking.get_mut(id) {
            looking.holds.push((uid.to_owned(), slot.clone()));
            self.occupy(uid, slot, ticket);
        }
    }

    /// Takes what the engine says about a container as the truth.
    pub(super) fn believe(&mut self, state: &ContainerState) {
        if mutant::on(Mutant::DoubleAfterRestart) && state.created_at.is_some_and(|at| at < self.born) {
            return;
        }
        let Some((uid, cell)) = translate::cell(&self.settings, state) else { return };
        if is_young(&cell, self.now) {
            self.engine.relist_at = self.engine.relist_at.min(self.now.checked_add(YOUNG_EVERY).unwrap_or(self.now));
        }
        self.engine.serial += 1;
        self.engine.by_pod.entry(uid.clone()).or_default().insert(cell.id.clone());
        let known = Known { uid: uid.clone(), status: state.status, serial: self.engine.serial, cell };
        self.engine.known.insert(state.id.clone(), known);
        self.dirty.insert(uid);
    }

    /// A container is no more.
    pub(super) fn lost(&mut self, id: &str) {
        self.engine.serial += 1;
        if let Some(looking) = self.engine.looking.get_mut(id) {
            looking.again = true; // what is on its way to us may still show it
        }
        if let Some(known) = self.engine.known.remove(id) {
            if let Some(ids) = self.engine.by_pod.get_mut(&known.uid) {
                ids.remove(id);
                if ids.is_empty() {
                    self.engine.by_pod.remove(&known.uid);
                }
            }
            self.dirty.insert(known.uid);
        }
    }

    /// A call ended without anybody knowing what it did: nothing is changed for this pod before everything was listed.
    pub(super) fn unsettle(&mut self, uid: &str) {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.unsettled = true;
        }
        self.engine_failed();
    }

    pub(super) fn engine_failed(&mut self) {
        // A call that was begun before the last answer was says that the engine was away then, not that it is now.
        if self.engine.ended >= self.engine.answered {
            self.engine.failures = self.engine.failures.saturating_add(1);
        }
        let wait = backoff::after(self.engine.failures.saturating_sub(1), 1, RETRY_LONGEST);
        // The first look comes soon: most of the time only one answer was lost.
        let wait = wait.max(SignedDuration::from_millis(200));
        self.engine.relist_at = self.now.checked_add(wait).unwrap_or(self.now);
        if let Some(relist) = &mut self.engine.relist {
            relist.failed = true; // it may have been answered before the call took effect
        }
    }

    pub(super) fn listed(&mut self, result: Result<Outcome, EngineError>) {
        let Some(mut relist) = self.engine.relist.take() else { return };
        let summaries = match result {
            Ok(Outcome::Containers(summaries)) => summaries,
            _ => {
                self.engine_failed();
                return;
            }
        };
        let listed: BTreeSet<&str> = summaries.iter().map(|s| s.id.as_str()).collect();
        let lost: Vec<String> = self
            .engine
            .known
            .iter()
            .filter(|(id, known)| known.serial <= relist.since && !listed.contains(id.as_str()))
            .map(|(id, _)| id.clone())
            .collect();
        for id in lost {
            self.lost(&id);
        }
        let mut waiting = BTreeSet::new();
        for summary in &summaries {
            if self.is_news(summary) {
                waiting.insert(summary.id.clone());
            }
        }
        for id in &waiting {
            self.look_at(id);
        }
        relist.waiting = Some(waiting);
        self.engine.relist = Some(relist);
        self.relist_progress(None);
    }

    fn is_news(&self, summary: &Summary) -> bool {
        if !translate::is_ours(&self.settings, &summary.labels) {
            return false;
        }
        match self.engine.known.get(&summary.id) {
            Some(known) => known.status != summary.status || self.pods.get(&known.uid).is_some_and(|e| e.unsettled),
            None => true,
        }
    }

    /// One of the list's containers was looked at; when all were, the list is complete.
    fn relist_progress(&mut self, id: Option<&str>) {
        let Some(relist) = &mut self.engine.relist else { return };
        let Some(waiting) = &mut relist.waiting else { return };
        if let Some(id) = id {
            waiting.remove(id);
        }
        if !waiting.is_empty() {
            return;
        }
        let failed = relist.failed;
        self.engine.relist = None;
        if failed {
            // Something went wrong meanwhile; another list is due already.
            return;
        }
        self.engine.failures = 0;
        let every = self.settings.relist_every;
        let every = if self.engine.has_young(self.now) { every.min(YOUNG_EVERY) } else { every };
        self.engine.relist_at = self.now.checked_add(every).unwrap_or(self.now);
        if !self.engine.listed {
            self.engine.listed = true;
            self.dirty.extend(self.pods.keys().cloned());
        }
        for (uid, entry) in &mut self.pods {
            if std::mem::take(&mut entry.unsettled) {
                self.dirty.insert(uid.clone());
            }
        }
        let used: BTreeSet<&String> = self.engine.known.values().map(|k| &k.cell.image_id).collect();
        let digests = std::mem::take(&mut self.engine.digests);
        let keep: BTreeMap<String, String> = digests.into_iter().filter(|(id, _)| used.contains(id)).collect();
        self.engine.digests = keep;
        self.clear_graves();
        self.orphans();
    }

    pub(super) fn inspected(&mut self, id: &str, adopt: Option<(String, Slot, String)>, result: Result<Outcome, EngineError>) {
        if adopt.is_none() {
            let mut looking = self.engine.looking.remove(id).unwrap_or_default();
            let answered = !matches!(&result, Err(error) if error.outlook() == Outlook::Unknown);
            if looking.again && answered {
                // What we just got may be older than what happened since.
                self.look_at(id);
                if let Some(next) = self.engine.looking.get_mut(id) {
                    next.holds = std::mem::take(&mut looking.holds);
                }
                return;
            }
            for (uid, slot) in looking.holds {
                self.free(&uid, &slot);
            }
        }
        match result {
            Ok(Outcome::Container(state)) => match adopt {
                Some((uid, slot, name)) => self.adopt(&uid, &slot, &name, &state),
                None => self.believe(&state),
            },
            Err(EngineError::NotFound { .. }) => {
                self.lost(id);
                if let Some((uid, slot, _)) = adopt {
                    self.free(&uid, &slot);
                }
            }
            _ => {
                self.engine_failed();
                if let Some((uid, slot, _)) = adopt {
                    self.free(&uid, &slot);
                    self.unsettle(&uid);
                } else if let Some(uid) = self.engine.known.get(id).map(|k| k.uid.clone()) {
                    self.unsettle(&uid);
                }
                if self.engine.relist.as_ref().is_some_and(|r| r.waiting.is_some()) {
                    self.engine.relist = None;
                }
                return;
            }
        }
        self.relist_progress(Some(id));
    }

    /// A name that we wanted is taken. Ours under the same name is what we wanted; foreign ones are left alone.
    fn adopt(&mut self, uid: &str, slot: &Slot, name: &str, state: &ContainerState) {
        self.free(uid, slot);
        if translate::is_ours(&self.settings, &state.labels) {
            // From here on the planner decides: it starts what fits and removes what does not.
            if translate::cell(&self.settings, state).is_some_and(|(found, _)| found == uid) {
                self.believe(state);
            } else {
                self.engine(Operation::Remove { id: state.id.clone(), force: true }, Ask::Orphan { id: state.id.clone() });
                self.wake_at(uid, self.now.checked_add(SignedDuration::from_secs(1)).unwrap_or(self.now));
            }
        } else if let Some(entry) = self.pods.get_mut(uid) {
            *entry.detours.entry(name.to_owned()).or_default() += 1;
            self.dirty.insert(uid.to_owned());
        }
    }

    /// Removes what belongs to no pod. Only when both sides are known completely.
    fn orphans(&mut self) {
        if !self.synced || !self.engine.listed || mutant::on(Mutant::LeaveOrphans) {
            return;
        }
        self.stray_files();
        let orphans: Vec<(String, bool)> = self
            .engine
            .known
            .iter()
            .filter(|(id, known)| !self.pods.contains_key(&known.uid) && !self.engine.orphans.contains(*id))
            .map(|(id, known)| (id.clone(), known.cell.state.alive() && !known.cell.container.is_empty()))
            .collect();
        for (id, stop_first) in orphans {
            self.engine.orphans.insert(id.clone());
            let operation = match stop_first {
                true => Operation::Stop { id: id.clone(), grace: ORPHAN_GRACE },
                false => Operation::Remove { id: id.clone(), force: true },
            };
            self.engine(operation, Ask::Orphan { id });
        }
    }

    /// Removes the files of pods that ended while nobody here knew of them: their record was lost, or never reached the disk. Who still
    /// is a pod here takes its files along when it ends.
    fn stray_files(&mut self) {
        // A container that is still there may use them; the next list looks again.
        let used = |uid: &String| self.pods.contains_key(uid) || self.engine.by_pod.contains_key(uid);
        let (wait, gone): (BTreeSet<String>, BTreeSet<String>) = std::mem::take(&mut self.found).into_iter().partition(used);
        self.found = wait;
        for uid in gone {
            self.act(Work::RemoveVolumes { uid }, Ask::Nothing);
        }
    }

    pub(super) fn orphan_done(&mut self, id: &str, result: &Result<Outcome, EngineError>) {
        let was_stop = self.engine.known.get(id).is_some_and(|k| k.cell.state.alive() && !k.cell.container.is_empty());
        self.engine.orphans.remove(id);
        match result {
            Ok(_) if was_stop => self.look_at(id),
            Ok(_) | Err(EngineError::NotFound { .. }) => self.lost(id),
            Err(error) if error.outlook() == Outlook::Unknown => self.engine_failed(),
            Err(_) => {}
        }
        // What is left of it comes up again with the next list, or now.
        self.engine.relist_at = self.engine.relist_at.min(self.now.checked_add(SignedDuration::from_secs(1)).unwrap_or(self.now));
    }
}
