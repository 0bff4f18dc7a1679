//! The model of one host: its containers, images, daemon and power, in virtual time.
//!
//! Here is what happens by itself. What the daemon does when it is called is in `calls`, what can go wrong in `faults`, and what a
//! registry has in `images`.

mod faults;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Behaviour, End};
use crate::docker::container::{NetworkMode, Status};
use crate::docker::{Channel, ContainerSpec, EngineError, ImageState, Info, Outcome};

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

/// A name for something, the same in every run.
pub(super) fn hex_digest(text: &str) -> String {
    use sha2::Digest;
    use std::fmt::Write;
    sha2::Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
