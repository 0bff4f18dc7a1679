//! The part of JSONPath that printer columns are written in: fields, places, slices of everything, and a test for equality.

use serde_json::Value;

/// A path that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// From the end when negative.
    Index(i64),
    All,
    /// Elements in which the value at the path equals the text.
    Where(Vec<String>, String),
}

impl Path {
    /// Reads `.status.conditions[?(@.type=="Ready")].status`. The error says what is not understood.
    pub fn parse(text: &str) -> Result<Path, String> {
        let text = text.trim();
        let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        let mut rest = inner.strip_prefix('$').unwrap_or(inner);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after).ok_or_else(|| format!("unterminated array in {text:?}"))?;
                steps.push(bracket(&after[..end]).ok_or_else(|| format!("{:?} is not understood", &after[..end]))?);
                rest = &after[end + 1..];
            } else if let Some(after) = rest.strip_prefix('.') {
                let (name, after) = field(after);
                match name.as_str() {
                    "" if after.starts_with('[') => {}
                    "" => return Err(format!("there is no name after a dot in {text:?}")),
                    "*" => steps.push(Step::All),
                    _ => steps.push(Step::Field(name)),
                }
                rest = after;
            } else {
                return Err(format!("{text:?} does not begin with a dot"));
            }
        }
        Ok(Path(steps))
    }

    /// Everything that the path leads to.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut at = vec![value];
        for step in &self.0 {
            at = at.into_iter().flat_map(|value| step.take(value)).collect();
        }
        at
    }
}

impl Step {
    fn take<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Step::Field(name), _) => value.get(name).into_iter().collect(),
            (Step::Index(index), Value::Array(items)) => {
                let place = if *index < 0 { items.len() as i64 + index } else { *index };
                usize::try_from(place).ok().and_then(|place| items.get(place)).into_iter().collect()
            }
            (Step::All, Value::Array(items)) => items.iter().collect(),
            (Step::All, Value::Object(fields)) => fields.values().collect(),
            (Step::Where(path, wanted), Value::Array(items)) => {
                let fits = |item: &&Value| match path.iter().try_fold(*item, |at, name| at.get(name)) {
                    Some(Value::String(text)) => text == wanted,
                    Some(Value::Bool(truth)) => wanted == if *truth { "true" } else { "false" },
                    Some(Value::Number(number)) => number.to_string() == wanted.as_str(),
                    _ => false,
                };
                items.iter().filter(fits).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Where the bracket ends that was opened just before.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut deep = 0;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => deep += 1,
            (None, ']') if deep == 0 => return Some(at),
            (None, ']') => deep -= 1,
            _ => {}
        }
    }
    None
}

fn unquoted(text: &str) -> Option<&str> {
    let text = text.trim();
    ['\'', '"'].into_iter().find_map(|q| text.strip_prefix(q)?.strip_suffix(q))
}

fn bracket(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquoted(text) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Some(test) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        let (path, wanted) = test.split_once("==")?;
        let path = path.trim().strip_prefix("@.")?;
        let wanted = wanted.trim();
        return Some(Step::Where(path.split('.').map(str::to_owned).collect(), unquoted(wanted).unwrap_or(wanted).to_owned()));
    }
    text.parse().ok().map(Step::Index)
}

/// A name up to the next dot or bracket; a backslash takes the next character as it is.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' | '[' => return (name, &text[at..]),
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            c => name.push(c),
        }
    }
    (name, "")
}
