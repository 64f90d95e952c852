//! dnsmasq, as it stands beside many a site's hosts.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::{ZONE, dig};
use crate::daemon::Daemon;
use crate::{eventually, free_port, program};

/// A service's record: its name, its host, port, priority and weight.
pub type Srv<'a> = (&'a str, &'a str, u16, u16, u16);

/// A running dnsmasq and its folder, both gone on drop.
pub struct Dnsmasq {
    address: SocketAddr,
    daemon: Daemon,
}

impl Dnsmasq {
    /// With these hosts, each a name of the zone and an address, and services.
    pub fn start(hosts: &[(&str, &str)], services: &[Srv<'_>]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let daemon = Daemon::new("dnsmasq", |folder| {
            let file = folder.join("dnsmasq.conf");
            write_hosts(folder, hosts);
            fs::write(&file, configure(folder, address.port(), services)).expect("its settings");
            let file = file.to_str().expect("a path in UTF-8");
            let program = program("dnsmasq");
            let program = program.to_str().expect("a path in UTF-8");
            [program, "-k", "-C", file, "--log-facility=-"].map(str::to_owned).to_vec()
        });
        let dnsmasq = Self { address, daemon };
        dnsmasq.launch();
        dnsmasq
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it has these hosts.
    pub fn hosts(&self, hosts: &[(&str, &str)]) {
        write_hosts(self.daemon.folder(), hosts);
        // So that a test sees that it has read them.
        let mark = self.daemon.log().matches("read ").count();
        self.daemon.signal("HUP");
        eventually("dnsmasq reads its hosts", std::time::Duration::from_secs(30), || {
            (self.daemon.log().matches("read ").count() > mark).then_some(())
        });
    }

    /// Ends it with SIGKILL.
    pub fn kill(&self) {
        self.daemon.kill();
    }

    /// Starts it again at the same address with the same hosts; kills it first if it runs.
    pub fn restart(&self) {
        self.launch();
    }

    /// `STOP` has it take questions and answer none, `CONT` ends that.
    pub fn signal(&self, name: &str) {
        self.daemon.signal(name);
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    fn launch(&self) {
        self.daemon.launch(|| dig(self.address, ZONE, "A").is_some());
    }
}

fn write_hosts(folder: &Path, hosts: &[(&str, &str)]) {
    let line = |(name, address): &(&str, &str)| format!("{address} {name}.{ZONE}\n");
    let text: String = hosts.iter().map(line).collect();
    fs::write(folder.join("hosts"), text).expect("a hosts file");
}

fn configure(folder: &Path, port: u16, services: &[Srv<'_>]) -> String {
    let folder = folder.display();
    let mut text = format!(
        "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nno-poll\n\
         local-ttl=1\nuser=\nlocal=/{ZONE}/\naddn-hosts={folder}/hosts\npid-file={folder}/pid\n"
    );
    for (name, host, port, priority, weight) in services {
        text += &format!("srv-host={name}.{ZONE},{host}.{ZONE},{port},{priority},{weight}\n");
    }
    text
}
