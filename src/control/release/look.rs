//! One look at one Application: what git says, which release follows from it, and what is written about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;

use super::facts::HostsNow;
use super::record::Content;
use super::{Ask, Chart, ReleaseLoop, Seen, Standing, facts, record};
use crate::control::Context;
use crate::control::event::Severity;
use crate::control::keyed::Trouble;
use crate::git::{Credentials, Request};
use crate::mutant::{self, Mutant};
use crate::object::custom::{Kinds, definitions};
use crate::object::ours::{
    Application, ApplicationSpec, ApplicationStatus, Evidence, INVENTORY_FINALIZER, Inventory, Phase, ProblemRecord, Purpose,
    ReleaseSpec, ReleaseStatus, SYNC_ANNOTATION, Sync, Verdict,
};
use crate::object::source::Origin;
use crate::object::{Draft, Key, Object, Revision, kind_of};
use crate::plan::health::State;
use crate::plan::idle;
use crate::plan::sync::Wanted;
use crate::plan::target::{self, Frozen, Known, Target};
use crate::render::Rendered;
use crate::store::{Txn, View};

/// How many problems are kept. A person mends the first few and looks again.
const PROBLEMS: usize = 100;
/// Seconds between two looks at a remote repository where the author says nothing.
const INTERVAL: i64 = 60;
/// How many bad digests are remembered. More than a year of daily mistakes.
const QUARANTINE: usize = 500;

/// One look: what was read, and what will be written in one transaction.
pub(super) struct Pass<'a> {
    pub(super) view: View,
    pub(super) object: Arc<Object>,
    pub(super) application: &'a Application,
    pub(super) hosts: Arc<HostsNow>,
    pub(super) now: Timestamp,
    /// The status as it will be.
    pub(super) status: ApplicationStatus,
    pub(super) txn: Txn,
    /// Statuses of releases that the transaction writes, so that a second change adds to the first.
    pub(super) told: BTreeMap<String, ReleaseStatus>,
    pub(super) said: Vec<(Severity, &'static str, String)>,
    /// When to look again if nothing happens before.
    pub(super) again: Option<Timestamp>,
    /// The release that the transaction records, and what it consists of.
    pub(super) opened: Option<(String, Content)>,
    /// Drift that is left alone, and releases that wait: the cluster is not what git says.
    pub(super) differs: bool,
}

impl Pass<'_> {
    pub(super) fn spec(&self) -> &ApplicationSpec {
        &self.application.spec
    }
    /// `<namespace>/<name>`, as it is written on managed objects.
    pub(super) fn owner(&self) -> String {
        format!("{}/{}", self.object.key.namespace, self.object.key.name)
    }
    pub(super) fn say(&mut self, severity: Severity, reason: &'static str, message: String) {
        self.said.push((severity, reason, message));
    }
    pub(super) fn until(&mut self, time: Option<Timestamp>) {
        self.again = match (self.again, time) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    fn verdicts(&self, name: &str) -> Option<(String, String)> {
        let release = record::release(&self.view, &self.object.key, name)?;
        Some((name.to_owned(), release.spec.digest.clone()))
    }
}

/// A valid commit: what git wants.
pub(super) struct Desired {
    seen: Arc<Seen>,
    pub(super) digest: String,
}

impl Desired {
    pub(super) fn chart(&self) -> &Chart {
        self.seen.outcome.as_ref().expect("only a valid commit is desired")
    }
    pub(super) fn wanted(&self) -> Vec<Wanted> {
        let objects = self.chart().rendered.as_ref().map(|r| r.objects.as_slice()).unwrap_or_default();
        objects.iter().map(|o| Wanted { key: o.key.clone(), value: o.value.clone(), origin: o.origin.clone() }).collect()
    }
}

impl ReleaseLoop {
    /// Looks at one Application. Says when to look again if nothing happens before.
    pub(super) fn look(&mut self, cx: &mut Context<'_>, key: &Key) -> Result<Option<Timestamp>, Trouble> {
        let view = cx.store.view();
        let Some(object) = view.get(key).cloned() else {
            self.charts.forget(key);
            self.forget(key);
            return Ok(None);
        };
        let application = match self.written.get(key).filter(|written| written.revision == object.revision) {
            Some(written) => written.application.clone(),
            None => object.typed::<Application>()?,
        };
        let mut pass = Pass {
            hosts: self.hosts(&view),
            view,
            status: application.status.clone().unwrap_or_default(),
            object,
            application: &application,
            now: cx.now,
            txn: Txn::new(),
            told: BTreeMap::new(),
            opened: None,
            said: Vec::new(),
            again: None,
            differs: false,
        };
        if pass.object.meta.deleting() {
            self.retire(&mut pass)?;
            return self.finish(cx, pass);
        }
        pass.status.observed_generation = pass.object.meta.generation;
        let desired = self.consult(cx, &mut pass)?;
        if let Some(next) = target::retried(&application.spec, &pass.status) {
            pass.status = next;
            self.obstacles.remove(key);
            pass.say(Severity::Normal, "Retry", "a quarantined rendering is tried once more".to_owned());
        }
        self.decide(cx, &mut pass, desired.as_ref())?;
        self.finish(cx, pass)
    }

    /// Asks git, and notes what it answered. `None`: nothing valid is known.
    fn consult(&mut self, cx: &mut Context<'_>, pass: &mut Pass<'_>) -> Result<Option<Desired>, Trouble> {
        let key = pass.object.key.clone();
        let source = &pass.application.spec.source;
        if pass.spec().suspend {
            return Ok(None);
        }
        if source.repository.is_empty() {
            pass.status.fetch_error = "spec.source.repository is empty".to_owned();
            return Ok(None);
        }
        let credentials = match &source.secret_name {
            None => None,
            Some(name) => match pass.view.get(&Key::of::<Secret>(&key.namespace, name)) {
                Some(secret) => {
                    let secret = secret.typed::<Secret>()?;
                    let data = secret.data.clone().unwrap_or_default();
                    Some(Credentials::from_secret(|name| data.get(name).map(|bytes| bytes.0.as_slice())))
                }
                None => {
                    pass.status.fetch_error =
                        format!("read Secret {}/{name} with the credentials: it does not exist", key.namespace);
                    pass.until(Some(pass.now + SignedDuration::from_secs(30)));
                    return Ok(None);
                }
            },
        };
        let nonce = pass.object.meta.annotations.get(SYNC_ANNOTATION).cloned().unwrap_or_default();
        let ask = Ask {
            request: Request {
                repository: source.repository.clone(),
                revision: source.revision.clone(),
                path: source.path.clone(),
                credentials,
            },
            namespace: source.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            kinds: Kinds::established(pass.view.list(definitions())),
            interval: SignedDuration::from_secs(source.interval_seconds.unwrap_or(INTERVAL).max(1)),
            nonce,
        };
        self.charts.look(&key, &ask);
        // An answer to another question (the source was just changed) is not an answer.
        let Some(seen) =
            self.charts.seen(&key).filter(|seen| seen.ask.request == ask.request && seen.ask.namespace == ask.namespace)
        else {
            return Ok(None);
        };
        if seen.ask.nonce == ask.nonce {
            pass.status.answered_sync = ask.nonce;
        }
        let chart = match &seen.outcome {
            Ok(chart) => chart,
            Err(unread) => {
                if pass.status.fetch_error != unread.message {
                    pass.say(Severity::Warning, "FetchFailed", unread.message.clone());
                }
                pass.status.fetch_error.clone_from(&unread.message);
                return Ok(None);
            }
        };
        pass.status.fetch_error.clear();
        pass.status.last_fetch = Some(Time(seen.at));
        let first = pass.status.observed_commit != chart.commit;
        pass.status.observed_commit.clone_from(&chart.commit);
        match &chart.rendered {
            Ok(rendered) => {
                pass.status.observed_digest.clone_from(&rendered.digest);
                pass.status.problems.clear();
                let name = &*key.name;
                let retry = chart.trailers.iter().any(|(trailer, value)| {
                    trailer.eq_ignore_ascii_case("Portolan-Retry") && value.split([',', ' ']).any(|word| word == name)
                });
                if first && retry {
                    pass.status = target::released(&pass.status, &rendered.digest);
                    self.obstacles.remove(&key);
                }
                Ok(Some(Desired { digest: rendered.digest.clone(), seen: seen.clone() }))
            }
            Err(problems) => {
                pass.status.observed_digest.clear();
                let problems = problems.iter().map(|p| ProblemRecord {
                    file: p.origin.file.to_string(),
                    line: p.origin.line,
                    column: p.origin.column,
                    message: p.message.clone(),
                    hint: p.hint.clone(),
                });
                let problems: Vec<_> = problems.collect();
                let commit = (chart.commit.as_str(), chart.subject.as_str(), chart.author.as_str());
                self.rejected(cx, pass, commit, "", problems)?;
                Ok(None)
            }
        }
    }

    /// A commit that is refused: its problems, and its record in the history.
    pub(super) fn rejected(
        &mut self,
        cx: &mut Context<'_>,
        pass: &mut Pass<'_>,
        (commit, subject, author): (&str, &str, &str),
        digest: &str,
        mut problems: Vec<ProblemRecord>,
    ) -> Result<(), Trouble> {
        let more = problems.len().saturating_sub(PROBLEMS);
        problems.truncate(PROBLEMS);
        pass.status.problems = problems;
        if record::already_rejected(&pass.view, &pass.object.key, commit, digest) {
            return Ok(());
        }
        let count = pass.status.problems.len() + more;
        let message =
            format!("commit {} was refused: {count} {}", short(commit), if count == 1 { "problem" } else { "problems" });
        let evidence = pass.status.problems.iter().map(|p| Evidence {
            object: Origin { file: p.file.as_str().into(), line: p.line, column: p.column }.to_string(),
            reason: "Rejected".to_owned(),
            message: p.message.clone(),
            ..Evidence::default()
        });
        let status = ReleaseStatus {
            phase: Phase::Preflight,
            verdict: Some(Verdict::Rejected),
            message: message.clone(),
            started: Some(Time(pass.now)),
            finished: Some(Time(pass.now)),
            evidence: evidence.collect(),
            ..ReleaseStatus::default()
        };
        let spec = ReleaseSpec {
            repository: pass.spec().source.repository.clone(),
            commit: commit.to_owned(),
            subject: subject.to_owned(),
            author: author.to_owned(),
            digest: digest.to_owned(),
            ..ReleaseSpec::default()
        };
        record::write(cx, pass, spec, &[], &status)?;
        record::prune(pass);
        let first = pass.status.problems.first().map(|p| format!(": {}:{}: {}", p.file, p.line, p.message)).unwrap_or_default();
        pass.say(Severity::Warning, "Rejected", format!("{message}{first}"));
        Ok(())
    }

    /// Chooses the release and takes one step towards it.
    fn decide(&mut self, cx: &mut Context<'_>, pass: &mut Pass<'_>, desired: Option<&Desired>) -> Result<(), Trouble> {
        let key = pass.object.key.clone();
        let mut standing = None;
        let pin = target::pin(pass.spec(), pass.now).map(|pin| pin.release.clone());
        let pin = pin.filter(|name| {
            let known = record::release(&pass.view, &key, name).is_some_and(|r| !r.spec.renderings.is_empty());
            if !known {
                pass.said.push((Severity::Warning, "NoSuchRelease", format!("pinned release {name:?} has no recorded objects")));
            }
            known
        });
        pass.until(pass.application.spec.pin.as_ref().and_then(|p| p.expires.as_ref()).map(|t| t.0).filter(|t| *t > pass.now));
        let followed = match self.choose(pass, pin.as_deref(), desired.map(|d| d.digest.as_str())) {
            Next::Open => {
                let desired = desired.expect("only what git says is opened");
                standing = self.open(cx, pass, desired)?;
                match &standing {
                    None => return Ok(()),
                    // What was wanted before is still wanted.
                    Some(_) => self.choose(pass, pin.as_deref(), None),
                }
            }
            next => {
                self.obstacles.remove(&key);
                next
            }
        };
        match &followed {
            Next::Follow(release, purpose) => self.follow(cx, pass, release, *purpose)?,
            Next::Stuck => self.stuck(cx, pass)?,
            Next::Open | Next::Nothing | Next::Suspended => {}
        }
        self.words(pass, pin.as_deref(), desired, standing.as_ref(), followed == Next::Suspended);
        Ok(())
    }

    fn choose(&self, pass: &Pass<'_>, pin: Option<&str>, desired: Option<&str>) -> Next {
        let trial = pass.verdicts(&pass.status.trial);
        let last_good = pass.verdicts(&pass.status.last_good);
        fn known(pair: &Option<(String, String)>) -> Option<Known<'_>> {
            pair.as_ref().map(|(release, digest)| Known { release, digest })
        }
        let quarantined = |digest: &str| match mutant::on(Mutant::QuarantineByCommit) {
            true => pass.status.quarantine.iter().any(|q| {
                record::release(&pass.view, &pass.object.key, &q.release)
                    .is_some_and(|r| r.spec.commit == pass.status.observed_commit)
            }),
            false => pass.status.quarantine.iter().any(|q| q.digest == digest),
        };
        let target = target::choose(&target::Input {
            suspended: pass.spec().suspend,
            pin,
            desired,
            trial: known(&trial),
            last_good: known(&last_good),
            quarantined: &quarantined,
            rollout: pass.status.rollout.as_ref(),
        });
        match target {
            Target::Nothing => Next::Nothing,
            Target::Frozen(Frozen::Suspended) => Next::Suspended,
            Target::Frozen(Frozen::Stuck) => Next::Stuck,
            Target::Follow(release, purpose) => Next::Follow(release.to_owned(), purpose),
            Target::Open => Next::Open,
        }
    }

    /// Says on both axes where the Application is. What rolls has said its phase already.
    fn words(
        &mut self,
        pass: &mut Pass<'_>,
        pin: Option<&str>,
        desired: Option<&Desired>,
        standing: Option<&Standing>,
        suspended: bool,
    ) {
        let status = &mut pass.status;
        let commit = short(&status.observed_commit).to_owned();
        let target = record::release(&pass.view, &pass.object.key, &status.target);
        let serving = target.as_ref().map(|r| format!("{} ({})", status.target, short(&r.spec.commit))).unwrap_or_default();
        let digest = target.as_ref().map(|r| r.spec.digest.as_str());
        let bad = |digest: &str| status.quarantine.iter().find(|q| q.digest == digest);
        // When git is away, what it said last is still what it wants.
        let wants = desired.map(|d| d.digest.clone()).or_else(|| Some(status.observed_digest.clone()).filter(|d| !d.is_empty()));
        let quarantined = wants.as_deref().and_then(bad).cloned();
        let rolling = status.rollout.is_some();
        let stuck = status.rollout.as_ref().is_some_and(|r| r.stuck);
        let resting = !rolling && !status.target.is_empty();
        status.sync = if suspended {
            Sync::Paused
        } else if pin.is_some() {
            Sync::Held
        } else if !status.problems.is_empty() {
            Sync::Invalid
        } else if status.rollout.as_ref().is_some_and(|r| r.stuck && r.purpose == Purpose::Trial) {
            // The policy `pause`, or nothing to go back to.
            Sync::Paused
        } else if quarantined.is_some() {
            Sync::Held
        } else if wants.is_some() && wants.as_deref() == digest && resting && !pass.differs {
            Sync::Synced
        } else {
            Sync::OutOfSync
        };
        if suspended {
            status.message = "suspended: nothing is written until it is resumed".to_owned();
            return;
        }
        if resting {
            status.waiting_on.clear();
            let unwell = status.health != State::Healthy.word() && !status.health.is_empty();
            let mut well = if unwell { format!(", but its objects are {}", status.health) } else { String::new() };
            for text in idle::told(status.inventory.keys()) {
                well.push_str("; ");
                well.push_str(&text);
            }
            (status.phase, status.message) = match (pin, &quarantined) {
                (Some(_), _) => {
                    let reason = pass.application.spec.pin.as_ref().map(|p| p.reason.as_str()).filter(|r| !r.is_empty());
                    (Phase::Healthy, format!("pinned to {serving}{}{well}", reason.map(|r| format!(": {r}")).unwrap_or_default()))
                }
                (None, Some(bad)) => {
                    (Phase::RolledBack, format!("serving {serving}, because {} was bad: {}{well}", bad.release, bad.reason))
                }
                (None, None) => (Phase::Healthy, format!("serving {serving}{well}")),
            };
            if !status.problems.is_empty() {
                status.message = format!("commit {commit} was refused; still {}", status.message);
            }
        } else if !rolling {
            (status.phase, status.message) = if !status.problems.is_empty() {
                (Phase::Preflight, format!("commit {commit} was refused, and there was none before it"))
            } else if !status.fetch_error.is_empty() {
                (Phase::Errored, "the repository cannot be read".to_owned())
            } else {
                (Phase::Blocked, "waits for the first look at the repository".to_owned())
            };
            status.waiting_on = status.fetch_error.is_empty().then(Vec::new).unwrap_or_else(|| vec![status.fetch_error.clone()]);
        }
        if stuck {
            return;
        }
        match standing {
            None => {}
            Some(Standing::Blocked(on)) => {
                if !rolling {
                    status.phase = Phase::Blocked;
                }
                status.message = format!("commit {commit} waits for other Applications");
                status.waiting_on.clone_from(on);
            }
            Some(Standing::Rejected(_)) => {
                status.sync = Sync::Invalid;
                if !resting && !rolling {
                    status.phase = Phase::Preflight;
                    status.message = format!("commit {commit} was refused, and there was none before it");
                }
            }
            Some(Standing::Errored(on)) => {
                if !rolling {
                    status.phase = Phase::Errored;
                }
                status.message = format!("commit {commit} cannot be rolled out now; it is tried again");
                status.waiting_on.clone_from(on);
            }
        }
        if resting && standing.is_none() && !status.blocked_prune.is_empty() {
            status.waiting_on = status.blocked_prune.iter().map(|kept| format!("consent to prune {kept}")).collect();
        }
    }

    /// Commits what the look decided, if anything, and says when to look again.
    fn finish(&mut self, cx: &mut Context<'_>, mut pass: Pass<'_>) -> Result<Option<Timestamp>, Trouble> {
        let before = pass.application.status.clone().unwrap_or_default();
        if pass.status.quarantine.len() > QUARANTINE {
            let excess = pass.status.quarantine.len() - QUARANTINE;
            pass.status.quarantine.drain(..excess);
        }
        if !pass.object.meta.deleting() {
            conditions(&mut pass.status, pass.object.meta.generation, pass.now);
        }
        // The time of the last look alone is not news: at rest nothing is written.
        let silent = ApplicationStatus { last_fetch: before.last_fetch.clone(), ..pass.status.clone() };
        let finalizer = !pass.object.meta.deleting()
            && !pass.status.inventory.is_empty()
            && !pass.object.meta.finalizers.iter().any(|f| f == INVENTORY_FINALIZER);
        let mut written = None;
        if silent != before || finalizer {
            let mut finalizers = pass.object.meta.finalizers.clone();
            finalizers.extend(finalizer.then(|| INVENTORY_FINALIZER.to_owned()));
            let known = self.written.remove(&pass.object.key).filter(|known| known.revision == pass.object.revision);
            let (draft, next) = status_written(&pass.object, pass.application, &pass.status, &finalizers, known)?;
            pass.txn.update(draft, pass.object.revision);
            written = Some(next);
        } else if !pass.txn.is_empty() {
            // Whatever is written is written for the Application as it was read.
            pass.txn.expect(pass.object.key.clone(), Some(pass.object.revision));
        }
        let key = &pass.object.key;
        if !pass.txn.is_empty() {
            let done = cx.store.commit(pass.txn)?;
            // What was just written need not be read again.
            if let Some((name, content)) = pass.opened {
                self.contents.insert((key.namespace.to_string(), name), Arc::new(content));
            }
            let object = done.objects.iter().find(|object| object.key == *key);
            if let (Some(object), Some(written)) = (object, written) {
                self.written.insert(key.clone(), Written { revision: object.revision, ..written });
            }
        }
        for (severity, reason, message) in pass.said {
            self.events.record(cx, &pass.object, severity, reason, &message);
        }
        Ok(pass.again)
    }

    /// The hosts as they are now: what has changed is read.
    fn hosts(&mut self, view: &View) -> Arc<HostsNow> {
        let shelf = view.shelf(kind_of::<Node>());
        let (known, hosts) = &mut self.hosts;
        if !known.same(&shelf) {
            *hosts = Arc::new(hosts.after(known.steps(&shelf)));
            *known = shelf;
        }
        hosts.clone()
    }

    /// Drops what is remembered of an Application.
    pub(super) fn forget(&mut self, key: &Key) {
        self.obstacles.remove(key);
        self.settled.remove(key);
        self.unasked.remove(key);
        self.noted.remove(key);
        self.written.remove(key);
        self.fights.retain(|(application, _), _| application != key);
        let (namespace, prefix) = (&*key.namespace, format!("{}-", key.name));
        self.contents.retain(|(ns, release), _| ns != namespace || !release.starts_with(&prefix));
    }

    /// A release's objects, decoded once.
    pub(super) fn content(&mut self, view: &View, application: &Key, release: &str) -> Result<Arc<Content>, Trouble> {
        let id = (application.namespace.to_string(), release.to_owned());
        if let Some(known) = self.contents.get(&id) {
            return Ok(known.clone());
        }
        let content = Arc::new(record::read(view, application, release)?);
        self.contents.insert(id, content.clone());
        Ok(content)
    }

    /// What the last good release consists of, if there is one and its record is there.
    pub(super) fn last_good(&mut self, pass: &Pass<'_>) -> Result<Option<Arc<Content>>, Trouble> {
        let (application, good) = (&pass.object.key, &pass.status.last_good);
        match record::release(&pass.view, application, good) {
            Some(_) => self.content(&pass.view, application, good).map(Some),
            None => Ok(None),
        }
    }

    /// Whether another Application holds on to an object: it manages it and its newest known commit still wants it.
    pub(super) fn claims(&self, view: &View, other: &str, object: &Key) -> bool {
        let Some((namespace, name)) = other.split_once('/') else { return false };
        let key = Key::of::<Application>(namespace, name);
        let Some(application) = facts::application(view, &key) else { return false };
        let status = application.status.clone().unwrap_or_default();
        if !status.inventory.has(object) {
            return false;
        }
        match self.charts.seen(&key).as_deref().map(|seen| &seen.outcome) {
            Some(Ok(Chart { rendered: Ok(rendered), .. })) => wants(rendered, object),
            _ => true,
        }
    }

    /// Which other Application's newest commit wants an object.
    pub(super) fn heir(&self, view: &View, except: &Key, object: &Key) -> Option<String> {
        view.list(crate::object::kind_of::<Application>()).filter(|a| a.key != *except && !a.meta.deleting()).find_map(|a| {
            let seen = self.charts.seen(&a.key)?;
            let Ok(Chart { rendered: Ok(rendered), .. }) = &seen.outcome else { return None };
            let wants = wants(rendered, object);
            wants.then(|| format!("{}/{}", a.key.namespace, a.key.name))
        })
    }
}

/// An Application as this loop wrote it last: reading a large inventory again would cost more than a look.
#[derive(Debug)]
pub(super) struct Written {
    /// The version.
    pub(super) revision: Revision,
    /// As it would be read.
    pub(super) application: Arc<Application>,
    /// All of it but the status, as a tree.
    rest: Value,
    /// The inventory as JSON.
    inventory: Vec<u8>,
}

/// A new version of an Application with this status. Its inventory, nearly all of it, does not go through a tree, and is written anew only
/// when it is another: with ten thousand objects that would be most of the work of a look.
fn status_written(
    object: &Object,
    application: &Application,
    status: &ApplicationStatus,
    finalizers: &[String],
    known: Option<Written>,
) -> Result<(Draft, Written), Trouble> {
    let broken = |error: serde_json::Error| Trouble::Bad(format!("write the status of {}: {error}", object.key));
    let same = known.as_ref().is_some_and(|w| w.application.status.as_ref().is_some_and(|s| s.inventory == status.inventory));
    let (rest, inventory) = known.map_or_else(|| (None, None), |known| (Some(known.rest), Some(known.inventory)));
    let inventory = match inventory.filter(|_| same) {
        Some(json) => json,
        None => serde_json::to_vec(&status.inventory).map_err(broken)?,
    };
    let small = serde_json::to_value(ApplicationStatus { inventory: Inventory::default(), ..status.clone() }).map_err(broken)?;
    let mut json = Vec::with_capacity(inventory.len() + 4096);
    json.push(b'{');
    let mut fields: BTreeMap<&str, Option<&Value>> =
        small.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), Some(value))).collect();
    if !status.inventory.is_empty() {
        fields.insert("inventory", None);
    }
    for (n, (name, value)) in fields.into_iter().enumerate() {
        if n > 0 {
            json.push(b',');
        }
        serde_json::to_writer(&mut json, name).map_err(broken)?;
        json.push(b':');
        match value {
            Some(value) => serde_json::to_writer(&mut json, value).map_err(broken)?,
            None => json.extend_from_slice(&inventory),
        }
    }
    json.push(b'}');
    let mut rest = rest.unwrap_or_else(|| object.value_without("status"));
    if !finalizers.is_empty() {
        rest["metadata"]["finalizers"] = finalizers.into();
    }
    let draft = Draft::with(object.key.kind, rest.clone(), "status", &json);
    let mut read: ApplicationStatus = serde_json::from_value(small).map_err(broken)?;
    read.inventory = status.inventory.clone();
    let application = Arc::new(Application { status: Some(read), ..application.clone() });
    Ok((draft, Written { revision: 0, application, rest, inventory }))
}

/// What follows, in owned form.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    Nothing,
    Suspended,
    Stuck,
    Follow(String, Purpose),
    Open,
}

/// Whether a commit has an object. Its objects are in the order of their keys.
fn wants(rendered: &Rendered, object: &Key) -> bool {
    rendered.objects.binary_search_by(|o| o.key.cmp(object)).is_ok()
}

/// The first twelve characters of a commit: enough for people.
pub(super) fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// `Synced` and `Healthy`, as Kubernetes' tools wait for them.
fn conditions(status: &mut ApplicationStatus, generation: i64, now: Timestamp) {
    let healthy = status.phase == Phase::Healthy && (status.health.is_empty() || status.health == State::Healthy.word());
    let wanted = [
        ("Synced", status.sync == Sync::Synced, format!("{:?}", status.sync)),
        ("Healthy", healthy, format!("{:?}", status.phase)),
    ];
    let conditions = wanted.map(|(kind, yes, reason)| {
        let word = if yes { "True" } else { "False" };
        let before = status.conditions.iter().find(|c| c.type_ == kind);
        Condition {
            type_: kind.to_owned(),
            status: word.to_owned(),
            reason,
            message: status.message.clone(),
            observed_generation: Some(generation),
            last_transition_time: before.filter(|c| c.status == word).map_or(Time(now), |c| c.last_transition_time.clone()),
        }
    });
    status.conditions = conditions.into();
}
