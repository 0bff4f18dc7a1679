//! Which nodes a pod may go to, and in Kubernetes' words why not to the others.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::cluster::{Facts, Host, Promise};
use super::demand::{Demand, suited};
use crate::mutant::{self, Mutant};

/// What a node is, against a pod: nothing that pods on it could change by going.
pub(super) fn refusal(demand: &Demand, name: &str, facts: &Facts) -> Option<String> {
    if facts.unschedulable && !tolerated(&demand.tolerations, &cordon()) {
        return Some("node(s) were unschedulable".to_owned());
    }
    if demand.node_name.as_deref().is_some_and(|wanted| wanted != name) && !mutant::on(Mutant::Rebind) {
        return Some("node(s) didn't match the requested node name".to_owned());
    }
    let bars = |taint: &&Taint| taint.effect != "PreferNoSchedule" && !tolerated(&demand.tolerations, taint);
    if let Some(taint) = facts.taints.iter().find(bars) {
        let value = taint.value.as_deref().unwrap_or_default();
        return Some(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key));
    }
    (!suited(&demand.node_selector, demand.required.as_ref(), name, &facts.labels))
        .then(|| "node(s) didn't match Pod's node affinity/selector".to_owned())
}

/// What is taken on a node, against a pod; empty when there is room. All resources that lack are named. What other pods are to get
/// there counts when they are as important.
pub(super) fn lack(demand: &Demand, host: &Host) -> Vec<String> {
    let promised: Vec<&Promise> = host.promised.iter().filter(|p| p.priority >= demand.priority).collect();
    let mut taken = host.ports.iter().chain(promised.iter().flat_map(|p| &p.ports));
    if !demand.ports.is_empty() && taken.any(|taken| demand.ports.iter().any(|wanted| wanted.clashes(taken))) {
        return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
    }
    let mut lacking = Vec::new();
    // A node that says nothing about how many pods it takes has no limit.
    let places = host.facts.allocatable.get("pods");
    if places > 0 && host.pods + promised.len() as i64 >= places {
        lacking.push("Too many pods".to_owned());
    }
    for (name, wanted) in demand.requests.iter() {
        let promised: i64 = promised.iter().map(|p| p.requests.get(name)).sum();
        if wanted > 0
            && !mutant::on(Mutant::BindWithoutCapacity)
            && wanted > host.facts.allocatable.get(name) - host.used.get(name) - promised
        {
            lacking.push(format!("Insufficient {name}"));
        }
    }
    lacking
}

/// What a node itself has against a pod; empty when it fits.
pub(super) fn obstacles(demand: &Demand, host: &Host) -> Vec<String> {
    match refusal(demand, &host.name, &host.facts) {
        Some(reason) => vec![reason],
        None => lack(demand, host),
    }
}

fn cordon() -> Taint {
    Taint { key: super::UNSCHEDULABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }
}

/// Whether a node keeps out pods with no other tolerations than these.
pub(super) fn barred(tolerations: &[Toleration], facts: &Facts) -> bool {
    let bars = |taint: &Taint| taint.effect != "PreferNoSchedule" && !tolerated(tolerations, taint);
    facts.taints.iter().any(bars) || (facts.unschedulable && bars(&cordon()))
}

/// Whether any of the tolerations covers the taint.
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| tolerates(t, taint))
}

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let value = |v: &Option<String>| v.as_deref().unwrap_or_default().to_owned();
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            None | Some("" | "Equal") => !key.is_empty() && value(&toleration.value) == value(&taint.value),
            Some(_) => false,
        }
}
