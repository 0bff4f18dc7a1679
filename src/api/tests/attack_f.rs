//! Attack class F: authorization and tenancy. Each case is something that was a hole somewhere; here it is refused.
//!
//! More of the class is where what it attacks is: rights by name, roles, bindings and sums in `rights`, what hosts may in `access` and
//! `attack_j`, what is never signed in `certificates`, one defined kind beside another in `defining`, tokens and acting for others in
//! `accounts`, a kubeconfig with a command (CVE-2022-24817) in `client`, what goes first when a namespace goes (CVE-2024-7598) in
//! `control::tests::garbage`, objects that the cluster writes itself and that come from git (CVE-2022-36035) in `render`.
//!
//! What there is nothing to attack of:
//! - Applications are not confined to namespaces or kinds: who may write one may deploy everywhere, so the right to write them is part of
//!   cluster-admin alone (first case), and there is no list of allowed places to get around (CVE-2023-22736, CVE-2024-31990,
//!   CVE-2026-77459 with its hooks, CVE-2026-41050, CVE-2026-44935). Nothing updates images by itself (CVE-2026-6388), nothing patches
//!   pods by text after they were checked (CVE-2026-31892), there are no plugins and no templates (CVE-2026-44848 to -44850, -44884).
//! - Pod Security Standards are not enforced yet, so that a label lowers nothing (CVE-2026-44938); nor is there an image policy or a list
//!   of mountable Secrets that containers of another sort could get around (CVE-2023-2727, -2728, CVE-2024-3177): of these the rights to
//!   such containers and what their environments open are tested.
//! - No program is started with a shell (CVE-2021-41254), and no store of others with rights of its own is used (CVE-2026-33413, -33343,
//!   -44283, -73499).

use std::time::Duration;

use super::accounts::{AUTHENTICATION, TOKEN};
use super::defining::boats;
use super::rights::{RBAC, rule, subject};
use super::sessions::shop;
use super::*;

const APPLY: &str = "application/apply-patch+yaml";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

impl World {
    /// Sends a patch of a certain type.
    async fn patch_as(&self, who: &Identity, path: &str, sort: &str, body: Value) -> Answer {
        self.send(Some(who), &format!("PATCH {path}"), &[("content-type", sort)], body.to_string()).await
    }
}

/// CVE-2022-24768, CVE-2022-1025, CVE-2018-21034 (more through resources of one's own), CVE-2024-31990, CVE-2023-22736 (Applications in
/// whatever namespace): who owns a namespace owns no Application in it, and no record of one.
#[tokio::test]
async fn f_a_namespace_is_not_an_application() {
    let w = world();
    const OURS: &str = "/apis/portolan.dev/v1alpha1/namespaces/shop";
    let app = json!({"apiVersion": "portolan.dev/v1alpha1", "kind": "Application", "metadata": {"name": "app"}, "spec": {"source": {"repository": "/x"}}});
    w.must(&format!("POST {OURS}/applications"), app.clone()).await;
    w.bind("shop", "jane", "admin", subject("User", "jane")).await;
    let jane = Identity::new("jane", &[]).authenticated();
    let before = w.store.revision();
    for plural in ["applications", "releases", "renderings"] {
        for (line, name) in [("POST", ""), ("PUT", "/app"), ("PATCH", "/app"), ("DELETE", "/app"), ("DELETE", "")] {
            for query in ["", "?dryRun=All"] {
                let line = format!("{line} {OURS}/{plural}{name}{query}");
                let answer = w.ask_as(&jane, &line, app.clone()).await;
                assert_eq!(answer.code, 403, "{line}: {}", answer.show());
            }
        }
        let applied = w.patch_as(&jane, &format!("{OURS}/{plural}/app?fieldManager=m&force=true"), APPLY, app.clone()).await;
        assert_eq!(applied.code, 403, "{plural}: {}", applied.show());
    }
    for plural in ["applications", "releases"] {
        for verb in ["PUT", "PATCH"] {
            let line = format!("{verb} {OURS}/{plural}/app/status");
            assert_eq!(w.ask_as(&jane, &line, app.clone()).await.code, 403, "{line}");
        }
    }
    // What a rendering holds may be of other namespaces, Secrets too.
    w.codes(&jane, &[(&format!("GET {OURS}/renderings"), 403), (&format!("GET {OURS}/renderings/x"), 403)]).await;
    assert_eq!(w.store.revision(), before);
    // And she cannot give herself what she lacks.
    let role = json!({"metadata": {"name": "deployer"}, "rules": [rule(&["portolan.dev"], &["applications"], &["patch"])]});
    assert_eq!(w.ask_as(&jane, &format!("POST {RBAC}/namespaces/shop/roles"), role).await.code, 403);
}

/// CVE-2023-50726: who may change what is there may not make what is not, in none of the ways in which a write can make something.
#[tokio::test]
async fn f_to_change_is_not_to_create() {
    let w = world();
    const MAPS: &str = "/api/v1/namespaces/shop/configmaps";
    w.must(&format!("POST {MAPS}"), config_map("there", json!({}))).await;
    w.role("shop", "changes", json!([rule(&[""], &["configmaps"], &["get", "update", "patch"])])).await;
    w.bind("shop", "changes", "Role/changes", subject("User", "jane")).await;
    let jane = Identity::new("jane", &[]);
    assert_eq!(w.ask_as(&jane, &format!("PATCH {MAPS}/there"), json!({"data": {"a": "b"}})).await.code, 200);
    for query in ["", "&dryRun=All", "&force=true"] {
        let applied =
            w.patch_as(&jane, &format!("{MAPS}/new?fieldManager=m{query}"), APPLY, config_map("new", json!({"a": "b"}))).await;
        assert_eq!(applied.code, 403, "{}", applied.show());
        assert!(applied.show().contains("cannot create resource \"configmaps\""), "{}", applied.show());
    }
    for sort in [MERGE, STRATEGIC] {
        assert_eq!(w.patch_as(&jane, &format!("{MAPS}/new"), sort, config_map("new", json!({}))).await.code, 404);
    }
    assert_eq!(w.ask_as(&jane, &format!("PUT {MAPS}/new"), config_map("new", json!({}))).await.code, 404);
    assert_eq!(w.ask_as(&jane, &format!("POST {MAPS}"), config_map("new", json!({}))).await.code, 403);
    assert_eq!(w.ask(&format!("GET {MAPS}/new"), Value::Null).await.code, 404);
}

/// CVE-2022-3162 (`..` in the path of a defined kind reads another one), CVE-2023-23947 (an update lands elsewhere): the path that was
/// authorized is the path that is done, and a body says nothing else.
#[tokio::test]
async fn f_what_was_allowed_is_what_is_done() {
    let w = world();
    w.establish(boats()).await;
    for space in ["shop", "default"] {
        let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "canary"}});
        w.must(&format!("POST /api/v1/namespaces/{space}/secrets"), secret).await;
        w.must(&format!("POST /api/v1/namespaces/{space}/configmaps"), config_map("c", json!({"k": "canary"}))).await;
    }
    let rules = json!([rule(&["sea.example"], &["boats"], &["*"]), rule(&[""], &["configmaps"], &["*"])]);
    w.role("shop", "boats", rules).await;
    w.bind("shop", "boats", "Role/boats", subject("User", "jane")).await;
    let jane = Identity::new("jane", &[]).authenticated();
    let before = w.store.revision();
    let (boats, maps) = ("/apis/sea.example/v1/namespaces/shop/boats", "/api/v1/namespaces/shop/configmaps");
    for up in ["..", "%2e%2e", "%2E.", ".%2e", "..%2f..", "%2e%2e%2f%2e%2e", "..%5c", "..;", "%252e%252e", "..%00"] {
        for path in [
            format!("{boats}/{up}/{up}/{up}/{up}/{up}/{up}/api/v1/namespaces/shop/secrets/s"),
            format!("{boats}/{up}/secrets/s"),
            format!("{boats}/{up}%2f{up}%2fsecrets%2fs"),
            format!("{maps}/{up}/secrets/s"),
            format!("{maps}/{up}/{up}/default/configmaps/c"),
            format!("{maps}/{up}%2fsecrets%2fs"),
            format!("/api/v1/namespaces/shop%2f{up}%2fdefault/configmaps/c"),
            format!("/api/v1/namespaces/{up}/shop/secrets/s"),
            format!("/api/v1/{up}/v1/namespaces/shop/secrets/s"),
            format!("/apis/sea.example/v1/{up}/v1/namespaces/shop/boats"),
        ] {
            for line in ["GET", "PUT", "DELETE", "PATCH"] {
                let answer = w.ask_as(&jane, &format!("{line} {path}"), json!({})).await;
                assert!((400..=405).contains(&answer.code), "{line} {path}: {}", answer.show());
                assert!(!answer.value.to_string().contains("Y2FuYXJ5"), "{line} {path}");
            }
        }
    }
    // A body that means something else than the path.
    let elsewhere = |field: &str, value: &str| {
        let mut body = config_map("c", json!({"k": "mine"}));
        body["metadata"][field] = value.into();
        body
    };
    let mut secret = config_map("s", json!({}));
    secret["kind"] = "Secret".into();
    for (line, body) in [
        (format!("PUT {maps}/c"), elsewhere("namespace", "default")),
        (format!("PUT {maps}/c"), elsewhere("name", "other")),
        (format!("PATCH {maps}/c"), elsewhere("namespace", "default")),
        (format!("PATCH {maps}/c"), elsewhere("name", "other")),
        (format!("POST {maps}"), elsewhere("namespace", "default")),
        (format!("POST {maps}"), secret.clone()),
        (format!("PUT {maps}/c"), secret.clone()),
    ] {
        let answer = w.ask_as(&jane, &line, body).await;
        assert!(matches!(answer.code, 400 | 422), "{line}: {}", answer.show());
    }
    for (sort, body) in [
        (APPLY, elsewhere("namespace", "default")),
        (STRATEGIC, elsewhere("namespace", "default")),
        (JSON_PATCH, json!([{"op": "replace", "path": "/metadata/namespace", "value": "default"}])),
        (JSON_PATCH, json!([{"op": "replace", "path": "/kind", "value": "Secret"}])),
    ] {
        let answer = w.patch_as(&jane, &format!("{maps}/c?fieldManager=m&force=true"), sort, body.clone()).await;
        assert!(matches!(answer.code, 400 | 422), "{body}: {}", answer.show());
    }
    assert_eq!(w.store.revision(), before, "nothing was written anywhere");
}

/// CVE-2022-3294: what a host says of its address leads nobody anywhere. It is asked over the connection that it holds, or not at all.
#[tokio::test]
async fn f_no_address_of_a_host_is_believed() {
    let (w, _) = shop().await;
    let victim = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = victim.local_addr().unwrap().port();
    let liar = Identity::node("liar");
    assert_eq!(w.ask_as(&liar, "POST /api/v1/nodes", json!({"metadata": {"name": "liar"}})).await.code, 201);
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": format!("127.0.0.1:{port}")}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }});
    assert_eq!(w.ask_as(&liar, "PATCH /api/v1/nodes/liar/status", status).await.code, 200);
    let ports = json!([{"containerPort": port}]);
    w.pod_on("bait", "liar", json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i", "ports": ports}]})).await;
    let status = json!({"status": {
        "phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "hostIP": "127.0.0.1",
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    assert_eq!(w.ask_as(&liar, "PATCH /api/v1/namespaces/shop/pods/bait/status", status).await.code, 200);
    for (name, spec) in [
        ("chosen", json!({"selector": {"app": "bait"}, "ports": [{"port": port}]})),
        ("bare", json!({"ports": [{"port": port}]})),
        ("named", json!({"type": "ExternalName", "externalName": "127.0.0.1", "ports": [{"port": port}]})),
    ] {
        w.must("POST /api/v1/namespaces/shop/services", json!({"metadata": {"name": name}, "spec": spec})).await;
        let subsets = json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": port}]}]);
        w.must("POST /api/v1/namespaces/shop/endpoints", json!({"metadata": {"name": name}, "subsets": subsets})).await;
    }
    let (nodes, pods, services) = ("/api/v1/nodes", "/api/v1/namespaces/shop/pods", "/api/v1/namespaces/shop/services");
    for path in [
        format!("{nodes}/liar/proxy/healthz"),
        format!("{nodes}/liar:{port}/proxy/healthz"),
        format!("{nodes}/https:liar:{port}/proxy/"),
        format!("{nodes}/127.0.0.1:{port}/proxy/healthz"),
        format!("{nodes}/127.0.0.1/proxy/healthz"),
        format!("{nodes}/liar@127.0.0.1:{port}/proxy/healthz"),
        format!("{nodes}/liar%2f@127.0.0.1:{port}/proxy/healthz"),
        format!("{nodes}/h1/proxy//127.0.0.1:{port}/"),
        format!("{nodes}/h1/proxy/http://127.0.0.1:{port}/"),
        format!("{pods}/bait/log"),
        format!("{pods}/bait/proxy/"),
        format!("{pods}/bait:{port}/proxy/"),
        format!("{pods}/127.0.0.1:{port}/proxy/"),
        format!("{services}/chosen:{port}/proxy/"),
        format!("{services}/bare:{port}/proxy/"),
        format!("{services}/named:{port}/proxy/"),
    ] {
        let answer = w.ask(&format!("GET {path}"), Value::Null).await;
        assert!(answer.code >= 400, "{path}: {}", answer.code);
    }
    let measured = w.must("GET /apis/metrics.k8s.io/v1beta1/nodes", Value::Null).await;
    assert_eq!(measured["items"].as_array().unwrap().len(), 0);
    let visit = tokio::time::timeout(Duration::from_millis(200), victim.accept()).await;
    assert!(visit.is_err(), "somebody came: {visit:?}");
    // Another host's name is not taken by asking for its tunnel.
    let (certificate, key) = w.host("thief").await;
    let address = w.listen().await;
    let mut stream = w.connect(address, Some((&certificate, &key))).await.unwrap();
    let request = "GET /apis/portolan.dev/v1alpha1/nodes/liar/tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: portolan-tunnel\r\n\r\n";
    let answer = super::tunnelling::raw(&mut stream, request).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

/// CVE-2021-25735: what a host may change of its node is told by what is stored, in every way to say a change, also in one that takes
/// something away.
#[tokio::test]
async fn f_a_host_is_judged_by_what_was_there() {
    let w = world();
    let h1 = Identity::node("h1");
    const NODE: &str = "/api/v1/nodes/h1";
    const TIER: &str = "node-restriction.kubernetes.io/tier";
    let own = json!({"metadata": {"name": "h1", "labels": {"kubernetes.io/hostname": "h1"}}});
    assert_eq!(w.ask_as(&h1, "POST /api/v1/nodes", own.clone()).await.code, 201);
    let ops = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "h1", "labels": {TIER: "gold"}, "finalizers": ["example.org/stay"]},
        "spec": {"unschedulable": true, "taints": [{"key": "a", "effect": "NoSchedule"}]},
    });
    let applied = w.patch_as(&Identity::admin(), &format!("{NODE}?fieldManager=ops&force=true"), APPLY, ops).await;
    assert_eq!(applied.code, 200, "{}", applied.show());
    let shown = async || {
        let node = w.must(&format!("GET {NODE}"), Value::Null).await;
        (node["metadata"]["labels"].clone(), node["metadata"]["finalizers"].clone(), node["spec"].clone())
    };
    let before = shown().await;
    let whole = w.must(&format!("GET {NODE}"), Value::Null).await;
    let less = |change: &dyn Fn(&mut Value)| {
        let mut less = whole.clone();
        change(&mut less);
        less
    };
    let labels = json!({"kubernetes.io/hostname": "h1"});
    let wholes = [
        less(&|node| node["metadata"]["labels"] = labels.clone()),
        less(&|node| node["metadata"]["labels"][TIER] = "silver".into()),
        less(&|node| node["metadata"]["finalizers"] = json!([])),
        less(&|node| node["spec"] = json!({})),
        less(&|node| node["spec"]["taints"] = Value::Null),
        own,
    ];
    let path = "/metadata/labels/node-restriction.kubernetes.io~1tier";
    let nothing = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "h1"}});
    let patches = [
        (MERGE, json!({"metadata": {"labels": {TIER: null}}})),
        (MERGE, json!({"metadata": {"labels": null}})),
        (MERGE, json!({"spec": null})),
        (STRATEGIC, json!({"metadata": {"labels": {"$patch": "replace", "a": "b"}}})),
        (STRATEGIC, json!({"metadata": {"labels": {"$patch": "delete"}}})),
        (STRATEGIC, json!({"metadata": {"labels": {TIER: null}}})),
        (STRATEGIC, json!({"spec": {"taints": [{"$patch": "replace"}]}})),
        (STRATEGIC, json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.org/stay"]}})),
        (STRATEGIC, json!({"$patch": "replace", "metadata": {"name": "h1"}})),
        (JSON_PATCH, json!([{"op": "remove", "path": path}])),
        (JSON_PATCH, json!([{"op": "move", "from": path, "path": "/metadata/labels/mine"}])),
        (JSON_PATCH, json!([{"op": "copy", "from": "/metadata/labels/kubernetes.io~1hostname", "path": path}])),
        (JSON_PATCH, json!([{"op": "remove", "path": "/metadata/labels"}, {"op": "remove", "path": "/spec"}])),
        // In the name of who applied it: what he no longer names is let go.
        (APPLY, nothing),
    ];
    for place in [NODE.to_owned(), format!("{NODE}/status")] {
        for body in &wholes {
            let answer = w.ask_as(&h1, &format!("PUT {place}"), body.clone()).await;
            assert!(answer.code == 403 || place.ends_with("/status"), "PUT {place} {body}: {}", answer.show());
            assert_eq!(shown().await, before, "PUT {place} {body}");
        }
        for (sort, body) in &patches {
            let answer = w.patch_as(&h1, &format!("{place}?fieldManager=ops&force=true"), sort, body.clone()).await;
            assert!(answer.code >= 400 || place.ends_with("/status"), "{place} {sort} {body}: {}", answer.show());
            assert_eq!(shown().await, before, "{place} {sort} {body}");
        }
    }
    assert_eq!(w.ask_as(&h1, &format!("DELETE {NODE}"), Value::Null).await.code, 403, "nor by beginning anew");
    // What is its own to say it may still say.
    assert_eq!(w.patch_as(&h1, NODE, MERGE, json!({"metadata": {"labels": {"example.org/disk": "ssd"}}})).await.code, 200);
}

/// CVE-2023-2727, CVE-2023-2728, CVE-2024-3177: ephemeral containers and `envFrom` are no way around the rights to pods and Secrets.
#[tokio::test]
async fn f_containers_of_another_sort() {
    let w = world();
    let jane = Identity::new("jane", &[]);
    w.pod_on("web", "h1", json!({})).await;
    w.pod_on("other", "h2", json!({})).await;
    for name in ["first", "later", "whole", "foreign"] {
        w.must("POST /api/v1/namespaces/shop/secrets", json!({"metadata": {"name": name}, "stringData": {"k": "v"}})).await;
    }
    let at = "/api/v1/namespaces/shop/pods/web/ephemeralcontainers";
    let added =
        json!({"spec": {"ephemeralContainers": [{"name": "x", "image": "i", "envFrom": [{"secretRef": {"name": "later"}}]}]}});
    // All of pods is not yet their ephemeral containers.
    w.role("shop", "pods", json!([rule(&[""], &["pods", "pods/status"], &["*"])])).await;
    w.bind("shop", "pods", "Role/pods", subject("User", "jane")).await;
    assert_eq!(w.patch_as(&jane, at, STRATEGIC, added.clone()).await.code, 403);
    for (path, sort) in [("/api/v1/namespaces/shop/pods/web", STRATEGIC), ("/api/v1/namespaces/shop/pods/web/status", MERGE)] {
        let _ = w.patch_as(&jane, path, sort, added.clone()).await;
        let pod = w.must("GET /api/v1/namespaces/shop/pods/web", Value::Null).await;
        assert!(pod["spec"]["ephemeralContainers"].is_null(), "{path}: {pod}");
    }
    // A host reads what its pods' containers of all sorts refer to, from then on, and no other host does.
    let codes = async |host: &str| {
        let mut codes = Vec::new();
        for name in ["first", "later", "whole", "foreign"] {
            let line = format!("GET /api/v1/namespaces/shop/secrets/{name}");
            codes.push(w.ask_as(&Identity::node(host), &line, Value::Null).await.code);
        }
        codes
    };
    assert_eq!((codes("h1").await, codes("h2").await), (vec![403; 4], vec![403; 4]));
    assert_eq!(w.patch_as(&Identity::admin(), at, STRATEGIC, added.clone()).await.code, 200);
    assert_eq!((codes("h1").await, codes("h2").await), (vec![403, 200, 403, 403], vec![403; 4]));
    let init = json!([{"name": "i", "image": "i", "envFrom": [{"secretRef": {"name": "first"}}]}]);
    w.pod_on("inits", "h1", json!({"initContainers": init})).await;
    let volume = json!([{"name": "v", "projected": {"sources": [{"secret": {"name": "whole"}}]}}]);
    w.pod_on("mounts", "h1", json!({"volumes": volume})).await;
    assert_eq!((codes("h1").await, codes("h2").await), (vec![200, 200, 200, 403], vec![403; 4]));
    // A host itself adds none, to no pod.
    for host in ["h1", "h2"] {
        let foreign = json!({"spec": {"ephemeralContainers": [{"name": "y", "image": "i", "envFrom": [{"secretRef": {"name": "foreign"}}]}]}});
        for path in [at, "/api/v1/namespaces/shop/pods/web", "/api/v1/namespaces/shop/pods/web/status"] {
            let _ = w.patch_as(&Identity::node(host), path, STRATEGIC, foreign.clone()).await;
        }
    }
    assert_eq!(codes("h1").await[3], 403);
}

/// CVE-2023-2431 (a seccomp profile that is named by nothing), and the second way to say the same thing (CVE-2026-44850): what is wrong is
/// wrong in containers of every sort, in the pod and in a template, and by every verb.
#[tokio::test]
async fn f_the_final_object_is_what_is_checked() {
    let w = world();
    let context = |kind: &str, name: Value| json!({"seccompProfile": {"type": kind, "localhostProfile": name}});
    let wrong = [
        context("Localhost", Value::Null),
        context("Localhost", "".into()),
        context("Localhost", "/etc/passwd".into()),
        context("Localhost", "../../x".into()),
        context("RuntimeDefault", "x".into()),
        context("Unconfined", "x".into()),
        context("localhost", "x".into()),
        json!({"runAsUser": -1}),
    ];
    let container = |context: &Value| json!({"name": "c", "image": "i", "securityContext": context});
    w.pod_on("web", "h1", json!({})).await;
    for context in &wrong {
        let plain = json!([{"name": "p", "image": "i"}]);
        for spec in [
            json!({"containers": [container(context)]}),
            json!({"containers": plain, "initContainers": [container(context)]}),
            json!({"containers": plain, "securityContext": context}),
        ] {
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "new"}, "spec": spec});
            let answer = w.ask("POST /api/v1/namespaces/shop/pods", pod.clone()).await;
            assert_eq!(answer.code, 422, "{spec}: {}", answer.show());
            let yaml = serde_yaml::to_string(&pod).unwrap();
            let headers = [("content-type", "application/yaml")];
            assert_eq!(w.send(Some(&Identity::admin()), "POST /api/v1/namespaces/shop/pods", &headers, yaml).await.code, 422);
            let path = "/api/v1/namespaces/shop/pods/new?fieldManager=m&force=true";
            assert_eq!(w.patch_as(&Identity::admin(), path, APPLY, pod).await.code, 422);
            let mut template = deployment("d");
            template["spec"]["template"]["spec"] = spec;
            assert_eq!(w.ask("POST /apis/apps/v1/namespaces/shop/deployments", template).await.code, 422);
        }
        let debug = json!({"spec": {"ephemeralContainers": [container(context)]}});
        let path = "/api/v1/namespaces/shop/pods/web/ephemeralcontainers";
        let mut named = debug.clone();
        named["spec"]["ephemeralContainers"][0]["name"] = "x".into();
        assert_eq!(w.patch_as(&Identity::admin(), path, STRATEGIC, named).await.code, 422, "{context}");
    }
    // A good object that is made bad, by each way to change it.
    let at = "/apis/apps/v1/namespaces/shop/deployments/d";
    w.must("POST /apis/apps/v1/namespaces/shop/deployments", deployment("d")).await;
    let good = w.must(&format!("GET {at}"), Value::Null).await;
    let bad = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": ""}});
    let mut whole = good.clone();
    whole["spec"]["template"]["spec"]["securityContext"] = bad.clone();
    assert_eq!(w.ask(&format!("PUT {at}"), whole.clone()).await.code, 422);
    let part = json!({"spec": {"template": {"spec": {"securityContext": bad}}}});
    whole["metadata"] = json!({"name": "d"});
    let steps = json!([{"op": "add", "path": "/spec/template/spec/securityContext", "value": bad}]);
    // A pointer moves what is harmless to where it is not.
    let label = json!({"metadata": {"annotations": {"profile": "../x"}}});
    w.must(&format!("PATCH {at}"), label).await;
    let moved = json!([
        {"op": "add", "path": "/spec/template/spec/securityContext", "value": {"seccompProfile": {"type": "Localhost"}}},
        {"op": "copy", "from": "/metadata/annotations/profile", "path": "/spec/template/spec/securityContext/seccompProfile/localhostProfile"},
    ]);
    for (sort, body) in [(MERGE, part.clone()), (STRATEGIC, part), (JSON_PATCH, steps), (JSON_PATCH, moved), (APPLY, whole)] {
        let answer = w.patch_as(&Identity::admin(), &format!("{at}?fieldManager=m&force=true"), sort, body.clone()).await;
        assert_eq!(answer.code, 422, "{sort} {body}: {}", answer.show());
    }
    assert_eq!(w.must(&format!("GET {at}"), Value::Null).await["spec"], good["spec"]);
}

/// CVE-2021-41254 (the name of an account as a piece of a command), CVE-2023-1299 (more by the identity of a workload), CVE-2026-44935
/// (values from another namespace): a pod names accounts, Secrets and ConfigMaps of its own namespace, by plain names.
#[tokio::test]
async fn f_what_a_pod_refers_to_is_its_neighbour() {
    let w = world();
    w.must("POST /api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}})).await;
    w.must("POST /api/v1/namespaces/kube-system/serviceaccounts", json!({"metadata": {"name": "root"}})).await;
    let pods = "POST /api/v1/namespaces/shop/pods";
    let pod = |name: &str, more: Value| {
        let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        pod["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        pod
    };
    for name in ["a; reboot", "$(reboot)", "a\nb", "../kube-system/root", "kube-system/root", "kube-system:root", "-x", "A"] {
        let answer = w.ask(pods, pod("x", json!({"serviceAccountName": name}))).await;
        assert_eq!(answer.code, 422, "{name}: {}", answer.show());
    }
    for volume in [
        json!({"secret": {"secretName": "../default/s"}}),
        json!({"secret": {"secretName": "default/s"}}),
        json!({"configMap": {"name": "../default/s"}}),
    ] {
        let mut volume = volume;
        volume["name"] = "v".into();
        assert_eq!(w.ask(pods, pod("x", json!({"volumes": [volume]}))).await.code, 422);
    }
    // A namespace beside a name is a field that there is not: it is dropped, or refused where somebody asks for that.
    let refers = json!({"containers": [{"name": "c", "image": "i",
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "namespace": "default"}}}],
        "envFrom": [{"secretRef": {"name": "s", "namespace": "default"}}]}],
        "imagePullSecrets": [{"name": "s", "namespace": "default"}]});
    assert_eq!(w.ask(&format!("{pods}?fieldValidation=Strict"), pod("far", refers.clone())).await.code, 400);
    let bound = w.pod_on("far", "h1", refers).await;
    assert!(!bound["spec"].to_string().contains("namespace"), "{}", bound["spec"]);
    let h1 = Identity::node("h1");
    w.codes(&h1, &[("GET /api/v1/namespaces/default/secrets/s", 403), ("GET /api/v1/namespaces/shop/secrets/s", 404)]).await;
    // Who edits one namespace asks tokens for its accounts, and for those of no other.
    w.bind("shop", "jane", "edit", subject("User", "jane")).await;
    w.account("ci").await;
    let jane = Identity::new("jane", &[]);
    assert_eq!(w.ask_as(&jane, TOKEN, json!({"spec": {}})).await.code, 201);
    let root = "POST /api/v1/namespaces/kube-system/serviceaccounts/root/token";
    assert_eq!(w.ask_as(&jane, root, json!({"spec": {}})).await.code, 403);
    // An account of elsewhere that is bound here has rights here.
    w.bind("shop", "far", "view", json!({"kind": "ServiceAccount", "name": "root", "namespace": "kube-system"})).await;
    let far = Identity::new("system:serviceaccount:kube-system:root", &["system:serviceaccounts"]);
    w.codes(&far, &[("GET /api/v1/namespaces/shop/pods", 200), ("GET /api/v1/namespaces/kube-system/pods", 403)]).await;
}

/// A role is more than its rules: by a label it becomes part of a sum that others are bound to. Who has not what a role allows changes
/// nothing of it that counts, in none of the ways to say a change.
#[tokio::test]
async fn f_a_label_is_a_right() {
    let w = world();
    let roles = json!([rule(
        &["rbac.authorization.k8s.io"],
        &["clusterroles", "clusterrolebindings"],
        &["get", "create", "update", "patch"]
    )]);
    w.role("", "writes-roles", roles).await;
    w.bind("", "jane", "writes-roles", subject("User", "jane")).await;
    let jane = Identity::new("jane", &[]);
    w.role("", "strong", json!([rule(&["*"], &["*"], &["*"])])).await;
    w.bind("", "strong", "strong", subject("User", "joe")).await;
    const SUM: &str = "rbac.authorization.k8s.io/aggregate-to-view";
    let label = json!({"metadata": {"labels": {SUM: "true"}}});
    let whole = |name: &str| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name, "labels": {SUM: "true"}}});
    for name in ["strong", "cluster-admin", "edit"] {
        let path = format!("{RBAC}/clusterroles/{name}");
        let before = w.must(&format!("GET {path}"), Value::Null).await;
        let mut put = before.clone();
        put["metadata"]["labels"][SUM] = "true".into();
        for answer in [
            w.ask_as(&jane, &format!("PUT {path}"), put).await,
            w.patch_as(&jane, &path, MERGE, label.clone()).await,
            w.patch_as(&jane, &path, STRATEGIC, label.clone()).await,
            w.patch_as(&jane, &path, JSON_PATCH, json!([{"op": "add", "path": "/metadata/labels", "value": {SUM: "true"}}]))
                .await,
            w.patch_as(&jane, &format!("{path}?fieldManager=m&force=true"), APPLY, whole(name)).await,
        ] {
            assert_eq!(answer.code, 403, "{name}: {}", answer.show());
        }
        assert_eq!(w.must(&format!("GET {path}"), Value::Null).await, before);
    }
    // Nor is a sum made less than it is to be made more later, nor a binding that she could not make given to somebody else.
    let no_sum = w.patch_as(&jane, &format!("{RBAC}/clusterroles/edit"), MERGE, json!({"aggregationRule": null})).await;
    assert_eq!(no_sum.code, 403, "{}", no_sum.show());
    let more = json!({"subjects": [subject("User", "jane")]});
    for sort in [MERGE, STRATEGIC] {
        let answer = w.patch_as(&jane, &format!("{RBAC}/clusterrolebindings/strong"), sort, more.clone()).await;
        assert_eq!(answer.code, 403, "{}", answer.show());
    }
    let joins = json!([{"op": "add", "path": "/subjects/-", "value": subject("User", "jane")}]);
    assert_eq!(w.patch_as(&jane, &format!("{RBAC}/clusterrolebindings/strong"), JSON_PATCH, joins).await.code, 403);
    // What she has herself she may label; and owners and finalizers give nobody a right.
    w.role("", "weak", json!([rule(&["rbac.authorization.k8s.io"], &["clusterroles"], &["get"])])).await;
    assert_eq!(w.patch_as(&jane, &format!("{RBAC}/clusterroles/weak"), MERGE, label).await.code, 200);
    let held = json!({"metadata": {"finalizers": ["example.org/x"]}});
    assert_eq!(w.patch_as(&jane, &format!("{RBAC}/clusterroles/strong"), MERGE, held).await.code, 200);
}

/// Acting for others ends where the system begins: no group and no account comes with the right to act for users.
#[tokio::test]
async fn f_nobody_becomes_the_system() {
    let w = world();
    w.account("ci").await;
    w.pod_on("web", "h1", json!({})).await;
    w.role("", "as-users", json!([rule(&[""], &["users"], &["impersonate"])])).await;
    w.bind("", "jane", "as-users", subject("User", "jane")).await;
    let jane = Identity::new("jane", &[]).authenticated();
    let act = async |line: &str, headers: &[(&str, &str)]| w.send(Some(&jane), line, headers, "{}").await;
    let secrets = "GET /api/v1/secrets";
    for headers in [
        &[("impersonate-user", "x"), ("impersonate-group", "system:masters")][..],
        &[("impersonate-user", "x"), ("impersonate-group", "system:nodes")],
        &[("impersonate-user", "x"), ("impersonate-group", "system:authenticated"), ("impersonate-group", "system:masters")],
        &[("impersonate-user", "x"), ("Impersonate-Group", "system:masters")],
        &[("impersonate-user", "system:serviceaccount:shop:ci")],
        &[("impersonate-user", "system:serviceaccount:kube-system:default")],
        &[("impersonate-user", "x"), ("impersonate-uid", "1")],
        // Those whom she may be have no more than their names give.
        &[("impersonate-user", "system:masters")],
        &[("impersonate-user", "portolan-admin")],
        &[("impersonate-user", "system:node:h1")],
        &[("impersonate-user", "x,system:masters")],
    ] {
        let answer = act(secrets, headers).await;
        assert_eq!(answer.code, 403, "{headers:?}: {}", answer.show());
    }
    // A host's name without its group and its key is nobody's.
    let node = [("impersonate-user", "system:node:h1")];
    for line in ["GET /api/v1/nodes/h1", "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dh1", "PATCH /api/v1/nodes/h1/status"] {
        assert_eq!(act(line, &node).await.code, 403, "{line}");
    }
    let who = act(&format!("POST {AUTHENTICATION}/selfsubjectreviews"), &node).await.value["status"]["userInfo"].clone();
    assert_eq!(who, json!({"username": "system:node:h1", "groups": ["system:authenticated"]}));
    // Acting for somebody who may act for others is not acting for the others.
    w.role("", "as-groups", json!([rule(&[""], &["groups", "users"], &["impersonate"])])).await;
    w.bind("", "joe", "as-groups", subject("User", "joe")).await;
    let headers = [("impersonate-user", "joe"), ("impersonate-group", "system:masters")];
    assert_eq!(act(secrets, &headers).await.code, 403);
    // Who may act for groups becomes a master by that: the right is as strong as cluster-admin, and `edit` and `admin` have none of it.
    for role in ["edit", "admin", "view"] {
        let rules = w.must(&format!("GET {RBAC}/clusterroles/{role}"), Value::Null).await["rules"].clone();
        let acts = |rule: &&Value| rule["verbs"].as_array().unwrap().iter().any(|verb| verb == "impersonate" || verb == "*");
        for rule in rules.as_array().unwrap().iter().filter(acts) {
            assert_eq!(rule["resources"], json!(["serviceaccounts"]), "{role}: {rule}");
        }
    }
}
