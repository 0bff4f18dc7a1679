//! Whether a definition's schema is structural: every place has a type, and what is only tested (`anyOf`, `not`…) says nothing of types.
//! In Kubernetes' words.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::values;
use crate::object::admit::Cause;

/// How deep a schema may be. Kubernetes has no such number; its largest published definitions reach forty.
const DEPTH_MAX: usize = 96;
/// How large a compiled pattern may be, in bytes: the last of these. Into which it fits says what it costs.
const PATTERN_SIZES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// How large all patterns of a schema may be together. Ten letters can make a pattern of a megabyte, and a definition has room for many.
const PATTERNS_MAX: usize = 16 << 20;
/// What matching one may remember beside that.
const MATCHING_MAX: usize = 256 << 10;

/// Keywords of JSON Schema that Kubernetes does not take in definitions.
const FORBIDDEN: &[&str] = &["$ref", "$schema", "additionalItems", "definitions", "dependencies", "id", "patternProperties"];
/// Keywords that say what a place is, and therefore do not belong below `allOf`, `anyOf`, `oneOf` and `not`.
const ONLY_OUTSIDE: &[&str] = &[
    "additionalProperties",
    "default",
    "description",
    "nullable",
    "title",
    "type",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
];
const JUNCTIONS: &[&str] = &["allOf", "anyOf", "oneOf"];

/// Everything that is wrong with a schema. `at` is its own path.
pub(in crate::object) fn problems(schema: &Value, at: &str) -> Vec<Cause> {
    let mut check = Check { causes: Vec::new(), patterns: Patterns::of(schema) };
    if schema["type"] != "object" {
        match schema["type"].as_str() {
            None | Some("") => check.required(format!("{at}.type"), "must not be empty at the root"),
            Some(other) => check.invalid(format!("{at}.type"), &other.into(), "must be object at the root"),
        }
    }
    check.node(schema, at, "at the root", DEPTH_MAX);
    check.causes
}

struct Check {
    causes: Vec<Cause>,
    patterns: Patterns,
}

impl Check {
    fn push(&mut self, field: String, reason: &'static str, message: String) {
        // A schema of a megabyte can be wrong in ten thousand places; a person reads a few.
        if self.causes.len() < 100 {
            self.causes.push(Cause { field, reason, message });
        }
    }
    fn required(&mut self, field: String, detail: &str) {
        self.push(field, "FieldValueRequired", format!("Required value: {detail}"));
    }
    fn invalid(&mut self, field: String, value: &Value, detail: &str) {
        self.push(field, "FieldValueInvalid", format!("Invalid value: {value}: {detail}"));
    }
    fn forbidden(&mut self, field: String, detail: &str) {
        self.push(field, "FieldValueForbidden", format!("Forbidden: {detail}"));
    }

    fn node(&mut self, schema: &Value, at: &str, place: &str, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return self.forbidden(at.to_owned(), "the schema is nested too deeply") };
        let Some(fields) = schema.as_object() else { return self.invalid(at.to_owned(), schema, "must be a schema") };
        let (int_or_text, preserve) = ("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields");
        match fields.get("type").and_then(Value::as_str) {
            None | Some("") => {
                if schema[int_or_text] != true && schema[preserve] != true && place != "at the root" {
                    self.required(format!("{at}.type"), &format!("must not be empty {place}"));
                }
            }
            Some("object" | "array" | "string" | "integer" | "number" | "boolean") => {
                if schema[int_or_text] == true {
                    self.invalid(format!("{at}.type"), &schema["type"], "must be empty if x-kubernetes-int-or-string is true");
                }
            }
            Some(other) => {
                let supported = "supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"";
                self.push(format!("{at}.type"), "FieldValueNotSupported", format!("Unsupported value: {other:?}: {supported}"));
            }
        }
        for name in FORBIDDEN.iter().filter(|n| fields.get(**n).is_some_and(|v| !v.is_null())) {
            self.forbidden(format!("{at}.{name}"), &format!("{name} is not supported"));
        }
        if schema["uniqueItems"] == true {
            self.forbidden(
                format!("{at}.uniqueItems"),
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            );
        }
        if schema[preserve] == false {
            self.invalid(format!("{at}.{preserve}"), &false.into(), "must be true or undefined");
        }
        let root = place == "at the root";
        if root || schema["x-kubernetes-embedded-resource"] == true {
            self.about(&schema["properties"], at, root);
        }
        if schema["x-kubernetes-embedded-resource"] == true {
            if schema["type"] != "object" {
                self.invalid(format!("{at}.type"), &schema["type"], "must be object if x-kubernetes-embedded-resource is true");
            }
            if schema["properties"].is_null() && schema[preserve] != true {
                let detail =
                    "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
                self.required(format!("{at}.properties"), detail);
            }
        }
        let (properties, additional) = (&schema["properties"], &schema["additionalProperties"]);
        if properties.as_object().is_some_and(|p| !p.is_empty()) && !additional.is_null() && additional != &Value::Bool(false) {
            self.forbidden(format!("{at}.additionalProperties"), "additionalProperties and properties are mutual exclusive");
        }
        if additional == &Value::Bool(false) {
            self.forbidden(format!("{at}.additionalProperties"), "additionalProperties cannot be set to false");
        }
        for (name, inner) in properties.as_object().into_iter().flatten() {
            self.node(inner, &format!("{at}.properties[{name}]"), "for specified object fields", depth);
        }
        if additional.is_object() {
            self.node(additional, &format!("{at}.additionalProperties"), "for specified object fields", depth);
        }
        match (&schema["items"], schema["type"] == "array") {
            (Value::Null, true) => self.required(format!("{at}.items"), "must be specified"),
            (Value::Null, false) => {}
            (Value::Array(_), _) => {
                self.forbidden(format!("{at}.items"), "items must be a schema object and not an array");
            }
            (items, _) => self.node(items, &format!("{at}.items"), "for specified array items", depth),
        }
        self.lists(schema, at);
        self.tests(schema, schema, at, depth);
        if let Some(default) = fields.get("default").filter(|d| !d.is_null()) {
            let mut found = Vec::new();
            values::validate_part(schema, default, &format!("{at}.default"), &self.patterns.by_text, &mut found);
            self.causes.extend(found);
        }
    }

    /// What every object has: its type is given, and a schema can only narrow which names are taken.
    fn about(&mut self, properties: &Value, at: &str, root: bool) {
        for (name, wanted) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
            let said = &properties[name]["type"];
            if said.as_str().is_some_and(|said| said != wanted) {
                self.invalid(format!("{at}.properties[{name}].type"), said, &format!("must be {wanted}"));
            }
        }
        let narrows = |(name, said): (&String, &Value)| match name.as_str() {
            "type" => true,
            "properties" => said.as_object().is_some_and(|said| said.keys().all(|name| name == "name" || name == "generateName")),
            _ => said.is_null(),
        };
        if root && properties["metadata"].as_object().is_some_and(|metadata| !metadata.iter().all(narrows)) {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.forbidden(format!("{at}.properties[metadata]"), detail);
        }
    }

    /// `x-kubernetes-list-type` and what must come with it.
    fn lists(&mut self, schema: &Value, at: &str) {
        let name = "x-kubernetes-list-type";
        let keys = &schema["x-kubernetes-list-map-keys"];
        let keys_at = || format!("{at}.x-kubernetes-list-map-keys");
        let Some(kind) = schema[name].as_str() else {
            if !keys.is_null() {
                self.required(format!("{at}.{name}"), "must be map if x-kubernetes-list-map-keys is non-empty");
            }
            return;
        };
        if schema["type"] != "array" {
            self.invalid(format!("{at}.type"), &schema["type"], "must be array if x-kubernetes-list-type is specified");
        }
        match kind {
            "atomic" | "set" => {}
            "map" => {
                let names: Vec<&str> = keys.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                if names.is_empty() {
                    self.required(keys_at(), "must not be empty if x-kubernetes-list-type is map");
                }
                if schema["items"]["type"] != "object" {
                    let detail = "must be object if parent array's x-kubernetes-list-type is map";
                    self.invalid(format!("{at}.items.type"), &schema["items"]["type"], detail);
                }
                for (i, key) in names.iter().enumerate() {
                    let property = &schema["items"]["properties"][*key];
                    if property.is_null() {
                        self.invalid(
                            format!("{}[{i}]", keys_at()),
                            &(*key).into(),
                            "entries must all be names of item properties",
                        );
                    }
                    if matches!(property["type"].as_str(), Some("object" | "array")) {
                        let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                        self.invalid(format!("{at}.items.properties[{key}].type"), &property["type"], detail);
                    }
                    let required = schema["items"]["required"].as_array().is_some_and(|r| r.iter().any(|r| r == key));
                    if !property.is_null() && !required && property["default"].is_null() {
                        let detail =
                            "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                        self.required(format!("{at}.items.properties[{key}].default"), detail);
                    }
                }
            }
            other => {
                let supported = "supported values: \"atomic\", \"map\", \"set\"";
                self.push(format!("{at}.{name}"), "FieldValueNotSupported", format!("Unsupported value: {other:?}: {supported}"));
            }
        }
    }

    /// What is only tested: numbers, patterns, and the schemas below `allOf` and its like, which may name nothing that `outer` does not.
    fn tests(&mut self, schema: &Value, outer: &Value, at: &str, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return self.forbidden(at.to_owned(), "the schema is nested too deeply") };
        if let Some(pattern) = schema["pattern"].as_str()
            && let Err(detail) = self.patterns.add(pattern)
        {
            self.invalid(format!("{at}.pattern"), &pattern.into(), &detail);
        }
        let mut inner: Vec<(String, &Value)> = Vec::new();
        for junction in JUNCTIONS {
            for (i, part) in schema[*junction].as_array().into_iter().flatten().enumerate() {
                inner.push((format!("{at}.{junction}[{i}]"), part));
            }
        }
        if !schema["not"].is_null() {
            inner.push((format!("{at}.not"), &schema["not"]));
        }
        let numbers_or_texts = outer["x-kubernetes-int-or-string"] == true;
        for (at, part) in inner {
            self.inside(part, outer, &at, numbers_or_texts, depth);
        }
    }

    fn inside(&mut self, part: &Value, outer: &Value, at: &str, int_or_text: bool, depth: usize) {
        for name in ONLY_OUTSIDE {
            // The one way in which Kubernetes lets a type stand there.
            let excused = *name == "type" && int_or_text;
            if !part[*name].is_null() && !excused {
                self.forbidden(format!("{at}.{name}"), "must be empty to be structural");
            }
        }
        for (name, inner) in part["properties"].as_object().into_iter().flatten() {
            let known = &outer["properties"][name];
            let at = format!("{at}.properties[{name}]");
            if known.is_null() && outer["additionalProperties"].is_null() && outer["x-kubernetes-preserve-unknown-fields"] != true
            {
                self.required(at.clone(), &format!("because it is defined in {at}"));
            }
            self.inside(inner, known, &at, known["x-kubernetes-int-or-string"] == true, depth);
        }
        if part["items"].is_object() {
            self.inside(&part["items"], &outer["items"], &format!("{at}.items"), false, depth);
        }
        self.tests(part, outer, at, depth);
    }
}

/// The patterns of a schema, compiled.
#[derive(Default)]
pub(in crate::object) struct Patterns {
    pub(super) by_text: BTreeMap<String, Regex>,
    /// About what they take.
    pub(super) bytes: usize,
    full: bool,
}

impl Patterns {
    /// Every pattern of a schema that can be understood.
    pub(super) fn of(schema: &Value) -> Patterns {
        let mut found = Patterns::default();
        each(schema, &mut String::new(), &mut |part, _| {
            // What cannot be understood was refused when the definition came.
            part["pattern"].as_str().map(|pattern| found.add(pattern));
        });
        found
    }

    fn add(&mut self, pattern: &str) -> Result<(), String> {
        if self.by_text.contains_key(pattern) {
            return Ok(());
        }
        let too_many = || Err(format!("the patterns of a schema may together take {} MiB", PATTERNS_MAX >> 20));
        if self.full {
            return too_many();
        }
        let (compiled, bytes) =
            compile(pattern).map_err(|why| format!("must be a valid regular expression, but isn't: {why}"))?;
        self.full = self.bytes + bytes > PATTERNS_MAX;
        if self.full {
            return too_many();
        }
        self.bytes += bytes;
        self.by_text.insert(pattern.to_owned(), compiled);
        Ok(())
    }
}

/// A pattern, and about what it takes.
fn compile(pattern: &str) -> Result<(Regex, usize), String> {
    let mut why = String::new();
    for bytes in PATTERN_SIZES {
        match RegexBuilder::new(pattern).size_limit(bytes).dfa_size_limit(MATCHING_MAX).build() {
            Ok(compiled) => return Ok((compiled, bytes + pattern.len())),
            Err(error) => {
                why = error.to_string().lines().last().unwrap_or_default().to_owned();
                if !matches!(error, regex::Error::CompiledTooBig(_)) {
                    break;
                }
            }
        }
    }
    Err(why)
}

/// Where the first expression is, if there is one.
pub(super) fn expressions(schema: &Value) -> Option<String> {
    let mut found = None;
    each(schema, &mut String::new(), &mut |part, at| {
        if found.is_none() && part["x-kubernetes-validations"].as_array().is_some_and(|rules| !rules.is_empty()) {
            found = Some(at.to_owned());
        }
    });
    found
}

/// Shows every schema in a schema, with its path.
fn each(schema: &Value, at: &mut String, show: &mut dyn FnMut(&Value, &str)) {
    // The JSON reader has bounded the depth.
    show(schema, at);
    let mut inner: Vec<(String, &Value)> = Vec::new();
    for (name, part) in schema["properties"].as_object().into_iter().flatten() {
        inner.push((format!(".properties[{name}]"), part));
    }
    for name in ["items", "additionalProperties", "not"] {
        if schema[name].is_object() {
            inner.push((format!(".{name}"), &schema[name]));
        }
    }
    for junction in JUNCTIONS {
        for (i, part) in schema[*junction].as_array().into_iter().flatten().enumerate() {
            inner.push((format!(".{junction}[{i}]"), part));
        }
    }
    for (step, part) in inner {
        let length = at.len();
        at.push_str(&step);
        each(part, at, show);
        at.truncate(length);
    }
}
