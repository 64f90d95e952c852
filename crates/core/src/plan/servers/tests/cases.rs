//! Cases of existing systems.

use super::*;

/// A server as HAProxy reports it, by the word in its status.
fn seen(scene: &mut Scene, name: &str, status: &str) {
    let server = scene.server(name);
    status.clone_into(&mut server.status);
    match status {
        "UP" => {}
        "DOWN" => server.running = false,
        "MAINT" => (server.running, server.admin) = (false, AdminState(AdminState::MAINTENANCE)),
        "DRAIN" => server.admin = AdminState(AdminState::DRAIN),
        "MAINT (resolution)" => {
            (server.running, server.admin) = (false, AdminState(AdminState::UNRESOLVED));
            (server.fqdn, server.address) = (Some(format!("{name}.example.test")), None);
        }
        other => panic!("{other}"),
    }
}

/// Host 1 for `a`, 2 for `b`, ...
fn host(name: &str) -> u8 {
    name.as_bytes()[0] - b'a' + 1
}

/// id, desired, no longer desired, reported, steps before the map, steps after it, what else is
/// said.
type ProxymgrCase = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
    &'static [&'static str],
    &'static str,
);

#[test]
fn proxymgr_cases_have_their_intended_results() {
    let cases: [ProxymgrCase; 7] = [
        // They restart; we add at runtime. A server by another name is not ours.
        (
            "new-server-on-first-sight",
            &["a", "b", "c"],
            &[],
            &[("name", "UP")],
            &["add b/a at 10.0.0.1:8140", "add b/b at 10.0.0.2:8140", "add b/c at 10.0.0.3:8140"],
            &[],
            "1 foreign",
        ),
        (
            "unknown-server-added",
            &["a", "b", "c"],
            &[],
            &[("a", "UP"), ("b", "UP")],
            &["add b/c at 10.0.0.3:8140"],
            &[],
            "",
        ),
        // They disable at once and restart; we drain.
        (
            "one-replaced-by-an-unknown",
            &["a", "c"],
            &["b"],
            &[("a", "UP"), ("b", "UP")],
            &["add b/c at 10.0.0.3:8140"],
            &["drain b/b"],
            "",
        ),
        (
            "operator-maintenance-undone",
            &["a", "b"],
            &[],
            &[("a", "UP"), ("b", "MAINT")],
            &[],
            &[],
            "b by hand",
        ),
        (
            "status-not-exactly-MAINT",
            &["a"],
            &[],
            &[("a", "MAINT (resolution)")],
            &[],
            &[],
            "1 needs reload",
        ),
        ("backend-order-independent", &["b", "a"], &[], &[("a", "UP"), ("b", "UP")], &[], &[], ""),
        ("all as it should be", &["a"], &[], &[("a", "DOWN")], &[], &[], ""),
    ];
    for (id, servers, gone, reported, before, after, said) in cases {
        let mut scene = Scene::new(OLD, reported.iter().map(|(name, _)| server(name, host(name))));
        for (name, status) in reported {
            seen(&mut scene, name, status);
        }
        let plan = scene.plan(&desired(former(
            wanted(servers.iter().map(|name| server(name, host(name)))),
            gone,
        )));
        assert_eq!(words(&plan.before), before, "{id}");
        assert_eq!(words(&plan.after), after, "{id}");
        let mut found = Vec::new();
        found.extend((plan.foreign > 0).then(|| format!("{} foreign", plan.foreign)));
        found.extend(plan.external.iter().map(|external| format!("{} by hand", external.server)));
        found.extend(
            (!plan.needs_reload.is_empty())
                .then(|| format!("{} needs reload", plan.needs_reload.len())),
        );
        assert_eq!(found.join(", "), said, "{id}");
    }
}

#[test]
fn proxymgr_cases_of_whole_backends_and_options_have_their_intended_results() {
    // backend-deleted: the one that is missing is reported, the one that nobody declares any more
    // is left alone.
    let scene = Scene::new(OLD, [server("c", 3), server("d", 4)]);
    let dummy = DesiredServers {
        number: 2,
        backends: [("dummy".to_owned(), wanted([server("a", 1)]))].into(),
    };
    let plan = scene.plan(&dummy);
    assert!(plan.has_no_steps());
    assert_eq!((plan.needs_reload.len(), plan.needs_reload[0].backend.as_str()), (1, "dummy"));
    // known-backend-not-in-haproxy: theirs forgets a backend that HAProxy lost; ours says so at
    // every look.
    assert_eq!(scene.plan(&dummy).needs_reload.len(), 1);
    // server-options-changed: a check can't be added at runtime.
    let scene = Scene::new(OLD, [server("a", 1)]);
    assert_eq!(scene.plan(&desired(wanted([checked("a", 1)]))).needs_reload[0].cause, Cause::Check);
    // port-changed: no restart.
    let mut other_port = server("a", 1);
    other_port.address.port = 81;
    assert_eq!(
        words(&scene.plan(&desired(wanted([other_port]))).before),
        ["move b/a to 10.0.0.1:81"]
    );
}

/// id, desired, how `a` and `b` are reported, steps after the map, what is being removed.
type MuppetCase = (
    &'static str,
    &'static [&'static str],
    [&'static str; 2],
    &'static [&'static str],
    &'static [(&'static str, Phase)],
);

#[test]
fn muppet_cases_have_their_intended_results() {
    // Their `a` is 4afa9ff4..., `b` is 5c679a71...; "no-server" and "want-disabled" are both
    // servers that are not desired here.
    let cases: [MuppetCase; 6] = [
        // They reload. Nothing that is desired is up, so the one that has to go serves on for the
        // time being.
        ("no-server", &["a"], ["DOWN", "DOWN"], &[], &[("b", Phase::Waiting)]),
        (
            "no-server, and the other is up",
            &["a"],
            ["UP", "DOWN"],
            &["drain b/b"],
            &[("b", Phase::Draining)],
        ),
        ("want-disabled", &["a"], ["UP", "UP"], &["drain b/b"], &[("b", Phase::Draining)]),
        // Theirs leaves it in maintenance; ours is done when it is gone.
        ("all-in-sync", &["a"], ["UP", "MAINT"], &["delete b/b"], &[("b", Phase::Deleting)]),
        // Theirs is never content with a drained server; to ours it is a phase.
        (
            "drain-status-counts-as-enabled",
            &["a"],
            ["UP", "DRAIN"],
            &["b/b into maintenance"],
            &[("b", Phase::Maintenance)],
        ),
        (
            "mixed-no-server-and-want-disabled",
            &[],
            ["DOWN", "DOWN"],
            &["drain b/a", "drain b/b"],
            &[("a", Phase::Draining), ("b", Phase::Draining)],
        ),
    ];
    for (id, servers, [a, b], after, removing) in cases {
        let mut scene = Scene::new(OLD, [server("a", 1), server("b", 2)]);
        seen(&mut scene, "a", a);
        seen(&mut scene, "b", b);
        let mut backend = wanted(servers.iter().map(|name| server(name, host(name))));
        backend.manage = Manage::All;
        let plan = scene.plan(&desired(backend));
        assert_eq!(
            (words(&plan.before), words(&plan.after)),
            (vec![], after.iter().map(|step| (*step).to_owned()).collect()),
            "{id}"
        );
        assert_eq!((phases(&plan), causes(&plan)), (removing.to_vec(), vec![]), "{id}");
    }
    muppet_cases_of_other_shapes();
}

fn muppet_cases_of_other_shapes() {
    // addr-mismatch: they reload.
    let scene = Scene::new(OLD, [server("a", 1)]);
    assert_eq!(
        words(&scene.plan(&desired(wanted([server("a", 2)]))).before),
        ["move b/a to 10.0.0.2:8140"]
    );
    // empty-stats: nothing is wrong to them. To us the backend is missing.
    let plan = plan_servers(
        &desired(wanted([server("a", 1)])),
        &ObservedServers::new(),
        &ServerHistory::new(OLD),
    );
    assert_eq!(plan.needs_reload.len(), 1);
    // sync/unknown-row-is-an-error: a server that nobody knows is no reason to stop, it is foreign.
    let plan =
        Scene::new(OLD, [server("a", 1), server("b", 2)]).plan(&desired(wanted([server("a", 1)])));
    assert_eq!((plan.has_no_steps(), plan.foreign), (true, 1));
    // sync/two-disabled and re-enabled: theirs disables and shuts down at once. Ours drains, and
    // takes back what it took.
    let mut scene = Scene::new(OLD, [server("a", 1), server("b", 2), server("c", 3)]);
    let one = desired(former(wanted([server("a", 1)]), &["b", "c"]));
    assert_eq!(words(&scene.look(&one).after), ["drain b/b", "drain b/c"]);
    assert_eq!(words(&scene.look(&one).after), ["b/b into maintenance", "b/c into maintenance"]);
    let plan = scene.look(&desired(former(wanted([server("a", 1), server("b", 2)]), &["c"])));
    assert_eq!(
        (words(&plan.before), words(&plan.after)),
        (vec!["b/b is ready again".to_owned()], vec!["delete b/c".to_owned()])
    );
}
