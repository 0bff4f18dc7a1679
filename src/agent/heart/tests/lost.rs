//! What gets lost: answers, hints, the daemon, containers.

use expect_test::expect;

use super::*;
use crate::docker::EngineError;
use crate::docker::simulated::Injected;

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

/// Whether a report was carried out is seen by the watch as well: nobody waits for its answer with news of a crash in hand.
#[test]
fn a_lost_answer_keeps_no_status_back() {
    let mut world = World::new();
    world.list();
    world.loses_answers = true;
    world.pod("p", one("web:1"));
    world.run(5);
    assert!(world.show().contains("p Running ready; c running restarts 0"), "{}", world.show());
    world.strike("k8s_c_");
    world.run(5);
    assert!(world.show().contains("p Running ready; c running restarts 1"), "{}", world.show());
    // The word that nothing came back arrives when much else has been said, and changes nothing.
    world.run(60);
    assert!(world.show().contains("p Running ready; c running restarts 1"), "{}", world.show());
    assert_eq!(world.heart.as_ref().unwrap().unreported(), None);
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
    world.strike("k8s_c_");
    let lists = |world: &World| world.log.lines().filter(|line| line.contains("List")).count();
    let before = lists(&world);
    world.run(3);
    assert_eq!(lists(&world), before, "no list came in between");
    assert!(world.show().contains("restarts 1 after Error"), "{}", world.show());
}

#[test]
fn the_daemon_restarts() {
    let mut world = World::with(one("web:1"));
    world.run(10);
    world.machine.kill_daemon(world.now);
    world.input(Input::Relist);
    world.run(10);
    assert!(!world.heart.as_ref().unwrap().engine_answers());
    world.machine.start_daemon(world.now);
    world.run(60);
    check_well(&world);
}

/// A call that was begun while the engine hung ends much later. By then it says nothing about the engine.
#[test]
fn an_engine_that_answers_again_is_not_silent_because_of_an_old_call() {
    let mut spec = one("web:1");
    spec["containers"][0]["readinessProbe"] = json!({"exec": {"command": ["ready"]}, "periodSeconds": 1});
    let mut world = World::with(spec);
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
    let mut world = World::with(one("web:1"));
    world.run(10);
    let id = world.running("k8s_c");
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
    let id = world.running("k8s_POD");
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
    let mut world = World::with(one("web:1"));
    world.run(3);
    // The first restart comes at once, the second has to wait.
    for name in ["k8s_c_p_d_p_0", "k8s_c_p_d_p_1"] {
        let container = world.strike(name);
        world.input(Input::Hint { container });
        world.run(2);
    }
    // While the next attempt waits for its time, the sandbox ends, and the hint is lost.
    world.strike("k8s_POD");
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
