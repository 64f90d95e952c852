//! A real BIND of a test's own, authoritative for the tests' zone. Its records are changed by
//! `nsupdate` while it runs, and are there when the call returns.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{ZONE, answers};
use crate::daemon::Daemon;
use crate::{free_port, program};

/// Who may change the zone.
const KEY: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";

/// A running BIND and its folder, both gone on drop.
pub struct Bind {
    address: SocketAddr,
    daemon: Daemon,
}

impl Bind {
    /// With these records, each as in a zone file with its whole name:
    /// `web.example.test. 1 A 127.0.0.1`.
    ///
    /// Below `broken.test.` it answers SERVFAIL (its zone can't be loaded), below any other name
    /// outside of the zone REFUSED.
    pub fn start(records: &[&str]) -> Self {
        let port = free_port();
        let daemon = Daemon::new("BIND", |folder| {
            configure(folder, port, records);
            let file = folder.join("named.conf").display().to_string();
            let program = program("named").display().to_string();
            let words = ["-f", "-4", "-n", "1", "-c"].map(str::to_owned);
            [program].into_iter().chain(words).chain([file]).collect()
        });
        let bind = Self { address: SocketAddr::from(([127, 0, 0, 1], port)), daemon };
        bind.restart();
        bind
    }

    /// Where it answers, over UDP and TCP.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Changes records, in `nsupdate`'s words: `add web.example.test. 1 A 127.0.0.1`,
    /// `delete web.example.test. A 127.0.0.1`, `delete web.example.test.`. All of them or none.
    ///
    /// # Panics
    /// With what nsupdate said, if the server did not take them.
    pub fn update(&self, changes: &[&str]) {
        let mut text = format!(
            "server {} {}\nkey hmac-sha256:k {KEY}\n",
            self.address.ip(),
            self.address.port()
        );
        for change in changes {
            let _ = writeln!(text, "update {change}");
        }
        text += "send\n";
        // Over TCP, which has room for some hundred records.
        let mut nsupdate = Command::new(program("nsupdate"))
            .arg("-v")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsupdate starts");
        let mut input = nsupdate.stdin.take().expect("it has an input");
        input.write_all(text.as_bytes()).expect("nsupdate reads");
        drop(input);
        let output = nsupdate.wait_with_output().expect("nsupdate ends");
        assert!(
            output.status.success(),
            "{changes:?}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.daemon.log()
        );
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

fn configure(folder: &Path, port: u16, records: &[&str]) {
    let shown = folder.display();
    // A name may have more than the hundred records that it may by default.
    let options = format!(
        "directory \"{shown}\"; pid-file \"{shown}/pid\"; session-keyfile \"{shown}/session.key\"; \
         listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no; \
         dnssec-validation no; empty-zones-enable no; allow-new-zones no; minimal-responses yes; max-records-per-type 0;"
    );
    let configuration = format!(
        "options {{ {options} }};\ncontrols {{}};\n\
         key \"k\" {{ algorithm hmac-sha256; secret \"{KEY}\"; }};\n\
         zone \"{ZONE}\" {{ type primary; file \"{ZONE}.zone\"; allow-update {{ key k; }}; }};\n\
         zone \"broken.test\" {{ type primary; file \"missing.zone\"; }};\n"
    );
    // The last number is how long it is known that a name does not exist.
    let zone = format!(
        "$TTL 1\n{ZONE}. SOA ns.{ZONE}. root.{ZONE}. 1 60 60 60 1\n{ZONE}. NS ns.{ZONE}.\n\
         ns.{ZONE}. A 127.0.0.1\n{}\n",
        records.join("\n")
    );
    fs::write(folder.join("named.conf"), configuration).expect("a configuration file");
    fs::write(folder.join(format!("{ZONE}.zone")), zone).expect("a zone file");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Dnsmasq;
    use crate::run;

    fn dig(address: &str, question: &[&str]) -> Vec<String> {
        let (_, port) = address.split_once(':').unwrap();
        let arguments = [&["@127.0.0.1", "-p", port, "+short", "+tries=1"], question].concat();
        let mut lines: Vec<_> =
            run(program("dig"), &arguments).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    #[test]
    fn records_are_there_at_once_changes_too_and_survive_a_restart() {
        let bind = Bind::start(&["web.example.test. A 127.0.0.1", "web.example.test. A 127.0.0.2"]);
        assert_eq!(dig(&bind.address(), &["web.example.test", "A"]), ["127.0.0.1", "127.0.0.2"]);
        bind.update(&[
            "delete web.example.test. A 127.0.0.1",
            "add _web._tcp.example.test. 1 SRV 10 60 8080 web.example.test.",
        ]);
        assert_eq!(dig(&bind.address(), &["web.example.test", "A"]), ["127.0.0.2"]);
        bind.restart();
        assert_eq!(
            dig(&bind.address(), &["_web._tcp.example.test", "SRV"]),
            ["10 60 8080 web.example.test."]
        );
        let dnsmasq = Dnsmasq::start(&["host-record=web.example.test,127.0.0.1"]);
        assert_eq!(dig(&dnsmasq.address(), &["web.example.test", "A"]), ["127.0.0.1"]);
        dnsmasq.has(&["host-record=web.example.test,127.0.0.3"]);
        assert_eq!(dig(&dnsmasq.address(), &["web.example.test", "A"]), ["127.0.0.3"]);
    }
}
