//! Which engine an agent drives: for the doors that start agents, which know no Docker themselves.

use std::path::PathBuf;
use std::sync::Arc;

use crate::docker::Engine;
use crate::docker::bollard_engine::BollardEngine;
use crate::docker::simulated::{Costs, Settings, SimulatedEngine};

/// What runs the containers.
#[derive(Clone, Debug)]
pub enum Choice {
    /// Docker, or whatever speaks its API behind this socket.
    Docker {
        /// The socket.
        socket: PathBuf,
    },
    /// The simulated one: no containers at all, remembered in a directory.
    Simulated {
        /// Where it remembers.
        directory: PathBuf,
        /// What the host is called.
        hostname: String,
    },
}

/// Opens it. Docker need not be there yet.
pub fn open(choice: &Choice) -> std::io::Result<Arc<dyn Engine>> {
    Ok(match choice {
        Choice::Docker { socket } => Arc::new(BollardEngine::new(socket)),
        Choice::Simulated { directory, hostname } => {
            let settings = Settings { hostname: hostname.clone(), cpus: 4, memory: 8 << 30, costs: Costs::MEASURED };
            Arc::new(SimulatedEngine::open(directory, &settings)?)
        }
    })
}
