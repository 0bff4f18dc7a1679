//! Speaks to a container engine.
//!
//! [`Engine`] is what a host can do with containers and images, in plain values of our own: whoever uses it does not know whether Docker
//! answers or the simulated one. The same operations also exist as values, [`Operation`] and [`Outcome`], so that a decision
//! can be printed, queued, lost and repeated; [`Operation::perform`] carries one out.
//!
//! Every call has its own deadline, and an error says whether the outcome is known ([`EngineError::outlook`]): after an unknown outcome
//! the caller has to look before it acts again.
//!
//! You will not find here: pods (this room speaks containers), any decision about what should run, or the meaning of a label.

pub mod bollard_engine;
pub mod container;
mod error;
pub mod image;
mod operation;
pub mod pause;
pub mod simulated;
pub mod stream;

use futures_util::future::BoxFuture;

pub use container::{ContainerSpec, ContainerState, Resources, Summary};
pub use error::{EngineError, Outlook, is_about_network_of};
pub use image::{ImageState, ImageSummary, Progress, RegistryAuth};
pub(crate) use operation::exit_code;
pub use operation::{Operation, Outcome, RUN_OUTPUT_MAX, Ran};
pub use stream::{AttachSpec, Channel, Chunk, ExecSpec, Flow, Hint, LogEntry, LogOptions, Session};

/// What a call of the engine becomes: its value or an [`EngineError`].
pub type Answer<'a, T> = BoxFuture<'a, Result<T, EngineError>>;

/// A container engine on one host.
///
/// Ids may be given as full ids or as names wherever a container is meant. Methods that the engine finds already done (starting what
/// runs, stopping what has stopped) succeed.
pub trait Engine: Send + Sync + 'static {
    /// What the host is and what it has. Also the cheapest way to see that the engine answers.
    fn info(&self) -> Answer<'_, Info>;

    /// All containers, running or not, that carry every one of these labels. A label is `key` or `key=value`.
    fn list<'a>(&'a self, labels: &'a [String]) -> Answer<'a, Vec<Summary>>;
    /// One container in full. [`EngineError::NotFound`] when there is none.
    fn inspect<'a>(&'a self, id: &'a str) -> Answer<'a, ContainerState>;
    /// Creates a container without starting it, and returns its id. A name in use is [`EngineError::NameTaken`] with the holder's id.
    fn create<'a>(&'a self, name: &'a str, spec: &'a ContainerSpec) -> Answer<'a, String>;
    /// Starts a created or exited container.
    fn start<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Sends the stop signal, waits for at most `grace` seconds, then kills. Returns when the container has ended.
    fn stop<'a>(&'a self, id: &'a str, grace: u32) -> Answer<'a, ()>;
    /// Sends one signal, such as `SIGKILL`, and does not wait for its effect. A container that does not run is no error.
    fn kill<'a>(&'a self, id: &'a str, signal: &'a str) -> Answer<'a, ()>;
    /// Removes a container with its anonymous volumes. `force` kills it first when it runs. What is gone already is no error.
    fn remove<'a>(&'a self, id: &'a str, force: bool) -> Answer<'a, ()>;
    /// Changes the limits of a container in place.
    fn update<'a>(&'a self, id: &'a str, resources: &'a Resources) -> Answer<'a, ()>;
    /// One sample of what a running container uses.
    fn stats<'a>(&'a self, id: &'a str) -> Answer<'a, Stats>;
    /// Unpacks a tar archive under `path` in a container. Only for containers that were created and not started: doing it to a running
    /// one has a long history of escapes.
    fn upload<'a>(&'a self, id: &'a str, path: &'a str, tar: bytes::Bytes) -> Answer<'a, ()>;

    /// The images on this host.
    fn images(&self) -> Answer<'_, Vec<ImageSummary>>;
    /// One image by name or id. [`EngineError::ImageNotFound`] when this host does not have it.
    fn image<'a>(&'a self, reference: &'a str) -> Answer<'a, ImageState>;
    /// Fetches an image and returns what was fetched. `progress` is called as it goes. A pull without progress for a minute is given up.
    fn pull<'a>(
        &'a self,
        reference: &'a str,
        auth: Option<&'a RegistryAuth>,
        progress: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> Answer<'a, ImageState>;
    /// Removes an image. One in use by a container is [`EngineError::Refused`]; one that is gone already is no error.
    fn remove_image<'a>(&'a self, reference: &'a str) -> Answer<'a, ()>;
    /// Loads images from a docker-archive (a tar file).
    fn load(&self, archive: bytes::Bytes) -> Answer<'_, ()>;

    /// What a container wrote, oldest first. With `follow`, ends when the container ends.
    fn logs<'a>(&'a self, id: &'a str, options: &'a LogOptions) -> Answer<'a, Flow<LogEntry>>;
    /// Starts a process in a running container.
    fn exec<'a>(&'a self, id: &'a str, spec: &'a ExecSpec) -> Answer<'a, Session>;
    /// Changes the terminal size of an exec session.
    fn resize_exec<'a>(&'a self, session: &'a str, width: u16, height: u16) -> Answer<'a, ()>;
    /// How an exec session ended; `None` while it runs.
    fn exec_exit<'a>(&'a self, session: &'a str) -> Answer<'a, Option<i64>>;
    /// Connects to the main process of a running container. The session's id is the container's.
    fn attach<'a>(&'a self, id: &'a str, spec: &'a AttachSpec) -> Answer<'a, Session>;
    /// Changes the terminal size of a container's main process.
    fn resize<'a>(&'a self, id: &'a str, width: u16, height: u16) -> Answer<'a, ()>;
    /// Whether a container answers on its ports, where the engine also simulates that. `None`: the network is real, connect and see.
    fn answers<'a>(&'a self, id: &'a str) -> Answer<'a, Option<bool>> {
        let _ = id;
        Box::pin(std::future::ready(Ok(None)))
    }
    /// Finds out once what would otherwise make the first container slow to create. `image` is that of [`pause`].
    fn prepare<'a>(&'a self, image: &'a str) -> Answer<'a, ()> {
        let _ = image;
        Box::pin(std::future::ready(Ok(())))
    }
    /// Says when something happened to a container with these labels. A hint to look, nothing more: hints may be lost.
    fn events<'a>(&'a self, labels: &'a [String]) -> Answer<'a, Flow<Hint>>;
}

/// A host as its engine describes it.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Info {
    /// The host's name.
    pub hostname: String,
    /// Which engine this is: `docker` or `simulated`.
    pub engine: String,
    /// The version of the engine, such as `20.10.24`.
    pub version: String,
    /// The newest API version that the engine speaks, such as `1.41`.
    pub api_version: String,
    /// `linux`.
    pub os: String,
    /// The name of the operating system for people, such as `Debian GNU/Linux 12 (bookworm)`.
    pub os_image: String,
    /// The architecture as Kubernetes names it: `amd64`, `arm64`.
    pub architecture: String,
    /// The kernel's release.
    pub kernel: String,
    /// Processors.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory: u64,
    /// Where the engine keeps its data on the host.
    pub root_dir: String,
    /// Whether containers keep running while the engine is restarted.
    pub live_restore: bool,
}

/// What a running container uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// When the sample was taken.
    pub at: jiff::Timestamp,
    /// Processor time used since the container's start, in nanoseconds.
    pub cpu: u64,
    /// Memory in use without what the kernel could drop at once, in bytes.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes received on all interfaces of the container.
    pub received: u64,
    /// Bytes sent on all interfaces of the container.
    pub sent: u64,
}
