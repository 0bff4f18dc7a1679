//! Nobody hands out more than he has: what is looked at when roles and bindings are written.
//!
//! Whoever writes a role must have all that it allows, or the verb `escalate` on it; whoever binds one must have all that it allows, or
//! the verb `bind` on it. That holds for every change, also of a label: by its labels a role becomes part of others.

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

use super::{Attributes, Identity, What};
use crate::api::Api;
use crate::api::failure::Failure;
use crate::object::kind::RBAC;
use crate::object::rules::{show, uncovered};
use crate::object::{Draft, Object};

impl Api {
    /// Whether somebody may store this role or binding. Other kinds are none of its business.
    pub(in crate::api) fn check_escalation(&self, identity: &Identity, old: Option<&Object>, new: &Draft) -> Result<(), Failure> {
        let kind = new.key.kind;
        if kind.group != RBAC || identity.is_master() {
            return Ok(());
        }
        let (value, before) = (new.value(), old.map(Object::value));
        if before.as_ref().is_some_and(|before| means_the_same(before, &value)) {
            return Ok(());
        }
        let may = |verb: &str, resource: &str, namespace: &str, name: &str| {
            let what = What::Resource { group: RBAC, resource, subresource: "", namespace, name, fields: "" };
            self.decide(identity, &Attributes { verb, what }).is_ok()
        };
        let namespace = &*new.key.namespace;
        let granted = match kind.kind {
            "Role" | "ClusterRole" => {
                if may("escalate", kind.plural, namespace, &new.key.name) {
                    return Ok(());
                }
                if [Some(&value), before.as_ref()].into_iter().flatten().any(|role| !role["aggregationRule"].is_null()) {
                    self.has_everything(identity, kind, &new.key.name)?;
                }
                serde_json::from_value::<Option<Vec<PolicyRule>>>(value["rules"].clone()).ok().flatten().unwrap_or_default()
            }
            _ => {
                let (of, name) = (text(&value["roleRef"]["kind"]), text(&value["roleRef"]["name"]));
                let (plural, place) = if of == "Role" { ("roles", namespace) } else { ("clusterroles", "") };
                // Asked in the binding's own namespace, for ClusterRoles too, as in Kubernetes.
                if may("bind", plural, namespace, name) {
                    return Ok(());
                }
                let view = self.store().view();
                match self.inner.rbac.rules_of_role(&view, place, name) {
                    Some(rules) => rules.to_vec(),
                    // Nobody may prepare a binding for a role that somebody else will make.
                    None => {
                        let missing = format!("{plural}.{RBAC} {name:?} not found");
                        return Err(Failure::missing(missing));
                    }
                }
            }
        };
        self.covers(identity, namespace, &granted, |missing| {
            let groups = identity.groups.iter().map(|g| format!("{g:?}")).collect::<Vec<_>>().join(" ");
            let why = format!(
                "user {:?} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{missing}",
                identity.name
            );
            Failure::forbidden(kind, &new.key.name, &why)
        })
    }

    fn covers(
        &self,
        identity: &Identity,
        namespace: &str,
        granted: &[PolicyRule],
        refuse: impl Fn(&str) -> Failure,
    ) -> Result<(), Failure> {
        let owned = self.inner.rbac.rules_of(&self.store().view(), identity, namespace);
        let owned: Vec<&PolicyRule> = owned.iter().collect();
        let missing = uncovered(&owned, granted);
        if missing.is_empty() {
            return Ok(());
        }
        // A message is for people: whoever misses a thousand rights reads of the first.
        let lines: Vec<String> = missing.iter().take(50).map(show).collect();
        Err(refuse(&lines.join("\n")))
    }

    /// An aggregated role can become anything, so only who may do everything may make one.
    fn has_everything(&self, identity: &Identity, kind: &'static crate::object::Kind, name: &str) -> Result<(), Failure> {
        let star = || Some(vec!["*".to_owned()]);
        let everything = [
            PolicyRule { verbs: vec!["*".into()], api_groups: star(), resources: star(), ..PolicyRule::default() },
            PolicyRule { verbs: vec!["*".into()], non_resource_urls: star(), ..PolicyRule::default() },
        ];
        self.covers(identity, "", &everything, |_| {
            Failure::forbidden(kind, name, "must have cluster-admin privileges to use an aggregationRule")
        })
    }
}

/// Whether two versions differ in nothing that can give a right to anybody: who collects garbage changes owners and finalizers.
fn means_the_same(before: &Value, after: &Value) -> bool {
    let [before, after] = [before, after].map(|value| {
        let mut value = value.clone();
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            value["metadata"].as_object_mut().map(|metadata| metadata.remove(field));
        }
        value
    });
    before == after
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
