//! A replica set and its pods: how many to create, which to delete, and what its status says.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::claim::{Claim, claim, matches};
use super::{active, available, available_from, ended, phase, ready, ready_since, stamp};

/// The most pods created or deleted in one go. Kubernetes' number: large enough to be no brake, small enough that others get their turn.
pub const BURST: usize = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The most characters before the random suffix, so that a name stays a DNS label.
const LONGEST_PREFIX: usize = 58;

/// What is looked at to plan one replica set.
pub struct Input<'a> {
    /// The replica set.
    pub set: &'a ReplicaSet,
    /// Pods that it controls, and pods in its namespace that nobody controls.
    pub pods: Vec<&'a Pod>,
    /// How many active pods of the same owner each node has: the fuller node gives a pod up first.
    pub crowds: &'a BTreeMap<String, usize>,
    /// How many available pods may be deleted now ([`super::deployment::spare`]); no limit when absent.
    pub spare: Option<i32>,
    /// The time.
    pub now: Timestamp,
}

/// What to do for one replica set. Numbers are indices of the input's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Pods to take over.
    pub adopt: Vec<usize>,
    /// Pods to let go.
    pub release: Vec<usize>,
    /// How many pods to create.
    pub create: usize,
    /// Pods to delete, the least useful first.
    pub delete: Vec<usize>,
    /// When to look again if nothing happens before.
    pub again: Option<Timestamp>,
}

fn min_ready(set: &ReplicaSet) -> i32 {
    set.spec.min_ready_seconds.unwrap_or(0)
}

/// Plans for one replica set.
pub fn plan(input: &Input<'_>) -> Plan {
    let set = input.set;
    let mut plan = Plan::default();
    let mut mine = Vec::new();
    for (index, pod) in input.pods.iter().enumerate() {
        match claim(&set.metadata, &set.spec.selector, &pod.metadata) {
            Claim::Mine => mine.push(index),
            Claim::Adopt if active(pod) => {
                plan.adopt.push(index);
                mine.push(index);
            }
            Claim::Release => plan.release.push(index),
            Claim::Adopt | Claim::Foreign => {}
        }
    }
    mine.retain(|i| active(input.pods[*i]));
    let from = |i: &usize| available_from(input.pods[*i], min_ready(set));
    plan.again = mine.iter().filter_map(from).filter(|at| *at > input.now).min();
    if set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let wanted = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    if mine.len() < wanted {
        plan.create = (wanted - mine.len()).min(BURST);
    } else {
        let mut excess = (mine.len() - wanted).min(BURST);
        let mut spare = input.spare.unwrap_or(i32::MAX);
        mine.sort_by_cached_key(|i| worth(input.pods[*i], input.crowds));
        for index in mine {
            if excess == 0 {
                break;
            }
            if available(input.pods[index], min_ready(set), input.now) {
                if spare <= 0 {
                    continue;
                }
                spare -= 1;
            }
            excess -= 1;
            plan.delete.push(index);
        }
    }
    plan
}

/// What a pod is worth, lowest first. The order of the fields is Kubernetes' policy.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Worth {
    assigned: bool,
    /// Pending, unknown, running.
    phase: u8,
    ready: bool,
    deletion_cost: i64,
    /// A pod whose node has others of the same owner is worth less.
    alone: Reverse<usize>,
    /// The longer it has been ready, the better.
    ready_since: Reverse<Option<Timestamp>>,
    restarts: Reverse<i32>,
    created: Reverse<Option<Timestamp>>,
    name: String,
}

pub(super) fn worth(pod: &Pod, crowds: &BTreeMap<String, usize>) -> Worth {
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty());
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    Worth {
        assigned: node.is_some(),
        phase: match phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        },
        ready: ready(pod),
        deletion_cost: pod.metadata.annotations.as_ref().and_then(|a| a.get(DELETION_COST)?.parse().ok()).unwrap_or(0),
        alone: Reverse(node.and_then(|n| crowds.get(n).copied()).unwrap_or(0)),
        ready_since: Reverse(if ready(pod) { ready_since(pod) } else { None }),
        restarts: Reverse(statuses.iter().map(|c| c.restart_count).max().unwrap_or(0)),
        created: Reverse(pod.metadata.creation_timestamp.as_ref().map(|t| t.0)),
        name: pod.metadata.name.clone().unwrap_or_default(),
    }
}

/// The replica set's status once the plan is carried out with `created` new pods, when it changes. `failure` is why others could not be
/// created.
pub fn status(input: &Input<'_>, plan: &Plan, created: usize, failure: Option<&str>) -> Option<ReplicaSetStatus> {
    let set = input.set;
    let going: BTreeSet<usize> = plan.delete.iter().copied().collect();
    let coming: BTreeSet<usize> = plan.adopt.iter().copied().collect();
    let mine = |i: &usize| claim(&set.metadata, &set.spec.selector, &input.pods[*i].metadata) == Claim::Mine;
    let mine: Vec<usize> = (0..input.pods.len()).filter(|i| coming.contains(i) || mine(i)).collect();
    let here = |i: &&usize| !going.contains(i) && active(input.pods[**i]);
    let here: Vec<&Pod> = mine.iter().filter(here).map(|i| input.pods[*i]).collect();
    let count = |of: &dyn Fn(&Pod) -> bool| here.iter().filter(|p| of(p)).count() as i32;
    let template =
        set.spec.template.as_ref().and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.clone()).unwrap_or_default();
    let labelled = |pod: &Pod| {
        let labels = pod.metadata.labels.as_ref();
        template.iter().all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
    };
    let created = i32::try_from(created).unwrap_or(i32::MAX);
    let leaving = |i: &&usize| {
        let pod = input.pods[**i];
        !ended(pod) && (pod.metadata.deletion_timestamp.is_some() || going.contains(i))
    };
    let terminating = mine.iter().filter(leaving).count() as i32;
    let old = set.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let known = conditions.iter().any(|c| c.type_.as_deref() == Some("ReplicaFailure"));
    match failure {
        Some(message) if !known => conditions.push(ReplicaSetCondition {
            type_: Some("ReplicaFailure".to_owned()),
            status: Some("True".to_owned()),
            reason: Some("FailedCreate".to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(stamp(input.now)),
        }),
        None => conditions.retain(|c| c.type_.as_deref() != Some("ReplicaFailure")),
        Some(_) => {}
    }
    let some = |n: i32| (n != 0).then_some(n);
    let status = ReplicaSetStatus {
        replicas: count(&|_| true) + created,
        fully_labeled_replicas: some(count(&labelled) + created),
        ready_replicas: some(count(&ready)),
        available_replicas: some(count(&|p| available(p, min_ready(set), input.now))),
        terminating_replicas: some(terminating),
        observed_generation: set.metadata.generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    };
    let unset = |n: Option<i32>| n.filter(|n| *n != 0);
    let old = ReplicaSetStatus {
        fully_labeled_replicas: unset(old.fully_labeled_replicas),
        ready_replicas: unset(old.ready_replicas),
        available_replicas: unset(old.available_replicas),
        terminating_replicas: unset(old.terminating_replicas),
        conditions: old.conditions.filter(|c| !c.is_empty()),
        ..old
    };
    (set.status.is_none() || status != old).then_some(status)
}

/// How a pod names the replica set that controls it.
pub fn owner(set: &ReplicaSet) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "ReplicaSet".to_owned(),
        name: set.metadata.name.clone().unwrap_or_default(),
        uid: set.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A pod made from the replica set's template.
pub fn pod(set: &ReplicaSet, suffix: &str) -> Pod {
    let mut prefix = format!("{}-", set.metadata.name.as_deref().unwrap_or_default());
    prefix.truncate(LONGEST_PREFIX);
    let template = set.spec.template.clone().unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            name: Some(format!("{prefix}{suffix}")),
            generate_name: Some(prefix),
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// Whether a pod that nobody controls could belong to the replica set.
pub fn could_adopt(set: &ReplicaSet, labels: &BTreeMap<String, String>) -> bool {
    matches(&set.spec.selector, Some(labels))
}
