//! Makes the cluster look like git, one Application at a time, judges each release and goes back when it was bad.
//!
//! Everything that this loop knows is in the Application's status and in its Releases and Renderings: after a crash it goes on where it
//! was. Each look at an Application ends in at most one transaction, which carries the versions that were read, so that there is no
//! state between two writes that a restart could not continue from.
//!
//! What should happen is decided in `plan`: `target` (which release), `preflight` (may it begin), `sync` (what to write), `health` and
//! `verdict` (was it good). This room carries it out:
//! - `look`: what git says, and which release follows from it;
//! - `open`: a new release, its record, and what stands in its way;
//! - `images`: whether new images can be pulled, before old pods are stopped for them;
//! - `roll`: waves, verdict, and the way back;
//! - `undo`: what is undone of what failed releases did;
//! - `rest`: drift, late prunes, and how things are;
//! - `retire`: an Application that is deleted;
//! - `record`: Releases and Renderings;
//! - `facts`: what is read from the store.
//!
//! Not here: git itself ([`Charts`] is asked and answers later; `control::fetch` does the work), hosts, Docker.

mod facts;
mod images;
mod look;
mod open;
mod record;
mod rest;
mod retire;
mod roll;
#[cfg(test)]
mod tests;
mod undo;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};

use super::event::Recorder;
use super::keyed::{Cursor, Keys, News};
use super::{Context, Loop, Next};
use crate::git::{FetchErrorKind, Request};
use crate::object::custom::Kinds;
use crate::object::ours::{Application, OWNER_ANNOTATION, ProblemRecord};
use crate::object::{Key, Object, kind_of};
use crate::plan::sync::Settled;
use crate::render::{Problem, Rendered};
use crate::store::{Change, Conflict, Shelf, View};

pub use images::ASKED_FOR;
use record::Content;

/// What is asked of git for one Application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// What to read.
    pub request: Request,
    /// The namespace of objects that name none.
    pub namespace: String,
    /// The kinds that objects may be of, beside those that the files define themselves.
    pub kinds: Kinds,
    /// How long to wait between two looks at a remote repository.
    pub interval: SignedDuration,
    /// A new value asks for a look at once.
    pub nonce: String,
}

/// What git answered.
#[derive(Debug)]
pub struct Seen {
    /// What was asked.
    pub ask: Ask,
    /// When it was answered.
    pub at: Timestamp,
    /// What there was.
    pub outcome: Result<Chart, Unread>,
}

impl Seen {
    /// The commit, if there was one.
    pub fn commit(&self) -> Option<&str> {
        self.outcome.as_ref().ok().map(|chart| chart.commit.as_str())
    }
}

/// One commit, rendered.
#[derive(Debug)]
pub struct Chart {
    /// The full commit id.
    pub commit: String,
    /// The first line of its message.
    pub subject: String,
    /// Its author.
    pub author: String,
    /// The trailers of its message.
    pub trailers: Vec<(String, String)>,
    /// Its objects, or everything that is wrong with it.
    pub rendered: Result<Rendered, Vec<Problem>>,
}

/// Why a repository could not be read.
#[derive(Clone, Debug)]
pub struct Unread {
    /// What a caller may branch on.
    pub kind: FetchErrorKind,
    /// What was attempted and what went wrong, in one line, without credentials.
    pub message: String,
}

/// Who reads git for this loop. Nothing here waits: what was asked for is answered later, and the loop is woken then.
pub trait Charts: Send {
    /// Says what an Application's newest chart is made from. Asking the same again changes nothing.
    fn look(&mut self, application: &Key, ask: &Ask);
    /// The newest answer for an Application, whatever it was asked for.
    fn seen(&self, application: &Key) -> Option<Arc<Seen>>;
    /// The Applications for which there is a new answer since the last call.
    fn news(&mut self) -> Vec<Key>;
    /// The Application is gone.
    fn forget(&mut self, application: &Key);
    /// Rings when there is a new answer, if anybody can wait for that.
    fn wake(&self) -> Option<Arc<tokio::sync::Notify>> {
        None
    }
}

/// What stands in the way of a new release, and until when that is believed.
#[derive(Clone, Debug)]
struct Obstacle {
    digest: String,
    what: Standing,
    attempts: u32,
    again: Timestamp,
}

/// What stands in the way of a new release.
#[derive(Clone, Debug, PartialEq)]
enum Standing {
    /// Another Application must be healthy first.
    Blocked(Vec<String>),
    /// It can never work as it is.
    Rejected(Vec<ProblemRecord>),
    /// It cannot work now.
    Errored(Vec<String>),
}

/// Repairs of one object that somebody else keeps changing.
#[derive(Clone, Copy, Debug)]
struct Fight {
    times: u32,
    last: Timestamp,
}

/// Who did not look for so long was not there. While a rollout is under way it is looked at twice as often.
const ABSENCE: SignedDuration = SignedDuration::from_secs(40);
/// How long a host's lease lasts that does not say it, in seconds.
const LEASE: i32 = 40;

/// The loop. What it remembers in memory only saves time.
pub struct ReleaseLoop {
    charts: Box<dyn Charts>,
    cursor: Cursor,
    keys: Keys,
    events: Recorder,
    contents: BTreeMap<(String, String), Arc<Content>>,
    obstacles: BTreeMap<Key, Obstacle>,
    fights: BTreeMap<(Key, Key), Fight>,
    /// Of each Application, the release that this loop recorded and for which it has asked no host for an image: no pod is to be looked
    /// through for such questions.
    unasked: BTreeMap<Key, String>,
    /// Of each Application, the objects that were found in order.
    settled: BTreeMap<Key, BTreeMap<Key, Settled>>,
    written: BTreeMap<Key, look::Written>,
    /// When the health of an Application at rest was last looked at, and of which release.
    noted: BTreeMap<Key, (String, Timestamp)>,
    /// The hosts, as of the last change of a node.
    hosts: (Shelf, Arc<facts::HostsNow>),
    /// How often containers of pods were restarted at most, of those of which one was.
    restarted: BTreeMap<Key, i32>,
    /// Since when this loop watches without a gap: nobody knows what happened before.
    born: Option<Timestamp>,
    last_step: Option<Timestamp>,
    /// The hosts' signs of life.
    heard: BTreeMap<String, Contact>,
}

/// A host's signs of life, by this server's clock.
#[derive(Clone, Copy, Debug)]
struct Contact {
    /// Since when they come without a gap.
    since: Timestamp,
    /// The last one.
    last: Timestamp,
    /// When the next one is overdue, counted from the last.
    patience: SignedDuration,
}

impl ReleaseLoop {
    /// A loop that learns of commits from `charts`.
    pub fn new(charts: Box<dyn Charts>) -> Self {
        ReleaseLoop {
            charts,
            cursor: Cursor::default(),
            keys: Keys::default(),
            events: Recorder::new("release-controller"),
            contents: BTreeMap::new(),
            obstacles: BTreeMap::new(),
            fights: BTreeMap::new(),
            unasked: BTreeMap::new(),
            settled: BTreeMap::new(),
            written: BTreeMap::new(),
            noted: BTreeMap::new(),
            hosts: Default::default(),
            restarted: BTreeMap::new(),
            born: None,
            last_step: None,
            heard: BTreeMap::new(),
        }
    }

    /// Notes which Applications a change is about.
    fn note(&mut self, view: &View, change: &Change, now: Timestamp) {
        let kind = change.key.kind;
        if kind == kind_of::<Lease>() && &*change.key.namespace == super::node::LEASES {
            self.hear(&change.key.name, change.new.as_deref(), now);
            return;
        }
        if kind == kind_of::<Application>() {
            self.keys.add(change.key.clone());
            // Whoever brought it sees to its spec; its status is its own business.
            let generation =
                |object: &Option<Arc<Object>>| object.as_ref().map(|o| (o.meta.generation, o.meta.annotations.clone()));
            if generation(&change.old) != generation(&change.new) {
                change.old.iter().chain(&change.new).filter_map(|o| owner_of(o)).for_each(|owner| self.keys.add(owner));
            }
            // Others may wait for it, or for an object that it gives up.
            let waiting: Vec<Key> = self.obstacles.keys().cloned().collect();
            for key in waiting {
                self.look_again(&key);
            }
            return;
        }
        for object in change.old.iter().chain(&change.new) {
            if let Some(owner) = owner_of(object) {
                self.keys.add(owner);
            }
        }
        if kind == kind_of::<Pod>() {
            self.count_restarts(&change.key, change.new.as_deref());
        }
        if kind == kind_of::<Pod>() || kind == kind_of::<ReplicaSet>() {
            if let Some(owner) = workload(view, change.object()).and_then(|object| owner_of(&object)) {
                self.keys.add(owner);
            }
        } else if kind == kind_of::<Node>() && hosts_changed(change) {
            for application in view.list(kind_of::<Application>()) {
                self.look_again(&application.key);
            }
        }
    }

    fn count_restarts(&mut self, pod: &Key, now: Option<&Object>) {
        match now.map_or(0, Object::restarts) {
            0 => drop(self.restarted.remove(pod)),
            times => drop(self.restarted.insert(pod.clone(), times)),
        }
    }

    /// A host's lease was renewed, or is gone.
    fn hear(&mut self, host: &str, lease: Option<&Object>, now: Timestamp) {
        let Some(lease) = lease.and_then(|o| o.typed::<Lease>().ok()) else {
            self.heard.remove(host);
            return;
        };
        // A host renews several times before its lease would end. One that is slower by habit is not overdue at its own pace.
        let seconds = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds).unwrap_or(LEASE);
        let usual = SignedDuration::from_secs(i64::from(seconds)) / 3;
        let before = self.heard.get(host).copied();
        let pace = before.map_or(SignedDuration::ZERO, |contact| now.duration_since(contact.last));
        let since = before.filter(|contact| pace <= contact.patience).map_or(now, |contact| contact.since);
        self.heard.insert(host.to_owned(), Contact { since, last: now, patience: usual.max(pace * 3 / 2) });
    }

    /// What happened while this process did not run, nobody saw: it watches since now.
    fn notice_own_absence(&mut self, now: Timestamp) {
        let gap = self.last_step.replace(now).map(|last| now.duration_since(last));
        if gap.is_none_or(|gap| gap > ABSENCE || gap.is_negative()) {
            self.born = Some(now);
        }
    }

    /// Looks at an Application again, and does not believe what stood in its way.
    fn look_again(&mut self, key: &Key) {
        if let Some(obstacle) = self.obstacles.get_mut(key) {
            obstacle.again = Timestamp::MIN;
        }
        self.keys.add(key.clone());
    }
}

impl Loop for ReleaseLoop {
    fn name(&self) -> &'static str {
        "release"
    }

    fn wake(&self) -> Option<Arc<tokio::sync::Notify>> {
        self.charts.wake()
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<Next, Conflict> {
        self.notice_own_absence(cx.now);
        match self.cursor.news(cx.store) {
            News::Everything(view) => {
                view.list(kind_of::<Application>()).for_each(|application| self.keys.add(application.key.clone()));
                self.restarted.clear();
                view.list(kind_of::<Pod>()).for_each(|pod| self.count_restarts(&pod.key, Some(pod)));
            }
            News::Changes(changes) => {
                let view = cx.store.view();
                changes.iter().for_each(|change| self.note(&view, change, cx.now));
            }
        }
        for key in self.charts.news() {
            self.keys.add(key);
        }
        let mut keys = std::mem::take(&mut self.keys);
        let done = keys.run("release", cx.now, |key| self.look(cx, key));
        self.keys = keys;
        self.events.flush(cx.store);
        done
    }
}

/// The Application that manages an object, or asks by it for an image, by what is written on it.
fn owner_of(object: &Object) -> Option<Key> {
    let annotations = &object.meta.annotations;
    let (namespace, name) = annotations.get(OWNER_ANNOTATION).or_else(|| annotations.get(images::ASKED_BY))?.split_once('/')?;
    Some(Key::of::<Application>(namespace, name))
}

/// The Deployment (or whatever is on top) that a pod or replica set belongs to; itself if it is on top.
fn workload(view: &View, object: &Arc<Object>) -> Option<Arc<Object>> {
    let mut at = object.clone();
    for _ in 0..2 {
        let Some(controller) = at.meta.controller() else { break };
        let key = match controller.kind.as_str() {
            "ReplicaSet" => Key::of::<ReplicaSet>(&at.key.namespace, &controller.name),
            "Deployment" => Key::of::<Deployment>(&at.key.namespace, &controller.name),
            _ => return None,
        };
        at = view.get(&key)?.clone();
    }
    Some(at)
}

/// Whether hosts came, went, or began or ceased to answer. Heartbeats are not news.
fn hosts_changed(change: &Change) -> bool {
    let facts = |object: &Option<Arc<Object>>| {
        let node = object.as_ref()?.typed::<Node>().ok()?;
        let ready = facts::ready(&node);
        let allocatable = node.status.as_ref().and_then(|s| s.allocatable.clone());
        Some((ready, node.spec.clone(), node.metadata.labels.clone(), allocatable))
    };
    facts(&change.old) != facts(&change.new)
}
