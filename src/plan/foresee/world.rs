//! A world in memory that moves as the cluster would.
//!
//! Not here: what there was before and what is told of how it went.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Namespace, Pod, PodCondition, PodStatus};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Extent, Input, Move, Resident, Waves};
use crate::object::Key;
use crate::object::admit::assign;
use crate::plan::rollout::deployment::{self, Member};
use crate::plan::rollout::{active, available, bounds, ready, replica_set, stamp};
use crate::plan::schedule::{self, Budget, Cluster, Decision, Resort, Scheduler};

/// Rounds after which it is given up: a rollout of the largest allowed Deployment, one pod at a time, takes fewer.
const MOST_ROUNDS: usize = 20_000;
/// Time is moved on to the next thing that happens, but no further than this: progress deadlines are not what is asked about.
pub(super) const LONGEST: SignedDuration = SignedDuration::from_hours(1);

type Name = (String, String);

/// How a workload's pods have been doing.
pub(super) struct Watched {
    pub(super) extent: Extent,
    /// Whether any of them moved at all.
    pub(super) moved: bool,
}

/// What there is, and what has happened.
pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) deployments: BTreeMap<Name, Deployment>,
    pub(super) sets: BTreeMap<Name, ReplicaSet>,
    pub(super) pods: BTreeMap<Name, Arc<Pod>>,
    /// Pods that nobody has looked at yet, by the uid of their controller.
    residents: BTreeMap<String, Vec<Resident>>,
    cluster: Cluster,
    scheduler: Scheduler,
    /// What may have something to do.
    touched: BTreeSet<Name>,
    touched_sets: BTreeSet<Name>,
    unplaced: BTreeSet<Name>,
    /// Pods that have a host and are not ready yet.
    starting: BTreeSet<Name>,
    /// Pods that were asked to go and have not stopped yet.
    leaving: BTreeSet<Name>,
    pub(super) waiting: BTreeMap<Name, String>,
    pub(super) started: Vec<Name>,
    /// Pods that were there before with a host.
    pub(super) stopped: Vec<Move>,
    /// Pods that were there before without one.
    late: BTreeSet<Name>,
    pub(super) extents: BTreeMap<Name, Watched>,
    pub(super) classes: BTreeMap<Name, PriorityClass>,
    pub(super) budgets: BTreeMap<Name, PodDisruptionBudget>,
    numbers: u64,
}

pub(super) fn name_of(meta: &ObjectMeta) -> Name {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn by_name<T>(list: Vec<T>, meta: impl Fn(&T) -> &ObjectMeta) -> BTreeMap<Name, T> {
    list.into_iter().map(|item| (name_of(meta(&item)), item)).collect()
}

pub(super) fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

impl World {
    /// And what is written, and what is deleted.
    pub(super) fn new(input: Input) -> (World, Waves, Vec<Key>) {
        let Input { before, picture: mut cluster, waves, prune, strategy, seed, now } = input;
        for namespace in &before.namespaces {
            let name = namespace.metadata.name.as_deref().unwrap_or_default();
            cluster.set_namespace(name, namespace.metadata.labels.as_ref());
        }
        let pods: BTreeMap<Name, Arc<Pod>> = by_name(before.pods, |p| &p.metadata);
        let there = pods.len() + before.residents.len();
        let mut residents: BTreeMap<String, Vec<Resident>> = BTreeMap::new();
        for resident in before.residents {
            match residents.get_mut(resident.common.owner()) {
                Some(others) => others.push(resident),
                None => drop(residents.insert(resident.common.owner().to_owned(), vec![resident])),
            }
        }
        let unplaced = pods.iter().filter(|(_, p)| schedule::awaits_node(p)).map(|(n, _)| n.clone()).collect();
        // Those that go already take their places until they are gone; those that come will be there.
        let leaving = pods.iter().filter(|(_, p)| p.metadata.deletion_timestamp.is_some()).map(|(n, _)| n.clone()).collect();
        let bound = |p: &Pod| p.spec.as_ref().is_some_and(|s| s.node_name.as_deref().is_some_and(|n| !n.is_empty()));
        let starting = pods.iter().filter(|(_, p)| active(p) && bound(p) && !ready(p)).map(|(n, _)| n.clone()).collect();
        let world = World {
            now,
            residents,
            deployments: by_name(before.deployments, |d| &d.metadata),
            sets: by_name(before.sets, |s| &s.metadata),
            cluster,
            scheduler: Scheduler::new(strategy, seed),
            touched: BTreeSet::new(),
            touched_sets: BTreeSet::new(),
            late: pods.iter().filter(|(_, p)| !bound(p)).map(|(n, _)| n.clone()).collect(),
            unplaced,
            starting,
            leaving,
            waiting: BTreeMap::new(),
            started: Vec::new(),
            stopped: Vec::new(),
            extents: BTreeMap::new(),
            classes: by_name(before.classes, |c| &c.metadata),
            budgets: by_name(before.budgets, |b| &b.metadata),
            // Names and uids go on after those that an earlier look made up.
            numbers: there as u64 * 1000,
            pods,
        };
        (world, waves, prune)
    }

    /// Reads the pods of a controller, because somebody wants to look at them.
    fn rouse(&mut self, owner: &str) {
        for resident in self.residents.remove(owner).into_iter().flatten() {
            self.pods.extend(resident.pod().map(|pod| (resident.name, pod)));
        }
    }

    pub(super) fn rouse_all(&mut self) {
        while let Some(owner) = self.residents.first_key_value().map(|(owner, _)| owner.clone()) {
            self.rouse(&owner);
        }
    }

    /// Reads a pod, and those that have the same controller.
    fn rouse_named(&mut self, name: &Name) {
        if !self.pods.contains_key(name)
            && let Some(owner) = self.cluster.owner(name).map(str::to_owned)
        {
            self.rouse(&owner);
        }
    }

    /// Reads the pods of a Deployment.
    fn rouse_of(&mut self, deployment: &Deployment) {
        let sets: Vec<String> = self.sets_of(deployment).filter_map(|(_, set)| set.metadata.uid.clone()).collect();
        sets.iter().for_each(|set| self.rouse(set));
    }

    /// Names the thing that a person wrote and that this pod comes from.
    pub(super) fn workload(&self, pod: &Pod) -> String {
        let (namespace, name) = name_of(&pod.metadata);
        let controller = |meta: &ObjectMeta| meta.owner_references.iter().flatten().find(|o| o.controller == Some(true)).cloned();
        let Some(owner) = controller(&pod.metadata) else { return format!("Pod {namespace}/{name}") };
        let set = self.sets.get(&(namespace.clone(), owner.name.clone()));
        match set.and_then(|s| controller(&s.metadata)) {
            Some(above) => format!("{} {namespace}/{}", above.kind, above.name),
            None => format!("{} {namespace}/{}", owner.kind, owner.name),
        }
    }

    pub(super) fn placed(&self, pod: &Pod) -> Option<Move> {
        let node = pod.spec.as_ref()?.node_name.clone().filter(|n| !n.is_empty())?;
        Some(Move { workload: self.workload(pod), node, pod: pod.metadata.name.clone().unwrap_or_default() })
    }

    /// A uid that nothing else has.
    fn uid(&mut self) -> String {
        self.numbers += 1;
        format!("foreseen-{}", self.numbers)
    }

    fn made(&mut self, meta: &mut ObjectMeta, before: Option<&ObjectMeta>) {
        meta.uid = before.and_then(|b| b.uid.clone()).or_else(|| Some(self.uid()));
        meta.creation_timestamp = before.and_then(|b| b.creation_timestamp.clone()).or_else(|| Some(stamp(self.now)));
        meta.generation = Some(before.and_then(|b| b.generation).unwrap_or(0) + 1);
    }

    pub(super) fn write(&mut self, key: &Key, value: &Value) {
        let name: Name = (key.namespace.to_string(), key.name.to_string());
        match (key.kind.group, key.kind.kind) {
            ("apps", "Deployment") => {
                let Some(mut new) = read::<Deployment>(value) else { return };
                let before = self.deployments.get(&name).cloned();
                self.made(&mut new.metadata, before.as_ref().map(|b| &b.metadata));
                new.status = before.and_then(|b| b.status);
                self.deployments.insert(name.clone(), new);
                self.watch(&name);
                self.touched.insert(name);
            }
            ("apps", "ReplicaSet") => {
                let Some(mut new) = read::<ReplicaSet>(value) else { return };
                let before = self.sets.get(&name).cloned();
                self.made(&mut new.metadata, before.as_ref().map(|b| &b.metadata));
                new.status = before.and_then(|b| b.status);
                self.sets.insert(name.clone(), new);
                self.touched_sets.insert(name);
            }
            ("", "Namespace") => {
                let Some(new) = read::<Namespace>(value) else { return };
                self.cluster.set_namespace(&name.1, new.metadata.labels.as_ref());
            }
            ("scheduling.k8s.io", "PriorityClass") => self.classes.extend(read(value).map(|class| (name, class))),
            ("policy", "PodDisruptionBudget") => self.budgets.extend(read(value).map(|budget| (name, budget))),
            ("", "Pod") if !self.pods.contains_key(&name) && self.cluster.owner(&name).is_none() => {
                let Some(mut new) = read::<Pod>(value) else { return };
                self.made(&mut new.metadata, None);
                self.add(new);
            }
            _ => {}
        }
    }

    pub(super) fn delete(&mut self, key: &Key) {
        let name: Name = (key.namespace.to_string(), key.name.to_string());
        match (key.kind.group, key.kind.kind) {
            ("", "Namespace") => {
                let inside = |n: &Name| n.0 == *key.name;
                self.rouse_all();
                self.deployments.retain(|n, _| !inside(n));
                let pods: Vec<Name> = self.pods.keys().filter(|n| inside(n)).cloned().collect();
                pods.iter().for_each(|n| self.remove(n));
                // After the pods, which are named after what they belong to.
                self.sets.retain(|n, _| !inside(n));
            }
            ("apps", "Deployment") => {
                self.watch(&name);
                if let Some(gone) = self.deployments.remove(&name) {
                    let sets: Vec<Name> = self.sets_of(&gone).map(|(n, _)| n.clone()).collect();
                    sets.iter().for_each(|set| self.drop_set(set));
                }
                if let Some(watched) = self.extents.get_mut(&name) {
                    (watched.moved, watched.extent.replicas, watched.extent.least_available) = (true, 0, 0);
                }
            }
            ("apps", "ReplicaSet") => self.drop_set(&name),
            ("", "Pod") => self.remove(&name),
            _ => {}
        }
    }

    fn drop_set(&mut self, name: &Name) {
        let Some(uid) = self.sets.get(name).map(|set| set.metadata.uid.clone().unwrap_or_default()) else { return };
        self.rouse(&uid);
        let Some(set) = self.sets.get(name) else { return };
        let pods: Vec<Name> = self.pods_of(set).map(|(n, _)| n.clone()).collect();
        pods.iter().for_each(|pod| self.remove(pod));
        self.sets.remove(name);
    }

    fn sets_of<'w>(&'w self, deployment: &Deployment) -> impl Iterator<Item = (&'w Name, &'w ReplicaSet)> + use<'w> {
        let uid = deployment.metadata.uid.clone();
        self.sets.iter().filter(move |(_, s)| owned_by(&s.metadata, uid.as_deref()))
    }

    /// An owner is in the same namespace.
    fn pods_of<'w>(&'w self, set: &ReplicaSet) -> impl Iterator<Item = (&'w Name, &'w Arc<Pod>)> + use<'w> {
        let namespace = set.metadata.namespace.clone().unwrap_or_default();
        let uid = set.metadata.uid.clone();
        let inside = self.pods.range((namespace.clone(), String::new())..).take_while(move |(name, _)| name.0 == namespace);
        inside.filter(move |(_, p)| owned_by(&p.metadata, uid.as_deref()))
    }

    fn add(&mut self, mut pod: Pod) {
        self.rank(&mut pod);
        let name = name_of(&pod.metadata);
        self.started.push(name.clone());
        self.unplaced.insert(name.clone());
        self.pods.insert(name, Arc::new(pod));
    }

    /// Gives a pod its priority, as admission does.
    fn rank(&self, pod: &mut Pod) {
        let class = |c: &PriorityClass| assign::PriorityClass {
            name: c.metadata.name.clone().unwrap_or_default(),
            value: c.value.unwrap_or(0),
            policy: c.preemption_policy.clone().unwrap_or_default(),
            default: c.global_default == Some(true),
        };
        let Some(spec) = pod.spec.as_mut().filter(|spec| spec.priority.is_none()) else { return };
        let classes: Vec<_> = self.classes.values().map(class).collect();
        // What names a class that is not there is refused before it comes to this.
        let named = spec.priority_class_name.as_deref().unwrap_or_default();
        if let Ok(Some(class)) = assign::PriorityClass::choose(named, &classes) {
            (spec.priority, spec.preemption_policy) = (Some(class.value), Some(class.policy));
        }
    }

    /// Asks a pod to go. It keeps its place until it has stopped, which takes a moment: who is placed meanwhile is placed beside it.
    fn remove(&mut self, name: &Name) {
        self.rouse_named(name);
        let Some(pod) = self.pods.get(name).filter(|p| p.metadata.deletion_timestamp.is_none()) else { return };
        let was = self.placed(pod);
        let Some(pod) = self.pods.get_mut(name).map(Arc::make_mut) else { return };
        pod.metadata.deletion_timestamp = Some(stamp(self.now));
        self.cluster.set_pod(pod);
        self.leaving.insert(name.clone());
        self.starting.remove(name);
        self.unplaced.remove(name);
        self.waiting.remove(name);
        match self.started.iter().position(|s| s == name) {
            Some(at) => drop(self.started.remove(at)),
            None => self.stopped.extend(was.filter(|_| !self.late.contains(name))),
        }
    }

    /// A pod has to go for another one, and whoever made it will make a new one.
    fn evict(&mut self, name: &Name) {
        self.rouse_named(name);
        let owner = |meta: &ObjectMeta| meta.uid.clone();
        let set = self
            .pods
            .get(name)
            .and_then(|pod| self.sets.iter().find(|(_, s)| owned_by(&pod.metadata, owner(&s.metadata).as_deref())));
        let above = set
            .and_then(|(_, set)| self.deployments.iter().find(|(_, d)| owned_by(&set.metadata, owner(&d.metadata).as_deref())));
        let (set, above) = (set.map(|(name, _)| name.clone()), above.map(|(name, _)| name.clone()));
        self.touched_sets.extend(set);
        if let Some(above) = above {
            self.watch(&above);
            self.touched.insert(above);
        }
        self.remove(name);
    }

    /// Counts a Deployment's pods from now on.
    fn watch(&mut self, name: &Name) {
        let Some(deployment) = self.deployments.get(name).cloned() else { return };
        self.rouse_of(&deployment);
        let deployment = &deployment;
        let min_ready = deployment.spec.min_ready_seconds.unwrap_or(0);
        let pods: Vec<&Arc<Pod>> =
            self.sets_of(deployment).flat_map(|(_, s)| self.pods_of(s).map(|(_, p)| p)).filter(|p| active(p)).collect();
        let most = pods.len() as i32;
        let least = pods.iter().filter(|p| available(p, min_ready, self.now)).count() as i32;
        let replicas = bounds(deployment).replicas;
        let workload = format!("Deployment {}/{}", name.0, name.1);
        let known = self
            .extents
            .entry(name.clone())
            .or_insert_with(|| Watched { extent: Extent { workload, replicas, least_available: least, most }, moved: false });
        let extent = &mut known.extent;
        (extent.replicas, extent.least_available, extent.most) =
            (replicas, extent.least_available.min(least), extent.most.max(most));
    }

    /// Lets everything that was touched come to rest.
    pub(super) fn settle(&mut self) {
        let deadline = self.now.checked_add(LONGEST).unwrap_or(self.now);
        for _ in 0..MOST_ROUNDS {
            let mut again: Vec<Timestamp> = Vec::new();
            let mut busy = false;
            // Loops are faster than containers: all that can be decided is, then what stops has stopped, then what starts is ready.
            for name in self.touched.clone() {
                busy |= self.deployment(&name, &mut again);
            }
            for name in self.touched_sets.clone() {
                busy |= self.set(&name, &mut again);
            }
            busy |= self.place();
            for name in self.touched.clone() {
                self.watch(&name);
            }
            if busy {
                continue;
            }
            if !self.leaving.is_empty() {
                for name in std::mem::take(&mut self.leaving) {
                    self.pods.remove(&name);
                    self.cluster.remove_pod(&name);
                }
                continue;
            }
            if !self.starting.is_empty() {
                let now = self.now;
                for name in std::mem::take(&mut self.starting) {
                    self.pods.entry(name).and_modify(|pod| become_ready(Arc::make_mut(pod), now));
                }
                continue;
            }
            match again.into_iter().filter(|at| *at > self.now && *at <= deadline).min() {
                Some(at) => self.now = at,
                None => break,
            }
        }
    }

    fn deployment(&mut self, name: &Name, again: &mut Vec<Timestamp>) -> bool {
        let Some(typed) = self.deployments.get(name).cloned() else { return false };
        self.rouse_of(&typed);
        let owned: Vec<(Name, ReplicaSet)> = self.sets_of(&typed).map(|(n, s)| (n.clone(), s.clone())).collect();
        let members = owned.iter().map(|(_, set)| Member { set, pods: self.pods_of(set).map(|(_, p)| &**p).collect() }).collect();
        let taken = |set: &str| self.sets.contains_key(&(name.0.clone(), set.to_owned()));
        let plan = deployment::plan(&deployment::Input { deployment: &typed, sets: members, taken: &taken, now: self.now });
        again.extend(plan.again);
        let busy = plan.create.is_some() || !plan.update.is_empty() || !plan.delete.is_empty();
        if let Some(set) = plan.create {
            let mut set = *set;
            self.made(&mut set.metadata, None);
            self.touched_sets.insert(name_of(&set.metadata));
            self.sets.insert(name_of(&set.metadata), set);
        }
        for (index, set) in plan.update {
            let at = &owned[index].0;
            self.touched_sets.insert(at.clone());
            let mut set = *set;
            set.metadata.generation = Some(set.metadata.generation.unwrap_or(0) + 1);
            self.sets.insert(at.clone(), set);
        }
        for index in plan.delete {
            self.drop_set(&owned[index].0);
        }
        if let Some(stored) = self.deployments.get_mut(name) {
            if let Some(annotations) = plan.annotations {
                stored.metadata.annotations = Some(annotations);
            }
            if let Some(status) = plan.status {
                stored.status = Some(status);
            }
        }
        busy
    }

    fn set(&mut self, name: &Name, again: &mut Vec<Timestamp>) -> bool {
        let Some(set) = self.sets.get(name).cloned() else { return false };
        let above = set.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
        match above.and_then(|o| self.deployments.values().find(|d| d.metadata.uid.as_ref() == Some(&o.uid)).cloned()) {
            Some(family) => self.rouse_of(&family),
            None => self.rouse(set.metadata.uid.as_deref().unwrap_or_default()),
        }
        let mine: Vec<(Name, Arc<Pod>)> = self.pods_of(&set).map(|(n, p)| (n.clone(), p.clone())).collect();
        let family = above.and_then(|o| self.deployments.values().find(|d| d.metadata.uid.as_ref() == Some(&o.uid)));
        let relatives: Vec<&Pod> = match family {
            Some(deployment) => self.sets_of(deployment).flat_map(|(_, s)| self.pods_of(s).map(|(_, p)| &**p)).collect(),
            None => mine.iter().map(|(_, p)| &**p).collect(),
        };
        let mut crowds: BTreeMap<String, usize> = BTreeMap::new();
        for node in relatives.iter().filter(|p| active(p)).filter_map(|p| p.spec.as_ref()?.node_name.clone()) {
            *crowds.entry(node).or_default() += 1;
        }
        let spare = family.and_then(|d| deployment::spare(d, &relatives, self.now));
        let input = replica_set::Input {
            set: &set,
            pods: mine.iter().map(|(_, p)| &**p).collect(),
            crowds: &crowds,
            spare,
            now: self.now,
        };
        let plan = replica_set::plan(&input);
        let status = replica_set::status(&input, &plan, plan.create, None);
        again.extend(plan.again);
        let busy = plan.create > 0 || !plan.delete.is_empty();
        if busy && let Some(watched) = above.and_then(|o| self.extents.get_mut(&(name.0.clone(), o.name.clone()))) {
            watched.moved = true;
        }
        for index in plan.delete {
            self.remove(&mine[index].0);
        }
        for _ in 0..plan.create {
            self.numbers += 1;
            let mut pod = replica_set::pod(&set, &format!("{:05}", self.numbers));
            self.made(&mut pod.metadata, None);
            self.add(pod);
        }
        if let (Some(status), Some(stored)) = (status, self.sets.get_mut(name)) {
            stored.status = Some(status);
        }
        busy
    }

    /// How many pods the budgets allow to disrupt now.
    fn allowances(&self) -> Vec<Budget> {
        let namespace = |b: &PodDisruptionBudget| b.metadata.namespace.clone().unwrap_or_default();
        let allowance = |b: &PodDisruptionBudget| {
            let inside = self.pods.iter().filter(|(name, _)| name.0 == namespace(b));
            Budget::of(b, inside.map(|(_, pod)| &**pod))
        };
        self.budgets.values().map(allowance).collect()
    }

    /// Gives pods their hosts.
    fn place(&mut self) -> bool {
        let mut line: Vec<Name> = self.unplaced.iter().cloned().collect();
        line.sort_by_cached_key(|name| self.pods.get(name).map(|pod| schedule::order(pod)));
        let mut busy = false;
        // Classes that fit nowhere, not even when others go.
        let mut hopeless: BTreeMap<String, String> = BTreeMap::new();
        for name in line {
            let Some(pod) = self.pods.get_mut(&name).map(Arc::make_mut) else { continue };
            let class = Scheduler::class(pod);
            // One for whom a place is kept free fits there once it is free.
            let alike = !self.cluster.is_promised(&name) || self.cluster.expects(&name);
            let decision = match hopeless.get(&class).filter(|_| alike) {
                Some(why) => Decision::Wait(why.clone()),
                None => self.scheduler.decide_in(&class, &mut self.cluster, pod),
            };
            match decision {
                Decision::Place(node) => {
                    pod.spec.get_or_insert_default().node_name = Some(node.to_string());
                    self.starting.insert(name.clone());
                    self.unplaced.remove(&name);
                    self.waiting.remove(&name);
                    busy = true;
                }
                Decision::Wait(why) => {
                    let pod = pod.clone();
                    if !self.budgets.is_empty() {
                        self.rouse_all();
                    }
                    let budgets = self.allowances();
                    match self.scheduler.resort(&class, &mut self.cluster, &pod, &budgets) {
                        Resort::Preempt(room) => {
                            room.victims.iter().for_each(|victim| self.evict(victim));
                            busy = true;
                        }
                        Resort::Expect => {}
                        Resort::Nothing => drop(hopeless.insert(class, why.clone())),
                    }
                    self.waiting.insert(name, why);
                }
            }
        }
        busy
    }
}

fn owned_by(meta: &ObjectMeta, uid: Option<&str>) -> bool {
    meta.owner_references.iter().flatten().any(|o| o.controller == Some(true) && Some(o.uid.as_str()) == uid)
}

fn become_ready(pod: &mut Pod, now: Timestamp) {
    let ready = PodCondition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    };
    pod.status = Some(PodStatus { phase: Some("Running".to_owned()), conditions: Some(vec![ready]), ..PodStatus::default() });
}
