//! Tables: what is seen of a pod, in a small text form, and what follows.
//!
//! A line of what is seen: `<container, POD for the sandbox> <attempt> <state> [age in seconds]`, where a state is `created`, `running`,
//! `paused` or `exit:<code>`; a container's sandbox is the newest unless it says `in <attempt>`.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::memory::{Kill, Work};
use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": spec})).unwrap()
}

fn plain() -> Value {
    json!({"containers": [{"name": "c", "image": "web:1"}], "terminationGracePeriodSeconds": 30})
}

fn seen(pod: &Pod, text: &str) -> Seen {
    let mut seen = Seen::default();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = if words[0] == "POD" { "" } else { words[0] };
        let attempt: u32 = words[1].parse().unwrap();
        let age: i64 = words.get(3).and_then(|w| w.parse().ok()).unwrap_or(60);
        let at = now() - SignedDuration::from_secs(age);
        let inside = words.iter().position(|w| *w == "in").map(|i| words[i + 1]);
        let mut cell = Cell {
            id: format!("{}-{attempt}", words[0]),
            container: name.to_owned(),
            attempt,
            hash: spec::definition(pod, name).map(|c| spec::hash(&c)).unwrap_or_default(),
            created_at: Some(at),
            ..Cell::default()
        };
        if !name.is_empty() {
            cell.sandbox =
                inside.map_or_else(|| seen.sandbox().map(|s| s.id.clone()).unwrap_or_default(), |n| format!("POD-{n}"));
        }
        match words[2].split_once(':') {
            Some((_, code)) => {
                cell.state = State::Exited;
                cell.exit_code = code.parse().unwrap();
                cell.started_at = Some(at - SignedDuration::from_secs(1));
                cell.finished_at = Some(at);
            }
            None if words[2] == "created" => {}
            None => {
                cell.state = if words[2] == "paused" { State::Paused } else { State::Running };
                cell.started_at = Some(at);
            }
        }
        if name.is_empty() {
            cell.ip = cell.state.alive().then(|| "10.0.0.9".to_owned());
            seen.sandboxes.push(cell);
        } else {
            seen.containers.push(cell);
        }
    }
    seen.sort();
    seen
}

fn decide(pod: &Pod, text: &str, memory: &mut Memory) -> String {
    let seen = seen(pod, text);
    let view = View { pod, seen: &seen, node_ip: "10.0.0.1", booted_at: None, may_start: true, now: now() };
    let decision = next(&view, memory);
    let mut out = String::new();
    for step in &decision.steps {
        writeln!(out, "{step:?}").unwrap();
    }
    if let Some(wake) = decision.wake {
        writeln!(out, "look again in {} s", wake.duration_since(now()).as_secs()).unwrap();
    }
    writeln!(out, "{}", decision.status.phase.unwrap_or_default()).unwrap();
    out
}

fn check(spec: Value, text: &str, expected: Expect) {
    let mut memory = Memory { volumes: Work::Done, ..Memory::default() };
    let pod = pod(spec);
    let first = decide(&pod, text, &mut memory);
    expected.assert_eq(&first);
    assert_eq!(decide(&pod, text, &mut memory), first, "deciding again says the same");
}

/// What the status says of the end of container `c`: `reason code signal`.
fn end(text: &str, booted_seconds_ago: Option<i64>, memory: &mut Memory) -> String {
    let pod = pod(plain());
    let seen = seen(&pod, text);
    let booted_at = booted_seconds_ago.map(|n| now() - SignedDuration::from_secs(n));
    let view = View { pod: &pod, seen: &seen, node_ip: "10.0.0.1", booted_at, may_start: true, now: now() };
    let status = next(&view, memory).status.container_statuses.unwrap_or_default();
    let ended = |s: &Option<k8s_openapi::api::core::v1::ContainerState>| s.as_ref().and_then(|s| s.terminated.clone());
    let end = ended(&status[0].state).or_else(|| ended(&status[0].last_state)).expect("it has ended");
    format!("{} {} {:?}", end.reason.unwrap_or_default(), end.exit_code, end.signal)
}

#[test]
fn an_end_says_whether_the_container_gave_the_reason() {
    let kill = |id: &str, at_fault: bool| {
        let kill = Kill { id: id.to_owned(), since: now(), at_fault, ..Kill::default() };
        let one = ContainerMemory { kill: Some(kill), ..ContainerMemory::default() };
        Memory { volumes: Work::Done, containers: [("c".to_owned(), one)].into(), ..Memory::default() }
    };
    let plain = || Memory { volumes: Work::Done, ..Memory::default() };
    for (text, memory, booted, expected) in [
        ("POD 0 running\nc 0 exited:1", plain(), None, "Error 1 None"),
        ("POD 0 running\nc 0 exited:0", plain(), None, "Completed 0 None"),
        // Somebody else's SIGKILL.
        ("POD 0 running\nc 0 exited:137", plain(), None, "Error 137 Some(9)"),
        // Our own, because a probe failed; and because the sandbox is gone.
        ("POD 0 running\nc 0 exited:137", kill("c-0", true), None, "Error 137 None"),
        ("POD 0 running\nc 0 exited:0", kill("c-0", false), None, "Completed 0 Some(15)"),
        ("POD 0 running\nc 0 exited:137", kill("c-7", true), None, "Error 137 Some(9)"),
        // It was started before its host was: lost with it, unless it shows a code of its own from before.
        ("POD 0 running\nc 0 exited:255", plain(), Some(0), "Unknown 255 None"),
        ("POD 0 running\nc 0 exited:143", plain(), Some(0), "Unknown 143 None"),
        ("POD 0 running\nc 0 exited:1", plain(), Some(0), "Error 1 None"),
        ("POD 0 running\nc 0 exited:255", plain(), Some(5000), "Error 255 None"),
    ] {
        let mut memory = memory;
        assert_eq!(end(text, booted, &mut memory), expected, "{text} {booted:?}");
    }
}

#[test]
fn from_nothing_to_running() {
    check(
        plain(),
        "",
        expect![[r#"
        SandboxCreate { attempt: 0 }
        Look { container: "c" }
        Pending
    "#]],
    );
    check(
        plain(),
        "POD 0 created",
        expect![[r#"
        Start { container: "", id: "POD-0" }
        Look { container: "c" }
        Pending
    "#]],
    );
    check(
        plain(),
        "POD 0 running",
        expect![[r#"
        Look { container: "c" }
        Pending
    "#]],
    );
    check(
        plain(),
        "POD 0 running\nc 0 created",
        expect![[r#"
        Start { container: "c", id: "c-0" }
        Pending
    "#]],
    );
    check(
        plain(),
        "POD 0 running\nc 0 running",
        expect![[r#"
        Running
    "#]],
    );
}

#[test]
fn endings() {
    check(
        plain(),
        "POD 0 running\nc 0 exit:1 3",
        expect![[r#"
        Look { container: "c" }
        LastWords { container: "c", id: "c-0", log: true }
        Running
    "#]],
    );
    check(
        plain(),
        "POD 0 running\nc 3 exit:1 3",
        expect![[r#"
        LastWords { container: "c", id: "c-3", log: true }
        look again in 37 s
        Running
    "#]],
    );
    let once = json!({"containers": [{"name": "c", "image": "web:1"}], "restartPolicy": "Never"});
    check(
        once.clone(),
        "POD 0 running\nc 0 exit:0",
        expect![[r#"
        Remove { id: "POD-0" }
        LastWords { container: "c", id: "c-0", log: false }
        Succeeded
    "#]],
    );
    check(
        once.clone(),
        "POD 0 running\nc 0 exit:7",
        expect![[r#"
        Remove { id: "POD-0" }
        LastWords { container: "c", id: "c-0", log: true }
        Failed
    "#]],
    );
    let retry = json!({"containers": [{"name": "c", "image": "web:1"}], "restartPolicy": "OnFailure"});
    check(
        retry.clone(),
        "POD 0 running\nc 0 exit:0",
        expect![[r#"
        Remove { id: "POD-0" }
        LastWords { container: "c", id: "c-0", log: false }
        Succeeded
    "#]],
    );
    check(
        retry,
        "POD 0 running\nc 0 exit:7",
        expect![[r#"
        Look { container: "c" }
        LastWords { container: "c", id: "c-0", log: true }
        Running
    "#]],
    );
}

#[test]
fn a_lost_sandbox_takes_the_pod_along() {
    check(
        plain(),
        "POD 0 exit:255\nc 0 exit:255",
        expect![[r#"
        Remove { id: "POD-0" }
        Look { container: "c" }
        LastWords { container: "c", id: "c-0", log: true }
        Running
    "#]],
    );
    check(
        plain(),
        "POD 0 exit:137\nc 0 running",
        expect![[r#"
        Remove { id: "POD-0" }
        Running
    "#]],
    );
    check(
        plain(),
        "POD 1 running\nc 0 running in 0",
        expect![[r#"
        Stop { container: "c", id: "c-0", grace: 30 }
        look again in 32 s
        Running
    "#]],
    );
}

#[test]
fn ag1_never_two_of_one_name() {
    check(
        plain(),
        "POD 0 running\nc 0 running\nc 1 exit:1",
        expect![[r#"
        Kill { container: "c", id: "c-0" }
        LastWords { container: "c", id: "c-1", log: true }
        Running
    "#]],
    );
    check(
        plain(),
        "POD 0 running\nc 0 exit:1\nc 1 exit:1\nc 2 exit:1 1",
        expect![[r#"
        Remove { id: "c-0" }
        LastWords { container: "c", id: "c-2", log: true }
        look again in 19 s
        Running
    "#]],
    );
}

#[test]
fn ephemeral_containers_start_once() {
    let with = |restart: &str| {
        json!({
            "restartPolicy": restart,
            "initContainers": [{"name": "i", "image": "web:1"}],
            "containers": [{"name": "c", "image": "web:1"}],
            "ephemeralContainers": [{"name": "e", "image": "tool:1", "targetContainerName": "c"}],
        })
    };
    // Beside the init containers, which may be what somebody wants to look into.
    check(
        with("Always"),
        "POD 0 running",
        expect![[r#"
        Look { container: "e" }
        Look { container: "i" }
        Pending
    "#]],
    );
    for restart in ["Always", "OnFailure", "Never"] {
        check(
            with(restart),
            "POD 0 running\ni 0 exit:0\nc 0 running\ne 0 exit:1",
            expect![[r#"
            LastWords { container: "e", id: "e-0", log: true }
            LastWords { container: "i", id: "i-0", log: false }
            Running
        "#]],
        );
    }
    // One that runs does not keep a pod from its end, and ends with it.
    check(
        with("Never"),
        "POD 0 running\ni 0 exit:0\nc 0 exit:0\ne 0 running",
        expect![[r#"
            Stop { container: "e", id: "e-0", grace: 30 }
            LastWords { container: "c", id: "c-0", log: false }
            LastWords { container: "i", id: "i-0", log: false }
            look again in 32 s
            Succeeded
        "#]],
    );
    let mut memory = Memory { volumes: Work::Done, ..Memory::default() };
    let pod = pod(with("Always"));
    let seen = seen(&pod, "POD 0 running\ni 0 exit:0\nc 0 running\ne 0 running");
    let view = View { pod: &pod, seen: &seen, node_ip: "10.0.0.1", may_start: true, booted_at: None, now: now() };
    let status = next(&view, &mut memory).status;
    assert_eq!(status.container_statuses.unwrap().len(), 1);
    let [ephemeral] = &status.ephemeral_container_statuses.unwrap()[..] else { panic!() };
    assert!(ephemeral.state.as_ref().unwrap().running.is_some() && !ephemeral.ready && ephemeral.restart_count == 0);
}

#[test]
fn deletion() {
    let deleted = |hook: bool, text: &str, ago: i64| {
        let mut spec = plain();
        if hook {
            spec["containers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": ["bye"]}}});
        }
        let mut pod = pod(spec);
        pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
        pod.metadata.deletion_grace_period_seconds = Some(30);
        let mut memory = Memory::default();
        let since = now() - SignedDuration::from_secs(ago);
        memory.stopping = Some(memory::Stopping { since, grace: 30, asked: 30, reason: String::new() });
        decide(&pod, text, &mut memory)
    };
    expect![[r#"
        Stop { container: "c", id: "c-0", grace: 30 }
        look again in 32 s
        Running
    "#]]
    .assert_eq(&deleted(false, "POD 0 running\nc 0 running", 0));
    expect![[r#"
        Hook { container: "c", id: "c-0", kind: PreStop, seconds: 30 }
        look again in 30 s
        Running
    "#]]
    .assert_eq(&deleted(true, "POD 0 running\nc 0 running", 0));
    // AG6: what is left of the grace, not all of it again.
    expect![[r#"
        Stop { container: "c", id: "c-0", grace: 10 }
        look again in 12 s
        Running
    "#]]
    .assert_eq(&deleted(false, "POD 0 running\nc 0 paused", 20));
    expect![[r#"
        Kill { container: "c", id: "c-0" }
        look again in 5 s
        Running
    "#]]
    .assert_eq(&deleted(false, "POD 0 running\nc 0 running", 40));
    expect![[r#"
        Remove { id: "POD-0" }
        Remove { id: "c-0" }
        Running
    "#]]
    .assert_eq(&deleted(false, "POD 0 running\nc 0 exit:0", 0));
    expect![[r#"
        Finish
        Pending
    "#]]
    .assert_eq(&deleted(false, "", 0));
}

#[test]
fn probes() {
    let spec = json!({"containers": [{"name": "c", "image": "web:1",
        "startupProbe": {"tcpSocket": {"port": 80}, "failureThreshold": 2, "periodSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": 80}, "initialDelaySeconds": 90},
        "readinessProbe": {"tcpSocket": {"port": 80}, "successThreshold": 2}}]});
    let pod = pod(spec);
    let container = spec::container(&pod, "c").unwrap();
    let mut memory = Memory { volumes: Work::Done, ..Memory::default() };
    let text = "POD 0 running\nc 0 running 60";
    expect![[r#"
        Probe { container: "c", id: "c-0", kind: Startup }
        Running
    "#]]
    .assert_eq(&decide(&pod, text, &mut memory));
    let one = |memory: &mut Memory, kind, ok: bool| {
        let result = if ok { Ok(()) } else { Err("no".to_owned()) };
        format!("{:?}", probe::result(container, "c-0", kind, result, memory.containers.get_mut("c").unwrap(), now()))
    };
    assert_eq!(one(&mut memory, ProbeKind::Startup, false), "Wait");
    assert_eq!(one(&mut memory, ProbeKind::Startup, false), "Stop(\"Startup probe failed: no\")");
    assert_eq!(one(&mut memory, ProbeKind::Startup, true), "Changed");
    expect![[r#"
        Probe { container: "c", id: "c-0", kind: Readiness }
        look again in 30 s
        Running
    "#]]
    .assert_eq(&decide(&pod, text, &mut memory));
    assert_eq!(one(&mut memory, ProbeKind::Readiness, true), "Wait", "AG7: twice");
    assert_eq!(one(&mut memory, ProbeKind::Readiness, true), "Changed");
    for verdict in ["Wait", "Wait", "Changed"] {
        assert_eq!(one(&mut memory, ProbeKind::Readiness, false), verdict);
    }
}

#[test]
fn a_condemned_container_is_not_ready() {
    let pod = pod(plain());
    let mut memory = Memory { volumes: Work::Done, ..Memory::default() };
    let seen = seen(&pod, "POD 0 running\nc 0 running 60");
    let view = View { pod: &pod, seen: &seen, node_ip: "10.0.0.1", booted_at: None, may_start: true, now: now() };
    let ready = |memory: &mut Memory| next(&view, memory).status.container_statuses.unwrap()[0].ready;
    assert!(ready(&mut memory));
    memory.demand_stop(&view, &pod.spec.as_ref().unwrap().containers[0], "c-0", None, "Liveness probe failed: no");
    assert!(!ready(&mut memory), "from the moment that its end is decided, not from its end");
}

/// Variables made of variables made of variables, and references without an end.
#[test]
fn a_small_environment_does_not_become_a_large_one() {
    let ten = |n: usize| json!({"name": format!("E{}", n + 1), "value": format!("$(E{n})").repeat(10)});
    let mut env: Vec<Value> = vec![json!({"name": "E0", "value": "x".repeat(1000)})];
    env.extend((0..30).map(ten));
    env.push(json!({"name": "OPEN", "value": "$(".repeat(300_000)}));
    env.push(json!({"name": "DOLLARS", "value": "$$(E0) $(E0 $() $".repeat(1000)}));
    let pod = pod(json!({"containers": [{"name": "c", "image": "i", "env": env}]}));
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let sources = env::Sources {
        config_map: &|_| None,
        secret: &|_| None,
        token: &|_| None,
        api: None,
        away: false,
        node: "n1",
        node_ip: "10.0.0.1",
        pod_ip: None,
        host: (4, 1 << 30),
    };
    match env::environment(&pod, container, &sources) {
        Ok(environment) => assert!(environment.iter().map(|(_, value)| value.len()).sum::<usize>() < 16 << 20),
        Err(why) => assert_eq!(why, "the environment is longer than 8 MiB"),
    }
    let values = std::collections::BTreeMap::from([("A".to_owned(), "v".to_owned())]);
    assert_eq!(env::expand("$(A) $$(A) $(B) $(A $", &values), "v $(A) $(B) $(A $");
}

#[test]
fn environment() {
    let pod = pod(json!({"nodeName": "n", "containers": [{"name": "c", "image": "i",
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "none", "optional": true}}],
        "env": [
            {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(P_k)-$$(A)-$(NO)-$"},
            {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "x"}}},
            {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "F", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "G", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
            {"name": "H", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "none", "optional": true}}},
            {"name": "A", "value": "2"}],
        "command": ["run", "$(A)"], "args": ["$(D)"],
        "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}}}]}));
    let map: env::Values = [("k".to_owned(), b"v".to_vec())].into();
    let secret: env::Values = [("x".to_owned(), b"y".to_vec())].into();
    let sources = env::Sources {
        config_map: &|name| (name == "m").then_some(&map),
        secret: &|name| (name == "s").then_some(&secret),
        token: &|_| None,
        api: Some(("10.0.0.254", "6443")),
        away: false,
        node: "n",
        node_ip: "10.0.0.1",
        pod_ip: Some("10.0.0.9"),
        host: (2, 1 << 30),
    };
    let container = spec::container(&pod, "c").unwrap();
    let environment = env::environment(&pod, container, &sources).unwrap();
    let text: Vec<String> = environment.iter().map(|(n, v)| format!("{n}={v}")).collect();
    expect![[r#"
        KUBERNETES_SERVICE_HOST=10.0.0.254
        KUBERNETES_SERVICE_PORT=6443
        KUBERNETES_SERVICE_PORT_HTTPS=6443
        P_k=v
        A=2
        B=1-v-$(A)-$(NO)-$
        C=y
        D=p
        E=10.0.0.9
        F=64
        G=250"#]]
    .assert_eq(&text.join("\n"));
    expect![[r#"(Some(["run", "2"]), Some(["p"]))"#]].assert_eq(&format!("{:?}", env::command(container, &environment)));
    let without = env::Sources { secret: &|_| None, ..sources };
    assert_eq!(env::environment(&pod, container, &without), Err("secret \"s\" not found".to_owned()));
}

#[test]
fn volumes() {
    let token: env::Values = [("token".to_owned(), b"a.b.c".to_vec())].into();
    let map: env::Values = [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())].into();
    let sources = env::Sources {
        config_map: &|name| (name == "m").then_some(&map),
        secret: &|_| None,
        token: &|wish| (wish.audience != "absent").then_some(&token),
        api: None,
        away: false,
        node: "n",
        node_ip: "",
        pod_ip: None,
        host: (2, 1 << 30),
    };
    let plan = |volume: Value| {
        let mut volume = volume;
        volume["name"] = "v".into();
        let pod = pod(json!({"containers": [], "volumes": [volume]}));
        match volume::plan(&pod, &sources) {
            Ok(volumes) => format!("{:?}", volumes[0].kind),
            Err(message) => message,
        }
    };
    let rows = [
        json!({"configMap": {"name": "m"}}),
        json!({"configMap": {"name": "m", "items": [{"key": "a", "path": "x/y", "mode": 0o600}]}}),
        json!({"configMap": {"name": "m", "items": [{"key": "a", "path": "../y"}]}}),
        json!({"configMap": {"name": "m", "items": [{"key": "z", "path": "y"}]}}),
        json!({"configMap": {"name": "no", "optional": true}}),
        json!({"secret": {"secretName": "no"}}),
        json!({"emptyDir": {"medium": "Memory"}}),
        json!({"hostPath": {"path": "/x", "type": "Directory"}}),
        json!({"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}}),
        json!({"projected": {"sources": [{"configMap": {"name": "m", "items": [{"key": "b", "path": "b"}]}},
            {"downwardAPI": {"items": [{"path": "u", "fieldRef": {"fieldPath": "metadata.uid"}}]}}]}}),
        json!({"nfs": {"server": "s", "path": "/"}}),
        json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "m"}}]}}),
        json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "absent"}}]}}),
        json!({"projected": {"sources": [{"serviceAccountToken": {"path": "../t"}}]}}),
    ];
    let text: Vec<String> = rows.into_iter().map(plan).collect();
    expect![[r#"
        Files { in_memory: false, files: {"a": 1 bytes 0644, "b": 1 bytes 0644} }
        Files { in_memory: false, files: {"x/y": 1 bytes 0600} }
        the path "../y" does not stay within its volume
        configmap "m" has no key "z"
        Files { in_memory: false, files: {} }
        secret "no" not found
        Empty { in_memory: true }
        Host { path: "/x", check: "Directory" }
        Files { in_memory: false, files: {"n": 1 bytes 0644} }
        Files { in_memory: true, files: {"b": 1 bytes 0644, "u": 1 bytes 0644} }
        volume "v": this kind of volume is not supported
        Files { in_memory: true, files: {"a": 1 bytes 0644, "b": 1 bytes 0644, "token": 5 bytes 0644} }
        there is no token of the service account for the volume "v" yet
        the path "../t" does not stay within its volume"#]]
    .assert_eq(&text.join("\n"));
}
