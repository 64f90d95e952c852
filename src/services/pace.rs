//! When changed services, or what else is declared beside the settings, come into force. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// A registry that writes several services writes them within this: they come into force together.
const SETTLES: Duration = Duration::from_millis(100);
/// The longest that a change waits for others.
const MOST_SETTLING: Duration = Duration::from_secs(1);
/// The least time between two changes, each of which begins everything anew.
pub(crate) const SPACING: Duration = Duration::from_secs(1);

/// A change that is not in force yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    /// When services differed first from those in force.
    first: Instant,
    /// When they changed last.
    last: Instant,
}

impl Pending {
    /// The services have changed, perhaps again.
    pub(crate) fn changed(known: Option<Self>, now: Instant) -> Self {
        Self { first: known.map_or(now, |known| known.first), last: now }
    }

    /// When it comes into force, if it may not before that moment.
    pub(crate) fn due(self, not_before: Option<Instant>) -> Instant {
        let settled = (self.last + SETTLES).min(self.first + MOST_SETTLING);
        not_before.map_or(settled, |earliest| settled.max(earliest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_waits_for_others_and_not_for_long() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let alone = Pending::changed(None, start);
        assert_eq!(alone.due(None), at(100));
        let mut steady = alone;
        for step in 1..100 {
            steady = Pending::changed(Some(steady), at(step * 50));
        }
        assert_eq!(steady.due(None), at(1000), "changes that never end come into force");
        assert_eq!(alone.due(Some(at(50))), at(100));
        assert_eq!(alone.due(Some(at(1000))), at(1000), "one after the other");
    }
}
