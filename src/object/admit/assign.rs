//! What an object is given that it shares with no other, or that depends on what else is in the cluster: addresses and node ports of
//! services, the class of a claim that names none, the token of a pod's service account, its priority.
//!
//! A choice is made before the transaction, from what one view shows. That two writers did not choose the same is seen to by the store:
//! what an object holds is a [claim](crate::object::Meta::claims), and nobody else can be stored with the same.

mod account;
mod priority;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::names::Cidr;
pub use priority::PriorityClass;

use super::{Cause, Refused};
use crate::object::{Key, Kind, Object};

/// Where services get their addresses from.
pub const SERVICE_RANGE: &str = "10.96.0.0/12";
/// Where services get their ports on nodes from.
pub const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;
/// So many of the first addresses and ports are left to those who name theirs, as long as there are others.
const STATIC_ADDRESSES: u32 = 256;
const STATIC_PORTS: u16 = 86;

/// What else is there.
pub trait Around {
    /// Whether somebody holds this claim.
    fn is_claimed(&self, claim: &str) -> bool;
    /// All objects of a kind.
    fn of_kind(&self, kind: &'static Kind) -> Vec<Arc<Object>>;
    /// One object.
    fn object(&self, key: &Key) -> Option<Arc<Object>>;
}

/// What else is there, and what is about to be: claims of objects that will be stored in the same transaction.
pub struct Beside<'a> {
    /// What is there.
    pub around: &'a dyn Around,
    /// What is about to be claimed.
    pub claims: &'a BTreeSet<String>,
}

impl Around for Beside<'_> {
    fn is_claimed(&self, claim: &str) -> bool {
        self.claims.contains(claim) || self.around.is_claimed(claim)
    }
    fn of_kind(&self, kind: &'static Kind) -> Vec<Arc<Object>> {
        self.around.of_kind(kind)
    }
    fn object(&self, key: &Key) -> Option<Arc<Object>> {
        self.around.object(key)
    }
}

/// Gives an object what it lacks, and keeps for it what its old version has. `chance` should differ between objects; it decides where
/// the search begins. Refused is what cannot be had.
pub fn assign(
    kind: &'static Kind,
    value: &mut Value,
    old: Option<&Value>,
    chance: &str,
    around: &dyn Around,
) -> Result<(), Refused> {
    let mut causes = Vec::new();
    match (kind.group, kind.kind) {
        ("", "Service") => {
            Service { old: old.map(|old| &old["spec"]), around, causes: &mut causes, chance: hash(chance) }.assign(value)
        }
        ("", "PersistentVolumeClaim") if old.is_none() => default_class(value, around),
        ("", "Pod") if old.is_none() => {
            account::give(value, around, chance);
            priority::give(value, around, &mut causes);
        }
        _ => {}
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Refused { kind, name: value["metadata"]["name"].as_str().unwrap_or_default().to_owned(), causes })
}

/// What [`claims`] reads of an object of this kind; nothing where such objects hold nothing that others may not hold.
pub(in crate::object) fn reads(kind: &Kind) -> &'static [&'static str] {
    if kind.is("", "Service") { &["spec"] } else { &[] }
}

/// What an object holds that no other may hold.
pub(in crate::object) fn claims(kind: &Kind, value: &Value) -> Vec<String> {
    if reads(kind).is_empty() {
        return Vec::new();
    }
    let spec = &value["spec"];
    let mut claims: Vec<String> = match spec["clusterIPs"].as_array().filter(|all| !all.is_empty()) {
        Some(all) => all.iter().filter_map(Value::as_str).collect(),
        None => spec["clusterIP"].as_str().into_iter().collect::<Vec<_>>(),
    }
    .into_iter()
    .filter(|ip| !ip.is_empty() && *ip != "None")
    .map(address_claim)
    .collect();
    for port in spec["ports"].as_array().into_iter().flatten() {
        claims.extend(port["nodePort"].as_u64().filter(|n| *n > 0).map(|n| port_claim(n, protocol(port))));
    }
    claims.extend(spec["healthCheckNodePort"].as_u64().filter(|n| *n > 0).map(|n| port_claim(n, "TCP")));
    claims.sort_unstable();
    claims.dedup();
    claims
}

fn address_claim(ip: &str) -> String {
    format!("address {ip}")
}

fn port_claim(port: u64, protocol: &str) -> String {
    format!("node port {port}/{protocol}")
}

fn protocol(port: &Value) -> &str {
    port["protocol"].as_str().unwrap_or("TCP")
}

fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A claim without a class gets the default one; of several the newest.
fn default_class(claim: &mut Value, around: &dyn Around) {
    const DEFAULT: &[&str] = &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    let old_way = claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].is_string();
    let Some(spec) = claim.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if old_way || spec.get("storageClassName").is_some_and(|class| !class.is_null()) {
        return;
    }
    let classes = around.of_kind(Kind::of("storage.k8s.io/v1", "StorageClass").expect("there are storage classes"));
    let defaults =
        classes.iter().filter(|class| DEFAULT.iter().any(|a| class.meta.annotations.get(*a).is_some_and(|v| v == "true")));
    let newest =
        defaults.max_by(|a, b| a.meta.creation_timestamp.cmp(&b.meta.creation_timestamp).then(b.key.name.cmp(&a.key.name)));
    if let Some(class) = newest {
        spec.insert("storageClassName".to_owned(), (*class.key.name).into());
    }
}

/// A service on its way into the store.
struct Service<'a> {
    old: Option<&'a Value>,
    around: &'a dyn Around,
    causes: &'a mut Vec<Cause>,
    chance: u64,
}

type Spec = Map<String, Value>;

fn text<'a>(spec: &'a Spec, field: &str) -> &'a str {
    spec.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn needs_address(sort: &str) -> bool {
    matches!(sort, "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn needs_node_ports(spec: &Value) -> bool {
    match spec["type"].as_str() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

fn needs_check(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

impl Service<'_> {
    fn assign(&mut self, object: &mut Value) {
        // What is no service is refused elsewhere, in better words.
        if !object["spec"].is_object() {
            return;
        }
        if let Some(old) = self.old {
            keep(&mut object["spec"], old);
            let_go(&mut object["spec"], old);
        }
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
        if needs_address(text(spec, "type")) {
            self.families(spec);
            self.address(spec);
        }
        let (ports, check) = {
            let spec = &object["spec"];
            (needs_node_ports(spec), needs_check(spec))
        };
        self.node_ports(&mut object["spec"], ports);
        if check {
            self.check_port(&mut object["spec"]);
        }
    }

    fn refuse(&mut self, field: &str, value: &Value, why: &str) {
        let message = format!("Invalid value: {value}: {why}");
        self.causes.push(Cause { field: field.to_owned(), reason: "FieldValueInvalid", message });
    }

    /// Which families its addresses are of: there is one, IPv4. Only a service that has no addresses of its own may name the other.
    fn families(&mut self, spec: &mut Spec) {
        let empty = |v: Option<&Value>| v.is_none_or(|v| v.is_null() || v.as_array().is_some_and(Vec::is_empty));
        let headless = text(spec, "clusterIP") == "None"
            || spec.get("clusterIPs").and_then(Value::as_array).is_some_and(|all| all.first().is_some_and(|ip| ip == "None"));
        let selects = spec.get("selector").and_then(Value::as_object).is_some_and(|s| !s.is_empty());
        let open = headless && !selects;
        if empty(spec.get("ipFamilyPolicy")) {
            spec.insert("ipFamilyPolicy".to_owned(), if open { "RequireDualStack".into() } else { "SingleStack".into() });
        }
        if empty(spec.get("ipFamilies")) {
            let dual = open && text(spec, "ipFamilyPolicy") != "SingleStack";
            spec.insert("ipFamilies".to_owned(), if dual { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) });
        }
        if open {
            return;
        }
        if text(spec, "ipFamilyPolicy") == "RequireDualStack" {
            let why = "this cluster is not configured for dual-stack services";
            self.refuse("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"].clone(), why);
        }
        let families = spec["ipFamilies"].as_array().cloned().unwrap_or_default();
        for (i, family) in families.iter().enumerate().filter(|(_, family)| **family == "IPv6") {
            self.refuse(&format!("spec.ipFamilies[{i}]"), family, "not configured on this cluster");
        }
    }

    fn address(&mut self, spec: &mut Spec) {
        let listed = spec.get("clusterIPs").and_then(Value::as_array).and_then(|all| all.first()?.as_str()).unwrap_or_default();
        let wanted = match text(spec, "clusterIP") {
            "" => listed,
            given => given,
        };
        let ip = match wanted {
            "" => match self.free_address() {
                Some(ip) => ip,
                None => return self.refuse("spec.clusterIPs", &Value::Null, "failed to allocate a serviceIP: range is full"),
            },
            "None" => "None".to_owned(),
            given => {
                let given = given.to_owned();
                self.claim_address(&given);
                given
            }
        };
        spec.insert("clusterIP".to_owned(), ip.as_str().into());
        if spec.get("clusterIPs").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            spec.insert("clusterIPs".to_owned(), json!([ip]));
        }
    }

    /// Whether an address that was named can be had. Text that is no address is refused elsewhere.
    fn claim_address(&mut self, ip: &str) {
        let had = self.old.is_some_and(|old| old["clusterIP"] == ip);
        let Some(parsed) = ip.parse::<IpAddr>().ok().filter(|_| !had) else { return };
        let why = if !range().contains(parsed) {
            format!("the provided IP ({ip}) is not in the valid range. The range of valid IPs is {SERVICE_RANGE}")
        } else if self.around.is_claimed(&address_claim(ip)) {
            "provided IP is already allocated".to_owned()
        } else {
            return;
        };
        self.refuse("spec.clusterIPs", &json!([ip]), &format!("failed to allocate IP {ip}: {why}"));
    }

    /// An address that nobody holds: from anywhere in the range but its first part, and only then from there.
    fn free_address(&self) -> Option<String> {
        let range = range();
        let IpAddr::V4(network) = range.network else { return None };
        let size = 1u32 << (32 - range.prefix);
        // Neither the network itself, nor its first address, which is the API's in Kubernetes, nor the one for broadcasts.
        let (first, last) = (STATIC_ADDRESSES + 1, size - 2);
        let start = first + (self.chance % u64::from(last - first + 1)) as u32;
        let places = (start..=last).chain(first..start).chain(2..first);
        let address = |place: u32| Ipv4Addr::from_bits(network.to_bits() + place).to_string();
        places.map(address).find(|ip| !self.around.is_claimed(&address_claim(ip)))
    }

    fn node_ports(&mut self, spec: &mut Value, needed: bool) {
        let had: BTreeSet<(u64, &str)> = self
            .old
            .into_iter()
            .flat_map(self::ports)
            .filter_map(|port| Some((port["nodePort"].as_u64()?, self::protocol(port))))
            .collect();
        let mut ports = spec["ports"].as_array().cloned().unwrap_or_default();
        let mut held: BTreeSet<String> = BTreeSet::new();
        for (i, port) in ports.iter().enumerate() {
            let Some(n) = port["nodePort"].as_u64().filter(|n| *n > 0) else { continue };
            let claim = port_claim(n, protocol(port));
            if !had.contains(&(n, protocol(port))) {
                let why = if !u16::try_from(n).is_ok_and(|n| NODE_PORTS.contains(&n)) {
                    format!(
                        "provided port is not in the valid range. The range of valid ports is {}-{}",
                        NODE_PORTS.start(),
                        NODE_PORTS.end()
                    )
                } else if self.around.is_claimed(&claim) {
                    "provided port is already allocated".to_owned()
                } else {
                    String::new()
                };
                if !why.is_empty() {
                    self.refuse(&format!("spec.ports[{i}].nodePort"), &port["nodePort"], &why);
                }
            }
            held.insert(claim);
        }
        if !needed {
            return;
        }
        // The number outside of a port inside.
        let mut outside: BTreeMap<String, u64> = BTreeMap::new();
        for port in &ports {
            if let Some(n) = port["nodePort"].as_u64().filter(|n| *n > 0) {
                outside.entry(port["port"].to_string()).or_insert(n);
            }
        }
        for (i, port) in ports.iter_mut().enumerate() {
            if port["nodePort"].as_u64().is_some_and(|n| n > 0) {
                continue;
            }
            let protocol = protocol(port).to_owned();
            let free = |claim: &String| !held.contains(claim) && !self.around.is_claimed(claim);
            // The same port over another protocol has the same number outside where that can be.
            let twin = outside.get(&port["port"].to_string()).copied().filter(|n| free(&port_claim(*n, &protocol)));
            let Some(found) = twin.or_else(|| self.free_port(i, |n| free(&port_claim(n, &protocol)))) else {
                self.refuse(&format!("spec.ports[{i}].nodePort"), &Value::Null, "failed to allocate a nodePort: range is full");
                // Nor is there one for the next: to look again for each of very many would take minutes.
                break;
            };
            held.insert(port_claim(found, &protocol));
            outside.entry(port["port"].to_string()).or_insert(found);
            if let Some(port) = port.as_object_mut() {
                port.insert("nodePort".to_owned(), found.into());
            }
        }
        if !ports.is_empty() {
            spec["ports"] = ports.into();
        }
    }

    fn check_port(&mut self, spec: &mut Value) {
        let given = spec["healthCheckNodePort"].as_u64().unwrap_or(0);
        let had = self.old.is_some_and(|old| old["healthCheckNodePort"] == given);
        if given > 0 {
            if !had && self.around.is_claimed(&port_claim(given, "TCP")) {
                self.refuse("spec.healthCheckNodePort", &given.into(), "provided port is already allocated");
            }
            return;
        }
        let own: BTreeSet<u64> = spec["ports"].as_array().into_iter().flatten().filter_map(|p| p["nodePort"].as_u64()).collect();
        match self.free_port(own.len(), |n| !own.contains(&n) && !self.around.is_claimed(&port_claim(n, "TCP"))) {
            Some(port) => spec["healthCheckNodePort"] = port.into(),
            None => self.refuse("spec.healthCheckNodePort", &Value::Null, "failed to allocate a nodePort: range is full"),
        }
    }

    fn free_port(&self, place: usize, free: impl Fn(u64) -> bool) -> Option<u64> {
        let (first, last) = (NODE_PORTS.start() + STATIC_PORTS, *NODE_PORTS.end());
        let chance = self.chance.wrapping_add((place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let start = first + ((chance >> 16) % u64::from(last - first + 1)) as u16;
        (start..=last).chain(first..start).chain(*NODE_PORTS.start()..first).map(u64::from).find(|n| free(*n))
    }
}

fn range() -> Cidr {
    Cidr::parse(SERVICE_RANGE).expect("our own range")
}

/// What a client need not repeat: addresses and ports that were given once.
fn keep(spec: &mut Value, old: &Value) {
    let sort = |spec: &Value| spec["type"].as_str().unwrap_or_default().to_owned();
    let both = |needs: fn(&Value) -> bool, spec: &Value| needs(spec) && needs(old);
    let absent = |v: &Value| v.is_null() || v == "" || v == 0 || v.as_array().is_some_and(Vec::is_empty);
    if !spec.is_object() {
        return;
    }
    if needs_address(&sort(spec)) && needs_address(&sort(old)) {
        if absent(&spec["clusterIP"]) {
            spec["clusterIP"] = old["clusterIP"].clone();
        }
        for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if absent(&spec[field]) && spec["clusterIP"] == old["clusterIP"] && !absent(&old[field]) {
                spec[field] = old[field].clone();
            }
        }
    }
    if both(needs_node_ports, spec) {
        let used: BTreeSet<String> = ports(spec).map(|p| &p["nodePort"]).filter(|n| !absent(n)).map(Value::to_string).collect();
        let mut had: BTreeMap<(String, &str), &Value> = BTreeMap::new();
        for port in ports(old) {
            had.entry((port["port"].to_string(), protocol(port))).or_insert(&port["nodePort"]);
        }
        for port in spec["ports"].as_array_mut().into_iter().flatten() {
            let node = had.get(&(port["port"].to_string(), protocol(port))).copied();
            if absent(&port["nodePort"])
                && let Some(node) = node.filter(|n| !absent(n) && !used.contains(&n.to_string()))
                && let Some(port) = port.as_object_mut()
            {
                port.insert("nodePort".to_owned(), node.clone());
            }
        }
    }
    if both(needs_check, spec) && absent(&spec["healthCheckNodePort"]) && !absent(&old["healthCheckNodePort"]) {
        spec["healthCheckNodePort"] = old["healthCheckNodePort"].clone();
    }
    // Indexing a tree that is written to leaves nulls behind.
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
}

fn ports(spec: &Value) -> impl Iterator<Item = &Value> {
    spec["ports"].as_array().into_iter().flatten()
}

/// What another type has no use for goes, unless the client said something new about it.
fn let_go(spec: &mut Value, old: &Value) {
    let same_ports = || {
        let numbers = |spec: &Value| ports(spec).map(|p| p["nodePort"].clone()).collect::<Vec<_>>();
        numbers(spec) == numbers(old)
    };
    let external = spec["type"] == "ExternalName";
    let outside = matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer"))
        || spec["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty());
    let drop_ports = needs_node_ports(old) && !needs_node_ports(spec) && same_ports();
    let mut gone: Vec<&str> = Vec::new();
    if external && old["type"] != "ExternalName" {
        gone.extend(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    }
    if !outside {
        gone.push("externalTrafficPolicy");
    }
    if spec["type"] != "LoadBalancer" {
        gone.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    if !needs_check(spec) {
        gone.push("healthCheckNodePort");
    }
    let Some(fields) = spec.as_object_mut() else { return };
    for field in gone {
        if fields.get(field) == old.get(field) {
            fields.remove(field);
        }
    }
    if drop_ports {
        for port in fields.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
            port.remove("nodePort");
        }
    }
}

#[cfg(test)]
mod tests;
