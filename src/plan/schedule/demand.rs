//! What a pod asks of a node, read from its spec once per class of like pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Container, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodAffinityTerm, PodSpec, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Typed;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as TypedSelector, LabelSelectorRequirement};

use super::cluster::Facts;
use crate::object::quantity::Quantity;
use crate::object::selector::LabelSelector;

/// Amounts of what a node has and pods ask for. Processors in thousandths, everything else in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(BTreeMap<String, i64>);

impl Resources {
    /// The amounts of a typed list.
    pub fn of(list: &BTreeMap<String, Typed>) -> Self {
        let amount = |name: &str, q: Quantity| if name == "cpu" { q.milli() } else { q.whole() };
        Resources(list.iter().map(|(name, q)| (name.clone(), amount(name, Quantity::from_k8s(q)))).collect())
    }
    /// The amount of one resource; nothing when it is not listed.
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }
    /// Each resource and its amount, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }
    /// Sets one amount.
    pub fn set(&mut self, name: &str, amount: i64) {
        self.0.insert(name.to_owned(), amount);
    }
    pub(super) fn add(&mut self, other: &Resources, sign: i64) {
        for (name, amount) in &other.0 {
            let here = self.0.entry(name.clone()).or_default();
            *here = here.saturating_add(amount.saturating_mul(sign));
        }
    }
    fn max(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            let here = self.0.entry(name.clone()).or_default();
            *here = (*here).max(*amount);
        }
    }
}

/// What a pod requests of its node: its containers together, or what starting it needs at some moment, whichever is more.
pub fn requests(spec: &PodSpec) -> Resources {
    let of =
        |c: &Container| c.resources.as_ref().and_then(|r| r.requests.as_ref()).map_or_else(Resources::default, Resources::of);
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container), 1);
    }
    // An init container with `restartPolicy: Always` keeps running beside everything that starts after it.
    let mut beside = Resources::default();
    let mut starting = Resources::default();
    for init in spec.init_containers.iter().flatten() {
        let mut moment = of(init);
        moment.add(&beside, 1);
        starting.max(&moment);
        if init.restart_policy.as_deref() == Some("Always") {
            beside.add(&of(init), 1);
        }
    }
    running.add(&beside, 1);
    running.max(&starting);
    if let Some(overhead) = &spec.overhead {
        running.add(&Resources::of(overhead), 1);
    }
    running
}

/// A port of the host: protocol, number, and the address it is bound to (`0.0.0.0`: all).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostPort {
    pub(super) protocol: String,
    pub(super) port: i32,
    pub(super) address: String,
}

impl HostPort {
    pub(super) fn clashes(&self, other: &HostPort) -> bool {
        const ANY: &str = "0.0.0.0";
        (&self.protocol, self.port) == (&other.protocol, other.port)
            && (self.address == other.address || self.address == ANY || other.address == ANY)
    }
}

pub(super) fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let host = spec.host_network == Some(true);
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let port = p.host_port.or(host.then_some(p.container_port)).filter(|port| *port > 0)?;
            Some(HostPort {
                protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port,
                address: p.host_ip.clone().filter(|a| !a.is_empty() && a != "::").unwrap_or_else(|| "0.0.0.0".to_owned()),
            })
        })
        .collect()
}

/// The labels of something.
pub(super) type Labels = BTreeMap<String, String>;

/// A rule about other pods, with its topology: which pods, in which namespaces, counted per value of which node label.
#[derive(Clone, Debug)]
pub(super) struct Term {
    /// Tells equal terms, so that they are counted once.
    pub(super) id: String,
    namespaces: Namespaces,
    pub(super) selector: LabelSelector,
    pub(super) topology: String,
    /// Whether pods on their way out count too: they do for affinity, and not for spreading.
    pub(super) leaving_count: bool,
    /// Only pods on nodes like these count; with `None` on all.
    pub(super) on: Option<Arc<Inclusion>>,
}

/// In which namespaces a rule looks.
#[derive(Clone, Debug)]
enum Namespaces {
    All,
    /// Those with a name, and those with labels.
    Some(Vec<String>, Option<LabelSelector>),
}

impl Term {
    /// `selector`: none selects nothing, an empty one everything.
    fn new(namespaces: Namespaces, selector: Option<&TypedSelector>, topology: &str, on: Option<Arc<Inclusion>>) -> Term {
        let text = serde_json::to_string(&selector).unwrap_or_default();
        let filter = on.as_ref().map(|on| on.id.as_str()).unwrap_or_default();
        let id = format!("{topology} {filter} {namespaces:?} {text}");
        // A selector that nobody can read selects nothing either; admission refuses it.
        let selector = selector.and_then(|s| LabelSelector::of(s).ok()).unwrap_or_else(LabelSelector::nothing);
        Term { id, namespaces, selector, topology: topology.to_owned(), leaving_count: true, on }
    }

    fn of(term: &PodAffinityTerm, namespace: &str, labels: &Labels) -> Term {
        let mut names = term.namespaces.clone().unwrap_or_default();
        names.sort_unstable();
        let namespaces = match &term.namespace_selector {
            None if names.is_empty() => Namespaces::Some(vec![namespace.to_owned()], None),
            None => Namespaces::Some(names, None),
            Some(selector) => match LabelSelector::of(selector) {
                Ok(selector) if selector.is_everything() => Namespaces::All,
                selector => Namespaces::Some(names, Some(selector.unwrap_or_else(|_| LabelSelector::nothing()))),
            },
        };
        let selector =
            narrowed(term.label_selector.as_ref(), term.match_label_keys.as_deref(), term.mismatch_label_keys.as_deref(), labels);
        Term::new(namespaces, selector.as_ref(), &term.topology_key, None)
    }

    /// For spreading: pods on their way out do not count.
    fn of_spread(spread: &TopologySpreadConstraint, namespace: &str, labels: &Labels, on: Option<Arc<Inclusion>>) -> Term {
        let selector = narrowed(spread.label_selector.as_ref(), spread.match_label_keys.as_deref(), None, labels);
        let namespaces = Namespaces::Some(vec![namespace.to_owned()], None);
        let term = Term::new(namespaces, selector.as_ref(), &spread.topology_key, on);
        Term { id: format!("spread {}", term.id), leaving_count: false, ..term }
    }

    /// Whether a pod is one of those that the rule is about.
    pub(super) fn about(&self, namespace: &str, of_namespace: &Labels, labels: &Labels) -> bool {
        let there = match &self.namespaces {
            Namespaces::All => true,
            Namespaces::Some(names, labelled) => {
                names.iter().any(|n| n == namespace) || labelled.as_ref().is_some_and(|s| s.matches_labels(of_namespace))
            }
        };
        there && self.selector.matches_labels(labels)
    }

    /// Whether the labels of namespaces matter.
    pub(super) fn by_label(&self) -> bool {
        matches!(self.namespaces, Namespaces::Some(_, Some(_)))
    }
}

/// Which nodes count for spreading: those that the pod could go to by its node selector and affinity (`nodeAffinityPolicy`), and by its
/// tolerations (`nodeTaintsPolicy`).
#[derive(Clone, Debug, Default)]
pub(super) struct Inclusion {
    id: String,
    selector: Labels,
    required: Option<Vec<NodeSelectorTerm>>,
    /// With `None` taints do not matter.
    pub(super) tolerations: Option<Vec<Toleration>>,
}

impl Inclusion {
    fn of(spread: &TopologySpreadConstraint, spec: &PodSpec, required: Option<&Vec<NodeSelectorTerm>>) -> Option<Arc<Inclusion>> {
        let honours = |policy: &Option<String>, unsaid: bool| policy.as_deref().map_or(unsaid, |p| p == "Honor");
        let mut inclusion = Inclusion::default();
        if honours(&spread.node_affinity_policy, true) {
            inclusion.selector = spec.node_selector.clone().unwrap_or_default();
            inclusion.required = required.cloned();
        }
        if honours(&spread.node_taints_policy, false) {
            inclusion.tolerations = Some(spec.tolerations.clone().unwrap_or_default());
        }
        if inclusion.selector.is_empty() && inclusion.required.is_none() && inclusion.tolerations.is_none() {
            return None;
        }
        let parts = (&inclusion.selector, &inclusion.required, &inclusion.tolerations);
        inclusion.id = serde_json::to_string(&parts).unwrap_or_default();
        Some(Arc::new(inclusion))
    }

    /// Whether a node counts.
    pub(super) fn admits(&self, name: &str, facts: &Facts) -> bool {
        suited(&self.selector, self.required.as_ref(), name, &facts.labels)
            && self.tolerations.as_ref().is_none_or(|tolerations| !super::filter::barred(tolerations, facts))
    }
}

/// Whether a node has the labels that are demanded.
pub(super) fn suited(selector: &Labels, required: Option<&Vec<NodeSelectorTerm>>, name: &str, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        && required.is_none_or(|terms| terms.iter().any(|t| term_holds(t, name, labels)))
}

/// `matchLabelKeys`: the pod's own values of these labels are required as well; `mismatchLabelKeys`: they are ruled out.
fn narrowed(
    selector: Option<&TypedSelector>,
    keys: Option<&[String]>,
    not: Option<&[String]>,
    labels: &Labels,
) -> Option<TypedSelector> {
    let mut selector = selector?.clone();
    for key in keys.unwrap_or_default() {
        if let Some(value) = labels.get(key) {
            selector.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
        }
    }
    for key in not.unwrap_or_default() {
        if let Some(value) = labels.get(key) {
            selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: "NotIn".to_owned(),
                values: Some(vec![value.clone()]),
            });
        }
    }
    Some(selector)
}

/// `topologySpreadConstraints`.
#[derive(Clone, Debug)]
pub(super) struct Spread {
    pub(super) term: Term,
    pub(super) max_skew: i64,
    pub(super) min_domains: usize,
    /// `DoNotSchedule`; otherwise it is a wish.
    pub(super) hard: bool,
}

/// Everything that decides where a pod may go and where it would like to go. Pods with the same text form are one class.
#[derive(Clone, Debug, Default)]
pub(super) struct Demand {
    pub(super) namespace: String,
    pub(super) labels: BTreeMap<String, String>,
    /// Whom the pod belongs to: its controller's uid. Pods of one owner are spread.
    pub(super) owner: String,
    pub(super) requests: Resources,
    pub(super) ports: Vec<HostPort>,
    pub(super) node_name: Option<String>,
    pub(super) node_selector: BTreeMap<String, String>,
    /// Any one of these must hold. `None`: anything goes.
    pub(super) required: Option<Vec<NodeSelectorTerm>>,
    pub(super) preferred: Vec<(i64, NodeSelectorTerm)>,
    pub(super) tolerations: Vec<Toleration>,
    pub(super) near: Vec<Term>,
    pub(super) apart: Vec<Term>,
    pub(super) near_preferred: Vec<(i64, Term)>,
    pub(super) spread: Vec<Spread>,
    pub(super) priority: i32,
    /// Whether pods of lower priority may have to go for it.
    pub(super) preempts: bool,
}

/// The class that a pod is of.
pub(super) fn class_of(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let owner = owner_of(pod);
    let ports: Vec<_> = spec.map(host_ports).unwrap_or_default();
    let parts = serde_json::json!([
        pod.metadata.namespace,
        owner,
        pod.metadata.labels,
        spec.map(|s| requests(s).0),
        spec.map(|s| (&s.node_name, &s.node_selector, &s.affinity, &s.tolerations, &s.topology_spread_constraints)),
        spec.map(|s| (s.priority, &s.preemption_policy)),
        ports.iter().map(|p| (&p.protocol, p.port, &p.address)).collect::<Vec<_>>(),
    ]);
    parts.to_string()
}

pub(super) fn owner_of(pod: &Pod) -> &str {
    pod.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true)).map_or("", |o| o.uid.as_str())
}

impl Demand {
    pub(super) fn of(pod: &Pod) -> Demand {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let owner = owner_of(pod).to_owned();
        let Some(spec) = &pod.spec else { return Demand { namespace, labels, owner, ..Demand::default() } };
        let affinity = spec.affinity.clone().unwrap_or_default();
        let node = affinity.node_affinity.unwrap_or_default();
        let (near, apart) = (affinity.pod_affinity.unwrap_or_default(), affinity.pod_anti_affinity.unwrap_or_default());
        let term = |t: &PodAffinityTerm| Term::of(t, &namespace, &labels);
        let weighted = |sign: i64, list: Option<Vec<k8s_openapi::api::core::v1::WeightedPodAffinityTerm>>| {
            let each =
                move |t: k8s_openapi::api::core::v1::WeightedPodAffinityTerm| (sign * i64::from(t.weight), t.pod_affinity_term);
            list.into_iter().flatten().map(each).collect::<Vec<_>>()
        };
        let mut wishes = weighted(1, near.preferred_during_scheduling_ignored_during_execution);
        wishes.extend(weighted(-1, apart.preferred_during_scheduling_ignored_during_execution));
        let required = node.required_during_scheduling_ignored_during_execution.map(|r| r.node_selector_terms);
        let spread = spec.topology_spread_constraints.iter().flatten().map(|c| Spread {
            term: Term::of_spread(c, &namespace, &labels, Inclusion::of(c, spec, required.as_ref())),
            max_skew: c.max_skew.into(),
            min_domains: c.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            hard: c.when_unsatisfiable != "ScheduleAnyway",
        });
        let spread: Vec<Spread> = spread.collect();
        Demand {
            owner,
            requests: requests(spec),
            ports: host_ports(spec),
            node_name: spec.node_name.clone().filter(|n| !n.is_empty()),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            required,
            preferred: node
                .preferred_during_scheduling_ignored_during_execution
                .into_iter()
                .flatten()
                .map(|p| (i64::from(p.weight), p.preference))
                .collect(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            near: near.required_during_scheduling_ignored_during_execution.iter().flatten().map(term).collect(),
            apart: apart.required_during_scheduling_ignored_during_execution.iter().flatten().map(term).collect(),
            near_preferred: wishes.iter().map(|(weight, t)| (*weight, term(t))).collect(),
            spread,
            priority: spec.priority.unwrap_or(0),
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            namespace: namespace.clone(),
            labels: labels.clone(),
        }
    }
}

/// Whether a node satisfies a term of a node selector. An empty term satisfies nothing.
pub(super) fn term_holds(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let value = |r: &NodeSelectorRequirement| labels.get(&r.key).map(String::as_str);
    let field = |r: &NodeSelectorRequirement| (r.key == "metadata.name").then_some(name);
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|r| requirement_holds(r, value(r)))
        && fields.iter().all(|r| requirement_holds(r, field(r)))
}

fn requirement_holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|v| values.iter().any(|w| w == v));
    let compare =
        |than: fn(i64, i64) -> bool| match (value.and_then(|v| v.parse().ok()), values.first().and_then(|v| v.parse().ok())) {
            (Some(is), Some(bound)) => than(is, bound),
            _ => false,
        };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|is, bound| is > bound),
        "Lt" => compare(|is, bound| is < bound),
        _ => false,
    }
}
