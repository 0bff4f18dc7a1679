//! A part of an object for somebody who asked for it: the fields at some paths, copied from the object's bytes as they are.
//!
//! There may be fifty thousand objects of three kilobytes and somebody who wants three hundred bytes of each. So nothing is built: what
//! is not wanted is passed over, what is wanted is copied.
//!
//! You will not find here: how a client asks and how it is answered (`api::table`), and reading a part of a document that is not known
//! to be JSON (`sieve`).

use std::fmt;

/// The most characters that all paths may have together. A path for every field of a pod has less.
const LONGEST: usize = 8 * 1024;
/// The most steps of one path: objects are not deeper.
const DEEPEST: usize = 64;

/// What every part has, wanted or not: without it nobody could say of what it is a part.
const ALWAYS: [&str; 3] = ["metadata.name", "metadata.namespace", "metadata.resourceVersion"];

/// Which fields of objects are wanted.
///
/// A path is written as in a field selector: names with dots between them, `spec.nodeName`. A dot within a name has a backslash before it:
/// `metadata.labels.app\.kubernetes\.io/name`. A path goes through a list into each of its elements: `spec.containers.image`. What is at
/// its end is wanted as a whole. Where a path leads to nothing, there is nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Fields {
    root: Node,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// All of it.
    whole: bool,
    /// These fields of it, each by its name as JSON has it.
    fields: Vec<(Box<[u8]>, Node)>,
}

/// Paths that are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPaths {
    /// There are none.
    #[error("at least one path is needed, such as metadata.labels or spec.containers.image")]
    None,
    /// One of them has a name without a character, or ends within an escape.
    #[error("{0:?} is no path: names with dots between them are, such as spec.nodeName, and \\. is a dot within a name")]
    Bad(String),
    /// They are too long.
    #[error("paths may have at most {LONGEST} characters together, and {DEEPEST} steps each")]
    Long,
    /// What every answer says of itself and not of the object.
    #[error("{0} says what the answer is, so it cannot be asked for")]
    Reserved(String),
}

impl Fields {
    /// From paths with commas between them; a comma within a name has a backslash before it as well.
    ///
    /// # Errors
    /// One of them is no path, or there is none.
    pub fn parse(text: &str) -> Result<Fields, BadPaths> {
        if text.len() > LONGEST {
            return Err(BadPaths::Long);
        }
        let mut root = Node::default();
        for always in ALWAYS {
            root.want(always.split('.'));
        }
        for path in paths(text)? {
            if path.len() > DEEPEST {
                return Err(BadPaths::Long);
            }
            if matches!(path[0].as_str(), "kind" | "apiVersion") {
                return Err(BadPaths::Reserved(path[0].clone()));
            }
            root.want(path.iter().map(String::as_str));
        }
        Ok(Fields { root })
    }

    /// From paths that are written in the program, and without what every part has.
    pub fn only<'a>(paths: impl IntoIterator<Item = &'a str>) -> Fields {
        let mut root = Node::default();
        for path in paths {
            root.want(path.split('.'));
        }
        Fields { root }
    }

    /// Writes the part of an object that is wanted, as an object of its own with the fields in their order. `json` is an object as the
    /// store keeps it, without spaces.
    ///
    /// Gives whether it was such an object. If not, nothing is written.
    #[must_use]
    pub fn cut(&self, json: &[u8], out: &mut Vec<u8>) -> bool {
        let begin = out.len();
        let there = json.first() == Some(&b'{') && self.root.take(json, 0, out) == Some(json.len());
        if !there {
            out.truncate(begin);
        }
        there
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn show(node: &Node, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for (n, (name, below)) in node.fields.iter().enumerate() {
                write!(f, "{}{}", if n > 0 { " " } else { "" }, String::from_utf8_lossy(name))?;
                if !below.whole {
                    f.write_str("{")?;
                    show(below, f)?;
                    f.write_str("}")?;
                }
            }
            Ok(())
        }
        show(&self.root, f)
    }
}

/// Takes a list of paths apart.
fn paths(text: &str) -> Result<Vec<Vec<String>>, BadPaths> {
    let bad = |path: &str| BadPaths::Bad(path.to_owned());
    let (mut all, mut path, mut name) = (Vec::new(), Vec::new(), String::new());
    let (mut begin, mut escaped) = (0, false);
    for (at, c) in text.char_indices().chain([(text.len(), ',')]) {
        match c {
            _ if escaped && at == text.len() => return Err(bad(&text[begin..])),
            c if escaped => {
                name.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '.' | ',' => {
                if name.is_empty() {
                    return Err(if text.is_empty() { BadPaths::None } else { bad(&text[begin..at]) });
                }
                path.push(std::mem::take(&mut name));
                if c == ',' {
                    all.push(std::mem::take(&mut path));
                    begin = at + 1;
                }
            }
            c => name.push(c),
        }
    }
    Ok(all)
}

impl Node {
    fn want<'a>(&mut self, path: impl Iterator<Item = &'a str>) {
        let mut at = self;
        for step in path {
            let name = serde_json::to_vec(step).expect("a text can be written").into_boxed_slice();
            let place = at.fields.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
                at.fields.push((name, Node::default()));
                at.fields.len() - 1
            });
            at = &mut at.fields[place].1;
        }
        at.whole = true;
    }

    /// Copies what is wanted of the value that begins at a place, and gives where it ends. Of a text or a number nothing is wanted, and
    /// nothing is written. `None`: it is not canonical JSON.
    fn take(&self, json: &[u8], at: usize, out: &mut Vec<u8>) -> Option<usize> {
        match json.get(at)? {
            b'{' => self.take_fields(json, at, out),
            b'[' => self.take_elements(json, at, out),
            _ => pass(json, at),
        }
    }

    fn take_fields(&self, json: &[u8], mut at: usize, out: &mut Vec<u8>) -> Option<usize> {
        out.push(b'{');
        let begin = out.len();
        at += 1;
        if *json.get(at)? == b'}' {
            out.push(b'}');
            return Some(at + 1);
        }
        loop {
            let name_at = at;
            at = pass_text(json, at)?;
            let name = &json[name_at..at];
            if *json.get(at)? != b':' {
                return None;
            }
            at += 1;
            match self.fields.iter().find(|(wanted, _)| **wanted == *name) {
                None => at = pass(json, at)?,
                Some((_, wanted)) => {
                    let before = out.len();
                    if before > begin {
                        out.push(b',');
                    }
                    out.extend_from_slice(name);
                    out.push(b':');
                    let value = out.len();
                    if wanted.whole {
                        let end = pass(json, at)?;
                        out.extend_from_slice(&json[at..end]);
                        at = end;
                    } else {
                        at = wanted.take(json, at, out)?;
                        if out.len() == value {
                            out.truncate(before);
                        }
                    }
                }
            }
            match *json.get(at)? {
                b',' => at += 1,
                b'}' => {
                    out.push(b'}');
                    return Some(at + 1);
                }
                _ => return None,
            }
        }
    }

    /// Each element keeps its place: of one that has no fields there is `null`.
    fn take_elements(&self, json: &[u8], mut at: usize, out: &mut Vec<u8>) -> Option<usize> {
        out.push(b'[');
        at += 1;
        if *json.get(at)? == b']' {
            out.push(b']');
            return Some(at + 1);
        }
        loop {
            let before = out.len();
            at = self.take(json, at, out)?;
            if out.len() == before {
                out.extend_from_slice(b"null");
            }
            let next = *json.get(at)?;
            out.push(next);
            at += 1;
            match next {
                b',' => {}
                b']' => return Some(at),
                _ => return None,
            }
        }
    }
}

/// Where the value that begins at a place ends. `None`: it does not.
pub(super) fn pass(json: &[u8], mut at: usize) -> Option<usize> {
    match json.get(at)? {
        b'"' => pass_text(json, at),
        b'{' | b'[' => {
            let mut depth = 0_usize;
            loop {
                match json.get(at)? {
                    b'"' => at = pass_text(json, at)?,
                    b'{' | b'[' => {
                        depth += 1;
                        at += 1;
                    }
                    b'}' | b']' => {
                        depth -= 1;
                        at += 1;
                        if depth == 0 {
                            return Some(at);
                        }
                    }
                    _ => at += 1,
                }
            }
        }
        b',' | b'}' | b']' | b':' => None,
        _ => Some(at + json[at..].iter().position(|b| matches!(b, b',' | b'}' | b']')).unwrap_or(json.len() - at)),
    }
}

/// Where the text that begins at a place ends.
fn pass_text(json: &[u8], at: usize) -> Option<usize> {
    if *json.get(at)? != b'"' {
        return None;
    }
    let mut at = at + 1;
    loop {
        match json.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cut(paths: &str, object: &Value) -> Value {
        let mut out = b"before".to_vec();
        assert!(Fields::parse(paths).unwrap().cut(object.to_string().as_bytes(), &mut out));
        serde_json::from_slice(out.strip_prefix(b"before").unwrap()).unwrap()
    }

    #[test]
    fn what_is_asked_for_is_there_and_nothing_else() {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "a\"b", "namespace": "shop", "resourceVersion": "7", "uid": "u", "managedFields": [{"f": "]}\"\\", "g": [[], {}]}],
                "labels": {"app.kubernetes.io/name": "web", "a,b": "1", "a\\b": "2"},
            },
            "spec": {
                "containers": [{"image": "i", "name": "x"}, {"name": "y"}, {}, [], 7, [{"image": "deep"}]],
                "nodeName": "h1", "empty": {}, "none": null, "number": -1.5e3, "no": [],
            },
            "status": {"phase": "Running"},
        });
        let base = json!({"name": "a\"b", "namespace": "shop", "resourceVersion": "7"});
        let rows = [
            ("metadata.name", json!({"metadata": base})),
            ("nothing,spec.nothing,spec.nodeName.nothing", json!({"metadata": base, "spec": {}})),
            (
                "spec.nodeName,status.phase,status",
                json!({"metadata": base, "spec": {"nodeName": "h1"}, "status": {"phase": "Running"}}),
            ),
            ("status,status.phase", json!({"metadata": base, "status": {"phase": "Running"}})),
            (
                "spec.containers.image",
                json!({"metadata": base, "spec": {"containers": [{"image": "i"}, {}, {}, [], null, [{"image": "deep"}]]}}),
            ),
            (
                "spec.none,spec.empty,spec.number,spec.no,spec.no.of",
                json!({"metadata": base, "spec": {"empty": {}, "none": null, "number": -1.5e3, "no": []}}),
            ),
            (
                r"metadata.labels.app\.kubernetes\.io/name,metadata.labels.a\,b,metadata.labels.a\\b",
                json!({"metadata": {
                    "name": "a\"b", "namespace": "shop", "resourceVersion": "7",
                    "labels": {"app.kubernetes.io/name": "web", "a,b": "1", "a\\b": "2"},
                }}),
            ),
            ("metadata", json!({"metadata": object["metadata"]})),
        ];
        for (paths, wanted) in rows {
            assert_eq!(cut(paths, &object), wanted, "{paths}");
        }
    }

    #[test]
    fn paths_that_are_none_are_refused() {
        let told = |text: &str| Fields::parse(text).unwrap_err().to_string();
        assert_eq!(told(""), "at least one path is needed, such as metadata.labels or spec.containers.image");
        for bad in [".", "a.", ".a", "a..b", "a,", ",a", "a,,b", "a\\"] {
            assert!(told(bad).contains("is no path"), "{bad}: {}", told(bad));
        }
        assert_eq!(told("spec,kind"), "kind says what the answer is, so it cannot be asked for");
        assert_eq!(Fields::parse(&"a.".repeat(DEEPEST)).unwrap_err(), BadPaths::Bad("a.".repeat(DEEPEST)));
        assert_eq!(Fields::parse(&vec!["a"; DEEPEST + 1].join(".")), Err(BadPaths::Long));
        assert_eq!(Fields::parse(&"a".repeat(LONGEST + 1)), Err(BadPaths::Long));
    }

    #[test]
    fn what_is_no_object_of_ours_is_left_alone() {
        let fields = Fields::parse("a,b.c").unwrap();
        let good = br#"{"a":1,"b":{"c":[1,{}],"d":"\\"},"e":null}"#;
        let mut out = Vec::new();
        assert!(fields.cut(good, &mut out));
        for end in 0..good.len() {
            let before = out.clone();
            assert!(!fields.cut(&good[..end], &mut out), "{end}");
            assert_eq!(out, before);
        }
        for bad in ["[]", "1", "\"a\"", "{\"a\" :1}", "{\"a\":1} ", "{\"a\":1}}", "{\"a\":}", "{a:1}", "{\"b\":{\"c\":1,}}"] {
            assert!(!fields.cut(bad.as_bytes(), &mut out), "{bad}");
        }
    }
}
