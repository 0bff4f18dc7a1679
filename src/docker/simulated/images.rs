//! Images: what the registry gives for a name, and what is on the host.
//!
//! You will not find here: how long a pull takes, and whether it may be had at all (`behaviour` says so by the name).

use super::machine::{Machine, hex_digest};
use crate::docker::ImageState;

impl Machine {
    /// The image is on this host from now on.
    pub(super) fn add_image(&mut self, reference: &str) {
        let (name, image) = self.image_in_registry(reference);
        self.images.insert(name, image);
    }

    /// An image that came as a file, with its own id.
    pub(super) fn load_image(&mut self, reference: &str, id: &str) {
        let (name, mut image) = self.image_in_registry(reference);
        image.id = id.into();
        image.digests.clear();
        self.images.insert(name, image);
    }

    /// The image that a pull gives now, under its normal name.
    pub(super) fn image_in_registry(&self, reference: &str) -> (String, ImageState) {
        let name = normal(reference);
        let content = match name.split_once('@') {
            Some((_, digest)) => digest.to_string(),
            None => format!("{name} {}", self.moved_tags.get(&name).copied().unwrap_or_default()),
        };
        let digest = hex_digest(&format!("manifest {content}"));
        let repository = name.split(['@']).next().unwrap_or_default();
        let repository = match repository.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => path,
            _ => repository,
        };
        let image = ImageState {
            id: format!("sha256:{}", hex_digest(&format!("config {content}"))),
            tags: if name.contains('@') { Vec::new() } else { vec![name.clone()] },
            digests: vec![format!("{repository}@sha256:{digest}")],
            entrypoint: Vec::new(),
            cmd: vec!["/simulated".into()],
            env: vec!["PATH=/bin".into()],
            working_dir: String::new(),
            user: String::new(),
            stop_signal: String::new(),
            size: 10_000_000,
        };
        (name, image)
    }

    pub(super) fn find_image(&self, reference: &str) -> Option<(&String, &ImageState)> {
        self.images.get_key_value(&normal(reference)).or_else(|| {
            let id = reference.strip_prefix("sha256:").unwrap_or(reference);
            self.images.iter().find(|(_, image)| {
                image.digests.iter().any(|digest| digest == reference)
                    || (id.len() >= 12 && image.id.strip_prefix("sha256:").is_some_and(|full| full.starts_with(id)))
            })
        })
    }
}

/// The one spelling of an image's name: a tag is always there, Docker's own registry is not.
pub(super) fn normal(reference: &str) -> String {
    let name = reference.strip_prefix("docker.io/").unwrap_or(reference);
    let name = name.strip_prefix("library/").unwrap_or(name);
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') || last.contains('@') { name.to_string() } else { format!("{name}:latest") }
}
