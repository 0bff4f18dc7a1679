//! Jobs and cron jobs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::causes::{Causes, list, text, there};
use super::pod;
use crate::object::cron::Schedule;
use crate::object::selector::LabelSelector;

/// The longest name of a cron job: its jobs' names are eleven longer, and theirs are values of labels.
const CRON_JOB_NAME_AT_MOST: usize = 52;

/// Jobs.
pub fn job(object: &Value, old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    job_spec(&mut c, "spec", spec);
    // Where there is none yet, one is made when the job is created.
    if there(&spec["selector"]) {
        selector(&mut c, object);
    } else if spec["manualSelector"] == true || old.is_some() {
        c.required("spec.selector", "");
    }
    if let Some(old) = old {
        update(&mut c, object, old);
    }
    c.0
}

fn selector(c: &mut Causes, job: &Value) {
    let spec = &job["spec"];
    let before = c.0.len();
    c.selector("spec.selector", &spec["selector"]);
    let labels: BTreeMap<String, String> =
        serde_json::from_value(spec["template"]["metadata"]["labels"].clone()).unwrap_or_default();
    let Ok(typed) = serde_json::from_value(spec["selector"].clone()) else { return };
    let Ok(parsed) = LabelSelector::of(&typed) else { return };
    if c.0.len() > before {
        return;
    }
    let uid = text(&job["metadata"]["uid"]);
    if spec["manualSelector"] != true && !uid.is_empty() {
        let generated: BTreeMap<String, String> = generated_labels(uid, text(&job["metadata"]["name"])).into();
        if !parsed.matches_labels(&generated) {
            c.invalid("spec.selector", spec["selector"].clone(), "`selector` not auto-generated");
        }
    }
    if !parsed.matches_labels(&labels) {
        c.invalid("spec.template.metadata.labels", json!(labels), "`selector` does not match template `labels`");
    }
}

/// The labels by which a job knows its pods: today's, and those of before Kubernetes 1.27.
pub(in crate::object::admit) fn generated_labels(uid: &str, name: &str) -> [(String, String); 4] {
    [
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
        ("controller-uid", uid),
        ("job-name", name),
    ]
    .map(|(label, value)| (label.to_owned(), value.to_owned()))
}

fn job_spec(c: &mut Causes, at: &str, spec: &Value) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        c.not_negative(&format!("{at}.{field}"), &spec[field]);
    }
    c.one_of(&format!("{at}.completionMode"), &spec["completionMode"], &["Indexed", "NonIndexed"]);
    let indexed = spec["completionMode"] == "Indexed";
    if indexed && !there(&spec["completions"]) {
        c.required(format!("{at}.completions"), "when completion mode is Indexed");
    }
    if !indexed {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if there(&spec[field]) {
                c.invalid(format!("{at}.{field}"), spec[field].clone(), "requires indexed completion mode");
            }
        }
    }
    c.one_of(&format!("{at}.podReplacementPolicy"), &spec["podReplacementPolicy"], &["Failed", "TerminatingOrFailed"]);
    let template = &spec["template"];
    if !there(template) {
        c.required(format!("{at}.template"), "");
        return;
    }
    pod::template_parts(c, &format!("{at}.template"), template);
    let policy = text(&template["spec"]["restartPolicy"]);
    let field = format!("{at}.template.spec.restartPolicy");
    if !["Never", "OnFailure"].contains(&policy) {
        c.required(field, "valid values: \"OnFailure\", \"Never\"");
    } else if there(&spec["podFailurePolicy"]) && policy != "Never" {
        c.invalid(field, policy, "only \"Never\" is supported when podFailurePolicy is specified");
    }
    for (i, rule) in list(&spec["podFailurePolicy"]["rules"]) {
        failure_rule(c, &format!("{at}.podFailurePolicy.rules[{i}]"), rule);
    }
}

fn failure_rule(c: &mut Causes, at: &str, rule: &Value) {
    c.one_of(&format!("{at}.action"), &rule["action"], &["Count", "FailIndex", "FailJob", "Ignore"]);
    let codes = &rule["onExitCodes"];
    let conditions = rule["onPodConditions"].as_array().is_some_and(|conditions| !conditions.is_empty());
    match (there(codes), conditions) {
        (false, false) => c.invalid(at, rule.clone(), "specifying one of OnExitCodes and OnPodConditions is required"),
        (true, true) => c.invalid(at, rule.clone(), "specifying both OnExitCodes and OnPodConditions is not supported"),
        (false, true) => {}
        (true, false) => {
            c.one_of(&format!("{at}.onExitCodes.operator"), &codes["operator"], &["In", "NotIn"]);
            if codes["values"].as_array().is_none_or(Vec::is_empty) {
                c.invalid(format!("{at}.onExitCodes.values"), codes["values"].clone(), "at least one value is required");
            }
            if codes["operator"] == "In" && list(&codes["values"]).any(|(_, code)| code == 0) {
                c.invalid(format!("{at}.onExitCodes.values"), 0, "must not be 0 for the In operator");
            }
        }
    }
}

/// What of a job may not change: what it does, how often, and how it knows its pods.
fn update(c: &mut Causes, new: &Value, old: &Value) {
    let (is, was) = (&new["spec"], &old["spec"]);
    // An indexed job that has as many pods as completions may grow and shrink.
    let elastic = is["completionMode"] == "Indexed" && is["completions"] == is["parallelism"];
    if !elastic {
        c.immutable("spec.completions", &is["completions"], &was["completions"]);
    }
    c.immutable("spec.selector", &is["selector"], &was["selector"]);
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "successPolicy"] {
        c.immutable(&format!("spec.{field}"), &is[field], &was[field]);
    }
    // While it has not begun, it may still be said where its pods go.
    let begun = there(&old["status"]["startTime"]) || was["suspend"] != true;
    if bare_template(is, !begun) != bare_template(was, !begun) {
        c.invalid("spec.template", is["template"].clone(), "field is immutable");
    }
}

fn bare_template(spec: &Value, without_placement: bool) -> Value {
    let mut template = spec["template"].clone();
    if without_placement {
        if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| !matches!(field.as_str(), "annotations" | "labels"));
        }
        if let Some(pod) = template.get_mut("spec").and_then(Value::as_object_mut) {
            let placement = ["nodeSelector", "affinity", "tolerations", "schedulingGates"];
            pod.retain(|field, _| !placement.contains(&field.as_str()));
        }
    }
    template
}

/// Cron jobs.
pub fn cron_job(object: &Value, _old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    let name = text(&object["metadata"]["name"]);
    if name.len() > CRON_JOB_NAME_AT_MOST {
        c.invalid("metadata.name", name, &format!("must be no more than {CRON_JOB_NAME_AT_MOST} characters"));
    }
    let schedule = text(&spec["schedule"]);
    if schedule.is_empty() {
        c.required("spec.schedule", "");
    } else if schedule.contains("TZ") {
        c.invalid("spec.schedule", schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if let Err(why) = Schedule::parse(schedule) {
        c.invalid("spec.schedule", schedule, &why);
    }
    if there(&spec["timeZone"]) {
        time_zone(&mut c, text(&spec["timeZone"]));
    }
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        c.not_negative(&format!("spec.{field}"), &spec[field]);
    }
    c.one_of("spec.concurrencyPolicy", &spec["concurrencyPolicy"], &["Allow", "Forbid", "Replace"]);
    let job = &spec["jobTemplate"]["spec"];
    job_spec(&mut c, "spec.jobTemplate.spec", job);
    if there(&job["selector"]) {
        c.invalid("spec.jobTemplate.spec.selector", job["selector"].clone(), "`selector` will be auto-generated");
    }
    if job["manualSelector"] == true {
        c.unsupported("spec.jobTemplate.spec.manualSelector", "true", &["nil", "false"]);
    }
    c.0
}

/// The form of a time zone's name. Whether there is such a zone is known where there is a clock.
fn time_zone(c: &mut Causes, zone: &str) {
    let fine = zone.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+-".contains(&b)) && !zone.starts_with('/');
    if zone.is_empty() {
        c.invalid("spec.timeZone", zone, "must be nil or non-empty string");
    } else if zone.eq_ignore_ascii_case("local") {
        c.invalid("spec.timeZone", zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    } else if !fine {
        c.invalid("spec.timeZone", zone, &format!("unknown time zone {zone}"));
    }
}
