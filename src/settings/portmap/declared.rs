//! A service of the portmap as a frontend and a backend of the settings.

use std::time::Duration;

use mapsmith_core::config::values::{BindAddress, HostValue, Name};
use mapsmith_core::config::{self, Native};
use mapsmith_core::portmap::{DeclaredService, ServersFrom, Service};

use crate::settings::Selector;
use crate::settings::backend::{Backend, Balance, Check, Cookie, DeclaredServer, Expect};
use crate::settings::frontend::{Bind, Frontend, KeepAlive, Mode, Redirection, Rule};

/// What an operator of the gateway says of all services.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub certificate: Option<&'a Name>,
    pub hsts: Option<Duration>,
    /// The source that names are asked of.
    pub dns: &'a str,
}

/// A service's frontend and backend.
///
/// # Errors
/// What the settings can't say.
pub(super) fn sections(
    service: &Service,
    declared: DeclaredService,
    terms: Terms<'_>,
) -> Result<(Frontend, Backend), String> {
    let DeclaredService { frontend, backend, servers, max_servers } = declared;
    let hsts = terms.hsts.filter(|_| service.service_type.has_certificate());
    let hsts = hsts.map(strict_transport).transpose()?;
    let bind = |bind: config::Bind| Bind {
        certificate: bind.tls.and(terms.certificate).map(|name| vec![name.clone()]),
        ..Bind::plain(bind.address)
    };
    let front = Frontend {
        name: frontend.name,
        bind: frontend.binds.into_iter().map(bind).collect(),
        mode: mode(frontend.mode),
        maxconn: frontend.maxconn,
        keep_alive: KeepAlive::Both,
        forwarded_for: frontend.forwarded_for,
        route: None,
        rules: Vec::new(),
        default_backend: frontend.default_backend,
        natives: frontend.natives.into_iter().chain(hsts).collect(),
    };
    let (from, servers) = listing(servers, terms.dns);
    let back = Backend {
        from,
        servers,
        max_servers: Some(max_servers.into()),
        options: backend.server_options,
        mode: Some(mode(backend.mode)),
        balance: backend.balance.map(|_| Balance::LeastConn),
        check: backend.check.map(check),
        cookie: backend.cookie.map(|config::Cookie { name, key }| Cookie { name, key }),
        retries: backend.retries,
        redispatch: Some(backend.redispatch),
        natives: (!backend.natives.is_empty()).then_some(backend.natives),
        ..Backend::named(backend.name.as_str())
    };
    Ok((front, back))
}

/// A frontend that sends whoever comes by HTTP to the same place by HTTPS.
pub(super) fn redirect(name: Name, address: BindAddress) -> Frontend {
    let to_https = Redirection { location: None, prefix: None, https: true, status: Some(301) };
    Frontend {
        name,
        bind: vec![Bind::plain(address)],
        mode: Mode::Http,
        maxconn: None,
        keep_alive: KeepAlive::Both,
        forwarded_for: false,
        route: None,
        rules: vec![Rule { redirect: Some(to_https), ..Rule::default() }],
        default_backend: None,
        natives: Vec::new(),
    }
}

fn strict_transport(time: Duration) -> Result<Native, String> {
    let seconds = time.as_secs();
    let line = format!("http-response set-header Strict-Transport-Security max-age={seconds}");
    Native::try_from(line).map_err(|error| format!("portmap.hsts: {error}"))
}

/// Where the servers come from: a list of a source, or one that is written out.
fn listing(servers: ServersFrom, dns: &str) -> (Option<Selector>, Option<Vec<DeclaredServer>>) {
    let text = |key: &str, value: String| (key.to_owned(), vec![value]);
    // As it is documented, and as every HAProxy here listens. Metadata has no key to leave the
    // other out by, where its name servers refuse to speak of it.
    let family = [text("family", "ipv4".to_owned())];
    match servers {
        ServersFrom::Address(address) => {
            let address = address.to_string();
            let name = address.clone();
            let server =
                DeclaredServer { name, address, weight: None, backup: false, options: None };
            (None, Some(vec![server]))
        }
        ServersFrom::Host { name, port } => {
            let keys = [text("name", name), text("port", port.to_string())];
            (Some(Selector::of(dns, keys.into_iter().chain(family))), None)
        }
        ServersFrom::Service { name } => {
            (Some(Selector::of(dns, [text("srv", name)].into_iter().chain(family))), None)
        }
    }
}

fn mode(mode: config::Mode) -> Mode {
    match mode {
        config::Mode::Http => Mode::Http,
        config::Mode::Tcp => Mode::Tcp,
    }
}

fn check(check: config::HttpCheck) -> Check {
    let config::HttpCheck { method, uri, version, host, expect } = check;
    let expect = expect.map(|expect| match expect {
        config::Expect::Status(statuses) => Expect::Status(statuses),
        config::Expect::Body(text) => Expect::Body(text),
        config::Expect::BodyRegex(regex) => Expect::BodyReg(regex),
    });
    // It is a certificate's name, so it is a host.
    let host = host.and_then(|host| HostValue::try_from(host.as_str().to_owned()).ok());
    Check { uri: Some(uri), method, version, host, expect, ..Check::default() }
}
