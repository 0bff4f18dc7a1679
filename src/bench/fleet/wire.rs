//! One HTTP/2 connection over TLS, as thin as an agent's could be: the load generator shares the processors with what it measures.
//!
//! You will not find here: what is said over it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::bench::house::House;

/// Where the server is, and how to know it.
#[derive(Clone)]
pub(in crate::bench) struct Server {
    pub(in crate::bench) address: SocketAddr,
    /// Its authority, PEM.
    pub(in crate::bench) authority: Arc<str>,
}

impl Server {
    /// The server of a house, and its administrator's certificate and key, PEM.
    pub(in crate::bench) async fn of(house: &House) -> Result<(Server, String, String)> {
        let kubeconfig: Value = serde_yaml::from_str(&house.portolan(&["kubeconfig"]).await?).context("read the kubeconfig")?;
        let pem = |value: &Value| -> Result<String> {
            let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).context("read the kubeconfig")?;
            String::from_utf8(bytes).context("PEM is text")
        };
        let (user, cluster) = (&kubeconfig["users"][0]["user"], &kubeconfig["clusters"][0]["cluster"]);
        let server = Server { address: house.address, authority: pem(&cluster["certificate-authority-data"])?.into() };
        Ok((server, pem(&user["client-certificate-data"])?, pem(&user["client-key-data"])?))
    }

    /// How to speak to it: with this certificate and key (PEM), or as nobody yet.
    pub(in crate::bench) fn tls(&self, own: Option<(&str, &str)>) -> Result<Arc<rustls::ClientConfig>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authority.as_bytes()) {
            roots.add(certificate.context("read the authority")?).context("trust the authority")?;
        }
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = match own {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("read a key")?;
                config.with_client_auth_cert(chain.context("read a certificate")?, key).context("use a certificate")?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

/// A connection. Clones share it; requests on it run side by side.
#[derive(Clone)]
pub(in crate::bench) struct Wire {
    sender: SendRequest<Full<Bytes>>,
    authority: Arc<str>,
    token: Option<Arc<str>>,
}

impl Wire {
    /// Connects.
    pub(in crate::bench) async fn open(server: &Server, tls: Arc<rustls::ClientConfig>, token: Option<&str>) -> Result<Wire> {
        let stream = TcpStream::connect(server.address).await.context("connect")?;
        stream.set_nodelay(true).context("connect")?;
        let name = ServerName::IpAddress(server.address.ip().into());
        let stream = TlsConnector::from(tls).connect(name, stream).await.context("shake hands")?;
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await
            .context("speak HTTP/2")?;
        tokio::spawn(connection);
        Ok(Wire { sender, authority: server.address.to_string().into(), token: token.map(Into::into) })
    }

    /// A request whose answer is read as it comes.
    pub(in crate::bench) async fn begin(&self, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Result<Incoming> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.authority))
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::CONTENT_TYPE, kind);
        if let Some(token) = &self.token {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::from(body))).context("make a request")?;
        let answer = self.sender.clone().send_request(request).await.with_context(|| format!("ask {path}"))?;
        let code = answer.status();
        if !code.is_success() {
            let said = answer.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            bail!(Refused { code: code.as_u16(), said: format!("{path}: {code}: {}", String::from_utf8_lossy(&said)) });
        }
        Ok(answer.into_body())
    }

    /// A request and its whole answer, as bytes.
    pub(in crate::bench) async fn bytes(&self, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Result<Bytes> {
        let answer = self.begin(method, path, kind, body).await?;
        Ok(answer.collect().await.with_context(|| format!("read {path}"))?.to_bytes())
    }

    /// A request with a JSON body (null for none) and a JSON answer.
    pub(in crate::bench) async fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: &Value) -> Result<T> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        let bytes = self.bytes(method, path, kind, body).await?;
        serde_json::from_slice(&bytes).with_context(|| format!("understand {path}"))
    }
}

/// The server's counts of what it has done, by their names in `/metrics`. Over a connection of their own: the server closes one on which
/// nothing was said for as long as a large fleet takes.
pub(in crate::bench) async fn counts(server: &Server, tls: &Arc<rustls::ClientConfig>) -> Result<BTreeMap<String, f64>> {
    let wire = Wire::open(server, tls.clone(), None).await?;
    let bytes = wire.bytes(Method::GET, "/metrics", "text/plain", Vec::new()).await?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Ok(lines.filter_map(|line| line.rsplit_once(' ')).filter_map(|(name, n)| Some((name.to_owned(), n.parse().ok()?))).collect())
}

/// The server said no.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
pub(in crate::bench) struct Refused {
    pub(in crate::bench) code: u16,
    pub(in crate::bench) said: String,
}

/// Whether the server said no with this code.
pub(in crate::bench) fn refused(error: &anyhow::Error, code: u16) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|r| r.code == code)
}

/// The lines of a watch.
pub(in crate::bench) struct Lines {
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    pub(in crate::bench) fn new(body: Incoming) -> Lines {
        Lines { body, buffer: BytesMut::new() }
    }

    /// The next line; none when the connection has ended.
    pub(in crate::bench) async fn next(&mut self) -> Option<Bytes> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                return Some(self.buffer.split_to(searched + end + 1).freeze());
            }
            searched = self.buffer.len();
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}
