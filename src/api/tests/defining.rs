//! Kinds that people define: from the definition to its objects and back to nothing.

use serde_json::{Value, json};

use super::rights::{rule, subject};
use super::*;
use crate::object::custom::{Definition, definitions, names};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const BOATS: &str = "/apis/sea.example/v1/namespaces/shop/boats";

pub(super) fn boats() -> Value {
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object", "required": ["sails"],
                "properties": {
                    "sails": {"type": "integer", "minimum": 1}, "crew": {"type": "integer", "default": 2},
                    "ports": {
                        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "depth": {"type": "integer"}}},
                    },
                },
            },
            "status": {"type": "object", "properties": {"crew": {"type": "integer"}, "selector": {"type": "string"}}},
        },
    });
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}, "scale": {
                "specReplicasPath": ".spec.crew", "statusReplicasPath": ".status.crew", "labelSelectorPath": ".status.selector",
            }},
            "additionalPrinterColumns": [
                {"name": "Sails", "type": "integer", "jsonPath": ".spec.sails"},
                {"name": "Crew", "type": "integer", "jsonPath": ".status.crew", "priority": 1},
            ],
        })
    };
    let mut old = version("v1beta1", false);
    old["deprecated"] = true.into();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "boats.sea.example"},
        "spec": {
            "group": "sea.example", "scope": "Namespaced",
            "names": {"plural": "boats", "kind": "Boat", "shortNames": ["bt"], "categories": ["all"]},
            "versions": [old, version("v1", true)],
        },
    })
}

/// Another kind of the same form.
fn ships() -> Value {
    let mut ships = boats();
    ships["metadata"]["name"] = "ships.sea.example".into();
    ships["spec"]["names"] = json!({"plural": "ships", "kind": "Ship"});
    ships
}

impl World {
    /// What the loop for definitions does, without the loop.
    pub(super) async fn establish(&self, definition: Value) -> Value {
        let made = self.must(&format!("POST {DEFINITIONS}"), definition).await;
        let name = made["metadata"]["name"].as_str().unwrap();
        let status = names::status(&made, std::iter::empty(), false, "2026-11-21T10:00:00Z");
        let mut made = made.clone();
        made["status"] = status;
        self.must(&format!("PUT {DEFINITIONS}/{name}/status"), made).await
    }
}

fn boat(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "sea.example/v1", "kind": "Boat", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_defined_kind_is_served_like_any_other() {
    let w = world();
    assert_eq!(w.ask(&format!("GET {BOATS}"), Value::Null).await.code, 404);
    // Not before its names are accepted.
    let made = w.must(&format!("POST {DEFINITIONS}?dryRun=All"), boats()).await;
    assert_eq!(made["spec"]["names"]["listKind"], "BoatList");
    w.establish(boats()).await;

    let answer = w.ask(&format!("POST {BOATS}?fieldValidation=Strict"), boat("a", json!({"sails": 0, "mast": 1}))).await;
    assert!(answer.show().contains("strict decoding error: unknown field \"spec.mast\""), "{}", answer.show());
    let answer = w.ask(&format!("POST {BOATS}"), boat("a", json!({"sails": 0, "mast": 1}))).await;
    assert_eq!(
        answer.show(),
        "422 Invalid: Boat.sea.example \"a\" is invalid: spec.sails: Invalid value: 0: spec.sails in body should be greater than or equal to 1"
    );
    let answer = w.ask(&format!("POST {BOATS}"), boat("a", json!({"sails": 3, "mast": 1}))).await;
    assert_eq!(answer.headers["warning"], "299 - \"unknown field \\\"spec.mast\\\"\"");
    assert_eq!(answer.value["spec"], json!({"sails": 3, "crew": 2}));
    assert_eq!(answer.value["metadata"]["generation"], 1);

    // The table of the definition.
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let listed = w.send(Some(&Identity::admin()), &format!("GET {BOATS}"), &[("accept", table)], "").await.value;
    let names: Vec<_> = listed["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "Sails", "Crew"]);
    assert_eq!(listed["rows"][0]["cells"], json!(["a", 3, null]));

    // Another version is the same object in other words, with a warning.
    let old = w.ask("GET /apis/sea.example/v1beta1/namespaces/shop/boats/a", Value::Null).await;
    assert_eq!(old.value["apiVersion"], "sea.example/v1beta1");
    assert_eq!(old.headers["warning"], "299 - \"sea.example/v1beta1 Boat is deprecated\"");
    let mut changed = old.value.clone();
    changed["spec"]["sails"] = 4.into();
    let answer = w.must("PUT /apis/sea.example/v1beta1/namespaces/shop/boats/a", changed).await;
    assert_eq!((&answer["apiVersion"], &answer["metadata"]["generation"]), (&json!("sea.example/v1beta1"), &json!(2)));
    let listed = w.must(&format!("GET {BOATS}"), Value::Null).await;
    assert_eq!((&listed["kind"], &listed["items"][0]["apiVersion"]), (&json!("BoatList"), &json!("sea.example/v1")));

    // Status and scale.
    let status = json!({"status": {"crew": 2, "selector": "boat=a"}, "spec": {"sails": 9}});
    let answer = w.must(&format!("PATCH {BOATS}/a/status"), status).await;
    assert_eq!((&answer["status"]["crew"], &answer["spec"]["sails"]), (&json!(2), &json!(4)));
    let wrong = w.ask(&format!("PATCH {BOATS}/a/status"), json!({"status": {"crew": "two"}})).await;
    assert!(wrong.show().contains("status.crew in body must be of type integer: \"string\""), "{}", wrong.show());
    let scale = w.must(&format!("PATCH {BOATS}/a/scale"), json!({"spec": {"replicas": 5}})).await;
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]), (&json!(5), &json!({"replicas": 2, "selector": "boat=a"})));
    assert_eq!(w.must(&format!("GET {BOATS}/a"), Value::Null).await["spec"]["crew"], 5);
}

#[tokio::test]
async fn patches_of_defined_kinds() {
    let w = world();
    w.establish(boats()).await;
    w.must(&format!("POST {BOATS}"), boat("a", json!({"sails": 1}))).await;
    let patch = |sort: &'static str, query: &'static str, body: Value| {
        let w = &w;
        async move {
            let line = format!("PATCH {BOATS}/a?{query}");
            w.send(Some(&Identity::admin()), &line, &[("content-type", sort)], body.to_string()).await
        }
    };
    let answer = patch("application/strategic-merge-patch+json", "", json!({"spec": {"sails": 2}})).await;
    assert_eq!(answer.code, 415, "{}", answer.show());
    let ports = |name: &str, depth: i64| boat("a", json!({"ports": [{"name": name, "depth": depth}]}));
    let apply = "application/apply-patch+yaml";
    assert_eq!(patch(apply, "fieldManager=one", ports("kiel", 11)).await.code, 200);
    let both = patch(apply, "fieldManager=two", ports("oslo", 9)).await;
    assert_eq!(
        both.value["spec"]["ports"],
        json!([{"name": "kiel", "depth": 11}, {"name": "oslo", "depth": 9}]),
        "{}",
        both.show()
    );
    let conflict = patch(apply, "fieldManager=two", ports("kiel", 12)).await;
    assert_eq!(conflict.code, 409);
    assert!(conflict.show().contains(".spec.ports[name=\"kiel\"].depth"), "{}", conflict.show());
    // What a manager no longer names goes.
    let gone = patch(apply, "fieldManager=one", boat("a", json!({}))).await;
    assert_eq!(gone.value["spec"]["ports"], json!([{"name": "oslo", "depth": 9}]));
}

#[tokio::test]
async fn discovery_and_documents_follow_definitions() {
    let w = world();
    let aggregated = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")];
    let before = w.send(Some(&Identity::admin()), "GET /apis", &aggregated, "").await;
    let tag = before.headers["etag"].to_str().unwrap().to_owned();
    let unchanged = w.send(Some(&Identity::admin()), "GET /apis", &[aggregated[0], ("if-none-match", &tag)], "").await;
    assert_eq!(unchanged.code, 304);
    w.establish(boats()).await;
    let after = w.send(Some(&Identity::admin()), "GET /apis", &[aggregated[0], ("if-none-match", &tag)], "").await;
    assert_eq!(after.code, 200);
    let group = after.value["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == "sea.example").unwrap();
    let versions: Vec<_> = group["versions"].as_array().unwrap().iter().map(|v| v["version"].as_str().unwrap()).collect();
    assert_eq!(versions, ["v1", "v1beta1"]);
    let boats = &group["versions"][0]["resources"][0];
    assert_eq!(
        (&boats["singularResource"], &boats["shortNames"], &boats["categories"]),
        (&json!("boat"), &json!(["bt"]), &json!(["all"]))
    );
    assert_eq!(boats["subresources"][1]["responseKind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    let plain = w.must("GET /apis/sea.example/v1", Value::Null).await;
    let names: Vec<_> = plain["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["boats", "boats/status", "boats/scale"]);

    let index = w.must("GET /openapi/v3", Value::Null).await;
    let place = index["paths"]["apis/sea.example/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = w.ask(&format!("GET {place}"), Value::Null).await;
    let schema = &document.value["components"]["schemas"]["example.sea.v1.Boat"];
    assert_eq!(schema["properties"]["spec"]["properties"]["sails"]["minimum"], 1);
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Boat");
    let tag = document.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(w.send(Some(&Identity::admin()), &format!("GET {place}"), &[("if-none-match", &tag)], "").await.code, 304);
    let moved = w.ask("GET /openapi/v3/apis/sea.example/v1?hash=OLD", Value::Null).await;
    assert_eq!((moved.code, moved.headers["location"].to_str().unwrap()), (301, place.as_str()));
    let old = w.must("GET /openapi/v2", Value::Null).await;
    assert!(old["definitions"]["example.sea.v1.Boat"].is_object());
}

#[tokio::test]
async fn expressions_are_accepted_with_a_warning() {
    let w = world();
    let mut definition = boats();
    definition["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] =
        json!([{"rule": "self.sails > 1"}]);
    let answer = w.ask(&format!("POST {DEFINITIONS}"), definition).await;
    assert_eq!(answer.code, 201, "{}", answer.show());
    let said = answer.headers["warning"].to_str().unwrap();
    assert!(said.contains("spec.versions[1].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations"), "{said}");
}

#[tokio::test]
async fn a_definition_that_goes_takes_nothing_new() {
    let w = world();
    w.establish(boats()).await;
    w.must(&format!("POST {BOATS}"), boat("a", json!({"sails": 1}))).await;
    let going = w.must(&format!("DELETE {DEFINITIONS}/boats.sea.example"), Value::Null).await;
    assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    let answer = w.ask(&format!("POST {BOATS}"), boat("b", json!({"sails": 1}))).await;
    assert_eq!(answer.show(), "405 MethodNotAllowed: create not allowed while custom resource definition is terminating");
    assert_eq!(w.must(&format!("GET {BOATS}"), Value::Null).await["items"].as_array().unwrap().len(), 1);
    let object = w.store.get(&crate::object::Key::new(definitions(), "", "boats.sea.example")).unwrap();
    assert!(object.typed::<Definition>().unwrap().terminating);
}

/// The same objects in two versions' words, each as it happens.
#[tokio::test]
async fn watches_of_defined_kinds() {
    let w = world();
    w.establish(boats()).await;
    let mut new = w.follow(&format!("{BOATS}?watch=true"), "application/json").await;
    let mut old = w.follow("/apis/sea.example/v1beta1/boats?watch=true", "application/json").await;
    w.must(&format!("POST {BOATS}"), boat("a", json!({"sails": 1}))).await;
    w.must(&format!("PATCH {BOATS}/a"), json!({"spec": {"sails": 2}})).await;
    w.must(&format!("DELETE {BOATS}/a"), Value::Null).await;
    for (watch, version) in [(&mut new, "sea.example/v1"), (&mut old, "sea.example/v1beta1")] {
        for (sort, sails) in [("ADDED", 1), ("MODIFIED", 2), ("DELETED", 2)] {
            let event = watch.next().await.unwrap();
            let object = &event["object"];
            assert_eq!((&event["type"], &object["apiVersion"]), (&json!(sort), &json!(version)));
            assert_eq!(object["spec"], json!({"sails": sails, "crew": 2}));
        }
    }
}

/// Lists and watches are narrowed by the fields that a version of the definition says, also for objects from before it said so.
#[tokio::test]
async fn fields_to_select_by() {
    let w = world();
    w.establish(boats()).await;
    let names = async |selector: &str| {
        let answer = w.ask(&format!("GET {BOATS}?fieldSelector={selector}"), Value::Null).await;
        if answer.code == 200 { answer.names().join(" ") } else { answer.show() }
    };
    for (name, sails, crew) in [("a", 1, 2), ("b", 2, 2), ("c", 2, 5)] {
        w.must(&format!("POST {BOATS}"), boat(name, json!({"sails": sails, "crew": crew}))).await;
    }
    assert_eq!(names("spec.sails%3D2").await, "400 BadRequest: field label not supported: spec.sails");
    let path = |path: &str| json!({"jsonPath": path});
    let with = |fields: Value| {
        let mut changed = boats();
        changed["spec"]["versions"][1]["selectableFields"] = fields;
        json!({"spec": changed["spec"]})
    };
    let at = format!("PATCH {DEFINITIONS}/boats.sea.example");
    for (fields, why) in [
        (json!([path("")]), "selectableFields[0].jsonPath: Required value"),
        (json!([path("spec.sails")]), "is an invalid path"),
        (json!([path(".spec.ports[0].name")]), "is an invalid path"),
        (json!([path(".spec..sails")]), "is an invalid path"),
        (json!([path(".metadata.name")]), "must not point to fields in metadata"),
        (json!([path(".spec.mast")]), "does not refer to a valid field"),
        (json!([path(".spec.ports")]), "must point to a field of type string, boolean, or integer"),
        (json!([path(".spec.sails"), path(".spec.sails")]), "selectableFields[1].jsonPath: Duplicate value: \".spec.sails\""),
        (json!(vec![path(".spec.sails"); 9]), "Too many: 9: must have at most 8 items"),
    ] {
        let refused = w.ask(&at, with(fields)).await;
        assert!(refused.code == 422 && refused.show().contains(why), "{why}: {}", refused.show());
    }
    let accepted = w.ask(&at, with(json!([path(".spec.sails"), path(".spec.crew")]))).await;
    assert_eq!((accepted.code, accepted.headers.get("warning")), (200, None));
    for (selector, wanted) in [
        ("spec.sails%3D2", "b c"),
        ("spec.sails!%3D2", "a"),
        ("spec.sails%3D2,spec.crew%3D5", "c"),
        ("spec.sails%3D2,metadata.name%3Db", "b"),
        ("spec.crew%3D", ""),
        ("status.crew%3D1", "400 BadRequest: field label not supported: status.crew"),
    ] {
        assert_eq!(names(selector).await, wanted, "{selector}");
    }
    // It is a matter of the version.
    let old = w.ask("GET /apis/sea.example/v1beta1/boats?fieldSelector=spec.sails%3D2", Value::Null).await;
    assert_eq!(old.code, 400);
    let document = w.must("GET /openapi/v3/apis/sea.example/v1", Value::Null).await;
    let published = &document["components"]["schemas"]["example.sea.v1.Boat"]["x-kubernetes-selectable-fields"];
    assert_eq!(*published, json!([{"fieldPath": "spec.sails"}, {"fieldPath": "spec.crew"}]));
    // A watch tells what begins and ends to be selected.
    let mut watch = w.follow(&format!("{BOATS}?watch=true&fieldSelector=spec.sails%3D3"), "application/json").await;
    for sails in [3, 3, 1] {
        w.must(&format!("PATCH {BOATS}/a"), json!({"spec": {"sails": sails}, "metadata": {"labels": {"n": sails.to_string()}}}))
            .await;
        w.must(&format!("PATCH {BOATS}/b"), json!({"metadata": {"labels": {"n": sails.to_string()}}})).await;
    }
    for sort in ["ADDED", "DELETED"] {
        let event = watch.next().await.unwrap();
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!(sort), &json!("a")));
    }
    // A collection is deleted by such a selector, too.
    w.must(&format!("DELETE {BOATS}?fieldSelector=spec.crew%3D5"), Value::Null).await;
    assert_eq!(names("").await, "a b");
}

/// A watch lives as long as its kind is what it was: it hears all that there was, and ends.
#[tokio::test]
async fn a_watch_ends_with_its_definition() {
    let w = world();
    w.establish(boats()).await;
    w.establish(ships()).await;
    let at = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/boats.sea.example";
    let follow = async |from: &str| {
        let query = format!("{BOATS}?watch=true&allowWatchBookmarks=true&resourceVersion={from}");
        w.follow(&query, "application/json").await
    };
    let mut other = w.follow("/apis/sea.example/v1/ships?watch=true", "application/json").await;
    let mut watch = follow("").await;
    w.must(&format!("POST {BOATS}"), boat("a", json!({"sails": 1}))).await;
    assert_eq!(watch.next().await.unwrap()["type"], "ADDED");
    // What says nothing about the kind's form ends nothing.
    w.must(&format!("PATCH {at}"), json!({"metadata": {"labels": {"a": "b"}}})).await;
    w.must(&format!("PATCH {BOATS}/a"), json!({"spec": {"sails": 2}})).await;
    assert_eq!(watch.next().await.unwrap()["type"], "MODIFIED");
    // Another form: the last word says from where to go on, and there the new form is seen.
    let mut changed = boats();
    let properties = &mut changed["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    properties["mast"] = json!({"type": "string", "default": "oak"});
    w.must(&format!("PATCH {at}"), json!({"spec": changed["spec"]})).await;
    w.must(&format!("PATCH {BOATS}/a"), json!({"spec": {"sails": 3}})).await;
    let mut heard = Vec::new();
    while let Some(event) = watch.next().await {
        heard.push(event);
    }
    let last = heard.pop().expect("it says how far it was");
    assert_eq!(last["type"], "BOOKMARK");
    assert!(heard.len() <= 1, "{heard:?}");
    let mut watch = follow(last["object"]["metadata"]["resourceVersion"].as_str().unwrap()).await;
    w.must(&format!("PATCH {BOATS}/a"), json!({"spec": {"sails": 4}})).await;
    let mut seen = heard;
    while seen.len() < 2 {
        seen.push(watch.next().await.unwrap());
    }
    assert_eq!(seen[1]["object"]["spec"], json!({"sails": 4, "crew": 2, "mast": "oak"}), "none lost, none twice: {seen:?}");
    // The definition goes: its objects are told of, and then nothing is.
    w.must(&format!("DELETE {at}"), Value::Null).await;
    w.must(&format!("DELETE {BOATS}/a"), Value::Null).await;
    w.must(&format!("PATCH {at}"), json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(watch.next().await.unwrap()["type"], "DELETED");
    let rest = async {
        let mut rest = Vec::new();
        while let Some(event) = watch.next().await {
            rest.push(event["type"].clone());
        }
        rest
    };
    let rest = tokio::time::timeout(std::time::Duration::from_secs(10), rest).await.expect("it ends by itself");
    assert!(rest.iter().all(|sort| sort == "BOOKMARK"), "{rest:?}");
    assert_eq!(w.ask(&format!("GET {BOATS}?watch=true"), Value::Null).await.code, 404);
    // Nobody else's watch has ended.
    w.must("POST /apis/sea.example/v1/namespaces/shop/ships", json!({"metadata": {"name": "s"}, "spec": {"sails": 1}})).await;
    assert_eq!(other.next().await.unwrap()["type"], "ADDED");
}

/// CVE-2022-3162: who may read one defined kind reads no other, whatever the path looks like.
#[tokio::test]
async fn f_rights_to_one_defined_kind() {
    let w = world();
    w.establish(boats()).await;
    w.establish(ships()).await;
    const SHIPS: &str = "/apis/sea.example/v1/namespaces/shop/ships";
    w.must(&format!("POST {BOATS}"), boat("a", json!({"sails": 1}))).await;
    w.must(&format!("POST {SHIPS}"), json!({"metadata": {"name": "s"}, "spec": {"sails": 1}})).await;
    w.role("shop", "boats", json!([rule(&["sea.example"], &["boats"], &["get", "list", "watch"])])).await;
    w.bind("shop", "boats", "Role/boats", subject("User", "jane")).await;
    let jane = Identity::new("jane", &[]).authenticated();
    for (line, code) in [
        (format!("GET {BOATS}/a"), 200),
        (format!("GET {BOATS}"), 200),
        ("GET /apis/sea.example/v1beta1/namespaces/shop/boats/a".to_owned(), 200),
        (format!("GET {SHIPS}/s"), 403),
        (format!("GET {SHIPS}"), 403),
        (format!("GET {BOATS}/a/scale"), 403),
        (format!("PATCH {BOATS}/a/status"), 403),
        (format!("DELETE {BOATS}/a"), 403),
        ("GET /apis/sea.example/v1/boats".to_owned(), 403),
        ("GET /apis/sea.example/v1/namespaces/default/boats".to_owned(), 403),
    ] {
        let answer = w.ask_as(&jane, &line, json!({})).await;
        assert_eq!(answer.code, code, "{line}: {}", answer.show());
    }
    for path in ["boats/../ships/s", "boats/..%2Fships%2Fs", "boats/%2e%2e/ships/s", "boats/./../ships", "boats//ships"] {
        let answer = w.ask_as(&jane, &format!("GET /apis/sea.example/v1/namespaces/shop/{path}"), Value::Null).await;
        assert!((400..500).contains(&answer.code), "{path}: {}", answer.show());
    }
}
