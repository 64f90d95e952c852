//! What Aqueduct rendered, and what is rendered here of the same: no line is without its meaning.

use std::fs;

use mapsmith_core::compat::aqueduct::{Backend, Frontend, spec};
use mapsmith_core::objects::Spec;
use serde_json::{Value, json};

use super::aqueduct;
use crate::support::haproxy::Binary;
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::oldest_and_newest;

/// What HAProxy has no keyword for: it stands for any line in what was observed.
const NO_KEYWORD: [&str; 2] = ["option foo", "option x"];

/// As it would stand in TOML.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(toml).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|(key, value)| format!("{key} = {}", toml(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

fn section(kind: &str, name: &str, spec: &Spec) -> String {
    let mut text = format!("[[{kind}]]\nname = {name:?}\n");
    for (key, value) in spec {
        text += &format!("{key} = {}\n", toml(value));
    }
    text
}

/// The lines of a section of what is rendered, which HAProxy takes but for `NO_KEYWORD`.
fn rendered(binary: &Binary, sections: &str, of: &str) -> Vec<String> {
    let text = |sections: &str| {
        let config = Mapsmith::config("");
        let folder = config.directory().display();
        let settings = format!(
            "[haproxy]\nmanaged = true\nfolder = \"{folder}\"\nbinary = {:?}\n\
                [store]\npath = \"s.db\"\n{sections}",
            binary.path
        );
        fs::write(config.path(), settings).expect("the settings can be written");
        let output = config.cli(&["render", "--check", "--output", "json"]);
        serde_json::from_slice::<Value>(&output.stdout)
            .unwrap_or_else(|_| panic!("{sections}\n{}", String::from_utf8_lossy(&output.stderr)))
    };
    let known =
        if of.starts_with("backend") { "option abortonclose" } else { "option dontlognull" };
    let checked = NO_KEYWORD.iter().fold(sections.to_owned(), |text, it| text.replace(it, known));
    let report = text(&checked);
    assert_eq!(report["valid"], true, "{:?}: {report:#}", binary.version);
    let report = text(sections);
    let text = report["text"].as_str().expect("a text").to_owned();
    let (_, rest) = text.split_once(&format!("\n{of}\n")).unwrap_or_else(|| panic!("{text}"));
    let lines = rest.lines().take_while(|line| line.starts_with("    "));
    lines.map(|line| line.trim().to_owned()).collect()
}

/// What a line of Aqueduct's is here. `acl` gives the name that stands in place of the random one.
fn meaning(line: &str, acl: impl Fn(&str) -> String) -> Vec<String> {
    let mut line = line.to_owned();
    while let Some((before, rest)) = line.clone().split_once('<') {
        let (name, after) = rest.split_once('>').expect("a name ends");
        line = format!("{before}{}{after}", acl(name.split(':').next().unwrap()));
    }
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    match line.as_str() {
        // The default, and what `[haproxy]` says of logs.
        "mode http" | "option httplog" => Vec::new(),
        // HAProxy 3.4 refuses it in a frontend.
        "option http-pretend-keepalive" => Vec::new(),
        "option forceclose" => {
            lines(&["option http-server-close", "http-after-response set-header Connection close"])
        }
        "balance source" => lines(&["balance source", "hash-type consistent"]),
        "reqirep ^Host:\\ .*  Host:\\ foo.com" => lines(&["http-request set-header host foo.com"]),
        "option httpchk GET /c HTTP/1.1\\r\\nHost:\\ foo.com" => lines(&[
            "option httpchk",
            "http-check send meth GET uri /c ver HTTP/1.1 hdr host foo.com",
        ]),
        "option httpchk POST /c HTTP/1.0" => {
            lines(&["option httpchk", "http-check send meth POST uri /c ver HTTP/1.0"])
        }
        other => match other.strip_prefix("bind ") {
            Some(addresses) => addresses.split(',').map(|it| format!("bind {it}")).collect(),
            None => vec![
                other
                    .replace("inter 5000", "inter 5s")
                    .replace("inter 2000", "inter 2s")
                    .replace("inter 700", "inter 700ms"),
            ],
        },
    }
}

/// That nothing of what is expected is missing, and that what decides is in its order.
fn compare(id: &str, here: &[String], expected: &[String]) {
    for line in expected {
        assert!(here.contains(line), "{id}: {line:?} is not in {here:#?}");
    }
    let decides = |line: &&String| {
        ["acl ", "use_backend ", "server ", "option foo", "maxconn "]
            .iter()
            .any(|word| line.starts_with(word))
    };
    let of = |lines: &[String]| lines.iter().filter(decides).cloned().collect::<Vec<_>>();
    assert_eq!(of(here), of(expected), "{id}");
}

#[test]
fn a_frontend_does_what_it_did() {
    let vectors = aqueduct();
    let cases = vectors["render_frontend"].as_array().expect("cases");
    assert_eq!(cases.len(), 8);
    for (case, binary) in cases.iter().flat_map(|case| oldest_and_newest().map(|it| (case, it))) {
        let id = case["id"].as_str().unwrap();
        let frontend: Frontend = serde_json::from_value(case["frontend"].clone()).unwrap();
        let spec = spec::frontend(&frontend).unwrap();
        let mode = case["frontend"]["mode"].as_str().unwrap();
        let mut sections = section("frontend", "web", &spec);
        for name in ["live", "staged", "x", "f", "g", "bar"] {
            let backend = json!({"mode": mode, "servers": [], "empty": "accept"});
            sections += &section("backend", name, backend.as_object().unwrap());
        }
        let here = rendered(binary, &sections, "frontend web");
        let named: Vec<_> = here.iter().filter_map(|line| line.strip_prefix("acl ")).collect();
        let acl = |name: &str| {
            let at: usize = name.trim_start_matches('A').parse().unwrap();
            named[at - 1].split(' ').next().unwrap().to_owned()
        };
        let lines = case["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
        let expected: Vec<_> = lines.flat_map(|line| meaning(line, acl)).collect();
        compare(id, &here, &expected);
        assert_eq!(here, rendered(binary, &sections, "frontend web"), "it is stable");
    }
}

#[test]
fn a_backend_does_what_it_did() {
    let vectors = aqueduct();
    let cases = vectors["render_backend"].as_array().expect("cases");
    assert_eq!(cases.len(), 4);
    for (case, binary) in cases.iter().flat_map(|case| oldest_and_newest().map(|it| (case, it))) {
        let id = case["id"].as_str().unwrap();
        let mut said = case["backend"].clone();
        said["type"] = "static".into();
        let backend: Backend = serde_json::from_value(said).unwrap();
        let mut spec = spec::backend("live", &backend, "registrations").unwrap();
        spec.insert("empty".to_owned(), "accept".into());
        let here = rendered(binary, &section("backend", "live", &spec), "backend live");
        let lines = case["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
        let expected: Vec<_> = lines.flat_map(|line| meaning(line, str::to_owned)).collect();
        compare(id, &here, &expected);
    }
}
