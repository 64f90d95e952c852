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
mod crashes;
mod health;
mod held;
mod planned;
mod renewed;
mod second;
mod servers;
mod verbs;

/// Longer than any start, reload or change takes.
const PATIENCE: Duration = Duration::from_secs(40);

/// A folder for HAProxy, and an address for its clients.
struct Ground {
    binary: &'static Binary,
    web: SocketAddr,
    folder: TempDir,
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
        // Shown when a test fails.
        println!("HAProxy {:?}", binary.version);
        let folder = tempfile::Builder::new()
            .prefix("mapsmith-managed-")
            .tempdir()
            .expect("a temporary folder");
        let pid = folder.path().join("haproxy.pid");
        let script = format!(
            "trap 'kill -9 $(grep -o \"^[0-9]*\" {} | head -1); exit' TERM; \
                while :; do sleep 1 & wait $!; done",
            pid.display()
        );
        let ending = Ending { signal: "TERM", remove: None };
        let reaper =
            Process::start(&["sh", "-c", &script], &folder.path().join("reaper.log"), ending);
        let web = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self { binary, web, folder, _reaper: reaper }
    }

    fn path(&self) -> &Path {
        self.folder.path()
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
            [schedule]\nobserve = \"200ms\"\n\
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

    /// The master's pid, by its own account.
    fn master(&self) -> u32 {
        let address = format!("unix@{}", self.file("master.sock").display());
        let listed = ask(&address, "show proc;quit").expect("the master answers");
        let line = listed.lines().find(|line| line.contains("master")).expect("a master is listed");
        line.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("it has a pid")
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

    /// Writes other settings, and has them read.
    fn change(&mut self, word: &str, more: &str) {
        self.write(word, more);
        self.mapsmith.hangup();
    }

    fn write(&self, word: &str, more: &str) {
        let settings = format!(
            "{}\n[api]\nlisten = \"{}\"\n",
            self.ground.settings(word, more),
            self.mapsmith.address()
        );
        fs::write(self.mapsmith.configuration().path(), settings).expect("settings can be written");
    }

    fn reloads(&self) -> u64 {
        self.status()["reloads"].as_u64().expect("a number")
    }
}
