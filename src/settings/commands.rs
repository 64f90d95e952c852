//! `[commands]` and `[[command]]`: what may be run on a node, and through which gateway.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mapsmith_core::commands::{
    self, LONGEST_VALUE, MOST_COMMANDS, MOST_PARAMETERS, Method, Parameter, PathTemplate, Pattern,
};
use mapsmith_core::config::values::{BindAddress, FilePath, Name, Secret, Text};
use mapsmith_core::config::{self, CommandGateway};
use reqwest::Url;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::keys::section;
use super::units::{duration, size};
use super::{Settings, SettingsError, SettingsFile};
use crate::store::secret;

/// The file of the secret in HAProxy's folder, where the settings name none.
const SECRET_FILE: &str = "commands.secret";
/// What a secret has at least and at most, in bytes.
const SECRET_LENGTH: std::ops::RangeInclusive<usize> = 16..=256;
/// The longest that a command may take.
const LONGEST: Duration = Duration::from_secs(600);
/// The shortest.
const SHORTEST: Duration = Duration::from_millis(100);
/// How much longer HAProxy waits than Mapsmith.
const LONGER: Duration = Duration::from_secs(10);
/// The most that is kept of an answer.
const MOST_BYTES: usize = 1024 * 1024;

section! {
    /// With this section the commands of `[[command]]` can be run on nodes, through a frontend of
    /// HAProxy that is for commands alone; all other frontends of mode http deny their paths.
    /// Needs `[store]`. [gateway.md](gateway.md#commands) is the guide.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Commands {
        /// The URL of that frontend: `http://` with an address of this host, like
        /// `"http://127.0.0.1:8142"`, or `https://`.
        #[unset(required)]
        pub gateway: String,
        /// With `[haproxy]`: the backend with all masters as servers, for commands alone. Then
        /// Mapsmith writes the frontend, which listens at the address of `gateway`.
        #[unset(says "the frontend is somebody else's")]
        pub backend: Option<Name>,
        /// The file with the secret that the frontend asks for, 16 to 256 letters, digits and other
        /// characters without spaces; its mode must be 0600. HAProxy's configuration has only its
        /// SHA-256.
        #[unset(says "with `backend`: `commands.secret` in `haproxy.folder`, which Mapsmith makes")]
        pub secret_file: Option<PathBuf>,
        /// The CA's certificates (PEM) that the gateway's own is verified by.
        #[unset(says "the system's")]
        pub ca: Option<PathBuf>,
        /// Mapsmith's certificate for the gateway (PEM), with `key`.
        pub cert: Option<PathBuf>,
        /// Its key.
        pub key: Option<PathBuf>,
    }
    beside {
        /// What the file of the secret holds; none while there is no such file.
        pub secret: Option<Secret>,
    }
}

section! {
    /// A command that can be run on a node. Whoever runs it gives its name and values for its
    /// `params`, and nothing else. Without `[commands]` nobody can run it.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Command {
        /// Its name: 1 to 64 letters, digits and `.` `_` `-`.
        #[unset(required)]
        pub name: String,
        /// The path that the node's master is asked for, with the node's name as one part of it:
        /// `"/nodes/{node}/commands"`.
        #[unset(required)]
        pub path: PathTemplate,
        /// `POST`, `PUT`, `PATCH` or `DELETE`.
        #[unset("POST")]
        #[serde(default)]
        pub method: Method,
        /// What is always sent: an object, which the values of `params` come into as texts.
        #[unset(says "`{}`")]
        #[serde(default)]
        pub body: Map<String, Value>,
        /// What may be given with it.
        #[unset(says "none")]
        #[serde(default)]
        pub params: Vec<Param>,
        /// How long it may take in all, 100ms to 10m. What has not ended then is `unknown`.
        #[unset("60s")]
        #[serde(default = "timeout", deserialize_with = "duration")]
        pub timeout: Duration,
        /// How much is kept of the master's answer, at most `"1MiB"`.
        #[unset("64KiB")]
        #[serde(default = "max_bytes", deserialize_with = "size")]
        pub max_bytes: usize,
    }
}

section! {
    /// A value that is given with a command.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Param {
        /// Its name, which is its key in the body.
        #[unset(required)]
        pub name: String,
        /// The regular expression that the whole value must match.
        #[unset(required)]
        pub pattern: Pattern,
        /// The value where none is given.
        #[unset(says "one must be given")]
        #[serde(default)]
        pub default: Option<String>,
        /// Its value is nobody's business: the audit, events, the log and answers have `***`. The
        /// master gets it, and what the master says to it is passed on as it is.
        #[unset("false")]
        #[serde(default)]
        pub secret: bool,
    }
}

fn timeout() -> Duration {
    Duration::from_secs(60)
}

fn max_bytes() -> usize {
    64 * 1024
}

impl Command {
    /// As the pure core has it.
    pub fn model(&self) -> commands::Command {
        let parameter = |param: &Param| Parameter {
            name: param.name.clone(),
            pattern: param.pattern.clone(),
            default: param.default.clone(),
            secret: param.secret,
        };
        commands::Command {
            name: self.name.clone(),
            path: self.path.clone(),
            method: self.method,
            body: self.body.clone(),
            parameters: self.params.iter().map(parameter).collect(),
            timeout: self.timeout,
            max_bytes: self.max_bytes,
        }
    }

    fn problems(&self, mut problem: impl FnMut(String)) {
        if !commands::is_name(&self.name) {
            problem("name: must be 1 to 64 letters, digits and . _ -".to_owned());
        }
        if self.timeout < SHORTEST || self.timeout > LONGEST {
            problem("timeout: must be at least 100ms and at most 10m".to_owned());
        }
        if !(1..=MOST_BYTES).contains(&self.max_bytes) {
            problem("max_bytes: must be at least 1 and at most \"1MiB\"".to_owned());
        }
        if self.params.len() > MOST_PARAMETERS {
            problem(format!("params: has more than {MOST_PARAMETERS}"));
        }
        for (at, Param { name, pattern, default, .. }) in self.params.iter().enumerate() {
            let mut problem = |text: String| problem(format!("params[{at}].{text}"));
            if !commands::is_name(name) {
                problem("name: must be 1 to 64 letters, digits and . _ -".to_owned());
            }
            if self.body.contains_key(name) {
                problem(format!("name: {name:?} is a key of the body already"));
            }
            if self.params[..at].iter().any(|other| other.name == *name) {
                problem(format!("name: there are two of the name {name}"));
            }
            if default.as_ref().is_some_and(|default| !pattern.matches(default)) {
                problem(format!(
                    "default: does not match the pattern as a whole, or has more than \
                        {LONGEST_VALUE} bytes"
                ));
            }
        }
    }
}

impl Commands {
    pub(super) fn resolve(&mut self, folder: &Path) {
        let files = [&mut self.secret_file, &mut self.ca, &mut self.cert, &mut self.key];
        files.into_iter().flatten().for_each(|path| *path = folder.join(&*path));
    }

    /// The gateway's URL. (Checked with the settings: it is one.)
    pub fn url(&self) -> Option<Url> {
        Url::parse(&self.gateway).ok()
    }

    /// The address of a gateway that is asked in the clear.
    pub(super) fn plain_address(&self) -> Option<SocketAddr> {
        self.gateway.strip_prefix("http://")?.trim_end_matches('/').parse().ok()
    }

    fn problems(&self, settings: &Settings, mut problem: impl FnMut(&str)) {
        let url = self.url().filter(|url| {
            let is_root = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
            let is_plain = url.username().is_empty() && url.password().is_none();
            is_root && is_plain && url.has_host() && matches!(url.scheme(), "http" | "https")
        });
        let is_plain = url.as_ref().is_some_and(|url| url.scheme() == "http");
        let address = self.plain_address().filter(|address| address.port() > 0);
        if url.is_none() {
            problem("gateway: is not a URL like \"http://127.0.0.1:8142\", without a path");
        } else if is_plain && !address.is_some_and(|address| address.ip().is_loopback()) {
            problem(
                "gateway: http:// is for an address of this host with its port, like \
                    127.0.0.1:8142; elsewhere the secret needs https://",
            );
        }
        match &self.backend {
            Some(_) if settings.haproxy.is_none() => {
                problem(
                    "backend: needs [haproxy]; without it give secret_file, and write the \
                    frontend yourself (haproxy/commands.cfg)",
                );
            }
            Some(_) if url.is_some() && !is_plain => {
                problem(
                    "backend: the frontend that Mapsmith writes has no TLS: give gateway as \
                    http://127.0.0.1:PORT",
                );
            }
            None if self.secret_file.is_none() => {
                problem("secret_file: is missing; without it give backend, and [haproxy]");
            }
            _ => {}
        }
        if self.cert.is_some() != self.key.is_some() {
            problem("cert: goes with key, and key with cert");
        }
        if is_plain && (self.ca.is_some() || self.cert.is_some()) {
            problem("ca: is for a gateway that begins with https://");
        }
        if settings.store.is_none() {
            problem("gateway: needs [store]: what is run is noted there before it is sent");
        }
    }
}

impl Settings {
    /// Where the secret of commands is.
    pub fn commands_secret(&self) -> Option<PathBuf> {
        let commands = self.commands.as_ref()?;
        let own = || Some(self.haproxy.as_ref()?.files().path().join(SECRET_FILE));
        commands.secret_file.clone().or_else(own)
    }

    /// Whether Mapsmith makes the secret.
    fn makes_secret(&self) -> bool {
        let makes = |commands: &Commands| commands.secret_file.is_none();
        self.commands.as_ref().is_some_and(makes)
    }

    /// Reads the secret. One that Mapsmith makes itself may not be there yet.
    pub(super) fn read_secret(&mut self, problems: &mut Vec<String>) {
        let (path, makes) = (self.commands_secret(), self.makes_secret());
        let (Some(commands), Some(path)) = (&mut self.commands, path) else { return };
        commands.secret = match secret_of(&path) {
            Ok(secret) => Some(secret),
            Err(NoSecret::Unread(error)) if makes && error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                problems.push(format!("commands.secret_file: {}: {error}", path.display()));
                None
            }
        };
    }

    /// What HAProxy does with commands; none where they are off.
    pub(super) fn commands_model(&self) -> Option<config::Commands> {
        let commands = self.commands.as_ref()?;
        let marks = |command: &Command| -> Vec<_> {
            command.path.marks().into_iter().flat_map(Text::try_from).collect()
        };
        let denied: BTreeSet<_> = self.command_list.iter().map(marks).collect();
        let longest = self.command_list.iter().map(|command| command.timeout).max();
        let gateway = commands.backend.clone().and_then(|backend| {
            Some(CommandGateway {
                bind: BindAddress::try_from(commands.plain_address()?.to_string()).ok()?,
                backend,
                map: FilePath::try_from(self.map.path.to_str()?.to_owned()).ok()?,
                secret_sha256: commands.sha256(),
                timeout: longest.unwrap_or(LONGEST) + LONGER,
            })
        });
        Some(config::Commands { denied: denied.into_iter().collect(), gateway })
    }
}

impl Commands {
    /// Of the secret; while there is none, what no secret has.
    fn sha256(&self) -> String {
        let hash = self.secret.as_ref().map(|it| secret::hash(it.reveal())).unwrap_or_default();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl SettingsFile {
    /// The same, once the secret of commands is there that Mapsmith makes itself.
    ///
    /// # Errors
    /// It can't be made, or the file can't be read again.
    pub fn with_secret(self) -> Result<Self, SettingsError> {
        let settings = &self.settings;
        let is_there = settings.commands.as_ref().is_none_or(|it| it.secret.is_some());
        let path = settings.commands_secret().filter(|_| settings.makes_secret() && !is_there);
        let Some(path) = path else { return Ok(self) };
        make_secret(&path).map_err(|error| SettingsError::Unreadable {
            path: path.display().to_string(),
            message: format!("the secret of [commands] can't be made: {error}"),
        })?;
        Self::read(self.path())?.with_objects(self.declared().objects.clone())
    }
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
enum NoSecret {
    #[error("can't be read: {0}")]
    Unread(#[from] io::Error),
    #[error("its mode is {0:o}, so others can read it; chmod 600 it")]
    Mode(u32),
    #[error("is not 16 to 256 printable characters of ASCII without spaces")]
    Form,
}

/// What a file holds that nobody else can read.
fn secret_of(path: &Path) -> Result<Secret, NoSecret> {
    let file = fs::File::open(path)?;
    let mode = file.metadata()?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(NoSecret::Mode(mode));
    }
    let mut text = String::new();
    file.take(*SECRET_LENGTH.end() as u64 + 2).read_to_string(&mut text)?;
    let text = text.trim_end();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    let secret = Text::try_from(text.to_owned()).ok();
    let secret = secret.filter(|_| is_plain && SECRET_LENGTH.contains(&text.len()));
    secret.map(Secret::new).ok_or(NoSecret::Form)
}

/// A new one. Where another has made it meanwhile, it is theirs.
fn make_secret(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let secret = secret::new_secret().map_err(io::Error::other)?;
    // Whole or not at all: whoever finds an empty file would have no secret for ever.
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(secret.as_bytes())?;
    file.sync_all()?;
    match fs::hard_link(&beside, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::remove_file(&beside)
}

pub(super) fn problems(settings: &Settings, problems: &mut Vec<String>) {
    if let Some(commands) = &settings.commands {
        commands.problems(settings, |text| problems.push(format!("commands.{text}")));
    }
    let list = &settings.command_list;
    if list.len() > MOST_COMMANDS {
        problems.push(format!("command: there are more than {MOST_COMMANDS}"));
    }
    for (index, command) in list.iter().enumerate() {
        command.problems(|text| problems.push(format!("command[{index}].{text}")));
        if list[..index].iter().any(|other| other.name == command.name) {
            problems.push(format!("command[{index}]: there are two of the name {}", command.name));
        }
    }
}

#[cfg(test)]
mod tests;
