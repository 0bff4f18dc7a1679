//! What can go wrong with a host, and how it is put right: its daemon, its power, its registry, and others who use it.
//!
//! You will not find here: when any of this happens. Whoever has the machine says so.

use jiff::{SignedDuration, Timestamp};

use super::super::End;
use super::super::images::normal;
use super::{Daemon, Injected, Machine};
use crate::docker::container::Status;
use crate::docker::{ContainerSpec, Operation, Outcome};

impl Machine {
    /// kill -9 of the daemon: containers run on, nobody can ask about them, stops and pulls under way are forgotten.
    pub fn kill_daemon(&mut self, now: Timestamp) {
        self.advance(now);
        self.daemon = Daemon::Down;
        self.hung = false;
        self.pulls.clear();
        for container in self.containers.values_mut() {
            container.kill_at = None;
        }
    }

    /// Starts the daemon again. Without live-restore it first kills what still runs and takes its time. Says when it will answer.
    pub fn start_daemon(&mut self, now: Timestamp) -> Timestamp {
        self.advance(now);
        if !self.power || self.daemon != Daemon::Down {
            return self.now;
        }
        let running = self.running();
        let takes = if !self.live_restore && !running.is_empty() { 11_000 } else { 700 };
        if !self.live_restore {
            for id in running {
                self.end(&id, self.now, End::Killed);
            }
        }
        let until = self.now + SignedDuration::from_millis(takes);
        self.daemon = Daemon::Starting { until };
        self.look_at(until);
        until
    }

    /// Stops answering, or answers again, without dying: every call runs into its deadline. Containers do not notice.
    pub fn hang_daemon(&mut self, hung: bool, now: Timestamp) {
        self.advance(now);
        self.hung = hung;
    }

    /// The host loses power: nothing runs any more.
    pub fn power_off(&mut self, now: Timestamp) {
        self.kill_daemon(now);
        self.power = false;
        for id in self.running() {
            if let Some(container) = self.containers.get_mut(&id) {
                container.wedged = false;
                container.struck = None;
            }
            self.end(&id, self.now, End::Killed);
            if let Some(container) = self.containers.get_mut(&id) {
                container.exit_code = 255;
            }
        }
    }

    /// The host has power again; its daemon starts with it. Containers stay ended. Says when the daemon will answer.
    pub fn power_on(&mut self, now: Timestamp) -> Timestamp {
        self.advance(now);
        if self.power {
            return self.now;
        }
        self.power = true;
        self.booted_at = self.now;
        self.start_daemon(now);
        let until = self.now + SignedDuration::from_millis(2_700);
        self.daemon = Daemon::Starting { until };
        self.look_at(until);
        until
    }

    fn running(&self) -> Vec<String> {
        self.containers.values().filter(|c| c.status == Status::Running).map(|c| c.id.clone()).collect()
    }

    /// Makes the next call of a name fail.
    pub fn inject(&mut self, injected: Injected) {
        self.injected.push(injected);
    }

    /// The registry goes away or comes back.
    pub fn registry_away(&mut self, away: bool) {
        self.registry_away = away;
    }

    /// Whether the registry is away.
    pub fn is_registry_away(&self) -> bool {
        self.registry_away
    }

    /// Whether some process cannot be ended.
    pub fn has_wedged(&self) -> bool {
        self.containers.values().any(|c| c.wedged)
    }

    /// The registry loses an image, or has it again. Hosts that have it keep it.
    pub fn lose_image(&mut self, reference: &str, lost: bool) {
        let name = normal(reference);
        if lost {
            self.lost_images.insert(name);
        } else {
            self.lost_images.remove(&name);
        }
    }

    /// The registry's tag now names other content: the next pull gives another image id.
    pub fn move_tag(&mut self, reference: &str) {
        *self.moved_tags.entry(normal(reference)).or_default() += 1;
    }

    /// Somebody else holds a port of the host, or lets go of it.
    pub fn hold_port(&mut self, port: u16, held: bool) {
        if held {
            self.foreign_ports.insert(port);
        } else {
            self.foreign_ports.remove(&port);
        }
    }

    /// A process that not even SIGKILL ends, until this is taken back or the power is.
    pub fn wedge(&mut self, id: &str, wedged: bool) {
        if let Some(id) = self.find(id).map(|c| c.id.clone())
            && let Some(container) = self.containers.get_mut(&id)
        {
            container.wedged = wedged;
            if let Some(end) = container.struck.take_if(|_| !wedged) {
                self.end(&id, self.now, end);
            }
        }
    }

    /// Somebody else's container, without labels, running. Its id.
    pub fn place_foreign(&mut self, name: &str, now: Timestamp) -> Option<String> {
        let image = "foreign/thing:1";
        self.add_image(image);
        let spec = Box::new(ContainerSpec { image: image.into(), ..ContainerSpec::default() });
        let Ok(Outcome::Created { id }) = self.apply(&Operation::Create { name: name.into(), spec }, now).result else {
            return None;
        };
        self.apply(&Operation::Start { id: id.clone() }, now).result.ok()?;
        Some(id)
    }

    /// Ends a container's process from outside, as the kernel or a human with a shell would.
    pub fn strike(&mut self, id: &str, end: End, now: Timestamp) {
        self.advance(now);
        if let Some(id) = self.find(id).map(|c| c.id.clone()) {
            self.end(&id, self.now, end);
        }
    }
}
