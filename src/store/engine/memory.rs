//! A disk in memory that can lose power.
//!
//! It knows which groups were synced. [`Disk::crash`] gives the disk that a power cut would leave: everything synced, and as many of
//! the later groups as the caller's dice say, in order. For tests and for the simulated house.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Engine, EngineError, Group, Mark, Record, RecordId};

/// The disk: shared by the engine that writes to it and the test that pulls the plug.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

#[derive(Clone, Default)]
struct Platter {
    synced: State,
    /// Appended, but not synced.
    waiting: Vec<Group>,
    /// Counts appends and syncs.
    operations: u64,
    /// The operation that fails, with everything after it.
    fails_at: Option<u64>,
}

#[derive(Clone, Default)]
struct State {
    records: BTreeMap<RecordId, Record>,
    mark: Option<Mark>,
}

impl State {
    fn add(&mut self, group: &Group) {
        self.records.extend(group.records.iter().map(|r| (r.id.clone(), r.clone())));
        for id in &group.remove {
            self.records.remove(id);
        }
        self.mark = Some(group.mark);
    }
}

impl Disk {
    /// An empty disk.
    pub fn new() -> Self {
        Disk::default()
    }
    /// An engine that writes to this disk.
    pub fn engine(&self) -> Box<dyn Engine> {
        Box::new(MemoryEngine(self.clone()))
    }
    /// The disk after a power cut at this moment: what was synced, and the first `tail` groups of what was not.
    pub fn crash(&self, tail: usize) -> Disk {
        let platter = self.0.lock();
        let mut synced = platter.synced.clone();
        for group in platter.waiting.iter().take(tail) {
            synced.add(group);
        }
        Disk(Arc::new(Mutex::new(Platter { synced, ..Platter::default() })))
    }
    /// How many groups would be lost at most.
    pub fn unsynced(&self) -> usize {
        self.0.lock().waiting.len()
    }
    /// Lets the operation with this number fail, and all that follow. Appends and syncs are counted together, from 0.
    pub fn fail_at(&self, operation: u64) {
        self.0.lock().fails_at = Some(operation);
    }
    /// How many appends and syncs there were.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }
    /// Changes a record behind the store's back; false if there is no such record.
    pub fn tamper(&self, index: usize, change: impl FnOnce(&mut Record)) -> bool {
        self.0.lock().synced.records.values_mut().nth(index).map(change).is_some()
    }
    /// Loses a record behind the store's back; false if there is no such record.
    pub fn lose(&self, index: usize) -> bool {
        let mut platter = self.0.lock();
        let id = platter.synced.records.keys().nth(index).cloned();
        id.is_some_and(|id| platter.synced.records.remove(&id).is_some())
    }
    /// How many records are on the disk for sure.
    pub fn len(&self) -> usize {
        self.0.lock().synced.records.len()
    }
    /// Whether nothing is on the disk for sure.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

struct MemoryEngine(Disk);

impl MemoryEngine {
    fn operate(&self, attempt: &str, act: impl FnOnce(&mut Platter)) -> Result<(), EngineError> {
        let mut platter = self.0.0.lock();
        let number = platter.operations;
        platter.operations += 1;
        if platter.fails_at.is_some_and(|at| number >= at) {
            return Err(EngineError::caused(attempt, "the disk was told to fail"));
        }
        act(&mut platter);
        Ok(())
    }
}

impl Engine for MemoryEngine {
    fn mark(&mut self) -> Result<Option<Mark>, EngineError> {
        Ok(self.0.0.lock().synced.mark)
    }
    fn records(&mut self, take: &mut dyn FnMut(Record)) -> Result<(), EngineError> {
        let records: Vec<Record> = self.0.0.lock().synced.records.values().cloned().collect();
        records.into_iter().for_each(take);
        Ok(())
    }
    fn append(&mut self, group: &Group) -> Result<(), EngineError> {
        self.operate("append to the disk in memory", |p| p.waiting.push(group.clone()))
    }
    fn sync(&mut self) -> Result<(), EngineError> {
        self.operate("sync the disk in memory", |p| {
            for group in std::mem::take(&mut p.waiting) {
                p.synced.add(&group);
            }
        })
    }
}
