//! Definitions, the rows that are made of them, and objects of those rows.

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;
use crate::object::admit::{self, Stamp};

fn definition(schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.sea.example"},
        "spec": {
            "group": "sea.example", "scope": "Namespaced",
            "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList", "shortNames": ["bt"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

fn row(schema: Value) -> &'static Kind {
    Definition::read(&definition(schema)).stored.unwrap()
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "sea.example/v1", "kind": "Boat", "metadata": {"name": "b", "namespace": "default"}, "spec": spec})
}

fn spec_schema(properties: Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}})
}

/// What is wrong with an object, line by line.
fn check(schema: Value, spec: Value, expected: Expect) {
    let problems = admit::problems(row(schema), &object(spec), None);
    expected.assert_eq(&problems.iter().map(|c| format!("{c}\n")).collect::<String>());
}

#[test]
fn objects_are_checked_in_kubernetes_words() {
    let schema = || {
        spec_schema(json!({
            "cron": {"type": "string", "pattern": "^\\d+$"},
            "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
            "colour": {"type": "string", "enum": ["red", "blue"]},
            "name": {"type": "string", "minLength": 2, "maxLength": 4},
            "ports": {
                "type": "array", "minItems": 1, "maxItems": 2, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}}},
            },
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "limit": {"x-kubernetes-int-or-string": true},
            "note": {"type": "string", "nullable": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "at": {"type": "string", "format": "date-time"},
            "every": {"type": "string", "format": "duration"},
        }))
    };
    check(
        schema(),
        json!({
            "cron": "a", "replicas": 0, "colour": "green", "name": "x", "ports": [{"port": 1}, {"port": 1}, {}], "tags": ["a", "a"],
            "limit": true, "note": null, "labels": {"a": 1}, "at": "noon", "every": "1 hour",
        }),
        expect![[r#"
            spec.at: Invalid value: "noon": spec.at in body must be of type date-time: "noon"
            spec.colour: Unsupported value: "green": supported values: "red", "blue"
            spec.cron: Invalid value: "a": spec.cron in body should match '^\d+$'
            spec.every: Invalid value: "1 hour": spec.every in body must be of type duration: "1 hour"
            spec.labels.a: Invalid value: "integer": spec.labels.a in body must be of type string: "integer"
            spec.limit: Invalid value: "boolean": spec.limit in body must be of type integer,string: "boolean"
            spec.name: Invalid value: "x": spec.name in body should be at least 2 chars long
            spec.ports: Too many: 3: must have at most 2 items
            spec.ports[2].port: Required value
            spec.ports[1]: Duplicate value: {"port":1}
            spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1
            spec.tags[1]: Duplicate value: "a"
        "#]],
    );
    check(
        schema(),
        json!({"cron": "5", "replicas": 3, "limit": "10%", "ports": [{"port": 1}], "at": "2026-01-01T00:00:00Z", "every": "1h30m"}),
        expect![""],
    );
    check(
        schema(),
        json!({"replicas": "3", "cron": 5, "ports": {}}),
        expect![[r#"
            spec.cron: Invalid value: "integer": spec.cron in body must be of type string: "integer"
            spec.ports: Invalid value: "object": spec.ports in body must be of type array: "object"
            spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string"
        "#]],
    );
}

#[test]
fn one_of_and_its_like() {
    let schema = json!({"type": "object", "properties": {"spec": {
        "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        "anyOf": [{"properties": {"c": {"minimum": 5}}}],
        "not": {"required": ["c", "b"]},
    }}});
    check(schema.clone(), json!({"a": 1, "c": 7}), expect![""]);
    check(
        schema,
        json!({"a": 1, "b": 1, "c": 3}),
        expect![[r#"
            spec.c: Invalid value: 3: spec.c in body should be greater than or equal to 5
            spec: Invalid value: {"a":1,"b":1,"c":3}: spec in body must validate at least one schema (anyOf)
            spec: Invalid value: {"a":1,"b":1,"c":3}: spec in body must validate one and only one schema (oneOf). Found 2 valid alternatives
            spec: Invalid value: {"a":1,"b":1,"c":3}: spec in body must not validate the schema (not)
        "#]],
    );
}

#[test]
fn defaults_nulls_and_unknown_fields() {
    let schema = spec_schema(json!({
        "replicas": {"type": "integer", "default": 1},
        "mode": {"type": "string", "nullable": true, "default": "fast"},
        "anchor": {"type": "object", "default": {}, "properties": {"weight": {"type": "integer", "default": 7}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": {"type": "object"}}},
        "crew": {"type": "array", "items": {"type": "object", "properties": {"rank": {"type": "string", "default": "mate"}}}},
    }));
    let kind = row(schema);
    let mut value = object(json!({
        "replicas": null, "mode": null, "crew": [{}], "mistake": 1, "free": {"x": {"y": 1}, "known": {"z": 1}},
    }));
    let problems = admit::shape(kind, &mut value, admit::Coerce::Json);
    let unknown: Vec<String> = problems.iter().map(|p| admit::show_path(&p.path)).collect();
    assert_eq!(unknown, ["spec.free.known.z", "spec.mistake"]);
    admit::prepare(kind, &mut value);
    assert_eq!(
        value["spec"],
        json!({
            "replicas": 1, "mode": null, "anchor": {"weight": 7}, "crew": [{"rank": "mate"}], "mistake": 1,
            "free": {"x": {"y": 1}, "known": {"z": 1}},
        })
    );
}

#[test]
fn schemas_that_are_not_structural() {
    let check = |schema: Value, expected: Expect| {
        let found = structural::problems(&schema, "s");
        expected.assert_eq(&found.iter().map(|c| format!("{c}\n")).collect::<String>());
    };
    check(
        json!({
            "type": "object",
            "properties": {
                "a": {}, "b": {"type": "text"}, "c": {"type": "array"}, "d": {"type": "string", "pattern": "("},
                "e": {"type": "object", "properties": {"x": {"type": "string"}}, "additionalProperties": {"type": "string"}},
                "f": {"type": "array", "uniqueItems": true, "items": {"type": "string"}},
                "g": {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object", "properties": {"k": {"type": "string"}}},
                      "x-kubernetes-list-map-keys": ["k", "l"]},
                "h": {"type": "integer", "default": "x"},
                "i": {"$ref": "#/definitions/x", "type": "object"},
                "j": {"type": "object", "anyOf": [{"type": "object", "properties": {"m": {"minimum": 1}}}]},
                "k": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            },
        }),
        expect![[r#"
            s.properties[a].type: Required value: must not be empty for specified object fields
            s.properties[b].type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string"
            s.properties[c].items: Required value: must be specified
            s.properties[d].pattern: Invalid value: "(": must be a valid regular expression, but isn't: error: unclosed group
            s.properties[e].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive
            s.properties[f].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic
            s.properties[g].items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property
            s.properties[g].x-kubernetes-list-map-keys[1]: Invalid value: "l": entries must all be names of item properties
            s.properties[h].default: Invalid value: "string": s.properties[h].default in body must be of type integer: "string"
            s.properties[i].$ref: Forbidden: $ref is not supported
            s.properties[j].anyOf[0].type: Forbidden: must be empty to be structural
            s.properties[j].anyOf[0].properties[m]: Required value: because it is defined in s.properties[j].anyOf[0].properties[m]
        "#]],
    );
    check(
        json!({"properties": {}}),
        expect![[r#"
        s.type: Required value: must not be empty at the root
    "#]],
    );
}

/// Of what every object has, a schema can say which names it takes, and nothing else.
#[test]
fn names_can_be_narrowed() {
    let with = |metadata: Value| json!({"type": "object", "properties": {"metadata": metadata, "spec": {"type": "object"}}});
    let short = with(json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 3, "pattern": "^b"}}}));
    assert!(structural::problems(&short, "s").is_empty());
    check(short.clone(), json!({}), expect![""]);
    let mut long = object(json!({}));
    long["metadata"]["name"] = "anna".into();
    let said: Vec<String> = admit::problems(row(short), &long, None).iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "metadata.name: Too long: may not be more than 3 bytes",
            "metadata.name: Invalid value: \"anna\": metadata.name in body should match '^b'"
        ]
    );
    let labels = with(json!({"type": "object", "properties": {"labels": {"type": "object"}}}));
    let said: Vec<String> = structural::problems(&labels, "s").iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
        ]
    );
}

#[test]
fn definitions_are_checked() {
    let problems = |value: Value| -> Vec<String> {
        let mut value = value;
        admit::prepare(definitions(), &mut value);
        admit::problems(definitions(), &value, None).iter().map(ToString::to_string).collect()
    };
    assert_eq!(problems(definition(json!({"type": "object"}))), Vec::<String>::new());
    let mut wrong = definition(json!({"type": "object"}));
    wrong["metadata"]["name"] = "x".into();
    wrong["spec"]["scope"] = "World".into();
    wrong["spec"]["versions"] = json!([
        {"name": "v1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}},
        {"name": "v1", "served": true, "storage": false, "additionalPrinterColumns": [{"name": "A", "type": "text", "jsonPath": "a"}],
         "subresources": {"scale": {"specReplicasPath": ".replicas"}}},
    ]);
    expect![[r#"
        metadata.name: Invalid value: "x": must be spec.names.plural+"."+spec.group
        spec.scope: Unsupported value: "World": supported values: "Cluster", "Namespaced"
        spec.versions: Invalid value: "v1": must contain unique version names
        spec.versions[1].schema.openAPIV3Schema: Required value: schemas are required
        spec.versions[1].additionalPrinterColumns[0].type: Unsupported value: "text": supported values: "boolean", "date", "integer", "number", "string"
        spec.versions[1].additionalPrinterColumns[0].jsonPath: Invalid value: "a": is an invalid path: "a" does not begin with a dot
        spec.versions[1].subresources.scale.specReplicasPath: Invalid value: ".replicas": should be a json path under .spec
        spec.versions[1].subresources.scale.statusReplicasPath: Required value
        spec.versions: Invalid value: []: must have exactly one version marked as storage version"#]]
    .assert_eq(&problems(wrong).join("\n"));
    let mut guarded = definition(json!({"type": "object"}));
    guarded["spec"]["group"] = "boats.k8s.io".into();
    guarded["metadata"]["name"] = "boats.boats.k8s.io".into();
    assert!(problems(guarded)[0].contains("protected groups must have approval annotation"));
    // Kubernetes' own definitions are types of this program, so the names of its fields are looked after.
    let mut misspelt = definition(json!({"type": "object", "propertees": {}}));
    let found = admit::shape(definitions(), &mut misspelt, admit::Coerce::Json);
    assert_eq!(admit::show_path(&found[0].path), "spec.versions[0].schema.openAPIV3Schema.propertees");
}

#[test]
fn equal_contents_share_a_row() {
    let schema = || json!({"type": "object", "properties": {"spec": {"type": "object"}}});
    assert!(std::ptr::eq(row(schema()), row(schema())));
    let other = row(json!({"type": "object", "properties": {"spec": {"type": "string"}}}));
    assert!(!std::ptr::eq(row(schema()), other));
    // Both are the same kind to a store, and so is what a store makes of a record that it finds.
    let found = stored_row("sea.example/v1", "Boat", "boats", true).unwrap();
    assert_eq!(row(schema()), other);
    assert_eq!(found, other);
    assert_eq!(found.custom.unwrap().slot, other.custom.unwrap().slot);
}

#[test]
fn versions_are_ordered_as_in_kubernetes() {
    let mut names = ["v1alpha1", "foo10", "v2", "v10", "v1beta2", "v1", "foo1", "v3beta1", "v11alpha2"];
    names.sort_by(|a, b| names::prefer(a, b));
    assert_eq!(names, ["v10", "v2", "v1", "v3beta1", "v1beta2", "v11alpha2", "v1alpha1", "foo1", "foo10"]);
}

#[test]
fn paths_into_objects() {
    let value = json!({
        "spec": {"a.b": 1, "list": [1, 2, 3]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Old", "status": "False"}]},
    });
    for (path, wanted) in [
        (".spec.list[0]", json!([1])),
        (".spec.list[-1]", json!([3])),
        (".spec.list[*]", json!([1, 2, 3])),
        (".spec.a\\.b", json!([1])),
        (".spec['a.b']", json!([1])),
        (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
        (".status.conditions[?(@.type=='Old')].status", json!(["False"])),
        (".missing.far.away", json!([])),
    ] {
        let found: Vec<Value> = Path::parse(path).unwrap().find(&value).into_iter().cloned().collect();
        assert_eq!(Value::from(found), wanted, "{path}");
    }
    for path in ["spec", ".spec[", ".spec[?(x)]", ".."] {
        assert!(Path::parse(path).is_err(), "{path}");
    }
}

#[test]
fn names_that_others_have() {
    let now = "2026-11-21T10:00:00Z";
    let mine = definition(json!({"type": "object"}));
    let mut status = names::status(&mine, std::iter::empty(), false, now);
    let truth = |status: &Value, name: &str| {
        status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == name).unwrap()["status"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!((truth(&status, "NamesAccepted"), truth(&status, "Established")), ("True".to_owned(), "True".to_owned()));
    assert_eq!(status["storedVersions"], json!(["v1"]));
    // Looking again says the same.
    let mut again = mine.clone();
    again["status"] = status.take();
    assert_eq!(names::status(&again, std::iter::empty(), false, "2027-01-01T00:00:00Z"), again["status"]);
    let stamp = Stamp { uid: "u".to_owned(), now: now.parse().unwrap() };
    let mut first = again.clone();
    first["metadata"]["name"] = "ships.sea.example".into();
    first["spec"]["names"] = json!({"plural": "ships", "kind": "Ship", "shortNames": ["bt"]});
    first["status"] = Value::Null;
    let draft = admit::create(definitions(), first, &stamp).unwrap();
    let mut value = draft.value();
    value["status"]["acceptedNames"] = value["spec"]["names"].clone();
    let other = crate::object::Draft::new(definitions(), value).seal(1);
    let refused = names::status(&mine, std::iter::once(&other), false, now);
    assert_eq!((truth(&refused, "NamesAccepted"), truth(&refused, "Established")), ("False".to_owned(), "False".to_owned()));
    assert_eq!(refused["conditions"][0]["reason"], "ShortNamesConflict");
}

/// Resident memory, in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Whoever defines a kind anew for ever is told that it is enough; until then the program holds no more than it counts.
#[test]
fn a_redefinition_loop_comes_to_an_end() {
    const OWN: &str = "PORTOLAN_TEST_REDEFINES";
    let Ok(sort) = std::env::var(OWN) else {
        // It fills what all tests of a process share, so each sort has a process of its own.
        for sort in ["small", "texts", "patterns", "deep"] {
            let name = "object::custom::tests::a_redefinition_loop_comes_to_an_end";
            let mut own = std::process::Command::new(std::env::current_exe().unwrap());
            let output = own.args(["--exact", name, "--nocapture"]).env(OWN, sort).output().unwrap();
            assert!(
                output.status.success(),
                "{sort}: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        return;
    };
    let nth = |n: usize| {
        let field = |i: usize| match sort.as_str() {
            "small" => json!({"type": "string"}),
            "texts" => json!({"type": "string", "description": "x".repeat(500)}),
            // Ten letters that become a hundred kilobytes.
            "patterns" => json!({"type": "string", "pattern": format!("\\pL{{8}}{n}x{i}")}),
            _ => {
                json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "string"}}}}})
            }
        };
        let count = if sort == "patterns" { 20 } else { 2000 };
        let mut properties: serde_json::Map<String, Value> = (0..count).map(|i| (format!("p{i}"), field(i))).collect();
        properties.insert(format!("again{n}"), json!({"type": "string"}));
        definition(spec_schema(properties.into()))
    };
    let first = nth(0);
    assert!(!Definition::read(&first).full);
    let before = resident();
    let end = (1..).find(|n| Definition::read(&nth(*n)).full).unwrap();
    let grown = resident().saturating_sub(before);
    assert!(end > 5 && grown < HELD_AT_MOST * 3 / 2, "{end} definitions took {grown} bytes");
    // Nothing more of that comes in, and what was there before goes on.
    for n in end..end + 100 {
        assert!(Definition::read(&nth(n)).full);
    }
    assert!(resident().saturating_sub(before) < HELD_AT_MOST * 3 / 2);
    assert!(!Definition::read(&first).full && Definition::read(&first).stored.is_some());
}

/// A schema whose patterns would take gigabytes is refused, and not after minutes.
#[test]
#[allow(clippy::disallowed_methods)] // only a test may look at the clock here
fn patterns_are_bounded_together() {
    let with = |count: usize| {
        let properties: serde_json::Map<String, Value> =
            (0..count).map(|i| (format!("p{i}"), json!({"type": "string", "pattern": format!("\\pL{{20}}{i}")}))).collect();
        spec_schema(properties.into())
    };
    let begin = std::time::Instant::now();
    assert_eq!(structural::problems(&with(5), "s"), Vec::new());
    let problems = structural::problems(&with(50_000), "s");
    assert_eq!(problems.len(), 100);
    assert!(problems[0].message.ends_with("the patterns of a schema may together take 16 MiB"), "{}", problems[0].message);
    assert!(begin.elapsed() < std::time::Duration::from_secs(60), "{:?}", begin.elapsed());
    // Many of the ordinary sort are no matter.
    let properties: serde_json::Map<String, Value> = (0..300)
        .map(|i| (format!("p{i}"), json!({"type": "string", "pattern": format!("^[a-z0-9]([-a-z0-9]*[a-z0-9])?{i}$")})))
        .collect();
    assert_eq!(structural::problems(&spec_schema(properties.into()), "s"), Vec::new());
}
