//! `mapsmith render --check` gives the verdict that HAProxy gives of the same configuration.

use std::fs;

use serde_json::Value;

use crate::support::haproxy::{Binary, installed};
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{complaints, printed};

/// What `mapsmith render --check` reports, where HAProxy is run by somebody else.
fn checked(binary: &Binary, settings: &str) -> Value {
    let config = Mapsmith::config("");
    let folder = config.directory().display();
    let text = format!(
        "[haproxy]\nbinary = {:?}\n[map]\npath = \"{folder}/nodes.map\"\n\
         [[source]]\nname = \"nodes\"\ntype = \"file\"\npath = \"{folder}/nodes.json\"\n\
         [[instance]]\nname = \"edge1\"\nruntime = \"unix@{folder}/admin.sock\"\n{settings}",
        binary.path
    );
    fs::write(config.path(), text).expect("the settings can be written");
    fs::write(config.directory().join("nodes.json"), "{}").expect("the nodes can be written");
    let output = config.cli(&["render", "--check", "--output", "json"]);
    let (code, text) = printed(&output);
    let report: Value =
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}", complaints(&output)));
    assert_eq!(code == 0, report["valid"] == true, "{report:#}");
    report
}

#[test]
fn a_configuration_that_haproxy_would_not_start_with_is_not_valid() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("addresses");
    fs::write(&list, "10.0.0.0/8\nnot an address\n").expect("the file can be written");
    let site = |frontend: &str, backend: &str| {
        format!(
            "[[frontend]]\nname = \"web\"\nbind = [\"127.0.0.1:8080\"]\ndefault_backend = \"app\"\n\
             {frontend}\n[[backend]]\nname = \"app\"\nservers = []\n{backend}\n"
        )
    };
    let acl = format!("natives = ['acl inside src -f {}']", list.display());
    let rising = site("", "").replace(
        "servers = []",
        "servers = [{ name = \"a\", address = \"10.0.0.1:80\", options = [\"rise 0\"] }]",
    );
    for binary in installed() {
        for (name, settings, valid, setting) in [
            ("nothing at all", String::new(), false, None),
            ("no listener", "[[backend]]\nname = \"app\"\nservers = []\n".to_owned(), false, None),
            (
                "words of nobody",
                site("natives = [';;;;']", ""),
                false,
                Some("frontend[0].natives[0]"),
            ),
            ("a list that is none", site(&acl, ""), false, Some("frontend[0].natives[0]")),
            (
                "a server that rises at once",
                rising.clone(),
                false,
                Some("backend[0].servers \"a\""),
            ),
            ("a service", site("", ""), true, None),
            (
                "a template of servers",
                site("", "natives = ['server-template w 3 :8080']"),
                true,
                None,
            ),
            ("a check without a slash", site("", "check = { uri = \"ping\" }"), true, None),
            (
                "a server by a variable",
                site("", "natives = ['use-server %[var(txn.node)] if { var(txn.node) -m found }']"),
                true,
                None,
            ),
        ] {
            let report = checked(binary, &settings);
            assert_eq!(report["valid"], valid, "{name}, HAProxy {:?}: {report:#}", binary.version);
            if let Some(setting) = setting {
                let remarks = report["remarks"].as_array().expect("a list");
                let named = remarks.iter().any(|remark| remark["setting"] == setting);
                assert!(named, "{name}, HAProxy {:?}: {report:#}", binary.version);
            }
        }
    }
}
