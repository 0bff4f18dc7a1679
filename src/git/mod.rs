//! Bare mirrors of git repositories, and the trees of files in them.
//!
//! Sources are local paths, `https://` and ssh. There is never a work tree, no hook runs, submodules are not fetched and symbolic links
//! are not followed; blobs are read by their ids. Everything here blocks: loops call it from a thread of its own.
//!
//! You will not find here: what the files mean (`render` knows), or when to look (`control` knows).

mod address;
mod error;
mod https;
mod mirror;
mod read;
mod ssh;
#[cfg(test)]
mod tests;
mod transport;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use crate::object::source::Tree;

pub use error::{FetchError, FetchErrorKind};
pub use mirror::{Mirrors, commit_of, descends};
pub use read::read_dir;
pub use watch::{Watcher, watch_local};

/// What to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    /// A local path, `https://…`, `ssh://…` or `user@host:path`.
    pub repository: String,
    /// A branch, tag or commit; `HEAD` when empty.
    pub revision: String,
    /// The directory within the repository; its root when empty.
    pub path: String,
    /// For remote repositories that ask for them.
    pub credentials: Option<Credentials>,
}

/// What a remote repository asks for. Never printed: `Debug` says only which kinds are present.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Credentials {
    /// For https.
    pub username: String,
    /// For https: a password or token.
    pub password: String,
    /// For ssh: an OpenSSH private key. Empty: the agent's and user's own keys.
    pub ssh_private_key: String,
    /// For ssh: lines of a `known_hosts` file. Empty: the user's and system's own.
    pub known_hosts: String,
    /// For https: certificates (PEM) to trust beside the system's.
    pub ca: String,
}

impl Credentials {
    /// Credentials from the data of a Secret: `username`, `password`, `ssh-privatekey`, `known_hosts`, `ca.crt`.
    pub fn from_secret<'a>(get: impl Fn(&str) -> Option<&'a [u8]>) -> Self {
        let text = |name: &str| get(name).map(|b| String::from_utf8_lossy(b).into_owned()).unwrap_or_default();
        Credentials {
            username: text("username"),
            password: text("password"),
            ssh_private_key: text("ssh-privatekey"),
            known_hosts: text("known_hosts"),
            ca: text("ca.crt"),
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let has = |s: &String| if s.is_empty() { "none" } else { "set" };
        write!(f, "Credentials {{ password: {}, ssh key: {} }}", has(&self.password), has(&self.ssh_private_key))
    }
}

/// One commit's files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fetched {
    /// The full commit id.
    pub commit: String,
    /// The first line of its message, control characters removed.
    pub subject: String,
    /// `Name <address>`, control characters removed.
    pub author: String,
    /// The trailers of its message, in order: `("Portolan-Retry", "shop")`.
    pub trailers: Vec<(String, String)>,
    /// The files below the request's path. Shared with what the mirror remembers.
    pub tree: Arc<Tree>,
}

impl Fetched {
    /// The values of one trailer; names compare without case.
    pub fn trailer<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.trailers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// The id that git gives to a file's content.
pub fn blob_id(content: &[u8]) -> Option<String> {
    git2::Oid::hash_object(git2::ObjectType::Blob, content).ok().map(|id| id.to_string())
}

/// Whether a repository is a path on this machine, so that [`watch_local`] can notice its changes.
pub fn local_path(repository: &str) -> Option<PathBuf> {
    match address::parse(repository) {
        Ok(address::Address::Local(path)) => Some(path),
        _ => None,
    }
}
