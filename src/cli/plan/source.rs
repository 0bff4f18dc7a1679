//! What is wanted: a revision of a repository, or the files as they are, rendered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::cli::app::{mirrors, seven};
use crate::cli::serve::{around, repository};
use crate::cli::{Context, Explain, Failure, fail};
use crate::git::{Fetched, Mirrors, Request, blob_id, local_path, read_dir};
use crate::object::Key;
use crate::object::manifest::Manifest;
use crate::object::ours::ProblemRecord;
use crate::object::source::{Entry, Tree};
use crate::plan::sync::Wanted;
use crate::render::{Cache, Options, Problem, Recorded, render_cached};

/// The word for files that need not be committed.
pub(super) const WORKTREE: &str = "WORKTREE";

/// What a person asked to plan for; what is left out comes from the Application.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish {
    pub(super) repo: Option<String>,
    pub(super) path: Option<String>,
    pub(super) to: Option<String>,
    pub(super) namespace: Option<String>,
}

/// A revision, as a plan names it.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Point {
    /// What was asked for: `HEAD`, `main`, `WORKTREE`.
    pub(super) revision: String,
    /// The full commit id; empty for files that are not committed, and for the cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) commit: String,
    /// The first line of the commit's message.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) subject: String,
}

impl Point {
    /// `9c1e2f7 More of it`, or what was asked for.
    pub(super) fn label(&self) -> String {
        match (self.commit.is_empty(), self.subject.is_empty()) {
            (true, _) => self.revision.clone(),
            (false, true) => seven(&self.commit).to_owned(),
            (false, false) => format!("{} {}", seven(&self.commit), self.subject),
        }
    }
}

/// What a release recorded: what its commit's files hold.
pub(super) struct Record {
    /// The full commit id.
    pub(super) commit: String,
    /// The objects, each with the file and the line where it begins.
    pub(super) objects: Vec<(String, u32, Key, Manifest)>,
}

/// Reads and renders revisions of one repository, and remembers what they have in common.
pub(super) struct Reader {
    mirrors: Mirrors,
    cache: Cache,
}

impl Reader {
    pub(super) fn new(cx: &Context) -> Result<Reader, Failure> {
        Ok(Reader { mirrors: mirrors(cx)?, cache: Cache::default() })
    }

    /// Learns from a release that the server rendered with the same options what the files of its commit hold, if the commit is here.
    /// Those files are not read then. Gives which they are.
    fn learn(&mut self, request: &Request, options: &Options, record: &Record) -> Option<Tree> {
        let mut names = self.mirrors.names_at(request, &record.commit)?;
        let mut files: BTreeMap<&str, Vec<(u32, Key, Manifest)>> = BTreeMap::new();
        for (file, line, key, manifest) in &record.objects {
            files.entry(file).or_default().push((*line, key.clone(), manifest.clone()));
        }
        let (mut recorded, mut rest) = (Vec::new(), Vec::new());
        for (path, entry) in &names.entries {
            let Entry::File { blob, .. } = entry else { continue };
            let json = path.to_ascii_lowercase().ends_with(".json");
            match files.remove(path.as_str()) {
                Some(objects) => recorded.push(Recorded { blob: blob.clone(), json, objects }),
                None => rest.push((blob.clone(), json)),
            }
        }
        // An object of a file that the commit does not have: this is not its record.
        if !files.is_empty() {
            return None;
        }
        self.cache = Cache::recorded(options, recorded, rest);
        let cache = &self.cache;
        names.entries.retain(|_, entry| matches!(entry, Entry::File { blob, .. } if !cache.defines(blob)));
        Some(names)
    }

    /// Reads everything.
    fn afresh(&mut self, request: &Request) -> Result<Fetched, Failure> {
        self.mirrors.suppose(request, Tree::default());
        Ok(self.mirrors.fetch(request)?)
    }
}

/// A file that was not read.
fn left_out(entry: &Entry) -> bool {
    matches!(entry, Entry::File { content, .. } if content.is_empty())
}

/// A rendered revision.
pub(super) struct Wanting {
    pub(super) point: Point,
    pub(super) tree: Arc<Tree>,
    /// The objects, or why there are none.
    pub(super) result: Result<(Vec<Wanted>, String), Vec<Problem>>,
}

/// Reads and renders a revision. With a record, files that it knows are not rendered again.
pub(super) fn read(
    reader: &mut Reader,
    repo: &str,
    path: &str,
    revision: &str,
    options: &Options,
    record: Option<&Record>,
) -> Result<Wanting, Failure> {
    let request =
        Request { repository: repo.to_owned(), revision: revision.to_owned(), path: path.to_owned(), credentials: None };
    let known = record.and_then(|record| reader.learn(&request, options, record));
    let (point, tree) = if revision == WORKTREE {
        let Some(dir) = local_path(repo) else {
            return fail(format!("{repo} has no files here"), "WORKTREE takes a repository on this machine: --repo .");
        };
        let mut tree = read_dir(&inside(&dir, path)?)?;
        for entry in tree.entries.values_mut().filter(|_| known.is_some()) {
            if let Entry::File { content, blob } = entry {
                *blob = blob_id(content).unwrap_or_default();
            }
        }
        (Point { revision: WORKTREE.to_owned(), ..Point::default() }, Arc::new(tree))
    } else {
        let supposed = known.is_some();
        if let Some(known) = known {
            reader.mirrors.suppose(&request, known);
        }
        let mut fetched = reader.mirrors.fetch(&request)?;
        if supposed && !reader.cache.covers(&fetched.tree, options) {
            (fetched, reader.cache) = (reader.afresh(&request)?, Cache::default());
        }
        let revision = if revision.is_empty() { "HEAD" } else { revision };
        (Point { revision: revision.to_owned(), commit: fetched.commit, subject: fetched.subject }, fetched.tree)
    };
    let mut result = render_cached(&tree, options, &mut reader.cache);
    let mut tree = tree;
    if result.is_err() && revision != WORKTREE && tree.entries.values().any(left_out) {
        // People want to see the lines.
        (tree, reader.cache) = (reader.afresh(&request)?.tree, Cache::default());
        result = render_cached(&tree, options, &mut reader.cache);
    }
    let result = result.map(|rendered| {
        let wanted = rendered.objects.into_iter().map(|o| Wanted { key: o.key, value: o.value, origin: o.origin });
        (wanted.collect(), rendered.digest)
    });
    Ok(Wanting { point, tree, result })
}

/// A path below a directory that stays below it.
fn inside(dir: &Path, path: &str) -> Result<PathBuf, Failure> {
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return fail(format!("the path {path:?} leads out of the repository"), "give a path within it");
    }
    Ok(dir.join(path))
}

/// The repository that a person means, made absolute; the one around the current directory when none is named.
pub(super) fn named_or_around(repo: Option<&str>) -> Result<String, Failure> {
    match repo {
        // `.` may be any directory within a repository.
        Some(text) => match local_path(text).and_then(|p| around(&p)) {
            Some(found) => Ok(found.display().to_string()),
            None => repository(text),
        },
        None => match around(Path::new(".")) {
            Some(found) => Ok(found.display().to_string()),
            None => fail("there is no git repository around the current directory", "name one with --repo"),
        }
        .doing("find the repository"),
    }
}

/// A problem as the server keeps it.
pub(super) fn record(problem: &Problem) -> ProblemRecord {
    ProblemRecord {
        file: problem.origin.file.to_string(),
        line: problem.origin.line,
        column: problem.origin.column,
        message: problem.message.clone(),
        hint: problem.hint.clone(),
    }
}
