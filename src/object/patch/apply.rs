//! Server-side apply: a manager says what it wants, owns those fields, and loses what it no longer mentions.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::fields::{self, Fields, Partners, View, under, view};
use super::managed::{self, Manager, Operation};
use crate::object::schema::{self, Field, Form, Type};
use crate::object::{Kind, admit};

/// Fields that somebody else owns and wants otherwise. The API answers 409 Conflict, with one `FieldManagerConflict` per entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts {
    /// One for each manager and field, in their order.
    pub fields: Vec<FieldConflict>,
}

/// One field and its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldConflict {
    /// The path as Kubernetes writes it: `.spec.template.spec.containers[name="web"].image`.
    pub field: String,
    /// Who owns it; with the version for one that did not apply: `conflict with "kubectl-scale" using apps/v1`.
    pub message: String,
}

/// `Apply failed with 1 conflict: conflict with "x" using apps/v1: .spec.replicas`.
impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fields.as_slice() {
            [one] => write!(f, "Apply failed with 1 conflict: {}: {}", one.message, one.field),
            many => {
                write!(f, "Apply failed with {} conflicts: ", many.len())?;
                let mut last = None;
                for conflict in many {
                    if last != Some(&conflict.message) {
                        let heading = conflict.message.replacen("conflict", "conflicts", 1);
                        write!(f, "{}{heading}:", if last.is_some() { "\n" } else { "" })?;
                        last = Some(&conflict.message);
                    }
                    write!(f, "\n- {}", conflict.field)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Conflicts {}

/// What an object becomes when `manager` applies `config` to it; with `force` it takes over what others own. `live: None` creates.
///
/// The result carries the new `managedFields`; applying the same again gives the same. A `managedFields` in `config` is not looked at.
/// Defaults and validation come afterwards, in `admit`. The status is not applied: that is another door.
pub fn apply(
    kind: &'static Kind,
    live: Option<&Value>,
    config: &Value,
    manager: &str,
    force: bool,
    now: Timestamp,
) -> Result<Value, Conflicts> {
    let root = Some(schema::of(kind));
    let mut config = config.clone();
    admit::canonical(kind, &mut config);
    if let Some(fields) = config.as_object_mut().filter(|_| kind.has("status")) {
        fields.remove("status");
    }
    if let Some(meta) = config.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
        meta.remove("resourceVersion");
        meta.remove("uid");
    }
    let mut applier = Manager::new(kind, manager, Operation::Apply, None, now);
    applier.fields = managed::ownable(kind, fields::all(root, None, &config), None);
    let Some(live) = live else {
        managed::write(&mut config, vec![applier]);
        return Ok(config);
    };

    let mut others = managed::of_live(kind, live);
    let before = others.iter().position(|known| known.is(&applier)).map(|place| others.remove(place));
    let mut result = live.clone();
    merge(root, None, &config, &mut result);
    if let Some(before) = &before {
        let mut kept = applier.fields.clone();
        others.iter().for_each(|other| kept.add(&other.fields));
        prune(root, &before.fields, &kept, &mut result);
    }

    let difference = fields::compare(root, None, live, &result);
    let mut conflicts = Vec::new();
    for other in &others {
        let message = format!("conflict with {}", other.show());
        let contested = other.fields.common(&difference.changed);
        conflicts.extend(contested.paths().into_iter().map(|field| FieldConflict { field, message: message.clone() }));
    }
    if !force && !conflicts.is_empty() {
        conflicts.sort_by(|a, b| (&a.message, &a.field).cmp(&(&b.message, &b.field)));
        return Err(Conflicts { fields: conflicts });
    }
    for other in &mut others {
        other.fields.subtract(&difference.changed);
        other.fields.subtract(&difference.gone);
    }
    if let Some(before) = before
        && before.fields == applier.fields
        && difference.changed.is_empty()
        && difference.gone.is_empty()
    {
        // Nothing new was said: the time of the last word stays.
        applier.time = before.time;
        applier.api_version = before.api_version;
    }
    others.push(applier);
    managed::write(&mut result, others);
    Ok(result)
}

/// Sets what is wanted and leaves the rest.
fn merge(of: Option<Type>, field: Option<&'static Field>, wanted: &Value, live: &mut Value) {
    match (view(of, field, wanted), &mut *live) {
        (View::Object(wanted), Value::Object(live)) => {
            for (name, value) in wanted {
                let (of, field) = under(of, name);
                match live.get_mut(name) {
                    Some(there) => merge(of, field, value, there),
                    None => drop(live.insert(name.clone(), value.clone())),
                }
            }
        }
        (View::List(wanted, kind, of), Value::Array(live)) => {
            let before = std::mem::take(live);
            let mut items = before.clone();
            let mut partners = Partners::of(kind, &before);
            let mut places = Vec::with_capacity(wanted.len());
            for element in wanted {
                let place = partners.take(element).unwrap_or(items.len());
                match items.get_mut(place) {
                    Some(there) => merge(of, None, element, there),
                    None => items.push(element.clone()),
                }
                places.push(place);
            }
            *live = order(before.len(), &places).into_iter().map(|place| items[place].take()).collect();
        }
        _ => *live = wanted.clone(),
    }
}

/// The order of a merged list, as Kubernetes has it for server-side apply: what is wanted stands in the order in which it is wanted, and
/// what only the live list has keeps its place before whatever it stood before. The first `live` places are those of the live list; `wanted`
/// says which places the wanted elements have, in their order.
fn order(live: usize, wanted: &[usize]) -> Vec<usize> {
    let mut shared = wanted.iter().copied().filter(|place| *place < live).peekable();
    let mut is_wanted = vec![false; live];
    for place in wanted.iter().filter(|place| **place < live) {
        is_wanted[*place] = true;
    }
    let mut order = Vec::with_capacity(live + wanted.len());
    let (mut left, mut right) = (0, 0);
    while left < live || right < wanted.len() {
        if left < live && !is_wanted[left] {
            order.push(left);
            left += 1;
            continue;
        }
        let next = shared.peek().copied();
        let stands_later = next.is_some_and(|next| next != left);
        if left < live && right < wanted.len() && stands_later {
            left += 1;
            continue;
        }
        let place = wanted.get(right).copied();
        // Taken now, or taken already.
        if left < live && (place == Some(left) || next != Some(left)) {
            left += 1;
        }
        if let Some(place) = place {
            order.push(place);
            right += 1;
            shared.next_if_eq(&place);
        }
    }
    order
}

/// Takes out what the manager owned before and nobody wants now.
///
/// A structure of which nobody keeps a field goes with the defaults in it. A map keeps the entries that nobody was recorded for.
fn prune(of: Option<Type>, owned: &Fields, kept: &Fields, live: &mut Value) {
    let is_map = matches!(of.map(Type::form), Some(Form::Map(_)));
    match live {
        Value::Object(entries) => prune_entries(of, is_map, owned, kept, entries),
        Value::Array(items) => {
            let item_type = match of.map(Type::form) {
                Some(Form::List(item)) => Some(*item),
                _ => None,
            };
            let steps = Steps::of(owned);
            let nothing = Fields::default();
            let mut place = 0;
            items.retain_mut(|item| {
                let found = steps.to(place, item);
                place += 1;
                let Some((step, rest)) = found.and_then(|step| owned.below.get_key_value(step)) else { return true };
                match kept.below.get(step) {
                    None if rest.own => false,
                    keep => {
                        prune(item_type, rest, keep.unwrap_or(&nothing), item);
                        true
                    }
                }
            });
        }
        _ => {}
    }
}

fn prune_entries(of: Option<Type>, is_map: bool, owned: &Fields, kept: &Fields, entries: &mut Map<String, Value>) {
    let nothing = Fields::default();
    for (step, rest) in &owned.below {
        let Some(name) = step.strip_prefix("f:") else { continue };
        let Some(there) = entries.get_mut(name) else { continue };
        let (below, field) = under(of, name);
        let keep = kept.below.get(step);
        let leaf = matches!(view(below, field, there), View::Leaf);
        let map = matches!(below.map(Type::form), Some(Form::Map(_)));
        match keep {
            None if leaf || !(map || is_map) => drop(entries.remove(name)),
            keep => {
                if leaf {
                    continue;
                }
                prune(below, rest, keep.unwrap_or(&nothing), there);
                if keep.is_none() && (there == &json!({}) || there == &json!([])) {
                    entries.remove(name);
                }
            }
        }
    }
}

/// The steps of a set that lead to elements of a list, by what they say of the element.
struct Steps<'a> {
    /// By the names of keys, and then by their values.
    keys: BTreeMap<Vec<String>, BTreeMap<String, &'a str>>,
    values: BTreeMap<String, &'a str>,
    places: BTreeMap<&'a str, &'a str>,
}

impl<'a> Steps<'a> {
    fn of(set: &'a Fields) -> Steps<'a> {
        let mut steps = Steps { keys: BTreeMap::new(), values: BTreeMap::new(), places: BTreeMap::new() };
        for step in set.below.keys() {
            match step.split_once(':') {
                Some(("v", value)) => {
                    if let Ok(value) = serde_json::from_str::<Value>(value) {
                        steps.values.insert(value.to_string(), step);
                    }
                }
                Some(("k", keys)) => {
                    if let Ok(keys) = serde_json::from_str::<Map<String, Value>>(keys) {
                        let (names, values): (Vec<String>, Vec<Value>) = keys.into_iter().unzip();
                        steps.keys.entry(names).or_default().insert(Value::Array(values).to_string(), step);
                    }
                }
                Some(("i", place)) => drop(steps.places.insert(place, step)),
                _ => {}
            }
        }
        steps
    }
    /// The step that leads to this element.
    fn to(&self, place: usize, item: &Value) -> Option<&'a str> {
        super::cost::tick();
        let by_place = self.places.get(place.to_string().as_str());
        let by_keys = || {
            self.keys.iter().find_map(|(names, steps)| {
                let values: Option<Vec<Value>> = names.iter().map(|name| fields::key_value(item, name)).collect();
                steps.get(&Value::Array(values?).to_string())
            })
        };
        by_place.or_else(by_keys).or_else(|| self.values.get(&item.to_string())).copied()
    }
}

#[cfg(test)]
mod tests;
