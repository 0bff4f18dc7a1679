//! `pods/ephemeralcontainers`: what may be added, and that nothing else may happen there.

use super::*;

const AT: &str = "/api/v1/namespaces/shop/pods/web/ephemeralcontainers";

impl World {
    /// What `kubectl debug` sends.
    async fn debug(&self, container: Value) -> Answer {
        let body = json!({"spec": {"ephemeralContainers": [container]}}).to_string();
        let headers = [("content-type", "application/strategic-merge-patch+json")];
        self.send(Some(&Identity::admin()), &format!("PATCH {AT}"), &headers, body).await
    }
}

#[tokio::test]
async fn containers_are_added_and_stay_as_they_are() {
    let w = world();
    w.pod_on("web", "h1", json!({})).await;
    let first = json!({"name": "look", "image": "tool:1", "stdin": true, "tty": true, "targetContainerName": "c"});
    let added = w.debug(first.clone()).await;
    assert_eq!(added.code, 200, "{}", added.show());
    assert_eq!(added.value["spec"]["ephemeralContainers"][0]["terminationMessagePath"], "/dev/termination-log", "defaults");
    assert_eq!(w.debug(first).await.value["metadata"]["resourceVersion"], added.value["metadata"]["resourceVersion"]);
    assert_eq!(w.debug(json!({"name": "second", "image": "tool:1"})).await.code, 200);
    let pod = w.must(&format!("GET {AT}"), Value::Null).await;
    assert_eq!(pod["spec"]["ephemeralContainers"].as_array().unwrap().len(), 2);
    let at = "422 Invalid: Pod \"web\" is invalid: spec.ephemeralContainers";
    for (container, why) in [
        (json!({"name": "look", "image": "other:1"}), ": Forbidden: existing ephemeral containers \"look\" may not be changed\n"),
        (json!({"name": "c", "image": "tool:1"}), "[2].name: Duplicate value: \"c\""),
        (json!({"name": "x", "image": "tool:1", "targetContainerName": "y"}), "[2].targetContainerName: Not found: \"y\""),
        (json!({"name": "x"}), "[2].image: Required value"),
        (
            json!({"name": "x", "image": "tool:1", "ports": [{"containerPort": 1}]}),
            "[2].ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            json!({"name": "x", "image": "tool:1", "resources": {"limits": {"cpu": "1"}}}),
            "[2].resources: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            json!({"name": "x", "image": "tool:1", "livenessProbe": {"exec": {"command": ["true"]}}}),
            "[2].livenessProbe: Forbidden: cannot be set for an Ephemeral Container",
        ),
    ] {
        let refused = w.debug(container).await.show();
        assert!(refused.starts_with(&format!("{at}{why}")), "{refused}");
    }
    // Nothing is taken away, nothing else changes here, and none comes in by another door.
    let mut less = pod.clone();
    less["spec"]["ephemeralContainers"].as_array_mut().unwrap().remove(0);
    let refused = w.ask(&format!("PUT {AT}"), less).await.show();
    assert_eq!(refused, format!("{at}: Forbidden: existing ephemeral containers \"look\" may not be removed\n"));
    let mut other = pod.clone();
    other["spec"]["containers"][0]["image"] = "evil:1".into();
    other["metadata"]["labels"]["app"] = "evil".into();
    let kept = w.ask(&format!("PUT {AT}"), other).await;
    assert_eq!(
        (kept.code, &kept.value["spec"], &kept.value["metadata"]["labels"]),
        (200, &pod["spec"], &pod["metadata"]["labels"])
    );
    let more = json!({"spec": {"ephemeralContainers": [{"name": "z", "image": "tool:1"}]}});
    let refused = w.ask("PATCH /api/v1/namespaces/shop/pods/web", more.clone()).await;
    assert_eq!(refused.code, 422, "{}", refused.show());
    let mut new = json!({"metadata": {"name": "new"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    new["spec"]["ephemeralContainers"] = more["spec"]["ephemeralContainers"].clone();
    let refused = w.ask("POST /api/v1/namespaces/shop/pods", new).await.show();
    assert!(refused.contains("spec.ephemeralContainers: Forbidden: cannot be set on create"), "{refused}");
    let mut template = deployment("d");
    template["spec"]["template"]["spec"]["ephemeralContainers"] = more["spec"]["ephemeralContainers"].clone();
    let refused = w.ask("POST /apis/apps/v1/namespaces/shop/deployments", template).await.show();
    assert!(refused.contains("ephemeral containers not allowed in pod template"), "{refused}");
}

#[tokio::test]
async fn a_host_reads_what_ephemeral_containers_refer_to() {
    let w = world();
    w.pod_on("web", "h1", json!({})).await;
    for name in ["s", "other"] {
        w.must("POST /api/v1/namespaces/shop/secrets", json!({"metadata": {"name": name}})).await;
    }
    let secret = async |name: &str| {
        w.ask_as(&Identity::node("h1"), &format!("GET /api/v1/namespaces/shop/secrets/{name}"), Value::Null).await.code
    };
    assert_eq!(secret("s").await, 403);
    let env = json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]);
    assert_eq!(w.debug(json!({"name": "look", "image": "tool:1", "env": env})).await.code, 200);
    assert_eq!((secret("s").await, secret("other").await), (200, 403));
}
