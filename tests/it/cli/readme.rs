//! What the documents show is what is printed: `explain` and `status` in README.md, a report of the
//! API in docs/api.md.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{masters, text};
use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::registry::Registry;
use crate::support::scene::{
    ON_REQUEST, gateway_settings, in_sync, instance_settings, reload, version_3_0,
};

/// A site of two HAProxys and a PuppetDB that has just said that web1 moved.
fn site() -> (Gateway, Gateway, Registry, Mapsmith) {
    let registry = Registry::start(&[]);
    let edge1 = masters(Gateway::plan(version_3_0())).start();
    let edge2 = masters(Gateway::plan(version_3_0())).map_of(&edge1).start();
    let settings = [
        ON_REQUEST,
        &gateway_settings(&edge1),
        &instance_settings("edge2", &edge2.runtime_address()),
        "[[source]]\nname = \"puppetdb\"\ntype = \"puppetdb\"\n",
        &format!("url = {:?}\n", registry.url()),
        "[source.masters]\n\"puppet1.example.com\" = \"master1\"\n",
        "\"puppet2.example.com\" = \"master2\"\n",
    ]
    .concat();
    registry.answers(200, &factsets("puppet1"));
    let mapsmith = Mapsmith::config(&settings).start();
    in_sync(&mapsmith);
    registry.answers(200, &factsets("puppet2"));
    reload(&mapsmith);
    (edge1, edge2, registry, mapsmith)
}

/// PuppetDB's answer, with the Puppet Server that last sent facts of web1.
fn factsets(producer_of_web1: &str) -> String {
    let rows = [
        ("db1", Some("puppet1")),
        ("db2", None),
        ("web1", Some(producer_of_web1)),
        ("web2", Some("puppet2")),
    ];
    let rows: Vec<_> = rows
        .map(|(node, producer)| {
            serde_json::json!({
                "certname": format!("{node}.example.com"),
                "producer": producer.map(|name| format!("{name}.example.com")),
                "producer_timestamp": "2026-11-20T08:00:00.000Z",
            })
        })
        .into();
    Value::Array(rows).to_string()
}

/// The rest of the first code block in which a document has this line.
fn shown(document: &str, line: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = fs::read_to_string(path).unwrap();
    let (_, after) = text.split_once(&format!("{line}\n")).expect("the document has the line");
    after.split("```").next().unwrap_or_default().to_owned()
}

/// The fields of a value, with the words of those that have a few to choose from; of a list its
/// first element.
fn shape(key: &str, value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), shape(key, value))).collect()
        }
        Value::Array(elements) => elements.iter().take(1).map(|first| shape(key, first)).collect(),
        Value::String(_) if !["outcome", "state", "kind"].contains(&key) => Value::from("text"),
        Value::Number(_) => Value::from(0),
        _ => value.clone(),
    }
}

#[test]
fn the_readme_shows_what_explain_and_status_print() {
    let (edge1, _edge2, _registry, mapsmith) = site();
    let folder = Path::new(edge1.map_path()).parent().unwrap().to_str().unwrap();
    let printed =
        |arguments: &[&str]| text(&mapsmith.cli(arguments), 0).replace(folder, "/etc/haproxy/maps");
    let explain = [
        printed(&["explain", "web1.example.com"]),
        shown("README.md", "$ mapsmith explain web1.example.com"),
    ];
    let status = [printed(&["status"]), shown("README.md", "$ mapsmith status")];
    insta::allow_duplicates! {
        for text in explain {
            assert_text!(text, @"
            node web1.example.com goes to master2 (revision 2)
              since revision 2, [AGE] ago: master1 -> master2
            sources
              puppetdb: master2 (counts), answered [AGE] ago
            in memory right now
              edge1: master2
              edge2: master2
            ");
        }
        for text in status {
            assert_text!(text, @r#"
            all is well: nothing needs you

            revision   2, 3 entries
            changed    [AGE] ago by puppetdb: 0 added, 1 moved, 0 removed
            masters    master1 1, master2 2
            map file   /etc/haproxy/maps/node-master.map

            sources
              puppetdb  puppetdb  3 entries  answered [AGE] ago  last poll full, [N] ms, 434 bytes
              puppetdb: 1 rejected: the registry names no master for the node (null), as "db2.example.com"

            instances
              edge1  in sync with revision 2 (HAProxy [VERSION], pid [PID])
                last change [AGE] ago: revision 2 by [STRATEGY]: 0 added, 1 moved, 0 removed ([STEPS])
              edge2  in sync with revision 2 (HAProxy [VERSION], pid [PID])
                last change [AGE] ago: revision 2 by [STRATEGY]: 0 added, 1 moved, 0 removed ([STEPS])
            "#);
        }
    }
}

#[test]
fn the_api_document_shows_a_report_as_it_is() {
    let (_edge1, _edge2, registry, mapsmith) = site();
    registry.answers(200, &factsets("puppet1"));
    let report = reload(&mapsmith);
    let document: Value = serde_json::from_str(&shown("docs/api.md", "```json")).unwrap();
    assert_eq!(shape("", &document), shape("", &report), "{report}");
}
