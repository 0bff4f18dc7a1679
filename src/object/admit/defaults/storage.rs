//! Volumes, claims and storage classes, and the sources of volumes that pods and volumes share.

use serde_json::{Value, json};

use super::{Fields, at, child, fields, fill};

/// A volume.
pub fn volume(object: &mut Value) {
    let Some(spec) = fields(object).and_then(|o| child(o, "spec")) else { return };
    fill(spec, "persistentVolumeReclaimPolicy", "Retain");
    fill(spec, "volumeMode", "Filesystem");
    source(spec);
}

/// A claim. Its class is not here: which one is the default is known to the cluster.
pub fn claim(object: &mut Value) {
    let Some(object) = fields(object) else { return };
    claim_spec(object);
}

/// The spec of a claim or of a claim's template.
pub(super) fn claim_spec(claim: &mut Fields) {
    if let Some(spec) = claim.get_mut("spec").and_then(Value::as_object_mut) {
        fill(spec, "volumeMode", "Filesystem");
    }
}

/// A storage class.
pub fn class(object: &mut Value) {
    let Some(object) = fields(object) else { return };
    fill(object, "reclaimPolicy", "Delete");
    fill(object, "volumeBindingMode", "Immediate");
}

/// Where a volume comes from: what is the same in a pod and in a PersistentVolume.
pub(super) fn source(volume: &mut Fields) {
    const DEFAULTS: &[(&str, &[(&str, &str)])] = &[
        ("hostPath", &[("type", "")]),
        ("iscsi", &[("iscsiInterface", "default")]),
        ("rbd", &[("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")]),
        ("azureDisk", &[("cachingMode", "ReadWrite"), ("kind", "Shared"), ("fsType", "ext4")]),
        ("scaleIO", &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")]),
    ];
    for (name, defaults) in DEFAULTS {
        if let Some(found) = at(volume, &[name]) {
            for (field, default) in *defaults {
                fill(found, field, *default);
            }
        }
    }
    if let Some(disk) = at(volume, &["azureDisk"]) {
        fill(disk, "readOnly", false);
    }
    // A claim that a pod brings along.
    if let Some(template) = at(volume, &["ephemeral", "volumeClaimTemplate"]) {
        claim_spec(template);
    }
}

/// A claim within a StatefulSet, which Kubernetes shows as a whole claim.
pub(super) fn claim_template(claim: &mut Fields) {
    fill(claim, "apiVersion", "v1");
    fill(claim, "kind", "PersistentVolumeClaim");
    claim_spec(claim);
    if let Some(status) = child(claim, "status") {
        *status = json!({"phase": "Pending"}).as_object().cloned().unwrap_or_default();
    }
}
