//! What must not change while Mapsmith holds something or can't do it.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use super::super::laws::MapFile;
use super::{BOUND, Outcome, Whole, differs};
use crate::support::pool;
use crate::support::site::Nodes;

/// How long something is watched that must not change.
const WATCH: Duration = Duration::from_millis(20);

/// See [`Whole::photograph`].
#[derive(Debug, PartialEq, Eq)]
pub struct Photograph {
    memories: Vec<Nodes>,
    /// None where it is not compared.
    file: Option<MapFile>,
    servers: Vec<BTreeMap<String, (String, u32)>>,
}

impl Photograph {
    /// What is compared where server lists go their own way.
    pub fn without_servers(self) -> Self {
        Self { servers: Vec::new(), ..self }
    }

    fn difference(&self, other: &Self) -> String {
        for (gateway, (before, after)) in self.memories.iter().zip(&other.memories).enumerate() {
            if let Err(difference) =
                differs(&format!("the memory of gateway {gateway}"), after, before)
            {
                return difference;
            }
        }
        let (before, after) =
            (self.file.clone().unwrap_or_default(), other.file.clone().unwrap_or_default());
        if let Err(difference) = differs("the map file", &after.1, &before.1) {
            return difference;
        }
        format!(
            "revision {} -> {}, servers {:?} -> {:?}",
            before.0, after.0, self.servers, other.servers
        )
    }
}

impl Whole {
    /// What is in memory, in the file and among the servers now.
    pub fn photograph(&self) -> Result<Photograph, String> {
        let servers = self.gateways.iter().map(|gateway| {
            if self.site.servers { pool::servers(gateway) } else { BTreeMap::new() }
        });
        Ok(Photograph {
            file: Some(self.file()?),
            servers: servers.collect(),
            ..self.photograph_memory()?
        })
    }

    /// The same of memory alone: the file may be ahead, or none that can be read.
    pub fn photograph_memory(&self) -> Result<Photograph, String> {
        let memories: Option<_> =
            (0..self.gateways.len()).map(|gateway| self.memory(gateway)).collect();
        Ok(Photograph {
            memories: memories.ok_or("a gateway does not answer")?,
            file: None,
            servers: Vec::new(),
        })
    }

    /// Waits until `told` is, and for as long as `more` says, and sees that nothing at all changes.
    ///
    /// # Errors
    /// What changed, or that it was never told.
    pub fn stays(
        &self,
        before: &Photograph,
        what: &str,
        mut told: impl FnMut(&Self) -> bool,
    ) -> Outcome {
        let began = Instant::now();
        loop {
            let mut now =
                if before.file.is_none() { self.photograph_memory()? } else { self.photograph()? };
            if before.servers.is_empty() {
                now = now.without_servers();
            }
            if now != *before {
                return Err(format!(
                    "{what}: a part of it was applied: {}",
                    before.difference(&now)
                ));
            }
            if told(self) {
                return Ok(());
            }
            if began.elapsed() > BOUND {
                return Err(format!("{what}: not told within {BOUND:?}: {}", self.status()));
            }
            thread::sleep(WATCH);
        }
    }
}
