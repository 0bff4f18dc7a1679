//! Counts of what this process has done since it began, for `/metrics` and for tests that must not depend on how fast a machine is.
//!
//! Any room may count; nobody decides anything by a count. Not here: how long things took, and what there is now.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One count.
pub struct Count {
    /// As it is called in `/metrics`.
    pub name: &'static str,
    /// What is counted.
    pub help: &'static str,
    value: AtomicU64,
}

impl Count {
    const fn new(name: &'static str, help: &'static str) -> Count {
        Count { name, help, value: AtomicU64::new(0) }
    }
    /// So many more.
    pub fn add(&self, more: u64) {
        self.value.fetch_add(more, Relaxed);
    }
    /// How many by now.
    pub fn get(&self) -> u64 {
        self.value.load(Relaxed)
    }
}

/// Requests to the API.
pub static REQUESTS: Count = Count::new("portolan_requests_total", "Requests to the API.");
/// Versions of objects that were written, and ends of objects.
pub static WRITES: Count = Count::new("portolan_store_writes_total", "Writes of objects to the store.");
/// Objects whose JSON was read as a whole.
pub static DECODES: Count = Count::new("portolan_object_decodes_total", "Objects that were decoded as a whole.");
/// Comparisons of a node with what a class of pods asks for.
pub static EVALUATIONS: Count =
    Count::new("portolan_scheduler_evaluations_total", "Nodes that the scheduler compared with what a class of pods asks for.");

/// All counts.
pub static ALL: [&Count; 4] = [&REQUESTS, &WRITES, &DECODES, &EVALUATIONS];
