//! Watches tell the truth (WA1 to WA8), and so does everything else that a client is shown (ST1 to ST6, ST8), while writers write,
//! the disk lags behind, power fails, the past is compacted and readers are slow.
//!
//! One thread under one seed: requests go through [`Api::handle`] and are polled by hand, so what a seed did it does again. Beside it
//! runs a plain model (`model`) that knows what was asked for and nothing of the store. Planted mistakes show that it sees.

mod model;
mod watcher;

use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::super::{Api, Identity, new_uid};
use crate::mutant::{self, Mutant};
use crate::object::admit::{self, Stamp};
use crate::object::robust;
use crate::object::{Draft, Key, Kind, kind_of};
use crate::store::engine::memory::Disk;
use crate::store::{Stepped, Store, Txn};
use model::{Filter, Model, Name, Test, Thing, seen};
use watcher::Watcher;

const NAMESPACES: [&str; 2] = ["default", "shop"];
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const TIERS: [&str; 3] = ["x", "y", ""];
const NODES: [&str; 3] = ["n1", "n2", ""];
const PHASES: [&str; 3] = ["Pending", "Running", "Unknown"];
/// How big the objects are that overtake a sleeping watcher.
const BIG: usize = 2 << 20;

/// All chance of a run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What a request must be answered with.
enum Wanted {
    /// A write that happened, or that must be refused with this code.
    Write { code: u16, revision: u64 },
    /// The object as it was when it was asked for, and the revision that this is known by.
    Got { name: Name, thing: Option<Thing>, revision: u64 },
}

struct Open {
    future: Pin<Box<dyn Future<Output = (u16, Value)>>>,
    what: String,
    wanted: Wanted,
}

/// A list in pages that somebody is in the middle of.
struct Paging {
    filter: Filter,
    limit: usize,
    revision: u64,
    next: String,
    rest: Vec<(Name, Thing)>,
}

struct World {
    dice: Dice,
    disk: Disk,
    store: Store,
    steps: Stepped,
    api: Api,
    /// Stops it in order.
    stop: CancellationToken,
    model: Model,
    open: Vec<Open>,
    watchers: Vec<Watcher>,
    paging: Option<Paging>,
    mark: u64,
    log: Vec<String>,
}

fn api_over(store: &Store) -> (Api, CancellationToken) {
    let now: jiff::Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
    let stop = CancellationToken::new();
    let api = Api::with_authority(store.clone(), Arc::new(move || now), None, stop.clone());
    (api.with_bookmarks_every(std::time::Duration::ZERO), stop)
}

fn kind(plural: &str) -> &'static Kind {
    match plural {
        "pods" => kind_of::<k8s_openapi::api::core::v1::Pod>(),
        _ => kind_of::<k8s_openapi::api::core::v1::ConfigMap>(),
    }
}

fn body_of(name: &Name, thing: &Thing) -> Value {
    let mut value = json!({"metadata": {"name": name.2, "namespace": name.1, "annotations": {"mark": thing.mark.to_string()}}});
    if !thing.tier.is_empty() {
        value["metadata"]["labels"] = json!({"tier": thing.tier});
    }
    if name.0 == "pods" {
        value["spec"] = json!({"containers": [{"name": "c", "image": "i"}]});
        if !thing.node.is_empty() {
            value["spec"]["nodeName"] = thing.node.as_str().into();
        }
    }
    value
}

fn path_of(name: &Name) -> String {
    format!("/api/v1/namespaces/{}/{}/{}", name.1, name.0, name.2)
}

impl World {
    fn new(seed: u64) -> World {
        let disk = Disk::new();
        let (store, mut steps) = Store::stepped(disk.engine()).unwrap();
        let now = "2026-11-21T10:00:00Z".parse().unwrap();
        for name in NAMESPACES {
            let stamp = Stamp { uid: new_uid(), now };
            let mut txn = Txn::new();
            let namespace = kind_of::<k8s_openapi::api::core::v1::Namespace>();
            txn.create(admit::create(namespace, json!({"metadata": {"name": name}}), &stamp).unwrap());
            store.commit(txn).unwrap();
        }
        steps.settle();
        let mut model = Model::default();
        (model.revision, model.durable) = (store.revision(), store.revision());
        let (api, stop) = api_over(&store);
        let dice = Dice(seed);
        World {
            dice,
            disk,
            store,
            steps,
            api,
            stop,
            model,
            open: Vec::new(),
            watchers: Vec::new(),
            paging: None,
            mark: 0,
            log: Vec::new(),
        }
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.log.len() < 4000 {
            self.log.push(text());
        }
    }

    fn request(&self, line: &str, accept: &str, content_type: &str, body: Value) -> impl Future<Output = Response<Body>> + use<> {
        let (method, path) = line.split_once(' ').unwrap();
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("accept", accept)
            .header("content-type", content_type)
            .body(body)
            .unwrap();
        request.extensions_mut().insert(Identity::admin());
        let api = self.api.clone();
        async move { api.handle(request).await }
    }

    /// Sends a request and lets it run as far as it gets; what it is to be answered with is looked at when the answer comes.
    fn send(&mut self, line: String, content_type: &str, body: Value, wanted: impl FnOnce(&mut World) -> Wanted) {
        let answer = self.request(&line, "application/json", content_type, body);
        let future = Box::pin(async move {
            let response = answer.await;
            let code = response.status().as_u16();
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            (code, serde_json::from_slice(&bytes).unwrap())
        });
        let mut open = Open { future, what: line, wanted: Wanted::Write { code: 0, revision: 0 } };
        let done = (&mut open.future).now_or_never();
        open.wanted = wanted(self);
        if self.store.revision() != self.model.revision {
            self.steps.settle();
            let answer = done.or_else(|| (&mut open.future).now_or_never());
            let (is, wanted) = (self.store.revision(), self.model.revision);
            panic!("ST3, ST6: the store is at {is} instead of {wanted} after {}: {answer:?}", open.what);
        }
        let at = self.model.revision;
        self.note(|| format!("{} at {at}", open.what));
        match done {
            Some(answer) => self.answered(&open, answer),
            None => self.open.push(open),
        }
    }

    fn answered(&mut self, open: &Open, (code, value): (u16, Value)) {
        self.model.durable = self.store.durable();
        match &open.wanted {
            Wanted::Write { code: wanted, revision } => {
                assert_eq!(code, *wanted, "{}: {value}", open.what);
                self.model.show(&open.what, *revision);
            }
            Wanted::Got { name, thing: Some(thing), .. } => {
                assert_eq!(code, 200, "{}: {value}", open.what);
                self.model.check(&open.what, &seen(name.0, &value), name, thing);
            }
            Wanted::Got { thing: None, revision, .. } => {
                assert_eq!(code, 404, "{}: {value}", open.what);
                self.model.show(&open.what, *revision);
            }
        }
    }

    /// Lets what waits for the disk go on.
    fn poll(&mut self) {
        self.model.durable = self.store.durable();
        for mut open in std::mem::take(&mut self.open) {
            match (&mut open.future).now_or_never() {
                Some(answer) => self.answered(&open, answer),
                None => self.open.push(open),
            }
        }
    }

    fn name(&mut self) -> Name {
        (self.dice.pick(&["configmaps", "pods"]), self.dice.pick(&NAMESPACES).to_owned(), self.dice.pick(&NAMES).to_owned())
    }

    fn thing(&mut self, name: &Name) -> Thing {
        self.mark += 1;
        let pod = name.0 == "pods";
        Thing {
            born: 0,
            revision: 0,
            tier: self.dice.pick(&TIERS).to_owned(),
            node: if pod { self.dice.pick(&NODES).to_owned() } else { String::new() },
            phase: if pod { "Pending".to_owned() } else { String::new() },
            mark: self.mark,
            status_mark: 0,
        }
    }

    /// The revision of what an answer about this name, as it is now, says.
    fn known(&self, name: &Name) -> u64 {
        self.model.steps.iter().rev().find(|s| s.name == *name).map_or(0, |s| s.revision)
    }

    fn write(&mut self) {
        let name = self.name();
        let path = path_of(&name);
        let old = self.model.now.get(&name).cloned();
        let known = self.known(&name);
        let commit = |world: &mut World, thing: Option<Thing>, code: u16| {
            let revision = world.model.revision + 1;
            world.model.commit(revision, vec![(name.clone(), thing, 0)]);
            Wanted::Write { code, revision }
        };
        let refused = |code: u16| Wanted::Write { code, revision: known };
        match (self.dice.below(10), old) {
            (0..=3, old) => {
                let thing = self.thing(&name);
                let body = body_of(&name, &thing);
                let line = format!("POST {}", path.rsplit_once('/').unwrap().0);
                match old {
                    Some(_) => self.send(line, "application/json", body, |_| refused(409)),
                    None => self.send(line, "application/json", body, |w| commit(w, Some(thing), 201)),
                }
            }
            (4, old) => {
                let query = if self.dice.one_in(2) {
                    "?gracePeriodSeconds=0"
                } else {
                    "?gracePeriodSeconds=0&propagationPolicy=Background"
                };
                let stale = self.dice.one_in(3);
                let body = match &old {
                    Some(old) if self.dice.one_in(2) => {
                        json!({"preconditions": {"resourceVersion": (old.revision - u64::from(stale)).to_string()}})
                    }
                    _ => Value::Null,
                };
                let conflict = stale && !body.is_null();
                self.send(format!("DELETE {path}{query}"), "application/json", body, |w| match old {
                    None => refused(404),
                    Some(_) if conflict => refused(409),
                    Some(_) => commit(w, None, 200),
                });
            }
            (5, Some(old)) if name.0 == "pods" => {
                self.mark += 1;
                let (phase, mark) = (self.dice.pick(&PHASES), self.mark);
                let body = json!({"status": {"phase": phase, "message": mark.to_string()}});
                self.send(format!("PATCH {path}/status"), "application/merge-patch+json", body, |w| {
                    commit(w, Some(Thing { phase: phase.to_owned(), status_mark: mark, ..old }), 200)
                });
            }
            (5 | 6, Some(old)) if name.0 == "configmaps" => {
                let thing = Thing { node: old.node.clone(), phase: old.phase.clone(), ..self.thing(&name) };
                let mut body = body_of(&name, &thing);
                let stale = self.dice.one_in(3);
                body["metadata"]["resourceVersion"] = (old.revision - u64::from(stale)).to_string().into();
                self.send(format!("PUT {path}"), "application/json", body, |w| match stale {
                    true => refused(409),
                    false => commit(w, Some(thing), 200),
                });
            }
            (7, _) if name.0 == "configmaps" => {
                let old = self.model.now.get(&name).cloned();
                let mut thing = self.thing(&name);
                // What an apply does not name stays: a label that others own is not taken away.
                if let Some(old) = &old
                    && thing.tier.is_empty()
                {
                    thing.tier = old.tier.clone();
                }
                let mut body = body_of(&name, &thing);
                body["apiVersion"] = "v1".into();
                body["kind"] = "ConfigMap".into();
                let code = if old.is_some() { 200 } else { 201 };
                self.send(format!("PATCH {path}?fieldManager=m&force=true"), "application/apply-patch+yaml", body, |w| {
                    commit(w, Some(thing), code)
                });
            }
            (_, old) => {
                let new = self.thing(&name);
                let tier = if new.tier.is_empty() { Value::Null } else { new.tier.as_str().into() };
                let (sort, body) = match old.as_ref().map(|o| o.tier.as_str()) {
                    Some("") | None => (
                        "application/merge-patch+json",
                        json!({"metadata": {"labels": {"tier": tier}, "annotations": {"mark": new.mark.to_string()}}}),
                    ),
                    Some(_) => (
                        "application/strategic-merge-patch+json",
                        json!({"metadata": {"labels": {"tier": tier}, "annotations": {"mark": new.mark.to_string()}}}),
                    ),
                };
                self.send(format!("PATCH {path}"), sort, body, |w| match old {
                    None => refused(404),
                    Some(old) => commit(w, Some(Thing { tier: new.tier, mark: new.mark, ..old }), 200),
                });
            }
        }
    }

    /// Several objects at once, as loops do it: without HTTP.
    fn transact(&mut self) {
        let mut txn = Txn::new();
        let mut writes: Vec<(Name, Option<Thing>, usize)> = Vec::new();
        for _ in 0..2 + self.dice.below(3) {
            let name = self.name();
            if writes.iter().any(|(n, ..)| *n == name) {
                continue;
            }
            let key = Key::new(kind(name.0), &name.1, &name.2);
            let found = self.store.get(&key);
            match (found, self.model.now.get(&name).cloned()) {
                (Some(object), Some(_)) if self.dice.one_in(4) => {
                    txn.delete(key, Some(object.revision));
                    writes.push((name, None, 0));
                }
                (Some(object), Some(old)) => {
                    let new = self.thing(&name);
                    let mut value = object.value();
                    value["metadata"]["annotations"]["mark"] = new.mark.to_string().into();
                    value["metadata"]["labels"] = if new.tier.is_empty() { json!({}) } else { json!({"tier": new.tier}) };
                    txn.update(Draft::new(kind(name.0), value), object.revision);
                    writes.push((name, Some(Thing { tier: new.tier, mark: new.mark, ..old }), 0));
                }
                (None, None) => {
                    let new = self.thing(&name);
                    let stamp = Stamp { uid: new_uid(), now: "2026-11-21T10:00:00Z".parse().unwrap() };
                    txn.create(admit::create(kind(name.0), body_of(&name, &new), &stamp).unwrap());
                    writes.push((name, Some(new), 0));
                }
                (found, known) => panic!("ST6: {name:?} is {found:?} and should be {known:?}"),
            }
        }
        if writes.is_empty() {
            return;
        }
        let done = self.store.commit(txn).expect("nobody else writes");
        // Each write has its own revision, and they come one after the other.
        let first = self.model.revision;
        for write in writes {
            self.model.commit(self.model.revision + 1, vec![write]);
        }
        let wanted: Vec<u64> = (first + 1..=self.model.revision).collect();
        assert_eq!(done.objects.iter().map(|o| o.revision).collect::<Vec<_>>(), wanted, "ST3: the revisions of a transaction");
        self.transactions(first);
        self.note(|| format!("transaction {wanted:?}"));
    }

    /// Together or not at all: the model may only lose all of it.
    fn transactions(&mut self, first: u64) {
        let end = self.model.revision;
        for step in self.model.steps.iter_mut().rev().take_while(|s| s.revision > first) {
            step.transaction = end;
        }
    }

    fn get(&mut self) {
        let name = self.name();
        let thing = self.model.now.get(&name).cloned();
        // What came and went and never was on disk was never there, as far as anybody is told.
        let was = self.model.at(self.model.durable).contains_key(&name);
        let revision = if thing.is_some() || was { self.known(&name) } else { 0 };
        self.send(format!("GET {}", path_of(&name)), "", Value::Null, |_| Wanted::Got { name, thing, revision });
    }

    fn filter(&mut self) -> Filter {
        let plural = self.dice.pick(&["configmaps", "pods"]);
        let namespace = self.dice.pick(&["", "", "default", "shop"]);
        let name = match self.dice.below(6) {
            0 if !namespace.is_empty() => Some((self.dice.pick(&NAMES), true)),
            1 => Some((self.dice.pick(&NAMES), false)),
            _ => None,
        };
        let tier = match self.dice.below(8) {
            0 => Test::Is("x"),
            1 => Test::IsNot("x"),
            2 => Test::Among(&["x", "y"]),
            3 => Test::Absent,
            _ => Test::Any,
        };
        let (mut node, mut phase) = (Test::Any, Test::Any);
        if plural == "pods" {
            node = match self.dice.below(6) {
                0 | 1 => Test::Is("n1"),
                2 => Test::IsNot("n1"),
                _ => Test::Any,
            };
            if self.dice.one_in(4) {
                phase = Test::Is("Running");
            }
        }
        Filter { plural, namespace, name, tier, node, phase }
    }

    /// A request that must be answered at once.
    fn now(&self, line: &str, accept: &str) -> Response<Body> {
        self.request(line, accept, "", Value::Null).now_or_never().unwrap_or_else(|| panic!("{line}: it waits for something"))
    }

    fn read(&self, response: Response<Body>) -> Value {
        // A long list lets others go on between its pieces.
        let mut body = std::pin::pin!(response.into_body().collect());
        let bytes = (0..1000).find_map(|_| body.as_mut().now_or_never()).expect("it is all there").unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn list(&mut self) {
        if let Some(paging) = self.paging.take() {
            return self.next_page(paging);
        }
        let mut filter = self.filter();
        filter.name = filter.name.filter(|(_, by_path)| !by_path);
        let (mut revision, mut query) = (self.model.durable, String::new());
        match self.dice.below(5) {
            // Exactly as it was.
            0 if !self.model.steps.is_empty() => {
                let at = self.dice.below(self.model.steps.len());
                revision = self.model.steps[at].revision;
                // In the middle of a transaction nothing was ever like that.
                if revision > self.model.durable || self.model.steps[at].transaction != revision {
                    return;
                }
                query = format!("resourceVersion={revision}&resourceVersionMatch=Exact");
            }
            1 => query = format!("resourceVersion={}", self.model.shown.min(self.model.durable)),
            2 => query = "resourceVersion=0".to_owned(),
            3 => {
                let limit = 1 + self.dice.below(3);
                let rest = self.model.select(&filter, revision);
                return self.next_page(Paging { filter, limit, revision, next: String::new(), rest });
            }
            _ => {}
        }
        let line = format!("GET {}{query}", filter.path());
        let response = self.now(&line, "application/json");
        if response.status() == 410 {
            assert!(revision < self.model.floor, "{line}: 410, and the past begins at {}", self.model.floor);
            return;
        }
        assert_eq!(response.status(), 200, "{line}");
        let value = self.read(response);
        assert_eq!(value["metadata"]["resourceVersion"], revision.to_string(), "WA5: {line}");
        let rest = self.model.select(&filter, revision);
        self.compare(&line, &filter, &value, rest);
        self.model.show(&line, revision);
    }

    fn compare(&mut self, line: &str, filter: &Filter, value: &Value, wanted: Vec<(Name, Thing)>) {
        let items: Vec<_> = value["items"].as_array().unwrap().iter().map(|v| seen(filter.plural, v)).collect();
        let names: Vec<&Name> = items.iter().map(|s| &s.name).collect();
        assert_eq!(names, wanted.iter().map(|(n, _)| n).collect::<Vec<_>>(), "{line}");
        for (item, (name, thing)) in items.iter().zip(&wanted) {
            self.model.check(line, item, name, thing);
        }
    }

    fn next_page(&mut self, mut paging: Paging) {
        let mut line = format!("GET {}limit={}", paging.filter.path(), paging.limit);
        if !paging.next.is_empty() {
            line.push_str(&format!("&continue={}", paging.next));
        }
        let response = self.now(&line, "application/json");
        if response.status() == 410 {
            assert!(paging.revision < self.model.floor, "WA8: {line}: 410, and the past begins at {}", self.model.floor);
            return;
        }
        assert_eq!(response.status(), 200, "{line}");
        let value = self.read(response);
        assert_eq!(value["metadata"]["resourceVersion"], paging.revision.to_string(), "WA8: {line}");
        let rest = paging.rest.split_off(paging.limit.min(paging.rest.len()));
        let page = std::mem::replace(&mut paging.rest, rest);
        self.compare(&format!("WA8: {line}"), &paging.filter, &value, page);
        paging.next = value["metadata"]["continue"].as_str().unwrap_or("").to_owned();
        assert_eq!(paging.next.is_empty(), paging.rest.is_empty(), "WA8: {line}: {value}");
        if !paging.next.is_empty() {
            self.paging = Some(paging);
        }
    }

    fn connect(&mut self, mut watcher: Watcher, after: Option<u64>) {
        let mut line = format!("GET {}watch=true", watcher.filter.path());
        if watcher.bookmarks {
            line.push_str("&allowWatchBookmarks=true");
        }
        let streamed = after.is_none() && self.dice.one_in(3);
        match after {
            Some(after) => line.push_str(&format!("&resourceVersion={after}")),
            None if streamed => line.push_str("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"),
            None if self.dice.one_in(2) => line.push_str("&resourceVersion=0"),
            None => {}
        }
        let accept =
            if watcher.partial { "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1" } else { "application/json" };
        let response = self.now(&line, accept);
        self.note(|| format!("{line}: {}", response.status()));
        match (response.status().as_u16(), after) {
            (200, Some(after)) => watcher.resume(response.into_body(), &self.model, after),
            (200, None) => watcher.begin(response.into_body(), &self.model, streamed && watcher.bookmarks),
            (410, Some(after)) => {
                assert!(after < self.model.floor, "WA3: {line}: 410, and the past begins at {}", self.model.floor);
                // It lists anew.
                return self.connect(Watcher::new(watcher.filter, watcher.partial, watcher.bookmarks), None);
            }
            (code, _) => panic!("{line}: {code}"),
        }
        self.watchers.push(watcher);
    }

    fn watch(&mut self) {
        if self.watchers.len() >= 10 {
            let gone = self.dice.below(self.watchers.len());
            self.watchers.swap_remove(gone);
        }
        let filter = self.filter();
        let watcher = Watcher::new(filter, self.dice.one_in(4), self.dice.one_in(2));
        let after = self.dice.one_in(3).then(|| self.model.durable - self.dice.below(8).min(self.model.durable as usize) as u64);
        self.connect(watcher, after.filter(|r| *r > 0));
    }

    fn resume(&mut self) {
        if self.watchers.is_empty() {
            return;
        }
        let at = self.dice.below(self.watchers.len());
        let mut watcher = self.watchers.swap_remove(at);
        watcher.leave();
        let last = watcher.last;
        // Whoever had not even heard the beginning begins again.
        let after = watcher.knows_all().then_some(last);
        let fresh = match after {
            Some(_) => watcher,
            None => Watcher::new(watcher.filter, watcher.partial, watcher.bookmarks),
        };
        self.connect(fresh, after);
    }

    fn hear(&mut self) {
        if self.watchers.is_empty() {
            return;
        }
        let at = self.dice.below(self.watchers.len());
        let pieces = 1 + self.dice.below(3);
        self.model.durable = self.store.durable();
        self.watchers[at].hear(&mut self.model, pieces);
        if !self.watchers[at].connected() {
            self.resume();
        }
    }

    fn crash(&mut self) {
        self.model.durable = self.store.durable();
        let before = self.model.durable;
        self.open.clear();
        self.paging = None;
        for watcher in &mut self.watchers {
            watcher.leave();
        }
        self.disk = self.disk.crash(self.dice.below(3));
        (self.store, self.steps) = Store::stepped(self.disk.engine()).expect("ST2: what survives a crash opens");
        (self.api, self.stop) = api_over(&self.store);
        // Which of the writes that were on their way made it can only be asked. A state may have been twice: the newest changes decide.
        let mut kept = before;
        for change in self.store.changes(before).expect("what was on disk is not compacted") {
            kept = kept.max(change.transaction);
        }
        let ends = self.model.steps.iter().filter(|s| s.transaction == kept).any(|s| s.revision == kept);
        assert!(kept == before || ends, "ST2: it goes on after {kept}, which is half a transaction");
        assert!(kept >= self.model.shown, "ST1: {} was shown or acknowledged, and {kept} is left", self.model.shown);
        self.note(|| format!("crash at {before}, left is {kept}"));
        self.model.lose(kept, self.store.revision());
        for plural in ["configmaps", "pods"] {
            let filter = Filter { plural, namespace: "", name: None, tier: Test::Any, node: Test::Any, phase: Test::Any };
            let value = self.read(self.now(&format!("GET /api/v1/{plural}"), "application/json"));
            let wanted = self.model.select(&filter, self.model.revision);
            self.compare("ST2: after a crash", &filter, &value, wanted);
        }
        self.come_back();
    }

    /// The server stops in order, and another goes on over the same store. Watchers are told how far they are, whatever waits for them.
    fn restart(&mut self) {
        self.stop.cancel();
        self.model.durable = self.store.durable();
        for watcher in &mut self.watchers {
            for _ in 0..3 {
                watcher.hear(&mut self.model, 10_000);
            }
            assert!(!watcher.connected(), "{:?}: a watch outlives its server", watcher.filter);
        }
        (self.api, self.stop) = api_over(&self.store);
        self.note(|| "restart".to_owned());
        self.come_back();
    }

    /// All watchers go on where they were, or begin again.
    fn come_back(&mut self) {
        for _ in 0..self.watchers.len() {
            let watcher = self.watchers.remove(0);
            match watcher.knows_all() {
                true => {
                    let last = watcher.last;
                    self.connect(watcher, Some(last));
                }
                false => self.connect(Watcher::new(watcher.filter, watcher.partial, watcher.bookmarks), None),
            }
        }
    }

    fn compact(&mut self) {
        let keep = self.dice.below(12) as u64;
        let floor = self.store.revision().saturating_sub(keep);
        self.store.compact(floor);
        self.model.floor = self.model.floor.max(floor.min(self.store.durable()));
        self.note(|| format!("compact {floor}"));
    }

    /// Somebody sleeps while more happens than is kept for him; the others hear it all.
    fn overtake(&mut self) {
        self.settle();
        let filter =
            Filter { plural: "configmaps", namespace: "", name: None, tier: Test::Any, node: Test::Any, phase: Test::Any };
        self.connect(Watcher::new(filter.clone(), false, true), None);
        let mut sleeper = self.watchers.pop().unwrap();
        sleeper.hear(&mut self.model, 100);
        for _ in 0..10 {
            let name: Name = ("configmaps", "shop".to_owned(), "big".to_owned());
            let thing = Thing { tier: "x".to_owned(), ..self.thing(&name) };
            let mut value = body_of(&name, &thing);
            value["data"] = json!({"much": "x".repeat(BIG)});
            let old = self.store.get(&Key::new(kind(name.0), &name.1, &name.2));
            value["metadata"]["uid"] = old.as_ref().map_or_else(new_uid, |o| o.meta.uid.clone()).into();
            let mut txn = Txn::new();
            txn.put(Draft::new(kind(name.0), value));
            self.store.commit(txn).unwrap();
            self.model.commit(self.model.revision + 1, vec![(name, Some(thing), BIG)]);
            self.settle();
        }
        assert!(sleeper.starved(&self.model));
        sleeper.hear(&mut self.model, 10_000);
        assert!(!sleeper.connected(), "WA6: it was not cut off");
        let last = sleeper.last;
        self.connect(sleeper, Some(last));
        let mut txn = Txn::new();
        let name: Name = ("configmaps", "shop".to_owned(), "big".to_owned());
        txn.delete(Key::new(kind(name.0), &name.1, &name.2), None);
        self.store.commit(txn).unwrap();
        self.model.commit(self.model.revision + 1, vec![(name, None, 0)]);
    }

    /// Everything reaches the disk, everybody hears everything.
    fn settle(&mut self) {
        self.steps.settle();
        self.poll();
        assert!(self.open.is_empty(), "everything is on disk, and {} is not answered", self.open[0].what);
        self.model.durable = self.store.durable();
        assert_eq!(self.model.durable, self.model.revision);
        for watcher in &mut self.watchers {
            watcher.hear(&mut self.model, 10_000);
            watcher.must_be_complete(&self.model);
        }
    }

    fn step(&mut self) {
        match self.dice.below(100) {
            0..=29 => self.write(),
            30..=37 => self.transact(),
            38..=43 => self.get(),
            44..=51 => self.list(),
            52..=56 => self.watch(),
            57..=59 => self.resume(),
            60..=76 => self.hear(),
            77..=94 => {
                self.steps.step_some(1 + self.dice.below(3));
                self.poll();
            }
            95 => self.restart(),
            96 => self.crash(),
            97 | 98 => self.compact(),
            _ => self.settle(),
        }
    }
}

/// Runs a seed. An error is what a predicate said.
fn run(seed: u64, steps: usize, mutant: Option<Mutant>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    mutant::planted(mutant, || {
        let log = std::sync::Mutex::new(Vec::new());
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut world = World::new(seed);
            for step in 0..steps {
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    world.step();
                    if step == steps / 2 && seed.is_multiple_of(4) {
                        world.overtake();
                    }
                }));
                if let Err(panic) = done {
                    *log.lock().unwrap() = std::mem::take(&mut world.log);
                    std::panic::resume_unwind(panic);
                }
            }
            world.settle();
        }));
        ran.map_err(|panic| {
            let why = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            let log = log.into_inner().unwrap();
            let tail = log[log.len().saturating_sub(25)..].join("\n  ");
            format!("seed {seed}: {}\n  {tail}", why.unwrap_or_default())
        })
    })
}

/// With `FUZZ=100`, a hundred times as many seeds; `FUZZ_SEED=7` begins with another one.
#[test]
fn watches_and_reads_tell_the_truth() {
    let first = std::env::var("FUZZ_SEED").ok().map_or(0, |seed| seed.parse().expect("FUZZ_SEED is a number"));
    for seed in first..first + 12 * u64::from(robust::times().unwrap_or(1)) {
        run(seed, 1500, None).unwrap_or_else(|why| panic!("{why}"));
    }
}

/// How many seeds a planted mistake may take to show.
const WITHIN: u64 = 24;

#[test]
fn every_planted_mistake_is_found() {
    let missed = || -> Vec<_> {
        mutant::TOLD.iter().filter(|mutant| (0..WITHIN).all(|seed| run(seed, 1500, Some(**mutant)).is_ok())).collect()
    };
    let missed = super::panics::quietly(missed);
    assert!(missed.is_empty(), "not found in {WITHIN} seeds: {missed:?}");
}
