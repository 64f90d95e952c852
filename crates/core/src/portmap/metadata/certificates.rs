//! The names of the certificate (`certificate_name`).

use std::collections::BTreeSet;

use super::shown;
use crate::portmap::BackendName;

/// The most names of one certificate, as Let's Encrypt has it.
const MAX_NAMES: usize = 100;

/// DNS names between commas and white space, in lower case, each once; the first is the subject.
/// Without any the certificate is self-signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateNames {
    pub names: Vec<String>,
    /// Why others are left out.
    pub problems: Vec<String>,
}

impl CertificateNames {
    pub fn parse(text: &str) -> Self {
        let mut read = Self::default();
        let mut seen = BTreeSet::new();
        let between = |character: char| character == ',' || character.is_whitespace();
        for entry in text.split(between).filter(|entry| !entry.is_empty()) {
            if read.names.len() + read.problems.len() == MAX_NAMES {
                read.problems.push(format!(
                    "certificate_name: only the first {MAX_NAMES} entries are read; a certificate \
                        has no more names"
                ));
                break;
            }
            match name(entry) {
                Some(name) if seen.insert(name.clone()) => read.names.push(name),
                Some(_) => {}
                None => read.problems.push(format!(
                    "certificate_name: {} is not a DNS name like www.example.com or \
                        *.example.com; correct or remove it",
                    shown(entry)
                )),
            }
        }
        read
    }
}

/// A name that a certificate can have; its first label may be `*`.
fn name(text: &str) -> Option<String> {
    let (star, rest) = match text.strip_prefix("*.") {
        Some(rest) => ("*.", rest),
        None => ("", text),
    };
    let name = BackendName::parse(rest).ok()?;
    let is_host = name.address().is_none() && !rest.contains('_') && rest.contains('.');
    is_host.then(|| format!("{star}{}", name.canonical()))
}
