//! Kubernetes over HTTP, serving: who asks, may they, what is asked, and the answer in Kubernetes' own words.
//!
//! A request writes an object and somebody else notices. You will not find controllers here, nor decisions about workloads, nor a clock
//! (whoever starts the API hands one in).
//!
//! ```text
//! tls -> authn -> impersonate -> auth -> path -> read | watch | write | subresource | review | signing | streams | join | discovery
//!     | openapi -> failure -> audit
//! ```

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{Method, Request, Response, request};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::count;
use crate::object::Kind;
use crate::object::custom::{self, Kinds};
use crate::object::kind::{MEASURED, METRICS};
use crate::store::Store;
use audit::Trail;
use auth::rbac::Rbac;
use auth::{Right, Verb, Why};
use authority::Authority;
use failure::{Failure, bytes_response};
use lane::Lane;
use path::{Query, Route, Target};
use tunnel::Tunnels;
use write::Ask;

pub mod audit;
pub mod auth;
pub mod authn;
pub mod authority;
mod body;
mod component;
mod discovery;
mod failure;
mod impersonate;
pub mod join;
mod lane;
mod lasting;
pub mod listen;
mod metrics;
mod openapi;
mod packed;
mod path;
mod protobuf;
mod read;
mod remainder;
mod review;
mod signing;
mod spdy;
mod streams;
mod subresource;
mod table;
pub mod tunnel;
mod usage;
mod watch;
mod write;

#[cfg(test)]
mod tests;

pub use auth::Identity;
pub use failure::Failure as ApiFailure;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How many exec, attach and port-forward sessions may be open at once. Each may hold a few hundred kilobytes.
const SESSIONS: usize = 1000;

/// The API over a store. Cheap to clone: all clones share everything.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    clock: Clock,
    people: Lane,
    /// Agents have a lane of their own: a storm of other clients must not make hosts look dead (LV4).
    nodes: Lane,
    sessions: Arc<Semaphore>,
    authority: Option<Arc<Authority>>,
    tunnels: Tunnels,
    lasting: lasting::Lasting,
    rbac: Rbac,
    node_keys: join::NodeKeys,
    documents: openapi::Documents,
    memory: authn::Memory,
    settings: Settings,
    stopping: CancellationToken,
    /// How often a watch that asked for bookmarks gets one.
    bookmark_every: Duration,
}

/// What an operator may choose.
#[derive(Clone)]
pub struct Settings {
    /// Who the tokens of service accounts say has made them; also the audience that this API is.
    pub issuer: String,
    /// The identity provider whose people may come.
    pub oidc: Option<Arc<authn::oidc::Provider>>,
    /// Where requests are recorded.
    pub audit: Option<audit::Log>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { issuer: authn::account::ISSUER.to_owned(), oidc: None, audit: None }
    }
}

impl Api {
    /// An API over this store. It serves nothing by itself: see [`Api::handle`] and [`Api::router`].
    pub fn new(store: Store, clock: Clock) -> Self {
        Api::with_authority(store, clock, None, CancellationToken::new())
    }

    /// The same with an authority, so that hosts can join. Streams and watches end with `stopping`.
    pub fn with_authority(store: Store, clock: Clock, authority: Option<Arc<Authority>>, stopping: CancellationToken) -> Self {
        Api::with_settings(store, clock, authority, Settings::default(), stopping)
    }

    /// The same with everything that an operator may choose.
    pub fn with_settings(
        store: Store,
        clock: Clock,
        authority: Option<Arc<Authority>>,
        settings: Settings,
        stopping: CancellationToken,
    ) -> Self {
        let (people, nodes) = (Lane::default(), Lane::default());
        let (tunnels, rbac, memory) = (Tunnels::default(), Rbac::default(), authn::Memory::default());
        let documents = openapi::Documents::default();
        let sessions = Arc::new(Semaphore::new(SESSIONS));
        let inner = Inner {
            store,
            clock,
            people,
            nodes,
            sessions,
            authority,
            tunnels,
            lasting: lasting::Lasting::default(),
            rbac,
            node_keys: join::NodeKeys::default(),
            documents,
            memory,
            settings,
            stopping,
            bookmark_every: watch::BOOKMARK_EVERY,
        };
        Api { inner: Arc::new(inner) }
    }

    /// The same with a bookmark whenever a watch has nothing else to say after so long. Before the first clone.
    #[cfg(test)]
    fn with_bookmarks_every(mut self, time: Duration) -> Self {
        Arc::get_mut(&mut self.inner).expect("nobody else has it yet").bookmark_every = time;
        self
    }

    fn authority(&self) -> Option<&Authority> {
        self.inner.authority.as_deref()
    }

    fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The kinds that are served now.
    fn kinds(&self) -> Kinds {
        Kinds::established(self.store().view().list(custom::definitions()))
    }

    fn now(&self) -> Timestamp {
        (self.inner.clock)()
    }

    /// Answers one request. The asker is the [`Identity`] in the request's extensions; without one, only health, version and the
    /// certificate of the authority are served.
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let packs = request.method() == Method::GET && packed::wanted(request.headers());
        let entry = self.audit(&request);
        let trail = entry.as_ref().map_or_else(audit::nowhere, |entry| entry.trail.clone());
        let (request, unread) = remainder::keep(request);
        // A mistake in this program costs one answer, not the connection with everybody else's requests on it.
        let outcome = AssertUnwindSafe(self.route(request, &trail)).catch_unwind().await;
        if !matches!(outcome, Ok(Ok(_))) {
            unread.discard().await;
        }
        let response = match outcome {
            Ok(Ok(response)) if packs => packed::pack(response),
            Ok(Ok(response)) => response,
            Ok(Err(failure)) => failure.response(),
            Err(_) => Failure::internal("the request could not be answered; the server's log says why").response(),
        };
        match entry {
            Some(entry) => entry.answered(self, response).await,
            None => response,
        }
    }

    /// All of the API as one service in which every request comes from `identity`: for tests and clients in the same process.
    pub fn router(&self, identity: Identity) -> axum::Router {
        let api = self.clone();
        axum::Router::new().fallback(move |mut request: Request<Body>| {
            let (api, identity) = (api.clone(), identity.clone());
            async move {
                request.extensions_mut().insert(identity);
                api.handle(request).await
            }
        })
    }

    async fn route(&self, request: Request<Body>, trail: &Trail) -> Result<Response<Body>, Failure> {
        count::REQUESTS.add(1);
        let (parts, body) = request.into_parts();
        let find = |group: &str, version: &str, plural: &str| {
            let measured = || MEASURED.iter().find(|k| (k.group, k.version, k.plural) == (group, version, plural));
            Kind::of_path(group, version, plural).or_else(measured).or_else(|| self.kinds().of_path(group, version, plural))
        };
        let route = Route::parse(parts.uri.path(), &find);
        match &route {
            Ok(Route::Health) => return Ok(bytes_response(200, "text/plain; charset=utf-8", "ok")),
            Ok(Route::Version) => return Ok(discovery::version()),
            Ok(Route::Authority) => {
                let pem = self.authority().map(|a| a.pem().to_owned()).ok_or_else(Failure::no_route)?;
                return Ok(bytes_response(200, "application/x-pem-file", pem));
            }
            _ => {}
        }
        let identity = self.authenticate(&parts).await?;
        if matches!(route, Ok(Route::Join)) {
            return match parts.method {
                Method::POST => self.join(identity, &parts, body).await,
                _ => Err(Failure::method_not_allowed()),
            };
        }
        let identity = identity.ok_or_else(Failure::unauthorized)?.authenticated();
        if let Some(standing) = parts.extensions.get::<Arc<listen::Standing>>() {
            standing.introduced();
        }
        trail.identity(&identity);
        let identity = self.impersonate(identity, &parts.headers)?;
        trail.identity(&identity);
        let query = Query::parse(parts.uri.query().unwrap_or(""))?;
        let only_get = |response: Response<Body>| match parts.method {
            Method::GET | Method::HEAD => Ok(response),
            _ => Err(Failure::method_not_allowed()),
        };
        let route = route?;
        if !matches!(route, Route::Objects(_) | Route::Tunnel(_) | Route::Review(..)) {
            trail.allowed(&self.authorize_path(&identity, &parts.method.as_str().to_ascii_lowercase(), parts.uri.path())?);
        }
        match route {
            Route::Metrics => only_get(self.metrics()),
            Route::CoreVersions => only_get(discovery::root(&parts.headers, &self.kinds(), true)),
            Route::Groups => only_get(discovery::root(&parts.headers, &self.kinds(), false)),
            Route::Group(name) => only_get(discovery::group(&self.kinds(), &name)?),
            Route::Resources { group, version } => only_get(discovery::resources(&self.kinds(), &group, &version)?),
            Route::OpenApi2 => only_get(self.openapi_v2(self.kinds(), &parts.headers).await?),
            Route::OpenApi3 => only_get(self.openapi_v3(self.kinds()).await?),
            Route::OpenApiDocument(path) => {
                only_get(self.openapi_v3_document(self.kinds(), &path, &query, &parts.headers).await?)
            }
            Route::Keys => only_get(self.key_set()?),
            Route::OpenIdConfiguration => only_get(self.openid_configuration()?),
            Route::Review(review, namespace) => {
                self.authorize_review(&identity, review, &namespace)?;
                match parts.method {
                    Method::POST => {
                        let (bytes, _place) = self.inner.people.receive(body).await?;
                        self.review(&identity, review, &namespace, &parts.headers, &bytes).await
                    }
                    _ => Err(Failure::method_not_allowed()),
                }
            }
            Route::Tunnel(node) => self.open_tunnel(&identity, &node, Request::from_parts(parts, body)),
            Route::Objects(target) => {
                let mut response = self.objects(&identity, &target, &query, parts, body, trail).await?;
                // Whoever uses what will go one day is told.
                let warning = target.kind.version_of().and_then(|version| version.warning.clone());
                write::warn(&mut response, warning.as_slice());
                Ok(response)
            }
            _ => Err(Failure::no_route()),
        }
    }

    async fn objects(
        &self,
        identity: &Identity,
        target: &Target,
        query: &Query,
        parts: request::Parts,
        body: Body,
        trail: &Trail,
    ) -> Result<Response<Body>, Failure> {
        let verb = match (&parts.method, target.name.is_empty()) {
            (&Method::GET | &Method::HEAD, _) if query.flag("watch") && target.subresource.is_empty() => Verb::Watch,
            (&Method::GET | &Method::HEAD, true) => Verb::List,
            (&Method::GET | &Method::HEAD, false) => Verb::Get,
            (&Method::POST, true) if target.kind.namespaced != target.namespace.is_empty() => Verb::Create,
            (&Method::POST, false) if !target.subresource.is_empty() => Verb::Create,
            (&Method::PUT, false) => Verb::Update,
            (&Method::PATCH, false) => Verb::Patch,
            (&Method::DELETE, false) => Verb::Delete,
            (&Method::DELETE, true) if target.kind.namespaced != target.namespace.is_empty() => Verb::DeleteCollection,
            _ => return Err(Failure::method_not_allowed()),
        };
        let lasts =
            verb == Verb::Watch || matches!(target.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy");
        trail.target(target, verb.word(), lasts);
        let why = self.authorize(identity, verb, target, query)?;
        trail.allowed(&why);
        // A WebSocket begins with a GET. To act in a container takes the right to create, whichever way it is asked for.
        if verb == Verb::Get && matches!(target.subresource.as_str(), "exec" | "attach" | "portforward") {
            self.authorize(identity, Verb::Create, target, query)?;
        }
        if verb == Verb::Watch && !target.kind.measured() {
            return self.watch(identity, target, query, &parts.headers).await;
        }
        // What lasts ends with the right that it was opened with.
        let held = lasts.then(|| Identity { needs: vec![Right::of(verb, target)], ..identity.clone() });
        let identity = held.as_ref().unwrap_or(identity);
        match target.subresource.as_str() {
            "log" if verb == Verb::Get => return self.log(identity, target, query).await,
            "exec" | "attach" if matches!(verb, Verb::Get | Verb::Create) => {
                return self.session(identity, target, query, parts).await;
            }
            "portforward" if matches!(verb, Verb::Get | Verb::Create) => {
                return self.port_forward(identity, target, query, parts).await;
            }
            "proxy" => return self.proxy(identity, target, parts, body).await,
            _ => {}
        }
        let lane = if identity.host().is_some() { &self.inner.nodes } else { &self.inner.people };
        let (bytes, _place) = match verb {
            Verb::Get | Verb::List => (Bytes::new(), lane.enter().await?),
            _ => lane.receive(body).await?,
        };
        if target.kind.measured() {
            return match target.kind.group {
                METRICS => self.used(verb, target, query).await,
                _ => self.components(verb, target, query, &parts.headers).await,
            };
        }
        let headers = &parts.headers;
        match (verb, target.subresource.as_str()) {
            (Verb::Get, "" | "status" | "ephemeralcontainers") => self.get(target, query, headers).await,
            (Verb::List, "") => self.list(target, query, headers).await,
            _ => {
                let ask = Ask::new(identity, target, query, headers)?;
                let answer = self.write(&ask, verb, &why, &bytes).await;
                if answer.is_err() || ask.options.dry_run {
                    // Such an answer says what is there, too: "already exists". It must not speak of what a crash could take back.
                    self.until_durable(self.store().revision()).await?;
                }
                answer
            }
        }
    }

    async fn write(&self, ask: &Ask<'_>, verb: Verb, why: &Why, bytes: &Bytes) -> Result<Response<Body>, Failure> {
        match (verb, ask.target.subresource.as_str()) {
            (Verb::Create, "") => self.create(ask, bytes).await,
            (Verb::Update, "" | "status" | "ephemeralcontainers") => self.update(ask, bytes).await,
            (Verb::Patch, "" | "status" | "ephemeralcontainers") => self.patch(ask, bytes).await,
            (Verb::Delete, "") => self.delete(ask, bytes).await,
            (Verb::DeleteCollection, "") => self.delete_collection(ask, bytes).await,
            (_, "scale") => self.scale(ask, verb, bytes).await,
            (Verb::Create, "binding") => self.bind(ask, bytes).await,
            (Verb::Create, "token") => self.account_token(ask, why, bytes).await,
            (Verb::Update | Verb::Patch, "approval") => self.approval(ask, verb, bytes).await,
            (Verb::Create, "eviction") => self.evict(ask, bytes).await,
            (Verb::Update, "finalize") => self.finalize(ask, bytes).await,
            _ => Err(Failure::method_not_allowed()),
        }
    }
}

/// A new uid: a version 4 UUID from the operating system's random numbers.
fn new_uid() -> String {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
