//! The tasks of members: who is registered, and backends on their way to another version.

use std::sync::Arc;

use mapsmith_core::members::MemberListings;
use mapsmith_core::{Desired, SourceState};
use tokio::sync::watch;

use super::daemon::Daemon;
use super::ground::Carried;
use crate::engine::Decision;
use crate::source::registrations::keys::MemberSelector;
use crate::store::member_service::{MemberBackend, MemberList};
use crate::store::{MemberService, SqliteStore};
use crate::switch::Switches;

impl Daemon {
    /// The members that are registered, from the store or from the tasks before; none without a
    /// store.
    pub(super) async fn start_members(
        &mut self,
        store: Option<&SqliteStore>,
        carried: &Carried,
    ) -> anyhow::Result<Option<MemberService>> {
        let Some(store) = store else { return Ok(None) };
        let settings = self.settings();
        let backends = settings.member_backends().into_iter();
        let backends = backends.map(|(backend, MemberSelector { name, version })| MemberBackend {
            backend: backend.to_owned(),
            name,
            version,
        });
        let lists = settings.server_lists().into_iter().filter_map(|(source, list)| {
            let MemberSelector { name, version } = settings.members_of(list)?;
            let kind = source.kind.to_string();
            let state = SourceState::before_first_poll(list.to_string(), kind, source.required);
            Some(MemberList { name, version, state })
        });
        let (backends, lists) = (backends.collect(), lists.collect());
        let opened = MemberService::open(store.clone(), &carried.members, backends, lists).await;
        let (service, keeper) = opened?;
        self.start_task("members", keeper.run(self.stop()));
        Ok(Some(service))
    }

    /// Has backends come to the versions that are ordered. The lists of their members.
    pub(super) fn start_switches(
        &mut self,
        members: Option<MemberService>,
        desired: &watch::Receiver<Desired>,
        decision: &watch::Receiver<Decision>,
    ) -> watch::Receiver<Arc<MemberListings>> {
        let Some(members) = members else { return watch::channel(Arc::default()).1 };
        let listings = members.subscribe();
        let switches = Switches::new(self.settings(), members, desired.clone(), decision.clone());
        self.start_until_shutdown("switches", switches.run());
        listings
    }
}
