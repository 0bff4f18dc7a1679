//! Our own kinds, where Kubernetes is silent: `Application`, `Release` and `Rendering` in `portolan.dev/v1alpha1`.
//!
//! An *Application* names a path of a repository at a revision, and how to treat it. A *Release* is the immutable record of one attempt
//! to make the cluster look like one commit, with its verdict. A *Rendering* holds the objects of a release, in pieces of bounded size.
//! What any of them leads to is decided in `plan` and carried out in `control::release`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use k8s_openapi::{Metadata, NamespaceResourceScope, Resource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Key, custom};

pub use super::inventory::Inventory;

/// The API group of our own kinds.
pub const GROUP: &str = "portolan.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";
/// The namespace in which the root Application, releases and renderings live.
pub const SYSTEM_NAMESPACE: &str = "portolan-system";
/// Annotation on every managed object: `<application namespace>/<application>`.
pub const OWNER_ANNOTATION: &str = "portolan.dev/application";
/// Annotation on every managed object: the commit that last changed it.
pub const COMMIT_ANNOTATION: &str = "portolan.dev/commit";
/// Annotation on every managed object: `file:line` in the repository.
pub const ORIGIN_ANNOTATION: &str = "portolan.dev/origin";
/// Annotation by which an author orders objects within a kind: a whole number, lower first.
pub const WAVE_ANNOTATION: &str = "portolan.dev/wave";
/// Annotation by which an author opts an object out of drift repair (`portolan.dev/self-heal: "false"`) .
pub const SELF_HEAL_ANNOTATION: &str = "portolan.dev/self-heal";
/// Annotation by which an author keeps an object from ever being pruned (`portolan.dev/prune: "false"`).
pub const PRUNE_ANNOTATION: &str = "portolan.dev/prune";
/// Annotation on an Application by which a person asks for a look at the repository now: any new value (`portolan sync`).
pub const SYNC_ANNOTATION: &str = "portolan.dev/sync-requested";
/// Finalizer on an Application that manages objects, so that they are let go (or deleted) in order when it is deleted.
pub const INVENTORY_FINALIZER: &str = "portolan.dev/inventory";

macro_rules! resource {
    ($type:ident, $kind:literal, $plural:literal) => {
        impl Resource for $type {
            const API_VERSION: &'static str = "portolan.dev/v1alpha1";
            const GROUP: &'static str = GROUP;
            const KIND: &'static str = $kind;
            const VERSION: &'static str = VERSION;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = NamespaceResourceScope;
        }
        impl Metadata for $type {
            type Ty = ObjectMeta;
            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(Application, "Application", "applications");
resource!(Release, "Release", "releases");
resource!(Rendering, "Rendering", "renderings");

/// A path of a repository at a revision: the unit that is validated, rolled out, judged and rolled back as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Application {
    /// Standard object metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What the author wants.
    #[serde(default)]
    pub spec: ApplicationSpec,
    /// What the server observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ApplicationStatus>,
}

/// What the author of an Application wants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationSpec {
    /// Where the manifests are.
    #[serde(default)]
    pub source: Source,
    /// How changes are rolled out, judged and undone.
    #[serde(default)]
    pub policy: Policy,
    /// Applications that must be Healthy first, by name, in the same namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// Stop looking at git; what runs keeps running.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// Hold a chosen release, whatever git says (`portolan rollback`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// Ask once for another try of a quarantined digest (`portolan retry`): the digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

/// Where manifests come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// A local path, `https://…`, `ssh://…` or `user@host:path`.
    #[serde(default)]
    pub repository: String,
    /// A branch, tag or commit; `HEAD` when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// The directory within the repository; its root when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Seconds between looks at a remote repository. Default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<i64>,
    /// The Secret in the Application's namespace with the credentials (`username` and `password`, or `ssh-privatekey` and `known_hosts`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// The namespace for objects that name none. Default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// How changes are rolled out, judged and undone. Absent fields have the defaults named at each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// What to do when a release is bad: `rollback` (default), `pause` or `continue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Seconds for which everything must stay healthy before a release is good. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak_seconds: Option<i64>,
    /// Seconds without progress after which a release is bad. Default 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_deadline_seconds: Option<i64>,
    /// Put managed objects back that somebody changed by hand. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_heal: Option<bool>,
    /// Delete managed objects that git no longer has. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<bool>,
    /// The largest share of an Application's objects that one commit may prune, in percent. Default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune_max_percent: Option<i64>,
    /// Objects whose prune is consented to although the budget forbids it: `Namespace/shop`, `Boat.sea.example/one`, or `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prune_allow: Vec<String>,
    /// Let a commit without any object prune everything. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_empty: Option<bool>,
    /// What happens to the managed objects when the Application is deleted: `orphan` (default) or `prune`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_delete: Option<OnDelete>,
    /// How many finished releases to keep beside the last good one. Default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_limit: Option<i64>,
}

/// What to do when a release is bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnFailure {
    /// Go back to the last good release.
    #[default]
    Rollback,
    /// Stop where it is and wait for a person.
    Pause,
    /// Keep trying.
    Continue,
}

/// What happens to managed objects when their Application is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnDelete {
    /// They keep running and belong to nobody, so that another Application may take them over.
    #[default]
    Orphan,
    /// They are deleted, in reverse order of dependency.
    Prune,
}

/// A release that is held whatever git says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// The Release's name.
    pub release: String,
    /// Why, in the words of who pinned it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When the pin ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
}

/// A request to try a quarantined digest once more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Which digest.
    pub digest: String,
    /// Distinguishes one request from the next.
    #[serde(default)]
    pub nonce: String,
}

/// Whether the cluster is what git says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Sync {
    /// The cluster is what git says.
    Synced,
    /// It is not yet.
    #[default]
    OutOfSync,
    /// It deliberately is not: quarantined or pinned.
    Held,
    /// The commit was refused.
    Invalid,
    /// The Application is suspended, or stopped after a failure.
    Paused,
}

/// Where the current release is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Waits for what it depends on.
    #[default]
    Blocked,
    /// Checks what can be checked before anything changes.
    Preflight,
    /// Objects are being written, waves are becoming healthy.
    RollingOut,
    /// Everything is healthy; it must stay so for the soak.
    Verifying,
    /// The target runs and is healthy.
    Healthy,
    /// On the way back to the last good release.
    RollingBack,
    /// Serving the last good release, not HEAD.
    RolledBack,
    /// Neither forward nor back: a person is needed.
    Stuck,
    /// A passing fault (registry, host, git): tried again with back-off.
    Errored,
}

/// What the server observed of an Application.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationStatus {
    /// The generation of the spec that this status speaks of.
    pub observed_generation: i64,
    /// First axis: is the cluster what git says?
    pub sync: Sync,
    /// Second axis: where is the current release?
    pub phase: Phase,
    /// How the managed objects are, whatever release they are of: `Healthy`, `Progressing`, `Unknown`, `HeldUp` or `Broken`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub health: String,
    /// One sentence for people.
    pub message: String,
    /// What it waits on now, most important first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<String>,
    /// The newest commit that was looked at.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub observed_commit: String,
    /// The digest of its rendering; empty when it was refused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub observed_digest: String,
    /// The release that the cluster is being made to look like.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// The last release that was judged good.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_good: String,
    /// The release on trial, if any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trial: String,
    /// The rollout that is under way, or that got stuck; absent at rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// What this Application manages, and nothing else will ever be pruned.
    #[serde(skip_serializing_if = "Inventory::is_empty")]
    pub inventory: Inventory,
    /// Digests that were judged bad and are not tried again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<Quarantined>,
    /// Objects that git no longer has and that stay because their prune needs consent; each with its reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocked_prune: Vec<String>,
    /// What is wrong with the observed commit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ProblemRecord>,
    /// When the repository was last read with success, as of the last change of this status: a look that finds nothing new writes
    /// nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_fetch: Option<Time>,
    /// Why the last look at the repository failed; empty when it did not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fetch_error: String,
    /// The last value of the annotation `portolan.dev/sync-requested` for which the repository was read.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub answered_sync: String,
    /// The last retry request that was honoured.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub retried_nonce: String,
    /// The number of the newest release, so that names are never used twice.
    pub releases: i64,
    /// Kubernetes conditions: `Synced`, `Healthy`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// One object that an Application manages. The fields are in the order of their names, so that it is written canonically without a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InventoryItem {
    /// `apps/v1`.
    pub api_version: String,
    /// The number of the release that created it; 0 if it was there before and was adopted.
    #[serde(default)]
    pub created: i64,
    /// `Deployment`.
    pub kind: String,
    /// The object's name.
    pub name: String,
    /// Empty for cluster-scoped kinds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// `crontabs`, for a kind that somebody defined; empty for the kinds of the program.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plural: String,
    /// The release that was last applied to this object: what the three-way merge takes away from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub release: String,
    /// Proof of ownership: only an object with this uid is ever pruned.
    pub uid: String,
}

impl InventoryItem {
    /// The key of the object, if its kind is known.
    pub fn key(&self) -> Option<Key> {
        let kind = custom::row_named(&self.api_version, &self.kind, &self.plural, !self.namespace.is_empty())?;
        Some(Key::new(kind, &self.namespace, &self.name))
    }
}

/// A rollout on its way: everything that its judge remembers between two looks, so that a restarted server goes on where it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// The release that is being applied.
    pub release: String,
    /// Why it is being applied.
    pub purpose: Purpose,
    /// The release that failed, where this is the way back from it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub back_from: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When something last moved forward: what the progress deadline counts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progressed: Option<Time>,
    /// When it last wrote anything, a drift on the way included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<Time>,
    /// Since when everything is healthy: what the soak counts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy_since: Option<Time>,
    /// How far each object ever got, so that going round in circles is not taken for progress.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub progress: BTreeMap<String, i64>,
    /// Objects that were unhealthy before it began, and how: they do not count against it unless they get worse. Of a trial, only those
    /// that are as the last good release wants them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unhealthy_before: BTreeMap<String, String>,
    /// How often a container of each object had been restarted before it began, where one had: the highest count among its pods. Old
    /// restarts do not count against it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub restarts_before: BTreeMap<String, i32>,
    /// Since when something outside holds it up: a registry, a lack of room, hosts that do not answer. The progress deadline stands still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_up_since: Option<Time>,
    /// The objects that it wrote. Being unhealthy before is no excuse for what was changed.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub touched: BTreeSet<String>,
    /// It failed and there is no way on: nothing is written until a person or a new commit comes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stuck: bool,
}

/// Why a release is being applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Purpose {
    /// It is new: it will be judged, and may become the last good one.
    #[default]
    Trial,
    /// The newer release was bad: the way back to the last good one.
    Back,
    /// Git says again what the last good release says (a revert while a trial was running, the end of a pin).
    Return,
    /// A person pinned it.
    Pin,
}

/// A digest that is not tried again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// The digest of the rendering.
    pub digest: String,
    /// The release that failed.
    pub release: String,
    /// Why, in one sentence.
    pub reason: String,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// One thing that is wrong with a commit, as it is kept and shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemRecord {
    /// The file, relative to the Application's path.
    pub file: String,
    /// The line, from 1; 0 where only the file is known.
    #[serde(default)]
    pub line: u32,
    /// The column, from 1; 0 where only the line is known.
    #[serde(default)]
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What may help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The record of one attempt to make the cluster look like one commit. The spec never changes; the status is its story.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Standard object metadata. The name is `<application>-<number>`.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What was tried.
    #[serde(default)]
    pub spec: ReleaseSpec,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ReleaseStatus>,
}

/// What a release tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReleaseSpec {
    /// The Application's name, in the same namespace.
    pub application: String,
    /// 1, 2, 3 … within the Application.
    pub number: i64,
    /// The repository.
    pub repository: String,
    /// The commit.
    pub commit: String,
    /// The first line of the commit's message.
    pub subject: String,
    /// The commit's author.
    pub author: String,
    /// The digest of the rendered objects: two commits that render alike have the same.
    pub digest: String,
    /// The Renderings that hold the objects, in order.
    pub renderings: Vec<String>,
    /// How many objects.
    pub objects: i64,
}

/// How a release ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    /// Healthy for the whole soak: the new last good.
    Good,
    /// Bad, and the cluster went back.
    RolledBack,
    /// Refused before anything changed.
    Rejected,
    /// Overtaken by a newer commit; neither good nor bad.
    Superseded,
    /// Bad, and there was no way back.
    Stuck,
}

/// The name of an Application's release by its number.
pub fn release_name(application: &str, number: i64) -> String {
    format!("{application}-{number}")
}

/// The number in a release's name; 0 if it has none.
pub fn release_number(name: &str) -> i64 {
    name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// What came of a release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReleaseStatus {
    /// Where it is, or where it ended.
    pub phase: Phase,
    /// How it ended; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// One sentence for people.
    pub message: String,
    /// What it waits on now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<String>,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    /// Why it was judged bad.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// The image digests that ran when it was judged good: image name to digest.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
}

/// One fact that speaks against a release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Evidence {
    /// `Deployment shop/web`.
    pub object: String,
    /// The pod, where one is to blame.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// The container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// The host it ran on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// `CrashLoopBackOff`, `ImagePullBackOff`, `OOMKilled`, `ProbeFailed`, `ProgressDeadlineExceeded` …
    pub reason: String,
    /// What was seen.
    pub message: String,
    /// The exit code, where a container ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The last lines that the container wrote.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log: String,
}

/// A piece of a release's rendered objects. Never changes.
///
/// Releases of an Application that have a piece in common share it: its name, `<application>-<digest>`, is that of what it holds, and it
/// is deleted with the last of them. Beside what releases want, a Rendering may hold what was kept although a release did not want it
/// (`<release>-kept-<n>`), or what objects were before the release took them over (`<release>-before-<n>`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rendering {
    /// Standard object metadata. Owned by its Application, or by the Release whose note it is.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The objects, in the order in which they are applied.
    #[serde(default)]
    pub objects: Vec<RenderedObject>,
}

/// One rendered object and where it came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RenderedObject {
    /// The file within the Application's path.
    pub file: String,
    /// The line on which its document begins, from 1.
    pub line: u32,
    /// `crontabs`, for a kind that somebody defined; empty for the kinds of the program.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plural: String,
    /// The object, defaults filled in.
    pub object: Value,
}

impl RenderedObject {
    /// The key of the object, if its kind is known.
    pub fn key(&self) -> Option<Key> {
        let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned();
        let meta = &self.object["metadata"];
        let namespace = text(&meta["namespace"]);
        let kind = custom::row_named(
            &text(&self.object["apiVersion"]),
            &text(&self.object["kind"]),
            &self.plural,
            !namespace.is_empty(),
        )?;
        Some(Key::new(kind, if kind.namespaced { &namespace } else { "" }, meta["name"].as_str().unwrap_or("")))
    }
}
