//! What a request may ask for: its names and times are checked here, before anything acts on them.
//! Pure; the clock is an argument.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use mapsmith_core::access::grant::MOST_GRANTS;
use mapsmith_core::access::token::check_name;
use mapsmith_core::access::{Grant, Role};
use mapsmith_core::desired::hold::Rollback;
use mapsmith_core::events::UnknownKind;
use mapsmith_core::names::is_invisible;
use mapsmith_core::overrides::{LONGEST_REASON, ServerEdit};
use mapsmith_core::server::{MAX_NAME, MAX_WEIGHT, is_valid_name};
use mapsmith_core::stats::{Selector, Subscription};
use mapsmith_core::{BlockedNode, DrainedMaster, Note, OverrideChange, Pin, names};
use thiserror::Error as ThisError;

use super::events::Topics;
use super::types::{
    CreateTokenRequest, DrainRequest, OverrideRequest, RollbackRequest, ServerRequest,
    VerdictRequest,
};
use crate::store::token_service::NewToken;

/// The longest that a reload or an override may be waited for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// The longest time that an override or a registration may be given: beyond it nobody remembers
/// why.
const LONGEST_OVERRIDE: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// How long a rollback holds the sources back unless it says otherwise: no longer than somebody
/// remembers.
const USUAL_HOLD: Duration = Duration::from_secs(60 * 60);
/// The longest time that it may be given.
const LONGEST_HOLD: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The most that a page may have.
pub const LARGEST_PAGE: usize = 1000;
/// What a page has unless the request says otherwise.
const PAGE: usize = 100;

/// The longest time that a token may be given; without a time it is good until it is revoked.
const LONGEST_TOKEN: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// What is wrong with a request, and what would be right.
#[derive(Debug, PartialEq, Eq, ThisError)]
#[error("{0}")]
pub struct Invalid(pub(super) String);

/// How long the answer may be waited for, where the request says so.
pub fn wait(text: Option<&str>) -> Result<Option<Duration>, Invalid> {
    match text.map(humantime::parse_duration) {
        None => Ok(None),
        Some(Ok(wait)) if !wait.is_zero() && wait <= LONGEST_WAIT => Ok(Some(wait)),
        Some(_) => Err(Invalid("wait must be a duration up to 10m, like 30s".to_owned())),
    }
}

/// Which part of a long list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The key of the last row of the page before; none for the first page.
    pub after: Option<String>,
    /// The most rows of it.
    pub limit: usize,
}

/// The page that a request asks for; `after` is what [`cursor`] made.
pub fn page(limit: Option<usize>, after: Option<&str>) -> Result<Page, Invalid> {
    let limit = self::limit(limit)?;
    let key = |after: &str| {
        let key = URL_SAFE_NO_PAD.decode(after).ok();
        key.and_then(|key| String::from_utf8(key).ok()).ok_or_else(|| {
            Invalid("after must be what an answer before gave as its next".to_owned())
        })
    };
    Ok(Page { after: after.map(key).transpose()?, limit })
}

/// The kinds of events that are asked for.
pub fn topics(text: &str) -> Result<Topics, Invalid> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names
        .map(|name| name.parse().map_err(|error: UnknownKind| Invalid(error.to_string())))
        .collect()
}

/// The number of an event, in the parameter of this name.
pub fn event_number(name: &str, number: Option<u64>) -> Result<Option<u64>, Invalid> {
    match number {
        Some(number) if i64::try_from(number).is_err() => {
            Err(Invalid(format!("{name}: {number} is not the number of an event")))
        }
        number => Ok(number),
    }
}

/// The series that are asked for.
pub fn series(text: &str) -> Result<Vec<Selector>, Invalid> {
    let names = text.split(',').filter(|name| !name.is_empty());
    let subscription = Subscription::new(names, None, None);
    subscription.map(|it| it.series).map_err(|error| Invalid(error.to_string()))
}

/// How many rows a page has at most.
pub fn limit(limit: Option<usize>) -> Result<usize, Invalid> {
    match limit.unwrap_or(PAGE) {
        limit @ 1..=LARGEST_PAGE => Ok(limit),
        _ => Err(Invalid(format!("limit must be 1 to {LARGEST_PAGE}"))),
    }
}

/// What leads from a page that ends with this key to the next one.
pub fn cursor(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(key)
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

/// Why and by whom an order is given.
pub(super) fn note(reason: Option<String>, by: Option<String>) -> Result<Note, Invalid> {
    let fits = |reason: &String| {
        let length = reason.chars().count();
        !reason.trim().is_empty() && length <= LONGEST_REASON && !reason.chars().any(is_invisible)
    };
    match &reason {
        Some(reason) if !fits(reason) => {
            Err(Invalid(format!("reason must be one line of 1 to {LONGEST_REASON} characters")))
        }
        _ => Ok(Note { reason, by }),
    }
}

/// Why something is asked for.
pub fn reason(reason: Option<String>) -> Result<Option<String>, Invalid> {
    note(reason, None).map(|note| note.reason)
}

/// When an order ends that is given for so long.
pub(super) fn end(duration: &str, now: Timestamp) -> Result<Timestamp, Invalid> {
    let length = humantime::parse_duration(duration).ok();
    length
        .filter(|length| !length.is_zero() && *length <= LONGEST_OVERRIDE)
        .and_then(|length| now.checked_add(SignedDuration::try_from(length).ok()?).ok())
        .ok_or_else(|| {
            Invalid(format!("{duration:?} is not a duration like 30m or 2h, a year at most"))
        })
}

/// A name that a `what` of HAProxy's can have.
pub fn haproxy_name(what: &str, name: String) -> Result<String, Invalid> {
    match is_valid_name(&name) {
        true => Ok(name),
        false => Err(Invalid(format!(
            "{:?} is not the name of a {what}: 1 to 255 letters, digits and . _ : -",
            name.chars().take(MAX_NAME).collect::<String>()
        ))),
    }
}

/// What changes of a server's override, why and by whom.
pub fn server(
    request: ServerRequest,
    by: Option<String>,
    now: Timestamp,
) -> Result<(ServerEdit, Note), Invalid> {
    let ServerRequest { state, weight, duration, reason } = request;
    if weight.flatten().is_some_and(|weight| weight > MAX_WEIGHT) {
        return Err(Invalid(format!("weight must be 0 to {MAX_WEIGHT}, or null")));
    }
    let until = match duration {
        Some(Some(duration)) => Some(Some(end(&duration, now)?)),
        Some(None) => Some(None),
        None => None,
    };
    if state.is_none() && weight.is_none() && until.is_none() {
        return Err(Invalid("name a state, a weight, or for how long".to_owned()));
    }
    Ok((ServerEdit { state, weight, until }, note(reason, by)?))
}

/// The override of a valid node that begins now.
pub fn node_override(
    node: String,
    request: OverrideRequest,
    by: Option<String>,
    now: Timestamp,
) -> Result<OverrideChange, Invalid> {
    let until = request.duration.map(|length| end(&length, now)).transpose()?;
    let note = note(request.reason, by)?;
    match (request.master.map(master).transpose()?, request.absent) {
        (Some(master), false) => {
            Ok(OverrideChange::Pin(Pin { node, master, since: now, until, note }))
        }
        (None, true) => Ok(OverrideChange::Block(BlockedNode { node, since: now, until, note })),
        _ => Err(Invalid(
            "name the node's master, or say \"absent\": true for no entry in the map".to_owned(),
        )),
    }
}

/// The rollback to a revision that begins now.
pub fn rollback(
    of: u64,
    request: RollbackRequest,
    by: Option<String>,
    now: Timestamp,
) -> Result<Rollback, Invalid> {
    let RollbackRequest { reason, duration, replace, .. } = request;
    let end = |length: Duration| now.checked_add(SignedDuration::try_from(length).ok()?).ok();
    let until = match duration {
        None => end(USUAL_HOLD),
        Some(None) => None,
        Some(Some(duration)) => {
            let length = humantime::parse_duration(&duration).ok();
            let length = length.filter(|length| !length.is_zero() && *length <= LONGEST_HOLD);
            let help = || {
                Invalid(format!(
                    "{duration:?} is not a duration like 30m or 2h, a week at most; null is until \
                        somebody resumes"
                ))
            };
            Some(length.and_then(end).ok_or_else(help)?)
        }
    };
    Ok(Rollback { of, until, note: note(reason, by)?, replace })
}

/// Why and by whom a held change is approved or rejected.
pub fn verdict(request: VerdictRequest, by: Option<String>) -> Result<Note, Invalid> {
    note(request.reason, by)
}

/// The drain of a valid master that begins now.
pub fn drain(
    from: String,
    request: DrainRequest,
    by: Option<String>,
    now: Timestamp,
) -> Result<OverrideChange, Invalid> {
    let to = request.to.map(master).transpose()?;
    if to.as_ref() == Some(&from) {
        return Err(Invalid(format!("{from} can't be drained to itself; name another master")));
    }
    let note = note(request.reason, by)?;
    Ok(OverrideChange::Drain(DrainedMaster { master: from, to, since: now, note }))
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
    grants.iter().try_for_each(Grant::check).map_err(|error| Invalid(error.to_string()))?;
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

/// Where a page of the audit begins: the `next` of the one before.
pub fn after(text: Option<&str>) -> Result<Option<i64>, Invalid> {
    let number = |text: &str| {
        text.parse().map_err(|_| Invalid(format!("after: {text:?} is not the next of a page")))
    };
    text.map(number).transpose()
}

#[cfg(test)]
mod tests {
    use mapsmith_core::overrides::OrderedState;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn pinned(master: &str, duration: Option<&str>) -> Result<OverrideChange, Invalid> {
        let duration = duration.map(str::to_owned);
        let master = Some(master.to_owned());
        let request = OverrideRequest { master, duration, ..OverrideRequest::default() };
        node_override("n1".to_owned(), request, None, NOW)
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
    fn a_page_goes_on_behind_the_last_key_of_the_one_before() {
        let after = cursor("web10.example.test");
        assert_eq!(after, "d2ViMTAuZXhhbXBsZS50ZXN0");
        let expected = Page { after: Some("web10.example.test".to_owned()), limit: 7 };
        assert_eq!(page(Some(7), Some(&after)), Ok(expected));
        assert_eq!(page(None, None), Ok(Page { after: None, limit: PAGE }));
        for limit in [0, LARGEST_PAGE + 1] {
            let error = page(Some(limit), None).unwrap_err().to_string();
            assert_eq!(error, "limit must be 1 to 1000");
        }
        for wrong in ["web10", "_w", "d2Vi="] {
            assert!(page(None, Some(wrong)).is_err(), "{wrong}");
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
    fn a_node_has_a_master_or_none_and_a_reason_is_one_short_line() {
        let order = |request: OverrideRequest| {
            node_override("n1".to_owned(), request, Some("anna".to_owned()), NOW)
        };
        let absent = OverrideRequest { absent: true, ..OverrideRequest::default() };
        let reason = |reason: &str| Some(reason.to_owned());
        match order(OverrideRequest { reason: reason("stolen"), ..absent.clone() }) {
            Ok(OverrideChange::Block(blocked)) => {
                let note = Note { reason: reason("stolen"), by: Some("anna".to_owned()) };
                assert_eq!(
                    (blocked.node.as_str(), blocked.until, blocked.note),
                    ("n1", None, note)
                );
            }
            other => panic!("{other:?}"),
        }
        let both = OverrideRequest { master: Some("m1".to_owned()), ..absent.clone() };
        for wrong in [both, OverrideRequest::default()] {
            assert!(order(wrong).unwrap_err().to_string().contains("\"absent\": true"));
        }
        let longest = "é".repeat(LONGEST_REASON);
        assert!(order(OverrideRequest { reason: reason(&longest), ..absent.clone() }).is_ok());
        for wrong in [format!("{longest}!"), " ".to_owned(), "two\nlines".to_owned()] {
            let request = OverrideRequest { reason: Some(wrong), ..absent.clone() };
            let error = order(request).unwrap_err().to_string();
            assert_eq!(error, "reason must be one line of 1 to 500 characters");
        }
    }

    #[test]
    fn of_a_server_what_is_not_named_stays_and_null_takes_away() {
        let edit = |text: &str| {
            let request: ServerRequest = serde_json::from_str(text).unwrap();
            server(request, None, NOW).map(|(edit, _)| edit)
        };
        let maint = Some(Some(OrderedState::Maint));
        let until = Some(Timestamp::from_second(7200).ok());
        let nothing = ServerEdit::default();
        for (text, expected) in [
            (r#"{"state": "maint"}"#, ServerEdit { state: maint, ..nothing }),
            (r#"{"weight": null}"#, ServerEdit { weight: Some(None), ..nothing }),
            (
                r#"{"weight": 256, "for": "2h"}"#,
                ServerEdit { weight: Some(Some(256)), until, ..nothing },
            ),
            (r#"{"for": null}"#, ServerEdit { until: Some(None), ..nothing }),
        ] {
            assert_eq!(edit(text), Ok(expected), "{text}");
        }
        for (text, part) in [
            ("{}", "name a state"),
            (r#"{"reason": "x"}"#, "name a state"),
            (r#"{"weight": 257}"#, "weight must be 0 to 256"),
            (r#"{"state": "maint", "for": "0s"}"#, "is not a duration"),
        ] {
            let error = edit(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        for wrong in ["", "a b", "a;b", "a/b", "a\nshow info"] {
            assert!(haproxy_name("server", wrong.to_owned()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn no_name_that_haproxy_would_misread_is_taken() {
        for wrong in ["", "a b", "#a", "a<<"] {
            assert!(node(wrong.to_owned()).is_err(), "{wrong:?}");
            let error = pinned(wrong, None).unwrap_err().to_string();
            assert!(error.contains("is not a valid master name"), "{error}");
            let to = DrainRequest { to: Some(wrong.to_owned()), reason: None };
            assert!(drain("m1".to_owned(), to, None, NOW).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_master_is_not_drained_to_itself() {
        let to = |name: &str| DrainRequest { to: Some(name.to_owned()), reason: None };
        assert!(drain("m1".to_owned(), to("m2"), None, NOW).is_ok());
        let error = drain("m1".to_owned(), to("m1"), None, NOW).unwrap_err();
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
        for good in ["register:web", "register:web/", "register:web/1.0/10.0.0.3/8080"] {
            assert!(request("ci", Role::None, &[good], None).is_ok(), "{good}");
        }
        for (wrong, part) in [
            (request("a b", Role::Viewer, &[], None), "is not a token's name"),
            (request("ci", Role::None, &[], None), "it may do nothing"),
            (request("compat.x", Role::Viewer, &[], None), "take another name"),
            (request("ci", Role::None, &["register:../x"], None), "covers no member: name"),
            (request("ci", Role::None, &["register:a//b"], None), "covers no member: version"),
            (request("ci", Role::None, &["register:a/1/h/80/x"], None), "NAME/VERSION/HOST"),
            (request("ci", Role::Viewer, &[], Some("11y")), "ten years at most"),
            (request("ci", Role::Viewer, &[], Some("0s")), "ten years at most"),
        ] {
            let error = wrong.unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_page_has_a_bound_and_a_beginning() {
        assert_eq!((limit(None), limit(Some(1000))), (Ok(100), Ok(1000)));
        for wrong in [0, 1001] {
            assert!(limit(Some(wrong)).is_err(), "{wrong}");
        }
        assert_eq!((after(None), after(Some("17"))), (Ok(None), Ok(Some(17))));
        assert!(after(Some("x")).is_err());
        assert!(since(Some("2026-11-26T14:00:00Z")).unwrap().is_some());
        assert!(since(Some("yesterday")).unwrap_err().to_string().contains("2026-11-26"));
    }
}
