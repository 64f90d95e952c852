//! Settings: a TOML, YAML or JSON file, overlaid by `MAPSMITH__SECTION__KEY` variables, checked as
//! a whole.
//!
//! Every problem is named at once, with its line and key. `text` reads, `tree` makes these types of
//! what was read and names all that has no sense, and [`Settings`] names what contradicts itself.
//!
//! Each section has a file with its type, its own check and, by `keys`, the documentation of its
//! keys, which `document` makes docs/configuration.md of. The keys of a source's kind are beside
//! that kind in `crate::source`; `source::kinds` lists them for `[[source]]`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::Value;
use mapsmith_core::desired::guard::Limits;
use mapsmith_core::desired::references::{Action, Actions};
use mapsmith_core::server::Manage;
use serde::Deserialize;

pub mod acme;
mod api;
pub mod backend;
pub mod certificate;
mod commands;
mod compat;
mod damping;
mod document;
pub mod frontend;
mod guard;
pub mod haproxy;
mod history;
mod instance;
pub(crate) mod keys;
mod learned;
mod map;
mod notify;
pub(crate) mod objects;
mod ownership;
pub mod portmap;
mod read;
mod references;
mod rendering;
mod schedule;
pub mod services;
mod site;
mod source;
mod store;
pub mod supervision;
mod text;
pub mod tls_file;
mod tree;
mod unique;
pub(crate) mod units;

pub use acme::Acme;
pub use api::{Api, ApiClient, ApiTls, ClientAuth, DeclaredNatives, ExternalUrl};
pub use backend::{Backend, Listing, Selector, WhenEmpty};
pub use certificate::Certificate;
pub use commands::{Command, Commands};
pub use compat::{Compat, OldClients};
pub use damping::Damping;
pub use document::document;
pub use frontend::Frontend;
pub use haproxy::Haproxy;
pub use history::History;
pub use instance::Instance;
pub use learned::Learned;
pub use map::Map;
pub use notify::Notify;
pub use objects::Declared;
pub use ownership::Ownership;
pub use portmap::Portmap;
pub use schedule::{PollSchedule, Schedule};
pub use services::Services;
pub use site::Site;
pub use source::Source;
pub use store::Store;
pub use text::VARIABLE_PREFIX;
pub use tls_file::TlsFile;
pub use tree::{Place, Problem};

use read::{text_of, unreadable};
use text::Format;
use tree::Reading;
use tree::doubt::{comes_of, section, stands_alone};
use unique::check_names;

/// What the instance is called that `[haproxy]` declares by itself.
const OWN_INSTANCE: &str = "haproxy";

/// Everything that Mapsmith is configured with.
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
    /// The listeners for clients of other APIs.
    #[serde(default)]
    pub compat: Compat,
    /// The map that is kept.
    #[serde(default)]
    pub map: Map,
    /// What changes are held back.
    #[serde(default, deserialize_with = "guard::limits")]
    pub guard: Limits,
    /// How fast server lists may change.
    #[serde(default)]
    pub damping: Damping,
    /// What becomes of map entries whose master HAProxy does not have.
    #[serde(default, deserialize_with = "references::actions")]
    pub references: Actions,
    /// Where overrides are kept; without it there are none.
    pub store: Option<Store>,
    /// Who is told what needs a person.
    pub notify: Option<Notify>,
    /// How commands are run on nodes; without it there are none.
    pub commands: Option<Commands>,
    /// Which there are.
    #[serde(default, rename = "command")]
    pub command_list: Vec<Command>,
    /// How many revisions are kept there.
    #[serde(default)]
    pub history: History,
    /// Whose nodes are whose after a drain, a pin or an outage.
    #[serde(default)]
    pub ownership: Ownership,
    /// The registries, in the order of the file. [`Settings::load`] sorts them by priority.
    #[serde(default, rename = "source")]
    pub sources: Vec<Source>,
    /// The backends whose servers are kept.
    #[serde(default, rename = "backend")]
    pub backends: Vec<Backend>,
    /// HAProxy's configuration; without it Mapsmith does not render one.
    pub haproxy: Option<Haproxy>,
    /// Its frontends.
    #[serde(default, rename = "frontend")]
    pub frontends: Vec<Frontend>,
    /// The certificates that these show.
    #[serde(default, rename = "certificate")]
    pub certificates: Vec<Certificate>,
    /// The authority that some of these come from.
    pub acme: Option<Acme>,
    /// What a registry declares beside these.
    pub services: Option<Services>,
    /// What metadata declares beside these.
    pub portmap: Option<Portmap>,
    /// The services among the frontends and backends; none before they are known.
    #[serde(skip)]
    pub services_in_force: Option<BTreeSet<String>>,
    /// What redispatch learned.
    #[serde(default)]
    pub learned: Learned,
    /// The HAProxy processes that are driven.
    #[serde(default, rename = "instance")]
    pub instances: Vec<Instance>,
    /// The certificates and revocations that these have loaded from files.
    #[serde(default, rename = "tls_file")]
    pub tls_files: Vec<TlsFile>,
}

/// The settings, and the file that they were read from.
#[derive(Debug, Clone)]
pub struct SettingsFile {
    /// What the file says, with what is declared beside it.
    pub settings: Settings,
    path: PathBuf,
    text: String,
    /// What the file alone says.
    values: Arc<Value>,
    declared: Declared,
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

/// What a text says, overlaid by the environment, and what is wrong with that.
fn values_of(
    path: &Path,
    text: &str,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Value, Vec<Problem>), SettingsError> {
    let mut values = text::parse(format(path)?, text).map_err(|error| unreadable(path, error))?;
    let problems = text::overlay(&mut values, variables);
    Ok((values, problems))
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
        let (values, problems) = values_of(path, text, variables)?;
        Self::of_values(path, &values, problems)
    }

    /// Of what was read at this path, with `problems`.
    fn of_values(
        path: &Path,
        values: &Value,
        mut problems: Vec<Problem>,
    ) -> Result<Self, SettingsError> {
        let Reading { value: settings, problems: nonsense, doubtful, whole } =
            tree::read::<Self>(values);
        problems.extend(nonsense);
        let settings = settings.map(Self::with_own_haproxy).map(Self::with_issued);
        let settings = settings.map(Self::with_feeds);
        if let Some(settings) = &settings {
            // Without an element of a list the others have other numbers, and may seem to miss it.
            let known = |problem: &String| {
                (whole || stands_alone(problem))
                    && !doubtful.iter().any(|key| comes_of(problem, key))
            };
            let place = |text: String| Problem { place: tree::place_of(values, &text), text };
            problems.extend(settings.problems().into_iter().filter(known).map(place));
        }
        let invalid = |mut problems: Vec<Problem>| {
            problems.sort_by(|a, b| a.place.cmp(&b.place));
            SettingsError::Invalid { path: path.display().to_string(), problems }
        };
        let mut settings = match settings {
            Some(settings) if problems.is_empty() => settings,
            _ => return Err(invalid(problems)),
        };
        settings.tls_files.extend(settings.certificates.iter().filter_map(Certificate::tls_file));
        settings.sources.sort_by_key(|source| std::cmp::Reverse(source.priority));
        let folder = path.parent().unwrap_or(Path::new("."));
        settings.resolve(folder);
        let mut unread = Vec::new();
        settings.haproxy.iter_mut().for_each(|haproxy| haproxy.read_files(&mut unread));
        settings.read_secret(&mut unread);
        settings.read_named_files();
        if unread.is_empty() {
            return Ok(settings);
        }
        let place = |text: String| Problem { place: tree::place_of(values, &text), text };
        Err(invalid(unread.into_iter().map(place).collect()))
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
                api.resolve(folder);
                Ok(api)
            }
            _ => Err(SettingsError::Invalid { path: path.display().to_string(), problems }),
        }
    }

    /// Relative paths are relative to the settings file, not to where the program was started.
    fn resolve(&mut self, folder: &Path) {
        self.api.resolve(folder);
        self.map.resolve(folder);
        self.store.iter_mut().for_each(|store| store.resolve(folder));
        self.sources.iter_mut().for_each(|source| source.resolve(folder));
        self.tls_files.iter_mut().for_each(|file| file.resolve(folder));
        self.haproxy.iter_mut().for_each(|haproxy| haproxy.resolve(folder));
        self.acme.iter_mut().for_each(|acme| acme.resolve(folder));
        self.commands.iter_mut().for_each(|commands| commands.resolve(folder));
    }

    /// What a HAProxy whose configuration Mapsmith writes needs no words for: its instance, and the
    /// path of its map, which is that of the file.
    fn with_own_haproxy(mut self) -> Self {
        let Some(haproxy) = self.haproxy.as_ref().filter(|haproxy| haproxy.is_supervised()) else {
            return self;
        };
        if self.map.path.as_os_str().is_empty() {
            let own = self.map.file.clone();
            self.map.path = own.unwrap_or_else(|| haproxy.files().map());
        }
        if let Some(address) = haproxy.runtime()
            && self.instances.iter().all(|instance| instance.runtime != address)
        {
            self.instances.push(Instance::new(OWN_INSTANCE, address));
        }
        if self.instances.len() == 1 && haproxy.template.is_none() {
            // A start of HAProxy would end every other server.
            let whole = self.backends.iter_mut().filter(|backend| backend.has_all_servers());
            whole.for_each(|backend| _ = backend.manage.get_or_insert(Manage::All));
        }
        self
    }

    /// What each source is asked for.
    fn with_feeds(self) -> Self {
        let mut settings = self.with_registrations();
        let lists = source::list_sources(&settings);
        for source in &mut settings.sources {
            let listed = lists.contains(source.name.as_str());
            let maps_nodes = source.kind.maps_nodes(&source.of_kind, listed);
            source.maps_nodes = maps_nodes && !source.built_in;
            source.keep_times = source.maps_nodes && settings.ownership.remember;
            source.settle(settings.store.as_ref());
        }
        settings
    }

    /// The sources of the node map.
    pub fn map_sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(|source| source.feeds_map())
    }

    /// The sources whose node map is compared and never applied.
    pub fn shadow_sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(|source| source.maps_nodes && source.shadow)
    }

    /// The server lists that backends take from sources, each once, in the order of the backends.
    pub fn server_lists(&self) -> Vec<(&Source, &Selector)> {
        self.lists_of(self.backends.iter().filter_map(|backend| backend.from.as_ref()))
    }

    /// The server lists that are compared and that no backend takes its servers from, likewise.
    pub fn shadow_lists(&self) -> Vec<(&Source, &Selector)> {
        let mut lists =
            self.lists_of(self.backends.iter().filter_map(|it| it.shadow_from.as_ref()));
        let applied = self.server_lists();
        lists.retain(|(_, list)| !applied.iter().any(|(_, known)| known == list));
        lists
    }

    fn lists_of<'a>(
        &'a self,
        selectors: impl Iterator<Item = &'a Selector>,
    ) -> Vec<(&'a Source, &'a Selector)> {
        let mut lists: Vec<(&Source, &Selector)> = Vec::new();
        for from in selectors {
            let source = self.sources.iter().find(|source| source.name == from.source);
            if let Some(source) = source
                && !lists.iter().any(|(_, known)| *known == from)
            {
                lists.push((source, from));
            }
        }
        lists
    }

    /// The place among the instances of the HAProxy whose configuration Mapsmith writes.
    pub fn own_instance(&self) -> Option<usize> {
        let haproxy = self.haproxy.as_ref().filter(|haproxy| haproxy.is_supervised())?;
        let address = haproxy.runtime()?;
        self.instances.iter().position(|instance| instance.runtime == address)
    }

    /// Whether no HAProxy has a backend but those of the configuration that Mapsmith writes.
    pub fn writes_every_backend(&self) -> bool {
        let has_template = self.haproxy.as_ref().is_some_and(|it| it.template.is_some());
        self.own_instance().is_some() && self.instances.len() == 1 && !has_template
    }

    /// Whether there is a node map: without a source of one Mapsmith is there for HAProxy's
    /// configuration and servers alone.
    pub fn keeps_map(&self) -> bool {
        self.map_sources().next().is_some()
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

    /// What contradicts itself or the rules, section by section.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.haproxy.is_none() && self.map.path.as_os_str().is_empty() {
            // Without its main section it is hardly a settings file yet.
            match &self.services {
                Some(services) => services.problems(None, &self.sources, &mut problems),
                None => problems.push("map.path: is missing".to_owned()),
            }
            return problems;
        }
        self.schedule.problems(&mut problems);
        self.api.problems(&mut problems);
        self.compat.problems(self, &mut problems);
        self.site.problems(&mut problems);
        self.map.problems(&mut problems);
        guard::problems(&self.guard, &mut problems);
        self.store.iter().for_each(|store| store.problems(&self.map, &mut problems));
        self.history.problems(&mut problems);
        self.notify.iter().for_each(|notify| notify.problems(&mut problems));
        self.ownership.problems(self.store.is_some(), &mut problems);
        self.learned.problems(&mut problems);
        let lists = source::list_sources(self);
        let store = self.store.as_ref();
        source::problems(&self.sources, &lists, &self.map, store, &mut problems);
        if self.haproxy.is_none() {
            source::problems_without_map(&self.sources, &mut problems);
        }
        instance::problems(&self.instances, &mut problems);
        let (files, instances) = (&self.tls_files, &self.instances);
        tls_file::problems(files, instances, &self.map, store, &mut problems);
        certificate::problems(&self.certificates, files, &self.map, store, &mut problems);
        acme::problems(self, &mut problems);
        self.damping.problems(&mut problems);
        backend::problems(&self.backends, &self.sources, &mut problems);
        commands::problems(self, &mut problems);
        rendering::problems(self, &mut problems);
        let (haproxy, services) = (self.haproxy.as_ref(), self.services.iter());
        services.for_each(|services| services.problems(haproxy, &self.sources, &mut problems));
        self.portmap.iter().for_each(|portmap| portmap.problems(self, &mut problems));
        self.haproxy.iter().for_each(|haproxy| supervision::problems(haproxy, &mut problems));
        problems
    }
}

#[cfg(test)]
mod tests;
