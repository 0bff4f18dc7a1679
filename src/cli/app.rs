//! Applications and their releases, as commands find and describe them.

use std::path::Path;

use crate::client::Client;
use crate::git::Mirrors;
use crate::object::ours::{Application, ApplicationStatus, Evidence, Release, SYSTEM_NAMESPACE, Sync, Verdict};

use super::connect::default_dir;
use super::print::{BAD, BOLD, GOOD, Print, WARN, clean};
use super::{Context, Explain, Failure, fail};

/// The Application that a command means: by name, `namespace/name`, or the one that there is.
pub(super) async fn find(client: &Client, name: Option<&str>) -> Result<Application, Failure> {
    if let Some(name) = name {
        let (namespace, name) = name.split_once('/').unwrap_or((SYSTEM_NAMESPACE, name));
        let found: Option<Application> = client.get(namespace, name).await.doing(format_args!("find the Application {name}"))?;
        return match found {
            Some(app) => Ok(app),
            None => {
                let all: Vec<Application> = client.list("", "").await.doing("list the Applications")?;
                let names = all.iter().map(short).collect::<Vec<_>>().join(", ");
                fail(
                    format!("there is no Application {name:?}"),
                    if names.is_empty() { "there is none at all".to_owned() } else { format!("there are {names}") },
                )
            }
        };
    }
    let mut all: Vec<Application> = client.list("", "").await.doing("list the Applications")?;
    if all.len() == 1 {
        return Ok(all.remove(0));
    }
    if let Some(root) = all.iter().position(|a| short(a) == "root") {
        return Ok(all.remove(root));
    }
    if all.is_empty() {
        return fail("the server has no Application", "start it with --repo, or apply an Application with kubectl");
    }
    fail("there are several Applications", format!("name one of {}", all.iter().map(short).collect::<Vec<_>>().join(", ")))
}

/// The name by which commands take it: without the namespace where it is the usual one.
pub(super) fn short(app: &Application) -> String {
    let (namespace, name) = (namespace(app), name(app));
    if namespace == SYSTEM_NAMESPACE { name.to_owned() } else { format!("{namespace}/{name}") }
}

pub(super) fn name(app: &Application) -> &str {
    app.metadata.name.as_deref().unwrap_or_default()
}

pub(super) fn namespace(app: &Application) -> &str {
    app.metadata.namespace.as_deref().unwrap_or_default()
}

/// Its releases, the newest first.
pub(super) async fn releases(client: &Client, app: &Application) -> Result<Vec<Release>, Failure> {
    let query = format!("fieldSelector={}", super::get::encode(&format!("spec.application={}", name(app))));
    let mut all: Vec<Release> = client.list(namespace(app), &query).await.doing("list the releases")?;
    all.retain(|r| r.spec.application == name(app));
    all.sort_by_key(|r| -r.spec.number);
    Ok(all)
}

/// The first seven digits, as git shows commits.
pub(super) fn seven(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// `Synced, Healthy`, and the pin where there is one, in the colour that belongs to it.
pub(super) fn state(print: &Print, app: &Application) -> String {
    let status = app.status.clone().unwrap_or_default();
    let pinned = if app.spec.pin.is_some() && status.sync == Sync::Held { " (pinned)" } else { "" };
    let words = format!("{:?}{pinned}, {:?}", status.sync, status.phase);
    use crate::object::ours::Phase;
    let style = match (status.sync, status.phase) {
        (Sync::Invalid, _) | (_, Phase::Stuck | Phase::RollingBack) => BAD,
        (Sync::Synced, Phase::Healthy) => GOOD,
        _ => WARN,
    };
    print.paint(style, words)
}

/// One word for a verdict, in its colour.
pub(super) fn verdict(print: &Print, release: &Release) -> String {
    let status = release.status.clone().unwrap_or_default();
    match status.verdict {
        Some(Verdict::Good) => print.paint(GOOD, "Good"),
        Some(Verdict::Superseded) => "Superseded".to_owned(),
        Some(bad) => print.paint(BAD, format!("{bad:?}")),
        None => print.paint(WARN, format!("{:?}", status.phase)),
    }
}

/// The lines that a problem list, waits and evidence make of a status, indented.
pub(super) fn details(status: &ApplicationStatus) -> Vec<String> {
    let mut lines: Vec<String> = status.waiting_on.iter().map(|w| format!("waits on   {}", clean(w))).collect();
    for problem in &status.problems {
        let place = match (problem.line, problem.column) {
            (0, _) => problem.file.clone(),
            (line, 0) => format!("{}:{line}", problem.file),
            (line, column) => format!("{}:{line}:{column}", problem.file),
        };
        lines.push(format!("problem    {}: {}", clean(&place), clean(&problem.message)));
        if let Some(hint) = &problem.hint {
            lines.push(format!("           {}", clean(hint)));
        }
    }
    lines.extend(status.blocked_prune.iter().map(|b| format!("not pruned {}", clean(b))));
    lines
}

/// What speaks against a release, in a few lines per fact.
pub(super) fn evidence(print: &Print, facts: &[Evidence], indent: &str) -> String {
    const LOG_LINES: usize = 10; // the end says what happened; the whole is in the Release
    let mut text = String::new();
    for fact in facts {
        let place = [("pod", &fact.pod), ("container", &fact.container), ("host", &fact.host)];
        let place: Vec<String> = place.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k} {}", clean(v))).collect();
        let code = fact.exit_code.map_or_else(String::new, |c| format!(", exit code {c}"));
        text += &format!(
            "{indent}{} {}: {}{code}\n",
            print.paint(BOLD, clean(&fact.object)),
            clean(&fact.reason),
            clean(&fact.message)
        );
        if !place.is_empty() {
            text += &format!("{indent}  {}\n", place.join(", "));
        }
        let log = clean(&fact.log);
        let lines: Vec<&str> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
            text += &format!("{indent}  | {line}\n");
        }
    }
    text
}

/// Mirrors for commands: a cache of the user's own.
pub(super) fn mirrors(_: &Context) -> Result<Mirrors, Failure> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from).filter(|p| p.is_absolute());
    let home = std::env::var_os("HOME").map(|h| Path::new(&h).join(".cache"));
    let dir = cache.or(home).map_or_else(|| default_dir("portolan-cache"), |c| c.join("portolan"));
    Ok(Mirrors::open(&dir.join("mirrors"))?)
}
