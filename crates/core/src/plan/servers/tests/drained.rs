//! A drained master's server: weight 0 while another serves, and back as it was.

use super::*;

/// Two servers of which these are drained.
fn drained(names: &[&str]) -> DesiredServers {
    let mut backend = wanted([server("a", 1), server("b", 2)]);
    backend.drained = Some(names.iter().map(|name| (*name).to_owned()).collect());
    desired(backend)
}

/// Two servers of which the drain of these has ended.
fn undrained(names: &[&str]) -> DesiredServers {
    let mut servers = drained(&[]);
    for backend in servers.backends.values_mut() {
        backend.undrained = names.iter().map(|name| (*name).to_owned()).collect();
    }
    servers
}

fn scene() -> Scene {
    let weighed = Server { weight: Some(5), ..server("a", 1) };
    Scene::new(OLD, [weighed, server("b", 2)])
}

#[test]
fn it_gets_no_request_by_weight_and_has_the_weight_of_its_configuration_back_afterwards() {
    let mut scene = scene();
    assert_eq!(words(&scene.look(&drained(&["a"])).before), ["weight 0 for b/a"]);
    assert_eq!(scene.look(&drained(&["a"])), ServerPlan::default());
    assert!(scene.server("a").admin.ready(), "the map may still send nodes to it");
    // Nothing but the end of its drain and what HAProxy shows is known after a restart.
    scene.restart_mapsmith();
    assert_eq!(words(&scene.look(&undrained(&["a"])).before), ["weight 5 for b/a"]);
    assert_eq!(scene.look(&undrained(&["a"])), ServerPlan::default());
}

#[test]
fn it_keeps_its_weight_while_no_other_serves() {
    let mut scene = scene();
    scene.look(&drained(&["a"]));
    scene.server("b").running = false;
    assert_eq!(words(&scene.look(&drained(&["a"])).before), ["weight 5 for b/a"]);
    scene.server("b").running = true;
    assert_eq!(words(&scene.look(&drained(&["a"])).before), ["weight 0 for b/a"]);
    assert_eq!(words(&scene.look(&drained(&["a", "b"])).before), ["weight 5 for b/a"]);
    // One that nobody gives a weight serves nobody.
    let mut scene = self::scene();
    (scene.server("b").weight, scene.server("b").initial_weight) = (0, 0);
    assert_eq!(scene.look(&drained(&["a"])), ServerPlan::default());
}

#[test]
fn it_keeps_its_weight_while_the_others_agent_or_a_person_gives_that_one_none() {
    for by_agent in [true, false] {
        let mut scene = scene();
        (scene.server("b").weight, scene.server("b").agent_enabled) = (0, by_agent);
        assert_eq!(scene.look(&drained(&["a"])), ServerPlan::default());
        scene.server("b").weight = 1;
        assert_eq!(words(&scene.look(&drained(&["a"])).before), ["weight 0 for b/a"]);
    }
    // A listed weight is the agent's to override.
    let mut scene = scene();
    scene.server("b").agent_enabled = true;
    let mut listed = drained(&["a"]);
    for backend in listed.backends.values_mut() {
        backend.servers.insert("b".to_owned(), Server { weight: Some(9), ..server("b", 2) });
    }
    scene.server("b").weight = 0;
    assert!(scene.look(&listed).has_no_steps());
}

#[test]
fn it_has_no_weight_before_its_check_has_passed_where_it_must_be_added() {
    let mut scene = Scene::new(OLD, [server("b", 2)]);
    let mut backend = wanted([checked("a", 1), server("b", 2)]);
    backend.drained = Some(["a".to_owned()].into());
    let desired = desired(backend);
    assert_eq!(words(&scene.look_at_once(&desired).before), ["add b/a at 10.0.0.1:8140"]);
    assert!(!scene.server("a").running);
    assert_eq!(words(&scene.look_at_once(&desired).before), ["weight 0 for b/a"]);
}

#[test]
fn a_static_algorithm_takes_its_weight_and_gives_it_back() {
    let mut scene = scene().algorithm("static-rr");
    scene.look(&drained(&["a"]));
    assert_eq!(scene.server("a").weight, 0);
    scene.look(&undrained(&["a"]));
    let again = scene.look(&undrained(&["a"]));
    assert_eq!((scene.server("a").weight, again), (5, ServerPlan::default()));
}

#[test]
fn a_weight_of_0_by_somebody_else_stays_where_the_server_was_not_drained() {
    let mut scene = scene();
    scene.server("a").weight = 0;
    assert_eq!(scene.look(&drained(&[])), ServerPlan::default());
    assert_eq!(scene.look(&undrained(&["b"])), ServerPlan::default());
    assert_eq!(scene.server("a").weight, 0);
}

#[test]
fn a_weight_of_0_by_somebody_else_stays_where_drains_are_no_matter_of_the_backends() {
    let mut scene = scene();
    scene.server("a").weight = 0;
    let listed = desired(wanted([server("a", 1), server("b", 2)]));
    assert_eq!(scene.look(&listed), ServerPlan::default());
}

#[test]
fn a_weight_other_than_0_stays_where_they_are() {
    let mut scene = scene();
    scene.server("a").weight = 3;
    assert_eq!(scene.look(&drained(&["b"])).before.len(), 1);
    assert_eq!(scene.server("a").weight, 3);
}
