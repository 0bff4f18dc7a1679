//! Subresources that are not the object itself: scale, binding, eviction, finalize.
//!
//! Not here: what is read and written like the object itself (status, ephemeralcontainers: `read` and `write`), tokens (`authn`),
//! approval (`signing`), and what flows (log, exec, attach, portforward, proxy: `streams`).

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use super::Api;
use super::auth::Verb;
use super::body;
use super::failure::{Failure, json_response};
use super::read::version;
use super::write::{Ask, Next, parse_delete_options};
use crate::object::patch::{self, managed};
use crate::object::{Draft, Kind, Object, admit};

impl Api {
    /// `/scale`: the one number of a workload, in the same form for every kind.
    pub(super) async fn scale(&self, ask: &Ask<'_>, verb: Verb, bytes: &Bytes) -> Result<Response<Body>, Failure> {
        match verb {
            Verb::Get => Ok(json_response(200, &scale_of(ask.target.kind, &*self.find(ask.target).await?))),
            Verb::Update | Verb::Patch => {
                let sort = body::media_type(ask.headers);
                let change = if verb == Verb::Update { body::parse(ask.headers, bytes)?.value } else { body::yaml(bytes)?.value };
                let named = version(change["metadata"]["resourceVersion"].as_str().unwrap_or(""))?.filter(|r| *r > 0);
                let done = self
                    .change(ask, named.is_none(), |old| {
                        let current = scale_of(ask.target.kind, old);
                        let wanted = match (verb, sort.as_str()) {
                            (Verb::Update, _) => change.clone(),
                            (_, "application/json-patch+json") => {
                                patch::json_patch(&current, &change).map_err(|e| Failure::unprocessable(e.to_string()))?
                            }
                            // A Scale has no lists, so the strategic patch of one is a merge patch.
                            _ => patch::merge_patch(&current, &change).map_err(|e| Failure::bad_request(e.to_string()))?,
                        };
                        if named.is_some_and(|named| named != old.revision) {
                            return Err(Failure::modified(ask.target.kind, &ask.target.name));
                        }
                        let replicas = match &wanted["spec"]["replicas"] {
                            Value::Null => 0,
                            number => number.as_i64().filter(|n| (0..=i64::from(i32::MAX)).contains(n)).ok_or_else(|| {
                                Failure::unprocessable(format!(
                                    "Scale.autoscaling {:?} is invalid: spec.replicas: Invalid value: {number}: must be greater than or equal to 0",
                                    ask.target.name
                                ))
                            })?,
                        };
                        let now = self.now();
                        let before = old.value();
                        let mut value = before.clone();
                        let kind = ask.target.kind;
                        *part(&mut value, scale_paths(kind).0) = replicas.into();
                        let manager = &ask.options.manager;
                        managed::track(kind, Some(&before), &mut value, manager, managed::Operation::Update, Some("scale"), now);
                        let next = admit::update_from(kind.rules(), old, &before, value, None, now).map_err(|r| Failure::invalid(&r))?;
                        Ok((next.map_or(Next::Unchanged, Next::Write), Vec::new()))
                    })
                    .await?;
                Ok(match done {
                    Ok((object, _)) => json_response(200, &scale_of(ask.target.kind, &object)),
                    Err(_) => json_response(200, &scale_of(ask.target.kind, &*self.find(ask.target).await?)),
                })
            }
            _ => Err(Failure::method_not_allowed()),
        }
    }

    /// `pods/binding`: gives a pod its node, once.
    pub(super) async fn bind(&self, ask: &Ask<'_>, bytes: &Bytes) -> Result<Response<Body>, Failure> {
        let binding = body::parse(ask.headers, bytes)?.value;
        let node = binding["target"]["name"].as_str().unwrap_or("");
        let target_kind = binding["target"]["kind"].as_str().unwrap_or("Node");
        if node.is_empty() || !matches!(target_kind, "" | "Node") {
            return Err(Failure::unprocessable("Binding \"\" is invalid: target.name: Required value"));
        }
        let kind = ask.target.kind;
        let done = self
            .change(ask, true, |old| {
                let mut value = old.value();
                if let Some(uid) = binding["metadata"]["uid"].as_str().filter(|u| !u.is_empty() && *u != old.meta.uid) {
                    let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", old.meta.uid);
                    return Err(Failure::conflict(kind, &ask.target.name, &why));
                }
                if old.meta.deleting() {
                    let why = format!("pod {} is being deleted, cannot be assigned to a host", ask.target.name);
                    return Err(Failure::conflict(kind, &ask.target.name, &why));
                }
                if let Some(bound) = value["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
                    let why = format!("pod {} is already assigned to node {bound:?}", ask.target.name);
                    return Err(Failure::conflict(kind, &ask.target.name, &why));
                }
                value["spec"]["nodeName"] = node.into();
                let given = binding["metadata"]["annotations"].as_object().into_iter().flatten();
                // Anything else would make a pod that nobody can read.
                for (name, text) in given.filter(|(_, text)| text.is_string()) {
                    value["metadata"]["annotations"][name] = text.clone();
                }
                let condition =
                    json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": self.now()});
                match value["status"]["conditions"].as_array_mut() {
                    Some(conditions) => {
                        conditions.retain(|c| c["type"] != "PodScheduled");
                        conditions.push(condition);
                    }
                    None => value["status"]["conditions"] = json!([condition]),
                }
                Ok((Next::Write(Draft::new(kind, value)), Vec::new()))
            })
            .await?;
        Ok(match done {
            Ok(_) => json_response(
                201,
                &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
            ),
            Err(dry_run) => *dry_run,
        })
    }

    /// `pods/eviction`: a polite deletion.
    pub(super) async fn evict(&self, ask: &Ask<'_>, bytes: &Bytes) -> Result<Response<Body>, Failure> {
        let eviction = body::parse(ask.headers, bytes)?.value;
        let named = eviction["metadata"]["name"].as_str().unwrap_or(&ask.target.name);
        if named != ask.target.name {
            return Err(Failure::bad_request("name in URL does not match name in Eviction object"));
        }
        let (options, _) = parse_delete_options(&eviction["deleteOptions"], ask.query)?;
        self.remove(ask, &options).await?;
        Ok(json_response(201, &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})))
    }

    /// `namespaces/finalize`: writes `spec.finalizers`, which nothing else may.
    pub(super) async fn finalize(&self, ask: &Ask<'_>, bytes: &Bytes) -> Result<Response<Body>, Failure> {
        let wanted = body::parse(ask.headers, bytes)?.value;
        let kind = ask.target.kind;
        let texts = |list: &Value| list.is_null() || list.as_array().is_some_and(|l| l.iter().all(Value::is_string));
        if !texts(&wanted["spec"]["finalizers"]) {
            return Err(Failure::bad_request("spec.finalizers must be a list of text"));
        }
        let done = self
            .change(ask, true, |old: &Arc<Object>| {
                let mut value = old.value();
                value["spec"]["finalizers"] = wanted["spec"]["finalizers"].clone();
                let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
                let over = old.meta.deleting() && empty(&value["spec"]["finalizers"]) && empty(&value["metadata"]["finalizers"]);
                let next = if over { Next::Remove } else { Next::Write(Draft::new(kind, value)) };
                Ok((next, Vec::new()))
            })
            .await?;
        Ok(match done {
            Ok((object, _)) => self.object_response(200, ask.form.clone(), ask.target.kind, &object),
            Err(dry_run) => *dry_run,
        })
    }
}

/// Where the wished and the real number of a kind are, and its selector where that is a text.
fn scale_paths(kind: &Kind) -> (&str, &str, Option<&str>) {
    match kind.version_of().and_then(|version| version.scale.as_ref()) {
        Some(scale) => (&scale.replicas, &scale.status_replicas, scale.selector.as_deref()),
        None => ("spec.replicas", "status.replicas", None),
    }
}

/// The part of a tree at a dotted path, made if it is not there.
fn part<'a>(value: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(value, |at, name| {
        if !at.is_object() {
            *at = json!({});
        }
        &mut at[name]
    })
}

/// The Scale of a workload.
fn scale_of(kind: &Kind, object: &Object) -> Value {
    let value = object.value();
    let metadata = &value["metadata"];
    let (wished, real, selector) = scale_paths(kind);
    let at = |path: &str| path.split('.').try_fold(&value, |at, name| at.get(name));
    let mut status = json!({"replicas": at(real).and_then(Value::as_i64).unwrap_or(0)});
    if kind.custom.is_some()
        && let Some(text) = selector.and_then(at).and_then(Value::as_str)
    {
        status["selector"] = text.into();
    }
    let selector = &value["spec"]["selector"];
    // The oldest of them only names labels.
    let selector =
        if object.key.kind.is("", "ReplicationController") { json!({"matchLabels": selector}) } else { selector.clone() };
    if kind.custom.is_none()
        && let Ok(typed) = serde_json::from_value(selector)
    {
        status["selector"] = selector_text(&typed).into();
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": at(wished).and_then(Value::as_i64).unwrap_or(if kind.custom.is_some() { 0 } else { 1 })},
        "status": status,
    })
}

/// A selector in the text form in which clients send it.
fn selector_text(selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector) -> String {
    let mut parts: Vec<String> = selector.match_labels.iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
    for term in selector.match_expressions.iter().flatten() {
        let values = || term.values.clone().unwrap_or_default().join(",");
        parts.push(match term.operator.as_str() {
            "In" => format!("{} in ({})", term.key, values()),
            "NotIn" => format!("{} notin ({})", term.key, values()),
            "DoesNotExist" => format!("!{}", term.key),
            _ => term.key.clone(),
        });
    }
    parts.join(",")
}
