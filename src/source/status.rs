//! What an HTTP status other than success means for a source, and what to do. Pure.

use reqwest::StatusCode;

use super::error::{Excerpt, Fault};
use crate::settings::SourceKind;

/// The fault behind a status. `text` is the body's beginning, `location` where a redirect leads.
pub(super) fn meaning(kind: SourceKind, status: StatusCode, location: &Excerpt, text: &Excerpt) -> Fault {
    let puppetdb = kind == SourceKind::Puppetdb;
    let number = status.as_u16();
    let meaning = match number {
        400 if puppetdb => format!("the query was refused (400): {text}"),
        401 | 403 if puppetdb => format!(
            "access was refused ({number}): {text}; PuppetDB's certificate-allowlist must name this client's certificate (cert), or Puppet Enterprise needs a valid token (token_file)"
        ),
        401 | 403 => format!("access was refused ({number}): {text}; see token_file, or cert and key"),
        300..400 if puppetdb => format!("redirects to {location} ({number}); is the url PuppetDB's root?"),
        300..400 => format!("redirects to {location} ({number}), which is not followed; set url to the document itself"),
        404 if puppetdb => format!("has no query API there (404): {text}; is the url PuppetDB's root?"),
        404 => format!("has no such document (404): {text}; is the url the document itself?"),
        503 if puppetdb => format!("PuppetDB is starting or in maintenance (503): {text}"),
        503 => format!("is unavailable for now (503): {text}"),
        500..600 if puppetdb => format!("failed ({number}), for want of its database perhaps: {text}"),
        500..600 => format!("failed ({number}): {text}"),
        _ => format!("answered with status {number}, which is not expected here: {text}"),
    };
    Fault::Status { status: number, meaning }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_to_do() {
        let excerpt = |text: &str| {
            let mut excerpt = Excerpt::new(None);
            excerpt.push(text.as_bytes());
            excerpt
        };
        for (kind, status, parts) in [
            (SourceKind::Puppetdb, 400, &["the query was refused", "TEXT"][..]),
            (SourceKind::Puppetdb, 403, &["certificate-allowlist", "token_file", "TEXT"]),
            (SourceKind::Puppetdb, 302, &["redirects to PLACE", "root?"]),
            (SourceKind::Puppetdb, 404, &["root?"]),
            (SourceKind::Puppetdb, 503, &["starting", "TEXT"]),
            (SourceKind::Puppetdb, 500, &["failed (500)", "TEXT"]),
            (SourceKind::HttpJson, 401, &["token_file"]),
            (SourceKind::HttpJson, 301, &["redirects to PLACE", "not followed"]),
            (SourceKind::HttpJson, 404, &["no such document", "url"]),
            (SourceKind::HttpJson, 400, &["status 400", "TEXT"]),
            (SourceKind::HttpJson, 503, &["unavailable"]),
            (SourceKind::HttpJson, 204, &["status 204"]),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let message = meaning(kind, status, &excerpt("PLACE"), &excerpt("TEXT")).to_string();
            for part in parts {
                assert!(message.contains(part), "{part:?} is not in {message:?}");
            }
        }
    }
}
