//! The heart in a small world: a simulated engine, a server that is a map, a disk that is another. No threads, no real time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use expect_test::{Expect, expect};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::docker::EngineError;
use crate::docker::simulated::{End, Happened, Injected, Machine};
use crate::plan::pod::volume::TokenWish;

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

fn one(image: &str) -> Value {
    json!({"containers": [{"name": "c", "image": image, "imagePullPolicy": "IfNotPresent"}], "terminationGracePeriodSeconds": 5})
}

#[test]
fn a_pod_comes_and_goes() {
    let mut world = World::new();
    world.list();
    world.pod("p", one("web:1"));
    world.run(10);
    check(
        &world,
        expect![[r#"
        p Running ready; c running restarts 0
          k8s_POD_p_d_p_0 runs
          k8s_c_p_d_p_0 runs
    "#]],
    );
    world.delete("p", 5);
    world.run(10);
    check(&world, expect![[r#""#]]);
}

#[test]
fn a_start_costs_one_look() {
    let mut world = World::new();
    world.list();
    world.pod("p", one("web:1"));
    world.run(3);
    let looks = world.log.lines().filter(|line| line.contains("Inspect")).count();
    assert_eq!(looks, 2, "one at the sandbox and one at the container:\n{}", world.log);
    // Somebody else's hand is looked at.
    let id = world.machine.containers().find(|c| c.name.starts_with("k8s_c_")).unwrap().id.to_owned();
    world.input(Input::Hint { container: id });
    assert_eq!(world.log.lines().filter(|line| line.contains("Inspect")).count(), looks + 1);
}

#[test]
fn crash_loop() {
    let mut world = World::new();
    world.list();
    world.pod("p", one("sim/crash:1-1s"));
    world.run(300);
    check(
        &world,
        expect![[r#"
        p Running; c waiting CrashLoopBackOff restarts 5 after Error
          k8s_POD_p_d_p_0 runs
          k8s_c_p_d_p_4 does not run
          k8s_c_p_d_p_5 does not run
    "#]],
    );
    let starts = &world.starts[&("p".to_owned(), "c".to_owned())];
    let gaps: Vec<String> = starts.windows(2).map(|w| w[1].duration_since(w[0]).as_secs().to_string()).collect();
    assert_eq!(gaps.join(" "), "1 11 21 41 81");
}

#[test]
fn images_that_cannot_be_had() {
    let mut world = World::new();
    world.list();
    world.pod("p", one("sim/missing:1"));
    world.run(60);
    check(
        &world,
        expect![[r#"
        p Pending; c waiting ImagePullBackOff restarts 0
          k8s_POD_p_d_p_0 runs
    "#]],
    );
}

#[test]
fn init_containers_run_in_order() {
    let mut world = World::new();
    world.list();
    world.pod(
        "p",
        json!({"initContainers": [{"name": "i1", "image": "sim/job:1s"}, {"name": "side", "image": "web:1", "restartPolicy": "Always"},
            {"name": "i2", "image": "sim/job:2s"}], "containers": [{"name": "c", "image": "sim/job:5s"}], "restartPolicy": "Never"}),
    );
    world.run(5);
    check(
        &world,
        expect![[r#"
        p Pending; i1 terminated Completed 0 restarts 0; side waiting ContainerCreating restarts 0; i2 waiting ContainerCreating restarts 0; c waiting PodInitializing restarts 0
          k8s_POD_p_d_p_0 runs
          k8s_i1_p_d_p_0 does not run
    "#]],
    );
    world.run(60);
    check(
        &world,
        expect![[r#"
        p Succeeded; i1 terminated Completed 0 restarts 0; side terminated Completed 0 restarts 0; i2 terminated Completed 0 restarts 0; c terminated Completed 0 restarts 0
          k8s_c_p_d_p_0 does not run
          k8s_i1_p_d_p_0 does not run
          k8s_i2_p_d_p_0 does not run
          k8s_side_p_d_p_0 does not run
    "#]],
    );
}

#[test]
fn ag1_to_ag4_crash_after_every_action() {
    let mut crashes = 0;
    for crash_in in 0.. {
        let mut world = World::new();
        world.list();
        world.crash_in = Some(crash_in);
        world.pod("p", one("web:1"));
        world.pod("q", one("sim/lazy:2s"));
        world.run(20);
        world.delete("p", 5);
        world.run(30);
        world.check();
        let shown = world.show();
        assert!(shown.contains("q Running ready; c running restarts 0"), "{crash_in}: {shown}\n{}", world.story);
        assert!(!shown.contains("k8s_c_p") && !shown.contains("k8s_POD_p"), "{crash_in}: {shown}\n{}", world.log);
        assert!(!shown.starts_with("p "), "{crash_in}: {shown}\n{}", world.log);
        assert_eq!(world.starts[&("q".to_owned(), "c".to_owned())].len(), 1, "{crash_in}: not restarted");
        if world.crash_in.is_some() {
            break; // no more actions to crash after
        }
        crashes += 1;
    }
    assert!(crashes > 30, "{crashes}");
}

#[test]
fn ag12_every_call_may_lose_its_answer() {
    for operation in ["list", "inspect", "create", "start", "image", "pull", "stop", "remove"] {
        for performed in [true, false] {
            for times in 1..4 {
                let mut world = World::new();
                for _ in 0..times {
                    let error = EngineError::Unavailable { message: "cut".into() };
                    world.machine.inject(Injected { operation, performed, error });
                }
                world.list();
                world.pod("p", one("web:1"));
                world.run(30);
                world.check();
                let shown = world.show();
                assert!(
                    shown.contains("p Running ready; c running restarts 0"),
                    "{operation} {performed} {times}: {shown}\n{}",
                    world.story
                );
                assert_eq!(world.starts[&("p".to_owned(), "c".to_owned())].len(), 1, "{operation} {performed}");
                world.delete("p", 5);
                world.run(30);
                world.check();
                assert_eq!(world.show(), "", "{operation} {performed} {times}\n{}", world.story);
            }
        }
    }
}

#[test]
fn the_server_is_away() {
    let mut world = World::new();
    world.list();
    world.pod("p", one("sim/crash:1-30s"));
    world.run(20);
    world.server_away = true;
    world.crash();
    world.run(80);
    let starts = world.starts[&("p".to_owned(), "c".to_owned())].len();
    assert!(starts > 1, "kept running without a server: {starts}");
    world.server_away = false;
    world.list();
    world.run(20);
    world.check();
    assert!(world.show().contains("c running"), "{}", world.show());
}

#[test]
fn orphans_go_and_strangers_stay() {
    let mut world = World::new();
    world.list();
    world.pod("p", one("web:1"));
    world.run(5);
    let spec = crate::docker::ContainerSpec { image: "web:1".into(), ..Default::default() };
    world.machine.apply(&Operation::Create { name: "stranger".into(), spec: Box::new(spec.clone()) }, world.now);
    let mut other = spec;
    other.labels.insert(crate::agent::translate::CLUSTER.into(), "c2".into());
    other.labels.insert(crate::agent::translate::NODE.into(), "a".into());
    other.labels.insert(translate_uid().into(), "x".into());
    other.labels.insert(crate::agent::translate::CONTAINER.into(), "c".into());
    world.machine.apply(&Operation::Create { name: "other-cluster".into(), spec: Box::new(other) }, world.now);
    // The pod is removed for good while the agent is away, and its disk is lost.
    world.pods.clear();
    world.disk.clear();
    world.crash();
    world.run(60);
    world.check();
    assert_eq!(world.show(), "  other-cluster does not run\n  stranger does not run\n");
}

#[test]
fn ag6_the_remaining_grace() {
    let mut world = World::new();
    world.list();
    let mut spec = one("sim/deaf:1");
    spec["terminationGracePeriodSeconds"] = 30.into();
    world.pod("p", spec);
    world.run(10);
    world.delete("p", 30);
    world.run(10);
    world.crash();
    world.run(15);
    assert!(world.show().contains("k8s_c_p_d_p_0 runs"), "25 s of 30: {}", world.show());
    world.run(8);
    check(&world, expect![[r#""#]]);
}

#[test]
fn configuration() {
    let mut world = World::new();
    world.list();
    world.pod(
        "p",
        json!({"containers": [{"name": "c", "image": "web:1", "envFrom": [{"configMapRef": {"name": "env"}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": 0o400}}]}),
    );
    world.run(5);
    let config = |secret, name: &str| ConfigRef { secret, namespace: "d".into(), name: name.into(), token: None };
    world.configs.insert(config(true, "s"), [("k".to_owned(), ByteString(b"v".to_vec()))].into());
    world.run(15);
    check(
        &world,
        expect![[r#"
        p Pending; c waiting CreateContainerConfigError restarts 0
          k8s_POD_p_d_p_0 runs
    "#]],
    );
    world.configs.insert(config(false, "env"), [("A".to_owned(), ByteString(b"1".to_vec()))].into());
    world.run(15);
    world.configs.insert(config(true, "s"), [("k".to_owned(), ByteString(b"longer".to_vec()))].into());
    world.run(70);
    check(
        &world,
        expect![[r#"
        p Running ready; c running restarts 0
          k8s_POD_p_d_p_0 runs
          k8s_c_p_d_p_0 runs
    "#]],
    );
    let volumes: Vec<&str> = world.story.lines().filter(|l| l.starts_with("volume")).collect();
    expect![[r#"
        volume v Files { in_memory: true, files: {"k": 1 bytes 0400} }
        volume v Files { in_memory: true, files: {"k": 6 bytes 0400} }"#]]
    .assert_eq(&volumes.join("\n"));
}

/// Whether a report was carried out is seen by the watch as well: nobody waits for its answer with news of a crash in hand.
#[test]
fn a_lost_answer_keeps_no_status_back() {
    let mut world = World::new();
    world.list();
    world.loses_answers = true;
    world.pod("p", one("web:1"));
    world.run(5);
    assert!(world.show().contains("p Running ready; c running restarts 0"), "{}", world.show());
    let id = world.machine.containers().find(|c| c.name.starts_with("k8s_c_")).unwrap().id.to_owned();
    world.machine.strike(&id, crate::docker::simulated::End::Killed, world.now);
    world.run(5);
    assert!(world.show().contains("p Running ready; c running restarts 1"), "{}", world.show());
    // The word that nothing came back arrives when much else has been said, and changes nothing.
    world.run(60);
    assert!(world.show().contains("p Running ready; c running restarts 1"), "{}", world.show());
    assert_eq!(world.heart.as_ref().unwrap().unreported(), None);
}

/// What a container failed by may have been put right in the ConfigMap that it is made from.
#[test]
fn each_attempt_is_made_from_configuration_as_it_is() {
    let mut world = World::new();
    world.list();
    let config = ConfigRef { secret: false, namespace: "d".into(), name: "settings".into(), token: None };
    let value = |text: &str| [("sim".to_owned(), ByteString(text.as_bytes().to_vec()))].into();
    world.configs.insert(config.clone(), value("crash=1-1s"));
    let env = json!([{"name": "SIM", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "sim"}}}]);
    world.pod("p", json!({"containers": [{"name": "c", "image": "web:1", "env": env}]}));
    world.run(10);
    assert!(world.show().contains("c waiting CrashLoopBackOff restarts 1 after Error"), "{}", world.show());
    world.configs.insert(config, value(""));
    world.run(30);
    check(
        &world,
        expect![[r#"
        p Running ready; c running restarts 2 after Error
          k8s_POD_p_d_p_0 runs
          k8s_c_p_d_p_1 does not run
          k8s_c_p_d_p_2 runs
    "#]],
    );
}

/// A key that was missing is found when it is there, whether the container had run before or not.
#[test]
fn a_missing_key_is_looked_for_again() {
    let mut world = World::new();
    world.list();
    let config = ConfigRef { secret: false, namespace: "d".into(), name: "settings".into(), token: None };
    let value = |key: &str| [(key.to_owned(), ByteString(Vec::new()))].into();
    world.configs.insert(config.clone(), value("another"));
    let env = json!([{"name": "SIM", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "sim"}}}]);
    world.pod("p", json!({"containers": [{"name": "c", "image": "web:1", "env": env}]}));
    world.run(5);
    assert!(world.show().contains("c waiting CreateContainerConfigError restarts 0"), "{}", world.show());
    world.configs.insert(config.clone(), value("sim"));
    world.run(15);
    assert!(world.show().contains("p Running ready; c running restarts 0"), "{}", world.show());
    world.configs.insert(config.clone(), value("another"));
    let id = world.machine.containers().find(|c| c.name.starts_with("k8s_c_")).unwrap().id.to_owned();
    world.machine.strike(&id, crate::docker::simulated::End::Killed, world.now);
    world.run(15);
    assert!(world.show().contains("c waiting CreateContainerConfigError"), "{}", world.show());
    world.configs.insert(config, value("sim"));
    world.run(20);
    assert!(world.show().contains("p Running ready; c running restarts 1"), "{}", world.show());
}

/// What was read before has to do only while the server is away.
#[test]
fn that_the_server_was_away_once_is_no_excuse_for_old_configuration() {
    let mut world = World::new();
    world.list();
    let config = ConfigRef { secret: false, namespace: "d".into(), name: "settings".into(), token: None };
    let value = |text: &str| [("sim".to_owned(), ByteString(text.as_bytes().to_vec()))].into();
    world.configs.insert(config.clone(), value(""));
    let env = json!([{"name": "SIM", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "sim"}}}]);
    let spec = json!({"containers": [{"name": "c", "image": "web:1", "env": env}]});
    world.pod("p", spec.clone());
    world.run(10);
    world.server_away = true;
    let strike = |world: &mut World| {
        let id = world.machine.containers().find(|c| c.name.starts_with("k8s_c_p") && runs(c)).unwrap().id.to_owned();
        world.machine.strike(&id, crate::docker::simulated::End::Killed, world.now);
    };
    strike(&mut world);
    world.run(10);
    assert!(world.machine.containers().any(|c| c.name == "k8s_c_p_d_p_1" && runs(&c)), "it is started without the server");
    world.server_away = false;
    world.configs.insert(config, value("crash=1-1s"));
    world.run(5);
    world.pod("q", spec);
    world.run(5);
    assert!(world.show().contains("q Running; c waiting CrashLoopBackOff restarts 1 after Error"), "{}", world.show());
}

/// Hints get lost. Who has just begun is looked at often, and whoever is asked to run a probe and cannot is looked at there and then.
#[test]
fn an_end_without_a_hint_is_noticed() {
    let mut world = World::new();
    world.deaf = true;
    world.list();
    world.pod("p", one("sim/crash:1-2s"));
    world.run(7);
    assert!(world.show().contains("restarts 1 after Error"), "{}", world.show());

    let mut world = World::new();
    world.deaf = true;
    world.list();
    let mut spec = one("web:1");
    spec["containers"][0]["readinessProbe"] = json!({"exec": {"command": ["ready"]}, "periodSeconds": 2});
    world.pod("p", spec);
    world.run(65);
    let id = world.machine.containers().find(|c| c.name.starts_with("k8s_c_")).unwrap().id.to_owned();
    let at = world.now;
    world.machine.strike(&id, crate::docker::simulated::End::Killed, at);
    let lists = |world: &World| world.log.lines().filter(|line| line.contains("List")).count();
    let before = lists(&world);
    world.run(3);
    assert_eq!(lists(&world), before, "no list came in between");
    assert!(world.show().contains("restarts 1 after Error"), "{}", world.show());
}

/// A pod that shows a token gets one that is bound to it before it starts, and a new one when that is old. Nobody else waits for any.
#[test]
fn a_token_is_asked_for_and_renewed() {
    let mut world = World::new();
    world.list();
    let volumes = json!([{"name": "t", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}}]}}]);
    world.pod(
        "p",
        json!({"containers": [{"name": "c", "image": "web:1", "volumeMounts": [{"name": "t", "mountPath": "/t"}]}],
        "volumes": volumes, "serviceAccountName": "ci"}),
    );
    world.run(15);
    assert!(!world.show().contains("k8s_c_p_d_p_0"), "{}", world.show());
    let uid = world.heart.as_ref().unwrap().pods.keys().next().unwrap().clone();
    let token = TokenRef { pod: "p".into(), uid, wish: TokenWish { audience: "vault".into(), seconds: 600 } };
    let wanted = ConfigRef { secret: true, namespace: "d".into(), name: "ci".into(), token: Some(token) };
    let text =
        |text: &str| -> BTreeMap<String, ByteString> { [("token".to_owned(), ByteString(text.as_bytes().to_vec()))].into() };
    world.configs.insert(wanted.clone(), text("first"));
    world.run(30);
    assert!(world.show().contains("k8s_c_p_d_p_0 runs"), "{}", world.show());
    world.configs.insert(wanted, text("second one"));
    world.run(400);
    let seen = |world: &World| world.story.lines().filter(|l| l.starts_with("volume")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(seen(&world), ["volume t Files { in_memory: true, files: {\"token\": 5 bytes 0644} }"], "a fresh one stays");
    world.run(200);
    assert_eq!(seen(&world).len(), 2, "after 80 % of its time it is replaced: {:?}", seen(&world));
    assert!(seen(&world)[1].contains("10 bytes"));
}

#[test]
fn the_daemon_restarts() {
    let mut world = World::new();
    world.list();
    world.pod("p", one("web:1"));
    world.run(10);
    world.machine.kill_daemon(world.now);
    world.input(Input::Relist);
    world.run(10);
    assert!(!world.heart.as_ref().unwrap().engine_answers());
    world.machine.start_daemon(world.now);
    world.run(60);
    check(
        &world,
        expect![[r#"
        p Running ready; c running restarts 0
          k8s_POD_p_d_p_0 runs
          k8s_c_p_d_p_0 runs
    "#]],
    );
}

/// A call that was begun while the engine hung ends much later. By then it says nothing about the engine.
#[test]
fn an_engine_that_answers_again_is_not_silent_because_of_an_old_call() {
    let mut world = World::new();
    world.list();
    let mut spec = one("web:1");
    spec["containers"][0]["readinessProbe"] = json!({"exec": {"command": ["ready"]}, "periodSeconds": 1});
    world.pod("p", spec);
    world.run(45);
    world.machine.hang_daemon(true, world.now);
    world.run(2);
    world.machine.hang_daemon(false, world.now);
    world.run(24);
    assert!(world.heart.as_ref().unwrap().engine_answers());
    let (at, _, input) = world.answers.remove(0);
    assert!(at > world.now && format!("{input:?}").contains("Deadline"), "{input:?}");
    world.now = at;
    world.input(input);
    assert!(world.heart.as_ref().unwrap().engine_answers());
    world.run(5);
    assert!(world.show().contains("p Running ready; c running restarts 0"), "{}", world.show());
}

#[test]
fn a_container_removed_by_hand_comes_back() {
    let mut world = World::new();
    world.list();
    world.pod("p", one("web:1"));
    world.run(10);
    let id = world.machine.containers().find(|c| c.name.starts_with("k8s_c")).unwrap().id.to_owned();
    world.machine.apply(&Operation::Remove { id: id.clone(), force: true }, world.now);
    world.input(Input::Hint { container: id });
    world.run(9);
    check(
        &world,
        expect![[r#"
        p Running ready; c running restarts 1 after ContainerStatusUnknown
          k8s_POD_p_d_p_0 runs
          k8s_c_p_d_p_1 runs
    "#]],
    );
    let id = world.machine.containers().find(|c| c.name.starts_with("k8s_POD")).unwrap().id.to_owned();
    world.machine.apply(&Operation::Remove { id: id.clone(), force: true }, world.now);
    world.input(Input::Hint { container: id });
    world.run(15);
    check(
        &world,
        expect![[r#"
        p Running ready; c running restarts 2 after Completed
          k8s_POD_p_d_p_1 runs
          k8s_c_p_d_p_1 does not run
          k8s_c_p_d_p_2 runs
    "#]],
    );
}

#[test]
fn a_sandbox_that_ended_unheard_is_no_fault_of_its_container() {
    let mut world = World::new();
    world.list();
    world.pod("p", one("web:1"));
    world.run(3);
    let id = |world: &World, name: &str| world.machine.containers().find(|c| c.name.starts_with(name)).unwrap().id.to_owned();
    // The first restart comes at once, the second has to wait.
    for name in ["k8s_c_p_d_p_0", "k8s_c_p_d_p_1"] {
        let container = id(&world, name);
        world.machine.strike(&container, End::Killed, world.now);
        world.input(Input::Hint { container });
        world.run(2);
    }
    let sandbox = id(&world, "k8s_POD");
    // While the next attempt waits for its time, the sandbox ends, and the hint is lost.
    world.machine.strike(&sandbox, End::Killed, world.now);
    world.machine.take_history();
    world.run(30);
    check(
        &world,
        expect![[r#"
        p Running ready; c running restarts 2 after Error
          k8s_POD_p_d_p_1 runs
          k8s_c_p_d_p_1 does not run
          k8s_c_p_d_p_2 runs
    "#]],
    );
    let tries = world.log.matches("Engine(Start { id: ").count();
    assert_eq!(tries, 6, "two sandboxes, and four starts, of which one failed: {}", world.log);
    assert!(!world.story.contains("Failed c"), "{}", world.story);
}

#[test]
fn a_container_that_is_added_to_look_into_a_pod() {
    let mut world = World::new();
    world.list();
    world.pod("p", one("web:1"));
    world.run(3);
    let look = json!([{"name": "look", "image": "sim/job:1-2s", "imagePullPolicy": "IfNotPresent", "targetContainerName": "c"}]);
    world.pods.get_mut("p").unwrap()["spec"]["ephemeralContainers"] = look;
    world.revision += 1;
    world.pods.get_mut("p").unwrap()["metadata"]["resourceVersion"] = world.revision.to_string().into();
    world.push_pod("p");
    world.run(60);
    let status = &world.pods["p"]["status"]["ephemeralContainerStatuses"][0];
    assert_eq!(status["state"]["terminated"]["reason"], "Completed", "{status}\n{}", world.log);
    // Once, of an image that was not there, and the pod does not mind.
    assert_eq!(world.starts[&("p".to_owned(), "look".to_owned())].len(), 1, "{}", world.log);
    check(
        &world,
        expect![[r#"
        p Running ready; c running restarts 0
          k8s_POD_p_d_p_0 runs
          k8s_c_p_d_p_0 runs
          k8s_look_p_d_p_0 does not run
    "#]],
    );
}

#[test]
fn a_token_that_nobody_asked_for_may_come_later() {
    let mut world = World::new();
    world.list();
    let mut spec = one("web:1");
    spec["volumes"] = json!([{"name": "kube-api-access-x", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]}}]);
    world.pod("p", spec);
    world.server_away = true;
    world.run(30);
    // Nothing else keeps it from running; the server is told when it is back.
    assert!(
        world.story.contains(r#"volume kube-api-access-x Files { in_memory: true, files: {"namespace": 1 bytes 0644} }"#),
        "{}",
        world.story
    );
    assert_eq!(world.starts[&("p".to_owned(), "c".to_owned())].len(), 1, "{}", world.story);
    let token = TokenRef { pod: "p".into(), uid: "p".into(), wish: TokenWish { audience: String::new(), seconds: 3607 } };
    let config =
        |secret: bool, name: &str, token: Option<TokenRef>| ConfigRef { secret, namespace: "d".into(), name: name.into(), token };
    let text = |key: &str, value: &str| [(key.to_owned(), ByteString(value.into()))].into();
    world.configs.insert(config(true, "default", Some(token)), text("token", "a.b.c"));
    world.configs.insert(config(false, "kube-root-ca.crt", None), text("ca.crt", "pem"));
    world.server_away = false;
    world.run(90);
    let whole = r#"files: {"ca.crt": 3 bytes 0644, "namespace": 1 bytes 0644, "token": 5 bytes 0644}"#;
    assert!(world.story.contains(whole), "{}", world.story);
    assert_eq!(world.starts[&("p".to_owned(), "c".to_owned())].len(), 1);
    world.check();
}
