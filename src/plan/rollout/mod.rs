//! From a Deployment to replica sets, and from a replica set to pods, with Kubernetes' semantics.
//!
//! [`deployment`] decides which replica set has how many replicas and what the Deployment's status says; [`replica_set`] decides which
//! pods to create and to delete. Both count *pods*, not what a replica set's status says about them, so that a plan is never made from
//! a status that is older than the pods themselves.
//!
//! You will not find here: how pods get to hosts (`plan::schedule`), or whether a release was good (`plan::verdict`).

mod claim;
pub mod deployment;
mod fit;
pub mod replica_set;
mod revision;
mod status;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::object::fields::Fields;

pub use claim::{Claim, adopted, claim, matches, released};
pub use fit::{Bounds, bounds};
pub use revision::{POD_TEMPLATE_HASH, REVISION, same_template, template_hash};

/// What is read of a pod here, and by who asks how well it is (`plan::health`). There may be very many pods, so no more of them is decoded
/// for that.
pub static READ: LazyLock<Fields> = LazyLock::new(|| {
    Fields::only([
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "metadata.labels",
        "metadata.annotations",
        "metadata.ownerReferences",
        "metadata.creationTimestamp",
        "metadata.deletionTimestamp",
        "spec.nodeName",
        "status",
    ])
});

/// A pod that takes a place: it has not ended and nobody asked it to go.
pub fn active(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !ended(pod)
}

/// A pod whose containers have ended for good.
pub fn ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready")
}

/// Whether the pod's `Ready` condition is true.
pub fn ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|c| c.status == "True")
}

/// Since when the pod's `Ready` condition is what it is.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    Some(ready_condition(pod)?.last_transition_time.as_ref()?.0)
}

/// When a ready pod counts as available, or counted: `minReadySeconds` after it became ready.
pub fn available_from(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    if !ready(pod) {
        return None;
    }
    if min_ready_seconds == 0 {
        return Some(Timestamp::MIN);
    }
    ready_since(pod)?.checked_add(SignedDuration::from_secs(min_ready_seconds.into())).ok()
}

/// Whether the pod is ready and has been so for `minReadySeconds`.
pub fn available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_from(pod, min_ready_seconds).is_some_and(|from| from <= now)
}

/// The time as objects hold it: whole seconds.
pub fn stamp(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).expect("a time within range stays within range"))
}
