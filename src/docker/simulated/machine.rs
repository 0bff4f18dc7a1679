//! The model of one host: its containers, images, daemon and power, in virtual time.
//!
//! What the daemon does when it is called is in `calls`; here is what happens by itself, and what can go wrong.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Behaviour, End};
use crate::docker::container::{NetworkMode, Status};
use crate::docker::{Channel, ContainerSpec, EngineError, ImageState, Info, Operation, Outcome};

/// How many lines of a container's log are kept.
const LOG_LINES_MAX: usize = 2_000;

/// How much history is kept for whoever takes it.
const HISTORY_MAX: usize = 100_000;

/// One host. Every method that takes `now` first lets happen what was due until then; time never goes back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub(super) info: Info,
    pub(super) costs: Costs,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) images: BTreeMap<String, ImageState>,
    /// Pulls under way: when each is done.
    pub(super) pulls: BTreeMap<String, Timestamp>,
    /// Ports of the host that somebody else holds.
    pub(super) foreign_ports: BTreeSet<u16>,
    /// Images that the registry has lost.
    pub(super) lost_images: BTreeSet<String>,
    /// How often each tag was moved to other content.
    pub(super) moved_tags: BTreeMap<String, u32>,
    pub(super) registry_away: bool,
    power: bool,
    /// When it was last given power.
    #[serde(default)]
    booted_at: Timestamp,
    daemon: Daemon,
    live_restore: bool,
    hung: bool,
    serial: u64,
    now: Timestamp,
    /// Nothing happens by itself before this; may be too early, never too late.
    next: Option<Timestamp>,
    #[serde(skip)]
    pub(super) injected: Vec<Injected>,
    #[serde(skip)]
    history: Vec<Happening>,
}

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Any call that only looks.
    pub look: SignedDuration,
    /// Creating a container.
    pub create: SignedDuration,
    /// Starting one.
    pub start: SignedDuration,
    /// Ending one, beyond the time that it takes itself.
    pub stop: SignedDuration,
    /// Removing one.
    pub remove: SignedDuration,
    /// Running a command in one.
    pub run: SignedDuration,
    /// Pulling an image.
    pub pull: SignedDuration,
}

impl Costs {
    /// What Docker 20.10 took on a machine with two processors.
    pub const MEASURED: Costs = Costs {
        look: SignedDuration::from_millis(1),
        create: SignedDuration::from_millis(12),
        start: SignedDuration::from_millis(120),
        stop: SignedDuration::from_millis(100),
        remove: SignedDuration::from_millis(40),
        run: SignedDuration::from_millis(60),
        pull: SignedDuration::from_secs(2),
    };
    /// Everything at once, to measure what stands around an engine.
    pub const NONE: Costs = Costs {
        look: SignedDuration::ZERO,
        create: SignedDuration::ZERO,
        start: SignedDuration::ZERO,
        stop: SignedDuration::ZERO,
        remove: SignedDuration::ZERO,
        run: SignedDuration::ZERO,
        pull: SignedDuration::ZERO,
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Daemon {
    Up,
    Down,
    Starting { until: Timestamp },
}

/// A container of the model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) spec: ContainerSpec,
    pub(super) image_id: String,
    pub(super) behaviour: Behaviour,
    pub(super) status: Status,
    pub(super) pid: u32,
    pub(super) created_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) exit_code: i64,
    pub(super) oom_killed: bool,
    pub(super) error: String,
    pub(super) ip: Option<String>,
    /// When and how it will end.
    pub(super) ends: Option<(Timestamp, End)>,
    /// When the daemon will kill it; forgotten when the daemon dies.
    pub(super) kill_at: Option<Timestamp>,
    /// When it writes its next line by itself.
    pub(super) chatters_at: Option<Timestamp>,
    /// Not even SIGKILL ends it.
    pub(super) wedged: bool,
    /// How it would have ended, were it not wedged.
    pub(super) struck: Option<End>,
    pub(super) log: Vec<LogLine>,
    /// How many of its lines are no longer kept.
    pub(super) lines_dropped: usize,
}

/// One line that a container wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    pub at: Timestamp,
    /// Whether it went to standard error.
    pub stderr: bool,
    /// The line, without its newline.
    pub text: String,
}

impl LogLine {
    /// Where the line went.
    pub fn channel(&self) -> Channel {
        if self.stderr { Channel::Stderr } else { Channel::Stdout }
    }
}

/// The daemon's answer to a call: what, and when the caller gets it. The effect is there from the call on, except for stops (the
/// container ends in between) and pulls (the image is there when the answer is).
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// When the caller gets it.
    pub at: Timestamp,
    /// What it is.
    pub result: Result<Outcome, EngineError>,
}

/// An error that the next call of one name gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Injected {
    /// [`Operation::name`](crate::docker::Operation::name) of the call to fail; empty for any.
    pub operation: &'static str,
    /// Whether the call takes effect all the same, as when only its answer is lost.
    pub performed: bool,
    /// What the caller gets.
    pub error: EngineError,
}

/// Something that happened to a container, for events and for whoever checks invariants.
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    /// When.
    pub at: Timestamp,
    /// The container's id.
    pub id: String,
    /// The container's name.
    pub name: String,
    /// The container's labels.
    pub labels: BTreeMap<String, String>,
    /// What.
    pub what: Happened,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It was created.
    Created,
    /// It was started.
    Started,
    /// It ended, with this code.
    Ended(i64),
    /// It was removed.
    Removed,
}

/// A container as somebody sees it who does not need the daemon for it: the truth, for whoever checks invariants.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The id.
    pub id: &'a str,
    /// The name.
    pub name: &'a str,
    /// What was asked for.
    pub spec: &'a ContainerSpec,
    /// Where it is in its life.
    pub status: Status,
    /// When it was last started.
    pub started_at: Option<Timestamp>,
}

impl Machine {
    /// A host that has just been set up and is running.
    pub fn new(info: Info, costs: Costs, now: Timestamp) -> Machine {
        let mut machine = Machine {
            live_restore: info.live_restore,
            info,
            costs,
            containers: BTreeMap::new(),
            images: BTreeMap::new(),
            pulls: BTreeMap::new(),
            foreign_ports: BTreeSet::new(),
            lost_images: BTreeSet::new(),
            moved_tags: BTreeMap::new(),
            registry_away: false,
            power: true,
            booted_at: now,
            daemon: Daemon::Up,
            hung: false,
            serial: 0,
            now,
            next: None,
            injected: Vec::new(),
            history: Vec::new(),
        };
        // The agent brings this one itself.
        machine.load_image(crate::docker::pause::name(), crate::docker::pause::id());
        machine
    }

    /// A host for tests and simulation: `cpus` processors, `memory` bytes, live-restore on.
    pub fn small(hostname: &str, cpus: u32, memory: u64, now: Timestamp) -> Machine {
        let info = Info {
            hostname: hostname.into(),
            engine: "simulated".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            api_version: "1.41".into(),
            os: "linux".into(),
            os_image: "simulated".into(),
            architecture: "amd64".into(),
            kernel: "simulated".into(),
            cpus,
            memory,
            root_dir: "/var/lib/docker".into(),
            live_restore: true,
        };
        Machine::new(info, Costs::MEASURED, now)
    }

    // Time.

    /// Lets happen what is due until `now`, in its order.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some(at) = self.next.filter(|at| *at <= now) {
            self.now = self.now.max(at);
            let at = self.now;
            if let Daemon::Starting { until } = self.daemon
                && until <= at
            {
                self.daemon = Daemon::Up;
            }
            let due: Vec<String> =
                self.containers.values().filter(|c| c.due().is_some_and(|due| due <= at)).map(|c| c.id.clone()).collect();
            for id in due {
                self.happen(&id, at);
            }
            let pulled: Vec<String> = self.pulls.iter().filter(|(_, done)| **done <= at).map(|(name, _)| name.clone()).collect();
            for reference in pulled {
                self.pulls.remove(&reference);
                self.add_image(&reference);
            }
            self.next = self.soonest();
        }
        self.now = self.now.max(now);
    }

    /// When something will next happen by itself. It may turn out that nothing does.
    pub fn next_change(&self) -> Option<Timestamp> {
        self.next
    }

    fn soonest(&self) -> Option<Timestamp> {
        let starting = match self.daemon {
            Daemon::Starting { until } => Some(until),
            _ => None,
        };
        self.containers.values().filter_map(Container::due).chain(self.pulls.values().copied()).chain(starting).min()
    }

    /// Makes sure that [`Machine::advance`] looks at this time.
    pub(super) fn look_at(&mut self, at: Timestamp) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Whatever is due for one container.
    fn happen(&mut self, id: &str, at: Timestamp) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let Some(due) = container.chatters_at.filter(|due| *due <= at) {
            container.write(
                due,
                false,
                format!("still here, {:#} after the start", due.duration_since(container.started_at.unwrap_or(due))),
            );
            container.chatters_at = container.behaviour.chatters.map(|every| due + every);
        }
        let own = container.ends.filter(|(due, _)| *due <= at);
        let killed = container.kill_at.filter(|due| *due <= at);
        let end = match (own, killed) {
            (Some((due, end)), Some(kill)) if due <= kill => (due, end),
            (_, Some(kill)) => (kill, End::Killed),
            (Some((due, end)), None) => (due, end),
            (None, None) => return,
        };
        self.end(id, end.0, end.1);
    }

    /// Ends a container's process.
    pub(super) fn end(&mut self, id: &str, at: Timestamp, end: End) {
        let Some(container) = self.containers.get_mut(id).filter(|c| c.status == Status::Running) else { return };
        if container.wedged {
            container.ends = None;
            container.kill_at = None;
            container.struck = Some(end);
            return;
        }
        match end {
            End::Code(code) => {
                if code != 0 {
                    container.write(at, true, format!("ending with code {code}"));
                }
                container.exit_code = code;
            }
            End::OutOfMemory => {
                container.exit_code = 137;
                container.oom_killed = true;
            }
            End::Killed => container.exit_code = 137,
        }
        container.status = Status::Exited;
        container.pid = 0;
        container.ip = None;
        container.finished_at = Some(at);
        container.ends = None;
        container.kill_at = None;
        container.chatters_at = None;
        let code = container.exit_code;
        self.tell(id, at, Happened::Ended(code));
    }

    /// Writes down that something happened.
    pub(super) fn tell(&mut self, id: &str, at: Timestamp, what: Happened) {
        // Where nobody takes it, it must not grow for ever.
        if self.history.len() >= HISTORY_MAX {
            self.history.drain(..HISTORY_MAX / 2);
        }
        if let Some(container) = self.containers.get(id) {
            self.history.push(Happening {
                at,
                id: id.into(),
                name: container.name.clone(),
                labels: container.spec.labels.clone(),
                what,
            });
        }
    }

    /// What happened since the last call of this, in order. The oldest is lost when a hundred thousand things happened in between.
    pub fn take_history(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.history)
    }

    // What is true, whatever the daemon says.

    /// All containers, by id.
    pub fn containers(&self) -> impl Iterator<Item = View<'_>> {
        self.containers.values().map(|c| View {
            id: &c.id,
            name: &c.name,
            spec: &c.spec,
            status: c.status,
            started_at: c.started_at,
        })
    }

    /// Whether a container answers when somebody connects to it (or runs its exec probe): it runs, and its behaviour lets it.
    pub fn answers(&self, id: &str) -> bool {
        let Some(container) = self.find(id).filter(|c| self.power && c.status == Status::Running) else { return false };
        let Some(started) = container.started_at else { return false };
        let age = self.now.duration_since(started);
        container.behaviour.answers_after.is_some_and(|after| age >= after)
            && container.behaviour.answers_until.is_none_or(|until| age < until)
    }

    /// Whether any container in another's network answers.
    pub fn answers_within(&self, id: &str) -> bool {
        let Some(holder) = self.find(id).map(|c| c.id.clone()) else { return false };
        let inside = self.containers.values().filter(|c| c.spec.network == NetworkMode::Container(holder.clone()));
        inside.map(|c| &c.id).any(|id| self.answers(id))
    }

    /// What a container wrote, oldest first.
    pub fn log(&self, id: &str) -> &[LogLine] {
        self.find(id).map_or(&[], |container| &container.log)
    }

    /// Whether the daemon answers.
    pub fn is_up(&self) -> bool {
        self.power && self.daemon == Daemon::Up && !self.hung
    }

    /// When the host was last started.
    pub fn booted_at(&self) -> Timestamp {
        self.booted_at
    }

    /// Whether the host has power.
    pub fn has_power(&self) -> bool {
        self.power
    }

    /// Whether calls are never answered.
    pub(super) fn is_hung(&self) -> bool {
        self.power && self.hung && self.daemon == Daemon::Up
    }

    pub(super) fn find(&self, id: &str) -> Option<&Container> {
        self.containers.get(id).or_else(|| self.containers.values().find(|c| c.name == id))
    }

    // What can go wrong.

    /// kill -9 of the daemon: containers run on, nobody can ask about them, stops and pulls under way are forgotten.
    pub fn kill_daemon(&mut self, now: Timestamp) {
        self.advance(now);
        self.daemon = Daemon::Down;
        self.hung = false;
        self.pulls.clear();
        for container in self.containers.values_mut() {
            container.kill_at = None;
        }
    }

    /// Starts the daemon again. Without live-restore it first kills what still runs and takes its time. Says when it will answer.
    pub fn start_daemon(&mut self, now: Timestamp) -> Timestamp {
        self.advance(now);
        if !self.power || self.daemon != Daemon::Down {
            return self.now;
        }
        let running = self.running();
        let takes = if !self.live_restore && !running.is_empty() { 11_000 } else { 700 };
        if !self.live_restore {
            for id in running {
                self.end(&id, self.now, End::Killed);
            }
        }
        let until = self.now + SignedDuration::from_millis(takes);
        self.daemon = Daemon::Starting { until };
        self.look_at(until);
        until
    }

    /// Stops answering, or answers again, without dying: every call runs into its deadline. Containers do not notice.
    pub fn hang_daemon(&mut self, hung: bool, now: Timestamp) {
        self.advance(now);
        self.hung = hung;
    }

    /// The host loses power: nothing runs any more.
    pub fn power_off(&mut self, now: Timestamp) {
        self.kill_daemon(now);
        self.power = false;
        for id in self.running() {
            if let Some(container) = self.containers.get_mut(&id) {
                container.wedged = false;
                container.struck = None;
            }
            self.end(&id, self.now, End::Killed);
            if let Some(container) = self.containers.get_mut(&id) {
                container.exit_code = 255;
            }
        }
    }

    /// The host has power again; its daemon starts with it. Containers stay ended. Says when the daemon will answer.
    pub fn power_on(&mut self, now: Timestamp) -> Timestamp {
        self.advance(now);
        if self.power {
            return self.now;
        }
        self.power = true;
        self.booted_at = self.now;
        self.start_daemon(now);
        let until = self.now + SignedDuration::from_millis(2_700);
        self.daemon = Daemon::Starting { until };
        self.look_at(until);
        until
    }

    fn running(&self) -> Vec<String> {
        self.containers.values().filter(|c| c.status == Status::Running).map(|c| c.id.clone()).collect()
    }

    /// Makes the next call of a name fail.
    pub fn inject(&mut self, injected: Injected) {
        self.injected.push(injected);
    }

    /// The registry goes away or comes back.
    pub fn registry_away(&mut self, away: bool) {
        self.registry_away = away;
    }

    /// Whether the registry is away.
    pub fn is_registry_away(&self) -> bool {
        self.registry_away
    }

    /// Whether some process cannot be ended.
    pub fn has_wedged(&self) -> bool {
        self.containers.values().any(|c| c.wedged)
    }

    /// The registry loses an image, or has it again. Hosts that have it keep it.
    pub fn lose_image(&mut self, reference: &str, lost: bool) {
        let name = normal(reference);
        if lost {
            self.lost_images.insert(name);
        } else {
            self.lost_images.remove(&name);
        }
    }

    /// The registry's tag now names other content: the next pull gives another image id.
    pub fn move_tag(&mut self, reference: &str) {
        *self.moved_tags.entry(normal(reference)).or_default() += 1;
    }

    /// Somebody else holds a port of the host, or lets go of it.
    pub fn hold_port(&mut self, port: u16, held: bool) {
        if held {
            self.foreign_ports.insert(port);
        } else {
            self.foreign_ports.remove(&port);
        }
    }

    /// A process that not even SIGKILL ends, until this is taken back or the power is.
    pub fn wedge(&mut self, id: &str, wedged: bool) {
        if let Some(id) = self.find(id).map(|c| c.id.clone())
            && let Some(container) = self.containers.get_mut(&id)
        {
            container.wedged = wedged;
            if let Some(end) = container.struck.take_if(|_| !wedged) {
                self.end(&id, self.now, end);
            }
        }
    }

    /// Somebody else's container, without labels, running. Its id.
    pub fn place_foreign(&mut self, name: &str, now: Timestamp) -> Option<String> {
        let image = "foreign/thing:1";
        self.add_image(image);
        let spec = Box::new(ContainerSpec { image: image.into(), ..ContainerSpec::default() });
        let Ok(Outcome::Created { id }) = self.apply(&Operation::Create { name: name.into(), spec }, now).result else {
            return None;
        };
        self.apply(&Operation::Start { id: id.clone() }, now).result.ok()?;
        Some(id)
    }

    /// Ends a container's process from outside, as the kernel or a human with a shell would.
    pub fn strike(&mut self, id: &str, end: End, now: Timestamp) {
        self.advance(now);
        if let Some(id) = self.find(id).map(|c| c.id.clone()) {
            self.end(&id, self.now, end);
        }
    }

    // Small parts.

    pub(super) fn new_id(&mut self) -> String {
        self.serial += 1;
        hex_digest(&format!("container {} of {}", self.serial, self.info.hostname))
    }

    pub(super) fn new_pid(&mut self) -> u32 {
        self.serial += 1;
        1_000 + (self.serial % 4_000_000) as u32
    }

    /// The lowest free address of the bridge. From 198.18.0.0/15, which is set aside for such things, so that nobody real answers.
    pub(super) fn new_ip(&self) -> String {
        let used: BTreeSet<&str> = self.containers.values().filter_map(|c| c.ip.as_deref()).collect();
        (2u32..131_000)
            .map(|n| format!("198.{}.{}.{}", 18 + n / 65_536, n / 256 % 256, n % 256))
            .find(|ip| !used.contains(ip.as_str()))
            .unwrap_or_default()
    }

    /// The image is on this host from now on.
    pub(super) fn add_image(&mut self, reference: &str) {
        let (name, image) = self.image_in_registry(reference);
        self.images.insert(name, image);
    }

    /// An image that came as a file, with its own id.
    pub(super) fn load_image(&mut self, reference: &str, id: &str) {
        let (name, mut image) = self.image_in_registry(reference);
        image.id = id.into();
        image.digests.clear();
        self.images.insert(name, image);
    }

    /// The image that a pull gives now, under its normal name.
    pub(super) fn image_in_registry(&self, reference: &str) -> (String, ImageState) {
        let name = normal(reference);
        let content = match name.split_once('@') {
            Some((_, digest)) => digest.to_string(),
            None => format!("{name} {}", self.moved_tags.get(&name).copied().unwrap_or_default()),
        };
        let digest = hex_digest(&format!("manifest {content}"));
        let repository = name.split(['@']).next().unwrap_or_default();
        let repository = match repository.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => path,
            _ => repository,
        };
        let image = ImageState {
            id: format!("sha256:{}", hex_digest(&format!("config {content}"))),
            tags: if name.contains('@') { Vec::new() } else { vec![name.clone()] },
            digests: vec![format!("{repository}@sha256:{digest}")],
            entrypoint: Vec::new(),
            cmd: vec!["/simulated".into()],
            env: vec!["PATH=/bin".into()],
            working_dir: String::new(),
            user: String::new(),
            stop_signal: String::new(),
            size: 10_000_000,
        };
        (name, image)
    }

    pub(super) fn find_image(&self, reference: &str) -> Option<(&String, &ImageState)> {
        self.images.get_key_value(&normal(reference)).or_else(|| {
            let id = reference.strip_prefix("sha256:").unwrap_or(reference);
            self.images.iter().find(|(_, image)| {
                image.digests.iter().any(|digest| digest == reference)
                    || (id.len() >= 12 && image.id.strip_prefix("sha256:").is_some_and(|full| full.starts_with(id)))
            })
        })
    }
}

impl Container {
    /// When the next thing happens to it by itself.
    pub(super) fn due(&self) -> Option<Timestamp> {
        if self.status != Status::Running {
            return None;
        }
        [self.ends.map(|(at, _)| at), self.kill_at, self.chatters_at].into_iter().flatten().min()
    }

    /// Writes a line to its log.
    pub(super) fn write(&mut self, at: Timestamp, stderr: bool, text: String) {
        if self.log.len() >= LOG_LINES_MAX {
            self.log.drain(..LOG_LINES_MAX / 4);
            self.lines_dropped += LOG_LINES_MAX / 4;
        }
        self.log.push(LogLine { at, stderr, text });
    }

    /// The container whose network it sees, if not its own.
    pub(super) fn joins(&self) -> Option<&str> {
        match &self.spec.network {
            NetworkMode::Container(id) => Some(id),
            _ => None,
        }
    }
}

/// The one spelling of an image's name: a tag is always there, Docker's own registry is not.
pub(super) fn normal(reference: &str) -> String {
    let name = reference.strip_prefix("docker.io/").unwrap_or(reference);
    let name = name.strip_prefix("library/").unwrap_or(name);
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') || last.contains('@') { name.to_string() } else { format!("{name}:latest") }
}

/// A name for something, the same in every run.
fn hex_digest(text: &str) -> String {
    use sha2::Digest;
    use std::fmt::Write;
    sha2::Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
