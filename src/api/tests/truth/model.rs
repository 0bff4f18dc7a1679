//! What clients should be told: a plain list of everything that happened, and plain conditions. Nothing here knows the store.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Plural, namespace, name.
pub(super) type Name = (&'static str, String, String);

/// What is looked at of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Thing {
    /// The revision of its creation: with the name, it stands for the uid.
    pub(super) born: u64,
    pub(super) revision: u64,
    pub(super) tier: String,
    pub(super) node: String,
    pub(super) phase: String,
    /// What the last write of the body wrote; no two write the same.
    pub(super) mark: u64,
    /// The same for the status.
    pub(super) status_mark: u64,
}

/// An object as a client saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) name: Name,
    pub(super) uid: String,
    pub(super) thing: Thing,
    /// Only metadata was shown.
    pub(super) partial: bool,
}

/// Reads an object, or a PartialObjectMetadata of `plural`.
pub(super) fn seen(plural: &'static str, value: &Value) -> Seen {
    let meta = &value["metadata"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let number = |v: &Value| v.as_str().and_then(|t| t.parse().ok()).unwrap_or(0);
    let thing = Thing {
        born: 0,
        revision: number(&meta["resourceVersion"]),
        tier: text(&meta["labels"]["tier"]),
        node: text(&value["spec"]["nodeName"]),
        phase: text(&value["status"]["phase"]),
        mark: number(&meta["annotations"]["mark"]),
        status_mark: number(&value["status"]["message"]),
    };
    let name = (plural, text(&meta["namespace"]), text(&meta["name"]));
    Seen { name, uid: text(&meta["uid"]), thing, partial: value["kind"] == "PartialObjectMetadata" }
}

/// One object's step.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) revision: u64,
    /// The revision of the last step that happened together with it.
    pub(super) transaction: u64,
    pub(super) name: Name,
    pub(super) before: Option<Thing>,
    pub(super) after: Option<Thing>,
    /// Roughly how many bytes it weighs, when that is much.
    pub(super) weight: usize,
}

/// A condition on one part of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    Any,
    Is(&'static str),
    IsNot(&'static str),
    Among(&'static [&'static str]),
    Absent,
}

impl Test {
    fn holds(&self, value: &str) -> bool {
        match self {
            Test::Any => true,
            Test::Is(wanted) => value == *wanted,
            Test::IsNot(wanted) => value != *wanted,
            Test::Among(some) => some.contains(&value),
            Test::Absent => value.is_empty(),
        }
    }
}

/// Which objects somebody wants to see.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    pub(super) plural: &'static str,
    /// Empty: all.
    pub(super) namespace: &'static str,
    /// By path, or by `metadata.name`.
    pub(super) name: Option<(&'static str, bool)>,
    pub(super) tier: Test,
    pub(super) node: Test,
    pub(super) phase: Test,
}

impl Filter {
    pub(super) fn shows(&self, name: &Name, thing: &Thing) -> bool {
        name.0 == self.plural
            && (self.namespace.is_empty() || self.namespace == name.1)
            && self.name.is_none_or(|(wanted, _)| wanted == name.2)
            && self.tier.holds(&thing.tier)
            && self.node.holds(&thing.node)
            && self.phase.holds(&thing.phase)
    }

    /// The path and the query that say it.
    pub(super) fn path(&self) -> String {
        let mut path = "/api/v1".to_owned();
        if !self.namespace.is_empty() {
            path.push_str(&format!("/namespaces/{}", self.namespace));
        }
        path.push_str(&format!("/{}", self.plural));
        let mut fields = Vec::new();
        match self.name {
            Some((name, true)) => path.push_str(&format!("/{name}")),
            Some((name, false)) => fields.push(format!("metadata.name%3D{name}")),
            None => {}
        }
        path.push('?');
        for (field, test) in [("spec.nodeName", &self.node), ("status.phase", &self.phase)] {
            match test {
                Test::Is(value) => fields.push(format!("{field}%3D{value}")),
                Test::IsNot(value) => fields.push(format!("{field}!%3D{value}")),
                _ => {}
            }
        }
        if !fields.is_empty() {
            path.push_str(&format!("fieldSelector={}&", fields.join(",")));
        }
        match &self.tier {
            Test::Any => {}
            Test::Is(value) => path.push_str(&format!("labelSelector=tier%3D{value}&")),
            Test::IsNot(value) => path.push_str(&format!("labelSelector=tier!%3D{value}&")),
            Test::Among(some) => path.push_str(&format!("labelSelector=tier%20in%20({})&", some.join(","))),
            Test::Absent => path.push_str("labelSelector=!tier&"),
        }
        path
    }
}

/// What a watch is told of one step.
pub(super) fn told(filter: &Filter, step: &Step) -> Option<(&'static str, Thing)> {
    let fits = |thing: &Option<Thing>| thing.as_ref().filter(|t| filter.shows(&step.name, t)).cloned();
    match (fits(&step.before), fits(&step.after)) {
        (None, None) => None,
        (None, Some(new)) => Some(("ADDED", new)),
        (Some(_), Some(new)) => Some(("MODIFIED", new)),
        // The last state that matched, at the revision that ended it.
        (Some(old), None) => Some(("DELETED", Thing { revision: step.revision, ..old })),
    }
}

pub(super) type State = BTreeMap<Name, Thing>;

/// Everything that happened, in order.
#[derive(Default)]
pub(super) struct Model {
    pub(super) steps: Vec<Step>,
    pub(super) now: State,
    pub(super) revision: u64,
    /// Nobody may be shown anything beyond it.
    pub(super) durable: u64,
    /// Whoever goes on from before it may be told 410.
    pub(super) floor: u64,
    /// The newest that anybody was shown or had acknowledged.
    pub(super) shown: u64,
    uids: BTreeMap<(Name, u64), String>,
    used: BTreeSet<String>,
}

impl Model {
    /// What a transaction does. `None` deletes.
    pub(super) fn commit(&mut self, revision: u64, writes: Vec<(Name, Option<Thing>, usize)>) {
        assert_eq!(revision, self.revision + 1, "ST3: the next revision");
        self.record(revision, writes);
    }

    /// The same, after the fact.
    pub(super) fn record(&mut self, revision: u64, writes: Vec<(Name, Option<Thing>, usize)>) {
        self.revision = revision;
        for (name, after, weight) in writes {
            let before = self.now.get(&name).cloned();
            let after = after.map(|thing| Thing { revision, born: before.as_ref().map_or(revision, |b| b.born), ..thing });
            match &after {
                Some(thing) => self.now.insert(name.clone(), thing.clone()),
                None => self.now.remove(&name),
            };
            self.steps.push(Step { revision, transaction: revision, name, before, after, weight });
        }
    }

    /// Everything as it was.
    pub(super) fn at(&self, revision: u64) -> State {
        let mut state = self.now.clone();
        for step in self.steps.iter().rev().take_while(|s| s.revision > revision) {
            match &step.before {
                Some(before) => state.insert(step.name.clone(), before.clone()),
                None => state.remove(&step.name),
            };
        }
        state
    }

    pub(super) fn select(&self, filter: &Filter, revision: u64) -> Vec<(Name, Thing)> {
        self.at(revision).into_iter().filter(|(name, thing)| filter.shows(name, thing)).collect()
    }

    /// The place of the first step after a revision.
    pub(super) fn place(&self, revision: u64) -> usize {
        self.steps.partition_point(|s| s.revision <= revision)
    }

    /// What is left after a crash, and from where it goes on.
    pub(super) fn lose(&mut self, kept: u64, goes_on: u64) {
        self.now = self.at(kept);
        self.steps.truncate(self.place(kept));
        assert!(goes_on >= self.revision, "ST3: revision {goes_on} would be given out twice, {} was", self.revision);
        self.revision = goes_on;
        self.durable = goes_on;
    }

    /// Compares what a client saw with what it should have seen, and remembers that it was shown.
    pub(super) fn check(&mut self, what: &str, seen: &Seen, name: &Name, wanted: &Thing) {
        let got = if seen.partial {
            let Thing { node, phase, mark, status_mark, .. } = wanted.clone();
            Thing { node, phase, mark, status_mark, ..seen.thing.clone() }
        } else {
            seen.thing.clone()
        };
        let got = Thing { born: wanted.born, ..got };
        assert_eq!((&seen.name, &got), (name, wanted), "{what}");
        let life = (name.clone(), wanted.born);
        match self.uids.get(&life) {
            Some(uid) => assert_eq!(*uid, seen.uid, "ST8: {what}: another uid in the same life"),
            None => {
                assert!(!seen.uid.is_empty() && self.used.insert(seen.uid.clone()), "ST8: {what}: a uid of another life");
                self.uids.insert(life, seen.uid.clone());
            }
        }
        self.show(what, wanted.revision);
    }

    /// Something of this revision was shown.
    pub(super) fn show(&mut self, what: &str, revision: u64) {
        assert!(revision <= self.durable, "ST5: {what}: revision {revision} is shown, {} is on disk", self.durable);
        self.shown = self.shown.max(revision);
    }
}
