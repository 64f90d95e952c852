//! Frontends: where HAProxy listens, and where each request goes.

use super::Native;
use super::rules::Rule;
use super::values::{Alpn, BindAddress, ErrorStatus, FilePath, HeaderName, Name, Text};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Http,
    Tcp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeepAlive {
    #[default]
    Both,
    /// The client's; the server's is closed after each answer.
    Client,
    None,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    pub address: BindAddress,
    pub tls: Option<BindTls>,
    /// Whether connections begin with a PROXY protocol header.
    pub accept_proxy: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindTls {
    /// Files or folders of certificates. The first certificate is the default.
    pub certificates: Vec<FilePath>,
    /// Protocols that are offered, the preferred one first.
    pub alpn: Vec<Alpn>,
    pub clients: Option<ClientCertificates>,
}

/// Certificates that clients show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The CA that signs them.
    pub ca: FilePath,
    pub crl: Option<FilePath>,
    pub verify: Verify,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verify {
    #[default]
    Required,
    /// A client may come without one; an invalid one is refused.
    Optional,
}

/// Routing by the node map: the node that a request names, the map's master of it, that master's
/// server.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteBy {
    Header(HeaderName),
    /// The common name of the client's certificate. The master is told who the client is in
    /// `X-Client-Verify`, `X-Client-DN` and `X-Client-Cert`.
    ClientCertificate,
}
