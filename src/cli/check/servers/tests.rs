use mapsmith_core::Server;
use mapsmith_core::plan::servers::replay::added;
use mapsmith_core::server::{
    AdminState, DesiredBackend, ObservedBackend, ServerAddress, ServerOptions,
};

use super::*;

const OLD: HaproxyVersion = HaproxyVersion { major: 3, minor: 0 };
const NEW: HaproxyVersion = HaproxyVersion { major: 3, minor: 4 };

fn server(name: &str) -> Server {
    Server {
        name: name.to_owned(),
        address: ServerAddress { ip: [10, 0, 0, 1].into(), port: 8140 },
        weight: None,
        backup: false,
        options: ServerOptions::default(),
    }
}

fn observed(algorithm: &str, servers: &[&str]) -> ObservedServers {
    let servers = servers.iter().map(|name| ((*name).to_owned(), added(&server(name)))).collect();
    let algorithm = Some(algorithm.to_owned());
    [("puppet".to_owned(), ObservedBackend { algorithm, servers })].into()
}

fn desired(backend: &str, defaults: Option<&str>, servers: &[&str]) -> DesiredServers {
    let servers = servers.iter().map(|name| ((*name).to_owned(), server(name))).collect();
    let defaults = defaults.map(str::to_owned);
    let wanted = DesiredBackend { servers, defaults, ..DesiredBackend::default() };
    DesiredServers { number: 1, backends: [(backend.to_owned(), wanted)].into() }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_master_that_the_daemon_will_add_is_not_missing() {
    let seen = observed("roundrobin", &["m1"]);
    let wanted = desired("puppet", None, &["m1", "m2"]);
    assert_eq!(
        check_masters(&seen, &names(&["m1", "m2"]), &wanted, OLD, FileOf::Others).unwrap(),
        "2 masters in the map, 1 of them here and ready; will be added by \
         `mapsmith run`: puppet/m2"
    );
    let error = check_masters(&seen, &names(&["m1", "m2", "m3"]), &wanted, OLD, FileOf::Others)
        .unwrap_err();
    assert!(error.starts_with("no backend or server is named m3: add them"), "{error}");
    assert!(error.ends_with("; will be added by `mapsmith run`: puppet/m2"), "{error}");
}

#[test]
fn what_no_command_can_add_is_told_with_its_cause() {
    let seen = observed("static-rr", &["m1"]);
    let wanted = desired("puppet", None, &["m1", "m2"]);
    let error =
        check_masters(&seen, &names(&["m1", "m2"]), &wanted, OLD, FileOf::Others).unwrap_err();
    assert!(
        error.starts_with("m2 can't be added without a reload of HAProxy: puppet: `balance static"),
        "{error}"
    );
    // A backend that is missing can be made from 3.4 on, where the settings say of what.
    let wanted = desired("m9", Some("masters"), &["s1"]);
    let told =
        |version| check_masters(&seen, &names(&["m1", "m9"]), &wanted, version, FileOf::Others);
    assert!(told(NEW).unwrap().ends_with(": the backend m9"), "{:?}", told(NEW));
    assert!(told(OLD).unwrap_err().contains("the backend is missing"), "{:?}", told(OLD));
}

#[test]
fn what_a_rendered_file_has_comes_with_it_and_is_not_missing() {
    let seen = observed("static-rr", &["m1"]);
    let check = |wanted: &DesiredServers, masters: &[&str]| {
        check_masters(&seen, &names(masters), wanted, OLD, FileOf::Mapsmith)
    };
    let wanted = desired("puppet", None, &["m1", "m2"]);
    let told = check(&wanted, &["m1", "m2"]).unwrap();
    assert!(told.ends_with("will be added by `mapsmith run`: puppet/m2"), "{told}");
    let wanted = desired("masters", None, &["m2", "m3"]);
    let told = check(&wanted, &["m2", "m3", "masters"]).unwrap();
    assert!(told.ends_with("masters/m2, masters/m3, the backend masters"), "{told}");
    let error = check(&wanted, &["m4"]).unwrap_err();
    assert!(error.starts_with("no backend or server is named m4"), "{error}");
}

#[test]
fn each_server_that_is_down_is_named_with_what_its_check_found_and_none_that_was_taken_out() {
    let mut seen = observed("roundrobin", &["bare", "out", "refused", "tls", "up"]);
    let servers = &mut seen.get_mut("puppet").unwrap().servers;
    for (name, last_check) in
        [("refused", "Layer4 connection problem"), ("tls", NO_HTTP[0]), ("bare", ""), ("out", "")]
    {
        let server = servers.get_mut(name).unwrap();
        server.running = false;
        last_check.clone_into(&mut server.last_check);
        "DOWN (agent)".clone_into(&mut server.status);
    }
    servers.get_mut("out").unwrap().admin = AdminState(AdminState::MAINTENANCE);
    servers.get_mut("tls").unwrap().tls = true;
    assert_eq!(
        check_down(&seen).unwrap_err(),
        "3 servers are down: puppet/bare (DOWN (agent)), puppet/refused (Layer4 connection \
         problem), puppet/tls (Layer7 invalid response); what speaks TLS and was added at runtime \
         is checked in plain text unless its options have `check-ssl`: see to puppet/tls"
    );
    assert_eq!(check_down(&observed("roundrobin", &["up"])), Ok(()));
}
