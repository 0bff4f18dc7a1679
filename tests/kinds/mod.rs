//! Every kind with the real kubectl: a realistic manifest per kind is created, shown, described, applied again without a difference,
//! applied server-side, and deleted.
//!
//! The manifests are the files beside this one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use portolan::object::Kind;
use serde_json::Value;

use crate::support::{Cluster, items, text};

/// Kinds that have no manifest here: they have tests of their own, or nobody writes them by hand.
const ELSEWHERE: &[&str] = &[
    "APIService",
    "Application",
    "CertificateSigningRequest",
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "CustomResourceDefinition",
    "Deployment",
    "Host",
    "Lease",
    "Namespace",
    "Node",
    "Pod",
    "Release",
    "Rendering",
    "ReplicaSet",
    "Role",
    "RoleBinding",
    "Secret",
    "ServiceAccount",
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kinds")
}

fn manifests() -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory()).unwrap().map(|f| f.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|f| f.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    files
}

#[test]
fn every_kind_has_a_manifest() {
    let mut found = BTreeSet::new();
    for file in manifests() {
        let text = std::fs::read_to_string(&file).unwrap();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let value: Value = serde::Deserialize::deserialize(document).unwrap();
            found.insert(Kind::of_value(&value).unwrap_or_else(|| panic!("{}", file.display())).kind);
        }
    }
    let missing: Vec<_> =
        Kind::all_stored().map(|kind| kind.kind).filter(|kind| !found.contains(kind) && !ELSEWHERE.contains(kind)).collect();
    assert!(missing.is_empty(), "tests/kinds has no manifest of {missing:?}");
}

/// The columns of each kind, without and with `-o wide`, as a Kubernetes of the version that the server says it is prints them.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("service", "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE", "SELECTOR"),
    ("endpoints", "NAME ENDPOINTS AGE", ""),
    ("endpointslice", "NAME ADDRESSTYPE PORTS ENDPOINTS AGE", ""),
    ("pv", "NAME CAPACITY ACCESS MODES RECLAIM POLICY STATUS CLAIM STORAGECLASS VOLUMEATTRIBUTESCLASS REASON AGE", "VOLUMEMODE"),
    ("pvc", "NAME STATUS VOLUME CAPACITY ACCESS MODES STORAGECLASS VOLUMEATTRIBUTESCLASS AGE", "VOLUMEMODE"),
    ("sc", "NAME PROVISIONER RECLAIMPOLICY VOLUMEBINDINGMODE ALLOWVOLUMEEXPANSION AGE", ""),
    ("quota", "NAME REQUEST LIMIT AGE", ""),
    ("limits", "NAME CREATED AT", ""),
    ("rc", "NAME DESIRED CURRENT READY AGE", "CONTAINERS IMAGES SELECTOR"),
    ("podtemplates", "NAME CONTAINERS IMAGES POD LABELS", ""),
    ("sts", "NAME READY AGE", "CONTAINERS IMAGES"),
    ("ds", "NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE", "CONTAINERS IMAGES SELECTOR"),
    ("controllerrevisions", "NAME CONTROLLER REVISION AGE", ""),
    ("jobs", "NAME STATUS COMPLETIONS DURATION AGE", "CONTAINERS IMAGES SELECTOR"),
    ("cj", "NAME SCHEDULE TIMEZONE SUSPEND ACTIVE LAST SCHEDULE AGE", "CONTAINERS IMAGES SELECTOR"),
    ("hpa", "NAME REFERENCE TARGETS MINPODS MAXPODS REPLICAS AGE", ""),
    ("horizontalpodautoscalers.v1.autoscaling", "NAME REFERENCE TARGETS MINPODS MAXPODS REPLICAS AGE", ""),
    ("ing", "NAME CLASS HOSTS ADDRESS PORTS AGE", ""),
    ("ingressclass", "NAME CONTROLLER PARAMETERS AGE", ""),
    ("netpol", "NAME POD-SELECTOR AGE", ""),
    ("pdb", "NAME MIN AVAILABLE MAX UNAVAILABLE ALLOWED DISRUPTIONS AGE", ""),
    ("pc", "NAME VALUE GLOBAL-DEFAULT AGE PREEMPTIONPOLICY", ""),
];

/// What must be in the description of an object.
const DESCRIBED: &[(&str, &[&str])] = &[
    ("service/web", &["Selector:", "app=web", "Port:", "http  80/TCP", "Session Affinity:"]),
    ("service/web-outside", &["NodePort", "30080/TCP", "ClientIP"]),
    ("pvc/data", &["StorageClass:  slow", "Pending"]),
    ("pv/archive", &["5Gi", "HostPath", "RWO,ROX"]),
    ("statefulset/store", &["Volume Claims:", "data", "1Gi"]),
    ("daemonset/logs", &["Node-Selector:", "disk=ssd"]),
    ("job/import", &["Completions:", "3", "batch.kubernetes.io/job-name=import"]),
    ("cronjob/backup", &["*/30 2-4 * * mon-fri", "Forbid"]),
    ("hpa/web", &["Deployment/web", "<unknown> / 70%"]),
    ("ingress/shop", &["shop.example.com", "web:http", "shop-tls"]),
    ("networkpolicy/db", &["app=db", "5432/TCP", "192.0.2.0/24"]),
    ("pdb/web", &["Min available:", "50%"]),
    ("quota/team", &["team", "Resource"]),
    ("limits/sizes", &["Container", "memory"]),
    ("pc/urgent", &["100000"]),
    ("sc/slow", &["IsDefaultClass:", "Yes"]),
    ("rc/old-web", &["2 desired"]),
];

#[test]
fn kubectl_feels_at_home_with_every_kind() {
    let cluster = Cluster::start("127.0.0.1", &[]);
    // Not the directory: kubectl would read them in its own order all the same, but what it refuses it would refuse together.
    let files = manifests();
    let mut named: Vec<&str> = Vec::new();
    for file in &files {
        named.extend(["-f", file.to_str().unwrap()]);
    }
    let with = |first: &[&str]| cluster.kubectl(&[first, &named].concat());

    let created = with(&["apply"]);
    let count = created.lines().filter(|line| line.ends_with(" created")).count();
    assert!(count == created.lines().count() && count >= files.len(), "{created}");
    let again = with(&["apply"]);
    // kubectl replaces a list without keys as a whole, and the claims of a StatefulSet get defaults that nobody writes: with Kubernetes
    // as well they are never found unchanged. The other manifests here write such defaults down.
    let changed: Vec<&str> = again.lines().filter(|line| !line.ends_with(" unchanged")).collect();
    assert!(changed.iter().all(|line| *line == "statefulset.apps/store configured"), "{again}");
    assert_eq!(with(&["diff"]), "", "defaults are Kubernetes' own");

    for (kind, columns, wide) in COLUMNS {
        // Columns are parted by at least two blanks; names of columns may have one.
        let head = |args: &[&str]| {
            cluster.kubectl(args).lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(head(&["get", kind]), *columns, "{kind}");
        assert_eq!(head(&["get", kind, "-o", "wide"]), format!("{columns} {wide}").trim_end(), "{kind} -o wide");
    }
    let services = cluster.kubectl(&["get", "services"]);
    assert!(
        services.contains("80/TCP,443/TCP") && services.contains("80:30080/TCP") && services.contains("db.example.com"),
        "{services}"
    );
    let all = cluster.kubectl(&["get", "all"]);
    for name in [
        "service/web",
        "statefulset.apps/db",
        "daemonset.apps/logs",
        "job.batch/import",
        "cronjob.batch/backup",
        "replicationcontroller/old-web",
    ] {
        assert!(all.contains(name), "{name}: {all}");
    }
    assert!(all.contains("horizontalpodautoscaler.autoscaling/web"), "{all}");
    for (object, words) in DESCRIBED {
        let described = cluster.kubectl(&["describe", object]);
        let plain = described.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in *words {
            let word = word.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(plain.contains(&word), "{object}: {word:?}: {described}");
        }
    }
    let events = cluster.kubectl(&["get", "events.v1.events.k8s.io"]);
    assert!(events.contains("Moored") && cluster.kubectl(&["events"]).contains("Moored"), "{events}");

    let applied = with(&["apply", "--server-side", "--force-conflicts"]);
    assert_eq!(applied.lines().filter(|l| l.ends_with(" serverside-applied")).count(), count, "{applied}");
    let before = cluster.json(&["get", "services", "web"]);
    with(&["apply", "--server-side", "--force-conflicts"]);
    assert_eq!(cluster.json(&["get", "services", "web"]), before, "applied again is nothing new");

    cluster.kubectl(&["scale", "statefulset/db", "rc/old-web", "--replicas=1"]);
    assert_eq!(cluster.json(&["get", "sts", "db"])["spec"]["replicas"], 1);
    let deleted = with(&["delete", "--wait=false"]);
    assert_eq!(deleted.lines().count(), count, "{deleted}");
    for kind in ["services", "statefulsets", "jobs", "pv", "priorityclasses", "hpa"] {
        assert_eq!(items(&cluster.json(&["get", kind])).count(), 0, "{kind}");
    }
}

#[test]
fn what_kubectl_makes_itself() {
    let cluster = Cluster::start("127.0.0.1", &[]);
    for (args, said) in [
        ("create deployment web --image=sim/web:1 --port=80", "deployment.apps/web created"),
        ("expose deployment web --port=80 --type=NodePort", "service/web exposed"),
        ("create service clusterip api --tcp=80:8080", "service/api created"),
        ("create job once --image=sim/once:1 -- run", "job.batch/once created"),
        ("create cronjob nightly --image=sim/nightly:1 --schedule=@daily", "cronjob.batch/nightly created"),
        ("create job by-hand --from=cronjob/nightly", "job.batch/by-hand created"),
        ("create ingress shop --rule=shop.example.com/*=web:80", "ingress.networking.k8s.io/shop created"),
        ("create poddisruptionbudget web --selector=app=web --min-available=1", "poddisruptionbudget.policy/web created"),
        ("create quota team --hard=pods=10", "resourcequota/team created"),
        ("create priorityclass urgent --value=1000", "priorityclass.scheduling.k8s.io/urgent created"),
        ("autoscale deployment web --max=5 --cpu-percent=80", "horizontalpodautoscaler.autoscaling/web autoscaled"),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        assert_eq!(cluster.kubectl(&args).trim(), said, "{args:?}");
    }
    let service = cluster.json(&["get", "service", "web"]);
    assert!(service["spec"]["ports"][0]["nodePort"].is_i64() && service["spec"]["clusterIP"].is_string(), "{service}");
    let out = cluster.try_kubectl(&[
        "create",
        "service",
        "clusterip",
        "taken",
        "--tcp=80",
        "--clusterip",
        service["spec"]["clusterIP"].as_str().unwrap(),
    ]);
    assert!(!out.status.success() && text(&out.stderr).contains("provided IP is already allocated"), "{}", text(&out.stderr));
    cluster.kubectl(&["create", "namespace", "shop"]);
    cluster.kubectl(&["create", "service", "clusterip", "api", "--tcp=80", "-n", "shop"]);
    cluster.kubectl(&["create", "cronjob", "nightly", "--image=sim/nightly:1", "--schedule=@daily", "-n", "shop"]);
    cluster.kubectl(&["delete", "namespace", "shop", "--timeout=60s"]);
    assert_eq!(items(&cluster.json(&["get", "services,cronjobs", "-A", "--field-selector=metadata.namespace=shop"])).count(), 0);
}
