//! Answers that are not success: Kubernetes' `Status` objects, with its reasons and its words, which clients compare literally.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::object::Kind;
use crate::object::admit::{NotDeleted, Refused};
use crate::object::patch::apply::Conflicts;

/// A request that fails.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The HTTP status.
    pub code: u16,
    /// Kubernetes' machine-readable reason.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `details` of the Status object; null when there are none.
    pub details: Value,
}

impl Failure {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Failure { code, reason, message: message.into(), details: Value::Null }
    }
    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = json!({"kind": kind.plural});
        if !name.is_empty() {
            self.details["name"] = name.into();
        }
        if !kind.group.is_empty() {
            self.details["group"] = kind.group.into();
        }
        self
    }
    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Failure::new(400, "BadRequest", message)
    }
    /// 401: nobody known asks.
    pub fn unauthorized() -> Self {
        Failure::new(401, "Unauthorized", "Unauthorized")
    }
    /// 403: whoever asks may not. `why` is the part after `is forbidden: `.
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let subject = if name.is_empty() { kind.resource() } else { format!("{} {name:?}", kind.resource()) };
        Failure::new(403, "Forbidden", format!("{subject} is forbidden: {why}")).about(kind, name)
    }
    /// 403 for a path that names no object.
    pub fn forbidden_path(user: &str, verb: &str, path: &str) -> Self {
        Failure::new(403, "Forbidden", format!("forbidden: User {user:?} cannot {verb} path {path:?}"))
    }
    /// 403 about something that is no object, in words that are complete.
    pub fn forbidden_words(message: &str) -> Self {
        let mut failure = Failure::new(403, "Forbidden", message);
        failure.details = json!({});
        failure
    }
    /// 403: the namespace is going away and takes nothing new.
    pub fn terminating(kind: &Kind, name: &str, namespace: &str) -> Self {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut failure = Failure::forbidden(kind, name, &why);
        failure.details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
        failure
    }
    /// 404: no such path.
    pub fn no_route() -> Self {
        let mut failure = Failure::new(404, "NotFound", "the server could not find the requested resource");
        failure.details = json!({});
        failure
    }
    /// 404: no such object.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Failure::new(404, "NotFound", format!("{} {name:?} not found", kind.resource())).about(kind, name)
    }
    /// 404 that names something that is no object of ours.
    pub fn missing(message: impl Into<String>) -> Self {
        Failure::new(404, "NotFound", message)
    }
    /// 405: the path is there, but not for this method.
    pub fn method_not_allowed() -> Self {
        let mut failure =
            Failure::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
        failure.details = json!({});
        failure
    }
    /// 405: no new objects of a kind whose definition is going away.
    pub fn definition_terminating(kind: &Kind) -> Self {
        let message = "create not allowed while custom resource definition is terminating";
        Failure::new(405, "MethodNotAllowed", message).about(kind, "")
    }
    /// 406: no representation that the client takes.
    pub fn not_acceptable(accepted: &str) -> Self {
        Failure::new(406, "NotAcceptable", format!("only the following media types are accepted: {accepted}"))
    }
    /// 409: the name is taken.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        Failure::new(409, "AlreadyExists", format!("{} {name:?} already exists", kind.resource())).about(kind, name)
    }
    /// 409: it changed meanwhile.
    pub fn modified(kind: &Kind, name: &str) -> Self {
        Failure::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }
    /// 409, with the reason in words.
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        Failure::new(409, "Conflict", format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.resource()))
            .about(kind, name)
    }
    /// 409: others own the fields that an apply wants.
    pub fn apply_conflicts(conflicts: &Conflicts) -> Self {
        let mut failure = Failure::new(409, "Conflict", conflicts.to_string());
        let causes: Vec<Value> = conflicts
            .fields
            .iter()
            .map(|c| json!({"reason": "FieldManagerConflict", "message": c.message, "field": c.field}))
            .collect();
        failure.details = json!({"causes": causes});
        failure
    }
    /// 409: a precondition of a deletion does not hold.
    pub fn not_deleted(kind: &Kind, name: &str, why: &NotDeleted) -> Self {
        Failure::conflict(kind, name, &why.to_string())
    }
    /// 410: the history that this asks for is gone; list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Failure::new(410, "Expired", message)
    }
    /// 413: more than this server takes in one request.
    pub fn too_large(limit: usize) -> Self {
        Failure::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }
    /// 415: a body in a form that this server does not read.
    pub fn unsupported(found: &str, accepted: &[&str]) -> Self {
        Failure::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format {found:?} - accepted media types include: {}",
                accepted.join(", ")
            ),
        )
    }
    /// 422: the object may not be stored as it is.
    pub fn invalid(refused: &Refused) -> Self {
        let mut failure = Failure::new(422, "Invalid", refused.to_string());
        let causes: Vec<Value> =
            refused.causes.iter().map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field})).collect();
        failure.details = json!({"name": refused.name, "kind": refused.kind.kind, "causes": causes});
        if !refused.kind.group.is_empty() {
            failure.details["group"] = refused.kind.group.into();
        }
        failure
    }
    /// 422 without causes: a patch that does not fit.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Failure::new(422, "Invalid", message)
    }
    /// 429: more than this server does at once.
    pub fn too_many() -> Self {
        let mut failure =
            Failure::new(429, "TooManyRequests", "the server has received too many requests and has asked us to try again later");
        failure.details = json!({"retryAfterSeconds": 1});
        failure
    }
    /// 500: our own fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Failure::new(500, "InternalError", format!("Internal error occurred: {}", message.into()))
    }
    /// 503: something that this needs is not there now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Failure::new(503, "ServiceUnavailable", message)
    }
    /// 504: a version that is not there yet.
    pub fn ahead(asked: u64, current: u64) -> Self {
        let mut failure = Failure::new(504, "Timeout", format!("Too large resource version: {asked}, current: {current}"));
        failure.details = json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        });
        failure
    }
    /// 504: the other side did not answer in time.
    pub fn timeout(message: impl Into<String>) -> Self {
        Failure::new(504, "Timeout", message)
    }

    /// The Status object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
    /// The answer.
    pub fn response(&self) -> Response<Body> {
        let mut response = json_response(self.code, &self.status());
        if let Some(seconds) = self.details.get("retryAfterSeconds").and_then(Value::as_u64) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == 401 {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An answer that carries a JSON tree.
pub(super) fn json_response(code: u16, value: &Value) -> Response<Body> {
    bytes_response(code, "application/json", value.to_string())
}

/// An answer that carries these bytes.
pub(super) fn bytes_response(code: u16, content_type: &str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap_or(HeaderValue::from_static("text/plain")));
    // What the API says changes with every write: no proxy or browser may keep it.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The Status object of something that went well.
pub(super) fn success(kind: &Kind, name: &str, uid: &str) -> Value {
    let mut details = json!({"name": name, "kind": kind.plural, "uid": uid});
    if !kind.group.is_empty() {
        details["group"] = kind.group.into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
