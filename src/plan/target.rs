//! Which release the cluster should look like: `target = desired if its digest is not quarantined, else last good`.
//!
//! Everything else (pin, suspend, supersede, what is stuck) is an exception to that line, and all of them are here. How to get there is
//! decided in `plan::sync`, whether it worked in `plan::verdict`.

use jiff::Timestamp;

use crate::object::ours::{ApplicationSpec, ApplicationStatus, Pin, Purpose, Rollout};

/// A release that there is, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<'a> {
    /// Its name.
    pub release: &'a str,
    /// The digest of its rendering.
    pub digest: &'a str,
}

/// What the target is chosen from.
pub struct Input<'a> {
    /// The author stopped everything.
    pub suspended: bool,
    /// The pinned release, if there is a pin that counts.
    pub pin: Option<&'a str>,
    /// The digest of what git says now; `None` if that is not known or was refused.
    pub desired: Option<&'a str>,
    /// The release on trial.
    pub trial: Option<Known<'a>>,
    /// The release that was last good.
    pub last_good: Option<Known<'a>>,
    /// Whether a digest was judged bad.
    pub quarantined: &'a dyn Fn(&str) -> bool,
    /// What is under way.
    pub rollout: Option<&'a Rollout>,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// Nothing is known that could be applied.
    Nothing,
    /// Nothing may be written.
    Frozen(Frozen),
    /// This release, for this purpose. At rest when the cluster looks like it already.
    Follow(&'a str, Purpose),
    /// What git says now is new: a release is to be opened for it, and a trial that runs is superseded.
    Open,
}

/// Why nothing may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// The author suspended the Application.
    Suspended,
    /// The last attempt failed and there is no way on.
    Stuck,
}

/// Chooses.
pub fn choose<'a>(input: &Input<'a>) -> Target<'a> {
    if input.suspended {
        return Target::Frozen(Frozen::Suspended);
    }
    let stuck = input.rollout.filter(|r| r.stuck);
    let stuck_at = |release: &str, purpose: Purpose| stuck.is_some_and(|r| r.release == release && r.purpose == purpose);
    if let Some(pin) = input.pin {
        return if stuck_at(pin, Purpose::Pin) { Target::Frozen(Frozen::Stuck) } else { Target::Follow(pin, Purpose::Pin) };
    }
    let back = |purpose| match input.last_good {
        Some(good) if stuck_at(good.release, purpose) => Target::Frozen(Frozen::Stuck),
        Some(good) => Target::Follow(good.release, purpose),
        // A first release that failed: there is nothing to go back to, so what runs is kept.
        None if stuck.is_some() => Target::Frozen(Frozen::Stuck),
        None => Target::Nothing,
    };
    match input.desired {
        Some(desired) => {
            if let Some(trial) = input.trial.filter(|t| t.digest == desired) {
                return Target::Follow(trial.release, Purpose::Trial);
            }
            if input.last_good.is_some_and(|good| good.digest == desired) {
                return back(Purpose::Return);
            }
            if !(input.quarantined)(desired) {
                return Target::Open;
            }
            // Quarantined. With the policy `pause` the cluster stays where the failed trial left it.
            match stuck {
                Some(_) => Target::Frozen(Frozen::Stuck),
                None => back(Purpose::Back),
            }
        }
        // Git is away or its newest commit was refused: what was wanted before is still wanted.
        None => match (input.trial, input.rollout) {
            (Some(trial), _) => Target::Follow(trial.release, Purpose::Trial),
            (None, Some(rollout)) if rollout.stuck => Target::Frozen(Frozen::Stuck),
            (None, Some(rollout)) if rollout.purpose == Purpose::Back => back(Purpose::Back),
            _ => back(Purpose::Return),
        },
    }
}

/// The pin that counts now, if there is one. A pin ends by itself when its time is over.
pub fn pin(spec: &ApplicationSpec, now: Timestamp) -> Option<&Pin> {
    spec.pin.as_ref().filter(|pin| !pin.release.is_empty() && pin.expires.as_ref().is_none_or(|end| now < end.0))
}

/// Honours a request to try a quarantined digest once more: the status after it, or `None` if there is no new request.
///
/// The same request (by its nonce) counts once. A request without a digest means the one that was looked at last.
pub fn retried(spec: &ApplicationSpec, status: &ApplicationStatus) -> Option<ApplicationStatus> {
    let retry = spec.retry.as_ref().filter(|r| !r.nonce.is_empty() && r.nonce != status.retried_nonce)?;
    let digest = if retry.digest.is_empty() { &status.observed_digest } else { &retry.digest };
    let mut next = released(status, digest);
    next.retried_nonce.clone_from(&retry.nonce);
    Some(next)
}

/// The status after a digest was let out of quarantine. What is stuck may move again.
pub fn released(status: &ApplicationStatus, digest: &str) -> ApplicationStatus {
    let mut next = status.clone();
    next.quarantine.retain(|q| q.digest != digest);
    if let Some(rollout) = &mut next.rollout
        && rollout.stuck
    {
        rollout.stuck = false;
        rollout.progressed = None;
        rollout.started = None;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `desired=b trial=b last=a quarantine=c,d rollout=back:app-a stuck pin=app-x suspended`
    fn check(row: &str) -> String {
        let word = |name: &str| row.split_whitespace().find_map(|w| w.strip_prefix(name)?.strip_prefix('='));
        let release = |digest: Option<&str>| digest.map(|d| (format!("app-{d}"), d.to_owned()));
        let (trial, last) = (release(word("trial")), release(word("last")));
        let quarantine: Vec<&str> = word("quarantine").map(|q| q.split(',').collect()).unwrap_or_default();
        let rollout = word("rollout").map(|r| {
            let (purpose, release) = r.split_once(':').unwrap();
            let purpose = match purpose {
                "trial" => Purpose::Trial,
                "back" => Purpose::Back,
                "return" => Purpose::Return,
                _ => Purpose::Pin,
            };
            Rollout { release: release.to_owned(), purpose, stuck: row.contains("stuck"), ..Rollout::default() }
        });
        fn known(pair: &Option<(String, String)>) -> Option<Known<'_>> {
            pair.as_ref().map(|(release, digest)| Known { release, digest })
        }
        let quarantined = |d: &str| quarantine.contains(&d);
        let target = choose(&Input {
            suspended: row.contains("suspended"),
            pin: word("pin"),
            desired: word("desired"),
            trial: known(&trial),
            last_good: known(&last),
            quarantined: &quarantined,
            rollout: rollout.as_ref(),
        });
        format!("{target:?}")
    }

    #[test]
    fn one_rule_and_its_exceptions() {
        for (row, expected) in [
            // Nothing yet, or git away.
            ("", "Nothing"),
            ("last=a", r#"Follow("app-a", Return)"#),
            ("trial=b last=a", r#"Follow("app-b", Trial)"#),
            ("last=a rollout=back:app-a", r#"Follow("app-a", Back)"#),
            ("last=a rollout=back:app-a stuck", "Frozen(Stuck)"),
            // The rule.
            ("desired=a", "Open"),
            ("desired=a last=a", r#"Follow("app-a", Return)"#),
            ("desired=b last=a", "Open"),
            ("desired=b trial=b last=a", r#"Follow("app-b", Trial)"#),
            ("desired=b last=a quarantine=b", r#"Follow("app-a", Back)"#),
            // A newer commit supersedes a trial, a rollback, and what is stuck.
            ("desired=c trial=b last=a", "Open"),
            ("desired=c last=a quarantine=b rollout=back:app-a", "Open"),
            ("desired=c last=a quarantine=b rollout=back:app-a stuck", "Open"),
            ("desired=c quarantine=b rollout=trial:app-b stuck", "Open"),
            // A revert, also during the trial and after a rollback that got stuck.
            ("desired=a trial=b last=a", r#"Follow("app-a", Return)"#),
            ("desired=a last=a quarantine=b rollout=back:app-a stuck", r#"Follow("app-a", Return)"#),
            ("desired=a last=a quarantine=b rollout=return:app-a stuck", "Frozen(Stuck)"),
            // Nothing good to go back to.
            ("desired=b quarantine=b rollout=trial:app-b stuck", "Frozen(Stuck)"),
            ("desired=b quarantine=b", "Nothing"),
            // RB6: never roll back a rollback; with `pause` the failed trial stays.
            ("desired=b last=a quarantine=b rollout=back:app-a stuck", "Frozen(Stuck)"),
            ("desired=b last=a quarantine=b rollout=trial:app-b stuck", "Frozen(Stuck)"),
            // RB10: people win.
            ("desired=b trial=b last=a pin=app-x", r#"Follow("app-x", Pin)"#),
            ("desired=b trial=b last=a pin=app-x rollout=pin:app-x stuck", "Frozen(Stuck)"),
            ("desired=b trial=b last=a pin=app-x suspended", "Frozen(Suspended)"),
        ] {
            assert_eq!(check(row), expected, "{row}");
        }
    }

    #[test]
    fn gi2_a_retry_counts_once() {
        use crate::object::ours::{Quarantined, Retry};
        let bad = |digest: &str| Quarantined { digest: digest.to_owned(), ..Quarantined::default() };
        let status = ApplicationStatus { quarantine: vec![bad("b"), bad("c")], ..ApplicationStatus::default() };
        let retry = Retry { digest: "b".to_owned(), nonce: "1".to_owned() };
        let spec = ApplicationSpec { retry: Some(retry), ..ApplicationSpec::default() };
        let next = retried(&spec, &status).expect("a new request");
        assert_eq!(next.quarantine, vec![bad("c")]);
        assert!(retried(&spec, &next).is_none(), "the same request counts once");
    }
}
