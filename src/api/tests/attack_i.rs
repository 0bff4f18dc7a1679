//! Attack class I: the machinery of the API. What an upgrade leaves behind, and hosts that redirect, are in `sessions`.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;

use super::sessions::{admin, shop};
use super::tunnelling::{agent_that, raw, real_clock};
use super::*;
use crate::object::custom::names;

/// CVE-2020-8551: what a host measures fills no memory and stops nobody: not one that answers without end, not one that never answers. And
/// no host speaks for the pods of another.
#[tokio::test]
async fn i_hosts_that_lie_about_what_is_used() {
    let w = world();
    real_clock(&w);
    let address = w.listen().await;
    let mut uids = Vec::new();
    for (pod, host) in [("mine", "honest"), ("other", "endless"), ("third", "silent")] {
        uids.push(w.pod_on(pod, host, json!({})).await["metadata"]["uid"].clone());
    }
    let of = |uid: &Value| json!({"uid": uid, "containers": [{"name": "c", "cpu": 1_000_000, "memory": 4096}]});
    let used = json!({"windowSeconds": 1.0, "node": {"cpu": 5, "memory": 1}, "pods": uids.iter().map(of).collect::<Vec<_>>()});
    let honest = w.host("honest").await;
    agent_that(&w, address, "honest", &honest, move |_| {
        let used = used.to_string();
        async { Response::new(Body::from(used)) }
    })
    .await;
    let sent = Arc::new(AtomicUsize::new(0));
    let endless = w.host("endless").await;
    let counting = sent.clone();
    agent_that(&w, address, "endless", &endless, move |_| {
        let counting = counting.clone();
        let pieces = std::iter::repeat_with(move || {
            counting.fetch_add(10_000, Ordering::Relaxed);
            Ok::<_, Infallible>(Bytes::from_static(&[b' '; 10_000]))
        });
        async { Response::new(Body::from_stream(futures_util::stream::iter(pieces))) }
    })
    .await;
    let silent = w.host("silent").await;
    agent_that(&w, address, "silent", &silent, |_| std::future::pending()).await;

    let begin = Instant::now();
    let listed = w.ask("GET /apis/metrics.k8s.io/v1beta1/pods", Value::Null).await;
    assert_eq!(listed.names(), ["mine"], "{}", listed.show());
    assert_eq!(listed.value["items"][0]["containers"][0]["usage"], json!({"cpu": "1000000n", "memory": "4Ki"}));
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(sent.load(Ordering::Relaxed) < 4 << 20, "{} bytes were taken", sent.load(Ordering::Relaxed));
    let one = w.ask("GET /apis/metrics.k8s.io/v1beta1/namespaces/shop/pods/other", Value::Null).await;
    assert_eq!(one.code, 404, "{}", one.show());
    for line in ["POST", "PUT", "PATCH", "DELETE"] {
        let answer = w.ask(&format!("{line} /apis/metrics.k8s.io/v1beta1/namespaces/shop/pods/mine"), json!({})).await;
        assert_eq!(answer.code, 405, "{line}: {}", answer.show());
    }
    assert_eq!(w.ask("GET /apis/metrics.k8s.io/v1beta1/pods?watch=true", Value::Null).await.code, 405);
}

/// CVE-2018-1002105 and its like: a connection becomes something else only where that is served, and only for who may.
#[tokio::test]
async fn i_an_upgrade_is_given_only_where_it_is_served() {
    let (w, address) = shop().await;
    let upgrades = [
        "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n",
        "Connection: Upgrade\r\nUpgrade: portolan-tunnel\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    ];
    for headers in upgrades {
        for (path, wanted) in [
            ("/api/v1/namespaces/shop/pods", "200"),
            ("/api/v1/namespaces/shop/pods/web", "200"),
            ("/apis", "200"),
            ("/healthz", "200"),
            ("/apis/metrics.k8s.io/v1beta1/nodes", "200"),
            ("/api/v1/namespaces/shop/pods/none/exec?command=ls", "40"),
            ("/apis/portolan.dev/v1alpha1/nodes/h1/tunnel", "403"),
        ] {
            let answer = raw(&mut admin(&w, address).await, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {wanted}")), "{path} {headers}: {answer}");
        }
        let joe = w.authority.client("joe", &[]).unwrap();
        let mut joe = w.connect(address, Some((&joe.certificate, &joe.key))).await.unwrap();
        let path = "/api/v1/namespaces/shop/pods/web/exec?command=ls&stdout=true";
        let answer = raw(&mut joe, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{headers}: {answer}");
    }
}

fn kind(n: usize, fields: usize) -> Value {
    let properties: Value = (0..fields).map(|f| (format!("f{f}"), json!({"type": "integer", "default": f}))).collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("k{n}s.many.example")},
        "spec": {
            "group": "many.example", "scope": "Namespaced", "names": {"plural": format!("k{n}s"), "kind": format!("K{n}")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "default": {}, "properties": properties}}}}}],
        },
    })
}

/// CVE-2024-21661, CVE-2025-55191: what many change and read at the same time is never half changed, and nobody waits for ever. Kinds come,
/// change and go while others read what there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i_everybody_at_once() {
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let w = Arc::new(world());
    let done = Arc::new(AtomicBool::new(false));
    let definers = (0..4).map(|n| {
        let w = w.clone();
        tokio::spawn(async move {
            let objects = format!("/apis/many.example/v1/namespaces/shop/k{n}s");
            for round in 1..4 {
                let mut made = w.must(&format!("POST {DEFINITIONS}"), kind(n, round)).await;
                made["status"] = names::status(&made, std::iter::empty(), false, "2026-11-21T10:00:00Z");
                w.must(&format!("PUT {DEFINITIONS}/k{n}s.many.example/status"), made).await;
                for o in 0..3 {
                    let made = w.must(&format!("POST {objects}"), json!({"metadata": {"name": format!("o{o}")}})).await;
                    assert_eq!(made["spec"].as_object().unwrap().len(), round);
                    w.must(&format!("DELETE {objects}/o{o}"), Value::Null).await;
                }
                w.must(&format!("DELETE {DEFINITIONS}/k{n}s.many.example"), Value::Null).await;
                w.must(&format!("PATCH {DEFINITIONS}/k{n}s.many.example"), json!({"metadata": {"finalizers": null}})).await;
                assert_eq!(w.ask(&format!("GET {objects}"), Value::Null).await.code, 404);
            }
        })
    });
    let readers = (0..6).map(|n| {
        let (w, done) = (w.clone(), done.clone());
        tokio::spawn(async move {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                let documents = ["/openapi/v2", "/openapi/v3", "/openapi/v3/apis/many.example/v1", "/apis"];
                let objects = format!("/apis/many.example/v1/namespaces/shop/k{}s", n % 4);
                for path in documents.into_iter().chain([objects.as_str()]) {
                    let answer = w.ask(&format!("GET {path}"), Value::Null).await;
                    assert!(matches!(answer.code, 200 | 404), "{path}: {}", answer.show());
                    count += 1;
                }
            }
            count
        })
    });
    let (definers, readers): (Vec<_>, Vec<_>) = (definers.collect(), readers.collect());
    let all = async {
        for definer in definers {
            definer.await.unwrap();
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.await.unwrap() > 0);
        }
    };
    tokio::time::timeout(Duration::from_secs(300), all).await.expect("somebody waits for ever");
    let left = w.must("GET /openapi/v3", Value::Null).await;
    assert!(left["paths"]["apis/many.example/v1"].is_null(), "{left}");
}
