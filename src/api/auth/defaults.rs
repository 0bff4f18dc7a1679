//! The roles and bindings that are always there, under Kubernetes' names.
//!
//! They are written at each start: what is missing is added, what an operator added stays. An object with the annotation
//! `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone. `admin`, `edit` and `view` are sums over labels, so that others
//! can add to them.

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Subject};
use serde_json::{Value, json};

use super::{AUTHENTICATED, MASTERS};
use crate::api::new_uid;
use crate::object::admit::{self, Stamp};
use crate::object::kind::RBAC;
use crate::object::rules::{aggregate, uncovered};
use crate::object::{Key, Object, kind_of};
use crate::store::{Store, Txn};

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const ALL: &[&str] = &["*"];
const DISCOVERY: &[&str] = &["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", "/version", "/version/"];
const HEALTH: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];

/// What somebody may see of a namespace: everything but secrets and roles, by group. What is listed here and not served yet costs
/// nothing, and is right when it comes.
const SEEN: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "bindings",
            "configmaps",
            "endpoints",
            "events",
            "limitranges",
            "namespaces",
            "namespaces/status",
            "persistentvolumeclaims",
            "persistentvolumeclaims/status",
            "pods",
            "pods/log",
            "pods/status",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "replicationcontrollers/status",
            "resourcequotas",
            "resourcequotas/status",
            "serviceaccounts",
            "services",
            "services/status",
        ],
    ),
    (
        "apps",
        &[
            "controllerrevisions",
            "daemonsets",
            "daemonsets/status",
            "deployments",
            "deployments/scale",
            "deployments/status",
            "replicasets",
            "replicasets/scale",
            "replicasets/status",
            "statefulsets",
            "statefulsets/scale",
            "statefulsets/status",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
    ("batch", &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("networking.k8s.io", &["ingresses", "ingresses/status", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
    // Not renderings: they hold whole manifests, secrets among them.
    ("portolan.dev", &["applications", "applications/status", "releases", "releases/status"]),
    ("metrics.k8s.io", &["pods"]),
];

/// What somebody may change who works in a namespace. Not Applications: they may deploy everywhere.
const EDITED: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "configmaps",
            "events",
            "persistentvolumeclaims",
            "pods",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "secrets",
            "serviceaccounts",
            "services",
            "services/proxy",
        ],
    ),
    (
        "apps",
        &[
            "daemonsets",
            "deployments",
            "deployments/rollback",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("coordination.k8s.io", &["leases"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
    ("policy", &["poddisruptionbudgets"]),
];

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": [group], "resources": resources})
}

fn urls(urls: &[&str]) -> Value {
    json!({"verbs": ["get"], "nonResourceURLs": urls})
}

fn everything_in(table: &[(&str, &[&str])], verbs: &[&str]) -> Vec<Value> {
    table.iter().map(|(group, resources)| rule(verbs, group, resources)).collect()
}

/// A role: its name, the roles that it is a part of, and its rules.
fn role(name: &str, parts_of: &[&str], rules: Vec<Value>) -> Value {
    let mut value = head(name);
    for sum in parts_of {
        value["metadata"]["labels"][format!("{RBAC}/aggregate-to-{sum}")] = "true".into();
    }
    value["rules"] = rules.into();
    value
}

/// A role that is the sum of others.
fn sum(name: &str, parts_of: &[&str]) -> Value {
    let mut value = role(name, parts_of, Vec::new());
    let label = format!("{RBAC}/aggregate-to-{name}");
    value["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
    value
}

fn head(name: &str) -> Value {
    json!({"metadata": {
        "name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}, "annotations": {AUTO_UPDATE: "true"},
    }})
}

fn binding(role: &str, subjects: &[(&str, &str)]) -> Value {
    let mut value = head(role);
    value["roleRef"] = json!({"apiGroup": RBAC, "kind": "ClusterRole", "name": role});
    value["subjects"] = subjects.iter().map(|(kind, name)| json!({"apiGroup": RBAC, "kind": kind, "name": name})).collect();
    value
}

fn roles() -> Vec<Value> {
    let edit = [
        everything_in(EDITED, WRITE),
        vec![
            rule(READ, "", &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"]),
            rule(WRITE, "", &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy"]),
            rule(&["create"], "", &["pods/eviction", "serviceaccounts/token"]),
            rule(&["impersonate"], "", &["serviceaccounts"]),
            rule(READ, "coordination.k8s.io", &["leases"]),
        ],
    ];
    let authentication = "authentication.k8s.io";
    let authorization = "authorization.k8s.io";
    let certificates = "certificates.k8s.io";
    let named = |verb: &str, resource: &str, name: &str| json!({"verbs": [verb], "apiGroups": [certificates], "resources": [resource], "resourceNames": [name]});
    vec![
        role("cluster-admin", &[], vec![rule(ALL, "*", ALL), json!({"verbs": ALL, "nonResourceURLs": ALL})]),
        sum("admin", &[]),
        sum("edit", &["admin"]),
        sum("view", &["edit"]),
        role(
            "system:aggregate-to-admin",
            &["admin"],
            vec![
                rule(&["create"], authorization, &["localsubjectaccessreviews"]),
                rule(&[READ, WRITE].concat(), RBAC, &["rolebindings", "roles"]),
            ],
        ),
        role("system:aggregate-to-edit", &["edit"], edit.concat()),
        role("system:aggregate-to-view", &["view"], everything_in(SEEN, READ)),
        role(
            "system:basic-user",
            &[],
            vec![
                rule(&["create"], authorization, &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
                rule(&["create"], authentication, &["selfsubjectreviews"]),
            ],
        ),
        role("system:discovery", &[], vec![urls(&[DISCOVERY, &["/healthz", "/livez", "/readyz"]].concat())]),
        role("system:public-info-viewer", &[], vec![urls(HEALTH)]),
        role(
            "system:monitoring",
            &[],
            vec![urls(&["/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/readyz", "/readyz/*"])],
        ),
        role(
            "system:service-account-issuer-discovery",
            &[],
            vec![urls(&[
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/",
                "/openid/v1/jwks",
                "/openid/v1/jwks/",
            ])],
        ),
        role(
            "system:auth-delegator",
            &[],
            vec![
                rule(&["create"], authentication, &["tokenreviews"]),
                rule(&["create"], authorization, &["subjectaccessreviews"]),
            ],
        ),
        role(
            "system:certificates.k8s.io:kube-apiserver-client-approver",
            &[],
            vec![named("approve", "signers", "kubernetes.io/kube-apiserver-client")],
        ),
        role(
            "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
            &[],
            vec![named("approve", "signers", "kubernetes.io/kube-apiserver-client-kubelet")],
        ),
        // Agents have their rights from the node authorizer; this is for what joins them by other ways.
        role(
            "system:node",
            &[],
            vec![
                rule(&["create"], authentication, &["tokenreviews"]),
                rule(&["create"], authorization, &["localsubjectaccessreviews", "subjectaccessreviews"]),
                rule(&["create", "get", "list", "watch"], "", &["nodes"]),
                rule(&["patch", "update"], "", &["nodes", "nodes/status", "pods/status"]),
                rule(&["create", "patch", "update"], "", &["events"]),
                rule(&["create", "delete", "get", "list", "watch"], "", &["pods"]),
                rule(&["create"], "", &["pods/eviction", "serviceaccounts/token"]),
                rule(READ, "", &["configmaps", "secrets", "services"]),
                rule(&["create", "delete", "get", "patch", "update"], "coordination.k8s.io", &["leases"]),
                rule(&["create", "get", "list", "watch"], certificates, &["certificatesigningrequests"]),
            ],
        ),
        role(
            "system:kube-scheduler",
            &[],
            vec![
                rule(&["create", "patch", "update"], "", &["events"]),
                rule(&["create", "patch", "update"], "events.k8s.io", &["events"]),
                rule(&["create", "get", "list", "patch", "update", "watch"], "coordination.k8s.io", &["leases"]),
                rule(
                    READ,
                    "",
                    &["namespaces", "nodes", "persistentvolumeclaims", "persistentvolumes", "replicationcontrollers", "services"],
                ),
                rule(&["delete", "get", "list", "watch"], "", &["pods"]),
                rule(&["create"], "", &["bindings", "pods/binding"]),
                rule(&["patch", "update"], "", &["pods/status"]),
                rule(READ, "apps", &["replicasets", "statefulsets"]),
                rule(READ, "policy", &["poddisruptionbudgets"]),
                rule(READ, "storage.k8s.io", &["csidrivers", "csinodes", "csistoragecapacities", "storageclasses"]),
            ],
        ),
        role(
            "system:kube-controller-manager",
            &[],
            vec![
                rule(&["create", "patch", "update"], "", &["events"]),
                rule(&["create", "patch", "update"], "events.k8s.io", &["events"]),
                rule(&["create", "get", "list", "patch", "update", "watch"], "coordination.k8s.io", &["leases"]),
                rule(&["create", "get", "update"], "", &["secrets", "serviceaccounts"]),
                rule(&["get", "list", "watch"], "*", &["*"]),
                rule(&["create"], "", &["serviceaccounts/token"]),
                rule(&["create"], authentication, &["tokenreviews"]),
                rule(&["create"], authorization, &["subjectaccessreviews"]),
            ],
        ),
    ]
}

fn bindings() -> Vec<Value> {
    let known = [("Group", AUTHENTICATED)];
    vec![
        binding("cluster-admin", &[("Group", MASTERS)]),
        binding("system:basic-user", &known),
        binding("system:discovery", &known),
        // Without a credential there is health and the version, for which nobody is asked who he is.
        binding("system:public-info-viewer", &known),
        binding("system:monitoring", &[("Group", "system:monitoring")]),
        binding("system:service-account-issuer-discovery", &[("Group", "system:serviceaccounts")]),
        binding("system:kube-scheduler", &[("User", "system:kube-scheduler")]),
        binding("system:kube-controller-manager", &[("User", "system:kube-controller-manager")]),
    ]
}

/// Writes what is missing. Doing it twice changes nothing more.
///
/// # Errors
/// The store takes no more writes, or somebody else writes the same roles at this moment.
pub fn reconcile(store: &Store, now: Timestamp) -> anyhow::Result<()> {
    for wanted in roles() {
        let key = Key::new(kind_of::<ClusterRole>(), "", wanted["metadata"]["name"].as_str().unwrap_or_default());
        let write = || format!("write the role {}", key.name);
        ensure(store, &key, wanted, now, add_rules).with_context(write)?;
    }
    for wanted in bindings() {
        let key = Key::new(kind_of::<ClusterRoleBinding>(), "", wanted["metadata"]["name"].as_str().unwrap_or_default());
        let write = || format!("write the binding {}", key.name);
        ensure(store, &key, wanted, now, add_subjects).with_context(write)?;
    }
    sums(store, now)
}

/// Creates an object, or lets `add` complete the one that is there.
fn ensure(
    store: &Store,
    key: &Key,
    wanted: Value,
    now: Timestamp,
    add: fn(&Object, &Value, &mut Value) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut txn = Txn::new();
    match store.get(key) {
        None => {
            txn.create(admit::create(key.kind, wanted, &Stamp { uid: new_uid(), now })?);
        }
        Some(old) if old.meta.annotations.get(AUTO_UPDATE).is_some_and(|auto| auto == "false") => return Ok(()),
        Some(old) => {
            let mut value = old.value();
            add(&old, &wanted, &mut value)?;
            match admit::update(&old, value, None, now)? {
                Some(draft) => txn.update(draft, old.revision),
                None => return Ok(()),
            };
        }
    }
    store.commit(txn)?;
    Ok(())
}

fn add_rules(old: &Object, wanted: &Value, value: &mut Value) -> anyhow::Result<()> {
    let there = old.typed::<ClusterRole>()?;
    let rules: Vec<PolicyRule> = serde_json::from_value(wanted["rules"].clone()).unwrap_or_default();
    let owned: Vec<&PolicyRule> = there.rules.iter().flatten().collect();
    let missing = uncovered(&owned, &rules);
    if !missing.is_empty() {
        let all: Vec<&PolicyRule> = owned.into_iter().chain(&missing).collect();
        value["rules"] = serde_json::to_value(all)?;
    }
    if value["aggregationRule"].is_null() && !wanted["aggregationRule"].is_null() {
        value["aggregationRule"] = wanted["aggregationRule"].clone();
    }
    for (label, text) in wanted["metadata"]["labels"].as_object().into_iter().flatten() {
        value["metadata"]["labels"][label] = text.clone();
    }
    Ok(())
}

fn add_subjects(old: &Object, wanted: &Value, value: &mut Value) -> anyhow::Result<()> {
    let there = old.typed::<ClusterRoleBinding>()?;
    let wanted: Vec<Subject> = serde_json::from_value(wanted["subjects"].clone()).unwrap_or_default();
    let mut all = there.subjects.clone().unwrap_or_default();
    for subject in wanted {
        if !all.contains(&subject) {
            all.push(subject);
        }
    }
    value["subjects"] = serde_json::to_value(all)?;
    Ok(())
}

/// The sums, so that they are there with the first request; later a loop keeps them (`control`).
fn sums(store: &Store, now: Timestamp) -> anyhow::Result<()> {
    // One sum may be a part of another: `view` of `edit` of `admin`.
    for _ in 0..3 {
        let view = store.view();
        let objects: Vec<_> = view.list(kind_of::<ClusterRole>()).cloned().collect();
        let roles: Vec<_> = objects.iter().filter_map(|o| o.typed::<ClusterRole>().ok()).collect();
        for (object, role) in objects.iter().zip(&roles) {
            let Some(rules) = aggregate(role, roles.iter().map(|r| &**r)) else { continue };
            if role.rules.as_deref().unwrap_or_default() == rules {
                continue;
            }
            let mut value = object.value();
            value["rules"] = serde_json::to_value(rules)?;
            if let Some(draft) = admit::update(object, value, None, now)? {
                let mut txn = Txn::new();
                txn.update(draft, object.revision);
                store.commit(txn)?;
            }
        }
    }
    Ok(())
}
