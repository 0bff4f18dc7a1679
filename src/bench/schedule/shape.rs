//! The shapes of scheduling that kube-scheduler's own benchmark (`scheduler_perf`) is run with: how many nodes and pods, what the pods
//! ask for, and what else happens meanwhile.
//!
//! Counts and what pods look like are Kubernetes'; so are the thresholds, the pods per second below which its own run fails.
//!
//! You will not find here: anything that is measured.

use serde_json::{Value, json};

/// How many of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// Nodes.
    pub(super) nodes: usize,
    /// Pods of each kind that are there before.
    pub(super) before: usize,
    /// Pods that are measured.
    pub(super) measured: usize,
}

/// What a pod asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Template {
    Plain,
    NodeAffinity,
    Near,
    Apart,
    /// No rule of its own, but the label that pods of [`Template::Apart`] keep away from.
    Matching,
    LikesNear,
    LikesApart,
    Spread,
    LikesSpread,
    Low,
    High,
    /// Of high priority, and too large for any node.
    TooLarge,
}

/// What else happens while pods are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Churn {
    Nothing,
    /// One such pod after the other is created.
    Pods(Template),
    /// A node, a pod that is too large and a service are created and deleted again.
    Mixed,
}

/// A shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Kubernetes' name for it.
    pub(super) name: &'static str,
    /// On 5,000 nodes (or whatever Kubernetes' largest run has).
    large: [usize; 3],
    /// Kubernetes' small run.
    small: [usize; 3],
    /// Pods per second that Kubernetes demands of itself in the large run; 0 for none.
    pub(super) threshold: f64,
    /// The zones that nodes are in.
    zones: &'static [&'static str],
    /// What is there before.
    pub(super) before: &'static [Template],
    pub(super) measured: Template,
    pub(super) churn: Churn,
    /// Rules are about namespaces by their labels, and the pods that are there before are spread over so many of them.
    pub(super) by_label: bool,
}

const PLAIN: Shape = Shape {
    name: "",
    large: [5000, 5000, 5000],
    small: [500, 500, 1000],
    threshold: 0.0,
    zones: &[],
    before: &[Template::Plain],
    measured: Template::Plain,
    churn: Churn::Nothing,
    by_label: false,
};
const ONE_ZONE: &[&str] = &["zone1"];
const THREE_ZONES: &[&str] = &["moon-1", "moon-2", "moon-3"];

/// What shapes have in common whose pods ask for the same.
const NEAR: Shape = Shape { zones: ONE_ZONE, before: &[Template::Near], measured: Template::Near, ..PLAIN };
const APART: Shape = Shape { before: &[Template::Apart], measured: Template::Apart, ..PLAIN };
const LIKES_NEAR: Shape = Shape { before: &[Template::LikesNear], measured: Template::LikesNear, ..PLAIN };
const LIKES_APART: Shape = Shape { before: &[Template::LikesApart], measured: Template::LikesApart, ..PLAIN };
const SPREAD: Shape = Shape { small: [500, 1000, 1000], zones: THREE_ZONES, measured: Template::Spread, ..PLAIN };
const PREEMPTION: Shape = Shape { large: [5000, 20000, 5000], small: [500, 2000, 500], before: &[Template::Low], ..PLAIN };

/// All of them.
pub(super) const SHAPES: &[Shape] = &[
    Shape { name: "SchedulingBasic", large: [5000, 1000, 10000], threshold: 680.0, ..PLAIN },
    Shape { name: "SchedulingBasic50000", large: [5000, 5000, 50000], small: [500, 500, 5000], threshold: 810.0, ..PLAIN },
    Shape {
        name: "SchedulingNodeAffinity",
        large: [5000, 5000, 10000],
        threshold: 220.0,
        zones: ONE_ZONE,
        before: &[Template::NodeAffinity],
        measured: Template::NodeAffinity,
        ..PLAIN
    },
    Shape { name: "SchedulingPodAffinity", threshold: 35.0, ..NEAR },
    Shape { name: "SchedulingPodAntiAffinity", large: [5000, 1000, 2000], small: [500, 100, 400], threshold: 60.0, ..APART },
    Shape {
        name: "SchedulingPodMatchingAntiAffinity",
        large: [5000, 1000, 5000],
        small: [500, 100, 400],
        threshold: 595.0,
        measured: Template::Matching,
        ..APART
    },
    Shape { name: "SchedulingPreferredPodAffinity", threshold: 90.0, ..LIKES_NEAR },
    Shape { name: "SchedulingPreferredPodAntiAffinity", threshold: 90.0, ..LIKES_APART },
    Shape {
        name: "SchedulingRequiredPodAffinityWithNSSelector",
        large: [5000, 5000, 2000],
        small: [500, 40, 100],
        threshold: 35.0,
        by_label: true,
        ..NEAR
    },
    Shape {
        name: "SchedulingRequiredPodAntiAffinityWithNSSelector",
        large: [6000, 4000, 2000],
        small: [500, 40, 100],
        threshold: 24.0,
        by_label: true,
        ..APART
    },
    Shape {
        name: "SchedulingPreferredAffinityWithNSSelector",
        small: [500, 40, 100],
        threshold: 90.0,
        by_label: true,
        ..LIKES_NEAR
    },
    Shape {
        name: "SchedulingPreferredAntiAffinityWithNSSelector",
        large: [5000, 4000, 2000],
        small: [500, 40, 100],
        threshold: 55.0,
        by_label: true,
        ..LIKES_APART
    },
    Shape { name: "TopologySpreading", threshold: 460.0, ..SPREAD },
    Shape { name: "PreferredTopologySpreading", threshold: 340.0, measured: Template::LikesSpread, ..SPREAD },
    Shape {
        name: "MixedSchedulingBasePod",
        large: [5000, 2000, 5000],
        small: [500, 200, 1000],
        threshold: 140.0,
        zones: ONE_ZONE,
        before: &[Template::Plain, Template::Near, Template::Apart, Template::LikesNear, Template::LikesApart],
        ..PLAIN
    },
    // Kubernetes lists the large run and leaves it out; its own largest has 1,000 nodes and no threshold.
    Shape { name: "PreemptionBasic", measured: Template::High, ..PREEMPTION },
    Shape { name: "PreemptionAsync", threshold: 570.0, churn: Churn::Pods(Template::High), ..PREEMPTION },
    Shape {
        name: "Unschedulable",
        large: [5000, 20000, 10000],
        small: [500, 10, 1000],
        threshold: 600.0,
        churn: Churn::Pods(Template::TooLarge),
        ..PLAIN
    },
    Shape {
        name: "SchedulingWithMixedChurn",
        large: [5000, 0, 10000],
        small: [1000, 0, 1000],
        threshold: 710.0,
        churn: Churn::Mixed,
        ..PLAIN
    },
];

/// Where the pods are that are there before, and where those that are measured.
const SETUP: &str = "sched-setup";
pub(super) const TEST: &str = "sched-test";
/// The priority class of [`Template::High`].
pub(super) const CLASS: &str = "bench-high";
pub(super) const PRIORITY: i32 = 10;
/// How many namespaces there are where they are chosen by label.
const NAMESPACES: usize = 100;

impl Shape {
    /// How many of what on so many nodes: Kubernetes' numbers where it has such a run, and otherwise as many for each node as in its
    /// largest.
    pub(super) fn counts(&self, nodes: Option<usize>) -> Counts {
        let of = |[nodes, before, measured]: [usize; 3]| Counts { nodes, before, measured };
        match nodes {
            None => of(self.large),
            Some(n) if n == self.small[0] => of(self.small),
            Some(n) => {
                let share = |count: usize| if count == 0 { 0 } else { (count * n / self.large[0]).max(1) };
                Counts { nodes: n, before: share(self.large[1]), measured: share(self.large[2]) }
            }
        }
    }

    /// The namespaces, with their labels.
    pub(super) fn namespaces(&self) -> Vec<Value> {
        let namespace = |name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        let labels = if self.by_label { json!({"team": "devops"}) } else { json!({}) };
        let mut all = vec![namespace(TEST, labels.clone())];
        if self.by_label {
            all.extend((0..NAMESPACES).map(|n| namespace(&format!("{SETUP}-{n}"), labels.clone())));
        } else {
            all.push(namespace(SETUP, labels));
        }
        all
    }

    /// Where the nth pod is of those that are there before.
    pub(super) fn namespace(&self, n: usize) -> String {
        if self.by_label { format!("{SETUP}-{}", n % NAMESPACES) } else { SETUP.to_owned() }
    }

    /// A node: four processors, 32 GiB, and 110 pods.
    pub(super) fn node(&self, n: usize) -> Value {
        let name = format!("node-{n:05}");
        let mut labels = json!({"kubernetes.io/hostname": name});
        if !self.zones.is_empty() {
            labels["topology.kubernetes.io/zone"] = json!(self.zones[n % self.zones.len()]);
        }
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
    }

    /// What a node says of itself.
    pub(super) fn node_status() -> Value {
        let room = json!({"cpu": "4", "memory": "32Gi", "pods": "110"});
        json!({"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True"}]})
    }

    /// A pod.
    pub(super) fn pod(&self, template: Template, namespace: &str, name: &str) -> Value {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": "pause", "image": "pause", "ports": [{"containerPort": 80}],
                    "resources": {"limits": {"cpu": "100m", "memory": "500Mi"}, "requests": {"cpu": "100m", "memory": "500Mi"}},
                }],
            },
        });
        let term = |colour: &str, topology: &str| {
            let mut term = json!({"labelSelector": {"matchLabels": {"color": colour}}, "topologyKey": topology});
            if self.by_label {
                term["namespaceSelector"] = json!({"matchLabels": {"team": "devops"}});
            } else {
                term["namespaces"] = json!([TEST, SETUP]);
            }
            term
        };
        const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
        const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
        const ZONE: &str = "topology.kubernetes.io/zone";
        const HOST: &str = "kubernetes.io/hostname";
        let wish = |term: Value| json!([{"weight": 1, "podAffinityTerm": term}]);
        let colour = |pod: &mut Value, colour: &str| pod["metadata"]["labels"] = json!({"color": colour});
        let amount = |pod: &mut Value, cpu: &str| {
            pod["spec"]["containers"][0]["resources"] =
                json!({"limits": {"cpu": cpu, "memory": "500Mi"}, "requests": {"cpu": cpu, "memory": "500Mi"}});
        };
        match template {
            Template::Plain => {}
            Template::NodeAffinity => {
                let zones = json!({"key": ZONE, "operator": "In", "values": ["zone1", "zone2"]});
                pod["spec"]["affinity"]["nodeAffinity"][REQUIRED] = json!({"nodeSelectorTerms": [{"matchExpressions": [zones]}]});
            }
            Template::Near => {
                colour(&mut pod, "blue");
                pod["spec"]["affinity"]["podAffinity"][REQUIRED] = json!([term("blue", ZONE)]);
            }
            Template::Apart => {
                colour(&mut pod, "green");
                pod["spec"]["affinity"]["podAntiAffinity"][REQUIRED] = json!([term("green", HOST)]);
            }
            Template::Matching => colour(&mut pod, "green"),
            Template::LikesNear => {
                colour(&mut pod, "red");
                pod["spec"]["affinity"]["podAffinity"][PREFERRED] = wish(term("red", HOST));
            }
            Template::LikesApart => {
                colour(&mut pod, "yellow");
                pod["spec"]["affinity"]["podAntiAffinity"][PREFERRED] = wish(term("yellow", HOST));
            }
            Template::Spread | Template::LikesSpread => {
                colour(&mut pod, "blue");
                let or_else = if template == Template::Spread { "DoNotSchedule" } else { "ScheduleAnyway" };
                pod["spec"]["topologySpreadConstraints"] = json!([{
                    "maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": or_else,
                    "labelSelector": {"matchLabels": {"color": "blue"}},
                }]);
            }
            Template::Low => {
                pod["spec"]["terminationGracePeriodSeconds"] = json!(0);
                amount(&mut pod, "900m");
            }
            Template::High | Template::TooLarge => {
                pod["spec"]["priorityClassName"] = json!(CLASS);
                amount(&mut pod, if template == Template::High { "3" } else { "9" });
            }
        }
        pod
    }
}
