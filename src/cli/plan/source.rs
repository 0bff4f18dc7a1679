//! What is wanted: a revision of a repository, or the files as they are, rendered.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::app::{mirrors, seven};
use crate::cli::serve::{around, repository};
use crate::cli::{Context, Explain, Failure, fail};
use crate::git::{Request, local_path, read_dir};
use crate::object::Key;
use crate::object::ours::ProblemRecord;
use crate::object::source::Tree;
use crate::plan::sync::Wanted;
use crate::render::{Options, Problem, render};

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

/// A rendered revision.
pub(super) struct Wanting {
    pub(super) point: Point,
    pub(super) tree: Tree,
    /// The objects, or why there are none.
    pub(super) result: Result<(Vec<Wanted>, String), Vec<Problem>>,
}

/// Reads and renders a revision.
pub(super) fn read(cx: &Context, repo: &str, path: &str, revision: &str, options: &Options) -> Result<Wanting, Failure> {
    let (point, tree) = if revision == WORKTREE {
        let Some(dir) = local_path(repo) else {
            return fail(format!("{repo} has no files here"), "WORKTREE takes a repository on this machine: --repo .");
        };
        (Point { revision: WORKTREE.to_owned(), ..Point::default() }, read_dir(&inside(&dir, path)?)?)
    } else {
        let request =
            Request { repository: repo.to_owned(), revision: revision.to_owned(), path: path.to_owned(), credentials: None };
        let fetched = mirrors(cx)?.fetch(&request)?;
        let revision = if revision.is_empty() { "HEAD" } else { revision };
        (Point { revision: revision.to_owned(), commit: fetched.commit, subject: fetched.subject }, fetched.tree)
    };
    let result = render(&tree, options).map(|rendered| {
        let wanted = rendered.objects.into_iter().map(|o| {
            let meta = &o.value["metadata"];
            let namespace = if o.kind.namespaced { meta["namespace"].as_str().unwrap_or_default() } else { "" };
            let key = Key::new(o.kind, namespace, meta["name"].as_str().unwrap_or_default());
            Wanted { key, value: o.value, origin: o.origin }
        });
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
