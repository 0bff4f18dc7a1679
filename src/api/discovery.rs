//! Discovery: which groups, versions and kinds there are, and what can be done with each. All of it derives from `KINDS` and from what
//! people defined.

use axum::body::Body;
use http::{HeaderMap, Response};
use serde_json::{Value, json};

use super::failure::{Failure, json_response};
use super::packed::tagged;
use super::review::{REVIEWS, Review, VERSION};
use crate::object::Kind;
use crate::object::custom::{Kinds, names};
use crate::object::kind::MEASURED;

/// The Kubernetes version whose API this is. Clients compare it with their own: one off in either direction is fine to them, so this
/// serves kubectl 1.32 to 1.34 without a warning. What we serve is the same in all of them.
const MINOR: &str = "33";
/// The same as Kubernetes writes it.
pub(super) const GIT_VERSION: &str = concat!("v1.33.0+portolan.", env!("CARGO_PKG_VERSION"));

/// What can be done with every kind.
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

fn verbs(kind: &Kind) -> &'static [&'static str] {
    if kind.measured() { &["get", "list"] } else { VERBS }
}

/// The kind and the verbs of a subresource.
fn subresource(kind: &Kind, name: &str) -> (&'static str, &'static str, String, &'static [&'static str]) {
    let own = || kind.kind.to_owned();
    match name {
        "scale" => ("autoscaling", "v1", "Scale".to_owned(), &["get", "patch", "update"]),
        "binding" => ("", "v1", "Binding".to_owned(), &["create"]),
        "eviction" => ("policy", "v1", "Eviction".to_owned(), &["create"]),
        "finalize" => ("", "v1", own(), &["update"]),
        "log" => ("", "v1", own(), &["get"]),
        "token" => ("authentication.k8s.io", "v1", "TokenRequest".to_owned(), &["create"]),
        "exec" => ("", "v1", "PodExecOptions".to_owned(), &["create", "get"]),
        "attach" => ("", "v1", "PodAttachOptions".to_owned(), &["create", "get"]),
        "portforward" => ("", "v1", "PodPortForwardOptions".to_owned(), &["create", "get"]),
        "proxy" => ("", "v1", format!("{}ProxyOptions", kind.kind), &["create", "delete", "get", "patch", "update"]),
        _ => (kind.group, kind.version, own(), &["get", "patch", "update"]),
    }
}

/// Groups with their versions: those of the program in its order, then the defined ones by name, each with the version to prefer first;
/// those of reviews last.
pub(super) fn groups(kinds: &Kinds) -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    let mut defined: Vec<_> = kinds.custom().iter().map(|kind| (kind.group, kind.version)).collect();
    defined.sort_by(|a, b| a.0.cmp(b.0).then_with(|| names::prefer(a.1, b.1)));
    let ours = kinds.all().filter(|kind| kind.custom.is_none()).chain(MEASURED).map(|kind| (kind.group, kind.version));
    for place in ours.chain(defined) {
        if !found.contains(&place) {
            found.push(place);
        }
    }
    for review in REVIEWS {
        if !found.contains(&(review.group, VERSION)) {
            found.push((review.group, VERSION));
        }
    }
    found
}

fn reviews_of<'a>(group: &'a str, version: &'a str) -> impl Iterator<Item = &'static Review> + 'a {
    REVIEWS.iter().filter(move |r| r.group == group && version == VERSION)
}

fn kinds_of<'a>(kinds: &'a Kinds, group: &'a str, version: &'a str) -> impl Iterator<Item = &'static Kind> + 'a {
    kinds.all().chain(MEASURED).filter(move |k| k.group == group && k.version == version)
}

/// `/version`
pub(super) fn version() -> Response<Body> {
    json_response(
        200,
        &json!({
            "major": "1", "minor": MINOR,
            "gitVersion": GIT_VERSION,
            "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "", "compiler": "rustc", "platform": format!("linux/{}", architecture()),
        }),
    )
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `/api` and `/apis`: aggregated where the client knows that form, else the plain list.
pub(super) fn root(headers: &HeaderMap, kinds: &Kinds, core: bool) -> Response<Body> {
    let accept: Vec<&str> = headers.get_all(http::header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    let accept = accept.join(",");
    for option in accept.split(',').map(str::trim) {
        let has = |what: &str| option.split(';').any(|part| part.trim() == what);
        if has("g=apidiscovery.k8s.io") && has("as=APIGroupDiscoveryList") {
            for version in ["v2", "v2beta1"] {
                if has(&format!("v={version}")) {
                    let content_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
                    return tagged(headers, &content_type, aggregated(kinds, version, core).to_string());
                }
            }
        }
        if option.split(';').next() == Some("application/json") && !option.contains("as=") {
            break;
        }
    }
    if core {
        return json_response(200, &json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}));
    }
    let groups: Vec<Value> = named_groups(kinds).into_iter().map(|group| group_value(kinds, group)).collect();
    json_response(200, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

/// Names of the groups beside the core group.
fn named_groups(kinds: &Kinds) -> Vec<&'static str> {
    let mut names: Vec<&str> = groups(kinds).into_iter().map(|(group, _)| group).filter(|group| !group.is_empty()).collect();
    names.dedup();
    names
}

/// The versions of a group; the first is the one to prefer.
fn versions(kinds: &Kinds, group: &str) -> impl Iterator<Item = &'static str> {
    groups(kinds).into_iter().filter(move |(g, _)| *g == group).map(|(_, version)| version)
}

fn group_value(kinds: &Kinds, group: &str) -> Value {
    let versions: Vec<Value> =
        versions(kinds, group).map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version})).collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions[0]})
}

/// `/apis/{group}`
pub(super) fn group(kinds: &Kinds, name: &str) -> Result<Response<Body>, Failure> {
    let group = named_groups(kinds).into_iter().find(|group| *group == name).ok_or_else(Failure::no_route)?;
    let mut value = group_value(kinds, group);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Ok(json_response(200, &value))
}

/// `/api/v1`, `/apis/{group}/{version}`
pub(super) fn resources(kinds: &Kinds, group: &str, version: &str) -> Result<Response<Body>, Failure> {
    let mut resources = Vec::new();
    for kind in kinds_of(kinds, group, version) {
        let mut resource = json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind, "verbs": verbs(kind),
        });
        if !kind.short.is_empty() {
            resource["shortNames"] = kind.short.into();
        }
        if !kind.categories.is_empty() {
            resource["categories"] = kind.categories.into();
        }
        resources.push(resource);
        for name in kind.subresources {
            let (group, version, of, verbs) = subresource(kind, name);
            let mut resource = json!({
                "name": format!("{}/{name}", kind.plural), "singularName": "", "namespaced": kind.namespaced, "kind": of, "verbs": verbs,
            });
            if (group, version) != (kind.group, kind.version) {
                resource["group"] = group.into();
                resource["version"] = version.into();
            }
            resources.push(resource);
        }
    }
    resources.extend(reviews_of(group, version).map(|review| {
        json!({
            "name": review.plural, "singularName": review.kind.to_lowercase(), "namespaced": review.namespaced,
            "kind": review.kind, "verbs": ["create"],
        })
    }));
    if resources.is_empty() {
        return Err(Failure::no_route());
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(json_response(
        200,
        &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}),
    ))
}

fn aggregated(kinds: &Kinds, form: &str, core: bool) -> Value {
    let names = if core { vec![""] } else { named_groups(kinds) };
    let items: Vec<Value> = names
        .into_iter()
        .map(|group| {
            let version = |version| {
                let reviews = reviews_of(group, version).map(aggregated_review);
                let resources: Vec<Value> = kinds_of(kinds, group, version).map(aggregated_resource).chain(reviews).collect();
                json!({"version": version, "freshness": "Current", "resources": resources})
            };
            let versions: Vec<Value> = versions(kinds, group).map(version).collect();
            json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{form}"), "metadata": {}, "items": items})
}

fn aggregated_review(review: &Review) -> Value {
    json!({
        "resource": review.plural, "responseKind": {"group": review.group, "version": VERSION, "kind": review.kind},
        "scope": if review.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": review.kind.to_lowercase(),
        "verbs": ["create"],
    })
}

fn aggregated_resource(kind: &'static Kind) -> Value {
    let response = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|name| {
            let (group, version, of, verbs) = subresource(kind, name);
            json!({"subresource": name, "responseKind": response(group, version, &of), "verbs": verbs})
        })
        .collect();
    let mut value = json!({
        "resource": kind.plural, "responseKind": response(kind.group, kind.version, kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": kind.singular, "verbs": verbs(kind),
    });
    if !kind.short.is_empty() {
        value["shortNames"] = kind.short.into();
    }
    if !kind.categories.is_empty() {
        value["categories"] = kind.categories.into();
    }
    if !subresources.is_empty() {
        value["subresources"] = subresources.into();
    }
    value
}
