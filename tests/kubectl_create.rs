//! What the real kubectl sends in protobuf: every `kubectl create …`, and the options of deletions and evictions.

use crate::support::{Cluster, items};

#[test]
fn create_commands() {
    let cluster = Cluster::start("127.0.0.1", &[]);
    let create = |line: &str, said: &str| {
        let mut words = vec!["create"];
        // A schedule is one word of five.
        let line = line.replace("0 0 * * *", "0_0_*_*_*");
        let spaced: Vec<String> = line
            .split(' ')
            .map(|word| if word.starts_with("--schedule") { word.replace('_', " ") } else { word.to_owned() })
            .collect();
        words.extend(spaced.iter().map(String::as_str));

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
    create("service clusterip web --tcp=80:8080 -n shop", "service/web created");
    let web = cluster.json(&["get", "service", "web", "-n", "shop"]);
    let port = &web["spec"]["ports"][0];
    assert_eq!((&port["port"], &port["targetPort"], &port["protocol"]), (&80.into(), &8080.into(), &"TCP".into()));
    create("service nodeport open --tcp=80 --node-port=30080 -n shop", "service/open created");
    assert_eq!(cluster.json(&["get", "service", "open", "-n", "shop"])["spec"]["ports"][0]["nodePort"], 30080);
    create("service externalname far --external-name=far.example -n shop", "service/far created");
    create("job once --image=sim/web:1 -n shop", "job.batch/once created");
    create("cronjob daily --image=sim/web:1 --schedule=0 0 * * * -n shop", "cronjob.batch/daily created");
    create("quota few --hard=pods=5,cpu=2 -n shop", "resourcequota/few created");
    assert_eq!(
        cluster.json(&["get", "quota", "few", "-n", "shop"])["spec"]["hard"],
        serde_json::json!({"cpu": "2", "pods": "5"})
    );
    create("poddisruptionbudget web --selector=app=web --min-available=50% -n shop", "poddisruptionbudget.policy/web created");
    assert_eq!(cluster.json(&["get", "pdb", "web", "-n", "shop"])["spec"]["minAvailable"], "50%");
    create("ingress web --rule=shop.example/=web:80 -n shop", "ingress.networking.k8s.io/web created");
    create("priorityclass high --value=1000 --description=first", "priorityclass.scheduling.k8s.io/high created");
    create("serviceaccount robot -n shop", "serviceaccount/robot created");
    create("role reader --verb=get,list --resource=pods -n shop", "role.rbac.authorization.k8s.io/reader created");
    create(
        "rolebinding readers --role=reader --serviceaccount=shop:robot -n shop",
        "rolebinding.rbac.authorization.k8s.io/readers created",
    );
    create("clusterrole watcher --verb=watch --resource=nodes", "clusterrole.rbac.authorization.k8s.io/watcher created");
    create(
        "clusterrolebinding watchers --clusterrole=watcher --user=joe",
        "clusterrolebinding.rbac.authorization.k8s.io/watchers created",
    );
    let binding = cluster.json(&["get", "clusterrolebinding", "watchers"]);
    assert_eq!(binding["subjects"][0]["name"], "joe");
    cluster.kubectl(&["autoscale", "deployment", "web", "--min=1", "--max=3", "--cpu-percent=80", "-n", "shop"]);
    assert_eq!(cluster.json(&["get", "hpa", "web", "-n", "shop"])["spec"]["maxReplicas"], 3);
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
