//! Defaults of CustomResourceDefinitions.

use serde_json::{Value, json};

/// Names that follow from the kind, and a conversion that changes nothing.
pub fn definition(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
        let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        for (name, default) in [("singular", kind.to_ascii_lowercase()), ("listKind", format!("{kind}List"))] {
            if !kind.is_empty() && names.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                names.insert(name.to_owned(), default.into());
            }
        }
    }
    let conversion = spec.entry("conversion").or_insert_with(|| json!({}));
    if conversion.as_object().is_some_and(serde_json::Map::is_empty) {
        *conversion = json!({"strategy": "None"});
    }
}
