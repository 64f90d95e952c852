//! Certificates, CAs and revocation lists that HAProxy has loaded from files: how they are replaced
//! in its memory, and how it shows what it holds. Pure.
//!
//! A replacement is a transaction: `set ssl KIND PATH <<` with the PEM text, then `commit ssl KIND
//! PATH`. There is one at a time of each kind. The text is one payload, so the buffer bounds it.

mod facts;
mod reply;

#[cfg(feature = "client")]
pub mod client;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use facts::{Facts, Issued, Revoked};
pub use reply::{CertRefusal, Stored, committed, opened, stored};

use crate::version::HaproxyVersion;
use crate::wire;

/// The first version whose payloads have a bound of their own, apart from the buffer's.
const LARGE_PAYLOADS: HaproxyVersion = HaproxyVersion { major: 3, minor: 4 };
/// What such a version was seen to take with the default buffer, in bytes.
const LARGE_PAYLOAD: usize = 112 * 1024;
/// A payload stays so far below the buffer's size, in bytes: at exactly its size 2.6 hangs and
/// aborts.
const MARGIN: usize = 1024;

/// The first version where a certificate can be replaced after a CA file or CRL was. Before it (2.6
/// and 3.0) HAProxy then loses track of who uses the certificate: the new one is not served, and
/// the next CA file or CRL that is committed ends the process.
pub const MIXES_COMMITS: HaproxyVersion = HaproxyVersion { major: 3, minor: 2 };

/// What such a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FileKind {
    /// Certificate revocation lists: what `crl-file` names.
    Crl,
    /// Certificates of CAs: what `ca-file` names.
    Ca,
    /// A certificate, its chain and its private key: what `crt` names.
    Certificate,
}

impl FileKind {
    /// HAProxy's word for it.
    fn keyword(self) -> &'static str {
        match self {
            Self::Crl => "crl-file",
            Self::Ca => "ca-file",
            Self::Certificate => "cert",
        }
    }

    /// Its name in data.
    pub fn label(self) -> &'static str {
        match self {
            Self::Crl => "crl",
            Self::Ca => "ca",
            Self::Certificate => "certificate",
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Crl => "CRL",
            Self::Ca => "CA file",
            Self::Certificate => "certificate",
        })
    }
}

/// Whether a path can be named on a command line.
///
/// # Errors
/// Why not.
pub fn check_name(path: &str) -> Result<(), &'static str> {
    if !wire::is_word(path) {
        Err("is empty, or contains whitespace or control characters")
    } else if path.contains(':') {
        Err("contains a colon, behind which HAProxy's commands read a number")
    } else if path.starts_with("<<") || path.ends_with("<<") {
        Err("has `<<` at an end, which HAProxy's commands read as a payload mark")
    } else if path.starts_with(['*', '\\', '#']) {
        Err("begins with a character that HAProxy's listings have a meaning for")
    } else {
        Ok(())
    }
}

/// A file as HAProxy's configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    kind: FileKind,
    plain: String,
    escaped: String,
}

impl StoredFile {
    /// Of a path that [`check_name`] takes.
    pub fn new(kind: FileKind, path: &str) -> Self {
        Self { kind, plain: path.to_owned(), escaped: wire::escape(path).into_owned() }
    }

    /// What it holds.
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.plain
    }

    /// Opens a transaction with another content, or gives the open one another. `pem` is what
    /// [`payload`] made.
    pub fn set(&self, pem: &[u8]) -> Vec<u8> {
        let head = format!("set ssl {} {} <<\n", self.kind.keyword(), self.escaped);
        [head.as_bytes(), pem, b"\n"].concat()
    }

    /// Has every user of the file take the new content.
    pub fn commit(&self) -> String {
        format!("commit ssl {} {}\n", self.kind.keyword(), self.escaped)
    }

    /// Drops the open transaction.
    pub fn abort(&self) -> String {
        format!("abort ssl {} {}\n", self.kind.keyword(), self.escaped)
    }

    /// Shows the certificate; of CA files and CRLs, the one of this number, from 1; without the
    /// line's end.
    pub fn show(&self, number: usize) -> String {
        match self.kind {
            FileKind::Certificate => format!("show ssl cert {}", self.escaped),
            kind => format!("show ssl {} {}:{number}", kind.keyword(), self.escaped),
        }
    }
}

/// The sections of a PEM text as a payload carries them. What stands between them is left out, and
/// so are empty lines: one ends a payload, and HAProxy runs what follows as commands.
pub fn payload(text: &[u8]) -> Vec<u8> {
    let mut pem = Vec::with_capacity(text.len());
    let mut within = false;
    for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        within |= line.starts_with(b"-----BEGIN ");
        if within && !line.is_empty() {
            pem.extend_from_slice(line);
            pem.push(b'\n');
        }
        within &= !line.starts_with(b"-----END ");
    }
    pem
}

/// The size of a buffer in the answer to `show pools`, in bytes.
pub fn buffer_size(reply: &[u8]) -> Option<usize> {
    let text = str::from_utf8(reply).ok()?;
    let rest = text.lines().find_map(|line| line.trim_start().strip_prefix("- Pool buffer ("))?;
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// The largest payload command that this version takes with buffers of that size, in bytes.
pub fn largest_payload(version: HaproxyVersion, buffer: usize) -> usize {
    let within_buffer = buffer.saturating_sub(MARGIN);
    if version >= LARGE_PAYLOADS { within_buffer.max(LARGE_PAYLOAD) } else { within_buffer }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_payload_is_the_sections_alone_without_an_empty_line() {
        let text =
            b"Bag Attributes\r\n\n-----BEGIN X509 CRL-----\r\nAA==\n\n  BB==\n-----END X509 \
            CRL-----\n\nmore\n-----BEGIN X509 CRL-----\nCC==\n-----END X509 CRL-----";
        let payload = payload(text);
        assert_eq!(
            str::from_utf8(&payload).unwrap(),
            "-----BEGIN X509 CRL-----\nAA==\nBB==\n-----END X509 CRL-----\n-----BEGIN X509 \
                CRL-----\nCC==\n-----END X509 CRL-----\n"
        );
        let file = StoredFile::new(FileKind::Crl, "/etc/a;b.pem");
        let command = String::from_utf8(file.set(&payload)).unwrap();
        assert!(command.starts_with("set ssl crl-file /etc/a\\;b.pem <<\n-----BEGIN"), "{command}");
        assert!(command.ends_with("-----END X509 CRL-----\n\n"), "{command}");
        assert_eq!(file.show(2), "show ssl crl-file /etc/a\\;b.pem:2");
    }

    #[test]
    fn a_path_that_a_command_would_read_otherwise_is_refused() {
        for wrong in ["", "/a b", "/a\nb", "/a:1", "<<", "/a<<", "*/a", "\\*/a", "#a"] {
            assert!(check_name(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(check_name("/etc/haproxy/crl.pem"), Ok(()));
    }

    /// As 2.6, 3.2 and 3.4 answer.
    #[test]
    fn the_buffers_size_is_read_from_the_pools() {
        for (line, size) in [
            ("  - Pool buffer (16384 bytes) : 6 allocated (98304 bytes), 6 used", Some(16384)),
            ("  - Pool buffer (131072 bytes/64) : 16 allocated", Some(131_072)),
            ("  - Pool trash (16416 bytes) : 6 allocated", None),
            ("", None),
        ] {
            let reply = format!("Dumping pools usage. Use SIGQUIT to flush them.\n{line}\nTotal\n");
            assert_eq!(buffer_size(reply.as_bytes()), size, "{line}");
        }
        let largest = |minor, buffer| largest_payload(HaproxyVersion { major: 3, minor }, buffer);
        assert_eq!((largest(0, 16384), largest(2, 131_072)), (15360, 130_048));
        assert_eq!((largest(4, 16384), largest(4, 262_144)), (114_688, 261_120));
    }

    proptest! {
        #[test]
        fn no_text_ends_a_payload_early(text in proptest::collection::vec(
            prop_oneof![
                Just(b"\n".to_vec()),
                Just(b"-----BEGIN X-----".to_vec()),
                Just(b"-----END X-----".to_vec()),
                Just(b"\r\n \n".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..20),
            ],
            0..30,
        )) {
            let payload = payload(&text.concat());
            prop_assert!(!payload.starts_with(b"\n"));
            prop_assert!(memchr::memmem::find(&payload, b"\n\n").is_none());
        }
    }
}
