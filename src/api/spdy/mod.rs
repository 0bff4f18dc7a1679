//! SPDY/3.1, the serving side, as far as Kubernetes clients use it: for exec, attach and port-forward, raw after an HTTP upgrade or inside a
//! WebSocket.
//!
//! A connection carries streams in both directions; the client opens them, each with a few headers that say what it is for. Windows are
//! not kept: no Kubernetes client does, and each direction is slowed down by not being read. What the streams mean is for `streams` to
//! say.

mod connection;
mod dictionary;
mod frame;
#[cfg(test)]
pub(super) mod tests;

pub(super) use connection::{Gone, Reader, Writer, link};
#[cfg(test)]
pub(super) use dictionary::DICTIONARY;
pub(super) use frame::{Frame, Headers};

/// The name in the `Upgrade` header.
pub(super) const PROTOCOL: &str = "SPDY/3.1";
