//! What an HTTP status other than success means where PuppetDB's query API was asked. Pure.

use reqwest::StatusCode;

use crate::source::error::Excerpt;
use crate::source::transport::status;

/// What a status means. `text` is the body's beginning, `location` where a redirect leads.
pub(super) fn meaning(status: StatusCode, location: &Excerpt, text: &Excerpt) -> String {
    let number = status.as_u16();
    match number {
        400 => format!("the query was refused (400): {text}"),
        401 | 403 => format!(
            "access was refused ({number}): {text}; PuppetDB's certificate-allowlist must name \
                this client's certificate (cert), or Puppet Enterprise needs a valid token \
                (token_file)"
        ),
        300..=399 => format!("redirects to {location} ({number}); is the url PuppetDB's root?"),
        404 => format!("has no query API there (404): {text}; is the url PuppetDB's root?"),
        503 => format!("PuppetDB is starting or in maintenance (503): {text}"),
        500..600 => format!("failed ({number}), for want of its database perhaps: {text}"),
        _ => status::meaning(status, location, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_to_do() {
        status::assert_meanings(
            meaning,
            &[
                (400, &["the query was refused", "TEXT"]),
                (403, &["certificate-allowlist", "token_file", "TEXT"]),
                (302, &["redirects to PLACE", "root?"]),
                (404, &["root?"]),
                (503, &["starting", "TEXT"]),
                (500, &["failed (500)", "TEXT"]),
                (429, &["fewer requests", "TEXT"]),
            ],
        );
    }
}
