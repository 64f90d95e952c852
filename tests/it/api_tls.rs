//! The API over TLS: its certificate, those of clients, and clients that never finish a handshake.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use reqwest::{Certificate, Client, Identity};
use serde_json::Value;

use crate::support::authority::Authority;
use crate::support::free_port;
use crate::support::haproxy::Gateway;
use crate::support::mapsmith::{Config, Mapsmith, cli};
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, complaints, gateway_settings, newest, printed, source_settings,
};

struct Scene {
    _gateway: Gateway,
    _registry: Registry,
    authority: Authority,
    mapsmith: Mapsmith,
}

fn tls(listen: &str) -> String {
    format!(
        "[api]\nlisten = {listen:?}\ntoken_file = \"token\"\n\
        [api.tls]\ncert = \"api.pem\"\nkey = \"api.key\"\n"
    )
}

const CLIENTS: &str = "client_ca = \"ca.pem\"\nclient_crl = \"crl.pem\"\n\
    client_auth = \"request\"\n\
    [[api.client]]\nsan = \"ops1\"\nrole = \"operator\"\n";

fn scene(more: &str) -> Scene {
    scene_at("127.0.0.1:0", more)
}

fn scene_at(listen: &str, more: &str) -> Scene {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("node1", "m1")]);
    let source = source_settings("registry", &registry.url());
    let config: Config = Mapsmith::config(&format!(
        "{ON_REQUEST}{}{source}{}{more}",
        gateway_settings(&gateway),
        tls(listen)
    ));
    let authority = Authority::create(config.directory());
    for name in ["api", "other", "ops1", "ops2"] {
        authority.issue(name);
    }
    fs::write(config.directory().join("token"), "s3cret").unwrap();
    let mapsmith = config.start();
    Scene { _gateway: gateway, _registry: registry, authority, mapsmith }
}

impl Scene {
    fn file(&self, name: &str) -> String {
        self.mapsmith.configuration().directory().join(name).display().to_string()
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        let url = format!("https://localhost:{}", self.mapsmith.address().port());
        cli(&[arguments, &["--ca", &self.file("ca.pem")]].concat(), Some(&url))
    }

    fn as_client(&self, name: &str, arguments: &[&str]) -> Output {
        let (cert, key) = (self.file(&format!("{name}.pem")), self.file(&format!("{name}.key")));
        self.cli(&[arguments, &["--cert", &cert, "--key", &key]].concat())
    }

    fn status(&self) -> Value {
        let output = self.cli(&["status", "--token", "s3cret", "--output", "json"]);
        serde_json::from_str(&printed(&output).1).unwrap_or_else(|error| {
            panic!("{error}: {}\n{}", complaints(&output), self.mapsmith.log())
        })
    }
}

#[test]
fn a_certificate_that_is_replaced_is_in_force_and_a_bad_pair_keeps_the_one_before() {
    let scene = scene("");
    assert_eq!(scene.status()["api"]["tls"]["error"], Value::Null);
    let before = scene.status()["api"]["tls"]["not_after"].clone();
    assert!(before.is_string(), "{before}");
    // The key of another pair.
    fs::copy(scene.file("other.key"), scene.file("api.key")).unwrap();
    let error = scene.mapsmith.wait_for("the status names the bad pair", BOUND, |_| {
        scene.status()["api"]["tls"]["error"].as_str().map(str::to_owned)
    });
    assert!(error.contains("api.tls.cert") && error.contains("api.key"), "{error}");
    fs::copy(scene.file("other.pem"), scene.file("api.pem")).unwrap();
    scene.mapsmith.wait_for("the other pair is in force", BOUND, |_| {
        scene.status()["api"]["tls"]["error"].is_null().then_some(())
    });
    assert!(scene.mapsmith.log().contains("was replaced"), "{}", scene.mapsmith.log());
}

#[test]
fn clients_are_known_by_their_certificates_until_these_are_revoked() {
    let scene = scene(CLIENTS);
    let (code, text) = printed(&scene.as_client("ops1", &["reload"]));
    assert_eq!(code, 0, "{text}\n{}", scene.mapsmith.log());
    for (output, why) in [
        (scene.as_client("ops2", &["status"]), "nobody knows this one"),
        (scene.cli(&["status"]), "none was shown"),
    ] {
        assert!(complaints(&output).contains("401"), "{why}: {}", complaints(&output));
    }
    let stranger = complaints(&scene.as_client("ops2", &["status"]));
    let remedy = "none of its names (\"ops2\", \"localhost\") is the `san` of an `[[api.client]]`";
    assert!(stranger.contains(remedy), "{stranger}");
    let pin = ["pin", "node1", "m1", "--force", "--wait", "0s", "--token", "s3cret"];
    let output = scene.as_client("ops1", &pin);
    assert!(complaints(&output).contains("[store]"), "a token counts: {}", complaints(&output));

    scene.authority.revoke("ops1");
    // A handshake that was through before ends in 401.
    scene.mapsmith.wait_for("there is no connection at all", BOUND, |_| {
        let output = scene.as_client("ops1", &["status"]);
        (!output.status.success() && !complaints(&output).contains("401")).then_some(())
    });
    assert_eq!(scene.as_client("ops2", &["status", "--token", "s3cret"]).status.code(), Some(0));
}

#[test]
fn a_certificate_that_is_revoked_counts_no_more_by_a_connection_that_is_open() {
    let scene = scene(CLIENTS);
    let read = |name: &str| fs::read(scene.file(name)).expect("a file of the scene");
    let pair = [read("ops1.pem"), read("ops1.key")].concat();
    let client = Client::builder()
        .tls_certs_only(Certificate::from_pem_bundle(&read("ca.pem")).expect("a CA"))
        .identity(Identity::from_pem(&pair).expect("a certificate and its key"))
        .build()
        .expect("a client");
    let url = format!("https://localhost:{}/v1/about", scene.mapsmith.address().port());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let ask = || {
        let answer = runtime.block_on(client.get(&url).send());
        // Another connection would not come about.
        answer.unwrap_or_else(|error| panic!("{error:?}\n{}", scene.mapsmith.log())).status()
    };
    assert_eq!(ask(), 200);
    scene.authority.revoke("ops1");
    scene.mapsmith.wait_for("it counts no more", BOUND, |_| (ask() == 401).then_some(()));
}

#[test]
fn who_connects_and_says_nothing_keeps_nobody_waiting() {
    let scene = scene("");
    let address: SocketAddr = scene.mapsmith.address();
    let time = || {
        let start = Instant::now();
        scene.status();
        start.elapsed()
    };
    let usual = (0..3).map(|_| time()).max().unwrap_or_default();
    let silent: Vec<_> =
        (0..500).map(|_| TcpStream::connect(address).expect("the kernel accepts it")).collect();
    let with_them = (0..3).map(|_| time()).min().unwrap_or_default();
    // The handshakes of the silent ones end after ten seconds, and none of them is waited for.
    assert!(
        with_them < 2 * usual + Duration::from_secs(1),
        "{with_them:?} with 500 silent clients, {usual:?} without"
    );
    drop(silent);
}

#[test]
fn a_client_that_knows_http_2_gets_it() {
    let scene = scene("");
    let url = format!("https://localhost:{}/v1/about", scene.mapsmith.address().port());
    for (version, expected) in [("--http2", "2 200"), ("--http1.1", "1.1 200")] {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "60", "--output", "/dev/null"]);
        curl.args(["--write-out", "%{http_version} %{http_code}", "--cacert"]);
        curl.arg(scene.authority.ca()).args(["--header", "Authorization: Bearer s3cret"]);
        let (_, text) = printed(&curl.args([version, &url]).output().expect("curl runs"));
        assert_eq!(text, expected, "{version}");
    }
}

#[test]
fn a_certificate_that_can_not_be_used_keeps_the_daemon_from_starting() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[]);
    let source = source_settings("registry", &registry.url());
    let config = Mapsmith::config(&format!(
        "{ON_REQUEST}{}{source}{}",
        gateway_settings(&gateway),
        tls("127.0.0.1:0")
    ));
    fs::write(config.directory().join("token"), "s3cret").unwrap();
    fs::write(config.directory().join("api.pem"), "no certificate").unwrap();
    fs::write(config.directory().join("api.key"), "no key").unwrap();
    let output = config.cli(&["run"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(complaints(&output).contains("api.tls.cert"), "{}", complaints(&output));
    let checked = printed(&config.cli(&["check"])).1;
    let line = checked.lines().find(|line| line.contains("api.tls"));
    assert!(line.is_some_and(|line| line.starts_with("FAIL")), "{checked}");
}

#[test]
fn a_certificate_that_can_not_be_read_stops_no_command_that_can_do_without() {
    let port = free_port();
    let scene = scene_at(&format!("127.0.0.1:{port}"), CLIENTS);
    // The daemon goes on with the one before; its CA is at hand all the same.
    for text in ["no certificate", ""] {
        fs::write(scene.file("api.pem"), text).unwrap();
        let output = scene.mapsmith.configuration().cli(&["status"]);
        assert_eq!(output.status.code(), Some(0), "{}", complaints(&output));
    }
    let output = scene.mapsmith.configuration().cli(&["plan"]);
    assert!(!complaints(&output).contains("api.tls"), "{}", complaints(&output));
    // Without it nobody says whom to trust.
    fs::remove_file(scene.file("ca.pem")).unwrap();
    let output = scene.mapsmith.configuration().cli(&["status"]);
    let said = complaints(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in ["api.tls.cert", "holds no certificate", "api.tls.client_ca", "--ca"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn the_command_line_asks_over_tls_where_the_settings_say_so() {
    let port = free_port();
    let scene = scene_at(&format!("127.0.0.1:{port}"), CLIENTS);
    // By the certificate's name, which no resolver knows.
    let output = scene.mapsmith.configuration().cli(&["status"]);
    assert_eq!(output.status.code(), Some(0), "{}", complaints(&output));
    let url = format!("https://127.0.0.1:{port}");
    let output = cli(&["status", "--token", "s3cret"], Some(&url));
    assert_eq!(output.status.code(), Some(1), "nobody said to trust this CA");
}

#[test]
fn a_certificate_that_is_a_cas_own_is_told_of_by_the_check_and_by_who_asks() {
    let scene = scene("");
    let arguments = format!(
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext \
            subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:TRUE \
            -keyout {} -out {}",
        scene.file("api.key"),
        scene.file("api.pem")
    );
    let made = Command::new("openssl").args(arguments.split_whitespace()).output();
    assert!(made.as_ref().is_ok_and(|made| made.status.success()), "{made:?}");
    let url = format!("https://localhost:{}", scene.mapsmith.address().port());
    let own = scene.file("api.pem");
    let told = scene.mapsmith.wait_for("the certificate is in force", BOUND, |_| {
        let told = complaints(&cli(&["status", "--ca", &own, "--token", "s3cret"], Some(&url)));
        told.contains("CA:TRUE").then_some(told)
    });
    assert!(told.contains("CA:FALSE") && !told.contains("no Mapsmith answers"), "{told}");
    let (_, checked) = printed(&scene.mapsmith.configuration().cli(&["check"]));
    let line = checked.lines().find(|line| line.starts_with("warn  api.tls:"));
    assert!(line.is_some_and(|line| line.contains("CA:FALSE")), "{checked}");
}
