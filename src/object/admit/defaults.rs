//! What Kubernetes fills in when an author left it out, kind by kind.
//!
//! Only constants of the API live here. What depends on the cluster (a namespace's default, a node's CIDR) does not, and neither does
//! what a server sets once when an object is created (`lifecycle`). Ill-shaped parts are left as they are: `shape` reports them.

pub mod autoscaler;
pub mod definition;
pub mod network;
pub mod policy;
pub mod storage;
pub mod workload;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use crate::object::quantity::Quantity;
use crate::object::schema::{Form, Text, Type};

type Fields = Map<String, Value>;

/// For kinds without defaults.
pub fn none(_: &mut Value) {}

/// Namespaces carry their name as a label, so that selectors can find them.
pub fn namespace(object: &mut Value) {
    let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let Some(name) = meta.get("name").and_then(Value::as_str).filter(|n| !n.is_empty()).map(str::to_owned) else { return };
    if let Some(labels) = child(meta, "labels") {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
}

/// A node whose allocatable is not stated offers all that it has.
pub fn node(object: &mut Value) {
    let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else { return };
    if let Some(capacity) = status.get("capacity").cloned() {
        fill(status, "allocatable", capacity);
    }
}

/// A pod: its spec, and what only pods get (not templates).
pub fn pod(object: &mut Value) {
    let Some(spec) = fields(object).and_then(|o| child(o, "spec")) else { return };
    pod_spec(spec);
    fill(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["initContainers", "containers"] {
        for container in structures(spec, list) {
            // What is limited and not requested is requested as much as limited.
            if let Some(limits) = container.get("resources").and_then(|r| r.get("limits")).and_then(Value::as_object).cloned()
                && let Some(requests) = child(container, "resources").and_then(|r| child(r, "requests"))
            {
                for (resource, amount) in limits {
                    requests.entry(resource).or_insert(amount);
                }
            }
            if host_network {
                for port in structures(container, "ports") {
                    if let Some(number) = port.get("containerPort").cloned() {
                        fill(port, "hostPort", number);
                    }
                }
            }
        }
    }
}

/// A certificate request: Kubernetes' form of usages that nobody named.
pub fn certificate_request(object: &mut Value) {
    if let Some(spec) = fields(object).and_then(|o| at(o, &["spec"])) {
        fill(spec, "usages", json!(["digital signature", "key encipherment"]));
    }
}

/// A binding: which API groups its role and its subjects are of.
pub fn role_binding(object: &mut Value) {
    const RBAC: &str = crate::object::kind::RBAC;
    let Some(object) = fields(object) else { return };
    if let Some(role) = at(object, &["roleRef"])
        && role.get("apiGroup").and_then(Value::as_str).unwrap_or_default().is_empty()
    {
        role.insert("apiGroup".to_owned(), RBAC.into());
    }
    for subject in structures(object, "subjects") {
        if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group"))
            && subject.get("apiGroup").and_then(Value::as_str).unwrap_or_default().is_empty()
        {
            subject.insert("apiGroup".to_owned(), RBAC.into());
        }
    }
}

/// A secret: its type, and `stringData` packed into `data`.
pub fn secret(object: &mut Value) {
    let Some(object) = fields(object) else { return };
    fill(object, "type", "Opaque");
    if let Some(Value::Object(texts)) = object.remove("stringData")
        && !texts.is_empty()
        && let Some(data) = child(object, "data")
    {
        for (key, text) in texts {
            data.insert(key, BASE64_STANDARD.encode(text.as_str().unwrap_or_default()).into());
        }
    }
}

/// A deployment and its pod template.
pub fn deployment(object: &mut Value) {
    let Some(spec) = fields(object).and_then(|o| child(o, "spec")) else { return };
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
    if let Some(strategy) = child(spec, "strategy") {
        if strategy.get("type").is_none_or(|t| t.is_null() || t == "") {
            strategy.insert("type".to_owned(), "RollingUpdate".into());
        }
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", "25%");
            fill(rolling, "maxSurge", "25%");
        }
    }
    template(spec);
}

/// A replica set and its pod template.
pub fn replica_set(object: &mut Value) {
    let Some(spec) = fields(object).and_then(|o| child(o, "spec")) else { return };
    fill(spec, "replicas", 1);
    template(spec);
}

/// An Application: where `ours` names a default, it is written down, so that everybody reads the same.
pub fn application(object: &mut Value) {
    let Some(spec) = fields(object).and_then(|o| child(o, "spec")) else { return };
    if let Some(source) = child(spec, "source") {
        fill(source, "revision", "HEAD");
        fill(source, "intervalSeconds", 60);
        fill(source, "namespace", "default");
    }
    if let Some(policy) = child(spec, "policy") {
        fill(policy, "onFailure", "rollback");
        fill(policy, "soakSeconds", 10);
        fill(policy, "progressDeadlineSeconds", 600);
        fill(policy, "selfHeal", true);
        fill(policy, "prune", true);
        fill(policy, "pruneMaxPercent", 50);
        fill(policy, "allowEmpty", false);
        fill(policy, "historyLimit", 20);
        drop_empty(policy, "pruneAllow");
    }
    drop_empty(spec, "dependsOn");
    drop_empty(spec, "suspend");
}

/// Takes out what our own types leave out when it says nothing, so that reading and writing back is no change.
fn drop_empty(fields: &mut Fields, name: &str) {
    if fields.get(name).is_some_and(|v| v == &json!(false) || v == &json!([])) {
        fields.remove(name);
    }
}

fn template(spec: &mut Fields) {
    // A missing template is a mistake to report, not to fill in.
    if let Some(spec) = spec.get_mut("template").and_then(Value::as_object_mut).and_then(|t| child(t, "spec")) {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Fields) {
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "restartPolicy", "Always");
    fill(spec, "securityContext", json!({}));
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "schedulerName", "default-scheduler");
    // The old name of the field follows the new one.
    match (spec.get("serviceAccountName").cloned(), spec.get("serviceAccount").cloned()) {
        (Some(name), _) if name != "" => drop(spec.insert("serviceAccount".to_owned(), name)),
        (_, Some(name)) if name != "" => drop(spec.insert("serviceAccountName".to_owned(), name)),
        _ => {}
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for entry in structures(spec, list) {
            container(entry);
        }
    }
    for entry in structures(spec, "volumes") {
        volume(entry);
    }
}

fn container(container: &mut Fields) {
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    fill(container, "resources", json!({}));
    let policy = pull_policy(container.get("image").and_then(Value::as_str).unwrap_or_default());
    fill(container, "imagePullPolicy", policy);
    for port in structures(container, "ports") {
        fill(port, "protocol", "TCP");
    }
    for variable in structures(container, "env") {
        if let Some(field) = at(variable, &["valueFrom", "fieldRef"]) {
            fill(field, "apiVersion", "v1");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = at(container, &[probe]) else { continue };
        fill(probe, "timeoutSeconds", 1);
        fill(probe, "periodSeconds", 10);
        fill(probe, "successThreshold", 1);
        fill(probe, "failureThreshold", 3);
        handler(probe);
        if let Some(grpc) = at(probe, &["grpc"]) {
            fill(grpc, "service", "");
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = at(container, &["lifecycle", hook]) {
            handler(hook);
        }
    }
}

fn handler(handler: &mut Fields) {
    if let Some(get) = at(handler, &["httpGet"]) {
        fill(get, "path", "/");
        fill(get, "scheme", "HTTP");
    }
}

/// A moving tag is looked up at each start, everything else once.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        None if !digest && !image.is_empty() => "Always",
        _ => "IfNotPresent",
    }
}

fn volume(volume: &mut Fields) {
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = at(volume, &[source]) {
            fill(source, "defaultMode", 0o644);
        }
    }
    storage::source(volume);
    if let Some(source) = at(volume, &["image"]) {
        let policy = pull_policy(source.get("reference").and_then(Value::as_str).unwrap_or_default());
        fill(source, "pullPolicy", policy);
    }
    if let Some(source) = at(volume, &["downwardAPI"]) {
        downward(source);
    }
    if let Some(projected) = at(volume, &["projected"]) {
        for source in structures(projected, "sources") {
            if let Some(token) = at(source, &["serviceAccountToken"]) {
                fill(token, "expirationSeconds", 3600);
            }
            if let Some(source) = at(source, &["downwardAPI"]) {
                downward(source);
            }
        }
    }
}

fn downward(source: &mut Fields) {
    for item in structures(source, "items") {
        if let Some(field) = at(item, &["fieldRef"]) {
            fill(field, "apiVersion", "v1");
        }
    }
}

/// Writes every quantity in its canonical form, as Kubernetes' decoder does, and takes out nulls, which mean "absent".
pub(super) fn canonical(of: Type, value: &mut Value) {
    match (of.form(), value) {
        (Form::Quantity, value) => {
            let text = match &*value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return,
            };
            // Twice: bytes that are no multiple of 1024 are printed without a suffix, and read back they are decimal (`2000`, then `2k`).
            let again = |text: &str| text.parse::<Quantity>().ok().map(|quantity| quantity.to_string());
            if let Some(text) = again(&text).and_then(|text| again(&text)) {
                *value = Value::String(text);
            }
        }
        (Form::Text(Text::Time(Some(digits))), Value::String(text)) => {
            // Clients that know a time as a time, and not as a text, send it back in another dress: `+00:00`, `.000Z`.
            let length = if *digits == 0 { 20 } else { 21 + digits };
            if (text.len() != length || !text.ends_with('Z'))
                && let Ok(at) = text.parse::<jiff::Timestamp>()
            {
                *text = format!("{at:.digits$}");
            }
        }
        (Form::Struct(shape), Value::Object(fields)) => {
            let kept = |name: &str| shape.fields.get(name).map_or(shape.open, |field| field.nullable);
            fields.retain(|name, v| !v.is_null() || kept(name));
            for (name, value) in fields {
                if let Some(field) = shape.fields.get(name) {
                    canonical(field.of, value);
                }
            }
        }
        (Form::Map(of), Value::Object(entries)) if composite(*of) => entries.values_mut().for_each(|v| canonical(*of, v)),
        (Form::List(of), Value::Array(items)) if composite(*of) => items.iter_mut().for_each(|v| canonical(*of, v)),
        _ => {}
    }
}

fn composite(of: Type) -> bool {
    matches!(of.form(), Form::Quantity | Form::Text(Text::Time(_)) | Form::Struct(_) | Form::Map(_) | Form::List(_))
}

fn fields(value: &mut Value) -> Option<&mut Fields> {
    value.as_object_mut()
}

fn fill(fields: &mut Fields, name: &str, default: impl Into<Value>) {
    match fields.get_mut(name) {
        Some(Value::Null) | None => drop(fields.insert(name.to_owned(), default.into())),
        Some(_) => {}
    }
}

/// The structure in a field, made if it is not there; `None` if something else is.
fn child<'a>(fields: &'a mut Fields, name: &str) -> Option<&'a mut Fields> {
    fill(fields, name, json!({}));
    fields.get_mut(name)?.as_object_mut()
}

/// The structure at a path, if it is there.
fn at<'a>(fields: &'a mut Fields, path: &[&str]) -> Option<&'a mut Fields> {
    path.iter().try_fold(fields, |at, name| at.get_mut(*name)?.as_object_mut())
}

/// The structures in a list.
fn structures<'a>(fields: &'a mut Fields, name: &str) -> impl Iterator<Item = &'a mut Fields> {
    fields.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;
    use crate::object::admit::prepare;
    use crate::object::{KINDS, Kind};

    fn check(kind: &str, value: Value, expected: Expect) {
        let kind: &'static Kind = KINDS.iter().find(|k| k.kind == kind).unwrap();
        let mut value = value;
        prepare(kind, &mut value);
        expected.assert_eq(&serde_yaml::to_string(&value).unwrap());
        let once = value.clone();
        prepare(kind, &mut value);
        assert_eq!(value, once, "twice is once");
    }

    #[test]
    fn times_in_any_dress() {
        for (kind, field, dressed, plain) in [
            ("Pod", "metadata", "2026-11-21T15:49:06+00:00", "2026-11-21T15:49:06Z"),
            ("Pod", "metadata", "2026-11-21T16:49:06.123+01:00", "2026-11-21T15:49:06Z"),
            ("Pod", "metadata", "yesterday", "yesterday"),
            ("Lease", "spec", "2026-11-21T15:49:06Z", "2026-11-21T15:49:06.000000Z"),
        ] {
            let name = if kind == "Lease" { "renewTime" } else { "creationTimestamp" };
            let mut value = json!({ field: { name: dressed } });
            prepare(KINDS.iter().find(|k| k.kind == kind).unwrap(), &mut value);
            assert_eq!(value[field][name], plain);
        }
    }

    #[test]
    fn the_smallest_pod() {
        check(
            "Pod",
            json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "busybox"}]}}),
            expect![[r#"
                metadata:
                  name: a
                spec:
                  containers:
                  - image: busybox
                    imagePullPolicy: Always
                    name: a
                    resources: {}
                    terminationMessagePath: /dev/termination-log
                    terminationMessagePolicy: File
                  dnsPolicy: ClusterFirst
                  enableServiceLinks: true
                  restartPolicy: Always
                  schedulerName: default-scheduler
                  securityContext: {}
                  terminationGracePeriodSeconds: 30
            "#]],
        );
    }

    #[test]
    fn a_pod_with_everything() {
        check(
            "Pod",
            json!({"metadata": {"name": "a"}, "spec": {
                "hostNetwork": true,
                "serviceAccountName": "robot",
                "containers": [{
                    "name": "a", "image": "web:1.0",
                    "ports": [{"containerPort": 80}],
                    "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                    "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": 0.5}},
                    "livenessProbe": {"httpGet": {"port": 80}},
                    "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 2},
                    "lifecycle": {"preStop": {"httpGet": {"port": 80}}},
                }],
                "volumes": [{"name": "e"}, {"name": "c", "configMap": {"name": "c"}}, {"name": "h", "hostPath": {"path": "/x"}}],
            }}),
            expect![[r#"
                metadata:
                  name: a
                spec:
                  containers:
                  - env:
                    - name: IP
                      valueFrom:
                        fieldRef:
                          apiVersion: v1
                          fieldPath: status.podIP
                    image: web:1.0
                    imagePullPolicy: IfNotPresent
                    lifecycle:
                      preStop:
                        httpGet:
                          path: /
                          port: 80
                          scheme: HTTP
                    livenessProbe:
                      failureThreshold: 3
                      httpGet:
                        path: /
                        port: 80
                        scheme: HTTP
                      periodSeconds: 10
                      successThreshold: 1
                      timeoutSeconds: 1
                    name: a
                    ports:
                    - containerPort: 80
                      hostPort: 80
                      protocol: TCP
                    readinessProbe:
                      failureThreshold: 3
                      periodSeconds: 2
                      successThreshold: 1
                      tcpSocket:
                        port: 80
                      timeoutSeconds: 1
                    resources:
                      limits:
                        cpu: '1'
                        memory: 1Gi
                      requests:
                        cpu: 500m
                        memory: 1Gi
                    terminationMessagePath: /dev/termination-log
                    terminationMessagePolicy: File
                  dnsPolicy: ClusterFirst
                  enableServiceLinks: true
                  hostNetwork: true
                  restartPolicy: Always
                  schedulerName: default-scheduler
                  securityContext: {}
                  serviceAccount: robot
                  serviceAccountName: robot
                  terminationGracePeriodSeconds: 30
                  volumes:
                  - emptyDir: {}
                    name: e
                  - configMap:
                      defaultMode: 420
                      name: c
                    name: c
                  - hostPath:
                      path: /x
                      type: ''
                    name: h
            "#]],
        );
    }

    #[test]
    fn deployments() {
        check(
            "Deployment",
            json!({"metadata": {"name": "a"}, "spec": {"template": {"spec": {"containers": [{"name": "a", "image": "r:5000/web@sha256:1"}]}}}}),
            expect![[r#"
                metadata:
                  name: a
                spec:
                  progressDeadlineSeconds: 600
                  replicas: 1
                  revisionHistoryLimit: 10
                  strategy:
                    rollingUpdate:
                      maxSurge: 25%
                      maxUnavailable: 25%
                    type: RollingUpdate
                  template:
                    spec:
                      containers:
                      - image: r:5000/web@sha256:1
                        imagePullPolicy: IfNotPresent
                        name: a
                        resources: {}
                        terminationMessagePath: /dev/termination-log
                        terminationMessagePolicy: File
                      dnsPolicy: ClusterFirst
                      restartPolicy: Always
                      schedulerName: default-scheduler
                      securityContext: {}
                      terminationGracePeriodSeconds: 30
            "#]],
        );
        check(
            "Deployment",
            json!({"spec": {"replicas": 0, "strategy": {"type": "Recreate"}, "template": 5}}),
            expect![[r#"
                spec:
                  progressDeadlineSeconds: 600
                  replicas: 0
                  revisionHistoryLimit: 10
                  strategy:
                    type: Recreate
                  template: 5
            "#]],
        );
    }

    #[test]
    fn the_rest() {
        check(
            "Secret",
            json!({"metadata": {"name": "a"}, "data": {"old": "eA=="}, "stringData": {"new": "hi"}}),
            expect![[r#"
                data:
                  new: aGk=
                  old: eA==
                metadata:
                  name: a
                type: Opaque
            "#]],
        );
        check(
            "Namespace",
            json!({"metadata": {"name": "shop"}}),
            expect![[r#"
                metadata:
                  labels:
                    kubernetes.io/metadata.name: shop
                  name: shop
            "#]],
        );
        check(
            "Application",
            json!({"metadata": {"name": "a"}, "spec": {"source": {"repository": "/srv/git"}, "policy": {"prune": false}}}),
            expect![[r#"
                metadata:
                  name: a
                spec:
                  policy:
                    allowEmpty: false
                    historyLimit: 20
                    onFailure: rollback
                    progressDeadlineSeconds: 600
                    prune: false
                    pruneMaxPercent: 50
                    selfHeal: true
                    soakSeconds: 10
                  source:
                    intervalSeconds: 60
                    namespace: default
                    repository: /srv/git
                    revision: HEAD
            "#]],
        );
    }

    #[test]
    fn pull_policies() {
        let rows = [
            ("web", "Always"),
            ("web:latest", "Always"),
            ("web:1", "IfNotPresent"),
            ("host:5000/web", "Always"),
            ("host:5000/web:1", "IfNotPresent"),
            ("web@sha256:0", "IfNotPresent"),
            ("web:latest@sha256:0", "Always"),
        ];
        for (image, policy) in rows {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
