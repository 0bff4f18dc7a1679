//! What people do to the repository: good changes, bad ones, mistakes, reverts, rewinds.
//!
//! The author knows what a change is worth, because its images say what their containers will do. So the auditor can tell a release
//! that was condemned rightly from one that was not.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::dice::Dice;
use crate::object::source::{Entry, Tree};

/// What a tree is worth, by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// It will run.
    Good,
    /// It is well written and will not run.
    Bad,
    /// It cannot be read.
    Invalid,
    /// It says nothing at all.
    Empty,
}

/// What the files say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Content {
    workloads: BTreeMap<String, Workload>,
    settings: BTreeMap<String, u64>,
    /// A mistake in one of the files.
    typo: bool,
    /// Only a comment: changes the commit, not what it means.
    remark: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Workload {
    replicas: u32,
    image: String,
    surge: Value,
    unavailable: Value,
    recreate: bool,
    /// The version of its settings that the pods were made from.
    settings: u64,
    /// What the settings make the container do beside.
    behaviour: String,
    millis: u32,
    min_ready: u32,
    grace: u32,
    probe: bool,
}

/// One commit.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub(super) id: String,
    pub(super) subject: String,
    pub(super) content: Content,
    pub(super) worth: Worth,
}

impl Commit {
    /// The files of the second Application. They always run, and change with every third commit.
    pub(super) fn annex(&self) -> Tree {
        let version = u64::from_str_radix(&self.id, 16).unwrap_or(0) / 3;
        let workload = Workload {
            replicas: 2,
            image: format!("sim/web:annex-{version:x}"),
            surge: json!(1),
            unavailable: json!(0),
            recreate: false,
            settings: 1,
            behaviour: String::new(),
            millis: 100,
            min_ready: 0,
            grace: 5,
            probe: false,
        };
        let mut deployment = workload.manifest("annex");
        deployment["metadata"]["namespace"] = "default".into();
        deployment["spec"]["template"]["spec"]["containers"][0]["env"] = json!([]);
        let text = format!("{deployment}\n");
        let blob = format!("{:x}", xxhash_rust::xxh3::xxh3_128(text.as_bytes()));
        let entries = [("annex/deployment.yaml".to_owned(), Entry::File { content: text.into(), blob })].into();
        Tree { commit: self.id.clone(), entries }
    }
}

/// The repository's history, and who writes it.
#[derive(Clone, Debug)]
pub(super) struct Author {
    pub(super) commits: Vec<Commit>,
    /// Which commit the branch names.
    pub(super) head: usize,
    version: u64,
    dice: Dice,
}

impl Author {
    pub(super) fn new(mut dice: Dice) -> Self {
        let mut content = Content { workloads: BTreeMap::new(), settings: BTreeMap::new(), typo: false, remark: 0 };
        for name in ["web", "shop", "mail"].iter().take(1 + dice.below(3)) {
            content.workloads.insert((*name).to_owned(), workload(&mut dice));
            content.settings.insert((*name).to_owned(), 1);
        }
        let mut author = Author { commits: Vec::new(), head: 0, version: 1, dice };
        author.commit("Begin", content);
        author
    }

    pub(super) fn head(&self) -> &Commit {
        &self.commits[self.head]
    }

    pub(super) fn find(&self, id: &str) -> Option<&Commit> {
        self.commits.iter().find(|c| c.id == id)
    }

    fn commit(&mut self, subject: &str, content: Content) {
        let id = format!("{:040x}", 0xc0de_0000 + self.commits.len() as u64);
        let worth = content.worth();
        self.commits.push(Commit { id, subject: subject.to_owned(), content, worth });
        self.head = self.commits.len() - 1;
    }

    /// One change, drawn.
    pub(super) fn change(&mut self) -> &'static str {
        let mut content = self.head().content.clone();
        // A tree that cannot be read or says nothing is usually mended first.
        if content.typo || content.workloads.is_empty() {
            content = self.last_good();
        }
        self.version += 1;
        let version = self.version;
        let names: Vec<String> = content.workloads.keys().cloned().collect();
        let Some(name) = (!names.is_empty()).then(|| self.dice.pick(&names).clone()) else { return "nothing" };
        let what = *self.dice.pick(&[
            "image",
            "image",
            "image",
            "settings",
            "settings",
            "scale",
            "bad image",
            "bad image",
            "bad image",
            "bad settings",
            "revert",
            "revert",
            "again",
            "rewind",
            "typo",
            "empty",
            "add",
            "remove",
            "shape",
        ]);
        let good = format!("sim/web:v{version}");
        let dice = &mut self.dice;
        let count = content.workloads.len();
        let free = ["web", "shop", "mail"].into_iter().find(|n| !content.workloads.contains_key(*n));
        let workload = content.workloads.get_mut(&name).expect("it was picked");
        match what {
            "image" => {
                workload.image = match dice.below(4) {
                    0 => format!("sim/slow:{}s-v{version}", 1 + dice.below(20)),
                    1 => format!("sim/lazy:{}s-v{version}", 1 + dice.below(8)),
                    _ => good,
                };
                if dice.chance(300) {
                    workload.behaviour.clear();
                }
            }
            "settings" => {
                *content.settings.get_mut(&name).expect("each has settings") = version;
                workload.settings = version;
            }
            "scale" => workload.replicas = 1 + dice.below(4) as u32,
            "bad image" => {
                let images = ["missing:v", "denied:v", "crash:1-2s-v", "unready:v", "norun:v", "oom:1s-v", "crash:1-1s-v"];
                workload.image = format!("sim/{}{version}", dice.pick(&images));
                if workload.image.contains("unready") {
                    workload.probe = true;
                }
            }
            "bad settings" => {
                *content.settings.get_mut(&name).expect("each has settings") = version;
                workload.settings = version;
                workload.behaviour = "crash=1-1s".to_owned();
            }
            "shape" => {
                (workload.surge, workload.unavailable) = shape(dice);
                workload.min_ready = dice.below(5) as u32;
                workload.grace = 1 + dice.below(20) as u32;
                workload.image = good;
            }
            "add" if free.is_some() => {
                let new = free.expect("it was asked");
                content.workloads.insert(new.to_owned(), self::workload(dice));
                content.settings.insert(new.to_owned(), version);
            }
            "remove" if count > 1 => {
                content.workloads.remove(&name);
                content.settings.remove(&name);
            }
            "typo" => {
                workload.image = good;
                content.typo = true;
            }
            "empty" => {
                content.workloads.clear();
                content.settings.clear();
            }
            "revert" => content = self.last_good(),
            "again" => content.remark = version,
            "rewind" => {
                self.head = self.dice.below(self.commits.len());
                return what;
            }
            _ => workload.image = good,
        }
        let subject = format!("{what} {name} {version}");
        self.commit(&subject, content);
        what
    }

    /// A change that will run, to end on.
    pub(super) fn mend(&mut self) {
        let mut content = self.last_good();
        self.version += 1;
        for workload in content.workloads.values_mut() {
            workload.image = format!("sim/web:v{}", self.version);
        }
        self.commit("Mend", content);
    }

    fn last_good(&self) -> Content {
        self.commits[..=self.head].iter().rev().find(|c| c.worth == Worth::Good).unwrap_or(&self.commits[0]).content.clone()
    }
}

fn shape(dice: &mut Dice) -> (Value, Value) {
    [(json!(1), json!(0)), (json!(0), json!(1)), (json!("25%"), json!("25%")), (json!(2), json!(1)), (json!("50%"), json!(0))]
        [dice.below(5)]
    .clone()
}

fn workload(dice: &mut Dice) -> Workload {
    let (surge, unavailable) = shape(dice);
    Workload {
        replicas: 1 + dice.below(4) as u32,
        image: "sim/web:v1".to_owned(),
        surge,
        unavailable,
        recreate: dice.chance(100),
        settings: 1,
        behaviour: String::new(),
        millis: *dice.pick(&[100, 250, 400]),
        min_ready: dice.below(4) as u32,
        grace: 1 + dice.below(10) as u32,
        probe: dice.chance(500),
    }
}

impl Content {
    /// Whether everything here that will not run is in another content, just the same.
    pub(super) fn no_worse_than(&self, other: &Content) -> bool {
        let known = |(name, workload): &(&String, &Workload)| other.workloads.get(*name) == Some(*workload);
        self.workloads.iter().filter(|(_, workload)| workload.bad()).all(|part| known(&part))
    }

    fn worth(&self) -> Worth {
        let bad = Workload::bad;
        match () {
            () if self.typo => Worth::Invalid,
            () if self.workloads.is_empty() => Worth::Empty,
            () if self.workloads.values().any(bad) => Worth::Bad,
            () => Worth::Good,
        }
    }

    /// The files at a commit.
    pub(super) fn tree(&self, commit: &str) -> Tree {
        let mut entries = BTreeMap::new();
        let mut file = |path: String, text: String| {
            let blob = format!("{:x}", xxhash_rust::xxh3::xxh3_128(text.as_bytes()));
            entries.insert(path, Entry::File { content: text.into(), blob });
        };
        if !self.workloads.is_empty() {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
            file("namespace.yaml".to_owned(), format!("# remark {}\n{namespace}\n", self.remark));
        } else {
            file("README.md".to_owned(), "Nothing here.\n".to_owned());
        }
        for (name, version) in &self.settings {
            let behaviour = self.workloads.get(name).map_or("", |w| &w.behaviour);
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("{name}-settings"), "namespace": "shop"},
                "data": {"version": version.to_string(), "sim": behaviour}});
            file(format!("{name}/settings.yaml"), format!("{map}\n"));
        }
        for (at, (name, workload)) in self.workloads.iter().enumerate() {
            let mut deployment = workload.manifest(name);
            if self.typo && at == 0 {
                deployment["spec"]["template"]["spec"]["containers"][0]["volumnMounts"] = json!([]);
            }
            file(format!("{name}/deployment.yaml"), format!("{deployment}\n"));
        }
        Tree { commit: commit.to_owned(), entries }
    }
}

impl Workload {
    fn bad(&self) -> bool {
        !self.behaviour.is_empty() || !["sim/web:", "sim/slow:", "sim/lazy:"].iter().any(|good| self.image.starts_with(good))
    }

    fn manifest(&self, name: &str) -> Value {
        let setting = |key: &str| json!({"configMapKeyRef": {"name": format!("{name}-settings"), "key": key}});
        let mut container = json!({
            "name": "main", "image": self.image,
            "resources": {"requests": {"cpu": format!("{}m", self.millis)}},
            "env": [{"name": "SIM", "valueFrom": setting("sim")}, {"name": "VERSION", "valueFrom": setting("version")}],
        });
        if self.probe {
            container["readinessProbe"] = json!({"exec": {"command": ["ready"]}, "periodSeconds": 2});
        }
        let strategy = if self.recreate {
            json!({"type": "Recreate"})
        } else {
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": self.surge, "maxUnavailable": self.unavailable}})
        };
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
            "spec": {
                "replicas": self.replicas, "minReadySeconds": self.min_ready, "strategy": strategy,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}, "annotations": {"settings": self.settings.to_string()}},
                    "spec": {"terminationGracePeriodSeconds": self.grace, "containers": [container]}
                }
            }
        })
    }
}
