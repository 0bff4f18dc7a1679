//! From a pod to what the engine is asked for, and back.
//!
//! Every field of a [`ContainerSpec`] is filled from one field of the pod; what is not named here never reaches the engine.

use std::collections::BTreeMap;

use base64::Engine as _;
use k8s_openapi::api::core::v1::{Container, Pod, SecurityContext};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as TypedQuantity;

use super::heart::Settings;
use crate::docker::container::{Bind, IpcMode, NetworkMode, PidMode, PortBinding, Propagation, Protocol, Status, Tmpfs};
use crate::docker::{ContainerSpec, ContainerState, RegistryAuth, Resources, is_about_network_of};
use crate::mutant::{self, Mutant};
use crate::object::quantity::Quantity;
use crate::plan::pod::env::{self, Sources};
use crate::plan::pod::volume::stays_inside;
use crate::plan::pod::{Cell, State, spec, status};

/// The label that says which cluster a container belongs to.
pub const CLUSTER: &str = "portolan.dev/cluster";
/// The label that says which node it belongs to: several agents may share one engine.
pub const NODE: &str = "portolan.dev/node";
/// The label with `podsandbox` or `container`.
pub const TYPE: &str = "io.kubernetes.docker.type";
/// The label with the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The label with the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The label with the pod's uid.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// The label with the container's name in the pod; `POD` for a sandbox.
pub const CONTAINER: &str = "io.kubernetes.container.name";
/// The label with the attempt.
pub const ATTEMPT: &str = "io.kubernetes.container.restartCount";
/// The label with [`spec::hash`].
pub const HASH: &str = "io.kubernetes.container.hash";
/// The label with the sandbox's id.
pub const SANDBOX: &str = "io.kubernetes.sandbox.id";
/// The name of a sandbox in [`CONTAINER`].
pub const SANDBOX_NAME: &str = "POD";

/// How many processes a container may have when nobody says otherwise: enough for any server, and a bound for a fork bomb.
const PIDS: u64 = 4096;
/// The processor share of a sandbox, which does nothing.
const SANDBOX_SHARES: u64 = 2;
/// Docker's scheduling period, in microseconds.
const CPU_PERIOD: u64 = 100_000;
/// The shortest quota that the kernel takes, in microseconds.
const CPU_QUOTA_MIN: u64 = 1_000;

/// The labels by which an agent finds its containers.
pub fn ours(settings: &Settings) -> Vec<String> {
    if mutant::on(Mutant::TouchForeign) {
        return Vec::new();
    }
    vec![format!("{CLUSTER}={}", settings.cluster), format!("{NODE}={}", settings.node)]
}

/// Whether a container belongs to this agent.
pub fn is_ours(settings: &Settings, labels: &BTreeMap<String, String>) -> bool {
    mutant::on(Mutant::TouchForeign) || labels.get(CLUSTER) == Some(&settings.cluster) && labels.get(NODE) == Some(&settings.node)
}

/// The name of a container. The engine refuses a second one of the same name: that is the lock against doing something twice.
pub fn container_name(pod: &Pod, container: &str, attempt: u32) -> String {
    let container = if container.is_empty() { SANDBOX_NAME } else { container };
    format!("k8s_{container}_{}_{}_{}_{attempt}", spec::name(pod), spec::namespace(pod), spec::uid(pod))
}

/// What a container is in terms of its pod: the pod's uid and the cell. `None` for one that is not ours or has lost its labels.
pub fn cell(settings: &Settings, state: &ContainerState) -> Option<(String, Cell)> {
    let label = |name: &str| state.labels.get(name).cloned();
    if !is_ours(settings, &state.labels) {
        return None;
    }
    let uid = label(POD_UID)?;
    let name = label(CONTAINER)?;
    let sandbox = label(SANDBOX).unwrap_or_default();
    // Where only the sandbox was missing, the container was made and never tried.
    let untried = state.status == Status::Created && is_about_network_of(&state.error, &sandbox);
    let cell = Cell {
        id: state.id.clone(),
        container: if label(TYPE)? == "podsandbox" { String::new() } else { name },
        attempt: label(ATTEMPT)?.parse().ok()?,
        sandbox,
        hash: label(HASH).unwrap_or_default(),
        state: match state.status {
            Status::Created => State::Created,
            Status::Running | Status::Restarting => State::Running,
            Status::Paused => State::Paused,
            Status::Exited => State::Exited,
            Status::Removing | Status::Dead => State::Leaving,
        },
        created_at: state.created_at,
        started_at: state.started_at,
        finished_at: state.finished_at,
        exit_code: state.exit_code,
        oom_killed: state.oom_killed,
        error: if untried { String::new() } else { state.error.clone() },
        image: state.image.clone(),
        image_id: state.image_id.clone(),
        ip: state.ip.clone(),
    };
    Some((uid, cell))
}

fn labels(settings: &Settings, pod: &Pod, container: &str, attempt: u32) -> BTreeMap<String, String> {
    // The pod's own labels come along, but can never stand in for ours.
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.retain(|name, _| !name.starts_with("io.kubernetes.") && !name.starts_with("portolan.dev/"));
    let mut put = |name: &str, value: &str| labels.insert(name.to_owned(), value.to_owned());
    put(CLUSTER, &settings.cluster);
    put(NODE, &settings.node);
    put(TYPE, if container.is_empty() { "podsandbox" } else { "container" });
    put(POD_NAME, spec::name(pod));
    put(POD_NAMESPACE, spec::namespace(pod));
    put(POD_UID, spec::uid(pod));
    put(CONTAINER, if container.is_empty() { SANDBOX_NAME } else { container });
    put(ATTEMPT, &attempt.to_string());
    labels
}

/// The pod's host name, as it sees it itself.
pub fn hostname(pod: &Pod) -> String {
    let name = spec::spec(pod).and_then(|s| s.hostname.as_deref()).filter(|h| !h.is_empty()).unwrap_or_else(|| spec::name(pod));
    let mut name: String = name.chars().take(63).collect();
    name.truncate(name.trim_end_matches(['-', '.']).len());
    name
}

/// The sandbox: a container that does nothing but hold the network and the shared memory of its pod.
pub fn sandbox(settings: &Settings, pod: &Pod, attempt: u32) -> ContainerSpec {
    let host_network = spec::host_network(pod);
    let pod_spec = spec::spec(pod);
    let mut out = ContainerSpec {
        image: settings.sandbox_image.clone(),
        labels: labels(settings, pod, "", attempt),
        hostname: (!host_network).then(|| hostname(pod)),
        network: if host_network { NetworkMode::Host } else { NetworkMode::Bridge },
        ipc: if pod_spec.and_then(|s| s.host_ipc) == Some(true) { IpcMode::Host } else { IpcMode::Shareable },
        pid: if pod_spec.and_then(|s| s.host_pid) == Some(true) { PidMode::Host } else { PidMode::Private },
        resources: Resources { cpu_shares: Some(SANDBOX_SHARES), pids: None, ..Resources::default() },
        security: vec!["no-new-privileges".to_owned()],
        oom_score_adj: Some(-998),
        ..ContainerSpec::default()
    };
    for alias in pod_spec.and_then(|s| s.host_aliases.as_ref()).into_iter().flatten() {
        out.extra_hosts.extend(alias.hostnames.iter().flatten().map(|name| (name.clone(), alias.ip.clone())));
    }
    let dns = pod_spec.and_then(|s| s.dns_config.as_ref());
    out.dns = dns.and_then(|d| d.nameservers.clone()).unwrap_or_default();
    out.dns_search = dns.and_then(|d| d.searches.clone()).unwrap_or_default();
    out.dns_options = dns
        .and_then(|d| d.options.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|o| {
            Some(match (&o.name, &o.value) {
                (Some(name), Some(value)) => format!("{name}:{value}"),
                (name, _) => name.clone()?,
            })
        })
        .collect();
    if !host_network {
        for sysctl in pod_spec.and_then(|s| s.security_context.as_ref()).and_then(|c| c.sysctls.as_ref()).into_iter().flatten() {
            out.sysctls.insert(sysctl.name.clone(), sysctl.value.clone());
        }
        let containers = spec::inits(pod).iter().filter(|c| spec::is_sidecar(c)).chain(spec::apps(pod));
        for port in containers.flat_map(|c| c.ports.iter().flatten()) {
            let (Ok(container_port), Some(Ok(host_port))) =
                (u16::try_from(port.container_port), port.host_port.filter(|p| *p != 0).map(u16::try_from))
            else {
                continue;
            };
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            };
            let host_ip = port.host_ip.clone().filter(|ip| !ip.is_empty());
            out.ports.push(PortBinding { container_port, protocol, host_ip, host_port });
        }
    }
    out
}

/// Where the agent keeps a pod's things that may lie on a disk.
pub fn pod_dir(settings: &Settings, uid: &str) -> String {
    format!("{}/{uid}", settings.pods_dir)
}
/// Where the agent keeps a pod's things that must stay in memory.
pub fn pod_memory_dir(settings: &Settings, uid: &str) -> String {
    format!("{}/{uid}", settings.memory_dir)
}
/// Where a volume is.
pub fn volume_dir(settings: &Settings, uid: &str, volume: &str, in_memory: bool) -> String {
    let dir = if in_memory { pod_memory_dir(settings, uid) } else { pod_dir(settings, uid) };
    format!("{dir}/volumes/{volume}")
}
/// Where a container may leave its termination message.
pub fn message_file(settings: &Settings, uid: &str, container: &str, attempt: u32) -> String {
    format!("{}/messages/{container}.{attempt}", pod_dir(settings, uid))
}
/// Whether a uid may be part of a path.
pub fn is_safe_uid(uid: &str) -> bool {
    !uid.is_empty() && uid.len() <= 128 && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// One container of the pod. The error is a sentence for `CreateContainerConfigError`.
pub fn container(
    settings: &Settings,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    sandbox: &str,
    image_user: &str,
    sources: &Sources<'_>,
) -> Result<ContainerSpec, String> {
    let empty = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let pod_spec = spec::spec(pod).ok_or("the pod has no spec")?;
    let shared = pod_spec.security_context.clone().unwrap_or_default();
    let environment = env::environment(pod, container, sources)?;
    let (entrypoint, cmd) = env::command(container, &environment);
    let mut labels = labels(settings, pod, &container.name, attempt);
    labels.insert(HASH.to_owned(), spec::hash(container));
    labels.insert(SANDBOX.to_owned(), sandbox.to_owned());

    let run_as = own.run_as_user.or(shared.run_as_user);
    let run_as_group = own.run_as_group.or(shared.run_as_group);
    if own.run_as_non_root.or(shared.run_as_non_root) == Some(true) {
        let root = match run_as {
            Some(uid) => uid == 0,
            None => matches!(image_user.split(':').next().unwrap_or(""), "" | "0" | "root"),
        };
        if root {
            return Err(format!("container has runAsNonRoot and would run as root (container: {})", container.name));
        }
    }
    let image_user = image_user.split(':').next().filter(|u| !u.is_empty()).unwrap_or("0");
    let user = match (run_as, run_as_group) {
        (Some(uid), Some(gid)) => Some(format!("{uid}:{gid}")),
        (Some(uid), None) => Some(uid.to_string()),
        (None, Some(gid)) => Some(format!("{image_user}:{gid}")),
        (None, None) => None,
    };
    let mut groups = shared.supplemental_groups.clone().unwrap_or_default();
    groups.extend(shared.fs_group);

    let privileged = own.privileged == Some(true);
    let mut security = Vec::new();
    if own.allow_privilege_escalation == Some(false) {
        security.push("no-new-privileges".to_owned());
    }
    match own.seccomp_profile.as_ref().or(shared.seccomp_profile.as_ref()).map(|p| p.type_.as_str()) {
        Some("Unconfined") => security.push("seccomp=unconfined".to_owned()),
        Some("Localhost") => return Err("seccomp profiles of type Localhost are not supported".to_owned()),
        _ => {}
    }
    let capability = |list: Option<&Vec<String>>| -> Vec<String> {
        list.into_iter().flatten().map(|c| c.strip_prefix("CAP_").unwrap_or(c).to_owned()).collect()
    };
    let capabilities = own.capabilities.as_ref();

    Ok(ContainerSpec {
        image: spec::image(container).to_owned(),
        entrypoint,
        cmd,
        working_dir: container.working_dir.clone().filter(|d| !d.is_empty()),
        user,
        groups,
        labels,
        network: NetworkMode::Container(sandbox.to_owned()),
        ipc: if pod_spec.host_ipc == Some(true) { IpcMode::Host } else { IpcMode::Container(sandbox.to_owned()) },
        pid: match () {
            () if pod_spec.host_pid == Some(true) => PidMode::Host,
            () if pod_spec.share_process_namespace == Some(true) => PidMode::Container(sandbox.to_owned()),
            () => PidMode::Private,
        },
        binds: binds(settings, pod, container, attempt, &environment)?,
        tmpfs: Vec::<Tmpfs>::new(),
        resources: resources(container),
        cap_add: capability(capabilities.and_then(|c| c.add.as_ref())),
        cap_drop: capability(capabilities.and_then(|c| c.drop.as_ref())),
        privileged,
        read_only_root: own.read_only_root_filesystem == Some(true),
        security,
        oom_score_adj: Some(oom_score(settings, pod, container)),
        stop_signal: container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()),
        tty: container.tty == Some(true),
        open_stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        env: environment,
        ..ContainerSpec::default()
    })
}

fn amount(list: Option<&BTreeMap<String, TypedQuantity>>, name: &str) -> Option<Quantity> {
    list?.get(name).map(Quantity::from_k8s)
}

fn resources(container: &Container) -> Resources {
    let asked = container.resources.as_ref();
    let requests = asked.and_then(|r| r.requests.as_ref());
    let limits = asked.and_then(|r| r.limits.as_ref());
    let cpu_limit = amount(limits, "cpu").filter(|q| !q.is_zero());
    let cpu_request = amount(requests, "cpu").or(cpu_limit);
    let milli = |q: Quantity| u64::try_from(q.milli()).unwrap_or(0);
    Resources {
        memory: amount(limits, "memory").filter(|q| !q.is_zero()).and_then(|q| u64::try_from(q.whole()).ok()),
        cpu_shares: Some(cpu_request.map_or(2, |q| (milli(q) * 1024 / 1000).max(2))),
        cpu_quota: cpu_limit.map(|q| (milli(q) * CPU_PERIOD / 1000).max(CPU_QUOTA_MIN)),
        cpu_period: cpu_limit.map(|_| CPU_PERIOD),
        pids: Some(PIDS),
    }
}

/// As the kubelet does: the less a container asked for, the sooner it is killed when memory runs out.
fn oom_score(settings: &Settings, pod: &Pod, container: &Container) -> i32 {
    match status::qos(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let asked = amount(container.resources.as_ref().and_then(|r| r.requests.as_ref()), "memory").unwrap_or_default();
            let share = i128::from(asked.whole().max(0)) * 1000 / i128::from(settings.memory.max(1));
            (1000 - i32::try_from(share).unwrap_or(1000)).clamp(3, 999)
        }
    }
}

fn binds(
    settings: &Settings,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    environment: &[(String, String)],
) -> Result<Vec<Bind>, String> {
    let values: BTreeMap<String, String> = environment.iter().cloned().collect();
    let uid = spec::uid(pod);
    let mut out = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = spec::spec(pod)
            .and_then(|s| s.volumes.as_ref())
            .into_iter()
            .flatten()
            .find(|v| v.name == mount.name)
            .ok_or_else(|| format!("volume \"{}\" is not defined", mount.name))?;
        if !stays_inside(&volume.name) || volume.name.contains('/') {
            return Err(format!("volume name \"{}\" is not allowed", volume.name));
        }
        let files =
            volume.config_map.is_some() || volume.secret.is_some() || volume.downward_api.is_some() || volume.projected.is_some();
        let in_memory = volume.secret.is_some()
            || volume.projected.is_some()
            || volume.empty_dir.as_ref().is_some_and(|e| e.medium.as_deref() == Some("Memory"));
        let mut source = match &volume.host_path {
            Some(host) => host.path.clone(),
            None => volume_dir(settings, uid, &volume.name, in_memory),
        };
        let sub = match (&mount.sub_path_expr, &mount.sub_path) {
            (Some(expression), _) if !expression.is_empty() => env::expand(expression, &values),
            (_, sub) => sub.clone().unwrap_or_default(),
        };
        if !sub.is_empty() {
            if !stays_inside(&sub) {
                return Err(format!("subPath \"{sub}\" does not stay within its volume"));
            }
            // What a subPath shows does not change later, as in Kubernetes.
            source = if files { format!("{source}/..data/{sub}") } else { format!("{source}/{sub}") };
        }
        let propagation = match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            _ => Propagation::Private,
        };
        out.push(Bind {
            source,
            target: mount.mount_path.clone(),
            read_only: files || mount.read_only == Some(true),
            propagation,
        });
    }
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    if !path.is_empty() {
        let source = message_file(settings, uid, &container.name, attempt);
        out.push(Bind { source, target: path.to_owned(), read_only: false, propagation: Propagation::Private });
    }
    Ok(out)
}

/// Who the pod is to an image's registry, by its `imagePullSecrets`.
pub fn registry_auth(pod: &Pod, image: &str, sources: &Sources<'_>) -> Option<RegistryAuth> {
    let first = image.split('/').next().unwrap_or_default();
    let named = image.contains('/') && (first.contains('.') || first.contains(':') || first == "localhost");
    let registry = if named { first } else { "docker.io" };
    let names: &[&str] = if named { &[registry] } else { &["https://index.docker.io/v1/", "index.docker.io", "docker.io"] };
    for reference in spec::spec(pod)?.image_pull_secrets.iter().flatten() {
        let Some(values) = (sources.secret)(&reference.name) else { continue };
        let Some(config) = values.get(".dockerconfigjson") else { continue };
        let Ok(config) = serde_json::from_slice::<serde_json::Value>(config) else { continue };
        let Some(auths) = config["auths"].as_object() else { continue };
        let host = |key: &str| key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/').to_owned();
        let Some((_, auth)) = auths.iter().find(|(key, _)| names.contains(&key.as_str()) || host(key) == registry) else {
            continue;
        };
        let text = |name: &str| auth[name].as_str().unwrap_or_default().to_owned();
        let (mut username, mut password) = (text("username"), text("password"));
        if let Ok(pair) = base64::engine::general_purpose::STANDARD.decode(text("auth"))
            && let Some((user, pass)) = String::from_utf8_lossy(&pair).split_once(':')
        {
            (username, password) = (user.to_owned(), pass.to_owned());
        }
        return Some(RegistryAuth { server: registry.to_owned(), username, password, identity_token: text("identitytoken") });
    }
    None
}

#[cfg(test)]
mod tests;
