//! What others wait while many clients want nothing, say little, or wait for another map.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::Client;
use reqwest::header::RETRY_AFTER;

use crate::common::Daemon;
use crate::figures::{quantile, row};
use crate::running::{TOKEN, cost, token};

/// Connections that say nothing, not even a TLS handshake.
const SILENT: usize = 500;
/// Those that send a part of a head, of a body, each of them.
const SLOW: usize = 50;
/// Clients that wait for another map, and how often each does.
const WAITING: usize = 50;
const WAITS: usize = 20;
/// Questions of somebody else, one after the other.
const ASKED: usize = 300;

/// A client that is ended with this.
struct Waiting(Child);

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `url` is the daemon's API over TLS, whose certificate is in `folder`.
pub async fn measure(
    daemon: &Daemon,
    admin: &Client,
    url: &str,
    folder: &Path,
) -> anyhow::Result<()> {
    let alone = asked(admin, url).await?;
    let (memory, _) = cost(daemon).await?;
    println!("\nsomebody else's questions, over TLS; milliseconds, p50 / p99");
    row("nobody beside them", &alone, None);
    let usual = quantile(&alone, 0.5);

    let address = url.trim_start_matches("https://").replace("localhost", "127.0.0.1");
    let silent: Vec<_> =
        (0..SILENT).map(|_| TcpStream::connect(&address)).collect::<Result<_, _>>()?;
    row(&format!("{SILENT} connections without a word"), &asked(admin, url).await?, Some(usual));
    drop(silent);

    let mut slow = Vec::new();
    for text in [
        "GET /v1/status HTTP/1.1\r\nHos",
        "PUT /v1/overrides/n HTTP/1.1\r\nHost: localhost\r\n\
        Content-Length: 20\r\n\r\n{",
    ] {
        for _ in 0..SLOW {
            slow.push(half_sent(&address, text, folder)?);
        }
    }
    row(&format!("{} half requests", slow.len()), &asked(admin, url).await?, Some(usual));
    drop(slow);

    let mut waiting = Vec::new();
    let revision = revision(admin, url).await?;
    for number in 0..WAITING {
        let token = token(admin, url, 1000 + number).await?;
        waiting.push(wait(&format!("{url}/v1/map?revision={revision}&wait=5m"), &token, folder)?);
    }
    let told = refused(admin, url, revision).await?;
    row(
        &format!("{} waits for another map", WAITING * WAITS),
        &asked(admin, url).await?,
        Some(usual),
    );
    println!(
        "  one more wait is answered with {told}; the daemon's memory is {:.2} x that without any",
        cost(daemon).await?.0 / memory
    );
    Ok(())
}

/// A request whose rest never comes.
fn half_sent(address: &str, text: &str, folder: &Path) -> anyhow::Result<Waiting> {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-quiet", "-verify_quiet", "-connect", address, "-CAfile"]);
    client.arg(folder.join("cert.pem")).stdin(Stdio::piped());
    let mut client = Waiting(client.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let stdin = client.0.stdin.as_mut().context("its input")?;
    stdin.write_all(text.as_bytes())?;
    Ok(client)
}

/// Many at once over one connection.
fn wait(url: &str, token: &str, folder: &Path) -> anyhow::Result<Waiting> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--http2", "--parallel", "--cacert"]).arg(folder.join("cert.pem"));
    curl.args(["--header", &format!("Authorization: Bearer {token}")]);
    curl.args(vec![url; WAITS]).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Waiting(curl.spawn().context("curl is missing: run scripts/setup")?))
}

async fn revision(admin: &Client, url: &str) -> anyhow::Result<u64> {
    let map = admin.get(format!("{url}/v1/map")).bearer_auth(TOKEN).send().await?;
    let map: serde_json::Value = map.error_for_status()?.json().await?;
    map["revision"].as_u64().context("a map is in force")
}

/// What a wait too many is told, once there are that many.
async fn refused(admin: &Client, url: &str, revision: u64) -> anyhow::Result<String> {
    let start = Instant::now();
    loop {
        let asked = admin.get(format!("{url}/v1/map?revision={revision}&wait=10ms"));
        let answer = asked.bearer_auth(TOKEN).send().await?;
        if answer.headers().contains_key(RETRY_AFTER) {
            return Ok(answer.status().to_string());
        }
        anyhow::ensure!(start.elapsed() < Duration::from_secs(60), "{}", answer.status());
    }
}

async fn asked(admin: &Client, url: &str) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::new();
    for number in 0..ASKED {
        let node = format!("{url}/v1/nodes?prefix=node{:05}", number * 7);
        let start = Instant::now();
        let answer = admin.get(node).bearer_auth(TOKEN).send().await?;
        answer.error_for_status()?.bytes().await?;
        took.push(start.elapsed());
        // No more than fifty a second are taken of one.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(took)
}
