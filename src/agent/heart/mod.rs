//! The agent's decisions as a synchronous state machine.
//!
//! What happens goes in as [`Input`], what to do comes out as [`Action`]s. The heart touches nothing itself and asks no clock, so that
//! the simulator can drive it through every order of events, and through a crash between any two actions.
//!
//! The contract of whoever drives it:
//! - Actions are begun in the order in which they are given. [`Work::Remember`] and [`Work::Forget`] are on disk before anything later
//!   about the same pod ([`Action::uid`]) is begun, and are not answered. All others may run side by side, and each is answered once, by
//!   [`Input::Done`] with its ticket; an operation without a known outcome is answered with an error whose outlook says so.
//! - After a crash a new heart is made from what is on disk ([`Remembered`]); old tickets mean nothing to it. Everything else it learns
//!   from the engine and from the watch.
//! - [`Heart::due`] says when to call with [`Input::Tick`] if nothing else happens.

mod config;
mod engine;
mod message;
mod report;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};

pub use message::{
    Action, Answer, Call, ConfigRef, HttpGet, Input, LOOK, PodEvent, ProbeCall, Record, Remembered, Reply, ServerError, Settings,
    Ticket, TokenRef, VolumeWork, Work,
};

use crate::docker::Operation;
use crate::mutant::{self, Mutant};
use crate::plan::pod::memory::Stopping;
use crate::plan::pod::volume::Volume;
use crate::plan::pod::{self, Memory, Seen, Slot, Step, View, spec};
use config::Configs;
use engine::EngineView;
use report::Report;

/// For how long a deleted pod is remembered, in seconds. Longer than any delayed message lives.
const GRAVE_SECONDS: i64 = 3600;

/// What an outstanding ticket is about.
#[derive(Clone, Debug)]
enum Ask {
    /// A list of all our containers.
    List,
    /// One container in full. `adopt`: its name was in the way of this pod.
    Inspect { id: String, adopt: Option<(String, Slot, String)> },
    /// A step of a pod.
    Step { uid: String, step: Step },
    /// The sandbox's image, for a pod that lacks it.
    SandboxImage { uid: String },
    /// Files of a pod that are written again because their values changed.
    Rewrite { uid: String },
    /// A pod's status.
    Patch { uid: String },
    /// A pod, read anew.
    Get { uid: String },
    /// A pod's object, to be removed.
    Delete { uid: String },
    /// A pod's directories, to be removed.
    Clear { uid: String },
    /// A container that belongs to no pod.
    Orphan { id: String },
    /// A ConfigMap or Secret.
    Config(ConfigRef),
    /// Something whose answer does not matter.
    Nothing,
}

impl Ask {
    /// The pod that something is done about.
    fn uid(&self) -> &str {
        match self {
            Ask::Step { uid, .. }
            | Ask::SandboxImage { uid }
            | Ask::Patch { uid }
            | Ask::Get { uid }
            | Ask::Delete { uid }
            | Ask::Clear { uid } => uid,
            Ask::List | Ask::Inspect { .. } | Ask::Rewrite { .. } | Ask::Orphan { .. } | Ask::Config(_) | Ask::Nothing => "",
        }
    }

    /// Whether it is a call that changes this container's state.
    fn changes(&self, container: &str) -> bool {
        matches!(
            self,
            Ask::Step { step: Step::Start { id, .. } | Step::Stop { id, .. } | Step::Kill { id, .. } | Step::Remove { id }, .. }
                if id == container
        )
    }
}

/// One pod.
struct Entry {
    pod: Arc<Pod>,
    memory: Memory,
    /// The memory as it was last kept on disk.
    kept: String,
    /// Its object is gone.
    gone: bool,
    /// Its deletion was seen.
    tombstone: Option<Timestamp>,
    /// When this heart first saw it: configuration must be at least that fresh.
    since: Timestamp,
    /// The attempt of each container that was last to be made, and since when; without a time, it lacked something that its configuration
    /// should have had.
    making: BTreeMap<String, (u32, Option<Timestamp>)>,
    /// What is under way.
    busy: BTreeMap<Slot, Ticket>,
    /// The outcome of something is unknown; nothing is changed before somebody looked.
    unsettled: bool,
    /// What the engine refused, how often, and until when it is not asked again.
    pauses: BTreeMap<Slot, (u32, Timestamp)>,
    /// Names that foreign containers have, and how often another one was tried.
    detours: BTreeMap<String, u32>,
    /// What its volumes were last written from.
    volumes: Vec<Volume>,
    wake: Option<Timestamp>,
    report: Report,
    status: PodStatus,
    /// Failures in a row to remove its object.
    delete_failures: u32,
    delete_at: Option<Timestamp>,
}

/// The state machine. See the module's head for how to drive it.
pub struct Heart {
    settings: Settings,
    pods: BTreeMap<String, Entry>,
    /// Pods that are over, and when that was seen.
    graves: BTreeMap<String, Timestamp>,
    /// Pods whose files were found at the start, until it is known which of them are still pods here.
    found: BTreeSet<String>,
    engine: EngineView,
    configs: Configs,
    asked: BTreeMap<Ticket, Ask>,
    last_ticket: Ticket,
    /// Whether the server has told us all our pods.
    synced: bool,
    born: Timestamp,
    dirty: BTreeSet<String>,
    timers: BTreeSet<(Timestamp, String)>,
    out: Vec<Action>,
    now: Timestamp,
}

impl Heart {
    /// A heart that knows what is on disk and nothing else.
    pub fn new(settings: Settings, remembered: Remembered, now: Timestamp) -> Heart {
        let mut heart = Heart {
            settings,
            pods: BTreeMap::new(),
            graves: BTreeMap::new(),
            found: remembered.volumes,
            engine: EngineView::new(now),
            configs: Configs::new(now),
            asked: BTreeMap::new(),
            last_ticket: 0,
            synced: false,
            born: now,
            dirty: BTreeSet::new(),
            timers: BTreeSet::new(),
            out: Vec::new(),
            now,
        };
        for record in remembered.records {
            match record.pod {
                Some(pod) => {
                    let mut entry = Entry::new(pod, now);
                    entry.kept = kept(&record.memory);
                    entry.memory = record.memory;
                    entry.tombstone = record.tombstone;
                    heart.pods.insert(record.uid, entry);
                }
                None => {
                    heart.graves.insert(record.uid, record.tombstone.unwrap_or(now));
                }
            }
        }
        heart
    }

    /// Takes one input and says what to do.
    pub fn step(&mut self, input: Input, now: Timestamp) -> Vec<Action> {
        // A clock that goes back would let back-offs and grace periods run twice.
        self.now = self.now.max(now);
        match input {
            Input::Tick => {}
            Input::Pods(pods) => self.all_pods(pods),
            Input::Pod(pod) => self.put_pod(pod),
            Input::Gone { uid } => self.gone(&uid),
            Input::Hint { container } => self.hint(&container),
            Input::Relist => self.engine.relist_at = self.now,
            Input::Done { ticket, reply } => self.done(ticket, reply),
        }
        self.timers();
        self.decide_all();
        std::mem::take(&mut self.out)
    }

    /// When to call [`Heart::step`] with a tick if nothing else happens.
    pub fn due(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.engine.due(), self.configs.due()].into_iter().flatten().min()
    }

    /// Whether the engine answered when it was last asked.
    pub fn engine_answers(&self) -> bool {
        self.engine.failures == 0 || mutant::on(Mutant::TrustSilentEngine)
    }

    /// A pod of which the server has not been told the newest status, if there is one.
    pub fn unreported(&self) -> Option<&str> {
        let mut waiting = self.pods.iter().filter(|(_, e)| !e.gone && e.report.known.as_ref() != Some(&e.status));
        waiting.next().map(|(uid, _)| uid.as_str())
    }

    /// A pod that this node runs, by namespace and name: the newest of that name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let named = |e: &&Entry| spec::namespace(&e.pod) == namespace && spec::name(&e.pod) == name;
        self.pods.values().filter(named).max_by_key(|e| (!e.gone, e.since)).map(|e| e.pod.clone())
    }

    /// A pod with its status as this host sees it.
    pub fn whole(&self, uid: &str) -> Option<Pod> {
        let entry = self.pods.get(uid).filter(|entry| !entry.gone)?;
        Some(Pod { status: Some(entry.status.clone()), ..(*entry.pod).clone() })
    }

    /// The status of a pod as this host sees it.
    pub fn status(&self, uid: &str) -> Option<&PodStatus> {
        self.pods.get(uid).map(|entry| &entry.status)
    }

    /// What the engine shows of a pod.
    pub fn seen(&self, uid: &str) -> Seen {
        self.engine.seen(uid)
    }

    /// The uids of all pods that this heart knows.
    pub fn pods(&self) -> impl Iterator<Item = &str> {
        self.pods.keys().map(String::as_str)
    }

    fn act(&mut self, work: Work, ask: Ask) -> Ticket {
        self.last_ticket += 1;
        self.out.push(Action { ticket: self.last_ticket, uid: ask.uid().to_owned(), work });
        self.asked.insert(self.last_ticket, ask);
        self.last_ticket
    }
    /// What has to be on disk before anything else is done about a pod. Not answered.
    fn keep(&mut self, record: Record) {
        self.last_ticket += 1;
        self.out.push(Action { ticket: self.last_ticket, uid: record.uid.clone(), work: Work::Remember(Box::new(record)) });
    }
    fn engine(&mut self, operation: Operation, ask: Ask) -> Ticket {
        self.act(Work::Engine(operation), ask)
    }
    /// Look at this pod again at this time.
    fn wake_at(&mut self, uid: &str, at: Timestamp) {
        if let Some(entry) = self.pods.get_mut(uid)
            && entry.wake.is_none_or(|w| at < w)
        {
            if let Some(old) = entry.wake.replace(at) {
                self.timers.remove(&(old, uid.to_owned()));
            }
            self.timers.insert((at, uid.to_owned()));
        }
    }

    fn all_pods(&mut self, pods: Vec<Arc<Pod>>) {
        let listed: BTreeSet<&str> = pods.iter().map(|p| spec::uid(p)).collect();
        let missing: Vec<String> = self.pods.keys().filter(|uid| !listed.contains(uid.as_str())).cloned().collect();
        for uid in missing {
            self.gone(&uid);
        }
        for pod in pods {
            self.put_pod(pod);
        }
        // The server is there: what waits to be said is said now. A judge that was away must not judge by old news.
        for entry in self.pods.values_mut() {
            entry.report.retry_at = None;
            entry.delete_at = None;
        }
        self.synced = true;
        self.dirty.extend(self.pods.keys().cloned());
    }

    fn put_pod(&mut self, pod: Arc<Pod>) {
        let uid = spec::uid(&pod).to_owned();
        if !super::translate::is_safe_uid(&uid) {
            return;
        }
        match self.pods.get_mut(&uid) {
            Some(entry) if revision(&pod) < revision(&entry.pod) && self.synced => return,
            Some(entry) => {
                entry.report.saw(&pod);
                entry.pod = pod;
            }
            None => {
                let mut entry = Entry::new(pod, self.now);
                // Seen dead before: whatever it looks like now, it is not started again.
                entry.tombstone = self.graves.remove(&uid);
                self.pods.insert(uid.clone(), entry);
            }
        }
        self.dirty.insert(uid);
    }

    fn gone(&mut self, uid: &str) {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.gone = true;
            self.dirty.insert(uid.to_owned());
        }
    }

    fn timers(&mut self) {
        while let Some((at, uid)) = self.timers.first().cloned().filter(|(at, _)| *at <= self.now) {
            self.timers.remove(&(at, uid.clone()));
            if let Some(entry) = self.pods.get_mut(&uid) {
                entry.wake = None;
                self.dirty.insert(uid);
            }
        }
        self.look_at_engine();
        self.refresh_configs();
    }

    fn decide_all(&mut self) {
        if !self.engine.listed {
            return; // what runs is not known yet
        }
        while let Some(uid) = self.dirty.pop_first() {
            self.decide(&uid);
        }
    }

    /// Asks the planner about one pod and begins what it says.
    fn decide(&mut self, uid: &str) {
        let now = self.now;
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let dead = entry.gone || entry.tombstone.is_some() || entry.pod.metadata.deletion_timestamp.is_some();
        let dead = dead && (entry.gone || !mutant::on(Mutant::StartTombstoned));
        if dead {
            entry.tombstone.get_or_insert(now);
            // Without an object nobody says how long; the manifest does.
            let grace = spec::grace(&entry.pod);
            let asked = entry.pod.metadata.deletion_grace_period_seconds.unwrap_or(grace).max(0);
            let stopping =
                entry.memory.stopping.get_or_insert(Stopping { since: now, grace: asked, asked, reason: String::new() });
            stopping.reason.clear();
        }
        let waited = now.duration_since(self.born) >= self.settings.server_wait;
        let seen = self.engine.seen(uid);
        let may_start = !dead && (self.synced || waited);
        let view = View { may_start, ..self.settings.view(&entry.pod, &seen, now) };
        let decision = pod::next(&view, &mut entry.memory);
        let json = kept(&entry.memory);
        if json != entry.kept {
            entry.kept = json;
            let record = Record {
                uid: uid.to_owned(),
                pod: Some(entry.pod.clone()),
                tombstone: entry.tombstone,
                memory: entry.memory.clone(),
            };
            self.keep(record);
        }
        let before = self.pods.get_mut(uid).map(|e| std::mem::replace(&mut e.status, decision.status)).unwrap_or_default();
        self.announce(uid, &before);
        for step in decision.steps {
            self.launch(uid, step);
        }
        if dead && mutant::on(Mutant::EarlyFarewell) {
            self.farewell(uid);
        }
        if let Some(wake) = decision.wake {
            self.wake_at(uid, wake);
        }
        if !self.synced && !waited {
            let wake = self.born.checked_add(self.settings.server_wait).unwrap_or(now);
            self.wake_at(uid, wake);
        }
        self.report(uid);
    }

    /// A pod of which nothing is left, neither here nor at the server.
    fn bury(&mut self, uid: &str) {
        if let Some(entry) = self.pods.remove(uid) {
            if let Some(wake) = entry.wake {
                self.timers.remove(&(wake, uid.to_owned()));
            }
            let tombstone = entry.tombstone.unwrap_or(self.now);
            self.graves.insert(uid.to_owned(), tombstone);
            let record = Record { uid: uid.to_owned(), pod: None, tombstone: Some(tombstone), memory: Memory::default() };
            self.keep(record);
        }
    }

    /// Forgets what is over for long. A container of a forgotten pod is still an orphan, and still removed.
    fn clear_graves(&mut self) {
        let old = self.now.checked_sub(SignedDuration::from_secs(GRAVE_SECONDS)).unwrap_or(self.born);
        let over: Vec<String> = self.graves.iter().filter(|(_, at)| **at < old).map(|(uid, _)| uid.clone()).collect();
        for uid in over {
            self.graves.remove(&uid);
            self.last_ticket += 1;
            self.out.push(Action { ticket: self.last_ticket, uid: uid.clone(), work: Work::Forget { uid } });
        }
    }
}

impl Entry {
    fn new(pod: Arc<Pod>, now: Timestamp) -> Entry {
        Entry {
            status: pod.status.clone().unwrap_or_default(),
            pod,
            memory: Memory::default(),
            kept: String::new(),
            gone: false,
            tombstone: None,
            since: now,
            making: BTreeMap::new(),
            busy: BTreeMap::new(),
            unsettled: false,
            pauses: BTreeMap::new(),
            detours: BTreeMap::new(),
            volumes: Vec::new(),
            wake: None,
            report: Report::default(),
            delete_failures: 0,
            delete_at: None,
        }
    }
}

/// What of a memory is kept, for comparison.
fn kept(memory: &Memory) -> String {
    serde_json::to_string(memory).unwrap_or_default()
}

/// The store's counter in a pod. Kubernetes calls it opaque, but its own code compares it, too.
fn revision(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|r| r.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
