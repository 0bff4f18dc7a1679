//! Services, endpoints, ingresses, network policies.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{AGE, Column, NAME, join, list, map_selector, more, or, selector, text, wide};

/// Columns of Services.
pub const SERVICE: &[Column] = &[
    NAME,
    text("Type", |o, _| or(&o["spec"]["type"], "ClusterIP")),
    text("Cluster-IP", |o, _| or(&o["spec"]["clusterIP"], "<none>")),
    text("External-IP", |o, _| external_address(o).into()),
    text("Port(s)", |o, _| ports(o).into()),
    AGE,
    wide("Selector", |o, _| map_selector(&o["spec"]["selector"])),
];

/// Columns of Endpoints.
pub const ENDPOINTS: &[Column] = &[NAME, text("Endpoints", |o, _| endpoints(o).into()), AGE];

/// Columns of EndpointSlices.
pub const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    text("AddressType", |o, _| o["addressType"].as_str().unwrap_or("").into()),
    text("Ports", |o, _| {
        let ports = list(&o["ports"]);
        match ports {
            [] => "<unset>".into(),
            _ => more(ports.iter().map(|p| p["port"].as_i64().map_or("*".to_owned(), |n| n.to_string())), 3).into(),
        }
    }),
    text("Endpoints", |o, _| {
        let endpoints = list(&o["endpoints"]);
        match endpoints {
            [] => "<unset>".into(),
            _ => {
                let addresses = endpoints.iter().flat_map(|e| list(&e["addresses"])).filter_map(Value::as_str);
                more(addresses.map(str::to_owned), 3).into()
            }
        }
    }),
    AGE,
];

/// Columns of Ingresses.
pub const INGRESS: &[Column] = &[
    NAME,
    text("Class", |o, _| or(&o["spec"]["ingressClassName"], "<none>")),
    text("Hosts", |o, _| hosts(o).into()),
    text("Address", |o, _| load_balancer(o).join(",").into()),
    text("Ports", |o, _| if list(&o["spec"]["tls"]).is_empty() { "80".into() } else { "80, 443".into() }),
    AGE,
];

/// Columns of IngressClasses.
pub const INGRESS_CLASS: &[Column] = &[
    NAME,
    text("Controller", |o, _| o["spec"]["controller"].as_str().unwrap_or("").into()),
    text("Parameters", |o, _| {
        let parameters = &o["spec"]["parameters"];
        if parameters.is_null() {
            return "<none>".into();
        }
        let word = |name: &str| parameters[name].as_str().unwrap_or("");
        let group = if word("apiGroup").is_empty() { String::new() } else { format!(".{}", word("apiGroup")) };
        format!("{}{group}/{}", word("kind"), word("name")).into()
    }),
    AGE,
];

/// Columns of NetworkPolicies.
pub const NETWORK_POLICY: &[Column] = &[NAME, text("Pod-Selector", |o, _| selector(&o["spec"]["podSelector"])), AGE];

/// Where a service can be reached from outside.
fn external_address(service: &Value) -> String {
    let spec = &service["spec"];
    let external: Vec<String> = list(&spec["externalIPs"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    match spec["type"].as_str() {
        Some("LoadBalancer") => {
            let mut all = load_balancer(service);
            all.extend(external);
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        Some("ExternalName") => spec["externalName"].as_str().unwrap_or("").to_owned(),
        _ => join(external.iter().map(String::as_str)),
    }
}

/// The addresses that a load balancer gave, each once.
fn load_balancer(object: &Value) -> Vec<String> {
    let address = |ingress: &Value| {
        let word = |name: &str| ingress[name].as_str().filter(|w| !w.is_empty()).map(str::to_owned);
        word("ip").or_else(|| word("hostname"))
    };
    let addresses: BTreeSet<String> = list(&object["status"]["loadBalancer"]["ingress"]).iter().filter_map(address).collect();
    addresses.into_iter().collect()
}

/// `80:30080/TCP,443/TCP`.
fn ports(service: &Value) -> String {
    let port = |port: &Value| {
        let node = port["nodePort"].as_i64().filter(|n| *n > 0).map_or(String::new(), |n| format!(":{n}"));
        format!("{}{node}/{}", super::int(&port["port"]), port["protocol"].as_str().unwrap_or("TCP"))
    };
    let ports: Vec<String> = list(&service["spec"]["ports"]).iter().map(port).collect();
    join(ports.iter().map(String::as_str))
}

/// `10.0.0.1:80,10.0.0.2:80`, three at most.
fn endpoints(object: &Value) -> String {
    let mut found = Vec::new();
    for subset in list(&object["subsets"]) {
        let addresses = || list(&subset["addresses"]).iter().filter_map(|a| a["ip"].as_str());
        let ports = list(&subset["ports"]);
        if ports.is_empty() {
            found.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            found.extend(addresses().map(|ip| match ip.contains(':') {
                true => format!("[{ip}]:{}", super::int(&port["port"])),
                false => format!("{ip}:{}", super::int(&port["port"])),
            }));
        }
    }
    if found.is_empty() { "<none>".to_owned() } else { more(found.into_iter(), 3) }
}

/// The hosts of an ingress's rules, three at most; `*` where there is none.
fn hosts(ingress: &Value) -> String {
    let hosts: Vec<String> = list(&ingress["spec"]["rules"])
        .iter()
        .filter_map(|rule| rule["host"].as_str().filter(|h| !h.is_empty()))
        .map(str::to_owned)
        .collect();
    if hosts.is_empty() { "*".to_owned() } else { more(hosts.into_iter(), 3) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::show;
    use super::*;

    #[test]
    fn services() {
        let service = |spec: Value, status: Value| json!({"metadata": {"name": "web"}, "spec": spec, "status": status});
        let port = json!([{"port": 80, "protocol": "TCP"}]);
        let rows = [
            (
                json!({"type": "ClusterIP", "clusterIP": "10.96.0.9", "ports": port, "selector": {"app": "web", "tier": "a"}}),
                json!({}),
                "web | ClusterIP | 10.96.0.9 | <none> | 80/TCP | <unknown> | app=web,tier=a",
            ),
            (
                json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}),
                json!({}),
                "web | NodePort | 10.96.0.9 | <none> | 80:30080/TCP,53/UDP | <unknown> | <none>",
            ),
            (
                json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9", "ports": port}),
                json!({}),
                "web | LoadBalancer | 10.96.0.9 | <pending> | 80/TCP | <unknown> | <none>",
            ),
            (
                json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9", "ports": port}),
                json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}),
                "web | LoadBalancer | 10.96.0.9 | 1.2.3.4 | 80/TCP | <unknown> | <none>",
            ),
            (
                json!({"type": "ExternalName", "externalName": "example.com"}),
                json!({}),
                "web | ExternalName | <none> | example.com | <none> | <unknown> | <none>",
            ),
            (
                json!({"clusterIP": "None", "ports": port}),
                json!({}),
                "web | ClusterIP | None | <none> | 80/TCP | <unknown> | <none>",
            ),
        ];
        for (spec, status, wanted) in rows {
            assert_eq!(show(SERVICE, &service(spec, status)), wanted);
        }
    }

    #[test]
    fn endpoints_and_slices() {
        let address = |ip: &str| json!({"ip": ip});
        let object = json!({"metadata": {"name": "web"}, "subsets": [
            {"addresses": [address("10.0.0.1"), address("10.0.0.2")], "ports": [{"port": 80}, {"port": 443}]}]});
        assert_eq!(show(ENDPOINTS, &object), "web | 10.0.0.1:80,10.0.0.2:80,10.0.0.1:443 + 1 more... | <unknown>");
        assert_eq!(show(ENDPOINTS, &json!({"metadata": {"name": "web"}})), "web | <none> | <unknown>");
        let slice = json!({"metadata": {"name": "web-1"}, "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]});
        assert_eq!(show(ENDPOINT_SLICE, &slice), "web-1 | IPv4 | 80 | 10.0.0.1,10.0.0.2 | <unknown>");
        let empty = json!({"metadata": {"name": "web-1"}, "addressType": "IPv4"});
        assert_eq!(show(ENDPOINT_SLICE, &empty), "web-1 | IPv4 | <unset> | <unset> | <unknown>");
    }

    #[test]
    fn ingresses_and_policies() {
        let ingress = json!({"metadata": {"name": "shop"}, "spec": {
            "ingressClassName": "nginx", "tls": [{}], "rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}});
        assert_eq!(show(INGRESS, &ingress), "shop | nginx | a,b,c + 1 more... | 1.2.3.4 | 80, 443 | <unknown>");
        let plain = json!({"metadata": {"name": "shop"}, "spec": {"rules": [{}]}});
        assert_eq!(show(INGRESS, &plain), "shop | <none> | * |  | 80 | <unknown>");
        let class = json!({"metadata": {"name": "n"}, "spec": {"controller": "k8s.io/n", "parameters": {"apiGroup": "g.io", "kind": "P", "name": "x"}}});
        assert_eq!(show(INGRESS_CLASS, &class), "n | k8s.io/n | P.g.io/x | <unknown>");
        let policy = json!({"metadata": {"name": "deny"}, "spec": {"podSelector": {}}});
        assert_eq!(show(NETWORK_POLICY, &policy), "deny | <none> | <unknown>");
    }
}
