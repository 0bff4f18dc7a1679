//! A real server process: TLS, authentication, admission and the durable store; pods come through its API, and somebody who watches all
//! pods says when they are bound.
//!
//! No agent renews a lease, as in Kubernetes' own benchmark: the server is started with `--node-lease 10000s`, so that nodes stay ready.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use futures_util::{StreamExt, TryStreamExt};
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::shape::{CLASS, Churn, Counts, PRIORITY, Shape, TEST, Template};
use crate::bench::figure::part;
use crate::bench::fleet::seen::{Line, List, PodSeen};
use crate::bench::fleet::wire::{Lines, Server, Wire, refused};
use crate::bench::house::House;
use crate::bench::{Options, rest};

/// How many requests are on their way at once.
const AT_ONCE: usize = 32;
/// How long may pass without a pod being bound before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was seen.
pub(super) struct Seen {
    /// From the first request until the last measured pod was seen to be bound.
    pub(super) took: Duration,
    /// How long a pod took in the middle, and one in a hundred longer than that, in milliseconds: seen without a node, seen with one.
    pub(super) half: f64,
    pub(super) most: f64,
    /// CPU seconds of the server meanwhile.
    pub(super) cpu: f64,
}

pub(super) async fn run(options: &Options, shape: &Shape, counts: Counts, say: &(dyn Fn(&str) + Sync)) -> Result<Seen> {
    let house = House::start_with(options, &[], &["--node-lease", "10000s"]).await?;
    let (server, certificate, key) = Server::of(&house).await?;
    let tls = server.tls(Some((&certificate, &key)))?;
    let wire = Wire::open(&server, tls.clone(), None).await?;

    say("namespaces and nodes");
    let class = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": CLASS}, "value": PRIORITY,
    });
    post(&wire, "/apis/scheduling.k8s.io/v1/priorityclasses", &class).await?;
    for namespace in shape.namespaces() {
        post(&wire, "/api/v1/namespaces", &namespace).await?;
    }
    let nodes = (0..counts.nodes).map(|n| {
        let wire = wire.clone();
        async move { node(&wire, shape, n).await }
    });
    all(nodes).await?;

    let watch = Watch::start(Wire::open(&server, tls, None).await?).await?;
    let mut there = 0;
    for template in shape.before {
        say(&format!("{} pods of {template:?} that are there before", counts.before));
        let pods = (0..counts.before).map(|n| {
            let namespace = shape.namespace(n);
            let pod = shape.pod(*template, &namespace, &format!("{template:?}-{n}").to_lowercase());
            create(&wire, namespace, pod)
        });
        all(pods).await?;
        there += counts.before;
        watch.until(&watch.before, there).await?;
    }

    say(&format!("{} pods that are measured", counts.measured));
    let churn = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(churn(wire.clone(), *shape, counts.nodes)));
    let (ticks, begun) = (rest::ticks(house.server)?, Instant::now());
    let pods = (0..counts.measured).map(|n| {
        let pod = shape.pod(shape.measured, TEST, &format!("measured-{n}"));
        create(&wire, TEST.to_owned(), pod)
    });
    all(pods).await?;
    watch.until(&watch.measured, counts.measured).await?;
    let took = begun.elapsed();
    let cpu = (rest::ticks(house.server)? - ticks) as f64 / rest::TICKS_PER_SECOND;
    drop(churn);
    let mut waited: Vec<Duration> = std::mem::take(&mut *watch.waited.lock());
    waited.sort_unstable();
    Ok(Seen { took, half: part(&waited, 0.5), most: part(&waited, 0.99), cpu })
}

/// Lets requests go, so many side by side.
async fn all(requests: impl Iterator<Item = impl Future<Output = Result<()>>>) -> Result<()> {
    futures_util::stream::iter(requests).buffer_unordered(AT_ONCE).try_collect::<()>().await
}

async fn post(wire: &Wire, path: &str, object: &Value) -> Result<()> {
    wire.json::<serde::de::IgnoredAny>(Method::POST, path, object).await.map(drop)
}

async fn create(wire: &Wire, namespace: String, pod: Value) -> Result<()> {
    post(wire, &format!("/api/v1/namespaces/{namespace}/pods"), &pod).await
}

/// A node, and then its status, as an agent does it.
async fn node(wire: &Wire, shape: &Shape, n: usize) -> Result<()> {
    let node = shape.node(n);
    post(wire, "/api/v1/nodes", &node).await?;
    let path = format!("/api/v1/nodes/{}/status", node["metadata"]["name"].as_str().unwrap_or_default());
    wire.json::<serde::de::IgnoredAny>(Method::PATCH, &path, &json!({"status": Shape::node_status()})).await.map(drop)
}

/// What else happens, until it is aborted.
async fn churn(wire: Wire, shape: Shape, nodes: usize) {
    for n in 0_usize.. {
        let done = match shape.churn {
            Churn::Nothing => return,
            Churn::Pods(template) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                create(&wire, TEST.to_owned(), shape.pod(template, TEST, &format!("other-{n}"))).await
            }
            Churn::Mixed => mixed(&wire, &shape, nodes + 1 + n).await,
        };
        if let Err(error) = done {
            tracing::debug!(error = format!("{error:#}"), "something else did not happen");
        }
    }
}

/// One node, one pod that is too large, and one service; a second later they are deleted.
async fn mixed(wire: &Wire, shape: &Shape, number: usize) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("other-{number}"), "namespace": TEST},
        "spec": {"selector": {"app": "foo"}, "ports": [{"protocol": "TCP", "port": 8080, "targetPort": 8080}]},
    });
    node(wire, shape, number).await?;
    create(wire, TEST.to_owned(), shape.pod(Template::TooLarge, TEST, &format!("other-{number}"))).await?;
    post(wire, &format!("/api/v1/namespaces/{TEST}/services"), &service).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let paths = [
        format!("/api/v1/nodes/node-{number:05}"),
        format!("/api/v1/namespaces/{TEST}/pods/other-{number}"),
        format!("/api/v1/namespaces/{TEST}/services/other-{number}"),
    ];
    for path in paths {
        match wire.json::<serde::de::IgnoredAny>(Method::DELETE, &path, &Value::Null).await {
            Err(error) if !refused(&error, 404) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Somebody who watches all pods.
struct Watch {
    /// How many pods are bound of those that were there before, and of those that are measured.
    before: Arc<AtomicUsize>,
    measured: Arc<AtomicUsize>,
    /// How long each measured pod was seen to wait.
    waited: Arc<Mutex<Vec<Duration>>>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Watch {
    async fn start(wire: Wire) -> Result<Watch> {
        let list: List<PodSeen> = wire.json(Method::GET, "/api/v1/pods?limit=1", &Value::Null).await?;
        ensure!(list.items.is_empty(), "there are pods already");
        let path = format!("/api/v1/pods?watch=true&timeoutSeconds=3600&resourceVersion={}", list.metadata.resource_version);
        let mut lines = Lines::new(wire.begin(Method::GET, &path, "application/json", Vec::new()).await?);
        let (before, measured, waited) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default(), Arc::default());
        let counts = (before.clone(), measured.clone(), Arc::<Mutex<Vec<Duration>>>::clone(&waited));
        let task = tokio::spawn(async move {
            // Who waits since when; `None` once it is bound.
            let mut known: HashMap<String, Option<Instant>> = HashMap::new();
            while let Some(line) = lines.next().await {
                let Ok(Line { r#type, object }) = serde_json::from_slice::<Line<PodSeen>>(&line) else { return };
                if r#type == "DELETED" {
                    continue;
                }
                let now = Instant::now();
                let since = known.entry(object.metadata.uid).or_insert(Some(now));
                if object.spec.node_name.is_empty() {
                    continue;
                }
                let Some(since) = since.take() else { continue };
                if object.metadata.name.starts_with("measured-") {
                    counts.2.lock().push(now - since);
                    counts.1.fetch_add(1, Relaxed);
                } else if !object.metadata.name.starts_with("other-") {
                    counts.0.fetch_add(1, Relaxed);
                }
            }
        });
        Ok(Watch { before, measured, waited, _task: tokio_util::task::AbortOnDropHandle::new(task) })
    }

    async fn until(&self, count: &AtomicUsize, wanted: usize) -> Result<()> {
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            let now = count.load(Relaxed);
            if now >= wanted {
                return Ok(());
            }
            if now != last {
                (last, moved) = (now, Instant::now());
            }
            if moved.elapsed() > PATIENCE {
                bail!("{now} of {wanted} pods are bound, and for {} s no other", PATIENCE.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
