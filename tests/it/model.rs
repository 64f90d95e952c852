//! The planner's model of HAProxy's memory held against the process: the same plan leaves the same
//! memory in both.

use std::cell::Cell;
use std::time::Duration;

use haproxy_runtime::HaproxyVersion;
use haproxy_runtime::{MapClient, MapName, RuntimeClient};
use mapsmith::instance::apply::{self, Timings};
use mapsmith_core::EntryMap;
use mapsmith_core::plan::map::MapFacts;
use mapsmith_core::plan::replay::{Entry, replay};
use mapsmith_core::plan::{CostModel, EditCounts, MapPlan, ReadBack, plan_map};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::haproxy::{Gateway, installed};

const UNBOUNDED: EditCounts = EditCounts { adding: usize::MAX, walking: usize::MAX };

/// Few letters, so that a memory and a wanted map share keys; and what command lines, payloads and
/// listings could trip over.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![6 => "[a-c]{1,2}", 2 => r#"[a-c;\\"'é@$]{1,4}"#, 1 => "n{250,255}"]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![6 => "[mno]", 1 => r#"[m;\\"'é]{1,4}"#, 1 => "m{250,255}"]
}

/// As HAProxy might hold it: in any order, at times with duplicates or with keys that no command
/// line can name.
fn memory() -> impl Strategy<Value = Vec<Entry>> {
    let odd_key = prop_oneof![6 => key(), 1 => "#[a-f]", 1 => "<<[a-c]"];
    let orderly = proptest::collection::btree_map(key(), value(), 1..30)
        .prop_map(|entries| entries.into_iter().collect());
    let orderly =
        Strategy::prop_shuffle(orderly.prop_map(|entries: Vec<(String, String)>| entries));
    let entries =
        prop_oneof![3 => orderly, 1 => proptest::collection::vec((odd_key, value()), 0..30)];
    entries.prop_map(|entries| {
        entries.into_iter().map(|(key, value)| (key.into_bytes(), value.into_bytes())).collect()
    })
}

fn wanted() -> impl Strategy<Value = EntryMap> {
    let entries = proptest::collection::btree_map(key(), value(), 1..30);
    entries.prop_map(|entries| {
        entries.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    })
}

/// A gateway's map through the library, as Mapsmith itself works.
struct Process {
    gateway: Gateway,
    client: MapClient,
    runtime: tokio::runtime::Runtime,
}

impl Process {
    fn start(gateway: Gateway) -> Self {
        let address = gateway.runtime_address().parse().expect("an address");
        let client = MapClient::new(
            RuntimeClient::new(address, Duration::from_secs(60)),
            MapName::new(gateway.map_path()),
            1024,
        );
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { gateway, client, runtime }
    }

    /// Makes its memory this, by hand.
    fn hold(&self, memory: &[Entry]) {
        let map = self.gateway.map_path();
        assert_eq!(self.gateway.command(&format!("clear map {map}")), "\n");
        for (key, value) in memory {
            let line =
                format!("{} {}", String::from_utf8_lossy(key), String::from_utf8_lossy(value));
            assert_eq!(self.gateway.command(&format!("add map {map} <<\n{line}\n\n")), "\n");
        }
    }

    fn memory(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let list =
            self.client.list(None, 0, |key, value| entries.push((key.to_vec(), value.to_vec())));
        self.runtime.block_on(list).expect("the map is listed");
        entries
    }

    fn apply(&self, plan: &MapPlan, wanted: &EntryMap) {
        let mut timings = Timings::default();
        let result = self.runtime.block_on(async {
            match plan {
                MapPlan::InSync => Ok(()),
                MapPlan::Edit { edits, .. } => {
                    apply::edit(&self.client, edits, UNBOUNDED, &mut timings).await
                }
                MapPlan::Swap { .. } => {
                    apply::swap(&self.client, wanted, &mut timings).await.map(|_| ())
                }
            }
        });
        result.unwrap_or_else(|error| panic!("{plan:?}: {error}"));
    }
}

#[test]
fn a_plan_leaves_the_same_memory_in_the_model_and_in_the_process() {
    for binary in installed() {
        let process = Process::start(Gateway::plan(binary).start());
        let version =
            HaproxyVersion { major: binary.version.0 as u16, minor: binary.version.1 as u16 };
        let (edited, swapped) = (Cell::new(0), Cell::new(0));
        // A failed case is printed, with what it shrank to; a file of seeds would only be in the
        // way.
        let config = Config { cases: 100, failure_persistence: None, ..Config::default() };
        let property = |(memory, wanted, swaps): (Vec<Entry>, EntryMap, bool)| {
            process.hold(&memory);
            let held = process.memory();
            prop_assert_eq!(&held, &memory, "what was put in by hand");
            let mut read_back = ReadBack::new(&wanted);
            held.iter().for_each(|(key, value)| read_back.entry(key, value));
            // Small maps would nearly always be edited; staged entries make it a swap.
            let facts = MapFacts {
                entries: held.len(),
                staged_entries: usize::from(swaps),
                cost: CostModel::new(version),
            };
            let plan = plan_map(&wanted, &read_back.finish(), &facts);
            match &plan {
                MapPlan::InSync => {}
                MapPlan::Edit { .. } => edited.set(edited.get() + 1),
                MapPlan::Swap { .. } => swapped.set(swapped.get() + 1),
            }
            process.apply(&plan, &wanted);
            prop_assert_eq!(
                process.memory(),
                replay(&held, &plan, &wanted),
                "HAProxy {:?}, {:?}",
                version,
                plan
            );
            Ok(())
        };
        TestRunner::new(config)
            .run(&(memory(), wanted(), any::<bool>()), property)
            .unwrap_or_else(|failure| panic!("HAProxy {version}: {failure}"));
        assert!(
            edited.get() > 10 && swapped.get() > 10,
            "both ways were taken: {} and {}",
            edited.get(),
            swapped.get()
        );
    }
}
