//! A plan against a server: a revision of the repository, or the files as they are, against what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;

use super::made::{Facts, Made, make};
use super::source::{Point, Wish, named_or_around, read, record};
use crate::cli::app::{find, name, namespace};
use crate::cli::connect::client;
use crate::cli::{Context, Explain, Failure, get, validate};
use crate::client::{self, Client};
use crate::object::custom::{Definition, Kinds, definitions};
use crate::object::ours::{Application, InventoryItem, Release, Rendering};
use crate::object::{Key, Kind, Object, kind_of};
use crate::plan::foresee::Before;
use crate::plan::rollout::ended;
use crate::render::Options;

pub(super) async fn plan(cx: &Context, app: Option<&str>, wish: &Wish, strategy: &str) -> Result<Made, Failure> {
    let client = client(cx).await.map_err(|failure| {
        let hint =
            failure.hint.clone().or_else(|| Some("without a server, give --from REVISION to compare two revisions".to_owned()));
        Failure { hint, ..failure }
    })?;
    let app = find(&client, app).await?;
    let source = &app.spec.source;
    let repo = match (&wish.repo, &wish.to) {
        (None, None) => source.repository.clone(),
        (None, Some(_)) => named_or_around(None).unwrap_or_else(|_| source.repository.clone()),
        (Some(repo), _) => named_or_around(Some(repo))?,
    };
    let revision =
        wish.to.clone().unwrap_or_else(|| if wish.repo.is_some() { "HEAD".to_owned() } else { source.revision.clone() });
    let path = wish.path.clone().unwrap_or_else(|| source.path.clone());
    let default = wish.namespace.clone().or_else(|| source.namespace.clone()).unwrap_or_else(|| "default".to_owned());
    let owner = format!("{}/{}", namespace(&app), name(&app));
    let status = app.status.clone().unwrap_or_default();
    let from = Point { revision: "the cluster".to_owned(), commit: String::new(), subject: String::new() };
    let options = Options { namespace: default, kinds: defined(&client).await? };
    let to = read(cx, &repo, &path, &revision, &options)?;
    let (wanted, digest) = match to.result {
        Ok(good) => good,
        Err(problems) => {
            validate::show(&cx.print, &to.tree, &problems);
            return Ok(Made { shown: true, ..Made::rejected(owner, from, to.point, problems.iter().map(record).collect()) });
        }
    };
    let mut notes = Vec::new();
    if app.spec.pin.is_some() {
        notes.push("the Application is pinned: nothing of this happens before the pin ends".to_owned());
    }
    if app.spec.suspend {
        notes.push("the Application is suspended: nothing of this happens before it is resumed".to_owned());
    }
    if status.quarantine.iter().any(|q| q.digest == digest) {
        notes.push("this content was judged bad: it is held until it changes, or until `portolan retry`".to_owned());
    }
    // Everything of every kind that matters, at one go per kind.
    let managed: Vec<Key> = status.inventory.iter().filter_map(InventoryItem::key).collect();
    let mut kinds: BTreeSet<&'static Kind> = wanted.iter().map(|w| w.key.kind).chain(managed.iter().map(|k| k.kind)).collect();
    let typed = ["Deployment", "ReplicaSet"].map(|k| Kind::of("apps/v1", k).expect("it has a row"));
    kinds.extend([kind_of::<Namespace>(), kind_of::<Node>(), kind_of::<Pod>()].into_iter().chain(typed));
    kinds.extend([kind_of::<PriorityClass>(), kind_of::<PodDisruptionBudget>()]);
    kinds.extend(["ConfigMap", "Secret"].map(|k| Kind::of("v1", k).expect("it has a row")));
    let mut all: BTreeMap<Key, Arc<Object>> = BTreeMap::new();
    for kind in kinds {
        match get::list(&client, kind, "", "").await {
            Ok(items) => {
                for item in items {
                    let object = Object::from_json(serde_json::to_vec(&item)?.into(), kind.plural)?;
                    all.insert(object.key.clone(), Arc::new(object));
                }
            }
            // A credential that may only read a part still gives a plan of that part.
            Err(client::Error::Status { code: 403, .. }) => notes.push(format!("these credentials may not read {}", kind.plural)),
            Err(error) => return Err(error).doing(format_args!("list {}", kind.plural)),
        }
    }
    let contents = match recorded(&client, &app, &status.inventory).await {
        // Renderings hold whole manifests, Secrets too, so an account that may only look does not have them.
        Err(client::Error::Status { code: 403, .. }) => {
            notes.push(
                "these credentials may not read renderings: what was last applied is not told from what others changed"
                    .to_owned(),
            );
            BTreeMap::new()
        }
        other => other.doing("read what was last applied")?,
    };
    let last: BTreeMap<Key, &Value> = status
        .inventory
        .iter()
        .filter_map(|item| {
            let key = item.key()?;
            let value = contents.get(&item.release)?.get(&key)?;
            Some((key, value))
        })
        .collect();
    let keys: BTreeSet<Key> = wanted.iter().map(|w| w.key.clone()).chain(managed).collect();
    let live = keys.into_iter().filter_map(|k| Some((k.clone(), all.get(&k)?.clone()))).collect();
    let others: Vec<Application> = client.list("", "").await.doing("list the Applications")?;
    let claimed = |other: &str, object: &Key| {
        let holds = |a: &Application| a.status.iter().flat_map(|s| &s.inventory).any(|i| i.key().as_ref() == Some(object));
        others.iter().any(|a| format!("{}/{}", namespace(a), name(a)) == other && holds(a))
    };
    let nodes: Vec<Node> = typed_of(&all);
    let before = Before {
        deployments: typed_of(&all),
        sets: typed_of(&all),
        pods: typed_of::<Pod>(&all).into_iter().filter(|p| !ended(p)).collect(),
        namespaces: typed_of(&all),
        classes: typed_of(&all),
        budgets: typed_of(&all),
    };
    make(Facts {
        application: owner,
        from,
        to: to.point,
        digest,
        wanted: &wanted,
        live: &live,
        inventory: &status.inventory,
        last: &last,
        policy: &app.spec.policy,
        claimed: &claimed,
        find: &|key| all.get(key).cloned(),
        nodes: Some(&nodes),
        before,
        strategy: strategy.parse()?,
        partial: false,
        notes,
        now: crate::clock::now(),
    })
}

/// The kinds that are defined in the cluster. Who may not read definitions has those of the repository.
async fn defined(client: &Client) -> Result<Kinds, Failure> {
    match get::list(client, definitions(), "", "").await {
        Ok(items) => {
            let read = items.iter().map(Definition::read).filter(|definition| definition.established);
            Ok(read.fold(Kinds::default(), |kinds, definition| kinds.with(&definition)))
        }
        Err(client::Error::Status { code: 403, .. }) => Ok(Kinds::default()),
        Err(error) => Err(error).doing("list the definitions of kinds"),
    }
}

fn typed_of<K: k8s_openapi::Resource + serde::de::DeserializeOwned + Clone + Send + Sync + 'static>(
    all: &BTreeMap<Key, Arc<Object>>,
) -> Vec<K> {
    all.values().filter(|o| o.key.kind == kind_of::<K>()).filter_map(|o| o.typed::<K>().ok()).map(|t| (*t).clone()).collect()
}

/// What was last applied: the recorded objects of the releases that the inventory names.
async fn recorded(
    client: &Client,
    app: &Application,
    inventory: &[InventoryItem],
) -> Result<BTreeMap<String, BTreeMap<Key, Value>>, client::Error> {
    let names: BTreeSet<&String> = inventory.iter().map(|i| &i.release).filter(|r| !r.is_empty()).collect();
    let mut contents = BTreeMap::new();
    for release in names {
        let found: Option<Release> = client.get(namespace(app), release).await?;
        let mut objects = BTreeMap::new();
        for piece in found.iter().flat_map(|r| &r.spec.renderings) {
            let rendering: Option<Rendering> = client.get(namespace(app), piece).await?;
            for rendered in rendering.into_iter().flat_map(|r| r.objects) {
                let Some(key) = rendered.key() else { continue };
                objects.insert(key, rendered.object);
            }
        }
        contents.insert(release.clone(), objects);
    }
    Ok(contents)
}
