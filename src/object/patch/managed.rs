//! Who owns which field: `metadata.managedFields`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::SERVER_SETS;
use super::fields::{self, Fields};
use crate::object::{Kind, admit, schema};

/// How a manager came to own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// It applied.
    Apply,
    /// It created, replaced or patched.
    Update,
}

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// The manager of what was there before anybody was recorded.
const BEFORE: &str = "before-first-apply";

/// One entry of `managedFields`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Manager {
    pub(super) operation: Operation,
    pub(super) name: String,
    pub(super) subresource: String,
    pub(super) api_version: String,
    pub(super) time: String,
    pub(super) fields: Fields,
}

impl Manager {
    pub(super) fn new(kind: &Kind, name: &str, operation: Operation, subresource: Option<&str>, now: Timestamp) -> Manager {
        Manager {
            operation,
            name: name.to_owned(),
            subresource: subresource.unwrap_or_default().to_owned(),
            api_version: kind.api_version(),
            time: crate::object::time::seconds(now),
            fields: Fields::default(),
        }
    }
    pub(super) fn is(&self, other: &Manager) -> bool {
        (self.operation, &self.name, &self.subresource) == (other.operation, &other.name, &other.subresource)
    }
    /// As Kubernetes names it in conflicts.
    pub(super) fn show(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text += &format!(" using {}", self.api_version);
        }
        text
    }
}

/// The recorded managers of an object.
pub(super) fn read(object: &Value) -> Vec<Manager> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    entries
        .filter(|entry| !text(entry, "manager").is_empty())
        .map(|entry| Manager {
            operation: if entry["operation"] == "Apply" { Operation::Apply } else { Operation::Update },
            name: text(entry, "manager"),
            subresource: text(entry, "subresource"),
            api_version: text(entry, "apiVersion"),
            time: text(entry, "time"),
            fields: Fields::read(&entry["fieldsV1"]),
        })
        .collect()
}

/// Records the managers in an object, in Kubernetes' order; who owns nothing any more is forgotten.
pub(super) fn write(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|manager| !manager.fields.is_empty());
    managers
        .sort_by(|a, b| (a.operation, &a.time, &a.name, &a.subresource).cmp(&(b.operation, &b.time, &b.name, &b.subresource)));
    let entries: Vec<Value> = managers
        .iter()
        .map(|manager| {
            let mut entry = json!({
                "manager": manager.name,
                "operation": manager.operation.word(),
                "apiVersion": manager.api_version,
                "time": manager.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": manager.fields.write(),
            });
            if !manager.subresource.is_empty() {
                entry["subresource"] = manager.subresource.clone().into();
            }
            entry
        })
        .collect();
    let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if entries.is_empty() {
        meta.remove("managedFields");
    } else {
        meta.insert("managedFields".to_owned(), entries.into());
    }
}

/// The part of a set that a write through this door can own: not the identity, and either the status or everything else.
pub(super) fn ownable(kind: &Kind, mut fields: Fields, subresource: Option<&str>) -> Fields {
    for identity in ["f:apiVersion", "f:kind"] {
        fields.below.remove(identity);
    }
    if let Some(meta) = fields.below.get_mut("f:metadata") {
        for server_sets in ["name", "namespace"].iter().chain(SERVER_SETS) {
            meta.below.remove(&format!("f:{server_sets}"));
        }
        meta.own = false;
        if meta.below.is_empty() {
            fields.below.remove("f:metadata");
        }
    }
    match subresource {
        Some("status") => fields.below.retain(|step, _| step == "f:status"),
        _ if kind.has("status") => drop(fields.below.remove("f:status")),
        _ => {}
    }
    fields.own = false;
    fields
}

/// The managers of a live object. One that nobody was ever recorded for belongs to who was there before.
pub(super) fn of_live(kind: &'static Kind, live: &Value) -> Vec<Manager> {
    let managers = read(live);
    if !managers.is_empty() {
        return managers;
    }
    let mut before = Manager::new(kind, BEFORE, Operation::Update, None, Timestamp::UNIX_EPOCH);
    if let Some(created) = live["metadata"]["creationTimestamp"].as_str() {
        before.time = created.to_owned();
    }
    before.fields = ownable(kind, fields::all(Some(schema::of(kind)), None, live), None);
    vec![before]
}

/// Records that `manager` made `new` out of `old`: what it added or changed is now its own, what is gone is nobody's.
///
/// Fills in the defaults of `new` first (as admission does anyway), because a default that came with a write belongs to its writer.
/// An explicit empty `managedFields` in `new` forgets everything that was recorded.
pub fn track(
    kind: &'static Kind,
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    operation: Operation,
    subresource: Option<&str>,
    now: Timestamp,
) {
    admit::prepare(kind, new);
    let subresource = subresource.filter(|s| !s.is_empty());
    let sent = new["metadata"]["managedFields"].as_array();
    let forget = sent.is_some_and(|list| list.iter().all(|entry| entry.as_object().is_some_and(serde_json::Map::is_empty)));
    // Who sends a record of its own means it: this is how kubectl hands fields from client-side to server-side apply.
    let own = sent.is_some_and(|list| {
        !list.is_empty()
            && list.iter().all(|entry| entry["fieldsV1"].is_object() && entry["manager"].as_str().is_some_and(|m| !m.is_empty()))
    });
    let mut managers = match old {
        _ if forget => Vec::new(),
        Some(_) if own => read(new),
        Some(old) => read(old),
        None => Vec::new(),
    };
    if forget && old.is_some() {
        return write(new, managers);
    }
    let mut writer = Manager::new(kind, manager, operation, subresource, now);
    let known = managers.iter().position(|known| known.is(&writer));
    let differs = |before: &Value, new: &Value| {
        let difference = fields::compare(Some(schema::of(kind)), None, before, new);
        (ownable(kind, difference.changed, subresource), ownable(kind, difference.gone, subresource))
    };
    // An old version from before a default was known should not make this writer its owner. Who owns already whatever differs (a host that
    // renews its lease) comes to own nothing, so that the old version need not be prepared for it.
    let prepared = |old: &Value| {
        let mut before = old.clone();
        admit::prepare(kind, &mut before);
        before
    };
    let (changed, gone) = match old {
        None => differs(&json!({}), new),
        Some(old) => known
            .and_then(|at| Some(differs(old, new)).filter(|(changed, _)| managers[at].fields.covers(changed)))
            .unwrap_or_else(|| differs(&prepared(old), new)),
    };
    if changed.is_empty() && gone.is_empty() {
        return write(new, managers);
    }
    for other in &mut managers {
        other.fields.subtract(&changed);
        other.fields.subtract(&gone);
    }
    if !changed.is_empty() {
        writer.fields = changed;
        match known.map(|at| &mut managers[at]) {
            Some(known) => {
                known.fields.add(&writer.fields);
                known.time = writer.time;
                known.api_version = writer.api_version;
            }
            None => managers.push(writer),
        }
    }
    cap(&mut managers);
    write(new, managers);
}

/// How many managers that did not apply an object remembers by name, as in Kubernetes: a client that calls itself something else each time
/// must not make it grow.
const UPDATERS_AT_MOST: usize = 10;
/// What the oldest of them are called when they are too many.
const ANCIENT: &str = "ancient-changes";

/// Puts the oldest updates together until they are few enough: one entry for each version that they were written in.
fn cap(managers: &mut Vec<Manager>) {
    let mut too_many = managers.iter().filter(|m| m.operation != Operation::Apply).count().saturating_sub(UPDATERS_AT_MOST);
    if too_many == 0 {
        return;
    }
    let mut updaters: Vec<Manager> = managers.extract_if(.., |manager| manager.operation != Operation::Apply).collect();
    let age = |m: &Manager| (m.name != ANCIENT, m.time.clone(), m.name.clone(), m.subresource.clone());
    updaters.sort_by_cached_key(age);
    let mut kept: Vec<Manager> = Vec::new();
    for manager in updaters {
        // Everything before is older, so the first of the same version is where its like are gathered.
        match kept.iter_mut().find(|old| old.api_version == manager.api_version) {
            Some(bucket) if too_many > 0 => {
                bucket.name = ANCIENT.to_owned();
                bucket.subresource.clear();
                bucket.fields.add(&manager.fields);
                bucket.time = manager.time;
                too_many -= 1;
            }
            _ => kept.push(manager),
        }
    }
    managers.extend(kept);
}
