//! What people do to the root Application by hand: pins, pauses, second tries. What they say wins over automation (RB10).

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::gitops::{root, status};
use super::world::{Event, ROOT, World};
use crate::object::ours::{Application, Release, SYSTEM_NAMESPACE};
use crate::object::{Key, kind_of, time};

/// The taint that says that a host is off and stays off.
const OFF: &str = "node.kubernetes.io/out-of-service";
/// How often somebody does something by hand, in seconds.
const EVERY: (u64, u64) = (40, 300);

impl World {
    /// Somebody takes things into their own hands.
    pub(super) fn operate(&mut self) {
        if self.healed.is_some() {
            return;
        }
        let wait = self.dice.seconds(EVERY.0, EVERY.1);
        self.after(wait, Event::Operate);
        match self.dice.below(4) {
            0 | 1 => self.pin(),
            2 => self.suspend(),
            _ => self.retry(),
        }
    }

    fn pin(&mut self) {
        let Some(view) = self.server.as_ref().map(|s| s.store.view()) else { return };
        let Some(application) = root(&view) else { return };
        if application.spec.pin.is_some() {
            self.unpin();
            return;
        }
        // Mostly to something that was good, now and then by mistake to something that was not.
        let recorded = view.list(kind_of::<Release>()).filter_map(|o| o.typed::<Release>().ok());
        let names: Vec<String> =
            recorded.filter(|r| !r.spec.renderings.is_empty()).filter_map(|r| r.metadata.name.clone()).collect();
        if names.is_empty() {
            return;
        }
        let good = status(&view).last_good;
        let release = if good.is_empty() || self.dice.chance(400) { self.dice.pick(&names).clone() } else { good };
        let expires = self.dice.chance(300).then(|| self.now + self.dice.seconds(30, 200));
        let mut pin = json!({"release": release, "reason": "because"});
        if let Some(expires) = expires {
            pin["expires"] = time::seconds(expires).into();
        }
        self.say("people", || format!("pin {pin}"));
        self.reach("pin");
        self.edit_root(|spec| spec["pin"] = pin);
        // Nobody pins for the rest of the day here: there is more to be seen.
        let wait = self.dice.seconds(20, 240);
        self.after(wait, Event::Unpin);
    }

    /// Somebody ends the pin.
    pub(super) fn unpin(&mut self) {
        self.withdraw("unpin", "pin", Event::Unpin);
    }

    fn suspend(&mut self) {
        self.say("people", || "suspend".to_owned());
        self.reach("suspend");
        self.edit_root(|spec| spec["suspend"] = true.into());
        let wait = self.dice.seconds(5, 150);
        self.after(wait, Event::Resume);
    }

    /// Somebody ends the pause.
    pub(super) fn resume(&mut self) {
        self.withdraw("resume", "suspend", Event::Resume);
    }

    /// Takes a wish back; tries again if nobody answers.
    fn withdraw(&mut self, word: &str, field: &str, again: Event) {
        self.say("people", || word.to_owned());
        self.edit_root(|spec| drop_field(spec, field));
        if self.server.is_none() {
            let wait = self.dice.seconds(1, 20);
            self.after(wait, again);
        }
    }

    fn retry(&mut self) {
        let Some(view) = self.server.as_ref().map(|s| s.store.view()) else { return };
        let quarantine = status(&view).quarantine;
        if quarantine.is_empty() {
            return;
        }
        // Without a digest it means what git says now.
        let digest = if self.dice.chance(500) { String::new() } else { self.dice.pick(&quarantine).digest.clone() };
        let retry = json!({"digest": digest, "nonce": self.now.to_string()});
        self.say("people", || format!("retry {retry}"));
        self.reach("retry");
        self.edit_root(|spec| spec["retry"] = retry);
    }

    /// Somebody reads that a release waits for the word of a host that will not come back, and says that it is off for good. What waits
    /// without saying so gets no help.
    pub(super) fn give_up_lost_hosts(&mut self) {
        let Some(view) = self.server.as_ref().map(|s| s.store.view()) else { return };
        if !status(&view).waiting_on.iter().any(|on| on.contains("to be gone: host")) {
            return;
        }
        let lost: Vec<String> = self.hosts.iter().filter(|h| h.lost).map(|h| h.name.clone()).collect();
        for name in lost {
            let Some(server) = &self.server else { return };
            let key = Key::of::<Node>("", &name);
            let told = |node: &Value| node["spec"]["taints"].as_array().is_some_and(|all| all.iter().any(|t| t["key"] == OFF));
            if server.store.get(&key).is_none_or(|node| told(&node.value())) {
                continue;
            }
            let edited = server.edit(&key, None, self.now, |node| {
                let mut taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
                taints.push(json!({"key": OFF, "effect": "NoExecute"}));
                node["spec"]["taints"] = taints.into();
            });
            if edited.is_ok() {
                self.say("people", || format!("{name} is off for good"));
                self.reach("lost host given up");
            }
        }
    }

    /// Somebody edits the root Application, if the server is there.
    fn edit_root(&mut self, change: impl FnOnce(&mut Value)) {
        let key = Key::of::<Application>(SYSTEM_NAMESPACE, ROOT);
        if let Some(server) = &self.server {
            let _ = server.edit(&key, None, self.now, |value| change(&mut value["spec"]));
        }
    }
}

fn drop_field(spec: &mut Value, name: &str) {
    if let Some(spec) = spec.as_object_mut() {
        spec.remove(name);
    }
}
