//! A simulated host in real time, behind the same trait as Docker, with a memory on disk.
//!
//! The memory is a snapshot of the machine and the calls since, each written before it is answered. The machine is deterministic, so
//! repeating them gives the same containers, and an agent that comes back after a crash finds them as it would find Docker's.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};

use super::machine::{Costs, Happened, Happening, Machine, Reply};
use super::session;
use crate::docker::pause::untar;
use crate::docker::{
    Answer, AttachSpec, Channel, ContainerSpec, ContainerState, Engine, EngineError, ExecSpec, Flow, Hint, ImageState,
    ImageSummary, Info, LogEntry, LogOptions, Operation, Outcome, Progress, RegistryAuth, Resources, Session, Stats, Summary,
};

/// After so many calls the machine is written anew, so that coming back does not take longer and longer.
const CALLS_PER_SNAPSHOT: usize = 5_000;

/// How a simulated host is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub hostname: String,
    /// Processors.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory: u64,
    /// How long things take.
    pub costs: Costs,
}

/// A [`Machine`] in real time.
#[derive(Clone)]
pub struct SimulatedEngine {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    state: Mutex<State>,
    /// Counts up when anything may have changed.
    pub(super) changed: watch::Sender<u64>,
    happenings: broadcast::Sender<Happening>,
}

struct State {
    machine: Machine,
    journal: Option<Journal>,
    /// Exec sessions that have ended, with their codes.
    exits: BTreeMap<String, Option<i64>>,
    sessions: u64,
}

/// Where the machine is remembered.
struct Journal {
    directory: PathBuf,
    generation: u64,
    file: std::fs::File,
    calls: usize,
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    generation: u64,
    machine: Machine,
}

#[derive(Serialize, Deserialize)]
struct Call {
    at: Timestamp,
    operation: Operation,
}

impl SimulatedEngine {
    /// A host without a memory on disk. Needs a tokio runtime.
    pub fn memory(settings: &Settings) -> SimulatedEngine {
        SimulatedEngine::with(fresh(settings), None)
    }

    /// A host remembered in files of `directory`; a new one if there are none. Settings of a remembered host stay as they were, but for
    /// its costs. Needs a tokio runtime.
    pub fn open(directory: &Path, settings: &Settings) -> std::io::Result<SimulatedEngine> {
        std::fs::create_dir_all(directory)?;
        let (generation, mut machine) = match std::fs::read(directory.join("simulated.json")) {
            Ok(bytes) => {
                let snapshot: Snapshot = serde_json::from_slice(&bytes)?;
                (snapshot.generation, snapshot.machine)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (0, fresh(settings)),
            Err(error) => return Err(error),
        };
        machine.costs = settings.costs;
        if let Ok(text) = std::fs::read_to_string(directory.join(calls_file(generation))) {
            // The last line may be cut off: it was never answered.
            for call in text.lines().map_while(|line| serde_json::from_str::<Call>(line).ok()) {
                machine.apply(&call.operation, call.at);
            }
        }
        machine.take_history();
        let journal = Journal::start(directory, generation + 1, &machine)?;
        Ok(SimulatedEngine::with(machine, Some(journal)))
    }

    fn with(machine: Machine, journal: Option<Journal>) -> SimulatedEngine {
        let state = State { machine, journal, exits: BTreeMap::new(), sessions: 0 };
        // A reader that is further behind has lost some, which a hint may.
        let (happenings, _) = broadcast::channel(1024);
        let inner = Arc::new(Inner { state: Mutex::new(state), changed: watch::Sender::new(0), happenings });
        tokio::spawn(keep_time(Arc::downgrade(&inner)));
        SimulatedEngine { inner }
    }

    /// Looks at the machine, or breaks something in it. What is broken here is not remembered on disk.
    pub fn with_machine<T>(&self, f: impl FnOnce(&mut Machine, Timestamp) -> T) -> T {
        self.inner.with(f)
    }

    async fn call(&self, operation: Operation) -> Result<Outcome, EngineError> {
        let reply = self.inner.call(&operation);
        let wait = reply.at.duration_since(Timestamp::now());
        if let Ok(wait) = Duration::try_from(wait)
            && !wait.is_zero()
        {
            tokio::time::sleep(wait).await;
        }
        reply.result
    }

    fn done<'a>(&'a self, operation: Operation) -> Answer<'a, ()> {
        Box::pin(async move { self.call(operation).await.map(|_| ()) })
    }

    fn asked<'a, T: 'a>(&'a self, operation: Operation, take: fn(Outcome) -> Option<T>) -> Answer<'a, T> {
        Box::pin(async move {
            let outcome = self.call(operation).await?;
            take(outcome)
                .ok_or_else(|| EngineError::Failed { message: "the simulated host gave an answer to another question".into() })
        })
    }
}

fn fresh(settings: &Settings) -> Machine {
    let mut machine = Machine::small(&settings.hostname, settings.cpus, settings.memory, Timestamp::now());
    machine.costs = settings.costs;
    machine
}

fn calls_file(generation: u64) -> String {
    format!("simulated-{generation}.calls")
}

impl Journal {
    /// Writes the machine and begins an empty list of calls. The new snapshot names the new list, so a crash in between loses neither.
    fn start(directory: &Path, generation: u64, machine: &Machine) -> std::io::Result<Journal> {
        let file = std::fs::File::create(directory.join(calls_file(generation)))?;
        let snapshot = serde_json::to_vec(&Snapshot { generation, machine: machine.clone() })?;
        let temporary = directory.join("simulated.json.new");
        std::fs::write(&temporary, snapshot)?;
        std::fs::rename(&temporary, directory.join("simulated.json"))?;
        let _ = std::fs::remove_file(directory.join(calls_file(generation - 1)));
        Ok(Journal { directory: directory.into(), generation, file, calls: 0 })
    }

    fn write(&mut self, call: &Call) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(call)?;
        line.push(b'\n');
        self.calls += 1;
        self.file.write_all(&line)
    }
}

impl Inner {
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Machine, Timestamp) -> T) -> T {
        let mut state = self.state.lock();
        let now = Timestamp::now();
        state.machine.advance(now);
        let result = f(&mut state.machine, now);
        self.tell(&mut state.machine, true);
        result
    }

    fn call(&self, operation: &Operation) -> Reply {
        let mut state = self.state.lock();
        let state = &mut *state;
        let now = Timestamp::now();
        if !operation.is_read()
            && !matches!(operation, Operation::Run { .. })
            && let Some(journal) = &mut state.journal
        {
            let call = Call { at: now, operation: operation.clone() };
            if let Err(error) = journal.write(&call) {
                let message = format!("the simulated host cannot remember: {error}");
                return Reply { at: now, result: Err(EngineError::Failed { message }) };
            }
        }
        let reply = state.machine.apply(operation, now);
        self.tell(&mut state.machine, !operation.is_read());
        if let Some(journal) = &mut state.journal
            && journal.calls >= CALLS_PER_SNAPSHOT
        {
            match Journal::start(&journal.directory, journal.generation + 1, &state.machine) {
                Ok(next) => *journal = next,
                Err(error) => {
                    tracing::warn!(%error, "the simulated host could not write a snapshot");
                    journal.calls = 0;
                }
            }
        }
        reply
    }

    fn tell(&self, machine: &mut Machine, changed: bool) {
        let history = machine.take_history();
        if history.is_empty() && !changed {
            return;
        }
        for happening in history {
            let _ = self.happenings.send(happening);
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// A new exec session that has not ended.
    pub(super) fn new_session(&self) -> String {
        let mut state = self.state.lock();
        state.sessions += 1;
        let id = format!("session-{}", state.sessions);
        state.exits.insert(id.clone(), None);
        // Nobody asks for the code of a session that ended a thousand sessions ago.
        while state.exits.len() > 1_000 {
            state.exits.pop_first();
        }
        id
    }

    pub(super) fn end_session(&self, id: &str, code: i64) {
        self.state.lock().exits.insert(id.into(), Some(code));
    }
}

/// Lets the machine's time pass, so that what happens by itself is told when it happens.
async fn keep_time(inner: Weak<Inner>) {
    loop {
        let (mut changed, wait) = {
            let Some(inner) = inner.upgrade() else { return };
            let changed = inner.changed.subscribe();
            let next = inner.state.lock().machine.next_change();
            let wait = next.map(|at| at.duration_since(Timestamp::now()));
            (changed, wait.map(|wait| Duration::try_from(wait).unwrap_or_default()))
        };
        // Without anything due, only a call can change that; the minute is for the moment when the engine is dropped.
        let wait = wait.unwrap_or(Duration::from_secs(60)).min(Duration::from_secs(60));
        tokio::select! {
            () = tokio::time::sleep(wait) => {
                let Some(inner) = inner.upgrade() else { return };
                inner.with(|_, _| ());
            }
            changed = changed.changed() => if changed.is_err() { return },
        }
    }
}

impl Engine for SimulatedEngine {
    fn info(&self) -> Answer<'_, Info> {
        self.asked(Operation::Info, |outcome| if let Outcome::Info(info) = outcome { Some(*info) } else { None })
    }

    fn list<'a>(&'a self, labels: &'a [String]) -> Answer<'a, Vec<Summary>> {
        self.asked(Operation::List { labels: labels.to_vec() }, |outcome| {
            if let Outcome::Containers(listed) = outcome { Some(listed) } else { None }
        })
    }

    fn inspect<'a>(&'a self, id: &'a str) -> Answer<'a, ContainerState> {
        self.asked(Operation::Inspect { id: id.into() }, |outcome| {
            if let Outcome::Container(state) = outcome { Some(*state) } else { None }
        })
    }

    fn create<'a>(&'a self, name: &'a str, spec: &'a ContainerSpec) -> Answer<'a, String> {
        self.asked(Operation::Create { name: name.into(), spec: Box::new(spec.clone()) }, |outcome| {
            if let Outcome::Created { id } = outcome { Some(id) } else { None }
        })
    }

    fn start<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        self.done(Operation::Start { id: id.into() })
    }

    fn stop<'a>(&'a self, id: &'a str, grace: u32) -> Answer<'a, ()> {
        self.done(Operation::Stop { id: id.into(), grace })
    }

    fn kill<'a>(&'a self, id: &'a str, signal: &'a str) -> Answer<'a, ()> {
        self.done(Operation::Kill { id: id.into(), signal: signal.into() })
    }

    fn remove<'a>(&'a self, id: &'a str, force: bool) -> Answer<'a, ()> {
        self.done(Operation::Remove { id: id.into(), force })
    }

    fn update<'a>(&'a self, id: &'a str, resources: &'a Resources) -> Answer<'a, ()> {
        self.done(Operation::Update { id: id.into(), resources: resources.clone() })
    }

    fn stats<'a>(&'a self, id: &'a str) -> Answer<'a, Stats> {
        Box::pin(async move {
            let state = self.inspect(id).await?;
            let now = Timestamp::now();
            let Some(started) = state.started_at.filter(|_| state.is_alive()) else {
                return Err(EngineError::Conflict { message: format!("Container {id} is not running") });
            };
            // A hundredth of a processor and ten megabytes: enough to see that somebody is there.
            let cpu = (now.duration_since(started).as_nanos().max(0) / 100) as u64;
            Ok(Stats { at: now, cpu, memory: 10_000_000, pids: 1, received: 0, sent: 0 })
        })
    }

    fn upload<'a>(&'a self, id: &'a str, _path: &'a str, _tar: Bytes) -> Answer<'a, ()> {
        Box::pin(async move { self.inspect(id).await.map(|_| ()) })
    }

    fn images(&self) -> Answer<'_, Vec<ImageSummary>> {
        Box::pin(async move {
            self.info().await?;
            Ok(self.inner.with(|machine, _| {
                let summary = |image: &ImageState| ImageSummary {
                    id: image.id.clone(),
                    tags: image.tags.clone(),
                    digests: image.digests.clone(),
                    size: image.size,
                };
                machine.images.values().map(summary).collect()
            }))
        })
    }

    fn image<'a>(&'a self, reference: &'a str) -> Answer<'a, ImageState> {
        self.asked(Operation::Image { reference: reference.into() }, |outcome| {
            if let Outcome::Image(image) = outcome { Some(*image) } else { None }
        })
    }

    fn pull<'a>(
        &'a self,
        reference: &'a str,
        auth: Option<&'a RegistryAuth>,
        progress: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> Answer<'a, ImageState> {
        progress(Progress { message: "Pulling".into(), ..Progress::default() });
        self.asked(Operation::Pull { reference: reference.into(), auth: auth.cloned() }, |outcome| {
            if let Outcome::Image(image) = outcome { Some(*image) } else { None }
        })
    }

    fn remove_image<'a>(&'a self, reference: &'a str) -> Answer<'a, ()> {
        self.done(Operation::RemoveImage { reference: reference.into() })
    }

    fn load(&self, archive: Bytes) -> Answer<'_, ()> {
        Box::pin(async move {
            self.info().await?;
            let refused = |message: &str| EngineError::Refused { message: format!("invalid archive: {message}") };
            let files = untar(&archive);
            let (_, manifest) =
                files.iter().find(|(name, _)| name == "manifest.json").ok_or_else(|| refused("no manifest.json"))?;
            let manifest: Vec<LoadEntry> = serde_json::from_slice(manifest).map_err(|error| refused(&error.to_string()))?;
            self.inner.with(|machine, _| {
                for entry in &manifest {
                    let id = format!("sha256:{}", entry.config.trim_end_matches(".json"));
                    for tag in &entry.repo_tags {
                        machine.load_image(tag, &id);
                    }
                }
            });
            Ok(())
        })
    }

    fn logs<'a>(&'a self, id: &'a str, options: &'a LogOptions) -> Answer<'a, Flow<LogEntry>> {
        Box::pin(async move {
            let state = self.inspect(id).await?;
            Ok(session::logs(&self.inner, state.id, options.clone()))
        })
    }

    fn exec<'a>(&'a self, id: &'a str, spec: &'a ExecSpec) -> Answer<'a, Session> {
        Box::pin(async move {
            let state = self.inspect(id).await?;
            if !state.is_alive() {
                return Err(EngineError::Conflict { message: format!("Container {id} is not running") });
            }
            Ok(session::exec(&self.inner, state.id, spec.clone()))
        })
    }

    fn resize_exec<'a>(&'a self, _session: &'a str, _width: u16, _height: u16) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn exec_exit<'a>(&'a self, session: &'a str) -> Answer<'a, Option<i64>> {
        let code = self.inner.state.lock().exits.get(session).copied();
        Box::pin(std::future::ready(code.ok_or_else(|| EngineError::NotFound { id: session.into() })))
    }

    fn attach<'a>(&'a self, id: &'a str, spec: &'a AttachSpec) -> Answer<'a, Session> {
        Box::pin(async move {
            let state = self.inspect(id).await?;
            if !state.is_alive() {
                return Err(EngineError::Conflict { message: format!("Container {id} is not running") });
            }
            Ok(session::attach(&self.inner, state.id, spec))
        })
    }

    fn resize<'a>(&'a self, _id: &'a str, _width: u16, _height: u16) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn answers<'a>(&'a self, id: &'a str) -> Answer<'a, Option<bool>> {
        let answers = self.with_machine(|machine, _| machine.answers(id));
        Box::pin(std::future::ready(Ok(Some(answers))))
    }

    fn events<'a>(&'a self, labels: &'a [String]) -> Answer<'a, Flow<Hint>> {
        Box::pin(async move {
            self.info().await?;
            let labels = labels.to_vec();
            let happenings = self.inner.happenings.subscribe();
            let flow = futures_util::stream::unfold(happenings, move |mut happenings| {
                let labels = labels.clone();
                async move {
                    loop {
                        match happenings.recv().await {
                            Err(broadcast::error::RecvError::Closed) => return None,
                            Err(broadcast::error::RecvError::Lagged(_)) => {}
                            Ok(happening) if !labels.iter().all(|label| has_label(&happening.labels, label)) => {}
                            Ok(happening) => {
                                let action = match happening.what {
                                    Happened::Created => "create",
                                    Happened::Started => "start",
                                    Happened::Ended(_) => "die",
                                    Happened::Removed => "destroy",
                                };
                                return Some((Ok(Hint { container: happening.id, action: action.into() }), happenings));
                            }
                        }
                    }
                }
            });
            Ok(Box::pin(flow) as Flow<Hint>)
        })
    }
}

/// Whether labels hold one, given as `key` or `key=value`.
fn has_label(labels: &BTreeMap<String, String>, label: &str) -> bool {
    match label.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|has| has == value),
        None => labels.contains_key(label),
    }
}

/// One image of a docker-archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LoadEntry {
    config: String,
    #[serde(default)]
    repo_tags: Vec<String>,
}

impl Inner {
    /// New lines of a log from a position on, the next position, and whether more may come.
    pub(super) fn lines_from(&self, id: &str, position: usize) -> (Vec<LogEntry>, usize, bool) {
        self.with(|_, _| ());
        self.peek_lines(id, position)
    }

    /// The same without telling that somebody looked: for those whom a change has woken.
    pub(super) fn peek_lines(&self, id: &str, position: usize) -> (Vec<LogEntry>, usize, bool) {
        let machine = &self.state.lock().machine;
        {
            let Some(container) = machine.find(id) else { return (Vec::new(), position, false) };
            let from = position.saturating_sub(container.lines_dropped).min(container.log.len());
            let entries = container.log[from..].iter().map(|line| LogEntry {
                channel: if line.stderr && !container.spec.tty { Channel::Stderr } else { Channel::Stdout },
                at: Some(line.at),
                bytes: format!("{}\n", line.text).into(),
            });
            let alive = container.state().is_alive();
            (entries.collect(), container.lines_dropped + container.log.len(), alive)
        }
    }
}
