//! What a pod is made from and others may change meanwhile: ConfigMaps, Secrets, tokens. Each attempt takes them as they are.

use expect_test::expect;
use k8s_openapi::ByteString;

use super::*;
use crate::plan::pod::volume::TokenWish;

/// A ConfigMap.
fn map(name: &str) -> ConfigRef {
    ConfigRef { secret: false, namespace: "d".into(), name: name.into(), token: None }
}

/// A Secret; or with `token`, a token of the ServiceAccount of that name.
fn secret(name: &str, token: Option<TokenRef>) -> ConfigRef {
    ConfigRef { secret: true, token, ..map(name) }
}

/// A pod that does what the key `sim` of the ConfigMap `settings` says.
fn told_by_settings() -> Value {
    let env = json!([{"name": "SIM", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "sim"}}}]);
    json!({"containers": [{"name": "c", "image": "web:1", "env": env}]})
}

#[test]
fn configuration() {
    let mut world = World::with(json!({
        "containers": [{
            "name": "c", "image": "web:1", "envFrom": [{"configMapRef": {"name": "env"}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        }],
        "volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": 0o400}}],
    }));
    world.run(5);
    world.configs.insert(secret("s", None), [("k".to_owned(), ByteString(b"v".to_vec()))].into());
    world.run(15);
    check(
        &world,
        expect![[r#"
        p Pending; c waiting CreateContainerConfigError restarts 0
          k8s_POD_p_d_p_0 runs
    "#]],
    );
    world.configs.insert(map("env"), [("A".to_owned(), ByteString(b"1".to_vec()))].into());
    world.run(15);
    world.configs.insert(secret("s", None), [("k".to_owned(), ByteString(b"longer".to_vec()))].into());
    world.run(70);
    check_well(&world);
    let volumes: Vec<&str> = world.story.lines().filter(|l| l.starts_with("volume")).collect();
    expect![[r#"
        volume v Files { in_memory: true, files: {"k": 1 bytes 0400} }
        volume v Files { in_memory: true, files: {"k": 6 bytes 0400} }"#]]
    .assert_eq(&volumes.join("\n"));
}

/// What a container failed by may have been put right in the ConfigMap that it is made from.
#[test]
fn each_attempt_is_made_from_configuration_as_it_is() {
    let mut world = World::new();
    world.list();
    let value = |text: &str| [("sim".to_owned(), ByteString(text.as_bytes().to_vec()))].into();
    world.configs.insert(map("settings"), value("crash=1-1s"));
    world.pod("p", told_by_settings());
    world.run(10);
    assert!(world.show().contains("c waiting CrashLoopBackOff restarts 1 after Error"), "{}", world.show());
    world.configs.insert(map("settings"), value(""));
    world.run(30);
    check(
        &world,
        expect![[r#"
        p Running ready; c running restarts 2 after Error
          k8s_POD_p_d_p_0 runs
          k8s_c_p_d_p_1 does not run
          k8s_c_p_d_p_2 runs
    "#]],
    );
}

/// A key that was missing is found when it is there, whether the container had run before or not.
#[test]
fn a_missing_key_is_looked_for_again() {
    let mut world = World::new();
    world.list();
    let value = |key: &str| [(key.to_owned(), ByteString(Vec::new()))].into();
    world.configs.insert(map("settings"), value("another"));
    world.pod("p", told_by_settings());
    world.run(5);
    assert!(world.show().contains("c waiting CreateContainerConfigError restarts 0"), "{}", world.show());
    world.configs.insert(map("settings"), value("sim"));
    world.run(15);
    assert!(world.show().contains("p Running ready; c running restarts 0"), "{}", world.show());
    world.configs.insert(map("settings"), value("another"));
    world.strike("k8s_c_");
    world.run(15);
    assert!(world.show().contains("c waiting CreateContainerConfigError"), "{}", world.show());
    world.configs.insert(map("settings"), value("sim"));
    world.run(20);
    assert!(world.show().contains("p Running ready; c running restarts 1"), "{}", world.show());
}

/// What was read before has to do only while the server is away.
#[test]
fn that_the_server_was_away_once_is_no_excuse_for_old_configuration() {
    let mut world = World::new();
    world.list();
    let value = |text: &str| [("sim".to_owned(), ByteString(text.as_bytes().to_vec()))].into();
    world.configs.insert(map("settings"), value(""));
    world.pod("p", told_by_settings());
    world.run(10);
    world.server_away = true;
    world.strike("k8s_c_p");
    world.run(10);
    assert!(world.machine.containers().any(|c| c.name == "k8s_c_p_d_p_1" && runs(&c)), "it is started without the server");
    world.server_away = false;
    world.configs.insert(map("settings"), value("crash=1-1s"));
    world.run(5);
    world.pod("q", told_by_settings());
    world.run(5);
    assert!(world.show().contains("q Running; c waiting CrashLoopBackOff restarts 1 after Error"), "{}", world.show());
}

/// A pod that shows a token gets one that is bound to it before it starts, and a new one when that is old. Nobody else waits for any.
#[test]
fn a_token_is_asked_for_and_renewed() {
    let volumes = json!([{"name": "t", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}}]}}]);
    let mut world = World::with(json!({
        "containers": [{"name": "c", "image": "web:1", "volumeMounts": [{"name": "t", "mountPath": "/t"}]}],
        "volumes": volumes, "serviceAccountName": "ci",
    }));
    world.run(15);
    assert!(!world.show().contains("k8s_c_p_d_p_0"), "{}", world.show());
    let uid = world.heart.as_ref().unwrap().pods.keys().next().unwrap().clone();
    let token = TokenRef { pod: "p".into(), uid, wish: TokenWish { audience: "vault".into(), seconds: 600 } };
    let wanted = secret("ci", Some(token));
    let text =
        |text: &str| -> BTreeMap<String, ByteString> { [("token".to_owned(), ByteString(text.as_bytes().to_vec()))].into() };
    world.configs.insert(wanted.clone(), text("first"));
    world.run(30);
    assert!(world.show().contains("k8s_c_p_d_p_0 runs"), "{}", world.show());
    world.configs.insert(wanted, text("second one"));
    world.run(400);
    let seen = |world: &World| world.story.lines().filter(|l| l.starts_with("volume")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(seen(&world), ["volume t Files { in_memory: true, files: {\"token\": 5 bytes 0644} }"], "a fresh one stays");
    world.run(200);
    assert_eq!(seen(&world).len(), 2, "after 80 % of its time it is replaced: {:?}", seen(&world));
    assert!(seen(&world)[1].contains("10 bytes"));
}

#[test]
fn a_token_that_nobody_asked_for_may_come_later() {
    let mut spec = one("web:1");
    spec["volumes"] = json!([{"name": "kube-api-access-x", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]}}]);
    let mut world = World::with(spec);
    world.server_away = true;
    world.run(30);
    // Nothing else keeps it from running; the server is told when it is back.
    assert!(
        world.story.contains(r#"volume kube-api-access-x Files { in_memory: true, files: {"namespace": 1 bytes 0644} }"#),
        "{}",
        world.story
    );
    assert_eq!(world.starts[&("p".to_owned(), "c".to_owned())].len(), 1, "{}", world.story);
    let token = TokenRef { pod: "p".into(), uid: "p".into(), wish: TokenWish { audience: String::new(), seconds: 3607 } };
    let text = |key: &str, value: &str| [(key.to_owned(), ByteString(value.into()))].into();
    world.configs.insert(secret("default", Some(token)), text("token", "a.b.c"));
    world.configs.insert(map("kube-root-ca.crt"), text("ca.crt", "pem"));
    world.server_away = false;
    world.run(90);
    let whole = r#"files: {"ca.crt": 3 bytes 0644, "namespace": 1 bytes 0644, "token": 5 bytes 0644}"#;
    assert!(world.story.contains(whole), "{}", world.story);
    assert_eq!(world.starts[&("p".to_owned(), "c".to_owned())].len(), 1);
    world.check();
}
