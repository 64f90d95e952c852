//! Grants: single things that somebody may do beside their role.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{commands, members, names};

/// The most grants of one token.
pub const MOST_GRANTS: usize = 32;
/// The longest prefix of registrations.
const LONGEST_PREFIX: usize = 255;

/// What its text names is compared as it is written: there are no wildcards.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Grant {
    /// `node:MASTER`: to register nodes of this master, and to end that.
    Node(String),
    /// `register:PREFIX`: to register members whose path begins so, and to end that.
    Register(String),
    /// `commands`: to run the commands that the settings name; `commands:NAME`: to run this one.
    /// No role has it.
    Commands(Option<String>),
}

/// Not a grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a grant; a grant is node:MASTER, register:PREFIX, commands or commands:NAME")]
pub struct NotAGrant(String);

/// A grant that no member's path can begin with, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("register:{0} covers no member: {1}")]
pub struct CoversNothing(String, String);

impl Grant {
    /// Whether nodes of this master may be registered.
    pub fn covers_master(&self, master: &str) -> bool {
        matches!(self, Self::Node(granted) if granted == master)
    }

    /// Whether this command may be run.
    pub fn covers_command(&self, name: &str) -> bool {
        match self {
            Self::Commands(only) => only.as_ref().is_none_or(|only| only == name),
            Self::Node(_) | Self::Register(_) => false,
        }
    }

    /// Whether a member of this path, like `web/1.0.0/10.0.0.3/8080`, may be registered.
    pub fn covers_registration(&self, path: &str) -> bool {
        // `web` is not meant to cover `website`.
        let rest =
            |prefix: &str| path.strip_prefix(prefix).map(|rest| (prefix.ends_with('/'), rest));
        match self {
            Self::Register(prefix) => rest(prefix)
                .is_some_and(|(closed, rest)| closed || rest.is_empty() || rest.starts_with('/')),
            _ => false,
        }
    }

    /// Whether there can be anything that it covers: one for members begins as their paths do.
    ///
    /// # Errors
    /// There can't, and why.
    pub fn check(&self) -> Result<(), CoversNothing> {
        let Self::Register(prefix) = self else { return Ok(()) };
        let nothing = |why: String| CoversNothing(prefix.clone(), why);
        let parts: Vec<_> = prefix.strip_suffix('/').unwrap_or(prefix).split('/').collect();
        let mut named = ["name", "version"].into_iter().zip(&parts);
        let checked = named.try_for_each(|(what, part)| members::check_name(what, part));
        checked.map_err(|error| nothing(error.to_string()))?;
        match parts.len() {
            1..=4 => Ok(()),
            _ => Err(nothing("a path is NAME/VERSION/HOST/PORT".to_owned())),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(master) => write!(out, "node:{master}"),
            Self::Register(prefix) => write!(out, "register:{prefix}"),
            Self::Commands(None) => out.write_str("commands"),
            Self::Commands(Some(name)) => write!(out, "commands:{name}"),
        }
    }
}

impl FromStr for Grant {
    type Err = NotAGrant;

    fn from_str(text: &str) -> Result<Self, NotAGrant> {
        let prefix_is_valid = |prefix: &str| {
            (1..=LONGEST_PREFIX).contains(&prefix.len())
                && !prefix.starts_with('/')
                && prefix.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
        };
        match text.split_once(':') {
            None if text == "commands" => Ok(Self::Commands(None)),
            Some(("commands", name)) if commands::is_name(name) => {
                Ok(Self::Commands(Some(name.to_owned())))
            }
            Some(("node", master)) if names::check_value(master).is_ok() => {
                Ok(Self::Node(master.to_owned()))
            }
            Some(("register", prefix)) if prefix_is_valid(prefix) => {
                Ok(Self::Register(prefix.to_owned()))
            }
            _ => Err(NotAGrant(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Grant {
    type Error = NotAGrant;

    fn try_from(text: String) -> Result<Self, NotAGrant> {
        text.parse()
    }
}

impl From<Grant> for String {
    fn from(grant: Grant) -> Self {
        grant.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(text: &str) -> Grant {
        text.parse().unwrap()
    }

    #[test]
    fn a_grant_reads_as_it_is_written() {
        for text in [
            "node:master1",
            "register:web/",
            "register:web/1.0.0",
            "commands",
            "commands:puppet-run",
        ] {
            assert_eq!(grant(text).to_string(), text);
        }
        for wrong in [
            "",
            "node",
            "node:",
            "node:a b",
            "register:",
            "register:/web",
            "register:a b",
            "Commands",
            "commands:",
            "commands:a b",
        ] {
            let error = wrong.parse::<Grant>().unwrap_err().to_string();
            assert!(error.contains("node:MASTER"), "{error}");
        }
        assert!(format!("register:{}", "x".repeat(LONGEST_PREFIX + 1)).parse::<Grant>().is_err());
    }

    #[test]
    fn a_grant_covers_what_it_names_and_nothing_beside() {
        assert!(grant("node:m1").covers_master("m1"));
        for other in ["m10", "M1", "", "m"] {
            assert!(!grant("node:m1").covers_master(other), "{other}");
        }
        for within in ["web", "web/1.0.0/10.0.0.3/8080"] {
            assert!(grant("register:web").covers_registration(within), "{within}");
        }
        for outside in ["website/1", "we", "", "api/web"] {
            assert!(!grant("register:web").covers_registration(outside), "{outside}");
        }
        assert!(grant("register:web/").covers_registration("web/1"));
        assert!(!grant("commands").covers_registration("commands"));
        assert!(grant("commands").covers_command("run"));
        assert!(grant("commands:run").covers_command("run"));
        for other in ["runs", "ru", "", "RUN"] {
            assert!(!grant("commands:run").covers_command(other), "{other}");
        }
        assert!(!grant("node:run").covers_command("run"));
        assert!(!grant("register:m1").covers_master("m1"));
    }
}
