//! `pods/proxy`, `services/proxy` and `nodes/proxy`: an HTTP request for a program in a pod, or for a host's agent, that comes through the
//! API.
//!
//! A pod is reached like a forwarded port, by a connection of its own for each request, so that no host opens a port and what listens
//! only on the loopback of its pod is reached too. Of a service, any pod that is ready and not leaving answers. What the client is to us
//! (its token, whom it acts for) is not passed on. Pages are passed on as they are: addresses in them are not rewritten.
//!
//! You will not find here: other ports of a host.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, request};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1 as core;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::PollSender;

use super::forward::{AHEAD, Pod};
use super::{LONGEST, agent_request, unverified};
use crate::api::Api;
use crate::api::auth::Identity;
use crate::api::failure::Failure;
use crate::api::path::{Target, beyond_proxy, encode};
use crate::object::kind_of;

/// What is about one connection and not about the request.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// The same, without a name in the library.
const HOP_BY_HOP_TOO: [&str; 3] = ["keep-alive", "proxy-connection", "http2-settings"];
/// A WebSocket's way to carry a token.
const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
/// How long a pod may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// The port of a kubelet, which some clients name.
const KUBELET_PORT: &str = "10250";

impl Api {
    /// Passes a request on. Who asks may do so.
    pub(in crate::api) async fn proxy(
        &self,
        identity: &Identity,
        target: &Target,
        parts: request::Parts,
        body: Body,
    ) -> Result<Response<Body>, Failure> {
        let (own, rest) = beyond_proxy(parts.uri.path()).ok_or_else(Failure::no_route)?;
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        if rest.is_empty() && reads {
            // Addresses in the page are relative to a directory.
            let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            return redirect(&format!("{own}/{query}"));
        }
        let resource = target.kind.plural.trim_end_matches('s');
        let wanted = Address::parse(&target.name)
            .ok_or_else(|| Failure::bad_request(format!("invalid {resource} request {:?}", target.name)))?;
        let named = Target { name: wanted.name.to_owned(), ..target.clone() };
        let (pod, port) = match target.kind.plural {
            "nodes" => return self.node_proxy(&named, wanted.port, &parts, rest).await,
            "services" => self.behind(&named, wanted.port).await?,
            _ => {
                let object = self.find(&named).await?;
                let port = pod_port(&object.value(), wanted.port)?;
                (place(&named.namespace, &object.value()), port)
            }
        };
        let pod = pod.ok_or_else(|| Failure::bad_request(format!("pod {} does not have a host assigned", wanted.name)))?;
        let (own, rest) = (own.to_owned(), rest.to_owned());
        self.pass_on(identity, &pod, (wanted.tls, port), parts, body, &own, &rest).await
    }

    /// A pod behind a service, and its port.
    async fn behind(&self, target: &Target, port: &str) -> Result<(Option<Pod>, u16), Failure> {
        let service = self.find(target).await?.value();
        let spec = &service["spec"];
        let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
        let number = |of: &Value| of["port"].as_u64().map(|number| number.to_string());
        let by_number = ports.iter().find(|of| number(of).as_deref() == Some(port));
        let found = match (by_number, port.parse::<u64>()) {
            (Some(found), _) => Some(found),
            (None, Ok(number)) => {
                let why = format!("no service port {number} found for service {:?}", target.name);
                return Err(Failure::unavailable(why));
            }
            (None, Err(_)) => ports.iter().find(|of| of["name"].as_str().unwrap_or_default() == port),
        };
        let none = || Failure::unavailable(format!("no endpoints available for service {:?}", target.name));
        let (found, selector) = match (found, spec["selector"].as_object().filter(|labels| !labels.is_empty())) {
            (Some(found), Some(selector)) => (found, selector),
            _ => return Err(none()),
        };
        let chosen = |pod: &Value| selector.iter().all(|(name, value)| pod["metadata"]["labels"].get(name) == Some(value));
        let view = self.store().durable_view();
        let mut places: Vec<(Pod, u16)> = view
            .list_in(kind_of::<core::Pod>(), &target.namespace)
            .map(|object| object.value())
            .filter(|pod| chosen(pod) && is_ready(pod))
            .filter_map(|pod| Some((place(&target.namespace, &pod)?, target_port(&pod, found)?)))
            .collect();
        if places.is_empty() {
            return Err(none());
        }
        let mut dice = [0u8; 4];
        let _ = getrandom::fill(&mut dice);
        let (pod, port) = places.swap_remove(u32::from_le_bytes(dice) as usize % places.len());
        Ok((Some(pod), port))
    }

    /// What an agent says about its host, as kubelets do on the same paths. Only what reads, and only these: the right to
    /// `nodes/proxy` is none to act in containers.
    async fn node_proxy(
        &self,
        target: &Target,
        port: &str,
        parts: &request::Parts,
        rest: &str,
    ) -> Result<Response<Body>, Failure> {
        self.find(target).await?;
        if !matches!(port, "" | KUBELET_PORT) {
            return Err(Failure::bad_request(format!("the agent of node {:?} opens no ports: leave the port out", target.name)));
        }
        if parts.method != Method::GET {
            return Err(Failure::method_not_allowed());
        }
        let words: Vec<&str> = rest.trim_matches('/').split('/').collect();
        let known =
            matches!(words.as_slice(), ["healthz" | "pods" | "runningpods"] | ["stats", "summary"] | ["containerLogs", _, _, _]);
        if !known || words.iter().any(|word| word.is_empty() || matches!(*word, "." | "..")) {
            return Err(Failure::missing(format!("the agent of node {:?} has nothing at {rest}", target.name)));
        }
        let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = format!("/{}{query}", words.join("/"));
        let response = self.ask_agent(&target.name, agent_request(Method::GET, &path, Body::empty())?).await?;
        let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
        let mut passed = Response::new(Body::new(response.into_body()));
        passed.headers_mut().extend(content_type.map(|value| (header::CONTENT_TYPE, value)));
        Ok(passed)
    }

    /// One request over a connection of its own, and what comes back.
    #[allow(clippy::too_many_arguments)] // all of one request
    async fn pass_on(
        &self,
        identity: &Identity,
        pod: &Pod,
        (tls, port): (bool, u16),
        mut parts: request::Parts,
        body: Body,
        own: &str,
        rest: &str,
    ) -> Result<Response<Body>, Failure> {
        let seat = self.seat()?;
        let unreached = |why: String| Failure::unavailable(format!("error trying to reach service: {why}"));
        let client = parts.extensions.remove::<OnUpgrade>();
        let asked = upgrade_asked(&parts.headers).filter(|_| client.is_some());
        let request = forwarded(&parts, body, own, rest, asked.as_ref())?;
        let stream = self.line(pod, port).await.map_err(|failure| unreached(failure.message))?;
        let stream: Box<dyn Line> = match tls {
            true => {
                let shaken = tokio::time::timeout(HANDSHAKE, unverified::connect(stream)).await;
                let shaken = shaken.map_err(|_| unreached("it does not speak TLS in time".to_owned()))?;
                Box::new(shaken.map_err(|e| unreached(e.to_string()))?)
            }
            false => Box::new(stream),
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreached(e.to_string()))?;
        // Ends with the answer, or with the client that no longer takes it.
        tokio::spawn(async move { _ = connection.with_upgrades().await });
        let mut response = tokio::select! {
            answered = sender.send_request(request) => answered.map_err(|e| unreached(e.to_string()))?,
            () = self.until_cut(identity) => return Err(unreached("the session was ended by the server".to_owned())),
        };
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let theirs = upgraded.then(|| hyper::upgrade::on(&mut response));
        let protocol = response.headers().get(header::UPGRADE).cloned();
        let (mut head, answer) = response.into_parts();
        strip(&mut head.headers);
        // What a page of the pod allows to other sites is not ours to allow.
        let foreign: Vec<HeaderName> =
            head.headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
        foreign.iter().for_each(|name| drop(head.headers.remove(name)));
        let host = host_of(&parts);
        if let Some(location) = head.headers.get(header::LOCATION).and_then(|value| value.to_str().ok())
            && let Some(moved) = relocated(location, own, &host)
            && let Ok(moved) = HeaderValue::from_str(&moved)
        {
            head.headers.insert(header::LOCATION, moved);
        }
        head.version = http::Version::HTTP_11;
        head.extensions.clear();
        let (api, identity) = (self.clone(), identity.clone());
        if let (Some(theirs), Some(client)) = (theirs, client) {
            if let Some(protocol) = protocol {
                head.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
                head.headers.insert(header::UPGRADE, protocol);
            }
            tokio::spawn(async move {
                if let (Ok(theirs), Ok(client)) = tokio::join!(theirs, client) {
                    let (mut theirs, mut client) = (TokioIo::new(theirs), TokioIo::new(client));
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut theirs) => {}
                        () = api.until_cut(&identity) => {}
                        () = tokio::time::sleep(LONGEST) => {}
                    }
                }
                drop(seat);
            });
            return Ok(Response::from_parts(head, Body::empty()));
        }
        let over = async move { api.until_cut(&identity).await };
        let pieces = answer.into_data_stream().take_until(Box::pin(over)).map(move |piece| {
            let _held = &seat;
            piece
        });
        Ok(Response::from_parts(head, Body::from_stream(pieces)))
    }

    /// A connection to a port of a pod, as bytes in both directions.
    async fn line(&self, pod: &Pod, port: u16) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, Failure> {
        let (sender, said) = mpsc::channel::<Bytes>(AHEAD);
        let heard = self.dial(pod, port, said).await?;
        let pieces = heard.into_data_stream().map(|piece| piece.map_err(std::io::Error::other));
        let sink = PollSender::new(sender).sink_map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        Ok(tokio::io::join(StreamReader::new(pieces), SinkWriter::new(CopyToBytes::new(sink))))
    }
}

/// Bytes in both directions.
trait Line: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Line for T {}

/// What a name before `/proxy` says: `name`, `name:port` or `scheme:name:port`.
#[derive(Debug, PartialEq)]
struct Address<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

impl Address<'_> {
    fn parse(text: &str) -> Option<Address<'_>> {
        let words: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match words.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https") && !name.is_empty();
        known.then_some(Address { tls: scheme == "https", name, port })
    }
}

/// Where a pod is; `None` while it is nowhere.
fn place(namespace: &str, pod: &Value) -> Option<Pod> {
    let node = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty())?;
    let name = pod["metadata"]["name"].as_str()?;
    Some(Pod { node: node.to_owned(), path: format!("{}/{}", encode(namespace), encode(name)) })
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn ports(pod: &Value) -> impl Iterator<Item = &Value> {
    let containers = pod["spec"]["containers"].as_array();
    containers.into_iter().flatten().flat_map(|c| c["ports"].as_array().into_iter().flatten())
}

fn number(port: &Value) -> Option<u16> {
    u16::try_from(port.as_u64()?).ok().filter(|port| *port > 0)
}

/// The port of a pod that a request means: a number, the name of a port, or without either the first that the pod tells of, and else 80.
fn pod_port(pod: &Value, wanted: &str) -> Result<u16, Failure> {
    if wanted.is_empty() {
        return Ok(ports(pod).find_map(|port| number(&port["containerPort"])).unwrap_or(80));
    }
    let named = ports(pod).find(|port| port["name"] == wanted).and_then(|port| number(&port["containerPort"]));
    let found = named.or_else(|| wanted.parse().ok().filter(|port| *port > 0));
    found.ok_or_else(|| Failure::bad_request(format!("invalid port {wanted:?}")))
}

/// The port of a pod behind a port of a service.
fn target_port(pod: &Value, port: &Value) -> Option<u16> {
    match &port["targetPort"] {
        Value::String(name) => ports(pod).find(|port| port["name"] == **name).and_then(|port| number(&port["containerPort"])),
        Value::Null => number(&port["port"]),
        target => number(target),
    }
}

/// The protocol that a request wants its connection to become.
fn upgrade_asked(headers: &HeaderMap) -> Option<HeaderValue> {
    let words = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asks = words.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| asks).cloned()
}

/// Takes out what is about the connection that it came on.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|word| word.trim().to_owned()))
        .collect();
    HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(name)));
    HOP_BY_HOP_TOO.iter().for_each(|name| drop(headers.remove(*name)));
    named.iter().for_each(|name| drop(headers.remove(name.as_str())));
}

/// The name under which the client knows this API.
fn host_of(parts: &request::Parts) -> String {
    let said = parts.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    said.or_else(|| parts.uri.authority().map(http::uri::Authority::as_str)).unwrap_or("localhost").to_owned()
}

/// The request as the pod gets it.
fn forwarded(
    parts: &request::Parts,
    body: Body,
    own: &str,
    rest: &str,
    upgrade: Option<&HeaderValue>,
) -> Result<Request<Body>, Failure> {
    let path = if rest.is_empty() { "/" } else { rest };
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let request = Request::builder().method(parts.method.clone()).uri(format!("{path}{query}")).body(body);
    let mut request = request.map_err(|e| Failure::bad_request(format!("the request cannot be passed on: {e}")))?;
    let headers = request.headers_mut();
    *headers = parts.headers.clone();
    strip(headers);
    // Who this is to us is nobody else's business.
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            **name == header::AUTHORIZATION || ["impersonate-", "x-remote-"].iter().any(|p| name.as_str().starts_with(p))
        })
        .cloned()
        .collect();
    ours.iter().for_each(|name| drop(headers.remove(name)));
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = offered.flat_map(|value| value.split(',')).map(str::trim).collect();
    if offered.iter().any(|name| name.starts_with(BEARER_PROTOCOL)) {
        let others: Vec<&str> = offered.into_iter().filter(|name| !name.starts_with(BEARER_PROTOCOL)).collect();
        let others = HeaderValue::from_str(&others.join(", ")).ok().filter(|value| !value.is_empty());
        headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
        headers.extend(others.map(|value| (header::SEC_WEBSOCKET_PROTOCOL, value)));
    }
    let host = host_of(parts);
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(header::HOST, &host);
    put(HeaderName::from_static("x-forwarded-host"), &host);
    put(HeaderName::from_static("x-forwarded-proto"), "https");
    put(HeaderName::from_static("x-forwarded-uri"), &format!("{own}{rest}"));
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
    Ok(request)
}

/// Where the client finds what the pod calls `location`; `None` when it needs no other words.
fn relocated(location: &str, own: &str, host: &str) -> Option<String> {
    let local = ["http://", "https://"].iter().find_map(|scheme| location.strip_prefix(scheme)?.strip_prefix(host));
    let path = local.unwrap_or(location);
    // `//elsewhere/` is another host.
    let absolute = path.starts_with('/') && !path.starts_with("//");
    (absolute && !path.starts_with(&format!("{own}/"))).then(|| format!("{own}{path}"))
}

fn redirect(location: &str) -> Result<Response<Body>, Failure> {
    let location = HeaderValue::from_str(location).map_err(|_| Failure::no_route())?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses() {
        let show = |text| Address::parse(text).map(|a| (a.tls, a.name, a.port));
        assert_eq!(show("web"), Some((false, "web", "")));
        assert_eq!(show("web:http"), Some((false, "web", "http")));
        assert_eq!(show("http:web:80"), Some((false, "web", "80")));
        assert_eq!(show("https:web:"), Some((true, "web", "")));
        assert_eq!(show(":web:"), Some((false, "web", "")));
        for refused in ["", ":80", "ftp:web:21", "a:b:c:d"] {
            assert_eq!(show(refused), None, "{refused}");
        }
    }

    #[test]
    fn ports_of_pods() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"ports": [{"name": "web", "containerPort": 8080}, {"containerPort": 9}]}]}});
        let port = |wanted| pod_port(&pod, wanted).map_err(|failure| failure.message);
        assert_eq!((port(""), port("web"), port("81")), (Ok(8080), Ok(8080), Ok(81)));
        assert_eq!(port("other"), Err("invalid port \"other\"".to_owned()));
        assert_eq!(port("0"), Err("invalid port \"0\"".to_owned()));
        assert_eq!(pod_port(&json!({"spec": {"containers": [{}]}}), "").unwrap(), 80);
        let rows = [
            (json!({"port": 80, "targetPort": "web"}), Some(8080)),
            (json!({"port": 80, "targetPort": 9}), Some(9)),
            (json!({"port": 80}), Some(80)),
            (json!({"port": 80, "targetPort": "other"}), None),
        ];
        for (row, wanted) in rows {
            assert_eq!(target_port(&pod, &row), wanted, "{row}");
        }
    }

    #[test]
    fn a_pod_that_sends_elsewhere_sends_through_the_proxy() {
        let own = "/api/v1/namespaces/shop/pods/web/proxy";
        let rows = [
            ("/login", Some("/api/v1/namespaces/shop/pods/web/proxy/login")),
            ("http://api:6443/login?a=b", Some("/api/v1/namespaces/shop/pods/web/proxy/login?a=b")),
            ("login", None),
            ("//other/login", None),
            ("https://other/login", None),
            ("/api/v1/namespaces/shop/pods/web/proxy/login", None),
        ];
        for (location, wanted) in rows {
            assert_eq!(relocated(location, own, "api:6443").as_deref(), wanted, "{location}");
        }
    }

    #[test]
    fn what_the_client_is_to_us_stays_with_us() {
        let request = Request::builder()
            .method("POST")
            .uri("https://api:6443/api/v1/namespaces/shop/pods/web/proxy/a%20b/?c=d")
            .header("authorization", "Bearer secret")
            .header("impersonate-user", "jane")
            .header("connection", "keep-alive, x-hop")
            .header("x-hop", "1")
            .header("keep-alive", "timeout=5")
            .header("sec-websocket-protocol", "chat, base64url.bearer.authorization.k8s.io.c2VjcmV0")
            .header("cookie", "a=b");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let (own, rest) = beyond_proxy(parts.uri.path()).unwrap();
        let passed = forwarded(&parts, Body::empty(), own, rest, None).unwrap();
        assert_eq!(passed.uri(), "/a%20b/?c=d");
        let mut headers: Vec<String> =
            passed.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        headers.sort();
        assert_eq!(
            headers,
            [
                "cookie: a=b",
                "host: api:6443",
                "sec-websocket-protocol: chat",
                "x-forwarded-host: api:6443",
                "x-forwarded-proto: https",
                "x-forwarded-uri: /api/v1/namespaces/shop/pods/web/proxy/a%20b/",
            ]
        );
        let upgrade = HeaderValue::from_static("websocket");
        let passed = forwarded(&parts, Body::empty(), own, "", Some(&upgrade)).unwrap();
        assert_eq!(
            (passed.uri().path(), &passed.headers()["upgrade"], &passed.headers()["connection"]),
            ("/", &upgrade, &HeaderValue::from_static("Upgrade"))
        );
    }
}
