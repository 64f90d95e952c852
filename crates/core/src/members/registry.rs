//! All members that are registered, and how long each has been silent.
//!
//! What is stored comes first: a [`Batch`] says what a number of changes come to, and once that is
//! in the store it is applied. That a member is still there is no change; it is known here alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{ListeningClock, Member, MemberKey};
use crate::server::list::{RawServer, Repeats, ServerList, ServerListBuilder};

/// The most members, those that are expired included.
pub const MOST_MEMBERS: usize = 10_000;
/// The most of them that one token has registered by a grant: it can't take everybody's place.
pub const MOST_BY_GRANT: usize = MOST_MEMBERS / 4;
/// How many that are expired make room together, where all places are taken.
const ROOM: usize = 100;
/// How long it is remembered that a member has expired: what is held back of that is shown so.
const EXPIRED_KEPT: SignedDuration = SignedDuration::from_hours(24);
/// How long it is remembered that a member was taken away by its own word.
const LEFT_KEPT: Duration = Duration::from_secs(600);
/// The least time that every member has after a start, however long it was silent before: whoever
/// checks in had nobody to check in with.
const AFTER_START: Duration = Duration::from_secs(10);
/// How far a stored lifetime may be from what is left.
const LEAST_TOLERANCE: Duration = Duration::from_secs(10);

/// A change of what is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// Registers it, or hears that it is still there.
    Register(Member),
    /// The same, by somebody who may do so by a grant alone.
    RegisterByGrant(Member),
    Unregister(MemberKey),
}

/// What a change comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It was not there.
    Registered,
    /// It says something else of itself.
    Changed,
    /// It is still there.
    CheckedIn,
    Unregistered,
    /// There is none to unregister.
    Unknown,
    /// There are too many.
    Full,
    /// There are too many that the same has registered by a grant.
    FullOfOne,
}

/// What is left of a member's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// It stays until somebody ends it.
    Unlimited,
    Left(Duration),
    /// It was silent for too long.
    ExpiredAt(Timestamp),
}

/// A member, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub member: Member,
    /// When its time is over, by the clock of listening; none where it has no end.
    end: Option<Duration>,
    /// What the store has of its lifetime.
    stored: Option<Duration>,
    /// When it was found silent for too long.
    pub expired: Option<Timestamp>,
}

/// What changes come to, before they are stored.
#[derive(Debug, Default)]
pub struct Batch {
    /// One for each change, in their order.
    pub effects: Vec<Effect>,
    /// The members that are to be stored, or to be gone.
    pub writes: BTreeMap<MemberKey, Option<Member>>,
    checked_in: Vec<MemberKey>,
    /// How many there are then.
    count: usize,
    /// How many of them each has registered, once that is asked.
    by: Option<BTreeMap<String, usize>>,
}

impl Batch {
    /// One that this one has registered is one that another one has, or none.
    fn replace(&mut self, old: Option<Option<String>>, new: Option<Option<String>>) {
        self.count = self.count + usize::from(new.is_some()) - usize::from(old.is_some());
        let Some(by) = &mut self.by else { return };
        if let Some(count) = old.flatten().and_then(|old| by.get_mut(&old)) {
            *count -= 1;
        }
        if let Some(new) = new.flatten() {
            *by.entry(new).or_default() += 1;
        }
    }
}

/// The names and versions whose members are others.
pub type Touched = BTreeSet<(String, String)>;

/// How many members a version has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionCount {
    pub version: String,
    pub members: usize,
    pub expired: usize,
}

/// All that is registered.
#[derive(Debug, Clone, Default)]
pub struct Members {
    items: BTreeMap<MemberKey, Kept>,
    clock: ListeningClock,
    /// Those that were taken away, and when.
    left: BTreeMap<MemberKey, Duration>,
}

impl Members {
    /// Takes a member that the store has, at the start.
    pub fn restore(&mut self, member: Member, left: Option<Duration>, expired: Option<Timestamp>) {
        let now = self.clock.listened();
        let end = member.ttl.map(|ttl| {
            let left = left.unwrap_or(ttl).min(ttl);
            now + left.max(ttl / 2).max(AFTER_START)
        });
        let kept = Kept { end, stored: left, expired, member };
        self.items.insert(kept.member.key.clone(), kept);
    }

    /// It is `now` by any clock.
    pub fn advance(&mut self, now: Duration) {
        self.clock.advance(now);
    }

    pub fn get(&self, key: &MemberKey) -> Option<&Kept> {
        self.items.get(key)
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How long a member may still be silent.
    pub fn lifetime(&self, kept: &Kept) -> Lifetime {
        match (kept.expired, kept.end) {
            (Some(at), _) => Lifetime::ExpiredAt(at),
            (None, Some(end)) => Lifetime::Left(end.saturating_sub(self.clock.listened())),
            (None, None) => Lifetime::Unlimited,
        }
    }

    /// Hears that this member is there: its time begins anew. False where that is a change.
    pub fn check_in(&mut self, member: &Member) -> bool {
        let now = self.clock.listened();
        let Some(kept) = self.items.get_mut(&member.key) else { return false };
        if !kept.is_as(member) {
            return false;
        }
        kept.end = member.ttl.map(|ttl| now + ttl);
        true
    }

    /// What these changes come to, one after the other.
    pub fn prepare(&self, changes: &[MemberChange]) -> Batch {
        let mut batch = Batch { count: self.items.len(), ..Batch::default() };
        for change in changes {
            let effect = match change {
                MemberChange::Register(member) => self.register(member, false, &mut batch),
                MemberChange::RegisterByGrant(member) => self.register(member, true, &mut batch),
                MemberChange::Unregister(key) => {
                    match self.after(key, &batch).map(|known| known.by.clone()) {
                        Some(by) => {
                            batch.replace(Some(by), None);
                            batch.writes.insert(key.clone(), None);
                            Effect::Unregistered
                        }
                        None => Effect::Unknown,
                    }
                }
            };
            batch.effects.push(effect);
        }
        batch
    }

    /// A member after a batch.
    fn after<'a>(&'a self, key: &MemberKey, batch: &'a Batch) -> Option<&'a Member> {
        match batch.writes.get(key) {
            Some(pending) => pending.as_ref(),
            None => self.items.get(key).map(|kept| &kept.member),
        }
    }

    /// How many this one has registered after a batch.
    fn of_one(&self, name: Option<&String>, batch: &mut Batch) -> usize {
        let Batch { by, writes, .. } = batch;
        let counts = by.get_or_insert_with(|| {
            let mut counts = BTreeMap::new();
            let stay = self.items.values().map(|kept| &kept.member);
            let stay = stay.filter(|member| !writes.contains_key(&member.key));
            let all = stay.chain(writes.values().flatten());
            for name in all.filter_map(|member| member.by.as_ref()) {
                *counts.entry(name.clone()).or_default() += 1;
            }
            counts
        });
        name.and_then(|name| counts.get(name)).copied().unwrap_or_default()
    }

    fn register(&self, new: &Member, by_grant: bool, batch: &mut Batch) -> Effect {
        let is_pending = batch.writes.contains_key(&new.key);
        let is_online = |kept: &Kept| kept.expired.is_none();
        let online = is_pending || self.items.get(&new.key).is_some_and(is_online);
        let known = self.after(&new.key, batch).map(|known| {
            let says_the_same = known.meta == new.meta && known.ttl == new.ttl;
            (known.by.clone(), known.since, says_the_same)
        });
        let is_others = known.as_ref().is_none_or(|(by, ..)| *by != new.by);
        let effect = match &known {
            Some((.., true)) if online => {
                batch.checked_in.push(new.key.clone());
                return Effect::CheckedIn;
            }
            _ if by_grant && is_others && self.of_one(new.by.as_ref(), batch) >= MOST_BY_GRANT => {
                return Effect::FullOfOne;
            }
            Some(_) if online => Effect::Changed,
            Some(_) => Effect::Registered,
            None if batch.count >= MOST_MEMBERS => return Effect::Full,
            None => Effect::Registered,
        };
        let since = match (effect, &known) {
            (Effect::Changed, Some((_, since, _))) => *since,
            _ => new.since,
        };
        batch.replace(known.map(|(by, ..)| by), Some(new.by.clone()));
        batch.writes.insert(new.key.clone(), Some(Member { since, ..new.clone() }));
        effect
    }

    /// Takes what is stored by now.
    pub fn apply(&mut self, batch: Batch) -> Touched {
        let now = self.clock.listened();
        let mut touched = Touched::new();
        for (key, member) in batch.writes {
            touched.insert((key.name.clone(), key.version.clone()));
            match member {
                Some(member) => {
                    let (end, stored) = (member.ttl.map(|ttl| now + ttl), member.ttl);
                    self.left.remove(&key);
                    self.items.insert(key, Kept { member, end, stored, expired: None });
                }
                None => {
                    self.items.remove(&key);
                    self.left.insert(key, now);
                }
            }
        }
        for key in batch.checked_in {
            if let Some(kept) = self.items.get_mut(&key) {
                kept.end = kept.member.ttl.map(|ttl| now + ttl);
            }
        }
        self.left.retain(|_, at| now < *at + LEFT_KEPT);
        self.bound_left();
        touched
    }

    /// Where many register and unregister all the time those of long ago are forgotten first.
    fn bound_left(&mut self) {
        let Some(beyond) = self.left.len().checked_sub(MOST_MEMBERS).filter(|it| *it > 0) else {
            return;
        };
        let mut oldest: Vec<_> = self.left.iter().map(|(key, at)| (*at, key.clone())).collect();
        oldest.select_nth_unstable(beyond - 1);
        oldest.truncate(beyond);
        oldest.iter().for_each(|(_, key)| _ = self.left.remove(key));
    }

    /// Those whose time is over and that are not known for it yet.
    pub fn due(&self) -> Vec<MemberKey> {
        let now = self.clock.listened();
        let is_due =
            |kept: &&Kept| kept.expired.is_none() && kept.end.is_some_and(|end| end <= now);
        self.items.values().filter(is_due).map(|kept| kept.member.key.clone()).collect()
    }

    /// The time of these is over, which is stored by now.
    pub fn expire(&mut self, keys: &[MemberKey], at: Timestamp) -> Touched {
        let mut touched = Touched::new();
        for key in keys {
            if let Some(kept) = self.items.get_mut(key) {
                kept.expired = Some(at);
                touched.insert((key.name.clone(), key.version.clone()));
            }
        }
        touched
    }

    /// Those that expired so long ago that it need not be remembered.
    pub fn forgettable(&self, now: Timestamp) -> Vec<MemberKey> {
        let is_old =
            |kept: &&Kept| kept.expired.is_some_and(|at| now.duration_since(at) >= EXPIRED_KEPT);
        self.items.values().filter(is_old).map(|kept| kept.member.key.clone()).collect()
    }

    /// Those that expired first, of this one or of all, and that nobody keeps: they make room.
    pub fn room(&self, by: Option<&str>, is_kept: impl Fn(&Kept) -> bool) -> Vec<MemberKey> {
        let is_asked = |kept: &&Kept| by.is_none_or(|by| kept.member.by.as_deref() == Some(by));
        let expired = self.items.values().filter(is_asked);
        let expired = expired.filter_map(|kept| Some((kept.expired?, kept)));
        let mut expired: Vec<_> = expired.filter(|(_, kept)| !is_kept(kept)).collect();
        expired.sort_by_key(|(at, _)| *at);
        expired.into_iter().take(ROOM).map(|(_, kept)| kept.member.key.clone()).collect()
    }

    /// These are no longer stored.
    pub fn forget(&mut self, keys: &[MemberKey]) {
        keys.iter().for_each(|key| _ = self.items.remove(key));
    }

    /// The lifetimes that the store should have, where what it has is too far from that. What
    /// checks in all the time is never among them.
    pub fn lifetimes_to_store(&self) -> Vec<(MemberKey, Duration)> {
        let now = self.clock.listened();
        let news = self.items.values().filter(|kept| kept.expired.is_none()).filter_map(|kept| {
            let (ttl, end) = (kept.member.ttl?, kept.end?);
            let left = end.saturating_sub(now).min(ttl);
            let tolerance = LEAST_TOLERANCE.max(ttl / 4);
            let is_off = kept.stored.is_none_or(|stored| stored.abs_diff(left) > tolerance);
            is_off.then(|| (kept.member.key.clone(), left))
        });
        news.collect()
    }

    /// The store has these lifetimes by now.
    pub fn lifetimes_stored(&mut self, lifetimes: &[(MemberKey, Duration)]) {
        for (key, left) in lifetimes {
            if let Some(kept) = self.items.get_mut(key) {
                kept.stored = Some(*left);
            }
        }
    }

    /// All of a name, or of a version of it, in the order of their keys, after this one.
    pub fn of<'a>(
        &'a self,
        name: Option<&'a str>,
        version: Option<&'a str>,
        after: Option<&MemberKey>,
    ) -> impl Iterator<Item = &'a Kept> {
        let first = |name: &str, version: &str| MemberKey {
            name: name.to_owned(),
            version: version.to_owned(),
            host: String::new(),
            port: 0,
        };
        let start = name.map(|name| first(name, version.unwrap_or_default()));
        let from = match (start, after.cloned()) {
            (Some(start), Some(after)) if after < start => Bound::Included(start),
            (_, Some(after)) => Bound::Excluded(after),
            (Some(start), None) => Bound::Included(start),
            (None, None) => Bound::Unbounded,
        };
        let items = self.items.range((from, Bound::Unbounded));
        items.map(|(_, kept)| kept).take_while(move |kept| {
            let key = &kept.member.key;
            name.is_none_or(|name| key.name == name)
                && version.is_none_or(|version| key.version == version)
        })
    }

    /// The versions of a name.
    pub fn versions(&self, name: &str) -> Vec<VersionCount> {
        let mut versions: Vec<VersionCount> = Vec::new();
        for kept in self.of(Some(name), None, None) {
            let version = &kept.member.key.version;
            if versions.last().is_none_or(|last| last.version != *version) {
                let version = version.clone();
                versions.push(VersionCount { version, members: 0, expired: 0 });
            }
            if let Some(last) = versions.last_mut() {
                match kept.expired {
                    None => last.members += 1,
                    Some(_) => last.expired += 1,
                }
            }
        }
        versions
    }

    /// The servers of these versions that are there.
    pub fn list<'a>(&self, name: &str, versions: impl IntoIterator<Item = &'a str>) -> ServerList {
        let mut builder = ServerListBuilder::default();
        let mut taken = BTreeSet::new();
        for version in versions {
            let online = |kept: &&Kept| kept.expired.is_none();
            for Kept { member, .. } in self.of(Some(name), Some(version), None).filter(online) {
                let MemberKey { host, port, .. } = &member.key;
                // One that serves two versions is one server.
                if taken.insert((host.clone(), *port)) {
                    let (address, port) = (host.clone(), Some(i64::from(*port)));
                    let raw = RawServer { address, port, ..RawServer::default() };
                    builder.push(&member.key.to_string(), raw);
                }
            }
        }
        builder.finish(Repeats::First).0
    }

    /// The names of all servers of these versions that are known, those that are expired included.
    pub fn known<'a>(
        &self,
        name: &str,
        versions: impl IntoIterator<Item = &'a str>,
    ) -> BTreeSet<String> {
        let versions = versions.into_iter();
        let kept = versions.flat_map(|version| self.of(Some(name), Some(version), None));
        kept.map(|kept| kept.member.key.server()).collect()
    }

    /// The servers of these versions that were taken away lately.
    pub fn left<'a>(
        &self,
        name: &str,
        versions: impl IntoIterator<Item = &'a str>,
    ) -> BTreeSet<String> {
        let versions: BTreeSet<&str> = versions.into_iter().collect();
        let is_of = |key: &&MemberKey| key.name == name && versions.contains(&*key.version);
        self.left.keys().filter(is_of).map(MemberKey::server).collect()
    }
}

impl Kept {
    /// Whether it says the same of itself, and is there.
    fn is_as(&self, member: &Member) -> bool {
        self.expired.is_none() && self.member.meta == member.meta && self.member.ttl == member.ttl
    }
}
