//! Services.
//!
//! Whether an address or a node port is free is not decided here: see `admit::assign`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::causes::{Causes, list, text, there};
use super::names;

/// The protocols that ports can have.
pub(super) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
/// The port of agents, which nobody may publish.
const AGENT_PORT: i64 = 10250;
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";

/// Services.
pub fn service(object: &Value, old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let spec = &object["spec"];
    let sort = text(&spec["type"]);
    let headless = spec["clusterIP"] == "None";
    c.one_of("spec.type", &spec["type"], &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    if !headless && sort != "ExternalName" && spec["ports"].as_array().is_none_or(Vec::is_empty) {
        c.required("spec.ports", "");
    }
    match sort {
        "LoadBalancer" | "NodePort" if headless => {
            let why = format!("may not be set to 'None' for {sort} services");
            c.invalid("spec.clusterIPs[0]", "None", &why);
        }
        "ExternalName" => external_name(&mut c, spec),
        _ => {}
    }
    ports(&mut c, spec, sort);
    c.labels("spec.selector", &spec["selector"]);
    c.one_of("spec.sessionAffinity", &spec["sessionAffinity"], &["ClientIP", "None"]);
    let timeout = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    if spec["sessionAffinity"] == "ClientIP" && timeout.as_i64().is_some_and(|n| !(1..=86400).contains(&n)) {
        let at = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        c.invalid(at, timeout.clone(), "must be greater than 0 and less than 86400");
    }
    addresses(&mut c, spec, sort);
    for (i, ip) in list(&spec["externalIPs"]) {
        let at = format!("spec.externalIPs[{i}]");
        c.name(&at, text(ip), names::ip);
        ordinary_ip(&mut c, &at, text(ip));
    }
    for (i, range) in list(&spec["loadBalancerSourceRanges"]) {
        c.name(&format!("spec.loadBalancerSourceRanges[{i}]"), text(range).trim(), names::cidr);
    }
    if sort != "LoadBalancer" {
        if !spec["loadBalancerSourceRanges"].as_array().is_none_or(Vec::is_empty) {
            c.forbidden("spec.LoadBalancerSourceRanges", ONLY_LOAD_BALANCER);
        }
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if there(&spec[field]) {
                c.forbidden(format!("spec.{field}"), ONLY_LOAD_BALANCER);
            }
        }
    } else if there(&spec["loadBalancerClass"]) {
        c.name("spec.loadBalancerClass", text(&spec["loadBalancerClass"]), names::qualified);
    }
    traffic(&mut c, spec, sort);
    if let Some(old) = old {
        update(&mut c, spec, &old["spec"]);
    }
    c.0
}

fn external_name(c: &mut Causes, spec: &Value) {
    let why = "may not be set for ExternalName services";
    if !text(&spec["clusterIP"]).is_empty() {
        c.forbidden("spec.clusterIPs", why);
    }
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if there(&spec[field]) {
            c.forbidden(format!("spec.{field}"), why);
        }
    }
    let name = text(&spec["externalName"]);
    c.required_name("spec.externalName", name.strip_suffix('.').unwrap_or(name), names::subdomain);
}

fn ports(c: &mut Causes, spec: &Value, sort: &str) {
    let many = spec["ports"].as_array().is_some_and(|ports| ports.len() > 1);
    let (mut names_seen, mut seen, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (i, port) in list(&spec["ports"]) {
        let at = format!("spec.ports[{i}]");
        let name = text(&port["name"]);
        if many && name.is_empty() {
            c.required(format!("{at}.name"), "");
        } else if !name.is_empty() {
            c.name(&format!("{at}.name"), name, names::label);
            if !names_seen.insert(name) {
                c.duplicate(format!("{at}.name"), name);
            }
        }
        let number = port["port"].as_i64().unwrap_or(0);
        c.port(&format!("{at}.port"), &json!(number));
        if sort == "LoadBalancer" && number == AGENT_PORT {
            let why = format!("may not expose port {AGENT_PORT} externally since it is used by kubelet");
            c.invalid(at.as_str(), number, &why);
        }
        c.one_of(&format!("{at}.protocol"), &port["protocol"], PROTOCOLS);
        port_or_name(c, &format!("{at}.targetPort"), &port["targetPort"]);
        if there(&port["appProtocol"]) {
            c.name(&format!("{at}.appProtocol"), text(&port["appProtocol"]), names::qualified);
        }
        let protocol = text(&port["protocol"]);
        if !seen.insert((protocol, number)) {
            c.duplicate(at.as_str(), json!({"port": number, "protocol": protocol}));
        }
        if let Some(node) = port["nodePort"].as_i64().filter(|n| *n != 0) {
            if matches!(sort, "ClusterIP" | "ExternalName") {
                c.forbidden(format!("{at}.nodePort"), &format!("may not be used when `type` is '{sort}'"));
            } else if !node_ports.insert((protocol, node)) {
                c.duplicate(format!("{at}.nodePort"), node);
            }
        }
    }
}

/// The number of a port, or the name of one of the container's.
pub(super) fn port_or_name(c: &mut Causes, at: &str, port: &Value) {
    match port {
        Value::String(name) => c.name(at, name, names::port_name),
        number => c.port(at, number),
    }
}

fn addresses(c: &mut Causes, spec: &Value, sort: &str) {
    c.one_of("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], &["PreferDualStack", "RequireDualStack", "SingleStack"]);
    for (i, family) in list(&spec["ipFamilies"]) {
        c.one_of(&format!("spec.ipFamilies[{i}]"), family, &["IPv4", "IPv6"]);
    }
    if sort == "ExternalName" {
        return;
    }
    let (one, all) = (text(&spec["clusterIP"]), &spec["clusterIPs"]);
    match all.as_array().and_then(|all| all.first()) {
        Some(first) if first != one => c.invalid("spec.clusterIPs[0]", all.clone(), "first value must match `clusterIP`"),
        _ => {}
    }
    let given: Vec<&str> = list(all).map(|(_, ip)| text(ip)).collect();
    let given = if given.is_empty() && !one.is_empty() { vec![one] } else { given };
    for (i, ip) in given.iter().enumerate() {
        let at = format!("spec.clusterIPs[{i}]");
        if *ip == "None" {
            if given.len() > 1 {
                c.invalid(at, all.clone(), "'None' must be the first and only value");
            }
        } else {
            c.name(&at, ip, names::ip);
        }
    }
    if given.len() > 2 {
        c.invalid("spec.clusterIPs", all.clone(), "may only hold up to 2 values");
    }
}

/// Addresses that mean something of their own can be nobody's endpoint and nobody's outside.
pub(super) fn ordinary_ip(c: &mut Causes, at: &str, ip: &str) {
    let Ok(parsed) = ip.parse::<std::net::IpAddr>() else { return };
    if parsed.is_unspecified() {
        c.invalid(at, ip, "may not be unspecified (0.0.0.0 or ::)");
    }
    if parsed.is_loopback() {
        c.invalid(at, ip, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (local, local_group) = match parsed {
        std::net::IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        std::net::IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if local {
        c.invalid(at, ip, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if local_group {
        c.invalid(at, ip, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn traffic(c: &mut Causes, spec: &Value, sort: &str) {
    let outside = matches!(sort, "NodePort" | "LoadBalancer")
        || (sort == "ClusterIP" && spec["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty()));
    let policy = &spec["externalTrafficPolicy"];
    if there(policy) {
        if outside {
            c.one_of("spec.externalTrafficPolicy", policy, &["Cluster", "Local"]);
        } else {
            c.invalid("spec.externalTrafficPolicy", policy.clone(), "may only be set for externally-accessible services");
        }
    }
    c.one_of("spec.internalTrafficPolicy", &spec["internalTrafficPolicy"], &["Cluster", "Local"]);
    let check = &spec["healthCheckNodePort"];
    let checked = sort == "LoadBalancer" && policy == "Local";
    if check.as_i64().is_some_and(|n| n != 0) {
        if checked {
            c.port("spec.healthCheckNodePort", check);
        } else {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            c.invalid("spec.healthCheckNodePort", check.clone(), why);
        }
    }
    c.one_of("spec.trafficDistribution", &spec["trafficDistribution"], &["PreferClose", "PreferSameNode", "PreferSameZone"]);
}

/// What may not change: an address that clients know.
fn update(c: &mut Causes, new: &Value, old: &Value) {
    let external = |spec: &Value| spec["type"] == "ExternalName";
    if external(new) || external(old) {
        return;
    }
    let had = text(&old["clusterIP"]);
    if !had.is_empty() && text(&new["clusterIP"]) != had {
        c.invalid("spec.clusterIPs[0]", json!([text(&new["clusterIP"])]), "may not change once set");
    }
    if new["type"] == "LoadBalancer" && old["type"] == "LoadBalancer" && new["loadBalancerClass"] != old["loadBalancerClass"] {
        c.invalid("spec.loadBalancerClass", new["loadBalancerClass"].clone(), "may not change once set");
    }
}
