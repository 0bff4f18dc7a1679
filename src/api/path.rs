//! What a path means, and the parameters after the question mark.
//!
//! Each segment is decoded once, after splitting, and must be a plain name: a dot segment or an encoded slash never reaches another
//! kind's objects (CVE-2022-3162).

use super::failure::Failure;
use super::review::Review;
use crate::object::Kind;

/// Finds the row for a group, a version and a plural.
pub(super) type Find<'a> = &'a dyn Fn(&str, &str, &str) -> Option<&'static Kind>;

/// What a path names.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Route {
    /// `/healthz`, `/livez`, `/readyz`, and what may follow them.
    Health,
    /// `/version`
    Version,
    /// `/metrics`
    Metrics,
    /// `/cacert`: the authority's certificate.
    Authority,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/{group}`
    Group(String),
    /// `/api/v1`, `/apis/{group}/{version}`
    Resources {
        /// Empty for the core group.
        group: String,
        version: String,
    },
    /// `/openapi/v2`
    OpenApi2,
    /// `/openapi/v3`
    OpenApi3,
    /// `/openapi/v3/apis/apps/v1`: the part after `/openapi/v3/`.
    OpenApiDocument(String),
    /// `/openid/v1/jwks`: the keys of our tokens.
    Keys,
    /// `/.well-known/openid-configuration`
    OpenIdConfiguration,
    /// A question about rights or identities, and the namespace that it is asked in.
    Review(&'static Review, String),
    /// `/apis/portolan.dev/v1alpha1/join`
    Join,
    /// `/apis/portolan.dev/v1alpha1/nodes/{node}/tunnel`
    Tunnel(String),
    /// Objects, an object, or a subresource.
    Objects(Target),
}

/// Objects, an object, or a subresource.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) kind: &'static Kind,
    /// Empty for cluster-scoped kinds and for all namespaces.
    pub(super) namespace: String,
    /// Empty for a collection.
    pub(super) name: String,
    /// Empty for the object itself.
    pub(super) subresource: String,
}

impl Route {
    /// Reads a path. `find` knows the kinds.
    pub(super) fn parse(path: &str, find: Find<'_>) -> Result<Route, Failure> {
        // What follows `/proxy` is for somebody else to read.
        let path = beyond_proxy(path).map_or(path, |(own, _)| own);
        let trimmed = path.strip_prefix('/').unwrap_or(path);
        let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
        let mut parts = Vec::new();
        for segment in trimmed.split('/') {
            let part = decode(segment, false).ok_or_else(|| Failure::bad_request("invalid escape in path"))?;
            if part.is_empty() || part == "." || part == ".." || part.contains(['/', '%', '\0']) {
                return Err(Failure::no_route());
            }
            parts.push(part);
        }
        let words: Vec<&str> = parts.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["healthz" | "livez" | "readyz", ..] => Ok(Route::Health),
            ["version"] => Ok(Route::Version),
            ["metrics"] => Ok(Route::Metrics),
            ["cacert"] => Ok(Route::Authority),
            ["openid", "v1", "jwks"] => Ok(Route::Keys),
            [".well-known", "openid-configuration"] => Ok(Route::OpenIdConfiguration),
            ["openapi", "v2"] => Ok(Route::OpenApi2),
            ["openapi", "v3"] => Ok(Route::OpenApi3),
            ["openapi", "v3", rest @ ..] => Ok(Route::OpenApiDocument(rest.join("/"))),
            ["api"] => Ok(Route::CoreVersions),
            ["api", version] => Ok(Route::Resources { group: String::new(), version: (*version).to_owned() }),
            ["api", version, rest @ ..] => target("", version, rest, find),
            ["apis"] => Ok(Route::Groups),
            ["apis", group] => Ok(Route::Group((*group).to_owned())),
            ["apis", group, version] => Ok(Route::Resources { group: (*group).to_owned(), version: (*version).to_owned() }),
            ["apis", "portolan.dev", "v1alpha1", "join"] => Ok(Route::Join),
            ["apis", "portolan.dev", "v1alpha1", "nodes", node, "tunnel"] => Ok(Route::Tunnel((*node).to_owned())),
            ["apis", group, version, rest @ ..] => target(group, version, rest, find),
            _ => Err(Failure::no_route()),
        }
    }
}

/// A path to what is behind a pod, a service or a node, cut after `/proxy`; what follows is as it came.
pub(super) fn beyond_proxy(path: &str) -> Option<(&str, &str)> {
    let place = path.strip_prefix("/api/v1/")?;
    let slashes = match place.split('/').next()? {
        "namespaces" => 4,
        "nodes" => 2,
        _ => return None,
    };
    let (slash, _) = place.match_indices('/').nth(slashes - 1)?;
    let rest = place[slash..].strip_prefix("/proxy")?;
    (rest.is_empty() || rest.starts_with('/')).then(|| path.split_at(path.len() - rest.len()))
}

fn target(group: &str, version: &str, rest: &[&str], find: Find<'_>) -> Result<Route, Failure> {
    let (namespace, rest) = match rest {
        // `/namespaces/x` and its subresources are the namespace itself; anything else below it lives in it.
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] if group.is_empty() => ("", rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        _ => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, "", ""),
        [plural, name] => (*plural, *name, ""),
        [plural, name, subresource] => (*plural, *name, *subresource),
        _ => return Err(Failure::no_route()),
    };
    if let Some(review) = Review::of_path(group, version, plural) {
        // A question has no name, and is asked in a namespace or in none.
        let sound = name.is_empty() && subresource.is_empty() && review.namespaced != namespace.is_empty();
        return if sound { Ok(Route::Review(review, namespace.to_owned())) } else { Err(Failure::no_route()) };
    }
    let kind = find(group, version, plural).ok_or_else(Failure::no_route)?;
    let scoped = kind.namespaced != namespace.is_empty();
    // Without a namespace, a namespaced kind can only be listed, over all namespaces.
    if !(scoped || (kind.namespaced && name.is_empty())) || !(subresource.is_empty() || kind.has(subresource)) {
        return Err(Failure::no_route());
    }
    Ok(Route::Objects(Target {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
    }))
}

/// Parameters, decoded, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what follows the question mark. A bad escape is refused.
    pub(super) fn parse(text: &str) -> Result<Query, Failure> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded =
                |s: &str| decode(s, true).ok_or_else(|| Failure::bad_request(format!("invalid URL escape in {pair:?}")));
            pairs.push((decoded(name)?, decoded(value)?));
        }
        Ok(Query(pairs))
    }
    /// The first value of a parameter; empty when absent.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }
    /// All values of a parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    /// Whether a parameter is there and does not say no.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|(n, v)| n == name && !matches!(v.as_str(), "false" | "0" | "f" | "F" | "False" | "FALSE"))
    }
    /// A whole number, if the parameter is there.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, Failure> {
        match self.get(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Failure::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax ({name})"))),
        }
    }
}

/// Undoes percent encoding. `None`: a bad escape, or not UTF-8.
pub(super) fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |b: Option<u8>| char::from(b?).to_digit(16);
                (digit(rest.next())? * 16 + digit(rest.next())?) as u8
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Percent-encodes everything but letters, digits and `-._~`.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(path: &str) -> String {
        match Route::parse(path, &Kind::of_path) {
            Ok(Route::Objects(t)) => format!("{:?} ns={} name={} sub={}", t.kind, t.namespace, t.name, t.subresource),
            Ok(other) => format!("{other:?}"),
            Err(failure) => format!("{} {}", failure.code, failure.reason),
        }
    }

    #[test]
    fn paths() {
        let rows = [
            ("/api/v1/namespaces", "namespaces ns= name= sub="),
            ("/api/v1/namespaces/shop", "namespaces ns= name=shop sub="),
            ("/api/v1/namespaces/shop/finalize", "namespaces ns= name=shop sub=finalize"),
            ("/api/v1/namespaces/shop/pods", "pods ns=shop name= sub="),
            ("/api/v1/namespaces/shop/pods/web-1/log", "pods ns=shop name=web-1 sub=log"),
            ("/api/v1/pods", "pods ns= name= sub="),
            ("/api/v1/pods/web-1", "404 NotFound"),
            ("/api/v1/nodes/h1/status", "nodes ns= name=h1 sub=status"),
            ("/api/v1/nodes/h1/proxy/healthz", "nodes ns= name=h1 sub=proxy"),
            ("/api/v1/namespaces/shop/pods/http:web:80/proxy", "pods ns=shop name=http:web:80 sub=proxy"),
            ("/api/v1/namespaces/shop/services/web/proxy/..//a%2fb/", "services ns=shop name=web sub=proxy"),
            ("/api/v1/namespaces/shop/services/web/proxyx/a", "404 NotFound"),
            ("/api/v1/namespaces/shop/secrets/web/proxy/a", "404 NotFound"),
            ("/api/v1/namespaces/shop/pods/../proxy/a", "404 NotFound"),
            ("/api/v1/namespaces/shop/nodes/h1", "404 NotFound"),
            ("/apis/apps/v1/namespaces/shop/deployments/web/scale", "deployments.apps ns=shop name=web sub=scale"),
            ("/apis/apps/v1/namespaces/shop/deployments/web/log", "404 NotFound"),
            ("/apis/apps/v2/namespaces/shop/deployments/web", "404 NotFound"),
            ("/api/v1/namespaces/shop/secrets/..", "404 NotFound"),
            ("/api/v1/namespaces/shop/pods/..%2fsecrets%2fx", "404 NotFound"),
            ("/api/v1/namespaces/shop/pods/%2e%2e", "404 NotFound"),
            ("/api/v1/namespaces//pods", "404 NotFound"),
            ("/api/v1/namespaces/shop/pods/%zz", "400 BadRequest"),
            ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews/x", "404 NotFound"),
            ("/apis/authorization.k8s.io/v1/localsubjectaccessreviews", "404 NotFound"),
            ("/apis/authorization.k8s.io/v1/namespaces/shop/subjectaccessreviews", "404 NotFound"),
            ("/", "404 NotFound"),
            ("/healthz/ping", "Health"),
            ("/openapi/v3/apis/apps/v1", "OpenApiDocument(\"apis/apps/v1\")"),
            ("/apis/portolan.dev/v1alpha1/nodes/h1/tunnel", "Tunnel(\"h1\")"),
        ];
        for (path, wanted) in rows {
            assert_eq!(show(path), wanted, "{path}");
        }
    }

    #[test]
    fn parameters() {
        let query = Query::parse("fieldSelector=metadata.name%3Dweb&watch=true&command=a&command=b+c&limit=5&force").unwrap();
        assert_eq!(query.get("fieldSelector"), "metadata.name=web");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["a", "b c"]);
        assert!(query.flag("watch") && query.flag("force") && !query.flag("follow"));
        assert_eq!(query.number("limit").unwrap(), Some(5));
        assert!(Query::parse("a=%").is_err());
        assert_eq!(decode(&encode("a b/ü&="), false).as_deref(), Some("a b/ü&="));
    }
}
