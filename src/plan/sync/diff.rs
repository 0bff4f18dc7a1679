//! Where two versions of an object differ, and how secrets are hidden in what is printed.

use serde_json::Value;

use crate::object::ours::{COMMIT_ANNOTATION, ORIGIN_ANNOTATION};

/// How many paths are named. A person reads a handful; the whole is in the diff.
const PATHS: usize = 20;

/// The dotted paths at which two versions differ, without the annotations by which we say where a change came from.
pub fn differences(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk("", old, new, &mut found);
    found.retain(|path| {
        !path.ends_with(COMMIT_ANNOTATION) && !path.ends_with(ORIGIN_ANNOTATION) && path != "metadata.resourceVersion"
    });
    found.truncate(PATHS);
    found
}

fn walk(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<&String> = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))).collect();
            names.sort();
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                walk(&path, a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                walk(&format!("{path}[{i}]"), a, b, found);
            }
        }
        (a, b) if a == b => {}
        _ => found.push(path.to_owned()),
    }
}

/// Copies in which the values of a Secret are hidden, so that two versions can be compared and printed: equal values stay equal, changed
/// ones show as changed. Other kinds come back as they are.
pub fn masked(old: Option<&Value>, new: Option<&Value>) -> (Option<Value>, Option<Value>) {
    let hide = |value: Option<&Value>, other: Option<&Value>, changed: &str| {
        let mut value = value?.clone();
        if value["kind"] == "Secret" && value["apiVersion"] == "v1" {
            // kubectl keeps a copy of everything here, values included.
            if let Some(annotations) = value["metadata"]["annotations"].as_object_mut() {
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            }
            for section in ["data", "stringData"] {
                let Some(fields) = value.get_mut(section).and_then(Value::as_object_mut) else { continue };
                for (name, field) in fields {
                    let same = other.is_none_or(|o| o[section].get(name) == Some(field));
                    *field = if same { "***" } else { changed }.into();
                }
            }
        }
        Some(value)
    };
    (hide(old, new, "*** (before)"), hide(new, old, "*** (after)"))
}
