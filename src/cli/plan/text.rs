//! A plan for a terminal.

use std::collections::BTreeMap;

use super::made::{Made, Verdict};
use crate::cli::print::{ADDED, BAD, BOLD, DIM, GOOD, Print, REMOVED, WARN, clean};
use crate::plan::foresee::{Foreseen, Move};
use crate::plan::sync::Action;

pub(super) fn write(print: &Print, made: &Made) {
    print.line(format_args!(
        "{} {}: {} -> {}",
        print.paint(BOLD, "Plan for"),
        clean(&made.application),
        clean(&made.from.label()),
        clean(&made.to.label())
    ));
    for note in &made.notes {
        print.line(format_args!("  {} {}", print.paint(WARN, "note:"), clean(note)));
    }
    for change in made.waves.iter().flat_map(|w| &w.changes) {
        let (sign, style) = match change.action {
            Action::Create => ("+", ADDED),
            Action::Patch => ("~", WARN),
            Action::Adopt => ("=", WARN),
        };
        let adopts = if change.action == Action::Adopt { ", becomes ours" } else { "" };
        print.line(format_args!(
            "\n{} {} ({}{adopts})",
            print.paint(style, sign),
            print.paint(BOLD, &change.name),
            clean(&change.origin)
        ));
        if change.action != Action::Create {
            print.out(indented(&unified(print, hunks(&change.diff))));
        }
    }
    for gone in &made.prune {
        print.line(format_args!("\n{} {} (no longer in git)", print.paint(REMOVED, "-"), print.paint(BOLD, &gone.name)));
    }
    for kept in &made.kept {
        print.line(format_args!("\n{} {} stays: {}", print.paint(WARN, "!"), print.paint(BOLD, &kept.name), clean(&kept.why)));
    }
    for name in &made.tolerated {
        print.line(format_args!("\n  {name} differs and is left alone, as its author wishes"));
    }
    if let Some(seen) = &made.pods {
        pods(print, seen);
    }
    if made.verdict == Verdict::Rejected && !made.shown {
        problems(print, made);
    }
    for wait in &made.waits {
        print.line(format_args!("\n{} {}", print.paint(WARN, "waits:"), clean(wait)));
    }
    if !made.warnings.is_empty() {
        print.line(format_args!("\n{}", print.paint(WARN, "Not found in the repository, so it must be in the cluster:")));
        for warning in &made.warnings {
            print.line(format_args!("  {}", clean(warning)));
        }
    }
    print.line("");
    match made.verdict {
        Verdict::Unchanged => print.line(print.paint(GOOD, format!("No change ({}).", made.sum()))),
        Verdict::Changes => print.line(format_args!("{}.", print.paint(BOLD, made.sum()))),
        Verdict::Waits => print.line(format_args!(
            "{}, {}.",
            print.paint(BOLD, made.sum()),
            print.paint(WARN, "but not now: it would be tried again")
        )),
        Verdict::Rejected => {
            let n = made.problems.len();
            print.line(
                print.paint(BAD, format!("Rejected: {n} problem{}; nothing would be changed.", if n == 1 { "" } else { "s" })),
            );
        }
    }
}

/// What is wrong, one line each.
pub(super) fn problems(print: &Print, made: &Made) {
    print.line(format_args!("\n{}", print.paint(BAD, "Problems:")));
    for problem in &made.problems {
        let place = if problem.line > 0 { format!("{}:{}", problem.file, problem.line) } else { problem.file.clone() };
        print.line(format_args!("  {}: {}", clean(&place), clean(&problem.message)));
        if let Some(hint) = &problem.hint {
            print.line(format_args!("    {}", clean(hint)));
        }
    }
}

fn pods(print: &Print, seen: &Foreseen) {
    if seen.starts.is_empty() && seen.stops.is_empty() && seen.waiting.is_empty() {
        return;
    }
    print.line(format_args!("\n{}", print.paint(BOLD, "Pods:")));
    for (workload, line) in movements(seen) {
        print.line(format_args!("  {} {line}", clean(&workload)));
    }
    for wait in &seen.waiting {
        print.line(format_args!(
            "  {} {}",
            print.paint(BAD, format!("{} without a host: {}", wait.pods, clean(&wait.workload))),
            clean(&wait.why)
        ));
    }
}

/// One line for each workload whose pods move.
pub(super) fn movements(seen: &Foreseen) -> Vec<(String, String)> {
    let mut workloads: Vec<&String> = seen.starts.iter().chain(&seen.stops).map(|m| &m.workload).collect();
    workloads.sort();
    workloads.dedup();
    let mut lines = Vec::new();
    for workload in workloads {
        let mine = |moves: &[Move]| hosts(moves.iter().filter(|m| m.workload == *workload));
        let mut parts = Vec::new();
        for (word, moves) in [("start on", &seen.starts), ("stop on", &seen.stops)] {
            let count = moves.iter().filter(|m| m.workload == *workload).count();
            if count > 0 {
                parts.push(format!("{count} {word} {}", mine(moves)));
            }
        }
        if let Some(extent) = seen
            .workloads
            .iter()
            .find(|e| e.workload == *workload)
            .filter(|e| e.replicas > 0 && !seen.stops.iter().all(|s| s.workload != *workload))
        {
            parts.push(format!(
                "of {} at least {} serve, at most {} at once",
                extent.replicas, extent.least_available, extent.most
            ));
        }
        lines.push((workload.clone(), parts.join("; ")));
    }
    lines
}

/// `host-a (2), host-b`.
fn hosts<'m>(moves: impl Iterator<Item = &'m Move>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for moved in moves {
        *counts.entry(&moved.node).or_default() += 1;
    }
    let told = counts.iter().map(|(node, n)| if *n == 1 { (*node).to_owned() } else { format!("{node} ({n})") });
    clean(&told.collect::<Vec<_>>().join(", "))
}

/// A diff without its header.
pub(super) fn hunks(diff: &str) -> &str {
    diff.find("\n@@").map_or(diff, |at| &diff[at + 1..])
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// A unified diff in colour; the signs say the same.
pub(super) fn unified(print: &Print, diff: &str) -> String {
    let style = |line: &str| match line.as_bytes().first() {
        Some(b'+') => Some(ADDED),
        Some(b'-') => Some(REMOVED),
        Some(b'@') => Some(DIM),
        _ => None,
    };
    clean(diff)
        .lines()
        .map(|line| style(line).map_or_else(|| format!("{line}\n"), |s| format!("{}\n", print.paint(s, line))))
        .collect()
}
