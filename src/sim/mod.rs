//! The whole house in one thread: server loops, agents, git, machines and their faults, under one seed.
//!
//! The store, the loops, the agents' hearts and the renderer are the real ones. Simulated are the disk (which knows what a power cut
//! would leave), the machines ([`crate::docker::simulated`]), git, and the wire between agents and server, where messages are late, lost
//! or doubled. After each step the invariants of the design are checked on the true state; once the faults have ended everything must
//! come to rest as the repository says.
//!
//! The same seed gives the same run, to the last event: a failing seed is all that a bug report needs.
//!
//! You will not find here: sockets, threads, real time, HTTP.

mod audit;
mod author;
mod chart;
mod dice;
mod faults;
mod gitops;
mod host;
mod log;
mod operator;
mod server;
mod settle;
#[cfg(test)]
mod tests;
mod troubles;
mod wire;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::SignedDuration;

use world::World;

/// How a run is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// For how many simulated minutes people push and things break, before everything has to come to rest.
    pub minutes: u32,
    /// Whether things break.
    pub faults: bool,
    /// Whether what happens is written down. Costs time; a failing seed is run again with it.
    pub trace: bool,
    /// The run is given up after so many events: a bound on a house that never rests.
    pub steps: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { minutes: 10, faults: true, trace: false, steps: 400_000 }
    }
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The invariant's name in the design: `WK1`.
    pub id: &'static str,
    /// What was seen.
    pub what: String,
    /// When, since the start of the run.
    pub at: SignedDuration,
}

/// `WK1 after 83.250s: …`
impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} after {:.3}s: {}", self.id, self.at.as_secs_f64(), self.what)
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What went wrong, if anything did.
    pub violation: Option<Violation>,
    /// What happened, line by line; empty unless it was asked for.
    pub trace: Vec<String>,
    /// How often each thing worth testing happened.
    pub reached: BTreeMap<&'static str, u64>,
    /// How many events there were.
    pub steps: u64,
    /// How much time passed in the house.
    pub simulated: SignedDuration,
    /// A hash of the whole run: the same for the same seed and the same program.
    pub digest: u64,
}

/// What came of many runs.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many runs there were.
    pub runs: u64,
    /// The runs that failed.
    pub failed: Vec<Outcome>,
    /// How often each thing worth testing happened in all of them.
    pub reached: BTreeMap<&'static str, u64>,
    /// How many events there were in all of them.
    pub steps: u64,
    /// How much time passed in all of their houses.
    pub simulated: SignedDuration,
}

impl Report {
    /// Adds a run.
    pub fn add(&mut self, outcome: Outcome) {
        self.runs += 1;
        self.steps += outcome.steps;
        self.simulated += outcome.simulated;
        for (what, times) in &outcome.reached {
            *self.reached.entry(what).or_default() += times;
        }
        if outcome.violation.is_some() {
            self.failed.push(outcome);
        }
    }
}

/// One run.
pub fn run(seed: u64, options: &Options) -> Outcome {
    let logs = log::Logs::default();
    let mut world = World::new(seed, options);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        log::listening(&logs, || {
            while world.step()? {
                for line in logs.take() {
                    if line.contains("panicked") {
                        return Err(world.auditor.violation("PANIC", line));
                    }
                    world.say("log", || line.clone());
                }
                if world.steps >= options.steps {
                    let why = settle::unsettled(&world).unwrap_or_default();
                    return Err(world.auditor.violation("LV1", format!("no rest after {} events: {why}", world.steps)));
                }
            }
            Ok(())
        })
    }));
    let mut violation = match ran {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Some(world.auditor.violation("PANIC", text.unwrap_or_default()))
        }
    };
    let simulated = world.now.duration_since(world.start);
    if let Some(violation) = &mut violation {
        violation.at = simulated;
    }
    Outcome {
        seed,
        violation,
        trace: world.trace.take().unwrap_or_default(),
        reached: std::mem::take(&mut world.reached),
        steps: world.steps,
        simulated,
        digest: world.digest,
    }
}

/// Many runs, one after the other. `each` hears of every outcome and says whether to go on. A failed run is run again to get its trace.
pub fn sweep(seeds: impl IntoIterator<Item = u64>, options: &Options, mut each: impl FnMut(&Outcome) -> bool) -> Report {
    let mut report = Report::default();
    for seed in seeds {
        let mut outcome = run(seed, options);
        if outcome.violation.is_some() && !options.trace {
            outcome.trace = run(seed, &Options { trace: true, ..options.clone() }).trace;
        }
        let go_on = each(&outcome);
        report.add(outcome);
        if !go_on {
            break;
        }
    }
    report
}
