use std::time::Duration;

use haproxy_runtime::Refusal;

use super::replay::{Process, added};
use super::*;
use crate::server::ServerOptions;

const OLD: HaproxyVersion = HaproxyVersion { major: 2, minor: 6 };
const NEW: HaproxyVersion = HaproxyVersion { major: 3, minor: 4 };
const BOUND: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_secs(10);

fn address(host: u8) -> ServerAddress {
    ServerAddress { ip: [10, 0, 0, host].into(), port: 8140 }
}

fn server(name: &str, host: u8) -> Server {
    Server {
        name: name.to_owned(),
        address: address(host),
        weight: None,
        backup: false,
        options: ServerOptions::default(),
    }
}

fn checked(name: &str, host: u8) -> Server {
    Server {
        options: ServerOptions { check: true, ..ServerOptions::default() },
        ..server(name, host)
    }
}

fn wanted(servers: impl IntoIterator<Item = Server>) -> DesiredBackend {
    let servers = servers.into_iter().map(|server| (server.name.clone(), server)).collect();
    DesiredBackend { servers, drain: BOUND, ..DesiredBackend::default() }
}

fn former(mut backend: DesiredBackend, names: &[&str]) -> DesiredBackend {
    backend.former = names.iter().map(|name| (*name).to_owned()).collect();
    backend
}

fn desired(backend: DesiredBackend) -> DesiredServers {
    DesiredServers { number: 1, backends: [("b".to_owned(), backend)].into() }
}

/// A process with one backend `b`, and the memory of a Mapsmith that has just met it.
struct Scene {
    process: Process,
    memory: ServerHistory,
}

impl Scene {
    fn new(version: HaproxyVersion, servers: impl IntoIterator<Item = Server>) -> Self {
        let servers =
            servers.into_iter().map(|server| (server.name.clone(), added(&server))).collect();
        let backend = ObservedBackend { algorithm: Some("roundrobin".to_owned()), servers };
        let process = Process::new(version, [("b".to_owned(), backend)].into());
        Self { process, memory: ServerHistory::new(version) }
    }

    /// The same backend with these slots of `server-template slot`, as it starts: disabled and
    /// without an address.
    fn slots(mut self, count: usize) -> Self {
        for number in 1..=count {
            let mut slot = added(&server("slot", 0));
            slot.address = Some([0, 0, 0, 0].into());
            slot.admin = AdminState(AdminState::MAINTENANCE | AdminState::CONFIGURED_MAINTENANCE);
            slot.running = false;
            self.backend().servers.insert(format!("slot{number}"), slot);
        }
        self
    }

    fn algorithm(mut self, algorithm: &str) -> Self {
        self.backend().algorithm = Some(algorithm.to_owned());
        self
    }

    fn backend(&mut self) -> &mut ObservedBackend {
        self.process.servers.get_mut("b").expect("the backend")
    }

    fn server(&mut self, name: &str) -> &mut ObservedServer {
        self.backend().servers.get_mut(name).unwrap_or_else(|| panic!("no server {name}"))
    }

    /// A person's command.
    fn external(&mut self, admin: u32, name: &str) {
        let (backend, server) = ("b".to_owned(), name.to_owned());
        let step = match admin {
            AdminState::MAINTENANCE => ServerStep::Maintain { backend, server },
            AdminState::DRAIN => ServerStep::Drain { backend, server },
            _ => ServerStep::Ready { backend, server, once_checked: false },
        };
        self.process.apply(&step).expect("a person's command is taken");
    }

    fn plan(&self, desired: &DesiredServers) -> ServerPlan {
        plan_servers(desired, &self.process.servers, &self.memory)
    }

    /// One look: plans and does it. Checks that were waited for have passed before it.
    fn look(&mut self, desired: &DesiredServers) -> ServerPlan {
        self.process.pass_checks();
        self.look_at_once(desired)
    }

    fn look_at_once(&mut self, desired: &DesiredServers) -> ServerPlan {
        let plan = self.plan(desired);
        self.memory.planned(&plan, &self.process.servers);
        for step in plan.before.iter().chain(&plan.after) {
            self.memory.sending(step);
            let answer = self.process.apply(step);
            self.memory.answered(step, answer);
        }
        self.memory.advance(LOOK);
        plan
    }

    fn restart_mapsmith(&mut self) {
        self.memory = ServerHistory::new(self.process.version);
    }
}

fn words(steps: &[ServerStep]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

fn causes(plan: &ServerPlan) -> Vec<String> {
    plan.needs_reload.iter().map(ToString::to_string).collect()
}

fn phases(plan: &ServerPlan) -> Vec<(&str, Phase)> {
    plan.removing.iter().map(|removing| (removing.server.as_str(), removing.phase)).collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_missing_server_is_added_before_the_map_and_a_second_look_sends_nothing() {
    let mut scene = Scene::new(OLD, [server("a", 1)]);
    let desired = desired(wanted([server("a", 1), checked("c", 3)]));
    let plan = scene.look(&desired);
    assert_eq!(
        (words(&plan.before), words(&plan.after)),
        (vec!["add b/c at 10.0.0.3:8140".to_owned()], vec![])
    );
    assert_eq!(scene.look(&desired), ServerPlan::default());
}

#[test]
fn a_new_server_is_waited_for_until_its_check_has_passed_or_failed_or_long_enough() {
    let desired = desired(wanted([server("a", 1), checked("c", 3)]));
    let checking = |scene: &Scene| {
        scene.plan(&desired).checking.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let added = || {
        let mut scene = Scene::new(OLD, [server("a", 1)]);
        scene.look(&desired);
        assert_eq!(checking(&scene), ["b/c: waiting for its health check to pass"]);
        assert!(!scene.server("c").running && scene.plan(&desired).has_no_steps());
        scene
    };
    let mut passed = added();
    passed.process.pass_checks();
    assert_eq!(checking(&passed), NOTHING);
    let mut failed = added();
    failed.server("c").check_failed = true;
    assert_eq!(checking(&failed), NOTHING);
    // And a failure that passes later is HAProxy's affair.
    failed.look_at_once(&desired);
    failed.server("c").check_failed = false;
    assert_eq!(checking(&failed), NOTHING);
    let mut silent = added();
    for _ in 0..3 {
        silent.look_at_once(&desired);
    }
    assert_eq!(checking(&silent), NOTHING, "it is waited for no more");
}

#[test]
fn a_server_that_leaves_no_other_up_is_alone_while_it_waits_for_its_check() {
    for (others, alone) in [(vec![], true), (vec![server("a", 1)], false)] {
        let mut scene = Scene::new(OLD, others.clone());
        let desired = desired(wanted(others.into_iter().chain([checked("c", 3)])));
        scene.look(&desired);
        assert_eq!(
            scene.plan(&desired).checking.iter().map(|server| server.alone).collect::<Vec<_>>(),
            [alone]
        );
    }
}

#[test]
fn what_comes_out_of_maintenance_with_a_check_is_down_until_that_has_passed() {
    // Our own maintenance, when the server is listed again.
    let mut scene = Scene::new(OLD, [server("a", 1), checked("c", 3)]);
    let without = desired(former(wanted([server("a", 1)]), &["c"]));
    scene.server("c").sessions = 1;
    scene.look(&without);
    scene.server("c").sessions = 0;
    scene.look(&without);
    assert!(scene.server("c").admin.in_maintenance());
    let with = desired(wanted([server("a", 1), checked("c", 3)]));
    scene.look(&with);
    assert!(scene.server("c").admin.ready() && !scene.server("c").running);
    scene.look(&with);
    assert!(scene.server("c").running);
    // A drain leaves the check running, so the server is known to be up.
    scene.look(&without);
    assert!(scene.server("c").admin.draining());
    scene.look_at_once(&with);
    assert!(scene.server("c").admin.ready() && scene.server("c").running);
}

#[test]
fn a_free_slot_with_a_check_is_down_until_that_has_passed() {
    let mut scene = Scene::new(OLD, []).slots(1).algorithm("static-rr");
    scene.server("slot1").check_configured = true;
    scene.server("slot1").check_enabled = true;
    let mut backend = wanted([server("a", 1)]);
    backend.slots = Some("slot".to_owned());
    let desired = desired(backend);
    scene.look(&desired);
    assert!(scene.server("slot1").admin.ready() && !scene.server("slot1").running);
    assert_eq!(scene.look(&desired).checking, []);
    assert!(scene.server("slot1").running);
}

#[test]
fn an_agents_weight_is_left_to_it_and_told() {
    let mut scene = Scene::new(OLD, [server("a", 1)]);
    let weighed = Server { weight: Some(100), ..server("a", 1) };
    let desired = desired(wanted([weighed]));
    scene.look(&desired);
    assert_eq!(scene.server("a").weight, 100);
    scene.server("a").agent_enabled = true;
    for weight in [30, 70, 30] {
        scene.server("a").weight = weight;
        let plan = scene.look(&desired);
        assert!(plan.has_no_steps(), "{plan:?}");
        assert_eq!(
            plan.by_agent[0].to_string(),
            format!("b/a: weight {weight} by its agent, 100 is listed")
        );
    }
    scene.server("a").weight = 100;
    assert_eq!(scene.look(&desired), ServerPlan::default());
}

#[test]
fn a_server_with_a_new_address_weight_and_limit_is_changed_in_place() {
    let mut scene = Scene::new(OLD, [server("a", 1)]);
    scene.server("a").sessions = 7;
    let mut moved = server("a", 2);
    moved.weight = Some(50);
    moved.options.maxconn = Some(100);
    let desired = desired(wanted([moved]));
    let plan = scene.look(&desired);
    assert_eq!(
        words(&plan.before),
        ["move b/a to 10.0.0.2:8140", "weight 50 for b/a", "maxconn 100 for b/a"]
    );
    assert_eq!(words(&plan.after), NOTHING);
    assert_eq!(scene.look(&desired), ServerPlan::default());
}

#[test]
fn what_is_not_said_of_a_server_is_left_as_it_is() {
    let mut scene = Scene::new(OLD, [checked("a", 1)]);
    scene.server("a").weight = 77;
    scene.server("a").maxconn = Some(9);
    scene.server("a").maxqueue = Some(9);
    assert_eq!(scene.plan(&desired(wanted([server("a", 1)]))), ServerPlan::default());
}

#[test]
fn no_limit_and_a_limit_of_zero_are_the_same() {
    let mut unlimited = server("a", 1);
    unlimited.options.maxconn = Some(0);
    unlimited.options.maxqueue = Some(0);
    let mut scene = Scene::new(OLD, [server("a", 1)]);
    assert_eq!(scene.look(&desired(wanted([unlimited.clone()]))), ServerPlan::default());
    scene.server("a").maxconn = Some(5);
    assert_eq!(words(&scene.look(&desired(wanted([unlimited]))).before), ["maxconn 0 for b/a"]);
    assert_eq!(scene.server("a").maxconn, None);
}

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
        ["b: the `defaults` section does not serve: Cannot find default proxy 'masters'."]
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
    assert!(
        matches!(&plan.needs_reload[0].cause, Cause::ResolvedByName { fqdn } if fqdn == "b.example.test")
    );
    scene.memory.answered(&plan.before[0], Ok(()));
    scene.memory.planned(&plan, &scene.process.servers);
    let plan = scene.plan(&moved);
    assert!(plan.has_no_steps(), "{:?}", plan.before);
    assert_eq!(plan.needs_reload.len(), 2);
    assert!(
        matches!(&plan.needs_reload[0].cause, Cause::ResolvedByName { fqdn } if fqdn == "a.example.test")
    );
    let plan = scene.plan(&desired(wanted([server("a", 7), server("b", 6)])));
    assert_eq!(plan.before.len(), 1, "another address is tried again");
}

fn slotted(servers: impl IntoIterator<Item = Server>) -> DesiredServers {
    let mut backend = wanted(servers);
    backend.slots = Some("slot".to_owned());
    desired(backend)
}

#[test]
fn slots_are_used_only_where_no_server_can_be_added() {
    let mut scene = Scene::new(OLD, []).slots(2);
    assert_eq!(words(&scene.look(&slotted([server("a", 1)])).before), ["add b/a at 10.0.0.1:8140"]);

    let mut scene = Scene::new(OLD, []).slots(2).algorithm("static-rr");
    let three = slotted([server("a", 1), server("b", 2), server("c", 3)]);
    let plan = scene.look(&three);
    assert_eq!(
        words(&plan.before),
        ["slot b/slot1 serves a at 10.0.0.1:8140", "slot b/slot2 serves b at 10.0.0.2:8140"]
    );
    assert_eq!(plan.needs_reload.len(), 1);
    assert!(
        matches!(&plan.needs_reload[0].cause, Cause::NoFreeSlot { prefix, .. } if prefix == "slot"),
        "{:?}",
        causes(&plan)
    );
    let again = scene.look(&three);
    assert!(again.has_no_steps());
    assert_eq!(again.needs_reload, plan.needs_reload);
}

#[test]
fn a_slot_keeps_its_server_whoever_comes_and_goes_and_is_free_again_after_its_removal() {
    let mut scene = Scene::new(OLD, []).slots(3).algorithm("static-rr");
    scene.look(&slotted([server("m", 1), server("n", 2)]));
    let one = slotted([server("a", 3), server("n", 2)]);
    let plan = scene.look(&one);
    assert_eq!(words(&plan.before), ["slot b/slot3 serves a at 10.0.0.3:8140"]);
    assert_eq!(words(&plan.after), ["drain b/slot1"]);
    let steps: Vec<_> = (0..5).flat_map(|_| words(&scene.look(&one).after)).collect();
    assert_eq!(steps, ["b/slot1 into maintenance", "slot b/slot1 is free"]);
    // Cleared, it is told from one that a person took out, even by a Mapsmith that remembers
    // nothing.
    scene.restart_mapsmith();
    let back = slotted([server("a", 3), server("m", 1), server("n", 2)]);
    assert_eq!(words(&scene.look(&back).before), ["slot b/slot1 serves m at 10.0.0.1:8140"]);
}

#[test]
fn a_slot_that_a_person_took_out_stays_out_and_no_other_takes_its_place() {
    let mut scene = Scene::new(OLD, []).slots(3).algorithm("static-rr");
    let two = slotted([server("a", 1), server("b", 2)]);
    scene.look(&two);
    scene.external(AdminState::MAINTENANCE, "slot1");
    scene.restart_mapsmith();
    let plan = scene.look(&two);
    assert!(plan.has_no_steps(), "{plan:?}");
    assert_eq!(
        plan.external,
        [ExternalChange {
            backend: "b".to_owned(),
            server: "slot1".to_owned(),
            hand: Hand::Maintenance
        }]
    );
}

#[test]
fn of_two_slots_at_one_address_the_one_that_serves_is_kept() {
    let mut scene = Scene::new(OLD, []).slots(2).algorithm("static-rr");
    scene.server("slot1").address = Some(address(1).ip);
    scene.server("slot1").port = address(1).port;
    *scene.server("slot2") = added(&server("a", 1));
    assert_eq!(scene.look(&slotted([server("a", 1)])), ServerPlan::default());
}

#[test]
fn full_slots_can_be_replaced_as_a_whole() {
    let mut scene = Scene::new(OLD, []).slots(2).algorithm("static-rr");
    scene.look(&slotted([server("a", 1), server("b", 2)]));
    let others = slotted([server("c", 3), server("d", 4)]);
    assert_eq!(
        words(&scene.look(&others).before),
        ["slot b/slot1 serves c at 10.0.0.3:8140", "slot b/slot2 serves d at 10.0.0.4:8140"]
    );
    assert_eq!(scene.look(&others), ServerPlan::default());
}

#[test]
fn a_backup_takes_a_backup_slot_and_no_other() {
    let mut scene = Scene::new(OLD, []).slots(2).algorithm("static-rr");
    scene.server("slot2").backup = true;
    let mut spare = server("a", 1);
    spare.backup = true;
    assert_eq!(
        words(&scene.look(&slotted([spare])).before),
        ["slot b/slot2 serves a at 10.0.0.1:8140"]
    );
    assert_eq!(
        words(&scene.look(&slotted([server("b", 2)])).before),
        ["slot b/slot1 serves b at 10.0.0.2:8140"]
    );
}

#[test]
fn slots_that_haproxy_fills_by_itself_are_not_touched() {
    let mut scene = Scene::new(OLD, []).slots(1).algorithm("static-rr");
    scene.server("slot1").fqdn = Some("masters.example.test".to_owned());
    let plan = scene.look(&slotted([server("a", 1)]));
    assert!(plan.has_no_steps());
    assert_eq!((plan.needs_reload.len(), plan.foreign), (1, 1));
}

// The cases of two other updaters, `lwf/proxymgr` (proxymgr_updater.json) and
// `TritonDataCenter/muppet` (muppet_checkstats.json). They restart or reload for what we change at
// runtime, and undo what a person did; the results here are the intended ones. What they call a
// server's name is ours; all listen on one host each.

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

#[test]
fn proxymgr_cases_have_their_intended_results() {
    /// id, desired, no longer desired, reported, steps before the map, steps after it, what else is
    /// said.
    type Case = (
        &'static str,
        &'static [&'static str],
        &'static [&'static str],
        &'static [(&'static str, &'static str)],
        &'static [&'static str],
        &'static [&'static str],
        &'static str,
    );
    let cases: [Case; 7] = [
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

#[test]
fn muppet_cases_have_their_intended_results() {
    // Their `a` is 4afa9ff4..., `b` is 5c679a71...; "no-server" and "want-disabled" are both
    // servers that are not desired here.
    /// id, desired, how `a` and `b` are reported, steps after the map, what is being removed.
    type Case = (
        &'static str,
        &'static [&'static str],
        [&'static str; 2],
        &'static [&'static str],
        &'static [(&'static str, Phase)],
    );
    let cases: [Case; 6] = [
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

#[test]
fn a_former_server_that_somebody_brings_back_after_it_was_deleted_is_left_alone_until_it_was_desired_again()
 {
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
