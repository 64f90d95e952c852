//! `[[frontend]]`: where HAProxy listens, and what becomes of each request.

use mapsmith_core::config::values::{BindAddress, FilePath, Name};
use mapsmith_core::config::{self, Native};
use serde::Deserialize;

use super::keys::section;

mod rules;

pub use rules::Rule;

section! {
    /// A frontend of HAProxy, where Mapsmith writes its configuration.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Frontend {
        /// Its name in HAProxy: 1 to 255 letters, digits and `.` `_` `:` `-`.
        #[unset(required)]
        pub name: Name,
        /// Where it listens: addresses like `"127.0.0.1:8080"`, `":443"`, `"unix@/run/a.sock"`, or
        /// tables with `address` and what `frontend.bind` names.
        #[unset(required)]
        pub bind: Vec<BindEntry>,
        /// `http` or `tcp`.
        #[unset("http")]
        #[serde(default)]
        pub mode: Mode,
        /// Connections at a time.
        #[unset(says "HAProxy's")]
        pub maxconn: Option<u32>,
        /// Whether the client's address is passed on in `X-Forwarded-For`, in place of what it sent
        /// itself.
        #[unset("true")]
        #[serde(default = "yes")]
        pub forwarded_for: bool,
        /// What becomes of a request, in this order; `frontend.rules` names the keys.
        #[unset(says "none")]
        #[serde(default)]
        pub rules: Vec<Rule>,
        /// The backend of what no rule sends elsewhere.
        pub default_backend: Option<Name>,
        /// Lines of one's own.
        #[unset(says "none")]
        #[serde(default)]
        pub natives: Vec<Native>,
    }
}

fn yes() -> bool {
    true
}

/// What a frontend or backend reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    #[default]
    Http,
    Tcp,
}

impl From<Mode> for config::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Http => Self::Http,
            Mode::Tcp => Self::Tcp,
        }
    }
}

/// An address, or a table with more.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum BindEntry {
    Address(BindAddress),
    Table(Bind),
}

section! {
    /// Where a frontend listens, and by which protocol.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Bind {
        /// The address.
        #[unset(required)]
        pub address: BindAddress,
        /// The file or folder with certificates and their keys: TLS ends here then.
        pub certificate: Option<FilePath>,
        /// Protocols that are offered to TLS clients, the best first.
        #[unset(says "HAProxy's")]
        #[serde(default)]
        pub alpn: Vec<Name>,
        /// Whether whoever connects says by the PROXY protocol for whom.
        #[unset("false")]
        #[serde(default)]
        pub accept_proxy: bool,
    }
}

impl Frontend {
    /// As the pure core takes it.
    pub fn model(&self) -> config::Frontend {
        config::Frontend {
            name: self.name.clone(),
            mode: self.mode.into(),
            binds: self.bind.iter().map(BindEntry::model).collect(),
            maxconn: self.maxconn,
            forwarded_for: self.forwarded_for,
            rules: self.rules.iter().filter_map(|rule| rule.model().ok()).collect(),
            default_backend: self.default_backend.clone(),
            natives: self.natives.clone(),
        }
    }

    fn problems(&self, place: &str, problems: &mut Vec<String>) {
        for (index, rule) in self.rules.iter().enumerate() {
            if let Err(problem) = rule.model() {
                problems.push(format!("{place}.rules[{index}]: {problem}"));
            }
        }
    }
}

impl BindEntry {
    fn model(&self) -> config::Bind {
        match self {
            Self::Address(address) => {
                config::Bind { address: address.clone(), tls: None, accept_proxy: false }
            }
            Self::Table(bind) => config::Bind {
                address: bind.address.clone(),
                tls: bind
                    .certificate
                    .clone()
                    .map(|certificate| config::BindTls { certificate, alpn: bind.alpn.clone() }),
                accept_proxy: bind.accept_proxy,
            },
        }
    }
}

pub(super) fn problems(frontends: &[Frontend], problems: &mut Vec<String>) {
    for (index, frontend) in frontends.iter().enumerate() {
        frontend.problems(&format!("frontend[{index}]"), problems);
    }
}
