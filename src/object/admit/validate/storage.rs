//! Volumes, claims, storage classes.

use serde_json::Value;

use super::causes::{Causes, list, text, there};
use super::{names, pod};
use crate::object::quantity::Quantity;

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];

/// Fields of a PersistentVolume's spec that do not say where it comes from.
const NOT_A_SOURCE: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn sources(spec: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let fields = spec.as_object().into_iter().flatten();
    fields.filter(|(name, value)| !NOT_A_SOURCE.contains(&name.as_str()) && there(value))
}

/// Volumes.
pub fn volume(object: &Value, old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    access_modes(&mut c, spec, "");
    let capacity = &spec["capacity"];
    if capacity.as_object().is_none_or(serde_json::Map::is_empty) {
        c.required("spec.capacity", "");
    }
    for (resource, amount) in capacity.as_object().into_iter().flatten() {
        let at = format!("spec.capacity[{resource}]");
        if resource == "storage" {
            above_zero(&mut c, &at, amount);
        } else {
            c.unsupported("spec.capacity", resource, &["storage"]);
        }
    }
    c.one_of("spec.persistentVolumeReclaimPolicy", &spec["persistentVolumeReclaimPolicy"], &["Delete", "Recycle", "Retain"]);
    c.one_of("spec.volumeMode", &spec["volumeMode"], VOLUME_MODES);
    if !text(&spec["storageClassName"]).is_empty() {
        c.name("spec.storageClassName", text(&spec["storageClassName"]), names::subdomain);
    }
    volume_source(&mut c, spec);
    if let Some(old) = old {
        let of = |spec: &Value| sources(spec).map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>();
        if of(spec) != of(&old["spec"]) {
            c.forbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation");
        }
        c.immutable("spec.volumeMode", &spec["volumeMode"], &old["spec"]["volumeMode"]);
    }
    c.0
}

fn volume_source(c: &mut Causes, spec: &Value) {
    let mut sources = sources(spec);
    match sources.next() {
        None => c.required("spec", "must specify a volume type"),
        Some(_) => {
            sources.for_each(|(second, _)| c.forbidden(format!("spec.{second}"), "may not specify more than 1 volume type"))
        }
    }
    pod::host_path(c, "spec", spec);
    let needed: &[(&str, &[&str])] = &[
        ("nfs", &["server", "path"]),
        ("csi", &["driver", "volumeHandle"]),
        ("local", &["path"]),
        ("iscsi", &["targetPortal", "iqn"]),
        ("cephfs", &["monitors"]),
        ("rbd", &["monitors", "image"]),
        ("glusterfs", &["endpoints", "path"]),
        ("flexVolume", &["driver"]),
    ];
    for (source, fields) in needed.iter().filter(|(source, _)| there(&spec[*source])) {
        for field in *fields {
            let found = &spec[*source][*field];
            if text(found).is_empty() && found.as_array().is_none_or(Vec::is_empty) {
                c.required(format!("spec.{source}.{field}"), "");
            }
        }
    }
    if there(&spec["local"]) && !there(&spec["nodeAffinity"]["required"]) {
        c.required("spec.nodeAffinity", "Local volume requires node affinity");
    }
    let required = &spec["nodeAffinity"]["required"];
    if there(required) {
        pod::node_selector(c, "spec.nodeAffinity.required", required);
    }
}

fn access_modes(c: &mut Causes, spec: &Value, why: &str) {
    let modes = &spec["accessModes"];
    if modes.as_array().is_none_or(Vec::is_empty) {
        c.required("spec.accessModes", why);
    }
    for (_, mode) in list(modes) {
        c.one_of("spec.accessModes", mode, ACCESS_MODES);
    }
    let alone = list(modes).any(|(_, mode)| mode == "ReadWriteOncePod");
    if alone && modes.as_array().is_some_and(|modes| modes.len() > 1) {
        c.forbidden("spec.accessModes", "may not use ReadWriteOncePod with other access modes");
    }
}

fn above_zero(c: &mut Causes, at: &str, amount: &Value) {
    let zero = "0".parse::<Quantity>().expect("zero is a quantity");
    if text(amount).parse::<Quantity>().is_ok_and(|amount| amount <= zero) {
        c.invalid(at, text(amount), "must be greater than zero");
    }
}

/// Claims.
pub fn claim(object: &Value, old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    claim_spec(&mut c, "", &object["spec"]);
    if let Some(old) = old {
        claim_update(&mut c, object, old);
    }
    c.0
}

/// The spec of a claim, at `below` + `spec`.
pub(super) fn claim_spec(c: &mut Causes, below: &str, spec: &Value) {
    let mut own = Causes::default();
    access_modes(&mut own, spec, "at least 1 access mode is required");
    own.selector("spec.selector", &spec["selector"]);
    let requests = &spec["resources"]["requests"];
    match &requests["storage"] {
        Value::Null => own.required("spec.resources[storage]", ""),
        amount => above_zero(&mut own, "spec.resources[storage]", amount),
    }
    if !text(&spec["storageClassName"]).is_empty() {
        own.name("spec.storageClassName", text(&spec["storageClassName"]), names::subdomain);
    }
    own.one_of("spec.volumeMode", &spec["volumeMode"], VOLUME_MODES);
    for field in ["dataSource", "dataSourceRef"] {
        if there(&spec[field]) {
            own.required_text(&format!("spec.{field}.name"), &spec[field]["name"]);
            own.required_text(&format!("spec.{field}.kind"), &spec[field]["kind"]);
        }
    }
    c.0.extend(own.0.into_iter().map(|cause| super::Cause { field: format!("{below}{}", cause.field), ..cause }));
}

/// A claim is what was asked for; only its size may grow, once it has a volume.
fn claim_update(c: &mut Causes, new: &Value, old: &Value) {
    let bare = |claim: &Value| {
        let mut spec = claim["spec"].clone();
        if let Some(fields) = spec.as_object_mut() {
            fields.remove("volumeAttributesClassName");
            // Who binds it writes the volume, and who decides on a class late writes the class.
            for (field, was) in
                [("volumeName", &old["spec"]["volumeName"]), ("storageClassName", &old["spec"]["storageClassName"])]
            {
                if text(was).is_empty() && !(field == "storageClassName" && there(was)) {
                    fields.remove(field);
                }
            }
            if old["status"]["phase"] == "Bound"
                && let Some(requests) =
                    fields.get_mut("resources").and_then(|r| r.get_mut("requests")).and_then(Value::as_object_mut)
            {
                requests.remove("storage");
            }
        }
        spec
    };
    if bare(new) != bare(old) {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        c.forbidden("spec", why);
    }
    let size = |claim: &Value| text(&claim["spec"]["resources"]["requests"]["storage"]).parse::<Quantity>().ok();
    let has = text(&old["status"]["capacity"]["storage"]).parse::<Quantity>().ok();
    if let (Some(is), Some(was)) = (size(new), size(old))
        && is < was
        && has.is_none_or(|has| is <= has)
    {
        c.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity");
    }
}

/// Storage classes.
pub fn class(object: &Value, old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let provisioner = text(&object["provisioner"]);
    c.required_name("provisioner", &provisioner.to_lowercase(), names::qualified);
    c.one_of("reclaimPolicy", &object["reclaimPolicy"], &["Delete", "Retain"]);
    c.one_of("volumeBindingMode", &object["volumeBindingMode"], &["Immediate", "WaitForFirstConsumer"]);
    let parameters = object["parameters"].as_object();
    let size: usize = parameters.into_iter().flatten().map(|(name, value)| name.len() + text(value).len()).sum();
    if size > 256 * 1024 {
        c.too_long("parameters", 256 * 1024);
    }
    if parameters.is_some_and(|all| all.len() > 512) {
        c.too_many("parameters", parameters.map_or(0, serde_json::Map::len), 512);
    }
    if parameters.is_some_and(|all| all.contains_key("")) {
        c.invalid("parameters", "", "field can not be empty.");
    }
    if let Some(old) = old {
        let empty = |value: &Value| value.as_object().is_none_or(serde_json::Map::is_empty);
        if object["parameters"] != old["parameters"] && !(empty(&object["parameters"]) && empty(&old["parameters"])) {
            c.forbidden("parameters", "updates to parameters are forbidden.");
        }
        for field in ["provisioner", "reclaimPolicy"] {
            if object[field] != old[field] {
                c.forbidden(field, &format!("updates to {field} are forbidden."));
            }
        }
        c.immutable("volumeBindingMode", &object["volumeBindingMode"], &old["volumeBindingMode"]);
    }
    c.0
}
