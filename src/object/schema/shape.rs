//! Whether a JSON tree has the shape of its kind: unknown fields, wrong types, missing fields, all at once.
//!
//! What a well-shaped object means, and whether that makes sense, is checked in `admit::validate`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Number, Value};

use super::{Form, Struct, Text, Type};
use crate::object::Kind;
use crate::object::quantity::Quantity;

/// One step of a path into a JSON tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A field of an object, or a key of a map.
    Field(String),
    /// A place in a list, from 0.
    Index(usize),
}

/// A path in Kubernetes' notation: `spec.containers[0].name`.
pub fn show_path(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Field(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
        }
    }
    text
}

/// What sort of misfit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShapeKind {
    /// The type has no such field. The path names the field.
    Unknown,
    /// The value is of another type. The path names the value.
    WrongType,
    /// A required field is not there. The path names the field, which therefore is not in the document; its parent is. Kubernetes'
    /// decoder does not mind these (its validation does, in its own words), so the API leaves them to `admit`.
    Missing,
}

/// One place where a JSON tree is not of its kind's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeProblem {
    /// Where.
    pub path: Vec<Step>,
    /// What, in one sentence without the path.
    pub message: String,
    /// What sort of misfit it is.
    pub kind: ShapeKind,
    /// What the author may have meant, where something is near.
    pub suggestion: Option<String>,
}

/// How literally to read scalars.
#[derive(Clone, Copy)]
pub enum Coerce<'a> {
    /// As they are: the document was JSON.
    Json,
    /// As kubectl would have read the YAML 1.1 text, of which a reader of YAML 1.2 made this tree: octal numbers and `yes`/`no` where the
    /// type asks for numbers and booleans. Texts in text fields are believed.
    Yaml,
    /// The same, with a way to ask whether a scalar was written plainly, without quotes. So a plain `yes` or `0644` in a text field,
    /// which kubectl takes for a boolean or a number, is reported, and a quoted `"yes"` in a boolean field is not taken for one.
    YamlPlain(&'a dyn Fn(&[Step]) -> bool),
}

/// How many bytes the paths and messages of problems may take before the rest is not looked at: three megabytes of misspelt fields under
/// a long name would take gigabytes.
const PROBLEMS_AT_MOST: usize = 8 << 20;
/// For how many problems to look what the author may have meant.
const SUGGESTIONS: usize = 100;

/// Compares a JSON tree with its kind's schema and reports every misfit. Nulls, which mean "absent" to Kubernetes, are taken out.
///
/// What is wrong in very many places is wrong as a whole: then the last problem says so, and not all are there.
pub fn shape(kind: &'static Kind, value: &mut Value, mode: Coerce) -> Vec<ShapeProblem> {
    let mut check = Check { mode, problems: Vec::new(), left: PROBLEMS_AT_MOST };
    check.value(super::of(kind), value, &Path { parent: None, step: At::Root });
    if check.left == 0 {
        let message = "too much of it is wrong to say what".to_owned();
        check.problems.push(ShapeProblem { path: Vec::new(), message, kind: ShapeKind::WrongType, suggestion: None });
    }
    check.problems
}

/// Where the walk is, as a chain through its stack frames, so that a path costs nothing until somebody asks for it.
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: At<'a>,
}

#[derive(Clone, Copy)]
enum At<'a> {
    Root,
    Field(&'a str),
    Index(usize),
}

impl Path<'_> {
    fn weight(&self) -> usize {
        let step = if let At::Field(name) = self.step { name.len() } else { 0 };
        step + size_of::<Step>() + self.parent.map_or(0, Path::weight)
    }
    fn steps(&self) -> Vec<Step> {
        let mut steps = self.parent.map_or_else(Vec::new, Path::steps);
        match self.step {
            At::Root => {}
            At::Field(name) => steps.push(Step::Field(name.to_owned())),
            At::Index(index) => steps.push(Step::Index(index)),
        }
        steps
    }
}

struct Check<'m> {
    mode: Coerce<'m>,
    problems: Vec<ShapeProblem>,
    /// How many bytes of problems may still be added.
    left: usize,
}

impl Check<'_> {
    fn value(&mut self, of: Type, value: &mut Value, path: &Path) {
        match of.form() {
            Form::Any | Form::Open => {}
            Form::Struct(shape) => match value {
                Value::Object(fields) => self.fields(shape, fields, path),
                other => self.wrong("an object", other, path),
            },
            Form::Map(of) => match value {
                Value::Object(entries) => {
                    for (name, entry) in entries.iter_mut() {
                        self.entry(*of, entry, &Path { parent: Some(path), step: At::Field(name) });
                    }
                }
                other => self.wrong("an object", other, path),
            },
            Form::List(of) => match value {
                Value::Array(items) => {
                    for (index, item) in items.iter_mut().enumerate() {
                        self.entry(*of, item, &Path { parent: Some(path), step: At::Index(index) });
                    }
                }
                other => self.wrong("a list", other, path),
            },
            Form::Boolean => {
                if let Value::String(text) = &*value
                    && let Some(truth) = yaml_bool(text).filter(|_| self.plain(text, path))
                {
                    *value = Value::Bool(truth);
                }
                if !value.is_boolean() {
                    self.wrong("true or false", value, path);
                }
            }
            Form::Integer(least, most) => self.integer(*least, *most, value, path),
            Form::Number => {
                self.coerce_number(value, path);
                if !value.is_number() {
                    self.wrong("a number", value, path);
                }
            }
            Form::IntOrText => {
                self.coerce_number(value, path);
                if !value.is_string() && value.as_i64().is_none() {
                    self.wrong("a whole number or a string", value, path);
                }
            }
            Form::Quantity => self.quantity(value, path),
            Form::Text(text) => self.text(text, value, path),
        }
    }

    /// An element of a list or of a map. Go's decoder makes an empty value out of null there.
    fn entry(&mut self, of: Type, value: &mut Value, path: &Path) {
        if value.is_null() {
            match of.form() {
                Form::Text(Text::Plain | Text::Bytes) => *value = Value::String(String::new()),
                Form::Struct(_) | Form::Map(_) => *value = Value::Object(Map::new()),
                Form::List(_) => *value = Value::Array(Vec::new()),
                _ => {}
            }
        }
        self.value(of, value, path);
    }

    fn fields(&mut self, shape: &'static Struct, fields: &mut Map<String, Value>, path: &Path) {
        let nullable = |name: &str| shape.fields.get(name).is_some_and(|field| field.nullable);
        fields.retain(|name, value| !value.is_null() || nullable(name) || (shape.open && !shape.fields.contains_key(name)));
        for (name, value) in fields.iter_mut() {
            let here = Path { parent: Some(path), step: At::Field(name) };
            match shape.fields.get(name) {
                Some(field) if field.nullable && value.is_null() => {}
                Some(field) => self.value(field.of, value, &here),
                None if shape.open => {}
                None => {
                    let near = self.problems.len() < SUGGESTIONS;
                    let suggestion = if near { nearest(name, shape.fields.keys().map(String::as_str)) } else { None };
                    self.add(&here, ShapeKind::Unknown, format!("unknown field {name:?}"), suggestion);
                }
            }
        }
        // A document says what it is; an object within one (a claim in a StatefulSet) need not.
        let says = |name: &str| path.parent.is_none() && ["apiVersion", "kind"].contains(&name);
        for (name, field) in shape.fields.iter().filter(|(name, field)| field.required || says(name)) {
            if !fields.contains_key(name) {
                let message = match field.of.form() {
                    Form::List(_) => format!("missing required list {name:?}"),
                    _ => format!("missing required field {name:?}"),
                };
                self.add(&Path { parent: Some(path), step: At::Field(name) }, ShapeKind::Missing, message, None);
            }
        }
    }

    fn integer(&mut self, least: i64, most: u64, value: &mut Value, path: &Path) {
        self.coerce_number(value, path);
        let Value::Number(number) = &*value else {
            return self.wrong("a whole number", value, path);
        };
        let fits = number.as_i64().map(|n| n >= least && (n < 0 || n as u64 <= most));
        match fits.or_else(|| number.as_u64().map(|n| n <= most)) {
            Some(true) => {}
            Some(false) => self.report(path, format!("{number} is out of range: {least} to {most}"), None),
            None => self.wrong("a whole number", value, path),
        }
    }

    /// What YAML 1.1 takes for a number although YAML 1.2 does not, and floats that are whole.
    fn coerce_number(&mut self, value: &mut Value, path: &Path) {
        let number = match &*value {
            Value::String(text) => yaml_integer(text).filter(|_| self.plain(text, path)).map(Number::from),
            Value::Number(number) if number.is_f64() && !matches!(self.mode, Coerce::Json) => {
                number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15).map(|f| Number::from(f as i64))
            }
            _ => None,
        };
        if let Some(number) = number {
            *value = Value::Number(number);
        }
    }

    fn quantity(&mut self, value: &mut Value, path: &Path) {
        // Kubernetes reads a bare number as an amount and keeps it as a text.
        let text = match &*value {
            Value::Number(number) => number.to_string(),
            Value::String(text) => match yaml_integer(text).filter(|_| self.plain(text, path)) {
                Some(number) => number.to_string(),
                None => text.clone(),
            },
            other => return self.wrong("a quantity", other, path),
        };
        match text.parse::<Quantity>() {
            Ok(_) => *value = Value::String(text),
            Err(why) => self.report(path, format!("{text:?} is not a quantity: {why}"), None),
        }
    }

    fn text(&mut self, text: &'static Text, value: &mut Value, path: &Path) {
        let Value::String(found) = &*value else {
            return self.wrong("a string", value, path);
        };
        if let Coerce::YamlPlain(plain) = self.mode
            && (yaml_bool(found).is_some() || yaml_integer(found).is_some())
            && plain(&path.steps())
        {
            let what = if yaml_bool(found).is_some() { "a boolean" } else { "a number" };
            let hint = format!("\"{found}\"");
            return self.report(
                path,
                format!("expected a string, but YAML 1.1 (kubectl) reads {found} as {what}: quote it"),
                Some(hint),
            );
        }
        match text {
            Text::Plain => {}
            Text::Bytes => {
                // Go's decoder skips line breaks.
                let packed: Vec<u8> = found.bytes().filter(|b| !matches!(b, b'\n' | b'\r')).collect();
                if BASE64_STANDARD.decode(&packed).is_err() {
                    self.report(path, "expected base64".to_owned(), None);
                }
            }
            Text::Time(_) => {
                if found.parse::<jiff::Timestamp>().is_err() {
                    let message = format!("expected a time like \"2006-01-02T15:04:05Z\", found {found:?}");
                    self.report(path, message, None);
                }
            }
            Text::OneOf(words) => {
                if !words.contains(found) {
                    let message = format!("expected one of {}, found {found:?}", words.join(", "));
                    let hint = nearest(found, words.iter().map(String::as_str));
                    self.report(path, message, hint);
                }
            }
        }
    }

    /// Whether a text may be taken for what YAML 1.1 would have taken it for, because it was written without quotes.
    fn plain(&self, text: &str, path: &Path) -> bool {
        match self.mode {
            Coerce::Json => false,
            // The reader is one of YAML 1.2: what it takes for a number or a boolean as well came as one, unless it was quoted.
            Coerce::Yaml => {
                let digits = text.trim_start_matches(['+', '-']).as_bytes();
                let number_there = matches!(digits, [b'0'] | [b'0', b'x' | b'o', ..] | [b'1'..=b'9', ..]) && !text.contains('_');
                !number_there && !text.eq_ignore_ascii_case("true") && !text.eq_ignore_ascii_case("false")
            }
            Coerce::YamlPlain(plain) => plain(&path.steps()),
        }
    }

    fn wrong(&mut self, expected: &str, found: &Value, path: &Path) {
        let found = match found {
            Value::Null => "nothing".to_owned(),
            Value::Bool(truth) => format!("the boolean {truth}"),
            Value::Number(number) => format!("the number {number}"),
            Value::String(text) if text.chars().count() > 40 => {
                format!("the string {:?}", text.chars().take(37).chain("...".chars()).collect::<String>())
            }
            Value::String(text) => format!("the string {text:?}"),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        };
        self.report(path, format!("expected {expected}, found {found}"), None);
    }

    fn report(&mut self, path: &Path, message: String, suggestion: Option<String>) {
        self.add(path, ShapeKind::WrongType, message, suggestion);
    }

    fn add(&mut self, path: &Path, kind: ShapeKind, message: String, suggestion: Option<String>) {
        self.left = self.left.saturating_sub(path.weight() + message.len() + size_of::<ShapeProblem>());
        if self.left > 0 {
            self.problems.push(ShapeProblem { path: path.steps(), message, kind, suggestion });
        }
    }
}

/// What YAML 1.1 takes for a boolean beyond `true` and `false`.
fn yaml_bool(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// What YAML 1.1 takes for a whole number although YAML 1.2 sees a text: `0644`, `1_000`, `+5`.
fn yaml_integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if !digits.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let digits = digits.replace('_', "");
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', b'o', ..] => (8, &digits[2..]),
        [b'0', b'b', ..] => (2, &digits[2..]),
        [b'0', rest @ ..] if !rest.is_empty() => (8, &digits[1..]),
        _ => (10, digits.as_str()),
    };
    i64::from_str_radix(digits, radix).ok().map(|n| sign * n)
}

/// The name that is nearest to a misspelt one, if one is near enough to be meant.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let lower = name.to_lowercase();
    let score = |candidate: &str| {
        let candidate = candidate.to_lowercase();
        if candidate == lower {
            return 0;
        }
        let apart = candidate.len().abs_diff(lower.len());
        // `volume` for `volumes`, `env` for `environment`: a prefix is nearer than its length says.
        if lower.len() >= 3 && (candidate.starts_with(&lower) || (candidate.len() >= 3 && lower.starts_with(&candidate))) {
            return apart.min(2);
        }
        // Whatever is this much longer is not near, and comparing it would take as long as it is. A letter has four bytes at most.
        if apart > 4 * 4 {
            return apart;
        }
        strsim::damerau_levenshtein(&lower, &candidate)
    };
    let allowed = (name.len() / 3).clamp(1, 4);
    known.map(|k| (score(k), k)).filter(|(s, _)| *s <= allowed).min().map(|(_, k)| k.to_owned())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn check(kind: &str, mut value: Value, mode: Coerce, expected: Expect) -> Value {
        let kind = crate::object::KINDS.iter().find(|k| k.kind == kind).unwrap();
        value["apiVersion"] = kind.api_version().into();
        value["kind"] = kind.kind.into();
        let mut lines = String::new();
        for problem in shape(kind, &mut value, mode) {
            lines += &format!("{}: {}", show_path(&problem.path), problem.message);
            if let Some(hint) = problem.suggestion {
                lines += &format!(" (did you mean {hint}?)");
            }
            lines += "\n";
        }
        expected.assert_eq(&lines);
        value
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let value = json!({
            "metadata": {"name": "web", "label": {"a": "b"}, "annotations": {"n": 1}},
            "spec": {
                "replica": 3,
                "minReadySeconds": "ten",
                "template": {"spec": {
                    "containers": [
                        {"image": "web:1", "volumnMounts": [], "imagePullpolicy": "Always", "ports": [{"containerPort": 8080.5}]},
                        "web",
                    ],
                    "hostNetwork": "maybe",
                    "volumes": {"name": "x"},
                    "shinyNewThing": true,
                    "terminationGracePeriodSeconds": 99999999999u64,
                    "activeDeadlineSeconds": -1,
                }},
                "revisionHistoryLimit": 99999999999u64,
            },
        });
        check(
            "Deployment",
            value,
            Coerce::Json,
            expect![[r#"
                metadata.annotations.n: expected a string, found the number 1
                metadata.label: unknown field "label" (did you mean labels?)
                spec.minReadySeconds: expected a whole number, found the string "ten"
                spec.replica: unknown field "replica" (did you mean replicas?)
                spec.revisionHistoryLimit: 99999999999 is out of range: -2147483648 to 2147483647
                spec.template.spec.containers[0].imagePullpolicy: unknown field "imagePullpolicy" (did you mean imagePullPolicy?)
                spec.template.spec.containers[0].ports[0].containerPort: expected a whole number, found the number 8080.5
                spec.template.spec.containers[0].volumnMounts: unknown field "volumnMounts" (did you mean volumeMounts?)
                spec.template.spec.containers[0].name: missing required field "name"
                spec.template.spec.containers[1]: expected an object, found the string "web"
                spec.template.spec.hostNetwork: expected true or false, found the string "maybe"
                spec.template.spec.shinyNewThing: unknown field "shinyNewThing"
                spec.template.spec.volumes: expected a list, found an object
                spec.selector: missing required field "selector"
            "#]],
        );
    }

    #[test]
    fn nulls_are_absent() {
        let value = json!({
            "metadata": {"name": "web", "creationTimestamp": null, "labels": {"a": null}},
            "spec": {"containers": [{"name": "a", "command": null}], "nodeName": null},
            "status": null,
        });
        let value = check("Pod", value, Coerce::Json, expect![[""]]);
        assert_eq!(
            value,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"a": ""}}, "spec": {"containers": [{"name": "a"}]}})
        );
    }

    #[test]
    fn yaml_reads_as_kubectl_does() {
        let value = json!({
            "metadata": {"name": "a"},
            "spec": {
                "containers": [{"name": "a", "stdin": "yes", "env": [{"name": "MODE", "value": "on"}], "resources": {"limits": {"cpu": 2, "memory": "1_000"}}}],
                "volumes": [{"name": "v", "configMap": {"name": "c", "defaultMode": "0644"}}],
                "terminationGracePeriodSeconds": 1e1,
                "hostNetwork": "off",
            },
        });
        let value = check("Pod", value, Coerce::Yaml, expect![[""]]);
        assert_eq!(value["spec"]["volumes"][0]["configMap"]["defaultMode"], 420);
        assert_eq!(value["spec"]["containers"][0]["stdin"], true);
        assert_eq!(value["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "2", "memory": "1000"}));
        assert_eq!(value["spec"]["terminationGracePeriodSeconds"], 10);
        assert_eq!(value["spec"]["hostNetwork"], false);
        let value = json!({
            "metadata": {"name": "a"},
            "spec": {
                "replicas": "3", "paused": "true", "selector": {},
                "strategy": {"rollingUpdate": {"maxSurge": "1", "maxUnavailable": "01"}},
                "template": {},
            },
        });
        let value = check(
            "Deployment",
            value,
            Coerce::Yaml,
            expect![[r#"
                spec.paused: expected true or false, found the string "true"
                spec.replicas: expected a whole number, found the string "3"
            "#]],
        );
        assert_eq!(value["spec"]["strategy"]["rollingUpdate"], json!({"maxSurge": "1", "maxUnavailable": 1}));
    }

    #[test]
    fn plain_scalars_that_kubectl_takes_for_something_else() {
        let value =
            json!({"metadata": {"name": "a", "labels": {"on": "y", "quoted": "yes"}}, "data": {"mode": "0644", "port": "8080"}});
        let plain = |path: &[Step]| !matches!(path.last(), Some(Step::Field(name)) if name == "quoted");
        check(
            "ConfigMap",
            value,
            Coerce::YamlPlain(&plain),
            expect![[r#"
                data.mode: expected a string, but YAML 1.1 (kubectl) reads 0644 as a number: quote it (did you mean "0644"?)
                data.port: expected a string, but YAML 1.1 (kubectl) reads 8080 as a number: quote it (did you mean "8080"?)
                metadata.labels.on: expected a string, but YAML 1.1 (kubectl) reads y as a boolean: quote it (did you mean "y"?)
            "#]],
        );
    }

    #[test]
    fn texts_with_a_form() {
        let value = json!({"metadata": {"name": "s"}, "data": {"good": "aGk=", "bad": "hi there"}, "immutable": "true"});
        check(
            "Secret",
            value,
            Coerce::Json,
            expect![[r#"
                data.bad: expected base64
                immutable: expected true or false, found the string "true"
            "#]],
        );
        let value = json!({"metadata": {"name": "a"}, "spec": {"source": {"repositry": "x"}, "policy": {"onFailure": "rolback"}, "pin": {"release": "r", "expires": "soon"}}});
        check(
            "Application",
            value,
            Coerce::Json,
            expect![[r#"
                spec.pin.expires: expected a time like "2006-01-02T15:04:05Z", found "soon"
                spec.policy.onFailure: expected one of rollback, pause, continue, found "rolback" (did you mean rollback?)
                spec.source.repositry: unknown field "repositry" (did you mean repository?)
            "#]],
        );
    }
}
