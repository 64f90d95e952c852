//! `mapsmith certificates`.

use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use mapsmith_core::certificate::{
    CertificateSource, CertificateStatus, IssuedCertificate, Renewal,
};
use reqwest::Method;

use super::output::{Colour, ago, paint, table};
use super::remote::{Connection, NOTHING};
use super::{OutputFormat, SUCCESS, print};

#[derive(Subcommand)]
pub(super) enum CertificatesVerb {
    /// Have a certificate renewed now that Mapsmith gets itself
    Renew {
        /// Its name in the settings
        name: String,
        #[command(flatten)]
        connection: Connection,
    },
}

pub(super) async fn certificates(
    connection: Connection,
    verb: Option<CertificatesVerb>,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    match verb {
        None => {
            let all: Vec<CertificateStatus> = connection.get(&["v1", "certificates"]).await?;
            print(format, &all, |all| match all.is_empty() {
                true => "there is no [[certificate]] whose content Mapsmith keeps".to_owned(),
                false => text(all, Timestamp::now()),
            })?;
        }
        Some(CertificatesVerb::Renew { name, connection }) => {
            let path = ["v1", "certificates", &name, "renew"];
            let status: CertificateStatus =
                connection.ask(Method::POST, &path, None, NOTHING, Duration::ZERO).await?.good()?;
            print(format, &status, |status| {
                format!("{} is renewed now; `mapsmith certificates` shows how it goes", status.name)
            })?;
        }
    }
    Ok(SUCCESS)
}

/// A table, with what went wrong below each.
pub(super) fn text(all: &[CertificateStatus], now: Timestamp) -> String {
    let mut text = String::new();
    let rows: Vec<_> = all.iter().map(|status| row(status, now)).collect();
    let rows = table("  ", &rows);
    for (row, status) in rows.lines().zip(all) {
        text.push_str(row);
        text.push('\n');
        status.renewal.iter().for_each(|renewal| text.push_str(&notes(renewal)));
    }
    text
}

fn row(status: &CertificateStatus, now: Timestamp) -> Vec<String> {
    let source = match status.source {
        CertificateSource::Acme => "acme",
        CertificateSource::SelfSigned => "self-signed",
        CertificateSource::File => "file",
    };
    let next = status.renewal.as_ref().and_then(|renewal| renewal.next_at);
    let next = next.map_or(String::new(), |at| format!("renewed {at:.0}"));
    let [names, issuer, expiry] = match &status.in_force {
        None => ["nothing is in force yet".to_owned(), String::new(), String::new()],
        Some(issued) => in_force(status, issued, now),
    };
    vec![status.name.clone(), source.to_owned(), names, issuer, expiry, next]
}

fn in_force(status: &CertificateStatus, issued: &IssuedCertificate, now: Timestamp) -> [String; 3] {
    let expiry = match issued.expires_at <= now {
        true => paint(Colour::Red, &format!("EXPIRED {}", ago(issued.expires_at))),
        false => format!("valid until {:.0}", issued.expires_at),
    };
    let issuer = match issued.self_signed {
        true if status.source == CertificateSource::Acme => {
            paint(Colour::Yellow, "self-signed until the authority has answered")
        }
        true => "self-signed".to_owned(),
        false => format!("by {}", issued.issuer),
    };
    [issued.names.join(", "), issuer, expiry]
}

fn notes(renewal: &Renewal) -> String {
    let step = renewal.step.iter().map(|step| format!("    now: {step}\n"));
    let failed = renewal.error.iter().map(|error| {
        let times = if renewal.failures > 1 {
            format!(" ({} times)", renewal.failures)
        } else {
            String::new()
        };
        format!("    {}\n", paint(Colour::Red, &format!("failed{times}: {error}")))
    });
    step.chain(failed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_a_line_and_what_keeps_it_from_being_renewed_stands_below() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut status = CertificateStatus {
            name: "site".to_owned(),
            source: CertificateSource::Acme,
            path: "/c/site.pem".to_owned(),
            in_force: Some(IssuedCertificate {
                names: vec!["a.test".to_owned(), "b.test".to_owned()],
                issuer: "CN=CA".to_owned(),
                self_signed: false,
                issued_at: at(0),
                expires_at: at(1000),
            }),
            renewal: Some(Renewal { next_at: Some(at(600)), ..Renewal::default() }),
        };
        let shown = text(std::slice::from_ref(&status), at(500));
        assert_eq!(shown.lines().count(), 1, "{shown}");
        for part in
            ["site", "acme", "a.test, b.test", "by CN=CA", "valid until 1970-01-01T00:16:40Z"]
        {
            assert!(shown.contains(part), "{part:?} is not in: {shown}");
        }
        let renewal = status.renewal.as_mut().unwrap();
        (renewal.failures, renewal.error) = (3, Some("the authority refuses".to_owned()));
        let shown = text(&[status], at(2000));
        assert!(shown.contains("EXPIRED"), "{shown}");
        assert!(shown.contains("failed (3 times): the authority refuses"), "{shown}");
    }
}
