//! Endpoints and endpoint slices.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::causes::{Causes, list, text, there};
use super::names;
use super::service::{PROTOCOLS, ordinary_ip};

/// The most endpoints that one slice may have.
const SLICE_AT_MOST: usize = 1000;
/// The most ports that one slice may have.
const SLICE_PORTS_AT_MOST: usize = 20_000;

/// Endpoints.
pub fn endpoints(object: &Value, _old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    for (i, subset) in list(&object["subsets"]) {
        let at = format!("subsets[{i}]");
        let empty = |name: &str| subset[name].as_array().is_none_or(Vec::is_empty);
        if empty("addresses") && empty("notReadyAddresses") {
            c.required(at.as_str(), "must specify `addresses` or `notReadyAddresses`");
        }
        for name in ["addresses", "notReadyAddresses"] {
            for (j, address) in list(&subset[name]) {
                self::address(&mut c, &format!("{at}.{name}[{j}]"), address);
            }
        }
        let many = subset["ports"].as_array().is_some_and(|ports| ports.len() > 1);
        for (j, port) in list(&subset["ports"]) {
            let at = format!("{at}.ports[{j}]");
            let name = text(&port["name"]);
            if many && name.is_empty() {
                c.required(format!("{at}.name"), "");
            } else if !name.is_empty() {
                c.name(&format!("{at}.name"), name, names::label);
            }
            c.port(&format!("{at}.port"), &port["port"].as_i64().unwrap_or(0).into());
            c.one_of(&format!("{at}.protocol"), &port["protocol"], PROTOCOLS);
        }
    }
    c.0
}

fn address(c: &mut Causes, at: &str, address: &Value) {
    let ip = text(&address["ip"]);
    c.name(&format!("{at}.ip"), ip, names::ip);
    ordinary_ip(c, &format!("{at}.ip"), ip);
    if !text(&address["hostname"]).is_empty() {
        c.name(&format!("{at}.hostname"), text(&address["hostname"]), names::label);
    }
    if there(&address["nodeName"]) {
        c.name(&format!("{at}.nodeName"), text(&address["nodeName"]), names::subdomain);
    }
}

/// Endpoint slices.
pub fn endpoint_slice(object: &Value, old: Option<&Value>) -> Vec<super::Cause> {
    let mut c = Causes::default();
    let sort = text(&object["addressType"]);
    if sort.is_empty() {
        c.required("addressType", "");
    } else {
        c.one_of("addressType", &object["addressType"], &["FQDN", "IPv4", "IPv6"]);
    }
    let count = |name: &str| object[name].as_array().map_or(0, Vec::len);
    if count("endpoints") > SLICE_AT_MOST {
        c.too_many("endpoints", count("endpoints"), SLICE_AT_MOST);
    }
    if count("ports") > SLICE_PORTS_AT_MOST {
        c.too_many("ports", count("ports"), SLICE_PORTS_AT_MOST);
    }
    for (i, endpoint) in list(&object["endpoints"]).take(SLICE_AT_MOST) {
        let at = format!("endpoints[{i}]");
        if endpoint["addresses"].as_array().is_none_or(Vec::is_empty) {
            c.required(format!("{at}.addresses"), "must contain at least 1 address");
        }
        for (j, address) in list(&endpoint["addresses"]) {
            slice_address(&mut c, &format!("{at}.addresses[{j}]"), sort, text(address));
        }
        if !text(&endpoint["hostname"]).is_empty() {
            c.name(&format!("{at}.hostname"), text(&endpoint["hostname"]), names::label);
        }
        if there(&endpoint["nodeName"]) {
            c.name(&format!("{at}.nodeName"), text(&endpoint["nodeName"]), names::subdomain);
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in list(&object["ports"]) {
        let at = format!("ports[{i}]");
        let name = text(&port["name"]);
        if !name.is_empty() {
            c.name(&format!("{at}.name"), name, names::label);
        }
        if !seen.insert(name) {
            c.duplicate(format!("{at}.name"), name);
        }
        c.port(&format!("{at}.port"), &port["port"]);
        c.one_of(&format!("{at}.protocol"), &port["protocol"], PROTOCOLS);
    }
    if let Some(old) = old {
        c.immutable("addressType", &object["addressType"], &old["addressType"]);
    }
    c.0
}

fn slice_address(c: &mut Causes, at: &str, sort: &str, address: &str) {
    let parsed = address.parse::<IpAddr>();
    match (sort, parsed) {
        ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => ordinary_ip(c, at, address),
        ("IPv4", _) => c.invalid(at, address, "must be a valid IPv4 address"),
        ("IPv6", _) => c.invalid(at, address, "must be a valid IPv6 address"),
        ("FQDN", _) => c.name(at, address, names::subdomain),
        _ => {}
    }
}
