//! A Deployment's status: its counts and its conditions `Available`, `Progressing` and `ReplicaFailure`, with Kubernetes' reasons.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};

use super::deployment::deadline;
use super::fit::{Bounds, recreates};
use super::stamp;

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Replicas that the replica sets are asked for.
    pub(super) asked: i32,
    /// Pods that take a place.
    pub(super) replicas: i32,
    /// Those of the current template.
    pub(super) updated: i32,
    /// Those that are ready.
    pub(super) ready: i32,
    /// Those that have been ready for long enough.
    pub(super) available: i32,
    /// Pods on their way out.
    pub(super) terminating: i32,
}

/// The conditions while they are being planned for.
pub(super) struct Progress {
    conditions: Vec<DeploymentCondition>,
    has_deadline: bool,
    now: Timestamp,
}

impl Progress {
    pub(super) fn of(deployment: &Deployment, now: Timestamp) -> Self {
        let conditions = deployment.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        Progress { conditions, has_deadline: deadline(deployment).is_some(), now }
    }

    fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.conditions.iter().find(|c| c.type_.as_deref() == Some(kind))
    }

    /// Whether nothing has ever been said about progress.
    pub(super) fn unknown(&self) -> bool {
        self.get("Progressing").is_none()
    }

    /// Sets a condition. Without a new status or reason it stays as it is; with the same status it keeps its transition time.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let before = self.get(kind).cloned();
        if before.as_ref().is_some_and(|b| b.status.as_deref() == Some(status) && b.reason.as_deref() == Some(reason)) {
            return;
        }
        self.put(kind, status, reason, message, before);
    }

    fn put(&mut self, kind: &str, status: &str, reason: &str, message: String, before: Option<DeploymentCondition>) {
        let kept = before.filter(|b| b.status.as_deref() == Some(status)).and_then(|b| b.last_transition_time);
        self.remove(kind);
        self.conditions.push(DeploymentCondition {
            type_: Some(kind.to_owned()),
            status: Some(status.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: Some(stamp(self.now)),
            last_transition_time: Some(kept.unwrap_or_else(|| stamp(self.now))),
        });
    }

    fn remove(&mut self, kind: &str) {
        self.conditions.retain(|c| c.type_.as_deref() != Some(kind));
    }

    /// A paused Deployment makes no progress and is not late either.
    pub(super) fn paused(&mut self, paused: bool) {
        if !self.has_deadline {
            return;
        }
        let reason = self.get("Progressing").and_then(|c| c.reason.clone()).unwrap_or_default();
        match (paused, reason.as_str()) {
            (_, "ProgressDeadlineExceeded") | (true, "DeploymentPaused") => {}
            (true, _) => self.set("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused".to_owned()),
            (false, "DeploymentPaused") => {
                self.set("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned());
            }
            (false, _) => {}
        }
    }

    /// A replica set was created for the current template.
    pub(super) fn created(&mut self, name: &str) {
        if self.has_deadline {
            let message = format!("Created new replica set \"{name}\"");
            let before = self.get("Progressing").cloned();
            self.put("Progressing", "True", "NewReplicaSetCreated", message, before);
        }
    }

    /// The current template has a replica set already.
    pub(super) fn found(&mut self, name: &str) {
        if self.has_deadline {
            let message = format!("Found new replica set \"{name}\"");
            let before = self.get("Progressing").cloned();
            self.put("Progressing", "True", "FoundNewReplicaSet", message, before);
        }
    }

    /// What the counts say about progress. Returns when the deadline passes, if it is running.
    fn judge(&mut self, facts: &Facts<'_>) -> Option<Timestamp> {
        let Some(deadline) = deadline(facts.deployment) else {
            self.remove("Progressing");
            return None;
        };
        let (counts, wanted) = (facts.counts, facts.bounds.replicas);
        let subject = match &facts.new_name {
            Some(name) => format!("ReplicaSet \"{name}\""),
            None => format!("Deployment \"{}\"", facts.deployment.metadata.name.as_deref().unwrap_or_default()),
        };
        let current = self.get("Progressing").cloned();
        let reason = current.as_ref().and_then(|c| c.reason.as_deref()).unwrap_or_default();
        // A finished rollout stays finished when a pod breaks later.
        if counts.replicas == counts.updated && reason == "NewReplicaSetAvailable" {
            return None;
        }
        let complete = (counts.updated, counts.replicas, counts.available) == (wanted, wanted, wanted);
        let before = facts.deployment.status.clone().unwrap_or_default();
        let was = |n: Option<i32>| n.unwrap_or(0);
        let moved = counts.updated > was(before.updated_replicas)
            || counts.replicas - counts.updated < was(before.replicas) - was(before.updated_replicas)
            || counts.ready > was(before.ready_replicas)
            || counts.available > was(before.available_replicas);
        if complete {
            self.set("Progressing", "True", "NewReplicaSetAvailable", format!("{subject} has successfully progressed."));
            return None;
        }
        if moved {
            // Replaced rather than set: the update time is what the deadline counts from.
            self.put("Progressing", "True", "ReplicaSetUpdated", format!("{subject} is progressing."), current);
        }
        let current = self.get("Progressing")?;
        if matches!(current.reason.as_deref(), Some("NewReplicaSetAvailable" | "ProgressDeadlineExceeded" | "DeploymentPaused")) {
            return None;
        }
        let since = current.last_update_time.as_ref()?.0;
        let late_from = since.checked_add(deadline).ok()?;
        if late_from < facts.now {
            self.set("Progressing", "False", "ProgressDeadlineExceeded", format!("{subject} has timed out progressing."));
            return None;
        }
        // Stored times are whole seconds, so that the deadline has surely passed one second later.
        late_from.checked_add(jiff::SignedDuration::from_secs(1)).ok()
    }
}

/// What a status is written from.
pub(super) struct Facts<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) bounds: Bounds,
    pub(super) counts: Counts,
    pub(super) new_name: Option<String>,
    pub(super) failure: Option<DeploymentCondition>,
    pub(super) collisions: Option<i32>,
    /// Whether the rollout is running, so that its progress is judged.
    pub(super) judge: bool,
    pub(super) now: Timestamp,
}

/// The status, when it changes, and when the progress deadline passes.
pub(super) fn write(facts: &Facts<'_>, mut progress: Progress) -> (Option<DeploymentStatus>, Option<Timestamp>) {
    let counts = facts.counts;
    // A Deployment that recreates promises nothing while it does, but is available only when all of it is.
    let least = if recreates(facts.deployment) { facts.bounds.replicas } else { facts.bounds.least() };
    if counts.available >= least {
        let message = "Deployment has minimum availability.";
        progress.set("Available", "True", "MinimumReplicasAvailable", message.to_owned());
    } else {
        let message = "Deployment does not have minimum availability.";
        progress.set("Available", "False", "MinimumReplicasUnavailable", message.to_owned());
    }
    let mut deadline = None;
    if facts.judge {
        deadline = progress.judge(facts);
        match &facts.failure {
            Some(failure) => {
                let known = progress.get("ReplicaFailure");
                if known.is_none_or(|k| k.reason != failure.reason || k.message != failure.message) {
                    progress.remove("ReplicaFailure");
                    progress.conditions.push(failure.clone());
                }
            }
            None => progress.remove("ReplicaFailure"),
        }
    }
    let some = |n: i32| (n != 0).then_some(n);
    let old = facts.deployment.status.clone().unwrap_or_default();
    let status = DeploymentStatus {
        observed_generation: facts.deployment.metadata.generation,
        replicas: some(counts.replicas),
        updated_replicas: some(counts.updated),
        ready_replicas: some(counts.ready),
        available_replicas: some(counts.available),
        unavailable_replicas: some((counts.asked - counts.available).max(0)),
        terminating_replicas: some(counts.terminating),
        collision_count: facts.collisions,
        conditions: (!progress.conditions.is_empty()).then_some(progress.conditions),
    };
    let unset = |n: Option<i32>| n.filter(|n| *n != 0);
    let old = DeploymentStatus {
        replicas: unset(old.replicas),
        updated_replicas: unset(old.updated_replicas),
        ready_replicas: unset(old.ready_replicas),
        available_replicas: unset(old.available_replicas),
        unavailable_replicas: unset(old.unavailable_replicas),
        terminating_replicas: unset(old.terminating_replicas),
        ..old
    };
    ((status != old).then_some(status), deadline)
}

/// What the replica sets say about pods that cannot be created; the current one's word counts first.
pub(super) fn replica_failure<'a>(
    new: Option<&'a ReplicaSet>,
    all: impl Iterator<Item = &'a ReplicaSet>,
) -> Option<DeploymentCondition> {
    let found = new.into_iter().chain(all).find_map(|set| {
        set.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_.as_deref() == Some("ReplicaFailure")).cloned()
    })?;
    Some(DeploymentCondition {
        type_: found.type_,
        status: found.status,
        reason: found.reason,
        message: found.message,
        last_update_time: found.last_transition_time.clone(),
        last_transition_time: found.last_transition_time,
    })
}
