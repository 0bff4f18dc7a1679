//! What the server is told about a pod: its status, its events, its end.
//!
//! One request per pod at a time, each computed from the newest version of the pod and valid only for it: so an older status can never
//! replace a newer one, however long it was on its way. For the same reason a version that is newer than the one that a request was made
//! for decides it, wherever it comes from: it has been carried out by then, or never will be. A lost answer keeps nothing back.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value};

use super::{Answer, Ask, Call, Heart, PodEvent, ServerError, Slot, Ticket, Work, revision};
use crate::plan::pod::{backoff, spec};

/// The longest wait between two tries to reach the server for one pod, in seconds.
const RETRY_LONGEST: u32 = 30;

/// The fields of a pod's status that the agent of its node decides about.
const OURS: &[&str] = &[
    "conditions",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "hostIP",
    "hostIPs",
    "initContainerStatuses",
    "message",
    "observedGeneration",
    "phase",
    "podIP",
    "podIPs",
    "qosClass",
    "reason",
    "startTime",
];

#[derive(Default)]
pub(super) struct Report {
    /// What is on its way.
    sending: Option<Sending>,
    /// What the server is known to have.
    pub(super) known: Option<PodStatus>,
    pub(super) retry_at: Option<Timestamp>,
    failures: u32,
}

/// A status on its way to the server.
struct Sending {
    status: PodStatus,
    /// The version that it was made for.
    base: u64,
    /// Of whom an answer is awaited.
    ticket: Ticket,
}

impl Report {
    /// A version of the pod has come in.
    pub(super) fn saw(&mut self, pod: &Pod) {
        self.known = None;
        if self.sending.as_ref().is_some_and(|sending| revision(pod) > sending.base) {
            self.sending = None;
            self.failures = 0;
            self.retry_at = None;
        }
    }

    /// Whether this is the answer that is awaited.
    fn awaits(&self, ticket: Ticket) -> bool {
        self.sending.as_ref().is_some_and(|sending| sending.ticket == ticket)
    }
}

impl Heart {
    /// Sends the status if the server does not have it yet.
    pub(super) fn report(&mut self, uid: &str) {
        let now = self.now;
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if entry.gone || entry.report.sending.is_some() || entry.report.known.as_ref() == Some(&entry.status) {
            return;
        }
        if let Some(at) = entry.report.retry_at.filter(|at| *at > now) {
            self.wake_at(uid, at);
            return;
        }
        let patch = difference(entry.pod.status.as_ref(), &entry.status);
        if patch.is_empty() {
            entry.report.known = Some(entry.status.clone());
            self.dirty.insert(uid.to_owned()); // somebody may have waited for this
            return;
        }
        let (status, base) = (entry.status.clone(), revision(&entry.pod));
        let call = Call::PatchStatus {
            namespace: spec::namespace(&entry.pod).to_owned(),
            name: spec::name(&entry.pod).to_owned(),
            uid: uid.to_owned(),
            revision: entry.pod.metadata.resource_version.clone().unwrap_or_default(),
            status: Value::Object(patch),
        };
        let ticket = self.act(Work::Server(call), Ask::Patch { uid: uid.to_owned() });
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.report.sending = Some(Sending { status, base, ticket });
        }
    }

    pub(super) fn patched(&mut self, uid: &str, ticket: Ticket, result: Result<Answer, ServerError>) {
        let Some(entry) = self.pods.get_mut(uid).filter(|entry| entry.report.awaits(ticket)) else { return };
        match result {
            Ok(answer) => {
                let sent = entry.report.sending.take().map(|sending| sending.status);
                entry.report.failures = 0;
                entry.report.retry_at = None;
                if let Answer::Pod(pod) = answer {
                    self.put_pod(pod);
                }
                if let Some(entry) = self.pods.get_mut(uid) {
                    entry.report.known = sent;
                }
                self.dirty.insert(uid.to_owned());
            }
            Err(ServerError::Conflict | ServerError::NotFound) => {
                // It changed meanwhile, or is gone. `sending` stays until we know.
                let call =
                    Call::GetPod { namespace: spec::namespace(&entry.pod).to_owned(), name: spec::name(&entry.pod).to_owned() };
                let ticket = self.act(Work::Server(call), Ask::Get { uid: uid.to_owned() });
                if let Some(sending) = self.pods.get_mut(uid).and_then(|entry| entry.report.sending.as_mut()) {
                    sending.ticket = ticket;
                }
            }
            Err(_) => self.report_failed(uid),
        }
    }

    pub(super) fn got(&mut self, uid: &str, ticket: Ticket, result: Result<Answer, ServerError>) {
        if !self.pods.get(uid).is_some_and(|entry| entry.report.awaits(ticket)) {
            return;
        }
        match result {
            Ok(Answer::Pod(pod)) if spec::uid(&pod) == uid => {
                if let Some(entry) = self.pods.get_mut(uid) {
                    entry.report.sending = None;
                }
                self.put_pod(pod);
                self.dirty.insert(uid.to_owned());
            }
            Ok(_) | Err(ServerError::NotFound) => {
                if let Some(entry) = self.pods.get_mut(uid) {
                    entry.report.sending = None;
                }
                self.gone(uid);
            }
            Err(_) => self.report_failed(uid),
        }
    }

    fn report_failed(&mut self, uid: &str) {
        let now = self.now;
        let Some(entry) = self.pods.get_mut(uid) else { return };
        entry.report.sending = None;
        entry.report.failures = entry.report.failures.saturating_add(1);
        let at = now.checked_add(backoff::after(entry.report.failures, 1, RETRY_LONGEST)).unwrap_or(now);
        entry.report.retry_at = Some(at);
        self.wake_at(uid, at);
    }

    /// Whether the server has the status as it is now.
    fn is_reported(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|e| e.report.sending.is_none() && e.report.known.as_ref() == Some(&e.status))
    }

    /// Nothing of the pod runs here any more: its object goes, then its files, then our memory of it.
    pub(super) fn finish(&mut self, uid: &str) {
        let now = self.now;
        let Some(entry) = self.pods.get_mut(uid) else { return };
        // A pull or a probe changes nothing of the pod any more; everything else has to end first.
        let harmless = |slot: &Slot| matches!(slot, Slot::Image(_) | Slot::Words(_) | Slot::Probe(..) | Slot::Hook(..));
        if entry.unsettled || entry.busy.keys().any(|slot| !harmless(slot)) {
            return;
        }
        if entry.gone {
            let ticket = self.act(Work::RemoveVolumes { uid: uid.to_owned() }, Ask::Clear { uid: uid.to_owned() });
            self.occupy(uid, Slot::Finish, ticket);
            return;
        }
        if let Some(at) = entry.delete_at.filter(|at| *at > now) {
            self.wake_at(uid, at);
            return;
        }
        if !self.is_reported(uid) {
            return; // the answer to the report brings us back here
        }
        self.delete(uid);
    }

    /// Has a pod's object removed.
    fn delete(&mut self, uid: &str) {
        let Some(entry) = self.pods.get(uid) else { return };
        let call = Call::DeletePod {
            namespace: spec::namespace(&entry.pod).to_owned(),
            name: spec::name(&entry.pod).to_owned(),
            uid: uid.to_owned(),
        };
        let ticket = self.act(Work::Server(call), Ask::Delete { uid: uid.to_owned() });
        self.occupy(uid, Slot::Finish, ticket);
    }

    /// A mistake: the object goes whatever still runs.
    pub(super) fn farewell(&mut self, uid: &str) {
        if self.pods.get(uid).is_some_and(|e| !e.gone && !e.busy.contains_key(&Slot::Finish)) {
            self.delete(uid);
        }
    }

    pub(super) fn deleted(&mut self, uid: &str, result: Result<Answer, ServerError>) {
        self.free(uid, &Slot::Finish);
        let now = self.now;
        let Some(entry) = self.pods.get_mut(uid) else { return };
        match result {
            // Another uid under the same name: ours is gone all the same.
            Ok(_) | Err(ServerError::NotFound | ServerError::Conflict) => self.gone(uid),
            Err(_) => {
                entry.delete_failures = entry.delete_failures.saturating_add(1);
                let at = now.checked_add(backoff::after(entry.delete_failures, 1, RETRY_LONGEST)).unwrap_or(now);
                entry.delete_at = Some(at);
                self.wake_at(uid, at);
            }
        }
    }

    /// Tells people.
    pub(super) fn event(&mut self, uid: &str, container: &str, warning: bool, reason: &str, message: String) {
        let Some(entry) = self.pods.get(uid) else { return };
        if entry.gone {
            return;
        }
        let event = PodEvent {
            namespace: spec::namespace(&entry.pod).to_owned(),
            name: spec::name(&entry.pod).to_owned(),
            uid: uid.to_owned(),
            container: container.to_owned(),
            warning,
            reason: reason.to_owned(),
            message,
        };
        self.act(Work::Server(Call::Event(Box::new(event))), Ask::Nothing);
    }

    /// Tells people that a container now waits, when it did not before.
    pub(super) fn announce(&mut self, uid: &str, before: &PodStatus) {
        let Some(entry) = self.pods.get(uid) else { return };
        let waits = |status: &PodStatus| -> Vec<(String, String, String)> {
            status
                .init_container_statuses
                .iter()
                .chain(&status.container_statuses)
                .flatten()
                .filter_map(|c| {
                    let waiting = c.state.as_ref()?.waiting.as_ref()?;
                    let reason = waiting.reason.clone()?;
                    Some((c.name.clone(), reason, waiting.message.clone().unwrap_or_default()))
                })
                .filter(|(_, reason, _)| reason.ends_with("BackOff"))
                .collect()
        };
        let old = waits(before);
        let new: Vec<_> =
            waits(&entry.status).into_iter().filter(|(n, r, _)| !old.iter().any(|(on, or, _)| on == n && or == r)).collect();
        for (container, _, message) in new {
            self.event(uid, &container, true, "BackOff", message);
        }
    }
}

/// A merge patch from what the server has to what it should have.
fn difference(has: Option<&PodStatus>, wanted: &PodStatus) -> Map<String, Value> {
    let json = |status: &PodStatus| serde_json::to_value(status).unwrap_or_default();
    let has = has.map(json).unwrap_or_default();
    let wanted = json(wanted);
    let mut patch = Map::new();
    for field in OURS {
        match (has.get(field), wanted.get(field)) {
            (None, None) => {}
            (Some(_), None) => {
                patch.insert((*field).to_owned(), Value::Null);
            }
            (old, Some(new)) if old != Some(new) => {
                patch.insert((*field).to_owned(), new.clone());
            }
            _ => {}
        }
    }
    patch
}

/// A moment later.
pub(super) fn later(now: Timestamp, seconds: i64) -> Timestamp {
    now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now)
}
