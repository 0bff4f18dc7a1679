//! Tests of looking ahead.

use serde_json::json;

use super::world::{name_of, read};
use super::*;
use crate::object::fields::Fields;
use crate::object::{Kind, admit};
use crate::plan::rollout::{active, ready};

fn node(name: &str, cpu: &str) -> Node {
    let amounts = json!({"cpu": cpu, "memory": "8Gi", "pods": "110"});
    read(&json!({"metadata": {"name": name}, "status": {"allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]}})).unwrap()
}

fn deployment(name: &str, replicas: i32, image: &str, cpu: &str, strategy: Value) -> (Key, Value) {
    let kind = Kind::of("apps/v1", "Deployment").unwrap();
    let mut value = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "strategy": strategy,
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image, "resources": {"requests": {"cpu": cpu}}}]},
            },
        },
    });
    admit::prepare(kind, &mut value);
    (Key::new(kind, "shop", name), value)
}

fn world(nodes: &[Node], before: Vec<(Key, Value)>, waves: Vec<Vec<(Key, Value)>>, prune: Vec<Key>) -> String {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let input = |before: Before, waves, prune| {
        let picture = picture(nodes, &before);
        Input { before, picture, waves, prune, strategy: Strategy::Spread, seed: 0, now }
    };
    let before = grown(input(Before::default(), vec![before], vec![]));
    // Who runs well may be known as a resident: it makes no difference.
    let text = shown(&foresee(input(settled(before.clone()), waves.clone(), prune.clone())));
    assert_eq!(text, shown(&foresee(input(before, waves, prune))));
    text
}

/// The same with residents, of which only is known what is asked for.
fn settled(mut before: Before) -> Before {
    let fields = Fields::parse(&READ.join(",")).unwrap();
    before.pods.retain(|pod| {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty());
        let Some(node) = node.filter(|_| active(pod) && ready(pod)) else { return true };
        let mut part = Vec::new();
        assert!(fields.cut(serde_json::to_value(&**pod).unwrap().to_string().as_bytes(), &mut part));
        before.residents.push(Resident {
            name: name_of(&pod.metadata),
            node: node.into(),
            common: Arc::new(Common::of(&serde_json::from_slice(&part).unwrap())),
            since: pod.metadata.creation_timestamp.as_ref().map(|t| t.0),
            json: part.into(),
        });
        false
    });
    before
}

fn shown(seen: &Foreseen) -> String {
    let mut text = String::new();
    let on = |moves: &[Move]| {
        let mut sorted: Vec<String> = moves.iter().map(|m| format!("{} on {}", m.workload, m.node)).collect();
        sorted.sort();
        sorted.join("; ")
    };
    text += &format!("starts: {}\nstops: {}\n", on(&seen.starts), on(&seen.stops));
    for wait in &seen.waiting {
        text += &format!("{} of {} wait: {}\n", wait.pods, wait.workload, wait.why);
    }
    for e in &seen.workloads {
        text +=
            &format!("{}: {} wanted, at least {} serve, at most {} pods\n", e.workload, e.replicas, e.least_available, e.most);
    }
    text
}

#[test]
fn new_pods_spread_and_those_without_room_wait() {
    let nodes = [node("a", "2"), node("b", "2")];
    let web = deployment("web", 3, "web:1", "1", json!({}));
    let big = deployment("big", 2, "big:1", "1500m", json!({}));
    expect_test::expect![[r#"
        starts: Deployment shop/big on a; Deployment shop/big on b
        stops: 
        3 of Deployment shop/web wait: 0/2 nodes are available: 2 Insufficient cpu.
        Deployment shop/big: 2 wanted, at least 0 serve, at most 2 pods
        Deployment shop/web: 3 wanted, at least 0 serve, at most 3 pods
    "#]]
    .assert_eq(&world(&nodes, vec![], vec![vec![web, big]], vec![]));
}

#[test]
fn an_update_keeps_serving_and_a_prune_stops() {
    let nodes = [node("a", "8"), node("b", "8")];
    let careful = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let before = deployment("web", 3, "web:1", "1", careful.clone());
    let old = deployment("old", 1, "old:1", "1", json!({}));
    let gone = old.0.clone();
    let after = deployment("web", 3, "web:2", "1", careful);
    let text = world(&nodes, vec![before, old], vec![vec![after]], vec![gone]);
    expect_test::expect![[r#"
        starts: Deployment shop/web on a; Deployment shop/web on b; Deployment shop/web on b
        stops: Deployment shop/old on a; Deployment shop/web on a; Deployment shop/web on b; Deployment shop/web on b
        Deployment shop/old: 0 wanted, at least 0 serve, at most 1 pods
        Deployment shop/web: 3 wanted, at least 3 serve, at most 4 pods
    "#]]
    .assert_eq(&text);
}

#[test]
fn recreate_stops_first() {
    let nodes = [node("a", "1")];
    let before = deployment("db", 1, "db:1", "1", json!({"type": "Recreate"}));
    let after = deployment("db", 1, "db:2", "1", json!({"type": "Recreate"}));
    expect_test::expect![[r#"
        starts: Deployment shop/db on a
        stops: Deployment shop/db on a
        Deployment shop/db: 1 wanted, at least 0 serve, at most 1 pods
    "#]]
    .assert_eq(&world(&nodes, vec![before], vec![vec![after]], vec![]));
}

#[test]
fn more_important_pods_make_others_go() {
    let nodes = [node("a", "2"), node("b", "2")];
    let class = Kind::of("scheduling.k8s.io/v1", "PriorityClass").unwrap();
    let high = (Key::new(class, "", "high"), json!({"metadata": {"name": "high"}, "value": 5}));
    let web = deployment("web", 4, "web:1", "1", json!({}));
    let mut db = deployment("db", 1, "db:1", "1500m", json!({}));
    db.1["spec"]["template"]["spec"]["priorityClassName"] = json!("high");
    expect_test::expect![[r#"
        starts: Deployment shop/db on a
        stops: Deployment shop/web on a; Deployment shop/web on a
        2 of Deployment shop/web wait: 0/2 nodes are available: 2 Insufficient cpu.
        Deployment shop/db: 1 wanted, at least 0 serve, at most 1 pods
        Deployment shop/web: 4 wanted, at least 2 serve, at most 4 pods
    "#]]
    .assert_eq(&world(&nodes, vec![web], vec![vec![high], vec![db]], vec![]));
}
