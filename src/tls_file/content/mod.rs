//! What a file of certificates or revocations holds: whole, of the right kind, in date. Pure.
//!
//! A private key never leaves [`Content`] but towards the file and HAProxy: no error, no `Debug`
//! shows a part of it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use haproxy_runtime::cert::{Facts, FileKind, Issued, Revoked};
use jiff::Timestamp;
use mapsmith_core::certificate::IssuedCertificate;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{self, PemObject, SectionKind};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::num_bigint::BigUint;
use x509_parser::prelude::{
    CertificateRevocationList, FromDer, X509Certificate, X509Extension, X509Name,
};
use x509_parser::time::ASN1Time;

/// Why a text can't come into force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("it is empty")]
    Empty,
    #[error("it is not whole PEM text: {0}")]
    Pem(&'static str),
    #[error("it holds no {0} in PEM form")]
    Nothing(&'static str),
    #[error("it holds a {found}; a {kind} has none")]
    Foreign { found: &'static str, kind: FileKind },
    #[error("{what} number {number} in it can't be read: {cause}")]
    Unreadable { what: &'static str, number: usize, cause: String },
    #[error("its private key is encrypted; a daemon needs a plain one")]
    Encrypted,
    #[error("it holds no private key; set key_from to the file with the key")]
    NoKey,
    #[error("there are {0} private keys, where one belongs to the certificate")]
    ManyKeys(usize),
    #[error("its private key can't be used: {0}")]
    Key(String),
    #[error(
        "certificate and private key don't belong together ({subject}); if they are being renewed, \
            the other file is still to come"
    )]
    Mismatch { subject: String },
    #[error("{what} is out of date since {since:.0}")]
    Expired { what: String, since: Timestamp },
    #[error("{what} is valid from {from:.0} on; is this machine's clock right?")]
    NotYet { what: String, from: Timestamp },
    #[error("{what} is older than the one in force ({in_force})")]
    Older { what: String, in_force: String },
    #[error(
        "it lacks the CRL of {0}, which is in force: HAProxy would refuse all its certificates. If \
            that is meant, put the new text into the file itself"
    )]
    Lacking(String),
}

/// A text that was found whole, and what is in it.
#[derive(Clone)]
pub struct Content {
    kind: FileKind,
    /// As it is written to the file.
    text: Vec<u8>,
    /// The first certificate is the one that is served.
    certificates: Vec<Certificate>,
    lists: Vec<List>,
}

/// By its texts: the same text is the same content.
impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.text) == (other.kind, &other.text)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.described()).finish()
    }
}

#[derive(Debug, Clone)]
struct Certificate {
    subject: String,
    issuer: String,
    /// Its subject is its issuer.
    is_self_signed: bool,
    /// The DNS names and addresses that it is for.
    names: Vec<String>,
    serial: Vec<u8>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// A certificate revocation list.
#[derive(Debug, Clone)]
struct List {
    issuer: String,
    /// The issuer's name and key: a CA that was made anew under its old name is another one.
    of: (Vec<u8>, Option<Vec<u8>>),
    number: Option<BigUint>,
    last_update: Timestamp,
    next_update: Option<Timestamp>,
    /// Sorted.
    serials: Vec<Vec<u8>>,
}

impl Content {
    /// Reads a text; for a certificate, `key` is that of the file with its private key.
    ///
    /// # Errors
    /// What keeps it from being whole, or of this kind.
    pub fn parse(kind: FileKind, text: &[u8], key: Option<&[u8]>) -> Result<Self, Unfit> {
        let text = match key {
            Some(key) => [text.trim_ascii_end(), b"\n", key].concat(),
            None => text.to_vec(),
        };
        if text.trim_ascii().is_empty() {
            return Err(Unfit::Empty);
        }
        let mut content = Self { kind, text, certificates: Vec::new(), lists: Vec::new() };
        match content.take_sections()? {
            Some((key, subject_key)) => match_keys(key, &subject_key, &content.certificates[0])?,
            None if kind == FileKind::Certificate => return Err(Unfit::NoKey),
            None => {}
        }
        Ok(content)
    }

    /// Takes the parts of the text in. The private key, if there is one, and the public key of the
    /// first certificate.
    fn take_sections(&mut self) -> Result<Option<(PrivateKeyDer<'static>, Vec<u8>)>, Unfit> {
        let text = std::mem::take(&mut self.text);
        if memchr::memmem::find(&text, b"ENCRYPTED").is_some() {
            return Err(Unfit::Encrypted);
        }
        let (mut keys, mut subject_key) = (Vec::new(), None);
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&text) {
            let (section, der) = section.map_err(|error| Unfit::Pem(in_words(&error)))?;
            match (section, self.kind) {
                (SectionKind::Crl, FileKind::Crl) => {
                    self.lists.push(List::parse(&der, self.lists.len() + 1)?);
                }
                (SectionKind::Certificate, FileKind::Ca | FileKind::Certificate) => {
                    let number = self.certificates.len() + 1;
                    let (certificate, public) = Certificate::parse(&der, number)?;
                    self.certificates.push(certificate);
                    subject_key.get_or_insert(public);
                }
                (
                    SectionKind::PrivateKey
                    | SectionKind::RsaPrivateKey
                    | SectionKind::EcPrivateKey,
                    FileKind::Certificate,
                ) => keys.extend(PrivateKeyDer::from_pem(section, der)),
                (found, kind) => foreign(found, kind)?,
            }
        }
        self.text = text;
        match self.kind {
            FileKind::Crl if self.lists.is_empty() => Err(Unfit::Nothing("X509 CRL")),
            FileKind::Crl => Ok(None),
            FileKind::Ca | FileKind::Certificate => match (keys.len(), subject_key) {
                (_, None) => Err(Unfit::Nothing("CERTIFICATE")),
                (0, Some(_)) => Ok(None),
                (1, Some(public)) => Ok(keys.pop().map(|key| (key, public))),
                (many, Some(_)) => Err(Unfit::ManyKeys(many)),
            },
        }
    }

    /// Whether it is in date. Of a file of CAs one is enough: others may be of the past.
    ///
    /// # Errors
    /// What is not.
    pub fn check_dates(&self, now: Timestamp) -> Result<(), Unfit> {
        self.lists
            .iter()
            .try_for_each(|list| in_date(&list.named(), list.last_update, list.next_update, now))?;
        let dates = |certificate: &Certificate| {
            let what = format!("the certificate {}", certificate.subject);
            in_date(&what, certificate.not_before, Some(certificate.not_after), now)
        };
        match (self.kind, self.certificates.first()) {
            (FileKind::Ca, Some(first)) => {
                let good = self.certificates.iter().any(|ca| dates(ca).is_ok());
                if good { Ok(()) } else { dates(first) }
            }
            (_, first) => first.map_or(Ok(()), dates),
        }
    }

    /// Whether each of its CRLs is at least as new as that of the same CA in `before`.
    ///
    /// # Errors
    /// The first that is older.
    pub fn check_order(&self, before: &Self) -> Result<(), Unfit> {
        let older = |list: &List| {
            let known = before.lists.iter().find(|known| known.of == list.of)?;
            list.is_older_than(known)
                .then(|| Unfit::Older { what: list.described(), in_force: known.described() })
        };
        self.lists.iter().find_map(older).map_or(Ok(()), Err)
    }

    /// Whether it has a CRL of each CA that `before` has one of.
    ///
    /// # Errors
    /// The first CA that it lacks.
    pub fn check_whole(&self, before: &Self) -> Result<(), Unfit> {
        let has = |known: &List| self.lists.iter().any(|list| list.of == known.of);
        let lacking = before.lists.iter().find(|known| !has(known));
        lacking.map_or(Ok(()), |list| Err(Unfit::Lacking(list.issuer.clone())))
    }

    /// What it is.
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// As it is written to the file.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// When the first of it is out of date; of a file of CAs, the first of those that are in date
    /// now.
    pub fn expires_at(&self, now: Timestamp) -> Option<Timestamp> {
        let lists = self.lists.iter().filter_map(|list| list.next_update);
        let served = match self.kind {
            FileKind::Certificate => &self.certificates[..self.certificates.len().min(1)],
            FileKind::Ca | FileKind::Crl => &self.certificates[..],
        };
        let of_past =
            |certificate: &&Certificate| self.kind == FileKind::Ca && certificate.not_after <= now;
        let served = served.iter().filter(|certificate| !of_past(certificate));
        lists.chain(served.map(|certificate| certificate.not_after)).min()
    }

    /// What is in it, for people.
    pub fn described(&self) -> Vec<String> {
        let lists = self.lists.iter().map(List::described);
        let certificates = self.certificates.iter().map(|certificate| {
            format!("{}, valid until {:.0}", certificate.subject, certificate.not_after)
        });
        lists.chain(certificates).collect()
    }

    /// The certificate that is shown first.
    pub fn served(&self) -> Option<IssuedCertificate> {
        let first = self.certificates.first()?;
        Some(IssuedCertificate {
            names: first.names.clone(),
            issuer: first.issuer.clone(),
            self_signed: first.is_self_signed,
            issued_at: first.not_before,
            expires_at: first.not_after,
        })
    }

    /// By what HAProxy shows whether it holds this.
    pub fn facts(&self) -> Facts {
        match self.kind {
            FileKind::Crl => Facts::Lists(self.lists.iter().map(List::facts).collect()),
            FileKind::Ca | FileKind::Certificate => {
                Facts::Certificates(self.certificates.iter().map(Certificate::facts).collect())
            }
        }
    }
}

impl Certificate {
    /// The certificate and its public key.
    fn parse(der: &[u8], number: usize) -> Result<(Self, Vec<u8>), Unfit> {
        let wrong = unreadable("certificate", number);
        let (rest, parsed) =
            X509Certificate::from_der(der).map_err(|error| wrong(error.to_string()))?;
        whole(rest).map_err(&wrong)?;
        let validity = parsed.validity();
        let certificate = Self {
            subject: printable(parsed.subject()),
            issuer: printable(parsed.issuer()),
            is_self_signed: parsed.subject().as_raw() == parsed.issuer().as_raw(),
            names: names_of(&parsed),
            serial: significant(parsed.raw_serial()),
            not_before: timestamp(validity.not_before).map_err(&wrong)?,
            not_after: timestamp(validity.not_after).map_err(&wrong)?,
        };
        Ok((certificate, parsed.public_key().raw.to_vec()))
    }

    fn facts(&self) -> Issued {
        Issued {
            serial: hex(&self.serial),
            not_before: openssl(self.not_before),
            not_after: openssl(self.not_after),
        }
    }
}

impl List {
    fn parse(der: &[u8], number: usize) -> Result<Self, Unfit> {
        let wrong = unreadable("CRL", number);
        let (rest, parsed) =
            CertificateRevocationList::from_der(der).map_err(|error| wrong(error.to_string()))?;
        whole(rest).map_err(&wrong)?;
        let mut serials: Vec<_> = parsed
            .iter_revoked_certificates()
            .map(|revoked| significant(revoked.raw_serial()))
            .collect();
        serials.sort_unstable();
        Ok(Self {
            issuer: printable(parsed.issuer()),
            of: (parsed.issuer().as_raw().to_vec(), authority_key(parsed.extensions())),
            number: parsed.crl_number().cloned(),
            last_update: timestamp(parsed.last_update()).map_err(&wrong)?,
            next_update: parsed.next_update().map(timestamp).transpose().map_err(&wrong)?,
            serials,
        })
    }

    /// By the CRL's number (RFC 5280, section 5.2.3), else by its time.
    fn is_older_than(&self, other: &Self) -> bool {
        match (&self.number, &other.number) {
            (Some(ours), Some(others)) if ours != others => ours < others,
            _ => self.last_update < other.last_update,
        }
    }

    fn named(&self) -> String {
        format!("the CRL of {}", self.issuer)
    }

    fn described(&self) -> String {
        let number = self.number.as_ref().map_or(String::new(), |number| format!(" {number}"));
        let until =
            self.next_update.map_or(String::new(), |until| format!(", valid until {until:.0}"));
        let revoked = self.serials.len();
        format!(
            "CRL{number} of {} from {:.0}, {revoked} revoked{until}",
            self.issuer, self.last_update
        )
    }

    fn facts(&self) -> Revoked {
        Revoked {
            last_update: openssl(self.last_update),
            next_update: self.next_update.map(openssl),
            serials: self.serials.iter().map(|serial| hex(serial)).collect(),
        }
    }
}

/// Without the text itself, which may be a key's.
fn in_words(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line; the text is cut off",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        _ => "a section is not base64",
    }
}

/// Whether the private key is the certificate's. Where that can't be told HAProxy's own check
/// decides.
fn match_keys(
    key: PrivateKeyDer<'static>,
    subject_key: &[u8],
    served: &Certificate,
) -> Result<(), Unfit> {
    let key = any_supported_type(&key).map_err(|error| Unfit::Key(error.to_string()))?;
    match key.public_key() {
        Some(public) if public.as_ref() != subject_key => {
            Err(Unfit::Mismatch { subject: served.subject.clone() })
        }
        _ => Ok(()),
    }
}

/// What a file of this kind must not hold. Other sections, such as DH parameters, are HAProxy's to
/// take or to leave.
fn foreign(found: SectionKind, kind: FileKind) -> Result<(), Unfit> {
    let found = match found {
        SectionKind::Crl => "CRL",
        SectionKind::Certificate => "certificate",
        SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
            "private key"
        }
        SectionKind::Csr => "certificate request",
        _ => return Ok(()),
    };
    Err(Unfit::Foreign { found, kind })
}

fn in_date(
    what: &str,
    from: Timestamp,
    until: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), Unfit> {
    match until {
        Some(since) if since <= now => Err(Unfit::Expired { what: what.to_owned(), since }),
        _ if from > now => Err(Unfit::NotYet { what: what.to_owned(), from }),
        _ => Ok(()),
    }
}

fn authority_key(extensions: &[X509Extension<'_>]) -> Option<Vec<u8>> {
    extensions.iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(authority) => {
            authority.key_identifier.as_ref().map(|key| key.0.to_vec())
        }
        _ => None,
    })
}

fn unreadable(what: &'static str, number: usize) -> impl Fn(String) -> Unfit {
    move |cause| Unfit::Unreadable { what, number, cause }
}

fn whole(rest: &[u8]) -> Result<(), String> {
    match rest.len() {
        0 => Ok(()),
        more => Err(format!("{more} bytes follow its end")),
    }
}

/// The names in the extension that clients compare with the name they asked for; the common name
/// is of no use to them any more.
fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let plain = |text: &str| text.chars().filter(|it| !it.is_control()).take(255).collect();
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(plain(name)),
        GeneralName::IPAddress([a, b, c, d]) => Some(Ipv4Addr::new(*a, *b, *c, *d).to_string()),
        GeneralName::IPAddress(bytes) => {
            <[u8; 16]>::try_from(*bytes).ok().map(|bytes| Ipv6Addr::from(bytes).to_string())
        }
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

/// A name, freed of what would break a line of status or log.
fn printable(name: &X509Name<'_>) -> String {
    let text = name.to_string();
    text.chars().filter(|character| !character.is_control()).take(200).collect()
}

/// A serial number's bytes without zeros before it.
fn significant(serial: &[u8]) -> Vec<u8> {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    serial[zeros.min(serial.len().saturating_sub(1))..].to_vec()
}

fn timestamp(time: ASN1Time) -> Result<Timestamp, String> {
    Timestamp::from_second(time.timestamp()).map_err(|error| error.to_string())
}

/// As OpenSSL prints a serial number.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// As OpenSSL prints a time: `Apr  3 14:45:39 2021 GMT`.
fn openssl(time: Timestamp) -> String {
    time.strftime("%b %e %H:%M:%S %Y GMT").to_string()
}

#[cfg(test)]
mod tests;
