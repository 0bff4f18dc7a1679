//! An object and its children -> how it is. Worst wins.
//!
//! Health is read from what is recorded (statuses), never from what was intended. What a health means for a release on trial is decided
//! in `plan::verdict`; what one container says, and what a registry said of its image, have files of their own.

mod container;
mod registry;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::{ContainerState, Namespace, Pod, PodCondition, PodTemplateSpec};
use serde::Serialize;

use crate::object::custom::{self, Definition};
use crate::object::ours::Evidence;
use crate::object::{Key, Object};
use crate::plan::rollout;
use container::{Standing, containers, ended, exit};

/// What Kubernetes takes for a Deployment's `progressDeadlineSeconds` where nobody says one.
const DEPLOYMENT_DEADLINE: i32 = 600;
/// How many broken pods of one object are described. The others are broken in the same way.
const EVIDENCE: usize = 3;

/// How an object is. The order is the policy: the worst of several counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum State {
    /// As it should be.
    #[default]
    Healthy,
    /// On its way; nothing speaks against it.
    Progressing,
    /// Nobody knows: its host does not answer.
    Unknown,
    /// Held up by something outside of it that passes: a registry that does not answer, no room now.
    HeldUp,
    /// Broken: it will not become healthy by waiting.
    Broken,
}

impl State {
    /// The word, as it is recorded and shown.
    pub fn word(self) -> &'static str {
        match self {
            State::Healthy => "Healthy",
            State::Progressing => "Progressing",
            State::Unknown => "Unknown",
            State::HeldUp => "HeldUp",
            State::Broken => "Broken",
        }
    }
    /// The state of a recorded word.
    pub fn of_word(word: &str) -> Option<State> {
        [State::Healthy, State::Progressing, State::Unknown, State::HeldUp, State::Broken].into_iter().find(|s| s.word() == word)
    }
}

/// How an object is, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// In one word.
    pub state: State,
    /// What it waits on, in people's words; empty when healthy.
    pub on: Vec<String>,
    /// What speaks against it.
    pub evidence: Vec<Evidence>,
    /// How far it got: grows while it moves forward.
    pub progress: i64,
    /// Its own controller gave it so many seconds to move forward, and says that they are over. Whether they were fair, without hosts
    /// that were away in between, the controller does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overdue: Option<i64>,
}

/// What belongs to an object, and what is known about hosts.
#[derive(Clone, Debug, Default)]
pub struct Children {
    /// Replica sets that it controls.
    pub replica_sets: Vec<Arc<Object>>,
    /// Pods that it controls, directly or through a replica set.
    pub pods: Vec<Arc<Object>>,
    /// Nodes that do not answer.
    pub unreachable: Arc<BTreeSet<String>>,
    /// How often a container of the object had been restarted when the rollout that asks began: the highest count among its pods. These
    /// restarts do not speak against it.
    pub restarts_before: i32,
    /// When the rollout that asks last wrote anything: what a container lacked before then may be there now.
    pub written: Option<Timestamp>,
}

/// Whether objects of this kind have a life of their own. What has none is well as soon as it exists.
pub fn lives(key: &Key) -> bool {
    Life::of(key).is_some()
}

/// The kinds of objects that have one.
enum Life {
    Deployment,
    ReplicaSet,
    Pod,
    Namespace,
    Definition,
}

impl Life {
    /// An Application has none: it judges itself, and its failure must not take down the one that brought it.
    fn of(key: &Key) -> Option<Life> {
        match (key.kind.group, key.kind.kind) {
            ("apps", "Deployment") => Some(Life::Deployment),
            ("apps", "ReplicaSet") => Some(Life::ReplicaSet),
            ("", "Pod") => Some(Life::Pod),
            ("", "Namespace") => Some(Life::Namespace),
            (custom::GROUP, _) => Some(Life::Definition),
            _ => None,
        }
    }
}

/// Whether its children bear on how an object is. They do not when it says itself that all of them are as they should be, and there may
/// be thousands of them.
pub fn asks_children(object: &Object) -> bool {
    match Life::of(&object.key) {
        Some(Life::Deployment) => object.typed::<Deployment>().is_ok_and(|d| Replicas::of(&d).is_some_and(|r| !r.complete(&d))),
        Some(Life::ReplicaSet) => true,
        _ => false,
    }
}

/// How an object is now. `since` is when the rollout that asks began: what broke before then does not speak against it.
pub fn of(object: &Object, children: &Children, since: Option<Timestamp>, now: Timestamp) -> Health {
    let Some(life) = Life::of(&object.key) else { return Health::default() };
    let name = format!("{} {}", object.key.kind.kind, place(&object.key.namespace, &object.key.name));
    let Children { unreachable, restarts_before, written, .. } = children;
    let look = Look { name: &name, unreachable, restarts_before: *restarts_before, written: *written, since, now };
    let known = match life {
        Life::Deployment => object.typed::<Deployment>().map(|d| look.deployment(&d, children)),
        Life::ReplicaSet => object.typed::<ReplicaSet>().map(|r| look.replica_set(&r, children)),
        Life::Pod => object.typed::<Pod>().map(|p| look.bare_pod(&p)),
        Life::Namespace => object.typed::<Namespace>().map(|n| namespace(&n)),
        Life::Definition => object.typed::<Definition>().map(|d| definition(&d)),
    };
    known.unwrap_or_else(|error| look.broken("Unreadable", error.source.to_string()))
}

fn place(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// Objects of a defined kind wait until it is established.
fn definition(definition: &Definition) -> Health {
    if definition.established { Health::default() } else { progressing("its kind is not established".to_owned()) }
}

fn namespace(namespace: &Namespace) -> Health {
    let terminating = namespace.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Terminating");
    if terminating { progressing("it is terminating".to_owned()) } else { Health::default() }
}

fn progressing(on: String) -> Health {
    Health { state: State::Progressing, on: vec![on], ..Health::default() }
}

/// What a Deployment's controller counted.
#[derive(Clone, Copy)]
struct Replicas {
    wanted: i64,
    updated: i64,
    available: i64,
    old: i64,
}

impl Replicas {
    /// `None`: of the Deployment as it is now, its controller has not counted anything yet.
    fn of(deployment: &Deployment) -> Option<Replicas> {
        let status = deployment.status.as_ref()?;
        if status.observed_generation.unwrap_or(0) < deployment.metadata.generation.unwrap_or(0) {
            return None;
        }
        let count = |n: Option<i32>| i64::from(n.unwrap_or(0));
        let updated = count(status.updated_replicas);
        Some(Replicas {
            wanted: i64::from(deployment.spec.replicas.unwrap_or(1)),
            updated,
            available: count(status.available_replicas),
            old: count(status.replicas) - updated,
        })
    }
    fn complete(self, deployment: &Deployment) -> bool {
        match deployment.spec.paused == Some(true) {
            true => self.available >= self.wanted,
            false => self.updated >= self.wanted && self.old <= 0 && self.available >= self.updated,
        }
    }
}

struct Look<'a> {
    name: &'a str,
    unreachable: &'a BTreeSet<String>,
    restarts_before: i32,
    written: Option<Timestamp>,
    since: Option<Timestamp>,
    now: Timestamp,
}

impl Look<'_> {
    fn broken(&self, reason: &str, message: String) -> Health {
        let evidence = Evidence { object: self.name.to_owned(), reason: reason.to_owned(), message, ..Evidence::default() };
        Health { state: State::Broken, on: vec![show(&evidence)], evidence: vec![evidence], ..Health::default() }
    }

    /// As `kubectl rollout status` sees it, and then what its newest pods say.
    fn deployment(&self, deployment: &Deployment, children: &Children) -> Health {
        let spec = &deployment.spec;
        let Some(replicas) = Replicas::of(deployment) else {
            return progressing(match &deployment.status {
                None => "its controller has not seen it yet".to_owned(),
                Some(_) => "its controller has not seen its last change yet".to_owned(),
            });
        };
        let Replicas { wanted, updated, available, old } = replicas;
        let mut health = Health { progress: updated + available - old, ..Health::default() };
        if replicas.complete(deployment) {
            return health;
        }
        health.state = State::Progressing;
        health.on.push(if updated < wanted {
            format!("{updated} of {wanted} new replicas are there")
        } else if old > 0 {
            format!("{old} old replicas are still there")
        } else {
            format!("{available} of {wanted} replicas are available")
        });
        let newest = children.replica_sets.iter().find(|set| {
            set.typed::<ReplicaSet>().is_ok_and(|r| r.spec.template.as_ref().is_some_and(|t| same_template(t, &spec.template)))
        });
        if recreates(spec) && updated < wanted {
            self.in_the_way(&mut health, children, newest.map(|set| set.meta.uid.as_str()));
        }
        // Only the pods of the newest template speak for or against this change.
        match newest {
            Some(set) => self.pods(&mut health, children, &set.meta.uid),
            None => health.on.push("its controller has not made the new replica set yet".to_owned()),
        }
        for condition in deployment.status.iter().flat_map(|status| status.conditions.iter().flatten()) {
            let message = condition.message.clone().unwrap_or_default();
            let reason = condition.reason.clone().unwrap_or_default();
            match (condition.type_.as_deref().unwrap_or(""), condition.status.as_deref().unwrap_or("")) {
                ("Progressing", "False") if reason == "ProgressDeadlineExceeded" && health.state == State::Progressing => {
                    health.overdue = Some(i64::from(spec.progress_deadline_seconds.unwrap_or(DEPLOYMENT_DEADLINE)));
                    self.worse(&mut health, State::Progressing, Evidence { reason, message, ..Evidence::default() });
                }
                ("ReplicaFailure", "True") => {
                    self.worse(&mut health, State::HeldUp, Evidence { reason, message, ..Evidence::default() });
                }
                _ => {}
            }
        }
        health
    }

    fn replica_set(&self, set: &ReplicaSet, children: &Children) -> Health {
        let wanted = set.spec.replicas.unwrap_or(1);
        let Some(status) = set.status.as_ref().filter(|s| s.observed_generation >= set.metadata.generation) else {
            return progressing("its controller has not seen its last change yet".to_owned());
        };
        let available = status.available_replicas.unwrap_or(0);
        let mut health = Health { progress: i64::from(available), ..Health::default() };
        if available >= wanted && status.replicas <= wanted {
            return health;
        }
        health.state = State::Progressing;
        health.on.push(format!("{available} of {wanted} replicas are available"));
        self.pods(&mut health, children, set.metadata.uid.as_deref().unwrap_or(""));
        health
    }

    /// Where old pods have to be gone before new ones come: an old one on a host that does not answer. Whether it still runs nobody knows,
    /// and the release can do nothing about it.
    fn in_the_way(&self, health: &mut Health, children: &Children, newest: Option<&str>) {
        for pod in &children.pods {
            let old = pod.meta.controller().is_none_or(|owner| Some(owner.uid.as_str()) != newest);
            let host = pod.field("spec.nodeName");
            if old && !pod.ended() && self.unreachable.contains(host) {
                health.state = health.state.max(State::Unknown);
                health.on.push(format!("old pod {} to be gone: host {host} does not answer", pod.key.name));
            }
        }
    }

    /// The worst of the pods that this owner controls.
    fn pods(&self, health: &mut Health, children: &Children, owner: &str) {
        let mut found: Vec<Health> = children
            .pods
            .iter()
            .filter(|pod| pod.meta.controller().is_some_and(|o| o.uid == owner) && !pod.meta.deleting())
            // A pod that ended is replaced by its controller.
            .filter(|pod| !pod.ended())
            .filter_map(|pod| pod.part::<Pod>(&rollout::READ).ok())
            .map(|pod| self.pod(&pod))
            .collect();
        found.sort_by_key(|h| std::cmp::Reverse(h.state));
        for pod in found.into_iter().filter(|h| h.state != State::Healthy).take(EVIDENCE) {
            health.state = health.state.max(pod.state);
            health.on.extend(pod.on);
            health.evidence.extend(pod.evidence);
        }
    }

    fn bare_pod(&self, pod: &Pod) -> Health {
        match phase(pod) {
            "Succeeded" => Health { progress: 2, ..Health::default() },
            "Failed" => {
                let status = pod.status.as_ref();
                let reason = status.and_then(|s| s.reason.clone()).unwrap_or_else(|| "Failed".to_owned());
                let message = status.and_then(|s| s.message.clone()).unwrap_or_else(|| "the pod failed".to_owned());
                let mut health = Health::default();
                let container = containers(pod).find_map(|c| Some((c, ended(c)?))).filter(|(_, end)| end.exit_code != 0);
                let evidence = match container {
                    Some((c, end)) => exit(c, &end, &reason),
                    None => Evidence { reason, message, ..Evidence::default() },
                };
                self.worse(&mut health, State::Broken, self.about(pod, evidence));
                health
            }
            _ => self.pod(pod),
        }
    }

    /// A pod that should be running.
    fn pod(&self, pod: &Pod) -> Health {
        let name = pod.metadata.name.as_deref().unwrap_or("");
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("");
        let mut health = Health::default();
        if self.unreachable.contains(node) {
            health.state = State::Unknown;
            health.on.push(format!("pod {name}: host {node} does not answer"));
            return health;
        }
        if node.is_empty() {
            return match condition(pod, "PodScheduled").filter(|c| c.status == "False") {
                Some(why) => {
                    let message = why.message.clone().unwrap_or_default();
                    let reason = why.reason.clone().unwrap_or_else(|| "Unschedulable".to_owned());
                    self.worse(&mut health, State::HeldUp, self.about(pod, Evidence { reason, message, ..Evidence::default() }));
                    health
                }
                None => progressing(format!("pod {name}: waits for a host")),
            };
        }
        health.progress = 1;
        let standing = Standing::of(pod, self);
        for container in containers(pod) {
            if let Some((state, evidence)) = standing.judge(container) {
                self.worse(&mut health, state, self.about(pod, evidence));
            }
        }
        let ready = condition(pod, "Ready");
        if ready.is_some_and(|c| c.status == "True") {
            // A container that serves now is not held against it, however it began.
            return Health { progress: 2, ..Health::default() };
        }
        if health.state == State::Healthy {
            health.state = State::Progressing;
            let waits = containers(pod).filter(|c| !c.ready).find_map(|c| {
                let state = c.state.as_ref()?;
                let word = match state {
                    ContainerState { waiting: Some(w), .. } => w.reason.clone().unwrap_or_else(|| "waiting".to_owned()),
                    ContainerState { running: Some(_), .. } => "running, not ready".to_owned(),
                    _ => "ended".to_owned(),
                };
                Some(format!("pod {name}: container {}: {word}", c.name))
            });
            health.on.push(waits.unwrap_or_else(|| format!("pod {name}: starts on {node}")));
            // Not a reason to go back by itself; but if time runs out, this is what was seen last.
            let slow = containers(pod).find(|c| !c.ready && c.state.as_ref().is_some_and(|s| s.running.is_some()));
            if let Some(container) = slow {
                health.evidence.push(
                    self.about(
                        pod,
                        Evidence {
                            container: container.name.clone(),
                            reason: "NotReady".to_owned(),
                            message: ready
                                .and_then(|c| c.message.clone())
                                .unwrap_or_else(|| format!("container {} runs and does not become ready", container.name)),
                            ..Evidence::default()
                        },
                    ),
                );
            }
        }
        health
    }

    fn about(&self, pod: &Pod, evidence: Evidence) -> Evidence {
        Evidence {
            object: self.name.to_owned(),
            pod: pod.metadata.name.clone().unwrap_or_default(),
            host: pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default(),
            ..evidence
        }
    }

    fn worse(&self, health: &mut Health, state: State, mut evidence: Evidence) {
        if evidence.object.is_empty() {
            evidence.object = self.name.to_owned();
        }
        health.state = health.state.max(state);
        health.on.insert(0, show(&evidence));
        health.evidence.insert(0, evidence);
    }
}

/// One fact as a sentence: `pod web-1 on b: CrashLoopBackOff: container web ended with exit code 1`.
pub fn show(evidence: &Evidence) -> String {
    let mut text = String::new();
    if !evidence.pod.is_empty() {
        text.push_str(&format!("pod {}", evidence.pod));
        if !evidence.host.is_empty() {
            text.push_str(&format!(" on {}", evidence.host));
        }
        text.push_str(": ");
    }
    text.push_str(&evidence.reason);
    if !evidence.message.is_empty() {
        text.push_str(": ");
        text.push_str(&evidence.message);
    }
    text
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// Whether a Deployment's old pods go before new ones come.
fn recreates(spec: &DeploymentSpec) -> bool {
    spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// Equal but for the label by which replica sets tell their pods apart.
fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let plain = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
            labels.remove("pod-template-hash");
        }
        serde_json::to_value(template).unwrap_or_default()
    };
    plain(a) == plain(b)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::object::{Draft, Kind};

    pub(super) fn object(value: Value) -> Arc<Object> {
        Arc::new(Draft::new(Kind::of_value(&value).unwrap(), value).seal(1))
    }

    pub(super) fn now() -> Timestamp {
        "2026-11-21T01:00:00Z".parse().unwrap()
    }

    /// A pod on host `a` with one container, from its container's status; ready if it says so.
    pub(super) fn pod(status: Value) -> Arc<Object> {
        let ready = status["ready"] == true;
        let mut container = json!({"name": "c", "image": "i", "imageID": "", "ready": ready, "restartCount": 0});
        for (name, value) in status.as_object().unwrap() {
            container[name] = value.clone();
        }
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "set", "controller": true});
        object(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-1-x", "namespace": "shop", "uid": "pod", "ownerReferences": [owner]},
            "spec": {"nodeName": "a", "containers": [{"name": "c", "image": "i"}]},
            "status": {
                "phase": "Running", "startTime": "2026-11-21T00:00:00Z",
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
                "containerStatuses": [container],
            },
        }))
    }

    pub(super) fn told(health: &Health) -> String {
        let codes: Vec<String> = health.evidence.iter().map(|e| format!("{} {:?} {:?}", e.reason, e.exit_code, e.log)).collect();
        format!("{:?} {:?} [{}]", health.state, health.on, codes.join(", "))
    }

    #[test]
    fn pods_serve_or_say_what_they_wait_for() {
        let end = json!({"exitCode": 1, "reason": "Error", "finishedAt": "2026-11-21T00:59:00Z"});
        let ended = json!({"state": {"terminated": end}, "lastState": {"terminated": end}, "restartCount": 9});
        let served = json!({"ready": true, "state": {"running": {}}, "lastState": {"terminated": end}, "restartCount": 9});
        let away = Children { unreachable: Arc::new(["a".to_owned()].into()), ..Children::default() };
        let here = Children::default();
        for (status, children, expected) in [
            (json!({"ready": true, "state": {"running": {}}}), &here, "Healthy [] []"),
            (served, &here, "Healthy [] []"),
            (
                json!({"state": {"waiting": {"reason": "ContainerCreating"}}}),
                &here,
                r#"Progressing ["pod web-1-x: container c: ContainerCreating"] []"#,
            ),
            (
                json!({"state": {"running": {}}}),
                &here,
                r#"Progressing ["pod web-1-x: container c: running, not ready"] [NotReady None ""]"#,
            ),
            (ended, &away, r#"Unknown ["pod web-1-x: host a does not answer"] []"#),
        ] {
            assert_eq!(told(&of(&pod(status.clone()), children, None, now())), expected, "{status}");
        }
    }

    #[test]
    fn rb9_deployments_are_judged_by_the_pods_of_their_newest_template() {
        let template = |image: &str| json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}});
        let deployment = |generation: i64, status: Value| {
            object(json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "namespace": "shop", "generation": generation},
                "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template("i")},
                "status": status,
            }))
        };
        let set = |uid: &str, image: &str| {
            let mut template = template(image);
            template["metadata"]["labels"]["pod-template-hash"] = json!("h");
            object(json!({
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web-1", "namespace": "shop", "uid": uid},
                "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
            }))
        };
        let bad = pod(json!({"state": {"waiting": {"reason": "InvalidImageName"}}}));
        let newest = Children { replica_sets: vec![set("set", "i")], pods: vec![bad.clone()], ..Children::default() };
        let older = Children { replica_sets: vec![set("set", "other")], pods: vec![bad], ..Children::default() };
        let half = json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 2});
        let done = json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
        let overdue = json!({
            "observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1,
            "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "m"}],
        });
        for (generation, status, children, expected) in [
            (2, done.clone(), &newest, "Healthy [] []"),
            (3, done, &newest, r#"Progressing ["its controller has not seen its last change yet"] []"#),
            (
                2,
                half.clone(),
                &newest,
                r#"Broken ["1 of 2 new replicas are there", "pod web-1-x on a: InvalidImageName"] [InvalidImageName None ""]"#,
            ),
            (
                2,
                half,
                &older,
                r#"Progressing ["1 of 2 new replicas are there", "its controller has not made the new replica set yet"] []"#,
            ),
            (
                2,
                overdue,
                &older,
                r#"Progressing ["ProgressDeadlineExceeded: m", "1 of 2 replicas are available", "its controller has not made the new replica set yet"] [ProgressDeadlineExceeded None ""]"#,
            ),
        ] {
            assert_eq!(told(&of(&deployment(generation, status.clone()), children, None, now())), expected, "{status}");
        }
        // An old pod that has to be gone first, on a host of which nobody knows: whatever time passes, that is not the release's fault.
        let left = json!({"observedGeneration": 2, "replicas": 0, "updatedReplicas": 0, "availableReplicas": 0});
        let recreate = |strategy: &str| {
            let mut deployment = deployment(2, left.clone()).value();
            deployment["spec"]["strategy"] = json!({"type": strategy});
            object(deployment)
        };
        let mut leaving = pod(json!({"ready": true, "state": {"running": {}}})).value();
        leaving["metadata"]["deletionTimestamp"] = "2026-11-21T00:30:00Z".into();
        for (strategy, host, expected) in [
            (
                "Recreate",
                "a",
                r#"Unknown ["0 of 2 new replicas are there", "old pod web-1-x to be gone: host a does not answer", "its controller has not made the new replica set yet"] []"#,
            ),
            (
                "Recreate",
                "b",
                r#"Progressing ["0 of 2 new replicas are there", "its controller has not made the new replica set yet"] []"#,
            ),
            (
                "RollingUpdate",
                "a",
                r#"Progressing ["0 of 2 new replicas are there", "its controller has not made the new replica set yet"] []"#,
            ),
        ] {
            let pods = vec![object(leaving.clone())];
            let children = Children { pods, unreachable: Arc::new([host.to_owned()].into()), ..Children::default() };
            assert_eq!(told(&of(&recreate(strategy), &children, None, now())), expected, "{strategy} {host}");
        }
    }
}
