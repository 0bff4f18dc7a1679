//! The record of who asked for what, and how it was answered: one JSON line per stage of a request, in the form of `audit.k8s.io/v1`.
//!
//! Bodies are never in it, of nothing: so no Secret, no token and no configuration can be. Requests wait for the record rather than go
//! unrecorded. Which of them are worth a line is decided here; what they may do is not.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use axum::body::Body;
use futures_util::StreamExt as _;
use http::{Request, Response, header};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::auth::{Identity, LEASE_NAMESPACE, NODES, Why};
use super::authn::Peer;
use super::path::Target;
use super::review::user_info;
use super::{Api, new_uid};
use crate::object::time;

/// Lines that may wait for the disk. Then requests wait too.
const WAITING: usize = 4096;
/// How much of an address and of a client's name is kept, in bytes.
const TEXT_MAX: usize = 4096;

/// Where the record goes.
#[derive(Clone, Debug)]
pub struct Options {
    /// A file, or `-` for standard output.
    pub path: PathBuf,
    /// When a file is set aside and a new one begun, in bytes.
    pub size: u64,
    /// How many files that were set aside are kept.
    pub backups: u32,
}

/// The record, open. Clones write to the same place.
#[derive(Clone)]
pub struct Log {
    sender: mpsc::Sender<Line>,
}

enum Line {
    Text(String),
    /// Tell when everything before is written.
    Flush(oneshot::Sender<()>),
}

impl Log {
    /// Opens the record and starts its writer.
    ///
    /// # Errors
    /// The file cannot be opened for writing.
    pub fn open(options: Options) -> anyhow::Result<Log> {
        let mut out = Out::open(options)?;
        let (sender, mut receiver) = mpsc::channel(WAITING);
        std::thread::Builder::new().name("audit".into()).spawn(move || {
            let mut batch = Vec::new();
            while receiver.blocking_recv_many(&mut batch, 256) > 0 {
                let mut told = Vec::new();
                for line in batch.drain(..) {
                    match line {
                        Line::Text(text) => out.write(&text),
                        Line::Flush(done) => told.push(done),
                    }
                }
                out.flush();
                for done in told {
                    let _ = done.send(());
                }
            }
        })?;
        Ok(Log { sender })
    }

    /// Waits until everything is written.
    pub async fn flush(&self) {
        let (done, told) = oneshot::channel();
        if self.sender.send(Line::Flush(done)).await.is_ok() {
            let _ = told.await;
        }
    }
}

/// A file that is set aside when it is full.
struct Out {
    options: Options,
    file: Option<BufWriter<File>>,
    written: u64,
    failing: bool,
}

impl Out {
    fn open(options: Options) -> anyhow::Result<Out> {
        let mut out = Out { file: None, written: 0, failing: false, options };
        if out.options.path.as_os_str() != "-" {
            out.reopen().with_context(|| format!("open the audit log {}", out.options.path.display()))?;
        }
        Ok(out)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.options.path)?;
        self.written = file.metadata()?.len();
        self.file = Some(BufWriter::with_capacity(64 * 1024, file));
        Ok(())
    }

    fn write(&mut self, line: &str) {
        let done = match &mut self.file {
            Some(file) => file.write_all(line.as_bytes()),
            None => io::stdout().write_all(line.as_bytes()),
        };
        self.written += line.len() as u64;
        self.note(done);
        if self.file.is_some() && self.written >= self.options.size {
            let done = self.rotate();
            self.note(done);
        }
    }

    fn flush(&mut self) {
        let done = match &mut self.file {
            Some(file) => file.flush(),
            None => io::stdout().flush(),
        };
        self.note(done);
    }

    /// `audit.log` becomes `audit.log.1`, and so on; the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        if let Some(mut file) = self.file.take() {
            file.flush()?;
        }
        let path = self.options.path.clone();
        let numbered = |n: u32| backup(&path, n);
        let ignore_missing = |done: io::Result<()>| match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        };
        let moved = (|| {
            for n in (1..self.options.backups).rev() {
                ignore_missing(std::fs::rename(numbered(n), numbered(n + 1)))?;
            }
            if self.options.backups == 0 { std::fs::remove_file(&path) } else { std::fs::rename(&path, numbered(1)) }
        })();
        self.reopen()?;
        moved
    }

    /// Says once that the record cannot be written, and once that it can again.
    fn note(&mut self, done: io::Result<()>) {
        match done {
            Err(error) if !self.failing => {
                tracing::error!(path = %self.options.path.display(), "write the audit log: {error}");
                self.failing = true;
            }
            Ok(()) if self.failing => {
                tracing::info!("the audit log is written again");
                self.failing = false;
            }
            _ => {}
        }
    }
}

/// What is found out about a request on its way.
#[derive(Default)]
pub(super) struct Trail(Option<Box<Mutex<Found>>>);

#[derive(Default)]
struct Found {
    identity: Option<Identity>,
    target: Option<Target>,
    verb: &'static str,
    reason: String,
    long: bool,
}

impl Trail {
    pub(super) fn identity(&self, identity: &Identity) {
        self.with(|found| found.identity = Some(identity.clone()));
    }
    pub(super) fn target(&self, target: &Target, verb: &'static str, long: bool) {
        self.with(|found| (found.target, found.verb, found.long) = (Some(target.clone()), verb, long));
    }
    pub(super) fn allowed(&self, why: &Why) {
        self.with(|found| found.reason = why.reason());
    }
    fn with(&self, note: impl FnOnce(&mut Found)) {
        if let Some(found) = &self.0 {
            note(&mut found.lock());
        }
    }
}

/// A request that is recorded when it is answered.
pub(super) struct Entry {
    log: Log,
    pub(super) trail: Arc<Trail>,
    head: Value,
    received: Timestamp,
}

/// A trail that nobody reads.
pub(super) fn nowhere() -> Arc<Trail> {
    Arc::new(Trail::default())
}

/// Questions after health and version come every second from machines, and say nothing about anybody.
fn silent(path: &str) -> bool {
    ["/healthz", "/livez", "/readyz", "/version", "/cacert"].iter().any(|p| path == *p || path.starts_with(&format!("{p}/")))
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Api {
    /// Begins the record of a request, if there is one to keep.
    pub(super) fn audit(&self, request: &Request<Body>) -> Option<Entry> {
        let log = self.inner.settings.audit.clone().filter(|_| !silent(request.uri().path()))?;
        let received = self.now();
        let uri = request.uri();
        let uri = uri.path_and_query().map_or(uri.path(), |both| both.as_str());
        let agent = request.headers().get(header::USER_AGENT).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        let mut head = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": new_uid(),
            "requestURI": shortened(&without_tokens(uri)),
            "verb": request.method().as_str().to_ascii_lowercase(), "user": {},
            "requestReceivedTimestamp": time::micros(received),
        });
        if let Some(agent) = agent {
            head["userAgent"] = shortened(&agent).into();
        }
        if let Some(Peer(address)) = request.extensions().get::<Peer>() {
            head["sourceIPs"] = json!([address]);
        }
        let trail = Arc::new(Trail(Some(Box::default())));
        Some(Entry { log, trail, head, received })
    }
}

/// An address whose parameters hold no credential.
fn without_tokens(uri: &str) -> String {
    let Some((path, query)) = uri.split_once('?') else { return uri.to_owned() };
    let secret = |name: &str| ["access_token", "token", "id_token", "password"].iter().any(|s| name.eq_ignore_ascii_case(s));
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if secret(name) => format!("{name}=-"),
        _ => pair.to_owned(),
    });
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

impl Entry {
    /// Records an answer, and the end of one that lasts.
    pub(super) async fn answered(self, api: &Api, response: Response<Body>) -> Response<Body> {
        let Some(found) = &self.trail.0 else { return response };
        let found = std::mem::take(&mut *found.lock());
        if beats(&found) {
            return response;
        }
        let mut event = self.head;
        if let Some(identity) = &found.identity {
            let real = identity.by.as_deref().unwrap_or(identity);
            event["user"] = user_info(real);
            if identity.by.is_some() {
                event["impersonatedUser"] = user_info(identity);
            }
        }
        if !found.verb.is_empty() {
            event["verb"] = found.verb.into();
        }
        if let Some(target) = &found.target {
            event["objectRef"] = reference(target);
        }
        let code = response.status().as_u16();
        event["responseStatus"] = json!({"metadata": {}, "code": code});
        if !found.reason.is_empty() {
            event["annotations"] = json!({"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": found.reason});
        } else if code == 403 {
            event["annotations"] = json!({"authorization.k8s.io/decision": "forbid"});
        }
        let (log, received) = (self.log, self.received);
        if !(found.long && code < 300) {
            let _ = log.sender.send(Line::Text(line(event, "ResponseComplete", received, api.now()))).await;
            return response;
        }
        let started = line(event.clone(), "ResponseStarted", received, api.now());
        let _ = log.sender.send(Line::Text(started)).await;
        if code == 101 {
            return response;
        }
        let end = End { log, api: api.clone(), event: Some(event), received };
        let (parts, body) = response.into_parts();
        let pieces = body.into_data_stream().map(move |piece| {
            let _ = &end;
            piece
        });
        Response::from_parts(parts, Body::from_stream(pieces))
    }
}

/// Records the end of a stream when it is dropped, however it ends.
struct End {
    log: Log,
    api: Api,
    event: Option<Value>,
    received: Timestamp,
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            // A drop cannot wait. The beginning is on record.
            let _ = self.log.sender.try_send(Line::Text(line(event, "ResponseComplete", self.received, self.api.now())));
        }
    }
}

/// The heartbeats of hosts: hundreds a second in a large cluster, each like the last.
fn beats(found: &Found) -> bool {
    let node = found.identity.as_ref().is_some_and(|i| i.in_group(NODES));
    node && found.target.as_ref().is_some_and(|t| t.kind.is("coordination.k8s.io", "Lease") && t.namespace == LEASE_NAMESPACE)
}

fn reference(target: &Target) -> Value {
    let mut value = json!({"resource": target.kind.plural, "apiVersion": target.kind.version});
    for (field, text) in [
        ("apiGroup", target.kind.group),
        ("namespace", target.namespace.as_str()),
        ("name", target.name.as_str()),
        ("subresource", target.subresource.as_str()),
    ] {
        if !text.is_empty() {
            value[field] = text.into();
        }
    }
    value
}

fn line(mut event: Value, stage: &str, received: Timestamp, now: Timestamp) -> String {
    event["stage"] = stage.into();
    event["stageTimestamp"] = time::micros(now).into();
    let took = now.duration_since(received).as_secs_f64() * 1000.0;
    event["annotations"]["apiserver.latency.k8s.io/total"] = format!("{took:.3}ms").into();
    let mut text = event.to_string();
    text.push('\n');
    text
}

/// Where a file that was set aside is, the newest first.
fn backup(path: &Path, number: u32) -> PathBuf {
    format!("{}.{number}", path.display()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_set_aside_when_they_are_full() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let log = Log::open(Options { path: path.clone(), size: 1000, backups: 2 }).unwrap();
        for n in 0..100 {
            log.sender.send(Line::Text(format!("{n:099}\n"))).await.unwrap();
        }
        log.flush().await;
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(read(&path), "", "the last one has just been set aside");
        assert!(read(&backup(&path, 1)).ends_with(&format!("{:099}\n", 99)));
        assert_eq!(read(&backup(&path, 2)).len(), 1000);
        assert!(!backup(&path, 3).exists());
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn addresses_keep_no_credential() {
        assert_eq!(without_tokens("/a?x=1&access_token=abc&Token=d&y=2"), "/a?x=1&access_token=-&Token=-&y=2");
        assert_eq!(without_tokens("/a"), "/a");
        assert_eq!(shortened(&"é".repeat(5000)).len(), TEXT_MAX);
    }
}
