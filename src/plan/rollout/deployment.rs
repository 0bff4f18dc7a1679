//! A Deployment and its replica sets: which has how many replicas now, and what the Deployment's status says.
//!
//! One call plans one move of the dance that Kubernetes' deployment controller does: make or find the replica set of the current
//! template, scale it up within the surge, scale the old ones down as far as availability allows (broken pods first), drop old
//! replica sets that nobody needs for going back.
//!
//! Two promises are kept more strictly than there, because here the pods themselves are counted: a pod that a replica set has not yet
//! deleted still takes a place, and a pod that it has not yet deleted but will does not count as available any more.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use std::collections::BTreeMap;

use super::fit::{self, Bounds, Part, bounds, recreates};
use super::revision::{self, POD_TEMPLATE_HASH, REVISION, revision_of, same_template, template_hash};
use super::status::{self, Counts, Progress};
use super::{active, available, available_from, ended, ready};
use crate::mutant::{self, Mutant};

/// What is looked at to plan one Deployment.
pub struct Input<'a> {
    /// The Deployment.
    pub deployment: &'a Deployment,
    /// The replica sets that it controls.
    pub sets: Vec<Member<'a>>,
    /// Whether a name of a replica set is taken by one that this Deployment does not control.
    pub taken: &'a dyn Fn(&str) -> bool,
    /// The time.
    pub now: Timestamp,
}

/// A replica set and the pods that it controls.
#[derive(Clone)]
pub struct Member<'a> {
    /// The replica set.
    pub set: &'a ReplicaSet,
    /// Its pods, terminating ones included.
    pub pods: Vec<&'a Pod>,
}

/// What to do for one Deployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// A replica set to create.
    pub create: Option<Box<ReplicaSet>>,
    /// Replica sets to change: their index in the input, and what they become (spec and annotations only).
    pub update: Vec<(usize, Box<ReplicaSet>)>,
    /// Replica sets to delete: their index in the input.
    pub delete: Vec<usize>,
    /// The Deployment's new annotations, when they change.
    pub annotations: Option<BTreeMap<String, String>>,
    /// The Deployment's new status, when it changes.
    pub status: Option<DeploymentStatus>,
    /// What to tell people: Kubernetes' reason and message.
    pub events: Vec<(&'static str, String)>,
    /// When to look again if nothing happens before.
    pub again: Option<Timestamp>,
}

impl Plan {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.create.is_none()
            && self.update.is_empty()
            && self.delete.is_empty()
            && self.annotations.is_none()
            && self.status.is_none()
    }
}

/// A replica set while it is being planned for.
struct Set<'a> {
    set: &'a ReplicaSet,
    /// What it will be asked for.
    replicas: i32,
    annotations: BTreeMap<String, String>,
    min_ready_seconds: i32,
    delete: bool,
    active: i32,
    ready: i32,
    available: i32,
}

impl Set<'_> {
    fn asked(&self) -> i32 {
        spec_replicas(self.set)
    }
    /// How many pods it has or will have.
    fn places(&self) -> i32 {
        self.replicas.max(self.active)
    }
    /// How many pods it will have until others can take their place: it keeps an available one that it is no longer asked for while that
    /// one cannot be spared.
    fn kept(&self) -> i32 {
        self.replicas.max(self.available)
    }
    /// How many of its available pods will stay.
    fn staying(&self) -> i32 {
        self.available.min(self.replicas)
    }
    fn name(&self) -> &str {
        self.set.metadata.name.as_deref().unwrap_or_default()
    }
    fn age(&self) -> (Option<Timestamp>, &str) {
        (self.set.metadata.creation_timestamp.as_ref().map(|t| t.0), self.name())
    }
    fn desired(&self) -> Option<i32> {
        self.annotations.get(revision::DESIRED_REPLICAS)?.parse().ok()
    }
}

fn spec_replicas(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

/// The Deployment's work in progress.
struct Work<'a> {
    input: &'a Input<'a>,
    bounds: Bounds,
    sets: Vec<Set<'a>>,
    /// The replica set of the current template.
    new: Option<usize>,
    create: Option<Box<ReplicaSet>>,
    progress: Progress,
    collisions: Option<i32>,
    revision: Option<String>,
    events: Vec<(&'static str, String)>,
}

/// Plans one move for a Deployment.
pub fn plan(input: &Input<'_>) -> Plan {
    let deployment = input.deployment;
    let spec = &deployment.spec;
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let count = |pods: &[&Pod], of: &dyn Fn(&Pod) -> bool| pods.iter().filter(|p| active(p) && of(p)).count() as i32;
    let sets = input.sets.iter().map(|member| Set {
        set: member.set,
        replicas: spec_replicas(member.set),
        annotations: member.set.metadata.annotations.clone().unwrap_or_default(),
        min_ready_seconds: member.set.spec.min_ready_seconds.unwrap_or(0),
        delete: false,
        active: count(&member.pods, &|_| true),
        ready: count(&member.pods, &ready),
        available: count(&member.pods, &|p| available(p, min_ready, input.now)),
    });
    let mut work = Work {
        input,
        bounds: bounds(deployment),
        sets: sets.collect(),
        new: None,
        create: None,
        progress: Progress::of(deployment, input.now),
        collisions: deployment.status.as_ref().and_then(|s| s.collision_count),
        revision: None,
        events: Vec::new(),
    };
    work.new = work.find_new();

    if deployment.metadata.deletion_timestamp.is_some() {
        return work.finish(false);
    }
    work.progress.paused(spec.paused.unwrap_or(false));
    if spec.paused.unwrap_or(false) || work.resized() {
        work.name_revision();
        work.scale();
        if spec.paused.unwrap_or(false) {
            work.forget_old();
        }
        return work.finish(false);
    }
    if recreates(deployment) {
        work.recreate()
    } else {
        work.roll()
    }
    work.finish(true)
}

impl<'a> Work<'a> {
    /// The oldest replica set with the current template.
    fn find_new(&self) -> Option<usize> {
        if mutant::on(Mutant::ReplicaSetPerLook) {
            return None;
        }
        let template = &self.input.deployment.spec.template;
        let same = |i: &usize| self.sets[*i].set.spec.template.as_ref().is_some_and(|t| same_template(t, template));
        (0..self.sets.len()).filter(same).min_by_key(|i| self.sets[*i].age())
    }

    /// The indices of the others, oldest first.
    fn old(&self) -> Vec<usize> {
        let mut old: Vec<usize> = (0..self.sets.len()).filter(|i| Some(*i) != self.new).collect();
        old.sort_by_key(|i| self.sets[*i].age());
        old
    }

    /// Whether somebody changed the Deployment's size since its replica sets were last scaled.
    fn resized(&self) -> bool {
        self.sets.iter().any(|set| set.replicas > 0 && set.desired().is_some_and(|d| d != self.bounds.replicas))
    }

    /// Gives the current replica set the newest revision number, and the Deployment the same.
    fn name_revision(&mut self) {
        let next = self.next_revision();
        let Some(new) = self.new else { return };
        let set = &mut self.sets[new];
        let before = revision_of(Some(&set.annotations));
        let annotations = revision::annotations(self.input.deployment, Some(set.set), next);
        set.annotations = annotations;
        set.min_ready_seconds = self.input.deployment.spec.min_ready_seconds.unwrap_or(0);
        self.revision = set.annotations.get(REVISION).cloned();
        // Somebody went back to an earlier template, or this Deployment has just begun to be watched: its deadline counts from here.
        if before < next || self.progress.unknown() {
            let name = set.name().to_owned();
            self.progress.found(&name);
        }
    }

    /// The most pods there may be.
    fn most(&self) -> i32 {
        self.bounds.most() + i32::from(mutant::on(Mutant::SurgeOffByOne))
    }

    /// The fewest available pods there may be by our own hand.
    fn least(&self) -> i32 {
        if mutant::on(Mutant::IgnoreMaxUnavailable) { 0 } else { self.bounds.least() }
    }

    fn next_revision(&self) -> i64 {
        self.old().iter().map(|i| revision_of(Some(&self.sets[*i].annotations))).max().unwrap_or(0) + 1
    }

    /// Finds the replica set of the current template, or plans its creation.
    fn ensure_new(&mut self) {
        if self.new.is_some() {
            return self.name_revision();
        }
        let deployment = self.input.deployment;
        let Some(name) = &deployment.metadata.name else { return };
        let spec = &deployment.spec;
        let mut hash = template_hash(&spec.template, self.collisions);
        while (self.input.taken)(&format!("{name}-{hash}")) {
            self.collisions = Some(self.collisions.unwrap_or(0) + 1);
            hash = template_hash(&spec.template, self.collisions);
        }
        let mut template = spec.template.clone();
        let meta = template.metadata.get_or_insert_default();
        meta.labels.get_or_insert_default().insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
        let labels = meta.labels.clone();
        let mut match_labels = spec.selector.match_labels.clone().unwrap_or_default();
        match_labels.insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
        let places: i32 = self.sets.iter().map(Set::places).sum();
        let replicas = match recreates(deployment) {
            true => self.bounds.replicas,
            false => (self.most() - places).clamp(0, self.bounds.replicas),
        };
        let mut annotations = revision::annotations(deployment, None, self.next_revision());
        self.revision = annotations.get(REVISION).cloned();
        self.note_size(&mut annotations);
        let set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{name}-{hash}")),
                namespace: deployment.metadata.namespace.clone(),
                labels,
                annotations: Some(annotations),
                owner_references: Some(vec![owner(deployment)]),
                ..ObjectMeta::default()
            },
            spec: ReplicaSetSpec {
                min_ready_seconds: spec.min_ready_seconds,
                replicas: Some(replicas),
                selector: LabelSelector { match_labels: Some(match_labels), ..spec.selector.clone() },
                template: Some(template),
            },
            status: None,
        };
        let name = format!("{name}-{hash}");
        self.progress.created(&name);
        if replicas > 0 {
            self.events.push(("ScalingReplicaSet", format!("Scaled up replica set {name} from 0 to {replicas}")));
        }
        self.create = Some(Box::new(set));
    }

    fn note_size(&self, annotations: &mut BTreeMap<String, String>) {
        annotations.insert(revision::DESIRED_REPLICAS.to_owned(), self.bounds.replicas.to_string());
        annotations.insert(revision::MAX_REPLICAS.to_owned(), self.bounds.most().to_string());
    }

    /// Asks a replica set for so many pods. Says whether that is a change.
    fn set_size(&mut self, index: usize, replicas: i32) -> bool {
        let mut annotations = std::mem::take(&mut self.sets[index].annotations);
        self.note_size(&mut annotations);
        let set = &mut self.sets[index];
        set.annotations = annotations;
        if set.replicas == replicas {
            return false;
        }
        let direction = if replicas > set.replicas { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {} from {} to {replicas}", set.name(), set.replicas);
        set.replicas = replicas;
        self.events.push(("ScalingReplicaSet", message));
        true
    }

    /// The Deployment was resized or is paused: keep the proportions.
    fn scale(&mut self) {
        let (old, wanted) = (self.old(), self.bounds.replicas);
        let all: Vec<usize> = old.iter().copied().chain(self.new).collect();
        let alive: Vec<usize> = all.iter().copied().filter(|i| self.sets[*i].replicas > 0).collect();
        match alive[..] {
            [] => {
                if let Some(latest) = self.new.or(old.last().copied()) {
                    self.resize(&[(latest, wanted)]);
                }
            }
            [one] => self.resize(&[(one, wanted)]),
            // There is nothing to keep the proportions of: all old pods go.
            _ if recreates(self.input.deployment) => alive.into_iter().for_each(|i| {
                self.set_size(i, self.sets[i].replicas);
            }),
            _ => {
                let saturated = self
                    .new
                    .map(|i| &self.sets[i])
                    .is_some_and(|new| new.replicas == wanted && new.desired() == Some(wanted) && new.available == wanted);
                if saturated {
                    for index in old {
                        if self.sets[index].replicas > 0 {
                            self.set_size(index, 0);
                        }
                    }
                } else {
                    self.scale_in_proportion(alive);
                }
            }
        }
    }

    fn scale_in_proportion(&mut self, mut alive: Vec<usize>) {
        let growing = self.bounds.most() > alive.iter().map(|i| self.sets[*i].replicas).sum::<i32>();
        // The largest first; among equals the newest first when growing and the oldest first when shrinking.
        alive.sort_by(|a, b| {
            let (a, b) = (&self.sets[*a], &self.sets[*b]);
            b.replicas.cmp(&a.replicas).then_with(|| if growing { b.age().cmp(&a.age()) } else { a.age().cmp(&b.age()) })
        });
        let parts: Vec<Part> = alive
            .iter()
            .map(|i| Part { replicas: self.sets[*i].replicas, of: revision::number(self.sets[*i].set, revision::MAX_REPLICAS) })
            .collect();
        let before = self.input.deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let sizes: Vec<(usize, i32)> = alive.into_iter().zip(fit::proportion(&parts, self.bounds, before)).collect();
        self.resize(&sizes);
    }

    /// Gives replica sets new sizes, as far as there is room: pods that a replica set has still to delete take places. What does not fit
    /// now is not written down as done, so that it is tried again once they are gone.
    fn resize(&mut self, sizes: &[(usize, i32)]) {
        let (sizes, spared) = self.spared(sizes);
        let sizes = &sizes[..];
        let taken = |i: usize, set: &Set<'_>| {
            let shrunk = sizes.iter().find(|(index, _)| *index == i).map_or(set.replicas, |(_, size)| set.replicas.min(*size));
            shrunk.max(set.active)
        };
        let places: i32 = self.sets.iter().enumerate().map(|(i, set)| taken(i, set)).sum();
        let mut room = (self.bounds.most() - places).max(0);
        let mut fitted = Vec::with_capacity(sizes.len());
        for (index, size) in sizes {
            let set = &self.sets[*index];
            let held = set.replicas.min(*size).max(set.active);
            let grown = (*size).min(held.saturating_add(room)).max(set.replicas.min(*size));
            room -= (grown - held).max(0);
            fitted.push((*index, grown));
        }
        // Pods that cannot be spared do not go by themselves. To wait for them would be to wait for ever, and so would a new template that
        // could bring what they are kept for: from here on it is a rollout like any other.
        let all_fit = fitted == sizes || spared;
        for (index, size) in fitted {
            let annotations = self.sets[index].annotations.clone();
            self.set_size(index, size);
            if !all_fit {
                self.sets[index].annotations = annotations;
            }
        }
    }

    /// New sizes that take no more of the available pods than may be missing, and whether that makes a difference.
    fn spared(&self, sizes: &[(usize, i32)]) -> (Vec<(usize, i32)>, bool) {
        let mut spare = (self.sets.iter().map(|s| s.available).sum::<i32>() - self.least()).max(0);
        let mut spared = false;
        let fitted = sizes.iter().map(|(index, size)| {
            let set = &self.sets[*index];
            // Pods that serve nobody are deleted first.
            let serving = (set.available - size).max(0);
            let going = serving.min(spare);
            spare -= going;
            spared |= going < serving;
            (*index, (size + serving - going).min(set.replicas.max(*size)))
        });
        (fitted.collect(), spared)
    }

    /// One move of a rolling update.
    fn roll(&mut self) {
        self.ensure_new();
        if !self.grow_new() && !self.shrink_old() && self.complete() {
            self.forget_old();
        }
    }

    fn grow_new(&mut self) -> bool {
        let Some(new) = self.new else { return false };
        let (now, wanted) = (self.sets[new].replicas, self.bounds.replicas);
        if now > wanted {
            return self.set_size(new, wanted);
        }
        let places: i32 = self.sets.iter().map(Set::places).sum();
        let room = (self.most() - places).min(wanted - now);
        self.set_size(new, now + room.max(0))
    }

    fn shrink_old(&mut self) -> bool {
        let old: Vec<usize> = self.old().into_iter().filter(|i| self.sets[*i].replicas > 0).collect();
        if old.is_empty() {
            return false;
        }
        let created = self.create.as_ref().and_then(|set| set.spec.replicas).unwrap_or(0);
        let kept: i32 = self.sets.iter().map(Set::kept).sum::<i32>() + created;
        let new_missing = self.new.map_or(created, |i| self.sets[i].replicas - self.sets[i].staying());
        let mut spare = kept - self.least() - new_missing;
        let mut changed = false;
        // Pods that serve nobody go first: they cost no availability.
        for index in &old {
            let set = &self.sets[*index];
            let broken = (set.replicas - set.staying()).min(spare);
            if broken > 0 {
                spare -= broken;
                let size = set.replicas - broken;
                changed |= self.set_size(*index, size);
            }
        }
        let mut spare = self.sets.iter().map(Set::staying).sum::<i32>() - self.least();
        for index in &old {
            let fewer = self.sets[*index].replicas.min(spare);
            if fewer > 0 {
                spare -= fewer;
                let size = self.sets[*index].replicas - fewer;
                changed |= self.set_size(*index, size);
            }
        }
        changed
    }

    /// Old pods go; when all are gone, new ones come.
    fn recreate(&mut self) {
        if self.new.is_some() {
            self.name_revision();
        }
        let old = self.old();
        let mut changed = false;
        for index in &old {
            if self.sets[*index].replicas > 0 {
                changed |= self.set_size(*index, 0);
            }
        }
        if changed || old.iter().any(|i| self.input.sets[*i].pods.iter().any(|pod| !ended(pod))) {
            return;
        }
        self.ensure_new();
        if let Some(new) = self.new {
            self.set_size(new, self.bounds.replicas);
        }
        if self.complete() {
            self.forget_old();
        }
    }

    /// Everything wanted is there, of the current template, and nothing else is.
    fn complete(&self) -> bool {
        let all: i32 = self.sets.iter().map(|s| s.active).sum();
        let available: i32 = self.sets.iter().map(|s| s.available).sum();
        let new = self.new.map_or(0, |i| self.sets[i].active);
        (new, all, available) == (self.bounds.replicas, self.bounds.replicas, self.bounds.replicas)
    }

    /// Deletes the oldest empty replica sets beyond `revisionHistoryLimit`.
    fn forget_old(&mut self) {
        let limit = self.input.deployment.spec.revision_history_limit.unwrap_or(10);
        let mut old: Vec<usize> =
            self.old().into_iter().filter(|i| self.sets[*i].set.metadata.deletion_timestamp.is_none()).collect();
        old.sort_by_key(|i| (revision_of(Some(&self.sets[*i].annotations)), *i));
        let excess = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for index in old.into_iter().take(excess) {
            let set = &mut self.sets[index];
            let held = set.set.status.as_ref().map_or(0, |s| s.replicas);
            set.delete = set.replicas == 0 && set.active == 0 && held == 0;
        }
    }

    fn finish(self, judge: bool) -> Plan {
        let deployment = self.input.deployment;
        let created = self.create.as_ref().and_then(|set| set.spec.replicas).unwrap_or(0);
        let counts = Counts {
            asked: self.sets.iter().map(|s| s.replicas).sum::<i32>() + created,
            replicas: self.sets.iter().map(|s| s.active).sum(),
            updated: self.new.map_or(0, |i| self.sets[i].active),
            ready: self.sets.iter().map(|s| s.ready).sum(),
            available: self.sets.iter().map(|s| s.available).sum(),
            terminating: self
                .input
                .sets
                .iter()
                .flat_map(|m| &m.pods)
                .filter(|p| p.metadata.deletion_timestamp.is_some() && !ended(p))
                .count() as i32,
        };
        let new_name = match (&self.create, self.new) {
            (Some(set), _) => set.metadata.name.clone(),
            (None, Some(index)) => Some(self.sets[index].name().to_owned()),
            (None, None) => None,
        };
        let failure = status::replica_failure(self.new.map(|i| self.sets[i].set), self.sets.iter().map(|s| s.set));
        let (bounds, collisions, now) = (self.bounds, self.collisions, self.input.now);
        let facts = status::Facts { deployment, bounds, counts, new_name, failure, collisions, judge, now };
        let (status, deadline) = status::write(&facts, self.progress);
        let annotations = self.revision.and_then(|revision| {
            let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
            (annotations.insert(REVISION.to_owned(), revision.clone()).as_deref() != Some(&revision)).then_some(annotations)
        });
        let min_ready = deployment.spec.min_ready_seconds.unwrap_or(0);
        let next_available = self
            .input
            .sets
            .iter()
            .flat_map(|m| &m.pods)
            .filter(|p| active(p))
            .filter_map(|p| available_from(p, min_ready))
            .filter(|at| *at > self.input.now)
            .min();
        let mut plan = Plan {
            create: self.create,
            annotations,
            status,
            events: self.events,
            again: [next_available, deadline].into_iter().flatten().min(),
            ..Plan::default()
        };
        for (index, set) in self.sets.iter().enumerate() {
            if set.delete {
                plan.delete.push(index);
            } else if let Some(changed) = set.changed() {
                plan.update.push((index, Box::new(changed)));
            }
        }
        plan
    }
}

impl Set<'_> {
    /// The replica set as planned, when that differs from what it is.
    fn changed(&self) -> Option<ReplicaSet> {
        let old_annotations = self.set.metadata.annotations.clone().unwrap_or_default();
        let old_min_ready = self.set.spec.min_ready_seconds.unwrap_or(0);
        if self.replicas == self.asked() && self.min_ready_seconds == old_min_ready && self.annotations == old_annotations {
            return None;
        }
        let mut set = self.set.clone();
        set.metadata.annotations = Some(self.annotations.clone());
        set.spec.replicas = Some(self.replicas);
        if self.min_ready_seconds != old_min_ready {
            set.spec.min_ready_seconds = Some(self.min_ready_seconds);
        }
        Some(set)
    }
}

/// How a replica set names the Deployment that controls it.
pub fn owner(deployment: &Deployment) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        name: deployment.metadata.name.clone().unwrap_or_default(),
        uid: deployment.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// How many available pods of this Deployment may be deleted now without falling below what its strategy promises. `None`: as many as
/// one likes.
///
/// The replica set's planner asks this before it deletes pods that serve. Between the moment when the Deployment was planned and this
/// one, other pods may have broken.
pub fn spare(deployment: &Deployment, pods: &[&Pod], now: Timestamp) -> Option<i32> {
    if recreates(deployment) || deployment.metadata.deletion_timestamp.is_some() || mutant::on(Mutant::IgnoreMaxUnavailable) {
        return None;
    }
    let min_ready = deployment.spec.min_ready_seconds.unwrap_or(0);
    let serving = pods.iter().filter(|p| active(p) && available(p, min_ready, now)).count() as i32;
    Some((serving - bounds(deployment).least()).max(0))
}

/// The time at which a Deployment without progress is given up, counted from its last progress.
pub(super) fn deadline(deployment: &Deployment) -> Option<SignedDuration> {
    // Kubernetes: the largest value means "no deadline".
    let seconds = deployment.spec.progress_deadline_seconds.unwrap_or(600);
    (seconds != i32::MAX).then(|| SignedDuration::from_secs(seconds.into()))
}
