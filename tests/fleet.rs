//! A small fleet, from joining to the return of a killed server: a hundred hollow hosts and two thousand pods.
//!
//! What it asserts are counts of work for each pod, not times: a slip that makes work grow with the square of the fleet shows on any
//! machine. The bounds are about twice what was counted when they were written, because leases are renewed, and typed objects are let go,
//! while time passes: a slow machine counts more. docs/benchmarks.md has the counts of a large fleet.

use std::process::Command;

use serde_json::Value;

/// A figure's name begins with this and ends with the step; so many times per pod at most.
const BOUNDS: &[(&str, &str, f64)] = &[
    ("requests, per pod", "pods from one commit", 4.0),
    ("store writes, per pod", "pods from one commit", 9.0),
    ("object decodes, per pod", "pods from one commit", 30.0),
    ("scheduler evaluations, per pod", "pods from one commit", 8.0),
    ("requests, per pod", "rolling update of everything", 6.0),
    ("store writes, per pod", "rolling update of everything", 12.0),
    ("object decodes, per pod", "rolling update of everything", 65.0),
    ("scheduler evaluations, per pod", "rolling update of everything", 16.0),
];

#[test]
fn a_small_fleet_costs_no_more_for_each_pod_than_it_should() {
    let args = ["bench", "fleet", "--hosts", "100", "--pods", "2000", "--deployments", "20", "-o", "json"];
    let out = Command::new(env!("CARGO_BIN_EXE_portolan")).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    let report: Value =
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stdout)));
    let figures = report["figures"].as_array().expect("a report has figures");
    let found = |what: &str, step: &str| -> f64 {
        let is = |name: &str| name.starts_with(&format!("{what}: {step} ("));
        let figure = figures.iter().find(|f| f["name"].as_str().is_some_and(is));
        figure.and_then(|f| f["median"].as_f64()).unwrap_or_else(|| panic!("no figure of {what}: {step} in {report:#}"))
    };
    let mut beyond = Vec::new();
    for (what, step, most) in BOUNDS {
        let count = found(what, step);
        eprintln!("{what}: {step}: {count:.2}");
        assert!(count > 0.0, "{what}: {step}: nothing was counted");
        if count > *most {
            beyond.push(format!("{what}: {step}: {count:.2}, and at most {most} are right"));
        }
    }
    assert!(beyond.is_empty(), "{beyond:#?}");
}
