//! A plan without a server: one revision of a repository against another.
//!
//! The older revision is taken as applied. Nothing is known of what others put into the cluster, so what a pod refers to and is not in
//! the repository is only warned about.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::made::{Facts, Made, compare, make};
use super::source::{Point, Reader, Wanting, named_or_around, read, record};
use crate::cli::args::Plan;
use crate::cli::{Context, Explain, Failure, validate};
use crate::object::admit::{self, Stamp};
use crate::object::custom::plural_of;
use crate::object::manifest::Manifest;
use crate::object::ours::{Inventory, InventoryItem, Policy, SYSTEM_NAMESPACE};
use crate::object::{Draft, Key, Object};
use crate::plan::foresee::{self, Before};
use crate::plan::rollout::ended;
use crate::plan::schedule::Strategy;
use crate::plan::sync::{self, Undo, Wanted};
use crate::render::Options;

pub(super) fn plan(cx: &Context, args: &Plan, from: &str) -> Result<Made, Failure> {
    let repo = named_or_around(args.repo.as_deref())?;
    let path = args.path.as_deref().unwrap_or_default();
    let namespace = args.namespace.as_deref().unwrap_or("default");
    let application = format!("{SYSTEM_NAMESPACE}/{}", args.app.as_deref().unwrap_or("root"));
    // Without a cluster there are the kinds that the repository defines itself.
    let options = Options { namespace: namespace.to_owned(), ..Options::default() };
    let mut reader = Reader::new(cx)?;
    let to = read(&mut reader, &repo, path, args.to.as_deref().unwrap_or("HEAD"), &options, None)?;
    let mut notes = Vec::new();
    // A directory that the older revision does not have yet is a beginning, not a mistake.
    let from = match read(&mut reader, &repo, path, from, &options, None) {
        Ok(wanting) => wanting,
        Err(failure) if missing_path(&failure) => {
            notes.push(format!("{from} has no directory {path:?}: everything is new"));
            let point = Point { revision: from.to_owned(), ..Point::default() };
            Wanting { point, tree: Default::default(), result: Ok((Vec::new(), String::new())) }
        }
        Err(failure) => return Err(failure),
    };
    let base = match from.result {
        Ok((wanted, _)) => wanted,
        Err(problems) => {
            notes.push(format!("{} has {} problems itself, so the plan starts from nothing", from.point.label(), problems.len()));
            Vec::new()
        }
    };
    let (wanted, digest) = match to.result {
        Ok(good) => good,
        Err(problems) => {
            if args.output == "text" {
                validate::show(&cx.print, &to.tree, &problems);
            }
            let made = Made::rejected(application, from.point, to.point, problems.iter().map(record).collect());
            return Ok(Made { shown: args.output == "text", ..made });
        }
    };
    let now = crate::clock::now();
    let policy = Policy::default();
    let live = applied(&application, &from.point.commit, &base, &policy, now);
    let inventory: Inventory = live.values().map(|o| item(o)).collect();
    let last: BTreeMap<&Key, &Manifest> = base.iter().map(|w| (&w.key, &w.value)).collect();
    let strategy: Strategy = args.strategy.parse()?;
    let cluster = args.cluster.as_deref().map(cluster).transpose()?;
    let mut before = Before::default();
    if let Some((nodes, known)) = &cluster {
        before = known.clone();
        // Workloads that the picture does not show are grown on it, as they would have been.
        let shown = |w: &&Wanted| {
            let same = |d: &Deployment| {
                d.metadata.namespace.as_deref() == Some(&*w.key.namespace) && d.metadata.name.as_deref() == Some(&*w.key.name)
            };
            !known.deployments.iter().any(same)
        };
        let absent: Vec<(Key, Value)> = base.iter().filter(shown).map(|w| (w.key.clone(), w.value.value().clone())).collect();
        let picture = foresee::picture(nodes, &before);
        before =
            foresee::grown(foresee::Input { before, picture, waves: vec![absent], prune: Vec::new(), strategy, seed: 0, now });
    } else {
        notes.push("nothing is known of the hosts, so no pod is placed; --cluster FILE tells".to_owned());
    }
    let facts = Facts {
        application,
        from: from.point,
        to: to.point,
        digest,
        wanted: &wanted,
        live: &|key| live.get(key).cloned(),
        inventory: &inventory,
        last: &|key| last.get(key).map(|last| (*last).clone()),
        policy: &policy,
        undo: Undo::default(),
        claimed: &|_, _| false,
        find: &|key| live.get(key).cloned(),
        nodes: cluster.as_ref().map(|(nodes, _)| nodes.as_slice()),
        before,
        strategy,
        partial: true,
        notes,
        now,
    };
    let plan = compare(&facts);
    make(facts, plan)
}

fn missing_path(failure: &Failure) -> bool {
    let kind = failure.error.chain().find_map(|c| c.downcast_ref::<crate::git::FetchError>()).map(|e| e.kind);
    kind == Some(crate::git::FetchErrorKind::NoSuchPath)
}

/// The objects as they would be in the cluster after a revision was applied.
fn applied(
    application: &str,
    commit: &str,
    wanted: &[Wanted],
    policy: &Policy,
    now: jiff::Timestamp,
) -> BTreeMap<Key, Arc<Object>> {
    let first = sync::sync(&sync::Input {
        application,
        commit,
        wanted,
        live: &|_| None,
        inventory: &Inventory::default(),
        last: &|_| None,
        policy,
        undo: &Default::default(),
        settled: &Default::default(),
        claimed: &|_, _| false,
        heir: &|_| None,
    });
    let mut live = BTreeMap::new();
    for change in first.changes() {
        let key = change.name.0.clone();
        let stamp = Stamp { uid: format!("applied {key}"), now };
        // What the API would refuse was refused then as well; it is shown as it was written.
        let draft =
            admit::create(key.kind, change.new.clone(), &stamp).unwrap_or_else(|_| Draft::new(key.kind, change.new.clone()));
        live.insert(key, Arc::new(draft.seal(1)));
    }
    live
}

fn item(object: &Object) -> InventoryItem {
    let key = &object.key;
    InventoryItem {
        api_version: key.kind.api_version(),
        kind: key.kind.kind.to_owned(),
        plural: plural_of(key.kind),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        uid: object.meta.uid.clone(),
        ..InventoryItem::default()
    }
}

/// Nodes and what runs on them, from a `List` as `portolan get nodes,pods -A -o json` prints it.
fn cluster(path: &std::path::Path) -> Result<(Vec<Node>, Before), Failure> {
    let text = std::fs::read_to_string(path).doing(format_args!("read {}", path.display()))?;
    let list: Value = serde_yaml::from_str(&text).doing(format_args!("read {} as JSON or YAML", path.display()))?;
    fn of<T: DeserializeOwned>(list: &Value, kind: &str) -> Result<Vec<T>, serde_json::Error> {
        let items = list["items"].as_array().into_iter().flatten();
        items.filter(|i| i["kind"] == kind).map(|i| serde_json::from_value(i.clone())).collect()
    }
    let mut before = Before {
        deployments: of::<Deployment>(&list, "Deployment")?,
        sets: of::<ReplicaSet>(&list, "ReplicaSet")?,
        pods: of::<Pod>(&list, "Pod")?.into_iter().map(Arc::new).collect(),
        namespaces: of(&list, "Namespace")?,
        classes: of(&list, "PriorityClass")?,
        budgets: of(&list, "PodDisruptionBudget")?,
        residents: Vec::new(),
    };
    before.pods.retain(|p| !ended(p));
    Ok((of::<Node>(&list, "Node")?, before))
}
