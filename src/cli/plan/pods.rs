//! The pods that a plan looks at: which of them are asked for as a whole, and what is read of all others.
//!
//! There may be fifty thousand, and nearly all of them run well and stay. What is looked at of a pod that has a host is said in
//! `plan::foresee`; here it is asked for, and of one that runs well only that is read by which it differs from others of its owner.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::cli::get;
use crate::client::{self, Client};
use crate::object::fields::Fields;
use crate::object::selector::LabelSelector;
use crate::plan::foresee::{self, Resident};
use crate::plan::schedule::Common;
use crate::plan::sync::SyncPlan;

/// Requests for pods of workloads that are on their way at once.
const AT_ONCE: usize = 16;

/// Of pods, those that take a place or will.
const NOT_ENDED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// The pods that have not ended.
#[derive(Default)]
pub(super) struct Pods {
    /// Those of which more is known than of a resident.
    pub(super) some: Vec<Arc<Pod>>,
    /// Those that run well.
    pub(super) residents: Vec<Resident>,
}

/// Asks for the pods that have not ended: what is looked at of those with a host, and all of those without one.
pub(super) async fn pods(client: &Client) -> Result<Pods, client::Error> {
    // First, so that one who gets a host meanwhile is in both lists and not in none. There the newer one counts.
    let waiting = whole(client, "", &format!("fieldSelector={}", get::encode(&format!("spec.nodeName=,{NOT_ENDED}")))).await?;
    let paths = foresee::READ.join(",");
    let selector = get::encode(&format!("spec.nodeName!=,{NOT_ENDED}"));
    let query = format!("fieldSelector={selector}&fields={}", get::encode(&paths));
    let (fields, reader) = (Arc::new(Fields::parse(&paths).expect("they are paths")), Arc::new(Reader::new()));
    let read = move |pod: Bytes, form: &str| {
        let mut part = Vec::new();
        // A server that cannot answer so sends them whole. Where that is with spaces in between, it is read as it is.
        let whole = !form.contains("as=PartialObject") && fields.cut(&pod, &mut part);
        Ok(reader.read(if whole { part.into() } else { pod }))
    };
    let placed = get::each(client, &client::path::<Pod>("", "", None), &query, client::PARTS, read).await?;
    let mut pods = Pods::default();
    for pod in placed.into_iter().flatten() {
        match pod {
            One::Resident(resident) => pods.residents.push(resident),
            One::Other(pod) => pods.some.push(pod),
        }
    }
    pods.unless_known(waiting);
    Ok(pods)
}

/// Asks for the pods of workloads that change, as they are.
pub(super) async fn changing(client: &Client, plan: &SyncPlan) -> Result<Vec<Arc<Pod>>, client::Error> {
    let changes = plan.changes().filter(|change| matches!(change.name.0.kind.kind, "Deployment" | "ReplicaSet"));
    let selected = changes.filter_map(|change| {
        let selector = LabelSelector::of(&serde_json::from_value(change.old.as_ref()?["spec"]["selector"].clone()).ok()?).ok()?;
        Some((change.name.0.namespace.to_string(), selector.to_string()))
    });
    let asked = stream::iter(selected.collect::<Vec<_>>()).map(|(space, selector)| async move {
        let query = format!("labelSelector={}&fieldSelector={}", get::encode(&selector), get::encode(NOT_ENDED));
        whole(client, &space, &query).await
    });
    Ok(asked.buffered(AT_ONCE).try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
}

/// Pods as they are.
async fn whole(client: &Client, namespace: &str, query: &str) -> Result<Vec<Arc<Pod>>, client::Error> {
    let read = |pod: Bytes, _: &str| Ok(serde_json::from_slice(&pod).ok().map(Arc::new));
    let pods = get::each(client, &client::path::<Pod>(namespace, "", None), query, client::JSON, read).await?;
    Ok(pods.into_iter().flatten().collect())
}

fn name(pod: &Pod) -> (&str, &str) {
    (pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.name.as_deref().unwrap_or_default())
}

impl Pods {
    /// Puts these into the place of what is known of them.
    pub(super) fn replace(&mut self, pods: Vec<Arc<Pod>>) {
        let names: BTreeSet<_> = pods.iter().map(|pod| name(pod)).collect();
        self.residents.retain(|r| !names.contains(&(r.name.0.as_str(), r.name.1.as_str())));
        self.some.retain(|pod| !names.contains(&name(pod)));
        self.some.extend(pods.iter().cloned());
    }

    /// Adds those of which nothing is known.
    fn unless_known(&mut self, pods: Vec<Arc<Pod>>) {
        let mut new: BTreeMap<_, &Arc<Pod>> = pods.iter().map(|pod| (name(pod), pod)).collect();
        for known in &self.residents {
            if new.is_empty() {
                return;
            }
            new.remove(&(known.name.0.as_str(), known.name.1.as_str()));
        }
        for known in &self.some {
            new.remove(&name(known));
        }
        let new: Vec<Arc<Pod>> = new.into_values().cloned().collect();
        self.some.extend(new);
    }
}

/// A pod that has a host.
enum One {
    Resident(Resident),
    Other(Arc<Pod>),
}

/// Reads pods that have a host, and remembers what those of an owner have in common by its JSON.
struct Reader {
    /// What [`Common`] is made of.
    shared: Fields,
    known: Mutex<BTreeMap<Box<[u8]>, Arc<Common>>>,
}

/// What is read of each pod. The rest is passed over.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Own<'a> {
    #[serde(borrow)]
    metadata: OwnMeta<'a>,
    #[serde(borrow)]
    spec: OwnSpec<'a>,
    #[serde(borrow)]
    status: OwnStatus<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OwnMeta<'a> {
    name: String,
    namespace: String,
    #[serde(borrow)]
    creation_timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    deletion_timestamp: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OwnSpec<'a> {
    #[serde(borrow)]
    node_name: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OwnStatus<'a> {
    #[serde(borrow)]
    conditions: Vec<OwnCondition<'a>>,
    #[serde(borrow)]
    phase: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OwnCondition<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    r#type: Cow<'a, str>,
}

impl Own<'_> {
    fn runs_well(&self) -> bool {
        self.metadata.deletion_timestamp.is_none()
            && !self.spec.node_name.is_empty()
            && !matches!(&*self.status.phase, "Succeeded" | "Failed")
            && self.status.conditions.iter().find(|c| c.r#type == "Ready").is_some_and(|ready| ready.status == "True")
    }
}

impl Reader {
    fn new() -> Reader {
        let own = ["metadata.creationTimestamp", "metadata.deletionTimestamp", "spec.nodeName", "status", "metadata.annotations"];
        let of_one = |path: &str| own.iter().any(|own| path.starts_with(own));
        let shared = foresee::READ.iter().copied().filter(|path| !of_one(path)).chain(["metadata.namespace"]);
        Reader { shared: Fields::only(shared), known: Mutex::default() }
    }

    /// `None`: it is no pod, and left out.
    fn read(&self, json: Bytes) -> Option<One> {
        // What is unusual is read as a whole, whatever it is.
        let usual = serde_json::from_slice::<Own<'_>>(&json).ok().filter(Own::runs_well);
        match usual.and_then(|own| self.resident(own, &json)) {
            Some(resident) => Some(One::Resident(resident)),
            None => serde_json::from_slice(&json).ok().map(|pod| One::Other(Arc::new(pod))),
        }
    }

    fn resident(&self, own: Own<'_>, json: &Bytes) -> Option<Resident> {
        let since = match own.metadata.creation_timestamp {
            Some(text) => Some(text.parse::<Timestamp>().ok()?),
            None => None,
        };
        let mut shared = Vec::with_capacity(json.len());
        if !self.shared.cut(json, &mut shared) {
            return None;
        }
        let known = self.known.lock().get(&*shared).cloned();
        let common = match known {
            Some(common) => common,
            None => {
                let common = Arc::new(Common::of(&serde_json::from_slice(&shared).ok()?));
                self.known.lock().entry(shared.into()).or_insert(common).clone()
            }
        };
        let name = (own.metadata.namespace, own.metadata.name);
        Some(Resident { name, node: (*own.spec.node_name).into(), common, since, json: json.clone() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str) -> Value {
        json!({
            "metadata": {
                "annotations": {"controller.kubernetes.io/pod-deletion-cost": "7", "other": "x"}, "name": name, "namespace": "shop",
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-02T00:00:00Z", "labels": {"app": "web"},
                "ownerReferences": [{"apiVersion": "apps/v1", "blockOwnerDeletion": true, "controller": true, "kind": "ReplicaSet", "name": "web-1", "uid": "u"}],
                "resourceVersion": "9", "uid": "v",
            },
            "spec": {
                "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                    {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"},
                ]}},
                "containers": [
                    {
                        "name": "a", "image": "a:1", "ports": [{"containerPort": 80, "hostIP": "10.0.0.1", "hostPort": 8080, "protocol": "UDP"}],
                        "resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "500m", "memory": "1Gi"}},
                    },
                    {"name": "b"},
                ],
                "hostNetwork": true,
                "initContainers": [
                    {"name": "c", "ports": [{"containerPort": 81}], "resources": {"requests": {"cpu": "1"}}, "restartPolicy": "Always"},
                ],
                "nodeName": "h1", "overhead": {"cpu": "10m"}, "priority": 5, "tolerations": [{"operator": "Exists"}],
            },
            "status": {
                "conditions": [
                    {"lastTransitionTime": "2026-01-01T00:00:01Z", "status": "True", "type": "Initialized"},
                    {"lastTransitionTime": "2026-01-01T00:00:02Z", "message": "m", "status": "True", "type": "Ready"},
                ],
                "containerStatuses": [{"name": "a", "restartCount": 1}, {"name": "b", "ready": true, "restartCount": 3}],
                "phase": "Running", "podIP": "10.0.0.2",
            },
        })
    }

    /// What the planner reads of the pod is in a resident, if not at once, then when it is looked at.
    #[test]
    fn a_pod_that_runs_well_is_a_resident() {
        let read = |value: &Value| {
            let mut part = Vec::new();
            assert!(Fields::parse(&foresee::READ.join(",")).unwrap().cut(value.to_string().as_bytes(), &mut part));
            (serde_json::from_slice::<Pod>(&part).unwrap(), Reader::new().read(part.into()).unwrap())
        };
        let value = pod("a");
        for path in foresee::READ {
            let cut = |paths: &str| {
                let mut part = Vec::new();
                assert!(Fields::parse(paths).unwrap().cut(value.to_string().as_bytes(), &mut part));
                part.len()
            };
            assert!(cut(path) > cut("metadata.name"), "{path} is not in the example");
        }
        let change = |path: &str, to: Value| {
            let mut other = value.clone();
            *other.pointer_mut(path).unwrap() = to;
            other
        };
        let well = change("/metadata/deletionTimestamp", Value::Null);
        let (typed, One::Resident(resident)) = read(&well) else { panic!("it runs well") };
        assert_eq!(resident.name, ("shop".to_owned(), "a".to_owned()));
        assert_eq!((&*resident.node, resident.since), ("h1", Some("2026-01-01T00:00:00Z".parse().unwrap())));
        assert_eq!(*resident.common, Common::of(&typed));
        assert_eq!(
            *resident.common,
            Common::of(&serde_json::from_value(well.clone()).unwrap()),
            "nothing that matters is left out"
        );
        assert_eq!(serde_json::from_slice::<Pod>(&resident.json).unwrap(), typed);
        for (path, to) in [
            ("/metadata/deletionTimestamp", json!("2026-01-02T00:00:00Z")),
            ("/spec/nodeName", json!("")),
            ("/status/phase", json!("Failed")),
            ("/status/conditions/1/status", json!("False")),
            ("/status/conditions", Value::Null),
        ] {
            let mut other = well.clone();
            *other.pointer_mut(path).unwrap() = to;
            assert!(matches!(read(&other), (typed, One::Other(pod)) if *pod == typed), "{path}");
        }
        assert!(Reader::new().read(Bytes::from_static(b"[]")).is_none());
    }

    #[test]
    fn what_pods_have_in_common_is_kept_once() {
        let reader = Reader::new();
        let resident = |name: &str, cpu: &str| {
            let mut value = pod(name);
            value["metadata"]["deletionTimestamp"].take();
            value["spec"]["nodeName"] = format!("host-of-{name}").into();
            value["spec"]["containers"][0]["resources"]["requests"]["cpu"] = cpu.into();
            match reader.read(value.to_string().into()) {
                Some(One::Resident(resident)) => resident,
                _ => panic!("it runs well"),
            }
        };
        let (a, b, c) = (resident("a", "1"), resident("b", "1"), resident("c", "2"));
        assert!(Arc::ptr_eq(&a.common, &b.common) && a.common != c.common);
    }

    #[test]
    fn each_pod_is_there_once_and_as_it_is_newest() {
        let named = |name: &str, place: &str| {
            let mut pod: Pod = serde_json::from_value(pod(name)).unwrap();
            pod.spec.as_mut().unwrap().node_name = Some(place.to_owned());
            Arc::new(pod)
        };
        let resident = |name: &str| {
            let mut value = pod(name);
            value["metadata"]["deletionTimestamp"].take();
            match Reader::new().read(value.to_string().into()) {
                Some(One::Resident(resident)) => resident,
                _ => panic!("it runs well"),
            }
        };
        let mut pods = Pods { some: vec![named("b", "h1"), named("d", "h2")], residents: vec![resident("e"), resident("f")] };
        pods.unless_known(vec![named("a", ""), named("b", ""), named("c", ""), named("f", "")]);
        pods.replace(vec![named("c", "whole"), named("e", "whole")]);
        let node = |pod: &Arc<Pod>| pod.spec.as_ref().unwrap().node_name.clone().unwrap();
        let mut told: Vec<String> = pods.some.iter().map(|pod| format!("{} {}", name(pod).1, node(pod))).collect();
        told.extend(pods.residents.iter().map(|r| format!("{} resident", r.name.1)));
        told.sort();
        assert_eq!(told, ["a ", "b h1", "c whole", "d h2", "e whole", "f resident"]);
    }
}
