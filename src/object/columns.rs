//! The columns of `kubectl get`, kind by kind, with Kubernetes' own names and contents.
//!
//! A cell is a function of an object and of the time, which is passed in (ages). How a table travels is the business of `api`.

pub mod network;
pub mod policy;
pub mod storage;
pub mod workload;

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

/// One column.
pub struct Column {
    /// The heading, as Kubernetes capitalises it; kubectl prints it in capitals.
    pub name: &'static str,
    /// `string`, `integer` or `date`.
    pub r#type: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
    /// The cell for an object.
    pub cell: fn(&Value, Timestamp) -> Value,
}

const fn text(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column { name, r#type: "string", priority: 0, cell }
}

const fn wide(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column { name, r#type: "string", priority: 1, cell }
}

const fn number(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column { name, r#type: "integer", priority: 0, cell }
}

const NAME: Column = text("Name", |o, _| o["metadata"]["name"].clone());
const AGE: Column = text("Age", |o, now| since(&o["metadata"]["creationTimestamp"], now).into());
/// What most kinds that run pods show.
const DESIRED: Column = number("Desired", |o, _| int_or(&o["spec"]["replicas"], 1).into());
const CURRENT: Column = number("Current", |o, _| int(&o["status"]["replicas"]).into());
const READY: Column = number("Ready", |o, _| int(&o["status"]["readyReplicas"]).into());
const READY_OF: Column =
    text("Ready", |o, _| format!("{}/{}", int(&o["status"]["readyReplicas"]), int_or(&o["spec"]["replicas"], 1)).into());
const CONTAINERS: Column = wide("Containers", |o, _| containers(o, "name"));
const IMAGES: Column = wide("Images", |o, _| containers(o, "image"));
const SELECTOR: Column = wide("Selector", |o, _| selector(&o["spec"]["selector"]));

/// For kinds without columns of their own.
pub const PLAIN: &[Column] = &[NAME, AGE];

/// Columns of CustomResourceDefinitions.
pub const DEFINITION: &[Column] = &[NAME, text("Created At", |o, _| or(&o["metadata"]["creationTimestamp"], ""))];

/// Columns of Namespaces.
pub const NAMESPACE: &[Column] = &[NAME, text("Status", |o, _| or(&o["status"]["phase"], "Active")), AGE];

/// Columns of ComponentStatuses.
pub const COMPONENT: &[Column] = &[
    NAME,
    text("Status", |o, _| component(o, "status").map_or("Unknown", |s| if s == "True" { "Healthy" } else { "Unhealthy" }).into()),
    text("Message", |o, _| component(o, "message").unwrap_or("").into()),
    text("Error", |o, _| component(o, "error").unwrap_or("").into()),
];

/// What a component's condition says of it.
fn component<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    let healthy = object["conditions"].as_array()?.iter().find(|condition| condition["type"] == "Healthy")?;
    healthy[field].as_str()
}

/// Columns of Nodes.
pub const NODE: &[Column] = &[
    NAME,
    text("Status", |o, _| node_status(o).into()),
    text("Roles", |o, _| node_roles(o).into()),
    AGE,
    text("Version", |o, _| o["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or("").into()),
    wide("Internal-IP", |o, _| address(o, "InternalIP").into()),
    wide("External-IP", |o, _| address(o, "ExternalIP").into()),
    wide("OS-Image", |o, _| or(&o["status"]["nodeInfo"]["osImage"], "<unknown>")),
    wide("Kernel-Version", |o, _| or(&o["status"]["nodeInfo"]["kernelVersion"], "<unknown>")),
    wide("Container-Runtime", |o, _| or(&o["status"]["nodeInfo"]["containerRuntimeVersion"], "<unknown>")),
];

/// Columns of Pods.
pub const POD: &[Column] = &[
    NAME,
    text("Ready", |o, now| {
        let pod = pod_summary(o, now);
        format!("{}/{}", pod.ready, pod.containers).into()
    }),
    text("Status", |o, now| pod_summary(o, now).status.into()),
    text("Restarts", |o, now| pod_summary(o, now).restarts.into()),
    AGE,
    wide("IP", |o, _| or(&o["status"]["podIP"], "<none>")),
    wide("Node", |o, _| or(&o["spec"]["nodeName"], "<none>")),
    wide("Nominated Node", |o, _| or(&o["status"]["nominatedNodeName"], "<none>")),
    wide("Readiness Gates", |o, _| readiness_gates(o).into()),
];

/// Columns of ConfigMaps.
pub const CONFIG_MAP: &[Column] = &[NAME, number("Data", |o, _| (entries(&o["data"]) + entries(&o["binaryData"])).into()), AGE];

/// Columns of Secrets. The values are not among them.
pub const SECRET: &[Column] =
    &[NAME, text("Type", |o, _| or(&o["type"], "Opaque")), number("Data", |o, _| entries(&o["data"]).into()), AGE];

/// Columns of Events.
pub const EVENT: &[Column] = &[
    text("Last Seen", |o, now| {
        let seen = [&o["series"]["lastObservedTime"], &o["lastTimestamp"], &o["eventTime"], &o["metadata"]["creationTimestamp"]];
        since(seen.into_iter().find(|t| t.is_string()).unwrap_or(&Value::Null), now).into()
    }),
    text("Type", |o, _| or(&o["type"], "")),
    text("Reason", |o, _| or(&o["reason"], "")),
    text("Object", |o, _| {
        let about = &o["involvedObject"];
        let kind = about["kind"].as_str().unwrap_or("").to_lowercase();
        format!("{kind}/{}", about["name"].as_str().unwrap_or("")).into()
    }),
    wide("Subobject", |o, _| or(&o["involvedObject"]["fieldPath"], "")),
    wide("Source", |o, _| {
        let from = |place: &Value, component: &str, host: &str| match (place[component].as_str(), place[host].as_str()) {
            (Some(c), Some(h)) if !h.is_empty() => format!("{c}, {h}"),
            (Some(c), _) => c.to_owned(),
            _ => String::new(),
        };
        let source = from(&o["source"], "component", "host");
        if source.is_empty() { from(o, "reportingComponent", "reportingInstance").into() } else { source.into() }
    }),
    text("Message", |o, _| o["message"].as_str().unwrap_or("").trim().into()),
    wide("First Seen", |o, now| {
        let seen = [&o["firstTimestamp"], &o["eventTime"], &o["metadata"]["creationTimestamp"]];
        since(seen.into_iter().find(|t| t.is_string()).unwrap_or(&Value::Null), now).into()
    }),
    wide("Count", |o, _| {
        let count = o["series"]["count"].as_i64().or(o["count"].as_i64()).unwrap_or(1);
        count.max(1).to_string().into()
    }),
    wide("Name", |o, _| o["metadata"]["name"].clone()),
];

/// Columns of Deployments.
pub const DEPLOYMENT: &[Column] = &[
    NAME,
    READY_OF,
    number("Up-to-date", |o, _| int(&o["status"]["updatedReplicas"]).into()),
    number("Available", |o, _| int(&o["status"]["availableReplicas"]).into()),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Columns of ReplicaSets.
pub const REPLICA_SET: &[Column] = &[NAME, DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, SELECTOR];

/// Columns of ServiceAccounts.
pub const SERVICE_ACCOUNT: &[Column] = &[NAME, number("Secrets", |o, _| o["secrets"].as_array().map_or(0, Vec::len).into()), AGE];

/// Columns of Roles and ClusterRoles.
pub const ROLE: &[Column] = &[NAME, text("Created At", |o, _| or(&o["metadata"]["creationTimestamp"], "<unknown>"))];

/// Columns of RoleBindings and ClusterRoleBindings.
pub const ROLE_BINDING: &[Column] = &[
    NAME,
    text("Role", |o, _| {
        let part = |name: &str| o["roleRef"][name].as_str().unwrap_or("").to_owned();
        format!("{}/{}", part("kind"), part("name")).into()
    }),
    AGE,
    wide("Users", |o, _| subjects(o, "User").into()),
    wide("Groups", |o, _| subjects(o, "Group").into()),
    wide("ServiceAccounts", |o, _| subjects(o, "ServiceAccount").into()),
];

/// Columns of Leases.
pub const LEASE: &[Column] = &[NAME, text("Holder", |o, _| or(&o["spec"]["holderIdentity"], "")), AGE];

/// Columns of Applications: the two axes first, then what they speak of.
pub const APPLICATION: &[Column] = &[
    NAME,
    text("Sync", |o, _| or(&o["status"]["sync"], "OutOfSync")),
    text("Phase", |o, _| or(&o["status"]["phase"], "")),
    text("Commit", |o, _| short(&o["status"]["observedCommit"]).into()),
    AGE,
    wide("Message", |o, _| or(&o["status"]["message"], "")),
    wide("Last Good", |o, _| or(&o["status"]["lastGood"], "<none>")),
    wide("Repository", |o, _| or(&o["spec"]["source"]["repository"], "")),
    wide("Revision", |o, _| or(&o["spec"]["source"]["revision"], "HEAD")),
    wide("Path", |o, _| or(&o["spec"]["source"]["path"], ".")),
];

/// Columns of Releases. Before there is a verdict, the phase stands in its place.
pub const RELEASE: &[Column] = &[
    NAME,
    text("Application", |o, _| or(&o["spec"]["application"], "")),
    text("Commit", |o, _| short(&o["spec"]["commit"]).into()),
    text("Verdict", |o, _| match o["status"]["verdict"].as_str() {
        Some(verdict) => verdict.into(),
        None => or(&o["status"]["phase"], ""),
    }),
    AGE,
    text("Subject", |o, _| or(&o["spec"]["subject"], "")),
    wide("Author", |o, _| or(&o["spec"]["author"], "")),
    wide("Objects", |o, _| int(&o["spec"]["objects"]).to_string().into()),
    wide("Message", |o, _| or(&o["status"]["message"], "")),
];

/// Columns of CertificateSigningRequests.
pub const CERTIFICATE_REQUEST: &[Column] = &[
    NAME,
    AGE,
    text("SignerName", |o, _| or(&o["spec"]["signerName"], "<none>")),
    text("Requestor", |o, _| or(&o["spec"]["username"], "")),
    text("RequestedDuration", |o, _| match o["spec"]["expirationSeconds"].as_i64() {
        Some(seconds) => duration(seconds).into(),
        None => "<none>".into(),
    }),
    text("Condition", |o, _| {
        let conditions = o["status"]["conditions"].as_array();
        let has = |kind: &str| conditions.into_iter().flatten().any(|c| c["type"] == kind);
        let mut words: Vec<&str> = ["Approved", "Denied", "Failed"].into_iter().filter(|kind| has(kind)).collect();
        if words.is_empty() {
            words.push("Pending");
        }
        if o["status"]["certificate"].as_str().is_some_and(|c| !c.is_empty()) {
            words.push("Issued");
        }
        words.join(",").into()
    }),
];

/// The subjects of one kind in a binding, accounts with their namespace.
fn subjects(binding: &Value, kind: &str) -> String {
    let of_kind = binding["subjects"].as_array().into_iter().flatten().filter(|s| s["kind"] == kind);
    let names = of_kind.map(|s| match (s["namespace"].as_str(), s["name"].as_str().unwrap_or("")) {
        (Some(namespace), name) if kind == "ServiceAccount" => format!("{namespace}/{name}"),
        (_, name) => name.to_owned(),
    });
    names.collect::<Vec<_>>().join(", ")
}

fn or(value: &Value, otherwise: &str) -> Value {
    value.as_str().filter(|s| !s.is_empty()).unwrap_or(otherwise).into()
}

fn int(value: &Value) -> i64 {
    int_or(value, 0)
}

fn int_or(value: &Value, otherwise: i64) -> i64 {
    value.as_i64().unwrap_or(otherwise)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn entries(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

/// The first seven digits of a commit.
fn short(commit: &Value) -> String {
    commit.as_str().unwrap_or("").chars().take(7).collect()
}

fn join<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let parts: Vec<&str> = parts.into_iter().collect();
    if parts.is_empty() { "<none>".to_owned() } else { parts.join(",") }
}

fn containers(object: &Value, field: &str) -> Value {
    let all = list(&object["spec"]["template"]["spec"]["containers"]);
    join(all.iter().filter_map(|c| c[field].as_str())).into()
}

/// The first of many: `a,b,c + 2 more...`.
fn more(parts: impl Iterator<Item = String>, most: usize) -> String {
    let parts: Vec<String> = parts.collect();
    match parts.len().checked_sub(most) {
        None | Some(0) => parts.join(","),
        Some(rest) => format!("{} + {rest} more...", parts[..most].join(",")),
    }
}

/// Labels as kubectl prints them: `app=web,tier=a`.
fn labels(labels: &Value) -> String {
    let pairs: Vec<String> =
        labels.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect();
    join(pairs.iter().map(String::as_str))
}

/// A selector that only names labels.
fn map_selector(selector: &Value) -> Value {
    labels(selector).into()
}

/// A label selector as kubectl prints it: `app=web,tier in (a,b)`.
fn selector(selector: &Value) -> Value {
    let mut parts: Vec<String> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or("")));
    }
    for term in list(&selector["matchExpressions"]) {
        let key = term["key"].as_str().unwrap_or("");
        let values: Vec<&str> = list(&term["values"]).iter().filter_map(Value::as_str).collect();
        parts.push(match term["operator"].as_str() {
            Some("In") => format!("{key} in ({})", values.join(",")),
            Some("NotIn") => format!("{key} notin ({})", values.join(",")),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    join(parts.iter().map(String::as_str)).into()
}

fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    list(&object["status"]["conditions"]).iter().find(|c| c["type"] == name)?["status"].as_str()
}

fn node_status(node: &Value) -> String {
    let mut status = match condition(node, "Ready") {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn node_roles(node: &Value) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in node["metadata"]["labels"].as_object().into_iter().flatten() {
        match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => roles.push(role),
            _ if key == "kubernetes.io/role" => roles.extend(value.as_str()),
            _ => {}
        }
    }
    roles.sort_unstable();
    join(roles)
}

fn address(node: &Value, sort: &str) -> String {
    list(&node["status"]["addresses"])
        .iter()
        .find(|a| a["type"] == sort)
        .and_then(|a| a["address"].as_str())
        .unwrap_or("<none>")
        .to_owned()
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(&pod["spec"]["readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter_map(|g| g["conditionType"].as_str()).filter(|g| condition(pod, g) == Some("True")).count();
    format!("{open}/{}", gates.len())
}

/// What `kubectl get pods` says about a pod.
struct PodSummary {
    ready: usize,
    containers: usize,
    status: String,
    restarts: String,
}

/// The word for a container that ended without a reason of its own.
fn ended(terminated: &Value) -> String {
    match (terminated["reason"].as_str(), terminated["signal"].as_i64()) {
        (Some(reason), _) if !reason.is_empty() => reason.to_owned(),
        (_, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", int(&terminated["exitCode"])),
    }
}

fn pod_summary(pod: &Value, now: Timestamp) -> PodSummary {
    let status = &pod["status"];
    let phase = status["phase"].as_str().unwrap_or("Unknown");
    let mut word = status["reason"].as_str().filter(|r| !r.is_empty()).unwrap_or(phase).to_owned();
    let gated = list(&status["conditions"]).iter().any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated");
    if gated {
        word = "SchedulingGated".to_owned();
    }
    let inits = list(&pod["spec"]["initContainers"]);
    let sidecar = |name: &Value| inits.iter().any(|c| c["name"] == *name && c["restartPolicy"] == "Always");
    let mut containers = list(&pod["spec"]["containers"]).len() + inits.iter().filter(|c| sidecar(&c["name"])).count();
    let (mut ready, mut restarts, mut sidecar_restarts) = (0, 0, 0);
    let mut last_restart: Option<&str> = None;
    let restarted = |container: &Value| int(&container["restartCount"]);
    let mut initializing = false;
    for (done, container) in list(&status["initContainerStatuses"]).iter().enumerate() {
        restarts += restarted(container);
        latest(&mut last_restart, container);
        let is_sidecar = sidecar(&container["name"]);
        if is_sidecar {
            sidecar_restarts += restarted(container);
        }
        let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
        if terminated.is_object() && int(&terminated["exitCode"]) == 0 {
            continue;
        }
        if is_sidecar && container["started"] == true {
            ready += usize::from(container["ready"] == true);
            continue;
        }
        initializing = true;
        word = if terminated.is_object() {
            format!("Init:{}", ended(terminated))
        } else {
            match waiting["reason"].as_str() {
                Some(reason) if !reason.is_empty() && reason != "PodInitializing" => format!("Init:{reason}"),
                _ => format!("Init:{done}/{}", inits.len()),
            }
        };
        break;
    }
    if !initializing || condition(pod, "Initialized") == Some("True") {
        restarts = sidecar_restarts;
        let mut running = false;
        for container in list(&status["containerStatuses"]).iter().rev() {
            restarts += restarted(container);
            latest(&mut last_restart, container);
            let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
            if let Some(reason) = waiting["reason"].as_str().filter(|r| !r.is_empty()) {
                word = reason.to_owned();
            } else if terminated.is_object() {
                word = ended(terminated);
            } else if container["ready"] == true && container["state"]["running"].is_object() {
                running = true;
                ready += 1;
            }
        }
        if word == "Completed" && running {
            word = if condition(pod, "Ready") == Some("True") { "Running" } else { "NotReady" }.to_owned();
        }
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        if status["reason"] == "NodeLost" {
            word = "Unknown".to_owned();
        } else if phase != "Failed" && phase != "Succeeded" {
            word = "Terminating".to_owned();
        }
    }
    containers = containers.max(ready);
    let mut count = restarts.to_string();
    if let (true, Some(last)) = (restarts > 0, last_restart) {
        let _ = write!(count, " ({} ago)", since(&json!(last), now));
    }
    PodSummary { ready, containers, status: word, restarts: count }
}

/// Keeps the later end of a container's previous run. Timestamps in one notation compare as text.
fn latest<'a>(last: &mut Option<&'a str>, container: &'a Value) {
    let finished = container["lastState"]["terminated"]["finishedAt"].as_str();
    if finished > *last {
        *last = finished;
    }
}

/// How long ago a time was, in kubectl's short form; `<unknown>` without a time.
pub fn since(time: &Value, now: Timestamp) -> String {
    match time.as_str().and_then(|t| t.parse::<Timestamp>().ok()) {
        Some(then) => duration(now.as_second() - then.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// Seconds in kubectl's short form: two units at most, fewer as it gets longer.
pub fn duration(seconds: i64) -> String {
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match () {
        () if seconds < -1 => "<invalid>".to_owned(),
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => two(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () if days < 2920 => two(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn show(columns: &[Column], object: &Value) -> String {
        let now = "2026-11-21T10:00:00Z".parse().unwrap();
        let cells: Vec<String> = columns
            .iter()
            .map(|c| match (c.cell)(object, now) {
                Value::String(s) => s,
                other => other.to_string(),
            })
            .collect();
        cells.join(" | ")
    }

    #[test]
    fn durations() {
        let rows = [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (599, "9m59s"),
            (3600, "60m"),
            (3 * 3600, "3h"),
            (4 * 3600 + 300, "4h5m"),
            (9 * 3600 + 300, "9h"),
            (47 * 3600, "47h"),
            (49 * 3600, "2d1h"),
            (10 * 86400, "10d"),
            (800 * 86400, "2y70d"),
            (3000 * 86400, "8y"),
        ];
        for (seconds, wanted) in rows {
            assert_eq!(duration(seconds), wanted, "{seconds}");
        }
    }

    #[test]
    fn pod_words() {
        let pod = |status: Value, more: Value| {
            let mut pod = json!({
                "metadata": {"name": "p", "creationTimestamp": "2026-11-21T09:58:30Z"},
                "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}, {"name": "j"}]},
                "status": status,
            });
            if more == "deleting" {
                pod["metadata"]["deletionTimestamp"] = "2026-11-21T10:00:00Z".into();
            }
            pod
        };
        let running = json!({"ready": true, "restartCount": 0, "state": {"running": {}}});
        let rows = [
            (json!({"phase": "Pending"}), "", "0/2 | Pending | 0"),
            (
                json!({"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}}]}),
                "",
                "0/2 | Init:1/2 | 0",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                 "lastState": {"terminated": {"finishedAt": "2026-11-21T09:59:50Z"}}}]}),
                "",
                "0/2 | Init:CrashLoopBackOff | 2 (10s ago)",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 3}}}]}),
                "",
                "0/2 | Init:ExitCode:3 | 0",
            ),
            (json!({"phase": "Running", "containerStatuses": [running, running]}), "", "2/2 | Running | 0"),
            (
                json!({"phase": "Running", "containerStatuses": [running,
                {"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                "",
                "1/2 | CrashLoopBackOff | 3",
            ),
            (
                json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}]}),
                "",
                "0/2 | Completed | 0",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}, running]}),
                "",
                "1/2 | NotReady | 0",
            ),
            (json!({"phase": "Failed", "reason": "Evicted"}), "", "0/2 | Evicted | 0"),
            (
                json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "signal": 9}}}]}),
                "",
                "0/2 | Signal:9 | 0",
            ),
            (json!({"phase": "Running", "containerStatuses": [running, running]}), "deleting", "2/2 | Terminating | 0"),
        ];
        for (status, more, wanted) in rows {
            assert_eq!(show(&POD[1..4], &pod(status.clone(), more.into())), wanted, "{status}");
        }
        assert_eq!(show(&POD[4..], &pod(json!({"podIP": "10.0.0.7"}), Value::Null)), "90s | 10.0.0.7 | <none> | <none> | <none>");
    }

    #[test]
    fn other_kinds() {
        let deployment = json!({
            "metadata": {"name": "web", "creationTimestamp": "2026-11-21T09:00:00Z"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "t", "operator": "In", "values": ["a", "b"]}]},
                "template": {"spec": {"containers": [{"name": "c", "image": "web:1"}, {"name": "d", "image": "log:2"}]}}},
            "status": {"readyReplicas": 2, "updatedReplicas": 3},
        });
        assert_eq!(show(DEPLOYMENT, &deployment), "web | 2/3 | 3 | 0 | 60m | c,d | web:1,log:2 | app=web,t in (a,b)");
        let node = json!({
            "metadata": {"name": "h1", "labels": {"node-role.kubernetes.io/edge": ""}}, "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.1.0.1"}]},
        });
        assert_eq!(
            show(NODE, &node),
            "h1 | Ready,SchedulingDisabled | edge | <unknown> |  | 10.1.0.1 | <none> | <unknown> | <unknown> | <unknown>"
        );
        assert_eq!(show(SECRET, &json!({"metadata": {"name": "s"}, "data": {"a": "eA=="}})), "s | Opaque | 1 | <unknown>");
        let release = json!({
            "metadata": {"name": "root-2"}, "spec": {"application": "root", "commit": "9c1e2f7aa", "subject": "Bigger"}, "status": {"phase": "RollingOut"},
        });
        assert_eq!(show(&RELEASE[..6], &release), "root-2 | root | 9c1e2f7 | RollingOut | <unknown> | Bigger");
    }
}
