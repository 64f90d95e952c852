//! Frontends: where HAProxy listens, and where each request goes.

use serde::{Deserialize, Serialize};

use super::Native;
use super::rules::Rule;
use super::values::{Alpn, BindAddress, ErrorStatus, FilePath, HeaderName, Name, Text};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    #[default]
    Http,
    Tcp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Frontend {
    pub name: Name,
    pub mode: Mode,
    pub binds: Vec<Bind>,
    pub maxconn: Option<u32>,
    pub keep_alive: KeepAlive,
    /// Whether the client's address is passed on as `X-Forwarded-For`, in place of what the client
    /// sent.
    pub forwarded_for: bool,
    /// The node map decides where requests go that no rule sends elsewhere.
    pub route: Option<Route>,
    pub rules: Vec<Rule>,
    /// Where requests go that no rule sends elsewhere.
    pub default_backend: Option<Name>,
    pub natives: Vec<Native>,
}

/// Which connections are kept open for further requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepAlive {
    #[default]
    Both,
    /// The client's; the server's is closed after each answer.
    Client,
    None,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bind {
    pub address: BindAddress,
    pub tls: Option<BindTls>,
    /// Whether connections begin with a PROXY protocol header.
    pub accept_proxy: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BindTls {
    /// Files or folders of certificates. The first certificate is the default.
    pub certificates: Vec<FilePath>,
    /// Protocols that are offered, the preferred one first.
    pub alpn: Vec<Alpn>,
    /// Whether clients are refused that ask for a name which no certificate has, or for none.
    pub strict_sni: bool,
    /// HAProxy's own choice where there is none.
    pub min_version: Option<TlsVersion>,
    pub clients: Option<ClientCertificates>,
}

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

/// Certificates that clients show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientCertificates {
    /// The CA that signs them.
    pub ca: FilePath,
    pub crl: Option<FilePath>,
    pub verify: Verify,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    #[default]
    Required,
    /// A client may come without one; an invalid one is refused.
    Optional,
}

/// Routing by the node map: the node that a request names, the map's master of it, that master's
/// server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    pub by: RouteBy,
    /// The map file, as the Runtime API names it.
    pub map: FilePath,
    /// The backend with all masters as servers; none where each master is a backend.
    pub backend: Option<Name>,
    /// The status with which a master refuses nodes of others: such a request is repeated on
    /// another master, and the one that answers is remembered (a learned route).
    pub misdirected: Option<ErrorStatus>,
    /// What paths begin with that belong to no node: they are neither repeated nor learned from.
    pub shared: Vec<Text>,
    /// What paths begin with that are open to clients without a certificate.
    pub open: Vec<Text>,
}

/// What names the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteBy {
    Header(HeaderName),
    /// The common name of the client's certificate. The master is told who the client is in
    /// `X-Client-Verify`, `X-Client-DN` and `X-Client-Cert`.
    ClientCertificate,
}
