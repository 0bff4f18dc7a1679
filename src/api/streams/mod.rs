//! Logs, exec, attach, port-forward and proxied requests: from a client, through the tunnel, to the agent that runs the pod, and back.
//!
//! A client's connection is upgraded only after the agent has agreed, so that errors stay errors (CVE-2018-1002105), and what travels
//! on it afterwards never becomes a request to the agent: each of those is made here. What agents answer is never followed elsewhere
//! (CVE-2020-8559). All of it is cut when the client's credential ends.
//!
//! ```text
//! front (WebSocket or SPDY?) -> session (exec, attach) | forward (ports) -> tunnel
//! proxy (HTTP)                                        -> forward         -> tunnel
//! ```

mod forward;
mod front;
mod proxy;
mod session;
mod unverified;

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::Api;
use super::auth::Identity;
use super::failure::{Failure, bytes_response};
use super::path::{Query, Target, encode};

/// How long a session may last: Kubernetes' limit for idle ones, for all.
const LONGEST: Duration = Duration::from_secs(4 * 3600);
/// How long a client may take to read what is left when a session has ended, and when it was ended by us.
const FAREWELL: Duration = Duration::from_secs(300);
const SHORT_FAREWELL: Duration = Duration::from_secs(2);
/// How long a client that has been sent everything has to hang up: leaving earlier could cost it the last bytes.
const HANG_UP: Duration = Duration::from_secs(5);

/// Where a container is.
struct Place {
    node: String,
    /// `{namespace}/{pod}/{container}`, escaped.
    path: String,
}

impl Api {
    /// The container that a request means, and the node that runs it.
    async fn container(&self, target: &Target, query: &Query) -> Result<Place, Failure> {
        let pod = self.find(target).await?.value();
        let spec = &pod["spec"];
        let names = |list: &str| -> Vec<String> {
            spec[list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
        };
        let (plain, inits, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
        let preferred = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str().unwrap_or("");
        let container = match (query.get("container"), plain.as_slice()) {
            ("", [only]) => only.clone(),
            ("", _) if plain.iter().any(|name| name == preferred) => preferred.to_owned(),
            ("", _) => {
                let mut why =
                    format!("a container name must be specified for pod {}, choose one of: [{}]", target.name, plain.join(" "));
                if !inits.is_empty() {
                    why.push_str(&format!(" or one of the init containers: [{}]", inits.join(" ")));
                }
                return Err(Failure::bad_request(why));
            }
            (name, _) => name.to_owned(),
        };
        if ![&plain, &inits, &ephemeral].iter().any(|list| list.contains(&container)) {
            return Err(Failure::bad_request(format!("container {container} is not valid for pod {}", target.name)));
        }
        let node = spec["nodeName"].as_str().unwrap_or("");
        if node.is_empty() && target.subresource != "log" {
            return Err(Failure::bad_request(format!("pod {} does not have a host assigned", target.name)));
        }
        let path = format!("{}/{}/{}", encode(&target.namespace), encode(&target.name), encode(&container));
        Ok(Place { node: node.to_owned(), path })
    }

    /// `pods/log`
    pub(super) async fn log(&self, identity: &Identity, target: &Target, query: &Query) -> Result<Response<Body>, Failure> {
        let place = match self.container(target, query).await? {
            // Nothing has been written yet; that is no error.
            place if place.node.is_empty() => return Ok(bytes_response(204, "text/plain", Body::empty())),
            place => place,
        };
        let mut flags = Vec::new();
        for name in ["follow", "previous", "timestamps"] {
            if query.flag(name) {
                flags.push(format!("{name}=true"));
            }
        }
        for name in ["tailLines", "sinceSeconds", "limitBytes"] {
            if let Some(number) = query.number(name)? {
                let least = i64::from(name != "tailLines");
                if number < least {
                    return Err(Failure::unprocessable(format!(
                        "PodLogOptions.core \"\" is invalid: {name}: Invalid value: {number}: must be greater than or equal to {least}"
                    )));
                }
                flags.push(format!("{name}={number}"));
            }
        }
        if !query.get("sinceTime").is_empty() {
            let time: Timestamp = query.get("sinceTime").parse().map_err(|_| {
                Failure::bad_request(format!("sinceTime: Invalid value: {:?}: must be a time", query.get("sinceTime")))
            })?;
            if !query.get("sinceSeconds").is_empty() {
                return Err(Failure::unprocessable(
                    "PodLogOptions.core \"\" is invalid: sinceSeconds: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
                ));
            }
            flags.push(format!("sinceTime={}", encode(&time.to_string())));
        }
        let request = agent_request(Method::GET, &format!("/containerLogs/{}?{}", place.path, flags.join("&")), Body::empty())?;
        let response = self.ask_agent(&place.node, request).await?;
        let (api, identity) = (self.clone(), identity.clone());
        let over = async move { api.until_cut(&identity).await };
        let pieces = response.into_body().into_data_stream().take_until(Box::pin(over));
        Ok(bytes_response(200, "text/plain", Body::from_stream(pieces)))
    }

    /// Ready when a stream has to be cut: the credential is no longer good, or the server stops.
    async fn until_cut(&self, identity: &Identity) {
        let stay = self.stay_valid(identity);
        tokio::select! {
            () = self.inner.stopping.cancelled() => {}
            () = stay.over() => {}
        }
    }
}

impl Api {
    /// A place among the sessions. Each holds a connection and some memory; more are told to come back.
    fn seat(&self) -> Result<OwnedSemaphorePermit, Failure> {
        self.inner.sessions.clone().try_acquire_owned().map_err(|_| Failure::too_many())
    }
}

fn agent_request(method: Method, path: &str, body: Body) -> Result<Request<Body>, Failure> {
    // The authority of the address means nothing on a tunnel, but HTTP/2 wants one.
    Request::builder()
        .method(method)
        .uri(format!("http://agent{path}"))
        .body(body)
        .map_err(|e| Failure::bad_request(format!("the request cannot be passed on: {e}")))
}

/// A body that is said bit by bit.
fn told<T: Send + 'static>(
    receiver: mpsc::Receiver<T>,
    encode: impl Fn(T) -> Bytes + Send + 'static,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    stream::unfold((receiver, encode), |(mut receiver, encode)| async move {
        let item = receiver.recv().await?;
        Some((Ok(encode(item)), (receiver, encode)))
    })
}
