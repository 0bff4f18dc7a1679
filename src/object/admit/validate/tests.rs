//! Tables of what is refused.

mod kinds;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::object::admit::{prepare, problems};
use crate::object::{Draft, KINDS};

fn complete(kind: &str, mut value: Value) -> Value {
    let kind = KINDS.iter().find(|k| k.kind == kind).unwrap();
    if value["metadata"].is_null() {
        value["metadata"] = json!({"name": "web"});
    }
    if kind.namespaced && value["metadata"]["namespace"].is_null() {
        value["metadata"]["namespace"] = "shop".into();
    }
    prepare(kind, &mut value);
    value
}

fn check(kind: &str, value: Value, expected: Expect) {
    let row = KINDS.iter().find(|k| k.kind == kind).unwrap();
    let lines: Vec<String> = problems(row, &complete(kind, value), None).iter().map(|c| format!("{c}\n")).collect();
    expected.assert_eq(&lines.concat());
}

fn check_change(kind: &str, old: Value, new: Value, expected: Expect) {
    let row = KINDS.iter().find(|k| k.kind == kind).unwrap();
    let old = Draft::new(row, complete(kind, old)).seal(1);
    let lines: Vec<String> = problems(row, &complete(kind, new), Some(&old)).iter().map(|c| format!("{c}\n")).collect();
    expected.assert_eq(&lines.concat());
}

fn pod(spec: Value) -> Value {
    let mut spec = spec;
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "a", "image": "a:1"}]);
    }
    json!({"spec": spec})
}

fn with_container(extra: Value) -> Value {
    let mut container = json!({"name": "a", "image": "a:1"});
    for (name, value) in extra.as_object().unwrap() {
        container[name] = value.clone();
    }
    pod(json!({"containers": [container]}))
}

#[test]
fn metadata() {
    check("ConfigMap", json!({"metadata": {"name": "ok", "labels": {"a/b": "c"}}}), expect![[""]]);
    check(
        "ConfigMap",
        json!({"metadata": {
            "name": "Not_ok", "namespace": "no.dots",
            "labels": {"bad key": "x", "fine": "bad value"},
            "annotations": {"also bad/": "x"},
            "finalizers": ["x y"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}],
        }}),
        expect![[r#"
            metadata.name: Invalid value: "Not_ok": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            metadata.namespace: Invalid value: "no.dots": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            metadata.labels: Invalid value: "bad key": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            metadata.labels: Invalid value: "bad value": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            metadata.annotations: Invalid value: "also bad/": prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            metadata.annotations: Invalid value: "also bad/": name part must be non-empty
            metadata.annotations: Invalid value: "also bad/": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            metadata.finalizers: Invalid value: "x y": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            metadata.ownerReferences.uid: Invalid value: "": uid must not be empty
        "#]],
    );
    check(
        "Namespace",
        json!({"metadata": {"namespace": "x"}}),
        expect![[r#"
            metadata.name: Required value: name or generateName is required
            metadata.namespace: Forbidden: not allowed on this type
        "#]],
    );
}

#[test]
fn containers() {
    check("Pod", pod(json!({})), expect![[""]]);
    check(
        "Pod",
        json!({"spec": {}}),
        expect![[r#"
        spec.containers: Required value
    "#]],
    );
    check(
        "Pod",
        pod(json!({"containers": [
            {"image": " a"},
            {"name": "a_b"},
            {"name": "c", "image": "c", "imagePullPolicy": "Sometimes", "env": [
                {"name": "A=B"},
                {"name": "B", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "spec.color"}}},
                {"name": "C", "valueFrom": {}},
                {"name": "D", "valueFrom": {"secretKeyRef": {"key": "k/x"}, "configMapKeyRef": {"name": "m", "key": "k"}}},
                {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            ], "envFrom": [{}, {"configMapRef": {"name": "ok"}}]},
            {"name": "c", "image": "c"},
        ]})),
        expect![[r#"
            spec.containers[0].name: Required value
            spec.containers[0].image: Invalid value: " a": must not have leading or trailing whitespace
            spec.containers[1].name: Invalid value: "a_b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.containers[1].image: Required value
            spec.containers[2].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"
            spec.containers[2].env[0].name: Invalid value: "A=B": a valid environment variable name must consist only of printable ASCII characters other than '='
            spec.containers[2].env[1].valueFrom: Invalid value: "": may not be specified when `value` is not empty
            spec.containers[2].env[1].valueFrom.fieldRef.fieldPath: Unsupported value: "spec.color": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"
            spec.containers[2].env[2].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`
            spec.containers[2].env[3].valueFrom: Invalid value: "": may not have more than one field specified at a time
            spec.containers[2].env[3].valueFrom.secretKeyRef.name: Required value
            spec.containers[2].env[3].valueFrom.secretKeyRef.key: Invalid value: "k/x": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
            spec.containers[2].envFrom[0]: Invalid value: "": must specify one of: `configMapRef` or `secretRef`
            spec.containers[3].name: Duplicate value: "c"
        "#]],
    );
    check(
        "Pod",
        with_container(json!({
            "ports": [{"containerPort": 70000}, {"name": "UPPER", "containerPort": 80, "hostPort": 80, "protocol": "ICMP"}, {"hostPort": 81, "containerPort": 1}, {"hostPort": 81, "containerPort": 2}],
            "resources": {"limits": {"cpu": "1", "gold": 1}, "requests": {"cpu": 2, "memory": "-1", "example.com/gpu": 1}},
            "livenessProbe": {"httpGet": {"port": 99999}, "successThreshold": 2, "periodSeconds": -1},
            "readinessProbe": {},
            "startupProbe": {"exec": {}, "tcpSocket": {"port": "web"}},
            "volumeMounts": [{"name": "none", "mountPath": "/x", "subPath": "../up"}, {"name": "none", "mountPath": "/x"}],
        })),
        expect![[r#"
            spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive
            spec.containers[0].ports[1].name: Invalid value: "UPPER": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
            spec.containers[0].ports[1].name: Invalid value: "UPPER": must contain at least one letter (a-z)
            spec.containers[0].ports[1].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
            spec.containers[0].ports[3].hostPort: Duplicate value: "TCP//81"
            spec.containers[0].volumeMounts[0].name: Not found: "none"
            spec.containers[0].volumeMounts[0].subPath: Invalid value: "../up": must not contain '..'
            spec.containers[0].volumeMounts[1].name: Not found: "none"
            spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/x": must be unique
            spec.containers[0].resources.limits: Invalid value: "gold": must be a standard resource for containers
            spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1
            spec.containers[0].resources.requests: Invalid value: "gold": must be a standard resource for containers
            spec.containers[0].resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0
            spec.containers[0].livenessProbe.httpGet.port: Invalid value: 99999: must be between 1 and 65535, inclusive
            spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0
            spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1
            spec.containers[0].readinessProbe: Required value: must specify a handler type
            spec.containers[0].startupProbe.tcpSocket: Forbidden: may not specify more than 1 handler type
            spec.containers[0].startupProbe.exec.command: Required value
        "#]],
    );
}

#[test]
fn pod_specs() {
    check(
        "Pod",
        pod(json!({
            "hostNetwork": true,
            "containers": [{"name": "a", "image": "a", "ports": [{"containerPort": 80, "hostPort": 81}]}],
            "initContainers": [{"name": "i", "image": "i", "readinessProbe": {"exec": {"command": ["x"]}}}],
            "volumes": [
                {"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}},
                {"name": "v", "configMap": {"defaultMode": 1000}},
                {"name": "h", "hostPath": {"path": "/a/../b", "type": "Folder"}},
                {"name": "s", "secret": {"secretName": "s", "items": [{"key": "k", "path": "/abs"}]}},
            ],
            "restartPolicy": "Maybe",
            "terminationGracePeriodSeconds": -1,
            "tolerations": [{"operator": "Equal"}, {"key": "a", "operator": "Exists", "value": "x", "effect": "Never"}],
            "nodeSelector": {"a b": "c"},
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In"}]}]}},
                "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "podAffinityTerm": {}}]},
            },
        })),
        expect![[r#"
            spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type
            spec.volumes[1].name: Duplicate value: "v"
            spec.volumes[1].configMap.name: Required value
            spec.volumes[1].configMap.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), both inclusive
            spec.volumes[2].hostPath.path: Invalid value: "/a/../b": must not contain '..'
            spec.volumes[2].hostPath.type: Unsupported value: "Folder": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"
            spec.volumes[3].secret.items[0].path: Invalid value: "/abs": must be a relative path
            spec.containers[0].ports[0].containerPort: Invalid value: 80: must match `hostPort` when `hostNetwork` is true
            spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always
            spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "Never", "OnFailure"
            spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0
            spec.nodeSelector: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys"
            spec.tolerations[1].operator: Invalid value: "x": value must be empty when `operator` is 'Exists'
            spec.tolerations[1].effect: Unsupported value: "Never": supported values: "NoExecute", "NoSchedule", "PreferNoSchedule"
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'
            spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be between 1 and 100, inclusive
            spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Required value
        "#]],
    );
}

#[test]
fn pods_may_hardly_change() {
    let old = pod(json!({"tolerations": [{"key": "a", "operator": "Exists"}], "activeDeadlineSeconds": 10}));
    let image = pod(json!({
        "tolerations": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}],
        "activeDeadlineSeconds": 5,
        "containers": [{"name": "a", "image": "a:2", "imagePullPolicy": "IfNotPresent"}],
    }));
    check_change("Pod", old.clone(), image, expect![[""]]);
    check_change(
        "Pod",
        old.clone(),
        pod(json!({"nodeName": "h1"})),
        expect![[r#"
            spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value
            spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds
            spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative) (changed: nodeName)
        "#]],
    );
    check_change(
        "Pod",
        pod(json!({})),
        pod(json!({"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b"}]})),
        expect![[r#"
            spec.containers: Forbidden: pod updates may not add or remove containers
        "#]],
    );
}

fn deployment(spec: Value) -> Value {
    let mut whole = json!({
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}},
    });
    for (name, value) in spec.as_object().unwrap() {
        whole[name] = value.clone();
    }
    json!({"spec": whole})
}

#[test]
fn deployments() {
    check("Deployment", deployment(json!({})), expect![[""]]);
    check(
        "Deployment",
        json!({"spec": {}}),
        expect![[r#"
            spec.selector: Required value
            spec.template: Required value
        "#]],
    );
    check(
        "Deployment",
        deployment(json!({
            "replicas": -1, "minReadySeconds": 600,
            "selector": {"matchLabels": {"app": "other"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 1, "containers": []}},
        })),
        expect![[r#"
            spec.replicas: Invalid value: -1: must be greater than or equal to 0
            spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds
            spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0
            spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`
            spec.template.spec.containers: Required value
            spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
            spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in Deployment is not Supported
        "#]],
    );
    check(
        "Deployment",
        deployment(json!({"selector": {}, "strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}})),
        expect![[r#"
            spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'
            spec.selector: Invalid value: {}: empty selector is invalid for deployment
        "#]],
    );
    check(
        "Deployment",
        deployment(
            json!({"strategy": {"type": "Canary"}, "selector": {"matchExpressions": [{"key": "app", "operator": "Near"}]}}),
        ),
        expect![[r#"
            spec.strategy.type: Unsupported value: "Canary": supported values: "Recreate", "RollingUpdate"
            spec.selector.matchExpressions[0].operator: Invalid value: "Near": not a valid selector operator
        "#]],
    );
    check(
        "Deployment",
        deployment(json!({"strategy": {"rollingUpdate": {"maxSurge": "half", "maxUnavailable": "150%"}}})),
        expect![[r#"
            spec.strategy.rollingUpdate.maxSurge: Invalid value: "half": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')
            spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "150%": must not be greater than 100%
        "#]],
    );
    let labels = json!({"app": "web", "tier": "x"});
    let other = deployment(json!({
        "selector": {"matchLabels": {"tier": "x"}},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "a:2"}]}},
    }));
    check_change(
        "Deployment",
        deployment(json!({})),
        other,
        expect![[r#"
        spec.selector: Invalid value: {"matchLabels":{"tier":"x"}}: field is immutable
    "#]],
    );
}

#[test]
fn configuration() {
    check(
        "ConfigMap",
        json!({"data": {"ok.txt": "x", "no/slash": "x", "..up": "x"}, "binaryData": {"ok.txt": "eA=="}}),
        expect![[r#"
            data[..up]: Invalid value: "..up": must not start with '..'
            data[no/slash]: Invalid value: "no/slash": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
            data[ok.txt]: Invalid value: "ok.txt": duplicate of key present in binaryData
        "#]],
    );
    check(
        "ConfigMap",
        json!({"data": {"big": "x".repeat(1 << 20)}}),
        expect![[r#"
        : Too long: may not be more than 1048576 bytes
    "#]],
    );
    check_change(
        "ConfigMap",
        json!({"immutable": true, "data": {"a": "1"}}),
        json!({"data": {"a": "2"}}),
        expect![[r#"
            immutable: Forbidden: field is immutable when `immutable` is set
            data: Forbidden: field is immutable when `immutable` is set
        "#]],
    );
    check(
        "Secret",
        json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
        expect![[r#"
        data[tls.key]: Required value
    "#]],
    );
    check_change(
        "Secret",
        json!({"type": "Opaque"}),
        json!({"type": "other"}),
        expect![[r#"
        type: Invalid value: "other": field is immutable
    "#]],
    );
}

#[test]
fn our_own_kinds() {
    check(
        "Application",
        json!({"spec": {
            "source": {"repository": "--upload-pack=evil", "path": "../other", "intervalSeconds": 0},
            "policy": {"pruneMaxPercent": 101, "soakSeconds": -1},
            "dependsOn": ["web", "Bad"],
        }}),
        expect![[r#"
            spec.source.repository: Invalid value: "--upload-pack=evil": must not begin with '-' or contain control characters
            spec.source.path: Invalid value: "../other": must not contain '..'
            spec.source.intervalSeconds: Invalid value: 0: must be greater than 0
            spec.policy.soakSeconds: Invalid value: -1: must be greater than or equal to 0
            spec.policy.pruneMaxPercent: Invalid value: 101: must be between 0 and 100, inclusive
            spec.dependsOn[0]: Invalid value: "web": must not be the Application itself
            spec.dependsOn[1]: Invalid value: "Bad": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        "#]],
    );
    check(
        "Node",
        json!({"spec": {"taints": [{"key": "a", "effect": "NoRun"}]}}),
        expect![[r#"
        metadata.taints[0].effect: Unsupported value: "NoRun": supported values: "NoExecute", "NoSchedule", "PreferNoSchedule"
    "#]],
    );
    check(
        "Lease",
        json!({"spec": {"leaseDurationSeconds": 0}}),
        expect![[r#"
        spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0
    "#]],
    );
}
