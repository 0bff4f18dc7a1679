//! How many pods of which kind are in which domain, kept change by change.
//!
//! Two questions are answered: how many pods that a rule is about are in a domain (a [`Tally`], for the rules of pods that are to be
//! placed), and in which domains are pods with a rule of their own about others (a [`Stance`], for rules of pods that have a place).
//!
//! You will not find here: what a rule makes of the numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cluster::{Facts, Placed};
use super::demand::{Demand, Labels, Term};

/// How many pods that a term is about are in each of its domains.
#[derive(Clone, Debug)]
struct Tally {
    term: Term,
    /// How many classes ask.
    users: usize,
    domains: BTreeMap<String, i64>,
}

/// A rule that pods with a place have about others: `weight` is how much they like to have them near, `None` that they keep them out.
#[derive(Clone, Debug)]
pub(super) struct Opinion {
    /// Tells equal opinions.
    pub(super) id: Arc<str>,
    pub(super) weight: Option<i64>,
    pub(super) term: Term,
}

impl PartialEq for Opinion {
    fn eq(&self, other: &Opinion) -> bool {
        self.id == other.id
    }
}

impl Opinion {
    /// Those that a pod will have once it has a place.
    pub(super) fn of(demand: &Demand) -> Vec<Opinion> {
        let keeps_out = demand.apart.iter().map(|term| (None, term));
        let wishes = demand.near_preferred.iter().map(|(weight, term)| (Some(*weight), term));
        let with_id = |(weight, term): (Option<i64>, &Term)| Opinion {
            id: format!("{weight:?} {}", term.id).into(),
            weight,
            term: term.clone(),
        };
        keeps_out.chain(wishes).map(with_id).collect()
    }
}

/// An opinion, and how many pods in each domain have it.
#[derive(Clone, Debug)]
struct Stance {
    opinion: Opinion,
    domains: BTreeMap<String, i64>,
}

/// All that is counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Tallies {
    slots: Vec<Option<Tally>>,
    ids: BTreeMap<String, usize>,
    /// Which tallies a pod with this label and value may be counted in …
    anchored: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
    /// … and those that have no such label.
    loose: Vec<usize>,
    stances: BTreeMap<Arc<str>, Stance>,
    /// Grows when an opinion appears that nobody had, or the last one goes who had it.
    pub(super) version: u64,
}

impl Tallies {
    /// The tally of a term, if somebody asked for it before.
    pub(super) fn share(&mut self, term: &Term) -> Option<usize> {
        let slot = *self.ids.get(&term.id)?;
        self.slots[slot].as_mut()?.users += 1;
        Some(slot)
    }

    /// A new tally; everybody who has a place has to be noted in it.
    pub(super) fn begin(&mut self, term: &Term) -> usize {
        let slot = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        match term.selector.anchor() {
            Some((key, value)) => {
                let values = self.anchored.entry(key.to_owned()).or_default();
                values.entry(value.to_owned()).or_default().push(slot);
            }
            None => self.loose.push(slot),
        }
        self.ids.insert(term.id.clone(), slot);
        self.slots[slot] = Some(Tally { term: term.clone(), users: 1, domains: BTreeMap::new() });
        slot
    }

    /// Somebody asks no more.
    pub(super) fn release(&mut self, slot: usize) {
        let Some(tally) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        tally.users -= 1;
        if tally.users > 0 {
            return;
        }
        self.ids.remove(&tally.term.id);
        match tally.term.selector.anchor() {
            Some((key, value)) => {
                if let Some(values) = self.anchored.get_mut(key) {
                    if let Some(slots) = values.get_mut(value) {
                        slots.retain(|s| *s != slot);
                        if slots.is_empty() {
                            values.remove(value);
                        }
                    }
                    if values.is_empty() {
                        self.anchored.remove(key);
                    }
                }
            }
            None => self.loose.retain(|s| *s != slot),
        }
        self.slots[slot] = None;
    }

    /// Counts a pod in one tally.
    pub(super) fn note_in(&mut self, slot: usize, pod: &Placed, of_namespace: &Labels, node: &str, facts: &Facts, sign: i64) {
        let Some(tally) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        let term = &tally.term;
        if (pod.leaving && !term.leaving_count) || !term.about(&pod.common.namespace, of_namespace, &pod.common.labels) {
            return;
        }
        if term.on.as_ref().is_some_and(|on| !on.admits(node, facts)) {
            return;
        }
        if let Some(domain) = facts.labels.get(&term.topology) {
            add(&mut tally.domains, domain, sign);
        }
    }

    /// A pod takes a place, or leaves it.
    pub(super) fn note(&mut self, pod: &Placed, of_namespace: &Labels, node: &str, facts: &Facts, sign: i64) {
        if !self.ids.is_empty() {
            let mut slots = self.loose.clone();
            for (key, value) in &pod.common.labels {
                slots.extend(self.anchored.get(key).and_then(|values| values.get(value)).into_iter().flatten());
            }
            for slot in slots {
                self.note_in(slot, pod, of_namespace, node, facts, sign);
            }
        }
        for opinion in &pod.common.opinions {
            let Some(domain) = facts.labels.get(&opinion.term.topology) else { continue };
            let version = &mut self.version;
            let stance = self.stances.entry(opinion.id.clone()).or_insert_with(|| {
                *version += 1;
                Stance { opinion: opinion.clone(), domains: BTreeMap::new() }
            });
            add(&mut stance.domains, domain, sign);
            if stance.domains.is_empty() {
                self.stances.remove(&opinion.id);
                self.version += 1;
            }
        }
    }

    /// How many pods that a term is about are in a domain.
    pub(super) fn in_domain(&self, slot: usize, domain: &str) -> i64 {
        self.slots.get(slot).and_then(Option::as_ref).and_then(|t| t.domains.get(domain)).copied().unwrap_or(0)
    }

    /// Whether no pod that a term is about is anywhere.
    pub(super) fn nowhere(&self, slot: usize) -> bool {
        self.slots.get(slot).and_then(Option::as_ref).is_none_or(|t| t.domains.is_empty())
    }

    /// How many pods in a domain have an opinion.
    pub(super) fn holding(&self, opinion: &str, domain: &str) -> i64 {
        self.stances.get(opinion).and_then(|s| s.domains.get(domain)).copied().unwrap_or(0)
    }

    /// The opinions of pods with a place that are about a pod like this.
    pub(super) fn opinions_about(&self, demand: &Demand, of_namespace: &Labels) -> Vec<Opinion> {
        let about = |s: &&Stance| s.opinion.term.about(&demand.namespace, of_namespace, &demand.labels);
        self.stances.values().filter(about).map(|s| s.opinion.clone()).collect()
    }

    /// Whether any rule chooses namespaces by their labels.
    pub(super) fn by_label(&self) -> bool {
        self.slots.iter().flatten().any(|t| t.term.by_label()) || self.stances.values().any(|s| s.opinion.term.by_label())
    }

    /// Whether any rule counts only pods on nodes with certain taints.
    pub(super) fn by_taint(&self) -> bool {
        self.slots.iter().flatten().any(|t| t.term.on.as_ref().is_some_and(|on| on.tolerations.is_some()))
    }
}

/// Counts; what comes to nothing is forgotten.
pub(super) fn add(counts: &mut BTreeMap<String, i64>, of: &str, sign: i64) {
    match counts.get_mut(of) {
        Some(count) if *count + sign == 0 => {
            counts.remove(of);
        }
        Some(count) => *count += sign,
        None => {
            counts.insert(of.to_owned(), sign);
        }
    }
}
