//! The certificate that clients of a portmap see where the settings name none: of the names that
//! metadata gives, from the authority of `[acme]` if there is one, else signed by Mapsmith itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mapsmith_core::config::values::{DnsName, Name};
use mapsmith_core::portmap::metadata::CertificateNames;
use mapsmith_core::services::RejectedService;

use super::overlay::rejection;
use crate::settings::acme::{self, Challenge};
use crate::settings::services::base::Base;
use crate::settings::{Certificate, Settings};

/// What it is called.
pub(super) const NAME: &str = "portmap";
/// The key of metadata that has its names.
const KEY: &str = "certificate_name";
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

/// Has the authority of the settings issue the certificate that was added, as far as it can; gives
/// the names that Mapsmith signs itself otherwise.
pub(super) fn want(
    base: &mut Base<'_>,
    names: &CertificateNames,
    rejected: &mut Vec<RejectedService>,
) -> Vec<DnsName> {
    let Some(acme) = &base.settings.acme else { return Vec::new() };
    let (names, left_out): (Vec<_>, Vec<_>) = dns_names(names)
        .into_iter()
        .partition(|name| acme.challenge == Challenge::Dns01 || !name.is_wildcard());
    let Some(own) = own(base).filter(|_| !names.is_empty()) else { return Vec::new() };
    own.acme = names;
    let signed = std::mem::take(&mut own.self_signed);
    rejected.extend(left_out.iter().map(|name| {
        let reason = format!("{name} needs acme.challenge = \"dns-01\", so it is left out");
        rejection(KEY, reason)
    }));
    signed
}

/// Takes back what is wanted of the authority where it can't be asked. All who listen are known by
/// now.
pub(super) fn check(base: &mut Base<'_>, signed: &[DnsName], rejected: &mut Vec<RejectedService>) {
    let Some(why) = obstacle(base).filter(|_| !signed.is_empty()) else { return };
    if let Some(own) = own(base) {
        (own.acme, own.self_signed) = (Vec::new(), signed.to_vec());
    }
    rejected.push(rejection(KEY, format!("no authority can be asked: {why}")));
}

fn own<'a>(base: &'a mut Base<'_>) -> Option<&'a mut Certificate> {
    base.settings.certificates.iter_mut().find(|it| it.name.as_str() == NAME)
}

fn dns_names(names: &CertificateNames) -> Vec<DnsName> {
    names.names.iter().filter_map(|name| DnsName::try_from(name.clone()).ok()).collect()
}

/// Why the authority can't be asked, as things stand.
fn obstacle(base: &Base<'_>) -> Option<String> {
    let settings = &base.settings;
    let port = settings.acme.as_ref()?.http_port;
    let everywhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    if settings.challenges().is_some_and(|it| it.frontends.is_empty())
        && let Some(who) = base.who_listens(everywhere)
    {
        return Some(format!("{who} listens on port {port}, where it asks, and not in plain HTTP"));
    }
    let mut problems = Vec::new();
    acme::problems(settings, &mut problems);
    problems.into_iter().next()
}
