//! Between our values and the Engine API's.

use std::collections::HashMap;

use bollard::models as api;
use jiff::Timestamp;

use crate::docker::container::{
    Bind, ContainerSpec, ContainerState, IpcMode, Mount, NetworkMode, PidMode, Propagation, Protocol, Resources, Status, Summary,
    Tmpfs,
};
use crate::docker::{ImageState, Info, Stats};

/// How large one log file of a container may grow before the next is begun. A container that talks must not fill the host's disk; these
/// are Kubernetes' figures.
const LOG_FILE_SIZE: &str = "10m";
/// How many log files of a container are kept.
const LOG_FILES: &str = "5";

/// The body of a create request. Every field comes from a field of the spec; nothing is passed through.
pub(super) fn create_body(spec: &ContainerSpec, oom_score_adj: Option<i32>) -> api::ContainerCreateBody {
    let ports = spec.ports.iter().map(|binding| (port(binding.container_port, binding.protocol), binding));
    let mut exposed: Vec<String> = ports.clone().map(|(port, _)| port).collect();
    exposed.sort();
    exposed.dedup();
    let mut bindings: api::PortMap = HashMap::new();
    for (port, binding) in ports {
        let list = bindings.entry(port).or_insert_with(|| Some(Vec::new()));
        list.get_or_insert_default()
            .push(api::PortBinding { host_ip: binding.host_ip.clone(), host_port: Some(binding.host_port.to_string()) });
    }
    let resources = &spec.resources;
    let host_config = api::HostConfig {
        network_mode: Some(match &spec.network {
            NetworkMode::Bridge => "bridge".into(),
            NetworkMode::Host => "host".into(),
            NetworkMode::None => "none".into(),
            NetworkMode::Container(id) => format!("container:{id}"),
        }),
        ipc_mode: Some(match &spec.ipc {
            IpcMode::Private => "private".into(),
            IpcMode::Shareable => "shareable".into(),
            IpcMode::Host => "host".into(),
            IpcMode::Container(id) => format!("container:{id}"),
        }),
        pid_mode: match &spec.pid {
            PidMode::Private => None,
            PidMode::Host => Some("host".into()),
            PidMode::Container(id) => Some(format!("container:{id}")),
        },
        port_bindings: some(bindings),
        // Mounts have fields where binds have one string with colons in it, and they do not make missing directories as root.
        mounts: some(spec.binds.iter().map(bind).chain(spec.tmpfs.iter().map(tmpfs)).collect()),
        memory: limit(resources.memory),
        // The sum of memory and swap: no swap.
        memory_swap: limit(resources.memory),
        cpu_shares: limit(resources.cpu_shares),
        cpu_quota: limit(resources.cpu_quota),
        cpu_period: limit(resources.cpu_period),
        pids_limit: limit(resources.pids),
        cap_add: some(spec.cap_add.clone()),
        cap_drop: some(spec.cap_drop.clone()),
        privileged: spec.privileged.then_some(true),
        readonly_rootfs: spec.read_only_root.then_some(true),
        security_opt: some(spec.security.clone()),
        oom_score_adj: oom_score_adj.map(Into::into),
        extra_hosts: some(spec.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect()),
        dns: some(spec.dns.clone()),
        dns_search: some(spec.dns_search.clone()),
        dns_options: some(spec.dns_options.clone()),
        group_add: some(spec.groups.iter().map(i64::to_string).collect()),
        sysctls: some(spec.sysctls.clone().into_iter().collect()),
        shm_size: limit(spec.shm_size),
        init: spec.init.then_some(true),
        // Whether something runs is decided by us alone: Docker would start it again after its own restart, too.
        restart_policy: Some(api::RestartPolicy { name: Some(api::RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: Some(api::HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some([("max-size".into(), LOG_FILE_SIZE.into()), ("max-file".into(), LOG_FILES.into())].into()),
        }),
        ..api::HostConfig::default()
    };
    api::ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: spec.entrypoint.clone(),
        cmd: spec.cmd.clone(),
        env: some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        labels: Some(spec.labels.clone().into_iter().collect()),
        hostname: spec.hostname.clone(),
        exposed_ports: some(exposed),
        stop_signal: spec.stop_signal.clone(),
        tty: spec.tty.then_some(true),
        open_stdin: spec.open_stdin.then_some(true),
        stdin_once: spec.stdin_once.then_some(true),
        // An image's own health check would run beside the probes and tell nobody.
        healthcheck: Some(api::HealthConfig { test: Some(vec!["NONE".into()]), ..api::HealthConfig::default() }),
        host_config: Some(host_config),
        ..api::ContainerCreateBody::default()
    }
}

/// The body of an update request.
pub(super) fn update_body(resources: &Resources) -> api::ContainerUpdateBody {
    api::ContainerUpdateBody {
        memory: limit(resources.memory),
        memory_swap: limit(resources.memory),
        cpu_shares: limit(resources.cpu_shares),
        cpu_quota: limit(resources.cpu_quota),
        cpu_period: limit(resources.cpu_period),
        pids_limit: limit(resources.pids),
        ..api::ContainerUpdateBody::default()
    }
}

fn bind(bind: &Bind) -> api::Mount {
    let propagation = match bind.propagation {
        // Docker's own choice: private, but for what its own directory lies in, where it refuses that.
        Propagation::Private => None,
        Propagation::HostToContainer => Some(api::MountBindOptionsPropagationEnum::RSLAVE),
        Propagation::Bidirectional => Some(api::MountBindOptionsPropagationEnum::RSHARED),
    };
    api::Mount {
        typ: Some(api::MountType::BIND),
        source: Some(bind.source.clone()),
        target: Some(bind.target.clone()),
        read_only: Some(bind.read_only),
        bind_options: propagation
            .map(|propagation| api::MountBindOptions { propagation: Some(propagation), ..api::MountBindOptions::default() }),
        ..api::Mount::default()
    }
}

fn tmpfs(tmpfs: &Tmpfs) -> api::Mount {
    api::Mount {
        typ: Some(api::MountType::TMPFS),
        target: Some(tmpfs.target.clone()),
        tmpfs_options: Some(api::MountTmpfsOptions {
            size_bytes: limit(tmpfs.size),
            mode: tmpfs.mode.map(Into::into),
            options: None,
        }),
        ..api::Mount::default()
    }
}

fn port(port: u16, protocol: Protocol) -> String {
    match protocol {
        Protocol::Tcp => format!("{port}/tcp"),
        Protocol::Udp => format!("{port}/udp"),
        Protocol::Sctp => format!("{port}/sctp"),
    }
}

/// What is empty is left out of the request, so that the engine's own default holds.
fn some<T: IsEmpty>(value: T) -> Option<T> {
    if value.is_empty() { None } else { Some(value) }
}

trait IsEmpty {
    fn is_empty(&self) -> bool;
}

impl<T> IsEmpty for Vec<T> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> IsEmpty for HashMap<K, V> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

fn limit(value: Option<u64>) -> Option<i64> {
    value.map(|value| i64::try_from(value).unwrap_or(i64::MAX))
}

/// Where a container is in its life. The Engine API's description has the same words in two types: one for lists, one for inspection.
macro_rules! status {
    ($words:path, $state:expr) => {{
        use $words as State;
        match $state {
            Some(State::RUNNING | State::STOPPING) => Status::Running,
            Some(State::PAUSED) => Status::Paused,
            Some(State::RESTARTING) => Status::Restarting,
            Some(State::EXITED) => Status::Exited,
            Some(State::REMOVING) => Status::Removing,
            Some(State::DEAD) => Status::Dead,
            Some(State::CREATED | State::EMPTY) | None => Status::Created,
        }
    }};
}

/// A container in a list.
pub(super) fn summary(found: api::ContainerSummary) -> Summary {
    Summary {
        id: found.id.unwrap_or_default(),
        // A container has further names where others link to it; its own has one slash.
        name: found
            .names
            .unwrap_or_default()
            .into_iter()
            .map(|name| name.trim_start_matches('/').to_string())
            .find(|name| !name.contains('/'))
            .unwrap_or_default(),
        image: found.image.unwrap_or_default(),
        labels: found.labels.unwrap_or_default().into_iter().collect(),
        status: status!(api::ContainerSummaryStateEnum, found.state),
    }
}

/// A container in full.
pub(super) fn state(found: api::ContainerInspectResponse) -> ContainerState {
    let state = found.state.unwrap_or_default();
    let config = found.config.unwrap_or_default();
    let networks = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let mut addresses: Vec<String> =
        networks.into_values().filter_map(|network| network.ip_address).filter(|ip| !ip.is_empty()).collect();
    addresses.sort();
    let network = found.host_config.and_then(|config| config.network_mode).unwrap_or_default();
    ContainerState {
        id: found.id.unwrap_or_default(),
        name: found.name.unwrap_or_default().trim_start_matches('/').into(),
        image: config.image.unwrap_or_default(),
        image_id: found.image.unwrap_or_default(),
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        status: status!(api::ContainerStateStatusEnum, state.status),
        pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default(),
        created_at: found.created.as_deref().and_then(time),
        started_at: state.started_at.as_deref().and_then(time),
        finished_at: state.finished_at.as_deref().and_then(time),
        exit_code: state.exit_code.unwrap_or_default(),
        oom_killed: state.oom_killed.unwrap_or_default(),
        error: state.error.unwrap_or_default(),
        ip: addresses.into_iter().next(),
        network: if network == "default" { "bridge".into() } else { network },
        tty: config.tty.unwrap_or_default(),
        open_stdin: config.open_stdin.unwrap_or_default(),
        hosts_path: found.hosts_path.unwrap_or_default(),
        resolv_path: found.resolv_conf_path.unwrap_or_default(),
        mounts: found
            .mounts
            .unwrap_or_default()
            .into_iter()
            .map(|mount| Mount {
                source: mount.source.unwrap_or_default(),
                target: mount.destination.unwrap_or_default(),
                read_only: mount.rw == Some(false),
            })
            .collect(),
    }
}

/// A time as the engine writes it. Its year 1 means never.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    if text.starts_with("0001-") {
        return None;
    }
    text.parse().ok()
}

/// An image in full.
pub(super) fn image(found: api::ImageInspect) -> ImageState {
    let config = found.config.unwrap_or_default();
    ImageState {
        id: found.id.unwrap_or_default(),
        tags: found.repo_tags.unwrap_or_default(),
        digests: found.repo_digests.unwrap_or_default(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        working_dir: config.working_dir.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        stop_signal: config.stop_signal.unwrap_or_default(),
        size: found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
    }
}

/// A host.
pub(super) fn info(version: api::SystemVersion, info: api::SystemInfo) -> Info {
    let architecture = info.architecture.or(version.arch).unwrap_or_default();
    Info {
        hostname: info.name.unwrap_or_default(),
        engine: "docker".into(),
        version: version.version.unwrap_or_default(),
        api_version: version.api_version.unwrap_or_default(),
        os: info.os_type.or(version.os).unwrap_or_default(),
        os_image: info.operating_system.unwrap_or_default(),
        architecture: match architecture.as_str() {
            "x86_64" => "amd64".into(),
            "aarch64" => "arm64".into(),
            "armv7l" => "arm".into(),
            _ => architecture,
        },
        kernel: info.kernel_version.or(version.kernel_version).unwrap_or_default(),
        cpus: info.ncpu.and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or_default(),
        memory: info.mem_total.and_then(|memory| u64::try_from(memory).ok()).unwrap_or_default(),
        root_dir: info.docker_root_dir.unwrap_or_default(),
        live_restore: info.live_restore_enabled.unwrap_or_default(),
    }
}

/// What a container uses.
pub(super) fn stats(found: api::ContainerStatsResponse) -> Stats {
    let memory = found.memory_stats.unwrap_or_default();
    let figures = memory.stats.unwrap_or_default();
    // The page cache that the kernel could drop at once, under its name in control groups of version 1 or 2.
    let cache = figures.get("total_inactive_file").or_else(|| figures.get("inactive_file")).copied().unwrap_or_default();
    let networks = found.networks.unwrap_or_default();
    Stats {
        at: found.read.as_deref().and_then(time).unwrap_or(Timestamp::UNIX_EPOCH),
        cpu: found.cpu_stats.and_then(|cpu| cpu.cpu_usage).and_then(|usage| usage.total_usage).unwrap_or_default(),
        memory: memory.usage.unwrap_or_default().saturating_sub(cache),
        pids: found.pids_stats.and_then(|pids| pids.current).unwrap_or_default(),
        received: networks.values().filter_map(|network| network.rx_bytes).sum(),
        sent: networks.values().filter_map(|network| network.tx_bytes).sum(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::docker::container::PortBinding;

    /// What the spec adds to an empty one's request.
    fn check(spec: ContainerSpec, expect: Expect) {
        fn lines(value: &serde_json::Value, path: &str, out: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(map) if !map.is_empty() => {
                    for (key, value) in map {
                        lines(value, &format!("{path}.{key}"), out);
                    }
                }
                _ => out.push(format!("{}={value}", path.trim_start_matches('.'))),
            }
        }
        let of = |spec: &ContainerSpec| {
            let mut out = Vec::new();
            lines(&serde_json::to_value(create_body(spec, spec.oom_score_adj)).unwrap(), "", &mut out);
            out
        };
        let empty = if spec == ContainerSpec::default() { Vec::new() } else { of(&ContainerSpec::default()) };
        let added: Vec<String> = of(&spec).into_iter().filter(|line| !empty.contains(line)).collect();
        expect.assert_eq(&(added.join("\n") + "\n"));
    }

    fn text(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_string()).collect()
    }

    #[test]
    fn an_empty_spec() {
        check(
            ContainerSpec::default(),
            expect![[r#"
            Healthcheck.Test=["NONE"]
            HostConfig.IpcMode="private"
            HostConfig.LogConfig.Config.max-file="5"
            HostConfig.LogConfig.Config.max-size="10m"
            HostConfig.LogConfig.Type="json-file"
            HostConfig.NetworkMode="bridge"
            HostConfig.RestartPolicy.Name="no"
            Image=""
            Labels={}
        "#]],
        );
    }

    #[test]
    fn a_process() {
        check(
            ContainerSpec {
                image: "nginx:1.27".into(),
                entrypoint: Some(text(&["/bin/sh", "-c"])),
                cmd: Some(text(&["echo $HOME; sleep 1"])),
                env: vec![("A".into(), "1=2".into()), ("EMPTY".into(), String::new())],
                working_dir: Some("/srv".into()),
                user: Some("1000:1000".into()),
                groups: vec![2000],
                labels: [("a".into(), "b".into())].into(),
                hostname: Some("web-1".into()),
                stop_signal: Some("SIGQUIT".into()),
                tty: true,
                open_stdin: true,
                stdin_once: true,
                init: true,
                ..ContainerSpec::default()
            },
            expect![[r#"
                Cmd=["echo $HOME; sleep 1"]
                Entrypoint=["/bin/sh","-c"]
                Env=["A=1=2","EMPTY="]
                HostConfig.GroupAdd=["2000"]
                HostConfig.Init=true
                Hostname="web-1"
                Image="nginx:1.27"
                Labels.a="b"
                OpenStdin=true
                StdinOnce=true
                StopSignal="SIGQUIT"
                Tty=true
                User="1000:1000"
                WorkingDir="/srv"
            "#]],
        );
    }

    #[test]
    fn a_sandbox() {
        let port = |container_port, host_port, protocol| PortBinding { container_port, host_port, protocol, host_ip: None };
        check(
            ContainerSpec {
                ports: vec![
                    port(80, 8080, Protocol::Tcp),
                    port(80, 8081, Protocol::Tcp),
                    PortBinding { host_ip: Some("127.0.0.1".into()), ..port(53, 53, Protocol::Udp) },
                ],
                ipc: IpcMode::Shareable,
                dns: text(&["10.0.0.10"]),
                dns_search: text(&["svc.local"]),
                dns_options: text(&["ndots:5"]),
                extra_hosts: vec![("db".into(), "10.0.0.1".into())],
                sysctls: [("net.core.somaxconn".into(), "1024".into())].into(),
                shm_size: Some(64 << 20),
                oom_score_adj: Some(-998),
                ..ContainerSpec::default()
            },
            expect![[r#"
                ExposedPorts.53/udp={}
                ExposedPorts.80/tcp={}
                HostConfig.Dns=["10.0.0.10"]
                HostConfig.DnsOptions=["ndots:5"]
                HostConfig.DnsSearch=["svc.local"]
                HostConfig.ExtraHosts=["db:10.0.0.1"]
                HostConfig.IpcMode="shareable"
                HostConfig.OomScoreAdj=-998
                HostConfig.PortBindings.53/udp=[{"HostIp":"127.0.0.1","HostPort":"53"}]
                HostConfig.PortBindings.80/tcp=[{"HostPort":"8080"},{"HostPort":"8081"}]
                HostConfig.ShmSize=67108864
                HostConfig.Sysctls.net.core.somaxconn="1024"
            "#]],
        );
    }

    #[test]
    fn a_member_of_a_sandbox() {
        check(
            ContainerSpec {
                network: NetworkMode::Container("s".into()),
                ipc: IpcMode::Container("s".into()),
                pid: PidMode::Container("s".into()),
                ..ContainerSpec::default()
            },
            expect![[r#"
                HostConfig.IpcMode="container:s"
                HostConfig.NetworkMode="container:s"
                HostConfig.PidMode="container:s"
            "#]],
        );
    }

    #[test]
    fn limits_and_rights() {
        check(
            ContainerSpec {
                resources: Resources {
                    memory: Some(128 << 20),
                    cpu_shares: Some(102),
                    cpu_quota: Some(20_000),
                    cpu_period: Some(100_000),
                    pids: Some(100),
                },
                cap_add: text(&["NET_BIND_SERVICE"]),
                cap_drop: text(&["ALL"]),
                read_only_root: true,
                security: text(&["no-new-privileges"]),
                ..ContainerSpec::default()
            },
            expect![[r#"
                HostConfig.CapAdd=["NET_BIND_SERVICE"]
                HostConfig.CapDrop=["ALL"]
                HostConfig.CpuPeriod=100000
                HostConfig.CpuQuota=20000
                HostConfig.CpuShares=102
                HostConfig.Memory=134217728
                HostConfig.MemorySwap=134217728
                HostConfig.PidsLimit=100
                HostConfig.ReadonlyRootfs=true
                HostConfig.SecurityOpt=["no-new-privileges"]
            "#]],
        );
        check(
            ContainerSpec {
                privileged: true,
                network: NetworkMode::Host,
                ipc: IpcMode::Host,
                pid: PidMode::Host,
                ..ContainerSpec::default()
            },
            expect![[r#"
                HostConfig.IpcMode="host"
                HostConfig.NetworkMode="host"
                HostConfig.PidMode="host"
                HostConfig.Privileged=true
            "#]],
        );
    }

    #[test]
    fn mounts() {
        check(
            ContainerSpec {
                binds: vec![
                    Bind { source: "/var/lib/x:y".into(), target: "/data".into(), ..Bind::default() },
                    Bind {
                        source: "/etc/ssl".into(),
                        target: "/ssl".into(),
                        read_only: true,
                        propagation: Propagation::HostToContainer,
                    },
                ],
                tmpfs: vec![Tmpfs { target: "/tmp".into(), size: Some(1 << 20), mode: Some(0o1777) }],
                ..ContainerSpec::default()
            },
            expect![[r#"
                HostConfig.Mounts=[{"ReadOnly":false,"Source":"/var/lib/x:y","Target":"/data","Type":"bind"},{"BindOptions":{"Propagation":"rslave"},"ReadOnly":true,"Source":"/etc/ssl","Target":"/ssl","Type":"bind"},{"Target":"/tmp","TmpfsOptions":{"Mode":1023,"SizeBytes":1048576},"Type":"tmpfs"}]
            "#]],
        );
    }

    #[test]
    fn times() {
        assert_eq!(time("0001-01-01T00:00:00Z"), None);
        assert_eq!(time("2026-11-21T04:00:00.123456789Z").unwrap().as_nanosecond(), 1_795_233_600_123_456_789);
    }
}
