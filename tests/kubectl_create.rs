//! What the real kubectl sends in protobuf: every `kubectl create …`, and the options of deletions and evictions.

use crate::support::{Cluster, items};

#[test]
fn create_commands() {
    let cluster = Cluster::start("127.0.0.1", &[]);
    let create = |line: &str, said: &str| {
        let mut words = vec!["create"];
        words.extend(line.split(' '));

        assert!(cluster.kubectl(&words).contains(said), "{line}");
    };
    create("namespace shop", "namespace/shop created");
    create("configmap app --from-literal=mode=fast --from-literal=empty= -n shop", "configmap/app created");
    assert_eq!(
        cluster.json(&["get", "configmap", "app", "-n", "shop"])["data"],
        serde_json::json!({"mode": "fast", "empty": ""})
    );
    create("secret generic token --from-literal=key=abc -n shop", "secret/token created");
    assert_eq!(cluster.json(&["get", "secret", "token", "-n", "shop"])["data"]["key"], "YWJj");
    create(
        "secret docker-registry pull --docker-username=u --docker-password=p --docker-server=r.example -n shop",
        "secret/pull created",
    );
    create("deployment web --image=sim/web:1 --replicas=0 --port=80 -n shop", "deployment.apps/web created");
    let web = cluster.json(&["get", "deployment", "web", "-n", "shop"]);
    assert_eq!(web["spec"]["replicas"], 0);
    let container = &web["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["ports"], serde_json::json!([{"containerPort": 80, "protocol": "TCP"}]));
    assert_eq!(container["image"], "sim/web:1");
    // What a server says to a body that it cannot take is Kubernetes' own as well.
    let again = cluster.try_kubectl(&["create", "namespace", "shop"]);
    assert!(crate::support::text(&again.stderr).contains("AlreadyExists"), "{again:?}");
    let wrong = cluster.try_kubectl(&["create", "configmap", "Wrong_1", "-n", "shop"]);
    assert!(crate::support::text(&wrong.stderr).contains("a lowercase RFC 1123 subdomain must consist of"), "{wrong:?}");
    assert_eq!(items(&cluster.json(&["get", "configmaps", "-n", "shop"])).filter(|c| c["metadata"]["name"] == "app").count(), 1);
}

#[test]
fn drain_sends_its_options_in_protobuf() {
    let mut cluster = Cluster::start("127.0.0.1", &[]);
    cluster.start_simulated("n1");
    cluster.await_nodes(1);
    cluster.kubectl(&["run", "p", "--image=sim/web:1", "--grace-period=1"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    cluster.kubectl(&["drain", "n1", "--force", "--grace-period=1", "--timeout=60s"]);
    assert_eq!(items(&cluster.json(&["get", "pods"])).count(), 0);
    assert_eq!(cluster.json(&["get", "node", "n1"])["spec"]["unschedulable"], true);
}
