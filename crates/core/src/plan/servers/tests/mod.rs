use std::time::Duration;

use haproxy_runtime::Refusal;

use super::replay::{Process, added};
use super::*;
use crate::server::ServerOptions;

mod cases;
mod drained;
mod leaving;
mod ordered;
mod refusals;
mod slots;

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
