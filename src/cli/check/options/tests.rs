use serde_json::{Value, json};

use super::*;

const PLAIN: [&str; 3] = ["ssl", "verify none", "check"];

fn backend(mut rest: Value) -> Backend {
    rest["name"] = json!("puppet");
    serde_json::from_value(rest).unwrap()
}

fn parsed(options: &[&str]) -> ServerOptions {
    ServerOptions::parse(&options.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        .unwrap()
}

fn status(servers: &[(&str, &[&str])]) -> BackendStatus {
    let servers: Vec<_> = servers
        .iter()
        .map(|(name, options)| {
            json!({
                "name": name,
                "address": { "ip": "10.0.0.1", "port": 8140 },
                "weight": null,
                "backup": false,
                "options": parsed(options),
            })
        })
        .collect();
    serde_json::from_value(json!({
        "name": "puppet", "from": "", "servers": servers, "waiting_for": null, "rejected": [],
        "stale": [], "held": null, "change_due": null, "leaving": [],
    }))
    .unwrap()
}

#[test]
fn the_place_of_a_plain_check_is_named_wherever_options_stand() {
    let own = json!(["ssl", "check"]);
    for (rest, expected) in [
        (json!({ "masters": "{producer}:1", "options": PLAIN }), vec!["backend.options"]),
        (
            json!({ "servers": [{ "name": "m1", "address": "a:1" }], "options": PLAIN }),
            vec!["backend.options"],
        ),
        (
            json!({
                "servers": [{ "name": "m1", "address": "a:1", "options": own }], "options": PLAIN,
            }),
            vec!["the options of servers[0] \"m1\""],
        ),
        (json!({ "from": "consul" }), vec!["what the source consul says of \"m2\""]),
        (json!({ "masters": "{producer}:1", "options": ["ssl"] }), vec![]),
    ] {
        let listed = status(&[("m1", &["ssl", "check", "check-ssl"]), ("m2", &PLAIN)]);
        assert_eq!(plain_checks(&backend(rest.clone()), &listed), expected, "{rest}");
    }
}
