//! What git no longer has: which of it goes, which of it stays, and why.
//!
//! Only what the inventory names by uid is ever deleted, never what merely carries a label or a name.

use std::collections::BTreeSet;

use super::{Input, Kept, Name, Order, Prune, SyncPlan, Why, rank};
use crate::mutant::{self, Mutant};
use crate::object::ours::{OWNER_ANNOTATION, PRUNE_ANNOTATION, WAVE_ANNOTATION};
use crate::object::{KINDS, Key};

/// The share of an Application's objects, in percent, that one commit may prune without consent. A larger share is more often a wrong
/// path or a lost directory than a wish.
const MAX_PERCENT: i64 = 50;

pub(super) fn plan(input: &Input<'_>, plan: &mut SyncPlan) {
    let mut wanted: Vec<&Key> = input.wanted.iter().map(|w| &w.key).collect();
    wanted.sort();
    wanted.dedup();
    // Both are in the order of their keys.
    let (mut at, mut unwanted) = (0, Vec::new());
    for (key, item) in input.inventory.iter() {
        while wanted.get(at).is_some_and(|wanted| *wanted < key) {
            at += 1;
        }
        if wanted.get(at) != Some(&key) {
            unwanted.push((key, item));
        }
    }
    let given_back: BTreeSet<Key> =
        plan.changes().map(|c| &c.name.0).filter(|key| input.undo.give_back.contains_key(key)).cloned().collect();
    let mut candidates = Vec::new();
    let mut undo = Vec::new();
    let all = wanted.len() + unwanted.len();
    for (key, item) in unwanted {
        if given_back.contains(key) {
            continue;
        }
        let mut keep = |why| plan.kept.push(Kept { name: Name(key.clone()), why });
        let Some(live) = (input.live)(key) else {
            keep(Why::Gone);
            continue;
        };
        let owner = live.meta.annotations.get(OWNER_ANNOTATION).filter(|owner| *owner != input.application);
        if live.meta.uid != item.uid && !mutant::on(Mutant::PruneByLabel) {
            keep(Why::NotOurs);
        } else if let Some(owner) = owner {
            keep(Why::TakenOver(owner.clone()));
        } else if item.created == 0 && !live.meta.annotations.contains_key(OWNER_ANNOTATION) {
            keep(Why::Adopted); // it was given back, or somebody else took our name off it
        } else if live.meta.deleting() {
            plan.leaving.push(Name(key.clone()));
        } else if input.policy.prune == Some(false) || live.meta.annotations.get(PRUNE_ANNOTATION).is_some_and(|p| p == "false") {
            keep(Why::Protected);
        } else if let Some(heir) = (input.heir)(key) {
            keep(Why::Heir(heir));
        } else if input.undo.back_to.is_some() && item.created == 0 {
            keep(Why::Adopted);
        } else {
            let wave = live.meta.annotations.get(WAVE_ANNOTATION).and_then(|w| w.trim().parse().ok()).unwrap_or(0);
            let undone = match input.undo.back_to {
                Some(number) => item.created > number && !data(key),
                None => input.undo.failed.contains(&item.created) && !precious(key),
            };
            let order = Order { rank: rank(key), wave };
            if undone {
                undo.push((order, key.clone(), item.uid.clone()))
            } else {
                candidates.push((order, key.clone(), item.uid.clone()))
            }
        }
    }
    let percent = input.policy.prune_max_percent.unwrap_or(MAX_PERCENT).clamp(0, 100);
    let over = |candidates: usize, all: usize| candidates as i64 * 100 > percent * all as i64;
    let empty = input.wanted.is_empty();
    // A new commit with a wrong path leaves out what is old as well.
    if input.undo.back_to.is_none() && (empty || over(candidates.len(), all - undo.len())) {
        candidates.append(&mut undo);
    }
    let of = all - undo.len();
    let over = over(candidates.len(), of);
    let mut going = undo;
    for (order, key, uid) in candidates.clone() {
        let name = Name(key.clone());
        let why = if allowed(input, &key) || (empty && mutant::on(Mutant::PruneOnEmpty)) {
            None
        } else if precious(&key) {
            Some(format!(
                "deleting a {} takes what is in it: it needs `pruneAllow: [{}/{}]`",
                key.kind.kind,
                consent_name(&key),
                key.name
            ))
        } else if empty && input.policy.allow_empty != Some(true) {
            Some("the commit has no object at all: deleting everything needs `allowEmpty: true`".to_owned())
        } else if over && !(empty && input.policy.allow_empty == Some(true)) {
            Some(format!(
                "{} of {} objects would be deleted, more than {percent} %: it needs `pruneAllow` or a higher `pruneMaxPercent`",
                candidates.len(),
                of
            ))
        } else {
            None
        };
        match why {
            Some(why) => plan.kept.push(Kept { name, why: Why::NeedsConsent(why) }),
            None => going.push((order, key, uid)),
        }
    }
    // What was written first goes last.
    going.sort_by(|a, b| b.cmp(a));
    plan.prune.extend(going.into_iter().map(|(_, key, uid)| Prune { name: Name(key), uid }));
    plan.kept.sort_by(|a, b| a.name.cmp(&b.name));
}

/// Kinds that hold people's data: going back never touches it.
fn data(key: &Key) -> bool {
    matches!((key.kind.group, key.kind.kind), ("", "PersistentVolumeClaim" | "PersistentVolume"))
}

/// Kinds whose deletion destroys more than the object itself.
fn precious(key: &Key) -> bool {
    data(key)
        || matches!((key.kind.group, key.kind.kind), ("", "Namespace") | ("apiextensions.k8s.io", "CustomResourceDefinition"))
}

/// What an author calls a kind when he consents: `Namespace`. A kind that somebody defined under a name that one of the program's has
/// needs its group, `Namespace.example.org`, so that consent to one is none to the other.
fn consent_name(key: &Key) -> String {
    let ambiguous = key.kind.custom.is_some() && KINDS.iter().any(|kind| kind.kind == key.kind.kind);
    if ambiguous { with_group(key) } else { key.kind.kind.to_owned() }
}

fn with_group(key: &Key) -> String {
    format!("{}.{}", key.kind.kind, key.kind.group)
}

/// Whether the author consented to this deletion: `*`, `Kind/name` or `Kind/namespace/name`, where the kind may be `Kind.group`.
fn allowed(input: &Input<'_>, key: &Key) -> bool {
    let names = [consent_name(key), with_group(key)];
    input.policy.prune_allow.iter().any(|allow| {
        let Some((kind, place)) = allow.split_once('/') else { return allow == "*" };
        names.iter().any(|name| name == kind) && (place == &*key.name || place == format!("{}/{}", key.namespace, key.name))
    })
}
