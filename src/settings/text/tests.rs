//! The same settings in every format, variables over them, and what no format may do.

use std::ffi::OsString;
use std::path::Path;

use crate::settings::Settings;
use crate::settings::tests::{SMALL, load, load_as};

const MISSPELT_TOML: &str = r#"[map]
path = "/etc/haproxy/maps/node-master.map"
lowercase = "perhaps"

[guard]
max_remved = "20%"
min_entries = "many"

[[source]]
name = "puppetdb"
tpye = "puppetdb"
url = "http://127.0.0.1:8080"

[[source]]
name = "pins"
type = "fille"
path = "pins.json"

[[instance]]
name = "edge1"
runtime = "/run/haproxy/admin.sock"
timeot = "5s"

[shedule]
poll = "60s"
"#;

const MISSPELT_YAML: &str = r#"map:
  path: /etc/haproxy/maps/node-master.map
  lowercase: perhaps

guard:
  max_remved: 20%
  min_entries: many

source:
  - name: puppetdb
    tpye: puppetdb
    url: http://127.0.0.1:8080

  - name: pins
    type: fille
    path: pins.json

instance:
  - name: edge1
    runtime: /run/haproxy/admin.sock
    timeot: 5s

shedule:
  poll: 60s
"#;

const MISSPELT_JSON: &str = r#"{"map": {
  "path": "/etc/haproxy/maps/node-master.map",
  "lowercase": "perhaps"},

"guard": {
  "max_remved": "20%",
  "min_entries": "many"},

"source": [{
  "name": "puppetdb",
  "tpye": "puppetdb",
  "url": "http://127.0.0.1:8080"},

{ "name": "pins",
  "type": "fille",
  "path": "pins.json"}],
"instance": [{

  "name": "edge1",
  "runtime": "/run/haproxy/admin.sock",
  "timeot": "5s"}],

"shedule": {
  "poll": "60s"}
}"#;

#[test]
fn every_misspelt_key_and_wrong_value_is_named_in_one_run_with_its_line_in_each_format() {
    let told = [
        "map.lowercase: \"perhaps\" is neither true nor false",
        "guard.max_remved: there is no such key; did you mean max_removed?",
        "guard.min_entries: \"many\" is not a whole number from 0 on",
        "source[0].tpye: there is no such key; did you mean type?",
        "source[1].type: \"fille\" is none of puppetdb, consul, zookeeper, etcd, dns, http_json, \
            file, metadata or registrations",
        "instance[0].runtime: \"/run/haproxy/admin.sock\" is not a runtime address; \
            write \"unix@/run/haproxy/admin.sock\" or \"tcp@127.0.0.1:9999\"",
        "instance[0].timeot: there is no such key; did you mean timeout?",
        "shedule: there is no such key; did you mean schedule?",
    ];
    for (ending, text, lines) in [
        ("toml", MISSPELT_TOML, [3, 6, 7, 11, 16, 21, 22, 24]),
        ("yaml", MISSPELT_YAML, [3, 6, 7, 11, 15, 20, 21, 23]),
        ("json", MISSPELT_JSON, [3, 6, 7, 11, 15, 20, 21, 23]),
    ] {
        let problems: String = lines
            .iter()
            .zip(told)
            .map(|(line, problem)| format!("\n  - line {line}: {problem}"))
            .collect();
        assert_eq!(
            load_as(ending, text, &[]).unwrap_err(),
            format!("FILE: 8 problem(s) in the settings:{problems}"),
            "{ending}"
        );
    }
}

#[test]
fn the_three_formats_say_the_same() {
    let yaml = r#"
map: {path: /etc/haproxy/maps/node-master.map, lowercase: false}
api:
source: &all
- name: puppetdb
  type: puppetdb
  url: http://127.0.0.1:8080
  priority: -3
  masters: {puppet00: 007, "a.b": 1.10, c: yes}
instance: [{name: edge1, runtime: "unix@/run/haproxy/admin.sock"}]
guard: {max_removed: 20%, max_moved: 500}
"#;
    let json = r#"{"map": {"path": "/etc/haproxy/maps/node-master.map", "lowercase": false},
"api": null,
"source": [{"name": "puppetdb", "type": "puppetdb", "url": "http:\/\/127.0.0.1:8080",
"priority": -3, "masters": {"puppet00": "007", "a.b": "1.10", "c": "yes"}}],
"instance": {"name": "edge1", "runtime": "unix@/run/haproxy/admin.sock"},
"guard": {"max_removed": "20%", "max_moved": 500}}"#;
    let toml = r#"
map.path = '/etc/haproxy/maps/node-master.map'
map.lowercase = false
source = [PUPPETDB]
instance = [{name = "edge1", runtime = "unix@/run/haproxy/admin.sock"}]
guard = {max_removed = "20%", max_moved = 0x1F4}
"#;
    let puppetdb = r#"{name = "puppetdb", type = "puppetdb", url = "http://127.0.0.1:8080", "#
        .to_owned()
        + r#"priority = -3, masters = {puppet00 = "007", "a.b" = "1.10", c = "yes"}}"#;
    let toml = toml.replace("PUPPETDB", &puppetdb);
    let [toml, yaml, json] = [("toml", &*toml), ("yaml", yaml), ("json", json)]
        .map(|(ending, text)| load_as(ending, text, &[]).unwrap());
    assert_eq!(toml.sources[0].masters["puppet00"], "007");
    assert_eq!(toml.guard.max_moved, mapsmith_core::desired::guard::Limit::Entries(500));
    assert_eq!((toml.sources[0].priority, toml.map.lowercase), (-3, false));
    for other in [yaml, json] {
        assert_eq!(format!("{other:?}"), format!("{toml:?}"));
    }
}

#[test]
fn a_text_of_the_environment_stays_text_and_fits_numbers_too() {
    let settings = load(
        SMALL,
        &[
            ("MAPSMITH__SOURCE__0__MASTERS__PUPPET00", "007"),
            ("MAPSMITH__SOURCE__0__MASTERS__PUPPET01", "true"),
            ("MAPSMITH__SOURCE__0__MASTERS__PUPPET02.EXAMPLE.COM", "puppet02"),
            ("MAPSMITH__SOURCE__0__NAME", "1e3"),
            ("MAPSMITH__SOURCE__0__PRIORITY", "10"),
            ("MAPSMITH__GUARD__MAX_REMOVED", "20"),
            ("MAPSMITH__GUARD__MAX_MOVED", "20%"),
            ("MAPSMITH__SOURCE__1__NAME", "second"),
            ("MAPSMITH__SOURCE__1__TYPE", "file"),
            ("MAPSMITH__SOURCE__1__PATH", "/pins.json"),
        ],
    )
    .unwrap();
    let [first, second] = &settings.sources[..] else {
        panic!("the variables add a second source")
    };
    assert_eq!((&*first.name, first.priority, &*second.name), ("1e3", 10, "second"));
    assert_eq!((&*first.masters["puppet00"], &*first.masters["puppet01"]), ("007", "true"));
    assert_eq!(first.masters["puppet02.example.com"], "puppet02");
    assert_eq!(settings.guard.max_removed, mapsmith_core::desired::guard::Limit::Entries(20));
}

#[test]
fn a_variable_that_can_not_be_laid_over_the_file_is_told_by_its_name() {
    use std::os::unix::ffi::OsStringExt;
    for (name, told) in [
        (
            "MAPSMITH__SOURCE__2__URL",
            "source[2].url: there are 1 of them, so the next one has the number 1, not 2",
        ),
        (
            "MAPSMITH__SOURCE__18446744073709551615__URL",
            "source[18446744073709551615].url: there are 1 of them",
        ),
        (
            "MAPSMITH__SOURCE__99999999999999999999__URL",
            "source[18446744073709551615].url: there are 1 of them",
        ),
        ("MAPSMITH__MAP__PATH__X", "map.path.x: \"x\" can't be a key of it: it is not a table"),
        ("MAPSMITH__MAP__PAHT", "map.paht: there is no such key; did you mean path?"),
        ("MAPSMITH__", "\"\": there is no such key"),
        ("MAPSMITH__MAP.PATH", "\"map.path\": there is no such key"),
        ("MAPSMITH__SOURCE[9999999999999]", "\"source[9999999999999]\": there is no such key"),
        (
            "MAPSMITH__SOURCE__0__A.B[9999999999999]",
            "source[0].\"a.b[9999999999999]\": there is no such key",
        ),
        (
            &*format!("MAPSMITH__MAP{}", "__X".repeat(40_000)),
            &*format!("map{}: lists and tables stand more than 32 deep", ".x".repeat(40_000)),
        ),
    ] {
        let message = load(SMALL, &[(name, "x")]).unwrap_err();
        assert!(message.contains(&format!("  - {name}: {told}")), "{told}\n{message}");
    }
    let variables = [
        ("MAPSMITH__MAP__FILE".into(), OsString::from_vec(vec![b'/', 0xff])),
        ("OTHER".into(), OsString::from_vec(vec![0xff])),
    ];
    let message =
        Settings::of_text(Path::new("/m.toml"), SMALL, variables).unwrap_err().to_string();
    assert!(
        message.ends_with(
            "1 problem(s) in the settings:\n  - MAPSMITH__MAP__FILE: map.file: the \
            value is not UTF-8 text"
        ),
        "{message}"
    );
}

#[test]
fn a_yaml_text_that_grows_without_bound_is_an_error_and_eats_no_memory() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (this, last) in ["b", "c", "d", "e", "f", "g", "h", "i", "j"]
        .iter()
        .zip(["a", "b", "c", "d", "e", "f", "g", "h", "i"])
    {
        bomb.push_str(&format!("{this}: &{this} [{}]\n", vec![format!("*{last}"); 10].join(", ")));
    }
    for (text, told) in [
        (bomb, "these are more than 100000 values, with each alias counted as what it stands for"),
        ("[".repeat(40), "lists and tables stand more than 32 deep in each other"),
        ("[".repeat(100_000), "recursion limit exceeded"),
        ("- ".repeat(100_000), "lists and tables stand more than 32 deep in each other"),
        (" &a [*a]".to_owned(), "an alias of what is not a whole value"),
        ("a: 1\na: 2".to_owned(), "line 2, column 4: the key \"a\" stands twice in one table"),
        ("a: 1\n---\nb: 1".to_owned(), "line 2, column 1: a second document begins"),
        ("? [a]\n: 1".to_owned(), "a list or table can be no key"),
    ] {
        let message = load_as("yaml", &text, &[]).unwrap_err();
        assert!(message.starts_with("FILE: ") && message.contains(told), "{told}: {message}");
    }
    let deep = load_as("json", &"[".repeat(100_000), &[]).unwrap_err();
    assert!(deep.contains("recursion limit"), "{deep}");
}

#[test]
fn nothing_and_what_is_no_table_is_told_as_that() {
    for (ending, text) in [("toml", ""), ("yaml", ""), ("yaml", "# nothing"), ("json", "{}")] {
        let message = load_as(ending, text, &[]).unwrap_err();
        assert!(
            message.contains("1 problem(s) in the settings:\n  - map.path: is missing"),
            "{ending} {text:?}: {message}"
        );
    }
    for (ending, text) in [("yaml", "map"), ("json", "[]"), ("json", "3")] {
        let message = load_as(ending, text, &[]).unwrap_err();
        assert!(
            message.contains("\n  - a table of keys must stand here"),
            "{ending} {text:?}: {message}"
        );
    }
    let message = load(&SMALL.replace("path = ", "path.x = "), &[]).unwrap_err();
    assert!(
        message.contains("line 3: map.path: one value must stand here, not a table of keys"),
        "{message}"
    );
}
