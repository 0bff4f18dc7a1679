//! The auditor's ledger of releases: what was good, what was bad, and what must therefore never happen.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::Violation;
use super::author::Worth;
use super::chart::Git;
use super::settle::differs;
use super::troubles::{ENOUGH, Troubles};
use super::world::{ANNEX, ROOT};
use crate::control::release::ASKED_FOR;
use crate::object::ours::{
    Application, ApplicationStatus, COMMIT_ANNOTATION, InventoryItem, OWNER_ANNOTATION, Phase, Pin, Purpose, Release, Rendering,
    Sync, Verdict,
};
use crate::object::{Key, Object, kind_of};
use crate::store::{Change, View};

/// The books of both Applications.
pub(super) struct Ledger {
    pub(super) troubles: Troubles,
    books: [Book; 2],
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger { troubles: Troubles::default(), books: [ROOT, ANNEX].map(Book::new) }
    }
}

impl Ledger {
    /// Looks at a step of the house.
    pub(super) fn changed(
        &mut self,
        actor: &str,
        before: &View,
        after: &View,
        changes: &[Change],
        git: &Git,
        markers: &mut Vec<&'static str>,
    ) -> Result<(), Violation> {
        let step = Step { actor, before, after, git, troubles: &self.troubles };
        self.books.iter_mut().try_for_each(|book| book.changed(&step, changes, markers))
    }

    /// What a server that starts again reads. The auditor reads it anew, too: only what is on disk counts.
    pub(super) fn restart(&mut self, view: &View) {
        self.books.iter_mut().for_each(|book| book.restart(view));
    }

    /// Whether the last good release was judged good before the word of its failure had arrived.
    pub(super) fn mistaken(&self) -> bool {
        self.books.iter().any(|book| book.mistaken.is_some())
    }
}

/// A step of the house.
struct Step<'a> {
    actor: &'a str,
    before: &'a View,
    after: &'a View,
    git: &'a Git,
    troubles: &'a Troubles,
}

/// What is known of one Application's releases from their records alone.
struct Book {
    application: &'static str,
    /// The release that was judged good last.
    good: Option<String>,
    /// Digests that were judged bad, and how often the house went back from them.
    bad: BTreeMap<String, u32>,
    /// The commit of the last good release, if that was judged good before the word of its failure had arrived.
    mistaken: Option<String>,
    /// Second tries that people asked for and got: the nonce, the digest, and when. What was judged before then counts no more.
    forgiven: Vec<(String, String, Timestamp)>,
    /// What is under way, to see the beginning of each rollout.
    rollout: Option<(String, Purpose)>,
}

fn broken(id: &'static str, what: impl Into<String>) -> Violation {
    Violation { id, what: what.into(), at: SignedDuration::ZERO }
}

impl Book {
    fn new(application: &'static str) -> Self {
        Book { application, good: None, bad: BTreeMap::new(), mistaken: None, forgiven: Vec::new(), rollout: None }
    }

    /// Whether a release or an object is this Application's.
    fn owns(&self, object: &Object) -> bool {
        let owner = object.meta.annotations.get(OWNER_ANNOTATION).and_then(|owner| owner.split_once('/'));
        match owner {
            Some((_, name)) => name == self.application,
            None if object.key.kind == kind_of::<Release>() => {
                object.key.name.rsplit_once('-').is_some_and(|(name, _)| name == self.application)
            }
            // What says nothing of an owner is asked about once.
            None => self.application == ROOT,
        }
    }

    fn changed(&mut self, step: &Step<'_>, changes: &[Change], markers: &mut Vec<&'static str>) -> Result<(), Violation> {
        // A second try that people asked for is granted and begun in one transaction: it is no longer bad when it begins.
        for change in changes {
            if change.key.kind == kind_of::<Application>() && &*change.key.name == self.application {
                self.forgive(change, step.troubles.now, markers);
            }
        }
        for change in changes {
            if change.key.kind == kind_of::<Release>() && self.owns(change.object()) {
                self.release(step, change, markers)?;
            }
        }
        for change in changes {
            if change.key.kind == kind_of::<Application>() {
                if &*change.key.name == self.application {
                    self.application(step, change, markers)?;
                }
            } else if step.actor == "release" && self.owns(change.object()) {
                self.managed(step, change, markers)?;
            }
        }
        Ok(())
    }

    fn status(&self, view: &View) -> Option<ApplicationStatus> {
        application(view, self.application)?.status.clone()
    }

    fn restart(&mut self, view: &View) {
        self.good = None;
        self.bad.clear();
        self.rollout = None;
        let mut releases: Vec<_> =
            view.list(kind_of::<Release>()).filter(|o| self.owns(o)).filter_map(|o| o.typed::<Release>().ok()).collect();
        releases.sort_by_key(|r| r.status.as_ref().and_then(|s| s.finished.as_ref()).map(|t| t.0));
        // A second try whose beginning was not on disk was not begun.
        let last = self.status(view).map(|s| s.retried_nonce).unwrap_or_default();
        let begun = self.forgiven.iter().position(|(nonce, _, _)| *nonce == last).map_or(0, |at| at + 1);
        self.forgiven.truncate(begun);
        for release in releases {
            let started = release.status.as_ref().and_then(|s| s.started.as_ref()).map(|t| t.0);
            let forgiven = |(_, digest, at): &(String, String, Timestamp)| {
                *digest == release.spec.digest && started.is_some_and(|started| started < *at)
            };
            match release.status.as_ref().and_then(|s| s.verdict) {
                Some(Verdict::Good) => self.good = release.metadata.name.clone(),
                Some(Verdict::RolledBack | Verdict::Stuck) if self.forgiven.iter().any(forgiven) => {}
                Some(Verdict::RolledBack | Verdict::Stuck) => *self.bad.entry(release.spec.digest.clone()).or_default() += 1,
                _ => {}
            }
        }
        if let Some(status) = self.status(view) {
            self.rollout = status.rollout.map(|r| (r.release, r.purpose));
            if !status.last_good.is_empty() {
                self.good = Some(status.last_good);
            }
        }
    }

    fn release(&mut self, step: &Step<'_>, change: &Change, markers: &mut Vec<&'static str>) -> Result<(), Violation> {
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
            self.may_begin(step, &release.spec.commit, name)?;
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
        let worth = if self.application == ROOT { step.git.worth(&release.spec.commit) } else { Some(Worth::Good) };
        let evidence: BTreeSet<&str> = release.status.iter().flat_map(|s| &s.evidence).map(|e| e.reason.as_str()).collect();
        let words = || {
            let pieces = release.status.iter().flat_map(|s| &s.evidence);
            pieces.map(|e| format!("{} {}: {}", e.reason, e.pod, e.message)).collect::<Vec<_>>().join(" | ")
        };
        match verdict {
            Some(Verdict::Good) => {
                markers.push("good");
                // What the mistaken release broke is excused for the next one, as everything is that was broken under the last good
                // release. What the next one breaks itself is not.
                let commit = &release.spec.commit;
                let inherited = self.mistaken.as_ref().is_some_and(|last| step.git.no_worse_than(commit, last));
                let mistaken = worth == Some(Worth::Bad) && (inherited || step.troubles.unheard(step.before));
                self.mistaken = mistaken.then(|| commit.clone());
                if mistaken {
                    markers.push("good for want of news");
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
                // Only time can condemn what is not bad, and only where it had no time without a fault.
                let started = release.status.as_ref().and_then(|s| s.started.as_ref()).map_or(step.troubles.now, |t| t.0);
                let calm = step.troubles.longest_calm(started);
                if worth == Some(Worth::Good) && !(evidence.contains("ProgressDeadlineExceeded") && calm < ENOUGH) {
                    let what = format!(
                        "{name} was condemned, and there is nothing wrong with it: it had {calm:#} of peace ({})",
                        words()
                    );
                    return Err(broken("GI3", what));
                }
                if worth == Some(Worth::Good) {
                    markers.push("never left in peace");
                }
            }
            Some(Verdict::Rejected) => {
                markers.push("rejected");
                if worth == Some(Worth::Good) && !evidence.is_empty() {
                    return Err(broken("GI3", format!("{name} was rejected, and there is nothing wrong with it ({})", words())));
                }
            }
            Some(Verdict::Superseded) => markers.push("superseded"),
            None => {}
        }
        Ok(())
    }

    /// What depends on another Application waits until that one is well at the same commit.
    fn may_begin(&self, step: &Step<'_>, commit: &str, name: &str) -> Result<(), Violation> {
        if self.application == ROOT {
            return Ok(());
        }
        let first = status(step.before);
        if (first.sync, first.phase) != (Sync::Synced, Phase::Healthy) || first.observed_commit != commit {
            let (sync, phase) = (first.sync, first.phase);
            let what =
                format!("{name} of commit {commit} began, and {ROOT} is {sync:?} and {phase:?} at {}", first.observed_commit);
            return Err(broken("GI14", what));
        }
        Ok(())
    }

    /// What people asked to be tried once more counts as bad no longer.
    fn forgive(&mut self, change: &Change, now: Timestamp, markers: &mut Vec<&'static str>) {
        let status = |object: Option<&std::sync::Arc<Object>>| {
            object.and_then(|o| o.typed::<Application>().ok()).and_then(|a| a.status.clone()).unwrap_or_default()
        };
        let (old, new) = (status(change.old.as_ref()), status(change.new.as_ref()));
        if old.retried_nonce == new.retried_nonce {
            return;
        }
        markers.push("second try");
        for quarantined in old.quarantine.iter().filter(|q| !new.quarantine.iter().any(|left| left.digest == q.digest)) {
            self.bad.remove(&quarantined.digest);
            self.forgiven.push((new.retried_nonce.clone(), quarantined.digest.clone(), now));
        }
    }

    fn application(&mut self, step: &Step<'_>, change: &Change, markers: &mut Vec<&'static str>) -> Result<(), Violation> {
        let (view, now) = (step.after, step.troubles.now);
        let Some(application) = change.new.as_ref().and_then(|o| o.typed::<Application>().ok()) else { return Ok(()) };
        let Some(status) = application.status.clone() else { return Ok(()) };
        if !status.last_good.is_empty() && self.good.as_ref() != Some(&status.last_good) {
            let what = format!("{:?} is called last good, and {:?} was judged good last", status.last_good, self.good);
            return Err(broken("RB2", what));
        }
        let rollout = status.rollout.as_ref().map(|r| (r.release.clone(), r.purpose));
        if rollout == self.rollout {
            return Ok(());
        }
        // RB1: who says that it has arrived has everything as the release says, configuration too.
        if let (Some((release, _)), None) = (&self.rollout, &rollout)
            && status.target == *release
            && let Some(what) = contents(view, release).and_then(|wanted| differs(view, &wanted))
        {
            return Err(broken("RB1", format!("the house says that it has arrived at {release}, and {what}")));
        }
        if let Some((release, purpose)) = &rollout {
            // A release of another Application is none that this one could go to.
            let ours = |release: &str| {
                view.get(&Key::of::<Release>(&change.key.namespace, release)).is_some_and(|o| self.owns(o))
                    && contents(view, release).is_some()
            };
            let valid = |pin: &&Pin| pin.expires.as_ref().is_none_or(|end| now < end.0) && ours(&pin.release);
            let pin = application.spec.pin.as_ref().filter(valid).map(|pin| pin.release.clone());
            if application.spec.suspend {
                return Err(broken("RB10", format!("a rollout of {release} began, and the Application is suspended")));
            }
            if pin.as_ref().is_some_and(|pinned| *purpose != Purpose::Pin || pinned != release) {
                let what = format!("a rollout of {release} ({purpose:?}) began, and the Application is pinned to {pin:?}");
                return Err(broken("RB10", what));
            }
            match purpose {
                Purpose::Back => {
                    markers.push("way back");
                    if self.good.as_ref() != Some(release) {
                        return Err(broken("RB2", format!("the way back leads to {release}, and {:?} was good last", self.good)));
                    }
                }
                Purpose::Return => markers.push("return"),
                Purpose::Pin => markers.push("pinned"),
                Purpose::Trial => {}
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
    fn managed(&self, step: &Step<'_>, change: &Change, markers: &mut Vec<&'static str>) -> Result<(), Violation> {
        if ["Event", "Release", "Rendering"].contains(&change.key.kind.kind) {
            return Ok(());
        }
        if application(step.before, self.application).is_some_and(|a| a.spec.suspend) {
            return Err(broken("RB10", format!("{} was written, and the Application is suspended", change.key)));
        }
        if let Some(new) = &change.new {
            let commit = new.meta.annotations.get(COMMIT_ANNOTATION).map_or("", String::as_str);
            if self.application == ROOT
                && step.git.worth(commit) == Some(Worth::Invalid)
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
        self.pruned(old, step.before, step.after)
    }

    /// GI6: pruned is only what is in the inventory with this uid and not wanted any more.
    fn pruned(&self, old: &Object, before: &View, after: &View) -> Result<(), Violation> {
        let Some(status) = self.status(before) else {
            return Err(broken("GI6", format!("{} was deleted for no Application", old.key)));
        };
        let listed = status.inventory.items().find(|item| is(item, &old.key));
        if listed.is_none_or(|item| item.uid != old.meta.uid) {
            return Err(broken("GI6", format!("{} was pruned, and is not in the inventory with its uid", old.key)));
        }
        if !old.meta.annotations.contains_key(OWNER_ANNOTATION) {
            return Err(broken("GI6", format!("{} was pruned, and does not say that it is managed", old.key)));
        }
        let target = self.status(after).unwrap_or(status);
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
    application(view, ROOT)
}

fn application(view: &View, name: &str) -> Option<std::sync::Arc<Application>> {
    view.get(&Key::of::<Application>(crate::object::ours::SYSTEM_NAMESPACE, name))?.typed::<Application>().ok()
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
