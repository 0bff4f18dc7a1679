//! An Application that is deleted: its objects are let go, or deleted when its policy says so, and then it may go itself.
//!
//! Letting go is the default: a deletion takes all of an Application's objects at once, and whoever means that says so in git
//! (`policy.onDelete: prune`). Let go, they keep running, belong to nobody, and another Application may take them over: so a renamed
//! Application restarts nothing. It is not done silently: an event names them.

use std::sync::Arc;

use super::look::Pass;
use super::{ReleaseLoop, facts, images};
use crate::control::event::Severity;
use crate::control::keyed::Trouble;
use crate::control::write;
use crate::object::Key;
use crate::object::ours::{
    COMMIT_ANNOTATION, INVENTORY_FINALIZER, InventoryItem, ORIGIN_ANNOTATION, OWNER_ANNOTATION, OnDelete, Policy,
};
use crate::plan::sync::{self, Why};

impl ReleaseLoop {
    /// One step towards the end of an Application.
    pub(super) fn retire(&mut self, pass: &mut Pass<'_>) -> Result<(), Trouble> {
        let key = pass.object.key.clone();
        self.charts.forget(&key);
        if !pass.object.meta.finalizers.iter().any(|f| f == INVENTORY_FINALIZER) {
            return Ok(());
        }
        let trial = pass.status.trial.clone();
        images::forget(pass, &trial);
        let policy = &pass.spec().policy;
        if policy.on_delete == Some(OnDelete::Prune) {
            let plan = sync::sync(&sync::Input {
                application: &pass.owner(),
                commit: "",
                wanted: &[],
                live: &|key| pass.view.get(key).cloned(),
                inventory: &pass.status.inventory,
                last: &|_| None,
                policy: &Policy { allow_empty: Some(true), ..policy.clone() },
                undo: &Default::default(),
                settled: &Default::default(),
                claimed: &|_, _| false,
                heir: &|object| self.heir(&pass.view, &key, object),
            });
            if !plan.prune.is_empty() {
                self.prune(pass, &plan.prune);
                return Ok(());
            }
            if !plan.leaving.is_empty() {
                return Ok(()); // each of them wakes this loop when it is gone
            }
            let kept: Vec<_> = plan.kept.iter().filter(|k| !matches!(k.why, Why::Gone | Why::TakenOver(_))).collect();
            let names: Vec<String> = kept.iter().map(|k| format!("{} ({})", k.name, k.why)).collect();
            let inventory = std::mem::take(&mut pass.status.inventory);
            let stay = inventory.iter().filter(|(key, _)| kept.iter().any(|k| k.name.0 == **key));
            let_go(pass, stay);
            if !names.is_empty() {
                pass.say(Severity::Warning, "Orphaned", format!("not deleted: {}", names.join(", ")));
            }
        } else {
            let inventory = std::mem::take(&mut pass.status.inventory);
            let names = let_go(pass, inventory.iter());
            if !names.is_empty() {
                let message = format!("these keep running and belong to nobody (onDelete: orphan): {}", names.join(", "));
                pass.say(Severity::Warning, "Orphaned", message);
            }
        }
        let finalizers: Vec<&String> = pass.object.meta.finalizers.iter().filter(|f| *f != INVENTORY_FINALIZER).collect();
        let draft = write::edited(&pass.object, |value| value["metadata"]["finalizers"] = serde_json::json!(finalizers));
        write::write_or_remove(&mut pass.txn, &pass.object, draft);
        // The transaction writes the Application itself: its status has nothing more to say.
        pass.status = pass.application.status.clone().unwrap_or_default();
        Ok(())
    }
}

/// Takes our annotations off objects that are ours, in the look's transaction. Gives their names.
fn let_go<'i>(pass: &mut Pass<'_>, inventory: impl Iterator<Item = (&'i Key, &'i Arc<InventoryItem>)>) -> Vec<String> {
    let owner = pass.owner();
    let mut names = Vec::new();
    for (key, item) in inventory {
        let Some(live) = pass.view.get(key).cloned() else { continue };
        if live.meta.uid != item.uid || live.meta.annotations.get(OWNER_ANNOTATION) != Some(&owner) {
            continue;
        }
        let draft = write::edited(&live, |value| {
            if let Some(annotations) = value["metadata"]["annotations"].as_object_mut() {
                for name in [OWNER_ANNOTATION, COMMIT_ANNOTATION, ORIGIN_ANNOTATION] {
                    annotations.remove(name);
                }
            }
        });
        names.push(facts::name(&live.key));
        pass.txn.update(draft, live.revision);
    }
    names
}
