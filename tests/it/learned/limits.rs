//! What can not be learned, and what stays out of the way when nothing can.

use serde_json::json;

use super::{LEARNED, asks, forgets, masters, plan, report, settings, shows, start};
use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::owners::Owners;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, borrowed, in_sync, newest, oldest_and_newest, printed, reload, source_settings,
};

#[test]
fn keys_that_can_be_no_node_are_counted_and_harm_nothing() {
    for binary in oldest_and_newest() {
        let odd = ["a b", "#a", "a<<"];
        let valid = ["x;y", "b\\c", "k=v", "q\"z"];
        let owners = Owners::new(&[("n1", "master1")]);
        odd.iter().chain(&valid).for_each(|node| owners.moves(node, "master2"));
        let masters = masters(&owners);
        let gateway = plan(binary, &masters).start();
        let registry = Registry::start(&[("n1", "master1")]);
        let mapsmith = start(&gateway, &registry);
        for node in odd.iter().chain(&valid) {
            assert_eq!(gateway.request(node).0, 200, "{node}");
        }
        let mut routes = valid.map(|node| (node, "master2"));
        routes.sort();
        let shown = shows(&mapsmith, &routes);
        assert_eq!(shown["malformed"], 3, "{shown:#}");
        // The valid ones among them are forgotten like any other.
        let known: Vec<_> =
            valid.iter().map(|node| (*node, "master2")).chain([("n1", "master1")]).collect();
        registry.knows(&known);
        shows(&mapsmith, &[]);
        assert_eq!(gateway.learned().len(), 3, "{}", gateway.command("show table puppet"));
        assert_eq!(gateway.request("n1"), (200, "master1".to_owned()));
    }
}

#[test]
fn no_more_routes_are_kept_than_the_settings_allow() {
    let names: Vec<_> = (0..12).map(|number| format!("n{number:02}")).collect();
    let owners =
        Owners::new(&names.iter().map(|name| (name.as_str(), "master2")).collect::<Vec<_>>());
    let masters = masters(&owners);
    let gateway = plan(newest(), &masters).start();
    let registry = Registry::start(&[("other", "master1")]);
    let text = settings(&gateway, &source_settings("registry", &registry.url()))
        .replace(LEARNED, &format!("{LEARNED}max = 5\n"));
    let mapsmith = Mapsmith::config(&text).start();
    in_sync(&mapsmith);
    for name in &names {
        assert_eq!(gateway.request(name), (200, "master2".to_owned()));
    }
    let report = mapsmith.wait_for("all are counted", BOUND, |mapsmith| {
        let report = report(mapsmith);
        (report["truncated"] == 7).then_some(report)
    });
    assert_eq!(
        (&report["routes"], report["nodes"].as_array().map(Vec::len)),
        (&json!(5), Some(5)),
        "{report:#}"
    );
    let (_, text) = printed(&mapsmith.cli(&["status"]));
    assert!(text.contains("learned routes: 5, and 7 more that were not read"), "{text}");
    // Room for the next ones comes with those that are settled.
    let known = [owners.all(), vec![("other".to_owned(), "master1".to_owned())]].concat();
    registry.knows(&borrowed(&known));
    forgets(&mapsmith, &gateway);
}

#[test]
fn a_stick_table_that_haproxy_does_not_have_is_told_and_the_map_is_kept_all_the_same() {
    for binary in oldest_and_newest() {
        let gateway = Gateway::plan(binary).start();
        let registry = Registry::start(&[("n1", "master1")]);
        let mapsmith = start(&gateway, &registry);
        let told = mapsmith.wait_for("the status tells", BOUND, |mapsmith| {
            mapsmith.get("/v1/status").1["instances"][0]["learned"]["error"]
                .as_str()
                .map(str::to_owned)
        });
        assert!(
            told.contains("show table puppet") && told.contains("has no stick table"),
            "{told}"
        );
        registry.knows(&[("n1", "master2")]);
        reload(&mapsmith);
        assert_eq!(gateway.memory_map(), [("n1".to_owned(), "master2".to_owned())]);
        let (code, text) = printed(&mapsmith.cli(&["status"]));
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("stick table"), "{text}");
        assert_eq!(
            mapsmith.log().matches("cannot update learned routes").count(),
            1,
            "{}",
            mapsmith.log()
        );
    }
}

#[test]
fn without_the_setting_nothing_is_read() {
    let owners = Owners::new(&[("n1", "master2")]);
    let masters = masters(&owners);
    let gateway = plan(newest(), &masters).start();
    let registry = Registry::start(&[("n1", "master1")]);
    let text =
        settings(&gateway, &source_settings("registry", &registry.url())).replace(LEARNED, "");
    let mapsmith = Mapsmith::config(&text).start();
    in_sync(&mapsmith);
    asks(&gateway, &owners, "n1", "master2", 1..=28);
    registry.knows(&[("n1", "master2")]);
    reload(&mapsmith);
    assert_eq!(gateway.learned(), [("n1".to_owned(), "master2".to_owned())]);
    assert_eq!(mapsmith.get("/v1/learned"), (200, json!([])));
}
