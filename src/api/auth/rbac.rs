//! Roles and bindings: who may do what, from stored objects.
//!
//! Decisions are made from an index in memory. Before each one it is compared with the state that the request sees (two addresses per kind)
//! and brought up to it, so it is never older than a write that somebody was told of. What a rule means is in `object::rules`.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject as Bound};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Attributes, Identity, What};
use crate::object::rules::{Subject, allows};
use crate::object::{Kind, Object, Revision, kind_of};
use crate::store::{Shelf, View};

/// The prefix of the user names of service accounts.
pub const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// The index. One per server.
#[derive(Default)]
pub(in crate::api) struct Rbac(RwLock<Index>);

/// Why something is allowed: by which binding of which role.
#[derive(Debug)]
pub(in crate::api) struct Grant {
    /// Empty for a ClusterRoleBinding.
    namespace: Arc<str>,
    name: Arc<str>,
    role: RoleRef,
    subjects: Vec<(bool, String)>,
}

impl Grant {
    /// For the audit log: `RBAC: allowed by ClusterRoleBinding "x" of ClusterRole "y"`.
    pub(in crate::api) fn reason(&self) -> String {
        let (kind, place) = match &*self.namespace {
            "" => ("ClusterRoleBinding", self.name.to_string()),
            namespace => ("RoleBinding", format!("{}/{namespace}", self.name)),
        };
        format!("RBAC: allowed by {kind} {place:?} of {} {:?}", self.role.kind, self.role.name)
    }
}

#[derive(Default)]
struct Index {
    revision: Revision,
    shelves: [Shelf; 4],
    /// By namespace (empty for ClusterRoles) and name.
    roles: HashMap<Arc<str>, HashMap<Arc<str>, Arc<[PolicyRule]>>>,
    /// By namespace (empty for ClusterRoleBindings).
    bindings: HashMap<Arc<str>, Bindings>,
}

/// The bindings of one namespace, by whom they bind.
#[derive(Default)]
struct Bindings {
    users: HashMap<String, Vec<Arc<Grant>>>,
    groups: HashMap<String, Vec<Arc<Grant>>>,
}

impl Bindings {
    fn of(&self, identity: &Identity) -> impl Iterator<Item = &Arc<Grant>> {
        let groups = identity.groups.iter().filter_map(|group| self.groups.get(group));
        self.users.get(&identity.name).into_iter().chain(groups).flatten()
    }
}

fn kinds() -> [&'static Kind; 4] {
    [kind_of::<ClusterRole>(), kind_of::<Role>(), kind_of::<ClusterRoleBinding>(), kind_of::<RoleBinding>()]
}

impl Rbac {
    /// The index, at least as new as a view.
    fn at<'a>(&'a self, view: &View) -> RwLockReadGuard<'a, Index> {
        let index = self.0.read();
        if index.revision >= view.revision() {
            return index;
        }
        let shelves = kinds().map(|kind| view.shelf(kind));
        if index.shelves.iter().zip(&shelves).all(|(mine, its)| mine.same(its)) {
            return index;
        }
        drop(index);
        let mut index = self.0.write();
        if index.revision < view.revision() {
            index.follow(shelves);
            index.revision = view.revision();
        }
        RwLockWriteGuard::downgrade(index)
    }

    /// Which binding allows something, if one does. The error is more about why not, for people: roles that are bound and not there.
    pub(super) fn allow(&self, view: &View, identity: &Identity, wish: &Attributes<'_>) -> Result<Arc<Grant>, String> {
        let (namespace, subject) = match wish.what {
            What::Path(path) => ("", Subject::Path(path)),
            What::Resource { group, resource, subresource, namespace, name, .. } => {
                (namespace, Subject::Resource { group, resource, subresource, name })
            }
        };
        let index = self.at(view);
        let mut missing = Vec::new();
        for grant in index.grants(identity, namespace) {
            match index.rules(grant) {
                Some(rules) if rules.iter().any(|rule| allows(rule, wish.verb, &subject)) => return Ok(grant.clone()),
                Some(_) => {}
                None => missing.push(format!(
                    "{}.rbac.authorization.k8s.io {:?} not found",
                    grant.role.kind.to_lowercase(),
                    grant.role.name
                )),
            }
        }
        missing.dedup();
        match missing.as_slice() {
            [] => Err(String::new()),
            [one] => Err(format!("RBAC: {one}")),
            many => Err(format!("RBAC: [{}]", many.join(", "))),
        }
    }

    /// All rules that somebody has in a namespace (with those for everywhere); empty for the cluster's scope only.
    pub(in crate::api) fn rules_of(&self, view: &View, identity: &Identity, namespace: &str) -> Vec<PolicyRule> {
        let index = self.at(view);
        let grants = index.grants(identity, namespace);
        grants.filter_map(|grant| index.rules(grant)).flat_map(|rules| rules.iter().cloned()).collect()
    }

    /// What a role allows: that of a namespace, or with an empty one a ClusterRole.
    pub(super) fn rules_of_role(&self, view: &View, namespace: &str, name: &str) -> Option<Arc<[PolicyRule]>> {
        self.at(view).roles.get(namespace)?.get(name).cloned()
    }
}

impl Index {
    fn grants<'a>(&'a self, identity: &'a Identity, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Grant>> {
        let everywhere = self.bindings.get("").into_iter().flat_map(|bindings| bindings.of(identity));
        let here = (!namespace.is_empty()).then(|| self.bindings.get(namespace)).flatten();
        everywhere.chain(here.into_iter().flat_map(|bindings| bindings.of(identity)))
    }

    fn rules(&self, grant: &Grant) -> Option<&Arc<[PolicyRule]>> {
        let place = if grant.role.kind == "ClusterRole" { "" } else { &*grant.namespace };
        self.roles.get(place)?.get(grant.role.name.as_str())
    }

    fn follow(&mut self, shelves: [Shelf; 4]) {
        for (place, (new, kind)) in shelves.into_iter().zip(kinds()).enumerate() {
            for (before, after) in self.shelves[place].steps(&new) {
                if kind.kind.ends_with("Binding") {
                    before.iter().filter_map(|o| grant(o)).for_each(|g| self.unbind(&g));
                    after.iter().filter_map(|o| grant(o)).for_each(|g| self.bind(g));
                } else {
                    before.iter().for_each(|o| self.forget_role(o));
                    after.iter().for_each(|o| self.note_role(o));
                }
            }
            self.shelves[place] = new;
        }
    }

    fn note_role(&mut self, object: &Object) {
        let rules = if object.key.kind == kind_of::<ClusterRole>() {
            object.typed::<ClusterRole>().ok().and_then(|role| role.rules.clone())
        } else {
            object.typed::<Role>().ok().and_then(|role| role.rules.clone())
        };
        let roles = self.roles.entry(object.key.namespace.clone()).or_default();
        roles.insert(object.key.name.clone(), rules.unwrap_or_default().into());
    }

    fn forget_role(&mut self, object: &Object) {
        if let Some(roles) = self.roles.get_mut(&object.key.namespace) {
            roles.remove(&object.key.name);
            if roles.is_empty() {
                self.roles.remove(&object.key.namespace);
            }
        }
    }

    fn bind(&mut self, grant: Grant) {
        let grant = Arc::new(grant);
        let bindings = self.bindings.entry(grant.namespace.clone()).or_default();
        for (group, name) in &grant.subjects {
            let by = if *group { &mut bindings.groups } else { &mut bindings.users };
            by.entry(name.clone()).or_default().push(grant.clone());
        }
    }

    fn unbind(&mut self, grant: &Grant) {
        let Some(bindings) = self.bindings.get_mut(&grant.namespace) else { return };
        for (group, name) in &grant.subjects {
            let by = if *group { &mut bindings.groups } else { &mut bindings.users };
            if let Some(list) = by.get_mut(name) {
                list.retain(|g| g.name != grant.name);
                if list.is_empty() {
                    by.remove(name);
                }
            }
        }
        if bindings.users.is_empty() && bindings.groups.is_empty() {
            self.bindings.remove(&grant.namespace);
        }
    }
}

/// A binding as it is used. What cannot be read binds nobody.
fn grant(object: &Arc<Object>) -> Option<Grant> {
    let (role, subjects) = if object.key.kind == kind_of::<ClusterRoleBinding>() {
        let binding = object.typed::<ClusterRoleBinding>().ok()?;
        (binding.role_ref.clone(), binding.subjects.clone())
    } else {
        let binding = object.typed::<RoleBinding>().ok()?;
        (binding.role_ref.clone(), binding.subjects.clone())
    };
    let namespace = object.key.namespace.clone();
    let mut subjects: Vec<(bool, String)> =
        subjects.unwrap_or_default().into_iter().filter_map(|s| subject(s, &namespace)).collect();
    subjects.sort();
    subjects.dedup();
    Some(Grant { namespace, name: object.key.name.clone(), role, subjects })
}

/// Whether a subject is a group, and its name. A service account is the user that its tokens speak for.
fn subject(subject: Bound, namespace: &str) -> Option<(bool, String)> {
    if subject.name.is_empty() {
        return None;
    }
    match subject.kind.as_str() {
        "User" => Some((false, subject.name)),
        "Group" => Some((true, subject.name)),
        "ServiceAccount" => {
            let place = subject.namespace.filter(|n| !n.is_empty()).unwrap_or_else(|| namespace.to_owned());
            (!place.is_empty()).then(|| (false, account_user(&place, &subject.name)))
        }
        _ => None,
    }
}

/// The user name of a service account.
pub(in crate::api) fn account_user(namespace: &str, name: &str) -> String {
    format!("{ACCOUNT_PREFIX}{namespace}:{name}")
}

/// The namespace and the name of a service account, from a user name.
pub(in crate::api) fn account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')?;
    let sound = |s: &str| !s.is_empty() && !s.contains(':');
    (sound(namespace) && sound(name)).then_some((namespace, name))
}

/// The groups of a service account, beside `system:authenticated`.
pub(in crate::api) fn account_groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}
