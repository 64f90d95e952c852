//! The keys of sources that are asked over HTTP.

use std::path::PathBuf;

use reqwest::Url;

use crate::settings::keys::kind_keys;
use crate::source::SourceKind;

kind_keys! {
    /// Keys of sources that are asked over HTTP; `ca`, `cert` and `key` also of others that speak
    /// TLS. Certificates and keys are read again when their files change; where the new ones can't
    /// be used, those from before stay in use, and `status` says so.
    #[derive(Debug, Clone, Default)]
    pub struct HttpKeys {
        /// `puppetdb` and `consul`: the root of the server or agent
        /// (`https://puppetdb.example.com:8081`, `http://127.0.0.1:8500`). `http_json` and
        /// `metadata`: the document itself. No user name or password.
        #[unset(required)]
        pub url: Option<String>,
        /// TLS: the CA's certificates (PEM). Only this CA is trusted.
        #[unset(says "the system's")]
        pub ca: Option<PathBuf>,
        /// TLS: the client's certificate (PEM); goes with `key`.
        pub cert: Option<PathBuf>,
        /// TLS: the client's key (PEM, not encrypted); goes with `cert`.
        pub key: Option<PathBuf>,
        /// A file with a token: sent as `X-Authentication` to a `puppetdb`, as `X-Consul-Token` to a
        /// `consul`, as a bearer token to an `http_json` or for `metadata`. It is read again at each
        /// poll.
        pub token_file: Option<PathBuf>,
    }
}

impl HttpKeys {
    pub(crate) fn problems(&self, kind: SourceKind, mut problem: impl FnMut(String)) {
        let over_http = kind.is_asked_over_http();
        let may_be = kind == SourceKind::Metadata && self.url.is_some();
        match (&self.url, over_http) {
            (Some(url), true) => url_problems("url", url, kind, &mut problem),
            (Some(url), false) if kind == SourceKind::Metadata => {
                url_problems("url", url, kind, &mut problem);
            }
            (None, true) => problem(format!("url is missing (example: {})", example(kind))),
            (Some(_), false) => problem(format!("url: a {kind} source has none")),
            (None, false) => {}
        }
        let has_tls =
            over_http || may_be || matches!(kind, SourceKind::Zookeeper | SourceKind::Etcd);
        if self.cert.is_some() != self.key.is_some() {
            problem("cert and key go together".to_owned());
        }
        if !has_tls && [&self.ca, &self.cert].into_iter().any(Option::is_some) {
            problem(format!("ca, cert, key: a {kind} source has none"));
        }
        if kind == SourceKind::Zookeeper && self.ca.is_none() && self.cert.is_some() {
            problem("ca is missing: a zookeeper source speaks TLS where it is given".to_owned());
        }
        if !(over_http || may_be) && self.token_file.is_some() {
            problem(format!("token_file: a {kind} source has none"));
        }
    }

    /// The paths among them.
    pub(crate) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.ca, &mut self.cert, &mut self.key, &mut self.token_file].into_iter().flatten()
    }
}

/// A URL of a source of this kind.
fn example(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::Consul => "http://127.0.0.1:8500",
        SourceKind::HttpJson => "https://cmdb.example.com/nodes.json",
        _ => "https://puppetdb.example.com:8081",
    }
}

/// What is wrong with a URL that stands in `key` of a source of this kind.
pub(crate) fn url_problems(
    key: &str,
    url: &str,
    kind: SourceKind,
    problem: &mut impl FnMut(String),
) {
    match Url::parse(url) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => {
            if !url.username().is_empty() || url.password().is_some() {
                problem(format!(
                    "{key}: no user name or password in a URL; use token_file or cert and key"
                ));
            }
        }
        Ok(_) => problem(format!("{key}: must begin with http:// or https://")),
        Err(error) => problem(format!(
            "{key}: {url:?} is not a valid URL (example: {}): {error}",
            example(kind)
        )),
    }
}
