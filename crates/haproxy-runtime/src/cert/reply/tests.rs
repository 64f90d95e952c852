//! Over replies as 2.6.12, 3.0.11, 3.2.26 and 3.4.7 gave them.

use proptest::prelude::*;

use super::*;

const LIST: &str = "Filename: /c/crl.pem\nStatus: Used\n \nCertificate Revocation List #1:\n\
    Version 2\nSignature Algorithm: sha256WithRSAEncryption\nIssuer: /O=T/CN=Puppet CA: p\n\
    Last Update: Nov  6 07:25:03 2026 GMT\nNext Update: Dec 26 07:25:03 2026 GMT\n\
    Revoked Certificates:\n    Serial Number: 0C\n        Revocation Date: Nov 26 07:25:03 2026 \
    GMT\n    Serial Number: 0B\n        Revocation Date: Nov 26 07:25:03 2026 GMT\n";

/// 3.4 has the lines of the file's names and options; 2.6 has none of them.
const CERTIFICATE: &str = "Filename: /c/cert.pem\nCrt filename: /c/cert.pem\nKey filename: \
    /c/cert.pem\nOption: ocsp-update off\nOption: jwt off\nStatus: Used\nSerial: 0C\nnotBefore: \
    Nov 26 07:25:03 2026 GMT\nnotAfter: Mar  6 07:25:03 2027 GMT\nSubject Alternative Name: \n\
    Algorithm: RSA2048\nSHA1 FingerPrint: D971\nSubject: /CN=gw2\nIssuer: /CN=CA\n";

#[test]
fn a_transaction_is_open_or_refused_with_a_reason() {
    for good in [
        "transaction created for CRL /c/crl.pem!\n",
        "transaction updated for CRL /c/crl.pem!\n",
        "transaction created for CA /c/ca.pem!\n",
        "Transaction created for certificate /c/cert.pem!\n",
    ] {
        assert_eq!(opened(good.as_bytes()), Ok(Ok(())), "{good}");
    }
    let refused = |reply: &str| opened(reply.as_bytes()).unwrap().unwrap_err();
    assert_eq!(
        refused(
            "Can't replace a CRL file which is not referenced by the configuration!\nCan't update \
                /c/no.pem!\n"
        ),
        CertRefusal::NotLoaded
    );
    let busy = "The ongoing transaction is about '/c/a.pem' but you are trying to set \
        '/c/b.pem'\nCan't update /c/b.pem!\n";
    assert!(matches!(refused(busy), CertRefusal::Busy(_)));
    for reply in [
        "Invalid payload\nCan't update /c/crl.pem!\n",
        "unable to load certificate from file '/c/c.pem': no start line.\nCan't load the payload\n",
        "'set ssl crl-file' expects a filename and CRLs as a payload\n",
    ] {
        assert!(matches!(refused(reply), CertRefusal::Refused(_)), "{reply}");
    }
    assert_eq!(opened(b"Permission denied\n"), Err(ReplyError::Denied));
    let too_big = "The command is too big for the buffer size. Please change tune.bufsize in the \
        configuration to use a bigger command.\n";
    assert_eq!(opened(too_big.as_bytes()), Err(ReplyError::TooBig));
}

#[test]
fn only_the_last_line_says_that_a_commit_succeeded() {
    for good in ["Committing /c/crl.pem.\nSuccess!\n", "Committing /c/c.pem...\nSuccess!\n"] {
        assert_eq!(committed(good.as_bytes()), Ok(Ok(())));
    }
    for bad in [
        "No ongoing transaction! !\nCan't commit /c/crl.pem!\n",
        "inconsistencies between private key and certificate loaded '/c/cert.pem'.\nCan't commit \
            /c/cert.pem!\n",
        "Committing /c/crl.pem..\nSSL_CTX_use_certificate() passed a null parameter.\nFailed!\n",
        "Committing Success!\n",
        "",
    ] {
        assert!(matches!(committed(bad.as_bytes()), Ok(Err(CertRefusal::Refused(_)))), "{bad}");
    }
}

#[test]
fn a_crl_is_read_with_its_times_and_serial_numbers() {
    let Ok(Stored::List { list, cut: false }) = stored(LIST.as_bytes()) else { panic!() };
    assert_eq!(list.last_update, "Nov  6 07:25:03 2026 GMT");
    assert_eq!(list.next_update.as_deref(), Some("Dec 26 07:25:03 2026 GMT"));
    assert_eq!(list.serials, ["0B", "0C"]);
    let long = LIST.to_owned() + &"    Serial Number: 0B\n".repeat(800);
    let Ok(Stored::List { list: shown, cut: true }) = stored(long.as_bytes()) else { panic!() };
    assert!(shown.is(&list, true) && !shown.is(&list, false) && list.is(&list, false));
    let other = Revoked { serials: vec!["0B".to_owned()], ..list.clone() };
    assert!(!list.is(&other, false) && !list.is(&other, true));
}

#[test]
fn a_certificate_is_read_with_whether_it_is_used() {
    for (text, expected) in [
        (CERTIFICATE.to_owned(), true),
        (CERTIFICATE.replace("Status: Used", "Status: Unused"), false),
    ] {
        let Ok(Stored::Certificate { certificate, used }) = stored(text.as_bytes()) else {
            panic!("{text}")
        };
        assert_eq!((certificate.serial.as_str(), used), ("0C", expected));
        assert_eq!(certificate.not_after, "Mar  6 07:25:03 2027 GMT");
    }
}

#[test]
fn a_file_that_is_not_there_is_told_from_one_without_such_a_number() {
    for reply in ["Filename: /c/crl.pem\nStatus: Used\n", ""] {
        assert_eq!(stored(reply.as_bytes()), Ok(Stored::Nothing));
    }
    for reply in [
        "Can't display the CRL file : Not found!\n",
        "Can't display the CA file : Not found!\n",
        "Can't display the certificate: Not found or the certificate is a bundle!\n",
    ] {
        assert_eq!(stored(reply.as_bytes()), Ok(Stored::NotLoaded), "{reply}");
    }
    assert_eq!(stored(b"Permission denied\n"), Err(ReplyError::Denied));
    assert!(stored(b"Unknown command: 'show ssl crl-file'\n").is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(
        start in 0..CERTIFICATE.len(),
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let reply = [&CERTIFICATE.as_bytes()[..start], &bytes].concat();
        let _ = (stored(&reply), opened(&reply), committed(&reply));
    }
}
