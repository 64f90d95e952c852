//! By what HAProxy's listing shows whether it holds a content. Pure.

/// What a content has that HAProxy shows of it, in OpenSSL's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Facts {
    /// Of CRLs.
    Lists(Vec<Revoked>),
    /// Of certificates, the one that is served first.
    Certificates(Vec<Issued>),
}

/// A CRL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revoked {
    /// As `Apr  3 14:45:39 2021 GMT`.
    pub last_update: String,
    /// None where it names none.
    pub next_update: Option<String>,
    /// The revoked certificates' serial numbers in hexadecimal digits, sorted.
    pub serials: Vec<String>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Issued {
    /// Hexadecimal digits.
    pub serial: String,
    /// As `Apr  3 14:45:39 2021 GMT`.
    pub not_before: String,
    /// See `not_before`.
    pub not_after: String,
}

impl Facts {
    /// How many of them there are.
    pub fn count(&self) -> usize {
        match self {
            Self::Lists(lists) => lists.len(),
            Self::Certificates(certificates) => certificates.len(),
        }
    }
}

impl Revoked {
    /// Whether this, which HAProxy showed, is `expected`. A listing ends where HAProxy's buffer
    /// does, so that of a long one only the first serial numbers were shown (`cut`).
    pub fn is(&self, expected: &Self, cut: bool) -> bool {
        self.last_update == expected.last_update
            && self.next_update == expected.next_update
            && if cut {
                self.serials.iter().all(|serial| expected.serials.binary_search(serial).is_ok())
            } else {
                self.serials == expected.serials
            }
    }
}
