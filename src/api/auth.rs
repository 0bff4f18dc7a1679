//! Who asks, and may they.
//!
//! Masters may do everything; agents what their host needs (`node`); everybody what roles and bindings say (`rbac`). Nothing else allows
//! anything: an empty list of groups is nobody. How somebody proves who it is, is not here (`authority`, `authn`).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::Api;
use super::failure::Failure;
use super::path::{Query, Target};
use crate::object::selector::FieldSelector;
use crate::object::{Draft, Key, Object};
use crate::store::View;
use rbac::Grant;

pub mod defaults;
mod escalate;
pub mod node;
pub mod rbac;

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of agents.
pub const NODES: &str = "system:nodes";
/// The group of everybody who has proved who it is.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The prefix of an agent's user name.
pub const NODE_PREFIX: &str = "system:node:";
/// Where agents keep their leases.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user's name: `system:node:a` for an agent.
    pub name: String,
    /// Tells two users of one name apart over time; empty where nothing does.
    pub uid: String,
    /// The user's groups.
    pub groups: Vec<String>,
    /// What else is known, by key.
    pub extra: BTreeMap<String, Vec<String>>,
    /// When the credential ends. Open connections end with it.
    pub expires: Option<Timestamp>,
    /// The SHA-256 of the certificate's public key, hex; `None` for identities that did not come with a certificate.
    pub key: Option<String>,
    /// What must be there for the credential to be good, with its uid: a token's account, and what it is bound to.
    pub bound: Vec<(Key, String)>,
    /// Who really asks, when it acts for this one.
    pub by: Option<Box<Identity>>,
    /// The rights that something which lasts was opened with: with one of them it ends.
    pub needs: Vec<Right>,
}

/// A right to objects, kept for later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    verb: &'static str,
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

impl Right {
    pub(super) fn of(verb: Verb, target: &Target) -> Right {
        Right {
            verb: verb.word(),
            group: target.kind.group.to_owned(),
            resource: target.kind.plural.to_owned(),
            subresource: target.subresource.clone(),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
        }
    }
    pub(super) fn attributes(&self) -> Attributes<'_> {
        let Right { verb, group, resource, subresource, namespace, name } = self;
        Attributes { verb, what: What::Resource { group, resource, subresource, namespace, name, fields: "" } }
    }
}

impl Identity {
    /// Somebody with these groups.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        Identity { name: name.to_owned(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), ..Identity::default() }
    }
    /// The administrator, for callers in the same process.
    pub fn admin() -> Self {
        Identity::new("portolan-admin", &[MASTERS])
    }
    /// The agent of a host, for callers in the same process.
    pub fn node(name: &str) -> Self {
        Identity::new(&format!("{NODE_PREFIX}{name}"), &[NODES])
    }
    /// The host whose agent this is.
    pub fn host(&self) -> Option<&str> {
        let host = self.name.strip_prefix(NODE_PREFIX).filter(|host| !host.is_empty())?;
        self.in_group(NODES).then_some(host)
    }
    /// Whether it may do everything.
    pub fn is_master(&self) -> bool {
        self.in_group(MASTERS)
    }
    /// Whether it is in a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
    /// The same as one who has proved who it is.
    pub(super) fn authenticated(mut self) -> Self {
        if !self.in_group(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
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

/// What a right is asked for: Kubernetes' attributes of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a> {
    pub(super) verb: &'a str,
    pub(super) what: What<'a>,
}

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum What<'a> {
    Resource {
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        /// Empty for cluster-scoped kinds and for all namespaces.
        namespace: &'a str,
        /// Empty for a collection.
        name: &'a str,
        /// The field selector of the request.
        fields: &'a str,
    },
    /// A path that names no object.
    Path(&'a str),
}

/// Why something is allowed.
#[derive(Debug)]
pub(super) enum Why {
    Master,
    Node,
    Grant(Arc<Grant>),
}

impl Why {
    /// For the audit log.
    pub(super) fn reason(&self) -> String {
        match self {
            Why::Master => "allowed by the group system:masters".to_owned(),
            Why::Node => "allowed by the node authorizer".to_owned(),
            Why::Grant(grant) => grant.reason(),
        }
    }
}

impl Api {
    /// Whether somebody may do something. The error is what people may be told beside the refusal itself; often nothing.
    pub(super) fn decide(&self, identity: &Identity, wish: &Attributes<'_>) -> Result<Why, String> {
        self.decide_in(&self.store().view(), identity, wish)
    }

    fn decide_in(&self, view: &View, identity: &Identity, wish: &Attributes<'_>) -> Result<Why, String> {
        if identity.is_master() {
            return Ok(Why::Master);
        }
        let host = identity.host();
        if host.is_some_and(|host| node::may(view, host, wish)) {
            return Ok(Why::Node);
        }
        self.inner.rbac.allow(view, identity, wish).map(Why::Grant).map_err(|more| match host {
            Some(host) if more.is_empty() && matches!(wish.what, What::Resource { .. }) => {
                format!("no relationship found between node '{host}' and this object")
            }
            _ => more,
        })
    }

    /// Whether somebody may do this with objects. What is written is looked at again in [`Api::check_write`].
    pub(super) fn authorize(&self, identity: &Identity, verb: Verb, target: &Target, query: &Query) -> Result<Why, Failure> {
        let fields = query.get("fieldSelector");
        // As in Kubernetes: who may read one object may ask for it by a selector that names it.
        let named = match verb {
            Verb::List | Verb::Watch | Verb::DeleteCollection if target.name.is_empty() => {
                let selector = FieldSelector::parse(target.kind, fields).ok();
                selector.and_then(|s| s.exact("metadata.name").map(str::to_owned))
            }
            _ => None,
        };
        let what = What::Resource {
            group: target.kind.group,
            resource: target.kind.plural,
            subresource: &target.subresource,
            namespace: scope(target),
            name: named.as_deref().unwrap_or(&target.name),
            fields,
        };
        self.decide(identity, &Attributes { verb: verb.word(), what })
            .map_err(|more| denied(identity, verb.word(), target, &more))
    }

    /// Whether somebody may ask for a path that names no object.
    pub(super) fn authorize_path(&self, identity: &Identity, verb: &str, path: &str) -> Result<Why, Failure> {
        self.decide(identity, &Attributes { verb, what: What::Path(path) })
            .map_err(|_| Failure::forbidden_path(&identity.name, verb, path))
    }

    /// Looks at what would be stored.
    pub(super) fn check_write(
        &self,
        identity: &Identity,
        target: &Target,
        old: Option<&Object>,
        new: &Draft,
    ) -> Result<(), Failure> {
        if identity.is_master() {
            return Ok(());
        }
        if let Some(host) = identity.host() {
            node::check(host, target, old, new)?;
        }
        if new.key.kind.group == "certificates.k8s.io" {
            self.check_signing(identity, target, old, new)?;
        }
        self.check_escalation(identity, old, new)
    }
}

/// The namespace that a right is asked in: a Namespace itself is in its own, as in Kubernetes.
fn scope(target: &Target) -> &str {
    if target.kind.is("", "Namespace") { &target.name } else { &target.namespace }
}

fn denied(identity: &Identity, verb: &str, target: &Target, more: &str) -> Failure {
    let kind = target.kind;
    let resource = match target.subresource.as_str() {
        "" => kind.plural.to_owned(),
        sub => format!("{}/{sub}", kind.plural),
    };
    let place = match scope(target) {
        "" => " at the cluster scope".to_owned(),
        namespace => format!(" in the namespace {namespace:?}"),
    };
    let more = if more.is_empty() { String::new() } else { format!(": {more}") };
    let why = format!("User {:?} cannot {verb} resource {resource:?} in API group {:?}{place}{more}", identity.name, kind.group);
    Failure::forbidden(kind, &target.name, &why)
}
