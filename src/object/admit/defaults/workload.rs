//! What runs pods: replication controllers, stateful sets, daemon sets, jobs.

use serde_json::{Map, Value, json};

use super::storage::claim_template;
use super::{Fields, child, fields, fill, structures, template};

/// A replication controller: without a selector it selects what its template makes.
pub fn replication_controller(object: &mut Value) {
    let Some(object) = fields(object) else { return };
    inherit_labels(object);
    let Some(spec) = child(object, "spec") else { return };
    fill(spec, "replicas", 1);
    let empty = |v: Option<&Value>| v.is_none_or(|v| v.is_null() || v.as_object().is_some_and(Map::is_empty));
    if empty(spec.get("selector"))
        && let Some(labels) = template_labels(spec)
    {
        spec.insert("selector".to_owned(), labels.into());
    }
    template(spec);
}

/// A pod template that stands alone.
pub fn pod_template(object: &mut Value) {
    let Some(object) = fields(object) else { return };
    template(object);
}

/// A stateful set, its pod template and its claims.
pub fn stateful_set(object: &mut Value) {
    let Some(spec) = fields(object).and_then(|o| child(o, "spec")) else { return };
    fill(spec, "podManagementPolicy", "OrderedReady");
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = child(spec, "updateStrategy") {
        fill(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            fill(rolling, "partition", 0);
        }
    }
    if let Some(retention) = child(spec, "persistentVolumeClaimRetentionPolicy") {
        fill(retention, "whenDeleted", "Retain");
        fill(retention, "whenScaled", "Retain");
    }
    for claim in structures(spec, "volumeClaimTemplates") {
        claim_template(claim);
    }
    template(spec);
}

/// A daemon set and its pod template.
pub fn daemon_set(object: &mut Value) {
    let Some(spec) = fields(object).and_then(|o| child(o, "spec")) else { return };
    fill(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = child(spec, "updateStrategy") {
        fill(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", 1);
            fill(rolling, "maxSurge", 0);
        }
    }
    template(spec);
}

/// A job and its pod template. Its selector is made when it is created.
pub fn job(object: &mut Value) {
    let Some(object) = fields(object) else { return };
    inherit_labels(object);
    let Some(spec) = child(object, "spec") else { return };
    let (completions, parallelism) = (spec.contains_key("completions"), spec.contains_key("parallelism"));
    // With neither, it is one pod; with only a parallelism, it is a work queue that ends by itself.
    if !completions && !parallelism {
        fill(spec, "completions", 1);
    }
    fill(spec, "parallelism", 1);
    let limit = if spec.contains_key("backoffLimitPerIndex") { i32::MAX } else { 6 };
    fill(spec, "backoffLimit", limit);
    fill(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    let replace = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    fill(spec, "podReplacementPolicy", replace);
    if let Some(policy) = spec.get_mut("podFailurePolicy").and_then(Value::as_object_mut) {
        for rule in structures(policy, "rules") {
            for pattern in structures(rule, "onPodConditions") {
                fill(pattern, "status", "True");
            }
        }
    }
    template(spec);
}

/// A cron job and the template of its jobs, of which only the pods' part has defaults.
pub fn cron_job(object: &mut Value) {
    let Some(spec) = fields(object).and_then(|o| child(o, "spec")) else { return };
    fill(spec, "concurrencyPolicy", "Allow");
    fill(spec, "suspend", false);
    fill(spec, "successfulJobsHistoryLimit", 3);
    fill(spec, "failedJobsHistoryLimit", 1);
    if let Some(job) = super::at(spec, &["jobTemplate", "spec"]) {
        template(job);
    }
}

/// An object without labels has those of its template.
fn inherit_labels(object: &mut Fields) {
    let labels = object.get_mut("spec").and_then(Value::as_object_mut).and_then(template_labels);
    let (Some(labels), Some(metadata)) = (labels, child(object, "metadata")) else { return };
    if metadata.get("labels").is_none_or(|l| l.is_null() || *l == json!({})) {
        metadata.insert("labels".to_owned(), labels.into());
    }
}

fn template_labels(spec: &mut Fields) -> Option<Fields> {
    let labels = super::at(spec, &["template", "metadata", "labels"])?;
    Some(labels.clone()).filter(|l| !l.is_empty())
}
