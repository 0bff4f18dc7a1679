//! Why the engine did not do what it was asked.
//!
//! Three questions matter to whoever called: is there any use in trying again, is the outcome known, and does it need the same call or
//! another one. The first two are [`EngineError::outlook`]; the third is which variant it is.

use std::time::Duration;

/// A call to the engine that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// There is no such container or session.
    #[error("no such container: {id}")]
    NotFound {
        /// What was asked for.
        id: String,
    },
    /// Another container has the name. Whether it is ours is for the caller to find out.
    #[error("the name {name} is taken by container {holder}")]
    NameTaken {
        /// The name that was asked for.
        name: String,
        /// The id of the container that has it; empty where the engine does not say.
        holder: String,
    },
    /// There is no such image: on this host for [`image`](super::Engine::image) and [`create`](super::Engine::create), in its registry
    /// for [`pull`](super::Engine::pull).
    #[error("image {image} not found: {message}")]
    ImageNotFound {
        /// The image.
        image: String,
        /// What the engine said.
        message: String,
    },
    /// The registry does not let us have the image.
    #[error("pull of {image} denied: {message}")]
    PullDenied {
        /// The image.
        image: String,
        /// What the engine said.
        message: String,
    },
    /// The image could not be fetched for another reason: the registry is away, slow, or broken.
    #[error("pull of {image} failed: {message}")]
    PullFailed {
        /// The image.
        image: String,
        /// What the engine said.
        message: String,
    },
    /// The host port is in use.
    #[error("{message}")]
    PortTaken {
        /// What the engine said.
        message: String,
    },
    /// The state of the container does not allow it, such as exec in one that does not run.
    #[error("{message}")]
    Conflict {
        /// What the engine said.
        message: String,
    },
    /// The engine says no, and will say it again: the request itself is wrong for this host.
    #[error("{message}")]
    Refused {
        /// What the engine said.
        message: String,
    },
    /// The engine tried and failed; another time it may work.
    #[error("{message}")]
    Failed {
        /// What the engine said.
        message: String,
    },
    /// The engine could not be reached, or the connection broke. It may or may not have acted.
    #[error("container engine unavailable: {message}")]
    Unavailable {
        /// What went wrong.
        message: String,
    },
    /// The engine did not answer in time. It may or may not have acted, and may still act.
    #[error("container engine did not answer to {call} within {}s", after.as_secs())]
    Deadline {
        /// The call.
        call: &'static str,
        /// How long we waited.
        after: Duration,
    },
}

/// What a failed call means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It did not happen, and asking the same again is of no use.
    Permanent,
    /// It did not happen, and later it may.
    Transient,
    /// Nobody knows whether it happened: look before acting again.
    Unknown,
}

/// Whether the words of a start that failed are about the container whose network the started one joins, and not about itself: that
/// container does not run, is gone, or ended while the start was under way.
pub fn is_about_network_of(message: &str, other: &str) -> bool {
    if other.is_empty() {
        return false;
    }
    let lower = message.to_ascii_lowercase();
    let names = message.contains(other);
    let gone = names && (lower.contains("no such container") || lower.contains("network of a non running container"));
    let ended = lower.contains("no such file or directory")
        && lower.contains("/proc/")
        && ["/ns/net", "/ns/ipc", "/ns/uts"].iter().any(|namespace| lower.contains(namespace));
    gone || ended
}

impl EngineError {
    /// What this means for the next call.
    pub fn outlook(&self) -> Outlook {
        match self {
            EngineError::NotFound { .. }
            | EngineError::NameTaken { .. }
            | EngineError::ImageNotFound { .. }
            | EngineError::PullDenied { .. }
            | EngineError::Refused { .. } => Outlook::Permanent,
            EngineError::PullFailed { .. }
            | EngineError::PortTaken { .. }
            | EngineError::Conflict { .. }
            | EngineError::Failed { .. } => Outlook::Transient,
            EngineError::Unavailable { .. } | EngineError::Deadline { .. } => Outlook::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_fault_a_failed_start_is() {
        for (message, expected) in [
            ("cannot join network of a non running container: 2f0c", true),
            ("No such container: 2f0c", true),
            ("OCI runtime create failed: lstat /proc/4711/ns/ipc: no such file or directory: unknown", true),
            ("cannot join network of a non running container: 77aa", false),
            ("No such container: 77aa", false),
            ("cannot join PID of a non running container: 2f0c", false),
            ("OCI runtime create failed: lstat /proc/4711/ns/pid: no such file or directory: unknown", false),
            ("exec: \"nope\": stat nope: no such file or directory", false),
            ("", false),
        ] {
            assert_eq!(is_about_network_of(message, "2f0c"), expected, "{message}");
        }
        assert!(!is_about_network_of("No such container: ", ""));
    }
}
