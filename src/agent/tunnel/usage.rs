//! What this host and its containers use now: processor and memory, measured when somebody asks.
//!
//! Processor use is a difference between two looks. The second look of one question is the first of the next, so that a host that nobody
//! asks about is not measured.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use jiff::Timestamp;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::agent::translate::{CONTAINER, NODE, POD_NAME, POD_NAMESPACE, POD_UID, SANDBOX_NAME};
use crate::docker::container::Status;
use crate::docker::{Engine, EngineError, Stats, Summary};
use crate::object::time;

/// How far two looks are apart at least. Shorter, and one tick of the kernel's clock would show.
const APART: Duration = Duration::from_secs(1);
/// How old the first look may be: what was used ten minutes ago is not what is used now.
const OLDEST: Duration = Duration::from_secs(120);
/// Whoever asks again within this time gets the same answer.
const FRESH: Duration = Duration::from_secs(5);
/// Containers that are looked at at the same time.
const AT_ONCE: usize = 8;
/// The kernel's ticks in a second. Fixed in Linux' interface to programs.
const TICKS: u64 = 100;

/// Measures one host.
pub(super) struct Usage {
    engine: Arc<dyn Engine>,
    /// The labels of this agent's containers.
    ours: Vec<String>,
    /// One measurement at a time.
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    look: Option<Look>,
    answer: Option<(Instant, Value)>,
}

/// One look at everything.
struct Look {
    at: Instant,
    /// Busy time of all processors since the machine's start, in ticks.
    busy: Option<u64>,
    containers: BTreeMap<String, (Summary, Stats)>,
}

impl Usage {
    pub(super) fn new(engine: Arc<dyn Engine>, ours: Vec<String>) -> Self {
        Usage { engine, ours, last: Mutex::default() }
    }

    /// What is used, as JSON for the server: amounts in billionths of a processor and in bytes. A container that has just started is not
    /// in it yet.
    pub(super) async fn now(&self) -> Result<Value, EngineError> {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &last.answer
            && at.elapsed() < FRESH
        {
            return Ok(answer.clone());
        }
        let first = match last.look.take().filter(|look| look.at.elapsed() < OLDEST) {
            Some(look) => look,
            None => self.look().await?,
        };
        tokio::time::sleep(APART.saturating_sub(first.at.elapsed())).await;
        let second = self.look().await?;
        let answer = compare(&first, &second);
        last.look = Some(second);
        last.answer = Some((Instant::now(), answer.clone()));
        Ok(answer)
    }

    /// The same in the words of a kubelet's `/stats/summary`. What is not measured (disks, networks) is absent.
    pub(super) async fn summary(&self, now: Timestamp) -> Result<Value, EngineError> {
        let used = self.now().await?;
        let node = self.ours.iter().find_map(|label| label.strip_prefix(NODE)?.strip_prefix('=')).unwrap_or_default();
        Ok(summary(&used, node, &time::seconds(now)))
    }

    /// The pods of which a container runs now, by the engine's own word: a kubelet's `/runningpods`.
    pub(super) async fn running(&self) -> Result<List<Pod>, EngineError> {
        let mut pods: BTreeMap<(String, String, String), Vec<Container>> = BTreeMap::new();
        for found in self.engine.list(&self.ours).await?.into_iter().filter(|found| found.status == Status::Running) {
            let label = |name: &str| found.labels.get(name).cloned().unwrap_or_default();
            let containers = pods.entry((label(POD_NAMESPACE), label(POD_NAME), label(POD_UID))).or_default();
            if label(CONTAINER) != SANDBOX_NAME {
                containers.push(Container { name: label(CONTAINER), image: Some(found.image.clone()), ..Container::default() });
            }
        }
        let pod = |((namespace, name, uid), containers): (_, Vec<Container>)| Pod {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), uid: Some(uid), ..ObjectMeta::default() },
            spec: Some(PodSpec { containers, ..PodSpec::default() }),
            status: None,
        };
        let items = pods.into_iter().filter(|(_, containers)| !containers.is_empty()).map(pod).collect();
        Ok(List { items, ..List::default() })
    }

    async fn look(&self) -> Result<Look, EngineError> {
        let at = Instant::now();
        let busy = std::fs::read_to_string("/proc/stat").ok().and_then(|text| busy_ticks(&text));
        let running = self
            .engine
            .list(&self.ours)
            .await?
            .into_iter()
            .filter(|summary| matches!(summary.status, Status::Running | Status::Paused));
        let sample = |summary: Summary| async {
            // One that ended meanwhile uses nothing.
            let stats = self.engine.stats(&summary.id).await.ok()?;
            Some((summary.id.clone(), (summary, stats)))
        };
        let containers =
            stream::iter(running).map(sample).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
        Ok(Look { at, busy, containers })
    }
}

fn summary(used: &Value, node: &str, time: &str) -> Value {
    let amounts = |cpu: &Value, memory: &Value| json!({"cpu": {"time": time, "usageNanoCores": cpu}, "memory": {"time": time, "workingSetBytes": memory}});
    let named = |name: &Value, of: &Value| {
        let mut named = amounts(&of["cpu"], &of["memory"]);
        named["name"] = name.clone();
        named
    };
    let pods = used["pods"].as_array().into_iter().flatten().map(|pod| {
        let containers = || pod["containers"].as_array().into_iter().flatten();
        let sum = |field: &str| containers().filter_map(|container| container[field].as_u64()).sum::<u64>();
        let mut said = amounts(&sum("cpu").into(), &sum("memory").into());
        said["podRef"] = json!({"name": pod["name"], "namespace": pod["namespace"], "uid": pod["uid"]});
        said["containers"] = containers().map(|container| named(&container["name"], container)).collect();
        said
    });
    let mut said = json!({"node": {"nodeName": node}, "pods": pods.collect::<Vec<_>>()});
    if used["node"].is_object() {
        said["node"] = amounts(&used["node"]["cpu"], &used["node"]["memory"]);
        said["node"]["nodeName"] = node.into();
    }
    said
}

fn compare(first: &Look, second: &Look) -> Value {
    let seconds = second.at.duration_since(first.at).as_secs_f64();
    let mut pods: BTreeMap<(&str, &str, &str), Vec<Value>> = BTreeMap::new();
    for (id, (summary, stats)) in &second.containers {
        let Some((_, before)) = first.containers.get(id) else { continue };
        let label = |name: &str| summary.labels.get(name).map_or("", String::as_str);
        let apart = stats.at.duration_since(before.at).as_secs_f64();
        // A restart in between sets the count back.
        if label(CONTAINER) == SANDBOX_NAME || apart <= 0.0 || stats.cpu < before.cpu {
            continue;
        }
        let cpu = ((stats.cpu - before.cpu) as f64 / apart) as u64;
        let container = json!({"name": label(CONTAINER), "cpu": cpu, "memory": stats.memory});
        pods.entry((label(POD_NAMESPACE), label(POD_NAME), label(POD_UID))).or_default().push(container);
    }
    let pods: Vec<Value> = pods
        .into_iter()
        .map(|((namespace, name, uid), containers)| json!({"namespace": namespace, "name": name, "uid": uid, "containers": containers}))
        .collect();
    let mut answer = json!({"windowSeconds": seconds, "pods": pods});
    if let (Some(before), Some(busy)) = (first.busy, second.busy)
        && let Some(memory) = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory_in_use(&text))
    {
        let cpu = busy.saturating_sub(before) as f64 / TICKS as f64 / seconds * 1e9;
        answer["node"] = json!({"cpu": cpu as u64, "memory": memory});
    }
    answer
}

/// Ticks in which processors were not idle, from `/proc/stat`.
fn busy_ticks(text: &str) -> Option<u64> {
    let numbers: Vec<u64> =
        text.lines().find_map(|l| l.strip_prefix("cpu "))?.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are counted in user already.
    let at = |place: usize| numbers.get(place).copied().unwrap_or(0);
    (numbers.len() >= 4).then(|| at(0) + at(1) + at(2) + at(5) + at(6) + at(7))
}

/// Bytes that the kernel could not give to somebody else at once, from `/proc/meminfo`.
fn memory_in_use(text: &str) -> Option<u64> {
    let kibibytes = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some(kibibytes("MemTotal")?.saturating_sub(kibibytes("MemAvailable")?) * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says() {
        let stat = "cpu  100 10 50 9000 70 5 3 2 30 0\ncpu0 1 2 3 4\n";
        assert_eq!(busy_ticks(stat), Some(170));
        assert_eq!(busy_ticks("intr 1\n"), None);
        let memory = "MemTotal:       1000 kB\nMemFree:  100 kB\nMemAvailable:    400 kB\n";
        assert_eq!(memory_in_use(memory), Some(600 * 1024));
    }

    #[test]
    fn use_is_a_difference() {
        let at = Instant::now();
        let look = |after: u64, ticks: u64, cpu: u64| {
            let labels = [(POD_NAMESPACE, "shop"), (POD_NAME, "web-1"), (POD_UID, "u1"), (CONTAINER, "web")];
            let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
            let time = jiff::Timestamp::from_second(1000 + after as i64).unwrap();
            let stats = Stats { at: time, cpu, memory: 5 << 20, pids: 1, received: 0, sent: 0 };
            let containers = [("c1".to_owned(), (Summary { labels, ..Summary::default() }, stats))].into();
            Look { at: at + Duration::from_secs(after), busy: Some(ticks), containers }
        };
        // Half a processor in the container, one and a half on the host, over ten seconds.
        let answer = compare(&look(0, 1000, 1_000_000_000), &look(10, 2500, 6_000_000_000));
        assert_eq!(
            answer["pods"],
            json!([{"namespace": "shop", "name": "web-1", "uid": "u1", "containers": [{"name": "web", "cpu": 500_000_000, "memory": 5 << 20}]}])
        );
        assert_eq!(answer["node"]["cpu"], 1_500_000_000);
        let amounts = |cpu: u64, memory: u64| json!({"cpu": {"time": "t", "usageNanoCores": cpu}, "memory": {"time": "t", "workingSetBytes": memory}});
        let said = summary(&answer, "h1", "t");
        let mut pod = amounts(500_000_000, 5 << 20);
        pod["podRef"] = json!({"name": "web-1", "namespace": "shop", "uid": "u1"});
        pod["containers"] = json!([amounts(500_000_000, 5 << 20)]);
        pod["containers"][0]["name"] = "web".into();
        assert_eq!(said["pods"], json!([pod]));
        assert_eq!((&said["node"]["nodeName"], &said["node"]["cpu"]["usageNanoCores"]), (&json!("h1"), &json!(1_500_000_000)));
        // Started anew in between: nothing is known.
        assert_eq!(compare(&look(0, 0, 9_000_000_000), &look(10, 0, 1_000))["pods"], json!([]));
    }
}
