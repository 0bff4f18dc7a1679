//! What is read from the store for one look at one Application.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Node, Pod};

use super::record::Content;
use crate::object::custom::plural_of;
use crate::object::manifest::Manifest;
use crate::object::ours::{Application, Inventory, InventoryItem};
use crate::object::{Key, Kind, Object, kind_of};
use crate::plan::health::{self, Children, Health, State};
use crate::plan::preflight::EachPod;
use crate::plan::schedule::Cluster;
use crate::plan::sync::Walk;
use crate::plan::verdict::Hosts;
use crate::store::{Step, View};

/// How many characters of an event are added to a piece of evidence.
const EVENT_TEXT: usize = 300;

/// The hosts, as they are now: no more of them than every look at an Application needs.
#[derive(Clone, Default)]
pub(super) struct HostsNow {
    total: usize,
    pub(super) unreachable: Arc<BTreeSet<String>>,
}

impl HostsNow {
    /// After these changes of nodes.
    pub(super) fn after(&self, steps: Vec<Step>) -> Self {
        let mut hosts = self.clone();
        for (old, new) in steps {
            hosts.total = hosts.total + usize::from(new.is_some()) - usize::from(old.is_some());
            let away = new.as_ref().is_some_and(|node| node.glance().is_ok_and(|node: Arc<Node>| ready(&node) == Some(false)));
            let Some(object) = new.or(old) else { continue };
            if away {
                Arc::make_mut(&mut hosts.unreachable).insert(object.key.name.to_string());
            } else if hosts.unreachable.contains(&*object.key.name) {
                Arc::make_mut(&mut hosts.unreachable).remove(&*object.key.name);
            }
        }
        hosts
    }
    pub(super) fn count(&self) -> Hosts {
        Hosts { total: self.total, unreachable: self.unreachable.len() }
    }
}

/// Whether a node says, or is said, to be ready; `None` before the first word.
pub(super) fn ready(node: &Node) -> Option<bool> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    Some(conditions.iter().find(|c| c.type_ == "Ready")?.status == "True")
}

/// The inventory item of an object.
pub(super) fn item(key: &Key, uid: &str, release: &str, created: i64) -> InventoryItem {
    InventoryItem {
        api_version: key.kind.api_version(),
        kind: key.kind.kind.to_owned(),
        plural: plural_of(key.kind),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        uid: uid.to_owned(),
        release: release.to_owned(),
        created,
    }
}

type Items<'a> = Box<dyn Iterator<Item = (&'a Key, &'a Arc<InventoryItem>)> + 'a>;

/// What was last applied to managed objects, as far as their releases are still known. Who asks in the order of keys, and nearly
/// everybody does, gets it by going along.
pub(super) struct Last<'a> {
    inventory: &'a Inventory,
    contents: &'a BTreeMap<String, Arc<Content>>,
    items: Walk<'a, Arc<InventoryItem>, Items<'a>>,
    /// The release that was asked last, and how far.
    content: Option<(&'a str, &'a Content, usize)>,
}

impl<'a> Last<'a> {
    pub(super) fn new(inventory: &'a Inventory, contents: &'a BTreeMap<String, Arc<Content>>) -> Self {
        Last { inventory, contents, items: Walk::new(Box::new(inventory.iter())), content: None }
    }

    pub(super) fn get(&mut self, key: &Key) -> Option<Manifest> {
        let item = match self.items.find(key) {
            None if self.items.passed => self.inventory.get(key)?,
            found => found?,
        };
        let (_, content, near) = match self.content {
            Some(known) if known.0 == item.release => known,
            _ => (item.release.as_str(), &**self.contents.get(&item.release)?, 0),
        };
        let (at, found) = content.near(near, key)?;
        self.content = Some((item.release.as_str(), content, at + 1));
        Some(found.clone())
    }
}

/// How many objects that nobody asked for are passed over before one is searched for.
const STRIDE: usize = 32;

/// What is there, for somebody who asks in the order of keys, nearly always.
pub(super) struct There<'a> {
    view: &'a View,
    kind: Option<&'static Kind>,
    rest: std::iter::Peekable<Box<dyn Iterator<Item = &'a Arc<Object>> + 'a>>,
}

impl<'a> There<'a> {
    pub(super) fn new(view: &'a View) -> Self {
        let nothing: Box<dyn Iterator<Item = &'a Arc<Object>>> = Box::new(std::iter::empty());
        There { view, kind: None, rest: nothing.peekable() }
    }

    pub(super) fn get(&mut self, key: &Key) -> Option<Arc<Object>> {
        let before = |object: &Arc<Object>| (&object.key.namespace, &object.key.name) < (&key.namespace, &key.name);
        if self.kind == Some(key.kind) {
            for _ in 0..STRIDE {
                match self.rest.peek() {
                    Some(object) if before(object) => drop(self.rest.next()),
                    Some(object) if object.key.namespace == key.namespace && object.key.name == key.name => {
                        return Some((*object).clone());
                    }
                    _ => break,
                }
            }
        }
        let found = self.view.get(key).cloned();
        // From here on along the others.
        let rest: Box<dyn Iterator<Item = &'a Arc<Object>>> = Box::new(self.view.list_after(key.kind, &key.namespace, &key.name));
        (self.kind, self.rest) = (Some(key.kind), rest.peekable());
        found
    }
}

/// The health of objects by their names, `Deployment shop/web`, whatever the reason.
pub(super) fn healths<'a>(
    view: &View,
    objects: impl Iterator<Item = &'a Arc<Object>>,
    hosts: &HostsNow,
    now: Timestamp,
) -> BTreeMap<String, Health> {
    objects.map(|object| (name(&object.key), health_of(view, object, hosts, Past::default(), now))).collect()
}

/// The replica sets and pods of a workload.
fn children(view: &View, object: &Object) -> (Vec<Arc<Object>>, Vec<Arc<Object>>) {
    let (mut sets, mut pods) = (Vec::new(), Vec::new());
    if object.key.kind.group == "apps" {
        let mut owners = vec![object.meta.uid.clone()];
        while let Some(uid) = owners.pop() {
            for child in view.owned_by(&uid) {
                match (child.key.kind.group, child.key.kind.kind) {
                    ("apps", "ReplicaSet") => {
                        owners.push(child.meta.uid.clone());
                        sets.push(child.clone());
                    }
                    ("", "Pod") => pods.push(child.clone()),
                    _ => {}
                }
            }
        }
    }
    (sets, pods)
}

/// What a rollout remembers that bears on the health of an object.
#[derive(Clone, Copy, Default)]
pub(super) struct Past {
    /// Since when it goes.
    pub(super) since: Option<Timestamp>,
    /// How often containers had been restarted before.
    pub(super) restarts: i32,
    /// When it last wrote anything.
    pub(super) written: Option<Timestamp>,
}

/// The health of one object.
pub(super) fn health_of(view: &View, object: &Arc<Object>, hosts: &HostsNow, past: Past, now: Timestamp) -> Health {
    let (replica_sets, pods) = if health::asks_children(object) { children(view, object) } else { Default::default() };
    let children = Children {
        replica_sets,
        pods,
        unreachable: hosts.unreachable.clone(),
        restarts_before: past.restarts,
        written: past.written,
    };
    let mut health = health::of(object, &children, past.since, now);
    // A probe says why it failed only in an event.
    for evidence in &mut health.evidence {
        let pod = children.pods.iter().chain([object]).find(|p| !evidence.pod.is_empty() && *p.key.name == *evidence.pod);
        if let Some(text) = pod.and_then(|pod| warning(view, pod)).filter(|text| !evidence.message.contains(text.as_str())) {
            evidence.message = format!("{}; {text}", evidence.message);
        }
    }
    health
}

/// The last thing that went wrong with a pod, in the words of whoever saw it.
fn warning(view: &View, pod: &Object) -> Option<String> {
    let events = view.by_field(kind_of::<Event>(), "involvedObject.uid", &pod.meta.uid);
    let warnings = events.filter_map(|e| e.typed::<Event>().ok()).filter(|e| {
        // Back-off only repeats what the container's own state says.
        e.type_.as_deref() == Some("Warning") && matches!(e.reason.as_deref(), Some("Unhealthy" | "FailedMount" | "FailedSync"))
    });
    let newest = warnings.max_by_key(|e| e.last_timestamp.as_ref().map(|t| t.0))?;
    Some(newest.message.as_deref()?.chars().take(EVENT_TEXT).collect())
}

/// `Deployment shop/web`.
pub(super) fn name(key: &Key) -> String {
    crate::plan::sync::Name(key.clone()).to_string()
}

/// All nodes.
pub(super) fn nodes(view: &View) -> Vec<Arc<Node>> {
    view.list(kind_of::<Node>()).filter_map(|node| node.glance().ok()).collect()
}

/// All pods that have not ended on their hosts. Shows on the way those of workloads, each with the one on top of it.
pub(super) fn running(view: &View, nodes: &[Arc<Node>], look: EachPod<'_>) -> Cluster {
    let mut cluster = Cluster::new();
    nodes.iter().for_each(|node| cluster.set_node(node));
    for object in view.list(kind_of::<Pod>()).filter(|pod| !pod.ended()) {
        let Ok(pod) = object.glance::<Pod>() else { continue };
        cluster.set_pod(&pod);
        if let Some(top) = super::workload(view, object) {
            look(&pod, &top.key);
        }
    }
    cluster
}

/// The hosts on which pods of a release run: of those that are given up, only where pods of objects are that are said to be well. Either
/// nobody has taken account yet of what became of the host, or the last word of its pods came too late to be taken back. Read without
/// decoding a pod: this is asked again and again while a release is watched.
pub(super) fn hosts_of(
    view: &View,
    content: &Content,
    given_up: &BTreeSet<String>,
    healths: &BTreeMap<String, Health>,
) -> BTreeSet<String> {
    let well = |key: &Key| healths.get(&name(key)).is_some_and(|health| health.state == State::Healthy);
    let mut hosts = BTreeSet::new();
    for object in content.wanted.iter().filter_map(|wanted| view.get(&wanted.key)) {
        let pods = if object.key.kind == kind_of::<Pod>() { vec![object.clone()] } else { children(view, object).1 };
        for pod in pods.iter().filter(|pod| pod.active()) {
            let host = pod.field("spec.nodeName");
            if !host.is_empty() && !hosts.contains(host) && (!given_up.contains(host) || well(&object.key)) {
                hosts.insert(host.to_owned());
            }
        }
    }
    hosts
}

/// The images that the pods of these objects run: name to digest. The pods of a replica set have the same, so one of them is asked: there
/// may be very many.
pub(super) fn images<'a>(view: &View, objects: impl Iterator<Item = &'a Arc<Object>>) -> BTreeMap<String, String> {
    let mut images = BTreeMap::new();
    for object in objects {
        let pods = if object.key.kind == kind_of::<Pod>() { vec![object.clone()] } else { children(view, object).1 };
        let mut told: BTreeSet<&str> = BTreeSet::new();
        for pod in pods.iter().filter(|pod| !pod.ended()) {
            let owner = pod.meta.controller().map_or("", |owner| owner.uid.as_str());
            if told.contains(owner) {
                continue;
            }
            let Ok(pod) = pod.typed::<Pod>() else { continue };
            let containers: Vec<_> = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()).collect();
            if !containers.is_empty() && containers.iter().all(|c| !c.image_id.is_empty()) {
                told.insert(owner);
            }
            let known = containers.into_iter().filter(|c| !c.image_id.is_empty());
            images.extend(known.map(|c| (c.image.clone(), c.image_id.clone())));
        }
    }
    images
}

/// Another Application, typed.
pub(super) fn application(view: &View, key: &Key) -> Option<Arc<Application>> {
    view.get(key).filter(|o| !o.meta.deleting())?.typed::<Application>().ok()
}
