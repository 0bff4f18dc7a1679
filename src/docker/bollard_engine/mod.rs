//! Docker, over its unix socket.
//!
//! Every call opens its own connection, so a restarted daemon needs no reconnecting, and every call has its own deadline, because a
//! daemon that was stopped in its tracks never answers. Calls go through bollard; streams of logs and sessions through [`raw`].
//!
//! bollard 0.21 sends requests without the version in their path, so the daemon answers at its own newest. The version is negotiated all
//! the same: it costs one call, and a later bollard may send it.

mod errors;
mod raw;
#[cfg(test)]
pub(crate) mod real_tests;
mod translate;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters as query;
use bollard::{API_DEFAULT_VERSION, Docker};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::OnceCell;

use self::errors::{About, check_id, check_reference};
use crate::docker::container::Status;
use crate::docker::{
    Answer, AttachSpec, ContainerSpec, ContainerState, Engine, EngineError, ExecSpec, Flow, Hint, ImageState, ImageSummary, Info,
    LogEntry, LogOptions, Outlook, Progress, RegistryAuth, Resources, Session, Stats, Summary, pause,
};

/// Calls that only look: 0.4 to 60 ms on an idle host.
const LOOK: Duration = Duration::from_secs(15);
/// Calls that change one thing quickly: 10 to 60 ms.
const CHANGE: Duration = Duration::from_secs(60);
/// Starting: 0.1 to 0.8 s, and several times that with many at once on a slow disk.
const START: Duration = Duration::from_secs(120);
/// What stopping may take beyond the container's own time.
const STOP: Duration = Duration::from_secs(60);
/// Loading an image that we bring: 0.7 s for the pause image.
const LOAD: Duration = Duration::from_secs(300);
/// A pull goes on as long as something moves.
const PULL_SILENCE: Duration = Duration::from_secs(60);
/// Longer than any deadline of ours: bollard's own is not wanted, it does not cover the body.
const NEVER: u64 = 24 * 3600;

/// The label of containers that this room starts for its own purposes.
const PROBE_LABEL: &str = "portolan.dev/engine-probe";
/// The score to try: lower than any that a pod gets, but for that of its sandbox, which is this one.
const PROBE_SCORE: i32 = -998;
/// The name of the container that finds out about [`BollardEngine::oom_score_adj`].
const PROBE_NAME: &str = "portolan-engine-probe";

/// A Docker daemon.
pub struct BollardEngine {
    socket: PathBuf,
    docker: OnceCell<Docker>,
    /// Whether the host lets containers be made less likely victims when memory runs out. Found out once.
    may_lower_oom_score: OnceCell<bool>,
    /// What deadlines are divided by: 1 but in tests of them.
    haste: u32,
}

impl BollardEngine {
    /// The daemon behind a socket. Does not connect yet: the daemon may come later.
    pub fn new(socket: impl Into<PathBuf>) -> BollardEngine {
        BollardEngine { socket: socket.into(), docker: OnceCell::new(), may_lower_oom_score: OnceCell::new(), haste: 1 }
    }

    async fn docker(&self) -> Result<&Docker, EngineError> {
        let connect = async {
            let path = self.socket.to_str().ok_or_else(|| EngineError::Refused { message: "socket path is not UTF-8".into() })?;
            let docker = Docker::connect_with_unix(path, NEVER, API_DEFAULT_VERSION)
                .map_err(|error| errors::translate(&error, About::Host))?;
            let negotiated = within("version", LOOK / self.haste, docker.negotiate_version()).await?;
            negotiated.map_err(|error| errors::translate(&error, About::Host))
        };
        self.docker.get_or_try_init(|| connect).await
    }

    /// One call with its deadline.
    async fn call<'a, T, F>(
        &'a self,
        name: &'static str,
        deadline: Duration,
        about: About<'_>,
        call: impl FnOnce(&'a Docker) -> F,
    ) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        match about {
            About::Container(id) => check_id(id)?,
            About::Image(reference) | About::Pull(reference) => check_reference(reference)?,
            About::Create(name, image) => {
                check_id(name)?;
                check_reference(image)?;
            }
            About::Host => {}
        }
        let docker = self.docker().await?;
        within(name, deadline / self.haste, call(docker)).await?.map_err(|error| errors::translate(&error, about))
    }

    /// The value to ask for: a lower one than usual is left out where the host refuses it, because every start would fail.
    async fn oom_score_adj(&self, wanted: Option<i32>) -> Result<Option<i32>, EngineError> {
        let Some(value) = wanted.filter(|value| *value < 0) else { return Ok(wanted) };
        let image = match self.may_lower_oom_score.get() {
            Some(_) => String::new(),
            None => pause::ensure_loaded(self).await?,
        };
        Ok(self.may_lower_oom_score(image).await?.then_some(value))
    }

    /// Whether containers may be made less likely victims than others.
    async fn may_lower_oom_score(&self, image: String) -> Result<bool, EngineError> {
        match self.may_lower_oom_score.get_or_try_init(|| self.probe_oom_score(image)).await {
            Ok(may) => Ok(*may),
            Err(error) if error.outlook() == Outlook::Unknown => Err(error),
            Err(error) => {
                // Nothing starts on this host, whatever is asked: that will be seen, and said, where a pod is started.
                tracing::warn!(%error, "this host could not start a first container");
                Ok(true)
            }
        }
    }

    /// Starts a container with a lowered score, and one without if that fails.
    async fn probe_oom_score(&self, image: String) -> Result<bool, EngineError> {
        let spec = ContainerSpec {
            image,
            labels: [(PROBE_LABEL.to_string(), "oom-score".to_string())].into(),
            network: crate::docker::container::NetworkMode::None,
            ..ContainerSpec::default()
        };
        let lowered = self.probe_start(&spec, Some(PROBE_SCORE)).await;
        match lowered {
            Ok(()) => Ok(true),
            Err(error) if error.outlook() == Outlook::Unknown => Err(error),
            Err(lowered) => {
                self.probe_start(&spec, None).await?;
                tracing::info!("this host does not let containers be spared when memory runs out");
                tracing::debug!(error = %lowered, "a container with a lowered out-of-memory score did not start");
                Ok(false)
            }
        }
    }

    async fn probe_start(&self, spec: &ContainerSpec, oom_score_adj: Option<i32>) -> Result<(), EngineError> {
        // A probe that a crash left behind has the name.
        self.remove(PROBE_NAME, true).await?;
        let id = self.create_as(PROBE_NAME, spec, oom_score_adj).await?;
        let started = self.start(&id).await;
        self.remove(&id, true).await?;
        started
    }

    async fn create_as(&self, name: &str, spec: &ContainerSpec, oom_score_adj: Option<i32>) -> Result<String, EngineError> {
        let options = query::CreateContainerOptions { name: Some(name.into()), ..Default::default() };
        let body = translate::create_body(spec, oom_score_adj);
        let about = About::Create(name, &spec.image);
        let created = self.call("create", CHANGE, about, |docker| docker.create_container(Some(options), body)).await?;
        Ok(created.id)
    }
}

/// Bounds a call.
async fn within<F: Future>(call: &'static str, after: Duration, future: F) -> Result<F::Output, EngineError> {
    tokio::time::timeout(after, future).await.map_err(|_| EngineError::Deadline { call, after })
}

/// A name with a tag or digest: Docker pulls all tags of one that has neither.
fn with_tag(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    if last.contains([':', '@']) { reference.into() } else { format!("{reference}:latest") }
}

/// Adds who we are. bollard writes it in the wrong alphabet, which Docker refuses for some passwords.
fn authenticated(docker: &Docker, auth: &RegistryAuth) -> Docker {
    use base64::Engine as _;
    let value = serde_json::json!({
        "username": auth.username,
        "password": auth.password,
        "serveraddress": auth.server,
        "identitytoken": auth.identity_token,
    });
    let value = base64::engine::general_purpose::URL_SAFE.encode(value.to_string());
    docker.clone().with_request_modifier(move |mut request| {
        if let Ok(mut value) = http::HeaderValue::from_str(&value) {
            value.set_sensitive(true);
            request.headers_mut().insert("X-Registry-Auth", value);
        }
        request
    })
}

/// Reads a stream of progress to its end.
async fn pull_through(
    mut stream: impl Stream<Item = Result<bollard::models::CreateImageInfo, Error>> + Unpin,
    reference: &str,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), EngineError> {
    loop {
        let Ok(next) = tokio::time::timeout(PULL_SILENCE, stream.next()).await else {
            let message = format!("no progress for {} s", PULL_SILENCE.as_secs());
            return Err(EngineError::PullFailed { image: reference.into(), message });
        };
        let Some(next) = next else { return Ok(()) };
        let step = next.map_err(|error| errors::translate(&error, About::Pull(reference)))?;
        let detail = step.progress_detail.unwrap_or_default();
        let bytes = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or_default();
        progress(Progress {
            layer: step.id.unwrap_or_default(),
            message: step.status.unwrap_or_default(),
            current: bytes(detail.current),
            total: bytes(detail.total),
        });
    }
}

async fn open_log(socket: &Path, id: &str, tty: bool, options: &LogOptions) -> Result<Flow<LogEntry>, EngineError> {
    let tail = options.tail.map_or_else(|| "all".to_string(), |tail| tail.to_string());
    let mut path = format!(
        "/containers/{id}/logs?timestamps=1&follow={}&stdout={}&stderr={}&tail={tail}",
        u8::from(options.follow),
        u8::from(options.stdout),
        u8::from(options.stderr)
    );
    if let Some(since) = options.since.filter(|since| *since > jiff::Timestamp::UNIX_EPOCH) {
        path += &format!("&since={}.{:09}", since.as_second(), since.subsec_nanosecond());
    }
    within("logs", LOOK, raw::logs(socket, &path, tty, id)).await?
}

/// A followed log with its end. A daemon may end the stream before it has sent the last lines of a container that just ended; they are
/// in the log all the same, so it is read once more from there.
fn completed(flow: Flow<LogEntry>, socket: PathBuf, id: String, tty: bool, options: LogOptions) -> Flow<LogEntry> {
    struct Follow {
        flow: Flow<LogEntry>,
        rest: Option<(PathBuf, String, bool, LogOptions)>,
        last: Option<jiff::Timestamp>,
    }
    let state = Follow { flow, rest: Some((socket, id, tty, options)), last: None };
    futures_util::stream::unfold(state, |mut state| async move {
        loop {
            match state.flow.next().await {
                Some(Ok(entry)) => {
                    state.last = entry.at.or(state.last);
                    return Some((Ok(entry), state));
                }
                Some(Err(error)) => {
                    state.rest = None;
                    return Some((Err(error), state));
                }
                None => {}
            }
            let (socket, id, tty, options) = state.rest.take()?;
            let since = match state.last {
                Some(last) => Some(last + jiff::SignedDuration::from_nanos(1)),
                // Nothing was shown because nothing older was wanted; where that began is not known.
                None if options.tail.is_some() => return None,
                None => options.since,
            };
            // A container that is gone has no more to say.
            state.flow = open_log(&socket, &id, tty, &LogOptions { follow: false, tail: None, since, ..options }).await.ok()?;
        }
    })
    .boxed()
}

fn filters(name: &str, values: &[String]) -> std::collections::HashMap<String, Vec<String>> {
    [(name.to_string(), values.to_vec())].into()
}

impl Engine for BollardEngine {
    fn info(&self) -> Answer<'_, Info> {
        Box::pin(async move {
            let version = self.call("version", LOOK, About::Host, |docker| docker.version()).await?;
            let info = self.call("info", LOOK, About::Host, |docker| docker.info()).await?;
            Ok(translate::info(version, info))
        })
    }

    fn list<'a>(&'a self, labels: &'a [String]) -> Answer<'a, Vec<Summary>> {
        Box::pin(async move {
            let options =
                query::ListContainersOptions { all: true, filters: Some(filters("label", labels)), ..Default::default() };
            let found = self.call("list", LOOK, About::Host, |docker| docker.list_containers(Some(options))).await?;
            Ok(found.into_iter().map(translate::summary).collect())
        })
    }

    fn inspect<'a>(&'a self, id: &'a str) -> Answer<'a, ContainerState> {
        Box::pin(async move {
            let options = None::<query::InspectContainerOptions>;
            self.call("inspect", LOOK, About::Container(id), |docker| docker.inspect_container(id, options))
                .await
                .map(translate::state)
        })
    }

    fn create<'a>(&'a self, name: &'a str, spec: &'a ContainerSpec) -> Answer<'a, String> {
        Box::pin(async move {
            let oom_score_adj = self.oom_score_adj(spec.oom_score_adj).await?;
            match self.create_as(name, spec, oom_score_adj).await {
                // Somebody tidied up the images, and this one no registry has.
                Err(EngineError::ImageNotFound { .. }) if spec.image == pause::id() || spec.image == pause::name() => {
                    pause::ensure_loaded(self).await?;
                    self.create_as(name, spec, oom_score_adj).await
                }
                other => other,
            }
        })
    }

    fn prepare<'a>(&'a self, image: &'a str) -> Answer<'a, ()> {
        Box::pin(async move { self.may_lower_oom_score(image.into()).await.map(|_| ()) })
    }

    fn start<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let options = None::<query::StartContainerOptions>;
            self.call("start", START, About::Container(id), |docker| docker.start_container(id, options)).await
        })
    }

    fn stop<'a>(&'a self, id: &'a str, grace: u32) -> Answer<'a, ()> {
        Box::pin(async move {
            let options = query::StopContainerOptions { t: Some(i32::try_from(grace).unwrap_or(i32::MAX)), ..Default::default() };
            let deadline = STOP + Duration::from_secs(grace.into());
            self.call("stop", deadline, About::Container(id), |docker| docker.stop_container(id, Some(options))).await
        })
    }

    fn kill<'a>(&'a self, id: &'a str, signal: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let options = query::KillContainerOptions { signal: signal.into() };
            let killed = self.call("kill", CHANGE, About::Container(id), |docker| docker.kill_container(id, Some(options))).await;
            match killed {
                // It has ended already.
                Err(EngineError::Conflict { .. }) => Ok(()),
                other => other,
            }
        })
    }

    fn remove<'a>(&'a self, id: &'a str, force: bool) -> Answer<'a, ()> {
        Box::pin(async move {
            let options = query::RemoveContainerOptions { v: true, force, ..Default::default() };
            let removed =
                self.call("remove", START, About::Container(id), |docker| docker.remove_container(id, Some(options))).await;
            match removed {
                Err(EngineError::NotFound { .. }) => Ok(()),
                other => other,
            }
        })
    }

    fn update<'a>(&'a self, id: &'a str, resources: &'a Resources) -> Answer<'a, ()> {
        Box::pin(async move {
            let body = translate::update_body(resources);
            self.call("update", CHANGE, About::Container(id), |docker| docker.update_container(id, body)).await.map(|_| ())
        })
    }

    fn stats<'a>(&'a self, id: &'a str) -> Answer<'a, Stats> {
        Box::pin(async move {
            // Without one_shot the daemon waits two seconds for a second sample.
            let options = query::StatsOptions { stream: false, one_shot: true };
            let sample = self.call("stats", LOOK, About::Container(id), async |docker| {
                docker.stats(id, Some(options)).next().await.unwrap_or(Err(Error::RequestTimeoutError))
            });
            sample.await.map(translate::stats)
        })
    }

    fn upload<'a>(&'a self, id: &'a str, path: &'a str, tar: Bytes) -> Answer<'a, ()> {
        Box::pin(async move {
            if self.inspect(id).await?.status != Status::Created {
                return Err(EngineError::Refused {
                    message: "files can only be put into a container that was never started".into(),
                });
            }
            let options = query::UploadToContainerOptions { path: path.into(), ..Default::default() };
            let upload = |docker: &'a Docker| docker.upload_to_container(id, Some(options), bollard::body_full(tar));
            self.call("upload", CHANGE, About::Container(id), upload).await
        })
    }

    fn images(&self) -> Answer<'_, Vec<ImageSummary>> {
        Box::pin(async move {
            let options = None::<query::ListImagesOptions>;
            let found = self.call("images", LOOK, About::Host, |docker| docker.list_images(options)).await?;
            let summary = |image: bollard::models::ImageSummary| ImageSummary {
                id: image.id,
                tags: image.repo_tags,
                digests: image.repo_digests,
                size: u64::try_from(image.size).unwrap_or_default(),
            };
            Ok(found.into_iter().map(summary).collect())
        })
    }

    fn image<'a>(&'a self, reference: &'a str) -> Answer<'a, ImageState> {
        Box::pin(async move {
            self.call("image", LOOK, About::Image(reference), |docker| docker.inspect_image(reference))
                .await
                .map(translate::image)
        })
    }

    fn pull<'a>(
        &'a self,
        reference: &'a str,
        auth: Option<&'a RegistryAuth>,
        progress: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> Answer<'a, ImageState> {
        Box::pin(async move {
            check_reference(reference)?;
            let docker = self.docker().await?;
            let docker = auth.map_or_else(|| docker.clone(), |auth| authenticated(docker, auth));
            let name = with_tag(reference);
            let options = query::CreateImageOptions { from_image: Some(name.clone()), ..Default::default() };
            pull_through(docker.create_image(Some(options), None, None).boxed(), reference, progress).await?;
            self.image(&name).await
        })
    }

    fn remove_image<'a>(&'a self, reference: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let options = None::<query::RemoveImageOptions>;
            let removed = self
                .call("remove image", CHANGE, About::Image(reference), |docker| docker.remove_image(reference, options, None))
                .await;
            match removed {
                Err(EngineError::ImageNotFound { .. }) => Ok(()),
                other => other.map(|_| ()),
            }
        })
    }

    fn load(&self, archive: Bytes) -> Answer<'_, ()> {
        Box::pin(async move {
            let options = query::ImportImageOptions { quiet: true, ..Default::default() };
            self.call("load", LOAD, About::Host, async |docker| {
                let mut steps = docker.import_image(options, bollard::body_full(archive), None).boxed();
                while let Some(step) = steps.next().await {
                    step?;
                }
                Ok(())
            })
            .await
        })
    }

    fn logs<'a>(&'a self, id: &'a str, options: &'a LogOptions) -> Answer<'a, Flow<LogEntry>> {
        Box::pin(async move {
            let tty = self.inspect(id).await?.tty;
            let flow = open_log(&self.socket, id, tty, options).await?;
            Ok(if options.follow { completed(flow, self.socket.clone(), id.into(), tty, options.clone()) } else { flow })
        })
    }

    fn exec<'a>(&'a self, id: &'a str, spec: &'a ExecSpec) -> Answer<'a, Session> {
        Box::pin(async move {
            let options = bollard::exec::CreateExecOptions {
                attach_stdin: Some(spec.stdin),
                attach_stdout: Some(spec.stdout),
                attach_stderr: Some(spec.stderr),
                tty: Some(spec.tty),
                cmd: Some(spec.command.clone()),
                ..Default::default()
            };
            let created = self.call("exec", LOOK, About::Container(id), |docker| docker.create_exec(id, options)).await?;
            let path = format!("/exec/{}/start", created.id);
            let body = serde_json::json!({ "Detach": false, "Tty": spec.tty }).to_string().into();
            let (output, input) = within("exec", START, raw::hijack(&self.socket, &path, body, spec.tty, id)).await??;
            if let Some((width, height)) = spec.size.filter(|_| spec.tty) {
                // The program may have ended already.
                let _ = self.resize_exec(&created.id, width, height).await;
            }
            Ok(Session { id: created.id, output, input })
        })
    }

    fn resize_exec<'a>(&'a self, session: &'a str, width: u16, height: u16) -> Answer<'a, ()> {
        Box::pin(async move {
            let options = query::ResizeExecOptions { h: height.into(), w: width.into() };
            self.call("resize", LOOK, About::Container(session), |docker| docker.resize_exec(session, options)).await
        })
    }

    fn exec_exit<'a>(&'a self, session: &'a str) -> Answer<'a, Option<i64>> {
        Box::pin(async move {
            let found = self.call("exec inspect", LOOK, About::Container(session), |docker| docker.inspect_exec(session)).await?;
            Ok(found.exit_code.filter(|_| found.running != Some(true)))
        })
    }

    fn attach<'a>(&'a self, id: &'a str, spec: &'a AttachSpec) -> Answer<'a, Session> {
        Box::pin(async move {
            let state = self.inspect(id).await?;
            if !state.is_alive() {
                return Err(EngineError::Conflict { message: format!("Container {id} is not running") });
            }
            let path = format!(
                "/containers/{}/attach?stream=1&stdin={}&stdout={}&stderr={}",
                state.id,
                u8::from(spec.stdin),
                u8::from(spec.stdout),
                u8::from(spec.stderr)
            );
            let (output, input) = within("attach", LOOK, raw::hijack(&self.socket, &path, Bytes::new(), state.tty, id)).await??;
            Ok(Session { id: state.id, output, input })
        })
    }

    fn resize<'a>(&'a self, id: &'a str, width: u16, height: u16) -> Answer<'a, ()> {
        Box::pin(async move {
            let options = query::ResizeContainerTTYOptions { h: height.into(), w: width.into() };
            self.call("resize", LOOK, About::Container(id), |docker| docker.resize_container_tty(id, options)).await
        })
    }

    fn events<'a>(&'a self, labels: &'a [String]) -> Answer<'a, Flow<Hint>> {
        Box::pin(async move {
            let docker = self.docker().await?;
            let mut filters = filters("label", labels);
            filters.insert("type".into(), vec!["container".into()]);
            let options = query::EventsOptions { filters: Some(filters), ..Default::default() };
            let hints = docker.events(Some(options)).filter_map(|event| async move {
                match event {
                    Err(error) => Some(Err(errors::translate(&error, About::Host))),
                    Ok(event) => {
                        let action = event.action.unwrap_or_default();
                        // Every probe makes three of these.
                        let noise = action.starts_with("exec_") || matches!(action.as_str(), "resize" | "attach" | "top");
                        let container = event.actor.and_then(|actor| actor.id).unwrap_or_default();
                        (!noise).then_some(Ok(Hint { container, action }))
                    }
                }
            });
            Ok(hints.boxed())
        })
    }
}

/// The socket that Docker uses unless told otherwise.
pub fn default_socket() -> &'static Path {
    Path::new("/var/run/docker.sock")
}
