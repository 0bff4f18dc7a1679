//! Panics, counted: one in a task that nobody waits for fails no test by itself.

use std::cell::Cell;
use std::sync::Once;

thread_local! {
    static SEEN: Cell<usize> = const { Cell::new(0) };
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// How many panics there were in this thread since somebody first asked; a test on a runtime of one thread sees all of its own.
pub(super) fn in_this_thread() -> usize {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            SEEN.set(SEEN.get() + 1);
            if !QUIET.get() {
                before(panic);
            }
        }));
    });
    SEEN.get()
}

/// Runs something that is expected to panic, without a word about it.
pub(super) fn quietly<T>(run: impl FnOnce() -> T) -> T {
    in_this_thread();
    QUIET.set(true);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    QUIET.set(false);
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[tokio::test]
async fn a_panic_that_nobody_hears_is_counted() {
    let before = in_this_thread();
    let task = quietly(|| tokio::spawn(async { quietly(|| panic!("on purpose")) }));
    assert!(task.await.is_err());
    assert_eq!(in_this_thread(), before + 1);
}
