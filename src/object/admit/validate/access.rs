//! Roles, their bindings and certificate requests: what a rule must say, and what a binding may point at.
//!
//! Whether somebody may hand out what a role allows is not a question of its form: `api::auth` decides that.

use serde_json::Value;

use super::super::{Cause, names};
use super::causes::{Causes, list, text, there};
use crate::object::kind::RBAC;

/// Roles.
pub fn role(object: &Value, _old: Option<&Value>) -> Vec<Cause> {
    rules(object, true).0
}

/// ClusterRoles.
pub fn cluster_role(object: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut c = rules(object, false);
    let aggregation = &object["aggregationRule"];
    if there(aggregation) {
        let at = "aggregationRule.clusterRoleSelectors";
        if list(&aggregation["clusterRoleSelectors"]).next().is_none() {
            c.required(at, "at least one clusterRoleSelector required if aggregationRule is non-nil");
        }
        for (i, selector) in list(&aggregation["clusterRoleSelectors"]) {
            c.selector(&format!("{at}[{i}]"), selector);
        }
    }
    c.0
}

fn rules(object: &Value, namespaced: bool) -> Causes {
    let mut c = Causes::default();
    for (i, rule) in list(&object["rules"]) {
        self::rule(&mut c, &format!("rules[{i}]"), rule, namespaced);
    }
    c
}

fn rule(c: &mut Causes, at: &str, rule: &Value, namespaced: bool) {
    let empty = |field: &str| list(&rule[field]).next().is_none();
    if empty("verbs") {
        c.required(format!("{at}.verbs"), "verbs must contain at least one value");
    }
    if !empty("nonResourceURLs") {
        let found = rule["nonResourceURLs"].clone();
        if namespaced {
            c.invalid(format!("{at}.nonResourceURLs"), found.clone(), "namespaced rules cannot apply to non-resource URLs");
        }
        if !(empty("apiGroups") && empty("resources") && empty("resourceNames")) {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            c.invalid(format!("{at}.nonResourceURLs"), found, why);
        }
        return;
    }
    if empty("apiGroups") {
        c.required(format!("{at}.apiGroups"), "resource rules must supply at least one api group");
    }
    if empty("resources") {
        c.required(format!("{at}.resources"), "resource rules must supply at least one resource");
    }
}

/// RoleBindings.
pub fn role_binding(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    binding(object, old, true)
}

/// ClusterRoleBindings.
pub fn cluster_role_binding(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    binding(object, old, false)
}

fn binding(object: &Value, old: Option<&Value>, namespaced: bool) -> Vec<Cause> {
    let mut c = Causes::default();
    let role = &object["roleRef"];
    if text(&role["apiGroup"]) != RBAC {
        c.unsupported("roleRef.apiGroup", text(&role["apiGroup"]), &[RBAC]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&text(&role["kind"])) {
        c.unsupported("roleRef.kind", text(&role["kind"]), kinds);
    }
    c.required_name("roleRef.name", text(&role["name"]), names::path_segment);
    for (i, subject) in list(&object["subjects"]) {
        self::subject(&mut c, &format!("subjects[{i}]"), subject, namespaced);
    }
    if let Some(old) = old
        && old["roleRef"] != *role
    {
        c.invalid("roleRef", role.clone(), "cannot change roleRef");
    }
    c.0
}

fn subject(c: &mut Causes, at: &str, subject: &Value, namespaced: bool) {
    let group = text(&subject["apiGroup"]);
    c.required_text(&format!("{at}.name"), &subject["name"]);
    match text(&subject["kind"]) {
        "ServiceAccount" => {
            c.name(&format!("{at}.name"), text(&subject["name"]), names::subdomain);
            if !group.is_empty() {
                c.unsupported(format!("{at}.apiGroup"), group, &[""]);
            }
            if !namespaced && text(&subject["namespace"]).is_empty() {
                c.required(format!("{at}.namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != RBAC {
                c.unsupported(format!("{at}.apiGroup"), group, &[RBAC]);
            }
        }
        other => c.unsupported(format!("{at}.kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

/// CertificateSigningRequests: what was asked for does not change.
pub fn certificate_request(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    c.required_text("spec.request", &spec["request"]);
    let signer = text(&spec["signerName"]);
    match signer.split_once('/') {
        None if signer.is_empty() => c.required("spec.signerName", ""),
        Some((domain, path)) if names::subdomain(domain).is_empty() && !path.is_empty() && domain.contains('.') => {}
        _ => c.invalid(
            "spec.signerName",
            signer,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
    }
    if list(&spec["usages"]).next().is_none() {
        c.required("spec.usages", "");
    }
    if spec["expirationSeconds"].as_i64().is_some_and(|seconds| seconds < 600) {
        c.invalid(
            "spec.expirationSeconds",
            spec["expirationSeconds"].clone(),
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
    if let Some(old) = old {
        c.immutable("spec", spec, &old["spec"]);
    }
    c.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn show(causes: Vec<Cause>) -> String {
        causes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn rules() {
        let rows = [
            (json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}), "Role", ""),
            (json!({"nonResourceURLs": ["/metrics"], "verbs": ["get"]}), "ClusterRole", ""),
            (
                json!({"nonResourceURLs": ["/metrics"], "verbs": ["get"]}),
                "Role",
                "rules[0].nonResourceURLs: Invalid value: [\"/metrics\"]: namespaced rules cannot apply to non-resource URLs",
            ),
            (
                json!({"nonResourceURLs": ["/x"], "resources": ["pods"], "verbs": ["get"]}),
                "ClusterRole",
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources and non-resource URLs",
            ),
            (
                json!({"resources": []}),
                "Role",
                "rules[0].verbs: Required value: verbs must contain at least one value; \
                 rules[0].apiGroups: Required value: resource rules must supply at least one api group; \
                 rules[0].resources: Required value: resource rules must supply at least one resource",
            ),
        ];
        for (rule, kind, wanted) in rows {
            let check = if kind == "Role" { role } else { cluster_role };
            assert_eq!(show(check(&json!({"rules": [rule]}), None)), wanted);
        }
        let empty = json!({"aggregationRule": {}});
        assert_eq!(
            show(cluster_role(&empty, None)),
            "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"
        );
    }

    #[test]
    fn bindings() {
        let binding = |kind: &'static str, role: &str, subject: Value| {
            (kind, json!({"roleRef": {"apiGroup": RBAC, "kind": role, "name": "r"}, "subjects": [subject]}))
        };
        let user = json!({"kind": "User", "apiGroup": RBAC, "name": "jane"});
        let account = json!({"kind": "ServiceAccount", "name": "ci"});
        let rows = [
            (binding("RoleBinding", "Role", user.clone()), ""),
            (binding("RoleBinding", "ClusterRole", account.clone()), ""),
            (binding("ClusterRoleBinding", "ClusterRole", account), "subjects[0].namespace: Required value"),
            (
                binding("ClusterRoleBinding", "Role", user.clone()),
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
            ),
            (
                binding("RoleBinding", "Role", json!({"kind": "Robot", "name": "x"})),
                "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
            ),
            (binding("RoleBinding", "Role", json!({"kind": "User", "apiGroup": RBAC})), "subjects[0].name: Required value"),
        ];
        for ((kind, object), wanted) in rows {
            let check = if kind == "RoleBinding" { role_binding } else { cluster_role_binding };
            assert_eq!(show(check(&object, None)), wanted);
        }
        let (_, old) = binding("RoleBinding", "Role", user);
        let mut new = old.clone();
        new["roleRef"]["name"] = "cluster-admin".into();
        assert!(show(role_binding(&new, Some(&old))).ends_with("cannot change roleRef"));
    }
}
