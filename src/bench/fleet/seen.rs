//! What somebody who only looks sees of pods and nodes, and when: the clock of the fleet's figures.
//!
//! Objects are read only as far as the figures need them: whoever looks shares the processors with what is measured.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use http::Method;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::wire::{Lines, Server, Wire, refused};

/// How often it is asked whether what is waited for has come.
const LOOK: Duration = Duration::from_millis(2);

/// A line of a watch.
#[derive(Deserialize)]
pub(in crate::bench) struct Line<T> {
    pub(in crate::bench) r#type: String,
    pub(in crate::bench) object: T,
}

/// A list.
#[derive(Deserialize)]
pub(in crate::bench) struct List<T> {
    pub(in crate::bench) metadata: Meta,
    pub(in crate::bench) items: Vec<T>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::bench) struct Meta {
    pub(in crate::bench) name: String,
    pub(in crate::bench) namespace: String,
    pub(in crate::bench) uid: String,
    pub(in crate::bench) resource_version: String,
    pub(in crate::bench) deletion_timestamp: Option<String>,
    pub(in crate::bench) labels: HashMap<String, String>,
    pub(in crate::bench) r#continue: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::bench) struct PodSeen {
    pub(in crate::bench) metadata: Meta,
    pub(in crate::bench) spec: PodSpec,
    pub(in crate::bench) status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::bench) struct PodSpec {
    pub(in crate::bench) node_name: String,
    pub(in crate::bench) containers: Vec<ContainerSeen>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::bench) struct ContainerSeen {
    pub(in crate::bench) name: String,
    pub(in crate::bench) image: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::bench) struct NodeSeen {
    metadata: Meta,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::bench) struct Status {
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
}

impl Status {
    /// Whether the condition Ready is true.
    pub(in crate::bench) fn ready(&self) -> bool {
        self.conditions.iter().any(|c| c.r#type == "Ready" && c.status == "True")
    }
}

/// A pod, and when it was seen to be what.
#[derive(Clone)]
pub(in crate::bench) struct Pod {
    pub(in crate::bench) node: String,
    /// The label `version`.
    pub(in crate::bench) version: String,
    pub(in crate::bench) created: Instant,
    pub(in crate::bench) bound: Option<Instant>,
    pub(in crate::bench) ready: Option<Instant>,
    /// Whether it is ready now, and not about to go.
    pub(in crate::bench) serves: bool,
}

/// What has been seen.
#[derive(Default)]
pub(in crate::bench) struct Picture {
    /// By uid. Those that have gone are not in it.
    pub(in crate::bench) pods: HashMap<String, Pod>,
    /// By name: whether it is ready.
    pub(in crate::bench) nodes: HashMap<String, bool>,
    /// How many pods of each version serve. Counted along, because a look at 50,000 pods is not free.
    serving: HashMap<String, usize>,
}

impl Picture {
    /// How many pods of this version serve.
    pub(in crate::bench) fn serving(&self, version: &str) -> usize {
        self.serving.get(version).copied().unwrap_or(0)
    }
    /// How many nodes are ready.
    pub(in crate::bench) fn ready_nodes(&self) -> usize {
        self.nodes.values().filter(|ready| **ready).count()
    }
}

/// Somebody who looks.
#[derive(Clone)]
pub(in crate::bench) struct Observer {
    pub(in crate::bench) picture: Arc<Mutex<Picture>>,
}

impl Observer {
    /// Watches from now on, through restarts of the server, until the runtime ends.
    pub(in crate::bench) fn start(server: &Server, certificate: &str, key: &str) -> Result<Observer> {
        let observer = Observer { picture: Arc::default() };
        let tls = server.tls(Some((certificate, key)))?;
        let follow = (server.clone(), tls, observer.picture.clone());
        let (server, tls, picture) = follow.clone();
        tokio::spawn(async move {
            follow_kind::<PodSeen>(&server, &tls, "/api/v1/pods", |said| picture.lock().see_pod(said)).await;
        });
        let (server, tls, picture) = follow;
        tokio::spawn(async move {
            follow_kind::<NodeSeen>(&server, &tls, "/api/v1/nodes", |said| picture.lock().see_node(said)).await;
        });
        Ok(observer)
    }

    /// Waits until the picture is as it should be; fails with what it is like after too long. How long it took.
    pub(in crate::bench) async fn until(
        &self,
        what: &str,
        patience: Duration,
        mut is: impl FnMut(&Picture) -> (usize, usize),
    ) -> Result<Duration> {
        let begun = Instant::now();
        let mut wait = LOOK;
        loop {
            let (has, wants) = is(&self.picture.lock());
            if has >= wants {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > patience {
                bail!("{what}: {has} of {wants} after {} s", patience.as_secs());
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(20)).min(begun.elapsed() / 20).max(LOOK);
        }
    }
}

impl Picture {
    fn see_pod(&mut self, said: Said<PodSeen>) {
        match said {
            Said::All(pods) => {
                let there: HashSet<String> = pods.iter().map(|pod| pod.metadata.uid.clone()).collect();
                let gone: Vec<String> = self.pods.keys().filter(|uid| !there.contains(*uid)).cloned().collect();
                gone.iter().for_each(|uid| self.lose(uid));
                pods.into_iter().for_each(|pod| self.put(pod));
            }
            Said::Put(pod) => self.put(pod),
            Said::Gone(pod) => self.lose(&pod.metadata.uid),
        }
    }

    fn put(&mut self, pod: PodSeen) {
        let now = Instant::now();
        let ready = pod.status.ready();
        let known = self.pods.entry(pod.metadata.uid).or_insert_with(|| Pod {
            node: String::new(),
            version: pod.metadata.labels.get("version").cloned().unwrap_or_default(),
            created: now,
            bound: None,
            ready: None,
            serves: false,
        });
        if !pod.spec.node_name.is_empty() && known.bound.is_none() {
            known.bound = Some(now);
            known.node = pod.spec.node_name;
        }
        if ready {
            known.ready.get_or_insert(now);
        }
        let serves = ready && pod.metadata.deletion_timestamp.is_none();
        if serves != std::mem::replace(&mut known.serves, serves) {
            let count = self.serving.entry(known.version.clone()).or_default();
            *count = if serves { *count + 1 } else { *count - 1 };
        }
    }

    fn lose(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid).filter(|pod| pod.serves) {
            *self.serving.entry(pod.version).or_default() -= 1;
        }
    }

    fn see_node(&mut self, said: Said<NodeSeen>) {
        match said {
            Said::All(nodes) => self.nodes = nodes.into_iter().map(|node| (node.metadata.name, node.status.ready())).collect(),
            Said::Put(node) => drop(self.nodes.insert(node.metadata.name, node.status.ready())),
            Said::Gone(node) => drop(self.nodes.remove(&node.metadata.name)),
        }
    }
}

/// What a list or a watch says.
enum Said<T> {
    All(Vec<T>),
    Put(T),
    Gone(T),
}

/// Whoever has a resourceVersion.
trait Versioned {
    fn version(&self) -> &str;
}

impl Versioned for PodSeen {
    fn version(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl Versioned for NodeSeen {
    fn version(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// Lists, watches, and goes on where it was.
async fn follow_kind<T: DeserializeOwned + Versioned>(
    server: &Server,
    tls: &Arc<rustls::ClientConfig>,
    path: &str,
    mut see: impl FnMut(Said<T>),
) {
    let mut revision: Option<String> = None;
    loop {
        let ended: Result<()> = async {
            let wire = Wire::open(server, tls.clone(), None).await?;
            if revision.is_none() {
                let list: List<T> = wire.json(Method::GET, path, &Value::Null).await?;
                see(Said::All(list.items));
                revision = Some(list.metadata.resource_version);
            }
            let from = revision.clone().unwrap_or_default();
            let watch = format!("{path}?watch=true&timeoutSeconds=3600&resourceVersion={from}");
            let mut lines = Lines::new(wire.begin(Method::GET, &watch, "application/json", Vec::new()).await?);
            while let Some(line) = lines.next().await {
                match serde_json::from_slice::<Line<T>>(&line) {
                    Ok(Line { r#type, object }) if r#type != "ERROR" => {
                        revision = Some(object.version().to_owned());
                        see(if r#type == "DELETED" { Said::Gone(object) } else { Said::Put(object) });
                    }
                    // The past is no longer known: everything anew.
                    _ => revision = None,
                }
            }
            Ok(())
        }
        .await;
        // Who was cut off in a storm may come back too late for what it missed.
        if ended.is_err_and(|error| refused(&error, 410)) {
            revision = None;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
