//! What lasts longer than a request, and whether it still may: watches, sessions, tunnels.
//!
//! One look goes over all of them every few seconds. If each looked for itself, a thousand agents' watches would wake up two hundred and
//! fifty times a second with nothing to do, which was a sixth of what the server takes at rest.
//!
//! Not here: whether a credential is good (`authn`) and what it may do (`auth`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::Api;
use super::auth::Identity;

/// How often it is looked whether the credential of what is open is still good ([`Api::still_valid`]). That one was withdrawn is noticed
/// within five seconds (SE7); a second is left for the look itself.
const LOOK_EVERY: Duration = Duration::from_secs(4);
/// After so many answers others get a turn.
const AT_ONCE: usize = 64;

type Question = Arc<dyn Fn(&Api) -> bool + Send + Sync>;

/// All that is open.
#[derive(Default)]
pub(super) struct Lasting(Mutex<Open>);

#[derive(Default)]
struct Open {
    number: u64,
    all: BTreeMap<u64, (Question, CancellationToken)>,
    /// Whether somebody looks. Nobody does while nothing is open.
    looking: bool,
}

/// Something open, for as long as this is kept.
pub(super) struct Stay {
    api: Api,
    number: u64,
    over: CancellationToken,
}

impl Stay {
    /// Ready once it may no longer stay.
    pub(super) fn over(&self) -> WaitForCancellationFuture<'_> {
        self.over.cancelled()
    }
    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.api.inner.lasting.0.lock().all.remove(&self.number);
    }
}

impl Api {
    /// Asks again and again whether something `may` stay open. It was asked just now.
    pub(super) fn stay(&self, may: impl Fn(&Api) -> bool + Send + Sync + 'static) -> Stay {
        let over = CancellationToken::new();
        let mut open = self.inner.lasting.0.lock();
        open.number += 1;
        let number = open.number;
        open.all.insert(number, (Arc::new(may), over.clone()));
        if !std::mem::replace(&mut open.looking, true) {
            tokio::spawn(look(self.clone()));
        }
        Stay { api: self.clone(), number, over }
    }

    /// The same for what needs no more than a good credential.
    pub(super) fn stay_valid(&self, identity: &Identity) -> Stay {
        let identity = identity.clone();
        self.stay(move |api| api.still_valid(&identity))
    }
}

/// Looks until nothing is open any more, or the server stops: then everything ends by itself.
async fn look(api: Api) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = api.inner.stopping.cancelled() => return,
        }
        let all: Vec<_> = {
            let mut open = api.inner.lasting.0.lock();
            open.looking = !open.all.is_empty();
            open.all.values().cloned().collect()
        };
        if all.is_empty() {
            return;
        }
        for (at, (may, over)) in all.into_iter().enumerate() {
            if !may(&api) {
                over.cancel();
            }
            if at % AT_ONCE == AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
        }
    }
}
