//! ConfigMaps, Secrets and tokens of service accounts, as far as pods here refer to them.
//!
//! A container gets values that were read after its pod was first seen, so that a commit that changes configuration and workload
//! together starts the new with the new. Volumes follow later changes within a minute; environments never change while a container runs,
//! and are made anew for each attempt: what made the last one fail may have been put right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Pod;

use super::{Answer, Ask, Call, ConfigRef, Heart, ServerError, Slot, TokenRef, VolumeWork, Work};
use crate::plan::pod::env::{self, Sources, Values};
use crate::plan::pod::memory;
use crate::plan::pod::volume::TokenWish;
use crate::plan::pod::{spec, volume};

/// How often what volumes show is read anew, in seconds. Kubernetes takes about as long.
const REFRESH: i64 = 60;
/// The ConfigMap with the certificate of the authority, which pods are given with their tokens.
const CERTIFICATE: &str = "kube-root-ca.crt";
/// How long an absent ConfigMap is believed to be absent, in seconds.
const ABSENT: i64 = 2;

pub(super) struct Configs {
    known: BTreeMap<ConfigRef, Known>,
    refresh_at: Timestamp,
}

#[derive(Default)]
struct Known {
    /// When the answer was asked for.
    at: Option<Timestamp>,
    values: Option<Arc<Values>>,
    /// When the request that is under way was made.
    asking: Option<Timestamp>,
    /// When the newest request was made to which the server gave no answer.
    unanswered: Option<Timestamp>,
}

impl Known {
    /// Whether the newest request was not answered.
    fn is_away(&self) -> bool {
        self.unanswered.is_some() && self.unanswered > self.at
    }
}

impl Configs {
    pub(super) fn new(now: Timestamp) -> Configs {
        Configs { known: BTreeMap::new(), refresh_at: now.checked_add(SignedDuration::from_secs(REFRESH)).unwrap_or(now) }
    }
    /// Whether a token has lived for most of its time (80 %, as Kubernetes has it, and a day at most), so that nobody is left with an old
    /// one while the server is away for a moment.
    fn is_old(&self, token: &ConfigRef, now: Timestamp) -> bool {
        let seconds = token.token.as_ref().map_or(0, |t| t.wish.seconds);
        let old = SignedDuration::from_secs((seconds / 5 * 4).min(24 * 3600));
        let at = self.known.get(token).filter(|known| known.values.is_some()).and_then(|known| known.at);
        at.is_none_or(|at| now.duration_since(at) >= old)
    }
    pub(super) fn due(&self) -> Option<Timestamp> {
        (!self.known.is_empty()).then_some(self.refresh_at)
    }
}

impl Heart {
    /// Since when this attempt of a container is tried: its configuration is read anew for each attempt, and for each try after one that
    /// lacked something. `None`: what was read since the pod was first seen will do.
    pub(super) fn making(&mut self, uid: &str, container: &str, attempt: u32) -> Option<Timestamp> {
        let now = self.now;
        let making = &mut self.pods.get_mut(uid)?.making;
        match making.get_mut(container) {
            Some((known, since)) if *known == attempt => Some(*since.get_or_insert(now)),
            _ if attempt == 0 => None,
            _ => {
                making.insert(container.to_owned(), (attempt, Some(now)));
                Some(now)
            }
        }
    }

    fn config_refs(&self, uid: &str) -> Vec<ConfigRef> {
        let Some(entry) = self.pods.get(uid) else { return Vec::new() };
        let namespace = spec::namespace(&entry.pod);
        let named = env::references(&entry.pod).into_iter();
        let named = named.map(|(secret, name)| ConfigRef { secret, namespace: namespace.to_owned(), name, token: None });
        named.chain(token_refs(&entry.pod)).collect()
    }

    /// Whether everything that a pod refers to has been read, and not before `anew` where that matters. What has not is asked for. A
    /// token of before is as good as a new one.
    pub(super) fn configs_ready(&mut self, uid: &str, anew: Option<Timestamp>) -> bool {
        let Some(entry) = self.pods.get(uid) else { return false };
        let (first, given) = (entry.since, volume::given_tokens(&entry.pod));
        let mut ready = true;
        for config in self.config_refs(uid) {
            let since = if config.token.is_none() { anew.map_or(first, |at| at.max(first)) } else { first };
            let known = self.configs.known.entry(config.clone()).or_default();
            let fresh = match (known.at, &known.values) {
                // The certificate of the authority hardly ever changes, and every pod has it: it is read anew with the other volumes.
                (Some(at), Some(_)) => at >= since || (config.token.is_none() && is_given(&config, &given)),
                (Some(at), None) => self.now.duration_since(at) < SignedDuration::from_secs(ABSENT),
                (None, _) => false,
            };
            // While the server is away, what was read before has to do, and what nobody asked for comes later. That it was away once
            // says nothing: it has to be asked first.
            let away = known.unanswered.is_some_and(|at| at >= since);
            let good_enough = fresh || (away && (known.values.is_some() || is_given(&config, &given)));
            ready &= good_enough;
            if !fresh && known.asking.is_none() {
                known.asking = Some(self.now);
                self.act(Work::Server(Call::GetConfig(config.clone())), Ask::Config(config));
            }
        }
        ready
    }

    pub(super) fn config_read(&mut self, config: ConfigRef, result: Result<Answer, ServerError>) {
        let Some(known) = self.configs.known.get_mut(&config) else { return };
        let asked = known.asking.take().unwrap_or(self.now);
        let (mut changed, mut answered) = (false, true);
        match result {
            Ok(Answer::Config(values)) => {
                let values = Arc::new(plain(&values));
                changed = known.values.as_ref() != Some(&values);
                known.values = Some(values);
                known.at = Some(asked);
            }
            Err(ServerError::NotFound) => {
                // Volumes keep what they have: a ConfigMap that went away does not take its files along.
                known.values = None;
                known.at = Some(asked);
            }
            _ => {
                known.unanswered = Some(asked);
                answered = false;
            }
        }
        let users: Vec<String> = self.pods.keys().filter(|uid| self.config_refs(uid).contains(&config)).cloned().collect();
        for uid in users {
            if !answered {
                self.wake_at(&uid, self.now.checked_add(SignedDuration::from_secs(2)).unwrap_or(self.now));
            } else {
                self.dirty.insert(uid.clone());
            }
            if changed {
                self.rewrite_volumes(&uid);
            }
        }
    }

    /// Asks anew, now and then, for what volumes show; drops what nobody refers to any more.
    pub(super) fn refresh_configs(&mut self) {
        if self.configs.refresh_at > self.now {
            return;
        }
        self.configs.refresh_at = self.now.checked_add(SignedDuration::from_secs(REFRESH)).unwrap_or(self.now);
        let mut used = BTreeSet::new();
        let mut shown = BTreeSet::new();
        for (uid, entry) in &self.pods {
            used.extend(self.config_refs(uid));
            if entry.memory.phase.is_none() && entry.tombstone.is_none() {
                let namespace = spec::namespace(&entry.pod);
                let refs = volume::references(&entry.pod).into_iter();
                shown.extend(refs.map(|(secret, name)| ConfigRef { secret, namespace: namespace.to_owned(), name, token: None }));
                // A token is asked for anew when it is old, and otherwise stays the same.
                shown.extend(token_refs(&entry.pod).filter(|token| self.configs.is_old(token, self.now)));
            }
        }
        self.configs.known.retain(|config, known| used.contains(config) || known.asking.is_some());
        for config in shown {
            let known = self.configs.known.entry(config.clone()).or_default();
            if known.asking.is_none() {
                known.asking = Some(self.now);
                self.act(Work::Server(Call::GetConfig(config.clone())), Ask::Config(config));
            }
        }
    }

    /// Runs `f` with everything that a pod's containers can refer to.
    pub(super) fn with_sources<T>(&self, uid: &str, f: impl FnOnce(&Heart, &Sources<'_>) -> T) -> Option<T> {
        let entry = self.pods.get(uid)?;
        let namespace = spec::namespace(&entry.pod).to_owned();
        let find = |secret: bool, name: &str| -> Option<&Values> {
            let config = ConfigRef { secret, namespace: namespace.clone(), name: name.to_owned(), token: None };
            self.configs.known.get(&config)?.values.as_deref()
        };
        let token = |wish: &TokenWish| -> Option<&Values> {
            self.configs.known.get(&token_ref(&entry.pod, wish.clone()))?.values.as_deref()
        };
        let given = volume::given_tokens(&entry.pod);
        let missing = |config: &ConfigRef| self.configs.known.get(config).is_some_and(|k| k.is_away() && k.values.is_none());
        let away = self.config_refs(uid).iter().any(|config| is_given(config, &given) && missing(config));
        let address = self.address(uid);
        let sources = Sources {
            config_map: &|name| find(false, name),
            secret: &|name| find(true, name),
            token: &token,
            api: self.settings.api.as_ref().map(|(host, port)| (host.as_str(), port.as_str())),
            away,
            node: &self.settings.node,
            node_ip: &self.settings.node_ip,
            pod_ip: address.as_deref(),
            host: (self.settings.cpus, self.settings.memory),
        };
        Some(f(self, &sources))
    }

    /// Files whose values changed are written again; the containers see them without a restart.
    pub(super) fn rewrite_volumes(&mut self, uid: &str) {
        let Some(entry) = self.pods.get(uid) else { return };
        // One after the other: of two at a time the older could win, and one that is late would bring back what was removed.
        let busy = entry.busy.contains_key(&Slot::Volumes);
        if busy || entry.memory.volumes != memory::Work::Done || entry.tombstone.is_some() {
            return;
        }
        let pod = entry.pod.clone();
        let Some(Ok(volumes)) = self.with_sources(uid, |_, sources| volume::plan(&pod, sources)) else { return };
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if entry.volumes != volumes {
            entry.volumes = volumes.clone();
            let work = VolumeWork { uid: uid.to_owned(), volumes, group: spec::fs_group(&pod) };
            let ticket = self.act(Work::Volumes(Box::new(work)), Ask::Rewrite { uid: uid.to_owned() });
            self.occupy(uid, Slot::Volumes, ticket);
        }
    }
}

/// Whether this is among what a pod was given without asking.
fn is_given(config: &ConfigRef, given: &BTreeSet<TokenWish>) -> bool {
    match &config.token {
        Some(token) => given.contains(&token.wish),
        None => !given.is_empty() && !config.secret && config.name == CERTIFICATE,
    }
}

/// The tokens that a pod's volumes show.
fn token_refs(pod: &Pod) -> impl Iterator<Item = ConfigRef> + '_ {
    volume::tokens(pod).into_iter().map(|wish| token_ref(pod, wish))
}

fn token_ref(pod: &Pod, wish: TokenWish) -> ConfigRef {
    let account = spec::spec(pod).and_then(|s| s.service_account_name.as_deref()).filter(|name| !name.is_empty());
    let token =
        TokenRef { pod: pod.metadata.name.clone().unwrap_or_default(), uid: pod.metadata.uid.clone().unwrap_or_default(), wish };
    ConfigRef {
        secret: true,
        namespace: spec::namespace(pod).to_owned(),
        name: account.unwrap_or("default").to_owned(),
        token: Some(token),
    }
}

fn plain(values: &BTreeMap<String, ByteString>) -> Values {
    values.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect()
}
