//! Decides what should happen next.
//!
//! Each planner is a pure function from a narrow view to a plan, and a plan is a value: it can be printed, compared and carried out.
//! The same functions serve the server's loops, `portolan plan` in a terminal, the simulator and the tests.
//!
//! You will not find here: what is true (that is the store), or how it is made so (that is `control` and `agent`). No clock, no dice,
//! no async, no store. The time, identifiers and seeds are arguments, and maps are ordered, so that the same input always gives the
//! same plan.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod foresee;
pub mod garbage;
pub mod health;
pub mod idle;
pub mod node;
pub mod pod;
pub mod preflight;
pub mod rollout;
pub mod schedule;
pub mod sync;
pub mod target;
pub mod verdict;
