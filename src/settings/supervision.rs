//! What `[haproxy]` says of who runs HAProxy, and how it is reloaded.

use std::path::{Path, PathBuf};
use std::time::Duration;

use haproxy_runtime::RuntimeAddress;
use mapsmith_core::config::values::FilePath;
use serde::Deserialize;

use super::Haproxy;

/// Where a managed HAProxy's files are unless the settings say.
const FOLDER: &str = "/var/lib/mapsmith/haproxy";
/// The longest folder in bytes. HAProxy binds a socket under a name of 11 bytes more than its own,
/// and Linux has room for 107.
const LONGEST_FOLDER: usize = 80;
/// The least time between two reloads unless the settings say.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// How many old workers there may be before a reload unless the settings say.
const MAX_OLD_WORKERS: u16 = 8;
/// The most that the settings may say.
const MOST_OLD_WORKERS: u16 = 1000;
/// HAProxy's program where the settings name none.
const BINARY: &str = "haproxy";

/// Who runs HAProxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Managed {
    /// Somebody else, and what is rendered is theirs to load.
    #[default]
    No,
    /// Mapsmith.
    Yes,
    /// Another supervisor on this host; Mapsmith writes the configuration and asks for reloads.
    Attached,
}

impl TryFrom<String> for Managed {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "true" => Ok(Self::Yes),
            "false" => Ok(Self::No),
            "attached" => Ok(Self::Attached),
            _ => Err(format!("{text:?} is neither true, false nor \"attached\"")),
        }
    }
}

/// The files of a managed HAProxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// With its files in this folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn configuration(&self) -> PathBuf {
        self.0.join("haproxy.cfg")
    }

    pub fn pid(&self) -> PathBuf {
        self.0.join("haproxy.pid")
    }

    pub fn master_socket(&self) -> PathBuf {
        self.0.join("master.sock")
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.0.join("admin.sock")
    }

    /// The node map.
    pub fn map(&self) -> PathBuf {
        self.0.join("node-master.map")
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("haproxy.log")
    }

    /// Whoever starts, stops or reloads it locks this.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// The Mapsmith that runs it, or writes its configuration, locks this.
    pub fn owner(&self) -> PathBuf {
        self.0.join("mapsmith.lock")
    }

    /// Is there where HAProxy was stopped on purpose.
    pub fn stopped(&self) -> PathBuf {
        self.0.join("stopped")
    }

    /// Is there while the newest configuration is refused, and says why.
    pub fn refused(&self) -> PathBuf {
        self.0.join("refused")
    }

    /// Is there while HAProxy is ended in order to be started again.
    pub fn restarting(&self) -> PathBuf {
        self.0.join("restarting")
    }

    /// What a worker that takes over reads of its servers.
    pub fn server_states(&self) -> PathBuf {
        self.0.join("servers.state")
    }

    /// The certificates that Mapsmith gets itself.
    pub fn certificates(&self) -> PathBuf {
        self.0.join("certificates")
    }

    /// What it answers to a certificate authority.
    pub fn challenges(&self) -> PathBuf {
        self.0.join("challenges.map")
    }

    /// The sockets that are held for it.
    pub fn sockets(&self) -> PathBuf {
        self.0.join("sockets")
    }
}

impl Haproxy {
    /// Whether Mapsmith writes the configuration of a process, its own or another's.
    pub fn is_supervised(&self) -> bool {
        self.managed != Managed::No
    }

    /// The Runtime API of that process.
    pub fn runtime(&self) -> Option<RuntimeAddress> {
        let socket = self.socket.clone().or_else(|| own_socket(self))?;
        Some(RuntimeAddress::Unix(PathBuf::from(socket.as_str())))
    }

    /// The file that it loads.
    pub fn configuration(&self) -> PathBuf {
        match (&self.config, self.managed) {
            (Some(config), Managed::Attached) => PathBuf::from(config.as_str()),
            _ => self.files().configuration(),
        }
    }

    /// The master's socket, where there is one that is known.
    pub fn master_socket(&self) -> Option<PathBuf> {
        match self.managed {
            Managed::Yes => Some(self.files().master_socket()),
            _ => self.master_socket.as_ref().map(|socket| PathBuf::from(socket.as_str())),
        }
    }

    /// What reloads it, where that is a command: the program and its arguments.
    pub fn reload_command(&self) -> Option<Vec<String>> {
        let words: Vec<_> = self.reload_command.iter().cloned().map(String::from).collect();
        (!words.is_empty()).then_some(words)
    }

    /// HAProxy's program.
    pub fn program(&self) -> &str {
        self.binary.as_ref().map_or(BINARY, |binary| binary.as_str())
    }

    /// Where a managed HAProxy's files are.
    pub fn files(&self) -> Folder {
        Folder::new(self.folder.as_ref().map_or(FOLDER, |folder| folder.as_str()))
    }

    /// The least time between two reloads.
    pub fn reload_interval(&self) -> Duration {
        self.reload_interval.unwrap_or(RELOAD_INTERVAL)
    }

    /// How many old workers there may be before a reload.
    pub fn max_old_workers(&self) -> usize {
        usize::from(self.max_old_workers.unwrap_or(MAX_OLD_WORKERS))
    }
}

/// The Runtime API's socket of a managed HAProxy, unless the settings name one.
pub(super) fn own_socket(haproxy: &Haproxy) -> Option<FilePath> {
    let socket = haproxy.files().admin_socket().into_os_string().into_string().ok()?;
    (haproxy.managed == Managed::Yes).then(|| FilePath::try_from(socket).ok()).flatten()
}

pub(super) fn problems(haproxy: &Haproxy, problems: &mut Vec<String>) {
    let given = [
        ("config", haproxy.config.is_some(), Managed::Attached),
        ("master_socket", haproxy.master_socket.is_some(), Managed::Attached),
        ("reload_command", !haproxy.reload_command.is_empty(), Managed::Attached),
        ("hold_sockets", haproxy.hold_sockets, Managed::Yes),
    ];
    for (key, is_given, of) in given {
        if is_given && haproxy.managed != of {
            let needed = if of == Managed::Yes { "true" } else { "\"attached\"" };
            problems.push(format!("haproxy.{key}: is for managed = {needed} only"));
        }
    }
    if haproxy.managed == Managed::Attached {
        if haproxy.config.is_none() {
            problems.push(
                "haproxy.config: is missing; with managed = \"attached\" it is the file that \
                    HAProxy loads, like /etc/haproxy/haproxy.cfg"
                    .to_owned(),
            );
        }
        if haproxy.master_socket.is_none() && haproxy.reload_command.is_empty() {
            problems.push(
                "haproxy.master_socket: is missing, and so is reload_command; with managed = \
                    \"attached\" one of them says how HAProxy is reloaded"
                    .to_owned(),
            );
        }
    }
    if haproxy.folder.as_ref().is_some_and(|folder| folder.as_str().len() > LONGEST_FOLDER) {
        problems.push(format!(
            "haproxy.folder: is longer than {LONGEST_FOLDER} bytes, too long for the sockets in it"
        ));
    }
    if haproxy.max_old_workers.is_some_and(|most| !(1..=MOST_OLD_WORKERS).contains(&most)) {
        problems.push(format!("haproxy.max_old_workers: must be 1 to {MOST_OLD_WORKERS}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::{SMALL, load};

    fn haproxy(text: &str) -> Result<Haproxy, String> {
        let listening = "[haproxy.metrics]\nbind = \"127.0.0.1:8405\"";
        load(&format!("{SMALL}[haproxy]\n{text}\n{listening}\n"), &[])
            .map(|settings| settings.haproxy.expect("it is in the text"))
    }

    #[test]
    fn a_managed_haproxy_has_its_files_in_one_folder() {
        let given = haproxy("managed = true\nfolder = \"/srv/haproxy\"").unwrap();
        assert_eq!(given.managed, Managed::Yes);
        assert_eq!(given.files().master_socket(), Path::new("/srv/haproxy/master.sock"));
        let socket = given.model().socket.map(String::from);
        assert_eq!(socket.as_deref(), Some("/srv/haproxy/admin.sock"));
        let unset = haproxy("managed = true").unwrap();
        assert_eq!(unset.files().path(), Path::new(FOLDER));
        assert_eq!((unset.reload_interval(), unset.max_old_workers()), (RELOAD_INTERVAL, 8));
    }

    #[test]
    fn an_attached_haproxy_is_reloaded_by_its_master_socket_or_by_a_command() {
        for how in
            ["master_socket = \"/run/m.sock\"", "reload_command = [\"systemctl\", \"reload\"]"]
        {
            let text = format!("managed = \"attached\"\nconfig = \"/etc/haproxy/h.cfg\"\n{how}");
            assert_eq!(haproxy(&text).unwrap().managed, Managed::Attached, "{how}");
        }
        let message = haproxy("managed = \"attached\"").unwrap_err();
        for key in ["line 11: haproxy.config: is missing", "haproxy.master_socket: is missing"] {
            assert!(message.contains(key), "{message}");
        }
    }

    #[test]
    fn what_belongs_to_another_way_of_running_haproxy_is_refused() {
        for (text, told) in [
            ("managed = true\nconfig = \"/c\"", "haproxy.config: is for managed = \"attached\""),
            ("managed = true\nreload_command = [\"x\"]", "haproxy.reload_command: is for managed"),
            ("hold_sockets = true", "haproxy.hold_sockets: is for managed = true only"),
            ("managed = \"maybe\"", "\"maybe\" is neither true, false nor \"attached\""),
            ("max_old_workers = 0", "haproxy.max_old_workers: must be 1 to 1000"),
        ] {
            let message = haproxy(text).unwrap_err();
            assert!(message.contains(told), "{told:?} is not in: {message}");
        }
        let long = format!("managed = true\nfolder = \"/{}\"", "f".repeat(80));
        assert!(haproxy(&long).unwrap_err().contains("haproxy.folder: is longer than 80 bytes"));
    }
}
