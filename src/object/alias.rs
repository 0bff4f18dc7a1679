//! Rows that show another row's objects in other words: events of `events.k8s.io`, autoscalers of `autoscaling/v1`.
//!
//! Only the words differ, never what is stored. What has no place in the older words travels in the annotations that Kubernetes uses
//! for it, so that reading in one version and writing back in the other loses nothing.

use serde_json::{Map, Value, json};

use super::kind::Alias;

/// Events as `events.k8s.io/v1` writes them.
pub(super) const EVENT: Alias = Alias { of: "v1", store: event_stored, show: event_shown };
/// Autoscalers as `autoscaling/v1` writes them.
pub(super) const AUTOSCALER_V1: Alias = Alias { of: "autoscaling/v2", store: autoscaler_stored, show: autoscaler_shown };

/// What the two kinds of Event call the same things: `events.k8s.io`, then core.
const EVENT_WORDS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn event_stored(event: &mut Value) {
    rename(event, EVENT_WORDS.iter().map(|(new, old)| (*new, *old)));
    // An event about nothing in particular still has the field in the core group.
    if let Some(fields) = event.as_object_mut() {
        fields.entry("involvedObject").or_insert_with(|| json!({}));
    }
}

fn event_shown(event: &mut Value) {
    rename(event, EVENT_WORDS.iter().map(|(new, old)| (*old, *new)));
}

fn rename<'a>(value: &mut Value, words: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(fields) = value.as_object_mut() else { return };
    for (from, to) in words {
        if let Some(found) = fields.remove(from) {
            fields.insert(to.to_owned(), found);
        }
    }
}

/// Where `autoscaling/v1` keeps what it has no words for: annotation, then the field of v2.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// The metric that `autoscaling/v1` has a field for: the share of the requested CPU.
fn is_cpu_share(metric: &Value, about: &str) -> bool {
    let resource = &metric["resource"];
    metric["type"] == "Resource" && resource["name"] == "cpu" && resource[about]["averageUtilization"].is_number()
}

fn autoscaler_stored(object: &mut Value) {
    let kept = |object: &mut Value, name: &str| -> Option<Value> {
        let annotations = object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
        serde_json::from_str(annotations.remove(name)?.as_str()?).ok()
    };
    let mut metrics: Vec<Value> = kept(object, METRICS).and_then(|v| v.as_array().cloned()).unwrap_or_default();
    let (current, conditions) = (kept(object, CURRENT_METRICS), kept(object, CONDITIONS));
    let behavior = kept(object, BEHAVIOR);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && metadata.get("annotations").and_then(Value::as_object).is_some_and(Map::is_empty)
    {
        metadata.remove("annotations");
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        if let Some(share) = spec.remove("targetCPUUtilizationPercentage").filter(|v| !v.is_null()) {
            let target = json!({"type": "Utilization", "averageUtilization": share});
            metrics.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        if !metrics.is_empty() {
            spec.insert("metrics".to_owned(), metrics.into());
        }
        if let Some(behavior) = behavior {
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let mut metrics: Vec<Value> = current.and_then(|v| v.as_array().cloned()).unwrap_or_default();
        if let Some(share) = status.remove("currentCPUUtilizationPercentage").filter(|v| !v.is_null())
            && !metrics.iter().any(|m| is_cpu_share(m, "current"))
        {
            metrics.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": share}}}));
        }
        if !metrics.is_empty() {
            status.insert("currentMetrics".to_owned(), metrics.into());
        }
        if let Some(conditions) = conditions {
            status.insert("conditions".to_owned(), conditions);
        }
    }
}

fn autoscaler_shown(object: &mut Value) {
    let mut notes: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        if let Some(Value::Array(mut metrics)) = spec.remove("metrics") {
            if let Some(place) = metrics.iter().position(|m| is_cpu_share(m, "target")) {
                let cpu = metrics.remove(place);
                let share = cpu["resource"]["target"]["averageUtilization"].clone();
                spec.insert("targetCPUUtilizationPercentage".to_owned(), share);
            }
            if !metrics.is_empty() {
                notes.push((METRICS, metrics.into()));
            }
        }
        notes.extend(spec.remove("behavior").map(|behavior| (BEHAVIOR, behavior)));
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        if let Some(Value::Array(metrics)) = status.remove("currentMetrics") {
            if let Some(cpu) = metrics.iter().find(|m| is_cpu_share(m, "current")) {
                let share = cpu["resource"]["current"]["averageUtilization"].clone();
                status.insert("currentCPUUtilizationPercentage".to_owned(), share);
            }
            if !metrics.is_empty() {
                notes.push((CURRENT_METRICS, metrics.into()));
            }
        }
        notes.extend(status.remove("conditions").map(|conditions| (CONDITIONS, conditions)));
    }
    for (name, value) in notes {
        object["metadata"]["annotations"][name] = value.to_string().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{KINDS, Kind};

    /// Shows a stored object in the words of another version, and stores it again.
    fn there_and_back(api_version: &str, kind: &str, stored: &Value) -> Value {
        let row = Kind::of(api_version, kind).unwrap();
        let shown = row.show(stored.clone());
        assert_eq!(shown["apiVersion"], api_version);
        assert_eq!(&row.store(shown.clone()), stored, "{shown}");
        shown
    }

    #[test]
    fn events() {
        let stored = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p"},
            "message": "Pulled", "reason": "Pulled", "source": {"component": "kubelet"}, "count": 3, "firstTimestamp": "a", "type": "Normal",
        });
        let shown = there_and_back("events.k8s.io/v1", "Event", &stored);
        assert_eq!(shown["regarding"]["name"], "p");
        assert_eq!((&shown["note"], &shown["deprecatedCount"]), (&json!("Pulled"), &json!(3)));
        assert!(shown.get("message").is_none() && shown.get("involvedObject").is_none());
    }

    #[test]
    fn autoscalers() {
        let cpu =
            json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}});
        let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
        let stored = |metrics: Value| {
            json!({
                "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
                "spec": {"maxReplicas": 5, "metrics": metrics, "behavior": {"scaleDown": {"selectPolicy": "Max"}}},
            })
        };
        let shown = there_and_back("autoscaling/v1", "HorizontalPodAutoscaler", &stored(json!([cpu, memory])));
        assert_eq!(shown["spec"]["targetCPUUtilizationPercentage"], 70);
        assert!(shown["metadata"]["annotations"][METRICS].as_str().unwrap().contains("memory"));
        assert!(shown["spec"].get("metrics").is_none() && shown["spec"].get("behavior").is_none());
        there_and_back("autoscaling/v1", "HorizontalPodAutoscaler", &stored(json!([memory])));
    }

    #[test]
    fn every_alias_has_the_fields_of_its_original() {
        for row in KINDS.iter().filter(|row| row.alias.is_some()) {
            let original = row.stored();
            assert!(
                original.alias.is_none() && original.namespaced == row.namespaced && original.plural == row.plural,
                "{row:?}"
            );
            assert!(row.selectable.len() <= original.selectable.len(), "{row:?}");
            assert_eq!(row.subresources, original.subresources, "{row:?}");
        }
    }
}
