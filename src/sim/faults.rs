//! What goes wrong, and how it is put right again.

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::json;

use super::world::{Event, World};
use crate::docker::EngineError;
use crate::docker::simulated::{End, Injected};
use crate::object::admit::DeleteOptions;
use crate::object::{Key, kind_of};

/// Something that ends.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    Link(usize),
    Power(usize),
    Daemon(usize),
    Hung(usize),
    Wedged(usize, String),
    Registry,
    Git,
    SlowDisk,
}

/// How often somebody changes the repository, in seconds.
const CHANGE: (u64, u64) = (20, 150);
/// How often something goes wrong, in seconds.
const FAULT: (u64, u64) = (3, 40);

impl World {
    /// Somebody pushes.
    pub(super) fn change(&mut self) {
        if self.healed.is_some() {
            return;
        }
        let what = self.git.with_author(super::author::Author::change);
        let subject = self.git.with_author(|a| format!("{} {}", a.head().id.trim_start_matches('0'), a.head().subject));
        self.say("people", || format!("push: {what} -> {subject}"));
        self.reach(what);
        // What git has just given up is taken over by somebody under the same name: not ours to prune.
        if let ("remove", Some(name)) = (what, subject.split(' ').nth(2)) {
            let name = format!("{name}-settings");
            let wait = self.dice.seconds(1, 12);
            self.after(wait, Event::Replace { name });
        }
        // The notification may get lost; then the next poll finds it.
        if !self.dice.chance(200) {
            let wait = self.dice.millis(50, 3000);
            self.after(wait, Event::Git);
        }
        let wait = self.dice.seconds(CHANGE.0, CHANGE.1);
        self.after(wait, Event::Change);
    }

    /// Something goes wrong.
    pub(super) fn fault(&mut self) {
        if self.healed.is_some() {
            return;
        }
        self.auditor.with_faults = true;
        self.auditor.ledger.troubles.disturb(self.now);
        let wait = self.dice.seconds(FAULT.0, FAULT.1);
        self.after(wait, Event::Fault);
        let host = self.dice.below(self.hosts.len());
        let name = self.hosts[host].name.clone();
        match self.dice.below(20) {
            0 | 1 => self.crash_server(),
            2 | 3 => {
                self.crash_agent(host);
                self.lose_records(host);
            }
            4 => {
                self.power_off(host);
                let others = self.hosts.iter().filter(|h| !h.lost).count();
                // The rest must have room for everything: two of the larger hosts.
                if others > 2 && host > 0 && self.hosts.len() > 3 && self.dice.chance(150) {
                    self.hosts[host].lost = true;
                    self.say(&name, || "is lost for ever".to_owned());
                    self.reach("host lost for ever");
                } else {
                    let wait = self.dice.seconds(5, 150);
                    self.after(wait, Event::Undo(Undo::Power(host)));
                }
            }
            5 | 6 => {
                self.say(&name, || "loses its link".to_owned());
                self.reach("partition");
                self.hosts[host].link = false;
                self.disconnect(host);
                let wait = self.dice.seconds(3, 120);
                self.after(wait, Event::Undo(Undo::Link(host)));
            }
            7 => {
                self.say(&name, || "daemon is killed".to_owned());
                self.reach("daemon killed");
                self.hosts[host].machine.kill_daemon(self.now);
                let wait = self.dice.seconds(2, 25);
                self.after(wait, Event::Undo(Undo::Daemon(host)));
            }
            8 => {
                self.say(&name, || "daemon hangs".to_owned());
                self.reach("daemon hung");
                self.hosts[host].machine.hang_daemon(true, self.now);
                // Long enough now and then for the host to be given up.
                let longest = if self.dice.chance(300) { 200 } else { 60 };
                let wait = self.dice.seconds(2, longest);
                self.after(wait, Event::Undo(Undo::Hung(host)));
            }
            9 => {
                self.say("registry", || "goes away".to_owned());
                self.reach("registry away");
                self.hosts.iter_mut().for_each(|h| h.machine.registry_away(true));
                let wait = self.dice.seconds(5, 90);
                self.after(wait, Event::Undo(Undo::Registry));
            }
            10 => {
                self.say("git", || "goes away".to_owned());
                self.reach("git away");
                self.git.set_away(true);
                let wait = self.dice.seconds(5, 90);
                self.after(wait, Event::Undo(Undo::Git));
            }
            11 => {
                self.slow_disk = true;
                let wait = self.dice.seconds(5, 40);
                self.after(wait, Event::Undo(Undo::SlowDisk));
            }
            12 | 13 => {
                let operation = *self.dice.pick(&["create", "start", "stop", "remove", "list", "inspect", "pull"]);
                let performed = self.dice.chance(500);
                self.say(&name, || format!("the next {operation} has no known outcome ({performed})"));
                let error = EngineError::Unavailable { message: "connection reset".to_owned() };
                self.hosts[host].machine.inject(Injected { operation, performed, error });
            }
            14 | 15 => self.strike(host),
            16 => self.meddle(),
            17 => {
                if let Some(server) = &self.server {
                    server.store.compact(server.store.durable());
                    self.reach("compaction");
                }
            }
            18 => self.disconnect(host),
            _ => {
                // A name that only a person with a shell would remove.
                let ours: Vec<String> = self.hosts[host].managed().map(|(_, _, c)| c.id.to_owned()).collect();
                if !ours.is_empty() {
                    let id = self.dice.pick(&ours).clone();
                    self.say(&name, || format!("somebody removes container {}", &id[..12.min(id.len())]));
                    let remove = crate::docker::Operation::Remove { id, force: true };
                    self.hosts[host].machine.apply(&remove, self.now);
                }
            }
        }
    }

    fn power_off(&mut self, host: usize) {
        let name = self.hosts[host].name.clone();
        self.say(&name, || "loses power".to_owned());
        self.reach("power off");
        self.hosts[host].machine.power_off(self.now);
        self.hosts[host].stop_agent();
        self.lose_records(host);
    }

    /// Now and then the agent's disk does not come back, or comes back empty; what Docker has is still there.
    pub(super) fn lose_records(&mut self, host: usize) {
        if self.dice.chance(150) {
            let name = self.hosts[host].name.clone();
            self.say(&name, || "the agent's records are lost".to_owned());
            self.reach("records lost");
            self.hosts[host].records.clear();
            // Files of volumes may have reached the disk where records have not.
            if self.dice.chance(500) {
                self.hosts[host].volumes.clear();
            }
            // Half of the time somebody gives up what was there, before the agent is back.
            if let Some(server) = self.server.as_ref().filter(|_| self.dice.chance(500)) {
                let options = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
                let view = server.store.view();
                for pod in view.by_field(kind_of::<Pod>(), "spec.nodeName", &name) {
                    let _ = server.delete(&pod.key, &options, self.now);
                }
            }
        }
    }

    /// A container's process ends without our doing, or cannot be ended.
    fn strike(&mut self, host: usize) {
        let running: Vec<String> = self.hosts[host]
            .managed()
            .filter(|(_, _, c)| c.status == crate::docker::container::Status::Running)
            .map(|(_, _, c)| c.id.to_owned())
            .collect();
        if running.is_empty() {
            return;
        }
        let id = self.dice.pick(&running).clone();
        let name = self.hosts[host].name.clone();
        if self.dice.chance(800) {
            self.say(&name, || format!("container {} is killed from outside", &id[..12.min(id.len())]));
            self.hosts[host].machine.strike(&id, End::Killed, self.now);
        } else {
            self.say(&name, || format!("container {} cannot be killed", &id[..12.min(id.len())]));
            self.reach("unkillable container");
            self.hosts[host].machine.wedge(&id, true);
            let wait = self.dice.seconds(10, 60);
            self.after(wait, Event::Undo(Undo::Wedged(host, id)));
        }
    }

    /// Somebody does by hand what git should do.
    fn meddle(&mut self) {
        let what = self.dice.below(6);
        let Some(server) = &self.server else { return };
        let view = server.store.view();
        let kind = match what {
            0 | 5 => kind_of::<Pod>(),
            1 | 2 => kind_of::<Deployment>(),
            _ => kind_of::<ConfigMap>(),
        };
        let keys: Vec<Key> = view.list_in(kind, "shop").map(|o| o.key.clone()).collect();
        if keys.is_empty() {
            return;
        }
        let key = self.dice.pick(&keys).clone();
        let n = self.dice.below(5);
        match what {
            0 | 3 | 5 => {
                // By force now and then: the object goes at once, whatever its host has heard.
                let grace_seconds = self.dice.chance(500).then_some(0);
                self.say("people", || format!("delete {key} {grace_seconds:?}"));
                let options = DeleteOptions { grace_seconds, ..DeleteOptions::default() };
                let _ = self.server.as_ref().expect("it is up").delete(&key, &options, self.now);
            }
            1 | 2 => {
                self.say("people", || format!("scale {key} to {n}"));
                let _ = self.server.as_ref().expect("it is up").edit(&key, None, self.now, |v| v["spec"]["replicas"] = n.into());
            }
            _ => self.replace(&key),
        }
    }

    /// Somebody puts their own object in the place of one: the same name and annotations, another uid.
    pub(super) fn replace(&mut self, key: &Key) {
        let Some(server) = self.server.as_ref() else { return };
        let Some(old) = server.store.get(key).map(|o| o.value()) else { return };
        if server.delete(key, &DeleteOptions::default(), self.now).is_err() {
            return;
        }
        let annotations = &old["metadata"]["annotations"];
        let new =
            json!({"metadata": {"namespace": "shop", "name": &*key.name, "annotations": annotations}, "data": {"by": "hand"}});
        let _ = server.create(key.kind, new, &mut self.ids, self.now);
        self.say("people", || format!("replace {key} by their own"));
        self.reach("replaced by hand");
    }

    /// One fault ends.
    pub(super) fn undo(&mut self, undo: Undo) {
        self.say("undo", || format!("{undo:?}"));
        self.auditor.ledger.troubles.disturb(self.now);
        match undo {
            Undo::Link(host) => self.hosts[host].link = true,
            Undo::Power(host) => self.power_on(host),
            Undo::Daemon(host) => {
                if self.hosts[host].machine.has_power() && !self.hosts[host].machine.is_up() {
                    self.hosts[host].machine.start_daemon(self.now);
                    self.relist(host);
                }
            }
            Undo::Hung(host) => {
                self.hosts[host].machine.hang_daemon(false, self.now);
                self.relist(host);
            }
            Undo::Wedged(host, id) => self.hosts[host].machine.wedge(&id, false),
            Undo::Registry => self.hosts.iter_mut().for_each(|h| h.machine.registry_away(false)),
            Undo::Git => self.git.set_away(false),
            Undo::SlowDisk => self.slow_disk = false,
        }
    }

    fn power_on(&mut self, host: usize) {
        if self.hosts[host].lost || self.hosts[host].machine.has_power() {
            return;
        }
        self.hosts[host].machine.power_on(self.now);
        let wait = self.dice.seconds(1, 10);
        self.after(wait, Event::AgentUp { host });
    }

    /// The stream of events was cut; the agent's driver says so when it is there again.
    fn relist(&mut self, host: usize) {
        let agent = self.hosts[host].incarnation;
        let wait = self.dice.seconds(1, 3);
        let input = Box::new(crate::agent::heart::Input::Relist);
        self.after(wait, Event::Reply { host, agent, input });
    }

    /// All faults end. What is lost for ever stays lost.
    pub(super) fn heal(&mut self) {
        self.healed = Some(self.now);
        self.auditor.ledger.troubles.disturb(self.now);
        self.say("house", || "all faults end".to_owned());
        for host in 0..self.hosts.len() {
            if self.hosts[host].lost {
                continue;
            }
            self.hosts[host].link = true;
            self.power_on(host);
            self.undo(Undo::Hung(host));
            self.undo(Undo::Daemon(host));
            let wedged: Vec<String> = self.hosts[host].managed().map(|(_, _, c)| c.id.to_owned()).collect();
            wedged.iter().for_each(|id| self.hosts[host].machine.wedge(id, false));
            self.after(SignedDuration::from_secs(1), Event::AgentUp { host });
        }
        self.undo(Undo::Registry);
        self.undo(Undo::Git);
        self.undo(Undo::SlowDisk);
        self.unpin();
        self.resume();
        self.after(SignedDuration::from_secs(1), Event::ServerUp);
        // Half of the runs end on a commit that will run; the others on whatever there is.
        if self.dice.chance(500) {
            self.git.with_author(super::author::Author::mend);
        }
        self.after(SignedDuration::from_secs(2), Event::Git);
        self.after(SignedDuration::from_secs(5), Event::Look);
    }
}
