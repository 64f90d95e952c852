//! `[[certificate]]`: certificates that frontends show.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use haproxy_runtime::cert::FileKind;
use mapsmith_core::config::values::{DnsName, FilePath, Name};
use serde::Deserialize;

use super::keys::section;
use super::units::optional_duration;
use super::{Haproxy, Map, Store, TlsFile};

section! {
    /// A certificate that frontends show, by the name that their `bind` has it by.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Certificate {
        /// Its name in these settings.
        #[unset(required)]
        pub name: Name,
        /// The file that HAProxy loads, with the certificate, its chain and its key (PEM), or a
        /// folder of such files. An absolute path.
        #[unset(says "with `acme` or `self_signed`: `certificates/NAME.pem` in `haproxy.folder`; \
            else it must be given")]
        pub path: Option<FilePath>,
        /// Where the file's content comes from: another file, which is watched, or a URL. Mapsmith
        /// checks it, replaces `path` and brings it into force without a reload, as
        /// [`[[tls_file]]`](#tls_file) does.
        #[unset(says "`path` is somebody else's to write")]
        pub from: Option<String>,
        /// The file with the private key, if `from` does not hold it.
        pub key_from: Option<PathBuf>,
        /// The time between two reads of `from`.
        #[unset(says "as for `[[tls_file]]`")]
        #[serde(default, deserialize_with = "optional_duration")]
        pub poll: Option<Duration>,
        /// The names that a certificate authority is asked to certify, by [`[acme]`](#acme). Until
        /// it has, and while it can't be reached, a self-signed certificate is shown.
        /// [certificates.md](certificates.md) says what happens when.
        #[unset(says "none")]
        #[serde(default)]
        pub acme: Vec<DnsName>,
        /// The names of a certificate that Mapsmith signs itself. No client trusts it unless it is
        /// told to.
        #[unset(says "none")]
        #[serde(default)]
        pub self_signed: Vec<DnsName>,
    }
    beside {
        /// Where Mapsmith keeps what it was issued, in place of `from`.
        pub issued: Option<PathBuf>
    }
}

/// The most names that a certificate authority takes in one certificate (Let's Encrypt's).
const MOST_NAMES: usize = 100;

impl Certificate {
    /// One that Mapsmith gets itself, from a certificate authority where there are names in `acme`,
    /// else signed by its own key. [`Settings::add_certificate`](super::Settings::add_certificate)
    /// gives it its files.
    pub fn obtained(name: Name, acme: Vec<DnsName>, self_signed: Vec<DnsName>) -> Self {
        let (path, from, key_from, poll, issued) = (None, None, None, None, None);
        Self { name, path, from, key_from, poll, acme, self_signed, issued }
    }

    /// Whether Mapsmith gets it itself.
    pub fn is_obtained(&self) -> bool {
        !self.wanted().is_empty()
    }

    /// The names that Mapsmith gets it for.
    pub fn wanted(&self) -> &[DnsName] {
        if self.acme.is_empty() { &self.self_signed } else { &self.acme }
    }

    /// Gives one that Mapsmith gets itself its files: in HAProxy's folder, and in that of what was
    /// issued.
    pub(super) fn place(&mut self, haproxy: Option<&Haproxy>, issued: &Path) {
        if !self.is_obtained() {
            return;
        }
        let file = format!("{}.pem", self.name);
        self.issued = Some(issued.join(&file));
        if let (None, Some(haproxy)) = (&self.path, haproxy) {
            let path = haproxy.files().certificates().join(file);
            let path = path.into_os_string().into_string().ok();
            self.path = path.and_then(|path| FilePath::try_from(path).ok());
        }
    }

    /// The file that is kept as `from` has it, or as it was issued.
    pub fn tls_file(&self) -> Option<TlsFile> {
        let Self { path, from, key_from, poll, issued, .. } = self;
        let issued = issued.as_ref().map(|path| path.to_string_lossy().into_owned());
        Some(TlsFile {
            kind: FileKind::Certificate,
            path: Path::new(path.as_ref()?.as_str()).to_owned(),
            file: None,
            from: from.clone().or(issued)?,
            key_from: key_from.clone(),
            poll: *poll,
            timeout: super::tls_file::timeout(),
            ca: None,
            cert: None,
            key: None,
            instances: None,
        })
    }

    fn problems(&self, mut problem: impl FnMut(String)) {
        let names = self.wanted();
        if !self.acme.is_empty() && !self.self_signed.is_empty() {
            problem(
                "self_signed: acme is given; until the authority has answered, a self-signed \
                    certificate of its names is shown anyway"
                    .to_owned(),
            );
        }
        if self.is_obtained() && self.from.is_some() {
            problem("from: Mapsmith gets it itself, by acme or self_signed".to_owned());
        }
        if self.path.is_none() {
            let hint =
                if self.is_obtained() { "; only with [haproxy] it need not be given" } else { "" };
            problem(format!("path: is missing{hint}"));
        }
        let key = if self.acme.is_empty() { "self_signed" } else { "acme" };
        if names.len() > MOST_NAMES {
            problem(format!("{key}: {} names, at most {MOST_NAMES}", names.len()));
        }
        let mut seen = BTreeSet::new();
        for name in names.iter().filter(|name| !seen.insert(*name)) {
            problem(format!("{key}: {name} is there twice"));
        }
        if self.from.is_none() && self.key_from.is_some() {
            problem("key_from: needs from".to_owned());
        }
        if self.from.is_none() && self.poll.is_some() {
            problem("poll: needs from".to_owned());
        }
    }
}

pub(super) fn problems(
    certificates: &[Certificate],
    tls_files: &[TlsFile],
    map: &Map,
    store: Option<&Store>,
    problems: &mut Vec<String>,
) {
    let mut files = tls_files.to_vec();
    for (index, certificate) in certificates.iter().enumerate() {
        let place = format!("certificate[{index}]");
        if certificates[..index].iter().any(|other| other.name == certificate.name) {
            problems.push(format!("{place}.name: there are two of {}", certificate.name));
        }
        certificate.problems(|text| problems.push(format!("{place}.{text}")));
        if let Some(file) = certificate.tls_file() {
            file.problems(|text| problems.push(format!("{place}.{text}")));
            if let Some(clash) = file.clashes(&files, map, store) {
                problems.push(format!("{place}.{clash}"));
            }
            files.push(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SMALL, load};
    use super::*;

    const SITE: &str = "[[certificate]]\nname = \"site\"\npath = \"/etc/haproxy/site.pem\"\n";

    #[test]
    fn a_certificate_with_an_origin_is_kept_as_a_tls_file() {
        let text = format!("{SMALL}{SITE}from = \"/etc/ssl/site.pem\"\n");
        let settings = load(&text, &[]).unwrap();
        let [file] = &settings.tls_files[..] else { panic!("{:?}", settings.tls_files) };
        assert_eq!(
            (file.path.to_str(), &*file.from),
            (Some("/etc/haproxy/site.pem"), "/etc/ssl/site.pem")
        );
        assert!(load(&format!("{SMALL}{SITE}"), &[]).unwrap().tls_files.is_empty());
    }

    #[test]
    fn a_certificate_that_is_obtained_needs_no_more_than_its_names() {
        let text = SITE.replace("path = \"/etc/haproxy/site.pem\"", "self_signed = [\"a.test\"]");
        let haproxy = "[haproxy]\nfolder = \"/srv/h\"\n";
        let settings = load(&format!("{SMALL}{haproxy}{text}"), &[]).unwrap();
        let [file] = &settings.tls_files[..] else { panic!("{:?}", settings.tls_files) };
        assert_eq!(
            (file.path.to_str(), &*file.from),
            (Some("/srv/h/certificates/site.pem"), "/srv/h/acme/issued/site.pem")
        );
        let message = load(&format!("{SMALL}{text}"), &[]).unwrap_err();
        assert!(message.contains("certificate[0].path: is missing; only with [haproxy]"));
    }

    #[test]
    fn one_that_is_added_has_its_files_like_one_that_was_written() {
        let text = SITE.replace("path = \"/etc/haproxy/site.pem\"", "self_signed = [\"a.test\"]");
        let haproxy = "[haproxy]\nfolder = \"/srv/h\"\n";
        let written = load(&format!("{SMALL}{haproxy}{text}"), &[]).unwrap();
        let mut added = load(&format!("{SMALL}{haproxy}"), &[]).unwrap();
        let name = |text: &str| Name::try_from(text.to_owned()).unwrap();
        let of = DnsName::try_from("a.test".to_owned()).unwrap();
        added.add_certificate(Certificate::obtained(name("site"), Vec::new(), vec![of]));
        assert_eq!(format!("{written:?}"), format!("{added:?}"));
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_key() {
        for (text, part) in [
            (SITE.repeat(2), "certificate[1].name: there are two of site"),
            (format!("{SITE}poll = \"1s\""), "certificate[0].poll: needs from"),
            (format!("{SITE}from = \"/etc/haproxy/site.pem\""), "name another one"),
            (format!("{SITE}acme = [\"A.test\"]"), "in lower case"),
            (format!("{SITE}self_signed = [\"a.test\", \"a.test\"]"), "a.test is there twice"),
            (format!("{SITE}acme = [\"a.test\"]"), "certificate[0].acme: needs [acme]"),
            (
                format!("{SITE}acme = [\"a.test\"]\nself_signed = [\"a.test\"]"),
                "certificate[0].self_signed: acme is given",
            ),
            (
                format!("{SITE}self_signed = [\"a.test\"]\nfrom = \"/etc/ssl/a.pem\""),
                "certificate[0].from: Mapsmith gets it itself",
            ),
            (SITE.replace("/etc/haproxy/", ""), "certificate[0].path: \"site.pem\" is not a path"),
        ] {
            let message = load(&format!("{SMALL}{text}"), &[]).unwrap_err();
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
}
