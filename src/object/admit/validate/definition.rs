//! What Kubernetes refuses in a CustomResourceDefinition. The schemas in it are looked at in `custom::structural`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::causes::{Causes, list, text};
use super::names;
use crate::object::admit::Cause;
use crate::object::custom::jsonpath::Path;
use crate::object::custom::structural;
use crate::object::ours;

/// A definition.
pub fn definition(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let name = text(&object["metadata"]["name"]);
    if !name.is_empty() && name != format!("{plural}.{group}") {
        c.invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group");
    }
    group_name(&mut c, object, group);
    match text(&spec["scope"]) {
        "" => c.required("spec.scope", ""),
        scope => c.one_of("spec.scope", &scope.into(), &["Cluster", "Namespaced"]),
    }
    kind_names(&mut c, &spec["names"]);
    if spec["preserveUnknownFields"] == true {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        c.invalid("spec.preserveUnknownFields", true, detail);
    }
    match text(&spec["conversion"]["strategy"]) {
        "" | "None" => {}
        other => c.unsupported("spec.conversion.strategy", other, &["None"]),
    }
    versions(&mut c, &spec["versions"]);
    if let Some(old) = old {
        let before = &old["spec"];
        for (field, was, is) in [
            ("spec.group", &before["group"], &spec["group"]),
            ("spec.names.plural", &before["names"]["plural"], &spec["names"]["plural"]),
            ("spec.names.kind", &before["names"]["kind"], &spec["names"]["kind"]),
            ("spec.scope", &before["scope"], &spec["scope"]),
        ] {
            c.immutable(field, is, was);
        }
        let named: Vec<&Value> = list(&spec["versions"]).map(|(_, version)| &version["name"]).collect();
        for (i, stored) in list(&old["status"]["storedVersions"]) {
            if !named.contains(&stored) {
                c.invalid(format!("status.storedVersions[{i}]"), stored.clone(), "must appear in spec.versions");
            }
        }
    }
    c.0
}

fn group_name(c: &mut Causes, object: &Value, group: &str) {
    c.required_name("spec.group", group, names::subdomain);
    if !group.is_empty() && !group.contains('.') {
        c.invalid("spec.group", group, "should be a domain with at least one dot");
    }
    if group == ours::GROUP {
        c.forbidden("spec.group", "the kinds of this group belong to the server itself");
    }
    let guarded = |suffix: &str| group == suffix || group.ends_with(&format!(".{suffix}"));
    let approval = "api-approved.kubernetes.io";
    if (guarded("k8s.io") || guarded("kubernetes.io")) && text(&object["metadata"]["annotations"][approval]).is_empty() {
        c.required(
            format!("metadata.annotations[{approval}]"),
            &format!("protected groups must have approval annotation {approval:?}, see https://github.com/kubernetes/enhancements/pull/1111"),
        );
    }
}

fn kind_names(c: &mut Causes, given: &Value) {
    let at = |name: &str| format!("spec.names.{name}");
    for name in ["plural", "singular"] {
        c.required_name(&at(name), text(&given[name]), names::label);
    }
    for name in ["kind", "listKind"] {
        // Kinds are written with capitals and are labels otherwise.
        c.required_name(&at(name), &text(&given[name]).to_ascii_lowercase(), names::label);
    }
    if given["kind"] == given["listKind"] && !given["kind"].is_null() {
        c.invalid(at("listKind"), given["listKind"].clone(), "kind and listKind may not be the same");
    }
    for name in ["shortNames", "categories"] {
        for (i, word) in list(&given[name]) {
            c.name(&format!("{}[{i}]", at(name)), text(word), names::label);
        }
    }
}

fn versions(c: &mut Causes, versions: &Value) {
    if list(versions).next().is_none() {
        return c.required("spec.versions", "must have at least one version");
    }
    let mut seen = BTreeSet::new();
    let storage: Vec<&str> = list(versions).filter(|(_, v)| v["storage"] == true).map(|(_, v)| text(&v["name"])).collect();
    for (i, version) in list(versions) {
        let at = format!("spec.versions[{i}]");
        c.required_name(&format!("{at}.name"), text(&version["name"]), names::label);
        if !seen.insert(text(&version["name"])) {
            c.invalid("spec.versions", text(&version["name"]), "must contain unique version names");
        }
        let schema = &version["schema"]["openAPIV3Schema"];
        let schema_at = format!("{at}.schema.openAPIV3Schema");
        match schema {
            Value::Object(_) => c.0.extend(structural::problems(schema, &schema_at)),
            _ => c.required(schema_at, "schemas are required"),
        }
        columns(c, &at, &version["additionalPrinterColumns"]);
        selectable(c, &format!("{at}.selectableFields"), &version["selectableFields"], schema);
        scale(c, &format!("{at}.subresources.scale"), &version["subresources"]["scale"]);
    }
    if storage.len() != 1 {
        let named: Vec<Value> = storage.iter().map(|name| (*name).into()).collect();
        c.invalid("spec.versions", named, "must have exactly one version marked as storage version");
    }
}

/// How many fields of a version objects can be selected by.
const SELECTABLE: usize = 8;

fn selectable(c: &mut Causes, at: &str, fields: &Value, schema: &Value) {
    if list(fields).count() > SELECTABLE {
        c.too_many(at, list(fields).count(), SELECTABLE);
    }
    let mut seen = BTreeSet::new();
    for (i, field) in list(fields) {
        let at = format!("{at}[{i}].jsonPath");
        let path = text(&field["jsonPath"]);
        if path.is_empty() {
            c.required(at, "");
            continue;
        }
        if !seen.insert(path) {
            c.duplicate(at.as_str(), path);
        }
        let steps: Vec<&str> = path.split('.').skip(1).collect();
        if !path.starts_with('.') || steps.iter().any(|step| step.is_empty() || step.contains(['[', ']', '*', '\'', '"'])) {
            c.invalid(at, path, "is an invalid path: it must be a simple path of fields, such as .spec.color");
        } else if matches!(steps[0], "metadata" | "apiVersion" | "kind") {
            c.invalid(at, path, "must not point to fields in metadata");
        } else {
            match steps.iter().try_fold(schema, |at, step| at["properties"].get(*step)).map(|field| text(&field["type"])) {
                None => c.invalid(at, path, "is an invalid path: does not refer to a valid field"),
                Some("string" | "boolean" | "integer") => {}
                Some(_) => c.invalid(
                    at,
                    path,
                    "must point to a field of type string, boolean, or integer. Enum string fields and strings with formats are allowed.",
                ),
            }
        }
    }
}

fn columns(c: &mut Causes, at: &str, columns: &Value) {
    for (i, column) in list(columns) {
        let at = format!("{at}.additionalPrinterColumns[{i}]");
        c.required_text(&format!("{at}.name"), &column["name"]);
        match text(&column["type"]) {
            "" => c.required(format!("{at}.type"), ""),
            kind => c.one_of(&format!("{at}.type"), &kind.into(), &["boolean", "date", "integer", "number", "string"]),
        }
        match text(&column["jsonPath"]) {
            "" => c.required(format!("{at}.jsonPath"), ""),
            path => {
                if let Err(why) = Path::parse(path) {
                    c.invalid(format!("{at}.jsonPath"), path, &format!("is an invalid path: {why}"));
                }
            }
        }
    }
}

fn scale(c: &mut Causes, at: &str, scale: &Value) {
    if scale.is_null() {
        return;
    }
    for (name, under) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        match text(&scale[name]) {
            "" => c.required(format!("{at}.{name}"), ""),
            path if !path.starts_with(under) => {
                let detail = format!("should be a json path under {}", under.trim_end_matches('.'));
                c.invalid(format!("{at}.{name}"), path, &detail);
            }
            _ => {}
        }
    }
    let selector = text(&scale["labelSelectorPath"]);
    if !selector.is_empty() && !selector.starts_with(".spec.") && !selector.starts_with(".status.") {
        c.invalid(format!("{at}.labelSelectorPath"), selector, "should be a json path under either .spec or .status");
    }
}
