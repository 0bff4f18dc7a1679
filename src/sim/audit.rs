//! The auditor: the invariants of store, scheduler, workloads and agents, checked on the truth after each step.
//!
//! It looks at what changed, so that a check costs what happened, not what exists. It is written without the planners' own code: a
//! mistake there must not excuse itself here. What is promised about git and releases is in `gitops`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Violation;
use super::chart::Git;
use super::gitops::Ledger;
use super::host::{Connection, Host, POD_UID};
use crate::agent::heart::{Answer, Input, Reply};
use crate::docker::container::Status;
use crate::docker::simulated::Happening;
use crate::object::{Key, Object, Revision, kind_of};
use crate::store::{Change, Store, View};

/// For how long a wish of before may still be carried out by loops that have not heard of the new one.
const IN_FLIGHT: SignedDuration = SignedDuration::from_secs(30);

/// How long an engine may be silent before the agent says so.
const NOTICED: SignedDuration = SignedDuration::from_secs(20);

/// Who checks.
pub(super) struct Auditor {
    pub(super) now: Timestamp,
    pub(super) with_faults: bool,
    pub(super) ledger: Ledger,
    /// The highest revision of which somebody outside was told that it is on disk.
    acknowledged: Revision,
    /// The highest revision that anybody outside saw.
    shown: Revision,
    /// What the store was at the crash, revision by revision, since the last start.
    base: BTreeMap<Key, Revision>,
    /// Each change: its revision, its transaction's, what it changed, and the version that is there since.
    log: Vec<(Revision, Revision, Key, Option<Revision>)>,
    logged: Revision,
    crashed: Option<Revision>,
    deployments: BTreeMap<String, Rollout>,
    /// Restart counts by pod and container.
    restarts: BTreeMap<(String, String), i32>,
    ended: BTreeMap<String, String>,
    uids: BTreeMap<String, Key>,
    rest: Option<Revision>,
}

/// What is remembered of a Deployment.
#[derive(Default)]
struct Rollout {
    /// Wishes: since when, how many at most, how many available at least.
    wishes: VecDeque<(Timestamp, usize, usize)>,
    /// How many pods there were.
    pods: usize,
    /// How many were available, lately.
    available: VecDeque<(Timestamp, usize)>,
}

impl Default for Auditor {
    fn default() -> Self {
        Auditor {
            now: Timestamp::UNIX_EPOCH,
            with_faults: false,
            ledger: Ledger::default(),
            acknowledged: 0,
            shown: 0,
            base: BTreeMap::new(),
            log: Vec::new(),
            logged: 0,
            crashed: None,
            deployments: BTreeMap::new(),
            restarts: BTreeMap::new(),
            ended: BTreeMap::new(),
            uids: BTreeMap::new(),
            rest: None,
        }
    }
}

type Checked = Result<(), Violation>;

impl Auditor {
    pub(super) fn violation(&self, id: &'static str, what: impl Into<String>) -> Violation {
        Violation { id, what: what.into(), at: SignedDuration::ZERO }
    }

    // The store.

    /// Somebody outside saw this revision.
    pub(super) fn shown(&mut self, revision: Revision) {
        self.shown = self.shown.max(revision);
        self.acknowledged = self.acknowledged.max(revision);
    }

    /// Somebody outside saw this revision, of a write that may get lost.
    pub(super) fn seen(&mut self, revision: Revision) {
        self.shown = self.shown.max(revision);
    }

    /// A write was acknowledged.
    pub(super) fn acknowledged(&mut self, revision: Revision) {
        self.shown(revision);
    }

    /// Power goes.
    pub(super) fn crashed(&mut self, store: &Store) {
        self.follow(store);
        self.crashed = Some(store.revision());
    }

    /// Notes what was written.
    pub(super) fn follow(&mut self, store: &Store) {
        let changes = store.changes(self.logged).expect("a step is shorter than what is kept");
        self.log.extend(changes.into_iter().map(|c| (c.revision, c.transaction, c.key, c.new.map(|o| o.revision))));
        self.logged = store.revision();
    }

    /// A store opened again: it must be what it was at some moment, no earlier than what was acknowledged, and go on with new numbers.
    pub(super) fn recovered(&mut self, view: &View) -> Checked {
        let now: BTreeMap<Key, Revision> = view.all().map(|o| (o.key.clone(), o.revision)).collect();
        if self.crashed.take().is_some() {
            let mut state = std::mem::take(&mut self.base);
            let mut matching = (state == now).then_some(0);
            let log = std::mem::take(&mut self.log);
            for same in log.chunk_by(|a, b| a.1 == b.1) {
                for (_, _, key, revision) in same {
                    match revision {
                        Some(revision) => state.insert(key.clone(), *revision),
                        None => state.remove(key),
                    };
                }
                if state == now {
                    matching = Some(same[0].1);
                }
            }
            let Some(kept) = matching else {
                return Err(self.violation("ST2", "after the crash the store is what it never was"));
            };
            let written = log.iter().filter(|c| c.0 <= self.acknowledged).map(|c| c.1).max().unwrap_or(0);
            if kept < written {
                let what = format!("revision {written} was acknowledged, and after the crash the store is at {kept}");
                return Err(self.violation("ST1", what));
            }
            if view.revision() < self.shown {
                let what = format!("revision {} was shown, and the store goes on from {}", self.shown, view.revision());
                return Err(self.violation("ST3", what));
            }
        }
        self.base = now;
        self.log.clear();
        self.logged = view.revision();
        self.deployments.clear();
        // Only what is on disk counts from here on.
        self.restarts.clear();
        self.ended.clear();
        self.ledger.restart(view);
        for pod in view.list(kind_of::<Pod>()) {
            self.status(pod)?;
        }
        Ok(())
    }

    // Agents.

    /// What an agent is about to hear.
    pub(super) fn felt(&mut self, input: &Input, bound: &mut BTreeSet<String>, deleted: &mut BTreeSet<String>) {
        let mut see = |pod: &Pod| {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            if pod.metadata.deletion_timestamp.is_some() {
                deleted.insert(uid);
            } else {
                bound.insert(uid);
            }
        };
        match input {
            Input::Pods(pods) => {
                pods.iter().for_each(|p| see(p));
                let listed: BTreeSet<&str> = pods.iter().filter_map(|p| p.metadata.uid.as_deref()).collect();
                deleted.extend(bound.iter().filter(|uid| !listed.contains(uid.as_str())).cloned());
            }
            Input::Pod(pod) => see(pod),
            Input::Done { reply: Reply::Server(Ok(Answer::Pod(pod))), .. } => see(pod),
            Input::Gone { uid } => {
                deleted.insert(uid.clone());
            }
            _ => {}
        }
    }

    /// F23: an engine that does not answer is noticed within twenty seconds, and the host's sign of life says so.
    pub(super) fn sign_of_life(&self, host: &Host, engine_answers: bool, now: Timestamp) -> Checked {
        match host.silent {
            Some(since) if engine_answers && now.duration_since(since) > NOTICED => {
                let seconds = now.duration_since(since).as_secs();
                Err(self.violation("F23", format!("{} says that its engine answers, and it has not for {seconds} s", host.name)))
            }
            _ => Ok(()),
        }
    }

    /// WA1: a watch gives every change of its scope that is on disk, once, in order.
    pub(super) fn watched(&self, store: &Store, connection: &mut Connection, node: &str) -> Checked {
        let complete = connection.watch.complete();
        if complete <= connection.checked && connection.given.is_empty() {
            return Ok(());
        }
        let given = std::mem::take(&mut connection.given);
        let after = std::mem::replace(&mut connection.checked, complete);
        // What was compacted meanwhile cannot be compared.
        let Ok(changes) = store.changes(after) else { return Ok(()) };
        let here = |o: &std::sync::Arc<Object>| o.field("spec.nodeName") == node;
        let expected: Vec<(Revision, Key)> = changes
            .into_iter()
            .filter(|c| c.revision <= complete && c.key.kind == kind_of::<Pod>())
            .filter(|c| c.old.iter().chain(&c.new).any(here))
            .map(|c| (c.revision, c.key))
            .collect();
        if given != expected {
            let show = |all: &[(Revision, Key)]| all.iter().map(|(r, k)| format!("{k} @{r}")).collect::<Vec<_>>().join(", ");
            let what = format!("the watch of {node} gave [{}], and there was [{}]", show(&given), show(&expected));
            return Err(self.violation("WA1", what));
        }
        Ok(())
    }

    /// AG2: nothing is started of a pod that the agent does not know to be wanted here, or knows to be deleted.
    pub(super) fn started(&self, host: &Host, happening: &Happening) -> Checked {
        let Some(uid) = happening.labels.get(POD_UID) else { return Ok(()) };
        if host.foreign.iter().any(|(id, _)| *id == happening.id) {
            return Ok(());
        }
        let known = host.bound.contains(uid) || host.records.get(uid).is_some_and(|r| r.pod.is_some());
        if !known {
            return Err(
                self.violation("AG2", format!("{} started {} of a pod that it was not told of", host.name, happening.name))
            );
        }
        if host.knows_deleted(uid) {
            return Err(
                self.violation("AG2", format!("{} started {} although it knew the pod to be deleted", host.name, happening.name))
            );
        }
        Ok(())
    }

    /// AG1 and AG3: one running container for each name of each pod, and nothing foreign was touched.
    pub(super) fn containers(&self, host: &Host) -> Checked {
        let mut running = BTreeSet::new();
        for (uid, name, container) in host.managed() {
            let kind = container.spec.labels.get("io.kubernetes.docker.type").map_or("", String::as_str);
            if matches!(container.status, Status::Running | Status::Paused) && !running.insert((uid, kind, name)) {
                return Err(self.violation("AG1", format!("{} runs container {name:?} of pod {uid} twice", host.name)));
            }
        }
        if !host.machine.has_power() {
            return Ok(());
        }
        for (id, started) in &host.foreign {
            let found = host.machine.containers().find(|c| c.id == *id);
            // A power cut ends them, too; but nobody starts or removes them.
            let untouched = found.is_some_and(|c| c.started_at == *started);
            if !untouched {
                return Err(self.violation("AG3", format!("{}: the foreign container {id} was touched", host.name)));
            }
        }
        Ok(())
    }

    // What changed in the store.

    /// Checks a step of the house. Gives markers of what was reached.
    pub(super) fn changed(
        &mut self,
        actor: &'static str,
        before: &View,
        after: &View,
        changes: &[Change],
        git: &Git,
        hosts: &[Host],
    ) -> Result<Vec<&'static str>, Violation> {
        let mut markers = Vec::new();
        let mut touched: BTreeSet<Key> = BTreeSet::new();
        let mut bound: BTreeSet<String> = BTreeSet::new();
        for change in changes {
            self.identity(change)?;
            match change.key.kind.kind {
                "Pod" => {
                    self.pod(actor, change, after, hosts, &mut bound)?;
                    for object in change.old.iter().chain(&change.new) {
                        touched.extend(deployment_of(before, after, object));
                    }
                }
                "ReplicaSet" => {
                    for object in change.old.iter().chain(&change.new) {
                        touched
                            .extend(owner(object, "Deployment").map(|name| Key::of::<Deployment>(&object.key.namespace, name)));
                    }
                    self.one_set_per_template(change, after)?;
                }
                "Deployment" => {
                    touched.insert(change.key.clone());
                    if change.new.is_none() {
                        self.deployments.remove(&change.object().meta.uid);
                    }
                }
                _ => {}
            }
            if self.rest.is_some()
                && !self.ledger.mistaken()
                && !matches!(change.key.kind.kind, "Lease")
                && &*change.key.namespace != "sim"
            {
                return Err(self.violation("WK7", format!("at rest, {actor} writes {}", change.key)));
            }
        }
        for node in bound {
            self.capacity(&node, after)?;
            markers.push("pod bound");
        }
        for key in touched {
            self.workload(actor, &key, before, after, changes)?;
        }
        self.ledger.troubles.now = self.now;
        self.ledger.changed(actor, before, after, changes, git, &mut markers)?;
        Ok(markers)
    }

    /// ST8: a uid is one object, for ever. ST3: versions follow each other.
    fn identity(&mut self, change: &Change) -> Checked {
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && old.meta.uid != new.meta.uid
        {
            return Err(self.violation("ST8", format!("{} changed its uid", change.key)));
        }
        if change.old.is_none() && !change.object().meta.uid.is_empty() {
            let uid = change.object().meta.uid.clone();
            if let Some(known) = self.uids.insert(uid.clone(), change.key.clone())
                && known != change.key
            {
                return Err(self.violation("ST8", format!("{} and {known} have the same uid", change.key)));
            }
        }
        Ok(())
    }

    fn pod(&mut self, actor: &str, change: &Change, after: &View, hosts: &[Host], bound: &mut BTreeSet<String>) -> Checked {
        let node = |o: &Object| o.field("spec.nodeName").to_owned();
        let (old, new) = (change.old.as_deref(), change.new.as_deref());
        if let (Some(old), Some(new)) = (old, new) {
            let (from, to) = (node(old), node(new));
            if from != to && !from.is_empty() {
                return Err(self.violation("SC1", format!("{actor} moved {} from {from} to {to}", change.key)));
            }
            if from != to {
                bound.insert(to.clone());
                let there = after.get(&Key::of::<Node>("", &to)).and_then(|o| o.typed::<Node>().ok());
                if there.is_none_or(|n| n.spec.as_ref().and_then(|s| s.unschedulable) == Some(true)) {
                    return Err(self.violation("SC3", format!("{} was bound to {to}, which takes no pods", change.key)));
                }
            }
            if old.meta.deletion_timestamp.is_some() && new.meta.deletion_timestamp.is_none() {
                return Err(self.violation("AP3", format!("{actor} took back the deletion of {}", change.key)));
            }
        }
        if let Some(new) = new {
            self.status(new)?;
            if new.meta.owners.iter().filter(|o| o.controller == Some(true)).count() > 1 {
                return Err(self.violation("WK4", format!("{} has two controllers", change.key)));
            }
        }
        if let (Some(old), None) = (old, new) {
            self.farewell(actor, old, after, hosts)?;
        }
        Ok(())
    }

    /// AG4: a pod leaves only when its containers have ended, or its host is given up.
    fn farewell(&self, actor: &str, old: &Object, after: &View, hosts: &[Host]) -> Checked {
        let node = old.field("spec.nodeName");
        let Some(host) = hosts.iter().find(|h| h.name == node) else { return Ok(()) };
        if actor != "agent" || after.get(&Key::of::<Node>("", node)).is_none() {
            return Ok(());
        }
        let running =
            host.managed().find(|(uid, _, c)| *uid == old.meta.uid && matches!(c.status, Status::Running | Status::Paused));
        match running {
            Some((_, name, _)) => {
                Err(self.violation("AG4", format!("{} was let go while its container {name:?} runs on {node}", old.key)))
            }
            None => Ok(()),
        }
    }

    /// AG5: restart counts only grow, and what has ended stays ended.
    fn status(&mut self, object: &Object) -> Checked {
        let Ok(pod) = object.typed::<Pod>() else { return Ok(()) };
        let Some(status) = &pod.status else { return Ok(()) };
        let uid = object.meta.uid.clone();
        let phase = status.phase.clone().unwrap_or_default();
        if let Some(ended) = self.ended.get(&uid)
            && *ended != phase
        {
            return Err(self.violation("AG5", format!("{} was {ended} and is {phase} again", object.key)));
        }
        if matches!(phase.as_str(), "Succeeded" | "Failed") {
            self.ended.insert(uid.clone(), phase);
        }
        for container in status.container_statuses.iter().flatten() {
            let known = self.restarts.entry((uid.clone(), container.name.clone())).or_default();
            if container.restart_count < *known {
                let what = format!(
                    "{}: restart count of {} fell from {known} to {}",
                    object.key, container.name, container.restart_count
                );
                return Err(self.violation("AG5", what));
            }
            *known = container.restart_count;
        }
        Ok(())
    }

    /// SC2: no host has more requests than it has.
    fn capacity(&self, node: &str, view: &View) -> Checked {
        let Some(host) = view.get(&Key::of::<Node>("", node)).and_then(|o| o.typed::<Node>().ok()) else { return Ok(()) };
        let allocatable = host.status.as_ref().and_then(|s| s.allocatable.as_ref()?.get("cpu")).map_or(0, |q| millis(&q.0));
        let pods = view.by_field(kind_of::<Pod>(), "spec.nodeName", node).filter_map(|o| o.typed::<Pod>().ok());
        let wanted: i64 = pods.filter(|p| !ended(p)).map(|p| requests(&p)).sum();
        if wanted > allocatable {
            return Err(self.violation("SC2", format!("{node} has {allocatable}m of cpu, and pods that request {wanted}m")));
        }
        Ok(())
    }

    /// WK4: one replica set for each template.
    fn one_set_per_template(&self, change: &Change, view: &View) -> Checked {
        let Some(new) = change.new.as_ref().filter(|_| change.old.is_none()) else { return Ok(()) };
        let Some(deployment) = new.meta.controller().filter(|o| o.kind == "Deployment") else { return Ok(()) };
        let template = |o: &Object| {
            let mut template = o.value()["spec"]["template"].take();
            if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
                labels.remove("pod-template-hash");
            }
            template
        };
        let mine = template(new);
        let twin = view
            .owned_by(&deployment.uid)
            .find(|o| o.key.kind.kind == "ReplicaSet" && o.key != new.key && !o.meta.deleting() && template(o) == mine);
        match twin {
            Some(twin) => Err(self.violation("WK4", format!("{} and {} have the same template", new.key, twin.key))),
            None => Ok(()),
        }
    }

    /// WK1 and WK2: never too many pods, and never too few by our own hand.
    fn workload(&mut self, actor: &str, key: &Key, before: &View, after: &View, changes: &[Change]) -> Checked {
        let Some(object) = after.get(key) else { return Ok(()) };
        let Ok(deployment) = object.typed::<Deployment>() else { return Ok(()) };
        let (most, least) = promised(&deployment);
        let min_ready = i64::from(deployment.spec.min_ready_seconds.unwrap_or(0));
        let pods = |view: &View| -> Vec<std::sync::Arc<Object>> {
            let sets: Vec<String> = view
                .owned_by(&object.meta.uid)
                .filter(|o| o.key.kind == kind_of::<ReplicaSet>())
                .map(|o| o.meta.uid.clone())
                .collect();
            let of = |uid: &String| -> Vec<std::sync::Arc<Object>> {
                view.owned_by(uid).filter(|o| o.key.kind == kind_of::<Pod>() && !o.meta.deleting()).cloned().collect()
            };
            sets.iter().flat_map(of).filter(|o| o.typed::<Pod>().is_ok_and(|p| !ended(&p))).collect()
        };
        let now = self.now;
        let available = |o: &Object| o.typed::<Pod>().is_ok_and(|p| available(&p, min_ready, now));
        let there = pods(after);
        let (were, were_available) = {
            let were = pods(before);
            (were.len(), were.iter().filter(|o| available(o)).count())
        };
        let rollout = self.deployments.entry(object.meta.uid.clone()).or_insert_with(|| {
            // Who is seen for the first time since a start may act on what was wished before this step.
            let wished = before.get(key).and_then(|o| o.typed::<Deployment>().ok()).map(|d| promised(&d));
            let wishes = wished.map(|(most, least)| (now, most, least)).into_iter().collect();
            Rollout { pods: were, wishes, ..Rollout::default() }
        });
        if rollout.wishes.back().is_none_or(|(_, m, l)| (*m, *l) != (most, least)) {
            rollout.wishes.push_back((now, most, least));
        }
        while rollout.wishes.len() > 1 && rollout.wishes[1].0 < now - IN_FLIGHT {
            rollout.wishes.pop_front();
        }
        let most = rollout.wishes.iter().map(|(_, m, _)| *m).max().unwrap_or(most);
        let least = rollout.wishes.iter().map(|(_, _, l)| *l).min().unwrap_or(least);
        // A pod more than allowed may be left over from before; but none is added to it.
        let known = rollout.pods.max(were);
        rollout.pods = there.len();
        rollout.available.push_back((now, were_available));
        while rollout.available.front().is_some_and(|(t, _)| *t < now - SignedDuration::from_secs(2)) {
            rollout.available.pop_front();
        }
        // What was so a moment ago may have been what the decision was made from.
        let lately = rollout.available.iter().map(|(_, n)| *n).max().unwrap_or(0);
        if there.len() > most.max(known) {
            return Err(self.violation("WK1", format!("{key} has {} pods, and may have {most}", there.len())));
        }
        if matches!(actor, "deployment" | "replicaset" | "replica_set" | "replica-set") {
            let taken: Vec<&Change> = changes
                .iter()
                .filter(|c| c.key.kind == kind_of::<Pod>() && c.old.as_ref().is_some_and(|o| !o.meta.deleting() && available(o)))
                .filter(|c| c.new.as_ref().is_none_or(|o| o.meta.deleting()))
                .filter(|c| deployment_of(before, after, c.object()).as_ref() == Some(key))
                .collect();
            let left = lately.saturating_sub(taken.len());
            if !taken.is_empty() && left < least {
                let what = format!(
                    "{actor} took {} of the available pods of {key}: {left} are left, and at least {least} must stay",
                    taken.len()
                );
                return Err(self.violation("WK2", what));
            }
        }
        Ok(())
    }

    /// From here on nothing may be written.
    pub(super) fn rest(&mut self, revision: Revision) {
        self.rest = Some(revision);
    }
}

fn owner<'a>(object: &'a Object, kind: &str) -> Option<&'a str> {
    object.meta.controller().filter(|o| o.kind == kind).map(|o| o.name.as_str())
}

/// The Deployment on top of a pod.
fn deployment_of(before: &View, after: &View, pod: &Object) -> Option<Key> {
    let set = Key::of::<ReplicaSet>(&pod.key.namespace, owner(pod, "ReplicaSet")?);
    let set = after.get(&set).or_else(|| before.get(&set))?;
    Some(Key::of::<Deployment>(&pod.key.namespace, owner(set, "Deployment")?))
}

pub(super) fn ended(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

fn available(pod: &Pod, min_ready: i64, now: Timestamp) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.filter(|c| c.type_ == "Ready" && c.status == "True").any(|c| {
        min_ready == 0
            || c.last_transition_time.as_ref().is_some_and(|t| now.duration_since(t.0) >= SignedDuration::from_secs(min_ready))
    })
}

/// `maxSurge` (rounded up) or `maxUnavailable` (rounded down), as a number of pods.
fn part(value: Option<&IntOrString>, replicas: usize, up: bool) -> usize {
    match value {
        Some(IntOrString::Int(n)) => (*n).max(0) as usize,
        Some(IntOrString::String(s)) => {
            let percent: usize = s.trim_end_matches('%').parse().unwrap_or(0);
            if up { (replicas * percent).div_ceil(100) } else { replicas * percent / 100 }
        }
        None if up => (replicas * 25).div_ceil(100),
        None => replicas * 25 / 100,
    }
}

/// How many pods a Deployment may have, and how many of them must stay available.
fn promised(deployment: &Deployment) -> (usize, usize) {
    let spec = &deployment.spec;
    let replicas = spec.replicas.unwrap_or(1).max(0) as usize;
    let strategy = spec.strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
        return (replicas, 0);
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let surge = part(rolling.and_then(|r| r.max_surge.as_ref()), replicas, true);
    let unavailable = part(rolling.and_then(|r| r.max_unavailable.as_ref()), replicas, false);
    let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
    (replicas + surge, replicas.saturating_sub(unavailable))
}

/// Processors in thousandths.
fn millis(text: &str) -> i64 {
    match text.strip_suffix('m') {
        Some(number) => number.parse().unwrap_or(0),
        None => text.parse::<i64>().unwrap_or(0) * 1000,
    }
}

fn requests(pod: &Pod) -> i64 {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    containers.filter_map(|c| Some(millis(&c.resources.as_ref()?.requests.as_ref()?.get("cpu")?.0))).sum()
}
