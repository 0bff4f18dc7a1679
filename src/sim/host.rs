//! A host of the simulated house: the model of a machine, the real heart of an agent, and the disk that both leave behind.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::agent::heart::{Heart, Record, Remembered, Settings};
use crate::docker::simulated::{Machine, View};
use crate::docker::{ContainerSpec, Operation, Outcome};
use crate::object::{Key, Revision};
use crate::store::Watch;

/// The label with the pod's uid.
pub(super) const POD_UID: &str = "io.kubernetes.pod.uid";
/// The label with the container's name.
pub(super) const CONTAINER: &str = "io.kubernetes.container.name";

/// A machine, its agent, and its link to the server.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) cpus: u32,
    pub(super) machine: Machine,
    pub(super) heart: Option<Heart>,
    /// Counts the agent's processes: what was meant for an earlier one is lost.
    pub(super) incarnation: u64,
    /// What the agent keeps on disk.
    pub(super) records: BTreeMap<String, Record>,
    /// Since when the engine has not answered this agent process.
    pub(super) silent: Option<Timestamp>,
    /// Whether messages pass.
    pub(super) link: bool,
    pub(super) connection: Option<Connection>,
    connections: u64,
    /// The last message on its way to the agent arrives then: messages of one watch do not overtake each other.
    pub(super) inbox: Timestamp,
    pub(super) heart_at: Option<Timestamp>,
    pub(super) machine_at: Option<Timestamp>,
    /// Directories of volumes, by uid.
    pub(super) volumes: BTreeSet<String>,
    /// Containers that are none of ours: id and start.
    pub(super) foreign: Vec<(String, Option<Timestamp>)>,
    /// Pods that this agent process saw bound to this host and not being deleted.
    pub(super) bound: BTreeSet<String>,
    /// Pods whose deletion this agent process saw.
    pub(super) deleted: BTreeSet<String>,
    /// It will never come back.
    pub(super) lost: bool,
}

/// A watch that is open.
pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) watch: Watch,
    /// The uids of the pods that the agent was told of.
    pub(super) told: BTreeMap<String, String>,
    /// What the watch gave since the auditor last compared it with what happened.
    pub(super) given: Vec<(Revision, Key)>,
    /// Up to where it was compared.
    pub(super) checked: Revision,
}

impl Host {
    pub(super) fn new(name: &str, cpus: u32, now: Timestamp) -> Host {
        let mut machine = Machine::small(name, cpus, 8 << 30, now);
        let mut foreign = Vec::new();
        for (container, labels) in [
            ("somebody-elses", vec![]),
            (
                "another-cluster",
                vec![
                    ("portolan.dev/cluster", "another"),
                    ("portolan.dev/node", name),
                    ("io.kubernetes.docker.type", "container"),
                    ("io.kubernetes.container.restartCount", "0"),
                    (CONTAINER, "main"),
                    (POD_UID, "11111111-2222-4333-8444-555555555555"),
                ],
            ),
        ] {
            let spec = ContainerSpec {
                image: "sim/web:foreign".to_owned(),
                labels: labels.into_iter().map(|(k, v): (&str, &str)| (k.to_owned(), v.to_owned())).collect(),
                ..ContainerSpec::default()
            };
            machine.apply(&Operation::Pull { reference: spec.image.clone(), auth: None }, now);
            machine.advance(now + SignedDuration::from_secs(5));
            let created = machine.apply(&Operation::Create { name: container.to_owned(), spec: Box::new(spec) }, now);
            if let Ok(Outcome::Created { id }) = created.result {
                machine.apply(&Operation::Start { id: id.clone() }, now);
                foreign.push(id);
            }
        }
        machine.take_history();
        let started = |id: &String| machine.containers().find(|c| c.id == *id).and_then(|c| c.started_at);
        let foreign = foreign.iter().map(|id| (id.clone(), started(id))).collect();
        Host {
            name: name.to_owned(),
            cpus,
            machine,
            heart: None,
            incarnation: 0,
            records: BTreeMap::new(),
            silent: None,
            link: true,
            connection: None,
            connections: 0,
            inbox: now,
            heart_at: None,
            machine_at: None,
            volumes: BTreeSet::new(),
            foreign,
            bound: BTreeSet::new(),
            deleted: BTreeSet::new(),
            lost: false,
        }
    }

    /// A new agent process, with what the last one left on disk.
    pub(super) fn start_agent(&mut self, now: Timestamp) {
        self.stop_agent();
        let settings = Settings {
            node: self.name.clone(),
            node_ip: "198.51.100.1".to_owned(),
            api: None,
            cluster: "simulated".to_owned(),
            sandbox_image: crate::docker::pause::name().to_owned(),
            pods_dir: "/var/lib/portolan/pods".to_owned(),
            memory_dir: "/run/portolan/pods".to_owned(),
            relist_every: SignedDuration::from_secs(10),
            server_wait: SignedDuration::from_secs(15),
            cpus: self.cpus,
            memory: 8 << 30,
            booted_at: Some(self.machine.booted_at()),
        };
        // Through its JSON, as a disk would give it back.
        let records =
            self.records.values().map(|r| serde_json::from_value(json!(r)).expect("a record can be read back")).collect();
        self.heart = Some(Heart::new(settings, Remembered { records, volumes: self.volumes.clone() }, now));
    }

    /// The agent's process ends, however.
    pub(super) fn stop_agent(&mut self) {
        self.incarnation += 1;
        self.silent = None;
        self.heart = None;
        self.heart_at = None;
        self.connection = None;
        self.bound.clear();
        self.deleted.clear();
    }

    /// Notes whether the engine answers now.
    pub(super) fn listen_to_engine(&mut self, now: Timestamp) {
        self.silent = if self.machine.is_up() || self.heart.is_none() { None } else { self.silent.or(Some(now)) };
    }

    pub(super) fn next_connection(&mut self) -> u64 {
        self.connections += 1;
        self.connections
    }

    /// Whether this pod's deletion is known here, in memory or on disk.
    pub(super) fn knows_deleted(&self, uid: &str) -> bool {
        self.deleted.contains(uid) || self.records.get(uid).is_some_and(|r| r.tombstone.is_some())
    }

    /// Containers that carry a pod's uid and are not foreign.
    pub(super) fn managed(&self) -> impl Iterator<Item = (&str, &str, View<'_>)> {
        self.machine.containers().filter(|c| !self.foreign.iter().any(|(id, _)| id == c.id)).filter_map(|c| {
            let uid = c.spec.labels.get(POD_UID)?;
            Some((uid.as_str(), c.spec.labels.get(CONTAINER).map_or("", String::as_str), c))
        })
    }

    /// Whether something answers at an address: the containers of the pod whose sandbox has it.
    pub(super) fn answers_at(&mut self, address: &str, now: Timestamp) -> bool {
        self.machine.advance(now);
        let ids: Vec<String> = self.managed().map(|(_, _, c)| c.id.to_owned()).collect();
        ids.iter().any(|id| {
            let reply = self.machine.apply(&Operation::Inspect { id: id.clone() }, now);
            matches!(reply.result, Ok(Outcome::Container(state)) if state.ip.as_deref() == Some(address))
                && self.machine.answers(id)
        })
    }
}
