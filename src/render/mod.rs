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

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::mutant::{self, Mutant};
use crate::object::custom::{Definition, Kinds};
use crate::object::manifest::Manifest;
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
    /// Kind, namespace and name.
    pub key: Key,
    /// The object, namespace and defaults filled in. Shared by all renderings of a file that did not change.
    pub value: Manifest,
}

impl Located {
    /// An object and where it is written.
    pub fn new(origin: Origin, kind: &'static Kind, value: Value) -> Located {
        Located { origin, key: key_of(kind, &value), value: value.into() }
    }
}

fn key_of(kind: &'static Kind, value: &Value) -> Key {
    let meta = &value["metadata"];
    let namespace = if kind.namespaced { meta["namespace"].as_str().unwrap_or_default() } else { "" };
    Key::new(kind, namespace, meta["name"].as_str().unwrap_or_default())
}

/// What a tree means.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rendered {
    /// The objects, ordered by kind, namespace and name.
    pub objects: Vec<Located>,
    /// SHA-256, in hex, of the objects' digests in that order. Names and order of files do not matter.
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
    /// The namespace that was filled in.
    namespace: String,
    /// Which kinds were defined.
    defined: String,
    /// By git's ids of contents.
    files: BTreeMap<String, Slot>,
    /// Which rendering this is: what it does not use is forgotten.
    round: u64,
    /// The paths of the last tree, and what is wrong with them.
    names: (Vec<String>, Vec<Problem>),
    last: Last,
}

/// The last rendering, if no object was in it twice. Of ten thousand files the next commit changes one, and seldom which objects it has.
#[derive(Debug, Default)]
struct Last {
    /// Its files, in the order of their paths.
    places: Vec<Held>,
    /// Its objects in the order of their keys: in which of the files, and which of its objects.
    order: Vec<(usize, usize)>,
}

/// A file of a tree, and what it holds.
#[derive(Debug)]
struct Held {
    file: Arc<str>,
    blob: Arc<str>,
    known: Arc<Known>,
}

impl Held {
    /// Whether another file holds objects of the same names in the same order.
    fn names_the_same(&self, other: &Held) -> bool {
        fn keys(held: &Held) -> impl Iterator<Item = &Key> {
            held.known.objects.iter().map(|part| &part.key)
        }
        Arc::ptr_eq(&self.known, &other.known) || keys(self).eq(keys(other))
    }
}

/// What is known of one content.
#[derive(Debug, Default)]
struct Slot {
    /// Read as YAML, and as JSON.
    read: [Option<Arc<Known>>; 2],
    /// Whether it may define kinds: all files have to be asked that first.
    defines: bool,
    /// When it was used last.
    round: u64,
}

/// One file, read.
#[derive(Debug)]
struct Known {
    objects: Vec<Part>,
    faults: Vec<Fault>,
}

/// One object of a file.
#[derive(Debug)]
struct Part {
    at: Place,
    key: Key,
    value: Manifest,
}

/// What a record says that a file holds.
pub struct Recorded {
    /// Git's id of the content.
    pub blob: String,
    /// Whether it is JSON.
    pub json: bool,
    /// Its objects, and the line on which each begins.
    pub objects: Vec<(u32, Key, Manifest)>,
}

impl Cache {
    /// What somebody else has learned: a record of what files hold, made with the same options. The caller knows that the record is that
    /// of a whole accepted commit, so that a file of it that is not named here holds no definition of a kind.
    pub fn recorded(options: &Options, files: Vec<Recorded>, rest: Vec<(String, bool)>) -> Cache {
        let mut cache = Cache { namespace: options.namespace.clone(), ..Cache::default() };
        let mut kinds = options.kinds.clone();
        for file in files {
            let defines = |(_, key, _): &&(u32, Key, Manifest)| key.kind == definitions::row();
            for (_, _, manifest) in file.objects.iter().filter(defines) {
                kinds = kinds.with(&Definition::read(manifest));
            }
            let slot = cache.files.entry(file.blob).or_default();
            slot.defines |= file.objects.iter().any(|object| defines(&object));
            let part = |(line, key, value)| Part { at: (line, 0), key, value };
            let known = Known { objects: file.objects.into_iter().map(part).collect(), faults: Vec::new() };
            slot.read[usize::from(file.json)] = Some(Arc::new(known));
        }
        for (blob, json) in rest {
            let slot = cache.files.entry(blob).or_default();
            slot.read[usize::from(json)].get_or_insert_with(|| Arc::new(Known { objects: Vec::new(), faults: Vec::new() }));
        }
        cache.defined = defined(&kinds);
        cache
    }
}

impl Cache {
    /// Whether a tree whose known files were left empty can be rendered with this: everything that is empty is known, and its kinds are
    /// those with which the known files were read.
    pub fn covers(&self, tree: &Tree, options: &Options) -> bool {
        let known = |(path, entry): (&String, &Entry)| match entry {
            Entry::File { content, blob } if content.is_empty() => {
                self.files.get(blob).is_some_and(|slot| slot.read[usize::from(is_json(path))].is_some())
            }
            _ => true,
        };
        let defines =
            |content: &[u8], blob: &str| self.files.get(blob).map_or_else(|| definitions::speaks(content), |s| s.defines);
        let kinds = definitions::kinds(tree, &options.kinds, defines);
        self.namespace == options.namespace && self.defined == defined(&kinds) && tree.entries.iter().all(known)
    }
    /// Whether a file is known to define kinds, by its blob: then its content is needed again.
    pub fn defines(&self, blob: &str) -> bool {
        self.files.get(blob).is_none_or(|slot| slot.defines)
    }
}

fn defined(kinds: &Kinds) -> String {
    kinds.custom().iter().filter_map(|kind| kind.version_of()).map(|version| version.digest.as_str()).collect()
}

/// Files from which on it is worth while to read on several processors.
const MANY: usize = 200;

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
    if !cache.names.0.iter().eq(tree.entries.keys()) {
        cache.names = (tree.entries.keys().cloned().collect(), names(tree));
    }
    let mut problems = cache.names.1.clone();
    cache.round += 1;
    let mut unknown = 0;
    let kinds = definitions::kinds(tree, &options.kinds, |content, blob| match cache.files.get_mut(blob) {
        Some(slot) => {
            slot.round = cache.round;
            slot.defines
        }
        None => {
            unknown += 1;
            let defines = definitions::speaks(content);
            if !blob.is_empty() {
                cache.files.insert(blob.to_owned(), Slot { defines, round: cache.round, ..Slot::default() });
            }
            defines
        }
    });
    cache.files.retain(|_, slot| slot.round == cache.round);
    let defined = defined(&kinds);
    // Files were read for one namespace and with the help of certain kinds: for others they have to be read again.
    if cache.namespace != options.namespace || cache.defined != defined {
        (cache.namespace, cache.defined) = (options.namespace.clone(), defined);
        cache.files.values_mut().for_each(|slot| slot.read = Default::default());
        cache.last = Last::default();
        unknown = tree.entries.len();
    }
    if unknown >= MANY {
        read_many(tree, options, &kinds, cache);
    }
    let last = std::mem::take(&mut cache.last);
    let mut before = last.places.iter().peekable();
    let mut places: Vec<Held> = Vec::with_capacity(tree.entries.len());
    for (path, entry) in &tree.entries {
        while before.next_if(|held| *held.file < **path).is_some() {}
        let before = before.next_if(|held| *held.file == **path);
        let file: Arc<str> = before.map_or_else(|| path.as_str().into(), |held| held.file.clone());
        let mut say = |at: Place, message: String, hint: Option<String>| {
            problems.push(Problem { origin: Origin { file: file.clone(), line: at.0, column: at.1 }, message, hint });
        };
        let (blob, known) = match entry {
            Entry::File { content, blob } if may_be_manifest(path) => {
                let json = is_json(path);
                let fresh = || Arc::new(read(content, json, &options.namespace, &kinds));
                match before.filter(|held| *held.blob == **blob && !blob.is_empty()) {
                    Some(held) => (held.blob.clone(), held.known.clone()),
                    None => match cache.files.get_mut(blob) {
                        Some(slot) => (blob.as_str().into(), slot.read[usize::from(json)].get_or_insert_with(fresh).clone()),
                        None => (blob.as_str().into(), fresh()),
                    },
                }
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
        places.push(Held { file, blob, known });
    }
    let same = last.places.len() == places.len() && last.places.iter().zip(&places).all(|(was, is)| was.names_the_same(is));
    let mut order = last.order;
    if !same {
        order = places.iter().enumerate().flat_map(|(n, held)| (0..held.known.objects.len()).map(move |m| (n, m))).collect();
        let part = |(n, m): &(usize, usize)| &places[*n].known.objects[*m];
        // Those of the same key stay in the order of their files.
        order.sort_by(|a, b| part(a).key.cmp(&part(b).key));
        let mut first: Option<(usize, usize)> = None;
        order.retain(|at| match first.filter(|first| part(first).key == part(at).key) {
            None => {
                first = Some(*at);
                true
            }
            Some(first) => {
                let first_at = origin(&places[first.0].file, part(&first).at);
                let message = format!("{} is defined twice; the first is at {first_at}", part(at).key);
                let hint = Some("remove one of them, or give it another name or namespace".to_owned());
                problems.push(Problem { origin: origin(&places[at.0].file, part(at).at), message, hint });
                false
            }
        });
    }
    let objects = || order.iter().map(|(n, m)| (&places[*n].file, &places[*n].known.objects[*m]));
    if problems.is_empty() || (mutant::on(Mutant::PartialAdmission) && !order.is_empty()) {
        // Of the digests of the objects: of ten thousand only one is gone through when only one has changed.
        let mut digest = Sha256::new();
        for (_, part) in objects() {
            digest.update(part.value.digest().bytes());
        }
        let digest = digest.finalize().iter().map(|b| format!("{b:02x}")).collect();
        let located = |(file, part): (&Arc<str>, &Part)| Located {
            origin: origin(file, part.at),
            key: part.key.clone(),
            value: part.value.clone(),
        };
        let objects = objects().map(located).collect();
        if problems.is_empty() {
            cache.last = Last { places, order };
        }
        return Ok(Rendered { objects, digest });
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

fn is_json(path: &str) -> bool {
    let (path, ending) = (path.as_bytes(), b".json");
    path.len() >= ending.len() && path[path.len() - ending.len()..].eq_ignore_ascii_case(ending)
}

/// Reads what the cache does not know, if it is much, on all processors. What a file holds depends on no other one.
fn read_many(tree: &Tree, options: &Options, kinds: &Kinds, cache: &mut Cache) {
    let mut unknown: BTreeMap<(&str, bool), &[u8]> = BTreeMap::new();
    for (path, entry) in &tree.entries {
        if let Entry::File { content, blob } = entry
            && may_be_manifest(path)
            && cache.files.get(blob).is_some_and(|slot| slot.read[usize::from(is_json(path))].is_none())
        {
            unknown.insert((blob, is_json(path)), content);
        }
    }
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if unknown.len() < MANY || processors < 2 {
        return;
    }
    let unknown: Vec<((&str, bool), &[u8])> = unknown.into_iter().collect();
    let share = &|part: &[((&str, bool), &[u8])]| -> Vec<Arc<Known>> {
        part.iter().map(|((_, json), content)| Arc::new(read(content, *json, &options.namespace, kinds))).collect()
    };
    let known: Vec<Vec<Arc<Known>>> = std::thread::scope(|scope| {
        let parts = unknown.chunks(unknown.len().div_ceil(processors));
        let readers: Vec<_> = parts.map(|part| scope.spawn(move || share(part))).collect();
        readers.into_iter().map(|reader| reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    for (((blob, json), _), known) in unknown.iter().zip(known.into_iter().flatten()) {
        if let Some(slot) = cache.files.get_mut(*blob) {
            slot.read[usize::from(*json)] = Some(known);
        }
    }
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
    let part = |(at, kind, value): (Place, &'static Kind, Value)| {
        let json = serde_json::to_vec(&value).expect("a JSON tree can be written");
        // As it will be read from a record: what is compared later has gone the same way.
        let value = Manifest::read(&json).expect("we wrote it");
        Part { at, key: key_of(kind, &value), value }
    };
    Known { objects: found.objects.into_iter().map(part).collect(), faults: found.faults }
}

fn origin(file: &Arc<str>, at: Place) -> Origin {
    Origin { file: file.clone(), line: at.0, column: at.1 }
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
