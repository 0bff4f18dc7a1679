//! Volumes, claims, storage classes.

use serde_json::Value;

use super::{AGE, Column, NAME, list, or, since, text, wide};

/// Columns of PersistentVolumes.
pub const PERSISTENT_VOLUME: &[Column] = &[
    NAME,
    text("Capacity", |o, _| o["spec"]["capacity"]["storage"].as_str().unwrap_or("0").into()),
    text("Access Modes", |o, _| access_modes(&o["spec"]["accessModes"]).into()),
    text("Reclaim Policy", |o, _| or(&o["spec"]["persistentVolumeReclaimPolicy"], "")),
    text("Status", |o, _| phase(o, "Pending").into()),
    text("Claim", |o, _| {
        let claim = &o["spec"]["claimRef"];
        match claim["name"].as_str() {
            Some(name) => format!("{}/{name}", claim["namespace"].as_str().unwrap_or("")).into(),
            None => "".into(),
        }
    }),
    text("StorageClass", |o, _| storage_class(o).into()),
    text("VolumeAttributesClass", |o, _| or(&o["spec"]["volumeAttributesClassName"], "<unset>")),
    text("Reason", |o, _| or(&o["status"]["reason"], "")),
    AGE,
    wide("VolumeMode", |o, _| or(&o["spec"]["volumeMode"], "<unset>")),
];

/// Columns of PersistentVolumeClaims. What a claim has is shown once it has a volume.
pub const PERSISTENT_VOLUME_CLAIM: &[Column] = &[
    NAME,
    text("Status", |o, _| phase(o, "").into()),
    text("Volume", |o, _| or(&o["spec"]["volumeName"], "")),
    text("Capacity", |o, _| match bound(o) {
        true => o["status"]["capacity"]["storage"].as_str().unwrap_or("0").into(),
        false => "".into(),
    }),
    text("Access Modes", |o, _| if bound(o) { access_modes(&o["status"]["accessModes"]).into() } else { "".into() }),
    text("StorageClass", |o, _| storage_class(o).into()),
    text("VolumeAttributesClass", |o, _| or(&o["spec"]["volumeAttributesClassName"], "<unset>")),
    AGE,
    wide("VolumeMode", |o, _| or(&o["spec"]["volumeMode"], "<unset>")),
];

/// Columns of StorageClasses.
pub const STORAGE_CLASS: &[Column] = &[
    Column {
        name: "Name",
        r#type: "string",
        priority: 0,
        cell: |o, _| {
            let name = o["metadata"]["name"].as_str().unwrap_or("");
            if is_default(o) { format!("{name} (default)").into() } else { name.into() }
        },
    },
    text("Provisioner", |o, _| or(&o["provisioner"], "")),
    text("ReclaimPolicy", |o, _| or(&o["reclaimPolicy"], "Delete")),
    text("VolumeBindingMode", |o, _| or(&o["volumeBindingMode"], "Immediate")),
    text("AllowVolumeExpansion", |o, _| (o["allowVolumeExpansion"] == true).into()),
    Column { name: "Age", r#type: "string", priority: 0, cell: |o, now| since(&o["metadata"]["creationTimestamp"], now).into() },
];

fn is_default(class: &Value) -> bool {
    let annotations = &class["metadata"]["annotations"];
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
        .iter()
        .any(|name| annotations[*name] == "true")
}

fn bound(claim: &Value) -> bool {
    claim["spec"]["volumeName"].as_str().is_some_and(|name| !name.is_empty())
}

fn phase(object: &Value, otherwise: &str) -> String {
    if object["metadata"]["deletionTimestamp"].is_string() {
        return "Terminating".to_owned();
    }
    object["status"]["phase"].as_str().unwrap_or(otherwise).to_owned()
}

/// The class, which old manifests name in an annotation.
fn storage_class(object: &Value) -> String {
    let old = object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    old.or(object["spec"]["storageClassName"].as_str()).unwrap_or("").to_owned()
}

/// `RWO,ROX`, in Kubernetes' order.
fn access_modes(modes: &Value) -> String {
    let known = [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| list(modes).iter().any(|m| m == mode);
    let found: Vec<&str> = known.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect();
    found.join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::show;
    use super::*;

    #[test]
    fn volumes_and_claims() {
        let volume = json!({"metadata": {"name": "v"}, "spec": {
            "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "fast", "volumeMode": "Filesystem", "claimRef": {"namespace": "shop", "name": "data"}}, "status": {"phase": "Bound"}});
        assert_eq!(
            show(PERSISTENT_VOLUME, &volume),
            "v | 5Gi | RWO,RWX | Retain | Bound | shop/data | fast | <unset> |  | <unknown> | Filesystem"
        );
        let claim = |volume: &str| {
            json!({"metadata": {"name": "data"}, "spec": {"volumeName": volume, "storageClassName": "fast", "volumeMode": "Filesystem"},
            "status": {"phase": if volume.is_empty() { "Pending" } else { "Bound" }, "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"]}})
        };
        assert_eq!(
            show(PERSISTENT_VOLUME_CLAIM, &claim("v")),
            "data | Bound | v | 5Gi | RWO | fast | <unset> | <unknown> | Filesystem"
        );
        assert_eq!(
            show(PERSISTENT_VOLUME_CLAIM, &claim("")),
            "data | Pending |  |  |  | fast | <unset> | <unknown> | Filesystem"
        );
    }

    #[test]
    fn classes() {
        let class = |default: bool| {
            json!({"metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": default.to_string()}},
                "provisioner": "example.com/disk", "allowVolumeExpansion": true})
        };
        assert_eq!(
            show(STORAGE_CLASS, &class(true)),
            "fast (default) | example.com/disk | Delete | Immediate | true | <unknown>"
        );
        assert!(show(STORAGE_CLASS, &class(false)).starts_with("fast | "));
    }
}
