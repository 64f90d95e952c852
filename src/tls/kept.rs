//! One certificate that Mapsmith gets itself: what is known of it, and when it is due.

use std::time::Duration;

use jiff::{Timestamp, Unit};
use mapsmith_core::certificate::{IssuedCertificate, Renewal};
use metrics::counter;
use tokio::time::Instant;

use super::acme::Failure;
use super::issued::Wanted;
use super::record::{REFUSED, Record, after};
use super::renewal::{begins_at, is_for, spacing};
use crate::backoff::Backoff;
use crate::telemetry::CERTIFICATE_FAILURES;

/// After a failure of which the authority knows nothing: it can't be reached, or a name does not
/// lead here.
const UNREACHED: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(15 * 60));
/// Between two questions when the authority suggests to renew.
const SUGGESTIONS: [Duration; 2] = [Duration::from_secs(3600), Duration::from_secs(24 * 3600)];

/// A certificate, and what is known of it.
pub(super) struct Kept {
    pub wanted: Wanted,
    pub in_hand: Option<IssuedCertificate>,
    pub record: Record,
    /// An operator wants it now.
    pub is_ordered: bool,
    /// Tries that failed since the last that did not, or since the start.
    failures: u32,
    unreached: Backoff,
    refused: Backoff,
    /// Until then it is not renewed again: the clock, or what the authority suggests, may be wrong.
    spaced_until: Instant,
    /// When the authority suggests to renew it, and when it is asked again.
    suggested: Option<Timestamp>,
    ask_again: Instant,
}

impl Kept {
    pub fn new(wanted: Wanted, in_hand: Option<IssuedCertificate>, mut record: Record) -> Self {
        if record.unanswered > 1 {
            let error = lost(record.unanswered);
            tracing::warn!(certificate = wanted.name, "{error}");
            record.error = Some(error);
        } else if record.refusals == 0 {
            // The authority has nothing against another try.
            record.retry_at = None;
        }
        let mut refused = REFUSED;
        (0..record.refusals.min(16)).for_each(|_| _ = refused.pause());
        counter!(CERTIFICATE_FAILURES, "certificate" => wanted.name.clone()).increment(0);
        Self {
            wanted,
            in_hand,
            is_ordered: false,
            failures: record.refusals,
            record,
            unreached: UNREACHED,
            refused,
            spaced_until: Instant::now(),
            suggested: None,
            ask_again: Instant::now(),
        }
    }

    /// When there is something to do about it.
    pub fn due_at(&self) -> Timestamp {
        if self.is_ordered {
            return Timestamp::MIN;
        }
        let due = self.record.retry_at.unwrap_or_else(|| self.begins_at());
        due.max(self.record.rest_until.unwrap_or(Timestamp::MIN))
    }

    /// When it is renewed unless that has failed before.
    fn begins_at(&self) -> Timestamp {
        let due = match &self.in_hand {
            Some(issued) if !self.lacks(issued) => {
                let begins = begins_at(issued, &self.wanted.name);
                self.suggested.map_or(begins, |suggested| suggested.min(begins))
            }
            _ => Timestamp::MIN,
        };
        let spacing = self.spaced_until.saturating_duration_since(Instant::now());
        if spacing.is_zero() { due } else { due.max(after(spacing)) }
    }

    /// Whether it is not what is wanted, however new.
    fn lacks(&self, issued: &IssuedCertificate) -> bool {
        issued.self_signed && self.wanted.acme || !is_for(issued, &self.wanted.names)
    }

    /// Whether the authority that issued it is to be asked when it would have it renewed.
    pub fn asks_for_suggestion(&self) -> bool {
        let is_theirs = self.in_hand.as_ref().is_some_and(|issued| !issued.self_signed);
        self.wanted.acme && is_theirs && Instant::now() >= self.ask_again
    }

    /// What the authority says of that. Where it says nothing, what it said before stands.
    pub fn suggestion(&mut self, suggested: Option<(Timestamp, Duration)>) {
        let [shortest, longest] = SUGGESTIONS;
        let again = suggested.map_or(longest, |(_, again)| again.clamp(shortest, longest));
        self.ask_again = Instant::now() + again;
        self.suggested = suggested.map(|(at, _)| at).or(self.suggested);
    }

    pub fn renewed(&mut self, issued: IssuedCertificate) {
        tracing::info!(
            certificate = self.wanted.name,
            issuer = issued.issuer,
            expires_at = %issued.expires_at,
            "a new certificate was issued"
        );
        self.spaced_until = Instant::now() + spacing(&issued);
        self.in_hand = Some(issued);
        (self.record.refusals, self.record.retry_at, self.record.error) = (0, None, None);
        self.record.rest_until = None;
        self.failures = 0;
        (self.suggested, self.ask_again) = (None, Instant::now());
        self.unreached.reset();
        self.refused.reset();
    }

    /// `rest` is how long the authority has asked to be left alone with it.
    pub fn failed(&mut self, failure: &Failure, rest: Option<Duration>) {
        self.failures = self.failures.saturating_add(1);
        let pause = match failure.refused {
            true => {
                self.record.refusals += 1;
                self.refused.pause()
            }
            false => self.unreached.pause(),
        };
        self.record.rest_until = rest.map(after);
        let retry_at = after(pause.max(rest.unwrap_or_default()));
        let error = failure.to_string();
        if self.record.error.as_ref() != Some(&error) {
            tracing::warn!(
                certificate = self.wanted.name,
                error,
                %retry_at,
                "no new certificate; the one in force stays"
            );
        }
        (self.record.retry_at, self.record.error) = (Some(retry_at), Some(error));
        counter!(CERTIFICATE_FAILURES, "certificate" => self.wanted.name.clone()).increment(1);
    }

    /// How it stands, when it is due then.
    pub fn renewal(&self, due_at: Timestamp) -> Renewal {
        Renewal {
            names: self.wanted.names.clone(),
            next_at: Some(due_at)
                .filter(|at| *at > Timestamp::UNIX_EPOCH)
                .and_then(|at| at.round(Unit::Second).ok()),
            step: None,
            failures: self.failures,
            error: self.record.error.clone(),
        }
    }
}

/// What is told of orders whose answer is not known.
fn lost(orders: u32) -> String {
    format!(
        "Mapsmith has ended before the answers to {orders} orders in a row were written down, and \
            the authority may have counted each; the next one waits, or is placed by `mapsmith \
            certificates renew`"
    )
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::SignedDuration;

    use super::*;

    pub fn issued(days_ago: i64, days: i64) -> IssuedCertificate {
        let at = |day: i64| Timestamp::now() + SignedDuration::from_hours(24 * day);
        IssuedCertificate {
            names: vec!["a.test".to_owned()],
            issuer: "CN=CA".to_owned(),
            self_signed: false,
            issued_at: at(-days_ago),
            expires_at: at(days - days_ago),
        }
    }

    pub fn kept(in_hand: Option<IssuedCertificate>) -> Kept {
        Kept::new(Wanted::example("site", &["a.test"]), in_hand, Record::default())
    }

    /// Until it is due.
    pub fn wait(kept: &Kept) -> SignedDuration {
        kept.due_at().duration_since(Timestamp::now())
    }

    #[test]
    fn what_lacks_is_due_at_once_and_what_is_good_when_a_third_is_left() {
        let (old, new) = (kept(Some(issued(61, 90))), kept(Some(issued(1, 90))));
        assert!(wait(&kept(None)).is_negative() && wait(&old).is_negative());
        assert!(wait(&new) > SignedDuration::from_hours(24 * 50));
        let self_signed = IssuedCertificate { self_signed: true, ..issued(1, 90) };
        assert!(wait(&kept(Some(self_signed))).is_negative(), "an authority's is wanted");
        let other = IssuedCertificate { names: vec!["b.test".to_owned()], ..issued(1, 90) };
        assert!(wait(&kept(Some(other))).is_negative(), "it is of another name");
        let mut suggested = new;
        suggested.suggestion(Some((Timestamp::UNIX_EPOCH, Duration::ZERO)));
        assert!(wait(&suggested).is_negative(), "the authority wants it renewed");
    }

    #[test]
    fn the_authority_is_left_alone_after_a_refusal_and_as_long_as_it_asks() {
        let refusal = Failure::refused("no");
        let mut site = kept(None);
        let mut waits = Vec::new();
        for _ in 0..4 {
            site.failed(&refusal, None);
            waits.push(wait(&site).as_mins());
        }
        assert!(waits[0] >= 4 && waits[3] >= 39, "{waits:?}");
        assert_eq!((site.record.refusals, site.failures), (4, 4));
        site.failed(&refusal, Some(Duration::from_secs(7 * 24 * 3600)));
        assert!(wait(&site) > SignedDuration::from_hours(24 * 6));
        site.renewed(issued(0, 90));
        assert!(site.record.error.is_none() && site.record.refusals == 0);
        assert!(wait(&site) > SignedDuration::from_hours(24 * 50));
        // It does not know of this one.
        site.failed(&Failure::local("unreachable".to_owned()), None);
        assert!(wait(&site) <= SignedDuration::from_secs(5) && site.record.refusals == 0);
    }

    #[test]
    fn what_is_due_right_after_it_was_issued_is_not_ordered_over_and_over() {
        // The clock is two months ahead, or the authority takes others' certificates for its own.
        let self_signed = IssuedCertificate { self_signed: true, ..issued(0, 90) };
        for new in [issued(61, 90), self_signed] {
            let mut site = kept(None);
            site.renewed(new);
            assert!(wait(&site) > SignedDuration::from_hours(23), "{:?}", wait(&site));
            site.is_ordered = true;
            assert!(wait(&site).is_negative(), "an operator may want it all the same");
        }
        let mut site = kept(None);
        site.renewed(issued(0, 90));
        site.suggestion(Some((Timestamp::UNIX_EPOCH, Duration::ZERO)));
        assert!(wait(&site) > SignedDuration::from_hours(23), "{:?}", wait(&site));
    }

    #[test]
    fn an_authority_that_says_nothing_does_not_take_back_what_it_has_suggested() {
        let mut site = kept(Some(issued(1, 90)));
        site.suggestion(Some((Timestamp::UNIX_EPOCH, Duration::ZERO)));
        site.suggestion(None);
        assert!(wait(&site).is_negative());
        assert!(!site.asks_for_suggestion(), "it is asked again later");
    }

    #[test]
    fn what_the_authority_has_asked_for_is_kept_to_after_a_restart() {
        let mut site = kept(None);
        let week = Duration::from_secs(7 * 24 * 3600);
        site.failed(&Failure::local("answered 503".to_owned()), Some(week));
        let again = Kept::new(site.wanted.clone(), None, site.record.clone());
        assert!(wait(&again) > SignedDuration::from_hours(24 * 6), "{:?}", wait(&again));
    }
}
