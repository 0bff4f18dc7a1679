//! Quotas, limits, priorities, disruption budgets, autoscalers.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{AGE, Column, NAME, int, list, number, or, text};

/// Columns of LimitRanges: when they were made.
pub const CREATED: &[Column] = &[NAME, text("Created At", |o, _| or(&o["metadata"]["creationTimestamp"], "<unknown>"))];

/// Columns of ResourceQuotas.
pub const RESOURCE_QUOTA: &[Column] =
    &[NAME, text("Request", |o, _| used(o, false).into()), text("Limit", |o, _| used(o, true).into()), AGE];

/// Columns of PriorityClasses.
pub const PRIORITY_CLASS: &[Column] = &[
    NAME,
    number("Value", |o, _| int(&o["value"]).into()),
    Column { name: "Global-Default", r#type: "boolean", priority: 0, cell: |o, _| (o["globalDefault"] == true).into() },
    AGE,
    text("PreemptionPolicy", |o, _| or(&o["preemptionPolicy"], "")),
];

/// Columns of PodDisruptionBudgets.
pub const DISRUPTION_BUDGET: &[Column] = &[
    NAME,
    text("Min Available", |o, _| amount(&o["spec"]["minAvailable"]).into()),
    text("Max Unavailable", |o, _| amount(&o["spec"]["maxUnavailable"]).into()),
    number("Allowed Disruptions", |o, _| int(&o["status"]["disruptionsAllowed"]).into()),
    AGE,
];

/// Columns of HorizontalPodAutoscalers.
pub const AUTOSCALER: &[Column] = &[
    NAME,
    text("Reference", |o, _| {
        let target = &o["spec"]["scaleTargetRef"];
        format!("{}/{}", target["kind"].as_str().unwrap_or(""), target["name"].as_str().unwrap_or("")).into()
    }),
    text("Targets", |o, _| targets(o).into()),
    text("MinPods", |o, _| o["spec"]["minReplicas"].as_i64().map_or("<unset>".to_owned(), |n| n.to_string()).into()),
    number("MaxPods", |o, _| int(&o["spec"]["maxReplicas"]).into()),
    number("Replicas", |o, _| int(&o["status"]["currentReplicas"]).into()),
    AGE,
];

/// What is used of what is allowed: `cpu: 0/2, pods: 1/10`.
fn used(quota: &Value, limits: bool) -> String {
    let (hard, used) = (&quota["status"]["hard"], &quota["status"]["used"]);
    let names: BTreeSet<&String> = quota["spec"]["hard"].as_object().into_iter().flatten().map(|(name, _)| name).collect();
    let amount = |of: &Value, name: &str| of[name].as_str().unwrap_or("0").to_owned();
    let parts = names.into_iter().filter(|name| name.starts_with("limits.") == limits);
    parts.map(|name| format!("{name}: {}/{}", amount(used, name), amount(hard, name))).collect::<Vec<_>>().join(", ")
}

/// A number or a share, `N/A` where there is none.
fn amount(value: &Value) -> String {
    match value {
        Value::String(share) => share.clone(),
        Value::Number(count) => count.to_string(),
        _ => "N/A".to_owned(),
    }
}

/// What is measured against what is wanted: `cpu: 35%/80%`, two at most.
fn targets(object: &Value) -> String {
    let wanted = list(&object["spec"]["metrics"]);
    let measured = list(&object["status"]["currentMetrics"]);
    let shown: Vec<String> = wanted.iter().enumerate().map(|(n, metric)| target(metric, measured.get(n))).collect();
    match shown.len() {
        0 => "<none>".to_owned(),
        1 | 2 => shown.join(", "),
        count => format!("{} + {} more...", shown[..2].join(", "), count - 2),
    }
}

fn target(metric: &Value, measured: Option<&Value>) -> String {
    let (field, named) = match metric["type"].as_str() {
        Some("Resource") => ("resource", true),
        Some("ContainerResource") => ("containerResource", true),
        Some("External") => ("external", false),
        Some("Object") => ("object", false),
        Some("Pods") => ("pods", false),
        _ => return "<unknown type>".to_owned(),
    };
    let wanted = &metric[field]["target"];
    let current = measured.map_or(&Value::Null, |m| &m[field]["current"]);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let share = |value: &Value| value.as_i64().map(|n| format!("{n}%"));
    let unknown = || "<unknown>".to_owned();
    // An average is shown as such where a plain value would be possible as well.
    let average = if named || field == "pods" { "" } else { " (avg)" };
    let pair = if let Some(wanted) = text(&wanted["averageValue"]) {
        format!("{}/{wanted}{average}", text(&current["averageValue"]).unwrap_or_else(unknown))
    } else if let Some(wanted) = text(&wanted["value"]) {
        format!("{}/{wanted}", text(&current["value"]).unwrap_or_else(unknown))
    } else {
        let wanted = share(&wanted["averageUtilization"]).unwrap_or_else(|| "<auto>".to_owned());
        format!("{}/{wanted}", share(&current["averageUtilization"]).unwrap_or_else(unknown))
    };
    match metric[field]["name"].as_str().filter(|_| named) {
        Some(name) => format!("{name}: {pair}"),
        None => pair,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::show;
    use super::*;

    #[test]
    fn quotas_limits_and_priorities() {
        let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "2", "limits.cpu": "4", "pods": "10"}}, "status": {
            "hard": {"requests.cpu": "2", "limits.cpu": "4", "pods": "10"}, "used": {"requests.cpu": "500m", "limits.cpu": "1", "pods": "3"}}});
        assert_eq!(show(RESOURCE_QUOTA, &quota), "q | pods: 3/10, requests.cpu: 500m/2 | limits.cpu: 1/4 | <unknown>");
        let limits = json!({"metadata": {"name": "l", "creationTimestamp": "2026-11-21T10:00:00Z"}});
        assert_eq!(show(CREATED, &limits), "l | 2026-11-21T10:00:00Z");
        let class = json!({"metadata": {"name": "high"}, "value": 1000, "globalDefault": true, "preemptionPolicy": "Never"});
        assert_eq!(show(PRIORITY_CLASS, &class), "high | 1000 | true | <unknown> | Never");
    }

    #[test]
    fn budgets() {
        let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1}});
        assert_eq!(show(DISRUPTION_BUDGET, &budget), "b | 50% | N/A | 1 | <unknown>");
    }

    #[test]
    fn autoscalers() {
        let resource = |name: &str, target: Value| json!({"type": "Resource", "resource": {"name": name, "target": target}});
        let cpu = resource("cpu", json!({"type": "Utilization", "averageUtilization": 80}));
        let memory = resource("memory", json!({"type": "AverageValue", "averageValue": "1Gi"}));
        let other = json!({"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "30"}}});
        let object = |metrics: Value, current: Value| {
            json!({"metadata": {"name": "web"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"},
                "minReplicas": 1, "maxReplicas": 5, "metrics": metrics}, "status": {"currentReplicas": 2, "currentMetrics": current}})
        };
        let now = json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 35, "averageValue": "70m"}}}]);
        assert_eq!(show(AUTOSCALER, &object(json!([cpu]), now)), "web | Deployment/web | cpu: 35%/80% | 1 | 5 | 2 | <unknown>");
        assert_eq!(
            show(AUTOSCALER, &object(json!([cpu, memory, other]), json!([]))),
            "web | Deployment/web | cpu: <unknown>/80%, memory: <unknown>/1Gi + 1 more... | 1 | 5 | 2 | <unknown>"
        );
        assert_eq!(show(&AUTOSCALER[2..3], &object(json!([other]), json!([]))), "<unknown>/30 (avg)");
    }
}
