//! Strategic merge patch: what kubectl sends for Kubernetes' own kinds.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::PatchError;
use super::fields::{first_places, under};
use crate::object::Kind;
use crate::object::schema::{self, Form, Type};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// A merge patch that merges lists by the keys which the kind's schema names, with `$patch` (`delete`, `replace`, `merge`),
/// `$setElementOrder`, `$deleteFromPrimitiveList` and `$retainKeys`.
pub fn strategic(kind: &'static Kind, target: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (Value::Object(fields), Value::Object(patch)) = (target, patch) else {
        return Err(PatchError::Malformed("a strategic merge patch must be an object".to_owned()));
    };
    Ok(Value::Object(merge_fields(Some(schema::of(kind)), fields.clone(), patch)?))
}

fn malformed<T>(what: impl Into<String>) -> Result<T, PatchError> {
    Err(PatchError::Malformed(what.into()))
}

fn merge_fields(
    of: Option<Type>,
    mut target: Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Map<String, Value>, PatchError> {
    match patch.get(DIRECTIVE).map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => {
            return Ok(patch
                .iter()
                .filter(|(name, _)| *name != DIRECTIVE)
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect());
        }
        Some(Some("delete")) => return Ok(Map::new()),
        Some(other) => return malformed(format!("unknown patch type {}", other.unwrap_or("(not a string)"))),
    }
    if let Some(keys) = patch.get(RETAIN_KEYS) {
        let Some(keys) = keys.as_array() else { return malformed(format!("{RETAIN_KEYS} must be a list")) };
        let keys: BTreeSet<&str> = keys.iter().filter_map(Value::as_str).collect();
        target.retain(|name, _| keys.contains(name.as_str()));
    }
    for (name, values) in patch {
        let Some(name) = name.strip_prefix(DELETE_FROM) else { continue };
        let Some(values) = values.as_array() else { return malformed(format!("{DELETE_FROM}{name} must be a list")) };
        if let Some(items) = target.get_mut(name).and_then(Value::as_array_mut) {
            let values: BTreeSet<String> = values.iter().map(Value::to_string).collect();
            items.retain(|item| !values.contains(&item.to_string()));
        }
    }
    for (name, value) in patch {
        if name == DIRECTIVE || name == RETAIN_KEYS || name.starts_with(ORDER) || name.starts_with(DELETE_FROM) {
            continue;
        }
        if value.is_null() {
            target.remove(name);
            continue;
        }
        let (of, field) = under(of, name);
        let replaced = field.is_some_and(|field| field.fact.replace);
        let before = target.remove(name).filter(|_| !replaced);
        let after = match (value, before) {
            (Value::Object(patch), Some(Value::Object(fields))) => Value::Object(merge_fields(of, fields, patch)?),
            (Value::Object(patch), _) if patch.get(DIRECTIVE).is_some_and(|d| d == "delete") => continue,
            // Merged into nothing, so that no directive and no null stays in the result.
            (Value::Object(patch), _) => Value::Object(merge_fields(of, Map::new(), patch)?),
            (Value::Array(patch), before) => {
                let item = match of.map(Type::form) {
                    Some(Form::List(item)) => Some(*item),
                    _ => None,
                };
                match field.and_then(|f| f.fact.merge) {
                    Some(key) => {
                        let before = match before {
                            Some(Value::Array(items)) => items,
                            _ => Vec::new(),
                        };
                        Value::Array(merge_list(item, key, before, patch)?)
                    }
                    None => Value::Array(patch.clone()),
                }
            }
            (scalar, _) => scalar.clone(),
        };
        target.insert(name.clone(), after);
    }
    for (name, wanted) in patch {
        let Some(name) = name.strip_prefix(ORDER) else { continue };
        let Some(wanted) = wanted.as_array() else { return malformed(format!("{ORDER}{name} must be a list")) };
        let key = under(of, name).1.and_then(|f| f.fact.merge).unwrap_or("");
        if let Some(Value::Array(items)) = target.get_mut(name) {
            let merged = std::mem::take(items);
            *items = order(merged.clone(), wanted, &merged, |item| identity(item, key));
        }
    }
    Ok(target)
}

/// By what elements are the same one: a field of theirs, or for scalars (no key) they themselves.
fn identity(item: &Value, key: &str) -> Option<String> {
    super::cost::tick();
    if key.is_empty() { Some(item.to_string()) } else { item.get(key).map(Value::to_string) }
}

fn merge_list(of: Option<Type>, key: &str, before: Vec<Value>, patch: &[Value]) -> Result<Vec<Value>, PatchError> {
    let live = before.clone();
    let mut items = before;
    let mut wanted: Vec<&Value> = Vec::new();
    let mut deleted = BTreeSet::new();
    for element in patch {
        let directive = element.get(DIRECTIVE).map(|d| d.as_str().unwrap_or_default());
        if !key.is_empty() && element.get(key).is_none() && directive != Some("replace") {
            return malformed(format!("map: {element} does not contain declared merge key: {key}"));
        }
        match directive {
            None | Some("merge") => wanted.push(element),
            Some("delete") => deleted.extend(identity(element, key)),
            // Beside elements, it says that they are the whole list.
            Some("replace") => items.clear(),
            Some(other) => return malformed(format!("unknown patch type {other}")),
        }
    }
    if !deleted.is_empty() {
        items.retain(|item| identity(item, key).is_none_or(|identity| !deleted.contains(&identity)));
    }
    let mut places = first_places(items.iter().map(|item| identity(item, key)));
    for element in &wanted {
        let place = identity(element, key).and_then(|identity| places.get(&identity).copied());
        match (element, place) {
            (Value::Object(patch), place) => {
                let before = match place.map(|place| items[place].take()) {
                    Some(Value::Object(fields)) => fields,
                    _ => Map::new(),
                };
                let merged = Value::Object(merge_fields(of, before, patch)?);
                match place {
                    Some(place) => items[place] = merged,
                    None => {
                        if let Some(identity) = identity(&merged, key) {
                            places.entry(identity).or_insert(items.len());
                        }
                        items.push(merged);
                    }
                }
            }
            (_, Some(_)) => {}
            (scalar, None) => {
                if let Some(identity) = identity(scalar, key) {
                    places.entry(identity).or_insert(items.len());
                }
                items.push((*scalar).clone());
            }
        }
    }
    let wanted: Vec<Value> = wanted.into_iter().cloned().collect();
    Ok(order(items, &wanted, &live, |item| identity(item, key)))
}

/// Puts elements that `wanted` names into its order, and every other before the first of those that it preceded in `live`.
pub(super) fn order(
    items: Vec<Value>,
    wanted: &[Value],
    live: &[Value],
    identity: impl Fn(&Value) -> Option<String>,
) -> Vec<Value> {
    /// An element, and its places in what is wanted and in what is there.
    struct Placed(Value, Option<usize>, Option<usize>);
    let (in_wanted, in_live) = (first_places(wanted.iter().map(&identity)), first_places(live.iter().map(&identity)));
    let placed = items.into_iter().map(|item| {
        let identity = identity(&item);
        let place = |list: &std::collections::BTreeMap<String, usize>| list.get(identity.as_ref()?).copied();
        let (wanted, live) = (place(&in_wanted), place(&in_live));
        Placed(item, wanted, live)
    });
    let (mut named, mut others): (Vec<Placed>, Vec<Placed>) = placed.partition(|item| item.1.is_some());
    named.sort_by_key(|item| item.1);
    others.sort_by_key(|item| item.2.unwrap_or(usize::MAX));
    let mut result = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return result,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(next)) => matches!((other.2, next.2), (Some(a), Some(b)) if a < b),
        };
        result.extend(if other_first { others.next() } else { named.next() }.map(|item| item.0));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::KINDS;

    fn patched(kind: &str, target: Value, patch: Value) -> Result<Value, PatchError> {
        strategic(KINDS.iter().find(|k| k.kind == kind).unwrap(), &target, &patch)
    }

    /// The containers of a pod after a patch of its containers.
    fn containers(before: Value, patch: Value) -> Value {
        let mut patch = patch;
        if patch.is_array() {
            patch = json!({"containers": patch});
        }
        patched("Pod", json!({"spec": {"containers": before}}), json!({"spec": patch})).unwrap()["spec"]["containers"].take()
    }

    #[test]
    fn lists_are_merged_by_their_keys() {
        let before = json!([{"name": "a", "image": "a:1", "args": ["x"]}, {"name": "b", "image": "b:1"}]);
        let rows = [
            (
                json!([{"name": "b", "image": "b:2"}]),
                json!([{"name": "a", "image": "a:1", "args": ["x"]}, {"name": "b", "image": "b:2"}]),
            ),
            (
                json!([{"name": "a", "args": ["y"]}]),
                json!([{"name": "a", "image": "a:1", "args": ["y"]}, {"name": "b", "image": "b:1"}]),
            ),
            (json!([{"name": "a", "args": null}]), json!([{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}])),
            (json!([{"name": "a", "$patch": "delete"}]), json!([{"name": "b", "image": "b:1"}])),
            (json!([{"name": "c", "image": null}, {"$patch": "replace"}]), json!([{"name": "c"}])),
            (
                json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
                json!([{"name": "b", "image": "b:1"}, {"name": "a", "image": "a:1", "args": ["x"]}]),
            ),
            (
                json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}], "containers": [{"name": "c", "image": "c"}]}),
                json!([{"name": "c", "image": "c"}, {"name": "a", "image": "a:1", "args": ["x"]}, {"name": "b", "image": "b:1"}]),
            ),
        ];
        for (patch, wanted) in rows {
            assert_eq!(containers(before.clone(), patch.clone()), wanted, "{patch}");
        }
    }

    #[test]
    fn directives() {
        let strategy = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        assert_eq!(patched("Deployment", strategy, patch).unwrap(), json!({"spec": {"strategy": {"type": "Recreate"}}}));

        let finalizers = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]}});
        assert_eq!(patched("Pod", finalizers, patch).unwrap(), json!({"metadata": {"finalizers": ["c", "b"]}}));

        let labels = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "annotations": {"x": "y"}}});
        let patch =
            json!({"metadata": {"labels": {"a": null, "c": "3", "none": null}, "annotations": {"$patch": "replace", "z": "1"}}});
        let wanted = json!({"metadata": {"labels": {"b": "2", "c": "3"}, "annotations": {"z": "1"}}});
        assert_eq!(patched("ConfigMap", labels, patch).unwrap(), wanted);

        // A volume changes its source.
        let volumes = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
        let patch =
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}});
        assert_eq!(
            patched("Pod", volumes, patch).unwrap(),
            json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}})
        );

        // Nothing of a patch's own language stays where there was nothing to merge with.
        let patch = json!({"spec": {"containers": [{"name": "a", "image": "x", "command": null, "env": [{"name": "A", "$patch": "delete"}]}]}});
        assert_eq!(
            patched("Pod", json!({}), patch).unwrap(),
            json!({"spec": {"containers": [{"name": "a", "image": "x", "env": []}]}})
        );
    }

    #[test]
    fn a_selector_is_replaced_where_kubernetes_says_so() {
        let selecting = |labels: Value| json!({"spec": {"selector": {"matchLabels": labels}}});
        let (before, patch) = (selecting(json!({"a": "1"})), selecting(json!({"b": "2", "c": null})));
        let replaced = patched("PodDisruptionBudget", before.clone(), patch.clone()).unwrap();
        assert_eq!(replaced, selecting(json!({"b": "2"})));
        // Elsewhere its labels are merged.
        assert_eq!(patched("Deployment", before, patch).unwrap(), selecting(json!({"a": "1", "b": "2"})));
    }

    #[test]
    fn atomic_lists_are_replaced() {
        let node = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
        let patch = json!({"spec": {"taints": [{"key": "b", "effect": "NoExecute"}]}});
        assert_eq!(patched("Node", node, patch.clone()).unwrap(), patch);
    }

    #[test]
    fn refused() {
        for patch in [
            json!([]),
            json!({"spec": {"containers": [{"image": "x"}]}}),
            json!({"spec": {"$patch": "shuffle"}}),
            json!({"spec": {"$retainKeys": "x"}}),
        ] {
            assert!(matches!(patched("Pod", json!({"spec": {}}), patch.clone()), Err(PatchError::Malformed(_))), "{patch}");
        }
    }
}
