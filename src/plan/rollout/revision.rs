//! What makes a replica set *the* replica set of a template: the hash in its name, the template itself, and the revision annotations
//! that `kubectl rollout history` and `undo` read.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use crate::object::ours;

/// The label that tells the pods of one template from those of another.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// The annotation with the number of a Deployment's or replica set's revision.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// The earlier numbers of a replica set that was gone back to.
pub(super) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's size when this replica set was last scaled.
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// That size and the surge of the time.
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// How long the history annotation may grow; older numbers are dropped.
const HISTORY_CHARACTERS: usize = 2000;

/// The hash of a pod template in Kubernetes' alphabet. `collisions` makes a different one of it when the name is taken.
pub fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash: u32 = 0x811c_9dc5;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    };
    feed(&serde_json::to_vec(&bare(template)).expect("a template can be written"));
    if let Some(n) = collisions {
        feed(&n.to_le_bytes());
    }
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// The template without the label that we add ourselves.
fn bare(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(meta) = &mut template.metadata {
        meta.creation_timestamp = None;
        if let Some(labels) = &mut meta.labels {
            labels.remove(POD_TEMPLATE_HASH);
        }
    }
    template
}

/// Whether two templates describe the same pods, not counting the label that we add ourselves.
pub fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    a.spec == b.spec && bare(a) == bare(b)
}

/// The revision number that an object carries.
pub(super) fn revision_of(annotations: Option<&BTreeMap<String, String>>) -> i64 {
    annotations.and_then(|a| a.get(REVISION)).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// A number that a replica set carries as an annotation.
pub(super) fn number(set: &ReplicaSet, annotation: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(annotation)?.parse().ok()
}

/// Whether a Deployment's annotation is passed on to its replica sets. Ours about where an object comes from are not: a replica set
/// does not come from git.
fn passed_on(name: &str) -> bool {
    !matches!(name, LAST_APPLIED | REVISION | REVISION_HISTORY | DESIRED_REPLICAS | MAX_REPLICAS)
        && !name.starts_with(&format!("{}/", ours::GROUP))
}

/// The annotations of the replica set for the Deployment's template, as revision `revision`.
pub(super) fn annotations(deployment: &Deployment, old: Option<&ReplicaSet>, revision: i64) -> BTreeMap<String, String> {
    let mut annotations = old.and_then(|set| set.metadata.annotations.clone()).unwrap_or_default();
    for (name, value) in deployment.metadata.annotations.iter().flatten().filter(|(name, _)| passed_on(name)) {
        annotations.insert(name.clone(), value.clone());
    }
    let current = revision_of(Some(&annotations));
    if current < revision
        && let Some(before) = annotations.insert(REVISION.to_owned(), revision.to_string())
    {
        let mut history: Vec<String> =
            annotations.get(REVISION_HISTORY).map_or_else(Vec::new, |h| h.split(',').map(str::to_owned).collect());
        history.retain(|number| !number.is_empty());
        history.push(before);
        while history.iter().map(|n| n.len() + 1).sum::<usize>() > HISTORY_CHARACTERS {
            history.remove(0);
        }
        annotations.insert(REVISION_HISTORY.to_owned(), history.join(","));
    }
    annotations
}
