//! Quotas, limits, priorities, disruption budgets.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::causes::{Causes, list, text, there};
use super::names;
use crate::object::quantity::Quantity;

/// The highest priority that is not the cluster's own.
const HIGHEST_PRIORITY: i64 = 1_000_000_000;
/// Priority classes that every cluster has, with their values.
const SYSTEM_CLASSES: &[(&str, i64)] = &[("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// Resources without a domain that a quota may count.
const QUOTA_RESOURCES: &[&str] = &[
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
];
/// Of those, what can only be counted in whole numbers.
const COUNTED: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
/// Scopes that exclude each other.
const EITHER_OR: &[(&str, &str)] = &[("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];

/// Resource quotas.
pub fn resource_quota(object: &Value, old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    for (resource, amount) in spec["hard"].as_object().into_iter().flatten() {
        let at = format!("spec.hard[{resource}]");
        c.name(&at, resource, names::qualified);
        let huge = ["hugepages-", "requests.hugepages-"].iter().any(|prefix| resource.starts_with(prefix));
        if !resource.contains('/') && !huge && !QUOTA_RESOURCES.contains(&resource.as_str()) {
            c.invalid(at.as_str(), resource.as_str(), "must be a standard resource for quota");
        }
        not_negative(&mut c, &at, amount);
        let counted = COUNTED.contains(&resource.as_str()) || resource.starts_with("count/");
        if counted && text(amount).parse::<Quantity>().is_ok_and(|q| q.milli() % 1000 != 0) {
            c.invalid(at.as_str(), text(amount), "must be an integer");
        }
    }
    let scopes: Vec<&str> = list(&spec["scopes"]).map(|(_, scope)| text(scope)).collect();
    // Each is told with all of them, so of very many only some are told.
    for _ in scopes.iter().filter(|scope| !SCOPES.contains(scope)).take(10) {
        c.invalid("spec.scopes", spec["scopes"].clone(), "unsupported scope");
    }
    if EITHER_OR.iter().any(|(one, other)| scopes.contains(one) && scopes.contains(other)) {
        c.invalid("spec.scopes", spec["scopes"].clone(), "conflicting scopes");
    }
    for (i, term) in list(&spec["scopeSelector"]["matchExpressions"]) {
        scope_term(&mut c, &format!("spec.scopeSelector.matchExpressions[{i}]"), term);
    }
    if let Some(old) = old {
        let set = |value: &Value| list(value).map(|(_, scope)| text(scope).to_owned()).collect::<BTreeSet<_>>();
        if set(&spec["scopes"]) != set(&old["spec"]["scopes"]) {
            c.invalid("spec.scopes", spec["scopes"].clone(), "field is immutable");
        }
    }
    c.0
}

fn scope_term(c: &mut Causes, at: &str, term: &Value) {
    if !SCOPES.contains(&text(&term["scopeName"])) {
        c.invalid(format!("{at}.scopeName"), text(&term["scopeName"]), "unsupported scope");
    }
    let values = term["values"].as_array().map_or(0, Vec::len);
    match text(&term["operator"]) {
        "In" | "NotIn" if values == 0 => {
            c.required(
                format!("{at}.values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            );
        }
        "Exists" | "DoesNotExist" if values > 0 => {
            let why = "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector";
            c.invalid(format!("{at}.values"), term["values"].clone(), why);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => c.invalid(format!("{at}.operator"), other, "not a valid selector operator"),
    }
}

fn not_negative(c: &mut Causes, at: &str, amount: &Value) {
    if text(amount).parse::<Quantity>().is_ok_and(Quantity::is_negative) {
        c.invalid(at, text(amount), "must be greater than or equal to 0");
    }
}

/// Limit ranges.
pub fn limit_range(object: &Value, _old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let mut seen = BTreeSet::new();
    for (i, limit) in list(&object["spec"]["limits"]) {
        let at = format!("spec.limits[{i}]");
        let sort = text(&limit["type"]);
        c.required_name(&format!("{at}.type"), sort, names::qualified);
        if !sort.is_empty() && !sort.contains('/') && !["Container", "PersistentVolumeClaim", "Pod"].contains(&sort) {
            c.invalid(format!("{at}.type"), sort, "must be a standard limit type or fully qualified");
        }
        if !seen.insert(sort) {
            c.duplicate(format!("{at}.type"), sort);
        }
        if sort == "Pod" {
            for field in ["default", "defaultRequest"] {
                if limit[field].as_object().is_some_and(|amounts| !amounts.is_empty()) {
                    c.forbidden(format!("{at}.{field}"), "may not be specified when `type` is 'Pod'");
                }
            }
        }
        if sort == "PersistentVolumeClaim" && !there(&limit["min"]["storage"]) && !there(&limit["max"]["storage"]) {
            let why = "either minimum or maximum storage value is required, but neither was provided";
            c.required(format!("{at}.limits"), why);
        }
        amounts(&mut c, &at, limit);
    }
    c.0
}

/// What a limit's amounts must be to each other: at least, by default requested, by default at most, at most.
fn amounts(c: &mut Causes, at: &str, limit: &Value) {
    const ORDER: &[(&str, &str)] =
        &[("min", "min"), ("defaultRequest", "default request"), ("default", "default"), ("max", "max")];
    let mut by_resource: BTreeMap<&str, Vec<(usize, Quantity, &str)>> = BTreeMap::new();
    for (place, (field, _)) in ORDER.iter().enumerate() {
        for (resource, amount) in limit[*field].as_object().into_iter().flatten() {
            c.name(&format!("{at}.{field}[{resource}]"), resource, names::qualified);
            if let Ok(parsed) = text(amount).parse() {
                by_resource.entry(resource).or_default().push((place, parsed, text(amount)));
            }
        }
    }
    for (resource, found) in by_resource {
        for (i, (low, less, less_text)) in found.iter().enumerate() {
            for (high, more, more_text) in found.iter().skip(i + 1) {
                if less > more {
                    // The blame is on the one that has a default, else on the least.
                    let (field, value) =
                        if *low == 0 && *high != 3 { (ORDER[*high].0, more_text) } else { (ORDER[*low].0, less_text) };
                    let (low, high) = (ORDER[*low].1, ORDER[*high].1);
                    let high = if low == "default request" && high == "default" { "default limit" } else { high };
                    let why = format!("{low} value {less_text} is greater than {high} value {more_text}");
                    c.invalid(format!("{at}.{field}[{resource}]"), *value, &why);
                }
            }
        }
    }
    let one = "1".parse::<Quantity>().expect("one is a quantity");
    for (resource, ratio) in limit["maxLimitRequestRatio"].as_object().unwrap_or(&Map::new()) {
        if text(ratio).parse::<Quantity>().is_ok_and(|q| q < one) {
            let why = format!("ratio {} is less than 1", text(ratio));
            c.invalid(format!("{at}.maxLimitRequestRatio[{resource}]"), text(ratio), &why);
        }
    }
}

/// Priority classes.
pub fn priority_class(object: &Value, old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let (name, value) = (text(&object["metadata"]["name"]), object["value"].as_i64().unwrap_or(0));
    if name.starts_with("system-") {
        if !SYSTEM_CLASSES.contains(&(name, value)) {
            let why = "priority class names with 'system-' prefix are reserved for system use only";
            c.forbidden("metadata.name", why);
        }
    } else if value > HIGHEST_PRIORITY {
        c.forbidden("value", &format!("maximum allowed value of a user defined priority is {HIGHEST_PRIORITY}"));
    }
    c.one_of("preemptionPolicy", &object["preemptionPolicy"], &["Never", "PreemptLowerPriority"]);
    if let Some(old) = old {
        if value != old["value"].as_i64().unwrap_or(0) {
            c.forbidden("value", "may not be changed in an update.");
        }
        c.immutable("preemptionPolicy", &object["preemptionPolicy"], &old["preemptionPolicy"]);
    }
    c.0
}

/// Disruption budgets.
pub fn disruption_budget(object: &Value, _old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    if there(&spec["minAvailable"]) && there(&spec["maxUnavailable"]) {
        c.invalid("spec", spec.clone(), "minAvailable and maxUnavailable cannot be both set");
    }
    for field in ["minAvailable", "maxUnavailable"] {
        let at = format!("spec.{field}");
        let share = super::share(&mut c, &at, &spec[field]);
        if spec[field].is_string() && share.is_some_and(|percent| percent > 100) {
            c.invalid(at, spec[field].clone(), "must not be greater than 100%");
        }
    }
    c.selector("spec.selector", &spec["selector"]);
    c.one_of("spec.unhealthyPodEvictionPolicy", &spec["unhealthyPodEvictionPolicy"], &["AlwaysAllow", "IfHealthyBudget"]);
    c.0
}
