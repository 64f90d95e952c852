//! Members are registered, shown and unregistered.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::members::{
    Effect, InvalidMember, Kept, Lifetime, MOST_BY_GRANT, MOST_MEMBERS, Member, MemberChange,
    MemberKey, TTL,
};
use mapsmith_core::status::milliseconds;
use tokio::time::Instant;

use super::requests::{self, Invalid, Page};
use super::types::{
    MemberChangeReport, MemberEffect, MemberReport, MemberState, MembersReport, ReloadOutcome,
};
use super::{Api, Error};
use crate::instance::InstanceReport;
use crate::store::member_service::MemberChanged;
use crate::store::{AuditTicket, MemberService};

/// The most often that a member need be heard of.
const SOONEST_CHECK_IN: Duration = Duration::from_millis(300);

/// How often it is tried to make room for a member: others take it meanwhile.
const MOST_TRIES: usize = 8;

/// How a change is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemberOrder {
    /// How long it is waited for until every instance holds the result.
    pub wait: Option<Duration>,
    /// It is only told what would be.
    pub dry_run: bool,
    /// That there is nothing to end is no failure.
    pub missing_ok: bool,
    /// Whoever asks may do so by a grant alone.
    pub by_grant: bool,
}

/// Which members are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberSearch {
    pub name: Option<String>,
    pub version: Option<String>,
    /// Those that are expired, and no others.
    pub expired: bool,
}

impl From<InvalidMember> for Invalid {
    fn from(error: InvalidMember) -> Self {
        Self(error.to_string())
    }
}

/// Why a change is made, where the request says so.
///
/// # Errors
/// It is no reason.
pub fn reason(reason: Option<String>) -> Result<Option<String>, Invalid> {
    requests::note(reason, None).map(|note| note.reason)
}

/// How long a member may be silent, where the request says so.
///
/// # Errors
/// It is no such time.
pub fn ttl(text: Option<&str>) -> Result<Option<Duration>, Invalid> {
    let length = |text: &str| {
        let length = humantime::parse_duration(text).ok().filter(|it| TTL.contains(it));
        length.ok_or_else(|| Invalid("ttl must be a duration from 1s to 24h, like 10s".to_owned()))
    };
    text.map(length).transpose()
}

/// How many members must be ready, where the request says so.
///
/// # Errors
/// There are never so many.
pub fn min_ready(least: Option<u32>) -> Result<Option<u32>, Invalid> {
    match least {
        Some(least) if !(1..=MOST_MEMBERS).contains(&(least as usize)) => {
            Err(Invalid(format!("min_ready must be 1 to {MOST_MEMBERS}")))
        }
        least => Ok(least),
    }
}

impl Api {
    pub(super) fn member_service(&self) -> Result<&MemberService, Error> {
        self.members.as_ref().ok_or(Error::NoStore("members"))
    }

    /// Registers a member, or hears that it is still there. It was checked.
    ///
    /// # Errors
    /// There is no store, it did not take the change, or there are too many members.
    pub async fn register_member(
        &self,
        member: Member,
        order: MemberOrder,
        ticket: Arc<AuditTicket>,
    ) -> Result<MemberChangeReport, Error> {
        let (start, service, key) = (Instant::now(), self.member_service()?, member.key.clone());
        let change = match order.by_grant {
            true => MemberChange::RegisterByGrant(member.clone()),
            false => MemberChange::Register(member.clone()),
        };
        if order.dry_run {
            let effect = match service.preview(change) {
                full @ (Effect::Full | Effect::FullOfOne)
                    if self.room(service, full, &member).is_empty() =>
                {
                    full
                }
                Effect::Full | Effect::FullOfOne => Effect::Registered,
                effect => effect,
            };
            return report(&key, &dry(effect, Some(member)), None, None, start);
        }
        let mut changed = service.change(change.clone(), Some(Arc::clone(&ticket))).await;
        for _ in 0..MOST_TRIES {
            let Ok(MemberChanged { effect, .. }) = &changed else { break };
            let room = self.room(service, *effect, &member);
            if room.is_empty() {
                break;
            }
            changed = match service.forget(room).await {
                Ok(()) => service.change(change.clone(), Some(Arc::clone(&ticket))).await,
                Err(error) => Err(error),
            };
        }
        let changed = changed?;
        if changed.effect == Effect::CheckedIn {
            // That somebody is still there is no change.
            ticket.changes_nothing();
        }
        let outcome = self.member_in_force(&key, &changed, start, order.wait).await;
        report(&key, &changed, Some(outcome.0), outcome.1, start)
    }

    /// Ends a member's registration.
    ///
    /// # Errors
    /// There is no store, it did not take the change, or there is no such member.
    pub async fn unregister_member(
        &self,
        key: MemberKey,
        order: MemberOrder,
        ticket: Arc<AuditTicket>,
    ) -> Result<MemberChangeReport, Error> {
        let (start, service) = (Instant::now(), self.member_service()?);
        let missing = |effect: Effect| match (effect, order.missing_ok) {
            (Effect::Unknown, false) => Err(Error::NotRegistered(format!(
                "there is no member {key} (missing=ok, or --missing-ok, takes that for success)"
            ))),
            _ => Ok(()),
        };
        if order.dry_run {
            let effect = service.preview(MemberChange::Unregister(key.clone()));
            missing(effect)?;
            return report(&key, &dry(effect, None), None, None, start);
        }
        let change = MemberChange::Unregister(key.clone());
        let changed = service.change(change, Some(Arc::clone(&ticket))).await?;
        if changed.effect == Effect::Unknown {
            ticket.changes_nothing();
        }
        missing(changed.effect)?;
        let outcome = self.member_in_force(&key, &changed, start, order.wait).await;
        report(&key, &changed, Some(outcome.0), outcome.1, start)
    }

    /// A page of the members that are asked for.
    ///
    /// # Errors
    /// There is no store, or no page begins so.
    pub fn members(&self, search: &MemberSearch, page: &Page) -> Result<MembersReport, Error> {
        let service = self.member_service()?;
        let after = page.after.as_deref().and_then(key_of);
        let kept = self.kept_servers(service);
        let kept_by = |member: &Kept| -> Vec<String> {
            let (key, server) = (&member.member.key, member.member.key.server());
            let of = kept.iter().filter(|(_, name, servers)| {
                *name == key.name && member.expired.is_some() && servers.contains(&server)
            });
            of.map(|(backend, ..)| backend.clone()).collect()
        };
        let now = Timestamp::now();
        Ok(service.look(|members| {
            let (name, version) = (search.name.as_deref(), search.version.as_deref());
            let wanted = |member: &Kept| member.expired.is_some() == search.expired;
            let total = members.of(name, version, None).filter(|it| wanted(it)).count();
            let mut found = members.of(name, version, after.as_ref()).filter(|it| wanted(it));
            let items: Vec<_> = found
                .by_ref()
                .take(page.limit)
                .map(|kept| member_report(kept, members.lifetime(kept), kept_by(kept), now))
                .collect();
            let last = items.last().filter(|_| found.next().is_some());
            let next = last.map(|last| requests::cursor(last.id.trim_start_matches('/')));
            MembersReport { total, items, next }
        }))
    }

    /// Those that are to make room, where there is none: they expired first, and no backend keeps
    /// them.
    fn room(&self, service: &MemberService, effect: Effect, new: &Member) -> Vec<MemberKey> {
        let by = match effect {
            Effect::Full => None,
            Effect::FullOfOne => new.by.as_deref(),
            _ => return Vec::new(),
        };
        let kept = self.kept_servers(service);
        let is_kept = |member: &Kept| {
            let (key, server) = (&member.member.key, member.member.key.server());
            kept.iter().any(|(_, name, servers)| *name == key.name && servers.contains(&server))
        };
        service.look(|members| members.room(by, is_kept))
    }

    /// The servers that each backend has in force without that they are listed, with the name of
    /// its members.
    fn kept_servers(&self, service: &MemberService) -> Vec<(String, String, BTreeSet<String>)> {
        let listings = service.subscribe().borrow().clone();
        let decision = self.decision.borrow();
        let kept = service.versions().into_iter().filter_map(|version| {
            let status = decision.backends.iter().find(|it| it.name == version.backend)?;
            let listed = &listings.of.get(&version.backend)?.list.servers;
            let in_force = status.servers.iter().flatten().map(|server| server.name.clone());
            let mut kept: BTreeSet<_> = in_force.collect();
            listed.iter().for_each(|server| _ = kept.remove(&server.name));
            Some((version.backend, version.name, kept))
        });
        kept.collect()
    }

    /// Waits until the backends that take this member have it so.
    async fn member_in_force(
        &self,
        key: &MemberKey,
        changed: &MemberChanged,
        start: Instant,
        wait: Option<Duration>,
    ) -> (ReloadOutcome, Option<String>) {
        if !matches!(changed.effect, Effect::Registered | Effect::Unregistered) {
            return (ReloadOutcome::InSync, None);
        }
        let backends = self.members.iter().flat_map(|service| service.backends_of(key));
        let backends: Vec<_> = backends.collect();
        match wait {
            // Nobody has anything to do with it.
            _ if backends.is_empty() => (ReloadOutcome::InSync, None),
            None => (ReloadOutcome::Requested, None),
            Some(wait) => {
                let (outcome, words) =
                    self.lists_in_force(changed.number, &backends, start, wait).await;
                (outcome, Some(words))
            }
        }
    }

    /// Waits until every instance has these backends' servers as the members of this number say,
    /// as far as the guard and the damping let them.
    pub(super) async fn lists_in_force(
        &self,
        number: u64,
        backends: &[String],
        start: Instant,
        wait: Duration,
    ) -> (ReloadOutcome, String) {
        let deadline = start + wait;
        let Some(decision) = self.decided(deadline, |it| it.members >= number).await else {
            return (
                ReloadOutcome::Behind,
                format!("it is stored, and not in force within {wait:?}"),
            );
        };
        let of = decision.backends.iter().filter(|status| backends.contains(&status.name));
        if let Some(held) = of.filter_map(|status| status.held.as_ref()).next() {
            let words = format!("the guard holds a change of {}: {}", held.of, held.reason);
            return (ReloadOutcome::Behind, format!("it is stored; {words} (id {})", held.id));
        }
        let generation = decision.generation;
        let has_it = |_, report: &InstanceReport| report.observed.servers >= generation;
        let reports = self.observed(deadline, has_it).await;
        let why = |report: &InstanceReport| match &report.status.servers {
            Some(servers) if report.observed.servers < generation => {
                Some(format!("{} ({})", report.status.name, servers.state))
            }
            Some(servers) => {
                let of_these = |cause: &&String| {
                    let mut names = backends.iter();
                    names.any(|name| {
                        cause
                            .strip_prefix(name.as_str())
                            .is_some_and(|it| it.starts_with(['/', ':']))
                    })
                };
                let cause = servers.needs_reload.iter().find(of_these)?;
                Some(format!("{} (needs a reload of HAProxy: {cause})", report.status.name))
            }
            None => Some(format!("{} ({})", report.status.name, report.status.state)),
        };
        let late: Vec<_> = reports.iter().filter_map(why).collect();
        match late.as_slice() {
            [] => {
                let count = reports.len();
                (ReloadOutcome::InSync, format!("in force in {count} of {count} instances"))
            }
            late => (
                ReloadOutcome::Behind,
                format!("it is stored, and not in force within {wait:?}: {}", late.join(", ")),
            ),
        }
    }
}

/// The member of a cursor.
fn key_of(path: &str) -> Option<MemberKey> {
    let mut parts = path.splitn(4, '/');
    let (name, version) = (parts.next()?, parts.next()?);
    MemberKey::new(name, version, parts.next()?, parts.next()?).ok()
}

fn dry(effect: Effect, member: Option<Member>) -> MemberChanged {
    let lifetime = |member: &Member| member.ttl.map_or(Lifetime::Unlimited, Lifetime::Left);
    let member = member.map(|member| (member.clone(), lifetime(&member)));
    MemberChanged { effect, member, number: 0 }
}

fn report(
    key: &MemberKey,
    changed: &MemberChanged,
    outcome: Option<ReloadOutcome>,
    words: Option<String>,
    start: Instant,
) -> Result<MemberChangeReport, Error> {
    let dry = outcome.is_none();
    let (effect, done) = match changed.effect {
        Effect::Registered if dry => (MemberEffect::Registered, "would be registered"),
        Effect::Registered => (MemberEffect::Registered, "is registered"),
        Effect::Changed if dry => (MemberEffect::Changed, "would be changed"),
        Effect::Changed => (MemberEffect::Changed, "is changed"),
        Effect::CheckedIn => (MemberEffect::CheckedIn, "is registered"),
        Effect::Unregistered if dry => {
            (MemberEffect::Unregistered, "would no longer be registered")
        }
        Effect::Unregistered => (MemberEffect::Unregistered, "is no longer registered"),
        Effect::Unknown => (MemberEffect::Missing, "is not registered"),
        Effect::Full => {
            return Err(Error::ServerConflict(format!(
                "{MOST_MEMBERS} members are registered, and no more may be: unregister some"
            )));
        }
        Effect::FullOfOne => {
            return Err(Error::ServerConflict(format!(
                "{MOST_BY_GRANT} members are registered by your token, and no more may be by a \
                    grant: unregister some"
            )));
        }
    };
    let more = match (&words, dry, outcome) {
        (Some(words), ..) => format!("; {words}"),
        (None, true, _) => "; nothing is stored".to_owned(),
        (None, _, Some(ReloadOutcome::Requested)) => {
            "; it is stored, and every instance gets it now".to_owned()
        }
        _ => String::new(),
    };
    let expires_at = changed.member.as_ref().and_then(|(_, lifetime)| match lifetime {
        Lifetime::Left(left) => Timestamp::now().checked_add(*left).ok(),
        _ => None,
    });
    let ttl = changed.member.as_ref().and_then(|(member, _)| member.ttl);
    Ok(MemberChangeReport {
        id: format!("/{key}"),
        effect,
        expires_at,
        check_in: ttl.map(|ttl| in_words((ttl / 3).max(SOONEST_CHECK_IN))),
        stored: !dry,
        outcome,
        message: format!("member {key} {done}{more}"),
        milliseconds: milliseconds(start.elapsed()),
    })
}

/// A duration as the settings write it, in whole milliseconds, or seconds from three on.
fn in_words(length: Duration) -> String {
    let whole = match length.as_secs() {
        3.. => Duration::from_secs(length.as_secs()),
        _ => Duration::from_millis(u64::try_from(length.as_millis()).unwrap_or_default()),
    };
    humantime::format_duration(whole).to_string()
}

fn member_report(
    kept: &Kept,
    lifetime: Lifetime,
    kept_by: Vec<String>,
    now: Timestamp,
) -> MemberReport {
    let Member { key, meta, ttl, since, by } = kept.member.clone();
    let (expires_at, expired_at) = match lifetime {
        Lifetime::Unlimited => (None, None),
        Lifetime::Left(left) => (now.checked_add(left).ok(), None),
        Lifetime::ExpiredAt(at) => (None, Some(at)),
    };
    MemberReport {
        id: format!("/{key}"),
        server: key.server(),
        name: key.name,
        version: key.version,
        host: key.host,
        port: key.port,
        meta,
        state: if expired_at.is_some() { MemberState::Expired } else { MemberState::Registered },
        since,
        ttl: ttl.map(|ttl| humantime::format_duration(ttl).to_string()),
        expires_at,
        expired_at,
        kept_by,
        by,
    }
}
