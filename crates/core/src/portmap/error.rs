//! Why a piece of a portmap is no service, and what would be one.

use serde::{Serialize, Serializer};

use super::{BackendName, MAX_SERVICES, MAX_TEXT, Port};

/// What is wrong with a piece. It says what to write instead; the place is the caller's to tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortmapError {
    #[error("missing '://': write TYPE://PORT:NAME, like http://80:web.example.com:8080")]
    NoType,
    #[error(
        "unsupported protocol: {0}; write one of http, https, https+insecure, https-http, tcp \
            and tcp-proxy-v2"
    )]
    Type(String),
    #[error("expecting at least <listen port>:<backend name>, like http://80:web.example.com")]
    NoBackend,
    #[error("invalid {0} port: {1}; write a number from 1 to 65534 in plain digits")]
    Port(&'static str, String),
    #[error("{0} port out of valid range (1-65534): {1}; take another one")]
    PortRange(&'static str, String),
    #[error("empty backend name: write the DNS name of the servers after the listen port")]
    EmptyName,
    #[error(
        "invalid character {0:?} in the backend name: a DNS name has letters, digits, '-', '_' \
            and '.'; others stand in their xn-- form"
    )]
    NameCharacter(char),
    #[error(
        "invalid backend name: {0}; a DNS name is 1 to 63 characters between dots, 253 at most"
    )]
    NameLength(String),
    #[error(
        "invalid backend name: {0}; its last part is a number, so it is neither a DNS name nor an \
            IPv4 address"
    )]
    NameNumber(String),
    #[error("an IPv6 address can't be a backend name; give the servers a DNS name")]
    Ipv6,
    #[error("an address has no SRV records: write its port, like {0}:8080")]
    AddressWithoutPort(BackendName),
    #[error(
        "{0}: no host's name that a certificate could have; write the servers' DNS name, or the \
            type https+insecure, which does not verify it"
    )]
    NothingToVerify(BackendName),
    #[error("unclosed brace: add the '}}' after the last health check parameter")]
    Unclosed,
    #[error(
        "a brace within braces: write one '{{' before the first health check parameter, and %7B \
            in a path"
    )]
    Doubled,
    #[error("text after the closing brace: {0}; end the service there, with a comma or a space")]
    AfterBrace(String),
    #[error(
        "invalid health check parameter format: {0}; write KEY:VALUE, with one of the keys check, \
            port, rise and fall"
    )]
    Parameter(String),
    #[error(
        "unknown health check parameter: {0}; write one of check, port, rise and fall, in small \
            letters"
    )]
    Key(String),
    #[error("health check parameter {0} is given twice; keep one")]
    Twice(&'static str),
    #[error("health check endpoint cannot be empty: write a path, like check:/healthz")]
    EmptyPath,
    #[error("invalid health check endpoint: {0}; a path begins with '/'")]
    PathStart(String),
    #[error(
        "invalid character {0:?} in the health check endpoint: write it as % and two hexadecimal \
            digits, as in a URL"
    )]
    PathCharacter(char),
    #[error("the health check endpoint is longer than 1000 characters; take a shorter path")]
    PathLength,
    #[error("invalid {0} value: {1}; write a number from 1 to 65535 in plain digits")]
    Count(&'static str, String),
    #[error("port {port} is taken: {by} comes first and listens there; take another port")]
    PortTaken { port: Port, by: String },
    #[error("there are {MAX_SERVICES} services before it, the most that one portmap can have")]
    TooManyServices,
    #[error("too many pieces: what follows is not read; shorten the portmap")]
    TooManyPieces,
    #[error("the text is longer than {MAX_TEXT} bytes and is not read; shorten it")]
    TooLong,
}

impl Serialize for PortmapError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
