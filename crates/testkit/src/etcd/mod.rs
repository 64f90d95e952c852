//! A real etcd of a test's own: one member, written to by `etcdctl`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{fs, thread};

use serde_json::Value;

use crate::authority::Authority;
use crate::daemon::Daemon;
use crate::{free_port, program};

/// The most operations of a transaction, which the server is told too.
const MOST_OPERATIONS: usize = 10_000;

/// The user who may do everything, once authentication is on, and his password.
const ROOT: &str = "root:root-password";

/// What clients show: the CA, and the certificate and key of `client`.
#[derive(Clone)]
struct Tls {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// A running etcd and its folder, both gone on drop.
pub struct Etcd {
    address: SocketAddr,
    tls: Option<Tls>,
    daemon: Daemon,
}

impl Etcd {
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// One that speaks TLS only, with the authority's certificate `etcd`, to clients with a
    /// certificate of that authority; its own client is `client`.
    pub fn start_with_tls(authority: &Authority) -> Self {
        Self::start_with(Some(authority))
    }

    fn start_with(authority: Option<&Authority>) -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (address, peer) = (loopback(free_port()), loopback(free_port()));
        let tls = authority.map(|authority| Tls {
            ca: authority.ca(),
            certificate: authority.certificate("client"),
            key: authority.key("client"),
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let daemon = Daemon::new("etcd", |folder| {
            let (client, peer) = (format!("{scheme}://{address}"), format!("http://{peer}"));
            let mut command = [
                &text(&program("etcd")),
                "--name=member",
                &format!("--data-dir={}", text(&folder.join("data"))),
                &format!("--listen-client-urls={client}"),
                &format!("--advertise-client-urls={client}"),
                &format!("--listen-peer-urls={peer}"),
                &format!("--initial-advertise-peer-urls={peer}"),
                &format!("--initial-cluster=member={peer}"),
                &format!("--max-txn-ops={MOST_OPERATIONS}"),
                "--unsafe-no-fsync",
                // A login is for a test, and there are many.
                "--bcrypt-cost=4",
                "--logger=zap",
                "--log-level=warn",
            ]
            .map(str::to_owned)
            .to_vec();
            if let Some(authority) = authority {
                command.extend([
                    format!("--cert-file={}", text(&authority.certificate("etcd"))),
                    format!("--key-file={}", text(&authority.key("etcd"))),
                    format!("--trusted-ca-file={}", text(&authority.ca())),
                    "--client-cert-auth".to_owned(),
                ]);
            }
            command
        });
        let etcd = Self { address, tls, daemon };
        etcd.launch();
        etcd
    }

    /// Where it answers: `http://` or, with TLS, `https://`.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// The same as an address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes a key.
    pub fn put(&self, key: &str, value: &str) {
        self.ctl(&["put", "--", key, value]);
    }

    /// Writes many keys in one transaction. Keys and values hold no white space.
    pub fn put_all(&self, pairs: impl IntoIterator<Item = (String, String)>) {
        let puts: Vec<_> =
            pairs.into_iter().map(|(key, value)| format!("put {key} {value}\n")).collect();
        for puts in puts.chunks(MOST_OPERATIONS) {
            // No comparison, what to do, and nothing otherwise.
            self.ctl_told(&["txn"], &format!("\n{}\n\n", puts.concat()));
        }
    }

    /// Deletes a key.
    pub fn delete(&self, key: &str) {
        self.ctl(&["del", "--", key]);
    }

    /// Deletes every key of a prefix.
    pub fn delete_all(&self, prefix: &str) {
        self.ctl(&["del", "--prefix", "--", prefix]);
    }

    /// The revision of the whole store.
    pub fn revision(&self) -> u64 {
        let answer = self.ctl(&["get", "/", "-w", "json"]);
        let answer: Value = serde_json::from_str(&answer).expect("etcdctl answers in JSON");
        answer["header"]["revision"].as_u64().expect("an answer has a revision")
    }

    /// Forgets what was before this revision: a watch from there ends with an error.
    pub fn compact(&self, revision: u64) {
        self.ctl(&["compact", "--physical", &revision.to_string()]);
    }

    /// Turns authentication on, and gives a user permission to read a prefix.
    pub fn require_users(&self, name: &str, password: &str, prefix: &str) {
        self.ctl(&["user", "add", ROOT]);
        self.ctl(&["user", "grant-role", "root", "root"]);
        self.ctl(&["user", "add", &format!("{name}:{password}")]);
        self.ctl(&["role", "add", "reader"]);
        self.ctl(&["role", "grant-permission", "reader", "--prefix=true", "read", prefix]);
        self.ctl(&["user", "grant-role", name, "reader"]);
        self.ctl(&["auth", "enable"]);
    }

    /// Takes the permission of [`Self::require_users`] away.
    pub fn revoke(&self, prefix: &str) {
        self.ctl_as_root(&["role", "revoke-permission", "reader", "--prefix=true", prefix]);
    }

    /// `etcdctl` with these arguments; what it prints.
    ///
    /// # Panics
    /// With all its output where it fails.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        self.ctl_told(arguments, "")
    }

    /// The same, once authentication is on.
    pub fn ctl_as_root(&self, arguments: &[&str]) -> String {
        self.ctl(&[&["--user", ROOT], arguments].concat())
    }

    fn ctl_told(&self, arguments: &[&str], input: &str) -> String {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = command.spawn().expect("etcdctl starts");
        let mut pipe = running.stdin.take().expect("its input is a pipe");
        let input = input.to_owned();
        // It prints while it reads.
        let writer = thread::spawn(move || {
            let _ = pipe.write_all(input.as_bytes());
        });
        let output = running.wait_with_output().expect("etcdctl ends");
        writer.join().expect("writing does not panic");
        let [printed, complaint] =
            [&output.stdout, &output.stderr].map(|t| String::from_utf8_lossy(t));
        assert!(output.status.success(), "{arguments:?}: {printed}{complaint}\n{}", self.log());
        printed.into_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("etcdctl"));
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url()]);
        command.args(["--command-timeout=30s"]);
        if let Some(tls) = &self.tls {
            command.arg("--cacert").arg(&tls.ca).arg("--cert").arg(&tls.certificate);
            command.arg("--key").arg(&tls.key);
        }
        command.args(arguments);
        command
    }

    /// Ends it with SIGKILL.
    pub fn kill(&self) {
        self.daemon.kill();
    }

    /// Ends it as an administrator does.
    pub fn stop(&self) {
        self.daemon.stop();
    }

    /// Starts it again at the same address with the same data; kills it first if it runs.
    pub fn restart(&self) {
        self.launch();
    }

    /// Kills it and starts it again with nothing of what it knew: its revision begins anew.
    pub fn restart_empty(&self) {
        self.kill();
        fs::remove_dir_all(self.daemon.folder().join("data")).expect("the data can be removed");
        self.launch();
    }

    /// `STOP` has it take connections and answer none, `CONT` ends that.
    pub fn signal(&self, name: &str) {
        self.daemon.signal(name);
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    fn launch(&self) {
        self.daemon.launch(|| {
            let mut command = self.command(&["endpoint", "health"]);
            // Who needs a login to hear that it is well hears it all the same.
            let is_well = |output: Output| {
                let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
                output.status.success() || complaint.contains("user name is empty")
            };
            command.output().is_ok_and(is_well)
        });
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(etcd: &Etcd, prefix: &str) -> usize {
        etcd.ctl(&["get", "--prefix", "--keys-only", prefix]).split_whitespace().count()
    }

    #[test]
    fn keys_survive_a_restart_and_users_may_read_what_is_theirs() {
        let etcd = Etcd::start();
        etcd.put("/a/1", "one");
        etcd.put_all((0..300).map(|number| (format!("/many/{number}"), "x".to_owned())));
        let before = etcd.revision();
        etcd.kill();
        etcd.restart();
        assert_eq!((keys(&etcd, "/a/"), keys(&etcd, "/many/")), (1, 300));
        etcd.delete("/a/1");
        etcd.delete_all("/many/");
        assert_eq!((keys(&etcd, "/"), etcd.revision()), (0, before + 2));
        etcd.compact(before);
        etcd.put("/b/1", "two");
        etcd.require_users("reader", "secret", "/b/");
        let read = etcd.ctl(&["--user", "reader:secret", "get", "/b/1"]);
        assert_eq!(read, "/b/1\ntwo\n");
        etcd.revoke("/b/");
        etcd.restart_empty();
        assert_eq!((keys(&etcd, "/"), etcd.revision()), (0, 1));
    }

    #[test]
    fn in_tls_it_answers_who_has_a_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path());
        ["etcd", "client"].iter().for_each(|name| authority.issue(name));
        let etcd = Etcd::start_with_tls(&authority);
        etcd.put("/a", "1");
        assert!(etcd.url().starts_with("https://") && keys(&etcd, "/a") == 1);
    }
}
