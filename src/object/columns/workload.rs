//! What runs pods: replication controllers, stateful sets, daemon sets, jobs.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    AGE, CONTAINERS, CURRENT, Column, DESIRED, IMAGES, NAME, READY, READY_OF, SELECTOR, condition, containers, duration, int,
    labels, list, map_selector, number, or, selector, since, text, wide,
};

/// Columns of ReplicationControllers.
pub const REPLICATION_CONTROLLER: &[Column] =
    &[NAME, DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, wide("Selector", |o, _| map_selector(&o["spec"]["selector"]))];

/// Columns of PodTemplates.
pub const POD_TEMPLATE: &[Column] = &[
    NAME,
    text("Containers", |o, _| template_containers(o, "name").into()),
    text("Images", |o, _| template_containers(o, "image").into()),
    text("Pod Labels", |o, _| labels(&o["template"]["metadata"]["labels"]).into()),
];

/// Columns of StatefulSets.
pub const STATEFUL_SET: &[Column] = &[NAME, READY_OF, AGE, CONTAINERS, IMAGES];

/// Columns of DaemonSets.
pub const DAEMON_SET: &[Column] = &[
    NAME,
    number("Desired", |o, _| int(&o["status"]["desiredNumberScheduled"]).into()),
    number("Current", |o, _| int(&o["status"]["currentNumberScheduled"]).into()),
    number("Ready", |o, _| int(&o["status"]["numberReady"]).into()),
    number("Up-to-date", |o, _| int(&o["status"]["updatedNumberScheduled"]).into()),
    number("Available", |o, _| int(&o["status"]["numberAvailable"]).into()),
    text("Node Selector", |o, _| map_selector(&o["spec"]["template"]["spec"]["nodeSelector"])),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Columns of ControllerRevisions.
pub const CONTROLLER_REVISION: &[Column] = &[
    NAME,
    text("Controller", |o, _| {
        let owner = list(&o["metadata"]["ownerReferences"]).iter().find(|r| r["controller"] == true);
        let Some(owner) = owner else { return "<none>".into() };
        let (version, kind) = (owner["apiVersion"].as_str().unwrap_or(""), owner["kind"].as_str().unwrap_or("").to_lowercase());
        let group = version.split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
        format!("{kind}{group}/{}", owner["name"].as_str().unwrap_or("")).into()
    }),
    number("Revision", |o, _| int(&o["revision"]).into()),
    AGE,
];

/// Columns of Jobs.
pub const JOB: &[Column] = &[
    NAME,
    text("Status", |o, _| job_status(o).into()),
    text("Completions", |o, _| completions(o).into()),
    text("Duration", |o, now| job_duration(o, now).into()),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Columns of CronJobs.
pub const CRON_JOB: &[Column] = &[
    NAME,
    text("Schedule", |o, _| or(&o["spec"]["schedule"], "")),
    text("Timezone", |o, _| or(&o["spec"]["timeZone"], "<none>")),
    text("Suspend", |o, _| if o["spec"]["suspend"] == true { "True".into() } else { "False".into() }),
    number("Active", |o, _| list(&o["status"]["active"]).len().into()),
    text("Last Schedule", |o, now| match &o["status"]["lastScheduleTime"] {
        Value::Null => "<none>".into(),
        time => since(time, now).into(),
    }),
    AGE,
    wide("Containers", |o, _| containers(&o["spec"]["jobTemplate"], "name")),
    wide("Images", |o, _| containers(&o["spec"]["jobTemplate"], "image")),
    wide("Selector", |o, _| selector(&o["spec"]["jobTemplate"]["spec"]["selector"])),
];

fn template_containers(object: &Value, field: &str) -> String {
    let all = list(&object["template"]["spec"]["containers"]);
    super::join(all.iter().filter_map(|c| c[field].as_str()))
}

fn job_status(job: &Value) -> &'static str {
    let is = |name: &str| condition(job, name) == Some("True");
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if job["metadata"]["deletionTimestamp"].is_string() => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

/// `1/3`; for a work queue `1/1 of 4`, where the second 1 stands for "enough".
fn completions(job: &Value) -> String {
    let done = int(&job["status"]["succeeded"]);
    match job["spec"]["completions"].as_i64() {
        Some(wanted) => format!("{done}/{wanted}"),
        None => match int(&job["spec"]["parallelism"]) {
            parallel if parallel > 1 => format!("{done}/1 of {parallel}"),
            _ => format!("{done}/1"),
        },
    }
}

fn job_duration(job: &Value, now: Timestamp) -> String {
    let at = |name: &str| job["status"][name].as_str().and_then(|t| t.parse::<Timestamp>().ok());
    match (at("startTime"), at("completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => duration(end.unwrap_or(now).as_second() - start.as_second()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::show;
    use super::*;

    fn template() -> Value {
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "web:1"}], "nodeSelector": {"disk": "ssd"}}})
    }

    #[test]
    fn sets() {
        let object = |selector: Value, status: Value| json!({"metadata": {"name": "web"}, "spec": {"replicas": 3, "selector": selector, "template": template()}, "status": status});
        let labels = json!({"matchLabels": {"app": "web"}});
        assert_eq!(show(STATEFUL_SET, &object(labels.clone(), json!({"readyReplicas": 2}))), "web | 2/3 | <unknown> | c | web:1");
        assert_eq!(
            show(DAEMON_SET, &object(labels, json!({"desiredNumberScheduled": 4, "numberReady": 1}))),
            "web | 4 | 0 | 1 | 0 | 0 | disk=ssd | <unknown> | c | web:1 | app=web"
        );
        assert_eq!(
            show(REPLICATION_CONTROLLER, &object(json!({"app": "web"}), json!({"replicas": 3}))),
            "web | 3 | 3 | 0 | <unknown> | c | web:1 | app=web"
        );
        assert_eq!(show(POD_TEMPLATE, &json!({"metadata": {"name": "t"}, "template": template()})), "t | c | web:1 | app=web");
        let revision = json!({"metadata": {"name": "web-1", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true}]}, "revision": 2});
        assert_eq!(show(CONTROLLER_REVISION, &revision), "web-1 | statefulset.apps/web | 2 | <unknown>");
    }

    #[test]
    fn jobs() {
        let job = |spec: Value, status: Value| {
            let mut job = json!({"metadata": {"name": "j"}, "spec": spec, "status": status});
            job["spec"]["template"] = template();
            job
        };
        let done = json!({"succeeded": 1, "startTime": "2026-11-21T09:59:00Z", "completionTime": "2026-11-21T09:59:30Z",
            "conditions": [{"type": "Complete", "status": "True"}]});
        let rows = [
            (json!({"completions": 1}), done, "j | Complete | 1/1 | 30s"),
            (json!({"completions": 3}), json!({"startTime": "2026-11-21T09:59:00Z"}), "j | Running | 0/3 | 60s"),
            (json!({"parallelism": 4}), json!({}), "j | Running | 0/1 of 4 | "),
            (json!({"parallelism": 1}), json!({"conditions": [{"type": "Failed", "status": "True"}]}), "j | Failed | 0/1 | "),
        ];
        for (spec, status, wanted) in rows {
            assert_eq!(show(&JOB[..4], &job(spec, status)), wanted);
        }
        let cron = json!({"metadata": {"name": "c"}, "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": template()}}},
            "status": {"lastScheduleTime": "2026-11-21T09:58:00Z", "active": [{}]}});
        assert_eq!(show(CRON_JOB, &cron), "c | */5 * * * * | <none> | False | 1 | 2m | <unknown> | c | web:1 | <none>");
    }
}
