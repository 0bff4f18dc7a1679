//! What may enter the store: decoding against the schema, defaults, validation, and what happens to an object when it is created,
//! changed and deleted (uid, generation, status, grace).
//!
//! The API and the git path both come through here, so that a manifest means the same whichever way it arrives.

pub mod assign;
pub mod defaults;
mod lifecycle;
pub mod names;
pub mod validate;

use std::fmt;

use serde_json::Value;

pub use super::schema::shape::{Coerce, ShapeKind, ShapeProblem, Step, shape, show_path};
use super::{Kind, Object, custom};
pub use assign::{Around, assign};
pub use lifecycle::{
    DeleteOptions, Deletion, NotDeleted, Propagation, Stamp, create, delete, gone, update, update_as, update_from,
};

/// One thing that is wrong with an object, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Where: `spec.template.spec.containers[0].image`.
    pub field: String,
    /// Kubernetes' reason: `FieldValueRequired`, `FieldValueInvalid`, `FieldValueNotSupported`, `FieldValueDuplicate`,
    /// `FieldValueForbidden`, `FieldValueTypeInvalid`, `FieldValueNotFound`, `FieldValueTooLong`.
    pub reason: &'static str,
    /// What, as Kubernetes writes it, without the field: `Required value`, `Invalid value: "x": must be …`.
    pub message: String,
}

/// `spec.replicas: Invalid value: -1: must be greater than or equal to 0`.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// An object that may not be stored as it is. The API answers 422 Invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which kind it would be.
    pub kind: &'static Kind,
    /// Its name; empty when it has none.
    pub name: String,
    /// Everything that is wrong with it; at least one.
    pub causes: Vec<Cause>,
}

/// `Deployment.apps "web" is invalid: spec.selector: Required value`, as kubectl prints it.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.kind)?;
        if !self.kind.group.is_empty() {
            write!(f, ".{}", self.kind.group)?;
        }
        write!(f, " {:?} is invalid: ", self.name)?;
        match self.causes.as_slice() {
            [one] => one.fmt(f),
            many => {
                f.write_str("[")?;
                for (i, cause) in many.iter().enumerate() {
                    write!(f, "{}{cause}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
        }
    }
}

impl std::error::Error for Refused {}

/// Fills in what the author left out, as Kubernetes does, and writes quantities in their canonical form. Doing it twice changes nothing
/// more.
pub fn prepare(kind: &'static Kind, value: &mut Value) {
    defaults::canonical(super::schema::of(kind), value);
    (kind.default)(value);
    if let Some(version) = kind.version_of() {
        custom::values::defaults(&version.schema, value);
    }
}

/// Writes quantities in their canonical form and takes out nulls, and fills in nothing.
pub(in crate::object) fn canonical(kind: &'static Kind, value: &mut Value) {
    defaults::canonical(super::schema::of(kind), value);
}

/// What to say to whoever writes an object that is accepted and yet not all that its author may hope.
pub fn warnings(kind: &'static Kind, value: &Value) -> Vec<String> {
    match kind.version_of() {
        Some(version) => version.warning.iter().cloned().collect(),
        None if kind.group == custom::GROUP => custom::warnings(value),
        None => Vec::new(),
    }
}

/// Everything that is wrong with an object's meaning: metadata, then the kind's own rules, then (with `old`) what may not change.
pub fn problems(kind: &'static Kind, value: &Value, old: Option<&Object>) -> Vec<Cause> {
    let old = old.map(Object::value);
    validate::all(kind, value, old.as_ref())
}
