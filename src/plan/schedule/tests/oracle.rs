//! A second opinion, slow and simple: what the incremental scheduler decides must be allowed, and the best, when everything is looked at
//! anew.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;

use super::super::{Cluster, Decision, Resort, Scheduler, Strategy as Policy, awaits_node};
use super::read;

fn node_line() -> impl Strategy<Value = String> {
    (1..5u32, 1..5u32, 0..3u8, 0..8u8).prop_map(|(cpu, mem, zone, odd)| {
        let zone = ["", "label zone=x", "label zone=y"][usize::from(zone)];
        let odd = match odd {
            0 => "taint k=v:NoSchedule",
            1 => "cordoned",
            2 => "notready",
            3 => "taint k=v:PreferNoSchedule",
            4 => "pods 2",
            _ => "",
        };
        format!("cpu {cpu} mem {mem}Gi {zone} {odd}")
    })
}

fn pod_line() -> impl Strategy<Value = String> {
    let amount = prop_oneof![Just(""), Just("cpu 500m"), Just("cpu 1 mem 1Gi"), Just("mem 2Gi")];
    let app = prop_oneof![Just("label app=a owner a"), Just("label app=b owner b")];
    let rule = prop_oneof![
        5 => Just(""),
        1 => Just("select zone=x"),
        1 => Just("tolerate k"),
        1 => Just("port 80"),
        1 => Just("apart app=a@host"),
        1 => Just("near app=b@zone"),
        1 => Just("spread app=a@zone"),
        1 => Just("evenly app=a@zone"),
        1 => Just("prefer zone=y"),
        1 => Just("likes app=b@zone"),
    ];
    let priority = prop_oneof![4 => Just(""), 2 => Just("priority 5"), 1 => Just("priority 9")];
    (amount, app, rule, priority).prop_map(|(amount, app, rule, priority)| format!("{amount} {app} {rule} {priority}"))
}

/// Something that happens to the picture.
#[derive(Clone, Debug)]
enum Act {
    Pod(String),
    Gone(usize),
    Node(usize, String),
    NodeGone(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        10 => pod_line().prop_map(Act::Pod),
        3 => (0..20usize).prop_map(Act::Gone),
        2 => (0..4usize, node_line()).prop_map(|(n, line)| Act::Node(n, line)),
        1 => (0..4usize).prop_map(Act::NodeGone),
    ]
}

/// Whether the pod may be on the node, looking at everything. Only what the pictures above can say.
fn allowed(pod: &Pod, node: &Node, nodes: &BTreeMap<String, Node>, pods: &[Pod]) -> bool {
    let spec = pod.spec.as_ref().unwrap();
    let labels = |o: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| o.labels.clone().unwrap_or_default();
    let name = node.metadata.name.clone().unwrap();
    let tolerates = spec.tolerations.iter().flatten().any(|t| t.key.as_deref() == Some("k"));
    let node_spec = node.spec.clone().unwrap_or_default();
    let ready = node.status.as_ref().unwrap().conditions.as_ref().unwrap()[0].status == "True";
    if !ready || node_spec.unschedulable == Some(true) {
        return false;
    }
    if node_spec.taints.iter().flatten().any(|t| t.effect == "NoSchedule") && !tolerates {
        return false;
    }
    if spec.node_selector.iter().flatten().any(|(k, v)| labels(&node.metadata).get(k) != Some(v)) {
        return false;
    }
    let here: Vec<&Pod> = pods.iter().filter(|p| p.spec.as_ref().unwrap().node_name.as_ref() == Some(&name)).collect();
    let amount = |p: &Pod, what: &str| super::super::requests(p.spec.as_ref().unwrap()).get(what);
    let all = super::super::Resources::of(node.status.as_ref().unwrap().allocatable.as_ref().unwrap());
    for what in ["cpu", "memory"] {
        let used: i64 = here.iter().map(|p| amount(p, what)).sum();
        if amount(pod, what) > 0 && used + amount(pod, what) > all.get(what) {
            return false;
        }
    }
    if all.get("pods") > 0 && here.len() as i64 >= all.get("pods") {
        return false;
    }
    let port = |p: &Pod| p.spec.as_ref().unwrap().containers[0].ports.is_some();
    if port(pod) && here.iter().any(|p| port(p)) {
        return false;
    }
    // Terms are about one label, of pods in the same domain of one node label.
    let matching = |term: &k8s_openapi::api::core::v1::PodAffinityTerm, p: &Pod| {
        let wanted = term.label_selector.as_ref().unwrap().match_labels.clone().unwrap();
        wanted.iter().all(|(k, v)| labels(&p.metadata).get(k) == Some(v))
    };
    let domain = |of: &Pod, key: &str| {
        let node = nodes.get(of.spec.as_ref().unwrap().node_name.as_ref()?)?;
        labels(&node.metadata).get(key).cloned()
    };
    let own_domain = |key: &str| labels(&node.metadata).get(key).cloned();
    let affinity = spec.affinity.clone().unwrap_or_default();
    for term in
        affinity.pod_anti_affinity.iter().flat_map(|a| a.required_during_scheduling_ignored_during_execution.iter().flatten())
    {
        let own = own_domain(&term.topology_key);
        if own.is_some() && pods.iter().any(|p| matching(term, p) && domain(p, &term.topology_key) == own) {
            return false;
        }
    }
    for other in pods {
        let affinity = other.spec.as_ref().unwrap().affinity.clone().unwrap_or_default();
        let terms = affinity
            .pod_anti_affinity
            .iter()
            .flat_map(|a| a.required_during_scheduling_ignored_during_execution.iter().flatten());
        for term in terms {
            let own = own_domain(&term.topology_key);
            if own.is_some() && matching(term, pod) && domain(other, &term.topology_key) == own {
                return false;
            }
        }
    }
    for term in affinity.pod_affinity.iter().flat_map(|a| a.required_during_scheduling_ignored_during_execution.iter().flatten())
    {
        let Some(own) = own_domain(&term.topology_key) else { return false };
        let company: Vec<&Pod> = pods.iter().filter(|p| matching(term, p) && domain(p, &term.topology_key).is_some()).collect();
        let first = company.is_empty() && matching(term, pod);
        if !first && !company.iter().any(|p| domain(p, &term.topology_key).as_ref() == Some(&own)) {
            return false;
        }
    }
    for constraint in spec.topology_spread_constraints.iter().flatten().filter(|c| c.when_unsatisfiable == "DoNotSchedule") {
        let Some(own) = own_domain(&constraint.topology_key) else { return false };
        let wanted = constraint.label_selector.as_ref().unwrap().match_labels.clone().unwrap();
        let counts = |p: &Pod| wanted.iter().all(|(k, v)| labels(&p.metadata).get(k) == Some(v));
        let count = |value: &String| {
            pods.iter().filter(|p| counts(p) && domain(p, &constraint.topology_key).as_ref() == Some(value)).count() as i64
        };
        let eligible =
            nodes.values().filter(|n| spec.node_selector.iter().flatten().all(|(k, v)| labels(&n.metadata).get(k) == Some(v)));
        let fewest = eligible.filter_map(|n| labels(&n.metadata).get(&constraint.topology_key).cloned()).map(|d| count(&d)).min();
        if count(&own) + i64::from(counts(pod)) - fewest.unwrap_or(0) > i64::from(constraint.max_skew) {
            return false;
        }
    }
    true
}

/// Who has to go is less important, makes room by going, and cannot stay; and where nobody has to go, that would not help.
fn makes_room(pod: &Pod, room: &Resort, world: &BTreeMap<String, Node>, placed: &[Pod]) {
    let priority = |p: &Pod| p.spec.as_ref().unwrap().priority.unwrap_or(0);
    let is_on = |p: &Pod, node: &str| p.spec.as_ref().unwrap().node_name.as_deref() == Some(node);
    let without = |gone: &dyn Fn(&Pod) -> bool| -> Vec<Pod> { placed.iter().filter(|p| !gone(p)).cloned().collect() };
    match room {
        Resort::Preempt(room) => {
            assert!(!room.victims.is_empty());
            let named = |p: &Pod| room.victims.iter().any(|v| p.metadata.name.as_ref() == Some(&v.1));
            assert!(placed.iter().filter(|p| named(p)).all(|p| priority(p) < priority(pod) && is_on(p, &room.node)));
            let rest = without(&named);
            assert!(allowed(pod, &world[&*room.node], world, &rest), "{room:?} is not enough");
            for victim in placed.iter().filter(|p| named(p)) {
                let mut one_more = rest.clone();
                one_more.push(victim.clone());
                assert!(!allowed(pod, &world[&*room.node], world, &one_more), "{:?} could stay", victim.metadata.name);
            }
        }
        Resort::Nothing => {
            for (name, node) in world {
                let lower = |p: &Pod| is_on(p, name) && priority(p) < priority(pod);
                let helps = placed.iter().any(lower) && allowed(pod, node, world, &without(&lower));
                assert!(!helps, "room could be made on {name}");
            }
        }
        Resort::Expect => panic!("nobody is on the way out"),
    }
}

fn play(policy: Policy, nodes: Vec<String>, acts: Vec<Act>) {
    let mut world: BTreeMap<String, Node> = BTreeMap::new();
    let mut cluster = Cluster::new();
    for (i, line) in nodes.iter().enumerate() {
        let node = read(&format!("node n{i} {line}")).0.remove(0);
        cluster.set_node(&node);
        world.insert(format!("n{i}"), node);
    }
    let mut scheduler = Scheduler::new(policy, 3);
    let mut placed: Vec<Pod> = Vec::new();
    for (number, act) in acts.into_iter().enumerate() {
        match act {
            Act::Pod(line) => {
                let mut pod = read(&format!("pod p{number} {line}")).1.remove(0);
                assert!(awaits_node(&pod));
                let may: Vec<&String> = world.iter().filter(|(_, n)| allowed(&pod, n, &world, &placed)).map(|(n, _)| n).collect();
                // Everything anew.
                let mut fresh = Cluster::new();
                world.values().for_each(|n| fresh.set_node(n));
                placed.iter().for_each(|p| fresh.set_pod(p));
                fresh.last = cluster.last.clone();
                let anew = Scheduler::new(policy, 3).decide(&mut fresh, &pod);
                let decision = scheduler.decide(&mut cluster, &pod);
                assert_eq!(decision, anew, "{pod:?}");
                match decision {
                    Decision::Place(node) => {
                        assert!(may.contains(&&node.to_string()), "{node} is not one of {may:?}");
                        pod.spec.as_mut().unwrap().node_name = Some(node.to_string());
                        placed.push(pod);
                    }
                    Decision::Wait(why) => {
                        assert!(may.is_empty(), "{why}, but {may:?} would do");
                        let class = Scheduler::class(&pod);
                        let room = scheduler.resort(&class, &mut cluster, &pod, &[]);
                        let anew = Scheduler::new(policy, 3).resort(&class, &mut fresh, &pod, &[]);
                        assert_eq!(room, anew, "{pod:?}");
                        makes_room(&pod, &room, &world, &placed);
                        let Resort::Preempt(room) = room else { continue };
                        for victim in &room.victims {
                            cluster.remove_pod(victim);
                            placed.retain(|p| p.metadata.name.as_ref() != Some(&victim.1));
                        }
                        assert_eq!(scheduler.decide(&mut cluster, &pod), Decision::Place(room.node.clone()));
                        pod.spec.as_mut().unwrap().node_name = Some(room.node.to_string());
                        placed.push(pod);
                    }
                }
            }
            Act::Gone(which) if !placed.is_empty() => {
                let pod = placed.remove(which % placed.len());
                cluster.remove_pod(&("d".to_owned(), pod.metadata.name.unwrap()));
            }
            Act::Gone(_) => {}
            Act::Node(n, line) => {
                let node = read(&format!("node n{n} {line}")).0.remove(0);
                cluster.set_node(&node);
                world.insert(format!("n{n}"), node);
            }
            Act::NodeGone(n) => {
                cluster.remove_node(&format!("n{n}"));
                world.remove(&format!("n{n}"));
            }
        }
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn sc2_sc3_the_oracle_agrees(
        policy in prop_oneof![Just(Policy::Spread), Just(Policy::Binpack), Just(Policy::Random), Just(Policy::RoundRobin)],
        nodes in proptest::collection::vec(node_line(), 0..5), acts in proptest::collection::vec(act(), 1..40),
    ) {
        play(policy, nodes, acts);
    }
}

/// The oracle is worth something: it notices a scheduler that counts no requests.
#[test]
fn sc2_a_scheduler_that_counts_nothing_is_found() {
    use crate::mutant::{Mutant, planted};
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let given = (proptest::collection::vec(node_line(), 1..3), proptest::collection::vec(act(), 20..40));
    let found = (0..50).any(|_| {
        let (nodes, acts) = given.new_tree(&mut runner).unwrap().current();
        let run = || play(Policy::Spread, nodes, acts);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| planted(Some(Mutant::BindWithoutCapacity), run))).is_err()
    });
    assert!(found);
}
