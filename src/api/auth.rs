//! Who asks, and may they.
//!
//! Whoever shows a certificate of our authority is who it says. Masters may do everything, agents what their host needs
//! (Kubernetes' node authorizer and its NodeRestriction), everybody else nothing yet. An empty list of groups is nobody.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::failure::Failure;
use super::path::{Query, Target};
use crate::object::selector::FieldSelector;
use crate::object::{Draft, Key, Object, kind_of};
use crate::store::View;

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of agents.
pub const NODES: &str = "system:nodes";
/// The prefix of an agent's user name.
pub const NODE_PREFIX: &str = "system:node:";
/// Where agents keep their leases.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's name: `system:node:a` for an agent.
    pub name: String,
    /// The user's groups.
    pub groups: Vec<String>,
    /// When the credential ends. Open connections end with it.
    pub expires: Option<Timestamp>,
    /// The SHA-256 of the certificate's public key, hex; `None` for identities that did not come over TLS.
    pub key: Option<String>,
}

impl Identity {
    /// The administrator, for callers in the same process.
    pub fn admin() -> Self {
        Identity { name: "portolan-admin".into(), groups: vec![MASTERS.into()], expires: None, key: None }
    }
    /// The agent of a host, for callers in the same process.
    pub fn node(name: &str) -> Self {
        Identity { name: format!("{NODE_PREFIX}{name}"), groups: vec![NODES.into()], expires: None, key: None }
    }
    /// The host whose agent this is.
    pub fn host(&self) -> Option<&str> {
        let host = self.name.strip_prefix(NODE_PREFIX).filter(|host| !host.is_empty())?;
        self.groups.iter().any(|g| g == NODES).then_some(host)
    }
    /// Whether it may do everything.
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|g| g == MASTERS)
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub(super) fn word(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }
}

/// Whether someone may do this. What is written is looked at again in [`check_write`].
pub(super) fn authorize(view: &View, identity: &Identity, verb: Verb, target: &Target, query: &Query) -> Result<(), Failure> {
    if identity.is_master() {
        return Ok(());
    }
    match identity.host() {
        Some(host) if host_may(view, host, verb, target, query) => Ok(()),
        _ => Err(denied(identity, verb, target, if identity.host().is_some() { NO_RELATION } else { "" })),
    }
}

const NO_RELATION: &str = ": no relationship found between the node and this object";

fn denied(identity: &Identity, verb: Verb, target: &Target, more: &str) -> Failure {
    let kind = target.kind;
    let resource = match target.subresource.as_str() {
        "" => kind.plural.to_owned(),
        sub => format!("{}/{sub}", kind.plural),
    };
    let place = match target.namespace.as_str() {
        "" => " at the cluster scope".to_owned(),
        namespace => format!(" in the namespace {namespace:?}"),
    };
    let why = format!(
        "User {:?} cannot {} resource {resource:?} in API group {:?}{place}{more}",
        identity.name,
        verb.word(),
        kind.group
    );
    Failure::forbidden(kind, &target.name, &why)
}

fn host_may(view: &View, host: &str, verb: Verb, target: &Target, query: &Query) -> bool {
    use Verb::{Create, Delete, Get, List, Patch, Update, Watch};
    let selected = |path: &str| {
        let selector = FieldSelector::parse(target.kind, query.get("fieldSelector")).ok()?;
        Some(selector.exact(path)?.to_owned())
    };
    // One object: named in the path, or by a selector that names it.
    let name = match verb {
        Get | Update | Patch | Delete => Some(target.name.clone()),
        List | Watch => Some(target.name.clone()).filter(|n| !n.is_empty()).or_else(|| selected("metadata.name")),
        _ => None,
    };
    let own = name.as_deref() == Some(host);
    match (target.kind.group, target.kind.plural, target.subresource.as_str()) {
        ("", "namespaces", "") => matches!(verb, Get | List | Watch),
        ("", "nodes", "") => match verb {
            // Which name it creates is seen in `check_write`.
            Create => true,
            Get | List | Watch | Update | Patch => own,
            _ => false,
        },
        ("", "nodes", "status") => matches!(verb, Get | Update | Patch) && own,
        ("coordination.k8s.io", "leases", "") if target.namespace == LEASE_NAMESPACE => match verb {
            Create => true,
            Get | List | Watch | Update | Patch => own,
            _ => false,
        },
        ("", "events", "") => matches!(verb, Create | Update | Patch),
        ("", "pods", "" | "status") => match verb {
            List | Watch => target.subresource.is_empty() && selected("spec.nodeName").as_deref() == Some(host),
            Get => runs(view, host, target),
            Update | Patch => target.subresource == "status" && runs(view, host, target),
            Delete => target.subresource.is_empty() && runs(view, host, target),
            _ => false,
        },
        ("", "secrets" | "configmaps", "") => {
            let Some(name) = name.filter(|_| matches!(verb, Get | List | Watch) && !target.namespace.is_empty()) else {
                return false;
            };
            refers(view, host, &target.namespace, target.kind.plural, &name)
        }
        _ => false,
    }
}

/// Whether a pod is bound to a host. A pod that is not there is nobody's secret: its absence may be told.
fn runs(view: &View, host: &str, target: &Target) -> bool {
    let pods = kind_of::<core::Pod>();
    let place = pods.selectable.iter().position(|s| *s == "spec.nodeName");
    match view.get(&Key::new(pods, &target.namespace, &target.name)) {
        None => true,
        Some(pod) => place.and_then(|n| pod.meta.fields.get(n)).is_some_and(|node| node == host),
    }
}

/// Whether a pod that is bound to the host names this Secret or ConfigMap.
fn refers(view: &View, host: &str, namespace: &str, plural: &str, name: &str) -> bool {
    view.by_field(kind_of::<core::Pod>(), "spec.nodeName", host).filter(|o| *o.key.namespace == *namespace).any(|object| {
        let Ok(pod) = object.typed::<core::Pod>() else { return false };
        let Some(spec) = &pod.spec else { return false };
        match plural {
            "secrets" => secrets(spec).any(|found| found == name),
            _ => config_maps(spec).any(|found| found == name),
        }
    })
}

fn containers(spec: &core::PodSpec) -> impl Iterator<Item = &core::Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten())
}

fn secrets(spec: &core::PodSpec) -> impl Iterator<Item = &str> {
    let volumes = spec.volumes.iter().flatten().flat_map(|volume| {
        let projected = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        let projected = projected.filter_map(|source| source.secret.as_ref().map(|s| s.name.as_str()));
        volume.secret.iter().filter_map(|s| s.secret_name.as_deref()).chain(projected)
    });
    let environment = containers(spec).flat_map(|container| {
        let from = container.env_from.iter().flatten().filter_map(|e| e.secret_ref.as_ref().map(|r| r.name.as_str()));
        let keys = container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()?.secret_key_ref.as_ref());
        from.chain(keys.map(|k| k.name.as_str()))
    });
    let pulling = spec.image_pull_secrets.iter().flatten().map(|r| r.name.as_str());
    volumes.chain(environment).chain(pulling)
}

fn config_maps(spec: &core::PodSpec) -> impl Iterator<Item = &str> {
    let volumes = spec.volumes.iter().flatten().flat_map(|volume| {
        let projected = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        let projected = projected.filter_map(|source| source.config_map.as_ref().map(|s| s.name.as_str()));
        volume.config_map.iter().map(|s| s.name.as_str()).chain(projected)
    });
    let environment = containers(spec).flat_map(|container| {
        let from = container.env_from.iter().flatten().filter_map(|e| e.config_map_ref.as_ref().map(|r| r.name.as_str()));
        let keys = container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()?.config_map_key_ref.as_ref());
        from.chain(keys.map(|k| k.name.as_str()))
    });
    volumes.chain(environment)
}

/// Looks at what would be stored: an agent may not rename itself, label itself into other hosts' work, or hang itself on an owner
/// whose end would delete it (CVE-2025-5187).
pub(super) fn check_write(
    identity: &Identity,
    verb: Verb,
    target: &Target,
    old: Option<&Object>,
    new: &Draft,
) -> Result<(), Failure> {
    if identity.is_master() {
        return Ok(());
    }
    let Some(host) = identity.host() else { return Err(denied(identity, verb, target, "")) };
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
            if new.meta.owners != owners {
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
            Some(old)
                if old.meta.labels == new.meta.labels
                    && old.meta.annotations == new.meta.annotations
                    && old.meta.owners == new.meta.owners
                    && old.meta.finalizers == new.meta.finalizers
                    && old.value()["spec"] == new.value()["spec"] =>
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
