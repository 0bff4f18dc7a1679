//! Into containers that are real: exec, attach, cp, port-forward, debug, logs and proxied requests, with the kubectl of today and one that
//! knows only SPDY.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::kubectl_streams::{Forward, with_input};
use crate::support::Do::{Resize, Type};
use crate::support::{Cluster, Hosts, eventually, items, old_kubectl, text};

use super::{QUICK, cluster, quick_policy};

/// A pod whose redis listens on the loopback of the pod only, and a container that talks and listens.
const TOOLS: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: tools}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
    - {name: first, image: "busybox:1.36", command: [sh, -c, "echo prepared"]}
  containers:
    - {name: redis, image: "redis:7", command: [redis-server, --bind, 127.0.0.1, --save, ""]}
    - name: app
      image: busybox:1.36
      stdin: true
      command: [sh, -c, "while read line; do echo heard $line; echo but $line >&2; done"]
"#;

/// A shell at a terminal.
fn shell(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  containers: [{{name: sh, image: \"busybox:1.36\", stdin: true, tty: true, command: [sh]}}]
"
    )
}

fn apply(cluster: &Cluster, manifest: &str) {
    let file = cluster.dir.join("apply.yaml");
    std::fs::write(&file, manifest).unwrap();
    cluster.kubectl(&["apply", "-f", file.to_str().unwrap()]);
}

fn ready(cluster: &Cluster, pod: &str) {
    cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=90s"]);
}

fn run(cluster: &Cluster, kubectl: &Path, args: &[&str]) -> String {
    let out = cluster.command(kubectl, args).output().unwrap();
    assert!(out.status.success(), "{kubectl:?} {args:?}: {}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

fn kubectls(test: &str) -> Vec<PathBuf> {
    [Some(PathBuf::from("kubectl")), old_kubectl(test)].into_iter().flatten().collect()
}

/// What a pod says of the end of its first container: code and reason.
fn end(cluster: &Cluster, pod: &str) -> (Value, Value) {
    eventually(30, &format!("{pod} has ended"), || {
        let pod = cluster.json(&["get", "pod", pod]);
        let end = pod["status"]["containerStatuses"][0]["state"]["terminated"].clone();
        (!end.is_null()).then(|| (end["exitCode"].clone(), end["reason"].clone()))
    })
}

#[test]
fn ways_into_a_container() {
    let Some(hosts) = Hosts::take("hosts::streams::ways_into_a_container") else { return };
    let cluster = cluster(&hosts, QUICK);
    quick_policy(&cluster);
    apply(&cluster, TOOLS);
    ready(&cluster, "tools");
    assert_eq!(cluster.kubectl(&["logs", "tools", "-c", "first"]), "prepared\n");
    for kubectl in kubectls("hosts::streams::ways_into_a_container") {
        let kubectl = kubectl.as_path();
        // A terminal has a size, which may change, and one output.
        let words = ["exec", "-it", "tools", "-c", "app", "--", "sh"];
        let talk =
            [("# ", Type("stty size; tty; echo err >&2")), ("err", Resize(30, 100)), ("# ", Type("sleep 1; stty size; exit 5"))];
        let (shown, code) = cluster.in_a_terminal(kubectl, &words, &talk);
        assert!(
            code == 5 && ["24 80", "/dev/pts/", "30 100", "exit code 5"].iter().all(|words| shown.contains(words)),
            "{kubectl:?} {code} {shown}"
        );
        let (code, out, err) = with_input(
            &cluster,
            kubectl,
            &["exec", "-i", "tools", "-c", "app", "--", "sh", "-c", "wc -c; echo done >&2; exit 3"],
            &vec![b'x'; 3_000_000],
        );
        assert_eq!((code, text(&out).trim()), (3, "3000000"), "{kubectl:?} {err}");
        assert!(err.contains("done") && err.contains("exit code 3"), "{kubectl:?} {err}");
        // Docker says so as if the program had.
        let (code, out, err) = with_input(&cluster, kubectl, &["exec", "tools", "-c", "app", "--", "nothing"], b"");
        assert!(code == 126 && text(&out).contains("executable file not found"), "{kubectl:?} {code} {} {err}", text(&out));

        // There and back, a directory with something in it, and a file.
        let source = cluster.dir.join("sent");
        let _ = std::fs::remove_dir_all(&source);
        std::fs::create_dir_all(source.join("inner")).unwrap();
        let large: Vec<u8> = (0..2_000_000u32).map(|n| (n * 7 % 253) as u8).collect();
        std::fs::write(source.join("inner/large"), &large).unwrap();
        std::fs::write(source.join("small"), "hello").unwrap();
        run(&cluster, kubectl, &["exec", "tools", "-c", "app", "--", "rm", "-rf", "/tmp/sent"]);
        run(&cluster, kubectl, &["cp", source.to_str().unwrap(), "tools:/tmp/sent", "-c", "app"]);
        assert_eq!(run(&cluster, kubectl, &["exec", "tools", "-c", "app", "--", "cat", "/tmp/sent/small"]), "hello");
        let back = cluster.dir.join("back");
        let _ = std::fs::remove_dir_all(&back);
        run(&cluster, kubectl, &["cp", "tools:/tmp/sent", back.to_str().unwrap(), "-c", "app"]);
        assert!(std::fs::read(back.join("inner/large")).unwrap() == large, "{kubectl:?}");
        let file = cluster.dir.join("file");
        run(&cluster, kubectl, &["cp", "default/tools:/tmp/sent/small", file.to_str().unwrap(), "-c", "app"]);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "hello", "{kubectl:?}");

        // What listens on the loopback of the pod only.
        let forward = Forward::start(&cluster, kubectl, "pod/tools", 6379);
        for _ in 0..3 {
            let mut stream = forward.connect();
            stream.write_all(b"PING\r\n").unwrap();
            let mut pong = [0; 7];
            stream.read_exact(&mut pong).unwrap();
            assert_eq!(&pong, b"+PONG\r\n", "{kubectl:?}");
            // The pod ends it, and that is heard.
            stream.write_all(b"QUIT\r\n").unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, b"+OK\r\n", "{kubectl:?}");
        }
        // A client that goes away in the middle.
        let mut abandoned = forward.connect();
        abandoned.write_all(b"*2\r\n$4\r\nECHO").unwrap();
        drop(abandoned);
        drop(forward);
        let forward = Forward::start(&cluster, kubectl, "pod/tools", 6380);
        assert_eq!(forward.connect().read(&mut [0]).unwrap_or(0), 0);
        let said = forward.complaints();
        assert!(said.contains("Connection refused"), "{kubectl:?} {said}");
    }
    // No process of a forwarded connection is left behind.
    eventually(20, "all connections are gone from the pod", || {
        let processes: usize = hosts
            .names()
            .iter()
            .flat_map(|host| hosts.containers(host).into_iter().map(move |c| (host.clone(), c)))
            .filter(|(_, c)| c.pod == "tools" && c.container == "POD")
            .map(|(host, c)| {
                hosts.docker(&host, "GET", &format!("/containers/{}/top", c.id))["Processes"].as_array().map_or(0, Vec::len)
            })
            .sum();
        (processes == 1).then_some(())
    });
}

/// What is said to the container's own process, and what it answers.
#[test]
fn attached_to_what_runs_already() {
    let Some(hosts) = Hosts::take("hosts::streams::attached_to_what_runs_already") else { return };
    let cluster = cluster(&hosts, QUICK);
    quick_policy(&cluster);
    apply(&cluster, TOOLS);
    ready(&cluster, "tools");
    for (number, kubectl) in kubectls("hosts::streams::attached_to_what_runs_already").iter().enumerate() {
        let mut command = cluster.command(kubectl, &["attach", "-i", "tools", "-c", "app"]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let listening = std::thread::spawn(move || {
            let mut heard = [0; 15];
            output.read_exact(&mut heard).map(|()| text(&heard)).unwrap_or_default()
        });
        // What is said before it is attached waits for that, and what it says is heard whole.
        input.write_all(b"you there\n").unwrap();
        eventually(30, &format!("{kubectl:?} hears an answer"), || listening.is_finished().then_some(()));
        assert_eq!(listening.join().unwrap(), "heard you there", "{kubectl:?}");
        drop(input);
        child.kill().unwrap();
        let complaints = text(&child.wait_with_output().unwrap().stderr);
        assert!(complaints.contains("but you there"), "{kubectl:?} {complaints}");
        // Whoever leaves leaves its input open for the next.
        let logs = cluster.kubectl(&["logs", "tools", "-c", "app"]);
        assert_eq!(logs.matches("heard you there").count(), number + 1, "{logs}");

        // A shell at a terminal: its size, its output, and its end.
        let pod = format!("shell-{number}");
        apply(&cluster, &shell(&pod));
        ready(&cluster, &pod);
        let talk = [
            ("command prompt", Type("")),
            ("# ", Type("stty size; echo $((6*7))")),
            ("42", Resize(30, 100)),
            ("# ", Type("sleep 1; stty size; exit 3")),
        ];
        let (shown, code) = cluster.in_a_terminal(kubectl, &["attach", "-it", &pod], &talk);
        assert!(code == 0 && shown.contains("24 80") && shown.contains("30 100"), "{kubectl:?} {code} {shown}");
        assert_eq!(end(&cluster, &pod), (3.into(), "Error".into()));
        let out = cluster.command(kubectl, &["attach", &pod]).output().unwrap();
        assert!(!out.status.success() && text(&out.stderr).contains("cannot attach a container in a completed pod"), "{out:?}");
    }
}

#[test]
fn a_pod_for_a_moment_and_looking_into_others() {
    let Some(hosts) = Hosts::take("hosts::streams::a_pod_for_a_moment_and_looking_into_others") else { return };
    let cluster = cluster(&hosts, QUICK);
    quick_policy(&cluster);
    apply(&cluster, TOOLS);
    ready(&cluster, "tools");
    for kubectl in kubectls("hosts::streams::a_pod_for_a_moment_and_looking_into_others") {
        let kubectl = kubectl.as_path();
        let words = ["run", "-it", "--rm", "moment", "--image=busybox:1.36", "--restart=Never", "--", "sh"];
        let talk = [("command prompt", Type("")), ("# ", Type("echo here $((6*7))")), ("here 42", Type("exit 7"))];
        let (shown, code) = cluster.in_a_terminal(kubectl, &words, &talk);
        assert!(code == 7 && shown.contains("pod \"moment\" deleted"), "{kubectl:?} {code} {shown}");
        // From a pipe to a pipe: the end of the input is the end of the input.
        let words = ["run", "-i", "--rm", "--quiet", "pipe", "--image=busybox:1.36", "--restart=Never", "--", "sh", "-c"];
        let (code, out, err) = with_input(&cluster, kubectl, &[&words[..], &["sleep 2; wc -c"]].concat(), &[b'x'; 100_000]);
        assert!(code == 0 && text(&out).contains("100000"), "{kubectl:?} {code} {} {err}", text(&out));
        eventually(30, "both are gone", || (items(&cluster.json(&["get", "pods"])).count() == 1).then_some(()));
    }

    let kubectl = Path::new("kubectl");
    // A container beside another, that sees its processes and its network.
    let words = ["debug", "-it", "tools", "--image=busybox:1.36", "--target=redis", "-c", "look", "--", "sh"];
    let talk = [("command prompt", Type("")), ("# ", Type("ps; echo PING | nc 127.0.0.1 6379 -w 1")), ("+PONG", Type("exit 4"))];
    let (shown, code) = cluster.in_a_terminal(kubectl, &words, &talk);
    assert!(shown.contains("redis-server"), "{code} {shown}");
    let status = eventually(30, "it has ended, and stays so", || {
        let pod = cluster.json(&["get", "pod", "tools"]);
        let status = pod["status"]["ephemeralContainerStatuses"][0].clone();
        (!status["state"]["terminated"].is_null() && pod["status"]["phase"] == "Running").then_some(status)
    });
    assert_eq!(status["state"]["terminated"]["exitCode"], 4, "{status}");
    assert!(cluster.kubectl(&["logs", "tools", "-c", "look"]).contains("redis-server"));
    // Without a target it sees its own processes only; the first is left as it ended.
    cluster.kubectl(&["debug", "tools", "--image=busybox:1.36", "-c", "alone", "--", "sh", "-c", "ps; exec sleep 1000"]);
    let shown = eventually(30, "the second has looked", || {
        let out = cluster.try_kubectl(&["logs", "tools", "-c", "alone"]);
        let shown = text(&out.stdout);
        shown.contains("ps").then_some(shown)
    });
    assert!(!shown.contains("redis-server"), "{shown}");
    assert_eq!(run(&cluster, kubectl, &["exec", "tools", "-c", "alone", "--", "hostname"]), "tools\n");
    let pod = cluster.json(&["get", "pod", "tools"]);
    assert_eq!(pod["status"]["ephemeralContainerStatuses"].as_array().map(Vec::len), Some(2), "{pod}");
    assert!(pod["status"]["containerStatuses"].as_array().unwrap().iter().all(|c| c["restartCount"] == 0 && c["ready"] == true));

    // A copy of the pod with something else in it.
    let words =
        ["debug", "tools", "--copy-to=copy", "--container=app", "--image=busybox:1.36", "--share-processes", "--", "sleep"];
    cluster.kubectl(&[&words[..], &["1000"]].concat());
    ready(&cluster, "copy");
    let shown = run(&cluster, kubectl, &["exec", "copy", "-c", "app", "--", "ps"]);
    assert!(shown.contains("redis-server") && shown.contains("sleep 1000"), "{shown}");

    // A pod on a node, with everything that the node has.
    let words = ["debug", "-it", "node/h2", "--image=busybox:1.36", "--", "sh"];
    let talk = [
        ("command prompt", Type("")),
        ("# ", Type("hostname; ls /host/etc/debian_version; echo $(ps | grep -c dockerd) daemons")),
        ("daemons", Type("exit 0")),
    ];
    let (shown, code) = cluster.in_a_terminal(kubectl, &words, &talk);
    assert!(code == 0 && shown.contains("h2") && shown.contains("/host/etc/debian_version"), "{code} {shown}");
    let pods = cluster.json(&["get", "pods"]);
    let debugger = items(&pods).find(|p| p["metadata"]["name"].as_str().unwrap().starts_with("node-debugger-h2-")).unwrap();
    assert_eq!((&debugger["spec"]["nodeName"], &debugger["spec"]["hostPID"]), (&"h2".into(), &true.into()));
}

/// Two pods that serve and talk, behind a service.
const SERVED: &str = r#"apiVersion: v1
kind: Service
metadata: {name: front}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: web}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: nginx
          image: nginx:1.27
          ports: [{name: web, containerPort: 80}]
        - name: talk
          image: busybox:1.36
          command: [sh, -c, "echo first; echo second >&2; echo third; exec sleep 1000"]
"#;

#[test]
fn what_pods_serve_and_say() {
    let Some(hosts) = Hosts::take("hosts::streams::what_pods_serve_and_say") else { return };
    let cluster = cluster(&hosts, QUICK);
    quick_policy(&cluster);
    apply(&cluster, SERVED);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    let pods = cluster.json(&["get", "pods", "-l", "app=web"]);
    let pod = items(&pods).next().unwrap();
    let (name, node) = (pod["metadata"]["name"].as_str().unwrap(), pod["spec"]["nodeName"].as_str().unwrap());
    let api = "/api/v1/namespaces/default";
    for kubectl in kubectls("hosts::streams::what_pods_serve_and_say") {
        let kubectl = kubectl.as_path();
        for path in [
            format!("{api}/pods/{name}/proxy/"),
            format!("{api}/pods/http:{name}:80/proxy/index.html"),
            format!("{api}/services/front:http/proxy/"),
            format!("{api}/services/front:80/proxy/"),
        ] {
            let page = run(&cluster, kubectl, &["get", "--raw", &path]);
            assert!(page.contains("<title>nginx 1.27</title>"), "{kubectl:?} {path} {page}");
        }
        let out = cluster.command(kubectl, &["get", "--raw", &format!("{api}/pods/{name}/proxy/nothing")]).output().unwrap();
        assert!(text(&out.stderr).contains("NotFound"), "{out:?}");
        let out = cluster.command(kubectl, &["get", "--raw", &format!("{api}/pods/{name}:81/proxy/")]).output().unwrap();
        assert!(text(&out.stderr).contains("error trying to reach service"), "{out:?}");
        assert_eq!(run(&cluster, kubectl, &["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/healthz")]), "ok");
        let there = run(&cluster, kubectl, &["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/pods")]);
        assert!(there.contains(&format!("\"name\":\"{name}\"")), "{there}");
    }
    // The same in a browser.
    let mut proxy = cluster.command(Path::new("kubectl"), &["proxy", "--port=0"]);
    let mut proxy = proxy.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(proxy.stdout.take().unwrap()), &mut line).unwrap();
    let base = format!("http://{}", line.trim().rsplit(' ').next().unwrap());
    let get = |flags: &[&str], path: &str| {
        let mut curl = std::process::Command::new("curl");
        text(&curl.args(["-sS", "--max-time", "20"]).args(flags).arg(format!("{base}{path}")).output().unwrap().stdout)
    };
    let page = get(&["-L"], &format!("{api}/services/front:http/proxy"));
    let refused = get(&["-d", "x=y", "-w", " %{http_code}"], &format!("{api}/pods/{name}/proxy/"));
    proxy.kill().unwrap();
    proxy.wait().unwrap();
    assert!(page.contains("<title>nginx 1.27</title>"), "{page}");
    assert!(refused.contains("405 Not Allowed") && refused.ends_with(" 405"), "{refused}");
    let dump = cluster.kubectl(&["cluster-info", "dump"]);
    assert!(dump.contains("==== START logs for container talk of pod default/") && dump.contains("third"), "no logs in the dump");

    let logs = |args: &[&str]| cluster.kubectl(&[&["logs"], args].concat());
    let lines = |args: &[&str]| {
        let mut lines: Vec<String> = logs(args).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&[name, "-c", "talk"]), ["first", "second", "third"]);
    assert_eq!(logs(&[name, "-c", "talk", "--limit-bytes=4"]).len(), 4);
    assert_eq!(logs(&[name, "-c", "talk", "--tail=1"]).lines().count(), 1);
    assert_eq!(lines(&["-l", "app=web", "-c", "talk", "--tail=-1"]).len(), 6);
    let all = lines(&["-l", "app=web", "--all-containers", "--prefix", "--tail=-1"]);
    for pod in items(&pods).map(|pod| pod["metadata"]["name"].as_str().unwrap()) {
        for word in ["first", "second", "third"] {
            let line = format!("[pod/{pod}/talk] {word}");
            assert_eq!(all.iter().filter(|have| **have == line).count(), 1, "{line}: {all:?}");
        }
        assert!(all.iter().any(|line| line.starts_with(&format!("[pod/{pod}/nginx] "))), "{all:?}");
    }
    let stamped: Vec<String> = logs(&[name, "-c", "talk", "--timestamps"]).lines().map(str::to_owned).collect();
    let mut times: Vec<&str> = stamped.iter().map(|line| line.split(' ').next().unwrap()).collect();
    times.sort_unstable();
    // The time of the last is the beginning; kubectl sends whole seconds, so that all of that second are shown.
    let whole = |time: &str| format!("{}Z", &time[..19]);
    let since = times[2];
    let expected = times.iter().filter(|time| whole(time) >= whole(since)).count();
    assert_eq!(logs(&[name, "-c", "talk", &format!("--since-time={since}")]).lines().count(), expected, "{stamped:?}");
    assert_eq!(logs(&[name, "-c", "talk", "--since-time=2100-01-01T00:00:00Z"]), "");
    assert_eq!(logs(&[name, "-c", "talk", "--since=1h"]).lines().count(), 3);
}
