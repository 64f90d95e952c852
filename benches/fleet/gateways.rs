//! The HAProxys or stand-ins of one daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use haproxy_runtime::MapName;
use haproxy_runtime::wire::{Batches, Payloads};
use mapsmith_core::EntryMap;

use crate::common::maps::PAYLOAD;
use crate::common::{Gateway, processor};
use crate::stand_in::StandIns;

/// HAProxys with one thread each that share a map file, or stand-ins.
pub(super) struct Fleet {
    pub(super) map: String,
    pub(super) sockets: Vec<PathBuf>,
    /// None where they are stand-ins.
    pub(super) gateways: Vec<Gateway>,
    _stand_ins: Option<StandIns>,
    pub(super) folder: tempfile::TempDir,
}

impl Fleet {
    pub(super) fn start(binary: &Path, count: usize, entries: &EntryMap) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let map = folder.path().join("n.map");
        let mut text = Vec::new();
        mapsmith_core::map_file::print(
            entries,
            &mapsmith_core::map_file::Header { revision: 0, writer: None },
            [],
            &mut text,
        )?;
        fs::write(&map, text)?;
        let map = map.display().to_string();
        let sections = |root: &str| {
            format!(
                "frontend gateway\n  bind unix@{root}/http.sock\n  \
                 use_backend %[req.hdr(X-Node-Name),lower,map_str({map},none)]\nbackend none\n"
            )
        };
        let gateways: Vec<_> = (0..count)
            .map(|_| Gateway::start(binary, 1, |_| Ok(()), sections))
            .collect::<Result<_, _>>()?;
        let sockets = gateways.iter().map(Gateway::socket).collect();
        Ok(Self { map, sockets, gateways, _stand_ins: None, folder })
    }

    /// So many stand-ins for an untouched fleet of one HAProxy, which is needed no more then.
    pub(super) fn stand_in(of: Self, count: usize) -> anyhow::Result<Self> {
        let Self { map, mut gateways, folder, .. } = of;
        let sockets: Vec<_> =
            (0..count).map(|at| folder.path().join(format!("{at}.sock"))).collect();
        let model = gateways.pop().context("no HAProxy to stand in for")?;
        let stand_ins = StandIns::start(&model, &map, sockets.iter().map(PathBuf::as_path))?;
        Ok(Self { map, sockets, gateways, _stand_ins: Some(stand_ins), folder })
    }

    /// Of the HAProxys, or of all stand-ins: they are in this process.
    pub(super) fn processor(&self) -> Duration {
        if self.gateways.is_empty() {
            return processor(std::process::id());
        }
        self.gateways.iter().map(Gateway::processor).sum()
    }

    /// The same lines to every HAProxy at once, from a plain client with a thread for each; no
    /// check of any answer.
    pub(super) fn blast(&self, lines: &[Vec<u8>]) -> anyhow::Result<Duration> {
        let barrier = Barrier::new(self.gateways.len() + 1);
        std::thread::scope(|scope| {
            let send = |gateway: &Gateway| {
                barrier.wait();
                lines.iter().try_for_each(|line| gateway.call(line).map(drop))
            };
            let clients: Vec<_> =
                self.gateways.iter().map(|gateway| scope.spawn(move || send(gateway))).collect();
            barrier.wait();
            let start = Instant::now();
            for client in clients {
                client.join().map_err(|_| anyhow::anyhow!("a client died"))??;
            }
            Ok(start.elapsed())
        })
    }

    /// A whole swap to `entries`. Every HAProxy must be at the same version.
    pub(super) fn floor_of_a_swap(&self, entries: &EntryMap) -> anyhow::Result<Duration> {
        let prepare = format!("prepare map {}\n", self.map);
        let start = Instant::now();
        let answers: Vec<_> = self
            .gateways
            .iter()
            .map(|gateway| gateway.call(prepare.as_bytes()))
            .collect::<Result<_, _>>()?;
        let prepared = start.elapsed();
        anyhow::ensure!(
            answers.iter().all(|answer| *answer == answers[0]),
            "the instances are at different versions"
        );
        let answer = String::from_utf8_lossy(&answers[0]);
        let version = answer.trim().rsplit(' ').next().unwrap_or_default();
        let header = format!("add map @{version} {} <<", self.map);
        let (mut payloads, mut lines, mut payload) =
            (Payloads::new(&header, entries.iter(), PAYLOAD), Vec::new(), Vec::new());
        while payloads.next_into(&mut payload) {
            lines.push(payload.clone());
        }
        lines.push(format!("commit map @{version} {}\n", self.map).into_bytes());
        Ok(prepared + self.blast(&lines)?)
    }

    /// The single commands from `from` to `to`, which has the same nodes.
    pub(super) fn floor_of_edits(
        &self,
        from: &EntryMap,
        to: &EntryMap,
    ) -> anyhow::Result<Duration> {
        let map = MapName::new(&self.map);
        let moved = from
            .iter()
            .zip(to.iter())
            .filter(|(from, to)| from != to)
            .map(|(_, (key, value))| map.set(key, value));
        let lines: Vec<_> =
            Batches::new(moved, PAYLOAD, usize::MAX).map(|(line, _)| line).collect();
        self.blast(&lines)
    }
}
