//! Tables and properties of placing pods. A picture is written in a few words per line:
//!
//! ```text
//! node a cpu 2 mem 4Gi label zone=x taint key=value:NoSchedule
//! pod web on a cpu 500m owner web port 80
//! ```

mod oracle;
mod preempt;
mod rules;

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::{Cluster, Decision, Input, Strategy, place};

/// Nodes and pods of a picture.
pub(super) fn read(picture: &str) -> (Vec<Node>, Vec<Pod>) {
    let (mut nodes, mut pods) = (Vec::new(), Vec::new());
    for line in picture.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words[1];
        let mut rest = words[2..].iter().copied();
        let mut o = json!({"metadata": {"name": name, "namespace": "d", "labels": {}}, "spec": {}, "status": {}});
        if words[0] == "node" {
            o["metadata"]["labels"]["kubernetes.io/hostname"] = json!(name);
            o["status"] = json!({"allocatable": {}, "conditions": [{"type": "Ready", "status": "True"}]});
            while let Some(word) = rest.next() {
                let mut next = || rest.next().expect("a value follows");
                match word {
                    "cpu" => o["status"]["allocatable"]["cpu"] = json!(next()),
                    "mem" => o["status"]["allocatable"]["memory"] = json!(next()),
                    "pods" => o["status"]["allocatable"]["pods"] = json!(next()),
                    "label" => label(&mut o["metadata"]["labels"], next()),
                    "taint" => {
                        let (key, effect) = next().split_once(':').expect("key=value:Effect");
                        let (key, value) = key.split_once('=').unwrap_or((key, ""));
                        push(&mut o["spec"]["taints"], json!({"key": key, "value": value, "effect": effect}));
                    }
                    "cordoned" => o["spec"]["unschedulable"] = json!(true),
                    "notready" => o["status"]["conditions"][0]["status"] = json!("False"),
                    other => panic!("{other}?"),
                }
            }
            nodes.push(serde_json::from_value(o).unwrap());
        } else {
            o["spec"]["containers"] = json!([{"name": "c", "resources": {"requests": {}}}]);
            while let Some(word) = rest.next() {
                let mut next = || rest.next().expect("a value follows");
                let requests = &mut o["spec"]["containers"][0]["resources"]["requests"];
                match word {
                    "cpu" => requests["cpu"] = json!(next()),
                    "mem" => requests["memory"] = json!(next()),
                    "on" => o["spec"]["nodeName"] = json!(next()),
                    "label" => label(&mut o["metadata"]["labels"], next()),
                    "owner" => {
                        let uid = next();
                        o["metadata"]["ownerReferences"] =
                            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": uid, "uid": uid, "controller": true}]);
                    }
                    "select" => label(&mut o["spec"]["nodeSelector"], next()),
                    "port" => {
                        let port: i32 = next().parse().unwrap();
                        push(&mut o["spec"]["containers"][0]["ports"], json!({"containerPort": port, "hostPort": port}));
                    }
                    "tolerate" => push(&mut o["spec"]["tolerations"], json!({"key": next(), "operator": "Exists"})),
                    "never" => o["spec"]["preemptionPolicy"] = json!("Never"),
                    "born" => o["metadata"]["creationTimestamp"] = json!(format!("2026-01-01T00:00:{:0>2}Z", next())),
                    "leaving" => o["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
                    "ready" => o["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]),
                    "in-namespace" => o["metadata"]["namespace"] = json!(next()),
                    // Any field of the spec, as JSON without spaces.
                    "spec" => {
                        let (field, value) = next().split_once('=').expect("field=json");
                        o["spec"][field] = serde_json::from_str(value).expect("JSON");
                    }
                    "priority" => o["spec"]["priority"] = json!(next().parse::<i32>().unwrap()),
                    "in" => {
                        let (key, values) = next().split_once('=').expect("key=a,b");
                        let values: Vec<&str> = values.split(',').collect();
                        let term = json!({"matchExpressions": [{"key": key, "operator": "In", "values": values}]});
                        o["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
                            json!({"nodeSelectorTerms": [term]});
                    }
                    "prefer" => {
                        let (key, value) = next().split_once('=').expect("key=value");
                        let term = json!({"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]});
                        let list = &mut o["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
                        push(list, json!({"weight": 10, "preference": term}));
                    }
                    "near" => push(&mut o["spec"]["affinity"]["podAffinity"][REQUIRED], term(next())),
                    "apart" => push(&mut o["spec"]["affinity"]["podAntiAffinity"][REQUIRED], term(next())),
                    "likes" => {
                        let wish = json!({"weight": 5, "podAffinityTerm": term(next())});
                        push(&mut o["spec"]["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"], wish);
                    }
                    "spread" | "evenly" => {
                        let mut constraint = term(next());
                        constraint["maxSkew"] = json!(1);
                        constraint["whenUnsatisfiable"] =
                            json!(if word == "spread" { "DoNotSchedule" } else { "ScheduleAnyway" });
                        push(&mut o["spec"]["topologySpreadConstraints"], constraint);
                    }
                    other => panic!("{other}?"),
                }
            }
            pods.push(serde_json::from_value(o).unwrap());
        }
    }
    (nodes, pods)
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = json!([item]),
    }
}

fn label(labels: &mut Value, word: &str) {
    let (key, value) = word.split_once('=').expect("key=value");
    labels[key] = json!(value);
}

/// `app=web@zone`: pods with that label, per value of that node label.
fn term(word: &str) -> Value {
    let (labels, topology) = word.split_once('@').expect("key=value@topology");
    let (key, value) = labels.split_once('=').expect("key=value");
    let topology = if topology == "host" { "kubernetes.io/hostname" } else { topology };
    json!({"labelSelector": {"matchLabels": {key: value}}, "topologyKey": topology})
}

/// These nodes, with nothing on them.
fn empty(nodes: &[Node]) -> Cluster {
    let mut cluster = Cluster::new();
    nodes.iter().for_each(|node| cluster.set_node(node));
    cluster
}

/// A decision in a line.
fn told(name: &str, decision: Decision) -> String {
    match decision {
        Decision::Place(node) => format!("{name} -> {node}\n"),
        Decision::Wait(why) => format!("{name} waits: {why}\n"),
    }
}

fn check_with(strategy: Strategy, picture: &str, expect: Expect) {
    let (nodes, pods) = read(picture);
    let input = Input { nodes: nodes.iter().collect(), pods: pods.iter().collect(), strategy, seed: 7 };
    let line = |((_, name), decision): ((String, String), Decision)| told(&name, decision);
    let once: String = place(&input).into_iter().map(line).collect();
    let twice: String = place(&input).into_iter().map(line).collect();
    assert_eq!(once, twice, "SC7");
    expect.assert_eq(&once);
}

fn check(picture: &str, expect: Expect) {
    check_with(Strategy::Spread, picture, expect);
}

#[test]
fn pods_of_one_owner_are_spread_and_the_emptiest_node_is_first() {
    check(
        "node a cpu 4 mem 8Gi
         node b cpu 2 mem 8Gi
         node c cpu 4 mem 8Gi
         pod old on c cpu 1
         pod w1 cpu 500m owner web
         pod w2 cpu 500m owner web
         pod w3 cpu 500m owner web
         pod w4 cpu 500m owner web",
        expect![[r#"
            w1 -> a
            w2 -> b
            w3 -> c
            w4 -> a
        "#]],
    );
}

#[test]
fn the_fullest_node_is_first_with_binpack() {
    let picture = "node a cpu 4 mem 8Gi
         node b cpu 4 mem 8Gi
         pod old on b cpu 1
         pod w1 cpu 2 owner web
         pod w2 cpu 2 owner web
         pod w3 cpu 500m owner web";
    check_with(
        Strategy::Binpack,
        picture,
        expect![[r#"
        w1 -> b
        w2 -> a
        w3 -> b
    "#]],
    );
}

#[test]
fn taking_turns_and_throwing_dice() {
    let picture = "node a cpu 4 mem 8Gi
         node b cpu 4 mem 8Gi
         node c cpu 4 mem 8Gi cordoned
         node d cpu 4 mem 8Gi
         pod w1 owner web
         pod w2 owner web
         pod w3 owner web
         pod w4 owner web
         pod w5 owner web";
    check_with(
        Strategy::RoundRobin,
        picture,
        expect![[r#"
        w1 -> a
        w2 -> b
        w3 -> d
        w4 -> a
        w5 -> b
    "#]],
    );
    check_with(
        Strategy::Random,
        picture,
        expect![[r#"
        w1 -> a
        w2 -> a
        w3 -> a
        w4 -> b
        w5 -> d
    "#]],
    );
}

#[test]
fn sc4_every_pod_that_waits_says_why_and_holds_up_nobody() {
    check(
        "node a cpu 1 mem 1Gi label disk=ssd
         node b cpu 2 mem 4Gi taint dedicated=db:NoSchedule
         node c cpu 2 mem 4Gi cordoned
         node d cpu 2 mem 4Gi notready
         node e cpu 1 mem 4Gi pods 1 label disk=ssd
         pod there on e
         pod big cpu 8 mem 2Gi
         pod disk select disk=hdd
         pod port1 port 80
         pod port2 port 80
         pod db tolerate dedicated cpu 1
         pod late tolerate node.kubernetes.io/not-ready in kubernetes.io/hostname=d
         pod forced tolerate node.kubernetes.io/unschedulable in kubernetes.io/hostname=c",
        expect![[r#"
            big waits: 0/5 nodes are available: 1 Insufficient memory, 1 Too many pods, 1 node(s) had untolerated taint {dedicated: db}, 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, 1 node(s) were unschedulable, 2 Insufficient cpu.
            db -> b
            disk waits: 0/5 nodes are available: 1 node(s) had untolerated taint {dedicated: db}, 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, 1 node(s) were unschedulable, 2 node(s) didn't match Pod's node affinity/selector.
            forced -> c
            late -> d
            port1 -> a
            port2 waits: 0/5 nodes are available: 1 Too many pods, 1 node(s) didn't have free ports for the requested pod ports, 1 node(s) had untolerated taint {dedicated: db}, 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, 1 node(s) were unschedulable.
        "#]],
    );
    check(
        "pod alone cpu 1",
        expect![[r#"
        alone waits: no nodes available to schedule pods
    "#]],
    );
}

#[test]
fn the_higher_priority_is_first() {
    check(
        "node a cpu 1 mem 1Gi
         pod a-low cpu 1
         pod b-high cpu 1 priority 10",
        expect![[r#"
            b-high -> a
            a-low waits: 0/1 nodes are available: 1 Insufficient cpu.
        "#]],
    );
}

#[test]
fn wishes_come_before_the_strategy() {
    check(
        "node a cpu 8 mem 8Gi
         node b cpu 4 mem 8Gi label disk=ssd
         node c cpu 8 mem 8Gi taint slow=:PreferNoSchedule
         pod wish prefer disk=ssd cpu 1
         pod wish2 prefer disk=ssd cpu 1
         pod plain cpu 1",
        expect![[r#"
            plain -> a
            wish -> b
            wish2 -> b
        "#]],
    );
}

#[test]
fn pods_want_company_or_none() {
    check(
        "node a cpu 4 mem 8Gi label zone=x
         node b cpu 4 mem 8Gi label zone=x
         node c cpu 4 mem 8Gi label zone=y
         pod db on c label app=db
         pod friend near app=db@zone
         pod w1 label app=web apart app=web@host
         pod w2 label app=web apart app=web@host
         pod w3 label app=web apart app=web@host
         pod w4 label app=web apart app=web@host
         pod z1 label app=self near app=self@zone
         pod z2 label app=self near app=self@zone
         pod nobody near app=nothing@zone
         pod likes likes app=db@zone",
        expect![[r#"
            friend -> c
            likes -> c
            nobody waits: 0/3 nodes are available: 3 node(s) didn't match pod affinity rules.
            w1 -> a
            w2 -> b
            w3 -> c
            w4 waits: 0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.
            z1 -> a
            z2 -> b
        "#]],
    );
    // Anti-affinity holds both ways: who came first keeps the other out as well.
    check(
        "node a cpu 4 mem 8Gi
         pod shy on a label app=shy apart app=loud@host
         pod loud label app=loud",
        expect![[r#"
            loud waits: 0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.
        "#]],
    );
}

#[test]
fn domains_are_kept_even() {
    check(
        "node a cpu 4 mem 8Gi label zone=x
         node b cpu 4 mem 8Gi label zone=x
         node c cpu 1 mem 8Gi label zone=y
         node d cpu 4 mem 8Gi
         pod w1 cpu 1 label app=web spread app=web@zone
         pod w2 cpu 1 label app=web spread app=web@zone
         pod w3 cpu 1 label app=web spread app=web@zone
         pod w4 cpu 1 label app=web spread app=web@zone
         pod v1 label app=v evenly app=v@zone
         pod v2 label app=v evenly app=v@zone",
        expect![[r#"
            v1 -> a
            v2 -> c
            w1 -> b
            w2 -> c
            w3 -> a
            w4 waits: 0/4 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints (missing required label), 2 node(s) didn't match pod topology spread constraints.
        "#]],
    );
}

#[test]
fn init_containers_count_by_their_largest_moment() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p"},
        "spec": {
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "200m", "memory": "1Gi"}}},
                {"name": "b", "resources": {"requests": {"cpu": "300m"}}},
            ],
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "one", "resources": {"requests": {"cpu": "1"}}},
                {"name": "two", "resources": {"requests": {"memory": "512Mi"}}},
            ],
            "overhead": {"memory": "1Mi"},
        },
    }))
    .unwrap();
    let requests = super::requests(pod.spec.as_ref().unwrap());
    // 1 of `one` and 100m beside it; the memory of `a` and the overhead.
    assert_eq!((requests.get("cpu"), requests.get("memory")), (1100, (1 << 30) + (1 << 20)));
}
