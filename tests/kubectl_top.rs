//! `kubectl top`: numbers that an agent measured, or none.

use crate::support::{Cluster, eventually, text};

#[test]
fn nodes_and_pods_are_measured_when_somebody_asks() {
    let mut cluster = Cluster::start("127.0.0.1", &[]);
    cluster.start_simulated("n1");
    cluster.await_nodes(1);
    cluster.kubectl(&["run", "p", "--image=sim/web:1", "--labels=app=p"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    // The simulated engine says that each container uses a hundredth of a processor and ten million bytes.
    let line = eventually(60, "the pod is measured", || {
        let out = cluster.try_kubectl(&["top", "pod", "--containers", "--no-headers", "-l", "app=p"]);
        text(&out.stdout).lines().next().map(str::to_owned)
    });
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!((words[0], words[1]), ("p", "p"), "{line}");
    let cpu: i64 = words[2].trim_end_matches('m').parse().unwrap();
    assert!((9..=11).contains(&cpu), "{line}");
    assert_eq!(words[3], "9Mi", "{line}");
    // The host's own numbers come from its kernel.
    let nodes = cluster.kubectl(&["top", "node", "--no-headers"]);
    let words: Vec<_> = nodes.split_whitespace().collect();
    assert_eq!(words[0], "n1", "{nodes}");
    assert!(words[3].trim_end_matches("Mi").parse::<i64>().unwrap() > 0, "{nodes}");
    // Nobody is asked for what is not there, and nothing is made up.
    cluster.kill_agent("n1");
    let gone = cluster.try_kubectl(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes/n1"]);
    assert!(text(&gone.stderr).contains("NotFound") || text(&gone.stderr).contains("not found"), "{gone:?}");
    let list = cluster.kubectl(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/pods"]);
    assert!(list.contains("\"items\":[]"), "{list}");
}
