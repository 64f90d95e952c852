//! `mapsmith plan` beside a HAProxy that Mapsmith runs.

use std::fs;
use std::process::Output;

use super::{Ground, Managed, PATIENCE};
use crate::support::haproxy::installed;
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{complaints, printed};

fn one_server(port: u16) -> String {
    format!(
        "default_backend = \"app\"\n[[backend]]\nname = \"app\"\n\
        servers = [{{ name = \"a\", address = \"127.0.0.1:{port}\" }}]\n"
    )
}

fn says(output: &Output, code: i32, told: &[&str]) {
    let (ended, text) = printed(output);
    assert_eq!(ended, code, "{text}{}", complaints(output));
    for told in told {
        assert!(text.contains(told), "{told:?} is not in:\n{text}");
    }
}

#[test]
fn a_plan_says_what_of_the_configuration_changes_and_what_that_takes() {
    let binary = &installed()[0];
    let ground = Ground::new(binary);
    let before = Mapsmith::config(&ground.settings("one", &one_server(81)));
    let start = before.cli(&["plan"]);
    says(
        &start,
        3,
        &["haproxy.cfg: will be written, and HAProxy started with it", "+frontend web"],
    );

    let managed = Managed::start(binary, "one", &one_server(81));
    let plan = || managed.mapsmith.configuration().cli(&["plan"]);
    says(&plan(), 0, &["haproxy.cfg: unchanged", "nothing to do"]);
    managed.write("one", &one_server(82));
    says(&plan(), 3, &["servers change, by the Runtime API", "-    server a 127.0.0.1:81"]);
    managed.write("two", &one_server(81));
    says(&plan(), 3, &["changes, and HAProxy is reloaded", "+    http-request return status 200"]);
    managed.write("one", &format!("natives = [\"no-such-keyword\"]\n{}", one_server(81)));
    says(&plan(), 1, &["refuses the new one", "frontend[0].natives[0]", "no-such-keyword"]);
}

#[test]
fn a_plan_names_an_edit_by_another_hand() {
    let mut managed = Managed::start(&installed()[0], "one", "");
    managed.mapsmith.kill();
    let file = managed.ground.file("haproxy.cfg");
    let edited = fs::read_to_string(&file).unwrap().replace("status 200", "status 201");
    fs::write(&file, edited).unwrap();
    let output = managed.mapsmith.configuration().cli(&["plan"]);
    says(&output, 3, &["was edited externally", "-    http-request return status 201"]);
}

#[test]
fn a_plan_is_the_same_where_mapsmith_holds_the_sockets() {
    let ground = Ground::new(&installed()[0]);
    let held = |word: &str| {
        let settings = ground.settings(word, "");
        Mapsmith::config(&settings.replace("[haproxy]\n", "[haproxy]\nhold_sockets = true\n"))
    };
    let mapsmith = held("one").start();
    mapsmith.wait_for("HAProxy answers", PATIENCE, |_| (ground.word()? == "one").then_some(()));
    let unchanged = held("one").cli(&["plan"]);
    says(&unchanged, 0, &["haproxy.cfg: unchanged", "nothing to do"]);
    assert!(!printed(&unchanged).1.contains("descriptor"), "{}", printed(&unchanged).1);
    says(&held("two").cli(&["plan"]), 3, &["changes, and HAProxy is reloaded"]);
}
