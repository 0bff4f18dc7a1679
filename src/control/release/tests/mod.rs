//! The release loop against a store in memory, with the real workload loops, hosts that do what an image's name says, and a git that
//! says what the test wants.

mod back;
mod many;
mod stories;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use serde_json::{Value, json};

use super::{Ask, Chart, Charts, Contact, ReleaseLoop, Seen, Unread};
use crate::control::{Context, Ids, Loop, Options, loops};
use crate::git::FetchErrorKind;
use crate::object::admit::{self, DeleteOptions, Deletion, Stamp};
use crate::object::ours::{Application, ApplicationStatus, SYSTEM_NAMESPACE};
use crate::object::source::Origin;
use crate::object::{Draft, Key, Kind, Object, Revision, kind_of};
use crate::render::{Located, Problem, Rendered};
use crate::store::{Store, Txn};

/// What git says about one Application.
#[derive(Clone)]
enum Head {
    Objects(String, Vec<Value>),
    Broken(String),
    Away,
}

#[derive(Default)]
struct Repository {
    heads: BTreeMap<Key, Head>,
    asks: BTreeMap<Key, Ask>,
    news: Vec<Key>,
}

/// A git that says what the test wants.
#[derive(Clone, Default)]
struct Git(Arc<Mutex<Repository>>);

impl Charts for Git {
    fn look(&mut self, application: &Key, ask: &Ask) {
        self.0.lock().unwrap().asks.insert(application.clone(), ask.clone());
    }
    fn seen(&self, application: &Key) -> Option<Arc<Seen>> {
        let repository = self.0.lock().unwrap();
        let chart = |commit: &str, rendered| Chart {
            commit: commit.to_owned(),
            subject: format!("subject of {commit}"),
            author: "somebody".to_owned(),
            trailers: if commit.ends_with("retry") { vec![("portolan-retry".to_owned(), "app".to_owned())] } else { Vec::new() },
            rendered,
        };
        let outcome = match repository.heads.get(application)?.clone() {
            Head::Away => Err(Unread { kind: FetchErrorKind::Unreachable, message: "fetch: nobody answers".to_owned() }),
            Head::Broken(commit) => {
                let origin = Origin { file: "web.yaml".into(), line: 3, column: 1 };
                Ok(chart(&commit, Err(vec![Problem { origin, message: "unknown field".to_owned(), hint: None }])))
            }
            Head::Objects(commit, values) => {
                let digest = format!(
                    "{:x}",
                    values
                        .iter()
                        .map(|v| v.to_string())
                        .collect::<String>()
                        .bytes()
                        .fold(7u64, |h, b| { h.wrapping_mul(1_099_511_628_211) ^ u64::from(b) })
                );
                let objects = values.into_iter().enumerate().map(|(n, mut value)| {
                    let kind = Kind::of_value(&value).unwrap();
                    admit::prepare(kind, &mut value);
                    Located::new(Origin { file: "all.yaml".into(), line: n as u32 + 1, column: 1 }, kind, value)
                });
                let mut objects: Vec<Located> = objects.collect();
                objects.sort_by(|a, b| a.key.cmp(&b.key));
                Ok(chart(&commit, Ok(Rendered { objects, digest })))
            }
        };
        let ask = repository.asks.get(application)?.clone();
        Some(Arc::new(Seen { ask, at: Timestamp::UNIX_EPOCH, outcome }))
    }
    fn news(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.0.lock().unwrap().news)
    }
    fn forget(&mut self, application: &Key) {
        self.0.lock().unwrap().asks.remove(application);
    }
}

/// A little cluster with one or more Applications, under a virtual clock.
struct House {
    store: Store,
    now: Timestamp,
    ids: Ids,
    git: Git,
    release: ReleaseLoop,
    others: Vec<Box<dyn Loop>>,
    /// A new release loop, which remembers nothing, before each of its steps.
    forgetful: bool,
    /// Hosts that do not answer.
    silent: Vec<String>,
    /// Images that no registry has any more.
    lost: Vec<String>,
    /// What is checked after each step.
    check: fn(&House),
}

impl House {
    fn new() -> House {
        let git = Git::default();
        let mut house = House {
            store: Store::memory(),
            now: "2026-11-21T00:00:00Z".parse().unwrap(),
            ids: Ids::seeded(1),
            release: ReleaseLoop::new(Box::new(git.clone())),
            git,
            others: loops(&Options::default()),
            forgetful: false,
            silent: Vec::new(),
            lost: Vec::new(),
            check: |_| {},
        };
        for namespace in ["default", SYSTEM_NAMESPACE, "kube-node-lease"] {
            house.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
        }
        for node in ["a", "b", "c"] {
            house.apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}));
            let status = json!({
                "allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": house.now.to_string()}],
            });
            house.edit(&Key::of::<Node>("", node), Some("status"), |v| v["status"] = status);
        }
        // The server has been there for a while, and heard of all hosts.
        house.release_step();
        house.heartbeat();
        house
    }

    /// With one Application, `app`.
    fn with_app(policy: Value) -> House {
        let mut house = House::new();
        house.application("app", json!({"policy": policy}));
        house
    }

    fn application(&mut self, name: &str, mut spec: Value) {
        spec["source"] = json!({"repository": "/srv/repo", "path": name});
        let metadata = json!({"name": name, "namespace": SYSTEM_NAMESPACE});
        self.apply(json!({"apiVersion": "portolan.dev/v1alpha1", "kind": "Application", "metadata": metadata, "spec": spec}));
    }

    fn apply(&mut self, value: Value) {
        let kind = Kind::of_value(&value).expect("a kind");
        let stamp = Stamp { uid: self.ids.uid(), now: self.now };
        let draft = admit::create(kind, value, &stamp).unwrap_or_else(|refused| panic!("{refused}"));
        self.store.commit(Txn::new().create(draft).clone()).unwrap();
    }

    fn edit(&mut self, key: &Key, subresource: Option<&str>, change: impl FnOnce(&mut Value)) {
        let old = self.store.get(key).unwrap_or_else(|| panic!("{key} is there"));
        let mut value = old.value();
        change(&mut value);
        if let Some(draft) = admit::update(&old, value, subresource, self.now).unwrap_or_else(|refused| panic!("{refused}")) {
            self.store.commit(Txn::new().update(draft, old.revision).clone()).unwrap();
        }
    }

    fn delete(&mut self, key: &Key) {
        let old = self.store.get(key).unwrap_or_else(|| panic!("{key} is there"));
        let mut txn = Txn::new();
        match admit::delete(&old, &DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() }, self.now).unwrap() {
            Deletion::Remove => txn.delete(key.clone(), Some(old.revision)),
            Deletion::Mark(draft) => txn.update(draft, old.revision),
            Deletion::Unchanged => return,
        };
        self.store.commit(txn).unwrap();
    }

    fn say(&mut self, application: &str, head: Head) {
        let key = app(application);
        let mut repository = self.git.0.lock().unwrap();
        repository.heads.insert(key.clone(), head);
        repository.news.push(key);
    }
    fn push(&mut self, commit: &str, objects: &[Value]) {
        self.say("app", Head::Objects(commit.to_owned(), objects.to_vec()));
    }

    fn status(&self, application: &str) -> ApplicationStatus {
        self.store.get(&app(application)).unwrap().typed::<Application>().unwrap().status.clone().unwrap_or_default()
    }

    /// One step of the release loop.
    fn release_step(&mut self) {
        if self.forgetful {
            // A process that was away for no time at all: what it was told meanwhile has not passed it by.
            let new = ReleaseLoop::new(Box::new(self.git.clone()));
            let old = std::mem::replace(&mut self.release, new);
            (self.release.born, self.release.last_step) = (old.born, old.last_step);
            let told = ["a", "b", "c"].into_iter().filter(|node| !self.silent.iter().any(|s| s == node));
            let contact = Contact { since: Timestamp::MIN, last: self.now, patience: SignedDuration::from_secs(14) };
            self.release.heard = told.map(|node| (node.to_owned(), contact)).collect();
        }
        let mut cx = Context { store: &self.store, now: self.now, ids: &mut self.ids };
        self.release.step(&mut cx).unwrap_or_else(|conflict| panic!("nobody else writes: {conflict}"));
        self.remembers_what_is();
        (self.check)(self);
    }

    /// What the loop remembers of what it wrote is what it would read.
    fn remembers_what_is(&self) {
        let view = self.store.view();
        for (key, written) in &self.release.written {
            let application = &written.application;
            if let Some(object) = view.get(key).filter(|object| object.revision == written.revision) {
                let read = object.typed::<Application>().unwrap();
                assert_eq!((&read.spec, &read.status), (&application.spec, &application.status), "{key}");
                let canonical = Draft::new(object.key.kind, object.value()).seal(object.revision);
                assert_eq!(canonical.json(), object.json(), "it is written canonically");
            }
        }
        for ((_, release), content) in &self.release.contents {
            let application = app(release.rsplit_once('-').unwrap().0);
            if let Ok(read) = super::record::read(&view, &application, release) {
                assert_eq!(
                    (&read.wanted, &read.digest, read.number),
                    (&content.wanted, &content.digest, content.number),
                    "{release}"
                );
            }
        }
    }

    fn round(&mut self) -> bool {
        let before = self.store.revision();
        self.release_step();
        for body in &mut self.others {
            let mut cx = Context { store: &self.store, now: self.now, ids: &mut self.ids };
            body.step(&mut cx).unwrap_or_else(|conflict| panic!("nobody else writes: {conflict}"));
        }
        (self.check)(self);
        self.hosts();
        (self.check)(self);
        self.store.revision() != before
    }

    fn settle(&mut self) {
        for _ in 0..300 {
            if !self.round() && !self.round() {
                return;
            }
        }
        panic!("does not come to rest:\n{}", self.show());
    }

    /// Lets time pass, a second at a time.
    fn pass(&mut self, seconds: i64) {
        self.settle();
        for _ in 0..seconds {
            self.now += SignedDuration::from_secs(1);
            self.heartbeat();
            self.settle();
        }
    }

    fn heartbeat(&mut self) {
        for node in ["a", "b", "c"] {
            if self.silent.iter().any(|s| s == node) {
                continue;
            }
            let lease = json!({
                "metadata": {"name": node, "namespace": "kube-node-lease", "uid": node},
                "spec": {"renewTime": self.now.to_string()},
            });
            self.store.commit(Txn::new().put(Draft::new(kind_of::<Lease>(), lease)).clone()).unwrap();
        }
    }

    fn list<K>(&self) -> Vec<(Arc<Object>, Arc<K>)>
    where
        K: k8s_openapi::Resource + serde::de::DeserializeOwned + Send + Sync + 'static,
    {
        let view = self.store.view();
        view.list(kind_of::<K>()).map(|o| (o.clone(), o.typed::<K>().unwrap())).collect()
    }

    /// What agents do. An image's name says how it behaves: `crash`, `missing`, `away`, `never`; anything else is ready at once.
    fn hosts(&mut self) {
        for (object, pod) in self.list::<Pod>() {
            let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.clone()) else { continue };
            if self.silent.contains(&node) {
                continue;
            }
            if object.meta.deleting() {
                self.delete(&object.key);
                continue;
            }
            let image = pod.spec.as_ref().and_then(|s| s.containers[0].image.clone()).unwrap_or_default();
            let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or(self.now, |t| t.0);
            let age = self.now.duration_since(started).as_secs();
            let waiting = |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
            let (state, restarts) = match image.split(':').next().unwrap_or("") {
                "crash" => (waiting("CrashLoopBackOff", "back-off"), age.min(3)),
                "missing" => (waiting("ImagePullBackOff", "manifest unknown"), 0),
                "away" => (waiting("ImagePullBackOff", "dial tcp: connection refused"), 0),
                _ if self.lost.contains(&image) => (waiting("ImagePullBackOff", "manifest unknown"), 0),
                "slow" if age < 3 => (waiting("ContainerCreating", ""), 0),
                _ => (json!({"running": {}}), 0),
            };
            let ready = state["running"].is_object() && !image.starts_with("never");
            let mut status = json!({
                "phase": "Running",
                "startTime": stamp(started),
                "containerStatuses": [{
                    "name": pod.spec.as_ref().unwrap().containers[0].name, "image": image,
                    "imageID": if state["running"].is_object() { format!("sha256:{image}") } else { String::new() }, "ready": ready, "restartCount": restarts,
                    "state": state,
                }],
            });
            if restarts > 0 {
                status["containerStatuses"][0]["lastState"] = json!({"terminated": {
                    "exitCode": 3, "reason": "Error", "finishedAt": stamp(self.now), "message": "cannot open the harbour\n",
                }});
            }
            let before = object.value();
            let mut conditions = before["status"]["conditions"].clone();
            let list = conditions.as_array_mut().expect("it was scheduled");
            let word = if ready { "True" } else { "False" };
            let known = list.iter().find(|c| c["type"] == "Ready").cloned();
            list.retain(|c| c["type"] != "Ready");
            let since = known.filter(|k| k["status"] == word).map_or(json!(stamp(self.now)), |k| k["lastTransitionTime"].clone());
            list.push(json!({"type": "Ready", "status": word, "lastTransitionTime": since}));
            status["conditions"] = conditions;
            if before["status"]["containerStatuses"][0]["restartCount"] == restarts
                && before["status"]["conditions"] == status["conditions"]
            {
                continue;
            }
            self.edit(&object.key, Some("status"), |v| v["status"] = status);
        }
    }

    /// Where the Application is, its history, and what runs.
    fn show(&self) -> String {
        let mut text = String::new();
        for (object, application) in self.list::<Application>() {
            let status = application.status.clone().unwrap_or_default();
            let _ = write!(text, "{} {:?} {:?}", object.key.name, status.sync, status.phase);
            for (name, value) in [("good", &status.last_good), ("trial", &status.trial), ("target", &status.target)] {
                if !value.is_empty() {
                    let _ = write!(text, " {name}={value}");
                }
            }
            let _ = writeln!(text, ": {}", status.message);
            for on in &status.waiting_on {
                let _ = writeln!(text, "  waits on {on}");
            }
            for problem in &status.problems {
                let _ = writeln!(text, "  problem {}:{}: {}", problem.file, problem.line, problem.message);
            }
            for (_, release) in super::record::releases(&self.store.view(), &object.key) {
                let status = release.status.clone().unwrap_or_default();
                let verdict = status.verdict.map_or("no verdict".to_owned(), |v| format!("{v:?}"));
                let name = release.metadata.name.clone().unwrap_or_default();
                let _ = writeln!(text, "  {name} {} {:?} {verdict}: {}", release.spec.commit, status.phase, status.message);
            }
        }
        text + &self.running()
    }

    /// What runs, without names that chance gave.
    fn running(&self) -> String {
        let mut text = String::new();
        for (object, map) in self.list::<ConfigMap>() {
            let _ = writeln!(text, "config {} {}", object.key.name, serde_json::to_string(&map.data).unwrap());
        }
        for (object, deployment) in self.list::<Deployment>() {
            let status = deployment.status.clone().unwrap_or_default();
            let image = deployment.spec.template.spec.as_ref().and_then(|s| s.containers[0].image.clone()).unwrap_or_default();
            let available = status.available_replicas.unwrap_or(0);
            let _ =
                writeln!(text, "deployment {} {image} {available}/{}", object.key.name, deployment.spec.replicas.unwrap_or(1));
        }
        let mut pods: BTreeMap<String, usize> = BTreeMap::new();
        for (_, pod) in self.list::<Pod>() {
            let image = pod.spec.as_ref().and_then(|s| s.containers[0].image.clone()).unwrap_or_default();
            *pods.entry(image).or_default() += 1;
        }
        for (image, count) in pods {
            let _ = writeln!(text, "  pods {image} x{count}");
        }
        text
    }

    /// Names and uids of all pods: what a change restarts by mistake is another one.
    fn identities(&self) -> Vec<(Key, String)> {
        self.list::<Pod>().into_iter().map(|(o, _)| (o.key.clone(), o.meta.uid.clone())).collect()
    }

    fn events(&self) -> Vec<String> {
        let mut found: Vec<(Revision, String)> = self
            .list::<k8s_openapi::api::core::v1::Event>()
            .into_iter()
            .filter(|(_, e)| e.source.as_ref().and_then(|s| s.component.as_deref()) == Some("release-controller"))
            .map(|(o, e)| {
                (o.revision, format!("{}: {}", e.reason.clone().unwrap_or_default(), e.message.clone().unwrap_or_default()))
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, text)| text).collect()
    }
}

fn stamp(time: Timestamp) -> String {
    time.to_string()
}

fn app(name: &str) -> Key {
    Key::of::<Application>(SYSTEM_NAMESPACE, name)
}

fn config(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {"key": value}})
}

fn web(image: &str) -> Value {
    deployment("web", image, 3)
}

fn deployment(name: &str, image: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image, "resources": {"requests": {"cpu": "100m"}}}]},
            },
        },
    })
}
