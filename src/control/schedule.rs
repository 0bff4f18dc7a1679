//! Carries `plan::schedule` to the store: bindings, and for pods that must wait the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use serde_json::{Value, json};

use super::event::{Recorder, Severity};
use super::keyed::{Cursor, News};
use super::{Context, Loop, Next, write};
use crate::mutant::{self, Mutant};
use crate::object::{Key, Object, kind_of};
use crate::plan::rollout::{active, ready, stamp};
use crate::plan::schedule::{self, Cluster, Decision, PodName, Scheduler, Strategy};
use crate::store::{Conflict, Txn};

/// How many bindings share a transaction. One conflict costs the whole batch a second look, one sync serves all of it.
const BATCH: usize = 128;
/// How many pods one step looks at, so that other loops get their turn.
const BUDGET: usize = 1024;
/// A pod that still waits, but for another reason, is told so at most this often: reasons count nodes, and nodes come and go.
const RETELL: SignedDuration = SignedDuration::from_secs(10);

/// The loop that gives pods their nodes.
pub(super) struct Schedule {
    cursor: Cursor,
    cluster: Cluster,
    scheduler: Scheduler,
    waiting: Waiting,
    /// Where the cluster was when everybody who waits had been tried.
    tried: Option<usize>,
    /// After a conflict bindings go one by one, so that one pod in motion does not hold up the others.
    alone: bool,
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
            waiting: Waiting::default(),
            tried: None,
            alone: false,
            events: Recorder::new("default-scheduler"),
        }
    }

    fn notice(&mut self, key: &Key, new: Option<&Arc<Object>>) {
        if key.kind == kind_of::<Node>() {
            match new.map(|o| o.typed::<Node>()) {
                Some(Ok(node)) => self.cluster.set_node(&node),
                Some(Err(error)) => tracing::warn!(%key, why = %error.source, "cannot be read, so nothing is placed there"),
                None => self.cluster.remove_node(&key.name),
            }
        } else if key.kind == kind_of::<Pod>() {
            let name: PodName = (key.namespace.to_string(), key.name.to_string());
            let untried = self.waiting.fresh.contains(&name);
            let known = self.waiting.remove(&name);
            let Some(object) = new else { return self.cluster.remove_pod(&name) };
            let pod = match object.typed::<Pod>() {
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
                self.waiting = Waiting::default();
                self.tried = None;
                for object in view.list(kind_of::<Node>()).chain(view.list(kind_of::<Pod>())) {
                    self.notice(&object.key, Some(object));
                }
            }
            News::Changes(changes) => {
                for change in changes {
                    self.notice(&change.key, change.new.as_ref());
                }
            }
        }
        let done = self.place(cx);
        self.events.flush(cx.store);
        done
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
            let decision = match hopeless.get(&waiter.class) {
                Some(why) => Decision::Wait(why.clone()),
                None => self.scheduler.decide_in(&waiter.class, &mut self.cluster, &pod),
            };
            match decision {
                Decision::Place(node) => {
                    placed += 1;
                    batch.push(Binding { object: waiter.object.clone(), pod: name, node });
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
                    hopeless.insert(self.waiting.pods[&name].class.clone(), why);
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
        if placed > 0 && !self.waiting.pods.is_empty() {
            // A pod that was placed late in the line may be the neighbour that one before it waits for.
            again = Next::Again;
        }
        self.tried = (placed == 0).then(|| self.cluster.position());
        Ok(again)
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
            let same = now.and_then(|o| o.typed::<Node>().ok()).is_some_and(|node| self.cluster.knows(&node));
            stale |= !same;
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

    /// Writes down why a pod waits, when that is news.
    fn tell(&mut self, cx: &mut Context<'_>, name: &PodName, why: &str) -> Next {
        let Some(waiter) = self.waiting.pods.get_mut(name) else { return Next::Idle };
        let Ok(pod) = waiter.object.typed::<Pod>() else { return Next::Idle };
        let known = pod.status.as_ref().and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == "PodScheduled"));
        if known.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(why)) {
            return Next::Idle;
        }
        if let Some(told) = waiter.told.filter(|told| *told + RETELL > cx.now && known.is_some()) {
            return Next::At(told + RETELL);
        }
        let since = known.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone());
        let condition = PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "False".to_owned(),
            reason: Some("Unschedulable".to_owned()),
            message: Some(why.to_owned()),
            last_transition_time: Some(since.unwrap_or_else(|| stamp(cx.now))),
            ..PodCondition::default()
        };
        let draft = write::edited(&waiter.object, |value| set_condition(value, &condition));
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
