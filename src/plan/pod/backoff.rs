//! How long to wait before trying again.
//!
//! As the kubelet does it: the first restart is immediate, the next waits 10 s after the end, then 20, 40 … at most 300; whoever ran for
//! ten minutes starts from the beginning. Pulls wait 10 s after the first failure, and so on.

use jiff::{SignedDuration, Timestamp};

/// The first wait, in seconds.
pub const FIRST: u32 = 10;
/// The longest wait, in seconds.
pub const LONGEST: u32 = 300;
/// Running for so many seconds clears the record.
pub const GOOD_RUN: i64 = 600;

/// The wait before the restart after an end, from the wait before (`None`: it never ended before).
pub fn restart(before: Option<u32>, ran: SignedDuration) -> u32 {
    match before {
        None => 0,
        Some(_) if ran.as_secs() >= GOOD_RUN => 0,
        Some(0) => FIRST,
        Some(wait) => (wait * 2).min(LONGEST),
    }
}

/// The wait after so many failures in a row: `first`, doubled each time, at most `longest` seconds.
pub fn after(failures: u32, first: u32, longest: u32) -> SignedDuration {
    let wait = u64::from(first) << failures.saturating_sub(1).min(16);
    SignedDuration::from_secs(if failures == 0 { 0 } else { wait.min(u64::from(longest)) as i64 })
}

/// When it may be tried again after so many failures, the last of them at `at`.
pub fn due(failures: u32, at: Option<Timestamp>, first: u32, longest: u32) -> Option<Timestamp> {
    at.and_then(|at| at.checked_add(after(failures, first, longest)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ag8_crash_loop_lifetimes() {
        let series = |seconds: i64| {
            let mut before = None;
            (0..8)
                .map(|_| {
                    let wait = restart(before, SignedDuration::from_secs(seconds));
                    before = Some(wait);
                    wait.to_string()
                })
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(series(0), "0 10 20 40 80 160 300 300");
        assert_eq!(series(540), "0 10 20 40 80 160 300 300");
        assert_eq!(series(660), "0 0 0 0 0 0 0 0");
    }

    #[test]
    fn pulls() {
        let waits: Vec<i64> = (0..8).map(|n| after(n, FIRST, LONGEST).as_secs()).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(after(u32::MAX, 1, 60).as_secs(), 60);
    }
}
