//! Get and list.
//!
//! Answers show only what is on disk. Lists are spliced from stored bytes, in pieces, so that a list of everything costs neither an
//! encoding nor a second copy of everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, Response};
use serde_json::{Value, json};

use super::failure::{Failure, bytes_response, json_response};
use super::path::{Query, Target};
use super::table::{self, Form, Include};
use super::{Api, packed};
use crate::mutant::{self, Mutant};
use crate::object::selector::{FieldSelector, LabelSelector};
use crate::object::{Key, Kind, Object, Revision};
use crate::store::{Scope, View};

/// How long a reader waits for a revision that it has heard of but this server has not on disk yet.
const CATCH_UP: Duration = Duration::from_secs(3);
/// Lists are sent in pieces of about this many bytes.
const PIECE: usize = 64 * 1024;
/// So many pieces are made ahead of what is sent: enough that neither side waits for the other, and a client that does not read costs no
/// more than half a megabyte.
const AHEAD: usize = 8;
/// Some fields of objects are taken to be a part of this of them.
const PART: u64 = 4;

/// A piece of a list's body.
type Piece = Result<Bytes, std::convert::Infallible>;

#[cfg(test)]
thread_local! {
    /// How many objects selections were held against in this thread.
    pub(super) static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Which objects of a kind are meant.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub(super) kind: &'static Kind,
    /// Empty: all.
    pub(super) namespace: String,
    pub(super) labels: LabelSelector,
    pub(super) fields: FieldSelector,
}

impl Selection {
    pub(super) fn parse(target: &Target, query: &Query) -> Result<Self, Failure> {
        let labels = LabelSelector::parse(query.get("labelSelector")).map_err(|e| {
            Failure::bad_request(format!("unable to parse {:?} as a label selector: {e}", query.get("labelSelector")))
        })?;
        let mut fields = query.get("fieldSelector").to_owned();
        if !target.name.is_empty() {
            fields = format!("{fields},metadata.name={}", target.name);
        }
        let fields = FieldSelector::parse(target.kind, &fields).map_err(|e| Failure::bad_request(e.to_string()))?;
        Ok(Selection { kind: target.kind.stored(), namespace: target.namespace.clone(), labels, fields })
    }

    pub(super) fn matches(&self, object: &Object) -> bool {
        #[cfg(test)]
        LOOKED_AT.set(LOOKED_AT.get() + 1);
        self.labels.matches(&object.meta) && self.fields.matches(object)
    }

    /// The field that the store can be asked for by index.
    fn index(&self) -> Option<(&'static str, &str)> {
        self.kind.selectable.iter().find_map(|path| Some((*path, self.fields.exact(path).filter(|v| !v.is_empty())?)))
    }

    /// What to follow in the store.
    pub(super) fn scope(&self) -> Scope {
        let namespace = self.fields.exact("metadata.namespace").unwrap_or(&self.namespace);
        let scope = if namespace.is_empty() { Scope::all(self.kind) } else { Scope::namespace(self.kind, namespace) };
        match (self.fields.exact("metadata.name"), self.index()) {
            (Some(name), _) => scope.with_field("metadata.name", name),
            (None, Some((path, value))) => scope.with_field(path, value),
            (None, None) => scope,
        }
    }

    /// Whether an object is in the namespace that is meant.
    fn in_place(&self, object: &Object) -> bool {
        self.namespace.is_empty() || *object.key.namespace == *self.namespace
    }

    /// The selected objects in a view, ordered by namespace and name.
    pub(super) fn find(&self, view: &View) -> Vec<Arc<Object>> {
        self.candidates(view, None).filter(|o| self.in_place(o) && self.matches(o)).cloned().collect()
    }

    /// As few objects as the store can tell apart from others, all that are selected among them, ordered by namespace and name. Only those
    /// behind a name, if one is given.
    fn candidates<'a>(&'a self, view: &'a View, after: Option<(&str, &str)>) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        let behind =
            move |o: &&Arc<Object>, (namespace, name): (&str, &str)| (&*o.key.namespace, &*o.key.name) > (namespace, name);
        if let Some(name) = self.fields.exact("metadata.name")
            && (!self.namespace.is_empty() || !self.kind.namespaced)
        {
            let one = view.get(&Key::new(self.kind, &self.namespace, name));
            return Box::new(
                one.into_iter().filter(|o| after.is_none_or(|after| behind(o, after))).collect::<Vec<_>>().into_iter(),
            );
        }
        match (self.index(), after) {
            (Some((path, value)), None) => Box::new(view.by_field(self.kind, path, value)),
            (Some((path, value)), Some((namespace, name))) => {
                let after = (namespace.to_owned(), name.to_owned());
                Box::new(view.by_field(self.kind, path, value).filter(move |o| behind(o, (&after.0, &after.1))))
            }
            (None, None) if self.namespace.is_empty() => Box::new(view.list(self.kind)),
            (None, None) => Box::new(view.list_in(self.kind, &self.namespace)),
            (None, Some((namespace, name))) => {
                Box::new(view.list_after(self.kind, namespace, name).take_while(|o| self.in_place(o)))
            }
        }
    }
}

/// Reads `resourceVersion`: `None` when absent.
pub(super) fn version(text: &str) -> Result<Option<Revision>, Failure> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            Failure::bad_request(format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: invalid syntax"))
        }),
    }
}

/// Where the next page of a list begins, and of which revision it is.
struct Continue {
    revision: Revision,
    namespace: String,
    name: String,
    /// How many objects are still to come, where that was counted: it does not change, because the revision does not.
    rest: Option<usize>,
}

impl Continue {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(
            json!({"v": "portolan/v1", "rv": self.revision, "ns": self.namespace, "name": self.name, "rest": self.rest})
                .to_string(),
        )
    }
    fn decode(token: &str) -> Result<Continue, Failure> {
        let read = || {
            let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
            let text = |name: &str| value[name].as_str().map(str::to_owned);
            (value["v"] == "portolan/v1").then_some(())?;
            let rest = value["rest"].as_u64().and_then(|rest| rest.try_into().ok());
            Some(Continue { revision: value["rv"].as_u64()?, namespace: text("ns")?, name: text("name")?, rest })
        };
        read().ok_or_else(|| Failure::bad_request("continue key is not valid: it was not made by this server"))
    }
}

/// Namespace and name.
type Name = (Arc<str>, Arc<str>);

/// The selected objects behind a name, in order, with some of them as they were before. Looks only at as many as are taken.
fn as_it_was<'a>(
    selection: &'a Selection,
    view: &'a View,
    undone: BTreeMap<Name, Option<Arc<Object>>>,
    after: Option<(&str, &str)>,
) -> impl Iterator<Item = Arc<Object>> + 'a {
    let behind = |object: &Object| after.is_none_or(|after| (&*object.key.namespace, &*object.key.name) > after);
    let fits = |object: &Arc<Object>| selection.in_place(object) && selection.matches(object);
    let was = undone.values().flatten().filter(|o| behind(o) && fits(o)).cloned().collect::<Vec<_>>();
    let mut was = was.into_iter().peekable();
    let mut is =
        selection.candidates(view, after).filter(move |o| !undone.contains_key(&name_of(o)) && fits(o)).cloned().peekable();
    std::iter::from_fn(move || {
        let earlier = match (was.peek(), is.peek()) {
            (Some(was), Some(is)) => name_of(was) < name_of(is),
            (was, _) => was.is_some(),
        };
        if earlier { was.next() } else { is.next() }
    })
}

fn name_of(object: &Object) -> Name {
    (object.key.namespace.clone(), object.key.name.clone())
}

/// Objects at one revision.
pub(super) struct Listing {
    pub(super) revision: Revision,
    pub(super) objects: Vec<Arc<Object>>,
    next: Option<String>,
    remaining: Option<usize>,
}

impl Listing {
    /// Objects that are stored nowhere.
    pub(super) fn of(revision: Revision, objects: Vec<Arc<Object>>) -> Listing {
        Listing { revision, objects, next: None, remaining: None }
    }
}

impl Api {
    /// The newest state that may be shown, at least as new as `revision`.
    pub(super) async fn view_at_least(&self, revision: Revision) -> Result<View, Failure> {
        let store = self.store();
        if store.durable() < revision {
            if revision > store.revision() {
                let mut newest = store.newest();
                let arrives = newest.wait_for(|r| *r >= revision);
                if tokio::time::timeout(CATCH_UP, arrives).await.is_err() {
                    return Err(Failure::ahead(revision, store.revision()));
                }
            }
            self.until_durable(revision).await?;
        }
        Ok(store.durable_view())
    }

    pub(super) async fn until_durable(&self, revision: Revision) -> Result<(), Failure> {
        if mutant::on(Mutant::AnswerBeforeSync) {
            return Ok(());
        }
        self.store().until_durable(revision).await.map_err(|e| Failure::unavailable(format!("the store has stopped: {e}")))
    }

    /// One object as it is now, once that is on disk.
    pub(super) async fn find(&self, target: &Target) -> Result<Arc<Object>, Failure> {
        let key = Key::new(target.kind.stored(), &target.namespace, &target.name);
        match self.store().get(&key) {
            Some(object) => {
                self.until_durable(object.revision).await?;
                Ok(object)
            }
            None => {
                // That it is gone is shown only when its deletion is on disk.
                match self.store().durable_view().get(&key).cloned() {
                    Some(_) => {
                        self.until_durable(self.store().revision()).await?;
                        Err(Failure::not_found(target.kind, &target.name))
                    }
                    None => Err(Failure::not_found(target.kind, &target.name)),
                }
            }
        }
    }

    pub(super) async fn get(&self, target: &Target, query: &Query, headers: &HeaderMap) -> Result<Response<Body>, Failure> {
        let form = Form::negotiate(headers, query)?;
        if let Some(revision) = version(query.get("resourceVersion"))? {
            self.view_at_least(revision).await?;
        }
        let object = self.find(target).await?;
        Ok(self.object_response(200, form, target.kind, &object))
    }

    pub(super) async fn list(&self, target: &Target, query: &Query, headers: &HeaderMap) -> Result<Response<Body>, Failure> {
        let form = Form::negotiate(headers, query)?;
        let selection = Selection::parse(target, query)?;
        let listing = self.listing(&selection, query).await?;
        Ok(self.list_response(form, target.kind, listing))
    }

    /// Objects in the words of `kind` and in the form that the client wants.
    pub(super) fn list_response(&self, form: Form, kind: &'static Kind, listing: Listing) -> Response<Body> {
        let mut metadata = json!({"resourceVersion": listing.revision.to_string()});
        if let Some(next) = &listing.next {
            metadata["continue"] = next.as_str().into();
        }
        if let Some(remaining) = listing.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        let whole = listing.objects.iter().map(|o| o.size() as u64).sum();
        // Packing pays where the network is slow, and what was picked out of objects is a fraction of them: nobody knows how large before
        // it is made.
        let size = if matches!(form, Form::Fields(_)) { whole / PART } else { whole };
        let content_type = form.content_type(true);
        let body = match form {
            Form::Objects => {
                let head = format!(
                    "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
                    kind.kind,
                    kind.api_version()
                );
                Body::from_stream(splice(head, listing.objects, move |object, out| out.extend_from_slice(&shown(kind, object))))
            }
            Form::Table { version, include } => {
                let mut head = table::head(kind, version, metadata, true).to_string();
                // `rows` is the last of a table's fields.
                head.truncate(head.len() - "]}".len());
                let now = self.now();
                let row = move |object: &Object| table::row(kind, object, version, include, now);
                let put = move |object: &Object, out: &mut Vec<u8>| out.extend_from_slice(row(object).to_string().as_bytes());
                Body::from_stream(splice(head, listing.objects, put))
            }
            Form::Metadata { version } => {
                let head = format!(
                    "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":{metadata},\"items\":["
                );
                let partial = move |object: &Object| table::partial(object.value(), version);
                let put = move |object: &Object, out: &mut Vec<u8>| out.extend_from_slice(partial(object).to_string().as_bytes());
                Body::from_stream(splice(head, listing.objects, put))
            }
            Form::Fields(fields) => {
                let head = table::parts_head(&metadata);
                ahead(splice(head, listing.objects, move |object, out| table::put_part(&shown(kind, object), &fields, out)))
            }
        };
        let mut response = bytes_response(200, &content_type, body);
        packed::mark(&mut response, size);
        response
    }

    /// The selected objects: newest, not older than a revision, exactly at one, or the next page of an earlier list.
    pub(super) async fn listing(&self, selection: &Selection, query: &Query) -> Result<Listing, Failure> {
        let asked = version(query.get("resourceVersion"))?;
        let limit = query.number("limit")?.unwrap_or(0);
        let limit = usize::try_from(limit).map_err(|_| Failure::bad_request("limit: must not be negative"))?;
        let token = query.get("continue");
        let exact = match query.get("resourceVersionMatch") {
            "" | "NotOlderThan" => false,
            "Exact" => true,
            other => return Err(Failure::bad_request(format!("resourceVersionMatch: Unsupported value: {other:?}"))),
        };
        if !query.get("resourceVersionMatch").is_empty() && asked.is_none() {
            return Err(Failure::bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        let page = if token.is_empty() { None } else { Some(Continue::decode(token)?) };
        let view = self.view_at_least(page.as_ref().map_or(asked.unwrap_or(0), |p| p.revision)).await?;
        let past = match &page {
            Some(page) => Some(page.revision),
            // Kubernetes reads "exactly 0" as a mistake, and a limit with a version as exactly that version; we give the newest there,
            // which is never older.
            None if exact => Some(asked.filter(|r| *r > 0).ok_or_else(|| {
                Failure::bad_request(
                    "resourceVersionMatch: Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
                )
            })?),
            None => None,
        };
        let past = past.filter(|_| !mutant::on(Mutant::PageOfNow));
        let past = past.filter(|r| *r < view.revision());
        let revision = past.unwrap_or(view.revision());
        let undone = match past {
            None => BTreeMap::new(),
            Some(revision) => self.undone(selection, &view, revision)?,
        };
        let after = page.as_ref().map(|page| (page.namespace.as_str(), page.name.as_str()));
        let mut found = as_it_was(selection, &view, undone, after);
        let mut objects: Vec<Arc<Object>> = found.by_ref().take(if limit > 0 { limit } else { usize::MAX }).collect();
        let more = limit > 0 && found.next().is_some();
        // As in Kubernetes, not with a selector, where other stores could not know it. Counted once: each page would otherwise cost as
        // much as all of them.
        let counted = more && selection.labels.is_everything() && selection.fields.is_everything();
        let rest = match page.as_ref().and_then(|page| page.rest) {
            _ if !counted => None,
            Some(rest) => Some(rest.saturating_sub(objects.len())),
            None => Some(1 + found.count()),
        };
        if mutant::on(Mutant::PageOverlap)
            && let Some((namespace, name)) = after
            && let Some(again) = view.get(&Key::new(selection.kind, namespace, name))
        {
            objects.insert(0, again.clone());
        }
        let next = objects.last().filter(|_| more).map(|last| {
            let (namespace, name) = (last.key.namespace.to_string(), last.key.name.to_string());
            Continue { revision, namespace, name, rest }.encode()
        });
        Ok(Listing { revision, objects, next, remaining: rest })
    }

    /// What has to be undone in a view to see it as it was at a revision: for each object of the kind that was written since, what it was
    /// then.
    fn undone(
        &self,
        selection: &Selection,
        view: &View,
        revision: Revision,
    ) -> Result<BTreeMap<Name, Option<Arc<Object>>>, Failure> {
        let changes = self.store().changes_of(selection.kind, revision).map_err(|_| {
            Failure::expired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.")
        })?;
        let mut then = BTreeMap::new();
        for change in changes.into_iter().filter(|c| c.revision <= view.revision()) {
            // What stood before the first of them.
            then.entry((change.key.namespace, change.key.name)).or_insert(change.old);
        }
        Ok(then)
    }

    /// One object, in the words of `kind` and in the form that the client wants.
    pub(super) fn object_response(&self, code: u16, form: Form, kind: &'static Kind, object: &Object) -> Response<Body> {
        match form {
            Form::Objects => bytes_response(code, "application/json", shown(kind, object)),
            Form::Table { version, include } => {
                let metadata = json!({"resourceVersion": object.revision.to_string()});
                let mut table = table::head(kind, version, metadata, true);
                table["rows"] = vec![table::row(kind, object, version, include, self.now())].into();
                bytes_response(code, &form.content_type(false), table.to_string())
            }
            Form::Metadata { version } => {
                bytes_response(code, &form.content_type(false), table::partial(object.value(), version).to_string())
            }
            Form::Fields(ref fields) => {
                bytes_response(code, &form.content_type(false), table::part(&shown(kind, object), fields))
            }
        }
    }

    /// A tree of what would be stored, in the words of `kind` and in the form that the client wants.
    pub(super) fn value_response(&self, code: u16, form: Form, kind: &'static Kind, value: Value) -> Response<Body> {
        match form {
            Form::Objects => json_response(code, &kind.show(value)),
            Form::Table { version, include } => {
                let mut table = table::head(kind, version, json!({}), true);
                let cells = kind.cells(&value, self.now());
                let mut row = json!({"cells": cells});
                match include {
                    Include::None => {}
                    Include::Metadata => row["object"] = table::partial(value, version),
                    Include::Object => row["object"] = kind.show(value),
                }
                table["rows"] = json!([row]);
                bytes_response(code, &form.content_type(false), table.to_string())
            }
            Form::Metadata { version } => {
                bytes_response(code, &form.content_type(false), table::partial(value, version).to_string())
            }
            Form::Fields(ref fields) => {
                let json = kind.show(value).to_string();
                bytes_response(code, &form.content_type(false), table::part(json.as_bytes(), fields))
            }
        }
    }
}

/// An object's bytes in the words of `kind`: the stored ones, unless it is an alias.
pub(super) fn shown(kind: &'static Kind, object: &Object) -> Bytes {
    let as_it_is = match (&kind.alias, kind.custom) {
        (None, None) => true,
        (Some(_), _) => false,
        (None, Some(_)) => object.json().starts_with(format!("{{\"apiVersion\":\"{}\"", kind.api_version()).as_bytes()),
    };
    if as_it_is { object.json() } else { kind.show(object.value()).to_string().into() }
}

/// A list's body, made as it is sent: neither all of it at once in memory, nor others waiting until it is made.
fn splice(
    head: String,
    objects: Vec<Arc<Object>>,
    put: impl Fn(&Object, &mut Vec<u8>) + Send + 'static,
) -> impl Stream<Item = Piece> + Send + 'static {
    // What is still to be sent, and whether an object was.
    let begin = (Some((head, objects.into_iter(), put)), false);
    futures_util::stream::unfold(begin, |(state, mut some)| async move {
        let (head, mut objects, put) = state?;
        if some {
            tokio::task::yield_now().await;
        }
        let mut piece = Vec::with_capacity(PIECE + PIECE / 4);
        piece.extend_from_slice(head.as_bytes());
        while piece.len() < PIECE {
            let Some(object) = objects.next() else {
                piece.extend_from_slice(b"]}\n");
                return Some((Ok(piece.into()), (None, some)));
            };
            if some {
                piece.push(b',');
            }
            some = true;
            put(&object, &mut piece);
        }
        Some((Ok(piece.into()), (Some((String::new(), objects, put)), some)))
    })
}

/// A body that another task makes ahead of what is sent: what costs time to make is made while what was made before is encrypted.
fn ahead(pieces: impl Stream<Item = Piece> + Send + 'static) -> Body {
    let (made, sent) = tokio::sync::mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let mut pieces = std::pin::pin!(pieces);
        while let Some(piece) = pieces.next().await {
            // Nobody reads any more.
            if made.send(piece).await.is_err() {
                break;
            }
        }
    });
    Body::from_stream(futures_util::stream::unfold(sent, |mut sent| async { Some((sent.recv().await?, sent)) }))
}
