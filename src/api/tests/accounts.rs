//! Service accounts and their tokens, reviews, and acting for somebody else.

use super::*;

pub(super) const TOKEN: &str = "POST /api/v1/namespaces/shop/serviceaccounts/ci/token";
pub(super) const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";
pub(super) const AUTHENTICATION: &str = "/apis/authentication.k8s.io/v1";

impl World {
    pub(super) async fn account(&self, name: &str) {
        self.must("POST /api/v1/namespaces/shop/serviceaccounts", json!({"metadata": {"name": name}})).await;
    }
    pub(super) async fn account_token(&self, spec: Value) -> String {
        self.must(TOKEN, json!({"spec": spec})).await["status"]["token"].as_str().unwrap().to_owned()
    }
    pub(super) async fn with_token(&self, token: &str, line: &str, body: Value) -> Answer {
        let headers = [("authorization", format!("Bearer {token}")), ("content-type", "application/json".to_owned())];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(None, line, &headers, body).await
    }
    async fn can_i(&self, who: &Identity, attributes: Value) -> Value {
        let line = format!("POST {AUTHORIZATION}/selfsubjectaccessreviews");
        let answer = self.ask_as(who, &line, json!({"spec": {"resourceAttributes": attributes}})).await;
        assert_eq!(answer.code, 201, "{}", answer.show());
        answer.value["status"].clone()
    }
}

#[tokio::test]
async fn a_token_speaks_for_its_account() {
    let w = world();
    w.account("ci").await;
    let answer = w.must(TOKEN, json!({"spec": {"expirationSeconds": 600}})).await;
    assert_eq!(answer["spec"], json!({"audiences": ["https://kubernetes.default.svc.cluster.local"], "expirationSeconds": 600}));
    assert_eq!(answer["status"]["expirationTimestamp"], "2026-11-21T10:10:00Z");
    let token = w.account_token(json!({})).await;
    let line = format!("POST {AUTHENTICATION}/selfsubjectreviews");
    let who = w.with_token(&token, &line, json!({})).await;
    assert_eq!(who.code, 201, "{}", who.show());
    let info = &who.value["status"]["userInfo"];
    assert_eq!(info["username"], "system:serviceaccount:shop:ci");
    assert_eq!(info["groups"], json!(["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]));
    assert!(info["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap().starts_with("JTI="));
    let pods = "GET /api/v1/namespaces/shop/pods";
    let refused = w.with_token(&token, pods, Value::Null).await;
    assert!(
        refused.show().contains("User \"system:serviceaccount:shop:ci\" cannot list resource \"pods\""),
        "{}",
        refused.show()
    );
    let binding = json!({"metadata": {"name": "ci"}, "roleRef": {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "ServiceAccount", "name": "ci", "namespace": "shop"}]});
    w.must("POST /apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings", binding).await;
    assert_eq!(w.with_token(&token, pods, Value::Null).await.code, 200);
    // Its end: by time, and at once when the account goes, also for one of the same name that comes after it.
    let short = w.account_token(json!({"expirationSeconds": 600})).await;
    assert_eq!(w.with_token(&short, pods, Value::Null).await.code, 200);
    w.pass(600);
    assert_eq!(w.with_token(&short, pods, Value::Null).await.show(), "401 Unauthorized: Unauthorized");
    assert_eq!(w.with_token(&token, pods, Value::Null).await.code, 200);
    w.must("DELETE /api/v1/namespaces/shop/serviceaccounts/ci", Value::Null).await;
    assert_eq!(w.with_token(&token, pods, Value::Null).await.code, 401);
    w.account("ci").await;
    assert_eq!(w.with_token(&token, pods, Value::Null).await.code, 401);
}

#[tokio::test]
async fn tokens_hang_on_what_they_are_bound_to() {
    let w = world();
    w.account("ci").await;
    w.must("POST /api/v1/namespaces/shop/secrets", json!({"metadata": {"name": "s"}})).await;
    let pod = w.pod_on("mine", "h1", json!({"serviceAccountName": "ci"})).await;
    w.pod_on("other", "h1", json!({"serviceAccountName": "default"})).await;
    let uid = pod["metadata"]["uid"].clone();
    let to = |kind: &str, name: &str| json!({"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": name}});
    let by_secret = w.account_token(to("Secret", "s")).await;
    let by_pod = w.account_token(to("Pod", "mine")).await;
    let me = format!("POST {AUTHENTICATION}/selfsubjectreviews");
    let who = w.with_token(&by_pod, &me, json!({})).await;
    let extra = &who.value["status"]["userInfo"]["extra"];
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["mine"]));
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"], json!([uid]));
    for (spec, code, words) in [
        (
            to("Pod", "other"),
            400,
            "cannot bind token for serviceaccount \"ci\" to pod running with different serviceaccount name.",
        ),
        (to("Pod", "none"), 404, "pods \"none\" not found"),
        (to("ConfigMap", "s"), 400, "cannot bind token"),
        (json!({"expirationSeconds": 599}), 422, "may not specify a duration less than 10 minutes"),
        (json!({"expirationSeconds": -1}), 422, "may not specify a duration less than 10 minutes"),
        (json!({"audiences": [""]}), 422, "spec.audiences"),
        (
            json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "mine", "uid": "another"}}),
            409,
            "does not match the UID in record",
        ),
    ] {
        let answer = w.ask(TOKEN, json!({"spec": spec})).await;
        assert_eq!(answer.code, code, "{spec}: {}", answer.show());
        assert!(answer.show().contains(words), "{spec}: {}", answer.show());
    }
    w.must("DELETE /api/v1/namespaces/shop/secrets/s", Value::Null).await;
    assert_eq!(w.with_token(&by_secret, &me, json!({})).await.code, 401);
    assert_eq!(w.with_token(&by_pod, &me, json!({})).await.code, 201);
    w.must("DELETE /api/v1/namespaces/shop/pods/mine", json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(w.with_token(&by_pod, &me, json!({})).await.code, 401, "with its pod a token ends");
    // No token for ever, however long somebody asks for.
    let long = w.must(TOKEN, json!({"spec": {"expirationSeconds": 4_000_000_000u32}})).await;
    assert_eq!(long["status"]["expirationTimestamp"], "2027-11-21T10:00:00Z");
}

#[tokio::test]
async fn keys_are_published() {
    let w = world();
    w.account("ci").await;
    let token = w.account_token(json!({})).await;
    let keys = w.with_token(&token, "GET /openid/v1/jwks", Value::Null).await;
    let about = w.with_token(&token, "GET /.well-known/openid-configuration", Value::Null).await;
    assert_eq!((keys.code, about.code), (200, 200));
    let key = super::super::authn::jwt::Key::of_jwk(&keys.value["keys"][0]).unwrap();
    let claims = super::super::authn::jwt::verify(&token, &[key]).unwrap();
    assert_eq!(claims["iss"], about.value["issuer"]);
    assert_eq!(claims["kubernetes.io"]["namespace"], "shop");
    assert!(keys.value["keys"][0].get("d").is_none(), "the public half");
    assert_eq!(w.send(None, "GET /openid/v1/jwks", &[], "").await.code, 401);
}

#[tokio::test]
async fn may_i() {
    let w = world();
    let jane = Identity::new("jane", &["team"]);
    let binding = json!({"metadata": {"name": "j"}, "roleRef": {"kind": "ClusterRole", "name": "edit", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "Group", "name": "team", "apiGroup": "rbac.authorization.k8s.io"}]});
    w.must("POST /apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings", binding).await;
    let yes = w.can_i(&jane, json!({"namespace": "shop", "verb": "delete", "resource": "pods"})).await;
    assert_eq!(yes, json!({"allowed": true, "reason": "RBAC: allowed by RoleBinding \"j/shop\" of ClusterRole \"edit\""}));
    assert_eq!(
        w.can_i(&jane, json!({"namespace": "default", "verb": "delete", "resource": "pods"})).await,
        json!({"allowed": false})
    );
    assert_eq!(w.can_i(&jane, json!({"verb": "*", "resource": "*", "group": "*"})).await["allowed"], false);
    assert_eq!(w.can_i(&Identity::admin(), json!({"verb": "*", "resource": "*", "group": "*"})).await["allowed"], true);
    let path = json!({"spec": {"nonResourceAttributes": {"path": "/version", "verb": "get"}}});
    let answer = w.ask_as(&jane, &format!("POST {AUTHORIZATION}/selfsubjectaccessreviews"), path).await;
    assert_eq!(answer.value["status"]["allowed"], true);
    for (body, code) in [(json!({"spec": {}}), 422), (json!([]), 400), (json!({"kind": "Pod"}), 400), (Value::Null, 400)] {
        assert_eq!(
            w.ask_as(&jane, &format!("POST {AUTHORIZATION}/selfsubjectaccessreviews"), body.clone()).await.code,
            code,
            "{body}"
        );
    }
    // About others asks who may.
    let about = json!({"spec": {"user": "jane", "groups": ["team"], "resourceAttributes": {"namespace": "shop", "verb": "get", "resource": "secrets"}}});
    let refused = w.ask_as(&jane, &format!("POST {AUTHORIZATION}/subjectaccessreviews"), about.clone()).await;
    assert_eq!(
        refused.show(),
        "403 Forbidden: subjectaccessreviews.authorization.k8s.io is forbidden: User \"jane\" cannot create resource \"subjectaccessreviews\" in API group \"authorization.k8s.io\" at the cluster scope"
    );
    let review = async |path: &str, body: &Value| w.ask(&format!("POST {AUTHORIZATION}/{path}"), body.clone()).await;
    assert_eq!(review("subjectaccessreviews", &about).await.value["status"]["allowed"], true);
    assert_eq!(review("namespaces/shop/localsubjectaccessreviews", &about).await.value["status"]["allowed"], true);
    assert_eq!(review("namespaces/default/localsubjectaccessreviews", &about).await.code, 422);
    assert_eq!(review("subjectaccessreviews", &json!({"spec": {"resourceAttributes": {}}})).await.code, 422, "about nobody");
    let rules =
        w.ask_as(&jane, &format!("POST {AUTHORIZATION}/selfsubjectrulesreviews"), json!({"spec": {"namespace": "shop"}})).await;
    let status = &rules.value["status"];
    assert_eq!(status["incomplete"], false);
    assert!(
        status["resourceRules"].to_string().contains("\"pods/exec\"")
            && status["nonResourceRules"].to_string().contains("/api/*")
    );
    // What is asked is not stored.
    assert_eq!(w.ask(&format!("GET {AUTHORIZATION}/selfsubjectaccessreviews"), Value::Null).await.code, 405);
    let groups = w.must("GET /apis", Value::Null).await.to_string();
    assert!(groups.contains("authorization.k8s.io") && groups.contains("authentication.k8s.io"));
    let listed = w.must(&format!("GET {AUTHORIZATION}"), Value::Null).await["resources"].clone();
    assert_eq!(
        listed[1],
        json!({"name": "selfsubjectaccessreviews", "singularName": "selfsubjectaccessreview", "namespaced": false,
        "kind": "SelfSubjectAccessReview", "verbs": ["create"]})
    );
}

#[tokio::test]
async fn whose_token() {
    let w = world();
    w.account("ci").await;
    let (token, other) = (w.account_token(json!({})).await, w.account_token(json!({"audiences": ["vault"]})).await);
    let review = async |token: &str, audiences: Value| {
        let body = json!({"spec": {"token": token, "audiences": audiences}});
        let answer = w.must(&format!("POST {AUTHENTICATION}/tokenreviews"), body).await;
        assert!(token.is_empty() || !answer.to_string().contains(token), "the token does not come back");
        answer["status"].clone()
    };
    let status = review(&token, Value::Null).await;
    assert_eq!((&status["authenticated"], &status["user"]["username"]), (&json!(true), &json!("system:serviceaccount:shop:ci")));
    assert_eq!(review(&other, json!(["vault", "x"])).await["audiences"], json!(["vault"]));
    assert_eq!(review(&other, Value::Null).await["authenticated"], false, "it is for somebody else");
    assert_eq!(review(&token, json!(["vault"])).await["authenticated"], false);
    assert_eq!(review("nonsense", Value::Null).await["authenticated"], false);
    assert_eq!(review("", Value::Null).await["authenticated"], false);
}

#[tokio::test]
async fn acting_for_somebody_else() {
    let w = world();
    w.account("ci").await;
    let whoami = format!("POST {AUTHENTICATION}/selfsubjectreviews");
    let act = async |who: &Identity, headers: &[(&str, &str)]| {
        let answer = w.send(Some(who), &whoami, headers, "{}").await;
        (answer.code, answer.value["status"]["userInfo"].clone(), answer.show())
    };
    let admin = Identity::admin();
    let (code, info, _) = act(&admin, &[("impersonate-user", "jane"), ("impersonate-group", "team")]).await;
    assert_eq!((code, info), (201, json!({"username": "jane", "groups": ["team", "system:authenticated"]})));
    let (_, info, _) = act(&admin, &[("impersonate-user", "system:serviceaccount:shop:ci")]).await;
    assert_eq!(info["groups"], json!(["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]));
    let headers = [("impersonate-user", "jane"), ("impersonate-uid", "7"), ("impersonate-extra-why", "test")];
    assert_eq!(
        act(&admin, &headers).await.1,
        json!({"username": "jane", "uid": "7", "groups": ["system:authenticated"], "extra": {"why": ["test"]}})
    );
    // Nothing of the administrator is left.
    let answer = w.send(Some(&admin), "GET /api/v1/secrets", &[("impersonate-user", "jane")], "").await;
    assert_eq!(answer.code, 403);
    // Each part takes its own right.
    let jane = Identity::new("jane", &["team"]);
    let words = act(&jane, &[("impersonate-user", "joe")]).await.2;
    assert_eq!(
        words,
        "403 Forbidden: users \"joe\" is forbidden: User \"jane\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
    );
    let rule = |group: &str, resource: &str, name: &str| json!({"apiGroups": [group], "resources": [resource], "resourceNames": [name], "verbs": ["impersonate"]});
    let rules =
        json!([rule("", "users", "joe"), rule("", "groups", "ops"), rule("authentication.k8s.io", "userextras/why", "test")]);
    w.must("POST /apis/rbac.authorization.k8s.io/v1/clusterroles", json!({"metadata": {"name": "as-joe"}, "rules": rules})).await;
    let binding = json!({"metadata": {"name": "as-joe"}, "roleRef": {"kind": "ClusterRole", "name": "as-joe", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]});
    w.must("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    for (headers, code) in [
        (&[("impersonate-user", "joe")][..], 201),
        (&[("impersonate-user", "joe"), ("impersonate-group", "ops")], 201),
        (&[("impersonate-user", "joe"), ("impersonate-extra-why", "test")], 201),
        (&[("impersonate-user", "joe"), ("impersonate-group", "system:masters")], 403),
        (&[("impersonate-user", "joe"), ("impersonate-group", "ops"), ("impersonate-group", "system:masters")], 403),
        (&[("impersonate-user", "joe"), ("impersonate-uid", "1")], 403),
        (&[("impersonate-user", "joe"), ("impersonate-extra-why", "other")], 403),
        (&[("impersonate-user", "joe"), ("impersonate-extra-else", "test")], 403),
        (&[("impersonate-user", "portolan-admin")], 403),
        (&[("impersonate-user", "system:serviceaccount:shop:ci")], 403),
        (&[("impersonate-group", "ops")], 400),
        (&[("impersonate-user", "joe"), ("impersonate-unknown", "x")], 400),
    ] {
        assert_eq!(act(&jane, headers).await.0, code, "{headers:?}");
    }
    // Who edits a namespace may act for its accounts, and for no others.
    let binding = json!({"metadata": {"name": "e"}, "roleRef": {"kind": "ClusterRole", "name": "edit", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}]});
    w.must("POST /apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings", binding).await;
    let ann = Identity::new("ann", &[]);
    assert_eq!(act(&ann, &[("impersonate-user", "system:serviceaccount:shop:ci")]).await.0, 201);
    assert_eq!(act(&ann, &[("impersonate-user", "system:serviceaccount:default:ci")]).await.0, 403);
    // With the credential of who really asks the acting ends, too.
    let mut short = Identity::admin();
    short.expires = Some("2026-11-21T10:01:00Z".parse().unwrap());
    let headers = [("impersonate-user", "ann")];
    assert_eq!(w.send(Some(&short), "GET /api/v1/namespaces/shop/pods", &headers, "").await.code, 200);
    w.pass(60);
    assert_eq!(w.send(Some(&short), "GET /api/v1/namespaces/shop/pods", &headers, "").await.code, 401);
}
