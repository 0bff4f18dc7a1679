//! OpenAPI: what kubectl reads before it validates, explains, applies or edits.
//!
//! The documents derive from `KINDS` and from what people defined: of version 3 one per group and version, with the paths that clients
//! look for and the schemas of the kinds; of version 2 one for all. They are megabytes while they are trees, and most servers are never
//! asked: so each is made when somebody asks for the first time, and kept packed.

mod v2;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, Response, header};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Api;
use super::discovery::{self, groups};
use super::failure::{Failure, json_response};
use super::packed::{Packed, elsewhere};
use super::path::Query;
use crate::object::Kind;
use crate::object::custom::Kinds;
use crate::object::kind::{MEASURED, METRICS};
use crate::object::schema::{ListKind, facts};

const TITLE: &str = "Kubernetes";
const VERSION: &str = discovery::GIT_VERSION;
/// What kubectl calls version 2 in protobuf when it asks, and when it is answered.
const PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The documents that were asked for.
#[derive(Default)]
pub(super) struct Documents {
    made: Mutex<Made>,
    /// They are made one at a time: as trees they are megabytes, and a hundred clients may ask at once.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Made {
    /// By path, with the digest of the definitions that it was made from.
    v3: BTreeMap<String, (String, Arc<Packed>)>,
    /// As JSON and as protobuf.
    v2: Option<(String, Arc<Packed>, Arc<Packed>)>,
}

/// What tells two states of the defined kinds apart.
fn digest<'a>(rows: impl Iterator<Item = &'a &'static Kind>) -> String {
    rows.filter_map(|row| row.version_of()).map(|version| version.digest.as_str()).collect::<Vec<_>>().join(" ")
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

impl Documents {
    fn v3(&self, kinds: &Kinds, group: &str, version: &str) -> Arc<Packed> {
        let path = path_of(group, version);
        let of = digest(kinds.custom().iter().filter(|k| k.group == group && k.version == version));
        if let Some((made_of, document)) = self.made.lock().v3.get(&path)
            && *made_of == of
        {
            return document.clone();
        }
        let document = document(kinds, group, version, &path);
        let packed = Arc::new(Packed::new(document.to_string().as_bytes()));
        self.made.lock().v3.insert(path, (of, packed.clone()));
        packed
    }

    /// All documents of version 3 with their paths. Those of groups that are gone are let go.
    fn index(&self, kinds: &Kinds) -> Vec<(String, Arc<Packed>)> {
        let all: Vec<_> = groups(kinds).into_iter().map(|(g, v)| (path_of(g, v), self.v3(kinds, g, v))).collect();
        self.made.lock().v3.retain(|path, _| all.iter().any(|(known, _)| known == path));
        all
    }

    fn v2(&self, kinds: &Kinds, protobuf: bool) -> Arc<Packed> {
        let of = digest(kinds.custom().iter());
        if let Some((made_of, as_json, as_protobuf)) = &self.made.lock().v2
            && *made_of == of
        {
            return if protobuf { as_protobuf.clone() } else { as_json.clone() };
        }
        let (mut paths, mut schemas) = (Map::new(), Map::new());
        for (_, packed) in self.index(kinds) {
            let mut document: Value = serde_json::from_slice(&packed.unpacked()).expect("we wrote it");
            for (from, to) in [(&["paths"][..], &mut paths), (&["components", "schemas"][..], &mut schemas)] {
                let part = from.iter().fold(&mut document, |at, name| &mut at[*name]).take();
                if let Value::Object(part) = part {
                    // A type that several groups use keeps what the group that it belongs to says of it.
                    for (name, schema) in part {
                        let known = to.get(&name).is_some_and(|known| !known["x-kubernetes-group-version-kind"].is_null());
                        if !known {
                            to.insert(name, schema);
                        }
                    }
                }
            }
        }
        let document = v2::document(&paths, &schemas);
        let as_json = Arc::new(Packed::new(document.to_string().as_bytes()));
        let as_protobuf = Arc::new(Packed::new(&v2::protobuf(&document)));
        self.made.lock().v2 = Some((of, as_json.clone(), as_protobuf.clone()));
        if protobuf { as_protobuf } else { as_json }
    }
}

impl Api {
    /// Makes documents where it does not hold up others. The turn is given back when they are made, and not when the client goes.
    async fn make<T: Send + 'static>(&self, make: impl FnOnce(&Documents) -> T + Send + 'static) -> Result<T, Failure> {
        let api = self.clone();
        let turn = self.inner.documents.turn.clone().lock_owned().await;
        let made = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            make(&api.inner.documents)
        });
        let made = made.await;
        made.map_err(|_| Failure::internal("the document could not be made; the server's log says why"))
    }

    /// `/openapi/v2`
    pub(super) async fn openapi_v2(&self, kinds: Kinds, headers: &HeaderMap) -> Result<Response<Body>, Failure> {
        let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
        let first =
            accept.iter().flat_map(|v| v.split(',')).map(|option| option.split(';').next().unwrap_or("").trim()).find_map(
                |option| match option {
                    PROTOBUF_ASKED | PROTOBUF => Some(true),
                    "application/json" | "application/*" | "*/*" => Some(false),
                    _ => None,
                },
            );
        let protobuf = match first {
            None if !accept.is_empty() => return Err(Failure::not_acceptable(&format!("application/json, {PROTOBUF_ASKED}"))),
            first => first.unwrap_or(false),
        };
        let document = self.make(move |documents| documents.v2(&kinds, protobuf)).await?;
        Ok(document.answer(headers, if protobuf { PROTOBUF } else { "application/json" }))
    }

    /// `/openapi/v3`: where the documents are. The hash lets clients keep what they have.
    pub(super) async fn openapi_v3(&self, kinds: Kinds) -> Result<Response<Body>, Failure> {
        let documents = self.make(move |documents| documents.index(&kinds)).await?;
        let place =
            |path: &str, document: &Packed| json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={}", document.tag)});
        let paths: Map<String, Value> = documents.iter().map(|(path, document)| (path.clone(), place(path, document))).collect();
        Ok(json_response(200, &json!({"paths": paths})))
    }

    /// `/openapi/v3/apis/apps/v1`
    pub(super) async fn openapi_v3_document(
        &self,
        kinds: Kinds,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Failure> {
        let known = groups(&kinds).into_iter().find(|(group, version)| path_of(group, version) == path);
        let (group, version) = known.ok_or_else(Failure::no_route)?;
        let document = self.make(move |documents| documents.v3(&kinds, group, version)).await?;
        let hash = query.get("hash");
        if !hash.is_empty() && hash != document.tag {
            return elsewhere(&format!("/openapi/v3/{path}?hash={}", document.tag));
        }
        let mut response = document.answer(headers, "application/json");
        if !hash.is_empty() {
            // What is named by its hash never changes.
            response.headers_mut().insert(header::CACHE_CONTROL, http::HeaderValue::from_static("public, immutable"));
        }
        Ok(response)
    }
}

/// What the types leave out because every object says it of itself.
const ABOUT: [(&str, &str); 2] = [
    ("apiVersion", "The group and version of the words in which this object is written."),
    ("kind", "What sort of object this is."),
];
/// Where the schemas of a document are.
const COMPONENTS: &str = "#/components/schemas/";

fn document(kinds: &Kinds, group: &str, version: &str, base: &str) -> Value {
    let mut settings = SchemaSettings::openapi3();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    let mut names: Vec<(String, &'static Kind)> = Vec::new();
    let mut defined = Map::new();
    let typed = MEASURED.iter().filter(|k| k.group != METRICS);
    for kind in kinds.all().chain(typed).filter(|k| k.group == group && k.version == version) {
        if let Some(version) = kind.version_of() {
            let metadata = generator.subschema_for::<ObjectMeta>().to_value();
            let name = custom_name(kind);
            add_paths(&mut paths, kind, base, &name);
            defined.insert(name, custom_schema(kind, &version.schema, metadata));
            continue;
        }
        let schema = (kind.schema)(&mut generator);
        let reference = schema.get("$ref").and_then(Value::as_str).unwrap_or_default();
        let name = reference.rsplit('/').next().unwrap_or_default().to_owned();
        add_paths(&mut paths, kind, base, &name);
        names.push((name, kind));
    }
    for kind in MEASURED.iter().filter(|k| k.group == METRICS && k.group == group && k.version == version) {
        let metadata = generator.subschema_for::<ObjectMeta>().to_value();
        let name = format!("io.k8s.metrics.pkg.apis.metrics.{}.{}", kind.version, kind.kind);
        add_paths(&mut paths, kind, base, &name);
        defined.insert(name, custom_schema(kind, &measured(kind), metadata));
    }
    let mut schemas = generator.take_definitions(true);
    for (name, kind) in names {
        if let Some(schema) = schemas.get_mut(&name) {
            schema["x-kubernetes-group-version-kind"] = json!([gvk(kind)]);
            // The types leave out what every object says of itself.
            for (field, about) in ABOUT {
                if schema["properties"][field].is_null() {
                    schema["properties"][field] = json!({"type": "string", "description": about});
                }
            }
        }
    }
    for (name, schema) in &mut schemas {
        mark(name.rsplit('.').next().unwrap_or(name), schema);
    }
    schemas.extend(defined);
    for schema in schemas.values_mut() {
        tidy(schema);
    }
    json!({
        "openapi": "3.0.0", "info": {"title": TITLE, "version": VERSION},
        "paths": paths, "components": {"schemas": schemas},
    })
}

/// `com.example.stable.v1.CronTab`, as Kubernetes names it.
fn custom_name(kind: &Kind) -> String {
    let group: Vec<&str> = kind.group.split('.').rev().collect();
    format!("{}.{}.{}", group.join("."), kind.version, kind.kind)
}

/// What is measured looks like this.
fn measured(kind: &Kind) -> Value {
    let amounts = json!({
        "type": "object", "description": "How much of each resource is used: cpu in processors, memory in bytes.",
        "additionalProperties": {"type": "string"},
    });
    let mut schema = json!({
        "type": "object", "description": format!("{}: what is used now, measured when it is asked for.", kind.kind),
        "properties": {
            "timestamp": {"type": "string", "format": "date-time", "description": "When it was measured."},
            "window": {"type": "string", "description": "The time over which the use of processors was measured."},
        },
    });
    if kind.namespaced {
        let container = json!({"type": "object", "properties": {
            "name": {"type": "string", "description": "The container's name in the pod."}, "usage": amounts,
        }});
        schema["properties"]["containers"] =
            json!({"type": "array", "items": container, "description": "What each container of the pod uses."});
    } else {
        schema["properties"]["usage"] = amounts;
    }
    schema
}

/// What a definition says, and what every object has.
fn custom_schema(kind: &Kind, schema: &Value, metadata: Value) -> Value {
    let mut schema = schema.clone();
    schema["x-kubernetes-group-version-kind"] = json!([gvk(kind)]);
    if let Some(version) = kind.version_of().filter(|version| !version.selectable.is_empty()) {
        let fields = version.selectable.iter().map(|path| json!({"fieldPath": path}));
        schema["x-kubernetes-selectable-fields"] = fields.collect();
    }
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    for (field, about) in ABOUT {
        schema["properties"][field] = json!({"type": "string", "description": about});
    }
    schema["properties"]["metadata"] = metadata;
    schema
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
    let mut all = json!({
        "parameters": at.clone(),
        "get": operation("list", &["labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "watch"]),
        "post": with_body("post"),
        "delete": operation("deletecollection", &["labelSelector", "fieldSelector", "dryRun"]),
    });
    at.push(path("name"));
    let mut one = json!({
        "parameters": at, "get": operation("get", &[]), "put": with_body("put"), "patch": patch,
        "delete": operation("delete", &["dryRun", "gracePeriodSeconds", "propagationPolicy"]),
    });
    if kind.measured() {
        for item in [&mut all, &mut one].into_iter().filter_map(|item| item.as_object_mut()) {
            item.retain(|verb, _| matches!(verb.as_str(), "get" | "parameters"));
        }
    }
    paths.insert(format!("{collection}/{{name}}"), one);
    paths.insert(collection, all);
}

/// Says of a type what its Rust form cannot say: by what its lists are merged. kubectl before 1.27 computes its patches from this.
fn mark(name: &str, schema: &mut Value) {
    if facts::ATOMIC_TYPES.contains(&name) {
        schema["x-kubernetes-map-type"] = "atomic".into();
    }
    // Any value, and not only an object: a default in the schema of a definition.
    if name == "JSON"
        && let Some(fields) = schema.as_object_mut()
    {
        fields.remove("type");
    }
    for (field, schema) in schema["properties"].as_object_mut().into_iter().flatten() {
        let fact = facts::of(name, field);
        if schema["type"] == "array" {
            schema["x-kubernetes-list-type"] = match fact.list {
                ListKind::Atomic => "atomic",
                ListKind::Set => "set",
                ListKind::Map(_) => "map",
            }
            .into();
        }
        if let ListKind::Map(keys) = fact.list {
            schema["x-kubernetes-list-map-keys"] = keys.into();
        }
        if fact.atomic {
            schema["x-kubernetes-map-type"] = "atomic".into();
        }
        if let Some(key) = fact.merge.filter(|key| !key.is_empty()) {
            schema["x-kubernetes-patch-merge-key"] = key.into();
        }
        if !fact.strategy().is_empty() {
            schema["x-kubernetes-patch-strategy"] = fact.strategy().into();
        }
    }
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
    use crate::object::KINDS;

    #[test]
    fn every_kind_has_a_path_and_a_schema() {
        let (documents, kinds) = (Documents::default(), Kinds::default());
        for kind in KINDS {
            let bytes = documents.v3(&kinds, kind.group, kind.version).unpacked();
            let document: Value = serde_json::from_slice(&bytes).unwrap();
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

    #[test]
    fn the_old_document_leads_nowhere_else() {
        let (documents, kinds) = (Documents::default(), Kinds::default());
        let document: Value = serde_json::from_slice(&documents.v2(&kinds, false).unpacked()).unwrap();
        let definitions = document["definitions"].as_object().unwrap();
        for kind in KINDS {
            let described = definitions.values().filter(|d| d["x-kubernetes-group-version-kind"][0] == gvk(kind));
            assert_eq!(described.count(), 1, "{kind:?}");
        }
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str));
                    fields.values().for_each(|v| references(v, found));
                }
                Value::Array(items) => items.iter().for_each(|v| references(v, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in found {
            let name = reference.strip_prefix("#/definitions/").unwrap_or_else(|| panic!("{reference}"));
            assert!(definitions.contains_key(name), "{name}");
        }
        assert_eq!(definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"], "int-or-string");
        // What old clients compute their patches from.
        let strategy = |of: &str, field: &str| {
            let property = &definitions[of]["properties"][field];
            json!([property["x-kubernetes-patch-strategy"], property["x-kubernetes-patch-merge-key"]])
        };
        assert_eq!(strategy("io.k8s.api.core.v1.PodSpec", "containers"), json!(["merge", "name"]));
        assert_eq!(strategy("io.k8s.api.core.v1.PodSpec", "volumes"), json!(["merge,retainKeys", "name"]));
        assert_eq!(strategy("io.k8s.api.core.v1.PodSpec", "tolerations"), json!([null, null]));
        assert_eq!(strategy("io.k8s.api.apps.v1.DeploymentSpec", "strategy"), json!(["retainKeys", null]));
        assert_eq!(strategy("io.k8s.api.policy.v1.PodDisruptionBudgetSpec", "selector"), json!(["replace", null]));
        assert_eq!(strategy("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers"), json!(["merge", null]));
        assert!(definitions["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]["items"]["$ref"].is_string());
    }
}
