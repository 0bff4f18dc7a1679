//! Trees become values: the files below one path, by blob id, within limits. Nothing is ever checked out.
//!
//! A commit is read from the one before it: a directory that it has not changed is taken over with all that is below it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use git2::{ObjectType, Oid, Repository};

use super::address::check_path;
use super::error::{FetchError, FetchErrorKind, clean};
use crate::object::source::{Entry, Tree, may_be_manifest};

/// A manifest larger than this is refused: YAML scanners are slower than linear, and nothing that a person wrote is so long. In bytes.
const LARGEST_FILE: u64 = 1 << 20;
/// All manifests of one Application together: what the server is willing to hold in memory for it. In bytes.
const LARGEST_TREE: u64 = 64 << 20;
/// Files that are kept.
const MOST_FILES: usize = 50_000;
/// Entries that are looked at, manifests or not: a repository with a million files still costs only a second.
const MOST_ENTRIES: usize = 1_000_000;
/// Directories within directories.
const DEEPEST: usize = 64;
/// One directory's list of entries, in bytes.
const LARGEST_DIRECTORY: usize = 16 << 20;
/// Blobs that are read without asking whether the commit before had them elsewhere: to know that, all of its files have to be gone through.
const FEW: usize = 8;

/// How much is read of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Their contents.
    Contents,
    /// Only which blobs they are: contents are empty.
    Names,
}

/// The directories of a commit that were read, by path.
pub(super) type Directories = BTreeMap<String, Directory>;

/// What was seen of a directory.
#[derive(Clone)]
pub(super) struct Directory {
    id: Oid,
    /// How many entries were looked at in it, those of the directories below it not among them.
    entries: usize,
}

/// Reads the manifests below a path of a commit. What the commit before has, its tree and its directories, is shared, not read again.
pub(super) fn read_commit(
    repository: &Repository,
    commit: Oid,
    path: &str,
    before: (&Tree, &Directories),
    depth: Depth,
) -> Result<(Tree, Directories), FetchError> {
    let parts = check_path(path)?;
    let attempt = format!("read {} at {:.7}", if path.is_empty() { "the repository" } else { path }, commit.to_string());
    let local = |e: git2::Error| FetchError::new(FetchErrorKind::Local, &attempt, e.message());
    let odb = repository.odb().map_err(local)?;
    let mut reader = Reader {
        before: before.0,
        known_directories: before.1,
        elsewhere: None,
        misses: 0,
        kept: Kept::new(&attempt),
        directories: Directories::new(),
        attempt: &attempt,
        seen: 0,
        odb: &odb,
        repository,
        depth,
    };
    let mut at = repository.find_commit(commit).map_err(local)?.tree_id();
    for (i, part) in parts.iter().enumerate() {
        reader.sized(at)?;
        let tree = repository.find_tree(at).map_err(local)?;
        let missing =
            || FetchError::new(FetchErrorKind::NoSuchPath, &attempt, format!("the commit has no {:?}", parts[..=i].join("/")));
        let entry = tree.get_name_bytes(part.as_bytes()).ok_or_else(missing)?;
        let last = i + 1 == parts.len();
        match (entry.filemode(), last) {
            (0o040000, _) => at = entry.id(),
            (0o100644 | 0o100755 | 0o100664, true) => {
                reader.file((*part).to_owned(), entry.id())?;
                return Ok(reader.done(commit));
            }
            (0o120000, _) => {
                let why = format!("{:?} is a symbolic link, and those are never followed", parts[..=i].join("/"));
                return Err(FetchError::new(FetchErrorKind::NoSuchPath, &attempt, why));
            }
            _ => {
                let why = format!("{:?} is not a directory", parts[..=i].join("/"));
                return Err(FetchError::new(FetchErrorKind::NoSuchPath, &attempt, why));
            }
        }
    }
    reader.directory(at)?;
    Ok(reader.done(commit))
}

struct Reader<'a> {
    repository: &'a Repository,
    odb: &'a git2::Odb<'a>,
    before: &'a Tree,
    /// The directories that `before` was read from.
    known_directories: &'a Directories,
    /// The contents that the commit before had, wherever they were.
    elsewhere: Option<HashMap<&'a str, &'a Bytes>>,
    /// Files that were not there before, or had another content.
    misses: usize,
    kept: Kept<'a>,
    directories: Directories,
    seen: usize,
    attempt: &'a str,
    depth: Depth,
}

impl<'a> Reader<'a> {
    fn done(self, commit: Oid) -> (Tree, Directories) {
        (self.kept.done(commit.to_string()), self.directories)
    }

    fn local(&self, e: git2::Error) -> FetchError {
        FetchError::new(FetchErrorKind::Local, self.attempt, e.message())
    }

    /// Refuses a directory whose list alone would be a burden, before it is unpacked.
    fn sized(&self, id: Oid) -> Result<(), FetchError> {
        let (size, _) = self.odb.read_header(id).map_err(|e| self.local(e))?;
        if size > LARGEST_DIRECTORY {
            return Err(FetchError::new(
                FetchErrorKind::TooLarge,
                self.attempt,
                format!("one directory's list is larger than {} MiB", LARGEST_DIRECTORY >> 20),
            ));
        }
        Ok(())
    }

    fn directory(&mut self, root: Oid) -> Result<(), FetchError> {
        let mut open = vec![(String::new(), root, 0)];
        while let Some((prefix, id, depth)) = open.pop() {
            if depth > DEEPEST {
                return Err(FetchError::new(
                    FetchErrorKind::TooLarge,
                    self.attempt,
                    format!("directories are nested deeper than {DEEPEST}"),
                ));
            }
            if self.known_directories.get(&prefix).is_some_and(|known| known.id == id) {
                self.take_over(&prefix)?;
                continue;
            }
            self.sized(id)?;
            let tree = self.repository.find_tree(id).map_err(|e| self.local(e))?;
            self.looked_at(prefix.clone(), Directory { id, entries: tree.len() })?;
            for entry in &tree {
                let name = String::from_utf8_lossy(entry.name_bytes());
                if name.starts_with('.') {
                    continue;
                }
                let path = if prefix.is_empty() { name.into_owned() } else { format!("{prefix}/{name}") };
                match entry.filemode() {
                    0o040000 => open.push((path, entry.id(), depth + 1)),
                    0o120000 => {
                        let target = self.odb.read_header(entry.id()).ok().filter(|(size, _)| *size <= 4096);
                        let target = target.and_then(|_| self.odb.read(entry.id()).ok());
                        let target = target.map_or_else(String::new, |t| String::from_utf8_lossy(t.data()).into_owned());
                        self.kept.keep(path, Entry::Symlink(target))?;
                    }
                    0o160000 => self.kept.keep(path, Entry::Submodule)?,
                    _ if may_be_manifest(&path) => self.file(path, entry.id())?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Takes over a directory that is what it was, with those below it. It counts as much as if it had been read.
    fn take_over(&mut self, path: &str) -> Result<(), FetchError> {
        let below = if path.is_empty() { String::new() } else { format!("{path}/") };
        let itself = self.known_directories.get_key_value(path).filter(|_| !below.is_empty());
        for (path, directory) in itself.into_iter().chain(starting(self.known_directories, &below)) {
            self.looked_at(path.clone(), directory.clone())?;
        }
        starting(&self.before.entries, &below).try_for_each(|(path, entry)| self.kept.keep(path.clone(), entry.clone()))
    }

    fn looked_at(&mut self, path: String, directory: Directory) -> Result<(), FetchError> {
        self.seen += directory.entries;
        if self.seen > MOST_ENTRIES {
            let why = format!("it has more than {MOST_ENTRIES} files");
            return Err(FetchError::new(FetchErrorKind::TooLarge, self.attempt, why));
        }
        self.directories.insert(path, directory);
        Ok(())
    }

    fn file(&mut self, path: String, id: Oid) -> Result<(), FetchError> {
        let blob = id.to_string();
        if let Some(content) = self.known(&path, &blob) {
            return self.kept.keep(path, Entry::File { content, blob });
        }
        if self.depth == Depth::Names {
            return self.kept.keep(path, Entry::File { content: Bytes::new(), blob });
        }
        let (size, kind) = self.odb.read_header(id).map_err(|e| self.local(e))?;
        if kind != ObjectType::Blob {
            return Err(FetchError::new(FetchErrorKind::Local, self.attempt, format!("{path} is not a blob")));
        }
        if size as u64 > LARGEST_FILE {
            return self.kept.keep(path, Entry::TooLarge(size as u64));
        }
        let content = Bytes::copy_from_slice(self.odb.read(id).map_err(|e| self.local(e))?.data());
        self.kept.keep(path, Entry::File { content, blob })
    }

    /// A content that the commit before had.
    fn known(&mut self, path: &str, wanted: &str) -> Option<Bytes> {
        if let Some(Entry::File { content, blob }) = self.before.entries.get(path)
            && blob == wanted
        {
            return Some(content.clone());
        }
        self.misses += 1;
        if self.misses <= FEW {
            return None;
        }
        let before = self.before;
        let elsewhere = self.elsewhere.get_or_insert_with(|| {
            let file = |entry: &'a Entry| match entry {
                Entry::File { content, blob } => Some((blob.as_str(), content)),
                _ => None,
            };
            before.entries.values().filter_map(file).collect()
        });
        elsewhere.get(wanted).map(|content| (*content).clone())
    }
}

/// What is below a directory, whose path ends with a slash.
fn starting<'m, T>(map: &'m BTreeMap<String, T>, below: &str) -> impl Iterator<Item = (&'m String, &'m T)> {
    map.range::<str, _>((Bound::Included(below), Bound::Unbounded)).take_while(move |(path, _)| path.starts_with(below))
}

/// The tree that grows, and its limits.
struct Kept<'a> {
    entries: Vec<(String, Entry)>,
    bytes: u64,
    attempt: &'a str,
}

impl<'a> Kept<'a> {
    fn new(attempt: &'a str) -> Self {
        Kept { entries: Vec::new(), bytes: 0, attempt }
    }

    fn keep(&mut self, path: String, entry: Entry) -> Result<(), FetchError> {
        if let Entry::File { content, .. } = &entry {
            self.bytes += content.len() as u64;
        }
        let too = |what: String| Err(FetchError::new(FetchErrorKind::TooLarge, self.attempt, what));
        if self.bytes > LARGEST_TREE {
            return too(format!("its manifests are larger than {} MiB together", LARGEST_TREE >> 20));
        }
        if self.entries.len() >= MOST_FILES {
            return too(format!("it has more than {MOST_FILES} manifests"));
        }
        if path.len() > 4096 {
            return too("a path is longer than 4096 bytes".to_owned());
        }
        self.entries.push((path, entry));
        Ok(())
    }

    fn done(self, commit: String) -> Tree {
        Tree { commit, entries: self.entries.into_iter().collect() }
    }
}

/// Reads a plain directory or a single file, without git. Hidden directories are skipped; symbolic links are noted, not followed.
pub fn read_dir(path: &Path) -> Result<Tree, FetchError> {
    let attempt = format!("read {}", clean(&path.display().to_string()));
    let failed =
        |at: &Path, e: std::io::Error| FetchError::new(FetchErrorKind::NoSuchPath, &attempt, format!("{}: {e}", at.display()));
    let mut kept = Kept::new(&attempt);
    let meta = std::fs::metadata(path).map_err(|e| failed(path, e))?;
    if meta.is_file() {
        let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        kept.keep(name, plain(path, meta.len()).map_err(|e| failed(path, e))?)?;
        return Ok(kept.done(String::new()));
    }
    let mut open: Vec<(String, PathBuf, usize)> = vec![(String::new(), path.to_owned(), 0)];
    let mut seen = 0;
    while let Some((prefix, dir, depth)) = open.pop() {
        if depth > DEEPEST {
            return Err(FetchError::new(
                FetchErrorKind::TooLarge,
                &attempt,
                format!("directories are nested deeper than {DEEPEST}"),
            ));
        }
        for entry in std::fs::read_dir(&dir).map_err(|e| failed(&dir, e))? {
            let entry = entry.map_err(|e| failed(&dir, e))?;
            seen += 1;
            if seen > MOST_ENTRIES {
                return Err(FetchError::new(
                    FetchErrorKind::TooLarge,
                    &attempt,
                    format!("it has more than {MOST_ENTRIES} files"),
                ));
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            let at = entry.path();
            let meta = std::fs::symlink_metadata(&at).map_err(|e| failed(&at, e))?;
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            if meta.is_symlink() {
                let target = std::fs::read_link(&at).map(|t| t.to_string_lossy().into_owned()).unwrap_or_default();
                kept.keep(path, Entry::Symlink(target))?;
            } else if meta.is_dir() {
                open.push((path, at, depth + 1));
            } else if meta.is_file() && may_be_manifest(&path) {
                let file = plain(&at, meta.len()).map_err(|e| failed(&at, e))?;
                kept.keep(path, file)?;
            }
        }
    }
    Ok(kept.done(String::new()))
}

/// A file of the file system, never more of it than the limit.
fn plain(path: &Path, size: u64) -> std::io::Result<Entry> {
    use std::io::Read as _;
    if size > LARGEST_FILE {
        return Ok(Entry::TooLarge(size));
    }
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST_FILE {
        return Ok(Entry::TooLarge(content.len() as u64));
    }
    Ok(Entry::File { content: content.into(), blob: String::new() })
}
