//! The image of the sandbox container, which holds a pod's network and does nothing else.
//!
//! It has to be on every host, with or without a registry. So its program is compiled together with ours (`pause.rs`, a few kilobytes),
//! and the image is made here, in memory, byte for byte the same each time: on a daemon with Docker's own image store its id is the
//! digest of its configuration, known before anybody asked the daemon. The name carries the same digest for daemons that number their
//! images otherwise (the containerd image store).

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Engine, EngineError};

/// The program. Empty in a build for an architecture that it has not been written for.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The command that connects to a port from inside a sandbox; how it is spoken to is written at `connect` in `pause.rs`.
pub fn connect(port: u16) -> Vec<String> {
    vec!["/pause".to_owned(), "connect".to_owned(), port.to_string()]
}

/// An image that exists only as bytes.
pub(crate) struct Image {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) archive: Bytes,
}

static IMAGE: LazyLock<Image> = LazyLock::new(|| make(PROGRAM));

/// The image's name.
pub fn name() -> &'static str {
    &IMAGE.name
}

/// The image's id on daemons with Docker's own image store.
pub fn id() -> &'static str {
    &IMAGE.id
}

/// Makes sure that the host has the image and is prepared for its first container, and returns the image's id there. Cheap when all that is
/// so already.
pub async fn ensure_pause_image(engine: &dyn Engine) -> Result<String, EngineError> {
    let id = ensure_loaded(engine).await?;
    engine.prepare(&id).await?;
    Ok(id)
}

/// Makes sure that the host has the image.
pub(super) async fn ensure_loaded(engine: &dyn Engine) -> Result<String, EngineError> {
    if PROGRAM.is_empty() {
        return Err(EngineError::Refused {
            message: "this build of portolan cannot run pods: no pause program for its target".into(),
        });
    }
    if let Some(id) = find(engine).await? {
        return Ok(id);
    }
    tracing::debug!(image = name(), "loading the pause image");
    engine.load(IMAGE.archive.clone()).await?;
    find(engine).await?.ok_or_else(|| EngineError::Failed { message: format!("{} was loaded and is not there", name()) })
}

async fn find(engine: &dyn Engine) -> Result<Option<String>, EngineError> {
    for reference in [id(), name()] {
        match engine.image(reference).await {
            Ok(image) => return Ok(Some(image.id)),
            Err(EngineError::ImageNotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Puts the program into an image.
fn make(program: &[u8]) -> Image {
    let config = json!({
        "Entrypoint": ["/pause"],
        "User": "65535:65535",
        "Labels": { "org.opencontainers.image.title": "portolan pause" },
    });
    docker_archive("portolan.dev/pause", &tar(&[("pause", 0o755, program)]), &config)
}

/// An image of one layer as a file that a daemon can load. Its tag is the beginning of its id.
pub(crate) fn docker_archive(repository: &str, layer: &[u8], config: &serde_json::Value) -> Image {
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", digest(layer))] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "portolan" }],
    })
    .to_string();
    let digest = digest(config.as_bytes());
    let name = format!("{repository}:{}", &digest[..12]);
    let config_file = format!("{digest}.json");
    let manifest = json!([{ "Config": config_file, "RepoTags": [name], "Layers": ["layer.tar"] }]).to_string();
    let archive = tar(&[
        (&config_file, 0o644, config.as_bytes()),
        ("layer.tar", 0o644, layer),
        ("manifest.json", 0o644, manifest.as_bytes()),
    ]);
    Image { id: format!("sha256:{digest}"), name, archive: archive.into() }
}

/// This build's architecture in the words of images.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A tar archive (ustar) of small files, owned by root and dated 1970. Names are at most 100 bytes.
pub fn tar(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, mode, content) in files {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let mut field = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        field(100, &format!("{mode:07o}"));
        field(108, "0000000");
        field(116, "0000000");
        field(124, &format!("{:011o}", content.len()));
        field(136, "00000000000");
        field(148, "        ");
        field(156, "0");
        field(257, "ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// The files of a tar archive (ustar) as names and contents. Stops at what it does not understand.
pub(crate) fn untar(archive: &[u8]) -> Vec<(String, &[u8])> {
    let mut files = Vec::new();
    let mut rest = archive;
    while rest.len() >= 512 && rest[0] != 0 {
        let text = |range: std::ops::Range<usize>| {
            let field = &rest[range];
            String::from_utf8_lossy(&field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]).into_owned()
        };
        let name = text(0..100);
        let Ok(size) = usize::from_str_radix(text(124..136).trim(), 8) else { break };
        let Some(content) = rest.get(512..).and_then(|rest| rest.get(..size)) else { break };
        files.push((name, content));
        let Some(next) = rest.get(512 + size.next_multiple_of(512)..) else { break };
        rest = next;
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_the_same_each_time() {
        let (one, two) = (make(PROGRAM), make(PROGRAM));
        assert_eq!(one.archive, two.archive);
        assert_eq!(one.id, two.id);
        assert_ne!(one.id, make(b"other").id);
    }

    #[test]
    fn the_archive_holds_what_its_manifest_names() {
        let image = make(PROGRAM);
        let files = untar(&image.archive);
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        let config = format!("{}.json", image.id.trim_start_matches("sha256:"));
        assert_eq!(names, [config.as_str(), "layer.tar", "manifest.json"]);
        let config: serde_json::Value = serde_json::from_slice(files[0].1).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", digest(files[1].1)));
        let layer = untar(files[1].1);
        assert_eq!((layer[0].0.as_str(), layer[0].1), ("pause", PROGRAM));
    }

    #[test]
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn the_program_is_a_small_static_elf() {
        assert_eq!(&PROGRAM[..4], b"\x7fELF");
        assert!(PROGRAM.len() < 4096, "{} bytes", PROGRAM.len());
    }

    #[test]
    fn the_tar_is_read_by_others_too() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.tar");
        std::fs::write(&file, tar(&[("a", 0o644, b"hello"), ("b/c", 0o755, &[7; 1000])])).unwrap();
        let listed = std::process::Command::new("tar").arg("-tvf").arg(&file).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let sizes: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
        assert_eq!(sizes, ["5", "1000"], "{listed}");
    }
}
