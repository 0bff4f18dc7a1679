//! A real server, and clients that mean harm: half-open handshakes, slow headers, endless bodies, floods of frames, readers that do not
//! read. It goes on serving everybody else, ends what goes nowhere, and its memory stays bounded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::support::Cluster;

/// What the server may take in all of this, at its highest: a debug build with its stacks, the store, and the buffers of some thousand
/// connections. Alone it takes 250 MB; with the whole suite beside it everything waits longer, and 430 were seen. Without bounds, each of
/// the floods below takes more.
const PEAK_MB: u64 = 600;
/// Strangers that ask for nothing are gone after this: ten seconds, and a busy machine.
const GONE: Duration = Duration::from_secs(25);

type Stream = TlsStream<TcpStream>;

/// How to reach the server, as the administrator or as nobody.
#[derive(Clone)]
struct Door {
    address: String,
    authority: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl Door {
    fn of(cluster: &Cluster) -> Door {
        let text = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
        let kubeconfig: Value = serde_yaml::from_str(&text).unwrap();
        let pem = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
        let user = &kubeconfig["users"][0]["user"];
        let authority = pem(&kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"]);
        Door {
            address: cluster.url.trim_start_matches("https://").to_owned(),
            authority: CertificateDer::from_pem_slice(&authority).unwrap(),
            certificate: CertificateDer::from_pem_slice(&pem(&user["client-certificate-data"])).unwrap(),
            key: Arc::new(PrivateKeyDer::from_pem_slice(&pem(&user["client-key-data"])).unwrap()),
        }
    }

    async fn open(&self, known: bool, protocol: &str) -> std::io::Result<Stream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match known {
            true => builder.with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key()).unwrap(),
            false => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let tcp = TcpStream::connect(&self.address).await?;
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect("127.0.0.1".try_into().unwrap(), tcp).await
    }

    /// An honest client is served, soon.
    async fn serves(&self, during: &str) {
        let begin = Instant::now();
        let ask = async {
            let mut stream = self.open(true, "http/1.1").await?;
            stream.write_all(b"GET /api/v1/namespaces HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = tokio::time::timeout(Duration::from_secs(15), ask).await;
        let answer = answer.unwrap_or_else(|_| panic!("{during}: others are not served"));
        let answer = answer.unwrap_or_else(|e| panic!("{during}: others are not served: {e}"));
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{during}: {}", String::from_utf8_lossy(&answer));
        eprintln!("{during}: others are served in {:?}", begin.elapsed());
    }
}

/// Waits until the server ends a connection; how long that took.
async fn ended(mut stream: impl tokio::io::AsyncRead + Unpin, within: Duration) -> Option<Duration> {
    let begin = Instant::now();
    let read = async {
        let mut buffer = [0; 4096];
        while matches!(stream.read(&mut buffer).await, Ok(n) if n > 0) {}
    };
    tokio::time::timeout(within, read).await.ok().map(|()| begin.elapsed())
}

/// The first bytes that come, if any do.
async fn heard(stream: &mut Stream) -> String {
    let mut buffer = vec![0; 4096];
    match tokio::time::timeout(Duration::from_secs(15), stream.read(&mut buffer)).await {
        Ok(Ok(n)) => String::from_utf8_lossy(&buffer[..n]).into_owned(),
        Ok(Err(_)) => String::new(),
        Err(_) => panic!("the server says nothing and does not end it"),
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Preface and settings. A window of zero means that answers never flow.
fn hello(window: Option<u32>) -> Vec<u8> {
    let settings = window.map_or_else(Vec::new, |w| [&[0, 4][..], &w.to_be_bytes()].concat());
    [PREFACE, &frame(4, 0, 0, &settings)].concat()
}

/// The header block of a GET, without compression.
fn get(path: &str) -> Vec<u8> {
    let text = |bytes: &str| [&[bytes.len() as u8][..], bytes.as_bytes()].concat();
    [vec![0x82, 0x87, 0x04], text(path), vec![0x01], text("a")].concat()
}

/// Sends until the server has had enough or everything is sent.
async fn flood(stream: &mut Stream, bytes: Vec<u8>) {
    let send = async {
        for piece in bytes.chunks(16 * 1024) {
            if stream.write_all(piece).await.is_err() {
                return;
            }
        }
        let _ = stream.flush().await;
    };
    // A server that stops reading has had enough, too.
    let _ = tokio::time::timeout(Duration::from_secs(10), send).await;
}

fn peak_mb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn lv3_floods_and_slow_clients_cost_others_nothing_and_memory_little() {
    let cluster = Cluster::start("127.0.0.1", &[]);
    let door = Door::of(&cluster);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(attack(&door));
    let peak = peak_mb(cluster.server_pid());
    eprintln!("the server took {peak} MB at its highest");
    assert!(peak < PEAK_MB, "the server took {peak} MB");
    let log = cluster.log("server");
    assert!(!log.contains("panicked"), "{log}");
}

async fn attack(door: &Door) {
    door.serves("at rest").await;

    // CVE-2026-73500: handshakes that never end. More of them than the server has places for.
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.push(TcpStream::connect(&door.address).await.unwrap());
    }
    door.serves("600 silent connections").await;

    // Strangers that say a little and wait: in each protocol, at each stage.
    let mut waiting = Vec::new();
    for n in 0..40 {
        let protocol = if n % 2 == 0 { "http/1.1" } else { "h2" };
        let mut stream = door.open(false, protocol).await.unwrap();
        match n % 8 {
            0 => stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").await.unwrap(),
            1 => stream.write_all(&PREFACE[..10]).await.unwrap(),
            3 => stream.write_all(&hello(None)).await.unwrap(),
            // An opened header block that is never ended.
            5 => stream.write_all(&[hello(None), frame(1, 0, 1, &get("/livez"))].concat()).await.unwrap(),
            _ => {}
        }
        stream.flush().await.unwrap();
        waiting.push((n, tokio::spawn(ended(stream, GONE))));
    }

    // Headers without end.
    let mut stream = door.open(true, "http/1.1").await.unwrap();
    let header = format!("GET /livez HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(300 << 10));
    flood(&mut stream, header.into_bytes()).await;
    let answer = heard(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431") || answer.starts_with("HTTP/1.1 400"), "{answer}");
    let mut stream = door.open(true, "http/1.1").await.unwrap();
    let many: String = (0..5_000).map(|n| format!("x{n}: a\r\n")).collect();
    flood(&mut stream, format!("GET /livez HTTP/1.1\r\nhost: a\r\n{many}\r\n").into_bytes()).await;
    let answer = heard(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");

    // Bodies without end, with and without a length.
    for head in ["transfer-encoding: chunked", "content-length: 99999999999"] {
        let stream = door.open(true, "http/1.1").await.unwrap();
        let head = format!(
            "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{head}\r\n\r\n"
        );
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        let body = if head.contains("chunked") { chunk.repeat(640) } else { vec![b' '; 40 << 20] };
        let (mut reader, mut writer) = tokio::io::split(stream);
        let sending = tokio::spawn(async move {
            let _ = writer.write_all(head.as_bytes()).await;
            let _ = writer.write_all(&body).await;
            let _ = writer.flush().await;
            writer
        });
        let mut answer = vec![0; 4096];
        let read =
            tokio::time::timeout(Duration::from_secs(20), reader.read(&mut answer)).await.expect("an answer to an endless body");
        let answer = String::from_utf8_lossy(&answer[..read.unwrap_or(0)]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("RequestEntityTooLarge"), "{answer}");
        sending.abort();
    }
    door.serves("endless headers and bodies").await;

    // Floods of frames: opened and reset at once (CVE-2023-44487), headers that go on and on (CVE-2024-27316), pings, settings, empty data
    // and windows that are never read.
    let request = |stream: u32| frame(1, 5, stream, &get("/livez"));
    let reset = |stream: u32| frame(3, 0, stream, &[0, 0, 0, 8]);
    let resets: Vec<u8> = (0..20_000).flat_map(|n| [request(2 * n + 1), reset(2 * n + 1)].concat()).collect();
    let goes_on =
        [frame(1, 0, 1, &get("/livez")), frame(9, 0, 1, &[0x00, 0x01, b'a', 0x01, b'b'].repeat(2_000)).repeat(2_000)].concat();
    let empty = [frame(1, 4, 1, &get("/livez")), frame(0, 0, 1, &[]).repeat(200_000)].concat();
    let floods: [(&str, Vec<u8>); 5] = [
        ("resets", resets),
        ("continuations", goes_on),
        ("empty data", empty),
        ("pings", frame(6, 0, 0, &[7; 8]).repeat(200_000)),
        ("settings", frame(4, 0, 0, &[]).repeat(200_000)),
    ];
    for (what, bytes) in floods {
        let mut stream = door.open(true, "h2").await.unwrap();
        stream.write_all(&hello(None)).await.unwrap();
        flood(&mut stream, bytes).await;
        door.serves(&format!("a flood of {what}")).await;
    }

    // Small bodies that are large trees, many at once.
    let tree = format!(r#"{{"metadata":{{"name":"tree"}},"wrong":[{}1]}}"#, "1,".repeat(1_400_000));
    let mut trees = Vec::new();
    for _ in 0..16 {
        let (door, tree) = (door.clone(), tree.clone());
        trees.push(tokio::spawn(async move {
            let mut stream = door.open(true, "http/1.1").await.unwrap();
            let line = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: a\r\nconnection: close";
            let head = format!("{line}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", tree.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(tree.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            tokio::time::timeout(Duration::from_secs(120), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
            String::from_utf8_lossy(&answer[..answer.len().min(20)]).into_owned()
        }));
    }
    door.serves("large trees in small bodies").await;
    for answer in trees {
        let answer = answer.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 201") || answer.starts_with("HTTP/1.1 409"), "{answer}");
    }

    // Readers that do not read: each stream wants everything, and takes nothing.
    let mut stream = door.open(true, "h2").await.unwrap();
    let wants: Vec<u8> = (0..240).flat_map(|n| frame(1, 5, 2 * n + 1, &get("/openapi/v2"))).collect();
    stream.write_all(&[hello(Some(0)), wants].concat()).await.unwrap();
    stream.flush().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    door.serves("240 answers that nobody reads").await;
    drop(stream);

    // Every stranger of the beginning is gone by now.
    for (n, waiting) in waiting {
        assert!(waiting.await.unwrap().is_some(), "stranger {n} ({}) may stay for ever", n % 8);
    }
    for stream in silent {
        assert!(ended(stream, GONE).await.is_some(), "a handshake may last for ever");
    }
}
