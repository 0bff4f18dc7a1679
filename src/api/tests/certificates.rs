//! Certificates on request: who asks, who approves, and what is never signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::*;
use crate::api::authority::identify;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";

fn request(name: &str, groups: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    groups.iter().for_each(|g| params.distinguished_name.push(DnType::OrganizationName, *g));
    params.distinguished_name.push(DnType::CommonName, name);
    STANDARD.encode(params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap())
}

fn asking(name: &str, request: &str, signer: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"request": request, "signerName": signer, "usages": ["client auth"], "expirationSeconds": 3600}})
}

fn approved() -> Value {
    json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "KubectlApprove", "message": "yes"}]}})
}

impl World {
    async fn approve(&self, who: &Identity, name: &str) -> Answer {
        self.ask_as(who, &format!("PATCH {REQUESTS}/{name}/approval"), approved()).await
    }
    async fn certificate(&self, name: &str) -> Option<Identity> {
        let value = self.must(&format!("GET {REQUESTS}/{name}"), Value::Null).await;
        let pem = STANDARD.decode(value["status"]["certificate"].as_str()?).unwrap();
        identify(&CertificateDer::from_pem_slice(&pem).unwrap())
    }
}

#[tokio::test]
async fn asked_approved_signed_and_used() {
    let w = world();
    let jane = Identity::new("jane", &["team"]);
    let allowed = json!({"metadata": {"name": "asks"}, "rules": [{"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"], "verbs": ["create", "get"]}]});
    w.must("POST /apis/rbac.authorization.k8s.io/v1/clusterroles", allowed).await;
    let binding = json!({"metadata": {"name": "asks"}, "roleRef": {"kind": "ClusterRole", "name": "asks", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]});
    w.must("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    let mut asked = asking("jane", &request("jane", &["team"]), CLIENT);
    // Who asks is not claimed.
    asked["spec"]["username"] = "portolan-admin".into();
    asked["spec"]["groups"] = json!(["system:masters"]);
    asked["status"] = approved()["status"].clone();
    let made = w.ask_as(&jane, &format!("POST {REQUESTS}"), asked).await;
    assert_eq!(made.code, 201, "{}", made.show());
    assert_eq!(made.value["spec"]["username"], "jane");
    assert_eq!(made.value["spec"]["groups"], json!(["team", "system:authenticated"]));
    assert!(made.value["status"]["conditions"].is_null(), "nor is an approval: {}", made.value["status"]);
    assert_eq!(w.approve(&jane, "jane").await.code, 403, "she may ask, not approve");
    let forged = w.ask_as(&jane, &format!("PATCH {REQUESTS}/jane/status"), json!({"status": {"certificate": "eA=="}})).await;
    assert_eq!(forged.code, 403);
    let changed = w.ask(&format!("PATCH {REQUESTS}/jane"), json!({"spec": {"username": "joe"}})).await;
    assert_eq!(changed.code, 422, "{}", changed.show());
    let yes = w.approve(&Identity::admin(), "jane").await;
    assert_eq!(yes.code, 200, "{}", yes.show());
    assert!(yes.value["status"]["conditions"][0]["lastUpdateTime"].is_string());
    let identity = w.certificate("jane").await.unwrap();
    assert_eq!((identity.name.as_str(), &identity.groups), ("jane", &vec!["team".to_owned()]));
    assert_eq!(identity.expires.unwrap().to_string(), "2026-11-21T11:00:00Z");
    assert_eq!(w.ask_as(&identity, "GET /api", Value::Null).await.code, 200);
    // Denying afterwards takes nothing back; the list of revoked credentials does.
    let both = json!({"status": {"conditions": [approved()["status"]["conditions"][0], {"type": "Denied", "status": "True"}]}});
    assert_eq!(w.ask(&format!("PATCH {REQUESTS}/jane/approval"), both).await.code, 422);
    let none = w.ask(&format!("PATCH {REQUESTS}/jane/approval"), json!({"status": {"conditions": []}})).await;
    assert_eq!(none.code, 422);
    let id = identity.extra["authentication.kubernetes.io/credential-id"][0].replacen('=', ".", 1);
    assert!(id.starts_with("X509SHA256."));
    w.must(
        "POST /api/v1/namespaces/kube-system/configmaps",
        json!({"metadata": {"name": "revoked-credentials"}, "data": {id: ""}}),
    )
    .await;
    assert_eq!(w.ask_as(&identity, "GET /api", Value::Null).await.code, 401);
    w.pass(3600);
    assert_eq!(w.ask_as(&identity, "GET /api", Value::Null).await.code, 401);
}

#[tokio::test]
async fn f_what_is_never_signed() {
    let w = world();
    let post = format!("POST {REQUESTS}");
    let masters = w.ask(&post, asking("m", &request("joe", &["system:masters"]), CLIENT)).await;
    assert_eq!(
        masters.show(),
        "403 Forbidden: certificatesigningrequests.certificates.k8s.io \"m\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    );
    for (name, request, code) in [("x", "eA==", 422), ("y", "", 422), ("z", "!!", 400)] {
        assert_eq!(w.ask(&post, asking(name, request, CLIENT)).await.code, code, "{name}");
    }
    let mut short = asking("short", &request("joe", &[]), CLIENT);
    short["spec"]["expirationSeconds"] = 1.into();
    assert_eq!(w.ask(&post, short).await.code, 422);
    assert_eq!(w.ask(&post, asking("signer", &request("joe", &[]), "evil")).await.code, 422);
    // Approved, and still not signed: the signer has its own rules.
    let mut server = asking("server", &request("joe", &[]), CLIENT);
    server["spec"]["usages"] = json!(["client auth", "server auth"]);
    let rows = [
        server,
        asking("nameless", &request("", &["team"]), CLIENT),
        asking("no-node", &request("joe", &["system:nodes"]), KUBELET),
        asking("more-groups", &request("system:node:h9", &["system:nodes", "team"]), KUBELET),
        asking("masters", &request("system:node:h9", &["system:masters"]), KUBELET),
        asking("elsewhere", &request("joe", &[]), "example.org/other"),
    ];
    for row in rows {
        let name = row["metadata"]["name"].as_str().unwrap().to_owned();
        w.must(&post, row).await;
        assert_eq!(w.approve(&Identity::admin(), &name).await.code, 200);
        assert_eq!(w.certificate(&name).await, None, "{name}");
    }
    let failed = w.must(&format!("GET {REQUESTS}/server"), Value::Null).await;
    assert_eq!(failed["status"]["conditions"][1]["type"], "Failed");
    // Denied is denied.
    w.must(&post, asking("denied", &request("joe", &[]), CLIENT)).await;
    let denied = json!({"status": {"conditions": [{"type": "Denied", "status": "True", "reason": "No"}]}});
    w.must(&format!("PATCH {REQUESTS}/denied/approval"), denied).await;
    assert_eq!(w.approve(&Identity::admin(), "denied").await.code, 422);
    assert_eq!(w.certificate("denied").await, None);
    // The right to approve is by signer.
    let allowed = json!({"metadata": {"name": "approver"}, "rules": [
        {"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval"], "verbs": ["update", "patch"]},
        {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": ["example.org/*"], "verbs": ["approve"]}]});
    w.must("POST /apis/rbac.authorization.k8s.io/v1/clusterroles", allowed).await;
    let binding = json!({"metadata": {"name": "approver"}, "roleRef": {"kind": "ClusterRole", "name": "approver", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}]});
    w.must("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    let ann = Identity::new("ann", &[]);
    w.must(&post, asking("a", &request("joe", &[]), CLIENT)).await;
    w.must(&post, asking("b", &request("joe", &[]), "example.org/other")).await;
    assert_eq!(w.approve(&ann, "a").await.code, 403);
    assert_eq!(w.approve(&ann, "b").await.code, 200);
}

/// A certificate that says "node" is worth nothing unless its key is the one that is known for the name.
#[tokio::test]
async fn j_hosts_on_request() {
    let w = world();
    let post = format!("POST {REQUESTS}");
    w.must(&post, asking("forged", &request("system:node:h1", &["system:nodes"]), CLIENT)).await;
    w.approve(&Identity::admin(), "forged").await;
    let forged = w.certificate("forged").await.unwrap();
    assert_eq!(w.ask_as(&forged, "GET /api/v1/nodes/h1", Value::Null).await.code, 401);
    // A new host, by the way that kubelets come.
    w.must(&post, asking("h1", &request("system:node:h1", &["system:nodes"]), KUBELET)).await;
    w.approve(&Identity::admin(), "h1").await;
    let h1 = w.certificate("h1").await.unwrap();
    assert_eq!(w.ask_as(&h1, "POST /api/v1/nodes", json!({"metadata": {"name": "h1"}})).await.code, 201);
    // Its name is not given to anybody else, approved or not.
    w.must(&post, asking("again", &request("system:node:h1", &["system:nodes"]), KUBELET)).await;
    w.approve(&Identity::admin(), "again").await;
    assert_eq!(w.certificate("again").await, None);
    assert_eq!(w.ask_as(&h1, "GET /api/v1/nodes/h1", Value::Null).await.code, 200);
}
