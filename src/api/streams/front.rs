//! Which protocol a client's connection becomes: a WebSocket, or SPDY as kubectl up to 1.30 and many libraries ask for it.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::WebSocketUpgrade;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header, request};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use crate::api::failure::Failure;
use crate::api::spdy;

/// Where a SPDY client offers, and hears, what the streams mean.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// The largest WebSocket message of a client. kubectl sends 32 KiB at a time.
const MESSAGE_MAX: usize = 4 << 20;

/// A connection that can be upgraded, and has not been.
pub(super) enum Front {
    /// Messages, each of which begins with a channel's number; or bytes of another protocol.
    WebSocket { upgrade: Box<WebSocketUpgrade>, protocol: String },
    /// Streams.
    Spdy { upgrade: OnUpgrade, protocol: String },
}

impl Front {
    /// What a request asks for. Of what it offers, the first of `websocket` or `spdy` is chosen; offering nothing means the last.
    pub(super) async fn of(
        parts: &mut request::Parts,
        websocket: &[&'static str],
        spdy: &[&'static str],
    ) -> Result<Front, Failure> {
        let offered = offers(&parts.headers, &header::UPGRADE);
        if offered.iter().any(|name| name.eq_ignore_ascii_case(spdy::PROTOCOL)) {
            let protocol = choose(&offers(&parts.headers, &STREAM_PROTOCOL), spdy)?;
            let upgrade = parts.extensions.remove::<OnUpgrade>();
            let upgrade = upgrade.ok_or_else(|| Failure::bad_request("this connection cannot be upgraded to SPDY/3.1"))?;
            return Ok(Front::Spdy { upgrade, protocol });
        }
        let protocol = choose(&offers(&parts.headers, &header::SEC_WEBSOCKET_PROTOCOL), websocket);
        let upgrade = WebSocketUpgrade::from_request_parts(parts, &())
            .await
            .map_err(|_| Failure::bad_request("Upgrade request required: a WebSocket or SPDY/3.1"))?;
        let upgrade = upgrade.max_message_size(MESSAGE_MAX).max_frame_size(MESSAGE_MAX).protocols(websocket.to_vec());
        Ok(Front::WebSocket { upgrade: Box::new(upgrade), protocol: protocol? })
    }
}

/// The values of a header that is a list, or is there several times, or both.
fn offers(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()).collect()
}

fn choose(offered: &[String], ours: &[&'static str]) -> Result<String, Failure> {
    let found = match offered {
        [] => ours.last(),
        _ => ours.iter().find(|name| offered.iter().any(|offer| offer == *name)),
    };
    let found = found.ok_or_else(|| {
        Failure::bad_request(format!("unable to negotiate protocol: client supports {offered:?}, server accepts {ours:?}"))
    })?;
    Ok((*found).to_owned())
}

/// Answers that the connection becomes SPDY, and does so.
pub(super) fn spdy_upgrade<F, T>(upgrade: OnUpgrade, protocol: &str, run: F) -> Response<Body>
where
    F: FnOnce(TokioIo<Upgraded>) -> T + Send + 'static,
    T: Future<Output = ()> + Send,
{
    tokio::spawn(async move {
        match upgrade.await {
            Ok(stream) => run(TokioIo::new(stream)).await,
            Err(error) => tracing::debug!("upgrade to SPDY: {error}"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(spdy::PROTOCOL));
    if let Ok(protocol) = HeaderValue::from_str(protocol) {
        headers.insert(STREAM_PROTOCOL, protocol);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_preference_counts_and_not_the_order_of_offers() {
        let mut headers = HeaderMap::new();
        let check = |headers: &HeaderMap| choose(&offers(headers, &STREAM_PROTOCOL), &["v4", "v3", "v1"]).map_err(|f| f.code);
        assert_eq!(check(&headers), Ok("v1".to_owned()));
        headers.append(STREAM_PROTOCOL, "v5".parse().unwrap());
        assert_eq!(check(&headers), Err(400));
        headers.append(STREAM_PROTOCOL, "v1, v3".parse().unwrap());
        headers.append(STREAM_PROTOCOL, "v4".parse().unwrap());
        assert_eq!(check(&headers), Ok("v4".to_owned()));
    }
}
