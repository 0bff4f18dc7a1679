//! Lets what is not new any more take less room in memory.
//!
//! Not here: how a text is packed (`object::text`), and what a start packs at once because it reads so much (`replay`).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Store;
use crate::object::{Object, Packer, Revision};

/// How long JSON stays as it was written at least.
const NEW_FOR: Duration = Duration::from_secs(5);
/// Fewer writes are not looked at: a small server has room, and need not know how to pack.
const PACKED_FROM: u64 = 4096;
/// So many are packed, in half a millisecond, before others may go on; and for how long they may. All of 50,000 pods take some seconds.
const PACKED_AT_ONCE: usize = 64;
const PACK_PAUSE: Duration = Duration::from_millis(2);

impl Store {
    /// Packs the JSON of versions that are not new any more, until `stop`. Most of what was written a few seconds ago is never read again, or
    /// was replaced.
    pub async fn pack(self, stop: CancellationToken) {
        let mut packer = Packer::default();
        let (mut packed, mut known) = (0, self.revision());
        let mut ticks = tokio::time::interval(NEW_FOR);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            while known - packed >= PACKED_FROM {
                let (old, reached) = self.written(packed, known);
                for some in old.chunks(PACKED_AT_ONCE) {
                    some.iter().for_each(|object| object.pack(&mut packer));
                    if stop.run_until_cancelled(tokio::time::sleep(PACK_PAUSE)).await.is_none() {
                        return;
                    }
                }
                packed = reached;
            }
            known = self.revision();
        }
    }

    /// Versions that were written after a revision and up to another one, of which some may be gone by now: all that exist, and of the
    /// past what is kept. Not too many at once; up to which revision these are.
    pub(super) fn written(&self, after: Revision, until: Revision) -> (Vec<Arc<Object>>, Revision) {
        const AT_ONCE: usize = 4096;
        let head = self.inner.head.lock();
        if let Ok(changes) = head.history.after(after) {
            let some = changes.take_while(|change| change.revision <= until).take(AT_ONCE);
            let some: Vec<Arc<Object>> = some.map(|change| change.object().clone()).collect();
            let reached = some.last().filter(|_| some.len() == AT_ONCE).map_or(until, |last| last.revision);
            return (some, reached);
        }
        let (view, floor) = (head.state.clone(), head.history.floor.min(until));
        drop(head);
        (view.all().filter(|object| object.revision > after && object.revision <= floor).cloned().collect(), floor)
    }
}
