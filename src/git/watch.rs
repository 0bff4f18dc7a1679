//! Notices that a local repository has new commits, by the files that git writes for them.
//!
//! A notification is a hint to look, no more: losing one costs the time until the next look.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};

use super::error::{FetchError, FetchErrorKind};
use super::mirror::open_local;

/// A push writes several files within a few milliseconds: one wake-up for the first, and one for all that follow within this time.
const QUIET: Duration = Duration::from_millis(20);

/// Watches the refs of a local repository; stops when dropped.
pub struct Watcher {
    _inner: notify::RecommendedWatcher,
}

/// Calls `wake` soon after a ref of a local repository changed. A hint to look, no more.
///
/// # Errors
/// When there is no such repository, or the machine has no watches left; then looking now and then must do.
pub fn watch_local(path: &Path, wake: impl Fn() + Send + 'static) -> Result<Watcher, FetchError> {
    let repository = open_local(path)?;
    // A linked work tree has its own HEAD and shares the refs of its repository.
    let own: PathBuf = repository.path().to_owned();
    let shared: PathBuf = repository.commondir().to_owned();
    let failed = |e: notify::Error| FetchError::new(FetchErrorKind::Local, format!("watch {}", path.display()), e);
    let (send, receive) = channel::<()>();
    let refs = shared.join("refs");
    let heads = [own.join("HEAD"), shared.join("HEAD"), shared.join("packed-refs")];
    let mut inner = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let matters = match &event {
            Ok(event) if event.kind.is_access() => false,
            Ok(event) => event
                .paths
                .iter()
                .any(|p| p.extension().is_none_or(|x| x != "lock") && (p.starts_with(&refs) || heads.iter().any(|h| h == p))),
            // The queue overflowed: anything may have happened.
            Err(_) => true,
        };
        if matches!(&event, Ok(e) if e.need_rescan()) || matters {
            let _ = send.send(());
        }
    })
    .map_err(failed)?;
    inner.watch(&shared.join("refs"), RecursiveMode::Recursive).map_err(failed)?;
    inner.watch(&shared, RecursiveMode::NonRecursive).map_err(failed)?;
    if own != shared {
        inner.watch(&own, RecursiveMode::NonRecursive).map_err(failed)?;
    }
    std::thread::Builder::new()
        .name("git-watch".into())
        .spawn(move || {
            // At once for the first: git writes objects before the ref that names them, so what a ref names can be read.
            while receive.recv().is_ok() {
                tracing::trace!("a ref changed");
                wake();
                std::thread::sleep(QUIET);
                let mut more = false;
                while receive.try_recv().is_ok() {
                    more = true;
                }
                if more {
                    wake();
                }
            }
        })
        .map_err(|e| FetchError::new(FetchErrorKind::Local, format!("watch {}", path.display()), e))?;
    Ok(Watcher { _inner: inner })
}
