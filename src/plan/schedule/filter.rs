//! Which nodes a pod may go to, and in Kubernetes' words why not to the others.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::cluster::{Cluster, Host};
use super::demand::{Demand, Spread, term_holds};
use crate::mutant::{self, Mutant};

/// What a node itself has against a pod; empty when it fits. Only the first kind of obstacle is named, but all resources that lack.
pub(super) fn obstacles(demand: &Demand, name: &str, host: &Host) -> Vec<String> {
    let unschedulable = Taint { key: super::UNSCHEDULABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    if host.facts.unschedulable && !tolerated(&demand.tolerations, &unschedulable) {
        return vec!["node(s) were unschedulable".to_owned()];
    }
    if demand.node_name.as_deref().is_some_and(|wanted| wanted != name) && !mutant::on(Mutant::Rebind) {
        return vec!["node(s) didn't match the requested node name".to_owned()];
    }
    let bars = |taint: &&Taint| taint.effect != "PreferNoSchedule" && !tolerated(&demand.tolerations, taint);
    if let Some(taint) = host.facts.taints.iter().find(bars) {
        let value = taint.value.as_deref().unwrap_or_default();
        return vec![format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)];
    }
    if !suits(demand, name, host) {
        return vec!["node(s) didn't match Pod's node affinity/selector".to_owned()];
    }
    if demand.ports.iter().any(|wanted| host.ports.iter().any(|taken| wanted.clashes(taken))) {
        return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
    }
    let mut lacking = Vec::new();
    // A node that says nothing about how many pods it takes has no limit.
    let places = host.facts.allocatable.get("pods");
    if places > 0 && host.pods >= places {
        lacking.push("Too many pods".to_owned());
    }
    for (name, wanted) in demand.requests.iter() {
        if wanted > 0
            && !mutant::on(Mutant::BindWithoutCapacity)
            && wanted > host.facts.allocatable.get(name) - host.used.get(name)
        {
            lacking.push(format!("Insufficient {name}"));
        }
    }
    lacking
}

/// Whether a node has the labels that the pod demands.
pub(super) fn suits(demand: &Demand, name: &str, host: &Host) -> bool {
    demand.node_selector.iter().all(|(key, value)| host.facts.labels.get(key) == Some(value))
        && demand.required.as_ref().is_none_or(|terms| terms.iter().any(|t| term_holds(t, name, &host.facts.labels)))
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

/// What the other pods have against placing a pod of a class, looked up once for all nodes.
pub(super) struct Neighbours<'a> {
    cluster: &'a Cluster,
    demand: &'a Demand,
    kept_out: Vec<(&'a str, BTreeSet<&'a str>)>,
    /// For each spread constraint: the fewest pods in any domain, and whether there are domains at all.
    fewest: Vec<i64>,
    /// Nothing that the pod wants to be near exists yet, and it would be near itself.
    first: bool,
}

impl<'a> Neighbours<'a> {
    pub(super) fn of(cluster: &'a Cluster, demand: &'a Demand) -> Self {
        let fewest = |spread: &Spread| {
            let mut domains: BTreeMap<&str, i64> = BTreeMap::new();
            for (_, host) in cluster.nodes().filter(|(name, host)| suits(demand, name, host)) {
                if let Some(domain) = host.facts.labels.get(&spread.term.topology) {
                    domains.entry(domain).or_insert_with(|| cluster.in_domain(&spread.term, domain));
                }
            }
            if domains.len() < spread.min_domains { 0 } else { domains.into_values().min().unwrap_or(0) }
        };
        Neighbours {
            cluster,
            demand,
            kept_out: cluster.kept_out(demand),
            fewest: demand.spread.iter().map(fewest).collect(),
            first: demand.near.iter().all(|t| cluster.nowhere(t) && t.about(&demand.namespace, &demand.labels)),
        }
    }

    /// Whether other pods can have a say at all.
    pub(super) fn silent(&self) -> bool {
        self.kept_out.is_empty() && !self.demand.minds_others()
    }

    /// What the pods around a node have against the pod.
    pub(super) fn obstacle(&self, host: &Host) -> Option<&'static str> {
        for (spread, fewest) in self.demand.spread.iter().zip(&self.fewest).filter(|(s, _)| s.hard) {
            let Some(domain) = host.facts.labels.get(&spread.term.topology) else {
                return Some("node(s) didn't match pod topology spread constraints (missing required label)");
            };
            let here = self.cluster.in_domain(&spread.term, domain) + i64::from(spread.itself);
            if here - fewest > spread.max_skew {
                return Some("node(s) didn't match pod topology spread constraints");
            }
        }
        for term in &self.demand.near {
            let near = host.facts.labels.get(&term.topology);
            if !near.is_some_and(|domain| self.first || self.cluster.in_domain(term, domain) > 0) {
                return Some("node(s) didn't match pod affinity rules");
            }
        }
        for term in &self.demand.apart {
            if host.facts.labels.get(&term.topology).is_some_and(|domain| self.cluster.in_domain(term, domain) > 0) {
                return Some("node(s) didn't match pod anti-affinity rules");
            }
        }
        let held = |(topology, domains): &(&str, BTreeSet<&str>)| {
            host.facts.labels.get(*topology).is_some_and(|domain| domains.contains(domain.as_str()))
        };
        self.kept_out.iter().any(held).then_some("node(s) didn't satisfy existing pods anti-affinity rules")
    }

    /// How much the pod would like a node for its neighbours, and how uneven it would make things there.
    pub(super) fn liking(&self, host: &Host) -> (i64, i64) {
        let wish = |(weight, term): &(i64, super::demand::Term)| {
            let domain = host.facts.labels.get(&term.topology)?;
            Some(weight * self.cluster.in_domain(term, domain))
        };
        let unevenness = |(spread, fewest): (&Spread, &i64)| match host.facts.labels.get(&spread.term.topology) {
            Some(domain) => self.cluster.in_domain(&spread.term, domain) - fewest,
            None => i64::from(i32::MAX),
        };
        (
            self.demand.near_preferred.iter().filter_map(wish).sum(),
            self.demand.spread.iter().zip(&self.fewest).filter(|(s, _)| !s.hard).map(unevenness).sum(),
        )
    }
}
