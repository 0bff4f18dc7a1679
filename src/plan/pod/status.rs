//! What a pod's status is, in Kubernetes' words.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::memory::{ContainerMemory, Ended, Image, Memory, Work};
use super::observe::{has_ended, restart_due};
use super::spec::{self, Restart};
use super::step::View;
use super::{Cell, State};

/// The longest termination message that is reported, in bytes.
pub const MESSAGE_MAX: usize = 4096;

/// Computes the status. Transition times of conditions that did not change are taken from the pod.
pub(super) fn status(view: &View<'_>, memory: &Memory) -> PodStatus {
    let pod = view.pod;
    let old = pod.status.clone().unwrap_or_default();
    let inits: Vec<ContainerStatus> = spec::inits(pod).iter().map(|c| container(view, memory, c, true)).collect();
    let apps: Vec<ContainerStatus> = spec::apps(pod).iter().map(|c| container(view, memory, c, false)).collect();
    let mut ephemerals: Vec<ContainerStatus> = spec::ephemerals(pod).iter().map(|c| container(view, memory, c, false)).collect();
    for status in &mut ephemerals {
        status.ready = false; // nobody sends them requests
        status.started = None;
    }
    let phase = match &memory.phase {
        Some(phase) => phase.clone(),
        None => phase(view, memory, &inits, &apps),
    };
    let mut status = PodStatus {
        observed_generation: pod.metadata.generation,
        start_time: memory.started.map(Time),
        host_ip: Some(view.node_ip.to_owned()).filter(|ip| !ip.is_empty()),
        host_ips: Some(view.node_ip.to_owned()).filter(|ip| !ip.is_empty()).map(|ip| vec![HostIP { ip }]),
        qos_class: old.qos_class.clone().or_else(|| Some(qos(pod).to_owned())),
        nominated_node_name: old.nominated_node_name.clone(),
        ..PodStatus::default()
    };
    if let Some(ip) = address(view, memory) {
        status.pod_ip = Some(ip.clone());
        status.pod_ips = Some(vec![PodIP { ip }]);
    }
    if let Some(stopping) = memory.stopping.as_ref().filter(|s| !s.reason.is_empty()) {
        status.reason = Some(stopping.reason.clone());
        status.message = Some("Pod was active on the node longer than the specified deadline".to_owned());
    }
    status.conditions = Some(conditions(view, memory, &phase, &inits, &apps, old.conditions.unwrap_or_default()));
    status.init_container_statuses = Some(inits).filter(|s| !s.is_empty());
    status.container_statuses = Some(apps);
    status.ephemeral_container_statuses = Some(ephemerals).filter(|s| !s.is_empty());
    status.phase = Some(phase);
    status
}

/// The pod's address, as long as it has one.
pub fn address(view: &View<'_>, memory: &Memory) -> Option<String> {
    if spec::host_network(view.pod) {
        return Some(view.node_ip.to_owned()).filter(|ip| !ip.is_empty());
    }
    let cell = view.seen.sandbox()?;
    if cell.state.alive() { cell.ip.clone().filter(|ip| !ip.is_empty()) } else { None }
        .or_else(|| memory.sandbox.ip.clone().filter(|_| memory.phase.is_none() && cell.id == memory.sandbox.id))
}

/// Kubernetes' classes of service: who is starved first.
pub fn qos(pod: &k8s_openapi::api::core::v1::Pod) -> &'static str {
    let all: Vec<&Container> = spec::inits(pod).iter().chain(spec::apps(pod)).collect();
    let mut any = false;
    let mut guaranteed = !all.is_empty();
    for container in all {
        let empty = std::collections::BTreeMap::new();
        let resources = container.resources.as_ref();
        let requests = resources.and_then(|r| r.requests.as_ref()).unwrap_or(&empty);
        let limits = resources.and_then(|r| r.limits.as_ref()).unwrap_or(&empty);
        for name in ["cpu", "memory"] {
            any |= requests.contains_key(name) || limits.contains_key(name);
            guaranteed &= limits.get(name).is_some_and(|l| requests.get(name).is_none_or(|r| r == l));
        }
    }
    match () {
        () if guaranteed => "Guaranteed",
        () if any => "Burstable",
        () => "BestEffort",
    }
}

/// What the server knows of a container's image where only the engine's own id of it is known here. An agent that has just started has
/// not seen the image come; the one before it had, and said where it came from.
fn known_digest<'a>(view: &'a View<'_>, container_id: &str, found: &str) -> Option<&'a String> {
    let status = view.pod.status.as_ref()?;
    let said = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let mut same = said.filter(|c| c.container_id.as_deref() == Some(container_id));
    same.next().map(|c| &c.image_id).filter(|known| known.contains('@') && !found.contains('@'))
}

fn container(view: &View<'_>, memory: &Memory, container: &Container, init: bool) -> ContainerStatus {
    let empty = ContainerMemory::default();
    let one = memory.containers.get(&container.name).unwrap_or(&empty);
    let current = view.seen.current(&container.name);
    let alive = current.filter(|c| c.state.alive());
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: spec::image(container).to_owned(),
        restart_count: restarts(view, container, one, init).max(current.map_or(0, |c| c.attempt as i32)),
        ..ContainerStatus::default()
    };
    let last = one.last.as_ref();
    let made = match (current, last) {
        (Some(cell), _) => Some((&cell.id, &cell.image_id)),
        (None, Some(last)) if !last.id.is_empty() => Some((&last.id, &last.image_id)),
        _ => None,
    };
    if let Some((id, image_id)) = made {
        let id = format!("docker://{id}");
        status.image_id = known_digest(view, &id, image_id).unwrap_or(image_id).clone();
        status.container_id = Some(id);
    }
    let started = alive.is_some_and(|c| one.started.as_ref() == Some(&c.id));
    status.started = Some(started);
    // A container that a failed probe has condemned takes no more work, even before it has ended. (In a pod that is being deleted,
    // readiness goes on as probed: whether such a pod still serves is its clients' choice.)
    let condemned = |id: &String| memory.stopping.is_none() && one.kill.as_ref().is_some_and(|k| k.id == *id);
    let ready = alive.is_some_and(|c| one.ready.as_ref() == Some(&c.id) && !condemned(&c.id));
    status.ready = match init {
        true if spec::is_sidecar(container) => started && ready,
        true => last.is_some_and(|l| l.exit_code == 0) && alive.is_none(),
        false => ready,
    };
    if let Some(cell) = alive {
        let started_at = cell.started_at.map(Time);
        status.state = Some(ContainerState { running: Some(ContainerStateRunning { started_at }), ..ContainerState::default() });
        status.last_state = last.map(|l| terminated(l, true));
        return status;
    }
    let over = memory.phase.is_some() || memory.stopping.is_some() || !will_restart(view, memory, container, one, init);
    if let Some(last) = last.filter(|_| over) {
        status.state = Some(terminated(last, false));
        status.last_state = one.before.as_ref().map(|l| terminated(l, true));
        return status;
    }
    let waiting = waiting(view, memory, container, one, current, init);
    let shown = last.is_some() && waiting.reason.as_deref() == Some("ContainerCreating");
    if let Some(last) = last.filter(|_| shown) {
        // Between its end and the next attempt, an ended container is shown as such.
        status.state = Some(terminated(last, false));
        status.last_state = one.before.as_ref().map(|l| terminated(l, true));
    } else {
        status.state = Some(ContainerState { waiting: Some(waiting), ..ContainerState::default() });
        status.last_state = last.map(|l| terminated(l, true));
    }
    status
}

/// How often a container was restarted, as far as is remembered here or at the server: what was once reported is not taken back, also
/// when the container that it was counted from is gone.
fn restarts(view: &View<'_>, container: &Container, one: &ContainerMemory, init: bool) -> i32 {
    let status = view.pod.status.as_ref();
    let known = status.and_then(|s| if init { s.init_container_statuses.as_ref() } else { s.container_statuses.as_ref() });
    let reported = known.into_iter().flatten().find(|s| s.name == container.name).map_or(0, |s| s.restart_count);
    reported.max(one.next_attempt.saturating_sub(1) as i32)
}

fn will_restart(view: &View<'_>, memory: &Memory, container: &Container, one: &ContainerMemory, init: bool) -> bool {
    let Some(last) = &one.last else { return true };
    if init && !spec::is_sidecar(container) && memory.initialized {
        return false;
    }
    match spec::restart_of(view.pod, container) {
        Restart::Always => true,
        Restart::OnFailure => last.exit_code != 0,
        Restart::Never => false,
    }
}

fn terminated(end: &Ended, _past: bool) -> ContainerState {
    let terminated = ContainerStateTerminated {
        container_id: Some(end.id.clone()).filter(|id| !id.is_empty()).map(|id| format!("docker://{id}")),
        exit_code: i32::try_from(end.exit_code).unwrap_or(255),
        reason: Some(end.reason.clone()),
        message: end.message.clone().filter(|m| !m.is_empty()),
        started_at: end.started_at.map(Time),
        finished_at: end.finished_at.map(Time),
        signal: end.signal,
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn waiting(
    view: &View<'_>,
    memory: &Memory,
    container: &Container,
    one: &ContainerMemory,
    current: Option<&Cell>,
    init: bool,
) -> ContainerStateWaiting {
    let say = |reason: &str, message: String| ContainerStateWaiting {
        reason: Some(reason.to_owned()),
        message: Some(message).filter(|m| !m.is_empty()),
    };
    if let Image::Failed { reason, message } = &one.image {
        // The first failure says what went wrong; from then on what counts is that we wait.
        if reason == "ErrImagePull" && one.pull_failures > 1 {
            return say("ImagePullBackOff", format!("Back-off pulling image \"{}\": {message}", spec::image(container)));
        }
        return say(reason, message.clone());
    }
    if one.pull_failures > 0 && one.image == Image::Wanted {
        return say("ImagePullBackOff", format!("Back-off pulling image \"{}\"", spec::image(container)));
    }
    if let Some(trouble) = &one.trouble {
        return say(&trouble.reason, trouble.message.clone());
    }
    if one.last.is_some() && one.backoff > 0 && current.is_none_or(has_ended) && restart_due(one).is_some_and(|d| d > view.now) {
        let message = format!(
            "back-off {}s restarting failed container={} pod={}_{}({})",
            one.backoff,
            container.name,
            spec::name(view.pod),
            spec::namespace(view.pod),
            spec::uid(view.pod)
        );
        return say("CrashLoopBackOff", message);
    }
    let waits_for_inits = !init && !spec::is_ephemeral(view.pod, &container.name);
    if waits_for_inits && !spec::inits(view.pod).is_empty() && !memory.initialized {
        return say("PodInitializing", String::new());
    }
    let trouble = match (&memory.volumes, memory.sandbox.error.as_str()) {
        (_, error) if !error.is_empty() => error.to_owned(),
        (Work::Failed { message, .. }, _) => message.clone(),
        _ => String::new(),
    };
    say(if init && memory.sandbox.id.is_empty() { "PodInitializing" } else { "ContainerCreating" }, trouble)
}

/// As the kubelet computes it.
fn phase(view: &View<'_>, memory: &Memory, inits: &[ContainerStatus], apps: &[ContainerStatus]) -> String {
    let terminated = |s: &ContainerStatus| s.state.as_ref().and_then(|s| s.terminated.clone());
    let running = |s: &ContainerStatus| s.state.as_ref().is_some_and(|s| s.running.is_some());
    let ended_before = |s: &ContainerStatus| s.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
    let _ = inits;
    if !spec::inits(view.pod).is_empty() && !memory.initialized {
        return "Pending".to_owned();
    }
    let alive = apps.iter().filter(|s| running(s)).count();
    let stopped = apps.iter().filter(|s| terminated(s).is_some() || (!running(s) && ended_before(s))).count();
    let waiting = apps.len() - alive - stopped;
    let word = match () {
        () if waiting > 0 => "Pending",
        () if alive + stopped > 0 => "Running",
        () => "Pending",
    };
    word.to_owned()
}

fn conditions(
    view: &View<'_>,
    memory: &Memory,
    phase: &str,
    inits: &[ContainerStatus],
    apps: &[ContainerStatus],
    old: Vec<PodCondition>,
) -> Vec<PodCondition> {
    let pod = view.pod;
    let done = phase == "Succeeded";
    let names = |list: Vec<&ContainerStatus>| list.iter().map(|s| s.name.clone()).collect::<Vec<_>>().join(" ");
    let unready: Vec<&ContainerStatus> = apps
        .iter()
        .chain(inits.iter().filter(|s| spec::container(pod, &s.name).is_some_and(spec::is_sidecar)))
        .filter(|s| !s.ready)
        .collect();
    let not_ready = format!("containers with unready status: [{}]", names(unready.clone()));
    let incomplete: Vec<&ContainerStatus> = inits.iter().filter(|s| !s.ready).collect();
    let network = view.seen.sandbox().is_some_and(|c| c.state == State::Running);
    let initialized = memory.initialized || done || inits.is_empty();
    let gates: Vec<&str> = spec::spec(pod)
        .and_then(|s| s.readiness_gates.as_ref())
        .into_iter()
        .flatten()
        .map(|g| g.condition_type.as_str())
        .filter(|g| !old.iter().any(|c| c.type_ == *g && c.status == "True"))
        .collect();

    let mut ours = vec![condition("PodReadyToStartContainers", network, "", "")];
    ours.push(match initialized {
        true => condition("Initialized", true, if done { "PodCompleted" } else { "" }, ""),
        false => {
            let message = format!("containers with incomplete status: [{}]", names(incomplete));
            condition("Initialized", false, "ContainersNotInitialized", &message)
        }
    });
    let containers_ready = unready.is_empty() && phase == "Running";
    let (reason, message) = match () {
        () if containers_ready => ("", ""),
        () if done => ("PodCompleted", ""),
        () if phase == "Failed" => ("PodFailed", ""),
        () => ("ContainersNotReady", not_ready.as_str()),
    };
    ours.push(match gates.as_slice() {
        [] => condition("Ready", containers_ready, reason, message),
        _ if !containers_ready => condition("Ready", false, reason, message),
        [gate, ..] => {
            let message = format!("corresponding condition of pod readiness gate \"{gate}\" does not exist or is not true");
            condition("Ready", false, "ReadinessGatesNotReady", &message)
        }
    });
    ours.push(condition("ContainersReady", containers_ready, reason, message));
    ours.push(condition("PodScheduled", true, "", ""));

    let mut all: Vec<PodCondition> = Vec::with_capacity(ours.len() + old.len());
    for mut one in ours {
        one.observed_generation = pod.metadata.generation;
        let before = old.iter().find(|c| c.type_ == one.type_);
        one.last_transition_time = match before.filter(|b| b.status == one.status) {
            Some(before) => before.last_transition_time.clone(),
            None => Some(Time(second(view.now))),
        };
        all.push(one);
    }
    // Conditions of others (readiness gates, disruption) are theirs.
    all.extend(old.into_iter().filter(|c| !all.iter().any(|a| a.type_ == c.type_)).collect::<Vec<_>>());
    all
}

fn condition(kind: &str, on: bool, reason: &str, message: &str) -> PodCondition {
    PodCondition {
        type_: kind.to_owned(),
        status: if on { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()).filter(|r| !r.is_empty()),
        message: Some(message.to_owned()).filter(|m| !m.is_empty()),
        ..PodCondition::default()
    }
}

/// Kubernetes writes whole seconds; so that what comes back compares equal, so do we.
fn second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
