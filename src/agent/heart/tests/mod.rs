//! The heart in a small world: a simulated engine, a server that is a map, a disk that is another. No threads, no real time.

mod config;
mod life;
mod lost;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use expect_test::{Expect, expect};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::docker::simulated::{End, Happened, Machine};

fn t0() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

struct World {
    now: Timestamp,
    machine: Machine,
    heart: Option<Heart>,
    disk: BTreeMap<String, Record>,
    /// The server: pods by uid, configuration by name.
    pods: BTreeMap<String, Value>,
    configs: BTreeMap<ConfigRef, BTreeMap<String, ByteString>>,
    revision: u64,
    server_away: bool,
    /// The answers to reports get lost; the watch goes on.
    loses_answers: bool,
    /// The engine's hints get lost.
    deaf: bool,
    /// Answers on their way to the heart.
    answers: Vec<(Timestamp, u64, Input)>,
    serial: u64,
    story: String,
    log: String,
    /// Crash after so many more actions.
    crash_in: Option<usize>,
    actions: usize,
    /// Ids whose probes fail.
    starts: BTreeMap<(String, String), Vec<Timestamp>>,
    dead: BTreeSet<String>,
    violations: Vec<String>,
}

fn settings() -> Settings {
    Settings {
        node: "a".into(),
        node_ip: "10.0.0.1".into(),
        api: None,
        cluster: "c1".into(),
        sandbox_image: "portolan/pause:1".into(),
        pods_dir: "/pods".into(),
        memory_dir: "/run".into(),
        relist_every: SignedDuration::from_secs(20),
        server_wait: SignedDuration::from_secs(30),
        cpus: 2,
        memory: 4 << 30,
        booted_at: None,
    }
}

impl World {
    fn new() -> World {
        let machine = Machine::small("a", 2, 4 << 30, t0());
        World {
            now: t0(),
            machine,
            heart: Some(Heart::new(settings(), Remembered::default(), t0())),
            disk: BTreeMap::new(),
            pods: BTreeMap::new(),
            configs: BTreeMap::new(),
            revision: 10,
            server_away: false,
            loses_answers: false,
            deaf: false,
            answers: Vec::new(),
            serial: 0,
            story: String::new(),
            log: String::new(),
            crash_in: None,
            actions: 0,
            starts: BTreeMap::new(),
            dead: BTreeSet::new(),
            violations: Vec::new(),
        }
    }
    /// With one pod, `p`, of which the agent has just heard.
    fn with(spec: Value) -> World {
        let mut world = World::new();
        world.list();
        world.pod("p", spec);
        world
    }
    fn pod(&mut self, uid: &str, spec: Value) {
        self.revision += 1;
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": uid, "namespace": "d", "uid": uid,
            "resourceVersion": self.revision.to_string()}, "spec": spec, "status": {"phase": "Pending"}});
        pod["spec"]["nodeName"] = "a".into();
        self.pods.insert(uid.to_owned(), pod);
        self.push_pod(uid);
    }
    fn push_pod(&mut self, uid: &str) {
        if !self.server_away {
            let pod: Pod = serde_json::from_value(self.pods[uid].clone()).unwrap();
            self.input(Input::Pod(Arc::new(pod)));
        }
    }
    fn delete(&mut self, uid: &str, grace: i64) {
        self.revision += 1;
        let revision = self.revision.to_string();
        let at = (self.now + SignedDuration::from_secs(grace)).to_string();
        let pod = self.pods.get_mut(uid).unwrap();
        pod["metadata"]["deletionTimestamp"] = at.into();
        pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        pod["metadata"]["resourceVersion"] = revision.into();
        if !self.server_away {
            self.dead.insert(uid.to_owned());
        }
        self.push_pod(uid);
    }
    fn list(&mut self) {
        let pods = self.pods.values().map(|p| Arc::new(serde_json::from_value(p.clone()).unwrap())).collect();
        self.dead
            .extend(self.pods.iter().filter(|(_, p)| p["metadata"]["deletionTimestamp"].is_string()).map(|(uid, _)| uid.clone()));
        self.input(Input::Pods(pods));
    }
    fn input(&mut self, input: Input) {
        let Some(heart) = &mut self.heart else { return };
        let actions = heart.step(input, self.now);
        self.carry_out(actions);
    }
    fn answer(&mut self, at: Timestamp, ticket: Ticket, reply: Reply) {
        self.serial += 1;
        self.answers.push((at, self.serial, Input::Done { ticket, reply }));
    }
    fn carry_out(&mut self, actions: Vec<Action>) {
        for Action { ticket, work, .. } in actions {
            if self.heart.is_none() {
                return; // crashed in the middle
            }
            self.actions += 1;
            assert!(self.actions < 20_000, "a hot loop:\n{}", self.story);
            let now = self.now;
            writeln!(
                self.log,
                "{} {}",
                now.duration_since(t0()).as_millis(),
                format!("{work:?}").chars().take(200).collect::<String>()
            )
            .unwrap();
            match work {
                Work::Engine(operation) => {
                    let reply = self.machine.apply(&operation, now);
                    self.watch();
                    if let Operation::Start { id } | Operation::Remove { id, .. } = operation {
                        // As Docker does it: the event comes before the answer.
                        self.serial += 1;
                        self.answers.push((reply.at, self.serial, Input::Hint { container: id }));
                    }
                    self.answer(reply.at, ticket, Reply::Engine(reply.result));
                }
                Work::SandboxImage => {
                    let operation = Operation::Pull { reference: settings().sandbox_image, auth: None };
                    let reply = self.machine.apply(&operation, now);
                    self.answer(reply.at, ticket, Reply::Engine(reply.result.map(|_| crate::docker::Outcome::Done)));
                }
                Work::Server(call) => {
                    let report = if let Call::PatchStatus { uid, .. } = &call { Some(uid.clone()) } else { None };
                    let result = self.server(call);
                    match report.filter(|_| self.loses_answers) {
                        None => self.answer(now + SignedDuration::from_millis(2), ticket, Reply::Server(result)),
                        Some(uid) => {
                            let pod: Pod = serde_json::from_value(self.pods[&uid].clone()).unwrap();
                            self.serial += 1;
                            self.answers.push((now + SignedDuration::from_millis(2), self.serial, Input::Pod(Arc::new(pod))));
                            let late = Err(ServerError::Unavailable("no answer in time".into()));
                            self.answer(now + SignedDuration::from_secs(30), ticket, Reply::Server(late));
                        }
                    }
                }
                Work::Probe(_) | Work::Sleep(_) => {
                    self.answer(now + SignedDuration::from_millis(1), ticket, Reply::Probe(Ok(())));
                }
                Work::Volumes(work) => {
                    for volume in &work.volumes {
                        writeln!(self.story, "volume {} {:?}", volume.name, volume.kind).unwrap();
                    }
                    self.answer(now, ticket, Reply::Volumes(Ok(())));
                }
                Work::RemoveVolumes { .. } => self.answer(now, ticket, Reply::Volumes(Ok(()))),
                Work::LastWords { .. } => self.answer(now, ticket, Reply::Words("it broke".into())),
                Work::Remember(record) => {
                    // As the disk would have it.
                    let record: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
                    self.disk.insert(record.uid.clone(), record);
                }
                Work::Forget { uid } => {
                    self.disk.remove(&uid);
                }
            }
            if let Some(left) = &mut self.crash_in {
                if *left == 0 {
                    self.crash_in = None;
                    self.crash();
                    return;
                }
                *left -= 1;
            }
        }
    }
    fn server(&mut self, call: Call) -> Result<Answer, ServerError> {
        if self.server_away {
            return Err(ServerError::Unavailable("away".into()));
        }
        match call {
            Call::PatchStatus { uid, revision, status, .. } => {
                let pod = self.pods.get_mut(&uid).ok_or(ServerError::NotFound)?;
                if pod["metadata"]["resourceVersion"] != revision {
                    return Err(ServerError::Conflict);
                }
                self.revision += 1;
                for (key, value) in status.as_object().unwrap() {
                    if value.is_null() {
                        pod["status"].as_object_mut().unwrap().remove(key);
                    } else {
                        pod["status"][key] = value.clone();
                    }
                }
                pod["metadata"]["resourceVersion"] = self.revision.to_string().into();
                Ok(Answer::Pod(Arc::new(serde_json::from_value(pod.clone()).unwrap())))
            }
            Call::GetPod { name, .. } => match self.pods.get(&name) {
                Some(pod) => Ok(Answer::Pod(Arc::new(serde_json::from_value(pod.clone()).unwrap()))),
                None => Err(ServerError::NotFound),
            },
            Call::DeletePod { uid, .. } => {
                // AG4: only what has stopped may leave.
                let running =
                    self.machine.containers().filter(|c| runs(c) && c.spec.labels.get(translate_uid()) == Some(&uid)).count();
                if running > 0 {
                    self.violations.push(format!("AG4: {uid} deleted with {running} running"));
                }
                self.pods.remove(&uid).map(|_| Answer::Done).ok_or(ServerError::NotFound)
            }
            Call::GetConfig(config) => {
                self.configs.get(&config).map(|c| Answer::Config(Arc::new(c.clone()))).ok_or(ServerError::NotFound)
            }
            Call::Event(event) => {
                writeln!(self.story, "{} {}: {}", event.reason, event.container, event.message).unwrap();
                Ok(Answer::Done)
            }
        }
    }
    /// Checks what happened on the machine.
    fn watch(&mut self) {
        for happening in self.machine.take_history() {
            if happening.what == Happened::Started {
                let (uid, container) =
                    (happening.labels[translate_uid()].clone(), happening.labels[crate::agent::translate::CONTAINER].clone());
                if self.dead.contains(&uid) {
                    self.violations.push(format!("AG2: {container} of deleted {uid} started"));
                }
                self.starts.entry((uid, container)).or_default().push(happening.at);
            }
        }
        let mut running = BTreeMap::new();
        for c in self.machine.containers().filter(|c| runs(c)) {
            if let (Some(uid), Some(name)) =
                (c.spec.labels.get(translate_uid()), c.spec.labels.get(crate::agent::translate::CONTAINER))
            {
                *running.entry((uid.clone(), name.clone())).or_insert(0) += 1;
            }
        }
        for (key, count) in running.into_iter().filter(|(_, count)| *count > 1) {
            self.violations.push(format!("AG1: {count} of {key:?}"));
        }
    }
    fn crash(&mut self) {
        self.heart = None;
        self.answers.clear();
    }
    fn restart(&mut self) {
        let remembered = Remembered { records: self.disk.values().cloned().collect(), ..Remembered::default() };
        self.heart = Some(Heart::new(settings(), remembered, self.now));
        self.input(Input::Tick);
        if !self.server_away {
            self.list();
        }
    }
    /// Lets so much time pass.
    fn run(&mut self, seconds: i64) {
        let until = self.now + SignedDuration::from_secs(seconds);
        self.input(Input::Tick);
        loop {
            if self.heart.is_none() {
                self.restart();
            }
            self.answers.sort_by_key(|(at, serial, _)| (*at, *serial));
            let answer = self.answers.first().map(|a| a.0);
            let due = self.heart.as_ref().and_then(Heart::due);
            let change = self.machine.next_change();
            let Some(next) = [answer, due, change].into_iter().flatten().min().filter(|at| *at <= until) else { break };
            self.now = self.now.max(next);
            self.machine.advance(self.now);
            let ended: Vec<String> =
                self.machine.take_history().into_iter().filter(|h| matches!(h.what, Happened::Ended(_))).map(|h| h.id).collect();
            let deaf = self.deaf;
            for container in ended.into_iter().filter(|_| !deaf) {
                self.input(Input::Hint { container });
            }
            if answer.is_some_and(|at| at <= self.now) && !self.answers.is_empty() {
                let (_, _, input) = self.answers.remove(0);
                self.input(input);
            } else {
                self.input(Input::Tick);
            }
        }
        self.now = until;
        self.machine.advance(until);
    }
    /// The id of the container that runs under a name which begins so.
    fn running(&self, name: &str) -> String {
        self.machine.containers().find(|c| c.name.starts_with(name) && runs(c)).unwrap().id.to_owned()
    }
    /// Ends that container from outside, and says which one it was.
    fn strike(&mut self, name: &str) -> String {
        let id = self.running(name);
        self.machine.strike(&id, End::Killed, self.now);
        id
    }
    fn check(&self) {
        assert!(self.violations.is_empty(), "{:?}\n{}", self.violations, self.story);
    }
    /// The pods as the server has them, and the containers as they are.
    fn show(&self) -> String {
        let mut out = String::new();
        for (uid, pod) in &self.pods {
            let status = &pod["status"];
            let ready = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
            write!(out, "{uid} {}", status["phase"].as_str().unwrap_or("-")).unwrap();
            if ready.is_some_and(|c| c["status"] == "True") {
                out.push_str(" ready");
            }
            let all = ["initContainerStatuses", "containerStatuses"];
            for c in all.iter().flat_map(|l| status[*l].as_array().into_iter().flatten()) {
                let state = c["state"].as_object().and_then(|s| s.iter().next()).map(|(k, v)| {
                    let mut text = k.clone();
                    if let Some(reason) = v["reason"].as_str() {
                        write!(text, " {reason}").unwrap();
                    }
                    if let Some(code) = v["exitCode"].as_i64() {
                        write!(text, " {code}").unwrap();
                    }
                    text
                });
                write!(out, "; {} {} restarts {}", c["name"].as_str().unwrap(), state.unwrap_or_default(), c["restartCount"])
                    .unwrap();
                if let Some(reason) = c["lastState"]["terminated"]["reason"].as_str() {
                    write!(out, " after {reason}").unwrap();
                }
            }
            out.push('\n');
        }
        let mut rows: Vec<String> = self
            .machine
            .containers()
            .map(|c| format!("  {} {}\n", c.name, if runs(&c) { "runs" } else { "does not run" }))
            .collect();
        rows.sort();
        out.extend(rows);
        out
    }
}

fn runs(c: &crate::docker::simulated::View<'_>) -> bool {
    c.status == crate::docker::container::Status::Running
}

fn translate_uid() -> &'static str {
    crate::agent::translate::POD_UID
}

fn check(world: &World, expected: Expect) {
    world.check();
    expected.assert_eq(&world.show());
}

/// `p` runs, in its first sandbox and its first container.
fn check_well(world: &World) {
    check(
        world,
        expect![[r#"
            p Running ready; c running restarts 0
              k8s_POD_p_d_p_0 runs
              k8s_c_p_d_p_0 runs
        "#]],
    );
}

fn one(image: &str) -> Value {
    json!({"containers": [{"name": "c", "image": image, "imagePullPolicy": "IfNotPresent"}], "terminationGracePeriodSeconds": 5})
}
