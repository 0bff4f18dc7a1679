//! One integration binary: linking is what costs on two cores. Each module is a subject.
#![allow(clippy::print_stderr)] // a test speaks to whoever reads its failure

mod clients;
mod fleet;
mod foresight;
mod hostile;
mod hosts;
mod kinds;
mod kubectl;
mod kubectl_access;
mod kubectl_create;
mod kubectl_custom;
mod kubectl_proxy;
mod kubectl_streams;
mod kubectl_top;
mod reference;
mod rejects;
mod support;
mod tidy;
mod transcripts;
mod truth;
