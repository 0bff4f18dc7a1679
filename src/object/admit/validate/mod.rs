//! What Kubernetes refuses, kind by kind, with its field paths and its words.
//!
//! Shape (unknown fields, wrong types) is checked before, against the schema; here it is about meaning. What depends on other objects (a
//! namespace that is not there, a quota) is not decided here.

mod access;
pub mod autoscaler;
pub mod batch;
mod causes;
mod container;
pub mod definition;
pub mod endpoints;
mod meta;
pub mod network;
mod pod;
pub mod policy;
pub mod service;
pub mod storage;
pub mod workload;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Cause, names};
use crate::object::selector::LabelSelector;
use crate::object::{Kind, custom};
pub use access::{certificate_request, cluster_role, cluster_role_binding, role, role_binding};
use causes::{Causes, list, text, there};

/// The most that a ConfigMap or Secret may hold, in bytes.
const DATA_AT_MOST: usize = 1024 * 1024;

/// Everything that is wrong with an object of this kind: its metadata, its own rules and, with `old`, what may not change.
pub fn all(kind: &'static Kind, value: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut c = Causes::default();
    meta::metadata(&mut c, kind, &value["metadata"]);
    c.0.extend((kind.validate)(value, old));
    if let Some(version) = kind.version_of() {
        c.0.extend(custom::values::validate(version, value));
    }
    c.0
}

/// What is wrong with a new status. Statuses are written by parts of this house or of Kubernetes, so only what would mislead others is
/// refused: a pod that comes back from its end, a status of an older generation than the one before (AG5).
pub fn status(kind: &'static Kind, value: &Value, old: &Value) -> Vec<Cause> {
    let mut c = Causes::default();
    if kind.is("", "Pod") {
        let (was, is) = (text(&old["status"]["phase"]), text(&value["status"]["phase"]));
        if ["Succeeded", "Failed"].contains(&was) && was != is {
            c.forbidden("status.phase", &format!("a pod that has {} cannot become {is}", was.to_lowercase()));
        }
    }
    let (was, is) = (old["status"]["observedGeneration"].as_i64(), value["status"]["observedGeneration"].as_i64());
    if let (Some(was), Some(is)) = (was, is)
        && is < was
    {
        c.invalid("status.observedGeneration", is, "must not go back: this status is older than the one that it would replace");
    }
    if let Some(version) = kind.version_of() {
        c.0.extend(custom::values::validate(version, value));
    }
    c.0
}

/// For kinds that anything well-shaped satisfies.
pub fn none(_: &Value, _: Option<&Value>) -> Vec<Cause> {
    Vec::new()
}

/// Namespaces.
pub fn namespace(object: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut c = Causes::default();
    for (i, finalizer) in list(&object["spec"]["finalizers"]) {
        c.name(&format!("spec.finalizers[{i}]"), text(finalizer), names::qualified);
    }
    c.0
}

/// Nodes: taints.
pub fn node(object: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut c = Causes::default();
    let mut seen = BTreeSet::new();
    for (i, taint) in list(&object["spec"]["taints"]) {
        let at = format!("metadata.taints[{i}]");
        c.required_name(&format!("{at}.key"), text(&taint["key"]), names::qualified);
        c.name(&format!("{at}.value"), text(&taint["value"]), names::label_value);
        let effect = text(&taint["effect"]);
        if effect.is_empty() {
            c.required(format!("{at}.effect"), "");
        } else {
            c.one_of(&format!("{at}.effect"), &taint["effect"], &["NoExecute", "NoSchedule", "PreferNoSchedule"]);
        }
        if !seen.insert((text(&taint["key"]), effect)) {
            c.duplicate(at, taint.clone());
        }
    }
    c.0
}

/// Pods.
pub fn pod(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut c = Causes::default();
    pod::spec(&mut c, "spec", &object["spec"]);
    match old {
        Some(old) => pod::update(&mut c, &old["spec"], &object["spec"]),
        None => pod::no_ephemeral(&mut c, "spec", &object["spec"], "cannot be set on create"),
    }
    c.0
}

/// What is wrong with the ephemeral containers that a pod is to have instead of those that it has.
pub fn ephemeral_containers(value: &Value, old: &Value) -> Vec<Cause> {
    let mut c = Causes::default();
    pod::ephemeral(&mut c, &old["spec"], &value["spec"]);
    c.0
}

/// ConfigMaps.
pub fn config_map(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut c = Causes::default();
    let mut size = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            c.name(&format!("{field}[{key}]"), key, names::config_key);
            size += key.len() + text(value).len();
            if field == "data" && object["binaryData"].get(key).is_some() {
                c.invalid(format!("data[{key}]"), key.as_str(), "duplicate of key present in binaryData");
            }
        }
    }
    if size > DATA_AT_MOST {
        c.too_long("", DATA_AT_MOST);
    }
    frozen(&mut c, object, old, &["data", "binaryData"]);
    c.0
}

/// Secrets.
pub fn secret(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut c = Causes::default();
    let mut size = 0;
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        c.name(&format!("data[{key}]"), key, names::config_key);
        size += text(value).len() / 4 * 3;
    }
    if size > DATA_AT_MOST {
        c.too_long("data", DATA_AT_MOST);
    }
    let required: &[&str] = match text(&object["type"]) {
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    };
    for key in required {
        if object["data"].get(*key).is_none() {
            c.required(format!("data[{key}]"), "");
        }
    }
    if object["type"] == "kubernetes.io/basic-auth"
        && ["username", "password"].iter().all(|key| object["data"].get(*key).is_none())
    {
        c.required("data[username]", "");
        c.required("data[password]", "");
    }
    if let Some(old) = old {
        c.immutable("type", &object["type"], &old["type"]);
    }
    frozen(&mut c, object, old, &["data"]);
    c.0
}

/// Content that its author declared unchangeable.
fn frozen(c: &mut Causes, object: &Value, old: Option<&Value>, fields: &[&str]) {
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return };
    let why = "field is immutable when `immutable` is set";
    if object["immutable"] != true {
        c.forbidden("immutable", why);
    }
    for field in fields {
        let empty = |v: &Value| v.as_object().is_none_or(serde_json::Map::is_empty);
        if object[*field] != old[*field] && !(empty(&object[*field]) && empty(&old[*field])) {
            c.forbidden(*field, why);
        }
    }
}

/// Events.
pub fn event(object: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut c = Causes::default();
    let (involved, own) = (text(&object["involvedObject"]["namespace"]), text(&object["metadata"]["namespace"]));
    // Events about things outside namespaces are kept in the default one.
    if involved != own && !(involved.is_empty() && (own == "default" || own == "kube-system")) {
        c.invalid("involvedObject.namespace", involved, "does not match event.namespace");
    }
    c.0
}

/// Deployments.
pub fn deployment(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        c.not_negative(&format!("spec.{field}"), &spec[field]);
    }
    if let (Some(deadline), Some(ready)) =
        (spec["progressDeadlineSeconds"].as_i64(), spec["minReadySeconds"].as_i64().or(Some(0)))
        && deadline <= ready
    {
        c.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds");
    }
    let strategy = &spec["strategy"];
    let rolling = &strategy["rollingUpdate"];
    c.one_of("spec.strategy.type", &strategy["type"], &["Recreate", "RollingUpdate"]);
    match text(&strategy["type"]) {
        "Recreate" if there(rolling) => {
            c.forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'");
        }
        "RollingUpdate" => {
            let at = "spec.strategy.rollingUpdate";
            let unavailable = share(&mut c, &format!("{at}.maxUnavailable"), &rolling["maxUnavailable"]);
            let surge = share(&mut c, &format!("{at}.maxSurge"), &rolling["maxSurge"]);
            if (unavailable, surge) == (Some(0), Some(0)) {
                c.invalid(format!("{at}.maxUnavailable"), rolling["maxUnavailable"].clone(), "may not be 0 when `maxSurge` is 0");
            }
            if rolling["maxUnavailable"].is_string() && unavailable.is_some_and(|percent| percent > 100) {
                c.invalid(format!("{at}.maxUnavailable"), rolling["maxUnavailable"].clone(), "must not be greater than 100%");
            }
        }
        _ => {}
    }
    replicated(&mut c, object, old, "Deployment");
    c.0
}

/// A number of pods or a percentage of them: its number.
fn share(c: &mut Causes, field: &str, value: &Value) -> Option<i64> {
    if let Value::String(found) = value {
        let digits = found.strip_suffix('%').filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
        let number = digits.and_then(|d| d.parse().ok());
        if number.is_none() {
            let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for \
                          validation is '[0-9]+%')";
            c.invalid(field, found.as_str(), detail);
        }
        return number;
    }
    c.not_negative(field, value);
    value.as_i64()
}

/// Replica sets.
pub fn replica_set(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut c = Causes::default();
    for field in ["replicas", "minReadySeconds"] {
        c.not_negative(&format!("spec.{field}"), &object["spec"][field]);
    }
    replicated(&mut c, object, old, "ReplicaSet");
    c.0
}

/// Selector and template, which must fit together, of an object of the kind `owner`.
fn replicated(c: &mut Causes, object: &Value, old: Option<&Value>, owner: &str) {
    let spec = &object["spec"];
    let selector = &spec["selector"];
    let empty =
        |value: &Value| value.as_object().is_none_or(serde_json::Map::is_empty) && value.as_array().is_none_or(Vec::is_empty);
    if !there(selector) {
        c.required("spec.selector", "");
    } else if empty(&selector["matchLabels"]) && empty(&selector["matchExpressions"]) {
        c.invalid("spec.selector", selector.clone(), &format!("empty selector is invalid for {}", owner.to_lowercase()));
    }
    let before = c.0.len();
    c.selector("spec.selector", selector);
    let template = &spec["template"];
    if !there(template) {
        c.required("spec.template", "");
        return;
    }
    let selector_is_sound = c.0.len() == before && there(selector);
    if selector_is_sound && let Ok(typed) = serde_json::from_value(selector.clone()) {
        let labels: BTreeMap<String, String> = serde_json::from_value(template["metadata"]["labels"].clone()).unwrap_or_default();
        if LabelSelector::of(&typed).is_ok_and(|s| !s.is_everything() && !s.matches_labels(&labels)) {
            let found = serde_json::to_value(&labels).unwrap_or_default();
            c.invalid("spec.template.metadata.labels", found, "`selector` does not match template `labels`");
        }
    }
    pod::template(c, "spec.template", template, owner);
    if let Some(old) = old {
        c.immutable("spec.selector", selector, &old["spec"]["selector"]);
    }
}

/// Leases.
pub fn lease(object: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|n| n <= 0) {
        c.invalid("spec.leaseDurationSeconds", spec["leaseDurationSeconds"].clone(), "must be greater than 0");
    }
    c.not_negative("spec.leaseTransitions", &spec["leaseTransitions"]);
    c.0
}

/// Applications.
pub fn application(object: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    let (source, policy) = (&spec["source"], &spec["policy"]);
    let repository = text(&source["repository"]);
    c.required_text("spec.source.repository", &source["repository"]);
    // Neither may ever be taken for an option of a program.
    for (field, found) in [("repository", repository), ("revision", text(&source["revision"]))] {
        if found.starts_with('-') || found.chars().any(char::is_control) {
            c.invalid(format!("spec.source.{field}"), found, "must not begin with '-' or contain control characters");
        }
    }
    container::inner_path(&mut c, "spec.source.path", text(&source["path"]));
    if let Some(namespace) = source["namespace"].as_str() {
        c.name("spec.source.namespace", namespace, names::label);
    }
    if source["intervalSeconds"].as_i64().is_some_and(|n| n < 1) {
        c.invalid("spec.source.intervalSeconds", source["intervalSeconds"].clone(), "must be greater than 0");
    }
    for field in ["soakSeconds", "historyLimit"] {
        c.not_negative(&format!("spec.policy.{field}"), &policy[field]);
    }
    if policy["progressDeadlineSeconds"].as_i64().is_some_and(|n| n < 1) {
        c.invalid("spec.policy.progressDeadlineSeconds", policy["progressDeadlineSeconds"].clone(), "must be greater than 0");
    }
    c.between("spec.policy.pruneMaxPercent", &policy["pruneMaxPercent"], 0, 100);
    for (i, name) in list(&spec["dependsOn"]) {
        let at = format!("spec.dependsOn[{i}]");
        c.required_name(&at, text(name), names::subdomain);
        if name == &object["metadata"]["name"] && there(name) {
            c.invalid(at, name.clone(), "must not be the Application itself");
        }
    }
    if there(&spec["pin"]) {
        c.required_text("spec.pin.release", &spec["pin"]["release"]);
    }
    if there(&spec["retry"]) {
        c.required_text("spec.retry.digest", &spec["retry"]["digest"]);
    }
    c.0
}

/// Releases: the record of what was tried does not change.
pub fn release(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut c = Causes::default();
    if let Some(old) = old {
        c.immutable("spec", &object["spec"], &old["spec"]);
    }
    c.0
}

/// Renderings: they never change.
pub fn rendering(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut c = Causes::default();
    if old.is_some_and(|old| old["objects"] != object["objects"]) {
        c.forbidden("objects", "field is immutable");
    }
    c.0
}

#[cfg(test)]
mod tests;
