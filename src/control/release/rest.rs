//! At rest: drift is put back, prunes that were consented to late are made up for, and it is noted how things are.
//!
//! Nothing is written when nothing changed.

use jiff::SignedDuration;

use super::look::Pass;
use super::roll::{settle, worst};
use super::{Fight, ReleaseLoop, facts};
use crate::control::Context;
use crate::control::event::Severity;
use crate::control::keyed::Trouble;
use crate::object::Key;
use crate::plan::health::lives;
use crate::plan::sync::{Change, Undo};

/// Somebody who changes an object again within this time fights with us.
const PEACE: SignedDuration = SignedDuration::from_mins(10);
/// The longest wait between two repairs of one object. Whoever fights for longer has a reason, and reads events.
const LAST_WAIT: SignedDuration = SignedDuration::from_mins(5);
/// How long the health of one object counts, before all of a release is looked through again because something happens all the time. A
/// look at a thousand Deployments that are unwell is a look at all of their pods.
const HEALTH_FOR: SignedDuration = SignedDuration::from_millis(2);
/// How soon a repair that was refused is tried again.
const REFUSED: SignedDuration = SignedDuration::from_mins(1);

impl ReleaseLoop {
    /// Looks after a cluster that is what a release wants.
    pub(super) fn rest(&mut self, cx: &mut Context<'_>, pass: &mut Pass<'_>, release: &str) -> Result<(), Trouble> {
        let key = pass.object.key.clone();
        let content = self.content(&pass.view, &key, release)?;
        let mut contents = self.contents_of(pass)?;
        contents.insert(release.to_owned(), content.clone());
        let plan = self.plan_except(pass, &content.wanted, &content.commit, &contents, &Undo::default());

        let changes: Vec<Change> = plan.changes().cloned().collect();
        pass.differs = !plan.tolerated.is_empty() || !plan.leaving.is_empty() || !plan.problems.is_empty();
        settle(pass, &content, &plan, release);
        pass.differs |= !pass.status.blocked_prune.is_empty();
        let due = self.due(pass, changes);
        if !due.is_empty() {
            let names: Vec<String> = due.iter().map(described).collect();
            match self.write_changes(cx, pass, &due, release, content.number) {
                Ok(_) => pass.say(Severity::Normal, "DriftRepaired", format!("put back {}", names.join("; "))),
                Err(evidence) => {
                    pass.differs = true;
                    pass.until(Some(pass.now + REFUSED));
                    let reasons: Vec<String> = evidence.into_iter().map(|e| e.message).collect();
                    pass.say(Severity::Warning, "DriftNotRepaired", reasons.join("; "));
                }
            }
        } else if !plan.prune.is_empty() {
            self.prune(pass, &plan.prune);
        }
        self.note_health(pass, release, content.wanted.iter().map(|w| &w.key));
        Ok(())
    }

    /// The repairs that may be made now. An object that somebody keeps changing waits longer each time.
    fn due(&mut self, pass: &mut Pass<'_>, changes: Vec<Change>) -> Vec<Change> {
        let application = pass.object.key.clone();
        let now = pass.now;
        self.fights.retain(|_, fight| now.duration_since(fight.last) < PEACE);
        let mut due = Vec::new();
        for change in changes {
            let id = (application.clone(), change.name.0.clone());
            let fight = self.fights.get(&id).copied();
            let wait = fight.map_or(SignedDuration::ZERO, |f| SignedDuration::from_secs(1 << f.times.min(9)).min(LAST_WAIT));
            match fight {
                Some(fight) if now < fight.last + wait => {
                    pass.differs = true;
                    pass.until(Some(fight.last + wait));
                }
                _ => {
                    self.fights.insert(id, Fight { times: fight.map_or(0, |f| f.times + 1), last: now });
                    due.push(change);
                }
            }
        }
        due
    }

    /// Notes how the managed objects are, unless that was done only just now.
    fn note_health<'a>(&mut self, pass: &mut Pass<'_>, release: &str, keys: impl Iterator<Item = &'a Key>) {
        let objects: Vec<_> = keys.filter(|key| lives(key)).filter_map(|key| pass.view.get(key)).collect();
        let counts = HEALTH_FOR * i32::try_from(objects.len()).unwrap_or(i32::MAX);
        let noted = self.noted.get(&pass.object.key).filter(|(of, at)| of == release && *at <= pass.now);
        if let Some(due) = noted.map(|(_, at)| *at + counts).filter(|due| *due > pass.now) {
            pass.until(Some(due));
            return;
        }
        let healths = facts::healths(&pass.view, objects.into_iter(), &pass.hosts, pass.now);
        pass.status.health = worst(&healths);
        self.noted.insert(pass.object.key.clone(), (release.to_owned(), pass.now));
    }
}

/// `Deployment shop/web: spec.replicas`.
fn described(change: &Change) -> String {
    if change.fields.is_empty() { change.name.to_string() } else { format!("{}: {}", change.name, change.fields.join(", ")) }
}
