//! portolan: git is the chart, hosts are the harbours.
//!
//! A declarative GitOps reconciler for many hosts. It watches a git repository of Kubernetes manifests, decides what has to change,
//! schedules workloads onto registered hosts, and has an agent on each host carry it out with Docker.
//!
//! The rooms, in reading order: nouns, decisions, truth, the outside world, loops, doors.

pub mod agent;
pub mod api;
pub mod bench;
pub mod cli;
pub mod client;
pub mod clock;
pub mod control;
pub mod count;
pub mod docker;
pub mod git;
pub mod mutant;
pub mod object;
pub mod plan;
pub mod render;
pub mod server;
pub mod sim;
pub mod store;
