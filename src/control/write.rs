//! How loops write: each only the fields that are its own, everything else kept byte for byte as it was read.

use jiff::Timestamp;
use k8s_openapi::Resource;
use serde::Serialize;
use serde_json::Value;

use super::Context;
use crate::object::admit::{self, DeleteOptions, Deletion, Propagation, Refused, Stamp};
use crate::object::{Draft, Object, kind_of};
use crate::store::Txn;

/// The object with another status.
pub(super) fn with_status<T: Serialize>(old: &Object, status: &T) -> Draft {
    edited(old, |value| set_status(value, status))
}

/// Replaces the status of an object's tree.
pub(super) fn set_status<T: Serialize>(value: &mut Value, status: &T) {
    value["status"] = serde_json::to_value(status).expect("a status can be written");
}

/// The object with a change that does not touch its spec.
pub(super) fn edited(old: &Object, change: impl FnOnce(&mut Value)) -> Draft {
    let mut value = old.value();
    change(&mut value);
    Draft::new(old.key.kind, value)
}

/// The object with a changed spec: its generation counts one more.
pub(super) fn respecified(old: &Object, change: impl FnOnce(&mut Value)) -> Draft {
    edited(old, |value| {
        change(value);
        value["metadata"]["generation"] = (old.meta.generation + 1).into();
    })
}

/// A new object, through the same door as everybody else's.
pub(super) fn new_object<K: Resource + Serialize>(cx: &mut Context<'_>, typed: &K) -> Result<Draft, Refused> {
    let mut value = serde_json::to_value(typed).expect("a typed object can be written");
    let stamp = Stamp { uid: cx.ids.uid(), now: cx.now };
    admit::assign(kind_of::<K>(), &mut value, None, &stamp.uid, &cx.store.view())?;
    admit::create(kind_of::<K>(), value, &stamp)
}

/// Asks for an object to be deleted, if it is still the version that was read. Says whether that is news.
pub(super) fn delete(txn: &mut Txn, old: &Object, grace: Option<i64>, propagation: Option<Propagation>, now: Timestamp) -> bool {
    let options =
        DeleteOptions { grace_seconds: grace, propagation, uid: Some(old.meta.uid.clone()), revision: Some(old.revision) };
    match admit::delete(old, &options, now) {
        Ok(Deletion::Remove) => {
            txn.delete(old.key.clone(), Some(old.revision));
            true
        }
        Ok(Deletion::Mark(draft)) => {
            txn.update(draft, old.revision);
            true
        }
        // The preconditions are what was just read, so the second cannot happen.
        Ok(Deletion::Unchanged) | Err(_) => false,
    }
}

/// Writes a new version, or removes the object when that version waited for nothing any more.
pub(super) fn write_or_remove(txn: &mut Txn, old: &Object, draft: Draft) {
    if admit::gone(&draft) {
        txn.delete(old.key.clone(), Some(old.revision));
    } else {
        txn.update(draft, old.revision);
    }
}
