//! `[portmap]`: a load balancer that a few keys of metadata declare, as those of Triton's Moirai.
//!
//! [`overlay`] puts what the metadata says over the settings of the file. It is pure. Who sets
//! metadata is trusted with what the keys are for and nothing else: they name no file, and open no
//! port that the file has.

use std::net::IpAddr;
use std::time::Duration;

use mapsmith_core::config::values::{FilePath, Name};
use mapsmith_core::portmap::Naming;
use serde::Deserialize;

use super::keys::section;
use super::units::optional_duration;
use super::{Certificate, Haproxy, Selector, Settings, Source};
use crate::source::SourceKind;

mod certificate;
mod declared;
mod overlay;
#[cfg(test)]
mod tests;
mod values;

pub use overlay::overlay;

/// Where Debian and others have the CAs that the world trusts.
const CA: &str = "/etc/ssl/certs/ca-certificates.crt";

section! {
    /// A load balancer that metadata declares, as Triton's Moirai does: each service of the portmap
    /// is a frontend and a backend beside those of this file ([portmap.md](portmap.md)). Needs
    /// `[haproxy]` with `managed`, and goes with no `[services]`. A change of the metadata is in
    /// force within about a second of being seen; a service that can't be used keeps its last good
    /// form, and with `[store]` a restart begins with what was in force.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Portmap {
        /// The source of type `metadata`. DNS names are asked of the first source of type `dns`, or
        /// of the name servers of this machine.
        #[unset(required)]
        pub source: String,
        /// The address that services listen on, each on its own port.
        #[unset(says "every IPv4 address")]
        pub address: Option<IpAddr>,
        /// What frontends and backends are called: `port`, like `fe-443` and `be-443`, which stay
        /// whatever comes or goes beside them; or `place`, like `fe0` and `be0`, as in Moirai.
        #[unset("port")]
        #[serde(default)]
        pub names: Names,
        /// The name of the `[[certificate]]` that clients see.
        #[unset(says "one of the names in `certificate_name`, called `portmap`: from the authority \
            of [`[acme]`](#acme), else self-signed")]
        pub certificate: Option<Name>,
        /// The file with the CAs that the certificates of `https` servers are verified with (PEM).
        /// An absolute path.
        #[unset(says "`/etc/ssl/certs/ca-certificates.crt`")]
        pub ca: Option<FilePath>,
        /// Whether port 80 redirects to HTTPS (301), where a service listens on 443 with HTTPS and
        /// nobody on 80.
        #[unset("false")]
        #[serde(default)]
        pub redirect_http: bool,
        /// How long a browser that came by HTTPS is to use nothing else (`Strict-Transport-
        /// Security`), of all services with a certificate.
        #[unset(says "the header is not sent")]
        #[serde(default, deserialize_with = "optional_duration")]
        pub hsts: Option<Duration>,
    }
}

/// What frontends and backends are called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Names {
    #[default]
    Port,
    Place,
}

impl From<Names> for Naming {
    fn from(names: Names) -> Self {
        match names {
            Names::Port => Self::Port,
            Names::Place => Self::Position,
        }
    }
}

impl Portmap {
    /// Whether the order of services counts.
    pub fn is_ordered(&self) -> bool {
        self.names == Names::Place
    }

    /// The feed that the metadata is.
    pub fn from(&self) -> Selector {
        Selector::all_of(&self.source)
    }

    fn ca(&self) -> Option<FilePath> {
        self.ca.clone().or_else(|| FilePath::try_from(CA.to_owned()).ok())
    }

    pub(super) fn problems(&self, settings: &Settings, problems: &mut Vec<String>) {
        let mut problem = |text: String| problems.push(format!("portmap.{text}"));
        if !settings.haproxy.as_ref().is_some_and(Haproxy::is_supervised) {
            problem(
                "source: needs [haproxy] with managed = true or \"attached\", so that Mapsmith \
                    writes HAProxy's configuration"
                    .to_owned(),
            );
        }
        if settings.services.is_some() {
            problem("source: [services] declares services already; remove one of both".to_owned());
        }
        match settings.sources.iter().find(|source| source.name == self.source) {
            None => problem(format!("source: there is no source of the name {:?}", self.source)),
            Some(Source { kind: SourceKind::Metadata, shadow: false, .. }) => {}
            Some(Source { kind: SourceKind::Metadata, .. }) => problem(format!(
                "source: {:?} is a shadow, which is never applied; remove shadow from it",
                self.source
            )),
            Some(source) => problem(format!(
                "source: {:?} is of type {}; name one of type metadata",
                self.source, source.kind
            )),
        }
        let is_named =
            |certificate: &Certificate| Some(&certificate.name) == self.certificate.as_ref();
        if let Some(name) = &self.certificate
            && !settings.certificates.iter().any(is_named)
        {
            problem(format!("certificate: there is no [[certificate]] of the name {name}"));
        }
        let is_own = |it: &Certificate| it.name.as_str() == certificate::NAME;
        if self.certificate.is_none() && settings.certificates.iter().any(is_own) {
            problem(format!(
                "certificate: a [[certificate]] has the name {0}, as that of the metadata would; \
                    name it here, or rename it",
                certificate::NAME
            ));
        }
    }
}
