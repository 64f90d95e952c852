//! Asking only for what is new (RFC 9110, section 13): an unchanged document costs next to nothing.
//! Pure.

use jiff::SignedDuration;
use jiff::fmt::rfc2822::DateTimePrinter;
use reqwest::header::{
    DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};

use super::date;

/// A header of an answer and the one that asks whether it still holds.
const CONDITIONS: [(HeaderName, HeaderName); 2] =
    [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)];

/// Two changes of a document this close together may bear one time: it is in whole seconds.
const GRAIN: SignedDuration = SignedDuration::from_secs(2);

/// The headers that ask whether the answer with these still holds. None where the document was
/// changed within the [`GRAIN`] before the answer: a change right after it would bear the same
/// time, and so may the same `ETag` (nginx makes it of time and size).
pub(crate) fn conditions(headers: &HeaderMap) -> HeaderMap {
    if headers.contains_key(LAST_MODIFIED) {
        let dates = date(headers, &LAST_MODIFIED).zip(date(headers, &DATE));
        if dates.is_none_or(|(modified, answered)| answered.duration_since(modified) < GRAIN) {
            return HeaderMap::new();
        }
    }
    let kept = |(answer, question): &(HeaderName, HeaderName)| {
        Some((question.clone(), headers.get(answer)?.clone()))
    };
    CONDITIONS.iter().filter_map(kept).collect()
}

/// The same for a server that may say nothing of a document's version and knows its time all the
/// same, as Puppet's CA does: then it is asked for what changed since the [`GRAIN`] before the
/// answer, by the server's own clock (section 13.1.3).
pub(crate) fn conditions_or_date(headers: &HeaderMap) -> HeaderMap {
    if CONDITIONS.iter().any(|(answer, _)| headers.contains_key(answer)) {
        return conditions(headers);
    }
    let since = || {
        let since = date(headers, &DATE)?.checked_sub(GRAIN).ok()?;
        let since = DateTimePrinter::new().timestamp_to_rfc9110_string(&since).ok()?;
        HeaderValue::try_from(since).ok()
    };
    since().map(|since| (IF_MODIFIED_SINCE, since)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
        let lines = lines.iter().cloned();
        lines.map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_server_that_names_no_version_is_asked_for_what_is_newer_than_its_answer() {
        let answered = (DATE, "Thu, 26 Nov 2026 10:00:01 GMT");
        let asked = conditions_or_date(&headers(std::slice::from_ref(&answered)));
        assert_eq!(asked, headers(&[(IF_MODIFIED_SINCE, "Thu, 26 Nov 2026 09:59:59 GMT")]));
        let tag = (ETAG, "\"v1\"");
        assert_eq!(
            conditions_or_date(&headers(&[answered.clone(), tag])),
            headers(&[(IF_NONE_MATCH, "\"v1\"")])
        );
        let fresh = (LAST_MODIFIED, "Thu, 26 Nov 2026 10:00:00 GMT");
        assert!(conditions_or_date(&headers(&[answered, fresh])).is_empty());
        assert!(conditions_or_date(&headers(&[(DATE, "yesterday")])).is_empty());
        assert!(conditions_or_date(&HeaderMap::new()).is_empty());
    }
}
