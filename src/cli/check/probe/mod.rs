//! `--probe-masters`: whether a master believes whoever claims, in headers, to be somebody.
//!
//! Puppet Server does so with `allow-header-cert-info`, which only a guard makes safe. Nobody is
//! asked but the masters of the map, at the addresses that the settings and HAProxy have; and they
//! are asked for the list of environments, which any node may read and which compiles and changes
//! nothing. No certificate is shown, and none is verified: nothing is told to who answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use mapsmith_core::server::ServerAddress;
use mapsmith_core::{DesiredServers, ObservedServers};
use reqwest::{Client, Url, redirect};
use tokio::time::{Instant, timeout_at};

use super::{Finding, finding};

/// What is asked for: in Puppet Server's own `auth.conf` for whoever is authenticated.
const PATH: &str = "/puppet/v3/environments";
/// A node that is none, as a gateway would say who it is.
const CLAIMS: [(&str, &str); 2] =
    [("X-Client-Verify", "SUCCESS"), ("X-Client-DN", "CN=mapsmith-probe")];
/// How long one request may take.
const LONGEST_REQUEST: Duration = Duration::from_secs(3);
/// How long all of them may take.
const LONGEST_PROBE: Duration = Duration::from_secs(60);
/// How many addresses are asked at a time.
const AT_ONCE: usize = 16;

/// Where each master of the map listens, by what declared backends should have and what instances
/// have.
type Addresses = BTreeMap<String, BTreeSet<ServerAddress>>;

/// What an address answers to who claims to be a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Status(u16),
    /// 200 also without a claim.
    ToAnybody,
    /// A connection that failed, TLS that wants a certificate, or no HTTP.
    None,
    TimedOut,
}

/// Asks every master, and tells of each what it answered.
pub(super) async fn probe_masters(
    masters: &BTreeSet<String>,
    desired: &DesiredServers,
    observed: &[ObservedServers],
) -> Vec<Finding> {
    let addresses = addresses(masters, desired, observed);
    let deadline = Instant::now() + LONGEST_PROBE;
    let places = addresses
        .iter()
        .flat_map(|(master, addresses)| addresses.iter().map(move |address| (master, address)));
    let answers = places.map(|(master, address)| async move {
        let asked =
            async { (ask(master, address, "http").await, ask(master, address, "https").await) };
        (master, address, timeout_at(deadline, asked).await.ok())
    });
    let answers: Vec<_> = stream::iter(answers).buffered(AT_ONCE).collect().await;
    let of_master = |master: &String| {
        let own = answers.iter().filter(|(of, ..)| *of == master);
        let own: Vec<_> = own.map(|(_, address, answers)| judge(address, *answers)).collect();
        finding(format!("master {master}, probe"), join(own))
    };
    masters.iter().map(of_master).collect()
}

/// What is known of where the masters listen. A free slot of a `server-template` and a server
/// without an address are nowhere.
fn addresses(
    masters: &BTreeSet<String>,
    desired: &DesiredServers,
    observed: &[ObservedServers],
) -> Addresses {
    let listed = desired.backends.iter().flat_map(|(backend, wanted)| {
        wanted.servers.values().map(move |server| (backend, &server.name, server.address))
    });
    let seen = observed.iter().flatten().flat_map(|(backend, seen)| {
        seen.servers.iter().filter_map(move |(name, server)| {
            Some((backend, name, ServerAddress { ip: server.address?, port: server.port }))
        })
    });
    let mut addresses = Addresses::new();
    for (backend, server, address) in listed.chain(seen) {
        if address.port == 0 || address.ip.is_unspecified() {
            continue;
        }
        for master in [backend, server] {
            if masters.contains(master) {
                addresses.entry(master.clone()).or_default().insert(address);
            }
        }
    }
    addresses
}

/// Claims to be a node; where that is believed, asks without a claim too.
async fn ask(master: &str, address: &ServerAddress, scheme: &str) -> Answer {
    match request(master, address, scheme, &CLAIMS).await {
        Answer::Status(200) => match request(master, address, scheme, &[]).await {
            Answer::Status(200) => Answer::ToAnybody,
            _ => Answer::Status(200),
        },
        answer => answer,
    }
}

async fn request(
    master: &str,
    address: &ServerAddress,
    scheme: &str,
    claims: &[(&str, &str)],
) -> Answer {
    let Some((url, name)) = url(master, address, scheme) else { return Answer::None };
    let mut client = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(LONGEST_REQUEST)
        .tls_danger_accept_invalid_certs(true);
    if let Some(name) = name {
        client = client.resolve(&name, SocketAddr::new(address.ip, address.port));
    }
    let Ok(client) = client.build() else { return Answer::None };
    let request =
        claims.iter().fold(client.get(url), |request, (name, value)| request.header(*name, *value));
    match request.send().await {
        Ok(response) => Answer::Status(response.status().as_u16()),
        Err(error) if error.is_timeout() => Answer::TimedOut,
        Err(_) => Answer::None,
    }
}

/// By the master's name where it can be a host's, for the server that looks at it (`Host`, SNI); it
/// is never resolved. The name is given with it then.
fn url(master: &str, address: &ServerAddress, scheme: &str) -> Option<(Url, Option<String>)> {
    let named = Url::parse(&format!("{scheme}://{master}:{}{PATH}", address.port)).ok();
    let named = named.filter(|url| url.domain() == Some(master));
    match named {
        Some(url) => Some((url, Some(master.to_owned()))),
        None => Some((Url::parse(&format!("{scheme}://{address}{PATH}")).ok()?, None)),
    }
}

/// What the answers of one address say; an error where it believes anybody, or was not asked.
fn judge(address: &ServerAddress, answers: Option<(Answer, Answer)>) -> Result<String, String> {
    let Some((plain, tls)) = answers else {
        let seconds = LONGEST_PROBE.as_secs();
        return Err(format!("{address} was not asked: the whole took more than {seconds} s"));
    };
    let ways = [(plain, "in plain text"), (tls, "over TLS without a certificate")];
    let told = |answer: Answer| match answer {
        Answer::ToAnybody => "200".to_owned(),
        Answer::Status(status @ 500..) => format!("{status}, which tells nothing"),
        Answer::Status(status) => status.to_string(),
        Answer::None => "no answer".to_owned(),
        Answer::TimedOut => format!("no answer within {} s", LONGEST_REQUEST.as_secs()),
    };
    let believes = |answer: &Answer| matches!(answer, Answer::Status(200) | Answer::ToAnybody);
    let Some((answer, way)) = ways.into_iter().find(|(answer, _)| believes(answer)) else {
        let [(plain, in_plain), (tls, over_tls)] = ways.map(|(answer, way)| (told(answer), way));
        return Ok(format!("{address}: {plain} {in_plain}, {tls} {over_tls}"));
    };
    let what = match answer {
        Answer::ToAnybody => "answers anybody, whoever he claims to be",
        _ => "believes whoever claims in a header (X-Client-DN) to be another node",
    };
    Err(format!(
        "{address} {what}, {way}: whoever reaches this port is every node, the CA's administrator \
            included. Put haproxy/puppet-master.cfg in front of Puppet Server and have that listen \
            on loopback, or have a firewall admit the gateways alone and ask from elsewhere"
    ))
}

/// What is said of all addresses of a master.
fn join(addresses: Vec<Result<String, String>>) -> Result<String, String> {
    if addresses.is_empty() {
        return Err("no address of it is known, so it was not asked".to_owned());
    }
    let (good, bad): (Vec<_>, Vec<_>) = addresses.into_iter().partition(Result::is_ok);
    match bad.is_empty() {
        true => Ok(good.into_iter().flatten().collect::<Vec<_>>().join("; ")),
        false => Err(bad.into_iter().filter_map(Result::err).collect::<Vec<_>>().join("; ")),
    }
}

#[cfg(test)]
mod tests;
