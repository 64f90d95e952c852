//! Wrong arguments, wrong settings, and help.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use super::{Scene, complaint, text};
use crate::support::mapsmith::{Mapsmith, cli};

const VERBS: [&str; 33] = [
    "run",
    "check",
    "plan",
    "sync",
    "portmap",
    "status",
    "nodes",
    "explain",
    "master",
    "history",
    "diff",
    "events",
    "stats",
    "reload",
    "pin",
    "unpin",
    "block",
    "unblock",
    "drain",
    "undrain",
    "own",
    "register",
    "unregister",
    "approve",
    "token",
    "server",
    "command",
    "config",
    "rollback",
    "resume",
    "reject",
    "unreject",
    "rollout",
];

#[test]
fn wrong_arguments_end_with_2_and_say_what_is_wrong() {
    for (arguments, words) in [
        (&["shuffle"][..], "unrecognized subcommand 'shuffle'"),
        (&["explain"], "<NODE>"),
        (&["plan", "--everything"], "--everything"),
        (&["status", "--output", "yaml"], "possible values: text, json"),
        (&["reload", "--wait", "soon"], "write a duration like 30s or 2m"),
        (&["rollback", "90", "--bake", "5m"], "--canary <INSTANCE>|--share <PERCENT>"),
        (&["approve", "a1", "--then", "wait"], "--canary <INSTANCE>|--share <PERCENT>"),
        (&["rollback", "90", "--canary", "a", "--share", "9%"], "cannot be used with"),
        (&["events", "--limit", "0"], "write a number, 1 or more"),
        (&["nodes", "--limit", "0"], "write a number, 1 or more"),
        (&[], "Usage: mapsmith"),
    ] {
        let complaint = complaint(&cli(arguments, None), 2);
        assert!(complaint.contains(words), "{arguments:?}: {complaint}");
    }
}

#[test]
fn settings_that_can_not_be_used_end_with_2_and_name_every_problem() {
    let bad = Mapsmith::config(
        "[map]\npath = \"node-master.map\"\n[guard]\nmax_removed = \"20%\"\n\
         [[source]]\nname = \"puppetdb\"\ntype = \"puppetdb\"\nurl = \"puppetdb:8081\"\ncert \
         = \"gateway.pem\"\n\
         [[source]]\nname = \"puppetdb\"\ntype = \"file\"\n",
    );
    for verb in ["run", "check", "plan", "sync"] {
        let complaint = complaint(&bad.cli(&[verb]), 2);
        if verb == "run" {
            assert_text!(complaint, @r#"
            mapsmith: [CONFIG]/mapsmith.toml: 6 problem(s) in the settings:
              - instance: there is none; add an [[instance]] with its runtime socket
              - line 2: map.path: "node-master.map" is relative to HAProxy's working folder; set map.file to where Mapsmith shall write it
              - line 5: source: there are two of the name "puppetdb"
              - line 8: source[0] "puppetdb": url: must begin with http:// or https://
              - line 9: source[0] "puppetdb": cert and key go together
              - line 10: source[1] "puppetdb": path is missing
            "#);
        }
        assert!(complaint.contains("problem(s) in the settings"), "{verb}: {complaint}");
    }
}

#[test]
fn a_settings_file_that_can_not_be_read_is_named() {
    assert_text!(
        complaint(&cli(&["check", "-c", "/nonexistent/mapsmith.toml"], None), 2),
        @"mapsmith: /nonexistent/mapsmith.toml: can't be read: No such file or directory (os error \
            2); -c FILE or MAPSMITH_CONFIG names another one"
    );
    let misspelt = Mapsmith::config("[map]\npth = \"/etc/haproxy/maps/node-master.map\"\n");
    assert_text!(complaint(&misspelt.cli(&["check"]), 2), @"
    mapsmith: [CONFIG]/mapsmith.toml: 1 problem(s) in the settings:
      - line 2: map.pth: there is no such key; did you mean path?
    ");
}

#[test]
fn with_output_json_a_failure_is_json_too() {
    let failure = |output: &Output, code: i32| -> Value {
        let complaint = complaint(output, code);
        serde_json::from_str(&complaint).unwrap_or_else(|error| panic!("{error}: {complaint}"))
    };
    let wrong = failure(&cli(&["shuffle", "--output", "json"], None), 2);
    assert!(
        wrong["error"]
            .as_str()
            .is_some_and(|error| error.contains("unrecognized subcommand 'shuffle'")),
        "{wrong:#}"
    );
    let missing = failure(&cli(&["--output=json", "check", "-c", "/nonexistent/m.toml"], None), 2);
    assert!(
        missing["error"]
            .as_str()
            .is_some_and(|error| error.contains("/nonexistent/m.toml: can't be read")),
        "{missing:#}"
    );
    let misspelt = Mapsmith::config("[map]\npth = \"/n.map\"\nlowercase = \"perhaps\"\n")
        .variable("MAPSMITH__GUARD__SMALL", "few");
    let misspelt = failure(&misspelt.cli(&["plan", "--output", "json"]), 2);
    assert_eq!(misspelt["exit_code"], 2);
    assert_eq!(
        misspelt["problems"],
        json!([
            {
                "line": 2,
                "variable": null,
                "problem": "map.pth: there is no such key; did you mean path?"
            },
            {
                "line": 3,
                "variable": null,
                "problem": "map.lowercase: \"perhaps\" is neither true nor false"
            },
            {
                "line": null,
                "variable": "MAPSMITH__GUARD__SMALL",
                "problem": "guard.small: \"few\" is not a whole number from 0 on"
            },
        ])
    );
    // Port 1 is nobody's.
    let gone = failure(&cli(&["status", "--output", "json"], Some("http://127.0.0.1:1")), 1);
    assert!(
        gone["error"]
            .as_str()
            .is_some_and(|error| error.contains("no Mapsmith answers at http://127.0.0.1:1")),
        "{gone:#}"
    );
}

#[test]
fn a_ca_that_is_no_certificate_is_named_before_anything_runs() {
    let scene = Scene::new();
    let config = Mapsmith::config(&format!("{}ca = \"ca.pem\"\n", scene.settings()));
    fs::write(config.directory().join("ca.pem"), "not a certificate").unwrap();
    let printed = text(&config.cli(&["check"]), 1);
    assert!(
        printed.contains("ca.pem") && printed.contains("holds no certificate in PEM form"),
        "{printed}"
    );
    let complaint = complaint(&config.cli(&["run"]), 1);
    assert!(complaint.contains("ca.pem") && complaint.contains("registry"), "{complaint}");
}

#[test]
fn every_verb_has_help_of_its_own() {
    for verb in VERBS {
        let help = text(&cli(&[verb, "--help"], None), 0);
        assert!(help.contains(&format!("Usage: mapsmith {verb}")), "{help}");
    }
    // What is declared is in neither `explain` nor `history`.
    for verb in ["apply", "delete"] {
        let help = text(&cli(&["config", verb, "--help"], None), 0);
        assert!(help.contains("the audit has it, and so have `events`"), "{help}");
    }
    let help = text(&cli(&["--help"], None), 0);
    assert!(VERBS.iter().all(|verb| help.contains(&format!("  {verb} "))), "{help}");
    assert!(
        help.contains(
            "Exit codes: 0 success, 1 failed, 2 wrong usage or settings, 3 (`plan` only)"
        ),
        "{help}"
    );
}
