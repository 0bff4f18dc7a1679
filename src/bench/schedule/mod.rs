//! The scheduler, with the shapes of kube-scheduler's own benchmark: the planner alone, and a real server with its API and durable store.
//!
//! You will not find here: agents. Nodes are objects whose status says that they are ready, and nothing runs behind them.

mod planner;
mod server;
mod shape;

use anyhow::{Context, Result};

use super::{Figure, Options};
use shape::{Counts, SHAPES, Shape};

/// Which shapes, how large, and how they are run.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Names of shapes; empty for all.
    pub shapes: Vec<String>,
    /// How many nodes; with `None` as many as in Kubernetes' largest run.
    pub nodes: Option<usize>,
    /// Whether the planner is measured alone.
    pub planner: bool,
    /// Whether a server is measured.
    pub server: bool,
}

impl Scope {
    /// The names of all shapes.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SHAPES.iter().map(|shape| shape.name)
    }
}

pub(super) async fn run(options: &Options, say: &(dyn Fn(&str) + Sync)) -> Result<Vec<Figure>> {
    let scope = &options.schedule;
    let mut figures = Vec::new();
    for shape in SHAPES.iter().filter(|shape| scope.shapes.is_empty() || scope.shapes.iter().any(|name| name == shape.name)) {
        let counts = shape.counts(scope.nodes);
        if scope.planner {
            let name = format!("{}, planner alone", describe(shape, counts));
            let mut figure = Figure::new(&name, "pods/s");
            for _ in 0..options.runs.min(3) {
                say(&name);
                let took = tokio::task::block_in_place(|| planner::run(shape, counts)).with_context(|| name.clone())?;
                figure.add(counts.measured as f64 / took.as_secs_f64());
            }
            figures.push(figure);
        }
        if scope.server {
            let name = format!("{}, through the API", describe(shape, counts));
            say(&name);
            let seen = server::run(options, shape, counts, say).await.with_context(|| name.clone())?;
            figures.push(Figure::new(&name, "pods/s").with(counts.measured as f64 / seen.took.as_secs_f64()));
            figures.push(Figure::new(&format!("{name}: created until bound, p50"), "ms").with(seen.half));
            figures.push(Figure::new(&format!("{name}: created until bound, p99"), "ms").with(seen.most));
            figures.push(
                Figure::new(&format!("{name}: server CPU for each pod"), "µs").with(seen.cpu * 1e6 / counts.measured as f64),
            );
        }
    }
    Ok(figures)
}

/// `SchedulingBasic (5000 nodes, 1000 + 10000 pods; Kubernetes demands 680/s)`.
fn describe(shape: &Shape, counts: Counts) -> String {
    let before = counts.before * shape.before.len();
    let demand =
        if shape.threshold > 0.0 { format!("; Kubernetes demands {}/s", shape.threshold) } else { "; no demand".to_owned() };
    format!("{} ({} nodes, {before} + {} pods{demand})", shape.name, counts.nodes, counts.measured)
}
