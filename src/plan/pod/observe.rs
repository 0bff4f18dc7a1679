//! Brings the memory up to what is seen, before anything is decided.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::memory::{ContainerMemory, Ended, Kill, Memory, Stopping};
use super::step::View;
use super::{Cell, State, backoff, spec};
use crate::mutant::{self, Mutant};

/// Learns from the pod and from what the host shows.
pub(super) fn observe(view: &View<'_>, memory: &mut Memory) {
    let pod = view.pod;
    memory.started.get_or_insert_with(|| {
        // A pod that was running before this host forgot it keeps its age.
        pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or(view.now, |t| t.0)
    });
    let ephemerals = spec::ephemerals(pod);
    for container in spec::inits(pod).iter().chain(spec::apps(pod)).chain(&ephemerals) {
        if !memory.containers.contains_key(&container.name) {
            let fresh = recall(pod, &container.name);
            memory.containers.insert(container.name.clone(), fresh);
        }
    }
    if memory.phase.is_none() {
        // A terminal phase that the server knows stays, whatever this host has forgotten.
        memory.phase = pod
            .status
            .as_ref()
            .and_then(|s| s.phase.clone())
            .filter(|p| (p == "Succeeded" || p == "Failed") && view.seen.containers.iter().all(|c| !c.state.alive()));
    }
    endings(view, memory);
    sandbox(view, memory);
    for (name, one) in &mut memory.containers {
        attempts(view, name, one);
    }
}

/// What the server knows about a container's past. Only matters when this host's memory was lost: restart counts never go down.
fn recall(pod: &Pod, name: &str) -> ContainerMemory {
    let status = pod.status.as_ref();
    let known = status
        .into_iter()
        .flat_map(|s| [&s.container_statuses, &s.init_container_statuses, &s.ephemeral_container_statuses])
        .flatten()
        .flatten()
        .find(|c| c.name == name);
    let mut memory = ContainerMemory::default();
    if let Some(known) = known
        && known.container_id.as_deref().is_some_and(|id| !id.is_empty())
    {
        memory.next_attempt = u32::try_from(known.restart_count).unwrap_or(0) + 1;
    }
    memory
}

/// Whether the pod has to end, and by when.
fn endings(view: &View<'_>, memory: &mut Memory) {
    let pod = view.pod;
    if pod.metadata.deletion_timestamp.is_some() && !mutant::on(Mutant::StartTombstoned) {
        let asked = pod.metadata.deletion_grace_period_seconds.unwrap_or_else(|| spec::grace(pod)).max(0);
        match &mut memory.stopping {
            None => {
                memory.stopping = Some(Stopping { since: view.now, grace: asked, asked, reason: String::new() });
            }
            Some(stopping) if !stopping.reason.is_empty() => {
                *stopping = Stopping { since: view.now, grace: asked, asked, reason: String::new() };
            }
            // Somebody lost patience: from now on it has the shorter time.
            Some(stopping) if asked < stopping.asked => {
                let gone = view.now.duration_since(stopping.since).as_secs();
                stopping.grace = stopping.grace.min(gone + asked);
                stopping.asked = asked;
            }
            Some(_) => {}
        }
        return;
    }
    let limit = spec::spec(pod).and_then(|s| s.active_deadline_seconds);
    if let (None, None, Some(limit), Some(started)) = (&memory.stopping, &memory.phase, limit, memory.started)
        && view.now.duration_since(started) >= SignedDuration::from_secs(limit)
    {
        let grace = spec::grace(pod);
        memory.stopping = Some(Stopping { since: view.now, grace, asked: grace, reason: "DeadlineExceeded".to_owned() });
    }
}

fn sandbox(view: &View<'_>, memory: &mut Memory) {
    let known = &mut memory.sandbox;
    for cell in &view.seen.sandboxes {
        known.next_attempt = known.next_attempt.max(cell.attempt + 1);
    }
    let Some(cell) = view.seen.sandbox().filter(|c| c.state.alive()) else { return };
    if known.id != cell.id {
        if !known.id.is_empty() {
            memory.initialized = false; // init containers run once per sandbox
        }
        known.id = cell.id.clone();
        known.started_at = cell.started_at;
    }
    if known.started_at == cell.started_at {
        known.ip = cell.ip.clone();
        known.failures = 0;
        known.failed_at = None;
        known.error.clear();
    }
}

/// Whether a sandbox that runs still has the network with which it was started.
pub(super) fn sandbox_is_sound(memory: &Memory, cell: &Cell) -> bool {
    cell.state.alive() && (memory.sandbox.id != cell.id || memory.sandbox.started_at == cell.started_at)
}

/// Whether a container has ended or could never be started.
pub(super) fn has_ended(cell: &Cell) -> bool {
    matches!(cell.state, State::Exited | State::Leaving) || (cell.state == State::Created && !cell.error.is_empty())
}

/// The exit code that a process has after SIGKILL.
const KILLED: i64 = 128 + 9;
/// The exit code that the engine gives to a container of which it does not know how it ended.
const LOST: i64 = 255;
/// The exit code that a process has after SIGTERM.
const TERMINATED: i64 = 128 + 15;

fn ended(view: &View<'_>, cell: &Cell, kill: Option<&Kill>) -> Ended {
    let failed_start = cell.state == State::Created;
    let kill = kill.filter(|k| k.id == cell.id);
    let with_host = !failed_start && ended_with_host(view, cell);
    let reason = match cell {
        _ if failed_start => "StartError",
        // The word of containerd for what it finds ended after a start of the host.
        _ if with_host => "Unknown",
        Cell { oom_killed: true, .. } => "OOMKilled",
        Cell { exit_code: 0, .. } => "Completed",
        _ => "Error",
    };
    let signal = match kill {
        _ if failed_start || with_host || cell.oom_killed => None,
        Some(kill) => (!kill.at_fault).then_some(15),
        None => (cell.exit_code == KILLED).then_some(9),
    };
    let message = match () {
        () if failed_start => Some(cell.error.clone()),
        () if with_host => Some("The host was restarted while the container was running".to_owned()),
        () => None,
    };
    Ended {
        id: cell.id.clone(),
        attempt: cell.attempt,
        exit_code: if failed_start && cell.exit_code == 0 { 128 } else { cell.exit_code },
        reason: reason.to_owned(),
        message,
        image_id: cell.image_id.clone(),
        started_at: cell.started_at.or(cell.created_at),
        finished_at: cell.finished_at.or(cell.created_at),
        signal,
    }
}

/// Whether a container ended because its host went down: it was started before the host was, and ended as the host ends what runs (by
/// a signal while it shuts down, or without a trace). A container that ended before that for a reason of its own shows its own code.
fn ended_with_host(view: &View<'_>, cell: &Cell) -> bool {
    let Some(boot) = view.booted_at else { return false };
    let ran = cell.started_at.is_some_and(|at| at < boot);
    ran && (cell.finished_at.is_none_or(|at| at >= boot) || [0, KILLED, LOST, TERMINATED].contains(&cell.exit_code))
}

/// Counts attempts, and notes ends.
fn attempts(view: &View<'_>, name: &str, memory: &mut ContainerMemory) {
    for cell in view.seen.attempts(name) {
        // A number is used up by a start, or by one that failed; what was only made can be made again.
        let used = cell.started_at.is_some() || cell.state != State::Created || !cell.error.is_empty();
        memory.next_attempt = memory.next_attempt.max(cell.attempt + u32::from(used));
        if has_ended(cell) {
            note(ended(view, cell, memory.kill.as_ref()), memory);
        }
    }
    let current = view.seen.current(name);
    let missing = memory.next_attempt > 0 && memory.last.as_ref().is_none_or(|l| l.attempt + 1 < memory.next_attempt);
    if current.is_none() && missing {
        // It ran and is gone without a trace, by somebody's hand. How it ended nobody knows; Kubernetes says 137 then.
        let lost = Ended {
            id: String::new(),
            attempt: memory.next_attempt - 1,
            exit_code: 137,
            reason: "ContainerStatusUnknown".to_owned(),
            message: Some("The container could not be located on its host".to_owned()),
            image_id: String::new(),
            started_at: None,
            finished_at: Some(view.now),
            signal: None,
        };
        note(lost, memory);
        memory.backoff = 0;
    }
    if memory.kill.as_ref().is_some_and(|k| current.is_none_or(|c| c.id != k.id || !c.state.alive())) {
        memory.kill = None;
    }
    if memory.ready.is_some() && current.is_none_or(|c| memory.ready.as_ref() != Some(&c.id) || !c.state.alive()) {
        memory.ready = None;
    }
    if current.is_some_and(|c| c.state.alive()) {
        memory.trouble = None;
        memory.image = super::memory::Image::Unknown; // the next attempt looks anew
    }
}

fn note(end: Ended, memory: &mut ContainerMemory) {
    let ran = |end: &Ended| match (end.started_at, end.finished_at) {
        (Some(from), Some(to)) => to.duration_since(from),
        _ => SignedDuration::ZERO,
    };
    match &mut memory.last {
        Some(last) if end.attempt < last.attempt => {}
        Some(last) if end.attempt == last.attempt => {
            // The same end again, or another one of a container that somebody started by hand.
            if last.finished_at != end.finished_at && !end.id.is_empty() {
                *last = end;
            }
        }
        last => {
            // Without a memory of earlier ends, as many are assumed as there were attempts.
            let before = match &last {
                Some(_) => Some(memory.backoff),
                None if end.attempt > 0 => Some((backoff::FIRST << (end.attempt - 1).min(5)).min(backoff::LONGEST) / 2),
                None => None,
            };
            memory.backoff = backoff::restart(before, ran(&end));
            memory.before = last.replace(end);
        }
    }
}

/// The time at which the next attempt may be made.
pub(super) fn restart_due(memory: &ContainerMemory) -> Option<Timestamp> {
    let ended = memory.last.as_ref()?.finished_at?;
    ended.checked_add(SignedDuration::from_secs(i64::from(memory.backoff))).ok()
}
