//! Forgets what nobody needs any more: old events, expired join tokens, pods that have ended long ago, and pods whose node does not
//! exist.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, Node, Pod, Secret};

use super::keyed::{Cursor, Keys, News, Trouble};
use super::{Context, Loop, Next, write};
use crate::object::{Key, Object, kind_of};
use crate::plan::garbage::{MISSING_NODE, ended_beyond};
use crate::store::{Conflict, Txn, View};

/// How long an event is kept after it was last written. Kubernetes' time.
const EVENT_LIFE: SignedDuration = SignedDuration::from_hours(1);
/// Kubernetes' type of join tokens.
const TOKEN: &str = "bootstrap.kubernetes.io/token";
/// The taint by which an administrator says that a host is off and will not come back with its pods.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The loop that forgets.
pub(super) struct Forget {
    cursor: Cursor,
    keys: Keys,
    /// Events, and when to look at each for the first time: in the order in which they were made, which is that of their ends but for those
    /// that were written again. There may be very many, and a timer among [`Keys`] takes four times the room.
    events: VecDeque<(Timestamp, Key)>,
    /// How many pods that have ended are kept.
    keep_ended: usize,
    pods: Pods,
}

#[derive(Default)]
struct Pods {
    /// Pods that have ended, and when they were created.
    ended: BTreeMap<Key, Timestamp>,
    /// Pods whose node does not exist, and since when that is known.
    stranded: BTreeMap<Key, Timestamp>,
}

impl Forget {
    pub(super) fn new(keep_ended: usize) -> Self {
        Forget { cursor: Cursor::default(), keys: Keys::default(), events: VecDeque::new(), keep_ended, pods: Pods::default() }
    }

    fn notice(&mut self, view: &View, key: &Key, new: Option<&Arc<Object>>) {
        if key.kind == kind_of::<Node>() {
            for pod in view.by_field(kind_of::<Pod>(), "spec.nodeName", &key.name) {
                self.keys.add(pod.key.clone());
            }
        } else if key.kind == kind_of::<Pod>() {
            match new.filter(|pod| pod.ended()) {
                Some(pod) => {
                    let created = pod.meta.creation_timestamp.as_ref().and_then(|at| at.parse().ok());
                    self.pods.ended.insert(key.clone(), created.unwrap_or(Timestamp::MIN));
                }
                None => {
                    self.pods.ended.remove(key);
                }
            }
            let node = new.map_or("", |pod| pod.field("spec.nodeName"));
            if !node.is_empty() && view.get(&Key::of::<Node>("", node)).is_none() {
                self.keys.add(key.clone());
            } else {
                self.pods.stranded.remove(key);
            }
        } else if key.kind == kind_of::<Secret>() {
            self.keys.add(key.clone());
        }
    }

    /// No event ends sooner than an hour after it was made, whatever is written to it, so it is enough to look then.
    fn line_up(&mut self, event: &Object, now: Timestamp) {
        let created = event.meta.creation_timestamp.as_ref().and_then(|at| at.parse().ok()).unwrap_or(now);
        self.events.push_back((created.checked_add(EVENT_LIFE).unwrap_or(Timestamp::MAX), event.key.clone()));
    }
}

impl Loop for Forget {
    fn name(&self) -> &'static str {
        "forget"
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<Next, Conflict> {
        match self.cursor.news(cx.store) {
            News::Everything(view) => {
                self.pods = Pods::default();
                for kind in [kind_of::<Secret>(), kind_of::<Pod>()] {
                    for object in view.list(kind) {
                        self.notice(&view, &object.key, Some(object));
                    }
                }
                self.events.clear();
                view.list(kind_of::<Event>()).for_each(|event| self.line_up(event, cx.now));
                self.events.make_contiguous().sort_unstable();
            }
            News::Changes(changes) => {
                let view = cx.store.view();
                for change in &changes {
                    let node_stays = change.key.kind == kind_of::<Node>() && change.old.is_some() && change.new.is_some();
                    if !node_stays || out_of_service(change.new.as_ref()) {
                        self.notice(&view, &change.key, change.new.as_ref());
                    }
                    if let (Some(event), None) = (&change.new, &change.old)
                        && change.key.kind == kind_of::<Event>()
                    {
                        self.line_up(event, cx.now);
                    }
                }
            }
        }
        if self.pods.ended.len() > self.keep_ended {
            let ended: Vec<(Timestamp, Key)> = self.pods.ended.iter().map(|(key, created)| (*created, key.clone())).collect();
            for key in ended_beyond(&ended, self.keep_ended) {
                self.pods.ended.remove(&key);
                let Some(pod) = cx.store.get(&key) else { continue };
                let mut txn = Txn::new();
                write::delete(&mut txn, &pod, Some(0), None, cx.now);
                if !txn.is_empty() {
                    // A conflict means that somebody still writes to it: then it is noticed again.
                    let _ = cx.store.commit(txn);
                }
            }
        }
        while let Some((at, event)) = self.events.front()
            && *at <= cx.now
        {
            self.keys.add(event.clone());
            self.events.pop_front();
        }
        let first = Next::at(self.events.front().map(|(at, _)| *at));
        let pods = &mut self.pods;
        Ok(self.keys.run("forget", cx.now, |key| look(cx, key, pods))?.or(first))
    }
}

fn out_of_service(node: Option<&Arc<Object>>) -> bool {
    let node = node.and_then(|o| o.typed::<Node>().ok());
    node.is_some_and(|n| n.spec.iter().flat_map(|s| s.taints.iter().flatten()).any(|t| t.key == OUT_OF_SERVICE))
}

fn look(cx: &mut Context<'_>, key: &Key, pods: &mut Pods) -> Result<Option<Timestamp>, Trouble> {
    let Some(object) = cx.store.get(key) else { return Ok(None) };
    let due = if key.kind == kind_of::<Event>() {
        event_end(&*object.typed::<Event>()?, cx.now)
    } else if key.kind == kind_of::<Secret>() {
        token_end(&*object.typed::<Secret>()?)
    } else {
        pod_end(cx, &object, pods)?
    };
    let Some(due) = due else { return Ok(None) };
    if due > cx.now {
        return Ok(Some(due));
    }
    let mut txn = Txn::new();
    write::delete(&mut txn, &object, Some(0), None, cx.now);
    if !txn.is_empty() {
        cx.store.commit(txn)?;
    }
    Ok(None)
}

/// As in Kubernetes the last write counts, and not what the event says of when it happened. The newest of the times that writes leave in it
/// is the nearest to that; one that is ahead of the clock is its author's mistake.
fn event_end(event: &Event, now: Timestamp) -> Option<Timestamp> {
    let meta = &event.metadata;
    let created = meta.creation_timestamp.as_ref().map(|t| t.0);
    let series = event.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| t.0);
    let last = event.last_timestamp.as_ref().map(|t| t.0);
    let managed = meta.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref()).map(|t| t.0);
    let newest = [created, series, last].into_iter().flatten().chain(managed).filter(|t| *t <= now).max();
    newest.or(created)?.checked_add(EVENT_LIFE).ok()
}

fn token_end(secret: &Secret) -> Option<Timestamp> {
    if secret.type_.as_deref() != Some(TOKEN) {
        return None;
    }
    std::str::from_utf8(&secret.data.as_ref()?.get("expiration")?.0).ok()?.parse().ok()
}

/// When a pod whose node does not exist, or is out of service for good, is forgotten without its agent's word (AG4: there is nobody to
/// give it).
fn pod_end(cx: &Context<'_>, object: &Arc<Object>, pods: &mut Pods) -> Result<Option<Timestamp>, Trouble> {
    let pod = object.typed::<Pod>()?;
    let Some(name) = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty()) else { return Ok(None) };
    let node = cx.store.get(&Key::of::<Node>("", name));
    if node.is_some() {
        pods.stranded.remove(&object.key);
        let fenced = out_of_service(node.as_ref()) && object.meta.deleting();
        let ready = node
            .and_then(|n| n.typed::<Node>().ok())
            .is_some_and(|n| crate::plan::node::ready_condition(&n).is_some_and(|c| c.status == "True"));
        return Ok((fenced && !ready).then_some(cx.now));
    }
    let since = *pods.stranded.entry(object.key.clone()).or_insert(cx.now);
    Ok(since.checked_add(MISSING_NODE).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// How many minutes after ten o'clock an event ends that is looked at at eleven.
    fn end(event: Value) -> Option<f64> {
        let mut event = event;
        event["involvedObject"] = json!({});
        if event["metadata"].is_null() {
            event["metadata"] = json!({});
        }
        let event: Event = serde_json::from_value(event).unwrap();
        let ten: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let end = event_end(&event, ten.checked_add(EVENT_LIFE).unwrap())?;
        Some(end.duration_since(ten).as_secs_f64() / 60.0)
    }

    #[test]
    fn an_event_ends_an_hour_after_it_was_written() {
        let created = |at: &str| json!({"creationTimestamp": format!("2026-11-21T{at}Z")});
        // What it says of when it happened is not asked.
        assert_eq!(end(json!({"metadata": created("10:30:00"), "eventTime": "2020-01-01T00:00:00.000000Z"})), Some(90.0));
        assert_eq!(end(json!({"metadata": created("10:30:00"), "eventTime": "2036-01-01T00:00:00.000000Z"})), Some(90.0));
        assert_eq!(end(json!({"metadata": created("10:30:00"), "lastTimestamp": "2020-01-01T00:00:00Z"})), Some(90.0));
        // It happened again, or was written again.
        assert_eq!(end(json!({"metadata": created("10:00:00"), "lastTimestamp": "2026-11-21T10:40:00Z"})), Some(100.0));
        let again = json!({"count": 2, "lastObservedTime": "2026-11-21T10:20:00.000000Z"});
        assert_eq!(end(json!({"metadata": created("10:00:00"), "series": again})), Some(80.0));
        let mut written = created("10:00:00");
        written["managedFields"] = json!([{"manager": "kubectl", "operation": "Update", "time": "2026-11-21T10:50:00Z"}]);
        assert_eq!(end(json!({"metadata": written})), Some(110.0));
        // Nobody makes it last by a time to come.
        assert_eq!(end(json!({"metadata": created("10:10:00"), "lastTimestamp": "2036-01-01T00:00:00Z"})), Some(70.0));
        assert_eq!(end(json!({})), None);
    }
}
