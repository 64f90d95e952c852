//! What HAProxy answers to `set ssl`, `commit ssl` and `show ssl`. Pure.

use super::facts::{Issued, Revoked};
use crate::error::{ReplyError, excerpt};
use crate::wire;

/// A listing this long, in bytes, may lack its end: HAProxy cuts it where its buffer ends.
const MAY_BE_CUT: usize = 15 * 1024;

/// Why HAProxy does not take a content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertRefusal {
    /// The configuration names no such file.
    #[error("HAProxy's configuration names no such file: it must have exactly this path")]
    NotLoaded,
    /// Another transaction of the kind is open; HAProxy's words, cut.
    #[error("another transaction is open, which somebody else began: {0}")]
    Busy(String),
    /// It is larger than a payload can be.
    #[error(
        "it has {size} bytes, and this HAProxy takes {largest} at most over its Runtime API (see \
            tune.bufsize)"
    )]
    TooBig {
        /// Of the command, in bytes.
        size: usize,
        /// See `size`.
        largest: usize,
    },
    /// HAProxy refused it, with this text, cut.
    #[error("HAProxy answered {0:?}")]
    Refused(String),
}

impl CertRefusal {
    fn from_text(reply: &[u8]) -> Self {
        let text = excerpt(reply);
        if text.contains("not referenced by the configuration") {
            Self::NotLoaded
        } else if text.starts_with("The ongoing transaction is about") {
            Self::Busy(text)
        } else {
            Self::Refused(text)
        }
    }
}

/// Judges the answer to `set ssl`.
///
/// # Errors
/// The socket's level, or that there was no answer.
pub fn opened(reply: &[u8]) -> Result<Result<(), CertRefusal>, ReplyError> {
    let text = String::from_utf8_lossy(reply).to_ascii_lowercase();
    let is_open = ["transaction created for ", "transaction updated for "]
        .iter()
        .any(|b| text.starts_with(b));
    if is_open { Ok(Ok(())) } else { refusal(reply).map(Err) }
}

/// Judges the answer to `commit ssl`: lines of progress, and `Success!` as the last one.
///
/// # Errors
/// As [`opened`].
pub fn committed(reply: &[u8]) -> Result<Result<(), CertRefusal>, ReplyError> {
    let last = reply.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
    if last == Some(b"Success!") { Ok(Ok(())) } else { refusal(reply).map(Err) }
}

fn refusal(reply: &[u8]) -> Result<CertRefusal, ReplyError> {
    match ReplyError::from_text(reply) {
        ReplyError::Refused(_) => Ok(CertRefusal::from_text(reply)),
        other => Err(other),
    }
}

/// What HAProxy shows of one CRL or certificate of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// It has no file of this name.
    NotLoaded,
    /// The file has none of this number.
    Nothing,
    /// A CRL.
    List {
        /// What was shown.
        list: Revoked,
        /// Whether serial numbers may be lacking.
        cut: bool,
    },
    /// A certificate.
    Certificate {
        /// What was shown.
        certificate: Issued,
        /// Whether anything of the configuration uses it, by HAProxy's account.
        used: bool,
    },
}

/// Reads the answer to [`StoredFile::show`](super::StoredFile::show).
///
/// # Errors
/// Anything but such a listing.
pub fn stored(reply: &[u8]) -> Result<Stored, ReplyError> {
    let text = String::from_utf8_lossy(wire::without_severity(reply));
    if text.starts_with("Can't display the ") && text.contains("Not found") {
        return Ok(Stored::NotLoaded);
    }
    if text.trim().is_empty() {
        // Of CA files, where a CRL file still has its head.
        return Ok(Stored::Nothing);
    }
    if !text.starts_with("Filename: ") {
        return Err(ReplyError::from_text(reply));
    }
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.map(str::to_owned)
    };
    let missing = |name: &str| ReplyError::unreadable(&text, name);
    if let Some(last_update) = field("Last Update") {
        let next_update = field("Next Update").filter(|time| time.ends_with(" GMT"));
        let serials = text.lines().filter_map(|line| line.trim().strip_prefix("Serial Number: "));
        let mut serials: Vec<_> = serials.map(str::to_owned).collect();
        serials.sort_unstable();
        let list = Revoked { last_update, next_update, serials };
        return Ok(Stored::List { list, cut: reply.len() >= MAY_BE_CUT });
    }
    let Some(serial) = field("Serial") else { return Ok(Stored::Nothing) };
    let certificate = Issued {
        serial,
        not_before: field("notBefore").ok_or_else(|| missing("notBefore"))?,
        not_after: field("notAfter").ok_or_else(|| missing("notAfter"))?,
    };
    Ok(Stored::Certificate { certificate, used: field("Status").as_deref() == Some("Used") })
}

#[cfg(test)]
mod tests;
