//! A container as it is asked for, and as the engine shows it.
//!
//! [`ContainerSpec`] is an allow-list: a field that is not here cannot be asked for, whatever a manifest says.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What to create.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// The image, by name or by id.
    pub image: String,
    /// The program; `None` takes the image's. `Some` also drops the image's arguments.
    pub entrypoint: Option<Vec<String>>,
    /// The arguments; `None` takes the image's, unless the entrypoint was given.
    pub cmd: Option<Vec<String>>,
    /// Environment in order, as name and value. The engine adds what the image sets and this does not.
    pub env: Vec<(String, String)>,
    /// The directory to start in; `None` takes the image's.
    pub working_dir: Option<String>,
    /// `uid`, `uid:gid` or a name known in the image; `None` takes the image's.
    pub user: Option<String>,
    /// More groups, as numbers.
    pub groups: Vec<i64>,
    /// Labels: the only memory the engine keeps for us. They cannot change later.
    pub labels: BTreeMap<String, String>,
    /// The host name. Refused by the engine together with [`NetworkMode::Container`], where it is the other's.
    pub hostname: Option<String>,
    /// Which network the container sees.
    pub network: NetworkMode,
    /// Which System V IPC and POSIX queues it sees.
    pub ipc: IpcMode,
    /// Which processes it sees.
    pub pid: PidMode,
    /// Ports of the host that lead here. Refused by the engine together with [`NetworkMode::Container`].
    pub ports: Vec<PortBinding>,
    /// Directories and files of the host.
    pub binds: Vec<Bind>,
    /// Directories in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Limits.
    pub resources: Resources,
    /// Capabilities beyond the engine's default set, without `CAP_`.
    pub cap_add: Vec<String>,
    /// Capabilities to take away, without `CAP_`; `ALL` for all.
    pub cap_drop: Vec<String>,
    /// All capabilities and devices: root on the host in all but name.
    pub privileged: bool,
    /// Whether the image's file system is read-only.
    pub read_only_root: bool,
    /// Security options in the engine's words, such as `no-new-privileges` and `seccomp=unconfined`.
    pub security: Vec<String>,
    /// How likely the kernel kills this first when memory runs out: -1000 never, 1000 first. Left out where the host refuses it.
    pub oom_score_adj: Option<i32>,
    /// Lines for `/etc/hosts`, as name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Domains to search.
    pub dns_search: Vec<String>,
    /// Resolver options, such as `ndots:5`.
    pub dns_options: Vec<String>,
    /// The signal that asks for an end; `None` takes the image's, or SIGTERM.
    pub stop_signal: Option<String>,
    /// Whether the main process gets a terminal.
    pub tty: bool,
    /// Whether the main process has a standard input that stays open.
    pub open_stdin: bool,
    /// Whether standard input closes when the first attached client leaves.
    pub stdin_once: bool,
    /// Kernel parameters of the container's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// The size of `/dev/shm`, in bytes.
    pub shm_size: Option<u64>,
    /// Whether an init process of the engine reaps zombies in the container.
    pub init: bool,
}

/// Limits that can also be changed while the container runs. `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Memory, in bytes. Swap is never given beyond it.
    pub memory: Option<u64>,
    /// Relative weight when processors are short; 1024 for one processor.
    pub cpu_shares: Option<u64>,
    /// Processor time per period, in microseconds.
    pub cpu_quota: Option<u64>,
    /// The period, in microseconds.
    pub cpu_period: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Which network a container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The engine's default bridge: an address of its own behind the host's.
    #[default]
    Bridge,
    /// The host's.
    Host,
    /// Loopback only.
    None,
    /// That of another container, by id.
    Container(String),
}

/// Which inter-process communication a container shares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpcMode {
    /// Its own.
    #[default]
    Private,
    /// Its own, and others may join.
    Shareable,
    /// The host's.
    Host,
    /// That of another container, by id, which must be shareable.
    Container(String),
}

/// Which processes a container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidMode {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// Those of another container, by id.
    Container(String),
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of the host that leads to a port of the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    /// The port in the container.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The address on the host; `None` is all of them.
    pub host_ip: Option<String>,
    /// The port on the host.
    pub host_port: u16,
}

/// A directory or file of the host in a container. The source must exist: the engine is not asked to make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// The path on the host.
    pub source: String,
    /// The path in the container.
    pub target: String,
    /// Whether the container may not write.
    pub read_only: bool,
    /// Whether mounts travel between host and container.
    pub propagation: Propagation,
}

/// How mounts below a bind travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the host into the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// A directory in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// The path in the container.
    pub target: String,
    /// The largest size, in bytes.
    pub size: Option<u64>,
    /// The permission bits.
    pub mode: Option<u32>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Status {
    /// Created and never started, or the start failed.
    #[default]
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// The engine is starting it again. Never asked for by us.
    Restarting,
    /// Being removed.
    Removing,
    /// Ended.
    Exited,
    /// The engine failed to remove it.
    Dead,
}

/// A container in a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The full id.
    pub id: String,
    /// The name, without a leading slash.
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// Where it is in its life.
    pub status: Status,
}

/// A container in full.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerState {
    /// The full id.
    pub id: String,
    /// The name, without a leading slash.
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// The id of the image that it was made from.
    pub image_id: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// Where it is in its life.
    pub status: Status,
    /// The process id on the host; 0 unless it runs.
    pub pid: u32,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// When it was last started.
    pub started_at: Option<Timestamp>,
    /// When it last ended.
    pub finished_at: Option<Timestamp>,
    /// How it last ended. Meaningful when it has ended or its start failed.
    pub exit_code: i64,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// What the engine says about a failed start; empty otherwise.
    pub error: String,
    /// The address on the engine's bridge, if it has one.
    pub ip: Option<String>,
    /// Which network it sees: `bridge`, `host`, `none` or `container:<id>`.
    pub network: String,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether it has a standard input.
    pub open_stdin: bool,
    /// Where its `/etc/hosts` lies on the host; empty if the engine does not say.
    pub hosts_path: String,
    /// Where its `/etc/resolv.conf` lies on the host; empty if the engine does not say.
    pub resolv_path: String,
    /// What is mounted in it.
    pub mounts: Vec<Mount>,
}

impl ContainerState {
    /// Whether it runs, frozen or not.
    pub fn is_alive(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused | Status::Restarting)
    }
}

/// Something mounted in a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// The path on the host.
    pub source: String,
    /// The path in the container.
    pub target: String,
    /// Whether the container may not write.
    pub read_only: bool,
}
