//! What is known about one class of like pods: which nodes fit, how good they are, and what the pods there already make of it.
//!
//! Nodes whose labels are the same as far as the class's rules about other pods look at them are one *group*: what such rules say is
//! said of a whole group, and within it nodes are in the order of their own worth. So a decision is a look at the best node of the
//! best group; and a change costs the node that changed, and the groups of the domains in which a count changed.
//!
//! You will not find here: who has to go when there is no room (`preempt`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Strategy;
use super::cluster::{Cluster, Host};
use super::demand::{Demand, Inclusion};
use super::filter::obstacles;
use super::preempt::Costs;
use super::score::{Score, Worth, worth};
use super::tally::Opinion;

/// Where the numbers of a rule come from.
#[derive(Debug)]
enum Source {
    /// Pods that the rule is about.
    Tally(usize),
    /// Pods that have an opinion about this class.
    Opinion(Arc<str>),
}

/// What a rule says.
#[derive(Debug)]
enum Says {
    Spread(Spreading),
    /// The pod must be where such pods are; or, while there are none at all (`first`), anywhere, if it is one of them itself.
    Near {
        itself: bool,
        first: bool,
    },
    /// The pod must not be where such pods are.
    Apart,
    /// Pods are there that keep such pods out.
    KeptOut,
    /// Each such pod makes a node so much better.
    Likes(i64),
}

#[derive(Debug)]
struct Spreading {
    hard: bool,
    max_skew: i64,
    min_domains: usize,
    /// Whether the pod itself counts.
    itself: bool,
    on: Option<Arc<Inclusion>>,
    /// How many domains there are with so many pods each. Only those that count.
    levels: BTreeMap<i64, usize>,
    domains: usize,
    fewest: i64,
}

impl Spreading {
    fn leave(&mut self, count: i64) {
        self.domains -= 1;
        if let Some(domains) = self.levels.get_mut(&count) {
            *domains -= 1;
            if *domains == 0 {
                self.levels.remove(&count);
            }
        }
    }
    fn enter(&mut self, count: i64) {
        self.domains += 1;
        *self.levels.entry(count).or_default() += 1;
    }
    fn least(&self) -> i64 {
        if self.domains < self.min_domains { 0 } else { self.levels.first_key_value().map_or(0, |(count, _)| *count) }
    }
}

#[derive(Debug)]
struct Rule {
    says: Says,
    source: Source,
    /// Which of the class's topologies.
    topology: usize,
}

impl Rule {
    fn count(&self, cluster: &Cluster, domain: &str) -> i64 {
        match &self.source {
            Source::Tally(slot) => cluster.tallies.in_domain(*slot, domain),
            Source::Opinion(id) => cluster.tallies.holding(id, domain),
        }
    }
}

/// A value of a node label.
#[derive(Debug)]
struct Domain {
    name: String,
    topology: usize,
    /// The groups with nodes in it.
    groups: Vec<usize>,
    /// What each rule of this topology counts here, as last seen.
    counts: BTreeMap<usize, i64>,
    /// How many nodes count for each spreading rule.
    eligible: BTreeMap<usize, usize>,
}

/// Worth, and name: the best last, and among equals the first name.
type Rank<W> = (W, Reverse<Arc<str>>);

/// Nodes of which rules about other pods say the same.
#[derive(Debug, Default)]
struct Group {
    /// For each topology, which domain; `None` for nodes without the label.
    domains: Vec<Option<usize>>,
    ranked: BTreeSet<Rank<Worth>>,
    /// How much the pods around are liked, and how uneven things would be; or what is against it.
    standing: Option<Result<(i64, i64), &'static str>>,
    /// What stands for it among the groups.
    top: Option<Rank<Score>>,
}

/// What is known of a node. There is one for each node in each class, so it has no room to spare.
#[derive(Debug)]
struct Look {
    name: Arc<str>,
    group: usize,
    /// For which spreading rules it counts.
    eligible: Box<[usize]>,
    fits: Result<Worth, Box<[Arc<str>]>>,
}

/// A class of like pods.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) demand: Demand,
    rules: Vec<Rule>,
    topologies: Vec<String>,
    opinions: Vec<Opinion>,
    /// How far the cluster's log has been read, and which counts were seen.
    read: usize,
    epoch: u64,
    version: u64,
    looks: Vec<Option<Look>>,
    /// Why nodes do not fit, and how many.
    reasons: BTreeMap<Arc<str>, usize>,
    domains: Vec<Domain>,
    domain_ids: BTreeMap<(usize, String), usize>,
    groups: Vec<Group>,
    group_ids: BTreeMap<Vec<Option<usize>>, usize>,
    /// The best node of each group that nothing is against.
    ranked: BTreeSet<(Rank<Score>, usize)>,
    /// What it would cost to make room.
    pub(super) costs: Option<Costs>,
    pub(super) used: u64,
}

impl Class {
    pub(super) fn new(demand: Demand) -> Class {
        Class {
            demand,
            rules: Vec::new(),
            topologies: Vec::new(),
            opinions: Vec::new(),
            read: usize::MAX,
            epoch: 0,
            version: 0,
            looks: Vec::new(),
            reasons: BTreeMap::new(),
            domains: Vec::new(),
            domain_ids: BTreeMap::new(),
            groups: Vec::new(),
            group_ids: BTreeMap::new(),
            ranked: BTreeSet::new(),
            costs: None,
            used: 0,
        }
    }

    /// Gives back what is counted for it.
    pub(super) fn end(&mut self, cluster: &mut Cluster) {
        for rule in self.rules.drain(..) {
            if let Source::Tally(slot) = rule.source {
                cluster.tallies.release(slot);
            }
        }
        self.read = usize::MAX;
    }

    /// Whether other pods have no say.
    pub(super) fn is_quiet(&self) -> bool {
        self.rules.is_empty()
    }

    /// Learns what changed.
    pub(super) fn catch_up(&mut self, cluster: &mut Cluster, strategy: Strategy) {
        let mut anew = self.read == usize::MAX || self.epoch != cluster.epoch;
        if !anew && self.version != cluster.tallies.version {
            self.version = cluster.tallies.version;
            let opinions = cluster.tallies.opinions_about(&self.demand, cluster.namespace(&self.demand.namespace));
            anew = !opinions.iter().map(|o| &o.id).eq(self.opinions.iter().map(|o| &o.id));
        }
        // Groups and domains of nodes that have gone are not taken away one by one.
        anew |= self.groups.len() > 2 * cluster.hosts.len() + 64;
        let news = if anew { None } else { cluster.since(self.read) };
        let Some(news) = news else { return self.begin(cluster, strategy) };
        self.read = cluster.position();
        let mut dirty = BTreeSet::new();
        for id in news {
            self.forget(id, &mut dirty);
            let host = &cluster.hosts[id];
            if host.known {
                for topology in 0..self.topologies.len() {
                    if let Some(domain) = self.domain(cluster, host, topology) {
                        self.recount(cluster, domain, &mut dirty);
                    }
                }
                if let Some((group, rank)) = self.look(cluster, id, strategy, &mut dirty) {
                    self.groups[group].ranked.insert(rank);
                }
                cluster.evaluations += 1;
            }
        }
        self.settle(cluster, dirty);
    }

    /// Looks at everything anew.
    fn begin(&mut self, cluster: &mut Cluster, strategy: Strategy) {
        let before = std::mem::take(&mut self.rules);
        self.state_rules(cluster);
        for rule in before {
            if let Source::Tally(slot) = rule.source {
                cluster.tallies.release(slot);
            }
        }
        (self.reasons, self.domain_ids, self.group_ids, self.ranked) = Default::default();
        (self.looks, self.domains, self.groups) = Default::default();
        (self.read, self.epoch, self.version) = (cluster.position(), cluster.epoch, cluster.tallies.version);
        self.looks.reserve_exact(cluster.hosts.len());
        let mut ranks: Vec<(usize, Rank<Worth>)> = Vec::new();
        for id in 0..cluster.hosts.len() {
            if cluster.hosts[id].known {
                ranks.extend(self.look(cluster, id, strategy, &mut BTreeSet::new()));
                cluster.evaluations += 1;
            }
        }
        // A set that is made of what is in order at once takes half the room of one that it is put into.
        ranks.sort_unstable();
        let mut ranks = ranks.into_iter().peekable();
        while let Some(group) = ranks.peek().map(|(group, _)| *group) {
            self.groups[group].ranked =
                std::iter::from_fn(|| ranks.next_if(|(of, _)| *of == group)).map(|(_, rank)| rank).collect();
        }
        self.settle(cluster, (0..self.groups.len()).collect());
    }

    /// The rules in the order in which they are named as obstacles.
    fn state_rules(&mut self, cluster: &mut Cluster) {
        let (namespace, labels) = (&self.demand.namespace, &self.demand.labels);
        self.topologies.clear();
        let topologies = &mut self.topologies;
        let mut topology = |key: &str| {
            topologies.iter().position(|t| t == key).unwrap_or_else(|| {
                topologies.push(key.to_owned());
                topologies.len() - 1
            })
        };
        let mut rules = Vec::new();
        for spread in &self.demand.spread {
            let spreading = Spreading {
                hard: spread.hard,
                max_skew: spread.max_skew,
                min_domains: spread.min_domains,
                itself: spread.term.about(namespace, cluster.namespace(namespace), labels),
                on: spread.term.on.clone(),
                levels: BTreeMap::new(),
                domains: 0,
                fewest: 0,
            };
            let source = Source::Tally(cluster.count(&spread.term));
            rules.push(Rule { says: Says::Spread(spreading), source, topology: topology(&spread.term.topology) });
        }
        for term in &self.demand.near {
            let itself = term.about(namespace, cluster.namespace(namespace), labels);
            let source = Source::Tally(cluster.count(term));
            rules.push(Rule { says: Says::Near { itself, first: false }, source, topology: topology(&term.topology) });
        }
        for term in &self.demand.apart {
            let source = Source::Tally(cluster.count(term));
            rules.push(Rule { says: Says::Apart, source, topology: topology(&term.topology) });
        }
        for (weight, term) in &self.demand.near_preferred {
            let source = Source::Tally(cluster.count(term));
            rules.push(Rule { says: Says::Likes(*weight), source, topology: topology(&term.topology) });
        }
        self.opinions = cluster.tallies.opinions_about(&self.demand, cluster.namespace(namespace));
        for opinion in &self.opinions {
            let says = opinion.weight.map_or(Says::KeptOut, Says::Likes);
            let source = Source::Opinion(opinion.id.clone());
            rules.push(Rule { says, source, topology: topology(&opinion.term.topology) });
        }
        self.rules = rules;
    }

    /// The domain of a node, if it has that label.
    fn domain(&mut self, cluster: &Cluster, host: &Host, topology: usize) -> Option<usize> {
        let name = host.facts.labels.get(&self.topologies[topology])?;
        let key = (topology, name.clone());
        if let Some(domain) = self.domain_ids.get(&key) {
            return Some(*domain);
        }
        let of_topology = self.rules.iter().enumerate().filter(|(_, rule)| rule.topology == topology);
        let counts = of_topology.map(|(number, rule)| (number, rule.count(cluster, name))).collect();
        self.domains.push(Domain { name: name.clone(), topology, groups: Vec::new(), counts, eligible: BTreeMap::new() });
        self.domain_ids.insert(key, self.domains.len() - 1);
        Some(self.domains.len() - 1)
    }

    /// Looks at the counts of a domain again.
    fn recount(&mut self, cluster: &Cluster, domain: usize, dirty: &mut BTreeSet<usize>) {
        let domain = &mut self.domains[domain];
        let mut changed = false;
        for (number, count) in &mut domain.counts {
            let rule = &mut self.rules[*number];
            let now = rule.count(cluster, &domain.name);
            if now == *count {
                continue;
            }
            changed = true;
            if let Says::Spread(spread) = &mut rule.says
                && domain.eligible.get(number).is_some_and(|nodes| *nodes > 0)
            {
                spread.leave(*count);
                spread.enter(now);
            }
            *count = now;
        }
        if changed {
            dirty.extend(domain.groups.iter().copied());
        }
    }

    /// Forgets what was known of a node.
    fn forget(&mut self, id: usize, dirty: &mut BTreeSet<usize>) {
        let Some(look) = self.looks.get_mut(id).and_then(Option::take) else { return };
        let group = &mut self.groups[look.group];
        for number in look.eligible {
            let Some(domain) = group.domains[self.rules[number].topology] else { continue };
            let domain = &mut self.domains[domain];
            let nodes = domain.eligible.entry(number).or_default();
            *nodes = nodes.saturating_sub(1);
            if *nodes == 0
                && let Says::Spread(spread) = &mut self.rules[number].says
            {
                spread.leave(domain.counts.get(&number).copied().unwrap_or(0));
            }
        }
        match look.fits {
            Ok(worth) => {
                group.ranked.remove(&(worth, Reverse(look.name)));
                dirty.insert(look.group);
            }
            Err(reasons) => {
                for reason in reasons {
                    if let Some(count) = self.reasons.get_mut(&reason) {
                        *count -= 1;
                        if *count == 0 {
                            self.reasons.remove(&reason);
                        }
                    }
                }
            }
        }
    }

    /// Looks at a node. If it fits: into which group it belongs, and where.
    fn look(
        &mut self,
        cluster: &Cluster,
        id: usize,
        strategy: Strategy,
        dirty: &mut BTreeSet<usize>,
    ) -> Option<(usize, Rank<Worth>)> {
        let host = &cluster.hosts[id];
        let domains: Vec<Option<usize>> = (0..self.topologies.len()).map(|t| self.domain(cluster, host, t)).collect();
        let group = match self.group_ids.get(&domains) {
            Some(group) => *group,
            None => {
                let group = self.groups.len();
                for domain in domains.iter().flatten() {
                    self.domains[*domain].groups.push(group);
                }
                self.groups.push(Group { domains: domains.clone(), ..Group::default() });
                self.group_ids.insert(domains.clone(), group);
                dirty.insert(group);
                group
            }
        };
        let mut eligible = Vec::new();
        for (number, rule) in self.rules.iter_mut().enumerate() {
            let Says::Spread(spread) = &mut rule.says else { break };
            let Some(domain) = domains[rule.topology] else { continue };
            if spread.on.as_ref().is_some_and(|on| !on.admits(&host.name, &host.facts)) {
                continue;
            }
            eligible.push(number);
            let domain = &mut self.domains[domain];
            let nodes = domain.eligible.entry(number).or_default();
            *nodes += 1;
            if *nodes == 1 {
                spread.enter(domain.counts.get(&number).copied().unwrap_or(0));
            }
        }
        let obstacles = obstacles(&self.demand, host);
        let fits = if obstacles.is_empty() {
            dirty.insert(group);
            Ok(worth(&self.demand, &host.name, host, strategy))
        } else {
            let mut note = |reason: String| {
                let reason: Arc<str> = match self.reasons.get_key_value(reason.as_str()) {
                    Some((known, _)) => known.clone(),
                    None => reason.into(),
                };
                *self.reasons.entry(reason.clone()).or_default() += 1;
                reason
            };
            Err(obstacles.into_iter().map(&mut note).collect())
        };
        if self.looks.len() <= id {
            self.looks.resize_with(id + 1, || None);
        }
        let place = fits.as_ref().ok().map(|worth| (group, (*worth, Reverse(host.name.clone()))));
        self.looks[id] = Some(Look { name: host.name.clone(), group, eligible: eligible.into(), fits });
        place
    }

    /// Says of each group that changed what its rules make of it now.
    fn settle(&mut self, cluster: &Cluster, mut dirty: BTreeSet<usize>) {
        let mut all = false;
        for rule in &mut self.rules {
            match (&mut rule.says, &rule.source) {
                (Says::Spread(spread), _) => {
                    let fewest = spread.least();
                    all |= spread.hard && fewest != spread.fewest;
                    spread.fewest = fewest;
                }
                (Says::Near { itself: true, first }, Source::Tally(slot)) => {
                    let now = cluster.tallies.nowhere(*slot);
                    all |= now != *first;
                    *first = now;
                }
                _ => {}
            }
        }
        if all {
            dirty = (0..self.groups.len()).collect();
        }
        for number in dirty {
            let standing = self.standing(number);
            let group = &mut self.groups[number];
            let top = match (standing, group.ranked.last()) {
                (Ok((liking, uneven)), Some((worth, name))) => Some((worth.among(liking, uneven), name.clone())),
                _ => None,
            };
            group.standing = Some(standing);
            if group.top != top {
                if let Some(old) = std::mem::replace(&mut group.top, top.clone()) {
                    self.ranked.remove(&(old, number));
                }
                if let Some(top) = top {
                    self.ranked.insert((top, number));
                }
            }
        }
    }

    /// What the rules about other pods say of a group, by the counts that were seen last.
    fn standing(&self, group: usize) -> Result<(i64, i64), &'static str> {
        let domains = &self.groups[group].domains;
        self.judge(
            |number, rule| {
                let domain = &self.domains[domains[rule.topology]?];
                Some(domain.counts.get(&number).copied().unwrap_or(0))
            },
            |spread, _| spread.fewest,
            |_, first| first,
        )
    }

    /// What the rules say of a node by the counts as they are at this moment, which need not be those that were seen last.
    pub(super) fn objection(&self, cluster: &Cluster, host: &Host) -> Option<&'static str> {
        let count = |_: usize, rule: &Rule| {
            host.facts.labels.get(&self.topologies[rule.topology]).map(|domain| rule.count(cluster, domain))
        };
        let fewest = |spread: &Spreading, number: usize| {
            let counts =
                |d: &&Domain| d.topology == self.rules[number].topology && d.eligible.get(&number).is_some_and(|n| *n > 0);
            let least = self.domains.iter().filter(counts).map(|d| self.rules[number].count(cluster, &d.name)).min();
            if spread.domains < spread.min_domains { 0 } else { least.unwrap_or(0) }
        };
        let first = |rule: &Rule, _| match &rule.source {
            Source::Tally(slot) => cluster.tallies.nowhere(*slot),
            Source::Opinion(_) => false,
        };
        self.judge(count, fewest, first).err()
    }

    fn judge(
        &self,
        count: impl Fn(usize, &Rule) -> Option<i64>,
        fewest: impl Fn(&Spreading, usize) -> i64,
        nobody: impl Fn(&Rule, bool) -> bool,
    ) -> Result<(i64, i64), &'static str> {
        let (mut liking, mut uneven) = (0_i64, 0_i64);
        for (number, rule) in self.rules.iter().enumerate() {
            let here = count(number, rule);
            match (&rule.says, here) {
                (Says::Spread(spread), None) if spread.hard => {
                    return Err("node(s) didn't match pod topology spread constraints (missing required label)");
                }
                (Says::Spread(spread), Some(here)) if spread.hard => {
                    if here + i64::from(spread.itself) - fewest(spread, number) > spread.max_skew {
                        return Err("node(s) didn't match pod topology spread constraints");
                    }
                }
                (Says::Spread(_), here) => uneven += here.unwrap_or(i64::from(i32::MAX)),
                (Says::Near { itself, first }, here) => {
                    if !here.is_some_and(|here| here > 0 || (*itself && nobody(rule, *first))) {
                        return Err("node(s) didn't match pod affinity rules");
                    }
                }
                (Says::Apart, Some(1..)) => return Err("node(s) didn't match pod anti-affinity rules"),
                (Says::KeptOut, Some(1..)) => return Err("node(s) didn't satisfy existing pods anti-affinity rules"),
                (Says::Likes(weight), Some(here)) => liking += weight * here,
                (Says::Apart | Says::KeptOut | Says::Likes(_), _) => {}
            }
        }
        Ok((liking, uneven))
    }

    /// The best node.
    pub(super) fn best(&self) -> Option<Arc<str>> {
        self.ranked.last().map(|((_, name), _)| name.0.clone())
    }

    /// All nodes that are as good as the best, by name.
    pub(super) fn equals(&self) -> Vec<Arc<str>> {
        let Some(((best, _), _)) = self.ranked.last() else { return Vec::new() };
        let groups = self.ranked.iter().rev().take_while(|((worth, _), _)| worth == best);
        let mut names = Vec::new();
        for (_, group) in groups {
            let ranked = &self.groups[*group].ranked;
            let top = ranked.last().map(|(worth, _)| worth);
            names.extend(ranked.iter().rev().take_while(|(worth, _)| Some(worth) == top).map(|(_, name)| name.0.clone()));
        }
        names.sort_unstable();
        names
    }

    /// Whether a node fits, and nothing is against it.
    pub(super) fn fits(&self, id: usize) -> bool {
        let look = self.looks.get(id).and_then(Option::as_ref);
        look.is_some_and(|look| look.fits.is_ok() && matches!(self.groups[look.group].standing, Some(Ok(_))))
    }

    /// `0/3 nodes are available: 1 Insufficient memory, 2 node(s) had untolerated taint {…}.`
    pub(super) fn why_not(&self, cluster: &Cluster) -> String {
        let total = cluster.len();
        if total == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut reasons: BTreeMap<&str, usize> = self.reasons.iter().map(|(reason, count)| (&**reason, *count)).collect();
        for group in &self.groups {
            if let Some(Err(reason)) = group.standing
                && !group.ranked.is_empty()
            {
                *reasons.entry(reason).or_default() += group.ranked.len();
            }
        }
        let mut words: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        words.sort();
        format!("0/{total} nodes are available: {}.", words.join(", "))
    }
}
