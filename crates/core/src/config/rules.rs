//! What a frontend does with a request: an ordered list of rules, each with what must match and
//! what is done then.

use super::values::{FilePath, HeaderName, Method, Name, Network, Status, Text};

/// A rule of a frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub condition: Condition,
    pub action: Action,
}

/// What must match: everything in `all`, nothing in `none`, and of `any` one group as a whole.
/// Without any matcher it is every request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    pub all: Vec<Matcher>,
    pub none: Vec<Matcher>,
    pub any: Vec<Vec<Matcher>>,
}

/// Matches where what it looks at is one of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matcher {
    Path(How, Vec<Text>),
    /// The path with its query.
    Url(How, Vec<Text>),
    /// A header, whatever the case of its value.
    Header(HeaderName, HeaderHow, Vec<Text>),
    /// The host that the request names, without its port, whatever its case.
    Host(Vec<Text>),
    Method(Vec<Method>),
    /// The client's address.
    Source(Vec<Network>),
    /// The name that a client asks for by TLS.
    Sni(Vec<Text>),
    /// Whether a map file has what is looked at as a key.
    Map(MapKey, FilePath),
}

/// How a path or URL is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Exact,
    Begins,
    Ends,
    Regex,
}

/// How a header's value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderHow {
    Exact,
    Begins,
    /// As labels of a domain: `example.com` in `www.example.com`.
    Domain,
    Regex,
}

/// What is looked up in a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapKey {
    Path,
    Host,
    Source,
    Header(HeaderName),
}

/// What is done with a request that matches. `Deny`, `Return` and `Redirect` end it; the first
/// `Backend` says where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Backend(Name),
    Redirect {
        to: Redirect,
        status: RedirectStatus,
    },
    Deny(Status),
    Return {
        status: Status,
        content_type: Option<Text>,
        body: Option<Text>,
    },
    SetHeader(HeaderName, Text),
    DelHeader(HeaderName),
    SetPath(Text),
    /// A regular expression, and what stands for what it found (`\1` for its first group).
    ReplacePath(Text, Text),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// To this address, whatever was asked for.
    Location(Text),
    /// To the same path there.
    Prefix(Text),
    /// To the same address by HTTPS.
    Https,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
    /// Whether it changes what later matchers look at.
    pub fn rewrites(&self) -> bool {
        match self {
            Self::SetHeader(..) | Self::DelHeader(_) | Self::SetPath(_) | Self::ReplacePath(..) => {
                true
            }
            Self::Backend(_) | Self::Redirect { .. } | Self::Deny(_) | Self::Return { .. } => false,
        }
    }
}
