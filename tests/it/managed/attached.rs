//! A HAProxy that another supervisor runs: Mapsmith writes its file and has it reloaded.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Ground, Managed, PATIENCE};
use crate::support::eventually;
use crate::support::haproxy::{Binary, installed};
use crate::support::mapsmith::Mapsmith;
use crate::support::process::{Ending, Process};
use crate::support::scene::newest;

/// HAProxy as systemd would run it, with a file that Mapsmith did not write.
pub(super) fn haproxy(ground: &Ground) -> Process {
    let config = ground.file("site.cfg");
    let text = format!(
        "global\n    stats socket {} mode 600 level admin\ndefaults\n    mode http\n    \
        timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n\
        frontend web\n    bind {}\n    http-request return status 200 content-type text/plain \
        string distribution\n",
        ground.file("admin.sock").display(),
        ground.web
    );
    fs::write(&config, text).unwrap();
    let master = format!("{},mode,600,level,admin", ground.file("master.sock").display());
    let program = ground.binary.path.to_str().unwrap();
    let command = [program, "-W", "-S", &master, "-db", "-f", config.to_str().unwrap()];
    let process = Process::start(&command, &ground.file("haproxy.log"), Ending::default());
    ground.wait_for_word("distribution");
    process
}

pub(super) fn settings(ground: &Ground, word: &str) -> String {
    ground.settings(word, "").replace(
        "managed = true\n",
        &format!(
            "managed = \"attached\"\nconfig = \"{}\"\nmaster_socket = \"{}\"\nsocket = \"{}\"\n",
            ground.file("site.cfg").display(),
            ground.file("master.sock").display(),
            ground.file("admin.sock").display()
        ),
    )
}

/// Settings by which a script of the test's reloads HAProxy; `master_socket` tells what came of it,
/// or else the Runtime API does.
fn by_command(ground: &Ground, word: &str, script: &Path, with_master: bool) -> String {
    let master = format!("master_socket = \"{}\"\n", ground.file("master.sock").display());
    let command = format!("reload_command = [{script:?}, \"haproxy\"]\n");
    let settings = settings(ground, word);
    assert!(settings.contains(&master), "{settings}");
    let kept = if with_master { master.as_str() } else { "" };
    settings.replace(&master, &format!("{kept}{command}"))
}

/// A program that does this.
fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn begin(binary: &'static Binary) -> (Managed, Process) {
    let ground = Ground::new(binary);
    let process = haproxy(&ground);
    let mapsmith = Mapsmith::config(&settings(&ground, "one")).start();
    (Managed { mapsmith, ground }, process)
}

#[test]
fn a_file_that_mapsmith_did_not_write_stays_until_it_is_taken_over() {
    for binary in installed() {
        let (mut managed, _process) = begin(binary);
        managed.wait_for_state("edited");
        assert_eq!(managed.ground.word().as_deref(), Some("distribution"));
        let taken = managed.mapsmith.configuration().cli(&["render", "--take-over"]);
        assert!(taken.status.success(), "{taken:?}");
        managed.wait_for_word("one");
        managed.wait_for_state("in_force");
        // From then on changes are written and loaded.
        let two = settings(&managed.ground, "two")
            + &format!("[api]\nlisten = \"{}\"\n", managed.mapsmith.address());
        fs::write(managed.mapsmith.configuration().path(), two).unwrap();
        managed.mapsmith.hangup();
        managed.wait_for_word("two");
        let status = managed.wait_for_state("in_force");
        assert_eq!(status["managed"], false);
        // An edit is not written over.
        let path = managed.ground.file("site.cfg");
        let edited = fs::read_to_string(&path).unwrap().replace("two", "edited");
        fs::write(&path, &edited).unwrap();
        managed.wait_for_state("edited");
        assert_eq!(fs::read_to_string(&path).unwrap(), edited);
        eventually("the worker of before still serves", PATIENCE, || {
            (managed.ground.word().as_deref() == Some("two")).then_some(())
        });
    }
}

#[test]
fn a_command_reloads_and_what_it_says_is_shown_when_it_fails() {
    for (binary, with_master) in installed().iter().flat_map(|one| [(one, true), (one, false)]) {
        let ground = Ground::new(binary);
        let process = haproxy(&ground);
        let reload = ground.file("reload");
        let good = format!("[ \"$1\" = haproxy ] && kill -USR2 {}", process.id());
        script(&reload, &good);
        let mapsmith = Mapsmith::config(&by_command(&ground, "one", &reload, with_master)).start();
        let mut managed = Managed { mapsmith, ground };
        managed.wait_for_state("edited");
        let taken = managed.mapsmith.configuration().cli(&["render", "--take-over"]);
        assert!(taken.status.success(), "{taken:?}");
        managed.wait_for_word("one");
        let status = managed.wait_for_state("in_force");
        assert_eq!(status["last_reload"]["outcome"], "loaded", "{status:#}");

        // One that may not: the file of before comes back, for whoever starts HAProxy next.
        script(&reload, "echo 'haproxy.service: access denied' >&2; exit 4");
        let path = managed.ground.file("site.cfg");
        let before = fs::read_to_string(&path).unwrap();
        managed.write_settings(&by_command(&managed.ground, "two", &reload, with_master));
        managed.mapsmith.hangup();
        let status = managed.wait_for_state("refused");
        assert_eq!(status["last_reload"]["said"], "haproxy.service: access denied", "{status:#}");
        let told = managed.mapsmith.cli(&["status"]);
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(told.status.code() == Some(1) && text.contains("access denied"), "{text}");
        assert!(managed.mapsmith.log().contains("haproxy.service: access denied"));
        // It is tried again by itself, for which the new one is there for a moment.
        eventually("the file of before is back", PATIENCE, || {
            (fs::read_to_string(&path).unwrap() == before).then_some(())
        });
        assert_eq!(managed.ground.word().as_deref(), Some("one"));
        script(&reload, &good);
        // The next try comes after ten seconds at the latest; changed settings wait for none.
        let by_itself = with_master && binary.version == newest().version;
        let word = if by_itself { "two" } else { "three" };
        if !by_itself {
            managed.write_settings(&by_command(&managed.ground, word, &reload, with_master));
            managed.mapsmith.hangup();
        }
        managed.wait_for_word(word);
        managed.wait_for_state("in_force");
    }
}

#[test]
fn other_settings_do_not_wait_for_a_reload_that_gives_no_answer() {
    let ground = Ground::new(newest());
    let _process = haproxy(&ground);
    let slow = ground.file("slow.sh");
    script(&slow, "sleep 1000");
    let mapsmith = Mapsmith::config(&settings(&ground, "one")).start();
    let mut managed = Managed { mapsmith, ground };
    let taken = managed.mapsmith.configuration().cli(&["render", "--take-over"]);
    assert!(taken.status.success(), "{taken:?}");
    managed.wait_for_word("one");
    managed.wait_for_state("in_force");
    managed.write_settings(&by_command(&managed.ground, "two", &slow, true));
    managed.mapsmith.hangup();
    managed.mapsmith.wait_for("the reload is under way", PATIENCE, |_| {
        let state = managed.status()["state"].to_string();
        state.contains("HAProxy is loading it").then_some(())
    });
    managed.write_settings(&settings(&managed.ground, "three"));
    managed.mapsmith.hangup();
    managed.wait_for_word("three");
    managed.wait_for_state("in_force");
}
