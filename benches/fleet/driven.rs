//! A daemon that drives a fleet, and what was measured of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::Value;

use super::gateways::Fleet;
use crate::common::maps::Registry;
use crate::common::{Daemon, processor};

/// A daemon and the instances that it drives.
pub(super) struct Driven {
    pub(super) daemon: Daemon,
    pub(super) url: String,
    pub(super) log: PathBuf,
}

/// One change of the registry.
#[derive(Default)]
pub(super) struct Sample {
    /// From the reload's request to its answer.
    pub(super) whole: Vec<Duration>,
    /// From the revision to the last instance that has it.
    pub(super) spread: Vec<Duration>,
    pub(super) own: Vec<Duration>,
    pub(super) haproxy: Vec<Duration>,
    /// How many instances came there by which strategy, over all samples.
    pub(super) strategies: BTreeMap<String, usize>,
}

impl Driven {
    pub(super) fn start(fleet: &Fleet, registry: &Registry) -> anyhow::Result<Self> {
        let root = fleet.folder.path();
        let mut settings = format!(
            "[schedule]\npoll = \"1h\"\n[api]\nlisten = \"127.0.0.1:0\"\n[map]\npath \
                = \"{}\"\n[guard]\nmax_moved = \"100%\"\n[damping]\nhold = \"0s\"\n[[source]]\n\
             name = \"puppetdb\"\ntype = \"puppetdb\"\nurl = \"{}\"\nfull_poll = \"1ms\"\n",
            fleet.map, registry.url
        );
        for (at, socket) in fleet.sockets.iter().enumerate() {
            // With a hundred HAProxys on a few processors each of them is slow.
            let _ = writeln!(
                settings,
                "[[instance]]\nname = \"edge{at}\"\nruntime = \"unix@{}\"\ntimeout = \"60s\"",
                socket.display()
            );
        }
        fs::write(root.join("mapsmith.toml"), settings)?;
        let log = root.join("log");
        let mut daemon = Daemon::start(root)?;
        let url = daemon.api(&log)?;
        Ok(Self { daemon, url, log })
    }

    pub(super) fn processor(&self) -> Duration {
        processor(self.daemon.0.id())
    }

    /// By hand: `mapsmith reload` is a process more.
    pub(super) fn reload(&self, query: &str) -> anyhow::Result<Value> {
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(
            format!(
                "POST /v1/reload{query} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n"
            )
            .as_bytes(),
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        serde_json::from_str(body).with_context(|| body.to_owned())
    }

    pub(super) fn in_sync(&self) -> anyhow::Result<Value> {
        let report = self.reload("?wait=5m")?;
        anyhow::ensure!(
            report["outcome"] == "in_sync",
            "not in sync: {} {}",
            report["message"],
            report["detail"]
        );
        Ok(report)
    }

    /// Has the sources asked, and takes the time until every instance is in sync.
    pub(super) fn take(&self, fleet: &Fleet, sample: &mut Sample) -> anyhow::Result<()> {
        let (own, haproxy, start) = (self.processor(), fleet.processor(), Instant::now());
        let report = self.in_sync()?;
        sample.whole.push(start.elapsed());
        sample.own.push(self.processor() - own);
        sample.haproxy.push(fleet.processor() - haproxy);
        let revision = report["revision"].as_u64().context("no revision")?;
        let arrivals = self.arrivals(revision)?;
        anyhow::ensure!(
            arrivals.len() == fleet.sockets.len(),
            "{} have revision {revision}",
            arrivals.len()
        );
        for (_, strategy) in &arrivals {
            *sample.strategies.entry(strategy.clone()).or_default() += 1;
        }
        sample.spread.extend(arrivals.iter().map(|(took, _)| *took).max());
        Ok(())
    }

    /// When each instance had applied a revision, counted from when it was made, and by which
    /// strategy.
    pub(super) fn arrivals(&self, revision: u64) -> anyhow::Result<Vec<(Duration, String)>> {
        let (mut made, mut arrivals) = (None, Vec::new());
        for line in fs::read_to_string(&self.log)?.lines() {
            let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let fields = &line["fields"];
            if fields["revision"] != revision {
                continue;
            }
            let message = fields["message"].as_str().unwrap_or_default();
            let at: Timestamp = line["timestamp"].as_str().context("no time")?.parse()?;
            if message.starts_with("new revision") {
                made = Some(at);
            } else if message == "map applied and verified" {
                let took = Duration::try_from(
                    at.duration_since(made.context("applied before it was made")?),
                )?;
                arrivals.push((took, fields["strategy"].as_str().unwrap_or_default().to_owned()));
            }
        }
        Ok(arrivals)
    }
}
