//! Which of the nodes that fit is the best one.

use std::cmp::{Ordering, Reverse};

use super::Strategy;
use super::cluster::Host;
use super::demand::{Demand, term_holds};
use super::filter::tolerated;

/// What a node by itself is worth for a pod, in the order of [`Score`]: without what is said of its group. One is kept for each node and
/// class, so the numbers are small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Worth {
    /// `PreferNoSchedule` taints that the pod does not tolerate.
    taints: i32,
    /// Weights of the affinities that the node fulfils.
    preference: i32,
    /// What the strategy says.
    strategy: (i32, i32, i32),
}

/// What a node is worth among all, the best last. The order of the fields is the policy: to change it, move a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score {
    taints: Reverse<i32>,
    /// With how much the pods around it are liked.
    preference: i64,
    /// How uneven the pod would make the domains that it wishes to be even.
    uneven: Reverse<i64>,
    strategy: (i32, i32, i32),
}

impl Worth {
    /// With what the pods around the node add to it.
    pub(super) fn among(self, liking: i64, uneven: i64) -> Score {
        let preference = i64::from(self.preference) + liking;
        Score { taints: Reverse(self.taints), preference, uneven: Reverse(uneven), strategy: self.strategy }
    }
}

impl Ord for Worth {
    fn cmp(&self, other: &Worth) -> Ordering {
        self.among(0, 0).cmp(&other.among(0, 0))
    }
}

impl PartialOrd for Worth {
    fn partial_cmp(&self, other: &Worth) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A number that is never near the bounds.
fn small<N: TryInto<i32>>(number: N) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
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

/// What a node is worth, which changes only with the node itself.
pub(super) fn worth(demand: &Demand, name: &str, host: &Host, strategy: Strategy) -> Worth {
    let unwanted = |t: &&k8s_openapi::api::core::v1::Taint| t.effect == "PreferNoSchedule" && !tolerated(&demand.tolerations, t);
    let siblings = host.owners.get(&demand.owner).copied().unwrap_or(0);
    let liked = demand.preferred.iter().filter(|(_, term)| term_holds(term, name, &host.facts.labels));
    Worth {
        taints: small(host.facts.taints.iter().filter(unwanted).count()),
        preference: small(liked.map(|(weight, _)| weight).sum::<i64>()),
        strategy: match strategy {
            // Fewest of the same owner, then the emptiest, then the fewest pods.
            Strategy::Spread => (-small(siblings), -small(taken(demand, host)), -small(host.pods)),
            // The fullest on which it fits.
            Strategy::Binpack => (small(taken(demand, host)), small(host.pods), 0),
            // Decided among the best afterwards.
            Strategy::Random | Strategy::RoundRobin => (0, 0, 0),
        },
    }
}
