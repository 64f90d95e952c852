use std::os::unix::fs::PermissionsExt;

use mapsmith_core::DesiredServers;
use serde_json::json;

use super::*;
use crate::settings::tests::{SMALL, load};

const RENDERED: &str = r#"
[store]
path = "m.db"
[haproxy]
folder = "FOLDER"
[[backend]]
name = "commands"
servers = [{ name = "m1", address = "127.0.0.1:8141" }]
[commands]
gateway = "http://127.0.0.1:8142"
backend = "commands"
[[command]]
name = "puppet-run"
path = "/nodes/{node}/commands"
body = { command = "run", deep = { list = [1, true, "x"] } }
params = [{ name = "noop", pattern = "true|false", default = "false" }]
[[command]]
name = "stop"
path = "/nodes/{node}/commands"
timeout = "2m"
max_bytes = "1KiB"
"#;

fn text(folder: &Path) -> String {
    format!("{SMALL}{}", RENDERED.replace("FOLDER", &folder.display().to_string()))
}

#[test]
fn a_command_is_what_the_settings_say_and_haproxy_has_only_the_secrets_hash() {
    let folder = tempfile::tempdir().unwrap();
    let settings = load(&text(folder.path()), &[]).unwrap();
    let run = settings.command_list[0].model();
    let sent = run.request("web1", &[("noop".to_owned(), "true".to_owned())].into()).unwrap();
    let body = json!({"command": "run", "deep": {"list": [1, true, "x"]}, "noop": "true"});
    assert_eq!(Value::Object(sent.body), body);
    assert_eq!((run.timeout, run.max_bytes), (Duration::from_secs(60), 65536));
    let gateway = |settings: &Settings| {
        let config = settings.haproxy_config(&DesiredServers::default()).unwrap();
        assert_eq!(config.commands.as_ref().unwrap().denied.len(), 1, "each path once");
        config.command_gateway().unwrap().clone()
    };
    let none = gateway(&settings);
    assert_eq!((none.bind.as_str(), none.timeout), ("127.0.0.1:8142", Duration::from_secs(130)));
    assert_eq!(none.secret_sha256, "00".repeat(32), "nobody has a secret of this hash");

    let file = folder.path().join("commands.secret");
    make_secret(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let made = fs::read_to_string(&file).unwrap();
    make_secret(&file).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), made, "it is made once");
    fs::write(&file, "abcdefghijklmnop\n").unwrap();
    let settings = load(&text(folder.path()), &[]).unwrap();
    let expected = "f39dac6cbaba535e2c207cd0cd8f154974223c848f727f98b3564cea569b41cf";
    assert_eq!(gateway(&settings).secret_sha256, expected);
    assert!(!format!("{settings:?}").contains("abcdefghij"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let message = load(&text(folder.path()), &[]).unwrap_err();
    assert!(message.contains("commands.secret_file: "), "{message}");
    assert!(message.contains("its mode is 644"), "{message}");
}

#[test]
fn what_makes_no_sense_is_named_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to, part) in [
        ("http://127.0.0.1:8142", "127.0.0.1:8142", "commands.gateway: is not a URL"),
        ("http://127.0.0.1:8142", "http://10.0.0.1:8142", "commands.gateway: http:// is for"),
        ("http://127.0.0.1:8142", "http://localhost:8142", "commands.gateway: http:// is for"),
        ("http://127.0.0.1:8142", "http://127.0.0.1:8142/x", "commands.gateway: is not a URL"),
        ("http://127.0.0.1:8142", "https://gateway:8142", "commands.backend: the frontend"),
        ("backend = \"commands\"\n", "", "commands.secret_file: is missing"),
        ("backend = \"commands\"", "backend = \"x\"", "commands.backend: there is no backend x"),
        ("[store]\npath = \"m.db\"", "", "commands.gateway: needs [store]"),
        ("[[command]]\nname = \"stop\"", "[[command]]\nname = \"a b\"", "command[1].name: must"),
        ("name = \"stop\"", "name = \"puppet-run\"", "command[1]: there are two of the name"),
        ("timeout = \"2m\"", "timeout = \"11m\"", "command[1].timeout: must be"),
        ("\"1KiB\"", "\"2MiB\"", "command[1].max_bytes: must be"),
        ("name = \"noop\"", "name = \"command\"", "command[0].params[0].name: \"command\" is"),
        ("default = \"false\"", "default = \"no\"", "command[0].params[0].default: does not"),
        ("true|false", "(", "is not a regular expression"),
        (
            "name = \"stop\"\npath = \"/nodes/{node}/commands\"",
            "name = \"stop\"\npath = \"/x\"",
            "is not a path like",
        ),
    ] {
        assert!(RENDERED.contains(from), "{from}");
        let text = text(folder.path()).replacen(from, to, 1);
        let message = load(&text, &[]).unwrap_err();
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}
