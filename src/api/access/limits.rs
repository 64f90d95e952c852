//! How often each may ask, and how often an address may be wrong.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mapsmith_core::access::{Buckets, Identity, IdentityKind, Rate};

/// What only reads.
pub const READS: Rate = Rate { burst: 100, every: Duration::from_millis(20) };
/// What changes something.
pub const CHANGES: Rate = Rate { burst: 20, every: Duration::from_millis(100) };
/// Members, each of which says all the time that it is there, and costs next to nothing.
pub const MEMBERS: Rate = Rate { burst: 4000, every: Duration::from_micros(500) };
/// Logging in: each is a row of the audit, which must not push out what matters.
pub const LOGINS: Rate = Rate { burst: 20, every: Duration::from_secs(12) };
/// What a wrong token costs an address.
pub const FAILED_LOGINS: Rate = Rate { burst: 5, every: Duration::from_secs(12) };
/// How often it is logged that an address was refused.
const REFUSALS_LOGGED: Rate = Rate { burst: 1, every: Duration::from_secs(1) };
/// How many are told apart.
const MOST: usize = 10_000;

/// Counted in memory, from the start on.
#[derive(Debug)]
pub(super) struct Limits {
    start: Instant,
    reads: Mutex<Buckets<String>>,
    changes: Mutex<Buckets<String>>,
    members: Mutex<Buckets<String>>,
    logins: Mutex<Buckets<String>>,
    failed_logins: Mutex<Buckets<IpAddr>>,
    refusals_logged: Mutex<Buckets<IpAddr>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            reads: Mutex::new(Buckets::new(READS, MOST)),
            changes: Mutex::new(Buckets::new(CHANGES, MOST)),
            members: Mutex::new(Buckets::new(MEMBERS, MOST)),
            logins: Mutex::new(Buckets::new(LOGINS, MOST)),
            failed_logins: Mutex::new(Buckets::new(FAILED_LOGINS, MOST)),
            refusals_logged: Mutex::new(Buckets::new(REFUSALS_LOGGED, MOST)),
        }
    }
}

impl Limits {
    /// Counts a request.
    pub(super) fn admit(&self, identity: &Identity, changes: bool) -> Result<(), Duration> {
        // All local programs are one and the same here: one that asks often would starve the
        // others.
        if identity.kind == IdentityKind::Local {
            return Ok(());
        }
        let buckets = if changes { &self.changes } else { &self.reads };
        let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(identity.limited_as(), self.start.elapsed())
    }

    /// Counts a request of an address, where nobody says who they are. Programs of this machine are
    /// one and the same here, too.
    pub(super) fn admit_from(&self, address: IpAddr, changes: bool) -> Result<(), Duration> {
        let address = address.to_canonical();
        if address.is_loopback() {
            return Ok(());
        }
        let buckets = if changes { &self.changes } else { &self.reads };
        let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let who = format!("{}:{address}", IdentityKind::Compat.name());
        buckets.take(who, self.start.elapsed())
    }

    /// Counts what is said of a member, likewise.
    pub(super) fn admit_member_from(&self, address: IpAddr) -> Result<(), Duration> {
        let address = address.to_canonical();
        if address.is_loopback() {
            return Ok(());
        }
        let mut buckets = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(format!("{}:{address}", IdentityKind::Compat.name()), self.start.elapsed())
    }

    /// Counts what is said of a member.
    pub(super) fn admit_member(&self, identity: &Identity) -> Result<(), Duration> {
        if identity.kind == IdentityKind::Local {
            return Ok(());
        }
        let mut buckets = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(identity.limited_as(), self.start.elapsed())
    }

    /// Counts that somebody has logged in.
    pub(super) fn admit_login(&self, identity: &Identity) -> Result<(), Duration> {
        let mut buckets = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(identity.limited_as(), self.start.elapsed())
    }

    /// Counts a wrong token. Who has a good one is let in all the same: others at its address must
    /// not keep it out.
    pub(super) fn failed(&self, address: IpAddr) -> Result<(), Duration> {
        let mut buckets = self.failed_logins.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(network(address), self.start.elapsed())
    }

    /// Whether another refusal of this address is logged.
    pub(super) fn is_logged(&self, address: IpAddr) -> bool {
        let mut buckets = self.refusals_logged.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(network(address), self.start.elapsed()).is_ok()
    }
}

/// One who has an IPv6 address has a whole /64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            [a, b, c, d, 0, 0, 0, 0].into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_limit_and_local_programs_have_none() {
        let limits = Limits::default();
        for _ in 0..1000 {
            assert!(limits.admit(&Identity::local(), true).is_ok());
        }
        let file = Identity::file();
        let burst = (0..200).filter(|_| limits.admit(&file, true).is_ok()).count();
        assert!((20..40).contains(&burst), "{burst} at once");
        assert!(limits.admit(&file, false).is_ok(), "reads are counted apart");
    }

    #[test]
    fn five_wrong_tokens_a_minute_and_address() {
        let (limits, one): (_, IpAddr) = (Limits::default(), "2001:db8::1".parse().unwrap());
        let failed = (0..8).filter(|_| limits.failed(one).is_ok()).count();
        assert_eq!(failed, 5);
        assert!(limits.failed("2001:db8::2".parse().unwrap()).is_err(), "the same network");
        assert!(limits.failed("2001:db8:1::1".parse().unwrap()).is_ok());
        assert!(limits.failed("::ffff:10.0.0.1".parse().unwrap()).is_ok());
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), IpAddr::from([10, 0, 0, 1]));
    }
}
