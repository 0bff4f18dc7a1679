//! A rollout, the healths of its objects and the time -> wait, good, or back.
//!
//! A release is *good* when everything it consists of has been healthy for the soak, and *bad* when something broke that was not broken
//! before, or when nothing moved for too long. The same rollout always gets the same verdict, after a restart as well: everything that
//! is remembered is in [`Rollout`]. Going back is not done here.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::health::{Health, State};
use crate::object::ours::{Evidence, OnFailure, Policy, Purpose, Rollout};

/// For how long everything must stay healthy, in seconds, where the author says nothing.
const SOAK: i64 = 10;
/// For how long nothing may move, in seconds, where the author says nothing. Kubernetes' own default for a Deployment.
const PROGRESS_DEADLINE: i64 = 600;
/// For how long something outside may hold a rollout up before that is shown as an error. Shorter hold-ups are a part of every rolling
/// update: a pod waits for the room that an old one leaves.
const HOLD_UP: SignedDuration = SignedDuration::from_secs(20);

/// How soon it is looked again whether a host gave a sign of life.
const SIGN: SignedDuration = SignedDuration::from_secs(1);

/// What the judge is shown.
pub struct Input<'a> {
    /// What is remembered of the rollout.
    pub rollout: &'a Rollout,
    /// How it is to be judged.
    pub policy: &'a Policy,
    /// The health of each object that was applied so far, by name: `Deployment shop/web`.
    pub healths: &'a BTreeMap<String, Health>,
    /// Whether everything has been applied.
    pub applied: bool,
    /// How many hosts there are, and how many of them do not answer.
    pub hosts: Hosts,
    /// Hosts that run its pods and whose sign of life is overdue: what their containers do now is not known.
    pub silent: &'a BTreeSet<String>,
    /// Since when all hosts that run its pods give signs of life without a gap. What one of them shows may be older than the gap.
    pub heard_since: Timestamp,
    /// The release that one could go back to exists.
    pub way_back: bool,
    /// Since when somebody watches: the start of this server. What did not move while nobody was there to move it is no failure, and
    /// what nobody saw healthy is not known to have been.
    pub watched_since: Timestamp,
    /// Now.
    pub now: Timestamp,
}

/// The hosts of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// All of them.
    pub total: usize,
    /// Those that do not answer.
    pub unreachable: usize,
}

impl Hosts {
    /// Whether so many are away that the fault is more likely ours than theirs.
    pub fn mostly_away(self) -> bool {
        self.unreachable * 2 > self.total
    }
}

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Neither good nor bad yet.
    Wait {
        /// When the decision changes at the latest if nothing happens, if it ever does.
        until: Option<Timestamp>,
        /// What it waits on, most important first.
        on: Vec<String>,
        /// What holds it up is a passing fault outside of it: the phase is `Errored`, and no deadline counts.
        errored: bool,
        /// Everything is healthy; only the soak is missing.
        verifying: bool,
    },
    /// Healthy for the whole soak.
    Good,
    /// Bad: back to the last good release.
    RollBack {
        /// Why.
        evidence: Vec<Evidence>,
    },
    /// Bad, and there is no way back: stop here.
    Stuck {
        /// Why.
        evidence: Vec<Evidence>,
    },
    /// Bad, but the policy is to keep trying.
    Continue {
        /// Why.
        evidence: Vec<Evidence>,
    },
}

/// Judges.
pub fn judge(input: &Input<'_>) -> Decision {
    let Input { rollout, policy, now, .. } = *input;
    let counted: Vec<(&String, &Health)> = counted(rollout, input.healths).collect();
    let worst = counted.iter().map(|(_, h)| h.state).max().unwrap_or_default();
    let failed = |evidence| fail(rollout.purpose, policy, input.way_back, evidence);
    let wait = |until, on, errored| Decision::Wait { until, on, errored, verifying: false };
    if worst == State::Healthy && input.applied {
        let soak = soak(rollout, policy);
        let since = rollout.healthy_since.as_ref().map_or(now, |t| t.0);
        let end = if soak.is_zero() { since } else { since.max(input.watched_since).max(input.heard_since) + soak };
        let verifying = |until, on| Decision::Wait { until: Some(until), on: vec![on], errored: false, verifying: true };
        return match input.silent.first() {
            _ if now < end => verifying(end, "the soak".to_owned()),
            Some(host) if !soak.is_zero() => verifying(now + SIGN, format!("a sign of life from host {host}")),
            _ => Decision::Good,
        };
    }
    if input.hosts.mostly_away() {
        let Hosts { total, unreachable } = input.hosts;
        let mut on = vec![format!("{unreachable} of {total} hosts do not answer")];
        on.extend(waits(&counted));
        return wait(None, on, true);
    }
    let of = |state: State| counted.iter().filter(move |(_, h)| h.state == state);
    let broken: Vec<Evidence> = of(State::Broken).flat_map(|(_, h)| h.evidence.clone()).collect();
    if worst == State::Broken {
        return failed(broken);
    }
    let progressed = rollout.progressed.as_ref().or(rollout.started.as_ref()).map_or(now, |t| t.0);
    let progressed = progressed.max(input.watched_since);
    let deadline = progressed + SignedDuration::from_secs(policy.progress_deadline_seconds.unwrap_or(PROGRESS_DEADLINE).max(1));
    if worst == State::Healthy {
        return wait(Some(deadline), Vec::new(), false); // the next wave is about to be written
    }
    if worst == State::Progressing {
        // A controller that gave up earlier is believed, as far as its time was not taken by something outside.
        let overdue = of(State::Progressing).filter_map(|(_, h)| h.overdue).min();
        let deadline = overdue.map_or(deadline, |own| deadline.min(progressed + SignedDuration::from_secs(own.max(1))));
        if now < deadline {
            return wait(Some(deadline), waits(&counted), false);
        }
        let minutes = deadline.duration_since(progressed);
        let evidence = of(State::Progressing).flat_map(|(name, health)| {
            let summary = Evidence {
                object: (*name).clone(),
                reason: "ProgressDeadlineExceeded".to_owned(),
                message: format!("nothing moved for {}: {}", seconds(minutes), health.on.join("; ")),
                ..Evidence::default()
            };
            std::iter::once(summary).chain(health.evidence.clone())
        });
        return failed(evidence.collect());
    }
    // Something outside of the release stands in its way. What else does not move may wait for the very same thing, so that no deadline
    // counts.
    let errored = held_up(worst, progressed, now);
    wait((!errored).then_some(progressed + HOLD_UP), waits(&counted), errored)
}

/// Whether what is missing is missing for a reason outside of the release.
fn outside(worst: State, hosts: Hosts) -> bool {
    matches!(worst, State::HeldUp | State::Unknown) || hosts.mostly_away() && worst != State::Healthy
}

fn held_up(worst: State, progressed: Timestamp, now: Timestamp) -> bool {
    matches!(worst, State::HeldUp | State::Unknown) && now.duration_since(progressed) >= HOLD_UP
}

/// What follows from evidence against a rollout.
pub fn fail(purpose: Purpose, policy: &Policy, way_back: bool, evidence: Vec<Evidence>) -> Decision {
    if purpose != Purpose::Trial {
        // Never roll back a rollback: the two would take turns for ever.
        return Decision::Stuck { evidence };
    }
    match policy.on_failure.unwrap_or_default() {
        OnFailure::Rollback if way_back => Decision::RollBack { evidence },
        OnFailure::Rollback | OnFailure::Pause => Decision::Stuck { evidence },
        OnFailure::Continue => Decision::Continue { evidence },
    }
}

fn soak(rollout: &Rollout, policy: &Policy) -> SignedDuration {
    // A release that was good before has been watched already.
    let seconds = if rollout.purpose == Purpose::Trial { policy.soak_seconds.unwrap_or(SOAK).max(0) } else { 0 };
    SignedDuration::from_secs(seconds)
}

fn seconds(time: SignedDuration) -> String {
    let seconds = time.as_secs();
    if seconds >= 60 && seconds % 60 == 0 { format!("{} minutes", seconds / 60) } else { format!("{seconds} seconds") }
}

/// The objects whose health counts: without those that were unhealthy before and did not get worse. A trial gets no such excuse for what
/// it changes itself.
pub fn counted<'a>(
    rollout: &'a Rollout,
    healths: &'a BTreeMap<String, Health>,
) -> impl Iterator<Item = (&'a String, &'a Health)> {
    healths.iter().filter(|(name, health)| {
        let changed = rollout.purpose == Purpose::Trial && rollout.touched.contains(*name);
        let before = rollout.unhealthy_before.get(*name).filter(|_| !changed).and_then(|word| State::of_word(word));
        before.is_none_or(|before| health.state > before)
    })
}

/// What is waited for, worst first, with the object's name.
fn waits(counted: &[(&String, &Health)]) -> Vec<String> {
    let mut unwell: Vec<_> = counted.iter().filter(|(_, h)| h.state != State::Healthy).collect();
    unwell.sort_by_key(|(_, h)| std::cmp::Reverse(h.state));
    unwell.iter().map(|(name, h)| format!("{name}: {}", h.on.join("; "))).collect()
}

/// The rollout's memory after a look: how far each object got, when something last moved, since when all is healthy, and since when
/// it is held up. Time in which it was held up is taken off the progress deadline.
pub fn remember(rollout: &Rollout, healths: &BTreeMap<String, Health>, applied: bool, hosts: Hosts, now: Timestamp) -> Rollout {
    let mut next = rollout.clone();
    for (name, health) in healths {
        let before = rollout.progress.get(name).copied();
        if health.progress > before.unwrap_or(0) {
            next.progress.insert(name.clone(), health.progress);
            // The first look at an object only notes where it stands.
            next.progressed = Some(Time(now));
        }
    }
    let worst = counted(rollout, healths).map(|(_, h)| h.state).max().unwrap_or_default();
    match (outside(worst, hosts), &rollout.held_up_since) {
        (true, None) => next.held_up_since = Some(Time(now)),
        (false, Some(since)) => {
            let moved = next.progressed.as_ref().or(next.started.as_ref()).map_or(now, |t| t.0);
            next.progressed = Some(Time(moved + now.duration_since(since.0.max(moved))));
            next.held_up_since = None;
        }
        _ => {}
    }
    let well = applied && counted(rollout, healths).all(|(_, h)| h.state == State::Healthy);
    next.healthy_since = if well { rollout.healthy_since.clone().or(Some(Time(now))) } else { None };
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    /// `at=30 applied web=Broken overdue=web:60 before=db:Broken touched=web progressed=10 healthy=20 hosts=2/3 back pause`
    fn check(row: &str) -> String {
        let words: Vec<&str> = row.split_whitespace().collect();
        let word = |name: &str| words.iter().find_map(|w| w.strip_prefix(name)?.strip_prefix('='));
        let has = |name: &str| words.contains(&name);
        let at = |seconds: i64| START + SignedDuration::from_secs(seconds);
        let time = |name: &str| word(name).map(|n| Time(at(n.parse().unwrap())));
        let mut healths = BTreeMap::new();
        let overdue =
            |name: &str| word("overdue").and_then(|o| o.strip_prefix(name)?.strip_prefix(':')).map(|n| n.parse().unwrap());
        for (name, state) in words.iter().filter_map(|w| w.split_once('=')) {
            if let Some(state) = State::of_word(state) {
                let evidence = Evidence { object: name.to_owned(), reason: "Because".to_owned(), ..Evidence::default() };
                let evidence = if state == State::Broken { vec![evidence] } else { Vec::new() };
                let on = vec![format!("is {}", state.word())];
                healths.insert(name.to_owned(), Health { state, on, evidence, overdue: overdue(name), ..Health::default() });
            }
        }
        let before = word("before").map(|b| b.split_once(':').unwrap()).map(|(n, s)| (n.to_owned(), s.to_owned()));
        let rollout = Rollout {
            purpose: if has("back") { Purpose::Back } else { Purpose::Trial },
            started: Some(Time(START)),
            progressed: time("progressed"),
            healthy_since: time("healthy"),
            unhealthy_before: before.into_iter().collect(),
            touched: word("touched").map(str::to_owned).into_iter().collect(),
            ..Rollout::default()
        };
        let (unreachable, total) = word("hosts").map_or((0, 3), |h| {
            let (a, b) = h.split_once('/').unwrap();
            (a.parse().unwrap(), b.parse().unwrap())
        });
        let on_failure = if has("pause") {
            Some(OnFailure::Pause)
        } else if has("continue") {
            Some(OnFailure::Continue)
        } else {
            None
        };
        let decision = judge(&Input {
            rollout: &rollout,
            policy: &Policy { on_failure, ..Policy::default() },
            healths: &healths,
            applied: has("applied"),
            hosts: Hosts { total, unreachable },
            silent: &word("silent").map(str::to_owned).into_iter().collect(),
            heard_since: at(word("heard").map_or(0, |n| n.parse().unwrap())),
            watched_since: at(word("watched").map_or(0, |n| n.parse().unwrap())),
            way_back: !has("first"),
            now: at(word("at").unwrap().parse().unwrap()),
        });
        let why =
            |evidence: &[Evidence]| evidence.iter().map(|e| format!("{} {}", e.object, e.reason)).collect::<Vec<_>>().join(", ");
        match decision {
            Decision::Wait { until, on, errored, verifying } => {
                let until = until.map_or("ever".to_owned(), |t| t.as_second().to_string());
                let word = if errored {
                    "errored"
                } else if verifying {
                    "verifying"
                } else {
                    "rolling"
                };
                format!("wait until {until} {word} [{}]", on.join(" | "))
            }
            Decision::Good => "good".to_owned(),
            Decision::RollBack { evidence } => format!("back: {}", why(&evidence)),
            Decision::Stuck { evidence } => format!("stuck: {}", why(&evidence)),
            Decision::Continue { evidence } => format!("continue: {}", why(&evidence)),
        }
    }

    #[test]
    fn verdicts() {
        for (row, expected) in [
            // Good only after everything is applied, and healthy for the soak.
            ("at=5 web=Healthy", "wait until 600 rolling []"),
            ("at=5 applied web=Healthy", "wait until 15 verifying [the soak]"),
            ("at=14 applied web=Healthy healthy=5", "wait until 15 verifying [the soak]"),
            ("at=15 applied web=Healthy healthy=5", "good"),
            ("at=5 applied back web=Healthy healthy=5", "good"),
            ("at=5 applied", "wait until 15 verifying [the soak]"),
            // Only what somebody watched is known.
            ("at=15 applied web=Healthy healthy=5 watched=14", "wait until 24 verifying [the soak]"),
            ("at=24 applied web=Healthy healthy=5 watched=14", "good"),
            ("at=15 applied web=Healthy healthy=5 silent=b", "wait until 16 verifying [a sign of life from host b]"),
            ("at=15 applied web=Healthy healthy=5 heard=8", "wait until 18 verifying [the soak]"),
            ("at=5 applied back web=Healthy healthy=5 silent=b watched=4", "good"),
            ("at=900 applied web=Progressing watched=890", "wait until 1490 rolling [web: is Progressing]"),
            ("at=1490 applied web=Progressing watched=890", "back: web ProgressDeadlineExceeded"),
            // Fails fast, and at its deadline.
            ("at=5 applied web=Broken db=Healthy", "back: web Because"),
            ("at=5 web=Broken", "back: web Because"),
            ("at=500 applied web=Progressing", "wait until 600 rolling [web: is Progressing]"),
            ("at=600 applied web=Progressing", "back: web ProgressDeadlineExceeded"),
            ("at=60 applied web=Progressing overdue=web:100", "wait until 100 rolling [web: is Progressing]"),
            ("at=100 applied web=Progressing overdue=web:100", "back: web ProgressDeadlineExceeded"),
            ("at=600 applied web=Progressing progressed=100", "wait until 700 rolling [web: is Progressing]"),
            // What is outside of the release is not its fault.
            ("at=5 applied web=HeldUp", "wait until 20 rolling [web: is HeldUp]"),
            ("at=900 applied web=HeldUp", "wait until ever errored [web: is HeldUp]"),
            ("at=900 applied web=HeldUp db=Progressing", "wait until ever errored [web: is HeldUp | db: is Progressing]"),
            ("at=900 applied web=Unknown", "wait until ever errored [web: is Unknown]"),
            ("at=900 applied web=HeldUp db=Broken", "back: db Because"),
            ("at=900 applied web=Broken hosts=2/3", "wait until ever errored [2 of 3 hosts do not answer | web: is Broken]"),
            ("at=900 applied web=Broken hosts=1/3", "back: web Because"),
            // What was unhealthy before and did not get worse does not count, unless it was changed.
            ("at=50 applied web=Healthy db=Broken before=db:Broken healthy=5", "good"),
            ("at=50 applied web=Healthy db=Broken before=db:Unknown", "back: db Because"),
            ("at=50 applied web=Healthy db=Broken before=db:Broken touched=db", "back: db Because"),
            ("at=50 applied back web=Healthy db=Broken before=db:Broken touched=db healthy=50", "good"),
            // Where to.
            ("at=5 applied first web=Broken", "stuck: web Because"),
            ("at=5 applied back web=Broken", "stuck: web Because"),
            ("at=5 applied pause web=Broken", "stuck: web Because"),
            ("at=5 applied continue web=Broken", "continue: web Because"),
        ] {
            assert_eq!(check(row), expected, "{row}");
        }
    }

    #[test]
    fn the_deadline_stands_still_while_something_outside_holds_it_up() {
        let at = |seconds: i64| START + SignedDuration::from_secs(seconds);
        let health = |word: &str, progress: i64| {
            let state = State::of_word(word).unwrap();
            BTreeMap::from([("web".to_owned(), Health { state, progress, ..Health::default() })])
        };
        let away = Hosts { total: 3, unreachable: 2 };
        let all = Hosts { total: 3, unreachable: 0 };
        let mut rollout = Rollout { started: Some(Time(START)), progressed: Some(Time(START)), ..Rollout::default() };
        for (second, word, progress, hosts, held, progressed) in [
            (100, "Progressing", 1, all, None, 100),
            (150, "HeldUp", 1, all, Some(150), 100),
            (200, "HeldUp", 1, all, Some(150), 100),
            (250, "Progressing", 1, all, None, 200),
            (260, "Unknown", 1, all, Some(260), 200),
            // What moved meanwhile counts from when it moved.
            (280, "Unknown", 2, all, Some(260), 280),
            (300, "Progressing", 2, all, None, 300),
            (310, "Progressing", 2, away, Some(310), 300),
            (900, "Progressing", 2, all, None, 890),
            (900, "Healthy", 2, away, None, 890),
        ] {
            rollout = remember(&rollout, &health(word, progress), true, hosts, at(second));
            assert_eq!(rollout.held_up_since, held.map(|s| Time(at(s))), "{second} {word}");
            assert_eq!(rollout.progressed, Some(Time(at(progressed))), "{second} {word}");
        }
    }

    #[test]
    fn going_round_in_circles_is_not_progress() {
        let at = |seconds: i64| START + SignedDuration::from_secs(seconds);
        let health = |progress: i64| {
            BTreeMap::from([("web".to_owned(), Health { state: State::Progressing, progress, ..Health::default() })])
        };
        let mut rollout = Rollout { started: Some(Time(START)), ..Rollout::default() };
        for (second, progress) in [(1, 1), (2, 2), (3, 1), (4, 2), (5, 0), (6, 2)] {
            rollout = remember(&rollout, &health(progress), true, Hosts::default(), at(second));
        }
        assert_eq!(rollout.progressed, Some(Time(at(2))));
        assert_eq!(rollout.healthy_since, None);
    }
}
