//! Where the API is for those who reach it through a proxy.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// The longest that is taken.
const LONGEST: usize = 1000;

/// A URL with a scheme, a host and, if any, a port and a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalUrl {
    /// Without a slash at its end.
    text: String,
    origin: (String, u16),
}

impl ExternalUrl {
    /// None where it is not one.
    pub fn parse(given: &str) -> Option<Self> {
        let text = given.trim_end_matches('/');
        let is_plain = |it: char| it.is_ascii_graphic() && !"?#@\"\\".contains(it);
        if text.len() > LONGEST || !text.chars().all(is_plain) {
            return None;
        }
        let url = reqwest::Url::parse(text).ok()?;
        let host = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https"))?;
        let origin = (host.to_ascii_lowercase(), url.port_or_known_default()?);
        Some(Self { text: text.to_owned(), origin })
    }

    /// The URL of a path of the API.
    pub fn of(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }

    /// Whether pages of this host, over this port, are pages of the API.
    pub fn is_origin(&self, host: &str, port: u16) -> bool {
        self.origin.0.eq_ignore_ascii_case(host) && self.origin.1 == port
    }
}

impl fmt::Display for ExternalUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

pub(super) fn external_url<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<ExternalUrl>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let url = ExternalUrl::parse(&text);
    url.map(Some).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "{text:?} is not a valid URL (example: https://gateway1.example.com/mapsmith)"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{SMALL, load};

    #[test]
    fn the_api_is_known_by_the_url_of_a_proxy() {
        let of = |url: &str| load(&format!("[api]\nexternal_url = \"{url}\"\n{SMALL}"), &[]);
        let url = of("https://Gateway1.example/mapsmith/").unwrap().api.external_url.unwrap();
        assert_eq!(url.of("/v1/status"), "https://Gateway1.example/mapsmith/v1/status");
        assert!(url.is_origin("gateway1.example", 443) && !url.is_origin("gateway1.example", 80));
        let url = of("http://[::1]:8080").unwrap().api.external_url.unwrap();
        assert!(url.is_origin("[::1]", 8080), "{url}");
        for wrong in [
            "",
            "gateway1",
            "ftp://gateway1",
            "https://",
            "https://a?b",
            "https://a#b",
            "https://u@a",
            "https://a/b c",
        ] {
            let message = of(wrong).unwrap_err();
            assert!(message.contains("api.external_url"), "{wrong}: {message}");
            assert!(
                message.contains("is not a valid URL (example: https://"),
                "{wrong}: {message}"
            );
        }
    }
}
