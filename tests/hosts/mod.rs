//! Stories on real Docker hosts: what a person would see after a push, a bad push, a revert, and when things are killed.
//!
//! Each has a cluster of its own on the three hosts that `make test` started. Timing is never asserted: waits have generous ends.

mod accounts;
mod streams;
mod used;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Cluster, Hosts, condition, eventually, items, run, text};

/// Lease and eviction times short enough to wait for.
const QUICK: &[&str] = &["--node-lease", "8s", "--eviction-after", "2s"];

/// For stories in which a Docker daemon is away for as long as it takes to start again, and no pod may move because of it.
const PATIENT: &[&str] = &["--node-lease", "8s", "--eviction-after", "90s"];

fn cluster(hosts: &Hosts, times: &[&str]) -> Cluster {
    let mut cluster = Cluster::start(&hosts.bridge, times);
    for host in hosts.names() {
        cluster.start_agent(hosts, &host);
    }
    cluster.await_nodes(3);
    cluster
}

/// A Deployment that stops at once when asked to.
fn web(replicas: u32, image: &str, extra: &str) -> String {
    format!(
        r#"apiVersion: v1
kind: Namespace
metadata:
  name: shop
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
  namespace: shop
data:
  greeting: hello
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
spec:
  replicas: {replicas}
  # A pod that is ready for a moment only must not push an old one out.
  minReadySeconds: 2
  selector:
    matchLabels: {{app: web}}
  strategy:
    rollingUpdate: {{maxSurge: 1, maxUnavailable: 0}}
  template:
    metadata:
      labels: {{app: web}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: nginx
          image: {image}
          ports: [{{name: http, containerPort: 80}}]
          env:
            - name: GREETING
              valueFrom: {{configMapKeyRef: {{name: settings, key: greeting}}}}
          readinessProbe:
            httpGet: {{path: /, port: http}}
            periodSeconds: 1
{extra}"#
    )
}

fn write_web(cluster: &Cluster, replicas: u32, image: &str, extra: &str) {
    cluster.repo.write("apps/web.yaml", &web(replicas, image, extra));
}

fn push_web(cluster: &Cluster, message: &str, replicas: u32, image: &str, extra: &str) -> String {
    write_web(cluster, replicas, image, extra);
    cluster.repo.push(message)
}

/// A short soak and deadline for the root Application, set by hand: git does not manage it here.
fn quick_policy(cluster: &Cluster) {
    let patch = r#"{"spec":{"policy":{"soakSeconds":2,"progressDeadlineSeconds":45}}}"#;
    cluster.kubectl(&["patch", "application", "root", "-n", "portolan-system", "--type=merge", "-p", patch]);
}

fn ids(hosts: &Hosts) -> BTreeSet<String> {
    hosts.running().into_iter().map(|(_, c)| c.id).collect()
}

fn application(cluster: &Cluster) -> Value {
    cluster.json(&["get", "application", "root", "-n", "portolan-system"])
}

/// Asks every ready pod of `web` for its page, again and again, from the pod's own host, and counts failures.
struct Visitors {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<(usize, Vec<String>)>>,
}

impl Visitors {
    fn start(cluster: &Cluster, hosts: &Hosts) -> Visitors {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let kubeconfig = cluster.kubeconfig();
        let home = cluster.dir.clone();
        let prefix = hosts.sh("env", &[]).lines().find_map(|l| l.strip_prefix("PREFIX=").map(str::to_owned)).unwrap();
        let ready_pods = move || -> Vec<(String, String, String, u64)> {
            let out = Command::new("kubectl")
                .args(["get", "pods", "-n", "shop", "-l", "app=web", "-o", "json"])
                .env("KUBECONFIG", &kubeconfig)
                .env("HOME", &home)
                .output()
                .unwrap();
            let list: Value = serde_json::from_slice(&out.stdout).unwrap_or(Value::Null);
            items(&list)
                .filter(|p| condition(p, "Ready") == "True" && p["metadata"]["deletionTimestamp"].is_null())
                .map(|p| {
                    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
                    let restarts = p["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0);
                    (text(&p["metadata"]["name"]), text(&p["spec"]["nodeName"]), text(&p["status"]["podIP"]), restarts)
                })
                .collect()
        };
        let thread = std::thread::spawn(move || {
            let (mut asked, mut failed) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                for (pod, node, ip, restarts) in ready_pods() {
                    let netns = format!("--net=/run/netns/{prefix}{node}");
                    let out =
                        Command::new("nsenter").args([&netns, "curl", "-sS", "-f", "--max-time", "3", &ip]).output().unwrap();
                    asked += 1;
                    // Only a pod that stays ready after it failed to answer broke its promise. Others left meanwhile, or their liveness
                    // probe had them restarted: that is known on the host first, and here a moment later.
                    let stays = || ready_pods().iter().any(|(p, .., r)| *p == pod && *r == restarts);
                    if !out.status.success() && (0..10).all(|_| (stays(), std::thread::sleep(Duration::from_millis(200))).0) {
                        failed.push(format!("{pod} on {node}: {}", text(&out.stderr).trim()));
                    }
                }
                if ready_pods().is_empty() {
                    failed.push("no pod was ready".to_owned());
                }
            }
            (asked, failed)
        });
        Visitors { stop, thread: Some(thread) }
    }
    fn done(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let (asked, failed) = self.thread.take().unwrap().join().unwrap();
        assert!(failed.is_empty(), "{} of {asked} requests failed:\n{}", failed.len(), failed.join("\n"));
        asked
    }
}

#[test]
fn a_push_becomes_containers_and_a_plan_tells_before() {
    let Some(hosts) = Hosts::take("hosts::a_push_becomes_containers_and_a_plan_tells_before") else { return };
    let cluster = cluster(&hosts, QUICK);
    quick_policy(&cluster);
    let first = push_web(&cluster, "The shop opens", 3, "nginx:1.27", "");
    assert_eq!(cluster.wait(&first, 90), 0);
    let running = hosts.running();
    assert_eq!(running.len(), 3, "{running:?}");
    assert_eq!(running.iter().map(|(h, _)| h).collect::<BTreeSet<_>>().len(), 3, "spread over the hosts: {running:?}");

    // Locally, before it is pushed: what would this do?
    cluster.repo.edit("apps/web.yaml", "replicas: 3", "replicas: 5");
    cluster.repo.git(&["commit", "-qam", "More of it"]);
    let head = cluster.repo.head();
    let out =
        cluster.output(&["plan", "--repo", ".", "--path", "apps", "--to", &head, "--output", "json", "--detailed-exitcode"]);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
    let plan: Value = serde_json::from_slice(&out.stdout).expect("plan prints JSON");
    let predicted: Vec<(String, i64)> = placement(&plan);
    let before = ids(&hosts);
    cluster.repo.git(&["push", "-q", "origin", "HEAD:main"]);
    assert_eq!(cluster.wait(&head, 90), 0);
    let after = hosts.running();
    assert!(before.is_subset(&after.iter().map(|(_, c)| c.id.clone()).collect()), "no container was restarted");
    let mut happened: Vec<(String, i64)> = Vec::new();
    for host in hosts.names() {
        let new = after.iter().filter(|(h, c)| *h == host && !before.contains(&c.id)).count() as i64;
        if new > 0 {
            happened.push((host, new));
        }
    }
    assert_eq!(predicted, happened, "what the plan said, and what happened");

    // And now there is nothing left to do.
    let out = cluster.output(&["plan", "--repo", ".", "--path", "apps", "--to", &head, "--detailed-exitcode"]);
    assert_eq!(out.status.code(), Some(0), "{}{}", text(&out.stdout), text(&out.stderr));
}

/// How many new pods a plan puts on each host.
fn placement(plan: &Value) -> Vec<(String, i64)> {
    let mut hosts = std::collections::BTreeMap::new();
    for pod in plan["placement"].as_array().into_iter().flatten() {
        if let Some(node) = pod["node"].as_str() {
            *hosts.entry(node.to_owned()).or_insert(0) += 1;
        }
    }
    hosts.into_iter().collect()
}

#[test]
fn rb8_a_rolling_update_and_bad_releases_cost_no_request() {
    let Some(hosts) = Hosts::take("hosts::rb8_a_rolling_update_and_bad_releases_cost_no_request") else { return };
    let cluster = cluster(&hosts, QUICK);
    quick_policy(&cluster);
    let first = push_web(&cluster, "The shop opens", 3, "nginx:1.27", "");
    assert_eq!(cluster.wait(&first, 90), 0);

    let visitors = Visitors::start(&cluster, &hosts);
    let good = push_web(&cluster, "A newer server", 3, "nginx:1.28", "");
    assert_eq!(cluster.wait(&good, 120), 0);
    assert!(hosts.running().iter().all(|(_, c)| c.image.contains("1.28")), "{:?}", hosts.running());
    let settled = ids(&hosts);

    let crash = "          command: [\"sh\", \"-c\", \"echo the map is upside down; exit 3\"]\n";
    let never = "          command: [\"sleep\", \"1000\"]\n";
    let unlive = "          livenessProbe: {exec: {command: [\"false\"]}, periodSeconds: 1, failureThreshold: 1}\n";
    let oom = "          command: [\"sh\", \"-c\", \"x=a; while :; do x=$x$x$x$x; done\"]\n          resources: {limits: {memory: 8Mi}}\n";
    // Named with its registry: for an image of the public one, Docker would first try to reach that.
    let missing = format!("{}:5000/nginx:9.99", hosts.bridge);
    let bad: &[(&str, &str, &str, &str)] = &[
        ("missing image", &missing, "", "9.99"),
        ("crash loop", "nginx:1.28", crash, "upside down"),
        ("never ready", "nginx:1.28", never, ""),
        ("failing probe", "nginx:1.28", unlive, ""),
        ("out of memory", "nginx:1.28", oom, "OOM"),
    ];
    for (name, image, extra, evidence) in bad {
        // The configuration goes with it, and must come back with it.
        write_web(&cluster, 3, image, extra);
        cluster.repo.edit("apps/web.yaml", "greeting: hello", "greeting: goodbye");
        let commit = cluster.repo.push(name);
        assert_eq!(cluster.wait(&commit, 150), 3, "{name} is rolled back");
        eventually(60, "only the good containers run", || (ids(&hosts) == settled).then_some(()));
        let settings = cluster.json(&["get", "configmap", "settings", "-n", "shop"]);
        assert_eq!(settings["data"]["greeting"], "hello", "{name}: configuration goes back too");
        let history = text(&cluster.output(&["history", "root", "--output", "json"]).stdout);
        assert!(history.contains(evidence), "{name}: the evidence names {evidence:?}: {history}");
        let app = application(&cluster);
        assert_eq!((&app["status"]["sync"], &app["status"]["phase"]), (&"Held".into(), &"RolledBack".into()), "{name}");
        let back = cluster.repo.revert();
        assert_eq!(cluster.wait(&back, 60), 0, "{name}: the revert is synced");
        assert_eq!(ids(&hosts), settled, "{name}: and no container was restarted");
    }
    let asked = visitors.done();
    assert!(asked > 20, "the visitors really came: {asked}");
}

#[test]
fn rb3_a_rollback_needs_neither_git_nor_registry() {
    let Some(hosts) = Hosts::take("hosts::rb3_a_rollback_needs_neither_git_nor_registry") else { return };
    let cluster = cluster(&hosts, QUICK);
    quick_policy(&cluster);
    let first = push_web(&cluster, "The shop opens", 3, "nginx:1.27", "");
    assert_eq!(cluster.wait(&first, 90), 0);
    let settled = ids(&hosts);
    // Bad only after a while, so that git and the registry can be taken away in between.
    let slow = "          command: [\"sh\", \"-c\", \"sleep 4; exit 3\"]\n";
    let bad = push_web(&cluster, "A slow poison", 3, "nginx:1.27", slow);
    eventually(60, "the bad release runs", || (ids(&hosts) != settled).then_some(()));
    hosts.sh("registry", &["off"]);
    let hidden = cluster.dir.join("hidden.git");
    std::fs::rename(cluster.repo.url(), &hidden).unwrap();
    assert_eq!(cluster.wait(&bad, 120), 3);
    eventually(60, "only the good containers run", || (ids(&hosts) == settled).then_some(()));
    std::fs::rename(&hidden, cluster.repo.url()).unwrap();
    hosts.sh("registry", &["on"]);

    // GI2: the same bad content in another commit is held, not tried.
    cluster.repo.git(&["commit", "-q", "--allow-empty", "-m", "Perhaps it was the weather"]);
    cluster.repo.git(&["push", "-q", "origin", "HEAD:main"]);
    let head = cluster.repo.head();
    eventually(60, "the commit is seen", || (application(&cluster)["status"]["observedCommit"] == head.as_str()).then_some(()));
    assert_eq!(application(&cluster)["status"]["sync"], "Held");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(ids(&hosts), settled, "and nothing was started");
}

#[test]
fn killing_server_agent_and_dockerd_loses_and_doubles_nothing() {
    let Some(hosts) = Hosts::take("hosts::killing_server_agent_and_dockerd_loses_and_doubles_nothing") else { return };
    let mut cluster = cluster(&hosts, PATIENT);
    quick_policy(&cluster);
    // A stranger's container, to be left alone.
    hosts.docker("h1", "POST", "/images/create?fromImage=busybox&tag=1.36");
    run(Command::new("curl")
        .args(["-sS", "-f", "-X", "POST", "-H", "Content-Type: application/json", "--unix-socket"])
        .arg(hosts.socket("h1"))
        .args([
            "-d",
            r#"{"Image":"busybox:1.36","Cmd":["sleep","10000"],"HostConfig":{"NetworkMode":"none"}}"#,
            "http://docker/containers/create?name=stranger",
        ]));
    hosts.docker("h1", "POST", "/containers/stranger/start");

    let first = push_web(&cluster, "The shop opens", 4, "nginx:1.27", "");
    assert_eq!(cluster.wait(&first, 90), 0);
    let settled = ids(&hosts);
    assert_eq!(settled.len(), 4);

    cluster.kill_server();
    assert_eq!(ids(&hosts), settled, "containers run while the server is away");
    cluster.start_server();
    cluster.kill_agent("h1");
    assert_eq!(ids(&hosts), settled, "containers run while the agent is away");
    cluster.start_agent(&hosts, "h1");
    hosts.sh("kill-docker", &["h2"]);
    cluster.await_nodes(3);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(ids(&hosts), settled, "nothing was restarted");

    // In the middle of a rollout, each in turn.
    let second = push_web(&cluster, "A newer server", 4, "nginx:1.28", "");
    eventually(60, "the rollout is under way", || (ids(&hosts) != settled).then_some(()));
    cluster.kill_server();
    cluster.start_server();
    cluster.kill_agent("h2");
    cluster.start_agent(&hosts, "h2");
    hosts.sh("kill-docker", &["h3"]);
    assert_eq!(cluster.wait(&second, 180), 0);
    eventually(60, "exactly four run", || {
        let running = hosts.running();
        (running.len() == 4 && running.iter().all(|(_, c)| c.image.contains("1.28"))).then_some(())
    });
    let uids: BTreeSet<_> = hosts.running().into_iter().map(|(_, c)| c.pod_uid).collect();
    assert_eq!(uids.len(), 4, "one container a pod");
    eventually(60, "nothing else is left behind", || {
        let all: Vec<_> = hosts.names().iter().flat_map(|h| hosts.containers(h)).filter(|c| !c.pod_uid.is_empty()).collect();
        all.iter().all(|c| uids.contains(&c.pod_uid)).then_some(())
    });
    let stranger = hosts.docker("h1", "GET", "/containers/stranger/json");
    assert_eq!(stranger["State"]["Running"], true, "foreign containers are left alone");
    hosts.docker("h1", "DELETE", "/containers/stranger?force=1");
}

#[test]
fn pods_of_a_lost_host_move_and_the_surplus_goes_when_it_returns() {
    let Some(hosts) = Hosts::take("hosts::pods_of_a_lost_host_move_and_the_surplus_goes_when_it_returns") else { return };
    let mut cluster = cluster(&hosts, QUICK);
    quick_policy(&cluster);
    let first = push_web(&cluster, "The shop opens", 3, "nginx:1.27", "");
    assert_eq!(cluster.wait(&first, 90), 0);
    // The network goes, the containers stay: when it comes back they are too many.
    hosts.sh("cut", &["h2"]);
    eventually(90, "three ready pods on the two hosts that are left", || {
        let pods = cluster.json(&["get", "pods", "-n", "shop"]);
        let there = items(&pods)
            .filter(|p| {
                condition(p, "Ready") == "True" && p["spec"]["nodeName"] != "h2" && p["metadata"]["deletionTimestamp"].is_null()
            })
            .count();
        (there == 3).then_some(())
    });
    hosts.sh("mend", &["h2"]);
    eventually(90, "three run again, not four", || (hosts.running().len() == 3).then_some(()));
    cluster.await_nodes(3);

    // A power cut: everything on it dies, and nothing starts twice when it is back.
    cluster.kill_agent("h3");
    hosts.sh("power-off", &["h3"]);
    eventually(90, "three ready pods elsewhere", || {
        let pods = cluster.json(&["get", "pods", "-n", "shop"]);
        let there = items(&pods).filter(|p| condition(p, "Ready") == "True" && p["spec"]["nodeName"] != "h3").count();
        (there == 3).then_some(())
    });
    hosts.sh("power-on", &["h3"]);
    cluster.start_agent(&hosts, "h3");
    cluster.await_nodes(3);
    eventually(60, "three run", || (hosts.running().len() == 3).then_some(()));
}

#[test]
fn logs_and_exec_reach_into_a_container() {
    let Some(hosts) = Hosts::take("hosts::logs_and_exec_reach_into_a_container") else { return };
    let cluster = cluster(&hosts, QUICK);
    quick_policy(&cluster);
    let first = push_web(&cluster, "The shop opens", 1, "nginx:1.27", "");
    assert_eq!(cluster.wait(&first, 90), 0);
    let pods = cluster.json(&["get", "pods", "-n", "shop"]);
    let pod = items(&pods).next().unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    eventually(20, "the probe's request is in the log", || {
        cluster.kubectl(&["logs", "-n", "shop", &pod, "--tail=5"]).contains("GET /").then_some(())
    });
    assert_eq!(cluster.kubectl(&["exec", "-n", "shop", &pod, "--", "sh", "-c", "echo $GREETING"]).trim(), "hello");
    let out = cluster.try_kubectl(&["exec", "-n", "shop", &pod, "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((out.status.code(), text(&out.stdout).trim()), (Some(7), "out"), "{}", text(&out.stderr));
    let out = cluster.output(&["exec", "-n", "shop", &pod, "--", "sh", "-c", "echo $GREETING"]);
    assert_eq!(text(&out.stdout).trim(), "hello", "{}", text(&out.stderr));
    let out = cluster.output(&["logs", "-n", "shop", &pod, "--tail", "1"]);
    assert!(text(&out.stdout).contains("GET /"), "{}{}", text(&out.stdout), text(&out.stderr));
}

#[test]
fn the_example_repository_runs() {
    let Some(hosts) = Hosts::take("hosts::the_example_repository_runs") else { return };
    let cluster = cluster(&hosts, QUICK);
    cluster.repo.copy_examples();
    let out = cluster.output(&["validate", "apps"]);
    assert!(out.status.success(), "{}{}", text(&out.stdout), text(&out.stderr));
    let commit = cluster.repo.push("The shop opens");
    assert_eq!(cluster.wait(&commit, 150), 0);
    assert!(Path::new(&cluster.kubeconfig()).exists());
    let deployments = cluster.json(&["get", "deployments", "-A"]);
    for deployment in items(&deployments) {
        assert_eq!(deployment["status"]["readyReplicas"], deployment["spec"]["replicas"], "{deployment}");
    }
    assert_eq!(items(&deployments).count(), 5);
}
