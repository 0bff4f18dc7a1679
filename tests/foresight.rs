//! What `portolan plan` says is what then happens: objects, hosts of the new pods, which pods go, what is pruned.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Cluster, eventually, items, text};

fn deployment(name: &str, replicas: usize, image: &str, cpu: &str) -> String {
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  strategy: {{rollingUpdate: {{maxSurge: 1, maxUnavailable: 0}}}}\n  template:\n    \
         metadata: {{labels: {{app: {name}}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n        \
         - {{name: main, image: \"{image}\", resources: {{requests: {{cpu: {cpu}}}}}}}\n"
    )
}

const REST: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: shop}
stringData: {word: WORD}
";

/// Pods by name: their Deployment and host.
fn pods(cluster: &Cluster) -> BTreeMap<String, (String, String)> {
    let list = cluster.json(&["get", "pods", "-n", "shop"]);
    let one = |pod: &Value| {
        let word = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let workload = format!("Deployment shop/{}", word(&pod["metadata"]["labels"]["app"]));
        (word(&pod["metadata"]["name"]), (workload, word(&pod["spec"]["nodeName"])))
    };
    items(&list).filter(|p| p["metadata"]["deletionTimestamp"].is_null()).map(one).collect()
}

fn counted<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (workload, node) in pairs {
        *counts.entry(format!("{workload} on {node}")).or_default() += 1;
    }
    counts
}

#[test]
fn a_plan_is_what_then_happens() {
    let mut cluster = Cluster::start("127.0.0.1", &[]);
    for node in ["a", "b", "c"] {
        cluster.start_simulated(node);
    }
    cluster.await_nodes(3);
    let before = [
        deployment("web", 3, "sim/web:v1", "500m"),
        deployment("api", 2, "sim/api:v1", "1"),
        deployment("old", 1, "sim/old:v1", "100m"),
    ];
    cluster.repo.write("apps/shop.yaml", &format!("{}{}", REST.replace("WORD", "tide"), before.concat()));
    let first = cluster.repo.push("Before");
    assert_eq!(cluster.wait(&first, 60), 0);
    let was = pods(&cluster);

    // Grown, updated, new and gone, and a changed secret.
    let after = [
        deployment("web", 5, "sim/web:v1", "500m"),
        deployment("api", 2, "sim/api:v2", "1"),
        deployment("new", 2, "sim/new:v1", "200m"),
    ];
    cluster.repo.write("apps/shop.yaml", &format!("{}{}", REST.replace("WORD", "ebb"), after.concat()));
    let out = cluster.output(&["plan", "--to", "WORKTREE", "-o", "json", "--detailed-exitcode"]);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
    let plan: Value = serde_json::from_slice(&out.stdout).expect("plan prints JSON");
    assert!(!plan.to_string().contains("ebb") && !plan.to_string().contains("ZWJi"), "no secret is printed");
    let human = cluster.output(&["plan", "--to", "WORKTREE"]);
    assert!(!text(&human.stdout).contains("ZWJi") && text(&human.stdout).contains("*** (after)"), "{}", text(&human.stdout));
    let second = cluster.repo.push("After");
    assert_eq!(cluster.wait(&second, 90), 0);

    let is = pods(&cluster);
    let moves = |field: &str| plan[field].as_array().cloned().unwrap_or_default();
    let word = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let started = is.iter().filter(|(name, _)| !was.contains_key(*name)).map(|(_, (w, n))| (w.as_str(), n.as_str()));
    let foreseen: Vec<(String, String)> = moves("placement").iter().map(|m| (word(m, "workload"), word(m, "node"))).collect();
    assert_eq!(counted(foreseen.iter().map(|(w, n)| (w.as_str(), n.as_str()))), counted(started), "pods that start");
    let mut stopped: Vec<String> = was.keys().filter(|name| !is.contains_key(*name)).cloned().collect();
    let mut told: Vec<String> = moves("leaving").iter().map(|m| word(m, "pod")).collect();
    stopped.sort();
    told.sort();
    assert_eq!(told, stopped, "pods that stop");
    assert_eq!(moves("prune").iter().map(|p| word(p, "name")).collect::<Vec<_>>(), ["old"]);
    let changed: Vec<String> = moves("waves")
        .iter()
        .flat_map(|w| w["changes"].as_array().unwrap())
        .map(|c| format!("{} {}", word(c, "action"), word(c, "name")))
        .collect();
    assert_eq!(changed, ["patch key", "patch api", "create new", "patch web"]);

    // Nothing is left to do, and diff(1) agrees.
    let out = cluster.output(&["plan", "--detailed-exitcode"]);
    assert_eq!(out.status.code(), Some(0), "{}{}", text(&out.stdout), text(&out.stderr));
    assert_eq!(cluster.output(&["diff"]).status.code(), Some(0));
    // The same, offline, from what `get` prints: the two revisions and a picture of the hosts.
    let picture = cluster.output(&["get", "nodes", "-o", "json"]);
    std::fs::write(cluster.dir.join("nodes.json"), &picture.stdout).unwrap();
    let nodes = cluster.dir.join("nodes.json").display().to_string();
    let out = cluster.output(&["plan", "--from", &first, "--to", &second, "--path", "apps", "--cluster", &nodes, "-o", "json"]);
    let offline: Value = serde_json::from_slice(&out.stdout).expect("plan prints JSON");
    assert_eq!(offline["totals"], plan["totals"], "{offline:#}");
    assert_eq!(offline["placement"].as_array().map(Vec::len), plan["placement"].as_array().map(Vec::len));
}

#[test]
fn a_plan_knows_that_what_an_overtaken_trial_created_goes() {
    let mut cluster = Cluster::start("127.0.0.1", &[]);
    cluster.start_simulated("a");
    cluster.await_nodes(1);
    let web = |image: &str| format!("{}{}", REST.replace("WORD", "tide"), deployment("web", 1, image, "100m"));
    cluster.repo.write("apps/shop.yaml", &web("sim/web:v1"));
    let good = cluster.repo.push("Good");
    assert_eq!(cluster.wait(&good, 60), 0);

    // More than half of all objects, and none of them gets well.
    let probe = "readinessProbe: {exec: {command: [ready]}, periodSeconds: 1}, resources:";
    let unready = |n: usize| deployment(&format!("new-{n}"), 1, "sim/unready:v1", "10m").replace("resources:", probe);
    let trial: String = (0..5).map(unready).collect();
    cluster.repo.write("apps/shop.yaml", &format!("{}{trial}", web("sim/web:v1")));
    cluster.repo.push("Never ready");
    let names = |cluster: &Cluster| {
        let list = cluster.json(&["get", "deployments", "-n", "shop"]);
        items(&list).map(|d| d["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    eventually(30, "the trial is there", || (names(&cluster).len() == 6).then_some(()));

    cluster.repo.write("apps/shop.yaml", &web("sim/web:v2"));
    let out = cluster.output(&["plan", "--to", "WORKTREE", "-o", "json"]);
    let plan: Value = serde_json::from_slice(&out.stdout).expect("plan prints JSON");
    let told: Vec<_> = plan["prune"].as_array().into_iter().flatten().map(|p| p["name"].clone()).collect();
    assert_eq!((told.len(), &plan["kept"]), (5, &serde_json::json!([])), "{plan:#}");
    let mended = cluster.repo.push("Mended");
    assert_eq!(cluster.wait(&mended, 60), 0);
    assert_eq!(names(&cluster), ["web"]);
}
