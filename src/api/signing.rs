//! Certificate requests: who asks, who approves, and what is signed then.
//!
//! A request says who asked; that cannot be claimed, nor changed later. Approving takes the right `approve` on the signer, and signs in
//! the same write. What our authority signs on request is for clients, for a bounded time, and never for those who may do everything.

use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Response;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::{Value, json};

use super::auth::{Attributes, Identity, MASTERS, NODE_PREFIX, NODES, Verb, What};
use super::authority::Requested;
use super::failure::Failure;
use super::path::Target;
use super::review::user_info;
use super::write::{Ask, Next};
use super::{Api, body};
use crate::object::{Draft, Kind, Object, kind_of};
use crate::object::{patch, time};

/// For people and machines that speak to the API.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// For agents.
const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// How long what is signed on request lasts at most, and when nobody says.
const LASTS_MOST: u64 = 365 * 24 * 3600;
/// The longest request, PEM, in bytes.
const REQUEST_MAX: usize = 32 * 1024;

fn requests() -> &'static Kind {
    kind_of::<CertificateSigningRequest>()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The request within a request.
fn pem(spec: &Value) -> Option<String> {
    let bytes = STANDARD.decode(text(&spec["request"])).ok().filter(|bytes| bytes.len() <= REQUEST_MAX)?;
    String::from_utf8(bytes).ok()
}

fn holds(conditions: &Value, kind: &str) -> bool {
    conditions.as_array().into_iter().flatten().any(|c| c["type"] == kind)
}

impl Api {
    /// Writes into a new request who asks, whatever it says itself, and refuses what will never be signed.
    pub(super) fn prepare_request(&self, identity: &Identity, value: &mut Value) -> Result<(), Failure> {
        if !value["spec"].is_object() {
            return Ok(());
        }
        if let Some(spec) = value["spec"].as_object_mut() {
            ["username", "uid", "groups", "extra"].iter().for_each(|field| drop(spec.remove(*field)));
            spec.extend(user_info(identity).as_object().cloned().unwrap_or_default());
        }
        let spec = &value["spec"];
        let name = text(&value["metadata"]["name"]);
        let wrong = |why: &str| {
            let message =
                format!("CertificateSigningRequest.certificates.k8s.io {name:?} is invalid: spec.request: Invalid value: {why}");
            Failure::unprocessable(message)
        };
        let requested = pem(spec)
            .and_then(|pem| Requested::read(&pem).ok())
            .ok_or_else(|| wrong("it is no PEM certificate request signed by its own key"))?;
        if text(&spec["signerName"]) == CLIENT && requested.groups.iter().any(|group| group == MASTERS) {
            let why = format!("use of {CLIENT} signer with {MASTERS} group is not allowed");
            return Err(Failure::forbidden(requests(), name, &why));
        }
        Ok(())
    }

    /// `certificatesigningrequests/approval`: yes or no, once.
    pub(super) async fn approval(&self, ask: &Ask<'_>, verb: Verb, bytes: &Bytes) -> Result<Response<Body>, Failure> {
        let sort = body::media_type(ask.headers);
        let change = if verb == Verb::Update { body::parse(ask.headers, bytes)?.value } else { body::yaml(bytes)?.value };
        let noted = parking_lot::Mutex::new(None);
        let done = self
            .change(ask, true, |old| {
                let mut value = old.value();
                let wanted = match (verb, sort.as_str()) {
                    (Verb::Update, _) => change.clone(),
                    (_, "application/json-patch+json") => {
                        patch::json_patch(&value, &change).map_err(|e| Failure::unprocessable(e.to_string()))?
                    }
                    _ => patch::merge_patch(&value, &change).map_err(|e| Failure::bad_request(e.to_string()))?,
                };
                let conditions = wanted["status"]["conditions"].clone();
                if conditions == value["status"]["conditions"] {
                    return Ok((Next::Unchanged, Vec::new()));
                }
                self.check_decision(ask, &value, &conditions)?;
                value["status"]["conditions"] = self.dated(conditions);
                let approved = holds(&value["status"]["conditions"], "Approved");
                if approved && text(&value["status"]["certificate"]).is_empty() {
                    *noted.lock() = self.sign_request(&mut value)?;
                }
                Ok((Next::Write(Draft::new(requests(), value)), Vec::new()))
            })
            .await?;
        match done {
            Ok((object, _)) => {
                // An agent's certificate counts only with the key that is known for its name.
                if let Some((node, key)) = noted.into_inner() {
                    self.adopt_key(&node, &key).await?;
                }
                Ok(self.object_response(200, ask.form.clone(), requests(), &object))
            }
            Err(dry_run) => Ok(*dry_run),
        }
    }

    /// Whether somebody may decide on requests for this signer, and whether the decision makes sense.
    fn check_decision(&self, ask: &Ask<'_>, old: &Value, conditions: &Value) -> Result<(), Failure> {
        let name = ask.target.name.as_str();
        let signer = text(&old["spec"]["signerName"]);
        if !self.may_with_signer(ask.identity, "approve", signer) {
            let why = format!("user not permitted to approve requests with signerName {signer:?}");
            return Err(Failure::forbidden(requests(), name, &why));
        }
        let wrong = |why: &str| {
            Failure::unprocessable(format!(
                "CertificateSigningRequest.certificates.k8s.io {name:?} is invalid: status.conditions: Invalid value: {why}"
            ))
        };
        if holds(conditions, "Approved") && holds(conditions, "Denied") {
            return Err(wrong("Approved and Denied conditions are mutually exclusive"));
        }
        for kind in ["Approved", "Denied", "Failed"] {
            if holds(&old["status"]["conditions"], kind) && !holds(conditions, kind) {
                return Err(wrong(&format!("the condition {kind} cannot be removed")));
            }
        }
        for condition in conditions.as_array().into_iter().flatten() {
            if matches!(text(&condition["type"]), "Approved" | "Denied") && text(&condition["status"]) != "True" {
                return Err(wrong("status of Approved and Denied must be True"));
            }
        }
        Ok(())
    }

    fn may_with_signer(&self, identity: &Identity, verb: &str, signer: &str) -> bool {
        let family = signer.split('/').next().unwrap_or_default();
        [signer.to_owned(), format!("{family}/*")].iter().any(|name| {
            let what = What::Resource {
                group: "certificates.k8s.io",
                resource: "signers",
                subresource: "",
                namespace: "",
                name,
                fields: "",
            };
            self.decide(identity, &Attributes { verb, what }).is_ok()
        })
    }

    fn dated(&self, mut conditions: Value) -> Value {
        let now = time::seconds(self.now());
        for condition in conditions.as_array_mut().into_iter().flatten().filter(|c| c.is_object()) {
            for field in ["lastUpdateTime", "lastTransitionTime"] {
                if condition[field].is_null() {
                    condition[field] = now.as_str().into();
                }
            }
        }
        conditions
    }

    /// Signs what was approved, if it is for one of our signers, or says why not. For an agent: its name and its key.
    fn sign_request(&self, value: &mut Value) -> Result<Option<(String, String)>, Failure> {
        let spec = value["spec"].clone();
        let signer = text(&spec["signerName"]);
        if !matches!(signer, CLIENT | KUBELET) {
            return Ok(None);
        }
        let authority = self.authority().ok_or_else(|| Failure::unavailable("this server signs no certificates"))?;
        let outcome = self.fit(&spec, signer).and_then(|requested| {
            let seconds = spec["expirationSeconds"].as_u64().unwrap_or(LASTS_MOST).clamp(600, LASTS_MOST);
            authority
                .sign_as_asked(&requested, Duration::from_secs(seconds))
                .map_err(|e| format!("{e:#}"))
                .map(|s| (requested, s))
        });
        match outcome {
            Ok((requested, (certificate, key))) => {
                value["status"]["certificate"] = STANDARD.encode(certificate).into();
                let node = requested.name.strip_prefix(NODE_PREFIX).filter(|_| signer == KUBELET).map(str::to_owned);
                tracing::info!(user = requested.name, signer, "signed a certificate on request");
                Ok(node.map(|node| (node, key)))
            }
            Err(why) => {
                let failed = json!({"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": why});
                if let Some(list) = value["status"]["conditions"].as_array_mut() {
                    list.push(failed);
                }
                let conditions = value["status"]["conditions"].take();
                value["status"]["conditions"] = self.dated(conditions);
                Ok(None)
            }
        }
    }

    /// What a request asks for, if its signer signs such things.
    fn fit(&self, spec: &Value, signer: &str) -> Result<Requested, String> {
        let requested = Requested::read(&pem(spec).ok_or("the request cannot be read")?).map_err(|e| format!("{e:#}"))?;
        let usages: Vec<&str> = spec["usages"].as_array().into_iter().flatten().map(text).collect();
        if !usages.contains(&"client auth") {
            return Err("usages did not contain [client auth]".to_owned());
        }
        if let Some(other) = usages.iter().find(|u| !["client auth", "digital signature", "key encipherment"].contains(u)) {
            return Err(format!("usages contain {other:?}, which this signer does not give"));
        }
        if requested.name.is_empty() {
            return Err("the subject has no common name".to_owned());
        }
        if requested.groups.iter().any(|group| group == MASTERS) {
            return Err(format!("the group {MASTERS} is never given on request"));
        }
        if signer == CLIENT {
            return Ok(requested);
        }
        let node = requested.name.strip_prefix(NODE_PREFIX).filter(|node| !node.is_empty());
        let node = node
            .filter(|_| requested.groups == [NODES])
            .ok_or(format!("subject organization is not {NODES}, or its common name does not begin with {NODE_PREFIX}"))?;
        // A node's name is given to another key by its own agent, or when nobody has it.
        if text(&spec["username"]) != requested.name && self.node_is_taken(node) {
            return Err(format!("the node {node:?} has joined already; only its own agent may ask for another certificate"));
        }
        Ok(requested)
    }

    /// What may be written into the status of a request: a certificate by who may sign for its signer; yes and no by nobody here.
    pub(super) fn check_signing(
        &self,
        identity: &Identity,
        target: &Target,
        old: Option<&Object>,
        new: &Draft,
    ) -> Result<(), Failure> {
        let (Some(old), true) = (old, target.subresource == "status") else { return Ok(()) };
        let (before, after) = (old.value(), new.value());
        let refuse = |why: &str| Err(Failure::forbidden(requests(), &new.key.name, why));
        for kind in ["Approved", "Denied"] {
            if holds(&before["status"]["conditions"], kind) != holds(&after["status"]["conditions"], kind) {
                return refuse("Approved and Denied are written through the subresource approval");
            }
        }
        let signer = text(&before["spec"]["signerName"]);
        if !self.may_with_signer(identity, "sign", signer) {
            return refuse(&format!("user not permitted to sign requests with signerName {signer:?}"));
        }
        Ok(())
    }
}
