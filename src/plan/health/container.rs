//! What one container says for or against its pod: why it waits, and how it ended.
//!
//! You will not find here: whether the pod serves all the same, or what its other containers say (the parent weighs that), and what a
//! registry's words mean ([`registry`](super::registry)).

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::registry::{Answer, answer};
use super::{Look, State, condition};
use crate::mutant::{self, Mutant};
use crate::object::ours::Evidence;

/// After this many restarts a container that ends again is broken: it began and ended three times. One or two early exits are common
/// in containers that wait for something by exiting.
const RESTARTS_ALLOWED: i32 = 2;
/// For how long a container may lack its configuration before that is taken for a mistake: agents learn of a new ConfigMap a moment
/// after they learn of the pod, and of one that was put back when they try again.
const CONFIG_GRACE: SignedDuration = SignedDuration::from_secs(20);
/// For how long a registry may deny a pod its image before that is taken for its answer. Longer than a bad moment of its accounts, and
/// shorter than anybody wants to wait for a misspelt name.
const DENIED_GRACE: SignedDuration = SignedDuration::from_mins(2);

/// What about a pod bears on what its containers say.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    /// What broke before then does not speak against it.
    since: Option<Timestamp>,
    /// What it refers to may come a moment after it.
    young: bool,
    /// A registry has had its time to think again.
    denied_long: bool,
    /// Its sandbox does not run: none of its containers can be started, whatever release they are of.
    cut_off: bool,
    /// So many restarts are none too many.
    allowed: i32,
}

impl Standing {
    pub(super) fn of(pod: &Pod, look: &Look<'_>) -> Standing {
        let age_from = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).or(pod.metadata.creation_timestamp.as_ref());
        // Restarts of before the rollout count only for pods of before it. Creation times are whole seconds.
        let older =
            |since: Timestamp| pod.metadata.creation_timestamp.as_ref().is_some_and(|t| t.0.as_second() < since.as_second());
        Standing {
            since: look.since,
            young: age_from.map(|t| t.0).max(look.written).is_none_or(|t| look.now.duration_since(t) < CONFIG_GRACE),
            denied_long: age_from.is_some_and(|t| look.now.duration_since(t.0) >= DENIED_GRACE),
            cut_off: condition(pod, "PodReadyToStartContainers").is_some_and(|c| c.status == "False"),
            allowed: RESTARTS_ALLOWED + if look.since.is_some_and(older) { look.restarts_before } else { 0 },
        }
    }

    /// What speaks against one container, if anything does.
    pub(super) fn judge(self, container: &ContainerStatus) -> Option<(State, Evidence)> {
        let Standing { since, young, denied_long, cut_off, allowed } = self;
        let fact = |reason: &str, message: &Option<String>| Evidence {
            container: container.name.clone(),
            reason: reason.to_owned(),
            message: message.clone().unwrap_or_default(),
            ..Evidence::default()
        };
        let end = ended(container).filter(|end| since.is_none_or(|since| end.finished_at.is_none_or(|at| at >= since)));
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
}

/// How a container ended the last time.
pub(super) struct End {
    pub(super) exit_code: i32,
    reason: String,
    message: String,
    finished_at: Option<Timestamp>,
    /// It was ended, and gave no reason for it.
    from_outside: bool,
}

pub(super) fn ended(container: &ContainerStatus) -> Option<End> {
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

/// That it ended so, as a fact.
pub(super) fn exit(container: &ContainerStatus, end: &End, reason: &str) -> Evidence {
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

/// What is known of a pod's containers, in the order in which they start.
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|s| s.init_container_statuses.as_ref()).into_iter().flatten();
    init.chain(status.and_then(|s| s.container_statuses.as_ref()).into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{now, object, pod, told};
    use super::super::{Children, of};
    use super::*;

    #[test]
    fn what_speaks_against_a_container_and_what_does_not() {
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
    }
}
