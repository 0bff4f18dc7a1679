//! Whether the house is as it should be once nothing goes wrong any more: the promises about rest (LV1, RB1, AG3).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::Value;

use super::audit::ended;
use super::author::Worth;
use super::gitops::{contents, status};
use super::world::{ANNEX, ROOT, World};
use crate::agent::heart::Heart;
use crate::control::node::LEASES;
use crate::docker::container::Status;
use crate::object::ours::{Application, ApplicationStatus, Phase, Release, SYSTEM_NAMESPACE, Sync, Verdict};
use crate::object::{Key, Object, kind_of};
use crate::store::View;

/// What is still missing; `None` when everything is as it should be.
pub(super) fn unsettled(world: &World) -> Option<String> {
    let Some(server) = &world.server else { return Some("the server is down".to_owned()) };
    let view = server.store.view();
    let status = status(&view);
    if world.auditor.ledger.mistaken() {
        // What cannot run was judged good for want of news: that is for a person, and for the next commit.
        let under_way = status.rollout.as_ref().filter(|r| !r.stuck).map(|r| format!("a rollout of {} is under way", r.release));
        return under_way.or_else(|| hosts(world, &view));
    }
    awaited(&view)
        .or_else(|| application(world, &view, &status))
        .or_else(|| annex(world, &view, &status))
        .or_else(|| objects(&view, &status))
        .or_else(|| workloads(world, &view))
        .or_else(|| hosts(world, &view))
}

/// Whether the house has stopped at a failure.
pub(super) fn stuck(world: &World) -> bool {
    world.server.as_ref().is_some_and(|s| status(&s.store.view()).rollout.is_some_and(|r| r.stuck))
}

/// Nobody is about to do anything: pins and pauses of before the end are withdrawn as soon as there is a server to say it to.
fn awaited(view: &View) -> Option<String> {
    let spec = super::gitops::root(view)?.spec.clone();
    match () {
        () if spec.pin.is_some() => Some(format!("{ROOT} is pinned")),
        () if spec.suspend => Some(format!("{ROOT} is suspended")),
        () => None,
    }
}

/// The Application is where the rule says that it should be.
fn application(world: &World, view: &View, status: &ApplicationStatus) -> Option<String> {
    let (commit, worth, rendered) = world.git.head();
    let wrong = |what: &str| {
        let ApplicationStatus { sync, phase, message, waiting_on, .. } = status;
        Some(format!(
            "head {} is {worth:?}, {what}: {sync:?} {phase:?} {message:?} {waiting_on:?}",
            commit.trim_start_matches('0')
        ))
    };
    if status.observed_commit != commit {
        return wrong("and was not looked at");
    }
    let digest = rendered.map(|r| r.digest).unwrap_or_default();
    let bad = |digest: &str| status.quarantine.iter().any(|q| q.digest == digest);
    let good = |name: &str| {
        let key = Key::of::<Release>(SYSTEM_NAMESPACE, name);
        view.get(&key)
            .and_then(|o| o.typed::<Release>().ok())
            .is_some_and(|r| r.spec.digest == digest && r.status.as_ref().and_then(|s| s.verdict) == Some(Verdict::Good))
    };
    match worth {
        Worth::Invalid if status.sync != Sync::Invalid => wrong("and should be refused"),
        Worth::Good if bad(&digest) => None, // condemned by the deadline while hosts were away; the auditor allowed it
        // A prune beyond the budget waits for a person's consent, and until then the cluster is not what git says.
        Worth::Good if status.phase != Phase::Healthy => wrong("and should be served"),
        Worth::Good if status.sync != Sync::Synced && status.blocked_prune.is_empty() => wrong("and should be served"),
        Worth::Good if !good(&status.last_good) => wrong("and should be the last good release"),
        Worth::Bad if !bad(&digest) => wrong("and should be in quarantine"),
        Worth::Bad if status.last_good.is_empty() => None,
        Worth::Bad if !matches!(status.phase, Phase::RolledBack | Phase::Stuck) => wrong("and the house should have gone back"),
        _ if status.rollout.as_ref().is_some_and(|r| !r.stuck) => wrong("and a rollout is under way"),
        _ => None,
    }
}

/// What waits for the first Application follows it when that is well.
fn annex(world: &World, view: &View, first: &ApplicationStatus) -> Option<String> {
    let key = Key::of::<Application>(SYSTEM_NAMESPACE, ANNEX);
    let status = view.get(&key)?.typed::<Application>().ok()?.status.clone().unwrap_or_default();
    let digest = world.git.annex()?.digest;
    let well = (first.sync, first.phase) == (Sync::Synced, Phase::Healthy);
    let bad = status.quarantine.iter().any(|q| q.digest == digest);
    let under_way = status.rollout.as_ref().is_some_and(|r| !r.stuck);
    let there = (status.sync, status.phase) == (Sync::Synced, Phase::Healthy);
    let ApplicationStatus { sync, phase, message, waiting_on, .. } = status;
    // What had begun when the first one was well goes on, whatever has become of that one.
    if under_way {
        return Some(format!("{ANNEX} is on its way: {sync:?} {phase:?} {message:?} {waiting_on:?}"));
    }
    if !well || bad || there {
        return None;
    }
    Some(format!("{ROOT} is well, and {ANNEX} does not follow: {sync:?} {phase:?} {message:?} {waiting_on:?}"))
}

/// RB1: what there is, is what the target release says; and nothing else is managed.
fn objects(view: &View, status: &ApplicationStatus) -> Option<String> {
    if status.rollout.as_ref().is_some_and(|r| r.stuck) || status.target.is_empty() {
        return None;
    }
    let wanted = contents(view, &status.target)?;
    if let Some(what) = differs(view, &wanted) {
        return Some(format!("RB1: {what}"));
    }
    let empty = wanted.is_empty();
    let left = status.inventory.items().find(|item| {
        !wanted
            .keys()
            .any(|k| (k.kind.kind, &*k.namespace, &*k.name) == (item.kind.as_str(), item.namespace.as_str(), item.name.as_str()))
    });
    match left {
        Some(item) if !empty && status.blocked_prune.is_empty() => {
            Some(format!("RB1: {} {} is still managed", item.kind, item.name))
        }
        _ => None,
    }
}

/// What of a release's objects is not there, or not as it says.
pub(super) fn differs(view: &View, wanted: &BTreeMap<Key, Value>) -> Option<String> {
    for (key, value) in wanted {
        let Some(live) = view.get(key) else { return Some(format!("{key} is missing")) };
        let live = live.value();
        for (field, wanted) in value.as_object().into_iter().flatten() {
            if !matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "status") && !covers(&live[field], wanted) {
                return Some(format!("{key} has {field} {} and should have {wanted}", live[field]));
            }
        }
    }
    None
}

/// Whether everything wanted is there.
fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(k, w)| live.get(k).is_some_and(|l| covers(l, w))),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(l, w)| covers(l, w))
        }
        (live, wanted) => live == wanted,
    }
}

/// Every Deployment has the pods that it wants, really.
fn workloads(world: &World, view: &View) -> Option<String> {
    let stuck = status(view).rollout.as_ref().is_some_and(|r| r.stuck);
    for object in view.list(kind_of::<Deployment>()) {
        let Ok(deployment) = object.typed::<Deployment>() else { continue };
        let wanted = deployment.spec.replicas.unwrap_or(1) as usize;
        let sets: Vec<_> = view.owned_by(&object.meta.uid).filter(|o| o.key.kind == kind_of::<ReplicaSet>()).collect();
        let pods: Vec<&std::sync::Arc<Object>> = sets
            .iter()
            .flat_map(|s| view.owned_by(&s.meta.uid))
            .filter(|o| o.key.kind == kind_of::<Pod>() && o.typed::<Pod>().is_ok_and(|p| !ended(&p)))
            // A pod on a host that is lost for ever waits for somebody to say so; its replacement does not.
            .filter(|o| !(o.meta.deleting() && on_lost_host(world, o)))
            .collect();
        let status = deployment.status.clone().unwrap_or_default();
        if stuck {
            continue;
        }
        if status.observed_generation != deployment.metadata.generation {
            return Some(format!("{} was not looked at in its newest generation", object.key));
        }
        let running = pods.iter().filter(|p| really_runs(world, p)).count();
        if pods.len() != wanted || running != wanted {
            let all: Vec<String> = pods
                .iter()
                .map(|p| {
                    let node = p.field("spec.nodeName");
                    format!("{}{} on {node}", p.key.name, if p.meta.deleting() { " (leaving)" } else { "" })
                })
                .collect();
            return Some(format!("{} wants {wanted} pods, {running} of these run: {}", object.key, all.join(", ")));
        }
        if status.ready_replicas.unwrap_or(0) as usize != wanted || status.available_replicas.unwrap_or(0) as usize != wanted {
            return Some(format!("{} says {:?} of {wanted} pods are ready", object.key, status.ready_replicas));
        }
    }
    None
}

fn on_lost_host(world: &World, pod: &Object) -> bool {
    let node = pod.field("spec.nodeName");
    world.hosts.iter().any(|h| h.lost && h.name == node)
}

/// Whether a pod's containers run on the machine that it is bound to.
fn really_runs(world: &World, pod: &Object) -> bool {
    let node = pod.field("spec.nodeName");
    let Some(host) = world.hosts.iter().find(|h| h.name == node) else { return false };
    let running: BTreeSet<&str> = host
        .managed()
        .filter(|(uid, _, c)| *uid == pod.meta.uid && c.status == Status::Running)
        .map(|(_, name, _)| name)
        .collect();
    running.contains("main")
}

/// AG3: nothing is on a host that does not belong to a pod bound to it; and every host that is there says so.
fn hosts(world: &World, view: &View) -> Option<String> {
    for host in world.hosts.iter().filter(|h| h.lost) {
        let node = view.get(&Key::of::<Node>("", &host.name)).and_then(|o| o.typed::<Node>().ok());
        let conditions = node.iter().flat_map(|n| &n.status).flat_map(|s| s.conditions.iter().flatten());
        if conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True") {
            return Some(format!("{} is lost, and nobody has noticed", host.name));
        }
        let staying = view
            .by_field(kind_of::<Pod>(), "spec.nodeName", &host.name)
            .find(|o| !o.meta.deleting() && o.typed::<Pod>().is_ok_and(|p| !ended(&p)));
        if let Some(pod) = staying {
            return Some(format!("{} on {}, which is lost, is not replaced", pod.key, host.name));
        }
    }
    for host in world.hosts.iter().filter(|h| !h.lost) {
        let bound: BTreeSet<&str> =
            view.by_field(kind_of::<Pod>(), "spec.nodeName", &host.name).map(|o| o.meta.uid.as_str()).collect();
        if let Some((uid, name, container)) = host.managed().find(|(uid, _, _)| !bound.contains(uid)) {
            return Some(format!("AG3: {} still has {} ({name} of pod {uid})", host.name, container.name));
        }
        if let Some(uid) = host.volumes.iter().find(|uid| !bound.contains(uid.as_str())) {
            return Some(format!("AG3: {} still has the volumes of pod {uid}", host.name));
        }
        // A host that was cut off until the faults ended is at rest when it has been heard of: until then its lease may still run out.
        let lease = view.get(&Key::of::<Lease>(LEASES, &host.name)).and_then(|o| o.typed::<Lease>().ok());
        let heard = lease.and_then(|lease| Some(lease.spec.as_ref()?.renew_time.as_ref()?.0));
        if world.healed.is_some_and(|healed| heard.is_none_or(|heard| heard < healed)) {
            return Some(format!("{} has not been heard of since the faults ended", host.name));
        }
        let ready = view.get(&Key::of::<Node>("", &host.name)).and_then(|o| o.typed::<Node>().ok()).is_some_and(|n| {
            let conditions = n.status.iter().flat_map(|s| s.conditions.iter().flatten());
            let tainted = n.spec.iter().flat_map(|s| s.taints.iter().flatten()).next().is_some();
            conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True") && !tainted
        });
        if !ready {
            return Some(format!("{} is up and not ready", host.name));
        }
        let unreported = host.heart.as_ref().and_then(Heart::unreported);
        if let Some(uid) = unreported {
            return Some(format!("{} has not said what became of pod {uid}", host.name));
        }
        let leaving = view.by_field(kind_of::<Pod>(), "spec.nodeName", &host.name).find(|o| o.meta.deleting());
        if let Some(pod) = leaving {
            return Some(format!("{} on {} does not leave", pod.key, host.name));
        }
    }
    None
}
