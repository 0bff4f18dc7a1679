//! OpenAPI: what kubectl reads before it validates, explains, applies or edits.
//!
//! The v3 documents derive from `KINDS`: one per group and version, with the paths that clients look for and the schemas of the kinds.
//! Of v2 there is only the 30-byte stub that kubectl wants to exist; it is protobuf, and nothing in it is looked at.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::discovery::groups;
use super::failure::{Failure, bytes_response, json_response};
use crate::object::{KINDS, Kind};

/// `swagger: "2.0"`, `info {title: "Kubernetes", version: "v1.33.0"}`, `paths {}`.
const V2_STUB: &[u8] = b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.33.0\x42\x00";

/// The documents, made when somebody asks for the first time: they are megabytes while they are trees, and most servers are never asked.
static DOCUMENTS: OnceLock<BTreeMap<String, (String, Bytes)>> = OnceLock::new();

fn documents() -> &'static BTreeMap<String, (String, Bytes)> {
    DOCUMENTS.get_or_init(|| {
        groups()
            .into_iter()
            .map(|(group, version)| {
                let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
                let bytes = Bytes::from(document(group, version, &path).to_string());
                let hash: String = Sha256::digest(&bytes).iter().take(16).map(|b| format!("{b:02X}")).collect();
                (path, (hash, bytes))
            })
            .collect()
    })
}

/// `/openapi/v2`
pub(super) fn v2() -> Response<Body> {
    bytes_response(200, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf", V2_STUB)
}

/// `/openapi/v3`: where the documents are. The hash lets clients keep what they have.
pub(super) fn v3() -> Response<Body> {
    let paths: Map<String, Value> = documents()
        .iter()
        .map(|(path, (hash, _))| (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")})))
        .collect();
    json_response(200, &json!({"paths": paths}))
}

/// `/openapi/v3/apis/apps/v1`
pub(super) fn v3_document(path: &str) -> Result<Response<Body>, Failure> {
    let (_, bytes) = documents().get(path).ok_or_else(Failure::no_route)?;
    Ok(bytes_response(200, "application/json", bytes.clone()))
}

/// Where the schemas of a document are.
const COMPONENTS: &str = "#/components/schemas/";

fn document(group: &str, version: &str, base: &str) -> Value {
    let mut settings = SchemaSettings::openapi3();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    let mut names: Vec<(String, &'static Kind)> = Vec::new();
    for kind in KINDS.iter().filter(|k| k.group == group && k.version == version) {
        let schema = (kind.schema)(&mut generator);
        let reference = schema.get("$ref").and_then(Value::as_str).unwrap_or_default();
        let name = reference.rsplit('/').next().unwrap_or_default().to_owned();
        add_paths(&mut paths, kind, base, &name);
        names.push((name, kind));
    }
    let mut schemas = generator.take_definitions(true);
    for (name, kind) in names {
        if let Some(schema) = schemas.get_mut(&name) {
            schema["x-kubernetes-group-version-kind"] = json!([gvk(kind)]);
            // The types leave out what every object says of itself.
            for (field, about) in [
                ("apiVersion", "APIVersion defines the versioned schema of this representation of an object."),
                ("kind", "Kind is a string value representing the REST resource this object represents."),
            ] {
                if schema["properties"][field].is_null() {
                    schema["properties"][field] = json!({"type": "string", "description": about});
                }
            }
        }
    }
    for schema in schemas.values_mut() {
        tidy(schema);
    }
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.33.0"},
        "paths": paths, "components": {"schemas": schemas},
    })
}

fn gvk(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

/// The paths of a kind, with what clients look for in them: the type, the parameters, and the schema of the body.
fn add_paths(paths: &mut Map<String, Value>, kind: &'static Kind, base: &str, name: &str) {
    let collection = if kind.namespaced {
        format!("/{base}/namespaces/{{namespace}}/{}", kind.plural)
    } else {
        format!("/{base}/{}", kind.plural)
    };
    let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let path =
        |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}});
    let body = json!({"application/json": {"schema": {"$ref": format!("{COMPONENTS}{name}")}}});
    let operation = |action: &str, parameters: &[&str]| {
        json!({
            "parameters": parameters.iter().map(|p| query(p)).collect::<Vec<_>>(),
            "responses": {"200": {"description": "OK", "content": body}},
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(kind),
        })
    };
    let with_body = |action: &str| {
        let mut operation = operation(action, &["dryRun", "fieldManager", "fieldValidation"]);
        operation["requestBody"] = json!({"content": body});
        operation
    };
    let mut patch = with_body("patch");
    patch["parameters"].as_array_mut().expect("a list").push(query("force"));
    let mut at: Vec<Value> = Vec::new();
    if kind.namespaced {
        at.push(path("namespace"));
    }
    paths.insert(
        collection.clone(),
        json!({
            "parameters": at.clone(),
            "get": operation("list", &["labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "watch"]),
            "post": with_body("post"),
            "delete": operation("deletecollection", &["labelSelector", "fieldSelector", "dryRun"]),
        }),
    );
    at.push(path("name"));
    paths.insert(
        format!("{collection}/{{name}}"),
        json!({
            "parameters": at, "get": operation("get", &[]), "put": with_body("put"), "patch": patch,
            "delete": operation("delete", &["dryRun", "gracePeriodSeconds", "propagationPolicy"]),
        }),
    );
}

/// Brings a schema into the subset that kubectl's explain reads: a reference with siblings stands alone in `allOf`.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.len() > 1
                && let Some(reference) = fields.get("$ref").cloned()
                && reference.is_string()
            {
                fields.remove("$ref");
                fields.insert("allOf".to_owned(), json!([{"$ref": reference}]));
            }
            for value in fields.values_mut() {
                tidy(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_path_and_a_schema() {
        for kind in KINDS {
            let base = if kind.group.is_empty() { "api/v1".to_owned() } else { format!("apis/{}/{}", kind.group, kind.version) };
            let (_, bytes) = &documents()[&base];
            let document: Value = serde_json::from_slice(bytes).unwrap();
            let wanted = gvk(kind);
            let patched = document["paths"]
                .as_object()
                .unwrap()
                .values()
                .filter(|p| p["patch"]["x-kubernetes-group-version-kind"] == wanted);
            assert_eq!(patched.count(), 1, "{kind:?}");
            let described = document["components"]["schemas"]
                .as_object()
                .unwrap()
                .values()
                .filter(|s| s["x-kubernetes-group-version-kind"][0] == wanted);
            assert_eq!(described.count(), 1, "{kind:?}");
            assert!(!bytes.windows(8).any(|w| w == b"\"#/$defs"), "{kind:?}: references lead nowhere");
        }
    }
}
