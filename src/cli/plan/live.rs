//! A plan against a server: a revision of the repository, or the files as they are, against what is there.
//!
//! What is asked of the server is what the plan needs: hosts and pods only where pods may move, and of a repository of which the server
//! has recorded a release, only the files that are others since are rendered.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::ManuallyDrop;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::made::{Facts, Made, compare, make};
use super::pods::{self, Pods};
use super::source::{Point, Reader, Record, Wish, named_or_around, read, record as record_of};
use crate::cli::app::{find, name, namespace};
use crate::cli::connect::client;
use crate::cli::{Context, Explain, Failure, get, validate};
use crate::client::{self, Client};
use crate::object::custom::{Definition, Kinds, definitions};
use crate::object::manifest::Manifest;
use crate::object::ours::{Application, Inventory, OWNER_ANNOTATION, Release, Rendering, Verdict, release_name, release_number};
use crate::object::{Key, Kind, Object, kind_of};
use crate::plan::foresee::{self, Before};
use crate::plan::sync::{self, Undo, Wanted};
use crate::render::Options;

/// Requests for the parts of a record that are on their way at once.
const PIECES_AT_ONCE: usize = 16;

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
    let its_own = source.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let default = wish.namespace.clone().unwrap_or_else(|| its_own.clone());
    let owner = format!("{}/{}", namespace(&app), name(&app));
    let status = app.status.clone().unwrap_or_default();
    let from = Point { revision: "the cluster".to_owned(), commit: String::new(), subject: String::new() };

    // What is managed is of the kinds that are wanted, nearly always: it comes while the repository is read.
    let mut there = There::default();
    let mut first: BTreeSet<&'static Kind> = status.inventory.keys().map(|key| key.kind).collect();
    first.extend(["ConfigMap", "Secret", "Namespace"].map(|k| Kind::of("v1", k).expect("it has a row")));
    there.ask(&client, first);
    let options = Options { namespace: default.clone(), kinds: defined(&client).await? };
    let mut notes = Vec::new();
    let releases = match recorded(&client, &app, &status.inventory).await {
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
    let failed = match failed(&client, &app).await {
        Err(client::Error::Status { code: 403, .. }) => {
            notes.push("these credentials may not read releases: what a failed one left may go without asking".to_owned());
            BTreeSet::new()
        }
        other => other.doing("read what became of releases")?,
    };
    // The server has rendered its newest commit to what this release says, with these options: so it holds for the release's own commit.
    let same_options = path == source.path && default == its_own;
    let known = releases.values().find(|r| same_options && !r.digest.is_empty() && r.digest == status.observed_digest);
    let known = match known {
        Some(release) if same_version(&client).await => Some(&release.record),
        _ => None,
    };
    let to = read(&mut Reader::new(cx)?, &repo, &path, &revision, &options, known)?;
    let (wanted, digest) = match to.result {
        Ok(good) => good,
        Err(problems) => {
            validate::show(&cx.print, &to.tree, &problems);
            return Ok(Made { shown: true, ..Made::rejected(owner, from, to.point, problems.iter().map(record_of).collect()) });
        }
    };
    if app.spec.pin.is_some() {
        notes.push("the Application is pinned: nothing of this happens before the pin ends".to_owned());
    }
    if app.spec.suspend {
        notes.push("the Application is suspended: nothing of this happens before it is resumed".to_owned());
    }
    if status.quarantine.iter().any(|q| q.digest == digest) {
        notes.push("this content was judged bad: it is held until it changes, or until `portolan retry`".to_owned());
    }
    there.ask(&client, wanted.iter().map(|w| w.key.kind));
    there.arrive(&mut notes).await?;
    // Trees of ten thousand objects: what is not freed one by one is freed at once when the process ends, which is soon.
    let (there, releases, wanted) = (ManuallyDrop::new(there), ManuallyDrop::new(releases), ManuallyDrop::new(wanted));

    let foreign =
        |key: &Key| there.all.get(key).is_some_and(|o| o.meta.annotations.get(OWNER_ANNOTATION).is_some_and(|by| *by != owner));
    let others: Vec<Application> = match wanted.iter().any(|w| foreign(&w.key)) {
        true => client.list("", "").await.doing("list the Applications")?,
        false => Vec::new(),
    };
    let claimed = |other: &str, object: &Key| {
        let holds = |a: &Application| a.status.as_ref().is_some_and(|status| status.inventory.has(object));
        others.iter().any(|a| format!("{}/{}", namespace(a), name(a)) == other && holds(a))
    };
    // What changes tells nearly always whether pods may move. Then they come while everything is compared.
    let ask_for_pods = || {
        let client = client.clone();
        tokio::spawn(async move { pods::pods(&client).await })
    };
    let last = |key: &Key| releases.get(&status.inventory.get(key)?.release)?.last.get(key).cloned();
    let runs = |key: &Key| matches!((key.kind.group, key.kind.kind), ("apps", "Deployment" | "ReplicaSet") | ("", "Pod"));
    let others_than_last = |w: &Wanted| last(&w.key).is_none_or(|last| last != w.value);
    let coming = wanted.iter().any(|w| runs(&w.key) && others_than_last(w)).then(ask_for_pods);
    let facts = Facts {
        application: owner.clone(),
        from,
        to: to.point,
        digest,
        wanted: &wanted,
        live: &|key| there.all.get(key).cloned(),
        inventory: &status.inventory,
        last: &last,
        policy: &app.spec.policy,
        undo: Undo { failed, ..Undo::default() },
        claimed: &claimed,
        find: &|key| there.all.get(key).cloned(),
        nodes: Some(&[]),
        before: Before::default(),
        strategy: strategy.parse()?,
        partial: false,
        notes: Vec::new(),
        now: crate::clock::now(),
    };
    let plan = compare(&facts);
    // Pods that wait for a host may get one by anything: then everything is looked at.
    if !foresee::moves(&plan) && !some_wait(&client).await? {
        return make(Facts { notes, ..facts }, plan);
    }
    let coming = coming.unwrap_or_else(ask_for_pods);
    let mut hosts = There::default();
    let kinds = ["Deployment", "ReplicaSet"].map(|k| Kind::of("apps/v1", k).expect("it has a row"));
    let more = [kind_of::<Namespace>(), kind_of::<Node>(), kind_of::<PriorityClass>(), kind_of::<PodDisruptionBudget>()];
    hosts.ask(&client, more.into_iter().chain(kinds).filter(|kind| !there.asked.contains(kind)));
    hosts.arrive(&mut notes).await?;
    hosts.all.extend(there.all.iter().map(|(key, object)| (key.clone(), object.clone())));
    let all = &hosts.all;
    let nodes: Vec<Node> = typed_of(all);
    let mut before = Before {
        deployments: typed_of(all),
        sets: typed_of(all),
        namespaces: typed_of(all),
        classes: typed_of(all),
        budgets: typed_of(all),
        ..Before::default()
    };
    let found = match (coming.await.doing("wait for an answer")?, pods::changing(&client, &plan).await) {
        (Ok(mut found), Ok(changing)) => {
            found.replace(changing);
            found
        }
        (Err(client::Error::Status { code: 403, .. }), _) | (_, Err(client::Error::Status { code: 403, .. })) => {
            notes.push("these credentials may not read pods".to_owned());
            Pods::default()
        }
        (Err(error), _) | (_, Err(error)) => return Err(error).doing("list pods"),
    };
    (before.pods, before.residents) = (found.some, found.residents);
    make(Facts { nodes: Some(&nodes), before, find: &|key| all.get(key).cloned(), notes, ..facts }, plan)
}

/// Whether the server is of this version. One of another may render otherwise.
async fn same_version(client: &Client) -> bool {
    let answer = client.call(http::Method::GET, "/version", &Value::Null).await;
    answer.is_ok_and(|answer| answer["gitVersion"].as_str().is_some_and(|v| v.ends_with(concat!(".", env!("CARGO_PKG_VERSION")))))
}

type Answer = Result<Vec<Arc<Object>>, client::Error>;

/// What there is of several kinds, everything of each: asked for side by side.
#[derive(Default)]
struct There {
    asked: BTreeSet<&'static Kind>,
    coming: Vec<(&'static Kind, JoinHandle<Answer>)>,
    all: BTreeMap<Key, Arc<Object>>,
}

impl There {
    fn ask(&mut self, client: &Client, kinds: impl IntoIterator<Item = &'static Kind>) {
        for kind in kinds {
            if self.asked.insert(kind) {
                let client = client.clone();
                self.coming.push((kind, tokio::spawn(async move { get::objects(&client, kind, "").await })));
            }
        }
    }

    /// Waits for what was asked for.
    async fn arrive(&mut self, notes: &mut Vec<String>) -> Result<(), Failure> {
        for (kind, objects) in std::mem::take(&mut self.coming) {
            match objects.await.doing("wait for an answer")? {
                Ok(objects) => self.all.extend(objects.into_iter().map(|object| (object.key.clone(), object))),
                // A credential that may only read a part still gives a plan of that part.
                Err(client::Error::Status { code: 403, .. }) => {
                    notes.push(format!("these credentials may not read {}", kind.plural));
                }
                Err(error) => return Err(error).doing(format_args!("list {}", kind.plural)),
            }
        }
        Ok(())
    }
}

/// Whether pods wait for a host. Who may not read pods is told so later.
async fn some_wait(client: &Client) -> Result<bool, Failure> {
    match get::objects(client, kind_of::<Pod>(), "fieldSelector=spec.nodeName%3D").await {
        Ok(waiting) => Ok(waiting.iter().any(|pod| !pod.ended())),
        Err(client::Error::Status { code: 403, .. }) => Ok(true),
        Err(error) => Err(error).doing("list the pods that wait for a host"),
    }
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

/// The objects of a kind, typed. Those that their type cannot hold are left out.
fn typed_of<K: k8s_openapi::Resource + serde::de::DeserializeOwned + Send>(all: &BTreeMap<Key, Arc<Object>>) -> Vec<K> {
    let objects: Vec<&Arc<Object>> = all.values().filter(|o| o.key.kind == kind_of::<K>()).collect();
    let read = |part: &[&Arc<Object>]| part.iter().filter_map(|o| serde_json::from_slice(&o.json()).ok()).collect::<Vec<K>>();
    side_by_side(&objects, read)
}

/// Reads objects on all processors.
fn side_by_side<T: Send>(objects: &[&Arc<Object>], read: impl Fn(&[&Arc<Object>]) -> Vec<T> + Sync) -> Vec<T> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let part = objects.len().div_ceil(processors).max(SMALL);
    std::thread::scope(|scope| {
        let readers: Vec<_> = objects.chunks(part).map(|part| scope.spawn(|| read(part))).collect();
        readers.into_iter().flat_map(|reader| reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// So many objects are read sooner than a thread is started for them.
const SMALL: usize = 500;

/// What a release recorded.
struct Recorded {
    digest: String,
    record: Record,
    last: BTreeMap<Key, Manifest>,
}

/// The releases that count as failed when the next commit comes, if they left anything.
async fn failed(client: &Client, app: &Application) -> Result<BTreeSet<i64>, client::Error> {
    let status = app.status.as_ref().filter(|status| !status.last_good.is_empty());
    let Some(status) = status else { return Ok(BTreeSet::new()) };
    let good = release_number(&status.last_good);
    if status.inventory.items().all(|item| item.created <= good) {
        return Ok(BTreeSet::new());
    }
    let mut since = Vec::new();
    for number in good + 1..=status.releases {
        let release = release_name(name(app), number);
        let found: Option<Release> = client.get(namespace(app), &release).await?;
        // What is being tried will be overtaken.
        let verdict = if release == status.trial { Some(Verdict::Superseded) } else { found.and_then(|r| r.status?.verdict) };
        since.push((number, verdict));
    }
    Ok(sync::failed(&since))
}

/// What was last applied: the recorded objects of the releases that the inventory names.
async fn recorded(
    client: &Client,
    app: &Application,
    inventory: &Inventory,
) -> Result<BTreeMap<String, Recorded>, client::Error> {
    let names: BTreeSet<&String> = inventory.items().map(|i| &i.release).filter(|r| !r.is_empty()).collect();
    let mut releases = BTreeMap::new();
    for name in names {
        let Some(release): Option<Release> = client.get(namespace(app), name).await? else { continue };
        let pieces = stream::iter(release.spec.renderings).map(|piece| {
            let (client, space) = (client.clone(), namespace(app).to_owned());
            // Each on any processor.
            let read = tokio::spawn(async move {
                let rendering: Option<Rendering> = client.get(&space, &piece).await?;
                let objects = rendering.into_iter().flat_map(|r| r.objects);
                let read = objects.filter_map(|o| Some((o.key()?, o))).map(|(key, o)| (o.file, o.line, key, o.object.into()));
                Ok(read.collect::<Vec<(String, u32, Key, Manifest)>>())
            });
            async move { read.await.unwrap_or_else(|panic| Err(client::Error::Garbled(panic.into()))) }
        });
        let objects: Vec<_> = pieces.buffered(PIECES_AT_ONCE).try_collect::<Vec<_>>().await?.into_iter().flatten().collect();
        let last = objects.iter().map(|(_, _, key, manifest)| (key.clone(), manifest.clone())).collect();
        let record = Record { commit: release.spec.commit, objects };
        releases.insert(name.clone(), Recorded { digest: release.spec.digest, record, last });
    }
    Ok(releases)
}
