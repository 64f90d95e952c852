//! Who may ask.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

use super::error::HttpError;

/// Which page a browser sends the request for: `same-origin`, `same-site`, `cross-site`, `none`
/// (W3C, Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The API's bearer token. Never shown.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Reads it from a file, without the whitespace round it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("api.token_file {}: {error}", path.display()))?;
        // Some editors put a byte order mark there.
        match text.trim_start_matches('\u{feff}').trim() {
            "" => Err(format!("api.token_file {}: the file is empty", path.display())),
            token => Ok(Self(token.to_owned())),
        }
    }

    /// The token itself, for one who has to send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Compares in a time that does not tell how much of the token is right.
    fn is(&self, given: &str) -> bool {
        let (ours, given) = (self.0.as_bytes(), given.as_bytes());
        ours.len() == given.len()
            && ours.iter().zip(given).fold(0, |different, (a, b)| different | (a ^ b)) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(hidden)")
    }
}

/// Whether no other site's web page sent the request. It must name us by an address or as
/// `localhost`: a page whose own name was made to point to this machine names us by that. What a
/// browser says of the page must be that very address: `Origin` (with every change),
/// `Sec-Fetch-Site` and `Referer` (also where it only reads).
fn sent_from_here(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let Some(host) = text(header::HOST).and_then(|host| host.parse::<Authority>().ok()) else {
        return false;
    };
    let address = host.host().trim_start_matches('[').trim_end_matches(']');
    let named_locally =
        address.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok();
    named_locally
        && text(header::ORIGIN).is_none_or(|origin| is_of(origin, &host))
        && text(SEC_FETCH_SITE).is_none_or(|site| matches!(site, "same-origin" | "none"))
        && text(header::REFERER).is_none_or(|page| is_of(page, &host))
}

/// Whether a page's URL or origin has the host and port that the request was sent to.
fn is_of(page: &str, host: &Authority) -> bool {
    let Ok(page) = page.parse::<Uri>() else { return false };
    let usual = match page.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return false,
    };
    page.authority().is_some_and(|page| {
        let port = |authority: &Authority| authority.port_u16().unwrap_or(usual);
        page.host().eq_ignore_ascii_case(host.host()) && port(page) == port(host)
    })
}

/// The token of an `Authorization` header; the scheme's name is case-insensitive (RFC 9110, section
/// 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// Lets a request through that carries the token.
pub(super) async fn has_token(
    State(token): State<Arc<Token>>,
    request: Request,
    next: Next,
) -> Result<Response, HttpError> {
    let given =
        request.headers().get(header::AUTHORIZATION).and_then(|value| bearer(value.to_str().ok()?));
    if given.is_some_and(|given| token.is(given.trim())) {
        Ok(next.run(request).await)
    } else {
        Err(HttpError::Unauthorized)
    }
}

/// Where no token is set (then the API listens on loopback only) every local program may ask, but
/// no web page of another site in a local browser may.
pub(super) async fn is_local(request: Request, next: Next) -> Result<Response, HttpError> {
    if sent_from_here(request.headers()) {
        Ok(next.run(request).await)
    } else {
        Err(HttpError::Forbidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(headers: &[(HeaderName, &str)]) -> bool {
        sent_from_here(
            &headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect(),
        )
    }

    #[test]
    fn programs_of_this_machine_and_pages_of_this_api_may_ask() {
        for host in [
            "127.0.0.1:7070",
            "localhost:7070",
            "LocalHost:7070",
            "[::1]:7070",
            "10.0.0.1",
            "[fe80::1]",
        ] {
            assert!(admitted(&[(header::HOST, host)]), "{host}");
            let origin = format!("http://{host}");
            let page = format!("{origin}/page?x=y");
            let own = [
                (header::HOST, host),
                (header::ORIGIN, &origin),
                (header::REFERER, &page),
                (SEC_FETCH_SITE, "same-origin"),
            ];
            assert!(admitted(&own), "{host}");
        }
        assert!(
            admitted(&[(header::HOST, "localhost:7070"), (SEC_FETCH_SITE, "none")]),
            "a person typed the address"
        );
        assert!(admitted(&[(header::HOST, "localhost"), (header::ORIGIN, "http://LOCALHOST:80")]));
        assert!(admitted(&[
            (header::HOST, "localhost"),
            (header::ORIGIN, "https://localhost:443")
        ]));
    }

    #[test]
    fn no_page_of_another_site_may_ask_whatever_its_browser_tells() {
        let host = (header::HOST, "127.0.0.1:7070");
        for origin in [
            "https://evil.example",
            "null",
            "",
            "http://127.0.0.1",
            "http://127.0.0.1:7071",
            "http://localhost:7070",
            "127.0.0.1:7070",
            "file://127.0.0.1:7070",
            "http://127.0.0.1:7070.evil.example",
        ] {
            assert!(!admitted(&[host.clone(), (header::ORIGIN, origin)]), "Origin: {origin}");
            assert!(!admitted(&[host.clone(), (header::REFERER, origin)]), "Referer: {origin}");
        }
        for site in ["cross-site", "same-site", "", "Same-Origin"] {
            assert!(!admitted(&[host.clone(), (SEC_FETCH_SITE, site)]), "Sec-Fetch-Site: {site}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:7070", "", "localhost.evil.example"] {
            assert!(!admitted(&[(header::HOST, host)]), "Host: {host}");
            assert!(
                !admitted(&[(header::HOST, host), (SEC_FETCH_SITE, "same-origin")]),
                "Host: {host}"
            );
        }
        assert!(!admitted(&[]), "no Host");
    }
}
