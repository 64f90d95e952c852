//! What an HTTP status other than success means, and what to do. Pure.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use super::http;
use crate::source::error::Excerpt;

/// The longest that a registry is left alone because it asks for it: beyond that its answer is
/// worth more than its rest.
const LONGEST_REST: Duration = Duration::from_secs(600);

/// How long the registry asks to be left alone (RFC 9110, section 10.2.3): seconds, or a date by
/// its own clock.
pub(crate) fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let seconds =
        headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let rest = seconds.map(Duration::from_secs).or_else(|| {
        let until = http::date(headers, &RETRY_AFTER)?.duration_since(http::date(headers, &DATE)?);
        until.try_into().ok()
    })?;
    Some(rest.min(LONGEST_REST))
}

/// Says what a status means for a kind of registry: the status, where a redirect leads, and the
/// beginning of the body.
pub(crate) type Meaning = fn(StatusCode, &Excerpt, &Excerpt) -> String;

/// What a status means where a document was asked for.
pub(crate) fn meaning(status: StatusCode, location: &Excerpt, text: &Excerpt) -> String {
    let number = status.as_u16();
    match number {
        401 | 403 => {
            format!("access was refused ({number}): {text}; see token_file, or cert and key")
        }
        300..=399 => format!(
            "redirects to {location} ({number}), which is not followed; set url to the document \
                itself"
        ),
        404 => format!("has no such document (404): {text}; is the url the document itself?"),
        503 => format!("is unavailable for now (503): {text}"),
        500..600 => format!("failed ({number}): {text}"),
        429 => format!("asks for fewer requests (429): {text}; poll more rarely (schedule.poll)"),
        _ => format!("answered with status {number}, which is not expected here: {text}"),
    }
}

/// What it means where the document of a `[[tls_file]]` was asked for, which has keys of its own.
pub(crate) fn meaning_for_tls_file(
    status: StatusCode,
    location: &Excerpt,
    text: &Excerpt,
) -> String {
    let number = status.as_u16();
    match number {
        401 | 403 => format!("access was refused ({number}): {text}; see cert and key"),
        300..=399 => format!(
            "redirects to {location} ({number}), which is not followed; set from to the document \
                itself"
        ),
        404 => format!("has no such document (404): {text}; is from the document itself?"),
        429 => format!("asks for fewer requests (429): {text}; poll more rarely (tls_file.poll)"),
        _ => meaning(status, location, text),
    }
}

/// Whether the meaning of each status has these parts, the redirect leading to PLACE and the body
/// being TEXT.
#[cfg(test)]
#[track_caller]
pub(crate) fn assert_meanings(meaning: Meaning, statuses: &[(u16, &[&str])]) {
    let excerpt = |text: &str| {
        let mut excerpt = Excerpt::new(None);
        excerpt.push(text.as_bytes());
        excerpt
    };
    for (status, parts) in statuses {
        let status = StatusCode::from_u16(*status).unwrap();
        let message = meaning(status, &excerpt("PLACE"), &excerpt("TEXT"));
        for part in *parts {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_that_a_registry_asks_for_is_read_as_seconds_or_a_date_and_bounded() {
        let asked = |status: u16, retry_after: &'static str| {
            let headers = [(DATE, "Fri, 20 Nov 2026 11:58:30 GMT"), (RETRY_AFTER, retry_after)];
            let headers =
                headers.map(|(name, value)| (name, value.parse().unwrap())).into_iter().collect();
            retry_after_of(status, &headers)
        };
        for (status, text, rest) in [
            (503, "7", Some(7)),
            (429, " 120 ", Some(120)),
            (503, "Fri, 20 Nov 2026 12:00:00 GMT", Some(90)),
            (503, "Fri, 20 Nov 2026 11:00:00 GMT", None),
            (503, "86400", Some(600)),
            (503, "-1", None),
            (503, "soon", None),
            (500, "7", None),
            (301, "7", None),
        ] {
            assert_eq!(asked(status, text), rest.map(Duration::from_secs), "{status} {text}");
        }
    }

    fn retry_after_of(status: u16, headers: &HeaderMap) -> Option<Duration> {
        retry_after(StatusCode::from_u16(status).unwrap(), headers)
    }

    #[test]
    fn a_status_says_what_to_do() {
        assert_meanings(
            meaning,
            &[
                (401, &["token_file"]),
                (301, &["redirects to PLACE", "not followed"]),
                (404, &["no such document", "url"]),
                (400, &["status 400", "TEXT"]),
                (503, &["unavailable"]),
                (429, &["fewer requests", "TEXT"]),
                (204, &["status 204"]),
            ],
        );
    }

    #[test]
    fn a_status_names_the_keys_that_a_tls_file_has() {
        assert_meanings(
            meaning_for_tls_file,
            &[
                (401, &["refused (401): TEXT; see cert and key"]),
                (403, &["refused (403): TEXT; see cert and key"]),
                (302, &["redirects to PLACE", "set from to"]),
                (404, &["no such document", "is from the document"]),
                (429, &["fewer requests", "tls_file.poll"]),
                (503, &["unavailable"]),
                (500, &["failed (500)"]),
            ],
        );
    }
}
