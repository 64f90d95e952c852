//! HAProxy as Mapsmith runs it: declared in the settings, on every version.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::haproxy::{Binary, ask};
use crate::support::mapsmith::Mapsmith;
use crate::support::process::{Ending, Process};
use crate::support::{eventually, free_port, http};

mod attached;
mod changes;
mod checked;
mod coming_from;
mod commands;
mod compat;
mod crashes;
mod declared;
mod elsewhere;
mod examples;
mod faults;
mod gateway;
mod health;
mod held;
mod maintenance;
mod many;
mod obtained;
mod old_connections;
mod ordered;
mod planned;
mod portmap;
mod quarantine;
mod refused;
mod registrar;
mod reloads;
mod renewed;
mod second;
mod servers;
mod services;
mod templates;
mod verbs;

/// Longer than any start, reload or change takes.
const PATIENCE: Duration = Duration::from_secs(40);

/// A folder for HAProxy, and an address for its clients.
struct Ground {
    binary: &'static Binary,
    web: SocketAddr,
    folder: PathBuf,
    _temporary: Option<TempDir>,
    /// Ends the HAProxy that outlives Mapsmith.
    _reaper: Process,
}

impl Drop for Ground {
    /// Before its folder goes, with the pid in it.
    fn drop(&mut self) {
        let text = fs::read_to_string(self.file("haproxy.pid")).unwrap_or_default();
        if let Some(pid) = text.split_whitespace().next() {
            // One that has ended already needs no signal.
            let _ = Command::new("kill").args(["-9", pid]).output();
        }
    }
}

impl Ground {
    fn new(binary: &'static Binary) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("mapsmith-managed-")
            .tempdir()
            .expect("a temporary folder");
        let mut ground = Self::within(binary, folder.path());
        ground._temporary = Some(folder);
        ground
    }

    /// In a folder of the test's.
    fn within(binary: &'static Binary, folder: &Path) -> Self {
        // Shown when a test fails.
        println!("HAProxy {:?}", binary.version);
        let pid = folder.join("haproxy.pid");
        let script = format!(
            "trap 'kill -9 $(grep -o \"^[0-9]*\" {} | head -1); exit' TERM; \
                while :; do sleep 1 & wait $!; done",
            pid.display()
        );
        let ending = Ending { signal: "TERM", remove: None };
        let reaper = Process::start(&["sh", "-c", &script], &folder.join("reaper.log"), ending);
        let web = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self { binary, web, folder: folder.to_owned(), _temporary: None, _reaper: reaper }
    }

    fn path(&self) -> &Path {
        &self.folder
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Settings with a frontend that answers every request with this word, and what else is given.
    fn settings(&self, word: &str, more: &str) -> String {
        let (folder, program) = (self.path().display(), self.binary.path.display());
        format!(
            "[haproxy]\nmanaged = true\nbinary = \"{program}\"\nfolder = \"{folder}\"\n\
            reload_interval = \"100ms\"\nhard_stop_after = \"20s\"\n\
            [schedule]\nobserve = \"200ms\"\nservers = \"200ms\"\n\
            [[frontend]]\nname = \"web\"\nbind = [\"{}\"]\n\
            rules = [{{ path = \"/word\", return = {{ status = 200, body = \"{word}\" }} }}]\n\
            {more}\n",
            self.web
        )
    }

    /// What a new connection is answered.
    fn get(&self, path: &str) -> Option<http::Response> {
        http::request(self.web, "GET", path, &[], "").ok()
    }

    fn word(&self) -> Option<String> {
        self.get("/word").map(|response| response.body)
    }

    fn wait_for_word(&self, word: &str) {
        eventually(&format!("HAProxy answers {word}"), PATIENCE, || {
            (self.word().as_deref() == Some(word)).then_some(())
        });
    }

    /// What the master says to a command. It can't be reached for a moment at each reload.
    fn ask_master(&self, command: &str) -> String {
        let address = format!("unix@{}", self.file("master.sock").display());
        eventually("the master answers", PATIENCE, || {
            ask(&address, &format!("{command};quit")).ok().filter(|answer| !answer.is_empty())
        })
    }

    /// A column of the master's own line in `show proc`.
    fn of_master(&self, column: usize) -> u32 {
        let listed = self.ask_master("show proc");
        let line = listed.lines().find(|line| line.contains("master")).expect("a master is listed");
        let word = line.split_whitespace().nth(column);
        word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{listed}"))
    }

    /// The master's pid, by its own account.
    fn master(&self) -> u32 {
        self.of_master(0)
    }

    /// How often it has reloaded, by its own account.
    fn reloads(&self) -> u32 {
        self.of_master(2)
    }
}

/// Mapsmith with a HAProxy of its own.
struct Managed {
    mapsmith: Mapsmith,
    ground: Ground,
}

impl Managed {
    /// Running, and in force.
    fn start(binary: &'static Binary, word: &str, more: &str) -> Self {
        let ground = Ground::new(binary);
        let mapsmith = Mapsmith::config(&ground.settings(word, more)).start();
        let managed = Self { mapsmith, ground };
        managed.wait_for_state("in_force");
        managed.wait_for_word(word);
        managed
    }

    /// Waits until HAProxy answers with this word.
    fn wait_for_word(&self, word: &str) {
        self.mapsmith.wait_for(&format!("HAProxy answers {word}"), PATIENCE, |_| {
            (self.ground.word().as_deref() == Some(word)).then_some(())
        });
    }

    /// What status says of HAProxy.
    fn status(&self) -> Value {
        // A connection may end while other settings come into force.
        eventually("the API answers", PATIENCE, || {
            let response = self.mapsmith.try_ask("GET", "/v1/status").ok()?;
            let status: Value = serde_json::from_str(&response.body).ok()?;
            Some(status["haproxy"].clone())
        })
    }

    fn wait_for_state(&self, state: &str) -> Value {
        self.mapsmith.wait_for(&format!("the configuration is {state}"), PATIENCE, |_| {
            let status = self.status();
            (status["state"]["state"] == state).then_some(status)
        })
    }

    /// Until the store knows a service as HAProxy has it: that is a moment after it is in force.
    fn wait_for_stored(&self, database: &Path, service: &str) {
        self.mapsmith.wait_for(&format!("service {service} is stored"), PATIENCE, |_| {
            let store = rusqlite::Connection::open(database).ok()?;
            let query = "SELECT text FROM services WHERE name = ?";
            store.query_row(query, [service], |row| row.get::<_, String>(0)).ok()
        });
    }

    /// Writes other settings, and has them read.
    fn change(&mut self, word: &str, more: &str) {
        self.write(word, more);
        self.mapsmith.hangup();
    }

    fn write(&self, word: &str, more: &str) {
        self.write_settings(&self.ground.settings(word, more));
    }

    /// Writes these settings, with the API where it is.
    fn write_settings(&self, settings: &str) {
        let settings = format!("{settings}\n[api]\nlisten = \"{}\"\n", self.mapsmith.address());
        fs::write(self.mapsmith.configuration().path(), settings).expect("settings can be written");
    }

    /// Waits until its log has this.
    fn wait_for_log(&self, text: &str) {
        self.mapsmith.wait_for(&format!("{text:?} is logged"), PATIENCE, |mapsmith| {
            mapsmith.log().contains(text).then_some(())
        });
    }

    fn reloads(&self) -> u64 {
        self.status()["reloads"].as_u64().expect("a number")
    }
}
