//! Who gets what: a small cluster in a few lines.

use super::*;
use crate::object::Draft;
use crate::object::admit::{self, Stamp, problems};

#[derive(Default)]
struct Cluster {
    claims: BTreeSet<String>,
    classes: Vec<Arc<Object>>,
}

impl Around for Cluster {
    fn is_claimed(&self, claim: &str) -> bool {
        self.claims.contains(claim)
    }
    fn of_kind(&self, kind: &'static Kind) -> Vec<Arc<Object>> {
        self.classes.iter().filter(|o| o.key.kind == kind).cloned().collect()
    }
    fn object(&self, key: &Key) -> Option<Arc<Object>> {
        self.classes.iter().find(|o| o.key == *key).cloned()
    }
}

fn services() -> &'static Kind {
    Kind::of("v1", "Service").unwrap()
}

fn prepared(spec: Value) -> Value {
    let mut value = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
    admit::prepare(services(), &mut value);
    value
}

impl Cluster {
    /// The spec as it would be stored, or why not.
    fn place(&self, spec: Value, old: Option<&Value>) -> Result<Value, String> {
        let mut value = prepared(spec);
        let old = old.map(|spec| json!({"metadata": value["metadata"], "spec": spec}));
        assign(services(), &mut value, old.as_ref(), "some uid", self).map_err(|r| r.to_string())?;
        let before = old.map(|old| Draft::new(services(), old).seal(1));
        let wrong = problems(services(), &value, before.as_ref());
        assert!(wrong.is_empty(), "{wrong:?}");
        Ok(value["spec"].take())
    }
}

fn web(more: Value) -> Value {
    let mut spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80}]});
    for (name, value) in more.as_object().unwrap() {
        spec[name] = value.clone();
    }
    spec
}

#[test]
fn addresses_are_given_once() {
    let mut cluster = Cluster::default();
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let spec = cluster.place(web(json!({})), None).unwrap();
        let ip = spec["clusterIP"].as_str().unwrap().to_owned();
        assert!(range().contains(ip.parse().unwrap()), "{ip}");
        assert_eq!((&spec["clusterIPs"], &spec["ipFamilies"]), (&json!([ip]), &json!(["IPv4"])));
        cluster.claims.extend(claims(services(), &json!({"spec": spec})));
        assert!(seen.insert(ip));
    }
}

#[test]
fn who_names_an_address_gets_it_or_an_answer() {
    let cluster = Cluster { claims: BTreeSet::from(["address 10.96.0.9".to_owned()]), ..Cluster::default() };
    let place = |ip: &str| cluster.place(web(json!({"clusterIP": ip})), None);
    assert_eq!(place("10.96.0.10").unwrap()["clusterIPs"], json!(["10.96.0.10"]));
    let said = place("10.96.0.9").unwrap_err();
    assert!(
        said.contains(
            "spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: failed to allocate IP 10.96.0.9: provided IP is already allocated"
        ),
        "{said}"
    );
    assert!(place("192.168.0.1").unwrap_err().contains("is not in the valid range. The range of valid IPs is 10.96.0.0/12"));
    let headless = place("None").unwrap();
    assert_eq!((&headless["clusterIPs"], &headless["ipFamilyPolicy"]), (&json!(["None"]), &json!("SingleStack")));
    assert!(claims(services(), &json!({"spec": headless})).is_empty());
    let said = cluster.place(web(json!({"ipFamilyPolicy": "RequireDualStack"})), None).unwrap_err();
    assert!(said.contains("this cluster is not configured for dual-stack services"), "{said}");
}

#[test]
fn node_ports() {
    let cluster = Cluster { claims: BTreeSet::from(["node port 30080/TCP".to_owned()]), ..Cluster::default() };
    let ports = json!([{"name": "tcp", "port": 53}, {"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "web", "port": 80}]);
    let spec = cluster.place(json!({"type": "NodePort", "ports": ports}), None).unwrap();
    let node: Vec<u64> = (0..3).map(|i| spec["ports"][i]["nodePort"].as_u64().unwrap()).collect();
    assert!(node.iter().all(|n| (30086..=32767).contains(n)), "{node:?}");
    assert!(node[0] == node[1] && node[0] != node[2], "one number for both protocols of a port: {node:?}");
    let place = |n: u64| cluster.place(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": n}]}), None);
    assert!(place(30081).is_ok());
    assert!(
        place(30080).unwrap_err().contains("spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated")
    );
    assert!(place(80).unwrap_err().contains("The range of valid ports is 30000-32767"));
    let balanced = cluster.place(web(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"})), None).unwrap();
    assert!(balanced["healthCheckNodePort"].as_u64() > Some(30000) && balanced["ports"][0]["nodePort"].is_u64());
    let without = cluster.place(web(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false})), None).unwrap();
    assert!(without["ports"][0].get("nodePort").is_none());
}

#[test]
fn what_was_given_stays_and_goes_with_its_type() {
    let mut cluster = Cluster::default();
    let old = cluster.place(web(json!({"type": "NodePort"})), None).unwrap();
    cluster.claims.extend(claims(services(), &json!({"spec": old})));
    // Said again without what the server gave.
    let again = cluster.place(web(json!({"type": "NodePort"})), Some(&old)).unwrap();
    assert_eq!(again, old);
    // The same as a patch would send it, with everything in it.
    let mut patched = old.clone();
    patched["type"] = "ClusterIP".into();
    let inside = cluster.place(patched, Some(&old)).unwrap();
    assert_eq!(inside["clusterIP"], old["clusterIP"]);
    assert!(inside["ports"][0].get("nodePort").is_none() && inside.get("externalTrafficPolicy").is_none(), "{inside}");
    let mut patched = inside.clone();
    patched["type"] = "ExternalName".into();
    patched["externalName"] = "example.com".into();
    let outside = cluster.place(patched, Some(&inside)).unwrap();
    assert!(outside.get("clusterIP").is_none() && claims(services(), &json!({"spec": outside})).is_empty(), "{outside}");
    let mut patched = outside.clone();
    patched["type"] = "ClusterIP".into();
    assert!(cluster.place(patched, Some(&outside)).unwrap()["clusterIP"].is_string());
}

#[test]
fn a_claim_without_a_class_gets_the_default_one() {
    let kind = Kind::of("storage.k8s.io/v1", "StorageClass").unwrap();
    let class = |name: &str, created: &str, default: bool| {
        let mut value = json!({"metadata": {"name": name}, "provisioner": "example.com/disk"});
        if default {
            value["metadata"]["annotations"] = json!({"storageclass.kubernetes.io/is-default-class": "true"});
        }
        let stamp = Stamp { uid: name.to_owned(), now: created.parse().unwrap() };
        Arc::new(admit::create(kind, value, &stamp).unwrap().seal(1))
    };
    let cluster = Cluster {
        classes: vec![
            class("old", "2026-01-01T00:00:00Z", true),
            class("new", "2026-02-01T00:00:00Z", true),
            class("other", "2026-03-01T00:00:00Z", false),
        ],
        ..Cluster::default()
    };
    let claims = Kind::of("v1", "PersistentVolumeClaim").unwrap();
    let given = |spec: Value| {
        let mut claim = json!({"metadata": {"name": "data"}, "spec": spec});
        assign(claims, &mut claim, None, "", &cluster).unwrap();
        claim["spec"]["storageClassName"].clone()
    };
    assert_eq!(given(json!({})), "new");
    assert_eq!(given(json!({"storageClassName": ""})), "");
    assert_eq!(given(json!({"storageClassName": "old"})), "old");
}

/// A pod of `shop` as it would be stored, in a cluster with these objects: its account, and for each container where something is mounted.
fn given(objects: &[Value], spec: Value) -> (Value, String) {
    let sealed = |value: &Value| Arc::new(Draft::new(Kind::of_value(value).unwrap(), value.clone()).seal(1));
    let cluster = Cluster { classes: objects.iter().map(sealed).collect(), ..Cluster::default() };
    let pods = Kind::of("v1", "Pod").unwrap();
    let mut pod = json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": spec});
    admit::prepare(pods, &mut pod);
    assign(pods, &mut pod, None, "some uid", &cluster).unwrap();
    assert!(problems(pods, &pod, None).is_empty(), "{:?}", problems(pods, &pod, None));
    let again = pod.clone();
    assign(pods, &mut pod, None, "another uid", &cluster).unwrap();
    assert_eq!(pod, again, "what was given is not given twice");
    let mut shown = pod["spec"]["serviceAccountName"].as_str().unwrap_or("-").to_owned();
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array().into_iter().flatten() {
            let mounts = container["volumeMounts"].as_array().into_iter().flatten();
            let mounts: Vec<String> = mounts
                .map(|m| {
                    format!("{} at {}", m["name"].as_str().unwrap(), m["mountPath"].as_str().unwrap().rsplit('/').next().unwrap())
                })
                .collect();
            shown += &format!("; {}: {}", container["name"].as_str().unwrap(), mounts.join(", "));
        }
    }
    (pod, shown)
}

#[test]
fn a_pod_gets_the_token_of_its_account() {
    let certificate =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt", "namespace": "kube-system"}});
    let account = |name: &str, more: Value| {
        let mut account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "shop"}});
        for (field, value) in more.as_object().unwrap() {
            account[field] = value.clone();
        }
        account
    };
    let shy = account("shy", json!({"automountServiceAccountToken": false, "imagePullSecrets": [{"name": "registry"}]}));
    let cluster = [certificate, account("default", json!({})), shy];
    let plain = || json!([{"name": "c", "image": "i"}]);
    let own = json!([{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}]);
    let volumes = json!([{"name": "v", "emptyDir": {}}]);
    let access = "kube-api-access-cvccx at serviceaccount";
    for (spec, expected) in [
        (json!({"containers": plain()}), format!("default; c: {access}")),
        (
            json!({"initContainers": [{"name": "i", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}], "containers": plain(), "volumes": volumes}),
            format!("default; i: v at v, {access}; c: {access}"),
        ),
        (json!({"containers": plain(), "automountServiceAccountToken": false}), "default; c: ".to_owned()),
        (json!({"containers": own, "volumes": volumes}), "default; c: v at serviceaccount".to_owned()),
        (json!({"containers": plain(), "serviceAccountName": "shy"}), "shy; c: ".to_owned()),
        (
            json!({"containers": plain(), "serviceAccountName": "shy", "automountServiceAccountToken": true}),
            format!("shy; c: {access}"),
        ),
        // The account may come a moment after its pod.
        (json!({"containers": plain(), "serviceAccountName": "late"}), format!("late; c: {access}")),
    ] {
        assert_eq!(given(&cluster, spec.clone()).1, expected, "{spec}");
    }
    let (pod, _) = given(&cluster, json!({"containers": plain(), "serviceAccountName": "shy"}));
    assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "registry"}]));
    let (pod, _) = given(&cluster, json!({"containers": plain()}));
    let sources = &pod["spec"]["volumes"][0]["projected"]["sources"];
    assert_eq!(sources[0]["serviceAccountToken"], json!({"expirationSeconds": 3607, "path": "token"}));
    let mut known = pod.clone();
    admit::prepare(Kind::of("v1", "Pod").unwrap(), &mut known);
    assert_eq!(known, pod, "nothing is left to be filled in");
    // Where nobody signs, nothing is given.
    assert_eq!(given(&[], json!({"containers": plain()})).1, "-; c: ");
}

#[test]
fn a_pod_gets_the_priority_of_its_class() {
    let class = |name: &str, value: i32, default: bool, policy: &str| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
            "globalDefault": default, "preemptionPolicy": policy})
    };
    let some = [class("high", 1000, false, "PreemptLowerPriority"), class("patient", 500, false, "Never")];
    let with_default = [class("usual", 7, true, "PreemptLowerPriority"), class("more", 9, true, "PreemptLowerPriority")];
    let of = |cluster: &[Value], more: Value| {
        let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let pod = given(cluster, spec).0;
        let spec = &pod["spec"];
        format!("{} {} {}", spec["priorityClassName"], spec["priority"], spec["preemptionPolicy"])
    };
    let high = "\"high\" 1000 \"PreemptLowerPriority\"";
    assert_eq!(of(&some, json!({})), "null null null");
    assert_eq!(of(&some, json!({"priorityClassName": "high"})), high);
    assert_eq!(of(&some, json!({"priorityClassName": "high", "priority": 1000})), high);
    assert_eq!(of(&some, json!({"priorityClassName": "patient"})), "\"patient\" 500 \"Never\"");
    assert_eq!(of(&with_default, json!({})), "\"usual\" 7 \"PreemptLowerPriority\"");
    let critical = "\"system-node-critical\" 2000001000 \"PreemptLowerPriority\"";
    assert_eq!(of(&some, json!({"priorityClassName": "system-node-critical"})), critical);
    let pods = Kind::of("v1", "Pod").unwrap();
    let refused = |more: Value| {
        let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let mut pod = json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": spec});
        let sealed = |value: &Value| Arc::new(Draft::new(Kind::of_value(value).unwrap(), value.clone()).seal(1));
        let cluster = Cluster { classes: some.iter().map(sealed).collect(), ..Cluster::default() };
        assign(pods, &mut pod, None, "some uid", &cluster).unwrap_err().causes[0].to_string()
    };
    let said = refused(json!({"priorityClassName": "hihg"}));
    assert_eq!(said, "spec.priorityClassName: Forbidden: no PriorityClass with name hihg was found");
    assert!(refused(json!({"priority": 3})).starts_with("spec.priority: Forbidden: the integer value of priority (3) must not"));
    let said = refused(json!({"priorityClassName": "patient", "preemptionPolicy": "PreemptLowerPriority"}));
    assert!(said.starts_with("spec.preemptionPolicy: Forbidden: "), "{said}");
}
