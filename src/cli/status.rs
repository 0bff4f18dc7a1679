//! `status`: what runs, its verdict, and what it waits on.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::app::{details, evidence, find, releases, seven, short, state, verdict};
use super::args::Status;
use super::connect::client;
use super::print::{BOLD, ago, clean};
use super::{Context, Explain, Outcome, get};
use crate::object::ours::{Application, ApplicationStatus, Release, Sync};

pub(super) async fn run(cx: &Context, args: Status) -> Outcome {
    let client = client(cx).await?;
    let apps: Vec<Application> = match args.app.as_deref() {
        Some(name) => vec![find(&client, Some(name)).await?],
        None => client.list("", "").await.doing("list the Applications")?,
    };
    if args.output == "json" {
        let list: Vec<Value> =
            apps.iter().map(|a| json!({"name": short(a), "source": a.spec.source, "status": a.status})).collect();
        cx.print.out(get::data(&Value::Array(list), "json")?);
        return Ok(0);
    }
    if apps.is_empty() {
        cx.print.say("there is no Application: start the server with --repo, or apply one with kubectl");
    }
    let now = crate::clock::now();
    for (n, app) in apps.iter().enumerate() {
        let releases = releases(&client, app).await?;
        if n > 0 {
            cx.print.line("");
        }
        cx.print.out(one(cx, app, &releases, now));
    }
    Ok(0)
}

/// One Application in a few lines.
fn one(cx: &Context, app: &Application, releases: &[Release], now: Timestamp) -> String {
    let status: ApplicationStatus = app.status.clone().unwrap_or_default();
    let named = |name: &str| releases.iter().find(|r| r.metadata.name.as_deref() == Some(name));
    let mut lines = Vec::new();
    lines.push(format!("{}  {}", cx.print.paint(BOLD, clean(&short(app))), state(&cx.print, app)));
    if !status.message.is_empty() {
        lines.push(format!("  {}", clean(&status.message)));
    }
    if !status.health.is_empty() && status.health != "Healthy" {
        lines.push(format!("  objects    {}", clean(&status.health)));
    }
    let source = &app.spec.source;
    let at = |label: &str, text: &str| if text.is_empty() { String::new() } else { format!("{label}{}", clean(text)) };
    lines.push(format!(
        "  source     {}{}{}",
        clean(&source.repository),
        at(" at ", &source.revision),
        at(", path ", &source.path)
    ));
    let describe = |release: &Release| {
        let spec = &release.spec;
        let since = release
            .status
            .as_ref()
            .and_then(|s| s.finished.as_ref().or(s.started.as_ref()))
            .map(|t| format!(", {} ago", ago(t.0, now)));
        let name = release.metadata.name.as_deref().unwrap_or_default();
        format!(
            "{} {} ({name}, {}{})",
            seven(&spec.commit),
            clean(&spec.subject),
            verdict(&cx.print, release),
            since.unwrap_or_default()
        )
    };
    let mut told = Vec::new();
    for (label, name) in [("runs", &status.target), ("on trial", &status.trial), ("last good", &status.last_good)] {
        if let Some(release) = named(name).filter(|_| !told.contains(&name)) {
            lines.push(format!("  {label:<10} {}", describe(release)));
            told.push(name);
        }
    }
    let told_already = told.iter().any(|n| named(n).is_some_and(|r| r.spec.commit == status.observed_commit));
    if !told_already && !status.observed_commit.is_empty() {
        let same =
            named(&status.target).is_some_and(|r| r.spec.digest == status.observed_digest && !status.observed_digest.is_empty());
        let what = match releases.iter().find(|r| r.spec.commit == status.observed_commit) {
            Some(release) => describe(release),
            None => format!("{}{}", seven(&status.observed_commit), if same { ", which means the same" } else { "" }),
        };
        lines.push(format!("  git has    {what}"));
    }
    if let Some(pin) = &app.spec.pin {
        let until = pin.expires.as_ref().map(|t| format!(", until {}", t.0.strftime("%F %H:%M UTC")));
        lines.push(format!("  pinned     {}{}{}", clean(&pin.release), at(": ", &pin.reason), until.unwrap_or_default()));
    }
    if !status.fetch_error.is_empty() {
        let since = status.last_fetch.as_ref().map(|t| format!(" (read last {} ago)", ago(t.0, now)));
        lines.push(format!("  git        {}{}", clean(&status.fetch_error), since.unwrap_or_default()));
    }
    lines.extend(details(&status).into_iter().map(|l| format!("  {l}")));
    let mut text = lines.into_iter().map(|l| l + "\n").collect::<String>();
    // Why it is held or stuck: the failed release's own evidence.
    let held =
        status.quarantine.iter().find(|q| q.digest == status.observed_digest && status.sync == Sync::Held).map(|q| &q.release);
    let stuck =
        status.rollout.as_ref().filter(|r| r.stuck).map(|r| if r.back_from.is_empty() { &r.release } else { &r.back_from });
    if let Some(failed) = held.or(stuck).and_then(|name| named(name)).filter(|_| app.spec.pin.is_none()) {
        let facts = evidence(&cx.print, &failed.status.clone().unwrap_or_default().evidence, "    ");
        if !facts.is_empty() {
            text += &format!("  {} failed:\n{facts}", failed.metadata.name.as_deref().unwrap_or_default());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Global;
    use crate::cli::print::Print;

    #[test]
    fn an_application_in_a_few_lines() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let app: Application = serde_json::from_value(json!({
            "metadata": {"name": "root", "namespace": "portolan-system"},
            "spec": {"source": {"repository": "/srv/shop.git", "revision": "main", "path": "apps"}},
            "status": {
                "sync": "Held", "phase": "RolledBack", "message": "went back to root-1",
                "observedCommit": "9c1e2f7aaaaaaaaa", "observedDigest": "d2", "target": "root-1", "lastGood": "root-1",
                "waitingOn": ["Deployment shop/web: 1 of 3 pods ready"],
                "quarantine": [{"digest": "d2", "release": "root-2", "reason": "it was bad"}],
            },
        }))
        .unwrap();
        let release = |n: i64, commit: &str, status: Value| -> Release {
            let spec = json!({"application": "root", "number": n, "commit": commit, "subject": "Commit \u{1b}[31m", "digest": format!("d{n}")});
            serde_json::from_value(json!({"metadata": {"name": format!("root-{n}")}, "spec": spec, "status": status})).unwrap()
        };
        let evidence = json!([{
            "object": "Deployment shop/web", "pod": "web-1", "container": "web", "host": "a", "reason": "CrashLoopBackOff",
            "message": "it ended again and again", "exitCode": 3, "log": "no\nconfig\n",
        }]);
        let releases = [
            release(
                2,
                "9c1e2f7aaaaaaaaa",
                json!({"verdict": "RolledBack", "evidence": evidence, "finished": "2026-01-01T11:59:00Z"}),
            ),
            release(1, "4b07d11aaaaaaaaa", json!({"verdict": "Good", "finished": "2026-01-01T11:00:00Z"})),
        ];
        let (print, _) = Print::captured();
        let cx = Context { global: Global::default(), print };
        expect_test::expect![[r#"
            root  Held, RolledBack
              went back to root-1
              source     /srv/shop.git at main, path apps
              runs       4b07d11 Commit [31m (root-1, Good, 60m ago)
              git has    9c1e2f7 Commit [31m (root-2, RolledBack, 60s ago)
              waits on   Deployment shop/web: 1 of 3 pods ready
              root-2 failed:
                Deployment shop/web CrashLoopBackOff: it ended again and again, exit code 3
                  pod web-1, container web, host a
                  | no
                  | config
        "#]]
        .assert_eq(&one(&cx, &app, &releases, now));
    }
}
