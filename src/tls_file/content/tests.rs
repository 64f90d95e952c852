//! Over certificates and CRLs that are made for each test.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::*;

const NOW: &str = "2026-06-15T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn ca(name: &str) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    (params, KeyPair::generate().unwrap())
}

/// A CRL from the first of this month of 2026 on, for two months.
fn crl(ca: &(CertificateParams, KeyPair), number: u64, month: u8, revoked: &[u64]) -> String {
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, month, 1),
        next_update: date_time_ymd(2026, month + 2, 1),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: revoked
            .iter()
            .map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from(*serial),
                revocation_time: date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&Issuer::from_params(&ca.0, &ca.1)).unwrap().pem().unwrap()
}

/// A self-signed certificate for these years, and its key.
fn certificate(name: &str, from: i32, until: i32) -> (String, String) {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params.serial_number = Some(SerialNumber::from(0x0a_0bu64));
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn list(text: &str) -> Content {
    Content::parse(FileKind::Crl, text.as_bytes(), None).unwrap()
}

#[test]
fn what_is_not_whole_or_of_another_kind_is_refused_with_the_reason() {
    let (cert, key) = certificate("gw.test", 2026, 2027);
    let list = crl(&ca("CA"), 1, 6, &[]);
    let cut = &list[..list.len() / 2];
    let damaged = list.replacen("M", "!", 1);
    let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let (both, two_keys) = (format!("{cert}{key}"), format!("{cert}{key}{key}"));
    let (crl, ca, pair) = (FileKind::Crl, FileKind::Ca, FileKind::Certificate);
    for (kind, text, part) in [
        (crl, "", "is empty"),
        (crl, " \n", "is empty"),
        (crl, "<html>Not found</html>", "holds no X509 CRL"),
        (crl, cut, "no END line"),
        (crl, &damaged, "not base64"),
        (crl, &cert, "holds a certificate; a CRL has none"),
        (crl, &both, "holds a certificate"),
        (crl, "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "CRL number 1"),
        (ca, &list, "holds a CRL; a CA file has none"),
        (ca, &both, "holds a private key; a CA file has none"),
        (ca, "no pem", "holds no CERTIFICATE"),
        (pair, &cert, "set key_from"),
        (pair, &key, "holds no CERTIFICATE"),
        (pair, &two_keys, "2 private keys"),
        (pair, &format!("{cert}{encrypted}"), "is encrypted"),
        (pair, &format!("{cert}{list}"), "holds a CRL"),
    ] {
        let error = Content::parse(kind, text.as_bytes(), None).unwrap_err().to_string();
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
fn a_certificate_and_a_key_that_do_not_belong_together_are_refused() {
    let (cert, key) = certificate("gw.test", 2026, 2027);
    let (_, other) = certificate("other.test", 2026, 2027);
    let parse =
        |key: &str| Content::parse(FileKind::Certificate, cert.as_bytes(), Some(key.as_bytes()));
    let error = parse(&other).unwrap_err().to_string();
    assert!(error.contains("don't belong together (CN=gw.test)"), "{error}");
    let content = parse(&key).unwrap();
    assert_eq!(
        Content::parse(FileKind::Certificate, content.text(), None).unwrap(),
        content,
        "the file that is written is one with the key in it"
    );
    assert!(!format!("{content:?}").contains("PRIVATE"));
}

#[test]
fn dates_are_checked() {
    let (old, old_key) = certificate("old.test", 2024, 2025);
    let (new, _) = certificate("new.test", 2026, 2027);
    let (early, early_key) = certificate("early.test", 2027, 2028);
    let pair = |cert: &str, key: &str| {
        Content::parse(FileKind::Certificate, format!("{cert}{key}").as_bytes(), None).unwrap()
    };
    let error = pair(&old, &old_key).check_dates(now()).unwrap_err().to_string();
    assert!(error.contains("CN=old.test is out of date since 2025-01-01"), "{error}");
    let error = pair(&early, &early_key).check_dates(now()).unwrap_err().to_string();
    assert!(error.contains("valid from 2027-01-01") && error.contains("clock"), "{error}");
    let cas = |text: String| Content::parse(FileKind::Ca, text.as_bytes(), None).unwrap();
    let mixed = cas(format!("{old}{new}"));
    assert_eq!(mixed.check_dates(now()), Ok(()), "one CA in date is enough");
    assert_eq!(mixed.expires_at(now()), Some("2027-01-01T00:00:00Z".parse().unwrap()));
    assert!(cas(old).check_dates(now()).is_err());
    let ca = ca("CA");
    for (month, good) in [(6, true), (5, true), (4, false), (7, false)] {
        assert_eq!(list(&crl(&ca, 1, month, &[])).check_dates(now()).is_ok(), good, "{month}");
    }
}

#[test]
fn an_older_crl_or_one_that_lacks_a_ca_does_not_follow() {
    let (root, issuing) = (ca("root"), ca("issuing"));
    let in_force = list(&(crl(&root, 7, 5, &[]) + &crl(&issuing, 8, 6, &[1])));
    let follow = |text: String| {
        let content = list(&text);
        content.check_order(&in_force).and_then(|()| content.check_whole(&in_force))
    };
    assert_eq!(follow(crl(&issuing, 9, 6, &[1, 2]) + &crl(&root, 7, 5, &[])), Ok(()));
    let error = follow(crl(&root, 7, 5, &[]) + &crl(&issuing, 7, 6, &[])).unwrap_err().to_string();
    assert!(error.contains("CRL 7 of CN=issuing") && error.contains("older"), "{error}");
    let same_number = follow(crl(&root, 7, 5, &[]) + &crl(&issuing, 8, 5, &[1]));
    assert!(matches!(same_number, Err(Unfit::Older { .. })), "{same_number:?}");
    let error = follow(crl(&issuing, 9, 6, &[])).unwrap_err().to_string();
    assert!(error.contains("lacks the CRL of CN=root"), "{error}");
    let renewed = ca("issuing");
    let error = follow(crl(&root, 7, 5, &[]) + &crl(&renewed, 1, 6, &[])).unwrap_err();
    assert!(matches!(error, Unfit::Lacking(_)), "another key is another CA: {error}");
}

#[test]
fn what_haproxy_shows_is_said_in_openssls_words() {
    let content = list(&crl(&ca("CA"), 3, 6, &[0x0b, 0x0100_0000]));
    let Facts::Lists(lists) = content.facts() else { panic!() };
    assert_eq!(lists[0].last_update, "Jun  1 00:00:00 2026 GMT");
    assert_eq!(lists[0].next_update.as_deref(), Some("Aug  1 00:00:00 2026 GMT"));
    assert_eq!(lists[0].serials, ["01000000", "0B"]);
    assert_eq!(
        content.described(),
        ["CRL 3 of CN=CA from 2026-06-01T00:00:00Z, 2 revoked, valid until 2026-08-01T00:00:00Z"]
    );
    let (cert, _) = certificate("gw.test", 2026, 2027);
    let content = Content::parse(FileKind::Ca, cert.as_bytes(), None).unwrap();
    let Facts::Certificates(certificates) = content.facts() else { panic!() };
    assert_eq!(certificates[0].serial, "0A0B");
    assert_eq!(certificates[0].not_after, "Jan  1 00:00:00 2027 GMT");
}

#[test]
fn a_certificate_of_other_names_than_it_must_be_for_is_refused() {
    let (text, key) = certificate("*.a.test", 2026, 2027);
    let content = Content::parse(FileKind::Certificate, text.as_bytes(), Some(key.as_bytes()));
    let content = content.unwrap();
    let check = |names: &[&str]| {
        let name = |name: &&str| DnsName::try_from((*name).to_owned()).unwrap();
        content.check_names(&names.iter().map(name).collect::<Vec<_>>())
    };
    for names in [&[][..], &["*.a.test"], &["www.a.test", "mail.a.test"]] {
        assert_eq!(check(names), Ok(()), "{names:?}");
    }
    for name in ["a.test", "b.www.a.test", "www.b.test", "*.b.test"] {
        let refused = check(&["www.a.test", name]).unwrap_err().to_string();
        assert_eq!(refused, format!("the certificate CN=*.a.test is not for {name}"));
    }
}
