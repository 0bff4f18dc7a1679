//! Whether the parts that a cluster stands on work, for `kubectl get componentstatuses`: Kubernetes has given it up, and people still ask.
//!
//! One part is looked at: the store, without which nothing else does anything. What the loops do is not known in this room; it is told in
//! events and conditions.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, Response};
use serde_json::{Value, json};

use super::Api;
use super::auth::Verb;
use super::failure::Failure;
use super::path::{Query, Target};
use super::read::{Listing, Selection};
use super::table::Form;
use super::write::warn;
use crate::object::{Draft, Kind, Object};

/// How long what was written may take to be on disk before the store is called unwell. A group of writes takes milliseconds.
const IN_TIME: Duration = Duration::from_secs(2);

impl Api {
    /// Answers for one part, or for all.
    pub(super) async fn components(
        &self,
        verb: Verb,
        target: &Target,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Failure> {
        let form = Form::negotiate(headers, query)?;
        let selection = Selection::parse(target, query)?;
        let all = [self.look_at_store(target.kind).await];
        let mut found: Vec<_> = all.into_iter().filter(|part| selection.matches(part)).map(Arc::new).collect();
        let mut response = match verb {
            Verb::Get => {
                let part = found.pop().ok_or_else(|| Failure::not_found(target.kind, &target.name))?;
                self.object_response(200, form, target.kind, &part)
            }
            Verb::List => self.list_response(form, target.kind, Listing::of(self.store().durable(), found)),
            _ => return Err(Failure::method_not_allowed()),
        };
        warn(&mut response, &["v1 ComponentStatus is deprecated in v1.19+".to_owned()]);
        Ok(response)
    }

    async fn look_at_store(&self, kind: &'static Kind) -> Object {
        let written = self.store().until_durable(self.store().revision());
        let condition = match tokio::time::timeout(IN_TIME, written).await {
            Ok(Ok(())) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
            Ok(Err(broken)) => {
                json!({"type": "Healthy", "status": "False", "message": "it has stopped", "error": broken.to_string()})
            }
            Err(_) => {
                json!({"type": "Healthy", "status": "False", "message": format!("no write has reached the disk for {IN_TIME:?}")})
            }
        };
        let part: Value = json!({"metadata": {"name": "store"}, "conditions": [condition]});
        Draft::new(kind, part).seal(0)
    }
}
