//! Whether names lead here, before an authority is asked to look: it counts failures.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use hickory_resolver::Resolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use mapsmith_core::config::Challenges as Path;
use reqwest::Client;
use reqwest::redirect::Policy;

use super::Failure;
use crate::settings::Acme;
use crate::tls::challenges::Challenges;

/// For one name.
const BOUND: Duration = Duration::from_secs(10);
/// How many redirects are followed; an authority follows them too.
const REDIRECTS: usize = 10;
/// How long the instances may take to have the answer.
const IN_FORCE: Duration = Duration::from_secs(60);

/// Asks each name over HTTP for what nobody but this gateway knows.
///
/// # Errors
/// The names that don't lead here, each with what came instead.
pub(super) async fn lead_here(
    settings: &Acme,
    challenges: &Challenges,
    names: &[String],
) -> Result<(), Failure> {
    let random = || format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let (token, answer) = (format!("mapsmith-{}", random()), random());
    let answers = BTreeMap::from([(token.clone(), answer.clone())]);
    let number = challenges.answer(answers).await.map_err(Failure::local)?;
    challenges.in_force(number, IN_FORCE).await.map_err(Failure::local)?;
    let asked = names.iter().map(|name| ask(settings, name, &token, &answer));
    let wrong: Vec<_> = join_all(asked).await.into_iter().filter_map(Result::err).collect();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Failure::local(format!(
            "nothing is ordered, as not all names lead here: {}",
            wrong.join("; ")
        ))),
    }
}

async fn ask(settings: &Acme, name: &str, token: &str, answer: &str) -> Result<(), String> {
    let port = settings.http_port;
    let url = format!("http://{name}:{port}{}{token}", Path::PATH);
    let wrong = |why: String| format!("{name}: {why}");
    // What is asked for is random, and no secret: it does not matter who reads it.
    let mut client = Client::builder()
        .no_proxy()
        .timeout(BOUND)
        .redirect(Policy::limited(REDIRECTS))
        .danger_accept_invalid_certs(true);
    if let Some(resolver) = settings.resolver {
        let addresses = resolve(resolver, name).await.map_err(&wrong)?;
        client = client.resolve_to_addrs(name, &addresses);
    }
    let client = client.build().map_err(|error| wrong(error.to_string()))?;
    let response = client.get(&url).send().await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        wrong(format!("port {port} can't be reached: {}", cause.unwrap_or(error.to_string())))
    })?;
    let status = response.status();
    let mut response = response;
    let begins = response.chunk().await.ok().flatten().unwrap_or_default();
    match begins.trim_ascii() == answer.as_bytes() {
        true => Ok(()),
        false => Err(wrong(format!("something else answers at port {port} ({status})"))),
    }
}

/// By the resolver of the settings.
async fn resolve(server: SocketAddr, name: &str) -> Result<Vec<SocketAddr>, String> {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(at_port).to_vec();
    let servers = vec![NameServerConfig::new(server.ip(), true, connections)];
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let resolver = Resolver::builder_with_config(config, TokioRuntimeProvider::default()).build();
    let resolver = resolver.map_err(|error| error.to_string())?;
    let found = resolver.lookup_ip(format!("{name}.")).await;
    let found = found.map_err(|error| format!("has no address: {error}"))?;
    Ok(found.iter().map(|address| SocketAddr::new(address, 0)).collect())
}
