//! Changes of the settings: in force without a failed request, or nothing changes.

use std::fs;

use super::{Ground, Managed, PATIENCE};
use crate::support::haproxy::installed;
use crate::support::mapsmith::Mapsmith;

#[test]
fn a_declared_configuration_is_served_and_a_changed_one_after_one_reload() {
    for binary in installed() {
        let mut managed = Managed::start(binary, "one", "");
        let master = managed.ground.master();
        managed.change("two", "");
        managed.wait_for_word("two");
        let status = managed.wait_for_state("in_force");
        assert_eq!(managed.ground.master(), master, "{status}");
        assert_eq!(status["reloads"], 1, "{status}");
        assert_eq!(status["last_reload"]["outcome"], "loaded", "{status}");
        // A SIGHUP without a change is none.
        managed.mapsmith.hangup();
        managed.mapsmith.wait_for("the SIGHUP is logged", PATIENCE, |mapsmith| {
            mapsmith.log().contains("the settings are as before").then_some(())
        });
        assert_eq!(managed.reloads(), 1);
    }
}

#[test]
fn a_line_that_haproxy_refuses_changes_nothing_and_is_named() {
    for binary in installed() {
        let mut managed = Managed::start(binary, "one", "");
        let before = fs::read(managed.ground.file("haproxy.cfg")).unwrap();
        let mut broken = managed.ground.settings("two", "");
        broken = broken.replace("[haproxy]\n", "[haproxy]\nglobal = [\"no-such-keyword yes\"]\n");
        broken.push_str(&format!("[api]\nlisten = \"{}\"\n", managed.mapsmith.address()));
        fs::write(managed.mapsmith.configuration().path(), broken).unwrap();
        managed.mapsmith.hangup();
        let status = managed.wait_for_state("refused");
        let remark = &status["refused"]["remarks"][0];
        assert_eq!(remark["setting"], "haproxy.global[0]", "{status}");
        assert!(remark["text"].as_str().unwrap().contains("no-such-keyword"), "{status}");
        assert_eq!(managed.ground.word().as_deref(), Some("one"));
        assert_eq!(fs::read(managed.ground.file("haproxy.cfg")).unwrap(), before);
        let told = managed.mapsmith.cli(&["status"]);
        assert_eq!(told.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&told.stdout).contains("haproxy.global[0]"), "{told:?}");
        // The next good change applies.
        managed.change("three", "");
        managed.wait_for_word("three");
        managed.wait_for_state("in_force");
    }
}

#[test]
fn settings_that_can_not_be_read_change_nothing() {
    let binary = &installed()[0];
    let mut managed = Managed::start(binary, "one", "");
    fs::write(managed.mapsmith.configuration().path(), "[haproxy]\nmanaged = 7\n").unwrap();
    managed.mapsmith.hangup();
    managed.mapsmith.wait_for("the refusal is logged", PATIENCE, |mapsmith| {
        mapsmith.log().contains("the settings in force stay so").then_some(())
    });
    assert_eq!(managed.ground.word().as_deref(), Some("one"));
    managed.wait_for_state("in_force");
}

#[test]
fn a_port_that_is_taken_leaves_the_last_good_configuration_in_force() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let other = format!(
        "[[frontend]]\nname = \"other\"\nbind = [\"{address}\"]\n\
        rules = [{{ return = {{ status = 204 }} }}]\n"
    );
    for binary in installed() {
        let mut managed = Managed::start(binary, "one", "");
        let before = fs::read(managed.ground.file("haproxy.cfg")).unwrap();
        managed.change("two", &other);
        let status = managed.wait_for_state("refused");
        assert_eq!(status["refused"]["remarks"][0]["setting"], "frontend[1].bind[0]", "{status}");
        assert_eq!(status["reloads"], 0, "{status}");
        assert_eq!(managed.ground.word().as_deref(), Some("one"));
        assert_eq!(fs::read(managed.ground.file("haproxy.cfg")).unwrap(), before);
        managed.change("three", "");
        managed.wait_for_word("three");
        managed.wait_for_state("in_force");
    }
}

#[test]
fn an_external_edit_is_kept_aside_and_written_over() {
    let binary = &installed()[0];
    let managed = Managed::start(binary, "one", "");
    let path = managed.ground.file("haproxy.cfg");
    let edited = fs::read_to_string(&path).unwrap().replace("one", "edited");
    fs::write(&path, &edited).unwrap();
    let kept = managed.mapsmith.wait_for("the edit is kept aside", PATIENCE, |_| {
        managed.status()["edit_kept"].as_str().map(str::to_owned)
    });
    assert_eq!(fs::read_to_string(kept).unwrap(), edited);
    managed.wait_for_state("in_force");
    assert_eq!(managed.ground.word().as_deref(), Some("one"));
}

#[test]
fn a_first_configuration_that_haproxy_refuses_starts_nothing_and_says_why() {
    let ground = Ground::new(&installed()[0]);
    let settings =
        ground.settings("one", "").replace("[haproxy]\n", "[haproxy]\nglobal = [\"nonsense\"]\n");
    let mapsmith = Mapsmith::config(&settings).start();
    let managed = Managed { mapsmith, ground };
    let status = managed.wait_for_state("refused");
    assert!(status["refused"]["remarks"][0]["setting"] == "haproxy.global[0]", "{status}");
    assert!(!managed.ground.file("haproxy.cfg").exists(), "nothing is in place");
}
