//! What is used, measured on real containers.

use super::{QUICK, cluster};
use crate::support::{Hosts, eventually, text};

/// One that computes, one that holds fifty million bytes, and one that sleeps.
const PODS: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: busy}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {name: busy, image: "busybox:1.36", command: [sh, -c, "while :; do :; done"], resources: {limits: {cpu: 500m}}}
    - {name: full, image: "busybox:1.36", command: [sh, -c, "head -c 50000000 /dev/zero | tail -c 50000000 | sleep 3600"]}
    - {name: idle, image: "busybox:1.36", command: [sleep, "3600"]}
"#;

#[test]
fn top_of_real_containers() {
    let Some(hosts) = Hosts::take("hosts::used::top_of_real_containers") else { return };
    let cluster = cluster(&hosts, QUICK);
    let file = cluster.dir.join("pods.yaml");
    std::fs::write(&file, PODS).unwrap();
    cluster.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/busy", "--timeout=90s"]);
    // Millicores and mebibytes of each container.
    let used = || -> Option<Vec<(i64, i64)>> {
        let out = cluster.try_kubectl(&["top", "pod", "busy", "--containers", "--no-headers"]);
        let text = text(&out.stdout);
        let line = |name: &str| {
            let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(name))?;
            let words: Vec<&str> = line.split_whitespace().collect();
            Some((words[2].strip_suffix('m')?.parse().ok()?, words[3].strip_suffix("Mi")?.parse().ok()?))
        };
        ["busy", "full", "idle"].into_iter().map(line).collect()
    };
    // Others use this machine too, so the lower ends are generous.
    let numbers = eventually(60, "each container is measured as what it does", || {
        let used = used()?;
        eprintln!("{used:?}");
        let [busy, full, idle] = used[..] else { return None };
        ((50..=700).contains(&busy.0) && idle.0 <= 20 && (45..=90).contains(&full.1) && idle.1 < 20).then_some(used)
    });
    assert_eq!(numbers.len(), 3);
    let nodes = cluster.kubectl(&["top", "nodes", "--no-headers"]);
    assert_eq!(nodes.lines().count(), 3, "{nodes}");
    // The pod as a whole is the sum of its containers.
    let pod = cluster.kubectl(&["top", "pod", "busy", "--no-headers"]);
    let memory: i64 = pod.split_whitespace().nth(2).unwrap().trim_end_matches("Mi").parse().unwrap();
    assert!((45..=130).contains(&memory), "{pod}");
}
