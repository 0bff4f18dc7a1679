//! Answers that travel small or not at all: gzip for large bodies, and tags with which a client need not fetch again what it has.

use std::io::Write as _;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzDecoder, GzEncoder};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use sha2::{Digest, Sha256};

use super::failure::{Failure, bytes_response};

/// Bodies from this size on are packed for clients that like it: Kubernetes' own limit. Below, packing costs more than it saves.
const WORTH_IT: u64 = 128 * 1024;

/// Marks an answer whose body is a stream and large.
#[derive(Clone)]
pub(super) struct Large;

/// Marks an answer as large if its body will be.
pub(super) fn mark(response: &mut Response<Body>, size: u64) {
    if size >= WORTH_IT {
        response.extensions_mut().insert(Large);
    }
}

/// Whether a client takes gzip.
pub(super) fn wanted(headers: &HeaderMap) -> bool {
    let options = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    options.map(|option| option.split(';').map(str::trim)).any(|mut parts| {
        let coding = parts.next().unwrap_or_default();
        let refused = parts.any(|p| p.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q == 0.0)));
        coding.eq_ignore_ascii_case("gzip") && !refused
    })
}

/// Packs an answer if it is large. Only for clients that take gzip.
pub(super) fn pack(response: Response<Body>) -> Response<Body> {
    let large =
        response.extensions().get::<Large>().is_some() || response.body().size_hint().exact().is_some_and(|n| n >= WORTH_IT);
    if !large || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    coded(&mut parts.headers);
    Response::from_parts(parts, Body::from_stream(packing(body)))
}

fn coded(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// The pieces of a body, packed as they come.
fn packing(body: Body) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    // The fastest level, as in Kubernetes: the network is seldom so slow that more is worth its time.
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    stream::unfold(Some((body.into_data_stream(), encoder)), |state| async {
        let (mut pieces, mut encoder) = state?;
        loop {
            match pieces.next().await {
                Some(Ok(piece)) => {
                    encoder.write_all(&piece).expect("a list of bytes takes everything");
                    let done = std::mem::take(encoder.get_mut());
                    if !done.is_empty() {
                        return Some((Ok(done.into()), Some((pieces, encoder))));
                    }
                }
                Some(Err(error)) => return Some((Err(error), None)),
                None => return Some((Ok(encoder.finish().expect("a list of bytes takes everything").into()), None)),
            }
        }
    })
}

/// A document that is asked for again and again: kept packed.
pub(super) struct Packed {
    /// Tells this content from any other.
    pub(super) tag: String,
    gzip: Bytes,
}

impl Packed {
    pub(super) fn new(content: &[u8]) -> Packed {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).expect("a list of bytes takes everything");
        Packed { tag: tag(content), gzip: encoder.finish().expect("a list of bytes takes everything").into() }
    }

    /// What it holds.
    pub(super) fn unpacked(&self) -> Vec<u8> {
        let mut decoder = GzDecoder::new(Vec::new());
        decoder.write_all(&self.gzip).and_then(|()| decoder.finish()).expect("it was packed by us")
    }

    /// The answer to a client: nothing new, or the document in the coding that the client takes.
    pub(super) fn answer(&self, headers: &HeaderMap, content_type: &str) -> Response<Body> {
        let mut response = if known(headers, &self.tag) {
            let mut response = bytes_response(304, content_type, Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else if wanted(headers) {
            let mut response = bytes_response(200, content_type, self.gzip.clone());
            coded(response.headers_mut());
            response
        } else {
            bytes_response(200, content_type, self.unpacked())
        };
        name(&mut response, &self.tag);
        response
    }
}

/// An answer with a tag; nothing but the tag for a client that has it.
pub(super) fn tagged(headers: &HeaderMap, content_type: &str, content: String) -> Response<Body> {
    let tag = tag(content.as_bytes());
    let mut response = match known(headers, &tag) {
        true => bytes_response(304, content_type, Body::empty()),
        false => bytes_response(200, content_type, content),
    };
    name(&mut response, &tag);
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn tag(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|b| format!("{b:02X}")).collect()
}

fn name(response: &mut Response<Body>, tag: &str) {
    let value = HeaderValue::from_str(&format!("\"{tag}\"")).expect("hexadecimal digits");
    response.headers_mut().insert(header::ETAG, value);
}

fn known(headers: &HeaderMap, tag: &str) -> bool {
    let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    tags.map(|t| t.trim().trim_start_matches("W/").trim_matches('"')).any(|t| t == tag || t == "*")
}

/// Where a document with another tag is now.
pub(super) fn elsewhere(place: &str) -> Result<Response<Body>, Failure> {
    let mut response = bytes_response(301, "text/plain", Body::empty());
    let place = HeaderValue::from_str(place).map_err(|_| Failure::no_route())?;
    response.headers_mut().insert(header::LOCATION, place);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn who_takes_gzip() {
        for (value, takes) in
            [("gzip", true), ("deflate, gzip;q=0.5", true), ("gzip;q=0", false), ("br", false), ("GZIP ; q=1", true), ("", false)]
        {
            assert_eq!(wanted(&headers(header::ACCEPT_ENCODING, value)), takes, "{value}");
        }
        assert!(!wanted(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn large_bodies_are_packed_and_small_ones_are_not() {
        let small = pack(bytes_response(200, "application/json", "x".repeat(1000)));
        assert!(!small.headers().contains_key(header::CONTENT_ENCODING));
        let pieces: Vec<Result<Bytes, std::io::Error>> = (0..300).map(|n| Ok(Bytes::from(format!("{n:01000}")))).collect();
        let whole: Vec<u8> = pieces.iter().flat_map(|p| p.as_ref().unwrap().to_vec()).collect();
        let mut streamed = bytes_response(200, "application/json", Body::from_stream(stream::iter(pieces)));
        mark(&mut streamed, whole.len() as u64);
        let packed = pack(streamed);
        assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip");
        let bytes = packed.into_body().collect().await.unwrap().to_bytes();
        assert!(bytes.len() < whole.len() / 10);
        let mut decoder = GzDecoder::new(Vec::new());
        decoder.write_all(&bytes).unwrap();
        assert!(decoder.finish().unwrap() == whole);
    }

    #[test]
    fn a_document_is_sent_once() {
        let document = Packed::new(b"hello");
        let first = document.answer(&HeaderMap::new(), "text/plain");
        assert_eq!((first.status(), document.unpacked().as_slice()), (StatusCode::OK, b"hello".as_slice()));
        let tag = first.headers()[header::ETAG].to_str().unwrap();
        let again = document.answer(&headers(header::IF_NONE_MATCH, &format!("\"x\", {tag}")), "text/plain");
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(
            tagged(&headers(header::IF_NONE_MATCH, tag), "text/plain", "hello".to_owned()).status(),
            StatusCode::NOT_MODIFIED
        );
        assert_eq!(tagged(&headers(header::IF_NONE_MATCH, tag), "text/plain", "hello!".to_owned()).status(), StatusCode::OK);
    }
}
