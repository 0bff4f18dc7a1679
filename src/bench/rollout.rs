//! A rolling update of ten replicas over two hosts, one at a time, with an image that stops at once.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::house::{House, deployment};
use super::{Figure, Options, engine};

const REPLICAS: usize = 10;

pub(super) async fn run(options: &Options, say: &(dyn Fn(&str) + Sync)) -> Result<Vec<Figure>> {
    let hosts = &options.hosts[..options.hosts.len().min(2)];
    let mut engines = Vec::new();
    for host in hosts {
        let engine = engine(host);
        engine.pull(&options.image, None, &|_| ()).await?;
        engines.push(engine);
    }
    let house = House::start(options, hosts).await?;
    let first = house.commit("Ten pods", &[("ten.yaml", &deployment("ten", REPLICAS, &options.image, "0"))])?;
    house.healthy(&first).await?;
    let mut figure = Figure::new("rolling update of 10 replicas over 2 hosts, one at a time", "s");
    for run in 1..=options.runs {
        say(&format!("rolling update {run} of {}", options.runs));
        let old = running(&engines).await?;
        let before = Instant::now();
        let commit =
            house.commit("Ten new pods", &[("ten.yaml", &deployment("ten", REPLICAS, &options.image, &run.to_string()))])?;
        loop {
            let now = running(&engines).await?;
            if now.len() == REPLICAS && now.iter().all(|id| !old.contains(id)) {
                break;
            }
            if before.elapsed() > Duration::from_secs(300) {
                bail!("the update did not finish within 5 minutes");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        figure.add(before.elapsed().as_secs_f64());
        house.healthy(&commit).await?;
    }
    house.end(hosts).await?;
    Ok(vec![figure])
}

async fn running(engines: &[std::sync::Arc<dyn crate::docker::Engine>]) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for engine in engines {
        for container in engine.list(&["io.kubernetes.container.name=main".to_owned()]).await? {
            if container.status == crate::docker::container::Status::Running {
                ids.push(container.id);
            }
        }
    }
    Ok(ids)
}
