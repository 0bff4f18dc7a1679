//! The crate `kube`: client, watcher, reflector, controller with a finalizer, streams, and two candidates for one Lease.

use std::collections::BTreeSet;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::support::Cluster;

const SPACE: &str = "rust";
const PATIENCE: Duration = Duration::from_secs(60);

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn settings(name: &str, data: Value) -> ConfigMap {
    object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}))
}

fn code(error: &kube::Error) -> (u16, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("no Status: {other}"),
    }
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> F) {
    let looking = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(timeout(PATIENCE, looking).await.is_ok(), "not within {PATIENCE:?}: {what}");
}

/// A cluster with a simulated host, and what is done in it.
fn with_client<F: Future<Output = ()>>(tell: impl FnOnce(Client) -> F) {
    let mut cluster = Cluster::start("127.0.0.1", &[]);
    cluster.start_simulated("n1");
    cluster.await_nodes(1);
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(async {
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let space = object(json!({"metadata": {"name": SPACE}}));
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &space).await.unwrap();
        tell(client).await;
    });
}

#[test]
fn kube_reads_writes_and_patches() {
    with_client(|client| async move {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SPACE);
        let params = PostParams::default();
        let made = maps.create(&params, &settings("a", json!({"k": "v"}))).await.unwrap();
        let again = maps.create(&params, &settings("a", json!({}))).await.unwrap_err();
        assert_eq!(code(&again), (409, "AlreadyExists".to_owned()));
        assert_eq!(code(&maps.get("none").await.unwrap_err()), (404, "NotFound".to_owned()));
        assert!(maps.get_opt("none").await.unwrap().is_none());
        let mut newer = made.clone();
        newer.data.get_or_insert_default().insert("k".to_owned(), "w".to_owned());
        maps.replace("a", &params, &newer).await.unwrap();
        let stale = maps.replace("a", &params, &made).await.unwrap_err();
        assert_eq!(code(&stale), (409, "Conflict".to_owned()));

        let merged = maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"l": "m"}}))).await.unwrap();
        assert_eq!(merged.data.unwrap().len(), 2);
        let mine = PatchParams::apply("mine");
        let applied =
            Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"x": "1"}}));
        let one = maps.patch("b", &mine, &applied).await.unwrap();
        let two = maps.patch("b", &mine, &applied).await.unwrap();
        assert_eq!(one.resource_version(), two.resource_version(), "AP8: applying twice is applying once");
        let other = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"x": "2"}}));
        assert_eq!(maps.patch("b", &PatchParams::apply("theirs"), &other).await.map_err(|e| code(&e).0).unwrap_err(), 409);
        let dry = PatchParams { dry_run: true, ..PatchParams::apply("theirs").force() };
        assert_eq!(maps.patch("b", &dry, &other).await.unwrap().data.unwrap()["x"], "2");
        assert_eq!(maps.get("b").await.unwrap().data.unwrap()["x"], "1");

        let (mut pages, mut token) = (BTreeSet::new(), None);
        loop {
            let mut page = ListParams::default().limit(1);
            page.continue_token = token;
            let list = maps.list(&page).await.unwrap();
            pages.extend(list.items.iter().map(ResourceExt::name_any));
            token = list.metadata.continue_.filter(|t| !t.is_empty());
            if token.is_none() {
                break;
            }
        }
        assert!(pages.contains("a") && pages.contains("b"), "{pages:?}");
        let only_names = maps.list_metadata(&ListParams::default().fields("metadata.name=a")).await.unwrap();
        assert_eq!(only_names.items.len(), 1);
        maps.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
        eventually("all are gone", || async { maps.get_opt("a").await.unwrap().is_none() }).await;
    });
}

#[test]
fn kube_watches_and_reflects() {
    with_client(|client| async move {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SPACE);
        for style in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
            let (reader, writer) = reflector::store();
            let stream = reflector(writer, watcher(maps.clone(), style)).default_backoff().touched_objects();
            let task = tokio::spawn(stream.for_each(|event| {
                event.unwrap();
                ready(())
            }));
            timeout(PATIENCE, reader.wait_until_ready()).await.unwrap().unwrap();
            maps.create(&PostParams::default(), &settings("seen", json!({"n": "0"}))).await.unwrap();
            for n in 1..=20 {
                let patch = Patch::Merge(json!({"data": {"n": n.to_string()}}));
                maps.patch("seen", &PatchParams::default(), &patch).await.unwrap();
            }
            let key = reflector::ObjectRef::new("seen").within(SPACE);
            eventually("the last change is in the cache", || {
                ready(reader.get(&key).is_some_and(|m| m.data.as_ref().unwrap()["n"] == "20"))
            })
            .await;
            maps.delete("seen", &DeleteParams::default()).await.unwrap();
            eventually("it left the cache", || ready(reader.get(&key).is_none())).await;
            task.abort();
        }
    });
}

#[derive(Debug, thiserror::Error)]
#[error("reconcile: {0}")]
struct Failed(#[source] Box<dyn std::error::Error + Send + Sync>);

/// For each ConfigMap that asks for one, a Deployment that it owns; a finalizer counts those that went.
async fn reconcile(map: Arc<ConfigMap>, cx: Arc<(Client, AtomicUsize)>) -> Result<Action, Failed> {
    let boxed = |e: kube::Error| Failed(e.into());
    let maps: Api<ConfigMap> = Api::namespaced(cx.0.clone(), SPACE);
    if !map.data.as_ref().is_some_and(|d| d.contains_key("image")) {
        return Ok(Action::await_change());
    }
    finalizer(&maps, "example.org/farewell", map, |event| async {
        match event {
            Event::Apply(map) => {
                let labels = json!({"app": map.name_any()});
                let owner = kube::Resource::controller_owner_ref(&*map, &()).unwrap();
                let body = json!({
                    "apiVersion": "apps/v1", "kind": "Deployment",
                    "metadata": {"name": map.name_any(), "ownerReferences": [owner]},
                    "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": map.data.as_ref().unwrap()["image"]}]}}},
                });
                let deployments: Api<Deployment> = Api::namespaced(cx.0.clone(), SPACE);
                let params = PatchParams::apply("controller").force();
                deployments.patch(&map.name_any(), &params, &Patch::Apply(body)).await.map_err(boxed)?;
            }
            Event::Cleanup(_) => drop(cx.1.fetch_add(1, Ordering::SeqCst)),
        }
        Ok::<_, Failed>(Action::await_change())
    })
    .await
    .map_err(|e| Failed(Box::new(e)))
}

#[test]
fn kube_controls() {
    with_client(|client| async move {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SPACE);
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), SPACE);
        let cx = Arc::new((client.clone(), AtomicUsize::new(0)));
        let run = Controller::new(maps.clone(), watcher::Config::default())
            .owns(deployments.clone(), watcher::Config::default())
            .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(200)), cx.clone())
            .for_each(|_| ready(()));
        let task = tokio::spawn(run);
        maps.create(&PostParams::default(), &settings("web", json!({"image": "sim/web:1"}))).await.unwrap();
        let complete = await_condition(deployments.clone(), "web", conditions::is_deployment_completed());
        timeout(PATIENCE, complete).await.expect("the Deployment is complete").unwrap();
        // What somebody takes away comes back.
        let first = deployments.get("web").await.unwrap().uid();
        deployments.delete("web", &DeleteParams::default()).await.unwrap();
        eventually("it is back", || async { deployments.get_opt("web").await.unwrap().is_some_and(|d| d.uid() != first) }).await;
        // And it goes with its owner, after the farewell.
        maps.delete("web", &DeleteParams::default()).await.unwrap();
        eventually("the owner is gone", || async { maps.get_opt("web").await.unwrap().is_none() }).await;
        // At least once: a controller whose cache is behind says farewell again.
        assert!(cx.1.load(Ordering::SeqCst) >= 1);
        eventually("what it owned too", || async { deployments.get_opt("web").await.unwrap().is_none() }).await;
        task.abort();
    });
}

#[test]
fn kube_streams() {
    with_client(|client| async move {
        let pods: Api<Pod> = Api::namespaced(client.clone(), SPACE);
        let pod = object(json!({"metadata": {"name": "talker"}, "spec": {"terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "sim/web:1"}]}}));
        pods.create(&PostParams::default(), &pod).await.unwrap();
        timeout(PATIENCE, await_condition(pods.clone(), "talker", conditions::is_pod_running())).await.unwrap().unwrap();
        assert!(!pods.logs("talker", &LogParams::default()).await.unwrap().is_empty());
        let mut process = pods.exec("talker", ["echo", "hello"], &AttachParams::default().stderr(false)).await.unwrap();
        let (mut said, status) = (String::new(), process.take_status().unwrap());
        process.stdout().unwrap().read_to_string(&mut said).await.unwrap();
        assert_eq!(said.trim(), "hello");
        assert_eq!(status.await.unwrap().status.as_deref(), Some("Success"));
        process.join().await.unwrap();
        let mut process = pods.exec("talker", ["exit", "5"], &AttachParams::default().stderr(false)).await.unwrap();
        let status = process.take_status().unwrap().await.unwrap();
        assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"), "{status:?}");

        let mut stream =
            pods.watch(&kube::api::WatchParams::default().fields("metadata.name=talker"), "0").await.unwrap().boxed();
        let first = timeout(PATIENCE, stream.try_next()).await.unwrap().unwrap().unwrap();
        assert!(matches!(first, kube::api::WatchEvent::Added(pod) if pod.name_any() == "talker"));
    });
}

/// Takes the Lease if nobody holds it, in the manner of client-go: read, then write with the version that was read.
async fn stand(leases: &Api<Lease>, name: &str) -> bool {
    let mut lease = leases.get("leader").await.unwrap();
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty()) {
        return false;
    }
    spec.holder_identity = Some(name.to_owned());
    spec.renew_time = Some(MicroTime(jiff::Timestamp::now()));
    match leases.replace("leader", &PostParams::default(), &lease).await {
        Ok(_) => true,
        Err(e) if code(&e).0 == 409 => false,
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn kube_elects_one_leader() {
    with_client(|client| async move {
        let leases: Api<Lease> = Api::namespaced(client.clone(), SPACE);
        for term in 0..20 {
            let lease = object(json!({"metadata": {"name": "leader"}, "spec": {"leaseDurationSeconds": 5}}));
            leases.create(&PostParams::default(), &lease).await.unwrap();
            let candidates = (0..5).map(|n| {
                let leases = leases.clone();
                tokio::spawn(async move { stand(&leases, &format!("c{n}")).await })
            });
            let mut won = 0;
            for candidate in candidates.collect::<Vec<_>>() {
                won += usize::from(candidate.await.unwrap());
            }
            assert_eq!(won, 1, "term {term}");
            leases.delete("leader", &DeleteParams::default()).await.unwrap();
        }
    });
}
