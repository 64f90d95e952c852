//! How the files of certificates and revocations stand.

use std::fmt::Write as _;

use jiff::Timestamp;
use mapsmith_core::tls_file::{InstanceTlsFile, TlsFileState, TlsFileStatus};

use crate::api::types::ApiReport;
use crate::cli::output::{Colour, ago, paint};

/// A file: what it holds, until when, and why not what it should.
pub(super) fn file(file: &TlsFileStatus, now: Timestamp) -> String {
    let polled = file.polled_at.map_or(String::new(), |at| format!(", read {}", ago(at)));
    let mut text = format!("  {}  {} from {}{polled}\n", file.path, file.kind, file.from);
    if file.contents.is_empty() {
        let _ = writeln!(text, "    {}", paint(Colour::Yellow, "nothing is in force yet"));
    }
    for content in &file.contents {
        let _ = writeln!(text, "    {content}");
    }
    if let Some(since) = file.expires_at.filter(|at| *at <= now) {
        let note = format!("EXPIRED since {since:.0} ({})", ago(since));
        let _ = writeln!(text, "    {}", paint(Colour::Red, &note));
    }
    if let Some(error) = &file.error {
        let _ = writeln!(text, "    {}", paint(Colour::Red, &format!("not taken: {error}")));
    }
    if let Some(warning) = &file.warning {
        let _ = writeln!(text, "    {}", paint(Colour::Yellow, warning));
    }
    text
}

/// Nothing to tell of the API's own files that are as they should be.
pub(super) fn api(api: &ApiReport, now: Timestamp) -> String {
    let mut notes: Vec<String> = api.token_file_error.iter().cloned().collect();
    if let Some(tls) = &api.tls {
        notes.extend(tls.error.iter().cloned());
        let expired = tls.not_after.filter(|at| *at <= now);
        notes.extend(expired.map(|at| format!("its certificate EXPIRED {at:.0} ({})", ago(at))));
        let late = tls.crl_until.filter(|at| *at <= now);
        notes.extend(late.map(|at| {
            format!("its client_crl should have been replaced by {at:.0} ({})", ago(at))
        }));
    }
    if notes.is_empty() {
        return String::new();
    }
    let line = |note: String| format!("  {}\n", paint(Colour::Red, &note));
    format!("\nAPI\n{}", notes.into_iter().map(line).collect::<String>())
}

/// Nothing to tell of files that are in memory as they should be, but that they are.
pub(super) fn of_instance(files: &[InstanceTlsFile]) -> String {
    let mut text = String::new();
    if !files.is_empty() && files.iter().all(|file| file.state == TlsFileState::InSync) {
        let _ = writeln!(text, "    {}", paint(Colour::Green, "certificates and CRLs in sync"));
    }
    for file in files {
        let note = match &file.state {
            TlsFileState::InSync | TlsFileState::Waiting => continue,
            TlsFileState::NeedsReload { reason } => {
                paint(Colour::Yellow, &format!("{} needs a reload of HAProxy: {reason}", file.path))
            }
            TlsFileState::Failed { error } => {
                paint(Colour::Red, &format!("{}: {error}", file.path))
            }
        };
        let _ = writeln!(text, "    {note}");
    }
    text
}
