//! Where things are in a document: paths become lines and columns.
//!
//! A second, slower reading of a document, done only when there is something to point at, or when a document looks as if it had been
//! made to hurt. Values come from elsewhere (`document`); nothing here decides what a scalar means, only how it was written.

use std::collections::BTreeMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::object::admit::Step;

/// Lists and maps within each other. Kubernetes' deepest types need about twenty.
const DEEPEST: usize = 64;
/// Scalars, lists and maps of one document, after aliases were replaced. The largest documents that people write (custom resource
/// definitions) have ten thousand.
const MOST_NODES: usize = 100_000;
/// Text of one document after aliases were replaced, in bytes.
const MOST_TEXT: usize = 4 << 20;

/// A line and a column, both from 1.
pub(super) type Place = (u32, u32);

/// A limit that a document breaks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) at: Place,
    pub(super) message: String,
}

/// Whether a document should be counted before anybody unpacks it. Cheap; errs on the side of counting.
pub(super) fn suspicious(text: &str) -> bool {
    let (mut marks, mut anchor, mut alias) = (0, false, false);
    for byte in text.bytes() {
        match byte {
            b',' | b'\n' | b':' | b'-' | b'?' | b'[' | b'{' => marks += 1,
            b'&' => anchor = true,
            b'*' => alias = true,
            _ => {}
        }
    }
    marks > MOST_NODES || (anchor && alias) || deepest_bracket(text) > DEEPEST || deep_indent(text)
}

/// How deep brackets are nested, those in texts included.
fn deepest_bracket(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// `- - - - …` nests without brackets.
fn deep_indent(text: &str) -> bool {
    text.lines().any(|line| {
        let opened = line.split_whitespace().take_while(|word| matches!(*word, "-" | "?" | ":")).count();
        opened > 8 || line.len() - line.trim_start().len() > 4 * DEEPEST
    })
}

/// Counts a document without keeping any of it.
pub(super) fn measure(text: &str) -> Result<(), Broken> {
    // What an anchor stands for: nodes and bytes. Counted on the way, so that a bomb is never unpacked.
    let mut anchors: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    let mut open: Vec<(usize, usize, usize)> = Vec::new();
    let (mut nodes, mut bytes) = (0_usize, 0_usize);
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(read) => read,
            // It gave up, so the reader of values, which is slow where much is open, does not get the text at all.
            Err(error) if deepest_bracket(text) > DEEPEST => {
                let at = (error.marker().line() as u32, error.marker().col() as u32 + 1);
                return Err(Broken { at, message: error.info().to_owned() });
            }
            // What cannot be read is reported by whoever reads it in earnest.
            Err(_) => return Ok(()),
        };
        match event {
            Event::Scalar(value, _, anchor, _) => {
                nodes += 1;
                bytes += value.len();
                if anchor > 0 {
                    anchors.insert(anchor, (1, value.len()));
                }
            }
            Event::Alias(anchor) => {
                let (n, b) = anchors.get(&anchor).copied().unwrap_or((1, 0));
                nodes = nodes.saturating_add(n);
                bytes = bytes.saturating_add(b);
            }
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                open.push((anchor, nodes, bytes));
                nodes += 1;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((anchor, n, b)) = open.pop().filter(|o| o.0 > 0) {
                    anchors.insert(anchor, (nodes - n, bytes - b));
                }
            }
            _ => {}
        }
        let broken = |message: String| Err(Broken { at: place(span), message });
        if open.len() > DEEPEST {
            return broken(format!("lists and maps are nested deeper than {DEEPEST}"));
        }
        if nodes > MOST_NODES {
            return broken(format!("the document has more than {MOST_NODES} values once its aliases are replaced"));
        }
        if bytes > MOST_TEXT {
            return broken(format!("the document's text is longer than {} MiB once its aliases are replaced", MOST_TEXT >> 20));
        }
    }
    Ok(())
}

fn place(span: Span) -> Place {
    (span.start.line() as u32, span.start.col() as u32 + 1)
}

/// A document as a tree of places.
#[derive(Debug, Default)]
pub(super) struct Places {
    root: Option<Rc<Node>>,
    /// Keys that occur twice in one map: the key, its second and its first place.
    pub(super) duplicates: Vec<(String, Place, Place)>,
}

#[derive(Debug)]
struct Node {
    at: Place,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    /// A scalar, and whether it was written without quotes.
    Scalar {
        plain: bool,
    },
    List(Vec<Rc<Node>>),
    Map(Entries),
}

/// The entries of a map.
#[derive(Debug, Default)]
struct Entries {
    /// The place of each key and its value; of a key that is there twice, the first.
    named: BTreeMap<String, (Place, Rc<Node>)>,
    /// What `<<` merges in.
    merged: Vec<Rc<Node>>,
}

impl Entries {
    fn add(&mut self, name: String, at: Place, node: Rc<Node>) {
        if name == "<<" {
            self.merged.push(node.clone());
        }
        self.named.entry(name).or_insert((at, node));
    }
}

/// A list or map that has begun.
struct Open {
    at: Place,
    anchor: usize,
    shape: Shape,
    key: Option<(String, Place)>,
}

impl Places {
    /// Reads a document, as far as it can be read.
    pub(super) fn read(text: &str) -> Places {
        let mut places = Places::default();
        let mut anchors: BTreeMap<usize, Rc<Node>> = BTreeMap::new();
        let mut open: Vec<Open> = Vec::new();
        for event in Parser::new_from_str(text) {
            let Ok((event, span)) = event else { break };
            let at = place(span);
            let done = match event {
                Event::Scalar(text, style, anchor, tag) => {
                    if let Some(Open { shape: Shape::Map(entries), key: key @ None, .. }) = open.last_mut() {
                        if let Some((first, _)) = entries.named.get(&*text) {
                            places.duplicates.push((text.to_string(), at, *first));
                        }
                        *key = Some((text.into_owned(), at));
                        continue;
                    }
                    let plain = style == ScalarStyle::Plain && tag.is_none();
                    Some((anchor, Rc::new(Node { at, shape: Shape::Scalar { plain } })))
                }
                Event::Alias(anchor) => {
                    let known = anchors.get(&anchor).cloned();
                    Some((0, known.unwrap_or_else(|| Rc::new(Node { at, shape: Shape::Scalar { plain: false } }))))
                }
                Event::SequenceStart(anchor, _) => {
                    open.push(Open { at, anchor, shape: Shape::List(Vec::new()), key: None });
                    None
                }
                Event::MappingStart(anchor, _) => {
                    open.push(Open { at, anchor, shape: Shape::Map(Entries::default()), key: None });
                    None
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    open.pop().map(|o| (o.anchor, Rc::new(Node { at: o.at, shape: o.shape })))
                }
                _ => None,
            };
            if open.len() > DEEPEST {
                break;
            }
            if let Some((anchor, node)) = done {
                if anchor > 0 {
                    anchors.insert(anchor, node.clone());
                }
                match open.last_mut() {
                    None => places.root = Some(node),
                    Some(Open { shape: Shape::List(items), .. }) => items.push(node),
                    Some(Open { shape: Shape::Map(entries), key, .. }) => match key.take() {
                        Some((name, at)) => entries.add(name, at, node),
                        // A list or map as a key: nothing that a manifest can mean.
                        None => *key = Some((String::new(), node.at)),
                    },
                    Some(_) => {}
                }
            }
        }
        // What was begun and not ended still has places: an error further down must not hide those above.
        while let Some(Open { at, shape, .. }) = open.pop() {
            let node = Rc::new(Node { at, shape });
            match open.last_mut() {
                None => places.root = Some(node),
                Some(Open { shape: Shape::List(items), .. }) => items.push(node),
                Some(Open { shape: Shape::Map(entries), key, .. }) => {
                    if let Some((name, at)) = key.take() {
                        entries.add(name, at, node);
                    }
                }
                Some(_) => {}
            }
        }
        places
    }

    /// The place of the thing at a path, or of the nearest thing above it that is there. Of an entry of a map, the key unless the value
    /// is a scalar and `value` is asked for.
    pub(super) fn find(&self, path: &[Step], value: bool) -> Option<Place> {
        let mut node = self.root.as_ref()?;
        let mut best = node.at;
        for (i, step) in path.iter().enumerate() {
            let (key, next) = match (step, &node.shape) {
                (Step::Index(n), Shape::List(items)) => match items.get(*n) {
                    Some(item) => (item.at, item),
                    None => break,
                },
                (Step::Field(name), Shape::Map(_)) => match entry(node, name, 0) {
                    Some(found) => found,
                    None => break,
                },
                _ => break,
            };
            let last = i + 1 == path.len();
            best = if last && value && matches!(next.shape, Shape::Scalar { .. }) { next.at } else { key };
            node = next;
        }
        Some(best)
    }

    /// Whether the scalar at a path was written without quotes.
    pub(super) fn plain(&self, path: &[Step]) -> bool {
        let found = path.iter().try_fold(self.root.as_ref(), |node, step| {
            Some(match (step, &node?.shape) {
                (Step::Index(n), Shape::List(items)) => items.get(*n),
                (Step::Field(name), Shape::Map(_)) => entry(node?, name, 0).map(|e| e.1),
                _ => None,
            })
        });
        matches!(found.flatten().map(|n| &n.shape), Some(Shape::Scalar { plain: true }))
    }
}

/// An entry of a map, its own or one that it merges in with `<<`.
fn entry<'a>(node: &'a Rc<Node>, name: &str, depth: usize) -> Option<(Place, &'a Rc<Node>)> {
    let Shape::Map(entries) = &node.shape else { return None };
    if let Some((at, value)) = entries.named.get(name) {
        return Some((*at, value));
    }
    if depth > 8 {
        return None;
    }
    entries.merged.iter().find_map(|merged| match &merged.shape {
        Shape::List(items) => items.iter().find_map(|i| entry(i, name, depth + 1)),
        _ => entry(merged, name, depth + 1),
    })
}

/// The steps of a path in Kubernetes' notation: `spec.containers[0].ports`, `metadata.labels[a.b/c]`.
pub(super) fn steps(field: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = field;
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let end = inside.find(']').unwrap_or(inside.len());
            let text = &inside[..end];
            steps.push(text.parse().map_or_else(|_| Step::Field(text.to_owned()), Step::Index));
            rest = inside.get(end + 1..).unwrap_or_default();
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            if end > 0 {
                steps.push(Step::Field(rest[..end].to_owned()));
            }
            rest = &rest[end..];
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_places() {
        let text = "a: 1\nb:\n  - c: \"x\"\n    d: {e: yes}\n  - &m\n    f: 2\nm:\n  <<: *m\n  g: 3\n";
        let places = Places::read(text);
        let rows = [
            ("a", true, Some((1, 4)), true),
            ("a", false, Some((1, 1)), true),
            ("b[0].c", true, Some((3, 8)), false),
            ("b[0].d.e", true, Some((4, 12)), true),
            ("b[0].nope.x", true, Some((3, 5)), false),
            ("b[1].f", true, Some((6, 8)), true),
            ("m.f", true, Some((6, 8)), true),
            ("m", true, Some((7, 1)), false),
        ];
        for (path, value, at, plain) in rows {
            assert_eq!(places.find(&steps(path), value), at, "{path}");
            assert_eq!(places.plain(&steps(path)), plain, "{path}");
        }
    }

    #[test]
    fn kubernetes_paths() {
        let field = |name: &str| Step::Field(name.to_owned());
        assert_eq!(steps("a.b[2].c"), [field("a"), field("b"), Step::Index(2), field("c")]);
        assert_eq!(steps("metadata.labels[x.y/z]"), [field("metadata"), field("labels"), field("x.y/z")]);
        assert_eq!(steps(""), []);
    }
}
