//! Autoscalers.

use serde_json::Value;

use super::causes::{Causes, list, text, there};
use super::names;
use crate::object::quantity::Quantity;

/// The longest that an autoscaler may look back, and the longest period of a policy, in seconds.
const WINDOW_AT_MOST: i64 = 3600;
const PERIOD_AT_MOST: i64 = 1800;

/// The sorts of metrics, and the field that each fills.
const SOURCES: &[(&str, &str)] = &[
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

/// Autoscalers.
pub fn autoscaler(object: &Value, _old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    reference(&mut c, "spec.scaleTargetRef", &spec["scaleTargetRef"]);
    let (least, most) = (spec["minReplicas"].as_i64(), spec["maxReplicas"].as_i64().unwrap_or(0));
    // Zero replicas wake up only on a metric that exists without pods.
    let outside = list(&spec["metrics"]).any(|(_, metric)| metric["type"] == "External" || metric["type"] == "Object");
    if least.is_some_and(|n| n < i64::from(!outside)) {
        c.invalid(
            "spec.minReplicas",
            spec["minReplicas"].clone(),
            &format!("must be greater than or equal to {}", i64::from(!outside)),
        );
    }
    if most < 1 {
        c.invalid("spec.maxReplicas", most, "must be greater than 0");
    } else if least.is_some_and(|least| most < least) {
        c.invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`");
    }
    for (i, metric) in list(&spec["metrics"]) {
        self::metric(&mut c, &format!("spec.metrics[{i}]"), metric);
    }
    for direction in ["scaleUp", "scaleDown"] {
        if there(&spec["behavior"][direction]) {
            rules(&mut c, &format!("spec.behavior.{direction}"), &spec["behavior"][direction]);
        }
    }
    c.0
}

fn reference(c: &mut Causes, at: &str, reference: &Value) {
    for field in ["kind", "name"] {
        c.required_name(&format!("{at}.{field}"), text(&reference[field]), names::path_segment);
    }
}

fn metric(c: &mut Causes, at: &str, metric: &Value) {
    let sort = text(&metric["type"]);
    if sort.is_empty() {
        c.required(format!("{at}.type"), "must specify a metric source type");
        return;
    }
    let Some((_, field)) = SOURCES.iter().find(|(name, _)| *name == sort) else {
        let names: Vec<&str> = SOURCES.iter().map(|(name, _)| *name).collect();
        c.unsupported(format!("{at}.type"), sort, &names);
        return;
    };
    for (_, other) in SOURCES.iter().filter(|(_, other)| other != field && there(&metric[*other])) {
        c.forbidden(format!("{at}.{other}"), &format!("must populate the given metric source only, which is {field}"));
    }
    let source = &metric[*field];
    let at = format!("{at}.{field}");
    if !there(source) {
        c.required(at, "must populate information for the given metric source");
        return;
    }
    match *field {
        "resource" | "containerResource" => {
            if text(&source["name"]).is_empty() {
                c.required(format!("{at}.name"), "must specify a resource name");
            }
            if *field == "containerResource" && text(&source["container"]).is_empty() {
                c.required(format!("{at}.container"), "must specify a container");
            }
        }
        _ => c.required_name(&format!("{at}.metric.name"), text(&source["metric"]["name"]), names::path_segment),
    }
    if *field == "object" {
        reference(c, &format!("{at}.describedObject"), &source["describedObject"]);
    }
    if there(&source["metric"]["selector"]) {
        c.selector(&format!("{at}.metric.selector"), &source["metric"]["selector"]);
    }
    target(c, &format!("{at}.target"), field, &source["target"]);
}

fn target(c: &mut Causes, at: &str, source: &str, target: &Value) {
    c.one_of(&format!("{at}.type"), &target["type"], &["AverageValue", "Utilization", "Value"]);
    if !there(&target["type"]) {
        c.required(format!("{at}.type"), "must specify a metric target type");
    }
    let allowed: &[&str] = match source {
        "resource" | "containerResource" => &["averageUtilization", "averageValue"],
        "pods" => &["averageValue"],
        _ => &["value", "averageValue"],
    };
    let given: Vec<&&str> = allowed.iter().filter(|field| there(&target[**field])).collect();
    match given.as_slice() {
        [] => {
            let why = match source {
                "resource" | "containerResource" => "must set either a target raw value or a target utilization",
                "pods" => "must specify a positive target averageValue",
                _ => "must set either a target value for metric or a per-pod target",
            };
            c.required(format!("{at}.{}", allowed[0]), why);
        }
        [_, second, ..] => c.forbidden(format!("{at}.{second}"), "may not set both a target and its average"),
        [_] => {}
    }
    if target["averageUtilization"].as_i64().is_some_and(|share| share < 1) {
        c.invalid(format!("{at}.averageUtilization"), target["averageUtilization"].clone(), "must be greater than 0");
    }
    let zero = "0".parse::<Quantity>().expect("zero is a quantity");
    for field in ["averageValue", "value"] {
        if text(&target[field]).parse::<Quantity>().is_ok_and(|amount| amount <= zero) {
            c.invalid(format!("{at}.{field}"), text(&target[field]), "must be positive");
        }
    }
}

fn rules(c: &mut Causes, at: &str, rules: &Value) {
    let window = &rules["stabilizationWindowSeconds"];
    let field = format!("{at}.stabilizationWindowSeconds");
    match window.as_i64() {
        Some(n) if n < 0 => c.invalid(field, n, "must be greater than or equal to zero"),
        Some(n) if n > WINDOW_AT_MOST => c.invalid(field, n, &format!("must be less than or equal to {WINDOW_AT_MOST}")),
        _ => {}
    }
    c.one_of(&format!("{at}.selectPolicy"), &rules["selectPolicy"], &["Disabled", "Max", "Min"]);
    if rules["policies"].as_array().is_none_or(Vec::is_empty) {
        c.required(format!("{at}.policies"), "must specify at least one Policy");
    }
    for (i, policy) in list(&rules["policies"]) {
        let at = format!("{at}.policies[{i}]");
        c.one_of(&format!("{at}.type"), &policy["type"], &["Percent", "Pods"]);
        for field in ["value", "periodSeconds"] {
            let number = policy[field].as_i64().unwrap_or(0);
            if number <= 0 {
                c.invalid(format!("{at}.{field}"), number, "must be greater than zero");
            } else if field == "periodSeconds" && number > PERIOD_AT_MOST {
                c.invalid(format!("{at}.{field}"), number, &format!("must be less than or equal to {PERIOD_AT_MOST}"));
            }
        }
    }
}
