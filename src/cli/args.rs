//! The command line as data: every command, argument and flag, with the help that people read.
//!
//! What a command does is in the file of its name; how times and other values are written is in `value`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use super::value::{duration, key_value, rate};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const WELCOME: &str = "\
Git is the chart, hosts are the harbours. portolan watches a git repository of Kubernetes manifests and makes many hosts with \
Docker look like it: every commit is checked, rolled out step by step, judged, and undone by itself when it was bad.

First steps:
  portolan validate apps                 check manifests; needs nothing but the files
  portolan up --repo . --path apps       server and agent on this machine
  portolan status                        what runs, and what it waits on
  portolan plan --to WORKTREE            what your uncommitted change would do";

/// portolan: from a git push to running containers on many hosts.
#[derive(Debug, Parser)]
#[command(name = "portolan", version, about, long_about = WELCOME, styles = STYLES, max_term_width = 110)]
#[command(propagate_version = true, subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Global {
    /// A kubeconfig file that says where the server is [default: the data directory's, then $KUBECONFIG]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Global options")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Where the server on this machine keeps its data [default: /var/lib/portolan for root, else below ~/.local/share]
    #[arg(long, global = true, value_name = "DIR", env = "PORTOLAN_DATA_DIR", hide_env_values = true, value_hint = ValueHint::DirPath, help_heading = "Global options")]
    pub(super) data_dir: Option<PathBuf>,
    /// When to use colour
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        help_heading = "Global options"
    )]
    pub(super) color: Color,
    /// Say more: -v shows what is done, -vv everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub(super) verbose: u8,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Up(Up),
    Server(Server),
    Agent(Agent),
    /// Make, list and delete tokens with which hosts join
    #[command(subcommand)]
    Token(Token),
    /// Print a kubeconfig with all rights, for kubectl and other clients
    Kubeconfig,

    Validate(Validate),
    Plan(Plan),
    Diff(Diff),

    Sync(Sync),
    Wait(Wait),
    Status(Status),
    History(History),
    Rollback(Rollback),
    Retry(Retry),

    Hosts(Hosts),
    Get(Get),
    Logs(Logs),
    Exec(Exec),

    Sim(Sim),
    Bench(Bench),
    Version(Version),
    Completions(Completions),
}

/// Where the root Application's manifests are.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Root {
    /// The git repository: a local path, https://… or ssh://…
    #[arg(long, value_name = "REPOSITORY")]
    pub(super) repo: Option<String>,
    /// Its branch, tag or commit [default: the repository's default branch]
    #[arg(long, value_name = "REVISION")]
    pub(super) revision: Option<String>,
    /// The directory within it [default: the whole repository]
    #[arg(long, value_name = "PATH")]
    pub(super) path: Option<String>,
}

/// How the server treats hosts and pods.
#[derive(Clone, Debug, Args)]
pub(super) struct Timings {
    /// A host that is not heard of for so long is not ready
    #[arg(long, value_name = "TIME", default_value = "40s", value_parser = duration)]
    pub(super) node_lease: Duration,
    /// Pods of a host that is not ready are replaced elsewhere after so long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(super) eviction_after: Duration,
    /// At most so many hosts a second have their pods replaced: many at once are rather the network's fault than theirs
    #[arg(long, value_name = "HOSTS", default_value_t = 0.1, value_parser = rate)]
    pub(super) eviction_rate: f64,
    /// Which of the hosts that fit a pod gets: spread, binpack, random or round-robin
    #[arg(long, value_name = "STRATEGY", default_value = "spread", value_parser = ["spread", "binpack", "random", "round-robin"])]
    pub(super) strategy: String,
}

/// Run a server and an agent on this machine, in one process.
///
/// Without --repo, the git repository around the current directory is used. Everything is kept below the data directory, so that the next
/// `up` goes on where this one stopped. Containers keep running in between.
#[derive(Debug, Args)]
pub(super) struct Up {
    #[command(flatten)]
    pub(super) root: Root,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6443")]
    pub(super) listen: SocketAddr,
    #[command(flatten)]
    pub(super) timings: Timings,
    #[command(flatten)]
    pub(super) engine: Engine,
}

/// Run a server: it watches the repository and serves the Kubernetes API.
///
/// It needs no other service. Hosts join with a token (`portolan token create`); people and tools connect with a kubeconfig
/// (`portolan kubeconfig`).
#[derive(Debug, Args)]
pub(super) struct Server {
    #[command(flatten)]
    pub(super) root: Root,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:6443")]
    pub(super) listen: SocketAddr,
    /// Another name or address of this server, for its certificate; may be repeated
    #[arg(long = "name", value_name = "NAME")]
    pub(super) names: Vec<String>,
    /// How many changes are kept for watches to go on from; whoever was away for longer has to list again
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(super) keep_changes: usize,
    #[command(flatten)]
    pub(super) timings: Timings,
    #[command(flatten)]
    pub(super) access: super::access::Access,
}

/// What an agent drives.
#[derive(Clone, Debug, Args)]
pub(super) struct Engine {
    /// What runs the containers: docker, or simulated for trying things out without Docker
    #[arg(long, value_name = "ENGINE", default_value = "docker", value_parser = ["docker", "simulated"])]
    pub(super) engine: String,
    /// Docker's socket
    #[arg(long, value_name = "SOCKET", default_value = "/var/run/docker.sock", env = "PORTOLAN_DOCKER", hide_env_values = true, value_hint = ValueHint::FilePath)]
    pub(super) docker: PathBuf,
    /// This host's name in the cluster [default: the host's own name]
    #[arg(long, value_name = "NAME")]
    pub(super) node_name: Option<String>,
    /// A label for this host; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(super) labels: Vec<(String, String)>,
    /// A taint for this host; may be repeated
    #[arg(long = "taint", value_name = "KEY=VALUE:EFFECT")]
    pub(super) taints: Vec<String>,
    /// How many pods this host offers to run
    #[arg(long, value_name = "N", default_value_t = 110)]
    pub(super) max_pods: u32,
}

/// Run an agent: it makes this host run what the server assigns to it.
///
/// Server and token are needed the first time only: the agent gets a certificate and remembers where it belongs. It opens no port. When it
/// stops, its containers keep running, and it finds them again.
#[derive(Debug, Args)]
pub(super) struct Agent {
    /// The server, as this host reaches it
    #[arg(long, value_name = "URL", env = "PORTOLAN_SERVER", hide_env_values = true)]
    pub(super) server: Option<String>,
    /// The token from `portolan token create`
    #[arg(long, value_name = "TOKEN", env = "PORTOLAN_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
    #[command(flatten)]
    pub(super) engine: Engine,
    /// This host's address, as other hosts reach it [default: found out]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) node_ip: Option<String>,
    /// How often the server hears from this host
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(super) heartbeat: Duration,
    /// For how long the server may rely on one such word
    #[arg(long, value_name = "TIME", default_value = "40s", value_parser = duration)]
    pub(super) node_lease: Duration,
    /// Use this image for pods' sandboxes instead of the built-in one
    #[arg(long, value_name = "IMAGE")]
    pub(super) sandbox_image: Option<String>,
}

/// Make, list and delete tokens with which hosts join.
///
/// A token is good for joining and for nothing else. It also carries the fingerprint of the server's certificate authority, so that an
/// agent knows whom it talks to.
#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Print a new token
    Create {
        /// How long it is good for
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
        expires: Duration,
    },
    /// List the tokens that are still good; secrets are not shown
    List {
        #[command(flatten)]
        output: Listing,
    },
    /// Delete a token by its first part
    Delete {
        /// The part of the token before the dot
        id: String,
    },
}

/// Check manifests: everything that is wrong with them, with file and line.
///
/// Needs no server. Exit code 0 when all is well, 1 when something is wrong.
#[derive(Debug, Args)]
pub(super) struct Validate {
    /// Directories or files
    #[arg(value_name = "PATH", default_value = ".", value_hint = ValueHint::AnyPath)]
    pub(super) paths: Vec<PathBuf>,
    /// The namespace of objects that name none
    #[arg(long, short, value_name = "NAMESPACE", default_value = "default")]
    pub(super) namespace: String,
    /// text, or json for tools
    #[arg(long, short, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub(super) output: String,
}

/// Show what a commit would do: changes, pods and their hosts, what is pruned.
///
/// This is the very code that the server runs. With --from, two revisions of a repository are compared and no server is needed: that is for
/// pull requests. Without it, the cluster is asked what is there.
///
/// Exit code 0 when a plan was made and 1 when not; with --detailed-exitcode 0 means no change, 1 an error or a refusal, 2 changes.
#[derive(Debug, Args)]
pub(super) struct Plan {
    /// The Application to plan for; with a server only [default: the one that there is, or root]
    #[arg(value_name = "APP")]
    pub(super) app: Option<String>,
    /// The git repository [default: the Application's, or with --from the one around the current directory]
    #[arg(long, value_name = "REPOSITORY")]
    pub(super) repo: Option<String>,
    /// The directory within it [default: the Application's]
    #[arg(long, value_name = "PATH")]
    pub(super) path: Option<String>,
    /// Compare with this revision rather than with the cluster
    #[arg(long, value_name = "REVISION")]
    pub(super) from: Option<String>,
    /// The revision that would be applied; WORKTREE for the files as they are, committed or not [default: HEAD; without --repo and --from
    /// the Application's own]
    #[arg(long, value_name = "REVISION")]
    pub(super) to: Option<String>,
    /// The namespace of objects that name none [default: the Application's]
    #[arg(long, short, value_name = "NAMESPACE")]
    pub(super) namespace: Option<String>,
    /// With --from: nodes and pods to place on, as `portolan get nodes,pods -A -o json` prints them
    #[arg(long, value_name = "FILE", requires = "from", value_hint = ValueHint::FilePath)]
    pub(super) cluster: Option<PathBuf>,
    /// The server's strategy, to foresee which host gets a pod
    #[arg(long, value_name = "STRATEGY", default_value = "spread", value_parser = ["spread", "binpack", "random", "round-robin"])]
    pub(super) strategy: String,
    /// text, markdown for a pull request, or json
    #[arg(long, short, value_name = "FORMAT", default_value = "text", value_parser = ["text", "markdown", "json"])]
    pub(super) output: String,
    /// Exit with 2 when there are changes
    #[arg(long)]
    pub(super) detailed_exitcode: bool,
}

/// Show how the cluster differs from what git says.
///
/// Like diff(1): exit code 0 when there is no difference, 1 when there is one, 2 on errors.
#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The Application [default: the one that there is, or root]
    #[arg(value_name = "APP")]
    pub(super) app: Option<String>,
    /// Compare with this revision of the repository rather than with the Application's; WORKTREE for the files as they are
    #[arg(long, value_name = "REVISION")]
    pub(super) to: Option<String>,
    /// The git repository [default: the Application's]
    #[arg(long, value_name = "REPOSITORY")]
    pub(super) repo: Option<String>,
}

/// Look at the repository now, rather than at the next interval.
#[derive(Debug, Args)]
pub(super) struct Sync {
    /// The Application [default: the one that there is, or root]
    #[arg(value_name = "APP")]
    pub(super) app: Option<String>,
    /// Wait until the newest commit is healthy. Exit codes as for `portolan wait`
    #[arg(long)]
    pub(super) wait: bool,
    /// Give up waiting after so long
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    pub(super) timeout: Duration,
}

/// Wait until a commit is healthy, or say what became of it.
///
/// Answers for this commit and no other: at once if it is settled, and never because of an older one.
///
/// Exit codes: 0 healthy, 1 the question could not be asked, 3 rolled back, 4 rejected, 5 not settled in time, 6 superseded by a newer
/// commit.
#[derive(Debug, Args)]
pub(super) struct Wait {
    /// The Application [default: the one that there is, or root]
    #[arg(value_name = "APP")]
    pub(super) app: Option<String>,
    /// The commit: an id, or a name in the git repository around the current directory
    #[arg(long, value_name = "COMMIT", default_value = "HEAD")]
    pub(super) commit: String,
    /// Give up after so long
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    pub(super) timeout: Duration,
}

/// Show what runs, its verdict, and what it waits on.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// The Application [default: all]
    #[arg(value_name = "APP")]
    pub(super) app: Option<String>,
    /// text or json
    #[arg(long, short, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub(super) output: String,
}

/// Show all releases: the good ones and the failed attempts.
#[derive(Debug, Args)]
pub(super) struct History {
    /// The Application [default: the one that there is, or root]
    #[arg(value_name = "APP")]
    pub(super) app: Option<String>,
    /// How many, the newest first
    #[arg(long, short = 'c', value_name = "N", default_value_t = 20)]
    pub(super) limit: usize,
    /// Show the evidence of failed releases too
    #[arg(long, short)]
    pub(super) evidence: bool,
    #[command(flatten)]
    pub(super) output: Listing,
}

/// Go back to an earlier release and stay there for a while.
///
/// The release is applied from its record, so git and registry are not needed. Until the pin expires or is removed, git is not followed.
#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// The Application
    #[arg(value_name = "APP")]
    pub(super) app: String,
    /// The release, by name or number [default: the last good one before the one that runs]
    #[arg(value_name = "RELEASE")]
    pub(super) release: Option<String>,
    /// Why, for those who find it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) reason: String,
    /// Follow git again after so long [default: never by itself]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) expires: Option<Duration>,
    /// Remove the pin: follow git again now
    #[arg(long, conflicts_with_all = ["release", "reason", "expires"])]
    pub(super) unpin: bool,
}

/// Try a commit again whose content was judged bad.
#[derive(Debug, Args)]
pub(super) struct Retry {
    /// The Application
    #[arg(value_name = "APP")]
    pub(super) app: String,
}

/// How a list is printed.
#[derive(Clone, Debug, Args)]
pub(super) struct Listing {
    /// table, wide, name, json or yaml
    #[arg(long = "output", short = 'o', value_name = "FORMAT", default_value = "table", value_parser = ["table", "wide", "name", "json", "yaml"])]
    pub(super) format: String,
}

/// List the hosts: their state, room and versions.
#[derive(Debug, Args)]
pub(super) struct Hosts {
    #[command(flatten)]
    pub(super) output: Listing,
}

/// Show objects of the cluster, for people without kubectl.
#[derive(Debug, Args)]
#[command(
    after_help = "Kinds: pods (po), deployments (deploy), replicasets (rs), configmaps (cm), secrets, namespaces (ns), nodes (no), events (ev),\nleases, applications (app), releases, renderings. Several are separated by commas."
)]
pub(super) struct Get {
    /// What: pods, deploy/web, nodes,pods …
    #[arg(value_name = "KIND[/NAME]")]
    pub(super) what: String,
    /// Only these
    #[arg(value_name = "NAME")]
    pub(super) names: Vec<String>,
    /// The namespace
    #[arg(long, short, value_name = "NAMESPACE")]
    pub(super) namespace: Option<String>,
    /// All namespaces
    #[arg(long, short = 'A')]
    pub(super) all_namespaces: bool,
    /// Only objects with these labels: app=web,tier!=cache
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    pub(super) selector: Option<String>,
    /// Only objects with these fields: spec.nodeName=host-1
    #[arg(long, value_name = "SELECTOR")]
    pub(super) field_selector: Option<String>,
    #[command(flatten)]
    pub(super) output: Listing,
}

/// Print what a container wrote.
#[derive(Debug, Args)]
pub(super) struct Logs {
    /// The pod, or deployment/NAME for one of its pods
    #[arg(value_name = "POD")]
    pub(super) pod: String,
    /// The container [default: the first]
    #[arg(value_name = "CONTAINER")]
    pub(super) container: Option<String>,
    /// The namespace
    #[arg(long, short, value_name = "NAMESPACE")]
    pub(super) namespace: Option<String>,
    /// Go on as it writes more
    #[arg(long, short)]
    pub(super) follow: bool,
    /// Of the container that ran before the last restart
    #[arg(long, short)]
    pub(super) previous: bool,
    /// Only the last lines
    #[arg(long, value_name = "N")]
    pub(super) tail: Option<i64>,
    /// Only what is younger than this
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) since: Option<Duration>,
    /// With the time of each line
    #[arg(long)]
    pub(super) timestamps: bool,
}

/// Run a command in a container.
///
/// The exit code is that of the command.
#[derive(Debug, Args)]
pub(super) struct Exec {
    /// The pod
    #[arg(value_name = "POD")]
    pub(super) pod: String,
    /// The container [default: the first]
    #[arg(long, short, value_name = "CONTAINER")]
    pub(super) container: Option<String>,
    /// The namespace
    #[arg(long, short, value_name = "NAMESPACE")]
    pub(super) namespace: Option<String>,
    /// Pass on what is typed
    #[arg(long, short = 'i')]
    pub(super) stdin: bool,
    /// As on a terminal
    #[arg(long, short = 't')]
    pub(super) tty: bool,
    /// The command and its arguments, after --
    #[arg(value_name = "COMMAND", required = true, last = true)]
    pub(super) command: Vec<String>,
}

/// Run the whole system in one thread under a seed, break things, and check what must always hold.
///
/// Needs nothing and touches nothing: git, Docker and time are made up. A failing seed is printed and can be run again.
#[derive(Debug, Args)]
pub(super) struct Sim {
    /// Run this one seed
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    pub(super) seed: Option<u64>,
    /// Run so many seeds
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) seeds: u64,
    /// The first of them
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub(super) from: u64,
    /// For how many simulated minutes things happen and break in each
    #[arg(long, value_name = "N")]
    pub(super) minutes: Option<u32>,
    /// Give a run up after so many events
    #[arg(long, value_name = "N")]
    pub(super) steps: Option<u64>,
    /// Without faults
    #[arg(long)]
    pub(super) calm: bool,
    /// Go on after a seed that failed
    #[arg(long)]
    pub(super) keep_going: bool,
    /// Print how often each thing worth testing happened
    #[arg(long)]
    pub(super) coverage: bool,
    /// Print what happens
    #[arg(long)]
    pub(super) trace: bool,
}

/// Measure this system on this machine.
#[derive(Debug, Args)]
pub(super) struct Bench {
    /// Which: size, plan, api, push, rollout, rest, schedule, fleet, manifests [default: all but the last three]
    #[arg(value_name = "SUBJECT")]
    pub(super) only: Vec<String>,
    /// A Docker host: its name, its socket, and the network namespace in which its agent runs, if it has one; may be repeated
    #[arg(long = "host", value_name = "NAME=SOCKET[@NETNS]")]
    pub(super) hosts: Vec<String>,
    /// The address on which the server listens, reachable from the hosts
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(super) listen: String,
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(super) runs: usize,
    /// How many hollow hosts a fleet has. Of several, separated by commas, each is measured, and charts show what grows
    #[arg(long = "hosts", value_name = "N", default_value = "1000", value_delimiter = ',')]
    pub(super) fleet_hosts: Vec<usize>,
    /// How many pods run on the fleet; there may be several as well [default: 50 for each host]
    #[arg(long, value_name = "P", value_delimiter = ',')]
    pub(super) pods: Vec<usize>,
    /// How many Deployments share the fleet's pods [default: one for a hundred pods]
    #[arg(long, value_name = "D")]
    pub(super) deployments: Option<usize>,
    /// How many manifests the repository of `manifests` has; its pods and hosts are those of a fleet
    #[arg(long, value_name = "M", default_value_t = 10_000)]
    pub(super) manifests: usize,
    /// A shape of `schedule`, such as SchedulingPodAffinity; may be repeated [default: all]
    #[arg(long = "shape", value_name = "NAME")]
    pub(super) shapes: Vec<String>,
    /// How many nodes the shapes of `schedule` have [default: as many as in Kubernetes' largest run, mostly 5000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(usize))]
    pub(super) nodes: Option<usize>,
    /// How the shapes of `schedule` are run: planner (decisions in memory) or api (a real server) [default: both]
    #[arg(long, value_name = "WHAT", value_parser = ["planner", "api"])]
    pub(super) through: Option<String>,
    /// The image that is started
    #[arg(long, value_name = "IMAGE", default_value = "pause")]
    pub(super) image: String,
    /// Keep what the server and the agents log (see PORTOLAN_LOG) in this directory
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    pub(super) logs: Option<PathBuf>,
    /// text (a table in Markdown) or json
    #[arg(long, short, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub(super) output: String,
}

/// Print the version of this program, and of the server if there is one.
#[derive(Debug, Args)]
pub(super) struct Version {
    /// Do not ask the server
    #[arg(long)]
    pub(super) client: bool,
}

/// Print a completion script for a shell.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(super) shell: clap_complete::Shell,
}
