//! A fleet: a real server process, and in this process N hollow hosts on which P pods are to run.
//!
//! One life of a cluster, step by step: hosts join, a commit brings all pods, another one replaces them all, a tenth of the hosts is lost,
//! the server is killed and comes back. Durability, TLS, authentication and authorization are those of any server: nothing is switched off.
//!
//! You will not find here: anything that runs a pod.

mod hollow;
pub(super) mod seen;
pub(super) mod wire;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::figure::Chart;
use super::house::House;
use super::{Figure, Options, figure, rest};
use crate::count;
use hollow::{Fleet, Hollow};
use seen::{List, Observer, PodSeen};
use wire::{Server, Wire, counts};

/// How large the fleet is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Hosts.
    pub hosts: usize,
    /// Pods.
    pub pods: usize,
    /// Deployments that share them.
    pub deployments: usize,
}

impl Size {
    /// How many pods one of the Deployments has.
    pub(in crate::bench) fn replicas(&self, deployment: usize) -> usize {
        self.pods / self.deployments + usize::from(deployment < self.pods % self.deployments)
    }
}

/// How long any step may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(1800);
/// How often a hollow host renews its lease.
const RENEW: Duration = Duration::from_secs(10);
/// How many hosts join side by side.
const JOINING: usize = 64;
/// After so long a server is at rest.
const SETTLED: Duration = Duration::from_secs(30);
/// How long the server is watched at rest.
const REST: Duration = Duration::from_secs(20);
/// How many pods are created one by one for the latency of an idle cluster.
const SINGLES: usize = 200;

/// A server, somebody who looks, and hosts that may join: what every benchmark with hollow hosts stands on.
pub(in crate::bench) struct Ground {
    pub(in crate::bench) house: House,
    pub(in crate::bench) server: Server,
    /// How the administrator speaks to it.
    pub(in crate::bench) admin: Arc<rustls::ClientConfig>,
    pub(in crate::bench) observer: Observer,
    fleet: Arc<Fleet>,
    _watcher: tokio_util::task::AbortOnDropHandle<()>,
}

impl Ground {
    /// Starts the server. Nobody has joined yet.
    pub(in crate::bench) async fn start(options: &Options) -> Result<Ground> {
        let flags = ["--eviction-after", "5s", "--eviction-rate", "1000", "--node-lease", "40s"];
        let house = House::start_with(options, &[], &flags).await?;
        let (server, certificate, key) = Server::of(&house).await?;
        let admin = server.tls(Some((&certificate, &key)))?;
        let observer = Observer::start(&server, &certificate, &key)?;
        let fleet = Arc::new(Fleet {
            server: server.clone(),
            renew: RENEW,
            watching: Default::default(),
            renewed: Default::default(),
            conflicts: Default::default(),
            untold: Default::default(),
            trouble: Default::default(),
        });
        let watcher = {
            let (fleet, observer) = (fleet.clone(), observer.clone());
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                    tracing::debug!(
                        watching = fleet.watching.load(Relaxed),
                        renewed = fleet.renewed.load(Relaxed),
                        conflicts = fleet.conflicts.load(Relaxed),
                        untold = fleet.untold.load(Relaxed),
                        pods = observer.picture.lock().pods.len(),
                        trouble = fleet.trouble.lock().as_deref(),
                        "the fleet lives"
                    );
                }
            })
        };
        let watcher = tokio_util::task::AbortOnDropHandle::new(watcher);
        Ok(Ground { house, server, admin, observer, fleet, _watcher: watcher })
    }

    /// Lets so many hosts join and waits until they are ready. They live until they are aborted.
    pub(in crate::bench) async fn join(&self, count: usize) -> Result<Vec<JoinHandle<()>>> {
        let token = self.house.portolan(&["token", "create"]).await?;
        let hosts = join(&self.fleet, &token, count).await?;
        self.observer.until("hosts that are ready", PATIENCE, |p| (p.ready_nodes(), count)).await?;
        Ok(hosts)
    }

    /// Waits until so many pods of a version are ready.
    pub(in crate::bench) async fn ready(&self, version: &str, pods: usize) -> Result<()> {
        self.observer.until("pods that are ready", PATIENCE, |p| (p.serving(version), pods)).await.map(drop)
    }

    /// What went wrong with a host last: told beside whatever made the benchmark fail.
    pub(in crate::bench) fn trouble(&self) -> String {
        let trouble = self.fleet.trouble.lock().take();
        format!("the last trouble of a host: {}", trouble.unwrap_or_else(|| "none".to_owned()))
    }
}

/// What is shown over the number of pods: the title, the figures, and their unit.
const CHARTS: &[(&str, &[&str], &str)] = &[
    ("Pods from one commit, all Ready", &["pods from one commit, all Ready"], "s"),
    ("Rolling update of everything", &["rolling update of everything"], "s"),
    ("Restart, until every host watches again", &["server killed, until every host watches again"], "s"),
    ("Memory: at rest, and at the peak", &["server memory at rest, with all pods", "peak memory of the server"], "MB"),
];

/// How the figures grow with the fleet, where several sizes were measured.
pub(super) fn charts(sizes: &[Size], figures: &[Figure]) -> Vec<Chart> {
    if sizes.len() < 2 {
        return Vec::new();
    }
    let value = |what: &str, size: &Size| figures.iter().find(|f| f.name == size.names(what)).map(|f| f.median);
    let line = |what: &&str| sizes.iter().map(|size| value(what, size)).collect::<Option<Vec<f64>>>();
    let chart = |(title, lines, unit): &(&str, &[&str], &'static str)| {
        let lines = lines.iter().map(line).collect::<Option<_>>()?;
        let at = sizes.iter().map(|size| format!("{} on {}", size.pods, size.hosts)).collect();
        Some(Chart { title: (*title).to_owned(), over: "pods on hosts", at, unit, lines })
    };
    CHARTS.iter().filter_map(chart).collect()
}

impl Size {
    /// A figure's name, with the size.
    fn names(&self, what: &str) -> String {
        format!("{what} ({} hosts, {} pods)", self.hosts, self.pods)
    }
}

pub(super) async fn run(options: &Options, say: &(dyn Fn(&str) + Sync)) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for size in &options.fleet {
        figures.extend(life(options, *size, say).await.with_context(|| format!("{} hosts, {} pods", size.hosts, size.pods))?);
    }
    Ok(figures)
}

/// One fleet, from its beginning to the restart.
async fn life(options: &Options, size: Size, say: &(dyn Fn(&str) + Sync)) -> Result<Vec<Figure>> {
    let mut ground = Ground::start(options).await?;
    let (server, admin) = (ground.server.clone(), ground.admin.clone());
    let (fleet, observer) = (ground.fleet.clone(), ground.observer.clone());
    let mut sheet = Sheet::new(size, ground.house.server)?;
    let result = async {
        say(&format!("{} hosts join", size.hosts));
        sheet.begin()?;
        let mut hosts = ground.join(size.hosts).await?;
        sheet.lap("hosts registered and Ready")?;
        say("at rest, without pods");
        one_by_one(&server, &admin, &observer, &mut sheet, say).await?;

        say(&format!("{} pods in {} Deployments from one commit", size.pods, size.deployments));
        let before = counts(&server, &admin).await?;
        sheet.begin()?;
        ground.house.commit("All of them", &manifests(size, "1"))?;
        ground.ready("1", size.pods).await?;
        let took = sheet.lap("pods from one commit, all Ready")?;
        sheet.add("pods Ready per second", "1/s", size.pods as f64 / took.as_secs_f64());
        sheet.work("pods from one commit", &before, &counts(&server, &admin).await?);
        steps(&observer, "1", &mut sheet);
        // What comes after the pods: statuses of Deployments and releases, events; and the server tidies its memory.
        tokio::time::sleep(SETTLED).await;

        say("at rest, with all pods");
        sheet.begin()?;
        let renewed = fleet.renewed.load(Relaxed);
        tokio::time::sleep(REST).await;
        let cpu = sheet.cpu()?;
        sheet.add("server CPU at rest, with all leases", "% of a core", cpu / REST.as_secs_f64() * 100.0);
        sheet.add("leases renewed per second", "1/s", (fleet.renewed.load(Relaxed) - renewed) as f64 / REST.as_secs_f64());
        sheet.add("server memory at rest, with all pods", "MB", rest::resident(ground.house.server)?);

        say("everything is updated");
        let before = counts(&server, &admin).await?;
        sheet.begin()?;
        ground.house.commit("All of them, anew", &manifests(size, "2"))?;
        observer
            .until("pods of the new version that are ready", PATIENCE, |p| {
                (p.serving("2").saturating_sub(p.pods.len() - p.serving("2").min(p.pods.len())), size.pods)
            })
            .await?;
        sheet.lap("rolling update of everything")?;
        sheet.work("rolling update of everything", &before, &counts(&server, &admin).await?);
        tokio::time::sleep(Duration::from_secs(5)).await;

        let lost = size.hosts / 10;
        say(&format!("{lost} hosts are lost"));
        let on_lost: Vec<String> = (0..lost).map(|n| format!("hollow-{n:05}")).collect();
        sheet.begin()?;
        hosts.drain(..lost).for_each(|host| host.abort());
        observer.until("nodes that are lost", PATIENCE, |p| (size.hosts - p.ready_nodes(), lost)).await?;
        sheet.lap("a tenth of the hosts lost, until that is known")?;
        sheet.begin()?;
        observer
            .until("pods that are ready elsewhere", PATIENCE, |p| {
                // Cheap first: a look at every pod only when the count is right.
                let enough = p.serving("2") >= size.pods;
                let there =
                    if enough { p.pods.values().filter(|pod| pod.serves && !on_lost.contains(&pod.node)).count() } else { 0 };
                (there, size.pods)
            })
            .await?;
        sheet.lap("from then until all pods are Ready elsewhere")?;
        tokio::time::sleep(Duration::from_secs(5)).await;

        say("the server is killed and starts again");
        sheet.add("peak memory of the server", "MB", rest::peak(ground.house.server)?);
        let alive = size.hosts - lost;
        let begun = Instant::now();
        ground.house.restart().await?;
        sheet.begin_anew(begun, ground.house.server);
        let count = loop {
            match everything(&server, &admin).await {
                Ok(count) => break count,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        anyhow::ensure!(count >= size.pods, "after the restart there are {count} pods");
        sheet.lap("server killed, until every pod is listed again")?;
        while fleet.watching.load(Relaxed) < alive {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "{} of {alive} hosts are back", fleet.watching.load(Relaxed));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sheet.lap("server killed, until every host watches again")?;
        sheet.add("peak memory of the server after its restart", "MB", rest::peak(ground.house.server)?);
        sheet.add("size of the store", "MB", below(&ground.house.dir.join("server/store"))? as f64 / 1e6);
        sheet.add("requests decided anew after a conflict", "", fleet.conflicts.load(Relaxed) as f64);
        drop(hosts);
        anyhow::Ok(())
    }
    .await;
    result.with_context(|| ground.trouble())?;
    Ok(sheet.figures)
}

/// Lets hosts join, and live.
async fn join(fleet: &Arc<Fleet>, token: &str, count: usize) -> Result<Vec<JoinHandle<()>>> {
    use futures_util::{StreamExt, TryStreamExt};
    futures_util::stream::iter(0..count)
        .map(|number| {
            let (fleet, token) = (fleet.clone(), token.to_owned());
            async move {
                let joined = tokio::spawn(async move {
                    let host = Hollow::join(&fleet.server, &token, number).await?;
                    anyhow::Ok(tokio::spawn(host.run(fleet)))
                });
                joined.await.context("join")?
            }
        })
        .buffered(JOINING)
        .try_collect()
        .await
}

/// Pods created one by one in an idle cluster: how long each takes until somebody sees that it is ready.
async fn one_by_one(
    server: &Server,
    tls: &Arc<rustls::ClientConfig>,
    observer: &Observer,
    sheet: &mut Sheet,
    say: &(dyn Fn(&str) + Sync),
) -> Result<()> {
    say("pods one by one");
    let wire = Wire::open(server, tls.clone(), None).await?;
    let mut took = Vec::new();
    for n in 0..SINGLES {
        let name = format!("single-{n}");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"version": name}},
            "spec": {"containers": [{"name": "main", "image": "hollow"}], "terminationGracePeriodSeconds": 0},
        });
        let begun = Instant::now();
        wire.json::<Value>(Method::POST, "/api/v1/namespaces/default/pods", &pod).await?;
        observer.until("a single pod", Duration::from_secs(30), |p| (p.serving(&name), 1)).await?;
        took.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sheet.spread("a single pod, from its creation until it is seen to be Ready", took);
    for n in 0..SINGLES {
        let path = format!("/api/v1/namespaces/default/pods/single-{n}");
        wire.json::<Value>(Method::DELETE, &path, &Value::Null).await?;
    }
    observer.until("single pods that are gone", Duration::from_secs(60), |p| (usize::from(p.pods.is_empty()), 1)).await?;
    Ok(())
}

/// How long the pods of a version took for each of their steps.
fn steps(observer: &Observer, version: &str, sheet: &mut Sheet) {
    let pods: Vec<seen::Pod> = observer.picture.lock().pods.values().filter(|pod| pod.version == version).cloned().collect();
    let between = |from: fn(&seen::Pod) -> Option<Instant>, to: fn(&seen::Pod) -> Option<Instant>| {
        pods.iter().filter_map(|pod| Some(to(pod)?.saturating_duration_since(from(pod)?))).collect::<Vec<_>>()
    };
    sheet.spread("a pod of the commit, created until bound", between(|p| Some(p.created), |p| p.bound));
    sheet.spread("a pod of the commit, bound until Ready", between(|p| p.bound, |p| p.ready));
    sheet.spread("a pod of the commit, created until Ready", between(|p| Some(p.created), |p| p.ready));
}

/// Lists all pods, page by page. How many there are.
async fn everything(server: &Server, tls: &Arc<rustls::ClientConfig>) -> Result<usize> {
    let wire = Wire::open(server, tls.clone(), None).await?;
    let (mut count, mut page) = (0, String::new());
    loop {
        let path = format!("/api/v1/pods?limit=500&continue={page}");
        let list: List<PodSeen> = wire.json(Method::GET, &path, &Value::Null).await?;
        count += list.items.len();
        page = list.metadata.r#continue;
        if page.is_empty() {
            return Ok(count);
        }
    }
}

/// One file for each Deployment.
fn manifests(size: Size, version: &str) -> Vec<(String, String)> {
    (0..size.deployments)
        .map(|n| {
            let name = format!("fleet-{n:05}");
            (format!("{name}.yaml"), deployment(&name, "default", size.replicas(n), version))
        })
        .collect()
}

/// A Deployment whose pods say of which version they are.
pub(in crate::bench) fn deployment(name: &str, namespace: &str, replicas: usize, version: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}\nspec:\n  \
         replicas: {replicas}\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    \
         metadata: {{labels: {{app: {name}, version: \"{version}\"}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 0\n      containers:\n        - name: main\n          image: hollow\n          \
         env: [{{name: VERSION, value: \"{version}\"}}]\n          ports: [{{containerPort: 8080}}]\n          \
         resources: {{requests: {{cpu: 10m, memory: 16Mi}}}}\n"
    )
}

/// How many bytes the files of a directory have.
fn below(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).with_context(|| format!("look into {}", dir.display()))? {
        let entry = entry?;
        let data = entry.metadata()?;
        sum += if data.is_dir() { below(&entry.path())? } else { data.len() };
    }
    Ok(sum)
}

/// The figures as they come.
struct Sheet {
    figures: Vec<Figure>,
    size: Size,
    server: u32,
    begun: Instant,
    ticks: u64,
}

impl Sheet {
    fn new(size: Size, server: u32) -> Result<Sheet> {
        Ok(Sheet { figures: Vec::new(), size, server, begun: Instant::now(), ticks: rest::ticks(server)? })
    }

    fn add(&mut self, what: &str, unit: &'static str, value: f64) {
        self.figures.push(Figure::new(&self.size.names(what), unit).with(value));
    }

    /// A step begins.
    fn begin(&mut self) -> Result<()> {
        (self.begun, self.ticks) = (Instant::now(), rest::ticks(self.server)?);
        Ok(())
    }

    /// A step began when the server before this one was killed.
    fn begin_anew(&mut self, begun: Instant, server: u32) {
        (self.begun, self.ticks, self.server) = (begun, 0, server);
    }

    /// CPU seconds of the server since the step began.
    fn cpu(&self) -> Result<f64> {
        Ok((rest::ticks(self.server)? - self.ticks) as f64 / rest::TICKS_PER_SECOND)
    }

    /// A step, or a part of it, has ended.
    fn lap(&mut self, what: &str) -> Result<Duration> {
        let took = self.begun.elapsed();
        let cpu = self.cpu()?;
        self.add(what, "s", took.as_secs_f64());
        self.add(&format!("server CPU: {what}"), "CPU s", cpu);
        Ok(took)
    }

    /// What the server did in a step, for each pod.
    fn work(&mut self, step: &str, before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) {
        for count in count::ALL {
            let of = |counts: &BTreeMap<String, f64>| counts.get(count.name).copied().unwrap_or(0.0);
            let what = count.name.trim_start_matches("portolan_").trim_end_matches("_total").replace('_', " ");
            self.add(&format!("{what}, per pod: {step}"), "", (of(after) - of(before)) / self.size.pods as f64);
        }
    }

    /// Many durations: the one in the middle, and that which one in a hundred exceeds.
    fn spread(&mut self, what: &str, mut took: Vec<Duration>) {
        took.sort_unstable();
        self.add(&format!("{what}, p50"), "ms", figure::part(&took, 0.5));
        self.add(&format!("{what}, p99"), "ms", figure::part(&took, 0.99));
    }
}
