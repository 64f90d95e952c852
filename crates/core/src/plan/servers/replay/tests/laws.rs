//! What must hold at each step, and in the end.

use proptest::prelude::*;

use super::world::World;
use super::*;
use crate::plan::servers::{Cause, Hand, Phase, ServerPlan};
use crate::server::{DesiredBackend, ObservedBackend};

impl World {
    /// A step touches a declared backend, and in it what is ours.
    pub(super) fn assert_owned(
        &self,
        step: &ServerStep,
        before: &ObservedServers,
    ) -> Result<(), TestCaseError> {
        prop_assert!(
            self.desired.backends.contains_key(step.backend()),
            "{step}: nobody declared the backend"
        );
        if let Some((server, seen)) = step
            .server()
            .and_then(|server| Some((server, before.get(step.backend())?.servers.get(server)?)))
        {
            prop_assert!(self.is_ours(step.backend(), server, seen), "{step}: not ours");
        }
        Ok(())
    }

    /// No server that was ready and is desired is less so, whatever part of `before` has been done.
    pub(super) fn assert_still_ready(
        &self,
        step: &ServerStep,
        before: &ObservedServers,
    ) -> Result<(), TestCaseError> {
        for (name, wanted) in &self.desired.backends {
            for server in wanted.servers.keys() {
                let seen = |servers: &ObservedServers| {
                    servers
                        .get(name)
                        .and_then(|b| b.servers.get(server))
                        .map(|s| (s.admin, s.running))
                };
                if seen(before).is_some_and(|(admin, _)| admin.ready()) {
                    prop_assert_eq!(
                        seen(before),
                        seen(&self.process.servers),
                        "{} took {}/{} away",
                        step,
                        name,
                        server
                    );
                }
            }
        }
        Ok(())
    }

    /// A backend that had a ready and running server, and should have any, has one still.
    pub(super) fn assert_served(&self, before: &ObservedServers) -> Result<(), TestCaseError> {
        for (name, wanted) in
            self.desired.backends.iter().filter(|(_, wanted)| !wanted.servers.is_empty())
        {
            let serves = |servers: &ObservedServers| {
                servers.get(name).is_some_and(|seen| {
                    seen.servers.values().any(|server| server.admin.ready() && server.running)
                })
            };
            prop_assert!(
                !serves(before) || serves(&self.process.servers),
                "{name} of {wanted:?} lost its last server"
            );
        }
        Ok(())
    }

    pub(super) fn assert_untouched(&self, before: &ObservedServers) -> Result<(), TestCaseError> {
        for (name, backend) in before {
            for (server, seen) in &backend.servers {
                if !self.is_ours(name, server, seen) {
                    let now = self
                        .process
                        .servers
                        .get(name)
                        .and_then(|backend| backend.servers.get(server));
                    prop_assert_eq!(Some(seen), now, "{}/{} is not ours", name, server);
                }
            }
        }
        Ok(())
    }

    /// Everything is as it should be, or it is said why not.
    pub(super) fn assert_right(&self, plan: &ServerPlan) -> Result<(), TestCaseError> {
        for (name, wanted) in &self.desired.backends {
            if self.process.servers.contains_key(name) {
                self.assert_backend_right(plan, name, wanted)?;
            } else {
                let said = reported(plan, name, None, &|_| true);
                prop_assert!(said, "{name} is missing and nobody says so");
            }
        }
        Ok(())
    }

    fn assert_backend_right(
        &self,
        plan: &ServerPlan,
        name: &str,
        wanted: &DesiredBackend,
    ) -> Result<(), TestCaseError> {
        let seen = &self.process.servers[name];
        let in_slots = |server: &Server| -> Vec<(&String, &ObservedServer)> {
            let slots = seen.servers.iter();
            slots
                .filter(|(slot, seen)| is_slot(wanted, slot, seen) && is_at(seen, server))
                .collect()
        };
        let mut slots_in_use = BTreeSet::new();
        let mut homeless = 0;
        for (server, wanted_server) in &wanted.servers {
            let slots = in_slots(wanted_server);
            let home = seen.servers.get_key_value(server).or(slots.first().copied());
            if !seen.servers.contains_key(server) {
                homeless += 1;
                slots_in_use.extend(slots.into_iter().map(|(slot, _)| slot));
            }
            if let Some((home, is)) = home {
                assert_server_right(plan, name, wanted, wanted_server, home, is)?;
            } else {
                let said = reported(plan, name, Some(server), &|_| true);
                prop_assert!(said, "{name}/{server} is nowhere and nobody says so");
            }
        }
        assert_drains_right(plan, name, wanted, seen)?;
        let waiting = plan.removing.iter().filter(|removing| removing.backend == name).count();
        let serving = slots_in_use.iter().filter(|slot| seen.servers[**slot].admin.ready()).count();
        prop_assert!(serving <= homeless + waiting, "{name}: more slots than servers");
        for (server, is) in &seen.servers {
            let free = is.admin.in_maintenance() && server.starts_with("slot");
            let waits = plan.removing.iter().any(|removing| {
                removing.backend == name
                    && &removing.server == server
                    && removing.phase == Phase::Waiting
            });
            prop_assert!(
                wanted.servers.contains_key(server)
                    || slots_in_use.contains(server)
                    || !self.is_ours(name, server, is)
                    || free
                    || waits
                    || reported(plan, name, Some(server), &|cause| *cause == Cause::Referenced),
                "{name}/{server} should be gone"
            );
        }
        Ok(())
    }
}

/// Whether it is said of a backend, or of its server, that it needs a reload for such a cause.
fn reported(
    plan: &ServerPlan,
    backend: &str,
    server: Option<&str>,
    fits: &dyn Fn(&Cause) -> bool,
) -> bool {
    plan.needs_reload.iter().any(|needs| {
        needs.backend == backend && needs.server.as_deref() == server && fits(&needs.cause)
    })
}

fn is_slot(wanted: &DesiredBackend, name: &str, seen: &ObservedServer) -> bool {
    wanted.slots.is_some()
        && name.starts_with("slot")
        && !wanted.former.contains(name)
        && seen.fqdn.is_none()
}

fn is_at(seen: &ObservedServer, server: &Server) -> bool {
    seen.address == Some(server.address.ip) && seen.port == server.address.port
}

/// A drained server has no weight while another has some and serves, and only then; one whose drain
/// has ended has its own.
fn assert_drains_right(
    plan: &ServerPlan,
    backend: &str,
    wanted: &DesiredBackend,
    seen: &ObservedBackend,
) -> Result<(), TestCaseError> {
    if wanted.drained.is_none() || wanted.slots.is_some() {
        // Of slots at one address the planner may have chosen another than we.
        return Ok(());
    }
    let homes = wanted.servers.values().filter_map(|server| {
        let is = seen.servers.get(&server.name)?;
        let is_ours = wanted.is_drained(&server.name) || wanted.undrained.contains(&server.name);
        let own = if is.weight == 0 && is_ours { is.initial_weight } else { is.weight };
        Some((server, is, server.weight.unwrap_or(own)))
    });
    let homes: Vec<_> = homes.collect();
    let others_serve = homes.iter().any(|(server, is, weight)| {
        is.admin.ready() && is.running && *weight > 0 && !wanted.is_drained(&server.name)
    });
    for (server, is, weight) in homes {
        let out = wanted.is_drained(&server.name) && others_serve;
        let right = if out { is.weight == 0 } else { (is.weight == 0) == (weight == 0) };
        let said = reported(plan, backend, Some(&server.name), &|cause| {
            matches!(cause, Cause::StaticAlgorithm { .. })
        });
        prop_assert!(right || said, "{backend}/{}: weight {}", server.name, is.weight);
    }
    Ok(())
}

/// What serves for `server`, itself or a slot, is as the list has it, or it is said why not.
fn assert_server_right(
    plan: &ServerPlan,
    backend: &str,
    list: &DesiredBackend,
    wanted: &Server,
    home: &str,
    is: &ObservedServer,
) -> Result<(), TestCaseError> {
    let server = wanted.name.as_str();
    let said = |fits: &dyn Fn(&Cause) -> bool| {
        // Of two slots at one address the planner may have chosen the other.
        home != server || reported(plan, backend, Some(home), fits)
    };
    prop_assert!(
        is_at(is, wanted) || said(&|cause| matches!(cause, Cause::ResolvedByName { .. })),
        "{backend}/{home}: address"
    );
    let weighs = list.is_drained(server) || wanted.weight.is_none_or(|weight| weight == is.weight);
    prop_assert!(
        weighs || said(&|cause| matches!(cause, Cause::StaticAlgorithm { .. })),
        "{backend}/{home}: weight"
    );
    let limited = wanted.options.maxconn.is_none_or(|maxconn| limit(Some(maxconn)) == is.maxconn);
    prop_assert!(limited || home != server, "{backend}/{home}: maxconn");
    let backed = wanted.backup == is.backup;
    prop_assert!(
        backed || said(&|cause| matches!(cause, Cause::Backup { .. })),
        "{backend}/{home}: backup"
    );
    let external = plan
        .external
        .iter()
        .find(|external| external.backend == backend && external.server == home);
    match external.map(|external| external.hand) {
        Some(Hand::Maintenance) => prop_assert!(is.admin.in_maintenance()),
        Some(Hand::Drain) => prop_assert!(is.admin.draining()),
        None => prop_assert!(
            is.admin.ready() || is.admin.0 & AdminState::UNRESOLVED != 0 || home != server,
            "{backend}/{home} is {:?} and nobody says so",
            is.admin
        ),
    }
    Ok(())
}
