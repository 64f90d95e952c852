//! When somebody is told that the worst item is another one: not of a flap of a second, and at last
//! also where it goes on flapping.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Attention, Kind, Severity};

/// How many times as long as one item has to last all of them together have to.
const FLAPPING: i32 = 4;

/// Which item it is, whatever its words are right now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub severity: Severity,
    pub kind: Kind,
    pub subject: String,
}

impl Attention {
    /// The worst item that somebody can be told of; none where all is fine.
    pub fn key(&self) -> Option<Key> {
        let item = self.worst_item()?;
        let (severity, kind, subject) = (item.severity, item.kind, item.subject.clone());
        Some(Key { severity, kind, subject })
    }
}

/// What was told last, and what is the worst since.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settling {
    told: Option<Key>,
    /// What is the worst now, since when, and since when it is another one than what was told.
    other: Option<Other>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Other {
    key: Option<Key>,
    since: Timestamp,
    began: Timestamp,
}

impl Settling {
    /// Goes on after this was told.
    pub fn new(told: Option<Key>) -> Self {
        Self { told, other: None }
    }

    /// What was told last; none where all was fine.
    pub fn told(&self) -> Option<&Key> {
        self.told.as_ref()
    }

    /// Takes what is the worst now. Whether it is to be told: it has lasted for `settle`, or four
    /// times as long no one item has and none of them was the one that was told.
    pub fn is_due(&mut self, key: Option<&Key>, settle: SignedDuration, now: Timestamp) -> bool {
        if key == self.told.as_ref() {
            self.other = None;
            return false;
        }
        let fresh = || Other { key: key.cloned(), since: now, began: now };
        let other = self.other.get_or_insert_with(fresh);
        // The clock may be set back.
        if other.key.as_ref() != key || now < other.since {
            *other = Other { began: other.began.min(now), ..fresh() };
        }
        let flapping = settle.checked_mul(FLAPPING).unwrap_or(SignedDuration::MAX);
        now.duration_since(other.since) >= settle || now.duration_since(other.began) >= flapping
    }

    /// It was told.
    pub fn tell(&mut self, key: Option<Key>) {
        (self.told, self.other) = (key, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: SignedDuration = SignedDuration::from_secs(10);

    fn key(subject: &str) -> Option<Key> {
        let (severity, kind) = (Severity::Act, Kind::InstanceUnreachable);
        Some(Key { severity, kind, subject: subject.to_owned() })
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn what_lasts_is_told_once_and_so_is_its_end() {
        let mut settling = Settling::default();
        let mut told = Vec::new();
        for second in 0..60 {
            let worst = if (5..40).contains(&second) { key("edge1") } else { None };
            if settling.is_due(worst.as_ref(), SETTLE, at(second)) {
                settling.tell(worst.clone());
                told.push((second, worst.is_some()));
            }
        }
        assert_eq!(told, [(15, true), (50, false)]);
    }

    #[test]
    fn a_flap_is_not_told_and_what_never_rests_is_told_at_last() {
        let mut settling = Settling::default();
        assert!(!settling.is_due(key("edge1").as_ref(), SETTLE, at(0)));
        assert!(!settling.is_due(None, SETTLE, at(1)));
        assert!(!settling.is_due(key("edge1").as_ref(), SETTLE, at(9)), "it begins anew");
        assert!(!settling.is_due(key("edge1").as_ref(), SETTLE, at(18)));
        let mut settling = Settling::default();
        let flaps = |second: i64| if second % 2 == 0 { key("edge1") } else { key("edge2") };
        let first =
            (0..100).find(|&second| settling.is_due(flaps(second).as_ref(), SETTLE, at(second)));
        assert_eq!(first, Some(40));
    }

    #[test]
    fn what_was_told_before_a_restart_is_not_told_again() {
        let mut settling = Settling::new(key("edge1"));
        assert!(!settling.is_due(key("edge1").as_ref(), SETTLE, at(100)));
        assert!(!settling.is_due(None, SETTLE, at(101)));
        assert!(settling.is_due(None, SETTLE, at(111)), "its end is news");
    }

    #[test]
    fn a_clock_that_is_set_back_delays_nothing_for_ever() {
        let mut settling = Settling::default();
        assert!(!settling.is_due(key("edge1").as_ref(), SETTLE, at(5000)));
        assert!(!settling.is_due(key("edge1").as_ref(), SETTLE, at(0)));
        assert!(settling.is_due(key("edge1").as_ref(), SETTLE, at(10)));
    }
}
