//! Waiting until what was read of certificates and CRLs is in force in every instance.

use futures_util::future::join_all;
use mapsmith_core::tls_file::TlsFileState;
use tokio::time::{Instant, timeout_at};

use super::Api;
use super::types::ReloadOutcome;
use crate::instance::InstanceReport;
use crate::settings;
use crate::tls_file::InForce;

/// How a reload ended for the files, a sentence each.
#[derive(Debug, Default)]
pub(super) struct TlsFilesReload {
    /// Files with another content than before.
    replaced: Vec<String>,
    /// Files whose `from` gave nothing that may come into force.
    failed: Vec<String>,
    /// Files that an instance does not hold, and why.
    behind: Vec<String>,
}

impl TlsFilesReload {
    /// The end of a reload as it is with this beside the sources' own.
    pub(super) fn beside(
        self,
        (outcome, message): (ReloadOutcome, String),
    ) -> (ReloadOutcome, String) {
        let outcome = match outcome {
            ReloadOutcome::InSync if !self.failed.is_empty() => ReloadOutcome::SourceFailed,
            ReloadOutcome::InSync if !self.behind.is_empty() => ReloadOutcome::Behind,
            outcome => outcome,
        };
        // What went wrong comes first.
        let parts = self.failed.into_iter().chain(self.behind).chain([message]);
        (outcome, parts.chain(self.replaced).collect::<Vec<_>>().join("; "))
    }
}

impl Api {
    /// The number of each file's content now.
    pub(super) fn tls_file_numbers(&self) -> Vec<u64> {
        self.tls_files.iter().map(|file| file.borrow().number).collect()
    }

    /// Waits until every file's `from` was read for the request and every instance that has loaded
    /// it was seen to hold the result, or to be unable to. `before` are the contents' numbers when
    /// it was asked for.
    pub(super) async fn tls_files_in_force(
        &self,
        before: &[u64],
        request: u64,
        deadline: Instant,
    ) -> TlsFilesReload {
        let read = join_all(self.tls_files.iter().map(|file| async {
            let mut file = file.clone();
            // A task that ended reads nothing more.
            let _ = timeout_at(deadline, file.wait_for(|file| file.answered >= request)).await;
            file.borrow().clone()
        }))
        .await;
        let mut reload = TlsFilesReload::default();
        for ((file, settings), before) in read.iter().zip(&self.settings.tls_files).zip(before) {
            let InForce { status, number, answered, .. } = file;
            let (kind, path) = (status.kind, &status.path);
            match &status.error {
                _ if *answered < request => {
                    reload.failed.push(format!("{kind} {path}: not read in time"));
                }
                Some(error) => reload
                    .failed
                    .push(format!("{kind} {path}: not taken: {error}; what is in force stays")),
                None if number != before => {
                    reload.replaced.push(format!("{kind} {path} is another one now"));
                }
                None => {}
            }
            reload.behind.extend(self.tls_file_behind(settings, *number, deadline).await);
        }
        reload
    }

    /// Waits until every instance that has loaded the file has been given that content. Those that
    /// do not hold it, each with the reason.
    async fn tls_file_behind(
        &self,
        file: &settings::TlsFile,
        number: u64,
        deadline: Instant,
    ) -> Vec<String> {
        let path = file.path.display().to_string();
        let instances = self.instances.iter().filter(|instance| {
            // Nothing is in force yet.
            number > 0 && file.is_of(&instance.borrow().status.name)
        });
        let reasons = join_all(instances.map(|instance| async {
            let mut instance = instance.clone();
            let is_given = |report: &InstanceReport| why_behind(report, &path, number).is_ok();
            let _ = timeout_at(deadline, instance.wait_for(is_given)).await;
            let report = instance.borrow();
            let name = &report.status.name;
            match why_behind(&report, &path, number) {
                Ok(None) => None,
                Ok(Some(why)) | Err(why) => Some(format!("{name}: {} {path} {why}", file.kind)),
            }
        }))
        .await;
        reasons.into_iter().flatten().collect()
    }
}

/// Why an instance does not hold a file's content, if it does not. An error goes by itself.
fn why_behind(report: &InstanceReport, path: &str, number: u64) -> Result<Option<String>, String> {
    let found = report.status.tls_files.iter().find(|file| file.path == path);
    match found.map(|file| &file.state) {
        Some(TlsFileState::Failed { error }) => Err(format!("is not there: {error}")),
        _ if report.tls_files.get(path).is_none_or(|given| *given < number) => {
            Err("is not there yet".to_owned())
        }
        Some(TlsFileState::NeedsReload { reason }) => {
            Ok(Some(format!("needs a reload of HAProxy: {reason}")))
        }
        _ => Ok(None),
    }
}
