//! Metadata that is gone, wrong or hostile: what is in force stays, and says why.

use std::fs;

use serde_json::json;

use super::{
    Client, Ground, Managed, Mapsmith, MdataGet, Site, answer, free_port, service, settings,
};
use crate::support::master::Master;
use crate::support::scene::{newest, oldest_and_newest};

const HELD: &str = "mapsmith_services_held";

#[test]
fn metadata_that_is_gone_or_wholly_wrong_is_no_order_and_is_shown() {
    let web = Master::start("web");
    let port = free_port();
    let portmap = service("http", port, &web);
    let site = Site::start(newest(), &portmap, "");
    site.wait_for_answer(port, "web");
    let client = Client::start(port, "web");
    for (keys, part) in [
        (json!({}), "loadbalancer is not set"),
        (json!({"loadbalancer": "true"}), "portmap is not set"),
        (json!({"loadbalancer": "true", "portmap": ""}), "portmap is empty"),
        (json!({"loadbalancer": "no", "portmap": portmap}), "neither true nor false"),
        (json!({"loadbalancer": "true", "portmap": "htp://1:a:1"}), "column 1, htp://1:a:1"),
    ] {
        site.say(&keys);
        site.wait_for_kept(part);
        assert_eq!(site.metric(HELD), Some(1.0), "{keys}");
    }
    // Cut off, as a writer leaves it that was killed.
    fs::write(&site.metadata, "{\"loadbalancer\": \"fal").expect("the file");
    site.managed.mapsmith.wait_for("the failure is shown", super::PATIENCE, |_| {
        site.status()["source"]["error"].to_string().contains("cut off").then_some(())
    });
    site.declare(&portmap);
    site.managed.mapsmith.wait_for("nothing is kept", super::PATIENCE, |_| {
        (site.status()["kept"].is_null() && site.metric(HELD) == Some(0.0)).then_some(())
    });
    client.assert_all_answered();
    assert_eq!(site.managed.reloads(), 0, "nothing has changed");
}

#[test]
fn a_piece_that_is_wrong_keeps_its_last_good_form_and_the_others_change() {
    let [web, api] = ["web", "api"].map(Master::start);
    let [port, other] = [(); 2].map(|()| free_port());
    let site = Site::start(newest(), &service("http", port, &web), "");
    site.wait_for_answer(port, "web");
    let wrong = format!("http://{port}:127.0.0.1:1{{rise:0}}");
    let taken = site.managed.ground.web.port();
    site.declare(&format!(
        "{wrong},{},{}",
        service("http", other, &api),
        service("http", taken, &api)
    ));
    site.wait_for_answer(other, "api");
    let rejected = site.wait_for_rejected(&port.to_string(), "column ");
    assert_eq!(rejected["keeps_last_good"], true, "{rejected}");
    site.wait_for_rejected(&taken.to_string(), "the frontend web of the settings listens");
    site.wait_for_answer(port, "web");
}

#[test]
fn a_port_that_another_program_has_keeps_only_its_own_service_out() {
    let [web, api] = ["web", "api"].map(Master::start);
    let [port, other] = [(); 2].map(|()| free_port());
    let site = Site::start(newest(), &service("http", port, &web), "");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| (taken, address.port())).expect("its address");
    site.declare(&format!("{},{}", service("http", port, &web), service("http", taken.1, &web)));
    site.wait_for_rejected(&taken.1.to_string(), "is taken by another program");
    site.declare(&format!(
        "{},{},{}",
        service("http", port, &web),
        service("http", taken.1, &web),
        service("http", other, &api)
    ));
    site.wait_for_answer(other, "api");
    site.wait_for_answer(port, "web");
}

#[test]
fn hostile_metadata_never_reaches_the_configuration() {
    for binary in oldest_and_newest() {
        let web = Master::start("web");
        let port = free_port();
        let good = service("http", port, &web);
        let site = Site::start(binary, &good, "");
        site.wait_for_answer(port, "web");
        let client = Client::start(port, "web");
        let many: String = (0..10_000).map(|at| format!("tcp://{}:a.test:1 ", at % 7)).collect();
        for (number, portmap) in [
            format!("{good} http://9:a\n    bind *:1:1"),
            format!("{good} http://9:a.test:1{{check:/\"\nglobal}}"),
            format!("{good} http://9:${{HOME}}:1 'x' \"y\" \\"),
            format!("{good} {}", "x".repeat(900_000)),
            many,
            "z".repeat(2_000_000),
        ]
        .into_iter()
        .enumerate()
        {
            // Told from the one before by a value of its own.
            let timeouts = format!("{{client:{}s}}", number + 1);
            site.say(&json!({
                "loadbalancer": "true",
                "portmap": portmap,
                "syslog": "127.0.0.1:514\nuser root",
                "metrics_acl": "10.0.0.0/8\n    bind *:1",
                "timeouts": timeouts,
            }));
            let line = format!("timeout client {}s\n", number + 1);
            site.managed
                .mapsmith
                .wait_for(&line, super::PATIENCE, |_| site.file().contains(&line).then_some(()));
            let file = site.file();
            for part in ["${HOME}", "bind *:1\n", "user root", "zzz", "xxx", "'"] {
                assert!(!file.contains(part), "{part:?} is in: {file}");
            }
        }
        site.managed.wait_for_state("in_force");
        client.assert_all_answered();
    }
}

#[test]
fn a_command_that_fails_changes_nothing_and_its_values_are_followed() {
    let [web, api] = ["web", "api"].map(Master::start);
    let port = free_port();
    let ground = Ground::new(newest());
    let mdata = MdataGet::new(ground.path());
    mdata.put("loadbalancer", "true");
    mdata.put("portmap", &service("http", port, &web));
    let place = format!("command = [{:?}]\npoll = \"1s\"", mdata.program().display().to_string());
    let settings = ground.settings("own", &settings(&place, ""));
    let managed = Managed { mapsmith: Mapsmith::config(&settings).start(), ground };
    managed.wait_for_state("in_force");
    let site = Site { managed, metadata: std::path::PathBuf::new() };
    site.wait_for_answer(port, "web");
    let client = Client::start(port, "web");
    mdata.fail(Some(2));
    site.managed.mapsmith.wait_for("the failure is shown", super::PATIENCE, |_| {
        let error = site.status()["source"]["error"].to_string();
        error.contains("exit status: 2: no metadata socket").then_some(())
    });
    assert!(site.status()["kept"].is_null(), "a failure is no answer");
    // No key is there: that is an answer, and no order.
    mdata.fail(Some(1));
    site.wait_for_kept("loadbalancer is not set");
    mdata.fail(None);
    mdata.delete("portmap");
    site.wait_for_kept("portmap is not set");
    client.assert_all_answered();
    mdata.put("portmap", &service("http", port, &api));
    site.wait_for_answer(port, "api");
    mdata.put("loadbalancer", "false");
    site.wait_until_closed(port);
}

#[test]
fn a_log_host_that_haproxy_does_not_find_is_left_out_alone() {
    let web = Master::start("web");
    let [port, other] = [(); 2].map(|()| free_port());
    let site = Site::start(newest(), &service("http", port, &web), "");
    for (host, known) in [("127.0.0.1:5514", false), ("nobody.invalid:514", true)] {
        site.say(&json!({
            "loadbalancer": "true",
            "portmap": format!("{} {}", service("http", port, &web), service("http", other, &web)),
            "syslog": host,
        }));
        if known {
            let rejected = site.wait_for_rejected("syslog", "nobody.invalid");
            assert_eq!(rejected["keeps_last_good"], true, "{rejected}");
        }
        site.wait_for_answer(other, "web");
    }
    let what = "the last good one stays";
    site.managed.mapsmith.wait_for(what, super::PATIENCE, |_| {
        site.file().contains("log 127.0.0.1:5514 ").then_some(())
    });
    site.managed.wait_for_state("in_force");
    site.say(&json!({
        "loadbalancer": "true",
        "portmap": service("http", port, &web),
        "syslog": "nobody.invalid:514",
    }));
    site.wait_until_closed(other);
}

/// A call that fails ends those beside it, also what they started. There would be more with every
/// read.
#[test]
fn a_command_that_hangs_beside_one_that_fails_leaves_no_process_behind() {
    let web = Master::start("web");
    let port = free_port();
    let ground = Ground::new(newest());
    let mdata = MdataGet::new(ground.path());
    mdata.put("loadbalancer", "true");
    mdata.put("portmap", &service("http", port, &web));
    let place = format!("command = [{:?}]\npoll = \"1s\"", mdata.program().display().to_string());
    let settings = ground.settings("own", &settings(&place, ""));
    let managed = Managed { mapsmith: Mapsmith::config(&settings).start(), ground };
    managed.wait_for_state("in_force");
    let site = Site { managed, metadata: std::path::PathBuf::new() };
    let children = mdata.hang_beside_a_failure();
    let started = || fs::read_to_string(&children).unwrap_or_default().lines().count();
    let is_up = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    site.managed
        .mapsmith
        .wait_for("two reads have failed", super::PATIENCE, |_| (started() > 7).then_some(()));
    mdata.fail(Some(2));
    site.managed.mapsmith.wait_for("none is left", super::PATIENCE, |_| {
        let all = fs::read_to_string(&children).expect("processes");
        (!all.lines().any(is_up)).then_some(())
    });
    site.wait_for_answer(port, "web");
}

#[test]
fn what_was_in_force_outlives_a_restart_while_the_metadata_is_gone() {
    let web = Master::start("web");
    let port = free_port();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let database = folder.path().join("db");
    let store = format!("[store]\npath = {database:?}");
    let mut site = Site::start(newest(), &service("http", port, &web), &store);
    site.wait_for_answer(port, "web");
    site.managed.wait_for_stored(&database, &port.to_string());
    let client = Client::start(port, "web");
    for keys in [Some(json!({})), None] {
        match keys {
            Some(keys) => site.say(&keys),
            None => fs::remove_file(&site.metadata).expect("the file"),
        }
        site.managed.mapsmith.restart();
        site.managed.wait_for_state("in_force");
        assert_eq!(site.status()["in_force"][0]["name"], port.to_string());
        assert_eq!(answer(port).ok().as_deref(), Some("web"));
    }
    client.assert_all_answered();
    // An order counts from the first answer on.
    site.say(&json!({"loadbalancer": "false"}));
    site.wait_until_closed(port);
}
