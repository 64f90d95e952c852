//! Items of certificates, and of the files that HAProxy has them from.

use std::collections::BTreeSet;

use haproxy_runtime::cert::FileKind;
use jiff::{SignedDuration, Timestamp};

use super::{Action, Item, Kind, Severity, Status};
use crate::access::Role;
use crate::certificate::CertificateStatus;
use crate::quoting::{path_segment, shell_word};

/// How long before its end a certificate is shown. Mapsmith renews its own earlier.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);
/// How long before its end somebody must do something.
const VERY_SOON: SignedDuration = SignedDuration::from_hours(3 * 24);
/// What part of its lifetime that is at most, of one that does not live long.
const SHORT: i32 = 6;

/// Of what is good until `at`; nothing while that is far away.
pub(super) fn expiry(
    kind: Kind,
    subject: &str,
    what: &str,
    at: Timestamp,
    issued_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<Item> {
    let left = at.duration_since(now);
    let lifetime = issued_at.map(|issued| at.duration_since(issued));
    let within = |bound: SignedDuration| {
        let short = lifetime.and_then(|lifetime| lifetime.checked_div(SHORT));
        left < short.map_or(bound, |short| bound.min(short))
    };
    let hours = left.as_hours();
    let in_time = if hours >= 48 { format!("{} days", hours / 24) } else { format!("{hours} h") };
    let (severity, text) = match () {
        () if !left.is_positive() => (Severity::Act, format!("{what} has expired at {at:.0}")),
        () if within(VERY_SOON) => (Severity::Act, format!("{what} expires in {in_time}")),
        () if within(SOON) => (Severity::Look, format!("{what} expires in {in_time}")),
        () => return None,
    };
    Some(Item::new(severity, kind, subject, text))
}

pub(super) fn of_certificates(status: &Status, now: Timestamp, items: &mut Vec<Item>) {
    items.extend(status.certificates.iter().filter_map(|certificate| of_one(certificate, now)));
    let known: BTreeSet<_> = status.certificates.iter().map(|it| it.path.as_str()).collect();
    for file in &status.tls_files {
        let path = &file.path;
        if let Some(error) = &file.error {
            let text = format!("{path}: the last good content stays in force: {error}");
            let item = Item::new(Severity::Act, Kind::TlsFile, path, text);
            items.push(item.since(file.in_force_since));
        }
        if let Some(warning) = &file.warning {
            let text = format!("{path}: {warning}");
            items.push(Item::new(Severity::Look, Kind::TlsFile, path, text));
        }
        let Some(at) = file.expires_at.filter(|_| !known.contains(path.as_str())) else { continue };
        // How long a list of revocations lives is not known: of many that is a day.
        let expired = file.kind != FileKind::Crl || at <= now;
        items.extend(expiry(Kind::TlsFile, path, path, at, None, now).filter(|_| expired));
    }
}

/// Of a certificate one item: that it expires, or why it was not renewed.
fn of_one(certificate: &CertificateStatus, now: Timestamp) -> Option<Item> {
    let CertificateStatus { name, in_force, renewal, .. } = certificate;
    let what = format!("the certificate {name}");
    let expires = in_force.as_ref().and_then(|issued| {
        let issued_at = Some(issued.issued_at);
        expiry(Kind::Certificate, name, &what, issued.expires_at, issued_at, now)
    });
    let error = renewal.as_ref().and_then(|renewal| renewal.error.as_deref());
    let item = match (expires, error) {
        (Some(item), None) => item,
        (Some(item), Some(error)) => {
            let text = format!("{}, and can't be renewed: {error}", item.text);
            Item { text, ..item }
        }
        (None, Some(error)) => {
            let severity = if in_force.is_none() { Severity::Act } else { Severity::Look };
            Item::new(severity, Kind::Certificate, name, format!("{what}: {error}"))
        }
        (None, None) => return None,
    };
    if renewal.is_none() {
        return Some(item.with(Action::advice("Have it renewed by whoever issues it")));
    }
    let command = format!("mapsmith certificates renew {}", shell_word(name));
    let call = format!("POST /v1/certificates/{}/renew", path_segment(name));
    Some(item.with(Action::command("Try again", &command).with_call(&call, Role::Operator)))
}
