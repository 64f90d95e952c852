//! The running whole: a Mapsmith with a HAProxy of its own, in a folder that can be filled, and
//! what its settings declare.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::clients::{Clients, Watched};
use super::laws::Laws;
use super::processes::{end_all, unmount};
use super::schedule::Site;
use crate::faults::disk::Volume;
use crate::faults::site::Journal;
use crate::support::free_port;
use crate::support::haproxy::{Binary, installed};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::process::{Ending, Process};

/// Ends what of HAProxy is left in a folder, where the test is killed.
const REAPER: &str = r#"
trap 'for one in /proc/[0-9]*; do
  [ "${one#/proc/}" = $$ ] || ! tr "\0" " " 2>/dev/null <"$one/cmdline" | grep -q "haproxy .*$1/" \
    || kill -9 "${one#/proc/}"
done; exit' TERM
while :; do sleep 1 & wait $!; done
"#;

/// What the settings declare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// What `/word` is answered.
    pub word: String,
    /// What `/rule` is answered, unless it goes to the backend.
    pub rule: Option<String>,
    /// There is a second frontend, with the same word.
    pub other: bool,
}

/// What is wrong with settings.
#[derive(Clone, Debug, Default)]
pub struct Flaw {
    /// Lines for `[haproxy]`.
    pub haproxy: String,
    /// Keys of the first frontend.
    pub frontend: String,
    /// At the end.
    pub more: String,
    /// What the refusal must name.
    pub named: String,
}

/// The running whole. The order is that in which its parts end.
pub struct Whole {
    pub clients: Clients,
    pub mapsmith: Mapsmith,
    pub laws: Arc<Laws>,
    pub binary: &'static Binary,
    pub site: Site,
    pub declared: Declared,
    /// Which of the masters the list has.
    pub listed: Vec<usize>,
    pub masters: Vec<Master>,
    pub web: SocketAddr,
    pub other: SocketAddr,
    /// The folder is read-only by a mount that this ends.
    pub is_read_only: bool,
    pub volume: Volume,
    /// What is not on the disk that fills.
    pub beside: TempDir,
    pub journal: Journal,
    /// Mapsmith was killed, and is not started yet.
    pub is_down: bool,
    /// Words that were given.
    pub words: usize,
    _reaper: Process,
}

impl Drop for Whole {
    fn drop(&mut self) {
        if self.is_read_only {
            unmount(self.volume.path());
        }
        // Nobody starts it again.
        self.mapsmith.kill();
        end_all(self.volume.path());
    }
}

impl Whole {
    pub fn start(site: Site, journal: &Journal) -> Self {
        let binary = &installed()[site.haproxy % installed().len()];
        journal.note(&format!("HAProxy {:?}, {site:?}", binary.version));
        let volume = Volume::start();
        let beside = tempfile::tempdir().expect("a temporary folder");
        let reaper_log = beside.path().join("reaper.log");
        let folder = volume.path().display().to_string();
        let ending = Ending { signal: "TERM", remove: None };
        let reaper = Process::start(&["sh", "-c", REAPER, "reaper", &folder], &reaper_log, ending);
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (web, other, api) = (address(), address(), address());
        let masters: Vec<_> = ["s1", "s2", "s3"].into_iter().map(Master::start).collect();
        let laws = Arc::new(Laws::default());
        let declared = Declared { word: "w0".to_owned(), rule: None, other: false };
        laws.allow(&declared.word);
        laws.serves(masters.iter().map(|master| master.name().to_owned()));
        let listed = vec![0, 1];
        write_list(beside.path(), &masters, &listed);
        let folders = (volume.path(), beside.path());
        let text = settings(&site, binary, folders, (web, other), &declared, &Flaw::default());
        let api = format!("[api]\nlisten = \"{api}\"\n");
        let mapsmith = Mapsmith::config(&format!("{text}{api}")).start();
        let config = volume.path().join("haproxy.cfg");
        // Nobody asks before there is something.
        let serves = || {
            let word = ask(web, "/word")?;
            (word == "w0" && ask(web, "/app").is_some()).then_some(())
        };
        mapsmith.wait_for("HAProxy answers", Duration::from_secs(60), |_| serves());
        let watched = Watched { laws: Arc::clone(&laws), web, config, holds: site.holds };
        Self {
            clients: Clients::start(&watched),
            mapsmith,
            laws,
            binary,
            site,
            declared,
            listed,
            masters,
            web,
            other,
            is_read_only: false,
            volume,
            beside,
            journal: journal.clone(),
            is_down: false,
            words: 0,
            _reaper: reaper,
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.volume.path().join(name)
    }

    /// A word that nobody had.
    pub fn new_word(&mut self) -> String {
        self.words += 1;
        format!("w{}", self.words)
    }

    /// Writes settings, whole, and has Mapsmith read them.
    pub fn write(&mut self, declared: &Declared, flaw: &Flaw) {
        let addresses = (self.web, self.other);
        let folders = (self.volume.path(), self.beside.path());
        let text = settings(&self.site, self.binary, folders, addresses, declared, flaw);
        let api = format!("[api]\nlisten = \"{}\"\n", self.mapsmith.address());
        let path = self.mapsmith.configuration().path();
        let new = path.with_extension("new");
        fs::write(&new, format!("{text}{api}")).expect("settings can be written");
        fs::rename(new, path).expect("settings can be written");
        if !self.is_down && !self.mapsmith.has_ended() {
            self.mapsmith.hangup();
        }
    }

    pub fn write_list(&self) {
        write_list(self.beside.path(), &self.masters, &self.listed);
    }

    /// What status says of HAProxy; none where nobody answers.
    pub fn status(&self) -> Option<Value> {
        let response = self.mapsmith.try_ask("GET", "/v1/status").ok()?;
        Some(serde_json::from_str::<Value>(&response.body).ok()?["haproxy"].clone())
    }
}

fn write_list(beside: &Path, masters: &[Master], listed: &[usize]) {
    let rows = listed.iter().map(|number| {
        let master = &masters[*number];
        json!({"name": master.name(), "address": master.address().to_string()})
    });
    let path = list(beside);
    let new = path.with_extension("new");
    fs::write(&new, Value::from_iter(rows).to_string()).expect("the list can be written");
    fs::rename(new, path).expect("the list can be written");
}

fn list(beside: &Path) -> PathBuf {
    beside.join("app.json")
}

fn settings(
    site: &Site,
    binary: &Binary,
    (folder, beside): (&Path, &Path),
    (web, other): (SocketAddr, SocketAddr),
    declared: &Declared,
    flaw: &Flaw,
) -> String {
    let Declared { word, rule, other: has_other } = declared;
    let answer = |path: &str, body: &str| {
        format!("{{ path = \"{path}\", return = {{ status = 200, body = \"{body}\" }} }}")
    };
    let mut rules = vec![answer("/word", word)];
    rules.extend(rule.iter().map(|rule| answer("/rule", rule)));
    // In another order now and then.
    if rule.as_ref().is_some_and(|rule| rule.len() % 2 == 0) {
        rules.reverse();
    }
    let mut text = format!(
        "[haproxy]\nmanaged = true\nbinary = {:?}\nfolder = {:?}\nhold_sockets = {}\n\
        reload_interval = \"100ms\"\nhard_stop_after = \"20s\"\n{}\
        [schedule]\nobserve = \"100ms\"\npoll = \"1s\"\njitter = \"0s\"\nservers = \"200ms\"\n\
        [damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\nmax_removed = \"100%\"\n\
        [[frontend]]\nname = \"web\"\nbind = [\"{web}\"]\ndefault_backend = \"app\"\n\
        rules = [{}]\n{}",
        binary.path,
        folder,
        site.holds,
        flaw.haproxy,
        rules.join(", "),
        flaw.frontend
    );
    if *has_other {
        let _ = write!(
            text,
            "[[frontend]]\nname = \"other\"\nbind = [\"{other}\"]\n\
            rules = [{{ return = {{ status = 200, body = \"{word}\" }} }}]\n"
        );
    }
    let _ = write!(
        text,
        "[[source]]\nname = \"app\"\ntype = \"file\"\npath = {:?}\n\
        [[backend]]\nname = \"app\"\nfrom = \"app\"\n{}",
        list(beside),
        flaw.more
    );
    text
}

/// What a new connection is answered.
pub fn ask(address: SocketAddr, path: &str) -> Option<String> {
    let response = crate::support::http::request(address, "GET", path, &[], "").ok()?;
    (response.status == 200).then_some(response.body)
}

/// A frontend on a port that this listener has.
pub fn taken_port(listener: &TcpListener) -> Flaw {
    let address = listener.local_addr().expect("a bound address");
    Flaw {
        more: format!(
            "[[frontend]]\nname = \"taken\"\nbind = [\"{address}\"]\n\
            rules = [{{ return = {{ status = 204 }} }}]\n"
        ),
        named: address.to_string(),
        ..Flaw::default()
    }
}

/// A frontend that shows a certificate which is not there, or is none.
pub fn bad_certificate(path: &Path, is_there: bool) -> Flaw {
    if is_there {
        fs::write(path, "no certificate\n").expect("a file");
    }
    let port = free_port();
    Flaw {
        more: format!(
            "[[frontend]]\nname = \"tls\"\n\
            bind = [{{ address = \"127.0.0.1:{port}\", certificate = \"site\" }}]\n\
            rules = [{{ return = {{ status = 204 }} }}]\n\
            [[certificate]]\nname = \"site\"\npath = {path:?}\n"
        ),
        named: path.display().to_string(),
        ..Flaw::default()
    }
}

/// The servers that the file has.
pub fn servers_in(config: &str) -> BTreeMap<String, usize> {
    let lines = config.lines().filter_map(|line| line.trim().strip_prefix("server "));
    let mut servers = BTreeMap::new();
    for name in lines.filter_map(|line| line.split(' ').next()) {
        *servers.entry(name.trim_matches('"').to_owned()).or_default() += 1;
    }
    servers
}
