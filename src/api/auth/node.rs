//! What an agent may: what its host needs, and no more (Kubernetes' node authorizer and its NodeRestriction).
//!
//! The arrows from a node over its pods to what they name are the store's index of pods by node: it changes with each pod, so a right
//! ends with the pod that gave it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;

use super::{Attributes, LEASE_NAMESPACE, What};
use crate::api::failure::Failure;
use crate::api::path::Target;
use crate::object::selector::FieldSelector;
use crate::object::{Draft, KINDS, Key, Object, kind_of};
use crate::store::View;

/// The ConfigMap with the certificate of the authority that is in every namespace for every pod.
pub const ROOT_CERTIFICATES: &str = "kube-root-ca.crt";

/// Whether the agent of a host may do this.
pub(super) fn may(view: &View, host: &str, wish: &Attributes<'_>) -> bool {
    let What::Resource { group, resource, subresource, namespace, name, fields } = wish.what else { return false };
    let Some(kind) = KINDS.iter().find(|k| k.group == group && k.plural == resource) else {
        // Not stored: an agent signs and reviews nothing.
        return false;
    };
    let verb = wish.verb;
    let selected = |path: &str| FieldSelector::parse(kind, fields).ok().and_then(|s| Some(s.exact(path)?.to_owned()));
    let reads = matches!(verb, "get" | "list" | "watch");
    // One object, named in the path or by a selector that names it; a new one has no name yet.
    let named = !name.is_empty();
    let own = name == host;
    match (group, resource, subresource) {
        ("", "namespaces", "") => reads,
        ("", "nodes", "") => match verb {
            // Which name it creates is seen in `check`.
            "create" => true,
            "get" | "list" | "watch" | "update" | "patch" => own,
            _ => false,
        },
        ("", "nodes", "status") => matches!(verb, "get" | "update" | "patch") && own,
        ("coordination.k8s.io", "leases", "") if namespace == LEASE_NAMESPACE => match verb {
            "create" => true,
            "get" | "list" | "watch" | "update" | "patch" => own,
            _ => false,
        },
        ("", "events", "") => matches!(verb, "create" | "update" | "patch"),
        ("", "pods", "" | "status") => match verb {
            "list" | "watch" => subresource.is_empty() && selected("spec.nodeName").as_deref() == Some(host),
            "get" => runs(view, host, namespace, name),
            "update" | "patch" => subresource == "status" && runs(view, host, namespace, name),
            "delete" => subresource.is_empty() && runs(view, host, namespace, name),
            _ => false,
        },
        ("", "secrets" | "configmaps" | "serviceaccounts", "") => {
            reads && named && !namespace.is_empty() && refers(view, host, namespace, resource, name)
        }
        // For which pod is seen in the request (`api::authn::account`).
        ("", "serviceaccounts", "token") => verb == "create" && refers(view, host, namespace, resource, name),
        _ => false,
    }
}

/// Whether a pod is bound to a host. A pod that is not there is nobody's secret: its absence may be told.
fn runs(view: &View, host: &str, namespace: &str, name: &str) -> bool {
    let pods = kind_of::<core::Pod>();
    match view.get(&Key::new(pods, namespace, name)) {
        None => true,
        Some(pod) => bound_to(pod, host),
    }
}

/// Whether a pod that is there is bound to a host.
pub(in crate::api) fn bound_to(pod: &Object, host: &str) -> bool {
    pod.field("spec.nodeName") == host
}

/// Whether a pod that is bound to the host names this Secret, ConfigMap or ServiceAccount.
fn refers(view: &View, host: &str, namespace: &str, plural: &str, name: &str) -> bool {
    view.by_field(kind_of::<core::Pod>(), "spec.nodeName", host).filter(|o| *o.key.namespace == *namespace).any(|object| {
        let Ok(pod) = object.typed::<core::Pod>() else { return false };
        let Some(spec) = &pod.spec else { return false };
        match plural {
            "secrets" => secrets(spec).any(|found| found == name),
            "serviceaccounts" => account_of(spec) == name,
            _ => config_maps(spec).any(|found| found == name),
        }
    })
}

/// The service account that a pod runs as.
pub(in crate::api) fn account_of(spec: &core::PodSpec) -> &str {
    spec.service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default")
}

/// What the containers of a pod, ephemeral ones too, take their environments from.
fn environments(spec: &core::PodSpec) -> impl Iterator<Item = (&[core::EnvVar], &[core::EnvFromSource])> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| (&c.env, &c.env_from));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| (&c.env, &c.env_from));
    containers.chain(ephemeral).map(|(env, from)| (env.as_deref().unwrap_or(&[]), from.as_deref().unwrap_or(&[])))
}

/// What a volume is put together from.
fn projections(volume: &core::Volume) -> impl Iterator<Item = &core::VolumeProjection> {
    volume.projected.iter().flat_map(|p| p.sources.iter().flatten())
}

fn secrets(spec: &core::PodSpec) -> impl Iterator<Item = &str> {
    let volumes = spec.volumes.iter().flatten().flat_map(|volume| {
        let projected = projections(volume).filter_map(|source| source.secret.as_ref().map(|s| s.name.as_str()));
        volume.secret.iter().filter_map(|s| s.secret_name.as_deref()).chain(projected)
    });
    let environment = environments(spec).flat_map(|(env, from)| {
        let from = from.iter().filter_map(|e| e.secret_ref.as_ref().map(|r| r.name.as_str()));
        let keys = env.iter().filter_map(|e| e.value_from.as_ref()?.secret_key_ref.as_ref());
        from.chain(keys.map(|k| k.name.as_str()))
    });
    let pulling = spec.image_pull_secrets.iter().flatten().map(|r| r.name.as_str());
    volumes.chain(environment).chain(pulling)
}

fn config_maps(spec: &core::PodSpec) -> impl Iterator<Item = &str> {
    let volumes = spec.volumes.iter().flatten().flat_map(|volume| {
        let projected = projections(volume).filter_map(|source| source.config_map.as_ref().map(|s| s.name.as_str()));
        volume.config_map.iter().map(|s| s.name.as_str()).chain(projected)
    });
    let environment = environments(spec).flat_map(|(env, from)| {
        let from = from.iter().filter_map(|e| e.config_map_ref.as_ref().map(|r| r.name.as_str()));
        let keys = env.iter().filter_map(|e| e.value_from.as_ref()?.config_map_key_ref.as_ref());
        from.chain(keys.map(|k| k.name.as_str()))
    });
    volumes.chain(environment)
}

/// Looks at what would be stored: an agent may not rename itself, label itself into other hosts' work, or hang itself on an owner
/// whose end would delete it (CVE-2025-5187).
pub(super) fn check(host: &str, target: &Target, old: Option<&Object>, new: &Draft) -> Result<(), Failure> {
    let refuse = |why: &str| Err(Failure::forbidden(target.kind, &new.key.name, &format!("node {host:?} {why}")));
    match (target.kind.plural, target.subresource.as_str()) {
        ("nodes" | "leases", _) if &*new.key.name != host => refuse("may only write its own node and its own lease"),
        ("nodes", _) => {
            let empty = BTreeMap::new();
            let before = old.map_or(&empty, |o| &o.meta.labels);
            let keys: Vec<&String> = before.keys().chain(new.meta.labels.keys()).collect();
            for key in keys {
                if before.get(key) != new.meta.labels.get(key) && !may_label_itself(key) {
                    return refuse(&format!("is not allowed to set or change the label {key:?}"));
                }
            }
            let (owners, finalizers) = old.map_or((&[][..], &[][..]), |o| (&o.meta.owners[..], &o.meta.finalizers[..]));
            if *new.meta.owners != owners {
                return refuse("is not allowed to change its owner references");
            }
            if new.meta.finalizers != finalizers {
                return refuse("is not allowed to change its finalizers");
            }
            // Taints and "unschedulable" are the operator's word once the host is there; at its first registration they are the host's.
            if let Some(old) = old
                && old.value()["spec"] != new.value()["spec"]
            {
                return refuse("is not allowed to change its spec");
            }
            Ok(())
        }
        ("pods", "status") => match old {
            // A pod's generation grows with every change of anything but metadata and status.
            Some(old)
                if old.meta.labels == new.meta.labels
                    && old.meta.annotations == new.meta.annotations
                    && old.meta.owners == new.meta.owners
                    && old.meta.finalizers == new.meta.finalizers
                    && old.meta.generation == new.meta.generation =>
            {
                Ok(())
            }
            _ => refuse("may change nothing but the status of a pod"),
        },
        _ => Ok(()),
    }
}

/// Labels that an agent may put on its own node: those that describe it, and any outside Kubernetes' own namespaces.
fn may_label_itself(key: &str) -> bool {
    const DESCRIBING: &[&str] = &[
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    ];
    let Some((domain, _)) = key.split_once('/') else { return true };
    let within = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    if DESCRIBING.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io") {
        return true;
    }
    !(within("kubernetes.io") || within("k8s.io"))
}
