//! Services as frontends and backends of HAProxy's declared configuration.
//!
//! What servers are found by is plain data: whoever reads registries asks for them, so that a
//! server comes and goes as those of any other backend.

use std::fmt::{self, Debug};
use std::net::IpAddr;

use super::{Port, Service};
use crate::config::values::{Alpn, BindAddress, FilePath, Secret};
use crate::config::{
    Backend, Balance, Bind, BindTls, Cookie, Expect, Frontend, HttpCheck, KeepAlive, Mode, Native,
};
use crate::render::stamp;
use crate::server::ServerAddress;

/// Moirai's, so that a client which comes from one of its gateways is known here.
const COOKIE: &str = "CLOUD-TRITONCOMPUTE-RS";
/// Concurrent connections of a frontend, as Moirai has them.
const MAX_CONNECTIONS: u32 = 65535;

/// How services are declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    pub naming: Naming,
    /// Where HAProxy listens; empty is every IPv4 address.
    pub listen: Vec<IpAddr>,
    /// The certificate that clients see, a file or a folder; none where there is none yet.
    pub certificate: Option<FilePath>,
    /// Protocols that are offered over TLS, the preferred one first.
    pub alpn: Vec<Alpn>,
    /// The CAs that servers' certificates are verified with.
    pub ca: FilePath,
    /// The most servers of each service.
    pub max_servers: u16,
}

/// What frontends and backends are called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Naming {
    /// `fe0` and `be0`, by their place among the services, as Moirai calls them: a service that
    /// goes renames those behind it.
    Position,
    /// `fe-443` and `be-443`, by the listen port, which no other service has: they stay whatever
    /// comes or goes beside them.
    #[default]
    Port,
}

/// A service as HAProxy has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredService {
    pub frontend: Frontend,
    /// Without servers, whose options are here.
    pub backend: Backend,
    pub servers: ServersFrom,
    /// More of them are left out.
    pub max_servers: u16,
}

/// What the servers of a service are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServersFrom {
    /// The one at this address.
    Address(ServerAddress),
    /// One for each address of this name, in lower case.
    Host { name: String, port: u16 },
    /// One for each SRV record of this name, in lower case.
    Service { name: String },
}

/// Why a service can't be declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}: there is no certificate for it; name one")]
pub struct NoCertificate(pub Service);

impl Declaration {
    /// Services, each by itself: one without a certificate has no effect on the others.
    pub fn declare(&self, services: &[Service]) -> Vec<Result<DeclaredService, NoCertificate>> {
        services.iter().enumerate().map(|(at, service)| self.declare_at(at, service)).collect()
    }

    /// The service at this place among others, from 0, which is part of its name by
    /// [`Naming::Position`].
    ///
    /// # Errors
    /// If there is no certificate for it.
    pub fn declare_at(
        &self,
        position: usize,
        service: &Service,
    ) -> Result<DeclaredService, NoCertificate> {
        let name = |prefix: &str| match self.naming {
            Naming::Position => format!("{prefix}{position}"),
            Naming::Port => format!("{prefix}-{}", service.listen_port),
        };
        let (frontend, backend) = (name("fe"), name("be"));
        Ok(DeclaredService {
            frontend: self.frontend(&frontend, &backend, service)?,
            backend: self.backend(&backend, service),
            servers: ServersFrom::new(service),
            max_servers: self.max_servers,
        })
    }

    fn frontend(
        &self,
        name: &str,
        backend: &str,
        service: &Service,
    ) -> Result<Frontend, NoCertificate> {
        let tls = match (&self.certificate, service.service_type.has_certificate()) {
            (_, false) => None,
            (None, true) => return Err(NoCertificate(service.clone())),
            (Some(certificate), true) => Some(BindTls {
                certificates: vec![certificate.clone()],
                alpn: self.alpn.clone(),
                strict_sni: false,
                min_version: None,
                clients: None,
            }),
        };
        let bind = |address| Bind { address, tls: tls.clone(), accept_proxy: false };
        Ok(Frontend {
            name: checked(name),
            mode: mode(service),
            binds: self.addresses(service.listen_port).into_iter().map(bind).collect(),
            maxconn: Some(MAX_CONNECTIONS),
            keep_alive: KeepAlive::Both,
            forwarded_for: service.service_type.is_http(),
            route: None,
            rules: Vec::new(),
            default_backend: Some(checked(backend)),
            natives: Vec::new(),
        })
    }

    fn addresses(&self, port: Port) -> Vec<BindAddress> {
        if self.listen.is_empty() {
            return vec![checked(&format!("*:{port}"))];
        }
        let address = |ip: &IpAddr| ServerAddress { ip: *ip, port: port.get() }.to_string();
        self.listen.iter().map(|ip| checked(&address(ip))).collect()
    }

    fn backend(&self, name: &str, service: &Service) -> Backend {
        let is_http = service.service_type.is_http();
        // Of a TCP connection a timeout of tunnels would stand for those of clients and servers,
        // which metadata says.
        let native = if is_http { "option abortonclose" } else { "timeout tunnel 0" };
        Backend {
            name: checked(name),
            mode: mode(service),
            balance: Some(Balance::LeastConn),
            check: check(service),
            host: None,
            cookie: is_http.then(|| Cookie {
                name: checked(COOKIE),
                key: Secret::new(checked(&key(service))),
            }),
            retries: Some(1),
            redispatch: true,
            retry_on: Vec::new(),
            http_reuse: None,
            maxqueue: None,
            queue_timeout: None,
            errors: Vec::new(),
            server_options: self.server_options(service),
            servers: Vec::new(),
            disabled: Default::default(),
            natives: vec![checked::<Native>(native)],
        }
    }

    /// The options of its servers.
    fn server_options(&self, service: &Service) -> Vec<String> {
        let (rise, fall) = (service.rise_or_default(), service.fall_or_default());
        let mut options = vec!["check".to_owned()];
        options.extend(service.check_port.map(|port| format!("port {port}")));
        options.extend([format!("rise {rise}"), format!("fall {fall}")]);
        let checks_itself = service.check_port.is_none();
        if service.service_type.has_tls_servers() {
            options.extend(self.tls_options(service));
            // As HAProxy has it: another port is checked as it is, without TLS.
            options.extend(checks_itself.then(|| "check-ssl".to_owned()));
        }
        if service.service_type.sends_proxy() {
            options.push("send-proxy-v2".to_owned());
            options.extend(checks_itself.then(|| "check-send-proxy".to_owned()));
        }
        options
    }

    fn tls_options(&self, service: &Service) -> Vec<String> {
        let mut options = vec!["ssl".to_owned()];
        let host = service.backend_name.host();
        options.extend(
            host.iter().flat_map(|host| [format!("sni str({host})"), format!("check-sni {host}")]),
        );
        if service.service_type.verifies_servers() {
            // `verify required` alone is content with any certificate of the CA. Where there is no
            // name the address stands here, which no certificate has.
            let name = host.unwrap_or_else(|| service.backend_name.canonical());
            options.extend([
                "verify required".to_owned(),
                format!("ca-file {}", self.ca),
                format!("verifyhost {name}"),
            ]);
        } else {
            options.push("verify none".to_owned());
        }
        options
    }
}

impl ServersFrom {
    /// What a service's name and port ask for.
    pub fn new(service: &Service) -> Self {
        let name = service.backend_name.canonical();
        match (service.backend_name.address(), service.backend_port) {
            (Some(ip), Some(port)) => {
                Self::Address(ServerAddress { ip: ip.into(), port: port.get() })
            }
            // The records have ports of their own: HAProxy, too, asks for them by such a name.
            (_, Some(port)) if !service.backend_name.is_srv() => {
                Self::Host { name, port: port.get() }
            }
            _ => Self::Service { name },
        }
    }
}

impl fmt::Display for ServersFrom {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(out, "{address}"),
            Self::Host { name, port } => write!(out, "addresses of {name}, port {port}"),
            Self::Service { name } => write!(out, "SRV records of {name}"),
        }
    }
}

fn mode(service: &Service) -> Mode {
    if service.service_type.is_http() { Mode::Http } else { Mode::Tcp }
}

/// HTTP's `GET`, which must be answered 200.
fn check(service: &Service) -> Option<HttpCheck> {
    let path = service.check_path.as_ref()?;
    // Servers with several certificates compare `Host` with the name in the handshake.
    let is_tls = service.service_type.has_tls_servers() && service.check_port.is_none();
    Some(HttpCheck {
        method: None,
        uri: checked(path.as_str()),
        version: None,
        host: service.backend_name.host().filter(|_| is_tls).map(|host| checked(&host)),
        expect: Some(Expect::Status(checked("200"))),
    })
}

/// The key of the cookie: the same at every gateway that has the service, whatever else it has and
/// however the service's servers are checked.
fn key(service: &Service) -> String {
    let Service { service_type, listen_port, backend_name, backend_port, .. } = service;
    let port = backend_port.map(|port| port.to_string()).unwrap_or_default();
    let name = backend_name.canonical();
    let text = format!("{service_type}://{listen_port}:{name}:{port}");
    format!("{:016x}", stamp::hash(text.as_bytes()))
}

/// A value that is written here, or made of what the grammar has let through.
#[expect(clippy::expect_used, reason = "the grammar is the narrower one; a property test holds it")]
fn checked<T: TryFrom<String>>(text: &str) -> T
where
    T::Error: Debug,
{
    T::try_from(text.to_owned()).expect("a service has no such value")
}
