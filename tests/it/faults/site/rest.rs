//! When everything is in sync: memory, file, servers and what Mapsmith says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::PoisonError;
use std::time::Instant;

use serde_json::Value;

use super::super::client::memory_of;
use super::super::laws::{Excuse, MapFile, read_map};
use super::{BOUND, Outcome, Rest, Whole, differs, is_held};
use crate::support::site::{Nodes, counters};
use crate::support::{poll, pool};

impl Whole {
    /// A gateway's live map, sorted.
    pub fn memory(&self, gateway: usize) -> Option<Nodes> {
        let mut entries = memory_of(
            &self.gateways[gateway].runtime_address(),
            &self.map_path().display().to_string(),
        )?;
        entries.sort();
        Some(entries)
    }

    pub fn file(&self) -> Result<MapFile, String> {
        let text = fs::read(self.map_path()).map_err(|error| format!("the map file: {error}"))?;
        read_map(&text).map_err(|error| format!("the map file: {error}"))
    }

    /// Waits until every instance holds what should be there, and Mapsmith says so; then the next
    /// fault may come.
    ///
    /// # Errors
    /// What is still not as it should be when the bound is over.
    pub fn settle(&mut self) -> Outcome {
        let began = Instant::now();
        self.nudge();
        self.settles_on(&self.expected())?;
        self.longest = self.longest.max(began.elapsed());
        self.laws.look_at_file(&self.map_path());
        self.laws.rest();
        for gateway in 0..self.gateways.len() {
            self.laws.closed(gateway, Excuse::Old);
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) =
            self.registry.keys().cloned().collect::<BTreeSet<_>>();
        let file = fs::read(self.map_path()).map_err(|error| format!("the map file: {error}"))?;
        self.rests.push(Rest { file, registry: self.registry.clone() });
        self.journal.note("  at rest");
        Ok(())
    }

    /// Waits until all say exactly this.
    ///
    /// # Errors
    /// As [`Self::settle`].
    pub fn settles_on(&self, expected: &Nodes) -> Outcome {
        let mut short = String::new();
        let settled = poll(BOUND, || match self.is_settled(expected) {
            Ok(()) => Some(()),
            Err(reason) => {
                short = reason;
                None
            }
        });
        settled.ok_or_else(|| format!("not at rest after {BOUND:?}: {short}"))
    }

    /// Waits until file and memories say exactly this, whatever Mapsmith says of it.
    ///
    /// # Errors
    /// As [`Self::settle`].
    pub fn holds(&self, expected: &Nodes) -> Outcome {
        let mut short = String::new();
        let held =
            poll(BOUND, || self.is_held_by_all(expected).map_err(|reason| short = reason).ok());
        held.map(drop).ok_or_else(|| format!("not so after {BOUND:?}: {short}"))
    }

    /// Whether every gateway has exactly these entries.
    pub fn is_in_memory(&self, entries: &Nodes) -> bool {
        (0..self.gateways.len()).all(|gateway| self.memory(gateway).as_ref() == Some(entries))
    }

    /// The file's revision, where file and memories say this.
    fn is_held_by_all(&self, expected: &Nodes) -> Result<u64, String> {
        let (revision, file) = self.file()?;
        differs("the map file", &file, expected)?;
        for gateway in 0..self.gateways.len() {
            let memory =
                self.memory(gateway).ok_or_else(|| format!("gateway {gateway} does not answer"))?;
            differs(&format!("the memory of gateway {gateway}"), &memory, expected)?;
        }
        Ok(revision)
    }

    pub(super) fn is_settled(&self, expected: &Nodes) -> Outcome {
        let status = self.status();
        let not_null = |value: &Value, what: &str| {
            if value.is_null() { Ok(()) } else { Err(format!("{what}: {value}")) }
        };
        let file_revision = self.is_held_by_all(expected)?;
        let beside =
            fs::read_dir(self.map_volume.path()).map_err(|error| error.to_string())?.flatten();
        let beside: Vec<_> =
            beside.map(|file| file.file_name()).filter(|name| name != "node-master.map").collect();
        if !beside.is_empty() {
            return Err(format!("{beside:?} are left beside the map file"));
        }
        for gateway in 0..self.gateways.len() {
            let counted = counters(&self.gateways[gateway]).entries;
            if counted != expected.len() as u64 {
                return Err(format!(
                    "gateway {gateway} counts {counted} entries instead of {}: staged ones are \
                        left",
                    expected.len()
                ));
            }
            let instance = &status["instances"][gateway];
            if instance["state"] != "in_sync" || instance["revision"] != file_revision {
                return Err(format!("Mapsmith says of gateway {gateway}: {instance}"));
            }
            if self.site.servers {
                self.are_servers_settled(gateway, instance)?;
            }
        }
        for source in status["sources"].as_array().into_iter().flatten() {
            not_null(&source["error"], "a source")?;
        }
        not_null(&status["map_file"]["error"], "the map file")?;
        if is_held(&status) { Err(format!("held: {}", status["held"])) } else { Ok(()) }
    }

    fn are_servers_settled(&self, gateway: usize, instance: &Value) -> Outcome {
        let wanted: BTreeMap<_, _> = self
            .servers
            .iter()
            .map(|(name, master)| {
                (name.clone(), self.server_masters[*master].address().to_string())
            })
            .collect();
        let ready = pool::ready(&self.gateways[gateway]);
        let all = pool::servers(&self.gateways[gateway]).len();
        if ready != wanted || all != wanted.len() {
            return Err(format!(
                "gateway {gateway} has {all} servers, ready {ready:?}, instead of {wanted:?}"
            ));
        }
        if instance["servers"]["state"] != "in_sync" {
            return Err(format!("Mapsmith says of gateway {gateway}: {instance}"));
        }
        Ok(())
    }

    /// Every node's answer, once more, now that all is in sync.
    pub fn ask_for_all(&self) -> Outcome {
        for (node, master) in self.expected() {
            for gateway in &self.gateways {
                let answer = gateway.request(&node);
                if answer != (200, master.clone()) {
                    return Err(format!(
                        "at rest {node} is answered by {answer:?} instead of {master}"
                    ));
                }
            }
        }
        Ok(())
    }
}
