//! The task that keeps certificates: which is due, what came of it, when to try again.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::certificate::{IssuedCertificate, Renewal};
use metrics::gauge;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::acme::{Authority, Failure, Progress};
use super::issued::{KeepError, Wanted, off_thread};
use super::kept::Kept;
use super::record::{Record, Records, after};
use super::rest::Rest;
use crate::heartbeat;
use crate::settings::Settings;
use crate::telemetry::{CERTIFICATE_FAILED, CERTIFICATE_RENEWAL};

/// The longest sleep: a clock that is set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How long an authority may take to say when it would have a certificate renewed.
const SUGGESTION_BOUND: Duration = Duration::from_secs(10);

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
    #[error("the authority asks to be left alone until {0:.0}")]
    AskedToWait(Timestamp),
}

/// Keeps the certificates that Mapsmith gets itself.
pub struct Keeper {
    kept: Vec<Kept>,
    authority: Option<Authority>,
    records: Records,
    /// Until when the authority serves nobody.
    rest: Rest,
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
        let folder = settings.acme_folder();
        let records = Records::new(&folder);
        let directory = settings.acme.as_ref().map_or("", |acme| &acme.directory);
        let rest = Rest::read(&folder, directory);
        let now = Timestamp::now();
        let kept = settings.certificates.iter().filter_map(Wanted::of).map(|wanted| {
            let record = records.read(&wanted.name, &wanted.names);
            let in_hand = wanted.in_hand(now);
            Kept::new(wanted, in_hand, record)
        });
        let kept: Vec<_> = kept.collect();
        if kept.is_empty() {
            return None;
        }
        let (state, renewals) = watch::channel(Renewals::new());
        let keeper = Self { kept, authority, records, rest, orders, state };
        keeper.publish();
        Some((keeper, renewals))
    }

    /// Renews each certificate when it is due, until shutdown. An order in progress is left then,
    /// and gone on with after the next start.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            if !self.take_suggestions(&shutdown).await {
                return;
            }
            self.publish();
            let now = Timestamp::now();
            let due = (0..self.kept.len()).min_by_key(|index| self.due_at(&self.kept[*index]));
            let Some(index) = due else { return };
            let due_at = self.due_at(&self.kept[index]);
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
        let work = attempt(authority.as_ref(), &wanted, &mut record, &steps);
        let outcome = self.answering(work, Some(&wanted.name), shutdown).await;
        self.authority = authority;
        let Some(outcome) = outcome else { return false };
        self.kept[index].record = record;
        match outcome {
            Ok(issued) => self.kept[index].renewed(issued),
            Err((failure, rest)) => {
                self.kept[index].failed(&failure, rest);
                // It serves nobody: this is about no certificate of its own.
                if let Some(rest) = rest.filter(|_| !failure.refused)
                    && let Err(error) = self.rest.keep(after(rest)).await
                {
                    tracing::warn!("how long the authority is left alone can't be kept: {error}");
                }
            }
        }
        if wanted.acme
            && let Err(error) = self.records.write(&wanted.name, &self.kept[index].record).await
        {
            tracing::warn!(certificate = wanted.name, "what was ordered can't be kept: {error}");
        }
        true
    }

    /// Does some work, and answers operators meanwhile; `running` is the certificate that it is
    /// about. None where the shutdown came first.
    async fn answering<T>(
        &mut self,
        work: impl Future<Output = T>,
        running: Option<&str>,
        shutdown: &CancellationToken,
    ) -> Option<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return None,
                outcome = &mut work => return Some(outcome),
                Some(order) = self.orders.recv() => self.take(order, running),
                () = heartbeat::tick() => {}
            }
        }
    }

    /// When there is something to do about it, and the authority may be asked.
    fn due_at(&self, kept: &Kept) -> Timestamp {
        let rest = self.rest.until().filter(|_| kept.wanted.acme);
        rest.map_or(kept.due_at(), |rest| rest.max(kept.due_at()))
    }

    /// Takes an operator's order; `running` is the certificate that is being renewed.
    fn take(&mut self, Renew { name, answer }: Renew, running: Option<&str>) {
        let everybodys = self.rest.until();
        let rest = |kept: &Kept| {
            let own = kept.record.rest_until.filter(|until| *until > Timestamp::now());
            own.max(everybodys.filter(|_| kept.wanted.acme))
        };
        let kept = self.kept.iter_mut().find(|kept| kept.wanted.name == name);
        let outcome = match kept {
            None => Err(RenewError::Unknown(name)),
            Some(_) if running == Some(&*name) => Err(RenewError::InProgress(name)),
            Some(kept) => match rest(kept) {
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
    /// False where the shutdown came first.
    async fn take_suggestions(&mut self, shutdown: &CancellationToken) -> bool {
        // Not a part of `self`, which takes operators' orders meanwhile.
        let Some(authority) = self.authority.take() else { return true };
        let mut goes_on = true;
        for index in 0..self.kept.len() {
            let kept = &self.kept[index];
            let is_awaited = self.kept.iter().any(|kept| kept.is_ordered);
            if is_awaited || self.rest.until().is_some() || !kept.asks_for_suggestion() {
                continue;
            }
            let Ok(pem) = fs::read(kept.wanted.file()) else { continue };
            let name = kept.wanted.name.clone();
            let asked = timeout(SUGGESTION_BOUND, authority.suggested(&pem, &name));
            let Some(suggested) = self.answering(asked, None, shutdown).await else {
                goes_on = false;
                break;
            };
            self.kept[index].suggestion(suggested.ok().flatten());
        }
        self.authority = Some(authority);
        goes_on
    }

    fn publish(&self) {
        for kept in &self.kept {
            let name = kept.wanted.name.clone();
            let failed = kept.record.error.is_some();
            gauge!(CERTIFICATE_FAILED, "certificate" => name.clone())
                .set(f64::from(u8::from(failed)));
            gauge!(CERTIFICATE_RENEWAL, "certificate" => name)
                .set(self.due_at(kept).max(Timestamp::UNIX_EPOCH).as_second() as f64);
        }
        let renewals = self
            .kept
            .iter()
            .map(|kept| (kept.wanted.name.clone(), kept.renewal(self.due_at(kept))));
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
    match kept {
        Ok(issued) => {
            record.order = None;
            record.new_account = false;
            Ok(issued)
        }
        Err(error) => {
            let failure = match error {
                KeepError::NotNow(_) => Failure::local(error.to_string()),
                KeepError::Unfit(_) => {
                    // However often it is asked for, it is the same. The order counts all the same.
                    record.order = None;
                    Failure::refused(error.to_string())
                }
            };
            Err((failure, None))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::kept::tests::{issued, kept, wait};

    fn keeper(folder: &std::path::Path) -> Keeper {
        let (_orders, orders) = mpsc::channel(1);
        let (records, rest) = (Records::new(folder), Rest::read(folder, ""));
        let (kept, state) = (vec![kept(Some(issued(1, 90)))], watch::channel(Renewals::new()).0);
        Keeper { kept, authority: None, records, rest, orders, state }
    }

    fn ask(keeper: &mut Keeper, name: &str, running: Option<&str>) -> Result<(), RenewError> {
        let (answer, mut outcome) = oneshot::channel();
        keeper.take(Renew { name: name.to_owned(), answer }, running);
        outcome.try_recv().unwrap()
    }

    #[tokio::test]
    async fn an_operator_can_not_have_two_orders_at_once_or_one_that_the_authority_forbids() {
        let mut keeper = keeper(std::path::Path::new("/nowhere"));
        let in_progress = ask(&mut keeper, "site", Some("site"));
        assert_eq!(in_progress, Err(RenewError::InProgress("site".to_owned())));
        let unknown = ask(&mut keeper, "other", None);
        assert_eq!(unknown, Err(RenewError::Unknown("other".to_owned())));
        let later = after(Duration::from_secs(3600));
        keeper.kept[0].record.rest_until = Some(later);
        assert_eq!(ask(&mut keeper, "site", None), Err(RenewError::AskedToWait(later)));
        assert!(!keeper.kept[0].is_ordered);
        keeper.kept[0].record.rest_until = None;
        assert_eq!(ask(&mut keeper, "site", None), Ok(()));
        assert!(wait(&keeper.kept[0]).is_negative());
    }

    #[tokio::test]
    async fn an_authority_that_serves_nobody_is_left_alone_with_every_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = keeper(folder.path());
        keeper.kept.push(kept(None));
        let later = after(Duration::from_secs(3600));
        keeper.rest.keep(later).await.unwrap();
        assert_eq!(ask(&mut keeper, "site", None), Err(RenewError::AskedToWait(later)));
        assert_eq!(keeper.due_at(&keeper.kept[1]), later, "though it has none at all");
        keeper.kept[1].wanted.acme = false;
        assert!(keeper.due_at(&keeper.kept[1]) < Timestamp::now(), "it signs this one itself");
    }
}
