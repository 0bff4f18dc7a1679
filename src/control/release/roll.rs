//! A rollout: wave by wave, judged, and ended by a verdict. Forward and back take the same road.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::facts::Past;
use super::images::{self, Images};
use super::look::{Pass, short};
use super::open::supersede;
use super::record::{Content, Note};
use super::{ABSENCE, ReleaseLoop, facts, record};
use crate::control::Context;
use crate::control::event::Severity;
use crate::control::keyed::Trouble;
use crate::control::node::LEASES;
use crate::control::write;
use crate::mutant::{self, Mutant};
use crate::object::admit::assign::Beside;
use crate::object::admit::{self, Stamp};
use crate::object::custom::{Kinds, definitions};
use crate::object::ours::{Evidence, Inventory, OWNER_ANNOTATION, Phase, Purpose, Quarantined, Rollout, Verdict, release_number};
use crate::object::{Draft, Key, Meta, Object};
use crate::plan::health::{self, Health, State};
use crate::plan::sync::{Action, Change, Name, Order, Prune, SyncPlan, Why, order};
use crate::plan::verdict::{self, Decision};

/// How many pieces of evidence are kept with a release.
const EVIDENCE: usize = 20;
/// How much of a container's last words is kept with each piece of evidence.
const LOG_LINES: usize = 20;
/// The same in characters.
const LOG_CHARACTERS: usize = 4000;
/// How many things that are waited for are shown.
const WAITS: usize = 10;

impl ReleaseLoop {
    /// One step towards a release, or a look around when the cluster is there already.
    pub(super) fn follow(
        &mut self,
        cx: &mut Context<'_>,
        pass: &mut Pass<'_>,
        release: &str,
        purpose: Purpose,
    ) -> Result<(), Trouble> {
        let rolling = pass.status.rollout.as_ref().is_some_and(|r| r.release == release);
        // People pinned a trial, so that it arrived without a verdict. When they let go of it, it is judged.
        let unjudged = purpose == Purpose::Trial && pass.status.trial == release;
        if !rolling && pass.status.rollout.is_none() && pass.status.target == release && !unjudged {
            return self.rest(cx, pass, release);
        }
        if !rolling {
            let now = Some(Time(pass.now));
            let (mut unhealthy_before, restarts_before) = self.before(pass);
            if purpose == Purpose::Trial {
                let content = self.content(&pass.view, &pass.object.key, release)?;
                self.excuse(pass, &content.wanted, &mut unhealthy_before)?;
            }
            if pass.status.trial != release {
                supersede(pass, release);
            }
            release.clone_into(&mut pass.status.target);
            pass.status.rollout = Some(Rollout {
                release: release.to_owned(),
                purpose,
                started: now.clone(),
                progressed: now,
                unhealthy_before,
                restarts_before,
                ..Rollout::default()
            });
        } else if let Some(rollout) = &mut pass.status.rollout
            && rollout.purpose != purpose
        {
            // The same way for another reason: a revert during a rollback, a pin to where it goes anyway.
            rollout.purpose = purpose;
            rollout.stuck = false;
            rollout.progressed = Some(Time(pass.now));
        }
        self.advance(cx, pass)
    }

    fn advance(&mut self, cx: &mut Context<'_>, pass: &mut Pass<'_>) -> Result<(), Trouble> {
        let mut rollout = pass.status.rollout.clone().expect("only what rolls advances");
        if rollout.started.is_none() {
            // Let out of quarantine: it begins anew.
            rollout.started = Some(Time(pass.now));
            rollout.progressed = Some(Time(pass.now));
            rollout.held_up_since = None;
        }
        let content = self.content(&pass.view, &pass.object.key, &rollout.release)?;
        let mut contents = self.contents_of(pass)?;
        contents.insert(rollout.release.clone(), content.clone());
        let (plan, wanted) = self.plan_for(pass, &content, &contents, rollout.purpose)?;
        let healths = self.healths(pass, &content, &rollout);
        if !plan.problems.is_empty() {
            let on = plan.problems.iter().map(|p| p.message.clone()).collect();
            pass.status.rollout = Some(rollout);
            waits(pass, on, true, false);
            return Ok(());
        }
        pass.status.rollout = Some(rollout.clone());
        if rollout.purpose == Purpose::Trial && rollout.touched.is_empty() && !self.images_there(cx, pass, &content, &plan)? {
            return Ok(());
        }
        // A wave goes when everything before it is healthy.
        if let Some(wave) = plan.waves.first() {
            let before = healths.iter().filter(|(at, _)| *at < wave.order).map(|(_, h)| h);
            let before: BTreeMap<String, Health> = before.cloned().collect();
            rollout = verdict::remember(&rollout, &before, false, pass.hosts.count(), pass.now);
            let worst = verdict::counted(&rollout, &before).map(|(_, h)| h.state).max().unwrap_or_default();
            if worst == State::Healthy {
                pass.status.rollout = Some(rollout);
                if let Err(evidence) = self.write_wave(cx, pass, &wave.changes, &content) {
                    let purpose = pass.status.rollout.as_ref().map(|r| r.purpose).unwrap_or_default();
                    let decision = verdict::fail(purpose, &pass.spec().policy, !pass.status.last_good.is_empty(), evidence);
                    self.carry_out(cx, pass, &content, &plan, decision);
                }
                return Ok(());
            }
            pass.status.rollout = Some(rollout);
            self.judge(cx, pass, &content, &plan, &before, false);
            return Ok(());
        }
        let all: BTreeMap<String, Health> = healths.into_iter().map(|(_, h)| h).collect();
        if !plan.leaving.is_empty() && plan.leaving.iter().any(|name| wanted.contains(&name.0)) {
            let on = plan.leaving.iter().map(|name| format!("{name} to be gone, so that it can be created again")).collect();
            pass.status.rollout = Some(rollout);
            waits(pass, on, false, false);
            return Ok(());
        }
        rollout = verdict::remember(&rollout, &all, true, pass.hosts.count(), pass.now);
        pass.status.rollout = Some(rollout);
        self.judge(cx, pass, &content, &plan, &all, true);
        Ok(())
    }

    /// Whether a trial's images are there, as far as that has to be known before its first write. Otherwise it waits, or is refused
    /// without having touched anything.
    fn images_there(
        &mut self,
        cx: &mut Context<'_>,
        pass: &mut Pass<'_>,
        content: &Content,
        plan: &SyncPlan,
    ) -> Result<bool, Trouble> {
        let release = pass.status.rollout.as_ref().map(|r| r.release.clone()).unwrap_or_default();
        match self.images(cx, pass, content, plan)? {
            Images::There => {
                if self.unasked.get(&pass.object.key) != Some(&release) {
                    images::forget(pass, &release);
                }
                Ok(true)
            }
            Images::Asked(on, held_up) => {
                waits(pass, on, held_up, false);
                if !held_up {
                    pass.status.phase = Phase::Preflight;
                }
                // When nobody answers, it goes on without an answer.
                pass.until(Some(pass.now + SignedDuration::from_mins(1)));
                Ok(false)
            }
            Images::Missing(evidence) if pass.status.last_good.is_empty() => {
                self.carry_out(cx, pass, content, plan, Decision::Stuck { evidence });
                Ok(false)
            }
            Images::Missing(evidence) => {
                self.bad(pass, content, evidence, Verdict::Rejected, "nothing was touched");
                let to = pass.status.last_good.clone();
                let good = release_number(&to);
                if pass.status.inventory.items().all(|item| release_number(&item.release) <= good) {
                    pass.status.target = to;
                    pass.status.rollout = None;
                } else {
                    // Others did something before, and this one had come before the way back from that.
                    turn_back(pass, to, "");
                }
                pass.until(Some(pass.now));
                Ok(false)
            }
        }
    }

    /// The health of everything that the release wants, that is there and that can be unwell, in the order of waves.
    fn healths(&self, pass: &Pass<'_>, content: &Content, rollout: &Rollout) -> Vec<(Order, (String, Health))> {
        let since = rollout.started.as_ref().map(|t| t.0);
        let mut found = Vec::new();
        for wanted in content.wanted.iter().filter(|wanted| health::lives(&wanted.key)) {
            let Some(object) = pass.view.get(&wanted.key) else { continue };
            let name = facts::name(&wanted.key);
            let restarts = rollout.restarts_before.get(&name).copied().unwrap_or(0);
            let past = Past { since, restarts, written: rollout.written.as_ref().map(|t| t.0) };
            let health = facts::health_of(&pass.view, object, &pass.hosts, past, pass.now);
            found.push((order(wanted), (name, health)));
        }
        found
    }

    fn judge(
        &mut self,
        cx: &mut Context<'_>,
        pass: &mut Pass<'_>,
        content: &Content,
        plan: &SyncPlan,
        healths: &BTreeMap<String, Health>,
        applied: bool,
    ) {
        let rollout = pass.status.rollout.as_ref().expect("only what rolls is judged");
        let (silent, heard_since) = match rollout.healthy_since.as_ref().filter(|_| rollout.purpose == Purpose::Trial) {
            Some(_) => self.contact(pass, content, healths),
            None => (BTreeSet::new(), Timestamp::MIN),
        };
        let decision = verdict::judge(&verdict::Input {
            rollout,
            policy: &pass.spec().policy,
            healths,
            applied,
            hosts: pass.hosts.count(),
            silent: &silent,
            heard_since,
            watched_since: self.born.unwrap_or(Timestamp::MIN),
            way_back: !pass.status.last_good.is_empty(),
            now: pass.now,
        });
        pass.status.health = worst(healths);
        self.carry_out(cx, pass, content, plan, decision);
    }

    /// The hosts that run pods of a release and whose sign of life is overdue; and since when all give signs of life without a gap.
    fn contact(&self, pass: &Pass<'_>, content: &Content, healths: &BTreeMap<String, Health>) -> (BTreeSet<String>, Timestamp) {
        // A host without a lease is not one that gives signs of life.
        let tells = |host: &String| pass.view.get(&Key::of::<Lease>(LEASES, host)).is_some();
        let hosts = facts::hosts_of(&pass.view, content, &pass.hosts.unreachable, healths);
        let hosts: BTreeSet<String> = hosts.into_iter().filter(tells).collect();
        let without_gap = hosts.iter().filter_map(|host| self.heard.get(host)).map(|contact| contact.since).max();
        let heard =
            |host: &String| self.heard.get(host).is_some_and(|contact| pass.now.duration_since(contact.last) <= contact.patience);
        (hosts.into_iter().filter(|host| !heard(host)).collect(), without_gap.unwrap_or(Timestamp::MIN))
    }

    fn carry_out(&mut self, cx: &mut Context<'_>, pass: &mut Pass<'_>, content: &Content, plan: &SyncPlan, decision: Decision) {
        let rollout = pass.status.rollout.clone().expect("only what rolls is judged");
        match decision {
            Decision::Wait { until, on, errored, verifying } => {
                pass.until(until);
                // Whoever looks this often notices its own absence.
                pass.until(Some(pass.now + ABSENCE / 2));
                waits(pass, on, errored, verifying);
            }
            Decision::Good if !plan.prune.is_empty() => {
                self.prune(pass, &plan.prune);
                if let Some(rollout) = &mut pass.status.rollout {
                    // What was deleted may be missed: everything has to stay healthy without it for as long again.
                    rollout.healthy_since = Some(Time(pass.now));
                }
                pass.until(Some(pass.now));
            }
            Decision::Good => {
                self.arrive(cx, pass, content, plan, &rollout);
            }
            Decision::RollBack { evidence } => {
                let to = match mutant::on(Mutant::BackToPrevious) {
                    true => previous(pass, content.number).unwrap_or_else(|| pass.status.last_good.clone()),
                    false => pass.status.last_good.clone(),
                };
                self.bad(pass, content, evidence, Verdict::RolledBack, &format!("it goes back to {to}"));
                turn_back(pass, to, &rollout.release);
                pass.until(Some(pass.now));
            }
            Decision::Stuck { evidence } => {
                if rollout.purpose == Purpose::Trial {
                    let why =
                        if pass.status.last_good.is_empty() { "there is nothing to go back to" } else { "the policy is to stop" };
                    self.bad(pass, content, evidence.clone(), Verdict::Stuck, why);
                } else {
                    let reason = reason(&evidence);
                    let text = format!("going to {} failed as well: {reason}", rollout.release);
                    pass.say(Severity::Warning, "Stuck", text.clone());
                    let finished = Some(Time(pass.now));
                    let from = rollout.back_from.clone();
                    record::tell(pass, &from, |status| {
                        status.phase = Phase::Stuck;
                        status.verdict = Some(Verdict::Stuck);
                        status.message = format!("{}; {text}", status.message);
                        status.finished = finished;
                    });
                }
                if let Some(rollout) = &mut pass.status.rollout {
                    rollout.stuck = true;
                }
                pass.status.phase = Phase::Stuck;
                pass.status.message = format!("{} is stuck: {}", rollout.release, reason(&evidence));
                pass.status.waiting_on = vec!["a new commit, `portolan retry` or `portolan rollback`".to_owned()];
            }
            Decision::Continue { evidence } => {
                let text = reason(&evidence);
                let seen: Vec<Evidence> = evidence.into_iter().take(EVIDENCE).collect();
                record::tell(pass, &rollout.release, |status| {
                    // Once: the words of a crash loop change with each turn.
                    if status.evidence.is_empty() {
                        status.evidence = seen;
                    }
                });
                waits(pass, vec![text], false, false);
            }
        }
    }

    /// Writes one wave, all of it or nothing. Fails with evidence when an object is refused.
    fn write_wave(
        &mut self,
        cx: &mut Context<'_>,
        pass: &mut Pass<'_>,
        changes: &[Change],
        content: &Content,
    ) -> Result<(), Vec<Evidence>> {
        let release = pass.status.rollout.as_ref().map(|r| r.release.clone()).unwrap_or_default();
        let written = self.write_changes(cx, pass, changes, &release, content.number)?;
        if let Some(rollout) = &mut pass.status.rollout {
            rollout.progressed = Some(Time(pass.now));
            rollout.written = Some(Time(pass.now));
            rollout.healthy_since = None;
            for key in &written {
                let name = facts::name(key);
                rollout.progress.remove(&name);
                rollout.touched.insert(name);
            }
        }
        let purpose = pass.status.rollout.as_ref().map(|r| r.purpose).unwrap_or_default();
        pass.status.phase = if purpose == Purpose::Back { Phase::RollingBack } else { Phase::RollingOut };
        pass.status.message = format!("{} {release} ({})", verb(purpose), short(&content.commit));
        pass.until(Some(pass.now));
        Ok(())
    }

    /// Adds writes to the look's transaction and to the inventory. What the API would refuse is refused here as well.
    pub(super) fn write_changes(
        &mut self,
        cx: &mut Context<'_>,
        pass: &mut Pass<'_>,
        changes: &[Change],
        release: &str,
        number: i64,
    ) -> Result<Vec<Key>, Vec<Evidence>> {
        let mut drafts: Vec<(Key, Draft, Option<u64>, Action)> = Vec::new();
        let mut unchanged: Vec<(Key, Arc<Object>)> = Vec::new();
        let mut evidence = Vec::new();
        let mut taken = Vec::new();
        let mut claims = BTreeSet::new();
        let kinds = Kinds::established(pass.view.list(definitions()));
        for change in changes {
            let key = change.name.0.clone();
            let rules = kinds.rules(&key, &change.new);
            let mut wanted = change.new.clone();
            let refused = match change.action {
                Action::Create => {
                    let stamp = Stamp { uid: cx.ids.uid(), now: pass.now };
                    let beside = Beside { around: &pass.view, claims: &claims };
                    admit::assign(rules, &mut wanted, None, &stamp.uid, &beside)
                        .and_then(|()| admit::create(rules, wanted, &stamp))
                        .map(|draft| drafts.push((key, draft, None, change.action)))
                }
                Action::Patch | Action::Adopt => {
                    let Some(live) = pass.view.get(&key).cloned() else { continue };
                    if change.action == Action::Adopt && !pass.status.inventory.has(&key) {
                        taken.push(live.clone());
                    }
                    let beside = Beside { around: &pass.view, claims: &claims };
                    let chance = format!("{} {}", live.meta.uid, live.revision);
                    admit::assign(rules, &mut wanted, Some(&live.value()), &chance, &beside)
                        .and_then(|()| admit::update_as(rules, &live, wanted, None, pass.now))
                        .map(|draft| match draft {
                            Some(draft) => drafts.push((key, draft, Some(live.revision), change.action)),
                            None => unchanged.push((key, live.clone())),
                        })
                }
            };
            claims.extend(drafts.last().into_iter().flat_map(|(_, draft, ..)| draft.meta.claims.iter().cloned()));
            if let Err(refused) = refused {
                evidence.push(Evidence {
                    object: change.name.to_string(),
                    reason: "Refused".to_owned(),
                    message: refused.to_string(),
                    ..Evidence::default()
                });
            }
        }
        if !evidence.is_empty() {
            return Err(evidence);
        }
        if let Err(refused) = record::note(cx, pass, release, Note::Before, &taken) {
            let message = format!("what is taken over cannot be noted: {refused}");
            return Err(vec![Evidence {
                object: release.to_owned(),
                reason: "Refused".to_owned(),
                message,
                ..Evidence::default()
            }]);
        }
        let mut written = Vec::new();
        let owner = pass.owner();
        let inventory = &mut pass.status.inventory;
        for (key, draft, revision, action) in drafts {
            let created = if action == Action::Create { number } else { 0 };
            note_or_forget(inventory, &owner, &key, &draft.meta, (release, created));
            match revision {
                None => pass.txn.create(draft),
                Some(revision) => pass.txn.update(draft, revision),
            };
            written.push(key);
        }
        for (key, live) in unchanged {
            note_or_forget(inventory, &owner, &key, &live.meta, (release, 0));
        }
        Ok(written)
    }

    /// Adds deletions to the look's transaction.
    pub(super) fn prune(&mut self, pass: &mut Pass<'_>, prune: &[Prune]) {
        let mut names = Vec::new();
        for victim in prune {
            let Some(live) = pass.view.get(&victim.name.0).cloned() else { continue };
            if (live.meta.uid == victim.uid || mutant::on(Mutant::PruneByLabel))
                && write::delete(&mut pass.txn, &live, None, None, pass.now)
            {
                names.push(victim.name.to_string());
            }
        }
        pass.say(Severity::Normal, "Pruned", format!("deleted what git no longer has: {}", names.join(", ")));
    }

    /// The cluster looks like the release, and is well.
    fn arrive(&mut self, cx: &mut Context<'_>, pass: &mut Pass<'_>, content: &Content, plan: &SyncPlan, rollout: &Rollout) {
        let name = &rollout.release;
        settle(pass, content, plan, name);
        pass.status.rollout = None;
        pass.status.target.clone_from(name);
        pass.status.waiting_on.clear();
        pass.status.health = State::Healthy.word().to_owned();
        let finished = Some(Time(pass.now));
        // Also when people asked for the same meanwhile.
        record::tell(pass, &rollout.back_from, |status| {
            status.phase = Phase::RolledBack;
            status.verdict = Some(Verdict::RolledBack);
            status.finished.clone_from(&finished);
        });
        match rollout.purpose {
            Purpose::Trial => {
                pass.status.last_good.clone_from(name);
                pass.status.trial.clear();
                self.note_kept(cx, pass, plan, name);
                let live: Vec<_> = content.wanted.iter().filter_map(|w| pass.view.get(&w.key)).collect();
                let images = facts::images(&pass.view, live.into_iter());
                record::tell(pass, name, |status| {
                    status.phase = Phase::Healthy;
                    status.verdict = Some(Verdict::Good);
                    status.message = "good".to_owned();
                    status.finished = finished;
                    status.images = images;
                });
                pass.say(Severity::Normal, "Good", format!("{name} ({}) is good", short(&content.commit)));
                record::prune(pass);
            }
            Purpose::Back => pass.say(Severity::Normal, "RolledBack", format!("back at {name} ({})", short(&content.commit))),
            Purpose::Return | Purpose::Pin => {
                pass.say(Severity::Normal, "Arrived", format!("at {name} ({})", short(&content.commit)));
            }
        }
        pass.differs = !pass.status.blocked_prune.is_empty();
        let (namespace, prefix) = (&*pass.object.key.namespace, format!("{}-", pass.object.key.name));
        self.contents.retain(|(ns, release), _| ns != namespace || release == name || !release.starts_with(&prefix));
    }

    /// Notes how the objects are that this good release does not want and that stay: a way back to it leads back to them as well.
    fn note_kept(&mut self, cx: &mut Context<'_>, pass: &mut Pass<'_>, plan: &SyncPlan, release: &str) {
        let kept = plan.kept.iter().filter(|kept| matches!(kept.why, Why::NeedsConsent(_) | Why::Protected));
        let live: Vec<_> = kept.filter_map(|kept| pass.view.get(&kept.name.0).cloned()).collect();
        if let Err(refused) = record::note(cx, pass, release, Note::Kept, &live) {
            pass.say(Severity::Warning, "NotNoted", format!("what is kept although git no longer has it: {refused}"));
        }
        if live.is_empty() {
            return;
        }
        // It was read before there was anything to note.
        self.contents.remove(&(pass.object.key.namespace.to_string(), release.to_owned()));
    }

    /// Records a bad release: evidence, verdict, quarantine.
    fn bad(&mut self, pass: &mut Pass<'_>, content: &Content, evidence: Vec<Evidence>, verdict: Verdict, then: &str) {
        let name = pass.status.rollout.as_ref().map(|r| r.release.clone()).unwrap_or_default();
        let reason = reason(&evidence);
        images::forget(pass, &name);
        let phase = match verdict {
            Verdict::Stuck => Phase::Stuck,
            Verdict::Rejected => Phase::Preflight,
            _ => Phase::RollingBack,
        };
        let finished = (verdict != Verdict::RolledBack).then_some(Time(pass.now));
        let message = format!("bad: {reason}");
        record::tell(pass, &name, |status| {
            status.phase = phase;
            status.verdict = Some(verdict);
            status.message = message;
            status.evidence = evidence.into_iter().take(EVIDENCE).map(shortened).collect();
            status.finished = finished;
        });
        pass.status.trial.clear();
        pass.status.quarantine.retain(|q| q.digest != content.digest);
        if mutant::on(Mutant::NoQuarantine) {
            return;
        }
        pass.status.quarantine.push(Quarantined {
            digest: content.digest.clone(),
            release: name.clone(),
            reason: reason.clone(),
            since: Some(Time(pass.now)),
        });
        pass.say(Severity::Warning, "Bad", format!("{name} ({}) is bad, {then}: {reason}", short(&content.commit)));
    }

    /// Nothing is written, but it is noticed when things become well by themselves (hosts that came back).
    pub(super) fn stuck(&mut self, cx: &mut Context<'_>, pass: &mut Pass<'_>) -> Result<(), Trouble> {
        let rollout = pass.status.rollout.clone().expect("only what rolls gets stuck");
        pass.status.phase = Phase::Stuck;
        if rollout.purpose == Purpose::Trial {
            return Ok(());
        }
        let content = self.content(&pass.view, &pass.object.key, &rollout.release)?;
        let mut contents = self.contents_of(pass)?;
        contents.insert(rollout.release.clone(), content.clone());
        let (plan, _) = self.plan_for(pass, &content, &contents, rollout.purpose)?;
        let healths: BTreeMap<_, _> = self.healths(pass, &content, &rollout).into_iter().map(|(_, h)| h).collect();
        let well = verdict::counted(&rollout, &healths).all(|(_, h)| h.state == State::Healthy);
        if well && plan.is_empty() && plan.problems.is_empty() && plan.leaving.is_empty() {
            self.arrive(cx, pass, &content, &plan, &rollout);
        }
        Ok(())
    }
}

/// The release before a number, whatever became of it: where a mistaken way back would lead.
fn previous(pass: &Pass<'_>, number: i64) -> Option<String> {
    let all = record::releases(&pass.view, &pass.object.key);
    let mut before = all.iter().filter(|(_, r)| r.spec.number < number && !r.spec.renderings.is_empty());
    before.next_back().map(|(object, _)| object.key.name.to_string())
}

/// Begins the way back, with the excuses of what it turns back from. `from` is what has failed.
fn turn_back(pass: &mut Pass<'_>, to: String, from: &str) {
    let rollout = pass.status.rollout.take().unwrap_or_default();
    let now = Some(Time(pass.now));
    pass.status.target.clone_from(&to);
    pass.status.phase = Phase::RollingBack;
    pass.status.message = format!("{} was bad; going back to {to}", rollout.release);
    pass.status.rollout = Some(Rollout {
        release: to,
        purpose: Purpose::Back,
        back_from: from.to_owned(),
        started: now.clone(),
        progressed: now,
        unhealthy_before: rollout.unhealthy_before,
        restarts_before: rollout.restarts_before,
        ..Rollout::default()
    });
}

/// Says what is waited for.
fn waits(pass: &mut Pass<'_>, mut on: Vec<String>, errored: bool, verifying: bool) {
    let Some(rollout) = pass.status.rollout.clone() else { return };
    on.truncate(WAITS);
    let phase = match (errored, verifying, rollout.purpose) {
        (true, _, _) => Phase::Errored,
        (_, _, Purpose::Back) => Phase::RollingBack,
        (_, true, _) => Phase::Verifying,
        _ => Phase::RollingOut,
    };
    pass.status.phase = phase;
    pass.status.message = format!("{} {}", verb(rollout.purpose), rollout.release);
    pass.status.waiting_on = on;
    let name = if rollout.purpose == Purpose::Trial { rollout.release } else { rollout.back_from };
    let on = pass.status.waiting_on.clone();
    record::tell(pass, &name, |status| {
        status.phase = phase;
        status.waiting_on = on;
    });
}

fn verb(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Trial => "rolling out",
        Purpose::Back => "going back to",
        Purpose::Return => "returning to",
        Purpose::Pin => "going to pinned",
    }
}

/// The word for the health of all: the worst of each.
pub(super) fn worst(healths: &BTreeMap<String, Health>) -> String {
    healths.values().map(|h| h.state).max().unwrap_or_default().word().to_owned()
}

/// The end of a long log says more than its beginning.
fn shortened(mut evidence: Evidence) -> Evidence {
    let lines: Vec<&str> = evidence.log.lines().rev().take(LOG_LINES).collect();
    let mut log: String = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
    if let Some((at, _)) = log.char_indices().rev().nth(LOG_CHARACTERS) {
        log.drain(..at);
    }
    evidence.log = log;
    evidence
}

/// The first fact, as one sentence.
fn reason(evidence: &[Evidence]) -> String {
    evidence.first().map_or_else(|| "no reason was recorded".to_owned(), |e| format!("{}: {}", e.object, health::show(e)))
}

/// Notes that an object is managed, or that it is not any more because it was given back.
fn note_or_forget(inventory: &mut Inventory, owner: &str, key: &Key, meta: &Meta, (release, created): (&str, i64)) {
    if meta.annotations.get(OWNER_ANNOTATION).is_some_and(|by| by == owner) {
        note(inventory, key, &meta.uid, release, created);
    } else {
        inventory.forget(key);
    }
}

/// Notes that an object is managed, and from which release.
fn note(inventory: &mut Inventory, key: &Key, uid: &str, release: &str, created: i64) {
    let item = match inventory.get(key) {
        Some(item) if item.uid == uid && item.release == release => return,
        // If it was deleted by hand and made again, it is as old as it was.
        Some(item) => facts::item(key, uid, release, item.created),
        None => facts::item(key, uid, release, created),
    };
    inventory.put(key.clone(), item);
}

/// Brings the inventory up to date with a cluster that looks like a release: what the release wants, and what stays although it is not
/// wanted.
pub(super) fn settle(pass: &mut Pass<'_>, content: &Content, plan: &SyncPlan, release: &str) {
    let set = |names: &mut dyn Iterator<Item = &Name>| names.map(|name| name.0.clone()).collect::<BTreeSet<Key>>();
    let kept = set(&mut plan.kept.iter().filter(|kept| !kept.why.forgotten()).map(|kept| &kept.name));
    let leaving = set(&mut plan.leaving.iter());
    let going = set(&mut plan.prune.iter().map(|prune| &prune.name));
    // What differs from the release was not applied from it; what is to be made again is not there.
    let different = set(&mut plan.tolerated.iter().chain(plan.changes().map(|change| &change.name)));
    // On the way back they were wanted as well. The next look sees again why they stay.
    let again: BTreeSet<Key> = match &pass.status.rollout {
        Some(rollout) if rollout.purpose != Purpose::Trial => content.kept.iter().map(|w| w.key.clone()).collect(),
        _ => BTreeSet::new(),
    };
    let stays = |key: &Key| {
        content.wants(key) || kept.contains(key) || leaving.contains(key) || going.contains(key) || again.contains(key)
    };
    let inventory = &mut pass.status.inventory;
    let gone: Vec<Key> = inventory.keys().filter(|key| !stays(key)).cloned().collect();
    gone.iter().for_each(|key| inventory.forget(key));
    for wanted in content.wanted.iter().filter(|w| !different.contains(&w.key)) {
        if let Some(object) = pass.view.get(&wanted.key).filter(|object| !object.meta.deleting()) {
            note(inventory, &wanted.key, &object.meta.uid, release, 0);
        }
    }
    let blocked = plan.kept.iter().filter(|kept| matches!(kept.why, Why::NeedsConsent(_)));
    pass.status.blocked_prune = blocked.map(|kept| format!("{}: {}", kept.name, kept.why)).collect();
}
