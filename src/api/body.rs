//! Request bodies: how much is read, for how long, and what they say.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::failure::Failure;
use super::path::Query;
use super::protobuf;
use crate::object::Kind;
use crate::object::admit::{Coerce, ShapeKind, Step, shape, show_path};

/// The largest body, in bytes: Kubernetes' own limit. It is checked while reading, before anything is parsed.
pub(super) const BODY_MAX: usize = 3 << 20;
/// How deep an object may be nested. Kubernetes' own types need about fifteen levels. Bodies are bounded while they are parsed, but each
/// patch could add to what is there, until the stored object could no longer be read.
const DEPTH_MAX: usize = 64;
/// How many fields that occur twice, and how many unknown ones, are told of.
const DUPLICATES_SHOWN: usize = 100;
const UNKNOWN_SHOWN: usize = 100;

/// What a request does with fields that the kind does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validation {
    Ignore,
    Warn,
    Strict,
}

/// Parameters that all writes share.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WriteOptions {
    /// Answer as if, and change nothing.
    pub(super) dry_run: bool,
    pub(super) validation: Validation,
    /// Who owns the fields that this writes.
    pub(super) manager: String,
    /// Whether the client named the manager itself.
    pub(super) manager_given: bool,
    /// Take over fields that others own.
    pub(super) force: bool,
}

impl WriteOptions {
    pub(super) fn parse(query: &Query, headers: &HeaderMap) -> Result<Self, Failure> {
        let mut dry_run = false;
        for value in query.all("dryRun").filter(|v| !v.is_empty()) {
            if value != "All" {
                return Err(Failure::unprocessable(format!("dryRun: Unsupported value: {value:?}: supported values: \"All\"")));
            }
            dry_run = true;
        }
        let validation = match query.get("fieldValidation") {
            "" | "Warn" => Validation::Warn,
            "Ignore" => Validation::Ignore,
            "Strict" => Validation::Strict,
            other => {
                return Err(Failure::unprocessable(format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                )));
            }
        };
        let given = query.get("fieldManager");
        if given.len() > 128 || given.chars().any(char::is_control) {
            return Err(Failure::unprocessable(format!(
                "fieldManager: Invalid value: {given:?}: must be at most 128 printable characters"
            )));
        }
        let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("unknown");
        let manager = if given.is_empty() { agent.split('/').next().unwrap_or(agent) } else { given };
        Ok(WriteOptions {
            dry_run,
            validation,
            manager: manager.chars().take(128).collect(),
            manager_given: !given.is_empty(),
            force: query.flag("force"),
        })
    }
}

/// Reads a whole body, which has this time to come.
pub(super) async fn read(body: Body, time: Duration) -> Result<Bytes, Failure> {
    match tokio::time::timeout(time, Limited::new(body, BODY_MAX).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => Err(Failure::too_large(BODY_MAX)),
        Ok(Err(error)) => Err(Failure::bad_request(format!("read the body of the request: {error}"))),
        Err(_) => Err(Failure::timeout("the body of the request did not arrive in time")),
    }
}

/// The media type of a body, without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// A document, and the fields in it that occur twice.
pub(super) struct Parsed {
    pub(super) value: Value,
    pub(super) duplicates: Vec<String>,
}

/// Parses a body that holds an object (or options): JSON, YAML, or protobuf.
pub(super) fn parse(headers: &HeaderMap, bytes: &[u8]) -> Result<Parsed, Failure> {
    match media_type(headers).as_str() {
        "" | "application/json" | "*/*" => json(bytes),
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml(bytes),
        protobuf::MEDIA_TYPE => Ok(Parsed { value: protobuf::decode(bytes)?, duplicates: Vec::new() }),
        other => Err(Failure::unsupported(other, &["application/json", "application/yaml", protobuf::MEDIA_TYPE])),
    }
}

/// Parses JSON, noticing fields that occur twice. The nesting is bounded by serde_json (128).
pub(super) fn json(bytes: &[u8]) -> Result<Parsed, Failure> {
    let mut duplicates = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Tree { path: &Path::Root, duplicates: &mut duplicates }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|e| Failure::bad_request(format!("the object provided is unrecognized: couldn't parse it as JSON: {e}")))?;
    Ok(Parsed { value, duplicates })
}

/// How many lists and maps may be open at once where brackets in texts are counted, too. What is deeper by far than anything with a
/// meaning takes the parser of YAML the square of its depth.
const YAML_DEPTH_MAX: usize = 1000;

/// Whether a text has more brackets, or more `- - -` in a line, than [`YAML_DEPTH_MAX`].
fn far_too_deep(bytes: &[u8]) -> bool {
    let (mut open, mut in_line, mut at_start) = (0usize, 0usize, true);
    for byte in bytes {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            b'\n' => (in_line, at_start) = (0, true),
            b'-' | b'?' | b':' if at_start => in_line += 1,
            b' ' | b'\t' | b'\r' => {}
            _ => at_start = false,
        }
        if open > YAML_DEPTH_MAX || in_line > YAML_DEPTH_MAX {
            return true;
        }
    }
    false
}

/// Parses YAML. Aliases are bounded by serde_yaml, the size by [`BODY_MAX`].
pub(super) fn yaml(bytes: &[u8]) -> Result<Parsed, Failure> {
    if bytes.first() == Some(&b'{')
        && let Ok(parsed) = json(bytes)
    {
        return Ok(parsed);
    }
    if far_too_deep(bytes) {
        return Err(Failure::bad_request(
            "the object provided is unrecognized: couldn't parse it as YAML: it is nested too deeply",
        ));
    }
    let value = serde_yaml::from_slice(bytes)
        .map_err(|e| Failure::bad_request(format!("the object provided is unrecognized: couldn't parse it as YAML: {e}")))?;
    Ok(Parsed { value, duplicates: Vec::new() })
}

/// Builds a JSON tree and remembers the paths of fields that occur twice; as in Go, the last one wins.
struct Tree<'a> {
    path: &'a Path<'a>,
    duplicates: &'a mut Vec<String>,
}

/// Where the parser is, as a chain through its stack frames: written out only for who needs it. To write it for each element of a list
/// under a name of a megabyte would take for ever.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => write!(f, "{name:.100}"),
            Path::Field(parent, name) => write!(f, "{parent}.{name:.100}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = Path::Item(self.path, items.len());
            match access.next_element_seed(Tree { path: &path, duplicates: &mut *self.duplicates })? {
                Some(item) => items.push(item),
                None => return Ok(items.into()),
            }
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let path = Path::Field(self.path, &name);
            let value = access.next_value_seed(Tree { path: &path, duplicates: &mut *self.duplicates })?;
            // A hostile body has millions of them; a person needs a few.
            if fields.contains_key(&name) && self.duplicates.len() < DUPLICATES_SHOWN {
                self.duplicates.push(path.to_string());
            }
            fields.insert(name, value);
        }
        Ok(fields.into())
    }
}

/// Makes a tree fit its kind: refuses wrong types, and drops fields that the kind does not have with or without complaint. Returns
/// warnings.
pub(super) fn conform(
    kind: &'static Kind,
    value: &mut Value,
    duplicates: &[String],
    validation: Validation,
) -> Result<Vec<String>, Failure> {
    let fault = |what: &str| {
        let name = kind.kind;
        Failure::bad_request(format!("{name} in version {:?} cannot be handled as a {name}: {what}", kind.version))
    };
    if !value.is_object() {
        return Err(fault("it is not an object"));
    }
    if deeper(value, DEPTH_MAX) {
        return Err(fault(&format!("it is nested deeper than {DEPTH_MAX}")));
    }
    let problems = shape(kind, value, Coerce::Json);
    // What is missing is the business of validation, which has Kubernetes' words for it.
    // So is a wrong type in an object of a kind that somebody defined, except in the parts that every object has.
    let ours = |path: &[Step]| {
        let part = match path.first() {
            Some(Step::Field(name)) => name.as_str(),
            _ => "",
        };
        kind.custom.is_none() || matches!(part, "" | "metadata" | "apiVersion" | "kind")
    };
    if let Some(wrong) = problems.iter().find(|p| p.kind == ShapeKind::WrongType && ours(&p.path)) {
        return Err(fault(&format!("{}: {}", show_path(&wrong.path), wrong.message)));
    }
    let unknown: Vec<&Vec<Step>> = problems.iter().filter(|p| p.kind == ShapeKind::Unknown).map(|p| &p.path).collect();
    for path in unknown.iter().rev() {
        remove(value, path);
    }
    let shown = unknown.iter().take(UNKNOWN_SHOWN);
    let mut words: Vec<String> = shown.map(|path| format!("unknown field {:?}", show_path(path))).collect();
    words.extend(duplicates.iter().map(|path| format!("duplicate field {path:?}")));
    match validation {
        Validation::Strict if !words.is_empty() => Err(fault(&format!("strict decoding error: {}", words.join(", ")))),
        Validation::Warn => Ok(words),
        _ => Ok(Vec::new()),
    }
}

/// Whether a tree has more levels than this.
fn deeper(value: &Value, levels: usize) -> bool {
    match value {
        Value::Object(fields) => levels == 0 || fields.values().any(|v| deeper(v, levels - 1)),
        Value::Array(items) => levels == 0 || items.iter().any(|v| deeper(v, levels - 1)),
        _ => false,
    }
}

fn remove(value: &mut Value, path: &[Step]) {
    let Some((Step::Field(last), parents)) = path.split_last() else { return };
    let parent = parents.iter().try_fold(value, |at, step| match step {
        Step::Field(name) => at.get_mut(name),
        Step::Index(index) => at.get_mut(*index),
    });
    if let Some(fields) = parent.and_then(Value::as_object_mut) {
        fields.remove(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_noticed() {
        let parsed = json(br#"{"a":1,"b":{"c":1,"c":2},"d":[{"e":1},{"e":1,"e":3}],"a":{"x":null}}"#).unwrap();
        assert_eq!(parsed.duplicates, ["b.c", "d[1].e", "a"]);
        assert_eq!(parsed.value.to_string(), r#"{"a":{"x":null},"b":{"c":2},"d":[{"e":1},{"e":3}]}"#);
    }

    #[test]
    fn bodies_refused() {
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        for text in ["", "{", "{} {}", "{\"a\":}", "nul", deep.as_str(), "\u{feff}{}"] {
            assert_eq!(json(text.as_bytes()).err().map(|f| f.code), Some(400), "{text:.20}");
        }
    }
}
