//! Answers that have only some fields: a list with its pages, one object, a write and a watch.

use super::*;

const PARTS: &str = "application/json;as=PartialObjectList;v=v1alpha1;g=portolan.dev,application/json";
const PODS: &str = "/api/v1/namespaces/shop/pods";

async fn part(w: &World, request: &str, body: impl Into<Body>) -> Answer {
    w.send(Some(&Identity::admin()), request, &[("accept", PARTS)], body).await
}

#[tokio::test]
async fn a_list_of_parts_is_a_list() {
    let w = world();
    for name in ["a", "b", "c"] {
        w.pod_on(name, "h1", json!({})).await;
    }
    let query = "fields=spec.nodeName,spec.containers.name,status.phase,spec.nothing";
    let list = part(&w, &format!("GET {PODS}?{query}"), "").await;
    assert_eq!(
        (list.code, &list.headers["content-type"]),
        (200, &"application/json;as=PartialObjectList;v=v1alpha1;g=portolan.dev".parse().unwrap())
    );
    assert_eq!((&list.value["kind"], &list.value["apiVersion"]), (&json!("PartialObjectList"), &json!("portolan.dev/v1alpha1")));
    let whole = w.ask(&format!("GET {PODS}"), Value::Null).await;
    assert_eq!(list.value["metadata"], whole.value["metadata"], "it is of a revision, like any list");
    let wanted: Vec<Value> = whole.value["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| {
            let meta = &pod["metadata"];
            let containers: Vec<Value> =
                pod["spec"]["containers"].as_array().unwrap().iter().map(|c| json!({"name": c["name"]})).collect();
            json!({
                "metadata": {"name": meta["name"], "namespace": meta["namespace"], "resourceVersion": meta["resourceVersion"]},
                "spec": {"nodeName": "h1", "containers": containers}, "status": {"phase": pod["status"]["phase"]},
            })
        })
        .collect();
    assert_eq!(list.value["items"], json!(wanted));

    // Selectors and pages are those of any list.
    let first = part(&w, &format!("GET {PODS}?{query}&limit=2"), "").await;
    assert_eq!(
        (first.names(), &first.value["metadata"]["remainingItemCount"]),
        (vec!["a".to_owned(), "b".to_owned()], &json!(1))
    );
    let next = first.value["metadata"]["continue"].as_str().unwrap();
    assert_eq!(part(&w, &format!("GET {PODS}?{query}&limit=2&continue={next}"), "").await.names(), ["c"]);
    assert_eq!(part(&w, &format!("GET {PODS}?{query}&fieldSelector=metadata.name%3Db"), "").await.names(), ["b"]);
    assert_eq!(part(&w, &format!("GET {PODS}?{query}&labelSelector=app%3Dnothing"), "").await.value["items"], json!([]));

    // What makes no sense is told; who does not ask for parts is not asked for paths.
    for (query, told) in
        [("", "at least one path is needed"), ("?fields=spec..nodeName", "is no path"), ("?fields=kind", "cannot be asked for")]
    {
        let refused = part(&w, &format!("GET {PODS}{query}"), "").await;
        assert_eq!((refused.code, &refused.value["reason"]), (400, &json!("BadRequest")));
        let message = refused.value["message"].as_str().unwrap();
        assert!(message.starts_with("fields: Invalid value: ") && message.contains(told), "{message}");
    }
    let plain = w.ask(&format!("GET {PODS}?fields=spec..nodeName"), Value::Null).await;
    assert_eq!((plain.code, &plain.value["items"]), (200, &whole.value["items"]));
}

#[tokio::test]
async fn one_object_a_write_and_a_watch_have_parts_too() {
    let w = world();
    let stamp = |answer: &Value| (answer["kind"].clone(), answer["apiVersion"].clone());
    let partial = (json!("PartialObject"), json!("portolan.dev/v1alpha1"));
    let map = config_map("m", json!({"a": "1", "b": "2"})).to_string();
    let maps = "/api/v1/namespaces/default/configmaps";
    for dry in ["&dryRun=All", ""] {
        let made = part(&w, &format!("POST {maps}?fields=data.a{dry}"), map.clone()).await;
        assert_eq!((made.code, stamp(&made.value), &made.value["data"]), (201, partial.clone(), &json!({"a": "1"})), "{dry}");
    }
    let got = part(&w, &format!("GET {maps}/m?fields=data.b,metadata.uid"), "").await;
    assert_eq!((stamp(&got.value), &got.value["data"]), (partial.clone(), &json!({"b": "2"})));
    assert!(got.value["metadata"]["uid"].is_string() && got.value["metadata"].get("creationTimestamp").is_none());
    let missing = part(&w, &format!("GET {maps}/nothing?fields=data"), "").await;
    assert_eq!((missing.code, &missing.value["kind"]), (404, &json!("Status")), "an error is told as any");

    let path = format!("{maps}?watch=true&resourceVersion=0&fields=data.b&fieldSelector=metadata.name%3Dm");
    let mut watch = w.follow(&path, PARTS).await;
    let added = watch.next().await.unwrap();
    assert_eq!(
        (&added["type"], stamp(&added["object"]), &added["object"]["data"]),
        (&json!("ADDED"), partial.clone(), &json!({"b": "2"}))
    );
    w.must(&format!("DELETE {maps}/m"), Value::Null).await;
    let gone = watch.next().await.unwrap();
    assert_eq!((&gone["type"], &gone["object"]["metadata"]["name"]), (&json!("DELETED"), &json!("m")));
    assert!(gone["object"]["metadata"]["resourceVersion"].as_str() > added["object"]["metadata"]["resourceVersion"].as_str());
}
