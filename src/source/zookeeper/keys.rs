//! The keys of a ZooKeeper.

use std::path::PathBuf;
use std::time::Duration;

use mapsmith_core::server::list::{Host, parse_address};

use crate::settings::keys::kind_keys;
use crate::settings::units::duration;
use crate::source::SourceKind;

/// The longest path, in bytes: it stands in messages.
const LONGEST_PATH: usize = 1024;
/// What a server takes for a session's length in its own settings, roughly.
const SESSION_TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(600);

kind_keys! {
    /// Keys of a ZooKeeper, of version 3.6 or later. With `ca` it is spoken to in TLS; certificates
    /// and password are read for each new session. A poll reads everything that is asked for; a
    /// watch starts one as soon as something of it changes.
    #[derive(Debug, Clone)]
    pub struct ZooKeeperKeys {
        /// The servers of the ensemble: `["zk1.example.com:2181", "[fe80::1]:2181"]`. One that
        /// answers is enough.
        #[unset(required)]
        pub servers: Vec<String>,
        /// The path below which all paths of this source are: `/site1`.
        #[unset(says "the root")]
        pub chroot: Option<String>,
        /// A file with `user:password`, for digest authentication. It is read for each new session,
        /// and after a refusal.
        pub auth_file: Option<PathBuf>,
        /// How long the servers keep the session of a client that is silent. 500ms to 10m; the
        /// servers may have bounds of their own.
        #[unset("10s")]
        #[serde(deserialize_with = "duration")]
        pub session_timeout: Duration,
    }
}

impl Default for ZooKeeperKeys {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            chroot: None,
            auth_file: None,
            session_timeout: Duration::from_secs(10),
        }
    }
}

impl ZooKeeperKeys {
    pub(crate) fn problems(&self, kind: SourceKind, mut problem: impl FnMut(String)) {
        if kind != SourceKind::Zookeeper {
            let given = [
                ("servers", !self.servers.is_empty()),
                ("chroot", self.chroot.is_some()),
                ("auth_file", self.auth_file.is_some()),
            ];
            for (key, _) in given.into_iter().filter(|(_, given)| *given) {
                problem(format!("{key}: a {kind} source has none"));
            }
            return;
        }
        if self.servers.is_empty() {
            problem("servers is missing".to_owned());
        }
        for server in &self.servers {
            if let Err(reason) = address(server) {
                problem(format!("servers: {reason}"));
            }
        }
        if !SESSION_TIMEOUTS.contains(&self.session_timeout) {
            problem("session_timeout: must be 500ms to 10m".to_owned());
        }
        if let Some(Err(reason)) = self.chroot.as_deref().map(check_path) {
            problem(format!("chroot: {reason}"));
        }
    }

    /// The servers as the client names them. (Checked with the settings: they are addresses.)
    pub(super) fn addresses(&self) -> Vec<String> {
        self.servers.iter().filter_map(|server| address(server).ok()).collect()
    }
}

/// `host:port`, an IPv6 address in brackets.
fn address(server: &str) -> Result<String, String> {
    let (host, port) = parse_address(server, None)?;
    Ok(match host {
        Host::Address(ip) => std::net::SocketAddr::new(ip, port).to_string(),
        // A final dot is right in DNS, and wrong in a certificate.
        Host::Name(name) => format!("{}:{port}", name.trim_end_matches('.')),
    })
}

/// What ZooKeeper takes for a path.
pub(in crate::source) fn check_path(path: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{path:?} is not a path of ZooKeeper's: {why}"));
    let Some(parts) = path.strip_prefix('/') else { return wrong("it must begin with /") };
    if path.len() > LONGEST_PATH {
        return wrong("it is too long");
    }
    if path.chars().any(mapsmith_core::names::is_invisible) {
        return wrong("it contains a control or invisible character");
    }
    let is_wrong = |part: &str| matches!(part, "" | "." | "..");
    if path != "/" && parts.split('/').any(is_wrong) {
        return wrong("a part of it is empty, . or ..");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(keys: &ZooKeeperKeys) -> String {
        let mut problems = Vec::new();
        keys.problems(SourceKind::Zookeeper, |problem| problems.push(problem));
        problems.join("; ")
    }

    #[test]
    fn servers_and_paths_are_checked_before_anything_is_connected() {
        let keys = |servers: &[&str], chroot: &str| ZooKeeperKeys {
            servers: servers.iter().map(|server| (*server).to_owned()).collect(),
            chroot: Some(chroot.to_owned()),
            ..ZooKeeperKeys::default()
        };
        let good = keys(&["zk1.Example.:2181", "[fe80::0:1]:2181", "10.0.0.1:1"], "/a");
        assert_eq!(problems(&good), "");
        assert_eq!(good.addresses(), ["zk1.example:2181", "[fe80::1]:2181", "10.0.0.1:1"]);
        for (servers, chroot, part) in [
            (&[][..], "/", "servers is missing"),
            (&["zk1"][..], "/", "servers: \"zk1\" has no port"),
            (&["zk1:2181,zk2:2181"][..], "/", "is not an address"),
            (&["zk1:2181/chroot"][..], "/", "is not an address"),
            (&["zk1:2181"][..], "a", "chroot: \"a\" is not a path"),
            (&["zk1:2181"][..], "/a/", "chroot: \"/a/\""),
            (&["zk1:2181"][..], "/a//b", "chroot: \"/a//b\""),
            (&["zk1:2181"][..], "/a/../b", "a part of it is empty, . or .."),
            (&["zk1:2181"][..], "/a\n", "invisible character"),
        ] {
            let found = problems(&keys(servers, chroot));
            assert!(found.contains(part), "{part:?} is not in {found:?}");
        }
        let hasty = ZooKeeperKeys { session_timeout: Duration::ZERO, ..good };
        assert!(problems(&hasty).contains("session_timeout"));
    }
}
