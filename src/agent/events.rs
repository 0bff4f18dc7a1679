//! Events about pods, counted rather than repeated.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use super::heart::PodEvent;
use crate::client::{Client, Error};
use crate::clock;

/// How many different events are remembered for counting.
const REMEMBERED: usize = 1024;
/// The same event again within this time is only counted.
const QUIET: Duration = Duration::from_secs(10);

/// Sends events.
#[derive(Default)]
pub(super) struct Events {
    known: Mutex<BTreeMap<(String, String, String, String), Known>>,
}

struct Known {
    name: String,
    count: i32,
    sent: Instant,
}

impl Events {
    /// Records an event. What was said a moment ago is counted and told with the next one.
    pub(super) async fn send(&self, client: &Client, node: &str, event: &PodEvent) -> Result<(), Error> {
        let key = (event.uid.clone(), event.container.clone(), event.reason.clone(), event.message.clone());
        let now = clock::now();
        let again = {
            let mut known = self.known.lock();
            if known.len() >= REMEMBERED {
                let old = known.iter().min_by_key(|(_, k)| k.sent).map(|(k, _)| k.clone());
                if let Some(old) = old {
                    known.remove(&old);
                }
            }
            match known.get_mut(&key) {
                Some(known) => {
                    known.count += 1;
                    if known.sent.elapsed() < QUIET {
                        return Ok(());
                    }
                    known.sent = Instant::now();
                    Some((known.name.clone(), known.count))
                }
                None => {
                    let name = format!("{}.{:x}", event.name, now.as_nanosecond() as u64);
                    known.insert(key.clone(), Known { name, count: 1, sent: Instant::now() });
                    None
                }
            }
        };
        if let Some((name, count)) = again {
            let patch = json!({"count": count, "lastTimestamp": second(now)});
            match client.merge_patch::<Event>(&event.namespace, &name, None, &patch).await {
                Err(error) if error.is_not_found() => {
                    self.known.lock().remove(&key);
                }
                other => return other.map(|_| ()),
            }
            return Ok(());
        }
        let name = self.known.lock().get(&key).map(|k| k.name.clone()).unwrap_or_default();
        let mut involved =
            json!({"apiVersion": "v1", "kind": "Pod", "namespace": event.namespace, "name": event.name, "uid": event.uid});
        if !event.container.is_empty() {
            involved["fieldPath"] = format!("spec.containers{{{}}}", event.container).into();
        }
        let object = json!({
            "metadata": {"name": name, "namespace": event.namespace},
            "involvedObject": involved, "reason": event.reason, "message": event.message.chars().take(1000).collect::<String>(),
            "type": if event.warning { "Warning" } else { "Normal" },
            "source": {"component": "portolan-agent", "host": node},
            "reportingComponent": "portolan-agent", "reportingInstance": node,
            "firstTimestamp": second(now), "lastTimestamp": second(now), "count": 1,
        });
        let object: Event = serde_json::from_value(object).map_err(|e| Error::Garbled(e.into()))?;
        client.create(&event.namespace, &object).await.map(|_| ())
    }
}

fn second(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}
