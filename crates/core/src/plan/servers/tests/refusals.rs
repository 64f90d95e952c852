//! What HAProxy refuses.

use super::*;

#[test]
fn a_static_algorithm_is_named_and_asked_at_most_once() {
    let mut scene = Scene::new(OLD, []).algorithm("static-rr");
    let two = desired(wanted([server("a", 1), server("b", 2)]));
    let plan = scene.look(&two);
    assert!(plan.has_no_steps());
    assert_eq!(plan.needs_reload.len(), 2);

    let mut scene = Scene::new(OLD, []).algorithm("uri");
    scene.process.map_based.insert("b".to_owned());
    assert_eq!(scene.look(&two).before.len(), 2, "`hash-type` is not shown, so it is tried");
    let three = desired(wanted([server("a", 1), server("b", 2), server("c", 3)]));
    let plan = scene.look(&three);
    assert!(plan.has_no_steps(), "another server would be refused too");
    assert_eq!(plan.needs_reload.len(), 3);
    assert_eq!(
        causes(&plan)[0],
        "b/a: `balance uri` is static here: use roundrobin, leastconn, random or `hash-type \
            consistent`"
    );
}

#[test]
fn a_weight_that_a_static_algorithm_refuses_is_named_and_sent_once() {
    let mut scene = Scene::new(OLD, [server("a", 1)]).algorithm("static-rr");
    let mut heavy = server("a", 1);
    heavy.weight = Some(50);
    let heavy = desired(wanted([heavy]));
    assert_eq!(words(&scene.look(&heavy).before), ["weight 50 for b/a"]);
    let plan = scene.look(&heavy);
    assert!(plan.has_no_steps());
    assert_eq!(
        plan.needs_reload[0].cause,
        Cause::StaticAlgorithm { algorithm: Some("static-rr".to_owned()) }
    );
}

#[test]
fn a_refused_option_is_named_until_the_server_is_given_others() {
    let mut scene = Scene::new(OLD, []);
    scene.process.untaken.insert("cookie x".to_owned());
    let mut odd = server("a", 1);
    odd.options.other.push("cookie x".to_owned());
    let odd = desired(wanted([odd]));
    assert_eq!(scene.look(&odd).before.len(), 1);
    let plan = scene.look(&odd);
    assert!(plan.has_no_steps());
    assert_eq!(plan.needs_reload[0].cause, Cause::OptionNotTaken { text: "cookie x".to_owned() });
    assert_eq!(scene.look(&desired(wanted([server("a", 1)]))).before.len(), 1);
}

#[test]
fn a_missing_backend_is_made_where_haproxy_can_and_named_where_it_cannot() {
    let mut backend = wanted([server("a", 1)]);
    let bare = desired(backend.clone());
    backend.defaults = Some("masters".to_owned());
    let desired = desired(backend);
    let gone = |version| Scene {
        process: Process::new(version, ObservedServers::new()),
        memory: ServerHistory::new(version),
    };
    let mut scene = gone(NEW);
    scene.process.defaults.insert("masters".to_owned(), "unknown".to_owned());
    assert_eq!(
        words(&scene.look(&desired).before),
        ["add backend b from masters", "add b/a at 10.0.0.1:8140"]
    );
    assert_eq!(scene.look(&desired), ServerPlan::default());

    let plan = gone(OLD).look(&desired);
    assert!(plan.has_no_steps());
    assert_eq!(
        causes(&plan),
        ["b: the backend is missing and HAProxy 2.6 can't add one (3.4 and later can): write \
                it into the configuration"]
    );
    assert_eq!(
        causes(&gone(NEW).look(&bare)),
        ["b: the backend is missing: name the `defaults` to make it from, or write it into the \
                configuration"]
    );

    let mut scene = gone(NEW);
    scene.look(&desired);
    let plan = scene.look(&desired);
    assert!(plan.has_no_steps(), "there are no such defaults");
    assert_eq!(
        causes(&plan),
        ["b: the `defaults` section cannot be used: Cannot find default proxy 'masters'."]
    );
}

#[test]
fn what_cannot_be_changed_at_runtime_is_named() {
    let mut other = checked("a", 1);
    other.backup = true;
    other.options.maxqueue = Some(5);
    let plan = Scene::new(NEW, [server("a", 1)]).plan(&desired(wanted([other])));
    assert!(plan.has_no_steps());
    let found: Vec<_> = plan.needs_reload.into_iter().map(|needs| needs.cause).collect();
    assert_eq!(
        found,
        [Cause::Backup { wanted: true }, Cause::Maxqueue { wanted: 5 }, Cause::Check]
    );
}

#[test]
fn an_option_that_haproxy_does_not_show_is_named_once_it_changes() {
    let with = |option: &str| {
        let mut server = server("a", 1);
        server.options.other = vec![option.to_owned()];
        desired(wanted([server]))
    };
    let mut scene = Scene::new(NEW, []);
    let named = |scene: &mut Scene, desired: &DesiredServers| {
        scene.memory.observed(desired, &scene.process.servers);
        let plan = scene.look(desired);
        plan.needs_reload.into_iter().map(|needs| needs.cause).collect::<Vec<_>>()
    };
    // Added with it, and seen with it after a restart.
    assert_eq!(named(&mut scene, &with("ssl")), []);
    assert_eq!(named(&mut scene, &with("ssl")), []);
    let wanted = "send-proxy".to_owned();
    assert_eq!(named(&mut scene, &with("send-proxy")), [Cause::Options { wanted }]);
    assert_eq!(named(&mut scene, &with("ssl")), [], "changed back");
    scene.restart_mapsmith();
    assert_eq!(named(&mut scene, &with("send-proxy")), []);
    let wanted = "ssl".to_owned();
    assert_eq!(named(&mut scene, &with("ssl")), [Cause::Options { wanted }]);
    let wanted = "agent-send password=***".to_owned();
    let secret = with("agent-send password=geheim");
    assert_eq!(named(&mut scene, &secret), [Cause::Options { wanted }]);
}

#[test]
fn the_address_of_a_name_that_haproxy_resolves_is_left_to_it() {
    let mut scene = Scene::new(OLD, [server("a", 1), server("b", 2)]);
    for name in ["a", "b"] {
        scene.server(name).fqdn = Some(format!("{name}.example.test"));
    }
    scene.server("b").address = None;
    scene.server("b").admin = AdminState(AdminState::UNRESOLVED);
    assert_eq!(
        scene.plan(&desired(wanted([server("a", 1)]))).needs_reload,
        [],
        "it happens to be right"
    );
    // Whether it is resolved but once, at the start, can't be seen: an address is given, and given
    // up when it is undone.
    let moved = desired(wanted([server("a", 5), server("b", 6)]));
    let plan = scene.plan(&moved);
    assert!(
        matches!(&plan.before[..], [ServerStep::SetAddress { server, .. }] if server == "a"),
        "{:?}",
        plan.before
    );
    assert_eq!(plan.needs_reload.len(), 1);
    let fqdn = "b.example.test".to_owned();
    assert_eq!(plan.needs_reload[0].cause, Cause::ResolvedByName { fqdn });
    scene.memory.answered(&plan.before[0], Ok(()));
    scene.memory.planned(&plan, &scene.process.servers);
    let plan = scene.plan(&moved);
    assert!(plan.has_no_steps(), "{:?}", plan.before);
    assert_eq!(plan.needs_reload.len(), 2);
    let fqdn = "a.example.test".to_owned();
    assert_eq!(plan.needs_reload[0].cause, Cause::ResolvedByName { fqdn });
    let plan = scene.plan(&desired(wanted([server("a", 7), server("b", 6)])));
    assert_eq!(plan.before.len(), 1, "another address is tried again");
}

#[test]
fn a_former_server_that_comes_back_after_it_was_deleted_is_left_alone_until_it_is_desired_again() {
    let mut scene = Scene::new(OLD, [server("a", 1), server("b", 2)]);
    let gone = desired(former(wanted([server("a", 1)]), &["b"]));
    let look = |scene: &mut Scene, desired: &DesiredServers| {
        scene.memory.desired(desired);
        scene.look(desired)
    };
    (0..5).for_each(|_| drop(look(&mut scene, &gone)));
    assert!(!scene.backend().servers.contains_key("b"));
    let again = ServerStep::Add { backend: "b".to_owned(), server: server("b", 2) };
    scene.process.apply(&again).unwrap();
    let plan = look(&mut scene, &gone);
    assert!(plan.has_no_steps() && plan.foreign == 1, "{plan:?}");
    look(&mut scene, &desired(wanted([server("a", 1), server("b", 2)])));
    (0..5).for_each(|_| drop(look(&mut scene, &gone)));
    assert!(!scene.backend().servers.contains_key("b"), "it was ours again");
}

#[test]
fn a_backend_that_cannot_be_made_because_its_name_is_taken_is_tried_once_and_named() {
    let mut scene = Scene::new(NEW, []);
    let mut backend = wanted([server("a", 1)]);
    backend.defaults = Some("d".to_owned());
    let desired = DesiredServers { number: 1, backends: [("taken".to_owned(), backend)].into() };
    let plan = scene.plan(&desired);
    assert!(!plan.has_no_steps());
    scene.memory.answered(&plan.before[0], Err(Refusal::NameTaken));
    let plan = scene.plan(&desired);
    assert!(plan.has_no_steps(), "{plan:?}");
    assert_eq!(causes(&plan), ["taken: the name is taken"]);
}
