//! What was issued, on disk: each certificate with its key in a file of its own. It is there before
//! HAProxy is started, so that HTTPS listens from the first second.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use haproxy_runtime::cert::FileKind;
use jiff::Timestamp;
use mapsmith_core::certificate::IssuedCertificate;

use super::renewal::is_for;
use super::self_signed;
use crate::settings::{Certificate, Settings};
use crate::store::replace::{remove_leftovers, replace};
use crate::tls_file::content::Content;

/// A key is its owner's alone.
pub(super) const MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// A certificate as the settings want it.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub name: String,
    pub names: Vec<String>,
    /// Whether an authority issues it.
    pub acme: bool,
    /// Where it is kept.
    issued: PathBuf,
    /// The file that HAProxy loads.
    path: PathBuf,
}

impl Wanted {
    /// None of one that somebody else gets.
    pub fn of(certificate: &Certificate) -> Option<Self> {
        let names: Vec<_> = certificate.wanted().iter().map(ToString::to_string).collect();
        let path = PathBuf::from(certificate.path.as_ref()?.as_str());
        Some(Self {
            name: certificate.name.to_string(),
            acme: !certificate.acme.is_empty(),
            issued: certificate.issued.clone().filter(|_| !names.is_empty())?,
            names,
            path,
        })
    }

    /// Where it is kept.
    pub fn file(&self) -> &Path {
        &self.issued
    }

    /// What was issued last, if that can still be shown.
    pub fn in_hand(&self, now: Timestamp) -> Option<IssuedCertificate> {
        let text = fs::read(&self.issued).ok()?;
        let content = Content::parse(FileKind::Certificate, &text, None).ok()?;
        content.check_dates(now).ok()?;
        let served = content.served()?;
        // One that an authority issued is shown until there is another, whatever its names.
        (!served.self_signed || is_for(&served, &self.names)).then_some(served)
    }

    /// Signs one. Blocks.
    ///
    /// # Errors
    /// It can't be made, or written.
    pub fn sign(&self, now: Timestamp) -> Result<IssuedCertificate, String> {
        let pem = self_signed::issue(&self.names, now).map_err(|error| error.to_string())?;
        self.keep(&pem, now)
    }

    /// Keeps what was issued, if it is what was asked for. Blocks.
    ///
    /// # Errors
    /// What is wrong with it; or it can't be written.
    pub fn keep(&self, pem: &str, now: Timestamp) -> Result<IssuedCertificate, String> {
        let content = Content::parse(FileKind::Certificate, pem.as_bytes(), None)
            .and_then(|content| content.check_dates(now).map(|()| content))
            .map_err(|unfit| format!("what was issued can't be used: {unfit}"))?;
        let served = content.served().filter(|served| is_for(served, &self.names));
        let names = || self.names.join(", ");
        let served =
            served.ok_or_else(|| format!("what was issued is not for all of {}", names()))?;
        self.issued.parent().map_or(Ok(()), create)?;
        replace(&self.issued, pem.as_bytes(), MODE).map_err(|error| error.to_string())?;
        Ok(served)
    }

    /// Goes on with what HAProxy loads already, where an authority has issued that to somebody else
    /// before; whether it could.
    fn take_over(&self, now: Timestamp) -> Result<bool, String> {
        let Ok(text) = fs::read(&self.path) else { return Ok(false) };
        let Ok(content) = Content::parse(FileKind::Certificate, &text, None) else {
            return Ok(false);
        };
        let is_good = content.check_dates(now).is_ok();
        let good = content.served().filter(|served| is_good && !served.self_signed);
        if good.is_none_or(|served| !is_for(&served, &self.names)) {
            return Ok(false);
        }
        self.issued.parent().map_or(Ok(()), create)?;
        replace(&self.issued, &text, MODE).map_err(|error| error.to_string())?;
        Ok(true)
    }

    /// Has HAProxy find a certificate when it starts. Blocks.
    fn supply(&self, now: Timestamp) -> Result<(), String> {
        remove_leftovers(&self.issued);
        if self.in_hand(now).is_none() && !self.take_over(now)? {
            self.sign(now)?;
        }
        if self.path.exists() {
            return Ok(());
        }
        let unreadable = |error| format!("{}: can't be read: {error}", self.issued.display());
        let text = fs::read(&self.issued).map_err(unreadable)?;
        self.path.parent().map_or(Ok(()), create)?;
        replace(&self.path, &text, MODE).map_err(|error| error.to_string())
    }
}

/// Work that blocks, for a task that must not.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

/// Creates a folder that only its owner can read, and those above it.
pub(super) fn create(folder: &Path) -> Result<(), String> {
    let created = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
    created.map_err(|error: io::Error| {
        format!("{}: can't be created: {error} (Mapsmith's user must be able to)", folder.display())
    })
}

/// Has each certificate that Mapsmith gets itself in its place: where nothing was issued yet, a
/// self-signed one. The map of what authorities are answered is there too. Blocks.
///
/// # Errors
/// A file can't be written, with the certificate's name.
pub fn supply(settings: &Settings) -> Result<(), String> {
    for wanted in settings.certificates.iter().filter_map(Wanted::of) {
        let supplied = wanted.supply(Timestamp::now());
        supplied.map_err(|error| format!("certificate {}: {error}", wanted.name))?;
    }
    let Some(challenges) = settings.challenges() else { return Ok(()) };
    let map = Path::new(challenges.map.as_str());
    if map.exists() {
        return Ok(());
    }
    map.parent().map_or(Ok(()), create)?;
    // HAProxy's user must be able to read it, and what is in it is public.
    replace(map, b"", 0o644).map_err(|error| error.to_string())
}

#[cfg(test)]
impl Wanted {
    /// One that an authority is to issue, for tests that touch no file.
    pub(super) fn example(name: &str, names: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            acme: true,
            issued: PathBuf::new(),
            path: PathBuf::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn wanted(folder: &Path, names: &[&str]) -> Wanted {
        Wanted {
            issued: folder.join("acme/issued/site.pem"),
            path: folder.join("certificates/site.pem"),
            ..Wanted::example("site", names)
        }
    }

    #[test]
    fn a_certificate_is_there_before_haproxy_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let site = wanted(folder.path(), &["a.test"]);
        site.supply(Timestamp::now()).unwrap();
        let text = fs::read(&site.path).unwrap();
        assert_eq!(text, fs::read(&site.issued).unwrap());
        for path in [&site.path, &site.issued] {
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(path), mode(path.parent().unwrap())), (0o600, 0o700), "{path:?}");
        }
        site.supply(Timestamp::now()).unwrap();
        assert_eq!(text, fs::read(&site.path).unwrap(), "a good one stays");
    }

    #[test]
    fn a_self_signed_one_of_other_names_or_times_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        wanted(folder.path(), &["a.test"]).supply(now).unwrap();
        let other = wanted(folder.path(), &["b.test"]);
        assert_eq!(other.in_hand(now), None);
        other.supply(now).unwrap();
        assert_eq!(other.in_hand(now).unwrap().names, ["b.test"]);
        let later = now + jiff::SignedDuration::from_hours(91 * 24);
        assert_eq!(other.in_hand(later), None);
    }

    #[test]
    fn what_an_authority_has_issued_to_somebody_else_before_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let site = wanted(folder.path(), &["a.test"]);
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let ca = rcgen::Issuer::new(ca, rcgen::KeyPair::generate().unwrap());
        let mut params = rcgen::CertificateParams::new(site.names.clone()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let theirs = params.signed_by(&key, &ca).unwrap().pem() + &key.serialize_pem();
        fs::create_dir(site.path.parent().unwrap()).unwrap();
        fs::write(&site.path, &theirs).unwrap();
        site.supply(now).unwrap();
        assert_eq!(fs::read_to_string(&site.issued).unwrap(), theirs);
        let other = Wanted { names: vec!["b.test".to_owned()], ..site.clone() };
        fs::remove_file(&other.issued).unwrap();
        other.supply(now).unwrap();
        assert_ne!(fs::read_to_string(&other.issued).unwrap(), theirs, "it is of other names");
    }

    #[test]
    fn what_is_not_what_was_asked_for_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let site = wanted(folder.path(), &["a.test"]);
        site.supply(now).unwrap();
        let kept = fs::read(&site.issued).unwrap();
        let of = |name: &str| self_signed::issue(&[name.to_owned()], now).unwrap();
        let (ours, others) = (of("a.test"), of("a.test"));
        let begin = ours.find("-----BEGIN PRIVATE").unwrap();
        let mixed =
            format!("{}{}", &ours[..begin], &others[others.find("-----BEGIN PR").unwrap()..]);
        for (pem, why) in [
            (of("b.test"), "is not for all of a.test"),
            (mixed, "don't belong together"),
            (ours[..begin].to_owned(), "no private key"),
            (String::new(), "is empty"),
        ] {
            let error = site.keep(&pem, now).unwrap_err();
            assert!(error.contains(why), "{why:?} is not in: {error}");
        }
        assert_eq!(kept, fs::read(&site.issued).unwrap());
    }
}
