//! Exec and port-forward over real sockets, as clients of both kinds speak them, and attacks on what an upgrade leaves behind.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::super::spdy::Frame;
use super::super::spdy::tests::{Peer, control, data};
use super::tunnelling::{agent, client, raw, real_clock};
use super::*;

/// Pod `web` on a host that is connected, and where the API listens.
pub(super) async fn shop() -> (World, SocketAddr) {
    let w = world();
    real_clock(&w);
    let address = w.listen().await;
    w.pod_on("web", "h1", json!({})).await;
    let pair = w.host("h1").await;
    agent(&w, address, "h1", &pair).await;
    (w, address)
}

pub(super) async fn admin(w: &World, address: SocketAddr) -> TlsStream<TcpStream> {
    let admin = w.authority.client("portolan-admin", &["system:masters"]).unwrap();
    w.connect(address, Some((&admin.certificate, &admin.key))).await.unwrap()
}

fn upgrade(what: &str, versions: &[&str]) -> String {
    let versions: String = versions.iter().map(|version| format!("X-Stream-Protocol-Version: {version}\r\n")).collect();
    format!(
        "POST /api/v1/namespaces/shop/pods/{what} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n{versions}\r\n"
    )
}

const EXEC: &str = "web/exec?command=cat&stdin=true&stdout=true&stderr=true&tty=true";

/// An exec session with a terminal: error 1, stdin 3, stdout 5, resize 7.
async fn exec(w: &World, address: SocketAddr, versions: &[&str]) -> (String, Peer<TlsStream<TcpStream>>) {
    let mut stream = admin(w, address).await;
    let answer = raw(&mut stream, &upgrade(EXEC, versions)).await;
    let mut peer = Peer::new(stream);
    for (stream, name) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "resize")] {
        peer.open(stream, &[("streamtype", name)]).await;
    }
    (answer, peer)
}

#[tokio::test]
async fn exec_over_spdy() {
    let (w, address) = shop().await;
    let (answer, mut peer) = exec(&w, address, &["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"]).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let lower = answer.to_lowercase();
    assert!(lower.contains("upgrade: spdy/3.1") && lower.contains("x-stream-protocol-version: v4.channel.k8s.io"), "{answer}");
    // Sizes are cut anywhere; pings are answered in between.
    peer.say(&data(7, br#"{"Width":80,"#, false)).await;
    peer.say(&control(6, 0, &[0, 0, 0, 1])).await;
    assert_eq!(peer.next().await, Some(Frame::Ping { id: 1 }));
    peer.say(&data(7, b"\"Height\":24}\n{\"Width\":1,\"Height\":2}\n", false)).await;
    let large = "x".repeat(100_000);
    peer.say(&data(3, large.as_bytes(), false)).await;
    peer.say(&data(3, b"", true)).await;
    let said = peer.all().await;
    let sizes = "size {\"Width\":80,\"Height\":24}size \n{\"Width\":1,\"Height\":2}";
    assert_eq!(said[&5], format!("{sizes}{large}|"));
    let status: Value = serde_json::from_str(said[&1].trim_end_matches('|')).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "7");
    assert_eq!(said[&0], "bye");
    assert_eq!(peer.next().await, None);
}

#[tokio::test]
async fn old_protocols_say_errors_in_words() {
    let (w, address) = shop().await;
    let (answer, mut peer) = exec(&w, address, &["v3.channel.k8s.io"]).await;
    assert!(answer.to_lowercase().contains("x-stream-protocol-version: v3.channel.k8s.io"), "{answer}");
    peer.say(&control(3, 0, &[0, 0, 0, 3, 0, 0, 0, 5])).await; // a reset of stdin is its end
    assert_eq!(peer.all().await[&1], "it ended with code 7|");
    let mut stream = admin(&w, address).await;
    let answer = raw(&mut stream, &upgrade(EXEC, &["v9.channel.k8s.io"])).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn what_is_not_spdy_ends_the_session_and_only_that() {
    let (w, address) = shop().await;
    for noise in [data(0, b"to nobody", false), vec![0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], vec![0xff; 5000]] {
        let (_, mut peer) = exec(&w, address, &["v4.channel.k8s.io"]).await;
        peer.say(&noise).await;
        while let Some(frame) = peer.next().await {
            assert!(matches!(frame, Frame::Data { .. } | Frame::GoAway), "{frame:?}");
        }
    }
    let (_, mut peer) = exec(&w, address, &["v4.channel.k8s.io"]).await;
    peer.say(&data(3, b"still there", true)).await;
    assert_eq!(peer.all().await[&5], "still there|");
}

#[tokio::test]
async fn ports_over_spdy() {
    let (w, address) = shop().await;
    let mut stream = admin(&w, address).await;
    let answer = raw(&mut stream, &upgrade("web/portforward", &["portforward.k8s.io"])).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let mut peer = Peer::new(stream);
    // Three connections at once: one that talks, one that nobody hears, one that the client gives up.
    for (error, port) in [(1, "80"), (5, "81"), (9, "80")] {
        let id = error.to_string();
        peer.open(error, &[("streamtype", "error"), ("port", port), ("requestid", &id)]).await;
        peer.say(&data(error, b"", true)).await;
        peer.open(error + 2, &[("streamtype", "data"), ("port", port), ("requestid", &id)]).await;
    }
    peer.open(13, &[("streamtype", "data"), ("port", "0"), ("requestid", "13")]).await;
    peer.say(&data(11, b"lost", false)).await;
    peer.say(&control(3, 0, &[0, 0, 0, 11, 0, 0, 0, 5])).await;
    let large = "y".repeat(500_000);
    peer.say(&data(3, large.as_bytes(), true)).await;
    let (mut echoed, mut problem, mut ended, mut refused) = (0, String::new(), Vec::new(), false);
    while ended.len() < 4 || !refused {
        match peer.next().await.unwrap() {
            Frame::Data { stream, bytes, last } => {
                match stream {
                    3 => echoed += bytes.len(),
                    5 => problem += std::str::from_utf8(&bytes).unwrap(),
                    _ => {}
                }
                ended.extend((last && stream != 9 && stream != 11).then_some(stream));
            }
            Frame::Reset { stream } => refused = stream == 13,
            other => panic!("{other:?}"),
        }
    }
    ended.sort_unstable();
    assert_eq!((echoed, problem.as_str(), ended), (500_000, "container is waiting to start", vec![1, 3, 5, 7]));
}

#[tokio::test]
async fn ports_in_the_channels_of_a_websocket() {
    let (w, address) = shop().await;
    let pods: kube::Api<core::Pod> = kube::Api::namespaced(client(&w, address), "shop");
    let mut forwarder = pods.portforward("web", &[80, 81]).await.unwrap();
    let mut stream = forwarder.take_stream(80).unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut echoed = [0u8; 5];
    tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut echoed)).await.unwrap().unwrap();
    assert_eq!(&echoed, b"hello");
    let problem = forwarder.take_error(81).unwrap();
    let problem = tokio::time::timeout(Duration::from_secs(10), problem).await.unwrap();
    assert_eq!(problem.as_deref(), Some("container is waiting to start"));
}

/// CVE-2018-1002105: an upgrade that is refused leaves an ordinary connection behind, on which nothing reaches the host.
#[tokio::test]
async fn attack_i_a_refused_upgrade_leaves_no_way_to_the_host() {
    let (w, address) = shop().await;
    w.pod_on("two", "h1", json!({})).await;
    for what in ["two/exec?command=ls&stdout=true", "two/attach?stdout=true", "two/portforward", "web/exec?stdout=true"] {
        let mut stream = admin(&w, address).await;
        let answer = raw(&mut stream, &upgrade(what, &["v4.channel.k8s.io", "portforward.k8s.io"])).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{what}: {answer}");
        let length: usize =
            answer.to_lowercase().split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        for path in ["/containerLogs/shop/web/c", "/exec/shop/web/c?command=ls", "/portForward/shop/web"] {
            let answer = raw(&mut stream, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 404"), "{what}, {path}: {answer}");
            if answer.is_empty() {
                break; // hung up: as good
            }
            let length: usize =
                answer.to_lowercase().split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
            stream.read_exact(&mut vec![0; length]).await.unwrap();
        }
    }
}

/// CVE-2020-8559: a host that redirects is not followed, nor is its redirect handed to the client.
#[tokio::test]
async fn attack_i_a_redirect_of_a_host_goes_nowhere() {
    let (w, address) = shop().await;
    w.pod_on("moved", "h1", json!({})).await;
    for what in ["moved/exec?command=ls&stdout=true", "moved/portforward"] {
        let mut stream = admin(&w, address).await;
        let answer = raw(&mut stream, &upgrade(what, &["v4.channel.k8s.io", "portforward.k8s.io"])).await;
        assert!(answer.starts_with("HTTP/1.1 500") && !answer.to_lowercase().contains("location"), "{what}: {answer}");
    }
    let log = w.ask("GET /api/v1/namespaces/shop/pods/moved/log", Value::Null).await;
    assert_eq!((log.code, log.headers.get("location")), (500, None));
}

/// A session ends with the credential of whoever opened it.
#[tokio::test]
async fn attack_i_a_session_ends_with_its_credential() {
    let (w, address) = shop().await;
    let (_, mut peer) = exec(&w, address, &["v4.channel.k8s.io"]).await;
    peer.say(&data(3, b"good morning", false)).await;
    assert!(matches!(peer.next().await, Some(Frame::Data { stream: 5, .. })));
    w.pass(100 * 365 * 24 * 3600);
    let said = peer.all().await;
    assert!(said[&1].contains("the session was ended by the server"), "{said:?}");
}

/// Whoever follows a log and does not read it must not take the connection to the host from the others.
#[tokio::test]
async fn readers_that_are_stuck_leave_room_for_others() {
    let (w, _) = shop().await;
    w.pod_on("endless", "h1", json!({})).await;
    let log = |pod: &str| {
        let request = Request::get(format!("/api/v1/namespaces/shop/pods/{pod}/log?follow=true")).extension(Identity::admin());
        w.api.handle(request.body(Body::empty()).unwrap())
    };
    let mut stuck = Vec::new();
    for _ in 0..40 {
        stuck.push(log("endless").await);
    }
    tokio::time::sleep(Duration::from_millis(300)).await; // until every window is full
    let answer =
        tokio::time::timeout(Duration::from_secs(10), async { log("web").await.into_body().collect().await.unwrap().to_bytes() });
    assert!(answer.await.unwrap().starts_with(b"http://agent/containerLogs/shop/web/c"));
    assert!(stuck.iter().all(|answer| answer.status() == 200));
}
