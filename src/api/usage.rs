//! `metrics.k8s.io`: what nodes and pods use, asked of the agents when somebody asks, and stored nowhere.
//!
//! A node whose agent does not answer, and a pod that has just started, are absent: no number is made up.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::Verb;
use super::failure::{Failure, json_response};
use super::path::{Query, Target};
use crate::object::selector::LabelSelector;
use crate::object::{Key, Object, kind_of, time};

/// Agents that are asked at the same time.
const AT_ONCE: usize = 32;
/// The longest answer of an agent, in bytes: a thousand containers need a tenth of it.
const ANSWER_MAX: usize = 1 << 20;
/// How long an agent may take to measure and to say it: a second lies between its two looks. A host that hangs is absent then.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// What an agent says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Used {
    window_seconds: f64,
    node: Option<Amounts>,
    pods: Vec<PodUsed>,
}

#[derive(Deserialize)]
struct Amounts {
    /// Billionths of a processor.
    cpu: u64,
    /// Bytes.
    memory: u64,
}

#[derive(Deserialize)]
struct PodUsed {
    uid: String,
    containers: Vec<ContainerUsed>,
}

#[derive(Deserialize)]
struct ContainerUsed {
    name: String,
    #[serde(flatten)]
    amounts: Amounts,
}

impl Amounts {
    fn usage(&self) -> Value {
        json!({"cpu": format!("{}n", self.cpu), "memory": format!("{}Ki", self.memory.div_ceil(1024))})
    }
}

impl Api {
    /// Answers for one node or pod, or for those that are selected.
    pub(super) async fn used(&self, verb: Verb, target: &Target, query: &Query) -> Result<Response<Body>, Failure> {
        let labels = LabelSelector::parse(query.get("labelSelector")).map_err(|e| {
            Failure::bad_request(format!("unable to parse {:?} as a label selector: {e}", query.get("labelSelector")))
        })?;
        let of_nodes = target.kind.plural == "nodes";
        let kind = if of_nodes { kind_of::<Node>() } else { kind_of::<Pod>() };
        let view = self.store().durable_view();
        let key = Key::new(kind, &target.namespace, &target.name);
        let found: Vec<_> = match (verb, target.namespace.as_str()) {
            (Verb::Get, _) => view.get(&key).into_iter().cloned().collect(),
            (Verb::List, "") => view.list(kind).cloned().collect(),
            (Verb::List, namespace) => view.list_in(kind, namespace).cloned().collect(),
            _ => return Err(Failure::method_not_allowed()),
        };
        let found: Vec<_> = found.into_iter().filter(|object| labels.matches(&object.meta)).collect();
        let place = |object: &Object| if of_nodes { object.key.name.to_string() } else { node_of(object) };
        let mut nodes: Vec<String> = found.iter().map(|object| place(object)).filter(|node| !node.is_empty()).collect();
        nodes.sort();
        nodes.dedup();
        let asked = nodes.into_iter().filter(|node| self.connected(node)).map(|node| async move {
            let used = tokio::time::timeout(ANSWER_TIME, self.ask_used(&node)).await.ok()?.ok()?;
            Some((node, used))
        });
        let answers: BTreeMap<String, Used> =
            stream::iter(asked).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
        let items: Vec<Value> = found
            .iter()
            .filter_map(|object| {
                let used = answers.get(&place(object))?;
                if of_nodes {
                    let mut item = self.head(target, object, used);
                    item["usage"] = used.node.as_ref()?.usage();
                    return Some(item);
                }
                // An agent speaks for the pods that are bound to its node, by uid, and for no others.
                let pod = used.pods.iter().find(|pod| pod.uid == object.meta.uid)?;
                let containers = pod.containers.iter().map(|c| json!({"name": c.name, "usage": c.amounts.usage()}));
                let mut item = self.head(target, object, used);
                item["containers"] = containers.collect();
                Some(item)
            })
            .collect();
        match verb {
            Verb::Get => {
                items.first().map(|item| json_response(200, item)).ok_or_else(|| Failure::not_found(target.kind, &target.name))
            }
            _ => Ok(json_response(
                200,
                &json!({
                    "kind": format!("{}List", target.kind.kind), "apiVersion": target.kind.api_version(), "metadata": {}, "items": items,
                }),
            )),
        }
    }

    fn head(&self, target: &Target, object: &Object, used: &Used) -> Value {
        let now = time::seconds(self.now());
        let mut metadata = json!({"name": object.key.name.as_ref(), "creationTimestamp": now, "labels": *object.meta.labels});
        if target.kind.namespaced {
            metadata["namespace"] = object.key.namespace.as_ref().into();
        }
        json!({
            "kind": target.kind.kind, "apiVersion": target.kind.api_version(), "metadata": metadata, "timestamp": now,
            "window": format!("{:.3}s", used.window_seconds),
        })
    }

    async fn ask_used(&self, node: &str) -> Result<Used, Failure> {
        let request = Request::get("http://agent/usage").body(Body::empty()).map_err(|e| Failure::internal(e.to_string()))?;
        let response = self.ask_agent(node, request).await?;
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let bytes = body.map_err(|e| Failure::unavailable(format!("read the answer of node {node:?}: {e}")))?.to_bytes();
        serde_json::from_slice(&bytes).map_err(|e| Failure::internal(format!("read the answer of node {node:?}: {e}")))
    }
}

fn node_of(pod: &Object) -> String {
    pod.field("spec.nodeName").to_owned()
}
