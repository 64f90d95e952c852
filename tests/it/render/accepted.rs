//! Every HAProxy takes everything that the settings can declare.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::support::authority::Authority;
use crate::support::haproxy::{Binary, installed};
use crate::support::mapsmith::Mapsmith;

const EVERYTHING: &str = include_str!("everything.toml");

/// The files that [`EVERYTHING`] names.
fn files(folder: &Path) {
    let authority = Authority::create(folder);
    authority.issue("gateway");
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).expect("the folder can be written to");
        path
    };
    for (name, text) in [
        ("nodes.map", "web1 m1\n"),
        ("node-master.map", "web1 m1\n"),
        ("networks.map", "10.0.0.0/8 a\n"),
        ("health.map", "health starting\n"),
        ("extra-a.cfg", "backend extra-a\n"),
        ("extra-b.cfg", "frontend extra-b\n    bind 127.0.0.1:8999\n    default_backend extra-a\n"),
    ] {
        write(name, text);
    }
    let auth = write("stats.auth", "admin:it's a s3cret # 100%\nsecond:\"word\n");
    fs::set_permissions(auth, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let certificates = folder.join("certificates");
    fs::create_dir(&certificates).expect("the folder can be written to");
    fs::copy(authority.both("gateway"), certificates.join("gateway.pem")).expect("it is there");
}

/// What `mapsmith render --check` reports of these settings, with this HAProxy.
fn checked(binary: &Binary, text: &str) -> Value {
    let config = Mapsmith::config("");
    let folder = config.directory().to_str().expect("a folder named in UTF-8").to_owned();
    files(config.directory());
    let binary = format!("[haproxy]\nbinary = {:?}", binary.path);
    let text = text.replace("FOLDER", &folder).replacen("[haproxy]", &binary, 1);
    fs::write(config.path(), text).expect("the settings can be written");
    let output = config.cli(&["render", "--check", "--output", "json"]);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn haproxy_of_every_version_takes_everything_that_can_be_declared_without_a_warning() {
    for binary in installed() {
        let report = checked(binary, EVERYTHING);
        let remarks = &report["remarks"];
        assert!(
            report["valid"] == true && *remarks == serde_json::json!([]),
            "{:?}: {remarks:#}\n{}",
            binary.version,
            report["text"].as_str().unwrap_or_default()
        );
    }
}

#[test]
fn a_secret_is_not_printed_and_a_native_line_is_refused_by_its_setting() {
    let binary = installed().first().expect("there is one");
    let wrong = EVERYTHING.replace("\"option abortonclose\"", "\"option abortonclse\"");
    let report = checked(binary, &wrong);
    assert_eq!(report["valid"], false);
    assert_eq!(report["remarks"][0]["setting"], "backend[0].natives[0]");
    let text = report["text"].as_str().expect("a text");
    assert!(text.contains("stats auth ***") && text.contains("dynamic-cookie-key ***"));
    let printed = report.to_string();
    assert!(!printed.contains("s3cret") && !printed.contains("it's a key"), "{printed}");
}
