//! The table of kinds: one row each, from which routing, discovery, schemas, tables, defaults and validation derive.
//!
//! To add a kind, add a row. How a kind behaves is not here: controllers are in `plan` and `control`.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::rbac::v1 as rbac;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::admit::{Cause, defaults, validate};
use super::columns::{self, Column};
use super::ours;

/// One row: everything that the rest of the house needs to know about a kind.
pub struct Kind {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The served and stored version.
    pub version: &'static str,
    /// The kind as manifests write it: `Deployment`.
    pub kind: &'static str,
    /// The plural in paths: `deployments`.
    pub plural: &'static str,
    /// The singular that kubectl accepts: `deployment`.
    pub singular: &'static str,
    /// Short names: `deploy`.
    pub short: &'static [&'static str],
    /// Categories: `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Subresources beside the object itself.
    pub subresources: &'static [&'static str],
    /// Dotted paths that field selectors may name, beside `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [&'static str],
    /// When a write of this kind is acknowledged.
    pub durability: Durability,
    /// What the type looks like.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    /// Fills in what the author left out, as Kubernetes does.
    pub default: fn(&mut Value),
    /// What is wrong with an object (and, on update, with the change from the old one).
    pub validate: fn(&Value, Option<&Value>) -> Vec<Cause>,
    /// The columns of `kubectl get`.
    pub columns: &'static [Column],
}

/// The group of roles and bindings.
pub const RBAC: &str = "rbac.authorization.k8s.io";

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After it is on disk.
    Synced,
    /// At once; it reaches the disk within a second, with the next group. For heartbeats and events, which Kubernetes does not promise
    /// to keep either.
    Lazy,
}

impl Kind {
    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
    /// `deployments.apps`, or `pods` for the core group: what messages and `-o name` say.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }
    /// Whether the kind has this subresource.
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.contains(&subresource)
    }
    /// The row for a manifest's `apiVersion` and `kind`.
    pub fn of(api_version: &str, kind: &str) -> Option<&'static Kind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        KINDS.iter().find(|k| k.group == group && k.version == version && k.kind == kind)
    }
    /// The row for an object's own `apiVersion` and `kind`.
    pub fn of_value(value: &Value) -> Option<&'static Kind> {
        Kind::of(value["apiVersion"].as_str()?, value["kind"].as_str()?)
    }
    /// The row for a path's group, version and plural.
    pub fn of_path(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        KINDS.iter().find(|k| k.group == group && k.version == version && k.plural == plural)
    }
    /// The row for what a person types: plural, singular, short name or kind, with or without `.group`.
    pub fn of_word(word: &str) -> Option<&'static Kind> {
        let word = word.to_ascii_lowercase();
        let (name, group) = word.split_once('.').map_or((word.as_str(), None), |(n, g)| (n, Some(g)));
        KINDS.iter().find(|k| {
            group.is_none_or(|g| g == k.group)
                && (k.plural == name || k.singular == name || k.short.contains(&name) || k.kind.eq_ignore_ascii_case(name))
        })
    }
}

/// The row of a Rust type.
///
/// # Panics
/// If the type has no row: a mistake in this program, found by the first test that touches the type.
pub fn kind_of<K: k8s_openapi::Resource>() -> &'static Kind {
    KINDS
        .iter()
        .find(|k| k.group == K::GROUP && k.kind == K::KIND)
        .unwrap_or_else(|| panic!("no row in KINDS for {}/{}", K::API_VERSION, K::KIND))
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || (self.group, self.plural) == (other.group, other.plural)
    }
}
impl Eq for Kind {}
impl Ord for Kind {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.group, self.plural).cmp(&(other.group, other.plural))
    }
}
impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.group, self.plural).hash(state);
    }
}
impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource())
    }
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// What most rows share.
const PLAIN: Kind = Kind {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    selectable: &[],
    durability: Durability::Synced,
    schema: schema::<Value>,
    default: defaults::none,
    validate: validate::none,
    columns: columns::PLAIN,
};

/// Every kind, in the order of discovery.
pub static KINDS: &[Kind] = &[
    Kind {
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short: &["ns"],
        namespaced: false,
        subresources: &["status", "finalize"],
        selectable: &["status.phase"],
        schema: schema::<core::Namespace>,
        default: defaults::namespace,
        validate: validate::namespace,
        columns: columns::NAMESPACE,
        ..PLAIN
    },
    Kind {
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short: &["no"],
        namespaced: false,
        subresources: &["status"],
        selectable: &["spec.unschedulable"],
        schema: schema::<core::Node>,
        default: defaults::node,
        validate: validate::node,
        columns: columns::NODE,
        ..PLAIN
    },
    Kind {
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short: &["po"],
        categories: &["all"],
        subresources: &["status", "binding", "eviction", "log", "exec", "attach"],
        selectable: &["spec.nodeName", "status.phase", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName"],
        schema: schema::<core::Pod>,
        default: defaults::pod,
        validate: validate::pod,
        columns: columns::POD,
        ..PLAIN
    },
    Kind {
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short: &["cm"],
        schema: schema::<core::ConfigMap>,
        validate: validate::config_map,
        columns: columns::CONFIG_MAP,
        ..PLAIN
    },
    Kind {
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        selectable: &["type"],
        schema: schema::<core::Secret>,
        default: defaults::secret,
        validate: validate::secret,
        columns: columns::SECRET,
        ..PLAIN
    },
    Kind {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short: &["sa"],
        subresources: &["token"],
        schema: schema::<core::ServiceAccount>,
        columns: columns::SERVICE_ACCOUNT,
        ..PLAIN
    },
    Kind {
        kind: "Event",
        plural: "events",
        singular: "event",
        short: &["ev"],
        selectable: &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        durability: Durability::Lazy,
        schema: schema::<core::Event>,
        validate: validate::event,
        columns: columns::EVENT,
        ..PLAIN
    },
    Kind {
        group: "apps",
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short: &["deploy"],
        categories: &["all"],
        subresources: &["status", "scale"],
        schema: schema::<apps::Deployment>,
        default: defaults::deployment,
        validate: validate::deployment,
        columns: columns::DEPLOYMENT,
        ..PLAIN
    },
    Kind {
        group: "apps",
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short: &["rs"],
        categories: &["all"],
        subresources: &["status", "scale"],
        selectable: &["status.replicas"],
        schema: schema::<apps::ReplicaSet>,
        default: defaults::replica_set,
        validate: validate::replica_set,
        columns: columns::REPLICA_SET,
        ..PLAIN
    },
    Kind {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        singular: "lease",
        durability: Durability::Lazy,
        schema: schema::<coordination::Lease>,
        validate: validate::lease,
        columns: columns::LEASE,
        ..PLAIN
    },
    Kind {
        group: RBAC,
        kind: "ClusterRole",
        plural: "clusterroles",
        singular: "clusterrole",
        namespaced: false,
        schema: schema::<rbac::ClusterRole>,
        validate: validate::cluster_role,
        columns: columns::ROLE,
        ..PLAIN
    },
    Kind {
        group: RBAC,
        kind: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        singular: "clusterrolebinding",
        namespaced: false,
        schema: schema::<rbac::ClusterRoleBinding>,
        default: defaults::role_binding,
        validate: validate::cluster_role_binding,
        columns: columns::ROLE_BINDING,
        ..PLAIN
    },
    Kind {
        group: RBAC,
        kind: "Role",
        plural: "roles",
        singular: "role",
        schema: schema::<rbac::Role>,
        validate: validate::role,
        columns: columns::ROLE,
        ..PLAIN
    },
    Kind {
        group: RBAC,
        kind: "RoleBinding",
        plural: "rolebindings",
        singular: "rolebinding",
        schema: schema::<rbac::RoleBinding>,
        default: defaults::role_binding,
        validate: validate::role_binding,
        columns: columns::ROLE_BINDING,
        ..PLAIN
    },
    Kind {
        group: ours::GROUP,
        version: ours::VERSION,
        kind: "Application",
        plural: "applications",
        singular: "application",
        short: &["app", "apps"],
        subresources: &["status"],
        schema: schema::<ours::Application>,
        default: defaults::application,
        validate: validate::application,
        columns: columns::APPLICATION,
        ..PLAIN
    },
    Kind {
        group: ours::GROUP,
        version: ours::VERSION,
        kind: "Release",
        plural: "releases",
        singular: "release",
        subresources: &["status"],
        selectable: &["spec.application"],
        schema: schema::<ours::Release>,
        validate: validate::release,
        columns: columns::RELEASE,
        ..PLAIN
    },
    Kind {
        group: ours::GROUP,
        version: ours::VERSION,
        kind: "Rendering",
        plural: "renderings",
        singular: "rendering",
        schema: schema::<ours::Rendering>,
        validate: validate::rendering,
        ..PLAIN
    },
];
