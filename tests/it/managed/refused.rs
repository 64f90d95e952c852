//! What can't be brought into force changes nothing: not what is answered, not the file, not what
//! HAProxy has loaded. The message says what is wrong and what to do, and the next good change
//! applies.

use std::fs;
use std::net::TcpListener;

use serde_json::Value;

use super::{Ground, Managed, PATIENCE};
use crate::faults::disk::Volume;
use crate::support::haproxy::{Binary, ask, installed};
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{complaints, oldest_and_newest, printed};

/// What must stay as it is.
#[derive(Debug, PartialEq)]
struct Held {
    file: String,
    answer: Option<String>,
    loaded: String,
    /// The master.
    pid: u32,
}

impl Managed {
    fn held(&self) -> Held {
        Held {
            file: fs::read_to_string(self.ground.file("haproxy.cfg")).expect("it is there"),
            answer: self.ground.word(),
            loaded: ask(
                &format!("unix@{}", self.ground.file("admin.sock").display()),
                "show env MAPSMITH_MARK",
            )
            .expect("HAProxy answers"),
            pid: self.ground.master(),
        }
    }

    /// These settings come to this state and change nothing. What status says of it.
    fn is_kept(&mut self, name: &str, settings: &str, state: &str) -> Value {
        let before = self.held();
        self.write_settings(settings);
        self.mapsmith.hangup();
        let status = self.wait_for_state(state);
        assert_eq!(self.held(), before, "{name}: {status:#}");
        let loaded = status["loaded"].as_str().expect("the process says what it has loaded");
        assert!(before.loaded.contains(loaded), "{name}: {status:#}");
        status
    }

    fn recovers(&mut self, name: &str) {
        let word = format!("after {name}");
        self.change(&word, "");
        self.wait_for_word(&word);
        let status = self.wait_for_state("in_force");
        assert!(status["refused"].is_null(), "{status:#}");
    }

    /// Exit code and words of `mapsmith render --check` and `mapsmith check`.
    fn verdicts(&self) -> [(i32, String); 2] {
        ["render --check", "check"].map(|verb| {
            let words: Vec<_> = verb.split(' ').collect();
            let output = self.mapsmith.configuration().cli(&words);
            let (code, text) = printed(&output);
            (code, text + &complaints(&output))
        })
    }
}

/// What the settings are refused for by HAProxy's check, and the setting that is named for it.
fn faults(ground: &Ground) -> Vec<(&'static str, String, &'static str, &'static str)> {
    let good = |more: &str| ground.settings("other", more);
    let template = ground.file("missing.j2");
    fs::write(&template, "{{ rendered }}\n{{ haproxy.nothing }}\n").expect("it can be written");
    vec![
        (
            "a native line",
            good("natives = [\"http-request set-nothing at all\"]"),
            "frontend[0].natives[0]",
            "set-nothing",
        ),
        (
            "a missing certificate",
            good("").replace(
                &format!("\"{}\"", ground.web),
                &format!(
                    "\"{}\", {{ address = \"127.0.0.1:1\", certificate = \"site\" }}",
                    ground.web
                ),
            ) + "[[certificate]]\nname = \"site\"\npath = \"/nowhere/site.pem\"\n",
            "frontend[0].bind[1]",
            "/nowhere/site.pem",
        ),
        (
            "a template",
            good("").replace("[haproxy]\n", &format!("[haproxy]\ntemplate = {template:?}\n")),
            "missing.j2, line 2",
            "haproxy.nothing",
        ),
    ]
}

#[test]
fn what_the_check_refuses_is_named_by_its_setting_and_changes_nothing() {
    for binary in oldest_and_newest() {
        let mut managed = Managed::start(binary, "one", "");
        for (name, settings, setting, words) in faults(&managed.ground) {
            let status = managed.is_kept(name, &settings, "refused").to_string();
            assert!(status.contains(setting) && status.contains(words), "{name}: {status}");
            let log = managed.mapsmith.log();
            let told = log.lines().any(|line| line.contains(setting) && line.contains(words));
            assert!(told, "{name}: {log}");
            let shown = managed.mapsmith.cli(&["status"]);
            assert_eq!(printed(&shown).0, 1, "{name}: {shown:?}");
            assert!(printed(&shown).1.contains(setting), "{name}: {shown:?}");
            for (code, text) in managed.verdicts() {
                assert!(code != 0 && text.contains(setting), "{name}: {code}: {text}");
            }
            managed.recovers(name);
        }
    }
}

#[test]
fn settings_whose_template_is_none_are_refused_with_its_line() {
    for binary in oldest_and_newest() {
        let mut managed = Managed::start(binary, "one", "");
        let template = managed.ground.file("haproxy.cfg.j2");
        fs::write(&template, "{{ rendered }}\n{% for x in frontends %}\n").expect("it is written");
        let settings = managed.ground.settings("other", "");
        let settings =
            settings.replace("[haproxy]\n", &format!("[haproxy]\ntemplate = {template:?}\n"));
        let before = managed.held();
        managed.write_settings(&settings);
        managed.mapsmith.hangup();
        managed.wait_for_log("the settings in force stay so");
        let log = managed.mapsmith.log();
        let line = log.lines().find(|line| line.contains("the settings in force stay so"));
        let told = line.is_some_and(|line| {
            line.contains("haproxy.template: ") && line.contains("haproxy.cfg.j2, line 2")
        });
        assert!(told, "{line:?}");
        assert_eq!(managed.held(), before);
        managed.wait_for_state("in_force");
        for (code, text) in managed.verdicts() {
            assert!(code == 2 && text.contains("haproxy.template"), "{code}: {text}");
        }
        managed.recovers("a template");
    }
}

#[test]
fn a_port_that_is_taken_is_told_with_its_address_and_the_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("a bound address");
    let other = format!(
        "[[frontend]]\nname = \"other\"\nbind = [\"{address}\"]\n\
        rules = [{{ return = {{ status = 204 }} }}]\n"
    );
    for binary in oldest_and_newest() {
        let mut managed = Managed::start(binary, "one", "");
        let settings = managed.ground.settings("two", &other);
        let status = managed.is_kept("a taken port", &settings, "refused").to_string();
        for words in [&address.to_string(), "frontend[1].bind[0]", "taken by another program"] {
            assert!(status.contains(words), "{words}: {status}");
        }
        let log = managed.mapsmith.log();
        let told = log
            .lines()
            .any(|line| line.contains("\"ERROR\"") && line.contains(&address.to_string()));
        assert!(told, "{log}");
        assert_eq!(printed(&managed.mapsmith.cli(&["status"])).0, 1);
        managed.recovers("a taken port");
        let metrics = format!("[haproxy]\nmetrics = {{ bind = \"{address}\" }}\n");
        let settings = managed.ground.settings("two", "").replace("[haproxy]\n", &metrics);
        let status = managed.is_kept("a taken port of metrics", &settings, "refused").to_string();
        assert!(status.contains("haproxy.metrics.bind"), "{status}");
        managed.recovers("a taken port of metrics");
    }
}

#[test]
fn what_haproxy_says_has_no_secret_of_a_file_that_is_included() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("a bound address");
    // HAProxy warns of the backend by its name, without a timeout for it, each time it reads that.
    let warned = "defaults\n    mode http\nbackend geheimnis\n    server s 127.0.0.1:1\n    \
        http-request set-header Authorization geheimnis\n";
    let refused = format!("{warned}    http-request set-header X-Token Basic Z2VoZWltOjE=\n");
    for binary in oldest_and_newest() {
        let ground = Ground::new(binary);
        let own = ground.file("own.cfg");
        fs::write(&own, warned).expect("it can be written");
        let include = format!("[haproxy]\ninclude = [{own:?}]\n");
        let settings = |ground: &Ground, word: &str, more: &str| {
            ground.settings(word, more).replace("[haproxy]\n", &include)
        };
        let mapsmith = Mapsmith::config(&settings(&ground, "one", "")).start();
        let mut managed = Managed { mapsmith, ground };
        managed.wait_for_state("in_force");

        // At a reload, since no check sees that this port is taken.
        let native = format!("natives = [\"bind {address}\"]");
        let status =
            managed.is_kept("a port", &settings(&managed.ground, "two", &native), "refused");
        let said = status["last_reload"]["said"].to_string();
        assert!(said.contains(&address.to_string()) && said.contains("'***'"), "{status:#}");
        let mut told = vec![("a reload", status.to_string())];

        // In a check.
        fs::write(&own, &refused).expect("it can be written");
        managed.write_settings(&settings(&managed.ground, "three", ""));
        managed.mapsmith.hangup();
        let status = managed.mapsmith.wait_for("the file is refused", PATIENCE, |_| {
            let status = managed.status();
            let remarks = status["refused"]["remarks"].to_string();
            (remarks.contains("own.cfg:6]") && remarks.contains("'***'")).then_some(status)
        });
        told.push(("a check", status.to_string()));
        told.extend(managed.verdicts().map(|(_, text)| ("a command", text)));
        let reload = managed.mapsmith.configuration().cli(&["haproxy", "reload"]);
        let (code, text) = printed(&reload);
        assert!(code == 1 && text.contains("own.cfg:6]"), "{reload:?}");
        told.push(("the verb", text));
        told.push(("the status", printed(&managed.mapsmith.cli(&["status"])).1));
        told.push(("the log", managed.mapsmith.log()));
        told.retain(|(_, text)| text.contains("geheimnis") || text.contains("Z2VoZWltOjE"));
        assert!(told.is_empty(), "{told:#?}");
    }
}

/// HAProxy's check does not see it, and the master of these versions ends at the reload.
#[test]
fn what_haproxy_ends_of_is_not_tried_again_before_the_settings_change() {
    let binary = installed().iter().rfind(|binary| binary.version < (3, 2)).expect("HAProxy 2.6");
    let mut managed = Managed::start(binary, "one", "");
    let settings = managed.ground.settings("two", "");
    let settings =
        settings.replace("[haproxy]\n", "[haproxy]\nglobal = [\"chroot /nonexistent\"]\n");
    managed.write_settings(&settings);
    managed.mapsmith.hangup();
    managed.wait_for_log("not tried again before the settings change");
    managed.wait_for_word("one");
    let status = managed.wait_for_state("refused");
    assert_eq!(status["last_reload"]["outcome"], "died", "{status:#}");
    assert_eq!((&status["starts"], &status["reloads"]), (&3.into(), &2.into()), "{status:#}");
    assert_eq!(managed.ground.reloads(), 0, "of the one that was started again");
    managed.recovers("what HAProxy ends of");
}

/// A HAProxy whose candidates are written to a file system that a test can fill or make read-only;
/// none where nothing can be mounted.
fn on_a_volume(binary: &'static Binary, volume: &Volume) -> Option<Managed> {
    if !volume.is_own() {
        println!("SKIPPED: no file system can be mounted here");
        return None;
    }
    let ground = Ground::new(binary);
    std::os::unix::fs::symlink(volume.path(), ground.file("candidate")).expect("a link");
    let mapsmith = Mapsmith::config(&ground.settings("one", "")).start();
    let managed = Managed { mapsmith, ground };
    managed.wait_for_word("one");
    managed.wait_for_state("in_force");
    Some(managed)
}

#[test]
fn a_folder_that_is_read_only_or_full_is_named_and_changes_nothing() {
    for binary in oldest_and_newest() {
        let volume = Volume::start();
        let Some(mut managed) = on_a_volume(binary, &volume) else { return };
        for full in [false, true] {
            let (name, words) = match full {
                true => ("a full disk", "No space left on device"),
                false => ("a read-only folder", "Read-only file system"),
            };
            match full {
                true => volume.fill(),
                false => volume.read_only(true),
            }
            let settings = managed.ground.settings("two", "");
            let status = managed.is_kept(name, &settings, "failed");
            let error = status["state"]["error"].as_str().unwrap_or_default();
            let place = managed.ground.file("candidate").display().to_string();
            assert!(error.contains(words) && error.contains(&place), "{name}: {error}");
            managed.wait_for_log(words);
            assert_eq!(printed(&managed.mapsmith.cli(&["status"])).0, 1, "{name}");
            match full {
                true => volume.clear(),
                false => volume.read_only(false),
            }
            // What could not be written before is, without being asked for again.
            managed.wait_for_word("two");
            managed.recovers(name);
        }
    }
}

#[test]
fn a_disk_that_is_full_for_all_of_haproxys_files_leaves_it_serving() {
    for binary in oldest_and_newest() {
        let volume = Volume::start();
        if !volume.is_own() {
            println!("SKIPPED: no file system can be mounted here");
            return;
        }
        let ground = Ground::within(binary, volume.path());
        let mapsmith = Mapsmith::config(&ground.settings("one", "")).start();
        let mut managed = Managed { mapsmith, ground };
        managed.wait_for_word("one");
        managed.wait_for_state("in_force");
        volume.fill();
        let settings = managed.ground.settings("two", "");
        let status = managed.is_kept("a full disk", &settings, "failed");
        assert!(status.to_string().contains("No space left on device"), "{status:#}");
        // A Mapsmith that starts now finds HAProxy as it was.
        managed.mapsmith.kill();
        assert_eq!(managed.ground.word().as_deref(), Some("one"));
        managed.mapsmith.restart();
        let status = managed.wait_for_state("failed");
        assert_eq!((&status["starts"], managed.ground.word()), (&0.into(), Some("one".to_owned())));
        volume.clear();
        managed.wait_for_word("two");
        managed.recovers("a full disk");
    }
}
