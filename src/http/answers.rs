//! What every answer has, whatever it answers: an id, and what others may do with it on its way.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::api::Api;
use crate::api::types::Problem;
use crate::settings::ExternalUrl;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Says which map is in force, or which one an answer leads to.
pub(super) const REVISION: HeaderName = HeaderName::from_static("mapsmith-revision");
/// `Cache-Control` of what is true for a moment.
pub(super) const UNKEPT: &str = "no-store, no-transform";
/// The longest request id that is taken over.
const LONGEST_ID: usize = 64;

/// A request's id, in its extensions.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

/// Where those who read an answer reach the API, if that is said.
#[derive(Clone, Default)]
pub(super) struct Reached(Option<ExternalUrl>);

impl Reached {
    pub(super) fn of(api: &Api) -> Self {
        Self(api.access.external().cloned())
    }

    /// What is to be asked for next, from wherever they are. The `type` is the kind's name, which
    /// is the same everywhere.
    fn place(&self, problem: Problem) -> Problem {
        let Some(url) = &self.0 else { return problem };
        Problem { resume: problem.resume.map(|path| url.of(&path)), ..problem }
    }
}

/// Gives a request its id, and its answer what every answer has.
pub(super) async fn complete(
    State(reached): State<Reached>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = request_id(request.headers());
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let problem = Problem { request_id: Some(id.clone()), ..reached.place(problem) };
        // What can't be written leaves the body without the id.
        if let Ok(body) = serde_json::to_vec(&problem) {
            response.headers_mut().remove(header::CONTENT_LENGTH);
            *response.body_mut() = Body::from(body);
        }
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID, id);
    }
    // A proxy that compresses would make our entity tags weak. What has one may be kept, if it is
    // asked for each time; the rest is true for a moment.
    let kept = match headers.contains_key(header::ETAG) {
        true => "no-cache, no-transform",
        false => UNKEPT,
    };
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static(kept));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The request's own id where that is one, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_id = |id: &&str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(plain)
    };
    given.filter(is_id).map_or_else(|| format!("{:032x}", fastrand::u128(..)), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_asked_next_is_where_the_api_is_reached_and_a_problems_type_is_its_name() {
        let problem = || Problem {
            kind: "/v1/problems/on-hold".to_owned(),
            resume: Some("/v1/hold".to_owned()),
            ..Problem::default()
        };
        let url = ExternalUrl::parse("https://gw.example.com/mapsmith/").unwrap();
        let behind = Reached(Some(url)).place(problem());
        assert_eq!(behind.resume.as_deref(), Some("https://gw.example.com/mapsmith/v1/hold"));
        assert_eq!(behind.kind, "/v1/problems/on-hold", "clients compare it");
        assert_eq!(Reached::default().place(problem()), problem());
    }
}
