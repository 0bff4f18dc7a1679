//! Services, endpoints, ingresses, network policies.

use serde_json::{Value, json};

use super::{at, child, fields, fill, structures};

/// A service. Its addresses and node ports are not here: they come from a pool that only a server has.
pub fn service(object: &mut Value) {
    let Some(spec) = fields(object).and_then(|o| child(o, "spec")) else { return };
    fill_text(spec, "sessionAffinity", "None");
    match spec["sessionAffinity"].as_str() {
        Some("ClientIP") => {
            if let Some(client) = child(spec, "sessionAffinityConfig").and_then(|c| child(c, "clientIP")) {
                fill(client, "timeoutSeconds", 10800);
            }
        }
        Some("None") => drop(spec.remove("sessionAffinityConfig")),
        _ => {}
    }
    fill_text(spec, "type", "ClusterIP");
    for port in structures(spec, "ports") {
        fill_text(port, "protocol", "TCP");
        let unset = port.get("targetPort").is_none_or(|t| t.is_null() || *t == 0 || *t == "");
        if unset && let Some(number) = port.get("port").cloned() {
            port.insert("targetPort".to_owned(), number);
        }
        // Go writes its zero where nothing is meant.
        if port.get("nodePort").is_some_and(|n| *n == 0) {
            port.remove("nodePort");
        }
    }
    let sort = spec["type"].as_str().unwrap_or_default().to_owned();
    let outside = matches!(sort.as_str(), "NodePort" | "LoadBalancer")
        || (sort == "ClusterIP" && spec.get("externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty()));
    if outside {
        fill_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(sort.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if sort == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// Endpoints: the protocol of their ports.
pub fn endpoints(object: &mut Value) {
    let Some(object) = fields(object) else { return };
    for subset in structures(object, "subsets") {
        for port in structures(subset, "ports") {
            fill_text(port, "protocol", "TCP");
        }
    }
}

/// An endpoint slice: the name and protocol of its ports.
pub fn endpoint_slice(object: &mut Value) {
    let Some(object) = fields(object) else { return };
    for port in structures(object, "ports") {
        fill(port, "name", "");
        fill(port, "protocol", "TCP");
    }
}

/// An ingress class: where its parameters are.
pub fn ingress_class(object: &mut Value) {
    if let Some(parameters) = fields(object).and_then(|o| at(o, &["spec", "parameters"])) {
        fill(parameters, "scope", "Cluster");
    }
}

/// A network policy: which directions it is about, and the protocol of its ports.
pub fn network_policy(object: &mut Value) {
    let Some(spec) = fields(object).and_then(|o| child(o, "spec")) else { return };
    for direction in ["ingress", "egress"] {
        for rule in structures(spec, direction) {
            for port in structures(rule, "ports") {
                fill(port, "protocol", "TCP");
            }
        }
    }
    let filled = |list: Option<&Value>| list.and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if !filled(spec.get("policyTypes")) {
        let types = if filled(spec.get("egress")) { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        spec.insert("policyTypes".to_owned(), types);
    }
}

/// Fills in where there is nothing or Go's empty text.
fn fill_text(fields: &mut super::Fields, name: &str, default: &str) {
    if fields.get(name).is_some_and(|v| v == "") {
        fields.remove(name);
    }
    fill(fields, name, default);
}
