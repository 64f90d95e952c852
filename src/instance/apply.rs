//! Carries a map plan out: stage, verify, commit; or single commands and their verification.

use std::time::{Duration, Instant};

use haproxy_runtime::{MapClient, RuntimeError};
use mapsmith_core::EntryMap;
use mapsmith_core::plan::{Deviation, Edit, EditCounts, ReadBack};
use mapsmith_core::revision::ChangeCounts;
use mapsmith_core::status::StepTiming;

/// Why a change was not brought to its end. The live map is as it was, or, where single commands
/// failed, partly changed towards the wanted map; a full read-back follows either way.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A command failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The staged version is not what was sent; it was not committed.
    #[error(
        "the staged version {version} differs from what was sent ({counts}, {duplicates} \
            duplicate); it was not committed"
    )]
    StagedDiffers {
        /// The version.
        version: u64,
        /// What differs.
        counts: ChangeCounts,
        /// Keys that are there twice.
        duplicates: usize,
    },
    /// A key does not answer what it was set to.
    #[error(
        "after the change {key:?} answers {found:?} instead of {expected:?}: another writer, or \
            staged versions in the way"
    )]
    KeyDiffers {
        /// The node.
        key: String,
        /// What should be.
        expected: Option<String>,
        /// What is.
        found: Option<String>,
    },
}

/// The steps of a change with their durations.
#[derive(Debug, Default)]
pub struct Timings {
    steps: Vec<StepTiming>,
    rested: Duration,
}

impl Timings {
    /// Runs and times one step.
    pub async fn step<T>(&mut self, name: &str, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let result = work.await;
        self.steps.push(StepTiming::new(name, start.elapsed()));
        result
    }

    /// How long HAProxy was left alone in between, which is part of the steps' durations and none
    /// of the change's cost.
    pub fn rested(&self) -> Duration {
        self.rested
    }

    /// All steps so far.
    pub fn into_steps(self) -> Vec<StepTiming> {
        self.steps
    }
}

/// Reads a version, or the live map, and compares it with `wanted`: the deviation and the number of
/// entries read. Of about `expected` entries, or as many as are wanted.
///
/// # Errors
/// When the listing can't be had whole.
pub async fn read_back(
    client: &MapClient,
    version: Option<u64>,
    expected: usize,
    wanted: &EntryMap,
) -> Result<(Deviation, usize), RuntimeError> {
    let mut read_back = ReadBack::new(wanted);
    client
        .list(version, expected.max(wanted.len()), |key, value| read_back.entry(key, value))
        .await?;
    let entries = read_back.entries();
    Ok((read_back.finish(), entries))
}

/// Brings the whole map in as a new version and makes it the live one, verified before the commit.
/// Returns the version.
///
/// # Errors
/// When a step fails. Before the commit the version is dropped then as far as HAProxy does that;
/// what stays of it dies at the next commit. Once a commit was sent nothing is dropped: it may
/// still be carried out, and the version is then the live map.
pub async fn swap(
    client: &MapClient,
    wanted: &EntryMap,
    timings: &mut Timings,
) -> Result<u64, ApplyError> {
    let version = timings.step("prepare", client.prepare()).await?;
    if let Err(error) = fill(client, version, wanted, timings).await {
        // Best effort on a socket that just failed us: the error that led here is the one to tell.
        let _ = drop_uncommitted(client, version).await;
        return Err(error);
    }
    timings.step("commit", client.commit(version)).await?;
    Ok(version)
}

/// Drops a version unless it is the live one, which `clear map @version` would empty under the
/// traffic: another process or writer may have given the number to its live map.
async fn drop_uncommitted(client: &MapClient, version: u64) -> Result<(), RuntimeError> {
    let uncommitted = client
        .probe()
        .await?
        .map
        .is_some_and(|map| map.live_version < version && version <= map.last_prepared);
    if uncommitted { client.clear(version).await } else { Ok(()) }
}

async fn fill(
    client: &MapClient,
    version: u64,
    wanted: &EntryMap,
    timings: &mut Timings,
) -> Result<(), ApplyError> {
    let mut rested = Duration::ZERO;
    let staged = timings.step("stage", client.stage(version, wanted.iter(), &mut rested)).await;
    timings.rested += rested;
    staged?;
    let (deviation, _) =
        timings.step("verify", read_back(client, Some(version), 0, wanted)).await?;
    if !deviation.is_none() {
        return Err(ApplyError::StagedDiffers {
            version,
            counts: deviation.counts(),
            duplicates: deviation.duplicates,
        });
    }
    Ok(())
}

/// Runs single commands on the live map, at most `most` of a kind a line, and looks every touched
/// key up as traffic does.
///
/// # Errors
/// When a command fails or a key answers something else.
pub async fn edit(
    client: &MapClient,
    edits: &[Edit],
    most: EditCounts,
    timings: &mut Timings,
) -> Result<(), ApplyError> {
    let map = client.map();
    let command = |edit: &Edit| match edit {
        Edit::Add { key, value } => map.add(key, value),
        Edit::Set { key, value } => map.set(key, value),
        Edit::Remove { key } => map.remove(key),
    };
    let (adding, walking): (Vec<_>, Vec<_>) =
        edits.iter().partition(|edit| matches!(edit, Edit::Add { .. }));
    let mut rested = Duration::ZERO;
    let run = async {
        client.run(adding.into_iter().map(command), most.adding, &mut rested).await?;
        client.run(walking.into_iter().map(command), most.walking, &mut rested).await
    };
    let done = timings.step("edit", run).await;
    timings.rested += rested;
    done?;
    let mut differing = None;
    let look_up = client.look_up(edits.iter().map(Edit::key), |position, found| {
        let edit = &edits[position];
        if found != edit.value() && differing.is_none() {
            differing = Some(ApplyError::KeyDiffers {
                key: edit.key().to_owned(),
                expected: edit.value().map(str::to_owned),
                found: found.map(str::to_owned),
            });
        }
    });
    timings.step("verify", look_up).await?;
    differing.map_or(Ok(()), Err)
}
