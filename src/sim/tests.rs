//! A few seeds on every run; many are the business of `portolan sim --seeds`.

use super::*;
use crate::docker::bollard_engine::real_tests::skip;

/// Panics with the end of the trace if a run failed.
fn expect_clean(outcome: &Outcome) {
    let Some(violation) = &outcome.violation else { return };
    let trace = run(outcome.seed, &Options { trace: true, ..short() }).trace;
    let from = trace.len().saturating_sub(60);
    panic!("seed {}: {violation}\n{}", outcome.seed, trace[from..].join("\n"));
}

/// Short runs: `portolan sim --seeds 1000` is the real search.
fn short() -> Options {
    Options { minutes: 4, ..Options::default() }
}

#[test]
fn some_seeds_find_nothing() {
    for seed in 0..2 {
        expect_clean(&run(seed, &short()));
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let (one, two) = (run(3, &short()), run(3, &short()));
    assert_eq!((one.digest, one.steps, one.simulated), (two.digest, two.steps, two.simulated));
}

/// By hand: `SIM_SEEDS=0..100 cargo test --lib sim::tests::sweep_by_hand -- --nocapture`
#[test]
fn sweep_by_hand() {
    use std::io::Write as _;
    let Ok(range) = std::env::var("SIM_SEEDS") else {
        return skip("sim::sweep_by_hand", "SIM_SEEDS names no seeds");
    };
    let (from, to) = range.split_once("..").expect("from..to");
    let begin = std::time::Instant::now();
    let directory = std::env::var("SIM_TRACES").unwrap_or_default();
    let report = sweep(from.parse().unwrap()..to.parse().unwrap(), &Options::default(), |outcome| {
        if let Some(violation) = &outcome.violation {
            let _ = writeln!(std::io::stdout(), "seed {} ({} steps): {violation}", outcome.seed, outcome.steps);
            if !directory.is_empty() {
                let _ = std::fs::write(format!("{directory}/{}.trace", outcome.seed), outcome.trace.join("\n"));
            }
        }
        true
    });
    let mut out = std::io::stdout();
    let _ = writeln!(
        out,
        "{} runs, {} failed, {} steps, {:?}\n{:#?}",
        report.runs,
        report.failed.len(),
        report.steps,
        begin.elapsed(),
        report.reached
    );
}

/// How many seeds a mistake has to be found in.
const WITHIN: u64 = 60;

/// The first seed that finds a mistake, and what it says.
fn found(mutant: crate::mutant::Mutant) -> Option<(u64, Violation)> {
    (0..WITHIN).find_map(|seed| {
        let outcome =
            crate::mutant::planted(Some(mutant), || run(seed, &Options { minutes: 8, steps: 250_000, ..Options::default() }));
        outcome.violation.map(|violation| (seed, violation))
    })
}

/// Mistakes that show within moments; all of them are looked for by `every_mistake_is_found`.
#[test]
fn plain_mistakes_are_found_at_once() {
    use crate::mutant::Mutant;
    for (mutant, id) in [
        (Mutant::BlindWrite, "ST6"),
        (Mutant::SurgeOffByOne, "WK1"),
        (Mutant::ReplicaSetPerLook, "WK4"),
        (Mutant::TouchForeign, "AG3"),
    ] {
        let found = found(mutant).map(|(_, violation)| violation.id);
        assert_eq!(found, Some(id), "{mutant:?}");
    }
}

/// All of them. Minutes even when optimised, so only where it is asked for:
/// `SIM_MUTANTS=all cargo test --release --lib sim::tests::every_mistake_is_found -- --nocapture`, or some of them by name.
#[test]
fn every_mistake_is_found() {
    use std::io::Write as _;
    let Ok(wanted) = std::env::var("SIM_MUTANTS") else {
        return skip("sim::every_mistake_is_found", "SIM_MUTANTS names no mutants; it takes minutes");
    };
    let asked = |m: &crate::mutant::Mutant| wanted == "all" || wanted.split(',').any(|w| format!("{m:?}") == w);
    let mutants: Vec<_> = crate::mutant::ALL.iter().copied().filter(asked).collect();
    let (next, missed) = (std::sync::atomic::AtomicUsize::new(0), parking_lot::Mutex::new(Vec::new()));
    // A mistake is planted in one thread only, so each processor can look for another one.
    let search = || {
        while let Some(mutant) = mutants.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            let begin = std::time::Instant::now();
            let found = found(*mutant);
            let took = begin.elapsed();
            let _ = match &found {
                Some((seed, violation)) => writeln!(std::io::stdout(), "{mutant:?}: seed {seed}, {violation} ({took:.1?})"),
                None => writeln!(std::io::stdout(), "{mutant:?}: not found in {WITHIN} seeds ({took:.1?})"),
            };
            if found.is_none() {
                missed.lock().push(*mutant);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(search);
        }
    });
    let missed = missed.into_inner();
    assert!(missed.is_empty(), "not found in {WITHIN} seeds: {missed:?}");
}
