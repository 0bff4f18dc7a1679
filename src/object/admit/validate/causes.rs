//! Collecting what is wrong, in Kubernetes' words.

use serde_json::Value;

use crate::object::admit::Cause;

/// How many are told. Nobody reads more, and an object of three megabytes can have a hundred thousand.
const TOLD: usize = 1000;

/// What was found so far.
#[derive(Default)]
pub(super) struct Causes(pub(super) Vec<Cause>);

impl Causes {
    fn push(&mut self, field: impl Into<String>, reason: &'static str, message: String) {
        if self.0.len() < TOLD {
            self.0.push(Cause { field: field.into(), reason, message });
        }
    }
    pub(super) fn required(&mut self, field: impl Into<String>, detail: &str) {
        let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        self.push(field, "FieldValueRequired", message);
    }
    pub(super) fn invalid(&mut self, field: impl Into<String>, value: impl Into<Value>, detail: &str) {
        self.push(field, "FieldValueInvalid", format!("Invalid value: {}: {detail}", value.into()));
    }
    pub(super) fn unsupported(&mut self, field: impl Into<String>, value: &str, supported: &[&str]) {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        self.push(
            field,
            "FieldValueNotSupported",
            format!("Unsupported value: {}: supported values: {}", Value::from(value), list.join(", ")),
        );
    }
    pub(super) fn duplicate(&mut self, field: impl Into<String>, value: impl Into<Value>) {
        self.push(field, "FieldValueDuplicate", format!("Duplicate value: {}", value.into()));
    }
    pub(super) fn forbidden(&mut self, field: impl Into<String>, detail: &str) {
        self.push(field, "FieldValueForbidden", format!("Forbidden: {detail}"));
    }
    pub(super) fn not_found(&mut self, field: impl Into<String>, value: &str) {
        self.push(field, "FieldValueNotFound", format!("Not found: {}", Value::from(value)));
    }
    pub(super) fn too_long(&mut self, field: impl Into<String>, bytes: usize) {
        self.push(field, "FieldValueTooLong", format!("Too long: may not be more than {bytes} bytes"));
    }

    pub(super) fn too_many(&mut self, field: impl Into<String>, found: usize, most: usize) {
        self.push(field, "FieldValueTooMany", format!("Too many: {found}: must have at most {most} items"));
    }

    /// Everything that a rule of `names` says about a text.
    pub(super) fn name(&mut self, field: &str, text: &str, rule: fn(&str) -> Vec<String>) {
        for why in rule(text) {
            self.invalid(field, text, &why);
        }
    }
    /// A text that must be there and follow a rule.
    pub(super) fn required_name(&mut self, field: &str, text: &str, rule: fn(&str) -> Vec<String>) {
        if text.is_empty() { self.required(field, "") } else { self.name(field, text, rule) }
    }
    /// A text that must be there.
    pub(super) fn required_text(&mut self, field: &str, value: &Value) {
        if text(value).is_empty() {
            self.required(field, "");
        }
    }
    /// A text that, where it is there, must be one of these.
    pub(super) fn one_of(&mut self, field: &str, value: &Value, supported: &[&str]) {
        let found = text(value);
        if !value.is_null() && !supported.contains(&found) {
            self.unsupported(field, found, supported);
        }
    }
    /// A number that, where it is there, must not be negative.
    pub(super) fn not_negative(&mut self, field: &str, value: &Value) {
        if value.as_i64().is_some_and(|n| n < 0) {
            self.invalid(field, value.clone(), "must be greater than or equal to 0");
        }
    }
    /// A number that, where it is there, must be within bounds.
    pub(super) fn between(&mut self, field: &str, value: &Value, least: i64, most: i64) {
        if value.as_i64().is_some_and(|n| n < least || n > most) {
            self.invalid(field, value.clone(), &format!("must be between {least} and {most}, inclusive"));
        }
    }
    /// The number of a port.
    pub(super) fn port(&mut self, field: &str, value: &Value) {
        if value.as_i64().is_some_and(|n| !(1..=65535).contains(&n)) {
            self.invalid(field, value.clone(), "must be between 1 and 65535, inclusive");
        }
    }
    /// A part that may not change.
    pub(super) fn immutable(&mut self, field: &str, new: &Value, old: &Value) {
        if new != old {
            self.invalid(field, new.clone(), "field is immutable");
        }
    }
    /// Labels, wherever they are.
    pub(super) fn labels(&mut self, field: &str, labels: &Value) {
        for (key, value) in labels.as_object().into_iter().flatten() {
            self.name(field, key, super::names::qualified);
            self.name(field, text(value), super::names::label_value);
        }
    }
    /// A selector as Deployments and affinities write it.
    pub(super) fn selector(&mut self, field: &str, selector: &Value) {
        self.labels(&format!("{field}.matchLabels"), &selector["matchLabels"]);
        for (i, expression) in list(&selector["matchExpressions"]) {
            let at = format!("{field}.matchExpressions[{i}]");
            self.required_name(&format!("{at}.key"), text(&expression["key"]), super::names::qualified);
            let values = expression["values"].as_array().map_or(0, Vec::len);
            match text(&expression["operator"]) {
                "In" | "NotIn" if values == 0 => {
                    self.required(format!("{at}.values"), "must be specified when `operator` is 'In' or 'NotIn'");
                }
                "Exists" | "DoesNotExist" if values > 0 => {
                    self.forbidden(format!("{at}.values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
                other => self.invalid(format!("{at}.operator"), other, "not a valid selector operator"),
            }
        }
    }
}

/// The text, or nothing.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The elements of a list with their places.
pub(super) fn list(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}

/// Whether something is there: not absent, not null.
pub(super) fn there(value: &Value) -> bool {
    !value.is_null()
}
