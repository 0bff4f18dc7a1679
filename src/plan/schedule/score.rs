//! Which of the nodes that fit is the best one.

use std::cmp::Reverse;

use super::Strategy;
use super::cluster::Host;
use super::demand::{Demand, term_holds};
use super::filter::tolerated;

/// What a node is worth for a pod, the best last. The order of the fields is the policy: to change it, move a line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score {
    /// `PreferNoSchedule` taints that the pod does not tolerate.
    taints: Reverse<usize>,
    /// Weights of the affinities that the node fulfils.
    preference: i64,
    /// How uneven the pod would make the domains that it wishes to be even.
    uneven: Reverse<i64>,
    /// What the strategy says.
    strategy: (i64, i64, i64),
}

impl Score {
    /// With what the pods around the node add to it.
    pub(super) fn among(&self, liking: i64, uneven: i64) -> Score {
        Score { preference: self.preference + liking, uneven: Reverse(uneven), ..self.clone() }
    }
}

/// What share of a node is taken once the pod is there, in thousandths: processors and memory on average.
///
/// A pod that asks for nothing is counted with a little, or all of them would go to the same node.
fn taken(demand: &Demand, host: &Host) -> i64 {
    const LEAST: [(&str, i64); 2] = [("cpu", 100), ("memory", 200 * 1024 * 1024)];
    let mut shares = 0;
    let mut counted = 0;
    for (name, least) in LEAST {
        let all = host.facts.allocatable.get(name);
        if all > 0 {
            let asked = demand.requests.get(name);
            // What already runs counts with its real requests: the pods' number breaks the tie among those that ask for nothing.
            let used = host.used.get(name).saturating_add(if asked > 0 { asked } else { least });
            shares += (used.saturating_mul(1000) / all).min(1000);
            counted += 1;
        }
    }
    if counted == 0 { 0 } else { shares / counted }
}

/// The part of a node's worth that changes only with the node itself.
pub(super) fn score(demand: &Demand, name: &str, host: &Host, strategy: Strategy) -> Score {
    let unwanted = |t: &&k8s_openapi::api::core::v1::Taint| t.effect == "PreferNoSchedule" && !tolerated(&demand.tolerations, t);
    let siblings = host.owners.get(&demand.owner).copied().unwrap_or(0);
    Score {
        taints: Reverse(host.facts.taints.iter().filter(unwanted).count()),
        preference: demand
            .preferred
            .iter()
            .filter(|(_, term)| term_holds(term, name, &host.facts.labels))
            .map(|(weight, _)| weight)
            .sum(),
        uneven: Reverse(0),
        strategy: match strategy {
            // Fewest of the same owner, then the emptiest, then the fewest pods.
            Strategy::Spread => (-siblings, -taken(demand, host), -host.pods),
            // The fullest on which it fits.
            Strategy::Binpack => (taken(demand, host), host.pods, 0),
            // Decided among the best afterwards.
            Strategy::Random | Strategy::RoundRobin => (0, 0, 0),
        },
    }
}
