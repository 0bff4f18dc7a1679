//! Agents and the wire between them and the server: requests, answers, watches, and what an agent wants done.
//!
//! Messages of one watch keep their order; everything else may overtake, come twice, or not at all.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;

use super::Violation;
use super::host::Connection;
use super::world::{Event, World};
use crate::agent::heart::{Action, Answer, Call, Input, LOOK, Reply, ServerError, Ticket, Work};
use crate::docker::simulated::Happened;
use crate::docker::{EngineError, Operation};
use crate::object::{Revision, kind_of};
use crate::store::{Ended, Scope};

/// How long a client waits for an answer.
const DEADLINE: SignedDuration = SignedDuration::from_secs(10);

/// An answer that waits for the disk.
pub(super) struct Waiting {
    pub(super) revision: Revision,
    pub(super) host: usize,
    pub(super) agent: u64,
    pub(super) ticket: Ticket,
    pub(super) reply: Result<Answer, ServerError>,
}

impl World {
    pub(super) fn request(&mut self, host: usize, agent: u64, ticket: Ticket, call: &Call) {
        self.actor = "agent";
        let unavailable = |why: &str| Input::Done { ticket, reply: Reply::Server(Err(ServerError::Unavailable(why.to_owned()))) };
        let link = self.hosts[host].link;
        let Some(server) = self.server.as_mut().filter(|_| link) else {
            let wait = self.dice.millis(10, 10_000);
            self.after(wait, Event::Reply { host, agent, input: Box::new(unavailable("connection refused")) });
            return;
        };
        if self.healed.is_none() && self.dice.chance(5) {
            // Sent twice by a connection that broke in between: the first answer is never seen.
            let _ = server.serve(call, &mut self.ids, self.now);
        }
        let (reply, revision) = server.serve(call, &mut self.ids, self.now);
        // A refusal tells of the state, too.
        let revision = if reply.is_err() { server.store.revision() } else { revision };
        if matches!(call, Call::Event(_)) {
            self.auditor.seen(server.store.revision());
        }
        let name = self.hosts[host].name.clone();
        self.say(name, || {
            format!("asks {} -> {}", show(call), if let Err(e) = &reply { format!("{e:?}") } else { "ok".to_owned() })
        });
        self.waiting.push(Waiting { revision, host, agent, ticket, reply });
    }

    pub(super) fn start_agent(&mut self, host: usize) {
        let now = self.now;
        let at = &mut self.hosts[host];
        if at.heart.is_some() || at.lost || !at.machine.has_power() {
            return;
        }
        if !at.machine.is_up() {
            // Before its engine has said what the host is, an agent is not heard of.
            self.after(SignedDuration::from_secs(1), Event::AgentUp { host });
            return;
        }
        at.start_agent(now);
        let (agent, name) = (at.incarnation, at.name.clone());
        self.say(&name, || "agent starts".to_owned());
        self.reach("agent start");
        let wait = self.dice.millis(1, 500);
        self.after(wait, Event::Connect { host, agent });
        self.feel(host, Input::Tick);
    }

    pub(super) fn crash_agent(&mut self, host: usize) {
        if self.hosts[host].heart.is_none() {
            return;
        }
        let name = self.hosts[host].name.clone();
        self.say(&name, || "agent crashes".to_owned());
        self.auditor.ledger.troubles.disturb(self.now);
        self.reach("agent crash");
        self.hosts[host].stop_agent();
        let wait = self.dice.seconds(1, 20);
        self.after(wait, Event::AgentUp { host });
    }

    /// The watch of an agent breaks.
    pub(super) fn disconnect(&mut self, host: usize) {
        let at = &mut self.hosts[host];
        if at.connection.take().is_some() {
            let agent = at.incarnation;
            let wait = self.dice.seconds(1, 5);
            self.after(wait, Event::Connect { host, agent });
        }
    }

    pub(super) fn connect(&mut self, host: usize, agent: u64) {
        let at = &self.hosts[host];
        if at.incarnation != agent || at.heart.is_none() || at.connection.is_some() {
            return;
        }
        let Some(server) = self.server.as_ref().filter(|_| at.link) else {
            let wait = self.dice.seconds(1, 5);
            self.after(wait, Event::Connect { host, agent });
            return;
        };
        let view = server.store.durable_view();
        let kind = kind_of::<Pod>();
        let pods: Vec<_> = view.by_field(kind, "spec.nodeName", &at.name).filter_map(|o| o.typed::<Pod>().ok()).collect();
        let scope = Scope::all(kind).with_field("spec.nodeName", &at.name);
        let watch = server.store.watch(scope, view.revision()).expect("what was just read is kept");
        self.auditor.shown(view.revision());
        let told = view.by_field(kind, "spec.nodeName", &at.name).map(|o| (o.key.to_string(), o.meta.uid.clone())).collect();
        let at = &mut self.hosts[host];
        let id = at.next_connection();
        at.connection = Some(Connection { id, watch, told, given: Vec::new(), checked: view.revision() });
        let name = at.name.clone();
        self.say(name, || format!("lists {} pods at revision {}", pods.len(), view.revision()));
        self.deliver(host, id, Input::Pods(pods));
    }

    /// Puts an event of a watch on its way.
    fn deliver(&mut self, host: usize, connection: u64, input: Input) {
        let wait = if self.dice.chance(20) { self.dice.millis(100, 3000) } else { self.dice.millis(1, 30) };
        let at = &mut self.hosts[host];
        at.inbox = at.inbox.max(self.now + wait);
        let (when, agent) = (at.inbox, at.incarnation);
        self.at(when, Event::Deliver { host, agent, connection, input: Box::new(input) });
    }

    /// Something reaches an agent; what it wants done is begun.
    pub(super) fn feel(&mut self, host: usize, input: Input) {
        let now = self.now;
        let crashes = self.faulty();
        self.actor = "agent";
        let at = &mut self.hosts[host];
        let Some(heart) = &mut at.heart else { return };
        self.auditor.felt(&input, &mut at.bound, &mut at.deleted);
        let actions = heart.step(input, now);
        let due = heart.due();
        let agent = at.incarnation;
        if let Some(due) = due
            && at.heart_at.is_none_or(|known| known > due)
        {
            at.heart_at = Some(due);
            self.at(due, Event::Tick { host, agent });
        }
        for action in actions {
            if crashes && self.dice.chance(1) {
                self.reach("agent crash between two actions");
                self.crash_agent(host);
                return;
            }
            self.act(host, action);
        }
    }

    fn act(&mut self, host: usize, Action { ticket, work, .. }: Action) {
        let now = self.now;
        let agent = self.hosts[host].incarnation;
        let name = self.hosts[host].name.clone();
        match &work {
            Work::Engine(operation) if operation.is_read() => {}
            Work::Engine(operation) => self.say(&name, || format!("engine {}", brief(operation))),
            Work::Remember(record) => self.say(&name, || {
                format!("remembers {}{}", record.uid, if record.tombstone.is_some() { " as deleted" } else { "" })
            }),
            _ => {}
        }
        let (wait, reply) = match work {
            Work::Engine(operation) => {
                let reply = self.hosts[host].machine.apply(&operation, now);
                let wait = reply.at.duration_since(now);
                // The driver does not wait for ever for a look.
                let late = operation.is_read() && wait > SignedDuration::try_from(LOOK).unwrap_or_default();
                let (wait, result) = match late {
                    true => (LOOK.as_secs() as i64 * 1000, Err(EngineError::Deadline { call: operation.name(), after: LOOK })),
                    false => (wait.as_millis() as i64, reply.result),
                };
                (SignedDuration::from_millis(wait) + self.dice.millis(0, 20), Reply::Engine(result))
            }
            Work::SandboxImage => {
                let reference = crate::docker::pause::name().to_owned();
                let reply = self.hosts[host].machine.apply(&Operation::Image { reference }, now);
                let result = reply.result.map(|_| crate::docker::Outcome::Done);
                (reply.at.duration_since(now), Reply::Engine(result))
            }
            Work::Server(call) => {
                let wait = self.dice.millis(1, 30);
                self.after(wait, Event::Request { host, agent, ticket, call: Box::new(call) });
                return;
            }
            Work::Probe(call) => {
                let ok = self.hosts[host].answers_at(&call.host, now);
                (self.dice.millis(1, 20), Reply::Probe(if ok { Ok(()) } else { Err("connection refused".to_owned()) }))
            }
            Work::Volumes(volumes) => {
                self.hosts[host].volumes.insert(volumes.uid.clone());
                (self.dice.millis(1, 20), Reply::Volumes(Ok(())))
            }
            Work::RemoveVolumes { uid } => {
                self.hosts[host].volumes.remove(&uid);
                (self.dice.millis(1, 20), Reply::Volumes(Ok(())))
            }
            Work::Sleep(span) => (span, Reply::Probe(Ok(()))),
            Work::LastWords { container, .. } => {
                let words = self.hosts[host].machine.log(&container).last().map_or(String::new(), |l| l.text.clone());
                (self.dice.millis(1, 20), Reply::Words(words))
            }
            Work::Remember(record) => {
                self.hosts[host].records.insert(record.uid.clone(), *record);
                return;
            }
            Work::Forget { uid } => {
                self.hosts[host].records.remove(&uid);
                return;
            }
        };
        self.after(wait, Event::Reply { host, agent, input: Box::new(Input::Done { ticket, reply }) });
    }

    pub(super) fn answer_waiting(&mut self) {
        let Some(server) = &self.server else { return };
        let durable = server.store.durable();
        let (ready, rest) = std::mem::take(&mut self.waiting).into_iter().partition(|w| w.revision <= durable);
        self.waiting = rest;
        for Waiting { revision, host, agent, ticket, reply } in ready {
            self.auditor.acknowledged(revision);
            let lost = !self.hosts[host].link || (self.healed.is_none() && self.dice.chance(5));
            let (wait, reply) = if lost {
                (DEADLINE, Err(ServerError::Unavailable("no answer in time".to_owned())))
            } else {
                (self.dice.millis(1, 30), reply)
            };
            let input = Box::new(Input::Done { ticket, reply: Reply::Server(reply) });
            self.after(wait, Event::Reply { host, agent, input });
        }
    }

    /// Takes what a watch has, and puts it on its way.
    pub(super) fn pump(&mut self, host: usize) -> Result<(), Violation> {
        loop {
            let at = &mut self.hosts[host];
            let Some(connection) = &mut at.connection else { return Ok(()) };
            let (id, name) = (connection.id, at.name.clone());
            let change = match connection.watch.try_next() {
                Ok(Some(change)) => change,
                Ok(None) => {
                    let Some(server) = &self.server else { return Ok(()) };
                    return self.auditor.watched(&server.store, connection, &name);
                }
                Err(Ended::Slow | Ended::Stopped(_)) => {
                    self.disconnect(host);
                    return Ok(());
                }
            };
            connection.given.push((change.revision, change.key.clone()));
            let here = |o: &std::sync::Arc<crate::object::Object>| o.field("spec.nodeName") == name;
            let input = match change.new.as_ref().filter(|o| here(o)) {
                Some(object) => {
                    connection.told.insert(object.key.to_string(), object.meta.uid.clone());
                    object.typed::<Pod>().ok().map(Input::Pod)
                }
                None => connection.told.remove(&change.key.to_string()).map(|uid| Input::Gone { uid }),
            };
            self.auditor.shown(change.revision);
            if let Some(input) = input {
                self.deliver(host, id, input);
            }
        }
    }

    /// What happened on a machine: for the auditor, and as hints for the agent.
    pub(super) fn machine(&mut self, host: usize) -> Result<(), Violation> {
        self.hosts[host].listen_to_engine(self.now);
        let history = self.hosts[host].machine.take_history();
        for happening in &history {
            let name = self.hosts[host].name.clone();
            self.say(&name, || format!("container {} {:?}", happening.name, happening.what));
            if happening.what == Happened::Started {
                self.auditor.started(&self.hosts[host], happening)?;
            }
            if self.hosts[host].machine.is_up() && self.hosts[host].heart.is_some() && !self.dice.chance(30) {
                let agent = self.hosts[host].incarnation;
                let wait = self.dice.millis(1, 100);
                let input = Box::new(Input::Hint { container: happening.id.clone() });
                self.after(wait, Event::Reply { host, agent, input });
            }
        }
        if !history.is_empty() {
            self.auditor.containers(&self.hosts[host])?;
        }
        let at = &mut self.hosts[host];
        if let Some(next) = at.machine.next_change()
            && at.machine_at.is_none_or(|known| known > next)
        {
            at.machine_at = Some(next);
            self.at(next, Event::Machine { host });
        }
        Ok(())
    }
}

fn show(call: &Call) -> String {
    match call {
        Call::PatchStatus { name, revision, status, .. } => format!("to patch the status of {name} @{revision}: {status}"),
        Call::GetPod { name, .. } => format!("for {name}"),
        Call::DeletePod { name, .. } => format!("to remove {name}"),
        Call::GetConfig(config) => format!("for {}", config.name),
        Call::Event(event) => format!("to note {} of {}: {}", event.reason, event.name, event.message),
    }
}

fn brief(operation: &Operation) -> String {
    match operation {
        Operation::Create { name, .. } => format!("create {name}"),
        Operation::Start { id } | Operation::Kill { id, .. } | Operation::Remove { id, .. } | Operation::Stop { id, .. } => {
            format!("{} {}", operation.name(), &id[..id.len().min(12)])
        }
        Operation::Pull { reference, .. } => format!("pull {reference}"),
        other => other.name().to_owned(),
    }
}
