//! Members, as clients of other APIs see them.

use jiff::Timestamp;
use mapsmith_core::members::{BackendVersion, Kept, Lifetime, Member, MemberKey};

use super::Api;

/// A member, and when it was heard of last, in milliseconds since 1970.
pub type Heard = (Member, i64);

impl Api {
    /// The first members of a name, of a version of it, or of all, after this one: at most so many,
    /// and none of those that are expired.
    pub fn heard(
        &self,
        (name, version): (Option<&str>, Option<&str>),
        after: Option<&MemberKey>,
        most: usize,
    ) -> Vec<Heard> {
        let Some(service) = &self.members else { return Vec::new() };
        let now = Timestamp::now();
        service.look(|members| {
            let there = members.of(name, version, after).filter(|kept| kept.expired.is_none());
            let heard = |kept: &Kept| {
                let silent = match (members.lifetime(kept), kept.member.ttl) {
                    (Lifetime::Left(left), Some(ttl)) => ttl.saturating_sub(left),
                    _ => return (kept.member.clone(), kept.member.since.as_millisecond()),
                };
                let silent = i64::try_from(silent.as_millis()).unwrap_or(i64::MAX);
                (kept.member.clone(), now.as_millisecond().saturating_sub(silent))
            };
            there.take(most).map(heard).collect()
        })
    }

    /// Whether any member of this version is there.
    pub fn is_any_heard(&self, name: &str, version: &str) -> bool {
        self.members.as_ref().is_some_and(|service| {
            service.look(|members| {
                members.of(Some(name), Some(version), None).any(|kept| kept.expired.is_none())
            })
        })
    }

    /// The version that a backend has of what it takes; none where it takes no members, or is not
    /// begun with yet.
    pub fn version_of(&self, backend: &str) -> Option<BackendVersion> {
        self.members.as_ref()?.version(backend)
    }

    /// The source that backends take members from.
    pub fn members_source(&self) -> &str {
        self.settings.members_source()
    }
}
