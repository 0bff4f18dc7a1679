//! Create, update, patch, delete.
//!
//! A write is planned from the version that was read and carries it; when that changed meanwhile, a write that named no version is
//! planned again a few times, one that did is answered with a conflict. It is acknowledged when it is on disk, except for kinds that
//! promise less.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use serde_json::{Value, json};

use super::auth::{Identity, Verb};
use super::body::{self, Parsed, WriteOptions, conform};
use super::failure::{Failure, json_response, success};
use super::path::{Query, Target};
use super::read::{Selection, version};
use super::table::Form;
use super::{Api, new_uid};
use crate::object::admit::{self, DeleteOptions, Deletion, Propagation, Stamp};
use crate::object::kind::Durability;
use crate::object::ours::SYSTEM_NAMESPACE;
use crate::object::patch::{self, PatchError, managed};
use crate::object::{Draft, Key, Kind, Object, custom};
use crate::store::{Committed, Conflict, ConflictKind, Txn};

/// How often a write is planned again because something changed in between. Agents and loops write often, each time briefly.
const TRIES: usize = 8;
/// The longest list of operations in a JSON patch: more is an attack on our memory (CVE-2019-1002100).
const PATCH_OPERATIONS: usize = 10_000;

/// The largest object, in bytes. Bodies are bounded, but patch after patch could add to what is there. (Kubernetes keeps half of that.)
const OBJECT_MAX: usize = body::BODY_MAX;

/// The parts of a write that are the same at every try.
pub(super) struct Ask<'a> {
    pub(super) identity: &'a Identity,
    pub(super) target: &'a Target,
    pub(super) query: &'a Query,
    pub(super) headers: &'a HeaderMap,
    pub(super) options: WriteOptions,
    pub(super) form: Form,
}

/// What a write makes of the object that it read.
#[allow(clippy::large_enum_variant)] // it lives for one write, and nearly always is the large one
pub(super) enum Next {
    Write(Draft),
    Unchanged,
    Remove,
}

impl<'a> Ask<'a> {
    pub(super) fn new(
        identity: &'a Identity,
        target: &'a Target,
        query: &'a Query,
        headers: &'a HeaderMap,
    ) -> Result<Self, Failure> {
        let options = WriteOptions::parse(query, headers)?;
        Ok(Ask { identity, target, query, headers, options, form: Form::negotiate(headers, query)? })
    }
    fn key(&self) -> Key {
        Key::new(self.target.kind.stored(), &self.target.namespace, &self.target.name)
    }
    fn subresource(&self) -> Option<&str> {
        Some(self.target.subresource.as_str()).filter(|s| !s.is_empty())
    }
    /// What was sent as a whole object, made to fit the kind and the path; and what its sender is warned of.
    fn whole(&self, Parsed { mut value, duplicates }: Parsed) -> Result<(Value, Vec<String>), Failure> {
        let kind = self.target.kind;
        check_type(kind, &value)?;
        let mut warnings = conform(kind, &mut value, &duplicates, self.options.validation)?;
        warnings.extend(admit::warnings(kind, &value));
        place(self.target, &mut value)?;
        Ok((value, warnings))
    }
}

impl Api {
    /// Commits, and waits for the disk unless the kind does not ask for it.
    pub(super) async fn commit(&self, kind: &'static Kind, txn: Txn) -> Result<Result<Committed, Conflict>, Failure> {
        match self.store().commit(txn) {
            Ok(committed) => {
                if kind.durability == Durability::Synced {
                    self.until_durable(committed.revision).await?;
                }
                Ok(Ok(committed))
            }
            Err(Conflict { kind: ConflictKind::Stopped, .. }) => Err(Failure::unavailable("the server is stopping")),
            Err(conflict) => Ok(Err(conflict)),
        }
    }

    /// Answers with an object and with warnings.
    fn answer(&self, code: u16, ask: &Ask<'_>, object: &Object, warnings: &[String]) -> Response<Body> {
        let mut response = self.object_response(code, ask.form.clone(), ask.target.kind, object);
        warn(&mut response, warnings);
        response
    }

    /// The answer to a dry run: what would be stored.
    fn would(&self, code: u16, ask: &Ask<'_>, draft: &Draft, old: Option<&Object>, warnings: &[String]) -> Response<Body> {
        let mut value = draft.value();
        match old {
            Some(old) => value["metadata"]["resourceVersion"] = old.revision.to_string().into(),
            None => {
                if let Some(metadata) = value["metadata"].as_object_mut() {
                    metadata.remove("resourceVersion");
                }
            }
        }
        let mut response = self.value_response(code, ask.form.clone(), ask.target.kind, value);
        warn(&mut response, warnings);
        response
    }

    pub(super) async fn create(&self, ask: &Ask<'_>, bytes: &Bytes) -> Result<Response<Body>, Failure> {
        let (value, warnings) = ask.whole(body::parse(ask.headers, bytes)?)?;
        if value["metadata"]["resourceVersion"].as_str().is_some_and(|r| !r.is_empty()) {
            return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
        }
        self.insert(ask, ask.target.kind.store(value), &warnings, true).await
    }

    /// Stores a new object. `track`: its fields are recorded as the manager's (an apply has done that already).
    async fn insert(&self, ask: &Ask<'_>, value: Value, warnings: &[String], track: bool) -> Result<Response<Body>, Failure> {
        let kind = ask.target.kind.rules();
        self.open_definition(kind)?;
        let given_name = value["metadata"]["name"].as_str().unwrap_or("").to_owned();
        for _ in 0..TRIES {
            let now = self.now();
            let mut value = value.clone();
            if kind.group == "certificates.k8s.io" {
                self.prepare_request(ask.identity, &mut value)?;
            }
            if track {
                managed::track(kind, None, &mut value, &ask.options.manager, managed::Operation::Update, None, now);
            } else {
                admit::prepare(kind, &mut value);
            }
            let uid = new_uid();
            admit::assign(kind, &mut value, None, &uid, &self.store().view()).map_err(|r| Failure::invalid(&r))?;
            let draft = admit::create(kind, value, &Stamp { uid, now }).map_err(|r| Failure::invalid(&r))?;
            check_size(None, &draft)?;
            self.check_write(ask.identity, ask.target, None, &draft)?;
            let mut txn = Txn::new();
            if kind.namespaced {
                let namespace = self.open_namespace(kind, &draft.key)?;
                txn.expect(namespace.key.clone(), Some(namespace.revision));
            }
            let name = draft.key.name.clone();
            if ask.options.dry_run {
                if self.store().get(&draft.key).is_some() {
                    return Err(Failure::already_exists(kind, &name));
                }
                return Ok(self.would(201, ask, &draft, None, warnings));
            }
            txn.create(draft);
            match self.commit(kind, txn).await? {
                Ok(committed) => return Ok(self.answer(201, ask, &committed.objects[0], warnings)),
                // A made-up name may collide: make up another one.
                Err(conflict) if conflict.key.kind == kind && conflict.kind == ConflictKind::Exists => {
                    if !given_name.is_empty() {
                        return Err(Failure::already_exists(kind, &given_name));
                    }
                }
                Err(_) => {}
            }
        }
        Err(Failure::conflict(
            kind,
            &given_name,
            "it could not be created: its namespace keeps changing, or names made of generateName are taken",
        ))
    }

    /// Refuses new objects of a kind whose definition is going away.
    fn open_definition(&self, kind: &'static Kind) -> Result<(), Failure> {
        let name = format!("{}.{}", kind.plural, kind.group);
        let definition = |_| self.store().get(&Key::new(custom::definitions(), "", &name));
        match kind.custom.and_then(definition).is_some_and(|definition| definition.meta.deleting()) {
            true => Err(Failure::definition_terminating(kind)),
            false => Ok(()),
        }
    }

    /// The namespace that a new object goes into, which must be there and must not be on its way out.
    fn open_namespace(&self, kind: &'static Kind, key: &Key) -> Result<Arc<Object>, Failure> {
        let namespaces = Kind::of("v1", "Namespace").expect("there are namespaces");
        let namespace = self
            .store()
            .get(&Key::new(namespaces, "", &key.namespace))
            .ok_or_else(|| Failure::not_found(namespaces, &key.namespace))?;
        // Events tell why it does not go; Kubernetes refuses them too.
        if namespace.meta.deleting() {
            return Err(Failure::terminating(kind, &key.name, &key.namespace));
        }
        Ok(namespace)
    }

    /// Reads, lets `plan` decide, writes; again when something changed in between and `again` allows it.
    pub(super) async fn change(
        &self,
        ask: &Ask<'_>,
        again: bool,
        plan: impl Fn(&Arc<Object>) -> Result<(Next, Vec<String>), Failure>,
    ) -> Result<Result<(Arc<Object>, Vec<String>), Box<Response<Body>>>, Failure> {
        let kind = ask.target.kind;
        for _ in 0..if again { TRIES } else { 1 } {
            let old = match self.store().get(&ask.key()) {
                Some(old) => old,
                None => self.find(ask.target).await?,
            };
            let (next, warnings) = plan(&old)?;
            let mut txn = Txn::new();
            match next {
                Next::Unchanged => {
                    self.until_durable(old.revision).await?;
                    return Ok(Ok((old, warnings)));
                }
                Next::Write(draft) => {
                    check_size(Some(&old), &draft)?;
                    self.check_write(ask.identity, ask.target, Some(&old), &draft)?;
                    if ask.options.dry_run {
                        return Ok(Err(Box::new(self.would(200, ask, &draft, Some(&old), &warnings))));
                    }
                    if admit::gone(&draft) {
                        txn.delete(old.key.clone(), Some(old.revision));
                    } else {
                        txn.update(draft, old.revision);
                    }
                }
                Next::Remove => {
                    if ask.options.dry_run {
                        return Ok(Ok((old, warnings)));
                    }
                    txn.delete(old.key.clone(), Some(old.revision));
                }
            }
            match self.commit(kind, txn).await? {
                Ok(committed) => return Ok(Ok((committed.objects[0].clone(), warnings))),
                Err(conflict) if conflict.kind == ConflictKind::Missing => {
                    return Err(Failure::not_found(kind, &ask.target.name));
                }
                Err(_) => tokio::task::yield_now().await,
            }
        }
        Err(Failure::modified(kind, &ask.target.name))
    }

    async fn changed(
        &self,
        ask: &Ask<'_>,
        again: bool,
        plan: impl Fn(&Arc<Object>) -> Result<(Next, Vec<String>), Failure>,
    ) -> Result<Response<Body>, Failure> {
        Ok(match self.change(ask, again, plan).await? {
            Ok((object, warnings)) => self.answer(200, ask, &object, &warnings),
            Err(response) => *response,
        })
    }

    pub(super) async fn update(&self, ask: &Ask<'_>, bytes: &Bytes) -> Result<Response<Body>, Failure> {
        let (value, warnings) = ask.whole(body::parse(ask.headers, bytes)?)?;
        let named = version(value["metadata"]["resourceVersion"].as_str().unwrap_or(""))?.filter(|r| *r > 0);
        let value = ask.target.kind.store(value);
        self.changed(ask, named.is_none(), |old| {
            check_version(old, named)?;
            check_uid(old, &value)?;
            Ok((self.next_version(ask, old, &old.value(), value.clone())?, warnings.clone()))
        })
        .await
    }

    /// The version that follows `old`, which is `before`, when a client wants `wanted`: defaults, ownership of fields, rules.
    fn next_version(&self, ask: &Ask<'_>, old: &Arc<Object>, before: &Value, mut wanted: Value) -> Result<Next, Failure> {
        let now = self.now();
        let (kind, subresource) = (ask.target.kind.rules(), ask.subresource());
        managed::track(kind, Some(before), &mut wanted, &ask.options.manager, managed::Operation::Update, subresource, now);
        if subresource.is_none() {
            self.assign(old, before, &mut wanted)?;
        }
        match admit::update_from(kind, old, before, wanted, subresource, now).map_err(|r| Failure::invalid(&r))? {
            Some(draft) => Ok(Next::Write(draft)),
            None => Ok(Next::Unchanged),
        }
    }

    /// Gives the next version of an object what it shares with no other.
    fn assign(&self, old: &Object, before: &Value, wanted: &mut Value) -> Result<(), Failure> {
        let chance = format!("{} {}", old.meta.uid, old.revision);
        admit::assign(old.key.kind, wanted, Some(before), &chance, &self.store().view()).map_err(|r| Failure::invalid(&r))
    }

    pub(super) async fn patch(&self, ask: &Ask<'_>, bytes: &Bytes) -> Result<Response<Body>, Failure> {
        let kind = ask.target.kind;
        let sort = body::media_type(ask.headers);
        if sort == "application/apply-patch+yaml" {
            return self.apply(ask, bytes).await;
        }
        let Parsed { value: patch, duplicates } = match sort.as_str() {
            "application/json-patch+json" | "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
                body::json(bytes)?
            }
            other => return Err(Failure::unsupported(other, PATCHES)),
        };
        // Our own kinds have no strategic merge in Kubernetes' sense, as custom resources have none.
        if sort == "application/strategic-merge-patch+json" && (kind.group == crate::object::ours::GROUP || kind.custom.is_some())
        {
            return Err(Failure::unsupported(
                &sort,
                &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"],
            ));
        }
        if patch.as_array().is_some_and(|operations| operations.len() > PATCH_OPERATIONS) {
            return Err(Failure::too_large(PATCH_OPERATIONS));
        }
        let named = version(patch["metadata"]["resourceVersion"].as_str().unwrap_or(""))?.filter(|r| *r > 0);
        self.changed(ask, named.is_none(), |old| {
            let before = old.value();
            let in_other_words = kind.alias.is_some().then(|| kind.show(before.clone()));
            let shown = in_other_words.as_ref().unwrap_or(&before);
            let patched = match sort.as_str() {
                "application/json-patch+json" => patch::json_patch(shown, &patch),
                "application/merge-patch+json" => patch::merge_patch(shown, &patch),
                _ => patch::strategic(kind, shown, &patch),
            };
            let mut value = patched.map_err(|e| match e {
                PatchError::Malformed(why) => Failure::bad_request(why),
                PatchError::NotApplicable(why) => Failure::unprocessable(why),
            })?;
            let mut warnings = conform(kind, &mut value, &duplicates, ask.options.validation)?;
            warnings.extend(admit::warnings(kind, &value));
            check_type(kind, &value)?;
            place(ask.target, &mut value)?;
            // A patch that says nothing of the version carries the one that it was applied to.
            check_version(old, version(value["metadata"]["resourceVersion"].as_str().unwrap_or(""))?.filter(|r| *r > 0))?;
            check_uid(old, &value)?;
            Ok((self.next_version(ask, old, &before, kind.store(value))?, warnings))
        })
        .await
    }

    /// Server-side apply: creates, or takes over what the configuration names.
    async fn apply(&self, ask: &Ask<'_>, bytes: &Bytes) -> Result<Response<Body>, Failure> {
        let (kind, options) = (ask.target.kind, &ask.options);
        if !options.manager_given {
            return Err(Failure::bad_request(
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ));
        }
        let (config, warnings) = ask.whole(body::yaml(bytes)?)?;
        if !config["metadata"]["managedFields"].is_null() {
            return Err(Failure::bad_request("metadata.managedFields must be nil"));
        }
        let named = version(config["metadata"]["resourceVersion"].as_str().unwrap_or(""))?.filter(|r| *r > 0);
        let (config, kind) = (kind.store(config), kind.rules());
        let applied = |old: Option<&Value>| {
            patch::apply::apply(kind, old, &config, &options.manager, options.force, self.now())
                .map_err(|conflicts| Failure::apply_conflicts(&conflicts))
        };
        for _ in 0..TRIES {
            if self.store().get(&ask.key()).is_none() {
                if ask.subresource().is_some() {
                    return Err(Failure::not_found(kind, &ask.target.name));
                }
                self.authorize(ask.identity, Verb::Create, ask.target, ask.query)?;
                if named.is_some() {
                    return Err(Failure::modified(kind, &ask.target.name));
                }
                match self.insert(ask, applied(None)?, &warnings, false).await {
                    Err(failure) if failure.reason == "AlreadyExists" => continue,
                    other => return other,
                }
            }
            let done = self
                .changed(ask, named.is_none(), |old| {
                    check_version(old, named)?;
                    check_uid(old, &config)?;
                    let before = old.value();
                    let mut value = applied(Some(&before))?;
                    admit::prepare(kind, &mut value);
                    if ask.subresource().is_none() {
                        self.assign(old, &before, &mut value)?;
                    }
                    let next = admit::update_from(kind, old, &before, value, ask.subresource(), self.now());
                    Ok(match next.map_err(|r| Failure::invalid(&r))? {
                        Some(draft) => (Next::Write(draft), warnings.clone()),
                        None => (Next::Unchanged, warnings.clone()),
                    })
                })
                .await;
            match done {
                Err(failure) if failure.reason == "NotFound" => {}
                other => return other,
            }
        }
        Err(Failure::modified(kind, &ask.target.name))
    }

    pub(super) async fn delete(&self, ask: &Ask<'_>, bytes: &Bytes) -> Result<Response<Body>, Failure> {
        let kind = ask.target.kind;
        let (options, dry_run) = delete_options(ask, bytes)?;
        let ask = &Ask {
            options: WriteOptions { dry_run: ask.options.dry_run || dry_run, ..ask.options.clone() },
            form: ask.form.clone(),
            ..*ask
        };
        let (object, removed) = self.remove(ask, &options).await?;
        Ok(match removed {
            // A pod is answered with itself: clients that wait for it want its uid and its grace.
            true if !kind.is("", "Pod") => json_response(200, &success(kind, &ask.target.name, &object.meta.uid)),
            _ => self.object_response(200, ask.form.clone(), kind, &object),
        })
    }

    /// Deletes, or begins to. Returns the last version, and whether it is gone.
    pub(super) async fn remove(&self, ask: &Ask<'_>, options: &DeleteOptions) -> Result<(Arc<Object>, bool), Failure> {
        let kind = ask.target.kind;
        let name = ask.target.name.as_str();
        if kind.is("", "Namespace") && matches!(name, "default" | "kube-system" | SYSTEM_NAMESPACE) {
            return Err(Failure::forbidden(kind, name, "this namespace may not be deleted"));
        }
        let plan = |old: &Arc<Object>| {
            let mut options = options.clone();
            // Nobody runs it, or nobody runs it any more: there is nothing to wait for.
            let idle = || old.field("spec.nodeName").is_empty() || old.ended();
            if kind.is("", "Pod") && idle() {
                options.grace_seconds = Some(0);
            }
            let next = match admit::delete(old, &options, self.now()).map_err(|e| Failure::not_deleted(kind, name, &e))? {
                Deletion::Remove => Next::Remove,
                Deletion::Mark(draft) => Next::Write(draft),
                Deletion::Unchanged => Next::Unchanged,
            };
            Ok((next, Vec::new()))
        };
        match self.change(ask, options.revision.is_none(), plan).await? {
            Ok((object, _)) => {
                let still = self.store().get(&object.key).is_some_and(|now| now.meta.uid == object.meta.uid);
                Ok((object, !still))
            }
            Err(_) => Ok((self.find(ask.target).await?, false)),
        }
    }

    pub(super) async fn delete_collection(&self, ask: &Ask<'_>, bytes: &Bytes) -> Result<Response<Body>, Failure> {
        let kind = ask.target.kind;
        let (options, dry_run) = delete_options(ask, bytes)?;
        let listing = self.listing(&Selection::parse(ask.target, ask.query)?, ask.query).await?;
        let mut items: Vec<Value> = Vec::new();
        for object in &listing.objects {
            let target =
                Target { namespace: object.key.namespace.to_string(), name: object.key.name.to_string(), ..ask.target.clone() };
            let dry_run = ask.options.dry_run || dry_run;
            let one =
                Ask { target: &target, options: WriteOptions { dry_run, ..ask.options.clone() }, form: ask.form.clone(), ..*ask };
            match self.remove(&one, &options).await {
                Ok((object, _)) => items.push(kind.show(object.value())),
                // Somebody else was faster.
                Err(failure) if failure.reason == "NotFound" => {}
                Err(failure) => return Err(failure),
            }
        }
        let list = json!({
            "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": listing.revision.to_string()}, "items": items,
        });
        Ok(json_response(200, &list))
    }
}

/// Media types of patches.
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

pub(super) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings.iter().take(20) {
        let text: String = warning.chars().take(256).filter(|c| !c.is_control()).flat_map(char::escape_default).collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{}\"", text.replace("\\\\", "\\"))) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}

/// Refuses an object of another type than the path names. An object that does not say is of the path's type.
fn check_type(kind: &Kind, value: &Value) -> Result<(), Failure> {
    let text = |name: &str| value[name].as_str().unwrap_or("").to_owned();
    let (found_version, found_kind) = (text("apiVersion"), text("kind"));
    if !found_version.is_empty() && found_version != kind.api_version() {
        return Err(Failure::bad_request(format!(
            "the API version in the data ({found_version}) does not match the expected API version ({})",
            kind.api_version()
        )));
    }
    if !found_kind.is_empty() && found_kind != kind.kind {
        return Err(Failure::bad_request(format!(
            "the kind in the data ({found_kind}) does not match the expected kind ({})",
            kind.kind
        )));
    }
    Ok(())
}

/// Makes sure that an object is where the path says, and puts it there if it does not say.
fn place(target: &Target, value: &mut Value) -> Result<(), Failure> {
    let kind = target.kind;
    value["apiVersion"] = kind.api_version().into();
    value["kind"] = kind.kind.into();
    if !value["metadata"].is_object() {
        value["metadata"] = json!({});
    }
    let metadata = &mut value["metadata"];
    let name = metadata["name"].as_str().unwrap_or("");
    if !target.name.is_empty() {
        if name.is_empty() {
            metadata["name"] = target.name.as_str().into();
        } else if name != target.name {
            return Err(Failure::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                target.name
            )));
        }
    }
    let namespace = metadata["namespace"].as_str().unwrap_or("");
    if kind.namespaced && namespace.is_empty() {
        metadata["namespace"] = target.namespace.as_str().into();
    } else if namespace != target.namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// Refuses to keep what is too large. What is too large already may shrink, and may go.
fn check_size(old: Option<&Object>, new: &Draft) -> Result<(), Failure> {
    match new.size() > OBJECT_MAX && !new.meta.deleting() && old.is_none_or(|old| new.size() >= old.size()) {
        true => Err(Failure::too_large(OBJECT_MAX)),
        false => Ok(()),
    }
}

fn check_version(old: &Object, named: Option<u64>) -> Result<(), Failure> {
    match named {
        Some(named) if named != old.revision => Err(Failure::modified(old.key.kind, &old.key.name)),
        _ => Ok(()),
    }
}

fn check_uid(old: &Object, wanted: &Value) -> Result<(), Failure> {
    match wanted["metadata"]["uid"].as_str().filter(|u| !u.is_empty()) {
        Some(uid) if uid != old.meta.uid => {
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", old.meta.uid);
            Err(Failure::conflict(old.key.kind, &old.key.name, &why))
        }
        _ => Ok(()),
    }
}

/// Options of a deletion: from the body, and from the query where the body says nothing. Also whether the body asks for a dry run.
fn delete_options(ask: &Ask<'_>, bytes: &Bytes) -> Result<(DeleteOptions, bool), Failure> {
    let value = if bytes.is_empty() { json!({}) } else { body::parse(ask.headers, bytes)?.value };
    parse_delete_options(&value, ask.query)
}

/// The same from a tree.
pub(super) fn parse_delete_options(value: &Value, query: &Query) -> Result<(DeleteOptions, bool), Failure> {
    if !(value.is_object() || value.is_null()) {
        return Err(Failure::bad_request("the body of a delete request must be DeleteOptions"));
    }
    let grace_seconds = match value["gracePeriodSeconds"].as_i64() {
        Some(seconds) => Some(seconds),
        None => query.number("gracePeriodSeconds")?,
    };
    if grace_seconds.is_some_and(|seconds| seconds < 0) {
        return Err(Failure::unprocessable("gracePeriodSeconds: Invalid value: must be greater than or equal to 0"));
    }
    let word = value["propagationPolicy"].as_str().unwrap_or(query.get("propagationPolicy"));
    let orphan = value["orphanDependents"].as_bool().unwrap_or(query.flag("orphanDependents"));
    let propagation = match word {
        "" if orphan => Some(Propagation::Orphan),
        "" => None,
        "Background" => Some(Propagation::Background),
        "Foreground" => Some(Propagation::Foreground),
        "Orphan" => Some(Propagation::Orphan),
        other => {
            return Err(Failure::unprocessable(format!(
                "propagationPolicy: Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
            )));
        }
    };
    let preconditions = &value["preconditions"];
    let options = DeleteOptions {
        grace_seconds,
        propagation,
        uid: preconditions["uid"].as_str().map(str::to_owned),
        revision: version(preconditions["resourceVersion"].as_str().unwrap_or(""))?,
    };
    let dry_run = value["dryRun"].as_array().is_some_and(|runs| !runs.is_empty());
    Ok((options, dry_run))
}
