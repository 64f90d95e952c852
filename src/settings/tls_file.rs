//! `[[tls_file]]`: certificates and revocations that HAProxy has loaded from files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use haproxy_runtime::cert::FileKind;
use mapsmith_core::config::values::DnsName;
use reqwest::Url;
use serde::Deserialize;

use super::keys::section;
use super::units::{duration, optional_duration};
use super::{Instance, Map, Store};

/// More often a server is not asked for a document.
const SHORTEST_POLL: Duration = Duration::from_millis(100);
/// What `poll` is for a file: a change raises an event, and this is for the one that did not.
const POLL_OF_A_FILE: Duration = Duration::from_secs(60);
/// What `poll` is for a URL: within a second of the CA's change HAProxy has it.
const POLL_OF_A_URL: Duration = Duration::from_millis(500);

section! {
    /// A file of certificates or revocations that HAProxy has loaded. Mapsmith reads `from`, checks
    /// it, replaces the file and brings it into the memory of each HAProxy, without a reload.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct TlsFile {
        /// What it holds: `crl` (what HAProxy's configuration names by `crl-file`), `ca`
        /// (`ca-file`) or `certificate` (`crt`: the certificate, its chain and its key).
        #[unset(required)]
        pub kind: FileKind,
        /// The file's path, exactly as HAProxy's configuration names it, `ca-base` and `crt-base`
        /// put before it. No whitespace, control characters or colons. If it is relative, set
        /// `file` too.
        #[unset(required)]
        pub path: PathBuf,
        /// The file that Mapsmith writes, if its path is not HAProxy's (a chroot, a mount).
        #[unset(says "`path`")]
        pub file: Option<PathBuf>,
        /// Where the content comes from: another file, which is watched, or a URL that begins with
        /// `http://` or `https://` and names one server. PEM.
        #[unset(required)]
        pub from: String,
        /// `certificate`: the file with the private key (PEM, not encrypted), if `from` does not
        /// hold it.
        pub key_from: Option<PathBuf>,
        /// `certificate`: the names that it must be for; one that is not is refused, and the one in
        /// force stays.
        #[unset(says "any")]
        #[serde(default)]
        pub names: Vec<DnsName>,
        /// The time between two reads of `from`, at least `100ms`. From a URL the document comes
        /// only if it changed, where its server can tell, and once a minute in any case. Unless this
        /// is set, a server that can't tell is asked every 10 s.
        #[unset(says "a URL: `500ms`; a file, which is watched: `60s`")]
        #[serde(default, deserialize_with = "optional_duration")]
        pub poll: Option<Duration>,
        /// The bound on one read of `from`. Not 0.
        #[unset("30s")]
        #[serde(default = "timeout", deserialize_with = "duration")]
        pub timeout: Duration,
        /// TLS to `from`: the CA's certificates (PEM). Only this CA is trusted. Like `cert` and
        /// `key` it is read again when it changes.
        #[unset(says "the system's")]
        pub ca: Option<PathBuf>,
        /// TLS to `from`: the client's certificate (PEM); goes with `key`.
        pub cert: Option<PathBuf>,
        /// TLS to `from`: the client's key (PEM, not encrypted); goes with `cert`.
        pub key: Option<PathBuf>,
        /// The names of the instances that have loaded it.
        #[unset(says "all")]
        pub instances: Option<Vec<String>>,
    }
}

pub(super) fn timeout() -> Duration {
    Duration::from_secs(30)
}

/// Where the content of a [`TlsFile`] comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// A document over HTTP.
    Url(String),
}

impl TlsFile {
    /// Where the file is written.
    pub fn file(&self) -> &Path {
        self.file.as_deref().unwrap_or(&self.path)
    }

    /// Where its content comes from.
    pub fn origin(&self) -> Origin {
        match ["http://", "https://"].iter().any(|scheme| self.from.starts_with(scheme)) {
            true => Origin::Url(self.from.clone()),
            false => Origin::File(PathBuf::from(&self.from)),
        }
    }

    /// The time between two reads.
    pub fn poll(&self) -> Duration {
        self.poll.unwrap_or_else(|| match self.origin() {
            Origin::File(_) => POLL_OF_A_FILE,
            Origin::Url(_) => POLL_OF_A_URL,
        })
    }

    /// Whether this instance has loaded it.
    pub fn is_of(&self, instance: &str) -> bool {
        self.instances.as_ref().is_none_or(|names| names.iter().any(|name| name == instance))
    }

    /// `path` is HAProxy's word and stays as it is.
    pub(super) fn resolve(&mut self, folder: &Path) {
        if let Origin::File(path) = self.origin() {
            self.from = folder.join(path).to_string_lossy().into_owned();
        }
        let paths = [&mut self.file, &mut self.key_from, &mut self.ca, &mut self.cert];
        let paths = paths.into_iter().chain([&mut self.key]).flatten();
        paths.for_each(|path| *path = folder.join(&*path));
    }

    pub(super) fn problems(&self, mut problem: impl FnMut(String)) {
        if let Err(why) = haproxy_runtime::cert::check_name(&self.path.to_string_lossy()) {
            problem(format!("path: {:?} {why}", self.path));
        }
        if !self.path.is_absolute() && self.file.is_none() {
            problem(format!(
                "path: {:?} is relative to HAProxy's working folder; set file to where Mapsmith \
                    shall write it",
                self.path
            ));
        }
        if let Some(poll) = self.poll.filter(|poll| *poll < SHORTEST_POLL) {
            problem(format!("poll: {poll:?} is too short, at least {SHORTEST_POLL:?}"));
        }
        if self.timeout.is_zero() {
            problem("timeout must not be 0".to_owned());
        }
        if !self.names.is_empty() && self.kind != FileKind::Certificate {
            problem(format!("names: a {} has none", self.kind));
        }
        if self.key_from.is_some() && self.kind != FileKind::Certificate {
            problem(format!("key_from: a {} has no private key", self.kind));
        }
        self.origin_problems(problem);
    }

    fn origin_problems(&self, mut problem: impl FnMut(String)) {
        if self.cert.is_some() != self.key.is_some() {
            problem("cert and key go together".to_owned());
        }
        match self.origin() {
            Origin::File(path) => {
                if path == self.file() {
                    problem(
                        "from: is the file that HAProxy loads; name another one, from which \
                            Mapsmith takes only what is whole and valid"
                            .to_owned(),
                    );
                }
                if self.ca.is_some() || self.cert.is_some() || self.key.is_some() {
                    problem("ca, cert, key: from is a file".to_owned());
                }
            }
            Origin::Url(url) => match Url::parse(&url) {
                Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                    problem("from: no user name or password in a URL; use cert and key".to_owned())
                }
                Ok(_) => {}
                Err(error) => problem(format!(
                    "from: {url:?} is not a valid URL (example: \
                        https://puppet.example.com:8140/puppet-ca/v1/certificate_revocation_list/ca\
                        ): {error}"
                )),
            },
        }
    }

    /// What else has its file or, in one HAProxy, its path.
    pub(super) fn clashes(
        &self,
        others: &[Self],
        map: &Map,
        store: Option<&Store>,
    ) -> Option<String> {
        if self.file() == map.file() {
            return Some("path is the map file".to_owned());
        }
        if store.is_some_and(|store| store.path == self.file()) {
            return Some("path is the store, a database".to_owned());
        }
        let meet = |other: &&Self| match (&self.instances, &other.instances) {
            (Some(ours), Some(_)) => ours.iter().any(|instance| other.is_of(instance)),
            _ => true,
        };
        let same =
            |other: &&Self| other.file() == self.file() || other.path == self.path && meet(other);
        let other = others.iter().find(same)?;
        Some(format!("path: there are two of {}", other.path.display()))
    }
}

pub(super) fn problems(
    files: &[TlsFile],
    instances: &[Instance],
    map: &Map,
    store: Option<&Store>,
    problems: &mut Vec<String>,
) {
    for (index, file) in files.iter().enumerate() {
        let place = format!("tls_file[{index}]");
        file.problems(|text| problems.push(format!("{place}.{text}")));
        if let Some(clash) = file.clashes(&files[..index], map, store) {
            problems.push(format!("{place}.{clash}"));
        }
        let named = file.instances.iter().flatten();
        for name in named.filter(|name| !instances.iter().any(|known| known.name == **name)) {
            problems.push(format!("{place}.instances: there is no instance {name:?}"));
        }
        if file.instances.as_ref().is_some_and(Vec::is_empty) {
            problems.push(format!("{place}.instances: names none; leave it out for all"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SMALL, load};
    use super::*;

    const CRL: &str = "\n[[tls_file]]\nkind = \"crl\"\npath = \"/etc/haproxy/crl.pem\"\nfrom = \
        \"https://puppet:8140/puppet-ca/v1/certificate_revocation_list/ca\"\n";

    #[test]
    fn four_lines_are_enough() {
        let settings = load(&format!("{SMALL}{CRL}"), &[]).unwrap();
        let [file] = &settings.tls_files[..] else { panic!("{:?}", settings.tls_files) };
        assert_eq!((file.kind, file.poll()), (FileKind::Crl, Duration::from_millis(500)));
        assert_eq!(file.file(), Path::new("/etc/haproxy/crl.pem"));
        assert!(matches!(file.origin(), Origin::Url(_)) && file.is_of("edge1"));
    }

    #[test]
    fn relative_paths_are_relative_to_the_settings_but_haproxys_word() {
        let text = CRL.replace("https://puppet:8140/puppet-ca/v1", "puppet").replace(
            "path = \"/etc/haproxy/crl.pem\"",
            "path = \"crl.pem\"\nfile = \"crl/crl.pem\"",
        );
        let settings = load(&format!("{SMALL}{text}"), &[]).unwrap();
        let file = &settings.tls_files[0];
        assert_eq!(file.path, Path::new("crl.pem"));
        assert!(file.file().is_absolute() && file.file().ends_with("crl/crl.pem"));
        let Origin::File(from) = file.origin() else { panic!("{file:?}") };
        assert!(from.is_absolute() && from.ends_with("puppet/certificate_revocation_list/ca"));
        assert_eq!(file.poll(), Duration::from_secs(60), "it is watched");
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_key() {
        for (from, to, part) in [
            ("\"crl\"", "\"crls\"", "crls"),
            ("/etc/haproxy/crl.pem", "/etc/my crl.pem", "tls_file[0].path: \"/etc/my crl.pem\""),
            ("/etc/haproxy/crl.pem", "/etc/crl:1", "colon"),
            ("/etc/haproxy/crl.pem", "crl.pem", "set file"),
            ("/etc/haproxy/crl.pem", "/etc/haproxy/maps/node-master.map", "is the map file"),
            ("from = ", "poll = \"99ms\"\nfrom = ", "tls_file[0].poll"),
            ("from = ", "timeout = \"0s\"\nfrom = ", "tls_file[0].timeout"),
            ("from = ", "names = [\"a.test\"]\nfrom = ", "names: a CRL has none"),
            ("from = ", "key_from = \"/k\"\nfrom = ", "key_from: a CRL has no private key"),
            ("from = ", "cert = \"/c\"\nfrom = ", "cert and key go together"),
            ("from = ", "instances = [\"edge9\"]\nfrom = ", "there is no instance \"edge9\""),
            ("from = ", "instances = []\nfrom = ", "names none"),
            ("https://puppet:8140", "https://me:secret@puppet:8140", "no user name or password"),
            ("https://puppet:8140", "https://[", "is not a valid URL"),
            (
                "https://puppet:8140/puppet-ca/v1/certificate_revocation_list/ca",
                "/etc/haproxy/crl.pem",
                "name another one",
            ),
            ("https://puppet:8140", "/puppet\"\nca = \"/ca.pem", "from is a file"),
        ] {
            let text = format!("{SMALL}{}", CRL.replace(from, to));
            let message = load(&text, &[]).unwrap_err();
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
        let twice = load(&format!("{SMALL}{CRL}{CRL}"), &[]).unwrap_err();
        assert!(twice.contains("tls_file[1].path: there are two of /etc/haproxy/crl.pem"));
    }
}
