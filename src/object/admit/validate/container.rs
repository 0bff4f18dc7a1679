//! What may be written in a container.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::causes::{Causes, list, text, there};
use super::names;
use crate::object::quantity::Quantity;

/// Which of a pod's lists a container stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// `containers`.
    Main,
    /// `initContainers`.
    Init,
}

/// What containers share, and must agree about.
pub(super) struct Shared<'a> {
    /// The pod's volumes.
    pub(super) volumes: BTreeSet<&'a str>,
    /// Whether the pod uses its host's network.
    pub(super) host_network: bool,
    /// Names that are taken.
    pub(super) names: BTreeSet<String>,
    /// Host ports that are taken.
    pub(super) host_ports: BTreeSet<String>,
}

pub(super) fn container(c: &mut Causes, at: &str, container: &Value, role: Role, shared: &mut Shared) {
    let name = text(&container["name"]);
    c.required_name(&format!("{at}.name"), name, names::label);
    if !name.is_empty() && !shared.names.insert(name.to_owned()) {
        c.duplicate(format!("{at}.name"), name);
    }
    let image = text(&container["image"]);
    if image.is_empty() {
        c.required(format!("{at}.image"), "");
    } else if image != image.trim() {
        c.invalid(format!("{at}.image"), image, "must not have leading or trailing whitespace");
    }
    c.one_of(&format!("{at}.imagePullPolicy"), &container["imagePullPolicy"], &["Always", "IfNotPresent", "Never"]);
    c.one_of(
        &format!("{at}.terminationMessagePolicy"),
        &container["terminationMessagePolicy"],
        &["FallbackToLogsOnError", "File"],
    );
    let restart = &container["restartPolicy"];
    if role == Role::Init && there(restart) && text(restart) != "Always" {
        c.unsupported(format!("{at}.restartPolicy"), text(restart), &["Always"]);
    }
    ports(c, at, container, shared);
    for (i, variable) in list(&container["env"]) {
        environment(c, &format!("{at}.env[{i}]"), variable);
    }
    for (i, from) in list(&container["envFrom"]) {
        let at = format!("{at}.envFrom[{i}]");
        match (there(&from["configMapRef"]), there(&from["secretRef"])) {
            (false, false) => c.invalid(&at, "", "must specify one of: `configMapRef` or `secretRef`"),
            (true, true) => c.invalid(&at, "", "may not have more than one field specified at a time"),
            (true, false) => {
                c.required_name(&format!("{at}.configMapRef.name"), text(&from["configMapRef"]["name"]), names::subdomain)
            }
            (false, true) => c.required_name(&format!("{at}.secretRef.name"), text(&from["secretRef"]["name"]), names::subdomain),
        }
        if !text(&from["prefix"]).is_empty() {
            c.name(&format!("{at}.prefix"), text(&from["prefix"]), names::env_name);
        }
    }
    mounts(c, at, container, shared);
    resources(c, &format!("{at}.resources"), &container["resources"]);
    let sidecar = role == Role::Main || text(restart) == "Always";
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let found = &container[kind];
        if !there(found) {
            continue;
        }
        let at = format!("{at}.{kind}");
        if !sidecar {
            c.forbidden(at, "may not be set for init containers without restartPolicy=Always");
            continue;
        }
        probe(c, &at, found);
        if kind != "readinessProbe" && found["successThreshold"].as_i64().is_some_and(|n| n != 1) {
            c.invalid(format!("{at}.successThreshold"), found["successThreshold"].clone(), "must be 1");
        }
    }
    if there(&container["lifecycle"]) {
        if !sidecar {
            c.forbidden(format!("{at}.lifecycle"), "may not be set for init containers without restartPolicy=Always");
        }
        for hook in ["postStart", "preStop"] {
            if there(&container["lifecycle"][hook]) {
                handler(
                    c,
                    &format!("{at}.lifecycle.{hook}"),
                    &container["lifecycle"][hook],
                    &["exec", "httpGet", "tcpSocket", "sleep"],
                );
            }
        }
    }
    security(c, &format!("{at}.securityContext"), &container["securityContext"]);
}

fn ports(c: &mut Causes, at: &str, container: &Value, shared: &mut Shared) {
    let mut seen = BTreeSet::new();
    for (i, port) in list(&container["ports"]) {
        let at = format!("{at}.ports[{i}]");
        let name = text(&port["name"]);
        if !name.is_empty() {
            c.name(&format!("{at}.name"), name, names::port_name);
            if !seen.insert(name) {
                c.duplicate(format!("{at}.name"), name);
            }
        }
        match port["containerPort"].as_i64() {
            None | Some(0) => c.required(format!("{at}.containerPort"), ""),
            Some(_) => c.port(&format!("{at}.containerPort"), &port["containerPort"]),
        }
        let protocol = text(&port["protocol"]);
        if protocol.is_empty() {
            c.required(format!("{at}.protocol"), "");
        } else {
            c.one_of(&format!("{at}.protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"]);
        }
        let host_port = port["hostPort"].as_i64().unwrap_or(0);
        if host_port != 0 {
            c.port(&format!("{at}.hostPort"), &port["hostPort"]);
            if shared.host_network && port["hostPort"] != port["containerPort"] {
                c.invalid(
                    format!("{at}.containerPort"),
                    port["containerPort"].clone(),
                    "must match `hostPort` when `hostNetwork` is true",
                );
            }
            let taken = format!("{protocol}/{}/{host_port}", text(&port["hostIP"]));
            if !shared.host_ports.insert(taken.clone()) {
                c.duplicate(format!("{at}.hostPort"), taken);
            }
        }
        let ip = text(&port["hostIP"]);
        if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
            c.invalid(format!("{at}.hostIP"), ip, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        }
    }
}

fn environment(c: &mut Causes, at: &str, variable: &Value) {
    c.required_name(&format!("{at}.name"), text(&variable["name"]), names::env_name);
    let from = &variable["valueFrom"];
    if !there(from) {
        return;
    }
    let at = format!("{at}.valueFrom");
    if !text(&variable["value"]).is_empty() {
        c.invalid(&at, "", "may not be specified when `value` is not empty");
    }
    let sources = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    match sources.iter().filter(|source| there(&from[**source])).count() {
        0 => c.invalid(
            &at,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        1 => {}
        _ => c.invalid(&at, "", "may not have more than one field specified at a time"),
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        let reference = &from[source];
        if there(reference) {
            c.required_name(&format!("{at}.{source}.name"), text(&reference["name"]), names::subdomain);
            c.required_name(&format!("{at}.{source}.key"), text(&reference["key"]), names::config_key);
        }
    }
    if there(&from["fieldRef"]) {
        field_path(c, &format!("{at}.fieldRef.fieldPath"), &from["fieldRef"]["fieldPath"], ENVIRONMENT_FIELDS);
    }
    if there(&from["resourceFieldRef"]) {
        c.required_text(&format!("{at}.resourceFieldRef.resource"), &from["resourceFieldRef"]["resource"]);
    }
}

const ENVIRONMENT_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// A field of the pod that its containers may read.
pub(super) fn field_path(c: &mut Causes, at: &str, path: &Value, supported: &[&str]) {
    let path = text(path);
    let subscript =
        ["metadata.labels['", "metadata.annotations['"].iter().find_map(|base| path.strip_prefix(base)?.strip_suffix("']"));
    if path.is_empty() {
        c.required(at, "");
    } else if let Some(key) = subscript {
        c.name(at, key, names::qualified);
    } else if !supported.contains(&path) {
        c.unsupported(at, path, supported);
    }
}

fn mounts(c: &mut Causes, at: &str, container: &Value, shared: &Shared) {
    let mut paths = BTreeSet::new();
    for (i, mount) in list(&container["volumeMounts"]) {
        let at = format!("{at}.volumeMounts[{i}]");
        let name = text(&mount["name"]);
        if name.is_empty() {
            c.required(format!("{at}.name"), "");
        } else if !shared.volumes.contains(name) {
            c.not_found(format!("{at}.name"), name);
        }
        let path = text(&mount["mountPath"]);
        if path.is_empty() {
            c.required(format!("{at}.mountPath"), "");
        } else if !paths.insert(path) {
            c.invalid(format!("{at}.mountPath"), path, "must be unique");
        }
        for field in ["subPath", "subPathExpr"] {
            inner_path(c, &format!("{at}.{field}"), text(&mount[field]));
        }
        if !text(&mount["subPath"]).is_empty() && !text(&mount["subPathExpr"]).is_empty() {
            c.invalid(format!("{at}.subPathExpr"), text(&mount["subPathExpr"]), "subPathExpr and subPath are mutually exclusive");
        }
        let propagation = ["Bidirectional", "HostToContainer", "None"];
        c.one_of(&format!("{at}.mountPropagation"), &mount["mountPropagation"], &propagation);
    }
}

/// A path that must stay below where it starts.
pub(super) fn inner_path(c: &mut Causes, at: &str, path: &str) {
    if path.starts_with('/') {
        c.invalid(at, path, "must be a relative path");
    }
    if path.split('/').any(|part| part == "..") {
        c.invalid(at, path, "must not contain '..'");
    }
}

pub(super) fn resources(c: &mut Causes, at: &str, resources: &Value) {
    let read = |value: &Value| value.as_str().and_then(|text| text.parse::<Quantity>().ok());
    for which in ["limits", "requests"] {
        for (resource, amount) in resources[which].as_object().into_iter().flatten() {
            let at = format!("{at}.{which}");
            c.name(&at, resource, names::qualified);
            let standard =
                ["cpu", "memory", "ephemeral-storage"].contains(&resource.as_str()) || resource.starts_with("hugepages-");
            if !standard && !resource.contains('/') {
                c.invalid(&at, resource.as_str(), "must be a standard resource for containers");
            }
            match read(amount) {
                None => c.invalid(format!("{at}.{resource}"), amount.clone(), &crate::object::quantity::NotAQuantity.to_string()),
                Some(quantity) if quantity.is_negative() => {
                    c.invalid(format!("{at}[{resource}]"), quantity.to_string(), "must be greater than or equal to 0");
                }
                Some(quantity) => {
                    let limit = read(&resources["limits"][resource]).filter(|limit| which == "requests" && quantity > *limit);
                    if let Some(limit) = limit {
                        let detail = format!("must be less than or equal to {resource} limit of {limit}");
                        c.invalid(at, quantity.to_string(), &detail);
                    }
                }
            }
        }
    }
}

fn probe(c: &mut Causes, at: &str, probe: &Value) {
    handler(c, at, probe, &["exec", "httpGet", "tcpSocket", "grpc"]);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        c.not_negative(&format!("{at}.{field}"), &probe[field]);
    }
    let grace = &probe["terminationGracePeriodSeconds"];
    if grace.as_i64().is_some_and(|n| n <= 0) {
        c.invalid(format!("{at}.terminationGracePeriodSeconds"), grace.clone(), "must be greater than 0");
    }
}

fn handler(c: &mut Causes, at: &str, handler: &Value, kinds: &[&str]) {
    let mut found = kinds.iter().filter(|kind| there(&handler[**kind]));
    match found.next() {
        None => return c.required(at, "must specify a handler type"),
        Some(_) => found.for_each(|second| c.forbidden(format!("{at}.{second}"), "may not specify more than 1 handler type")),
    }
    let exec = &handler["exec"];
    if there(exec) && exec["command"].as_array().is_none_or(Vec::is_empty) {
        c.required(format!("{at}.exec.command"), "");
    }
    for kind in ["httpGet", "tcpSocket"] {
        let action = &handler[kind];
        if !there(action) {
            continue;
        }
        let at = format!("{at}.{kind}");
        match &action["port"] {
            Value::String(name) => c.name(&format!("{at}.port"), name, names::port_name),
            port if port.is_number() => c.port(&format!("{at}.port"), port),
            _ => c.required(format!("{at}.port"), ""),
        }
        if kind == "httpGet" {
            c.required_text(&format!("{at}.path"), &action["path"]);
            c.one_of(&format!("{at}.scheme"), &action["scheme"], &["HTTP", "HTTPS"]);
            for (i, header) in list(&action["httpHeaders"]) {
                let name = text(&header["name"]);
                if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
                    let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for \
                                  validation is '[-A-Za-z0-9]+')";
                    c.invalid(format!("{at}.httpHeaders[{i}].name"), name, detail);
                }
            }
        }
    }
    if there(&handler["grpc"]) {
        c.port(&format!("{at}.grpc.port"), &handler["grpc"]["port"]);
    }
    c.not_negative(&format!("{at}.sleep.seconds"), &handler["sleep"]["seconds"]);
}

pub(super) fn security(c: &mut Causes, at: &str, context: &Value) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        c.between(&format!("{at}.{field}"), &context[field], 0, i64::from(i32::MAX));
    }
    if context["privileged"] == json!(true) && context["allowPrivilegeEscalation"] == json!(false) {
        c.invalid(at, context.clone(), "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
    }
    if there(&context["seccompProfile"]) {
        let supported = ["Localhost", "RuntimeDefault", "Unconfined"];
        let profile = &context["seccompProfile"];
        c.one_of(&format!("{at}.seccompProfile.type"), &profile["type"], &supported);
        // A name that is empty is none: with it, containers would run without any filter (CVE-2023-2431).
        let (at, name) = (format!("{at}.seccompProfile.localhostProfile"), text(&profile["localhostProfile"]));
        match (profile["type"] == "Localhost", there(&profile["localhostProfile"])) {
            (true, _) if name.is_empty() => c.required(at, "must be set when seccomp type is Localhost"),
            (true, _) if name.starts_with('/') || name.split('/').any(|part| part == "..") => {
                c.invalid(at, name, "must be a relative path without '..'");
            }
            (false, true) => c.invalid(at, name, "can only be set when seccomp type is Localhost"),
            _ => {}
        }
    }
}
