//! The task that keeps certificates: which is due, what came of it, when to try again.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mapsmith_core::certificate::{IssuedCertificate, Renewal};
use metrics::{counter, gauge};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::acme::{Authority, Failure, Progress};
use super::issued::{Wanted, off_thread};
use super::record::{Record, Records};
use super::renewal::{begins_at, is_for};
use crate::backoff::Backoff;
use crate::heartbeat;
use crate::settings::Settings;
use crate::telemetry::{CERTIFICATE_FAILED, CERTIFICATE_FAILURES, CERTIFICATE_RENEWAL};

/// After a failure of which the authority knows nothing: it can't be reached, or a name does not
/// lead here.
const UNREACHED: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(15 * 60));
/// After a refusal: fewer tries than authorities bear (Let's Encrypt: five failures an hour).
const REFUSED: Backoff = Backoff::new(Duration::from_secs(10 * 60), Duration::from_secs(12 * 3600));
/// The longest sleep: a clock that is set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Between two questions when the authority suggests to renew.
const SUGGESTIONS: [Duration; 2] = [Duration::from_secs(3600), Duration::from_secs(24 * 3600)];

/// How each renewal stands, by the certificate's name.
pub type Renewals = BTreeMap<String, Renewal>;

/// An operator has a certificate renewed now.
#[derive(Debug)]
pub struct Renew {
    pub name: String,
    pub answer: oneshot::Sender<Result<(), RenewError>>,
}

/// Why nothing is begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    #[error("there is no certificate {0} that Mapsmith gets itself")]
    Unknown(String),
    #[error("{0} is being renewed already; a second order would be one too many")]
    InProgress(String),
    #[error("the authority asks to be left alone until {0:.0}, because of its rate limits")]
    AskedToWait(Timestamp),
}

/// A certificate, and what is known of it.
struct Kept {
    wanted: Wanted,
    in_hand: Option<IssuedCertificate>,
    record: Record,
    /// Tries that failed since the last that did not, or since the start.
    failures: u32,
    unreached: Backoff,
    refused: Backoff,
    /// Until when the authority has asked to be left alone.
    rest_until: Option<Timestamp>,
    /// An operator wants it now.
    is_ordered: bool,
    /// When the authority suggests to renew it, and when it is asked again.
    suggested: Option<Timestamp>,
    ask_again: Instant,
}

/// Keeps the certificates that Mapsmith gets itself.
pub struct Keeper {
    kept: Vec<Kept>,
    authority: Option<Authority>,
    records: Records,
    orders: mpsc::Receiver<Renew>,
    state: watch::Sender<Renewals>,
}

/// Tells what is being done about one certificate.
struct Steps<'a> {
    name: &'a str,
    state: &'a watch::Sender<Renewals>,
}

impl Progress for Steps<'_> {
    fn step(&self, text: &str) {
        tracing::debug!(certificate = self.name, "{text}");
        self.state.send_modify(|renewals| {
            renewals.entry(self.name.to_owned()).or_default().step = Some(text.to_owned());
        });
    }
}

impl Keeper {
    /// Reads what was issued and ordered before; none where Mapsmith gets no certificate itself.
    /// Blocks.
    pub fn new(
        settings: &Settings,
        authority: Option<Authority>,
        orders: mpsc::Receiver<Renew>,
    ) -> Option<(Self, watch::Receiver<Renewals>)> {
        let records = Records::new(&settings.acme_folder());
        let now = Timestamp::now();
        let kept = settings.certificates.iter().filter_map(Wanted::of).map(|wanted| {
            let mut record = records.read(&wanted.name, &wanted.names);
            if record.refusals == 0 {
                // The authority has nothing against another try.
                record.retry_at = None;
            }
            let mut refused = REFUSED;
            (0..record.refusals.min(16)).for_each(|_| _ = refused.pause());
            counter!(CERTIFICATE_FAILURES, "certificate" => wanted.name.clone()).increment(0);
            Kept {
                in_hand: wanted.in_hand(now),
                wanted,
                failures: record.refusals,
                record,
                unreached: UNREACHED,
                refused,
                rest_until: None,
                is_ordered: false,
                suggested: None,
                ask_again: Instant::now(),
            }
        });
        let kept: Vec<_> = kept.collect();
        if kept.is_empty() {
            return None;
        }
        let (state, renewals) = watch::channel(Renewals::new());
        let keeper = Self { kept, authority, records, orders, state };
        keeper.publish();
        Some((keeper, renewals))
    }

    /// Renews each certificate when it is due, until shutdown. An order in progress is left then,
    /// and gone on with after the next start.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            if shutdown.run_until_cancelled(self.take_suggestions()).await.is_none() {
                return;
            }
            self.publish();
            let now = Timestamp::now();
            let due = (0..self.kept.len()).min_by_key(|index| self.kept[*index].due_at());
            let Some(index) = due else { return };
            let due_at = self.kept[index].due_at();
            if due_at <= now {
                if !self.renew(index, &shutdown).await {
                    return;
                }
                continue;
            }
            let wait = Duration::try_from(due_at.duration_since(now)).unwrap_or_default();
            let order = heartbeat::waiting(async {
                tokio::select! {
                    () = shutdown.cancelled() => None,
                    order = self.orders.recv() => order,
                    () = sleep(wait.min(LONGEST_SLEEP)) => None,
                }
            });
            if let Some(order) = order.await {
                self.take(order, None);
            }
        }
    }

    /// Renews one, and answers operators meanwhile. False where the shutdown came first.
    async fn renew(&mut self, index: usize, shutdown: &CancellationToken) -> bool {
        let wanted = self.kept[index].wanted.clone();
        let mut record = self.kept[index].record.clone();
        self.kept[index].is_ordered = false;
        // Not a part of `self`, which takes operators' orders meanwhile.
        let (authority, state) = (self.authority.take(), self.state.clone());
        let steps = Steps { name: &wanted.name, state: &state };
        let outcome = {
            let mut work =
                std::pin::pin!(attempt(authority.as_ref(), &wanted, &mut record, &steps));
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => break None,
                    outcome = &mut work => break Some(outcome),
                    Some(order) = self.orders.recv() => self.take(order, Some(&wanted.name)),
                    () = heartbeat::tick() => {}
                }
            }
        };
        self.authority = authority;
        let Some(outcome) = outcome else { return false };
        self.kept[index].record = record;
        match outcome {
            Ok(issued) => self.kept[index].renewed(issued),
            Err((failure, rest)) => self.kept[index].failed(&failure, rest),
        }
        if wanted.acme
            && let Err(error) = self.records.write(&wanted.name, &self.kept[index].record).await
        {
            tracing::warn!(certificate = wanted.name, "what was ordered can't be kept: {error}");
        }
        true
    }

    /// Takes an operator's order; `running` is the certificate that is being renewed.
    fn take(&mut self, Renew { name, answer }: Renew, running: Option<&str>) {
        let kept = self.kept.iter_mut().find(|kept| kept.wanted.name == name);
        let outcome = match kept {
            None => Err(RenewError::Unknown(name)),
            Some(_) if running == Some(&*name) => Err(RenewError::InProgress(name)),
            Some(kept) => match kept.rest_until.filter(|until| *until > Timestamp::now()) {
                Some(until) => Err(RenewError::AskedToWait(until)),
                None => {
                    kept.is_ordered = true;
                    Ok(())
                }
            },
        };
        // Whoever asked may have gone.
        let _ = answer.send(outcome);
    }

    /// Asks the authority when it would have its certificates renewed: it may want to revoke them.
    async fn take_suggestions(&mut self) {
        let Some(authority) = &self.authority else { return };
        for kept in &mut self.kept {
            let is_theirs = kept.in_hand.as_ref().is_some_and(|issued| !issued.self_signed);
            if !kept.wanted.acme || !is_theirs || Instant::now() < kept.ask_again {
                continue;
            }
            let Ok(pem) = fs::read(kept.wanted.file()) else { continue };
            let suggested = heartbeat::waiting(authority.suggested(&pem, &kept.wanted.name)).await;
            let [shortest, longest] = SUGGESTIONS;
            let again = suggested.map_or(longest, |(_, again)| again.clamp(shortest, longest));
            kept.ask_again = Instant::now() + again;
            kept.suggested = suggested.map(|(at, _)| at);
        }
    }

    fn publish(&self) {
        for kept in &self.kept {
            let name = kept.wanted.name.clone();
            let failed = kept.record.error.is_some();
            gauge!(CERTIFICATE_FAILED, "certificate" => name.clone())
                .set(f64::from(u8::from(failed)));
            gauge!(CERTIFICATE_RENEWAL, "certificate" => name)
                .set(kept.due_at().max(Timestamp::UNIX_EPOCH).as_second() as f64);
        }
        let renewals = self.kept.iter().map(|kept| (kept.wanted.name.clone(), kept.renewal()));
        self.state.send_replace(renewals.collect());
    }
}

/// Gets a certificate, and keeps it.
async fn attempt(
    authority: Option<&Authority>,
    wanted: &Wanted,
    record: &mut Record,
    steps: &Steps<'_>,
) -> Result<IssuedCertificate, (Failure, Option<Duration>)> {
    let now = Timestamp::now();
    let local = |error: String| (Failure::local(error), None);
    let Some(authority) = authority.filter(|_| wanted.acme) else {
        steps.step("signs it");
        let wanted = wanted.clone();
        return off_thread(move || wanted.sign(now)).await.map_err(local);
    };
    let pem = authority.obtain(wanted, record, steps).await?;
    let wanted = wanted.clone();
    let kept = off_thread(move || wanted.keep(&pem, Timestamp::now())).await;
    if kept.is_ok() {
        record.order = None;
        record.new_account = false;
    }
    kept.map_err(local)
}

impl Kept {
    /// When there is something to do about it.
    fn due_at(&self) -> Timestamp {
        if self.is_ordered {
            return Timestamp::MIN;
        }
        if let Some(retry_at) = self.record.retry_at {
            return retry_at;
        }
        match &self.in_hand {
            Some(issued) if !self.lacks(issued) => {
                let begins = begins_at(issued, &self.wanted.name);
                self.suggested.map_or(begins, |suggested| suggested.min(begins))
            }
            _ => Timestamp::MIN,
        }
    }

    /// Whether it is not what is wanted, however new.
    fn lacks(&self, issued: &IssuedCertificate) -> bool {
        issued.self_signed && self.wanted.acme || !is_for(issued, &self.wanted.names)
    }

    fn renewed(&mut self, issued: IssuedCertificate) {
        tracing::info!(
            certificate = self.wanted.name,
            issuer = issued.issuer,
            expires_at = %issued.expires_at,
            "a new certificate was issued"
        );
        self.in_hand = Some(issued);
        (self.record.refusals, self.record.retry_at, self.record.error) = (0, None, None);
        self.failures = 0;
        (self.suggested, self.ask_again) = (None, Instant::now());
        self.unreached.reset();
        self.refused.reset();
    }

    fn failed(&mut self, failure: &Failure, rest: Option<Duration>) {
        self.failures = self.failures.saturating_add(1);
        let pause = match failure.refused {
            true => {
                self.record.refusals += 1;
                self.refused.pause()
            }
            false => self.unreached.pause(),
        };
        let after = |pause: Duration| {
            let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
            Timestamp::now().saturating_add(pause).unwrap_or(Timestamp::MAX)
        };
        self.rest_until = rest.map(after);
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

    fn renewal(&self) -> Renewal {
        Renewal {
            names: self.wanted.names.clone(),
            next_at: Some(self.due_at()).filter(|at| *at > Timestamp::UNIX_EPOCH),
            step: None,
            failures: self.failures,
            error: self.record.error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(days_ago: i64, days: i64) -> IssuedCertificate {
        let at = |day: i64| Timestamp::now() + SignedDuration::from_hours(24 * day);
        IssuedCertificate {
            names: vec!["a.test".to_owned()],
            issuer: "CN=CA".to_owned(),
            self_signed: false,
            issued_at: at(-days_ago),
            expires_at: at(days - days_ago),
        }
    }

    fn kept(in_hand: Option<IssuedCertificate>) -> Kept {
        Kept {
            wanted: Wanted::example("site", &["a.test"]),
            in_hand,
            record: Record::default(),
            failures: 0,
            unreached: UNREACHED,
            refused: REFUSED,
            rest_until: None,
            is_ordered: false,
            suggested: None,
            ask_again: Instant::now(),
        }
    }

    /// Until it is due.
    fn wait(kept: &Kept) -> SignedDuration {
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
        let suggested = Kept { suggested: Some(Timestamp::UNIX_EPOCH), ..new };
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

    #[tokio::test]
    async fn an_operator_can_not_have_two_orders_at_once_or_one_that_the_authority_forbids() {
        let (_orders, taken) = mpsc::channel(1);
        let records = Records::new(std::path::Path::new("/nowhere"));
        let state = watch::channel(Renewals::new()).0;
        let kept = vec![kept(Some(issued(1, 90)))];
        let mut keeper = Keeper { kept, authority: None, records, orders: taken, state };
        let ask = |keeper: &mut Keeper, name: &str, running: Option<&str>| {
            let (answer, mut outcome) = oneshot::channel();
            keeper.take(Renew { name: name.to_owned(), answer }, running);
            outcome.try_recv().unwrap()
        };
        let in_progress = ask(&mut keeper, "site", Some("site"));
        assert_eq!(in_progress, Err(RenewError::InProgress("site".to_owned())));
        let unknown = ask(&mut keeper, "other", None);
        assert_eq!(unknown, Err(RenewError::Unknown("other".to_owned())));
        let later = Timestamp::now() + SignedDuration::from_hours(1);
        keeper.kept[0].rest_until = Some(later);
        assert_eq!(ask(&mut keeper, "site", None), Err(RenewError::AskedToWait(later)));
        assert!(!keeper.kept[0].is_ordered);
        keeper.kept[0].rest_until = None;
        assert_eq!(ask(&mut keeper, "site", None), Ok(()));
        assert!(wait(&keeper.kept[0]).is_negative());
    }
}
