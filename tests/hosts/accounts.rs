//! Programs in real pods that speak to the API as their service account, with what they find in their container.

use crate::support::{Cluster, Hosts, eventually, items, text};

use super::{QUICK, cluster, quick_policy};

/// An account that may look at pods; a pod and a Deployment that run as it, and a pod that wants no token.
const CALLERS: &str = r#"apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: looker, namespace: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: look, namespace: shop}
rules: [{apiGroups: [""], resources: [pods], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: look, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: look}
subjects: [{kind: ServiceAccount, name: looker, namespace: shop}]
---
apiVersion: v1
kind: Pod
metadata: {name: caller, namespace: shop}
spec:
  serviceAccountName: looker
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "curl:8", command: [sleep, "10000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: mute, namespace: shop}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: "curl:8", command: [sleep, "10000"]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: stranger, namespace: shop}
spec:
  selector: {matchLabels: {app: stranger}}
  template:
    metadata: {labels: {app: stranger}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: "curl:8", command: [sleep, "10000"]}]
"#;

/// Asks the API from within a pod.
const ASK: &str = r#"cd /var/run/secrets/kubernetes.io/serviceaccount
curl -sS --max-time 20 --cacert ca.crt -H "Authorization: Bearer $(cat token)" \
  https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/$(cat namespace)/$0"#;

fn ask(cluster: &Cluster, who: &str, what: &str) -> String {
    let out = cluster.try_kubectl(&["exec", "-n", "shop", who, "--", "sh", "-c", ASK, what]);
    text(&out.stdout) + &text(&out.stderr)
}

#[test]
fn a_program_in_a_pod_speaks_to_the_api() {
    let Some(hosts) = Hosts::take("hosts::accounts::a_program_in_a_pod_speaks_to_the_api") else { return };
    let cluster = cluster(&hosts, QUICK);
    quick_policy(&cluster);
    cluster.repo.write("apps/callers.yaml", CALLERS);
    let commit = cluster.repo.push("callers");
    assert_eq!(cluster.wait(&commit, 90), 0);
    let pods = ask(&cluster, "pod/caller", "pods");
    assert!(pods.contains("\"kind\":\"PodList\"") && pods.contains("\"name\":\"mute\""), "{pods}");
    let refused = ask(&cluster, "pod/caller", "secrets");
    assert!(refused.contains("User \\\"system:serviceaccount:shop:looker\\\" cannot list resource \\\"secrets\\\""), "{refused}");
    // Whoever names no account is the default one, who may nothing.
    let refused = ask(&cluster, "deploy/stranger", "pods");
    assert!(refused.contains("User \\\"system:serviceaccount:shop:default\\\" cannot list"), "{refused}");
    let none = ask(&cluster, "pod/mute", "pods");
    assert!(none.contains("can't cd to /var/run/secrets/kubernetes.io/serviceaccount"), "{none}");
    let shown = cluster.kubectl(&["describe", "pod", "-n", "shop", "caller"]);
    assert!(shown.contains("/var/run/secrets/kubernetes.io/serviceaccount from kube-api-access-"), "{shown}");

    // What pods are given is no change to what git, or a hand, wants of them.
    let file = cluster.dir.join("apply.yaml");
    std::fs::write(&file, CALLERS).unwrap();
    let diff = cluster.try_kubectl(&["diff", "-f", file.to_str().unwrap()]);
    assert!(!text(&diff.stdout).contains("kube-api-access"), "{}", text(&diff.stdout));
    let uids = |cluster: &Cluster| -> Vec<String> {
        items(&cluster.json(&["get", "pods", "-n", "shop"])).map(|pod| pod["metadata"]["uid"].to_string()).collect()
    };
    let before = uids(&cluster);
    cluster.repo.write("apps/more.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more, namespace: shop}\n");
    let commit = cluster.repo.push("something else");
    assert_eq!(cluster.wait(&commit, 90), 0);
    assert_eq!(uids(&cluster), before);

    // A token ends with its pod.
    let path = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let token = cluster.kubectl(&["exec", "-n", "shop", "deploy/stranger", "--", "cat", path]);
    let code = |token: &str| {
        let mut curl = std::process::Command::new("curl");
        let bearer = format!("Authorization: Bearer {token}");
        curl.args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", "-H", &bearer, &format!("{}/api/v1/pods", cluster.url)]);
        text(&curl.output().unwrap().stdout)
    };
    assert_eq!(code(&token), "403");
    cluster.kubectl(&["delete", "pod", "-n", "shop", "-l", "app=stranger"]);
    eventually(20, "the token is refused", || (code(&token) == "401").then_some(()));
}
