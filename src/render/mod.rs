//! Files become objects: a tree of manifests in, objects with their file and line out, or every problem at once.
//!
//! A commit is accepted or refused as a whole, so nothing here stops at the first mistake. What a manifest may say is decided by
//! `object::admit`, the same code that the API uses; this room finds the places in files and the words for people.
//!
//! You will not find here: git, the file system, or anything that depends on the cluster. The same tree always gives the same
//! objects and the same digest.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod check;
mod definitions;
mod document;
mod places;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::mutant::{self, Mutant};
use crate::object::custom::Kinds;
use crate::object::source::{Entry, Origin, Tree, may_be_manifest};
use crate::object::{Key, Kind};
use check::Found;
use document::{Fault, documents};
use places::Place;

/// One rendered object and where its document begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// The file, and the line and column of the first thing in the document.
    pub origin: Origin,
    /// The row of `KINDS`.
    pub kind: &'static Kind,
    /// The object, namespace and defaults filled in.
    pub value: Value,
}

/// What a tree means.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rendered {
    /// The objects, ordered by kind, namespace and name.
    pub objects: Vec<Located>,
    /// SHA-256, in hex, of the objects' canonical JSON in that order. Names and order of files do not matter.
    pub digest: String,
}

/// One thing that is wrong with a file. Not an `Err` of one file: a commit has as many as it has mistakes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What may help.
    pub hint: Option<String>,
}

/// What rendering depends on beside the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The namespace of namespaced objects that name none.
    pub namespace: String,
    /// The kinds that objects may be of. What the files define themselves is added.
    pub kinds: Kinds,
}

impl Default for Options {
    fn default() -> Self {
        Options { namespace: "default".to_owned(), kinds: Kinds::default() }
    }
}

/// What was learned about files that have not changed since. Never changes a result; only saves time. Meant for one Application: files
/// that a rendering does not mention are forgotten.
#[derive(Debug, Default)]
pub struct Cache {
    files: BTreeMap<CacheKey, Arc<Known>>,
}

/// Git's id of the content, whether it is JSON, the namespace that was filled in, and which kinds were defined.
type CacheKey = (String, bool, String, String);

/// One file, read. Objects are kept as bytes, which are a tenth of the size of trees.
#[derive(Debug)]
struct Known {
    objects: Vec<(Place, &'static Kind, Vec<u8>)>,
    faults: Vec<Fault>,
}

/// Problems that are reported of one commit. Who has more has one cause for most of them.
const MOST_PROBLEMS: usize = 500;

/// Renders a tree.
///
/// # Errors
/// Every problem of every file, ordered by place.
pub fn render(tree: &Tree, options: &Options) -> Result<Rendered, Vec<Problem>> {
    render_cached(tree, options, &mut Cache::default())
}

/// Renders a tree, parsing only files whose content the cache does not know.
///
/// # Errors
/// Every problem of every file, ordered by place.
pub fn render_cached(tree: &Tree, options: &Options, cache: &mut Cache) -> Result<Rendered, Vec<Problem>> {
    let mut problems = names(tree);
    let kinds = definitions::kinds(tree, &options.kinds);
    let defined: String =
        kinds.custom().iter().filter_map(|kind| kind.version_of()).map(|version| version.digest.as_str()).collect();
    let mut used = BTreeMap::new();
    let mut objects: BTreeMap<Key, (Located, Vec<u8>)> = BTreeMap::new();
    for (path, entry) in &tree.entries {
        let file: Arc<str> = path.as_str().into();
        let mut say = |at: Place, message: String, hint: Option<String>| {
            problems.push(Problem { origin: Origin { file: file.clone(), line: at.0, column: at.1 }, message, hint });
        };
        let known = match entry {
            Entry::File { content, blob } if may_be_manifest(path) => {
                let json = path.to_ascii_lowercase().ends_with(".json");
                let key = (blob.clone(), json, options.namespace.clone(), defined.clone());
                let known = cache.files.get(&key).or_else(|| used.get(&key)).filter(|_| !blob.is_empty()).cloned();
                let known = known.unwrap_or_else(|| Arc::new(read(content, json, &options.namespace, &kinds)));
                if !blob.is_empty() {
                    used.insert(key, known.clone());
                }
                known
            }
            Entry::File { .. } => continue,
            Entry::TooLarge(size) => {
                let hint = "split the file; large data does not belong into manifests".to_owned();
                say((0, 0), format!("the file has {size} bytes; a manifest has at most 1 MiB"), Some(hint));
                continue;
            }
            Entry::Symlink(target) => {
                if !harmless(path, target) {
                    let target: String = target.chars().filter(|c| !c.is_control()).take(200).collect();
                    let hint = "put the file itself here, or keep the link in a hidden directory".to_owned();
                    say((0, 0), format!("this is a symbolic link to {target:?}, and those are never followed"), Some(hint));
                }
                continue;
            }
            Entry::Submodule => {
                let hint = "commit the files themselves, or give the other repository an Application of its own".to_owned();
                say((0, 0), "this is a submodule, and those are never fetched".to_owned(), Some(hint));
                continue;
            }
        };
        for fault in &known.faults {
            say(fault.at, fault.message.clone(), fault.hint.clone());
        }
        for (at, kind, json) in &known.objects {
            let value: Value = serde_json::from_slice(json).expect("we wrote it");
            let meta = &value["metadata"];
            let namespace = if kind.namespaced { meta["namespace"].as_str().unwrap_or_default() } else { "" };
            let key = Key::new(kind, namespace, meta["name"].as_str().unwrap_or_default());
            let origin = Origin { file: file.clone(), line: at.0, column: at.1 };
            match objects.entry(key) {
                btree_map::Entry::Vacant(place) => {
                    place.insert((Located { origin, kind, value }, json.clone()));
                }
                btree_map::Entry::Occupied(first) => {
                    let message = format!("{} is defined twice; the first is at {}", first.key(), first.get().0.origin);
                    say(*at, message, Some("remove one of them, or give it another name or namespace".to_owned()));
                }
            }
        }
    }
    cache.files = used;
    if problems.is_empty() || (mutant::on(Mutant::PartialAdmission) && !objects.is_empty()) {
        let mut digest = Sha256::new();
        for (_, json) in objects.values() {
            digest.update(json);
            digest.update(b"\n");
        }
        let digest = digest.finalize().iter().map(|b| format!("{b:02x}")).collect();
        return Ok(Rendered { objects: objects.into_values().map(|(located, _)| located).collect(), digest });
    }
    problems.sort();
    if problems.len() > MOST_PROBLEMS {
        let more = problems.len() - MOST_PROBLEMS;
        problems.truncate(MOST_PROBLEMS);
        let origin = problems[MOST_PROBLEMS - 1].origin.clone();
        problems.push(Problem { origin, message: format!("and {more} more problems"), hint: None });
    }
    Err(problems)
}

/// Reads and checks one file.
fn read(content: &[u8], json: bool, namespace: &str, kinds: &Kinds) -> Known {
    let mut found = Found::default();
    match document::text(content).and_then(|text| documents(text, json)) {
        Err(fault) => found.faults.push(fault),
        Ok(documents) => {
            for document in &documents {
                match document.value() {
                    Ok(None) => {}
                    Ok(Some(value)) => check::check(document, value, namespace, kinds, &mut found),
                    Err(faults) => found.faults.extend(faults),
                }
            }
        }
    }
    let bytes = |value: Value| serde_json::to_vec(&value).expect("a JSON tree can be written");
    let objects = found.objects.into_iter().map(|(at, kind, value)| (at, kind, bytes(value))).collect();
    Known { objects, faults: found.faults }
}

/// Names of files that would mean trouble: on other machines, in messages, or as paths.
fn names(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut folded: BTreeMap<String, &str> = BTreeMap::new();
    for path in tree.entries.keys() {
        let mut say = |message: String| {
            let shown: String = path.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(300).collect();
            problems.push(Problem { origin: Origin { file: shown.into(), line: 0, column: 0 }, message, hint: None });
        };
        if path.chars().any(|c| {
            c.is_control() || c == '\u{fffd}' || c == '\\' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        }) {
            say("the name has control characters, backslashes or bytes that are not UTF-8".to_owned());
        }
        if path.starts_with('/') || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            say("the path leads out of the repository".to_owned());
        }
        if path.split('/').any(|part| part.len() > 255) {
            say("a part of the path is longer than 255 bytes".to_owned());
        }
        if let Some(first) = folded.insert(path.to_lowercase(), path) {
            say(format!("its name differs from {first:?} only in case, so many machines cannot hold both"));
        }
    }
    problems
}

/// A link that could not have been a manifest, nor a directory of them: `README.md` to `docs/intro.md`.
fn harmless(path: &str, target: &str) -> bool {
    let ending = |p: &str| p.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending.to_owned());
    !may_be_manifest(path) && !may_be_manifest(target) && ending(path).is_some() && ending(path) == ending(target)
}
