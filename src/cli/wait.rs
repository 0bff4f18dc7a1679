//! `wait` and `sync`: until a commit is settled, and not because of an older one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::app::{details, evidence, find, name, namespace, releases, seven, short};
use super::args::{Sync as SyncArgs, Wait};
use super::connect::client;
use super::print::{BAD, GOOD, WARN, clean};
use super::serve::around;
use super::{Context, Explain, Failure, Outcome, fail};
use crate::client::Client;
use crate::git;
use crate::object::ours::{Application, Phase, Release, SYNC_ANNOTATION, Sync, Verdict};

/// How often the server is asked. It answers from memory; a watch would save little and would have to be resumed.
const EVERY: Duration = Duration::from_millis(250);

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    Healthy,
    RolledBack,
    Rejected,
    Superseded,
}

impl Settled {
    fn code(self) -> u8 {
        match self {
            Settled::Healthy => 0,
            Settled::RolledBack => 3,
            Settled::Rejected => 4,
            Settled::Superseded => 6,
        }
    }
}

/// The exit code when time ran out.
const TIMEOUT: u8 = 5;

pub(super) async fn wait(cx: &Context, args: Wait) -> Outcome {
    let here = around(Path::new("."));
    let commit = commit_id(&args.commit, here.as_deref())?;
    let client = client(cx).await?;
    let app = find(&client, args.app.as_deref()).await?;
    until_settled(cx, &client, &app, &commit, here.as_deref(), args.timeout).await
}

/// The full id of a commit that a person names.
fn commit_id(text: &str, here: Option<&Path>) -> Result<String, Failure> {
    let hex = text.len() >= 7 && text.len() <= 40 && text.bytes().all(|b| b.is_ascii_hexdigit());
    match here.map(|dir| git::commit_of(dir, text)) {
        Some(Ok(commit)) => Ok(commit),
        // An id need not be here: the server knows it, or will.
        _ if hex => Ok(text.to_ascii_lowercase()),
        Some(Err(error)) => Err(error.into()),
        None => fail(
            format!("{text:?} is not a commit's id, and there is no git repository around the current directory"),
            "give --commit an id",
        ),
    }
}

pub(super) async fn sync(cx: &Context, args: SyncArgs) -> Outcome {
    let client = client(cx).await?;
    let app = find(&client, args.app.as_deref()).await?;
    let mut nonce = [0_u8; 8];
    getrandom::fill(&mut nonce)?;
    let nonce: String = nonce.iter().map(|b| format!("{b:02x}")).collect();
    let patch = json!({"metadata": {"annotations": {SYNC_ANNOTATION: nonce}}});
    let _: Application =
        client.merge_patch(namespace(&app), name(&app), None, &patch).await.doing("ask for a look at the repository")?;
    if !args.wait {
        cx.print.say(format_args!("{} is looked at now; `portolan status` shows what comes of it", short(&app)));
        return Ok(0);
    }
    let begun = Instant::now();
    let mut progress = cx.print.progress("waits until the repository was read");
    let commit = loop {
        let now = find(&client, Some(&format!("{}/{}", namespace(&app), name(&app)))).await?;
        let status = now.status.unwrap_or_default();
        if status.answered_sync == nonce {
            if !status.fetch_error.is_empty() {
                return fail(
                    format!("the repository could not be read: {}", clean(&status.fetch_error)),
                    "`portolan status` shows since when",
                );
            }
            break status.observed_commit;
        }
        if begun.elapsed() > args.timeout {
            drop(progress);
            cx.print.say("time is up: the repository was not read");
            return Ok(TIMEOUT);
        }
        progress.tick();
        tokio::time::sleep(EVERY).await;
    };
    drop(progress);
    let here = git::local_path(&app.spec.source.repository);
    until_settled(cx, &client, &app, &commit, here.as_deref(), args.timeout.saturating_sub(begun.elapsed())).await
}

/// Waits for a verdict on this commit, and says it.
async fn until_settled(
    cx: &Context,
    client: &Client,
    app: &Application,
    commit: &str,
    here: Option<&Path>,
    timeout: Duration,
) -> Outcome {
    let begun = Instant::now();
    let full = format!("{}/{}", namespace(app), name(app));
    // The server's own repository knows the order of commits even where nobody stands in a clone.
    let clones: Vec<PathBuf> = here.map(Path::to_owned).into_iter().chain(git::local_path(&app.spec.source.repository)).collect();
    let mut progress = cx.print.progress(format!("waits for {}", seven(commit)));
    loop {
        let (now, all) = match look(client, &full).await {
            Ok(seen) => seen,
            // A server that restarts is no verdict.
            Err(failure) if begun.elapsed() < timeout && failure.error.chain().any(unreachable) => {
                progress.set("the server is away; it is asked again");
                tokio::time::sleep(EVERY * 4).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let newer = |seen: &str| clones.iter().find_map(|dir| git::descends(dir, commit, seen)) == Some(true);
        if let Some((settled, release)) = judge(&now, &all, commit, newer) {
            drop(progress);
            tell(cx, &now, commit, settled, release);
            return Ok(settled.code());
        }
        let status = now.status.clone().unwrap_or_default();
        let what = if !same(&status.observed_commit, commit) {
            let seen = if status.observed_commit.is_empty() { "none yet" } else { seven(&status.observed_commit) };
            format!("{} was not read yet; the newest that was: {seen}", seven(commit))
        } else {
            let on = status.waiting_on.first().map_or(String::new(), |w| format!(": waits on {w}"));
            let words = if on.is_empty() && !status.message.is_empty() { format!(": {}", status.message) } else { on };
            format!("{} {:?}{words}", seven(commit), status.phase)
        };
        progress.set(&what);
        if begun.elapsed() > timeout {
            drop(progress);
            cx.print.say(format_args!("{} {what}", cx.print.paint_talk(WARN, "not settled in time:")));
            for line in details(&status) {
                cx.print.say(format_args!("  {line}"));
            }
            return Ok(TIMEOUT);
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn unreachable(cause: &(dyn std::error::Error + 'static)) -> bool {
    matches!(cause.downcast_ref(), Some(crate::client::Error::Unreachable(_)))
}

async fn look(client: &Client, full: &str) -> Result<(Application, Vec<Release>), Failure> {
    let app = find(client, Some(full)).await?;
    let releases = releases(client, &app).await?;
    Ok((app, releases))
}

/// Whether an observed commit is the one that was asked for; that one may be abbreviated.
fn same(observed: &str, asked: &str) -> bool {
    !observed.is_empty() && observed.starts_with(asked)
}

/// What became of a commit, if that is settled, and the release that says so.
fn judge<'r>(
    app: &Application,
    all: &'r [Release],
    commit: &str,
    newer: impl Fn(&str) -> bool,
) -> Option<(Settled, Option<&'r Release>)> {
    let status = app.status.clone().unwrap_or_default();
    // The newest try of it counts: a retry replaces what was said before.
    let own = all.iter().find(|r| same(&r.spec.commit, commit));
    let verdict = own.and_then(|r| r.status.as_ref()?.verdict);
    let by_release = verdict.map(|v| match v {
        Verdict::Good => Settled::Healthy,
        Verdict::RolledBack | Verdict::Stuck => Settled::RolledBack,
        Verdict::Rejected => Settled::Rejected,
        Verdict::Superseded => Settled::Superseded,
    });
    // A pin, a retry or a new source that the server has not looked at yet may change what follows.
    if status.observed_generation < app.metadata.generation.unwrap_or(0) {
        return None;
    }
    if same(&status.observed_commit, commit) {
        // The commit is the newest: what the Application is now is said of it.
        return match (status.sync, status.phase) {
            (Sync::Invalid, _) => Some((Settled::Rejected, own)),
            (Sync::Synced, Phase::Healthy) => Some((Settled::Healthy, own)),
            // Its content was judged bad, under this commit or another one.
            (Sync::Held, Phase::RolledBack | Phase::Healthy | Phase::Stuck) if app.spec.pin.is_none() => {
                let bad = status.quarantine.iter().find(|q| q.digest == status.observed_digest);
                let release =
                    bad.and_then(|bad| all.iter().find(|r| r.metadata.name.as_deref() == Some(bad.release.as_str()))).or(own);
                match release.and_then(|r| r.status.as_ref()?.verdict) {
                    Some(Verdict::Rejected) => Some((Settled::Rejected, release)),
                    _ if bad.is_some() => Some((Settled::RolledBack, release)),
                    _ => by_release.filter(|s| *s != Settled::Healthy).map(|s| (s, own)),
                }
            }
            (_, Phase::Stuck) => by_release.map(|s| (s, own)),
            _ if by_release == Some(Settled::Rejected) => Some((Settled::Rejected, own)),
            _ => None,
        };
    }
    match by_release {
        Some(settled) => Some((settled, own)),
        // It was passed over, or has no verdict and never will: a newer one has been read.
        None if newer(&status.observed_commit) => Some((Settled::Superseded, own)),
        None => None,
    }
}

fn tell(cx: &Context, app: &Application, commit: &str, settled: Settled, release: Option<&Release>) {
    let status = app.status.clone().unwrap_or_default();
    let told = release.and_then(|r| r.status.clone()).unwrap_or_default();
    let (style, words) = match settled {
        Settled::Healthy => (GOOD, "is healthy"),
        Settled::RolledBack if told.verdict == Some(Verdict::Stuck) => (BAD, "failed, and there was no way back"),
        Settled::RolledBack => (BAD, "was rolled back"),
        Settled::Rejected => (BAD, "was rejected"),
        Settled::Superseded => (WARN, "was superseded by a newer commit"),
    };
    let back = if settled == Settled::RolledBack && !status.last_good.is_empty() {
        format!("; {} serves", status.last_good)
    } else {
        String::new()
    };
    cx.print.say(format_args!("{} {}{back}", seven(commit), cx.print.paint_talk(style, words)));
    if settled == Settled::Healthy || settled == Settled::Superseded {
        return;
    }
    if !told.message.is_empty() {
        cx.print.say(format_args!("  {}", clean(&told.message)));
    }
    for line in details(&status) {
        cx.print.say(format_args!("  {line}"));
    }
    let facts = evidence(&cx.print, &told.evidence, "  ");
    // A refusal's evidence are the problems, which were told.
    if !facts.is_empty() && status.problems.is_empty() {
        cx.print.say(facts.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn check(status: Value, releases: &[(&str, &str, &str, &str)], commit: &str, newer: bool) -> Option<u8> {
        let app = json!({"metadata": {"name": "root", "namespace": "s"}, "status": status});
        let app: Application = serde_json::from_value(app).unwrap();
        let all: Vec<Release> = releases
            .iter()
            .map(|(name, commit, digest, verdict)| {
                let status = if verdict.is_empty() { json!({"phase": "RollingOut"}) } else { json!({"verdict": verdict}) };
                let spec = json!({"application": "root", "commit": commit, "digest": digest});
                serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec, "status": status})).unwrap()
            })
            .collect();
        judge(&app, &all, commit, |_| newer).map(|(s, _)| s.code())
    }

    #[test]
    fn a_commit_is_settled_by_its_own_story_only() {
        let status = |commit: &str, digest: &str, sync: &str, phase: &str| json!({"observedCommit": commit, "observedDigest": digest, "sync": sync, "phase": phase, "quarantine": [{"digest": "bad", "release": "r2", "reason": "x"}]});
        let good = ("r1", "aaaaaaaaaa", "d1", "Good");
        let bad = ("r2", "bbbbbbbbbb", "bad", "RolledBack");
        type Row<'a> = (&'a str, Value, &'a [(&'a str, &'a str, &'a str, &'a str)], &'a str, bool, Option<u8>);
        let rows: &[Row<'_>] = &[
            ("an older commit is healthy", status("aaaaaaaaaa", "d1", "Synced", "Healthy"), &[good], "bbbbbbbbbb", false, None),
            ("healthy", status("aaaaaaaaaa", "d1", "Synced", "Healthy"), &[good], "aaaaaaa", false, Some(0)),
            (
                "a commit that means the same",
                status("cccccccccc", "d1", "Synced", "Healthy"),
                &[good],
                "cccccccccc",
                false,
                Some(0),
            ),
            (
                "on its way",
                status("bbbbbbbbbb", "d2", "OutOfSync", "RollingOut"),
                &[("r2", "bbbbbbbbbb", "d2", ""), good],
                "bbbbbbbbbb",
                false,
                None,
            ),
            ("on its way back", status("bbbbbbbbbb", "bad", "Held", "RollingBack"), &[bad, good], "bbbbbbbbbb", false, None),
            ("back", status("bbbbbbbbbb", "bad", "Held", "RolledBack"), &[bad, good], "bbbbbbbbbb", false, Some(3)),
            ("bad content again", status("dddddddddd", "bad", "Held", "RolledBack"), &[bad, good], "dddddddddd", false, Some(3)),
            ("refused", status("bbbbbbbbbb", "", "Invalid", "Healthy"), &[good], "bbbbbbbbbb", false, Some(4)),
            (
                "rejected before anything changed",
                status("bbbbbbbbbb", "d2", "Held", "Healthy"),
                &[("r2", "bbbbbbbbbb", "d2", "Rejected"), good],
                "bbbbbbbbbb",
                false,
                Some(4),
            ),
            ("passed over", status("cccccccccc", "d3", "OutOfSync", "RollingOut"), &[good], "bbbbbbbbbb", true, Some(6)),
            (
                "settled before a newer one came",
                status("cccccccccc", "d3", "OutOfSync", "RollingOut"),
                &[good],
                "aaaaaaaaaa",
                true,
                Some(0),
            ),
            (
                "superseded",
                status("cccccccccc", "d3", "OutOfSync", "RollingOut"),
                &[("r2", "bbbbbbbbbb", "d2", "Superseded"), good],
                "bbbbbbbbbb",
                false,
                Some(6),
            ),
            ("nothing read yet", json!({}), &[], "bbbbbbbbbb", false, None),
        ];
        for (name, status, releases, commit, newer, expected) in rows {
            assert_eq!(check(status.clone(), releases, commit, *newer), *expected, "{name}");
        }
    }
}
