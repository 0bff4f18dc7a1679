//! Which pod goes to which node; and for the rest, why not.
//!
//! A [`Cluster`] is what is known of the nodes and of what is taken on them; it is fed with changes. A [`Scheduler`] places pods on it,
//! one after the other, and remembers for each class of like pods which nodes fit and how good they are, so that the next pod of the
//! class costs only what changed since. [`place`] does the same for a whole picture at once, for `portolan plan`.
//!
//! Each pod sees the places that the pods before it were given. Whether they get them for good is decided by the store: the caller
//! commits bindings with the versions of node and pod that were read, and takes back with [`Cluster::remove_pod`] what was refused.
//!
//! Not here: preemption, volumes, and several schedulers.

mod cluster;
mod demand;
mod filter;
mod score;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

pub use cluster::{Cluster, PodName};
pub use demand::{Resources, requests};
pub use filter::{tolerated, tolerates};

use demand::Demand;
use filter::{Neighbours, obstacles};
use score::{Score, score};

/// The taint of a node whose agent reports that it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The taint of a node whose agent is not heard of.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The taint of a cordoned node.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Which of the nodes that fit is the best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Pods of one owner on different nodes, and the emptiest node first.
    #[default]
    Spread,
    /// The fullest node first, so that others stay empty.
    Binpack,
    /// Any, by a seed.
    Random,
    /// One after the other.
    RoundRobin,
}

/// A word that names no strategy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown strategy {0:?}: use spread, binpack, random or round-robin")]
pub struct UnknownStrategy(pub String);

impl FromStr for Strategy {
    type Err = UnknownStrategy;
    fn from_str(word: &str) -> Result<Self, UnknownStrategy> {
        match word {
            "spread" => Ok(Strategy::Spread),
            "binpack" => Ok(Strategy::Binpack),
            "random" => Ok(Strategy::Random),
            "round-robin" | "roundrobin" => Ok(Strategy::RoundRobin),
            _ => Err(UnknownStrategy(word.to_owned())),
        }
    }
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes to this node.
    Place(Arc<str>),
    /// It goes nowhere, and why: `0/3 nodes are available: 2 Insufficient memory, …`.
    Wait(String),
}

/// What is known about one class of like pods.
#[derive(Debug, Default)]
struct Class {
    demand: Demand,
    /// How far the cluster's log has been read.
    read: usize,
    fits: BTreeMap<Arc<str>, Score>,
    /// The same, the best last; among equals the first name.
    ranked: BTreeSet<(Score, std::cmp::Reverse<Arc<str>>)>,
    /// Why the others do not fit.
    misfits: BTreeMap<Arc<str>, Vec<String>>,
    used: u64,
}

/// Places pods and remembers what it learned about each class of pods.
#[derive(Debug, Default)]
pub struct Scheduler {
    strategy: Strategy,
    seed: u64,
    classes: BTreeMap<String, Class>,
    turn: u64,
}

/// How many classes are remembered. Each costs about a hundred bytes per node; a cluster rarely has more pending kinds of pods at once.
const CLASSES: usize = 256;

impl Scheduler {
    /// With a strategy; the seed matters for [`Strategy::Random`].
    pub fn new(strategy: Strategy, seed: u64) -> Self {
        Scheduler { strategy, seed, ..Scheduler::default() }
    }

    /// Which class a pod is of. Pods with the same class are placed by the same rules: when one of them cannot be placed, none can.
    pub fn class(pod: &Pod) -> String {
        demand::class_of(pod)
    }

    /// Decides for one pod, and takes its place on the cluster.
    pub fn decide(&mut self, cluster: &mut Cluster, pod: &Pod) -> Decision {
        self.decide_in(&Self::class(pod), cluster, pod)
    }

    /// The same, for a caller that knows the pod's class already.
    pub fn decide_in(&mut self, class: &str, cluster: &mut Cluster, pod: &Pod) -> Decision {
        self.turn += 1;
        if self.classes.len() > CLASSES {
            let oldest = self.classes.iter().min_by_key(|(_, c)| c.used).map(|(name, _)| name.clone());
            self.classes.remove(&oldest.unwrap_or_default());
        }
        let known = self.classes.entry(class.to_owned()).or_insert_with(|| Class {
            demand: Demand::of(pod),
            read: usize::MAX,
            ..Class::default()
        });
        known.used = self.turn;
        let demand = &known.demand;
        for term in demand.near.iter().chain(&demand.apart).chain(demand.near_preferred.iter().map(|(_, t)| t)) {
            cluster.count(term);
        }
        for spread in &demand.spread {
            cluster.count(&spread.term);
        }
        known.catch_up(cluster, self.strategy);
        let neighbours = Neighbours::of(cluster, &known.demand);
        let chosen = match self.strategy {
            Strategy::Spread | Strategy::Binpack if neighbours.silent() => known.ranked.last().map(|(_, name)| name.0.clone()),
            _ => {
                let candidates = known.candidates(cluster, &neighbours);
                match self.strategy {
                    Strategy::Random if !candidates.is_empty() => {
                        let name = pod.metadata.name.as_deref().unwrap_or_default();
                        let uid = pod.metadata.uid.as_deref().unwrap_or(name);
                        let place = hash(self.seed, uid) % candidates.len() as u64;
                        candidates.into_iter().nth(usize::try_from(place).unwrap_or(0))
                    }
                    Strategy::RoundRobin => {
                        let after = candidates.iter().filter(|name| **name > cluster.last).min();
                        after.or(candidates.iter().min()).cloned()
                    }
                    // Already in order: the best first.
                    _ => candidates.into_iter().next(),
                }
            }
        };
        match chosen {
            Some(node) => {
                cluster.bind(pod, &node);
                cluster.last = node.clone();
                Decision::Place(node)
            }
            None => Decision::Wait(known.why_not(cluster, &neighbours)),
        }
    }
}

impl Class {
    fn catch_up(&mut self, cluster: &Cluster, strategy: Strategy) {
        let news = match self.read {
            usize::MAX => None,
            read => cluster.since(read),
        };
        let Some(news) = news else {
            (self.fits, self.ranked, self.misfits) = Default::default();
            for name in cluster.nodes().map(|(name, _)| name.clone()).collect::<Vec<_>>() {
                self.look(cluster, &name, strategy);
            }
            self.read = cluster.position();
            return;
        };
        for name in news {
            if let Some(score) = self.fits.remove(&name) {
                self.ranked.remove(&(score, std::cmp::Reverse(name.clone())));
            }
            self.misfits.remove(&name);
            self.look(cluster, &name, strategy);
        }
        self.read = cluster.position();
    }

    fn look(&mut self, cluster: &Cluster, name: &Arc<str>, strategy: Strategy) {
        let Some(host) = cluster.nodes.get(name).filter(|h| h.known) else { return };
        let obstacles = obstacles(&self.demand, name, host);
        if obstacles.is_empty() {
            let score = score(&self.demand, name, host, strategy);
            self.fits.insert(name.clone(), score.clone());
            self.ranked.insert((score, std::cmp::Reverse(name.clone())));
        } else {
            self.misfits.insert(name.clone(), obstacles);
        }
    }

    /// The nodes that fit and whose neighbours agree, as good as the best: for strategies that choose among equals all of these, for
    /// others the best first.
    fn candidates(&self, cluster: &Cluster, neighbours: &Neighbours<'_>) -> Vec<Arc<str>> {
        let mut best: Option<Score> = None;
        let mut found: Vec<Arc<str>> = Vec::new();
        for (score, name) in self.ranked.iter().rev() {
            let Some(host) = cluster.nodes.get(&name.0) else { continue };
            if neighbours.obstacle(host).is_some() {
                continue;
            }
            let (liking, unevenness) = neighbours.liking(host);
            let worth = score.among(liking, unevenness);
            match &best {
                Some(known) if worth < *known => {}
                Some(known) if worth == *known => found.push(name.0.clone()),
                _ => {
                    best = Some(worth);
                    found = vec![name.0.clone()];
                }
            }
        }
        found
    }

    /// `0/3 nodes are available: 1 Insufficient memory, 2 node(s) had untolerated taint {…}.`
    fn why_not(&self, cluster: &Cluster, neighbours: &Neighbours<'_>) -> String {
        let total = cluster.len();
        if total == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.misfits.values().flatten() {
            *reasons.entry(reason).or_default() += 1;
        }
        for name in self.fits.keys() {
            if let Some(reason) = cluster.nodes.get(name).and_then(|host| neighbours.obstacle(host)) {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        let mut words: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        words.sort();
        format!("0/{total} nodes are available: {}.", words.join(", "))
    }
}

/// A number that looks random and is the same for the same text and seed.
fn hash(seed: u64, text: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = text.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// A whole picture: every node, and every pod, placed or not.
#[derive(Clone, Debug, Default)]
pub struct Input<'a> {
    /// The nodes.
    pub nodes: Vec<&'a Node>,
    /// The pods. Those with a node take their place; the others are to be placed, in [`order`].
    pub pods: Vec<&'a Pod>,
    /// Which node is the best.
    pub strategy: Strategy,
    /// For [`Strategy::Random`].
    pub seed: u64,
}

/// Places every pod of a picture that has no node yet.
pub fn place(input: &Input<'_>) -> Vec<(PodName, Decision)> {
    let mut cluster = Cluster::new();
    for node in &input.nodes {
        cluster.set_node(node);
    }
    let mut waiting: Vec<&Pod> = Vec::new();
    for pod in &input.pods {
        if awaits_node(pod) { waiting.push(pod) } else { cluster.set_pod(pod) }
    }
    waiting.sort_by_cached_key(|pod| order(pod));
    let mut scheduler = Scheduler::new(input.strategy, input.seed);
    let mut decided = Vec::with_capacity(waiting.len());
    for pod in waiting {
        let name = (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default());
        decided.push((name, scheduler.decide(&mut cluster, pod)));
    }
    decided
}

/// Whether a pod is ours to place: it has no node, no end, no gate, and names no other scheduler.
pub fn awaits_node(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ours = spec.scheduler_name.as_deref().is_none_or(|name| name.is_empty() || name == "default-scheduler");
    ours && spec.node_name.as_deref().is_none_or(str::is_empty)
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
        && crate::plan::rollout::active(pod)
}

/// Who is placed first: the higher priority, then the older, then by name.
pub fn order(pod: &Pod) -> impl Ord + use<> {
    (
        std::cmp::Reverse(pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)),
        pod.metadata.creation_timestamp.as_ref().map(|t| t.0),
        pod.metadata.namespace.clone(),
        pod.metadata.name.clone(),
    )
}
