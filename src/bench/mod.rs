//! Measures portolan as its users meet it: real processes, a real repository, and real Docker hosts, or hollow ones where there are
//! thousands.
//!
//! A benchmark starts a server and agents of its own from this very binary, in a directory that it removes again, and reports every
//! run's value with the median. Nothing is asserted here: a figure is to be read, and compared with the last one on the same machine.

mod api;
mod figure;
mod fleet;
mod house;
mod manifests;
mod plan;
mod push;
mod rest;
mod rollout;
mod schedule;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};

pub use figure::{Figure, Machine, Report};
pub use fleet::Size as FleetSize;
pub use schedule::Scope as ScheduleScope;

use crate::docker::Engine;
use crate::docker::bollard_engine::BollardEngine;

/// What to measure, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Docker hosts, for the benchmarks that start containers. With none, agents use the simulated engine and those are left out.
    pub hosts: Vec<Host>,
    /// The address on which the server listens: reachable from the hosts, without a port.
    pub listen: String,
    /// How often each is measured.
    pub runs: usize,
    /// The image that is started. It must run without a command and stop at once when asked to.
    pub image: String,
    /// Where the server and the agents write their logs; with `None` they are lost. What they log says PORTOLAN_LOG.
    pub logs: Option<PathBuf>,
    /// Which benchmarks; empty for all but the scheduler, the fleet and the manifests.
    pub only: Vec<Subject>,
    /// How large the fleet is; each size is measured.
    pub fleet: Vec<FleetSize>,
    /// How many manifests a large repository has.
    pub manifests: usize,
    /// Which shapes of scheduling.
    pub schedule: ScheduleScope,
}

/// A Docker host of the benchmarks.
#[derive(Clone, Debug)]
pub struct Host {
    /// The node's name.
    pub name: String,
    /// Docker's socket.
    pub socket: PathBuf,
    /// The network namespace in which the agent runs, when it is not this one.
    pub netns: Option<PathBuf>,
}

/// One benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// From a push to the first container, beside a bare create and start.
    Push,
    /// A rolling update of ten replicas over two hosts, one at a time.
    Rollout,
    /// Memory and CPU of server and agents when nothing happens.
    Rest,
    /// `portolan plan` on a repository of 1,000 manifests.
    Plan,
    /// The API under load, with 5,000 pods and up to 1,000 watchers.
    Api,
    /// The size of this binary.
    Size,
    /// The shapes of kube-scheduler's own benchmark: only where it is asked for.
    Schedule,
    /// Many hollow hosts and many pods: only where it is asked for.
    Fleet,
    /// A repository of very many manifests, and a fleet for its pods: only where it is asked for.
    Manifests,
}

impl Subject {
    /// All of them, in the order in which they run.
    pub const ALL: [Subject; 9] = [
        Subject::Size,
        Subject::Plan,
        Subject::Api,
        Subject::Push,
        Subject::Rollout,
        Subject::Rest,
        Subject::Schedule,
        Subject::Fleet,
        Subject::Manifests,
    ];

    /// The word for it on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Subject::Push => "push",
            Subject::Rollout => "rollout",
            Subject::Rest => "rest",
            Subject::Plan => "plan",
            Subject::Api => "api",
            Subject::Size => "size",
            Subject::Schedule => "schedule",
            Subject::Fleet => "fleet",
            Subject::Manifests => "manifests",
        }
    }
    /// The benchmark for a word.
    pub fn of_word(word: &str) -> Option<Subject> {
        Subject::ALL.into_iter().find(|s| s.word() == word)
    }
    /// Whether it starts containers.
    fn needs_docker(self) -> bool {
        matches!(self, Subject::Push | Subject::Rollout | Subject::Rest)
    }
}

/// Runs the benchmarks, one after the other. `say` is told what is being done.
pub async fn run(options: &Options, say: &(dyn Fn(&str) + Sync)) -> Result<Report> {
    let mut machine = Machine::look();
    if let Some(host) = options.hosts.first() {
        let info = engine(host).info().await.with_context(|| format!("reach the engine of {}", host.name))?;
        machine.engine = format!("{} {}", info.engine, info.version);
    }
    let mut report = Report::new(machine);
    for subject in Subject::ALL {
        let wanted = if options.only.is_empty() {
            !matches!(subject, Subject::Schedule | Subject::Fleet | Subject::Manifests)
        } else {
            options.only.contains(&subject)
        };
        if !wanted {
            continue;
        }
        if subject.needs_docker() && options.hosts.is_empty() {
            say(&format!("{} is left out: it needs --host", subject.word()));
            continue;
        }
        say(subject.word());
        let figures = match subject {
            Subject::Push => push::run(options, say).await,
            Subject::Rollout => rollout::run(options, say).await,
            Subject::Rest => rest::run(options, say).await,
            Subject::Plan => plan::run(options, say).await,
            Subject::Api => api::run(options, say).await,
            Subject::Size => size(),
            Subject::Schedule => schedule::run(options, say).await,
            Subject::Fleet => fleet::run(options, say).await,
            Subject::Manifests => manifests::run(options, say).await,
        };
        report.figures.extend(figures.with_context(|| format!("measure {}", subject.word()))?);
        if subject == Subject::Fleet {
            report.charts = fleet::charts(&options.fleet, &report.figures);
        }
    }
    Ok(report)
}

fn size() -> Result<Vec<Figure>> {
    let path = std::env::current_exe().context("find this binary")?;
    let bytes = std::fs::metadata(&path).context("look at this binary")?.len();
    Ok(vec![Figure::new("size of the binary", "MB").with(bytes as f64 / 1e6)])
}

/// The engine of a host.
fn engine(host: &Host) -> Arc<dyn Engine> {
    Arc::new(BollardEngine::new(&host.socket))
}
