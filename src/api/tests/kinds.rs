//! Every kind through the API: what it is given on its way in, in which words it is shown, and where it may be.

use super::*;
use crate::object::Kind;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}});
    for (field, value) in spec.as_object().unwrap() {
        service["spec"][field] = value.clone();
    }
    service
}

#[tokio::test]
async fn a_service_has_an_address_of_its_own() {
    let w = world();
    let made = w.must(&format!("POST {SERVICES}"), service("a", json!({}))).await;
    let ip = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(ip.starts_with("10."), "{ip}");
    assert_eq!((&made["spec"]["clusterIPs"], &made["spec"]["ports"][0]["targetPort"]), (&json!([ip]), &json!(80)));
    assert_eq!(made["status"], json!({"loadBalancer": {}}));
    assert_eq!(
        w.ask(&format!("POST {SERVICES}"), service("b", json!({"clusterIP": ip}))).await.show(),
        format!(
            "422 Invalid: Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"{ip}\"]: failed to allocate IP {ip}: provided IP is already allocated"
        )
    );
    // Replaced by a client that never heard of the address.
    let again = w.must(&format!("PUT {SERVICES}/a"), service("a", json!({"externalTrafficPolicy": Value::Null}))).await;
    assert_eq!(again["spec"]["clusterIP"], ip);
    assert_eq!(again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"], "nothing changed");
    let said = w.ask(&format!("PATCH {SERVICES}/a"), json!({"spec": {"clusterIP": "10.96.0.77"}})).await;
    assert!(said.show().contains("may not change once set"), "{}", said.show());
    let opened = w.must(&format!("PATCH {SERVICES}/a"), json!({"spec": {"type": "NodePort"}})).await;
    assert!(opened["spec"]["ports"][0]["nodePort"].as_i64().is_some_and(|n| (30000..=32767).contains(&n)), "{opened}");
    let closed = w.must(&format!("PATCH {SERVICES}/a"), json!({"spec": {"type": "ClusterIP"}})).await;
    assert!(closed["spec"]["ports"][0].get("nodePort").is_none(), "{closed}");
    w.must(&format!("DELETE {SERVICES}/a"), Value::Null).await;
    assert_eq!(w.must(&format!("POST {SERVICES}"), service("b", json!({"clusterIP": ip}))).await["spec"]["clusterIP"], ip);
    let found = w.must(&format!("GET {SERVICES}?fieldSelector=spec.clusterIP%3D{ip}"), Value::Null).await;
    assert_eq!(found["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn many_at_once_do_not_get_the_same() {
    let w = Arc::new(world());
    let tasks: Vec<_> = (0..24)
        .map(|n| {
            let w = w.clone();
            tokio::spawn(async move {
                let spec = if n % 2 == 0 { json!({"type": "NodePort"}) } else { json!({"clusterIP": "10.96.0.50"}) };
                w.ask(&format!("POST {SERVICES}"), service(&format!("s{n}"), spec)).await
            })
        })
        .collect();
    let (mut addresses, mut ports, mut refused) = (Vec::new(), Vec::new(), 0);
    for task in tasks {
        let answer = task.await.unwrap();
        match answer.code {
            201 => {
                addresses.push(answer.value["spec"]["clusterIP"].to_string());
                ports.extend(answer.value["spec"]["ports"][0]["nodePort"].as_i64());
            }
            422 => refused += 1,
            other => panic!("{other}: {}", answer.show()),
        }
    }
    let count = addresses.len();
    addresses.sort();
    addresses.dedup();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!((count, addresses.len(), ports.len(), refused), (13, 13, 12, 11), "one of twelve got the address that all named");
}

#[tokio::test]
async fn an_autoscaler_in_two_versions() {
    let w = world();
    let v1 = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let v2 = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let old = json!({"apiVersion": "autoscaling/v1", "metadata": {"name": "web"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 5, "targetCPUUtilizationPercentage": 60}});
    let made = w.must(&format!("POST {v1}"), old.clone()).await;
    assert_eq!((&made["apiVersion"], &made["spec"]["targetCPUUtilizationPercentage"]), (&json!("autoscaling/v1"), &json!(60)));
    let new = w.must(&format!("GET {v2}/web"), Value::Null).await;
    assert_eq!(new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
    assert_eq!((&new["apiVersion"], &new["spec"]["minReplicas"]), (&json!("autoscaling/v2"), &json!(1)));
    let memory =
        json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    let metrics = json!([new["spec"]["metrics"][0], memory]);
    w.must(&format!("PATCH {v2}/web"), json!({"spec": {"metrics": metrics}})).await;
    // Who only knows the old version changes one number and keeps the rest.
    w.must(&format!("PATCH {v1}/web"), json!({"spec": {"targetCPUUtilizationPercentage": 40}})).await;
    let new = w.must(&format!("GET {v2}/web"), Value::Null).await;
    assert_eq!(new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 40);
    assert_eq!(new["spec"]["metrics"][1], memory);
    assert!(new["metadata"].get("annotations").is_none(), "{new}");
    for (path, version) in [(v1, "autoscaling/v1"), (v2, "autoscaling/v2")] {
        let list = w.must(&format!("GET {path}"), Value::Null).await;
        assert_eq!((&list["apiVersion"], &list["items"][0]["apiVersion"]), (&json!(version), &json!(version)));
        let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
        let table = w.send(Some(&Identity::admin()), &format!("GET {path}/web"), &table, "").await.value;
        assert_eq!(table["rows"][0]["cells"][2], "cpu: <unknown>/40%, memory: <unknown>/1Gi", "{table}");
    }
    let wrong = w.ask(&format!("POST {v1}"), json!({"metadata": {"name": "x"}, "spec": {"maxReplicas": 1, "metrics": []}})).await;
    assert!(
        wrong.headers.get("warning").is_some() || wrong.code == 422,
        "what v1 does not have is unknown there: {}",
        wrong.show()
    );
    w.must(&format!("DELETE {v1}/web"), Value::Null).await;
    assert_eq!(w.ask(&format!("GET {v2}/web"), Value::Null).await.code, 404);
}

#[tokio::test]
async fn an_event_in_two_groups() {
    let w = world();
    let (core, events) = ("/api/v1/namespaces/default/events", "/apis/events.k8s.io/v1/namespaces/default/events");
    let event = json!({"metadata": {"name": "web.1"}, "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default"},
        "reason": "Started", "message": "Started container web", "type": "Normal", "source": {"component": "kubelet"}, "count": 2});
    w.must(&format!("POST {core}"), event).await;
    let shown = w.must(&format!("GET {events}/web.1"), Value::Null).await;
    assert_eq!((&shown["note"], &shown["regarding"]["name"]), (&json!("Started container web"), &json!("web")));
    assert_eq!((&shown["deprecatedSource"]["component"], &shown["deprecatedCount"]), (&json!("kubelet"), &json!(2)));
    let found = w.ask(&format!("GET {events}?fieldSelector=regarding.name%3Dweb%2Creason%3DStarted"), Value::Null).await;
    assert_eq!(found.names(), ["web.1"]);
    let found = w.ask(&format!("GET {core}?fieldSelector=involvedObject.name%3Dweb%2Csource%3Dkubelet"), Value::Null).await;
    assert_eq!(found.names(), ["web.1"]);
    assert_eq!(w.ask(&format!("GET {events}?fieldSelector=involvedObject.name%3Dweb"), Value::Null).await.code, 400);
    let new = json!({"metadata": {"name": "web.2"}, "regarding": {"kind": "Pod", "name": "web", "namespace": "default"}, "note": "Moored",
        "reason": "Moored", "type": "Normal", "action": "Mooring", "reportingController": "example.com/x", "reportingInstance": "x-1",
        "eventTime": "2026-11-21T10:00:00.000000Z"});
    w.must(&format!("POST {events}"), new).await;
    assert_eq!(w.must(&format!("GET {core}/web.2"), Value::Null).await["message"], "Moored");
}

#[tokio::test]
async fn a_job_knows_its_pods_and_a_claim_its_class() {
    let w = world();
    let job = json!({"metadata": {"name": "import"}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "a", "image": "a:1"}]}}}});
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let made = w.must(&format!("POST {jobs}"), job.clone()).await;
    let uid = &made["metadata"]["uid"];
    assert_eq!(&made["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], uid);
    assert_eq!(made["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"], "import");
    assert_eq!(&made["metadata"]["labels"]["controller-uid"], uid);
    assert_eq!((&made["spec"]["completions"], &made["spec"]["backoffLimit"]), (&json!(1), &json!(6)));
    let said = w.ask(&format!("PATCH {jobs}/import"), json!({"spec": {"completions": 4}})).await;
    assert!(said.show().contains("spec.completions: Invalid value: 4: field is immutable"), "{}", said.show());
    w.must(
        "POST /apis/storage.k8s.io/v1/storageclasses",
        json!({"metadata": {"name": "slow", "annotations": {
        "storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "example.com/disk"}),
    )
    .await;
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let made = w.must("POST /api/v1/namespaces/default/persistentvolumeclaims", claim).await;
    assert_eq!((&made["spec"]["storageClassName"], &made["status"]["phase"]), (&json!("slow"), &json!("Pending")));
}

#[tokio::test]
async fn scale_is_the_same_for_all() {
    let w = world();
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}});
    let labels = json!({"matchLabels": {"app": "web"}});
    for (path, selector) in [
        ("/apis/apps/v1/namespaces/default/deployments", labels.clone()),
        ("/apis/apps/v1/namespaces/default/replicasets", labels.clone()),
        ("/apis/apps/v1/namespaces/default/statefulsets", labels),
        ("/api/v1/namespaces/default/replicationcontrollers", json!({"app": "web"})),
    ] {
        let object = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": selector, "template": template}});
        w.must(&format!("POST {path}"), object).await;
        let scale = w.must(&format!("GET {path}/web/scale"), Value::Null).await;
        assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(2), &json!("app=web")), "{path}");
        w.must(&format!("PATCH {path}/web/scale"), json!({"spec": {"replicas": 5}})).await;
        let live = w.must(&format!("GET {path}/web"), Value::Null).await;
        assert_eq!((&live["spec"]["replicas"], &live["metadata"]["generation"]), (&json!(5), &json!(2)), "{path}");
    }
}

#[tokio::test]
async fn nothing_is_created_where_no_namespace_is_or_stays() {
    let w = world();
    w.must("POST /api/v1/namespaces", json!({"metadata": {"name": "leaving"}})).await;
    w.must("DELETE /api/v1/namespaces/leaving", Value::Null).await;
    let mut tried = 0;
    for kind in Kind::all_stored().filter(|kind| kind.namespaced) {
        let Some(manifest) = manifest(kind) else { continue };
        let base = if kind.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}/{}", kind.group, kind.version) };
        let into = |namespace: &str| format!("POST {base}/namespaces/{namespace}/{}", kind.plural);
        let said = w.ask(&into("leaving"), manifest.clone()).await;
        assert_eq!(
            (said.code, said.value["details"]["causes"][0]["reason"].as_str()),
            (403, Some("NamespaceTerminating")),
            "{}",
            said.show()
        );
        let said = w.ask(&into("nowhere"), manifest.clone()).await;
        assert_eq!(said.show(), "404 NotFound: namespaces \"nowhere\" not found", "{kind:?}");
        w.must(&into("shop"), manifest).await;
        tried += 1;
    }
    assert!(tried >= 16, "{tried}");
}

/// A manifest of a kind out of those that the tests of kubectl apply.
fn manifest(kind: &Kind) -> Option<Value> {
    let file = format!("{}/tests/kinds/{}.yaml", env!("CARGO_MANIFEST_DIR"), kind.singular);
    let text = std::fs::read_to_string(file).ok()?;
    let document = serde_yaml::Deserializer::from_str(&text).next()?;
    let value: Value = serde::Deserialize::deserialize(document).ok()?;
    (value["kind"] == kind.kind && value["apiVersion"] == kind.api_version()).then_some(value)
}
