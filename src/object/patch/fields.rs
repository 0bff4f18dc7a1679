//! Sets of fields: what `managedFields` speaks of, read from and written as Kubernetes' `FieldsV1`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::object::schema::{Field, Form, ListKind, Type, facts};

/// A set of fields as a tree. A step is written as in `FieldsV1`: `f:name` for a field or a map's key, `k:{"name":"web"}` for an element
/// of a keyed list, `v:"x"` for an element of a set, `i:0` for a place.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields {
    /// Whether this very place belongs to the set.
    pub(super) own: bool,
    /// What is below.
    pub(super) below: BTreeMap<String, Fields>,
}

impl Fields {
    /// Reads a `fieldsV1`.
    pub(super) fn read(v1: &Value) -> Fields {
        let Some(entries) = v1.as_object() else { return Fields::default() };
        let below =
            entries.iter().filter(|(step, _)| *step != ".").map(|(step, rest)| (step.clone(), Fields::read(rest))).collect();
        Fields { own: entries.is_empty() || entries.contains_key("."), below }
    }
    /// Writes a `fieldsV1`.
    pub(super) fn write(&self) -> Value {
        let mut entries = Map::new();
        if self.own && !self.below.is_empty() {
            entries.insert(".".to_owned(), json!({}));
        }
        entries.extend(self.below.iter().map(|(step, rest)| (step.clone(), rest.write())));
        Value::Object(entries)
    }
    pub(super) fn is_empty(&self) -> bool {
        !self.own && self.below.is_empty()
    }
    /// Whether everything that belongs to the other set belongs to this one.
    pub(super) fn covers(&self, other: &Fields) -> bool {
        (self.own || !other.own)
            && other.below.iter().all(|(step, rest)| self.below.get(step).is_some_and(|mine| mine.covers(rest)))
    }
    pub(super) fn add(&mut self, other: &Fields) {
        self.own |= other.own;
        for (step, rest) in &other.below {
            self.below.entry(step.clone()).or_default().add(rest);
        }
    }
    pub(super) fn subtract(&mut self, other: &Fields) {
        self.own &= !other.own;
        for (step, rest) in &other.below {
            if let Some(mine) = self.below.get_mut(step) {
                mine.subtract(rest);
                if mine.is_empty() {
                    self.below.remove(step);
                }
            }
        }
    }
    pub(super) fn common(&self, other: &Fields) -> Fields {
        let both = self.below.iter().filter_map(|(step, rest)| Some((step.clone(), rest.common(other.below.get(step)?))));
        Fields { own: self.own && other.own, below: both.filter(|(_, rest)| !rest.is_empty()).collect() }
    }
    /// Every place that belongs to the set, as Kubernetes prints paths.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths(&mut String::new(), &mut paths);
        paths
    }
    fn collect_paths(&self, at: &mut String, paths: &mut Vec<String>) {
        if self.own {
            paths.push(at.clone());
        }
        for (step, rest) in &self.below {
            let length = at.len();
            at.push_str(&show(step));
            rest.collect_paths(at, paths);
            at.truncate(length);
        }
    }
}

/// `.spec`, `[name="web"]`, `[="x"]`, `[0]`.
fn show(step: &str) -> String {
    match step.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", keys)) => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        Some(("v", value)) => format!("[={value}]"),
        Some((_, place)) => format!("[{place}]"),
        None => step.to_owned(),
    }
}

/// What a value is to server-side apply.
pub(super) enum View<'a> {
    /// One value: a scalar, or something that is replaced as a whole.
    Leaf,
    /// A structure or a map.
    Object(&'a Map<String, Value>),
    /// A list whose elements are told apart.
    List(&'a [Value], ListKind, Option<Type>),
}

pub(super) fn view<'a>(of: Option<Type>, field: Option<&Field>, value: &'a Value) -> View<'a> {
    match value {
        Value::Object(entries) => {
            let form = of.map(Type::form);
            let whole = field.is_some_and(|f| f.fact.atomic)
                || matches!(form, Some(Form::Any) | None)
                || matches!(form, Some(Form::Struct(shape)) if shape.atomic);
            if whole { View::Leaf } else { View::Object(entries) }
        }
        Value::Array(items) => match (field.map_or(ListKind::Atomic, |f| f.fact.list), of.map(Type::form)) {
            (ListKind::Atomic, _) => View::Leaf,
            (kind, Some(Form::List(item))) => View::List(items, kind, Some(*item)),
            (kind, _) => View::List(items, kind, None),
        },
        _ => View::Leaf,
    }
}

/// The type and the facts of what is under a name.
pub(super) fn under(of: Option<Type>, name: &str) -> (Option<Type>, Option<&'static Field>) {
    match of.map(Type::form) {
        Some(Form::Struct(shape)) => match shape.fields.get(name) {
            Some(field) => (Some(field.of), Some(field)),
            None => (shape.open.then(Type::open), None),
        },
        Some(Form::Map(of)) => (Some(*of), None),
        Some(Form::Open) => (of, None),
        _ => (None, None),
    }
}

/// The step to an element of a list.
pub(super) fn step_to(kind: ListKind, place: usize, item: &Value) -> String {
    super::cost::tick();
    match kind {
        ListKind::Set => format!("v:{item}"),
        ListKind::Map(keys) => {
            let mut named = Map::new();
            for key in keys {
                match key_value(item, key) {
                    Some(value) => drop(named.insert((*key).to_owned(), value)),
                    None => return format!("i:{place}"),
                }
            }
            format!("k:{}", Value::Object(named))
        }
        ListKind::Atomic => format!("i:{place}"),
    }
}

/// Every field of a value.
pub(super) fn all(of: Option<Type>, field: Option<&'static Field>, value: &Value) -> Fields {
    let mut fields = Fields::default();
    match view(of, field, value) {
        View::Leaf => fields.own = true,
        View::Object(entries) => {
            fields.own = entries.is_empty();
            for (name, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
                let (of, field) = under(of, name);
                fields.below.insert(format!("f:{name}"), all(of, field, value));
            }
        }
        View::List(items, kind, of) => {
            fields.own = items.is_empty();
            for (place, item) in items.iter().enumerate() {
                let mut below = all(of, None, item);
                below.own = true;
                fields.below.insert(step_to(kind, place, item), below);
            }
        }
    }
    fields
}

/// What differs between two values: what is new or changed, and what is gone.
#[derive(Default)]
pub(super) struct Difference {
    pub(super) changed: Fields,
    pub(super) gone: Fields,
}

pub(super) fn compare(of: Option<Type>, field: Option<&'static Field>, old: &Value, new: &Value) -> Difference {
    if old == new { Difference::default() } else { differing(of, field, old, new) }
}

/// The same of two values that are known to differ: nothing is compared once more at each level.
fn differing(of: Option<Type>, field: Option<&'static Field>, old: &Value, new: &Value) -> Difference {
    let mut difference = Difference::default();
    match (view(of, field, old), view(of, field, new)) {
        (View::Object(before), View::Object(after)) => {
            for (name, value) in after.iter().filter(|(_, value)| !value.is_null()) {
                let was = before.get(name).filter(|v| !v.is_null());
                if was == Some(value) {
                    continue;
                }
                let (of, field) = under(of, name);
                let step = format!("f:{name}");
                match was {
                    Some(was) => difference.put(step, differing(of, field, was, value)),
                    None => drop(difference.changed.below.insert(step, all(of, field, value))),
                }
            }
            for (name, value) in
                before.iter().filter(|(name, value)| !value.is_null() && after.get(*name).is_none_or(Value::is_null))
            {
                let (of, field) = under(of, name);
                difference.gone.below.insert(format!("f:{name}"), named(all(of, field, value)));
            }
        }
        (View::List(before, kind, of), View::List(after, ..)) => {
            let steps = |list: &[Value]| -> Vec<String> {
                list.iter().enumerate().map(|(place, item)| step_to(kind, place, item)).collect()
            };
            let (was, is) = (steps(before), steps(after));
            let (there, then) = (first_places(was.iter().cloned().map(Some)), first_places(is.iter().cloned().map(Some)));
            for (step, item) in is.into_iter().zip(after) {
                match there.get(&step) {
                    Some(place) => difference.put(step, compare(of, None, &before[*place], item)),
                    None => drop(difference.changed.below.insert(step, named(all(of, None, item)))),
                }
            }
            for (step, item) in was.into_iter().zip(before).filter(|(step, _)| !then.contains_key(step)) {
                difference.gone.below.insert(step, named(all(of, None, item)));
            }
        }
        _ => difference.changed.own = true,
    }
    difference
}

/// A place that is gone takes with it whatever anybody had there, the place itself included.
fn named(mut fields: Fields) -> Fields {
    fields.own = true;
    fields
}

impl Difference {
    fn put(&mut self, step: String, below: Difference) {
        if !below.changed.is_empty() {
            self.changed.below.insert(step.clone(), below.changed);
        }
        if !below.gone.is_empty() {
            self.gone.below.insert(step, below.gone);
        }
    }
}

/// The value of a key field of a list's element, or the default that Kubernetes gives it.
pub(super) fn key_value(item: &Value, key: &str) -> Option<Value> {
    item.get(key).filter(|v| !v.is_null()).cloned().or_else(|| {
        let (_, default) = facts::KEY_DEFAULTS.iter().find(|(name, _)| *name == key)?;
        Some(Value::String((*default).to_owned()))
    })
}

/// What makes an element of a list the one that it is, as text; `None` where nothing does. Two elements are the same one when both have
/// the same. A text, so that lists can be indexed by it: comparing each with each would take minutes for what fits into one request.
pub(super) fn identity(kind: ListKind, item: &Value) -> Option<String> {
    super::cost::tick();
    match kind {
        ListKind::Atomic => None,
        ListKind::Set => Some(item.to_string()),
        ListKind::Map(keys) => {
            let values: Option<Vec<Value>> = keys.iter().map(|key| key_value(item, key)).collect();
            Some(Value::Array(values?).to_string())
        }
    }
}

/// Where in a list each of these is first.
pub(super) fn first_places(list: impl Iterator<Item = Option<String>>) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    for (place, what) in list.enumerate() {
        if let Some(what) = what {
            places.entry(what).or_insert(place);
        }
    }
    places
}

/// The elements of a list, each to be found once. Lists with two elements of the same keys are allowed in some places (`env`), and the
/// second must not be taken for the first.
pub(super) struct Partners {
    kind: ListKind,
    /// The last places first.
    free: BTreeMap<String, Vec<usize>>,
}

impl Partners {
    pub(super) fn of(kind: ListKind, items: &[Value]) -> Partners {
        let mut free: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, item) in items.iter().enumerate().rev() {
            if let Some(identity) = identity(kind, item) {
                free.entry(identity).or_default().push(place);
            }
        }
        Partners { kind, free }
    }
    /// The place of the first element that is the same as this one and has no partner yet.
    pub(super) fn take(&mut self, element: &Value) -> Option<usize> {
        self.free.get_mut(&identity(self.kind, element)?)?.pop()
    }
}
