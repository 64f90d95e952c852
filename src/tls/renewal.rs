//! When a certificate is renewed. Pure.

use jiff::{SignedDuration, Timestamp};
use mapsmith_core::certificate::IssuedCertificate;
use mapsmith_core::render::stamp::hash;

/// The part of its lifetime that a certificate has left when it is renewed.
const LEFT: i64 = 3;
/// The part of its lifetime over which renewals are spread, before that.
const SPREAD: i64 = 30;

/// When the renewal begins: while a third of the lifetime is left, and up to a thirtieth of the
/// lifetime earlier, by the certificate's name, so that many of one age are not all renewed at
/// once. A certificate of 90 days is renewed after 57 to 60 days, one of six days in its fourth.
pub fn begins_at(issued: &IssuedCertificate, name: &str) -> Timestamp {
    let lifetime = issued.expires_at.duration_since(issued.issued_at).max(SignedDuration::ZERO);
    let jitter = part((lifetime / i32_of(SPREAD)).as_secs(), name);
    let before = lifetime / i32_of(LEFT) + SignedDuration::from_secs(jitter);
    issued.expires_at.checked_sub(before).unwrap_or(Timestamp::MIN)
}

/// A time within a window that the authority suggests, likewise by the name.
pub fn within(start: Timestamp, end: Timestamp, name: &str) -> Timestamp {
    let window = end.duration_since(start).as_secs();
    start.saturating_add(SignedDuration::from_secs(part(window, name))).unwrap_or(start)
}

/// A number of seconds below `most`, always the same for a name.
fn part(most: i64, name: &str) -> i64 {
    let most = most.max(1).unsigned_abs();
    (hash(name.as_bytes()) % most) as i64
}

/// The constants are small.
fn i32_of(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Whether it is for all of these names.
pub fn is_for(issued: &IssuedCertificate, names: &[String]) -> bool {
    names.iter().all(|name| issued.names.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 60 * 60;

    fn issued(days: i64) -> IssuedCertificate {
        let at = |day: i64| Timestamp::from_second(day * DAY).unwrap();
        IssuedCertificate {
            names: vec!["a.test".to_owned(), "b.test".to_owned()],
            issuer: "CN=CA".to_owned(),
            self_signed: false,
            issued_at: at(0),
            expires_at: at(days),
        }
    }

    #[test]
    fn a_third_of_the_lifetime_is_left_whatever_it_is() {
        for days in [1, 6, 47, 90, 398] {
            for name in ["site", "mail", "x"] {
                let begins = begins_at(&issued(days), name).as_second();
                let (latest, earliest) = (days * DAY * 2 / 3, days * DAY * 2 / 3 - days * DAY / 30);
                assert!(begins <= latest, "{days} days, {name}: at {begins}, not by {latest}");
                assert!(begins >= earliest, "{days} days, {name}: {begins} is before {earliest}");
            }
        }
    }

    #[test]
    fn certificates_of_one_age_are_not_renewed_at_once_and_each_always_at_the_same_time() {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let times: std::collections::BTreeSet<_> =
            names.iter().map(|name| begins_at(&issued(90), name)).collect();
        assert_eq!(times.len(), names.len());
        assert_eq!(begins_at(&issued(90), "a"), begins_at(&issued(90), "a"));
    }

    #[test]
    fn a_suggested_window_is_kept_to_even_if_it_is_empty() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for name in ["a", "b", "c"] {
            let chosen = within(at(1000), at(2000), name);
            assert!(chosen >= at(1000) && chosen < at(2000), "{chosen}");
            assert_eq!(within(at(1000), at(1000), name), at(1000));
            assert_eq!(within(at(1000), at(10), name), at(1000));
        }
    }

    #[test]
    fn a_certificate_of_more_names_is_for_fewer_and_not_the_other_way_round() {
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(is_for(&issued(90), &names(&["b.test"])));
        assert!(!is_for(&issued(90), &names(&["a.test", "c.test"])));
    }
}
