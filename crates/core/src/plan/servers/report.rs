//! What a plan says beside its steps.

use std::fmt;
use std::time::Duration;

use haproxy_runtime::{HaproxyVersion, Refusal};

use super::ADDS_BACKENDS;
use crate::server::shown::shown_words;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removing {
    pub backend: String,
    /// The server, or the slot.
    pub server: String,
    pub phase: Phase,
    pub sessions: u64,
    pub queued: u64,
    /// Since when it is known to be on its way out.
    pub age: Duration,
}

impl fmt::Display for Removing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backend, server, phase, sessions, queued, age } = self;
        write!(
            out,
            "{backend}/{server}: {phase}; {sessions} sessions, {queued} queued, for {} s",
            age.as_secs()
        )
    }
}

/// How far a removal is: this plan's step, or what is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Waiting,
    Routed,
    Draining,
    ShuttingDown,
    Maintenance,
    Deleting,
}

impl fmt::Display for Phase {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Waiting => "waiting: no desired server of the backend is ready and running",
            Self::Routed => "waiting: the map still routes nodes to it",
            Self::Draining => "draining",
            Self::ShuttingDown => "shutting its sessions down",
            Self::Maintenance => "in maintenance",
            Self::Deleting => "being deleted",
        })
    }
}

/// Something that no runtime command can bring about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeedsReload {
    pub backend: String,
    /// The server, by HAProxy's name where it has it; none for the whole backend.
    pub server: Option<String>,
    pub cause: Cause,
}

impl fmt::Display for NeedsReload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            Some(server) => write!(out, "{}/{server}: {}", self.backend, self.cause),
            None => write!(out, "{}: {}", self.backend, self.cause),
        }
    }
}

/// Why a reload is needed, and what to change before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    BackendAbsent {
        version: HaproxyVersion,
    },
    /// A static algorithm takes neither servers nor weights at runtime. Named as in `show stat`,
    /// where it is known.
    StaticAlgorithm {
        algorithm: Option<String>,
    },
    OptionNotTaken {
        text: String,
    },
    NoFreeSlot {
        prefix: String,
        because: Box<Cause>,
    },
    Backup {
        wanted: bool,
    },
    Maxqueue {
        wanted: u32,
    },
    Check,
    /// Those of [`ServerOptions::other`](crate::server::ServerOptions), as people see them.
    Options {
        wanted: String,
    },
    ResolvedByName {
        fqdn: String,
    },
    /// The server is to go, but the configuration refers to it (`use-server`, `track`, a name to
    /// resolve); it stays in maintenance.
    Referenced,
    Refused {
        text: String,
    },
}

impl Cause {
    /// The cause in a refusal, with the backend's algorithm where it is known.
    pub(super) fn from_refusal(refusal: &Refusal, algorithm: Option<&str>) -> Self {
        match refusal {
            Refusal::StaticAlgorithm => {
                Self::StaticAlgorithm { algorithm: algorithm.map(str::to_owned) }
            }
            Refusal::OptionNotTaken(text) => {
                Self::OptionNotTaken { text: shown_words(text.clone()) }
            }
            Refusal::Referenced => Self::Referenced,
            other => Self::Refused { text: shown_words(other.to_string()) },
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BackendAbsent { version } if *version < ADDS_BACKENDS => {
                write!(
                    out,
                    "the backend is missing and HAProxy {version} can't add one (3.4 and later \
                        can): write it into the configuration"
                )
            }
            Self::BackendAbsent { .. } => {
                write!(
                    out,
                    "the backend is missing: name the `defaults` to make it from, or write it \
                        into the configuration"
                )
            }
            Self::StaticAlgorithm { algorithm } => {
                let algorithm = algorithm.as_deref().unwrap_or("of this backend");
                write!(
                    out,
                    "`balance {algorithm}` is static here: use roundrobin, leastconn, random or \
                        `hash-type consistent`"
                )
            }
            Self::OptionNotTaken { text } => {
                write!(
                    out,
                    "an option is not accepted at runtime ({text}): write the server into the \
                        configuration"
                )
            }
            Self::NoFreeSlot { prefix, because } => {
                write!(
                    out,
                    "{because}; and no slot of `server-template {prefix}` is free: add slots to it"
                )
            }
            Self::Backup { wanted: true } => write!(out, "it is not a `backup`, and should be one"),
            Self::Backup { wanted: false } => {
                write!(out, "it is a `backup`, and should not be one")
            }
            Self::Maxqueue { wanted } => {
                write!(out, "`maxqueue` should be {wanted}, and can't be changed at runtime")
            }
            Self::Check => write!(out, "it should have a `check`, and none is configured"),
            Self::Options { wanted } if wanted.is_empty() => {
                write!(out, "it has options that it should not have any more")
            }
            Self::Options { wanted } => {
                write!(out, "its options should be `{wanted}`, and can't be changed at runtime")
            }
            Self::ResolvedByName { fqdn } => {
                write!(
                    out,
                    "its address should be different, but HAProxy resolves {fqdn} by itself: write \
                        the address out"
                )
            }
            Self::Referenced => {
                write!(out, "it should go, but is still in the configuration, which refers to it")
            }
            Self::Refused { text } => write!(out, "{text}"),
        }
    }
}

/// A desired server that somebody else keeps out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalChange {
    pub backend: String,
    /// The server, or the slot that serves it.
    pub server: String,
    pub hand: Hand,
}

impl fmt::Display for ExternalChange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}: {} outside Mapsmith", self.backend, self.server, self.hand)
    }
}

/// A desired server that was made ready and whose check has yet to pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwaitsCheck {
    pub backend: String,
    /// The server, or the slot that serves it.
    pub server: String,
    /// No other desired server of the backend is up: what is sent to the backend meanwhile has
    /// nowhere to go.
    pub alone: bool,
}

impl fmt::Display for AwaitsCheck {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}: waiting for its health check to pass", self.backend, self.server)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByAgent {
    pub backend: String,
    /// The server, or the slot that serves it.
    pub server: String,
    pub weight: u16,
    pub listed: u16,
}

impl fmt::Display for ByAgent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backend, server, weight, listed } = self;
        write!(out, "{backend}/{server}: weight {weight} by its agent, {listed} is listed")
    }
}

/// What somebody did to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hand {
    /// `disable server`, `set server state maint`, or `disabled` in the configuration.
    Maintenance,
    /// `set server state drain`, or an agent.
    Drain,
}

impl fmt::Display for Hand {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Maintenance => "maintenance",
            Self::Drain => "drain",
        })
    }
}
