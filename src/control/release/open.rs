//! A new release: what stands in its way, and its record, written before anything else is.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::look::{Desired, Pass, short};
use super::{Obstacle, ReleaseLoop, Standing, facts, images, record};
use crate::control::Context;
use crate::control::event::Severity;
use crate::control::keyed::Trouble;
use crate::mutant::{self, Mutant};
use crate::object::ours::{Application, Phase, ProblemRecord, Purpose, ReleaseSpec, ReleaseStatus, Rollout, Sync, Verdict};
use crate::object::{Key, kind_of};
use crate::plan::health::{State, lives};
use crate::plan::idle;
use crate::plan::preflight::{self, Outcome};
use crate::plan::sync::{self, Undo, Wanted};
use crate::store::View;

/// The first wait before something that stood in the way is looked at again; it doubles each time. What is known to have changed (a
/// host, another Application) ends it early.
const FIRST_LOOK: SignedDuration = SignedDuration::from_secs(5);
/// The longest such wait.
const LAST_LOOK: SignedDuration = SignedDuration::from_mins(2);

impl ReleaseLoop {
    /// Opens a release for what git says, or says what stands in the way.
    pub(super) fn open(
        &mut self,
        cx: &mut Context<'_>,
        pass: &mut Pass<'_>,
        desired: &Desired,
    ) -> Result<Option<Standing>, Trouble> {
        let key = pass.object.key.clone();
        let known = self.obstacles.get(&key).filter(|o| o.digest == desired.digest).cloned();
        if let Some(known) = known.as_ref().filter(|o| pass.now < o.again) {
            pass.until(Some(known.again));
            if let Standing::Rejected(problems) = &known.what {
                pass.status.problems.clone_from(problems);
            }
            return Ok(Some(known.what.clone()));
        }
        let wanted = desired.wanted();
        let standing = match waits_for(pass, desired) {
            Some(standing) => Some(standing),
            None => self.preflight(pass, desired, &wanted)?,
        };
        let Some(what) = standing else {
            self.obstacles.remove(&key);
            self.begin(cx, pass, desired, &wanted)?;
            return Ok(None);
        };
        if let Standing::Rejected(problems) = &what {
            let chart = desired.chart();
            let commit = (chart.commit.as_str(), chart.subject.as_str(), chart.author.as_str());
            self.rejected(cx, pass, commit, &desired.digest, problems.clone())?;
        } else if known.as_ref().is_none_or(|k| k.what != what)
            && let Standing::Blocked(on) | Standing::Errored(on) = &what
        {
            let reason = if matches!(what, Standing::Blocked(_)) { "Blocked" } else { "NotNow" };
            pass.say(Severity::Warning, reason, format!("commit {} waits: {}", short(&desired.chart().commit), on.join("; ")));
        }
        let attempts = known.map_or(0, |k| k.attempts + 1);
        let wait = (FIRST_LOOK * 2i32.pow(attempts.min(8))).min(LAST_LOOK);
        let again = pass.now + wait;
        pass.until(Some(again));
        self.obstacles.insert(key, Obstacle { digest: desired.digest.clone(), what: what.clone(), attempts, again });
        Ok(Some(what))
    }

    fn preflight(&mut self, pass: &mut Pass<'_>, desired: &Desired, wanted: &[Wanted]) -> Result<Option<Standing>, Trouble> {
        if !mutant::on(Mutant::PruneOnEmpty)
            && wanted.is_empty()
            && !pass.status.inventory.is_empty()
            && pass.spec().policy.allow_empty != Some(true)
        {
            // More often a wrong path or a lost directory than a wish. It must not become what one goes back to.
            let message = "the commit has no object at all".to_owned();
            let hint = Some("if everything is to be deleted, say `policy.allowEmpty: true` in the Application".to_owned());
            let file = pass.spec().source.path.clone();
            return Ok(Some(Standing::Rejected(vec![ProblemRecord { file, message, hint, ..ProblemRecord::default() }])));
        }
        let contents = self.contents_of(pass)?;
        let plan = self.plan_except(pass, wanted, &desired.chart().commit, &contents, &Undo::default());
        let view = &pass.view;
        let outcome = preflight::check(&preflight::Input {
            wanted,
            plan: &plan,
            live: &|key| view.get(key).cloned(),
            nodes: &|| facts::nodes(view),
            running: &|nodes, look| facts::running(view, nodes, look),
            now: pass.now,
        });
        Ok(match outcome {
            Outcome::Clear => None,
            Outcome::Rejected(problems) => Some(Standing::Rejected(problems)),
            Outcome::Errored(on) => Some(Standing::Errored(on)),
        })
    }

    /// What would be written to make the cluster look like these objects, and those that are given back like what they were.
    pub(super) fn plan_except(
        &mut self,
        pass: &Pass<'_>,
        wanted: &[Wanted],
        commit: &str,
        contents: &BTreeMap<String, Arc<record::Content>>,
        undo: &Undo,
    ) -> sync::SyncPlan {
        let view = &pass.view;
        let application = &pass.object.key;
        let settled = self.settled.remove(application).unwrap_or_default();
        let there = RefCell::new(facts::There::new(view));
        let last = RefCell::new(facts::Last::new(&pass.status.inventory, contents));
        let plan = sync::sync(&sync::Input {
            application: &pass.owner(),
            commit,
            wanted,
            live: &|key| there.borrow_mut().get(key),
            inventory: &pass.status.inventory,
            last: &|key| last.borrow_mut().get(key),
            policy: &pass.spec().policy,
            undo,
            settled: &settled,
            claimed: &|other, key| self.claims(view, other, key),
            heir: &|key| self.heir(view, application, key),
        });
        let known = self.settled.entry(application.clone()).or_insert(settled);
        known.extend(plan.settled.iter().cloned());
        // What nobody wants any more is not looked at again.
        if known.len() > 2 * wanted.len() + plan.settled.len() {
            let wanted: BTreeSet<&Key> = wanted.iter().map(|w| &w.key).collect();
            known.retain(|key, _| wanted.contains(key));
        }
        plan
    }

    /// The recorded objects of all releases that are still somewhere in the cluster.
    pub(super) fn contents_of(&mut self, pass: &Pass<'_>) -> Result<BTreeMap<String, Arc<record::Content>>, Trouble> {
        let names: BTreeSet<&String> = pass.status.inventory.items().map(|item| &item.release).collect();
        let mut contents = BTreeMap::new();
        for name in names {
            // A record that is gone only means that nothing is taken away by the merge.
            if let Ok(content) = self.content(&pass.view, &pass.object.key, name) {
                contents.insert(name.clone(), content);
            }
        }
        Ok(contents)
    }

    /// The record of a new trial, and the end of the one that it supersedes.
    fn begin(&mut self, cx: &mut Context<'_>, pass: &mut Pass<'_>, desired: &Desired, wanted: &[Wanted]) -> Result<(), Trouble> {
        let now = Some(Time(pass.now));
        let chart = desired.chart();
        let spec = ReleaseSpec {
            repository: pass.spec().source.repository.clone(),
            commit: chart.commit.clone(),
            subject: chart.subject.clone(),
            author: chart.author.clone(),
            digest: desired.digest.clone(),
            ..ReleaseSpec::default()
        };
        let message = "is being rolled out".to_owned();
        let status = ReleaseStatus { phase: Phase::RollingOut, message, started: now.clone(), ..ReleaseStatus::default() };
        let name = record::write(cx, pass, spec, wanted, &status)?;
        self.unasked.insert(pass.object.key.clone(), name.clone());
        supersede(pass, &format!("{name} ({})", short(&chart.commit)));
        let (mut unhealthy_before, restarts_before) = self.before(pass);
        self.excuse(pass, wanted, &mut unhealthy_before)?;
        let rollout = Rollout {
            release: name.clone(),
            purpose: Purpose::Trial,
            started: now.clone(),
            progressed: now,
            unhealthy_before,
            restarts_before,
            ..Rollout::default()
        };
        pass.status.rollout = Some(rollout);
        pass.status.trial.clone_from(&name);
        pass.status.target.clone_from(&name);
        pass.status.sync = Sync::OutOfSync;
        pass.status.phase = Phase::RollingOut;
        pass.status.problems.clear();
        pass.status.waiting_on.clear();
        pass.status.message = format!("rolling out {name} ({})", short(&chart.commit));
        for text in idle::told(wanted.iter().map(|w| &w.key)) {
            pass.say(Severity::Warning, "StoredOnly", text);
        }
        pass.say(Severity::Normal, "RolloutStarted", format!("{name}: commit {} {}", short(&chart.commit), chart.subject));
        pass.until(Some(pass.now));
        Ok(())
    }

    /// What is unhealthy before a rollout begins, and how often containers had been restarted. A rollout that takes over from another
    /// inherits what that one found: what the first one broke must not be excused for the second.
    pub(super) fn before(&self, pass: &Pass<'_>) -> (BTreeMap<String, String>, BTreeMap<String, i32>) {
        if let Some(rollout) = &pass.status.rollout {
            let (mut unhealthy, mut restarts) = (rollout.unhealthy_before.clone(), rollout.restarts_before.clone());
            unhealthy.retain(|name, _| !rollout.touched.contains(name));
            restarts.retain(|name, _| !rollout.touched.contains(name));
            return (unhealthy, restarts);
        }
        let inventory = &pass.status.inventory;
        let mut restarts = BTreeMap::new();
        for (pod, times) in &self.restarted {
            let top = pass.view.get(pod).and_then(|pod| super::workload(&pass.view, pod)).map(|top| top.key.clone());
            if let Some(top) = top.filter(|top| *top != *pod && inventory.has(top)) {
                let most = restarts.entry(facts::name(&top)).or_insert(0);
                *most = (*most).max(*times);
            }
        }
        let objects = inventory.keys().filter(|key| lives(key)).filter_map(|key| pass.view.get(key));
        let healths = facts::healths(&pass.view, objects, &pass.hosts, pass.now);
        let unhealthy = healths
            .into_iter()
            // What is on its way will arrive or not, and counts like everything else.
            .filter(|(_, health)| health.state > State::Progressing)
            .map(|(name, health)| (name, health.state.word().to_owned()))
            .collect();
        (unhealthy, restarts)
    }

    /// Leaves a trial only the excuses that it may have: for objects that are as the last good release wants them. What a release wrote
    /// that nobody has judged (it was superseded, or people pinned it) is a change that this trial brings, whoever wrote it first.
    pub(super) fn excuse(
        &mut self,
        pass: &Pass<'_>,
        wanted: &[Wanted],
        unhealthy: &mut BTreeMap<String, String>,
    ) -> Result<(), Trouble> {
        if unhealthy.is_empty() {
            return Ok(());
        }
        let good = self.last_good(pass)?;
        let same = |w: &&Wanted| good.as_ref().is_some_and(|good| good.value(&w.key) == Some(&w.value));
        let same: BTreeSet<String> = wanted.iter().filter(same).map(|w| facts::name(&w.key)).collect();
        unhealthy.retain(|name, _| same.contains(name));
        Ok(())
    }
}

/// Ends what is under way: a trial without a verdict on it, a way back with the verdict that it has.
pub(super) fn supersede(pass: &mut Pass<'_>, by: &str) {
    let finished = Some(Time(pass.now));
    if let Some(from) = pass.status.rollout.as_ref().map(|rollout| rollout.back_from.clone()) {
        record::tell(pass, &from, |status| {
            // Of what was stuck it has been said how it ended.
            if status.finished.is_none() {
                status.phase = Phase::RolledBack;
                status.finished.clone_from(&finished);
            }
        });
    }
    let trial = std::mem::take(&mut pass.status.trial);
    if trial.is_empty() {
        return;
    }
    images::forget(pass, &trial);
    record::tell(pass, &trial, |status| {
        status.verdict = Some(Verdict::Superseded);
        status.message = format!("superseded by {by}");
        status.finished = finished;
    });
    pass.say(Severity::Normal, "Superseded", format!("{trial} was superseded by {by}"));
}

/// Other Applications that must be healthy first.
fn waits_for(pass: &Pass<'_>, desired: &Desired) -> Option<Standing> {
    let spec = pass.spec();
    if spec.depends_on.is_empty() {
        return None;
    }
    let key = &pass.object.key;
    if let Some(circle) = circle(&pass.view, key) {
        let message = format!("dependsOn goes in a circle: {}", circle.join(" -> "));
        return Some(Standing::Rejected(vec![ProblemRecord {
            file: "spec.dependsOn".to_owned(),
            message,
            ..ProblemRecord::default()
        }]));
    }
    let mut on = Vec::new();
    for name in &spec.depends_on {
        let Some(other) = facts::application(&pass.view, &Key::of::<Application>(&key.namespace, name)) else {
            on.push(format!("Application {name} does not exist"));
            continue;
        };
        let status = other.status.clone().unwrap_or_default();
        let same = other.spec.source.repository == spec.source.repository && other.spec.source.revision == spec.source.revision;
        let current = status.observed_generation >= other.metadata.generation.unwrap_or(0);
        if !current || status.phase != Phase::Healthy || status.sync != Sync::Synced {
            on.push(format!("Application {name} is {:?} and {:?}", status.phase, status.sync));
        } else if same && status.observed_commit != desired.chart().commit {
            on.push(format!("Application {name} has not seen commit {} yet", short(&desired.chart().commit)));
        }
    }
    (!on.is_empty()).then_some(Standing::Blocked(on))
}

/// A circle of dependencies through this Application, if there is one.
fn circle(view: &View, key: &Key) -> Option<Vec<String>> {
    let edges: BTreeMap<String, Vec<String>> = view
        .list_in(kind_of::<Application>(), &key.namespace)
        .filter_map(|object| Some((object.key.name.to_string(), object.typed::<Application>().ok()?.spec.depends_on.clone())))
        .collect();
    let mut seen = BTreeSet::new();
    let mut open = vec![vec![key.name.to_string()]];
    while let Some(path) = open.pop() {
        for next in edges.get(path.last().expect("a path begins somewhere")).into_iter().flatten() {
            let mut longer = path.clone();
            longer.push(next.clone());
            if **next == *key.name {
                return Some(longer);
            }
            if seen.insert(next.clone()) {
                open.push(longer);
            }
        }
    }
    None
}
