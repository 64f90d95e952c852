//! Settings: a TOML, YAML or JSON file, overlaid by `MAPSMITH__SECTION__KEY` variables, checked as
//! a whole.
//!
//! Every problem is named at once, with its line and key, so that an operator mends a file in one
//! go. `text` reads, `tree` makes these types of what was read and tells all that has no sense, and
//! [`Settings`] tells what contradicts itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use haproxy_runtime::{
    MapClient, MapName, RuntimeAddress, RuntimeClient, ServersClient, TableClient, TableName,
};
use mapsmith_core::desired::guard::Limits;
use mapsmith_core::desired::references::{Action, Actions};
use mapsmith_core::{names, server};
use reqwest::Url;
use serde::Deserialize;

pub mod backend;
mod schedule;
mod text;
mod tree;
mod units;

pub use backend::{Backend, Damping, Listing};
pub use schedule::{PollSchedule, Schedule};
pub use text::VARIABLE_PREFIX;
pub use tree::{Place, Problem};

use text::Format;
use tree::Reading;
use units::{duration, listen, size};

/// Everything that Mapsmith is told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What this gateway is called.
    #[serde(default)]
    pub site: Site,
    /// When to look.
    #[serde(default)]
    pub schedule: Schedule,
    /// The HTTP API.
    #[serde(default)]
    pub api: Api,
    /// The map that is kept.
    pub map: Map,
    /// What changes are held back.
    #[serde(default)]
    pub guard: Limits,
    /// How fast server lists may change.
    #[serde(default)]
    pub damping: Damping,
    /// What becomes of map entries whose master HAProxy does not have.
    #[serde(default)]
    pub references: Actions,
    /// Where overrides are kept; without it there are none.
    pub store: Option<Store>,
    /// The registries, in the order of the file. [`Settings::load`] sorts them by priority, and
    /// takes those away that list servers.
    #[serde(default, rename = "source")]
    pub sources: Vec<Source>,
    /// The sources that list servers, for some backend's `from`: [`Settings::load`] parts them from
    /// those of the node map.
    #[serde(skip)]
    pub list_sources: Vec<Source>,
    /// The backends whose servers are kept.
    #[serde(default, rename = "backend")]
    pub backends: Vec<Backend>,
    /// What redispatch learned.
    #[serde(default)]
    pub learned: Learned,
    /// The HAProxy processes that are driven.
    #[serde(default, rename = "instance")]
    pub instances: Vec<Instance>,
}

/// `[site]`: what this gateway is called.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Site {
    /// Stands in the map file's second line, for whoever finds it.
    pub name: Option<String>,
}

/// The longest `site.name`, in characters.
const MOST_SITE_NAME: usize = 64;

/// `[api]`: where the HTTP API listens.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Address and port; port 0 lets the system choose.
    #[serde(deserialize_with = "listen")]
    pub listen: SocketAddr,
    /// A file with the bearer token that every `/v1` request must carry. Required where `listen` is
    /// not on loopback.
    pub token_file: Option<PathBuf>,
}

impl Default for Api {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7070)), token_file: None }
    }
}

/// `[map]`: the node -> master map.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    /// The map as HAProxy's configuration names it.
    pub path: PathBuf,
    /// Where Mapsmith writes it, if that is another path than HAProxy's (a chroot, a mount).
    pub file: Option<PathBuf>,
    /// Whether node names are lower-cased (ASCII), as `lower` does it in HAProxy's configuration.
    #[serde(default = "yes")]
    pub lowercase: bool,
}

impl Map {
    /// Where the map file is written.
    pub fn file(&self) -> &Path {
        self.file.as_deref().unwrap_or(&self.path)
    }
}

/// `[store]`: where overrides outlive a restart.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The SQLite file; made where there is none, in a folder that must be there.
    pub path: PathBuf,
}

/// `[learned]`: the routes that HAProxy learned by asking another master in the same request.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Learned {
    /// The stick table in which HAProxy keeps them: the backend's name, or `PEERS/NAME` for one of
    /// a peers section. Without it nothing is done.
    pub table: Option<String>,
    /// The most routes of an instance that are read and kept; the rest is counted.
    pub max: usize,
}

impl Default for Learned {
    fn default() -> Self {
        Self { table: None, max: 10_000 }
    }
}

/// The most that `learned.max` may be: what the shipped stick table holds.
const MOST_LEARNED: usize = 100_000;

/// `[[source]]`: a registry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name, in status, logs and metrics.
    pub name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: SourceKind,
    /// Of a node that several sources know, the one with the greater number counts; at equal
    /// numbers the one named first.
    #[serde(default)]
    pub priority: i32,
    /// Whether nothing is applied until it has answered once.
    #[serde(default = "yes")]
    pub required: bool,
    /// `puppetdb`: the server's root (`https://puppetdb:8081`); `http_json`: the document itself.
    pub url: Option<String>,
    /// `file`: the file.
    pub path: Option<PathBuf>,
    /// `puppetdb`: the PQL query; default the factsets' producer.
    pub query: Option<String>,
    /// `puppetdb`: the query for what changed since `{since}`. Derived from `query` for factsets
    /// and catalogs; without one every poll is full.
    pub delta_query: Option<String>,
    /// `file`: what it holds; by default JSON where its name ends in `.json`, else a map file.
    pub format: Option<FileFormat>,
    /// The field of a row that names the node.
    pub node_field: Option<String>,
    /// The field of a row that names its master.
    pub master_field: Option<String>,
    /// How long a delta (`puppetdb`), "not modified" (`http_json`) and an untouched file (`file`)
    /// are trusted before everything is read again.
    #[serde(default = "ten_minutes", deserialize_with = "duration")]
    pub full_poll: Duration,
    /// `puppetdb`: how far a delta reaches back beyond the newest time that a producer gave, for
    /// commands that PuppetDB stored late and clocks that differ.
    #[serde(default = "two_minutes", deserialize_with = "duration")]
    pub overlap: Duration,
    /// The bound on a whole poll, connecting and parsing included.
    #[serde(default = "thirty_seconds", deserialize_with = "duration")]
    pub timeout: Duration,
    /// The bound on an answer's size after decompression, in bytes.
    #[serde(default = "half_a_gibibyte", deserialize_with = "size")]
    pub max_bytes: u64,
    /// TLS: the CA's certificates (PEM), instead of the system's.
    pub ca: Option<PathBuf>,
    /// TLS: this client's certificate (PEM).
    pub cert: Option<PathBuf>,
    /// TLS: this client's key (PEM).
    pub key: Option<PathBuf>,
    /// A file with a token: `X-Authentication` for `puppetdb`, a bearer token for `http_json`. Read
    /// again at each poll.
    pub token_file: Option<PathBuf>,
    /// The registry's name of a master -> HAProxy's name; a name that is not here is taken as it
    /// is.
    #[serde(default)]
    pub masters: BTreeMap<String, String>,
}

/// The kinds of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// PuppetDB's query API.
    Puppetdb,
    /// A JSON document over HTTP.
    HttpJson,
    /// A JSON document or a map file on disk.
    File,
}

impl fmt::Display for SourceKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Puppetdb => "puppetdb",
            Self::HttpJson => "http_json",
            Self::File => "file",
        })
    }
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// JSON, like `http_json`'s.
    Json,
    /// A map file: node and master, a line each.
    Map,
}

/// `[[instance]]`: a HAProxy process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Its name, in status, logs and metrics.
    pub name: String,
    /// Its stats socket.
    pub runtime: RuntimeAddress,
    /// How long it may stay silent before it counts as unreachable.
    #[serde(default = "five_seconds", deserialize_with = "duration")]
    pub timeout: Duration,
    /// The largest payload command, in bytes. Must stay below HAProxy's `tune.bufsize` (16384
    /// unless configured).
    #[serde(default = "default_payload", deserialize_with = "size")]
    pub max_payload: usize,
}

impl Instance {
    fn client(&self) -> RuntimeClient {
        RuntimeClient::new(self.runtime.clone(), self.timeout)
    }

    /// A client of one of its maps.
    pub fn map_client(&self, map: &MapName) -> MapClient {
        MapClient::new(self.client(), map.clone(), self.max_payload)
    }

    /// A client of its servers.
    pub fn servers_client(&self) -> ServersClient {
        ServersClient::new(self.client(), self.max_payload)
    }

    /// A client of one of its stick tables.
    pub fn table_client(&self, table: TableName) -> TableClient {
        TableClient::new(self.client(), table, self.max_payload)
    }
}

fn yes() -> bool {
    true
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

fn two_minutes() -> Duration {
    Duration::from_secs(120)
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

fn half_a_gibibyte() -> u64 {
    512 * 1024 * 1024
}

/// 1 KiB below the default buffer: at exactly its size 2.6 hangs and aborts.
fn default_payload() -> usize {
    15 * 1024
}

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file can't be read, or breaks the grammar of its format.
    #[error("{path}: {message}")]
    Unreadable {
        /// The settings file.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// Values that have no sense, or contradict each other or the rules: every problem, one a line.
    #[error("{path}: {} problem(s) in the \
        settings:{}", problems.len(), problems.iter().map(|problem| format!("\n  - \
        {problem}")).collect::<String>())]
    Invalid {
        /// The settings file.
        path: String,
        /// In the order of the file.
        problems: Vec<Problem>,
    },
}

fn unreadable(path: &Path, message: String) -> SettingsError {
    SettingsError::Unreadable { path: path.display().to_string(), message }
}

fn text_of(path: &Path) -> Result<String, SettingsError> {
    std::fs::read_to_string(path).map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::NotFound => "; -c FILE or MAPSMITH_CONFIG names another one",
            ErrorKind::PermissionDenied => "; let the user read it who runs this",
            _ => "",
        };
        unreadable(path, format!("can't be read: {error}{hint}"))
    })
}

fn format(path: &Path) -> Result<Format, SettingsError> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => Ok(Format::Toml),
        Some("yaml" | "yml") => Ok(Format::Yaml),
        Some("json") => Ok(Format::Json),
        _ => Err(unreadable(
            path,
            "the file's name must end in .toml, .yaml, .yml or .json".to_owned(),
        )),
    }
}

/// The part of a path up to the element of a list, or the section: what contradicts itself does so
/// within one.
fn section(key: &str) -> &str {
    key.find(']').map(|end| &key[..=end]).or_else(|| key.split('.').next()).unwrap_or(key)
}

impl Settings {
    /// Reads and checks the settings. `variables` are the process's environment.
    ///
    /// # Errors
    /// An unreadable file, or all the problems found.
    pub fn load(
        path: &Path,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        Self::of_text(path, &text_of(path)?, variables)
    }

    /// Like [`Settings::load`], of a text instead of the file at `path`: its ending says what the
    /// text is, and its folder is what relative paths are relative to.
    ///
    /// # Errors
    /// Those of [`Settings::load`], but for a file that can't be read.
    pub fn of_text(
        path: &Path,
        text: &str,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, SettingsError> {
        let mut values =
            text::parse(format(path)?, text).map_err(|error| unreadable(path, error))?;
        let mut problems = text::overlay(&mut values, variables);
        let Reading { value: settings, problems: nonsense, doubtful, whole } =
            tree::read::<Self>(&values);
        problems.extend(nonsense);
        // Without an element of a list the others have other numbers, and may seem to miss it.
        if let Some(settings) = settings.as_ref().filter(|_| whole) {
            // What was left out as wrong is not missing, and what it would contradict is not known.
            let known =
                |problem: &String| !doubtful.iter().any(|key| problem.starts_with(section(key)));
            let place = |text: String| Problem { place: tree::place_of(&values, &text), text };
            problems.extend(settings.problems().into_iter().filter(known).map(place));
        }
        let mut settings = match settings {
            Some(settings) if problems.is_empty() => settings,
            _ => {
                problems.sort_by(|a, b| a.place.cmp(&b.place));
                return Err(SettingsError::Invalid { path: path.display().to_string(), problems });
            }
        };
        settings.sources.sort_by_key(|source| std::cmp::Reverse(source.priority));
        let lists: BTreeSet<_> =
            backend::list_sources(&settings.backends).into_iter().map(str::to_owned).collect();
        (settings.list_sources, settings.sources) = std::mem::take(&mut settings.sources)
            .into_iter()
            .partition(|source| lists.contains(&source.name));
        let folder = path.parent().unwrap_or(Path::new("."));
        settings.resolve(folder);
        Ok(settings)
    }

    /// `[api]` alone, whatever else stands in the file: for those who ask a running Mapsmith.
    ///
    /// # Errors
    /// Those of [`Settings::load`], about `[api]` only.
    pub fn load_api(
        path: &Path,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Api, SettingsError> {
        /// The other sections are not for the one who asks.
        #[derive(Deserialize)]
        struct Only {
            #[serde(default)]
            api: Api,
        }
        let mut values =
            text::parse(format(path)?, &text_of(path)?).map_err(|error| unreadable(path, error))?;
        let mut problems = text::overlay(&mut values, variables);
        problems.retain(|problem| section(&problem.text).starts_with("api"));
        let reading = tree::read::<Only>(&values);
        problems.extend(reading.problems);
        match reading.value {
            Some(Only { mut api }) if problems.is_empty() => {
                let folder = path.parent().unwrap_or(Path::new("."));
                api.token_file.iter_mut().for_each(|path| *path = folder.join(&*path));
                Ok(api)
            }
            _ => Err(SettingsError::Invalid { path: path.display().to_string(), problems }),
        }
    }

    /// Relative paths are relative to the settings file, not to where the program was started.
    fn resolve(&mut self, folder: &Path) {
        let resolve = |path: &mut PathBuf| *path = folder.join(&*path);
        self.api.token_file.iter_mut().for_each(resolve);
        self.map.file.iter_mut().for_each(resolve);
        self.store.iter_mut().map(|store| &mut store.path).for_each(resolve);
        for source in self.sources.iter_mut().chain(&mut self.list_sources) {
            [
                &mut source.path,
                &mut source.ca,
                &mut source.cert,
                &mut source.key,
                &mut source.token_file,
            ]
            .into_iter()
            .flatten()
            .for_each(resolve);
        }
    }

    /// What becomes of entries that point nowhere. Where Mapsmith makes a backend's servers of the
    /// map's masters, a new master's server comes after the map that names it, so the guard would
    /// hold it for ever.
    pub fn references_in_force(&self) -> Actions {
        let made_of_map =
            self.backends.iter().any(|backend| matches!(backend.listing(), Listing::Masters(_)));
        match self.references.unknown {
            Action::Guard if made_of_map => Actions { unknown: Action::Keep, ..self.references },
            _ => self.references,
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, value, least) in [
            ("schedule.verify", self.schedule.verify, Duration::from_secs(1)),
            ("schedule.observe", self.schedule.observe, Duration::from_millis(100)),
            ("schedule.servers", self.schedule.servers, Duration::from_millis(100)),
        ] {
            if value < least {
                problems.push(format!("{key}: {value:?} is too short, at least {least:?}"));
            }
        }
        if let PollSchedule::Every(interval) = self.schedule.poll
            && (interval.is_zero() || interval.subsec_nanos() > 0)
        {
            problems
                .push(format!("schedule.poll: {interval:?} must be whole seconds, at least 1s"));
        }
        if !self.api.listen.ip().is_loopback() && self.api.token_file.is_none() {
            problems.push(format!(
                "api.listen: {} can be reached from other machines; set api.token_file, or listen \
                    on 127.0.0.1",
                self.api.listen
            ));
        }
        if let Some(name) = &self.site.name
            && (!(1..=MOST_SITE_NAME).contains(&name.chars().count())
                || name.chars().any(char::is_control))
        {
            problems.push(format!(
                "site.name: must have 1 to {MOST_SITE_NAME} characters, and no control characters"
            ));
        }
        self.map_problems(&mut problems);
        if let Some(most) = self.guard.max_entries
            && most < self.guard.min_entries
        {
            problems.push(format!(
                "guard.max_entries: {most} is below guard.min_entries, {}; no map could have both",
                self.guard.min_entries
            ));
        }
        let lists = backend::list_sources(&self.backends);
        if let Some(store) = &self.store {
            if store.path.file_name().is_none() {
                problems.push(format!("store.path: {:?} names no file", store.path));
            }
            if store.path == self.map.file() {
                problems
                    .push("store.path: is the map file, which Mapsmith writes itself".to_owned());
            }
        }
        if let Some(table) = &self.learned.table
            && !table.splitn(2, '/').all(server::is_valid_name)
        {
            problems.push(format!(
                "learned.table: {table:?} can be no stick table; give the name \
                of its backend, or PEERS/NAME"
            ));
        }
        if !(1..=MOST_LEARNED).contains(&self.learned.max) {
            problems.push(format!("learned.max: must be 1 to {MOST_LEARNED} routes"));
        }
        if self.sources.is_empty() {
            problems.push("source: there is none; add a [[source]]".to_owned());
        } else if self.sources.iter().all(|source| lists.contains(source.name.as_str())) {
            problems.push(
                "source: each lists servers for a backend; add a [[source]] for the node map"
                    .to_owned(),
            );
        }
        if self.instances.is_empty() {
            problems.push(
                "instance: there is none; add an [[instance]] with its runtime socket".to_owned(),
            );
        }
        names("source", self.sources.iter().map(|source| &source.name), &mut problems);
        names("instance", self.instances.iter().map(|instance| &instance.name), &mut problems);
        for (index, instance) in self.instances.iter().enumerate() {
            if let Some(other) =
                self.instances[..index].iter().find(|other| other.runtime == instance.runtime)
            {
                problems.push(format!(
                    "instance[{index}] {:?}: has the socket of {:?}; each HAProxy is driven once",
                    instance.name, other.name
                ));
            }
        }
        for (index, source) in self.sources.iter().enumerate() {
            if source.path.as_deref() == Some(self.map.file()) {
                problems.push(format!(
                    "source[{index}] {:?}: path is the map file, which Mapsmith writes itself",
                    source.name
                ));
            }
            if self.store.as_ref().is_some_and(|store| source.path.as_ref() == Some(&store.path)) {
                problems.push(format!(
                    "source[{index}] {:?}: path is the store, a database",
                    source.name
                ));
            }
            let place = format!("source[{index}] {:?}", source.name);
            source.problems(&place, &mut problems);
            if lists.contains(source.name.as_str()) {
                backend::list_source_problems(source, &place, &mut problems);
            }
        }
        self.damping.problems(&mut problems);
        for (index, backend) in self.backends.iter().enumerate() {
            if self.backends[..index].iter().any(|other| other.name == backend.name) {
                problems.push(format!("backend: there are two of the name {:?}", backend.name));
            }
            backend.problems(
                &format!("backend[{index}] {:?}", backend.name),
                &self.sources,
                &mut problems,
            );
        }
        for (index, instance) in self.instances.iter().enumerate() {
            if !(1024..=1024 * 1024).contains(&instance.max_payload) {
                problems.push(format!(
                    "instance[{index}] {:?}: max_payload must be 1024 to 1048576 bytes",
                    instance.name
                ));
            }
            if instance.timeout.is_zero() {
                problems
                    .push(format!("instance[{index}] {:?}: timeout must not be 0", instance.name));
            }
        }
        problems
    }

    fn map_problems(&self, problems: &mut Vec<String>) {
        let text = self.map.path.to_str();
        match text {
            Some(text) if !text.is_empty() && !text.starts_with('#') && !text.starts_with('@') => {
                if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
                    problems.push(format!(
                        "map.path: {text:?} contains whitespace or control characters"
                    ));
                }
                if text.starts_with("<<") || text.ends_with("<<") {
                    problems.push(format!(
                        "map.path: {text:?} has `<<` at an end, which HAProxy's \
                            commands read as a payload mark"
                    ));
                }
            }
            _ => problems.push(
                "map.path: must be the map's path as HAProxy's configuration names it".to_owned(),
            ),
        }
        if !self.map.path.is_absolute() && self.map.file.is_none() {
            problems.push(format!(
                "map.path: {:?} is relative to HAProxy's working folder; set map.file to where \
                    Mapsmith shall write it",
                self.map.path
            ));
        }
    }
}

fn names<'a>(section: &str, names: impl Iterator<Item = &'a String>, problems: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for name in names {
        if names::check_key(name).is_err() {
            problems.push(format!(
                "{section}: {name:?} is not a name: 1 to 255 bytes without whitespace"
            ));
        }
        if !seen.insert(name) {
            problems.push(format!("{section}: there are two of the name {name:?}"));
        }
    }
}

impl Source {
    /// What the file holds: nothing is guessed from its text.
    pub fn file_format(&self) -> FileFormat {
        let of_name = || match self.path.as_deref().and_then(Path::extension) {
            Some(ending) if ending.eq_ignore_ascii_case("json") => FileFormat::Json,
            _ => FileFormat::Map,
        };
        self.format.unwrap_or_else(of_name)
    }

    fn problems(&self, place: &str, problems: &mut Vec<String>) {
        let mut problem = |text: String| problems.push(format!("{place}: {text}"));
        let over_http = self.kind != SourceKind::File;
        match (&self.url, over_http) {
            (Some(url), true) => match Url::parse(url) {
                Ok(url) if matches!(url.scheme(), "http" | "https") => {
                    if !url.username().is_empty() || url.password().is_some() {
                        problem(
                            "url: no user name or password in a URL; use token_file or cert \
                            and key"
                                .to_owned(),
                        );
                    }
                }
                Ok(_) => problem("url: must begin with http:// or https://".to_owned()),
                Err(error) => problem(format!(
                    "url: {url:?} is not a URL like https://puppetdb.example.com:8081: {error}"
                )),
            },
            (None, true) => problem("url is missing".to_owned()),
            (Some(_), false) => problem(format!("url: a {} source has none", self.kind)),
            (None, false) => {}
        }
        if over_http == self.path.is_some() {
            problem(if over_http {
                format!("path: a {} source has none", self.kind)
            } else {
                "path is missing".to_owned()
            });
        }
        if self.kind != SourceKind::Puppetdb && (self.query.is_some() || self.delta_query.is_some())
        {
            problem("query, delta_query: only a puppetdb source has them".to_owned());
        }
        if self.delta_query.as_ref().is_some_and(|query| !query.contains("{since}")) {
            problem("delta_query: must contain {since}, where the time is put".to_owned());
        }
        if self.kind != SourceKind::Puppetdb
            && self.node_field.is_some() != self.master_field.is_some()
        {
            problem("node_field and master_field go together".to_owned());
        }
        if self.cert.is_some() != self.key.is_some() {
            problem("cert and key go together".to_owned());
        }
        if over_http && self.format.is_some() {
            problem(format!("format: a {} source has none", self.kind));
        }
        if !over_http && [&self.ca, &self.cert, &self.token_file].into_iter().any(Option::is_some) {
            problem("ca, cert, key, token_file: a file source has none".to_owned());
        }
        if self.timeout.is_zero() || self.max_bytes == 0 {
            problem("timeout and max_bytes must not be 0".to_owned());
        }
        for (registry, haproxy) in &self.masters {
            if let Err(reason) = names::check_value(haproxy) {
                problem(format!("masters.{registry:?}: {reason}"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
