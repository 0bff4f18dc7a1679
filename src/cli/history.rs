//! `history`: every release of an Application, the failed ones too.

use serde_json::Value;

use super::app::{evidence, find, releases, seven, verdict};
use super::args::History;
use super::connect::client;
use super::print::{BOLD, ago, clean};
use super::{Context, Outcome, get};
use crate::object::kind_of;
use crate::object::ours::Release;

pub(super) async fn run(cx: &Context, args: History) -> Outcome {
    let client = client(cx).await?;
    let app = find(&client, args.app.as_deref()).await?;
    let mut all = releases(&client, &app).await?;
    all.truncate(args.limit);
    let format = args.output.format.as_str();
    if matches!(format, "json" | "yaml" | "name") {
        let kind = kind_of::<Release>();
        let mut objects = Vec::new();
        for release in &all {
            let mut value: Value = serde_json::to_value(release)?;
            value["apiVersion"] = kind.api_version().into();
            value["kind"] = kind.kind.into();
            objects.push((kind, value));
        }
        get::show(cx, &objects, format, false, false)?;
        return Ok(0);
    }
    if all.is_empty() {
        cx.print.say("there is no release yet; `portolan status` says why");
        return Ok(0);
    }
    let now = crate::clock::now();
    let status = app.status.clone().unwrap_or_default();
    for release in &all {
        let name = release.metadata.name.clone().unwrap_or_default();
        let told = release.status.clone().unwrap_or_default();
        let mark = if name == status.target { "*" } else { " " };
        let good = if name == status.last_good { ", last good" } else { "" };
        let when =
            told.finished.as_ref().or(told.started.as_ref()).map_or_else(String::new, |t| format!("{} ago", ago(t.0, now)));
        cx.print.line(format_args!(
            "{mark} {} {} {} ({}{good}) {when}",
            cx.print.paint(BOLD, &name),
            seven(&release.spec.commit),
            clean(&release.spec.subject),
            verdict(&cx.print, release),
        ));
        if format == "wide" {
            cx.print.line(format_args!(
                "    {}, {} objects, digest {}",
                clean(&release.spec.author),
                release.spec.objects,
                seven(&release.spec.digest)
            ));
        }
        if !told.message.is_empty() && told.verdict != Some(crate::object::ours::Verdict::Good) {
            cx.print.line(format_args!("    {}", clean(&told.message)));
        }
        if args.evidence || format == "wide" {
            cx.print.out(evidence(&cx.print, &told.evidence, "    "));
        }
    }
    Ok(0)
}
