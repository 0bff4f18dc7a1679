//! Starts, supervises and stops the server: store, certificates, loops, git, API. Decides nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use crate::api::audit;
pub use crate::api::authn::account::ISSUER;
pub use crate::api::authn::oidc;
use crate::api::authority::{Authority, Pair, private_directory, write_private};
use crate::api::{Api, Clock, Settings, auth, join, listen};
pub use crate::control::Options as Loops;
use crate::control::fetch::Fetcher;
use crate::control::release::ReleaseLoop;
use crate::control::{self, Ids};
use crate::git::Mirrors;
use crate::object::admit::{self, Stamp};
use crate::object::ours::{Application, SYSTEM_NAMESPACE};
use crate::object::{Key, kind_of};
pub use crate::store::Retention;
use crate::store::{ConflictKind, Store, Txn};
use crate::{clock, store};

/// How long a typed object is kept at least: loops that look at the same version do so within milliseconds.
const DECODED_FOR: Duration = Duration::from_secs(1);
/// Namespaces that are always there.
const NAMESPACES: [&str; 4] = ["default", "kube-system", auth::LEASE_NAMESPACE, SYSTEM_NAMESPACE];
/// The name of the Application that the command line describes.
pub const ROOT: &str = "root";

/// How to run a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept that must survive: the store, the authority, the mirrors. Made with mode 0700 when absent.
    pub data_dir: PathBuf,
    /// Where to listen, `0.0.0.0:6443`. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// More names and addresses for the server's certificate.
    pub names: Vec<String>,
    /// The repository of the root Application; without one no Application is made.
    pub repository: Option<String>,
    /// Its branch, tag or commit.
    pub revision: Option<String>,
    /// The directory within it.
    pub path: Option<String>,
    /// Whether to keep everything in memory and nothing on disk but certificates: for tests and benchmarks.
    pub in_memory: bool,
    /// How much of the past is kept for watches to go on from.
    pub retention: Retention,
    /// What the loops may choose from.
    pub control: control::Options,
    /// Who the tokens of service accounts say has made them; [`ISSUER`] when empty.
    pub issuer: String,
    /// The identity provider whose people may come.
    pub oidc: Option<oidc::Options>,
    /// Where requests are recorded.
    pub audit: Option<audit::Options>,
}

impl Options {
    /// The defaults for a data directory: all interfaces, port 6443, no repository.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Options {
            data_dir: data_dir.into(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 6443),
            names: Vec::new(),
            repository: None,
            revision: None,
            path: None,
            in_memory: false,
            retention: Retention::default(),
            control: control::Options::default(),
            issuer: ISSUER.to_owned(),
            oidc: None,
            audit: None,
        }
    }
}

/// A server that runs.
pub struct Server {
    /// Where it can be reached from this machine, `https://127.0.0.1:6443`.
    pub url: String,
    /// The certificate of its authority, PEM.
    pub authority: String,
    /// A kubeconfig with all rights, YAML.
    pub kubeconfig: String,
    /// The API, for callers in the same process that need more than requests.
    pub api: Api,
    fingerprint: String,
    audit: Option<audit::Log>,
    store: Store,
    serving: JoinHandle<()>,
    loops: JoinHandle<()>,
    stop: CancellationToken,
}

impl Server {
    /// Makes a join token that is good for `seconds`.
    pub async fn join_token(&self, seconds: i64) -> anyhow::Result<String> {
        let (id, secret) = join::new_token();
        let now = clock::now();
        let expires = now + SignedDuration::from_secs(seconds);
        let value = join::token_secret(&id, &secret, expires);
        let mut txn = Txn::new();
        txn.create(
            admit::create(kind_of::<core::Secret>(), value, &Stamp { uid: Ids::system().uid(), now })
                .context("make a join token")?,
        );
        let committed = self.store.commit(txn).context("make a join token")?;
        self.store.until_durable(committed.revision).await.context("make a join token")?;
        Ok(format!("{id}.{secret}.{}", self.fingerprint))
    }

    /// Waits until the server has stopped in order after `stop`: no new requests, those at work finish, the loops end, the store is
    /// written out.
    ///
    /// # Errors
    /// The store failed. The server has stopped then, because it could promise nothing any more.
    pub async fn finished(self) -> anyhow::Result<()> {
        let Server { store, serving, loops, stop, audit, .. } = self;
        let broken = tokio::select! {
            broken = store.until_broken() => Some(broken),
            () = stop.cancelled() => None,
        };
        stop.cancel();
        serving.await.context("serve the API")?;
        loops.await.context("run the loops")?;
        if let Some(audit) = audit {
            audit.flush().await;
        }
        // It waits for the disk, and a disk can be slow.
        tokio::task::spawn_blocking(move || store.close()).await.context("close the store")?;
        match broken {
            Some(broken) => Err(anyhow::Error::new(broken).context("the store failed; the server has stopped")),
            None => Ok(()),
        }
    }
}

/// Starts a server. Returns when it accepts requests; it runs until `stop`.
pub async fn start(options: Options, stop: CancellationToken) -> anyhow::Result<Server> {
    private_directory(&options.data_dir)?;
    let store = open_store(&options)?;
    let now: Clock = Arc::new(clock::now);
    let pki = options.data_dir.join("pki");
    let authority = Arc::new(Authority::open(&pki, now.clone())?);

    let listener = TcpListener::bind(options.listen).await.with_context(|| format!("listen on {}", options.listen))?;
    let address = listener.local_addr().context("read the address that was bound")?;
    let tls = authority.listener(names(&options, address))?;
    let url = format!("https://{}", reachable(address));
    let admin = authority.administrator(&pki)?;
    let kubeconfig = kubeconfig(&url, authority.pem(), &admin);
    write_private(&options.data_dir.join("admin.kubeconfig"), &kubeconfig)?;

    prepare(&store, &options)?;
    // Nobody may be shown what is not on disk: not even the first namespaces.
    store.until_durable(store.revision()).await.context("write the first objects")?;

    let settings = settings(&options)?;
    let audit = settings.audit.clone();
    let api = Api::with_settings(store.clone(), now, Some(authority.clone()), settings, stop.clone());
    let serving = tokio::spawn(listen::serve(api.clone(), listener, tls, stop.clone()));
    let mirrors = options.data_dir.join("mirrors");
    let mirrors = Mirrors::open(&mirrors).with_context(|| format!("open the mirrors in {}", mirrors.display()))?;
    let chosen = control::Options { certificate: Some(authority.pem().to_owned()), ..options.control.clone() };
    let mut loops = control::loops(&chosen);
    loops.push(Box::new(ReleaseLoop::new(Box::new(Fetcher::new(mirrors)))));
    tokio::spawn(let_go(stop.clone()));
    tokio::spawn(store.clone().pack(stop.clone()));
    let loops = tokio::spawn(control::drive(loops, store.clone(), stop.clone().cancelled_owned()));
    tracing::info!(%address, "the server is ready");
    Ok(Server {
        url,
        authority: authority.pem().to_owned(),
        fingerprint: authority.fingerprint(),
        kubeconfig,
        api,
        audit,
        store,
        serving,
        loops,
        stop,
    })
}

/// Lets typed objects go that nobody has asked for lately.
async fn let_go(stop: CancellationToken) {
    let mut ticks = tokio::time::interval(DECODED_FOR);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        crate::object::decoded::age();
    }
}

fn settings(options: &Options) -> anyhow::Result<Settings> {
    let oidc = options.oidc.clone().map(oidc::Provider::new).transpose().context("set up the identity provider")?;
    let audit = options.audit.clone().map(audit::Log::open).transpose()?;
    let issuer = if options.issuer.is_empty() { ISSUER.to_owned() } else { options.issuer.clone() };
    Ok(Settings { issuer, oidc: oidc.map(Arc::new), audit })
}

/// Runs a server until `stop`, then stops in order.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    start(options, stop).await?.finished().await
}

/// The administrator's kubeconfig that the server in this directory wrote when it started.
pub fn admin_kubeconfig(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join("admin.kubeconfig");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(anyhow::Error::new(error).context(format!("no server has been started in {} yet", data_dir.display())))
        }
        Err(error) => Err(anyhow::Error::new(error).context(format!("read {}", path.display()))),
    }
}

fn open_store(options: &Options) -> anyhow::Result<Store> {
    if options.in_memory {
        return Ok(Store::memory());
    }
    let directory = options.data_dir.join("store");
    let engine = store::engine::fjall::open(&directory).with_context(|| format!("open the store in {}", directory.display()))?;
    Store::open_keeping(engine, options.retention).with_context(|| format!("read the store in {}", directory.display()))
}

/// What is there from the beginning: namespaces, and the root Application as the command line describes it.
fn prepare(store: &Store, options: &Options) -> anyhow::Result<()> {
    let now = clock::now();
    let mut ids = Ids::system();
    for name in NAMESPACES {
        let value = json!({"metadata": {"name": name}});
        let draft = admit::create(kind_of::<core::Namespace>(), value, &Stamp { uid: ids.uid(), now })
            .with_context(|| format!("make the namespace {name}"))?;
        let mut txn = Txn::new();
        txn.create(draft);
        match store.commit(txn) {
            Err(conflict) if conflict.kind != ConflictKind::Exists => {
                return Err(anyhow::Error::new(conflict).context(format!("make the namespace {name}")));
            }
            _ => {}
        }
    }
    auth::defaults::reconcile(store, now)?;
    let Some(repository) = &options.repository else { return Ok(()) };
    root(store, repository, options, now, &mut ids).context("make the root Application")
}

fn root(store: &Store, repository: &str, options: &Options, now: Timestamp, ids: &mut Ids) -> anyhow::Result<()> {
    // A path means the directory that the operator was in, not the one that the server happens to run in.
    let repository = match crate::git::local_path(repository) {
        Some(path) => std::path::absolute(&path).unwrap_or(path).display().to_string(),
        None => repository.to_owned(),
    };
    let mut source = json!({"repository": repository});
    for (name, value) in [("revision", &options.revision), ("path", &options.path)] {
        if let Some(value) = value {
            source[name] = value.as_str().into();
        }
    }
    let kind = kind_of::<Application>();
    let key = Key::new(kind, SYSTEM_NAMESPACE, ROOT);
    let mut txn = Txn::new();
    match store.get(&key) {
        None => {
            let value = json!({"metadata": {"name": ROOT, "namespace": SYSTEM_NAMESPACE}, "spec": {"source": source}});
            txn.create(admit::create(kind, value, &Stamp { uid: ids.uid(), now })?);
        }
        Some(old) => {
            let mut value: Value = old.value();
            for name in ["repository", "revision", "path"] {
                match source.get(name) {
                    Some(wanted) => value["spec"]["source"][name] = wanted.clone(),
                    None => {
                        value["spec"]["source"].as_object_mut().map(|fields| fields.remove(name));
                    }
                }
            }
            if let Some(draft) = admit::update(&old, value, None, now)? {
                txn.update(draft, old.revision);
            }
        }
    }
    store.commit(txn)?;
    Ok(())
}

/// The address under which this machine reaches a listener.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
        // A socket on `::` takes IPv4 as well.
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
        _ => address,
    }
}

/// The names in the server's certificate: what was asked for, and everything by which hosts may know this machine.
fn names(options: &Options, address: SocketAddr) -> Vec<String> {
    let mut names: BTreeSet<String> =
        ["localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
            .into_iter()
            .map(str::to_owned)
            .collect();
    names.extend(options.names.iter().cloned());
    if !address.ip().is_unspecified() {
        names.insert(address.ip().to_string());
    }
    if let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        names.insert(host.trim().to_owned());
    }
    names.extend(interface_addresses().into_iter().map(|ip| ip.to_string()));
    names.into_iter().filter(|name| !name.is_empty()).collect()
}

/// The addresses of this machine's interfaces, as the kernel lists them.
fn interface_addresses() -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    // A local address is a /32 with the remark LOCAL, below the line that names it.
    let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let mut last: Option<IpAddr> = None;
    for line in table.lines() {
        if let Some((_, address)) = line.split_once("|-- ") {
            last = address.trim().parse().ok();
        } else if line.contains("/32 host LOCAL") {
            found.extend(last);
        }
    }
    let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    for line in table.lines() {
        if let Some(Ok(bits)) = line.get(..32).map(|hex| u128::from_str_radix(hex, 16)) {
            found.insert(IpAddr::V6(bits.into()));
        }
    }
    found
}

fn kubeconfig(url: &str, authority: &str, admin: &Pair) -> String {
    let text = |s: &str| STANDARD.encode(s);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: portolan\nclusters:\n- name: portolan\n  cluster:\n    server: {url}\n    \
         certificate-authority-data: {}\ncontexts:\n- name: portolan\n  context:\n    cluster: portolan\n    user: portolan-admin\nusers:\n\
         - name: portolan-admin\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
        text(authority),
        text(&admin.certificate),
        text(&admin.key)
    )
}
