//! Records in fjall, a log-structured store in a directory of its own: the default engine.
//!
//! What is added to it here:
//! - a checksum in each record, over its name too, so that a flipped bit is found and named before anything is served;
//! - a note beside the log of how far it was synced. fjall cuts its journal at the first frame that it cannot read, which is right for a
//!   torn end and wrong for damage in the middle. With the note, a log that ends too early is an error instead of a loss;
//! - a lock against a second server on the same directory.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{Engine, EngineError, Group, Mark, Record, RecordId};
use crate::object::Revision;

/// The layout of records and of the mark, first byte of each. A store of another layout is refused.
const LAYOUT: u8 = 2;
/// Bytes before a record's JSON: layout, deleted, its place in its transaction, of how many, checksum.
const HEADER: usize = 1 + 1 + 4 + 4 + 8;
/// The mark: layout, revision, reserved, floor, live, digest, checksum.
const MARK: usize = 1 + 8 * 4 + 16 + 8;
/// Memory for reading tables. Everything is read once, at the start.
const CACHE: u64 = 2 << 20;
/// Memory for what is not in a table yet. Small, because all objects are in the store's own memory already.
const MEMTABLE: u64 = 4 << 20;

/// The engine in a directory.
pub struct FjallEngine {
    // Fields are dropped in this order: the lock is given up last.
    records: Keyspace,
    marks: Keyspace,
    database: Database,
    /// How far the log was synced, for sure. Not synced itself: it may say less than is true, never more.
    note: File,
    noted: Revision,
    newest: Revision,
    _lock: File,
}

/// Opens the engine in a directory, which is made if it is not there. One process at a time can have it open.
pub fn open(directory: &Path) -> Result<Box<dyn Engine>, EngineError> {
    let at = |what: &str| format!("{what} {}", directory.display());
    std::fs::create_dir_all(directory).map_err(|e| EngineError::caused(at("make the store's directory"), e))?;
    let file = |name: &str| {
        let path = directory.join(name);
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| EngineError::caused(format!("open {}", path.display()), e))
    };
    let lock = file("lock")?;
    lock.try_lock().map_err(|e| match e {
        std::fs::TryLockError::WouldBlock => EngineError::new(at("have the store to ourselves: another process uses")),
        std::fs::TryLockError::Error(e) => EngineError::caused(at("lock"), e),
    })?;
    let note = file("synced")?;
    let path = directory.join("log");
    let attempt = || format!("read the store's log in {}", path.display());
    let opened = catch_unwind(AssertUnwindSafe(|| -> fjall::Result<_> {
        let database = Database::builder(&path)
            .cache_size(CACHE)
            .worker_threads(1)
            .max_journaling_size(64 << 20)
            .manual_journal_persist(true)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE);
        Ok((database.keyspace("records", options)?, database.keyspace("marks", options)?, database))
    }));
    let (records, marks, database) = match opened {
        Ok(Ok(parts)) => parts,
        Ok(Err(error)) => return Err(EngineError::caused(attempt(), error)),
        Err(_) => return Err(EngineError::new(format!("{}: it is damaged", attempt()))),
    };
    // The names of what was made must survive a power cut too.
    for directory in [Some(directory), directory.parent().filter(|p| !p.as_os_str().is_empty())].into_iter().flatten() {
        let synced = File::open(directory).and_then(|d| d.sync_all());
        synced.map_err(|e| EngineError::caused(format!("sync the directory {}", directory.display()), e))?;
    }
    Ok(Box::new(FjallEngine { records, marks, database, note, noted: 0, newest: 0, _lock: lock }))
}

/// Where the log of a store in this directory is: what a test damages, and what a person copies away.
pub fn log_of(directory: &Path) -> PathBuf {
    directory.join("log")
}

impl Engine for FjallEngine {
    fn mark(&mut self) -> Result<Option<Mark>, EngineError> {
        let mark = guarded(|| match self.marks.get("mark").map_err(unreadable)? {
            Some(bytes) => Ok(Some(decode_mark(&bytes)?)),
            None => Ok(None),
        })?;
        let end = mark.map_or(0, |m| m.revision);
        if let Some(noted) = self.read_note()?
            && noted > end
        {
            return Err(EngineError::new(format!(
                "read the store's log: it ends at revision {end}, but was on disk up to {noted}. Its end is damaged"
            )));
        }
        (self.noted, self.newest) = (end, end);
        Ok(mark)
    }

    fn records(&mut self, take: &mut dyn FnMut(Record)) -> Result<(), EngineError> {
        guarded(|| {
            for guard in self.records.iter() {
                let (key, value) = guard.into_inner().map_err(unreadable)?;
                take(decode(&key, &value)?);
            }
            Ok(())
        })
    }

    fn append(&mut self, group: &Group) -> Result<(), EngineError> {
        let mut batch = self.database.batch();
        for record in &group.records {
            batch.insert(&self.records, key_of(&record.id), encode(record));
        }
        for id in &group.remove {
            batch.remove(&self.records, key_of(id));
        }
        batch.insert(&self.marks, "mark", encode_mark(&group.mark));
        batch.commit().map_err(|e| EngineError::caused("append to the store's log", e))?;
        self.newest = group.mark.revision;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), EngineError> {
        self.database.persist(PersistMode::SyncData).map_err(|e| EngineError::caused("sync the store's log", e))?;
        if self.noted != self.newest {
            let digits = self.newest.to_be_bytes();
            let note = [digits, xxh3_64(&digits).to_be_bytes()].concat();
            self.note.write_all_at(&note, 0).map_err(|e| EngineError::caused("note how far the store's log is synced", e))?;
            self.noted = self.newest;
        }
        Ok(())
    }
}

impl FjallEngine {
    fn read_note(&self) -> Result<Option<Revision>, EngineError> {
        let mut note = [0; 16];
        match self.note.read_exact_at(&mut note, 0) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(EngineError::caused("read how far the store's log was synced", e)),
        }
        let (digits, sum) = note.split_at(8);
        if xxh3_64(digits).to_be_bytes() != sum {
            return Err(EngineError::new("read how far the store's log was synced: the file `synced` is damaged"));
        }
        Ok(Some(u64::from_be_bytes(digits.try_into().expect("eight bytes"))))
    }
}

/// Reads. What is damaged makes fjall panic in places.
fn guarded<T>(read: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(EngineError::new("read the store's log: it is damaged")))
}

fn unreadable(error: fjall::Error) -> EngineError {
    EngineError::caused("read the store's log", error)
}

/// Sorts by revision, then by path.
fn key_of(id: &RecordId) -> Vec<u8> {
    [&id.revision.to_be_bytes()[..], id.path.as_bytes()].concat()
}

fn checksum(key: &[u8], header: &[u8], json: &[u8]) -> [u8; 8] {
    let mut sum = Xxh3::new();
    sum.update(&(key.len() as u64).to_be_bytes());
    sum.update(key);
    sum.update(header);
    sum.update(json);
    sum.digest().to_be_bytes()
}

fn encode(record: &Record) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER + record.json.len());
    value.push(LAYOUT);
    value.push(u8::from(record.deleted));
    value.extend_from_slice(&record.nth.to_be_bytes());
    value.extend_from_slice(&record.of.to_be_bytes());
    let sum = checksum(&key_of(&record.id), &value, &record.json);
    value.extend_from_slice(&sum);
    value.extend_from_slice(&record.json);
    value
}

fn decode(key: &[u8], value: &[u8]) -> Result<Record, EngineError> {
    let name = || match key.split_at_checked(8) {
        Some((revision, path)) => format!(
            "{} of revision {}",
            String::from_utf8_lossy(path),
            u64::from_be_bytes(revision.try_into().expect("eight bytes"))
        ),
        None => "with a damaged name".to_owned(),
    };
    let damaged = || EngineError::new(format!("read the store's log: the record {} is damaged", name()));
    let (header, json) = value.split_at_checked(HEADER).ok_or_else(damaged)?;
    let (header, sum) = header.split_at(HEADER - 8);
    if checksum(key, header, json) != sum {
        return Err(damaged());
    }
    if header[0] != LAYOUT {
        return Err(EngineError::new(format!("read the store's log: its layout is {}, this program knows {LAYOUT}", header[0])));
    }
    let (revision, path) = key.split_at_checked(8).ok_or_else(damaged)?;
    Ok(Record {
        id: RecordId {
            revision: u64::from_be_bytes(revision.try_into().expect("eight bytes")),
            path: std::str::from_utf8(path).map_err(|_| damaged())?.into(),
        },
        nth: u32::from_be_bytes(header[2..6].try_into().expect("four bytes")),
        of: u32::from_be_bytes(header[6..10].try_into().expect("four bytes")),
        deleted: header[1] != 0,
        json: Bytes::copy_from_slice(json),
    })
}

fn encode_mark(mark: &Mark) -> Vec<u8> {
    let mut value = Vec::with_capacity(MARK);
    value.push(LAYOUT);
    for number in [mark.revision, mark.reserved, mark.floor, mark.live] {
        value.extend_from_slice(&number.to_be_bytes());
    }
    value.extend_from_slice(&mark.digest.to_be_bytes());
    value.extend_from_slice(&xxh3_64(&value).to_be_bytes());
    value
}

fn decode_mark(value: &[u8]) -> Result<Mark, EngineError> {
    let damaged = || EngineError::new("read the store's log: its mark is damaged");
    if value.len() != MARK {
        return Err(damaged());
    }
    let (content, sum) = value.split_at(MARK - 8);
    if xxh3_64(content).to_be_bytes() != sum || content[0] != LAYOUT {
        return Err(damaged());
    }
    let number = |at: usize| u64::from_be_bytes(content[at..at + 8].try_into().expect("eight bytes"));
    Ok(Mark {
        revision: number(1),
        reserved: number(9),
        floor: number(17),
        live: number(25),
        digest: u128::from_be_bytes(content[33..49].try_into().expect("sixteen bytes")),
    })
}
