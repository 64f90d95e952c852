//! Options of declared backends that HAProxy takes and that can't work. Pure.

use mapsmith_core::server::ServerOptions;
use mapsmith_core::status::BackendStatus;

use super::{Finding, finding, named};
use crate::settings::{Backend, Listing};

/// Names where servers get TLS and a check that does not speak it. (In HAProxy's own configuration
/// `check` follows `ssl` by itself; for a server that is added at runtime it does not, measured on
/// 2.6 to 3.4.)
pub(super) fn check_options(backends: &[Backend], statuses: &[BackendStatus]) -> Vec<Finding> {
    let each = backends.iter().zip(statuses).enumerate();
    each.filter_map(|(index, (backend, status))| {
        let places = plain_checks(backend, status);
        (!places.is_empty()).then(|| {
            let text = format!(
                "`ssl` and `check` without `check-ssl`: a server that is added at runtime is \
                    checked in plain text then, so that a check by HTTP (`option httpchk`) finds \
                    it down for ever; add \"check-ssl\" to {}",
                named(&places)
            );
            finding(format!("backend[{index}] {:?}, options", backend.name), Err(text))
        })
    })
    .collect()
}

/// Where a backend has options that check a TLS port in plain text.
fn plain_checks(backend: &Backend, status: &BackendStatus) -> Vec<String> {
    let in_plain = |options: &ServerOptions| options.checks_tls_in_plain_text();
    let common = backend.default_options();
    let mut places = Vec::new();
    let inherited = match backend.listing() {
        Listing::Servers(servers) => servers.iter().any(|server| server.options.is_none()),
        Listing::From(_) | Listing::Masters(_) => true,
    };
    if inherited && in_plain(&common) {
        places.push("backend.options".to_owned());
    }
    match backend.listing() {
        Listing::Servers(servers) => {
            for (index, server) in servers.iter().enumerate() {
                let usual = backend.usual_options();
                let own = server
                    .options
                    .as_ref()
                    .map(|own| ServerOptions::parse(own).and_then(|own| own.with_usual(&usual)));
                if own.is_some_and(|own| own.is_ok_and(|own| in_plain(&own))) {
                    places.push(format!("the options of servers[{index}] {:?}", server.name));
                }
            }
        }
        Listing::From(source) => {
            let listed = status.servers.iter().flatten();
            let own = listed.filter(|server| server.options != common && in_plain(&server.options));
            places.extend(
                own.map(|server| format!("what the source {source} says of {:?}", server.name)),
            );
        }
        // Each has the backend's options, filled in.
        Listing::Masters(_) => {}
    }
    places
}

#[cfg(test)]
mod tests;
