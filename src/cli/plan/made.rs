//! A plan as a value: what every output shows.
//!
//! Decisions come from `plan::sync`, `plan::preflight` and `plan::foresee`. Here they are joined, secrets are hidden, and differences
//! become text.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;
use serde_json::Value;
use similar::TextDiff;

use super::source::Point;
use super::yaml;
use crate::cli::Failure;
use crate::object::manifest::Manifest;
use crate::object::ours::{Inventory, Policy, ProblemRecord};
use crate::object::{Key, Object};
use crate::plan::foresee::{self, Before, Foreseen};
use crate::plan::idle;
use crate::plan::preflight::{self, EachPod, Outcome};
use crate::plan::schedule::{Cluster, Strategy};
use crate::plan::sync::{self, Action, Name, SyncPlan, Undo, Wanted, masked};

/// What is known when a plan is made.
pub(super) struct Facts<'a> {
    /// `<namespace>/<name>` of the Application.
    pub(super) application: String,
    pub(super) from: Point,
    pub(super) to: Point,
    pub(super) digest: String,
    pub(super) wanted: &'a [Wanted],
    /// Finds what is there, of what is wanted or managed.
    pub(super) live: &'a dyn Fn(&Key) -> Option<Arc<Object>>,
    pub(super) inventory: &'a Inventory,
    /// Finds what was last applied to an object.
    pub(super) last: &'a dyn Fn(&Key) -> Option<Manifest>,
    pub(super) policy: &'a Policy,
    pub(super) undo: Undo,
    pub(super) claimed: &'a dyn Fn(&str, &Key) -> bool,
    /// Finds any object, for references.
    pub(super) find: &'a dyn Fn(&Key) -> Option<Arc<Object>>,
    /// The hosts; `None` when nothing is known of them.
    pub(super) nodes: Option<&'a [Node]>,
    pub(super) before: Before,
    pub(super) strategy: Strategy,
    /// Whether what is not found may be there nevertheless: without a server only the repository is known.
    pub(super) partial: bool,
    pub(super) notes: Vec<String>,
    pub(super) now: jiff::Timestamp,
}

/// The whole in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// Nothing would change.
    Unchanged,
    /// Something would.
    Changes,
    /// It could not be applied now, and would be tried again.
    Waits,
    /// It would be refused.
    Rejected,
}

/// What would happen.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Made {
    pub(super) application: String,
    pub(super) from: Point,
    pub(super) to: Point,
    pub(super) verdict: Verdict,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) digest: String,
    pub(super) totals: Totals,
    pub(super) waves: Vec<Wave>,
    pub(super) prune: Vec<Pruned>,
    pub(super) kept: Vec<Kept>,
    /// Managed objects that differ and whose author opted out of repair.
    pub(super) tolerated: Vec<Name>,
    /// Why it would be refused.
    pub(super) problems: Vec<ProblemRecord>,
    /// Why it could not be applied now.
    pub(super) waits: Vec<String>,
    /// What could not be checked from here.
    pub(super) warnings: Vec<String>,
    /// Which pods start and stop, and where; absent when nothing is known of the hosts.
    #[serde(flatten)]
    pub(super) pods: Option<Foreseen>,
    /// Whether the problems were shown already, in their places in the files.
    #[serde(skip)]
    pub(super) shown: bool,
    /// Facts about how the plan was made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
}

/// How many.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Totals {
    pub(super) create: usize,
    pub(super) change: usize,
    pub(super) adopt: usize,
    pub(super) prune: usize,
    pub(super) unchanged: usize,
}

/// Objects that are written together.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Wave {
    pub(super) order: String,
    pub(super) changes: Vec<Changed>,
}

/// One write.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Changed {
    #[serde(flatten)]
    pub(super) name: Name,
    pub(super) action: Action,
    pub(super) origin: String,
    pub(super) fields: Vec<String>,
    /// A unified diff of the object as YAML. Values of Secrets are hidden, and shown as changed.
    pub(super) diff: String,
}

/// One deletion.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pruned {
    #[serde(flatten)]
    pub(super) name: Name,
    pub(super) diff: String,
}

/// One object that stays although git no longer has it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Kept {
    #[serde(flatten)]
    pub(super) name: Name,
    pub(super) why: String,
}

impl Made {
    /// A plan for a commit that is refused before anything is compared.
    pub(super) fn rejected(application: String, from: Point, to: Point, problems: Vec<ProblemRecord>) -> Made {
        Made {
            application,
            from,
            to,
            verdict: Verdict::Rejected,
            digest: String::new(),
            totals: Totals::default(),
            waves: Vec::new(),
            prune: Vec::new(),
            kept: Vec::new(),
            tolerated: Vec::new(),
            problems,
            waits: Vec::new(),
            warnings: Vec::new(),
            pods: None,
            shown: false,
            notes: Vec::new(),
        }
    }

    /// `2 to create, 1 to change, 1 to prune, 12 unchanged`.
    pub(super) fn sum(&self) -> String {
        let t = self.totals;
        let parts = [
            (t.create, "to create"),
            (t.change, "to change"),
            (t.adopt, "to adopt"),
            (t.prune, "to prune"),
            (t.unchanged, "unchanged"),
        ];
        let told: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
        if told.is_empty() { "nothing".to_owned() } else { told.join(", ") }
    }
}

/// What would be written and deleted. Asks nothing of hosts and pods.
pub(super) fn compare(facts: &Facts<'_>) -> SyncPlan {
    sync::sync(&sync::Input {
        application: &facts.application,
        commit: &facts.to.commit,
        wanted: facts.wanted,
        live: facts.live,
        inventory: facts.inventory,
        last: facts.last,
        policy: facts.policy,
        undo: &facts.undo,
        settled: &Default::default(),
        claimed: facts.claimed,
        heir: &|_| None,
    })
}

/// Makes the plan.
pub(super) fn make(facts: Facts<'_>, plan: SyncPlan) -> Result<Made, Failure> {
    let (mut problems, mut waits, mut warnings) = (plan.problems.clone(), Vec::new(), Vec::new());
    let picture = foresee::picture(facts.nodes.unwrap_or_default(), &facts.before);
    match check(&facts, &plan, &picture) {
        Outcome::Clear => {}
        Outcome::Rejected(found) if facts.partial => {
            for record in found.iter().filter(|r| !problems.contains(r)) {
                warnings.push(format!("{}:{}: {}", record.file, record.line, record.message));
            }
        }
        Outcome::Rejected(found) => problems = found,
        Outcome::Errored(_) if facts.nodes.is_none() => {}
        Outcome::Errored(found) => waits = found,
    }
    let pods = match facts.nodes {
        Some(_) if problems.is_empty() => Some(foresee::foresee(foresee::Input {
            before: facts.before,
            picture,
            waves: plan.waves.iter().map(|w| w.changes.iter().map(|c| (c.name.0.clone(), c.new.clone())).collect()).collect(),
            prune: plan.prune.iter().map(|p| p.name.0.clone()).collect(),
            strategy: facts.strategy,
            seed: 0,
            now: facts.now,
        })),
        _ => None,
    };
    let count = |action: Action| plan.changes().filter(|c| c.action == action).count();
    let totals = Totals {
        create: count(Action::Create),
        change: count(Action::Patch),
        adopt: count(Action::Adopt),
        prune: plan.prune.len(),
        unchanged: plan.unchanged,
    };
    let verdict = match (problems.is_empty(), waits.is_empty(), plan.is_empty()) {
        (false, _, _) => Verdict::Rejected,
        (true, _, true) => Verdict::Unchanged,
        (true, false, false) => Verdict::Waits,
        (true, true, false) => Verdict::Changes,
    };
    let mut waves = Vec::new();
    for wave in &plan.waves {
        let mut changes = Vec::new();
        for change in &wave.changes {
            changes.push(Changed {
                name: change.name.clone(),
                action: change.action,
                origin: change.origin.clone(),
                fields: change.fields.clone(),
                diff: difference(&change.name, change.old.as_ref(), Some(&change.new))?,
            });
        }
        waves.push(Wave { order: wave.order.to_string(), changes });
    }
    let mut prune = Vec::new();
    for gone in &plan.prune {
        let old = (facts.live)(&gone.name.0).map(|o| o.value());
        prune.push(Pruned { name: gone.name.clone(), diff: difference(&gone.name, old.as_ref(), None)? });
    }
    let kept =
        plan.kept.iter().filter(|k| !k.why.forgotten()).map(|k| Kept { name: k.name.clone(), why: k.why.to_string() }).collect();
    let mut notes = facts.notes;
    notes.extend(idle::told(facts.wanted.iter().map(|w| &w.key)));
    Ok(Made {
        application: facts.application,
        from: facts.from,
        to: facts.to,
        verdict,
        digest: facts.digest,
        totals,
        waves,
        prune,
        kept,
        tolerated: plan.tolerated,
        problems,
        waits,
        warnings,
        pods,
        shown: false,
        notes,
    })
}

fn check(facts: &Facts<'_>, plan: &SyncPlan, picture: &Cluster) -> Outcome {
    let deployment_kind = crate::object::Kind::of("apps/v1", "Deployment").expect("deployments have a row");
    fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
        meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))
    }
    let running = |_: &[Arc<Node>], look: EachPod<'_>| {
        let above = |set: &ReplicaSet| {
            let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
            controller(&set.metadata).map(|owner| Key::new(deployment_kind, namespace, &owner.name))
        };
        let sets: BTreeMap<_, _> = facts.before.sets.iter().map(|set| (set.metadata.uid.as_deref(), above(set))).collect();
        for pod in &facts.before.pods {
            let set = controller(&pod.metadata).and_then(|owner| sets.get(&Some(owner.uid.as_str())));
            if let Some(Some(workload)) = set {
                look(pod, workload);
            }
        }
        picture.clone()
    };
    preflight::check(&preflight::Input {
        wanted: facts.wanted,
        plan,
        live: facts.find,
        nodes: &|| facts.nodes.unwrap_or_default().iter().cloned().map(Arc::new).collect(),
        running: &running,
        now: facts.now,
    })
}

/// Two versions as a unified diff of YAML, without what is a secret and without what nobody wrote.
fn difference(name: &Name, old: Option<&Value>, new: Option<&Value>) -> Result<String, Failure> {
    let (old, new) = masked(old, new);
    let (before, after) = (yaml(old.as_ref())?, yaml(new.as_ref())?);
    let path = format!(
        "{}/{}",
        name.0.kind.kind,
        if name.0.namespace.is_empty() { name.0.name.to_string() } else { format!("{}/{}", name.0.namespace, name.0.name) }
    );
    let label = |there: bool, side: &str| if there { format!("{side}/{path}") } else { "/dev/null".to_owned() };
    let diff = TextDiff::from_lines(&before, &after);
    Ok(diff.unified_diff().context_radius(3).header(&label(old.is_some(), "a"), &label(new.is_some(), "b")).to_string())
}
