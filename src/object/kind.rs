//! What is known about a kind: one row each, from which routing, discovery, schemas, tables, defaults and validation derive.
//!
//! The rows themselves are in [`rows`](KINDS): to add a kind, add a row. How a kind behaves is not here: controllers are in `plan` and
//! `control`.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use schemars::{Schema, SchemaGenerator};
use serde_json::Value;

use super::admit::Cause;
use super::columns::Column;
use super::custom::Custom;
pub(in crate::object) use rows::PLAIN;
pub use rows::{KINDS, MEASURED};

mod rows;

/// One row: everything that the rest of the house needs to know about a kind.
pub struct Kind {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The served and stored version.
    pub version: &'static str,
    /// The kind as manifests write it: `Deployment`.
    pub kind: &'static str,
    /// The plural in paths: `deployments`.
    pub plural: &'static str,
    /// The singular that kubectl accepts: `deployment`.
    pub singular: &'static str,
    /// Short names: `deploy`.
    pub short: &'static [&'static str],
    /// Categories: `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Subresources beside the object itself.
    pub subresources: &'static [&'static str],
    /// Dotted paths that field selectors may name, beside `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [&'static str],
    /// When a write of this kind is acknowledged.
    pub durability: Durability,
    /// What the type looks like.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    /// Fills in what the author left out, as Kubernetes does.
    pub default: fn(&mut Value),
    /// What is wrong with an object (and, on update, with the change from the old one).
    pub validate: fn(&Value, Option<&Value>) -> Vec<Cause>,
    /// The columns of `kubectl get`.
    pub columns: &'static [Column],
    /// What does not happen to objects of this kind yet, as the rest of a sentence that says that they are stored; empty when all does.
    pub idle: &'static str,
    /// Whose objects these are in other words; `None` for a kind that is stored as it is served.
    pub alias: Option<Alias>,
    /// What a definition in the cluster says of it; `None` for the kinds of this program.
    pub custom: Option<&'static Custom>,
}

/// How a row that stores nothing of its own shows another row's objects: the same things in another group or version.
///
/// The fields that can be selected by are the same in both rows, in the same order, under each row's own names.
#[derive(Clone, Copy)]
pub struct Alias {
    /// `apiVersion` of the row that stores. Its kind has the same name.
    pub of: &'static str,
    /// From this row's words to the stored ones. Leaves `apiVersion` to the caller.
    pub store: fn(&mut Value),
    /// From the stored words to this row's. Leaves `apiVersion` to the caller.
    pub show: fn(&mut Value),
}

/// The group of what is measured.
pub const METRICS: &str = "metrics.k8s.io";

/// The group of roles and bindings.
pub const RBAC: &str = "rbac.authorization.k8s.io";

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After it is on disk.
    Synced,
    /// At once; it reaches the disk within a second, with the next group. For heartbeats and events, which Kubernetes does not promise
    /// to keep either.
    Lazy,
}

impl Kind {
    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
    /// `deployments.apps`, or `pods` for the core group: what messages and `-o name` say.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }
    /// Whether the kind has this subresource.
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.contains(&subresource)
    }
    /// Whether it is measured when somebody asks, and stored nowhere.
    pub fn measured(&self) -> bool {
        MEASURED.iter().any(|row| std::ptr::eq(row, self))
    }
    /// The row under which objects of this one are stored: itself, unless it is an [`Alias`] or another version of a defined kind.
    pub fn stored(&'static self) -> &'static Kind {
        match &self.alias {
            None => self.custom.and_then(|custom| custom.stored).unwrap_or(self),
            Some(alias) => Kind::of(alias.of, self.kind).expect("an alias names a row that is there"),
        }
    }
    /// The row by whose rules an object in this row's words is admitted: versions of a defined kind have rules of their own, an alias has
    /// those of the row that stores.
    pub fn rules(&'static self) -> &'static Kind {
        if self.custom.is_some() { self } else { self.stored() }
    }
    /// Turns an object in this row's words into what is stored.
    pub fn store(&'static self, mut value: Value) -> Value {
        if let Some(alias) = &self.alias {
            (alias.store)(&mut value);
            value["apiVersion"] = alias.of.into();
        } else if self.custom.is_some() {
            // Versions of a defined kind differ in nothing else: there is no conversion.
            value["apiVersion"] = self.stored().api_version().into();
        }
        value
    }
    /// Turns a stored object into this row's words.
    pub fn show(&'static self, mut value: Value) -> Value {
        if let Some(alias) = &self.alias {
            (alias.show)(&mut value);
        }
        if self.alias.is_some() || self.custom.is_some() {
            value["apiVersion"] = self.api_version().into();
        }
        value
    }
    /// The rows under which objects are stored: all but the aliases.
    pub fn all_stored() -> impl Iterator<Item = &'static Kind> {
        KINDS.iter().filter(|kind| kind.alias.is_none())
    }
    /// Whether this is the kind of that name in that group: others may have a kind of the same name.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }
    /// The row for a manifest's `apiVersion` and `kind`.
    pub fn of(api_version: &str, kind: &str) -> Option<&'static Kind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        KINDS.iter().find(|k| k.group == group && k.version == version && k.kind == kind)
    }
    /// The row for an object's own `apiVersion` and `kind`.
    pub fn of_value(value: &Value) -> Option<&'static Kind> {
        Kind::of(value["apiVersion"].as_str()?, value["kind"].as_str()?)
    }
    /// The row for a path's group, version and plural.
    pub fn of_path(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        KINDS.iter().find(|k| k.group == group && k.version == version && k.plural == plural)
    }
    /// The row for what a person types: plural, singular, short name or kind, with or without `.group`.
    pub fn of_word(word: &str) -> Option<&'static Kind> {
        let word = word.to_ascii_lowercase();
        let (name, group) = word.split_once('.').map_or((word.as_str(), None), |(n, g)| (n, Some(g)));
        KINDS.iter().find(|k| {
            group.is_none_or(|g| g == k.group)
                && (k.plural == name || k.singular == name || k.short.contains(&name) || k.kind.eq_ignore_ascii_case(name))
        })
    }
}

/// The row of a Rust type.
///
/// # Panics
/// If the type has no row: a mistake in this program, found by the first test that touches the type.
pub fn kind_of<K: k8s_openapi::Resource>() -> &'static Kind {
    KINDS
        .iter()
        .find(|k| k.group == K::GROUP && k.kind == K::KIND)
        .unwrap_or_else(|| panic!("no row in KINDS for {}/{}", K::API_VERSION, K::KIND))
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || (self.group, self.plural) == (other.group, other.plural)
    }
}
impl Eq for Kind {}
impl Ord for Kind {
    fn cmp(&self, other: &Self) -> Ordering {
        // Nearly always it is the same row: keys of one kind are compared in every map.
        if std::ptr::eq(self, other) {
            return Ordering::Equal;
        }
        (self.group, self.plural).cmp(&(other.group, other.plural))
    }
}
impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.group, self.plural).hash(state);
    }
}
impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource())
    }
}
