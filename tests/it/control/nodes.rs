//! Nodes are found by parts of their names and by master, page by page.

use serde_json::{Value, json};

use super::{Scene, owned};
use crate::support::scene::printed;

fn names(report: &Value) -> Vec<&str> {
    let items = report["items"].as_array().expect("items");
    items.iter().map(|item| item["node"].as_str().expect("a node")).collect()
}

#[test]
fn nodes_are_found_by_prefix_part_and_master_page_by_page() {
    let said = owned(&[
        ("web2.example.test", "m1"),
        ("db1.example.test", "m1"),
        ("web1.example.test", "m2"),
        ("web10.example.test", "m1"),
    ]);
    let scene = Scene::start(&said);
    let all = scene.get("/v1/nodes");
    assert_eq!(
        (&all["revision"], &all["total"], &all["next"], &all["items"][1]),
        (&json!(1), &json!(4), &Value::Null, &json!({"node": "web1.example.test", "master": "m2"}))
    );
    let found = |query: &str| scene.get(&format!("/v1/nodes?{query}"));
    assert_eq!(names(&found("contains=B1.")), ["db1.example.test", "web1.example.test"]);
    assert_eq!(names(&found("prefix=WEB&master=m1")), ["web10.example.test", "web2.example.test"]);
    assert_eq!(names(&found("prefix=web&contains=0&master=m2")), Vec::<&str>::new());

    let first = found("prefix=web&limit=2");
    assert_eq!(names(&first), ["web1.example.test", "web10.example.test"]);
    assert_eq!(first["total"], 3);
    let next = first["next"].as_str().expect("there is another page");
    let second = found(&format!("prefix=web&limit=2&after={next}"));
    assert_eq!((names(&second), &second["next"]), (vec!["web2.example.test"], &Value::Null));

    let response = scene.mapsmith.ask("GET", "/v1/nodes", &[("If-None-Match", "W/\"1-gzip\"")], "");
    assert_eq!((response.status, response.body.as_str()), (304, ""), "the revision is known");
    for query in ["limit=0", "limit=1001", "limit=x", "after=%20", "sort=node"] {
        scene.refused("GET", &format!("/v1/nodes?{query}"), "", 400);
    }

    let (code, text) = printed(&scene.mapsmith.cli(&["nodes", "--prefix", "web", "--limit", "2"]));
    let expected = "web1.example.test   m2\nweb10.example.test  m1\n\
                    the first 2 of 3 nodes (revision 1)\n";
    assert_eq!((code, text.as_str()), (0, expected));
}
