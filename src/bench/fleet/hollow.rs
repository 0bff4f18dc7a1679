//! A hollow host: to the server a host like any other, with a Node, a Lease, a watch on its pods and statuses; behind it nothing runs.
//!
//! It joins with a token, keeps one connection with its certificate, and says of each pod at once that it runs and is ready. What it asks
//! for is what an agent asks for, in the same form and with the same conditions, so the server's work is real.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::FuturesUnordered;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::seen::{Line, List, PodSeen};
use super::wire::{Lines, Server, Wire, refused};
use crate::agent::identity::{JOIN, certificate_request};
use crate::clock;
use crate::object::time;

/// How long before a connection that was lost is opened again.
const AGAIN: Duration = Duration::from_millis(50);
/// How often a request is decided anew after a conflict.
const TRIES: usize = 8;
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// What all hosts of a fleet have in common.
pub(super) struct Fleet {
    pub(super) server: Server,
    /// How often a lease is renewed.
    pub(super) renew: Duration,
    /// How many hosts watch their pods at this moment.
    pub(super) watching: AtomicUsize,
    /// How often a lease was renewed.
    pub(super) renewed: AtomicU64,
    /// How often something had to be decided anew, because it had changed meanwhile.
    pub(super) conflicts: AtomicU64,
    /// How often a status was given up.
    pub(super) untold: AtomicU64,
    /// What went wrong last, if anything did.
    pub(super) trouble: Mutex<Option<String>>,
}

/// A host that has joined.
pub(super) struct Hollow {
    number: usize,
    name: String,
    /// How it speaks to the server: made once, as an agent does, because very many will connect again and again while a server starts.
    tls: Arc<rustls::ClientConfig>,
}

/// What came of a request.
enum Done {
    /// The server knows that this pod runs.
    Told(String),
    /// The server does not know it: say it again when the pod is seen next.
    Untold(String),
    /// Nothing has to be remembered.
    Well,
}

impl Hollow {
    /// Buys a certificate with a token.
    pub(super) async fn join(server: &Server, token: &str, number: usize) -> Result<Hollow> {
        let name = format!("hollow-{number:05}");
        let key = rcgen::KeyPair::generate().context("make a key")?;
        let csr = certificate_request(&name, &key)?;
        // The last part of a join token is the authority's fingerprint; the secret is the rest.
        let secret = token.trim().rsplit_once('.').context("a join token has three parts")?.0;
        let wire = Wire::open(server, server.tls(None)?, Some(secret)).await?;
        let asked = json!({"node": name, "csr": csr});
        let answer: Value = wire.json(Method::POST, JOIN, &asked).await.context("join")?;
        let certificate = answer["certificate"].as_str().context("the answer holds no certificate")?;
        let tls = server.tls(Some((certificate, &key.serialize_pem())))?;
        Ok(Hollow { number, name, tls })
    }

    /// Lives until it is aborted.
    pub(super) async fn run(self, fleet: Arc<Fleet>) {
        loop {
            if let Err(error) = self.connection(&fleet).await {
                *fleet.trouble.lock() = Some(format!("{}: {error:#}", self.name));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// From connecting to the end of the connection.
    async fn connection(&self, fleet: &Arc<Fleet>) -> Result<()> {
        let wire = Wire::open(&fleet.server, self.tls.clone(), None).await?;
        self.register(&wire).await.context("register")?;
        self.renew(&wire).await.context("make a lease")?;
        let ours = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", self.name);
        let list: List<PodSeen> = wire.json(Method::GET, &ours, &Value::Null).await?;
        let mut pods: HashMap<String, bool> = HashMap::new();
        let mut work: FuturesUnordered<BoxFuture<'_, Done>> = FuturesUnordered::new();
        for pod in list.items {
            work.extend(self.look(&wire, fleet, &mut pods, "ADDED", pod));
        }
        let revision = &list.metadata.resource_version;
        let path = format!("{ours}&watch=true&allowWatchBookmarks=true&timeoutSeconds=3600&resourceVersion={revision}");
        let mut lines = Lines::new(wire.begin(Method::GET, &path, "application/json", Vec::new()).await?);
        let _open = Open::new(&fleet.watching);
        // Not all in the same moment.
        let first = fleet.renew.mul_f64((self.number % 997) as f64 / 997.0);
        let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + first, fleet.renew);
        loop {
            tokio::select! {
                line = lines.next() => {
                    let Some(line) = line else { return Ok(()) };
                    let Ok(Line { r#type, object }) = serde_json::from_slice::<Line<PodSeen>>(&line) else {
                        anyhow::bail!("the watch ended: {}", String::from_utf8_lossy(&line));
                    };
                    work.extend(self.look(&wire, fleet, &mut pods, &r#type, object));
                }
                _ = beat.tick() => {
                    let wire = wire.clone();
                    work.push(async move {
                        match self.renew(&wire).await {
                            Ok(()) => drop(fleet.renewed.fetch_add(1, Relaxed)),
                            Err(error) => *fleet.trouble.lock() = Some(format!("{}: renew: {error:#}", self.name)),
                        }
                        Done::Well
                    }.boxed());
                }
                Some(done) = work.next() => match done {
                    Done::Told(uid) => drop(pods.insert(uid, true)),
                    Done::Untold(uid) => {
                        pods.remove(&uid);
                        fleet.untold.fetch_add(1, Relaxed);
                    }
                    Done::Well => {}
                }
            }
        }
    }

    /// What a pod asks for, if anything.
    fn look<'a>(
        &'a self,
        wire: &Wire,
        fleet: &'a Fleet,
        pods: &mut HashMap<String, bool>,
        what: &str,
        pod: PodSeen,
    ) -> Option<BoxFuture<'a, Done>> {
        if what == "BOOKMARK" {
            return None;
        }
        let uid = pod.metadata.uid.clone();
        let wire = wire.clone();
        if what == "DELETED" {
            pods.remove(&uid);
            return None;
        }
        if pod.metadata.deletion_timestamp.is_some() {
            // Its containers would end now; then the object goes.
            return pods.remove(&uid).map(|_| async move { self.end(&wire, fleet, &pod).await }.boxed());
        }
        if pods.contains_key(&uid) || pod.status.ready() {
            pods.insert(uid, true);
            return None;
        }
        pods.insert(uid, false);
        Some(async move { self.tell(&wire, fleet, pod).await }.boxed())
    }

    /// Says that a pod runs.
    async fn tell(&self, wire: &Wire, fleet: &Fleet, mut pod: PodSeen) -> Done {
        let path = format!("/api/v1/namespaces/{}/pods/{}", pod.metadata.namespace, pod.metadata.name);
        for _ in 0..TRIES {
            let now = time::seconds(clock::now());
            let on = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
            let containers: Vec<Value> = pod
                .spec
                .containers
                .iter()
                .map(|container| {
                    json!({
                        "name": container.name, "image": container.image, "imageID": "sha256:0", "containerID": "hollow://0",
                        "ready": true, "started": true, "restartCount": 0, "state": {"running": {"startedAt": now}},
                    })
                })
                .collect();
            let status = json!({
                "phase": "Running", "startTime": now, "hostIP": "192.0.2.1", "podIP": "198.51.100.1", "podIPs": [{"ip": "198.51.100.1"}],
                "conditions": [
                    on("PodReadyToStartContainers"), on("Initialized"), on("Ready"), on("ContainersReady"), on("PodScheduled"),
                ],
                "containerStatuses": containers,
            });
            let said = json!({
                "metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version}, "status": status,
            });
            match wire.json::<PodSeen>(Method::PATCH, &format!("{path}/status?fieldManager=portolan-agent"), &said).await {
                Ok(_) => return Done::Told(pod.metadata.uid),
                Err(error) if refused(&error, 409) => {
                    fleet.conflicts.fetch_add(1, Relaxed);
                    match wire.json::<PodSeen>(Method::GET, &path, &Value::Null).await {
                        Ok(newest) if newest.metadata.uid == pod.metadata.uid => pod = newest,
                        _ => return Done::Untold(pod.metadata.uid),
                    }
                }
                Err(error) if refused(&error, 404) => return Done::Untold(pod.metadata.uid),
                Err(error) => {
                    *fleet.trouble.lock() = Some(format!("{}: {error:#}", self.name));
                    // An agent waits as long.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        Done::Untold(pod.metadata.uid)
    }

    /// Says that nothing of a pod runs any more.
    async fn end(&self, wire: &Wire, fleet: &Fleet, pod: &PodSeen) -> Done {
        let path = format!("/api/v1/namespaces/{}/pods/{}", pod.metadata.namespace, pod.metadata.name);
        let options = json!({
            "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": pod.metadata.uid},
        });
        match wire.json::<serde::de::IgnoredAny>(Method::DELETE, &path, &options).await {
            Err(error) if !refused(&error, 404) && !refused(&error, 409) => {
                *fleet.trouble.lock() = Some(format!("{}: {error:#}", self.name));
            }
            _ => {}
        }
        Done::Well
    }

    async fn register(&self, wire: &Wire) -> Result<()> {
        let path = format!("/api/v1/nodes/{}", self.name);
        let there = match wire.json::<Value>(Method::GET, &path, &Value::Null).await {
            Err(error) if refused(&error, 404) => {
                let labels = json!({
                    "kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                    "topology.kubernetes.io/zone": format!("zone-{}", self.number % 3),
                });
                let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name, "labels": labels}});
                wire.json::<Value>(Method::POST, "/api/v1/nodes", &node).await?
            }
            other => other?,
        };
        let known = there["status"]["conditions"].as_array().into_iter().flatten();
        if known.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True") {
            return Ok(());
        }
        let now = time::seconds(clock::now());
        let condition = |kind: &str, status: &str, reason: &str| {
            json!({"type": kind, "status": status, "reason": reason, "message": "",
                "lastHeartbeatTime": now, "lastTransitionTime": now})
        };
        let room = json!({"cpu": "32", "memory": "128Gi", "pods": "110"});
        let status = json!({
            "capacity": room, "allocatable": room,
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": self.name}],
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"),
                condition("Ready", "True", "KubeletReady"),
            ],
            "nodeInfo": {
                "architecture": "amd64", "operatingSystem": "linux", "osImage": "hollow", "kernelVersion": "0",
                "containerRuntimeVersion": "hollow://0", "kubeletVersion": "v0.0.0-hollow", "kubeProxyVersion": "",
                "machineID": self.name, "systemUUID": self.name, "bootID": self.name,
            },
        });
        let said = json!({ "status": status });
        wire.json::<Value>(Method::PATCH, &format!("{path}/status?fieldManager=portolan-agent"), &said).await.map(drop)
    }

    async fn renew(&self, wire: &Wire) -> Result<()> {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": self.name, "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": time::micros(clock::now())},
        });
        let path = format!("{LEASES}/{}?fieldManager=portolan-agent", self.name);
        match wire.json::<serde::de::IgnoredAny>(Method::PATCH, &path, &lease).await {
            Err(error) if refused(&error, 404) => {
                wire.json::<serde::de::IgnoredAny>(Method::POST, LEASES, &lease).await.map(drop)
            }
            other => other.map(drop),
        }
    }
}

/// Counts one while it lives.
struct Open<'a>(&'a AtomicUsize);

impl Open<'_> {
    fn new(count: &AtomicUsize) -> Open<'_> {
        count.fetch_add(1, Relaxed);
        Open(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
