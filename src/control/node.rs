//! Watches over hosts: silent ones are marked lost and tainted, and their pods given up, slowly, and not at all when most are silent.
//!
//! What silence means is decided in `plan::node`. Here is what has to be remembered for it: when this process last heard of each host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::event::{Recorder, Severity};
use super::keyed::{Cursor, News};
use super::schedule::{disrupted, set_condition};
use super::{Context, Loop, Next, write};
use crate::object::admit::{self, DeleteOptions, Deletion};
use crate::object::{Draft, Key, Object, kind_of};
use crate::plan::node::{self as plan, Options, Standing};
use crate::plan::rollout::{self, ended, ready, ready_since, stamp};
use crate::plan::schedule::{NOT_READY, UNREACHABLE};
use crate::store::{Conflict, Txn, View};

/// Where agents renew the Lease that has their node's name.
pub const LEASES: &str = "kube-node-lease";

/// The loop for nodes.
pub(super) struct Nodes {
    cursor: Cursor,
    options: Options,
    hosts: BTreeMap<String, Host>,
    /// Hosts to look at now.
    due: BTreeSet<String>,
    /// When a host was last given up.
    gave_up: Option<Timestamp>,
    /// Whether too many are bad to give any up.
    stopped: bool,
    /// Whether that was said. Hosts that only just join are not ready either, and nobody has to be told.
    told: bool,
    last_step: Option<Timestamp>,
    events: Recorder,
}

/// What is remembered of a host.
struct Host {
    heard: Timestamp,
    beat: Option<Time>,
    standing: Standing,
    /// Whether this process has seen it ready.
    was_ready: bool,
    /// Since when this process knows of each `NoExecute` taint.
    since: BTreeMap<String, Timestamp>,
    /// When the next of its pods is given up.
    next: Option<Timestamp>,
}

impl Nodes {
    pub(super) fn new(options: Options) -> Self {
        Nodes {
            cursor: Cursor::default(),
            options,
            hosts: BTreeMap::new(),
            due: BTreeSet::new(),
            gave_up: None,
            stopped: false,
            told: false,
            last_step: None,
            events: Recorder::new("node-controller"),
        }
    }

    fn notice(&mut self, key: &Key, new: Option<&Arc<Object>>, now: Timestamp) {
        if key.kind == kind_of::<Lease>() && &*key.namespace == LEASES {
            if let Some(host) = self.hosts.get_mut(&*key.name).filter(|_| new.is_some()) {
                host.heard = now;
                if host.standing == Standing::Lost {
                    self.due.insert(key.name.to_string());
                }
            }
        } else if key.kind == kind_of::<Node>() {
            let Some(node) = new.and_then(|o| o.typed::<Node>().ok()) else {
                self.hosts.remove(&*key.name);
                return;
            };
            let beat = plan::ready_condition(&node).and_then(|c| c.last_heartbeat_time.clone());
            let host = self.hosts.entry(key.name.to_string()).or_insert_with(|| Host {
                heard: now,
                beat: beat.clone(),
                standing: Standing::Ready,
                was_ready: false,
                since: BTreeMap::new(),
                next: None,
            });
            if host.beat != beat {
                host.heard = now;
                host.beat = beat;
            }
            self.due.insert(key.name.to_string());
        } else if key.kind == kind_of::<Pod>() {
            let node = new.map_or("", |pod| pod.field("spec.nodeName"));
            if self.hosts.get(node).is_some_and(|host| !host.since.is_empty()) {
                self.due.insert(node.to_owned());
            }
        }
    }
}

impl Loop for Nodes {
    fn name(&self) -> &'static str {
        "node"
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<Next, Conflict> {
        match self.cursor.news(cx.store) {
            News::Everything(view) => {
                self.hosts.retain(|name, _| view.get(&Key::of::<Node>("", name)).is_some());
                for object in view.list(kind_of::<Node>()) {
                    self.notice(&object.key, Some(object), cx.now);
                }
            }
            News::Changes(changes) => {
                for change in changes {
                    self.notice(&change.key, change.new.as_ref(), cx.now);
                }
            }
        }
        self.forgive_own_absence(cx.now);
        let done = self.look(cx);
        self.events.flush(cx.store);
        done
    }
}

impl Nodes {
    /// How often at least this loop wants to be called.
    fn tick(&self) -> SignedDuration {
        self.options.grace / 4
    }

    /// When this process was stopped for a while, or the clock jumped, nobody can have been heard: every timer starts anew.
    fn forgive_own_absence(&mut self, now: Timestamp) {
        let last = self.last_step.replace(now).unwrap_or(now);
        let gap = now.duration_since(last);
        if gap > self.options.grace / 2 || gap.is_negative() {
            tracing::info!(seconds = gap.as_secs(), "was not looking for a while: hosts' timers start anew");
            for host in self.hosts.values_mut() {
                host.heard = now;
                host.since.values_mut().for_each(|since| *since = now);
            }
            if self.gave_up.is_some_and(|t| t > now) {
                self.gave_up = Some(now);
            }
        }
    }

    fn look(&mut self, cx: &mut Context<'_>) -> Result<Next, Conflict> {
        let grace = self.options.grace;
        for (name, host) in &self.hosts {
            let silent = host.standing != Standing::Lost && cx.now.duration_since(host.heard) > grace;
            if silent || host.next.is_some_and(|at| at <= cx.now) {
                self.due.insert(name.clone());
            }
        }
        let due = std::mem::take(&mut self.due);
        let done = self.work_through(cx, &due);
        let pace = match done {
            Ok(next) => next,
            Err(conflict) => {
                self.due.extend(due);
                return Err(conflict);
            }
        };
        let silent_at = self.hosts.values().filter(|h| h.standing != Standing::Lost).map(|h| h.heard + grace);
        let silent_at = silent_at.min().map(|at| at + SignedDuration::from_millis(1));
        let pods_at = self.hosts.values().filter_map(|h| h.next).min();
        let tick = (!self.hosts.is_empty()).then(|| cx.now + self.tick());
        Ok(Next::at([silent_at, pods_at, pace, tick].into_iter().flatten().min().map(|at| at.max(cx.now))))
    }

    /// First what is thought of each host, then whether any of them may be given up, then their pods.
    fn work_through(&mut self, cx: &mut Context<'_>, due: &BTreeSet<String>) -> Result<Option<Timestamp>, Conflict> {
        let view = cx.store.view();
        for name in due {
            self.judge(cx, &view, name)?;
        }
        let next = self.give_up_hosts(cx)?;
        let view = cx.store.view();
        for name in due {
            self.give_up_pods(cx, &view, name)?;
        }
        Ok(next)
    }

    /// Brings one node's conditions and taints in line with what is thought of it.
    fn judge(&mut self, cx: &mut Context<'_>, view: &View, name: &str) -> Result<(), Conflict> {
        let Some(object) = view.get(&Key::of::<Node>("", name)) else { return Ok(()) };
        let Some(host) = self.hosts.get_mut(name) else { return Ok(()) };
        let Ok(node) = object.typed::<Node>() else { return Ok(()) };
        let standing = plan::standing(&node, host.heard, cx.now, &self.options);
        let silent = cx.now.duration_since(host.heard) > self.options.grace;
        if standing != host.standing && standing != Standing::Ready {
            let message = format!("Node {name} status is now: NodeNotReady");
            self.events.record(cx, object, Severity::Normal, "NodeNotReady", &message);
        }
        host.standing = standing;
        let heard = host.heard;
        host.was_ready |= standing == Standing::Ready;
        let conditions = if silent { plan::lost_conditions(&node, cx.now) } else { None };
        let taints = plan::taints(&node, standing, false, cx.now);
        if conditions.is_some() || taints.is_some() {
            let draft = changed(object, conditions.as_deref(), taints.as_deref());
            let mut txn = Txn::new();
            txn.update(draft, object.revision);
            cx.store.commit(txn)?;
        }
        if silent {
            mark_pods_not_ready(cx, view, name, heard)?;
        }
        Ok(())
    }

    /// Taints one more bad host so that its pods leave it, if it is time and not too many are bad. Says when the next one may be.
    fn give_up_hosts(&mut self, cx: &mut Context<'_>) -> Result<Option<Timestamp>, Conflict> {
        let view = cx.store.view();
        let bad: Vec<String> = self.hosts.iter().filter(|(_, h)| h.standing != Standing::Ready).map(|(n, _)| n.clone()).collect();
        let may = plan::may_give_up(self.hosts.len(), bad.len(), &self.options);
        // A host that has pods was ready once, perhaps before this process began.
        let has_pods = |name: &str| view.by_field(kind_of::<Pod>(), "spec.nodeName", name).next().is_some();
        let lost: Vec<&String> = bad.iter().filter(|name| self.hosts[*name].was_ready || has_pods(name)).collect();
        if !may && !self.told && !lost.is_empty() {
            tracing::warn!(
                bad = bad.len(),
                of = self.hosts.len(),
                "too many hosts are not ready: their pods stay where they are"
            );
            let message = format!(
                "{} of {} hosts are not ready: their pods stay bound to them, for the fault may be on this side",
                bad.len(),
                self.hosts.len()
            );
            for object in lost.iter().filter_map(|name| view.get(&Key::of::<Node>("", name))) {
                self.events.record(cx, object, Severity::Warning, "EvictionsStopped", &message);
            }
            self.told = true;
        }
        let resumed = self.stopped && may;
        self.stopped = !may && !bad.is_empty();
        self.told &= self.stopped;
        if self.stopped {
            return Ok(None);
        }
        if resumed {
            // While nothing could be given up, no time was lost either.
            for (name, host) in self.hosts.iter_mut().filter(|(_, h)| !h.since.is_empty()) {
                host.since.values_mut().for_each(|since| *since = cx.now);
                self.due.insert(name.clone());
            }
        }
        let mut waiting: Vec<&str> = Vec::new();
        for name in &bad {
            let Some(node) = view.get(&Key::of::<Node>("", name)).and_then(|o| o.typed::<Node>().ok()) else { continue };
            if plan::taints(&node, self.hosts[name].standing, true, cx.now).is_some() {
                waiting.push(name);
            }
        }
        let (chosen, next) = plan::pace(&waiting, self.gave_up, cx.now, &self.options);
        if let Some(name) = chosen
            && let Some(object) = view.get(&Key::of::<Node>("", name))
            && let Ok(node) = object.typed::<Node>()
        {
            let taints = plan::taints(&node, self.hosts[name].standing, true, cx.now);
            let mut txn = Txn::new();
            txn.update(changed(object, None, taints.as_deref()), object.revision);
            cx.store.commit(txn)?;
            self.gave_up = Some(cx.now);
        }
        Ok(next.or(if resumed { Some(cx.now) } else { None }))
    }

    /// Deletes the pods of a tainted host whose time has come.
    fn give_up_pods(&mut self, cx: &mut Context<'_>, view: &View, name: &str) -> Result<(), Conflict> {
        let Some(host) = self.hosts.get_mut(name) else { return Ok(()) };
        let node = view.get(&Key::of::<Node>("", name)).and_then(|o| o.typed::<Node>().ok());
        let taints = node.as_ref().and_then(|n| n.spec.as_ref()?.taints.as_deref()).unwrap_or_default();
        let acting: Vec<Taint> = taints.iter().filter(|t| t.effect == "NoExecute").cloned().collect();
        host.since.retain(|key, _| acting.iter().any(|t| t.key == *key));
        for taint in &acting {
            host.since.entry(taint.key.clone()).or_insert(cx.now);
        }
        host.next = None;
        // Of these taints it is ourselves who decide when they act.
        let acting: Vec<Taint> =
            acting.into_iter().filter(|t| !(self.stopped && (t.key == UNREACHABLE || t.key == NOT_READY))).collect();
        if acting.is_empty() {
            return Ok(());
        }
        for object in view.by_field(kind_of::<Pod>(), "spec.nodeName", name) {
            if !object.active() {
                continue;
            }
            // Not kept: when hundreds of hosts are lost, these are very many, and their time has come soon.
            let Ok(pod) = object.glance::<Pod>() else { continue };
            let since = |t: &Taint| host.since.get(&t.key).copied().unwrap_or(cx.now);
            let Some(at) = plan::give_up_at(&pod, &acting, since, &self.options) else { continue };
            if at > cx.now {
                host.next = Some(host.next.map_or(at, |next| next.min(at)));
                continue;
            }
            let mut txn = Txn::new();
            if give_up(&mut txn, object, cx.now) {
                cx.store.commit(txn)?;
                let message = format!("Marking for deletion Pod {}/{}", object.key.namespace, object.key.name);
                self.events.record(cx, object, Severity::Normal, "TaintManagerEviction", &message);
            }
        }
        Ok(())
    }
}

/// The node with other conditions or taints.
fn changed(old: &Object, conditions: Option<&[k8s_openapi::api::core::v1::NodeCondition]>, taints: Option<&[Taint]>) -> Draft {
    let change = |value: &mut serde_json::Value| {
        if let Some(conditions) = conditions {
            value["status"]["conditions"] = serde_json::to_value(conditions).expect("conditions can be written");
        }
        match taints {
            Some([]) => {
                value["spec"].as_object_mut().map(|spec| spec.remove("taints"));
            }
            Some(taints) => value["spec"]["taints"] = serde_json::to_value(taints).expect("taints can be written"),
            None => {}
        }
    };
    if taints.is_some() { write::respecified(old, change) } else { write::edited(old, change) }
}

/// Pods on a silent host serve nobody, as far as anybody can tell. Their agent says otherwise when it is back; what it has said since it
/// was last `heard` of is not taken back, or the two would take turns until its next sign of life arrives.
fn mark_pods_not_ready(cx: &mut Context<'_>, view: &View, node: &str, heard: Timestamp) -> Result<(), Conflict> {
    let mut txn = Txn::new();
    for object in view.by_field(kind_of::<Pod>(), "spec.nodeName", node) {
        let Ok(pod) = object.part::<Pod>(&rollout::READ) else { continue };
        if ended(&pod) || !ready(&pod) || ready_since(&pod).is_some_and(|since| since > heard) {
            continue;
        }
        let condition = PodCondition {
            type_: "Ready".to_owned(),
            status: "False".to_owned(),
            reason: Some("NodeLost".to_owned()),
            message: Some(format!("the agent of node {node} is not heard of")),
            last_transition_time: Some(stamp(cx.now)),
            ..PodCondition::default()
        };
        txn.update(write::edited(object, |value| set_condition(value, &condition)), object.revision);
    }
    if !txn.is_empty() {
        cx.store.commit(txn)?;
    }
    Ok(())
}

/// Asks for a pod to be deleted, and says in its status whose decision that was.
fn give_up(txn: &mut Txn, pod: &Object, now: Timestamp) -> bool {
    let options = DeleteOptions { uid: Some(pod.meta.uid.clone()), revision: Some(pod.revision), ..DeleteOptions::default() };
    match admit::delete(pod, &options, now) {
        Ok(Deletion::Remove) => txn.delete(pod.key.clone(), Some(pod.revision)),
        Ok(Deletion::Mark(draft)) => {
            let why = "Taint manager: deleting due to NoExecute taint";
            txn.update(disrupted(&draft, "DeletionByTaintManager", why, now), pod.revision)
        }
        Ok(Deletion::Unchanged) | Err(_) => return false,
    };
    true
}
