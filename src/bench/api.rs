//! The API under load: requests per second, how long each takes, what it costs the server, and how quickly watchers hear.
//!
//! A server process of its own, TLS and the durable store; this process is the load. Both share the machine, so that what is measured is
//! the pair: read the server's CPU time beside the rates.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::figure::part;
use super::house::House;
use super::rest::{TICKS_PER_SECOND, resident, ticks};
use super::{Figure, Options};
use crate::client::Client;

/// Pods that are created, got, listed and watched.
const PODS: usize = 5_000;
/// Clients at once, each with a connection of its own.
const CLIENTS: usize = 16;
/// How long a rate is measured.
const ROUND: Duration = Duration::from_secs(3);
const COLLECTION: &str = "/api/v1/namespaces/default/pods";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

pub(super) async fn run(options: &Options, say: &(dyn Fn(&str) + Sync)) -> Result<Vec<Figure>> {
    let house = House::start(options, &[]).await?;
    let kubeconfig = house.portolan(&["kubeconfig"]).await?;
    let load = Load { server: house.server, kubeconfig, clients: Mutex::default() };
    let mut figures = Vec::new();

    say(&format!("create {PODS} pods"));
    let empty = resident(house.server)?;
    let next = AtomicUsize::new(0);
    let create = async |client: &Client| {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= PODS {
            return Ok(false);
        }
        send(client, "POST", COLLECTION, "", &pod(number)).await.map(|_| true)
    };
    figures.extend(load.measure("create of a pod", Duration::from_secs(600), &create).await?);
    // Memory that the last requests need is given back within a moment.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let full = resident(house.server)?;
    let (_, bytes) = send(&load.client().await?, "GET", COLLECTION, "", &Value::Null).await?;
    figures.push(Figure::new("size of a pod, JSON", "kB").with(bytes as f64 / PODS as f64 / 1e3));
    figures.push(Figure::new("memory per stored pod", "kB").with((full - empty) * 1024.0 * 1.024 / PODS as f64));

    let mut rounds: Vec<Vec<Figure>> = Vec::new();
    for round in 0..options.runs.min(3) {
        say(&format!("get, patch, list: {} of {}", round + 1, options.runs.min(3)));
        let turn = AtomicUsize::new(round);
        let number = || turn.fetch_add(7919, Ordering::Relaxed) % PODS;
        let get = async |client: &Client| {
            send(client, "GET", &format!("{COLLECTION}/pod-{}", number()), "", &Value::Null).await.map(|_| true)
        };
        let mut these = load.measure("get of a pod", ROUND, &get).await?;
        let patch = async |client: &Client| {
            let body = json!({"status": {"phase": "Running", "message": turn.load(Ordering::Relaxed).to_string()}});
            send(client, "PATCH", &format!("{COLLECTION}/pod-{}/status", number()), "", &body).await.map(|_| true)
        };
        these.extend(load.measure("status patch of a pod", ROUND, &patch).await?);
        for (what, accept) in [("list of 5,000 pods, JSON", ""), ("list of 5,000 pods, Table", TABLE)] {
            these.extend(load.alone(what, accept).await?);
        }
        rounds.push(these);
    }
    let mut rounds = rounds.into_iter();
    let mut merged = rounds.next().unwrap_or_default();
    for later in rounds {
        merged.iter_mut().zip(later).for_each(|(figure, more)| figure.add(more.median));
    }
    figures.extend(merged);

    for watchers in [100, 1_000] {
        say(&format!("{watchers} watchers"));
        figures.extend(load.fan_out(watchers).await?);
    }
    Ok(figures)
}

/// A pod of a common size that nobody schedules.
fn pod(number: usize) -> Value {
    let env: Vec<Value> =
        (0..12).map(|i| json!({"name": format!("SETTING_{i}"), "value": "a value of a usual length"})).collect();
    json!({
        "metadata": {"name": format!("pod-{number}"), "labels": {"app": format!("app-{}", number % 100), "tier": "bench"}},
        "spec": {"schedulerName": "nobody", "automountServiceAccountToken": false, "containers": [{
            "name": "main", "image": "registry.example.org/shop/main:1.27.4", "env": env, "ports": [{"containerPort": 8080}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
        }]},
    })
}

/// Sends a request; what was answered, as bytes. Anything but success is an error.
async fn send(client: &Client, method: &str, path: &str, accept: &str, body: &Value) -> Result<(Vec<u8>, usize)> {
    let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
    let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("accept", if accept.is_empty() { "application/json" } else { accept })
        .header("content-type", content)
        .body(kube::client::Body::from(bytes))?;
    let response = client.kube().send(request).await.with_context(|| format!("{method} {path}"))?;
    let code = response.status();
    let answer = response.into_body().collect().await.context("read an answer")?.to_bytes();
    ensure!(code.is_success(), "{method} {path}: {code} {}", String::from_utf8_lossy(&answer));
    let length = answer.len();
    // A list is counted, not kept.
    Ok((if length < 1 << 20 { answer.to_vec() } else { Vec::new() }, length))
}

struct Load {
    server: u32,
    kubeconfig: String,
    /// Connections are made once.
    clients: Mutex<Vec<Client>>,
}

impl Load {
    async fn client(&self) -> Result<Client> {
        Client::from_kubeconfig_text(&self.kubeconfig).await.context("connect")
    }

    /// Lets all clients do something again and again until it says no or the time is over: rate, latency, and the server's CPU time.
    async fn measure(&self, what: &str, time: Duration, act: &impl AsyncFn(&Client) -> Result<bool>) -> Result<Vec<Figure>> {
        let mut clients = std::mem::take(&mut *self.clients.lock().expect("nobody panics with it"));
        while clients.len() < CLIENTS {
            let client = self.client().await?;
            send(&client, "GET", "/version", "", &Value::Null).await?;
            clients.push(client);
        }
        let (before, begin) = (ticks(self.server)?, Instant::now());
        let loops = clients.iter().map(|client| async move {
            let mut took = Vec::new();
            while begin.elapsed() < time {
                let start = Instant::now();
                if !act(client).await? {
                    break;
                }
                took.push(start.elapsed());
            }
            anyhow::Ok(took)
        });
        let mut took: Vec<Duration> = futures_util::future::try_join_all(loops).await?.concat();
        let (wall, cpu) = (begin.elapsed(), ticks(self.server)? - before);
        *self.clients.lock().expect("nobody panics with it") = clients;
        took.sort_unstable();
        ensure!(!took.is_empty(), "{what}: nothing was measured");
        let each = cpu as f64 / TICKS_PER_SECOND / took.len() as f64;
        Ok(vec![
            Figure::new(&format!("{what}, {CLIENTS} clients"), "requests/s").with(took.len() as f64 / wall.as_secs_f64()),
            Figure::new(&format!("{what}, p50"), "ms").with(part(&took, 0.5)),
            Figure::new(&format!("{what}, p99"), "ms").with(part(&took, 0.99)),
            Figure::new(&format!("{what}, server CPU each"), "µs").with(each * 1e6),
        ])
    }

    /// One client lists again and again.
    async fn alone(&self, what: &str, accept: &str) -> Result<Vec<Figure>> {
        let client = self.client().await?;
        send(&client, "GET", "/version", "", &Value::Null).await?;
        let before = ticks(self.server)?;
        let mut took = Vec::new();
        for _ in 0..10 {
            let start = Instant::now();
            send(&client, "GET", COLLECTION, accept, &Value::Null).await?;
            took.push(start.elapsed());
        }
        let cpu = (ticks(self.server)? - before) as f64 / TICKS_PER_SECOND / took.len() as f64;
        took.sort_unstable();
        Ok(vec![
            Figure::new(what, "ms").with(part(&took, 0.5)),
            Figure::new(&format!("{what}, server CPU"), "ms").with(cpu * 1e3),
        ])
    }

    /// So many watchers of all pods, each on a connection of its own, while one client patches: how many events they hear, how late.
    async fn fan_out(&self, count: usize) -> Result<Vec<Figure>> {
        let list = send(&self.client().await?, "GET", &format!("{COLLECTION}?limit=1"), "", &Value::Null).await?.0;
        let list: Value = serde_json::from_slice(&list).context("read a list")?;
        let from = list["metadata"]["resourceVersion"].as_str().context("a list has a revision")?.to_owned();
        let (begin, over) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let mut watchers = Vec::new();
        for _ in 0..count {
            let client = self.client().await?;
            let request =
                http::Request::get(format!("{COLLECTION}?watch=true&resourceVersion={from}")).body(kube::client::Body::empty())?;
            let body = client.kube().send(request).await.context("watch")?.into_body();
            watchers.push(tokio::spawn(hear(body, begin, over.clone())));
        }
        let client = self.client().await?;
        let (before, start) = (ticks(self.server)?, Instant::now());
        let mut sent = 0;
        // Slow enough that a delay is the server's and not that of a queue: about what 100,000 events/s allow.
        let pause = Duration::from_secs_f64((count as f64 / 20_000.0).max(0.005));
        while start.elapsed() < ROUND * 2 {
            let body = json!({"status": {"phase": "Running", "message": begin.elapsed().as_micros().to_string()}});
            send(&client, "PATCH", &format!("{COLLECTION}/pod-{}/status", sent % PODS), "", &body).await?;
            sent += 1;
            tokio::time::sleep(pause).await;
        }
        let wall = start.elapsed();
        tokio::time::sleep(Duration::from_secs(1)).await;
        over.store(true, Ordering::Relaxed);
        let cpu = ticks(self.server)? - before;
        let mut late: Vec<Duration> = Vec::new();
        for watcher in watchers {
            late.extend(watcher.await.context("a watcher")??);
        }
        ensure!(late.len() == sent * count, "{} of {} events arrived", late.len(), sent * count);
        late.sort_unstable();
        let name = |what: &str| format!("{count} watchers, {what}");
        Ok(vec![
            Figure::new(&name("events heard"), "events/s").with(late.len() as f64 / wall.as_secs_f64()),
            Figure::new(&name("write to event, p50"), "ms").with(part(&late, 0.5)),
            Figure::new(&name("write to event, p99"), "ms").with(part(&late, 0.99)),
            Figure::new(&name("server CPU per event"), "µs").with(cpu as f64 / TICKS_PER_SECOND / late.len() as f64 * 1e6),
        ])
    }
}

/// Hears a watch until it is over: how late each event was. Its message says when it was sent.
async fn hear(mut body: kube::client::Body, begin: Instant, over: Arc<AtomicBool>) -> Result<Vec<Duration>> {
    const SENT: &[u8] = b"\"message\":\"";
    let (mut late, mut text) = (Vec::new(), Vec::new());
    loop {
        let frame = tokio::time::timeout(Duration::from_millis(200), body.frame()).await;
        let now = begin.elapsed();
        match frame {
            Err(_) if over.load(Ordering::Relaxed) => return Ok(late),
            Err(_) => continue,
            Ok(None) => anyhow::bail!("the watch ended"),
            Ok(Some(frame)) => text.extend_from_slice(&frame.context("hear an event")?.into_data().unwrap_or_default()),
        }
        while let Some(end) = text.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let at = line.windows(SENT.len()).position(|w| w == SENT).context("an event says when it was sent")? + SENT.len();
            let digits = line[at..].iter().take_while(|b| b.is_ascii_digit()).fold(0, |n, b| n * 10 + u64::from(b - b'0'));
            late.push(now.saturating_sub(Duration::from_micros(digits)));
        }
    }
}
