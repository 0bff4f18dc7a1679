//! Tokens of service accounts: made on request, bound to what they are for, good for a while.
//!
//! A token says which account it speaks for and what it hangs on (a pod, a Secret, a node). Every use looks whether all of that is still
//! there, under the same uid. A token is never stored.

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};

use super::jwt::{self, Bad};
use crate::api::auth::node::{account_of as runs_as, bound_to};
use crate::api::auth::rbac::{account_groups, account_of, account_user};
use crate::api::auth::{Identity, Why};
use crate::api::failure::{Failure, json_response};
use crate::api::write::Ask;
use crate::api::{Api, body, new_uid};
use crate::object::{Key, Kind, Object, kind_of, time};

/// The issuer of our tokens, and the audience of this API, unless the operator says otherwise.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Seconds. Kubernetes' own bounds, but for the last: a token for ever is a password.
const LASTS: i64 = 3600;
const LEAST: i64 = 600;
const MOST: i64 = 365 * 24 * 3600;
/// How far clocks may differ, in seconds.
const SKEW: i64 = 60;
const AUTHENTICATION: &str = "authentication.kubernetes.io";

/// What a token hangs on, beside its account.
struct Bond {
    /// The claim's name: `pod`, `secret`, `node`.
    claim: &'static str,
    object: std::sync::Arc<Object>,
}

fn kind(claim: &str) -> Option<&'static Kind> {
    match claim {
        "pod" => Some(kind_of::<core::Pod>()),
        "secret" => Some(kind_of::<core::Secret>()),
        "node" => Some(kind_of::<core::Node>()),
        _ => None,
    }
}

fn refused(name: &str, field: &str, why: &str) -> Failure {
    Failure::unprocessable(format!("TokenRequest.authentication.k8s.io {name:?} is invalid: {field}: {why}"))
}

impl Api {
    /// `serviceaccounts/NAME/token`: a new token.
    pub(in crate::api) async fn account_token(&self, ask: &Ask<'_>, why: &Why, bytes: &Bytes) -> Result<Response<Body>, Failure> {
        let authority = self.authority().ok_or_else(|| Failure::unavailable("this server signs no tokens"))?;
        let request = body::parse(ask.headers, bytes)?.value;
        let (namespace, name) = (ask.target.namespace.as_str(), ask.target.name.as_str());
        let account = self.find(ask.target).await?;
        let spec = &request["spec"];
        let mut audiences: Vec<String> = texts(&spec["audiences"]);
        if audiences.is_empty() {
            audiences.push(self.inner.settings.issuer.clone());
        }
        if audiences.len() > 20 || audiences.iter().any(|a| a.is_empty() || a.len() > 500) {
            return Err(refused(name, "spec.audiences", "Invalid value: at most 20 audiences of 1 to 500 bytes"));
        }
        let seconds = match &spec["expirationSeconds"] {
            Value::Null => LASTS,
            number => number.as_i64().unwrap_or(0),
        };
        if seconds < LEAST {
            let why = format!("Invalid value: {seconds}: may not specify a duration less than 10 minutes");
            return Err(refused(name, "spec.expirationSeconds", &why));
        }
        if seconds > 1 << 32 {
            let why = format!("Invalid value: {seconds}: may not specify a duration larger than 2^32 seconds");
            return Err(refused(name, "spec.expirationSeconds", &why));
        }
        let seconds = seconds.min(MOST);
        let bond = self.bond(namespace, name, &spec["boundObjectRef"])?;
        if matches!(why, Why::Node) {
            self.check_agent(ask, &spec["boundObjectRef"], bond.as_ref(), &audiences)?;
        }
        let now = self.now();
        let expires = now + SignedDuration::from_secs(seconds);
        let mut private = json!({
            "namespace": namespace, "serviceaccount": {"name": name, "uid": account.meta.uid},
        });
        if let Some(bond) = &bond {
            private[bond.claim] = json!({"name": &*bond.object.key.name, "uid": bond.object.meta.uid});
            // Which node a pod is on is worth knowing to whoever checks the token; it does not hang on the node.
            if let Some(node) = self.node_of(&bond.object) {
                private["node"] = json!({"name": &*node.key.name, "uid": node.meta.uid});
            }
        }
        let claims = json!({
            "iss": self.inner.settings.issuer, "sub": account_user(namespace, name), "aud": audiences, "jti": new_uid(),
            "iat": now.as_second(), "nbf": now.as_second(), "exp": expires.as_second(), "kubernetes.io": private,
        });
        let token = authority.accounts.sign(&claims).map_err(|e| Failure::internal(format!("{e:#}")))?;
        let mut answer = json!({
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": time::seconds(now)},
            "spec": {"audiences": audiences, "expirationSeconds": seconds},
            "status": {"token": token, "expirationTimestamp": time::seconds(expires)},
        });
        if let Some(bond) = &bond {
            answer["spec"]["boundObjectRef"] = spec["boundObjectRef"].clone();
            answer["spec"]["boundObjectRef"]["uid"] = bond.object.meta.uid.as_str().into();
        }
        Ok(json_response(201, &answer))
    }

    /// What a token is to hang on: it must be there, and be what was meant.
    fn bond(&self, namespace: &str, account: &str, reference: &Value) -> Result<Option<Bond>, Failure> {
        if reference.is_null() {
            return Ok(None);
        }
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let claim = match (text("apiVersion"), text("kind")) {
            ("v1" | "", "Pod") => "pod",
            ("v1" | "", "Secret") => "secret",
            ("v1" | "", "Node") => "node",
            (version, of) => {
                return Err(Failure::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to object of kind {version}, Kind={of}"
                )));
            }
        };
        let kind = kind(claim).expect("it was just chosen from those that are");
        let key = Key::new(kind, if kind.namespaced { namespace } else { "" }, text("name"));
        let object = self.store().get(&key).ok_or_else(|| Failure::not_found(kind, text("name")))?;
        if claim == "pod" {
            let pod = object.typed::<core::Pod>().map_err(|e| Failure::internal(e.to_string()))?;
            if pod.spec.as_ref().is_none_or(|spec| runs_as(spec) != account) {
                return Err(Failure::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
        }
        if !text("uid").is_empty() && text("uid") != object.meta.uid {
            let why = format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                text("uid")
            );
            return Err(Failure::conflict(kind, text("name"), &why));
        }
        Ok(Some(Bond { claim, object }))
    }

    fn node_of(&self, object: &Object) -> Option<std::sync::Arc<Object>> {
        let pod = (object.key.kind == kind_of::<core::Pod>()).then(|| object.typed::<core::Pod>().ok())??;
        let name = pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())?;
        self.store().get(&Key::of::<core::Node>("", name))
    }

    /// An agent gets tokens for its own pods only, and only for whom those pods want to speak to (NodeRestriction).
    fn check_agent(&self, ask: &Ask<'_>, reference: &Value, bond: Option<&Bond>, audiences: &[String]) -> Result<(), Failure> {
        let refuse = |why: &str| Err(Failure::forbidden(ask.target.kind, &ask.target.name, why));
        let Some(host) = ask.identity.host() else { return Ok(()) };
        let Some(Bond { claim: "pod", object }) = bond else { return refuse("node requested token not bound to a pod") };
        if reference["uid"].as_str().unwrap_or_default().is_empty() {
            return refuse("node requested token with a pod binding without a uid");
        }
        if !bound_to(object, host) {
            return refuse("node requested token bound to a pod scheduled on a different node");
        }
        let pod = object.value();
        let sources = pod["spec"]["volumes"].as_array().into_iter().flatten();
        let sources = sources.flat_map(|v| v["projected"]["sources"].as_array().into_iter().flatten());
        let wanted: Vec<&str> = sources
            .filter(|source| source["serviceAccountToken"].is_object())
            .map(|source| {
                source["serviceAccountToken"]["audience"]
                    .as_str()
                    .filter(|a| !a.is_empty())
                    .unwrap_or(&self.inner.settings.issuer)
            })
            .collect();
        match audiences.iter().find(|audience| !wanted.contains(&audience.as_str())) {
            Some(audience) => refuse(&format!("audience {audience:?} not found in pod spec volume")),
            None => Ok(()),
        }
    }

    /// Whom a token of ours speaks for. Whether what it hangs on is still there is asked at each use ([`Api::still_valid`]).
    pub(in crate::api) fn account_of_token(&self, token: &str, audiences: &[&str]) -> Result<(Identity, Vec<String>), Bad> {
        let authority = self.authority().ok_or(Bad::UnknownKey)?;
        let claims = jwt::verify(token, std::slice::from_ref(authority.accounts.key()))?;
        if claims["iss"] != self.inner.settings.issuer.as_str() {
            return Err(Bad::Claims("another issuer"));
        }
        let meant: Vec<String> =
            jwt::audiences(&claims).into_iter().filter(|a| audiences.contains(a)).map(str::to_owned).collect();
        if meant.is_empty() {
            return Err(Bad::Claims("another audience"));
        }
        let expires = in_time(&claims, self.now())?;
        let private = &claims["kubernetes.io"];
        let user = claims["sub"].as_str().unwrap_or_default();
        let (namespace, name) = account_of(user).ok_or(Bad::Claims("no service account"))?;
        let account = &private["serviceaccount"];
        if private["namespace"] != namespace || account["name"] != name {
            return Err(Bad::Claims("its subject and its account differ"));
        }
        let uid = account["uid"].as_str().filter(|uid| !uid.is_empty()).ok_or(Bad::Claims("an account without a uid"))?;
        let mut identity =
            Identity { name: user.to_owned(), uid: uid.to_owned(), groups: account_groups(namespace), ..Identity::default() };
        identity.expires = Some(expires);
        identity.bound.push((Key::of::<core::ServiceAccount>(namespace, name), uid.to_owned()));
        let bound = ["pod", "secret", "node"].into_iter().filter(|claim| private[*claim].is_object());
        let on_pod = private["pod"].is_object();
        for claim in bound {
            let of = &private[claim];
            let (Some(name), Some(uid)) = (of["name"].as_str(), of["uid"].as_str().filter(|u| !u.is_empty())) else {
                return Err(Bad::Claims("bound to something without a name or uid"));
            };
            let kind = kind(claim).ok_or(Bad::Form)?;
            // A pod's node is told, not needed.
            if claim != "node" || !on_pod {
                identity.bound.push((Key::new(kind, if kind.namespaced { namespace } else { "" }, name), uid.to_owned()));
            }
            if claim != "secret" {
                identity.extra.insert(format!("{AUTHENTICATION}/{claim}-name"), vec![name.to_owned()]);
                identity.extra.insert(format!("{AUTHENTICATION}/{claim}-uid"), vec![uid.to_owned()]);
            }
        }
        if let Some(id) = claims["jti"].as_str() {
            identity.extra.insert(format!("{AUTHENTICATION}/credential-id"), vec![format!("JTI={id}")]);
        }
        Ok((identity, meant))
    }

    /// `/openid/v1/jwks`
    pub(in crate::api) fn key_set(&self) -> Result<Response<Body>, Failure> {
        let authority = self.authority().ok_or_else(Failure::no_route)?;
        Ok(json_response(200, &json!({"keys": [authority.accounts.key().jwk()]})))
    }

    /// `/.well-known/openid-configuration`
    pub(in crate::api) fn openid_configuration(&self) -> Result<Response<Body>, Failure> {
        self.authority().ok_or_else(Failure::no_route)?;
        let issuer = &self.inner.settings.issuer;
        Ok(json_response(
            200,
            &json!({
                "issuer": issuer, "jwks_uri": format!("{}/openid/v1/jwks", issuer.trim_end_matches('/')),
                "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            }),
        ))
    }
}

/// When a token ends, if it is good now. One without an end is none.
pub(in crate::api) fn in_time(claims: &Value, now: Timestamp) -> Result<Timestamp, Bad> {
    let expires = jwt::seconds(claims, "exp").ok_or(Bad::Time)?;
    let begins = jwt::seconds(claims, "nbf").into_iter().chain(jwt::seconds(claims, "iat")).max();
    if expires <= now.as_second() || begins.is_some_and(|begins| begins > now.as_second() + SKEW) {
        return Err(Bad::Time);
    }
    Timestamp::from_second(expires).map_err(|_| Bad::Time)
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|t| t.as_str().map(str::to_owned)).collect()
}
