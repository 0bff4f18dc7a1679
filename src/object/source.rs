//! Where rendered objects come from: a tree of files at a commit, and the place in a file.
//!
//! A [`Tree`] is a value: paths and contents, already read. How it was fetched is the business of `git`; what the files mean is the
//! business of `render`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// The files below one path of a repository at one commit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    /// The full commit id; empty for files that were read from a plain directory.
    pub commit: String,
    /// Entries by path, relative to the Application's path, with `/` between parts.
    pub entries: BTreeMap<String, Entry>,
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A file's content, with its blob id where git knows one (a key for caches).
    File {
        /// The bytes of the file.
        content: Bytes,
        /// The git blob id; empty outside git.
        blob: String,
    },
    /// A file over the size limit: only its size is known, in bytes.
    TooLarge(u64),
    /// A symbolic link and its target. Never followed.
    Symlink(String),
    /// A submodule. Never fetched.
    Submodule,
}

/// A place in a file: where an object or a problem is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The path of the file within the tree.
    pub file: Arc<str>,
    /// The line, from 1; 0 where only the file is known.
    pub line: u32,
    /// The column, from 1; 0 where only the line is known.
    pub column: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        Ok(())
    }
}

/// Whether a file may hold manifests, by its name: what is worth reading. Hidden files and files in hidden directories may not.
pub fn may_be_manifest(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or(path);
    let ends = |suffix: &str| {
        last.len() > suffix.len() && last.as_bytes()[last.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
    };
    !path.split('/').any(|part| part.starts_with('.')) && [".yaml", ".yml", ".json"].into_iter().any(ends)
}
