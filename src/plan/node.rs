//! What a host's silence means: when it counts as lost, how it is tainted, and when its pods are given up.
//!
//! The caller keeps the time at which it last heard of each host *itself*: a server that has just started has not been listening, so
//! for it every host was heard of at its start (LE4). How many hosts may be given up, and how fast, is decided over all hosts together
//! ([`pace`]): when most of them fall silent at once, the fault is more likely ours than theirs (LE5).

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};

use super::rollout::stamp;
use super::schedule::{NOT_READY, UNREACHABLE, UNSCHEDULABLE, tolerates};

/// What an operator may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a host may be silent before it counts as lost.
    pub grace: SignedDuration,
    /// How long pods that say nothing about it stay bound to a lost host.
    pub toleration: SignedDuration,
    /// The least time between two hosts whose pods are given up.
    pub between_hosts: SignedDuration,
    /// From this share of lost hosts on, in percent, no pods are given up at all.
    pub stop_percent: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            // Four heartbeats of ten seconds: one lost message is nothing, and nor is a short stall.
            grace: SignedDuration::from_secs(40),
            // Kubernetes waits 300 s. Starting a container elsewhere is cheap, and the returning host removes what is too many.
            toleration: SignedDuration::from_secs(30),
            // LE5: 0.1 hosts a second.
            between_hosts: SignedDuration::from_secs(10),
            stop_percent: 55,
        }
    }
}

/// What is thought of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its agent is heard of and says that it can run pods.
    Ready,
    /// Its agent is heard of and says that it cannot.
    NotReady,
    /// Its agent is not heard of.
    Lost,
}

/// What to think of a host that was last heard of at `heard`.
pub fn standing(node: &Node, heard: Timestamp, now: Timestamp, options: &Options) -> Standing {
    if now.duration_since(heard) > options.grace {
        return Standing::Lost;
    }
    match ready_condition(node).map(|c| c.status.as_str()) {
        Some("True") => Standing::Ready,
        // The agent is back, or never left: its own word comes with its next status.
        Some("Unknown") => Standing::Lost,
        _ => Standing::NotReady,
    }
}

/// The `Ready` condition of a node.
pub fn ready_condition(node: &Node) -> Option<&NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready")
}

/// The conditions of a lost host: nothing is known of it any more. `None` when they say so already.
pub fn lost_conditions(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    const KNOWN: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
    let mut conditions = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    if !conditions.iter().any(|c| c.type_ == "Ready") {
        conditions.push(NodeCondition { type_: "Ready".to_owned(), ..NodeCondition::default() });
    }
    let mut changed = false;
    for condition in conditions.iter_mut().filter(|c| KNOWN.contains(&c.type_.as_str()) && c.status != "Unknown") {
        changed = true;
        condition.status = "Unknown".to_owned();
        condition.last_transition_time = Some(stamp(now));
        if condition.last_heartbeat_time.is_some() {
            condition.reason = Some("NodeStatusUnknown".to_owned());
            condition.message = Some("Kubelet stopped posting node status.".to_owned());
        } else {
            condition.reason = Some("NodeStatusNeverUpdated".to_owned());
            condition.message = Some("Kubelet never posted node status.".to_owned());
        }
    }
    changed.then_some(conditions)
}

/// The taints that a host should have, when they differ from those it has. `give_up`: whether its pods may be given up now; a taint
/// that does that is not taken away for the lack of this word.
pub fn taints(node: &Node, standing: Standing, give_up: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let spec = node.spec.as_ref();
    let old = spec.and_then(|s| s.taints.clone()).unwrap_or_default();
    let mut taints = old.clone();
    let mut want = |key: &str, effect: &str, wanted: Option<bool>| {
        let has = taints.iter().any(|t| t.key == key && t.effect == effect);
        match wanted {
            Some(true) if !has => taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: (effect == "NoExecute").then(|| stamp(now)),
                value: None,
            }),
            Some(false) if has => taints.retain(|t| t.key != key || t.effect != effect),
            _ => {}
        }
    };
    want(UNREACHABLE, "NoSchedule", Some(standing == Standing::Lost));
    want(NOT_READY, "NoSchedule", Some(standing == Standing::NotReady));
    let execute = |is: bool| if is && !give_up { None } else { Some(is) };
    want(UNREACHABLE, "NoExecute", execute(standing == Standing::Lost));
    want(NOT_READY, "NoExecute", execute(standing == Standing::NotReady));
    want(UNSCHEDULABLE, "NoSchedule", Some(spec.and_then(|s| s.unschedulable) == Some(true)));
    (taints != old).then_some(taints)
}

/// Whether pods may be given up while so many hosts of so many are not ready. A lone host is never given up: there is nowhere to go.
pub fn may_give_up(hosts: usize, bad: usize, options: &Options) -> bool {
    bad * 100 < options.stop_percent * hosts
}

/// When a pod is given up because of its host's taints. `since`: since when the caller has known of each of them. `None`: never.
///
/// A pod without a word about a lost host is given up after the operator's time; any other taint that it does not tolerate ends it at
/// once.
pub fn give_up_at(pod: &Pod, taints: &[Taint], since: impl Fn(&Taint) -> Timestamp, options: &Options) -> Option<Timestamp> {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let at = |taint: &Taint| {
        let matching: Vec<_> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if matching.is_empty() {
            let lost = taint.key == UNREACHABLE || taint.key == NOT_READY;
            let patience = if lost { options.toleration } else { SignedDuration::ZERO };
            return since(taint).checked_add(patience).ok();
        }
        if matching.iter().any(|t| t.toleration_seconds.is_none()) {
            return None;
        }
        let seconds = matching.iter().filter_map(|t| t.toleration_seconds).min().unwrap_or(0).max(0);
        since(taint).checked_add(SignedDuration::from_secs(seconds)).ok()
    };
    taints.iter().filter(|t| t.effect == "NoExecute").filter_map(at).min()
}

/// Which of the hosts that wait for it may be given up now, and when the next one may. `last`: when the last one was.
pub fn pace<'a>(
    waiting: &[&'a str],
    last: Option<Timestamp>,
    now: Timestamp,
    options: &Options,
) -> (Option<&'a str>, Option<Timestamp>) {
    let Some(first) = waiting.iter().min() else { return (None, None) };
    match last.and_then(|last| last.checked_add(options.between_hosts).ok()) {
        Some(next) if next > now => (None, Some(next)),
        _ => (Some(first), (waiting.len() > 1).then(|| now.checked_add(options.between_hosts).ok()).flatten()),
    }
}
