//! Events: what loops tell people, as `kubectl describe` shows it.
//!
//! The same words about the same object are one event with a count. An object about which very much can be said (a replica set that
//! creates five hundred pods) gets a few events and then one that combines the rest, and at last none for a while: events are for
//! people, and must not cost more than what they tell of.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, Namespace, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Context;
use crate::object::{Draft, Key, Object};
use crate::plan::rollout::stamp;
use crate::store::{Store, Txn};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For information.
    Normal,
    /// Somebody should look.
    Warning,
}

/// So many different messages with one reason about one object are written one by one; more are combined. Kubernetes' number.
const DIFFERENT: usize = 10;
/// After this long without news a reason is forgotten and begins anew.
const FORGET: SignedDuration = SignedDuration::from_mins(10);
/// So many writes about one object are free at once …
const BURST: f64 = 25.0;
/// … and then one in so many seconds.
const SECONDS_PER_EVENT: f64 = 300.0;
/// How many objects are remembered. Beyond, the half that was longest silent is forgotten, whose next events are new ones: half, so that
/// who tells of very many objects does not look for the oldest each time.
const REMEMBERED: usize = 4096;

/// Writes events for one component and remembers what it said.
pub struct Recorder {
    component: &'static str,
    about: BTreeMap<String, About>,
    pending: Txn,
}

/// What was said of one object. Lists, because most have one entry, thousands of objects are remembered, and a map has room for eleven.
struct About {
    said: Vec<Said>,
    allowance: f64,
    last: Timestamp,
}

/// What was said of it for one reason.
struct Said {
    severity: Severity,
    reason: &'static str,
    messages: Vec<Record>,
    last: Timestamp,
}

struct Record {
    /// Empty: those that are combined.
    message: String,
    name: String,
    uid: String,
    count: i32,
    first: Timestamp,
}

impl Recorder {
    /// A recorder for a component, as `kubectl describe` names it: `deployment-controller`.
    pub fn new(component: &'static str) -> Self {
        Recorder { component, about: BTreeMap::new(), pending: Txn::new() }
    }

    /// Says something about an object. It is written with the next [`Recorder::flush`].
    pub fn record(&mut self, cx: &mut Context<'_>, object: &Object, severity: Severity, reason: &'static str, message: &str) {
        let namespace = if object.key.namespace.is_empty() { "default" } else { &object.key.namespace };
        if leaving(cx.store, namespace) {
            return;
        }
        if self.about.len() > REMEMBERED {
            let mut longest: Vec<(Timestamp, String)> = self.about.iter().map(|(uid, about)| (about.last, uid.clone())).collect();
            // Of those that spoke at one instant some stay: a whole storm may be one instant.
            longest.select_nth_unstable(REMEMBERED / 2);
            longest.iter().take(REMEMBERED / 2).for_each(|(_, uid)| drop(self.about.remove(uid)));
        }
        let fresh = || About { said: Vec::new(), allowance: BURST, last: cx.now };
        let about = self.about.entry(object.meta.uid.clone()).or_insert_with(fresh);
        let idle = cx.now.duration_since(about.last).as_secs_f64().max(0.0);
        about.allowance = (about.allowance + idle / SECONDS_PER_EVENT).min(BURST);
        about.last = cx.now;
        if about.allowance < 1.0 {
            return;
        }
        about.allowance -= 1.0;
        let known = about.said.iter().position(|said| (said.severity, said.reason) == (severity, reason));
        let place = known.unwrap_or_else(|| {
            about.said.push(Said { severity, reason, messages: Vec::new(), last: cx.now });
            about.said.len() - 1
        });
        let said = &mut about.said[place];
        if cx.now.duration_since(said.last) > FORGET {
            said.messages.clear();
        }
        said.last = cx.now;
        let find = |said: &Said, message: &str| said.messages.iter().position(|record| record.message == message);
        let combined = find(said, message).is_none() && said.messages.len() >= DIFFERENT;
        let slot = if combined { "" } else { message };
        let shown = if combined { format!("(combined from similar events): {message}") } else { message.to_owned() };
        let place = find(said, slot).unwrap_or_else(|| {
            said.messages.push(Record {
                message: slot.to_owned(),
                name: format!("{}.{}", object.key.name, cx.ids.suffix(16)),
                uid: cx.ids.uid(),
                count: 0,
                first: cx.now,
            });
            said.messages.len() - 1
        });
        let record = &mut said.messages[place];
        record.count += 1;
        let event = Event {
            metadata: ObjectMeta {
                name: Some(record.name.clone()),
                namespace: Some(namespace.to_owned()),
                uid: Some(record.uid.clone()),
                creation_timestamp: Some(stamp(record.first)),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(object.key.kind.api_version()),
                kind: Some(object.key.kind.kind.to_owned()),
                name: Some(object.key.name.to_string()),
                namespace: (!object.key.namespace.is_empty()).then(|| object.key.namespace.to_string()),
                uid: Some(object.meta.uid.clone()),
                resource_version: Some(object.revision.to_string()),
                field_path: None,
            },
            type_: Some(if severity == Severity::Normal { "Normal" } else { "Warning" }.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(shown),
            count: Some(record.count),
            first_timestamp: Some(stamp(record.first)),
            last_timestamp: Some(stamp(cx.now)),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: None }),
            reporting_component: Some(self.component.to_owned()),
            ..Event::default()
        };
        self.pending.put(Draft::of(&event));
    }

    /// Writes what was recorded, in one transaction.
    pub fn flush(&mut self, store: &Store) {
        if self.pending.is_empty() {
            return;
        }
        // Nothing can conflict: events are put, not compared. A store that takes no more writes needs no events either.
        if let Err(conflict) = store.commit(std::mem::take(&mut self.pending)) {
            tracing::debug!(component = self.component, %conflict, "events were not written");
        }
    }
}

/// Whether a namespace is on its way out: nothing new may come into it.
pub(super) fn leaving(store: &Store, namespace: &str) -> bool {
    store.get(&Key::of::<Namespace>("", namespace)).is_some_and(|ns| ns.meta.deleting())
}
