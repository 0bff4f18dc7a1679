//! Asks the server for a tunnel: TLS with the host's certificate, then an upgrade.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;

use crate::client::{Access, Identity};

/// The protocol that the connection is upgraded to.
pub(super) const PROTOCOL: &str = "portolan-tunnel";
/// How long connecting may take in all, in case the server's host does not even refuse.
const DEADLINE: Duration = Duration::from_secs(10);
/// The longest explanation of a refusal that is read, in bytes.
const REFUSAL_MAX: usize = 4096;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("set up the connection to {server}")]
    Setup { server: String, source: BoxError },
    #[error("connect to {server}")]
    Connect { server: String, source: BoxError },
    #[error("connect to {server}: no answer within {}s", DEADLINE.as_secs())]
    Deadline { server: String },
    #[error("{server} refuses the stream: {status}: {message}")]
    Refused { server: String, status: StatusCode, message: String },
    #[error("the stream broke")]
    Broken(#[source] hyper::Error),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl DialError {
    /// The causes, ready to follow the error's own words.
    pub(super) fn cause(&self) -> String {
        let mut text = String::new();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text += &format!(": {cause}");
            source = cause.source();
        }
        text
    }
}

/// A stream to the server on which it may ask.
pub(super) async fn dial(access: &Access, node: &str) -> Result<TokioIo<Upgraded>, DialError> {
    let deadline = || DialError::Deadline { server: access.server.clone() };
    tokio::time::timeout(DEADLINE, dial_slowly(access, node)).await.map_err(|_| deadline())?
}

async fn dial_slowly(access: &Access, node: &str) -> Result<TokioIo<Upgraded>, DialError> {
    let setup = |source: BoxError| DialError::Setup { server: access.server.clone(), source };
    let connect = |source: BoxError| DialError::Connect { server: access.server.clone(), source };

    let address: Uri = access.server.parse().map_err(|error| setup(Box::new(error)))?;
    let host = address.host().ok_or_else(|| setup("no host in the server's address".into()))?;
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(plain.to_string()).map_err(|error| setup(Box::new(error)))?;
    let config = config(access).map_err(setup)?;

    let tcp = TcpStream::connect((plain, address.port_u16().unwrap_or(443))).await.map_err(|error| connect(Box::new(error)))?;
    // Keystrokes are small and wait for nobody.
    let _ = tcp.set_nodelay(true);
    let tls =
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|error| connect(Box::new(error)))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(|error| connect(Box::new(error)))?;
    tokio::spawn(async move { _ = connection.with_upgrades().await });

    let path = format!("/apis/portolan.dev/v1alpha1/nodes/{node}/tunnel");
    let mut request = Request::get(path)
        .header(header::HOST, address.authority().map_or(host, |authority| authority.as_str()))
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, PROTOCOL);
    if let Identity::Token(token) = &access.identity {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| setup(Box::new(error)))?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| setup(Box::new(error)))?;
    let response = sender.send_request(request).await.map_err(|error| connect(Box::new(error)))?;
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let body = Limited::new(response.into_body(), REFUSAL_MAX).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let message = match serde_json::from_slice::<serde_json::Value>(&body) {
            Ok(answer) => answer["message"].as_str().unwrap_or_default().to_string(),
            Err(_) => String::from_utf8_lossy(&body).trim().to_string(),
        };
        return Err(DialError::Refused { server: access.server.clone(), status, message });
    }
    hyper::upgrade::on(response).await.map(TokioIo::new).map_err(|error| connect(Box::new(error)))
}

/// Trusts the cluster's authority and nobody else, and shows the host's certificate.
fn config(access: &Access) -> Result<rustls::ClientConfig, BoxError> {
    let mut roots = rustls::RootCertStore::empty();
    let authority = access.authority.as_deref().ok_or("the cluster's certificate authority is not known")?;
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate?)?;
    }
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match &access.identity {
        Identity::Certificate { certificate, key } => {
            let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes())?)?
        }
        Identity::Anonymous | Identity::Token(_) => builder.with_no_client_auth(),
    };
    // An upgrade needs HTTP/1.1, and a server that offers both would choose the other.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
