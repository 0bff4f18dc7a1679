//! From a push to the first container, beside what Docker alone needs for the same image.
//!
//! Both ends are wall-clock times of one machine: the moment the branch moved, and the moment at which Docker says the container started.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use jiff::Timestamp;

use super::house::{House, deployment};
use super::{Figure, Options, engine};
use crate::clock;
use crate::docker::{ContainerSpec, Engine, Flow, Hint};

pub(super) async fn run(options: &Options, say: &(dyn Fn(&str) + Sync)) -> Result<Vec<Figure>> {
    let host = &options.hosts[0];
    let engine = engine(host);
    engine.pull(&options.image, None, &|_| ()).await.context("fetch the image")?;
    let house = House::start(options, std::slice::from_ref(host)).await?;
    let mut pushed = Figure::new("push to first container started", "ms");
    let mut bare = Figure::new("bare docker create and start of the same image", "ms");
    let mut above = Figure::new("push above bare", "ms");
    let mut files = Vec::new();
    for run in 0..options.runs {
        say(&format!("push {} of {}", run + 1, options.runs));
        let name = format!("bench-{run}");
        // Listened to, not asked again and again: the engine has enough to do.
        let mut hints = engine.events(&["io.kubernetes.container.name=main".to_owned()]).await?;
        let before = clock::now();
        files.push((format!("{name}.yaml"), deployment(&name, 1, &options.image, "1")));
        let commit = house.commit("One more pod", &files)?;
        let started = first_start(engine.as_ref(), &mut hints, &name).await?;
        drop(hints);
        let push = millis(before, started);
        tracing::debug!(%before, %started, push, "measured");
        let docker = bare_start(engine.as_ref(), &options.image, run).await?;
        pushed.add(push);
        bare.add(docker);
        above.add(push - docker);
        // The next run begins at rest.
        house.healthy(&commit).await?;
    }
    house.end(std::slice::from_ref(host)).await?;
    Ok(vec![pushed, bare, above])
}

fn millis(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1000.0
}

/// When the first container of the pods with this name prefix started.
async fn first_start(engine: &dyn Engine, hints: &mut Flow<Hint>, prefix: &str) -> Result<Timestamp> {
    let found = async {
        while let Some(hint) = hints.next().await {
            let hint = hint?;
            if hint.action != "start" {
                continue;
            }
            let state = engine.inspect(&hint.container).await?;
            if state.labels.get("io.kubernetes.pod.name").is_some_and(|pod| pod.starts_with(&format!("{prefix}-"))) {
                return state.started_at.context("a time of its start");
            }
        }
        anyhow::bail!("the engine has ended its stream of events");
    };
    let found = tokio::time::timeout(Duration::from_secs(60), found).await;
    found.with_context(|| format!("no container of {prefix} started within a minute"))?
}

async fn bare_start(engine: &dyn Engine, image: &str, run: usize) -> Result<f64> {
    let spec = ContainerSpec { image: image.to_owned(), ..ContainerSpec::default() };
    let before = clock::now();
    let id = engine.create(&format!("portolan-bench-bare-{run}"), &spec).await?;
    engine.start(&id).await?;
    let started = engine.inspect(&id).await?.started_at.context("it has started")?;
    engine.remove(&id, true).await?;
    Ok(millis(before, started))
}
