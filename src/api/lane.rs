//! Who is worked for now, who waits, and who is told to come back.
//!
//! Watches and streams are not counted: they last, and cost little while nothing happens.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::body::read;
use super::failure::Failure;

/// How many requests of a lane are worked on at once.
const AT_ONCE: usize = 400;
/// How many more may wait: a thousand hosts that all have something to say at once. Nothing is read of them yet but their headers, so one
/// costs a few kilobytes. A queue that nobody bounds would cost memory and help nobody.
const WAITING: usize = 10_000;
/// How many bytes of bodies are worked on at once: a tree can take thirty times the bytes that it was sent as. Small ones, as nearly all
/// are, never wait for that.
const BODIES: usize = 12 << 20;
/// How long a request waits before its client is told to come back, which is sooner than clients give up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests that share places.
pub(super) struct Lane {
    places: Semaphore,
    waiting: Semaphore,
    /// Kilobytes of bodies.
    bodies: Semaphore,
}

impl Default for Lane {
    fn default() -> Self {
        Lane { places: Semaphore::new(AT_ONCE), waiting: Semaphore::new(WAITING), bodies: Semaphore::new(BODIES / 1024) }
    }
}

impl Lane {
    /// A place, in the order of asking; 429 where there is none in time.
    pub(super) async fn enter(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.enter_within(PATIENCE).await
    }

    /// Reads a body, and waits for its turn to be worked on.
    pub(super) async fn body(&self, body: Body) -> Result<(Bytes, SemaphorePermit<'_>), Failure> {
        let bytes = read(body).await?;
        let kilobytes = (bytes.len() / 1024 + 1) as u32;
        let turn = self.bodies.acquire_many(kilobytes).await.map_err(|_| Failure::too_many())?;
        Ok((bytes, turn))
    }

    async fn enter_within(&self, patience: Duration) -> Result<SemaphorePermit<'_>, Failure> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        let _seat = self.waiting.try_acquire().map_err(|_| Failure::too_many())?;
        match tokio::time::timeout(patience, self.places.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(Failure::too_many()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_gets_a_place_or_an_answer() {
        let lane = Lane { places: Semaphore::new(1), waiting: Semaphore::new(1), ..Lane::default() };
        let first = lane.enter().await.unwrap_or_else(|_| panic!("there is a place"));
        let (second, third) =
            tokio::join!(lane.enter_within(Duration::from_millis(20)), lane.enter_within(Duration::from_millis(20)));
        // Both came while the place was taken: one waited in vain, for the other there was not even a seat.
        assert_eq!([second.err(), third.err()].map(|f| f.map(|f| f.code)), [Some(429), Some(429)]);
        let (_, second) = tokio::join!(async { drop(first) }, lane.enter());
        assert!(second.is_ok(), "the place was given on");
    }
}
