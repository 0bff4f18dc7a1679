//! The double of git: answers later, or not at all while it is away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::author::{Author, Commit, Worth};
use super::world::ANNEX;
use crate::control::release::{Ask, Chart, Charts, Seen, Unread};
use crate::git::FetchErrorKind;
use crate::object::Key;
use crate::object::source::Tree;
use crate::render::{self, Rendered};

/// The repository, shared by its author, the server that asks, and the simulator that lets the answers arrive.
#[derive(Clone)]
pub(super) struct Git(Arc<Mutex<Repository>>);

struct Repository {
    author: Author,
    away: bool,
    asks: BTreeMap<Key, Ask>,
    answers: BTreeMap<Key, Arc<Seen>>,
    news: BTreeSet<Key>,
    /// Asked, and not answered yet.
    open: BTreeSet<Key>,
    digests: BTreeMap<String, String>,
}

impl Git {
    pub(super) fn new(author: Author) -> Self {
        Git(Arc::new(Mutex::new(Repository {
            author,
            away: false,
            asks: BTreeMap::new(),
            answers: BTreeMap::new(),
            news: BTreeSet::new(),
            open: BTreeSet::new(),
            digests: BTreeMap::new(),
        })))
    }

    pub(super) fn with_author<T>(&self, work: impl FnOnce(&mut Author) -> T) -> T {
        work(&mut self.0.lock().author)
    }

    pub(super) fn set_away(&self, away: bool) {
        self.0.lock().away = away;
    }

    pub(super) fn is_away(&self) -> bool {
        self.0.lock().away
    }

    /// A new server knows no answers.
    pub(super) fn restart(&self) {
        let mut git = self.0.lock();
        git.asks.clear();
        git.answers.clear();
        git.news.clear();
        git.open.clear();
    }

    /// Whether somebody waits for a first answer.
    pub(super) fn waiting(&self) -> bool {
        !self.0.lock().open.is_empty()
    }

    /// Lets every question be answered with the repository as it is now. Says whether there was one.
    pub(super) fn answer(&self, now: Timestamp) -> bool {
        let mut git = self.0.lock();
        let git = &mut *git;
        git.open.clear();
        for (key, ask) in &git.asks {
            let outcome = if git.away {
                Err(Unread { kind: FetchErrorKind::Unreachable, message: "the repository is away".to_owned() })
            } else {
                let commit = git.author.head();
                let rendered = render::render(&tree(commit, ask), &options(ask));
                if let Ok(rendered) = &rendered {
                    git.digests.insert(commit.id.clone(), rendered.digest.clone());
                }
                Ok(Chart {
                    commit: commit.id.clone(),
                    subject: commit.subject.clone(),
                    author: "somebody".to_owned(),
                    trailers: Vec::new(),
                    rendered,
                })
            };
            git.answers.insert(key.clone(), Arc::new(Seen { ask: ask.clone(), at: now, outcome }));
            git.news.insert(key.clone());
        }
        !git.asks.is_empty()
    }

    /// What the newest commit means.
    pub(super) fn head(&self) -> (String, Worth, Option<Rendered>) {
        let git = self.0.lock();
        let commit = git.author.head();
        let rendered = render::render(&commit.content.tree(&commit.id), &render::Options::default()).ok();
        (commit.id.clone(), commit.worth, rendered)
    }

    /// What the newest commit means for the second Application.
    pub(super) fn annex(&self) -> Option<Rendered> {
        let git = self.0.lock();
        render::render(&git.author.head().annex(), &render::Options::default()).ok()
    }

    /// Whether everything in a commit that will not run is in another one, just the same.
    pub(super) fn no_worse_than(&self, commit: &str, other: &str) -> bool {
        let git = self.0.lock();
        let content = |id: &str| git.author.find(id).map(|c| &c.content);
        content(commit).zip(content(other)).is_some_and(|(a, b)| a.no_worse_than(b))
    }

    /// What a commit is worth.
    pub(super) fn worth(&self, commit: &str) -> Option<Worth> {
        self.0.lock().author.find(commit).map(|c| c.worth)
    }
}

/// The files that an Application is made from.
fn tree(commit: &Commit, ask: &Ask) -> Tree {
    if ask.request.path == ANNEX { commit.annex() } else { commit.content.tree(&commit.id) }
}

fn options(ask: &Ask) -> render::Options {
    render::Options { namespace: ask.namespace.clone(), kinds: ask.kinds.clone() }
}

impl Charts for Git {
    fn look(&mut self, application: &Key, ask: &Ask) {
        let mut git = self.0.lock();
        if git.asks.get(application) != Some(ask) {
            git.asks.insert(application.clone(), ask.clone());
            git.open.insert(application.clone());
        }
    }
    fn seen(&self, application: &Key) -> Option<Arc<Seen>> {
        self.0.lock().answers.get(application).cloned()
    }
    fn news(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.0.lock().news).into_iter().collect()
    }
    fn forget(&mut self, application: &Key) {
        let mut git = self.0.lock();
        git.asks.remove(application);
        git.answers.remove(application);
    }
}
