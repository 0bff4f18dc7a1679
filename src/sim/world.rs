//! The house in one thread: what happens next, in the order that the dice chose.
//!
//! Every effect of an actor on another travels as an event with a time of its own, so that messages are late, lost, doubled, and meet a
//! process that is no longer there. After each event the auditor looks at the truth.

use std::collections::BTreeMap;
use std::fmt::Display;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;

use super::audit::Auditor;
use super::author::Author;
use super::chart::Git;
use super::dice::Dice;
use super::faults::Undo;
use super::host::Host;
use super::server::{Server, Sign};
use super::wire::Waiting;
use super::{Options, Violation};
use crate::agent::heart::{Call, Heart, Input, Reply, ServerError, Ticket};
use crate::control::{self, Ids, Next};
use crate::object::ours::{Application, SYSTEM_NAMESPACE};
use crate::object::{Key, Revision, kind_of};
use crate::store::View;
use crate::store::engine::memory::Disk;

/// How often an agent renews its lease.
const BEAT: SignedDuration = SignedDuration::from_secs(10);
/// How often the house looks whether everything has come to rest.
const LOOK: SignedDuration = SignedDuration::from_secs(5);
/// For how long people wait at the end for what may come by itself. Longer than any deadline, so that waiting for them fails nothing.
const PATIENCE: SignedDuration = SignedDuration::from_mins(5);
/// The root Application's name.
pub(super) const ROOT: &str = "root";
/// The name of the Application that depends on it.
pub(super) const ANNEX: &str = "annex";

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Event {
    /// A loop of this server looks.
    Loop { server: u64, index: usize },
    /// The disk of this server does a step.
    Disk { server: u64 },
    /// A server starts.
    ServerUp,
    /// A host gives a sign of life.
    Heartbeat { host: usize },
    /// The sign of life arrives. `engine`: whether the engine answers, as the agent knew when it sent it.
    Alive { host: usize, engine: bool },
    /// An agent opens its watch.
    Connect { host: usize, agent: u64 },
    /// An event of a watch arrives.
    Deliver { host: usize, agent: u64, connection: u64, input: Box<Input> },
    /// A request arrives at the server.
    Request { host: usize, agent: u64, ticket: Ticket, call: Box<Call> },
    /// Something arrives at an agent.
    Reply { host: usize, agent: u64, input: Box<Input> },
    /// An agent's time has come.
    Tick { host: usize, agent: u64 },
    /// Something happens by itself on a machine.
    Machine { host: usize },
    /// An agent starts.
    AgentUp { host: usize },
    /// The answers of git arrive.
    Git,
    /// The branch is looked at anyway.
    Poll,
    /// Somebody changes the repository.
    Change,
    /// Somebody replaces an object by their own of the same name.
    Replace { name: String },
    /// Somebody acts on the Application by hand.
    Operate,
    /// Somebody ends a pin.
    Unpin,
    /// Somebody ends a pause.
    Resume,
    /// Power is cut.
    Crash,
    /// Something goes wrong.
    Fault,
    /// Something is put right again.
    Undo(Undo),
    /// Two clients count, with what they read a while ago.
    Count { read: Option<(Revision, u64)> },
    /// Faults end.
    Heal,
    /// Is everything at rest?
    Look,
}

/// The house.
pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) start: Timestamp,
    pub(super) events: BTreeMap<(Timestamp, u64), Event>,
    pub(super) serial: u64,
    pub(super) dice: Dice,
    pub(super) ids: Ids,
    pub(super) git: Git,
    git_at: Option<Timestamp>,
    pub(super) disk: Disk,
    disk_at: Option<Timestamp>,
    pub(super) slow_disk: bool,
    pub(super) server: Option<Server>,
    servers: u64,
    pub(super) hosts: Vec<Host>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) auditor: Auditor,
    pub(super) healed: Option<Timestamp>,
    rested: Option<Timestamp>,
    pub(super) trace: Option<Vec<String>>,
    pub(super) digest: u64,
    pub(super) steps: u64,
    pub(super) reached: BTreeMap<&'static str, u64>,
    /// Who acts now, for the auditor and the trace.
    pub(super) actor: &'static str,
    pub(super) done: bool,
}

impl World {
    pub(super) fn new(seed: u64, options: &Options) -> World {
        let start: Timestamp = "2026-11-21T00:00:00Z".parse().expect("a time");
        let mut dice = Dice::new(seed);
        let git = Git::new(Author::new(dice.split()));
        let hosts = (0..2 + dice.below(3)).map(|n| Host::new(&format!("host-{n}"), if n == 0 { 1 } else { 5 }, start)).collect();
        let mut world = World {
            now: start + SignedDuration::from_secs(10),
            start,
            events: BTreeMap::new(),
            serial: 0,
            ids: Ids::seeded(dice.next()),
            dice,
            git,
            git_at: None,
            disk: Disk::new(),
            disk_at: None,
            slow_disk: false,
            server: None,
            servers: 0,
            hosts,
            waiting: Vec::new(),
            auditor: Auditor::default(),
            healed: None,
            rested: None,
            trace: options.trace.then(Vec::new),
            digest: 0,
            steps: 0,
            reached: BTreeMap::new(),
            actor: "nobody",
            done: false,
        };
        world.after(SignedDuration::ZERO, Event::ServerUp);
        for host in 0..world.hosts.len() {
            let wait = world.dice.seconds(0, 5);
            world.after(wait, Event::AgentUp { host });
            let wait = world.dice.seconds(1, 8);
            world.after(wait, Event::Heartbeat { host });
        }
        let minutes = i64::from(options.minutes.max(1));
        world.after(SignedDuration::from_mins(minutes), Event::Heal);
        if options.faults {
            world.after(SignedDuration::from_secs(30), Event::Fault);
        }
        world.after(SignedDuration::from_secs(60), Event::Change);
        world.after(SignedDuration::from_secs(90), Event::Operate);
        world.after(SignedDuration::from_secs(60), Event::Poll);
        for _ in 0..2 {
            world.after(SignedDuration::from_secs(5), Event::Count { read: None });
        }
        world
    }

    /// Lets something happen later.
    pub(super) fn after(&mut self, wait: SignedDuration, event: Event) {
        self.at(self.now + wait, event);
    }

    pub(super) fn at(&mut self, at: Timestamp, event: Event) {
        self.serial += 1;
        self.events.insert((at.max(self.now), self.serial), event);
    }

    /// Notes that something worth testing happened in this run.
    pub(super) fn reach(&mut self, what: &'static str) {
        *self.reached.entry(what).or_default() += 1;
    }

    pub(super) fn say(&mut self, who: impl Display, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let at = self.now.duration_since(self.start).as_millis();
            trace.push(format!("{:>5}.{:03} {who}: {}", at / 1000, at % 1000, what()));
        }
    }

    /// Lets the next thing happen. False: nothing ever will.
    pub(super) fn step(&mut self) -> Result<bool, Violation> {
        let Some(((at, _), event)) = self.events.pop_first() else { return Ok(false) };
        self.now = at;
        self.steps += 1;
        let before = self.server.as_ref().map(|s| (s.incarnation, s.store.view()));
        self.actor = "people";
        self.happen(event)?;
        self.aftermath()?;
        self.audit(before)?;
        Ok(!self.done)
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Loop { server, index } => self.step_loop(server, index),
            Event::Disk { server } => {
                self.disk_at = None;
                let most = 1 + self.dice.below(6);
                if let Some(server) = self.server.as_mut().filter(|s| s.incarnation == server) {
                    server.steps.step_some(most);
                    // In the middle of writing is when a power cut hurts most.
                    if self.faulty() && self.dice.chance(4) {
                        let wait = self.dice.millis(0, 4);
                        self.after(wait, Event::Crash);
                    }
                }
            }
            Event::ServerUp => self.start_server()?,
            Event::Heartbeat { host } => {
                self.after(BEAT, Event::Heartbeat { host });
                let at = &self.hosts[host];
                if let Some(engine) = at.heart.as_ref().map(Heart::engine_answers) {
                    self.auditor.sign_of_life(at, engine, self.now)?;
                    if at.link && !self.dice.chance(10) {
                        let wait = self.dice.millis(1, 50);
                        self.after(wait, Event::Alive { host, engine });
                    }
                }
            }
            Event::Alive { host, engine } => {
                if let Some(server) = &self.server {
                    self.actor = "heartbeat";
                    let at = &self.hosts[host];
                    let node = Sign { node: &at.name, cpus: at.cpus, memory: 8 << 30, engine };
                    server.heartbeat(&node, &mut self.ids, self.now);
                    // Acknowledged at once, with its revision: it may get lost, but its number may not be used again.
                    self.auditor.seen(server.store.revision());
                    if !engine {
                        self.reach("silent engine noticed");
                    }
                }
            }
            Event::Connect { host, agent } => self.connect(host, agent),
            Event::Deliver { host, agent, connection, input } => {
                let at = &self.hosts[host];
                if at.incarnation == agent && at.connection.as_ref().is_some_and(|c| c.id == connection) {
                    self.feel(host, *input);
                }
            }
            Event::Request { host, agent, ticket, call } => self.request(host, agent, ticket, &call),
            Event::Reply { host, agent, input } => {
                if self.hosts[host].incarnation == agent {
                    self.feel(host, *input);
                }
            }
            Event::Tick { host, agent } => {
                if self.hosts[host].incarnation == agent {
                    self.hosts[host].heart_at = None;
                    self.feel(host, Input::Tick);
                }
            }
            Event::Machine { host } => {
                self.hosts[host].machine_at = None;
                self.hosts[host].machine.advance(self.now);
            }
            Event::AgentUp { host } => self.start_agent(host),
            Event::Git => {
                self.git_at = None;
                self.git.answer(self.now);
                self.wake_release();
            }
            Event::Poll => {
                self.after(SignedDuration::from_secs(60), Event::Poll);
                self.git.answer(self.now);
                self.wake_release();
            }
            Event::Change => self.change(),
            Event::Replace { name } => self.replace(&Key::of::<k8s_openapi::api::core::v1::ConfigMap>("shop", &name)),
            Event::Operate => self.operate(),
            Event::Unpin => self.unpin(),
            Event::Resume => self.resume(),
            Event::Crash if self.faulty() => self.crash_server(),
            Event::Crash => {}
            Event::Fault => self.fault(),
            Event::Undo(undo) => self.undo(undo),
            Event::Count { read } => self.count(read)?,
            Event::Heal => self.heal(),
            Event::Look => self.look()?,
        }
        Ok(())
    }

    // The server.

    fn start_server(&mut self) -> Result<(), Violation> {
        if self.server.is_some() {
            return Ok(());
        }
        self.servers += 1;
        let options = control::Options { seed: self.dice.next(), ..control::Options::default() };
        let server = Server::start(&self.disk, &self.git, &options, self.servers, self.now)
            .map_err(|e| self.auditor.violation("ST7", format!("the store does not open: {e}")))?;
        self.say("server", || format!("starts at revision {}", server.store.revision()));
        self.auditor.recovered(&server.store.view())?;
        if self.servers == 1 {
            self.found(&server);
        }
        let count = server.loops.len();
        self.server = Some(server);
        for index in 0..count {
            let wait = self.dice.millis(1, 200);
            self.set_loop(index, self.now + wait);
        }
        Ok(())
    }

    /// What is there from the first day.
    fn found(&mut self, server: &Server) {
        for name in ["default", "kube-system", control::node::LEASES, SYSTEM_NAMESPACE, "sim"] {
            let value = json!({"metadata": {"name": name}});
            server.create(kind_of::<Namespace>(), value, &mut self.ids, self.now).expect("a namespace");
        }
        let root = json!({
            "metadata": {"namespace": SYSTEM_NAMESPACE, "name": ROOT},
            "spec": {"source": {"repository": "/srv/charts"}, "policy": {"soakSeconds": 5, "progressDeadlineSeconds": 180}},
        });
        server.create(kind_of::<Application>(), root, &mut self.ids, self.now).expect("an application");
        // Half of the houses have a second one that waits for the first.
        if self.dice.chance(500) {
            let annex = json!({
                "metadata": {"namespace": SYSTEM_NAMESPACE, "name": ANNEX},
                "spec": {
                    "source": {"repository": "/srv/charts", "path": ANNEX}, "dependsOn": [ROOT],
                    "policy": {"soakSeconds": 5, "progressDeadlineSeconds": 180},
                },
            });
            server.create(kind_of::<Application>(), annex, &mut self.ids, self.now).expect("an application");
            self.reach("second application");
        }
        let map = json!({"metadata": {"namespace": "sim", "name": "count"}, "data": {"n": "0"}});
        server.create(kind_of::<k8s_openapi::api::core::v1::ConfigMap>(), map, &mut self.ids, self.now).expect("a map");
    }

    /// Power is cut, or the process killed, in the middle of whatever it was doing.
    pub(super) fn crash_server(&mut self) {
        let Some(server) = self.server.take() else { return };
        let tail = self.dice.below(3);
        self.say("server", || format!("crashes at revision {} with {} on disk", server.store.revision(), server.store.durable()));
        self.auditor.crashed(&server.store);
        self.auditor.ledger.troubles.disturb(self.now);
        self.disk = self.disk.crash(tail);
        self.disk_at = None;
        for Waiting { host, agent, ticket, .. } in std::mem::take(&mut self.waiting) {
            let wait = self.dice.millis(1, 5000);
            let error = ServerError::Unavailable("connection reset".to_owned());
            let input = Box::new(Input::Done { ticket, reply: Reply::Server(Err(error)) });
            self.after(wait, Event::Reply { host, agent, input });
        }
        drop(server);
        self.reach("server crash");
        for host in 0..self.hosts.len() {
            self.disconnect(host);
        }
        let wait = self.dice.seconds(1, 20);
        self.after(wait, Event::ServerUp);
    }

    fn set_loop(&mut self, index: usize, at: Timestamp) {
        let Some(server) = &mut self.server else { return };
        let slot = &mut server.loops[index];
        if slot.at.is_none_or(|known| known > at || known < self.now) {
            slot.at = Some(at);
            let server = server.incarnation;
            self.at(at, Event::Loop { server, index });
        }
    }

    fn wake_release(&mut self) {
        let index = self.server.as_ref().and_then(|s| s.loops.iter().position(|l| l.name == "release"));
        if let Some(index) = index {
            let wait = self.dice.millis(1, 20);
            self.set_loop(index, self.now + wait);
        }
    }

    fn step_loop(&mut self, incarnation: u64, index: usize) {
        let now = self.now;
        let Some(server) = self.server.as_mut().filter(|s| s.incarnation == incarnation) else { return };
        // Another wish of the same loop has come in between.
        if server.loops[index].at != Some(now) {
            return;
        }
        self.actor = server.loops[index].name;
        let before = server.store.revision();
        let next = server.step(index, &mut self.ids, now);
        let after = server.store.revision();
        if after > before {
            let changes = server.store.changes(before).unwrap_or_default();
            let actor = self.actor;
            self.say(actor, || {
                changes.iter().map(|c| format!("{} {} @{}", verb(c), c.key, c.revision)).collect::<Vec<_>>().join(", ")
            });
        }
        match next {
            Ok(Next::Again) => self.set_loop(index, now + SignedDuration::from_millis(1)),
            Ok(Next::At(at)) => self.set_loop(index, at.max(now + SignedDuration::from_millis(1))),
            Ok(Next::Idle) => {}
            Err(conflict) => {
                let actor = self.actor;
                self.say(actor, || format!("conflict: {conflict}"));
                let wait = self.dice.millis(2, 50);
                self.set_loop(index, now + wait);
            }
        }
        // A crash between two writes of the house, and so between any two steps of a plan.
        if after > before && self.faulty() && self.dice.chance(4) {
            self.crash_server();
        }
    }

    /// Whether things may still go wrong.
    pub(super) fn faulty(&self) -> bool {
        self.healed.is_none() && self.now > self.start + SignedDuration::from_secs(40) && self.auditor.with_faults
    }

    // What follows from an event by itself.

    fn aftermath(&mut self) -> Result<(), Violation> {
        self.answer_waiting();
        if let Some(server) = &self.server {
            if self.disk_at.is_none() && server.store.revision() > server.store.durable() {
                let incarnation = server.incarnation;
                let wait = if self.slow_disk { self.dice.millis(200, 2000) } else { self.dice.millis(1, 12) };
                self.disk_at = Some(self.now + wait);
                self.after(wait, Event::Disk { server: incarnation });
            }
            let revision = self.server.as_ref().map_or(0, |s| s.store.revision());
            let behind: Vec<usize> = self
                .server
                .as_ref()
                .map_or(Vec::new(), |s| s.loops.iter().enumerate().filter(|(_, l)| l.seen < revision).map(|(i, _)| i).collect());
            for index in behind {
                let soon = self.now + self.dice.millis(1, 40);
                let waits = self.server.as_ref().and_then(|s| s.loops[index].at).is_some_and(|at| at <= soon && at >= self.now);
                if !waits {
                    self.set_loop(index, soon);
                }
            }
        }
        if self.git.waiting() && self.git_at.is_none() {
            let wait = self.dice.millis(50, 2000);
            self.git_at = Some(self.now + wait);
            self.after(wait, Event::Git);
        }
        for host in 0..self.hosts.len() {
            self.pump(host)?;
            self.machine(host)?;
        }
        Ok(())
    }

    /// Tells the auditor what is wrong now.
    fn confess(&mut self) {
        let troubles = &mut self.auditor.ledger.troubles;
        if self.server.is_none() {
            troubles.server_away(self.now);
        }
        if self.slow_disk || self.git.is_away() {
            troubles.disturb(self.now);
        }
        for host in self.hosts.iter().filter(|h| !h.lost) {
            if !host.link || host.heart.is_none() || !host.machine.is_up() {
                troubles.cut_off(&host.name, self.now);
            }
            if host.machine.is_registry_away() || host.machine.has_wedged() {
                troubles.disturb(self.now);
            }
        }
    }

    fn audit(&mut self, before: Option<(u64, View)>) -> Result<(), Violation> {
        self.confess();
        let Some(server) = &self.server else { return Ok(()) };
        let revision = server.store.revision();
        self.auditor.follow(&server.store);
        self.digest =
            self.digest.rotate_left(5) ^ revision ^ (self.now.as_nanosecond() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let Some((incarnation, before)) = before.filter(|(i, _)| *i == server.incarnation) else { return Ok(()) };
        if before.revision() == revision || incarnation != server.incarnation {
            return Ok(());
        }
        let changes = server.store.changes(before.revision()).expect("a step is shorter than what is kept");
        let after = server.store.view();
        self.auditor.now = self.now;
        let actor = self.actor;
        let markers = self.auditor.changed(actor, &before, &after, &changes, &self.git, &self.hosts)?;
        for marker in markers {
            self.reach(marker);
        }
        Ok(())
    }

    /// Two clients that count with what they read a while ago: no count may get lost (ST6).
    fn count(&mut self, read: Option<(Revision, u64)>) -> Result<(), Violation> {
        let key = Key::of::<k8s_openapi::api::core::v1::ConfigMap>("sim", "count");
        let value = |o: &crate::object::Object| o.value()["data"]["n"].as_str().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        let wait = self.dice.millis(200, 6000);
        let Some(server) = &self.server else {
            self.after(wait, Event::Count { read: None });
            return Ok(());
        };
        let mut next = None;
        match read {
            None => {
                if let Some(object) = server.store.durable_view().get(&key) {
                    next = Some((object.revision, value(object)));
                }
            }
            Some((revision, n)) => {
                if let Some(old) = server.store.get(&key) {
                    let mut new = old.value();
                    new["data"]["n"] = (n + 1).to_string().into();
                    let mut txn = crate::store::Txn::new();
                    txn.update(crate::object::Draft::new(key.kind, new), revision);
                    let current = value(&old);
                    if server.store.commit(txn).is_ok() && current != n {
                        return Err(self.auditor.violation("ST6", format!("a client that had read {n} wrote over {current}")));
                    }
                }
            }
        }
        self.after(wait, Event::Count { read: next });
        Ok(())
    }

    // The end.

    fn look(&mut self) -> Result<(), Violation> {
        self.after(LOOK, Event::Look);
        let healed = self.healed.expect("it looks only after the faults");
        match (super::settle::unsettled(self), self.rested) {
            // What failed for good goes on failing: there is no rest to wait for.
            (None, None) if super::settle::stuck(self) => self.done = true,
            (None, None) => {
                self.rested = Some(self.now);
                self.say("house", || "is at rest".to_owned());
                let revision = self.server.as_ref().map_or(0, |s| s.store.revision());
                self.auditor.rest(revision);
            }
            (None, Some(since)) if self.now.duration_since(since) >= SignedDuration::from_secs(60) => self.done = true,
            (None, Some(_)) => {}
            (Some(why), Some(_)) => {
                return Err(self.auditor.violation("LV2", format!("it was at rest, and is no longer: {why}")));
            }
            (Some(why), None) if self.now.duration_since(healed) > SignedDuration::from_mins(40) => {
                return Err(self.auditor.violation("LV1", why));
            }
            // Only a person can know that a host will not come back: some things wait for that word.
            (Some(_), None) if self.now.duration_since(healed) > PATIENCE => self.give_up_lost_hosts(),
            (Some(_), None) => {}
        }
        Ok(())
    }
}

fn verb(change: &crate::store::Change) -> &'static str {
    match (&change.old, &change.new) {
        (None, _) => "creates",
        (_, None) => "removes",
        (Some(old), Some(new)) if !old.meta.deleting() && new.meta.deleting() => "deletes",
        _ => "changes",
    }
}
