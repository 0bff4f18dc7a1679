//! Mirrors: one bare repository per remote one, holding only the newest commit of each revision that somebody asked for.
//!
//! A mirror is a cache. Whenever it cannot be used it is thrown away and fetched again; what has to outlive it (the objects of a release)
//! is in the store. Local repositories need no mirror: they are read where they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{
    AutotagOption, Commit, Direction, FetchOptions, Oid, RemoteCallbacks, Repository, RepositoryInitOptions, RepositoryOpenFlags,
};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::address::{Address, check_revision, parse};
use super::error::{FetchError, FetchErrorKind, clean};
use super::read::{Depth, Directories, read_commit};
use super::transport::{Connection, prepare, ticket};
use super::{Fetched, Request};
use crate::object::source::Tree;

/// Each fetch adds a pack, and libgit2 does not merge them. A mirror with more is fetched afresh, which costs one shallow fetch.
const MOST_PACKS: usize = 100;
/// Trees that are kept in memory so that a new commit costs only the files that it changed. More Applications than this share poorly.
const MOST_TREES: usize = 1000;

/// The mirrors below one directory, one per repository.
pub struct Mirrors {
    dir: PathBuf,
    /// One lock per mirror: a repository is fetched by one thread at a time.
    locks: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    /// The last tree of each repository and path.
    trees: Mutex<BTreeMap<(String, String), Arc<Last>>>,
}

/// What was fetched last, and what the next commit is read from.
#[derive(Default)]
struct Last {
    fetched: Fetched,
    directories: Directories,
}

impl Mirrors {
    /// Uses a directory for mirrors; creates it where needed.
    ///
    /// # Errors
    /// `Local` when the directory cannot be made.
    pub fn open(dir: &Path) -> Result<Mirrors, FetchError> {
        prepare();
        let made = std::fs::create_dir_all(dir);
        made.map_err(|e| FetchError::new(FetchErrorKind::Local, format!("create {}", dir.display()), e))?;
        // ssh is told the paths of key files below it, from wherever it starts
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        Ok(Mirrors { dir, locks: Mutex::default(), trees: Mutex::default() })
    }

    /// Fetches and reads the newest commit of the request's revision. Blocks; the deadline is two minutes.
    ///
    /// # Errors
    /// See [`FetchErrorKind`]; nothing that was read before is lost.
    pub fn fetch(&self, request: &Request) -> Result<Fetched, FetchError> {
        check_revision(&request.revision)?;
        match parse(&request.repository)? {
            Address::Local(path) => {
                let repository = open_local(&path)?;
                let commit = resolve(&repository, &request.revision)?.id();
                self.read(&repository, commit, request)
            }
            address => {
                let lock = self.locks.lock().entry(request.repository.clone()).or_default().clone();
                let _alone = lock.lock();
                match self.fetch_remote(&address, request) {
                    // A mirror that cannot be used is no reason to give up: the remote side has everything.
                    Err(e) if e.kind == FetchErrorKind::Local => {
                        let dir = self.mirror_dir(request);
                        tracing::warn!(mirror = %dir.display(), error = %e.sentence(), "the mirror is unusable and is fetched afresh");
                        let _ = std::fs::remove_dir_all(&dir);
                        self.fetch_remote(&address, request)
                    }
                    done => done,
                }
            }
        }
    }

    /// Reads a revision from what is already here, without asking the remote side.
    ///
    /// # Errors
    /// `NoSuchRevision` when it is not here.
    pub fn read_at(&self, request: &Request, revision: &str) -> Result<Fetched, FetchError> {
        check_revision(revision)?;
        let repository = match parse(&request.repository)? {
            Address::Local(path) => open_local(&path)?,
            _ => open_mirror(&self.mirror_dir(request))?,
        };
        let commit = resolve(&repository, revision)?.id();
        self.read(&repository, commit, request)
    }

    /// The names and blobs of the files that a commit has, if it is here: contents are empty. The remote side is not asked.
    pub fn names_at(&self, request: &Request, commit: &str) -> Option<Tree> {
        let repository = match parse(&request.repository).ok()? {
            Address::Local(path) => open_local(&path).ok()?,
            _ => Repository::open_bare(self.mirror_dir(request)).ok()?,
        };
        let id = repository.find_commit(Oid::from_str(commit).ok()?).ok()?.id();
        let before = (&Tree::default(), &Directories::new());
        read_commit(&repository, id, &request.path, before, Depth::Names).ok().map(|(tree, _)| tree)
    }

    /// Lets the next look at this repository and path take blobs of a tree for known. Of what it takes from there the contents are those
    /// that the tree has.
    pub fn suppose(&self, request: &Request, tree: Tree) {
        let place = (request.repository.clone(), request.path.clone());
        let last = Last { fetched: Fetched { tree: Arc::new(tree), ..Fetched::default() }, ..Last::default() };
        self.trees.lock().insert(place, Arc::new(last));
    }

    fn mirror_dir(&self, request: &Request) -> PathBuf {
        self.dir.join(format!("{}.git", short_hash(&request.repository)))
    }

    fn fetch_remote(&self, address: &Address, request: &Request) -> Result<Fetched, FetchError> {
        let dir = self.mirror_dir(request);
        if packs(&dir) > MOST_PACKS {
            let _ = std::fs::remove_dir_all(&dir);
        }
        let repository = open_mirror(&dir)?;
        let credentials = request.credentials.clone().unwrap_or_default();
        let connection = Connection::new(address.clone(), credentials, self.dir.join("keys"));
        let commit = download(&repository, &connection, &request.revision)?;
        self.read(&repository, commit, request)
    }

    fn read(&self, repository: &Repository, commit: Oid, request: &Request) -> Result<Fetched, FetchError> {
        let place = (request.repository.clone(), request.path.clone());
        let last = self.trees.lock().get(&place).cloned().unwrap_or_default();
        if last.fetched.commit == commit.to_string() {
            return Ok(last.fetched.clone());
        }
        let before = (&*last.fetched.tree, &last.directories);
        let (tree, directories) = read_commit(repository, commit, &request.path, before, Depth::Contents)?;
        let found =
            repository.find_commit(commit).map_err(|e| FetchError::new(FetchErrorKind::Local, "read the commit", e.message()))?;
        let fetched = describe(&found, tree);
        let mut trees = self.trees.lock();
        if trees.len() >= MOST_TREES {
            trees.clear();
        }
        trees.insert(place, Arc::new(Last { fetched: fetched.clone(), directories }));
        Ok(fetched)
    }
}

/// A commit's words, made fit to be shown.
fn describe(commit: &Commit<'_>, tree: Tree) -> Fetched {
    let author = commit.author();
    let name = String::from_utf8_lossy(author.name_bytes()).into_owned();
    let address = String::from_utf8_lossy(author.email_bytes()).into_owned();
    let message: Vec<u8> = commit.message_bytes().iter().copied().filter(|b| *b != 0).take(64 << 10).collect();
    let trailers = git2::message_trailers_bytes(message).map(|t| {
        let text = |b: &[u8]| clean(&String::from_utf8_lossy(b));
        t.iter().map(|(name, value)| (text(name), text(value))).collect()
    });
    Fetched {
        commit: commit.id().to_string(),
        subject: clean(&String::from_utf8_lossy(commit.summary_bytes().unwrap_or_default())),
        author: clean(&format!("{name} <{address}>")),
        trailers: trailers.unwrap_or_default(),
        tree: Arc::new(tree),
    }
}

fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(12).map(|b| format!("{b:02x}")).collect()
}

fn packs(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("objects/pack"))
        .map_or(0, |entries| entries.filter_map(Result::ok).filter(|e| e.path().extension().is_some_and(|x| x == "pack")).count())
}

fn open_mirror(dir: &Path) -> Result<Repository, FetchError> {
    if let Ok(repository) = Repository::open_ext(dir, RepositoryOpenFlags::NO_SEARCH | RepositoryOpenFlags::BARE, None::<&str>) {
        return Ok(repository);
    }
    let failed = |e: String| FetchError::new(FetchErrorKind::Local, format!("create the mirror {}", dir.display()), e);
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(|e| failed(e.to_string()))?;
    }
    let mut options = RepositoryInitOptions::new();
    options.bare(true).mkpath(true).external_template(false);
    Repository::init_opts(dir, &options).map_err(|e| failed(e.message().to_owned()))
}

pub(super) fn open_local(path: &Path) -> Result<Repository, FetchError> {
    prepare();
    let attempt = format!("open the repository {}", path.display());
    Repository::open_ext(path, RepositoryOpenFlags::NO_SEARCH, None::<&str>).map_err(|e| {
        if path.is_dir() && e.code() != git2::ErrorCode::NotFound {
            return FetchError::new(FetchErrorKind::Local, attempt, e.message());
        }
        let why = if path.is_dir() { "the directory is not a git repository" } else { "there is no such directory" };
        FetchError::new(FetchErrorKind::NoSuchRepository, attempt, why)
    })
}

/// The commit that a revision names in a repository on this machine.
///
/// # Errors
/// When there is no repository, or no such revision in it.
pub fn commit_of(path: &Path, revision: &str) -> Result<String, FetchError> {
    check_revision(revision)?;
    let repository = open_local(path)?;
    Ok(resolve(&repository, revision)?.id().to_string())
}

/// Whether one commit is among the ancestors of another; `None` when the repository does not have both.
pub fn descends(path: &Path, older: &str, newer: &str) -> Option<bool> {
    let repository = open_local(path).ok()?;
    let id = |text: &str| repository.find_object_by_prefix(text, None).ok()?.peel_to_commit().ok().map(|c| c.id());
    let (older, newer) = (id(older)?, id(newer)?);
    repository.graph_descendant_of(newer, older).ok()
}

/// Finds the commit that a revision names in a repository on this machine: branch, tag, remote-tracking branch, commit id, and any of
/// them followed by `~N` or `^N`.
fn resolve<'r>(repository: &'r Repository, revision: &str) -> Result<Commit<'r>, FetchError> {
    let missing =
        |why: &str| FetchError::new(FetchErrorKind::NoSuchRevision, format!("look up the revision {:?}", shown(revision)), why);
    let (base, steps) = revision.find(['~', '^']).map_or((revision, ""), |at| revision.split_at(at));
    let mut commit = if base.is_empty() || base == "HEAD" || base == "@" {
        let head = repository.head().map_err(|_| missing("the repository has no commit yet on its default branch"))?;
        head.peel_to_commit().map_err(|_| missing("HEAD is not a commit"))?
    } else {
        let names = [
            base.to_owned(),
            format!("refs/heads/{base}"),
            format!("refs/tags/{base}"),
            format!("refs/remotes/{base}"),
            format!("refs/portolan/{}", short_hash(base)),
        ];
        let named = names.iter().filter(|n| n.starts_with("refs/")).find_map(|name| repository.find_reference(name).ok());
        match named {
            Some(reference) => reference.peel_to_commit().map_err(|_| missing("it is not a commit"))?,
            None if base.len() >= 4 && base.len() <= 40 && base.bytes().all(|b| b.is_ascii_hexdigit()) => {
                let object = repository.find_object_by_prefix(&base.to_ascii_lowercase(), None).map_err(|e| {
                    missing(if e.code() == git2::ErrorCode::Ambiguous {
                        "several commits begin so"
                    } else {
                        "there is no such branch, tag or commit"
                    })
                })?;
                object.peel_to_commit().map_err(|_| missing("it is not a commit"))?
            }
            None => return Err(missing("there is no such branch, tag or commit").hint_branches(repository)),
        }
    };
    let mut rest = steps;
    while let Some(kind) = rest.chars().next() {
        let digits = rest[1..].chars().take_while(char::is_ascii_digit).count();
        let number: usize = if digits == 0 { 1 } else { rest[1..=digits].parse().map_err(|_| missing("too many steps back"))? };
        rest = &rest[1 + digits..];
        let no_parent = |_| missing("it has not so many ancestors here; a shallow clone has few");
        match kind {
            '~' => {
                for _ in 0..number {
                    commit = commit.parent(0).map_err(no_parent)?;
                }
            }
            '^' if number > 0 => commit = commit.parent(number - 1).map_err(no_parent)?,
            '^' => {}
            _ => return Err(missing("after `~` and `^` only numbers may follow")),
        }
    }
    Ok(commit)
}

fn shown(revision: &str) -> &str {
    if revision.is_empty() { "HEAD" } else { revision }
}

impl FetchError {
    fn hint_branches(self, repository: &Repository) -> Self {
        const A_FEW: usize = 5;
        let names = repository.branches(Some(git2::BranchType::Local)).map(|branches| {
            let names = branches.filter_map(|b| String::from_utf8(b.ok()?.0.name_bytes().ok()?.to_vec()).ok());
            names.take(A_FEW).map(|n| clean(&n)).collect::<Vec<_>>()
        });
        match names {
            Ok(names) if !names.is_empty() => self.hint(format!("branches here: {}", names.join(", "))),
            _ => self,
        }
    }
}

/// What to ask for when a commit cannot be asked for by its id.
const EVERYTHING: &str = "+refs/heads/*:refs/portolan/all/*";

/// One thing that the remote side offers.
struct Head {
    name: String,
    id: Oid,
}

/// Asks the remote side what the revision is, and fetches that commit unless it is here.
fn download(repository: &Repository, connection: &Arc<Connection>, revision: &str) -> Result<Oid, FetchError> {
    let ticket = ticket(connection);
    let reason = |e: git2::Error| connection.reason(&e);
    let mut remote = repository.remote_anonymous(&ticket.url).map_err(reason)?;
    remote.connect(Direction::Fetch).map_err(reason)?;
    let heads: Vec<Head> =
        remote.list().map_err(reason)?.iter().map(|h| Head { name: h.name().to_owned(), id: h.oid() }).collect();
    let named = |name: &str| heads.iter().find(|h| h.name == name);
    let missing = |why: &str| {
        let error = connection.error(FetchErrorKind::NoSuchRevision, format!("{:?}: {why}", shown(revision)));
        let branches: Vec<String> = heads.iter().filter_map(|h| h.name.strip_prefix("refs/heads/")).take(5).map(clean).collect();
        if branches.is_empty() { error } else { error.hint(format!("branches there: {}", branches.join(", "))) }
    };
    let base = if revision.is_empty() { "HEAD" } else { revision };
    let hex = base.len() >= 7 && base.len() <= 40 && base.bytes().all(|b| b.is_ascii_hexdigit());
    let candidates = [base.to_owned(), format!("refs/heads/{base}"), format!("refs/tags/{base}")];
    let found = candidates.iter().find_map(|name| named(name));
    // What to ask for, and the commit that it is where we know already. An annotated tag has its commit beside it as `name^{}`.
    let (want, expected) = match found {
        Some(head) => (head.name.clone(), named(&format!("{}^{{}}", head.name)).map_or(Some(head.id), |peeled| Some(peeled.id))),
        None if hex => {
            let lower = base.to_ascii_lowercase();
            let full = Oid::from_str_ext(&lower, git2::ObjectFormat::Sha1).ok().filter(|_| lower.len() == 40);
            let here = full.filter(|id| repository.find_commit(*id).is_ok());
            match (here, heads.iter().find(|h| h.id.to_string().starts_with(&lower))) {
                (Some(id), _) => return Ok(id),
                (None, Some(head)) => (head.name.clone(), Some(head.id)),
                (None, None) => (full.map_or_else(|| EVERYTHING.to_owned(), |id| id.to_string()), full),
            }
        }
        None if heads.is_empty() => return Err(missing("the repository has no commit yet")),
        None => return Err(missing("there is no such branch, tag or commit")),
    };
    let mark = format!("refs/portolan/{}", short_hash(base));
    let find = || match expected {
        Some(id) => repository.find_object(id, None).ok()?.peel_to_commit().ok(),
        None => repository.find_object_by_prefix(&base.to_ascii_lowercase(), None).ok()?.peel_to_commit().ok(),
    };
    // First only what is wanted; then, where a server does not hand out commits by id, every branch with its whole history.
    let mut attempts = vec![(EVERYTHING, i32::MAX)];
    if want != EVERYTHING {
        attempts.push((&want, 1));
    }
    let mut failed = None;
    while find().is_none()
        && let Some((spec, depth)) = attempts.pop()
    {
        if spec == EVERYTHING && found.is_some() {
            break; // a name that is offered and cannot be had is a failure to report, not to work around
        }
        let mut callbacks = RemoteCallbacks::new();
        callbacks.transfer_progress(|_| !connection.left().is_zero());
        let mut options = FetchOptions::new();
        options.remote_callbacks(callbacks).download_tags(AutotagOption::None).update_fetchhead(false).depth(depth);
        if !remote.connected() {
            remote.connect(Direction::Fetch).map_err(reason)?;
        }
        failed = remote.download(&[spec], Some(&mut options)).err().map(reason);
        let _ = remote.disconnect();
    }
    let _ = remote.disconnect();
    let commit = match (find(), failed) {
        (Some(commit), _) => commit,
        (None, Some(error)) => return Err(error),
        (None, None) => return Err(missing("there is no such branch, tag or commit")),
    };
    // The mark is what the next fetch tells the other side that we have. Its name is ours: a remote name never becomes a path here.
    let marked = repository.reference(&mark, commit.id(), true, "fetched");
    marked.map_err(|e| connection.error(FetchErrorKind::Local, e.message()))?;
    Ok(commit.id())
}
