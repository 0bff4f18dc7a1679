//! Calls a Kubernetes API server: ours, or any other.
//!
//! Built on the kube crate. Connects, reads, writes, and watches with resume. Knows nothing of the store: to this room, the server is
//! somewhere else even when it runs in the same process.

mod items;
mod watch;

pub use items::Items;

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::Method;
use http_body_util::BodyExt;
use k8s_openapi::Resource;
use kube::client::Body;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Who we are to the server.
#[derive(Clone, Default)]
pub enum Identity {
    /// Nobody.
    #[default]
    Anonymous,
    /// A bearer token.
    Token(String),
    /// A client certificate and its key, PEM.
    Certificate {
        /// The certificate, PEM.
        certificate: String,
        /// The private key, PEM.
        key: String,
    },
}

/// Where the server is, and who we are to it.
#[derive(Clone, Default)]
pub struct Access {
    /// `https://host:port`.
    pub server: String,
    /// The certificate authority of the server, PEM; `None` trusts what the host trusts.
    pub authority: Option<String>,
    /// Who we are.
    pub identity: Identity,
    /// The namespace for objects that name none.
    pub namespace: Option<String>,
    /// The name under which changes are recorded (`fieldManager`).
    pub manager: String,
}

/// A connection to a server.
#[derive(Clone)]
pub struct Client {
    kube: kube::Client,
    manager: String,
    namespace: String,
}

/// What a watch says.
#[derive(Clone, Debug)]
pub enum Event<K> {
    /// Everything there is, now: whatever is not in it is gone.
    All(Vec<K>),
    /// Added or changed.
    Put(K),
    /// Deleted.
    Gone(K),
}

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with an error.
    #[error("{message}")]
    Status {
        /// The HTTP code.
        code: u16,
        /// Kubernetes' word for it, such as `NotFound`, `Conflict`, `AlreadyExists`, `Expired`.
        reason: String,
        /// What the server said.
        message: String,
    },
    /// The server did not answer, or not in time. It may or may not have acted.
    #[error("reach the server")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer, or what we wanted to send, makes no sense.
    #[error("read the server's answer")]
    Garbled(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The configuration does not allow to connect.
    #[error("set up the connection")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether the server said that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Status { code: 404, .. })
    }
    /// Whether the server said that it changed meanwhile, or exists already.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Error::Status { code: 409, .. })
    }
}

/// How long any request may take that is no stream.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

impl Client {
    /// Connects lazily: no request is made yet.
    pub fn connect(access: Access) -> Result<Client, Error> {
        let server: http::Uri = access.server.parse().map_err(setup)?;
        let mut config = kube::Config::new(server);
        if let Some(authority) = &access.authority {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(authority.as_bytes()).collect();
            config.root_cert = Some(certificates.map_err(setup)?.into_iter().map(|c| c.to_vec()).collect());
        }
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let auth = match &access.identity {
            Identity::Anonymous => json!({}),
            Identity::Token(token) => json!({ "token": token }),
            Identity::Certificate { certificate, key } => {
                json!({ "client-certificate-data": base64(certificate), "client-key-data": base64(key) })
            }
        };
        config.auth_info = serde_json::from_value(auth).map_err(setup)?;
        config.default_namespace = access.namespace.unwrap_or_else(|| "default".to_owned());
        let manager = if access.manager.is_empty() { "portolan".to_owned() } else { access.manager };
        Client::of(config, manager)
    }
    /// Anonymously, and without checking who answers: for the one request whose answer is checked by its fingerprint.
    pub fn connect_unverified(server: &str) -> Result<Client, Error> {
        let mut config = kube::Config::new(server.parse().map_err(setup)?);
        config.accept_invalid_certs = true;
        Client::of(config, "portolan".to_owned())
    }
    /// By a kubeconfig file and, unless it is the current one, a context.
    pub async fn from_kubeconfig(path: &Path, context: Option<&str>) -> Result<Client, Error> {
        let kubeconfig = kube::config::Kubeconfig::read_from(path).map_err(setup)?;
        Client::from_parsed(kubeconfig, context).await
    }
    /// By a kubeconfig's text.
    pub async fn from_kubeconfig_text(yaml: &str) -> Result<Client, Error> {
        let kubeconfig = kube::config::Kubeconfig::from_yaml(yaml).map_err(setup)?;
        Client::from_parsed(kubeconfig, None).await
    }
    async fn from_parsed(kubeconfig: kube::config::Kubeconfig, context: Option<&str>) -> Result<Client, Error> {
        let options = kube::config::KubeConfigOptions { context: context.map(str::to_owned), ..Default::default() };
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(setup)?;
        // Nothing has been run yet. A kubeconfig that came with a repository or in a message must not become a program on this machine,
        // and what a command of one's own prints can be put into the file as a token (CVE-2022-24817).
        if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
            let why = "its user is a command (exec or auth-provider), and commands of kubeconfigs are not run: \
                       put a token or a certificate there instead";
            return Err(setup(why));
        }
        Client::of(config, "portolan".to_owned())
    }
    fn of(mut config: kube::Config, manager: String) -> Result<Client, Error> {
        // Whoever calls knows better whether, and when, to try again.
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT);
        // Watches and logs are silent for long; each request has its own deadline instead.
        config.read_timeout = None;
        let namespace = config.default_namespace.clone();
        let kube = kube::Client::try_from(config).map_err(setup)?;
        Ok(Client { kube, manager, namespace })
    }
    /// The kube crate's own client, for what has no helper here.
    pub fn kube(&self) -> &kube::Client {
        &self.kube
    }
    /// The namespace for objects that name none.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// One object; `None` when there is none.
    pub async fn get<K: Resource + DeserializeOwned>(&self, namespace: &str, name: &str) -> Result<Option<K>, Error> {
        match self.ask(Method::GET, &path::<K>(namespace, name, None), JSON, Vec::new()).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
    /// All objects of a kind; an empty namespace means all of them. `selectors` is a query such as `labelSelector=app%3Dweb`.
    pub async fn list<K: Resource + DeserializeOwned>(&self, namespace: &str, selectors: &str) -> Result<Vec<K>, Error> {
        Ok(self.list_at(namespace, selectors).await?.0)
    }
    /// The same, with the revision at which the list is true.
    pub async fn list_at<K: Resource + DeserializeOwned>(
        &self,
        namespace: &str,
        selectors: &str,
    ) -> Result<(Vec<K>, String), Error> {
        let mut path = path::<K>(namespace, "", None);
        if !selectors.is_empty() {
            path = format!("{path}?{selectors}");
        }
        let list: List<K> = self.ask(Method::GET, &path, JSON, Vec::new()).await?;
        Ok((list.items, list.metadata.resource_version))
    }
    /// Creates an object and returns what became of it.
    pub async fn create<K: Resource + Serialize + DeserializeOwned>(&self, namespace: &str, object: &K) -> Result<K, Error> {
        let path = format!("{}?fieldManager={}", path::<K>(namespace, "", None), self.manager);
        self.ask(Method::POST, &path, JSON, serde_json::to_vec(object).map_err(garbled)?).await
    }
    /// Replaces an object, or one subresource of it.
    pub async fn replace<K: Resource + Serialize + DeserializeOwned>(
        &self,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        object: &K,
    ) -> Result<K, Error> {
        let path = format!("{}?fieldManager={}", path::<K>(namespace, name, subresource), self.manager);
        self.ask(Method::PUT, &path, JSON, serde_json::to_vec(object).map_err(garbled)?).await
    }
    /// Changes an object, or one subresource of it, by a JSON merge patch.
    pub async fn merge_patch<K: Resource + DeserializeOwned>(
        &self,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        patch: &Value,
    ) -> Result<K, Error> {
        let path = format!("{}?fieldManager={}", path::<K>(namespace, name, subresource), self.manager);
        self.ask(Method::PATCH, &path, "application/merge-patch+json", serde_json::to_vec(patch).map_err(garbled)?).await
    }
    /// Deletes an object. `options` is a `DeleteOptions`, or null.
    pub async fn delete<K: Resource>(&self, namespace: &str, name: &str, options: &Value) -> Result<(), Error> {
        let body = if options.is_null() { Vec::new() } else { serde_json::to_vec(options).map_err(garbled)? };
        self.ask::<Value>(Method::DELETE, &path::<K>(namespace, name, None), JSON, body).await.map(|_| ())
    }
    /// Lists and then watches, for ever: resumes where it was cut, lists again where it cannot, backs off while the server is away.
    /// `quiet` is how long a silent connection is trusted.
    pub fn watch<K>(&self, namespace: &str, selectors: &str, quiet: Duration) -> BoxStream<'static, Event<K>>
    where
        K: Resource + DeserializeOwned + Clone + std::fmt::Debug + Send + 'static,
    {
        watch::watch(self.clone(), namespace.to_owned(), selectors.to_owned(), quiet)
    }
    /// A request with a JSON body (null for none) and a JSON answer, at any path.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value, Error> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).map_err(garbled)? };
        self.ask(method, path, JSON, body).await
    }
    /// A request whose answer is read as it comes. Only the beginning of the answer has a deadline.
    pub async fn stream(&self, method: Method, path: &str) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let answer = timeout(self.send(method, path, JSON, Vec::new())).await??;
        let answer = checked(answer).await?;
        Ok(answer.into_body().into_data_stream().map(|chunk| chunk.map_err(unreachable)).boxed())
    }

    async fn send(&self, method: Method, path: &str, content: &str, body: Vec<u8>) -> Result<http::Response<Body>, Error> {
        self.send_for(method, path, content, body, JSON).await
    }
    async fn send_for(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: Vec<u8>,
        accept: &str,
    ) -> Result<http::Response<Body>, Error> {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::ACCEPT, accept)
            .header(http::header::CONTENT_TYPE, content)
            .body(Body::from(body))
            .map_err(garbled)?;
        self.kube.send(request).await.map_err(unreachable)
    }
    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, content: &str, body: Vec<u8>) -> Result<T, Error> {
        timeout(async {
            let answer = checked(self.send(method, path, content, body).await?).await?;
            let bytes = answer.into_body().collect().await.map_err(unreachable)?.to_bytes();
            serde_json::from_slice(&bytes).map_err(garbled)
        })
        .await?
    }
}

/// Whole objects, as JSON.
pub const JSON: &str = "application/json";
/// Only the fields that the parameter `fields` names, from servers that can answer so, and whole objects from others.
pub const PARTS: &str = "application/json;as=PartialObjectList;v=v1alpha1;g=portolan.dev,application/json";

#[derive(serde::Deserialize)]
struct List<K> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default = "Vec::new")]
    items: Vec<K>,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
}

/// The path of a kind, of one object, or of a subresource of it.
pub fn path<K: Resource>(namespace: &str, name: &str, subresource: Option<&str>) -> String {
    let mut path =
        if K::GROUP.is_empty() { format!("/api/{}", K::VERSION) } else { format!("/apis/{}/{}", K::GROUP, K::VERSION) };
    if !namespace.is_empty() {
        path += &format!("/namespaces/{namespace}");
    }
    path += &format!("/{}", K::URL_PATH_SEGMENT);
    if !name.is_empty() {
        path += &format!("/{name}");
    }
    if let Some(subresource) = subresource {
        path += &format!("/{subresource}");
    }
    path
}

async fn timeout<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    tokio::time::timeout(DEADLINE, work).await.map_err(|_| late(DEADLINE))
}

fn late(after: Duration) -> Error {
    Error::Unreachable(format!("no answer within {} s", after.as_secs()).into())
}

/// Turns an answer that says no into an error.
async fn checked(answer: http::Response<Body>) -> Result<http::Response<Body>, Error> {
    let code = answer.status();
    if code.is_success() {
        return Ok(answer);
    }
    let body = http_body_util::Limited::new(answer.into_body(), 1 << 20).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let status: Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = match status["message"].as_str() {
        Some(message) => message.to_owned(),
        None => format!("{code} {}", String::from_utf8_lossy(&body).chars().take(500).collect::<String>().trim()),
    };
    Err(Error::Status { code: code.as_u16(), reason: status["reason"].as_str().unwrap_or_default().to_owned(), message })
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn setup(error: impl Into<BoxError>) -> Error {
    Error::Setup(error.into())
}
fn garbled(error: impl Into<BoxError>) -> Error {
    Error::Garbled(error.into())
}
fn unreachable(error: impl Into<BoxError>) -> Error {
    Error::Unreachable(error.into())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{Node, Pod};

    use super::*;

    #[test]
    fn paths() {
        assert_eq!(path::<Pod>("", "", None), "/api/v1/pods");
        assert_eq!(path::<Pod>("d", "p", Some("status")), "/api/v1/namespaces/d/pods/p/status");
        assert_eq!(path::<Node>("", "n", None), "/api/v1/nodes/n");
        assert_eq!(path::<Deployment>("d", "", None), "/apis/apps/v1/namespaces/d/deployments");
    }

    /// CVE-2022-24817: a kubeconfig is data. Whatever it names as a way to get credentials is not run.
    #[tokio::test]
    async fn attack_f_a_kubeconfig_runs_no_command() {
        let dir = tempfile::tempdir().unwrap();
        let ran = dir.path().join("ran");
        let (shell, script) = ("/bin/sh", format!("touch {}", ran.display()));
        let exec = |more: Value| {
            let mut exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": shell, "args": ["-c", script]});
            exec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "exec": exec })
        };
        let provider =
            json!({"auth-provider": {"name": "gcp", "config": {"cmd-path": shell, "cmd-args": format!("-c {script}")}}});
        let users = [exec(json!({})), exec(json!({"interactiveMode": "Never", "provideClusterInfo": true})), provider];
        for user in users.iter().chain([&json!({"token": "t"})]) {
            let mut with_token = user.clone();
            with_token["token"] = "t".into();
            for user in [user, &with_token] {
                let config = json!({
                    "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": user}],
                    "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1"}}],
                    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                });
                let made = Client::from_kubeconfig_text(&config.to_string()).await;
                match user.as_object().unwrap().len() {
                    1 if user["token"] == "t" => assert!(made.is_ok()),
                    _ => assert!(matches!(made, Err(Error::Setup(_))), "{user}"),
                }
                if let Ok(client) = made {
                    assert!(client.get::<Node>("", "n").await.is_err(), "nobody listens there");
                }
                assert!(!ran.exists(), "it was run: {user}");
            }
        }
    }
}
