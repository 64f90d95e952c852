//! What is declared through the API: for whom it is, and who tells how far it has come.

use std::sync::Arc;

use mapsmith_core::Desired;
use tokio::sync::watch;

use super::daemon::Daemon;
use super::ground::{Carried, Ground};
use crate::api::Declarations;
use crate::declared::follow;
use crate::engine::Decision;
use crate::supervise::SupervisorReport;

impl Daemon {
    /// Follows how far it has come.
    pub(super) fn start_declared(
        &mut self,
        ground: &Ground,
        carried: &Carried,
        desired: watch::Receiver<Desired>,
        decision: watch::Receiver<Decision>,
        haproxy: Option<watch::Receiver<SupervisorReport>>,
    ) -> Declarations {
        let link = Arc::clone(&carried.declared);
        let number = ground.file.declared().objects.number;
        let work = follow(Arc::clone(&link), number, desired, decision, haproxy);
        self.start_until_shutdown("declared objects", work);
        let known = self.known_services.clone();
        Declarations { file: ground.file.clone(), link, known }
    }
}
