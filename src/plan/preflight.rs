//! What can be known before anything changes: is every object acceptable, does what it refers to exist, can its pods run anywhere.
//!
//! A release that fails here was never applied: what runs is not touched. `Rejected` will not pass by waiting, `Errored` may.
//!
//! Not here: whether an image can be pulled. Only a host can tell: when the new pod is there, or when it is asked because old pods
//! would be stopped first (`control::release::images`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::schedule::{Cluster, Decision, PodName, Scheduler, Strategy, name_of};
use super::sync::{Action, Change, SyncPlan, Wanted, problem};
use crate::object::admit::{self, Stamp};
use crate::object::ours::ProblemRecord;
use crate::object::source::Origin;
use crate::object::{Key, Kind, Object};

/// Who is shown pods, each with the workload that it belongs to.
pub type EachPod<'a> = &'a mut dyn FnMut(&Pod, &Key);

/// What is looked at.
pub struct Input<'a> {
    /// Everything that the release wants.
    pub wanted: &'a [Wanted],
    /// What would be written.
    pub plan: &'a SyncPlan,
    /// What is there now.
    pub live: &'a dyn Fn(&Key) -> Option<Arc<Object>>,
    /// All nodes. Asked for at most once, and only when new pods need room.
    pub nodes: &'a dyn Fn() -> Vec<Arc<Node>>,
    /// A picture of what runs: all pods that have not ended on their hosts, which are these nodes. Asked for at most once, after them. On the
    /// way it shows the pods of workloads, one after the other, because there may be more than one wants to have in memory.
    pub running: &'a dyn Fn(&[Arc<Node>], EachPod<'_>) -> Cluster,
    /// Now.
    pub now: Timestamp,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing stands in the way.
    Clear,
    /// It can never work as it is: all reasons at once.
    Rejected(Vec<ProblemRecord>),
    /// It cannot work now.
    Errored(Vec<String>),
}

/// Looks.
pub fn check(input: &Input<'_>) -> Outcome {
    let mut problems = input.plan.problems.clone();
    let mut passing = Vec::new();
    let origins: BTreeMap<&Key, &Origin> = input.wanted.iter().map(|w| (&w.key, &w.origin)).collect();
    for change in input.plan.changes() {
        let origin = origins.get(&change.name.0).copied().cloned().unwrap_or_default();
        acceptable(input, change, &origin, &mut problems);
    }
    let here: BTreeMap<&Key, &Wanted> = input.wanted.iter().map(|w| (&w.key, w)).collect();
    let mut spaces = BTreeMap::new();
    for wanted in input.wanted {
        namespace(input, &here, &mut spaces, wanted, &mut problems, &mut passing);
        if let Some(spec) = pod_spec(wanted) {
            references(input, &here, wanted, spec, &mut problems);
        }
    }
    room(input, &origins, &mut problems, &mut passing);
    problems.sort_by(|a, b| (&a.file, a.line, a.column, &a.message).cmp(&(&b.file, b.line, b.column, &b.message)));
    problems.dedup();
    match (problems.is_empty(), passing.is_empty()) {
        (false, _) => Outcome::Rejected(problems),
        (true, false) => Outcome::Errored(passing),
        (true, true) => Outcome::Clear,
    }
}

/// Whether the API would take this write: the same door, without writing.
fn acceptable(input: &Input<'_>, change: &Change, origin: &Origin, problems: &mut Vec<ProblemRecord>) {
    let key = &change.name.0;
    let refused = match change.action {
        Action::Create => {
            let stamp = Stamp { uid: "00000000-0000-4000-8000-000000000000".to_owned(), now: input.now };
            admit::create(key.kind, change.new.clone(), &stamp).err()
        }
        Action::Patch | Action::Adopt => match (input.live)(key) {
            Some(live) => admit::update_as(key.kind, &live, change.new.clone(), None, input.now).err(),
            None => None,
        },
    };
    for cause in refused.into_iter().flat_map(|r| r.causes) {
        problems.push(problem(origin, format!("{}: {cause}", change.name)));
    }
}

/// How a namespace is.
#[derive(Clone, Copy)]
enum Space {
    There,
    Leaving,
    Missing,
}

/// An object's namespace exists, or comes with the same commit. Each is looked at once.
fn namespace<'a>(
    input: &Input<'a>,
    here: &BTreeMap<&Key, &Wanted>,
    spaces: &mut BTreeMap<&'a str, Space>,
    wanted: &'a Wanted,
    problems: &mut Vec<ProblemRecord>,
    passing: &mut Vec<String>,
) {
    if !wanted.key.kind.namespaced {
        return;
    }
    let space = *spaces.entry(&wanted.key.namespace).or_insert_with(|| {
        let key = Key::new(core("Namespace"), "", &wanted.key.namespace);
        match (input.live)(&key) {
            Some(live) if live.meta.deleting() => Space::Leaving,
            Some(_) => Space::There,
            None if here.contains_key(&key) => Space::There,
            None => Space::Missing,
        }
    });
    match space {
        Space::Leaving => {
            let text = format!("namespace {} is being deleted", wanted.key.namespace);
            if !passing.contains(&text) {
                passing.push(text);
            }
        }
        Space::There => {}
        Space::Missing => {
            let mut record = problem(&wanted.origin, format!("namespace {:?} does not exist", &*wanted.key.namespace));
            record.hint = Some("add a Namespace object to the repository, or correct the name".to_owned());
            problems.push(record);
        }
    }
}

/// ConfigMaps and Secrets that pods cannot start without.
fn references(
    input: &Input<'_>,
    here: &BTreeMap<&Key, &Wanted>,
    wanted: &Wanted,
    spec: &Value,
    problems: &mut Vec<ProblemRecord>,
) {
    let mut needed: BTreeSet<(&'static str, String, Option<String>)> = BTreeSet::new();
    let mut need = |kind, name: &str, key: Option<&str>, optional: Option<bool>| {
        if optional != Some(true) && !name.is_empty() {
            needed.insert((kind, name.to_owned(), key.map(str::to_owned)));
        }
    };
    fn list(value: &Value) -> std::slice::Iter<'_, Value> {
        value.as_array().map_or(&[][..], Vec::as_slice).iter()
    }
    let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned();
    let optional = |source: &Value| source["optional"].as_bool();
    for container in list(&spec["containers"]).chain(list(&spec["initContainers"])) {
        for source in list(&container["env"]).map(|env| &env["valueFrom"]) {
            for (field, kind) in [("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")] {
                if let Some(r) = source.get(field) {
                    need(kind, &text(&r["name"]), Some(&text(&r["key"])), optional(r));
                }
            }
        }
        for source in list(&container["envFrom"]) {
            for (field, kind) in [("configMapRef", "ConfigMap"), ("secretRef", "Secret")] {
                if let Some(r) = source.get(field) {
                    need(kind, &text(&r["name"]), None, optional(r));
                }
            }
        }
    }
    for volume in list(&spec["volumes"]) {
        if let Some(source) = volume.get("configMap") {
            need("ConfigMap", &text(&source["name"]), None, optional(source));
            for item in list(&source["items"]) {
                need("ConfigMap", &text(&source["name"]), Some(&text(&item["key"])), optional(source));
            }
        }
        if let Some(source) = volume.get("secret") {
            need("Secret", &text(&source["secretName"]), None, optional(source));
        }
        for part in list(&volume["projected"]["sources"]) {
            for (field, kind) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
                if let Some(source) = part.get(field) {
                    need(kind, &text(&source["name"]), None, optional(source));
                }
            }
        }
    }
    let mut missing = BTreeSet::new();
    for (kind, name, field) in needed {
        let key = Key::new(core(kind), &wanted.key.namespace, &name);
        let value = match here.get(&key) {
            Some(wanted) => Some(Cow::Borrowed(wanted.value.value())),
            None => (input.live)(&key).map(|o| Cow::Owned(o.value())),
        };
        let who = format!("{} {}/{}", wanted.key.kind.kind, wanted.key.namespace, wanted.key.name);
        match (value, field) {
            (None, _) => {
                // Once, however many of its keys are needed.
                if missing.insert(key) {
                    let message = format!("{who} needs {kind} {name:?}, which is neither in this commit nor in the cluster");
                    problems.push(problem(&wanted.origin, message));
                }
            }
            (Some(value), Some(field)) => {
                let sections = ["data", "binaryData", "stringData"];
                if !sections.iter().any(|s| value[*s].get(&field).is_some()) {
                    problems
                        .push(problem(&wanted.origin, format!("{who} needs key {field:?} of {kind} {name:?}, which it has not")));
                }
            }
            (Some(_), None) => {}
        }
    }
}

/// Whether the pods of what changes can run: anywhere at all, and now.
fn room(input: &Input<'_>, origins: &BTreeMap<&Key, &Origin>, problems: &mut Vec<ProblemRecord>, passing: &mut Vec<String>) {
    let changed: Vec<Workload> = input.plan.changes().filter_map(Workload::of).filter(|w| w.replicas > 0).collect();
    if changed.is_empty() {
        return;
    }
    let nodes = (input.nodes)();
    if nodes.is_empty() {
        passing.push("no host has joined yet".to_owned());
        return;
    }
    let impossible = nowhere(&nodes, &changed, origins, problems, passing);
    // Now, in the end: what runs, without the pods that will be replaced, and with all new ones.
    let mut there: BTreeMap<&Key, i32> = BTreeMap::new();
    let by_key: BTreeMap<&Key, &Workload> = changed.iter().map(|w| (&w.key, w)).collect();
    let mut replaced: Vec<PodName> = Vec::new();
    let mut cluster = (input.running)(&nodes, &mut |pod, workload| {
        let stays = match by_key.get(workload) {
            None => true,
            // One that is as the new ones are to be serves already: a revert, or another number of the same.
            Some(same) if pod.metadata.deletion_timestamp.is_none() && same.makes(pod) => {
                let count = there.entry(&same.key).or_insert(0);
                *count += 1;
                *count <= same.replicas
            }
            Some(_) => false,
        };
        if !stays {
            replaced.push(name_of(pod));
        }
    });
    let has = |w: &Workload| there.get(&w.key).copied().unwrap_or(0);
    let possible: Vec<&Workload> = changed.iter().filter(|w| !impossible.contains(&w.key)).collect();
    // First beside the old pods, then without them: one picture serves both, because two of a large cluster are a lot of memory.
    let surging = possible.iter().copied().filter(|w| w.surges && has(w) < w.replicas);
    let crowded = no_room_beside(&mut cluster, surging);
    replaced.iter().for_each(|name| cluster.remove_pod(name));
    let mut scheduler = scheduler();
    let mut open: Vec<(&Workload, i32)> = possible.into_iter().map(|w| (w, has(w).min(w.replicas))).collect();
    let mut short = BTreeMap::new();
    // In turns, because one may want to be near pods of another that come with the same commit.
    loop {
        let before = open.clone();
        for (workload, fit) in &mut open {
            while *fit < workload.replicas {
                match scheduler.decide(&mut cluster, &workload.pod(*fit)) {
                    Decision::Place(_) => *fit += 1,
                    Decision::Wait(why) => {
                        short.insert(&workload.key, why);
                        break;
                    }
                }
            }
        }
        if open == before || open.iter().all(|(w, fit)| *fit >= w.replicas) {
            break;
        }
    }
    for (workload, fit) in open {
        if fit < workload.replicas {
            let why = short.get(&workload.key).map_or("", String::as_str);
            passing.push(format!("{fit} of {} pods of {} have room now: {why}", workload.replicas, workload.name()));
        } else if let Some(why) = crowded.get(&workload.key) {
            passing.push(format!("there is no room for a new pod of {} beside the old ones: {why}", workload.name()));
        }
    }
}

/// Workloads whose pods no host could run if all were empty and well.
fn nowhere<'a>(
    nodes: &[Arc<Node>],
    changed: &'a [Workload],
    origins: &BTreeMap<&Key, &Origin>,
    problems: &mut Vec<ProblemRecord>,
    passing: &mut Vec<String>,
) -> BTreeSet<&'a Key> {
    let mut empty = Cluster::new();
    nodes.iter().for_each(|node| empty.set_node(&recovered(node)));
    let mut scheduler = scheduler();
    // What never fits is only known when every host has said how large it is.
    let spoken = nodes.iter().all(|node| has_spoken(node));
    let mut impossible = BTreeSet::new();
    for workload in changed {
        let pod = alone(workload.pod(0));
        let decision = scheduler.decide(&mut empty, &pod);
        empty.remove_pod(&name_of(&pod));
        if let Decision::Wait(why) = decision {
            if spoken {
                let origin = origins.get(&workload.key).copied().cloned().unwrap_or_default();
                problems.push(problem(&origin, format!("no host can ever run a pod of {}: {why}", workload.name())));
            } else {
                passing.push(format!("no host that has said what it has can run a pod of {}: {why}", workload.name()));
            }
            impossible.insert(&workload.key);
        }
    }
    impossible
}

/// Workloads that have no room for one more pod while their old ones are there, with the reason. The cluster is left as it was.
fn no_room_beside<'a>(cluster: &mut Cluster, surging: impl Iterator<Item = &'a Workload>) -> BTreeMap<&'a Key, String> {
    let mut scheduler = scheduler();
    let mut crowded = BTreeMap::new();
    let mut placed: Vec<PodName> = Vec::new();
    for workload in surging {
        let pod = workload.pod(workload.replicas);
        match scheduler.decide(cluster, &pod) {
            Decision::Place(_) => placed.push(name_of(&pod)),
            Decision::Wait(why) => {
                crowded.insert(&workload.key, why);
            }
        }
    }
    placed.iter().for_each(|name| cluster.remove_pod(name));
    crowded
}

fn scheduler() -> Scheduler {
    Scheduler::new(Strategy::Spread, 0)
}

/// A pod without its wishes about other pods: these come and go, so that they never say what can be for ever.
fn alone(mut pod: Pod) -> Pod {
    if let Some(spec) = &mut pod.spec {
        spec.topology_spread_constraints = None;
        if let Some(affinity) = &mut spec.affinity {
            affinity.pod_affinity = None;
            affinity.pod_anti_affinity = None;
        }
    }
    pod
}

/// Taints of this kind are set and taken away as a host's condition changes: not ready, unreachable, cordoned, short of something.
const PASSING_TAINTS: &str = "node.kubernetes.io/";

/// A node as it would be if it were well and open.
fn recovered(node: &Node) -> Node {
    let mut node = node.clone();
    node.metadata.deletion_timestamp = None;
    if let Some(spec) = &mut node.spec {
        spec.unschedulable = None;
        if let Some(taints) = &mut spec.taints {
            taints.retain(|t| !t.key.starts_with(PASSING_TAINTS));
        }
    }
    // A condition means the same as its taint to the scheduler, and so does the lack of one.
    let ready = NodeCondition { type_: "Ready".to_owned(), status: "True".to_owned(), ..NodeCondition::default() };
    node.status.get_or_insert_with(NodeStatus::default).conditions = Some(vec![ready]);
    node
}

/// Whether a host has said what it has. One that has just joined says so with its first status.
fn has_spoken(node: &Node) -> bool {
    node.status.as_ref().is_some_and(|s| s.allocatable.as_ref().is_some_and(|a| !a.is_empty()))
}

/// Something that has pods.
#[derive(PartialEq)]
struct Workload {
    key: Key,
    template: PodTemplateSpec,
    replicas: i32,
    /// Whether an old pod only goes after a new one is there.
    surges: bool,
}

impl Workload {
    /// The pods of a change; `None` where the change makes no new pods.
    fn of(change: &Change) -> Option<Workload> {
        let key = change.name.0.clone();
        let old = |path: &str| change.old.as_ref().and_then(|old| old.pointer(path));
        // A change that touches neither the pods nor their number needs no room.
        let same = |path: &str| change.action != Action::Create && old(path) == change.new.pointer(path);
        match (key.kind.group, key.kind.kind) {
            ("apps", "Deployment") => {
                if same("/spec/template") && same("/spec/replicas") {
                    return None;
                }
                let deployment: Deployment = serde_json::from_value(change.new.clone()).ok()?;
                let spec = deployment.spec;
                let rolling = spec.strategy.as_ref();
                let replicas = spec.replicas.unwrap_or(1);
                let none_may_miss = rolling.is_none_or(|s| s.type_.as_deref() != Some("Recreate"))
                    && rolling.and_then(|s| s.rolling_update.as_ref()?.max_unavailable.as_ref()).is_some_and(|n| match n {
                        IntOrString::Int(n) => *n == 0,
                        // Rounded down, as the Deployment does it.
                        IntOrString::String(text) => {
                            let percent: i64 = text.trim().trim_end_matches('%').parse().unwrap_or(0);
                            percent * i64::from(replicas) < 100
                        }
                    });
                let surges = none_may_miss && change.action != Action::Create && !same("/spec/template");
                Some(Workload { key, template: spec.template, replicas, surges })
            }
            ("apps", "ReplicaSet") => {
                if same("/spec/replicas") {
                    return None;
                }
                let set: ReplicaSet = serde_json::from_value(change.new.clone()).ok()?;
                let replicas = set.spec.replicas.unwrap_or(1);
                Some(Workload { key, template: set.spec.template?, replicas, surges: false })
            }
            ("", "Pod") if change.action == Action::Create => {
                let pod: Pod = serde_json::from_value(change.new.clone()).ok()?;
                let template = PodTemplateSpec { metadata: Some(pod.metadata), spec: pod.spec };
                Some(Workload { key, template, replicas: 1, surges: false })
            }
            _ => None,
        }
    }

    /// Whether a pod that has a host is like those that this makes, in what takes room.
    fn makes(&self, pod: &Pod) -> bool {
        let (Some(wanted), Some(has)) = (&self.template.spec, &pod.spec) else { return false };
        has.node_name.is_some()
            && has.containers == wanted.containers
            && has.init_containers == wanted.init_containers
            && has.node_selector == wanted.node_selector
            && has.affinity == wanted.affinity
    }

    fn name(&self) -> String {
        format!("{} {}/{}", self.key.kind.kind, self.key.namespace, self.key.name)
    }

    fn pod(&self, number: i32) -> Pod {
        let mut metadata = self.template.metadata.clone().unwrap_or_default();
        metadata.namespace = Some(self.key.namespace.to_string());
        metadata.name = Some(format!("{}-would-be-{number}", self.key.name));
        Pod { metadata, spec: self.template.spec.clone(), status: None }
    }
}

/// The pods that an object makes, if it makes any: as a tree, because of thousands only a few fields are looked at.
fn pod_spec(wanted: &Wanted) -> Option<&Value> {
    let path = match (wanted.key.kind.group, wanted.key.kind.kind) {
        ("", "Pod") => "/spec",
        ("apps" | "batch", "CronJob") => "/spec/jobTemplate/spec/template/spec",
        ("apps" | "batch", _) => "/spec/template/spec",
        _ => return None,
    };
    wanted.value.pointer(path)
}

fn core(kind: &str) -> &'static Kind {
    Kind::of("v1", kind).expect("a kind of the core group has a row")
}
