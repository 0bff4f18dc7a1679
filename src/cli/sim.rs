//! `sim`: the simulated house, seed by seed.

use std::time::Instant;

use super::args::Sim;
use super::print::{BAD, BOLD, DIM, GOOD, clean};
use super::{Context, Outcome};
use crate::sim::{self, Options};

/// Of a failed run, so many lines of what happened before are printed; `--seed N --trace` prints all.
const TAIL: usize = 40;

pub(super) async fn run(cx: &Context, args: Sim) -> Outcome {
    let mut options = Options { trace: args.trace, faults: !args.calm, ..Options::default() };
    if let Some(minutes) = args.minutes {
        options.minutes = minutes;
    }
    if let Some(steps) = args.steps {
        options.steps = steps;
    }
    let seeds = match args.seed {
        Some(seed) => seed..=seed,
        None => args.from..=args.from.saturating_add(args.seeds.saturating_sub(1)),
    };
    let total = seeds.end() - seeds.start() + 1;
    let print = cx.print.clone();
    // It computes without a pause, so it has a thread of its own.
    let report = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let mut progress = print.progress("simulates");
        let mut done = 0;
        let report = sim::sweep(seeds, &options, |outcome| {
            done += 1;
            if let Some(violation) = &outcome.violation {
                progress.note(format_args!(
                    "{} seed {}: {}",
                    print.paint_talk(BAD, "FAILED"),
                    outcome.seed,
                    clean(&violation.to_string())
                ));
            }
            if args.trace {
                outcome.trace.iter().for_each(|line| print.line(clean(line)));
            }
            // A bar that moves on a terminal; elsewhere a line for each tenth.
            if done % (total / 10).max(1) == 0 || print.watched() {
                progress.set(&format!("{done} of {total} seeds"));
            }
            outcome.violation.is_none() || args.keep_going
        });
        (report, begun.elapsed())
    });
    let (report, took) = report.await?;
    for failed in &report.failed {
        if !args.trace {
            let from = failed.trace.len().saturating_sub(TAIL);
            cx.print.line(cx.print.paint(
                BOLD,
                format!("seed {}: the last {} of {} lines", failed.seed, failed.trace.len() - from, failed.trace.len()),
            ));
            failed.trace[from..].iter().for_each(|line| cx.print.line(format_args!("  {}", clean(line))));
        }
    }
    let hours = report.simulated.as_secs_f64() / 3600.0;
    cx.print.line(format_args!(
        "{} seeds, {} events, {hours:.1} simulated hours in {:.1} s",
        report.runs,
        report.steps,
        took.as_secs_f64()
    ));
    if args.coverage || cx.global.verbose > 0 {
        for (what, times) in &report.reached {
            cx.print.line(cx.print.paint(DIM, format!("  {times:>8} {what}")));
        }
    }
    match report.failed.as_slice() {
        [] => {
            cx.print.line(cx.print.paint(GOOD, "nothing that must hold was broken"));
            Ok(0)
        }
        failed => {
            let seeds = failed.iter().map(|f| f.seed.to_string()).collect::<Vec<_>>().join(", ");
            cx.print.line(cx.print.paint(BAD, format!("failed: seed {seeds}")));
            cx.print.say(format_args!("again, in full: portolan sim --seed {} --trace", failed[0].seed));
            Ok(1)
        }
    }
}
