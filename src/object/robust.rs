//! Whatever a client or a file says, nothing here panics, and nothing takes longer than it is long: documents with something wrong in any
//! place, texts of any sort and very long lists go through every door.
//!
//! All tests of this sort run for a moment in `make test`, each time with the same chance; with `FUZZ=100` a hundred times as long, with
//! chance of their own. Requests are made of all this in `api::tests::hostile`.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

use super::admit::{self, Coerce, Stamp};
use super::custom::{Definition, definitions};
use super::patch::{self, apply, managed};
use super::selector::{FieldSelector, LabelSelector};
use super::{KINDS, Kind, Object};

mod tests;

/// How many times as long as in `make test` somebody wants to look: what the variable `FUZZ` says.
pub(crate) fn times() -> Option<u32> {
    std::env::var("FUZZ").ok().map(|text| text.parse().expect("FUZZ is a number: how many times as long to look for mistakes"))
}

/// So many cases, of the same chance each time; or many more, of their own.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    let config =
        ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(usual.saturating_mul(times().unwrap_or(1))) };
    match times() {
        Some(_) => config,
        None => ProptestConfig { rng_seed: RngSeed::Fixed(0x5eed), ..config },
    }
}

fn documents() -> Vec<(&'static str, Value)> {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {
        "containers": [{"name": "a", "image": "a:1", "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "ports": [{"containerPort": 80, "hostPort": 80}], "resources": {"limits": {"cpu": "1"}}, "livenessProbe": {"httpGet": {"port": 80}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}}],
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "h", "labelSelector": {"matchLabels": {"a": "b"}}}]}},
    }});
    let meta = json!({"name": "web", "namespace": "shop", "labels": {"a": "b"}, "finalizers": ["a/b"], "annotations": {"x": "y"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}],
        "managedFields": [{"manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]});
    let with = |rest: Value| {
        let mut value = rest;
        value["metadata"] = meta.clone();
        value
    };
    vec![
        (
            "Deployment",
            with(json!({"spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template,
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}, "status": {"replicas": 1, "conditions": [{"type": "A", "status": "True"}]}})),
        ),
        ("Pod", with(json!({"spec": template["spec"], "status": {"phase": "Running"}}))),
        ("Secret", with(json!({"type": "Opaque", "data": {"a": "eA=="}, "stringData": {"b": "c"}}))),
        ("ConfigMap", with(json!({"data": {"a": "b"}, "binaryData": {"c": "eA=="}, "immutable": true}))),
        ("Node", with(json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}, "status": {"capacity": {"cpu": "1"}}}))),
        ("Namespace", with(json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}))),
        (
            "Application",
            with(
                json!({"spec": {"source": {"repository": "/r"}, "policy": {"prune": true}, "dependsOn": ["a"], "pin": {"release": "r"}}}),
            ),
        ),
        ("Event", with(json!({"involvedObject": {"kind": "Pod", "namespace": "shop"}, "count": 1}))),
    ]
}

/// A manifest of every other kind: those that the tests of kubectl apply.
pub(crate) fn manifests() -> Vec<(&'static Kind, Value)> {
    const TEXTS: &[&str] = &[
        include_str!("../../tests/kinds/controllerrevision.yaml"),
        include_str!("../../tests/kinds/cronjob.yaml"),
        include_str!("../../tests/kinds/daemonset.yaml"),
        include_str!("../../tests/kinds/endpoints.yaml"),
        include_str!("../../tests/kinds/endpointslice.yaml"),
        include_str!("../../tests/kinds/horizontalpodautoscaler.yaml"),
        include_str!("../../tests/kinds/ingress.yaml"),
        include_str!("../../tests/kinds/ingressclass.yaml"),
        include_str!("../../tests/kinds/job.yaml"),
        include_str!("../../tests/kinds/limitrange.yaml"),
        include_str!("../../tests/kinds/networkpolicy.yaml"),
        include_str!("../../tests/kinds/persistentvolume.yaml"),
        include_str!("../../tests/kinds/persistentvolumeclaim.yaml"),
        include_str!("../../tests/kinds/poddisruptionbudget.yaml"),
        include_str!("../../tests/kinds/podtemplate.yaml"),
        include_str!("../../tests/kinds/priorityclass.yaml"),
        include_str!("../../tests/kinds/replicationcontroller.yaml"),
        include_str!("../../tests/kinds/resourcequota.yaml"),
        include_str!("../../tests/kinds/service.yaml"),
        include_str!("../../tests/kinds/statefulset.yaml"),
        include_str!("../../tests/kinds/storageclass.yaml"),
    ];
    let documents = TEXTS.iter().flat_map(|text| serde_yaml::Deserializer::from_str(text));
    documents
        .map(|document| {
            let mut value: Value = serde::Deserialize::deserialize(document).unwrap();
            let kind = Kind::of_value(&value).unwrap();
            if kind.namespaced {
                value["metadata"]["namespace"] = "shop".into();
            }
            (kind, value)
        })
        .collect()
}

struct Nothing;

impl admit::Around for Nothing {
    fn is_claimed(&self, _: &str) -> bool {
        false
    }
    fn of_kind(&self, _: &'static Kind) -> Vec<std::sync::Arc<Object>> {
        Vec::new()
    }
    fn object(&self, _: &crate::object::Key) -> Option<std::sync::Arc<Object>> {
        None
    }
}

/// What a client sends again is no change, and what it left out comes back.
#[test]
fn manifests_of_every_kind_are_stored_and_stored_again() {
    let now = jiff::Timestamp::UNIX_EPOCH;
    for (kind, manifest) in manifests() {
        let mut value = manifest.clone();
        let misfits = admit::shape(kind, &mut value, Coerce::Json);
        assert!(misfits.is_empty(), "{kind:?}: {misfits:?}");
        admit::prepare(kind, &mut value);
        admit::assign(kind, &mut value, None, "u", &Nothing).unwrap();
        let made = admit::create(kind, value, &Stamp { uid: "u".to_owned(), now }).unwrap_or_else(|e| panic!("{e}")).seal(1);
        let live = made.value();
        let misfits = admit::shape(kind, &mut live.clone(), Coerce::Json);
        assert!(misfits.is_empty(), "{kind:?}: {misfits:?}");
        let mut again = patch::three_way(kind, Some(&manifest), &manifest, &live);
        admit::prepare(kind, &mut again);
        admit::assign(kind, &mut again, Some(&live), "u", &Nothing).unwrap();
        let next = admit::update(&made, again, None, now).unwrap_or_else(|e| panic!("{e}"));
        assert!(next.is_none(), "{kind:?}: {}", next.map(|n| n.value()).unwrap_or_default());
    }
}

/// A definition with something of everything, and an object of it.
fn definition() -> (Value, Value) {
    let spec = json!({
        "type": "object", "required": ["sails"], "minProperties": 1, "maxProperties": 20,
        "properties": {
            "sails": {"type": "integer", "minimum": 1, "maximum": 9, "multipleOf": 1, "format": "int32", "default": 3},
            "name": {"type": "string", "pattern": "^[a-z]+$", "minLength": 1, "maxLength": 9, "enum": ["anna", "berta"]},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"], "minItems": 1, "items": {
                "type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}, "depth": {"type": "number", "default": 1.5}}}},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "maxItems": 3, "items": {"type": "string"}},
            "limit": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "labels": {"type": "object", "additionalProperties": {"type": "string", "nullable": true}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "within": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        },
        "oneOf": [{"required": ["name"]}, {"required": ["free"]}], "not": {"properties": {"sails": {"minimum": 9}}},
    });
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage, "deprecated": !storage,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": {"type": "object"}}}},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.sails", "statusReplicasPath": ".status.sails"}},
            "additionalPrinterColumns": [{"name": "Port", "type": "integer", "jsonPath": ".spec.ports[?(@.port==80)].depth"}],
        })
    };
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "boats.fuzz.example"},
        "spec": {
            "group": "fuzz.example", "scope": "Namespaced", "names": {"plural": "boats", "kind": "Boat", "shortNames": ["b"]},
            "versions": [version("v1", true), version("v1beta1", false)],
        },
        "status": {"conditions": [{"type": "Established", "status": "True"}], "storedVersions": ["v1"]},
    });
    let boat = json!({
        "apiVersion": "fuzz.example/v1", "kind": "Boat", "metadata": {"name": "b", "namespace": "shop"},
        "spec": {
            "name": "anna", "ports": [{"port": 80}], "tags": ["a", "b"], "limit": "5%", "labels": {"a": "b", "c": null}, "sails": 2,
            "within": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}},
        },
    });
    (definition, boat)
}

/// Whatever was accepted as a definition, objects of its kind may be anything.
fn defined(definition: &Value, boat: &Value) {
    let now = jiff::Timestamp::UNIX_EPOCH;
    for kind in Definition::read(definition).served {
        let mut value = boat.clone();
        admit::shape(kind, &mut value, Coerce::Json);
        admit::prepare(kind, &mut value);
        let once = value.clone();
        admit::prepare(kind, &mut value);
        assert_eq!(once, value);
        admit::problems(kind, &value, None);
        kind.cells(&value, now);
        kind.headings();
        let _ = apply::apply(kind, Some(&value), boat, "m", true, now);
        managed::track(kind, Some(boat), &mut value, "m", managed::Operation::Update, None, now);
        if let Ok(draft) = admit::create(kind, value, &Stamp { uid: "u".to_owned(), now }) {
            let old = draft.seal(1);
            let _ = admit::update_as(kind, &old, kind.show(old.value()), Some("status"), now);
            let _ = Object::from_json(old.json(), kind.plural);
        }
    }
}

fn junk() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[null]])),
        Just(json!({"$patch": "delete"})),
        Just(json!([{"$patch": "replace"}, 5, {"name": "a"}])),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ]
}

/// Puts something else in one place of a document.
fn spoil(value: &mut Value, route: &[usize], junk: &Value) {
    let children = match value {
        Value::Object(fields) => fields.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    match route.split_first() {
        Some((step, rest)) if children > 0 => {
            let place = step % children;
            let child = match value {
                Value::Object(fields) => fields.values_mut().nth(place),
                Value::Array(items) => items.get_mut(place),
                _ => None,
            };
            spoil(child.expect("there is such a child"), rest, junk);
        }
        _ => *value = junk.clone(),
    }
}

fn everything(kind: &'static Kind, whole: &Value, spoilt: &Value) {
    let now = jiff::Timestamp::UNIX_EPOCH;
    let stamp = Stamp { uid: "u".to_owned(), now };
    for mode in [Coerce::Json, Coerce::Yaml, Coerce::YamlPlain(&|_| true)] {
        admit::shape(kind, &mut spoilt.clone(), mode);
    }
    let mut prepared = spoilt.clone();
    admit::prepare(kind, &mut prepared);
    let once = prepared.clone();
    admit::prepare(kind, &mut prepared);
    assert_eq!(once, prepared);
    let _ = admit::assign(kind, &mut prepared, None, "u", &Nothing);
    let _ = admit::assign(kind, &mut prepared, Some(whole), "u", &Nothing);
    let _ = admit::assign(kind, &mut whole.clone(), Some(spoilt), "u", &Nothing);
    let _ = admit::create(kind, spoilt.clone(), &stamp).map(|draft| draft.seal(1));
    let old: Object = admit::create(kind, whole.clone(), &stamp).unwrap_or_else(|e| panic!("{e}")).seal(1);
    admit::problems(kind, spoilt, Some(&old));
    for subresource in [None, Some("status"), Some("binding"), Some("finalize"), Some("scale")] {
        if let Ok(Some(draft)) = admit::update(&old, spoilt.clone(), subresource, now) {
            admit::gone(&draft);
            let _ = admit::delete(&draft.seal(2), &admit::DeleteOptions::default(), now);
        }
    }
    let live = old.value();
    let _ = patch::strategic(kind, &live, spoilt);
    let _ = patch::strategic(kind, spoilt, whole);
    let _ = patch::merge_patch(&live, spoilt);
    let _ = patch::json_patch(&live, spoilt);
    patch::three_way(kind, Some(spoilt), whole, &live);
    patch::three_way(kind, Some(whole), spoilt, &live);
    patch::three_way(kind, Some(whole), whole, spoilt);
    let _ = apply::apply(kind, Some(&live), spoilt, "m", false, now);
    let _ = apply::apply(kind, Some(spoilt), whole, "m", true, now);
    managed::track(kind, Some(&live), &mut spoilt.clone(), "m", managed::Operation::Update, None, now);
    managed::track(kind, Some(spoilt), &mut live.clone(), "m", managed::Operation::Update, Some("status"), now);
}

/// What the tests below begin with is a definition and an object of it as anybody would write them.
#[test]
fn an_ordinary_definition_and_an_object() {
    let (mut definition, boat) = definition();
    assert!(admit::shape(definitions(), &mut definition, Coerce::Json).is_empty());
    admit::prepare(definitions(), &mut definition);
    assert_eq!(admit::problems(definitions(), &definition, None), []);
    let kind = Definition::read(&definition).stored.unwrap();
    assert_eq!(admit::problems(kind, &boat, None), []);
    defined(&definition, &boat);
}

proptest! {
    #![proptest_config(cases(400))]
    #[test]
    fn no_definition_panics(
        route in proptest::collection::vec(0..20usize, 0..14), junk in junk(), then in proptest::collection::vec(0..20usize, 0..6), more in junk(),
    ) {
        let (whole, mut boat) = definition();
        let mut spoilt = whole.clone();
        spoil(&mut spoilt, &route, &junk);
        everything(definitions(), &whole, &spoilt);
        spoil(&mut boat, &then, &more);
        defined(&whole, &boat);
        let misfits = admit::shape(definitions(), &mut spoilt, Coerce::Json);
        if misfits.iter().all(|misfit| misfit.kind != admit::ShapeKind::WrongType) {
            admit::prepare(definitions(), &mut spoilt);
            if admit::problems(definitions(), &spoilt, None).is_empty() {
                defined(&spoilt, &boat);
            }
        }
    }
    #[test]
    fn nothing_panics(which in 0..64usize, route in proptest::collection::vec(0..20usize, 0..9), junk in junk()) {
        let mut all: Vec<(&Kind, Value)> =
            documents().into_iter().map(|(name, value)| (KINDS.iter().find(|k| k.kind == name).unwrap(), value)).collect();
        all.extend(manifests());
        let (kind, mut whole) = all.swap_remove(which % all.len());
        if !kind.namespaced {
            whole["metadata"].as_object_mut().unwrap().remove("namespace");
        }
        let mut spoilt = whole.clone();
        spoil(&mut spoilt, &route, &junk);
        everything(kind, &whole, &spoilt);
    }
}

/// Texts that look like something, made of pieces of what is looked for.
fn texts() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "a",
        "b",
        "app",
        "metadata",
        "name",
        "spec",
        "nodeName",
        ".",
        "/",
        "=",
        "==",
        "!=",
        "!",
        ",",
        ">",
        "<",
        "(",
        ")",
        " ",
        " in ",
        " notin ",
        "in(",
        "[",
        "]",
        "'",
        "\"",
        "\\",
        "$",
        "$(",
        "$$",
        "{",
        "}",
        "labels",
        "annotations",
        "['",
        "']",
        "0",
        "1",
        "-",
        "+",
        "e",
        "E",
        "Ki",
        "Ei",
        "m",
        "n",
        "%",
        "*",
        "?",
        "1e999",
        "0x",
        "9223372036854775808",
        "*/",
        "@daily",
        "L",
        "W",
        "#",
        "TZ=",
        "Mon",
        ":",
        "T",
        "Z",
        "2026-11-21",
        "10:00:00",
        "\0",
        "\n",
        "\u{202e}",
        "ü",
        "🚢",
        "a.b/c",
        "~1",
        "~0",
        "f:",
        "k:{",
        "v:",
        "i:",
    ];
    prop_oneof![
        prop::collection::vec(prop::sample::select(PIECES), 0..14).prop_map(|pieces| pieces.concat()),
        "\\PC{0,40}",
        prop::collection::vec(any::<char>(), 0..12).prop_map(|chars| chars.into_iter().collect::<String>()),
    ]
}

proptest! {
    #![proptest_config(cases(2000))]
    #[test]
    fn any_text_is_something_or_an_error(text in texts(), other in texts(), which in 0..KINDS.len()) {
        let kind = &KINDS[which];
        let labels = std::collections::BTreeMap::from([(text.clone(), other.clone()), ("app".to_owned(), text.clone())]);
        for selector in [text.clone(), format!("app={text}"), format!("{text} in ({other},{text})")] {
            if let Ok(selector) = LabelSelector::parse(&selector) {
                selector.matches_labels(&labels);
            }
        }
        for operator in ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", text.as_str()] {
            let _ = LabelSelector::everything().and(&text, operator, std::slice::from_ref(&other));
        }
        for path in kind.selectable.iter().copied().chain(["metadata.name", "metadata.namespace", text.as_str()]) {
            for relation in ["=", "==", "!=", ""] {
                let _ = FieldSelector::parse(kind, &format!("{path}{relation}{other}"));
            }
        }
        let _ = text.parse::<super::quantity::Quantity>().map(|quantity| quantity.to_string());
        let _ = super::cron::Schedule::parse(&text);
        let target = json!({"a": {"b": [1, {"c": null}]}, "~": {"": 0}, text.clone(): {other.clone(): [text]}});
        for op in ["add", "remove", "replace", "move", "copy", "test", &other] {
            for path in [text.clone(), format!("/{text}"), format!("/{text}/{other}/0"), format!("/a/b/{text}")] {
                let patch = json!([{"op": op, "path": path, "from": format!("/{text}"), "value": {"x": 1}}]);
                let _ = patch::json_patch(&target, &patch);
            }
        }
        // Whatever managers are said to have, in whatever words.
        let live = json!({"metadata": {"name": "a", "namespace": "b", "managedFields": [
            {"manager": &text, "operation": &other, "fieldsV1": {&text: {&other: {".": {}}}, "f:data": {format!("k:{text}"): {}, format!("v:{text}"): {}}}}]},
            "data": {&text: &other}});
        let map = KINDS.iter().find(|k| k.kind == "ConfigMap").unwrap();
        let _ = apply::apply(map, Some(&live), &json!({"data": {&other: &text}}), &text, false, jiff::Timestamp::UNIX_EPOCH);
        let _ = apply::apply(map, Some(&live), &json!({"data": {&other: &text}}), &text, true, jiff::Timestamp::UNIX_EPOCH);
    }
}
