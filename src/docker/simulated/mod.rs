//! A host without containers: an [`Engine`](super::Engine) that behaves as Docker does, for simulation, tests, benchmarks and trying
//! out.
//!
//! [`Machine`] is the model: synchronous, deterministic, told the time. The simulated house uses it directly and breaks it
//! ([`Machine::kill_daemon`], [`Machine::power_off`], [`Machine::inject`] and others). [`SimulatedEngine`] runs a machine in real time
//! behind the trait and remembers it in a file, so that its containers outlive the agent.
//!
//! What a container does is chosen by its image ([`Behaviour`]), so that manifests can ask for it:
//!
//! | image | what it does |
//! |---|---|
//! | `sim/web:v1`, and every name that is not below | answers at once, runs until it is told to stop, stops at once |
//! | `sim/slow:30s` | answers only after that time |
//! | `sim/unready:v1` | runs and never answers |
//! | `sim/sick:60s` | answers at once, and no more after that time |
//! | `sim/crash:1-5s` | ends with that code (1) after that time (1 s) |
//! | `sim/job:5s` | ends with code 0 after that time (1 s) |
//! | `sim/oom:5s` | runs out of memory after that time (1 s) |
//! | `sim/deaf:v1` | does not listen to SIGTERM |
//! | `sim/lazy:5s` | takes that time to stop (5 s) |
//! | `sim/chatty:1s` | writes a line to its log each time that passes (1 s) |
//! | `sim/norun:v1` | cannot be started: its program does not exist |
//! | `sim/large:20s` | takes that time to pull (20 s) |
//! | `sim/missing:v1` | is not in the registry |
//! | `sim/denied:v1` | is in the registry, not for us |
//! | `sim/broken:v1` | its registry answers with an error |
//! | `sim/hang:v1` | its pull never makes progress |
//!
//! A registry may stand before `sim/`. The tag holds the parameters in order, joined by `-`; what follows them is free and makes versions
//! (`sim/slow:30s-v2`). The environment variable `SIM` says the same in words that add up, for one image with several ways to go wrong:
//! `SIM="slow=30s deaf"`, and `SIM="needs=GREETING"` ends with code 1 at once unless the environment has a `GREETING`.
//!
//! Commands run in a container (probes, `exec`): `true`, `false`, `echo WORDS`, `env`, `hostname`, `cat` (copies its input), `sleep N`,
//! `exit N` and `sh -c` with one of these. Every other command succeeds when the container answers and fails when it does not. Ports,
//! reached through the sandbox, echo while a container of its network answers.

mod behaviour;
mod calls;
mod engine;
mod images;
mod machine;
mod session;

pub use behaviour::{Behaviour, End, Registry};
pub use engine::{Settings, SimulatedEngine};
pub use machine::{Costs, Happened, Happening, Injected, LogLine, Machine, Reply, View};

#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod tests;
