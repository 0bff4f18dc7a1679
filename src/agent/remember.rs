//! What the agent keeps on disk.
//!
//! ```text
//! <data-dir>/lock             held while an agent runs: two agents of one directory would fight
//! <data-dir>/identity/        who we are: node.json
//! <data-dir>/records/<uid>    one file per pod: the pod as last seen, what was learned, its tombstone
//! <data-dir>/pods/<uid>/      files of volumes, termination messages
//! ```
//!
//! A record with a tombstone is synced before anything is done about it. Other records survive a crash of the agent without that; what a
//! power cut takes of them is learned again from the server and from the engine.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::heart::{Record, Remembered};
use super::translate::is_safe_uid;

/// The agent's directory, held by this process alone.
pub(super) struct Home {
    dir: PathBuf,
    _lock: File,
}

impl Home {
    /// Opens it, and makes it when absent.
    pub(super) fn open(dir: &Path) -> Result<Home> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.with_context(|| format!("make {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| format!("resolve {}", dir.display()))?;
        for name in ["identity", "records", "pods"] {
            let path = dir.join(name);
            // Containers that run as other users have to be able to walk down to their volumes.
            let mode = if name == "pods" { 0o711 } else { 0o700 };
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&path)
                .with_context(|| format!("make {}", path.display()))?;
        }
        let path = dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => bail!("another agent runs with {}", dir.display()),
            Err(std::fs::TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {}", path.display())),
        }
        Ok(Home { dir, _lock: lock })
    }

    pub(super) fn identity(&self) -> PathBuf {
        self.dir.join("identity")
    }
    pub(super) fn pods(&self) -> PathBuf {
        self.dir.join("pods")
    }

    /// All records. One that cannot be read is left out with a warning: its pod is learned again from the server.
    pub(super) fn recall(&self) -> Result<Remembered> {
        let dir = self.dir.join("records");
        let mut remembered = Remembered::default();
        for entry in std::fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let path = entry.with_context(|| format!("read {}", dir.display()))?.path();
            if path.extension().is_some_and(|e| e == "new") {
                let _ = std::fs::remove_file(&path);
                continue;
            }
            let record =
                std::fs::read(&path).map_err(anyhow::Error::from).and_then(|b| Ok(serde_json::from_slice::<Record>(&b)?));
            match record {
                Ok(record) if path.file_name().is_some_and(|n| n == record.uid.as_str()) => remembered.records.push(record),
                Ok(_) => tracing::warn!(path = %path.display(), "a record under a wrong name"),
                Err(error) => tracing::warn!(path = %path.display(), %error, "a record that cannot be read"),
            }
        }
        Ok(remembered)
    }

    /// Keeps a record.
    pub(super) fn keep(&self, record: &Record) -> Result<()> {
        if !is_safe_uid(&record.uid) {
            bail!("a uid that is no file name: {:?}", record.uid);
        }
        let bytes = serde_json::to_vec(record).context("write a record")?;
        write_file(&self.dir.join("records"), &record.uid, &bytes, 0o600, record.tombstone.is_some())
    }

    /// Drops a record.
    pub(super) fn forget(&self, uid: &str) -> Result<()> {
        if !is_safe_uid(uid) {
            return Ok(());
        }
        let path = self.dir.join("records").join(uid);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Replaces a file as a whole; with `sync`, durably.
pub(super) fn write_file(dir: &Path, name: &str, bytes: &[u8], mode: u32, sync: bool) -> Result<()> {
    let path = dir.join(name);
    let fresh = dir.join(format!("{name}.new"));
    let written = (|| {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&fresh)?;
        file.write_all(bytes)?;
        if sync {
            file.sync_all()?;
        }
        std::fs::rename(&fresh, &path)?;
        if sync {
            File::open(dir)?.sync_all()?;
        }
        std::io::Result::Ok(())
    })();
    written.with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn records_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        assert!(Home::open(dir.path()).is_err(), "held");
        let record = Record { uid: "u-1".into(), tombstone: Some(Timestamp::UNIX_EPOCH), ..Record::default() };
        home.keep(&record).unwrap();
        home.keep(&Record { uid: "u-2".into(), ..Record::default() }).unwrap();
        home.forget("u-2").unwrap();
        home.forget("u-2").unwrap();
        assert!(home.keep(&Record { uid: "../x".into(), ..Record::default() }).is_err());
        std::fs::write(dir.path().join("records/u-3"), "{").unwrap();
        std::fs::write(dir.path().join("records/u-4.new"), "{").unwrap();
        drop(home);
        let home = Home::open(dir.path()).unwrap();
        assert_eq!(home.recall().unwrap().records, [record]);
    }
}
