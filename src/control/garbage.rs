//! Carries `plan::garbage` to the store: dependents follow their owners, and owners that wait for their dependents are let go.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::keyed::{Cursor, Keys, News, Trouble};
use super::{Context, Loop, Next, write};
use crate::object::admit::Propagation;
use crate::object::custom::{Kinds, definitions};
use crate::object::{Key, Kind, Object};
use crate::plan::garbage::{FOREGROUND, Fate, ORPHAN, Owner, fate, waits};
use crate::store::{Conflict, Txn, View};

/// How many dependents are let go in one transaction.
const BATCH: usize = 64;

/// The loop for owner references.
#[derive(Default)]
pub(super) struct Garbage {
    cursor: Cursor,
    keys: Keys,
}

impl Garbage {
    fn notice(&mut self, view: &View, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        match (old, new) {
            (_, Some(new)) => {
                let news = old.is_none_or(|old| old.meta.owners != new.meta.owners || old.meta.uid != new.meta.uid);
                let begins = waits(&new.meta).is_some() && old.is_none_or(|old| waits(&old.meta).is_none());
                if (news && !new.meta.owners.is_empty()) || begins {
                    self.keys.add(new.key.clone());
                }
                if begins {
                    view.owned_by(&new.meta.uid).for_each(|o| self.keys.add(o.key.clone()));
                }
            }
            (Some(old), None) => view.owned_by(&old.meta.uid).for_each(|o| self.keys.add(o.key.clone())),
            (None, None) => {}
        }
        // Whoever waits for this one to go, or to belong to somebody else, looks again. A new object of the same name has another uid:
        // what the old one owned is without an owner.
        let Some(old) = old else { return };
        if new.is_none_or(|new| new.meta.uid != old.meta.uid || new.meta.owners != old.meta.owners) {
            for owner in old.meta.owners.iter().filter_map(|o| key_of(view, o, &old.key)) {
                if view.get(&owner).is_some_and(|o| waits(&o.meta).is_some()) {
                    self.keys.add(owner);
                }
            }
            if new.is_some_and(|new| new.meta.uid != old.meta.uid) {
                view.owned_by(&old.meta.uid).for_each(|o| self.keys.add(o.key.clone()));
            }
        }
    }
}

impl Loop for Garbage {
    fn name(&self) -> &'static str {
        "garbage"
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<Next, Conflict> {
        match self.cursor.news(cx.store) {
            News::Everything(view) => {
                for object in view.all().filter(|o| !o.meta.owners.is_empty() || waits(&o.meta).is_some()) {
                    self.keys.add(object.key.clone());
                }
            }
            News::Changes(changes) => {
                let view = cx.store.view();
                for change in &changes {
                    self.notice(&view, change.old.as_ref(), change.new.as_ref());
                }
            }
        }
        self.keys.run("garbage", cx.now, |key| look(cx, key).map(|()| None))
    }
}

/// The key of an owner, seen from a dependent. `None`: of a kind that is not known here, or a namespaced owner of something that is in
/// no namespace.
fn key_of(view: &View, owner: &OwnerReference, dependent: &Key) -> Option<Key> {
    let defined = || Kinds::established(view.list(definitions())).of(&owner.api_version, &owner.kind);
    let kind = Kind::of(&owner.api_version, &owner.kind).or_else(defined)?.stored();
    let namespace = if kind.namespaced { &*dependent.namespace } else { "" };
    (!kind.namespaced || !namespace.is_empty()).then(|| Key::new(kind, namespace, &owner.name))
}

fn look(cx: &mut Context<'_>, key: &Key) -> Result<(), Trouble> {
    let view = cx.store.view();
    let Some(object) = view.get(key).cloned() else { return Ok(()) };
    match waits(&object.meta) {
        Some(ORPHAN) => let_go(cx, &view, &object)?,
        Some(FOREGROUND) => after_dependents(cx, &view, &object)?,
        _ => {}
    }
    if object.meta.owners.is_empty() || object.meta.deleting() {
        return Ok(());
    }
    let mut txn = Txn::new();
    let found: Vec<Owner> = object
        .meta
        .owners
        .iter()
        .map(|reference| {
            let Some(owner) = key_of(&view, reference, key) else { return Owner::Unknown };
            match view.get(&owner) {
                Some(o) if o.meta.uid == reference.uid => {
                    let waiting = waits(&o.meta) == Some(FOREGROUND);
                    if waiting { Owner::WaitsForUs } else { Owner::There }
                }
                other => {
                    // Read live, and still so when the deletion is written.
                    txn.expect(owner, other.map(|o| o.revision));
                    Owner::Gone
                }
            }
        })
        .collect();
    let has_dependents = view.owned_by(&object.meta.uid).next().is_some();
    match fate(&found, has_dependents) {
        Fate::Stay => return Ok(()),
        Fate::Forget(gone) => {
            let kept = object.meta.owners.iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, o)| o);
            let kept: Vec<&OwnerReference> = kept.collect();
            txn.update(with_owners(&object, &kept), object.revision);
        }
        Fate::Go { dependents_first } => {
            let propagation = dependents_first.then_some(Propagation::Foreground);
            write::delete(&mut txn, &object, None, propagation, cx.now);
        }
    }
    if !txn.is_empty() {
        cx.store.commit(txn)?;
    }
    Ok(())
}

fn with_owners(object: &Object, owners: &[&OwnerReference]) -> crate::object::Draft {
    write::edited(object, |value| {
        if owners.is_empty() {
            value["metadata"].as_object_mut().map(|meta| meta.remove("ownerReferences"));
        } else {
            value["metadata"]["ownerReferences"] = serde_json::to_value(owners).expect("owner references can be written");
        }
    })
}

/// An owner that orphans its dependents goes when none of them names it any more.
fn let_go(cx: &mut Context<'_>, view: &View, owner: &Object) -> Result<(), Trouble> {
    let dependents: Vec<&Arc<Object>> = view.owned_by(&owner.meta.uid).collect();
    for batch in dependents.chunks(BATCH) {
        let mut txn = Txn::new();
        for dependent in batch {
            let kept: Vec<&OwnerReference> = dependent.meta.owners.iter().filter(|o| o.uid != owner.meta.uid).collect();
            txn.update(with_owners(dependent, &kept), dependent.revision);
        }
        cx.store.commit(txn)?;
    }
    remove_finalizer(cx, owner, ORPHAN)
}

/// An owner whose dependents go first goes when none is left that blocks it.
fn after_dependents(cx: &mut Context<'_>, view: &View, owner: &Object) -> Result<(), Trouble> {
    let blocks = |o: &&Arc<Object>| o.meta.owners.iter().any(|r| r.uid == owner.meta.uid && r.block_owner_deletion == Some(true));
    if view.owned_by(&owner.meta.uid).any(|o| blocks(&o)) {
        return Ok(());
    }
    remove_finalizer(cx, owner, FOREGROUND)
}

fn remove_finalizer(cx: &mut Context<'_>, object: &Object, finalizer: &str) -> Result<(), Trouble> {
    let draft = write::edited(object, |value| {
        if let Some(finalizers) = value["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|f| f != finalizer);
            if finalizers.is_empty() {
                value["metadata"].as_object_mut().map(|meta| meta.remove("finalizers"));
            }
        }
    });
    let mut txn = Txn::new();
    write::write_or_remove(&mut txn, object, draft);
    cx.store.commit(txn)?;
    Ok(())
}
