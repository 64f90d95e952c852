//! Whether names lead here, before an authority is asked to look: it counts failures.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::{join, join_all};
use hickory_resolver::Resolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use mapsmith_core::config::Challenges as Path;
use reqwest::Client;
use reqwest::redirect::Policy;

use super::Failure;
use super::client::describe;
use crate::settings::Acme;
use crate::tls::challenges::Challenges;

/// Where authorities ask (RFC 8555, section 8.3).
const PUBLIC_PORT: u16 = 80;
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

/// At the port that the authority asks at. Where a firewall forwards that to another one, the
/// gateway may only reach itself there.
async fn ask(settings: &Acme, name: &str, token: &str, answer: &str) -> Result<(), String> {
    let wrong = |why: String| format!("{name}: {why}");
    let client = client(settings, name).await.map_err(&wrong)?;
    let at = |port| ask_at(&client, name, port, token, answer);
    let own = settings.http_port;
    if own == PUBLIC_PORT {
        return at(own).await.map_err(wrong);
    }
    match join(at(PUBLIC_PORT), at(own)).await {
        (Err(public), Err(own)) => Err(wrong(format!("{public}; {own}"))),
        _ => Ok(()),
    }
}

async fn client(settings: &Acme, name: &str) -> Result<Client, String> {
    // What is asked for is random, and no secret: it does not matter who reads it.
    let mut client = Client::builder()
        .no_proxy()
        .timeout(BOUND)
        .redirect(Policy::limited(REDIRECTS))
        .danger_accept_invalid_certs(true);
    if let Some(resolver) = settings.resolver {
        let addresses = resolve(resolver, name).await?;
        client = client.resolve_to_addrs(name, &addresses);
    }
    client.build().map_err(|error| error.to_string())
}

async fn ask_at(
    client: &Client,
    name: &str,
    port: u16,
    token: &str,
    answer: &str,
) -> Result<(), String> {
    let url = format!("http://{name}:{port}{}{token}", Path::PATH);
    let mut response = client.get(&url).send().await.map_err(|error| {
        // It may be where a redirect leads that nobody answers.
        format!("port {port} can't be reached: {}", describe(&error.without_url()))
    })?;
    let status = response.status();
    let begins = response.chunk().await.ok().flatten().unwrap_or_default();
    match begins.trim_ascii() == answer.as_bytes() {
        true => Ok(()),
        false => Err(format!("something else answers at port {port} ({status})")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_nobody_answers_the_cause_is_told() {
        let client = Client::builder().no_proxy().build().unwrap();
        let error = ask_at(&client, "127.0.0.1", 1, "token", "answer").await.unwrap_err();
        assert!(error.starts_with("port 1 can't be reached: "), "{error}");
        assert!(error.contains("refused"), "{error}");
    }
}
