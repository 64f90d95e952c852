//! A HAProxy that another supervisor runs: Mapsmith writes its file and has it reloaded.

use std::fs;

use super::{Ground, Managed, PATIENCE};
use crate::support::eventually;
use crate::support::haproxy::{Binary, installed};
use crate::support::mapsmith::Mapsmith;
use crate::support::process::{Ending, Process};

/// HAProxy as systemd would run it, with a file that Mapsmith did not write.
fn haproxy(ground: &Ground) -> Process {
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

fn settings(ground: &Ground, word: &str) -> String {
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
        managed.ground.wait_for_word("one");
        managed.wait_for_state("in_force");
        // From then on changes are written and loaded.
        let two = settings(&managed.ground, "two")
            + &format!("[api]\nlisten = \"{}\"\n", managed.mapsmith.address());
        fs::write(managed.mapsmith.configuration().path(), two).unwrap();
        managed.mapsmith.hangup();
        managed.ground.wait_for_word("two");
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
