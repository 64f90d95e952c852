//! One certificate for several HAProxys that somebody else runs.

use std::fs;
use std::process::{Command, Stdio};

use super::by_dns::hook;
use super::{NAMES, PATIENCE, oldest_and_newest};
use crate::support::acme::Plan;
use crate::support::authority::Authority;
use crate::support::free_port;
use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::run;
use crate::support::scene::{file_source_settings, gateway_settings, instance_settings};

/// The serial number of the certificate that OpenSSL's client is shown.
fn served(port: u16) -> Option<String> {
    let address = format!("127.0.0.1:{port}");
    let client = ["s_client", "-connect", &address, "-servername", NAMES[0]];
    let shown = Command::new("openssl").args(client).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let begin = text.find("-----BEGIN CERTIFICATE")?;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("shown.pem");
    fs::write(&file, &text[begin..]).expect("the folder can be written to");
    Some(run("openssl", &["x509", "-noout", "-serial", "-in", &file.display().to_string()]))
}

#[test]
fn each_of_two_gateways_shows_the_new_certificate_after_a_renewal_without_a_reload() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("site.pem");
    // What they were started with.
    let before = Authority::create(folder.path());
    before.issue("before");
    fs::copy(before.both("before"), &path).expect("the folder can be written to");
    let ports = [free_port(), free_port()];
    let frontend = |port: u16| {
        format!(
            "frontend secure\n    bind 127.0.0.1:{port} ssl crt {}\n    http-request return \
                status 200 content-type text/plain string safe\n",
            path.display()
        )
    };
    let [oldest, newest] = oldest_and_newest();
    let one = Gateway::plan(oldest).entry("a", "m1").more(&frontend(ports[0])).start();
    let other = Gateway::plan(newest).map_of(&one).more(&frontend(ports[1])).start();
    let serials = || ports.map(|port| served(port).expect("it is shown"));
    let processes = || [one.pid(), other.pid()];
    let (started, old) = (processes(), serials());
    assert_eq!(old[0], old[1]);

    let nodes = folder.path().join("nodes.map");
    fs::write(&nodes, "a m1\n").expect("the folder can be written to");
    let acme = Plan::asks_at(1).start();
    let settings = [
        gateway_settings(&one),
        instance_settings("edge2", &other.runtime_address()),
        file_source_settings("nodes", &nodes),
        acme.settings(),
        format!("folder = \"{}\"\n", folder.path().join("acme").display()),
        hook(folder.path(), &acme, ""),
        format!("[[certificate]]\nname = \"site\"\npath = {path:?}\nacme = {NAMES:?}\n"),
    ];
    let mapsmith = Mapsmith::config(&settings.concat()).start();
    let differs = |old: &[String; 2]| {
        let serials = Some(serials()).filter(|new| new[0] == new[1] && new[0] != old[0])?;
        let certificate = mapsmith.get("/v1/certificates").1[0].clone();
        let is_issued = certificate["in_force"]["self_signed"] == false
            && certificate["in_force"]["issuer"].as_str()?.contains("Pebble");
        is_issued.then_some(serials)
    };
    let first = mapsmith.wait_for("both show the first one", PATIENCE, |_| differs(&old));
    let (code, answer) = mapsmith.post("/v1/certificates/site/renew");
    assert_eq!(code, 202, "{answer}");
    mapsmith.wait_for("both show the second one", PATIENCE, |_| differs(&first));
    assert_eq!(processes(), started, "none was started again");
    assert_eq!(acme.orders(), 2, "one for both: {}", acme.log());
}
