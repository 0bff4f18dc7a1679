//! `plan` and `diff`: what a commit would do, by the very code that the server runs.
//!
//! [`source`] reads what is wanted, [`live`] and [`offline`] what is there ([`pods`] of it the pods), [`made`] puts the planners together, and [`text`],
//! [`markdown`] and JSON are three faces of one value.

mod live;
mod made;
mod markdown;
mod offline;
mod pods;
mod source;
mod text;

use made::Verdict;
use serde_json::Value;

use super::args::{Diff, Plan};
use super::{Context, Explain, Failure, Outcome, get};

pub(super) async fn plan(cx: &Context, args: Plan) -> Outcome {
    let mut progress = cx.print.progress("plans");
    progress.tick();
    let made = match &args.from {
        Some(from) => offline::plan(cx, &args, from)?,
        None => {
            let wish = source::Wish {
                repo: args.repo.clone(),
                path: args.path.clone(),
                to: args.to.clone(),
                namespace: args.namespace.clone(),
            };
            live::plan(cx, args.app.as_deref(), &wish, &args.strategy).await?
        }
    };
    drop(progress);
    match args.output.as_str() {
        "json" => cx.print.out(get::data(&serde_json::to_value(&made)?, "json")?),
        "markdown" => cx.print.out(markdown::write(&made)),
        _ => text::write(&cx.print, &made),
    }
    Ok(match (made.verdict, args.detailed_exitcode) {
        (Verdict::Rejected, _) | (Verdict::Waits, true) => 1,
        (Verdict::Changes, true) => 2,
        _ => 0,
    })
}

pub(super) async fn diff(cx: &Context, args: Diff) -> Outcome {
    let wish = source::Wish { repo: args.repo, path: None, to: args.to, namespace: None };
    let made = live::plan(cx, args.app.as_deref(), &wish, "spread").await?;
    if !made.problems.is_empty() {
        if !made.shown {
            text::problems(&cx.print, &made);
        }
        return Err(anyhow::anyhow!("{} cannot be applied, so there is nothing to compare with", made.to.label()))
            .hint("`portolan validate` shows the same");
    }
    for change in made.waves.iter().flat_map(|w| &w.changes) {
        cx.print.out(text::unified(&cx.print, &change.diff));
    }
    for object in &made.prune {
        cx.print.out(text::unified(&cx.print, &object.diff));
    }
    Ok(u8::from(made.waves.iter().any(|w| !w.changes.is_empty()) || !made.prune.is_empty()))
}

/// A value as YAML for a diff: what an author can have a view on, secrets hidden by the caller.
fn yaml(value: Option<&Value>) -> Result<String, Failure> {
    const NOISE: &[&str] = &[
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "managedFields",
        "selfLink",
        "deletionTimestamp",
        "ownerReferences",
    ];
    use crate::object::ours::{COMMIT_ANNOTATION, ORIGIN_ANNOTATION, OWNER_ANNOTATION};
    let Some(value) = value else { return Ok(String::new()) };
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        NOISE.iter().for_each(|n| drop(meta.remove(*n)));
        if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            [COMMIT_ANNOTATION, ORIGIN_ANNOTATION, OWNER_ANNOTATION].iter().for_each(|n| drop(annotations.remove(*n)));
            if annotations.is_empty() {
                meta.remove("annotations");
            }
        }
    }
    Ok(serde_yaml::to_string(&value)?)
}
