//! `hosts`: the machines, their state, room and versions.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::Value;

use super::args::Hosts;
use super::connect::client;
use super::get;
use super::print::{BAD, GOOD, WARN, ago, table};
use super::{Context, Explain, Outcome};
use crate::object::kind_of;
use crate::object::quantity::Quantity;
use crate::plan::rollout::active;
use crate::plan::schedule::requests;

pub(super) async fn run(cx: &Context, args: Hosts) -> Outcome {
    let client = client(cx).await?;
    let nodes: Vec<Value> = get::list(&client, kind_of::<Node>(), "", "").await.doing("list the hosts")?;
    let format = args.output.format.as_str();
    if matches!(format, "name" | "json" | "yaml") {
        let objects: Vec<_> = nodes.into_iter().map(|n| (kind_of::<Node>(), n)).collect();
        get::show(cx, &objects, format, false, false)?;
        return Ok(0);
    }
    if nodes.is_empty() {
        cx.print.say("no host has joined yet: `portolan token create` on the server, then `portolan agent` on the host");
        return Ok(0);
    }
    let pods: Vec<Pod> = client.list("", "").await.doing("list the pods")?;
    let mut used: BTreeMap<String, (usize, i64, i64)> = BTreeMap::new();
    for pod in pods.iter().filter(|p| active(p)) {
        let Some(spec) = &pod.spec else { continue };
        let Some(node) = &spec.node_name else { continue };
        let needs = requests(spec);
        let sum = used.entry(node.clone()).or_default();
        *sum = (sum.0 + 1, sum.1 + needs.get("cpu"), sum.2 + needs.get("memory"));
    }
    let now = crate::clock::now();
    let wide = format == "wide";
    let mut rows = Vec::new();
    for value in &nodes {
        let Ok(node) = serde_json::from_value::<Node>(value.clone()) else { continue };
        let name = node.metadata.name.clone().unwrap_or_default();
        let (count, cpu, memory) = used.get(&name).copied().unwrap_or_default();
        let offered = |what: &str| {
            let list = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
            list.and_then(|l| l.get(what)).and_then(|q| Quantity::parse(&q.0).ok())
        };
        let state = state(&node);
        let painted = match state.as_str() {
            "Ready" => cx.print.paint(GOOD, &state),
            s if s.starts_with("Ready") => cx.print.paint(WARN, s),
            s => cx.print.paint(BAD, s),
        };
        let cpus = offered("cpu").map_or_else(|| "?".to_owned(), |q| tenths(q.milli()));
        let bytes = offered("memory").map_or_else(|| "?".to_owned(), |q| gib(q.whole()));
        let most = offered("pods").map_or_else(|| "?".to_owned(), |q| q.whole().to_string());
        let info = node.status.as_ref().and_then(|s| s.node_info.as_ref());
        let age = node.metadata.creation_timestamp.as_ref().map_or_else(String::new, |t| ago(t.0, now));
        let mut row = vec![
            name,
            painted,
            format!("{count}/{most}"),
            format!("{}/{cpus}", tenths(cpu)),
            format!("{}/{bytes}", gib(memory)),
            age,
        ];
        row.push(info.map_or_else(String::new, |i| i.kubelet_version.clone()));
        if wide {
            let addresses = node.status.as_ref().and_then(|s| s.addresses.as_ref());
            row.push(
                addresses
                    .and_then(|a| a.iter().find(|a| a.type_ == "InternalIP"))
                    .map_or_else(String::new, |a| a.address.clone()),
            );
            row.push(info.map_or_else(String::new, |i| i.container_runtime_version.clone()));
            row.push(info.map_or_else(String::new, |i| i.kernel_version.clone()));
            let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref()).into_iter().flatten();
            row.push(taints.map(|t| format!("{}:{}", t.key, t.effect)).collect::<Vec<_>>().join(","));
        }
        rows.push(row);
    }
    let mut head = vec!["HOST", "STATE", "PODS", "CPU", "MEMORY GiB", "AGE", "VERSION"];
    if wide {
        head.extend(["ADDRESS", "ENGINE", "KERNEL", "TAINTS"]);
    }
    cx.print.out(painted_table(&head, &rows));
    Ok(0)
}

/// A table whose second column may carry colour, which must not count for its width.
fn painted_table(head: &[&str], rows: &[Vec<String>]) -> String {
    let plain: Vec<Vec<String>> =
        rows.iter().map(|r| r.iter().map(|c| anstream::adapter::strip_str(c).to_string()).collect()).collect();
    let text = table(head, &plain);
    let mut lines = text.lines().map(str::to_owned).collect::<Vec<_>>();
    for (line, (row, bare)) in lines.iter_mut().skip(1).zip(rows.iter().zip(&plain)) {
        if row[1] != bare[1]
            && let Some(at) = line[bare[0].len()..].find(&bare[1]).map(|n| n + bare[0].len())
        {
            line.replace_range(at..at + bare[1].len(), &row[1]);
        }
    }
    lines.into_iter().map(|l| l + "\n").collect()
}

/// `Ready`, `NotReady: why`, `Ready, cordoned`.
fn state(node: &Node) -> String {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    let ready = conditions.clone().find(|c| c.type_ == "Ready");
    let mut text = match ready.map(|c| (c.status.as_str(), c)) {
        Some(("True", _)) => "Ready".to_owned(),
        Some(("Unknown", _)) => "NotReady: not heard of".to_owned(),
        Some((_, c)) => format!("NotReady: {}", c.reason.as_deref().unwrap_or("unknown")),
        None => "NotReady: no word yet".to_owned(),
    };
    if node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)) {
        text += ", cordoned";
    }
    for pressure in conditions.filter(|c| c.type_ != "Ready" && c.status == "True") {
        text += &format!(", {}", pressure.type_);
    }
    text
}

fn tenths(milli: i64) -> String {
    let text = format!("{:.1}", milli as f64 / 1000.0);
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn gib(bytes: i64) -> String {
    let text = format!("{:.1}", bytes as f64 / f64::from(1 << 30));
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// A node for tests and snapshots.
#[cfg(test)]
pub(super) fn test_node(name: &str, cpu: &str, memory: &str) -> Value {
    use serde_json::json;
    let amounts = json!({"cpu": cpu, "memory": memory, "pods": "110"});
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {},
        "status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states() {
        let node = |edit: &dyn Fn(&mut Value)| {
            let mut value = test_node("a", "2", "4Gi");
            edit(&mut value);
            state(&serde_json::from_value(value).unwrap())
        };
        assert_eq!(node(&|_| {}), "Ready");
        assert_eq!(node(&|v| v["spec"]["unschedulable"] = true.into()), "Ready, cordoned");
        assert_eq!(node(&|v| v["status"]["conditions"][0]["status"] = "Unknown".into()), "NotReady: not heard of");
    }
}
