//! Limits and priorities.

use serde_json::Value;

use super::{Fields, child, fields, fill, structures};

/// A limit range: what a container gets that states nothing.
pub fn limit_range(object: &mut Value) {
    let Some(spec) = fields(object).and_then(|o| child(o, "spec")) else { return };
    for limit in structures(spec, "limits").filter(|l| l.get("type").is_some_and(|t| t == "Container")) {
        // The limit is the most that is allowed, the request the limit, else the least that is allowed.
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let Some(amounts) = limit.get(from).and_then(Value::as_object).filter(|a| !a.is_empty()).cloned() else { continue };
            inherit(limit, to, amounts);
        }
    }
}

fn inherit(limit: &mut Fields, to: &str, amounts: Fields) {
    let Some(target) = child(limit, to) else { return };
    for (resource, amount) in amounts {
        target.entry(resource).or_insert(amount);
    }
}

/// A priority class.
pub fn priority_class(object: &mut Value) {
    let Some(object) = fields(object) else { return };
    fill(object, "preemptionPolicy", "PreemptLowerPriority");
    // Go leaves its zero out where it writes, and reads it where it is left out: the number is always there.
    fill(object, "value", 0);
    if object.get("globalDefault").is_some_and(|d| *d == Value::Bool(false)) {
        object.remove("globalDefault");
    }
}
