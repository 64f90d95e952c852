//! A gateway from `haproxy/puppet.cfg` before a fleet, and the masters' guards of the same HAProxy.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Fleet, MASTERS, guard};
use crate::haproxy::Binary;
use crate::shipped::{self, Shipped};

const CRL: &str = "crl.pem";

/// The gateway and its guards, gone on drop.
pub struct Site {
    gateway: Shipped,
    guards: [Shipped; 2],
    /// Its own copy of the CA's list of revoked certificates.
    folder: TempDir,
}

impl Site {
    pub(super) fn start(fleet: &Fleet, binary: &Binary) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let crl = folder.path().join(CRL);
        fs::copy(fleet.crl(), &crl).expect("the CA has a list");
        let guard = |number: usize| {
            let master = &fleet.masters[number];
            let port = master.plain().port();
            guard(binary, master.folder(), port, fleet.puppetdb, &crl, number)
        };
        let guards = [guard(0), guard(1)];
        let addresses = [guards[0].address(), guards[1].address()];
        let authority = fleet.puppetdb.authority();
        let plan = plan(
            shipped::Plan::of(binary, shipped::PUPPET),
            &authority.both("gateway"),
            &authority.ca(),
            &crl,
            addresses,
        );
        let gateway = plan.start();
        gateway.wait_for("the masters are up", || {
            let stat = gateway.command("show stat");
            let up = stat.lines().filter(|row| row.contains(",UP,") && !row.contains("BACKEND"));
            (up.count() == 3).then_some(())
        });
        Self { gateway, guards, folder }
    }

    /// The list of revoked certificates that the gateway and its guards load.
    pub fn crl(&self) -> PathBuf {
        self.folder.path().join(CRL)
    }

    pub fn gateway(&self) -> &Shipped {
        &self.gateway
    }

    pub fn guards(&self) -> &[Shipped; 2] {
        &self.guards
    }

    /// Where agents go.
    pub fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    /// What the gateway and the guards have logged.
    pub fn logs(&self) -> String {
        let guards = self.guards.iter().map(Shipped::log).collect::<Vec<_>>().join("== guard\n");
        format!("== gateway\n{}== guard\n{guards}", self.gateway.log())
    }
}

/// `puppet.cfg`, or a text with its variables, with two masters, the first of which has the CA.
pub fn plan(
    gateway: shipped::Plan,
    certificate: &Path,
    ca: &Path,
    crl: &Path,
    masters: [SocketAddr; 2],
) -> shipped::Plan {
    let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    gateway
        .set("GATEWAY_CERTIFICATE", &text(certificate))
        .set("PUPPET_CA", &text(ca))
        .set("PUPPET_CRL", &text(crl))
        .set("CA_NAME", MASTERS[0])
        .set("CA_ADDRESS", &masters[0].to_string())
        .set("MASTER1_NAME", MASTERS[0])
        .set("MASTER1_ADDRESS", &masters[0].to_string())
        .set("MASTER2_NAME", MASTERS[1])
        .set("MASTER2_ADDRESS", &masters[1].to_string())
}
