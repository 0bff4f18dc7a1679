//! Get, list, create, update, patch, delete, subresources, tables and discovery: requests and their answers.

use super::*;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[tokio::test]
async fn life_of_an_object() {
    let w = world();
    let made = w.ask(&format!("POST {MAPS}"), config_map("a", json!({"k": "1"}))).await;
    assert_eq!(made.code, 201);
    let meta = &made.value["metadata"];
    assert_eq!(meta["creationTimestamp"], "2026-11-21T10:00:00Z");
    assert_eq!(meta["uid"].as_str().unwrap().len(), 36);
    assert_eq!(
        w.ask(&format!("POST {MAPS}"), config_map("a", json!({}))).await.show(),
        "409 AlreadyExists: configmaps \"a\" already exists"
    );

    let mut next = made.value.clone();
    next["data"]["k"] = "2".into();
    let put = w.ask(&format!("PUT {MAPS}/a"), next.clone()).await;
    assert_eq!(put.code, 200);
    assert_ne!(put.revision(), made.revision());
    assert_eq!(
        w.ask(&format!("PUT {MAPS}/a"), next).await.show(),
        "409 Conflict: Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    // The same again writes nothing.
    let same = w.ask(&format!("PUT {MAPS}/a"), put.value.clone()).await;
    assert_eq!(same.revision(), put.revision());

    let gone = w.ask(&format!("DELETE {MAPS}/a"), json!({"propagationPolicy": "Background"})).await;
    assert_eq!(
        (gone.code, gone.value["status"].as_str(), gone.value["details"]["name"].as_str()),
        (200, Some("Success"), Some("a"))
    );
    assert_eq!(gone.value["details"]["uid"], meta["uid"]);
    let missing = w.ask(&format!("GET {MAPS}/a"), Value::Null).await;
    assert_eq!(missing.show(), "404 NotFound: configmaps \"a\" not found");
    assert_eq!(missing.value["details"], json!({"name": "a", "kind": "configmaps"}));
}

#[tokio::test]
async fn refused_writes() {
    let w = world();
    let big = "x".repeat(super::super::body::BODY_MAX + 1);
    let rows: Vec<(String, &str, String, &str)> = vec![
        (format!("POST {MAPS}"), "application/json", "{".into(), "400 BadRequest"),
        (format!("POST {MAPS}"), "application/json", "[]".into(), "400 BadRequest"),
        (format!("POST {MAPS}"), "application/vnd.kubernetes.protobuf", "k8s\0".into(), "400 BadRequest"),
        (format!("POST {MAPS}"), "text/plain", "{}".into(), "415 UnsupportedMediaType"),
        (format!("POST {MAPS}"), "application/json", big, "413 RequestEntityTooLarge"),
        (format!("POST {MAPS}"), "application/json", r#"{"kind":"Secret","metadata":{"name":"a"}}"#.into(), "400 BadRequest"),
        (
            format!("POST {MAPS}"),
            "application/json",
            r#"{"apiVersion":"apps/v1","metadata":{"name":"a"}}"#.into(),
            "400 BadRequest",
        ),
        (format!("POST {MAPS}"), "application/json", r#"{"metadata":{"name":"a","namespace":"shop"}}"#.into(), "400 BadRequest"),
        (format!("POST {MAPS}"), "application/json", r#"{"metadata":{"name":"A_"}}"#.into(), "422 Invalid"),
        (format!("POST {MAPS}"), "application/json", r#"{"metadata":{}}"#.into(), "422 Invalid"),
        (
            format!("POST {MAPS}"),
            "application/json",
            r#"{"metadata":{"name":"a","resourceVersion":"3"}}"#.into(),
            "400 BadRequest",
        ),
        (format!("POST {MAPS}?dryRun=some"), "application/json", r#"{"metadata":{"name":"a"}}"#.into(), "422 Invalid"),
        (format!("POST {MAPS}?fieldValidation=Loose"), "application/json", r#"{"metadata":{"name":"a"}}"#.into(), "422 Invalid"),
        (
            "POST /api/v1/namespaces/nowhere/configmaps".into(),
            "application/json",
            r#"{"metadata":{"name":"a"}}"#.into(),
            "404 NotFound",
        ),
        ("POST /api/v1/configmaps".into(), "application/json", r#"{"metadata":{"name":"a"}}"#.into(), "405 MethodNotAllowed"),
        (format!("PUT {MAPS}/a"), "application/json", r#"{"metadata":{"name":"a"}}"#.into(), "404 NotFound"),
        (format!("PUT {MAPS}/a"), "application/json", r#"{"metadata":{"name":"b"}}"#.into(), "400 BadRequest"),
        (format!("PUT {MAPS}"), "application/json", "{}".into(), "405 MethodNotAllowed"),
        (format!("DELETE {MAPS}/a"), "application/json", String::new(), "404 NotFound"),
        (format!("PATCH {MAPS}/a"), "application/json", "{}".into(), "415 UnsupportedMediaType"),
        (format!("PATCH {MAPS}/a"), "application/merge-patch+json", "{}".into(), "404 NotFound"),
        (format!("PATCH {MAPS}/a"), "application/apply-patch+yaml", "metadata: {name: a}".into(), "400 BadRequest"),
        (format!("GET {MAPS}/%2e%2e"), "application/json", String::new(), "404 NotFound"),
        ("GET /api/v1/nope".into(), "application/json", String::new(), "404 NotFound"),
        ("BREW /api/v1/pods".into(), "application/json", String::new(), "405 MethodNotAllowed"),
        ("DELETE /api/v1/namespaces/kube-system".into(), "application/json", String::new(), "403 Forbidden"),
    ];
    for (line, sort, body, wanted) in rows {
        let answer = w.send(Some(&Identity::admin()), &line, &[("content-type", sort)], body).await;
        let shown = answer.show();
        assert!(shown.starts_with(wanted), "{line}: {shown}, wanted {wanted}");
        assert_eq!(answer.value["code"], answer.code, "{line}");
    }
}

#[tokio::test]
async fn field_validation() {
    let w = world();
    let wrong = r#"{"metadata":{"name":"a"},"dato":{},"data":{"k":"1","k":"2"}}"#;
    let post = async |mode: &str| {
        let json = [("content-type", "application/json")];
        w.send(Some(&Identity::admin()), &format!("POST {MAPS}?dryRun=All&fieldValidation={mode}"), &json, wrong).await
    };
    assert_eq!(
        post("Strict").await.show(),
        "400 BadRequest: ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"dato\", duplicate field \"data.k\""
    );
    let warned = post("Warn").await;
    let warnings: Vec<&str> = warned.headers.get_all("warning").iter().map(|v| v.to_str().unwrap()).collect();
    assert_eq!(
        (warned.code, warnings),
        (201, vec!["299 - \"unknown field \\\"dato\\\"\"", "299 - \"duplicate field \\\"data.k\\\"\""])
    );
    assert!(
        warned.value.get("dato").is_none() && warned.value["data"]["k"] == "2",
        "the unknown field is dropped, the last one wins"
    );
    let ignored = post("Ignore").await;
    assert!(ignored.code == 201 && ignored.headers.get("warning").is_none());
    // A patch is looked at in the same way.
    w.must(&format!("POST {DEPLOYMENTS}"), deployment("web")).await;
    let patch = w.ask(&format!("PATCH {DEPLOYMENTS}/web?fieldValidation=Strict"), json!({"spec": {"replikas": 3}})).await;
    assert!(patch.show().ends_with("strict decoding error: unknown field \"spec.replikas\""), "{}", patch.show());
    let wrong_type = w.ask(&format!("PATCH {DEPLOYMENTS}/web"), json!({"spec": {"replicas": "three"}})).await;
    assert!(
        wrong_type
            .show()
            .starts_with("400 BadRequest: Deployment in version \"v1\" cannot be handled as a Deployment: spec.replicas")
    );
}

#[tokio::test]
async fn dry_runs_change_nothing() {
    let w = world();
    w.must(&format!("POST {MAPS}"), config_map("a", json!({"k": "1"}))).await;
    let before = w.store.revision();
    let made = w.ask(&format!("POST {MAPS}?dryRun=All"), config_map("b", json!({}))).await;
    assert!(made.code == 201 && made.value["metadata"].get("resourceVersion").is_none());
    let taken = w.ask(&format!("POST {MAPS}?dryRun=All"), config_map("a", json!({}))).await;
    assert_eq!(taken.code, 409);
    let patched = w.ask(&format!("PATCH {MAPS}/a?dryRun=All"), json!({"data": {"k": "2"}})).await;
    assert_eq!((patched.code, patched.value["data"]["k"].as_str()), (200, Some("2")));
    assert_eq!(w.ask(&format!("DELETE {MAPS}/a?dryRun=All"), Value::Null).await.code, 200);
    assert_eq!(w.ask(&format!("DELETE {MAPS}/a"), json!({"dryRun": ["All"]})).await.code, 200);
    assert_eq!(w.ask(&format!("DELETE {MAPS}?dryRun=All"), Value::Null).await.code, 200);
    assert_eq!(w.store.revision(), before);
}

#[tokio::test]
async fn patches() {
    let w = world();
    w.must(&format!("POST {DEPLOYMENTS}"), deployment("web")).await;
    let send = async |sort: &str, query: &str, body: Value| {
        w.send(Some(&Identity::admin()), &format!("PATCH {DEPLOYMENTS}/web{query}"), &[("content-type", sort)], body.to_string())
            .await
    };
    let merged = send("application/merge-patch+json", "", json!({"spec": {"replicas": 3}})).await;
    assert_eq!((merged.value["spec"]["replicas"].as_i64(), merged.value["metadata"]["generation"].as_i64()), (Some(3), Some(2)));
    let template =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}, {"name": "d", "image": "j"}]}}}});
    let strategic = send("application/strategic-merge-patch+json", "", template).await;
    assert_eq!(strategic.value["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 2);
    let test =
        json!([{"op": "test", "path": "/spec/replicas", "value": 9}, {"op": "replace", "path": "/spec/replicas", "value": 1}]);
    assert_eq!(send("application/json-patch+json", "", test).await.code, 422);
    assert_eq!(send("application/json-patch+json", "", json!([{"op": "fly"}])).await.code, 400);
    let old =
        send("application/merge-patch+json", "", json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 9}})).await;
    assert_eq!(old.show().split(':').next(), Some("409 Conflict"));
    let renamed = send("application/merge-patch+json", "", json!({"metadata": {"name": "other"}})).await;
    assert_eq!(renamed.code, 400);
    let huge = Value::Array(vec![json!({"op": "test", "path": "/kind", "value": "Deployment"}); 10_001]);
    assert_eq!(send("application/json-patch+json", "", huge).await.code, 413);

    // Applying: creates, changes only what is its own, and twice is once.
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": {"a": "1"}});
    let apply = async |manager: &str, force: bool, config: &Value| {
        let line = format!("PATCH {MAPS}/s?fieldManager={manager}&force={force}");
        w.send(Some(&Identity::admin()), &line, &[("content-type", "application/apply-patch+yaml")], config.to_string()).await
    };
    assert_eq!(apply("one", false, &config).await.code, 201);
    let again = apply("one", false, &config).await;
    assert_eq!((again.code, again.revision()), (200, w.ask(&format!("GET {MAPS}/s"), Value::Null).await.revision()));
    let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": {"a": "2"}});
    let conflict = apply("two", false, &other).await;
    assert_eq!(conflict.code, 409);
    assert_eq!(conflict.value["details"]["causes"][0]["reason"], "FieldManagerConflict");
    assert_eq!(conflict.value["details"]["causes"][0]["field"], ".data.a");
    assert_eq!(apply("two", true, &other).await.value["data"]["a"], "2");
}

#[tokio::test]
async fn patches_without_a_version_do_not_meet() {
    let w = Arc::new(world());
    w.must(&format!("POST {MAPS}"), config_map("a", json!({}))).await;
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let w = w.clone();
            tokio::spawn(async move { w.ask(&format!("PATCH {MAPS}/a"), json!({"data": {n.to_string(): "x"}})).await.code })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 200);
    }
    assert_eq!(w.must(&format!("GET {MAPS}/a"), Value::Null).await["data"].as_object().unwrap().len(), 20);
}

#[tokio::test]
async fn subresources() {
    let w = world();
    let made = w.must(&format!("POST {DEPLOYMENTS}"), deployment("web")).await;
    assert!(made.get("status").is_none_or(|s| s["replicas"].is_null()));
    let status =
        w.ask(&format!("PATCH {DEPLOYMENTS}/web/status"), json!({"status": {"replicas": 2}, "spec": {"replicas": 9}})).await;
    assert_eq!((status.value["status"]["replicas"].as_i64(), status.value["spec"]["replicas"].as_i64()), (Some(2), Some(2)));
    assert_eq!(status.value["metadata"]["generation"], 1, "AP1: a status is no new wish");
    let spec = w.ask(&format!("PATCH {DEPLOYMENTS}/web"), json!({"status": {"replicas": 7}})).await;
    assert_eq!(spec.value["status"]["replicas"], 2);

    let scale = w.must(&format!("GET {DEPLOYMENTS}/web/scale"), Value::Null).await;
    assert_eq!((scale["kind"].as_str(), scale["status"]["selector"].as_str()), (Some("Scale"), Some("app=web")));
    let scaled = w.ask(&format!("PATCH {DEPLOYMENTS}/web/scale"), json!({"spec": {"replicas": 5}})).await;
    assert_eq!((scaled.code, scaled.value["spec"]["replicas"].as_i64()), (200, Some(5)));
    let mut put = scaled.value.clone();
    put["spec"]["replicas"] = 1.into();
    assert_eq!(w.ask(&format!("PUT {DEPLOYMENTS}/web/scale"), put.clone()).await.value["spec"]["replicas"], 1);
    assert_eq!(w.ask(&format!("PUT {DEPLOYMENTS}/web/scale"), put).await.code, 409, "it carries an old version");
    assert_eq!(w.ask(&format!("PATCH {DEPLOYMENTS}/web/scale"), json!({"spec": {"replicas": -1}})).await.code, 422);
    assert_eq!(w.ask(&format!("DELETE {DEPLOYMENTS}/web/scale"), Value::Null).await.code, 405);
}

#[tokio::test]
async fn pods_are_bound_once_and_go_gracefully() {
    let w = world();
    let pod = w.pod_on("web", "h1", json!({})).await;
    assert_eq!((pod["spec"]["nodeName"].as_str(), pod["status"]["phase"].as_str()), (Some("h1"), Some("Pending")));
    assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
    let again = w.ask("POST /api/v1/namespaces/shop/pods/web/binding", json!({"target": {"name": "h2"}})).await;
    assert_eq!(again.show().split(':').next(), Some("409 Conflict"));

    let wrong = w.ask("DELETE /api/v1/namespaces/shop/pods/web", json!({"preconditions": {"uid": "other"}})).await;
    assert!(wrong.show().contains("Precondition failed: UID"), "{}", wrong.show());
    let marked = w.ask("DELETE /api/v1/namespaces/shop/pods/web", json!({})).await;
    assert_eq!(marked.value["kind"], "Pod");
    assert_eq!(marked.value["metadata"]["deletionTimestamp"], "2026-11-21T10:00:30Z");
    assert_eq!(marked.value["metadata"]["deletionGracePeriodSeconds"], 30);
    w.pass(5);
    // Asked again, it is not put off; only its grace may shrink.
    let again = w.ask("DELETE /api/v1/namespaces/shop/pods/web", json!({"gracePeriodSeconds": 60})).await;
    assert_eq!(again.value["metadata"]["deletionTimestamp"], "2026-11-21T10:00:30Z");
    let node = Identity::node("h1");
    let last = w.ask_as(&node, "DELETE /api/v1/namespaces/shop/pods/web", json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(last.code, 200);
    assert_eq!(w.ask("GET /api/v1/namespaces/shop/pods/web", Value::Null).await.code, 404);

    // Nobody runs an unbound pod: it goes at once.
    w.must(
        "POST /api/v1/namespaces/shop/pods",
        json!({"metadata": {"generateName": "x-"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .await;
    let name = w.ask("GET /api/v1/namespaces/shop/pods", Value::Null).await.names().remove(0);
    assert!(name.starts_with("x-") && name.len() > 3, "{name}");
    w.must(&format!("DELETE /api/v1/namespaces/shop/pods/{name}"), json!({})).await;
    assert!(w.ask("GET /api/v1/namespaces/shop/pods", Value::Null).await.names().is_empty());
    // An eviction is a polite deletion.
    w.pod_on("evicted", "h1", json!({})).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted"}, "deleteOptions": {"gracePeriodSeconds": 7}});
    assert_eq!(w.ask("POST /api/v1/namespaces/shop/pods/evicted/eviction", eviction).await.code, 201);
    let evicted = w.must("GET /api/v1/namespaces/shop/pods/evicted", Value::Null).await;
    assert_eq!(evicted["metadata"]["deletionGracePeriodSeconds"], 7);
}

#[tokio::test]
async fn finalizers_and_namespaces() {
    let w = world();
    let mut held = config_map("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.org/wait"]);
    w.must(&format!("POST {MAPS}"), held).await;
    let marked = w.ask(&format!("DELETE {MAPS}/held"), json!({})).await;
    assert!(marked.value["metadata"]["deletionTimestamp"].is_string());
    let added =
        w.ask(&format!("PATCH {MAPS}/held"), json!({"metadata": {"finalizers": ["example.org/wait", "example.org/more"]}})).await;
    assert_eq!(added.code, 422, "AP3");
    assert_eq!(w.ask(&format!("PATCH {MAPS}/held"), json!({"metadata": {"finalizers": null}})).await.code, 200);
    assert_eq!(w.ask(&format!("GET {MAPS}/held"), Value::Null).await.code, 404, "AP2");

    let going = w.ask("DELETE /api/v1/namespaces/shop", json!({})).await;
    assert_eq!(going.value["status"]["phase"], "Terminating");
    let new = w.ask("POST /api/v1/namespaces/shop/configmaps", config_map("late", json!({}))).await;
    assert_eq!(
        new.show(),
        "403 Forbidden: configmaps \"late\" is forbidden: unable to create new content in namespace shop because it is being terminated"
    );
    assert_eq!(new.value["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut value = going.value.clone();
    value["spec"]["finalizers"] = json!([]);
    assert_eq!(w.ask("PUT /api/v1/namespaces/shop/finalize", value).await.code, 200);
    assert_eq!(w.ask("GET /api/v1/namespaces/shop", Value::Null).await.code, 404);
}

#[tokio::test]
async fn lists() {
    let w = world();
    for n in 0..5 {
        let mut map = config_map(&format!("m{n}"), json!({}));
        map["metadata"]["labels"] = json!({"odd": (n % 2 == 1).to_string()});
        w.must(&format!("POST {MAPS}"), map).await;
    }
    w.must("POST /api/v1/namespaces/shop/configmaps", config_map("z", json!({}))).await;
    let list = async |query: &str| w.ask(&format!("GET {MAPS}{query}"), Value::Null).await;
    assert_eq!(list("").await.names(), ["m0", "m1", "m2", "m3", "m4"]);
    assert_eq!(list("?labelSelector=odd%3Dtrue").await.names(), ["m1", "m3"]);
    assert_eq!(list("?fieldSelector=metadata.name%3Dm2").await.names(), ["m2"]);
    assert_eq!(list("?fieldSelector=metadata.name!%3Dm2&labelSelector=odd%3Dfalse").await.names(), ["m0", "m4"]);
    assert_eq!(list("?fieldSelector=data.k%3D1").await.code, 400);
    assert_eq!(list("?labelSelector=a+b").await.code, 400);
    assert_eq!(w.ask("GET /api/v1/configmaps", Value::Null).await.names().len(), 6);
    let head = list("?limit=0").await.value;
    assert_eq!((head["kind"].as_str(), head["apiVersion"].as_str()), (Some("ConfigMapList"), Some("v1")));

    // WA8: pages are of one revision, whatever happens between them.
    let first = list("?limit=2").await;
    assert_eq!(
        (first.names(), first.value["metadata"]["remainingItemCount"].as_i64()),
        (vec!["m0".into(), "m1".into()], Some(3))
    );
    w.must(&format!("DELETE {MAPS}/m2"), json!({})).await;
    w.must(&format!("PATCH {MAPS}/m3"), json!({"data": {"new": "x"}})).await;
    w.must(&format!("POST {MAPS}"), config_map("m22", json!({}))).await;
    let token = first.value["metadata"]["continue"].as_str().unwrap().to_owned();
    let second = list(&format!("?limit=2&continue={token}")).await;
    assert_eq!((second.names(), second.revision()), (vec!["m2".into(), "m3".into()], first.revision()));
    assert!(second.value["items"][1]["data"].get("new").is_none());
    let token = second.value["metadata"]["continue"].as_str().unwrap().to_owned();
    let third = list(&format!("?limit=2&continue={token}")).await;
    assert_eq!((third.names(), third.value["metadata"].get("continue")), (vec!["m4".into()], None));
    assert_eq!(list("?continue=forged").await.code, 400);
    // Exactly one revision; one that is yet to come; one that is forgotten.
    let exact = list(&format!("?resourceVersion={}&resourceVersionMatch=Exact", first.revision())).await;
    assert_eq!(exact.names(), ["m0", "m1", "m2", "m3", "m4"]);
    assert_eq!(list("?resourceVersion=0").await.names(), ["m0", "m1", "m22", "m3", "m4"]);
    assert_eq!(list("?resourceVersion=x").await.code, 400);
    w.store.compact(w.store.revision());
    assert_eq!(list(&format!("?limit=2&continue={token}")).await.show().split(':').next(), Some("410 Expired"));

    let removed = w.ask(&format!("DELETE {MAPS}?labelSelector=odd"), Value::Null).await;
    assert_eq!((removed.code, removed.names()), (200, vec!["m0".into(), "m1".into(), "m3".into(), "m4".into()]));
    assert_eq!(list("").await.names(), ["m22"]);
}

/// Who reads a long list in pages looks at each object about once, not at all of them for each page; also when much happens meanwhile.
#[tokio::test]
async fn all_pages_cost_as_much_as_one_list() {
    use super::super::read::LOOKED_AT;
    const COUNT: usize = 1000;
    let w = world();
    let now = "2026-11-21T10:00:00Z".parse().unwrap();
    let mut txn = Txn::new();
    for n in 0..COUNT {
        let stamp = Stamp { uid: new_uid(), now };
        let map = json!({"metadata": {"name": format!("m{n:04}"), "namespace": "default"}});
        txn.create(admit::create(kind_of::<core::ConfigMap>(), map, &stamp).unwrap());
    }
    w.store.commit(txn).unwrap();
    for (query, all) in [("?limit=10", COUNT), ("?limit=10&labelSelector=!none", COUNT)] {
        let before = LOOKED_AT.get();
        let (mut names, mut token, mut rest) = (Vec::new(), String::new(), Vec::new());
        loop {
            let page = w.ask(&format!("GET {MAPS}{query}&continue={token}"), Value::Null).await;
            names.extend(page.names());
            rest.extend(page.value["metadata"]["remainingItemCount"].as_u64());
            token = page.value["metadata"]["continue"].as_str().unwrap_or("").to_owned();
            if token.is_empty() {
                break;
            }
            w.must(&format!("PATCH {MAPS}/m0{:03}", names.len() % COUNT), json!({"data": {"at": names.len().to_string()}})).await;
        }
        assert_eq!(names.len(), all);
        assert!(names.is_sorted());
        if !query.contains("labelSelector") {
            assert!(rest.iter().copied().eq((1..COUNT as u64 / 10).rev().map(|pages| pages * 10)), "{rest:?}");
        }
        let looked = LOOKED_AT.get() - before;
        // Each once, once more to count them, the first of the next page, and what was written meanwhile at each page.
        assert!(looked < 2 * COUNT + 200 + 100 * 100, "looked at {looked}");
    }
}

/// To decode an object is what most of a write costs.
#[tokio::test]
async fn a_write_decodes_what_it_changes_once() {
    use crate::object::DECODED;
    let w = world();
    let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let decoded = async |line: &str, sort: &str, body: Value| {
        let before = DECODED.get();
        let answer = w.send(Some(&Identity::admin()), line, &[("content-type", sort)], body.to_string()).await;
        assert!(answer.code < 300, "{line}: {}", answer.show());
        DECODED.get() - before
    };
    const PODS: &str = "/api/v1/namespaces/shop/pods";
    let merge = "application/merge-patch+json";
    let apply = "application/apply-patch+yaml";
    assert_eq!(decoded(&format!("POST {PODS}"), "application/json", pod.clone()).await, 0);
    assert_eq!(decoded(&format!("PATCH {PODS}/web/status"), merge, json!({"status": {"phase": "Running"}})).await, 1);
    assert_eq!(decoded(&format!("PATCH {PODS}/web"), merge, json!({"metadata": {"labels": {"a": "b"}}})).await, 1);
    let mut again = w.must(&format!("GET {PODS}/web"), Value::Null).await;
    again["metadata"]["labels"] = json!({"a": "c"});
    assert_eq!(decoded(&format!("PUT {PODS}/web"), "application/json", again).await, 1);
    let config = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"mine": "x"}}});
    assert_eq!(decoded(&format!("PATCH {PODS}/web?fieldManager=m"), apply, config).await, 1);
}

#[tokio::test]
async fn tables() {
    let w = world();
    w.pod_on("web", "h1", json!({})).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let table = w.send(Some(&Identity::admin()), "GET /api/v1/namespaces/shop/pods", &accept, "").await;
    assert_eq!(table.headers["content-type"], "application/json;as=Table;v=v1;g=meta.k8s.io");
    let names: Vec<&str> =
        table.value["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names[..5], ["Name", "Ready", "Status", "Restarts", "Age"]);
    let row = &table.value["rows"][0];
    assert_eq!(row["cells"], json!(["web", "0/1", "Pending", "0", "0s", "<none>", "h1", "<none>", "<none>"]));
    assert_eq!(
        (row["object"]["kind"].as_str(), row["object"]["metadata"]["labels"]["app"].as_str()),
        (Some("PartialObjectMetadata"), Some("web"))
    );
    assert!(row["object"].get("spec").is_none());
    let whole = w.send(Some(&Identity::admin()), "GET /api/v1/namespaces/shop/pods/web?includeObject=Object", &accept, "").await;
    assert_eq!(whole.value["rows"][0]["object"]["kind"], "Pod");
    let refused = w.send(Some(&Identity::admin()), "GET /api/v1/pods", &[("accept", "text/html")], "").await;
    assert_eq!(refused.code, 406);
    let partial = [("accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")];
    let partial = w.send(Some(&Identity::admin()), "GET /api/v1/pods", &partial, "").await;
    assert_eq!((partial.value["kind"].as_str(), partial.names()), (Some("PartialObjectMetadataList"), vec!["web".to_owned()]));
}

#[tokio::test]
async fn discovery_says_what_there_is() {
    let w = world();
    let aggregated = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")];
    let core = w.send(Some(&Identity::admin()), "GET /api?timeout=32s", &aggregated, "").await;
    assert_eq!(core.headers["content-type"], "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let pods = core.value["items"][0]["versions"][0]["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["resource"] == "pods")
        .unwrap()
        .clone();
    assert_eq!(
        pods["subresources"][2],
        json!({"subresource": "eviction", "responseKind": {"group": "policy", "version": "v1", "kind": "Eviction"}, "verbs": ["create"]})
    );
    assert_eq!(w.must("GET /api", Value::Null).await["versions"], json!(["v1"]));
    let groups = w.must("GET /apis", Value::Null).await;
    assert_eq!(groups["groups"][0]["preferredVersion"]["groupVersion"], "apps/v1");
    let resources = w.must("GET /apis/apps/v1", Value::Null).await;
    let scale = resources["resources"].as_array().unwrap().iter().find(|r| r["name"] == "deployments/scale").unwrap();
    assert_eq!((scale["group"].as_str(), scale["kind"].as_str()), (Some("autoscaling"), Some("Scale")));
    assert_eq!(w.ask("GET /apis/nope/v1", Value::Null).await.code, 404);
    let openapi = w.must("GET /openapi/v3", Value::Null).await;
    let url = openapi["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = w.must(&format!("GET {url}"), Value::Null).await;
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"));
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
}
