//! BIND, which takes changes of its zone while it runs.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{ZONE, dig};
use crate::daemon::Daemon;
use crate::{free_port, program};

/// Whoever changes the zone signs with it.
const KEY: &str = "hmac-sha256:updates:c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";

/// A running BIND and its folder, both gone on drop.
pub struct Bind {
    address: SocketAddr,
    daemon: Daemon,
}

impl Bind {
    /// With nothing in its zone.
    pub fn start() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let daemon = Daemon::new("BIND", |folder| {
            let file = folder.join("named.conf");
            fs::write(&file, configure(folder, address.port())).expect("a configuration file");
            fs::write(folder.join("zone"), zone()).expect("a zone");
            let named = program("named");
            let [named, file] =
                [named, file].map(|path| path.to_str().expect("a path in UTF-8").to_owned());
            // In the foreground, on IPv4, with one thread.
            [&named, "-g", "-4", "-n", "1", "-c", &file].map(str::to_owned).to_vec()
        });
        let bind = Self { address, daemon };
        bind.launch();
        bind
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a record to a name of the zone: `add("web", 60, "A", "10.0.0.1")`.
    pub fn add(&self, name: &str, ttl: u32, of: &str, value: &str) {
        self.update(&[format!("add {name}.{ZONE}. {ttl} {of} {value}")]);
    }

    /// Deletes a name's records of a type, or one of them: `delete("web", "A 10.0.0.1")`.
    pub fn delete(&self, name: &str, of: &str) {
        self.update(&[format!("delete {name}.{ZONE}. {of}")]);
    }

    /// Changes the zone all at once, by lines of `nsupdate`.
    pub fn update(&self, lines: &[impl AsRef<str>]) {
        let mut script = format!("server {} {}\n", self.address.ip(), self.address.port());
        for line in lines {
            script += line.as_ref();
            script += "\n";
        }
        script += "send\n";
        // By TCP: many lines are more than a datagram.
        let mut command = Command::new(program("nsupdate"));
        command.args(["-v", "-y", KEY]).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = command.spawn().expect("nsupdate starts");
        let mut input = running.stdin.take().expect("its input is a pipe");
        input.write_all(script.as_bytes()).expect("nsupdate reads");
        drop(input);
        let output = running.wait_with_output().expect("nsupdate ends");
        assert!(output.status.success(), "{output:?}\n{script}\n{}", self.log());
    }

    /// Ends it with SIGKILL.
    pub fn kill(&self) {
        self.daemon.kill();
    }

    /// Ends it as an administrator does.
    pub fn stop(&self) {
        self.daemon.stop();
    }

    /// Starts it again at the same address with the same zone; kills it first if it runs.
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
        self.daemon
            .launch(|| dig(self.address, ZONE, "SOA").is_some_and(|(_, soa)| !soa.is_empty()));
    }
}

fn configure(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    let (algorithm, rest) = KEY.split_once(':').expect("an algorithm");
    let (name, secret) = rest.split_once(':').expect("a name and a secret");
    format!(
        "options {{ directory \"{folder}\"; pid-file \"{folder}/pid\";\n\
         session-keyfile \"{folder}/session.key\";\n\
         listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n\
         recursion no; dnssec-validation no; empty-zones-enable no; allow-new-zones no; }};\n\
         controls {{ }};\n\
         key \"{name}\" {{ algorithm {algorithm}; secret \"{secret}\"; }};\n\
         zone \"{ZONE}\" {{ type primary; file \"{folder}/zone\"; \
         allow-update {{ key \"{name}\"; }}; \
         max-records-per-type 0; }};\n"
    )
}

fn zone() -> String {
    format!(
        "$TTL 1\n@ IN SOA ns.{ZONE}. root.{ZONE}. 1 60 60 60 1\n@ IN NS ns.{ZONE}.\nns IN A \
         127.0.0.1\n"
    )
}
