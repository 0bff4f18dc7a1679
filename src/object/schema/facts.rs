//! What Kubernetes knows about its types and a Rust type cannot say: which lists are keyed, which are sets, which structures are
//! replaced as a whole.
//!
//! A list without a row is replaced as a whole. Facts are of Kubernetes 1.37; a test compares the names with the types, so that a
//! misspelt row is found.

/// How a list's elements are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// By nothing: the list is one value.
    Atomic,
    /// By their value.
    Set,
    /// By these of their fields.
    Map(&'static [&'static str]),
}

/// What is known about one field.
#[derive(Clone, Copy, Debug)]
pub struct Fact {
    /// How server-side apply sees a list.
    pub list: ListKind,
    /// By which field strategic merge patch merges a list of structures; empty for a list of scalars that is merged as a set; `None`
    /// where it replaces the list.
    pub merge: Option<&'static str>,
    /// Whether a strategic merge patch from kubectl names the fields that are to remain (`$retainKeys`).
    pub retain_keys: bool,
    /// Whether strategic merge patch replaces a structure. kubectl puts such a structure into every patch of an `apply`, changed or not.
    pub replace: bool,
    /// Whether server-side apply sees a map as one value.
    pub atomic: bool,
}

/// What a field without a row is.
pub const PLAIN: Fact = Fact { list: ListKind::Atomic, merge: None, retain_keys: false, replace: false, atomic: false };

impl Fact {
    /// How strategic merge patch treats it, in the words of Kubernetes' documents; nothing where it does as with any other field.
    pub fn strategy(&self) -> &'static str {
        match (self.merge.is_some(), self.retain_keys) {
            _ if self.replace => "replace",
            (true, true) => "merge,retainKeys",
            (true, false) => "merge",
            (false, true) => "retainKeys",
            (false, false) => "",
        }
    }
}

const fn keyed(keys: &'static [&'static str]) -> Fact {
    Fact { list: ListKind::Map(keys), merge: Some(keys[0]), ..PLAIN }
}

const fn retaining(keys: &'static [&'static str]) -> Fact {
    Fact { retain_keys: true, ..keyed(keys) }
}

const NAME: Fact = keyed(&["name"]);
const TYPE: Fact = keyed(&["type"]);
const IP: Fact = keyed(&["ip"]);
const MOUNT_PATH: Fact = keyed(&["mountPath"]);
const DEVICE_PATH: Fact = keyed(&["devicePath"]);
const SET: Fact = Fact { list: ListKind::Set, ..PLAIN };
const MERGED_SET: Fact = Fact { list: ListKind::Set, merge: Some(""), ..PLAIN };
/// Keyed for server-side apply, replaced by strategic merge patch.
const KEYED_BY_NAME_ONLY_FOR_APPLY: Fact = Fact { list: ListKind::Map(&["name"]), ..PLAIN };
const ATOMIC_MAP: Fact = Fact { atomic: true, ..PLAIN };
const PORTS: Fact = keyed(&["containerPort", "protocol"]);
/// Merged by strategic merge patch, one value for server-side apply.
const MERGED_BY_TYPE_ONLY: Fact = Fact { merge: Some("type"), ..PLAIN };

/// Facts by type (the last part of its name) and field.
pub const FIELDS: &[(&str, &str, Fact)] = &[
    ("ObjectMeta", "finalizers", MERGED_SET),
    ("ObjectMeta", "ownerReferences", keyed(&["uid"])),
    ("Container", "env", NAME),
    ("Container", "ports", PORTS),
    ("Container", "volumeDevices", DEVICE_PATH),
    ("Container", "volumeMounts", MOUNT_PATH),
    ("ContainerStatus", "allocatedResourcesStatus", NAME),
    ("ContainerStatus", "volumeMounts", MOUNT_PATH),
    ("EphemeralContainer", "env", NAME),
    ("EphemeralContainer", "ports", PORTS),
    ("EphemeralContainer", "volumeDevices", DEVICE_PATH),
    ("EphemeralContainer", "volumeMounts", MOUNT_PATH),
    ("ContainerRestartRuleOnExitCodes", "values", SET),
    ("PodSpec", "containers", NAME),
    ("PodSpec", "ephemeralContainers", NAME),
    ("PodSpec", "evictionResponders", NAME),
    ("PodSpec", "hostAliases", IP),
    ("PodSpec", "imagePullSecrets", NAME),
    ("PodSpec", "initContainers", NAME),
    ("PodSpec", "nodeSelector", ATOMIC_MAP),
    ("PodSpec", "resourceClaims", retaining(&["name"])),
    ("PodSpec", "schedulingGates", NAME),
    ("PodSpec", "topologySpreadConstraints", keyed(&["topologyKey", "whenUnsatisfiable"])),
    ("PodSpec", "volumes", retaining(&["name"])),
    ("PodStatus", "conditions", TYPE),
    ("PodStatus", "hostIPs", Fact { merge: Some("ip"), ..PLAIN }),
    ("PodStatus", "nodeAllocatableResourceClaimStatuses", keyed(&["resourceClaimName"])),
    ("PodStatus", "podIPs", IP),
    ("PodStatus", "resourceClaimStatuses", retaining(&["name"])),
    ("PodStatus", "volumeHealth", KEYED_BY_NAME_ONLY_FOR_APPLY),
    ("PodVolumeHealth", "healthConditions", keyed(&["status", "reason"])),
    ("NodeAllocatableResourceClaimStatus", "containers", SET),
    ("NodeAllocatableResourceClaimStatus", "mapping", NAME),
    ("NodeAllocatableResourceClaimStatus", "overhead", NAME),
    ("ResourceStatus", "resources", Fact { list: ListKind::Map(&["resourceID"]), ..PLAIN }),
    ("VolumeMount", "bindMountOptions", SET),
    ("ResourceRequirements", "claims", KEYED_BY_NAME_ONLY_FOR_APPLY),
    ("DeploymentSpec", "strategy", Fact { retain_keys: true, ..PLAIN }),
    ("DeploymentStatus", "conditions", TYPE),
    ("ReplicaSetStatus", "conditions", TYPE),
    ("NamespaceStatus", "conditions", TYPE),
    ("NodeSpec", "podCIDRs", MERGED_SET),
    ("NodeStatus", "addresses", TYPE),
    ("NodeStatus", "conditions", TYPE),
    ("ServiceSpec", "ports", keyed(&["port", "protocol"])),
    ("ServiceSpec", "selector", ATOMIC_MAP),
    ("ServiceStatus", "conditions", TYPE),
    ("PersistentVolumeClaimStatus", "conditions", TYPE),
    ("ReplicationControllerSpec", "selector", ATOMIC_MAP),
    ("ReplicationControllerStatus", "conditions", TYPE),
    ("StatefulSetStatus", "conditions", TYPE),
    ("DaemonSetStatus", "conditions", TYPE),
    ("JobStatus", "conditions", MERGED_BY_TYPE_ONLY),
    ("PodFailurePolicyOnExitCodesRequirement", "values", SET),
    ("UncountedTerminatedPods", "failed", SET),
    ("UncountedTerminatedPods", "succeeded", SET),
    ("Endpoint", "addresses", SET),
    ("PodDisruptionBudgetSpec", "selector", Fact { replace: true, ..PLAIN }),
    ("PodDisruptionBudgetStatus", "conditions", TYPE),
    ("HorizontalPodAutoscalerStatus", "conditions", TYPE),
    ("ApplicationStatus", "conditions", TYPE),
];

/// Types that server-side apply treats as one value, by the last part of their names.
pub const ATOMIC_TYPES: &[&str] = &[
    "ConfigMapKeySelector",
    "EndpointAddress",
    "EndpointPort",
    "EvictionResponder",
    "FileKeySelector",
    "LabelSelector",
    "LocalObjectReference",
    "NodeSelector",
    "NodeSelectorTerm",
    "ObjectFieldSelector",
    "ObjectReference",
    "OwnerReference",
    "ResourceFieldSelector",
    "ScopeSelector",
    "SecretKeySelector",
    "SecretReference",
    "TopologySelectorTerm",
    "TypedLocalObjectReference",
];

/// Fields of keyed lists that have a default, which identifies an element that does not mention them: type, field, default.
pub const KEY_DEFAULTS: &[(&str, &str)] = &[("protocol", "TCP")];

/// What is known about a field of a type.
pub fn of(type_name: &str, field: &str) -> Fact {
    FIELDS.iter().find(|(t, f, _)| *t == type_name && *f == field).map_or(PLAIN, |(_, _, fact)| *fact)
}
