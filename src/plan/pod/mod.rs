//! Decides what happens next to one pod on its host.
//!
//! [`next`] looks at a pod, at what the host shows of it and at what is remembered, and names the steps that can be taken now: each is
//! one thing to do, after which one looks again. It also says what the pod's status is, and when to look again if nothing happens.
//!
//! You will not find here: the engine's words (the agent translates), the files of volumes being written, or a clock.

pub mod backoff;
pub mod env;
pub mod memory;
mod observe;
pub mod probe;
mod run;
pub mod seen;
pub mod spec;
pub mod status;
mod step;
mod stop;
pub mod volume;

pub use memory::{ContainerMemory, Ended, Memory};
pub use seen::{Cell, Seen, State};
pub use step::{Decision, HookKind, ProbeKind, Slot, Step, View, next};

#[cfg(test)]
mod tests;
