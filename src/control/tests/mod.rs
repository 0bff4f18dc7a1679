//! The loops against a store in memory, with hosts that start every pod at once.

mod drive;
mod garbage;
mod node;
mod preempt;
mod random;
mod rollout;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use serde_json::{Value, json};

use super::{Context, Ids, Loop, Next, Options, loops};
use crate::object::admit::{self, DeleteOptions, Deletion, Stamp};
use crate::object::{Draft, Key, Kind, Object, Revision, kind_of};
use crate::store::{Store, Txn};

/// A little cluster under a virtual clock.
pub(super) struct World {
    pub(super) store: Store,
    pub(super) now: Timestamp,
    ids: Ids,
    loops: Vec<(Box<dyn Loop>, Next)>,
    /// Images whose containers never become ready.
    pub(super) broken: Vec<String>,
    /// Nodes whose agent does nothing.
    pub(super) silent: Vec<String>,
    /// Seconds between the binding of a pod and its readiness.
    pub(super) start_seconds: i64,
    /// Looked at after every step of a loop or of a host.
    pub(super) check: fn(&World),
}

impl World {
    pub(super) fn new(options: &Options) -> World {
        World {
            store: Store::memory(),
            now: "2026-11-21T00:00:00Z".parse().unwrap(),
            ids: Ids::seeded(1),
            loops: loops(options).into_iter().map(|l| (l, Next::Again)).collect(),
            broken: Vec::new(),
            silent: Vec::new(),
            start_seconds: 0,
            check: |_| {},
        }
    }

    /// Another server process: the loops remember nothing.
    pub(super) fn restart(&mut self, options: &Options) {
        self.loops = loops(options).into_iter().map(|l| (l, Next::Again)).collect();
    }

    pub(super) fn apply(&mut self, value: Value) {
        let kind = Kind::of_value(&value).expect("a kind");
        let stamp = Stamp { uid: self.ids.uid(), now: self.now };
        let draft = admit::create(kind, value.clone(), &stamp).unwrap_or_else(|refused| panic!("{refused}"));
        let mut txn = Txn::new();
        match self.store.get(&draft.key) {
            None => txn.create(draft),
            Some(old) => match admit::update(&old, value, None, self.now).unwrap_or_else(|refused| panic!("{refused}")) {
                Some(draft) => txn.update(draft, old.revision),
                None => return,
            },
        };
        self.store.commit(txn).unwrap();
        (self.check)(self);
    }

    /// Changes an object through its tree.
    pub(super) fn edit(&mut self, key: &Key, subresource: Option<&str>, change: impl FnOnce(&mut Value)) {
        let old = self.store.get(key).unwrap_or_else(|| panic!("{key} is there"));
        let mut value = old.value();
        change(&mut value);
        if let Some(draft) = admit::update(&old, value, subresource, self.now).unwrap_or_else(|refused| panic!("{refused}")) {
            let mut txn = Txn::new();
            txn.update(draft, old.revision);
            self.store.commit(txn).unwrap();
            (self.check)(self);
        }
    }

    pub(super) fn delete(&mut self, key: &Key, options: &DeleteOptions) {
        let old = self.store.get(key).unwrap_or_else(|| panic!("{key} is there"));
        let mut txn = Txn::new();
        match admit::delete(&old, options, self.now).unwrap() {
            Deletion::Remove => txn.delete(key.clone(), Some(old.revision)),
            Deletion::Mark(draft) => txn.update(draft, old.revision),
            Deletion::Unchanged => return,
        };
        self.store.commit(txn).unwrap();
        (self.check)(self);
    }

    pub(super) fn node(&mut self, name: &str, cpu: &str) {
        self.apply(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {
                "allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"},
                "capacity": {"cpu": cpu, "memory": "8Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            },
        }));
        let status = json!({
            "allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": self.now.to_string()}],
        });
        self.edit(&Key::of::<Node>("", name), Some("status"), |v| v["status"] = status);
    }

    pub(super) fn deployment(&mut self, name: &str, replicas: i32, image: &str, extra: Value) {
        let mut spec = json!({
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image, "resources": {"requests": {"cpu": "100m"}}}]},
            },
        });
        for (key, value) in extra.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let metadata = json!({"name": name, "namespace": "default"});
        self.apply(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}));
    }

    pub(super) fn list<K>(&self) -> Vec<(std::sync::Arc<Object>, std::sync::Arc<K>)>
    where
        K: k8s_openapi::Resource + serde::de::DeserializeOwned + Send + Sync + 'static,
    {
        let view = self.store.view();
        view.list(kind_of::<K>()).map(|o| (o.clone(), o.typed::<K>().unwrap())).collect()
    }

    /// One round: every loop that wants to, in order, then every host. Says whether anything was written.
    pub(super) fn round(&mut self) -> bool {
        let before = self.store.revision();
        for index in 0..self.loops.len() {
            let (body, _) = &mut self.loops[index];
            let mut cx = Context { store: &self.store, now: self.now, ids: &mut self.ids };
            let next = body.step(&mut cx).unwrap_or_else(|conflict| panic!("nobody else writes: {conflict}"));
            self.loops[index].1 = next;
            (self.check)(self);
        }
        self.hosts();
        self.store.revision() != before || self.loops.iter().any(|(_, next)| *next == Next::Again)
    }

    /// One step of one loop.
    pub(super) fn step(&mut self, index: usize) {
        let index = index % self.loops.len();
        let mut cx = Context { store: &self.store, now: self.now, ids: &mut self.ids };
        self.loops[index].0.step(&mut cx).unwrap_or_else(|conflict| panic!("nobody else writes: {conflict}"));
    }

    /// What the hosts' agents do: start what is bound to them, stop what is being deleted, renew their leases.
    fn hosts(&mut self) {
        for (object, pod) in self.list::<Pod>() {
            let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.clone()) else { continue };
            if self.silent.contains(&node) {
                continue;
            }
            if object.meta.deleting() {
                self.delete(&object.key, &DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() });
                continue;
            }
            if crate::plan::rollout::ended(&pod) {
                continue;
            }
            let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
            let Some(started) = started else {
                let now = crate::plan::rollout::stamp(self.now);
                self.edit(&object.key, Some("status"), |v| v["status"]["startTime"] = json!(now));
                continue;
            };
            let image = pod.spec.as_ref().and_then(|s| s.containers[0].image.clone()).unwrap_or_default();
            let ready = !self.broken.contains(&image) && self.now.duration_since(started).as_secs() >= self.start_seconds;
            if ready != crate::plan::rollout::ready(&pod) {
                let now = crate::plan::rollout::stamp(self.now);
                let status = if ready { "True" } else { "False" };
                self.edit(&object.key, Some("status"), |v| {
                    v["status"]["phase"] = json!("Running");
                    let conditions = v["status"]["conditions"].as_array_mut().expect("it was scheduled");
                    conditions.retain(|c| c["type"] != "Ready");
                    conditions.push(json!({"type": "Ready", "status": status, "lastTransitionTime": now}));
                });
            }
        }
    }

    /// Rounds until nothing is written any more, without time passing.
    pub(super) fn settle(&mut self) {
        for _ in 0..60 {
            if !self.round() {
                return;
            }
        }
        panic!("does not come to rest:\n{}", self.show());
    }

    /// Lets time pass in steps of a second, settling after each. Agents renew their leases every ten seconds.
    pub(super) fn pass(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += SignedDuration::from_secs(1);
            if self.now.as_second() % 10 == 0 {
                self.heartbeat();
            }
            self.settle();
        }
    }

    /// Every agent that is not silent renews its lease.
    pub(super) fn heartbeat(&mut self) {
        for (object, node) in self.list::<Node>() {
            let name = &*object.key.name;
            if self.silent.iter().any(|s| s == name) {
                continue;
            }
            let lease = json!({
                "metadata": {"name": name, "namespace": super::node::LEASES, "uid": name},
                "spec": {"renewTime": self.now.to_string()},
            });
            let mut txn = Txn::new();
            txn.put(Draft::new(kind_of::<Lease>(), lease));
            self.store.commit(txn).unwrap();
            let known = crate::plan::node::ready_condition(&node).map(|c| c.status.clone());
            if known.as_deref() != Some("True") {
                let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": self.now.to_string()});
                self.edit(&object.key, Some("status"), |v| v["status"]["conditions"] = json!([ready]));
            }
        }
    }

    /// Deployments, replica sets and pods in a few lines.
    pub(super) fn show(&self) -> String {
        let mut text = String::new();
        for (object, d) in self.list::<Deployment>() {
            let status = d.status.clone().unwrap_or_default();
            let n = |n: Option<i32>| n.unwrap_or(0);
            let _ = write!(text, "deployment {}", object.key.name);
            let (updated, ready, available) =
                (n(status.updated_replicas), n(status.ready_replicas), n(status.available_replicas));
            let _ = write!(
                text,
                " {}/{} updated {updated} ready {ready} available {available}",
                n(status.replicas),
                n(d.spec.replicas)
            );
            for condition in status.conditions.iter().flatten() {
                let (kind, reason) = (condition.type_.clone().unwrap_or_default(), condition.reason.clone().unwrap_or_default());
                let _ = write!(text, " {kind}={}({reason})", condition.status.clone().unwrap_or_default());
            }
            text.push('\n');
        }
        for (object, set) in self.list::<ReplicaSet>() {
            let image = set.spec.template.as_ref().and_then(|t| t.spec.as_ref()).and_then(|s| s.containers[0].image.clone());
            let revision = object.meta.annotations.get("deployment.kubernetes.io/revision").cloned().unwrap_or_default();
            let status = set.status.clone().unwrap_or_default();
            let _ = writeln!(
                text,
                "  set {} revision {revision}: {}/{} ready {}",
                image.unwrap_or_default(),
                status.replicas,
                set.spec.replicas.unwrap_or(0),
                status.ready_replicas.unwrap_or(0)
            );
        }
        let mut pods: BTreeMap<String, usize> = BTreeMap::new();
        for (object, pod) in self.list::<Pod>() {
            let spec = pod.spec.clone().unwrap_or_default();
            let state = match (object.meta.deleting(), crate::plan::rollout::ready(&pod)) {
                (true, _) => "leaving",
                (_, true) => "ready",
                _ => "not ready",
            };
            let image = spec.containers[0].image.clone().unwrap_or_default();
            let line = format!("    pod {image} on {} {state}", spec.node_name.as_deref().unwrap_or("no node"));
            *pods.entry(line).or_default() += 1;
        }
        for (line, count) in pods {
            let _ = writeln!(text, "{line} x{count}");
        }
        text
    }

    /// What was said, one line per event.
    pub(super) fn events(&self) -> String {
        let mut lines: Vec<(Revision, String)> = Vec::new();
        for (object, event) in self.list::<Event>() {
            let about = event.involved_object.kind.clone().unwrap_or_default();
            let (reason, message) = (event.reason.clone().unwrap_or_default(), event.message.clone().unwrap_or_default());
            lines.push((object.revision, format!("{about} {reason}: {message} x{}", event.count.unwrap_or(1))));
        }
        lines.sort();
        lines.into_iter().map(|(_, line)| line + "\n").collect()
    }
}

pub(super) fn key<K: k8s_openapi::Resource>(name: &str) -> Key {
    Key::of::<K>("default", name)
}
