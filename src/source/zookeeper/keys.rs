//! The keys of a ZooKeeper.

use std::path::PathBuf;
use std::time::Duration;

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
        Self { chroot: None, auth_file: None, session_timeout: Duration::from_secs(10) }
    }
}

impl ZooKeeperKeys {
    pub(crate) fn problems(&self, kind: SourceKind, mut problem: impl FnMut(String)) {
        if kind != SourceKind::Zookeeper {
            let given =
                [("chroot", self.chroot.is_some()), ("auth_file", self.auth_file.is_some())];
            for (key, _) in given.into_iter().filter(|(_, given)| *given) {
                problem(format!("{key}: a {kind} source has none"));
            }
            return;
        }
        if !SESSION_TIMEOUTS.contains(&self.session_timeout) {
            problem("session_timeout: must be 500ms to 10m".to_owned());
        }
        if let Some(Err(reason)) = self.chroot.as_deref().map(check_path) {
            problem(format!("chroot: {reason}"));
        }
    }
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
    fn paths_are_checked_before_anything_is_connected() {
        let keys = |chroot: &str| ZooKeeperKeys {
            chroot: Some(chroot.to_owned()),
            ..ZooKeeperKeys::default()
        };
        let good = keys("/a");
        assert_eq!(problems(&good), "");
        for (chroot, part) in [
            ("a", "chroot: \"a\" is not a path"),
            ("/a/", "chroot: \"/a/\""),
            ("/a//b", "chroot: \"/a//b\""),
            ("/a/../b", "a part of it is empty, . or .."),
            ("/a\n", "invisible character"),
        ] {
            let found = problems(&keys(chroot));
            assert!(found.contains(part), "{part:?} is not in {found:?}");
        }
        let hasty = ZooKeeperKeys { session_timeout: Duration::ZERO, ..good };
        assert!(problems(&hasty).contains("session_timeout"));
    }
}
