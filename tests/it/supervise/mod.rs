//! HAProxy's master process as it is supervised: reloads whose outcome is known, on every version.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use haproxy_runtime::MasterClient;
use mapsmith::supervise::check::{self, Verdict};
use mapsmith::supervise::reload::Reloader;
use mapsmith::supervise::sockets::Sockets;
use mapsmith_core::render::Rendered;
use tempfile::TempDir;

use crate::support::haproxy::{Binary, ask};
use crate::support::process::{Ending, Process};
use crate::support::{eventually, free_port, http, poll};

mod checks;
mod load;
mod managed;
mod reloads;

/// Longer than any start, check or reload takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder with a configuration that a test writes, and the ports that it uses.
struct Folder {
    directory: TempDir,
    binary: &'static Binary,
    address: SocketAddr,
}

impl Folder {
    fn new(binary: &'static Binary) -> Self {
        // Shown when a test fails.
        println!("HAProxy {:?}", binary.version);
        let directory = tempfile::Builder::new()
            .prefix("mapsmith-supervise-")
            .tempdir()
            .expect("a temporary folder");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self { directory, binary, address }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn program(&self) -> &str {
        self.binary.path.to_str().expect("a path in UTF-8")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn configuration(&self) -> PathBuf {
        self.file("haproxy.cfg")
    }

    /// A configuration that answers every request with this word.
    fn answering(&self, word: &str) -> String {
        let (socket, address) = (self.file("admin.sock").display().to_string(), self.address);
        format!(
            "global\n    stats socket {socket} mode 600 level admin\n    hard-stop-after 20s\n\
            defaults\n    mode http\n    option idle-close-on-response\n    timeout connect 5s\n    \
            timeout client 10s\n    timeout server 10s\n    timeout http-keep-alive 2s\n\
            frontend web\n    bind {address}\n    http-request return status 200 content-type \
            text/plain string {word}\n"
        )
    }

    fn write(&self, text: &str) {
        fs::write(self.configuration(), text).expect("the configuration can be written");
    }

    /// What HAProxy says of the file that is there.
    async fn check(&self) -> Verdict {
        let file = self.configuration();
        let (rendered, sockets) = (Rendered::default(), Sockets::default());
        check::check(self.program(), &[&file], &rendered, &sockets, PATIENCE)
            .await
            .expect("HAProxy says something")
    }

    fn answer(&self) -> String {
        http::request(self.address, "GET", "/", &[], "").expect("it serves").body
    }

    /// Waits until the new worker answers, with this word. A worker that is replaced takes
    /// connections until it has heard so, which the master tells it once the new one is ready.
    fn comes_to_answer(&self, word: &str) {
        let mut answer = String::new();
        let comes = poll(PATIENCE, || {
            answer = self.answer();
            (answer == word).then_some(())
        });
        assert!(comes.is_some(), "{PATIENCE:?} later the answer is {answer:?}, not {word:?}");
    }
}

/// A HAProxy with a master process, as a supervisor runs it.
struct Supervised {
    process: Process,
    folder: Folder,
}

impl Supervised {
    /// Serving the word `one`.
    fn start(binary: &'static Binary) -> Self {
        let folder = Folder::new(binary);
        folder.write(&folder.answering("one"));
        let socket = format!("{},mode,600,level,admin", folder.file("master.sock").display());
        let configuration = folder.configuration();
        let configuration = configuration.to_str().expect("a path in UTF-8");
        let command = [folder.program(), "-W", "-S", &socket, "-db", "-f", configuration];
        let process = Process::start(&command, &folder.file("haproxy.log"), Ending::default());
        let supervised = Self { process, folder };
        eventually("the master and its worker answer", PATIENCE, || {
            let listed = supervised.listed()?;
            let serves = http::request(supervised.folder.address, "GET", "/", &[], "").is_ok();
            (listed.contains("worker") && serves).then_some(())
        });
        supervised
    }

    fn listed(&self) -> Option<String> {
        let address = format!("unix@{}", self.folder.file("master.sock").display());
        ask(&address, "show proc;quit").ok()
    }

    fn master(&self) -> MasterClient {
        MasterClient::new(self.folder.file("master.sock"), PATIENCE)
    }

    fn reloader(&self) -> Reloader {
        let log = Some(self.folder.file("haproxy.log"));
        Reloader::by_master(self.master(), log, PATIENCE)
    }
}

/// A verdict that says yes, for what no check can see.
fn unseen() -> Verdict {
    Verdict { valid: true, remarks: Vec::new(), printed: String::new() }
}
