//! The keys of an etcd, and of what a backend wants of it.

use std::path::PathBuf;

use reqwest::Url;
use serde::Deserialize;

use crate::settings::keys::{SelectorKeys, kind_keys, section};
use crate::source::SourceKind;
use crate::source::transport::http::keys::HttpKeys;
use crate::source::transport::servers::quoted;

/// The longest prefix, in bytes: it stands in messages.
const LONGEST_PREFIX: usize = 1024;
/// The most endpoints: each may take its part of `timeout`.
const MOST_ENDPOINTS: usize = 20;

kind_keys! {
    /// Keys of an etcd, of version 3.4 or later. Every poll reads all keys of a prefix as they were
    /// at one revision; a watch starts one as soon as one of them changes. Certificates and the
    /// password are read for each new connection.
    #[derive(Debug, Clone, Default)]
    pub struct EtcdKeys {
        /// The members' client URLs, with their ports: `["http://127.0.0.1:2379"]`. All begin with
        /// `http://` or all with `https://`. One is asked; where it gives no answer, the next one.
        #[unset(required)]
        pub endpoints: Vec<String>,
        /// The user to log in as; goes with `password_file`.
        #[unset(says "no login")]
        pub user: Option<String>,
        /// A file with the user's password. It is read for each new connection, and after a
        /// refusal.
        pub password_file: Option<PathBuf>,
        /// Whether a member may answer from what it holds itself (etcd's serializable reads), while
        /// it knows a leader. That spares the leader, and may be a little old. A reload asks for
        /// the newest all the same.
        #[unset("false")]
        pub serializable: bool,
    }
}

impl EtcdKeys {
    pub(crate) fn problems(
        &self,
        kind: SourceKind,
        http: &HttpKeys,
        mut problem: impl FnMut(String),
    ) {
        if kind != SourceKind::Etcd {
            let given = [
                ("endpoints", !self.endpoints.is_empty()),
                ("user", self.user.is_some()),
                ("password_file", self.password_file.is_some()),
                ("serializable", self.serializable),
            ];
            for (key, _) in given.into_iter().filter(|(_, given)| *given) {
                problem(format!("{key}: a {kind} source has none"));
            }
            return;
        }
        if self.endpoints.is_empty() {
            problem("endpoints is missing".to_owned());
        }
        if self.endpoints.len() > MOST_ENDPOINTS {
            problem(format!("endpoints: at most {MOST_ENDPOINTS}"));
        }
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            if let Err(reason) = check_endpoint(endpoint) {
                problem(format!("endpoints: {} {reason}", quoted(index, endpoint)));
            }
        }
        let in_tls = self.endpoints.iter().filter(|endpoint| is_in_tls(endpoint)).count();
        if in_tls > 0 && in_tls < self.endpoints.len() {
            problem("endpoints: all must begin with http://, or all with https://".to_owned());
        }
        if in_tls == 0 && (http.ca.is_some() || http.cert.is_some()) {
            problem("ca, cert, key: are for endpoints that begin with https://".to_owned());
        }
        if self.user.is_some() != self.password_file.is_some() {
            problem("user and password_file go together".to_owned());
        }
        if self.user.as_deref().is_some_and(str::is_empty) {
            problem("user: is empty".to_owned());
        }
    }
}

/// Whether TLS is spoken there.
pub(super) fn is_in_tls(endpoint: &str) -> bool {
    endpoint.starts_with("https://")
}

/// `http://host:port` or `https://host:port`, and nothing else.
fn check_endpoint(endpoint: &str) -> Result<(), &'static str> {
    let url = Url::parse(endpoint)
        .map_err(|_| "is not a valid URL (example: https://etcd1.example.com:2379)")?;
    let Some(authority) =
        endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"))
    else {
        return Err("must begin with http:// or https://");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user name or password in it; use user and password_file");
    }
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.contains(['/', '?', '#']) {
        return Err("has more than a host and a port");
    }
    // `Url` hides a scheme's own port, 80 and 443.
    let port = authority.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(port)) if port > 0 => Ok(()),
        _ => Err("has no port (etcd's is 2379 mostly)"),
    }
}

/// What all keys of a list or map begin with. The `/` at its end keeps `/web/` and `/web2/` apart.
pub(in crate::source) fn check_prefix(prefix: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{prefix:?} {why}"));
    if !prefix.ends_with('/') {
        return wrong("must end with / (example: /services/web/)");
    }
    if prefix.len() > LONGEST_PREFIX {
        return wrong("is too long");
    }
    if prefix.chars().any(mapsmith_core::names::is_invisible) {
        return wrong("contains a control or invisible character");
    }
    Ok(())
}

section! {
    /// The keys of a prefix: each is a server. One without a name of its own is called like its key
    /// below the prefix, with `:` for `/`. A value that can't be read is rejected, and the server
    /// that it was before stays in force.
    #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(in crate::source) struct EtcdSelector {
        /// What the keys begin with, `/` at its end: `/services/web/`.
        #[unset(required)]
        pub(in crate::source) prefix: String,
        /// What a value is. `json`: `{"address": "10.0.0.1", "port": 8080}`, with a server's other
        /// fields (`name`, `weight`, `backup`, `options`) if it has them. `address`:
        /// `10.0.0.1:8080`.
        #[unset("json")]
        #[serde(default)]
        pub(in crate::source) format: ValueFormat,
    }
}

/// What a value is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::source) enum ValueFormat {
    /// A JSON object.
    #[default]
    Json,
    /// `host:port`.
    Address,
}

impl SelectorKeys for EtcdSelector {
    fn problems(&self, mut problem: impl FnMut(String)) {
        if let Err(reason) = check_prefix(&self.prefix) {
            problem(format!("prefix: {reason}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Selector;
    use crate::settings::keys::{Keys, Unset};

    fn problems(keys: &EtcdKeys, http: &HttpKeys) -> String {
        let mut problems = Vec::new();
        keys.problems(SourceKind::Etcd, http, |problem| problems.push(problem));
        problems.join("; ")
    }

    #[test]
    fn endpoints_and_logins_are_checked_before_anything_is_connected() {
        let keys = |endpoints: &[&str]| EtcdKeys {
            endpoints: endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect(),
            ..EtcdKeys::default()
        };
        let http = HttpKeys::default();
        for good in [&["http://10.0.0.1:80"][..], &["https://a:2379/", "https://[fe80::1]:443"]] {
            assert_eq!(problems(&keys(good), &http), "");
        }
        for (endpoints, part) in [
            (&[][..], "endpoints is missing"),
            (&["10.0.0.1:2379"], "\"10.0.0.1:2379\" is not a valid URL"),
            (&["etcd:2379"], "must begin with http://"),
            (&["http://etcd"], "has no port"),
            (&["http://[fe80::1]"], "has no port"),
            (&["http://etcd:0"], "has no port"),
            (
                &["http://u:p@etcd:2379"],
                "endpoints: number 1 has a user name or password in it; use",
            ),
            (&["u:p@etcd:2379"], "endpoints: number 1 must begin with"),
            (&["http://etcd:2379/v3"], "has more than a host and a port"),
            (&["http://a:1", "https://b:1"], "all must begin with"),
            (&["http://a:1"; 21], "at most 20"),
        ] {
            let found = problems(&keys(endpoints), &http);
            assert!(found.contains(part), "{part:?} is not in {found:?}");
        }
        let with_user =
            |user: &str| EtcdKeys { user: Some(user.to_owned()), ..keys(&["http://a:1"]) };
        assert!(problems(&with_user("u"), &http).contains("go together"));
        let ca = HttpKeys { ca: Some("ca.pem".into()), ..http };
        assert!(problems(&keys(&["http://a:1"]), &ca).contains("are for endpoints"));
        assert_eq!(problems(&keys(&["https://a:1"]), &ca), "");
    }

    #[test]
    fn each_documented_default_of_a_selector_is_the_one_in_force_and_prefixes_are_checked() {
        let read = |more: &str| {
            let text = format!("{{\"source\": \"e\", \"prefix\": [\"/web/\"]{more}}}");
            let selector: Selector = serde_json::from_str(&text).unwrap();
            selector.read::<EtcdSelector>().unwrap()
        };
        for key in EtcdSelector::KEYS {
            if let Unset::Value(value) = key.unset {
                let given = read(&format!(", \"{}\": [\"{value}\"]", key.name));
                assert_eq!(given, read(""), "{}", key.name);
            }
        }
        for (prefix, part) in [
            ("/web", "must end with /"),
            ("", "must end with /"),
            ("/a\n/", "invisible"),
            (&*format!("/{}/", "a".repeat(2000)), "too long"),
        ] {
            let problem = check_prefix(prefix).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
        assert_eq!(check_prefix("/"), Ok(()));
    }
}
