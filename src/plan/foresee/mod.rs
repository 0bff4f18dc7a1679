//! What a sync plan comes to: which pods start on which hosts, which stop, and how many serve meanwhile.
//!
//! A world in memory, moved by the very planners that the server's loops carry out ([`super::rollout`], [`super::schedule`]). In it every
//! image exists, every pod becomes ready at once and stops at once, and nobody else changes anything. Reality is slower and may go
//! wrong; where it goes right it goes the same way.

mod world;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde::Serialize;
use serde_json::Value;

use super::schedule::{Cluster, Common, PodName, Strategy};
use super::sync::SyncPlan;
use crate::object::Key;
use world::{LONGEST, World};

/// What is read of a pod that has a host: where it is, what it takes there, to whom it belongs and how it is. Paths as in
/// [`Fields`](crate::object::fields::Fields).
///
/// A picture of before may show these fields alone, of every pod that has a host and is not of a workload that changes: of those
/// [`preflight`](super::preflight) wants to know whether they are as the new ones will be. A pod without a host is looked at as a whole.
pub const READ: &[&str] = &[
    "metadata.annotations.controller\\.kubernetes\\.io/pod-deletion-cost",
    "metadata.creationTimestamp",
    "metadata.deletionTimestamp",
    "metadata.labels",
    "metadata.ownerReferences.controller",
    "metadata.ownerReferences.kind",
    "metadata.ownerReferences.name",
    "metadata.ownerReferences.uid",
    "spec.affinity",
    "spec.containers.ports",
    "spec.containers.resources.requests",
    "spec.hostNetwork",
    "spec.initContainers.ports",
    "spec.initContainers.resources.requests",
    "spec.initContainers.restartPolicy",
    "spec.nodeName",
    "spec.overhead",
    "spec.priority",
    "status.conditions.lastTransitionTime",
    "status.conditions.status",
    "status.conditions.type",
    "status.containerStatuses.restartCount",
    "status.phase",
];

/// Objects that are written together, wave by wave.
pub type Waves = Vec<Vec<(Key, Value)>>;

/// What there is before.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// Deployments.
    pub deployments: Vec<Deployment>,
    /// Replica sets.
    pub sets: Vec<ReplicaSet>,
    /// Pods that have not ended, but for residents.
    pub pods: Vec<Arc<Pod>>,
    /// Pods that have a host, are ready there, and are not asked to go: nearly all, where there are many.
    pub residents: Vec<Resident>,
    /// Namespaces: rules about other pods may choose them by their labels.
    pub namespaces: Vec<Namespace>,
    /// Priority classes, which say whose pods have to go for others.
    pub classes: Vec<PriorityClass>,
    /// Budgets for disruption, which say of whom rather not too many.
    pub budgets: Vec<PodDisruptionBudget>,
}

/// A pod that runs well, and of which nothing more is looked at as long as nobody wants it to go.
#[derive(Clone, Debug)]
pub struct Resident {
    /// Its namespace and name.
    pub name: PodName,
    /// Its host.
    pub node: Arc<str>,
    /// What matters to where others go.
    pub common: Arc<Common>,
    /// When it was created.
    pub since: Option<Timestamp>,
    /// The pod as JSON, at least [`READ`] of it.
    pub json: Bytes,
}

impl Resident {
    /// All that is known of it; `None` when that is no pod.
    fn pod(&self) -> Option<Arc<Pod>> {
        serde_json::from_slice(&self.json).ok().map(Arc::new)
    }
}

/// The hosts, and what is taken on them before.
pub fn picture(nodes: &[Node], before: &Before) -> Cluster {
    let mut cluster = Cluster::new();
    nodes.iter().for_each(|node| cluster.set_node(node));
    for resident in &before.residents {
        cluster.settle(resident.name.clone(), &resident.node, resident.common.clone(), resident.since);
    }
    before.pods.iter().for_each(|pod| cluster.set_pod(pod));
    cluster
}

/// What there is before, and what is done.
pub struct Input {
    /// What there is.
    pub before: Before,
    /// The hosts, and what is taken on them ([`picture`]).
    pub picture: Cluster,
    /// What is written, wave by wave.
    pub waves: Waves,
    /// What is deleted when all waves are healthy.
    pub prune: Vec<Key>,
    /// How hosts are chosen.
    pub strategy: Strategy,
    /// For [`Strategy::Random`].
    pub seed: u64,
    /// The time.
    pub now: Timestamp,
}

/// What would happen.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Foreseen {
    /// Pods that start, in order, and stay.
    #[serde(rename = "placement")]
    pub starts: Vec<Move>,
    /// Pods that stop, in order, and were there before.
    #[serde(rename = "leaving")]
    pub stops: Vec<Move>,
    /// Pods that find no host.
    #[serde(rename = "unplaced")]
    pub waiting: Vec<Waits>,
    /// What happens to the pods of each workload that moves.
    pub workloads: Vec<Extent>,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Move {
    /// `Deployment shop/web`.
    pub workload: String,
    /// The host.
    pub node: String,
    /// The pod's name, where it has one already.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod: String,
}

/// Pods without a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waits {
    /// `Deployment shop/web`.
    pub workload: String,
    /// How many.
    pub pods: usize,
    /// Why, in the scheduler's words.
    pub why: String,
}

/// How many pods a workload has on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Extent {
    /// `Deployment shop/web`.
    pub workload: String,
    /// How many are wanted in the end.
    pub replicas: i32,
    /// How many serve at the worst moment.
    pub least_available: i32,
    /// How many there are at the fullest moment.
    pub most: i32,
}

/// What there would be once these objects have come to rest: a picture of before, where nobody can be asked for one.
pub fn grown(input: Input) -> Before {
    let (now, namespaces) = (input.now, input.before.namespaces.clone());
    let (mut world, waves, _) = World::new(input);
    world.rouse_all();
    // It all happened long enough ago for everything to count as available now.
    world.now = now.checked_sub(LONGEST + LONGEST).unwrap_or(now);
    for (key, value) in waves.iter().flatten() {
        world.write(key, value);
    }
    world.settle();
    Before {
        deployments: world.deployments.into_values().collect(),
        sets: world.sets.into_values().collect(),
        pods: world.pods.into_values().collect(),
        residents: Vec::new(),
        namespaces,
        classes: world.classes.into_values().collect(),
        budgets: world.budgets.into_values().collect(),
    }
}

/// Whether a plan may start or stop pods, where none waits for a host: otherwise nothing has to be known of pods to look ahead.
pub fn moves(plan: &SyncPlan) -> bool {
    let makes =
        |key: &Key| matches!((key.kind.group, key.kind.kind), ("apps", "Deployment" | "ReplicaSet") | ("", "Pod" | "Namespace"));
    // A namespace takes what is in it along when it goes; written, it moves nothing.
    plan.changes().any(|change| makes(&change.name.0) && change.name.0.kind.kind != "Namespace")
        || plan.prune.iter().any(|prune| makes(&prune.name.0))
}

/// Looks ahead.
pub fn foresee(input: Input) -> Foreseen {
    let (mut world, waves, prune) = World::new(input);
    for wave in &waves {
        for (key, value) in wave {
            world.write(key, value);
        }
        world.settle();
        if !world.waiting.is_empty() {
            break; // the next wave waits until this one is healthy
        }
    }
    if world.waiting.is_empty() && !prune.is_empty() {
        for key in &prune {
            world.delete(key);
        }
        world.settle();
    }
    let mut starts: Vec<Move> = Vec::new();
    for name in &world.started {
        if let Some(pod) = world.pods.get(name)
            && let Some(moved) = world.placed(pod)
        {
            let named = pod.metadata.owner_references.as_ref().is_none_or(Vec::is_empty);
            starts.push(Move { pod: if named { moved.pod } else { String::new() }, ..moved });
        }
    }
    let stops = std::mem::take(&mut world.stopped);
    let mut waiting: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (name, why) in &world.waiting {
        if let Some(pod) = world.pods.get(name) {
            *waiting.entry((world.workload(pod), why.clone())).or_default() += 1;
        }
    }
    let waiting = waiting.into_iter().map(|((workload, why), pods)| Waits { workload, pods, why }).collect();
    let workloads = world.extents.values().filter(|e| e.moved).map(|e| e.extent.clone()).collect();
    Foreseen { starts, stops, waiting, workloads }
}
