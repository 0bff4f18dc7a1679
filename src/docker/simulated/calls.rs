//! What the daemon of a simulated host does when it is called.

use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::images::normal;
use super::machine::{Container, Happened, Machine, Reply};
use super::{Behaviour, End, Registry};
use crate::docker::container::{NetworkMode, Status};
use crate::docker::{ContainerSpec, ContainerState, EngineError, Operation, Outcome, RUN_OUTPUT_MAX, Ran, Summary};

/// How long a client waits for a daemon that never answers.
const HUNG_DEADLINE: Duration = Duration::from_secs(30);
/// How long a client waits for a pull that makes no progress.
const PULL_DEADLINE: Duration = Duration::from_secs(60);

type Done = Result<(Timestamp, Outcome), (Timestamp, EngineError)>;

impl Machine {
    /// One call of the daemon at `now`.
    pub fn apply(&mut self, operation: &Operation, now: Timestamp) -> Reply {
        self.advance(now);
        let now = self.now();
        if self.is_hung() {
            let error = EngineError::Deadline { call: operation.name(), after: HUNG_DEADLINE };
            return Reply { at: now + span(HUNG_DEADLINE), result: Err(error) };
        }
        if !self.is_up() {
            return Reply { at: now, result: Err(EngineError::Unavailable { message: "connection refused".into() }) };
        }
        let injected = self.injected.iter().position(|i| i.operation.is_empty() || i.operation == operation.name());
        let injected = injected.map(|at| self.injected.remove(at));
        if let Some(fault) = &injected
            && !fault.performed
        {
            return Reply { at: now, result: Err(fault.error.clone()) };
        }
        let (at, result) = match self.perform(operation, now) {
            Ok((at, outcome)) => (at, Ok(outcome)),
            Err((at, error)) => (at, Err(error)),
        };
        // What was due at once (a container whose end is the moment of its start) is not left for the next call.
        self.advance(now);
        match injected {
            Some(fault) => Reply { at, result: Err(fault.error) },
            None => Reply { at, result },
        }
    }

    fn perform(&mut self, operation: &Operation, now: Timestamp) -> Done {
        let costs = self.costs;
        let looked = now + costs.look;
        match operation {
            Operation::Info => Ok((looked, Outcome::Info(Box::new(self.info.clone())))),
            Operation::List { labels } => {
                let listed = self.containers.values().filter(|c| labels.iter().all(|label| has_label(&c.spec, label)));
                Ok((looked, Outcome::Containers(listed.map(Container::summary).collect())))
            }
            Operation::Inspect { id } => match self.find(id) {
                Some(container) => Ok((looked, Outcome::Container(Box::new(container.state())))),
                None => Err((looked, not_found(id))),
            },
            Operation::Create { name, spec } => self.create(name, spec, now),
            Operation::Start { id } => self.start(id, now),
            Operation::Stop { id, grace } => self.stop(id, *grace, now),
            Operation::Kill { id, signal } => {
                let id = self.full_id(id).ok_or((looked, not_found(id)))?;
                match signal.trim_start_matches("SIG") {
                    "KILL" | "9" => self.end(&id, now, End::Killed),
                    "TERM" | "15" => {
                        self.terminate(&id, now);
                    }
                    _ => {}
                }
                Ok((looked, Outcome::Done))
            }
            Operation::Remove { id, force } => {
                let Some(id) = self.full_id(id) else { return Ok((looked, Outcome::Done)) };
                if self.containers[&id].status == Status::Running {
                    if !force {
                        let message = format!(
                            "You cannot remove a running container {id}. Stop the container before attempting removal or force remove"
                        );
                        return Err((looked, EngineError::Conflict { message }));
                    }
                    self.end(&id, now, End::Killed);
                    if self.containers[&id].status == Status::Running {
                        let message = format!("Could not kill running container {id}, cannot remove");
                        return Err((now + SignedDuration::from_secs(10), EngineError::Failed { message }));
                    }
                }
                self.tell(&id, now, Happened::Removed);
                self.containers.remove(&id);
                Ok((now + costs.remove, Outcome::Done))
            }
            Operation::Update { id, resources } => {
                let id = self.full_id(id).ok_or((looked, not_found(id)))?;
                if let Some(container) = self.containers.get_mut(&id) {
                    container.spec.resources = resources.clone();
                }
                Ok((looked, Outcome::Done))
            }
            Operation::Image { reference } => match self.find_image(reference) {
                Some((_, image)) => Ok((looked, Outcome::Image(Box::new(image.clone())))),
                None => Err((looked, image_not_found(reference))),
            },
            Operation::Pull { reference, .. } => self.pull(reference, now),
            Operation::RemoveImage { reference } => {
                let Some((name, image)) = self.find_image(reference).map(|(name, image)| (name.clone(), image.id.clone())) else {
                    return Ok((looked, Outcome::Done));
                };
                if let Some(user) = self.containers.values().find(|c| c.image_id == image) {
                    let message = format!("unable to remove repository reference {name} - container {} is using it", user.id);
                    return Err((looked, EngineError::Refused { message }));
                }
                self.images.remove(&name);
                Ok((now + costs.remove, Outcome::Done))
            }
            Operation::Run { id, command, timeout } => self.run(id, command, *timeout, now),
            Operation::LogTail { id, lines, bytes } => {
                let container = self.find(id).ok_or((looked, not_found(id)))?;
                let from = container.log.len().saturating_sub(*lines as usize);
                let text: String = container.log[from..].iter().flat_map(|line| [line.text.as_str(), "\n"]).collect();
                let text = Bytes::from(text);
                let cut = text.len().saturating_sub(*bytes);
                Ok((looked, Outcome::Log(text.slice(cut..))))
            }
        }
    }

    fn full_id(&self, id: &str) -> Option<String> {
        self.find(id).map(|container| container.id.clone())
    }

    fn create(&mut self, name: &str, spec: &ContainerSpec, now: Timestamp) -> Done {
        let looked = now + self.costs.look;
        let Some((image_name, image)) = self.find_image(&spec.image) else {
            return Err((looked, image_not_found(&spec.image)));
        };
        let command = spec.entrypoint.iter().chain(&spec.cmd).flatten().map(String::as_str);
        let behaviour = Behaviour::of_image(image_name)
            .with_command(command)
            .with_env(spec.env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let image_id = image.id.clone();
        if let Some(holder) = self.containers.values().find(|c| c.name == name) {
            return Err((looked, EngineError::NameTaken { name: name.into(), holder: holder.id.clone() }));
        }
        let id = self.new_id();
        let container = Container {
            id: id.clone(),
            name: name.into(),
            spec: spec.clone(),
            image_id,
            behaviour,
            status: Status::Created,
            pid: 0,
            created_at: now,
            started_at: None,
            finished_at: None,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            ip: None,
            ends: None,
            kill_at: None,
            chatters_at: None,
            wedged: false,
            struck: None,
            log: Vec::new(),
            lines_dropped: 0,
        };
        self.containers.insert(id.clone(), container);
        self.tell(&id, now, Happened::Created);
        Ok((now + self.costs.create, Outcome::Created { id }))
    }

    fn start(&mut self, id: &str, now: Timestamp) -> Done {
        let looked = now + self.costs.look;
        let started = now + self.costs.start;
        let Some(container) = self.find(id) else { return Err((looked, not_found(id))) };
        if container.status == Status::Running {
            return Ok((looked, Outcome::Done));
        }
        let id = container.id.clone();
        if let Some(refusal) = self.why_not_start(&id) {
            let (code, error) = refusal;
            if let Some(container) = self.containers.get_mut(&id) {
                container.exit_code = code;
                container.error = error.to_string();
            }
            return Err((started, error));
        }
        let pid = self.new_pid();
        let ip = match self.containers[&id].spec.network {
            NetworkMode::Bridge => Some(self.new_ip()),
            _ => None,
        };
        if let Some(container) = self.containers.get_mut(&id) {
            container.status = Status::Running;
            container.pid = pid;
            container.ip = ip;
            container.started_at = Some(now);
            container.exit_code = 0;
            container.oom_killed = false;
            container.error = String::new();
            container.ends = container.behaviour.ends.map(|(after, end)| (now + after, end));
            container.kill_at = None;
            container.chatters_at = container.behaviour.chatters.map(|every| now + every);
            let line = format!("{} started", container.spec.image);
            container.write(now, false, line);
            if let Some(due) = container.due() {
                self.look_at(due);
            }
        }
        self.tell(&id, now, Happened::Started);
        Ok((started, Outcome::Done))
    }

    /// What stands in the way of a start, with the exit code that the daemon then shows.
    fn why_not_start(&self, id: &str) -> Option<(i64, EngineError)> {
        let container = &self.containers[id];
        if let Some(other) = container.joins()
            && self.find(other).is_none_or(|other| other.status != Status::Running)
        {
            let message = format!("cannot join network of a non running container: {other}");
            return Some((128, EngineError::Conflict { message }));
        }
        let taken = |port: u16| {
            self.foreign_ports.contains(&port)
                || self.containers.values().any(|other| {
                    other.status == Status::Running && other.spec.ports.iter().any(|binding| binding.host_port == port)
                })
        };
        if let Some(binding) = container.spec.ports.iter().find(|binding| binding.host_port != 0 && taken(binding.host_port)) {
            let message = format!("Bind for 0.0.0.0:{} failed: port is already allocated", binding.host_port);
            return Some((128, EngineError::PortTaken { message }));
        }
        if container.behaviour.norun {
            let message = "OCI runtime create failed: exec: \"/simulated\": executable file not found in $PATH: unknown".into();
            return Some((127, EngineError::Refused { message }));
        }
        None
    }

    fn stop(&mut self, id: &str, grace: u32, now: Timestamp) -> Done {
        let looked = now + self.costs.look;
        let Some(container) = self.find(id) else { return Err((looked, not_found(id))) };
        if container.status != Status::Running {
            return Ok((looked, Outcome::Done));
        }
        let (id, wedged) = (container.id.clone(), container.wedged);
        let kill_at = now + SignedDuration::from_secs(grace.into());
        let ends = self.terminate(&id, now);
        if let Some(container) = self.containers.get_mut(&id) {
            container.kill_at = Some(container.kill_at.map_or(kill_at, |before| before.min(kill_at)));
        }
        self.look_at(kill_at);
        if wedged {
            let after = Duration::from_secs(u64::from(grace)) + HUNG_DEADLINE;
            return Err((now + span(after), EngineError::Deadline { call: "stop", after }));
        }
        Ok((ends.map_or(kill_at, |ends| ends.min(kill_at)) + self.costs.stop, Outcome::Done))
    }

    /// SIGTERM. Says when the container will end, as far as it is up to the container.
    fn terminate(&mut self, id: &str, now: Timestamp) -> Option<Timestamp> {
        let container = self.containers.get_mut(id).filter(|c| c.status == Status::Running)?;
        if let Some(takes) = container.behaviour.stops_in {
            let at = now + takes;
            if container.ends.is_none_or(|(before, _)| at < before) {
                container.ends = Some((at, End::Code(0)));
                container.write(now, false, "stopping".into());
            }
        }
        let ends = container.ends.map(|(at, _)| at);
        if let Some(at) = ends {
            self.look_at(at);
        }
        ends
    }

    fn pull(&mut self, reference: &str, now: Timestamp) -> Done {
        let image = normal(reference);
        let behaviour = Behaviour::of_image(&image);
        let answered = now + self.costs.look + SignedDuration::from_millis(200);
        let fault = if self.registry_away {
            Registry::Broken
        } else if self.lost_images.contains(&image) {
            Registry::Missing
        } else {
            behaviour.registry
        };
        match fault {
            Registry::Has => {}
            Registry::Missing => {
                let message = format!("manifest for {image} not found: manifest unknown");
                return Err((answered, EngineError::ImageNotFound { image, message }));
            }
            Registry::Denied => {
                let message = format!("pull access denied for {image}");
                return Err((answered, EngineError::PullDenied { image, message }));
            }
            Registry::Broken => {
                let message = "received unexpected HTTP status: 503 Service Unavailable".into();
                return Err((answered, EngineError::PullFailed { image, message }));
            }
            Registry::Hangs => {
                let message = format!("no progress for {} s", PULL_DEADLINE.as_secs());
                return Err((now + span(PULL_DEADLINE), EngineError::PullFailed { image, message }));
            }
        }
        let takes = behaviour.pull.unwrap_or(self.costs.pull);
        // Somebody may be pulling it already; Docker does it once.
        let done = self.pulls.get(&image).copied().unwrap_or(now + takes);
        self.pulls.insert(image.clone(), done);
        self.look_at(done);
        let (_, state) = self.image_in_registry(&image);
        Ok((done, Outcome::Image(Box::new(state))))
    }

    fn run(&mut self, id: &str, command: &[String], timeout: Duration, now: Timestamp) -> Done {
        let answered = now + self.costs.run;
        let container = self.find(id).ok_or((answered, not_found(id)))?;
        if container.status != Status::Running {
            return Err((answered, EngineError::Conflict { message: format!("Container {id} is not running") }));
        }
        let (takes, ran) = self.command(&container.id, command, b"");
        if takes > span(timeout) {
            return Ok((answered + span(timeout), Outcome::Ran(Ran { exit_code: None, output: Bytes::new() })));
        }
        let output = ran.output.slice(..ran.output.len().min(RUN_OUTPUT_MAX));
        Ok((answered + takes, Outcome::Ran(Ran { output, ..ran })))
    }

    /// What a command in a running container does, and how long it takes.
    pub(super) fn command(&self, id: &str, command: &[String], input: &[u8]) -> (SignedDuration, Ran) {
        let ran = |code: i64, output: String| (SignedDuration::ZERO, Ran { exit_code: Some(code), output: output.into() });
        let Some(container) = self.find(id) else { return ran(126, String::new()) };
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let program = words.first().copied().unwrap_or_default();
        match (program.rsplit('/').next().unwrap_or_default(), words.get(1..).unwrap_or_default()) {
            ("true", _) => ran(0, String::new()),
            ("false", _) => ran(1, String::new()),
            ("echo", words) => ran(0, format!("{}\n", words.join(" "))),
            ("hostname", _) => ran(0, format!("{}\n", container.spec.hostname.as_deref().unwrap_or(&container.id[..12]))),
            ("env", _) => ran(0, container.spec.env.iter().map(|(name, value)| format!("{name}={value}\n")).collect()),
            ("cat", []) => (SignedDuration::ZERO, Ran { exit_code: Some(0), output: Bytes::copy_from_slice(input) }),
            ("exit", [code]) => ran(code.parse().unwrap_or(2), String::new()),
            ("sleep", [time]) => {
                let seconds: f64 = time.trim_end_matches('s').parse().unwrap_or(0.0);
                let takes = SignedDuration::from_millis((seconds.clamp(0.0, 1e9) * 1000.0) as i64);
                (takes, Ran { exit_code: Some(0), output: Bytes::new() })
            }
            ("sh" | "bash" | "ash", ["-c", script]) => {
                let words: Vec<String> =
                    script.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_string()).collect();
                // A shell in a shell would go on for ever on a hostile script.
                match words.first().map(String::as_str) {
                    None | Some("sh" | "bash" | "ash") => ran(0, String::new()),
                    Some(_) => self.command(id, &words, input),
                }
            }
            _ if self.answers(id) => ran(0, String::new()),
            _ => ran(1, "not answering\n".into()),
        }
    }
}

impl Container {
    pub(super) fn summary(&self) -> Summary {
        Summary {
            id: self.id.clone(),
            name: self.name.clone(),
            image: self.spec.image.clone(),
            labels: self.spec.labels.clone(),
            status: self.status,
        }
    }

    pub(super) fn state(&self) -> ContainerState {
        ContainerState {
            id: self.id.clone(),
            name: self.name.clone(),
            image: self.spec.image.clone(),
            image_id: self.image_id.clone(),
            labels: self.spec.labels.clone(),
            status: self.status,
            pid: self.pid,
            created_at: Some(self.created_at),
            started_at: self.started_at,
            finished_at: self.finished_at,
            exit_code: self.exit_code,
            oom_killed: self.oom_killed,
            error: self.error.clone(),
            ip: self.ip.clone(),
            network: match &self.spec.network {
                NetworkMode::Bridge => "bridge".into(),
                NetworkMode::Host => "host".into(),
                NetworkMode::None => "none".into(),
                NetworkMode::Container(id) => format!("container:{id}"),
            },
            tty: self.spec.tty,
            open_stdin: self.spec.open_stdin,
            hosts_path: String::new(),
            resolv_path: String::new(),
            mounts: self
                .spec
                .binds
                .iter()
                .map(|bind| crate::docker::container::Mount {
                    source: bind.source.clone(),
                    target: bind.target.clone(),
                    read_only: bind.read_only,
                })
                .collect(),
        }
    }
}

/// Whether a container carries a label, given as `key` or `key=value`.
pub(super) fn has_label(spec: &ContainerSpec, label: &str) -> bool {
    match label.split_once('=') {
        Some((key, value)) => spec.labels.get(key).is_some_and(|has| has == value),
        None => spec.labels.contains_key(label),
    }
}

fn not_found(id: &str) -> EngineError {
    EngineError::NotFound { id: id.into() }
}

fn image_not_found(image: &str) -> EngineError {
    EngineError::ImageNotFound { image: image.into(), message: format!("No such image: {image}") }
}

fn span(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
