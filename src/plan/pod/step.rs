//! The steps, and the choice among them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::{Memory, Seen, observe, run, status, stop};

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make a sandbox with this number.
    SandboxCreate {
        /// The number.
        attempt: u32,
    },
    /// Start a container; an empty name is the sandbox.
    Start {
        /// Its name in the pod.
        container: String,
        /// The engine's id.
        id: String,
    },
    /// Find out whether the host has the image.
    Look {
        /// The container's name in the pod.
        container: String,
    },
    /// Fetch the image.
    Pull {
        /// The container's name in the pod.
        container: String,
    },
    /// Write the files of the pod's volumes.
    Volumes,
    /// Make a container in a sandbox.
    Create {
        /// Its name in the pod.
        container: String,
        /// The number.
        attempt: u32,
        /// The engine's id of the sandbox.
        sandbox: String,
    },
    /// Run a hook.
    Hook {
        /// The container's name in the pod.
        container: String,
        /// The engine's id.
        id: String,
        /// Which hook.
        kind: HookKind,
        /// How long it may take, in seconds.
        seconds: i64,
    },
    /// Run a probe.
    Probe {
        /// The container's name in the pod.
        container: String,
        /// The engine's id.
        id: String,
        /// Which probe.
        kind: ProbeKind,
    },
    /// Ask a container to end, and kill it after so many seconds.
    Stop {
        /// The container's name in the pod.
        container: String,
        /// The engine's id.
        id: String,
        /// Seconds.
        grace: u32,
    },
    /// Kill a container.
    Kill {
        /// The container's name in the pod.
        container: String,
        /// The engine's id.
        id: String,
    },
    /// Remove a container; it does not run, or is to be killed without grace.
    Remove {
        /// The engine's id.
        id: String,
    },
    /// Read why a container ended.
    LastWords {
        /// The container's name in the pod.
        container: String,
        /// The engine's id.
        id: String,
        /// Whether the log's end may stand in for a message.
        log: bool,
    },
    /// Nothing of the pod is left: its volumes can go, and its object with them.
    Finish,
}

/// Which hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookKind {
    /// After the start.
    PostStart,
    /// Before the stop.
    PreStop,
}

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Gates the others.
    Startup,
    /// A failure restarts the container.
    Liveness,
    /// A failure takes the pod out of its services.
    Readiness,
}

/// What a step occupies: while one is under way, no other of the same slot is begun.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// A container by its name in the pod; empty for the sandbox.
    Container(String),
    /// The image of a container.
    Image(String),
    /// The volumes.
    Volumes,
    /// One container by id, being killed or removed.
    Id(String),
    /// One container by id, being read.
    Words(String),
    /// A hook.
    Hook(String, HookKind),
    /// A probe.
    Probe(String, ProbeKind),
    /// The end.
    Finish,
}

impl Step {
    /// What it occupies.
    pub fn slot(&self) -> Slot {
        match self {
            Step::SandboxCreate { .. } => Slot::Container(String::new()),
            Step::Start { container, .. } | Step::Create { container, .. } | Step::Stop { container, .. } => {
                Slot::Container(container.clone())
            }
            Step::Look { container } | Step::Pull { container } => Slot::Image(container.clone()),
            Step::Volumes => Slot::Volumes,
            Step::Hook { container, kind, .. } => Slot::Hook(container.clone(), *kind),
            Step::Probe { container, kind, .. } => Slot::Probe(container.clone(), *kind),
            Step::Kill { id, .. } | Step::Remove { id } => Slot::Id(id.clone()),
            Step::LastWords { id, .. } => Slot::Words(id.clone()),
            Step::Finish => Slot::Finish,
        }
    }
    /// Whether it changes nothing on the host: probes go on while the state of things is unclear.
    pub fn is_harmless(&self) -> bool {
        matches!(self, Step::Probe { .. } | Step::LastWords { .. })
    }
}

/// What the decision is made from.
pub struct View<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What the host shows of it.
    pub seen: &'a Seen,
    /// The host's address, for pods in its network.
    pub node_ip: &'a str,
    /// When the host was started, if that is known: what ran before then ended with it.
    pub booted_at: Option<Timestamp>,
    /// Whether anything may be started: not before it is known whether the pod still exists.
    pub may_start: bool,
    /// The time.
    pub now: Timestamp,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Steps that can be taken now, side by side.
    pub steps: Vec<Step>,
    /// When to look again if nothing happens.
    pub wake: Option<Timestamp>,
    /// What the pod's status is now.
    pub status: PodStatus,
}

/// Decides. Deciding again at once with nothing done names the same steps.
///
/// Steps of one slot are named once per decision; whoever carries them out leaves out those whose slot is taken.
pub fn next(view: &View<'_>, memory: &mut Memory) -> Decision {
    observe::observe(view, memory);
    let mut plan = Plan { view, steps: Vec::new(), wake: None };
    if memory.stopping.is_some() {
        stop::stop_pod(&mut plan, memory);
    } else if memory.phase.is_some() {
        stop::wind_down(&mut plan, memory);
    } else {
        run::run(&mut plan, memory);
        if memory.phase.is_some() {
            plan.steps.retain(Step::is_harmless);
            stop::wind_down(&mut plan, memory);
        }
    }
    plan.last_words(memory);
    let Plan { mut steps, wake, .. } = plan;
    if !view.may_start {
        steps.retain(|s| {
            !matches!(
                s,
                Step::SandboxCreate { .. } | Step::Start { .. } | Step::Create { .. } | Step::Pull { .. } | Step::Volumes
            )
        });
    }
    Decision { steps, wake, status: status::status(view, memory) }
}

/// A decision being made.
pub(super) struct Plan<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) steps: Vec<Step>,
    pub(super) wake: Option<Timestamp>,
}

impl Plan<'_> {
    /// Look again at this time.
    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
    }
    pub(super) fn step(&mut self, step: Step) {
        if !self.steps.contains(&step) {
            self.steps.push(step);
        }
    }
    /// Whether the time has come; if not, looks again then.
    pub(super) fn reached(&mut self, at: Option<Timestamp>) -> bool {
        match at {
            Some(at) if at > self.view.now => {
                self.wake_at(at);
                false
            }
            _ => true,
        }
    }
    /// Reads why containers ended, where that is not known yet. Of a deleted pod nobody will ask.
    fn last_words(&mut self, memory: &Memory) {
        if memory.stopping.as_ref().is_some_and(|s| s.reason.is_empty()) {
            return;
        }
        for (name, one) in &memory.containers {
            let Some(last) = one.last.as_ref().filter(|l| l.message.is_none()) else { continue };
            if let Some(cell) = self.view.seen.containers.iter().find(|c| c.id == last.id && c.state == super::State::Exited) {
                self.step(Step::LastWords { container: name.clone(), id: cell.id.clone(), log: last.exit_code != 0 });
            }
        }
    }
}
