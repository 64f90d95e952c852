//! What is known of a backend and its servers at one time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use mapsmith_core::desired::taking_out::{Seen, why_not};
use mapsmith_core::overrides::{MOST_SERVERS, OrderedState, ServerOverride};
use mapsmith_core::plan::servers::homes;
use mapsmith_core::server::{ObservedBackend, ObservedServer};
use mapsmith_core::status::BackendStatus;
use mapsmith_core::{DesiredBackend, Overrides};

use super::{Answer, ServerChange, ServerPlace, nothing_to_end};
use crate::api::Error;
use crate::api::similar::similar;
use crate::api::types::{ServerChangeReport, ServerInstance, ServerReport};

/// What is known of a backend at one time.
pub(super) struct Scene {
    pub(super) status: BackendStatus,
    pub(super) wanted: DesiredBackend,
    pub(super) overrides: Arc<Overrides>,
    pub(super) answers: Vec<Answer>,
}

impl Scene {
    fn name(&self) -> &str {
        &self.status.name
    }

    /// The backend in each instance that could be asked.
    fn seen(&self) -> impl Iterator<Item = Seen<'_>> {
        self.answers.iter().filter_map(move |(instance, answer)| {
            let backend = answer.as_ref().ok()?.get(self.name())?;
            Some(Seen { instance, backend })
        })
    }

    /// Listed ones are known by the name that the list has, whatever HAProxy calls them.
    pub(super) fn names(&self) -> BTreeSet<String> {
        let listed = self.status.servers.iter().flatten().map(|server| server.name.clone());
        let ordered = self.wanted.ordered.keys().cloned();
        let mut names: BTreeSet<String> = listed.chain(ordered).collect();
        for seen in self.seen() {
            let homes = homes(self.name(), &self.wanted, seen.backend);
            let homes: BTreeSet<&str> = homes.into_values().collect();
            let others = seen.backend.servers.keys().filter(|name| !homes.contains(name.as_str()));
            names.extend(others.filter(|name| !self.is_slot(name)).cloned());
        }
        names
    }

    fn is_slot(&self, name: &str) -> bool {
        let number = self.wanted.slots.as_ref().and_then(|prefix| name.strip_prefix(&**prefix));
        number.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|it| it.is_ascii_digit()))
    }

    /// The server that is meant: by the name that the list has, or that an instance has.
    pub(super) fn resolve(&self, asked: &str) -> Result<String, Error> {
        let names = self.names();
        if names.contains(asked) {
            return Ok(asked.to_owned());
        }
        for seen in self.seen() {
            let homes = homes(self.name(), &self.wanted, seen.backend);
            if let Some((name, _)) = homes.into_iter().find(|(_, home)| *home == asked) {
                return Ok(name.to_owned());
            }
        }
        let backend = self.name();
        let similar = similar(asked, names.iter().map(String::as_str));
        Err(Error::UnknownServer(format!(
            "{asked:?} is no server of backend {backend}, by its list or in a HAProxy{similar}"
        )))
    }

    /// What is ordered after a change; none where nothing is.
    pub(super) fn after(
        &self,
        place: &ServerPlace,
        change: &ServerChange,
    ) -> Result<Option<ServerOverride>, Error> {
        let before = self.overrides.server(&place.backend, &place.server);
        let (order, until) = change.edit.over(before);
        match before {
            None if order.is_empty() => return Err(nothing_to_end(place)),
            None if self.overrides.servers().len() >= MOST_SERVERS => {
                return Err(Error::ServerConflict(format!(
                    "{MOST_SERVERS} servers have an override, and no more may: end some"
                )));
            }
            _ => {}
        }
        let ServerPlace { backend, server } = place.clone();
        let (since, note) = (Timestamp::now(), change.note.clone());
        let ordered = ServerOverride { backend, server, order, since, until, note };
        Ok((!order.is_empty()).then_some(ordered))
    }

    /// Whether somebody is left who serves.
    pub(super) fn check(
        &self,
        place: &ServerPlace,
        after: Option<&ServerOverride>,
    ) -> Result<(), Error> {
        let takes_out = |ordered: &ServerOverride| ordered.order.takes_out();
        let before = self.overrides.server(&place.backend, &place.server);
        if before.is_some_and(takes_out) || !after.is_some_and(takes_out) {
            return Ok(());
        }
        let seen: Vec<_> = self.seen().collect();
        match why_not(&place.backend, &place.server, &self.wanted, &seen) {
            None => Ok(()),
            Some(why) => Err(Error::ServerConflict(format!(
                "{}/{} stays in rotation: {why} (--force, or force=true, takes it out all the same)",
                place.backend, place.server
            ))),
        }
    }

    pub(super) fn dry_run(
        &self,
        place: &ServerPlace,
        ordered: Option<ServerOverride>,
    ) -> ServerChangeReport {
        let before = self.overrides.server(&place.backend, &place.server);
        let words = |ordered: Option<&ServerOverride>| {
            ordered.map_or_else(|| "as listed".to_owned(), |ordered| ordered.order.to_string())
        };
        let (now, then) = (words(before), words(ordered.as_ref()));
        let ServerPlace { backend, server } = place.clone();
        ServerChangeReport {
            message: format!(
                "{backend}/{server} would be: {then} (now: {now}); nothing is changed"
            ),
            instances: self.server(&server).instances,
            backend,
            server,
            ordered,
            stored: false,
            outcome: None,
        }
    }

    pub(super) fn server(&self, name: &str) -> ServerReport {
        let mut listed = self.status.servers.iter().flatten();
        let listed = listed.find(|server| server.name == name);
        let instances: Vec<_> =
            self.answers.iter().map(|answer| self.instance(name, answer)).collect();
        let is_there = instances.iter().any(|instance| instance.state.is_some());
        let from = match (listed, is_there) {
            (Some(_), _) => Some(self.status.from.clone()),
            (None, true) => Some("haproxy".to_owned()),
            (None, false) => None,
        };
        let ordered = self.overrides.server(self.name(), name).cloned();
        ServerReport {
            server: name.to_owned(),
            address: listed.map(|server| server.address.to_string()),
            weight: listed.and_then(|server| server.weight),
            drained: self.wanted.is_drained(name),
            dormant: ordered.is_some() && from.is_none(),
            from,
            ordered,
            instances,
        }
    }

    fn instance(&self, name: &str, (instance, answer): &Answer) -> ServerInstance {
        let backend = answer.as_ref().ok().and_then(|servers| servers.get(self.name()));
        let home = backend.and_then(|backend| self.home(name, backend));
        let seen = home.map(|(_, seen)| seen);
        ServerInstance {
            instance: instance.clone(),
            state: seen.map(state),
            slot: home.map(|(home, _)| home.to_owned()).filter(|home| home != name),
            up: seen.is_some_and(|seen| seen.running),
            status: seen.map(|seen| seen.status.clone()),
            address: seen.and_then(|seen| {
                Some(std::net::SocketAddr::new(seen.address?, seen.port).to_string())
            }),
            weight: seen.map(|seen| seen.weight),
            sessions: seen.map(|seen| seen.sessions),
            error: answer.as_ref().err().cloned(),
        }
    }

    /// A server in an instance, with what HAProxy calls it.
    fn home<'a>(
        &'a self,
        name: &str,
        backend: &'a ObservedBackend,
    ) -> Option<(&'a str, &'a ObservedServer)> {
        let homes: BTreeMap<&str, &str> = homes(self.name(), &self.wanted, backend);
        let home = homes.get(name).copied().unwrap_or(name);
        backend.servers.get_key_value(home).map(|(home, seen)| (home.as_str(), seen))
    }
}

/// As HAProxy has it, whoever set it.
fn state(seen: &ObservedServer) -> OrderedState {
    match (seen.admin.in_maintenance(), seen.admin.draining()) {
        (true, _) => OrderedState::Maint,
        (false, true) => OrderedState::Drain,
        (false, false) => OrderedState::Ready,
    }
}
