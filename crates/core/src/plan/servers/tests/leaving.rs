//! Servers on their way out, and what a person did to them.

use super::*;

#[test]
fn a_server_leaves_one_phase_a_look_and_keeps_its_sessions_until_they_end() {
    let mut scene = Scene::new(OLD, [server("a", 1), server("b", 2)]);
    scene.server("b").sessions = 3;
    let desired = desired(former(wanted([server("a", 1)]), &["b"]));
    let plan = scene.look(&desired);
    assert_eq!((words(&plan.before), words(&plan.after)), (vec![], vec!["drain b/b".to_owned()]));
    let plan = scene.look(&desired);
    assert!(plan.has_no_steps());
    assert_eq!(phases(&plan), [("b", Phase::Draining)]);
    assert_eq!((plan.removing[0].sessions, plan.removing[0].age), (3, LOOK));
    scene.server("b").sessions = 0;
    scene.server("b").queued = 1;
    assert!(scene.look(&desired).has_no_steps(), "a request waits for it");
    scene.server("b").queued = 0;
    assert_eq!(words(&scene.look(&desired).after), ["b/b into maintenance"]);
    assert_eq!(words(&scene.look(&desired).after), ["delete b/b"]);
    assert_eq!(scene.look(&desired), ServerPlan::default());
}

#[test]
fn sessions_that_outlive_the_bound_are_shut_down() {
    let mut scene = Scene::new(OLD, [server("a", 1), server("b", 2)]);
    let desired = desired(former(wanted([server("a", 1)]), &["b"]));
    let mut steps = Vec::new();
    for _ in 0..10 {
        if let Some(server) = scene.backend().servers.get_mut("b") {
            // Persistence brings new sessions for as long as it only drains.
            server.sessions = u64::from(server.running);
        }
        steps.extend(words(&scene.look(&desired).after));
    }
    assert_eq!(
        steps,
        ["drain b/b", "shut down the sessions of b/b", "b/b into maintenance", "delete b/b"]
    );
}

#[test]
fn the_bound_of_a_drain_does_not_run_while_the_server_waits() {
    let mut scene = Scene::new(OLD, [server("a", 1), server("b", 2)]);
    scene.server("a").running = false;
    scene.server("b").sessions = 1;
    let desired = desired(former(wanted([server("a", 1)]), &["b"]));
    for _ in 0..20 {
        let plan = scene.look(&desired);
        assert!(plan.has_no_steps());
        assert_eq!(phases(&plan), [("b", Phase::Waiting)], "it is the last that serves");
    }
    scene.server("a").running = true;
    assert_eq!(words(&scene.look(&desired).after), ["drain b/b"]);
    assert_eq!(phases(&scene.look(&desired)), [("b", Phase::Draining)]);
}

#[test]
fn the_last_servers_go_when_nothing_is_desired_there() {
    let mut scene = Scene::new(OLD, [server("a", 1), server("b", 2)]);
    let plan = scene.look(&desired(former(wanted([]), &["a", "b"])));
    assert_eq!(
        words(&plan.after),
        ["drain b/a", "drain b/b"],
        "to hold that back is the guard's part"
    );
}

#[test]
fn a_server_that_is_desired_again_while_it_leaves_comes_back() {
    let mut scene = Scene::new(OLD, [server("a", 1), server("b", 2)]);
    let without = desired(former(wanted([server("a", 1)]), &["b"]));
    let with = desired(wanted([server("a", 1), server("b", 2)]));
    for looks in 1..=2 {
        for _ in 0..looks {
            scene.look(&without);
        }
        assert!(is_out(scene.server("b").admin));
        assert_eq!(words(&scene.look(&with).before), ["b/b is ready again"]);
        assert_eq!(scene.look(&with), ServerPlan::default());
    }
}

#[test]
fn a_persons_maintenance_and_drain_stay_and_are_shown_while_the_address_is_kept_right() {
    for (admin, hand) in
        [(AdminState::MAINTENANCE, Hand::Maintenance), (AdminState::DRAIN, Hand::Drain)]
    {
        let mut scene = Scene::new(NEW, [checked("a", 1), server("b", 2)]);
        scene.external(admin, "a");
        let plan = scene.look(&desired(wanted([checked("a", 9), server("b", 2)])));
        assert_eq!(words(&plan.before), ["move b/a to 10.0.0.9:8140"]);
        assert_eq!(
            plan.external,
            [ExternalChange { backend: "b".to_owned(), server: "a".to_owned(), hand }]
        );
        assert_eq!(scene.server("a").admin, AdminState(admin));
    }
}

#[test]
fn a_server_that_the_configuration_disables_stays_so_until_a_person_readies_it() {
    let mut scene = Scene::new(OLD, [server("a", 1)]);
    scene.server("a").admin =
        AdminState(AdminState::MAINTENANCE | AdminState::CONFIGURED_MAINTENANCE);
    let desired = desired(wanted([server("a", 1)]));
    assert_eq!(scene.look(&desired).external.len(), 1);
    scene.external(0, "a");
    assert_eq!(
        scene.server("a").admin,
        AdminState(AdminState::CONFIGURED_MAINTENANCE),
        "HAProxy keeps that bit"
    );
    assert_eq!(scene.look(&desired), ServerPlan::default());
}

#[test]
fn a_person_who_changes_our_drain_into_maintenance_is_heeded() {
    let mut scene = Scene::new(OLD, [server("a", 1), server("b", 2)]);
    scene.server("b").sessions = 1;
    scene.look(&desired(former(wanted([server("a", 1)]), &["b"])));
    scene.external(AdminState::MAINTENANCE, "b");
    let plan = scene.look(&desired(wanted([server("a", 1), server("b", 2)])));
    assert!(plan.has_no_steps());
    assert_eq!(plan.external.len(), 1);
}

#[test]
fn a_server_that_a_person_brought_back_is_not_ours_any_more() {
    let mut scene = Scene::new(OLD, [server("a", 1), server("b", 2)]);
    let with = desired(wanted([server("a", 1), server("b", 2)]));
    scene.look(&desired(former(wanted([server("a", 1)]), &["b"])));
    scene.external(0, "b");
    assert_eq!(scene.look(&with), ServerPlan::default());
    scene.external(AdminState::DRAIN, "b");
    let plan = scene.look(&with);
    assert!(plan.has_no_steps(), "{plan:?}");
    assert_eq!(plan.external.len(), 1);
}

#[test]
fn an_add_that_was_cut_in_the_middle_is_finished() {
    let mut scene = Scene::new(OLD, [checked("a", 1)]);
    let added = scene.server("a");
    (added.admin, added.running, added.check_enabled) =
        (AdminState(AdminState::MAINTENANCE), false, false);
    let desired = desired(wanted([checked("a", 1)]));
    assert_eq!(
        words(&scene.look(&desired).before),
        ["enable b/a, which was added and never enabled"]
    );
    assert!(scene.server("a").admin.ready() && scene.server("a").check_enabled);
    assert_eq!(scene.look(&desired), ServerPlan::default());
}

#[test]
fn a_restarted_mapsmith_goes_on_with_a_removal() {
    let mut scene = Scene::new(OLD, [server("a", 1), server("b", 2)]);
    scene.server("b").sessions = 1;
    let desired = desired(former(wanted([server("a", 1)]), &["b"]));
    scene.look(&desired);
    scene.restart_mapsmith();
    let mut steps = Vec::new();
    for _ in 0..10 {
        steps.extend(words(&scene.look(&desired).after));
        if steps.len() == 1 {
            scene.restart_mapsmith();
        }
    }
    assert_eq!(steps, ["shut down the sessions of b/b", "b/b into maintenance", "delete b/b"]);
}

#[test]
fn a_server_that_was_leaving_before_a_restart_is_ready_again_once_it_is_listed() {
    let disabled = AdminState::MAINTENANCE | AdminState::CONFIGURED_MAINTENANCE;
    // What keeps it out at the restart, the list in force then, and what comes of it.
    for (admin, in_force, expected) in [
        (AdminState::DRAIN, Some(&["a"][..]), &["b/b is ready again"][..]),
        (AdminState::MAINTENANCE, Some(&["a"]), &["b/b is ready again"]),
        (AdminState::DRAIN, Some(&["a", "b"]), &[]),
        (AdminState::DRAIN, None, &[]),
        (disabled, Some(&["a"]), &[]),
    ] {
        let mut scene = Scene::new(OLD, [server("a", 1), server("b", 2)]);
        scene.server("b").admin = AdminState(admin);
        let mut both = wanted([server("a", 1), server("b", 2)]);
        both.resumed = in_force.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let both = desired(both);
        scene.restart_mapsmith();
        scene.memory.found_at_start(&both, &scene.process.servers);
        let plan = scene.look(&both);
        assert_eq!(words(&plan.before), expected, "{admin}, {in_force:?}");
        assert_eq!(plan.external.is_empty(), !expected.is_empty(), "{admin}, {in_force:?}");
    }
}

#[test]
fn other_servers_are_counted_and_left_alone_unless_all_are_managed() {
    let scene = Scene::new(OLD, [server("a", 1), server("x", 2)]);
    let mut backend = wanted([server("a", 1)]);
    let plan = scene.plan(&desired(backend.clone()));
    assert_eq!((plan.has_no_steps(), plan.foreign), (true, 1));
    backend.manage = Manage::All;
    let plan = scene.plan(&desired(backend));
    assert_eq!((words(&plan.after), plan.foreign), (vec!["drain b/x".to_owned()], 0));
}

#[test]
fn a_server_that_the_configuration_refers_to_stays_in_maintenance_and_is_asked_once() {
    let mut scene = Scene::new(OLD, [server("a", 1), server("b", 2)]);
    scene.process.referenced.insert(("b".to_owned(), "b".to_owned()));
    let without = desired(former(wanted([server("a", 1)]), &["b"]));
    let steps: Vec<_> = (0..10).flat_map(|_| words(&scene.look(&without).after)).collect();
    assert_eq!(steps, ["drain b/b", "b/b into maintenance", "delete b/b"]);
    let plan = scene.look(&without);
    assert_eq!(
        causes(&plan),
        ["b/b: it should go, but is still in the configuration, which refers to it"]
    );
    assert!(scene.server("b").admin.in_maintenance());
    let with = desired(wanted([server("a", 1), server("b", 2)]));
    assert_eq!(words(&scene.look(&with).before), ["b/b is ready again"]);
}
