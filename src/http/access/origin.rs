//! Which page of a browser a request is sent for, if any. Pure.
//!
//! A browser sends a request of any page with what it knows of the user: a cookie, a certificate,
//! or just that it runs on this machine. So whoever is known by one of these must not be asking
//! for a page of another site. A bearer token no page sends that was not given it.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Uri, header};

use crate::settings::ExternalUrl;

/// Which page a browser sends the request for: `same-origin`, `same-site`, `cross-site`, `none`
/// (W3C, Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a request says of the page that it is sent for.
pub(super) struct Page<'a> {
    headers: &'a HeaderMap,
    /// By which name we were asked. None where there is no saying.
    host: Option<Authority>,
    /// By which URL a proxy has us.
    external: Option<&'a ExternalUrl>,
}

impl<'a> Page<'a> {
    pub(super) fn of(uri: &Uri, headers: &'a HeaderMap, external: Option<&'a ExternalUrl>) -> Self {
        let mut hosts = headers.get_all(header::HOST).iter();
        let named = hosts.next().map(|host| match hosts.next() {
            None => host.to_str().unwrap_or_default(),
            // Nobody knows which of them others go by.
            Some(_) => "",
        });
        let host = match (named, uri.authority()) {
            (Some(host), _) => host.parse().ok(),
            // HTTP/2 has it there.
            (None, authority) => authority.cloned(),
        };
        Self { headers, host, external }
    }

    fn text(&self, name: HeaderName) -> Option<&'a str> {
        self.headers.get(name).map(|value| value.to_str().unwrap_or_default())
    }

    /// Whether we are asked by an address, or as `localhost`: a page whose own name was made to
    /// point to this machine (DNS rebinding) asks by that name.
    pub(super) fn names_us_locally(&self) -> bool {
        self.host.as_ref().is_some_and(|host| {
            let address = host.host().trim_start_matches('[').trim_end_matches(']');
            address.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
        })
    }

    /// Whether we are asked by one of these names.
    pub(super) fn names_us(&self, is_ours: impl Fn(&str) -> bool) -> bool {
        self.host.as_ref().is_some_and(|host| is_ours(host.host()))
    }

    /// Whether it is a page of another site, or one that does not say where it is from. What a
    /// browser says of it must be the address that was asked: `Origin` (with every change and every
    /// WebSocket), `Sec-Fetch-Site` and `Referer` (also where it only reads).
    pub(super) fn is_foreign(&self) -> bool {
        let Some(host) = &self.host else { return true };
        let is_other = |name| self.text(name).is_some_and(|page| !self.is_of(page, host));
        let site = self.text(SEC_FETCH_SITE);
        is_other(header::ORIGIN)
            || is_other(header::REFERER)
            || site.is_some_and(|site| !matches!(site, "same-origin" | "none"))
    }

    /// Whether the browser says that it is a page of ours.
    pub(super) fn is_ours(&self) -> bool {
        let is_same_origin = self.text(SEC_FETCH_SITE) == Some("same-origin");
        !self.is_foreign() && (is_same_origin || self.text(header::ORIGIN).is_some())
    }

    /// Whether a page's URL or origin has the host and port that the request was sent to, or those
    /// of the proxy that it came through, which may have sent it on by another name.
    fn is_of(&self, page: &str, host: &Authority) -> bool {
        let Ok(page) = page.parse::<Uri>() else { return false };
        let usual = match page.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return false,
        };
        page.authority().is_some_and(|page| {
            let port = |authority: &Authority| authority.port_u16().unwrap_or(usual);
            let is_asked =
                page.host().eq_ignore_ascii_case(host.host()) && port(page) == port(host);
            is_asked || self.external.is_some_and(|url| url.is_origin(page.host(), port(page)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(HeaderName, &str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn admitted(headers: &[(HeaderName, &str)]) -> bool {
        let (uri, headers) = (Uri::from_static("/"), map(headers));
        let page = Page::of(&uri, &headers, None);
        page.names_us_locally() && !page.is_foreign()
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
        let mut hosts = map(&[host]);
        hosts.append(header::HOST, "evil.example".parse().unwrap());
        assert!(Page::of(&Uri::from_static("/"), &hosts, None).is_foreign(), "two of them");
    }

    #[test]
    fn over_http_2_the_name_that_we_are_asked_by_stands_in_the_path() {
        let headers = map(&[(header::ORIGIN, "https://localhost:7070")]);
        let of = |uri: &'static str| {
            let uri = Uri::from_static(uri);
            let page = Page::of(&uri, &headers, None);
            (page.names_us_locally(), page.is_foreign())
        };
        assert_eq!(of("https://localhost:7070/v1/status"), (true, false));
        assert_eq!(of("https://gateway1.example:7070/v1/status"), (false, true));
        assert_eq!(of("/v1/status"), (false, true), "nobody knows");
    }

    #[test]
    fn a_page_is_ours_where_the_browser_says_so() {
        let host = (header::HOST, "gateway1.example");
        for (more, expected) in [
            (vec![], false),
            (vec![(SEC_FETCH_SITE, "none")], false),
            (vec![(SEC_FETCH_SITE, "same-origin")], true),
            (vec![(header::ORIGIN, "https://gateway1.example")], true),
            (vec![(header::ORIGIN, "https://gateway1.example:8443")], false),
            (
                vec![(header::ORIGIN, "https://evil.example"), (SEC_FETCH_SITE, "same-origin")],
                false,
            ),
        ] {
            let headers = map(&[vec![host.clone()], more.clone()].concat());
            let uri = Uri::from_static("/");
            assert_eq!(Page::of(&uri, &headers, None).is_ours(), expected, "{more:?}");
        }
    }

    #[test]
    fn a_page_that_came_through_our_proxy_is_ours() {
        let url = ExternalUrl::parse("https://gateway1.example/mapsmith");
        let is_ours = |origin: &str| {
            let headers = map(&[(header::HOST, "127.0.0.1:7070"), (header::ORIGIN, origin)]);
            Page::of(&Uri::from_static("/"), &headers, url.as_ref()).is_ours()
        };
        assert!(is_ours("https://gateway1.example") && is_ours("http://127.0.0.1:7070"));
        for other in
            ["http://gateway1.example", "https://gateway1.example:8443", "https://evil.example"]
        {
            assert!(!is_ours(other), "{other}");
        }
    }
}
