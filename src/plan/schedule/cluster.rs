//! What the scheduler remembers between two looks: nodes, what is taken on them, and how many pods of which kind are where.
//!
//! It is kept up to date change by change, so that placing a pod costs what changed and not what exists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Taint};

use super::demand::{Demand, HostPort, Labels, Resources, Term, host_ports, owner_of, requests};
use super::tally::{Opinion, Tallies, add};
use crate::object::alike::{self, Alike};

/// A pod by namespace and name.
pub type PodName = (String, String);

/// A pod that has a node.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    host: usize,
    pub(super) common: Arc<Common>,
    /// When it was created.
    pub(super) since: Option<Timestamp>,
    pub(super) leaving: bool,
}

/// What matters of a pod to where others go, and is the same for all pods of an owner: kept once for all of them.
#[derive(Debug, PartialEq)]
pub struct Common {
    pub(super) namespace: String,
    pub(super) labels: Labels,
    owner: String,
    requests: Resources,
    ports: Vec<HostPort>,
    pub(super) opinions: Vec<Opinion>,
    pub(super) priority: i32,
}

impl Common {
    /// Of a pod.
    pub fn of(pod: &Pod) -> Common {
        let nothing = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&nothing);
        Common {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            owner: owner_of(pod).to_owned(),
            requests: requests(spec),
            ports: host_ports(spec),
            opinions: if spec.affinity.is_some() { Opinion::of(&Demand::of(pod)) } else { Vec::new() },
            priority: spec.priority.unwrap_or(0),
        }
    }

    /// The uid of its controller; empty without one.
    pub fn owner(&self) -> &str {
        &self.owner
    }
}

/// A place that is kept free for a pod: others have to go for it first (`nominatedNodeName`).
#[derive(Clone, Debug)]
pub(super) struct Promise {
    pod: PodName,
    pub(super) priority: i32,
    pub(super) requests: Resources,
    pub(super) ports: Vec<HostPort>,
}

/// What matters of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Facts {
    pub(super) labels: Labels,
    pub(super) taints: Vec<Taint>,
    pub(super) unschedulable: bool,
    pub(super) allocatable: Resources,
}

impl Facts {
    fn of(node: &Node) -> Facts {
        let (spec, status) = (node.spec.as_ref(), node.status.as_ref());
        let allocatable = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        let mut taints: Vec<Taint> = spec.and_then(|s| s.taints.clone()).unwrap_or_default();
        let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        // The taint follows the condition a moment later; nothing should be placed in between.
        if !ready && !taints.iter().any(|t| t.key == super::NOT_READY || t.key == super::UNREACHABLE) {
            taints.push(Taint { key: super::NOT_READY.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() });
        }
        Facts {
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints,
            unschedulable: spec.and_then(|s| s.unschedulable) == Some(true) || node.metadata.deletion_timestamp.is_some(),
            allocatable: allocatable.map_or_else(Resources::default, Resources::of),
        }
    }
}

/// A node and what is taken on it.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) name: Arc<str>,
    /// Whether there is such a node. Pods may be bound to one that has gone.
    pub(super) known: bool,
    pub(super) facts: Facts,
    pub(super) used: Resources,
    pub(super) pods: i64,
    pub(super) ports: Vec<HostPort>,
    /// How many pods of each owner are here.
    pub(super) owners: BTreeMap<String, i64>,
    /// Who is here.
    pub(super) here: Vec<Arc<PodName>>,
    pub(super) promised: Vec<Promise>,
}

impl Host {
    fn new(name: &str) -> Host {
        Host {
            name: name.into(),
            known: false,
            facts: Facts::default(),
            used: Resources::default(),
            pods: 0,
            ports: Vec::new(),
            owners: BTreeMap::new(),
            here: Vec::new(),
            promised: Vec::new(),
        }
    }
}

/// The nodes, and the pods on them.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Nodes by number. A number is used again when its node has gone, with all pods.
    pub(super) hosts: Vec<Host>,
    ids: BTreeMap<Arc<str>, usize>,
    free: Vec<usize>,
    known: usize,
    placed: BTreeMap<Arc<PodName>, Placed>,
    common: Alike<Common>,
    /// For whom a place is kept free, and where.
    promises: BTreeMap<PodName, usize>,
    /// How many pods with a place have which priority.
    priorities: BTreeMap<i32, i64>,
    /// Labels of namespaces.
    namespaces: BTreeMap<String, Labels>,
    pub(super) tallies: Tallies,
    /// Which nodes changed, in order; classes remember how far they have read.
    log: Vec<usize>,
    /// How many entries were dropped from the front of the log.
    dropped: usize,
    /// Grows when counts changed in domains of nodes that are not in the log: a node with pods moved to others.
    pub(super) epoch: u64,
    /// The node that was chosen last, for taking turns.
    pub(super) last: Arc<str>,
    /// How often a node was compared with what a class of pods asks for.
    pub evaluations: u64,
}

static NO_LABELS: Labels = Labels::new();

impl Cluster {
    /// Without nodes.
    pub fn new() -> Self {
        Cluster::default()
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.known
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.known == 0
    }

    /// Whether there is a node of this name.
    pub(super) fn host(&self, name: &str) -> Option<&Host> {
        self.ids.get(name).map(|id| &self.hosts[*id])
    }

    pub(super) fn id(&self, name: &str) -> Option<usize> {
        self.ids.get(name).copied()
    }

    fn enter(&mut self, name: &str) -> usize {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let host = Host::new(name);
        let id = match self.free.pop() {
            Some(id) => {
                self.hosts[id] = host;
                id
            }
            None => {
                self.hosts.push(host);
                self.hosts.len() - 1
            }
        };
        self.ids.insert(self.hosts[id].name.clone(), id);
        id
    }

    /// Forgets a node that is none, when nobody is there any more.
    fn leave(&mut self, id: usize) {
        let host = &self.hosts[id];
        if !host.known && host.pods == 0 && self.ids.remove(&host.name).is_some() {
            self.free.push(id);
        }
    }

    /// Learns of a node, or of a change to it.
    pub fn set_node(&mut self, node: &Node) {
        if self.knows(node) {
            return; // a heartbeat: the common case
        }
        let id = self.enter(node.metadata.name.as_deref().unwrap_or_default());
        if !std::mem::replace(&mut self.hosts[id].known, true) {
            self.known += 1;
        }
        self.refit(id, Facts::of(node));
    }

    /// Whether a node is as it was when it was last seen here, as far as placing pods goes.
    pub fn knows(&self, node: &Node) -> bool {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        self.host(name).is_some_and(|host| host.known && host.facts == Facts::of(node))
    }

    /// Forgets a node. Pods bound to it stay known until they are removed.
    pub fn remove_node(&mut self, name: &str) {
        let Some(id) = self.ids.get(name).copied() else { return };
        if std::mem::replace(&mut self.hosts[id].known, false) {
            self.known -= 1;
        }
        for promise in std::mem::take(&mut self.hosts[id].promised) {
            self.promises.remove(&promise.pod);
        }
        self.refit(id, Facts::default());
        self.leave(id);
    }

    /// Gives a node other facts. Its pods count for other domains then.
    fn refit(&mut self, id: usize, facts: Facts) {
        let old = &self.hosts[id].facts;
        let barred = old.taints != facts.taints || old.unschedulable != facts.unschedulable;
        let moves = old.labels != facts.labels || (barred && self.tallies.by_taint());
        let moved = moves && self.hosts[id].pods > 0;
        if moved {
            self.recount(id, -1);
        }
        self.hosts[id].facts = facts;
        if moved {
            self.recount(id, 1);
            self.epoch += 1;
        }
        self.changed(id);
    }

    fn recount(&mut self, id: usize, sign: i64) {
        let host = &self.hosts[id];
        for pod in host.here.iter().filter_map(|name| self.placed.get(name)) {
            let labels = self.namespaces.get(&pod.common.namespace).unwrap_or(&NO_LABELS);
            self.tallies.note(pod, labels, &host.name, &host.facts, sign);
        }
    }

    /// Learns the labels of a namespace, by which rules may choose it.
    pub fn set_namespace(&mut self, name: &str, labels: Option<&Labels>) {
        if self.namespace(name) == labels.unwrap_or(&NO_LABELS) {
            return;
        }
        let matters = self.tallies.by_label();
        if matters {
            self.recount_namespace(name, -1);
        }
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels.clone()),
            None => self.namespaces.remove(name),
        };
        if matters {
            self.recount_namespace(name, 1);
            self.epoch += 1;
        }
    }

    fn recount_namespace(&mut self, namespace: &str, sign: i64) {
        let labels = self.namespaces.get(namespace).unwrap_or(&NO_LABELS);
        let from = (namespace.to_owned(), String::new());
        for (_, pod) in self.placed.range::<PodName, _>(from..).take_while(|(name, _)| name.0 == namespace) {
            let host = &self.hosts[pod.host];
            self.tallies.note(pod, labels, &host.name, &host.facts, sign);
        }
    }

    /// The labels of a namespace.
    pub(super) fn namespace(&self, name: &str) -> &Labels {
        self.namespaces.get(name).unwrap_or(&NO_LABELS)
    }

    /// Learns of a pod, or of a change to it. A pod without a node, or one that has ended, takes no place; one that waits for others to
    /// go has a promise.
    pub fn set_pod(&mut self, pod: &Pod) {
        let key = name_of(pod);
        let Some(spec) = &pod.spec else { return self.remove_pod(&key) };
        match spec.node_name.as_deref().filter(|n| !n.is_empty()) {
            Some(node) if !crate::plan::rollout::ended(pod) => self.bind(pod, node),
            None if crate::plan::rollout::active(pod) => {
                self.free_place(&key);
                let promised = pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
                self.promise(pod, promised.filter(|n| !n.is_empty()));
            }
            _ => self.remove_pod(&key),
        }
    }

    /// Learns of a pod that has a node and is not on its way out, from somebody who has not read all of it.
    pub fn settle(&mut self, key: PodName, node: &str, common: Arc<Common>, since: Option<Timestamp>) {
        self.remove_pod(&key);
        let host = self.enter(node);
        self.put(Arc::new(key), Placed { host, common, since, leaving: false });
        self.changed(host);
    }

    /// The uid of the controller of a pod that has a place.
    pub fn owner(&self, key: &PodName) -> Option<&str> {
        self.placed.get(key).map(|placed| placed.common.owner())
    }

    /// Whether a pod is known to have a place on this node, with these labels and this owner. What else it takes there does not change as
    /// long as it lives.
    pub fn has(&self, key: &PodName, node: &str, labels: &Labels, owner: &str, leaving: bool) -> bool {
        let known = self.placed.get(key);
        known.is_some_and(|p| {
            let common = &p.common;
            *self.hosts[p.host].name == *node && common.labels == *labels && common.owner == owner && p.leaving == leaving
        })
    }

    /// Takes a place on a node for a pod.
    pub(super) fn bind(&mut self, pod: &Pod, node: &str) {
        let key = name_of(pod);
        self.withdraw(&key);
        let host = self.enter(node);
        let leaving = pod.metadata.deletion_timestamp.is_some();
        let common = Common::of(pod);
        // The rest differs rarely where these do not.
        let hash = alike::hash(&(&common.namespace, &common.owner, &common.labels));
        let common = self.common.share(hash, common);
        if let Some(old) = self.placed.get(&key) {
            if (old.host, &old.common, old.leaving) == (host, &common, leaving) {
                return; // a status: the common case
            }
            self.free_place(&key);
        }
        let host = self.enter(node);
        let since = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
        self.put(Arc::new(key), Placed { host, common, since, leaving });
        self.changed(host);
    }

    /// Frees what a pod took or was promised.
    pub fn remove_pod(&mut self, key: &PodName) {
        self.withdraw(key);
        self.free_place(key);
    }

    fn free_place(&mut self, key: &PodName) {
        if let Some((_, placed)) = self.lift(key) {
            self.changed(placed.host);
            self.leave(placed.host);
        }
    }

    /// Takes a pod away for a moment, of which nobody hears.
    pub(super) fn lift(&mut self, key: &PodName) -> Option<(Arc<PodName>, Placed)> {
        let (key, placed) = self.placed.remove_entry(key)?;
        self.take(&key, &placed, -1);
        Some((key, placed))
    }

    /// Puts a pod into its place, of which nobody hears either.
    pub(super) fn put(&mut self, key: Arc<PodName>, placed: Placed) {
        self.take(&key, &placed, 1);
        self.placed.insert(key, placed);
    }

    /// A pod that has a place.
    pub(super) fn placed(&self, key: &PodName) -> Option<&Placed> {
        self.placed.get(key)
    }

    /// A pod is asked to go.
    pub fn dismiss(&mut self, key: &PodName) {
        if let Some((key, mut placed)) = self.lift(key) {
            placed.leaving = true;
            let host = placed.host;
            self.put(key, placed);
            self.changed(host);
        }
    }

    fn take(&mut self, key: &Arc<PodName>, pod: &Placed, sign: i64) {
        let host = &mut self.hosts[pod.host];
        host.used.add(&pod.common.requests, sign);
        host.pods += sign;
        if sign > 0 {
            host.ports.extend(pod.common.ports.iter().cloned());
            host.here.push(key.clone());
        } else {
            for port in &pod.common.ports {
                if let Some(at) = host.ports.iter().position(|p| p == port) {
                    host.ports.swap_remove(at);
                }
            }
            if let Some(at) = host.here.iter().position(|name| name == key) {
                host.here.swap_remove(at);
            }
        }
        if !pod.common.owner.is_empty() {
            add(&mut host.owners, &pod.common.owner, sign);
        }
        let labels = self.namespaces.get(&pod.common.namespace).unwrap_or(&NO_LABELS);
        self.tallies.note(pod, labels, &host.name, &host.facts, sign);
        let priorities = self.priorities.entry(pod.common.priority).or_default();
        *priorities += sign;
        if *priorities == 0 {
            self.priorities.remove(&pod.common.priority);
        }
    }

    /// Whether any pod that has a place is less important.
    pub(super) fn any_below(&self, priority: i32) -> bool {
        self.priorities.first_key_value().is_some_and(|(lowest, _)| *lowest < priority)
    }

    /// Keeps a place free for a pod on a node, or no longer.
    pub fn promise(&mut self, pod: &Pod, node: Option<&str>) {
        let key = name_of(pod);
        let wanted = node.and_then(|n| self.id(n)).filter(|id| self.hosts[*id].known);
        if self.promises.get(&key).copied() == wanted {
            return;
        }
        self.withdraw(&key);
        if let (Some(id), Some(spec)) = (wanted, &pod.spec) {
            let priority = spec.priority.unwrap_or(0);
            let promise = Promise { pod: key, priority, requests: requests(spec), ports: host_ports(spec) };
            self.keep(id, promise);
        }
    }

    pub(super) fn keep(&mut self, id: usize, promise: Promise) {
        self.promises.insert(promise.pod.clone(), id);
        self.hosts[id].promised.push(promise);
        self.changed(id);
    }

    /// Takes a promise back.
    pub(super) fn withdraw(&mut self, key: &PodName) -> Option<(usize, Promise)> {
        let id = self.promises.remove(key)?;
        let promised = &mut self.hosts[id].promised;
        let at = promised.iter().position(|p| p.pod == *key)?;
        let promise = promised.swap_remove(at);
        self.changed(id);
        Some((id, promise))
    }

    /// The pods of lower priority that have a promise on a node.
    pub(super) fn promised_below(&self, id: usize, priority: i32) -> Vec<PodName> {
        self.hosts[id].promised.iter().filter(|p| p.priority < priority).map(|p| p.pod.clone()).collect()
    }

    /// Whether a pod has a promise, and pods that it waits for are still on their way out.
    pub fn expects(&self, key: &PodName) -> bool {
        let Some(id) = self.promises.get(key) else { return false };
        let host = &self.hosts[*id];
        let priority = host.promised.iter().find(|p| p.pod == *key).map_or(0, |p| p.priority);
        host.here.iter().filter_map(|name| self.placed.get(name)).any(|p| p.leaving && p.common.priority < priority)
    }

    /// Whether a pod has a promise.
    pub fn is_promised(&self, key: &PodName) -> bool {
        self.promises.contains_key(key)
    }

    /// Begins to count the pods that a term is about, or shares what is counted already.
    pub(super) fn count(&mut self, term: &Term) -> usize {
        if let Some(slot) = self.tallies.share(term) {
            return slot;
        }
        let slot = self.tallies.begin(term);
        for pod in self.placed.values() {
            let host = &self.hosts[pod.host];
            let labels = self.namespaces.get(&pod.common.namespace).unwrap_or(&NO_LABELS);
            self.tallies.note_in(slot, pod, labels, &host.name, &host.facts, 1);
        }
        slot
    }

    fn changed(&mut self, id: usize) {
        self.log.push(id);
        // A class that has read less than this far looks at every node again, which is not more work than reading on would be.
        let keep = 4 * self.hosts.len() + 64;
        if self.log.len() > 2 * keep {
            let drop = self.log.len() - keep;
            self.log.drain(..drop);
            self.dropped += drop;
        }
    }

    /// A number that grows with every change that matters for placing pods.
    pub fn position(&self) -> usize {
        self.dropped + self.log.len()
    }

    /// The nodes that changed since a position, or `None` when that is too long ago.
    pub(super) fn since(&self, position: usize) -> Option<BTreeSet<usize>> {
        let from = position.checked_sub(self.dropped)?;
        Some(self.log[from.min(self.log.len())..].iter().copied().collect())
    }
}

/// The name of a pod.
pub fn name_of(pod: &Pod) -> PodName {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}
