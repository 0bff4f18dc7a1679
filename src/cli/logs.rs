//! `logs`: what a container wrote.

use futures_util::AsyncBufReadExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;

use super::args::Logs;
use super::connect::client;
use super::print::clean_log;
use super::{Context, Explain, Failure, Outcome, fail};
use crate::client::Client;
use crate::plan::rollout::ready;

pub(super) async fn run(cx: &Context, args: Logs) -> Outcome {
    let client = client(cx).await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| client.namespace().to_owned());
    let pod = pod(&client, &namespace, &args.pod).await?;
    let container = match args.container.clone() {
        Some(container) => container,
        None => default_container(cx, &pod),
    };
    let name = pod.metadata.name.clone().unwrap_or_default();
    let params = LogParams {
        container: Some(container),
        follow: args.follow,
        previous: args.previous,
        tail_lines: args.tail,
        since_seconds: args.since.map(|s| i64::try_from(s.as_secs()).unwrap_or(i64::MAX)),
        timestamps: args.timestamps,
        ..LogParams::default()
    };
    let api: Api<Pod> = Api::namespaced(client.kube().clone(), &namespace);
    let mut lines = api.log_stream(&name, &params).await.doing(format_args!("read the log of {name}"))?;
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).await? == 0 {
            return Ok(0);
        }
        let text = String::from_utf8_lossy(&line);
        // A file or a pipe gets every byte; a terminal is protected.
        if cx.print.terminal { cx.print.out(clean_log(&text)) } else { cx.print.out(text) }
    }
}

/// The pod of a name, or for `deployment/NAME` one of its pods, a ready one where there is one.
pub(super) async fn pod(client: &Client, namespace: &str, what: &str) -> Result<Pod, Failure> {
    let (kind, name) = what.split_once('/').unwrap_or(("pod", what));
    match kind {
        "pod" | "pods" | "po" => match client.get::<Pod>(namespace, name).await.doing(format_args!("find the pod {name}"))? {
            Some(pod) => Ok(pod),
            None => fail(
                format!("there is no pod {name} in namespace {namespace}"),
                "`portolan get pods -A` lists them; -n names the namespace",
            ),
        },
        "deployment" | "deployments" | "deploy" => {
            let found: Option<Deployment> =
                client.get(namespace, name).await.doing(format_args!("find the deployment {name}"))?;
            let Some(deployment) = found else {
                return fail(format!("there is no deployment {name} in namespace {namespace}"), "-n names the namespace");
            };
            let labels = deployment.spec.selector.match_labels.unwrap_or_default();
            let selector = labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
            let query = format!("labelSelector={}", super::get::encode(&selector));
            let mut pods: Vec<Pod> = client.list(namespace, &query).await.doing("list its pods")?;
            pods.sort_by_key(|p| (!ready(p), p.metadata.name.clone()));
            match pods.into_iter().next() {
                Some(pod) => Ok(pod),
                None => fail(format!("deployment {name} has no pod"), "`portolan status` says what it waits on"),
            }
        }
        _ => fail(format!("{what:?} is neither a pod nor a deployment"), "portolan logs POD, or portolan logs deployment/NAME"),
    }
}

/// The container that `kubectl.kubernetes.io/default-container` names, else the first.
pub(super) fn default_container(cx: &Context, pod: &Pod) -> String {
    let wished = pod.metadata.annotations.as_ref().and_then(|a| a.get("kubectl.kubernetes.io/default-container")).cloned();
    let containers = pod.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
    if wished.is_none() && containers.len() > 1 {
        let others = containers.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        cx.print.say(format_args!("container {} is meant, of {others}", containers[0].name));
    }
    wished.or_else(|| containers.first().map(|c| c.name.clone())).unwrap_or_default()
}
