//! The record of requests: what is in it, and what never is (attack class G).

use super::*;
use crate::api::{Settings, audit};

fn recorded(directory: &std::path::Path) -> World {
    let log = audit::Log::open(audit::Options { path: directory.join("audit.log"), size: 100 << 20, backups: 3 }).unwrap();
    let w = world();
    let clock = w.clock.clone();
    let now: super::super::Clock = Arc::new(move || *clock.lock());
    let settings = Settings { audit: Some(log), ..Settings::default() };
    let api = Api::with_settings(w.store.clone(), now, Some(w.authority.clone()), settings, w.stop.clone());
    World { api, ..w }
}

async fn lines(w: &World, directory: &std::path::Path) -> Vec<Value> {
    w.api.inner.settings.audit.as_ref().unwrap().flush().await;
    let text = std::fs::read_to_string(directory.join("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn who_asked_for_what_and_how_it_was_answered() {
    let directory = tempfile::tempdir().unwrap();
    let w = recorded(directory.path());
    let jane = Identity::new("jane", &["team"]);
    w.ask_as(&jane, "GET /api/v1/namespaces/shop/secrets/s?x=1", Value::Null).await;
    w.must("POST /api/v1/namespaces/shop/configmaps", config_map("c", json!({"k": "v"}))).await;
    w.send(Some(&Identity::admin()), "GET /api/v1/nodes", &[("impersonate-user", "joe"), ("user-agent", "kubectl/1")], "").await;
    w.send(None, "GET /api/v1/nodes", &[], "").await;
    w.send(None, "GET /healthz", &[], "").await;
    let lease = json!({"metadata": {"name": "h1"}, "spec": {"holderIdentity": "h1"}});
    w.ask_as(&Identity::node("h1"), "POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", lease).await;
    let events = lines(&w, directory.path()).await;
    let show: Vec<String> = events
        .iter()
        .map(|e| {
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            format!(
                "{} {} {} {} {} {} {}",
                text(&e["stage"]),
                text(&e["verb"]),
                text(&e["user"]["username"]),
                text(&e["impersonatedUser"]["username"]),
                text(&e["objectRef"]["resource"]),
                text(&e["objectRef"]["name"]),
                e["responseStatus"]["code"]
            )
        })
        .collect();
    assert_eq!(
        show,
        [
            "ResponseComplete get jane - secrets s 403",
            "ResponseComplete create portolan-admin - configmaps - 201",
            "ResponseComplete list portolan-admin joe nodes - 403",
            "ResponseComplete get - - - - 401",
        ]
    );
    let first = &events[0];
    assert_eq!(first["kind"], "Event");
    assert_eq!(first["apiVersion"], "audit.k8s.io/v1");
    assert_eq!(first["level"], "Metadata");
    assert_eq!(first["requestURI"], "/api/v1/namespaces/shop/secrets/s?x=1");
    assert_eq!(first["user"]["groups"], json!(["team", "system:authenticated"]));
    assert_eq!(first["requestReceivedTimestamp"], "2026-11-21T10:00:00.000000Z");
    assert_eq!(first["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(events[1]["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(events[2]["userAgent"], "kubectl/1");
    assert_ne!(first["auditID"], events[1]["auditID"]);
}

/// No body of anything: so no secret, no configuration, no token, and no join token.
#[tokio::test]
async fn g_no_secret_is_ever_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let w = recorded(directory.path());
    let canary = "c4n4ry-7f3a";
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": canary}});
    w.must("POST /api/v1/namespaces/shop/secrets", secret.clone()).await;
    w.must("GET /api/v1/namespaces/shop/secrets/s", Value::Null).await;
    w.must("PATCH /api/v1/namespaces/shop/secrets/s", json!({"stringData": {"k2": canary}})).await;
    w.ask("POST /api/v1/namespaces/shop/secrets", secret).await;
    w.ask("PUT /api/v1/namespaces/shop/secrets/s", json!({"metadata": {"name": canary}})).await;
    w.must("POST /api/v1/namespaces/shop/configmaps", config_map("c", json!({"k": canary}))).await;
    w.account("ci").await;
    let token = w.account_token(json!({})).await;
    w.with_token(&token, "GET /api/v1/namespaces/shop/pods", Value::Null).await;
    w.must("POST /apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": token}})).await;
    w.send(None, &format!("GET /api?access_token={canary}&token={token}"), &[], "").await;
    w.send(None, "POST /apis/portolan.dev/v1alpha1/join", &[("authorization", &format!("Bearer abcdef.{canary}"))], "{}").await;
    w.must("DELETE /api/v1/namespaces/shop/secrets/s", Value::Null).await;
    let text = serde_json::to_string(&lines(&w, directory.path()).await).unwrap();
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, canary);
    assert!(text.len() > 2000);
    for hidden in [canary, &encoded, &token, token.rsplit('.').next().unwrap()] {
        assert!(!text.contains(hidden), "{hidden}");
    }
}

#[tokio::test]
async fn a_watch_has_a_beginning_and_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let w = recorded(directory.path());
    let mut request = Request::builder().uri("/api/v1/configmaps?watch=true").body(Body::empty()).unwrap();
    request.extensions_mut().insert(Identity::admin());
    let response = w.api.handle(request).await;
    let stages = |events: &[Value]| events.iter().map(|e| e["stage"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(stages(&lines(&w, directory.path()).await), ["ResponseStarted"]);
    drop(response);
    let events = lines(&w, directory.path()).await;
    assert_eq!(stages(&events), ["ResponseStarted", "ResponseComplete"]);
    assert_eq!(events[0]["auditID"], events[1]["auditID"]);
    assert_eq!(events[1]["verb"], "watch");
}
