//! The rows of the table of kinds.

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::autoscaling;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::certificates::v1 as certificates;
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::events::v1 as events;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::api::policy::v1 as policy;
use k8s_openapi::api::rbac::v1 as rbac;
use k8s_openapi::api::scheduling::v1 as scheduling;
use k8s_openapi::api::storage::v1 as storage;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::{Durability, Kind, METRICS, RBAC};
use crate::object::admit::{defaults, validate};
use crate::object::{alias, columns, custom, ours};

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// What most rows share.
pub(in crate::object) const PLAIN: Kind = Kind {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    selectable: &[],
    durability: Durability::Synced,
    schema: schema::<Value>,
    default: defaults::none,
    validate: validate::none,
    columns: columns::PLAIN,
    idle: "",
    alias: None,
    custom: None,
};

/// What is measured when somebody asks, and stored nowhere.
pub static MEASURED: &[Kind] = &[
    Kind {
        kind: "ComponentStatus",
        plural: "componentstatuses",
        singular: "componentstatus",
        short: &["cs"],
        namespaced: false,
        schema: schema::<core::ComponentStatus>,
        columns: columns::COMPONENT,
        ..PLAIN
    },
    Kind { group: METRICS, version: "v1beta1", kind: "NodeMetrics", plural: "nodes", namespaced: false, ..PLAIN },
    Kind { group: METRICS, version: "v1beta1", kind: "PodMetrics", plural: "pods", ..PLAIN },
];

/// Every kind, in the order of discovery. The first version of a group is the one that clients prefer.
pub static KINDS: &[Kind] = &[
    Kind {
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short: &["ns"],
        namespaced: false,
        subresources: &["status", "finalize"],
        selectable: &["status.phase"],
        schema: schema::<core::Namespace>,
        default: defaults::namespace,
        validate: validate::namespace,
        columns: columns::NAMESPACE,
        ..PLAIN
    },
    Kind {
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short: &["no"],
        namespaced: false,
        subresources: &["status", "proxy"],
        selectable: &["spec.unschedulable"],
        schema: schema::<core::Node>,
        default: defaults::node,
        validate: validate::node,
        columns: columns::NODE,
        ..PLAIN
    },
    Kind {
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short: &["po"],
        categories: &["all"],
        subresources: &["status", "binding", "eviction", "log", "exec", "attach", "portforward", "proxy", "ephemeralcontainers"],
        selectable: &["spec.nodeName", "status.phase", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName"],
        schema: schema::<core::Pod>,
        default: defaults::pod,
        validate: validate::pod,
        columns: columns::POD,
        ..PLAIN
    },
    Kind {
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short: &["cm"],
        schema: schema::<core::ConfigMap>,
        validate: validate::config_map,
        columns: columns::CONFIG_MAP,
        ..PLAIN
    },
    Kind {
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        selectable: &["type"],
        schema: schema::<core::Secret>,
        default: defaults::secret,
        validate: validate::secret,
        columns: columns::SECRET,
        ..PLAIN
    },
    Kind {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short: &["sa"],
        subresources: &["token"],
        schema: schema::<core::ServiceAccount>,
        columns: columns::SERVICE_ACCOUNT,
        ..PLAIN
    },
    Kind {
        kind: "Event",
        plural: "events",
        singular: "event",
        short: &["ev"],
        selectable: &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "type",
            "source",
        ],
        durability: Durability::Lazy,
        schema: schema::<core::Event>,
        validate: validate::event,
        columns: columns::EVENT,
        ..PLAIN
    },
    Kind {
        kind: "Service",
        plural: "services",
        singular: "service",
        short: &["svc"],
        categories: &["all"],
        subresources: &["status", "proxy"],
        selectable: &["spec.clusterIP", "spec.type"],
        schema: schema::<core::Service>,
        default: defaults::network::service,
        validate: validate::service::service,
        columns: columns::network::SERVICE,
        idle: "nothing leads its address to pods yet",
        ..PLAIN
    },
    Kind {
        kind: "Endpoints",
        plural: "endpoints",
        singular: "endpoints",
        short: &["ep"],
        schema: schema::<core::Endpoints>,
        default: defaults::network::endpoints,
        validate: validate::endpoints::endpoints,
        columns: columns::network::ENDPOINTS,
        idle: "nothing reads or writes them yet",
        ..PLAIN
    },
    Kind {
        kind: "PersistentVolume",
        plural: "persistentvolumes",
        singular: "persistentvolume",
        short: &["pv"],
        namespaced: false,
        subresources: &["status"],
        schema: schema::<core::PersistentVolume>,
        default: defaults::storage::volume,
        validate: validate::storage::volume,
        columns: columns::storage::PERSISTENT_VOLUME,
        idle: "nothing binds volumes to claims yet",
        ..PLAIN
    },
    Kind {
        kind: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        singular: "persistentvolumeclaim",
        short: &["pvc"],
        subresources: &["status"],
        schema: schema::<core::PersistentVolumeClaim>,
        default: defaults::storage::claim,
        validate: validate::storage::claim,
        columns: columns::storage::PERSISTENT_VOLUME_CLAIM,
        idle: "nothing binds claims to volumes yet",
        ..PLAIN
    },
    Kind {
        kind: "ResourceQuota",
        plural: "resourcequotas",
        singular: "resourcequota",
        short: &["quota"],
        subresources: &["status"],
        schema: schema::<core::ResourceQuota>,
        validate: validate::policy::resource_quota,
        columns: columns::policy::RESOURCE_QUOTA,
        idle: "nothing enforces it yet",
        ..PLAIN
    },
    Kind {
        kind: "LimitRange",
        plural: "limitranges",
        singular: "limitrange",
        short: &["limits"],
        schema: schema::<core::LimitRange>,
        default: defaults::policy::limit_range,
        validate: validate::policy::limit_range,
        columns: columns::policy::CREATED,
        idle: "nothing applies it to pods yet",
        ..PLAIN
    },
    Kind {
        kind: "ReplicationController",
        plural: "replicationcontrollers",
        singular: "replicationcontroller",
        short: &["rc"],
        categories: &["all"],
        subresources: &["status", "scale"],
        selectable: &["status.replicas"],
        schema: schema::<core::ReplicationController>,
        default: defaults::workload::replication_controller,
        validate: validate::workload::replication_controller,
        columns: columns::workload::REPLICATION_CONTROLLER,
        idle: "no controller makes its pods yet",
        ..PLAIN
    },
    Kind {
        kind: "PodTemplate",
        plural: "podtemplates",
        singular: "podtemplate",
        schema: schema::<core::PodTemplate>,
        default: defaults::workload::pod_template,
        validate: validate::workload::pod_template,
        columns: columns::workload::POD_TEMPLATE,
        ..PLAIN
    },
    Kind {
        group: "apps",
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short: &["deploy"],
        categories: &["all"],
        subresources: &["status", "scale"],
        schema: schema::<apps::Deployment>,
        default: defaults::deployment,
        validate: validate::deployment,
        columns: columns::DEPLOYMENT,
        ..PLAIN
    },
    Kind {
        group: "apps",
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short: &["rs"],
        categories: &["all"],
        subresources: &["status", "scale"],
        selectable: &["status.replicas"],
        schema: schema::<apps::ReplicaSet>,
        default: defaults::replica_set,
        validate: validate::replica_set,
        columns: columns::REPLICA_SET,
        ..PLAIN
    },
    Kind {
        group: "apps",
        kind: "StatefulSet",
        plural: "statefulsets",
        singular: "statefulset",
        short: &["sts"],
        categories: &["all"],
        subresources: &["status", "scale"],
        schema: schema::<apps::StatefulSet>,
        default: defaults::workload::stateful_set,
        validate: validate::workload::stateful_set,
        columns: columns::workload::STATEFUL_SET,
        idle: "no controller makes its pods yet",
        ..PLAIN
    },
    Kind {
        group: "apps",
        kind: "DaemonSet",
        plural: "daemonsets",
        singular: "daemonset",
        short: &["ds"],
        categories: &["all"],
        subresources: &["status"],
        schema: schema::<apps::DaemonSet>,
        default: defaults::workload::daemon_set,
        validate: validate::workload::daemon_set,
        columns: columns::workload::DAEMON_SET,
        idle: "no controller makes its pods yet",
        ..PLAIN
    },
    Kind {
        group: "apps",
        kind: "ControllerRevision",
        plural: "controllerrevisions",
        singular: "controllerrevision",
        schema: schema::<apps::ControllerRevision>,
        validate: validate::workload::controller_revision,
        columns: columns::workload::CONTROLLER_REVISION,
        ..PLAIN
    },
    Kind {
        group: "batch",
        kind: "Job",
        plural: "jobs",
        singular: "job",
        categories: &["all"],
        subresources: &["status"],
        selectable: &["status.successful"],
        schema: schema::<batch::Job>,
        default: defaults::workload::job,
        validate: validate::batch::job,
        columns: columns::workload::JOB,
        idle: "no controller makes its pods yet",
        ..PLAIN
    },
    Kind {
        group: "batch",
        kind: "CronJob",
        plural: "cronjobs",
        singular: "cronjob",
        short: &["cj"],
        categories: &["all"],
        subresources: &["status"],
        schema: schema::<batch::CronJob>,
        default: defaults::workload::cron_job,
        validate: validate::batch::cron_job,
        columns: columns::workload::CRON_JOB,
        idle: "no controller makes its jobs yet",
        ..PLAIN
    },
    Kind {
        group: "autoscaling",
        version: "v2",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        singular: "horizontalpodautoscaler",
        short: &["hpa"],
        categories: &["all"],
        subresources: &["status"],
        schema: schema::<autoscaling::v2::HorizontalPodAutoscaler>,
        default: defaults::autoscaler::autoscaler,
        validate: validate::autoscaler::autoscaler,
        columns: columns::policy::AUTOSCALER,
        idle: "nothing scales by it yet",
        ..PLAIN
    },
    Kind {
        group: "autoscaling",
        version: "v1",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        singular: "horizontalpodautoscaler",
        short: &["hpa"],
        categories: &["all"],
        subresources: &["status"],
        schema: schema::<autoscaling::v1::HorizontalPodAutoscaler>,
        columns: columns::policy::AUTOSCALER,
        alias: Some(alias::AUTOSCALER_V1),
        idle: "nothing scales by it yet",
        ..PLAIN
    },
    Kind {
        group: "networking.k8s.io",
        kind: "Ingress",
        plural: "ingresses",
        singular: "ingress",
        short: &["ing"],
        subresources: &["status"],
        schema: schema::<networking::Ingress>,
        validate: validate::network::ingress,
        columns: columns::network::INGRESS,
        idle: "nothing serves it yet",
        ..PLAIN
    },
    Kind {
        group: "networking.k8s.io",
        kind: "IngressClass",
        plural: "ingressclasses",
        singular: "ingressclass",
        namespaced: false,
        schema: schema::<networking::IngressClass>,
        default: defaults::network::ingress_class,
        validate: validate::network::ingress_class,
        columns: columns::network::INGRESS_CLASS,
        ..PLAIN
    },
    Kind {
        group: "networking.k8s.io",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        singular: "networkpolicy",
        short: &["netpol"],
        schema: schema::<networking::NetworkPolicy>,
        default: defaults::network::network_policy,
        validate: validate::network::network_policy,
        columns: columns::network::NETWORK_POLICY,
        idle: "nothing enforces it yet",
        ..PLAIN
    },
    Kind {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        plural: "endpointslices",
        singular: "endpointslice",
        schema: schema::<discovery::EndpointSlice>,
        default: defaults::network::endpoint_slice,
        validate: validate::endpoints::endpoint_slice,
        columns: columns::network::ENDPOINT_SLICE,
        idle: "nothing reads or writes them yet",
        ..PLAIN
    },
    Kind {
        group: "policy",
        kind: "PodDisruptionBudget",
        plural: "poddisruptionbudgets",
        singular: "poddisruptionbudget",
        short: &["pdb"],
        subresources: &["status"],
        schema: schema::<policy::PodDisruptionBudget>,
        validate: validate::policy::disruption_budget,
        columns: columns::policy::DISRUPTION_BUDGET,
        idle: "evictions do not ask it yet",
        ..PLAIN
    },
    Kind {
        group: "storage.k8s.io",
        kind: "StorageClass",
        plural: "storageclasses",
        singular: "storageclass",
        short: &["sc"],
        namespaced: false,
        schema: schema::<storage::StorageClass>,
        default: defaults::storage::class,
        validate: validate::storage::class,
        columns: columns::storage::STORAGE_CLASS,
        idle: "nothing makes volumes of it yet",
        ..PLAIN
    },
    Kind {
        group: "scheduling.k8s.io",
        kind: "PriorityClass",
        plural: "priorityclasses",
        singular: "priorityclass",
        short: &["pc"],
        namespaced: false,
        schema: schema::<scheduling::PriorityClass>,
        default: defaults::policy::priority_class,
        validate: validate::policy::priority_class,
        columns: columns::policy::PRIORITY_CLASS,
        ..PLAIN
    },
    Kind {
        group: "events.k8s.io",
        kind: "Event",
        plural: "events",
        singular: "event",
        short: &["ev"],
        selectable: &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        durability: Durability::Lazy,
        schema: schema::<events::Event>,
        columns: columns::EVENT,
        alias: Some(alias::EVENT),
        ..PLAIN
    },
    Kind {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        singular: "lease",
        durability: Durability::Lazy,
        schema: schema::<coordination::Lease>,
        validate: validate::lease,
        columns: columns::LEASE,
        ..PLAIN
    },
    Kind {
        group: "certificates.k8s.io",
        kind: "CertificateSigningRequest",
        plural: "certificatesigningrequests",
        singular: "certificatesigningrequest",
        short: &["csr"],
        namespaced: false,
        subresources: &["status", "approval"],
        selectable: &["spec.signerName"],
        schema: schema::<certificates::CertificateSigningRequest>,
        default: defaults::certificate_request,
        validate: validate::certificate_request,
        columns: columns::CERTIFICATE_REQUEST,
        ..PLAIN
    },
    Kind {
        group: RBAC,
        kind: "ClusterRole",
        plural: "clusterroles",
        singular: "clusterrole",
        namespaced: false,
        schema: schema::<rbac::ClusterRole>,
        validate: validate::cluster_role,
        columns: columns::ROLE,
        ..PLAIN
    },
    Kind {
        group: RBAC,
        kind: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        singular: "clusterrolebinding",
        namespaced: false,
        schema: schema::<rbac::ClusterRoleBinding>,
        default: defaults::role_binding,
        validate: validate::cluster_role_binding,
        columns: columns::ROLE_BINDING,
        ..PLAIN
    },
    Kind {
        group: RBAC,
        kind: "Role",
        plural: "roles",
        singular: "role",
        schema: schema::<rbac::Role>,
        validate: validate::role,
        columns: columns::ROLE,
        ..PLAIN
    },
    Kind {
        group: RBAC,
        kind: "RoleBinding",
        plural: "rolebindings",
        singular: "rolebinding",
        schema: schema::<rbac::RoleBinding>,
        default: defaults::role_binding,
        validate: validate::role_binding,
        columns: columns::ROLE_BINDING,
        ..PLAIN
    },
    Kind {
        group: custom::GROUP,
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        singular: "customresourcedefinition",
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
        subresources: &["status"],
        schema: schema::<apiextensions::CustomResourceDefinition>,
        default: defaults::definition::definition,
        validate: validate::definition::definition,
        columns: columns::DEFINITION,
        ..PLAIN
    },
    Kind {
        group: ours::GROUP,
        version: ours::VERSION,
        kind: "Application",
        plural: "applications",
        singular: "application",
        short: &["app", "apps"],
        subresources: &["status"],
        schema: schema::<ours::Application>,
        default: defaults::application,
        validate: validate::application,
        columns: columns::APPLICATION,
        ..PLAIN
    },
    Kind {
        group: ours::GROUP,
        version: ours::VERSION,
        kind: "Release",
        plural: "releases",
        singular: "release",
        subresources: &["status"],
        selectable: &["spec.application"],
        schema: schema::<ours::Release>,
        validate: validate::release,
        columns: columns::RELEASE,
        ..PLAIN
    },
    Kind {
        group: ours::GROUP,
        version: ours::VERSION,
        kind: "Rendering",
        plural: "renderings",
        singular: "rendering",
        schema: schema::<ours::Rendering>,
        validate: validate::rendering,
        ..PLAIN
    },
];
