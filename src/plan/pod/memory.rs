//! What must be remembered of a pod between two looks.
//!
//! Most of what is known is what the host shows. Here is the rest: what was tried and failed, since when something is being stopped, how
//! often something was restarted, and what the probes said. Probe results are not kept on disk: after a restart of the agent a
//! container has to prove itself anew, starting from what the server was last told.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::probe::ProbeMemory;

/// What is remembered of one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// Set when the pod has to end, and never unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopping: Option<Stopping>,
    /// The sandbox.
    pub sandbox: SandboxMemory,
    /// Its containers by name, init containers too.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub containers: BTreeMap<String, ContainerMemory>,
    /// When the pod was first seen here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// Whether every init container has done its work in the current sandbox.
    pub initialized: bool,
    /// The terminal phase, once it was reached: `Succeeded` or `Failed`. Never changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Whether the files of the volumes are written.
    #[serde(skip)]
    pub volumes: Work,
}

/// How far something is that is done once.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Work {
    /// Not begun.
    #[default]
    Open,
    /// Done.
    Done,
    /// Tried without success.
    Failed {
        /// How often.
        times: u32,
        /// When last.
        at: Timestamp,
        /// Why, in a sentence.
        message: String,
    },
}

/// Why and since when a pod has to end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopping {
    /// Since when.
    pub since: Timestamp,
    /// How long its containers have, in seconds, counted from `since`.
    pub grace: i64,
    /// The grace that was asked for, to notice a shorter one.
    pub asked: i64,
    /// The reason in the pod's status, such as `DeadlineExceeded`; empty when it was deleted.
    #[serde(default)]
    pub reason: String,
}

/// What is remembered of a pod's sandboxes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SandboxMemory {
    /// The number that the next sandbox gets.
    pub next_attempt: u32,
    /// The sandbox that was last seen running.
    pub id: String,
    /// When that one was started: another time means that it lost its network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Failures since the last success.
    pub failures: u32,
    /// When the last failure was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
    /// The id of the sandbox whose start failed, if there was one.
    #[serde(skip)]
    pub failed: String,
    /// What it was.
    pub error: String,
}

/// What is remembered of one container over all its attempts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerMemory {
    /// The number that the next attempt gets, which is also the number of restarts once it runs.
    pub next_attempt: u32,
    /// How long the next restart has to wait, in seconds; 0 for not at all.
    pub backoff: u32,
    /// The last end that is known, also of a container that the engine no longer has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Ended>,
    /// The end before `last`: what `lastState` shows while `last` is the state itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Ended>,
    /// Being stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill: Option<Kill>,
    /// The attempt's image.
    #[serde(skip)]
    pub image: Image,
    /// Failures to pull since the last success, for the back-off; survives the attempt.
    pub pull_failures: u32,
    /// When the last of them was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_failed_at: Option<Timestamp>,
    /// Why the container could not be made: Kubernetes' word, a sentence, when, how often.
    #[serde(skip)]
    pub trouble: Option<Trouble>,
    /// The id of the container whose `postStart` has been run, or that needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_started: Option<String>,
    /// The id of the container that passed its startup probe, or has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// The id of the container that is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// The container that `startup`, `live`, `readiness` speak of.
    #[serde(skip)]
    pub probed: String,
    /// Startup probe.
    #[serde(skip)]
    pub startup: ProbeMemory,
    /// Liveness probe.
    #[serde(skip)]
    pub live: ProbeMemory,
    /// Readiness probe.
    #[serde(skip)]
    pub readiness: ProbeMemory,
}

/// How one attempt ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ended {
    /// The engine's id.
    pub id: String,
    /// Which attempt.
    pub attempt: u32,
    /// The exit code.
    pub exit_code: i64,
    /// Kubernetes' word: `Completed`, `Error`, `OOMKilled`, `StartError` …
    pub reason: String,
    /// Its termination message, or the end of its log; `None` while nobody has looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What it was made from.
    pub image_id: String,
    /// When it was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// The signal that ended it, where it gave no reason for it: somebody else's SIGKILL (9), or ours (15) because its sandbox or its
    /// definition is another one. Whoever judges by ends leaves these out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

/// A container that is being stopped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Kill {
    /// Which one.
    pub id: String,
    /// Since when.
    pub since: Timestamp,
    /// How long it has from `since`, in seconds.
    pub grace: i64,
    /// Why, for the event: `Liveness probe failed …`.
    pub why: String,
    /// Whether the container gave the reason for it: a probe or a hook failed.
    pub at_fault: bool,
    /// Whether the `preStop` hook is over, or there is none.
    pub hook_done: bool,
    /// When it was last struck with SIGKILL because it outlived its grace.
    #[serde(skip)]
    pub struck: Option<Timestamp>,
}

/// What is known of the image of the next attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Image {
    /// Nobody looked.
    #[default]
    Unknown,
    /// The host does not have it, or it has to be fetched anew.
    Wanted,
    /// It is there.
    Ready {
        /// Its id.
        id: String,
        /// The user that it names; empty for root.
        user: String,
    },
    /// It could not be had. What, and why; the time is `pull_failed_at`.
    Failed {
        /// `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`, `ImageInspectError`.
        reason: String,
        /// A sentence.
        message: String,
    },
}

/// Why a container could not be made or started.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// `CreateContainerConfigError`, `CreateContainerError`, `RunContainerError`.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// When last.
    pub at: Timestamp,
    /// How often.
    pub times: u32,
}
