//! Why a request has no answer, in words for a person.

use reqwest::{Method, Url};

/// A certificate that the TLS library takes for nobody's but a CA's.
pub(in crate::cli) const OF_A_CA: &str = "the certificate is a CA's own (CA:TRUE), as plain \
    `openssl req -x509` makes it";
/// What to do about it.
pub(in crate::cli) const OTHERWISE: &str = "have a CA issue one, or make it with `-addext \
    basicConstraints=critical,CA:FALSE`";

/// How the TLS library's words for a failed handshake begin.
const OF_TLS: [&str; 5] = [
    "received corrupt message",
    "received fatal alert",
    "received unexpected",
    "peer is incompatible",
    "peer misbehaved",
];

/// Whether a request orders something, and does not only ask what it would come to.
pub(super) fn may_change(method: &Method, url: &Url) -> bool {
    let is_tried = url.query_pairs().any(|(name, value)| name == "dry_run" && value == "true");
    *method != Method::GET && !is_tried && !url.path().ends_with("/check")
}

/// What became of a request that was sent and not answered.
pub(super) fn broken(url: &str, timed_out: bool, changes: bool) -> String {
    let what = match timed_out {
        true => format!("{url} did not answer in time"),
        false => format!("the connection to {url} broke before the answer was there"),
    };
    match changes {
        true => format!("{what}: it may have been carried out; look at `mapsmith status`"),
        false => what,
    }
}

/// Why there is no answer, in words for a person, by the innermost error's; of a request that was
/// `sent`, what became of it.
pub(super) fn no_answer(
    url: &str,
    cause: &str,
    lacking: &[String],
    sent: Option<String>,
) -> String {
    let lacking = match lacking.join("; ") {
        lacking if lacking.is_empty() => lacking,
        lacking => format!(
            "; {lacking}, so the API may not be known by its certificate: give --url with its \
                name, and --ca"
        ),
    };
    if cause.contains("CaUsedAsEndEntity") {
        return format!(
            "{url} answers, and {OF_A_CA}, so nobody is known by it, with --ca either: {OTHERWISE}"
        );
    }
    if cause.starts_with("invalid peer certificate") {
        return format!(
            "{url} answers with a certificate that is not trusted; give the CA that it is of with \
                --ca or MAPSMITH_CA, and a --url with a name that it has{lacking}"
        );
    }
    if OF_TLS.iter().any(|beginning| cause.starts_with(beginning)) {
        return format!("something answers at {url}, and the TLS handshake with it fails{lacking}");
    }
    if let Some(sent) = sent {
        return sent;
    }
    format!(
        "no Mapsmith answers at {url} (is `mapsmith run` running? name its settings with -c, or \
            its API with --url or MAPSMITH_URL{lacking})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_without_being_trusted_is_not_said_to_be_away() {
        let url = "https://localhost:7070";
        let of = |cause: &str| no_answer(url, cause, &["cert /a: denied".to_owned()], None);
        for (cause, parts) in [
            (
                "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
                ["CA's own (CA:TRUE)", "basicConstraints=critical,CA:FALSE"],
            ),
            ("invalid peer certificate: UnknownIssuer", ["not trusted", "cert /a: denied"]),
            ("received corrupt message of type InvalidContentType", ["handshake", url]),
        ] {
            let told = of(cause);
            assert!(parts.iter().all(|part| told.contains(part)), "{cause}: {told}");
            assert!(!told.contains("no Mapsmith answers"), "{cause}: {told}");
        }
        let told = of("Connection refused (os error 111)");
        assert!(told.contains("no Mapsmith answers") && told.contains("cert /a"), "{told}");
    }
}
