//! What happens to an object when it is created, changed and deleted.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{Cause, Refused, validate};
use crate::object::quantity::Quantity;
use crate::object::{Draft, Kind, Object, Revision, custom};

/// What a new object gets that it cannot know itself.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// Its uid.
    pub uid: String,
    /// When it is created.
    pub now: Timestamp,
}

/// What happens to an object's dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The object goes at once, its dependents afterwards.
    Background,
    /// Its dependents go first.
    Foreground,
    /// Its dependents stay, without their owner reference.
    Orphan,
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds that a pod has to stop; its own `terminationGracePeriodSeconds` when absent.
    pub grace_seconds: Option<i64>,
    /// What happens to dependents; `Background` when absent.
    pub propagation: Option<Propagation>,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    /// Delete only this version.
    pub revision: Option<Revision>,
}

/// What a deletion does to the store.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant)] // one lives at a time, for the length of a request
pub enum Deletion {
    /// The object goes.
    Remove,
    /// The object stays until its finalizers or its grace have run out; this is its next version.
    Mark(Draft),
    /// It was being deleted already, and nothing new was asked for.
    Unchanged,
}

/// A precondition of a deletion that does not hold. The API answers 409 Conflict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDeleted {
    /// It is another object of the same name.
    #[error("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}")]
    Uid {
        /// The uid that was asked for.
        wanted: String,
        /// The uid that it has.
        found: String,
    },
    /// It has changed.
    #[error("Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {found}")]
    Revision {
        /// The version that was asked for.
        wanted: Revision,
        /// The version that it has.
        found: Revision,
    },
}

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Kubernetes counts the changes of a spec where a controller may report which one it has seen, and not in its oldest kinds.
fn counts_generation(kind: &Kind) -> bool {
    match (kind.group, kind.kind) {
        _ if kind.custom.is_some() => true,
        ("networking.k8s.io", "NetworkPolicy" | "IngressClass") | ("discovery.k8s.io", "EndpointSlice") => true,
        ("", "Namespace" | "Node" | "PersistentVolume" | "PersistentVolumeClaim" | "ResourceQuota" | "Service") => false,
        ("autoscaling", "HorizontalPodAutoscaler") => false,
        _ => kind.has("status"),
    }
}

/// The first version of a new object: name checked (or made from `generateName`), uid, creationTimestamp, generation 1, no status where
/// that is a subresource (a pod's is Pending, a namespace's Active; a node brings its own), defaults filled in, validated.
pub fn create(kind: &'static Kind, mut value: Value, stamp: &Stamp) -> Result<Draft, Refused> {
    let fields = object_of(&mut value);
    if kind.has("status") && !kind.is("", "Node") {
        fields.remove("status");
    }
    let meta = metadata_of(fields);
    for server_sets in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation", "resourceVersion"] {
        meta.remove(server_sets);
    }
    meta.insert("uid".to_owned(), stamp.uid.clone().into());
    meta.insert("creationTimestamp".to_owned(), time(stamp.now));
    if counts_generation(kind) {
        meta.insert("generation".to_owned(), 1.into());
    }
    if !has_text(meta, "name")
        && let Some(base) = meta.get("generateName").and_then(Value::as_str).filter(|b| !b.is_empty())
    {
        let name = generated_name(base, &stamp.uid);
        meta.insert("name".to_owned(), name.into());
    }
    if kind.is("batch", "Job") {
        job_selector(&mut value, &stamp.uid);
    }
    super::prepare(kind, &mut value);
    match (kind.group, kind.kind) {
        ("", "PersistentVolume" | "PersistentVolumeClaim") => value["status"] = json!({"phase": "Pending"}),
        ("", "Service") | ("networking.k8s.io", "Ingress") => value["status"] = json!({"loadBalancer": {}}),
        ("", "Pod") => value["status"] = json!({"phase": "Pending", "qosClass": qos_class(&value["spec"])}),
        ("", "Namespace") => {
            value["status"] = json!({"phase": "Active"});
            let spec = object_of(object_of(&mut value).entry("spec").or_insert_with(|| json!({})));
            let held = spec.get("finalizers").and_then(Value::as_array).is_some_and(|f| f.iter().any(|f| f == "kubernetes"));
            if !held {
                spec.insert("finalizers".to_owned(), json!(["kubernetes"]));
            }
        }
        _ => {}
    }
    refuse(kind, &value, validate::all(kind, &value, None))?;
    Ok(Draft::new(kind, value))
}

/// The next version of an object, or `None` when nothing changed.
///
/// Without `subresource` everything but the status is taken from `new`; with `status` only the status, with `binding` only a pod's
/// node, with `ephemeralcontainers` only those, with `finalize` only a namespace's finalizers; `scale` and others are like none. uid, creationTimestamp and deletionTimestamp
/// are kept, generation counts changes of the spec. Afterwards ask [`gone`]: taking the last finalizer away removes the object.
pub fn update(old: &Object, new: Value, subresource: Option<&str>, now: Timestamp) -> Result<Option<Draft>, Refused> {
    update_as(old.key.kind, old, new, subresource, now)
}

/// The same by the rules of a row that is newer than the one that the object was stored under: what is defined can be defined anew.
pub fn update_as(
    kind: &'static Kind,
    old: &Object,
    new: Value,
    subresource: Option<&str>,
    now: Timestamp,
) -> Result<Option<Draft>, Refused> {
    update_from(kind, old, &old.value(), new, subresource, now)
}

/// The same by somebody who has decoded the old version already.
pub fn update_from(
    kind: &'static Kind,
    old: &Object,
    before: &Value,
    new: Value,
    subresource: Option<&str>,
    _now: Timestamp,
) -> Result<Option<Draft>, Refused> {
    let mut after = match subresource {
        Some("status") => with_part(before, &new, &["status"]),
        Some("binding") => with_part(before, &new, &["spec", "nodeName"]),
        Some("ephemeralcontainers") => with_part(before, &new, &["spec", "ephemeralContainers"]),
        Some("finalize") => with_part(before, &new, &["spec", "finalizers"]),
        _ => whole(kind, before, new),
    };
    super::prepare(kind, &mut after);
    let mut causes = metadata_changes(&before["metadata"], &after["metadata"]);
    // The server's own part of the metadata.
    let old_meta = &before["metadata"];
    let meta = metadata_of(object_of(&mut after));
    for kept in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "name", "namespace"]
    {
        match old_meta.get(kept) {
            Some(value) => drop(meta.insert(kept.to_owned(), value.clone())),
            None => drop(meta.remove(kept)),
        }
    }
    meta.remove("selfLink");
    causes.extend(match subresource {
        Some("binding") => rebinding(before, &after),
        Some("status") => validate::status(kind, &after, before),
        Some("ephemeralcontainers") => validate::ephemeral_containers(&after, before),
        Some("finalize") => Vec::new(),
        _ => validate::all(kind, &after, Some(before)),
    });
    refuse(kind, &after, causes)?;
    if counts_generation(kind) && !same_wish(before, &after) {
        after["metadata"]["generation"] = (old.meta.generation + 1).into();
    }
    Ok(if same(before, &after) { None } else { Some(Draft::new(kind, after)) })
}

/// A job knows its pods by its uid, unless its author takes that on.
fn job_selector(job: &mut Value, uid: &str) {
    let name = job["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let Some(spec) = job.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if spec.get("manualSelector").is_some_and(|manual| manual == true) || !spec.get("template").is_some_and(Value::is_object) {
        return;
    }
    let generated = validate::batch::generated_labels(uid, &name);
    let (label, _) = &generated[0];
    let labels = metadata_of(object_of(&mut spec["template"])).entry("labels").or_insert_with(|| json!({}));
    for (label, value) in &generated {
        object_of(labels).entry(label.clone()).or_insert_with(|| value.as_str().into());
    }
    let selector = object_of(spec.entry("selector").or_insert_with(|| json!({})));
    let matched = object_of(selector.entry("matchLabels").or_insert_with(|| json!({})));
    matched.entry(label.clone()).or_insert_with(|| uid.into());
}

/// What a full update takes from the request, and what it keeps.
fn whole(kind: &Kind, before: &Value, mut new: Value) -> Value {
    let fields = object_of(&mut new);
    if kind.has("status") {
        match before.get("status") {
            Some(status) => drop(fields.insert("status".to_owned(), status.clone())),
            None => drop(fields.remove("status")),
        }
    }
    if kind.has("finalize") {
        fields.insert("spec".to_owned(), before["spec"].clone());
    }
    // What a client need not repeat.
    let meta = metadata_of(fields);
    for known in ["name", "namespace", "uid", "creationTimestamp"] {
        if !has_text(meta, known)
            && let Some(value) = before["metadata"].get(known)
        {
            meta.insert(known.to_owned(), value.clone());
        }
    }
    new
}

/// The old object with one part of the new one, and the new record of who wrote what.
fn with_part(before: &Value, new: &Value, path: &[&str]) -> Value {
    let mut after = before.clone();
    let wanted = path.iter().try_fold(new, |at, step| at.get(*step)).filter(|v| !v.is_null()).cloned();
    let (last, parents) = path.split_last().expect("a part has a path");
    let mut at = object_of(&mut after);
    for step in parents {
        at = object_of(at.entry(step.to_string()).or_insert_with(|| json!({})));
    }
    match wanted {
        Some(value) => drop(at.insert(last.to_string(), value)),
        None => drop(at.remove(*last)),
    }
    if let Some(managed) = new["metadata"].get("managedFields") {
        after["metadata"]["managedFields"] = managed.clone();
    }
    after
}

fn rebinding(before: &Value, after: &Value) -> Vec<Cause> {
    let (old, new) = (before["spec"]["nodeName"].as_str().unwrap_or(""), after["spec"]["nodeName"].as_str().unwrap_or(""));
    let why = if !before["metadata"]["deletionTimestamp"].is_null() {
        "pod is being deleted, cannot be assigned to a host".to_owned()
    } else if new.is_empty() {
        return vec![Cause {
            field: "spec.nodeName".to_owned(),
            reason: "FieldValueRequired",
            message: "Required value".to_owned(),
        }];
    } else if !old.is_empty() && old != new {
        format!("pod is already assigned to node {old:?}")
    } else {
        return Vec::new();
    };
    vec![Cause { field: "spec.nodeName".to_owned(), reason: "FieldValueForbidden", message: format!("Forbidden: {why}") }]
}

fn metadata_changes(old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for fixed in ["name", "namespace", "uid", "creationTimestamp"] {
        let (was, is) = (&old[fixed], &new[fixed]);
        if !is.is_null() && was != is && !(was.is_null() && is == "") {
            causes.push(Cause {
                field: format!("metadata.{fixed}"),
                reason: "FieldValueInvalid",
                message: format!("Invalid value: {is}: field is immutable"),
            });
        }
    }
    if !old["deletionTimestamp"].is_null() {
        let list =
            |meta: &Value| -> Vec<String> { meta["finalizers"].as_array().into_iter().flatten().map(Value::to_string).collect() };
        let had: BTreeSet<String> = list(old).into_iter().collect();
        let added: Vec<String> = list(new).into_iter().filter(|f| !had.contains(f)).collect();
        if !added.is_empty() {
            causes.push(Cause {
                field: "metadata.finalizers".to_owned(),
                reason: "FieldValueForbidden",
                message: format!(
                    "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.join(", ")
                ),
            });
        }
    }
    causes
}

/// Whether two versions wish for the same: everything but metadata and status.
fn same_wish(one: &Value, two: &Value) -> bool {
    same_but(one, two, &["metadata", "status", "apiVersion", "kind"])
}

/// Whether two objects have the same fields, some aside.
fn same_but(one: &Value, two: &Value, aside: &[&str]) -> bool {
    let fields = |v| Value::as_object(v).into_iter().flatten().filter(|(name, _)| !aside.contains(&name.as_str()));
    fields(one).count() == fields(two).count() && fields(one).all(|(name, value)| two.get(name) == Some(value))
}

/// Whether two versions are the same but for their revision and for the times at which managers wrote the same as before.
fn same(one: &Value, two: &Value) -> bool {
    let bare = |v: &Value| {
        let mut v = v["metadata"].clone();
        let meta = object_of(&mut v);
        meta.remove("resourceVersion");
        for entry in meta.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(entry) = entry.as_object_mut() {
                entry.remove("time");
            }
        }
        meta.retain(|_, v| !matches!(v, Value::Array(a) if a.is_empty()) && !matches!(v, Value::Object(m) if m.is_empty()));
        v
    };
    same_but(one, two, &["metadata", "apiVersion", "kind"]) && bare(one) == bare(two)
}

/// Whether a version that was made by [`update`] or [`delete`] is not to be stored, because it waited only to go: it is being deleted,
/// has no finalizers and no grace left. The caller then deletes the object.
pub fn gone(draft: &Draft) -> bool {
    if !draft.meta.deleting() || !draft.meta.finalizers.is_empty() {
        return false;
    }
    let value = draft.value();
    let no_grace = value["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0;
    no_grace && (!draft.key.kind.has("finalize") || value["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty))
}

/// What a request to delete an object leads to.
///
/// Pods that run somewhere get their grace; everything else goes at once, unless finalizers hold it. A deletion that was asked for
/// before is never undone or put off: only its grace may shrink.
pub fn delete(old: &Object, options: &DeleteOptions, now: Timestamp) -> Result<Deletion, NotDeleted> {
    if let Some(wanted) = options.uid.as_ref().filter(|uid| **uid != old.meta.uid) {
        return Err(NotDeleted::Uid { wanted: wanted.clone(), found: old.meta.uid.clone() });
    }
    if let Some(wanted) = options.revision.filter(|revision| *revision != old.revision) {
        return Err(NotDeleted::Revision { wanted, found: old.revision });
    }
    let kind = old.key.kind;
    let mut value = old.value();
    let mut finalizers = propagate(&old.meta.finalizers, options.propagation);
    // A definition waits for its objects, which somebody else takes away.
    if *kind == *custom::definitions() && !old.meta.deleting() && !finalizers.iter().any(|f| f == custom::CLEANUP) {
        finalizers.push(custom::CLEANUP.to_owned());
    }
    let finalizers_changed = finalizers != old.meta.finalizers;
    let held = !finalizers.is_empty()
        || (kind.has("finalize") && value["spec"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty()));
    let grace = graceful_seconds(&value, options);
    let meta = metadata_of(object_of(&mut value));
    if finalizers_changed {
        meta.insert("finalizers".to_owned(), finalizers.into());
    }
    if let Some(was) = old.meta.deletion_timestamp.as_ref() {
        let left = meta.get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
        // Asked again without a number, a pod keeps the grace that it has.
        let wanted = if options.grace_seconds.is_some() || grace == 0 { grace } else { left };
        if wanted == 0 && !held {
            return Ok(Deletion::Remove);
        }
        if wanted < left {
            let end = was.parse::<Timestamp>().unwrap_or(now);
            meta.insert("deletionTimestamp".to_owned(), time(end.saturating_sub(seconds(left - wanted)).unwrap_or(now)));
            meta.insert("deletionGracePeriodSeconds".to_owned(), wanted.into());
        } else if !finalizers_changed {
            return Ok(Deletion::Unchanged);
        }
        return Ok(Deletion::Mark(Draft::new(kind, value)));
    }
    if grace == 0 && !held {
        return Ok(Deletion::Remove);
    }
    meta.insert("deletionTimestamp".to_owned(), time(now.saturating_add(seconds(grace)).unwrap_or(now)));
    if kind.has("finalize") {
        let status = object_of(object_of(&mut value).entry("status").or_insert_with(|| json!({})));
        status.insert("phase".to_owned(), "Terminating".into());
    } else {
        meta.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
        if counts_generation(kind) {
            meta.insert("generation".to_owned(), (old.meta.generation + 1).into());
        }
    }
    Ok(Deletion::Mark(Draft::new(kind, value)))
}

/// How long an object may take to stop: only pods that were bound and have not ended.
fn graceful_seconds(value: &Value, options: &DeleteOptions) -> i64 {
    if value["kind"] != "Pod" || value["spec"]["nodeName"].as_str().is_none_or(str::is_empty) {
        return 0;
    }
    if matches!(value["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return 0;
    }
    match options.grace_seconds.or_else(|| value["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30) {
        // Kubernetes: a negative grace means "as short as it can be kept orderly".
        negative if negative < 0 => 1,
        grace => grace,
    }
}

fn propagate(finalizers: &[String], propagation: Option<Propagation>) -> Vec<String> {
    let Some(propagation) = propagation else { return finalizers.to_vec() };
    let wanted = match propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Orphan => Some(ORPHAN),
    };
    let ours = |f: &str| f == FOREGROUND || f == ORPHAN;
    let mut kept: Vec<String> = finalizers.iter().filter(|f| !ours(f) || Some(f.as_str()) == wanted).cloned().collect();
    if let Some(wanted) = wanted.filter(|w| kept.iter().all(|f| f != w)) {
        kept.push(wanted.to_owned());
    }
    kept
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by what the containers request and may use.
fn qos_class(spec: &Value) -> &'static str {
    let (mut guaranteed, mut anything) = (true, false);
    for container in ["containers", "initContainers"].iter().flat_map(|list| spec[*list].as_array().into_iter().flatten()) {
        for resource in ["cpu", "memory"] {
            let amount = |which: &str| {
                container["resources"][which][resource].as_str().and_then(|t| t.parse::<Quantity>().ok()).filter(|q| !q.is_zero())
            };
            let (limit, request) = (amount("limits"), amount("requests"));
            anything |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (anything, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// A base and five letters. Made from the uid, because that is the chance that the caller already gave us.
fn generated_name(base: &str, uid: &str) -> String {
    // No vowels and nothing that looks like something else: names should not turn into words.
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash =
        uid.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let base: String = base.chars().take(58).collect();
    let mut name = base;
    for _ in 0..5 {
        name.push(LETTERS[(hash % LETTERS.len() as u64) as usize] as char);
        hash /= LETTERS.len() as u64;
    }
    name
}

fn refuse(kind: &'static Kind, value: &Value, causes: Vec<Cause>) -> Result<(), Refused> {
    if causes.is_empty() {
        return Ok(());
    }
    Err(Refused { kind, name: value["metadata"]["name"].as_str().unwrap_or_default().to_owned(), causes })
}

fn time(at: Timestamp) -> Value {
    crate::object::time::seconds(at).into()
}

fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

fn object_of(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("just made")
}

fn metadata_of(fields: &mut Map<String, Value>) -> &mut Map<String, Value> {
    object_of(fields.entry("metadata").or_insert_with(|| json!({})))
}

fn has_text(fields: &Map<String, Value>, name: &str) -> bool {
    fields.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
