//! Brings a pod, or one container of it, to its end.
//!
//! `preStop`, the stop signal and the kill share one grace period that is counted from when the end was first decided, also across a
//! restart of the agent.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Container;

use super::memory::{ContainerMemory, Memory};
use super::run::begin_kill;
use super::step::{HookKind, Plan, Step};
use super::{Cell, State, spec};

/// What a container gets after its `preStop` hook used up the grace period, in seconds.
const AFTER_HOOK: i64 = 2;
/// How long after the end of the grace period the engine is reminded, in seconds. It kills by itself; this is for when it did not.
const REMIND_AFTER: i64 = 2;
/// How long between two reminders, in seconds.
const REMIND_EVERY: i64 = 5;

/// Stops everything, and when nothing is left of a deleted pod, finishes.
pub(super) fn stop_pod(plan: &mut Plan<'_>, memory: &mut Memory) {
    let Some(stopping) = memory.stopping.clone() else { return };
    if stop_containers(plan, memory, stopping.since, stopping.grace) {
        return;
    }
    let deleted = stopping.reason.is_empty();
    if !deleted && memory.phase.is_none() {
        memory.phase = Some("Failed".to_owned());
    }
    remove_sandboxes(plan);
    for cell in &plan.view.seen.containers {
        if deleted || cell.state == State::Created {
            plan.step(Step::Remove { id: cell.id.clone() });
        }
    }
    if deleted && plan.view.seen.containers.is_empty() && plan.view.seen.sandboxes.is_empty() {
        plan.step(Step::Finish);
    }
}

/// A pod whose work is done: sidecars end, the sandbox goes, ended containers stay for their logs.
pub(super) fn wind_down(plan: &mut Plan<'_>, memory: &mut Memory) {
    let now = plan.view.now;
    let grace = spec::grace(plan.view.pod);
    if stop_containers(plan, memory, now, grace) {
        return;
    }
    remove_sandboxes(plan);
    for cell in plan.view.seen.containers.iter().filter(|c| c.state == State::Created) {
        plan.step(Step::Remove { id: cell.id.clone() });
    }
}

fn remove_sandboxes(plan: &mut Plan<'_>) {
    for cell in &plan.view.seen.sandboxes {
        plan.step(Step::Remove { id: cell.id.clone() });
    }
}

/// Stops what runs: first the containers, then sidecars from the last to the first. True while anything is alive.
fn stop_containers(plan: &mut Plan<'_>, memory: &mut Memory, since: Timestamp, grace: i64) -> bool {
    let (pod, seen) = (plan.view.pod, plan.view.seen);
    let sidecars: Vec<&Container> = spec::inits(pod).iter().filter(|c| spec::is_sidecar(c)).collect();
    let alive: Vec<&Cell> = seen.containers.iter().filter(|c| c.state.alive()).collect();
    let is_sidecar = |cell: &Cell| sidecars.iter().any(|c| c.name == cell.container);
    let mut wave: Vec<&Cell> = alive.iter().copied().filter(|c| !is_sidecar(c)).collect();
    if wave.is_empty() {
        wave = sidecars.iter().rev().find_map(|s| alive.iter().copied().find(|c| c.container == s.name)).into_iter().collect();
    }
    for cell in wave {
        let one = memory.containers.entry(cell.container.clone()).or_default();
        let hook = spec::container(pod, &cell.container).and_then(|c| c.lifecycle.as_ref()).and_then(|l| l.pre_stop.as_ref());
        begin_kill(one, cell, grace, "Stopping container", since, hook);
        if let Some(kill) = &mut one.kill {
            // The pod's end may come before the one that a probe had begun.
            let until = |since: Timestamp, grace: i64| since.checked_add(SignedDuration::from_secs(grace)).unwrap_or(since);
            if until(since, grace) < until(kill.since, kill.grace) {
                (kill.since, kill.grace) = (since, grace);
            }
        }
        stop_cell(plan, one, cell);
    }
    !alive.is_empty()
}

/// The next thing to do about a container that is being stopped.
pub(super) fn stop_cell(plan: &mut Plan<'_>, one: &mut ContainerMemory, cell: &Cell) {
    let now = plan.view.now;
    let Some(kill) = one.kill.as_mut().filter(|k| k.id == cell.id) else { return };
    let container = cell.container.clone();
    let end = kill.since.checked_add(SignedDuration::from_secs(kill.grace)).unwrap_or(kill.since);
    let left = (end.duration_since(now).as_millis() + 999).div_euclid(1000).max(0) as i64;
    if !kill.hook_done && left > 0 && cell.state == State::Running {
        plan.step(Step::Hook { container, id: cell.id.clone(), kind: HookKind::PreStop, seconds: left });
        plan.wake_at(end);
        return;
    }
    let had_hook =
        spec::container(plan.view.pod, &cell.container).and_then(|c| c.lifecycle.as_ref()).is_some_and(|l| l.pre_stop.is_some());
    let grace = if had_hook && kill.grace > 0 { left.max(AFTER_HOOK) } else { left };
    let remind = end.checked_add(SignedDuration::from_secs(REMIND_AFTER + if had_hook { AFTER_HOOK } else { 0 })).unwrap_or(end);
    if now < remind {
        plan.step(Step::Stop { container, id: cell.id.clone(), grace: grace as u32 });
        plan.wake_at(remind);
        return;
    }
    let again = kill.struck.and_then(|at| at.checked_add(SignedDuration::from_secs(REMIND_EVERY)).ok());
    if again.is_none_or(|at| at <= now) {
        kill.struck = Some(now);
        plan.step(Step::Kill { container, id: cell.id.clone() });
        plan.wake_at(now.checked_add(SignedDuration::from_secs(REMIND_EVERY)).unwrap_or(now));
    } else if let Some(at) = again {
        plan.wake_at(at);
    }
}
