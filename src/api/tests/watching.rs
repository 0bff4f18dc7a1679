//! Watches: what a client is told, in which order, and when it ends.

use super::*;

/// A watch, line by line.
pub(super) struct Lines {
    body: Body,
    buffer: String,
}

impl World {
    pub(super) async fn follow(&self, path: &str, accept: &str) -> Lines {
        let mut request = Request::builder().uri(path).header("accept", accept).body(Body::empty()).unwrap();
        request.extensions_mut().insert(Identity::admin());
        let response = self.api.handle(request).await;
        assert_eq!(response.status(), 200, "{path}");
        Lines { body: response.into_body(), buffer: String::new() }
    }
}

impl Lines {
    /// The next event; `None` when the watch is over.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((line, rest)) = self.buffer.split_once('\n') {
                let value = serde_json::from_str(line).unwrap();
                self.buffer = rest.to_owned();
                return Some(value);
            }
            let frame =
                tokio::time::timeout(std::time::Duration::from_secs(5), self.body.frame()).await.expect("an event in time")?;
            self.buffer.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        }
    }
    async fn show(&mut self) -> String {
        match self.next().await {
            Some(event) => {
                format!("{} {}", event["type"].as_str().unwrap(), event["object"]["metadata"]["name"].as_str().unwrap_or("-"))
            }
            None => "end".to_owned(),
        }
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn labelled(name: &str, tier: &str) -> Value {
    let mut map = config_map(name, json!({}));
    map["metadata"]["labels"] = json!({"tier": tier});
    map
}

#[tokio::test]
async fn wa4_entering_and_leaving_a_selector() {
    let w = world();
    let from = w.ask(&format!("GET {MAPS}"), Value::Null).await.revision();
    let mut watch =
        w.follow(&format!("{MAPS}?watch=true&labelSelector=tier%3Da&resourceVersion={from}"), "application/json").await;
    w.must(&format!("POST {MAPS}"), labelled("x", "b")).await;
    w.must(&format!("POST {MAPS}"), labelled("y", "a")).await;
    assert_eq!(watch.show().await, "ADDED y");
    w.must(&format!("PATCH {MAPS}/x"), json!({"metadata": {"labels": {"tier": "a"}}})).await;
    assert_eq!(watch.show().await, "ADDED x");
    w.must(&format!("PATCH {MAPS}/x"), json!({"data": {"k": "v"}})).await;
    assert_eq!(watch.show().await, "MODIFIED x");
    let left = w.must(&format!("PATCH {MAPS}/x"), json!({"metadata": {"labels": {"tier": "c"}}})).await;
    let event = watch.next().await.unwrap();
    assert_eq!((event["type"].as_str(), event["object"]["metadata"]["labels"]["tier"].as_str()), (Some("DELETED"), Some("a")));
    assert_eq!(
        event["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"],
        "so that a client resumes behind it"
    );
    w.must(&format!("DELETE {MAPS}/y"), json!({})).await;
    assert_eq!(watch.show().await, "DELETED y");
    // Other namespaces and what never matched stay unheard.
    w.must("POST /api/v1/namespaces/shop/configmaps", labelled("z", "a")).await;
    w.must(&format!("POST {MAPS}"), labelled("last", "a")).await;
    assert_eq!(watch.show().await, "ADDED last");
}

#[tokio::test]
async fn wa3_resume_gives_the_rest_or_410() {
    let w = world();
    let first = w.must(&format!("POST {MAPS}"), config_map("a", json!({}))).await;
    w.must(&format!("POST {MAPS}"), config_map("b", json!({}))).await;
    let from = first["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut watch = w.follow(&format!("{MAPS}?watch=1&resourceVersion={from}"), "application/json").await;
    assert_eq!(watch.show().await, "ADDED b");
    w.store.compact(w.store.revision());
    let late = w.ask(&format!("GET {MAPS}?watch=1&resourceVersion={from}"), Value::Null).await;
    assert!(late.show().starts_with("410 Expired: too old resource version: "), "{}", late.show());
    assert_eq!(w.ask(&format!("GET {MAPS}?watch=1&resourceVersion=x"), Value::Null).await.code, 400);
}

#[tokio::test]
async fn without_a_version_it_begins_with_what_is_there() {
    let w = world();
    w.must(&format!("POST {MAPS}"), config_map("a", json!({}))).await;
    w.must(&format!("POST {MAPS}"), config_map("b", json!({}))).await;
    for query in ["", "&resourceVersion=0"] {
        let mut watch = w.follow(&format!("{MAPS}?watch=true{query}"), "application/json").await;
        assert_eq!((watch.show().await, watch.show().await), ("ADDED a".into(), "ADDED b".into()));
    }
    let streamed = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = w.follow(&format!("{MAPS}?watch=true&{streamed}"), "application/json").await;
    assert_eq!((watch.show().await, watch.show().await), ("ADDED a".into(), "ADDED b".into()));
    let mark = watch.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    w.must(&format!("POST {MAPS}"), config_map("c", json!({}))).await;
    assert_eq!(watch.show().await, "ADDED c");
    assert_eq!(w.ask(&format!("GET {MAPS}?watch=true&sendInitialEvents=true"), Value::Null).await.code, 400);
    // One object, by its path.
    let mut one = w.follow(&format!("{MAPS}/b?watch=true"), "application/json").await;
    assert_eq!(one.show().await, "ADDED b");
}

#[tokio::test]
async fn tables_name_their_columns_once() {
    let w = world();
    w.must(&format!("POST {MAPS}"), config_map("a", json!({"k": "v"}))).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut watch = w.follow(&format!("{MAPS}?watch=true"), accept).await;
    w.must(&format!("POST {MAPS}"), config_map("b", json!({}))).await;
    let (one, two) = (watch.next().await.unwrap(), watch.next().await.unwrap());
    assert!(one["object"]["columnDefinitions"].is_array() && two["object"]["columnDefinitions"].is_null());
    assert_eq!(
        (&one["object"]["rows"][0]["cells"], &two["object"]["rows"][0]["cells"][0]),
        (&json!(["a", 1, "0s"]), &json!("b"))
    );
}

#[tokio::test]
async fn a_watch_ends_in_time_and_with_the_server() {
    let w = world();
    let mut short = w.follow(&format!("{MAPS}?watch=true&timeoutSeconds=1"), "application/json").await;
    assert_eq!(short.show().await, "end");
    let mut long = w.follow(&format!("{MAPS}?watch=true"), "application/json").await;
    w.stop.cancel();
    assert_eq!(long.show().await, "end");
}

#[tokio::test]
async fn kube_sees_a_kubernetes() {
    use futures_util::StreamExt;
    use kube::api::{Api as Kube, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
    let w = world();
    let client = kube::Client::new(w.api.router(Identity::admin()), "default");
    let maps: Kube<core::ConfigMap> = Kube::default_namespaced(client);
    let map: core::ConfigMap = serde_json::from_value(config_map("a", json!({"k": "1"}))).unwrap();
    let made = maps.create(&PostParams::default(), &map).await.unwrap();
    let version = made.metadata.resource_version.unwrap();
    let mut events = maps.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    maps.patch(
        "a",
        &PatchParams::apply("test"),
        &Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"l": "2"}})),
    )
    .await
    .unwrap();
    let Some(Ok(WatchEvent::Modified(seen))) = events.next().await else { panic!("a change") };
    assert_eq!(seen.data.unwrap().len(), 2);
    assert_eq!(maps.list(&ListParams::default().limit(1)).await.unwrap().items.len(), 1);
    let gone = maps.get("b").await.unwrap_err();
    assert!(matches!(gone, kube::Error::Api(status) if status.code == 404 && status.reason == "NotFound"));
}
