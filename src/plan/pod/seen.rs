//! What the host shows of a pod.

use jiff::Timestamp;

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Made, never started, or its start failed.
    #[default]
    Created,
    /// Running.
    Running,
    /// Frozen by somebody's hand: alive, does nothing.
    Paused,
    /// Ended.
    Exited,
    /// On its way out of the engine, or stuck there.
    Leaving,
}

impl State {
    /// Whether its processes exist.
    pub fn alive(self) -> bool {
        matches!(self, State::Running | State::Paused)
    }
}

/// One container of the pod, of whatever attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// The engine's id.
    pub id: String,
    /// The container's name in the pod; empty for the sandbox.
    pub container: String,
    /// Which attempt: 0, 1, 2 … Never used twice for one name.
    pub attempt: u32,
    /// The id of the sandbox that it lives in; empty for a sandbox.
    pub sandbox: String,
    /// What it was made from: see [`super::spec::hash`].
    pub hash: String,
    /// Where it is in its life.
    pub state: State,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// When it was last started.
    pub started_at: Option<Timestamp>,
    /// When it last ended.
    pub finished_at: Option<Timestamp>,
    /// How it last ended.
    pub exit_code: i64,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// What the engine says about a failed start.
    pub error: String,
    /// The image as it was asked for.
    pub image: String,
    /// The id of the image that it was made from.
    pub image_id: String,
    /// Its address, where it has one of its own.
    pub ip: Option<String>,
}

/// Everything of the pod that the engine has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Sandboxes, by attempt.
    pub sandboxes: Vec<Cell>,
    /// Containers, by name and attempt.
    pub containers: Vec<Cell>,
}

impl Seen {
    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&Cell> {
        self.sandboxes.last()
    }
    /// The attempts of one container, oldest first.
    pub fn attempts<'a>(&'a self, container: &'a str) -> impl DoubleEndedIterator<Item = &'a Cell> {
        self.containers.iter().filter(move |c| c.container == container)
    }
    /// The newest attempt of one container.
    pub fn current(&self, container: &str) -> Option<&Cell> {
        self.containers.iter().rev().find(|c| c.container == container)
    }
    /// Puts everything in the order that readers rely on.
    pub fn sort(&mut self) {
        self.sandboxes.sort_by(|a, b| (a.attempt, a.created_at, &a.id).cmp(&(b.attempt, b.created_at, &b.id)));
        self.containers
            .sort_by(|a, b| (&a.container, a.attempt, a.created_at, &a.id).cmp(&(&b.container, b.attempt, b.created_at, &b.id)));
    }
}
