//! JSON patch (RFC 6902).

use serde_json::Value;

use super::PatchError;

/// A list of more operations is refused, as by Kubernetes.
const OPERATIONS_AT_MOST: usize = 10_000;
/// How many bytes the copy operations of one patch may add up to: each can double the document, so a short patch could fill the memory.
const COPIED_AT_MOST: usize = 3 << 20;
/// How many elements may be moved aside for those that are put in before them or taken out: ten thousand times the whole of a long list
/// would take a minute.
const MOVED_ASIDE_AT_MOST: usize = 20_000_000;

/// Applies a list of operations, all or nothing.
pub fn json_patch(target: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations =
        patch.as_array().ok_or_else(|| PatchError::Malformed("a JSON patch must be a list of operations".to_owned()))?;
    if operations.len() > OPERATIONS_AT_MOST {
        return Err(PatchError::Malformed(format!(
            "a JSON patch of {} operations: {OPERATIONS_AT_MOST} at most",
            operations.len()
        )));
    }
    let mut result = target.clone();
    let mut copied_bytes = 0;
    let mut aside = MOVED_ASIDE_AT_MOST;
    for operation in operations {
        let text = |name: &str| {
            operation[name]
                .as_str()
                .ok_or_else(|| PatchError::Malformed(format!("JSON patch operation without {name:?}: {operation}")))
        };
        let value = || {
            operation
                .get("value")
                .ok_or_else(|| PatchError::Malformed(format!("JSON patch operation without \"value\": {operation}")))
        };
        let path = pointer(text("path")?)?;
        match text("op")? {
            "add" => add(&mut result, &path, value()?.clone(), &mut aside)?,
            "remove" => drop(remove(&mut result, &path, &mut aside)?),
            "replace" => *find(&mut result, &path)? = value()?.clone(),
            "test" => {
                let found = find(&mut result, &path).ok();
                // A test for null also holds where nothing is, as in the library that Kubernetes uses.
                let holds = match found {
                    Some(found) => equal(found, value()?),
                    None => value()?.is_null(),
                };
                if !holds {
                    return Err(PatchError::NotApplicable(format!("testing value {} failed", text("path")?)));
                }
            }
            "move" => {
                let from = pointer(text("from")?)?;
                if path.len() > from.len() && path.starts_with(&from) {
                    return Err(PatchError::NotApplicable(format!("cannot move {} into itself", text("from")?)));
                }
                let moved = remove(&mut result, &from, &mut aside)?;
                add(&mut result, &path, moved, &mut aside)?;
            }
            "copy" => {
                let copied = find(&mut result, &pointer(text("from")?)?)?.clone();
                copied_bytes += copied.to_string().len();
                if copied_bytes > COPIED_AT_MOST {
                    return Err(PatchError::NotApplicable(format!("the patch copies more than {COPIED_AT_MOST} bytes")));
                }
                add(&mut result, &path, copied, &mut aside)?;
            }
            other => return Err(PatchError::Malformed(format!("unknown JSON patch operation {other:?}"))),
        }
    }
    Ok(result)
}

/// Numbers are equal when their values are: `1` and `1.0`.
fn equal(one: &Value, two: &Value) -> bool {
    one == two || matches!((one.as_f64(), two.as_f64()), (Some(a), Some(b)) if a == b)
}

fn pointer(text: &str) -> Result<Vec<String>, PatchError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let rest = text
        .strip_prefix('/')
        .ok_or_else(|| PatchError::Malformed(format!("JSON pointer {text:?} does not begin with \"/\"")))?;
    Ok(rest.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect())
}

fn missing(path: &[String]) -> PatchError {
    PatchError::NotApplicable(format!("path /{} does not exist", path.join("/")))
}

fn index(step: &str, length: usize, path: &[String]) -> Result<usize, PatchError> {
    let plain = step == "0" || (!step.starts_with('0') && step.bytes().all(|b| b.is_ascii_digit()) && !step.is_empty());
    match step.parse::<usize>() {
        Ok(index) if plain && index < length => Ok(index),
        _ => Err(missing(path)),
    }
}

fn find<'a>(target: &'a mut Value, path: &[String]) -> Result<&'a mut Value, PatchError> {
    let mut at = target;
    for step in path {
        at = match at {
            Value::Object(fields) => fields.get_mut(step).ok_or_else(|| missing(path))?,
            Value::Array(items) => {
                let index = index(step, items.len(), path)?;
                &mut items[index]
            }
            _ => return Err(missing(path)),
        };
    }
    Ok(at)
}

/// Counts the elements that are moved aside.
fn move_aside(count: usize, left: &mut usize) -> Result<(), PatchError> {
    *left = left.checked_sub(count).ok_or_else(|| PatchError::NotApplicable("the patch moves too many elements".to_owned()))?;
    Ok(())
}

fn add(target: &mut Value, path: &[String], value: Value, aside: &mut usize) -> Result<(), PatchError> {
    let Some((last, parents)) = path.split_last() else {
        *target = value;
        return Ok(());
    };
    match find(target, parents)? {
        Value::Object(fields) => drop(fields.insert(last.clone(), value)),
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => {
            let index = index(last, items.len() + 1, path)?;
            move_aside(items.len() - index, aside)?;
            items.insert(index, value);
        }
        _ => return Err(missing(path)),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &[String], aside: &mut usize) -> Result<Value, PatchError> {
    let Some((last, parents)) = path.split_last() else {
        return Ok(target.take());
    };
    match find(target, parents)? {
        Value::Object(fields) => fields.remove(last).ok_or_else(|| missing(path)),
        Value::Array(items) => {
            let index = index(last, items.len(), path)?;
            move_aside(items.len() - index, aside)?;
            Ok(items.remove(index))
        }
        _ => Err(missing(path)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::patch::merge_patch;

    #[test]
    fn operations() {
        let object = json!({"a": {"b~c/d": 1}, "l": [1, 2], "n": null});
        let rows = [
            (json!([{"op": "add", "path": "/x", "value": 1}]), Some(json!({"a": {"b~c/d": 1}, "l": [1, 2], "n": null, "x": 1}))),
            (json!([{"op": "add", "path": "/l/-", "value": 3}]), Some(json!({"a": {"b~c/d": 1}, "l": [1, 2, 3], "n": null}))),
            (json!([{"op": "add", "path": "/l/0", "value": 0}]), Some(json!({"a": {"b~c/d": 1}, "l": [0, 1, 2], "n": null}))),
            (json!([{"op": "add", "path": "/l/3", "value": 0}]), None),
            (json!([{"op": "add", "path": "/none/x", "value": 0}]), None),
            (json!([{"op": "remove", "path": "/a/b~0c~1d"}]), Some(json!({"a": {}, "l": [1, 2], "n": null}))),
            (json!([{"op": "remove", "path": "/nothing"}]), None),
            (json!([{"op": "replace", "path": "/l/1", "value": 5}]), Some(json!({"a": {"b~c/d": 1}, "l": [1, 5], "n": null}))),
            (json!([{"op": "replace", "path": "/nothing", "value": 5}]), None),
            (
                json!([{"op": "move", "from": "/l/0", "path": "/m"}]),
                Some(json!({"a": {"b~c/d": 1}, "l": [2], "n": null, "m": 1})),
            ),
            (json!([{"op": "move", "from": "/a", "path": "/a/b"}]), None),
            (json!([{"op": "copy", "from": "/l", "path": "/n"}]), Some(json!({"a": {"b~c/d": 1}, "l": [1, 2], "n": [1, 2]}))),
            (json!([{"op": "test", "path": "/l/0", "value": 1.0}]), Some(object.clone())),
            (json!([{"op": "test", "path": "/l/0", "value": 2}]), None),
            (json!([{"op": "test", "path": "/none", "value": null}]), Some(object.clone())),
            (json!([{"op": "add", "path": "/l/01", "value": 2}]), None),
            (json!([{"op": "add", "path": "", "value": 2}]), Some(json!(2))),
            (json!([{"op": "dance", "path": "/l"}]), None),
            (json!([{"op": "add", "path": "x", "value": 1}]), None),
            (json!([{"op": "add", "path": "/x"}]), None),
            (json!({}), None),
        ];
        for (patch, wanted) in rows {
            assert_eq!(json_patch(&object, &patch).ok(), wanted, "{patch}");
        }
    }

    #[test]
    fn merge_patches_as_in_the_appendix_of_rfc_7386() {
        let rows = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
        ];
        for (target, patch, wanted) in rows {
            assert_eq!(merge_patch(&target, &patch), Ok(wanted), "{patch} on {target}");
        }
        assert!(merge_patch(&json!({}), &json!([1])).is_err());
    }
}
