//! Who this host is to the server: joining with a token, keeping the certificate, renewing it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::StreamExt;
use http::Method;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::remember::write_file;
use crate::client::{Access, Client, Error, Identity};

/// Where a node asks for its certificate.
pub(crate) const JOIN: &str = "/apis/portolan.dev/v1alpha1/join";
/// The largest certificate of an authority that is read, in bytes.
const AUTHORITY_MAX: usize = 64 * 1024;
/// The longest pause between two tries to join.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// The file in which [`Known`] is kept: one file, so that key and certificate always belong together.
const FILE: &str = "node.json";
/// The file with the key of a host that has not joined yet.
const KEY: &str = "joining-key.pem";

/// Who we are.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Known {
    /// The node's name.
    pub(super) node: String,
    /// The server.
    pub(super) server: String,
    authority: String,
    certificate: String,
    key: String,
}

impl Known {
    pub(super) fn access(&self) -> Access {
        Access {
            server: self.server.clone(),
            authority: Some(self.authority.clone()),
            identity: Identity::Certificate { certificate: self.certificate.clone(), key: self.key.clone() },
            namespace: None,
            manager: "portolan-agent".to_owned(),
        }
    }
    /// Distinguishes this cluster from every other: the beginning of the authority's fingerprint.
    pub(super) fn cluster(&self) -> Result<String> {
        Ok(fingerprint(&self.authority)?[..16].to_owned())
    }
    /// When the certificate is to be renewed: after two thirds of its life.
    pub(super) fn renew_at(&self) -> Result<Timestamp> {
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes()).context("read our certificate")?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).context("read our certificate")?;
        let (from, to) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        Timestamp::from_second(from + (to - from) * 2 / 3).context("read our certificate's validity")
    }

    /// From an earlier start.
    pub(super) fn load(dir: &Path, server: Option<&str>) -> Result<Option<Known>> {
        let path = dir.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let mut known: Known = serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?;
        // The server may have moved; its authority tells whether it is the same.
        if let Some(server) = server {
            known.server = server.to_owned();
        }
        Ok(Some(known))
    }

    fn keep(&self, dir: &Path) -> Result<()> {
        write_file(dir, FILE, &serde_json::to_vec_pretty(self)?, 0o600, true)
    }

    /// With a token. Tries until the server answers; a refusal is an error.
    pub(super) async fn join(dir: &Path, server: &str, token: &str, node: &str, stop: &CancellationToken) -> Result<Known> {
        let mut pause = Duration::from_millis(500);
        loop {
            let error = match Known::join_once(dir, server, token, node).await {
                Ok(known) => return Ok(known),
                Err(error) => error,
            };
            let away = error.chain().any(|e| {
                matches!(e.downcast_ref::<Error>(), Some(Error::Unreachable(_) | Error::Status { code: 500.. | 429, .. }))
            });
            if !away {
                return Err(error);
            }
            tracing::warn!(server, error = format!("{error:#}"), "cannot join yet");
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
                () = stop.cancelled() => bail!("stopped before the host had joined"),
            }
        }
    }

    async fn join_once(dir: &Path, server: &str, token: &str, node: &str) -> Result<Known> {
        let mut parts = token.trim().split('.');
        let (Some(id), Some(secret), Some(hash), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            bail!("a join token has three parts: make one with `portolan token create`");
        };
        let authority = fetch_authority(server).await.with_context(|| format!("fetch the authority of {server}"))?;
        // Only now is anything secret sent, and only to the server that the token means.
        if !fingerprint(&authority)?.eq_ignore_ascii_case(hash) {
            bail!("{server} is not the server that this token is for: its authority has another fingerprint");
        }
        // The key is kept before it is shown: if the answer is lost, the same key asks again and gets the same name.
        let key = match std::fs::read_to_string(dir.join(KEY)) {
            Ok(key) => rcgen::KeyPair::from_pem(&key).with_context(|| format!("read {KEY}"))?,
            Err(_) => {
                let key = rcgen::KeyPair::generate().context("make a key")?;
                write_file(dir, KEY, key.serialize_pem().as_bytes(), 0o600, true)?;
                key
            }
        };
        let access = Access {
            server: server.to_owned(),
            authority: Some(authority.clone()),
            identity: Identity::Token(format!("{id}.{secret}")),
            ..Access::default()
        };
        let certificate = ask(&Client::connect(access)?, node, &key).await.with_context(|| format!("join {server} as {node}"))?;
        let known = Known { node: node.to_owned(), server: server.to_owned(), authority, certificate, key: key.serialize_pem() };
        known.keep(dir)?;
        Ok(known)
    }

    /// A new certificate for a new key, paid for with the old one.
    pub(super) async fn renew(&self, dir: &Path) -> Result<Known> {
        let key = rcgen::KeyPair::generate().context("make a key")?;
        let certificate = ask(&Client::connect(self.access())?, &self.node, &key).await.context("renew the certificate")?;
        let known = Known { certificate, key: key.serialize_pem(), ..self.clone() };
        known.keep(dir)?;
        Ok(known)
    }
}

/// A request for the certificate of a node, PEM.
pub(crate) fn certificate_request(node: &str, key: &rcgen::KeyPair) -> Result<String> {
    let mut wanted = rcgen::CertificateParams::default();
    wanted.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    wanted.distinguished_name.push(rcgen::DnType::CommonName, format!("system:node:{node}"));
    wanted.serialize_request(key).and_then(|csr| csr.pem()).context("make a certificate request")
}

async fn ask(client: &Client, node: &str, key: &rcgen::KeyPair) -> Result<String> {
    let csr = certificate_request(node, key)?;
    let answer = client.call(Method::POST, JOIN, &json!({"node": node, "csr": csr})).await?;
    answer["certificate"].as_str().map(str::to_owned).ok_or_else(|| anyhow!("the server's answer holds no certificate"))
}

async fn fetch_authority(server: &str) -> Result<String> {
    let client = Client::connect_unverified(server)?;
    let mut stream = client.stream(Method::GET, "/cacert").await?;
    let mut pem = Vec::new();
    while let Some(chunk) = stream.next().await {
        pem.extend_from_slice(&chunk?);
        if pem.len() > AUTHORITY_MAX {
            bail!("the server's authority is too long");
        }
    }
    String::from_utf8(pem).context("the server's authority is no text")
}

/// SHA-256 of the first certificate, in hexadecimal.
fn fingerprint(pem: &str) -> Result<String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).context("read the authority's certificate")?;
    Ok(Sha256::digest(&der).iter().map(|b| format!("{b:02x}")).collect())
}
