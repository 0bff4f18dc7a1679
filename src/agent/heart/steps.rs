//! Beginning the planner's steps, and taking in how they ended.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler};

use super::report::later;
use super::{Ask, Heart, HttpGet, ProbeCall, Reply, Slot, Step, Ticket, VolumeWork, Work};
use crate::agent::translate;
use crate::docker::container::{PidMode, Status};
use crate::docker::{ContainerState, EngineError, ImageState, Operation, Outcome, Outlook, Ran, is_about_network_of};
use crate::plan::pod::memory::{Image, Trouble, Work as Progress};
use crate::plan::pod::spec::PullPolicy;
use crate::plan::pod::{HookKind, ProbeKind, backoff, env, probe, spec, status, volume};

/// The longest wait before something that the engine refused is tried again, in seconds.
const PAUSE_LONGEST: u32 = 15;

impl Heart {
    pub(super) fn occupy(&mut self, uid: &str, slot: Slot, ticket: Ticket) {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.busy.insert(slot, ticket);
        }
    }
    pub(super) fn free(&mut self, uid: &str, slot: &Slot) {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.busy.remove(slot);
            self.dirty.insert(uid.to_owned());
        }
    }

    /// Begins a step, unless its place is taken or nothing may be changed now.
    pub(super) fn launch(&mut self, uid: &str, step: Step) {
        let Some(entry) = self.pods.get(uid) else { return };
        let slot = step.slot();
        if entry.busy.contains_key(&slot) || (entry.unsettled && !step.is_harmless()) {
            return;
        }
        if let Some((_, until)) = entry.pauses.get(&slot).filter(|(_, until)| *until > self.now) {
            let until = *until;
            self.wake_at(uid, until);
            return;
        }
        let Some(work) = self.work(uid, &step) else { return };
        let ticket = self.act(work, Ask::Step { uid: uid.to_owned(), step });
        self.occupy(uid, slot, ticket);
    }

    /// What a step means for the driver. `None`: not now.
    fn work(&mut self, uid: &str, step: &Step) -> Option<Work> {
        let pod = self.pods.get(uid)?.pod.clone();
        let engine = |operation| Some(Work::Engine(operation));
        match step {
            Step::SandboxCreate { attempt } => {
                let name = self.free_name(uid, translate::container_name(&pod, "", *attempt));
                let spec = Box::new(translate::sandbox(&self.settings, &pod, *attempt));
                engine(Operation::Create { name, spec })
            }
            Step::Start { id, .. } => engine(Operation::Start { id: id.clone() }),
            Step::Look { container } => {
                let reference = spec::image(&*spec::definition(&pod, container)?).to_owned();
                engine(Operation::Image { reference })
            }
            Step::Pull { container } => {
                let reference = spec::image(&*spec::definition(&pod, container)?).to_owned();
                let has_secrets = spec::spec(&pod)?.image_pull_secrets.iter().flatten().next().is_some();
                if has_secrets && !self.configs_ready(uid, None) {
                    return None;
                }
                let auth = self.with_sources(uid, |_, s| translate::registry_auth(&pod, &reference, s)).flatten();
                self.event(uid, container, false, "Pulling", format!("Pulling image \"{reference}\""));
                engine(Operation::Pull { reference, auth })
            }
            Step::Volumes => {
                if !self.configs_ready(uid, None) {
                    return None;
                }
                match self.with_sources(uid, |_, sources| volume::plan(&pod, sources))? {
                    Ok(volumes) => {
                        self.pods.get_mut(uid)?.volumes = volumes.clone();
                        Some(Work::Volumes(Box::new(VolumeWork { uid: uid.to_owned(), volumes, group: spec::fs_group(&pod) })))
                    }
                    Err(message) => {
                        self.volumes_failed(uid, message);
                        None
                    }
                }
            }
            Step::Create { container, attempt, sandbox } => self.create(uid, container, *attempt, sandbox),
            Step::Hook { container, id, kind, seconds } => {
                let lifecycle = spec::container(&pod, container)?.lifecycle.as_ref()?;
                let hook = match kind {
                    HookKind::PostStart => lifecycle.post_start.as_ref()?,
                    HookKind::PreStop => lifecycle.pre_stop.as_ref()?,
                };
                self.hook(uid, spec::container(&pod, container)?, id, hook, *seconds)
            }
            Step::Probe { container, id, kind } => self.probe(uid, spec::container(&pod, container)?, id, *kind),
            Step::Stop { container, id, grace } => {
                let why = self.pods.get(uid)?.memory.containers.get(container).and_then(|c| c.kill.as_ref());
                let why = why.map_or("Stopping container", |k| k.why.as_str());
                let message = format!("{why}: container {container}, {grace} s to end");
                self.event(uid, container, false, "Killing", message);
                engine(Operation::Stop { id: id.clone(), grace: *grace })
            }
            Step::Kill { id, .. } => engine(Operation::Kill { id: id.clone(), signal: "SIGKILL".to_owned() }),
            Step::Remove { id } => engine(Operation::Remove { id: id.clone(), force: true }),
            Step::LastWords { container, id, log } => {
                let attempt = self.pods.get(uid)?.memory.containers.get(container)?.last.as_ref()?.attempt;
                let file = translate::message_file(&self.settings, uid, container, attempt);
                Some(Work::LastWords { container: id.clone(), file, log: *log })
            }
            Step::Finish => {
                self.finish(uid);
                None
            }
        }
    }

    /// The name, or another one where a foreign container has it.
    fn free_name(&self, uid: &str, name: String) -> String {
        match self.pods.get(uid).and_then(|e| e.detours.get(&name)) {
            Some(times) => format!("{name}_x{times}"),
            None => name,
        }
    }

    fn create(&mut self, uid: &str, container: &str, attempt: u32, sandbox: &str) -> Option<Work> {
        let anew = self.making(uid, container, attempt);
        if !self.configs_ready(uid, anew) {
            return None;
        }
        let entry = self.pods.get(uid)?;
        let pod = entry.pod.clone();
        let definition = spec::definition(&pod, container)?;
        // The target of an ephemeral container has to run when it is made.
        let target = match spec::target(&pod, container) {
            Some(target) => match self.engine.seen(uid).current(target).filter(|cell| cell.state.alive()) {
                Some(cell) => Some(cell.id.clone()),
                None => {
                    let message = format!("unable to find target container \"{target}\": it does not run");
                    self.trouble(uid, container, "CreateContainerError", message);
                    return None;
                }
            },
            None => None,
        };
        let entry = self.pods.get(uid)?;
        let user = match &entry.memory.containers.get(container)?.image {
            Image::Ready { user, .. } => user.clone(),
            _ => String::new(),
        };
        let built = self.with_sources(uid, |heart, sources| {
            if env::needs_address(&definition) && sources.pod_ip.is_none() {
                return None;
            }
            Some(translate::container(&heart.settings, &pod, &definition, attempt, sandbox, &user, sources))
        })??;
        match built {
            Ok(mut spec) => {
                if let (Some(id), PidMode::Private) = (target, &spec.pid) {
                    spec.pid = PidMode::Container(id);
                }
                let name = self.free_name(uid, translate::container_name(&pod, container, attempt));
                Some(Work::Engine(Operation::Create { name, spec: Box::new(spec) }))
            }
            Err(message) => {
                self.pods.get_mut(uid)?.making.insert(container.to_owned(), (attempt, None));
                self.trouble(uid, container, "CreateContainerConfigError", message);
                None
            }
        }
    }

    pub(super) fn address(&self, uid: &str) -> Option<String> {
        let entry = self.pods.get(uid)?;
        let seen = self.engine.seen(uid);
        status::address(&self.settings.view(&entry.pod, &seen, self.now), &entry.memory)
    }

    fn hook(&mut self, uid: &str, container: &Container, id: &str, hook: &LifecycleHandler, seconds: i64) -> Option<Work> {
        let timeout = SignedDuration::from_secs(seconds);
        if let Some(exec) = &hook.exec {
            let command = exec.command.clone().unwrap_or_default();
            return Some(Work::Engine(Operation::Run { id: id.to_owned(), command, timeout: timeout.unsigned_abs() }));
        }
        if let Some(sleep) = &hook.sleep {
            return Some(Work::Sleep(SignedDuration::from_secs(sleep.seconds.clamp(0, seconds.max(0)))));
        }
        let (host, port, http) = if let Some(get) = &hook.http_get {
            (get.host.clone(), spec::port(container, &get.port), Some(http_get(get)))
        } else {
            let tcp = hook.tcp_socket.as_ref()?;
            (tcp.host.clone(), spec::port(container, &tcp.port), None)
        };
        let host = host.filter(|h| !h.is_empty()).or_else(|| self.address(uid)).unwrap_or_default();
        Some(Work::Probe(ProbeCall { container: id.to_owned(), host, port: port.unwrap_or(0), http, timeout }))
    }

    fn probe(&mut self, uid: &str, container: &Container, id: &str, kind: ProbeKind) -> Option<Work> {
        let probe = probe::of(container, kind)?;
        let timeout = SignedDuration::from_secs(spec::timeout(probe));
        if let Some(exec) = &probe.exec {
            let command = exec.command.clone().unwrap_or_default();
            return Some(Work::Engine(Operation::Run { id: id.to_owned(), command, timeout: timeout.unsigned_abs() }));
        }
        let (host, port, http) = if let Some(get) = &probe.http_get {
            (get.host.clone(), spec::port(container, &get.port), Some(http_get(get)))
        } else if let Some(tcp) = &probe.tcp_socket {
            (tcp.host.clone(), spec::port(container, &tcp.port), None)
        } else {
            // gRPC: that something listens is all that can be said without its protocol.
            (None, probe.grpc.as_ref().and_then(|g| u16::try_from(g.port).ok()), None)
        };
        let host = host.filter(|h| !h.is_empty()).or_else(|| self.address(uid)).unwrap_or_default();
        Some(Work::Probe(ProbeCall { container: id.to_owned(), host, port: port.unwrap_or(0), http, timeout }))
    }

    /// An action ended.
    pub(super) fn done(&mut self, ticket: Ticket, reply: Reply) {
        let Some(ask) = self.asked.remove(&ticket) else { return };
        if let Reply::Engine(result) = &reply {
            self.engine.spoke(ticket, !matches!(result, Err(error) if error.outlook() == Outlook::Unknown));
        }
        match (ask, reply) {
            (Ask::List, Reply::Engine(result)) => self.listed(result),
            (Ask::Inspect { id, adopt }, Reply::Engine(result)) => self.inspected(&id, adopt, result),
            (Ask::Orphan { id }, Reply::Engine(result)) => self.orphan_done(&id, &result),
            (Ask::SandboxImage { uid }, Reply::Engine(result)) => {
                self.free(&uid, &Slot::Container(String::new()));
                if let Err(error) = result {
                    self.sandbox_failed(&uid, "", format!("the sandbox's image {}: {error}", self.settings.sandbox_image));
                }
            }
            (Ask::Step { uid, step }, reply) => self.step_done(&uid, step, reply),
            (Ask::Patch { uid }, Reply::Server(result)) => self.patched(&uid, ticket, result),
            (Ask::Get { uid }, Reply::Server(result)) => self.got(&uid, ticket, result),
            (Ask::Delete { uid }, Reply::Server(result)) => self.deleted(&uid, result),
            (Ask::Config(config), Reply::Server(result)) => self.config_read(config, result),
            (Ask::Clear { uid }, _) => {
                self.free(&uid, &Slot::Finish);
                if self.pods.get(&uid).is_some_and(|e| e.gone) {
                    self.bury(&uid);
                }
            }
            (Ask::Rewrite { uid }, _) => {
                self.free(&uid, &Slot::Volumes);
                self.rewrite_volumes(&uid); // the values may have changed again
            }
            (Ask::Nothing, _) => {}
            (ask, reply) => tracing::error!(?ask, ?reply, "an answer of the wrong kind"),
        }
    }

    fn step_done(&mut self, uid: &str, step: Step, reply: Reply) {
        let slot = step.slot();
        self.free(uid, &slot);
        match (step, reply) {
            (Step::Probe { container, id, kind }, reply) => self.probed(uid, &container, &id, kind, reply),
            (Step::Hook { container, id, kind, .. }, reply) => self.hooked(uid, &container, &id, kind, reply),
            (Step::Volumes, Reply::Volumes(result)) => match result {
                Ok(()) => {
                    if let Some(entry) = self.pods.get_mut(uid) {
                        entry.memory.volumes = Progress::Done;
                    }
                }
                Err(message) => self.volumes_failed(uid, message),
            },
            (Step::LastWords { container, id, .. }, Reply::Words(text)) => {
                let one = self.pods.get_mut(uid).and_then(|e| e.memory.containers.get_mut(&container));
                if let Some(one) = one {
                    let mut text = text;
                    if text.len() > status::MESSAGE_MAX {
                        let mut cut = text.len() - status::MESSAGE_MAX;
                        while !text.is_char_boundary(cut) {
                            cut += 1;
                        }
                        text.drain(..cut);
                    }
                    for end in [&mut one.last, &mut one.before].into_iter().flatten().filter(|e| e.id == id) {
                        end.message = Some(text.clone());
                    }
                }
            }
            (step, Reply::Engine(result)) => self.engine_step_done(uid, step, slot, result),
            (step, reply) => tracing::error!(?step, ?reply, "an answer of the wrong kind"),
        }
    }

    fn engine_step_done(&mut self, uid: &str, step: Step, slot: Slot, result: Result<Outcome, EngineError>) {
        let now = self.now;
        if let Err(error) = &result
            && error.outlook() == Outlook::Unknown
        {
            tracing::debug!(uid, ?step, %error, "outcome unknown");
            self.unsettle(uid);
            return;
        }
        // What was refused is not asked again at once, whatever the planner says.
        if let Some(entry) = self.pods.get_mut(uid) {
            match &result {
                Ok(_) => {
                    entry.pauses.remove(&slot);
                }
                Err(_) => {
                    let times = entry.pauses.get(&slot).map_or(0, |p| p.0) + 1;
                    let until = now.checked_add(backoff::after(times, 1, PAUSE_LONGEST)).unwrap_or(now);
                    let looked_for = matches!(step, Step::Look { .. } | Step::Pull { .. });
                    let name_taken = matches!(result, Err(EngineError::NameTaken { .. }));
                    if !looked_for && !name_taken {
                        entry.pauses.insert(slot.clone(), (times, until));
                    }
                }
            }
        }
        match step {
            Step::SandboxCreate { attempt } => self.created(uid, "", attempt, "", slot, result),
            Step::Create { container, attempt, sandbox } => self.created(uid, &container, attempt, &sandbox, slot, result),
            Step::Start { container, id } => {
                match result {
                    Ok(_) if container.is_empty() => {}
                    Ok(_) => self.event(uid, &container, false, "Started", format!("Started container {container}")),
                    Err(EngineError::NotFound { .. }) => {
                        self.lost(&id);
                        return;
                    }
                    Err(error) if container.is_empty() => self.sandbox_failed(uid, &id, error.to_string()),
                    Err(error) => match self.sandbox_to_blame(uid, &id, &error) {
                        Some(sandbox) => self.look_at(&sandbox),
                        None => self.trouble(uid, &container, "RunContainerError", error.to_string()),
                    },
                }
                self.look_and_hold(&id, uid, slot);
            }
            Step::Look { container } => self.looked(uid, &container, result),
            Step::Pull { container } => self.pulled(uid, &container, result),
            Step::Remove { id } => match result {
                Ok(_) | Err(EngineError::NotFound { .. }) => self.lost(&id),
                Err(_) => self.look_and_hold(&id, uid, slot),
            },
            Step::Stop { id, .. } | Step::Kill { id, .. } => match result {
                Err(EngineError::NotFound { .. }) => self.lost(&id),
                _ => self.look_and_hold(&id, uid, slot),
            },
            step => tracing::error!(?step, "not a step of the engine"),
        }
    }

    fn created(
        &mut self,
        uid: &str,
        container: &str,
        attempt: u32,
        sandbox: &str,
        slot: Slot,
        result: Result<Outcome, EngineError>,
    ) {
        let Some(pod) = self.pods.get(uid).map(|e| e.pod.clone()) else {
            // The pod is over; what was made for it is an orphan that the next list finds.
            self.engine.relist_at = self.now;
            return;
        };
        let name = self.free_name(uid, translate::container_name(&pod, container, attempt));
        match result {
            Ok(Outcome::Created { id }) => {
                // What we asked for is what is there: no need to look.
                let mut labels = std::collections::BTreeMap::new();
                let mut put = |name: &str, value: &str| labels.insert(name.to_owned(), value.to_owned());
                put(translate::CLUSTER, &self.settings.cluster);
                put(translate::NODE, &self.settings.node);
                put(translate::TYPE, if container.is_empty() { "podsandbox" } else { "container" });
                put(translate::POD_UID, uid);
                put(translate::CONTAINER, if container.is_empty() { translate::SANDBOX_NAME } else { container });
                put(translate::ATTEMPT, &attempt.to_string());
                put(translate::SANDBOX, sandbox);
                let definition = spec::definition(&pod, container);
                put(translate::HASH, &definition.as_deref().map(spec::hash).unwrap_or_default());
                let image = definition.as_deref().map(spec::image).unwrap_or_default().to_owned();
                let state = ContainerState {
                    id,
                    name,
                    labels,
                    image,
                    status: Status::Created,
                    created_at: Some(self.now),
                    ..ContainerState::default()
                };
                self.believe(&state);
                if !container.is_empty() {
                    self.event(uid, container, false, "Created", format!("Created container: {container}"));
                }
            }
            Ok(_) => {}
            Err(EngineError::NameTaken { holder, .. }) => {
                let id = if holder.is_empty() { name.clone() } else { holder };
                let adopt = Some((uid.to_owned(), slot.clone(), name));
                let ticket = self.engine(Operation::Inspect { id: id.clone() }, Ask::Inspect { id, adopt });
                self.occupy(uid, slot, ticket);
            }
            Err(EngineError::ImageNotFound { .. }) if container.is_empty() => {
                if let Some(entry) = self.pods.get_mut(uid) {
                    entry.pauses.remove(&slot);
                }
                let ticket = self.act(Work::SandboxImage, Ask::SandboxImage { uid: uid.to_owned() });
                self.occupy(uid, slot, ticket);
            }
            Err(EngineError::ImageNotFound { .. }) => {
                if let Some(one) = self.pods.get_mut(uid).and_then(|e| e.memory.containers.get_mut(container)) {
                    one.image = Image::Unknown; // somebody removed it since we looked
                }
            }
            Err(EngineError::NotFound { .. }) if !container.is_empty() => self.look_at(sandbox),
            Err(error) if container.is_empty() => self.sandbox_failed(uid, "", error.to_string()),
            Err(error) => self.trouble(uid, container, "CreateContainerError", error.to_string()),
        }
    }

    /// The sandbox without which a container could not start, if that is why: it ended, and we have not heard of it yet.
    fn sandbox_to_blame(&self, uid: &str, id: &str, error: &EngineError) -> Option<String> {
        let seen = self.engine.seen(uid);
        let sandbox = &seen.containers.iter().find(|cell| cell.id == id)?.sandbox;
        is_about_network_of(&error.to_string(), sandbox).then(|| sandbox.clone())
    }

    fn sandbox_failed(&mut self, uid: &str, id: &str, message: String) {
        let now = self.now;
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let sandbox = &mut entry.memory.sandbox;
        sandbox.failures = sandbox.failures.saturating_add(1);
        sandbox.failed_at = Some(now);
        sandbox.failed = id.to_owned();
        let news = sandbox.error != message;
        sandbox.error = message.clone();
        self.dirty.insert(uid.to_owned());
        if news {
            self.event(uid, "", true, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}"));
        }
    }

    fn trouble(&mut self, uid: &str, container: &str, reason: &str, message: String) {
        let at = self.now;
        let Some(one) = self.pods.get_mut(uid).and_then(|e| e.memory.containers.get_mut(container)) else { return };
        let times = one.trouble.as_ref().map_or(0, |t| t.times).saturating_add(1);
        let news = one.trouble.as_ref().is_none_or(|t| t.message != message);
        one.trouble = Some(Trouble { reason: reason.to_owned(), message: message.clone(), at, times });
        self.dirty.insert(uid.to_owned());
        if news {
            self.event(uid, container, true, "Failed", format!("Error: {message}"));
        }
    }

    fn volumes_failed(&mut self, uid: &str, message: String) {
        let at = self.now;
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let (times, before) = match &entry.memory.volumes {
            Progress::Failed { times, message, .. } => (*times, message.clone()),
            _ => (0, String::new()),
        };
        entry.memory.volumes = Progress::Failed { times: times.saturating_add(1), at, message: message.clone() };
        self.dirty.insert(uid.to_owned());
        if before != message {
            self.event(uid, "", true, "FailedMount", message);
        }
    }

    fn looked(&mut self, uid: &str, container: &str, result: Result<Outcome, EngineError>) {
        match result {
            Ok(Outcome::Image(image)) => self.image_ready(uid, container, &image),
            Ok(_) => {}
            Err(error) => {
                let now = self.now;
                let Some(entry) = self.pods.get_mut(uid) else { return };
                let Some(definition) = spec::definition(&entry.pod, container) else { return };
                let policy = spec::pull_policy(&definition);
                let image = spec::image(&definition).to_owned();
                let Some(one) = entry.memory.containers.get_mut(container) else { return };
                let missing = matches!(error, EngineError::ImageNotFound { .. });
                if missing && policy != PullPolicy::Never {
                    one.image = Image::Wanted;
                    return;
                }
                let (reason, message) = match missing {
                    true => {
                        ("ErrImageNeverPull", format!("Container image \"{image}\" is not present with pull policy of Never"))
                    }
                    false => ("ImageInspectError", error.to_string()),
                };
                one.pull_failures = one.pull_failures.saturating_add(1);
                one.pull_failed_at = Some(now);
                one.image = Image::Failed { reason: reason.to_owned(), message: message.clone() };
                self.event(uid, container, true, reason, message);
            }
        }
    }

    fn pulled(&mut self, uid: &str, container: &str, result: Result<Outcome, EngineError>) {
        match result {
            Ok(Outcome::Image(image)) => {
                self.image_ready(uid, container, &image);
                let pod = self.pods.get(uid).map(|e| e.pod.clone());
                let definition = pod.as_deref().and_then(|pod| spec::definition(pod, container));
                let name = definition.as_deref().map(spec::image).unwrap_or_default();
                self.event(uid, container, false, "Pulled", format!("Successfully pulled image \"{name}\""));
            }
            Ok(_) => {}
            Err(error) => {
                let now = self.now;
                let Some(one) = self.pods.get_mut(uid).and_then(|e| e.memory.containers.get_mut(container)) else { return };
                one.pull_failures = one.pull_failures.saturating_add(1);
                one.pull_failed_at = Some(now);
                one.image = Image::Failed { reason: "ErrImagePull".to_owned(), message: error.to_string() };
                self.event(uid, container, true, "Failed", format!("Failed to pull image: {error}"));
            }
        }
    }

    fn image_ready(&mut self, uid: &str, container: &str, image: &ImageState) {
        if let Some(digest) = image.digests.first() {
            self.engine.digests.insert(image.id.clone(), digest.clone());
        }
        if let Some(one) = self.pods.get_mut(uid).and_then(|e| e.memory.containers.get_mut(container)) {
            one.pull_failures = 0;
            one.pull_failed_at = None;
            one.image = Image::Ready { id: image.id.clone(), user: image.user.clone() };
        }
    }

    fn probed(&mut self, uid: &str, container: &str, id: &str, kind: ProbeKind, reply: Reply) {
        let now = self.now;
        let result = match reply {
            Reply::Probe(result) => result,
            Reply::Engine(Ok(Outcome::Ran(ran))) => ran_well(&ran),
            Reply::Engine(Err(error)) if error.outlook() == Outlook::Unknown => {
                // The engine did not answer: that says nothing about the container. Look again after a period.
                self.engine_failed();
                if let Some(one) = self.pods.get_mut(uid).and_then(|e| e.memory.containers.get_mut(container)) {
                    for memory in [&mut one.startup, &mut one.live, &mut one.readiness] {
                        if memory.due.is_some_and(|due| due <= now) {
                            memory.due = Some(later(now, 1));
                        }
                    }
                }
                return;
            }
            Reply::Engine(Err(error)) => {
                // Nothing can be run in a container that has ended: the hint of its end may have been lost.
                self.look_at(id);
                Err(error.to_string())
            }
            _ => Err("no answer".to_owned()),
        };
        let Some(pod) = self.pods.get(uid).map(|e| e.pod.clone()) else { return };
        let Some(definition) = spec::container(&pod, container) else { return };
        let Some(one) = self.pods.get_mut(uid).and_then(|e| e.memory.containers.get_mut(container)) else { return };
        // Not to be ready yet is no news.
        let news = kind != ProbeKind::Readiness || one.ready.as_deref() == Some(id) || one.readiness.streak <= -3;
        let failed = result.as_ref().err().cloned().filter(|_| news);
        let verdict = probe::result(definition, id, kind, result, one, now);
        if let Some(message) = failed {
            self.event(uid, container, true, "Unhealthy", format!("{} probe failed: {message}", probe::word(kind)));
        }
        if let probe::Verdict::Stop(why) = verdict {
            let grace = probe::of(definition, kind).and_then(|p| p.termination_grace_period_seconds);
            self.demand_stop(uid, definition, id, grace, &why);
        }
    }

    fn hooked(&mut self, uid: &str, container: &str, id: &str, kind: HookKind, reply: Reply) {
        let result = match reply {
            Reply::Probe(result) => result,
            Reply::Engine(Ok(Outcome::Ran(ran))) => ran_well(&ran),
            Reply::Engine(Err(error)) => {
                if error.outlook() == Outlook::Unknown {
                    self.unsettle(uid);
                    if kind == HookKind::PostStart {
                        return; // hooks run at least once
                    }
                }
                Err(error.to_string())
            }
            _ => Ok(()),
        };
        let Some(pod) = self.pods.get(uid).map(|e| e.pod.clone()) else { return };
        let Some(one) = self.pods.get_mut(uid).and_then(|e| e.memory.containers.get_mut(container)) else { return };
        match kind {
            HookKind::PreStop => {
                if let Some(kill) = one.kill.as_mut().filter(|k| k.id == id) {
                    kill.hook_done = true;
                }
                if let Err(message) = result {
                    self.event(uid, container, true, "FailedPreStopHook", message);
                }
            }
            HookKind::PostStart => {
                one.post_started = Some(id.to_owned());
                if let Err(message) = result {
                    self.event(uid, container, true, "FailedPostStartHook", message);
                    if let Some(definition) = spec::container(&pod, container) {
                        self.demand_stop(uid, definition, id, None, "FailedPostStartHook");
                    }
                }
            }
        }
    }

    fn demand_stop(&mut self, uid: &str, container: &Container, id: &str, grace: Option<i64>, why: &str) {
        let seen = self.engine.seen(uid);
        let now = self.now;
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let pod = entry.pod.clone();
        entry.memory.demand_stop(&self.settings.view(&pod, &seen, now), container, id, grace, why);
        self.dirty.insert(uid.to_owned());
    }
}

fn ran_well(ran: &Ran) -> Result<(), String> {
    match ran.exit_code {
        Some(0) => Ok(()),
        Some(code) => {
            let output = String::from_utf8_lossy(&ran.output);
            Err(format!("command exited with {code}: {}", output.trim()))
        }
        None => Err("command timed out".to_owned()),
    }
}

fn http_get(get: &HTTPGetAction) -> HttpGet {
    HttpGet {
        tls: get.scheme.as_deref() == Some("HTTPS"),
        path: get.path.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "/".to_owned()),
        headers: get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
    }
}
