//! Accounts and rights with the real kubectl and real processes: what a person does to give somebody a part of a cluster.

use std::process::Command;

use crate::support::{Cluster, text};

/// A kubeconfig that shows a token instead of the administrator's certificate.
fn with_token(cluster: &Cluster, name: &str, token: &str) -> String {
    let path = cluster.dir.join(format!("{name}.kubeconfig"));
    let whole = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let head: String = whole.lines().take_while(|line| !line.starts_with("users:")).map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, format!("{head}users:\n- name: portolan-admin\n  user:\n    token: {token}\n")).unwrap();
    path.display().to_string()
}

fn asks(cluster: &Cluster, kubeconfig: &str, line: &str) -> (i32, String) {
    let mut command = Command::new("kubectl");
    command.args(line.split(' ')).env("KUBECONFIG", kubeconfig).env("HOME", &cluster.dir);
    let out = command.output().unwrap();
    (out.status.code().unwrap_or(-1), format!("{}{}", text(&out.stdout), text(&out.stderr)).trim().to_owned())
}

/// The recipes of the guide: an account that may only look and plan, and a person who may deploy to one namespace.
#[test]
fn the_recipes_of_the_guide() {
    let cluster = Cluster::start("127.0.0.1", &[]);
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\n  namespace: default\ndata:\n  level: LEVEL\n";
    cluster.repo.write("apps/settings.yaml", &manifest.replace("LEVEL", "low"));
    let first = cluster.repo.push("Settings");
    assert_eq!(cluster.wait(&first, 60), 0);
    cluster.repo.write("apps/settings.yaml", &manifest.replace("LEVEL", "high"));
    cluster.repo.push("More");
    // An account for CI.
    for line in [
        "create serviceaccount ci -n portolan-system",
        "create clusterrolebinding ci-looks --clusterrole=view --serviceaccount=portolan-system:ci",
        "create clusterrole see-nodes --verb=get,list,watch --resource=nodes",
        "create clusterrolebinding ci-sees-nodes --clusterrole=see-nodes --serviceaccount=portolan-system:ci",
    ] {
        cluster.kubectl(&line.split(' ').collect::<Vec<_>>());
    }
    let token = cluster.kubectl(&["create", "token", "ci", "-n", "portolan-system", "--duration=24h"]);
    let ci = with_token(&cluster, "ci", token.trim());
    let who = asks(&cluster, &ci, "auth whoami -o jsonpath={.status.userInfo.username}");
    assert_eq!(who, (0, "system:serviceaccount:portolan-system:ci".to_owned()));
    assert_eq!(asks(&cluster, &ci, "auth can-i list pods -A"), (0, "yes".to_owned()));
    assert_eq!(asks(&cluster, &ci, "auth can-i delete pods -n default"), (1, "no".to_owned()));
    assert_eq!(asks(&cluster, &ci, "auth can-i get secrets -A"), (1, "no".to_owned()));
    assert_eq!(asks(&cluster, &ci, "get configmaps -n default -o name").0, 0);
    let (code, said) = asks(&cluster, &ci, "delete configmap settings -n default");
    assert_eq!(code, 1);
    assert!(said.contains("cannot delete resource \"configmaps\" in API group \"\" in the namespace \"default\""), "{said}");
    let plan = cluster.output(&["plan", "--kubeconfig", &ci, "--to", "HEAD"]);
    let said = format!("{}{}", text(&plan.stdout), text(&plan.stderr));
    assert!(said.contains("settings") && !said.contains("error:"), "{said}");
    for command in [&["status"][..], &["history"], &["get", "pods", "-A"], &["hosts"]] {
        let out = cluster.output(&[command, &["--kubeconfig", &ci]].concat());
        assert!(matches!(out.status.code(), Some(0..=2)), "{command:?}: {}", text(&out.stderr));
        assert!(!text(&out.stderr).contains("forbidden"), "{command:?}: {}", text(&out.stderr));
    }
    let rollback = cluster.output(&["rollback", "root", "--kubeconfig", &ci]);
    assert!(text(&rollback.stderr).contains("cannot"), "{}", text(&rollback.stderr));
    // A person who deploys to one namespace; here by the name in a certificate that she asked for herself.
    cluster.kubectl(&["create", "namespace", "shop"]);
    cluster.kubectl(&["create", "rolebinding", "jane-edits", "-n", "shop", "--clusterrole=edit", "--user=jane"]);
    assert_eq!(cluster.kubectl(&["auth", "can-i", "create", "deployments", "-n", "shop", "--as", "jane"]).trim(), "yes");
    let list = cluster.kubectl(&["auth", "can-i", "--list", "-n", "shop", "--as", "jane"]);
    assert!(list.contains("deployments.apps") && list.contains("selfsubjectaccessreviews.authorization.k8s.io"), "{list}");
    let no = cluster.try_kubectl(&["auth", "can-i", "create", "deployments", "-n", "default", "--as", "jane"]);
    assert_eq!(text(&no.stdout).trim(), "no");
    let key = cluster.dir.join("jane.key");
    let csr = Command::new("openssl")
        .args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=jane", "-keyout"])
        .arg(&key)
        .output()
        .expect("openssl is installed");
    let request = base64(&csr.stdout);
    let file = cluster.dir.join("csr.yaml");
    let manifest = format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: jane}}\nspec:\n  request: {request}\n  \
         signerName: kubernetes.io/kube-apiserver-client\n  expirationSeconds: 86400\n  usages: [client auth]\n"
    );
    std::fs::write(&file, manifest).unwrap();
    cluster.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    assert!(cluster.kubectl(&["get", "csr", "jane"]).contains("Pending"));
    assert!(cluster.kubectl(&["certificate", "approve", "jane"]).contains("approved"));
    assert!(cluster.kubectl(&["get", "csr", "jane"]).contains("Approved,Issued"));
    let certificate = cluster.kubectl(&["get", "csr", "jane", "-o", "jsonpath={.status.certificate}"]);
    let whole = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let head: String = whole.lines().take_while(|line| !line.starts_with("users:")).map(|line| format!("{line}\n")).collect();
    let jane = cluster.dir.join("jane.kubeconfig").display().to_string();
    let user = format!("client-certificate-data: {certificate}\n    client-key: {}", key.display());
    std::fs::write(&jane, format!("{head}users:\n- name: portolan-admin\n  user:\n    {user}\n")).unwrap();
    assert_eq!(asks(&cluster, &jane, "auth whoami -o jsonpath={.status.userInfo.username}"), (0, "jane".to_owned()));
    assert_eq!(asks(&cluster, &jane, "create configmap mine --from-literal=a=b -n shop").0, 0);
    assert_eq!(asks(&cluster, &jane, "create configmap mine --from-literal=a=b -n default").0, 1);
    // The certificate is lost: it is revoked by its id.
    let id = asks(
        &cluster,
        &jane,
        "auth whoami -o jsonpath={.status.userInfo.extra.authentication\\.kubernetes\\.io/credential-id[0]}",
    )
    .1;
    let revoked = format!("--from-literal={}=lost", id.replacen('=', ".", 1));
    cluster.kubectl(&["create", "configmap", "revoked-credentials", "-n", "kube-system", &revoked]);
    assert_ne!(asks(&cluster, &jane, "get configmaps -n shop").0, 0);
    assert_eq!(asks(&cluster, &ci, "get configmaps -n shop").0, 0);
}

/// `kubectl auth reconcile`, default roles and accounts, and the record of it all.
#[test]
fn roles_accounts_and_the_record() {
    let keep = tempfile::tempdir().unwrap();
    let log = keep.path().join("audit.log");
    let cluster = Cluster::start("127.0.0.1", &["--audit-log", log.to_str().unwrap()]);
    let roles = cluster.kubectl(&["get", "clusterroles", "-o", "name"]);
    for name in ["cluster-admin", "admin", "edit", "view", "system:discovery"] {
        assert!(roles.contains(&format!("clusterrole.rbac.authorization.k8s.io/{name}\n")), "{roles}");
    }
    assert!(cluster.kubectl(&["describe", "clusterrole", "view"]).contains("pods/log"));
    assert!(cluster.kubectl(&["get", "clusterrolebindings", "-o", "wide"]).contains("system:authenticated"));
    for namespace in ["default", "kube-system"] {
        assert!(cluster.kubectl(&["get", "serviceaccounts", "-n", namespace]).contains("default"));
        assert!(
            cluster
                .kubectl(&["get", "configmap", "kube-root-ca.crt", "-n", namespace, "-o", "yaml"])
                .contains("BEGIN CERTIFICATE")
        );
    }
    let file = cluster.dir.join("roles.yaml");
    let text_of = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: looks, namespace: default}\nrules:\n- {apiGroups: [''], resources: [pods], verbs: [list]}\n\
        ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: looks, namespace: default}\nroleRef: {kind: Role, name: looks, apiGroup: rbac.authorization.k8s.io}\nsubjects:\n- {kind: User, name: joe, apiGroup: rbac.authorization.k8s.io}\n";
    std::fs::write(&file, text_of).unwrap();
    for _ in 0..2 {
        let said = cluster.kubectl(&["auth", "reconcile", "-f", file.to_str().unwrap()]);
        assert!(said.contains("role.rbac.authorization.k8s.io/looks reconciled"), "{said}");
    }
    assert_eq!(cluster.kubectl(&["auth", "can-i", "list", "pods", "--as", "joe"]).trim(), "yes");
    cluster.kubectl(&["create", "secret", "generic", "s", "--from-literal=k=c4n4ry"]);
    let token = cluster.kubectl(&["create", "token", "default"]);
    let record = crate::support::eventually(10, "the record is written", || {
        let record = std::fs::read_to_string(&log).unwrap_or_default();
        record.contains("serviceaccounts").then_some(record)
    });
    assert!(record.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok_and(|e| e["kind"] == "Event")));
    assert!(record.contains("\"impersonatedUser\":{") && record.contains("\"username\":\"joe\""));
    assert!(!record.contains("c4n4ry") && !record.contains(token.trim()));
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
