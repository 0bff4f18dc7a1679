//! What is left of a request's body when the answer is an error.
//!
//! Over HTTP/2, dropping a body that was not read resets the stream, and the reset may overtake the answer: the client would learn of a
//! broken stream and not of the 401. So before an error is sent, what is left is read and thrown away, within bounds.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::{Method, Request};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

/// How much is thrown away: more than a manifest has. Whoever sends more than that unasked may see a reset.
const MOST: usize = 4 * 1024 * 1024;
/// How long: a slow sender does not keep the request alive.
const LONGEST: Duration = Duration::from_secs(2);

/// A hold on a body that somebody else reads.
pub(super) struct Unread(Option<Arc<Mutex<Body>>>);

/// The same request, and a hold on its body.
pub(super) fn keep(request: Request<Body>) -> (Request<Body>, Unread) {
    // Requests without a body stay as they are: an upgrade needs its own.
    if matches!(*request.method(), Method::GET | Method::HEAD) || request.body().is_end_stream() {
        return (request, Unread(None));
    }
    let (parts, body) = request.into_parts();
    let shared = Arc::new(Mutex::new(body));
    (Request::from_parts(parts, Body::new(Shared(shared.clone()))), Unread(Some(shared)))
}

impl Unread {
    /// Reads what is left and throws it away.
    pub(super) async fn discard(self) {
        if let Some(body) = self.0 {
            let rest = Limited::new(Shared(body), MOST).collect();
            let _ = tokio::time::timeout(LONGEST, rest).await;
        }
    }
}

struct Shared(Arc<Mutex<Body>>);

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}
