//! The keys of metadata.

use std::path::Path;
use std::time::Duration;

use crate::settings::keys::kind_keys;
use crate::settings::units::optional_duration;
use crate::source::{KeysOfKinds, SourceKind};

/// What the keys of a Triton load balancer begin with.
const PREFIX: &str = "cloud.tritoncompute:";
/// How often the metadata is read again.
const POLL: Duration = Duration::from_secs(3);
/// The most words of a command.
const MOST_WORDS: usize = 50;

kind_keys! {
    /// Keys of the metadata that declares a load balancer ([portmap.md](portmap.md)). It is in
    /// exactly one place: `command`, `path`, `url` or `environment`. `path` is a JSON or, where its
    /// name ends in `.toml`, TOML file, and `url` a JSON document, each an object with the keys. A
    /// file is watched.
    #[derive(Debug, Clone, Default)]
    pub struct MetadataKeys {
        /// The program that says a key's value, each word one text; the key is added as the last
        /// one: `["/usr/sbin/mdata-get"]`. It is started by its absolute path, without a shell. Its
        /// exit code is 0 where there is a value, 1 where there is no such key; any other is a
        /// failure, after which the last good metadata stays.
        pub command: Option<Vec<String>>,
        /// Whether each key is an environment variable of Mapsmith's process, in capital letters
        /// and with `_` for any other character: `CLOUD_TRITONCOMPUTE_PORTMAP`.
        #[unset("false")]
        pub environment: bool,
        /// What each key begins with. In a document it may be left out.
        #[unset(says "`cloud.tritoncompute:`")]
        pub prefix: Option<String>,
        /// The time between two reads of a `command` or a `url`, at least 1 second.
        #[unset(says "`3s`")]
        #[serde(deserialize_with = "optional_duration")]
        pub poll: Option<Duration>,
    }
}

impl MetadataKeys {
    pub(super) fn prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or(PREFIX)
    }

    pub(super) fn poll(&self) -> Duration {
        self.poll.unwrap_or(POLL)
    }

    pub(crate) fn problems(
        &self,
        kind: SourceKind,
        others: &KeysOfKinds,
        mut problem: impl FnMut(String),
    ) {
        if kind != SourceKind::Metadata {
            for (key, given) in [
                ("command", self.command.is_some()),
                ("environment", self.environment),
                ("prefix", self.prefix.is_some()),
            ] {
                if given {
                    problem(format!("{key}: a {kind} source has none"));
                }
            }
            if self.poll.is_some() {
                problem(format!("poll: a {kind} source has none; see schedule.poll"));
            }
            return;
        }
        let places = [
            self.command.is_some(),
            others.file.path.is_some(),
            others.http.url.is_some(),
            self.environment,
        ];
        if places.into_iter().filter(|given| *given).count() != 1 {
            problem("give exactly one of command, path, url and environment".to_owned());
        }
        if let Some(why) = self.command.as_deref().and_then(wrong_command) {
            problem(format!("command: {why}"));
        }
        if self.prefix().contains(|character: char| character.is_control()) {
            problem("prefix: has a control character".to_owned());
        }
        if self.poll.is_some_and(|poll| poll < Duration::from_secs(1)) {
            problem("poll: must be at least 1s".to_owned());
        }
    }
}

fn wrong_command(words: &[String]) -> Option<String> {
    let program = words.first().map(String::as_str).unwrap_or_default();
    if !Path::new(program).is_absolute() {
        return Some(format!("{program:?} is not an absolute path, like /usr/sbin/mdata-get"));
    }
    if words.len() > MOST_WORDS || words.iter().any(|word| word.contains('\0')) {
        return Some(format!("must be at most {MOST_WORDS} words, without zero bytes"));
    }
    None
}
