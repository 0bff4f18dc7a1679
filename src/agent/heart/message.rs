//! What goes into the heart and what comes out of it: plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::docker::{EngineError, Operation, Outcome};
use crate::plan::pod::volume::TokenWish;
use crate::plan::pod::{Memory, Seen, View};

/// How long the driver waits for a look at the engine before it says that the outcome is unknown: a daemon that hangs has to be noticed
/// within twenty seconds (F23), and the list that notices it comes every ten.
pub const LOOK: Duration = Duration::from_secs(8);

/// Names an action and its answer.
pub type Ticket = u64;

/// What the heart is told about its host once, at its birth.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's name.
    pub node: String,
    /// The host's address, for pods in its network.
    pub node_ip: String,
    /// Where programs in pods find the API: a host and a port. `None` when it cannot be reached from pods.
    pub api: Option<(String, String)>,
    /// Which cluster this is: containers with another value are foreign.
    pub cluster: String,
    /// The sandbox's image.
    pub sandbox_image: String,
    /// The directory for volumes that may lie on a disk, with one directory per pod uid.
    pub pods_dir: String,
    /// The directory for volumes that must stay in memory, with one directory per pod uid.
    pub memory_dir: String,
    /// How often everything is listed, in case a hint was lost.
    pub relist_every: SignedDuration,
    /// How long to wait for the server after a start before the pods on disk are believed.
    pub server_wait: SignedDuration,
    /// Processors, for `resourceFieldRef` without a limit.
    pub cpus: u32,
    /// Memory in bytes, for the same.
    pub memory: u64,
    /// When the host was started, if it says.
    pub booted_at: Option<Timestamp>,
}

impl Settings {
    /// What a decision about a pod that may start things is made from.
    pub(super) fn view<'a>(&'a self, pod: &'a Pod, seen: &'a Seen, now: Timestamp) -> View<'a> {
        View { pod, seen, node_ip: &self.node_ip, booted_at: self.booted_at, may_start: true, now }
    }
}

/// What is on disk when an agent starts.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// All records, in any order.
    pub records: Vec<Record>,
    /// The uids of all pods that have directories here. A record may be lost where its pod's files are not.
    pub volumes: BTreeSet<String>,
}

/// What is kept on disk about one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// The pod's uid.
    pub uid: String,
    /// The pod as last seen. Absent in a bare tombstone.
    #[serde(skip_serializing_if = "Option::is_none", with = "shared")]
    pub pod: Option<Arc<Pod>>,
    /// When its deletion was first seen. From then on nothing of it is ever started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tombstone: Option<Timestamp>,
    /// What was learned about it.
    pub memory: Memory,
}

/// An `Arc` in a record is written as what it holds.
mod shared {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Pod;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(pod: &Option<Arc<Pod>>, to: S) -> Result<S::Ok, S::Error> {
        pod.as_deref().serialize(to)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Arc<Pod>>, D::Error> {
        Ok(Option::<Pod>::deserialize(from)?.map(Arc::new))
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Nothing but time.
    Tick,
    /// All pods that are bound to this node, from a list. What is not in it is gone.
    Pods(Vec<Arc<Pod>>),
    /// A pod was added or changed.
    Pod(Arc<Pod>),
    /// A pod's object is gone.
    Gone {
        /// Its uid.
        uid: String,
    },
    /// Something happened to this container; look.
    Hint {
        /// The engine's id.
        container: String,
    },
    /// Hints may have been lost; look at everything.
    Relist,
    /// An action ended.
    Done {
        /// Which.
        ticket: Ticket,
        /// How.
        reply: Reply,
    },
}

/// How an action ended.
#[derive(Clone, Debug)]
pub enum Reply {
    /// [`Work::Engine`], and [`Work::SandboxImage`] with [`Outcome::Done`].
    Engine(Result<Outcome, EngineError>),
    /// [`Work::Server`].
    Server(Result<Answer, ServerError>),
    /// [`Work::Probe`] and [`Work::Sleep`].
    Probe(Result<(), String>),
    /// [`Work::Volumes`] and [`Work::RemoveVolumes`].
    Volumes(Result<(), String>),
    /// [`Work::LastWords`].
    Words(String),
}

/// One thing to do.
#[derive(Clone, Debug)]
pub struct Action {
    /// For the answer.
    pub ticket: Ticket,
    /// The uid of the pod that it is about; empty when it is about none, or only looks.
    pub uid: String,
    /// What.
    pub work: Work,
}

/// What there is to do.
#[derive(Clone, Debug)]
pub enum Work {
    /// One call of the engine.
    Engine(Operation),
    /// See to it that the engine has [`Settings::sandbox_image`].
    SandboxImage,
    /// One request to the server.
    Server(Call),
    /// An HTTP or TCP probe or hook, from the host's own network. Probes by command are calls of the engine.
    Probe(ProbeCall),
    /// Write the files of a pod's volumes.
    Volumes(Box<VolumeWork>),
    /// Remove the directory of a pod's volumes and files.
    RemoveVolumes {
        /// The pod's uid.
        uid: String,
    },
    /// Wait; a hook asks for it. Answered with [`Reply::Probe`].
    Sleep(SignedDuration),
    /// Read why a container ended: its termination message, or the end of its log.
    LastWords {
        /// The engine's id.
        container: String,
        /// Where on the host its termination message is; may not exist.
        file: String,
        /// Whether the log's end may stand in.
        log: bool,
    },
    /// Keep this record, in place of an older one of the same uid. Not answered.
    Remember(Box<Record>),
    /// Drop the record of this uid. Not answered.
    Forget {
        /// The pod's uid.
        uid: String,
    },
}

/// A request to the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Merge `status` into the pod's status if the pod is still this uid at this revision. Answered with [`Answer::Pod`].
    PatchStatus {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// The `resourceVersion` that the status was computed from.
        revision: String,
        /// A JSON merge patch of `status`.
        status: Value,
    },
    /// Read a pod. Answered with [`Answer::Pod`].
    GetPod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Remove a pod's object for good (grace 0), if it is still this uid. Answered with [`Answer::Done`].
    DeletePod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Read a ConfigMap or Secret, or ask for a token. Answered with [`Answer::Config`].
    GetConfig(ConfigRef),
    /// Record an event about a pod. Answered with [`Answer::Done`].
    Event(Box<PodEvent>),
}

impl Call {
    /// A word for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Call::PatchStatus { .. } => "patch status",
            Call::GetPod { .. } => "get pod",
            Call::DeletePod { .. } => "delete pod",
            Call::GetConfig(_) => "get config",
            Call::Event(_) => "event",
        }
    }
}

/// Something that people should know about a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodEvent {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// The container's name in the pod; empty when it is about the pod.
    pub container: String,
    /// Whether something is wrong.
    pub warning: bool,
    /// Kubernetes' word for it, such as `Pulled`, `Started`, `BackOff`.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// Which ConfigMap or Secret, or which token.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigRef {
    /// Whether it is a Secret.
    pub secret: bool,
    /// Its namespace.
    pub namespace: String,
    /// Its name; of a token that of the service account.
    pub name: String,
    /// A token of that service account instead, for a pod.
    pub token: Option<TokenRef>,
}

/// Which token of a service account: one for a pod, good as long as the pod is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenRef {
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// For whom it is, and for how long.
    pub wish: TokenWish,
}

/// What the server answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is done.
    Done,
    /// The pod as it is now.
    Pod(Arc<Pod>),
    /// The values of a ConfigMap or Secret; of a token its text under the key `token`.
    Config(Arc<BTreeMap<String, ByteString>>),
}

/// Why the server did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerError {
    /// There is no such object.
    NotFound,
    /// It is another uid, or another revision.
    Conflict,
    /// The server refused, and will again.
    Refused(String),
    /// No answer. It may or may not have acted.
    Unavailable(String),
}

/// An HTTP or TCP probe or hook.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeCall {
    /// The engine's id of the container, for engines that simulate the network, too.
    pub container: String,
    /// The address to connect to.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The request; `None` only connects.
    pub http: Option<HttpGet>,
    /// How long it may take.
    pub timeout: SignedDuration,
}

/// An HTTP request of a probe. Any status from 200 to 399 is a success; certificates are not checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpGet {
    /// Whether over TLS.
    pub tls: bool,
    /// The path with its query.
    pub path: String,
    /// Header names and values.
    pub headers: Vec<(String, String)>,
}

/// Files to write for a pod. Everything is below the pod's directory; existing volumes change by one swap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeWork {
    /// The pod's uid, which names its directory.
    pub uid: String,
    /// The volumes.
    pub volumes: Vec<crate::plan::pod::volume::Volume>,
    /// The group that owns them (`fsGroup`).
    pub group: Option<u32>,
}
