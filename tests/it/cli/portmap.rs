//! `portmap`: what a portmap declares, and what is wrong with it.

use serde_json::{Value, json};

use super::{complaint, text};
use crate::support::mapsmith::{cli, cli_reading};

const GOOD: &str = "https-http://443:web.example.com:8080{check:/healthz,port:9000,fall:3}, \
    https://8443:api.example.com\ntcp://22:10.0.0.1:2222";

#[test]
fn what_a_portmap_declares_is_shown_service_by_service() {
    assert_text!(text(&cli(&["portmap", GOOD], None), 0), @"
    listens  type        servers                                                      \
    health check
    443      https-http  addresses of web.example.com, port 8080                      \
    GET /healthz at port 9000, rise 2, fall 3
    8443     https       SRV records of api.example.com, verified as api.example.com  \
    connection, rise 2, fall 1
    22       tcp         10.0.0.1:2222                                                \
    connection, rise 2, fall 1
    ");
    assert_text!(text(&cli(&["portmap", " , "], None), 0), @"no services");
}

#[test]
fn what_is_wrong_is_told_with_its_column_and_the_rest_is_shown() {
    let wrong = format!("{GOOD},udp://53:a.test, http://443:b.test {{check:/x}}");
    let told = text(&cli(&["portmap", &wrong], None), 1);
    let (services, rejected) = told.split_once("\n\n").expect("two parts");
    assert_eq!(format!("{services}\n"), text(&cli(&["portmap", GOOD], None), 0));
    assert_text!(rejected, @"
    3 pieces rejected
      column 125, udp://53:a.test: unsupported protocol: udp; write one of http, https, \
      https+insecure, https-http, tcp and tcp-proxy-v2
      column 149, http://443:b.test: port 443 is taken: \
      https-http://443:web.example.com:8080{check:/healthz,port:9000,fall:3} comes first and \
      listens there; take another port
      column 160, {check:/x}: missing '://': write TYPE://PORT:NAME, like \
      http://80:web.example.com:8080
    ");
    let only = text(&cli(&["portmap", "http://80:a\u{1b}[31m"], None), 1);
    assert!(only.starts_with("no services\n\n1 piece rejected\n  column 12, "), "{only}");
    assert!(!only.contains('\u{1b}'), "a control character is shown and not sent: {only:?}");
}

#[test]
fn a_program_is_told_the_fields_of_each_service_and_of_what_was_rejected() {
    let json = |arguments: &[&str], code| -> Value {
        let printed = text(&cli(arguments, None), code);
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
    };
    let report = json(&["portmap", "HTTP://80:A.test:8080{rise:3},x", "--output", "json"], 1);
    let expected = json!({
        "services": [{
            "type": "http",
            "listen_port": 80,
            "backend_name": "A.test",
            "backend_port": 8080,
            "check_path": null,
            "check_port": null,
            "rise": 3,
            "fall": null,
        }],
        "rejected": [{
            "string": "x",
            "column": 31,
            "error": "missing '://': write TYPE://PORT:NAME, like http://80:web.example.com:8080",
        }],
    });
    assert_eq!(report, expected);
    let empty = json!({ "services": [], "rejected": [] });
    assert_eq!(json(&["--output", "json", "portmap", ""], 0), empty);
}

#[test]
fn a_portmap_is_read_from_standard_input_up_to_a_bound() {
    let piped = text(&cli_reading(&["portmap", "-"], GOOD.as_bytes()), 0);
    assert_eq!(piped, text(&cli(&["portmap", GOOD], None), 0));
    let long = vec![b'x'; 3 * 1024 * 1024];
    let printed = text(&cli_reading(&["portmap", "-"], &long), 1);
    assert!(printed.contains("longer than 1048576 bytes") && printed.len() < 1000, "{printed}");
    let mixed = text(&cli_reading(&["portmap", "-"], b"tcp://1:a.b \xff"), 1);
    assert!(mixed.contains("SRV records of a.b") && mixed.contains("column 13, "), "{mixed}");
}

#[test]
fn help_has_the_grammar_and_its_examples_are_good_ones() {
    let help = text(&cli(&["portmap", "--help"], None), 0);
    assert!(help.contains("TYPE://PORT:NAME[:PORT][{KEY:VALUE,...}]"), "{help}");
    let examples: Vec<_> =
        help.lines().filter_map(|line| line.split_once("mapsmith portmap '")).collect();
    assert_eq!(examples.len(), 2, "{help}");
    for (_, example) in examples {
        text(&cli(&["portmap", example.trim_end_matches('\'')], None), 0);
    }
    let missing = complaint(&cli(&["portmap"], None), 2);
    assert!(missing.contains("<TEXT>"), "{missing}");
}
