//! `up`, `server`, `agent` and `kubeconfig`: the doors of the long-running parts.

use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::args::{Agent, Cli, Command, Engine, Root, Server, Timings, Up};
use super::connect::{data_dir, default_dir};
use super::print::{BOLD, Print};
use super::{Context, Explain, Failure, Outcome, fail};
use crate::{agent, server};

/// Worker threads: the server's API and its loops profit from several, a command needs one.
pub(super) fn threads(command: &Command) -> usize {
    let most = std::thread::available_parallelism().map_or(2, usize::from);
    match command {
        Command::Up(_) | Command::Server(_) => most.clamp(2, 8),
        Command::Agent(_) | Command::Bench(_) => most.clamp(1, 2),
        // They may have a hundred thousand objects to read.
        Command::Plan(_) | Command::Diff(_) => most.clamp(1, 4),
        _ => 1,
    }
}

/// Sends what the parts log to stderr. PORTOLAN_LOG says how much (`info`, `portolan::git=debug`); PORTOLAN_LOG_FORMAT=json writes JSON.
pub(super) fn log(cli: &Cli, print: &Print) {
    let serves = matches!(cli.command, Command::Up(_) | Command::Server(_) | Command::Agent(_));
    // That a server is away, or is asked for its certificate before there is one to trust, is ours to say, and we do, once. Libraries
    // that say it too, each time, are heard from the first -v on.
    let usual = match (serves, cli.global.verbose) {
        (true, 0) => "warn,kube_client=off,ureq=off,ureq_proto=off,rustls=error,portolan=info",
        (true, 1) => "info,portolan=debug",
        (false, 0) => "error,kube_client=off",
        (false, 1) => "warn,portolan=info",
        _ => "debug,portolan=trace",
    };
    let filter = EnvFilter::try_from_env("PORTOLAN_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(print.talk_color());
    if std::env::var("PORTOLAN_LOG_FORMAT").is_ok_and(|f| f == "json") {
        let _ = builder.json().try_init();
    } else {
        let _ = builder.with_target(false).try_init();
    }
}

/// Takes as many open files as this process may have. The usual soft limit of 1,024 is for programs that use `select`; a server has a
/// file for each connection, and agents keep theirs open.
pub(super) fn many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("raise the limit of open files: {error}");
    }
}

/// Cancelled by the first SIGINT or SIGTERM. The second one ends the process at once.
fn stop_on_signal(print: &Print) -> Result<CancellationToken, Failure> {
    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (told, print) = (stop.clone(), print.clone());
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        print.say("stopping in order; once more stops at once");
        told.cancel();
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        std::process::exit(130);
    });
    Ok(stop)
}

/// A repository as the server takes it: local paths become absolute.
pub(super) fn repository(text: &str) -> Result<String, Failure> {
    let path = text.strip_prefix("file://").unwrap_or(text);
    let local = path.starts_with(['/', '.', '~']) || (!text.contains(':') && Path::new(text).exists());
    if !local {
        return Ok(text.to_owned());
    }
    let absolute = std::fs::canonicalize(path).doing(format_args!("find the repository {path}"))?;
    Ok(absolute.display().to_string())
}

/// The git repository around a directory: the directory that holds `.git`, or a bare one.
pub(super) fn around(start: &Path) -> Option<PathBuf> {
    let start = std::fs::canonicalize(start).ok()?;
    let bare = |d: &Path| d.join("HEAD").is_file() && d.join("objects").is_dir() && d.join("refs").is_dir();
    start.ancestors().find(|d| d.join(".git").exists() || bare(d)).map(Path::to_owned)
}

fn server_options(
    cx: &Context,
    root: Root,
    listen: std::net::SocketAddr,
    names: Vec<String>,
    timings: &Timings,
) -> Result<server::Options, Failure> {
    let repository = root.repo.as_deref().map(repository).transpose()?;
    if repository.is_none() && (root.path.is_some() || root.revision.is_some()) {
        return fail("--path and --revision say something about a repository, and none is given", "add --repo");
    }
    Ok(server::Options {
        listen,
        names,
        repository,
        revision: root.revision,
        path: root.path,
        control: loops(timings),
        ..server::Options::new(data_dir(cx))
    })
}

/// What the operator chose for the server's loops; the rest is as usual.
fn loops(timings: &Timings) -> server::Loops {
    // The words were checked when the command line was read.
    let strategy = timings.strategy.parse().unwrap_or_default();
    let mut options = server::Loops { strategy, ..server::Loops::default() };
    options.nodes.grace = SignedDuration::try_from(timings.node_lease).unwrap_or(options.nodes.grace);
    options.nodes.between_hosts =
        SignedDuration::try_from_secs_f64(timings.eviction_rate.recip()).unwrap_or(options.nodes.between_hosts);
    options.nodes.toleration = SignedDuration::try_from(timings.eviction_after).unwrap_or(options.nodes.toleration);
    options
}

pub(super) async fn server(cx: &Context, args: Server) -> Outcome {
    many_files();
    let mut options = server_options(cx, args.root, args.listen, args.names, &args.timings)?;
    options.retention.changes = args.keep_changes;
    args.access.choose(&mut options)?;
    let stop = stop_on_signal(&cx.print)?;
    let dir = options.data_dir.clone();
    let server = server::start(options, stop).await.doing("start the server")?;
    cx.print.say(format_args!("the server listens at {}", cx.print.paint_talk(BOLD, &server.url)));
    let data = if dir == default_dir("portolan") { String::new() } else { format!(" --data-dir {}", dir.display()) };
    cx.print.say(format_args!("hosts join with the token that `portolan token create{data}` prints"));
    server.finished().await.doing("run the server")?;
    Ok(0)
}

/// The engine and what the host is called.
fn agent_options(engine: Engine, dir: &Path) -> Result<agent::Options, Failure> {
    let choice = match engine.engine.as_str() {
        "simulated" => agent::engine::Choice::Simulated {
            directory: dir.join("simulated"),
            hostname: engine.node_name.clone().unwrap_or_else(|| "simulated".to_owned()),
        },
        _ => {
            if !engine.docker.exists() {
                return fail(
                    format!("there is no Docker socket at {}", engine.docker.display()),
                    "start Docker, name its socket with --docker, or try things out with --engine simulated",
                );
            }
            agent::engine::Choice::Docker { socket: engine.docker.clone() }
        }
    };
    let mut options = agent::Options::new(agent::engine::open(&choice).doing("set up the engine")?, dir.to_owned());
    options.node_name = engine.node_name;
    options.labels = engine.labels.into_iter().collect();
    options.taints = engine.taints;
    options.max_pods = engine.max_pods;
    Ok(options)
}

pub(super) async fn agent(cx: &Context, args: Agent) -> Outcome {
    let dir = cx.global.data_dir.clone().unwrap_or_else(|| default_dir("portolan-agent"));
    let mut options = agent_options(args.engine, &dir)?;
    options.server = args.server;
    options.token = args.token;
    options.node_ip = args.node_ip;
    options.renew_every = args.heartbeat;
    options.lease = args.node_lease;
    options.sandbox_image = args.sandbox_image;
    let stop = stop_on_signal(&cx.print)?;
    agent::run(options, stop).await.doing("run the agent")?;
    Ok(0)
}

pub(super) async fn up(cx: &Context, mut args: Up) -> Outcome {
    if args.root.repo.is_none() {
        match around(Path::new(".")) {
            Some(found) => args.root.repo = Some(found.display().to_string()),
            None => {
                return fail(
                    "there is no git repository around the current directory",
                    "give one with --repo, or make one: git init, git add, git commit",
                );
            }
        }
    }
    many_files();
    let data = data_dir(cx);
    let lease = args.timings.node_lease;
    let options = server_options(cx, args.root.clone(), args.listen, Vec::new(), &args.timings)?;
    let mut agent = agent_options(args.engine, &data.join("agent"))?;
    let stop = stop_on_signal(&cx.print)?;
    let server = server::start(options, stop.clone()).await.doing("start the server")?;
    agent.server = Some(server.url.clone());
    agent.token = Some(server.join_token(600).await.doing("make a join token")?);
    agent.lease = lease;
    let say = |text: &str| cx.print.say(text);
    cx.print.say(format_args!("{}", cx.print.paint_talk(BOLD, format!("portolan is up at {}", server.url))));
    let place = args.root.path.as_deref().map_or_else(String::new, |p| format!(", path {p}"));
    say(&format!("  repository  {}{place}", args.root.repo.as_deref().unwrap_or_default()));
    say(&format!("  data        {}", data.display()));
    say("  look        portolan status, portolan get pods -A, portolan hosts");
    say("  kubectl     portolan kubeconfig > FILE; export KUBECONFIG=FILE");
    say("  stop        Ctrl-C; containers keep running");
    let ended = stop.clone();
    let agent = tokio::spawn(async move {
        let done = agent::run(agent, ended.clone()).await;
        // One without the other is of no use here.
        ended.cancel();
        done
    });
    let served = server.finished().await.doing("run the server");
    stop.cancel();
    let agent = agent.await?;
    served?;
    agent.doing("run the agent")?;
    Ok(0)
}

pub(super) fn kubeconfig(cx: &Context) -> Outcome {
    let dir = data_dir(cx);
    let text = server::admin_kubeconfig(&dir)
        .doing(format_args!("find the server's kubeconfig in {}", dir.display()))
        .hint("run this on the server's machine, as the user who runs the server, with the same --data-dir")?;
    cx.print.out(text);
    Ok(0)
}
