//! Who may do what, with every refusal (attack classes E, F and J).

use super::*;

fn stranger() -> Identity {
    Identity::new("somebody", &["developers"])
}

#[tokio::test]
async fn strangers_see_nothing() {
    let w = world();
    for (line, code) in [
        ("GET /healthz", 200),
        ("GET /livez", 200),
        ("GET /readyz", 200),
        ("GET /version", 200),
        ("GET /cacert", 200),
        ("GET /api", 401),
        ("GET /apis", 401),
        ("GET /openapi/v3", 401),
        ("GET /api/v1/namespaces", 401),
        ("GET /nope", 401),
        ("POST /apis/portolan.dev/v1alpha1/join", 401),
        ("GET /apis/portolan.dev/v1alpha1/nodes/h1/tunnel", 401),
        ("GET /metrics", 401),
    ] {
        assert_eq!(w.send(None, line, &[], "").await.code, code, "{line}");
    }
    // A bearer token says nothing outside joining, and neither do headers of a proxy.
    let headers =
        [("authorization", "Bearer abcdef.secret"), ("x-remote-user", "system:admin"), ("x-remote-group", "system:masters")];
    assert_eq!(w.send(None, "GET /api/v1/secrets", &headers, "").await.code, 401);
}

#[tokio::test]
async fn no_group_no_right() {
    let w = world();
    let nobody = Identity::new("system:node:h1", &[]);
    let nameless = Identity::new("system:node:", &["system:nodes"]);
    for who in [stranger(), nobody, nameless] {
        for line in [
            "GET /api/v1/namespaces",
            "GET /api/v1/nodes/h1",
            "GET /api/v1/namespaces/default/secrets/x",
            "GET /api/v1/namespaces/default/secrets/there",
        ] {
            let answer = w.ask_as(&who, line, Value::Null).await;
            assert_eq!((answer.code, answer.value["reason"].as_str()), (403, Some("Forbidden")), "{who:?} {line}");
        }
    }
    let answer = w.ask_as(&stranger(), "DELETE /apis/apps/v1/namespaces/shop/deployments/web", Value::Null).await;
    assert_eq!(
        answer.show(),
        "403 Forbidden: deployments.apps \"web\" is forbidden: User \"somebody\" cannot delete resource \"deployments\" in API group \"apps\" in the namespace \"shop\""
    );
}

#[tokio::test]
async fn credentials_end() {
    let w = world();
    let mut admin = Identity::admin();
    admin.expires = Some("2026-11-21T10:01:00Z".parse().unwrap());
    assert_eq!(w.ask_as(&admin, "GET /api/v1/namespaces", Value::Null).await.code, 200);
    w.pass(60);
    assert_eq!(w.ask_as(&admin, "GET /api/v1/namespaces", Value::Null).await.code, 401, "also on a connection that is open");
    let impersonating = [("impersonate-user", "system:admin")];
    assert_eq!(w.send(Some(&Identity::admin()), "GET /api/v1/namespaces", &impersonating, "").await.code, 403);
}

async fn two_hosts() -> World {
    let w = world();
    for name in ["s-mine", "s-volume", "s-pull", "s-other", "s-nobody"] {
        w.must("POST /api/v1/namespaces/shop/secrets", json!({"metadata": {"name": name}, "stringData": {"k": "v"}})).await;
    }
    w.must("POST /api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s-mine"}})).await;
    for name in ["c-mine", "c-other"] {
        w.must("POST /api/v1/namespaces/shop/configmaps", config_map(name, json!({}))).await;
    }
    let mine = json!({
        "containers": [{"name": "c", "image": "i", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s-mine", "key": "k"}}}],
            "envFrom": [{"configMapRef": {"name": "c-mine"}}]}],
        "volumes": [{"name": "v", "secret": {"secretName": "s-volume"}}, {"name": "m", "secret": {"secretName": "s-missing"}}],
        "imagePullSecrets": [{"name": "s-pull"}],
    });
    w.pod_on("mine", "h1", mine).await;
    let other = json!({
        "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "s-other"}}, {"configMapRef": {"name": "c-other"}}]}],
    });
    w.pod_on("other", "h2", other).await;
    for host in ["h1", "h2"] {
        let node = json!({"metadata": {"name": host, "labels": {"kubernetes.io/hostname": host}}});
        assert_eq!(w.ask_as(&Identity::node(host), "POST /api/v1/nodes", node).await.code, 201);
        let lease = json!({"metadata": {"name": host}, "spec": {"holderIdentity": host}});
        assert_eq!(
            w.ask_as(&Identity::node(host), "POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", lease)
                .await
                .code,
            201
        );
    }
    w
}

#[tokio::test]
async fn se3_what_a_host_may() {
    let w = two_hosts().await;
    let h1 = Identity::node("h1");
    let status = json!({"status": {"phase": "Running"}});
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let event = json!({"metadata": {"generateName": "e-"}, "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "mine"}, "reason": "Started"});
    for (line, body) in [
        ("GET /api/v1/nodes/h1", Value::Null),
        ("GET /api/v1/nodes?fieldSelector=metadata.name%3Dh1", Value::Null),
        ("PATCH /api/v1/nodes/h1/status", ready),
        (
            "PATCH /api/v1/nodes/h1",
            json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "z", "example.org/disk": "ssd"}}}),
        ),
        ("GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/h1", Value::Null),
        (
            "PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/h1",
            json!({"spec": {"leaseDurationSeconds": 40}}),
        ),
        ("GET /api/v1/pods?fieldSelector=spec.nodeName%3Dh1", Value::Null),
        ("GET /api/v1/namespaces/shop/pods/mine", Value::Null),
        ("PATCH /api/v1/namespaces/shop/pods/mine/status", status),
        ("GET /api/v1/namespaces/shop/secrets/s-mine", Value::Null),
        ("GET /api/v1/namespaces/shop/secrets/s-volume", Value::Null),
        ("GET /api/v1/namespaces/shop/secrets/s-pull", Value::Null),
        ("GET /api/v1/namespaces/shop/secrets?fieldSelector=metadata.name%3Ds-mine", Value::Null),
        ("GET /api/v1/namespaces/shop/configmaps/c-mine", Value::Null),
        ("GET /api/v1/namespaces", Value::Null),
        ("POST /api/v1/namespaces/shop/events", event),
        ("DELETE /api/v1/namespaces/shop/pods/mine", json!({"gracePeriodSeconds": 0})),
    ] {
        let answer = w.ask_as(&h1, line, body).await;
        assert!(answer.code < 300, "{line}: {}", answer.show());
    }
    let missing = w.ask_as(&h1, "GET /api/v1/namespaces/shop/pods/mine", Value::Null).await;
    assert_eq!(missing.code, 404, "that its pod is gone may be told");
}

#[tokio::test]
async fn se3_what_a_host_may_not() {
    let w = two_hosts().await;
    let h1 = Identity::node("h1");
    let before = w.store.revision();
    let pod = json!({"metadata": {"name": "x"}, "spec": {"nodeName": "h1", "containers": [{"name": "c", "image": "i"}]}});
    let node = |name: &str, more: Value| {
        let mut node = json!({"metadata": {"name": name}});
        for (field, value) in more.as_object().into_iter().flatten() {
            node["metadata"][field] = value.clone();
        }
        node
    };
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "c-other", "uid": "u"}]);
    for (line, body) in [
        // B's secret, by every way of asking.
        ("GET /api/v1/namespaces/shop/secrets/s-other", Value::Null),
        ("GET /api/v1/namespaces/shop/secrets/s-nobody", Value::Null),
        ("GET /api/v1/namespaces/shop/secrets/s-absent", Value::Null),
        ("GET /api/v1/namespaces/default/secrets/s-mine", Value::Null),
        ("GET /api/v1/namespaces/shop/secrets", Value::Null),
        ("GET /api/v1/secrets", Value::Null),
        ("GET /api/v1/secrets?fieldSelector=metadata.name%3Ds-mine", Value::Null),
        ("GET /api/v1/namespaces/shop/secrets?fieldSelector=metadata.name!%3Ds-mine", Value::Null),
        ("GET /api/v1/namespaces/shop/secrets?watch=true", Value::Null),
        ("GET /api/v1/namespaces/shop/secrets/s-other?watch=true", Value::Null),
        ("GET /api/v1/namespaces/shop/configmaps/c-other", Value::Null),
        ("GET /api/v1/namespaces/kube-system/secrets/node-identity-h2", Value::Null),
        ("PATCH /api/v1/namespaces/shop/secrets/s-mine", json!({"data": {}})),
        ("POST /api/v1/namespaces/shop/secrets", json!({"metadata": {"name": "new"}})),
        // B's pods.
        ("GET /api/v1/namespaces/shop/pods/other", Value::Null),
        ("GET /api/v1/pods", Value::Null),
        ("GET /api/v1/pods?fieldSelector=spec.nodeName%3Dh2", Value::Null),
        ("GET /api/v1/pods?fieldSelector=spec.nodeName!%3Dh1", Value::Null),
        ("GET /api/v1/pods?watch=true", Value::Null),
        ("PATCH /api/v1/namespaces/shop/pods/other/status", json!({"status": {"phase": "Failed"}})),
        ("DELETE /api/v1/namespaces/shop/pods/other", json!({"gracePeriodSeconds": 0})),
        ("DELETE /api/v1/namespaces/shop/pods?fieldSelector=spec.nodeName%3Dh1", Value::Null),
        // Its own pods, more than their status.
        ("PATCH /api/v1/namespaces/shop/pods/mine", json!({"metadata": {"labels": {"app": "db"}}})),
        (
            "PATCH /api/v1/namespaces/shop/pods/mine/status",
            json!({"metadata": {"labels": {"app": "db"}}, "status": {"phase": "Running"}}),
        ),
        ("POST /api/v1/namespaces/shop/pods", pod),
        ("POST /api/v1/namespaces/shop/pods/mine/binding", json!({"target": {"name": "h2"}})),
        ("POST /api/v1/namespaces/shop/pods/mine/eviction", json!({})),
        ("GET /api/v1/namespaces/shop/pods/mine/log", Value::Null),
        ("GET /api/v1/namespaces/shop/pods/mine/exec?command=sh", Value::Null),
        // Other nodes, and another name.
        ("GET /api/v1/nodes/h2", Value::Null),
        ("GET /api/v1/nodes", Value::Null),
        ("PATCH /api/v1/nodes/h2/status", json!({"status": {}})),
        ("POST /api/v1/nodes", node("h3", json!({}))),
        ("DELETE /api/v1/nodes/h1", Value::Null),
        ("GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/h2", Value::Null),
        ("PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/h2", json!({"spec": {}})),
        ("POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", json!({"metadata": {"name": "h3"}})),
        ("POST /apis/coordination.k8s.io/v1/namespaces/kube-system/leases", json!({"metadata": {"name": "h1"}})),
        // Its own node, more than it should say of itself.
        ("PATCH /api/v1/nodes/h1", json!({"metadata": {"labels": {"node-restriction.kubernetes.io/tier": "gold"}}})),
        ("PATCH /api/v1/nodes/h1/status", json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}})),
        ("PATCH /api/v1/nodes/h1", json!({"metadata": {"ownerReferences": owner}})),
        ("PATCH /api/v1/nodes/h1", json!({"metadata": {"finalizers": ["example.org/stay"]}})),
        ("PATCH /api/v1/nodes/h1", json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}})),
        ("PATCH /api/v1/nodes/h1", json!({"spec": {"unschedulable": true}})),
        // Everything else.
        ("GET /apis/apps/v1/deployments", Value::Null),
        ("GET /apis/portolan.dev/v1alpha1/applications", Value::Null),
        ("PATCH /api/v1/namespaces/shop", json!({"metadata": {"labels": {"a": "b"}}})),
        ("GET /api/v1/namespaces/shop/events", Value::Null),
        ("DELETE /api/v1/namespaces/shop/events", Value::Null),
        ("GET /apis/portolan.dev/v1alpha1/nodes/h2/tunnel", Value::Null),
    ] {
        let answer = w.ask_as(&h1, line, body).await;
        // What a status update may not touch is either refused or left as it was.
        if line.ends_with("/status") && answer.code == 200 {
            assert_eq!(answer.value["metadata"]["labels"].get("node-role.kubernetes.io/control-plane"), None, "{line}");
            assert_ne!(answer.value["metadata"]["labels"]["app"], "db", "{line}");
            continue;
        }
        assert_eq!(answer.code, 403, "{line}: {}", answer.show());
        // What must not be seen is neither named nor shown.
        assert!(!answer.value.to_string().contains("dg=="), "{line}");
    }
    let statuses =
        w.store.changes(before).unwrap().iter().filter(|c| c.key.kind.plural != "pods" && c.key.kind.plural != "nodes").count();
    assert_eq!(statuses, 0);
    // A stolen host cannot keep a label at its first registration either.
    let labelled = node("h9", json!({"labels": {"node-restriction.kubernetes.io/tier": "gold"}}));
    assert_eq!(w.ask_as(&Identity::node("h9"), "POST /api/v1/nodes", labelled).await.code, 403);
}

#[tokio::test]
async fn se7_rights_end_and_with_them_what_they_opened() {
    let w = two_hosts().await;
    let follow = async |who: &Identity, path: &str| {
        let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(who.clone());
        let response = w.api.handle(request).await;
        assert_eq!(response.status(), 200);
        response.into_body()
    };
    // With the pod goes the right to its secret, also on a watch that is open; nothing that came later is shown.
    let mut secret = follow(&Identity::node("h1"), "/api/v1/namespaces/shop/secrets/s-mine?watch=true").await;
    assert!(secret.frame().await.is_some());
    w.must("DELETE /api/v1/namespaces/shop/pods/mine", json!({"gracePeriodSeconds": 0})).await;
    w.must("PATCH /api/v1/namespaces/shop/secrets/s-mine", json!({"stringData": {"k": "later"}})).await;
    assert!(secret.frame().await.is_none());
    // An idle watch ends within seconds of its credential.
    let mut admin = Identity::admin();
    admin.expires = Some("2026-11-21T10:01:00Z".parse().unwrap());
    let mut idle = follow(&admin, "/api/v1/namespaces/shop/configmaps/absent?watch=true").await;
    w.pass(60);
    let before = tokio::time::Instant::now();
    assert!(idle.frame().await.is_none());
    assert!(before.elapsed() <= std::time::Duration::from_secs(7));
}

#[tokio::test]
async fn a_mistake_costs_one_answer() {
    let w = world();
    let many = futures_util::future::join_all((0..600).map(|_| w.ask("GET /api/v1/namespaces", Value::Null))).await;
    assert!(many.iter().all(|a| a.code == 200));
}
