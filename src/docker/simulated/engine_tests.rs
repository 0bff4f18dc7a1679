//! The simulated host behind the trait, in real time.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;

use super::{Costs, Settings, SimulatedEngine};
use crate::docker::container::Status;
use crate::docker::pause::{ensure_pause_image, id};
use crate::docker::{ContainerSpec, Engine, ExecSpec, LogOptions, Operation, Outcome};

fn settings() -> Settings {
    Settings { hostname: "a".into(), cpus: 2, memory: 1 << 30, costs: Costs::NONE }
}

async fn web(engine: &SimulatedEngine, name: &str, sim: &str) -> String {
    engine.pull("sim/web:v1", None, &|_| {}).await.unwrap();
    let spec = ContainerSpec {
        image: "sim/web:v1".into(),
        env: vec![("SIM".into(), sim.into())],
        labels: [("mine".to_string(), "yes".to_string())].into(),
        ..ContainerSpec::default()
    };
    let id = engine.create(name, &spec).await.unwrap();
    engine.start(&id).await.unwrap();
    id
}

#[tokio::test]
async fn containers_outlive_the_agent() {
    let directory = tempfile::tempdir().unwrap();
    let engine = SimulatedEngine::open(directory.path(), &settings()).unwrap();
    let first = web(&engine, "first", "").await;
    let short = web(&engine, "short", "job=50ms").await;
    let before = engine.inspect(&first).await.unwrap();
    drop(engine);
    tokio::time::sleep(Duration::from_millis(60)).await;
    // Twice: once from calls, once from the snapshot made of them.
    for _ in 0..2 {
        let engine = SimulatedEngine::open(directory.path(), &settings()).unwrap();
        assert_eq!(engine.inspect(&first).await.unwrap(), before);
        assert_eq!(engine.inspect(&short).await.unwrap().status, Status::Exited);
    }
    let engine = SimulatedEngine::open(directory.path(), &settings()).unwrap();
    engine.remove(&first, true).await.unwrap();
    drop(engine);
    let engine = SimulatedEngine::open(directory.path(), &settings()).unwrap();
    assert!(engine.inspect(&first).await.is_err());
    assert_eq!(engine.list(&["mine=yes".into()]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_half_written_call_was_never_answered() {
    let directory = tempfile::tempdir().unwrap();
    let engine = SimulatedEngine::open(directory.path(), &settings()).unwrap();
    let id = web(&engine, "a", "").await;
    drop(engine);
    let calls = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let calls = calls.into_iter().find(|path| path.extension().is_some_and(|end| end == "calls")).unwrap();
    let mut text = std::fs::read(&calls).unwrap();
    text.extend_from_slice(b"{\"at\":\"2023-11-1");
    std::fs::write(&calls, text).unwrap();
    let engine = SimulatedEngine::open(directory.path(), &settings()).unwrap();
    assert_eq!(engine.inspect(&id).await.unwrap().status, Status::Running);
}

#[tokio::test]
async fn a_followed_log_ends_with_its_container() {
    let engine = SimulatedEngine::memory(&settings());
    let id = web(&engine, "a", "chatty=20ms").await;
    let mut flow = engine.logs(&id, &LogOptions { follow: true, ..LogOptions::default() }).await.unwrap();
    let mut lines = Vec::new();
    while let Some(entry) = tokio::time::timeout(Duration::from_secs(5), flow.next()).await.unwrap() {
        lines.push(String::from_utf8(entry.unwrap().bytes.to_vec()).unwrap());
        if lines.len() == 3 {
            engine.stop(&id, 1).await.unwrap();
        }
    }
    assert_eq!(lines.first().unwrap(), "sim/web:v1 started\n");
    assert_eq!(lines.last().unwrap(), "stopping\n");
    let tail = Operation::LogTail { id, lines: 1, bytes: 100 }.perform(&engine).await.unwrap();
    assert_eq!(tail, Outcome::Log("stopping\n".into()));
}

#[tokio::test]
async fn commands_and_shells() {
    let engine = SimulatedEngine::memory(&settings());
    let id = web(&engine, "a", "").await;
    let run = |command: &str, timeout: u64| Operation::Run {
        id: id.clone(),
        command: command.split(' ').map(Into::into).collect(),
        timeout: Duration::from_millis(timeout),
    };
    let Outcome::Ran(ran) = run("echo hi there", 5_000).perform(&engine).await.unwrap() else { panic!() };
    assert_eq!((ran.exit_code, &ran.output[..]), (Some(0), &b"hi there\n"[..]));
    let Outcome::Ran(ran) = run("false", 5_000).perform(&engine).await.unwrap() else { panic!() };
    assert_eq!(ran.exit_code, Some(1));
    let Outcome::Ran(ran) = run("sleep 5", 50).perform(&engine).await.unwrap() else { panic!() };
    assert_eq!(ran.exit_code, None);

    let spec = ExecSpec { command: vec!["sh".into()], stdin: true, stdout: true, stderr: true, ..ExecSpec::default() };
    let mut shell = engine.exec(&id, &spec).await.unwrap();
    shell.input.write_all(b"echo one\nexit 7\n").await.unwrap();
    let said = shell.output.next().await.unwrap().unwrap();
    assert_eq!(said.bytes, "one\n");
    assert!(shell.output.next().await.is_none());
    assert_eq!(engine.exec_exit(&shell.id).await.unwrap(), Some(7));

    let spec = ExecSpec { command: vec!["cat".into()], stdin: true, stdout: true, ..ExecSpec::default() };
    let mut cat = engine.exec(&id, &spec).await.unwrap();
    cat.input.write_all(b"through").await.unwrap();
    cat.input.shutdown().await.unwrap();
    assert_eq!(cat.output.next().await.unwrap().unwrap().bytes, "through");
    assert!(cat.output.next().await.is_none());
}

#[tokio::test]
async fn hints_come_for_what_happens_by_itself() {
    let engine = SimulatedEngine::memory(&settings());
    let mut hints = engine.events(&["mine".into()]).await.unwrap();
    web(&engine, "a", "crash=3-30ms").await;
    let mut actions = Vec::new();
    for _ in 0..3 {
        let hint = tokio::time::timeout(Duration::from_secs(5), hints.next()).await.unwrap().unwrap().unwrap();
        actions.push(hint.action);
    }
    assert_eq!(actions, ["create", "start", "die"]);
}

#[tokio::test]
async fn the_pause_image_is_loaded_when_it_is_missing() {
    let engine = SimulatedEngine::memory(&settings());
    assert_eq!(ensure_pause_image(&engine).await.unwrap(), id());
    engine.remove_image(id()).await.unwrap();
    assert!(engine.image(id()).await.is_err());
    assert_eq!(ensure_pause_image(&engine).await.unwrap(), id());
}
