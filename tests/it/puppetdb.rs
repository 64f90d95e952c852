//! From a real PuppetDB to a real HAProxy: what a Puppet site sees when nodes move, leave, or never
//! had a master.

use std::path::PathBuf;

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::master::Master;
use crate::support::puppetdb::PuppetDb;
use crate::support::scene::{
    BOUND, ON_REQUEST, complaints, entries, gateway_settings, in_sync, memory, metric, newest,
    oldest_and_newest, printed, reload,
};

/// A `[[source]]` for the certnames that begin with `prefix`: every test has its own in the one
/// PuppetDB.
fn source(url: &str, prefix: &str, more: &str) -> String {
    let query =
        format!("factsets[certname, producer, producer_timestamp] {{ certname ~ \"^{prefix}\" }}");
    format!(
        "[[source]]\nname = \"puppetdb\"\ntype = \"puppetdb\"\nurl = {url:?}\nquery = \
            {query:?}\n{more}\n"
    )
}

/// The client certificate of that name, and the CA in that file.
fn tls(certificate: &str, ca: PathBuf) -> String {
    let puppetdb = PuppetDb::shared();
    let (cert, key) = (puppetdb.certificate(certificate), puppetdb.key(certificate));
    format!("ca = {ca:?}\ncert = {cert:?}\nkey = {key:?}")
}

fn config(gateway: &Gateway, source: &str) -> Config {
    Mapsmith::config(&format!("{ON_REQUEST}{}{source}", gateway_settings(gateway)))
}

/// Polled every second, so that most polls are deltas.
fn scheduled(gateway: &Gateway, source: &str) -> Config {
    let schedule = ON_REQUEST.replace("poll = \"1h\"", "poll = \"1s\"\njitter = \"0s\"");
    Mapsmith::config(&format!("{schedule}{}{source}", gateway_settings(gateway)))
}

/// Waits until the gateway holds these entries, and for a delta poll after that.
fn until(mapsmith: &Mapsmith, gateway: &Gateway, wanted: &[(&str, &str)]) {
    mapsmith
        .wait_for("the map follows", BOUND, |_| (memory(gateway) == entries(wanted)).then_some(()));
    let polls = |mapsmith: &Mapsmith| metric(mapsmith, DELTAS).unwrap_or_default();
    let before = polls(mapsmith);
    mapsmith.wait_for("a delta poll", BOUND, |mapsmith| (polls(mapsmith) > before).then_some(()));
    assert_eq!(memory(gateway), entries(wanted));
}

const DELTAS: &str =
    r#"mapsmith_source_poll_duration_seconds_count{source="puppetdb",kind="delta"}"#;

/// How PuppetDB was asked last: `full` or `delta`.
fn last_poll(report: &Value) -> &str {
    report["sources"][0]["poll"]["kind"].as_str().unwrap_or_else(|| panic!("no poll: {report:#}"))
}

#[test]
fn a_node_whose_facts_come_through_another_master_is_routed_to_it_after_a_reload() {
    let puppetdb = PuppetDb::shared();
    for (number, binary) in oldest_and_newest().into_iter().enumerate() {
        let prefix = format!("routed{number}-");
        let (moving, staying) = (format!("{prefix}moving"), format!("{prefix}staying"));
        puppetdb.replace_facts(&moving, "puppet00.example.test", true);
        puppetdb.replace_facts(&staying, "puppet00.example.test", true);
        let (first, second) = (Master::start("master1"), Master::start("master2"));
        let gateway = Gateway::plan(binary)
            .master("master1", first.address())
            .master("master2", second.address())
            .start();
        let names = "[source.masters]\n\"puppet00.example.test\" = \"master1\"\n\
                     \"puppet01.example.test\" = \"master2\"";
        let mapsmith = config(&gateway, &source(&puppetdb.url(), &prefix, names)).start();
        in_sync(&mapsmith);
        assert_eq!(gateway.request(&moving), (200, "master1".to_owned()));

        puppetdb.replace_facts(&moving, "puppet01.example.test", true);
        let report = reload(&mapsmith);

        assert_eq!(gateway.request(&moving), (200, "master2".to_owned()), "{report:#}");
        assert_eq!(gateway.request(&staying), (200, "master1".to_owned()));
        assert_eq!(report["outcome"], "in_sync");
        assert_eq!(
            (&report["changes"][0]["moved"], &report["changes"][0]["added"]),
            (&json!(1), &json!(0)),
            "{report:#}"
        );
        let steps =
            report["instances"][0]["apply"]["steps"].as_array().expect("how long each step took");
        assert!(
            !steps.is_empty() && steps.iter().all(|step| step["milliseconds"].is_number()),
            "{report:#}"
        );
    }
}

#[test]
fn a_delta_poll_finds_a_moved_node_and_never_loses_one() {
    let puppetdb = PuppetDb::shared();
    puppetdb.replace_facts("delta-moving", "m1", true);
    puppetdb.replace_facts("delta-leaving", "m1", true);
    let gateway = Gateway::plan(newest()).start();
    let mapsmith =
        scheduled(&gateway, &source(&puppetdb.url(), "delta-", "full_poll = \"1h\"")).start();
    in_sync(&mapsmith);

    puppetdb.replace_facts("delta-moving", "m2", true);
    puppetdb.replace_facts("delta-new", "m2", true);
    until(
        &mapsmith,
        &gateway,
        &[("delta-leaving", "m1"), ("delta-moving", "m2"), ("delta-new", "m2")],
    );

    // What has left shows in a full answer only.
    puppetdb.deactivate("delta-leaving");
    until(
        &mapsmith,
        &gateway,
        &[("delta-leaving", "m1"), ("delta-moving", "m2"), ("delta-new", "m2")],
    );
}

#[test]
fn a_reload_and_a_signal_drop_a_node_that_was_deactivated() {
    let puppetdb = PuppetDb::shared();
    for certname in ["gone-deactivated", "gone-by-signal", "gone-staying"] {
        puppetdb.replace_facts(certname, "m1", true);
    }
    let gateway = Gateway::plan(newest()).start();
    let mut mapsmith =
        config(&gateway, &source(&puppetdb.url(), "gone-", "full_poll = \"1h\"")).start();
    in_sync(&mapsmith);
    puppetdb.deactivate("gone-deactivated");
    let report = reload(&mapsmith);
    assert_eq!(
        (last_poll(&report), &report["changes"][0]["removed"]),
        ("full", &json!(1)),
        "{report:#}"
    );
    assert_eq!(memory(&gateway), entries(&[("gone-by-signal", "m1"), ("gone-staying", "m1")]));

    puppetdb.deactivate("gone-by-signal");
    mapsmith.signal("HUP");
    mapsmith.wait_for("the node is gone", BOUND, |_| {
        (memory(&gateway) == entries(&[("gone-staying", "m1")])).then_some(())
    });
}

#[test]
fn a_deactivated_node_keeps_its_route_for_remove_after_and_then_goes_by_itself() {
    const STAYS: &str = "MAPSMITH__MAP__REMOVE_AFTER";
    let puppetdb = PuppetDb::shared();
    for certname in ["rebuilt-leaving", "rebuilt-staying"] {
        puppetdb.replace_facts(certname, "m1", true);
    }
    let gateway = Gateway::plan(newest()).start();
    let source = source(&puppetdb.url(), "rebuilt-", "full_poll = \"1h\"");
    let mut mapsmith = config(&gateway, &source).variable(STAYS, "1h").start();
    in_sync(&mapsmith);
    let both = |leaving: &str| entries(&[("rebuilt-leaving", leaving), ("rebuilt-staying", "m1")]);

    puppetdb.deactivate("rebuilt-leaving");
    let report = reload(&mapsmith);
    assert_eq!((&report["changes"], memory(&gateway)), (&json!([]), both("m1")), "{report:#}");
    let gone = mapsmith.get("/v1/status").1["gone"].clone();
    assert_eq!((&gone["count"], &gone["nodes"][0]["master"]), (&json!(1), &json!("m1")), "{gone}");
    assert_eq!(metric(&mapsmith, "mapsmith_gone_nodes"), Some(1.0));
    let explained = mapsmith.get("/v1/nodes/rebuilt-leaving").1;
    assert_eq!(
        (&explained["master"], &explained["gone"]),
        (&json!("m1"), &gone["nodes"][0]),
        "{explained:#}"
    );
    let (code, text) = printed(&mapsmith.cli(&["explain", "rebuilt-leaving"]));
    assert!(code == 0 && text.contains("gone since ") && text.contains(", stays until "), "{text}");
    let (_, text) = printed(&mapsmith.cli(&["status"]));
    assert!(text.contains("1 node that no source names any more stays"), "{text}");

    // Over a restart, with the time since when it is gone.
    mapsmith.kill();
    mapsmith.restart();
    in_sync(&mapsmith);
    reload(&mapsmith);
    let again = mapsmith.get("/v1/status").1["gone"].clone();
    assert_eq!((again, memory(&gateway)), (gone, both("m1")));

    // Back by another master, it is PuppetDB's again.
    puppetdb.replace_facts("rebuilt-leaving", "m2", true);
    reload(&mapsmith);
    assert_eq!(memory(&gateway), both("m2"));
    assert_eq!(mapsmith.get("/v1/status").1["gone"]["count"], 0);

    puppetdb.deactivate("rebuilt-leaving");
    reload(&mapsmith);
    assert_eq!(memory(&gateway), both("m2"));
    mapsmith.extra_variables(&[&format!("{STAYS}=2s")]);
    mapsmith.restart();
    // Nobody polls again.
    mapsmith.wait_for("the node is gone for good", BOUND, |_| {
        (memory(&gateway) == entries(&[("rebuilt-staying", "m1")])).then_some(())
    });
    assert_eq!(mapsmith.get("/v1/status").1["gone"]["count"], 0);
}

#[test]
fn a_move_is_found_by_deltas_though_the_masters_clocks_are_ten_minutes_behind_puppetdbs() {
    let puppetdb = PuppetDb::shared();
    let behind = SignedDuration::from_mins(-10);
    puppetdb.replace_facts_by_clock("slow-moving", "m1", behind);
    puppetdb.replace_facts_by_clock("slow-staying", "m1", behind);
    let gateway = Gateway::plan(newest()).start();
    let mapsmith =
        scheduled(&gateway, &source(&puppetdb.url(), "slow-", "full_poll = \"1h\"")).start();
    in_sync(&mapsmith);
    puppetdb.replace_facts_by_clock("slow-moving", "m2", behind);
    until(&mapsmith, &gateway, &[("slow-moving", "m2"), ("slow-staying", "m1")]);
}

#[test]
fn a_full_poll_drops_a_deactivated_node() {
    let puppetdb = PuppetDb::shared();
    puppetdb.replace_facts("full-leaving", "m1", true);
    puppetdb.replace_facts("full-staying", "m1", true);
    let gateway = Gateway::plan(newest()).start();
    let mapsmith =
        scheduled(&gateway, &source(&puppetdb.url(), "full-", "full_poll = \"1s\"")).start();
    in_sync(&mapsmith);
    assert_eq!(memory(&gateway), entries(&[("full-leaving", "m1"), ("full-staying", "m1")]));

    puppetdb.deactivate("full-leaving");
    mapsmith.wait_for("the deactivated node has no route any more", BOUND, |_| {
        (memory(&gateway) == entries(&[("full-staying", "m1")])).then_some(())
    });
}

#[test]
fn a_node_that_no_master_has_reported_for_has_no_route_and_is_shown_as_rejected() {
    let puppetdb = PuppetDb::shared();
    puppetdb.replace_facts_of_no_producer("orphan-1");
    puppetdb.replace_facts("orphan-2", "master1", true);
    let master = Master::start("master1");
    let gateway = Gateway::plan(newest()).master("master1", master.address()).start();
    let mapsmith = config(&gateway, &source(&puppetdb.url(), "orphan-", "")).start();

    let status = in_sync(&mapsmith);
    assert_eq!(gateway.request("orphan-2"), (200, "master1".to_owned()));
    assert_eq!(gateway.request("orphan-1").0, 404);
    let rejections = &status["sources"][0]["rejections"];
    assert_eq!(rejections["counts"], json!({ "no_master": 1 }), "{status:#}");
    assert_eq!(rejections["named"], json!({ "orphan-1": "no_master" }), "{status:#}");
    let (_, explained) = mapsmith.get("/v1/nodes/orphan-1");
    assert_eq!(
        (&explained["master"], &explained["sources"][0]["rejected"]),
        (&Value::Null, &json!("no_master"))
    );
}

#[test]
fn a_certificate_of_the_puppet_ca_is_let_in() {
    let puppetdb = PuppetDb::shared();
    puppetdb.replace_facts("mutual-1", "m1", true);
    let gateway = Gateway::plan(newest()).start();
    let source = source(&puppetdb.tls_url(), "mutual-", &tls("gateway", puppetdb.ca()));
    let mapsmith = config(&gateway, &source).start();
    in_sync(&mapsmith);
    assert_eq!(memory(&gateway), entries(&[("mutual-1", "m1")]));

    // And the next poll, over a connection that was kept.
    puppetdb.replace_facts("mutual-1", "m2", true);
    reload(&mapsmith);
    assert_eq!(memory(&gateway), entries(&[("mutual-1", "m2")]));
}

/// What `check` says of the source, and what the running daemon does, with a certificate or CA that
/// does not fit.
fn refused(certificate: &str, ca: PathBuf) -> String {
    let puppetdb = PuppetDb::shared();
    let gateway = Gateway::plan(newest()).entry("kept", "m1").start();
    let config = config(&gateway, &source(&puppetdb.tls_url(), "refused-", &tls(certificate, ca)));
    let output = config.cli(&["check"]);
    let (code, text) = printed(&output);
    assert_eq!(code, 1, "{text}{}", complaints(&output));
    let line = text
        .lines()
        .find(|line| line.starts_with("FAIL  source puppetdb:"))
        .unwrap_or_else(|| panic!("{text}"))
        .to_owned();

    let mapsmith = config.start();
    let (status, problem) = mapsmith.post("/v1/reload?wait=30s");
    assert_eq!(status, 502, "{problem:#}");
    let error = problem["report"]["sources"][0]["error"].as_str().expect("why the source failed");
    assert!(line.ends_with(error), "check says {line:?}, the daemon {error:?}");
    assert_eq!(
        memory(&gateway),
        entries(&[("kept", "m1")]),
        "a source that never answered changes nothing"
    );
    line
}

#[test]
fn a_foreign_client_certificate_is_refused_with_a_message_that_says_so() {
    let line = refused("rogue", PuppetDb::shared().ca());
    for part in [
        "the server refused this client's certificate",
        "rogue.pem (cert)",
        "signed by the CA that the server trusts",
    ] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn a_certificate_that_is_not_on_puppetdbs_allowlist_is_refused_with_a_message_that_names_the_allowlist()
 {
    let line = refused("stranger", PuppetDb::shared().ca());
    for part in ["access was refused (403)", "certificate-allowlist"] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn a_ca_that_did_not_sign_puppetdbs_certificate_is_named() {
    let wrong = PuppetDb::shared().certificate("rogue");
    let line = refused("gateway", wrong);
    for part in ["the server's certificate is not trusted", "rogue.pem (ca)"] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}
