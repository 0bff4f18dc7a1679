//! What a pod is given of its service account: the account's name, the names of its pull secrets, and the volume with its token.
//!
//! As in Kubernetes, when the pod is created and never after; a container that has something else at that place keeps it. The token itself
//! comes to the pod's host, for this pod alone. A cluster that has no authority (a simulated house) has no tokens to give.

use serde_json::{Value, json};

use super::{Around, hash};
use crate::object::Key;

/// Where programs look for their token.
const PLACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The beginning of the volume's name.
const VOLUME: &str = "kube-api-access-";
/// The ConfigMap with the certificate of the authority, which every namespace has.
const CERTIFICATE: &str = "kube-root-ca.crt";
/// How long a token is good, in seconds. It is replaced long before; the seven say that nobody chose it.
const SECONDS: i64 = 3607;
/// The letters of a random end: none that make words.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Gives a new pod what it lacks.
pub(super) fn give(pod: &mut Value, around: &dyn Around, chance: &str) {
    if around.object(&Key::of::<k8s_openapi::api::core::v1::ConfigMap>("kube-system", CERTIFICATE)).is_none() {
        return;
    }
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let name = match spec.get("serviceAccountName").and_then(Value::as_str) {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "default".to_owned(),
    };
    spec.insert("serviceAccountName".to_owned(), name.as_str().into());
    spec.insert("serviceAccount".to_owned(), name.as_str().into());
    let account = around.object(&Key::of::<k8s_openapi::api::core::v1::ServiceAccount>(&namespace, &name));
    let account = account.map(|account| account.value()).unwrap_or_default();
    let secrets = account["imagePullSecrets"].as_array().filter(|secrets| !secrets.is_empty());
    if let Some(secrets) = secrets
        && spec.get("imagePullSecrets").and_then(Value::as_array).is_none_or(Vec::is_empty)
    {
        spec.insert("imagePullSecrets".to_owned(), secrets.clone().into());
    }
    let says = |value: Option<&Value>| value.and_then(Value::as_bool);
    let wanted = says(spec.get("automountServiceAccountToken")).or(says(account.get("automountServiceAccountToken")));
    if wanted == Some(false) {
        return;
    }
    let there = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let there = there.filter_map(|volume| volume["name"].as_str()).find(|name| name.starts_with(VOLUME)).map(str::to_owned);
    let volume = there.clone().unwrap_or_else(|| format!("{VOLUME}{}", ending(chance)));
    let mut used = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            let mounts = container.entry("volumeMounts").or_insert(Value::Null);
            if mounts.is_null() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().all(|mount| mount["mountPath"] != PLACE) {
                mounts.push(json!({"mountPath": PLACE, "name": volume, "readOnly": true}));
                used = true;
            }
        }
    }
    if !used || there.is_some() {
        return;
    }
    let volumes = spec.entry("volumes").or_insert(Value::Null);
    if volumes.is_null() {
        *volumes = json!([]);
    }
    let Some(volumes) = volumes.as_array_mut() else { return };
    volumes.push(json!({"name": volume, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": SECONDS, "path": "token"}},
        {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": CERTIFICATE}},
        {"downwardAPI": {"items": [{"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}]}},
    ]}}));
}

/// Five letters that differ between pods.
fn ending(chance: &str) -> String {
    let mut number = hash(chance);
    let mut letter = || {
        let letter = LETTERS[(number % LETTERS.len() as u64) as usize];
        number /= LETTERS.len() as u64;
        char::from(letter)
    };
    (0..5).map(|_| letter()).collect()
}
