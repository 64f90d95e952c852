//! Certificates that Mapsmith gets itself, from a real authority.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use super::{Ground, Managed, PATIENCE};
use crate::support::acme::{Acme, Plan};
use crate::support::free_port;
use crate::support::haproxy::{Binary, installed};
use crate::support::mapsmith::Mapsmith;

mod by_dns;
mod crashed;
mod portmap;
mod refused;
mod reloaded;
mod renewed;
mod self_signed;

/// The names of the tests' certificates.
const NAMES: [&str; 2] = ["example.test", "www.example.test"];

/// A gateway with HTTPS whose certificate Mapsmith gets.
struct Scene {
    managed: Managed,
    secure: SocketAddr,
}

impl Scene {
    /// The authority asks at the frontend `web`, in the clear.
    fn start(binary: &'static Binary, plan: impl FnOnce(u16) -> Plan, more: &str) -> (Acme, Self) {
        let ground = Ground::new(binary);
        let acme = plan(ground.web.port()).start();
        let scene = Self::on(ground, &format!("{}{more}", acme.settings()), "acme");
        (acme, scene)
    }

    /// `key` is `acme` or `self_signed`.
    fn on(ground: Ground, acme: &str, key: &str) -> Self {
        let port = ground.web.port();
        Self::at(ground, acme, key, port)
    }

    /// The authority asks at this port.
    fn at(ground: Ground, acme: &str, key: &str, port: u16) -> Self {
        let secure = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let acme = acme.replace("[acme]\n", &format!("[acme]\nhttp_port = {port}\n"));
        let settings = ground.settings(
            "one",
            &format!(
                "{acme}\n[[certificate]]\nname = \"site\"\n{key} = {NAMES:?}\n\
                [[frontend]]\nname = \"secure\"\n\
                bind = [{{ address = \"{secure}\", certificate = [\"site\"] }}]\n\
                rules = [{{ return = {{ status = 200, body = \"safe\" }} }}]\n"
            ),
        );
        let mapsmith = Mapsmith::config(&settings).start();
        let managed = Managed { mapsmith, ground };
        managed.wait_for_state("in_force");
        Self { managed, secure }
    }

    /// How the certificate stands.
    fn certificate(&self) -> Value {
        let (status, all) = self.managed.mapsmith.get("/v1/certificates");
        assert_eq!((status, all.as_array().map(Vec::len)), (200, Some(1)), "{all}");
        all[0].clone()
    }

    fn wait_for_certificate(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.managed.mapsmith.wait_for(what, PATIENCE, |_| {
            let certificate = self.certificate();
            is_so(&certificate).then_some(certificate)
        })
    }

    /// Waits until a client that trusts the authority gets an answer under each name.
    fn wait_for_trust(&self, acme: &Acme) {
        let trust = Trust::of(&acme.root());
        self.managed.mapsmith.wait_for("clients trust it", PATIENCE, |_| {
            NAMES.iter().all(|name| trust.ask(self.secure, name).is_ok()).then_some(())
        });
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.managed.ground.file(name)
    }

    fn renew(&self) -> (u16, Value) {
        self.managed.mapsmith.post("/v1/certificates/site/renew")
    }
}

/// A client that trusts one root, and whose every handshake is a full one.
#[derive(Clone)]
pub(super) struct Trust(Arc<ClientConfig>);

impl Trust {
    pub fn of(root: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(root.as_bytes()).expect("PEM")).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Self(Arc::new(config))
    }

    /// What is answered; why nothing is.
    pub fn ask(&self, address: SocketAddr, name: &'static str) -> Result<String, String> {
        let name = ServerName::try_from(name).expect("a name");
        let client = ClientConnection::new(Arc::clone(&self.0), name).expect("a client");
        let mut answer = String::new();
        let ask = || -> std::io::Result<()> {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            let mut stream = StreamOwned::new(client, stream);
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            // HAProxy closes without an alert.
            let _ = stream.read_to_string(&mut answer);
            Ok(())
        };
        ask().map_err(|error| error.to_string())?;
        match answer.ends_with("safe") {
            true => Ok(answer),
            false => Err(format!("{answer:?} was answered")),
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// The machine's own HAProxy, the oldest, and the newest.
fn oldest_and_newest() -> [&'static Binary; 2] {
    let all = installed();
    [&all[0], &all[all.len() - 1]]
}

/// Without an authority at first, then with one.
fn from_nothing_to_trust(binary: &'static Binary) {
    let (acme, scene) = Scene::start(binary, |port| Plan::asks_at(port).is_down(), "");
    let waiting = scene.wait_for_certificate("the failure is told", |certificate| {
        certificate["renewal"]["error"].is_string()
    });
    let error = waiting["renewal"]["error"].as_str().unwrap_or_default();
    assert!(error.starts_with("the authority can't be reached: "), "{error}");
    assert!(waiting["renewal"]["next_at"].is_string(), "when it is tried again: {waiting}");
    assert_eq!(waiting["in_force"]["self_signed"], true, "{waiting}");
    let own = fs::read_to_string(scene.file("certificates/site.pem")).expect("it is there");
    Trust::of(&own)
        .ask(scene.secure, NAMES[0])
        .expect("HTTPS answers before there is an authority");
    acme.launch();
    scene.wait_for_trust(&acme);
    let issued = scene.wait_for_certificate("it is told", |certificate| {
        certificate["in_force"]["self_signed"] == false && certificate["renewal"]["error"].is_null()
    });
    let mut names: Vec<_> = issued["in_force"]["names"].as_array().expect("a list").clone();
    names.sort_by_key(ToString::to_string);
    assert_eq!(json!(names), json!(NAMES), "{issued}");
    assert!(issued["in_force"]["issuer"].as_str().is_some_and(|it| it.contains("Pebble")));
    assert_eq!(issued["source"], "acme", "{issued}");
    assert_eq!(scene.managed.reloads(), 0, "it came into force without a reload");
    assert_eq!(acme.orders(), 1);
    let account = fs::read_dir(scene.file("acme")).expect("a folder").flatten();
    let account =
        account.map(|entry| entry.path()).find(|path| path.is_file()).expect("an account");
    for file in [account, scene.file("acme/issued/site.pem"), scene.file("certificates/site.pem")] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    let challenges = fs::read_to_string(scene.file("challenges.map")).expect("it is there");
    assert_eq!(challenges, "", "nothing is answered any more");
}

#[test]
fn https_answers_at_once_and_is_trusted_once_the_authority_is_there_on_the_oldest_haproxy() {
    from_nothing_to_trust(oldest_and_newest()[0]);
}

#[test]
fn https_answers_at_once_and_is_trusted_once_the_authority_is_there_on_the_newest_haproxy() {
    from_nothing_to_trust(oldest_and_newest()[1]);
}
