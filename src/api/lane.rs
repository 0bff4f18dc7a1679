//! Who is worked for now, who waits, and who is told to come back.
//!
//! A body is received before its request takes a place: whoever sends slowly, or not at all, holds up only others who send as much.
//! Watches and streams are not counted: they last, and cost little while nothing happens.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::Body as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

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
/// What nearly all bodies are at most, by their own word: the status of a pod, a lease, an event.
const SMALL: u64 = 16 << 10;
/// How many small bodies are here and not worked on yet: together no more than 64 MiB.
const SMALL_ARRIVING: usize = 4096;
/// The same of large ones, and of those that do not say how long they are: together no more than 120 MiB.
const LARGE_ARRIVING: usize = 40;
/// How long a client may take to send a small body, and any other.
const SMALL_TIME: Duration = Duration::from_secs(10);
const LARGE_TIME: Duration = Duration::from_secs(60);
/// How long a request waits before its client is told to come back, which is sooner than clients give up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests that share places.
pub(super) struct Lane {
    places: Semaphore,
    waiting: Semaphore,
    small: Semaphore,
    large: Semaphore,
    /// Kilobytes of bodies.
    bodies: Semaphore,
    /// How long small bodies, and others, may take to come; how long a place is waited for.
    times: [Duration; 3],
}

/// What a request holds while it is worked on.
pub(super) struct Place<'a> {
    _place: SemaphorePermit<'a>,
    _body: Option<SemaphorePermit<'a>>,
}

impl Default for Lane {
    fn default() -> Self {
        Lane {
            places: Semaphore::new(AT_ONCE),
            waiting: Semaphore::new(WAITING),
            small: Semaphore::new(SMALL_ARRIVING),
            large: Semaphore::new(LARGE_ARRIVING),
            bodies: Semaphore::new(BODIES / 1024),
            times: [SMALL_TIME, LARGE_TIME, PATIENCE],
        }
    }
}

impl Lane {
    /// A place for a request without a body, in the order of asking; 429 where there is none in time.
    pub(super) async fn enter(&self) -> Result<Place<'_>, Failure> {
        let place = self.take(&self.places, Instant::now() + self.times[2]).await?;
        Ok(Place { _place: place, _body: None })
    }

    /// Receives a body, and then waits for a place. What waits counts as arriving, so that no more is in memory than that.
    pub(super) async fn receive(&self, body: Body) -> Result<(Bytes, Place<'_>), Failure> {
        if body.is_end_stream() {
            return Ok((Bytes::new(), self.enter().await?));
        }
        let small = body.size_hint().exact().is_some_and(|length| length <= SMALL);
        let (arriving, time) = if small { (&self.small, self.times[0]) } else { (&self.large, self.times[1]) };
        let seat = self.take(arriving, Instant::now() + self.times[2]).await?;
        let bytes = read(body, time).await?;
        let place = self.take(&self.places, Instant::now() + self.times[2]).await?;
        let kilobytes = (bytes.len() / 1024 + 1) as u32;
        let turn = self.bodies.acquire_many(kilobytes).await.map_err(|_| Failure::too_many())?;
        drop(seat);
        Ok((bytes, Place { _place: place, _body: Some(turn) }))
    }

    async fn take<'a>(&self, from: &'a Semaphore, until: Instant) -> Result<SemaphorePermit<'a>, Failure> {
        if let Ok(place) = from.try_acquire() {
            return Ok(place);
        }
        let _seat = self.waiting.try_acquire().map_err(|_| Failure::too_many())?;
        match tokio::time::timeout_at(until, from.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(Failure::too_many()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures_util::future::join_all;
    use hyper::body::{Frame, SizeHint};

    use super::*;

    /// A body that says how long it is and never comes.
    struct Slow(u64);

    impl hyper::body::Body for Slow {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0)
        }
    }

    async fn send(lane: &Lane, length: u64) -> u16 {
        lane.receive(Body::new(Slow(length))).await.err().map_or(0, |failure| failure.code)
    }

    #[tokio::test]
    async fn who_waits_gets_a_place_or_an_answer() {
        let patience = Duration::from_millis(200);
        let times = [SMALL_TIME, LARGE_TIME, patience];
        let lane = Lane { places: Semaphore::new(1), waiting: Semaphore::new(1), times, ..Lane::default() };
        let first = lane.enter().await.unwrap_or_else(|_| panic!("there is a place"));
        let (second, third) = tokio::join!(lane.enter(), lane.enter());
        // Both came while the place was taken: one waited in vain, for the other there was not even a seat.
        assert_eq!([second.err(), third.err()].map(|f| f.map(|f| f.code)), [Some(429), Some(429)]);
        let (_, second) = tokio::join!(async { drop(first) }, lane.enter());
        assert!(second.is_ok(), "the place was given on");
    }

    #[tokio::test]
    async fn slow_bodies_hold_no_place() {
        let [small, large, patience] = [600, 1200, 300].map(Duration::from_millis);
        let lane = Lane { times: [small, large, patience], ..Lane::default() };
        // Of each sort as many as may arrive, and as many again that wait for that.
        let many = |length: u64, count: usize| join_all((0..count * 2).map(|_| send(&lane, length)).collect::<Vec<_>>());
        let unhindered = async {
            tokio::task::yield_now().await;
            assert_eq!((lane.small.available_permits(), lane.large.available_permits()), (0, 0));
            assert_eq!(lane.places.available_permits(), AT_ONCE);
            assert!(lane.places.try_acquire().is_ok() && lane.enter().await.is_ok(), "who sends nothing waits for nobody");
        };
        let (large, small, ()) = tokio::join!(many(1 << 20, LARGE_ARRIVING), many(100, SMALL_ARRIVING), unhindered);
        // Each is told what was the matter: that its own body did not come, or that there were too many.
        let count = |codes: &[u16], code: u16| codes.iter().filter(|c| **c == code).count();
        assert_eq!((count(&large, 504), count(&large, 429)), (LARGE_ARRIVING, LARGE_ARRIVING));
        assert_eq!((count(&small, 504), count(&small, 429)), (SMALL_ARRIVING, SMALL_ARRIVING));
        // While large ones are stuck, small ones are received; and nothing is left of all that.
        let stuck = join_all((0..LARGE_ARRIVING).map(|_| send(&lane, 1 << 20)).collect::<Vec<_>>());
        let served = async { lane.receive(Body::from("{}")).await.is_ok_and(|(bytes, _)| bytes == "{}") };
        tokio::select! {
            biased;
            _ = stuck => panic!("they hang"),
            served = served => assert!(served),
        }
        assert_eq!((lane.small.available_permits(), lane.large.available_permits()), (SMALL_ARRIVING, LARGE_ARRIVING));
    }
}
