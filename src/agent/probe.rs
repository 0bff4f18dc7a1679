//! Probes over the network, from the host's own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::heart::{HttpGet, ProbeCall};

/// Runs a probe. The error is a sentence for the event.
pub(super) async fn run(call: &ProbeCall) -> Result<(), String> {
    let limit = Duration::try_from(call.timeout).unwrap_or(Duration::from_secs(1));
    match tokio::time::timeout(limit, connect(call)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer from {}:{} within {} s", call.host, call.port, limit.as_secs_f32())),
    }
}

async fn connect(call: &ProbeCall) -> Result<(), String> {
    if call.host.is_empty() {
        return Err("the pod has no address".to_owned());
    }
    let place = format!("{}:{}", call.host, call.port);
    let tcp = TcpStream::connect((call.host.as_str(), call.port)).await.map_err(|e| format!("dial tcp {place}: {e}"))?;
    let _ = tcp.set_nodelay(true);
    match &call.http {
        None => Ok(()),
        Some(get) if get.tls => {
            let name = ServerName::try_from(call.host.clone()).map_err(|e| e.to_string())?;
            let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|e| e.to_string())?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(rustls::crypto::ring::default_provider())))
                .with_no_client_auth();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let tls = connector.connect(name, tcp).await.map_err(|e| format!("TLS with {place}: {e}"))?;
            ask(tls, get, &place).await
        }
        Some(get) => ask(tcp, get, &place).await,
    }
}

async fn ask(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, get: &HttpGet, place: &str) -> Result<(), String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| format!("HTTP with {place}: {e}"))?;
    let path = if get.path.starts_with('/') { get.path.clone() } else { format!("/{}", get.path) };
    let mut request = http::Request::get(path).header(http::header::USER_AGENT, "portolan-probe/1");
    let mut has_host = false;
    for (name, value) in &get.headers {
        has_host |= name.eq_ignore_ascii_case("host");
        request = request.header(name, value);
    }
    if !has_host {
        request = request.header(http::header::HOST, place);
    }
    let request =
        request.header(http::header::CONNECTION, "close").body(Empty::<Bytes>::new()).map_err(|e| format!("the request: {e}"))?;
    let answer = async { sender.send_request(request).await.map_err(|e| format!("Get \"http://{place}{}\": {e}", get.path)) };
    let mut answer = std::pin::pin!(answer);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer?,
        // The connection may be done when the answer lies ready; where it broke, the answer is an error.
        _ = connection => answer.await?,
    };
    let status = answer.status().as_u16();
    if (200..400).contains(&status) { Ok(()) } else { Err(format!("HTTP probe failed with statuscode: {status}")) }
}

/// A probe asks whether somebody answers, not who: Kubernetes does not check certificates here.
#[derive(Debug)]
struct Anybody(rustls::crypto::CryptoProvider);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn answers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            for status in ["200 OK", "302 Found", "503 Busy"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).await.unwrap();
                stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.unwrap();
            }
            let (_silent, _) = listener.accept().await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        });
        let call = |http: bool| ProbeCall {
            host: "127.0.0.1".into(),
            container: String::new(),
            port,
            http: http.then(|| HttpGet { path: "healthz".into(), ..HttpGet::default() }),
            timeout: jiff::SignedDuration::from_millis(200),
        };
        assert_eq!(run(&call(true)).await, Ok(()));
        assert_eq!(run(&call(true)).await, Ok(()));
        assert_eq!(run(&call(true)).await, Err("HTTP probe failed with statuscode: 503".into()));
        assert!(run(&call(true)).await.unwrap_err().contains("no answer"));
        server.abort();
        let _ = server.await;
        assert!(run(&call(false)).await.unwrap_err().contains("refused"));
    }
}
