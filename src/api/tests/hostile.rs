//! Any bytes at all, sent to any endpoint: an answer in Kubernetes' words, never a panic, and what got in can be read by everybody.
//!
//! Requests are made from what real clients send, with something wrong in any place: paths, queries, headers, JSON, YAML, protobuf, all
//! patches, selectors, tokens. A panic anywhere is a 500 here ([`Api::handle`](super::super::Api::handle) catches it), and a 500 fails.
//! Tools that need a nightly compiler are not used: the generator knows the shapes, and runs in `make test` for a moment with the same
//! chance each time. `FUZZ=600 FUZZ_SEED=7 cargo test --lib hostile -- --nocapture` takes half an hour with chance of its own.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::*;
use crate::object::stream::Frame;
use crate::object::{KINDS, robust};

/// All chance of a run; anything but 0.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n.max(1)
    }
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    pub(super) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
    /// Text that somebody might trip over.
    pub(super) fn text(&mut self) -> String {
        match self.below(12) {
            0 => "a".repeat(1 + self.below(5000)),
            1 => (0..self.below(20)).map(|_| char::from_u32(self.next() as u32 % 0x11_0000).unwrap_or('\u{fffd}')).collect(),
            2 => (0..self.below(30)).map(|_| char::from(self.below(128) as u8)).collect(),
            3 => self.next().to_string(),
            4 => format!("{}e{}", self.next() as i64, self.below(400)),
            _ => self.pick(&WORDS).to_owned(),
        }
    }
    fn junk(&mut self, depth: usize) -> Value {
        match self.below(13) {
            0 => Value::Null,
            1 => json!([]),
            2 => json!({}),
            3 => (self.next() as i64).into(),
            4 => json!(f64::from_bits(self.next())),
            5 => json!(self.one_in(2)),
            6 => json!({"$patch": self.pick(&["delete", "replace", "merge", "?"])}),
            7 => {
                json!([{"op": self.pick(&["add", "remove", "replace", "move", "copy", "test", "?"]), "path": self.pointer(), "from": self.pointer(), "value": self.text()}])
            }
            8 => (0..self.below(200)).fold(json!(1), |inner, _| json!([inner])),
            9 if depth < 4 => (0..self.below(5)).map(|_| self.junk(depth + 1)).collect(),
            10 if depth < 4 => {
                let fields = (0..self.below(5)).map(|_| (self.text(), self.junk(depth + 1)));
                Value::Object(fields.collect())
            }
            _ => self.text().into(),
        }
    }
    fn pointer(&mut self) -> String {
        (0..self.below(6))
            .map(|_| {
                format!(
                    "/{}",
                    self.pick(&[
                        "metadata",
                        "labels",
                        "spec",
                        "template",
                        "containers",
                        "0",
                        "-",
                        "-1",
                        "~1",
                        "~0",
                        "~",
                        "99999999999999999999",
                        "",
                        "status",
                        "data",
                        "a"
                    ])
                )
            })
            .collect()
    }
    /// Puts something else in one place of a document.
    fn spoil(&mut self, value: &mut Value) {
        let children = match value {
            Value::Object(fields) => fields.len(),
            Value::Array(items) => items.len(),
            _ => 0,
        };
        if children == 0 || self.one_in(6) {
            match (value, self.below(4)) {
                (Value::Object(fields), 0) => drop(fields.insert(self.text(), self.junk(0))),
                (Value::Array(items), 0) => items.extend(items.first().cloned()),
                (value, _) => *value = self.junk(0),
            }
            return;
        }
        let place = self.below(children);
        match value {
            Value::Object(fields) if self.one_in(12) => {
                let name = fields.keys().nth(place).cloned().unwrap_or_default();
                fields.remove(&name);
            }
            Value::Object(fields) => self.spoil(fields.values_mut().nth(place).expect("there is such a field")),
            Value::Array(items) => self.spoil(&mut items[place]),
            _ => {}
        }
    }
    /// Changes bytes here and there.
    pub(super) fn scratch(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.next() as u8),
                2 => {
                    let word = self.text();
                    bytes.splice(at..at, word.bytes());
                }
                3 => {
                    let end = (at + self.below(40)).min(bytes.len());
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
                _ if at < bytes.len() => bytes[at] = self.next() as u8,
                _ => {}
            }
        }
    }
}

const WORDS: [&str; 48] = [
    "",
    "a",
    "b",
    "default",
    "shop",
    "kube-system",
    "metadata.name",
    "spec.nodeName",
    "=",
    "==",
    "!=",
    ",",
    "!",
    " in (",
    " notin ()",
    ")",
    "a in (b,c)",
    "..",
    ".",
    "/",
    "%",
    "%00",
    "\0",
    "\n",
    "\u{202e}",
    "ü",
    "🚢",
    "-1",
    "0",
    "1",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e999",
    "0x10",
    "true",
    "null",
    "100%",
    "-100%",
    "1Ei",
    "1e-400",
    "999999999999999999Ti",
    "2026-11-21T10:00:00Z",
    "9999-12-31T23:59:59Z",
    "-99999999-01-01T00:00:00Z",
    "k8s.io/initial-events-end",
    "eyJ2IjoicG9ydG9sYW4vdjEifQ",
    "$(",
];

const ACCEPTS: [&str; 11] = [
    "application/json",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectList;v=v1alpha1;g=portolan.dev",
    "application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "*/*",
    "application/json;;;=;as",
];

const CONTENTS: [&str; 9] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
    "text/plain; charset=\"",
];

const PARAMETERS: [&str; 35] = [
    "watch",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "labelSelector",
    "fieldSelector",
    "timeoutSeconds",
    "sendInitialEvents",
    "allowWatchBookmarks",
    "dryRun",
    "fieldValidation",
    "fieldManager",
    "force",
    "gracePeriodSeconds",
    "propagationPolicy",
    "orphanDependents",
    "includeObject",
    "fields",
    "pretty",
    "container",
    "follow",
    "tailLines",
    "sinceSeconds",
    "sinceTime",
    "limitBytes",
    "command",
    "stdin",
    "stdout",
    "stderr",
    "tty",
    "previous",
    "timestamps",
    "insecureSkipTLSVerifyBackend",
    "x",
];

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {
        "containers": [{"name": "a", "image": "a:1", "command": ["a", "$(X)"], "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}],
            "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
            "livenessProbe": {"httpGet": {"port": 80, "path": "/"}, "periodSeconds": 1}, "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "a"}],
            "securityContext": {"capabilities": {"drop": ["ALL"]}}, "lifecycle": {"preStop": {"exec": {"command": ["a"]}}}}],
        "initContainers": [{"name": "i", "image": "i"}],
        "volumes": [{"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}}, {"name": "e", "emptyDir": {"sizeLimit": "1Gi"}}],
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}]}}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "h", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"a": "b"}}}],
        "terminationGracePeriodSeconds": 30, "nodeName": "n1"}})
}

/// An object of a kind, as somebody might send it.
fn document(kind: &'static crate::object::Kind, name: &str) -> Value {
    static MANIFESTS: LazyLock<Vec<(&'static crate::object::Kind, Value)>> = LazyLock::new(robust::manifests);
    if let Some((_, manifest)) = MANIFESTS.iter().find(|(of, _)| std::ptr::eq(*of, kind)) {
        let mut value = manifest.clone();
        value["metadata"]["name"] = name.into();
        value["metadata"].as_object_mut().unwrap().remove("namespace");
        return value;
    }
    let kind = kind.kind;
    let meta = json!({"name": name, "labels": {"a": "b"}, "annotations": {"x": "y"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]});
    let workload = json!({"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template(), "serviceName": "s",
        "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}});
    let mut value = match kind {
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => json!({"spec": workload}),
        "Job" => json!({"spec": {"template": template(), "backoffLimit": 3}}),
        "CronJob" => {
            json!({"spec": {"schedule": "*/5 * * * *", "timeZone": "Etc/UTC", "jobTemplate": {"spec": {"template": template()}}}})
        }
        "Pod" => {
            json!({"spec": template()["spec"], "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
        }
        "Service" => {
            json!({"spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": "web", "nodePort": 30000}], "type": "NodePort"}})
        }
        "Secret" => json!({"type": "Opaque", "data": {"a": "eA=="}, "stringData": {"b": "c"}}),
        "ConfigMap" => json!({"data": {"a": "b"}, "binaryData": {"c": "eA=="}}),
        "Node" => {
            json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}, "status": {"capacity": {"cpu": "1", "memory": "1Gi"}, "conditions": [{"type": "Ready", "status": "True"}]}})
        }
        "Role" | "ClusterRole" => json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        "RoleBinding" | "ClusterRoleBinding" => {
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "u"}]})
        }
        "Application" => {
            json!({"spec": {"source": {"repository": "/r", "revision": "main", "path": "a"}, "policy": {"prune": true}}})
        }
        "Event" => {
            json!({"involvedObject": {"kind": "Pod", "namespace": "shop", "name": "p"}, "reason": "R", "count": 1, "lastTimestamp": "2026-11-21T10:00:00Z"})
        }
        "Lease" => {
            json!({"spec": {"holderIdentity": "a", "leaseDurationSeconds": 40, "renewTime": "2026-11-21T10:00:00.000000Z"}})
        }
        "Namespace" => json!({"spec": {"finalizers": ["kubernetes"]}}),
        "HorizontalPodAutoscaler" => {
            json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "a"}, "minReplicas": 1, "maxReplicas": 3}})
        }
        "PodDisruptionBudget" => json!({"spec": {"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}}),
        _ => json!({"spec": {}, "status": {}}),
    };
    value["metadata"] = meta;
    value
}

/// A body in protobuf: the envelope that Go clients send, around whatever bytes.
fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = bytes.len();
        while length > 127 {
            out.push(length as u8 | 128);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(bytes);
        out
    }
    let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &meta), field(2, raw)].concat()
}

struct Hostile {
    world: World,
    dice: Dice,
    requests: usize,
    stored: usize,
}

/// One request, before it is sent.
#[derive(Debug)]
struct Shot {
    method: &'static str,
    path: String,
    accept: String,
    content: String,
    body: Vec<u8>,
}

impl Hostile {
    fn path(&mut self, kind: &'static crate::object::Kind, name: &str) -> String {
        let mut path = if kind.group.is_empty() {
            format!("/api/{}", kind.version)
        } else {
            format!("/apis/{}/{}", kind.group, kind.version)
        };
        if kind.namespaced && !self.dice.one_in(10) {
            path.push_str(&format!("/namespaces/{}", self.dice.pick(&["default", "shop", "shop", "shop", "none"])));
        }
        path.push_str(&format!("/{}", kind.plural));
        if !name.is_empty() {
            path.push_str(&format!("/{name}"));
            if self.dice.one_in(4) {
                let known = kind.subresources.to_vec();
                let sub = if known.is_empty() || self.dice.one_in(6) {
                    self.dice.pick(&["status", "scale", "log", "exec", "token", "proxy"])
                } else {
                    self.dice.pick(&known)
                };
                path.push_str(&format!("/{sub}"));
            }
        }
        if self.dice.one_in(12) {
            let at = self.dice.below(path.len());
            let word = super::super::path::encode(&self.dice.text());
            path.insert_str(at, &word);
        }
        path
    }

    fn query(&mut self) -> String {
        let mut query = String::new();
        for _ in 0..self.dice.below(8).saturating_sub(4) {
            let name = self.dice.pick(&PARAMETERS);
            // A watch takes a second.
            if name == "watch" && !self.dice.one_in(12) {
                continue;
            }
            let value = match (name, self.dice.below(3)) {
                ("watch", _) => self.dice.pick(&["true", "1", "false", "x"]).to_owned(),
                ("labelSelector", 0) => {
                    self.dice.pick(&["a=b", "a in (b,c),!d", "a notin (b)", "a>1", "((", "a=b,,c"]).to_owned()
                }
                ("fieldSelector", 0) => self
                    .dice
                    .pick(&["metadata.name=a", "spec.nodeName=n1", "spec.x=1", "a\\=b=c", "metadata.namespace!=shop"])
                    .to_owned(),
                _ => self.dice.text(),
            };
            let value = if self.dice.one_in(20) { "%f".to_owned() } else { super::super::path::encode(&value) };
            query.push_str(&format!("{}{name}={value}", if query.is_empty() { "?" } else { "&" }));
        }
        // A watch would last; what it is told is other tests' business.
        if query.contains("watch=") || query.contains("follow=") {
            query.push_str("&timeoutSeconds=1");
        }
        query
    }

    fn shot(&mut self) -> Shot {
        let kind = &KINDS[self.dice.below(KINDS.len())];
        let name = self.dice.pick(&["a", "b", "web", "", "default", "none"]);
        let method = self.dice.pick(&[
            "GET", "POST", "POST", "POST", "POST", "PUT", "PUT", "PATCH", "PATCH", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW",
        ]);
        let path = match self.dice.below(14) {
            0 => self
                .dice
                .pick(&[
                    "/",
                    "/api",
                    "/apis",
                    "/version",
                    "/openapi/v2",
                    "/openapi/v3",
                    "/openapi/v3/apis/apps/v1",
                    "/livez/ping",
                    "/cacert",
                    "/apis/portolan.dev/v1alpha1/join",
                    "/apis/portolan.dev/v1alpha1/nodes/h1/tunnel",
                    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                    "/metrics",
                    "/apis/authentication.k8s.io/v1/tokenreviews",
                ])
                .to_owned(),
            _ if method == "POST" && !self.dice.one_in(5) => self.path(kind, ""),
            _ => self.path(kind, name),
        };
        let path = path + &self.query();
        let mut body = document(kind, if name.is_empty() { "a" } else { name });
        body["apiVersion"] = kind.api_version().into();
        body["kind"] = kind.kind.into();
        // Much of what is sent is right: what gets in has to be found, changed and read, too.
        for _ in 0..self.dice.below(6).saturating_sub(2) {
            self.dice.spoil(&mut body);
        }
        let content = match (method, self.dice.below(8)) {
            (_, 0) => self.dice.pick(&CONTENTS),
            ("PATCH", _) => self.dice.pick(&CONTENTS[3..7]),
            _ => "application/json",
        };
        let mut bytes = match content {
            "application/json-patch+json" => {
                let operations: Vec<Value> = (0..self.dice.below(5)).map(|_| self.dice.junk(0)[0].clone()).collect();
                Value::from(operations).to_string().into_bytes()
            }
            "application/yaml" | "application/apply-patch+yaml" if self.dice.one_in(2) => {
                serde_yaml::to_string(&body).unwrap_or_default().into_bytes()
            }
            "application/vnd.kubernetes.protobuf" => {
                let raw: Vec<u8> = (0..self.dice.below(200)).map(|_| self.dice.next() as u8).collect();
                envelope(&kind.api_version(), kind.kind, &raw)
            }
            _ => body.to_string().into_bytes(),
        };
        if self.dice.one_in(6) {
            self.dice.scratch(&mut bytes);
        }
        let mut accept = if self.dice.one_in(3) { self.dice.pick(&ACCEPTS).to_owned() } else { "application/json".to_owned() };
        if self.dice.one_in(15) {
            accept.push_str(&super::super::path::encode(&self.dice.text()));
        }
        Shot { method, path, accept, content: content.to_owned(), body: bytes }
    }

    async fn fire(&mut self, shot: &Shot) {
        let headers = [("accept", shot.accept.as_str()), ("content-type", shot.content.as_str())];
        let line = format!("{} {}", shot.method, shot.path);
        let Ok(_) = shot.path.parse::<http::Uri>() else { return };
        let begin = Instant::now();
        let who = Identity::admin();
        let send = self.world.send(Some(&who), &line, &headers, shot.body.clone());
        let answer = tokio::time::timeout(Duration::from_secs(120), send).await;
        let show =
            || format!("{line}\naccept {}, content {}\n{}", shot.accept, shot.content, String::from_utf8_lossy(&shot.body));
        let answer = answer.unwrap_or_else(|_| panic!("no answer: {}", show()));
        assert!(begin.elapsed() < Duration::from_secs(60), "slow: {}", show());
        self.requests += 1;
        assert!(answer.code < 500 || matches!(answer.code, 503 | 504), "{answer:?}\n{}", show());
        if answer.code >= 400 && shot.method != "HEAD" {
            let status = &answer.value;
            let fits = status["kind"] == "Status" && status["status"] == "Failure" && status["code"] == answer.code;
            assert!(fits && status["message"].is_string(), "no Status: {answer:?}\n{}", show());
        }
        if answer.code < 300 && matches!(shot.method, "POST" | "PUT" | "PATCH") {
            self.stored += 1;
        }
    }

    /// What was let in can be read by everybody: one bad object must not spoil a list, a table or a watch.
    async fn read_all(&mut self) {
        for kind in KINDS {
            let root = if kind.group.is_empty() {
                format!("/api/{}", kind.version)
            } else {
                format!("/apis/{}/{}", kind.group, kind.version)
            };
            for accept in &ACCEPTS[..5] {
                let shot = Shot {
                    method: "GET",
                    path: format!("{root}/{}", kind.plural),
                    accept: (*accept).to_owned(),
                    content: String::new(),
                    body: Vec::new(),
                };
                self.fire(&shot).await;
            }
        }
        // And by the server when it starts again.
        for object in self.world.store.view().all() {
            assert!(object.value()["metadata"]["uid"].is_string(), "{object:?}");
            let again = crate::object::Object::from_json(object.json(), object.key.kind.plural);
            assert_eq!(again.expect("a restart reads it").key, object.key);
        }
    }
}

/// How long: a moment, or many times that.
fn time() -> Duration {
    Duration::from_secs(3) * robust::times().unwrap_or(1)
}

/// Where chance begins: at the same place each time, or where somebody says.
pub(super) fn seed() -> u64 {
    std::env::var("FUZZ_SEED").ok().map_or(0x5eed_1e55, |seed| seed.parse().expect("FUZZ_SEED is a number")).max(1)
}

#[tokio::test]
async fn any_request_gets_an_answer_in_kubernetes_words() {
    let mut hostile = Hostile { world: world(), dice: Dice(seed()), requests: 0, stored: 0 };
    let begin = Instant::now();
    let mut rounds = 0;
    while begin.elapsed() < time() {
        for _ in 0..300 {
            let shot = hostile.shot();
            hostile.fire(&shot).await;
        }
        hostile.read_all().await;
        rounds += 1;
        if rounds % 40 == 0 {
            hostile.world = world();
        }
    }
    let Hostile { requests, stored, .. } = hostile;
    assert!(requests > 100 && stored > requests / 100, "{requests} requests, {stored} of them stored something");
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{requests} requests, {stored} stored something");
}

/// The envelope of a real list of things, cut and scratched: decoding must neither panic nor grow.
#[test]
fn frames_of_streams_are_bounded() {
    let mut dice = Dice(7);
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = (0..dice.below(40)).map(|_| if dice.one_in(3) { 0 } else { dice.next() as u8 }).collect();
        dice.scratch(&mut bytes);
        let mut buffer = BytesMut::from(bytes.as_slice());
        let mut left = buffer.len();
        while let Ok(Some(frame)) = Frame::decode(&mut buffer) {
            assert!(buffer.len() < left && frame.payload.len() <= left);
            left = buffer.len();
        }
    }
}

/// Patch after patch makes an object deeper, until nobody could read it any more, not even the server when it starts again.
#[tokio::test]
async fn no_object_grows_so_deep_that_it_cannot_be_read() {
    let w = world();
    let nested = (0..100).fold(json!({}), |inner, _| json!({"f:a": inner}));
    let path = "/api/v1/namespaces/default/configmaps";
    w.must(&format!("POST {path}"), config_map("a", json!({"k": "v"}))).await;
    let who = Identity::admin();
    let mut place = "/metadata/managedFields/0/fieldsV1".to_owned();
    for _ in 0..4 {
        let patch = json!([{"op": "add", "path": format!("{place}/f:a"), "value": nested}]);
        let headers = [("content-type", "application/json-patch+json")];
        w.send(Some(&who), &format!("PATCH {path}/a"), &headers, patch.to_string()).await;
        place.push_str(&"/f:a".repeat(100));
        let read = w.ask(&format!("GET {path}/a"), Value::Null).await;
        assert_eq!(read.code, 200, "{}", read.show());
        w.store
            .view()
            .all()
            .for_each(|o| drop(crate::object::Object::from_json(o.json(), o.key.kind.plural).expect("it can be read again")));
    }
}

/// A small text that means a huge one, or takes for ever to read, is refused or is small.
#[tokio::test]
async fn bombs_stay_small() {
    let w = world();
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let one = format!("*a{}", i - 1);
        laughs.push_str(&format!("a{i}: &a{i} [{}]\n", [one.as_str(); 10].join(", ")));
    }
    let deep_yaml = "a:\n".to_owned() + &(0..5_000).map(|n| " ".repeat(n + 1) + "a:\n").collect::<String>();
    let flow = "[".repeat(100_000);
    let flow_map = "{a: ".repeat(50_000);
    let question = "? ".repeat(50_000);
    let anchors: String = (0..100_000).map(|n| format!("- &b{n} x\n")).collect();
    let json_deep = "{\"a\":".repeat(100_000);
    let twice = format!("{{{}\"z\":1}}", "\"a\":1,".repeat(300_000));
    let operations = format!(
        "[{}{{\"op\":\"test\",\"path\":\"/a\"}}]",
        "{\"op\":\"copy\",\"from\":\"/metadata\",\"path\":\"/metadata/x\"},".repeat(9_000)
    );
    let doubling: Vec<Value> = (0..60).map(|n| json!({"op": "copy", "from": "/data", "path": format!("/data/k{n}")})).collect();
    let labels: String = (0..60_000).map(|n| format!("k{n}=v,")).collect();
    w.must("POST /api/v1/namespaces/default/configmaps", config_map("a", json!({"k": "v"}))).await;
    let path = "/api/v1/namespaces/default/configmaps";
    let core = "/api/v1/namespaces/default";
    // Everything below has many of something, so that whatever looks at each for each of them takes minutes.
    let long_name = format!("{{\"{}\":[{}1]}}", "n".repeat(1 << 20), "1,".repeat(600_000));
    let unknown = format!("{{\"spec\":{{{}\"z\":1}}}}", (0..150_000).map(|n| format!("\"u{n}\":1,")).collect::<String>());
    let pod = |name: &str, container: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}});
    let env = |from: usize| (from..from + 20_000).map(|n| json!({"name": format!("E{n}"), "value": "v"})).collect::<Value>();
    let with_env = |from: usize| pod("long", json!({"name": "c", "image": "i", "env": env(from)})).to_string();
    let ports: Value = (0..40_000).map(|n| json!({"name": format!("p{n}"), "port": n + 1})).collect();
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": ports}});
    let args = pod("args", json!({"name": "c", "image": "i", "args": vec![""; 300_000]}));
    w.must(&format!("POST {core}/pods"), args).await;
    let one_before: Vec<Value> =
        (0..9_000).map(|_| json!({"op": "add", "path": "/spec/containers/0/args/0", "value": ""})).collect();
    let rows: Vec<(String, &str, String)> = vec![
        (format!("POST {path}"), "application/yaml", laughs),
        (format!("POST {path}"), "application/yaml", deep_yaml),
        (format!("POST {path}"), "application/yaml", flow),
        (format!("POST {path}"), "application/yaml", flow_map),
        (format!("POST {path}"), "application/yaml", question),
        (format!("POST {path}"), "application/yaml", anchors),
        (format!("POST {path}"), "application/json", json_deep),
        (format!("POST {path}"), "application/json", twice),
        (format!("PATCH {path}/a"), "application/json-patch+json", operations),
        (format!("PATCH {path}/a"), "application/json-patch+json", Value::from(doubling).to_string()),
        (format!("GET {path}?labelSelector={labels}"), "", String::new()),
        (format!("POST {path}"), "application/json", long_name),
        (format!("POST {core}/pods?fieldValidation=Warn"), "application/json", unknown),
        (format!("PATCH {core}/pods/long?fieldManager=m"), "application/apply-patch+yaml", with_env(0)),
        (format!("PATCH {core}/pods/long?fieldManager=m&force=true"), "application/apply-patch+yaml", with_env(10_000)),
        (format!("PATCH {core}/pods/long"), "application/strategic-merge-patch+json", with_env(20_000)),
        (format!("POST {core}/services"), "application/json", service.to_string()),
        (format!("PATCH {core}/pods/args"), "application/json-patch+json", Value::from(one_before).to_string()),
    ];
    for (line, content, body) in rows {
        let begin = Instant::now();
        let who = Identity::admin();
        if line.split_once(' ').unwrap().1.parse::<http::Uri>().is_err() {
            continue;
        }
        let answer = w.send(Some(&who), &line, &[("content-type", content)], body.clone()).await;
        let what = format!("{line:.60} {body:.60}");
        assert!(answer.code < 500, "{what}: {}", answer.show());
        // Compiled without optimisation, on a busy machine.
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}: {:?}", begin.elapsed());
        assert!(answer.value.to_string().len() < 4 << 20, "{what}");
    }
}
