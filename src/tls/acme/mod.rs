//! Certificates from an authority (ACME, RFC 8555), an order at a time.
//!
//! An order that was placed is written down before anything else is done about it, and gone on
//! with after a crash or a failure: authorities count orders. So each step can be done again.

mod account;
mod client;
mod hook;
mod names;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Error,
    Identifier, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::challenges::Challenges;
use super::issued::Wanted;
use super::record::{OrderRecord, Record, Records};
use crate::settings::Acme;
use crate::settings::acme::Challenge;
pub(super) use client::LONGEST_REST;
use client::{Http, Unreachable};
use hook::Hook;

/// How long the instances may take to have the answers.
const IN_FORCE: Duration = Duration::from_secs(60);
/// How the authority is asked whether it has looked, and whether the certificate is there.
const POLLS: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));
/// What an authority says of an account that it does not know, or does not want any more.
const NO_ACCOUNT: [&str; 2] = ["accountDoesNotExist", "unauthorized"];
/// What it says of an order that may be all right: of its own limits, and of the account.
const NOT_OF_THE_ORDER: [&str; 2] = ["rateLimited", "userActionRequired"];
/// What it says of a nonce that it does not know any more; the library has tried others already.
const BAD_NONCE: &str = "badNonce";

/// Why there is no certificate yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    pub text: String,
    /// Whether the authority has counted it.
    pub refused: bool,
    /// What the authority calls it, without what all of its names begin with.
    kind: String,
    /// Whether the authority may have done what was asked, and only its answer is lost.
    may_know: bool,
}

impl Failure {
    /// Of this side: nothing was asked of the authority.
    pub(super) fn local(text: String) -> Self {
        Self { text, refused: false, kind: String::new(), may_know: false }
    }

    pub(super) fn refused(text: impl Into<String>) -> Self {
        Self { refused: true, ..Self::local(text.into()) }
    }

    /// Whether it is about the account.
    fn is_of_the_account(&self) -> bool {
        NO_ACCOUNT.contains(&&*self.kind)
    }

    /// With what can be done about it.
    fn with_advice(self, advice: &str) -> Self {
        Self { text: format!("{self}; {advice}"), ..self }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => {
                let kind = problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next());
                let kind = kind.unwrap_or_default().to_owned();
                let text = format!("the authority refuses: {}", in_words(&problem));
                // Of a nonce that it has forgotten it keeps no count.
                Self { text, refused: kind != BAD_NONCE, kind, may_know: false }
            }
            Error::Other(other) if other.is::<Unreachable>() => {
                let may_know = other.downcast_ref().is_some_and(Unreachable::may_know);
                Self { may_know, ..Self::local(other.to_string()) }
            }
            Error::Timeout(_) => Self::refused(
                "the authority has not decided in time; the same order is gone on with later",
            ),
            error => Self::refused(format!("the authority's answer can't be used: {error}")),
        }
    }
}

/// What a problem says, without control characters, and of a bounded length.
fn in_words(problem: &Problem) -> String {
    let text = problem.to_string();
    let text = text.strip_prefix("API error: ").unwrap_or(&text);
    text.chars().filter(|letter| !letter.is_control()).take(600).collect()
}

/// What an attempt tells of itself.
pub trait Progress {
    fn step(&self, text: &str);
}

/// An authority, and how it is shown that names are ours.
pub struct Authority {
    settings: Acme,
    folder: PathBuf,
    records: Records,
    challenges: Option<Challenges>,
}

impl Authority {
    /// Asks nothing yet. Without `challenges` names are shown by DNS.
    pub fn new(settings: Acme, folder: PathBuf, challenges: Option<Challenges>) -> Self {
        let records = Records::new(&folder);
        Self { settings, folder, records, challenges }
    }

    /// What on this machine would keep it from being asked; nothing is asked. Blocks.
    ///
    /// # Errors
    /// The first problem, with its place.
    pub fn check(&self) -> Result<(), String> {
        Http::new(&self.settings).map_err(|failure| failure.text)?;
        account::check(&self.settings, &self.folder)?;
        Hook::new(&self.settings).check()
    }

    /// Gets a certificate with its key, as PEM: goes on with the order in `record`, or places one.
    /// What is in `record` is on disk too.
    ///
    /// # Errors
    /// Why there is none yet, and how long the authority wants to be left alone.
    pub(super) async fn obtain(
        &self,
        wanted: &Wanted,
        record: &mut Record,
        progress: &impl Progress,
    ) -> Result<String, (Failure, Option<Duration>)> {
        let http = Http::new(&self.settings).map_err(|failure| (failure, None))?;
        let obtained = self.obtain_by(&http, wanted, record, progress).await;
        if let Some(challenges) = &self.challenges
            && let Err(error) = challenges.answer(BTreeMap::new()).await
        {
            tracing::warn!("what authorities are answered can't be cleared: {error}");
        }
        obtained.map_err(|failure| (failure, http.rest()))
    }

    async fn obtain_by(
        &self,
        http: &Http,
        wanted: &Wanted,
        record: &mut Record,
        progress: &impl Progress,
    ) -> Result<String, Failure> {
        progress.step("asks the authority for its directory");
        let account = account::open(&self.settings, &self.folder, http).await?;
        let order = match self.resume(&account, wanted, record).await? {
            Some(order) => Ok(order),
            None => self.place(&account, wanted, record, progress).await,
        };
        let mut order = match order {
            Err(failure) if failure.is_of_the_account() => {
                self.give_up(&account, failure, wanted, record).await?;
                let account = account::open(&self.settings, &self.folder, http).await?;
                self.place(&account, wanted, record, progress).await?
            }
            order => order?,
        };
        self.authorize(&mut order, progress).await?;
        let key = record.order.as_ref().map(|order| order.key.clone()).unwrap_or_default();
        // It could not be written when the order was placed, perhaps: without its key a certificate
        // would be lost.
        self.keep(wanted, record).await?;
        progress.step("waits for the certificate");
        let chain = finish(&mut order, &wanted.names, &key).await?;
        Ok(format!("{}\n{key}", chain.trim_end()))
    }

    /// Gives up an account that the authority does not want any more, so that another one is made.
    /// Once until there is a certificate.
    async fn give_up(
        &self,
        account: &Account,
        failure: Failure,
        wanted: &Wanted,
        record: &mut Record,
    ) -> Result<(), Failure> {
        let file = account::file(&self.folder, &self.settings.directory);
        let by_hand = || format!("if the account is at fault, remove {}", file.display());
        if record.new_account {
            let advice = format!("another account was made for this already: {}", by_hand());
            return Err(failure.with_advice(&advice));
        }
        // It may be said of the names, too, and another account can be hard to get.
        if account::is_good(account, &self.settings).await? {
            return Err(failure.with_advice(&by_hand()));
        }
        record.new_account = true;
        self.keep(wanted, record).await?;
        tracing::warn!(
            account = account.id(),
            "the account is given up, and another one is made: {failure}"
        );
        account::forget(&self.settings, &self.folder)
    }

    /// The order in progress, if it can still bring a certificate.
    async fn resume(
        &self,
        account: &Account,
        wanted: &Wanted,
        record: &mut Record,
    ) -> Result<Option<Order>, Failure> {
        let Some(known) = &record.order else { return Ok(None) };
        if known.directory == self.settings.directory && known.account == account.id() {
            match account.order(known.url.clone()).await {
                Ok(mut order) => {
                    if order.state().status != OrderStatus::Invalid {
                        let (certificate, url) = (&wanted.name, &known.url);
                        tracing::info!(certificate, url, "going on with the order in progress");
                        return Ok(Some(order));
                    }
                }
                Err(error) => match Failure::from(error) {
                    // It is over, or of an account of before.
                    Failure { refused: true, kind, .. }
                        if !kind.is_empty() && !NOT_OF_THE_ORDER.contains(&&*kind) => {}
                    failure => return Err(failure),
                },
            }
        }
        record.order = None;
        self.keep(wanted, record).await?;
        Ok(None)
    }

    /// Places an order, and writes it down.
    async fn place(
        &self,
        account: &Account,
        wanted: &Wanted,
        record: &mut Record,
        progress: &impl Progress,
    ) -> Result<Order, Failure> {
        if let Some(challenges) = self.challenges.as_ref().filter(|_| self.settings.check_names) {
            progress.step("checks whether the names lead here");
            names::lead_here(&self.settings, challenges, &wanted.names).await?;
        }
        progress.step("places an order");
        let key = KeyPair::generate().map_err(|error| Failure::local(error.to_string()))?;
        let identifiers: Vec<_> = wanted.names.iter().cloned().map(Identifier::Dns).collect();
        let mut new = NewOrder::new(&identifiers);
        if let Some(profile) = &self.settings.profile {
            new = new.profile(profile.as_str());
        }
        record.expect_answer();
        if let Err(failure) = self.keep(wanted, record).await {
            record.is_answered();
            return Err(failure);
        }
        let order = match account.new_order(&new).await.map_err(Failure::from) {
            Ok(order) => order,
            Err(failure) if failure.may_know => {
                return Err(Failure { refused: record.unanswered > 1, ..failure });
            }
            Err(failure) => {
                record.is_answered();
                return Err(failure);
            }
        };
        record.is_answered();
        record.order = Some(OrderRecord {
            directory: self.settings.directory.clone(),
            account: account.id().to_owned(),
            url: order.url().to_owned(),
            key: key.serialize_pem(),
        });
        self.keep(wanted, record).await?;
        tracing::info!(certificate = wanted.name, order = order.url(), "order placed");
        Ok(order)
    }

    async fn keep(&self, wanted: &Wanted, record: &Record) -> Result<(), Failure> {
        self.records.write(&wanted.name, record).await.map_err(Failure::local)
    }

    /// Shows that the names are ours, as far as the authority does not know yet.
    async fn authorize(&self, order: &mut Order, progress: &impl Progress) -> Result<(), Failure> {
        if order.state().status != OrderStatus::Pending {
            return Ok(());
        }
        let hook = Hook::new(&self.settings);
        let mut records = Vec::new();
        let shown = self.show(order, &hook, &mut records, progress).await;
        for (name, value) in &records {
            if let Err(error) = hook.call("remove", name, value).await {
                tracing::warn!(record = name, "the record stays: {error}");
            }
        }
        shown
    }

    /// `records` are those that were added to DNS.
    async fn show(
        &self,
        order: &mut Order,
        hook: &Hook<'_>,
        records: &mut Vec<(String, String)>,
        progress: &impl Progress,
    ) -> Result<(), Failure> {
        let kind = || match self.settings.challenge {
            Challenge::Http01 => ChallengeType::Http01,
            Challenge::Dns01 => ChallengeType::Dns01,
        };
        let mut answers = BTreeMap::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let name = authorization.identifier().to_string();
            let Some(challenge) = authorization.challenge(kind()) else {
                return Err(Failure::refused(format!(
                    "the authority does not take {} for {name}",
                    self.settings.challenge
                )));
            };
            let key = challenge.key_authorization();
            match &self.challenges {
                Some(_) => _ = answers.insert(challenge.token.clone(), key.as_str().to_owned()),
                None => {
                    let base = name.strip_prefix("*.").unwrap_or(&name);
                    let record = (format!("_acme-challenge.{base}"), key.dns_value());
                    progress.step(&format!("adds the record {}", record.0));
                    records.push(record.clone());
                    hook.call("add", &record.0, &record.1).await.map_err(Failure::local)?;
                }
            }
        }
        if let Some(challenges) = &self.challenges {
            progress.step("waits until every HAProxy answers the authority");
            let number = challenges.answer(answers).await.map_err(Failure::local)?;
            challenges.in_force(number, IN_FORCE).await.map_err(Failure::local)?;
        }
        progress.step("has the authority look");
        if let Err(error) = have_it_look(order, kind()).await {
            // The library gives the failure of a challenge that was looked at before the answer as
            // it gives a refusal of the request: only the challenges tell which of them it is.
            return Err(failed(order).await.unwrap_or_else(|| error.into()));
        }
        let ended = order.poll_ready(&POLLS).await;
        // What else is refused meanwhile, like one question too many, is not the order's end.
        match ended.map_err(|error| (order.state().error.is_some(), error)) {
            Ok(OrderStatus::Invalid) | Err((true, _)) => Err(reason(order).await),
            Ok(_) => Ok(()),
            Err((false, error)) => Err(Failure::from(error)),
        }
    }

    /// When the authority suggests to renew a certificate, and when to ask again; none where it has
    /// no such opinion.
    pub(super) async fn suggested(&self, pem: &[u8], name: &str) -> Option<(Timestamp, Duration)> {
        let certificate = CertificateDer::from_pem_slice(pem).ok()?;
        let id = CertificateIdentifier::try_from(&certificate).ok()?;
        let http = Http::new(&self.settings).ok()?;
        // Without an account nothing was issued.
        if !account::file(&self.folder, &self.settings.directory).exists() {
            return None;
        }
        let account = account::open(&self.settings, &self.folder, &http).await.ok()?;
        let (info, again) = account.renewal_info(&id).await.ok()?;
        let at = |time: i64| Timestamp::from_second(time).ok();
        let window = info.suggested_window;
        let (start, end) = (at(window.start.unix_timestamp())?, at(window.end.unix_timestamp())?);
        Some((super::renewal::within(start, end, name), again))
    }
}

/// Has the authority look at what is not shown yet.
async fn have_it_look(order: &mut Order, kind: ChallengeType) -> Result<(), Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let is_open = authorization.status == AuthorizationStatus::Pending;
        if let Some(mut challenge) = authorization.challenge(kind.clone()).filter(|_| is_open)
            && challenge.status == ChallengeStatus::Pending
        {
            challenge.set_ready().await?;
        }
    }
    Ok(())
}

/// Why the authority has ended an order.
async fn reason(order: &mut Order) -> Failure {
    let why = failed(order).await;
    why.unwrap_or_else(|| Failure::refused("the authority has ended the order without a reason"))
}

/// What the authority has found at the names, if it has found anything to be wrong.
async fn failed(order: &mut Order) -> Option<Failure> {
    let mut why = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(mut authorization) = authorization else { continue };
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        let problems = authorization.challenges.iter().filter_map(|it| it.error.as_ref());
        why.extend(problems.map(|problem| format!("{name}: {}", in_words(problem))));
    }
    (!why.is_empty()).then(|| Failure::refused(format!("the authority refuses {}", why.join("; "))))
}

/// Sends the request for the certificate, and waits for it.
async fn finish(order: &mut Order, names: &[String], key: &str) -> Result<String, Failure> {
    if order.state().status == OrderStatus::Ready {
        let local = |error: rcgen::Error| Failure::local(error.to_string());
        let key = KeyPair::from_pem(key).map_err(local)?;
        let mut params = CertificateParams::new(names.to_vec()).map_err(local)?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(local)?;
        order.finalize_csr(request.der()).await?;
    }
    Ok(order.poll_certificate(&POLLS).await?)
}
