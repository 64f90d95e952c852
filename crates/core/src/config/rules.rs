//! Rules: what a frontend does with which request, in order.

use serde::Serialize;

use super::values::{ErrorStatus, FilePath, HeaderName, Method, Name, Network, Status, Text};

/// A rule of a frontend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    pub condition: Condition,
    pub action: Action,
}

/// What must match: all of `all`, nothing of `none`, and all matchers of at least one group of
/// `any`. A condition without matchers is always true.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Condition {
    pub all: Vec<Matcher>,
    pub none: Vec<Matcher>,
    pub any: Vec<Vec<Matcher>>,
}

/// Matches a request whose part is one of the values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Matcher {
    Path(How, Vec<Text>),
    /// The path with its query.
    Url(How, Vec<Text>),
    /// A header. Upper and lower case are the same.
    Header(HeaderName, HeaderHow, Vec<Text>),
    /// The requested host without its port. Upper and lower case are the same.
    Host(Vec<Text>),
    Method(Vec<Method>),
    /// The client's address.
    Source(Vec<Network>),
    /// The host name in the TLS handshake.
    Sni(Vec<Text>),
    /// A map file has the part as a key.
    Map(MapKey, FilePath),
}

impl Matcher {
    /// Whether it has no values, and so never matches.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Path(_, values)
            | Self::Url(_, values)
            | Self::Header(_, _, values)
            | Self::Host(values)
            | Self::Sni(values) => values.is_empty(),
            Self::Method(values) => values.is_empty(),
            Self::Source(values) => values.is_empty(),
            Self::Map(..) => false,
        }
    }
}

/// How a path or URL is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    Exact,
    Begins,
    Ends,
    Regex,
}

/// How a header's value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderHow {
    Exact,
    Begins,
    /// Whole labels of a domain name: `example.com` in `www.example.com`.
    Domain,
    Regex,
}

/// What is looked up in a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MapKey {
    Path,
    Host,
    Source,
    Header(HeaderName),
}

/// What is done with a request that matches. `Deny`, `Return` and `Redirect` answer it; the first
/// `Backend` decides where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Backend(Name),
    Redirect {
        to: Redirect,
        status: RedirectStatus,
    },
    Deny(ErrorStatus),
    Return {
        status: Status,
        content_type: Option<Text>,
        body: Option<Text>,
    },
    SetHeader(HeaderName, Text),
    DelHeader(HeaderName),
    SetPath(Text),
    /// A regular expression, and the replacement of what it matches (`\1` is its first group).
    ReplacePath(Text, Text),
}

impl Rule {
    /// Whether no later rule is ever reached: it answers every request itself.
    pub fn answers_all(&self) -> bool {
        let is_final = match &self.action {
            Action::Redirect { to, .. } => *to != Redirect::Https,
            Action::Deny(_) | Action::Return { .. } => true,
            _ => false,
        };
        is_final && self.condition == Condition::default()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Redirect {
    /// To this URL.
    Location(Text),
    /// To the requested path, appended to this.
    Prefix(Text),
    /// To the same URL by HTTPS.
    Https,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RedirectStatus {
    Moved,
    #[default]
    Found,
    SeeOther,
    Temporary,
    Permanent,
}

impl RedirectStatus {
    pub fn code(self) -> u16 {
        match self {
            Self::Moved => 301,
            Self::Found => 302,
            Self::SeeOther => 303,
            Self::Temporary => 307,
            Self::Permanent => 308,
        }
    }
}

impl Action {
    /// Whether it changes what later rules match.
    pub fn rewrites(&self) -> bool {
        match self {
            Self::SetHeader(..) | Self::DelHeader(_) | Self::SetPath(_) | Self::ReplacePath(..) => {
                true
            }
            Self::Backend(_) | Self::Redirect { .. } | Self::Deny(_) | Self::Return { .. } => false,
        }
    }
}
