//! Entity tags (RFC 9110, 8.8.3): what a client has already is not sent again.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::answers::UNKEPT;
use super::error::HttpError;
use crate::api::declared::Secrets;
use crate::api::{self, NumberCondition, Precondition};

/// What the tag of something declared ends with where its secrets are hidden: that is another
/// representation of the same state, and nobody has the one who has the other.
const MASKED: &str = "-masked";

/// The tag of one state of a resource: hexadecimal digits, which pass every client's parser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntityTag(String);

impl EntityTag {
    /// Of what changes with this number alone.
    pub(super) fn numbered(number: u64) -> Self {
        Self(format!("{number:x}"))
    }

    /// The same of what is declared, as it is shown to somebody.
    pub(super) fn declared(number: u64, secrets: Secrets) -> Self {
        match secrets {
            Secrets::Shown => Self::numbered(number),
            Secrets::Hidden => Self(format!("{number:x}{MASKED}")),
        }
    }

    /// Of what has this digest, in hexadecimal digits.
    pub(super) fn digest(digest: &str) -> Self {
        Self(digest.to_owned())
    }

    /// Of what is made of these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(format!("{:032x}", xxhash_rust::xxh3::xxh3_128(bytes)))
    }

    /// Of a resource.
    pub(super) fn of_resource(resource: &impl Serialize) -> Result<Self, HttpError> {
        let text = serde_json::to_vec(resource);
        let text = text.map_err(|error| HttpError::Api(api::Error::Store(error.to_string())))?;
        Ok(Self::of(&text))
    }

    /// Whether the request says that its client has this state.
    fn is_known(&self, request: &HeaderMap) -> bool {
        tags(request, header::IF_NONE_MATCH).any(|tag| tag.is_none_or(|tag| tag == self.0))
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

    /// The same where nobody on the way may keep it: it has secrets for some, or changes without
    /// its tag.
    pub(super) fn answer_unkept<A: IntoResponse>(
        &self,
        request: &HeaderMap,
        answer: impl FnOnce() -> A,
    ) -> Response {
        let mut response = self.answer(request, answer);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(UNKEPT));
        response
    }
}

/// The number that `If-Match` names, which is the tag of what changes with it alone; none where there
/// is none. `*` is none: whoever sends it has not looked.
///
/// # Errors
/// It is no such tag.
pub(super) fn expected_number(request: &HeaderMap) -> Result<Option<u64>, HttpError> {
    if !request.contains_key(header::IF_MATCH) {
        return Ok(None);
    }
    let given: Vec<_> = tags(request, header::IF_MATCH).collect();
    let number = |tag: &str| u64::from_str_radix(tag, 16).ok();
    match given[..] {
        [None] => Ok(None),
        [Some(tag)] if number(tag).is_some() => Ok(number(tag)),
        _ => Err(HttpError::BadRequest(
            "If-Match must be the ETag of what is changed, like \"411\"".to_owned(),
        )),
    }
}

/// The tags of a header; none is `*`. Proxies that compress mark a tag as weak, or put `-gzip`
/// behind it: ours are strong, and what they have done to one does not make it another.
fn tags(request: &HeaderMap, name: HeaderName) -> impl Iterator<Item = Option<&str>> {
    let lists = request.get_all(name).into_iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim).filter_map(|tag| {
        if tag == "*" {
            return Some(None);
        }
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        let tag = tag.strip_prefix('"')?.strip_suffix('"')?;
        Some(Some(tag.strip_suffix("-gzip").unwrap_or(tag)))
    })
}

/// Whether a request says what it changes: what was seen of it, or that there is nothing yet.
/// `If-None-Match` with tags is neither. Whatever is not that state would be changed unseen.
pub(super) fn says_what_it_changes(request: &HeaderMap) -> bool {
    request.contains_key(header::IF_MATCH)
        || tags(request, header::IF_NONE_MATCH).any(|tag| tag.is_none())
}

/// What `If-Match` and `If-None-Match` ask of a resource before it is changed (RFC 9110, 13.1).
pub(super) fn precondition(request: &HeaderMap) -> Precondition {
    let is_given = |name| request.contains_key(name);
    if !is_given(header::IF_MATCH) && !is_given(header::IF_NONE_MATCH) {
        return Precondition::default();
    }
    let all = |name: HeaderName| -> Option<Vec<Option<String>>> {
        let tags = request.contains_key(&name).then(|| tags(request, name));
        Some(tags?.map(|tag| tag.map(str::to_owned)).collect())
    };
    let (wanted, unwanted) = (all(header::IF_MATCH), all(header::IF_NONE_MATCH));
    Precondition::new(move |resource| {
        let tag = resource.map(EntityTag::of);
        let is_among = |tags: &[Option<String>]| {
            let is =
                |tag: &EntityTag| tags.iter().any(|of| of.as_ref().is_none_or(|of| *of == tag.0));
            tag.as_ref().is_some_and(is)
        };
        wanted.as_deref().is_none_or(is_among) && !unwanted.as_deref().is_some_and(is_among)
    })
}

/// The same of what changes with a number alone, however it was shown.
pub(super) fn number_condition(request: &HeaderMap) -> NumberCondition {
    let numbers = |name: HeaderName| {
        let tags = request.contains_key(&name).then(|| tags(request, name))?;
        // What is no number of ours is of another state.
        Some(tags.filter_map(|tag| match tag {
            None => Some(None),
            Some(tag) => {
                let number = tag.strip_suffix(MASKED).unwrap_or(tag);
                u64::from_str_radix(number, 16).ok().map(Some)
            }
        }))
    };
    let (is, is_not) = (numbers(header::IF_MATCH), numbers(header::IF_NONE_MATCH));
    NumberCondition { is: is.map(Iterator::collect), is_not: is_not.map(Iterator::collect) }
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
    fn only_what_was_seen_or_that_there_is_nothing_says_what_is_changed() {
        let says = |name: HeaderName, value: &str| {
            says_what_it_changes(&HeaderMap::from_iter([(name, value.parse().unwrap())]))
        };
        assert!(says(header::IF_MATCH, "\"411\"") && says(header::IF_NONE_MATCH, "*"));
        for value in ["x", "\"x\"", "W/\"411\", \"x\"", "\"*\"", ""] {
            assert!(!says(header::IF_NONE_MATCH, value), "{value}");
        }
        assert!(!says_what_it_changes(&HeaderMap::new()));
    }

    #[test]
    fn what_was_read_without_its_secrets_is_not_known_with_them_and_is_the_same_to_change() {
        let [shown, hidden] =
            [Secrets::Shown, Secrets::Hidden].map(|secrets| EntityTag::declared(1041, secrets));
        let given = |name: HeaderName, tag: &str| {
            HeaderMap::from_iter([(name, HeaderValue::try_from(tag).unwrap())])
        };
        for tag in ["\"411\"", "W/\"411-gzip\""] {
            let request = given(header::IF_NONE_MATCH, tag);
            assert!(shown.is_known(&request) && !hidden.is_known(&request), "{tag}");
        }
        for tag in ["\"411-masked\"", "W/\"411-masked-gzip\""] {
            let request = given(header::IF_NONE_MATCH, tag);
            assert!(hidden.is_known(&request) && !shown.is_known(&request), "{tag}");
        }
        for tag in ["\"411\"", "\"411-masked\"", "W/\"411-masked-gzip\""] {
            let asked = number_condition(&given(header::IF_MATCH, tag));
            assert_eq!(asked.is, Some(vec![Some(1041)]), "{tag}");
            let asked = number_condition(&given(header::IF_NONE_MATCH, tag));
            assert_eq!(asked.is_not, Some(vec![Some(1041)]), "{tag}");
        }
        let unkept = hidden.answer_unkept(&HeaderMap::new(), || "text");
        assert_eq!(unkept.headers()[header::CACHE_CONTROL], UNKEPT);
        assert_eq!(unkept.headers()[header::ETAG], "\"411-masked\"");
    }

    #[test]
    fn an_answer_that_is_known_is_not_made() {
        let request = HeaderMap::from_iter([(header::IF_NONE_MATCH, "\"a\"".parse().unwrap())]);
        let made = || -> &'static str { panic!("it is known") };
        let response = EntityTag::numbered(10).answer(&request, made);
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(response.headers()[header::ETAG], "\"a\"");
    }

    #[test]
    fn a_change_is_made_only_where_the_resource_is_as_its_headers_say() {
        let pinned = br#"{"node":"n1"}"#;
        let EntityTag(tag) = EntityTag::of(pinned);
        let ask = |name: HeaderName, value: String, resource: Option<&'static str>| {
            let headers = HeaderMap::from_iter([(name, value.parse().unwrap())]);
            let there = serde_json::json!({"node": "n1"});
            precondition(&headers).check(resource.map(|_| &there)).is_ok()
        };
        for (value, there, gone) in [
            (format!("\"{tag}\""), true, false),
            (format!("W/\"{tag}\""), true, false),
            (format!("\"0\", \"{tag}-gzip\""), true, false),
            ("*".to_owned(), true, false),
            ("\"0\"".to_owned(), false, false),
            ("nonsense".to_owned(), false, false),
        ] {
            let is = |resource| ask(header::IF_MATCH, value.clone(), resource);
            assert_eq!((is(Some("n1")), is(None)), (there, gone), "If-Match: {value}");
            if value != "nonsense" {
                let is_not = |resource| ask(header::IF_NONE_MATCH, value.clone(), resource);
                assert_eq!((is_not(Some("n1")), is_not(None)), (!there, true), "{value}");
            }
        }
        assert!(precondition(&HeaderMap::new()).check(Some(&1)).is_ok(), "nothing was asked");
    }
}
