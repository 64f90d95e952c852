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
use crate::support::haproxy::{self, Binary, installed};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::process::{Ending, Process};
use crate::support::{free_port, pool};

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

/// The backend of a run: who may serve it, and who is to.
pub struct App {
    pub masters: Vec<Master>,
    /// The servers that it has in the end, by their names in HAProxy.
    pub listed: BTreeMap<String, SocketAddr>,
    /// The settings that say where its servers come from, and how they are followed.
    pub settings: String,
}

impl App {
    /// Three masters, of which a file lists two.
    pub fn in_file(beside: &Path) -> Self {
        let masters: Vec<_> = ["s1", "s2", "s3"].into_iter().map(Master::start).collect();
        let listed = masters[..2].iter().map(|master| (master.name().to_owned(), master.address()));
        let settings = format!(
            "{}{AT_ONCE}[[source]]\nname = \"app\"\ntype = \"file\"\npath = {:?}\n\
            [[backend]]\nname = \"app\"\nfrom = \"app\"\n",
            followed("1s"),
            list(beside)
        );
        let app = Self { listed: listed.collect(), masters, settings };
        app.write_list(beside);
        app
    }

    pub fn write_list(&self, beside: &Path) {
        let rows = self
            .listed
            .iter()
            .map(|(name, address)| json!({"name": name, "address": address.to_string()}));
        let path = list(beside);
        let new = path.with_extension("new");
        fs::write(&new, Value::from_iter(rows).to_string()).expect("the list can be written");
        fs::rename(new, path).expect("the list can be written");
    }
}

fn list(beside: &Path) -> PathBuf {
    beside.join("app.json")
}

/// How often Mapsmith looks at HAProxy, and polls.
pub fn followed(poll: &str) -> String {
    format!(
        "[schedule]\nobserve = \"100ms\"\npoll = \"{poll}\"\njitter = \"0s\"\n\
        servers = \"200ms\"\n"
    )
}

/// Every change of the servers comes at once.
pub const AT_ONCE: &str = "[damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\n\
    max_removed = \"100%\"\n";

/// The running whole. The order is that in which its parts end.
pub struct Whole {
    pub clients: Clients,
    pub mapsmith: Mapsmith,
    pub laws: Arc<Laws>,
    pub binary: &'static Binary,
    pub site: Site,
    pub declared: Declared,
    pub app: App,
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

impl AsMut<Whole> for Whole {
    fn as_mut(&mut self) -> &mut Whole {
        self
    }
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
    /// `beside` is the folder of what is not on the disk that fills.
    pub fn start(site: Site, app: App, beside: TempDir, journal: &Journal) -> Self {
        let binary = &installed()[site.haproxy % installed().len()];
        journal.note(&format!("HAProxy {:?}, {site:?}", binary.version));
        let volume = Volume::start();
        let reaper_log = beside.path().join("reaper.log");
        let folder = volume.path().display().to_string();
        let ending = Ending { signal: "TERM", remove: None };
        let reaper = Process::start(&["sh", "-c", REAPER, "reaper", &folder], &reaper_log, ending);
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (web, other, api) = (address(), address(), address());
        let laws = Arc::new(Laws::default());
        let declared = Declared { word: "w0".to_owned(), rule: None, other: false };
        laws.allow(&declared.word);
        laws.serves(app.masters.iter().map(|master| master.name().to_owned()));
        let settings_of = (&site, binary, volume.path(), &*app.settings);
        let text = settings(settings_of, (web, other), &declared, &Flaw::default());
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
            app,
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
        let of = (&self.site, self.binary, self.volume.path(), &*self.app.settings);
        let text = settings(of, addresses, declared, flaw);
        let api = format!("[api]\nlisten = \"{}\"\n", self.mapsmith.address());
        let path = self.mapsmith.configuration().path();
        let new = path.with_extension("new");
        fs::write(&new, format!("{text}{api}")).expect("settings can be written");
        fs::rename(new, path).expect("settings can be written");
        if !self.is_down && !self.mapsmith.has_ended() {
            self.mapsmith.hangup();
        }
    }

    /// The backend's servers as HAProxy has them; none where nobody says.
    pub fn servers(&self) -> Option<BTreeMap<String, (String, u32)>> {
        servers_at(&self.admin())
    }

    /// Where its Runtime API is.
    pub fn admin(&self) -> String {
        format!("unix@{}", self.file("admin.sock").display())
    }

    /// What status says of HAProxy; none where nobody answers.
    pub fn status(&self) -> Option<Value> {
        Some(self.whole_status()?["haproxy"].clone())
    }

    /// All that status says.
    pub fn whole_status(&self) -> Option<Value> {
        let response = self.mapsmith.try_ask("GET", "/v1/status").ok()?;
        serde_json::from_str(&response.body).ok()
    }
}

/// The backend's servers as the HAProxy with this socket has them: addresses and administrative
/// states.
pub fn servers_at(admin: &str) -> Option<BTreeMap<String, (String, u32)>> {
    let listing = haproxy::ask(admin, "show servers state app").ok()?;
    // A worker that ends hangs up in the middle: a whole answer ends with an empty line.
    (listing.starts_with("1\n") && listing.ends_with("\n\n")).then(|| pool::servers_of(&listing))
}

fn settings(
    (site, binary, folder, app): (&Site, &Binary, &Path, &str),
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
    text + app + &flaw.more
}

/// Whether HAProxy has exactly these servers, each ready.
pub fn serves(
    has: &BTreeMap<String, (String, u32)>,
    listed: &BTreeMap<String, SocketAddr>,
) -> bool {
    let is_one = |name, at: &String, admin| {
        pool::is_ready(admin) && listed.get(name).is_some_and(|listed| listed.to_string() == *at)
    };
    has.len() == listed.len() && has.iter().all(|(name, (at, admin))| is_one(name, at, *admin))
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
