//! The planner alone: nodes and pods in memory, one decision after the other, on one thread.
//!
//! What happens once a second or five times a second in the server's run is done once in so many decisions here, as many as Kubernetes
//! demands in that time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::shape::{CLASS, Churn, Counts, PRIORITY, Shape, TEST, Template};
use crate::plan::schedule::{Cluster, Decision, Resort, Scheduler, Strategy};

/// How long the decisions for the measured pods took.
pub(super) fn run(shape: &Shape, counts: Counts) -> Result<Duration> {
    let mut world = World { shape, cluster: Cluster::new(), scheduler: Scheduler::new(Strategy::Spread, 0) };
    for namespace in shape.namespaces() {
        let labels = serde_json::from_value(namespace["metadata"]["labels"].clone())?;
        world.cluster.set_namespace(namespace["metadata"]["name"].as_str().unwrap_or_default(), Some(&labels));
    }
    for n in 0..counts.nodes {
        world.node(n)?;
    }
    for template in shape.before {
        for n in 0..counts.before {
            let pod = world.pod(*template, &shape.namespace(n), &format!("{template:?}-{n}").to_lowercase())?;
            ensure!(world.place(&pod), "there is no room for {n} pods of {template:?}");
        }
    }
    let measured: Vec<Pod> =
        (0..counts.measured).map(|n| world.pod(shape.measured, TEST, &format!("measured-{n}"))).collect::<Result<_>>()?;
    let each = match shape.churn {
        Churn::Nothing => usize::MAX,
        Churn::Pods(_) => (shape.threshold / 5.0) as usize,
        Churn::Mixed => shape.threshold as usize,
    };
    let mut took = Duration::ZERO;
    for (n, pod) in measured.iter().enumerate() {
        if n % each == each - 1 {
            let other = match shape.churn {
                Churn::Pods(template) => template,
                _ => Template::TooLarge,
            };
            let other = world.pod(other, TEST, &format!("other-{n}"))?;
            let node: Node = read(&with_status(shape.node(counts.nodes)))?;
            let begun = Instant::now();
            if shape.churn == Churn::Mixed {
                world.cluster.set_node(&node);
            }
            world.place(&other);
            if shape.churn == Churn::Mixed {
                world.cluster.remove_node(node.metadata.name.as_deref().unwrap_or_default());
            }
            took += begun.elapsed();
        }
        let begun = Instant::now();
        let placed = world.place(pod);
        took += begun.elapsed();
        ensure!(placed, "the {n}th pod of {} finds no node", shape.name);
    }
    Ok(took)
}

struct World<'a> {
    shape: &'a Shape,
    cluster: Cluster,
    scheduler: Scheduler,
}

impl World<'_> {
    fn node(&mut self, n: usize) -> Result<()> {
        self.cluster.set_node(&read(&with_status(self.shape.node(n)))?);
        Ok(())
    }

    fn pod(&self, template: Template, namespace: &str, name: &str) -> Result<Pod> {
        let mut pod = self.shape.pod(template, namespace, name);
        if pod["spec"]["priorityClassName"] == CLASS {
            // What admission does with the class.
            pod["spec"]["priority"] = PRIORITY.into();
        }
        read(&pod)
    }

    /// Places a pod, for which others may have to go: at once, as those of these shapes do.
    fn place(&mut self, pod: &Pod) -> bool {
        let class = Scheduler::class(pod);
        if let Decision::Place(_) = self.scheduler.decide_in(&class, &mut self.cluster, pod) {
            return true;
        }
        let Resort::Preempt(room) = self.scheduler.resort(&class, &mut self.cluster, pod, &[]) else { return false };
        for victim in &room.victims {
            self.cluster.remove_pod(victim);
        }
        matches!(self.scheduler.decide_in(&class, &mut self.cluster, pod), Decision::Place(_))
    }
}

fn with_status(mut node: Value) -> Value {
    node["status"] = Shape::node_status();
    node
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T> {
    serde_json::from_value(value.clone()).context("read an object")
}
