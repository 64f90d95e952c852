//! Entity tags (RFC 9110, 8.8.3): what a client has already is not sent again.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::error::HttpError;

/// The tag of one state of a resource: hexadecimal digits, which pass every client's parser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntityTag(String);

impl EntityTag {
    /// Of what changes with this number alone.
    pub(super) fn numbered(number: u64) -> Self {
        Self(format!("{number:x}"))
    }

    /// Of what has this digest, in hexadecimal digits.
    pub(super) fn digest(digest: &str) -> Self {
        Self(digest.to_owned())
    }

    /// Whether the request says that its client has this state. Proxies that compress mark a tag
    /// as weak, or put `-gzip` behind it.
    fn is_known(&self, request: &HeaderMap) -> bool {
        let lists = request.get_all(header::IF_NONE_MATCH).iter();
        let tags = lists.filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(','));
        tags.map(str::trim).any(|tag| {
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            let Some(tag) = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) else {
                return tag == "*";
            };
            tag.strip_suffix("-gzip").unwrap_or(tag) == self.0
        })
    }

    /// The answer under this tag, which is made only where the client does not have it.
    pub(super) fn answer<A: IntoResponse>(
        &self,
        request: &HeaderMap,
        answer: impl FnOnce() -> A,
    ) -> Response {
        let mut response = match self.is_known(request) {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => answer().into_response(),
        };
        if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", self.0)) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

/// The number that `If-Match` names, which is the tag of what changes with it alone; none where there
/// is none. `*` is none: whoever sends it has not looked.
///
/// # Errors
/// It is no such tag.
pub(super) fn expected_number(request: &HeaderMap) -> Result<Option<u64>, HttpError> {
    let Some(given) = request.get(header::IF_MATCH) else { return Ok(None) };
    let number = given.to_str().ok().map(str::trim).filter(|tag| *tag != "*").map(|tag| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"')?.strip_suffix('"')?;
        u64::from_str_radix(tag.strip_suffix("-gzip").unwrap_or(tag), 16).ok()
    });
    match number {
        None => Ok(None),
        Some(Some(number)) => Ok(Some(number)),
        Some(None) => Err(HttpError::BadRequest(
            "If-Match must be the ETag of `GET /v1/map`, like \"411\"".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_has_is_known_also_behind_a_proxy_that_compresses() {
        let tag = EntityTag::numbered(1041);
        let known = |given: &[&str]| {
            let mut request = HeaderMap::new();
            for given in given {
                request.append(header::IF_NONE_MATCH, given.parse().unwrap());
            }
            tag.is_known(&request)
        };
        for given in ["\"411\"", "W/\"411\"", "\"411-gzip\"", "\"7\", W/\"411-gzip\"", "*"] {
            assert!(known(&[given]), "{given}");
        }
        assert!(known(&["\"7\"", "\"411\""]), "in a second line");
        for given in ["411", "\"4110\"", "\"41\", \"1\"", "\"\"", ""] {
            assert!(!known(&[given]), "{given}");
        }
    }

    #[test]
    fn a_change_says_which_number_it_expects() {
        let expected = |given: &str| {
            let request = HeaderMap::from_iter([(header::IF_MATCH, given.parse().unwrap())]);
            expected_number(&request)
        };
        for given in ["\"411\"", "W/\"411\"", "\"411-gzip\""] {
            assert!(matches!(expected(given), Ok(Some(1041))), "{given}");
        }
        assert!(matches!(expected("*"), Ok(None)));
        assert!(matches!(expected_number(&HeaderMap::new()), Ok(None)));
        for given in ["411", "\"x\"", "\"1\", \"2\"", ""] {
            assert!(expected(given).is_err(), "{given}");
        }
    }

    #[test]
    fn an_answer_that_is_known_is_not_made() {
        let request = HeaderMap::from_iter([(header::IF_NONE_MATCH, "\"a\"".parse().unwrap())]);
        let made = || -> &'static str { panic!("it is known") };
        let response = EntityTag::numbered(10).answer(&request, made);
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(response.headers()[header::ETAG], "\"a\"");
    }
}
