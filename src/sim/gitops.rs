//! The auditor's ledger of releases: what was good, what was bad, and what must therefore never happen.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;

use super::Violation;
use super::author::Worth;
use super::chart::Git;
use crate::control::release::ASKED_FOR;
use crate::object::ours::{
    Application, ApplicationStatus, COMMIT_ANNOTATION, InventoryItem, OWNER_ANNOTATION, Purpose, Release, Rendering, Verdict,
};
use crate::object::{Key, Object, kind_of};
use crate::store::{Change, View};

/// What is known of releases from their records alone.
pub(super) struct Ledger {
    pub(super) now: Timestamp,
    pub(super) last_fault: Timestamp,
    /// When a container was last ended from outside.
    pub(super) last_kill: Timestamp,
    /// The release that was judged good last.
    good: Option<String>,
    /// Digests that were judged bad, and how often the house went back from them.
    bad: BTreeMap<String, u32>,
    /// A release was judged good before the word of its failure had arrived.
    pub(super) mistaken: bool,
    /// The newest trial began while some workload was not well: what it did not change does not count against it.
    unwell: bool,
    /// Digests that a rollout is in progress for, to see the beginning of each.
    rollout: Option<(String, Purpose)>,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger {
            now: Timestamp::UNIX_EPOCH,
            last_fault: Timestamp::UNIX_EPOCH,
            last_kill: Timestamp::UNIX_EPOCH,
            good: None,
            bad: BTreeMap::new(),
            mistaken: false,
            unwell: false,
            rollout: None,
        }
    }
}

fn broken(id: &'static str, what: impl Into<String>) -> Violation {
    Violation { id, what: what.into(), at: SignedDuration::ZERO }
}

impl Ledger {
    /// A crash may have taken back what was only in memory.
    pub(super) fn changed(
        &mut self,
        actor: &str,
        before: &View,
        after: &View,
        changes: &[Change],
        git: &Git,
        markers: &mut Vec<&'static str>,
    ) -> Result<(), Violation> {
        for change in changes {
            if change.key.kind == kind_of::<Release>() {
                self.release(change, before, git, markers)?;
            }
        }
        for change in changes {
            if change.key.kind == kind_of::<Application>() {
                self.application(change, after, markers)?;
            } else if actor == "release" {
                self.managed(change, before, after, git, markers)?;
            }
        }
        Ok(())
    }

    /// What a server that starts again reads. The auditor reads it anew, too: only what is on disk counts.
    pub(super) fn restart(&mut self, view: &View) {
        self.good = None;
        self.bad.clear();
        self.rollout = None;
        let mut releases: Vec<_> = view.list(kind_of::<Release>()).filter_map(|o| o.typed::<Release>().ok()).collect();
        releases.sort_by_key(|r| r.status.as_ref().and_then(|s| s.finished.as_ref()).map(|t| t.0));
        for release in releases {
            match release.status.as_ref().and_then(|s| s.verdict) {
                Some(Verdict::Good) => self.good = release.metadata.name.clone(),
                Some(Verdict::RolledBack | Verdict::Stuck) => *self.bad.entry(release.spec.digest.clone()).or_default() += 1,
                _ => {}
            }
        }
        if let Some(status) = root(view).and_then(|a| a.status.clone()) {
            self.rollout = status.rollout.map(|r| (r.release, r.purpose));
            if !status.last_good.is_empty() {
                self.good = Some(status.last_good);
            }
        }
    }

    fn release(&mut self, change: &Change, view: &View, git: &Git, markers: &mut Vec<&'static str>) -> Result<(), Violation> {
        let Some(release) = change.new.as_ref().and_then(|o| o.typed::<Release>().ok()) else { return Ok(()) };
        let verdict = release.status.as_ref().and_then(|s| s.verdict);
        let old = change.old.as_ref().and_then(|o| o.typed::<Release>().ok());
        let before = old.as_ref().and_then(|r| r.status.as_ref()).and_then(|s| s.verdict);
        let (name, digest) = (&*change.key.name, &release.spec.digest);
        if let Some(old) = &old
            && old.spec != release.spec
        {
            return Err(broken("GI12", format!("the record of {name} was changed")));
        }
        if let Some(before) = before
            && verdict != Some(before)
            && !matches!(
                (before, verdict),
                (Verdict::RolledBack, Some(Verdict::Stuck)) | (Verdict::Stuck, Some(Verdict::RolledBack))
            )
        {
            return Err(broken("GI12", format!("the verdict on {name} was {before:?} and is now {verdict:?}")));
        }
        if old.is_none() && verdict.is_none() {
            markers.push("trial");
            // A rollout that was under way hands on what it found, not what it broke.
            let resting = root(view).and_then(|a| a.status.clone()).is_none_or(|s| s.rollout.is_none());
            let unwell =
                |d: &Deployment| d.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0) < d.spec.replicas.unwrap_or(1);
            let mut deployments = view.list(kind_of::<Deployment>()).filter_map(|o| o.typed::<Deployment>().ok());
            self.unwell = resting && deployments.any(|d| unwell(&d));
            if self.bad.contains_key(digest) {
                return Err(broken("GI2", format!("{name} tries the digest {digest} again, which was judged bad")));
            }
        }
        if let (Some(Verdict::RolledBack), Some(Verdict::Stuck)) = (before, verdict) {
            markers.push("way back failed");
        }
        if before.is_some() || verdict.is_none() {
            return Ok(());
        }
        let worth = git.worth(&release.spec.commit);
        let evidence: BTreeSet<&str> = release.status.iter().flat_map(|s| &s.evidence).map(|e| e.reason.as_str()).collect();
        match verdict {
            Some(Verdict::Good) => {
                markers.push("good");
                // A host that was cut off, or a server that was away, may not have heard of a crash in time. Nobody can.
                let late = self.now.duration_since(self.last_fault) < SignedDuration::from_secs(60);
                if worth == Some(Worth::Bad) && (late || self.unwell) {
                    markers.push("good for want of news");
                    self.mistaken = true;
                } else if worth != Some(Worth::Good) && !(worth == Some(Worth::Empty) && self.good.is_none()) {
                    return Err(broken("RB9", format!("{name} was judged good and is {worth:?}")));
                }
                self.good = Some(name.to_owned());
            }
            Some(Verdict::RolledBack | Verdict::Stuck) => {
                markers.push(if verdict == Some(Verdict::Stuck) { "stuck" } else { "rolled back" });
                let times = self.bad.entry(digest.clone()).or_default();
                *times += 1;
                if *times > 1 {
                    return Err(broken("RB6", format!("the house went back from digest {digest} for the second time")));
                }
                // Only time can condemn what is not bad, and only while something else was wrong.
                let late = evidence.iter().all(|reason| *reason == "ProgressDeadlineExceeded");
                let faults = self.now.duration_since(self.last_fault) < SignedDuration::from_secs(240);
                // Who kills containers from outside looks like a container that crashes.
                let kills = self.now.duration_since(self.last_kill) < SignedDuration::from_secs(240);
                let crashed =
                    evidence.iter().all(|reason| ["CrashLoopBackOff", "Error", "ProgressDeadlineExceeded"].contains(reason));
                if worth == Some(Worth::Good) && !(late && faults) && !(crashed && kills) {
                    return Err(broken(
                        "GI3",
                        format!("{name} was condemned for {evidence:?}, and there is nothing wrong with it"),
                    ));
                }
            }
            Some(Verdict::Rejected) => {
                markers.push("rejected");
                if worth == Some(Worth::Good) && !evidence.is_empty() {
                    return Err(broken(
                        "GI3",
                        format!("{name} was rejected for {evidence:?}, and there is nothing wrong with it"),
                    ));
                }
            }
            Some(Verdict::Superseded) => markers.push("superseded"),
            None => {}
        }
        Ok(())
    }

    fn application(&mut self, change: &Change, view: &View, markers: &mut Vec<&'static str>) -> Result<(), Violation> {
        let Some(status) = change.new.as_ref().and_then(|o| o.typed::<Application>().ok()).and_then(|a| a.status.clone()) else {
            return Ok(());
        };
        if !status.last_good.is_empty() && self.good.as_ref() != Some(&status.last_good) {
            let what = format!("{:?} is called last good, and {:?} was judged good last", status.last_good, self.good);
            return Err(broken("RB2", what));
        }
        let rollout = status.rollout.as_ref().map(|r| (r.release.clone(), r.purpose));
        if rollout == self.rollout {
            return Ok(());
        }
        if let Some((release, purpose)) = &rollout {
            match purpose {
                Purpose::Back => {
                    markers.push("way back");
                    if self.good.as_ref() != Some(release) {
                        return Err(broken("RB2", format!("the way back leads to {release}, and {:?} was good last", self.good)));
                    }
                }
                Purpose::Return => markers.push("return"),
                Purpose::Trial | Purpose::Pin => {}
            }
            let key = Key::of::<Release>(&change.key.namespace, release);
            let digest = view.get(&key).and_then(|o| o.typed::<Release>().ok()).map(|r| r.spec.digest.clone());
            let again = digest.filter(|d| *purpose == Purpose::Trial && self.bad.contains_key(d));
            if let Some(digest) = again {
                return Err(broken("GI2", format!("{release} applies the digest {digest} again, which was judged bad")));
            }
        }
        self.rollout = rollout;
        Ok(())
    }

    /// What the release loop did to an object that it manages.
    fn managed(
        &self,
        change: &Change,
        before: &View,
        after: &View,
        git: &Git,
        markers: &mut Vec<&'static str>,
    ) -> Result<(), Violation> {
        if ["Event", "Release", "Rendering"].contains(&change.key.kind.kind) {
            return Ok(());
        }
        if let Some(new) = &change.new {
            let commit = new.meta.annotations.get(COMMIT_ANNOTATION).map_or("", String::as_str);
            if git.worth(commit) == Some(Worth::Invalid)
                && change
                    .old
                    .as_ref()
                    .is_none_or(|o| o.meta.annotations.get(COMMIT_ANNOTATION).map(String::as_str) != Some(commit))
            {
                return Err(broken("GI4", format!("{} was written from a commit with mistakes", change.key)));
            }
        }
        let Some(old) = change.old.as_ref().filter(|o| !o.meta.deleting()) else { return Ok(()) };
        if change.new.as_ref().is_some_and(|o| !o.meta.deleting()) {
            return Ok(());
        }
        // Pods that only asked for an image never belonged to the release's objects.
        if old.meta.labels.contains_key(ASKED_FOR) {
            return Ok(());
        }
        markers.push("prune");
        self.pruned(old, before, after)
    }

    /// GI6: pruned is only what is in the inventory with this uid and not wanted any more.
    fn pruned(&self, old: &Object, before: &View, after: &View) -> Result<(), Violation> {
        let Some(status) = root(before).and_then(|a| a.status.clone()) else {
            return Err(broken("GI6", format!("{} was deleted for no Application", old.key)));
        };
        let listed = status.inventory.iter().find(|item| is(item, &old.key));
        if listed.is_none_or(|item| item.uid != old.meta.uid) {
            return Err(broken("GI6", format!("{} was pruned, and is not in the inventory with its uid", old.key)));
        }
        if !old.meta.annotations.contains_key(OWNER_ANNOTATION) {
            return Err(broken("GI6", format!("{} was pruned, and does not say that it is managed", old.key)));
        }
        let target = root(after).and_then(|a| a.status.clone()).unwrap_or(status);
        let Some(wanted) = contents(after, &target.target) else {
            return Err(broken("GI6", format!("{} was pruned for release {:?}, which is not there", old.key, target.target)));
        };
        if wanted.is_empty() {
            return Err(broken("GI6", format!("{} was pruned by a commit that says nothing", old.key)));
        }
        if wanted.contains_key(&old.key) {
            return Err(broken("GI6", format!("{} was pruned, and is wanted by {}", old.key, target.target)));
        }
        Ok(())
    }
}

fn is(item: &InventoryItem, key: &Key) -> bool {
    (item.kind.as_str(), item.namespace.as_str(), item.name.as_str()) == (key.kind.kind, &*key.namespace, &*key.name)
}

/// The root Application.
pub(super) fn root(view: &View) -> Option<std::sync::Arc<Application>> {
    let key = Key::of::<Application>(crate::object::ours::SYSTEM_NAMESPACE, super::world::ROOT);
    view.get(&key)?.typed::<Application>().ok()
}

/// Its status.
pub(super) fn status(view: &View) -> ApplicationStatus {
    root(view).and_then(|a| a.status.clone()).unwrap_or_default()
}

/// The objects of a release, from its record.
pub(super) fn contents(view: &View, release: &str) -> Option<BTreeMap<Key, serde_json::Value>> {
    let namespace = crate::object::ours::SYSTEM_NAMESPACE;
    let release = view.get(&Key::of::<Release>(namespace, release))?.typed::<Release>().ok()?;
    let mut all = BTreeMap::new();
    for piece in &release.spec.renderings {
        let piece = view.get(&Key::of::<Rendering>(namespace, piece))?.typed::<Rendering>().ok()?;
        for rendered in &piece.objects {
            all.insert(rendered.key()?, rendered.object.clone());
        }
    }
    Some(all)
}
