//! One host: its pods, made real by the container engine.
//!
//! [`heart`] decides, synchronously and without touching anything; the driver here carries out what it says: calls of the engine,
//! requests to the server, probes, files. The agent is a client of the Kubernetes API and nothing else. It remembers its pods on disk,
//! keeps them running while the server is away, and adopts its containers after its own restart.
//!
//! You will not find here: the store, or which pod belongs where.

mod driver;
pub mod engine;
mod events;
mod files;
pub mod heart;
pub(crate) mod identity;
mod node;
mod probe;
mod remember;
pub mod translate;
pub mod tunnel;

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::clock;
use crate::docker::{Engine, pause};
use identity::Known;
use remember::Home;

/// How to run an agent.
#[derive(Clone)]
pub struct Options {
    /// The server, `https://host:port`. Needed for the first start; remembered afterwards.
    pub server: Option<String>,
    /// The join token, for the first start.
    pub token: Option<String>,
    /// The node's name; the host's name when absent.
    pub node_name: Option<String>,
    /// The host's address as others reach it; found out when absent.
    pub node_ip: Option<String>,
    /// Labels for the node.
    pub labels: BTreeMap<String, String>,
    /// Taints for the node, as `key=value:Effect` or `key:Effect`.
    pub taints: Vec<String>,
    /// Where everything is kept that must survive: certificate, pods, tombstones. Made with mode 0700 when absent.
    pub data_dir: PathBuf,
    /// Where secrets are written for containers; should lie in memory. `None` takes one below `/run`, or below `/dev/shm` where
    /// `/run` is a disk.
    pub run_dir: Option<PathBuf>,
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// The image of the sandbox container; `None` is one that the agent brings along.
    pub sandbox_image: Option<String>,
    /// How often the lease is renewed. Default 10 s.
    pub renew_every: Duration,
    /// How long the lease lasts, in whole seconds. Default 40 s.
    pub lease: Duration,
    /// How often everything is listed, in case a hint was lost. Default 10 s.
    pub relist_every: Duration,
    /// How many pods the node offers to run. Default 110.
    pub max_pods: u32,
}

impl Options {
    /// The defaults, for an engine and a data directory.
    pub fn new(engine: Arc<dyn Engine>, data_dir: PathBuf) -> Options {
        Options {
            server: None,
            token: None,
            node_name: None,
            node_ip: None,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            data_dir,
            run_dir: None,
            engine,
            sandbox_image: None,
            renew_every: Duration::from_secs(10),
            lease: Duration::from_secs(40),
            relist_every: Duration::from_secs(10),
            max_pods: 110,
        }
    }
}

/// How long to wait before an engine that does not answer is asked again.
const ENGINE_AGAIN: Duration = Duration::from_secs(1);
/// How long the server is given after a start before the pods on disk are believed without it.
const SERVER_WAIT: Duration = Duration::from_secs(15);
/// How often a renewal that failed is tried again.
const RENEW_AGAIN: Duration = Duration::from_secs(60);

/// Runs an agent until `stop`. Containers keep running afterwards.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let home = Home::open(&options.data_dir)?;
    let Some(info) = engine_info(&*options.engine, &stop).await else { return Ok(()) };
    let known = match Known::load(&home.identity(), options.server.as_deref())? {
        Some(known) => known,
        None => {
            let server = options.server.as_deref().context("the first start needs the server's address (--server)")?;
            let token = options.token.as_deref().context("the first start needs a join token (--token)")?;
            let node = options.node_name.clone().unwrap_or_else(|| info.hostname.clone()).to_lowercase();
            Known::join(&home.identity(), server, token, &node, &stop).await?
        }
    };
    if let Some(name) = options.node_name.as_ref().filter(|name| **name != known.node) {
        bail!("this directory belongs to the node {}, not {name}", known.node);
    }
    let node = known.node.clone();
    let address = match &options.node_ip {
        Some(address) => address.clone(),
        None => node::own_address(&known.server).await.unwrap_or_default(),
    };
    let (sandbox_image, builtin_sandbox) = match &options.sandbox_image {
        Some(image) => (image.clone(), false),
        None => (sandbox_image(&*options.engine, &stop).await, true),
    };
    let memory = match &options.run_dir {
        Some(dir) => dir.clone(),
        None => driver::memory_base().join(format!("{}-{node}", known.cluster()?)),
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(&memory)
        .with_context(|| format!("make {}", memory.display()))?;
    driver::warn_unless_in_memory(&memory);

    let settings = heart::Settings {
        node: node.clone(),
        node_ip: address.clone(),
        api: api_for_pods(&known.server),
        cluster: known.cluster()?,
        sandbox_image,
        pods_dir: home.pods().display().to_string(),
        memory_dir: memory.display().to_string(),
        relist_every: driver::signed(options.relist_every),
        server_wait: driver::signed(SERVER_WAIT),
        cpus: info.cpus,
        memory: info.memory,
        booted_at: driver::booted_at(),
    };
    let files = files::Files { pods: home.pods(), memory: memory.clone() };
    let remembered = heart::Remembered { volumes: files.pods(), ..home.recall()? };
    tracing::info!(node, server = known.server, pods = remembered.records.len(), "the agent starts");
    let heart = Arc::new(Mutex::new(heart::Heart::new(settings.clone(), remembered, clock::now())));
    let engine_answers = Arc::new(AtomicBool::new(true));
    let (clients, client) = watch::channel(Client::connect(known.access())?);
    let access = Arc::new(Mutex::new(known.access()));

    let own = CancellationToken::new();
    let _end_all = own.clone().drop_guard();
    let tunnel = {
        let (node, engine, own) = (node.clone(), options.engine.clone(), own.clone());
        let ours = translate::ours(&settings);
        let lookup = Arc::new(driver::HeartLookup(heart.clone()));
        let access = access.clone();
        tokio::spawn(async move { tunnel::run(move || access.lock().clone(), &node, engine, lookup, ours, own).await })
    };
    let renewal = tokio::spawn(renew(known, home.identity(), clients, access));
    let host = node::Host { node, address, info, options: options.clone(), engine_answers: engine_answers.clone() };
    let heartbeat = tokio::spawn(host.run(client.clone(), own.clone()));
    let engine = options.engine.clone();
    driver::Driver { settings, engine, files, home, client, heart, engine_answers, builtin_sandbox }.run(stop).await;
    own.cancel();
    renewal.abort();
    let _ = tokio::join!(tunnel, heartbeat);
    Ok(())
}

/// Where programs in pods find the server: where this host does, unless that is the host itself.
fn api_for_pods(server: &str) -> Option<(String, String)> {
    let address: http::Uri = server.parse().ok()?;
    let host = address.host()?.trim_start_matches('[').trim_end_matches(']');
    let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    (!loopback).then(|| (host.to_owned(), address.port_u16().unwrap_or(443).to_string()))
}

/// The host as its engine describes it, once it answers; `None` when stopped before.
async fn engine_info(engine: &dyn Engine, stop: &CancellationToken) -> Option<crate::docker::Info> {
    let mut said = false;
    loop {
        match engine.info().await {
            Ok(info) => return Some(info),
            Err(error) if !said => {
                said = true;
                tracing::warn!(%error, "waiting for the container engine");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(ENGINE_AGAIN) => {}
            () = stop.cancelled() => return None,
        }
    }
}

/// Sees to the sandbox's image before the first pod needs it.
async fn sandbox_image(engine: &dyn Engine, stop: &CancellationToken) -> String {
    loop {
        match pause::ensure_pause_image(engine).await {
            Ok(id) => {
                if let Err(error) = engine.prepare(&id).await {
                    tracing::debug!(%error, "the engine could not be prepared");
                }
                return id;
            }
            Err(error) => {
                tracing::warn!(%error, "the sandbox's image cannot be loaded");
                if error.outlook() == crate::docker::Outlook::Permanent {
                    return pause::name().to_owned();
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(ENGINE_AGAIN) => {}
            () = stop.cancelled() => return pause::name().to_owned(),
        }
    }
}

/// Renews the certificate after two thirds of its life, again and again.
async fn renew(mut known: Known, dir: PathBuf, clients: watch::Sender<Client>, access: Arc<Mutex<crate::client::Access>>) {
    loop {
        let wait = match known.renew_at() {
            Ok(at) => Duration::try_from(at.duration_since(clock::now())).unwrap_or(Duration::ZERO),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the certificate cannot be read and is not renewed");
                return;
            }
        };
        // In pieces: a host that slept must not sleep on.
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(Duration::from_secs(3600))).await;
            continue;
        }
        match known.renew(&dir).await.and_then(|fresh| Ok((Client::connect(fresh.access())?, fresh))) {
            Ok((client, fresh)) => {
                tracing::info!("the certificate is renewed");
                *access.lock() = fresh.access();
                known = fresh;
                let _ = clients.send(client);
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the certificate is not renewed yet");
                tokio::time::sleep(RENEW_AGAIN).await;
            }
        }
    }
}
