//! Carries `plan::rollout::replica_set` to the store: pods are created, deleted, adopted and let go, and the replica set's status written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;

use super::deployment::{StoredPod, looks_different, pods_of};
use super::event::{Recorder, Severity, leaving};
use super::keyed::{Cursor, Keys, News, Trouble};
use super::{Context, Loop, Next, write};
use crate::object::{Key, Object, kind_of};
use crate::plan::rollout::replica_set as plan;
use crate::plan::rollout::{self, active, available, available_from, deployment};
use crate::store::{Conflict, Txn, View};

/// The loop for replica sets.
pub(super) struct ReplicaSets {
    cursor: Cursor,
    keys: Keys,
    events: Recorder,
    strays: Strays,
}

/// What a replica set may need beside what it owns.
#[derive(Default)]
struct Strays {
    /// Pods that nobody controls, by namespace: the only ones that could be adopted.
    orphans: BTreeMap<Arc<str>, BTreeSet<Key>>,
    /// Replica sets that keep pods for now because the Deployment cannot spare them. They look again when any pod there changes.
    held: BTreeSet<Key>,
}

impl ReplicaSets {
    pub(super) fn new() -> Self {
        let events = Recorder::new("replicaset-controller");
        ReplicaSets { cursor: Cursor::default(), keys: Keys::default(), events, strays: Strays::default() }
    }

    fn notice(&mut self, view: &View, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        let Some(key) = new.or(old).map(|o| &o.key) else { return };
        if key.kind == kind_of::<ReplicaSet>() {
            self.keys.add(key.clone());
            self.wake_held(key);
        } else if key.kind == kind_of::<Deployment>() {
            self.wake_held(key);
        } else if key.kind == kind_of::<Pod>() {
            let orphan = new.is_some_and(|o| o.meta.controller().is_none());
            let orphans = self.strays.orphans.entry(key.namespace.clone()).or_default();
            if orphan {
                orphans.insert(key.clone())
            } else {
                orphans.remove(key)
            };
            if !looks_different(old, new) {
                return;
            }
            self.wake_held(key);
            for version in [old, new].into_iter().flatten() {
                if let Some(owner) = version.meta.controller_of::<ReplicaSet>() {
                    self.keys.add(Key::of::<ReplicaSet>(&key.namespace, &owner.name));
                }
            }
            if let Some(pod) = new.filter(|_| orphan) {
                for set in view.list_in(kind_of::<ReplicaSet>(), &key.namespace) {
                    if set.typed::<ReplicaSet>().is_ok_and(|typed| plan::could_adopt(&typed, &pod.meta.labels)) {
                        self.keys.add(set.key.clone());
                    }
                }
            }
        }
    }

    fn wake_held(&mut self, near: &Key) {
        let waiting: Vec<Key> = self.strays.held.iter().filter(|k| k.namespace == near.namespace).cloned().collect();
        for key in waiting {
            self.strays.held.remove(&key);
            self.keys.add(key);
        }
    }
}

impl Loop for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicaset"
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<Next, Conflict> {
        match self.cursor.news(cx.store) {
            News::Everything(view) => {
                for object in view.list(kind_of::<ReplicaSet>()) {
                    self.keys.add(object.key.clone());
                }
                for pod in view.list(kind_of::<Pod>()).filter(|o| o.meta.controller().is_none()) {
                    self.notice(&view, None, Some(pod));
                }
            }
            News::Changes(changes) => {
                let view = cx.store.view();
                for change in &changes {
                    self.notice(&view, change.old.as_ref(), change.new.as_ref());
                }
            }
        }
        let (events, strays) = (&mut self.events, &mut self.strays);
        let next = self.keys.run("replicaset", cx.now, |key| look(cx, key, events, strays));
        self.events.flush(cx.store);
        next
    }
}

/// The Deployment of a replica set, and all pods of its replica sets.
struct Family {
    deployment: Arc<Deployment>,
    pods: Vec<StoredPod>,
}

fn family(view: &View, set: &Object) -> Result<Option<Family>, Trouble> {
    let Some(owner) = set.meta.controller_of::<Deployment>() else { return Ok(None) };
    let found = view.get(&Key::of::<Deployment>(&set.key.namespace, &owner.name)).filter(|d| d.meta.uid == owner.uid);
    let Some(object) = found else { return Ok(None) };
    let siblings = view.owned_by(&owner.uid).filter(|o| o.key.kind == kind_of::<ReplicaSet>());
    let mut pods = Vec::new();
    for sibling in siblings {
        pods.extend(pods_of(view, &sibling.meta.uid)?);
    }
    Ok(Some(Family { deployment: object.typed::<Deployment>()?, pods }))
}

fn look(cx: &mut Context<'_>, key: &Key, events: &mut Recorder, strays: &mut Strays) -> Result<Option<Timestamp>, Trouble> {
    let view = cx.store.view();
    let Some(object) = view.get(key).cloned() else { return Ok(None) };
    let set = object.typed::<ReplicaSet>()?;
    let mut pods = pods_of(&view, &object.meta.uid)?;
    for orphan in strays.orphans.get(&key.namespace).into_iter().flatten().filter_map(|k| view.get(k)) {
        if plan::could_adopt(&set, &orphan.meta.labels) {
            pods.push((orphan.clone(), orphan.part::<Pod>(&rollout::READ)?));
        }
    }
    let wanted = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    let shrinks = pods.iter().filter(|(_, p)| active(p)).count() > wanted;
    // Only who wants to delete has to know about the rest of the family.
    let family = if shrinks { family(&view, &object)? } else { None };
    let relatives = family.as_ref().map_or(&pods, |f| &f.pods);
    let mut crowds: BTreeMap<String, usize> = BTreeMap::new();
    if shrinks {
        for node in relatives.iter().filter(|(_, p)| active(p)).filter_map(|(_, p)| p.spec.as_ref()?.node_name.clone()) {
            *crowds.entry(node).or_default() += 1;
        }
    }
    let spare = family.as_ref().and_then(|f| {
        let all: Vec<&Pod> = f.pods.iter().map(|(_, p)| &**p).collect();
        deployment::spare(&f.deployment, &all, cx.now)
    });
    let input = plan::Input { set: &set, pods: pods.iter().map(|(_, p)| &**p).collect(), crowds: &crowds, spare, now: cx.now };
    let plan = plan::plan(&input);
    let mut again = plan.again;
    let mut txn = Txn::new();
    let mut told: Vec<(Severity, &'static str, String)> = Vec::new();
    for index in &plan.adopt {
        let owners = rollout::adopted(&pods[*index].1.metadata, plan::owner(&set));
        set_owners(&mut txn, &pods[*index].0, &owners);
    }
    for index in &plan.release {
        let owners = rollout::released(&pods[*index].1.metadata, &object.meta.uid);
        set_owners(&mut txn, &pods[*index].0, &owners);
    }
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    let mut serving_goes = false;
    for index in &plan.delete {
        let (pod, typed) = &pods[*index];
        serving_goes |= available(typed, min_ready, cx.now);
        if write::delete(&mut txn, pod, None, None, cx.now) {
            told.push((Severity::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pod.key.name)));
        }
    }
    if let Some(family) = family.as_ref().filter(|_| spare.is_some()) {
        let needed = pods.iter().filter(|(_, p)| active(p)).count() - wanted;
        if plan.delete.len() < needed.min(plan::BURST) {
            strays.held.insert(key.clone());
            let due =
                family.pods.iter().filter_map(|(_, p)| available_from(p, family.deployment.spec.min_ready_seconds.unwrap_or(0)));
            again = again.into_iter().chain(due.filter(|at| *at > cx.now).min()).min();
        }
        if serving_goes {
            // Whom the Deployment counts on must still be what it was when we decided that this one can go.
            for (pod, _) in family.pods.iter().filter(|(_, p)| active(p) && available(p, min_ready, cx.now)) {
                txn.expect(pod.key.clone(), Some(pod.revision));
            }
        }
    }
    let (created, refused) = create(cx, &view, &set, plan.create, &mut txn, &mut told);
    match plan::status(&input, &plan, created, refused.as_deref()) {
        Some(status) => txn.update(write::with_status(&object, &status), object.revision),
        // Who adopts, creates or deletes must still be there, and not be leaving.
        None => txn.expect(key.clone(), Some(object.revision)),
    };
    if !txn.is_empty() {
        cx.store.commit(txn)?;
    }
    for (severity, reason, message) in &told {
        events.record(cx, &object, *severity, reason, message);
    }
    match refused {
        Some(why) => Err(Trouble::Bad(why)),
        None => Ok(again),
    }
}

/// Adds new pods to the transaction. All are alike, so the first refusal is everybody's.
fn create(
    cx: &mut Context<'_>,
    view: &View,
    set: &ReplicaSet,
    count: usize,
    txn: &mut Txn,
    told: &mut Vec<(Severity, &'static str, String)>,
) -> (usize, Option<String>) {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    if count == 0 || leaving(cx.store, namespace) {
        return (0, None);
    }
    let mut names = BTreeSet::new();
    while names.len() < count {
        let pod = plan::pod(set, &cx.ids.suffix(5));
        let name = pod.metadata.name.clone().unwrap_or_default();
        if names.contains(&name) || view.get(&Key::of::<Pod>(namespace, &name)).is_some() {
            continue;
        }
        match write::new_object(cx, &pod) {
            Ok(draft) => txn.create(draft),
            Err(refused) => {
                told.push((Severity::Warning, "FailedCreate", format!("Error creating: {refused}")));
                return (names.len(), Some(refused.to_string()));
            }
        };
        told.push((Severity::Normal, "SuccessfulCreate", format!("Created pod: {name}")));
        names.insert(name);
    }
    (count, None)
}

fn set_owners(txn: &mut Txn, pod: &Object, owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference]) {
    let draft = write::edited(pod, |v| {
        v["metadata"]["ownerReferences"] = serde_json::to_value(owners).expect("owner references can be written");
    });
    txn.update(draft, pod.revision);
}
