//! Stand-ins for Mapsmith's demo and compose stack: a PuppetDB and the Puppet masters that own the
//! nodes.
//!
//! They speak the real endpoints as far as the demo needs them, keep everything in memory and
//! authenticate nobody. They must never stand in for the real services anywhere else.

mod master;
mod puppetdb;
mod server;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::http::StatusCode;
use clap::{Parser, Subcommand};
use reqwest::Url;

/// How long `mocks register` tries.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it waits before it tries again.
const REGISTRATION_PAUSE: Duration = Duration::from_millis(500);
/// How long `mocks healthcheck` waits for an answer.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Stand-ins for the demo and the compose stack: a PuppetDB and Puppet masters.
///
/// They keep everything in memory, authenticate nobody and run no real command. Not for production.
#[derive(Debug, Parser)]
#[command(name = "mocks", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// A stand-in PuppetDB: takes facts through the command API and answers queries for factsets
    Puppetdb {
        /// Address to listen on; with port 0 the system picks one, and it is printed
        #[arg(long, value_name = "ADDR")]
        listen: SocketAddr,
    },
    /// A stand-in Puppet master: owns the nodes registered with it, and tells PuppetDB about each
    Master {
        /// The name it answers with, as HAProxy knows it
        #[arg(long)]
        name: String,
        /// Address to listen on; with port 0 the system picks one, and it is printed
        #[arg(long, value_name = "ADDR")]
        listen: SocketAddr,
        /// The PuppetDB to tell, such as http://127.0.0.1:8080
        #[arg(long, value_name = "URL")]
        puppetdb: Url,
        /// The certname PuppetDB sees as the facts' producer [default: the name]
        #[arg(long, value_name = "CERT")]
        certname: Option<String>,
        /// The status that says "not my node": 404, or 421 for gateways of HAProxy 3.2 and later
        #[arg(long, value_name = "STATUS", default_value = "404", value_parser = misdirected)]
        misdirected: StatusCode,
    },
    /// Register nodes with a master and exit, trying for a while where it cannot be done yet
    Register {
        /// The stand-in master, such as http://127.0.0.1:8141
        #[arg(long, value_name = "URL")]
        master: Url,
        /// The nodes it is to own
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Ask a URL once: exit code 0 when it answers with success, else 1 (for containers without
    /// curl)
    Healthcheck {
        /// What to ask, such as http://127.0.0.1:8080/healthz
        url: Url,
    },
}

fn misdirected(text: &str) -> Result<StatusCode, String> {
    [StatusCode::NOT_FOUND, StatusCode::MISDIRECTED_REQUEST]
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or_else(|| "it is 404 or 421".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().verb).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mocks: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Puppetdb { listen } => server::serve(listen, puppetdb::router()).await,
        Verb::Master { name, listen, puppetdb, certname, misdirected } => {
            let certname = certname.unwrap_or_else(|| name.clone());
            let master = master::Master::new(name, certname, &puppetdb, misdirected)?;
            server::serve(listen, master::router(master)).await
        }
        Verb::Register { master, nodes } => register(&master, &nodes).await,
        Verb::Healthcheck { url } => healthcheck(url).await,
    }
}

async fn register(master: &Url, nodes: &[String]) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(REGISTRATION_TIMEOUT).build()?;
    let give_up = Instant::now() + REGISTRATION_TIMEOUT;
    for node in nodes {
        let mut url = master.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("{master} is not a base address"))?
            .pop_if_empty()
            .extend(["nodes", node]);
        // A master that is starting, or cannot reach PuppetDB yet, is asked again: a registration
        // may be repeated.
        loop {
            let refusal = match client.put(url.clone()).send().await {
                Ok(answer) if answer.status().is_success() => break,
                Ok(answer) => {
                    format!("{}: {}", answer.status(), answer.text().await.unwrap_or_default())
                }
                Err(error) => format!("{:#}", anyhow::Error::from(error)),
            };
            anyhow::ensure!(Instant::now() < give_up, "{url} refuses: {refusal}");
            tokio::time::sleep(REGISTRATION_PAUSE).await;
        }
        println!("{node} is registered with {master}");
    }
    Ok(())
}

async fn healthcheck(url: Url) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(HEALTHCHECK_TIMEOUT).build()?;
    let answer =
        client.get(url.clone()).send().await.with_context(|| format!("{url} does not answer"))?;
    anyhow::ensure!(answer.status().is_success(), "{url} answered {}", answer.status());
    Ok(())
}
