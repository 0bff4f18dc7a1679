//! Autoscalers.

use serde_json::{Value, json};

use super::{Fields, at, child, fields, fill};

/// An autoscaler: what it measures, and how fast it may go where its author says anything about that.
pub fn autoscaler(object: &mut Value) {
    let Some(spec) = fields(object).and_then(|o| child(o, "spec")) else { return };
    fill(spec, "minReplicas", 1);
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        spec.insert("metrics".to_owned(), json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    }
    if let Some(behavior) = at(spec, &["behavior"]).filter(|b| !b.is_empty()) {
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        if let Some(up) = child(behavior, "scaleUp") {
            fill(up, "stabilizationWindowSeconds", 0);
            direction(up, json!([pods, percent]));
        }
        if let Some(down) = child(behavior, "scaleDown") {
            direction(down, json!([percent]));
        }
    }
}

fn direction(rules: &mut Fields, policies: Value) {
    fill(rules, "selectPolicy", "Max");
    if rules.get("policies").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        rules.insert("policies".to_owned(), policies);
    }
}
