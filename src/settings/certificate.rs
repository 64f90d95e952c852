//! `[[certificate]]`: certificates that frontends show.

use std::path::{Path, PathBuf};
use std::time::Duration;

use haproxy_runtime::cert::FileKind;
use mapsmith_core::config::values::{FilePath, Name};
use serde::Deserialize;

use super::keys::section;
use super::units::optional_duration;
use super::{Map, Store, TlsFile};

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
        #[unset(required)]
        pub path: FilePath,
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
    }
}

impl Certificate {
    /// The file that is kept as `from` has it.
    pub fn tls_file(&self) -> Option<TlsFile> {
        let Self { path, from, key_from, poll, .. } = self;
        Some(TlsFile {
            kind: FileKind::Certificate,
            path: Path::new(path.as_str()).to_owned(),
            file: None,
            from: from.clone()?,
            key_from: key_from.clone(),
            poll: *poll,
            timeout: super::tls_file::timeout(),
            ca: None,
            cert: None,
            key: None,
            instances: None,
        })
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
        match certificate.tls_file() {
            Some(file) => {
                file.problems(|text| problems.push(format!("{place}.{text}")));
                if let Some(clash) = file.clashes(&files, map, store) {
                    problems.push(format!("{place}.{clash}"));
                }
                files.push(file);
            }
            None if certificate.key_from.is_some() || certificate.poll.is_some() => {
                problems.push(format!("{place}: key_from and poll need from"));
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SMALL, load};

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
    fn what_makes_no_sense_is_named_with_its_key() {
        for (text, part) in [
            (SITE.repeat(2), "certificate[1].name: there are two of site"),
            (format!("{SITE}poll = \"1s\""), "certificate[0]: key_from and poll need from"),
            (format!("{SITE}from = \"/etc/haproxy/site.pem\""), "name another one"),
            (SITE.replace("/etc/haproxy/", ""), "certificate[0].path: \"site.pem\" is not a path"),
        ] {
            let message = load(&format!("{SMALL}{text}"), &[]).unwrap_err();
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
}
