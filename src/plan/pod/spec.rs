//! What a pod's manifest says, with Kubernetes' defaults where it says nothing.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, ContainerPort, EphemeralContainer, Pod, PodSpec, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// When ended containers are started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Always.
    Always,
    /// When they failed.
    OnFailure,
    /// Never.
    Never,
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// For every new container.
    Always,
    /// When the host does not have it.
    IfNotPresent,
    /// Not at all.
    Never,
}

/// The spec. A stored pod always has one.
pub fn spec(pod: &Pod) -> Option<&PodSpec> {
    pod.spec.as_ref()
}
/// The pod's uid.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}
/// The pod's namespace.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}
/// The pod's name.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}
/// Its containers, without init containers.
pub fn apps(pod: &Pod) -> &[Container] {
    spec(pod).map_or(&[], |s| &s.containers)
}
/// Its init containers, in order.
pub fn inits(pod: &Pod) -> &[Container] {
    spec(pod).and_then(|s| s.init_containers.as_deref()).unwrap_or(&[])
}
/// Any of its containers by name.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    inits(pod).iter().chain(apps(pod)).find(|c| c.name == name)
}
/// Containers that were added to look into it while it runs, in order, as the containers that they otherwise are.
pub fn ephemerals(pod: &Pod) -> Vec<Container> {
    ephemeral_list(pod).iter().map(as_container).collect()
}
fn ephemeral_list(pod: &Pod) -> &[EphemeralContainer] {
    spec(pod).and_then(|s| s.ephemeral_containers.as_deref()).unwrap_or(&[])
}
/// Whether a container was added to look into the pod.
pub fn is_ephemeral(pod: &Pod, name: &str) -> bool {
    ephemeral_list(pod).iter().any(|c| c.name == name)
}
/// The container whose processes an ephemeral one is to see.
pub fn target<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let found = ephemeral_list(pod).iter().find(|c| c.name == name)?;
    found.target_container_name.as_deref().filter(|target| !target.is_empty())
}
/// Any of its containers by name, ephemeral ones too.
pub fn definition<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    let ephemeral = || ephemeral_list(pod).iter().find(|c| c.name == name).map(as_container).map(Cow::Owned);
    container(pod, name).map(Cow::Borrowed).or_else(ephemeral)
}
/// What an ephemeral container may not have (ports, probes, resources …) is left out.
fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let from = ephemeral.clone();
    Container {
        name: from.name,
        image: from.image,
        image_pull_policy: from.image_pull_policy,
        command: from.command,
        args: from.args,
        env: from.env,
        env_from: from.env_from,
        working_dir: from.working_dir,
        volume_mounts: from.volume_mounts,
        security_context: from.security_context,
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        tty: from.tty,
        termination_message_path: from.termination_message_path,
        termination_message_policy: from.termination_message_policy,
        ..Container::default()
    }
}
/// Whether an init container keeps running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}
/// The pod's restart policy.
pub fn restart(pod: &Pod) -> Restart {
    match spec(pod).and_then(|s| s.restart_policy.as_deref()) {
        Some("Never") => Restart::Never,
        Some("OnFailure") => Restart::OnFailure,
        _ => Restart::Always,
    }
}
/// The restart policy that holds for one container: init containers that fail are repeated unless the pod says never.
pub fn restart_of(pod: &Pod, container: &Container) -> Restart {
    if is_sidecar(container) {
        return Restart::Always;
    }
    if is_ephemeral(pod, &container.name) {
        return Restart::Never;
    }
    match restart(pod) {
        Restart::Always if inits(pod).iter().any(|c| c.name == container.name) => Restart::OnFailure,
        policy => policy,
    }
}
/// When the container's image is fetched. Without a word: always for `latest`, else when absent.
pub fn pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some(_) => PullPolicy::IfNotPresent,
        None => {
            let image = image(container);
            let last = image.rsplit('/').next().unwrap_or(image);
            let latest = !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
            if latest { PullPolicy::Always } else { PullPolicy::IfNotPresent }
        }
    }
}
/// The container's image as it was asked for.
pub fn image(container: &Container) -> &str {
    container.image.as_deref().unwrap_or_default()
}
/// How long the pod's containers have to end, in seconds.
pub fn grace(pod: &Pod) -> i64 {
    spec(pod).and_then(|s| s.termination_grace_period_seconds).unwrap_or(30).max(0)
}
/// Whether the pod is in the host's network.
pub fn host_network(pod: &Pod) -> bool {
    spec(pod).and_then(|s| s.host_network) == Some(true)
}
/// The group that owns the pod's volumes.
pub fn fs_group(pod: &Pod) -> Option<u32> {
    spec(pod)?.security_context.as_ref()?.fs_group.and_then(|g| u32::try_from(g).ok())
}
/// What distinguishes one definition of a container from the next: a change restarts it.
///
/// Only name and image count: they are what Kubernetes lets one change in a running pod, and a new version of ours that fills in one
/// default more must not restart everything.
pub fn hash(container: &Container) -> String {
    let text = format!("{}\0{}", container.name, image(container));
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}
/// A port by number or by the name that the container gives it.
pub fn port(container: &Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let named = |p: &&ContainerPort| p.name.as_deref() == Some(name);
            match container.ports.iter().flatten().find(named) {
                Some(port) => u16::try_from(port.container_port).ok(),
                None => name.parse().ok(),
            }
        }
    }
}
/// The seconds between two runs of a probe.
pub fn period(probe: &Probe) -> i64 {
    i64::from(probe.period_seconds.unwrap_or(10).max(1))
}
/// The seconds that a probe may take.
pub fn timeout(probe: &Probe) -> i64 {
    i64::from(probe.timeout_seconds.unwrap_or(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policies() {
        let policy = |image: &str| pull_policy(&Container { image: Some(image.into()), ..Container::default() });
        for image in ["nginx", "nginx:latest", "host:5000/nginx"] {
            assert_eq!(policy(image), PullPolicy::Always, "{image}");
        }
        for image in ["nginx:1.27", "host:5000/nginx:1", "nginx@sha256:00"] {
            assert_eq!(policy(image), PullPolicy::IfNotPresent, "{image}");
        }
    }
}
