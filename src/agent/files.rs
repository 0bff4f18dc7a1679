//! Writes what a pod's volumes consist of, and checks what is mounted.
//!
//! The files of a volume change together: they lie in a directory of their own behind the symlink `..data`, which is replaced by one
//! rename. That is Kubernetes' layout, which programs that watch their configuration know.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::heart::VolumeWork;
use super::translate::is_safe_uid;
use crate::docker::ContainerSpec;
use crate::plan::pod::volume::{File, Volume, VolumeKind, stays_inside};

/// The two places of a pod's things.
#[derive(Clone)]
pub(super) struct Files {
    /// What may lie on a disk.
    pub(super) pods: PathBuf,
    /// What must stay in memory.
    pub(super) memory: PathBuf,
}

impl Files {
    /// Writes volumes; what is there already and the same stays.
    pub(super) fn write(&self, work: &VolumeWork) -> Result<()> {
        if !is_safe_uid(&work.uid) {
            bail!("a uid that is no file name: {:?}", work.uid);
        }
        // Whatever else there will be, this says that there is something: see `pods`.
        make_dir(&self.pods.join(&work.uid))?;
        for volume in &work.volumes {
            self.volume(&work.uid, work.group, volume).with_context(|| format!("volume \"{}\"", volume.name))?;
        }
        Ok(())
    }

    fn volume(&self, uid: &str, group: Option<u32>, volume: &Volume) -> Result<()> {
        if !stays_inside(&volume.name) || volume.name.contains('/') {
            bail!("a name that is no file name: {:?}", volume.name);
        }
        let dir = |in_memory: bool| {
            let base = if in_memory { &self.memory } else { &self.pods };
            base.join(uid).join("volumes").join(&volume.name)
        };
        match &volume.kind {
            VolumeKind::Files { in_memory, files } => {
                let dir = dir(*in_memory);
                make_dir(&dir)?;
                replace_files(&dir, files, group)
            }
            VolumeKind::Empty { in_memory } => {
                let dir = dir(*in_memory);
                if !dir.exists() {
                    make_dir(&dir)?;
                    // Whoever the containers run as, they may write. The set-group bit hands the group on to what is made inside.
                    own(&dir, group)?;
                    let mode = if group.is_some() { 0o2777 } else { 0o777 };
                    std::fs::set_permissions(&dir, Permissions::from_mode(mode)).context("open it to all users")?;
                }
                Ok(())
            }
            VolumeKind::Host { path, check } => host_path(Path::new(path), check),
        }
    }

    /// Sees to it that everything exists that a container is about to mount, and that nothing of it leads out of its volume.
    pub(super) fn before_create(&self, spec: &ContainerSpec) -> Result<()> {
        for bind in &spec.binds {
            let source = Path::new(&bind.source);
            let Some(base) = [&self.pods, &self.memory].into_iter().find(|base| source.starts_with(base)) else { continue };
            let below: Vec<_> = source.strip_prefix(base).context("a path below its base")?.components().collect();
            if below.iter().any(|c| !matches!(c, Component::Normal(_))) {
                bail!("{} does not stay within the agent's directory", source.display());
            }
            if below.get(1).is_some_and(|c| c.as_os_str() == "messages") {
                if let Some(parent) = source.parent() {
                    make_dir(parent)?;
                }
                if !source.exists() {
                    std::fs::write(source, b"").with_context(|| format!("make {}", source.display()))?;
                    std::fs::set_permissions(source, Permissions::from_mode(0o666))?;
                }
                continue;
            }
            // <uid>/volumes/<name>, and a subPath below it.
            if below.len() > 3 {
                let volume: PathBuf = base.components().chain(below[..3].iter().copied()).collect();
                let sub: PathBuf = below[3..].iter().collect();
                beneath(&volume, &sub).with_context(|| format!("subPath {}", sub.display()))?;
            }
        }
        Ok(())
    }

    /// The uids of all pods of which there is anything. Asks only the directory that no other agent writes to.
    pub(super) fn pods(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(&self.pods).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|uid| is_safe_uid(uid)).collect()
    }

    /// Removes everything of a pod.
    pub(super) fn remove(&self, uid: &str) -> Result<()> {
        if !is_safe_uid(uid) {
            bail!("a uid that is no file name: {uid:?}");
        }
        for base in [&self.memory, &self.pods] {
            let dir = base.join(uid);
            match std::fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", dir.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Makes a directory below ours that containers of other users can walk through.
fn make_dir(dir: &Path) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).with_context(|| format!("make {}", dir.display()))
}

fn own(path: &Path, group: Option<u32>) -> Result<()> {
    if let Some(group) = group {
        std::os::unix::fs::lchown(path, None, Some(group))
            .with_context(|| format!("give {} to group {group}", path.display()))?;
    }
    Ok(())
}

/// Writes the files behind `..data` in one swap.
fn replace_files(dir: &Path, files: &std::collections::BTreeMap<String, File>, group: Option<u32>) -> Result<()> {
    let data = dir.join("..data");
    let old = std::fs::read_link(&data).ok();
    if old.as_ref().is_some_and(|old| same_files(&dir.join(old), files)) {
        return Ok(());
    }
    // A name that was never used: time alone could repeat.
    let mut serial = 0;
    let fresh = loop {
        let name = format!("..{}_{serial}", crate::clock::now().as_nanosecond());
        let path = dir.join(&name);
        match std::fs::DirBuilder::new().mode(0o755).create(&path) {
            Ok(()) => break name,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => serial += 1,
            Err(error) => return Err(error).context("make a directory for the new files"),
        }
    };
    for (name, file) in files {
        let path = dir.join(&fresh).join(name);
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        std::fs::write(&path, &file.content).with_context(|| format!("write {name}"))?;
        own(&path, group)?;
        // Whoever is of the group may read, as Kubernetes has it.
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).with_context(|| format!("set the mode of {name}"))?;
    }
    let swap = dir.join("..data_new");
    let _ = std::fs::remove_file(&swap);
    std::os::unix::fs::symlink(&fresh, &swap).context("link the new files")?;
    std::fs::rename(&swap, &data).context("swap the new files in")?;
    // What users see: one link per first part of a path.
    let tops: BTreeSet<&str> = files.keys().filter_map(|name| name.split('/').next()).collect();
    for top in &tops {
        let link = dir.join(top);
        if std::fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(Path::new("..data").join(top), &link).with_context(|| format!("link {top}"))?;
        }
    }
    for entry in std::fs::read_dir(dir).context("read the volume")? {
        let entry = entry.context("read the volume")?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let stale_files = name.starts_with("..") && name != "..data" && name != fresh.as_str();
        if stale_files {
            let _ = std::fs::remove_dir_all(entry.path());
        } else if !name.starts_with("..") && !tops.contains(name.as_ref()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn same_files(dir: &Path, files: &std::collections::BTreeMap<String, File>) -> bool {
    fn count(dir: &Path) -> usize {
        std::fs::read_dir(dir)
            .map(|entries| entries.flatten().map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 }).sum())
            .unwrap_or(0)
    }
    count(dir) == files.len() && files.iter().all(|(name, file)| std::fs::read(dir.join(name)).is_ok_and(|c| c == file.content))
}

fn host_path(path: &Path, check: &str) -> Result<()> {
    if !path.is_absolute() || path.components().any(|c| matches!(c, Component::ParentDir)) {
        bail!("hostPath {} must be absolute and without `..`", path.display());
    }
    let there = std::fs::metadata(path);
    let kind = there.as_ref().map(std::fs::Metadata::file_type);
    let is = |want: &str, ok: bool| {
        if ok { Ok(()) } else { bail!("hostPath type check failed: {} is not a {want}", path.display()) }
    };
    match check {
        "" | "DirectoryOrCreate" if there.is_err() => {
            std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))
        }
        "FileOrCreate" if there.is_err() => std::fs::write(path, b"").with_context(|| format!("make {}", path.display())),
        "" => Ok(()),
        "Directory" | "DirectoryOrCreate" => is("directory", kind.is_ok_and(|k| k.is_dir())),
        "File" | "FileOrCreate" => is("file", kind.is_ok_and(|k| k.is_file())),
        "Socket" => is("socket", kind.is_ok_and(|k| k.is_socket())),
        "CharDevice" => is("character device", kind.is_ok_and(|k| k.is_char_device())),
        "BlockDevice" => is("block device", kind.is_ok_and(|k| k.is_block_device())),
        other => bail!("hostPath type {other} is not known"),
    }
}

/// Makes `sub` below `volume` and refuses it where a symlink leads out: a container may have put one there (CVE-2021-25741).
fn beneath(volume: &Path, sub: &Path) -> Result<()> {
    let volume = volume.canonicalize().with_context(|| format!("resolve {}", volume.display()))?;
    let mut at = volume.clone();
    for part in sub.components() {
        at.push(part);
        if !at.exists() {
            if std::fs::symlink_metadata(&at).is_ok() {
                bail!("a symlink that leads nowhere");
            }
            std::fs::create_dir(&at).context("make it")?;
            std::fs::set_permissions(&at, Permissions::from_mode(0o777))?;
        }
        at = at.canonicalize().context("resolve it")?;
        if !at.starts_with(&volume) {
            bail!("it leads out of its volume");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> VolumeKind {
        let files = list.iter().map(|(n, c)| ((*n).to_owned(), File { content: c.as_bytes().to_vec(), mode: 0o640 })).collect();
        VolumeKind::Files { in_memory: true, files }
    }

    #[test]
    fn volumes_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let at = Files { pods: dir.path().join("p"), memory: dir.path().join("m") };
        let write = |kind: VolumeKind| {
            let volumes = vec![Volume { name: "v".into(), kind }];
            at.write(&VolumeWork { uid: "u".into(), volumes, group: None })
        };
        write(files(&[("a", "1"), ("d/b", "2")])).unwrap();
        let v = dir.path().join("m/u/volumes/v");
        assert_eq!(std::fs::read_to_string(v.join("a")).unwrap(), "1");
        assert_eq!(std::fs::read_to_string(v.join("d/b")).unwrap(), "2");
        assert_eq!(std::fs::metadata(v.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let link = std::fs::read_link(v.join("..data")).unwrap();
        write(files(&[("a", "1"), ("d/b", "2")])).unwrap();
        assert_eq!(std::fs::read_link(v.join("..data")).unwrap(), link, "unchanged");
        write(files(&[("a", "3"), ("c", "4")])).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(&v).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|n| !n.starts_with(".."));
        names.sort();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(std::fs::read_to_string(v.join("a")).unwrap(), "3");
        write(VolumeKind::Empty { in_memory: false }).unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("p/u/volumes/v")).unwrap().permissions().mode() & 0o777, 0o777);
        assert!(write(VolumeKind::Host { path: "/etc/../etc".into(), check: String::new() }).is_err());
        assert!(write(VolumeKind::Host { path: "/etc/passwd".into(), check: "Directory".into() }).is_err());
        write(files(&[])).unwrap();
        assert_eq!(at.pods(), BTreeSet::from(["u".to_owned()]));
        at.remove("u").unwrap();
        assert!(!v.exists() && at.pods().is_empty());
        assert!(at.remove("../u").is_err());
    }

    #[test]
    fn subpaths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir(&volume).unwrap();
        beneath(&volume, Path::new("a/b")).unwrap();
        std::os::unix::fs::symlink("a", volume.join("good")).unwrap();
        beneath(&volume, Path::new("good/b")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("evil")).unwrap();
        assert!(beneath(&volume, Path::new("evil")).is_err());
        std::os::unix::fs::symlink("../..", volume.join("a/up")).unwrap();
        assert!(beneath(&volume, Path::new("a/up/x")).is_err());
    }
}
