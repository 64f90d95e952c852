//! What a request may ask for: its names and times are checked here, before anything acts on them.
//! Pure; the clock is an argument.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mapsmith_core::access::Role;
use mapsmith_core::access::grant::MOST_GRANTS;
use mapsmith_core::access::token::check_name;
use mapsmith_core::{DrainedMaster, OverrideChange, Pin, names};
use thiserror::Error as ThisError;

use super::types::{CreateTokenRequest, DrainRequest, PinRequest};
use crate::store::token_service::NewToken;

/// The longest that a reload or an override may be waited for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// The longest time that a pin may be given: beyond it nobody remembers why.
const LONGEST_PIN: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The longest time that a token may be given; without a time it is good until it is revoked.
const LONGEST_TOKEN: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);
/// The rows of a page where nobody says how many, and the most of them.
const USUAL_PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// What is wrong with a request, and what would be right.
#[derive(Debug, PartialEq, Eq, ThisError)]
#[error("{0}")]
pub struct Invalid(String);

/// How long the answer may be waited for, where the request says so.
pub fn wait(text: Option<&str>) -> Result<Option<Duration>, Invalid> {
    match text.map(humantime::parse_duration) {
        None => Ok(None),
        Some(Ok(wait)) if !wait.is_zero() && wait <= LONGEST_WAIT => Ok(Some(wait)),
        Some(_) => Err(Invalid("wait must be a duration up to 10m, like 30s".to_owned())),
    }
}

pub fn node(name: String) -> Result<String, Invalid> {
    match names::check_key(&name) {
        Ok(()) => Ok(name),
        Err(reason) => Err(Invalid(format!("{name:?} is not a valid node name: {reason}"))),
    }
}

pub fn master(name: String) -> Result<String, Invalid> {
    match names::check_value(&name) {
        Ok(()) => Ok(name),
        Err(reason) => Err(Invalid(format!("{name:?} is not a valid master name: {reason}"))),
    }
}

/// The pin of a valid node that begins now.
pub fn pin(node: String, request: PinRequest, now: Timestamp) -> Result<OverrideChange, Invalid> {
    let master = master(request.master)?;
    let end = |duration: String| {
        let length = humantime::parse_duration(&duration).ok();
        length
            .filter(|length| !length.is_zero() && *length <= LONGEST_PIN)
            .and_then(|length| now.checked_add(SignedDuration::try_from(length).ok()?).ok())
            .ok_or_else(|| {
                Invalid(format!("{duration:?} is not a duration like 30m or 2h, a year at most"))
            })
    };
    let until = request.duration.map(end).transpose()?;
    Ok(OverrideChange::Pin(Pin { node, master, since: now, until }))
}

/// The drain of a valid master that begins now.
pub fn drain(
    from: String,
    request: DrainRequest,
    now: Timestamp,
) -> Result<OverrideChange, Invalid> {
    let to = request.to.map(master).transpose()?;
    if to.as_ref() == Some(&from) {
        return Err(Invalid(format!("{from} can't be drained to itself; name another master")));
    }
    Ok(OverrideChange::Drain(DrainedMaster { master: from, to, since: now }))
}

/// The token that somebody makes now.
pub fn token(
    request: CreateTokenRequest,
    created_by: String,
    now: Timestamp,
) -> Result<NewToken, Invalid> {
    let CreateTokenRequest { name, role, mut grants, duration } = request;
    check_name(&name).map_err(Invalid)?;
    grants.sort();
    grants.dedup();
    if grants.len() > MOST_GRANTS {
        return Err(Invalid(format!("a token has at most {MOST_GRANTS} grants")));
    }
    if role == Role::None && grants.is_empty() {
        return Err(Invalid("with the role none and without grants it may do nothing".to_owned()));
    }
    let end = |duration: String| {
        let length = humantime::parse_duration(&duration).ok();
        length
            .filter(|length| !length.is_zero() && *length <= LONGEST_TOKEN)
            .and_then(|length| now.checked_add(SignedDuration::try_from(length).ok()?).ok())
            .ok_or_else(|| {
                Invalid(format!(
                    "{duration:?} is not a duration like 90d or 12h, ten years at most"
                ))
            })
    };
    let expires_at = duration.map(end).transpose()?;
    Ok(NewToken { name, role, grants, expires_at, created_by })
}

/// A time, as RFC 3339 has it.
pub fn since(text: Option<&str>) -> Result<Option<Timestamp>, Invalid> {
    let time = |text: &str| {
        text.parse().map_err(|_| {
            Invalid(format!("since: {text:?} is not a time like 2026-11-26T14:00:00Z"))
        })
    };
    text.map(time).transpose()
}

/// Where a page begins: the `next` of the one before.
pub fn after(text: Option<&str>) -> Result<Option<i64>, Invalid> {
    let number = |text: &str| {
        text.parse().map_err(|_| Invalid(format!("after: {text:?} is not the next of a page")))
    };
    text.map(number).transpose()
}

/// How many rows a page has.
pub fn limit(text: Option<&str>) -> Result<usize, Invalid> {
    let Some(text) = text else { return Ok(USUAL_PAGE) };
    match text.parse() {
        Ok(limit) if (1..=LARGEST_PAGE).contains(&limit) => Ok(limit),
        _ => Err(Invalid(format!("limit: {text:?} is not a number from 1 to {LARGEST_PAGE}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn pinned(master: &str, duration: Option<&str>) -> Result<OverrideChange, Invalid> {
        let duration = duration.map(str::to_owned);
        pin("n1".to_owned(), PinRequest { master: master.to_owned(), duration }, NOW)
    }

    #[test]
    fn a_wait_is_at_most_ten_minutes_and_not_nothing() {
        assert_eq!(wait(None), Ok(None));
        assert_eq!(wait(Some("10m")), Ok(Some(LONGEST_WAIT)));
        for wrong in ["0s", "11m", "", "soon", "-1s"] {
            assert!(wait(Some(wrong)).unwrap_err().to_string().contains("up to 10m"), "{wrong}");
        }
    }

    #[test]
    fn a_pin_lasts_a_year_at_most() {
        let until = |duration| match pinned("m1", duration) {
            Ok(OverrideChange::Pin(pin)) => pin.until.map(|until| until.as_second()),
            other => panic!("{other:?}"),
        };
        assert_eq!(until(None), None);
        assert_eq!(until(Some("2h")), Some(7200));
        assert_eq!(until(Some("366days")), Some(366 * 86400));
        for wrong in ["367days", "0s", "", "2"] {
            let error = pinned("m1", Some(wrong)).unwrap_err().to_string();
            assert!(error.contains("a year at most"), "{wrong}: {error}");
        }
    }

    #[test]
    fn no_name_that_haproxy_would_misread_is_taken() {
        for wrong in ["", "a b", "#a", "a<<"] {
            assert!(node(wrong.to_owned()).is_err(), "{wrong:?}");
            let error = pinned(wrong, None).unwrap_err().to_string();
            assert!(error.contains("is not a valid master name"), "{error}");
            let to = DrainRequest { to: Some(wrong.to_owned()) };
            assert!(drain("m1".to_owned(), to, NOW).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_master_is_not_drained_to_itself() {
        let to = |name: &str| DrainRequest { to: Some(name.to_owned()) };
        assert!(drain("m1".to_owned(), to("m2"), NOW).is_ok());
        let error = drain("m1".to_owned(), to("m1"), NOW).unwrap_err();
        assert_eq!(error.to_string(), "m1 can't be drained to itself; name another master");
    }

    #[test]
    fn a_token_has_a_name_something_that_it_may_do_and_an_end_within_ten_years() {
        let request = |name: &str, role, grants: &[&str], duration: Option<&str>| {
            let grants = grants.iter().map(|grant| grant.parse().unwrap()).collect();
            let (name, duration) = (name.to_owned(), duration.map(str::to_owned));
            token(CreateTokenRequest { name, role, grants, duration }, "file".to_owned(), NOW)
        };
        let made = request("ci", Role::Operator, &["commands", "commands"], Some("90d")).unwrap();
        assert_eq!(made.expires_at.map(|at| at.as_second()), Some(90 * 86400));
        assert_eq!(made.grants.len(), 1, "the same twice is one");
        assert!(request("ci", Role::None, &["register:web"], None).is_ok());
        for (wrong, part) in [
            (request("a b", Role::Viewer, &[], None), "is not a token's name"),
            (request("ci", Role::None, &[], None), "it may do nothing"),
            (request("ci", Role::Viewer, &[], Some("11y")), "ten years at most"),
            (request("ci", Role::Viewer, &[], Some("0s")), "ten years at most"),
        ] {
            let error = wrong.unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_page_has_a_bound_and_a_beginning() {
        assert_eq!((limit(None), limit(Some("1000"))), (Ok(100), Ok(1000)));
        for wrong in ["0", "1001", "-1", "", "many"] {
            assert!(limit(Some(wrong)).is_err(), "{wrong}");
        }
        assert_eq!((after(None), after(Some("17"))), (Ok(None), Ok(Some(17))));
        assert!(after(Some("x")).is_err());
        assert!(since(Some("2026-11-26T14:00:00Z")).unwrap().is_some());
        assert!(since(Some("yesterday")).unwrap_err().to_string().contains("2026-11-26"));
    }
}
