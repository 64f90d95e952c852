//! A real Puppet fleet: two Puppet Servers, the first with the CA, each with its guard from
//! `haproxy/puppet-master.cfg`; PuppetDB; and agents. Started once and shared by the tests of a
//! process, for a Puppet Server takes half a minute to start.
//!
//! Every test sees every test's nodes, so each takes certnames of its own. Nothing outside the
//! fleet's folder changes, and no name is resolved: certificates are good for 127.0.0.1.

mod agent;
mod master;
mod site;
mod stand_in;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub use agent::{Agent, Run};
pub use master::Master;
pub use site::{Site, plan};
pub use stand_in::StandIn;

use crate::haproxy::{self, Binary};
use crate::puppetdb::{PuppetDb, shared_folder};
use crate::shipped::{self, Shipped};
use crate::{free_port, program, run};

/// The masters' certnames; the first has the CA.
pub const MASTERS: [&str; 2] = ["puppet00", "puppet01"];

/// The running fleet.
pub struct Fleet {
    puppetdb: &'static PuppetDb,
    masters: [Master; 2],
    /// Of the machine's own HAProxy: for the CA's tool, and for agents that come past a gateway.
    guards: [Shipped; 2],
}

impl Fleet {
    /// The one fleet, with the one PuppetDB; the first caller starts both.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Fleet> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(PuppetDb::shared()))
    }

    /// One with a PuppetDB of its own, for tests that take them away; shared by those alone.
    pub fn expendable() -> &'static Self {
        static EXPENDABLE: OnceLock<Fleet> = OnceLock::new();
        EXPENDABLE.get_or_init(|| Self::start(Box::leak(Box::new(PuppetDb::start()))))
    }

    fn start(puppetdb: &'static PuppetDb) -> Self {
        // Nobody drops a static: the shell that supervises a master removes its folder.
        let folders = MASTERS.map(|name| shared_folder(&format!("mapsmith-{name}-")));
        let ports = MASTERS.map(|_| free_port());
        install_ca(&folders[0], puppetdb);
        install_certificate(&folders[1], puppetdb);
        let crl = crl_in(&folders[0]);
        let guard = |number: usize| {
            guard(haproxy::own(), &folders[number], ports[number], puppetdb, &crl, number)
        };
        let guards = [guard(0), guard(1)];
        let ca_port = guards[0].address().port();
        let master = |number: usize| {
            Master::prepare(
                MASTERS[number],
                &folders[number],
                ports[number],
                ca_port,
                &puppetdb.tls_url(),
            )
        };
        let masters = [master(0), master(1)];
        masters.iter().for_each(Master::launch);
        masters.iter().for_each(Master::wait);
        Self { puppetdb, masters, guards }
    }

    pub fn puppetdb(&self) -> &'static PuppetDb {
        self.puppetdb
    }

    pub fn masters(&self) -> &[Master; 2] {
        &self.masters
    }

    /// The masters' guards, for those who come past a gateway.
    pub fn guards(&self) -> &[Shipped; 2] {
        &self.guards
    }

    /// The CA's list of revoked certificates, as it is now.
    pub fn crl(&self) -> PathBuf {
        crl_in(self.masters[0].folder())
    }

    /// `puppetserver ca`, on the CA's master. It asks the guard, as an administrator does.
    ///
    /// # Panics
    /// With all its output where it fails.
    pub fn ca(&self, arguments: &[&str]) -> String {
        let config = self.masters[0].folder().join("conf/puppet.conf");
        let config = config.to_str().expect("a path in UTF-8");
        run(program("puppetserver"), &[&["ca"], arguments, &["--config", config]].concat())
    }

    /// The master that PuppetDB names for a node.
    pub fn producer(&self, node: &str) -> Option<String> {
        let query = format!("factsets[producer] {{ certname = {node:?} }}");
        self.puppetdb.query(&query)[0]["producer"].as_str().map(str::to_owned)
    }

    /// A gateway and its guards, all of this HAProxy.
    pub fn site(&self, binary: &Binary) -> Site {
        Site::start(self, binary)
    }

    /// What the masters have printed, for a test that fails.
    pub fn logs(&self) -> String {
        self.masters
            .iter()
            .map(|master| format!("== {}\n{}", master.name(), master.log()))
            .collect()
    }
}

fn crl_in(folder: &Path) -> PathBuf {
    folder.join("ca/ca_crl.pem")
}

/// The CA of PuppetDB's certificates becomes Puppet's, and gives the first master its own.
fn install_ca(folder: &Path, puppetdb: &PuppetDb) {
    let authority = puppetdb.authority();
    let conf = folder.join("conf");
    fs::create_dir(&conf).expect("a folder");
    let text = format!(
        "[main]\ncertname = {}\nconfdir = {conf}\nssldir = {conf}/ssl\nkeylength = 2048\n\
         [server]\ncadir = {folder}/ca\n",
        MASTERS[0],
        conf = conf.display(),
        folder = folder.display()
    );
    fs::write(conf.join("puppet.conf"), text).expect("a configuration file");
    let import = Command::new(program("puppetserver"))
        .args(["ca", "import", "--subject-alt-names", "DNS:localhost,IP:127.0.0.1", "--config"])
        .arg(conf.join("puppet.conf"))
        .arg("--private-key")
        .arg(authority.ca_key())
        .arg("--cert-bundle")
        .arg(authority.ca())
        .arg("--crl-chain")
        .arg(authority.crl())
        .output()
        .expect("puppetserver starts");
    assert!(import.status.success(), "{import:?}");
}

/// The second master's certificate, where Puppet looks for it.
fn install_certificate(folder: &Path, puppetdb: &PuppetDb) {
    let (authority, name) = (puppetdb.authority(), MASTERS[1]);
    authority.issue(name);
    let ssl = folder.join("conf/ssl");
    for (from, folder, file) in [
        (authority.certificate(name), "certs", format!("{name}.pem")),
        (authority.key(name), "private_keys", format!("{name}.pem")),
        (authority.ca(), "certs", "ca.pem".to_owned()),
        (authority.crl(), "", "crl.pem".to_owned()),
    ] {
        let folder = ssl.join(folder);
        fs::create_dir_all(&folder).expect("a folder");
        fs::copy(from, folder.join(file)).expect("a file can be copied");
    }
    let key = ssl.join(format!("private_keys/{name}.pem"));
    let public = ssl.join("public_keys");
    fs::create_dir_all(&public).expect("a folder");
    let public = public.join(format!("{name}.pem"));
    let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    run("openssl", &["rsa", "-in", &text(&key), "-pubout", "-out", &text(&public)]);
}

/// The guard in front of a master's plain port.
fn guard(
    binary: &Binary,
    folder: &Path,
    port: u16,
    puppetdb: &PuppetDb,
    crl: &Path,
    number: usize,
) -> Shipped {
    let (name, ssl) = (MASTERS[number], folder.join("conf/ssl"));
    let both = folder.join("master.pem");
    let read = |file: PathBuf| fs::read_to_string(file).expect("the master has a certificate");
    let pem = read(ssl.join(format!("certs/{name}.pem")))
        + &read(ssl.join(format!("private_keys/{name}.pem")));
    fs::write(&both, pem).expect("a file");
    let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    shipped::Plan::of(binary, shipped::PUPPET_MASTER)
        .set("PUPPETSERVER_ADDRESS", &format!("127.0.0.1:{port}"))
        .set("MASTER_CERTIFICATE", &text(&both))
        .set("PUPPET_CA", &text(&puppetdb.ca()))
        .set("PUPPET_CRL", &text(crl))
        .start()
}
