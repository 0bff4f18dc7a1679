//! Wanted x live x inventory -> what has to be written and deleted, in which order, and what must not.
//!
//! The result is a value: the server's loop commits it, `portolan plan` prints it, tests compare it. Planning what was just applied
//! plans nothing.
//!
//! Not here: whether the API would accept an object (`plan::preflight`), which release is wanted (`plan::target`), and when the next
//! wave may go (`plan::verdict` judges health; `control::release` waits).

mod diff;
mod prune;
mod show;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::mutant::{self, Mutant};
use crate::object::manifest::{Digest, Manifest};
use crate::object::ours::{
    COMMIT_ANNOTATION, Inventory, ORIGIN_ANNOTATION, OWNER_ANNOTATION, Policy, ProblemRecord, SELF_HEAL_ANNOTATION, Verdict,
    WAVE_ANNOTATION,
};
use crate::object::patch::{three_way, wish};
use crate::object::source::Origin;
use crate::object::{Key, Object, Revision};

pub use diff::{differences, masked};

/// One object that a release wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Kind, namespace and name.
    pub key: Key,
    /// The object, defaults filled in.
    pub value: Manifest,
    /// Where it is written.
    pub origin: Origin,
}

/// Which releases a new one takes for failed, of those `since` the last good one, oldest first, each with what became of it.
///
/// These are all up to the newest that was taken back: a way back that had been given the time would have undone what they did. And the
/// one that the new one overtakes. What was overtaken before that one may have served for long, although nobody judged it.
pub fn failed(since: &[(i64, Option<Verdict>)]) -> BTreeSet<i64> {
    let back = since.iter().rev().find(|(_, verdict)| *verdict == Some(Verdict::RolledBack)).map(|(number, _)| *number);
    // A commit that was refused did nothing.
    let newest = since.iter().rev().find(|(_, verdict)| *verdict != Some(Verdict::Rejected));
    let overtaken = newest.filter(|(_, verdict)| *verdict == Some(Verdict::Superseded)).map(|(number, _)| *number);
    let numbers = since.iter().map(|(number, _)| *number);
    numbers.filter(|number| back.is_some_and(|back| *number <= back) || Some(*number) == overtaken).collect()
}

/// What a plan is made from. A narrow view: only this Application's objects.
pub struct Input<'a> {
    /// `<namespace>/<name>` of the Application.
    pub application: &'a str,
    /// The commit that is written on objects whose content changes.
    pub commit: &'a str,
    /// What the release wants.
    pub wanted: &'a [Wanted],
    /// Finds what is there, of the keys in `wanted` and in `inventory`.
    pub live: &'a dyn Fn(&Key) -> Option<Arc<Object>>,
    /// What the Application manages now.
    pub inventory: &'a Inventory,
    /// Finds what was last applied to an object, as far as that is known.
    pub last: &'a dyn Fn(&Key) -> Option<Manifest>,
    /// How pruning is bounded.
    pub policy: &'a Policy,
    /// What releases did that failed, or that nobody judged.
    pub undo: &'a Undo,
    /// Comparisons that found nothing to do. Saves time, no more.
    pub settled: &'a BTreeMap<Key, Settled>,
    /// Whether that other Application (`<namespace>/<name>`) holds on to an object.
    pub claimed: &'a dyn Fn(&str, &Key) -> bool,
    /// Which other Application is about to take an object over, if any.
    pub heir: &'a dyn Fn(&Key) -> Option<String>,
}

/// What is undone of releases that failed, or that nobody judged.
#[derive(Clone, Debug, Default)]
pub struct Undo {
    /// On the way back to a release: its number. What newer releases created goes without asking, because it was not there before; what
    /// they adopted stays.
    pub back_to: Option<i64>,
    /// On the way to a new release: what these releases created goes without asking as well ([`failed`]), unless much else would go too.
    pub failed: BTreeSet<i64>,
    /// Objects that a failed release took over from nobody, as they were before that. They are put back and let go.
    pub give_back: BTreeMap<Key, Manifest>,
}

/// A comparison that found that an object needs nothing, and what it was made from: with the same again it would find the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The version of the object that is there.
    pub revision: Revision,
    /// What was wanted.
    pub wish: Digest,
    /// What was last applied to it.
    pub last: Option<Digest>,
}

/// What has to happen so that the cluster is what a release wants.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SyncPlan {
    /// What is written, in order. Waves without a change are not listed.
    pub waves: Vec<Wave>,
    /// What is deleted after everything else is healthy, in this order.
    pub prune: Vec<Prune>,
    /// What git no longer has and what stays nevertheless, with the reason.
    pub kept: Vec<Kept>,
    /// Why the release cannot be applied at all: objects that belong to somebody else.
    pub problems: Vec<ProblemRecord>,
    /// Managed objects that differ from what is wanted and whose author opted out of repair.
    pub tolerated: Vec<Name>,
    /// Objects that are on their way out: those that are wanted are written again once they are gone.
    pub leaving: Vec<Name>,
    /// Comparisons that were made and found nothing to do.
    #[serde(skip)]
    pub settled: Vec<(Key, Settled)>,
    /// How many objects are as they should be.
    pub unchanged: usize,
    /// How many objects are wanted.
    pub wanted: usize,
}

/// Objects that are written together. The next wave waits until these are healthy.
#[derive(Clone, Debug, Serialize)]
pub struct Wave {
    /// Where it comes in the order.
    pub order: Order,
    /// What is written.
    pub changes: Vec<Change>,
}

/// The order of waves: kinds first, then the author's annotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Order {
    /// The kind's place: namespaces first, workloads late.
    pub rank: u8,
    /// `portolan.dev/wave`, 0 when absent.
    pub wave: i64,
}

/// One write.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Which object.
    #[serde(flatten)]
    pub name: Name,
    /// Where it is written in the repository: `file:line`.
    pub origin: String,
    /// What is done.
    pub action: Action,
    /// The object as it is; absent for a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// The object as it will be sent: for a new one as it is wanted, else the live object with our wishes merged in.
    pub new: Value,
    /// The dotted paths at which old and new differ.
    pub fields: Vec<String>,
    /// The version that the plan was made from.
    #[serde(skip)]
    pub revision: Revision,
}

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It does not exist yet.
    Create,
    /// It exists and is ours.
    Patch,
    /// It exists, belongs to nobody, and becomes ours.
    Adopt,
}

/// One deletion.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Prune {
    /// Which object.
    #[serde(flatten)]
    pub name: Name,
    /// Exactly this object.
    pub uid: String,
}

/// An object that git no longer has and that stays.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Which object.
    #[serde(flatten)]
    pub name: Name,
    /// Why it stays.
    pub why: Why,
}

/// Why an object that git no longer has stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "reason", content = "detail")]
pub enum Why {
    /// The deletion budget is exceeded, or the kind needs explicit consent. Waits for consent in git.
    NeedsConsent(String),
    /// `portolan.dev/prune: "false"`, or the policy does not prune.
    Protected,
    /// It was there before the release that failed took it over, so undoing that release does not delete it. Forgotten.
    Adopted,
    /// It is another object of the same name: nothing proves that it is ours. Forgotten.
    NotOurs,
    /// Another Application has taken it over. Forgotten.
    TakenOver(String),
    /// Another Application is about to take it over. Waits for that.
    Heir(String),
    /// It is gone already. Forgotten.
    Gone,
}

impl Why {
    /// Whether the Application stops managing it.
    pub fn forgotten(&self) -> bool {
        matches!(self, Why::Adopted | Why::NotOurs | Why::TakenOver(_) | Why::Gone)
    }
}

/// An object's name as people write it; serialises as `apiVersion`, `kind`, `namespace` and `name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub Key);

impl SyncPlan {
    /// Whether nothing has to be written or deleted.
    pub fn is_empty(&self) -> bool {
        self.waves.is_empty() && self.prune.is_empty()
    }
    /// All writes, in order.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.waves.iter().flat_map(|wave| &wave.changes)
    }
}

impl Input<'_> {
    /// What a comparison of an object would be made from now, if it is there.
    pub fn now(&self, wanted: &Wanted) -> Option<Settled> {
        let live = (self.live)(&wanted.key)?;
        let last = (self.last)(&wanted.key).map(|last| last.digest());
        Some(Settled { revision: live.revision, wish: wanted.value.digest(), last })
    }
}

/// Plans.
pub fn sync(input: &Input<'_>) -> SyncPlan {
    let mut plan = SyncPlan { wanted: input.wanted.len(), ..SyncPlan::default() };
    let mut waves: BTreeMap<Order, Vec<Change>> = BTreeMap::new();
    let mut known = Walk::new(input.settled.iter());
    for wanted in input.wanted {
        if let Some(settled) = known.find(&wanted.key).or_else(|| input.settled.get(&wanted.key).filter(|_| known.passed))
            && settled.wish == wanted.value.digest()
            && Some(settled) == input.now(wanted).as_ref()
        {
            plan.unchanged += 1;
            continue;
        }
        match compare(input, wanted) {
            Compared::Same => {
                plan.unchanged += 1;
                plan.settled.extend(input.now(wanted).map(|settled| (wanted.key.clone(), settled)));
            }
            Compared::Tolerated => plan.tolerated.push(Name(wanted.key.clone())),
            Compared::Leaving => plan.leaving.push(Name(wanted.key.clone())),
            Compared::Foreign(message) => plan.problems.push(problem(&wanted.origin, message)),
            Compared::Differs(change) => waves.entry(order(wanted)).or_default().push(change),
        }
    }
    for (key, before) in &input.undo.give_back {
        if let Some(change) = given_back(input, key, before) {
            waves.entry(order_of(key, before)).or_default().push(change);
        }
    }
    for (order, mut changes) in waves {
        changes.sort_by(|a, b| a.name.cmp(&b.name));
        plan.waves.push(Wave { order, changes });
    }
    prune::plan(input, &mut plan);
    plan
}

/// Goes along a map while others go along their keys in the same order: cheaper than as many searches.
pub(crate) struct Walk<'a, V: 'a, I: Iterator<Item = (&'a Key, &'a V)>> {
    rest: std::iter::Peekable<I>,
    /// Whether what was looked for last may have been passed over before: who asks out of order has to search.
    pub(crate) passed: bool,
    last: Option<&'a Key>,
}

impl<'a, V: 'a, I: Iterator<Item = (&'a Key, &'a V)>> Walk<'a, V, I> {
    pub(crate) fn new(map: I) -> Self {
        Walk { rest: map.peekable(), passed: false, last: None }
    }
    /// The value of a key, if it comes after all that were looked for before.
    pub(crate) fn find(&mut self, key: &Key) -> Option<&'a V> {
        self.passed = self.last.is_some_and(|last| key <= last);
        while !self.passed && self.rest.peek().is_some_and(|(at, _)| *at < key) {
            self.last = self.rest.next().map(|(at, _)| at);
        }
        // What is equal is left where it is: it may be asked for again.
        self.rest.peek().filter(|(at, _)| !self.passed && *at == key).map(|(_, value)| *value)
    }
}

/// The wave that an object belongs to.
pub fn order(wanted: &Wanted) -> Order {
    order_of(&wanted.key, &wanted.value)
}

fn order_of(key: &Key, value: &Value) -> Order {
    let wave = value["metadata"]["annotations"][WAVE_ANNOTATION].as_str().and_then(|w| w.trim().parse().ok()).unwrap_or(0);
    Order { rank: rank(key), wave }
}

/// A kind's place in the order: what others need comes first.
pub(crate) fn rank(key: &Key) -> u8 {
    match (key.kind.group, key.kind.kind) {
        ("", "Namespace") => 0,
        ("apiextensions.k8s.io" | "storage.k8s.io" | "scheduling.k8s.io", _) | ("networking.k8s.io", "IngressClass") => 1,
        ("", "ServiceAccount") | ("rbac.authorization.k8s.io", _) => 2,
        ("", "ConfigMap" | "Secret" | "ResourceQuota" | "LimitRange") => 3,
        ("", "PersistentVolume" | "PersistentVolumeClaim") => 4,
        ("", "Service" | "Endpoints") | ("discovery.k8s.io", _) | ("networking.k8s.io", "NetworkPolicy") => 5,
        ("" | "apps" | "batch", _) => 6,
        ("portolan.dev", _) => 8,
        _ => 7,
    }
}

enum Compared {
    Same,
    Tolerated,
    Leaving,
    Foreign(String),
    Differs(Change),
}

fn compare(input: &Input<'_>, wanted: &Wanted) -> Compared {
    let change = |action, old: Option<Value>, mut new: Value, revision| {
        decorate(&mut new, input.application, Some(input.commit), Some(&wanted.origin.to_string()));
        let fields = old.as_ref().map(|old| differences(old, &new)).unwrap_or_default();
        Compared::Differs(Change {
            name: Name(wanted.key.clone()),
            origin: wanted.origin.to_string(),
            action,
            old,
            new,
            fields,
            revision,
        })
    };
    let Some(live) = (input.live)(&wanted.key) else {
        return change(Action::Create, None, wish(&wanted.value), 0);
    };
    let owner = live.meta.annotations.get(OWNER_ANNOTATION).map(String::as_str);
    let ours = owner == Some(input.application);
    if let Some(other) = owner.filter(|_| !ours)
        && (input.claimed)(other, &wanted.key)
    {
        return Compared::Foreign(format!("{} belongs to Application {other}", Name(wanted.key.clone())));
    }
    if let Some(controller) = live.meta.controller() {
        return Compared::Foreign(format!(
            "{} exists already and is controlled by {} {}",
            Name(wanted.key.clone()),
            controller.kind,
            controller.name
        ));
    }
    if live.meta.deleting() {
        return Compared::Leaving;
    }
    if mutant::on(Mutant::BackWithoutConfiguration) && input.undo.back_to.is_some() && wanted.key.kind.kind == "ConfigMap" {
        return Compared::Same;
    }
    let old = live.value();
    let last = if ours { (input.last)(&wanted.key) } else { None };
    // The commit and the place are written only together with a change of content: a commit that says the same touches nothing.
    let mut quiet = wish(&wanted.value);
    let known = |name: &str| live.meta.annotations.get(name).map(String::as_str);
    decorate(&mut quiet, input.application, known(COMMIT_ANNOTATION), known(ORIGIN_ANNOTATION));
    let new = three_way(wanted.key.kind, last.as_deref().map(wish).as_ref(), &quiet, &old);
    if new == old {
        return Compared::Same;
    }
    if ours && last.as_ref() == Some(&wanted.value) && !heals(input.policy, &wanted.value) {
        return Compared::Tolerated;
    }
    change(if ours { Action::Patch } else { Action::Adopt }, Some(old), new, live.revision)
}

/// Makes an object what it was before a failed release took it over, as far as that release changed it.
fn given_back(input: &Input<'_>, key: &Key, before: &Value) -> Option<Change> {
    let name = Name(key.clone());
    let before = wish(before);
    let change = |action, old: Option<Value>, new: Value, revision| {
        let fields = old.as_ref().map(|old| differences(old, &new)).unwrap_or_default();
        Some(Change { name, origin: String::new(), action, old, new, fields, revision })
    };
    let Some(live) = (input.live)(key) else {
        return change(Action::Create, None, before, 0);
    };
    let ours = live.meta.annotations.get(OWNER_ANNOTATION).is_some_and(|owner| owner == input.application);
    if !ours || live.meta.deleting() {
        return None; // somebody else has it, or had it in mind
    }
    let old = live.value();
    let mut without = old.clone();
    if let Some(annotations) = without["metadata"]["annotations"].as_object_mut() {
        for name in [OWNER_ANNOTATION, COMMIT_ANNOTATION, ORIGIN_ANNOTATION] {
            annotations.remove(name);
        }
    }
    let new = three_way(key.kind, (input.last)(key).as_deref().map(wish).as_ref(), &before, &without);
    change(Action::Patch, Some(old), new, live.revision)
}

/// Whether an object that was changed by hand is put back.
fn heals(policy: &Policy, wanted: &Value) -> bool {
    match wanted["metadata"]["annotations"][SELF_HEAL_ANNOTATION].as_str() {
        Some("false") => false,
        Some("true") => true,
        _ => policy.self_heal != Some(false),
    }
}

/// Writes our annotations on the object itself, never on a pod template: they must not restart anything.
fn decorate(value: &mut Value, application: &str, commit: Option<&str>, origin: Option<&str>) {
    if !value["metadata"]["annotations"].is_object() {
        value["metadata"]["annotations"] = Value::Object(Default::default());
    }
    let annotations = value["metadata"]["annotations"].as_object_mut().expect("it was just made");
    annotations.insert(OWNER_ANNOTATION.to_owned(), application.into());
    for (name, text) in [(COMMIT_ANNOTATION, commit), (ORIGIN_ANNOTATION, origin)] {
        match text {
            Some(text) => annotations.insert(name.to_owned(), text.into()),
            None => annotations.remove(name),
        };
    }
}

/// A problem at a place in the repository.
pub(crate) fn problem(origin: &Origin, message: String) -> ProblemRecord {
    ProblemRecord { file: origin.file.to_string(), line: origin.line, column: origin.column, message, hint: None }
}
