//! The forms in which a client may have its answer: the objects, a table, only their metadata, or only some of their fields.
//!
//! Tables are what `kubectl get` asks for, so that a server decides which columns a kind has. Which columns those are is said in
//! `object::columns`; here is how a table travels, and what of the object travels with each row. Which fields a path leads to is said in
//! `object::fields`.

use std::sync::Arc;

use http::HeaderMap;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::failure::Failure;
use super::path::Query;
use crate::object::fields::Fields;
use crate::object::{Kind, Object};

/// The group and version of parts of objects.
const PARTIAL: &str = "portolan.dev/v1alpha1";

/// The form in which a client wants its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The objects themselves.
    Objects,
    /// A `meta.k8s.io` Table.
    Table {
        /// `v1`, or `v1beta1` for old clients.
        version: &'static str,
        /// What of the object goes with its row.
        include: Include,
    },
    /// Only `metadata`, as `PartialObjectMetadata`.
    Metadata {
        /// `v1`, or `v1beta1` for old clients.
        version: &'static str,
    },
    /// Only some fields, as `PartialObject`.
    Fields(Arc<Fields>),
}

/// What of the object goes with its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Include {
    None,
    Metadata,
    Object,
}

impl Form {
    /// Chooses the first form in `Accept` that this server has. JSON is also the answer to those who would rather have protobuf but take
    /// JSON.
    pub(super) fn negotiate(headers: &HeaderMap, query: &Query) -> Result<Form, Failure> {
        let mut asked = false;
        for value in headers.get_all(http::header::ACCEPT) {
            for option in value.to_str().unwrap_or("").split(',').map(str::trim).filter(|o| !o.is_empty()) {
                asked = true;
                let mut parts = option.split(';').map(str::trim);
                let media = parts.next().unwrap_or("").to_ascii_lowercase();
                if !matches!(media.as_str(), "*/*" | "application/*" | "application/json") {
                    continue;
                }
                let parts: Vec<&str> = parts.collect();
                let parameter = |name: &str| parts.iter().find_map(|p| p.strip_prefix(name)?.strip_prefix('='));
                if parameter("g") == Some("portolan.dev") {
                    if parameter("v") == Some("v1alpha1")
                        && matches!(parameter("as"), Some("PartialObject" | "PartialObjectList"))
                    {
                        let fields = Fields::parse(query.get("fields"));
                        let fields = fields.map_err(|why| Failure::bad_request(format!("fields: Invalid value: {why}")))?;
                        return Ok(Form::Fields(Arc::new(fields)));
                    }
                    continue;
                }
                let version = match parameter("v") {
                    None | Some("v1") => "v1",
                    Some("v1beta1") => "v1beta1",
                    Some(_) => continue,
                };
                match parameter("as") {
                    None => return Ok(Form::Objects),
                    Some("Table") => {
                        let include = match query.get("includeObject") {
                            "" | "Metadata" => Include::Metadata,
                            "None" => Include::None,
                            "Object" => Include::Object,
                            other => return Err(Failure::bad_request(format!("unrecognized includeObject value: {other:?}"))),
                        };
                        return Ok(Form::Table { version, include });
                    }
                    Some("PartialObjectMetadata" | "PartialObjectMetadataList") => return Ok(Form::Metadata { version }),
                    Some(_) => {}
                }
            }
        }
        match asked {
            false => Ok(Form::Objects),
            true => Err(Failure::not_acceptable("application/json")),
        }
    }

    /// The `Content-Type` of answers in this form.
    pub(super) fn content_type(&self, list: bool) -> String {
        match self {
            Form::Objects => "application/json".to_owned(),
            Form::Table { version, .. } => format!("application/json;as=Table;v={version};g=meta.k8s.io"),
            Form::Metadata { version } => {
                let list = if list { "List" } else { "" };
                format!("application/json;as=PartialObjectMetadata{list};v={version};g=meta.k8s.io")
            }
            Form::Fields(_) => {
                let list = if list { "List" } else { "" };
                format!("application/json;as=PartialObject{list};v=v1alpha1;g=portolan.dev")
            }
        }
    }
}

/// The head of a table: everything but its rows. Without `columns` it is one of the later tables of a watch.
pub(super) fn head(kind: &Kind, version: &str, metadata: Value, columns: bool) -> Value {
    let mut table = json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
        "columnDefinitions": Value::Null, "rows": [],
    });
    if columns {
        let definition = |column: crate::object::custom::Heading| {
            json!({
                "name": column.name, "type": column.r#type, "format": column.format, "description": column.description,
                "priority": column.priority,
            })
        };
        table["columnDefinitions"] = kind.headings().into_iter().map(definition).collect();
    }
    table
}

/// The row of one object. Its cells are made of what is stored, and what goes with it is in the words of `kind`.
pub(super) fn row(kind: &'static Kind, object: &Object, version: &str, include: Include, now: Timestamp) -> Value {
    let value = object.value();
    let cells = kind.rules().cells(&value, now);
    let mut row = json!({"cells": cells});
    match include {
        Include::None => {}
        Include::Metadata => row["object"] = partial(value, version),
        Include::Object => row["object"] = kind.show(value),
    }
    row
}

/// Only `metadata`.
pub(super) fn partial(mut value: Value, version: &str) -> Value {
    let metadata = value["metadata"].take();
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata})
}

/// Only some fields of an object that is written as JSON.
pub(super) fn part(json: &[u8], fields: &Fields) -> Vec<u8> {
    let mut part = format!("{{\"kind\":\"PartialObject\",\"apiVersion\":\"{PARTIAL}\"").into_bytes();
    let end = part.len();
    put_part(json, fields, &mut part);
    // It has its metadata at least, so what begins it becomes a comma.
    part[end] = b',';
    part
}

/// The same as an item of a list, which need not say what it is.
pub(super) fn put_part(json: &[u8], fields: &Fields, out: &mut Vec<u8>) {
    if !fields.cut(json, out) {
        // Bytes of an engine that were not written as ours are.
        let value: Value = serde_json::from_slice(json).expect("stored bytes were written by us");
        let there = fields.cut(value.to_string().as_bytes(), out);
        debug_assert!(there, "what was just written is JSON without spaces");
    }
}

/// The head of a list of parts: everything before its first item.
pub(super) fn parts_head(metadata: &Value) -> String {
    format!("{{\"kind\":\"PartialObjectList\",\"apiVersion\":\"{PARTIAL}\",\"metadata\":{metadata},\"items\":[")
}

/// How far a watch of parts is.
pub(super) fn part_mark(metadata: Value) -> Value {
    json!({"kind": "PartialObject", "apiVersion": PARTIAL, "metadata": metadata})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation() {
        let table =
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let parts = "application/json;as=PartialObjectList;v=v1alpha1;g=portolan.dev,application/json";
        let rows = [
            ("", "", "Objects"),
            (table, "", r#"Table { version: "v1", include: Metadata }"#),
            (table, "includeObject=Object", r#"Table { version: "v1", include: Object }"#),
            (table, "includeObject=Everything", "400"),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
                "includeObject=None",
                r#"Table { version: "v1beta1", include: None }"#,
            ),
            ("application/json, */*", "", "Objects"),
            ("application/vnd.kubernetes.protobuf,application/json", "", "Objects"),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "", r#"Metadata { version: "v1" }"#),
            ("application/vnd.kubernetes.protobuf", "", "406"),
            (parts, "fields=spec.nodeName", r#"Fields("metadata"{"name" "namespace" "resourceVersion"} "spec"{"nodeName"})"#),
            (parts, "", "400"),
            (parts, "fields=spec..nodeName", "400"),
            (parts, "fields=kind", "400"),
            ("application/json;as=PartialObjectList;g=portolan.dev;v=v9,application/json", "fields=spec", "Objects"),
            ("application/json;as=PartialObjectList;g=portolan.dev;v=v9", "fields=spec", "406"),
            ("application/json", "fields=spec", "Objects"),
            ("text/html", "", "406"),
        ];
        for (accept, query, wanted) in rows {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(http::header::ACCEPT, accept.parse().unwrap());
            }
            let found = match Form::negotiate(&headers, &Query::parse(query).unwrap()) {
                Ok(form) => format!("{form:?}"),
                Err(failure) => failure.code.to_string(),
            };
            assert_eq!(found, wanted, "{accept} {query}");
        }
    }
}
