//! A certificate signed with its own key: HTTPS from the first second, trusted by nobody.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// How long it is valid.
const LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// By how much clients' clocks may be behind.
const SKEW: Duration = Duration::from_secs(60 * 60);
/// Who it says that it is.
const NAME: &str = "Mapsmith self-signed certificate";

/// A new one with a new key (P-256), as PEM.
///
/// # Errors
/// What the cryptography library says.
pub fn issue(names: &[String], now: Timestamp) -> Result<String, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, NAME);
    params.distinguished_name = subject;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let since_1970 = Duration::from_secs(now.as_second().unsigned_abs());
    let now = date_time_ymd(1970, 1, 1) + since_1970;
    (params.not_before, params.not_after) = (now - SKEW, now + LIFETIME);
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use haproxy_runtime::cert::FileKind;

    use super::*;
    use crate::tls_file::content::Content;

    #[test]
    fn it_is_whole_in_date_and_for_its_names() {
        let now = Timestamp::now();
        let names = ["a.test", "*.b.test"].map(str::to_owned);
        let pem = issue(&names, now).unwrap();
        let content = Content::parse(FileKind::Certificate, pem.as_bytes(), None).unwrap();
        content.check_dates(now).unwrap();
        let served = content.served().unwrap();
        assert_eq!(served.names, names);
        assert!(served.self_signed, "{served:?}");
        assert_eq!(served.expires_at.duration_since(now).as_hours(), 90 * 24 - 1);
        assert_ne!(pem, issue(&names, now).unwrap(), "each has a key of its own");
    }
}
