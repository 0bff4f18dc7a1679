//! Questions about rights and identities: may I, may she, what may I, who am I, whose token is this.
//!
//! Nothing of this is stored: a review is asked by creating it, and answered with itself.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Response};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

use super::auth::{Attributes, Identity, What};
use super::failure::{Failure, json_response};
use super::{Api, body};
use crate::object::time;

/// A kind of review.
#[derive(Debug, PartialEq)]
pub(super) struct Review {
    pub(super) group: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) namespaced: bool,
}

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
/// The version of all of them.
pub(super) const VERSION: &str = "v1";

/// All kinds of reviews.
pub(super) const REVIEWS: &[Review] = &[
    Review { group: AUTHENTICATION, kind: "SelfSubjectReview", plural: "selfsubjectreviews", namespaced: false },
    Review { group: AUTHENTICATION, kind: "TokenReview", plural: "tokenreviews", namespaced: false },
    Review { group: AUTHORIZATION, kind: "LocalSubjectAccessReview", plural: "localsubjectaccessreviews", namespaced: true },
    Review { group: AUTHORIZATION, kind: "SelfSubjectAccessReview", plural: "selfsubjectaccessreviews", namespaced: false },
    Review { group: AUTHORIZATION, kind: "SelfSubjectRulesReview", plural: "selfsubjectrulesreviews", namespaced: false },
    Review { group: AUTHORIZATION, kind: "SubjectAccessReview", plural: "subjectaccessreviews", namespaced: false },
];

impl Review {
    pub(super) fn of_path(group: &str, version: &str, plural: &str) -> Option<&'static Review> {
        REVIEWS.iter().find(|r| r.group == group && version == VERSION && r.plural == plural)
    }
    fn resource(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }
}

impl Api {
    /// Whether somebody may ask this kind of question.
    pub(super) fn authorize_review(&self, identity: &Identity, review: &Review, namespace: &str) -> Result<(), Failure> {
        let what =
            What::Resource { group: review.group, resource: review.plural, subresource: "", namespace, name: "", fields: "" };
        self.decide(identity, &Attributes { verb: "create", what }).map(drop).map_err(|_| {
            let place =
                if namespace.is_empty() { "at the cluster scope".to_owned() } else { format!("in the namespace {namespace:?}") };
            Failure::forbidden_words(&format!(
                "{} is forbidden: User {:?} cannot create resource {:?} in API group {:?} {place}",
                review.resource(),
                identity.name,
                review.plural,
                review.group
            ))
        })
    }

    /// Answers a review.
    pub(super) async fn review(
        &self,
        identity: &Identity,
        review: &'static Review,
        namespace: &str,
        headers: &HeaderMap,
        bytes: &Bytes,
    ) -> Result<Response<Body>, Failure> {
        let mut value = body::parse(headers, bytes)?.value;
        if !value.is_object() {
            return Err(Failure::bad_request(format!("the body must be a {}", review.kind)));
        }
        let found = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (found("apiVersion"), found("kind"));
        let own = format!("{}/{VERSION}", review.group);
        if !(version.is_empty() || version == own) || !(kind.is_empty() || kind == review.kind) {
            return Err(Failure::bad_request(format!(
                "{version} {kind} in the data does not match the expected {own} {}",
                review.kind
            )));
        }
        if !value["spec"].is_object() {
            value["spec"] = json!({});
        }
        let spec = &value["spec"];
        let status = match review.kind {
            "SelfSubjectReview" => json!({"userInfo": user_info(identity)}),
            "TokenReview" => self.token_review(spec).await,
            "SelfSubjectRulesReview" => self.rules_review(identity, spec),
            "SelfSubjectAccessReview" => self.access_review(identity, spec)?,
            _ => {
                if !namespace.is_empty() && spec["resourceAttributes"]["namespace"].as_str().unwrap_or_default() != namespace {
                    return Err(invalid(review, "spec.resourceAttributes.namespace", "must match metadata.namespace"));
                }
                self.access_review(&subject(review, spec)?, spec)?
            }
        };
        // Not back to where it may be logged.
        if review.kind == "TokenReview" {
            value["spec"]["token"] = "".into();
        }
        value["apiVersion"] = own.into();
        value["kind"] = review.kind.into();
        value["status"] = status;
        if !value["metadata"].is_object() {
            value["metadata"] = json!({});
        }
        value["metadata"]["creationTimestamp"] =
            if review.kind == "SelfSubjectReview" { time::seconds(self.now()).into() } else { Value::Null };
        Ok(json_response(201, &value))
    }

    fn access_review(&self, identity: &Identity, spec: &Value) -> Result<Value, Failure> {
        let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
        let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let decision = if resource.is_object() && path.is_null() {
            let field = |name: &str| text(resource, name);
            let (group, plural, sub, namespace, name) =
                (field("group"), field("resource"), field("subresource"), field("namespace"), field("name"));
            let fields = field_selector(&resource["fieldSelector"]);
            let what = What::Resource {
                group: &group,
                resource: &plural,
                subresource: &sub,
                namespace: &namespace,
                name: &name,
                fields: &fields,
            };
            self.decide(identity, &Attributes { verb: &field("verb"), what })
        } else if path.is_object() && resource.is_null() {
            self.decide(identity, &Attributes { verb: &text(path, "verb"), what: What::Path(&text(path, "path")) })
        } else {
            return Err(Failure::unprocessable(
                "spec: exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ));
        };
        Ok(match decision {
            Ok(why) => json!({"allowed": true, "reason": why.reason()}),
            Err(more) if more.is_empty() => json!({"allowed": false}),
            Err(more) => json!({"allowed": false, "reason": more}),
        })
    }

    fn rules_review(&self, identity: &Identity, spec: &Value) -> Value {
        let namespace = spec["namespace"].as_str().unwrap_or_default();
        let rules = self.inner.rbac.rules_of(&self.store().view(), identity, namespace);
        let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
        let (paths, resources): (Vec<&PolicyRule>, Vec<&PolicyRule>) =
            rules.iter().partition(|rule| rule.non_resource_urls.as_ref().is_some_and(|urls| !urls.is_empty()));
        let resources: Vec<Value> = resources
            .into_iter()
            .map(|rule| {
                let mut value =
                    json!({"verbs": rule.verbs, "apiGroups": list(&rule.api_groups), "resources": list(&rule.resources)});
                if let Some(names) = rule.resource_names.as_ref().filter(|names| !names.is_empty()) {
                    value["resourceNames"] = names.clone().into();
                }
                value
            })
            .collect();
        let paths: Vec<Value> = paths
            .into_iter()
            .map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": list(&rule.non_resource_urls)}))
            .collect();
        let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
        if identity.host().is_some() {
            status["incomplete"] = true.into();
            status["evaluationError"] = "node authorizer does not support user rule resolution".into();
        }
        status
    }

    /// Whose token this is. A token that is worth nothing is an answer, not an error.
    async fn token_review(&self, spec: &Value) -> Value {
        let own = self.inner.settings.issuer.as_str();
        let mut wanted: Vec<&str> = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if wanted.is_empty() {
            wanted.push(own);
        }
        let token = spec["token"].as_str().unwrap_or_default();
        match self.identity_and_audiences(token, &wanted).await {
            Some((identity, audiences)) => {
                json!({"authenticated": true, "user": user_info(&identity.authenticated()), "audiences": audiences})
            }
            None => json!({"authenticated": false, "user": {}, "error": "invalid bearer token"}),
        }
    }
}

fn invalid(review: &Review, field: &str, why: &str) -> Failure {
    Failure::unprocessable(format!("{}.{} \"\" is invalid: {field}: Invalid value: {why}", review.kind, review.group))
}

/// Whom a question is about.
fn subject(review: &Review, spec: &Value) -> Result<Identity, Failure> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|t| t.as_str().map(str::to_owned)).collect()
    };
    let identity = Identity {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups: texts(&spec["groups"]),
        extra: spec["extra"].as_object().into_iter().flatten().map(|(key, values)| (key.clone(), texts(values))).collect(),
        ..Identity::default()
    };
    if identity.name.is_empty() && identity.groups.is_empty() {
        return Err(invalid(review, "spec.user", "at least one of user or group must be specified"));
    }
    Ok(identity)
}

/// The field selector of a question, as a request would write it. What cannot be written so selects nothing.
fn field_selector(selector: &Value) -> String {
    if let Some(raw) = selector["rawSelector"].as_str() {
        return raw.to_owned();
    }
    let terms = selector["requirements"].as_array().into_iter().flatten().filter_map(|term| {
        let (key, values) = (term["key"].as_str()?, term["values"].as_array()?);
        match (term["operator"].as_str()?, values.as_slice()) {
            ("In", [one]) => Some(format!("{key}={}", one.as_str()?)),
            ("NotIn", [one]) => Some(format!("{key}!={}", one.as_str()?)),
            _ => None,
        }
    });
    terms.collect::<Vec<_>>().join(",")
}

/// Kubernetes' UserInfo.
pub(super) fn user_info(identity: &Identity) -> Value {
    let mut value = json!({"username": identity.name});
    if !identity.uid.is_empty() {
        value["uid"] = identity.uid.as_str().into();
    }
    if !identity.groups.is_empty() {
        value["groups"] = identity.groups.clone().into();
    }
    if !identity.extra.is_empty() {
        value["extra"] = json!(identity.extra);
    }
    value
}
