//! Tables and properties of the simulated host. A row is a script of calls and faults; the transcript is what is reviewed.

use std::fmt::Write;
use std::time::Duration;

use expect_test::{Expect, expect};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::docker::container::{NetworkMode, PortBinding, Status};
use crate::docker::{ContainerSpec, EngineError, Operation, Outcome};

const START: Timestamp = Timestamp::constant(1_700_000_000, 0);

/// Reads one line: `create NAME IMAGE [port=N] [join=NAME] [ENV=VALUE]`, `start NAME`, `stop NAME GRACE` and so on.
fn operation(line: &str) -> Option<Operation> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let id = words.get(1).copied().unwrap_or_default().to_string();
    Some(match words[0] {
        "create" => {
            let mut spec = ContainerSpec { image: words[2].into(), ..ContainerSpec::default() };
            for word in &words[3..] {
                match word.split_once('=').unwrap() {
                    ("port", port) => spec.ports.push(PortBinding {
                        host_port: port.parse().unwrap(),
                        container_port: 80,
                        ..PortBinding::default()
                    }),
                    ("join", other) => spec.network = NetworkMode::Container(other.into()),
                    ("env", words) => spec.env.push(("SIM".into(), words.replace(',', " "))),
                    (name, value) => spec.env.push((name.into(), value.into())),
                }
            }
            Operation::Create { name: id, spec: Box::new(spec) }
        }
        "start" => Operation::Start { id },
        "stop" => Operation::Stop { id, grace: words[2].parse().unwrap() },
        "kill" => Operation::Kill { id, signal: words[2].into() },
        "remove" => Operation::Remove { id, force: words.get(2) == Some(&"force") },
        "pull" => Operation::Pull { reference: id, auth: None },
        "rmi" => Operation::RemoveImage { reference: id },
        "run" => Operation::Run {
            id,
            command: words[2..].iter().map(|word| (*word).to_string()).collect(),
            timeout: Duration::from_secs(5),
        },
        "tail" => Operation::LogTail { id, lines: 10, bytes: 1000 },
        _ => return None,
    })
}

/// Runs a script. `+5s` lets time pass; `show` prints every container; calls print their answer and when it comes.
fn transcript(script: &str) -> String {
    let mut machine = Machine::small("a", 2, 1 << 30, START);
    let mut now = START;
    let mut out = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(time) = line.strip_prefix('+') {
            now += time.parse::<SignedDuration>().unwrap();
            machine.advance(now);
            continue;
        }
        match line {
            "show" => {
                for view in machine.containers().collect::<Vec<_>>() {
                    let Some(container) = machine.find(view.id) else { continue };
                    let state = container.state();
                    write!(out, "  {} {:?}", state.name, state.status).unwrap();
                    match state.status {
                        Status::Running => write!(out, " answers={}", machine.answers(&state.id)).unwrap(),
                        Status::Exited => {
                            let age = state.finished_at.unwrap().duration_since(START);
                            write!(out, " code={} at {age:#}", state.exit_code).unwrap();
                        }
                        _ => {}
                    }
                    if state.oom_killed {
                        out.push_str(" oom");
                    }
                    if !state.error.is_empty() {
                        write!(out, " code={} {:?}", state.exit_code, state.error).unwrap();
                    }
                    out.push('\n');
                }
            }
            "kill daemon" => machine.kill_daemon(now),
            "start daemon" => _ = machine.start_daemon(now),
            "hang daemon" => machine.hang_daemon(true, now),
            "unhang daemon" => machine.hang_daemon(false, now),
            "power off" => machine.power_off(now),
            "power on" => _ = machine.power_on(now),
            "registry away" => machine.registry_away(true),
            "hold port 80" => machine.hold_port(80, true),
            "wedge a" => machine.wedge("a", true),
            "unwedge a" => machine.wedge("a", false),
            "lose answer" => machine.inject(Injected {
                operation: "create",
                performed: true,
                error: EngineError::Unavailable { message: "connection reset".into() },
            }),
            _ => {
                let reply = machine.apply(&operation(line).expect(line), now);
                let after = reply.at.duration_since(now);
                let words = match reply.result {
                    Err(error) => format!("{:?}: {error}", error.outlook()),
                    Ok(Outcome::Done | Outcome::Created { .. } | Outcome::Image(_)) => "ok".into(),
                    Ok(Outcome::Log(text)) => format!("{text:?}"),
                    Ok(Outcome::Ran(ran)) => format!("{:?} {:?}", ran.exit_code, ran.output),
                    Ok(other) => format!("{other:?}"),
                };
                let words = machine.containers().fold(words, |words, c| words.replace(c.id, &format!("<{}>", c.name)));
                writeln!(out, "{line}: {words} (after {after:#})").unwrap();
            }
        }
    }
    out
}

fn check(script: &str, expect: Expect) {
    expect.assert_eq(&transcript(script));
}

const WEB: &str = "pull sim/web:v1\n+2s\ncreate a sim/web:v1\nstart a\n";

#[test]
fn a_life() {
    check(
        "create a sim/web:v1\npull sim/web:v1\ncreate a sim/web:v1\n+2s\ncreate a sim/web:v1\ncreate a sim/web:v1\nstart a\nstart a\nshow
         remove a\nrun a echo hello world\nrun a sleep 10\ntail a\n+5s\nstop a 30\nstop a 30\nrun a true\ntail a\nshow\nrmi sim/web:v1
         start a\nstop a 0\nremove a\nremove a\nrmi sim/web:v1\nstart a\nshow",
        expect![[r#"
            create a sim/web:v1: Permanent: image sim/web:v1 not found: No such image: sim/web:v1 (after 1ms)
            pull sim/web:v1: ok (after 2s)
            create a sim/web:v1: Permanent: image sim/web:v1 not found: No such image: sim/web:v1 (after 1ms)
            create a sim/web:v1: ok (after 12ms)
            create a sim/web:v1: Permanent: the name a is taken by container <a> (after 1ms)
            start a: ok (after 120ms)
            start a: ok (after 1ms)
              a Running answers=true
            remove a: Transient: You cannot remove a running container <a>. Stop the container before attempting removal or force remove (after 1ms)
            run a echo hello world: Some(0) b"hello world\n" (after 60ms)
            run a sleep 10: None b"" (after 5s 60ms)
            tail a: b"sim/web:v1 started\n" (after 1ms)
            stop a 30: ok (after 100ms)
            stop a 30: ok (after 1ms)
            run a true: Transient: Container a is not running (after 60ms)
            tail a: b"sim/web:v1 started\nstopping\n" (after 1ms)
              a Exited code=0 at 7s
            rmi sim/web:v1: Permanent: unable to remove repository reference sim/web:v1 - container <a> is using it (after 1ms)
            start a: ok (after 120ms)
            stop a 0: ok (after 100ms)
            remove a: ok (after 40ms)
            remove a: ok (after 1ms)
            rmi sim/web:v1: ok (after 40ms)
            start a: Permanent: no such container: a (after 1ms)
        "#]],
    );
}

#[test]
fn ways_to_end() {
    check(
        "pull sim/x:1\n+2s
         create crash sim/x:1 env=crash=3-5s\nstart crash\ncreate oom sim/x:1 env=oom=2s\nstart oom
         create deaf sim/x:1 env=deaf\nstart deaf\ncreate lazy sim/x:1 env=lazy=4s\nstart lazy
         create needs sim/x:1 env=needs=KEY\nstart needs\ncreate has sim/x:1 env=needs=KEY KEY=1\nstart has
         create norun sim/x:1 env=norun\nstart norun\nshow\n+10s\nshow\nstart crash\nstop deaf 3\nstop lazy 30\nkill has SIGKILL\n+20s\nshow",
        expect![[r#"
            pull sim/x:1: ok (after 2s)
            create crash sim/x:1 env=crash=3-5s: ok (after 12ms)
            start crash: ok (after 120ms)
            create oom sim/x:1 env=oom=2s: ok (after 12ms)
            start oom: ok (after 120ms)
            create deaf sim/x:1 env=deaf: ok (after 12ms)
            start deaf: ok (after 120ms)
            create lazy sim/x:1 env=lazy=4s: ok (after 12ms)
            start lazy: ok (after 120ms)
            create needs sim/x:1 env=needs=KEY: ok (after 12ms)
            start needs: ok (after 120ms)
            create has sim/x:1 env=needs=KEY KEY=1: ok (after 12ms)
            start has: ok (after 120ms)
            create norun sim/x:1 env=norun: ok (after 12ms)
            start norun: Permanent: OCI runtime create failed: exec: "/simulated": executable file not found in $PATH: unknown (after 120ms)
              norun Created code=127 "OCI runtime create failed: exec: \"/simulated\": executable file not found in $PATH: unknown"
              has Running answers=true
              oom Running answers=true
              lazy Running answers=true
              deaf Running answers=true
              crash Running answers=true
              needs Exited code=1 at 2s
              norun Created code=127 "OCI runtime create failed: exec: \"/simulated\": executable file not found in $PATH: unknown"
              has Running answers=true
              oom Exited code=137 at 4s oom
              lazy Running answers=true
              deaf Running answers=true
              crash Exited code=3 at 7s
              needs Exited code=1 at 2s
            start crash: ok (after 120ms)
            stop deaf 3: ok (after 3s 100ms)
            stop lazy 30: ok (after 4s 100ms)
            kill has SIGKILL: ok (after 1ms)
              norun Created code=127 "OCI runtime create failed: exec: \"/simulated\": executable file not found in $PATH: unknown"
              has Exited code=137 at 12s
              oom Exited code=137 at 4s oom
              lazy Exited code=0 at 16s
              deaf Exited code=137 at 15s
              crash Exited code=3 at 17s
              needs Exited code=1 at 2s
        "#]],
    );
}

#[test]
fn answers() {
    check(
        "pull sim/x:1\n+2s\ncreate slow sim/x:1 env=slow=30s\nstart slow\ncreate sick sim/x:1 env=sick=60s\nstart sick
         create unready sim/x:1 env=unready\nstart unready\nshow\n+30s\nshow\n+30s\nshow\nrun slow /bin/check\nrun sick /bin/check",
        expect![[r#"
            pull sim/x:1: ok (after 2s)
            create slow sim/x:1 env=slow=30s: ok (after 12ms)
            start slow: ok (after 120ms)
            create sick sim/x:1 env=sick=60s: ok (after 12ms)
            start sick: ok (after 120ms)
            create unready sim/x:1 env=unready: ok (after 12ms)
            start unready: ok (after 120ms)
              sick Running answers=true
              unready Running answers=false
              slow Running answers=false
              sick Running answers=true
              unready Running answers=false
              slow Running answers=true
              sick Running answers=false
              unready Running answers=false
              slow Running answers=true
            run slow /bin/check: Some(0) b"" (after 60ms)
            run sick /bin/check: Some(1) b"not answering\n" (after 60ms)
        "#]],
    );
}

#[test]
fn pulls() {
    check(
        "pull sim/missing:1\npull sim/denied:1\npull sim/broken:1\npull sim/hang:1\npull sim/large:20s\n+1s\npull sim/large:20s
         registry away\npull sim/web:v1",
        expect![[r#"
            pull sim/missing:1: Permanent: image sim/missing:1 not found: manifest for sim/missing:1 not found: manifest unknown (after 201ms)
            pull sim/denied:1: Permanent: pull of sim/denied:1 denied: pull access denied for sim/denied:1 (after 201ms)
            pull sim/broken:1: Transient: pull of sim/broken:1 failed: received unexpected HTTP status: 503 Service Unavailable (after 201ms)
            pull sim/hang:1: Transient: pull of sim/hang:1 failed: no progress for 60 s (after 1m)
            pull sim/large:20s: ok (after 20s)
            pull sim/large:20s: ok (after 19s)
            pull sim/web:v1: Transient: pull of sim/web:v1 failed: received unexpected HTTP status: 503 Service Unavailable (after 201ms)
        "#]],
    );
}

#[test]
fn networks_and_ports() {
    check(
        &format!("{WEB}create b sim/web:v1 join=a\nstart b\nstop a 1\nstop b 1\nstart b
         create p sim/web:v1 port=80\nstart p\ncreate q sim/web:v1 port=80\nstart q\nstop p 1\nstart q\nhold port 80\nstart p\nshow"),
        expect![[r#"
            pull sim/web:v1: ok (after 2s)
            create a sim/web:v1: ok (after 12ms)
            start a: ok (after 120ms)
            create b sim/web:v1 join=a: ok (after 12ms)
            start b: ok (after 120ms)
            stop a 1: ok (after 100ms)
            stop b 1: ok (after 100ms)
            start b: Transient: cannot join network of a non running container: a (after 120ms)
            create p sim/web:v1 port=80: ok (after 12ms)
            start p: ok (after 120ms)
            create q sim/web:v1 port=80: ok (after 12ms)
            start q: Transient: Bind for 0.0.0.0:80 failed: port is already allocated (after 120ms)
            stop p 1: ok (after 100ms)
            start q: ok (after 120ms)
            start p: Transient: Bind for 0.0.0.0:80 failed: port is already allocated (after 120ms)
              b Exited code=128 at 2s code=128 "cannot join network of a non running container: a"
              q Running answers=true
              p Exited code=128 at 2s code=128 "Bind for 0.0.0.0:80 failed: port is already allocated"
              a Exited code=0 at 2s
        "#]],
    );
}

#[test]
fn the_daemon_dies_and_comes_back() {
    check(
        &format!(
            "{WEB}create deaf sim/web:v1 env=deaf\nstart deaf\nstop deaf 30\nkill daemon\nstart a\n+60s\nstart daemon\nstart a\n+1s\nstart a\nshow"
        ),
        expect![[r#"
            pull sim/web:v1: ok (after 2s)
            create a sim/web:v1: ok (after 12ms)
            start a: ok (after 120ms)
            create deaf sim/web:v1 env=deaf: ok (after 12ms)
            start deaf: ok (after 120ms)
            stop deaf 30: ok (after 30s 100ms)
            start a: Unknown: container engine unavailable: connection refused (after 0s)
            start a: Unknown: container engine unavailable: connection refused (after 0s)
            start a: ok (after 1ms)
              deaf Running answers=true
              a Running answers=true
        "#]],
    );
}

#[test]
fn a_hung_daemon_never_answers() {
    check(
        &format!("{WEB}hang daemon\nstop a 1\nunhang daemon\nshow"),
        expect![[r#"
        pull sim/web:v1: ok (after 2s)
        create a sim/web:v1: ok (after 12ms)
        start a: ok (after 120ms)
        stop a 1: Unknown: container engine did not answer to stop within 30s (after 30s)
          a Running answers=true
    "#]],
    );
}

#[test]
fn power_off() {
    check(
        &format!("{WEB}power off\n+10s\nstart a\npower on\n+1s\nstart a\n+2s\nshow\nstart a\nshow"),
        expect![[r#"
        pull sim/web:v1: ok (after 2s)
        create a sim/web:v1: ok (after 12ms)
        start a: ok (after 120ms)
        start a: Unknown: container engine unavailable: connection refused (after 0s)
        start a: Unknown: container engine unavailable: connection refused (after 0s)
          a Exited code=255 at 2s
        start a: ok (after 120ms)
          a Running answers=true
    "#]],
    );
}

#[test]
fn a_process_that_nobody_can_kill() {
    check(
        &format!("{WEB}wedge a\nstop a 5\n+60s\nshow\nremove a force\nunwedge a\nshow"),
        expect![[r#"
        pull sim/web:v1: ok (after 2s)
        create a sim/web:v1: ok (after 12ms)
        start a: ok (after 120ms)
        stop a 5: Unknown: container engine did not answer to stop within 35s (after 35s)
          a Running answers=true
        remove a force: Transient: Could not kill running container <a>, cannot remove (after 10s)
          a Exited code=137 at 1m 2s
    "#]],
    );
}

#[test]
fn a_lost_answer_meets_its_own_container() {
    check(
        &format!("{WEB}lose answer\ncreate b sim/web:v1\ncreate b sim/web:v1"),
        expect![[r#"
        pull sim/web:v1: ok (after 2s)
        create a sim/web:v1: ok (after 12ms)
        start a: ok (after 120ms)
        create b sim/web:v1: Unknown: container engine unavailable: connection reset (after 12ms)
        create b sim/web:v1: Permanent: the name b is taken by container <b> (after 1ms)
    "#]],
    );
}

/// A random step of a random script.
fn step() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let behaviour =
        prop::sample::select(vec!["", " env=crash=1-5s", " env=deaf", " env=lazy=3s", " port=80", " join=a", " env=oom=9s"]);
    prop_oneof![
        (name.clone(), behaviour).prop_map(|(name, behaviour)| format!("create {name} sim/web:v1{behaviour}")),
        name.clone().prop_map(|name| format!("start {name}")),
        name.clone().prop_map(|name| format!("start {name}")),
        (name.clone(), 0..5u32).prop_map(|(name, grace)| format!("stop {name} {grace}")),
        name.clone().prop_map(|name| format!("kill {name} SIGKILL")),
        (name, any::<bool>()).prop_map(|(name, force)| format!("remove {name}{}", if force { " force" } else { "" })),
        (1..8_000u32).prop_map(|time| format!("+{time}ms")),
        prop::sample::select(vec!["kill daemon", "start daemon", "power off", "power on", "wedge a", "unwedge a"])
            .prop_map(Into::into),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_same_script_tells_the_same_story(steps in prop::collection::vec(step(), 1..60)) {
        let script = format!("pull sim/web:v1\n+2s\n{}\nshow", steps.join("\n"));
        prop_assert_eq!(transcript(&script), transcript(&script));
    }

    #[test]
    fn names_and_ports_have_one_holder_and_time_has_no_steps(
        steps in prop::collection::vec(step(), 1..60),
        looks in prop::collection::vec(1..3_000u32, 1..10),
    ) {
        let mut machine = Machine::small("a", 2, 1 << 30, START);
        machine.apply(&Operation::Pull { reference: "sim/web:v1".into(), auth: None }, START);
        // The other host lives through the same, and is looked at more often.
        let mut watched = machine.clone();
        let mut now = START + SignedDuration::from_secs(2);
        for step in &steps {
            if let Some(time) = step.strip_prefix('+') {
                let then = now + time.parse::<SignedDuration>().unwrap();
                for look in &looks {
                    let at = now + SignedDuration::from_millis((*look).into());
                    if at < then {
                        watched.advance(at);
                    }
                }
                now = then;
            }
            for machine in [&mut machine, &mut watched] {
                match step.as_str() {
                    "kill daemon" => machine.kill_daemon(now),
                    "start daemon" => _ = machine.start_daemon(now),
                    "power off" => machine.power_off(now),
                    "power on" => _ = machine.power_on(now),
                    "wedge a" => machine.wedge("a", true),
                    "unwedge a" => machine.wedge("a", false),
                    _ => match operation(step) {
                        Some(operation) => _ = machine.apply(&operation, now),
                        None => machine.advance(now),
                    }
                }
            }
            let mut names: Vec<&str> = machine.containers().map(|c| c.name).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            prop_assert_eq!(names.len(), all);
            let ports = machine.containers().filter(|c| c.status == Status::Running && !c.spec.ports.is_empty()).count();
            prop_assert!(ports <= 1);
            prop_assert!(machine.has_power() || machine.containers().all(|c| c.status != Status::Running));
        }
        let of = |machine: &Machine| machine.containers().filter_map(|c| machine.find(c.id)).map(|c| c.state()).collect::<Vec<_>>();
        prop_assert_eq!(of(&machine), of(&watched));
    }
}
