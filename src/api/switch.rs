//! A backend gets another version of its members.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mapsmith_core::Note;
use mapsmith_core::members::{BackendVersion, SwitchPhase};
use mapsmith_core::objects::{ObjectKey, ObjectKind};
use mapsmith_core::status::milliseconds;
use tokio::time::{Instant, timeout_at};

use super::types::{
    MemberVersion, ReloadOutcome, SwitchReport, SwitchRequest, VersionReport, VersionsReport,
};
use super::{Api, Error};
use crate::store::member_service::{SwitchError, SwitchOrder, Switched};
use crate::store::{AuditTicket, MemberService};
use crate::switch::ready;

impl Api {
    /// The versions that backends have of their members.
    pub(super) fn versions_in_force(&self) -> Vec<VersionReport> {
        let Some(service) = &self.members else { return Vec::new() };
        service
            .versions()
            .into_iter()
            .map(|version| self.version_report(service, version))
            .collect()
    }

    /// Of an object of the API the version is said by whoever declared that.
    fn version_report(&self, service: &MemberService, version: BackendVersion) -> VersionReport {
        let key = ObjectKey::new(ObjectKind::Backend, version.backend.clone());
        let objects = self.declared_objects();
        let mut version = version;
        if let Some(object) = objects.get(&key).filter(|_| version.is_of_settings()) {
            version.note.clone_from(&object.note);
        }
        VersionReport { waits_for: service.wait_of(&version.backend), version }
    }

    /// What a backend has, and which versions of that there are.
    ///
    /// # Errors
    /// There is no such backend, or it takes no members.
    pub async fn backend_versions(&self, backend: &str) -> Result<VersionsReport, Error> {
        let service = self.member_service()?;
        let version = self.backend_version(service, backend)?;
        let reached: Vec<_> =
            self.ask_servers().await.into_iter().filter_map(|(_, answer)| answer.ok()).collect();
        let servers = self.desired.borrow().servers.clone();
        let wanted = servers.and_then(|servers| servers.backends.get(backend).cloned());
        let ready_in: Vec<BTreeSet<String>> = match &wanted {
            Some(wanted) => reached.iter().map(|seen| ready(backend, wanted, seen)).collect(),
            None => reached.iter().map(|_| BTreeSet::new()).collect(),
        };
        let items = service.counts(&version.name).into_iter().map(|count| {
            let (_, known) = service.servers(&version.name, &count.version);
            let ready = ready_in.iter().map(|ready| ready.intersection(&known).count()).min();
            MemberVersion {
                version: count.version,
                members: count.members,
                expired: count.expired,
                ready,
            }
        });
        let items = items.collect();
        Ok(VersionsReport { current: self.version_report(service, version), items })
    }

    /// Gives a backend another version of its members; with `wait` answers when the old ones leave
    /// in every instance, or when the time is over.
    ///
    /// # Errors
    /// There is no such backend, it takes no members, there are too few of that version, another
    /// Mapsmith decides, or the store did not take it.
    pub async fn switch_backend(
        &self,
        backend: &str,
        request: SwitchRequest,
        by: Option<String>,
        (wait, dry_run): (Option<Duration>, bool),
        ticket: Arc<AuditTicket>,
    ) -> Result<SwitchReport, Error> {
        let start = Instant::now();
        let service = self.member_service()?;
        self.backend_version(service, backend)?;
        self.decides()?;
        ticket.explain(request.reason);
        let note = Note { reason: ticket.reason(), by };
        let SwitchRequest { version, min_ready, .. } = request;
        let order = SwitchOrder { backend: backend.to_owned(), version, min_ready, note };
        let (added, leaving) = self.difference(service, &order);
        if dry_run {
            let would =
                service.preview_switch(&order).map_err(|it| not_switched(service, &order, it))?;
            let words =
                format!("; {added} would come in, {leaving} would leave; nothing is stored");
            return Ok(report(&would, (added, leaving), None, words, start));
        }
        let switched = service.switch(order.clone(), Some(Arc::clone(&ticket))).await;
        let mut switched = switched.map_err(|error| not_switched(service, &order, error))?;
        let Some(after) = switched.after.clone().or_else(|| service.version(backend)) else {
            return Err(Error::NotReady);
        };
        if switched.after.is_none() {
            ticket.changes_nothing();
        }
        let (outcome, words) = match wait {
            _ if switched.after.is_none() && after.phase == SwitchPhase::Settled => {
                (ReloadOutcome::InSync, "; it has that version already".to_owned())
            }
            None => (
                ReloadOutcome::Requested,
                "; it is stored, and the old members leave once the new ones are ready".to_owned(),
            ),
            Some(wait) => self.switch_in_force(service, &after, start, wait).await,
        };
        if let Some(now) = service.version(backend).filter(|now| now.since == after.since) {
            switched.after = Some(now);
        }
        Ok(report(&switched, (added, leaving), Some(outcome), words, start))
    }

    /// Whether a switch can be made, as things stand.
    pub(super) fn check_switch(&self, order: &SwitchOrder) -> Result<(), Error> {
        let service = self.member_service()?;
        self.decides()?;
        let would = service.preview_switch(order);
        would.map(drop).map_err(|error| not_switched(service, order, error))
    }

    /// Makes a switch, and waits for nothing but the store.
    pub(super) async fn order_switch(
        &self,
        order: SwitchOrder,
        ticket: Arc<AuditTicket>,
    ) -> Result<(), Error> {
        let service = self.member_service()?;
        let switched = service.switch(order.clone(), Some(ticket)).await;
        switched.map(drop).map_err(|error| not_switched(service, &order, error))
    }

    /// Whether no other Mapsmith does.
    fn decides(&self) -> Result<(), Error> {
        match &self.decision.borrow().map.read_only {
            None => Ok(()),
            Some(writer) => Err(Error::ServerConflict(format!(
                "this Mapsmith changes nothing, for another one writes the map file ({writer}): \
                    ask that one"
            ))),
        }
    }

    /// Waits until a switch is done, and says how that ended.
    async fn switch_in_force(
        &self,
        service: &MemberService,
        ordered: &BackendVersion,
        start: Instant,
        wait: Duration,
    ) -> (ReloadOutcome, String) {
        let deadline = start + wait;
        let mut listings = service.subscribe();
        let backend = &ordered.backend;
        loop {
            let number = listings.borrow_and_update().number;
            match service.version(backend) {
                Some(now) if now.since == ordered.since => {
                    if now.phase == SwitchPhase::Settled {
                        let names = std::slice::from_ref(backend);
                        let (outcome, words) =
                            self.lists_in_force(number, names, start, wait).await;
                        return (outcome, format!("; {words}"));
                    }
                }
                _ => {
                    let words = "; it was ordered otherwise meanwhile".to_owned();
                    return (ReloadOutcome::Behind, words);
                }
            }
            let changed = timeout_at(deadline, listings.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                let why = service.wait_of(backend).unwrap_or_else(|| "it is on its way".to_owned());
                return (
                    ReloadOutcome::Behind,
                    format!("; it is stored, and the old members stay within {wait:?}: {why}"),
                );
            }
        }
    }

    fn backend_version(
        &self,
        service: &MemberService,
        backend: &str,
    ) -> Result<BackendVersion, Error> {
        if let Some(version) = service.version(backend) {
            return Ok(version);
        }
        let decision = self.decision.borrow();
        match decision.backends.iter().find(|status| status.name == backend) {
            Some(status) => Err(Error::ServerConflict(format!(
                "the servers of {backend} come from {}, and not from registrations of a name and \
                    version",
                status.from
            ))),
            None => Err(Error::UnknownServer(format!("{backend:?} is no backend"))),
        }
    }

    /// How many servers come in, and how many leave.
    fn difference(&self, service: &MemberService, order: &SwitchOrder) -> (usize, usize) {
        let Some(version) = service.version(&order.backend) else { return (0, 0) };
        let (online, known) = service.servers(&version.name, &order.version);
        let decision = self.decision.borrow();
        let status = decision.backends.iter().find(|status| status.name == order.backend);
        let in_force = status.and_then(|status| status.servers.as_ref()).into_iter().flatten();
        let in_force: BTreeSet<_> = in_force.map(|server| server.name.clone()).collect();
        (online.difference(&in_force).count(), in_force.difference(&known).count())
    }
}

/// Why a backend is not switched.
pub(super) fn not_switched(
    service: &MemberService,
    order: &SwitchOrder,
    error: SwitchError,
) -> Error {
    match error {
        SwitchError::NoMembersTaken => {
            Error::UnknownServer(format!("{:?} is no backend of members", order.backend))
        }
        SwitchError::NoMembers { have, min_ready } => {
            let name = service.version(&order.backend).map(|it| it.name).unwrap_or_default();
            Error::NoMembers { name, version: order.version.clone(), have, min_ready }
        }
        SwitchError::Store(error) => error.into(),
    }
}

fn report(
    switched: &Switched,
    (added, leaving): (usize, usize),
    outcome: Option<ReloadOutcome>,
    words: String,
    start: Instant,
) -> SwitchReport {
    let after = switched.after.as_ref().unwrap_or(&switched.before);
    let BackendVersion { backend, version, previous, phase, .. } = after.clone();
    let from = previous.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
    let does = match (outcome, switched.after.is_some()) {
        (None, true) => "would be switched",
        (_, true) => "is switched",
        (_, false) => "stays",
    };
    let to = if switched.after.is_some() { format!("{from} to") } else { " at".to_owned() };
    SwitchReport {
        message: format!("{backend} {does}{to} version {version}{words}"),
        backend,
        version,
        previous,
        added,
        leaving,
        phase,
        stored: outcome.is_some(),
        outcome,
        milliseconds: milliseconds(start.elapsed()),
    }
}
