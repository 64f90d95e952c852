//! A template of the user's own in a HAProxy that runs.

use std::fs;

use super::{Ground, Managed, PATIENCE};
use crate::support::haproxy::{Binary, installed};
use crate::support::mapsmith::Mapsmith;

/// A frontend's own rule, put where the rendered text of the frontend ends.
fn answering(word: &str) -> String {
    format!(
        "{{{{ render_process() }}}}\n{{% for one in frontends %}}\n\
        {{{{ render_frontend(one) }}}}\n    \
        http-request return status 200 content-type text/plain string {word} if {{ path /own }}\n\
        {{% endfor %}}\n{{% for one in backends %}}\n{{{{ render_backend(one) }}}}\n\
        {{% endfor %}}\n"
    )
}

fn write(ground: &Ground, template: &str) {
    fs::write(ground.file("haproxy.cfg.j2"), template).expect("the template can be written");
}

fn start(binary: &'static Binary) -> Managed {
    let ground = Ground::new(binary);
    write(&ground, &answering("one"));
    let key = format!("[haproxy]\ntemplate = {:?}\n", ground.file("haproxy.cfg.j2"));
    let settings = ground.settings("word", "").replace("[haproxy]\n", &key);
    let managed = Managed { mapsmith: Mapsmith::config(&settings).start(), ground };
    managed.wait_for_own("one");
    managed.wait_for_state("in_force");
    managed
}

impl Managed {
    /// Waits until what the template alone says is answered.
    fn wait_for_own(&self, word: &str) {
        self.mapsmith.wait_for(&format!("HAProxy answers {word}"), PATIENCE, |_| {
            (self.ground.get("/own")?.body == word).then_some(())
        });
    }
}

#[test]
fn a_changed_template_is_in_force_after_a_sighup_and_one_reload() {
    for binary in installed() {
        let mut managed = start(binary);
        assert_eq!(managed.ground.word().as_deref(), Some("word"), "its rules are there too");
        write(&managed.ground, &answering("two"));
        managed.mapsmith.hangup();
        managed.wait_for_own("two");
        managed.wait_for_state("in_force");
        assert_eq!(managed.ground.reloads(), 1);
        // One that is as before changes nothing.
        managed.mapsmith.hangup();
        managed.wait_for_log("the settings are as before");
        assert_eq!(managed.ground.reloads(), 1);
    }
}

#[test]
fn a_template_with_an_error_leaves_the_last_good_one_in_force_until_it_is_corrected() {
    for binary in installed() {
        let mut managed = start(binary);
        let file = managed.ground.file("haproxy.cfg");
        let before = fs::read(&file).expect("it is there");
        // Its syntax is looked at with the settings, and what it names where it is rendered.
        write(&managed.ground, &answering("two").replace("{% endfor %}", ""));
        managed.mapsmith.hangup();
        managed.wait_for_log("the settings in force stay so");
        let log = managed.mapsmith.log();
        assert!(
            log.contains("haproxy.template: ") && log.contains("haproxy.cfg.j2, line"),
            "{log}"
        );
        managed.wait_for_state("in_force");
        for (wrong, told) in [
            ("render_frontend(one.nam)", "haproxy.cfg.j2, line 3"),
            ("render_frontend(one) }}\n    no-such-keyword {{ 1", "template line 4"),
        ] {
            write(&managed.ground, &answering("two").replace("render_frontend(one)", wrong));
            managed.mapsmith.hangup();
            let status = managed.mapsmith.wait_for("it is refused", PATIENCE, |_| {
                let status = managed.status();
                let is_refused = status["state"]["state"] == "refused";
                (is_refused && status.to_string().contains(told)).then_some(status)
            });
            assert_eq!(fs::read(&file).expect("it is there"), before, "{status:#}");
            assert_eq!(managed.ground.get("/own").expect("an answer").body, "one");
            assert_eq!(managed.mapsmith.cli(&["status"]).status.code(), Some(1));
            assert_eq!(managed.ground.reloads(), 0);
        }
        write(&managed.ground, &answering("three"));
        managed.mapsmith.hangup();
        managed.wait_for_own("three");
        let status = managed.wait_for_state("in_force");
        assert!(status["refused"].is_null(), "{status:#}");
    }
}
