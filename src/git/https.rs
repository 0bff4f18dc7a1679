//! Git over https: two requests, made with our own TLS, limits and manners.
//!
//! Redirects are followed within one host only, so that credentials never travel to another; proxies are taken from the environment.

use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, http::Response};

use super::address::{Address, parse};
use super::error::FetchErrorKind;
use super::transport::Connection;

/// Redirects that are followed at all: one to add `.git`, one to lower the case, one to spare.
const MOST_REDIRECTS: usize = 3;
/// A request body holds only what we have and want: small. In bytes.
const MOST_SENT: usize = 16 << 20;

/// The list of refs, as a stream.
pub(super) fn list(connection: &Arc<Connection>) -> Result<Exchange, git2::Error> {
    let agent = agent(connection)?;
    let mut base = connection.address.to_string();
    for _ in 0..=MOST_REDIRECTS {
        let url = format!("{base}/info/refs?service=git-upload-pack");
        let request = with_credentials(connection, agent.get(&url));
        let response = request.call().map_err(|e| connection.fail(network(connection, &e)))?;
        let status = response.status();
        if status.is_redirection() {
            let to = response.headers().get("location").and_then(|l| l.to_str().ok()).unwrap_or_default();
            base = redirected(connection, &base, to)?;
            continue;
        }
        check(connection, &response, "application/x-git-upload-pack-advertisement")?;
        let reader = response.into_body().into_reader();
        return Ok(Exchange { connection: connection.clone(), sent: Vec::new(), answer: Some(Box::new(reader)) });
    }
    Err(connection.fail(connection.error(FetchErrorKind::Unreachable, "it redirects in a circle")))
}

/// One question and its answer: what is written becomes the request, what is read is the response.
pub(super) fn exchange(connection: &Arc<Connection>) -> Exchange {
    Exchange { connection: connection.clone(), sent: Vec::new(), answer: None }
}

/// See [`exchange`].
pub(super) struct Exchange {
    connection: Arc<Connection>,
    sent: Vec<u8>,
    answer: Option<Box<dyn Read + Send>>,
}

impl Write for Exchange {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.sent.len() + bytes.len() > MOST_SENT {
            return Err(self.connection.fail_io(FetchErrorKind::TooLarge, "the question would be too long"));
        }
        self.sent.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Exchange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.answer.is_none() {
            self.answer = Some(self.ask().map_err(|e| io::Error::other(e.message().to_owned()))?);
        }
        let answer = self.answer.as_mut().expect("just asked");
        let n = answer.read(buffer).map_err(|e| self.connection.fail_io(FetchErrorKind::Unreachable, e))?;
        self.connection.count(n)?;
        Ok(n)
    }
}

impl Exchange {
    fn ask(&mut self) -> Result<Box<dyn Read + Send>, git2::Error> {
        let connection = &self.connection;
        let agent = agent(connection)?;
        // After a redirect of the first request this one is redirected alike, and libgit2 has sent nothing that could not be sent again.
        let mut base = connection.address.to_string();
        for _ in 0..=MOST_REDIRECTS {
            let request = with_credentials(connection, agent.post(format!("{base}/git-upload-pack")))
                .header("content-type", "application/x-git-upload-pack-request")
                .header("accept", "application/x-git-upload-pack-result");
            let response = request.send(&self.sent[..]).map_err(|e| connection.fail(network(connection, &e)))?;
            if response.status().is_redirection() {
                let to = response.headers().get("location").and_then(|l| l.to_str().ok()).unwrap_or_default();
                base = redirected(connection, &base, to)?;
                continue;
            }
            check(connection, &response, "application/x-git-upload-pack-result")?;
            return Ok(Box::new(response.into_body().into_reader()));
        }
        Err(connection.fail(connection.error(FetchErrorKind::Unreachable, "it redirects in a circle")))
    }
}

fn with_credentials<T>(connection: &Connection, request: ureq::RequestBuilder<T>) -> ureq::RequestBuilder<T> {
    let Some(secret) = Some(&connection.credentials).filter(|c| !c.password.is_empty()) else { return request };
    // Hosts that take a token as the password accept any name; `git` is what most of them document.
    let name = if secret.username.is_empty() { "git" } else { &secret.username };
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{}", secret.password));
    request.header("authorization", format!("Basic {pair}"))
}

/// The new base after a redirect: same host, https, and nothing but a path.
fn redirected(connection: &Connection, base: &str, to: &str) -> Result<String, git2::Error> {
    let refuse = |why: String| connection.fail(connection.error(FetchErrorKind::Unreachable, why));
    let Address::Https { host, port, .. } = &connection.address else { return Err(refuse("not https".into())) };
    let absolute = if to.starts_with('/') && !to.starts_with("//") {
        let authority = base.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        format!("{authority}{to}")
    } else {
        to.to_owned()
    };
    let plain = absolute.split('?').next().unwrap_or_default();
    let target = plain
        .strip_suffix("/info/refs")
        .or_else(|| plain.strip_suffix("/git-upload-pack"))
        .ok_or_else(|| refuse(format!("it redirects to {plain}, which is not a repository; perhaps a page to log in")))?;
    match parse(target) {
        Ok(Address::Https { host: h, port: p, .. }) if h == *host && p.unwrap_or(443) == port.unwrap_or(443) => {
            Ok(target.to_owned())
        }
        _ => Err(refuse(format!("it redirects to {target}; give that address if you trust it"))),
    }
}

/// Turns a status into words.
fn check(connection: &Connection, response: &Response<Body>, expected: &str) -> Result<(), git2::Error> {
    let status = response.status().as_u16();
    let said = |kind, text: String, hint: Option<&str>| {
        let error = connection.error(kind, text);
        connection.fail(match hint {
            Some(hint) => error.hint(hint),
            None => error,
        })
    };
    let has = !connection.credentials.password.is_empty();
    match status {
        200 => {}
        401 | 403 if has => {
            return Err(said(
                FetchErrorKind::Denied,
                format!("the credentials were refused (HTTP {status})"),
                Some("does the token still live, and may it read this repository?"),
            ));
        }
        401 | 403 => {
            return Err(said(
                FetchErrorKind::Denied,
                format!("it asks for credentials (HTTP {status})"),
                Some(
                    "name a Secret with username and password in spec.source.secretName; some hosts answer so for repositories that do not exist",
                ),
            ));
        }
        404 | 410 => {
            return Err(said(FetchErrorKind::NoSuchRepository, format!("there is no such repository (HTTP {status})"), None));
        }
        _ => return Err(said(FetchErrorKind::Unreachable, format!("the server answered HTTP {status}"), None)),
    }
    let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if kind != expected {
        return Err(said(
            FetchErrorKind::NoSuchRepository,
            format!("the answer is {kind:?}, not git's smart protocol"),
            Some("is this the address that `git clone` takes?"),
        ));
    }
    Ok(())
}

fn network(connection: &Connection, error: &ureq::Error) -> super::FetchError {
    let text = error.to_string();
    let said = connection.error(FetchErrorKind::Unreachable, &text);
    if text.contains("certificate") || text.contains("UnknownIssuer") {
        let mut said =
            said.hint("a private certificate authority can be given as `ca.crt` in the Secret that spec.source.secretName names");
        said.kind = FetchErrorKind::Denied;
        return said;
    }
    said
}

fn agent(connection: &Connection) -> Result<Agent, git2::Error> {
    let roots = roots(&connection.credentials.ca).map_err(|e| {
        connection.fail(connection.error(FetchErrorKind::Denied, format!("ca.crt is not a PEM certificate: {e}")))
    })?;
    let config = Agent::config_builder()
        .https_only(true)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_response_header_size(32 << 10)
        .user_agent(concat!("git/2.0 (portolan ", env!("CARGO_PKG_VERSION"), ")")) // hosts choose the smart protocol by the word git
        .timeout_global(Some(connection.left().max(Duration::from_millis(1))))
        .timeout_connect(Some(Duration::from_secs(15)))
        .timeout_per_read(Some(Duration::from_secs(30)))
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .build();
    Ok(Agent::new_with_config(config))
}

/// The machine's trusted authorities, or Mozilla's where the machine has none, and one's own beside them.
fn roots(extra: &str) -> Result<RootCerts, ureq::Error> {
    static SYSTEM: OnceLock<Vec<Certificate<'static>>> = OnceLock::new();
    const PLACES: &[&str] = &[
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let system = SYSTEM.get_or_init(|| {
        let named = std::env::var("SSL_CERT_FILE").ok();
        let bundle = named.iter().map(String::as_str).chain(PLACES.iter().copied()).find_map(|p| std::fs::read(p).ok());
        bundle.map_or_else(Vec::new, |pem| certificates(&pem).filter_map(Result::ok).collect())
    });
    let own: Vec<Certificate<'static>> = certificates(extra.as_bytes()).collect::<Result<_, _>>()?;
    if system.is_empty() && own.is_empty() {
        return Ok(RootCerts::WebPki);
    }
    Ok(RootCerts::new_with_certs(&[system.as_slice(), &own].concat()))
}

fn certificates(pem: &[u8]) -> impl Iterator<Item = Result<Certificate<'static>, ureq::Error>> + '_ {
    parse_pem(pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(c)) => Some(Ok(c)),
        Ok(_) => None,
        Err(e) => Some(Err(e)),
    })
}
