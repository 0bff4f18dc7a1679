//! Which pod goes to which node; and for the rest, why not.
//!
//! A [`Cluster`] is what is known of the nodes and of what is taken on them; it is fed with changes. A [`Scheduler`] places pods on it,
//! one after the other, and remembers for each class of like pods which nodes fit and how good they are, so that the next pod of the
//! class costs only what changed since. [`place`] does the same for a whole picture at once, for `portolan plan`.
//!
//! Each pod sees the places that the pods before it were given. Whether they get them for good is decided by the store: the caller
//! commits bindings with the versions of node and pod that were read, and takes back with [`Cluster::remove_pod`] what was refused.
//!
//! When a pod fits nowhere, [`Scheduler::resort`] says whether less important ones have to go for it.
//!
//! Not here: volumes, and several schedulers.

mod class;
mod cluster;
mod demand;
mod filter;
mod preempt;
mod score;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

pub use cluster::{Cluster, Common, PodName, name_of};
pub use demand::{Resources, requests};
pub use filter::{tolerated, tolerates};
pub use preempt::{Budget, Preemption, Resort};

use class::Class;
use demand::Demand;

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

/// Places pods and remembers what it learned about each class of pods.
#[derive(Debug, Default)]
pub struct Scheduler {
    strategy: Strategy,
    seed: u64,
    classes: BTreeMap<String, Class>,
    turn: u64,
}

/// How many classes are remembered. A cluster rarely has more pending kinds of pods at once.
const CLASSES: usize = 256;
/// How many looks at nodes are remembered, of all classes together: each costs some 110 bytes, which are 44 MB. Of a cluster of 5,000 nodes
/// these are 80 classes.
const LOOKS: usize = 400_000;
/// How many are remembered when there was nothing to do for a while.
const CLASSES_AT_REST: usize = 8;

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
        // What is kept free for this very pod is free for it.
        let promise = cluster.withdraw(&name_of(pod));
        let (strategy, seed) = (self.strategy, self.seed);
        let known = self.know(class, cluster, pod);
        known.catch_up(cluster, strategy);
        let promised = promise.as_ref().map(|(host, _)| *host).filter(|host| known.fits(*host));
        let chosen = match (promised, strategy) {
            (Some(host), _) => Some(cluster.hosts[host].name.clone()),
            (None, Strategy::Spread | Strategy::Binpack) => known.best(),
            (None, Strategy::Random) => {
                let equals = known.equals();
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let uid = pod.metadata.uid.as_deref().unwrap_or(name);
                let place = hash(seed, uid).checked_rem(equals.len() as u64);
                place.and_then(|place| equals.into_iter().nth(usize::try_from(place).unwrap_or(0)))
            }
            (None, Strategy::RoundRobin) => {
                let equals = known.equals();
                equals.iter().find(|name| **name > cluster.last).or(equals.first()).cloned()
            }
        };
        match chosen {
            Some(node) => {
                cluster.bind(pod, &node);
                cluster.last = node.clone();
                Decision::Place(node)
            }
            None => {
                let why = known.why_not(cluster);
                if let Some((host, promise)) = promise {
                    cluster.keep(host, promise);
                }
                Decision::Wait(why)
            }
        }
    }

    /// What can be done for a pod that was just told to wait. When others have to go, they count as leaving from now on, and the place is
    /// kept free for the pod.
    pub fn resort(&mut self, class: &str, cluster: &mut Cluster, pod: &Pod, budgets: &[Budget]) -> Resort {
        let name = name_of(pod);
        if cluster.expects(&name) {
            return Resort::Expect;
        }
        let before = cluster.withdraw(&name);
        let begin = self.turn as usize;
        let strategy = self.strategy;
        let known = self.know(class, cluster, pod);
        let found = if known.demand.preempts {
            known.catch_up(cluster, strategy);
            known.room(cluster, budgets, begin)
        } else {
            None
        };
        let Some((cost, victims)) = found else {
            if let Some((host, promise)) = before {
                cluster.keep(host, promise);
            }
            return Resort::Nothing;
        };
        let priority = known.demand.priority;
        let node = cluster.hosts[cost.host()].name.clone();
        let outbid = cluster.promised_below(cost.host(), priority);
        for pod in &outbid {
            cluster.withdraw(pod);
        }
        for victim in &victims {
            cluster.dismiss(victim);
        }
        cluster.promise(pod, Some(&node));
        Resort::Preempt(Preemption { node, victims, outbid })
    }

    fn know(&mut self, class: &str, cluster: &mut Cluster, pod: &Pod) -> &mut Class {
        self.turn += 1;
        if !self.classes.contains_key(class) {
            let most = LOOKS / cluster.hosts.len().max(1);
            self.forget(cluster, most.clamp(CLASSES_AT_REST, CLASSES) - 1);
        }
        let known = self.classes.entry(class.to_owned()).or_insert_with(|| Class::new(Demand::of(pod)));
        known.used = self.turn;
        known
    }

    /// Forgets the classes that were not needed for longest, until so many are left.
    fn forget(&mut self, cluster: &mut Cluster, most: usize) {
        while self.classes.len() > most {
            let oldest = self.classes.iter().min_by_key(|(_, c)| c.used).map(|(name, _)| name.clone());
            if let Some(mut gone) = oldest.and_then(|name| self.classes.remove(&name)) {
                gone.end(cluster);
            }
        }
    }

    /// There was nothing to do for a while: what would be quick to learn again is forgotten.
    pub fn rest(&mut self, cluster: &mut Cluster) {
        self.forget(cluster, CLASSES_AT_REST);
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
    waiting.into_iter().map(|pod| (name_of(pod), scheduler.decide(&mut cluster, pod))).collect()
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
