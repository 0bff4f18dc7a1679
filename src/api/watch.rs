//! Watch: changes as they reach the disk, one JSON document per line.
//!
//! What the store reports is a change of one object; what a client is told depends on its selector: an object that begins to match is
//! ADDED, one that stops matching is DELETED with its last matching state. A client that reads too slowly is told 410 and cut off. A watch of
//! a kind that somebody defined ends when its definition goes or changes, as in Kubernetes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Api;
use super::auth::{Identity, Verb};
use super::failure::{Failure, bytes_response};
use super::lasting::Stay;
use super::path::{Query, Target};
use super::read::{Selection, shown, version};
use super::table::{self, Form};
use crate::mutant::{self, Mutant};
use crate::object::custom::{self, Kinds};
use crate::object::{Object, Revision};
use crate::store::{Change, Ended, Watch};

/// How often a client that asked for bookmarks gets one. A client that resumes has at most this much to hear again.
pub(super) const BOOKMARK_EVERY: Duration = Duration::from_secs(30);
/// How long a watch lasts when the client does not say: Kubernetes' 30 to 60 minutes.
const LASTS: u64 = 30 * 60;
/// Events that wait already are sent together up to this many bytes.
const PIECE: usize = 64 * 1024;

/// How often a watch of a kind that somebody defined looks whether that is still so.
const SERVED_EVERY: Duration = Duration::from_secs(4);

/// Who watches what.
struct Asked {
    identity: Identity,
    target: Target,
    query: Query,
}

impl Asked {
    fn may(&self, api: &Api) -> bool {
        api.still_valid(&self.identity) && api.authorize(&self.identity, Verb::Watch, &self.target, &self.query).is_ok()
    }
}

struct Stream {
    api: Api,
    asked: Arc<Asked>,
    stay: Stay,
    selection: Selection,
    form: Form,
    watch: Watch,
    /// What a watch from "now" begins with. Written out as it is sent: a client that reads slowly costs no copy of everything.
    initial: VecDeque<Arc<Object>>,
    /// Whether the client is told when it has all of that.
    marks_initial: bool,
    bookmarks: bool,
    next_bookmark: Instant,
    end: Instant,
    /// Whether the columns were sent.
    headed: bool,
    last: Revision,
    over: bool,
}

impl Api {
    pub(super) async fn watch(
        &self,
        identity: &Identity,
        target: &Target,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Failure> {
        let form = Form::negotiate(headers, query)?;
        let selection = Selection::parse(target, query)?;
        let asked = version(query.get("resourceVersion"))?;
        let bookmarks = query.flag("allowWatchBookmarks");
        let initial_events = query.flag("sendInitialEvents");
        if initial_events && query.get("resourceVersionMatch") != "NotOlderThan" {
            return Err(Failure::bad_request(
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        let seconds = match query.number("timeoutSeconds")? {
            Some(seconds) if seconds > 0 => seconds.unsigned_abs(),
            // Spread, so that those who came together do not come back together.
            _ => LASTS + getrandom::u32().unwrap_or(0) as u64 % LASTS,
        };
        let who = Arc::new(Asked { identity: identity.clone(), target: target.clone(), query: query.clone() });
        let mut stream = Stream {
            api: self.clone(),
            stay: self.stay({
                let who = who.clone();
                move |api| who.may(api)
            }),
            asked: who,
            form,
            initial: VecDeque::new(),
            marks_initial: initial_events && bookmarks,
            bookmarks,
            next_bookmark: Instant::now() + self.inner.bookmark_every,
            end: Instant::now() + Duration::from_secs(seconds.min(24 * 3600)),
            headed: false,
            last: 0,
            over: false,
            watch: {
                let from = match asked {
                    Some(revision) if revision > 0 && !initial_events => revision,
                    _ => self.view_at_least(asked.unwrap_or(0)).await?.revision(),
                };
                self.store().watch(selection.scope(), from).map_err(|compacted| {
                    Failure::expired(format!("too old resource version: {} ({})", compacted.asked, compacted.floor))
                })?
            },
            selection,
        };
        if initial_events || asked.is_none_or(|r| r == 0) {
            stream.begin();
        } else {
            stream.last = asked.unwrap_or(0);
        }
        let content_type = match &stream.form {
            Form::Objects => "application/json;stream=watch".to_owned(),
            form => format!("{};stream=watch", form.content_type(false)),
        };
        let body =
            stream::unfold(
                stream,
                |mut stream| async move { stream.piece().await.map(|piece| (Ok::<_, Infallible>(piece), stream)) },
            );
        Ok(bytes_response(200, &content_type, Body::from_stream(body)))
    }
}

impl Stream {
    /// Everything that is there, as ADDED. The watch began at or before the view that is read here: what it has up to there is dropped.
    fn begin(&mut self) {
        let view = self.api.store().durable_view();
        self.last = view.revision();
        self.initial = self.selection.find(&view).into();
    }

    /// The next bytes to send; `None` ends the watch.
    async fn piece(&mut self) -> Option<Bytes> {
        while !self.over {
            // A right that ended, with a certificate or with the pod that gave it, ends what it opened.
            if self.stay.is_over() || !self.asked.may(&self.api) {
                return None;
            }
            let now = Instant::now();
            let mut piece = BytesMut::new();
            if self.marks_initial || !self.initial.is_empty() {
                self.tell_initial(&mut piece);
            } else if now >= self.end || self.api.inner.stopping.is_cancelled() {
                // Whoever comes back has nothing to hear twice.
                self.over = true;
                if self.bookmarks {
                    self.bookmark(&mut piece);
                }
            } else {
                self.tell_waiting(&mut piece);
                if piece.is_empty() && !self.served() {
                    // What is left to hear is heard. A client that comes back meets the kind as it is now, or that there is none.
                    self.over = true;
                    if self.bookmarks {
                        self.bookmark(&mut piece);
                    }
                } else if piece.is_empty() && self.bookmarks && now >= self.next_bookmark {
                    self.next_bookmark = now + self.api.inner.bookmark_every;
                    self.bookmark(&mut piece);
                }
            }
            if !piece.is_empty() {
                return Some(piece.freeze());
            }
            if self.over {
                return None;
            }
            let mut bell = self.end;
            if self.bookmarks {
                bell = bell.min(self.next_bookmark);
            }
            if self.asked.target.kind.custom.is_some() {
                bell = bell.min(now + SERVED_EVERY);
            }
            tokio::select! {
                () = self.watch.ready() => {}
                () = self.stay.over() => {}
                () = self.api.inner.stopping.cancelled() => {}
                () = tokio::time::sleep_until(bell) => {}
            }
        }
        None
    }

    /// Whether the kind is still what it was when the watch began: its definition has neither gone nor been changed.
    fn served(&self) -> bool {
        let kind = self.asked.target.kind;
        let now = || Kinds::established(self.api.store().durable_view().list(custom::definitions()));
        kind.custom.is_none()
            || now().of_path(kind.group, kind.version, kind.plural).is_some_and(|found| std::ptr::eq(found, kind))
    }

    /// Writes the next of what was there when the watch began.
    fn tell_initial(&mut self, out: &mut BytesMut) {
        while out.len() < PIECE {
            let Some(object) = self.initial.pop_front() else {
                if std::mem::take(&mut self.marks_initial) {
                    self.write_bookmark(self.last, true, out);
                }
                return;
            };
            self.write_event("ADDED", &object, out);
        }
    }

    /// Writes what waits, as far as it fits into one piece.
    fn tell_waiting(&mut self, out: &mut BytesMut) {
        while out.len() < PIECE {
            match self.watch.try_next() {
                Ok(Some(change)) => self.tell(&change, out),
                Ok(None) => return,
                Err(ended) => {
                    out.put(self.error(&ended));
                    self.over = true;
                    return;
                }
            }
        }
    }

    /// Writes what this client is told about a change, if anything.
    fn tell(&mut self, change: &Change, out: &mut BytesMut) {
        // The initial list contained it already.
        if change.revision <= self.last {
            return;
        }
        let in_place =
            |object: &Object| self.selection.namespace.is_empty() || *object.key.namespace == *self.selection.namespace;
        let before = change.old.as_deref().filter(|o| in_place(o) && self.selection.matches(o));
        let after = change.new.as_deref().filter(|o| in_place(o) && self.selection.matches(o));
        match (before, after) {
            (None, None) => {}
            (None, Some(new)) => self.write_event("ADDED", new, out),
            (Some(_), Some(new)) => self.write_event("MODIFIED", new, out),
            (Some(_), None) if change.new.is_some() && mutant::on(Mutant::SilentLeave) => {}
            (Some(old), None) => {
                let shown = match &change.new {
                    Some(new) if mutant::on(Mutant::LeaveAsItIs) => new,
                    _ => old,
                };
                self.write_event("DELETED", &shown.at(change.revision), out);
            }
        }
    }

    fn write_event(&mut self, r#type: &str, object: &Object, out: &mut BytesMut) {
        out.reserve(object.size() + 48);
        out.put_slice(b"{\"type\":\"");
        out.put_slice(r#type.as_bytes());
        out.put_slice(b"\",\"object\":");
        match &self.form {
            Form::Objects => out.put_slice(&shown(self.asked.target.kind, object)),
            Form::Table { version, include } => {
                let now = self.api.now();
                let metadata = json!({"resourceVersion": object.revision.to_string()});
                let mut table = table::head(self.asked.target.kind, version, metadata, !self.headed);
                self.headed = true;
                table["rows"] = vec![table::row(self.asked.target.kind, object, version, *include, now)].into();
                out.put_slice(table.to_string().as_bytes());
            }
            Form::Metadata { version } => out.put_slice(table::partial(object.value(), version).to_string().as_bytes()),
            Form::Fields(fields) => out.put_slice(&table::part(&shown(self.asked.target.kind, object), fields)),
        }
        out.put_slice(b"}\n");
    }

    /// Tells how far the client is: it has been told everything up to there.
    fn bookmark(&mut self, out: &mut BytesMut) {
        let complete = self.watch.complete().max(self.last);
        self.write_bookmark(complete, false, out);
    }

    fn write_bookmark(&mut self, revision: Revision, initial: bool, out: &mut BytesMut) {
        let kind = self.asked.target.kind;
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": Value::Null});
        if initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match &self.form {
            Form::Objects => json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata}),
            Form::Table { version, .. } => {
                let mut table = table::head(kind, version, json!({"resourceVersion": revision.to_string()}), !self.headed);
                self.headed = true;
                let partial = table::partial(json!({"metadata": metadata}), version);
                table["rows"] = json!([{"cells": [], "object": partial}]);
                table
            }
            Form::Metadata { version } => table::partial(json!({"metadata": metadata}), version),
            Form::Fields(_) => table::part_mark(metadata),
        };
        out.put_slice(json!({"type": "BOOKMARK", "object": object}).to_string().as_bytes());
        out.put_slice(b"\n");
    }

    fn error(&self, ended: &Ended) -> Bytes {
        let failure = match ended {
            Ended::Slow => Failure::expired(format!("The resourceVersion for the provided watch is too old: {ended}")),
            Ended::Stopped(_) => Failure::unavailable("the server is stopping"),
        };
        let mut line = json!({"type": "ERROR", "object": failure.status()}).to_string();
        line.push('\n');
        line.into()
    }
}
