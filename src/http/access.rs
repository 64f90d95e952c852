//! Who may use `/v1`.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::Response;

use super::error::ApiError;

/// The API's bearer token. Never shown.
pub struct Token(String);

impl Token {
    /// Reads it from a file, without the white space round it.
    ///
    /// # Errors
    /// When the file can't be read or is empty.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("api.token_file {}: {error}", path.display()))?;
        match text.trim() {
            "" => Err(format!("api.token_file {}: the file is empty", path.display())),
            token => Ok(Self(token.to_owned())),
        }
    }

    /// Compares in a time that does not tell how much of the token is right.
    fn is(&self, given: &str) -> bool {
        let (ours, given) = (self.0.as_bytes(), given.as_bytes());
        ours.len() == given.len() && ours.iter().zip(given).fold(0, |different, (a, b)| different | (a ^ b)) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(hidden)")
    }
}

/// Whether the request names us by an address or as `localhost`: a web page whose own name was made to point to this machine
/// names us by that, and its browser sends no `Origin` where it only reads.
fn named_locally(request: &Request) -> bool {
    let Some(host) = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// The token of an `Authorization` header; the scheme's name is case-insensitive (RFC 9110, section 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// Lets a request through that carries the token. Where no token is set (then the API listens on loopback only) every
/// local program may ask, but no web page in a local browser may.
pub(super) async fn admit(State(token): State<Option<Arc<Token>>>, request: Request, next: Next) -> Result<Response, ApiError> {
    match token {
        Some(token) => {
            let given = request.headers().get(header::AUTHORIZATION).and_then(|value| bearer(value.to_str().ok()?));
            if !given.is_some_and(|given| token.is(given.trim())) {
                return Err(ApiError::Unauthorized);
            }
        }
        None if request.headers().contains_key(header::ORIGIN) || !named_locally(&request) => return Err(ApiError::Forbidden),
        None => {}
    }
    Ok(next.run(request).await)
}
