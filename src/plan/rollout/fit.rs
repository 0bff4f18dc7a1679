//! The numbers of a rolling update: how many pods may be too many, how many may be missing, and who gets how many.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// `maxSurge` and `maxUnavailable` in pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many replicas are wanted.
    pub replicas: i32,
    /// How many pods more than that may exist.
    pub surge: i32,
    /// How many available pods fewer than that there may be.
    pub unavailable: i32,
}

impl Bounds {
    /// The most pods there may be.
    pub fn most(self) -> i32 {
        self.replicas.saturating_add(self.surge)
    }
    /// The fewest available pods there may be by our own hand.
    pub fn least(self) -> i32 {
        (self.replicas - self.unavailable).max(0)
    }
}

/// The bounds of a Deployment: a percentage of the replicas is rounded up for the surge and down for what may be missing, and when both
/// come to nothing one pod may be missing, or nothing could ever move.
pub fn bounds(deployment: &Deployment) -> Bounds {
    let replicas = wanted(deployment);
    if recreates(deployment) {
        return Bounds { replicas, surge: 0, unavailable: replicas };
    }
    let rolling = deployment.spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".to_owned());
    let surge = rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter);
    let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter);
    let surge = share(surge, replicas, true);
    let mut unavailable = share(unavailable, replicas, false);
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    Bounds { replicas, surge, unavailable: unavailable.min(replicas) }
}

/// `spec.replicas`; one when absent.
pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

/// Whether old pods go before new ones come.
pub(super) fn recreates(deployment: &Deployment) -> bool {
    deployment.spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// A number of pods, or a percentage of `total`. What cannot be read counts as nothing; validation refuses it before it gets here.
fn share(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    let share = match value {
        IntOrString::Int(n) => i64::from(*n),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|p| p.parse().ok()).unwrap_or(0);
            let product = i64::from(total) * percent.max(0);
            if round_up { (product + 99) / 100 } else { product / 100 }
        }
    };
    i32::try_from(share.max(0)).unwrap_or(i32::MAX)
}

/// One replica set in a proportional scaling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Its replicas now.
    pub(super) replicas: i32,
    /// The most pods that the Deployment might have had when this replica set was last scaled; what its share is a share of.
    pub(super) of: Option<i32>,
}

/// Shares a change of the Deployment's size among its replica sets in proportion to theirs: what each should have, in the same order.
/// What rounding leaves over goes to the first.
pub(super) fn proportion(parts: &[Part], bounds: Bounds, status_replicas: i32) -> Vec<i32> {
    let allowed = if bounds.replicas > 0 { bounds.most() } else { 0 };
    let change = allowed - parts.iter().map(|p| p.replicas).sum::<i32>();
    if change == 0 {
        return parts.iter().map(|p| p.replicas).collect();
    }
    let mut done = 0;
    let mut sizes: Vec<i32> = Vec::with_capacity(parts.len());
    for part in parts {
        let fraction = fraction(part, bounds, status_replicas);
        let left = change - done;
        let add = if part.replicas == 0 || left == 0 {
            0
        } else if change > 0 {
            fraction.min(left)
        } else {
            fraction.max(left)
        };
        done += add;
        sizes.push((part.replicas + add).max(0));
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + change - done).max(0);
    }
    sizes
}

fn fraction(part: &Part, bounds: Bounds, status_replicas: i32) -> i32 {
    if bounds.replicas == 0 {
        return -part.replicas;
    }
    let of = match part.of {
        Some(of) if of > 0 => of,
        _ => status_replicas,
    };
    if of <= 0 {
        return 0;
    }
    // Rounded half away from zero, as Kubernetes does.
    let exact = f64::from(part.replicas) * f64::from(bounds.most()) / f64::from(of);
    exact.round() as i32 - part.replicas
}
