//! Ways to change an object without sending all of it: JSON patch, merge patch, strategic merge patch, server-side apply; and the
//! three-way merge with which git's wishes meet what runs.
//!
//! These functions know trees and schemas. Whether the result may be stored is decided in [`admit`](super::admit).

pub mod apply;
mod cost;
mod fields;
mod json;
pub mod managed;
mod strategic;
mod threeway;

use serde_json::Value;

pub use json::json_patch;
pub use strategic::strategic;
pub use threeway::three_way;

/// Metadata that belongs to the server. A manifest that was copied from a cluster carries it; it is not anybody's wish.
const SERVER_SETS: &[&str] = &[
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// What somebody wishes with a manifest: it, without the status and without metadata that belongs to the server.
pub fn wish(manifest: &Value) -> Value {
    let mut wish = manifest.clone();
    if let Some(object) = wish.as_object_mut() {
        object.remove("status");
    }
    if let Some(meta) = wish.get_mut("metadata").and_then(Value::as_object_mut) {
        for name in SERVER_SETS {
            meta.remove(*name);
        }
    }
    wish
}

/// A patch that cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// It is not a patch of its sort. The API answers 400 BadRequest.
    #[error("{0}")]
    Malformed(String),
    /// It does not fit this object: a path is not there, a test failed. The API answers 422 Invalid.
    #[error("{0}")]
    NotApplicable(String),
}

/// Merge patch (RFC 7386): objects are merged, null removes, everything else replaces.
pub fn merge_patch(target: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed("a merge patch must be an object".to_owned()));
    }
    let mut merged = target.clone();
    merge(&mut merged, patch);
    Ok(merged)
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Default::default());
    }
    let fields = target.as_object_mut().expect("just made");
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}
