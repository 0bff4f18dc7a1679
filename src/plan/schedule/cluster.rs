//! What the scheduler remembers between two looks: nodes, what is taken on them, and how many pods of which kind are where.
//!
//! It is kept up to date change by change, so that placing a pod costs what changed and not what exists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Taint};

use super::demand::{Demand, HostPort, Resources, Term, host_ports, owner_of, requests};

/// A pod by namespace and name.
pub type PodName = (String, String);

/// A pod that has a node.
#[derive(Debug)]
struct Placed {
    node: Arc<str>,
    namespace: String,
    labels: BTreeMap<String, String>,
    owner: String,
    requests: Resources,
    ports: Vec<HostPort>,
    apart: Vec<Term>,
    leaving: bool,
}

/// What matters of a node.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Facts {
    pub(super) labels: BTreeMap<String, String>,
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
#[derive(Debug, Default)]
pub(super) struct Host {
    /// Whether there is such a node. Pods may be bound to one that has gone.
    pub(super) known: bool,
    pub(super) facts: Facts,
    pub(super) used: Resources,
    pub(super) pods: i64,
    pub(super) ports: Vec<HostPort>,
    /// How many pods of each owner are here.
    pub(super) owners: BTreeMap<String, i64>,
}

/// How many pods that a term is about are in each of its domains.
#[derive(Debug, Default)]
struct Count {
    term: Option<Term>,
    domains: BTreeMap<String, i64>,
}

/// The nodes, and the pods on them.
#[derive(Debug, Default)]
pub struct Cluster {
    pub(super) nodes: BTreeMap<Arc<str>, Host>,
    placed: BTreeMap<PodName, Placed>,
    /// Pods per domain for each term that somebody asked about.
    counts: BTreeMap<String, Count>,
    /// For each required anti-affinity term of a placed pod: the domains that hold such pods.
    keep_out: BTreeMap<String, Count>,
    /// Which nodes changed, in order; classes remember how far they have read.
    log: Vec<Arc<str>>,
    /// How many entries were dropped from the front of the log.
    dropped: usize,
    /// The node that was chosen last, for taking turns.
    pub(super) last: Arc<str>,
}

impl Cluster {
    /// Without nodes.
    pub fn new() -> Self {
        Cluster::default()
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes().count()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes().next().is_none()
    }

    /// The nodes that exist, by name.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&Arc<str>, &Host)> {
        self.nodes.iter().filter(|(_, host)| host.known)
    }

    /// Learns of a node, or of a change to it.
    pub fn set_node(&mut self, node: &Node) {
        if self.knows(node) {
            return; // a heartbeat: the common case
        }
        let name: Arc<str> = node.metadata.name.as_deref().unwrap_or_default().into();
        let facts = Facts::of(node);
        let host = self.nodes.entry(name.clone()).or_default();
        let relabelled = host.facts.labels != facts.labels;
        host.known = true;
        host.facts = facts;
        if relabelled {
            self.recount();
        }
        self.changed(&name);
    }

    /// Whether a node is as it was when it was last seen here, as far as placing pods goes.
    pub fn knows(&self, node: &Node) -> bool {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        self.nodes.get(name).is_some_and(|host| host.known && host.facts == Facts::of(node))
    }

    /// Forgets a node. Pods bound to it stay known until they are removed.
    pub fn remove_node(&mut self, name: &str) {
        let Some(host) = self.nodes.get_mut(name) else { return };
        host.known = false;
        host.facts = Facts::default();
        if host.pods == 0 {
            self.nodes.remove(name);
        }
        self.recount();
        self.changed(&name.into());
    }

    /// Learns of a pod, or of a change to it. A pod without a node, or one that has ended, takes no place.
    pub fn set_pod(&mut self, pod: &Pod) {
        let key: PodName = (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default());
        let Some(spec) = &pod.spec else { return self.remove_pod(&key) };
        match spec.node_name.as_deref().filter(|n| !n.is_empty()) {
            Some(node) if !crate::plan::rollout::ended(pod) => self.bind(pod, node),
            _ => self.remove_pod(&key),
        }
    }

    /// Takes a place on a node for a pod.
    pub(super) fn bind(&mut self, pod: &Pod, node: &str) {
        let key: PodName = (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default());
        let nothing = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&nothing);
        let placed = Placed {
            node: node.into(),
            namespace: key.0.clone(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            owner: owner_of(pod).to_owned(),
            requests: requests(spec),
            ports: host_ports(spec),
            apart: if spec.affinity.is_some() { Demand::of(pod).apart } else { Vec::new() },
            leaving: pod.metadata.deletion_timestamp.is_some(),
        };
        if let Some(old) = self.placed.get(&key) {
            let same = (&old.node, &old.labels, &old.owner, &old.requests, old.leaving)
                == (&placed.node, &placed.labels, &placed.owner, &placed.requests, placed.leaving);
            if same && old.ports == placed.ports {
                return; // a status: the common case
            }
            self.remove_pod(&key);
        }
        self.take(&placed, 1);
        self.placed.insert(key, placed);
    }

    /// Frees what a pod took.
    pub fn remove_pod(&mut self, key: &PodName) {
        if let Some(placed) = self.placed.remove(key) {
            self.take(&placed, -1);
        }
    }

    fn take(&mut self, pod: &Placed, sign: i64) {
        let host = self.nodes.entry(pod.node.clone()).or_default();
        host.used.add(&pod.requests, sign);
        host.pods += sign;
        if sign > 0 {
            host.ports.extend(pod.ports.iter().cloned());
        } else {
            for port in &pod.ports {
                if let Some(at) = host.ports.iter().position(|p| p == port) {
                    host.ports.swap_remove(at);
                }
            }
        }
        if !pod.owner.is_empty() {
            add(&mut host.owners, &pod.owner, sign);
        }
        let labels = host.facts.labels.clone();
        if host.pods == 0 && !host.known {
            self.nodes.remove(&pod.node);
        }
        for count in self.counts.values_mut() {
            count.note(pod, &labels, sign);
        }
        for term in &pod.apart {
            if let Some(domain) = labels.get(&term.topology) {
                let count = self.keep_out.entry(term.id.clone()).or_default();
                count.term.get_or_insert_with(|| term.clone());
                add(&mut count.domains, domain, sign);
                if count.domains.is_empty() {
                    self.keep_out.remove(&term.id);
                }
            }
        }
        self.changed(&pod.node.clone());
    }

    /// Counts anew after nodes changed their labels: domains may have moved.
    fn recount(&mut self) {
        let known = std::mem::take(&mut self.counts);
        self.keep_out.clear();
        for pod in self.placed.values() {
            let Some(labels) = self.nodes.get(&pod.node).map(|h| &h.facts.labels) else { continue };
            for term in &pod.apart {
                if let Some(domain) = labels.get(&term.topology) {
                    let count = self.keep_out.entry(term.id.clone()).or_default();
                    count.term.get_or_insert_with(|| term.clone());
                    *count.domains.entry(domain.clone()).or_default() += 1;
                }
            }
        }
        for term in known.into_values().filter_map(|c| c.term) {
            self.count(&term);
        }
    }

    /// Begins to count the pods that a term is about, unless that is being done.
    pub(super) fn count(&mut self, term: &Term) {
        if self.counts.contains_key(&term.id) {
            return;
        }
        let mut count = Count { term: Some(term.clone()), domains: BTreeMap::new() };
        for pod in self.placed.values() {
            if let Some(host) = self.nodes.get(&pod.node) {
                count.note(pod, &host.facts.labels, 1);
            }
        }
        self.counts.insert(term.id.clone(), count);
    }

    /// How many pods that a term is about are in a domain.
    pub(super) fn in_domain(&self, term: &Term, domain: &str) -> i64 {
        self.counts.get(&term.id).and_then(|c| c.domains.get(domain)).copied().unwrap_or(0)
    }

    /// Whether no pod that a term is about is anywhere.
    pub(super) fn nowhere(&self, term: &Term) -> bool {
        self.counts.get(&term.id).is_none_or(|c| c.domains.is_empty())
    }

    /// Node labels and their values where pods live that keep a pod like this out.
    pub(super) fn kept_out(&self, demand: &Demand) -> Vec<(&str, BTreeSet<&str>)> {
        let about = |c: &&Count| c.term.as_ref().is_some_and(|t| t.about(&demand.namespace, &demand.labels));
        self.keep_out
            .values()
            .filter(about)
            .filter_map(|c| Some((c.term.as_ref()?.topology.as_str(), c.domains.keys().map(String::as_str).collect())))
            .collect()
    }

    fn changed(&mut self, node: &Arc<str>) {
        self.log.push(node.clone());
        // A class that has read less than this far looks at every node again, which is not more work than reading on would be.
        let keep = 4 * self.nodes.len() + 64;
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
    pub(super) fn since(&self, position: usize) -> Option<BTreeSet<Arc<str>>> {
        let from = position.checked_sub(self.dropped)?;
        Some(self.log[from.min(self.log.len())..].iter().cloned().collect())
    }
}

/// Counts; what comes to nothing is forgotten.
fn add(counts: &mut BTreeMap<String, i64>, of: &str, sign: i64) {
    match counts.get_mut(of) {
        Some(count) if *count + sign <= 0 => {
            counts.remove(of);
        }
        Some(count) => *count += sign,
        None => {
            counts.insert(of.to_owned(), sign);
        }
    }
}

impl Count {
    fn note(&mut self, pod: &Placed, labels: &BTreeMap<String, String>, sign: i64) {
        let Some(term) = &self.term else { return };
        if (pod.leaving && !term.leaving_count) || !term.about(&pod.namespace, &pod.labels) {
            return;
        }
        if let Some(domain) = labels.get(&term.topology) {
            add(&mut self.domains, domain, sign);
        }
    }
}
