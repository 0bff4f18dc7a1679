//! What the store costs, measured. `portolan bench` prints the figures; what they are compared with is in docs/benchmarks.md.

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::{Scope, Store, Txn, engine};
use crate::object::{Draft, kind_of};

/// Figures of one run.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Writes per second of one writer that waits for the disk each time.
    pub alone_per_second: f64,
    /// Writes per second of sixteen writers that each wait for the disk.
    pub together_per_second: f64,
    /// Half of the waits for the disk, with sixteen writers, were at most this long.
    pub acknowledged_median: Duration,
    /// 99 of 100 waits for the disk, with sixteen writers, were at most this long.
    pub acknowledged_p99: Duration,
    /// Time in `commit` itself, in memory.
    pub commit: Duration,
    /// From a commit to the change in the hands of a watcher of one field value, with 5,000 such watchers of other values.
    pub watched: Duration,
    /// Time to open the store with `objects` objects.
    pub open: Duration,
    /// How many objects there were at the end.
    pub objects: usize,
}

/// Measures in an empty directory. Each of the two rounds of writing takes `round`; two seconds give steady figures.
pub fn run(directory: &Path, round: Duration) -> anyhow::Result<Figures> {
    let store = Store::open(engine::fjall::open(directory)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;

    let begin = Instant::now();
    let mut alone = 0u32;
    while begin.elapsed() < round {
        let revision = put(&store, &format!("alone-{alone}"))?;
        runtime.block_on(store.until_durable(revision))?;
        alone += 1;
    }
    let alone_per_second = f64::from(alone) / begin.elapsed().as_secs_f64();

    let begin = Instant::now();
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let store = store.clone();
            runtime.spawn(async move {
                let mut waits = Vec::new();
                while begin.elapsed() < round {
                    let start = Instant::now();
                    let revision = put(&store, &format!("writer-{writer}-{}", waits.len()))?;
                    let committed = start.elapsed();
                    store.until_durable(revision).await?;
                    waits.push((start.elapsed(), committed));
                }
                anyhow::Ok(waits)
            })
        })
        .collect();
    let mut waits = Vec::new();
    for writer in writers {
        waits.extend(runtime.block_on(writer)??);
    }
    let together_per_second = waits.len() as f64 / begin.elapsed().as_secs_f64();
    waits.sort_unstable();
    let at = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize].0;
    let commit = waits.iter().map(|(_, c)| *c).sum::<Duration>() / waits.len() as u32;

    let kind = kind_of::<Pod>();
    let scope = |node: &str| Scope::all(kind).with_field("spec.nodeName", node);
    let others: Vec<_> =
        (0..5_000).map(|n| store.watch(scope(&format!("other-{n}")), store.durable())).collect::<Result<_, _>>()?;
    let mut watch = store.watch(scope("bench"), store.durable())?;
    let mut watched: Vec<Duration> = (0..200)
        .map(|n| {
            let start = Instant::now();
            put(&store, &format!("watched-{n}"))?;
            runtime.block_on(watch.next())?;
            anyhow::Ok(start.elapsed())
        })
        .collect::<Result<_, _>>()?;
    watched.sort_unstable();
    drop((watch, others));

    let objects = store.view().len(kind);
    drop(store);
    let begin = Instant::now();
    let store = Store::open(engine::fjall::open(directory)?)?;
    let open = begin.elapsed();
    anyhow::ensure!(store.view().len(kind) == objects, "the store opened with {} of {objects} objects", store.view().len(kind));
    Ok(Figures {
        alone_per_second,
        together_per_second,
        acknowledged_median: at(0.5),
        acknowledged_p99: at(0.99),
        commit,
        watched: watched[watched.len() / 2],
        open,
        objects,
    })
}

/// Writes a pod of a common size on node `bench`.
fn put(store: &Store, name: &str) -> anyhow::Result<u64> {
    let env: Vec<_> = (0..40).map(|i| json!({"name": format!("SETTING_{i}"), "value": "a value of a usual length"})).collect();
    let value = json!({
        "metadata": {"namespace": "bench", "name": name, "uid": name, "labels": {"app": "bench"}},
        "spec": {"nodeName": "bench", "containers": [{"name": "main", "image": "image", "env": env}]},
        "status": {"phase": "Running"}
    });
    let mut txn = Txn::new();
    txn.put(Draft::new(kind_of::<Pod>(), value));
    Ok(store.commit(txn)?.revision)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_store_can_be_measured() {
        let directory = tempfile::tempdir().unwrap();
        let figures = super::run(directory.path(), std::time::Duration::from_millis(200)).unwrap();
        assert!(figures.together_per_second > figures.alone_per_second / 2.0, "{figures:?}");
    }
}
