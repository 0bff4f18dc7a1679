//! Pods that come, run, fail and go; and an agent that crashes, is alone, or finds what it does not know.

use expect_test::expect;

use super::*;

#[test]
fn a_pod_comes_and_goes() {
    let mut world = World::with(one("web:1"));
    world.run(10);
    check_well(&world);
    world.delete("p", 5);
    world.run(10);
    check(&world, expect![[r#""#]]);
}

#[test]
fn a_start_costs_one_look() {
    let mut world = World::with(one("web:1"));
    world.run(3);
    let looks = world.log.lines().filter(|line| line.contains("Inspect")).count();
    assert_eq!(looks, 2, "one at the sandbox and one at the container:\n{}", world.log);
    // Somebody else's hand is looked at.
    let id = world.running("k8s_c_");
    world.input(Input::Hint { container: id });
    assert_eq!(world.log.lines().filter(|line| line.contains("Inspect")).count(), looks + 1);
}

#[test]
fn crash_loop() {
    let mut world = World::with(one("sim/crash:1-1s"));
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
    let mut world = World::with(one("sim/missing:1"));
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
    let mut world = World::with(
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
fn a_container_that_is_added_to_look_into_a_pod() {
    let mut world = World::with(one("web:1"));
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
fn ag6_the_remaining_grace() {
    let mut spec = one("sim/deaf:1");
    spec["terminationGracePeriodSeconds"] = 30.into();
    let mut world = World::with(spec);
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
fn the_server_is_away() {
    let mut world = World::with(one("sim/crash:1-30s"));
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
    let mut world = World::with(one("web:1"));
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
