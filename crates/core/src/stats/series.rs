//! Which figures: of a backend or a server, of one instance or of all.

use std::fmt;
use std::str::FromStr;

use thiserror::Error as ThisError;

use crate::server::is_valid_name;

/// What stands for every name.
const ANY: &str = "*";

/// A backend or a server of one instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    pub backend: String,
    /// None for the backend itself.
    pub server: Option<String>,
}

impl fmt::Display for Series {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            None => write!(formatter, "backend/{}", self.backend),
            Some(server) => write!(formatter, "server/{}/{server}", self.backend),
        }
    }
}

/// A name, or every one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Name {
    Any,
    One(String),
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        match text {
            ANY => Some(Self::Any),
            name => is_valid_name(name).then(|| Self::One(name.to_owned())),
        }
    }

    fn is(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => one == name,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Any => ANY,
            Self::One(name) => name,
        })
    }
}

/// Series that somebody names: `backend/NAME`, `server/BACKEND/NAME`, with an instance and a `/`
/// before it or of all instances; the last name may be `*` for all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// None for every instance.
    pub instance: Option<String>,
    backend: Name,
    /// None for backends themselves.
    server: Option<Name>,
}

/// A text that names no series.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[error(
    "{0:?} names no series: write backend/NAME or server/BACKEND/NAME, with INSTANCE/ before it \
        for one instance alone; the last name may be *"
)]
pub struct SeriesError(String);

impl FromStr for Selector {
    type Err = SeriesError;

    fn from_str(text: &str) -> Result<Self, SeriesError> {
        let parts: Vec<_> = text.split('/').collect();
        let found = match parts[..] {
            ["backend", backend] => Self::of_backend(None, backend),
            ["server", backend, server] => Self::of_server(None, backend, server),
            [instance, "backend", backend] => Self::of_backend(Some(instance), backend),
            [instance, "server", backend, server] => {
                Self::of_server(Some(instance), backend, server)
            }
            _ => None,
        };
        // An error that shows a text of any length is none.
        found.ok_or_else(|| SeriesError(text.chars().take(80).collect()))
    }
}

impl Selector {
    fn of_backend(instance: Option<&str>, backend: &str) -> Option<Self> {
        let instance = instance.map(str::to_owned);
        Some(Self { instance, backend: Name::parse(backend)?, server: None })
    }

    fn of_server(instance: Option<&str>, backend: &str, server: &str) -> Option<Self> {
        let backend = is_valid_name(backend).then(|| Name::One(backend.to_owned()))?;
        let server = Some(Name::parse(server)?);
        Some(Self { instance: instance.map(str::to_owned), backend, server })
    }

    /// Whether series of this instance are among them.
    pub fn is_of(&self, instance: &str) -> bool {
        self.instance.as_deref().is_none_or(|of| of == instance)
    }

    /// Whether it is one of them, as far as an instance's own names go.
    pub fn is(&self, backend: &str, server: Option<&str>) -> bool {
        let is_server = match (&self.server, server) {
            (None, None) => true,
            (Some(wanted), Some(server)) => wanted.is(server),
            (None, Some(_)) | (Some(_), None) => false,
        };
        is_server && self.backend.is(backend)
    }

    /// Whether these are series of servers.
    pub fn is_of_servers(&self) -> bool {
        self.server.is_some()
    }

    /// The one backend whose rows have them all; none where these are rows of every backend.
    pub fn backend(&self) -> Option<&str> {
        match &self.backend {
            Name::Any => None,
            Name::One(backend) => Some(backend),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(instance) = &self.instance {
            write!(formatter, "{instance}/")?;
        }
        match &self.server {
            None => write!(formatter, "backend/{}", self.backend),
            Some(server) => write!(formatter, "server/{}/{server}", self.backend),
        }
    }
}
