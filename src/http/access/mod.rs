//! Who asks, as far as a request says so: a bearer token, a session's cookie, a certificate, or
//! just that it comes from this machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use mapsmith_core::access::{Identity, TokenText};

mod origin;

use super::error::HttpError;
use crate::api::Access;
use crate::api::access::tls::ShownCertificate;
use origin::Page;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// The certificate that it has shown.
    pub certificate: Option<Arc<ShownCertificate>>,
    pub over_tls: bool,
}

impl Peer {
    /// Of a request; every connection puts it there.
    pub(super) fn of(parts: &Parts) -> Self {
        let nobody = || Self {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            certificate: None,
            over_tls: false,
        };
        parts.extensions.get().cloned().unwrap_or_else(nobody)
    }
}

/// The name of the session's cookie. A browser takes the first from a page over TLS alone, and
/// sends it to no other host.
pub(super) fn cookie_name(over_tls: bool) -> &'static str {
    if over_tls { "__Host-mapsmith" } else { "mapsmith" }
}

/// The cookie of a session that begins, or of one that ends.
pub(super) fn cookie_header(over_tls: bool, value: Option<&str>) -> String {
    let (name, secure) = (cookie_name(over_tls), if over_tls { "; Secure" } else { "" });
    let ends = if value.is_none() { "; Max-Age=0" } else { "" };
    let value = value.unwrap_or_default();
    format!("{name}={value}; HttpOnly; SameSite=Strict; Path=/{secure}{ends}")
}

/// What the session's cookie holds.
pub(super) fn session_cookie(headers: &HeaderMap, over_tls: bool) -> Option<&str> {
    let name = cookie_name(over_tls);
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find_map(|(given, value)| (given == name).then_some(value))
}

/// The token of an `Authorization` header; the scheme's name is case-insensitive (RFC 9110, section
/// 11.1).
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Whether a WebSocket is to be opened: a browser lets any page do so, and sends what it knows of
/// the user.
pub(super) fn opens_a_socket(parts: &Parts) -> bool {
    let upgrades = parts.headers.get_all(header::UPGRADE).iter();
    let mut names = upgrades.filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(','));
    names.any(|name| name.trim().eq_ignore_ascii_case("websocket"))
}

/// Who asks.
///
/// # Errors
/// Nobody who is known, or a web page of another site.
pub(super) fn identify(
    access: &Access,
    parts: &Parts,
    peer: &Peer,
    changes: bool,
) -> Result<Identity, HttpError> {
    let page = Page::of(&parts.uri, &parts.headers, access.external());
    let authorization = parts.headers.get(header::AUTHORIZATION);
    let token = authorization.and_then(bearer);
    if let Some(identity) = token.and_then(|token| access.by_token(token)) {
        return Ok(identity);
    }
    // Where nobody has to show anything, what is shown and is no token of ours means nothing.
    let is_wrong = match access.is_open_locally() {
        true => token.is_some_and(|token| TokenText::parse(token).is_some()),
        false => authorization.is_some(),
    };
    if is_wrong {
        return Err(HttpError::Unauthorized { tried: true });
    }
    let cookie = session_cookie(&parts.headers, peer.over_tls);
    if let Some(identity) = cookie.and_then(|cookie| access.by_session(cookie)) {
        let is_allowed = if changes { page.is_ours() } else { !page.is_foreign() };
        return if is_allowed { Ok(identity) } else { Err(HttpError::OtherSite) };
    }
    let names = peer.certificate.as_ref().map_or(&[][..], |certificate| certificate.names());
    if let Some(identity) = access.by_certificate(names) {
        return if page.is_foreign() { Err(HttpError::OtherSite) } else { Ok(identity) };
    }
    match access.is_open_locally() {
        true => is_local(access, parts).map(|()| Identity::local()),
        // A session that is over is nobody's guess.
        false => Err(match &peer.certificate {
            Some(shown) => HttpError::NoClient(shown.names().to_vec()),
            None => HttpError::Unauthorized { tried: false },
        }),
    }
}

/// Where nobody has to say who they are (then the API listens on loopback only) every local program
/// may ask, but no web page of another site in a local browser may.
pub(super) fn is_local(access: &Access, parts: &Parts) -> Result<(), HttpError> {
    let page = Page::of(&parts.uri, &parts.headers, access.external());
    if page.names_us_locally() && !page.is_foreign() { Ok(()) } else { Err(HttpError::Forbidden) }
}

/// Whether no web page of another site can be asking, where we may also be asked by names of which
/// `is_ours` knows.
pub(super) fn is_of_a_program(parts: &Parts, is_ours: impl Fn(&str) -> bool) -> bool {
    let page = Page::of(&parts.uri, &parts.headers, None);
    (page.names_us_locally() || page.names_us(is_ours)) && !page.is_foreign()
}

/// No web page of another site may ask.
pub(super) fn is_of_no_other_site(access: &Access, parts: &Parts) -> Result<(), HttpError> {
    let page = Page::of(&parts.uri, &parts.headers, access.external());
    if page.is_foreign() { Err(HttpError::OtherSite) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        for (value, expected) in [
            ("Bearer s3cret", Some("s3cret")),
            ("bearer  s3cret", Some("s3cret")),
            ("Basic s3cret", None),
            ("s3cret", None),
            ("Bearer", None),
        ] {
            assert_eq!(bearer(&HeaderValue::from_static(value)), expected, "{value}");
        }
    }

    #[test]
    fn a_cookie_that_a_page_without_tls_could_have_set_is_none_over_tls() {
        let cookies = "a=b; mapsmith=plain; __Host-mapsmith=safe";
        let headers = HeaderMap::from_iter([(header::COOKIE, cookies.parse().unwrap())]);
        assert_eq!(session_cookie(&headers, true), Some("safe"));
        assert_eq!(session_cookie(&headers, false), Some("plain"));
        assert_eq!(session_cookie(&HeaderMap::new(), true), None);
        for over_tls in [true, false] {
            let header = cookie_header(over_tls, Some("x"));
            assert!(header.contains("=x; HttpOnly; SameSite=Strict; Path=/"), "{header}");
            assert_eq!(header.contains("; Secure"), over_tls, "{header}");
            assert!(cookie_header(over_tls, None).contains("mapsmith=; "), "it is emptied");
        }
    }
}
