//! The real kubectl against a real server, with simulated hosts: people's own commands must feel at home.

use crate::support::{Cluster, condition, eventually, items, text};

fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::start("127.0.0.1", &[]);
    for n in 1..=nodes {
        cluster.start_simulated(&format!("n{n}"));
    }
    cluster.await_nodes(nodes);
    cluster
}

const WEB: &str = r"apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: sim/web:1
          ports: [{containerPort: 80}]
          readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
";

#[test]
fn apply_get_describe_scale_rollout_and_delete() {
    let cluster = cluster(2);
    let file = cluster.dir.join("web.yaml");
    let file = file.to_str().unwrap();
    std::fs::write(file, WEB).unwrap();

    assert_eq!(cluster.kubectl(&["apply", "-f", file]).trim(), "deployment.apps/web created");
    assert_eq!(cluster.kubectl(&["apply", "-f", file]).trim(), "deployment.apps/web unchanged");
    assert_eq!(cluster.kubectl(&["diff", "-f", file]), "", "defaults are Kubernetes' own");
    let said = cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert!(said.contains("successfully rolled out"), "{said}");

    let table = cluster.kubectl(&["get", "deployments"]);
    let words: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(words, ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]);
    assert!(table.lines().nth(1).unwrap().contains("2/2"), "{table}");
    let wide = cluster.kubectl(&["get", "pods", "-o", "wide"]);
    assert!(wide.contains("Running") && wide.contains("1/1") && wide.contains("n1") && wide.contains("n2"), "{wide}");
    let described = cluster.kubectl(&["describe", "deployment", "web"]);
    assert!(described.contains("2 desired | 2 updated | 2 total | 2 available"), "{described}");
    assert!(described.contains("ScalingReplicaSet"), "{described}");
    let pod = cluster.kubectl(&["get", "pods", "-o", "name"]).lines().next().unwrap().to_owned();
    let described = cluster.kubectl(&["describe", &pod]);
    for word in ["Node:", "Ready", "sim/web:1", "Scheduled", "Started"] {
        assert!(described.contains(word), "{word}: {described}");
    }

    cluster.kubectl(&["scale", "deployment/web", "--replicas=3"]);
    eventually(30, "three replicas", || {
        (cluster.json(&["get", "deployment", "web"])["status"]["readyReplicas"] == 3).then_some(())
    });
    cluster.kubectl(&["set", "image", "deployment/web", "web=sim/web:2"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let history = cluster.kubectl(&["rollout", "history", "deployment/web"]);
    assert!(history.lines().filter(|l| l.starts_with(|c: char| c.is_ascii_digit())).count() == 2, "{history}");
    cluster.kubectl(&["rollout", "undo", "deployment/web"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let web = cluster.json(&["get", "deployment", "web"]);
    assert_eq!(web["spec"]["template"]["spec"]["containers"][0]["image"], "sim/web:1");

    cluster.kubectl(&["delete", "deployment", "web", "--timeout=60s"]);
    eventually(60, "no pod is left", || (items(&cluster.json(&["get", "pods"])).count() == 0).then_some(()));
    assert_eq!(items(&cluster.json(&["get", "replicasets"])).count(), 0);
}

#[test]
fn wrong_manifests_are_refused_in_kubernetes_words() {
    let cluster = cluster(0);
    let file = cluster.dir.join("wrong.yaml");
    let apply = |manifest: &str| {
        std::fs::write(&file, manifest).unwrap();
        let out = cluster.try_kubectl(&["apply", "-f", file.to_str().unwrap()]);
        assert!(!out.status.success(), "{}", text(&out.stdout));
        text(&out.stderr)
    };
    let said = apply(&WEB.replace("replicas:", "replica:"));
    assert!(said.contains("unknown field \"spec.replica\""), "{said}");
    let said = apply(&WEB.replace("replicas: 2", "replicas: -1"));
    assert!(said.contains("spec.replicas: Invalid value: -1: must be greater than or equal to 0"), "{said}");
    let said = apply(&WEB.replace("selector: {matchLabels: {app: web}}", "selector: {matchLabels: {app: other}}"));
    assert!(said.contains("`selector` does not match template `labels`"), "{said}");
    let said = apply(&WEB.replace("name: web\n  labels", "name: Web_1\n  labels"));
    assert!(said.contains("a lowercase RFC 1123 subdomain must consist of"), "{said}");
    assert_eq!(items(&cluster.json(&["get", "deployments"])).count(), 0);
}

#[test]
fn namespaces_config_and_secrets_live_and_go() {
    let cluster = cluster(1);
    let file = cluster.dir.join("shop.yaml");
    let file = file.to_str().unwrap();
    std::fs::write(
        file,
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: shop}\ndata: {a: b}\n\
         ---\napiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: shop}\nstringData: {token: abc}\n\
         ---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\nspec: {containers: [{name: c, image: \"sim/web:1\"}], terminationGracePeriodSeconds: 1}\n",
    )
    .unwrap();
    cluster.kubectl(&["apply", "-f", file]);
    cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", file]);
    assert_eq!(cluster.json(&["get", "secret", "s", "-n", "shop"])["data"]["token"], "YWJj");
    let described = cluster.kubectl(&["describe", "secret", "s", "-n", "shop"]);
    assert!(described.contains("token:  3 bytes"), "{described}");
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/p", "-n", "shop", "--timeout=30s"]);
    cluster.kubectl(&["label", "configmap", "c", "-n", "shop", "tier=front"]);
    assert!(cluster.kubectl(&["get", "cm", "-A", "-l", "tier=front"]).contains("shop"));
    cluster.kubectl(&["delete", "namespace", "shop", "--timeout=60s"]);
    let out = cluster.try_kubectl(&["get", "namespace", "shop"]);
    assert!(text(&out.stderr).contains("NotFound"), "{}", text(&out.stderr));
    assert_eq!(items(&cluster.json(&["get", "pods", "-A"])).count(), 0);
}

#[test]
fn watches_logs_and_server_side_apply() {
    let cluster = cluster(1);
    let pod = cluster.dir.join("pod.yaml");
    std::fs::write(
        &pod,
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: \"sim/web:1\"}]}\n",
    )
    .unwrap();
    let pod = pod.to_str().unwrap();
    cluster.kubectl(&["apply", "--server-side", "-f", pod]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/p", "--timeout=30s"]);
    assert!(!cluster.kubectl(&["logs", "p"]).is_empty());
    let managed = cluster.json(&["get", "pod", "p", "--show-managed-fields"]);
    let managers: Vec<_> =
        managed["metadata"]["managedFields"].as_array().into_iter().flatten().map(|m| (&m["manager"], &m["operation"])).collect();
    assert!(managers.contains(&(&"kubectl".into(), &"Apply".into())), "{managers:?}");
    assert_eq!(condition(&cluster.json(&["get", "pod", "p"]), "Ready"), "True");
    cluster.kubectl(&["delete", "-f", pod, "--grace-period=1", "--timeout=60s"]);
}

#[test]
fn nothing_is_open_without_a_credential() {
    let cluster = cluster(0);
    let ask = |path: &str, extra: &[&str]| {
        let url = format!("{}{path}", cluster.url);
        let out = std::process::Command::new("curl")
            .args(["-sk", "-o", "/dev/null", "-w", "%{http_code}"])
            .args(extra)
            .arg(url)
            .output()
            .unwrap();
        text(&out.stdout)
    };
    for path in [
        "/api/v1/pods",
        "/api/v1/namespaces/default/secrets",
        "/apis",
        "/api",
        "/openapi/v3",
        "/apis/portolan.dev/v1alpha1/applications",
    ] {
        assert_eq!(ask(path, &[]), "401", "{path}");
        assert_eq!(ask(path, &["-H", "Authorization: Bearer nonsense"]), "401", "{path}");
    }
    assert_eq!(ask("/readyz", &[]), "200");
    assert_eq!(ask("/apis/portolan.dev/v1alpha1/join", &["-X", "POST", "-d", "{}"]), "401");
}
