//! The files of certificates and revocations of one HAProxy: compare, replace, compare again.
//!
//! A process that was started after a file was written has its content already, so nothing is sent
//! before HAProxy was asked what it holds. What only a reload can bring is said, not tried.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use haproxy_runtime::cert::client::Held;
use haproxy_runtime::cert::{CertRefusal, FileKind, MIXES_COMMITS, StoredFile, payload};
use haproxy_runtime::{CertClient, HaproxyVersion, ReplyError, RuntimeError};
use jiff::Timestamp;
use mapsmith_core::tls_file::{InstanceTlsFile, TlsFileState};
use metrics::gauge;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::settings;
use crate::telemetry::{TLS_FILES_IN_SYNC, TLS_FILES_NEED_RELOAD};
use crate::tls_file::InForce;
use crate::tls_file::content::Content;

/// Between a failure and the next try.
const RETRY: Duration = Duration::from_secs(5);
/// By how much a process may be older than its uptime, which is in whole seconds.
const UPTIME_GRAIN: Duration = Duration::from_secs(1);

/// What an instance's task keeps of its files.
pub struct CertificatePhase {
    name: String,
    client: CertClient,
    /// Between two comparisons where nothing changes.
    every: Duration,
    /// When this began to see what is done to the instance.
    began: Instant,
    /// Certificates first: see [`MIXES_COMMITS`].
    files: Vec<Tracked>,
    /// What is known of the process that answers; none of a new one.
    process: Option<Process>,
}

#[derive(Debug, Clone, Copy)]
struct Process {
    version: HaproxyVersion,
    largest_payload: usize,
    /// Whether a CA file or CRL was replaced in its memory, or may have been before we looked.
    replaced_cas: bool,
}

struct Tracked {
    file: StoredFile,
    in_force: watch::Receiver<InForce>,
    /// The number of the content that it was last compared with, or given, whatever came of it; 0
    /// where there is none. A content that comes back has another one.
    number: u64,
    /// What it was last seen to hold.
    held: Option<Arc<Content>>,
    due: Instant,
    status: InstanceTlsFile,
}

impl CertificatePhase {
    /// Of the files that this instance has loaded; none where it has loaded none of them. `every`
    /// is the time between two comparisons while nothing changes. Touches nothing yet.
    pub fn new<'s>(
        instance: &settings::Instance,
        files: impl IntoIterator<Item = (&'s settings::TlsFile, watch::Receiver<InForce>)>,
        every: Duration,
    ) -> Option<Self> {
        let now = Instant::now();
        let files = files.into_iter().filter(|(file, _)| file.is_of(&instance.name));
        let mut files: Vec<_> = files
            .map(|(file, in_force)| {
                let path = file.path.to_string_lossy().into_owned();
                Tracked {
                    file: StoredFile::new(file.kind, &path),
                    in_force,
                    number: 0,
                    held: None,
                    due: now,
                    status: InstanceTlsFile {
                        path,
                        kind: file.kind,
                        state: TlsFileState::Waiting,
                        changed_at: None,
                    },
                }
            })
            .collect();
        if files.is_empty() {
            return None;
        }
        files.sort_by_key(|tracked| tracked.file.kind() != FileKind::Certificate);
        let (name, client) = (instance.name.clone(), instance.cert_client());
        Some(Self { name, client, every, began: now, files, process: None })
    }

    /// Another process answers, with a memory of its own.
    pub fn forget(&mut self) {
        self.process = None;
        for tracked in &mut self.files {
            (tracked.number, tracked.held) = (0, None);
        }
    }

    /// How it stands with each file.
    pub fn status(&self) -> Vec<InstanceTlsFile> {
        self.files.iter().map(|tracked| tracked.status.clone()).collect()
    }

    /// The number of the content that each file, by its path, was last compared with or given.
    pub fn numbers(&self) -> BTreeMap<String, u64> {
        self.files.iter().map(|file| (file.status.path.clone(), file.number)).collect()
    }

    /// Knows from now on when there is another content.
    pub fn news(&self) -> News {
        let files = self.files.iter().map(|tracked| {
            let number = tracked.in_force.borrow().number;
            (tracked.in_force.clone(), number)
        });
        News(files.collect())
    }

    /// HAProxy could not be observed, so nothing is known of its memory.
    pub fn lost(&mut self, error: &str) {
        for tracked in &mut self.files {
            tracked.due = Instant::now();
            // The instance's own state is logged.
            tracked.status.state = TlsFileState::Failed { error: error.to_owned() };
        }
        self.record();
    }

    /// Brings every file's content into memory. `started` is when the process was started by its
    /// own account. A failure is in the status.
    pub async fn bring(&mut self, version: HaproxyVersion, started: Option<Instant>) {
        for index in 0..self.files.len() {
            let next = self.files[index].next(&self.name, self.every);
            let Some((content, number)) = next else { continue };
            let state = match self.bring_one(index, &content, version, started).await {
                Ok(state) => state,
                Err(error) => TlsFileState::Failed { error: error.to_string() },
            };
            let tracked = &mut self.files[index];
            if matches!(state, TlsFileState::Failed { .. }) {
                tracked.due = Instant::now() + RETRY.min(self.every);
            }
            if state == TlsFileState::InSync {
                tracked.held = Some(Arc::clone(&content));
            }
            tracked.number = number;
            tracked.enter(&self.name, state);
        }
        self.record();
    }

    async fn bring_one(
        &mut self,
        index: usize,
        content: &Content,
        version: HaproxyVersion,
        started: Option<Instant>,
    ) -> Result<TlsFileState, RuntimeError> {
        let process = self.process(version, started).await?;
        let Tracked { file, held, .. } = &self.files[index];
        let facts = content.facts();
        // What HAProxy shows may be alike of two contents: one that is known to be new is sent.
        let is_new = held.as_ref().is_some_and(|held| **held != *content);
        match self.client.compare(file, &facts).await? {
            Held::Same if !is_new => return Ok(TlsFileState::InSync),
            Held::NotLoaded => {
                return Ok(TlsFileState::NeedsReload {
                    reason: CertRefusal::NotLoaded.to_string(),
                });
            }
            Held::Other { used } if process.loses(file.kind(), used) => {
                return Ok(TlsFileState::NeedsReload { reason: lost_track(version) });
            }
            Held::Same if process.loses(file.kind(), true) => {
                return Ok(TlsFileState::NeedsReload { reason: lost_track(version) });
            }
            Held::Same | Held::Other { .. } => {}
        }
        if file.kind() != FileKind::Certificate
            && let Some(process) = &mut self.process
        {
            // Whatever comes of it.
            process.replaced_cas = true;
        }
        let pem = payload(content.text());
        match self.client.replace(file, &pem, process.largest_payload).await {
            Ok(Ok(())) => {}
            Ok(Err(refusal @ (CertRefusal::TooBig { .. } | CertRefusal::NotLoaded))) => {
                return Ok(TlsFileState::NeedsReload { reason: refusal.to_string() });
            }
            Ok(Err(refusal)) => return Ok(TlsFileState::Failed { error: refusal.to_string() }),
            Err(error) if error.reply() == Some(&ReplyError::TooBig) => {
                return Ok(TlsFileState::NeedsReload { reason: error.to_string() });
            }
            Err(error) => return Err(error),
        }
        let held = self.client.compare(file, &facts).await?;
        self.files[index].status.changed_at = Some(Timestamp::now());
        Ok(match held {
            Held::Same => TlsFileState::InSync,
            Held::Other { .. } | Held::NotLoaded => TlsFileState::Failed {
                error: "post-change check failed: HAProxy shows another content; retrying"
                    .to_owned(),
            },
        })
    }

    async fn process(
        &mut self,
        version: HaproxyVersion,
        started: Option<Instant>,
    ) -> Result<Process, RuntimeError> {
        if let Some(process) = self.process {
            return Ok(process);
        }
        let largest_payload = self.client.largest_payload(version).await?;
        let seen_from_its_start =
            started.is_some_and(|started| started >= self.began + UPTIME_GRAIN);
        let has_cas = self.files.iter().any(|tracked| tracked.file.kind() != FileKind::Certificate);
        let replaced_cas = has_cas && !seen_from_its_start;
        Ok(*self.process.insert(Process { version, largest_payload, replaced_cas }))
    }

    fn record(&self) {
        let count = |test: fn(&TlsFileState) -> bool| {
            self.files.iter().filter(|tracked| test(&tracked.status.state)).count()
        };
        let out_of_sync =
            count(|state| !matches!(state, TlsFileState::InSync | TlsFileState::Waiting));
        gauge!(TLS_FILES_IN_SYNC, "haproxy" => self.name.clone())
            .set(f64::from(u8::from(out_of_sync == 0)));
        let need_reload = count(|state| matches!(state, TlsFileState::NeedsReload { .. }));
        gauge!(TLS_FILES_NEED_RELOAD, "haproxy" => self.name.clone()).set(need_reload as f64);
    }
}

/// The files' contents, by their numbers when this was made.
pub struct News(Vec<(watch::Receiver<InForce>, u64)>);

impl News {
    /// Resolves when one of them is another.
    pub async fn changed(&mut self) {
        let other = self.0.iter_mut().map(|(file, number)| {
            Box::pin(async move {
                if file.wait_for(|in_force| in_force.number != *number).await.is_err() {
                    // Its task has ended; the shutdown follows.
                    std::future::pending::<()>().await;
                }
            })
        });
        select_all(other).await;
    }
}

impl Process {
    /// Whether a certificate must not be replaced, see [`MIXES_COMMITS`].
    fn loses(self, kind: FileKind, used: bool) -> bool {
        kind == FileKind::Certificate
            && self.version < MIXES_COMMITS
            && (self.replaced_cas || !used)
    }
}

impl Tracked {
    /// What is to be compared now, if anything is, with its number.
    fn next(&mut self, instance: &str, every: Duration) -> Option<(Arc<Content>, u64)> {
        let InForce { content, number, .. } = self.in_force.borrow_and_update().clone();
        let Some(content) = content else {
            self.enter(instance, TlsFileState::Waiting);
            return None;
        };
        let now = Instant::now();
        if self.number == number && now < self.due {
            return None;
        }
        self.due = now + every;
        Some((content, number))
    }

    /// One line a change of condition.
    fn enter(&mut self, instance: &str, state: TlsFileState) {
        if self.status.state == state {
            return;
        }
        let (kind, path) = (self.status.kind, &self.status.path);
        match &state {
            TlsFileState::Waiting => {}
            TlsFileState::InSync => tracing::info!(instance, path, "{kind} in sync"),
            TlsFileState::NeedsReload { reason } => {
                tracing::warn!(instance, path, "{kind} needs a reload of HAProxy: {reason}");
            }
            TlsFileState::Failed { error } => tracing::warn!(instance, path, error, "{kind}"),
        }
        self.status.state = state;
    }
}

fn lost_track(version: HaproxyVersion) -> String {
    format!(
        "HAProxy {version} does not serve a new certificate once a CA file or CRL was replaced in \
            its memory, and ends at the next one ({MIXES_COMMITS} and later do)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_that_comes_back_is_compared_again_at_once() {
        let pem = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap().cert.pem();
        let content = Content::parse(FileKind::Ca, pem.as_bytes(), None).map(Arc::new).unwrap();
        let status = |path: &str| InstanceTlsFile {
            path: path.to_owned(),
            kind: FileKind::Ca,
            state: TlsFileState::Waiting,
            changed_at: None,
        };
        let in_force = |number| InForce {
            status: serde_json::from_value(serde_json::json!({
                "path": "/ca.pem", "kind": "ca", "from": "/from.pem", "contents": [],
            }))
            .unwrap(),
            content: Some(Arc::clone(&content)),
            number,
            answered: 0,
        };
        let (state, receiver) = watch::channel(in_force(1));
        let mut tracked = Tracked {
            file: StoredFile::new(FileKind::Ca, "/ca.pem"),
            in_force: receiver,
            number: 0,
            held: None,
            due: Instant::now(),
            status: status("/ca.pem"),
        };
        let every = Duration::from_secs(3600);
        let mut number = || {
            let (_, number) = tracked.next("edge1", every)?;
            tracked.number = number;
            Some(number)
        };
        assert_eq!((number(), number()), (Some(1), None));
        // Another one was in force in between, as number 2, and this instance was busy.
        state.send_replace(in_force(3));
        assert_eq!((number(), number()), (Some(3), None));
    }
}
