//! Carries `plan::rollout::deployment` to the store: replica sets are created, scaled and deleted, and the Deployment's status written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::event::{Recorder, Severity, leaving};
use super::keyed::{Cursor, Keys, News, Trouble};
use super::{Context, Loop, Next, write};
use crate::object::{Key, Object, kind_of};
use crate::plan::rollout::deployment::{self, Member};
use crate::plan::rollout::{self, Claim};
use crate::store::{Conflict, Txn, View};

/// The loop for Deployments.
pub(super) struct Deployments {
    cursor: Cursor,
    keys: Keys,
    events: Recorder,
    /// Replica sets that nobody controls, by namespace: the only ones that could be adopted.
    orphans: BTreeMap<Arc<str>, BTreeSet<Key>>,
}

impl Deployments {
    pub(super) fn new() -> Self {
        let events = Recorder::new("deployment-controller");
        Deployments { cursor: Cursor::default(), keys: Keys::default(), events, orphans: BTreeMap::new() }
    }

    fn notice(&mut self, view: &View, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        let Some(key) = new.or(old).map(|o| &o.key) else { return };
        if key.kind == kind_of::<Deployment>() {
            self.keys.add(key.clone());
        } else if key.kind == kind_of::<ReplicaSet>() {
            for version in [old, new].into_iter().flatten() {
                self.keys_of_owner(version);
            }
            let orphan = new.is_some_and(|o| o.meta.controller().is_none());
            let orphans = self.orphans.entry(key.namespace.clone()).or_default();
            if orphan {
                orphans.insert(key.clone());
                for deployment in view.list_in(kind_of::<Deployment>(), &key.namespace) {
                    self.keys.add(deployment.key.clone());
                }
            } else {
                orphans.remove(key);
            }
        } else if key.kind == kind_of::<Pod>() && looks_different(old, new) {
            for version in [old, new].into_iter().flatten() {
                let Some(owner) = version.meta.controller_of::<ReplicaSet>() else { continue };
                if let Some(set) = view.get(&Key::of::<ReplicaSet>(&key.namespace, &owner.name)) {
                    self.keys_of_owner(set);
                }
            }
        }
    }

    fn keys_of_owner(&mut self, set: &Object) {
        if let Some(owner) = set.meta.controller_of::<Deployment>() {
            self.keys.add(Key::of::<Deployment>(&set.key.namespace, &owner.name));
        }
    }
}

/// Whether a change of a pod is one that a rollout minds. Most are not: a container's status, a new heartbeat.
pub(super) fn looks_different(old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    if (&old.meta.labels, &old.meta.owners, old.meta.deleting()) != (&new.meta.labels, &new.meta.owners, new.meta.deleting()) {
        return true;
    }
    let (Ok(old), Ok(new)) = (old.part::<Pod>(&rollout::READ), new.part::<Pod>(&rollout::READ)) else { return true };
    let facts = |pod: &Pod| (rollout::ended(pod), rollout::ready(pod), rollout::ready_since(pod));
    facts(&old) != facts(&new)
}

/// A pod, as it is stored and as far as rollouts read it.
pub(super) type StoredPod = (Arc<Object>, Arc<Pod>);

/// The pods that an object controls.
pub(super) fn pods_of(view: &View, uid: &str) -> Result<Vec<StoredPod>, Trouble> {
    let controlled = |o: &&Arc<Object>| o.key.kind == kind_of::<Pod>() && o.meta.controller().is_some_and(|c| c.uid == uid);
    view.owned_by(uid).filter(controlled).map(|o| Ok((o.clone(), o.part::<Pod>(&rollout::READ)?))).collect()
}

impl Loop for Deployments {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<Next, Conflict> {
        match self.cursor.news(cx.store) {
            News::Everything(view) => {
                for kind in [kind_of::<Deployment>(), kind_of::<ReplicaSet>()] {
                    for object in view.list(kind) {
                        self.notice(&view, None, Some(object));
                    }
                }
            }
            News::Changes(changes) => {
                let view = cx.store.view();
                for change in &changes {
                    self.notice(&view, change.old.as_ref(), change.new.as_ref());
                }
            }
        }
        let (events, orphans) = (&mut self.events, &self.orphans);
        let next = self.keys.run("deployment", cx.now, |key| look(cx, key, events, orphans.get(&key.namespace)));
        self.events.flush(cx.store);
        next
    }
}

fn look(
    cx: &mut Context<'_>,
    key: &Key,
    events: &mut Recorder,
    orphans: Option<&BTreeSet<Key>>,
) -> Result<Option<Timestamp>, Trouble> {
    let view = cx.store.view();
    let Some(object) = view.get(key).cloned() else { return Ok(None) };
    let typed = object.typed::<Deployment>()?;
    let mut sets: Vec<(Arc<Object>, Arc<ReplicaSet>)> = Vec::new();
    let mut txn = Txn::new();
    let known = view.owned_by(&object.meta.uid).filter(|o| o.key.kind == kind_of::<ReplicaSet>());
    let strays = orphans.into_iter().flatten().filter_map(|key| view.get(key));
    for set in known.chain(strays) {
        let typed_set = set.typed::<ReplicaSet>()?;
        let owners = match rollout::claim(&typed.metadata, &typed.spec.selector, &typed_set.metadata) {
            Claim::Mine => {
                sets.push((set.clone(), typed_set));
                continue;
            }
            Claim::Foreign => continue,
            Claim::Adopt => rollout::adopted(&typed_set.metadata, deployment::owner(&typed)),
            Claim::Release => rollout::released(&typed_set.metadata, &object.meta.uid),
        };
        txn.update(write::edited(set, |v| v["metadata"]["ownerReferences"] = tree(&owners)), set.revision);
    }
    if !txn.is_empty() {
        // The owner is read live: one that is on its way out adopts nothing. What comes of it is news, and seen in the next step.
        txn.expect(key.clone(), Some(object.revision));
        cx.store.commit(txn)?;
        return Ok(None);
    }
    let pods = sets.iter().map(|(set, _)| pods_of(&view, &set.meta.uid)).collect::<Result<Vec<_>, _>>()?;
    let members = sets.iter().zip(&pods).map(|((_, set), pods)| Member { set, pods: pods.iter().map(|(_, p)| &**p).collect() });
    let taken = |name: &str| view.get(&Key::of::<ReplicaSet>(&key.namespace, name)).is_some();
    let input = deployment::Input { deployment: &typed, sets: members.collect(), taken: &taken, now: cx.now };
    let plan = deployment::plan(&input);
    if plan.is_empty() {
        return Ok(plan.again);
    }
    if let Some(set) = &plan.create
        && !leaving(cx.store, &key.namespace)
    {
        let draft = write::new_object(cx, &**set).map_err(|refused| Trouble::Bad(refused.to_string()))?;
        txn.create(draft);
    }
    for (index, planned) in &plan.update {
        let old = &sets[*index].0;
        let before = &sets[*index].1;
        let change = |v: &mut Value| {
            v["metadata"]["annotations"] = tree(&planned.metadata.annotations);
            v["spec"]["replicas"] = tree(&planned.spec.replicas);
            if planned.spec.min_ready_seconds != before.spec.min_ready_seconds {
                v["spec"]["minReadySeconds"] = tree(&planned.spec.min_ready_seconds);
            }
        };
        let draft = if planned.spec == before.spec { write::edited(old, change) } else { write::respecified(old, change) };
        txn.update(draft, old.revision);
    }
    for index in &plan.delete {
        write::delete(&mut txn, &sets[*index].0, None, None, cx.now);
    }
    if plan.status.is_some() || plan.annotations.is_some() {
        let draft = write::edited(&object, |v| {
            if let Some(annotations) = &plan.annotations {
                v["metadata"]["annotations"] = tree(annotations);
            }
            if let Some(status) = &plan.status {
                write::set_status(v, status);
            }
        });
        txn.update(draft, object.revision);
    } else {
        txn.expect(key.clone(), Some(object.revision));
    }
    cx.store.commit(txn)?;
    for (reason, message) in &plan.events {
        events.record(cx, &object, Severity::Normal, reason, message);
    }
    Ok(plan.again)
}

fn tree<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("metadata can be written")
}
