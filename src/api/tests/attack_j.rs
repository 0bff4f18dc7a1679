//! Attack class J: hosts that lie. What a host reads and writes is in `access`, where it hangs itself on an owner, too (CVE-2025-5187);
//! tokens that are replayed, keys that are not its own, and certificates that ended or were replaced are in `joining`; here is what it may
//! pretend. There are no lists of revoked certificates that a fault could make us read wrongly (RUSTSEC-2026-0049, -0098, -0099, -0104,
//! GHSA-3wh4): of a host the one key counts that is on record for its name, looked up with each request.

use super::accounts::TOKEN;
use super::*;

fn bound(pod: &Value) -> Value {
    json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}}})
}

/// A host gets tokens for the pods that are bound to it, and for whom they want to speak to, and for nothing else.
#[tokio::test]
async fn j_tokens_of_anothers_pods() {
    let w = world();
    w.account("ci").await;
    w.account("elsewhere").await;
    let volume = json!([{"name": "t", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token"}}, {"serviceAccountToken": {"path": "vault", "audience": "vault"}}]}}]);
    let mine = w.pod_on("mine", "h1", json!({"serviceAccountName": "ci", "volumes": volume})).await;
    let other = w.pod_on("other", "h2", json!({"serviceAccountName": "ci", "volumes": volume})).await;
    let third = w.pod_on("third", "h2", json!({"serviceAccountName": "elsewhere", "volumes": volume})).await;
    let plain = w.pod_on("plain", "h1", json!({"serviceAccountName": "ci"})).await;
    let h1 = Identity::node("h1");
    let ask = async |body: Value| w.ask_as(&h1, TOKEN, body).await;
    assert_eq!(ask(bound(&mine)).await.code, 201);
    let mut vault = bound(&mine);
    vault["spec"]["audiences"] = json!(["vault"]);
    assert_eq!(ask(vault).await.code, 201);
    for (body, words) in [
        (json!({"spec": {}}), "node requested token not bound to a pod"),
        (json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "mine"}}}), "without a uid"),
        (bound(&other), "node requested token bound to a pod scheduled on a different node"),
        (bound(&plain), "audience"),
    ] {
        let answer = ask(body.clone()).await;
        assert_eq!(answer.code, 403, "{body}: {}", answer.show());
        assert!(answer.show().contains(words), "{}", answer.show());
    }
    let mut evil = bound(&mine);
    evil["spec"]["audiences"] = json!(["https://bank.example"]);
    assert!(ask(evil).await.show().contains("audience \"https://bank.example\" not found in pod spec volume"));
    // An account that none of its pods runs as, by whatever pod.
    let line = "POST /api/v1/namespaces/shop/serviceaccounts/elsewhere/token";
    for body in [bound(&third), bound(&mine), json!({"spec": {}})] {
        assert_eq!(w.ask_as(&h1, line, body).await.code, 403);
    }
    // Its pod goes, and with it the token and the right to another one.
    let token = ask(bound(&mine)).await.value["status"]["token"].as_str().unwrap().to_owned();
    let me = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";
    assert_eq!(w.with_token(&token, me, json!({})).await.code, 201);
    w.must("DELETE /api/v1/namespaces/shop/pods/mine", json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(w.with_token(&token, me, json!({})).await.code, 401);
    assert_eq!(ask(bound(&mine)).await.code, 404);
    // The same name again is another pod: the old uid buys nothing.
    w.pod_on("mine", "h1", json!({"serviceAccountName": "ci", "volumes": volume})).await;
    assert_eq!(ask(bound(&mine)).await.code, 409);
}

/// CVE-2025-4563: a pod that a host makes itself, as a mirror of what runs there or otherwise, would name what no scheduler and nobody's
/// rights gave to it: Secrets, accounts, devices. It makes none.
#[tokio::test]
async fn j_no_pods_of_its_own() {
    let w = world();
    let h1 = Identity::node("h1");
    assert_eq!(w.ask_as(&h1, "POST /api/v1/nodes", json!({"metadata": {"name": "h1"}})).await.code, 201);
    w.must("POST /api/v1/namespaces/shop/secrets", json!({"metadata": {"name": "s"}})).await;
    let container = |more: Value| {
        let mut container = json!({"name": "c", "image": "i"});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([container])
    };
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "h1", "uid": "u", "controller": true}]);
    for (annotations, owners) in [
        (json!({}), Value::Null),
        (json!({"kubernetes.io/config.mirror": "x", "kubernetes.io/config.source": "file"}), Value::Null),
        (json!({"kubernetes.io/config.mirror": "x", "kubernetes.io/config.source": "api"}), owner),
    ] {
        for spec in [
            json!({"containers": container(json!({}))}),
            json!({"containers": container(json!({"envFrom": [{"secretRef": {"name": "s"}}]}))}),
            json!({"containers": container(json!({})), "serviceAccountName": "root"}),
            json!({"containers": container(json!({"resources": {"claims": [{"name": "gpu"}]}})),
                "resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu"}]}),
        ] {
            let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
                "metadata": {"name": "mirror", "annotations": annotations, "ownerReferences": owners}});
            pod["spec"]["nodeName"] = "h1".into();
            let path = "/api/v1/namespaces/shop/pods";
            for line in [format!("POST {path}"), format!("POST {path}?dryRun=All"), format!("PUT {path}/mirror")] {
                let answer = w.ask_as(&h1, &line, pod.clone()).await;
                assert_eq!(answer.code, 403, "{line}: {}", answer.show());
            }
            let applied = format!("PATCH {path}/mirror?fieldManager=m&force=true");
            let headers = [("content-type", "application/apply-patch+yaml")];
            assert_eq!(w.send(Some(&h1), &applied, &headers, pod.to_string()).await.code, 403);
        }
    }
    // Nor does it take a pod that is bound nowhere, nor devices.
    w.must(
        "POST /api/v1/namespaces/shop/pods",
        json!({"metadata": {"name": "free"}, "spec": {"containers": container(json!({}))}}),
    )
    .await;
    let binding = json!({"target": {"kind": "Node", "name": "h1"}});
    assert_eq!(w.ask_as(&h1, "POST /api/v1/namespaces/shop/pods/free/binding", binding).await.code, 403);
    for line in ["GET /apis/resource.k8s.io/v1/namespaces/shop/resourceclaims", "POST /apis/resource.k8s.io/v1/resourceslices"] {
        assert!(matches!(w.ask_as(&h1, line, json!({})).await.code, 403 | 404), "{line}");
    }
    assert_eq!(w.ask_as(&h1, "GET /api/v1/namespaces/shop/secrets/s", Value::Null).await.code, 403);
}

/// What a host may not become: another host, a person, or an authority.
#[tokio::test]
async fn j_a_host_stays_what_it_is() {
    let w = world();
    let h1 = Identity::node("h1");
    let node = json!({"metadata": {"name": "h1"}});
    assert_eq!(w.ask_as(&h1, "POST /api/v1/nodes", node).await.code, 201);
    for (line, body) in [
        ("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", json!({"metadata": {"name": "x"}})),
        ("GET /apis/rbac.authorization.k8s.io/v1/clusterroles", Value::Null),
        ("POST /apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": "x"}})),
        ("POST /apis/authorization.k8s.io/v1/subjectaccessreviews", json!({"spec": {"user": "x"}})),
        ("GET /api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef", Value::Null),
        ("POST /api/v1/namespaces/kube-system/secrets", json!({"metadata": {"name": "bootstrap-token-abcdef"}})),
        ("PATCH /api/v1/namespaces/kube-system/secrets/node-identity-h1", json!({"data": {}})),
        ("POST /api/v1/namespaces/kube-system/configmaps", json!({"metadata": {"name": "revoked-credentials"}})),
        ("GET /api/v1/serviceaccounts", Value::Null),
        ("GET /apis/certificates.k8s.io/v1/certificatesigningrequests", Value::Null),
    ] {
        let answer = w.ask_as(&h1, line, body).await;
        assert_eq!(answer.code, 403, "{line}: {}", answer.show());
    }
    for name in ["jane", "system:node:h2", "system:serviceaccount:kube-system:default"] {
        let answer = w.send(Some(&h1), "GET /api", &[("impersonate-user", name)], "").await;
        assert_eq!(answer.code, 403, "{name}");
    }
    // What the reviews say is what holds.
    let review = async |attributes: Value| {
        let line = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        w.ask_as(&h1, line, json!({"spec": {"resourceAttributes": attributes}})).await.value["status"]["allowed"].clone()
    };
    assert_eq!(review(json!({"verb": "patch", "resource": "nodes", "subresource": "status", "name": "h1"})).await, true);
    assert_eq!(review(json!({"verb": "patch", "resource": "nodes", "subresource": "status", "name": "h2"})).await, false);
}

/// An empty list allows nobody (CVE-2026-110631): no subjects, no rules, no names, no groups, no audiences.
#[tokio::test]
async fn j_empty_lists_deny() {
    let w = world();
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let jane = Identity::new("jane", &[]);
    let nobody = Identity::new("", &[]);
    let binding = |name: &str, role: &str, subjects: Value| json!({"metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": role, "apiGroup": "rbac.authorization.k8s.io"}, "subjects": subjects});
    w.must(&format!("POST {rbac}/clusterrolebindings"), binding("none", "cluster-admin", json!([]))).await;
    w.must(&format!("POST {rbac}/clusterrolebindings"), json!({"metadata": {"name": "absent"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"}})).await;
    w.must(&format!("POST {rbac}/clusterroles"), json!({"metadata": {"name": "empty"}, "rules": []})).await;
    w.must(&format!("POST {rbac}/clusterroles"), json!({"metadata": {"name": "absent"}})).await;
    let user = json!([{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]);
    w.must(&format!("POST {rbac}/clusterrolebindings"), binding("e", "empty", user.clone())).await;
    w.must(&format!("POST {rbac}/clusterrolebindings"), binding("a", "absent", user)).await;
    for who in [&jane, &nobody] {
        for line in ["GET /api/v1/secrets", "GET /api/v1/namespaces/shop/pods", "GET /apis/portolan.dev/v1alpha1/applications"] {
            assert_eq!(w.ask_as(who, line, Value::Null).await.code, 403, "{line}");
        }
    }
    // A rule that names nothing is no rule at all.
    let bad = json!({"metadata": {"name": "bad"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": []}]});
    assert_eq!(w.ask(&format!("POST {rbac}/clusterroles"), bad).await.code, 422);
}
