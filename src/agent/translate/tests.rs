//! What containers are made of: names, labels, environments, volumes, limits.

use expect_test::expect;
use jiff::SignedDuration;
use serde_json::json;

use super::*;

fn settings() -> Settings {
    Settings {
        node: "n".into(),
        node_ip: "10.0.0.1".into(),
        api: None,
        cluster: "c1".into(),
        sandbox_image: "pause".into(),
        pods_dir: "/pods".into(),
        memory_dir: "/mem".into(),
        relist_every: SignedDuration::ZERO,
        server_wait: SignedDuration::ZERO,
        cpus: 2,
        memory: 1 << 30,
        booted_at: None,
    }
}

fn pod(spec: serde_json::Value) -> Pod {
    let labels = json!({"app": "web", "portolan.dev/cluster": "forged", "io.kubernetes.pod.uid": "forged"});
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": labels}, "spec": spec}))
        .unwrap()
}

fn build(pod: &Pod, user: &str) -> Result<ContainerSpec, String> {
    let sources = Sources {
        config_map: &|_| None,
        secret: &|_| None,
        token: &|_| None,
        api: None,
        away: false,
        node: "n",
        node_ip: "",
        pod_ip: None,
        host: (2, 1 << 30),
    };
    container(&settings(), pod, &spec::apps(pod)[0], 2, "sandbox-id", user, &sources)
}

#[test]
fn every_field() {
    let pod = pod(json!({
        "securityContext": {"runAsUser": 1000, "fsGroup": 2000, "supplementalGroups": [3000], "sysctls": [{"name": "a", "value": "b"}]},
        "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x", "y"]}], "dnsConfig": {"nameservers": ["9.9.9.9"],
            "options": [{"name": "ndots", "value": "5"}, {"name": "rotate"}]},
        "containers": [{"name": "c", "image": "web:1", "command": ["a"], "args": ["b"], "workingDir": "/w", "tty": true,
            "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "hostPort": 53, "protocol": "UDP"}, {"containerPort": 81}],
            "securityContext": {"runAsGroup": 7, "capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["ALL"]},
                "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "seccompProfile": {"type": "Unconfined"}},
            "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"cpu": "1500m", "memory": "1Gi"}},
            "volumeMounts": [{"name": "e", "mountPath": "/e", "subPath": "s"}, {"name": "s", "mountPath": "/s"},
                {"name": "h", "mountPath": "/h", "readOnly": true, "mountPropagation": "HostToContainer"}]}],
        "volumes": [{"name": "e", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "x"}}, {"name": "h", "hostPath": {"path": "/srv"}}],
    }));
    expect![[r#"
        ContainerSpec {
            image: "web:1",
            entrypoint: Some(
                [
                    "a",
                ],
            ),
            cmd: Some(
                [
                    "b",
                ],
            ),
            env: [],
            working_dir: Some(
                "/w",
            ),
            user: Some(
                "1000:7",
            ),
            groups: [
                3000,
                2000,
            ],
            labels: {
                "app": "web",
                "io.kubernetes.container.hash": "b221bbed966fdee6",
                "io.kubernetes.container.name": "c",
                "io.kubernetes.container.restartCount": "2",
                "io.kubernetes.docker.type": "container",
                "io.kubernetes.pod.name": "p",
                "io.kubernetes.pod.namespace": "d",
                "io.kubernetes.pod.uid": "u",
                "io.kubernetes.sandbox.id": "sandbox-id",
                "portolan.dev/cluster": "c1",
                "portolan.dev/node": "n",
            },
            hostname: None,
            network: Container(
                "sandbox-id",
            ),
            ipc: Container(
                "sandbox-id",
            ),
            pid: Private,
            ports: [],
            binds: [
                Bind {
                    source: "/pods/u/volumes/e/s",
                    target: "/e",
                    read_only: false,
                    propagation: Private,
                },
                Bind {
                    source: "/mem/u/volumes/s",
                    target: "/s",
                    read_only: true,
                    propagation: Private,
                },
                Bind {
                    source: "/srv",
                    target: "/h",
                    read_only: true,
                    propagation: HostToContainer,
                },
                Bind {
                    source: "/pods/u/messages/c.2",
                    target: "/dev/termination-log",
                    read_only: false,
                    propagation: Private,
                },
            ],
            tmpfs: [],
            resources: Resources {
                memory: Some(
                    1073741824,
                ),
                cpu_shares: Some(
                    256,
                ),
                cpu_quota: Some(
                    150000,
                ),
                cpu_period: Some(
                    100000,
                ),
                pids: Some(
                    4096,
                ),
            },
            cap_add: [
                "NET_ADMIN",
            ],
            cap_drop: [
                "ALL",
            ],
            privileged: false,
            read_only_root: true,
            security: [
                "no-new-privileges",
                "seccomp=unconfined",
            ],
            oom_score_adj: Some(
                500,
            ),
            extra_hosts: [],
            dns: [],
            dns_search: [],
            dns_options: [],
            stop_signal: None,
            tty: true,
            open_stdin: false,
            stdin_once: false,
            sysctls: {},
            shm_size: None,
            init: false,
        }"#]]
    .assert_eq(&format!("{:#?}", build(&pod, "").unwrap()));
    expect![[r#"
        ContainerSpec {
            image: "pause",
            entrypoint: None,
            cmd: None,
            env: [],
            working_dir: None,
            user: None,
            groups: [],
            labels: {
                "app": "web",
                "io.kubernetes.container.name": "POD",
                "io.kubernetes.container.restartCount": "1",
                "io.kubernetes.docker.type": "podsandbox",
                "io.kubernetes.pod.name": "p",
                "io.kubernetes.pod.namespace": "d",
                "io.kubernetes.pod.uid": "u",
                "portolan.dev/cluster": "c1",
                "portolan.dev/node": "n",
            },
            hostname: Some(
                "p",
            ),
            network: Bridge,
            ipc: Shareable,
            pid: Private,
            ports: [
                PortBinding {
                    container_port: 80,
                    protocol: Tcp,
                    host_ip: None,
                    host_port: 8080,
                },
                PortBinding {
                    container_port: 53,
                    protocol: Udp,
                    host_ip: None,
                    host_port: 53,
                },
            ],
            binds: [],
            tmpfs: [],
            resources: Resources {
                memory: None,
                cpu_shares: Some(
                    2,
                ),
                cpu_quota: None,
                cpu_period: None,
                pids: None,
            },
            cap_add: [],
            cap_drop: [],
            privileged: false,
            read_only_root: false,
            security: [
                "no-new-privileges",
            ],
            oom_score_adj: Some(
                -998,
            ),
            extra_hosts: [
                (
                    "x",
                    "1.2.3.4",
                ),
                (
                    "y",
                    "1.2.3.4",
                ),
            ],
            dns: [
                "9.9.9.9",
            ],
            dns_search: [],
            dns_options: [
                "ndots:5",
                "rotate",
            ],
            stop_signal: None,
            tty: false,
            open_stdin: false,
            stdin_once: false,
            sysctls: {
                "a": "b",
            },
            shm_size: None,
            init: false,
        }"#]]
    .assert_eq(&format!("{:#?}", sandbox(&settings(), &pod, 1)));
    assert_eq!(container_name(&pod, "c", 2), "k8s_c_p_d_u_2");
    assert_eq!(container_name(&pod, "", 0), "k8s_POD_p_d_u_0");
}

#[test]
fn refused() {
    let with = |container: serde_json::Value| {
        let mut container = container;
        container["name"] = "c".into();
        pod(json!({"containers": [container], "volumes": [{"name": "v", "emptyDir": {}}]}))
    };
    let root = with(json!({"securityContext": {"runAsNonRoot": true}}));
    assert!(build(&root, "").is_err() && build(&root, "0:0").is_err() && build(&root, "web").is_ok());
    for sub in ["../x", "/x", "a/../../b", "a//b"] {
        let pod = with(json!({"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": sub}]}));
        assert!(build(&pod, "").is_err(), "{sub}");
    }
    assert!(build(&with(json!({"volumeMounts": [{"name": "none", "mountPath": "/v"}]})), "").is_err());
    assert!(build(&with(json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}})), "").is_err());
}

#[test]
fn there_and_back() {
    let pod = pod(json!({"containers": [{"name": "c", "image": "web:1"}]}));
    let made = build(&pod, "").unwrap();
    let mut state = ContainerState { id: "x".into(), labels: made.labels, status: Status::Running, ..ContainerState::default() };
    let (uid, cell) = cell(&settings(), &state).unwrap();
    assert_eq!((uid.as_str(), cell.container.as_str(), cell.attempt, cell.sandbox.as_str()), ("u", "c", 2, "sandbox-id"));
    assert_eq!(cell.hash, spec::hash(&spec::apps(&pod)[0]));
    state.labels.insert(CLUSTER.into(), "other".into());
    assert!(super::cell(&settings(), &state).is_none(), "foreign");
}
