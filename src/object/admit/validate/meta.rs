//! What may be written in `metadata`.

use serde_json::Value;

use super::causes::{Causes, list, text};
use super::names;
use crate::object::Kind;

/// How many bytes all annotations of an object may have together.
const ANNOTATIONS_AT_MOST: usize = 256 * 1024;

pub(super) fn metadata(c: &mut Causes, kind: &'static Kind, meta: &Value) {
    let name = text(&meta["name"]);
    let rule = match (kind.group, kind.kind) {
        ("", "Namespace") | ("apps", "StatefulSet") => names::label,
        ("", "Service") => names::service,
        (crate::object::kind::RBAC, _) => names::path_segment,
        _ => names::subdomain,
    };
    if name.is_empty() {
        c.required("metadata.name", "name or generateName is required");
    } else {
        c.name("metadata.name", name, rule);
    }
    let namespace = text(&meta["namespace"]);
    if !kind.namespaced {
        if !namespace.is_empty() {
            c.forbidden("metadata.namespace", "not allowed on this type");
        }
    } else {
        c.required_name("metadata.namespace", namespace, names::label);
    }
    c.labels("metadata.labels", &meta["labels"]);
    annotations(c, "metadata.annotations", &meta["annotations"]);
    for (_, finalizer) in list(&meta["finalizers"]) {
        c.name("metadata.finalizers", text(finalizer), names::qualified);
    }
    let mut controllers = Vec::new();
    for (_, owner) in list(&meta["ownerReferences"]) {
        for (field, what) in [("apiVersion", "version"), ("kind", "kind"), ("name", "name"), ("uid", "uid")] {
            if text(&owner[field]).is_empty() {
                c.invalid(format!("metadata.ownerReferences.{field}"), "", &format!("{what} must not be empty"));
            }
        }
        if owner["controller"] == true {
            controllers.push(text(&owner["name"]));
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        c.invalid(
            "metadata.ownerReferences",
            meta["ownerReferences"].clone(),
            &format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"),
        );
    }
}

pub(super) fn annotations(c: &mut Causes, field: &str, annotations: &Value) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        size += key.len() + text(value).len();
        // Keys of annotations may be written in capitals, but are judged as if they were not.
        c.name(field, &key.to_lowercase(), names::qualified);
    }
    if size > ANNOTATIONS_AT_MOST {
        c.too_long(field, ANNOTATIONS_AT_MOST);
    }
}
