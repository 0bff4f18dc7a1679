//! Services, storage, jobs and the other kinds without a test file of their own: one change to a good object per row, and what is said.

use super::*;

/// What is wrong with an object, joined.
fn said(kind: &str, value: Value, old: Option<Value>) -> String {
    let row = KINDS.iter().find(|k| k.kind == kind && k.alias.is_none()).unwrap();
    let old = old.map(|old| Draft::new(row, complete(kind, old)).seal(1));
    let causes = problems(row, &complete(kind, value), old.as_ref());
    causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

/// A good object, in which one place is changed.
fn with(good: &Value, place: &str, new: Value) -> Value {
    let mut value = good.clone();
    let (parent, last) = place.rsplit_once('/').unwrap();
    let parent = value.pointer_mut(parent).unwrap_or_else(|| panic!("{place}"));
    match (parent, last.parse::<usize>()) {
        (Value::Array(items), Ok(n)) if n < items.len() => items[n] = new,
        (Value::Array(items), _) => items.push(new),
        (parent, _) if new.is_null() => drop(parent.as_object_mut().unwrap().remove(last)),
        (parent, _) => parent[last] = new,
    }
    value
}

fn table(kind: &str, good: Value, rows: &[(&str, Value, &str)]) {
    assert_eq!(said(kind, good.clone(), None), "", "{kind}");
    for (place, new, wanted) in rows {
        assert_eq!(said(kind, with(&good, place, new.clone()), None), *wanted, "{kind} {place} {new}");
    }
}

fn changes(kind: &str, good: Value, rows: &[(&str, Value, &str)]) {
    for (place, new, wanted) in rows {
        assert_eq!(said(kind, with(&good, place, new.clone()), Some(good.clone())), *wanted, "{kind} {place} {new}");
    }
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}})
}

#[test]
fn services() {
    let good =
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]}});
    table(
        "Service",
        good.clone(),
        &[
            (
                "/metadata/name",
                json!("1web"),
                "metadata.name: Invalid value: \"1web\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            ),
            ("/spec/ports", json!([]), "spec.ports: Required value"),
            ("/spec/ports/0/port", json!(0), "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
            (
                "/spec/ports/0/protocol",
                json!("tcp"),
                "spec.ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ),
            (
                "/spec/ports/0/targetPort",
                json!("UPPER"),
                "spec.ports[0].targetPort: Invalid value: \"UPPER\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-) | spec.ports[0].targetPort: Invalid value: \"UPPER\": must contain at least one letter (a-z)",
            ),
            ("/spec/ports/1", json!({"port": 81}), "spec.ports[1].name: Required value"),
            ("/spec/ports/1", json!({"name": "http", "port": 81}), "spec.ports[1].name: Duplicate value: \"http\""),
            (
                "/spec/ports/1",
                json!({"name": "b", "port": 80}),
                "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
            ),
            (
                "/spec/ports/0/nodePort",
                json!(30080),
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            ),
            (
                "/spec/type",
                json!("Wild"),
                "spec.type: Unsupported value: \"Wild\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ),
            ("/spec/type", json!("ExternalName"), "spec.externalName: Required value"),
            (
                "/spec/clusterIP",
                json!("nowhere"),
                "spec.clusterIPs[0]: Invalid value: \"nowhere\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (
                "/spec/externalIPs",
                json!(["127.0.0.1"]),
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ),
            (
                "/spec/externalTrafficPolicy",
                json!("Local"),
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ),
            (
                "/spec/loadBalancerClass",
                json!("a/b"),
                "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ),
            (
                "/spec/sessionAffinity",
                json!("Sticky"),
                "spec.sessionAffinity: Unsupported value: \"Sticky\": supported values: \"ClientIP\", \"None\"",
            ),
        ],
    );
    let headless = with(&with(&good, "/spec/clusterIP", json!("None")), "/spec/type", json!("NodePort"));
    assert_eq!(
        said("Service", headless, None),
        "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"
    );
    changes(
        "Service",
        with(&good, "/spec/clusterIP", json!("10.96.0.9")),
        &[(
            "/spec/clusterIP",
            json!("10.96.0.10"),
            "spec.clusterIPs[0]: Invalid value: [\"10.96.0.10\"]: may not change once set",
        )],
    );
}

#[test]
fn endpoints_and_slices() {
    table(
        "Endpoints",
        json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}),
        &[
            ("/subsets/0/addresses", json!([]), "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"),
            (
                "/subsets/0/addresses/0/ip",
                json!("169.254.1.1"),
                "subsets[0].addresses[0].ip: Invalid value: \"169.254.1.1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)",
            ),
            ("/subsets/0/ports/1", json!({"port": 81, "name": "b"}), "subsets[0].ports[0].name: Required value"),
        ],
    );
    let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]});
    table(
        "EndpointSlice",
        slice.clone(),
        &[
            (
                "/addressType",
                json!("IPv5"),
                "addressType: Unsupported value: \"IPv5\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"",
            ),
            (
                "/endpoints/0/addresses/0",
                json!("::1"),
                "endpoints[0].addresses[0]: Invalid value: \"::1\": must be a valid IPv4 address",
            ),
            ("/endpoints/0/addresses", json!([]), "endpoints[0].addresses: Required value: must contain at least 1 address"),
            ("/ports/1", json!({"port": 81}), "ports[1].name: Duplicate value: \"\""),
        ],
    );
    changes("EndpointSlice", slice, &[("/endpoints/0/addresses/0", json!("10.0.0.2"), "")]);
}

#[test]
fn storage() {
    let volume = json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}});
    table(
        "PersistentVolume",
        volume.clone(),
        &[
            ("/spec/accessModes", json!([]), "spec.accessModes: Required value"),
            (
                "/spec/accessModes/0",
                json!("RWO"),
                "spec.accessModes: Unsupported value: \"RWO\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
            ),
            ("/spec/capacity", json!({}), "spec.capacity: Required value"),
            ("/spec/capacity/storage", json!("0"), "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero"),
            ("/spec/hostPath", Value::Null, "spec: Required value: must specify a volume type"),
            ("/spec/nfs", json!({"server": "s", "path": "/p"}), "spec.nfs: Forbidden: may not specify more than 1 volume type"),
            ("/spec/hostPath/path", json!("/a/../b"), "spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"),
            (
                "/spec/persistentVolumeReclaimPolicy",
                json!("Keep"),
                "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Keep\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
            ),
        ],
    );
    changes(
        "PersistentVolume",
        volume,
        &[
            (
                "/spec/hostPath/path",
                json!("/y"),
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation",
            ),
            ("/spec/claimRef", json!({"name": "data"}), ""),
        ],
    );
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}});
    table(
        "PersistentVolumeClaim",
        claim.clone(),
        &[
            ("/spec/accessModes", json!([]), "spec.accessModes: Required value: at least 1 access mode is required"),
            ("/spec/resources", json!({}), "spec.resources[storage]: Required value"),
            (
                "/spec/accessModes",
                json!(["ReadWriteOncePod", "ReadWriteOnce"]),
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            ),
        ],
    );
    let fixed = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    changes(
        "PersistentVolumeClaim",
        claim.clone(),
        &[
            ("/spec/accessModes/0", json!("ReadWriteMany"), fixed),
            ("/spec/resources/requests/storage", json!("3Gi"), fixed),
            ("/spec/volumeName", json!("v"), ""),
            ("/spec/storageClassName", json!("slow"), ""),
        ],
    );
    let bound = with(&claim, "/status", json!({"phase": "Bound", "capacity": {"storage": "2Gi"}}));
    changes(
        "PersistentVolumeClaim",
        bound,
        &[
            ("/spec/resources/requests/storage", json!("3Gi"), ""),
            (
                "/spec/resources/requests/storage",
                json!("1Gi"),
                "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity",
            ),
        ],
    );
    let class = json!({"provisioner": "example.com/disk"});
    table(
        "StorageClass",
        class.clone(),
        &[
            ("/provisioner", json!(""), "provisioner: Required value"),
            (
                "/reclaimPolicy",
                json!("Keep"),
                "reclaimPolicy: Unsupported value: \"Keep\": supported values: \"Delete\", \"Retain\"",
            ),
        ],
    );
    changes(
        "StorageClass",
        class,
        &[
            ("/provisioner", json!("example.com/other"), "provisioner: Forbidden: updates to provisioner are forbidden."),
            ("/parameters", json!({"a": "b"}), "parameters: Forbidden: updates to parameters are forbidden."),
            ("/allowVolumeExpansion", json!(true), ""),
        ],
    );
}

#[test]
fn sets() {
    let set = json!({"spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template()}});
    table(
        "StatefulSet",
        set.clone(),
        &[
            ("/spec/replicas", json!(-1), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
            (
                "/spec/podManagementPolicy",
                json!("Any"),
                "spec.podManagementPolicy: Invalid value: \"Any\": must be 'OrderedReady' or 'Parallel'",
            ),
            (
                "/spec/updateStrategy",
                json!({"type": "Recreate"}),
                "spec.updateStrategy: Invalid value: \"Recreate\": must be 'RollingUpdate' or 'OnDelete'",
            ),
            ("/spec/selector", json!({}), "spec.selector: Invalid value: {}: empty selector is invalid for statefulset"),
            (
                "/spec/template/metadata/labels/app",
                json!("db"),
                "spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template `labels`",
            ),
            (
                "/spec/template/spec/containers/0/volumeMounts",
                json!([{"name": "data", "mountPath": "/d"}]),
                "spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\"",
            ),
        ],
    );
    let claim = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
    let mounted = with(&set, "/spec/template/spec/containers/0/volumeMounts", json!([{"name": "data", "mountPath": "/d"}]));
    assert_eq!(said("StatefulSet", with(&mounted, "/spec/volumeClaimTemplates", claim), None), "");
    changes(
        "StatefulSet",
        set.clone(),
        &[
            ("/spec/replicas", json!(3), ""),
            ("/spec/template/spec/containers/0/image", json!("a:2"), ""),
            (
                "/spec/serviceName",
                json!("web"),
                "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            ),
        ],
    );
    table(
        "DaemonSet",
        with(&set, "/spec/replicas", Value::Null),
        &[
            (
                "/spec/updateStrategy",
                json!({"rollingUpdate": {"maxUnavailable": 0}}),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
            ),
            (
                "/spec/updateStrategy",
                json!({"rollingUpdate": {"maxSurge": 1}}),
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ),
        ],
    );
    let controller = json!({"spec": {"template": template()}});
    table(
        "ReplicationController",
        controller,
        &[(
            "/spec/selector",
            json!({"app": "db"}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        )],
    );
    let revision = json!({"revision": 1, "data": {"a": 1}});
    table("ControllerRevision", revision.clone(), &[("/data", Value::Null, "data: Required value: data is mandatory")]);
    changes(
        "ControllerRevision",
        revision,
        &[("/data", json!({"a": 2}), "data: Invalid value: {\"a\":2}: field is immutable"), ("/revision", json!(2), "")],
    );
}

#[test]
fn jobs() {
    let mut once = template();
    once["spec"]["restartPolicy"] = "Never".into();
    let job = json!({"spec": {"template": once}});
    table(
        "Job",
        job.clone(),
        &[
            (
                "/spec/template/spec/restartPolicy",
                json!("Always"),
                "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            ),
            ("/spec/completionMode", json!("Indexed"), ""),
            ("/spec/backoffLimit", json!(-1), "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"),
            ("/spec/maxFailedIndexes", json!(1), "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode"),
            ("/spec/manualSelector", json!(true), "spec.selector: Required value"),
        ],
    );
    let own = with(&with(&job, "/spec/manualSelector", json!(true)), "/spec/selector", json!({"matchLabels": {"app": "web"}}));
    changes(
        "Job",
        own,
        &[
            ("/spec/parallelism", json!(3), ""),
            ("/spec/suspend", json!(true), ""),
            (
                "/spec/selector",
                json!({"matchLabels": {"app": "web", "a": "b"}}),
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels` | spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"app\":\"web\"}}: field is immutable",
            ),
        ],
    );
    let mut changed = job.clone();
    changed["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
    let before = changed.clone();
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = "a:2".into();
    let text = said("Job", changed.clone(), Some(before.clone()));
    assert!(text.starts_with("spec.template: Invalid value: {") && text.ends_with(": field is immutable"), "{text}");
    let (mut waiting, mut placed) = (before.clone(), before);
    waiting["spec"]["suspend"] = true.into();
    placed["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    assert_eq!(said("Job", placed, Some(waiting)), "", "a job that has not begun may be placed");

    let cron = json!({"metadata": {"name": "backup"}, "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": job["spec"]}}});
    table(
        "CronJob",
        cron,
        &[
            (
                "/spec/schedule",
                json!("0 3 * *"),
                "spec.schedule: Invalid value: \"0 3 * *\": expected exactly 5 fields, found 4: [0 3 * *]",
            ),
            ("/spec/schedule", json!(""), "spec.schedule: Required value"),
            (
                "/spec/schedule",
                json!("TZ=UTC 0 3 * * *"),
                "spec.schedule: Invalid value: \"TZ=UTC 0 3 * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ),
            (
                "/spec/timeZone",
                json!("Local"),
                "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            ),
            (
                "/spec/concurrencyPolicy",
                json!("Queue"),
                "spec.concurrencyPolicy: Unsupported value: \"Queue\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ),
            (
                "/metadata/name",
                json!("a".repeat(53)),
                &format!("metadata.name: Invalid value: \"{}\": must be no more than 52 characters", "a".repeat(53)),
            ),
            (
                "/spec/jobTemplate/spec/selector",
                json!({"matchLabels": {"app": "web"}}),
                "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"web\"}}: `selector` will be auto-generated",
            ),
        ],
    );
}

#[test]
fn ingresses_and_policies() {
    let path = json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}});
    table(
        "Ingress",
        json!({"spec": {"rules": [{"host": "a.example.com", "http": {"paths": [path]}}]}}),
        &[
            ("/spec/rules", json!([]), "spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"),
            (
                "/spec/rules/0/host",
                json!("1.2.3.4"),
                "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
            ),
            ("/spec/rules/0/host", json!("*.example.com"), ""),
            (
                "/spec/rules/0/http/paths/0/pathType",
                Value::Null,
                "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
            ),
            (
                "/spec/rules/0/http/paths/0/path",
                json!("x"),
                "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
            ),
            (
                "/spec/rules/0/http/paths/0/path",
                json!("/a//b"),
                "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'",
            ),
            (
                "/spec/rules/0/http/paths/0/backend/service/port",
                json!({}),
                "spec.rules[0].http.paths[0].backend.service: Required value: port name or number is required",
            ),
            (
                "/spec/rules/0/http/paths/0/backend/service/port/name",
                json!("http"),
                "spec.rules[0].http.paths[0].backend.service: Invalid value: \"\": cannot set both port name & port number",
            ),
        ],
    );
    table(
        "IngressClass",
        json!({"spec": {"controller": "example.com/edge"}}),
        &[(
            "/spec/controller",
            json!("edge"),
            "spec.controller: Invalid value: \"edge\": must be a domain-prefixed path (such as \"acme.io/foo\")",
        )],
    );
    table(
        "NetworkPolicy",
        json!({"spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 80}]}]}}),
        &[
            ("/spec/ingress/0/from/0", json!({}), "spec.ingress[0].from[0]: Required value: must specify a peer"),
            (
                "/spec/ingress/0/from/0/ipBlock/cidr",
                json!("10.0.0.0"),
                "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ),
            (
                "/spec/ingress/0/from/0/ipBlock/except",
                json!(["11.0.0.0/16"]),
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            ),
            (
                "/spec/ingress/0/ports/0/endPort",
                json!(79),
                "spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`",
            ),
            (
                "/spec/policyTypes",
                json!(["Ingres"]),
                "spec.policyTypes[0]: Unsupported value: \"Ingres\": supported values: \"Egress\", \"Ingress\"",
            ),
        ],
    );
}

#[test]
fn budgets_and_priorities() {
    table(
        "ResourceQuota",
        json!({"spec": {"hard": {"cpu": "2", "count/jobs.batch": "3"}}}),
        &[
            ("/spec/hard/cpus", json!("1"), "spec.hard[cpus]: Invalid value: \"cpus\": must be a standard resource for quota"),
            ("/spec/hard/cpu", json!("-1"), "spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"),
            ("/spec/hard/pods", json!("1500m"), "spec.hard[pods]: Invalid value: \"1500m\": must be an integer"),
            (
                "/spec/scopes",
                json!(["Terminating", "NotTerminating"]),
                "spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes",
            ),
        ],
    );
    table(
        "LimitRange",
        json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "100m"}}]}}),
        &[
            (
                "/spec/limits/0/max/cpu",
                json!("50m"),
                "spec.limits[0].min[cpu]: Invalid value: \"100m\": min value 100m is greater than max value 50m | spec.limits[0].defaultRequest[cpu]: Invalid value: \"50m\": min value 100m is greater than default request value 50m | spec.limits[0].default[cpu]: Invalid value: \"50m\": min value 100m is greater than default value 50m",
            ),
            (
                "/spec/limits/0/default",
                json!({"cpu": "3"}),
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"3\": default request value 3 is greater than max value 2 | spec.limits[0].default[cpu]: Invalid value: \"3\": default value 3 is greater than max value 2",
            ),
            ("/spec/limits/1", json!({"type": "Container"}), "spec.limits[1].type: Duplicate value: \"Container\""),
            (
                "/spec/limits/1",
                json!({"type": "PersistentVolumeClaim"}),
                "spec.limits[1].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
            ),
        ],
    );
    let class = json!({"metadata": {"name": "urgent"}, "value": 1000});
    table(
        "PriorityClass",
        class.clone(),
        &[
            ("/value", json!(1_000_000_001), "value: Forbidden: maximum allowed value of a user defined priority is 1000000000"),
            (
                "/metadata/name",
                json!("system-mine"),
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only",
            ),
        ],
    );
    changes("PriorityClass", class, &[("/value", json!(5), "value: Forbidden: may not be changed in an update.")]);
    table(
        "PodDisruptionBudget",
        json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
        &[
            ("/spec/minAvailable", json!("101%"), "spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%"),
            ("/spec/minAvailable", json!(-1), "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"),
        ],
    );
    assert!(
        said("PodDisruptionBudget", json!({"spec": {"minAvailable": 1, "maxUnavailable": 1}}), None)
            .contains("minAvailable and maxUnavailable cannot be both set")
    );
}

#[test]
fn autoscalers() {
    table(
        "HorizontalPodAutoscaler",
        json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 2, "maxReplicas": 4,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]}}),
        &[
            ("/spec/scaleTargetRef/name", json!(""), "spec.scaleTargetRef.name: Required value"),
            ("/spec/minReplicas", json!(0), "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"),
            ("/spec/maxReplicas", json!(1), "spec.maxReplicas: Invalid value: 1: must be greater than or equal to `minReplicas`"),
            (
                "/spec/metrics/0/type",
                json!("Magic"),
                "spec.metrics[0].type: Unsupported value: \"Magic\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"",
            ),
            (
                "/spec/metrics/0/resource/target/averageUtilization",
                json!(0),
                "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
            ),
            (
                "/spec/behavior",
                json!({"scaleUp": {"stabilizationWindowSeconds": 3601}}),
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
            ),
            (
                "/spec/behavior",
                json!({"scaleDown": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 15}]}}),
                "spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero",
            ),
        ],
    );
}
