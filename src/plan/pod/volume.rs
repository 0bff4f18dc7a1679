//! Which files a pod's volumes consist of.
//!
//! Values come in, names, contents and modes go out. Nothing is written here, and where on the host it goes is the agent's matter.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume as PodVolume};

use super::env::{Sources, Values, field, resource};
use super::spec;

/// A volume that the agent has to make on the host before a container can have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// What it is.
    pub kind: VolumeKind,
}

/// What a volume is.
#[derive(Clone, Debug, PartialEq)]
pub enum VolumeKind {
    /// Files with given content, replaced together.
    Files {
        /// Whether they must never touch a disk.
        in_memory: bool,
        /// Path within the volume, and the file.
        files: BTreeMap<String, File>,
    },
    /// An empty directory that lives as long as the pod.
    Empty {
        /// Whether it must never touch a disk.
        in_memory: bool,
    },
    /// A path of the host.
    Host {
        /// The path.
        path: String,
        /// What must be there, in Kubernetes' words (`Directory`, `FileOrCreate` …); empty for no check.
        check: String,
    },
}

/// A file of a volume.
#[derive(Clone, PartialEq)]
pub struct File {
    /// Its content.
    pub content: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// Never shows the content: it may be a secret.
impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes {:04o}", self.content.len(), self.mode)
    }
}

/// The ConfigMaps (`false`) and Secrets (`true`) that the pod's volumes refer to.
pub fn references(pod: &Pod) -> Vec<(bool, String)> {
    let mut found = Vec::new();
    for volume in volumes(pod) {
        found.extend(volume.config_map.iter().map(|c| (false, c.name.clone())));
        found.extend(volume.secret.iter().filter_map(|s| Some((true, s.secret_name.clone()?))));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            found.extend(source.config_map.iter().map(|c| (false, c.name.clone())));
            found.extend(source.secret.iter().map(|s| (true, s.name.clone())));
        }
    }
    found
}

/// A token that a pod's volumes show: for whom it is, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenWish {
    /// The audience; empty for the API itself.
    pub audience: String,
    /// Seconds.
    pub seconds: i64,
}

impl TokenWish {
    fn of(source: &ServiceAccountTokenProjection) -> TokenWish {
        let seconds = source.expiration_seconds.unwrap_or(3600);
        TokenWish { audience: source.audience.clone().unwrap_or_default(), seconds }
    }
}

/// The tokens that the pod's volumes show.
pub fn tokens(pod: &Pod) -> BTreeSet<TokenWish> {
    let sources = volumes(pod).iter().flat_map(|v| v.projected.iter().flat_map(|p| p.sources.iter().flatten()));
    sources.filter_map(|source| source.service_account_token.as_ref()).map(TokenWish::of).collect()
}

/// The tokens that a pod was given without asking. They may come later, when the server is away while a pod has to start: what does not
/// speak to the API needs none, and a host that was restarted must not wait for the server.
pub fn given_tokens(pod: &Pod) -> BTreeSet<TokenWish> {
    let given = volumes(pod).iter().filter(|volume| is_given(volume));
    let sources = given.flat_map(|v| v.projected.iter().flat_map(|p| p.sources.iter().flatten()));
    sources.filter_map(|source| source.service_account_token.as_ref()).map(TokenWish::of).collect()
}

/// Whether a volume is the one that pods are given without asking.
fn is_given(volume: &PodVolume) -> bool {
    volume.name.starts_with("kube-api-access-")
}

/// The key under which a token's text is among its values.
pub const TOKEN: &str = "token";

fn volumes(pod: &Pod) -> &[PodVolume] {
    spec::spec(pod).and_then(|s| s.volumes.as_deref()).unwrap_or(&[])
}

/// What the agent has to make. The error is a sentence for the event `FailedMount`.
pub fn plan(pod: &Pod, sources: &Sources<'_>) -> Result<Vec<Volume>, String> {
    volumes(pod).iter().map(|v| Ok(Volume { name: v.name.clone(), kind: kind(pod, v, sources)? })).collect()
}

fn kind(pod: &Pod, volume: &PodVolume, sources: &Sources<'_>) -> Result<VolumeKind, String> {
    let mut files = BTreeMap::new();
    if let Some(map) = &volume.config_map {
        let mode = mode(map.default_mode);
        take(&mut files, (sources.config_map)(&map.name), "configmap", &map.name, &map.items, map.optional, mode)?;
        return Ok(VolumeKind::Files { in_memory: false, files });
    }
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        let mode = mode(secret.default_mode);
        take(&mut files, (sources.secret)(name), "secret", name, &secret.items, secret.optional, mode)?;
        return Ok(VolumeKind::Files { in_memory: true, files });
    }
    if let Some(api) = &volume.downward_api {
        let mode = mode(api.default_mode);
        for item in api.items.iter().flatten() {
            downward(pod, &mut files, item, mode, sources)?;
        }
        return Ok(VolumeKind::Files { in_memory: false, files });
    }
    if let Some(projected) = &volume.projected {
        let mode = mode(projected.default_mode);
        let later = sources.away && is_given(volume);
        for source in projected.sources.iter().flatten() {
            if let Some(map) = &source.config_map {
                let optional = if later { Some(true) } else { map.optional };
                take(&mut files, (sources.config_map)(&map.name), "configmap", &map.name, &map.items, optional, mode)?;
            } else if let Some(secret) = &source.secret {
                take(&mut files, (sources.secret)(&secret.name), "secret", &secret.name, &secret.items, secret.optional, mode)?;
            } else if let Some(api) = &source.downward_api {
                for item in api.items.iter().flatten() {
                    downward(pod, &mut files, item, mode, sources)?;
                }
            } else if let Some(token) = &source.service_account_token {
                let wish = TokenWish::of(token);
                let text = (sources.token)(&wish).and_then(|values| values.get(TOKEN));
                match text {
                    Some(text) => put(&mut files, &token.path, text.clone(), mode)?,
                    None if later => {}
                    None => {
                        return Err(format!("there is no token of the service account for the volume \"{}\" yet", volume.name));
                    }
                }
            } else {
                return Err(format!("volume \"{}\": this kind of projected source is not supported", volume.name));
            }
        }
        // Nobody sorts a projected volume's sources: where one is secret, all are treated so.
        return Ok(VolumeKind::Files { in_memory: true, files });
    }
    if let Some(empty) = &volume.empty_dir {
        return Ok(VolumeKind::Empty { in_memory: empty.medium.as_deref() == Some("Memory") });
    }
    if let Some(host) = &volume.host_path {
        return Ok(VolumeKind::Host { path: host.path.clone(), check: host.type_.clone().unwrap_or_default() });
    }
    Err(format!("volume \"{}\": this kind of volume is not supported", volume.name))
}

fn mode(default: Option<i32>) -> u32 {
    default.map_or(0o644, |m| m as u32 & 0o777)
}

fn take(
    files: &mut BTreeMap<String, File>,
    values: Option<&Values>,
    kind: &str,
    name: &str,
    items: &Option<Vec<KeyToPath>>,
    optional: Option<bool>,
    mode: u32,
) -> Result<(), String> {
    let optional = optional == Some(true);
    let Some(values) = values else {
        return if optional { Ok(()) } else { Err(format!("{kind} \"{name}\" not found")) };
    };
    let Some(items) = items.as_ref().filter(|i| !i.is_empty()) else {
        for (key, content) in values {
            put(files, key, content.clone(), mode)?;
        }
        return Ok(());
    };
    for item in items {
        match values.get(&item.key) {
            Some(content) => put(files, &item.path, content.clone(), item.mode.map_or(mode, |m| m as u32 & 0o777))?,
            None if optional => {}
            None => return Err(format!("{kind} \"{name}\" has no key \"{}\"", item.key)),
        }
    }
    Ok(())
}

fn downward(
    pod: &Pod,
    files: &mut BTreeMap<String, File>,
    item: &DownwardAPIVolumeFile,
    mode: u32,
    sources: &Sources<'_>,
) -> Result<(), String> {
    let text = match (&item.field_ref, &item.resource_field_ref) {
        (Some(f), _) => field(pod, &f.field_path, sources)?,
        (None, Some(r)) => {
            let name = r.container_name.as_deref().unwrap_or_default();
            let container = spec::container(pod, name).ok_or_else(|| format!("container \"{name}\" not found"))?;
            resource(container, &r.resource, r.divisor.as_ref().map(|d| d.0.as_str()), sources)?
        }
        (None, None) => String::new(),
    };
    put(files, &item.path, text.into_bytes(), item.mode.map_or(mode, |m| m as u32 & 0o777))
}

/// Takes only paths that stay within the volume.
fn put(files: &mut BTreeMap<String, File>, path: &str, content: Vec<u8>, mode: u32) -> Result<(), String> {
    if !stays_inside(path) || path.starts_with("..") {
        return Err(format!("the path \"{path}\" does not stay within its volume"));
    }
    files.insert(path.to_owned(), File { content, mode });
    Ok(())
}

/// Whether a relative path stays below where it starts.
pub fn stays_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with('/')
        && !path.contains('\0')
        && path.split('/').all(|part| part != ".." && !part.is_empty())
}
