//! A real server over TLS, many clients, kill -9 in between: watches, lists and single keys tell the truth (WA1 to WA5, WA8, ST1 to ST4).
//!
//! Clients only write down what they asked and what they were told. Afterwards everything that was ever seen is put in order, and each
//! watch and each list is held against it (`model`, `watcher`: the same plain model that the API's own tests use), and each key's calls
//! against what could have happened one after the other (`linear`).

mod linear;
#[allow(dead_code)] // the API's tests use more of it
#[path = "../../src/api/tests/truth/model.rs"]
mod model;
#[allow(dead_code)]
#[path = "../../src/api/tests/truth/watcher.rs"]
mod watcher;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use super::support::Cluster;
use linear::{Act, Call, Told};
use model::{Filter, Model, Name, Test, Thing, seen};
use watcher::Watcher;

/// How many changes the server keeps: few, so that whoever sleeps has to list again.
const KEEP: usize = 100;
const PLURALS: [&str; 2] = ["configmaps", "secrets"];
const NAMESPACES: [&str; 2] = ["default", "shop"];
const NAMES: [&str; 3] = ["a", "b", "c"];
const TIERS: [&str; 3] = ["x", "y", ""];

/// What everybody writes down.
struct Notes {
    begin: Instant,
    marks: AtomicU64,
    /// The newest revision that anybody was told of.
    told: AtomicU64,
    /// Writers stop.
    stop: AtomicBool,
    /// Watchers hear what is left, and stop.
    finish: AtomicBool,
    calls: Mutex<BTreeMap<Name, Vec<Call>>>,
    facts: Mutex<BTreeMap<u64, Fact>>,
    lists: Mutex<Vec<List>>,
    sessions: Mutex<Vec<Session>>,
    /// Answers that no client should ever get.
    wrong: Mutex<Vec<String>>,
}

/// A name, a uid, and what was there; `None`: it was gone.
type Fact = (Name, String, Option<Thing>);

struct List {
    filter: Filter,
    /// What had been told to somebody when it was asked for.
    told: u64,
    revision: u64,
    items: Vec<Value>,
}

struct Session {
    filter: Filter,
    bookmarks: bool,
    segments: Vec<Segment>,
    expired: usize,
}

/// One watch request.
struct Segment {
    /// `None`: it began with everything there was.
    after: Option<u64>,
    streamed: bool,
    told: u64,
    events: Vec<Value>,
    /// It was opened when nobody wrote any more, and ended in order.
    complete: bool,
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) as usize % n
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

impl Notes {
    fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    /// Something was seen as it is at its revision. Everybody must see the same there.
    fn fact(&self, plural: &'static str, value: &Value, gone: bool) {
        let seen = seen(plural, value);
        let fact = (seen.name, seen.uid, (!gone).then_some(seen.thing.clone()));
        let old = self.facts.lock().unwrap().insert(seen.thing.revision, fact.clone());
        if let Some(old) = old
            && old != fact
        {
            self.wrong.lock().unwrap().push(format!("revision {} is {old:?} and {fact:?}", seen.thing.revision));
        }
        self.told.fetch_max(seen.thing.revision, Ordering::SeqCst);
    }
}

/// Asks, and gives the code and the answer; `None` when there was none.
async fn ask(client: &kube::Client, line: &str, content: &str, body: &Value) -> Option<(u16, Value)> {
    let (method, path) = line.split_once(' ').unwrap();
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string().into_bytes()) };
    let request = http::Request::builder().method(method).uri(path).header("content-type", content).body(body).unwrap();
    let answer = async {
        let response = client.send(request).await.ok()?;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.ok()?.to_bytes();
        Some((code, serde_json::from_slice(&bytes).ok()?))
    };
    tokio::time::timeout(Duration::from_secs(15), answer).await.ok()?
}

async fn connect(kubeconfig: &str) -> kube::Client {
    let kubeconfig = kube::config::Kubeconfig::from_yaml(kubeconfig).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    config.default_retry = false;
    config.read_timeout = None;
    kube::Client::try_from(config).unwrap()
}

async fn write(notes: Arc<Notes>, client: kube::Client, mut dice: Dice) {
    let mut known: BTreeMap<Name, (u64, u64)> = BTreeMap::new();
    while !notes.stop.load(Ordering::SeqCst) {
        let name: Name = (dice.pick(&PLURALS), dice.pick(&NAMESPACES).to_owned(), dice.pick(&NAMES).to_owned());
        let collection = format!("/api/v1/namespaces/{}/{}", name.1, name.0);
        let path = format!("{collection}/{}", name.2);
        let mark = notes.marks.fetch_add(1, Ordering::SeqCst);
        let tier = dice.pick(&TIERS);
        let metadata = json!({"name": name.2, "annotations": {"mark": mark.to_string()},
            "labels": if tier.is_empty() { json!({}) } else { json!({"tier": tier}) }});
        let (line, content, body, act) = match (dice.below(10), known.get(&name)) {
            (0..=2, _) => (format!("POST {collection}"), "application/json", json!({"metadata": metadata}), Act::Create(mark)),
            (3 | 4, Some((read, revision))) => {
                let mut body = json!({"metadata": metadata});
                body["metadata"]["resourceVersion"] = revision.to_string().into();
                (format!("PUT {path}"), "application/json", body, Act::Update { read: *read, write: mark })
            }
            (5 | 6, _) => {
                let labels = json!({"tier": if tier.is_empty() { Value::Null } else { tier.into() }});
                let body = json!({"metadata": {"annotations": {"mark": mark.to_string()}, "labels": labels}});
                (format!("PATCH {path}"), "application/merge-patch+json", body, Act::Patch(mark))
            }
            (7, Some((read, revision))) => {
                let body = json!({"preconditions": {"resourceVersion": revision.to_string()}});
                (format!("DELETE {path}"), "application/json", body, Act::DeleteIf(*read))
            }
            (7, None) => (format!("DELETE {path}"), "application/json", Value::Null, Act::Delete),
            _ => (format!("GET {path}"), "application/json", Value::Null, Act::Get),
        };
        let begin = notes.now();
        let answer = ask(&client, &line, content, &body).await;
        let end = notes.now();
        let mut revision = None;
        if let Some((200 | 201, value)) = &answer
            && value["kind"] != "Status"
        {
            let seen = seen(name.0, value);
            known.insert(name.clone(), (seen.thing.mark, seen.thing.revision));
            notes.fact(name.0, value, false);
            revision = (act != Act::Get).then_some(seen.thing.revision);
        }
        let reason = answer.as_ref().and_then(|(_, v)| v["reason"].as_str()).unwrap_or("");
        let told = match (&answer, act) {
            (Some((200, value)), Act::Get) => Told::Seen(Some(seen(name.0, value).thing.mark)),
            (Some((404, _)), Act::Get) => Told::Seen(None),
            (Some((200 | 201, _)), _) => Told::Done,
            (Some((409, _)), Act::Create(_)) if reason == "AlreadyExists" => Told::Exists,
            (Some((409, _)), Act::Update { .. } | Act::DeleteIf(_)) => Told::Changed,
            (Some((404, _)), _) => Told::Missing,
            // Too many tries, or too many requests: nothing happened.
            (Some((409 | 429, _)), _) => continue,
            (None | Some((503 | 504, _)), _) => {
                // The auditors have to be back first: they must not miss anything.
                tokio::time::sleep(Duration::from_millis(300)).await;
                if act == Act::Get {
                    continue;
                }
                Told::Unknown
            }
            (Some((code, value)), _) => {
                notes.wrong.lock().unwrap().push(format!("{line}: {code} {value}"));
                continue;
            }
        };
        notes.calls.lock().unwrap().entry(name).or_default().push(Call { begin, end, act, told, revision });
    }
}

/// A list, perhaps in pages; its revision. `None`: it could not be had.
async fn list(notes: &Notes, client: &kube::Client, filter: &Filter, limit: usize) -> Option<u64> {
    let told = notes.told.load(Ordering::SeqCst);
    let (mut items, mut next, mut revision) = (Vec::new(), String::new(), 0);
    loop {
        let paging = if limit > 0 { format!("limit={limit}&") } else { String::new() };
        let line = format!("GET {}{paging}continue={next}", filter.path());
        let (code, value) = ask(client, &line, "", &Value::Null).await?;
        match code {
            200 => {}
            410 | 429 | 503 | 504 => return None,
            code => {
                notes.wrong.lock().unwrap().push(format!("{line}: {code} {value}"));
                return None;
            }
        }
        let at = value["metadata"]["resourceVersion"].as_str()?.parse().ok()?;
        if revision != 0 && at != revision {
            notes.wrong.lock().unwrap().push(format!("WA8: {line}: a page of revision {at} after one of {revision}"));
        }
        revision = at;
        let page = value["items"].as_array().cloned().unwrap_or_default();
        page.iter().for_each(|item| notes.fact(filter.plural, item, false));
        items.extend(page);
        next = value["metadata"]["continue"].as_str().unwrap_or("").to_owned();
        if next.is_empty() {
            break;
        }
        // Time for something to happen between the pages.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    notes.told.fetch_max(revision, Ordering::SeqCst);
    notes.lists.lock().unwrap().push(List { filter: filter.clone(), told, revision, items });
    Some(revision)
}

/// How somebody watches.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// Lists, and watches from there. It never misses anything, so what it hears is what happened.
    Auditor,
    ListFirst,
    Streamed,
    FromNow,
    /// Is away for longer than the server remembers.
    Sleeper,
}

async fn watch(notes: Arc<Notes>, client: kube::Client, filter: Filter, style: Style, bookmarks: bool, mut dice: Dice) {
    let mut session = Session { filter: filter.clone(), bookmarks, segments: Vec::new(), expired: 0 };
    let mut last: Option<u64> = None;
    loop {
        let finishing = notes.finish.load(Ordering::SeqCst);
        if last.is_none() && !matches!(style, Style::Streamed | Style::FromNow) {
            last = list(&notes, &client, &filter, dice.pick(&[0, 2])).await;
            if last.is_none() {
                tokio::time::sleep(Duration::from_millis(30)).await;
                continue;
            }
        }
        let seconds = if finishing || style != Style::Auditor { 1 } else { 60 };
        let mut line = format!("{}watch=true&timeoutSeconds={seconds}", filter.path());
        if bookmarks {
            line.push_str("&allowWatchBookmarks=true");
        }
        let streamed = style == Style::Streamed && last.is_none();
        match last {
            Some(after) => line.push_str(&format!("&resourceVersion={after}")),
            None if streamed => line.push_str("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"),
            None => {}
        }
        let mut segment =
            Segment { after: last, streamed, told: notes.told.load(Ordering::SeqCst), events: Vec::new(), complete: false };
        let request = http::Request::get(&line).body(Body::empty()).unwrap();
        let Ok(Ok(response)) = tokio::time::timeout(Duration::from_secs(10), client.send(request)).await else {
            tokio::time::sleep(Duration::from_millis(30)).await;
            continue;
        };
        match response.status().as_u16() {
            200 => {}
            410 => {
                assert!(style != Style::Auditor, "an auditor was away for too long: this run shows nothing");
                session.expired += 1;
                last = None;
                continue;
            }
            429 | 503 | 504 => continue,
            code => notes.wrong.lock().unwrap().push(format!("{line}: {code}")),
        }
        // Who begins with what is there can only go on when it is told where that ends.
        let mut resumable = last.is_some();
        let mut body = response.into_body();
        let mut text = Vec::new();
        loop {
            match body.frame().await {
                Some(Ok(frame)) => text.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(_)) => break,
                None => {
                    segment.complete = finishing;
                    break;
                }
            }
            while let Some(end) = text.iter().position(|b| *b == b'\n') {
                let event: Value = serde_json::from_slice(&text.drain(..=end).collect::<Vec<u8>>()).unwrap();
                let object = &event["object"];
                let revision = object["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse::<u64>().ok());
                match event["type"].as_str().unwrap() {
                    "ERROR" => resumable = false,
                    "BOOKMARK" => {
                        resumable |= !object["metadata"]["annotations"]["k8s.io/initial-events-end"].is_null();
                        last = revision.filter(|_| resumable);
                    }
                    sort => {
                        if sort != "DELETED" || style == Style::Auditor {
                            notes.fact(filter.plural, object, sort == "DELETED");
                        }
                        last = revision.filter(|_| resumable);
                    }
                }
                segment.events.push(event);
            }
            if style == Style::ListFirst && dice.below(4) == 0 {
                tokio::time::sleep(Duration::from_millis(dice.below(20) as u64)).await;
            }
        }
        if !resumable {
            last = None;
        }
        let complete = segment.complete;
        session.segments.push(segment);
        if complete {
            break;
        }
        if style == Style::Sleeper {
            let until = notes.marks.load(Ordering::SeqCst) + 4 * KEEP as u64;
            while notes.marks.load(Ordering::SeqCst) < until && !notes.finish.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    notes.sessions.lock().unwrap().push(session);
}

fn everything(plural: &'static str) -> Filter {
    Filter { plural, namespace: "", name: None, tier: Test::Any, node: Test::Any, phase: Test::Any }
}

fn filters() -> Vec<(Filter, Style)> {
    let maps = everything("configmaps");
    vec![
        (everything("configmaps"), Style::Auditor),
        (everything("secrets"), Style::Auditor),
        (Filter { tier: Test::Is("x"), ..maps.clone() }, Style::ListFirst),
        (Filter { tier: Test::IsNot("x"), namespace: "shop", ..maps.clone() }, Style::Streamed),
        (Filter { tier: Test::Among(&["x", "y"]), ..everything("secrets") }, Style::ListFirst),
        (Filter { tier: Test::Absent, namespace: "default", ..maps.clone() }, Style::FromNow),
        (Filter { namespace: "shop", name: Some(("b", true)), ..maps.clone() }, Style::Streamed),
        (Filter { name: Some(("a", false)), ..everything("secrets") }, Style::FromNow),
        (Filter { namespace: "default", ..maps.clone() }, Style::Sleeper),
        (Filter { namespace: "shop", tier: Test::Is("y"), ..everything("secrets") }, Style::Sleeper),
    ]
}

/// `FUZZ=100` plays it a hundred times, `FUZZ_SEED=7` with other choices.
#[test]
fn wa_st4_a_server_that_is_killed_again_and_again_tells_the_truth() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = number("FUZZ_SEED").unwrap_or(1);
    for seed in first..first + number("FUZZ").unwrap_or(1) {
        eprintln!("FUZZ_SEED={seed}");
        play(seed);
    }
}

fn play(seed: u64) {
    let mut cluster = Cluster::start("127.0.0.1", &["--keep-changes", &KEEP.to_string()]);
    let kubeconfig = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let notes = Arc::new(Notes {
        begin: Instant::now(),
        marks: AtomicU64::new(1),
        told: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        finish: AtomicBool::new(false),
        calls: Mutex::default(),
        facts: Mutex::default(),
        lists: Mutex::default(),
        sessions: Mutex::default(),
        wrong: Mutex::default(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let client = || runtime.block_on(connect(&kubeconfig));
    let made = runtime.block_on(ask(&client(), "POST /api/v1/namespaces", "", &json!({"metadata": {"name": "shop"}})));
    assert_eq!(made.unwrap().0, 201);
    // The auditors are there before anything happens.
    let mut watchers = Vec::new();
    for (n, (filter, style)) in filters().into_iter().enumerate() {
        let dice = Dice(seed * 1000 + n as u64);
        let bookmarks = n % 3 != 2 || style == Style::Streamed;
        watchers.push(runtime.spawn(watch(notes.clone(), client(), filter, style, bookmarks, dice)));
    }
    std::thread::sleep(Duration::from_millis(300));
    let writers: Vec<_> = (0..6).map(|n| runtime.spawn(write(notes.clone(), client(), Dice(seed * 77 + n)))).collect();
    let lister = runtime.spawn({
        let (notes, client) = (notes.clone(), client());
        async move {
            let mut dice = Dice(seed);
            while !notes.stop.load(Ordering::SeqCst) {
                let mut filter = everything(dice.pick(&PLURALS));
                filter.namespace = dice.pick(&["", "shop"]);
                filter.tier = if dice.below(2) == 0 { Test::Is("x") } else { Test::Any };
                list(&notes, &client, &filter, dice.below(4)).await;
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
        }
    });
    for orderly in [false, true, false] {
        busy(&notes, 450);
        if orderly {
            cluster.stop_server()
        } else {
            cluster.kill_server()
        }
        cluster.start_server();
    }
    busy(&notes, 300);
    notes.stop.store(true, Ordering::SeqCst);
    runtime.block_on(async {
        for writer in writers {
            writer.await.unwrap();
        }
        lister.await.unwrap();
        notes.finish.store(true, Ordering::SeqCst);
        for watcher in watchers {
            watcher.await.unwrap();
        }
    });
    drop(cluster);
    judge(&notes);
}

/// Waits until so many more calls were made.
fn busy(notes: &Notes, calls: u64) {
    let (until, end) = (notes.marks.load(Ordering::SeqCst) + calls, Instant::now() + Duration::from_secs(40));
    while notes.marks.load(Ordering::SeqCst) < until && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Holds everything that was told against itself.
fn judge(notes: &Notes) {
    let wrong = notes.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{} answers are wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    let mut model = Model::default();
    for (revision, (name, _, thing)) in notes.facts.lock().unwrap().iter() {
        model.record(*revision, vec![(name.clone(), thing.clone(), 0)]);
    }
    (model.durable, model.floor) = (u64::MAX, u64::MAX);

    // Each watch is told what happened, as it concerns it.
    let (mut events, mut resumed, mut expired) = (0, 0, 0);
    for session in notes.sessions.lock().unwrap().iter() {
        expired += session.expired;
        let mut watcher = Watcher::new(session.filter.clone(), false, session.bookmarks);
        for segment in &session.segments {
            match segment.after {
                Some(after) => {
                    resumed += 1;
                    watcher.resume_at(&model, after);
                }
                None => watcher.begin_at(&model, beginning(&model, session, segment), segment.streamed),
            }
            // That the server stops is said too.
            for event in segment.events.iter().filter(|e| e["object"]["code"] != 503) {
                events += 1;
                watcher.event(&mut model, event);
            }
            if segment.complete {
                watcher.must_know_everything(&model);
            }
        }
    }
    // Each list is everything, as it was at its revision, and no older than what somebody had been told before.
    let lists = notes.lists.lock().unwrap();
    for list in lists.iter() {
        let what = format!("{:?} at {}", list.filter, list.revision);
        assert!(list.revision >= list.told, "WA5: {what}: {} had been told before", list.told);
        let wanted = model.select(&list.filter, list.revision);
        let items: Vec<_> = list.items.iter().map(|v| seen(list.filter.plural, v)).collect();
        assert_eq!(
            items.iter().map(|s| &s.name).collect::<Vec<_>>(),
            wanted.iter().map(|(n, _)| n).collect::<Vec<_>>(),
            "WA8: {what}"
        );
        for (item, (name, thing)) in items.iter().zip(&wanted) {
            model.check(&what, item, name, thing);
        }
    }
    // Each key's calls could have come one after the other.
    let calls = notes.calls.lock().unwrap();
    for (name, calls) in calls.iter() {
        linear::check(calls).unwrap_or_else(|why| panic!("ST4: {name:?}: {why}"));
    }
    let total: usize = calls.values().map(Vec::len).sum();
    let count = |told: Told| calls.values().flatten().filter(|c| c.told == told).count();
    let (done, changed, unknown) = (count(Told::Done), count(Told::Changed), count(Told::Unknown));
    eprintln!(
        "{total} calls ({done} done, {changed} refused as changed, {unknown} unknown), {} lists, {events} events, {resumed} resumed, \
         {expired} expired",
        lists.len()
    );
    // A run in which nothing happened shows nothing.
    assert!(done > 100 && changed > 5 && unknown > 0 && lists.len() > 10 && events > 200 && resumed > 10);

    // And the search sees: one lie among the answers, and no order fits.
    let mut lies = 0;
    for calls in calls.values() {
        let writes: Vec<usize> =
            (0..calls.len()).filter(|at| calls[*at].told == Told::Done && matches!(calls[*at].act, Act::Update { .. })).collect();
        let Some(at) = writes.get(writes.len() / 2) else { continue };
        let Act::Update { read, .. } = calls[*at].act else { continue };
        let mut lie = calls.clone();
        // After the update was acknowledged, somebody still sees what it replaced.
        let end = calls[*at].end;
        lie.push(Call { begin: end + 1, end: end + 2, act: Act::Get, told: Told::Seen(Some(read)), revision: None });
        assert!(linear::check(&lie).is_err(), "a stale read was not seen");
        lies += 1;
    }
    assert!(lies > 0);
}

/// At which revision a watch that named none began: the one from which what it was told is what happened.
fn beginning(model: &Model, session: &Session, segment: &Segment) -> u64 {
    let filter = &session.filter;
    // The mark at the end of what was there says where that was.
    let mark = segment.events.iter().find(|e| !e["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"].is_null());
    if let Some(mark) = mark.filter(|_| segment.streamed) {
        return mark["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    }
    let events: Vec<(&str, Name, u64)> = segment
        .events
        .iter()
        .filter(|e| matches!(e["type"].as_str(), Some("ADDED" | "MODIFIED" | "DELETED")))
        .map(|e| (e["type"].as_str().unwrap(), seen(filter.plural, &e["object"])))
        .map(|(sort, seen)| (sort, seen.name, seen.thing.revision))
        .collect();
    let fits = |revision: u64| {
        let there = model.select(filter, revision).into_iter().map(|(name, thing)| ("ADDED", name, thing.revision));
        let steps = model.steps[model.place(revision)..].iter();
        let then = steps.filter_map(|s| model::told(filter, s).map(|(sort, thing)| (sort, s.name.clone(), thing.revision)));
        // Before the mark nothing is told that came later.
        let mut wanted = there.chain(then.filter(|_| !segment.streamed));
        events.iter().all(|event| wanted.next().as_ref() == Some(event))
    };
    let revisions = model.steps.iter().map(|s| s.revision).filter(|r| *r > segment.told);
    std::iter::once(segment.told)
        .chain(revisions)
        .find(|revision| fits(*revision))
        .unwrap_or_else(|| panic!("WA1: {filter:?}: from no revision on happened what it was told: {events:?}"))
}
