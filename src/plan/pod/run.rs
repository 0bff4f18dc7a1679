//! Brings a pod up and keeps it up.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Container;

use super::memory::{ContainerMemory, Image, Kill, Memory, Work};
use super::observe::{has_ended, restart_due, sandbox_is_sound};
use super::spec::{PullPolicy, Restart};
use super::step::{HookKind, Plan, Step};
use super::{Cell, State, backoff, probe, spec, stop};

/// The longest wait between two tries to make a sandbox, in seconds. Its causes (a port, a network) go away by other hands, so that
/// waiting long helps nobody.
const SANDBOX_LONGEST: u32 = 30;
/// The longest wait between two tries to make a container or write volumes, in seconds: what is missing may appear at any time.
const TROUBLE_LONGEST: u32 = 10;

pub(super) fn run(plan: &mut Plan<'_>, memory: &mut Memory) {
    let pod = plan.view.pod;
    if let (Some(limit), Some(started)) = (spec::spec(pod).and_then(|s| s.active_deadline_seconds), memory.started)
        && let Ok(at) = started.checked_add(SignedDuration::from_secs(limit))
    {
        plan.wake_at(at);
    }
    judge(plan, memory);
    if memory.phase.is_some() {
        return;
    }
    let sandbox = sandbox(plan, memory);
    if memory.volumes != Work::Done {
        volumes(plan, memory);
    }
    let sandbox = sandbox.as_ref();
    // Before the init containers: they may be what somebody wants to look into.
    for container in &spec::ephemerals(pod) {
        ensure(plan, memory, container, sandbox);
    }
    if !memory.initialized {
        for container in spec::inits(pod) {
            if spec::is_sidecar(container) {
                ensure(plan, memory, container, sandbox);
                if !sidecar_started(plan, memory, container) {
                    return;
                }
            } else if !init_done(plan, container, sandbox) {
                ensure(plan, memory, container, sandbox);
                return;
            }
        }
        // Only a sandbox that runs can have had its init containers.
        if !spec::inits(pod).is_empty() && sandbox.is_none_or(|s| !s.state.alive()) {
            return;
        }
        memory.initialized = sandbox.is_some_and(|s| s.state.alive());
        judge(plan, memory); // with that known, everything may turn out to be over
    } else {
        for container in spec::inits(pod).iter().filter(|c| spec::is_sidecar(c)) {
            ensure(plan, memory, container, sandbox);
        }
    }
    for container in spec::apps(pod) {
        ensure(plan, memory, container, sandbox);
    }
}

/// Whether everything has ended for good.
fn judge(plan: &Plan<'_>, memory: &mut Memory) {
    let (pod, seen) = (plan.view.pod, plan.view.seen);
    let exit_of = |memory: &Memory, container: &Container| -> Option<i64> {
        let one = memory.containers.get(&container.name)?;
        let last = one.last.as_ref()?;
        let over = last.attempt + 1 == one.next_attempt && seen.current(&container.name).is_none_or(has_ended);
        over.then_some(last.exit_code)
    };
    if spec::restart(pod) == Restart::Never {
        let init_failed = !memory.initialized
            && spec::inits(pod).iter().any(|c| !spec::is_sidecar(c) && exit_of(memory, c).is_some_and(|code| code != 0));
        // A pod that may not be started again has lost its network for good.
        let sandbox_lost = !memory.sandbox.id.is_empty()
            && seen.sandbox().is_none_or(|s| !sandbox_is_sound(memory, s) && s.state != State::Created)
            && memory.containers.values().any(|c| c.next_attempt > 0);
        if init_failed || sandbox_lost {
            memory.phase = Some("Failed".to_owned());
        }
    }
    if spec::apps(pod).is_empty() || !memory.initialized && spec::restart(pod) != Restart::OnFailure {
        return;
    }
    let mut all_good = true;
    for container in spec::apps(pod) {
        match (exit_of(memory, container), spec::restart(pod)) {
            (Some(0), Restart::Never | Restart::OnFailure) => {}
            (Some(_), Restart::Never) => all_good = false,
            _ => return,
        }
    }
    if memory.phase.is_none() {
        memory.phase = Some(if all_good { "Succeeded" } else { "Failed" }.to_owned());
    }
}

/// Sees to a sandbox, and returns the one in which containers may be made.
fn sandbox(plan: &mut Plan<'_>, memory: &mut Memory) -> Option<Cell> {
    let (seen, now) = (plan.view.seen, plan.view.now);
    let newest = seen.sandboxes.len().saturating_sub(1);
    for old in &seen.sandboxes[..newest] {
        plan.step(Step::Remove { id: old.id.clone() });
    }
    let failed_at = memory.sandbox.failed_at;
    let due = backoff::due(memory.sandbox.failures, failed_at, 1, SANDBOX_LONGEST);
    match seen.sandbox() {
        Some(cell) if sandbox_is_sound(memory, cell) => return Some(cell.clone()),
        Some(cell) if cell.state == State::Created && cell.error.is_empty() && memory.sandbox.failed != cell.id => {
            plan.step(Step::Start { container: String::new(), id: cell.id.clone() });
            return Some(cell.clone());
        }
        Some(cell) => plan.step(Step::Remove { id: cell.id.clone() }),
        None => {
            // What still runs belongs to a network that is gone. It has to end before its successor begins.
            let orphans: Vec<Cell> = seen.containers.iter().filter(|c| c.state.alive()).cloned().collect();
            if orphans.is_empty() {
                if plan.reached(due) {
                    plan.step(Step::SandboxCreate { attempt: memory.sandbox.next_attempt });
                }
                return None;
            }
            for cell in orphans {
                let grace = spec::grace(plan.view.pod);
                let one = memory.containers.entry(cell.container.clone()).or_default();
                begin_kill(one, &cell, grace, "The sandbox of the pod is gone", now, None);
                stop::stop_cell(plan, one, &cell);
            }
        }
    }
    None
}

fn volumes(plan: &mut Plan<'_>, memory: &Memory) {
    let due = match &memory.volumes {
        Work::Failed { times, at, .. } => backoff::due(*times, Some(*at), 1, TROUBLE_LONGEST),
        _ => None,
    };
    if plan.reached(due) {
        plan.step(Step::Volumes);
    }
}

fn init_done(plan: &Plan<'_>, container: &Container, sandbox: Option<&Cell>) -> bool {
    let Some(cell) = plan.view.seen.current(&container.name) else { return false };
    sandbox.is_some_and(|s| s.id == cell.sandbox) && cell.state == State::Exited && cell.exit_code == 0
}

fn sidecar_started(plan: &Plan<'_>, memory: &Memory, container: &Container) -> bool {
    let Some(cell) = plan.view.seen.current(&container.name) else { return false };
    cell.state.alive() && memory.containers.get(&container.name).is_some_and(|m| m.started.as_ref() == Some(&cell.id))
}

/// Sees to it that a container runs, if it should.
fn ensure(plan: &mut Plan<'_>, memory: &mut Memory, container: &Container, sandbox: Option<&Cell>) {
    let (pod, seen, now) = (plan.view.pod, plan.view.seen, plan.view.now);
    let volumes_ready = memory.volumes == Work::Done;
    let Some(one) = memory.containers.get_mut(&container.name) else { return };
    let name = container.name.clone();
    let attempts: Vec<&Cell> = seen.attempts(&container.name).collect();
    let current = attempts.last().copied();
    // The one before the current is kept for its log, unless the current has not run yet and so has no past of its own.
    for (age, old) in attempts.iter().rev().enumerate().skip(1) {
        if old.state.alive() {
            plan.step(Step::Kill { container: name.clone(), id: old.id.clone() });
            return; // never two of one name
        }
        if age > 1 {
            plan.step(Step::Remove { id: old.id.clone() });
        }
    }
    if let Some(cell) = current {
        let same_sandbox = sandbox.is_some_and(|s| s.id == cell.sandbox);
        if cell.state.alive() {
            let stale = match () {
                () if sandbox.is_some() && !same_sandbox => Some("The sandbox of the pod has changed"),
                () if cell.hash != spec::hash(container) => Some("The definition of the container has changed"),
                () => None,
            };
            if let Some(why) = stale {
                begin_kill(one, cell, spec::grace(pod), why, now, container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()));
            }
            running(plan, one, container, cell);
            return;
        }
        if cell.state == State::Created && cell.error.is_empty() {
            match sandbox {
                _ if cell.hash != spec::hash(container) => plan.step(Step::Remove { id: cell.id.clone() }),
                Some(s) if !same_sandbox && s.state.alive() => plan.step(Step::Remove { id: cell.id.clone() }),
                Some(s) if s.state.alive() && same_sandbox && plan.reached(trouble_due(one)) => {
                    plan.step(Step::Start { container: name, id: cell.id.clone() });
                }
                _ => {}
            }
            return;
        }
    }
    // It has ended, or was never made.
    let first = one.last.is_none();
    let ran_here = current.is_some_and(|c| sandbox.is_some_and(|s| s.id == c.sandbox));
    let exit = one.last.as_ref().map(|l| l.exit_code);
    let init = spec::inits(pod).iter().any(|c| c.name == container.name);
    let again = match spec::restart_of(pod, container) {
        _ if first => true,
        Restart::Always => true,
        Restart::OnFailure => exit != Some(0) || (init && !ran_here),
        Restart::Never => init && !ran_here && exit == Some(0),
    };
    if !again || !(plan.reached(restart_due(one)) || exit == Some(0) && init) {
        return;
    }
    if prepare(plan, one, container)
        && volumes_ready
        && plan.reached(trouble_due(one))
        && let Some(sandbox) = sandbox
    {
        plan.step(Step::Create { container: name, attempt: one.next_attempt, sandbox: sandbox.id.clone() });
    }
}

fn trouble_due(one: &ContainerMemory) -> Option<jiff::Timestamp> {
    one.trouble.as_ref().and_then(|t| backoff::due(t.times, Some(t.at), 1, TROUBLE_LONGEST))
}

/// Sees to the image. True when it is there.
fn prepare(plan: &mut Plan<'_>, one: &mut ContainerMemory, container: &Container) -> bool {
    let name = container.name.clone();
    let policy = spec::pull_policy(container);
    match &one.image {
        Image::Ready { .. } => return true,
        Image::Unknown if policy == PullPolicy::Always => one.image = Image::Wanted,
        Image::Unknown => {
            plan.step(Step::Look { container: name });
            return false;
        }
        Image::Wanted => {}
        Image::Failed { reason, .. } => {
            let never = reason == "ErrImageNeverPull";
            let due = backoff::due(
                one.pull_failures.max(1),
                one.pull_failed_at,
                backoff::FIRST,
                if never { backoff::FIRST } else { backoff::LONGEST },
            );
            if plan.reached(due) {
                plan.step(if never { Step::Look { container: name } } else { Step::Pull { container: name } });
            }
            return false;
        }
    }
    // Back-off survives the attempt and the agent: a registry is not asked more often because somebody restarted us.
    if plan.reached(backoff::due(one.pull_failures, one.pull_failed_at, backoff::FIRST, backoff::LONGEST)) {
        plan.step(Step::Pull { container: name });
    }
    false
}

/// A container that runs: its hook, its probes, its end.
fn running(plan: &mut Plan<'_>, one: &mut ContainerMemory, container: &Container, cell: &Cell) {
    let now = plan.view.now;
    if one.kill.is_some() {
        stop::stop_cell(plan, one, cell);
        return;
    }
    let hook = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
    if one.post_started.as_deref() != Some(&cell.id) {
        if hook.is_some() {
            let seconds = 3600; // Kubernetes knows no limit for it; a hook that takes an hour hangs
            plan.step(Step::Hook { container: container.name.clone(), id: cell.id.clone(), kind: HookKind::PostStart, seconds });
            return;
        }
        one.post_started = Some(cell.id.clone());
    }
    let (due, next) = probe::look(container, cell, one, now);
    for kind in due {
        plan.step(Step::Probe { container: container.name.clone(), id: cell.id.clone(), kind });
    }
    if let Some(next) = next {
        plan.wake_at(next);
    }
}

/// Notes that a container is to be stopped; what is noted already stays.
pub(super) fn begin_kill(
    one: &mut ContainerMemory,
    cell: &Cell,
    grace: i64,
    why: &str,
    now: jiff::Timestamp,
    hook: Option<&k8s_openapi::api::core::v1::LifecycleHandler>,
) {
    if one.kill.as_ref().is_none_or(|k| k.id != cell.id) {
        one.kill = Some(Kill {
            id: cell.id.clone(),
            since: now,
            grace,
            why: why.to_owned(),
            hook_done: hook.is_none(),
            ..Kill::default()
        });
    }
}

impl Memory {
    /// A probe or a hook demands that a container is stopped.
    pub fn demand_stop(&mut self, view: &super::View<'_>, container: &Container, id: &str, grace: Option<i64>, why: &str) {
        let Some(cell) = view.seen.containers.iter().find(|c| c.id == id && c.state.alive()) else { return };
        let Some(one) = self.containers.get_mut(&container.name) else { return };
        let hook = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
        let begun = one.kill.as_ref().is_some_and(|k| k.id == cell.id);
        begin_kill(one, cell, grace.unwrap_or_else(|| spec::grace(view.pod)), why, view.now, hook);
        if let Some(kill) = one.kill.as_mut().filter(|_| !begun) {
            kill.at_fault = true;
        }
    }
}
