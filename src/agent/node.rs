//! The host as the server sees it: its Node, and the Lease that says that it lives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Options;
use crate::client::{Client, Error};
use crate::clock;
use crate::docker::Info;
use crate::object::quantity::Quantity;
use crate::object::time;

/// Where the leases of nodes are.
const LEASES: &str = "kube-node-lease";
/// After so many renewals the Node itself is looked at: somebody may have judged or removed it meanwhile.
const LOOK_EVERY: u32 = 6;
/// The share of memory that pods do not get, in percent, and the most of it, in bytes: for the system, the engine and the agent.
const RESERVED: (u64, u64) = (5, 256 << 20);

/// What describes this host.
pub(super) struct Host {
    pub(super) node: String,
    pub(super) address: String,
    pub(super) info: Info,
    pub(super) options: Options,
    /// Whether the engine answers, as the heart knows.
    pub(super) engine_answers: Arc<AtomicBool>,
}

/// The host's address as others reach it: the one from which we reach the server.
pub(super) async fn own_address(server: &str) -> Option<String> {
    let uri: http::Uri = server.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let target = tokio::net::lookup_host((host, uri.port_u16().unwrap_or(443))).await.ok()?.next()?;
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    // Connecting a datagram socket sends nothing: it only asks the kernel for the way.
    let socket = tokio::net::UdpSocket::bind(any).await.ok()?;
    socket.connect(target).await.ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

impl Host {
    /// Registers the node and keeps its lease until `stop`.
    pub(super) async fn run(self, client: tokio::sync::watch::Receiver<Client>, stop: CancellationToken) {
        let every = self.options.renew_every.max(Duration::from_millis(100));
        let mut since_look = 0;
        let mut registered = false;
        let mut announced_engine = true;
        let mut silent = false;
        let mut last_good = tokio::time::Instant::now();
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // A host that was asleep and a server that was away are told anew how things stand.
        let stale = self.options.lease / 2;
        while !stop.is_cancelled() {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let client = client.borrow().clone();
            let engine = self.engine_answers.load(Ordering::Relaxed);
            let look = !registered || since_look >= LOOK_EVERY || last_good.elapsed() > stale || engine != announced_engine;
            let result = tokio::time::timeout(every.max(Duration::from_secs(5)), async {
                if look {
                    self.register(&client, engine).await.context("register the node")?;
                }
                self.renew(&client).await.context("renew the lease")
            });
            match result.await {
                Ok(Ok(())) => {
                    if !registered {
                        tracing::info!(node = self.node, address = self.address, "the node is registered");
                    }
                    if std::mem::take(&mut silent) {
                        tracing::info!(node = self.node, "the server hears from this host again");
                    }
                    registered = true;
                    announced_engine = engine;
                    last_good = tokio::time::Instant::now();
                    since_look = if look { 0 } else { since_look + 1 };
                }
                Ok(Err(error)) => {
                    // Said once: while the server is away, everything goes on as it is.
                    if !std::mem::replace(&mut silent, true) {
                        tracing::warn!(node = self.node, error = format!("{error:#}"), "the server does not hear from this host");
                    }
                    ticks.reset_after(every.min(Duration::from_secs(2)));
                }
                Err(_) if !std::mem::replace(&mut silent, true) => {
                    tracing::warn!(node = self.node, "the server does not answer in time");
                }
                Err(_) => {}
            }
        }
    }

    async fn renew(&self, client: &Client) -> Result<(), Error> {
        let lease = json!({
            "metadata": {"name": self.node, "namespace": LEASES},
            "spec": {
                "holderIdentity": self.node,
                "leaseDurationSeconds": self.options.lease.as_secs().max(1),
                "renewTime": time::micros(clock::now()),
            },
        });
        match client.merge_patch::<Lease>(LEASES, &self.node, None, &lease).await {
            Err(error) if error.is_not_found() => {
                let lease: Lease = serde_json::from_value(lease).map_err(|e| Error::Garbled(e.into()))?;
                client.create(LEASES, &lease).await.map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }

    /// Makes the Node what it should be, and writes nothing where it is so already.
    async fn register(&self, client: &Client, engine: bool) -> Result<()> {
        let labels = self.labels();
        let node = match client.get::<Node>("", &self.node).await? {
            Some(node) => node,
            None => {
                let taints: Vec<Value> = self.options.taints.iter().map(|t| taint(t)).collect::<Result<_>>()?;
                let node = json!({
                    "metadata": {"name": self.node, "labels": labels},
                    "spec": if taints.is_empty() { json!({}) } else { json!({ "taints": taints }) },
                });
                client.create("", &serde_json::from_value::<Node>(node)?).await?
            }
        };
        let has = node.metadata.labels.clone().unwrap_or_default();
        if labels.iter().any(|(name, value)| has.get(name) != Some(value)) {
            client.merge_patch::<Node>("", &self.node, None, &json!({"metadata": {"labels": labels}})).await?;
        }
        let old = serde_json::to_value(&node.status)?;
        let status = self.status(&old, engine);
        if !same(&old, &status) {
            client.merge_patch::<Node>("", &self.node, Some("status"), &json!({ "status": status })).await?;
        }
        Ok(())
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.options.labels.clone();
        let mut put = |name: &str, value: &str| labels.insert(name.to_owned(), value.to_owned());
        put("kubernetes.io/hostname", &self.node);
        put("kubernetes.io/os", &self.info.os);
        put("kubernetes.io/arch", &self.info.architecture);
        labels
    }

    fn status(&self, old: &Value, engine: bool) -> Value {
        let info = &self.info;
        let reserved = (info.memory * RESERVED.0 / 100).min(RESERVED.1);
        let bytes = |bytes: u64| Quantity::bytes(i64::try_from(bytes / 1024 * 1024).unwrap_or(i64::MAX)).to_string();
        let now = clock::now();
        let stamp = |seconds: i64| jiff::Timestamp::from_second(seconds).map(|t| t.to_string()).unwrap_or_default();
        let now = stamp(now.as_second());
        let condition = |kind: &str, on: bool, reason: &str, message: &str| {
            let status = if on { "True" } else { "False" };
            let before = old["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind);
            let since =
                before.filter(|c| c["status"] == status).map_or_else(|| now.clone().into(), |c| c["lastTransitionTime"].clone());
            json!({"type": kind, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": now, "lastTransitionTime": since})
        };
        let mut conditions = vec![
            condition("MemoryPressure", false, "KubeletHasSufficientMemory", "the host has memory to spare"),
            condition("DiskPressure", false, "KubeletHasNoDiskPressure", "the host has disk space to spare"),
            condition("PIDPressure", false, "KubeletHasSufficientPID", "the host has room for processes"),
            match engine {
                true => condition("Ready", true, "KubeletReady", "the agent runs and the container engine answers"),
                false => condition("Ready", false, "RuntimeUnresponsive", "the container engine does not answer"),
            },
        ];
        let ours: Vec<String> = conditions.iter().filter_map(|c| c["type"].as_str().map(str::to_owned)).collect();
        let others = old["conditions"].as_array().into_iter().flatten();
        conditions.extend(others.filter(|c| !ours.iter().any(|o| c["type"] == o.as_str())).cloned());
        json!({
            "capacity": {"cpu": info.cpus.to_string(), "memory": bytes(info.memory), "pods": self.options.max_pods.to_string()},
            "allocatable": {"cpu": info.cpus.to_string(), "memory": bytes(info.memory - reserved), "pods": self.options.max_pods.to_string()},
            "addresses": [{"type": "InternalIP", "address": self.address}, {"type": "Hostname", "address": self.node}],
            "conditions": conditions,
            "nodeInfo": {
                "architecture": info.architecture, "operatingSystem": info.os, "osImage": info.os_image,
                "kernelVersion": info.kernel, "containerRuntimeVersion": format!("{}://{}", info.engine, info.version),
                "kubeletVersion": concat!("v", env!("CARGO_PKG_VERSION"), "-portolan"), "kubeProxyVersion": "",
                "machineID": machine("/etc/machine-id"), "systemUUID": machine("/sys/class/dmi/id/product_uuid"),
                "bootID": machine("/proc/sys/kernel/random/boot_id"),
            },
        })
    }
}

fn machine(path: &str) -> String {
    std::fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default()
}

/// Whether what we want to say is what is there, but for the time at which it was said.
fn same(old: &Value, new: &Value) -> bool {
    let plain = |value: &Value| {
        let mut value = value.clone();
        for condition in value["conditions"].as_array_mut().into_iter().flatten() {
            if let Some(fields) = condition.as_object_mut() {
                fields.remove("lastHeartbeatTime");
            }
        }
        value
    };
    let (old, new) = (plain(old), plain(new));
    new.as_object().into_iter().flatten().all(|(field, value)| old.get(field) == Some(value))
}

/// `key=value:Effect` or `key:Effect`.
fn taint(text: &str) -> Result<Value> {
    let (pair, effect) = text.rsplit_once(':').with_context(|| format!("taint {text:?}: want key=value:Effect"))?;
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        anyhow::bail!("taint {text:?}: the effect is NoSchedule, PreferNoSchedule or NoExecute");
    }
    Ok(if value.is_empty() {
        json!({"key": key, "effect": effect})
    } else {
        json!({"key": key, "value": value, "effect": effect})
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints() {
        assert_eq!(taint("a=b:NoSchedule").unwrap(), json!({"key": "a", "value": "b", "effect": "NoSchedule"}));
        assert_eq!(taint("a:NoExecute").unwrap(), json!({"key": "a", "effect": "NoExecute"}));
        assert!(taint("a").is_err() && taint("a:Never").is_err());
    }
}
