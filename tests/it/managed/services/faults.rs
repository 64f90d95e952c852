//! Services that can't be, and registries that say nothing.

use std::fs;
use std::net::{TcpListener, TcpStream};

use serde_json::json;

use super::{
    Client, Ground, Managed, Mapsmith, PATIENCE, Site, ZooKeeper, declare, free_port, register,
    service,
};
use crate::managed::attached;
use crate::support::master::Master;
use crate::support::process::Process;
use crate::support::scene::{metric, newest, oldest_and_newest, printed};

const REJECTED: &str = "mapsmith_services_rejected";

#[test]
fn what_is_no_service_is_rejected_with_its_reason_and_the_others_go_on() {
    let [web, api] = ["web", "api"].map(Master::start);
    let [port, late, own] = [(); 3].map(|()| free_port());
    let site = Site::start(newest(), &web, port, "");
    let others = Client::start(port, "web");
    let bad = |name: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let mut service = site.service(name, own);
        change(&mut service);
        site.declare(name, &service);
    };
    site.zookeeper.create("/service_config/text", "port = 8080");
    bad("kind", &|service| service["type"] = json!("NonExisting"));
    bad("line", &|service| service["listen_options"] = json!(["mode http", "made-up 1"]));
    bad("file", &|service| service["listen_options"] = json!(["errorfile 503 /etc/shadow"]));
    bad("option", &|service| service["server_options"] = json!(["check intre 2000"]));
    bad("injected", &|service| service["listen_options"] = json!(["mode http\nbind :1"]));
    bad("taken", &|service| service["port"] = json!(port));
    bad("shop-listen", &|_| {});
    let own_port = site.managed.ground.web.port();
    bad("shadowed", &|service| service["port"] = json!(own_port));
    for (name, part) in [
        ("text", "it is not JSON"),
        ("kind", "type: \\\"NonExisting\\\" is none of"),
        ("line", "listen_options[1]: \\\"made-up 1\\\" is no line"),
        ("file", "\\\"/etc/shadow\\\" is not below services.files"),
        ("option", "server_options: \\\"intre\\\" is not a server option"),
        ("injected", "line break"),
        ("taken", "port: the service shop listens on"),
        ("shop-listen", "the service shop has its name"),
        ("shadowed", "port: the frontend web of the settings listens"),
    ] {
        let rejected = site.wait_for_rejected(name, part);
        assert_eq!(rejected["keeps_last_good"], false, "{rejected}");
    }
    register(&site.zookeeper, "late", &api);
    site.declare("late", &site.service("late", late));
    site.wait_for_answer(late, "api");

    // One that was good stays as it was.
    site.change("late", "{");
    let rejected = site.wait_for_rejected("late", "it is not JSON");
    assert_eq!(rejected["keeps_last_good"], true, "{rejected}");
    site.wait_for_answer(late, "api");
    let rejected = metric(&site.managed.mapsmith, &format!("{REJECTED}{{by=\"mapsmith\"}}"));
    assert_eq!(rejected, Some(10.0));
    others.assert_all_answered();
}

#[test]
fn a_service_that_haproxy_refuses_keeps_its_last_good_form_until_it_is_corrected() {
    for binary in oldest_and_newest() {
        let [web, api] = ["web", "api"].map(Master::start);
        let [port, other] = [(); 2].map(|()| free_port());
        let site = Site::start(binary, &web, port, "");
        let others = Client::start(port, "web");
        let mut refused = site.service("shop", port);
        refused["listen_options"] = json!(["mode http", "http-request made-up"]);
        site.change("shop", &refused.to_string());
        let rejected = site.wait_for_rejected("shop", "HAProxy refuses it");
        assert_eq!(rejected["keeps_last_good"], true, "{rejected}");
        assert!(rejected["reason"].to_string().contains("listen_options"), "{rejected}");

        // What was never good is left out.
        let mut refused = site.service("api", other);
        refused["listen_options"] = json!(["mode http", "http-response made-up"]);
        register(&site.zookeeper, "api", &api);
        site.declare("api", &refused);
        let rejected = site.wait_for_rejected("api", "HAProxy refuses it");
        assert_eq!(rejected["keeps_last_good"], false, "{rejected}");
        site.managed.mapsmith.wait_for("both are quarantined", PATIENCE, |_| {
            let status = site.managed.status();
            let object = |at: usize| status["quarantined"][at]["object"].as_str();
            let both = [object(0), object(1)] == [Some("service api"), Some("service shop")];
            (both && status["state"]["state"] == "in_force").then_some(())
        });

        site.change("api", &site.service("api", other).to_string());
        site.wait_for_answer(other, "api");
        site.change("shop", &site.service("shop", port).to_string());
        site.wait_until_none_is_rejected();
        site.managed.mapsmith.wait_for("none is quarantined", PATIENCE, |_| {
            let status = site.managed.status();
            let none = status["quarantined"].is_null();
            (none && status["state"]["state"] == "in_force").then_some(())
        });
        others.assert_all_answered();
    }
}

#[test]
fn a_port_that_another_program_has_keeps_only_its_own_service_out() {
    let [web, api] = ["web", "api"].map(Master::start);
    let [port, other] = [(); 2].map(|()| free_port());
    for hold_sockets in ["", "[haproxy]\nhold_sockets = true"] {
        let mut site = Site::start(newest(), &web, port, "");
        if !hold_sockets.is_empty() {
            let text = site.managed.mapsmith.configuration().path();
            let settings = std::fs::read_to_string(&text).expect("the settings");
            let held = settings.replacen("[haproxy]", hold_sockets, 1);
            std::fs::write(&text, held).expect("the settings can be written");
            site.managed.mapsmith.hangup();
            site.managed.wait_for_log("going on with the changed settings");
        }
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port_taken = taken.local_addr().expect("its address").port();
        site.declare("taken", &site.service("taken", port_taken));
        site.wait_for_rejected("taken", "is taken by another program");
        register(&site.zookeeper, "api", &api);
        site.declare("api", &site.service("api", other));
        site.wait_for_answer(other, "api");
    }
}

#[test]
fn a_port_that_a_haproxy_of_others_can_not_have_keeps_only_its_own_service_out() {
    let [web, api] = ["web", "api"].map(Master::start);
    let [port, other] = [(); 2].map(|()| free_port());
    let zookeeper = ZooKeeper::start();
    declare(&zookeeper, "shop", &service(&zookeeper, "shop", port));
    register(&zookeeper, "shop", &web);
    let (site, _process) = attached_site(zookeeper, "");
    site.wait_for_answer(port, "web");
    let others = Client::start(port, "web");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port_taken = taken.local_addr().expect("its address").port();
    site.declare("taken", &site.service("taken", port_taken));
    let rejected = site.wait_for_rejected("taken", "is taken by another program");
    assert_eq!(rejected["keeps_last_good"], false, "{rejected}");
    register(&site.zookeeper, "api", &api);
    site.declare("api", &site.service("api", other));
    site.wait_for_answer(other, "api");
    others.assert_all_answered();
}

#[test]
fn an_address_that_only_the_reload_shows_to_be_none_keeps_its_service_out_too() {
    let zookeeper = ZooKeeper::start();
    zookeeper.create("/service_config", "");
    // Of a network that is for documents.
    let (site, _process) = attached_site(zookeeper, "address = \"192.0.2.1\"\nempty = \"accept\"");
    site.managed.wait_for_word("own");
    site.managed.wait_for_state("in_force");
    site.declare("far", &site.service("far", free_port()));
    site.wait_for_rejected("far", "cannot bind socket");
    site.managed.wait_for_state("in_force");
    site.managed.wait_for_word("own");
}

/// With a HAProxy that the test runs, whose file Mapsmith has taken over.
fn attached_site(zookeeper: ZooKeeper, more: &str) -> (Site, Process) {
    let ground = Ground::new(newest());
    let process = attached::haproxy(&ground);
    let text = attached::settings(&ground, "own") + &super::settings(&ground, &zookeeper, more);
    let managed = Managed { mapsmith: Mapsmith::config(&text).start(), ground };
    managed.wait_for_state("edited");
    let taken = managed.mapsmith.configuration().cli(&["render", "--take-over"]);
    assert!(taken.status.success(), "{taken:?}");
    (Site { zookeeper, managed }, process)
}

#[test]
fn services_that_keep_changing_come_into_force_though_nobody_knows_one() {
    let web = Master::start("web");
    let [port, silent] = [(); 2].map(|()| free_port());
    let site = Site::start(newest(), &web, port, "");
    let others = Client::start(port, "web");
    let list = site.managed.ground.file("lists").join("nowhere");
    site.declare("silent", &json!({"type": "file", "file": list, "port": silent}));
    let mut seconds = 0;
    site.managed.mapsmith.wait_for("the new service listens meanwhile", PATIENCE, |_| {
        seconds += 1;
        let mut changed = site.service("shop", port);
        changed["listen_options"] = json!(["mode http", format!("timeout server {seconds}s")]);
        site.change("shop", &changed.to_string());
        TcpStream::connect(("127.0.0.1", silent)).ok()
    });
    others.assert_all_answered();
    // Whoever waits for a reload is told which source fails.
    let told = format!("nothing is known yet of what file:{}", list.display());
    site.managed.mapsmith.wait_for("a reload names the list", PATIENCE, |mapsmith| {
        let (code, text) = printed(&mapsmith.cli(&["reload", "--wait", "10s"]));
        (code != 0 && text.contains(&told)).then_some(())
    });
}

#[test]
fn a_service_that_nobody_knows_after_a_restart_keeps_its_servers_and_the_others_go_on() {
    let [web, far] = ["web", "far"].map(Master::start);
    let [port, next, last, by_file] = [(); 4].map(|()| free_port());
    let mut site = Site::start(newest(), &web, port, "");
    let folder = site.managed.ground.file("lists");
    fs::create_dir(&folder).expect("a folder");
    let list = folder.join("far");
    fs::write(&list, format!("{}\n", far.address())).expect("a list");
    let service = json!({
        "type": "file", "file": list, "port": by_file, "listen_options": ["mode http"],
    });
    site.declare("far", &service);
    site.wait_for_answer(by_file, "far");
    site.managed.wait_for_state("in_force");
    let (file, address) = (site.file(), far.address().to_string());
    let server = file.lines().find(|line| line.contains(&address)).expect("its server");

    // Without a store, or with a new one, nothing is known of it but what HAProxy has.
    let store = format!("[store]\npath = {:?}", site.managed.ground.file("db"));
    for (more, before, after) in [("", port, next), (store.as_str(), next, last)] {
        fs::remove_file(&list).expect("its list can be removed");
        let settings = super::settings(&site.managed.ground, &site.zookeeper, more);
        site.managed.write("own", &settings);
        let others = Client::start(by_file, "far");
        site.managed.mapsmith.restart();
        site.change("shop", &site.service("shop", after).to_string());
        site.wait_for_answer(after, "web");
        site.wait_until_closed(before);
        site.managed.wait_for_state("in_force");
        let file = site.file();
        assert!(file.lines().any(|line| line == server), "{more}: {server}: {file}");
        others.assert_all_answered();
        // It is one of the registry's again once that answers.
        for server in [&web, &far] {
            fs::write(&list, format!("{}\n", server.address())).expect("a list");
            site.wait_for_answer(by_file, server.name());
        }
        site.managed.mapsmith.wait_for("the file has it too", PATIENCE, |_| {
            site.file().lines().any(|line| line == server).then_some(())
        });
    }
}

#[test]
fn services_outlive_a_restart_while_zookeeper_is_down() {
    let [web, next] = ["web", "next"].map(Master::start);
    let port = free_port();
    for has_store in [true, false] {
        let ground_store = tempfile::tempdir().expect("a temporary folder");
        let database = ground_store.path().join("db");
        let store = format!("[store]\npath = {database:?}");
        let mut site = Site::start(newest(), &web, port, if has_store { &store } else { "" });
        let others = Client::start(port, "web");
        if has_store {
            site.managed.wait_for_state("in_force");
            site.managed.wait_for_stored(&database, "shop");
        }
        site.zookeeper.kill();
        site.managed.mapsmith.restart();
        let state = if has_store { "in_force" } else { "waiting" };
        let status = site.managed.wait_for_state(state);
        let services = site.status();
        if has_store {
            assert_eq!(services["in_force"][0]["name"], "shop", "{services:#}");
            assert!(services["stored_since"].is_string(), "{services:#}");
        } else {
            let reason = status["state"]["reason"].to_string();
            assert!(reason.contains("the services of the registry are not known"), "{status:#}");
            assert!(services["in_force"].is_null(), "{services:#}");
        }
        assert!(site.file().contains("frontend shop-listen"), "{}", site.file());
        site.zookeeper.restart();
        site.managed.wait_for_state("in_force");
        others.assert_all_answered();
        register(&site.zookeeper, "shop", &next);
        site.wait_for_answer(port, "next");
    }
}

#[test]
fn services_stay_while_changed_settings_lead_to_a_registry_that_does_not_answer() {
    let [web, next] = ["web", "next"].map(Master::start);
    let port = free_port();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let database = folder.path().join("db");
    let store = format!("[store]\npath = {database:?}");
    let mut site = Site::start(newest(), &web, port, &store);
    site.managed.wait_for_state("in_force");
    site.managed.wait_for_stored(&database, "shop");
    let server = web.address().to_string();
    let others = Client::start(port, "web");

    site.zookeeper.kill();
    let member = format!("servers = [\"{}\"", site.zookeeper.address());
    let settings = super::settings(&site.managed.ground, &site.zookeeper, &store);
    assert!(settings.contains(&member), "{settings}");
    let settings = settings.replace(&member, &format!("{member}, \"127.0.0.1:1\""));
    site.managed.change("own", &settings);
    site.managed.wait_for_log("going on with the changed settings");
    for restarts in [false, true] {
        if restarts {
            site.managed.mapsmith.restart();
        }
        // Those who have ended answer for a moment yet, with what they were told.
        site.managed.mapsmith.wait_for("the new members fail", PATIENCE, |_| {
            let source = &site.status()["source"];
            (source["error"].is_string() && source["answered_at"].is_null()).then_some(())
        });
        site.managed.wait_for_state("in_force");
        let status = site.status();
        assert_eq!(status["in_force"][0]["name"], "shop", "{status:#}");
        assert!(status["source"]["answered_at"].is_null(), "{status:#}");
        let file = site.file();
        assert!(file.contains("frontend shop-listen") && file.contains(&server), "{file}");
    }
    site.zookeeper.restart();
    others.assert_all_answered();
    register(&site.zookeeper, "shop", &next);
    site.wait_for_answer(port, "next");
}

#[test]
fn services_that_vanish_all_at_once_stay_until_approved_or_the_settings_say_otherwise() {
    let web = Master::start("web");
    let port = free_port();
    let mut site = Site::start(newest(), &web, port, "");
    site.remove("shop");
    site.managed.mapsmith.wait_for("the answer is held", PATIENCE, |_| {
        let held = site.status()["held"]["reason"].to_string();
        held.contains("all 1 in force would go; services.empty =").then_some(())
    });
    site.wait_for_answer(port, "web");
    let mapsmith = &site.managed.mapsmith;
    let id = site.status()["held"]["id"].as_str().expect("an id").to_owned();
    let (code, text) = printed(&mapsmith.cli(&["status"]));
    let told = "HELD BY THE GUARD: nothing of this change of the services is applied";
    let way = format!(
        "1 service in force, 0 held: 0 added, 0 moved, 1 removed\n  \
        let it through: mapsmith approve {id}\n"
    );
    assert!(code == 4 && text.contains(told) && text.contains(&way), "{code}: {text}");
    let (code, text) = printed(&mapsmith.cli(&["approve"]));
    assert!(code == 4 && text.contains(&id), "what is held: {code}: {text}");
    let output = mapsmith.cli(&["approve", "0123456789abcdef"]);
    assert!(output.status.code() == Some(4) || output.status.code() == Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("is not the one held back, {id} is")), "{said}");
    let (code, text) = printed(&mapsmith.cli(&["approve", &id]));
    assert!(code == 0 && text.contains("approved, and in force within seconds"), "{code}: {text}");
    site.wait_until_closed(port);
    assert!(site.status()["held"].is_null(), "{:#}", site.status());

    // What was approved is over: the next loss is held again.
    let shop = site.service("shop", port);
    site.declare("shop", &shop);
    site.wait_for_answer(port, "web");
    site.remove("shop");
    site.managed.mapsmith.wait_for("the answer is held again", PATIENCE, |_| {
        site.status()["held"]["id"].as_str().is_some().then_some(())
    });
    let ground = &site.managed.ground;
    let settings = super::settings(ground, &site.zookeeper, "empty = \"accept\"");
    site.managed.change("own", &settings);
    site.wait_until_closed(port);
}
