//! An object and its children -> how it is. Worst wins.
//!
//! Health is read from what is recorded (statuses), never from what was intended. What a health means for a release on trial is decided
//! in `plan::verdict`.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Namespace, Pod, PodTemplateSpec};
use serde::Serialize;

use crate::mutant::{self, Mutant};
use crate::object::custom::{self, Definition};
use crate::object::ours::Evidence;
use crate::object::{Key, Object};
use crate::plan::rollout;

/// After this many restarts a container that ends again is broken: it began and ended three times. One or two early exits are common
/// in containers that wait for something by exiting.
const RESTARTS_ALLOWED: i32 = 2;
/// For how long a container may lack its configuration before that is taken for a mistake: agents learn of a new ConfigMap a moment
/// after they learn of the pod, and of one that was put back when they try again.
const CONFIG_GRACE: SignedDuration = SignedDuration::from_secs(20);
/// What Kubernetes takes for a Deployment's `progressDeadlineSeconds` where nobody says one.
const DEPLOYMENT_DEADLINE: i32 = 600;
/// For how long a registry may deny a pod its image before that is taken for its answer. Longer than a bad moment of its accounts, and
/// shorter than anybody wants to wait for a misspelt name.
const DENIED_GRACE: SignedDuration = SignedDuration::from_mins(2);
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
            let Some(pod) = pod.typed::<Pod>().ok().filter(|pod| old && !rollout::ended(pod)) else {
                continue;
            };
            let host = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("");
            if self.unreachable.contains(host) {
                let name = pod.metadata.name.as_deref().unwrap_or("");
                health.state = health.state.max(State::Unknown);
                health.on.push(format!("old pod {name} to be gone: host {host} does not answer"));
            }
        }
    }

    /// The worst of the pods that this owner controls.
    fn pods(&self, health: &mut Health, children: &Children, owner: &str) {
        let mut found: Vec<Health> = children
            .pods
            .iter()
            .filter(|pod| pod.meta.controller().is_some_and(|o| o.uid == owner) && !pod.meta.deleting())
            .filter_map(|pod| pod.typed::<Pod>().ok())
            // A pod that ended is replaced by its controller.
            .filter(|pod| !rollout::ended(pod))
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
        let condition = |kind: &str| pod.status.as_ref().and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == kind));
        if self.unreachable.contains(node) {
            health.state = State::Unknown;
            health.on.push(format!("pod {name}: host {node} does not answer"));
            return health;
        }
        if node.is_empty() {
            return match condition("PodScheduled").filter(|c| c.status == "False") {
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
        let age_from = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).or(pod.metadata.creation_timestamp.as_ref());
        let young = age_from.map(|t| t.0).max(self.written).is_none_or(|t| self.now.duration_since(t) < CONFIG_GRACE);
        // Restarts of before the rollout count only for pods of before it. Creation times are whole seconds.
        let older =
            |since: Timestamp| pod.metadata.creation_timestamp.as_ref().is_some_and(|t| t.0.as_second() < since.as_second());
        let allowed = RESTARTS_ALLOWED + if self.since.is_some_and(older) { self.restarts_before } else { 0 };
        let denied_long = age_from.is_some_and(|t| self.now.duration_since(t.0) >= DENIED_GRACE);
        let cut_off = condition("PodReadyToStartContainers").is_some_and(|c| c.status == "False");
        let standing = Standing { young, denied_long, cut_off };
        for container in containers(pod) {
            if let Some((state, evidence)) = self.container(container, standing, allowed) {
                self.worse(&mut health, state, self.about(pod, evidence));
            }
        }
        let ready = condition("Ready");
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

    /// What speaks against one container, if anything does.
    fn container(
        &self,
        container: &ContainerStatus,
        Standing { young, denied_long, cut_off }: Standing,
        allowed: i32,
    ) -> Option<(State, Evidence)> {
        let fact = |reason: &str, message: &Option<String>| Evidence {
            container: container.name.clone(),
            reason: reason.to_owned(),
            message: message.clone().unwrap_or_default(),
            ..Evidence::default()
        };
        let end = ended(container).filter(|end| self.since.is_none_or(|since| end.finished_at.is_none_or(|at| at >= since)));
        let state = container.state.as_ref()?;
        if let Some(waiting) = &state.waiting {
            let reason = waiting.reason.as_deref().unwrap_or("");
            match reason {
                "InvalidImageName" | "ErrImageNeverPull" => return Some((State::Broken, fact(reason, &waiting.message))),
                "ErrImagePull" | "ImagePullBackOff" => {
                    let answer = waiting.message.as_deref().map_or(Answer::None, |words| answer(words, &container.image));
                    let again = reason == "ImagePullBackOff";
                    let state = match answer {
                        // The first refusal may be a registry that is a moment behind a push; from the second on it is an answer.
                        Answer::NoSuchImage if again => State::Broken,
                        // A registry whose accounts have a bad moment denies as well. It gets longer, and the deadline counts.
                        Answer::Denied if again && denied_long => State::Broken,
                        Answer::NoSuchImage | Answer::Denied => State::Progressing,
                        Answer::None if mutant::on(Mutant::InconclusiveIsFailed) => State::Broken,
                        Answer::None => State::HeldUp,
                    };
                    return Some((state, fact(reason, &waiting.message)));
                }
                "CreateContainerError" | "RunContainerError" if cut_off => {
                    return Some((State::Progressing, fact(reason, &waiting.message)));
                }
                "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                    let state = if young { State::Progressing } else { State::Broken };
                    return Some((state, fact(reason, &waiting.message)));
                }
                _ => {}
            }
        }
        let end = end?;
        let waits = state.waiting.is_some() || state.terminated.is_some();
        if end.from_outside {
            // Its host went down, somebody killed or removed it: whatever it was, the container did not do it.
            return waits.then(|| (State::Progressing, exit(container, &end, &end.reason)));
        }
        let killed = end.reason == "OOMKilled";
        let allowed = if killed { allowed - (RESTARTS_ALLOWED - 1) } else { allowed };
        let again = end.exit_code != 0 || container.restart_count > 0;
        if again && container.restart_count >= allowed && (waits || !container.ready && container.restart_count > allowed) {
            let why = if killed { "OOMKilled" } else { "CrashLoopBackOff" };
            return Some((State::Broken, exit(container, &end, why)));
        }
        (waits && end.exit_code != 0).then(|| (State::Progressing, exit(container, &end, &end.reason)))
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

/// What about a pod bears on what its containers say.
#[derive(Clone, Copy)]
struct Standing {
    /// What it refers to may come a moment after it.
    young: bool,
    /// A registry has had its time to think again.
    denied_long: bool,
    /// Its sandbox does not run: none of its containers can be started, whatever release they are of.
    cut_off: bool,
}

/// How a container ended the last time.
struct End {
    exit_code: i32,
    reason: String,
    message: String,
    finished_at: Option<Timestamp>,
    /// It was ended, and gave no reason for it.
    from_outside: bool,
}

fn ended(container: &ContainerStatus) -> Option<End> {
    let last = container.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    let end = container.state.as_ref().and_then(|s| s.terminated.as_ref()).or(last)?;
    Some(End {
        exit_code: end.exit_code,
        // The agent names a signal only where the container gave no reason for it, and these words only where nobody knows one.
        from_outside: end.signal.is_some() || matches!(end.reason.as_deref(), Some("Unknown" | "ContainerStatusUnknown")),
        reason: end.reason.clone().unwrap_or_else(|| "Error".to_owned()),
        message: end.message.clone().unwrap_or_default(),
        finished_at: end.finished_at.as_ref().map(|t| t.0),
    })
}

fn exit(container: &ContainerStatus, end: &End, reason: &str) -> Evidence {
    let times =
        if container.restart_count > 0 { format!(", restarted {} times", container.restart_count) } else { String::new() };
    Evidence {
        container: container.name.clone(),
        reason: reason.to_owned(),
        message: if end.from_outside {
            format!("container {} was ended from outside, with exit code {}{times}", container.name, end.exit_code)
        } else {
            format!("container {} ended with exit code {}{times}", container.name, end.exit_code)
        },
        exit_code: Some(end.exit_code),
        log: end.message.trim_end().to_owned(),
        ..Evidence::default()
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

/// What a registry answered to the question for an image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// There is no such image.
    NoSuchImage,
    /// We do not get it. Some registries say this of a repository that does not exist, so as not to tell which ones do.
    Denied,
    /// Nothing: it cannot be reached, or cannot tell now.
    None,
}

/// What a registry's words about an image mean.
fn answer(message: &str, image: &str) -> Answer {
    // The image's own name says nothing: somebody's is called `timeout`.
    let repository = image.rsplit_once(':').map_or(image, |(repository, tag)| if tag.contains('/') { image } else { repository });
    let names = |word: &&str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let rest =
            if repository.is_empty() { None } else { word.find(repository).map(|at| (at, &word[at + repository.len()..])) };
        rest.is_some_and(|(at, rest)| (at == 0 || word[..at].ends_with('/')) && (rest.is_empty() || rest.starts_with([':', '@'])))
    };
    let message = message.split_whitespace().filter(|word| !names(word)).collect::<Vec<_>>().join(" ").to_ascii_lowercase();
    // A proxy's error page says "not found" as well; whoever cannot reach the registry has no answer from it.
    let away = [
        "timeout",
        "timed out",
        "connection refused",
        "no such host",
        "unreachable",
        "503",
        "502",
        "500 internal",
        "tls handshake",
        "tls:",
        "x509",
        "eof",
    ];
    let gone =
        ["manifest unknown", "not found", "does not exist", "no such image", "repository name not known", "invalid reference"];
    let denied =
        ["denied", "unauthorized", "authentication required", "no basic auth credentials", "forbidden", "insufficient_scope"];
    let says = |words: &[&str]| words.iter().any(|w| message.contains(w));
    match () {
        () if says(&away) => Answer::None,
        () if says(&gone) => Answer::NoSuchImage,
        () if says(&denied) => Answer::Denied,
        () => Answer::None,
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|s| s.init_container_statuses.as_ref()).into_iter().flatten();
    init.chain(status.and_then(|s| s.container_statuses.as_ref()).into_iter().flatten())
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

    fn object(value: Value) -> Arc<Object> {
        Arc::new(Draft::new(Kind::of_value(&value).unwrap(), value).seal(1))
    }

    fn now() -> Timestamp {
        "2026-11-21T01:00:00Z".parse().unwrap()
    }

    /// A pod on host `a` with one container, from its container's status; ready if it says so.
    fn pod(status: Value) -> Arc<Object> {
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

    fn told(health: &Health) -> String {
        let codes: Vec<String> = health.evidence.iter().map(|e| format!("{} {:?} {:?}", e.reason, e.exit_code, e.log)).collect();
        format!("{:?} {:?} [{}]", health.state, health.on, codes.join(", "))
    }

    #[test]
    fn pods() {
        let ended = |code: i32, reason: &str, at: &str| json!({"terminated": {"exitCode": code, "reason": reason, "finishedAt": at, "message": "last words\n"}});
        let crash = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let early = ended(1, "Error", "2026-11-21T00:10:00Z");
        let late = ended(1, "Error", "2026-11-21T00:59:00Z");
        let killed = ended(137, "OOMKilled", "2026-11-21T00:59:00Z");
        let mut struck = ended(137, "Error", "2026-11-21T00:59:00Z");
        struck["terminated"]["signal"] = 9.into();
        let pull = |reason: &str, message: &str| json!({"state": {"waiting": {"reason": reason, "message": message}}});
        let since = "2026-11-21T00:30:00Z".parse().unwrap();
        for (status, expected) in [
            (json!({"ready": true, "state": {"running": {}}}), "Healthy [] []"),
            (json!({"ready": true, "state": {"running": {}}, "restartCount": 9, "lastState": late}), "Healthy [] []"),
            (
                json!({"state": {"waiting": {"reason": "ContainerCreating"}}}),
                r#"Progressing ["pod web-1-x: container c: ContainerCreating"] []"#,
            ),
            (
                json!({"state": {"running": {}}}),
                r#"Progressing ["pod web-1-x: container c: running, not ready"] [NotReady None ""]"#,
            ),
            (
                json!({"state": crash, "restartCount": 1, "lastState": late}),
                r#"Progressing ["pod web-1-x on a: Error: container c ended with exit code 1, restarted 1 times"] [Error Some(1) "last words"]"#,
            ),
            (
                json!({"state": crash, "restartCount": 2, "lastState": late}),
                r#"Broken ["pod web-1-x on a: CrashLoopBackOff: container c ended with exit code 1, restarted 2 times"] [CrashLoopBackOff Some(1) "last words"]"#,
            ),
            // What broke before the rollout began does not speak against it.
            (
                json!({"state": crash, "restartCount": 7, "lastState": early}),
                r#"Progressing ["pod web-1-x: container c: CrashLoopBackOff"] []"#,
            ),
            (
                json!({"state": crash, "restartCount": 1, "lastState": killed}),
                r#"Broken ["pod web-1-x on a: OOMKilled: container c ended with exit code 137, restarted 1 times"] [OOMKilled Some(137) "last words"]"#,
            ),
            // A probe that kills it again and again, while it runs in between.
            (
                json!({"state": {"running": {}}, "restartCount": 3, "lastState": late}),
                r#"Broken ["pod web-1-x on a: CrashLoopBackOff: container c ended with exit code 1, restarted 3 times"] [CrashLoopBackOff Some(1) "last words"]"#,
            ),
            (
                pull("ErrImagePull", "manifest unknown"),
                r#"Progressing ["pod web-1-x on a: ErrImagePull: manifest unknown"] [ErrImagePull None ""]"#,
            ),
            (
                pull("ImagePullBackOff", "manifest for i:9 not found"),
                r#"Broken ["pod web-1-x on a: ImagePullBackOff: manifest for i:9 not found"] [ImagePullBackOff None ""]"#,
            ),
            (
                pull("ImagePullBackOff", "received unexpected HTTP status: 503 Service Unavailable"),
                r#"HeldUp ["pod web-1-x on a: ImagePullBackOff: received unexpected HTTP status: 503 Service Unavailable"] [ImagePullBackOff None ""]"#,
            ),
            (
                pull("ErrImagePull", "pull access denied"),
                r#"Progressing ["pod web-1-x on a: ErrImagePull: pull access denied"] [ErrImagePull None ""]"#,
            ),
            // Its start is an hour ago: long enough for a registry whose accounts have a bad moment.
            (
                pull("ImagePullBackOff", "pull access denied"),
                r#"Broken ["pod web-1-x on a: ImagePullBackOff: pull access denied"] [ImagePullBackOff None ""]"#,
            ),
            (
                pull("ImagePullBackOff", "unauthorized: connection refused"),
                r#"HeldUp ["pod web-1-x on a: ImagePullBackOff: unauthorized: connection refused"] [ImagePullBackOff None ""]"#,
            ),
            // Somebody else's SIGKILL, a reboot, a removal by hand: however often, the container did not do it.
            (
                json!({"state": crash, "restartCount": 9, "lastState": struck}),
                r#"Progressing ["pod web-1-x on a: Error: container c was ended from outside, with exit code 137, restarted 9 times"] [Error Some(137) "last words"]"#,
            ),
            (
                json!({"state": crash, "restartCount": 9, "lastState": ended(255, "Unknown", "2026-11-21T00:59:00Z")}),
                r#"Progressing ["pod web-1-x on a: Unknown: container c was ended from outside, with exit code 255, restarted 9 times"] [Unknown Some(255) "last words"]"#,
            ),
            (
                json!({"state": {"running": {}}, "restartCount": 9, "lastState": struck}),
                r#"Progressing ["pod web-1-x: container c: running, not ready"] [NotReady None ""]"#,
            ),
            (pull("InvalidImageName", "x"), r#"Broken ["pod web-1-x on a: InvalidImageName: x"] [InvalidImageName None ""]"#),
            (
                pull("CreateContainerConfigError", "no key"),
                r#"Broken ["pod web-1-x on a: CreateContainerConfigError: no key"] [CreateContainerConfigError None ""]"#,
            ),
        ] {
            let text = told(&of(&pod(status.clone()), &Children::default(), Some(since), now()));
            assert_eq!(text, expected, "{status}");
        }
        // Restarts of before the rollout do not count for a pod of before it, and do for a new one.
        let again = object({
            let mut pod = pod(json!({"state": crash, "restartCount": 8, "lastState": late})).value();
            pod["metadata"]["creationTimestamp"] = "2026-11-21T00:00:00Z".into();
            pod
        });
        for (before, since, expected) in [(6, since, "Broken"), (7, since, "Progressing"), (7, Timestamp::UNIX_EPOCH, "Broken")] {
            let children = Children { restarts_before: before, ..Children::default() };
            assert_eq!(of(&again, &children, Some(since), now()).state.word(), expected, "{before} since {since}");
        }
        // Without a sandbox nothing starts: that says nothing of the release. What the manifest names and is not there does.
        for (reason, network, expected) in [
            ("RunContainerError", "True", State::Broken),
            ("RunContainerError", "False", State::Progressing),
            ("CreateContainerError", "True", State::Broken),
            ("CreateContainerError", "False", State::Progressing),
            ("CreateContainerConfigError", "False", State::Broken),
        ] {
            let mut pod = pod(pull(reason, "cannot join network of a non running container: 2f0c")).value();
            let conditions = pod["status"]["conditions"].as_array_mut().unwrap();
            conditions.push(json!({"type": "PodReadyToStartContainers", "status": network}));
            let health = of(&object(pod), &Children::default(), Some(since), now());
            assert_eq!(health.state, expected, "{reason} {network}");
        }
        // What was put back a moment ago may have been what it lacked.
        let lacking = pod(pull("CreateContainerConfigError", "configmap \"settings\" not found"));
        for (seconds, expected) in [(1, State::Progressing), (19, State::Progressing), (20, State::Broken)] {
            let children = Children { written: Some(now() - SignedDuration::from_secs(seconds)), ..Children::default() };
            assert_eq!(of(&lacking, &children, Some(since), now()).state, expected, "written {seconds} s ago");
        }
        let young = pod(pull("ImagePullBackOff", "pull access denied"));
        let soon = "2026-11-21T00:01:59Z".parse().unwrap();
        assert_eq!(of(&young, &Children::default(), None, soon).state, State::Progressing);
        let away = Children { unreachable: Arc::new(["a".to_owned()].into()), ..Children::default() };
        let text = told(&of(&pod(json!({"state": crash, "restartCount": 9, "lastState": late})), &away, None, now()));
        assert_eq!(text, r#"Unknown ["pod web-1-x: host a does not answer"] []"#);
    }

    #[test]
    fn answers_of_registries() {
        for (words, image, expected) in [
            ("manifest unknown", "i", Answer::NoSuchImage),
            (
                "pull access denied for a/b, repository does not exist or may require 'docker login': denied",
                "a/b",
                Answer::NoSuchImage,
            ),
            ("denied: requested access to the resource is denied", "a/b:1", Answer::Denied),
            ("unauthorized: authentication required", "r.example:5000/a", Answer::Denied),
            ("no basic auth credentials", "i", Answer::Denied),
            ("toomanyrequests: You have reached your pull rate limit", "i", Answer::None),
            ("net/http: TLS handshake timeout", "i", Answer::None),
            ("unexpected EOF", "i", Answer::None),
            ("", "", Answer::None),
            // An image's own name is no answer, and hides none.
            ("pull of docker.io/shop/denied:1 failed: 500 Internal Server Error", "shop/denied:1", Answer::None),
            ("manifest for shop/eof:1 not found: manifest unknown", "shop/eof:1", Answer::NoSuchImage),
            ("pull access denied for r.example:5000/timeout", "r.example:5000/timeout", Answer::Denied),
        ] {
            assert!(answer(words, image) == expected, "{words}");
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
