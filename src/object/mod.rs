//! What an object is.
//!
//! An [`Object`] is one immutable version of one thing in the cluster: its canonical JSON bytes, the few fields that every reader needs
//! without decoding, and the typed value, decoded once for all who ask within moments. A [`Draft`] is a version that the store has not
//! numbered yet.
//!
//! [`KINDS`](kind::KINDS) has one row per kind, and everything else about kinds derives from it: routing, discovery, schemas, tables,
//! defaults and validation.
//!
//! You will not find here: input or output, async code, or a clock. Whoever needs the time passes it in.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod admit;
mod alias;
pub mod alike;
pub mod columns;
pub mod cron;
pub mod custom;
pub mod decoded;
pub mod fields;
pub mod inventory;
pub mod kind;
pub mod manifest;
pub mod ours;
pub mod patch;
pub mod quantity;
pub mod rules;
pub mod schema;
pub mod selector;
mod sieve;
pub mod source;
pub mod stream;
mod text;
pub mod time;
mod written;

#[cfg(test)]
pub(crate) mod robust;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, LazyLock, OnceLock};

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::count;

use alike::{Packed, Texts};
use fields::Fields;
pub use kind::{KINDS, Kind, kind_of};
pub use text::Packer;
use text::Text;
use written::unmanaged;

/// The store's counter: one more for every committed write. `resourceVersion` is its decimal form.
pub type Revision = u64;

/// Names one object: kind, namespace (empty for cluster-scoped kinds) and name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The row of `KINDS`.
    pub kind: &'static Kind,
    /// The namespace; empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// The name, unique in kind and namespace.
    pub name: Arc<str>,
}

impl Key {
    /// A key from its parts.
    pub fn new(kind: &'static Kind, namespace: &str, name: &str) -> Self {
        Key { kind, namespace: namespace.into(), name: name.into() }
    }
    /// The key of a typed object's kind: `Key::of::<Pod>("default", "web-1")`.
    pub fn of<K: k8s_openapi::Resource>(namespace: &str, name: &str) -> Self {
        Key::new(kind_of::<K>(), namespace, name)
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        // Keys are copied rather than made again, and of ten thousand that are looked at each text is somewhere else in memory.
        let text = |a: &Arc<str>, b: &Arc<str>| if Arc::ptr_eq(a, b) { Ordering::Equal } else { a.cmp(b) };
        let namespace = || text(&self.namespace, &other.namespace);
        self.kind.cmp(other.kind).then_with(namespace).then_with(|| text(&self.name, &other.name))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// `deployments.apps shop/web`, as people name things in messages.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind.resource())?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The part of `metadata` that readers need without decoding the whole object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    /// `metadata.uid`: unique over all time.
    pub uid: String,
    /// `metadata.generation`: counts changes of the spec.
    pub generation: i64,
    /// `metadata.labels`.
    pub labels: Arc<Texts>,
    /// `metadata.annotations`.
    pub annotations: Arc<Texts>,
    /// `metadata.ownerReferences`.
    pub owners: Arc<Vec<OwnerReference>>,
    /// `metadata.finalizers`.
    pub finalizers: Vec<String>,
    /// `metadata.deletionTimestamp`, as written; present while an object waits to go.
    pub deletion_timestamp: Option<String>,
    /// `metadata.creationTimestamp`, as written.
    pub creation_timestamp: Option<String>,
    /// Values of the kind's selectable fields (`Kind::selectable`), in that order; absent fields are empty.
    pub fields: Packed,
    /// What this object holds that no other object may hold (`address 10.96.0.9`). The store sees to that.
    pub claims: Vec<String>,
}

impl Meta {
    /// The owner that controls this object, if any.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owners.iter().find(|o| o.controller == Some(true))
    }
    /// The same if it is of this kind. Another group may have a kind of the same name.
    pub fn controller_of<K: k8s_openapi::Resource>(&self) -> Option<&OwnerReference> {
        let group = |owner: &OwnerReference| owner.api_version.split_once('/').map_or("", |(group, _)| group) == K::GROUP;
        self.controller().filter(|owner| owner.kind == K::KIND && group(owner))
    }
    /// Whether deletion has been asked for.
    pub fn deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// What has to be there of an object to [`Meta::read`] it, and to know which object it is.
    fn wanted(kind: &Kind) -> &'static sieve::Wanted {
        const METADATA: &[&str] = &[
            "metadata.name",
            "metadata.namespace",
            "metadata.resourceVersion",
            "metadata.uid",
            "metadata.generation",
            "metadata.labels",
            "metadata.annotations",
            "metadata.ownerReferences",
            "metadata.finalizers",
            "metadata.deletionTimestamp",
            "metadata.creationTimestamp",
        ];
        let of = |kind: &Kind| {
            let selectable = kind.selectable.iter().chain(admit::assign::reads(kind)).copied();
            sieve::Wanted::paths(METADATA.iter().copied().chain(selectable))
        };
        // Only rows of the program are asked for.
        static WANTED: LazyLock<Vec<OnceLock<sieve::Wanted>>> = LazyLock::new(|| KINDS.iter().map(|_| OnceLock::new()).collect());
        let place = KINDS.iter().position(|known| std::ptr::eq(known, kind)).expect("a row of KINDS");
        WANTED[place].get_or_init(|| of(kind))
    }

    fn read(kind: &Kind, value: &Value) -> Meta {
        let meta = &value["metadata"];
        let text = |name: &str| meta[name].as_str().map(str::to_owned);
        let map = |name: &str| {
            let entries = meta[name].as_object().into_iter().flatten();
            alike::texts(entries.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect())
        };
        Meta {
            uid: text("uid").unwrap_or_default(),
            generation: meta["generation"].as_i64().unwrap_or(0),
            labels: map("labels"),
            annotations: map("annotations"),
            owners: alike::owners(Vec::deserialize(&meta["ownerReferences"]).unwrap_or_default()),
            finalizers: Vec::deserialize(&meta["finalizers"]).unwrap_or_default(),
            deletion_timestamp: text("deletionTimestamp"),
            creation_timestamp: text("creationTimestamp"),
            fields: kind.selectable.iter().map(|path| field_text(value, path)).collect(),
            claims: admit::assign::claims(kind, value),
        }
    }
}

/// The value at a dotted path, as the text a field selector compares with.
fn field_text(value: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(value, |at, step| at.get(step));
    match found {
        Some(Value::String(s)) => s.clone(),
        Some(Value::Bool(b)) => b.to_string(),
        Some(Value::Number(n)) => n.to_string(),
        // `source` of an event is its component.
        Some(Value::Object(o)) => o.get("component").and_then(Value::as_str).unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
thread_local! {
    /// How often this thread decoded an object.
    pub(crate) static DECODED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// One immutable version of one object. Shared as `Arc<Object>`.
pub struct Object {
    /// Kind, namespace and name.
    pub key: Key,
    /// The revision that wrote this version.
    pub revision: Revision,
    /// What readers need without decoding.
    pub meta: Meta,
    text: Text,
    typed: Arc<decoded::Slot>,
}

impl Object {
    /// The canonical JSON: keys in order, `resourceVersion` included.
    pub fn json(&self) -> Bytes {
        self.text.json()
    }
    /// How many bytes of JSON it is.
    pub fn size(&self) -> usize {
        self.text.size()
    }
    /// How many bytes of JSON are in memory.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.text.held()
    }
    /// Lets its JSON take less room from now on. What it says stays the same.
    pub fn pack(&self, packer: &mut Packer) {
        packer.pack(&self.key, &self.text);
    }
    /// The value of a selectable field (`Kind::selectable`), without decoding; empty where the object or its kind does not have it.
    pub fn field(&self, path: &str) -> &str {
        let place = self.key.kind.selectable.iter().position(|s| *s == path);
        place.and_then(|place| self.meta.fields.get(place)).unwrap_or_default()
    }
    /// Whether this is a pod whose containers have ended for good, told without decoding it.
    pub fn ended(&self) -> bool {
        matches!(self.field("status.phase"), "Succeeded" | "Failed")
    }
    /// Whether this is a pod that takes a place, told without decoding it: it has not ended and nobody asked it to go.
    pub fn active(&self) -> bool {
        !self.meta.deleting() && !self.ended()
    }
    /// How often a container of this pod was restarted at most, told without decoding it.
    pub fn restarts(&self) -> i32 {
        written::restarts(&self.json())
    }
    /// The object as a JSON tree. Decodes anew at each call.
    pub fn value(&self) -> Value {
        #[cfg(test)]
        DECODED.set(DECODED.get() + 1);
        count::DECODES.add(1);
        serde_json::from_slice(&self.json()).expect("stored bytes were written by us")
    }
    /// The same without one of its fields, which is passed over: for a status that is large and that somebody replaces.
    pub fn value_without(&self, field: &'static str) -> Value {
        sieve::Wanted::but(field).of(&self.json()).expect("stored bytes were written by us")
    }
    /// The typed object, decoded once in a while and shared ([`decoded`]). An error names the object, so that one bad object cannot stop a loop.
    ///
    /// A typed pod or lease has no `managedFields`: there are very many, or they are written very often, and these fields would be most of
    /// what each takes. Who wants to know who wrote what reads [`Object::value`].
    pub fn typed<K: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<K>, DecodeError> {
        let known = match self.typed.get() {
            Some(known) => known,
            None => self.typed.keep(Arc::new(self.decode::<K>()?)),
        };
        Ok(known.downcast().expect("a kind is decoded as one type"))
    }
    /// The same for somebody who looks at very many objects, each once: what has to be decoded for that is not kept.
    pub fn glance<K: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<K>, DecodeError> {
        match self.typed.get() {
            Some(known) => Ok(known.downcast().expect("a kind is decoded as one type")),
            None => self.decode().map(Arc::new),
        }
    }
    /// Only these fields of it, typed: the others are as if nobody had set them, or there. For what is asked of very many objects.
    pub fn part<K: DeserializeOwned + Send + Sync + 'static>(&self, fields: &'static Fields) -> Result<Arc<K>, DecodeError> {
        let known = match self.typed.get().or_else(|| self.typed.part(fields)) {
            Some(known) => known,
            None => {
                count::DECODES.add(1);
                let (whole, mut part) = (self.json(), Vec::new());
                let part: K = match fields.cut(&whole, &mut part) {
                    true => serde_json::from_slice(&part).map_err(|source| self.refused(source))?,
                    false => self.decode()?,
                };
                self.typed.keep_part(fields, Arc::new(part))
            }
        };
        Ok(known.downcast().expect("a kind is decoded as one type"))
    }
    fn refused(&self, source: serde_json::Error) -> DecodeError {
        DecodeError { key: self.key.clone(), source: Arc::new(source) }
    }
    fn decode<K: DeserializeOwned>(&self) -> Result<K, DecodeError> {
        count::DECODES.add(1);
        let whole = self.json();
        let many = self.key.kind.is("", "Pod") || self.key.kind.is("coordination.k8s.io", "Lease");
        let json = if many { unmanaged(&whole) } else { Cow::Borrowed(&whole[..]) };
        serde_json::from_slice(&json).map_err(|source| self.refused(source))
    }
    /// The same content at a later revision: how an object that was deleted is shown for the last time.
    pub fn at(&self, revision: Revision) -> Object {
        const BEFORE: &[u8] = b"\"metadata\":{\"resourceVersion\":\"";
        let json = self.json();
        let start = json.windows(BEFORE.len()).position(|w| w == BEFORE).expect("a draft wrote it") + BEFORE.len();
        let end = start + json[start..].iter().position(|b| *b == b'"').expect("a draft wrote it");
        let json = [&json[..start], revision.to_string().as_bytes(), &json[end..]].concat();
        let text = Text::new(json.into());
        Object { key: self.key.clone(), revision, meta: self.meta.clone(), text, typed: Arc::default() }
    }
    /// An object from bytes that a store engine kept. Of a kind that is not in the program, `plural` is what paths call it: what its
    /// definition says is not known yet.
    pub fn from_json(json: Bytes, plural: &str) -> Result<Self, serde_json::Error> {
        // A store has very many of them, so no tree is built of what is not looked at.
        let (kind, value) = match written::kind(&json) {
            Some(kind) => (kind, Meta::wanted(kind).of(&json)?),
            None => {
                let value: Value = serde_json::from_slice(&json)?;
                let kind = match Kind::of_value(&value) {
                    Some(kind) => kind,
                    None => defined_kind(&value, plural).map_err(serde::de::Error::custom)?,
                };
                (kind, value)
            }
        };
        let revision = value["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok()).unwrap_or(0);
        let text = Text::new(json);
        Ok(Object { key: key_of(kind, &value), revision, meta: Meta::read(kind, &value), text, typed: Arc::default() })
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} @{}", self.key, self.revision)
    }
}

/// A stored object that its kind's type cannot hold.
#[derive(Clone, Debug, thiserror::Error)]
#[error("decode {key}")]
pub struct DecodeError {
    /// Which object.
    pub key: Key,
    /// What the decoder said.
    pub source: Arc<serde_json::Error>,
}

/// The row of a stored object whose kind somebody defined.
fn defined_kind(value: &Value, plural: &str) -> Result<&'static Kind, String> {
    let text = |name: &str| value[name].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if kind.is_empty() || !api_version.contains('/') {
        return Err(format!("unknown kind {}/{}", value["apiVersion"], value["kind"]));
    }
    let namespaced = !value["metadata"]["namespace"].is_null();
    custom::stored_row(api_version, kind, plural, namespaced).map_err(|full| full.to_string())
}

fn key_of(kind: &'static Kind, value: &Value) -> Key {
    let meta = &value["metadata"];
    let namespace = if kind.namespaced { meta["namespace"].as_str().unwrap_or("") } else { "" };
    Key::new(kind, namespace, meta["name"].as_str().unwrap_or(""))
}

/// A version that has no revision yet. Everything costly is done before the store takes its lock: only the revision is spliced in later.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Kind, namespace and name.
    pub key: Key,
    /// What readers need without decoding.
    pub meta: Meta,
    json: Vec<u8>,
    /// Where the revision's digits go.
    splice: usize,
}

impl Draft {
    /// A draft of a complete object. Sets `apiVersion` and `kind` from the row and drops any old `resourceVersion`.
    ///
    /// The bytes are `{"apiVersion":…,"kind":…,"metadata":{"resourceVersion":"`, the revision's digits, and the rest with its keys in
    /// order, so that the place of the digits is known without a search.
    pub fn new(kind: &'static Kind, value: Value) -> Self {
        Draft::with(kind, value, "", b"")
    }
    /// A draft of an object one field of which is written already: canonical JSON of a field that is not `metadata` and in which nothing
    /// is that the kind's fields are selected by. An empty name is no field.
    pub fn with(kind: &'static Kind, mut value: Value, ready: &str, written: &[u8]) -> Self {
        debug_assert!(ready.is_empty() || kind.selectable.iter().all(|path| path.split('.').next() != Some(ready)));
        let kind = kind.stored();
        value["apiVersion"] = kind.api_version().into();
        value["kind"] = kind.kind.into();
        let mut metadata = value["metadata"].take();
        if let Some(fields) = metadata.as_object_mut() {
            fields.remove("resourceVersion");
        } else {
            metadata = Value::Object(Default::default());
        }
        value["metadata"] = metadata;
        let mut json = Vec::with_capacity(512);
        json.extend_from_slice(b"{\"apiVersion\":");
        write(&mut json, &value["apiVersion"]);
        json.extend_from_slice(b",\"kind\":");
        write(&mut json, &value["kind"]);
        json.extend_from_slice(b",\"metadata\":{\"resourceVersion\":\"");
        let splice = json.len();
        json.push(b'"');
        for (name, field) in value["metadata"].as_object().into_iter().flatten() {
            write_name(&mut json, name);
            write(&mut json, field);
        }
        json.push(b'}');
        let mut ready = Some(ready).filter(|name| !name.is_empty());
        for (name, field) in value.as_object().into_iter().flatten() {
            if matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            if let Some(first) = ready.take_if(|ready| *ready <= name.as_str()) {
                write_name(&mut json, first);
                json.extend_from_slice(written);
                if first == name {
                    continue;
                }
            }
            write_name(&mut json, name);
            write(&mut json, field);
        }
        if let Some(last) = ready {
            write_name(&mut json, last);
            json.extend_from_slice(written);
        }
        json.push(b'}');
        Draft { key: key_of(kind, &value), meta: Meta::read(kind, &value), json, splice }
    }
    /// A draft of a typed object.
    pub fn of<K: k8s_openapi::Resource + Serialize>(typed: &K) -> Self {
        Draft::new(kind_of::<K>(), serde_json::to_value(typed).expect("a typed object can be written"))
    }
    /// The object that this draft becomes at a revision.
    pub fn seal(self, revision: Revision) -> Object {
        let digits = revision.to_string();
        let mut json = Vec::with_capacity(self.json.len() + digits.len());
        json.extend_from_slice(&self.json[..self.splice]);
        json.extend_from_slice(digits.as_bytes());
        json.extend_from_slice(&self.json[self.splice..]);
        Object { key: self.key, revision, meta: self.meta, text: Text::new(json.into()), typed: Arc::default() }
    }
    /// How many bytes it is long, but for its revision's digits.
    pub fn size(&self) -> usize {
        self.json.len()
    }
    /// The draft as a JSON tree (with an empty `resourceVersion`).
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.json).expect("we wrote it")
    }
}

/// Writes a value at the end of a text.
fn write(json: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(json, value).expect("a JSON tree can be written");
}

/// Writes what stands before a field's value that is not the first one.
fn write_name(json: &mut Vec<u8>, name: &str) {
    json.push(b',');
    write(json, name);
    json.push(b':');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_typed_pod_has_everything_but_its_managed_fields() {
        let text = "a \"managedFields\":[ b \\";
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"annotations": {"managedFields": text, text: "x"}, "name": "p", "uid": "u"},
            "spec": {"containers": [{"name": text}]},
        });
        let draft = |pod: &Value| Draft::new(Kind::of_value(pod).unwrap(), pod.clone()).seal(7);
        let typed = |pod: &Value| draft(pod).typed::<k8s_openapi::api::core::v1::Pod>().unwrap();
        let plain = typed(&pod);
        pod["metadata"]["managedFields"] =
            json!([{"manager": "m ]}\"\\", "fieldsV1": {"f:spec": {"k:{\"a\":\"]\"}": {}}}}, {"manager": "n"}]);
        assert_eq!(plain, typed(&pod));
        assert_eq!(plain.metadata.annotations.as_ref().unwrap()["managedFields"], text);
        assert_eq!(draft(&pod).value()["metadata"]["managedFields"].as_array().unwrap().len(), 2, "the object itself has them");
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}, "uid": "u"},
            "spec": {"nodeName": "h"}, "status": {"phase": "Failed"},
        });
        let written = Draft::new(Kind::of_value(&pod).unwrap(), pod).seal(7);
        let read = Object::from_json(written.json(), "").unwrap();
        assert_eq!((&read.key, read.revision, &read.meta), (&written.key, 7, &written.meta));
        assert!(read.ended());
        // In another order it is the same.
        let spec =
            br#"{"kind":"Pod","spec":{"nodeName":"h"},"metadata":{"uid":"u","resourceVersion":"7","name":"p","namespace":"n",
            "labels":{"a":"b"}},"status":{"phase":"Failed"},"apiVersion":"v1"}"#;
        let other = Object::from_json(Bytes::from_static(spec), "").unwrap();
        assert_eq!((&other.key, other.revision, &other.meta), (&written.key, 7, &written.meta));
    }
}
