//! Objects of defined kinds against their schema: defaults, and what is wrong, in Kubernetes' words.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::{Map, Value, json};

use super::Version;
use crate::object::admit::{Cause, names};

/// Fills in what the author left out.
pub(in crate::object) fn defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                let default = &schema["default"];
                let empty = match fields.get(name) {
                    None => true,
                    Some(Value::Null) => schema["nullable"] != true,
                    Some(_) => false,
                };
                if empty && !default.is_null() {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(inner) = fields.get_mut(name) {
                    defaults(schema, inner);
                }
            }
            let additional = &schema["additionalProperties"];
            if additional.is_object() {
                fields.values_mut().for_each(|inner| defaults(additional, inner));
            }
        }
        Value::Array(items) if schema["items"].is_object() => {
            items.iter_mut().for_each(|item| defaults(&schema["items"], item));
        }
        _ => {}
    }
}

/// Everything that is wrong with an object. Of its metadata a schema can only say what names it takes.
pub(in crate::object) fn validate(version: &Version, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    validate_part(&version.schema, value, "", &version.patterns.by_text, &mut causes);
    causes
}

/// The same for a part at a path.
pub(super) fn validate_part(
    schema: &Value,
    value: &Value,
    at: &str,
    patterns: &BTreeMap<String, Regex>,
    causes: &mut Vec<Cause>,
) {
    Check { patterns, causes }.value(schema, value, at);
}

struct Check<'a> {
    patterns: &'a BTreeMap<String, Regex>,
    causes: &'a mut Vec<Cause>,
}

impl Check<'_> {
    fn push(&mut self, at: &str, reason: &'static str, message: String) {
        // A million wrong elements are one mistake.
        if self.causes.len() < 100 {
            let field = if at.is_empty() { "<nil>" } else { at };
            self.causes.push(Cause { field: field.to_owned(), reason, message });
        }
    }
    /// `Invalid value: 0: spec.replicas in body should be greater than or equal to 1`.
    fn wrong(&mut self, at: &str, value: &Value, what: &str) {
        let subject = if at.is_empty() { "\"\"" } else { at };
        self.push(at, "FieldValueInvalid", format!("Invalid value: {}: {subject} in body {what}", shown(value)));
    }

    fn value(&mut self, schema: &Value, value: &Value, at: &str) {
        if value.is_null() && schema["nullable"] == true {
            return;
        }
        if !self.of_type(schema, value, at) {
            return;
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            let list: Vec<String> = allowed.iter().map(Value::to_string).collect();
            self.push(
                at,
                "FieldValueNotSupported",
                format!("Unsupported value: {}: supported values: {}", shown(value), list.join(", ")),
            );
        }
        match value {
            Value::String(text) => self.text(schema, text, at),
            Value::Number(_) => self.number(schema, value, at),
            Value::Array(items) => self.list(schema, items, at),
            Value::Object(_) => self.object(schema, value, at),
            _ => {}
        }
        self.junctions(schema, value, at);
    }

    fn of_type(&mut self, schema: &Value, value: &Value, at: &str) -> bool {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_i64() || n.is_u64() || n.as_f64().is_some_and(|f| f.fract() == 0.0) => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let fits = match schema["type"].as_str() {
            _ if schema["x-kubernetes-int-or-string"] == true => {
                if !matches!(found, "integer" | "string") {
                    self.wrong_type(at, "integer,string", found);
                    return false;
                }
                true
            }
            None | Some("") => found != "null" || schema["x-kubernetes-preserve-unknown-fields"] == true,
            Some("number") => matches!(found, "integer" | "number"),
            Some(wanted) => wanted == found,
        };
        if !fits {
            self.wrong_type(at, schema["type"].as_str().unwrap_or("any"), found);
        }
        fits
    }

    fn wrong_type(&mut self, at: &str, wanted: &str, found: &str) {
        let subject = if at.is_empty() { "\"\"" } else { at };
        let message = format!("Invalid value: {found:?}: {subject} in body must be of type {wanted}: {found:?}");
        self.push(at, "FieldValueTypeInvalid", message);
    }

    fn text(&mut self, schema: &Value, text: &str, at: &str) {
        let value: Value = text.into();
        let length = text.chars().count() as u64;
        if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
            self.push(at, "FieldValueTooLong", format!("Too long: may not be more than {most} bytes"));
        }
        if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
            self.wrong(at, &value, &format!("should be at least {least} chars long"));
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && self.patterns.get(pattern).is_some_and(|regex| !regex.is_match(text))
        {
            self.wrong(at, &value, &format!("should match '{pattern}'"));
        }
        if let Some(format) = schema["format"].as_str()
            && !of_format(format, text)
        {
            self.wrong(at, &value, &format!("must be of type {format}: {value}"));
        }
    }

    fn number(&mut self, schema: &Value, value: &Value, at: &str) {
        let Some(number) = value.as_f64() else { return };
        let exclusive = |name: &str| schema[name] == true;
        if let Some(least) = schema["minimum"].as_f64() {
            let shown = &schema["minimum"];
            if exclusive("exclusiveMinimum") {
                if number <= least {
                    self.wrong(at, value, &format!("should be greater than {shown}"));
                }
            } else if number < least {
                self.wrong(at, value, &format!("should be greater than or equal to {shown}"));
            }
        }
        if let Some(most) = schema["maximum"].as_f64() {
            let shown = &schema["maximum"];
            if exclusive("exclusiveMaximum") {
                if number >= most {
                    self.wrong(at, value, &format!("should be less than {shown}"));
                }
            } else if number > most {
                self.wrong(at, value, &format!("should be less than or equal to {shown}"));
            }
        }
        if let Some(step) = schema["multipleOf"].as_f64().filter(|step| *step > 0.0) {
            let times = number / step;
            if (times - times.round()).abs() > 1e-9 {
                self.wrong(at, value, &format!("should be a multiple of {}", schema["multipleOf"]));
            }
        }
        let range = match schema["format"].as_str() {
            Some("int32") => Some((f64::from(i32::MIN), f64::from(i32::MAX))),
            _ => None,
        };
        if range.is_some_and(|(least, most)| number < least || number > most) {
            self.wrong(at, value, &format!("must be of type int32: {value}"));
        }
    }

    fn list(&mut self, schema: &Value, items: &[Value], at: &str) {
        let count = items.len() as u64;
        if let Some(most) = schema["maxItems"].as_u64().filter(|most| count > *most) {
            self.push(at, "FieldValueTooMany", format!("Too many: {count}: must have at most {most} items"));
        }
        if let Some(least) = schema["minItems"].as_u64().filter(|least| count < *least) {
            self.wrong(at, &json!(items), &format!("should have at least {least} items"));
        }
        if schema["items"].is_object() {
            for (i, item) in items.iter().enumerate() {
                self.value(&schema["items"], item, &format!("{at}[{i}]"));
            }
        }
        let keys: Vec<&str> =
            schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let identity = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => Some(item.clone()),
            Some("map") => Some(keys.iter().map(|key| ((*key).to_owned(), item[*key].clone())).collect::<Map<_, _>>().into()),
            _ => None,
        };
        let mut seen = BTreeSet::new();
        for (i, item) in items.iter().enumerate() {
            let Some(identity) = identity(item) else { return };
            if !seen.insert(identity.to_string()) {
                self.push(&format!("{at}[{i}]"), "FieldValueDuplicate", format!("Duplicate value: {identity}"));
            }
        }
    }

    fn object(&mut self, schema: &Value, value: &Value, at: &str) {
        let Some(fields) = value.as_object() else { return };
        let below = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                self.push(&below(name), "FieldValueRequired", "Required value".to_owned());
            }
        }
        let count = fields.len() as u64;
        if let Some(most) = schema["maxProperties"].as_u64().filter(|most| count > *most) {
            self.push(at, "FieldValueTooMany", format!("Too many: {count}: must have at most {most} items"));
        }
        if let Some(least) = schema["minProperties"].as_u64().filter(|least| count < *least) {
            self.wrong(at, value, &format!("should have at least {least} properties"));
        }
        let embedded = schema["x-kubernetes-embedded-resource"] == true;
        if embedded {
            for name in ["apiVersion", "kind"] {
                if fields.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                    self.push(&below(name), "FieldValueRequired", "Required value: must not be empty".to_owned());
                }
            }
            if let Some(name) = fields.get("metadata").and_then(|m| m["name"].as_str()) {
                for why in names::subdomain(name) {
                    self.push(&below("metadata.name"), "FieldValueInvalid", format!("Invalid value: {name:?}: {why}"));
                }
            }
        }
        let (properties, additional) = (&schema["properties"], &schema["additionalProperties"]);
        for (name, inner) in fields {
            if embedded && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            match properties.get(name) {
                Some(property) => self.value(property, inner, &below(name)),
                None if additional.is_object() => self.value(additional, inner, &below(name)),
                None => {}
            }
        }
    }

    fn junctions(&mut self, schema: &Value, value: &Value, at: &str) {
        let fits = |part: &Value| {
            let mut causes = Vec::new();
            Check { patterns: self.patterns, causes: &mut causes }.value(part, value, at);
            causes
        };
        let parts = |name: &str| {
            schema[name].as_array().filter(|parts| !parts.is_empty()).map(|p| p.iter().map(fits).collect::<Vec<_>>())
        };
        let (any, one, all) = (parts("anyOf"), parts("oneOf"), parts("allOf"));
        let not = (!schema["not"].is_null()).then(|| fits(&schema["not"]));
        if let Some(any) = any
            && any.iter().all(|causes| !causes.is_empty())
        {
            // The part that is nearest to fitting says most.
            self.causes.extend(any.into_iter().min_by_key(Vec::len).unwrap_or_default());
            self.wrong(at, value, "must validate at least one schema (anyOf)");
        }
        if let Some(one) = one {
            let valid = one.iter().filter(|causes| causes.is_empty()).count();
            match valid {
                1 => {}
                0 => {
                    self.causes.extend(one.into_iter().min_by_key(Vec::len).unwrap_or_default());
                    self.wrong(at, value, "must validate one and only one schema (oneOf). Found none valid");
                }
                many => self.wrong(
                    at,
                    value,
                    &format!("must validate one and only one schema (oneOf). Found {many} valid alternatives"),
                ),
            }
        }
        if let Some(all) = all
            && all.iter().any(|causes| !causes.is_empty())
        {
            let missing = if all.iter().all(|causes| !causes.is_empty()) { ". None validated" } else { "" };
            self.causes.extend(all.into_iter().flatten());
            self.wrong(at, value, &format!("must validate all the schemas (allOf){missing}"));
        }
        if not.is_some_and(|causes| causes.is_empty()) {
            self.wrong(at, value, "must not validate the schema (not)");
        }
    }
}

/// A value in a message: scalars as they are, the rest by its type, as Kubernetes prints it.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.len() {
        0..=200 => text,
        _ => text.chars().take(197).chain("...".chars()).collect(),
    }
}

/// Whether a text is of a format. Formats that Kubernetes does not know are not looked at there either.
fn of_format(format: &str, text: &str) -> bool {
    use std::net::{Ipv4Addr, Ipv6Addr};
    match format {
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.split_once('/').is_some_and(|(address, bits)| {
            let most = if address.parse::<Ipv4Addr>().is_ok() { 32 } else { 128 };
            let known = most == 32 || address.parse::<Ipv6Addr>().is_ok();
            known && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
        }),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => {
            let hex: String = text.chars().filter(|c| *c != '-').collect();
            hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
        }
        "hostname" => names::subdomain(&text.to_ascii_lowercase()).is_empty(),
        "uri" => text.split_once(':').is_some_and(|(scheme, rest)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && !rest.is_empty() && !text.contains(char::is_whitespace)
        }),
        "email" => text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !text.contains(' ')),
        "byte" => {
            use base64::Engine;
            base64::prelude::BASE64_STANDARD.decode(text).is_ok()
        }
        "duration" => go_duration(text),
        _ => true,
    }
}

/// `1h30m`, `250ms`: what Go's parser takes.
fn go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let unit =
            ["ns", "us", "µs", "ms", "s", "m", "h"].into_iter().filter(|u| rest[digits..].starts_with(u)).max_by_key(|u| u.len());
        match unit {
            Some(unit) if digits > 0 => rest = &rest[digits + unit.len()..],
            _ => return false,
        }
    }
    true
}
