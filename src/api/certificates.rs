//! The certificates that frontends show, and their renewal.

use std::path::Path;
use std::time::Duration;

use mapsmith_core::certificate::{CertificateSource, CertificateStatus, IssuedCertificate};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::{Api, Error};
use crate::settings::Certificate;
use crate::tls::{Renew, RenewError, Renewals};

/// How long the task that renews may take to say whether it begins.
const ANSWER_BOUND: Duration = Duration::from_secs(10);

/// The task that keeps the certificates which Mapsmith gets itself.
#[derive(Debug, Clone)]
pub struct Certificates {
    pub(crate) renewals: watch::Receiver<Renewals>,
    pub(crate) orders: mpsc::Sender<Renew>,
}

impl Api {
    /// Those whose content Mapsmith keeps, in the settings' order.
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        let renewals = self.certificates.as_ref().map(|it| it.renewals.borrow().clone());
        let renewals = renewals.unwrap_or_default();
        let kept = self.settings.certificates.iter().filter_map(|certificate| {
            let file = certificate.tls_file()?;
            let name = certificate.name.to_string();
            Some(CertificateStatus {
                source: source_of(certificate),
                in_force: self.in_force(&file.path),
                path: file.path.display().to_string(),
                renewal: renewals.get(&name).cloned(),
                name,
            })
        });
        kept.collect()
    }

    fn in_force(&self, path: &Path) -> Option<IssuedCertificate> {
        let mut files = self.settings.tls_files.iter().zip(&self.tls_files);
        let (_, file) = files.find(|(file, _)| file.path == path)?;
        file.borrow().content.as_ref()?.served()
    }

    /// Has a certificate renewed now. How it stands when that has begun, or is about to.
    ///
    /// # Errors
    /// There is none of the name, it is being renewed, or the authority asks to wait.
    pub async fn renew(&self, name: &str) -> Result<CertificateStatus, Error> {
        let unknown = || Error::NotRenewed(RenewError::Unknown(name.to_owned()));
        let certificates = self.certificates.as_ref().ok_or_else(unknown)?;
        let (answer, outcome) = oneshot::channel();
        let renew = Renew { name: name.to_owned(), answer };
        let asked = async {
            certificates.orders.send(renew).await.map_err(|_| Error::Busy)?;
            outcome.await.map_err(|_| Error::Busy)
        };
        match timeout(ANSWER_BOUND, asked).await {
            Ok(outcome) => outcome?.map_err(Error::NotRenewed)?,
            Err(_) => return Err(Error::Busy),
        }
        self.certificates().into_iter().find(|it| it.name == name).ok_or_else(unknown)
    }
}

fn source_of(certificate: &Certificate) -> CertificateSource {
    match (certificate.acme.is_empty(), certificate.self_signed.is_empty()) {
        (false, _) => CertificateSource::Acme,
        (true, false) => CertificateSource::SelfSigned,
        (true, true) => CertificateSource::File,
    }
}
