//! The tasks behind certificates: the files that HAProxy loads, and what Mapsmith gets itself.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;

use super::daemon::{Daemon, ORDERS_WAITING};
use super::tasks::Fleet;
use crate::api::Certificates;
use crate::instance::challenges::ChallengePhase;
use crate::tls::acme::Authority;
use crate::tls::challenges::Challenges;
use crate::tls::{Keeper, supply};
use crate::tls_file::{InForce, TlsFile};

impl Daemon {
    /// Has the certificates and the map of challenges in their places, before HAProxy is started.
    pub(super) async fn supply_certificates(&self) -> anyhow::Result<Option<Challenges>> {
        let settings = self.settings();
        let supplied = spawn_blocking(move || supply(&settings)).await?;
        supplied.map_err(anyhow::Error::msg)?;
        let Some(map) = self.settings().challenges().map(|challenges| challenges.map) else {
            return Ok(None);
        };
        let started = Challenges::start(Path::new(map.as_str())).await;
        Ok(Some(started.map_err(|error| anyhow!("the map of challenges: {error}"))?))
    }

    /// In the settings' order.
    pub(super) fn start_tls_files(&mut self) -> anyhow::Result<Vec<watch::Receiver<InForce>>> {
        let settings = self.settings();
        let files = settings.tls_files.iter().map(|file| {
            let (task, state) = TlsFile::new(file)?;
            let name = format!("tls_file {}", file.path.display());
            let work = task.run(self.round(), self.stop());
            self.start_task(&name, work);
            Ok(state)
        });
        files.collect()
    }

    /// Whether this instance answers authorities: the one whose process Mapsmith supervises, else
    /// each, as all of them may have loaded what is rendered.
    fn answers(&self, index: usize) -> bool {
        self.settings().own_instance().is_none_or(|own| own == index)
    }

    pub(super) fn challenge_phase(
        &self,
        index: usize,
        challenges: Option<&Challenges>,
    ) -> Option<ChallengePhase> {
        let settings = self.settings();
        let (map, open) = (settings.challenges()?.map, challenges?.subscribe());
        let instance = settings.instances.get(index).filter(|_| self.answers(index))?;
        Some(ChallengePhase::new(instance, map.as_str(), open, settings.schedule.verify))
    }

    /// Keeps the certificates that Mapsmith gets itself; none where there are none.
    pub(super) fn start_certificates(
        &mut self,
        challenges: Option<Challenges>,
        fleet: &Fleet,
    ) -> Option<Certificates> {
        let settings = self.settings();
        let reports = fleet.reports.iter().enumerate().filter(|(index, _)| self.answers(*index));
        let reports = reports.map(|(_, report)| report.clone()).collect();
        let challenges = challenges.map(|challenges| challenges.with_instances(reports));
        let authority = settings.acme_certificates().map(|(acme, _)| {
            let folder: PathBuf = settings.acme_folder();
            Authority::new(acme.clone(), folder, challenges)
        });
        let (orders, taken) = mpsc::channel(ORDERS_WAITING);
        let (keeper, renewals) = Keeper::new(&settings, authority, taken)?;
        let stop = self.stop();
        self.start_task("certificates", keeper.run(stop));
        Some(Certificates { renewals, orders })
    }
}
