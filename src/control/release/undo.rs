//! What is undone of what other releases did, and the plan with that: on the way back, and on the way to a new release that comes before
//! a way back was at its end, or instead of one.
//!
//! Not here: which of them failed (`plan::sync::failed`), and what of theirs is deleted (`plan::sync`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::look::Pass;
use super::record::{Content, Note};
use super::{ReleaseLoop, record};
use crate::control::keyed::Trouble;
use crate::object::Key;
use crate::object::manifest::Manifest;
use crate::object::ours::{OWNER_ANNOTATION, Purpose, Verdict, release_name, release_number};
use crate::plan::sync::{self, SyncPlan, Undo};

impl ReleaseLoop {
    /// What a rollout would write, and the keys of what it wants to be there.
    ///
    /// That is more than the release's own objects: what was kept when the last good one was that and was changed since, and what a later
    /// release took over, become again what they were.
    pub(super) fn plan_for(
        &mut self,
        pass: &Pass<'_>,
        content: &Content,
        contents: &BTreeMap<String, Arc<Content>>,
        purpose: Purpose,
    ) -> Result<(SyncPlan, BTreeSet<Key>), Trouble> {
        let trial = purpose == Purpose::Trial;
        let mut wanted = content.wanted.clone();
        let back_to = matches!(purpose, Purpose::Back | Purpose::Return).then_some(content.number);
        let mut undo = Undo { back_to, ..Undo::default() };
        let between = content.number > release_number(&pass.status.last_good) + 1;
        let good = if trial && between { self.last_good(pass)? } else { None };
        // What was done after this release is undone.
        if let Some(from) = if trial { good.as_deref() } else { Some(content) } {
            let later = later(pass, from, content);
            // What is on its way out is not made again by a trial, which does not want it.
            let stays = |key: &Key| !trial || pass.view.get(key).is_some_and(|object| !object.meta.deleting());
            wanted.extend(from.kept.iter().filter(|w| later.contains(&w.key) && stays(&w.key)).cloned());
            undo.give_back = taken_over(pass, from, &later)?;
            undo.failed = sync::failed(&verdicts(pass, from.number, content.number));
        }
        let keys = wanted.iter().map(|w| &w.key).chain(undo.give_back.keys()).cloned().collect();
        let plan = self.plan_except(pass, &wanted, &content.commit, contents, &undo);
        if trial && plan.waves.is_empty() && wanted.len() > content.wanted.len() {
            // What was kept is as it was, and is not what this release wants.
            return Ok((self.plan_except(pass, &content.wanted, &content.commit, contents, &undo), keys));
        }
        Ok((plan, keys))
    }
}

/// What became of the releases between two.
fn verdicts(pass: &Pass<'_>, from: i64, to: i64) -> Vec<(i64, Option<Verdict>)> {
    let verdict = |number| {
        let release = record::release(&pass.view, &pass.object.key, &release_name(&pass.object.key.name, number));
        (number, release.and_then(|release| release.status.as_ref()?.verdict))
    };
    (from + 1..to).map(verdict).collect()
}

/// What releases after this one wrote last, as far as those before `to` did, which does not want it, and nobody else has it.
fn later(pass: &Pass<'_>, from: &Content, to: &Content) -> BTreeSet<Key> {
    let owner = pass.owner();
    let others = |key: &Key| {
        let live = pass.view.get(key);
        live.and_then(|live| live.meta.annotations.get(OWNER_ANNOTATION)).is_some_and(|by| *by != owner)
    };
    let items = pass.status.inventory.iter().map(|(key, item)| (key, release_number(&item.release)));
    let written = items.filter(|(_, number)| *number > from.number && *number != to.number).map(|(key, _)| key);
    written.filter(|key| !to.wants(key) && !others(key)).cloned().collect()
}

/// What later releases took over from nobody, as it was before they did.
fn taken_over(pass: &Pass<'_>, content: &Content, later: &BTreeSet<Key>) -> Result<BTreeMap<Key, Manifest>, Trouble> {
    let mut before = BTreeMap::new();
    if later.is_empty() {
        return Ok(before);
    }
    for (object, release) in record::releases(&pass.view, &pass.object.key) {
        if release.spec.number <= content.number {
            continue;
        }
        for noted in record::noted(&pass.view, &pass.object.key, &object.key.name, Note::Before)? {
            let kept = content.kept.iter().any(|w| w.key == noted.key);
            // What a release made anew is its own.
            let taken = pass.status.inventory.get(&noted.key).is_some_and(|item| item.created == 0);
            if taken && later.contains(&noted.key) && !kept {
                // What was given back and taken over again was noted again.
                before.insert(noted.key, noted.value);
            }
        }
    }
    Ok(before)
}
