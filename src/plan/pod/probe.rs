//! When a probe is due, and what its results mean.
//!
//! Startup gates the others; its success makes the container *started*. A liveness or startup probe that failed `failureThreshold` times
//! in a row has the container stopped; readiness only switches *ready* on and off.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Probe};

use super::memory::ContainerMemory;
use super::spec;
use super::step::ProbeKind;
use super::{Cell, State};

/// How soon a container that was not ready yet is asked again: doubled from the first, in milliseconds, to the second.
const EAGER: (i64, SignedDuration) = (100, SignedDuration::from_secs(1));

/// What is remembered of one probe of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProbeMemory {
    /// When it is run next; `None` before the first look.
    pub due: Option<Timestamp>,
    /// Results of one kind in a row: positive for successes, negative for failures.
    pub streak: i32,
    /// What a failure said last.
    pub message: String,
}

/// The probe of a kind, if the container has one.
pub fn of(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}

/// A word for events.
pub fn word(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "Startup",
        ProbeKind::Liveness => "Liveness",
        ProbeKind::Readiness => "Readiness",
    }
}

/// A container that is seen running: which probes are due, when the next one is, and what follows without any probe.
pub fn look(
    container: &Container,
    cell: &Cell,
    memory: &mut ContainerMemory,
    now: Timestamp,
) -> (Vec<ProbeKind>, Option<Timestamp>) {
    if memory.probed != cell.id {
        memory.probed = cell.id.clone();
        memory.startup = ProbeMemory::default();
        memory.live = ProbeMemory::default();
        memory.readiness = ProbeMemory::default();
    }
    if container.startup_probe.is_none() && memory.started.as_deref() != Some(&cell.id) {
        memory.started = Some(cell.id.clone());
    }
    let started = memory.started.as_deref() == Some(&cell.id);
    if started && container.readiness_probe.is_none() {
        memory.ready = Some(cell.id.clone());
    }
    let mut due_now = Vec::new();
    let mut next = None;
    for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
        let Some(probe) = of(container, kind) else { continue };
        if (kind == ProbeKind::Startup) == started || cell.state != State::Running {
            continue;
        }
        let delay = SignedDuration::from_secs(i64::from(probe.initial_delay_seconds.unwrap_or(0).max(0)));
        let first = cell.started_at.unwrap_or(now).checked_add(delay).unwrap_or(now);
        let due = *slot(memory, kind).due.get_or_insert(first);
        if due <= now {
            due_now.push(kind);
        } else {
            next = Some(next.map_or(due, |n: Timestamp| n.min(due)));
        }
    }
    (due_now, next)
}

/// What follows from a result.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing yet.
    Wait,
    /// The container changed between ready and not, or has started.
    Changed,
    /// The container has to be stopped; why.
    Stop(String),
}

/// Takes a result of a probe of the container with this id.
pub fn result(
    container: &Container,
    id: &str,
    kind: ProbeKind,
    result: Result<(), String>,
    memory: &mut ContainerMemory,
    now: Timestamp,
) -> Verdict {
    let Some(probe) = of(container, kind) else { return Verdict::Wait };
    if memory.probed != id {
        return Verdict::Wait; // of a container that is no more
    }
    let ok = result.is_ok();
    let waiting = kind == ProbeKind::Readiness && memory.ready.as_deref() != Some(id);
    let at = slot(memory, kind);
    let mut pause = SignedDuration::from_secs(spec::period(probe));
    if waiting && !ok {
        // The first look mostly comes before the program listens. A failure has no consequence yet, so we need not wait a whole period.
        pause = pause.min(SignedDuration::from_millis(EAGER.0 << at.streak.unsigned_abs().min(8)).min(EAGER.1));
    }
    at.due = now.checked_add(pause).ok();
    match result {
        Ok(()) => at.streak = at.streak.max(0).saturating_add(1),
        Err(message) => {
            at.streak = at.streak.min(0).saturating_sub(1);
            at.message = message;
        }
    }
    let reached = match ok {
        true => at.streak >= probe.success_threshold.unwrap_or(1).max(1),
        false => -at.streak >= probe.failure_threshold.unwrap_or(3).max(1),
    };
    if !reached {
        return Verdict::Wait;
    }
    let message = at.message.clone();
    match (kind, ok) {
        (ProbeKind::Startup, true) => {
            memory.started = Some(id.to_owned());
            Verdict::Changed
        }
        (ProbeKind::Readiness, _) => {
            let before = memory.ready.as_deref() == Some(id);
            memory.ready = ok.then(|| id.to_owned());
            if before == ok { Verdict::Wait } else { Verdict::Changed }
        }
        (ProbeKind::Liveness, true) => Verdict::Wait,
        (ProbeKind::Startup | ProbeKind::Liveness, false) => {
            // Counts anew, so that a container that survives its stop is not judged by old results.
            slot(memory, kind).streak = 0;
            Verdict::Stop(format!("{} probe failed: {message}", word(kind)))
        }
    }
}

fn slot(memory: &mut ContainerMemory, kind: ProbeKind) -> &mut ProbeMemory {
    match kind {
        ProbeKind::Startup => &mut memory.startup,
        ProbeKind::Liveness => &mut memory.live,
        ProbeKind::Readiness => &mut memory.readiness,
    }
}
