//! Carries out what the heart says, and tells it what happens.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::events::Events;
use super::files::Files;
use super::heart::{
    Action, Answer, Call, ConfigRef, Heart, Input, LOOK, ProbeCall, Reply, ServerError, Settings, Ticket, VolumeWork, Work,
};
use super::remember::Home;
use super::tunnel::{Found, Lookup, Missing};
use super::{probe, translate};
use crate::client::{self, Client, Error, Event};
use crate::clock;
use crate::docker::{Engine, EngineError, Operation, Outcome, pause};
use crate::plan::pod::volume::TOKEN;
use crate::plan::pod::{State, spec};

/// How many pulls at a time: Docker unpacks one layer after the other anyway, and more only compete for the line.
const PULLS_AT_ONCE: usize = 2;
/// How many containers are started at a time, per processor: beyond that each start takes longer and none more is done per second.
const STARTS_PER_CPU: usize = 2;
/// How many probes at a time.
const PROBES_AT_ONCE: usize = 32;
/// How long a silent watch is trusted. The server sends a bookmark every 30 s.
const WATCH_QUIET: Duration = Duration::from_secs(75);
/// How much of a log stands in for a termination message.
const WORDS: (u64, usize) = (80, 2048);
/// How long until the engine's events are asked for again.
const EVENTS_AGAIN: Duration = Duration::from_secs(1);

/// Everything that actions need.
pub(super) struct Driver {
    pub(super) settings: Settings,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) files: Files,
    pub(super) home: Home,
    pub(super) client: watch::Receiver<Client>,
    pub(super) heart: Arc<Mutex<Heart>>,
    pub(super) engine_answers: Arc<AtomicBool>,
    /// The image that was brought along, if it was.
    pub(super) builtin_sandbox: bool,
}

struct Hands {
    settings: Settings,
    engine: Arc<dyn Engine>,
    files: Files,
    client: watch::Receiver<Client>,
    inputs: mpsc::UnboundedSender<Input>,
    starts: Semaphore,
    pulls: Semaphore,
    /// When each image was last fetched, so that pods that wait for the same image do not fetch it one after the other.
    pulled: Mutex<BTreeMap<String, tokio::time::Instant>>,
    probes: Semaphore,
    events: Events,
    builtin_sandbox: bool,
}

impl Driver {
    /// Runs until `stop`. Containers keep running afterwards.
    pub(super) async fn run(self, stop: CancellationToken) {
        let (inputs, mut arrived) = mpsc::unbounded_channel();
        let hands = Arc::new(Hands {
            starts: Semaphore::new(STARTS_PER_CPU * self.settings.cpus.max(1) as usize),
            pulls: Semaphore::new(PULLS_AT_ONCE),
            pulled: Mutex::default(),
            probes: Semaphore::new(PROBES_AT_ONCE),
            events: Events::default(),
            settings: self.settings.clone(),
            engine: self.engine.clone(),
            files: self.files.clone(),
            client: self.client.clone(),
            inputs: inputs.clone(),
            builtin_sandbox: self.builtin_sandbox,
        });
        let (kept, mut written) = mpsc::unbounded_channel();
        let mut desk = Desk { hands, home: Arc::new(self.home), behind: BTreeMap::new(), kept };
        let watches = tokio::spawn(watch_pods(self.client.clone(), self.settings.node.clone(), inputs.clone()));
        let hints = tokio::spawn(watch_engine(self.engine.clone(), translate::ours(&self.settings), inputs));
        let mut input = Some(Input::Tick);
        loop {
            while let Some(next) = input.take() {
                let actions = {
                    let mut heart = self.heart.lock();
                    let actions = heart.step(next, clock::now());
                    self.engine_answers.store(heart.engine_answers(), Ordering::Relaxed);
                    actions
                };
                for action in actions {
                    desk.carry_out(action);
                }
                input = arrived.try_recv().ok();
            }
            let due = self.heart.lock().due();
            let pause = due.map_or(Duration::from_secs(3600), |due| {
                Duration::try_from(due.duration_since(clock::now())).unwrap_or(Duration::ZERO)
            });
            input = tokio::select! {
                Some(uid) = written.recv() => {
                    desk.written(&uid);
                    None
                }
                next = arrived.recv() => next,
                // A little later than due rather than a little earlier: timers of the system are coarse.
                () = tokio::time::sleep(pause + Duration::from_millis(1)) => Some(Input::Tick),
                () = stop.cancelled() => break,
            };
        }
        watches.abort();
        hints.abort();
    }
}

/// Begins actions in the order that the heart's contract asks for.
struct Desk {
    hands: Arc<Hands>,
    home: Arc<Home>,
    /// By pod: what waits until its record is on disk.
    behind: BTreeMap<String, VecDeque<Action>>,
    /// Told the pod's uid when it is.
    kept: mpsc::UnboundedSender<String>,
}

impl Desk {
    fn carry_out(&mut self, action: Action) {
        match self.behind.get_mut(&action.uid) {
            Some(queue) => queue.push_back(action),
            None => self.begin(action),
        }
    }

    /// A pod's record is on disk: what waited for it goes on.
    fn written(&mut self, uid: &str) {
        for action in self.behind.remove(uid).into_iter().flatten() {
            self.carry_out(action);
        }
    }

    fn begin(&mut self, action: Action) {
        match action.work {
            // A tombstone is synced, which takes as long as the disk takes. Other pods do not wait for it.
            Work::Remember(record) if record.tombstone.is_some() => {
                self.behind.insert(action.uid.clone(), VecDeque::new());
                let (home, kept) = (self.home.clone(), self.kept.clone());
                tokio::task::spawn_blocking(move || {
                    regret(home.keep(&record));
                    let _ = kept.send(action.uid);
                });
            }
            Work::Remember(record) => regret(self.home.keep(&record)),
            Work::Forget { uid } => regret(self.home.forget(&uid)),
            work => {
                let hands = self.hands.clone();
                tokio::spawn(async move { hands.work(action.ticket, work).await });
            }
        }
    }
}

fn regret(kept: anyhow::Result<()>) {
    if let Err(error) = kept {
        // Going on without memory risks to start again what was deleted; stopping risks everything that runs. The server still
        // knows what is deleted, so we go on.
        tracing::error!(error = format!("{error:#}"), "cannot keep what has to be remembered");
    }
}

impl Hands {
    async fn work(&self, ticket: Ticket, work: Work) {
        let reply = match work {
            Work::Engine(operation) => Reply::Engine(self.engine(&operation).await),
            Work::SandboxImage => Reply::Engine(self.sandbox_image().await),
            Work::Server(call) => {
                let began = tokio::time::Instant::now();
                let reply = self.server(&call).await;
                tracing::trace!(call = call.name(), us = began.elapsed().as_micros(), error = ?reply.as_ref().err(), "server");
                Reply::Server(reply)
            }
            Work::Probe(call) => Reply::Probe(self.probe(&call).await),
            Work::Sleep(time) => {
                tokio::time::sleep(Duration::try_from(time).unwrap_or(Duration::ZERO)).await;
                Reply::Probe(Ok(()))
            }
            Work::Volumes(work) => Reply::Volumes(self.volumes(*work).await),
            Work::RemoveVolumes { uid } => {
                let files = self.files.clone();
                let removed = tokio::task::spawn_blocking(move || files.remove(&uid)).await;
                Reply::Volumes(removed.map_err(|e| e.to_string()).and_then(|r| r.map_err(|e| format!("{e:#}"))))
            }
            Work::LastWords { container, file, log } => Reply::Words(self.last_words(&container, &file, log).await),
            Work::Remember(_) | Work::Forget { .. } => return,
        };
        let _ = self.inputs.send(Input::Done { ticket, reply });
    }

    async fn engine(&self, operation: &Operation) -> Result<Outcome, EngineError> {
        let permits = match operation {
            Operation::Start { .. } | Operation::Remove { .. } => Some(&self.starts),
            Operation::Pull { .. } => Some(&self.pulls),
            Operation::Run { .. } => Some(&self.probes),
            _ => None,
        };
        let asked = tokio::time::Instant::now();
        let _permit = match permits {
            Some(permits) => permits.acquire().await.ok(),
            None => None,
        };
        if let Operation::Pull { reference, .. } = operation
            && self.pulled.lock().get(reference).is_some_and(|when| *when >= asked)
        {
            // It came for somebody else while this one waited in line: as fresh as a pull of its own would be.
            return self.engine.image(reference).await.map(|image| Outcome::Image(Box::new(image)));
        }
        if let Operation::Create { spec, .. } = operation
            && let Err(error) = self.files.before_create(spec)
        {
            return Err(EngineError::Refused { message: format!("{error:#}") });
        }
        let began = tokio::time::Instant::now();
        let result = if operation.is_read() {
            let late = EngineError::Deadline { call: operation.name(), after: LOOK };
            tokio::time::timeout(LOOK, operation.perform(&*self.engine)).await.unwrap_or(Err(late))
        } else {
            operation.perform(&*self.engine).await
        };
        if let (Operation::Pull { reference, .. }, Ok(_)) = (operation, &result) {
            self.pulled.lock().insert(reference.clone(), tokio::time::Instant::now());
        }
        let (us, waited) = (began.elapsed().as_micros(), began.duration_since(asked).as_micros());
        tracing::debug!(operation = operation.name(), us, waited, error = ?result.as_ref().err(), "engine");
        result
    }

    async fn sandbox_image(&self) -> Result<Outcome, EngineError> {
        if self.builtin_sandbox {
            return pause::ensure_pause_image(&*self.engine).await.map(|_| Outcome::Done);
        }
        let operation = Operation::Pull { reference: self.settings.sandbox_image.clone(), auth: None };
        self.engine(&operation).await.map(|_| Outcome::Done)
    }

    async fn probe(&self, call: &ProbeCall) -> Result<(), String> {
        let _permit = self.probes.acquire().await.ok();
        match self.engine.answers(&call.container).await {
            Ok(Some(true)) => Ok(()),
            Ok(Some(false)) => Err("connection refused".to_owned()),
            _ => probe::run(call).await,
        }
    }

    async fn volumes(&self, work: VolumeWork) -> Result<(), String> {
        if work.volumes.is_empty() {
            return Ok(());
        }
        let files = self.files.clone();
        let written = tokio::task::spawn_blocking(move || files.write(&work)).await;
        written.map_err(|e| e.to_string())?.map_err(|e| format!("{e:#}"))
    }

    async fn last_words(&self, container: &str, file: &str, log: bool) -> String {
        if let Ok(words) = tokio::fs::read(file).await
            && !words.is_empty()
        {
            return String::from_utf8_lossy(&words[words.len().saturating_sub(4096)..]).into_owned();
        }
        if !log {
            return String::new();
        }
        let operation = Operation::LogTail { id: container.to_owned(), lines: WORDS.0, bytes: WORDS.1 };
        match operation.perform(&*self.engine).await {
            Ok(Outcome::Log(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            _ => String::new(),
        }
    }

    async fn server(&self, call: &Call) -> Result<Answer, ServerError> {
        let client = self.client.borrow().clone();
        match call {
            Call::PatchStatus { namespace, name, uid, revision, status } => {
                let patch = json!({"metadata": {"uid": uid, "resourceVersion": revision}, "status": status});
                let pod = client.merge_patch::<Pod>(namespace, name, Some("status"), &patch).await.map_err(failed)?;
                Ok(Answer::Pod(Arc::new(pod)))
            }
            Call::GetPod { namespace, name } => match client.get::<Pod>(namespace, name).await.map_err(failed)? {
                Some(pod) => Ok(Answer::Pod(Arc::new(pod))),
                None => Err(ServerError::NotFound),
            },
            Call::DeletePod { namespace, name, uid } => {
                let options = json!({
                    "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": uid},
                });
                client.delete::<Pod>(namespace, name, &options).await.map_err(failed)?;
                Ok(Answer::Done)
            }
            Call::GetConfig(ConfigRef { namespace, name, token: Some(token), .. }) => {
                let mut request = json!({"spec": {
                    "expirationSeconds": token.wish.seconds,
                    "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": token.pod, "uid": token.uid},
                }});
                if !token.wish.audience.is_empty() {
                    request["spec"]["audiences"] = json!([token.wish.audience]);
                }
                let path = client::path::<ServiceAccount>(namespace, name, Some("token"));
                let answer = client.call(Method::POST, &path, &request).await.map_err(failed)?;
                let text = answer["status"]["token"].as_str().unwrap_or_default();
                if text.is_empty() {
                    return Err(ServerError::Refused("the server answered without a token".to_owned()));
                }
                Ok(Answer::Config(Arc::new([(TOKEN.to_owned(), ByteString(text.as_bytes().to_vec()))].into())))
            }
            Call::GetConfig(ConfigRef { secret, namespace, name, token: None }) => {
                let values = if *secret {
                    let secret = client.get::<Secret>(namespace, name).await.map_err(failed)?.ok_or(ServerError::NotFound)?;
                    secret.data.unwrap_or_default()
                } else {
                    let map = client.get::<ConfigMap>(namespace, name).await.map_err(failed)?.ok_or(ServerError::NotFound)?;
                    let mut values = map.binary_data.unwrap_or_default();
                    values.extend(map.data.into_iter().flatten().map(|(k, v)| (k, ByteString(v.into_bytes()))));
                    values
                };
                Ok(Answer::Config(Arc::new(values)))
            }
            Call::Event(event) => {
                self.events.send(&client, &self.settings.node, event).await.map_err(failed)?;
                Ok(Answer::Done)
            }
        }
    }
}

fn failed(error: Error) -> ServerError {
    match &error {
        Error::Status { code: 404, .. } => ServerError::NotFound,
        Error::Status { code: 409, .. } => ServerError::Conflict,
        Error::Status { code: 500.. | 429, .. } | Error::Unreachable(_) => ServerError::Unavailable(error.to_string()),
        _ => {
            tracing::warn!(%error, cause = ?std::error::Error::source(&error), "the server refuses");
            ServerError::Refused(error.to_string())
        }
    }
}

/// Pods bound to this node, from now on. Begun anew when the certificate was renewed.
async fn watch_pods(mut client: watch::Receiver<Client>, node: String, inputs: mpsc::UnboundedSender<Input>) {
    loop {
        let selector = format!("fieldSelector=spec.nodeName%3D{node}");
        let mut pods = client.borrow_and_update().watch::<Pod>("", &selector, WATCH_QUIET);
        loop {
            let event = tokio::select! {
                event = pods.next() => event,
                changed = client.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
            };
            if let Some(Event::Put(pod)) = &event {
                tracing::trace!(pod = spec::name(pod), revision = pod.metadata.resource_version, "seen");
            }
            let input = match event {
                Some(Event::All(pods)) => Input::Pods(pods.into_iter().map(Arc::new).collect()),
                Some(Event::Put(pod)) => Input::Pod(Arc::new(pod)),
                Some(Event::Gone(pod)) => Input::Gone { uid: spec::uid(&pod).to_owned() },
                None => break,
            };
            if inputs.send(input).is_err() {
                return;
            }
        }
    }
}

/// What the engine says happens. When its stream breaks, everything is looked at again.
async fn watch_engine(engine: Arc<dyn Engine>, labels: Vec<String>, inputs: mpsc::UnboundedSender<Input>) {
    loop {
        if let Ok(mut hints) = engine.events(&labels).await {
            // From here on nothing is missed, so one look now is enough for what was missed before.
            let _ = inputs.send(Input::Relist);
            while let Some(Ok(hint)) = hints.next().await {
                // What we did ourselves we look at anyway. An end is news, and so is a start by another hand.
                if matches!(hint.action.as_str(), "die" | "oom" | "destroy" | "start" | "pause" | "unpause")
                    && inputs.send(Input::Hint { container: hint.container }).is_err()
                {
                    return;
                }
            }
        }
        if inputs.send(Input::Relist).is_err() {
            return;
        }
        tokio::time::sleep(EVENTS_AGAIN).await;
    }
}

/// Finds containers for logs and exec.
pub(super) struct HeartLookup(pub(super) Arc<Mutex<Heart>>);

impl Lookup for HeartLookup {
    fn find<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
        previous: bool,
    ) -> BoxFuture<'a, Result<Found, Missing>> {
        Box::pin(std::future::ready(self.look(namespace, pod, container, previous)))
    }

    fn sandbox<'a>(&'a self, namespace: &'a str, pod: &'a str) -> BoxFuture<'a, Result<String, Missing>> {
        let heart = self.0.lock();
        let found = heart.pod(namespace, pod).ok_or(Missing::Pod).and_then(|pod| {
            let seen = heart.seen(spec::uid(&pod));
            let sandbox = seen.sandbox().filter(|cell| cell.state == State::Running);
            sandbox.map(|cell| cell.id.clone()).ok_or_else(|| Missing::Waiting("ContainerCreating".to_owned()))
        });
        Box::pin(std::future::ready(found))
    }

    fn pods(&self) -> Vec<Pod> {
        let heart = self.0.lock();
        let uids: Vec<&str> = heart.pods().collect();
        uids.into_iter().filter_map(|uid| heart.whole(uid)).collect()
    }
}

impl HeartLookup {
    fn look(&self, namespace: &str, name: &str, container: &str, previous: bool) -> Result<Found, Missing> {
        let heart = self.0.lock();
        let pod = heart.pod(namespace, name).ok_or(Missing::Pod)?;
        let container = match (container, spec::apps(&pod)) {
            ("", [only]) => only.name.clone(),
            ("", _) => pod
                .metadata
                .annotations
                .as_ref()
                .and_then(|a| a.get("kubectl.kubernetes.io/default-container"))
                .cloned()
                .ok_or(Missing::Container)?,
            (name, _) => name.to_owned(),
        };
        spec::definition(&pod, &container).ok_or(Missing::Container)?;
        let uid = spec::uid(&pod);
        let (seen, status) = (heart.seen(uid), heart.status(uid));
        let lists = status.map(|s| [&s.container_statuses, &s.init_container_statuses, &s.ephemeral_container_statuses]);
        let status = lists.into_iter().flatten().flatten().flatten().find(|s| s.name == container);
        let mut ran = seen.attempts(&container).rev().filter(|c| c.state != State::Created || c.started_at.is_some());
        let found = if previous {
            // What the status calls the last state: of a container that waits to be started again that is its newest run.
            let last = status.and_then(|s| s.last_state.as_ref()?.terminated.as_ref()?.container_id.clone());
            let last = last.unwrap_or_default();
            ran.find(|c| last.ends_with(&c.id)).ok_or(Missing::Previous)?
        } else {
            ran.next().ok_or_else(|| {
                let reason = status.and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
                Missing::Waiting(match reason {
                    Some("ErrImagePull") => "image can't be pulled".to_owned(),
                    Some("ImagePullBackOff") => "trying and failing to pull image".to_owned(),
                    other => other.unwrap_or("ContainerCreating").to_owned(),
                })
            })?
        };
        Ok(Found::Container(found.id.clone()))
    }
}

/// Where secrets are put for containers: `/run` on most hosts; where that is a disk, the shared memory.
pub(super) fn memory_base() -> PathBuf {
    let places = [Path::new("/run"), Path::new("/dev/shm")];
    places.into_iter().find(|p| is_in_memory(p)).unwrap_or(places[0]).join("portolan")
}

/// When this host was started, as its kernel says.
pub(super) fn booted_at() -> Option<Timestamp> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Timestamp::from_second(seconds.trim().parse().ok()?).ok()
}

/// Where secrets lie must be in memory; where it is not, people should know.
pub(super) fn warn_unless_in_memory(dir: &Path) {
    if !is_in_memory(dir) {
        tracing::warn!(dir = %dir.display(), "secrets will be written to a disk: mount a tmpfs there");
    }
}

fn is_in_memory(dir: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let holder = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (point, kind) = (fields.nth(1)?, fields.next()?);
            dir.starts_with(point).then(|| (point.len(), kind.to_owned()))
        })
        .max();
    holder.is_some_and(|(_, kind)| matches!(kind.as_str(), "tmpfs" | "ramfs"))
}

/// A duration for the heart.
pub(super) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
