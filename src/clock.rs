//! The wall clock, for the edges only.
//!
//! Loops and planners are told the time. Only what drives them asks here.

use jiff::Timestamp;

/// The time now.
pub fn now() -> Timestamp {
    Timestamp::now()
}
