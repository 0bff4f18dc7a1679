//! Reads git for the release loop: polls, watches local repositories, renders what is new, and rings.
//!
//! Each Application has a task that waits; what blocks (the network, the disk, the parser) runs on threads that may block, a few at a
//! time. What a commit leads to is decided elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use super::release::{Ask, Chart, Charts, Seen, Unread};
use crate::clock;
use crate::git::{self, FetchErrorKind, Mirrors};
use crate::object::Key;
use crate::render::{self, Cache};

/// How many repositories are read at the same time. A fetch is mostly waiting; rendering is not.
const AT_ONCE: usize = 4;
/// How soon after a failure one looks again; it doubles up to the Application's own interval.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// A repository in which something always moves is read no more often than this.
const BREATHE: Duration = Duration::from_millis(15);

/// What the loop and the tasks share.
struct Shared {
    mirrors: Mirrors,
    slots: Mutex<BTreeMap<Key, Slot>>,
    news: Mutex<Vec<Key>>,
    wake: Arc<Notify>,
    turns: Semaphore,
}

struct Slot {
    ask: Ask,
    seen: Option<Arc<Seen>>,
    /// Ends the task's wait: the question is another one, or the repository changed.
    kick: Arc<Notify>,
    task: AbortHandle,
}

/// Reads git on behalf of the release loop. Its tasks end when it is dropped.
pub struct Fetcher {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
}

impl Fetcher {
    /// A fetcher that keeps its repositories in these mirrors.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(mirrors: Mirrors) -> Self {
        let shared = Shared {
            mirrors,
            slots: Mutex::default(),
            news: Mutex::default(),
            wake: Arc::default(),
            turns: Semaphore::new(AT_ONCE),
        };
        Fetcher { shared: Arc::new(shared), runtime: tokio::runtime::Handle::current() }
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        for slot in self.shared.slots.lock().values() {
            slot.task.abort();
        }
    }
}

impl Charts for Fetcher {
    fn look(&mut self, application: &Key, ask: &Ask) {
        let mut slots = self.shared.slots.lock();
        if let Some(slot) = slots.get_mut(application) {
            if slot.ask != *ask {
                slot.ask = ask.clone();
                slot.kick.notify_one();
            }
            return;
        }
        let kick = Arc::new(Notify::new());
        let task = self.runtime.spawn(follow(self.shared.clone(), application.clone(), kick.clone())).abort_handle();
        slots.insert(application.clone(), Slot { ask: ask.clone(), seen: None, kick, task });
    }

    fn seen(&self, application: &Key) -> Option<Arc<Seen>> {
        self.shared.slots.lock().get(application)?.seen.clone()
    }

    fn news(&mut self) -> Vec<Key> {
        std::mem::take(&mut *self.shared.news.lock())
    }

    fn forget(&mut self, application: &Key) {
        if let Some(slot) = self.shared.slots.lock().remove(application) {
            slot.task.abort();
        }
    }

    fn wake(&self) -> Option<Arc<Notify>> {
        Some(self.shared.wake.clone())
    }
}

/// Follows one Application's source for as long as it is asked for.
async fn follow(shared: Arc<Shared>, key: Key, kick: Arc<Notify>) {
    let mut cache = Cache::default();
    let mut failures = 0u32;
    let mut watched: Option<(String, git::Watcher)> = None;
    loop {
        let Some((ask, before)) = shared.slots.lock().get(&key).map(|slot| (slot.ask.clone(), slot.seen.clone())) else {
            return;
        };
        watched = watch(watched, &ask.request.repository, &kick);
        let begun = tokio::time::Instant::now();
        let (seen, used) = read(&shared, ask.clone(), before.clone(), cache).await;
        cache = used;
        tracing::trace!(application = %key, us = begun.elapsed().as_micros(), commit = seen.commit(), "read");
        failures = if seen.outcome.is_ok() { 0 } else { failures + 1 };
        let stays = before.as_ref().is_some_and(|before| same_failure(before, &seen));
        let news = before.is_none_or(|before| differs(&before, &seen));
        {
            let mut slots = shared.slots.lock();
            let Some(slot) = slots.get_mut(&key) else { return };
            // The first words of a failure that stays are kept: whoever looks meanwhile has nothing to write.
            if !stays {
                slot.seen = Some(Arc::new(seen));
            }
        }
        if news {
            shared.news.lock().push(key.clone());
            shared.wake.notify_one();
        }
        tokio::select! {
            () = kick.notified() => tokio::time::sleep_until(begun + BREATHE).await,
            () = tokio::time::sleep(pause(&ask, failures)) => {}
        }
    }
}

/// How long to wait before the next look. Spread by a tenth, so that a hundred Applications do not ask one host in the same moment.
fn pause(ask: &Ask, failures: u32) -> Duration {
    let interval = Duration::try_from(ask.interval).unwrap_or(Duration::from_secs(60));
    let wait = if failures == 0 { interval } else { (AFTER_FAILURE * 2u32.pow(failures.min(10) - 1)).min(interval) };
    let dice = getrandom::u32().unwrap_or(u32::MAX / 2);
    wait.mul_f64(0.9 + 0.2 * f64::from(dice) / f64::from(u32::MAX))
}

/// Watches a repository that is on this machine.
fn watch(watched: Option<(String, git::Watcher)>, repository: &str, kick: &Arc<Notify>) -> Option<(String, git::Watcher)> {
    if watched.as_ref().is_some_and(|(path, _)| path == repository) {
        return watched;
    }
    let path = git::local_path(repository)?;
    let kick = kick.clone();
    match git::watch_local(&path, move || kick.notify_one()) {
        Ok(watcher) => Some((repository.to_owned(), watcher)),
        Err(error) => {
            // Polling still finds every commit, only later; the next look tries to watch again.
            tracing::debug!(repository, %error, "cannot watch a local repository");
            None
        }
    }
}

/// Whether the loop wants to know: another commit, another problem, another question answered. The time alone is no news.
fn differs(before: &Seen, now: &Seen) -> bool {
    let outcome = match (&before.outcome, &now.outcome) {
        (Ok(a), Ok(b)) => a.commit != b.commit,
        (Err(_), Err(_)) => !same_failure(before, now),
        _ => true,
    };
    outcome || before.ask != now.ask
}

/// Whether the same question failed in the same way. The words may differ each time: an address, a duration, whoever answered.
fn same_failure(before: &Seen, now: &Seen) -> bool {
    let kinds = before.outcome.as_ref().err().zip(now.outcome.as_ref().err()).map(|(a, b)| a.kind == b.kind);
    kinds == Some(true) && before.ask == now.ask
}

async fn read(shared: &Arc<Shared>, ask: Ask, before: Option<Arc<Seen>>, cache: Cache) -> (Seen, Cache) {
    let _turn = shared.turns.acquire().await;
    let mirrors = shared.clone();
    let asked = ask.clone();
    let done = tokio::task::spawn_blocking(move || look(&mirrors.mirrors, ask, before, cache)).await;
    done.unwrap_or_else(|panic| {
        let message = format!("read {}: this program made a mistake: {panic}", asked.request.repository);
        let outcome = Err(Unread { kind: FetchErrorKind::Local, message });
        (Seen { ask: asked, at: clock::now(), outcome }, Cache::default())
    })
}

/// Fetches and renders. Blocks.
fn look(mirrors: &Mirrors, ask: Ask, before: Option<Arc<Seen>>, mut cache: Cache) -> (Seen, Cache) {
    let at = clock::now();
    let outcome = match mirrors.fetch(&ask.request) {
        Err(error) => Err(Unread { kind: error.kind, message: error.sentence() }),
        Ok(fetched) => {
            let same = before.filter(|b| {
                let asked = &b.ask;
                asked.request == ask.request && asked.namespace == ask.namespace && asked.kinds == ask.kinds
            });
            let known = same.as_ref().and_then(|b| b.outcome.as_ref().ok()).filter(|chart| chart.commit == fetched.commit);
            let rendered = match known {
                Some(chart) => chart.rendered.clone(),
                None => render::render_cached(
                    &fetched.tree,
                    &render::Options { namespace: ask.namespace.clone(), kinds: ask.kinds.clone() },
                    &mut cache,
                ),
            };
            let git::Fetched { commit, subject, author, trailers, .. } = fetched;
            Ok(Chart { commit, subject, author, trailers, rendered })
        }
    };
    (Seen { ask, at, outcome }, cache)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;
    use crate::control::release::ReleaseLoop;
    use crate::control::{Loop, drive};
    use crate::object::admit::{self, Stamp};
    use crate::object::ours::{Application, SYSTEM_NAMESPACE, Sync};
    use crate::object::{Kind, kind_of};
    use crate::store::{Store, Txn};

    #[test]
    fn wk7_a_failure_that_stays_is_no_news_however_it_is_worded() {
        let failed = |kind, message: &str, nonce: &str| Seen {
            ask: Ask { nonce: nonce.to_owned(), ..Ask::default() },
            at: clock::now(),
            outcome: Err(Unread { kind, message: message.to_owned() }),
        };
        let first = failed(FetchErrorKind::Unreachable, "timed out after 30.1 s", "");
        for (now, news) in [
            (failed(FetchErrorKind::Unreachable, "timed out after 30.2 s", ""), false),
            (failed(FetchErrorKind::Unreachable, "timed out after 30.2 s", "asked anew"), true),
            (failed(FetchErrorKind::Denied, "denied", ""), true),
        ] {
            assert_eq!((differs(&first, &now), !same_failure(&first, &now)), (news, news));
        }
    }

    fn commit(repository: &git2::Repository, file: &str, text: &str) -> String {
        let workdir = repository.workdir().unwrap();
        std::fs::write(workdir.join(file), text).unwrap();
        let mut index = repository.index().unwrap();
        index.add_path(Path::new(file)).unwrap();
        index.write().unwrap();
        let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
        let author = git2::Signature::now("somebody", "somebody@example.org").unwrap();
        let parent = repository.head().ok().and_then(|h| h.peel_to_commit().ok());
        let parents: Vec<_> = parent.iter().collect();
        repository.commit(Some("HEAD"), &author, &author, "a change", &tree, &parents).unwrap().to_string()
    }

    fn create(store: &Store, uid: &str, value: serde_json::Value) {
        let stamp = Stamp { uid: uid.to_owned(), now: clock::now() };
        let draft = admit::create(Kind::of_value(&value).unwrap(), value, &stamp).unwrap();
        store.commit(Txn::new().create(draft).clone()).unwrap();
    }

    /// Waits for the store to be as it should, for as long as a slow machine may need.
    async fn until(store: &Store, what: &str, so: impl Fn(&Store) -> bool) {
        let mut newest = store.newest();
        let done = async {
            while !so(store) {
                newest.changed().await.unwrap();
            }
        };
        let key = Key::of::<Application>(SYSTEM_NAMESPACE, "app");
        let done = tokio::time::timeout(Duration::from_secs(30), done).await;
        done.unwrap_or_else(|_| panic!("{what}: {}", store.get(&key).unwrap().value()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn gi9_a_push_to_a_local_repository_reaches_the_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let repository = git2::Repository::init(dir.path().join("work")).unwrap();
        let config =
            |value: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{key: \"{value}\"}}\n");
        commit(&repository, "all.yaml", &config("1"));
        let store = Store::memory();
        for name in ["default", SYSTEM_NAMESPACE] {
            create(&store, name, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
        }
        let path = dir.path().join("work");
        // An interval so long that only the watch can bring the news.
        let source = json!({"repository": path.to_str().unwrap(), "intervalSeconds": 3600});
        create(
            &store,
            "app",
            json!({
                "apiVersion": "portolan.dev/v1alpha1", "kind": "Application",
                "metadata": {"name": "app", "namespace": SYSTEM_NAMESPACE},
                "spec": {"source": source, "policy": {"soakSeconds": 0}},
            }),
        );
        let fetcher = Fetcher::new(Mirrors::open(&dir.path().join("mirrors")).unwrap());
        let loops: Vec<Box<dyn Loop>> = vec![Box::new(ReleaseLoop::new(Box::new(fetcher)))];
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let driver = tokio::spawn(drive(loops, store.clone(), async move { stopped.notified().await }));

        let says = |value: &'static str| {
            move |store: &Store| {
                let key = Key::of::<ConfigMap>("default", "settings");
                store.get(&key).is_some_and(|o| o.value()["data"]["key"] == value)
            }
        };
        let status = |store: &Store| {
            let key = Key::new(kind_of::<Application>(), SYSTEM_NAMESPACE, "app");
            store.get(&key).unwrap().typed::<Application>().unwrap().status.clone().unwrap_or_default()
        };
        until(&store, "the first commit", says("1")).await;
        let second = commit(&repository, "all.yaml", &config("2"));
        until(&store, "the second commit", says("2")).await;
        until(&store, "its verdict", |s| status(s).sync == Sync::Synced && status(s).observed_commit == second).await;
        commit(&repository, "all.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndatta: {}\n");
        until(&store, "the refusal", |s| status(s).sync == Sync::Invalid && status(s).problems.len() == 1).await;
        stop.notify_one();
        driver.await.unwrap();
    }
}
