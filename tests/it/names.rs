//! Names as registries have them: odd but valid ones reach HAProxy as they are by every way,
//! invalid ones are left out alone.

use std::collections::BTreeMap;

use mapsmith_core::names::MAX_BYTES;
use serde_json::{Value, json};

use crate::support::haproxy::installed;
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{
    BOUND, borrowed, in_sync, memory, metric, newest, oldest_and_newest, reload, source_settings,
};
use crate::support::site::{CALM, Nodes, Site, alternating, patient_instance};

/// Legal names with everything that means something to somebody on the way: HAProxy's command line,
/// its map files, JSON.
fn odd_names() -> Vec<String> {
    let words = [
        "a;b",
        ";",
        r"back\slash",
        r"\",
        r"\;\\;",
        "\"quoted\"",
        "'single'",
        "knöten.example",
        "名前",
        "a#b",
        "a<<b",
        "@1",
        "a=b,c",
        "$(reboot)",
        "${home}",
        "%[src]",
        "`id`",
        "{}",
        "0x55d0",
        "!",
        "~",
        "a|b&c",
        "-",
        "--help",
        "*",
        "?",
        "a/b",
        "añ\u{301}o",
        "é;\\\"'",
    ];
    let longest = [
        "n".repeat(MAX_BYTES),
        ";".repeat(MAX_BYTES),
        "\\".repeat(MAX_BYTES),
        "é".repeat(MAX_BYTES / 2),
    ];
    words.into_iter().map(str::to_owned).chain(longest).collect()
}

/// Each odd name as a node and as a master; `turn` chooses who has whom.
fn odd_nodes(turn: usize) -> Nodes {
    let names = odd_names();
    let mut nodes: Nodes = (0..names.len())
        .map(|at| (names[at].clone(), names[(at + turn) % names.len()].clone()))
        .collect();
    nodes.sort();
    nodes
}

fn sorted(mut nodes: Nodes) -> Nodes {
    nodes.sort();
    nodes
}

fn strategy(report: &Value) -> Value {
    report["instances"][0]["apply"]["strategy"].clone()
}

#[test]
fn odd_names_reach_the_map_as_they_are_by_a_swap_and_by_single_commands() {
    for binary in installed() {
        let ordinary = alternating(3000, 0);
        let with = |turn| sorted(ordinary.iter().cloned().chain(odd_nodes(turn)).collect());
        let site = Site::start(binary, &with(1));
        let mapsmith = site.mapsmith();
        assert_eq!(mapsmith.get("/v1/status").1["instances"][0]["last_apply"]["strategy"], "swap");
        assert_eq!(memory(&site.gateway), with(1), "HAProxy {:?}, by a swap", binary.version);
        // Every odd node moves, then all go, then all come back: a few at a time, which no machine
        // is too slow to do by commands.
        let mut nodes: BTreeMap<_, _> = with(1).into_iter().collect();
        for turn in [Some(2), None, Some(3)] {
            for few in odd_nodes(turn.unwrap_or(0)).chunks(3) {
                for (node, master) in few {
                    nodes.remove(node);
                    nodes.extend(turn.map(|_| (node.clone(), master.clone())));
                }
                let nodes: Nodes = nodes.clone().into_iter().collect();
                site.registry.knows(&borrowed(&nodes));
                let report = reload(&mapsmith);
                assert_eq!(strategy(&report), "edits", "HAProxy {:?}: {report:#}", binary.version);
                assert_eq!(
                    memory(&site.gateway),
                    nodes,
                    "HAProxy {:?}, by single commands",
                    binary.version
                );
            }
        }
    }
}

#[test]
fn a_request_with_an_odd_name_goes_to_its_master() {
    for binary in installed() {
        // What a header can carry, and `lower` and Mapsmith lower alike.
        let names =
            ["a;b", r"back\slash", "\"quoted\"", "knöten.example", "a#b", "a<<b", "$(reboot)"];
        let nodes: Nodes =
            sorted(names.iter().map(|name| ((*name).to_owned(), "master2".to_owned())).collect());
        let site = Site::start(binary, &nodes);
        let _mapsmith = site.mapsmith();
        for name in names {
            assert_eq!(
                site.gateway.request(name),
                (200, "master2".to_owned()),
                "{name} on HAProxy {:?}",
                binary.version
            );
        }
        let longest = "n".repeat(MAX_BYTES);
        assert_eq!(site.gateway.request(&longest), (404, "none".to_owned()));
    }
}

#[test]
fn invalid_entries_are_left_out_and_shown_and_the_rest_is_applied() {
    for binary in oldest_and_newest() {
        let site = Site::start(binary, &alternating(30, 0));
        let mapsmith = site.mapsmith();
        let too_long = "n".repeat(MAX_BYTES + 1);
        let invalid = [
            ("", json!("master1"), "empty_key"),
            ("a b", json!("master1"), "key_whitespace"),
            ("line\nbreak", json!("master1"), "key_whitespace"),
            ("nul\0", json!("master1"), "key_control"),
            ("#comment", json!("master1"), "key_mark"),
            ("<<payload", json!("master1"), "key_mark"),
            ("payload<<", json!("master1"), "key_mark"),
            (&too_long, json!("master1"), "key_too_long"),
            ("no-master", Value::Null, "no_master"),
            ("empty-master", json!(""), "empty_value"),
            ("two-words", json!("master 1"), "value_whitespace"),
            ("two-lines", json!("master1\nn000001 master1"), "value_whitespace"),
            ("control", json!("master1\u{7f}"), "value_control"),
            ("mark", json!("<<"), "value_mark"),
            ("mark-at-the-end", json!("master1<<"), "value_mark"),
            ("long-master", json!(too_long), "value_too_long"),
            ("number", json!(7), "not_string"),
        ];
        let valid = alternating(31, 0);
        let mut document: serde_json::Map<String, Value> =
            valid.iter().map(|(node, master)| (node.clone(), json!(master))).collect();
        let mut counts = serde_json::Map::new();
        for (node, master, reason) in &invalid {
            document.insert((*node).to_owned(), master.clone());
            let count = counts.get(*reason).and_then(Value::as_u64).unwrap_or(0);
            counts.insert((*reason).to_owned(), json!(count + 1));
        }
        site.registry.answers(200, &Value::Object(document).to_string());
        reload(&mapsmith);
        assert_eq!(memory(&site.gateway), valid);
        let status = mapsmith.get("/v1/status").1;
        let rejections = &status["sources"][0]["rejections"];
        assert_eq!(rejections["counts"], Value::Object(counts), "{rejections:#}");
        for (node, _, reason) in invalid
            .iter()
            .filter(|(node, _, _)| node.chars().all(|c| c.is_ascii_graphic()) && node.len() < 100)
        {
            assert_eq!(rejections["named"][node], *reason, "{rejections:#}");
        }
        let series = "mapsmith_source_rejected_entries{source=\"registry\",reason=\"key_mark\"}";
        assert_eq!(metric(&mapsmith, series), Some(3.0));
    }
}

/// Entries whose payload command has exactly this many bytes, with the header that a version of one
/// digit has.
fn filling(map: &str, bytes: usize) -> Nodes {
    let mut room = bytes - format!("add map @1 {map} <<\n").len() - 1;
    let mut nodes = Nodes::new();
    // "k000001 ", 255 bytes and a line's end.
    while room > 0 {
        let line = if room >= 2 * 264 {
            264
        } else if room > 264 {
            room / 2
        } else {
            room
        };
        nodes.push((format!("k{:06}", nodes.len()), "v".repeat(line - 9)));
        room -= line;
    }
    nodes
}

#[test]
fn a_payload_exactly_at_the_bound_arrives_whole() {
    for binary in installed() {
        // The default, and the most that HAProxy's default buffer takes.
        for bound in [15 * 1024, 16383] {
            let site = Site::start(binary, &alternating(1, 0));
            let nodes = sorted(
                filling(site.gateway.map_path(), bound)
                    .into_iter()
                    .chain([("z".to_owned(), "master1".to_owned())])
                    .collect(),
            );
            site.registry.knows(&borrowed(&nodes));
            let settings = CALM.to_owned()
                + &format!("[map]\npath = {:?}\n", site.gateway.map_path())
                + &source_settings("registry", &site.registry.url())
                + &patient_instance("edge1", &site.proxy.address())
                    .replace("max_payload = 1024", &format!("max_payload = {bound}"));
            let mapsmith = Mapsmith::config(&settings).start();
            in_sync(&mapsmith);
            let largest = site.proxy.commands().iter().map(|command| command.bytes).max();
            assert_eq!(largest, Some(bound), "{:?}", site.proxy.commands());
            assert_eq!(memory(&site.gateway), nodes, "HAProxy {:?}, {bound} bytes", binary.version);
        }
    }
}

#[test]
fn a_payload_larger_than_the_gateways_buffer_is_never_taken_for_a_success() {
    for binary in installed() {
        let site = Site::start(binary, &alternating(1, 0));
        let nodes = filling(site.gateway.map_path(), 20_000);
        site.registry.knows(&borrowed(&nodes));
        let settings = CALM.to_owned()
            + &format!("[map]\npath = {:?}\n", site.gateway.map_path())
            + &source_settings("registry", &site.registry.url())
            + &patient_instance("edge1", &site.gateway.runtime_address())
                .replace("max_payload = 1024", "max_payload = 20000");
        let mapsmith = Mapsmith::config(&settings).start();
        let status = mapsmith.wait_for("Mapsmith has tried", BOUND, |mapsmith| {
            let status = mapsmith.get("/v1/status").1["instances"][0].clone();
            ["in_sync", "behind", "refused"]
                .iter()
                .any(|state| status["state"] == *state)
                .then_some(status)
        });
        if status["state"] == "in_sync" {
            // 3.4 takes more than its buffer.
            assert!(binary.version >= newest().version, "{status:#}");
            assert_eq!(memory(&site.gateway), nodes);
        } else {
            assert_eq!(memory(&site.gateway), [], "HAProxy {:?}: {status:#}", binary.version);
            let reason = status["reason"].as_str().expect("a reason");
            assert!(
                reason.contains("max_payload"),
                "HAProxy {:?} says what helps: {reason}",
                binary.version
            );
        }
    }
}
