//! Images as the engine shows them, and what fetching one needs.

use serde::{Deserialize, Serialize};

/// An image in full.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageState {
    /// The id: `sha256:` and the digest of the image's configuration.
    pub id: String,
    /// Names with tags.
    pub tags: Vec<String>,
    /// Names with digests, where the image came from a registry.
    pub digests: Vec<String>,
    /// The program.
    pub entrypoint: Vec<String>,
    /// The arguments.
    pub cmd: Vec<String>,
    /// Environment, as `NAME=value`.
    pub env: Vec<String>,
    /// The directory to start in.
    pub working_dir: String,
    /// The user; empty for root.
    pub user: String,
    /// The signal that asks for an end; empty for SIGTERM.
    pub stop_signal: String,
    /// The size, in bytes.
    pub size: u64,
}

/// An image in a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageSummary {
    /// The id.
    pub id: String,
    /// Names with tags.
    pub tags: Vec<String>,
    /// Names with digests.
    pub digests: Vec<String>,
    /// The size, in bytes.
    pub size: u64,
}

/// Who we are to a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// The registry, as in the image's name.
    pub server: String,
    /// The user.
    pub username: String,
    /// The password or token.
    pub password: String,
    /// A token in place of user and password.
    pub identity_token: String,
}

/// Never shows the secret: operations are logged.
impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RegistryAuth({} at {})", self.username, self.server)
    }
}

/// How far a pull is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The layer this is about; empty for the image as a whole.
    pub layer: String,
    /// What the engine says it does, such as `Downloading`.
    pub message: String,
    /// Bytes done.
    pub current: u64,
    /// Bytes in all; 0 where unknown.
    pub total: u64,
}
