//! `rollback` and `retry`: what a person may say against the automatic.

use jiff::SignedDuration;
use serde_json::json;

use super::app::{find, name, namespace, releases, seven, short};
use super::args::{Retry, Rollback};
use super::connect::client;
use super::print::clean;
use super::{Context, Explain, Failure, Outcome, fail};
use crate::object::ours::{Application, Release, Verdict};

pub(super) async fn rollback(cx: &Context, args: Rollback) -> Outcome {
    let client = client(cx).await?;
    let app = find(&client, Some(&args.app)).await?;
    if args.unpin {
        if app.spec.pin.is_none() {
            cx.print.say(format_args!("{} is not pinned", short(&app)));
            return Ok(0);
        }
        let _: Application = client
            .merge_patch(namespace(&app), name(&app), None, &json!({"spec": {"pin": null}}))
            .await
            .doing("remove the pin")?;
        cx.print.say(format_args!("{} follows git again", short(&app)));
        return Ok(0);
    }
    let all = releases(&client, &app).await?;
    let chosen = choose(&app, &all, args.release.as_deref())?;
    let release = chosen.metadata.name.clone().unwrap_or_default();
    let mut pin = json!({"release": release, "reason": args.reason, "expires": null});
    if let Some(expires) = args.expires {
        let until = crate::clock::now() + SignedDuration::try_from(expires)?;
        pin["expires"] = until.strftime("%FT%TZ").to_string().into();
    }
    let _: Application =
        client.merge_patch(namespace(&app), name(&app), None, &json!({"spec": {"pin": pin}})).await.doing("pin the release")?;
    cx.print.say(format_args!(
        "{} goes to {release} ({} {}) and stays there; `portolan rollback {} --unpin` follows git again",
        short(&app),
        seven(&chosen.spec.commit),
        clean(&chosen.spec.subject),
        short(&app),
    ));
    Ok(0)
}

/// The release that a person means: by name or number, or the last good one before the one that runs.
fn choose<'r>(app: &Application, all: &'r [Release], wish: Option<&str>) -> Result<&'r Release, Failure> {
    let verdict = |r: &Release| r.status.as_ref().and_then(|s| s.verdict);
    if let Some(wish) = wish {
        let number: Option<i64> = wish.parse().ok();
        let found = all.iter().find(|r| r.metadata.name.as_deref() == Some(wish) || Some(r.spec.number) == number);
        return match found {
            Some(release) if verdict(release) == Some(Verdict::Rejected) => {
                fail(format!("release {wish} was rejected: it cannot be applied"), "`portolan history` shows the others")
            }
            Some(release) => Ok(release),
            None => fail(format!("{} has no release {wish:?}", short(app)), "`portolan history` lists them"),
        };
    }
    let status = app.status.clone().unwrap_or_default();
    let running = all.iter().find(|r| r.metadata.name.as_deref() == Some(status.target.as_str()));
    let before = |r: &&Release| running.is_none_or(|run| r.spec.number < run.spec.number && r.spec.digest != run.spec.digest);
    match all.iter().filter(|r| verdict(r) == Some(Verdict::Good)).find(before) {
        Some(release) => Ok(release),
        None => fail("there is no earlier good release", "`portolan history` lists all; name one to go to it nevertheless"),
    }
}

pub(super) async fn retry(cx: &Context, args: Retry) -> Outcome {
    let client = client(cx).await?;
    let app = find(&client, Some(&args.app)).await?;
    let status = app.status.clone().unwrap_or_default();
    let bad = status.quarantine.iter().find(|q| q.digest == status.observed_digest);
    let Some(bad) = bad else {
        let others = status.quarantine.len();
        let hint = match others {
            0 => "nothing of it is quarantined".to_owned(),
            n => format!("{n} other contents are quarantined, but git does not have them now"),
        };
        return fail(format!("what git says for {} was not judged bad", short(&app)), hint);
    };
    let mut nonce = [0_u8; 8];
    getrandom::fill(&mut nonce)?;
    let nonce: String = nonce.iter().map(|b| format!("{b:02x}")).collect();
    let patch = json!({"spec": {"retry": {"digest": bad.digest, "nonce": nonce}}});
    let _: Application = client.merge_patch(namespace(&app), name(&app), None, &patch).await.doing("ask for another try")?;
    cx.print.say(format_args!(
        "{} tries {} again, which failed as {}: {}",
        short(&app),
        seven(&status.observed_commit),
        bad.release,
        clean(&bad.reason)
    ));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollback_goes_to_the_last_good_one_before() {
        let app: Application = serde_json::from_value(
            json!({"metadata": {"name": "root", "namespace": "portolan-system"}, "status": {"target": "root-4"}}),
        )
        .unwrap();
        let release = |n: i64, digest: &str, verdict: &str| -> Release {
            serde_json::from_value(json!({
                "metadata": {"name": format!("root-{n}")},
                "spec": {"application": "root", "number": n, "digest": digest},
                "status": {"verdict": verdict},
            }))
            .unwrap()
        };
        let all = [
            release(5, "e", "RolledBack"),
            release(4, "d", "Good"),
            release(3, "d", "Good"),
            release(2, "b", "Rejected"),
            release(1, "a", "Good"),
        ];
        let name = |wish: Option<&str>| {
            choose(&app, &all, wish).map(|r| r.metadata.name.clone().unwrap()).map_err(|f| f.error.to_string())
        };
        assert_eq!(name(None), Ok("root-1".to_owned()), "not the same content, not a bad one");
        assert_eq!(name(Some("3")), Ok("root-3".to_owned()));
        assert_eq!(name(Some("root-5")), Ok("root-5".to_owned()));
        assert_eq!(name(Some("2")), Err("release 2 was rejected: it cannot be applied".to_owned()));
        assert!(name(Some("9")).is_err());
    }
}
