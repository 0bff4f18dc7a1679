//! The table against the types, hand-made bodies, and bodies that are broken on purpose. Bodies of the real kubectl are sent in
//! `tests/kubectl.rs`.

use proptest::prelude::*;
use serde_json::json;

use super::wire::Writer;
use super::*;
use crate::object::schema::{self, Form, Type};
use crate::object::{KINDS, ours, robust};

fn message() -> Writer {
    Writer::default()
}

fn body(api_version: &str, kind: &str, object: Writer) -> Vec<u8> {
    let envelope = message().message(1, message().text(1, api_version).text(2, kind)).message(2, object).text(3, "").text(4, "");
    [MAGIC, &envelope.finish()].concat()
}

/// As kubectl writes it: every field that is no pointer is there, zero or not.
fn deployment() -> Vec<u8> {
    let meta = || message().text(1, "web").text(2, "").text(3, "shop").number(7, 0).message(8, message());
    let entry = |key: &str, value: &str| message().text(1, key).text(2, value);
    let port = message().text(1, "").number(2, 0).number(3, 8080).text(4, "TCP").text(5, "");
    let limit = message().text(1, "cpu").message(2, message().text(1, "500m"));
    let probe = message()
        .message(1, message().message(2, message().text(1, "/").message(2, message().number(1, 1).number(2, 0).text(3, "http"))))
        .number(2, 5);
    let container = message()
        .text(1, "web")
        .text(2, "nginx")
        .text(3, "sh")
        .text(3, "-c")
        .message(6, port)
        .message(8, message().message(1, limit))
        .message(10, probe)
        .number(16, 0);
    let volume = message().text(1, "tmp").message(2, message().message(2, message().text(1, "")));
    let pod =
        message().message(1, volume).message(2, container).text(3, "Always").number(4, 0).number(11, 0).message(14, message());
    let template = message().message(1, message().message(11, entry("app", "web")).message(8, message())).message(2, pod);
    let spec = message()
        .number(1, 0)
        .message(2, message().message(1, entry("app", "web")))
        .message(3, template)
        .message(4, message().text(1, ""))
        .number(5, 0)
        .number(7, 0);
    let status = message().number(1, 0).number(2, 0);
    body("apps/v1", "Deployment", message().message(1, meta().message(8, message())).message(2, spec).message(3, status))
}

#[test]
fn a_deployment_reads_as_its_json() {
    assert_eq!(
        decode(&deployment()).unwrap(),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {
                        "containers": [{
                            "name": "web", "image": "nginx", "command": ["sh", "-c"],
                            "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                            "resources": {"limits": {"cpu": "500m"}},
                            "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "initialDelaySeconds": 5},
                        }],
                        "volumes": [{"name": "tmp", "emptyDir": {}}],
                        "restartPolicy": "Always", "terminationGracePeriodSeconds": 0, "securityContext": {},
                    },
                },
            },
        })
    );
}

#[test]
fn special_types() {
    let data = message()
        .message(2, message().text(1, "key").bytes(2, &[0, 255]))
        .message(2, message().text(1, "empty"))
        .text(3, "Opaque");
    assert_eq!(
        decode(&body("v1", "Secret", data)).unwrap(),
        json!({"apiVersion": "v1", "kind": "Secret", "data": {"key": "AP8=", "empty": ""}, "type": "Opaque"})
    );
    let lease = message()
        .message(2, message().text(1, "me").number(2, 40).message(4, message().number(1, 1_700_000_000).number(2, 5_000)));
    assert_eq!(
        decode(&body("coordination.k8s.io/v1", "Lease", lease)).unwrap()["spec"],
        json!({"holderIdentity": "me", "leaseDurationSeconds": 40, "renewTime": "2023-11-14T22:13:20.000005Z"})
    );
    let review = message().message(
        2,
        message().text(3, "joe").message(5, message().text(1, "scopes").message(2, message().text(1, "a").text(1, "b"))),
    );
    assert_eq!(
        decode(&body("authorization.k8s.io/v1", "SubjectAccessReview", review)).unwrap()["spec"],
        json!({"user": "joe", "extra": {"scopes": ["a", "b"]}})
    );
    let revision = message().message(2, message().bytes(1, br#"{"spec":{"a":1}}"#)).number(3, 0);
    assert_eq!(
        decode(&body("apps/v1", "ControllerRevision", revision)).unwrap(),
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "data": {"spec": {"a": 1}}, "revision": 0})
    );
    // Clients name the group of what they delete; -1 is ten bytes long.
    let options = message().number(1, -1).text(4, "Background").text(5, "All");
    assert_eq!(
        decode(&body("apps/v1", "DeleteOptions", options)).unwrap(),
        json!({
            "apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": -1, "propagationPolicy": "Background", "dryRun": ["All"],
        })
    );
}

#[test]
fn refusals() {
    let failing = |bytes: &[u8]| decode(bytes).unwrap_err().message;
    assert!(failing(b"{}").contains("does not begin with k8s"));
    assert!(failing(b"k8s\0").contains("does not name a kind"));
    assert!(failing(&body("example.com/v1", "Widget", message())).contains("no kind \"Widget\" of version \"example.com/v1\""));
    let cut = deployment();
    assert!(failing(&cut[..cut.len() - 9]).contains("ends in the middle"));
    assert!(failing(&body("v1", "ConfigMap", message().number(1, 7))).contains("wrong wire type"));
    assert!(failing(&body("v1", "ConfigMap", message().message(1, message().bytes(1, b"\xff")))).contains("not UTF-8"));
    assert!(failing(&body("v1", "ConfigMap", message().bytes(1, &[0x0b, 0x0c]))).contains("unknown wire type"));
    let late = message().message(1, message().message(8, message().number(1, i64::MAX)));
    assert!(failing(&body("v1", "ConfigMap", late)).contains("out of range"));
    // Half a megabyte of empty containers would be a hundred times that as a tree.
    let many: Vec<u8> = [0x12, 0x00].repeat(VALUES_MAX + 1);
    assert!(failing(&body("v1", "Pod", message().bytes(2, &many))).contains("too many values"));
    let strange = message().message(1, message().text(1, "v1").text(2, "ConfigMap")).message(2, message()).text(3, "gzip");
    assert!(failing(&[MAGIC, &strange.finish()].concat()).contains("encoded in another way"));
}

/// Every field of the table is a field of the type with the same name, and of a like type, from the kinds down.
#[test]
fn the_table_agrees_with_the_types() {
    /// Fields that Kubernetes 1.37 has and the source of numbers does not have yet.
    const LATER: &[&str] = &[
        "CSIDriverSpec.preventPodSchedulingIfMissing",
        "CSINode.status",
        "ClusterTrustBundleProjection.user",
        "ConfigMapVolumeSource.defaultUser",
        "DownwardAPIVolumeFile.user",
        "DownwardAPIVolumeSource.defaultUser",
        "EmptyDirVolumeSource.mode",
        "GRPCAction.mode",
        "HTTPGetAction.protocol",
        "HorizontalPodAutoscalerCondition.observedGeneration",
        "JobSpec.scheduling",
        "KeyToPath.user",
        "NodeSpec.podPreemptionPolicy",
        "NodeSystemInfo.runningInUserNamespace",
        "PersistentVolumeClaimStatus.healthStatus",
        "PodCertificateProjection.user",
        "PodSpec.evictionResponders",
        "PodSpec.schedulingGroup",
        "PodStatus.nodeAllocatableResourceClaimStatuses",
        "PodStatus.volumeHealth",
        "ProjectedVolumeSource.defaultUser",
        "ResourceHealth.message",
        "SecretVolumeSource.defaultUser",
        "ServiceAccountTokenProjection.user",
        "TokenRequestSpec.attestations",
        "VolumeMount.bindMountOptions",
        "VolumeMountStatus.volumeStatus",
    ];
    fn compare(message: &'static str, of: Type, path: &str, seen: &mut Vec<&'static str>, found: &mut Vec<String>) {
        if seen.contains(&message) {
            return;
        }
        seen.push(message);
        let mut names = Vec::new();
        fields(message, of, path, seen, found, &mut names);
        let Some(shape) = of.as_struct() else { return found.push(format!("{path} is no structure")) };
        for name in shape.fields.keys().filter(|n| !matches!(n.as_str(), "apiVersion" | "kind")) {
            if !names.contains(&name.as_str()) && !LATER.contains(&format!("{}.{name}", shape.name).as_str()) {
                found.push(format!("{path}.{name} has no number"));
            }
        }
    }
    fn fields(
        message: &'static str,
        of: Type,
        path: &str,
        seen: &mut Vec<&'static str>,
        found: &mut Vec<String>,
        names: &mut Vec<&'static str>,
    ) {
        for field in &table()[message] {
            let path = format!("{path}.{}", field.name);
            if field.shape == Shape::Inline {
                let (inner, _) = target(message, field.of).unwrap();
                fields(inner, of, &path, seen, found, names);
                continue;
            }
            names.push(field.name);
            let Some(known) = of.field(field.name) else {
                // Gone from the schemas, still in the wire format.
                if !matches!(field.name, "selfLink" | "resize") {
                    found.push(format!("{path} is not a field"));
                }
                continue;
            };
            let inner = match (field.shape, known.of.form()) {
                (Shape::List, Form::List(of)) | (Shape::Map, Form::Map(of)) => *of,
                (Shape::One, _) => known.of,
                _ => return found.push(format!("{path} has another shape")),
            };
            let fits = match (field.of, inner.form()) {
                (Of::Message(_), Form::Struct(_)) => {
                    let (message, _) = target(message, field.of).unwrap();
                    compare(message, inner, &path, seen, found);
                    true
                }
                (Of::Texts, Form::List(_)) | (Of::Raw, Form::Any) | (Of::Quantity, Form::Quantity) => true,
                (Of::Text | Of::Bytes | Of::Time | Of::MicroTime, Form::Text(_)) | (Of::Boolean, Form::Boolean) => true,
                (Of::Integer, Form::Integer(..)) | (Of::Double, Form::Number) | (Of::IntOrText, Form::IntOrText) => true,
                _ => false,
            };
            if !fits {
                found.push(format!("{path} has another type"));
            }
        }
    }
    let (mut seen, mut found) = (Vec::new(), Vec::new());
    for kind in KINDS.iter().filter(|k| k.group != ours::GROUP && k.group != "apiextensions.k8s.io") {
        let message = format!("{}.{}", kind.api_version(), kind.kind);
        let Some((message, _)) = table().get_key_value(&message) else {
            found.push(format!("{message} is not in the table"));
            continue;
        };
        compare(message, schema::of(kind), kind.kind, &mut seen, &mut found);
    }
    assert!(seen.len() > 50, "{}", seen.len());
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_type_of_the_table_is_in_it() {
    for (message, fields) in table() {
        for field in fields.iter().filter(|f| matches!(f.of, Of::Message(_))) {
            assert!(target(message, field.of).is_ok(), "{message}.{}", field.name);
        }
    }
}

proptest! {
    #![proptest_config(robust::cases(2000))]
    /// Whatever comes, it ends, and it does not panic.
    #[test]
    fn broken_bodies(changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..20), cut in any::<u16>(), kind in 0usize..1000) {
        let mut bytes = deployment();
        let start = MAGIC.len();
        for (at, byte) in changes {
            let at = start + usize::from(at) % (bytes.len() - start);
            bytes[at] = byte;
        }
        bytes.truncate(start + usize::from(cut) % (bytes.len() - start) + 1);
        let _ = decode(&bytes);
        // The same bytes taken for any other type.
        let messages: Vec<_> = table().keys().collect();
        let (api_version, name) = messages[kind % messages.len()].rsplit_once('.').unwrap();
        let _ = decode(&body(api_version, name, Writer::of(bytes)));
    }
}
