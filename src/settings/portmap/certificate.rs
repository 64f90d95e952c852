//! The certificate that clients of a portmap see where the settings name none: of the names that
//! metadata gives, from the authority of `[acme]` if there is one, else signed by Mapsmith itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mapsmith_core::config::values::{DnsName, Name};
use mapsmith_core::portmap::metadata::CertificateNames;

use crate::settings::acme::{self, Challenge};
use crate::settings::services::base::Base;
use crate::settings::{Certificate, Settings};

/// What it is called.
pub(super) const NAME: &str = "portmap";
/// Whose it is where metadata gives no name.
const NOBODY: &str = "localhost";

/// The certificate, with its files: signed by Mapsmith itself, so that HTTPS listens at once.
pub(super) fn self_signed(file: &Settings, names: &CertificateNames) -> Option<Certificate> {
    let mut names = dns_names(names);
    if names.is_empty() {
        names.extend(DnsName::try_from(NOBODY.to_owned()).ok());
    }
    let name = Name::try_from(NAME.to_owned()).ok()?;
    let mut certificate = Certificate::obtained(name, Vec::new(), names);
    certificate.place(file.haproxy.as_ref(), &file.acme_folder().join("issued"));
    Some(certificate)
}

/// Has the authority of the settings issue the certificate that was added; what keeps it from all
/// that is wanted. All who listen are known by now.
pub(super) fn ask_authority(base: &mut Base<'_>, names: &CertificateNames) -> Vec<String> {
    let Some(acme) = base.settings.acme.clone() else { return Vec::new() };
    let (names, left_out): (Vec<_>, Vec<_>) = dns_names(names)
        .into_iter()
        .partition(|name| acme.challenge == Challenge::Dns01 || !name.is_wildcard());
    let left_out = left_out.iter().map(|name| {
        format!("certificate_name: {name} needs acme.challenge = \"dns-01\", so it is left out")
    });
    let mut problems: Vec<_> = left_out.collect();
    let is_own = |it: &&mut Certificate| it.name.as_str() == NAME;
    let Some(own) = base.settings.certificates.iter_mut().find(is_own) else { return problems };
    if names.is_empty() {
        return problems;
    }
    let signed = std::mem::take(&mut own.self_signed);
    own.acme = names;
    let Some(why) = obstacle(base, acme.http_port) else { return problems };
    let is_own = |it: &&mut Certificate| it.name.as_str() == NAME;
    if let Some(own) = base.settings.certificates.iter_mut().find(is_own) {
        (own.acme, own.self_signed) = (Vec::new(), signed);
    }
    problems.push(format!("certificate_name: no authority can be asked: {why}"));
    problems
}

fn dns_names(names: &CertificateNames) -> Vec<DnsName> {
    names.names.iter().filter_map(|name| DnsName::try_from(name.clone()).ok()).collect()
}

/// Why the authority can't be asked, as things stand.
fn obstacle(base: &Base<'_>, port: u16) -> Option<String> {
    let mut problems = Vec::new();
    acme::problems(&base.settings, &mut problems);
    if let Some(problem) = problems.into_iter().next() {
        return Some(problem);
    }
    // HAProxy is to listen there for the authority alone.
    base.settings.challenges()?.bind?;
    let who = base.who_listens(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))?;
    Some(format!("{who} listens on port {port}, where it asks, and not in plain HTTP"))
}
