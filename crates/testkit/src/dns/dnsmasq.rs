//! A real dnsmasq of a test's own: its records are its configuration, so a change is a restart.

use std::fs;
use std::net::SocketAddr;

use super::{ZONE, answers};
use crate::daemon::Daemon;
use crate::{free_port, program};

/// A running dnsmasq and its folder, both gone on drop.
pub struct Dnsmasq {
    address: SocketAddr,
    daemon: Daemon,
}

impl Dnsmasq {
    /// With these lines of its configuration: `host-record=web.example.test,127.0.0.1`,
    /// `srv-host=_web._tcp.example.test,web.example.test,8080,10,60`.
    pub fn start(records: &[&str]) -> Self {
        let port = free_port();
        let daemon = Daemon::new("dnsmasq", |folder| {
            let file = folder.join("dnsmasq.conf").display().to_string();
            let pid_file = format!("--pid-file={}", folder.join("pid").display());
            let program = program("dnsmasq").display().to_string();
            vec![program, "-k".to_owned(), "-C".to_owned(), file, pid_file]
        });
        let dnsmasq = Self { address: SocketAddr::from(([127, 0, 0, 1], port)), daemon };
        dnsmasq.has(records);
        dnsmasq
    }

    /// Where it answers, over UDP and TCP.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on it has these records, as [`Self::start`] takes them.
    pub fn has(&self, records: &[&str]) {
        self.configure(&format!("local=/{ZONE}/\n{}\n", records.join("\n")));
    }

    /// From now on it refuses whatever it is asked, as it has nobody to ask.
    pub fn refuses(&self) {
        self.configure("");
    }

    fn configure(&self, lines: &str) {
        let port = self.address.port();
        // A TTL of one second, or it would say 0, and nobody could tell that a TTL is obeyed.
        let text = format!(
            "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nno-poll\n\
             local-ttl=1\nuser=\nlog-facility=-\n{lines}"
        );
        fs::write(self.daemon.folder().join("dnsmasq.conf"), text).expect("a configuration file");
        self.restart();
    }

    /// Ends it with SIGKILL.
    pub fn kill(&self) {
        self.daemon.kill();
    }

    /// Sends it a signal: `STOP` has it answer nothing, `CONT` ends that.
    pub fn signal(&self, name: &str) {
        self.daemon.signal(name);
    }

    /// Starts it at the same address with what it had; kills it first if it runs.
    pub fn restart(&self) {
        self.daemon.launch(|| answers(self.address.port()));
    }
}
