//! Roles and bindings: what they allow, in which words they refuse, and that nobody hands out more than he has.

use super::*;

pub(super) const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn somebody() -> Identity {
    Identity::new("jane", &["team"])
}

pub(super) fn subject(kind: &str, name: &str) -> Value {
    json!({"kind": kind, "name": name, "apiGroup": "rbac.authorization.k8s.io"})
}

pub(super) fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

impl World {
    pub(super) async fn role(&self, namespace: &str, name: &str, rules: Value) {
        let path = if namespace.is_empty() { "clusterroles".to_owned() } else { format!("namespaces/{namespace}/roles") };
        self.must(&format!("POST {RBAC}/{path}"), json!({"metadata": {"name": name}, "rules": rules})).await;
    }
    /// Binds a ClusterRole, or with `Role/x` a Role; with an empty namespace everywhere.
    pub(super) async fn bind(&self, namespace: &str, name: &str, role: &str, subject: Value) {
        let (kind, role) = role.split_once('/').unwrap_or(("ClusterRole", role));
        let path = match namespace {
            "" => "clusterrolebindings".to_owned(),
            namespace => format!("namespaces/{namespace}/rolebindings"),
        };
        let body = json!({"metadata": {"name": name}, "roleRef": {"kind": kind, "name": role, "apiGroup": "rbac.authorization.k8s.io"}, "subjects": [subject]});
        self.must(&format!("POST {RBAC}/{path}"), body).await;
    }
    pub(super) async fn codes(&self, who: &Identity, rows: &[(&str, u16)]) {
        for (line, code) in rows {
            let answer = self.ask_as(who, line, Value::Null).await;
            assert_eq!(answer.code, *code, "{line}: {}", answer.show());
        }
    }
}

#[tokio::test]
async fn somebody_without_a_binding() {
    let w = world();
    let jane = somebody();
    w.codes(&jane, &[("GET /api", 200), ("GET /apis/apps/v1", 200), ("GET /openapi/v3", 200), ("GET /api/v1/pods", 403)]).await;
    for (line, wanted) in [
        (
            "GET /api/v1/namespaces/shop/pods",
            "403 Forbidden: pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"shop\"",
        ),
        (
            "GET /api/v1/namespaces/shop/pods?watch=true",
            "403 Forbidden: pods is forbidden: User \"jane\" cannot watch resource \"pods\" in API group \"\" in the namespace \"shop\"",
        ),
        (
            "GET /apis/apps/v1/deployments",
            "403 Forbidden: deployments.apps is forbidden: User \"jane\" cannot list resource \"deployments\" in API group \"apps\" at the cluster scope",
        ),
        (
            "PATCH /apis/apps/v1/namespaces/shop/deployments/web/scale",
            "403 Forbidden: deployments.apps \"web\" is forbidden: User \"jane\" cannot patch resource \"deployments/scale\" in API group \"apps\" in the namespace \"shop\"",
        ),
        (
            "GET /api/v1/namespaces/shop",
            "403 Forbidden: namespaces \"shop\" is forbidden: User \"jane\" cannot get resource \"namespaces\" in API group \"\" in the namespace \"shop\"",
        ),
    ] {
        let answer = w.ask_as(&jane, line, if line.starts_with("PATCH") { json!({}) } else { Value::Null }).await;
        assert_eq!(answer.show(), wanted);
    }
    // What is there and what is not are refused with the same answer, but for the name that was asked for.
    w.must("POST /api/v1/namespaces/shop/secrets", json!({"metadata": {"name": "aa"}})).await;
    let there = w.ask_as(&jane, "GET /api/v1/namespaces/shop/secrets/aa", Value::Null).await;
    let absent = w.ask_as(&jane, "GET /api/v1/namespaces/shop/secrets/bb", Value::Null).await;
    assert_eq!(there.value.to_string().replace("aa", "bb"), absent.value.to_string());
}

#[tokio::test]
async fn a_binding_gives_and_takes_at_once() {
    let w = world();
    let jane = somebody();
    w.bind("shop", "jane-views", "view", subject("User", "jane")).await;
    w.codes(
        &jane,
        &[
            ("GET /api/v1/namespaces/shop/pods", 200),
            ("GET /api/v1/namespaces/shop/pods/none", 404),
            ("GET /api/v1/namespaces/shop", 200),
            ("GET /apis/apps/v1/namespaces/shop/deployments", 200),
            ("GET /api/v1/namespaces/shop/secrets", 403),
            ("GET /api/v1/namespaces/default/pods", 403),
            ("GET /api/v1/pods", 403),
            ("GET /api/v1/namespaces", 403),
            ("GET /api/v1/nodes", 403),
            ("DELETE /api/v1/namespaces/shop/pods/none", 403),
            ("GET /apis/portolan.dev/v1alpha1/namespaces/shop/renderings", 403),
        ],
    )
    .await;
    // `edit` holds what `view` holds, `admin` what both do: the sums are there with the first request.
    w.bind("default", "jane-edits", "edit", subject("Group", "team")).await;
    w.codes(
        &jane,
        &[
            ("GET /api/v1/namespaces/default/pods", 200),
            ("GET /api/v1/namespaces/default/secrets", 200),
            ("DELETE /apis/apps/v1/namespaces/default/deployments/none", 404),
            ("GET /apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", 403),
            ("DELETE /api/v1/namespaces/default", 403),
        ],
    )
    .await;
    let app = json!({"metadata": {"name": "mine"}, "spec": {"source": {"repository": "/x"}}});
    let refused = w.ask_as(&jane, "POST /apis/portolan.dev/v1alpha1/namespaces/default/applications", app).await;
    assert_eq!(refused.code, 403, "who may write an Application may deploy everywhere: {}", refused.show());
    w.must(&format!("DELETE {RBAC}/namespaces/shop/rolebindings/jane-views"), Value::Null).await;
    w.codes(&jane, &[("GET /api/v1/namespaces/shop/pods", 403), ("GET /api/v1/namespaces/default/pods", 200)]).await;
    // A role that changes changes what is bound to it, at once; a role that goes is named.
    w.role("shop", "looker", json!([rule(&[""], &["pods"], &["list"])])).await;
    w.bind("shop", "looks", "Role/looker", subject("User", "jane")).await;
    w.codes(&jane, &[("GET /api/v1/namespaces/shop/pods", 200), ("GET /api/v1/namespaces/shop/configmaps", 403)]).await;
    w.must(&format!("PATCH {RBAC}/namespaces/shop/roles/looker"), json!({"rules": [rule(&[""], &["configmaps"], &["list"])]}))
        .await;
    w.codes(&jane, &[("GET /api/v1/namespaces/shop/pods", 403), ("GET /api/v1/namespaces/shop/configmaps", 200)]).await;
    w.must(&format!("DELETE {RBAC}/namespaces/shop/roles/looker"), Value::Null).await;
    let gone = w.ask_as(&jane, "GET /api/v1/namespaces/shop/pods", Value::Null).await;
    assert!(gone.show().ends_with(": RBAC: role.rbac.authorization.k8s.io \"looker\" not found"), "{}", gone.show());
}

#[tokio::test]
async fn names_accounts_and_subresources() {
    let w = world();
    let jane = somebody();
    for name in ["a", "b"] {
        w.must("POST /api/v1/namespaces/shop/configmaps", config_map(name, json!({}))).await;
    }
    let one = json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"], "verbs": ["get", "list", "watch", "delete"]}]);
    w.role("shop", "one", one).await;
    w.bind("shop", "one", "Role/one", subject("User", "jane")).await;
    w.codes(
        &jane,
        &[
            ("GET /api/v1/namespaces/shop/configmaps/a", 200),
            ("GET /api/v1/namespaces/shop/configmaps/b", 403),
            ("GET /api/v1/namespaces/shop/configmaps", 403),
            ("GET /api/v1/namespaces/shop/configmaps?fieldSelector=metadata.name%3Da", 200),
            ("GET /api/v1/namespaces/shop/configmaps?fieldSelector=metadata.name!%3Da", 403),
            ("GET /api/v1/namespaces/shop/configmaps?fieldSelector=metadata.name%3Db", 403),
            ("DELETE /api/v1/namespaces/shop/configmaps", 403),
        ],
    )
    .await;
    let account = Identity::new("system:serviceaccount:shop:ci", &["system:serviceaccounts", "system:serviceaccounts:shop"]);
    let other = Identity::new("system:serviceaccount:default:ci", &["system:serviceaccounts"]);
    w.role("", "logs", json!([rule(&[""], &["pods/log"], &["get"])])).await;
    w.bind("shop", "ci-logs", "logs", json!({"kind": "ServiceAccount", "name": "ci"})).await;
    let log = "GET /api/v1/namespaces/shop/pods/none/log";
    w.codes(&account, &[(log, 404), ("GET /api/v1/namespaces/shop/pods/none", 403)]).await;
    w.codes(&other, &[(log, 403)]).await;
    // To read is not to act: a WebSocket begins with GET and takes the right to create.
    w.role("", "reads-exec", json!([rule(&[""], &["pods/exec"], &["get"])])).await;
    w.bind("shop", "ci-exec", "reads-exec", json!({"kind": "ServiceAccount", "name": "ci"})).await;
    let exec = w.ask_as(&account, "GET /api/v1/namespaces/shop/pods/none/exec?command=sh", Value::Null).await;
    assert!(exec.show().contains("cannot create resource \"pods/exec\""), "{}", exec.show());
    // Patterns are for rules, not for requests.
    w.codes(&account, &[("GET /api/v1/namespaces/*/pods", 403), ("GET /api/v1/namespaces/shop/secrets/*", 403)]).await;
}

#[tokio::test]
async fn f_nobody_hands_out_more_than_he_has() {
    let w = world();
    let jane = somebody();
    w.bind("shop", "jane", "admin", subject("User", "jane")).await;
    let roles = &format!("POST {RBAC}/namespaces/shop/roles");
    let role = |rules: Value| json!({"metadata": {"name": "r"}, "rules": rules});
    let binding = |kind: &str, name: &str| {
        json!({"metadata": {"name": "b"}, "roleRef": {"kind": kind, "name": name, "apiGroup": "rbac.authorization.k8s.io"},
            "subjects": [{"kind": "User", "name": "joe"}]})
    };
    let refused = w.ask_as(&jane, roles, role(json!([rule(&["*"], &["*"], &["*"])]))).await;
    assert_eq!(
        refused.show(),
        "403 Forbidden: roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"jane\" (groups=[\"team\" \"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}"
    );
    for rules in [
        json!([rule(&["portolan.dev"], &["applications"], &["create"])]),
        json!([rule(&[""], &["nodes"], &["get"])]),
        json!([rule(&[""], &["pods"], &["get", "escalate"])]),
        json!([rule(&["rbac.authorization.k8s.io"], &["roles"], &["escalate"])]),
    ] {
        assert_eq!(w.ask_as(&jane, roles, role(rules.clone())).await.code, 403, "{rules}");
    }
    assert_eq!(w.ask_as(&jane, roles, role(json!([rule(&[""], &["pods", "secrets"], &["get"])]))).await.code, 201);
    // Not by a later change either, in none of its forms.
    let more = json!({"rules": [rule(&["*"], &["*"], &["*"])]});
    assert_eq!(w.ask_as(&jane, &format!("PATCH {RBAC}/namespaces/shop/roles/r"), more.clone()).await.code, 403);
    let mut whole = role(more["rules"].clone());
    whole["metadata"]["namespace"] = "shop".into();
    assert_eq!(w.ask_as(&jane, &format!("PUT {RBAC}/namespaces/shop/roles/r"), whole.clone()).await.code, 403);
    let path = format!("PATCH {RBAC}/namespaces/shop/roles/r?fieldManager=m&force=true");
    whole["apiVersion"] = "rbac.authorization.k8s.io/v1".into();
    whole["kind"] = "Role".into();
    let apply = [("content-type", "application/apply-patch+yaml")];
    assert_eq!(w.send(Some(&jane), &path, &apply, whole.to_string()).await.code, 403);
    assert_eq!(
        w.ask_as(&jane, &format!("PATCH {RBAC}/namespaces/shop/roles/r"), json!({"metadata": {"labels": {"a": "b"}}})).await.code,
        200
    );
    // Bindings: what she has she may pass on, cluster-admin she may not, nor a role that is yet to be made.
    let bindings = &format!("POST {RBAC}/namespaces/shop/rolebindings");
    for (body, code) in [
        (binding("ClusterRole", "cluster-admin"), 403),
        (binding("ClusterRole", "yet-to-come"), 404),
        (binding("Role", "yet-to-come"), 404),
        (binding("ClusterRole", "edit"), 201),
    ] {
        assert_eq!(w.ask_as(&jane, bindings, body.clone()).await.code, code, "{body}");
    }
    let changed =
        w.ask(&format!("PATCH {RBAC}/namespaces/shop/rolebindings/b"), json!({"roleRef": {"name": "cluster-admin"}})).await;
    assert_eq!(changed.code, 422, "{}", changed.show());
    assert!(changed.show().contains("cannot change roleRef"), "{}", changed.show());
    w.codes(&jane, &[(&format!("GET {RBAC}/clusterroles"), 403)]).await;
    assert_eq!(w.ask_as(&jane, &format!("POST {RBAC}/clusterrolebindings"), binding("ClusterRole", "view")).await.code, 403);
    // With `escalate` and `bind` she may.
    w.role("shop", "trusted", json!([rule(&["rbac.authorization.k8s.io"], &["roles", "clusterroles"], &["escalate", "bind"])]))
        .await;
    w.bind("shop", "trusted", "Role/trusted", subject("User", "jane")).await;
    assert_eq!(w.ask_as(&jane, &format!("PATCH {RBAC}/namespaces/shop/roles/r"), more).await.code, 200);
    let mut all = binding("Role", "r");
    all["metadata"]["name"] = "c".into();
    assert_eq!(w.ask_as(&jane, bindings, all).await.code, 201);
    // The right to bind counts in the namespace of the binding, for ClusterRoles as well; it gives nothing outside of it.
    let mut all = binding("ClusterRole", "cluster-admin");
    all["metadata"]["name"] = "d".into();
    assert_eq!(w.ask_as(&jane, bindings, all.clone()).await.code, 201);
    assert_eq!(w.ask_as(&jane, &format!("POST {RBAC}/clusterrolebindings"), all).await.code, 403);
}

#[tokio::test]
async fn f_sums_are_for_those_who_have_everything() {
    let w = world();
    let jane = somebody();
    w.role(
        "",
        "writes-roles",
        json!([rule(&["rbac.authorization.k8s.io"], &["clusterroles"], &["create", "update", "patch", "get"])]),
    )
    .await;
    w.bind("", "jane", "writes-roles", subject("User", "jane")).await;
    let sum = json!({"metadata": {"name": "sum"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    let refused = w.ask_as(&jane, &format!("POST {RBAC}/clusterroles"), sum.clone()).await;
    assert!(refused.show().ends_with("must have cluster-admin privileges to use an aggregationRule"), "{}", refused.show());
    let empty = json!({"metadata": {"name": "empty"}, "rules": []});
    assert_eq!(w.ask_as(&jane, &format!("POST {RBAC}/clusterroles"), empty).await.code, 201);
    let label = json!({"metadata": {"labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}, "rules": [rule(&[""], &["secrets"], &["get"])]});
    assert_eq!(w.ask_as(&jane, &format!("PATCH {RBAC}/clusterroles/empty"), label).await.code, 403);
    assert_eq!(w.ask(&format!("POST {RBAC}/clusterroles"), sum).await.code, 201);
}

#[tokio::test]
async fn the_default_roles_are_completed_and_not_overwritten() {
    let w = world();
    let now: Timestamp = *w.clock.lock();
    let before = w.store.revision();
    super::super::auth::defaults::reconcile(&w.store, now).unwrap();
    assert_eq!(w.store.revision(), before, "at rest nothing is written");
    w.must(&format!("PATCH {RBAC}/clusterroles/system:basic-user"), json!({"rules": [rule(&["x"], &["y"], &["get"])]})).await;
    w.must(&format!("PATCH {RBAC}/clusterrolebindings/system:discovery"), json!({"subjects": []})).await;
    w.must(&format!("DELETE {RBAC}/clusterroles/view"), Value::Null).await;
    let own = json!({"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}, "rules": []});
    w.must(&format!("PATCH {RBAC}/clusterroles/system:monitoring"), own).await;
    super::super::auth::defaults::reconcile(&w.store, now).unwrap();
    let role = async |name: &str| w.must(&format!("GET {RBAC}/clusterroles/{name}"), Value::Null).await["rules"].clone();
    let basic = role("system:basic-user").await;
    assert!(basic.as_array().unwrap().iter().any(|r| r["resources"] == json!(["y"])), "what was added stays: {basic}");
    assert!(basic.to_string().contains("selfsubjectaccessreviews"), "what was missing is back: {basic}");
    assert!(role("view").await.to_string().contains("pods/log"));
    assert_eq!(role("system:monitoring").await, json!([]));
    w.codes(&somebody(), &[("GET /api", 200)]).await;
    let admin = role("admin").await.to_string();
    for part in ["\"rolebindings\"", "\"pods/exec\"", "\"pods/log\"", "\"localsubjectaccessreviews\""] {
        assert!(admin.contains(part), "{part}");
    }
    assert!(!admin.contains("renderings") && !admin.contains("escalate"));
    assert!(!role("view").await.to_string().contains("secrets"));
}

/// The index answers like somebody who reads all roles and bindings anew each time.
#[tokio::test]
async fn the_index_agrees_with_a_naive_reading() {
    let w = world();
    let mut seed = 7u64;
    let mut draw = |n: u64| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) % n
    };
    let (people, spaces) = (["ann", "bob"], ["default", "shop"]);
    let (resources, verbs) = (["pods", "configmaps"], ["get", "list", "*"]);
    for round in 0..150 {
        let (who, space, n) = (people[draw(2) as usize], spaces[draw(2) as usize], draw(4));
        let rules = json!([rule(&[""], &[resources[draw(2) as usize]], &[verbs[draw(3) as usize]])]);
        match draw(6) {
            0 => drop(
                w.ask(&format!("POST {RBAC}/clusterroles"), json!({"metadata": {"name": format!("r{n}")}, "rules": rules})).await,
            ),
            1 => drop(w.ask(&format!("PATCH {RBAC}/clusterroles/r{n}"), json!({"rules": rules})).await),
            2 => drop(w.ask(&format!("DELETE {RBAC}/clusterroles/r{n}"), Value::Null).await),
            3 => drop(w.ask(&format!("DELETE {RBAC}/namespaces/{space}/rolebindings/b{n}"), Value::Null).await),
            4 => drop(
                w.ask(&format!("PATCH {RBAC}/namespaces/{space}/rolebindings/b{n}"), json!({"subjects": [subject("User", who)]}))
                    .await,
            ),
            _ => {
                let body = json!({"metadata": {"name": format!("b{n}")}, "subjects": [subject("User", who), subject("User", people[draw(2) as usize])],
                    "roleRef": {"kind": "ClusterRole", "name": format!("r{}", draw(4)), "apiGroup": "rbac.authorization.k8s.io"}});
                let path =
                    if draw(3) == 0 { "clusterrolebindings".to_owned() } else { format!("namespaces/{space}/rolebindings") };
                drop(w.ask(&format!("POST {RBAC}/{path}"), body).await);
            }
        }
        let list =
            async |path: &str| w.must(&format!("GET {RBAC}/{path}"), Value::Null).await["items"].as_array().unwrap().clone();
        let (roles, mut bound) = (list("clusterroles").await, list("rolebindings").await);
        bound.extend(list("clusterrolebindings").await);
        for who in people {
            for space in spaces {
                for (resource, verb) in [("pods", "list"), ("configmaps", "list")] {
                    let wanted = bound.iter().any(|b| {
                        let here = b["metadata"]["namespace"].as_str().is_none_or(|ns| ns == space);
                        let him = b["subjects"].as_array().into_iter().flatten().any(|s| s["name"] == who && s["kind"] == "User");
                        let role = roles.iter().find(|r| r["metadata"]["name"] == b["roleRef"]["name"]);
                        let rules = role.and_then(|r| r["rules"].as_array());
                        here && him
                            && rules.into_iter().flatten().any(|r| {
                                let has =
                                    |field: &str, what: &str| r[field].as_array().unwrap().iter().any(|v| v == what || v == "*");
                                r["resources"].is_array() && has("resources", resource) && has("verbs", verb)
                            })
                    });
                    let code = w
                        .ask_as(&Identity::new(who, &[]), &format!("GET /api/v1/namespaces/{space}/{resource}"), Value::Null)
                        .await
                        .code;
                    assert_eq!(code == 200, wanted, "round {round}: {who} {verb} {resource} in {space}");
                }
            }
        }
    }
}
