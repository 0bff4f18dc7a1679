//! What runs pods all the time: replica sets' relatives.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::causes::{Causes, list, text, there};
use super::{names, pod, replicated, share, storage};
use crate::object::selector::LabelSelector;

/// Replication controllers: like replica sets, with a selector that only names labels.
pub fn replication_controller(object: &Value, _old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    for field in ["replicas", "minReadySeconds"] {
        c.not_negative(&format!("spec.{field}"), &spec[field]);
    }
    let selector: BTreeMap<String, String> = serde_json::from_value(spec["selector"].clone()).unwrap_or_default();
    if selector.is_empty() {
        c.required("spec.selector", "");
    }
    c.labels("spec.selector", &spec["selector"]);
    let template = &spec["template"];
    if !there(template) {
        c.required("spec.template", "");
        return c.0;
    }
    let labels: BTreeMap<String, String> = serde_json::from_value(template["metadata"]["labels"].clone()).unwrap_or_default();
    if !selector.is_empty() && !LabelSelector::of_map(&selector).matches_labels(&labels) {
        c.invalid("spec.template.metadata.labels", json!(labels), "`selector` does not match template `labels`");
    }
    pod::template(&mut c, "spec.template", template, "ReplicationController");
    c.0
}

/// Pod templates that stand alone.
pub fn pod_template(object: &Value, _old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    if !there(&object["template"]) {
        c.required("template", "");
    } else {
        pod::template_parts(&mut c, "template", &object["template"]);
    }
    c.0
}

/// Fields of a stateful set's spec that may change.
const MAY_CHANGE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// Stateful sets.
pub fn stateful_set(object: &Value, old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        c.not_negative(&format!("spec.{field}"), &spec[field]);
    }
    c.not_negative("spec.ordinals.start", &spec["ordinals"]["start"]);
    match text(&spec["podManagementPolicy"]) {
        "OrderedReady" | "Parallel" => {}
        "" => c.required("spec.podManagementPolicy", ""),
        other => c.invalid("spec.podManagementPolicy", other, "must be 'OrderedReady' or 'Parallel'"),
    }
    let strategy = &spec["updateStrategy"];
    match text(&strategy["type"]) {
        "OnDelete" if there(&strategy["rollingUpdate"]) => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            c.invalid("spec.updateStrategy.rollingUpdate", strategy["rollingUpdate"].clone(), why);
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            let at = "spec.updateStrategy.rollingUpdate";
            c.not_negative(&format!("{at}.partition"), &strategy["rollingUpdate"]["partition"]);
            if there(&strategy["rollingUpdate"]["maxUnavailable"]) {
                let at = format!("{at}.maxUnavailable");
                if share(&mut c, &at, &strategy["rollingUpdate"]["maxUnavailable"]) == Some(0) {
                    c.invalid(at, strategy["rollingUpdate"]["maxUnavailable"].clone(), "cannot be 0");
                }
            }
        }
        "" => c.required("spec.updateStrategy", ""),
        other => c.invalid("spec.updateStrategy", other, "must be 'RollingUpdate' or 'OnDelete'"),
    }
    for field in ["whenDeleted", "whenScaled"] {
        let at = format!("spec.persistentVolumeClaimRetentionPolicy.{field}");
        c.one_of(&at, &spec["persistentVolumeClaimRetentionPolicy"][field], &["Delete", "Retain"]);
    }
    if !text(&spec["serviceName"]).is_empty() {
        c.name("spec.serviceName", text(&spec["serviceName"]), names::service);
    }
    let mut with_claims = object.clone();
    for (i, claim) in list(&spec["volumeClaimTemplates"]) {
        let at = format!("spec.volumeClaimTemplates[{i}].");
        c.required_name(&format!("{at}metadata.name"), text(&claim["metadata"]["name"]), names::subdomain);
        storage::claim_spec(&mut c, &at, &claim["spec"]);
        mountable(&mut with_claims, text(&claim["metadata"]["name"]));
    }
    replicated(&mut c, &with_claims, None, "StatefulSet");
    if let Some(old) = old {
        let rest = |set: &Value| {
            let fields = set["spec"].as_object().into_iter().flatten();
            fields
                .filter(|(name, _)| !MAY_CHANGE.contains(&name.as_str()))
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect::<Vec<_>>()
        };
        if rest(object) != rest(old) {
            let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                       'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
            c.forbidden("spec", why);
        }
    }
    c.0
}

/// Adds what a claim becomes in the pods, so that their containers can mount it. Where the pods have a volume of that name, that goes.
fn mountable(object: &mut Value, claim: &str) {
    let Some(pod) = object["spec"]["template"].get_mut("spec").and_then(Value::as_object_mut) else { return };
    let volumes = pod.entry("volumes").or_insert_with(|| json!([]));
    if let Some(volumes) = volumes.as_array_mut()
        && !claim.is_empty()
        && !volumes.iter().any(|volume| volume["name"] == claim)
    {
        volumes.push(json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}));
    }
}

/// Daemon sets.
pub fn daemon_set(object: &Value, old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    for field in ["minReadySeconds", "revisionHistoryLimit"] {
        c.not_negative(&format!("spec.{field}"), &spec[field]);
    }
    let strategy = &spec["updateStrategy"];
    c.one_of("spec.updateStrategy.type", &strategy["type"], &["OnDelete", "RollingUpdate"]);
    if strategy["type"] == "RollingUpdate" {
        let rolling = &strategy["rollingUpdate"];
        let at = "spec.updateStrategy.rollingUpdate";
        let unavailable = share(&mut c, &format!("{at}.maxUnavailable"), &rolling["maxUnavailable"]).unwrap_or(0);
        let surge = share(&mut c, &format!("{at}.maxSurge"), &rolling["maxSurge"]).unwrap_or(0);
        match (unavailable != 0, surge != 0) {
            (true, true) => {
                let why = "may not be set when maxUnavailable is non-zero";
                c.invalid(format!("{at}.maxSurge"), rolling["maxSurge"].clone(), why);
            }
            (false, false) => c.required(format!("{at}.maxUnavailable"), "cannot be 0 when maxSurge is 0"),
            _ => {}
        }
    }
    replicated(&mut c, object, old, "DaemonSet");
    c.0
}

/// Controller revisions: a snapshot does not change.
pub fn controller_revision(object: &Value, old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    if !there(&object["data"]) {
        c.required("data", "data is mandatory");
    }
    c.not_negative("revision", &object["revision"]);
    if let Some(old) = old {
        c.immutable("data", &object["data"], &old["data"]);
    }
    c.0
}
