//! The old form of the document: what kubectl before 1.27 validates and explains by, and what later ones want for lists. One document for
//! all groups, made from the schemas of the new form, as JSON and as protobuf (the only form that kubectl takes).

use serde_json::{Map, Value, json};

use super::super::protobuf::wire::Writer;
use super::{COMPONENTS, TITLE, VERSION};

/// The whole document. `paths` and `schemas` are those of all documents of the new form.
pub(super) fn document(paths: &Map<String, Value>, schemas: &Map<String, Value>) -> Value {
    let definitions: Map<String, Value> = schemas.iter().map(|(name, schema)| (name.clone(), definition(schema))).collect();
    let mut old_paths = Map::new();
    for (path, item) in paths {
        // What old clients look for: whether a patch can be tried without effect.
        let patch = &item["patch"];
        if !patch["x-kubernetes-group-version-kind"].is_null() {
            let parameters: Vec<Value> = patch["parameters"].as_array().into_iter().flatten().map(parameter).collect();
            let gvk = &patch["x-kubernetes-group-version-kind"];
            old_paths.insert(
                path.clone(),
                json!({"patch": {
                    "parameters": parameters, "responses": {"200": {"description": "OK"}}, "x-kubernetes-action": "patch",
                    "x-kubernetes-group-version-kind": gvk,
                }}),
            );
        }
    }
    json!({"swagger": "2.0", "info": {"title": TITLE, "version": VERSION}, "paths": old_paths, "definitions": definitions})
}

fn parameter(new: &Value) -> Value {
    json!({"name": new["name"], "in": new["in"], "type": "string", "uniqueItems": true})
}

/// A schema in the old words.
fn definition(schema: &Value) -> Value {
    let Some(fields) = schema.as_object() else { return json!({}) };
    let mut old = Map::new();
    let extensions = fields.iter().filter(|(name, _)| name.starts_with("x-kubernetes-") && *name != "x-kubernetes-validations");
    for (name, value) in extensions {
        old.insert(name.clone(), value.clone());
    }
    for name in ["description", "format", "required", "type", "enum"] {
        if let Some(value) = fields.get(name).filter(|v| !v.is_null()) {
            old.insert(name.to_owned(), value.clone());
        }
    }
    if schema["x-kubernetes-int-or-string"] == true || int_or_text(schema) {
        old.insert("type".to_owned(), "string".into());
        old.insert("format".to_owned(), "int-or-string".into());
        return old.into();
    }
    let reference = fields.get("$ref").or_else(|| schema["allOf"].as_array().filter(|all| all.len() == 1)?[0].get("$ref"));
    if let Some(name) = reference.and_then(Value::as_str).and_then(|r| r.strip_prefix(COMPONENTS)) {
        old.insert("$ref".to_owned(), format!("#/definitions/{name}").into());
        old.remove("type");
        return old.into();
    }
    // What is one of several things has no type in the old words.
    if ["anyOf", "oneOf"].iter().any(|name| !schema[*name].is_null()) {
        old.remove("type");
        return old.into();
    }
    if let Some(properties) = schema["properties"].as_object() {
        let properties: Map<String, Value> = properties.iter().map(|(name, inner)| (name.clone(), definition(inner))).collect();
        old.insert("properties".to_owned(), properties.into());
    }
    if schema["items"].is_object() {
        old.insert("items".to_owned(), definition(&schema["items"]));
    }
    if schema["additionalProperties"].is_object() {
        old.insert("additionalProperties".to_owned(), definition(&schema["additionalProperties"]));
    }
    old.into()
}

/// A number or a text, said as a choice.
fn int_or_text(schema: &Value) -> bool {
    ["anyOf", "oneOf"].iter().filter_map(|name| schema[*name].as_array()).any(|choice| {
        let types: Vec<&str> = choice.iter().filter_map(|c| c["type"].as_str()).collect();
        types.len() == 2 && types.contains(&"integer") && types.contains(&"string")
    })
}

/// The same document as protobuf (`openapi.v2.Document` of gnostic).
pub(super) fn protobuf(document: &Value) -> Vec<u8> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let info = Writer::default().text(1, &text(&document["info"]["title"])).text(2, &text(&document["info"]["version"]));
    let paths = entries(&document["paths"]).fold(Writer::default(), |out, (path, item)| {
        let item = Writer::default().message(8, operation(&item["patch"]));
        out.message(2, Writer::default().text(1, path).message(2, item))
    });
    let definitions = named_schemas(&document["definitions"]);
    Writer::default().text(1, "2.0").message(2, info).message(8, paths).message(9, definitions).finish()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn operation(operation: &Value) -> Writer {
    let mut out = Writer::default();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let text = |name: &str| parameter[name].as_str().unwrap_or_default().to_owned();
        let query = Writer::default().text(2, &text("in")).text(4, &text("name")).text(6, &text("type"));
        let non_body = Writer::default().message(3, query);
        out = out.message(8, Writer::default().message(1, Writer::default().message(2, non_body)));
    }
    let response = Writer::default().message(1, Writer::default().text(1, "OK"));
    out = out.message(9, Writer::default().message(1, Writer::default().text(1, "200").message(2, response)));
    extensions(operation).into_iter().fold(out, |out, extension| out.message(13, extension))
}

/// Everything that begins with `x-`, its value as YAML, which JSON is.
fn extensions(value: &Value) -> Vec<Writer> {
    let named = entries(value).filter(|(name, _)| name.starts_with("x-"));
    named.map(|(name, value)| Writer::default().text(1, name).message(2, Writer::default().text(2, &value.to_string()))).collect()
}

fn named_schemas(schemas: &Value) -> Writer {
    entries(schemas)
        .fold(Writer::default(), |out, (name, inner)| out.message(1, Writer::default().text(1, name).message(2, schema(inner))))
}

fn schema(value: &Value) -> Writer {
    let mut out = Writer::default();
    for (number, name) in [(1, "$ref"), (2, "format"), (4, "description")] {
        if let Some(text) = value[name].as_str() {
            out = out.text(number, text);
        }
    }
    for name in value["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        out = out.text(19, name);
    }
    for choice in value["enum"].as_array().into_iter().flatten() {
        out = out.message(20, Writer::default().text(2, &choice.to_string()));
    }
    if value["additionalProperties"].is_object() {
        out = out.message(21, Writer::default().message(1, schema(&value["additionalProperties"])));
    }
    if let Some(name) = value["type"].as_str() {
        out = out.message(22, Writer::default().text(1, name));
    }
    if value["items"].is_object() {
        out = out.message(23, Writer::default().message(1, schema(&value["items"])));
    }
    if value["properties"].is_object() {
        out = out.message(25, named_schemas(&value["properties"]));
    }
    extensions(value).into_iter().fold(out, |out, extension| out.message(31, extension))
}
