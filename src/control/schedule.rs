//! Carries `plan::schedule` to the store: bindings, the end of pods that make room for more important ones, and for pods that must wait
//! the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, PodCondition};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use super::event::{Recorder, Severity};
use super::keyed::{Cursor, News};
use super::{Context, Loop, Next, write};
use crate::count;
use crate::mutant::{self, Mutant};
use crate::object::admit::{self, DeleteOptions, Deletion};
use crate::object::{Draft, Key, Object, Revision, kind_of};
use crate::plan::rollout::{active, ready, stamp};
use crate::plan::schedule::{self, Budget, Cluster, Decision, PodName, Preemption, Resort, Scheduler, Strategy};
use crate::store::{Conflict, Store, Txn};

/// How many bindings share a transaction. One conflict costs the whole batch a second look, one sync serves all of it.
const BATCH: usize = 128;
/// How many pods one step looks at, so that other loops get their turn.
const BUDGET: usize = 1024;
/// A pod that still waits, but for another reason, is told so at most this often: reasons count nodes, and nodes come and go.
const RETELL: SignedDuration = SignedDuration::from_secs(10);

/// So long after the last pod got its node, most of what was learned on the way is forgotten: it takes memory.
const REST: SignedDuration = SignedDuration::from_secs(10);

/// The loop that gives pods their nodes.
pub(super) struct Schedule {
    cursor: Cursor,
    cluster: Cluster,
    scheduler: Scheduler,
    strategy: Strategy,
    seed: u64,
    waiting: Waiting,
    /// Which version of each node was seen last.
    nodes: BTreeMap<Arc<str>, Revision>,
    /// Where the cluster was when everybody who waits had been tried.
    tried: Option<usize>,
    /// After a conflict bindings go one by one, so that one pod in motion does not hold up the others.
    alone: bool,
    /// When a pod got its node last, until that is long ago.
    busy: Option<Timestamp>,
    events: Recorder,
}

/// Pods without a node.
#[derive(Default)]
struct Waiting {
    pods: BTreeMap<PodName, Waiter>,
    /// The same, who is first in line first.
    line: BTreeSet<(Place, PodName)>,
    /// Those that have not been tried since they came or changed.
    fresh: BTreeSet<PodName>,
}

/// A pod's place in the line: `schedule::order` without the name.
type Place = (std::cmp::Reverse<i32>, Option<Timestamp>);

struct Waiter {
    object: Arc<Object>,
    place: Place,
    class: String,
    told: Option<Timestamp>,
}

impl Waiting {
    fn remove(&mut self, name: &PodName) -> Option<Waiter> {
        let waiter = self.pods.remove(name)?;
        self.line.remove(&(waiter.place, name.clone()));
        self.fresh.remove(name);
        Some(waiter)
    }
}

impl Schedule {
    pub(super) fn new(strategy: Strategy, seed: u64) -> Self {
        Schedule {
            cursor: Cursor::default(),
            cluster: Cluster::new(),
            scheduler: Scheduler::new(strategy, seed),
            strategy,
            seed,
            waiting: Waiting::default(),
            nodes: BTreeMap::new(),
            tried: None,
            alone: false,
            busy: None,
            events: Recorder::new("default-scheduler"),
        }
    }

    fn notice(&mut self, key: &Key, new: Option<&Arc<Object>>) {
        if key.kind == kind_of::<Node>() {
            match new {
                Some(object) => drop(self.nodes.insert(key.name.clone(), object.revision)),
                None => drop(self.nodes.remove(&key.name)),
            }
            match new.map(|o| o.typed::<Node>()) {
                Some(Ok(node)) => self.cluster.set_node(&node),
                Some(Err(error)) => tracing::warn!(%key, why = %error.source, "cannot be read, so nothing is placed there"),
                None => self.cluster.remove_node(&key.name),
            }
        } else if key.kind == kind_of::<Namespace>() {
            self.cluster.set_namespace(&key.name, new.map(|o| &*o.meta.labels));
        } else if key.kind == kind_of::<Pod>() {
            let name: PodName = (key.namespace.to_string(), key.name.to_string());
            let untried = self.waiting.fresh.contains(&name);
            let known = self.waiting.remove(&name);
            let Some(object) = new else { return self.cluster.remove_pod(&name) };
            if self.knows(&name, object) && !mutant::on(Mutant::Rebind) {
                return; // our own binding, or a status: the common cases
            }
            // Of one that has a node all that matters is remembered in the cluster. One that waits is looked at again.
            let waits = object.field("spec.nodeName").is_empty();
            let pod = match if waits { object.typed::<Pod>() } else { object.glance() } {
                Ok(pod) => pod,
                Err(error) => {
                    tracing::warn!(%key, why = %error.source, "cannot be read, so it is not placed");
                    return self.cluster.remove_pod(&name);
                }
            };
            self.cluster.set_pod(&pod);
            let again = mutant::on(Mutant::Rebind) && active(&pod) && !ready(&pod);
            if schedule::awaits_node(&pod) || again {
                let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
                let place = (std::cmp::Reverse(priority), pod.metadata.creation_timestamp.as_ref().map(|t| t.0));
                let class = Scheduler::class(&pod);
                // Our own word about why it waits is no reason to try again.
                if untried || known.as_ref().is_none_or(|k| k.class != class || k.object.meta.uid != object.meta.uid) {
                    self.waiting.fresh.insert(name.clone());
                }
                let told = known.and_then(|k| k.told);
                self.waiting.line.insert((place, name.clone()));
                self.waiting.pods.insert(name, Waiter { object: object.clone(), place, class, told });
            }
        }
    }
}

impl Schedule {
    /// Whether a pod has the place that it is known to have, which can be told without decoding it.
    fn knows(&self, name: &PodName, object: &Object) -> bool {
        let node = object.field("spec.nodeName");
        let owner = object.meta.controller().map_or("", |o| o.uid.as_str());
        !object.ended() && self.cluster.has(name, node, &object.meta.labels, owner, object.meta.deleting())
    }
}

/// A pod that was given a node, not yet committed.
struct Binding {
    pod: PodName,
    object: Arc<Object>,
    node: Arc<str>,
}

impl Loop for Schedule {
    fn name(&self) -> &'static str {
        "schedule"
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<Next, Conflict> {
        match self.cursor.news(cx.store) {
            News::Everything(view) => {
                self.cluster = Cluster::new();
                // What it learned, it learned of the old one.
                self.scheduler = Scheduler::new(self.strategy, self.seed);
                self.waiting = Waiting::default();
                self.nodes.clear();
                self.tried = None;
                let namespaces = view.list(kind_of::<Namespace>());
                for object in namespaces.chain(view.list(kind_of::<Node>())).chain(view.list(kind_of::<Pod>())) {
                    self.notice(&object.key, Some(object));
                }
            }
            News::Changes(changes) => {
                for change in changes {
                    self.notice(&change.key, change.new.as_ref());
                }
            }
        }
        let before = self.cluster.evaluations;
        let done = self.place(cx);
        count::EVALUATIONS.add(self.cluster.evaluations - before);
        self.events.flush(cx.store);
        Ok(done?.or(self.rest(cx.now)))
    }
}

impl Schedule {
    fn place(&mut self, cx: &mut Context<'_>) -> Result<Next, Conflict> {
        // When nothing about the nodes changed, only who is new has a chance.
        let everybody = self.tried != Some(self.cluster.position());
        let candidates: Vec<PodName> = if everybody {
            self.waiting.line.iter().map(|(_, name)| name.clone()).collect()
        } else if self.waiting.fresh.is_empty() {
            return Ok(Next::Idle);
        } else {
            self.waiting.line.iter().filter(|(_, name)| self.waiting.fresh.contains(name)).map(|(_, name)| name.clone()).collect()
        };
        let mut hopeless: BTreeMap<String, String> = BTreeMap::new();
        // Classes for which no room can be made either.
        let mut beyond: BTreeSet<String> = BTreeSet::new();
        let mut budgets: Option<Vec<Budget>> = None;
        let mut batch: Vec<Binding> = Vec::new();
        let mut again = Next::Idle;
        let mut placed = 0;
        let mut conflict = None;
        for name in candidates {
            if placed >= BUDGET {
                again = Next::Again;
                break;
            }
            let Some(waiter) = self.waiting.pods.get(&name) else { continue };
            let Ok(pod) = waiter.object.typed::<Pod>() else { continue };
            let (class, object) = (waiter.class.clone(), waiter.object.clone());
            // A pod for which a place is kept free may fit where others of its class do not, once those that it waits for are gone.
            let alike = !self.cluster.is_promised(&name) || self.cluster.expects(&name);
            let mut decision = match hopeless.get(&class).filter(|_| alike) {
                Some(why) => Decision::Wait(why.clone()),
                None => self.scheduler.decide_in(&class, &mut self.cluster, &pod),
            };
            if let Decision::Wait(why) = &decision {
                hopeless.insert(class.clone(), why.clone());
                let known = budgets.take().unwrap_or_else(|| budgets_of(cx.store));
                let promised = self.cluster.is_promised(&name);
                let resort = match beyond.contains(&class) && !promised {
                    true => Resort::Nothing,
                    false => self.scheduler.resort(&class, &mut self.cluster, &pod, &known),
                };
                // Who goes uses up what budgets allow.
                if known.is_empty() || !matches!(resort, Resort::Preempt(_)) {
                    budgets = Some(known);
                }
                match resort {
                    Resort::Preempt(room) => {
                        placed += 1;
                        match self.preempt(cx, &object, &room, why) {
                            // They are gone at once, so that the place is free.
                            Ok(true) => decision = self.scheduler.decide_in(&class, &mut self.cluster, &pod),
                            Ok(false) => {
                                self.waiting.fresh.remove(&name);
                                continue;
                            }
                            Err(met) => {
                                conflict = Some(met);
                                break;
                            }
                        }
                    }
                    Resort::Expect => {}
                    Resort::Nothing => {
                        // What was kept free for it does not help any more.
                        self.cluster.promise(&pod, None);
                        beyond.insert(class);
                    }
                }
            }
            match decision {
                Decision::Place(node) => {
                    placed += 1;
                    batch.push(Binding { object, pod: name, node });
                    if batch.len() >= if self.alone { 1 } else { BATCH } {
                        conflict = self.commit(cx, std::mem::take(&mut batch)).err().or(conflict);
                        if conflict.is_some() && !self.alone {
                            break;
                        }
                    }
                }
                Decision::Wait(why) => {
                    self.waiting.fresh.remove(&name);
                    again = again.or(self.tell(cx, &name, &why));
                }
            }
        }
        if !batch.is_empty() {
            conflict = self.commit(cx, batch).err().or(conflict);
        }
        self.alone = conflict.is_some();
        if let Some(conflict) = conflict {
            self.tried = None;
            return Err(conflict);
        }
        if placed > 0 {
            self.busy = Some(cx.now);
        }
        if placed > 0 && !self.waiting.pods.is_empty() {
            // A pod that was placed late in the line may be the neighbour that one before it waits for.
            again = Next::Again;
        }
        self.tried = (placed == 0).then(|| self.cluster.position());
        Ok(again)
    }

    /// Forgets what is quick to learn again, a while after there was anything to do.
    fn rest(&mut self, now: Timestamp) -> Next {
        match self.busy.map(|busy| busy + REST) {
            Some(until) if now >= until => {
                self.busy = None;
                self.scheduler.rest(&mut self.cluster);
                Next::Idle
            }
            Some(until) => Next::At(until),
            None => Next::Idle,
        }
    }

    /// Writes a batch of bindings. When something that one of them was made from has changed, all of them are taken back: the pods wait
    /// again and are planned anew from what is there then.
    fn commit(&mut self, cx: &mut Context<'_>, batch: Vec<Binding>) -> Result<(), Conflict> {
        let mut txn = Txn::new();
        let mut nodes: BTreeSet<&str> = BTreeSet::new();
        for binding in &batch {
            txn.update(bound(&binding.object, &binding.node, cx.now), binding.object.revision);
            nodes.insert(&binding.node);
        }
        let view = cx.store.view();
        let mut stale = false;
        for name in nodes {
            let key = Key::of::<Node>("", name);
            // The node as it is now must be one that would be chosen again: a heartbeat is no reason to plan anew, a cordon is.
            let now = view.get(&key);
            stale |= !now.is_some_and(|o| self.is_same(o));
            txn.expect(key, now.map(|o| o.revision));
        }
        let outcome = if stale {
            let key = batch.first().map(|b| Key::of::<Node>("", &b.node)).expect("a batch is never empty");
            Err(Conflict { key, kind: crate::store::ConflictKind::Missing })
        } else {
            cx.store.commit(txn).map(|_| ())
        };
        if let Err(conflict) = outcome {
            for binding in &batch {
                self.cluster.remove_pod(&binding.pod);
            }
            return Err(conflict);
        }
        for binding in &batch {
            self.waiting.remove(&binding.pod);
            let message = format!("Successfully assigned {}/{} to {}", binding.pod.0, binding.pod.1, binding.node);
            self.events.record(cx, &binding.object, Severity::Normal, "Scheduled", &message);
        }
        Ok(())
    }

    /// Whether a node is as it was when it was seen last, as far as placing pods goes.
    fn is_same(&self, node: &Object) -> bool {
        self.nodes.get(&node.key.name) == Some(&node.revision) || node.typed::<Node>().is_ok_and(|node| self.cluster.knows(&node))
    }

    /// Asks pods to go, so that another one finds room. Says whether they are gone at once; if not, the place is kept free for it.
    fn preempt(&mut self, cx: &mut Context<'_>, pod: &Arc<Object>, room: &Preemption, why: &str) -> Result<bool, Conflict> {
        let mut txn = Txn::new();
        let view = cx.store.view();
        let key = Key::of::<Node>("", &room.node);
        let now = view.get(&key);
        let same = now.is_some_and(|o| self.is_same(o));
        txn.expect(key.clone(), now.map(|o| o.revision));
        let mut stale = !same;
        let mut asked: Vec<Arc<Object>> = Vec::new();
        let mut gone = true;
        for name in &room.victims {
            // One that is not there any more, or that somebody else has asked to go, is no obstacle.
            let Some(victim) = view.get(&Key::of::<Pod>(&name.0, &name.1)).filter(|v| !v.meta.deleting()) else { continue };
            let options =
                DeleteOptions { uid: Some(victim.meta.uid.clone()), revision: Some(victim.revision), ..DeleteOptions::default() };
            match admit::delete(victim, &options, cx.now) {
                Ok(Deletion::Remove) => drop(txn.delete(victim.key.clone(), Some(victim.revision))),
                Ok(Deletion::Mark(draft)) => {
                    gone = false;
                    let why = "default-scheduler: preempting to accommodate a higher priority pod";
                    txn.update(disrupted(&draft, "PreemptionByScheduler", why, cx.now), victim.revision);
                }
                Ok(Deletion::Unchanged) => gone = false,
                Err(_) => stale = true,
            }
            asked.push(victim.clone());
        }
        gone &= !room.victims.is_empty();
        for name in &room.outbid {
            if let Some(other) = self.waiting.pods.get(name) {
                txn.update(write::edited(&other.object, |value| nominate(value, None)), other.object.revision);
            }
        }
        if !gone {
            let condition = unschedulable(why, pod, cx.now);
            let draft = write::edited(pod, |value| {
                set_condition(value, &condition);
                nominate(value, Some(&room.node));
            });
            txn.update(draft, pod.revision);
        }
        let outcome = if stale {
            Err(Conflict { key, kind: crate::store::ConflictKind::Missing })
        } else {
            cx.store.commit(txn).map(|_| ())
        };
        if let Err(conflict) = outcome {
            // All of it is taken back, as it is now.
            for name in
                room.victims.iter().chain(&room.outbid).chain([&(pod.key.namespace.to_string(), pod.key.name.to_string())])
            {
                match view.get(&Key::of::<Pod>(&name.0, &name.1)).map(|o| o.typed::<Pod>()) {
                    Some(Ok(pod)) => self.cluster.set_pod(&pod),
                    _ => self.cluster.remove_pod(name),
                }
            }
            return Err(conflict);
        }
        let message = format!("Preempted by pod {} on node {}", pod.meta.uid, room.node);
        for victim in &asked {
            self.events.record(cx, victim, Severity::Normal, "Preempted", &message);
        }
        if gone {
            room.victims.iter().for_each(|name| self.cluster.remove_pod(name));
        } else {
            self.events.record(cx, pod, Severity::Warning, "FailedScheduling", why);
        }
        Ok(gone)
    }

    /// Writes down why a pod waits, when that is news.
    fn tell(&mut self, cx: &mut Context<'_>, name: &PodName, why: &str) -> Next {
        let Some(waiter) = self.waiting.pods.get_mut(name) else { return Next::Idle };
        let Ok(pod) = waiter.object.typed::<Pod>() else { return Next::Idle };
        let known = pod.status.as_ref().and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == "PodScheduled"));
        let nominated = pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref()).is_some_and(|n| !n.is_empty());
        let forsaken = nominated && !self.cluster.is_promised(name);
        if !forsaken && known.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(why)) {
            return Next::Idle;
        }
        if let Some(told) = waiter.told.filter(|told| !forsaken && *told + RETELL > cx.now && known.is_some()) {
            return Next::At(told + RETELL);
        }
        let condition = unschedulable(why, &waiter.object, cx.now);
        let draft = write::edited(&waiter.object, |value| {
            set_condition(value, &condition);
            if forsaken {
                nominate(value, None);
            }
        });
        let mut txn = Txn::new();
        txn.update(draft, waiter.object.revision);
        waiter.told = Some(cx.now);
        let object = waiter.object.clone();
        match cx.store.commit(txn) {
            Ok(_) => self.events.record(cx, &object, Severity::Warning, "FailedScheduling", why),
            // Whoever changed it wakes us with the change.
            Err(conflict) => tracing::debug!(%conflict, "a pod changed before it was told why it waits"),
        }
        Next::Idle
    }
}

/// What the budgets for disruption allow at this moment.
fn budgets_of(store: &Store) -> Vec<Budget> {
    let view = store.view();
    let typed = view.list(kind_of::<PodDisruptionBudget>()).filter_map(|o| o.typed::<PodDisruptionBudget>().ok());
    typed
        .map(|budget| {
            let namespace = budget.metadata.namespace.clone().unwrap_or_default();
            let pods: Vec<Arc<Pod>> = view.list_in(kind_of::<Pod>(), &namespace).filter_map(|o| o.typed::<Pod>().ok()).collect();
            Budget::of(&budget, pods.iter().map(|pod| &**pod))
        })
        .collect()
}

/// The condition that says why a pod waits, since when it does.
fn unschedulable(why: &str, pod: &Object, now: Timestamp) -> PodCondition {
    let since = pod.typed::<Pod>().ok().and_then(|pod| {
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        let known = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
        known.last_transition_time.clone()
    });
    PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(why.to_owned()),
        last_transition_time: Some(since.unwrap_or_else(|| stamp(now))),
        ..PodCondition::default()
    }
}

/// Says on which node a place is kept free for a pod.
fn nominate(value: &mut Value, node: Option<&str>) {
    match node {
        Some(node) => value["status"]["nominatedNodeName"] = json!(node),
        None => drop(value.get_mut("status").and_then(Value::as_object_mut).and_then(|s| s.remove("nominatedNodeName"))),
    }
}

/// A pod that is asked to go, with the condition that says whose decision that was, and why.
pub(super) fn disrupted(pod: &Draft, reason: &str, message: &str, now: Timestamp) -> Draft {
    let mut value = pod.value();
    let condition = PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(stamp(now)),
        ..PodCondition::default()
    };
    set_condition(&mut value, &condition);
    Draft::new(pod.key.kind, value)
}

/// The pod with its node, and with the condition that says so.
fn bound(pod: &Object, node: &str, now: Timestamp) -> crate::object::Draft {
    write::edited(pod, |value| {
        value["spec"]["nodeName"] = json!(node);
        let condition = PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(stamp(now)),
            ..PodCondition::default()
        };
        set_condition(value, &condition);
        nominate(value, None);
    })
}

/// Replaces the condition of the same type in an object's status, or adds it.
pub(super) fn set_condition(value: &mut Value, condition: &PodCondition) {
    let written = serde_json::to_value(condition).expect("a condition can be written");
    if !value["status"].is_object() {
        value["status"] = json!({});
    }
    match value["status"]["conditions"].as_array_mut() {
        Some(conditions) => {
            conditions.retain(|c| c["type"] != condition.type_.as_str());
            conditions.push(written);
        }
        None => value["status"]["conditions"] = json!([written]),
    }
}
