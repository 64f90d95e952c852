//! A daemon that polls the PuppetDB, and what it says of its polls.

use std::fs;
use std::ops::Sub;
use std::time::Duration;

use anyhow::Context as _;

use crate::common::site::{Site, wait_for};
use crate::common::{Daemon, call, status};
use crate::registry::Registry;

/// The daemon between the PuppetDB and a gateway, in sync.
pub(super) struct Polling {
    daemon: Daemon,
    api: String,
}

/// Polls that ended well.
#[derive(Clone, Copy)]
pub(super) struct Polls {
    pub(super) count: u64,
    /// All of them together.
    pub(super) took: Duration,
}

impl Polling {
    /// With these settings of `[schedule]`, and the defaults for all others.
    pub(super) fn start(site: &Site, registry: &Registry, schedule: &str) -> anyhow::Result<Self> {
        let (root, puppetdb) = (site.folder.path(), &registry.puppetdb);
        fs::write(
            root.join("mapsmith.toml"),
            format!(
                "[schedule]\n{schedule}\n[api]\nlisten = \"127.0.0.1:0\"\n[map]\npath = \"{}\"\n\
                 [[source]]\nname = \"puppetdb\"\ntype = \"puppetdb\"\nurl = \"{}\"\n\
                 ca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\n\
                 [[instance]]\nname = \"edge\"\nruntime = \"unix@{}\"\n",
                site.map(),
                puppetdb.tls_url(),
                puppetdb.ca().display(),
                puppetdb.certificate("gateway").display(),
                puppetdb.key("gateway").display(),
                site.socket().display()
            ),
        )?;
        let mut daemon = Daemon::start(root)?;
        let api = daemon.api(&root.join("log"))?;
        wait_for("the first map", || (call(&api, "GET", "/readyz").ok()?.0 == 200).then_some(()))?;
        let polling = Self { daemon, api };
        // What has moved since the last daemon is in force, too.
        polling.reload()?;
        Ok(polling)
    }

    pub(super) fn process(&self) -> u32 {
        self.daemon.0.id()
    }

    /// Has everything asked for, and waits until it is in force.
    pub(super) fn reload(&self) -> anyhow::Result<()> {
        let (status, answer) = call(&self.api, "POST", "/v1/reload?wait=1m")?;
        anyhow::ensure!(status == 200, "{status}: {answer}");
        Ok(())
    }

    /// All polls of a kind so far.
    pub(super) fn polls(&self, kind: &str) -> anyhow::Result<Polls> {
        let (_, text) = call(&self.api, "GET", "/metrics")?;
        let sample = |name: &str| {
            let series = format!(
                "mapsmith_source_poll_duration_seconds_{name}{{source=\"puppetdb\",\
                    kind=\"{kind}\"}} "
            );
            let value = text.lines().find_map(|line| line.strip_prefix(&series));
            // A series begins with its first poll.
            value.map_or(Ok(0.0), str::parse::<f64>)
        };
        Ok(Polls { count: sample("count")? as u64, took: Duration::from_secs_f64(sample("sum")?) })
    }

    /// The size of the last answer.
    pub(super) fn last_bytes(&self) -> anyhow::Result<u64> {
        status(&self.api)?["sources"][0]["last_poll"]["bytes"].as_u64().context("no last poll")
    }
}

impl Sub for Polls {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { count: self.count - other.count, took: self.took.saturating_sub(other.took) }
    }
}
