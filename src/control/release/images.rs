//! Whether new images can be pulled, asked before anything is written, where a rollout would stop old pods first.
//!
//! A rolling update with `maxUnavailable: 0` needs no such question: it stops nothing before a new pod serves. With `Recreate`, or with
//! pods that may be missing, a misspelt tag would cost what runs. So a pod with that image (and a command that no image has) is started
//! somewhere first: whatever becomes of it afterwards, the host has the image then or says why not.
//!
//! One host is asked per image, not every host that will run it: the scheduler has not chosen them yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::look::Pass;
use super::record::Content;
use super::{ReleaseLoop, facts};
use crate::control::Context;
use crate::control::keyed::Trouble;
use crate::control::write;
use crate::object::ours::Evidence;
use crate::object::{Key, Object, kind_of};
use crate::plan::health::{self, Children, State};
use crate::plan::rollout::ended;
use crate::plan::sync::{Action, SyncPlan};

/// How long an answer is waited for when nobody says anything, good or bad. A pull that takes longer is more likely than a mistake, and
/// the verdict still watches over what follows.
const PATIENCE: SignedDuration = SignedDuration::from_mins(5);
/// A command that no image has. The container fails to start, and that is all that it is for.
const NO_COMMAND: &str = "/portolan-asks-for-this-image";

/// Label on pods that ask for an image: the release on whose behalf.
pub const ASKED_FOR: &str = "portolan.dev/asks-for-release";

/// Annotation on the same pods: `<namespace>/<name>` of the Application.
pub(super) const ASKED_BY: &str = "portolan.dev/asks-for-application";

/// What is known about the images of a release.
pub(super) enum Images {
    /// Nothing stands in the way.
    There,
    /// Asked, and not answered yet; whether it is held up by something that passes.
    Asked(Vec<String>, bool),
    /// There is no such image.
    Missing(Vec<Evidence>),
}

impl ReleaseLoop {
    /// Asks for the images that a plan needs before old pods are stopped for them.
    pub(super) fn images(
        &mut self,
        cx: &mut Context<'_>,
        pass: &mut Pass<'_>,
        content: &Content,
        plan: &SyncPlan,
    ) -> Result<Images, Trouble> {
        let wanted = risky(pass, content, plan);
        if wanted.is_empty() {
            return Ok(Images::There);
        }
        self.unasked.remove(&pass.object.key);
        let rollout = pass.status.rollout.clone().unwrap_or_default();
        let late = rollout.started.as_ref().is_some_and(|t| pass.now.duration_since(t.0) > PATIENCE);
        let (mut on, mut held_up, mut evidence) = (Vec::new(), false, Vec::new());
        for (number, (image, needs)) in wanted.iter().enumerate() {
            let (namespace, spec) = (&*needs.workload.namespace, &needs.spec);
            let name = format!("{}-image-{number}", rollout.release);
            let Some(asked) = pass.view.get(&Key::of::<Pod>(namespace, &name)).cloned() else {
                let draft = question(cx, &pass.owner(), &rollout.release, (namespace, &name), image, spec)?;
                pass.txn.create(draft);
                on.push(format!("a host to have image {image}"));
                continue;
            };
            let pod = asked.typed::<Pod>()?;
            let children = Children { unreachable: pass.hosts.unreachable.clone(), ..Children::default() };
            let health = health::of(&asked, &children, None, pass.now);
            if answered(&pod) {
                continue;
            }
            match health.state {
                State::Broken => evidence.extend(health.evidence.into_iter().map(|fact| Evidence {
                    object: facts::name(&needs.workload),
                    message: format!("image {image}: {}", fact.message),
                    ..fact
                })),
                state if state >= State::Unknown || !late => {
                    held_up |= state >= State::Unknown;
                    on.push(format!("image {image}: {}", health.on.join("; ")));
                }
                _ => {}
            }
        }
        Ok(match (evidence.is_empty(), on.is_empty()) {
            (false, _) => Images::Missing(evidence),
            (true, false) => Images::Asked(on, held_up),
            (true, true) => Images::There,
        })
    }
}

/// Takes the questions of a release back, in the look's transaction.
pub(super) fn forget(pass: &mut Pass<'_>, release: &str) {
    let asks = |o: &&Arc<Object>| o.meta.labels.get(ASKED_FOR).is_some_and(|name| name == release);
    let questions: Vec<Arc<Object>> = pass.view.list(kind_of::<Pod>()).filter(asks).cloned().collect();
    for pod in questions {
        write::delete(&mut pass.txn, &pod, Some(0), None, pass.now);
    }
}

/// Images that no host is known to have, for which old pods would be stopped; each with who needs it. What is only put back as it was is
/// not this release's fault.
fn risky(pass: &Pass<'_>, content: &Content, plan: &SyncPlan) -> BTreeMap<String, Needs> {
    let mut wanted = BTreeMap::new();
    let changes = plan.changes().filter(|c| c.name.0.kind == kind_of::<Deployment>() && content.wants(&c.name.0));
    for change in changes.filter(|c| c.action != Action::Create) {
        let Ok(new) = serde_json::from_value::<Deployment>(change.new.clone()) else { continue };
        let Some(old) = change.old.clone().and_then(|old| serde_json::from_value::<Deployment>(old).ok()) else { continue };
        let serves = old.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0) > 0;
        let Some(spec) = new.spec.template.spec.clone().filter(|_| serves && stops_first(&new)) else { continue };
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        for image in containers.filter_map(|c| c.image.clone()) {
            wanted.insert(image, Needs { workload: change.name.0.clone(), spec: spec.clone() });
        }
    }
    if wanted.is_empty() {
        return wanted;
    }
    let mut known: BTreeSet<String> = BTreeSet::new();
    for pod in pass.view.list(kind_of::<Pod>()).filter_map(|o| o.glance::<Pod>().ok()) {
        let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        let pulled = statuses.filter(|c| !c.image_id.is_empty()).map(|c| c.name.clone()).collect::<BTreeSet<_>>();
        let containers = pod.spec.iter().flat_map(|s| &s.containers);
        known.extend(containers.filter(|c| pulled.contains(&c.name)).filter_map(|c| c.image.clone()));
    }
    for node in pass.view.list(kind_of::<Node>()).filter_map(|o| o.typed::<Node>().ok()) {
        let images = node.status.iter().flat_map(|s| s.images.iter().flatten());
        known.extend(images.flat_map(|image| image.names.clone().unwrap_or_default()));
    }
    wanted.retain(|image, _| !known.contains(image));
    wanted
}

/// Who needs an image.
struct Needs {
    workload: Key,
    spec: PodSpec,
}

/// Whether an old pod may go before a new one serves.
fn stops_first(deployment: &Deployment) -> bool {
    let Some(strategy) = &deployment.spec.strategy else { return false };
    if strategy.type_.as_deref() == Some("Recreate") {
        return true;
    }
    let replicas = i64::from(deployment.spec.replicas.unwrap_or(1));
    match strategy.rolling_update.as_ref().and_then(|r| r.max_unavailable.as_ref()) {
        None => false,
        Some(IntOrString::Int(n)) => *n > 0,
        // Rounded down, as the Deployment does it.
        Some(IntOrString::String(text)) => text.trim().trim_end_matches('%').parse::<i64>().unwrap_or(0) * replicas >= 100,
    }
}

/// The pod that asks for an image: where the real ones may run, with nothing of what they do.
fn question(
    cx: &mut Context<'_>,
    application: &str,
    release: &str,
    (namespace, name): (&str, &str),
    image: &str,
    like: &PodSpec,
) -> Result<crate::object::Draft, Trouble> {
    let policy = like.containers.iter().chain(like.init_containers.iter().flatten());
    let policy = policy.filter(|c| c.image.as_deref() == Some(image)).find_map(|c| c.image_pull_policy.clone());
    let container = Container {
        name: "image".to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: policy,
        command: Some(vec![NO_COMMAND.to_owned()]),
        ..Container::default()
    };
    let pod = Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            // No owner reference: an owner has to be in the same namespace. The annotation wakes the Application; it is not the one of
            // managed objects, for no inventory has this pod.
            labels: Some([(ASKED_FOR.to_owned(), release.to_owned())].into()),
            annotations: Some([(ASKED_BY.to_owned(), application.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![container],
            automount_service_account_token: Some(false),
            restart_policy: Some("Never".to_owned()),
            node_selector: like.node_selector.clone(),
            affinity: like
                .affinity
                .as_ref()
                .map(|a| k8s_openapi::api::core::v1::Affinity { node_affinity: a.node_affinity.clone(), ..Default::default() }),
            tolerations: like.tolerations.clone(),
            image_pull_secrets: like.image_pull_secrets.clone(),
            termination_grace_period_seconds: Some(0),
            ..PodSpec::default()
        }),
        status: None,
    };
    write::new_object(cx, &pod).map_err(|refused| Trouble::Bad(refused.to_string()))
}

/// Whether a host has the image: it got as far as making a container of it.
fn answered(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    if ended(pod) {
        return true;
    }
    status.container_statuses.iter().flatten().any(|c| {
        let state = c.state.clone().unwrap_or_default();
        let tried = state.waiting.as_ref().and_then(|w| w.reason.as_deref()).is_some_and(|reason| {
            matches!(
                reason,
                "RunContainerError" | "CreateContainerError" | "CrashLoopBackOff" | "StartError" | "ContainerCannotRun"
            )
        });
        tried || state.running.is_some() || state.terminated.is_some() || !c.image_id.is_empty()
    })
}
