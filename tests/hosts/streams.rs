//! Into containers that are real: exec, attach, cp, port-forward, debug, with the kubectl of today and one that knows only SPDY.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::kubectl_streams::{Forward, with_input};
use crate::support::{Cluster, Hosts, eventually, old_kubectl, text};

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
      command: [sh, -c, "while read line; do echo heard $line; done"]
"#;

fn apply(cluster: &Cluster, manifest: &str) {
    let file = cluster.dir.join("apply.yaml");
    std::fs::write(&file, manifest).unwrap();
    cluster.kubectl(&["apply", "-f", file.to_str().unwrap()]);
}

fn run(cluster: &Cluster, kubectl: &Path, args: &[&str]) -> String {
    let out = cluster.command(kubectl, args).output().unwrap();
    assert!(out.status.success(), "{kubectl:?} {args:?}: {}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

#[test]
fn ways_into_a_container() {
    let Some(hosts) = Hosts::take("hosts::streams::ways_into_a_container") else { return };
    let cluster = cluster(&hosts, QUICK);
    quick_policy(&cluster);
    apply(&cluster, TOOLS);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/tools", "--timeout=90s"]);
    assert_eq!(cluster.kubectl(&["logs", "tools", "-c", "first"]), "prepared\n");
    let old = old_kubectl("hosts::streams::ways_into_a_container");
    for kubectl in [Some(PathBuf::from("kubectl")), old].into_iter().flatten() {
        let kubectl = kubectl.as_path();
        // A terminal has a size, and one output.
        let words = ["exec", "-it", "tools", "-c", "app", "--", "sh", "-c", "stty size; tty; echo err >&2; exit 5"];
        let (shown, code) = cluster.in_a_terminal(kubectl, &words, "");
        assert!(
            code == 5 && shown.contains("24 80") && shown.contains("/dev/pts/") && shown.contains("err"),
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

        // There and back, a directory with something in it.
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
    // Attach: what is said to the container's own process, and what it answers.
    for kubectl in [Some(PathBuf::from("kubectl")), old_kubectl("hosts::streams::ways_into_a_container")].into_iter().flatten() {
        let mut child = cluster
            .command(&kubectl, &["attach", "-i", "tools", "-c", "app"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_secs(3));
        child.stdin.as_mut().unwrap().write_all(b"you there\n").unwrap();
        let mut heard = [0; 15];
        child.stdout.as_mut().unwrap().read_exact(&mut heard).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(text(&heard), "heard you there", "{kubectl:?}");
    }
    assert!(cluster.kubectl(&["logs", "tools", "-c", "app"]).contains("heard you there"));
}

#[test]
fn a_pod_for_a_moment_and_looking_into_others() {
    let Some(hosts) = Hosts::take("hosts::streams::a_pod_for_a_moment_and_looking_into_others") else { return };
    let cluster = cluster(&hosts, QUICK);
    quick_policy(&cluster);
    apply(&cluster, TOOLS);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/tools", "--timeout=90s"]);
    let kubectl = Path::new("kubectl");
    let words = ["run", "-it", "--rm", "moment", "--image=busybox:1.36", "--restart=Never", "--", "sh"];
    let (shown, code) = cluster.in_a_terminal(kubectl, &words, "\necho here $((6*7))\nexit 0");
    assert!(code == 0 && shown.contains("here 42") && shown.contains("pod \"moment\" deleted"), "{code} {shown}");

    // A container beside another, that sees its processes and its network.
    let words = ["debug", "-it", "tools", "--image=busybox:1.36", "--target=redis", "-c", "look", "--", "sh"];
    let (shown, code) = cluster.in_a_terminal(kubectl, &words, "\nps\necho PING | nc 127.0.0.1 6379 -w 1\nexit 0");
    assert!(code == 0 && shown.contains("redis-server") && shown.contains("+PONG"), "{code} {shown}");
    eventually(30, "it has ended, and stays so", || {
        let pod = cluster.json(&["get", "pod", "tools"]);
        let ended = &pod["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"];
        (!ended.is_null() && pod["status"]["phase"] == "Running").then_some(())
    });
    assert!(cluster.kubectl(&["logs", "tools", "-c", "look"]).contains("redis-server"));

    // A pod on a node, with everything that the node has.
    let words = ["debug", "-it", "node/h2", "--image=busybox:1.36", "--", "sh"];
    let (shown, code) =
        cluster.in_a_terminal(kubectl, &words, "\nhostname\nls /host/etc/debian_version\nps | grep -c dockerd\nexit 0");
    assert!(code == 0 && shown.contains("h2") && shown.contains("/host/etc/debian_version"), "{code} {shown}");
    let pods = cluster.json(&["get", "pods"]);
    let debugger =
        crate::support::items(&pods).find(|p| p["metadata"]["name"].as_str().unwrap().starts_with("node-debugger-h2-")).unwrap();
    assert_eq!((&debugger["spec"]["nodeName"], &debugger["spec"]["hostPID"]), (&"h2".into(), &true.into()));
}
