//! The server of the simulated house: the real store on a disk that can lose power, the real loops, and a stand-in for the API.
//!
//! The stand-in does what `api` does for agents and people: lifecycle rules, preconditions, and an answer only when the write is on
//! disk. HTTP is not here; the API's own tests cover it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, Secret};
use serde_json::{Value, json};

use super::chart::Git;
use crate::agent::heart::{Answer, Call, ServerError};
use crate::control::release::ReleaseLoop;
use crate::control::{self, Context, Ids, Loop, Next};
use crate::object::admit::{self, DeleteOptions, Deletion, Stamp};
use crate::object::patch::merge_patch;
use crate::object::{Draft, Key, Kind, Object, Revision, kind_of, time};
use crate::store::engine::memory::Disk;
use crate::store::{Conflict, OpenError, Stepped, Store, Txn};

/// What a host says of itself with each sign of life.
pub(super) struct Sign<'a> {
    pub(super) node: &'a str,
    pub(super) cpus: u32,
    /// In bytes.
    pub(super) memory: u64,
    /// Whether its engine answers.
    pub(super) engine: bool,
}

/// A server process.
pub(super) struct Server {
    pub(super) store: Store,
    pub(super) steps: Stepped,
    pub(super) loops: Vec<Slot>,
    pub(super) incarnation: u64,
}

/// A loop, and when it is called next.
pub(super) struct Slot {
    body: Box<dyn Loop>,
    /// When it is called next, if that is settled.
    pub(super) at: Option<Timestamp>,
    /// The newest revision at its last step.
    pub(super) seen: Revision,
    pub(super) name: &'static str,
}

impl Server {
    /// Starts a server from what the disk has.
    pub(super) fn start(
        disk: &Disk,
        git: &Git,
        options: &control::Options,
        incarnation: u64,
        now: Timestamp,
    ) -> Result<Server, OpenError> {
        let (store, steps) = Store::stepped(disk.engine())?;
        git.restart();
        let mut bodies = control::loops(options);
        bodies.push(Box::new(ReleaseLoop::new(Box::new(git.clone()))));
        let slot = |body: Box<dyn Loop>| Slot { name: body.name(), body, at: Some(now), seen: 0 };
        Ok(Server { store, steps, loops: bodies.into_iter().map(slot).collect(), incarnation })
    }

    /// Lets a loop look once.
    pub(super) fn step(&mut self, index: usize, ids: &mut Ids, now: Timestamp) -> Result<Next, Conflict> {
        let slot = &mut self.loops[index];
        slot.at = None;
        slot.seen = self.store.revision();
        slot.body.step(&mut Context { store: &self.store, now, ids })
    }

    /// A request of an agent, and the revision that must be on disk before the answer may go out.
    pub(super) fn serve(&mut self, call: &Call, ids: &mut Ids, now: Timestamp) -> (Result<Answer, ServerError>, Revision) {
        match self.try_serve(call, ids, now) {
            Ok((answer, revision)) => (Ok(answer), revision),
            Err(error) => (Err(error), 0),
        }
    }

    fn try_serve(&mut self, call: &Call, ids: &mut Ids, now: Timestamp) -> Result<(Answer, Revision), ServerError> {
        let read = |key: &Key| self.store.get(key).ok_or(ServerError::NotFound);
        let pod = |object: &Arc<Object>| object.typed::<Pod>().map_err(|e| ServerError::Refused(e.to_string()));
        match call {
            Call::PatchStatus { namespace, name, uid, revision, status } => {
                let old = read(&Key::of::<Pod>(namespace, name))?;
                if old.meta.uid != *uid || old.revision.to_string() != *revision {
                    return Err(ServerError::Conflict);
                }
                let mut value = old.value();
                value["status"] = merge_patch(&value["status"], status).map_err(|e| ServerError::Refused(e.to_string()))?;
                match admit::update(&old, value, Some("status"), now) {
                    Ok(None) => Ok((Answer::Pod(pod(&old)?), old.revision)),
                    Ok(Some(draft)) => {
                        let new = self.write(|t| drop_it(t.update(draft, old.revision)))?;
                        Ok((Answer::Pod(pod(&new)?), new.revision))
                    }
                    Err(refused) => Err(ServerError::Refused(refused.to_string())),
                }
            }
            Call::GetPod { namespace, name } => {
                let object = read(&Key::of::<Pod>(namespace, name))?;
                Ok((Answer::Pod(pod(&object)?), object.revision))
            }
            Call::DeletePod { namespace, name, uid } => {
                let options = DeleteOptions { grace_seconds: Some(0), uid: Some(uid.clone()), ..DeleteOptions::default() };
                let revision = self.delete(&Key::of::<Pod>(namespace, name), &options, now)?;
                Ok((Answer::Done, revision))
            }
            // There is nobody here who signs.
            Call::GetConfig(wanted) if wanted.token.is_some() => Err(ServerError::NotFound),
            Call::GetConfig(wanted) => {
                let kind = if wanted.secret { kind_of::<Secret>() } else { kind_of::<ConfigMap>() };
                let object = read(&Key::new(kind, &wanted.namespace, &wanted.name))?;
                let refused = |e: crate::object::DecodeError| ServerError::Refused(e.to_string());
                let values: BTreeMap<String, ByteString> = if wanted.secret {
                    object.typed::<Secret>().map_err(refused)?.data.clone().unwrap_or_default()
                } else {
                    let map = object.typed::<ConfigMap>().map_err(refused)?;
                    map.data.iter().flatten().map(|(k, v)| (k.clone(), ByteString(v.clone().into_bytes()))).collect()
                };
                Ok((Answer::Config(Arc::new(values)), object.revision))
            }
            Call::Event(event) => {
                let value = json!({
                    "metadata": {"namespace": event.namespace, "name": format!("{}.{}", event.name, ids.suffix(12))},
                    "involvedObject": {"kind": "Pod", "namespace": event.namespace, "name": event.name, "uid": event.uid},
                    "reason": event.reason, "message": event.message, "type": if event.warning { "Warning" } else { "Normal" },
                    "firstTimestamp": now.to_string(), "lastTimestamp": now.to_string(), "count": 1,
                });
                self.create(kind_of::<Event>(), value, ids, now)?;
                Ok((Answer::Done, 0))
            }
        }
    }

    fn write(&self, fill: impl FnOnce(&mut Txn)) -> Result<Arc<Object>, ServerError> {
        let mut txn = Txn::new();
        fill(&mut txn);
        let committed = self.store.commit(txn).map_err(|_| ServerError::Conflict)?;
        Ok(committed.objects[0].clone())
    }

    /// Creates an object, as `kubectl create` would.
    pub(super) fn create(
        &self,
        kind: &'static Kind,
        value: Value,
        ids: &mut Ids,
        now: Timestamp,
    ) -> Result<Arc<Object>, ServerError> {
        let stamp = Stamp { uid: ids.uid(), now };
        let draft = admit::create(kind, value, &stamp).map_err(|e| ServerError::Refused(e.to_string()))?;
        self.write(|t| drop_it(t.create(draft)))
    }

    /// Deletes an object, as `kubectl delete` would. Gives the revision.
    pub(super) fn delete(&self, key: &Key, options: &DeleteOptions, now: Timestamp) -> Result<Revision, ServerError> {
        let old = self.store.get(key).ok_or(ServerError::NotFound)?;
        match admit::delete(&old, options, now) {
            Ok(Deletion::Remove) => self.write(|t| drop_it(t.delete(key.clone(), Some(old.revision)))).map(|o| o.revision),
            Ok(Deletion::Mark(draft)) => self.write(|t| drop_it(t.update(draft, old.revision))).map(|o| o.revision),
            Ok(Deletion::Unchanged) => Ok(old.revision),
            Err(_) => Err(ServerError::Conflict),
        }
    }

    /// Changes an object, as `kubectl edit` would. Gives the revision.
    pub(super) fn edit(
        &self,
        key: &Key,
        subresource: Option<&str>,
        now: Timestamp,
        change: impl FnOnce(&mut Value),
    ) -> Result<Revision, ServerError> {
        let old = self.store.get(key).ok_or(ServerError::NotFound)?;
        let mut value = old.value();
        change(&mut value);
        match admit::update(&old, value, subresource, now) {
            Ok(None) => Ok(old.revision),
            Ok(Some(draft)) => self.write(|t| drop_it(t.update(draft, old.revision))).map(|o| o.revision),
            Err(refused) => Err(ServerError::Refused(refused.to_string())),
        }
    }

    /// A host's sign of life: its lease, and its Node where that is missing or says something else.
    pub(super) fn heartbeat(&self, sign: &Sign<'_>, ids: &mut Ids, now: Timestamp) {
        let Sign { node, cpus, memory, engine } = *sign;
        let key = Key::of::<Node>("", node);
        let (ready, reason) = if engine { ("True", "KubeletReady") } else { ("False", "RuntimeUnresponsive") };
        let said = |value: &Value| {
            value["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == ready))
        };
        let status = json!({
            "capacity": {"cpu": cpus.to_string(), "memory": memory.to_string(), "pods": "110"},
            "allocatable": {"cpu": cpus.to_string(), "memory": memory.to_string(), "pods": "110"},
            "addresses": [{"type": "InternalIP", "address": "198.51.100.1"}],
            "conditions": [{"type": "Ready", "status": ready, "reason": reason, "message": "",
                "lastHeartbeatTime": time::seconds(now), "lastTransitionTime": time::seconds(now)}],
        });
        // A refusal or a conflict is for the next sign of life.
        let _ = match self.store.get(&key) {
            None => {
                let labels = json!({"kubernetes.io/hostname": node});
                let node = json!({"metadata": {"name": node, "labels": labels}, "spec": {}, "status": status});
                self.create(kind_of::<Node>(), node, ids, now)
                    .map(|o| o.revision)
                    .and_then(|_| self.edit(&key, Some("status"), now, |value| value["status"] = status))
            }
            Some(object) if !said(&object.value()) => self.edit(&key, Some("status"), now, |value| value["status"] = status),
            Some(object) => Ok(object.revision),
        };
        let lease = json!({
            "metadata": {"namespace": control::node::LEASES, "name": node},
            "spec": {"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": time::micros(now)},
        });
        let mut txn = Txn::new();
        txn.put(Draft::new(kind_of::<Lease>(), lease));
        let _ = self.store.commit(txn);
    }
}

/// Ends a chain of calls.
fn drop_it(_: &mut Txn) {}
