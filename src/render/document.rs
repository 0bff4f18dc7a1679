//! Text becomes values: a file is cut into documents, each is read on its own, and what cannot be read is a problem with a place.
//!
//! Documents are read one by one so that a mistake in one does not hide mistakes in the others.

use serde_json::{Map, Number, Value};

use super::places::{Place, Places, measure, suspicious};

/// Documents of one file. A file with more was made by a machine that should write several.
const MOST_DOCUMENTS: usize = 1000;

/// One document of a file.
#[derive(Debug)]
pub(super) struct Document<'t> {
    /// Its text, from its `---` on.
    pub(super) text: &'t str,
    /// Lines of the file before it.
    pub(super) above: u32,
    /// Where its first value is, in the file.
    pub(super) at: Place,
    /// Whether it is JSON, which is read literally.
    pub(super) json: bool,
}

/// Something wrong, at a place in the file (line 0: the file as a whole).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: Place,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

pub(super) fn fault(at: Place, message: impl Into<String>, hint: Option<&str>) -> Fault {
    Fault { at, message: message.into(), hint: hint.map(str::to_owned) }
}

/// The text of a file, or why it has none.
pub(super) fn text(content: &[u8]) -> Result<&str, Fault> {
    if content.starts_with(&[0xff, 0xfe]) || content.starts_with(&[0xfe, 0xff]) {
        return Err(fault((0, 0), "the file is UTF-16; manifests are UTF-8", Some("save it as UTF-8")));
    }
    let content = content.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(content);
    let line_of = |at: usize| content[..at].iter().filter(|b| **b == b'\n').count() as u32 + 1;
    if let Some(at) = content.iter().position(|b| *b == 0) {
        return Err(fault((line_of(at), 0), "the file contains a NUL byte, so it is not text", None));
    }
    std::str::from_utf8(content).map_err(|e| fault((line_of(e.valid_up_to()), 0), "the file is not valid UTF-8", None))
}

/// Cuts a file into documents. Those without a value are left out.
pub(super) fn documents(text: &str, json: bool) -> Result<Vec<Document<'_>>, Fault> {
    if json {
        let blank = text.len() - text.trim_start().len();
        let line = text[..blank].matches('\n').count() as u32 + 1;
        let column = (blank - text[..blank].rfind('\n').map_or(0, |n| n + 1)) as u32 + 1;
        let whole = Document { text, above: 0, at: (line, column), json: true };
        return Ok(if text.trim().is_empty() { Vec::new() } else { vec![whole] });
    }
    let mut found = Vec::new();
    let (mut start, mut above) = (0, 0);
    let (mut at, mut line) = (0, 0);
    let mut close = |from: usize, to: usize, above: u32| {
        let text = &text[from..to];
        if let Some((line, column)) = first_value(text) {
            found.push(Document { text, above, at: (above + line, column), json: false });
        }
    };
    for whole in text.split_inclusive('\n') {
        let marker = |m: &str| whole.strip_prefix(m).is_some_and(|r| r.is_empty() || r.starts_with([' ', '\t', '\n', '\r']));
        if marker("---") {
            close(start, at, above);
            (start, above) = (at, line);
        } else if marker("...") {
            close(start, at, above);
            (start, above) = (at + whole.len(), line + 1);
        }
        at += whole.len();
        line += 1;
    }
    close(start, at, above);
    if found.len() > MOST_DOCUMENTS {
        return Err(fault((found[MOST_DOCUMENTS].at.0, 0), format!("the file has more than {MOST_DOCUMENTS} documents"), None));
    }
    Ok(found)
}

/// The place of the first thing that is neither a marker, nor a directive, nor a comment.
fn first_value(text: &str) -> Option<Place> {
    for (n, line) in text.lines().enumerate() {
        let marker = n == 0 && line.starts_with("---");
        let rest = if marker { &line[3..] } else { line };
        let trimmed = rest.trim_start();
        let directive = line.starts_with('%');
        if !trimmed.is_empty() && !trimmed.starts_with('#') && !directive {
            let skipped = line.chars().count() - trimmed.chars().count();
            return Some((n as u32 + 1, skipped as u32 + 1));
        }
    }
    None
}

impl Document<'_> {
    /// Reads the document's value; `None` when it is null.
    pub(super) fn value(&self) -> Result<Option<Value>, Vec<Fault>> {
        if suspicious(self.text) {
            measure(self.text).map_err(|broken| vec![fault(self.shift(broken.at), broken.message, None)])?;
        }
        let value = if self.json { self.read_json()? } else { self.read_yaml()? };
        Ok(Some(value).filter(|v| !v.is_null()))
    }

    /// A place within the document as a place within the file.
    pub(super) fn shift(&self, at: Place) -> Place {
        (self.above + at.0, at.1)
    }

    fn read_json(&self) -> Result<Value, Vec<Fault>> {
        // serde_json keeps the last of two equal keys without a word, so they are looked for; every JSON text is YAML enough for that.
        serde_json::from_str::<Value>(self.text)
            .map_err(|e| {
                let text = e.to_string();
                let message = text.split(" at line ").next().unwrap_or(&text).to_owned();
                vec![fault(self.shift((e.line() as u32, e.column() as u32)), message, None)]
            })
            .and_then(|value| {
                let twice = self.duplicates(&Places::read(self.text));
                if twice.is_empty() { Ok(value) } else { Err(twice) }
            })
    }

    fn read_yaml(&self) -> Result<Value, Vec<Fault>> {
        let mut yaml: serde_yaml::Value = serde_yaml::from_str(self.text).map_err(|e| {
            let twice = self.duplicates(&Places::read(self.text));
            if twice.is_empty() { vec![self.syntax(&e)] } else { twice }
        })?;
        yaml.apply_merge().map_err(|e| vec![fault(self.at, format!("`<<` cannot be merged: {e}"), None)])?;
        let mut path = Vec::new();
        json(yaml, &mut path).map_err(|message| {
            let at = Places::read(self.text).find(&path, true).map_or(self.at, |p| self.shift(p));
            vec![fault(at, message, None)]
        })
    }

    fn duplicates(&self, places: &Places) -> Vec<Fault> {
        let twice = places.duplicates.iter().filter(|(key, _, _)| key != "<<");
        twice
            .map(|(key, second, first)| {
                fault(
                    self.shift(*second),
                    format!("the key {key:?} is here twice; the first is on line {}", self.above + first.0),
                    None,
                )
            })
            .collect()
    }

    fn syntax(&self, error: &serde_yaml::Error) -> Fault {
        let at = error.location().map_or(self.at, |l| self.shift((l.line() as u32, l.column() as u32)));
        let text = error.to_string();
        let message = text.split(" at line ").next().unwrap_or(&text).trim().to_owned();
        let line = self.text.lines().nth(at.0.saturating_sub(self.above + 1) as usize).unwrap_or_default();
        let indent = &line[..line.len() - line.trim_start().len()];
        if indent.contains('\t') {
            return fault(at, "a tab is used for indentation", Some("YAML takes only spaces"));
        }
        let hint = if message.contains("mapping values are not allowed") {
            Some("a value with `: ` in it needs quotes, or the line is indented too far")
        } else if line.contains("{{") {
            Some("templates are not rendered: manifests are plain YAML")
        } else {
            None
        };
        fault(at, message, hint)
    }
}

/// A YAML value as JSON. On failure `path` leads to the culprit.
fn json(value: serde_yaml::Value, path: &mut Vec<crate::object::admit::Step>) -> Result<Value, String> {
    use crate::object::admit::Step;
    use serde_yaml::Value as Yaml;
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(truth) => Value::Bool(truth),
        Yaml::String(text) => Value::String(text),
        Yaml::Number(number) => {
            let integer = number.as_u64().map(Number::from).or_else(|| number.as_i64().map(Number::from));
            let number = integer.or_else(|| number.as_f64().and_then(Number::from_f64));
            Value::Number(number.ok_or("infinity and not-a-number are not values that JSON knows")?)
        }
        Yaml::Sequence(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (n, item) in items.into_iter().enumerate() {
                path.push(Step::Index(n));
                list.push(json(item, path)?);
                path.pop();
            }
            Value::Array(list)
        }
        Yaml::Mapping(entries) => {
            let mut map = Map::new();
            for (key, item) in entries {
                let key = match key {
                    Yaml::String(text) => text,
                    Yaml::Number(number) => number.to_string(),
                    Yaml::Bool(truth) => truth.to_string(),
                    Yaml::Null => return Err("a key is empty".to_owned()),
                    _ => return Err("a key is a list or a map".to_owned()),
                };
                path.push(Step::Field(key.clone()));
                let item = json(item, path)?;
                path.pop();
                if map.insert(key.clone(), item).is_some() {
                    return Err(format!("the key {key:?} is here twice"));
                }
            }
            Value::Object(map)
        }
        Yaml::Tagged(tagged) => return Err(format!("the tag {} has no meaning here", tagged.tag)),
    })
}
