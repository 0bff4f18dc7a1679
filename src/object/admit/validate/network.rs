//! Ingresses, ingress classes, network policies.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::causes::{Causes, list, text, there};
use super::names;
use super::service::{PROTOCOLS, port_or_name};

/// Ingresses.
pub fn ingress(object: &Value, _old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    if !there(&spec["defaultBackend"]) && spec["rules"].as_array().is_none_or(Vec::is_empty) {
        c.invalid("spec", spec["rules"].clone(), "either `defaultBackend` or `rules` must be specified");
    }
    if there(&spec["ingressClassName"]) {
        c.name("spec.ingressClassName", text(&spec["ingressClassName"]), names::subdomain);
    }
    if there(&spec["defaultBackend"]) {
        backend(&mut c, "spec.defaultBackend", &spec["defaultBackend"]);
    }
    for (i, tls) in list(&spec["tls"]) {
        for (j, host) in list(&tls["hosts"]) {
            host_name(&mut c, &format!("spec.tls[{i}].hosts[{j}]"), text(host));
        }
        if !text(&tls["secretName"]).is_empty() {
            c.name(&format!("spec.tls[{i}].secretName"), text(&tls["secretName"]), names::subdomain);
        }
    }
    for (i, rule) in list(&spec["rules"]) {
        let at = format!("spec.rules[{i}]");
        let host = text(&rule["host"]);
        if host.parse::<IpAddr>().is_ok() {
            c.invalid(format!("{at}.host"), host, "must be a DNS name, not an IP address");
        } else if !host.is_empty() {
            host_name(&mut c, &format!("{at}.host"), host);
        }
        if there(&rule["http"]) {
            if rule["http"]["paths"].as_array().is_none_or(Vec::is_empty) {
                c.required(format!("{at}.http.paths"), "");
            }
            for (j, path) in list(&rule["http"]["paths"]) {
                http_path(&mut c, &format!("{at}.http.paths[{j}]"), path);
            }
        }
    }
    c.0
}

fn host_name(c: &mut Causes, at: &str, host: &str) {
    c.name(at, host, if host.contains('*') { names::wildcard } else { names::subdomain });
}

fn http_path(c: &mut Causes, at: &str, rule: &Value) {
    const NOT_WITHIN: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];
    const NOT_AT_END: &[&str] = &["/..", "/."];
    let path = text(&rule["path"]);
    let field = format!("{at}.path");
    match &rule["pathType"] {
        Value::Null => c.required(format!("{at}.pathType"), "pathType must be specified"),
        sort if sort == "Exact" || sort == "Prefix" => {
            if !path.starts_with('/') {
                c.invalid(field.as_str(), path, "must be an absolute path");
            }
            for part in NOT_WITHIN.iter().filter(|part| path.contains(**part)) {
                c.invalid(field.as_str(), path, &format!("must not contain '{part}'"));
            }
            for part in NOT_AT_END.iter().filter(|part| path.ends_with(**part)) {
                c.invalid(field.as_str(), path, &format!("cannot end with '{part}'"));
            }
        }
        sort if sort == "ImplementationSpecific" => {
            if !path.is_empty() && !path.starts_with('/') {
                c.invalid(field.as_str(), path, "must be an absolute path");
            }
        }
        other => c.unsupported(format!("{at}.pathType"), text(other), &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    backend(c, &format!("{at}.backend"), &rule["backend"]);
}

fn backend(c: &mut Causes, at: &str, backend: &Value) {
    let service = &backend["service"];
    match (there(&backend["resource"]), there(service)) {
        (true, true) => c.invalid(at, "", "cannot set both resource and service backends"),
        (true, false) => {}
        (false, _) => {
            let at = format!("{at}.service");
            c.required_name(&format!("{at}.name"), text(&service["name"]), names::service);
            let (name, number) = (text(&service["port"]["name"]), service["port"]["number"].as_i64().unwrap_or(0));
            match (name.is_empty(), number) {
                (false, 0) => c.name(&format!("{at}.port.name"), name, names::port_name),
                (false, _) => c.invalid(at, "", "cannot set both port name & port number"),
                (true, 0) => c.required(at, "port name or number is required"),
                (true, number) => c.port(&format!("{at}.port.number"), &json!(number)),
            }
        }
    }
}

/// Ingress classes.
pub fn ingress_class(object: &Value, old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    let controller = text(&spec["controller"]);
    if controller.is_empty() {
        c.required("spec.controller", "");
    } else if controller.len() > 250 {
        c.too_long("spec.controller", 250);
    } else {
        c.name("spec.controller", controller, names::domain_path);
    }
    let parameters = &spec["parameters"];
    if there(parameters) {
        let at = "spec.parameters";
        c.required_text(&format!("{at}.kind"), &parameters["kind"]);
        c.required_text(&format!("{at}.name"), &parameters["name"]);
        c.one_of(&format!("{at}.scope"), &parameters["scope"], &["Cluster", "Namespace"]);
        let namespace = text(&parameters["namespace"]);
        match (parameters["scope"] == "Namespace", namespace.is_empty()) {
            (true, true) => c.required(format!("{at}.namespace"), "`parameters.scope` is set to 'Namespace'"),
            (true, false) => c.name(&format!("{at}.namespace"), namespace, names::label),
            (false, false) => c.forbidden(format!("{at}.namespace"), "`parameters.scope` is set to 'Cluster'"),
            (false, true) => {}
        }
    }
    if let Some(old) = old {
        c.immutable("spec.controller", &spec["controller"], &old["spec"]["controller"]);
    }
    c.0
}

/// Network policies.
pub fn network_policy(object: &Value, _old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    c.selector("spec.podSelector", &spec["podSelector"]);
    for (direction, others) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in list(&spec[direction]) {
            let at = format!("spec.{direction}[{i}]");
            for (j, port) in list(&rule["ports"]) {
                policy_port(&mut c, &format!("{at}.ports[{j}]"), port);
            }
            for (j, peer) in list(&rule[others]) {
                self::peer(&mut c, &format!("{at}.{others}[{j}]"), peer);
            }
        }
    }
    if spec["policyTypes"].as_array().is_some_and(|types| types.len() > 2) {
        c.invalid("spec.policyTypes", spec["policyTypes"].clone(), "may not specify more than two policyTypes");
    } else {
        for (i, sort) in list(&spec["policyTypes"]) {
            c.one_of(&format!("spec.policyTypes[{i}]"), sort, &["Egress", "Ingress"]);
        }
    }
    c.0
}

fn policy_port(c: &mut Causes, at: &str, port: &Value) {
    c.one_of(&format!("{at}.protocol"), &port["protocol"], PROTOCOLS);
    port_or_name(c, &format!("{at}.port"), &port["port"]);
    if !there(&port["endPort"]) {
        return;
    }
    let field = format!("{at}.endPort");
    match &port["port"] {
        Value::Number(first) => {
            c.port(&field, &port["endPort"]);
            if port["endPort"].as_i64() < first.as_i64() {
                c.invalid(field, port["endPort"].clone(), "must be greater than or equal to `port`");
            }
        }
        Value::String(_) => c.invalid(field, port["endPort"].clone(), "may not be specified when `port` is non-numeric"),
        _ => c.invalid(field, port["endPort"].clone(), "may not be specified when `port` is not specified"),
    }
}

fn peer(c: &mut Causes, at: &str, peer: &Value) {
    let selectors = ["podSelector", "namespaceSelector"].into_iter().filter(|name| there(&peer[*name]));
    let mut count = 0;
    for name in selectors {
        count += 1;
        c.selector(&format!("{at}.{name}"), &peer[name]);
    }
    let block = &peer["ipBlock"];
    if !there(block) {
        if count == 0 {
            c.required(at, "must specify a peer");
        }
        return;
    }
    if count > 0 {
        c.forbidden(at, "may not specify both ipBlock and another peer");
        return;
    }
    let cidr = text(&block["cidr"]);
    c.required_name(&format!("{at}.ipBlock.cidr"), cidr, names::cidr);
    for (i, except) in list(&block["except"]) {
        let field = format!("{at}.ipBlock.except[{i}]");
        c.name(&field, text(except), names::cidr);
        if let (Some(outer), Some(inner)) = (names::Cidr::parse(cidr), names::Cidr::parse(text(except)))
            && !outer.strictly_contains(&inner)
        {
            c.invalid(field, text(except), "must be a strict subset of `cidr`");
        }
    }
}
