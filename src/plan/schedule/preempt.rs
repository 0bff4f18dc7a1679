//! Who has to go, so that a more important pod finds a place.
//!
//! On each node where it would help, first all less important pods are thought away; if the pod fits then, as many as possible are let
//! stay, the most important first. Of all such nodes that one is chosen where least is broken: budgets for disruption, then the
//! importance of who has to go, then their number, then how long they have been there.
//!
//! Nothing is decided here about *when* they are gone: they are asked to go, and the pod waits for the place that it was promised.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::class::Class;
use super::cluster::{Cluster, Placed, PodName};
use super::demand::Labels;
use super::filter::{lack, refusal};
use crate::object::selector::LabelSelector;
use crate::plan::rollout::{active, ready};

/// So many nodes are looked at where something has to be worked out for each of them anew.
const SAMPLE: usize = 100;

/// Room that can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// Where.
    pub node: Arc<str>,
    /// Who has to go, the most important first. Empty when those that go anyway are enough.
    pub victims: Vec<PodName>,
    /// Less important pods that were promised a place there. They have to look for another one.
    pub outbid: Vec<PodName>,
}

/// What can be done for a pod that fits nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resort {
    /// Others have to go.
    Preempt(Preemption),
    /// Others are going already.
    Expect,
    /// Nothing.
    Nothing,
}

/// How many pods of some kind may be disrupted.
#[derive(Clone, Debug)]
pub struct Budget {
    namespace: String,
    selector: LabelSelector,
    allowed: i64,
}

impl Budget {
    /// What a PodDisruptionBudget allows, seeing all pods of its namespace.
    pub fn of<'a>(budget: &PodDisruptionBudget, pods: impl Iterator<Item = &'a Pod>) -> Budget {
        let spec = budget.spec.as_ref();
        let selector = spec.and_then(|s| s.selector.as_ref());
        let selector = selector.and_then(|s| LabelSelector::of(s).ok()).unwrap_or_else(LabelSelector::nothing);
        let none = Labels::new();
        let (mut expected, mut healthy) = (0_i64, 0_i64);
        for pod in pods.filter(|p| active(p) && selector.matches_labels(p.metadata.labels.as_ref().unwrap_or(&none))) {
            expected += 1;
            healthy += i64::from(ready(pod));
        }
        let share = |value: &IntOrString| match value {
            IntOrString::Int(n) => i64::from(*n),
            // As Kubernetes does, what does not come out even is rounded up.
            IntOrString::String(text) => {
                text.trim_end_matches('%').parse::<i64>().map_or(0, |percent| (expected * percent + 99).div_euclid(100))
            }
        };
        let wanted = match spec.map(|s| (&s.min_available, &s.max_unavailable)) {
            Some((Some(least), _)) => share(least),
            Some((None, Some(most))) => expected - share(most),
            _ => 0,
        };
        let namespace = budget.metadata.namespace.clone().unwrap_or_default();
        Budget { namespace, selector, allowed: (healthy - wanted.max(0)).max(0) }
    }
}

/// What it costs to make room on a node; the least first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    /// Pods that go against a budget.
    violations: usize,
    /// The most important that has to go.
    highest: Option<i32>,
    importance: i64,
    count: usize,
    /// Of the most important ones, since when the oldest is there: the later, the better.
    since: Option<Reverse<Timestamp>>,
    name: Arc<str>,
    host: usize,
}

/// What it costs on each node, as far as the cluster's log has been read.
#[derive(Debug)]
pub(super) struct Costs {
    read: usize,
    epoch: u64,
    each: Vec<Option<Cost>>,
    ranked: BTreeSet<Cost>,
}

impl Class {
    /// Looks for the node where least has to go.
    pub(super) fn room(&mut self, cluster: &mut Cluster, budgets: &[Budget], begin: usize) -> Option<(Cost, Vec<PodName>)> {
        if !cluster.any_below(self.demand.priority) {
            return None;
        }
        if self.is_quiet() && budgets.is_empty() {
            let host = self.cheapest(cluster)?;
            return self.victims(cluster, host, budgets);
        }
        let hosts = cluster.hosts.len();
        let mut found: Vec<(Cost, Vec<PodName>)> = Vec::new();
        for n in 0..hosts {
            found.extend(self.victims(cluster, (begin + n) % hosts, budgets));
            if found.len() >= SAMPLE {
                break;
            }
        }
        found.into_iter().min_by(|a, b| a.0.cmp(&b.0))
    }

    /// The same where a node's own pods decide alone: what it costs on each node is remembered until that node changes.
    fn cheapest(&mut self, cluster: &mut Cluster) -> Option<usize> {
        let known = self.costs.take().filter(|c| c.epoch == cluster.epoch);
        let news = known.as_ref().and_then(|c| cluster.since(c.read));
        let (mut costs, news) = match (known, news) {
            (Some(costs), Some(news)) => (costs, news),
            _ => (
                Costs { read: 0, epoch: cluster.epoch, each: Vec::new(), ranked: BTreeSet::new() },
                (0..cluster.hosts.len()).collect(),
            ),
        };
        costs.each.resize(cluster.hosts.len(), None);
        for host in news {
            if let Some(old) = costs.each[host].take() {
                costs.ranked.remove(&old);
            }
            if let Some((cost, _)) = self.victims(cluster, host, &[]) {
                costs.ranked.insert(cost.clone());
                costs.each[host] = Some(cost);
            }
        }
        costs.read = cluster.position();
        let cheapest = costs.ranked.first().map(|cost| cost.host);
        self.costs = Some(costs);
        cheapest
    }

    /// Who would have to go from a node, the most important first; `None` when it would not help.
    fn victims(&self, cluster: &mut Cluster, host: usize, budgets: &[Budget]) -> Option<(Cost, Vec<PodName>)> {
        let there = &cluster.hosts[host];
        let too_large = || self.demand.requests.iter().any(|(name, wanted)| wanted > there.facts.allocatable.get(name));
        if !there.known || too_large() || refusal(&self.demand, &there.name, &there.facts).is_some() {
            return None;
        }
        let below = |name: &&Arc<PodName>| cluster.placed(name).is_some_and(|p| p.common.priority < self.demand.priority);
        let lower: Vec<Arc<PodName>> = there.here.iter().filter(below).cloned().collect();
        if lower.is_empty() {
            return None;
        }
        let mut away: Vec<(Arc<PodName>, Placed)> = lower.iter().filter_map(|name| cluster.lift(name)).collect();
        let fits = |cluster: &Cluster| {
            let there = &cluster.hosts[host];
            lack(&self.demand, there).is_empty() && self.objection(cluster, there).is_none()
        };
        if !fits(cluster) {
            away.into_iter().for_each(|(name, pod)| cluster.put(name, pod));
            return None;
        }
        // Who goes anyway costs nothing. Of the others the most important, and among those the oldest, stay first.
        let going: Vec<_> = away.extract_if(.., |(_, pod)| pod.leaving).collect();
        away.sort_by(|(a, one), (b, other)| {
            (Reverse(one.common.priority), one.since, a).cmp(&(Reverse(other.common.priority), other.since, b))
        });
        let mut left: Vec<i64> = budgets.iter().map(|b| b.allowed).collect();
        let mut violates = |pod: &Placed| {
            let mut violates = false;
            for (budget, left) in budgets.iter().zip(&mut left) {
                if budget.namespace == pod.common.namespace && budget.selector.matches_labels(&pod.common.labels) {
                    *left -= 1;
                    violates |= *left < 0;
                }
            }
            violates
        };
        let (breaking, others): (Vec<_>, Vec<_>) =
            away.into_iter().map(|(name, pod)| (violates(&pod), name, pod)).partition(|(violates, ..)| *violates);
        let mut gone: Vec<(bool, Arc<PodName>, Placed)> = Vec::new();
        for (violates, name, pod) in breaking.into_iter().chain(others) {
            cluster.put(name.clone(), pod);
            if !fits(cluster)
                && let Some((name, pod)) = cluster.lift(&name)
            {
                gone.push((violates, name, pod));
            }
        }
        let highest = gone.iter().map(|(_, _, pod)| pod.common.priority).max();
        let cost = Cost {
            violations: gone.iter().filter(|(violates, ..)| *violates).count(),
            highest,
            importance: gone.iter().map(|(_, _, pod)| i64::from(pod.common.priority) + (1 << 31)).sum(),
            count: gone.len(),
            since: gone
                .iter()
                .filter(|(_, _, p)| Some(p.common.priority) == highest)
                .filter_map(|(_, _, p)| p.since)
                .min()
                .map(Reverse),
            name: cluster.hosts[host].name.clone(),
            host,
        };
        let victims = gone.iter().map(|(_, name, _)| (**name).clone()).collect();
        gone.into_iter().for_each(|(_, name, pod)| cluster.put(name, pod));
        going.into_iter().for_each(|(name, pod)| cluster.put(name, pod));
        Some((cost, victims))
    }
}

impl Cost {
    pub(super) fn host(&self) -> usize {
        self.host
    }
}
