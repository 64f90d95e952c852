//! Host names of servers -> addresses. HAProxy never resolves what it is given at runtime, so it is
//! done here, at each round of polls, in a task of its own: a resolver in trouble holds the map up
//! for no moment.
//!
//! A name that does not resolve keeps its last address: a resolver in trouble must not take servers
//! away. Neither must one that answers a part of a name's addresses, another each time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::heartbeat;

/// How long a round of lookups may take; names that have no answer by then keep what they have.
const ROUND_BOUND: Duration = Duration::from_secs(5);
/// How many names are looked up at once: each takes a thread of the system's resolver.
const AT_ONCE: usize = 16;

/// Looks a host name up.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// Every address of the name.
    ///
    /// # Errors
    /// The resolver's.
    async fn look_up(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn look_up(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// How many answers in a row an address must be missing from before it no longer counts, however
/// long they take: of eight addresses that are answered three at a time, one is missing from ten in
/// a row once in a hundred times.
const MISSING: u32 = 10;

/// An address of a name.
#[derive(Debug, Clone, Copy)]
struct Answered {
    /// When it was last answered.
    at: Duration,
    /// How many answers it is missing from since.
    missing: u32,
    /// An answer that had none of the name's addresses took its place.
    replaced: bool,
}

/// The addresses that a name was answered with. An address counts while it is answered now and
/// then: until it was missing for the hold time and from [`MISSING`] answers. An answer that shares
/// nothing with what is remembered is a move, and counts alone at once; but where what it replaced
/// is answered again, the name goes round, and all of them count.
#[derive(Debug, Default)]
struct Addresses(BTreeMap<IpAddr, Answered>);

impl Addresses {
    /// Takes an answer, in which there is an address.
    fn take(&mut self, answer: &[IpAddr], now: Duration, hold: Duration) {
        let moved = answer.iter().all(|address| !self.0.contains_key(address));
        let goes_round =
            answer.iter().any(|address| self.0.get(address).is_some_and(|known| known.replaced));
        for known in self.0.values_mut() {
            known.missing += 1;
            known.replaced = moved || (known.replaced && !goes_round);
        }
        self.0.extend(
            answer
                .iter()
                .map(|address| (*address, Answered { at: now, missing: 0, replaced: false })),
        );
        self.0.retain(|_, known| known.missing < MISSING || now < known.at + hold);
    }

    /// The lowest IPv4 one that counts, else the lowest IPv6 one: the same on every gateway,
    /// whatever the order of the answers.
    fn preferred(&self) -> Option<IpAddr> {
        // V4 sorts before V6.
        self.0.iter().find(|(_, known)| !known.replaced).map(|(address, _)| *address)
    }
}

/// What is known of a name.
#[derive(Debug, Default)]
struct KnownHost {
    addresses: Addresses,
    error: Option<String>,
}

/// Which names are to be looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostQuestion {
    /// The round of polls that they are of: each is looked up once a round.
    pub round: u64,
    /// The names.
    pub hosts: BTreeSet<String>,
}

/// The addresses of host names.
#[derive(Debug, Clone, Default)]
pub struct HostAddresses {
    round: u64,
    hosts: BTreeMap<String, HostAddress>,
}

/// What is known of a name.
#[derive(Debug, Clone)]
struct HostAddress {
    address: Option<IpAddr>,
    error: Option<String>,
}

impl HostAddresses {
    /// Whether each name of the question was looked up in its round.
    pub fn answer(&self, question: &HostQuestion) -> bool {
        question.hosts.is_empty()
            || self.round == question.round
                && question.hosts.iter().all(|host| self.hosts.contains_key(host))
    }

    /// The name's last known address, or why there is none.
    ///
    /// # Errors
    /// The resolver's last words.
    pub fn address(&self, host: &str) -> Result<IpAddr, &str> {
        let Some(known) = self.hosts.get(host) else { return Err("it was not looked up yet") };
        known.address.ok_or(known.error.as_deref().unwrap_or("it was not looked up yet"))
    }

    /// Why the name keeps an older address, if it does.
    pub fn stale(&self, host: &str) -> Option<&str> {
        self.hosts.get(host).filter(|known| known.address.is_some())?.error.as_deref()
    }
}

/// The engine's end of the task that looks names up.
#[derive(Debug)]
pub struct HostNames {
    questions: watch::Sender<HostQuestion>,
    addresses: watch::Receiver<HostAddresses>,
}

impl HostNames {
    /// This end, and the task's work.
    pub fn new(resolver: Resolver) -> (Self, impl Future<Output = ()> + Send) {
        let (questions, asked) = watch::channel(HostQuestion::default());
        let (sender, addresses) = watch::channel(HostAddresses::default());
        (Self { questions, addresses }, resolver.run(asked, sender))
    }

    /// Has these names looked up.
    pub fn ask(&self, question: HostQuestion) {
        self.questions.send_if_modified(|asked| {
            let is_new = *asked != question;
            *asked = question;
            is_new
        });
    }

    /// What is known now.
    pub fn addresses(&mut self) -> HostAddresses {
        self.addresses.borrow_and_update().clone()
    }

    /// Resolves when something else is known.
    pub async fn answered(&mut self) {
        if self.addresses.changed().await.is_err() {
            // Only the shutdown ends the task.
            std::future::pending().await
        }
    }
}

/// How long a name that has no address yet is left alone: a gateway may well start before its
/// resolver does.
const RETRY: Duration = Duration::from_secs(10);

/// The names in use and their addresses.
pub struct Resolver {
    lookup: Box<dyn Lookup>,
    hold: Duration,
    /// [`RETRY`].
    pub(in crate::engine) retry: Duration,
    known: BTreeMap<String, KnownHost>,
}

impl Resolver {
    /// Knows no name yet. `hold` is how long an address that is not answered any more counts at
    /// least.
    pub fn new(lookup: Box<dyn Lookup>, hold: Duration) -> Self {
        Self { lookup, hold, retry: RETRY, known: BTreeMap::new() }
    }

    /// Answers each question, and the last one again while some name has no address.
    async fn run(
        mut self,
        mut questions: watch::Receiver<HostQuestion>,
        addresses: watch::Sender<HostAddresses>,
    ) {
        let clock = Instant::now();
        loop {
            heartbeat::beat();
            let question = questions.borrow_and_update().clone();
            addresses.send_replace(self.answer(question, clock.elapsed()).await);
            let lacks_addresses =
                self.known.values().any(|known| known.addresses.preferred().is_none());
            let woken = heartbeat::waiting(async {
                tokio::select! {
                    changed = questions.changed() => changed.is_ok(),
                    () = sleep(self.retry), if lacks_addresses => true,
                }
            });
            if !woken.await {
                return;
            }
        }
    }

    /// Looks these names up, within five seconds, and forgets all others. `now` is a time of one
    /// steady clock.
    pub async fn answer(&mut self, question: HostQuestion, now: Duration) -> HostAddresses {
        let HostQuestion { round, hosts } = question;
        self.look_up(hosts, now).await;
        let address = |(host, known): (&String, &KnownHost)| {
            let address = known.addresses.preferred();
            (host.clone(), HostAddress { address, error: known.error.clone() })
        };
        HostAddresses { round, hosts: self.known.iter().map(address).collect() }
    }

    async fn look_up(&mut self, hosts: BTreeSet<String>, now: Duration) {
        let deadline = Instant::now() + ROUND_BOUND;
        self.known.retain(|host, _| hosts.contains(host));
        let lookup = &*self.lookup;
        let answers = stream::iter(hosts).map(|host| async move {
            let outcome = if Instant::now() >= deadline {
                Err("the resolver was too busy with other names".to_owned())
            } else {
                match timeout_at(deadline, lookup.look_up(&host)).await {
                    Ok(Ok(addresses)) => fit(addresses)
                        .ok_or_else(|| "it has no address a server can have".to_owned()),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err(format!("no answer within {ROUND_BOUND:?}")),
                }
            };
            (host, outcome)
        });
        let answers: Vec<_> = answers.buffer_unordered(AT_ONCE).collect().await;
        for (host, outcome) in answers {
            let known = self.known.entry(host.clone()).or_default();
            match outcome {
                Ok(answer) => {
                    known.addresses.take(&answer, now, self.hold);
                    if known.error.take().is_some() {
                        let address = known.addresses.preferred().map(tracing::field::display);
                        tracing::info!(host, address, "the host name resolves again");
                    }
                }
                Err(error) => {
                    if known.error.as_ref() != Some(&error) {
                        let meanwhile = match known.addresses.preferred() {
                            Some(address) => format!("it keeps its last address {address}"),
                            None => "its server is rejected".to_owned(),
                        };
                        tracing::warn!(host, error, "the host name does not resolve; {meanwhile}");
                    }
                    known.error = Some(error);
                }
            }
        }
    }
}

/// The addresses of an answer that a server can have, if there are any.
fn fit(mut addresses: Vec<IpAddr>) -> Option<Vec<IpAddr>> {
    addresses.retain(|address| !address.is_unspecified() && !address.is_multicast());
    (!addresses.is_empty()).then_some(addresses)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const HOLD: Duration = Duration::from_secs(90);

    #[derive(Clone, Default)]
    struct Script(Arc<Mutex<BTreeMap<String, Vec<&'static str>>>>);

    impl Script {
        fn says(&self, host: &str, addresses: &[&'static str]) {
            self.0.lock().unwrap().insert(host.to_owned(), addresses.to_vec());
        }
    }

    #[async_trait]
    impl Lookup for Script {
        async fn look_up(&self, host: &str) -> io::Result<Vec<IpAddr>> {
            let answer = self.0.lock().unwrap().get(host).cloned();
            let answer = answer.ok_or_else(|| io::Error::other("no such name"))?;
            Ok(answer.into_iter().map(|address| address.parse().unwrap()).collect())
        }
    }

    async fn look_up(resolver: &mut Resolver, hosts: &[&str]) -> HostAddresses {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        resolver.answer(HostQuestion { round: 1, hosts }, Duration::ZERO).await
    }

    #[tokio::test]
    async fn of_several_addresses_the_lowest_of_the_preferred_family_counts_whatever_the_order() {
        let script = Script::default();
        let mut resolver = Resolver::new(Box::new(script.clone()), HOLD);
        for addresses in [
            ["::1", "10.0.0.9", "10.0.0.10", "0.0.0.0"],
            ["10.0.0.10", "0.0.0.0", "10.0.0.9", "::1"],
        ] {
            script.says("a", &addresses);
            let known = look_up(&mut resolver, &["a"]).await;
            assert_eq!(known.address("a"), Ok(IpAddr::from([10, 0, 0, 9])));
        }
        script.says("a", &["fe80::2", "fe80::1"]);
        let known = look_up(&mut resolver, &["a"]).await;
        assert_eq!(known.address("a").unwrap().to_string(), "fe80::1");
    }

    #[tokio::test]
    async fn a_name_that_fails_keeps_its_last_address_and_one_that_never_resolved_has_none() {
        let script = Script::default();
        let mut resolver = Resolver::new(Box::new(script.clone()), HOLD);
        script.says("a", &["10.0.0.1"]);
        script.says("empty", &[]);
        let known = look_up(&mut resolver, &["a", "b", "empty"]).await;
        assert_eq!(known.address("b"), Err("no such name"));
        assert_eq!(known.address("empty"), Err("it has no address a server can have"));
        script.0.lock().unwrap().clear();
        let known = look_up(&mut resolver, &["a", "b"]).await;
        assert_eq!(known.address("a"), Ok(IpAddr::from([10, 0, 0, 1])));
        assert_eq!((known.stale("a"), known.stale("b")), (Some("no such name"), None));
        script.says("a", &["10.0.0.2"]);
        let known = look_up(&mut resolver, &["a"]).await;
        assert_eq!((known.address("a"), known.stale("a")), (Ok(IpAddr::from([10, 0, 0, 2])), None));
        assert_eq!(
            known.address("b"),
            Err("it was not looked up yet"),
            "names out of use are forgotten"
        );
    }

    /// `10.0.0.N` for each number.
    fn numbered(numbers: &[u8]) -> Vec<IpAddr> {
        numbers.iter().map(|number| IpAddr::from([10, 0, 0, *number])).collect()
    }

    /// Takes answers one after another, so many seconds apart: the last byte of the address after
    /// each.
    fn preferred_after(
        addresses: &mut Addresses,
        from: u64,
        apart: u64,
        answers: &[&[u8]],
    ) -> Vec<u8> {
        let take = |(index, answer): (usize, &&[u8])| {
            addresses.take(
                &numbered(answer),
                Duration::from_secs(from + apart * index as u64),
                HOLD,
            );
            match addresses.preferred() {
                Some(IpAddr::V4(address)) => address.octets()[3],
                other => panic!("{other:?} after {answer:?}"),
            }
        };
        answers.iter().enumerate().map(take).collect()
    }

    #[test]
    fn a_resolver_that_answers_some_of_the_addresses_at_random_does_not_move_a_server() {
        for (share, apart) in [(3, 1), (3, 60), (3, 300), (5, 60), (1, 1)] {
            let mut random = fastrand::Rng::with_seed(share as u64 * 1000 + apart);
            let answers: Vec<Vec<u8>> =
                (0..120).map(|_| random.choose_multiple(1..=8, share)).collect();
            let answers: Vec<&[u8]> = answers.iter().map(Vec::as_slice).collect();
            let addresses = preferred_after(&mut Addresses::default(), 0, apart, &answers);
            let changes =
                |addresses: &[u8]| addresses.windows(2).filter(|pair| pair[0] != pair[1]).count();
            // While the addresses come to be known, each may be lower than those before it; then it
            // stays.
            let (first, rest) = addresses.split_at(20);
            // Where each is answered alone, it can't be distinguished from a move before it comes
            // back.
            let (most, rare) = if share == 1 { (14, 8) } else { (7, 2) };
            assert!(changes(first) <= most, "{share} of 8, {apart} s: {first:?}");
            assert!(changes(rest) <= rare, "{share} of 8, {apart} s: {rest:?}");
        }
    }

    #[test]
    fn an_address_that_is_answered_no_more_goes_after_the_hold_time_and_ten_answers() {
        let mut addresses = Addresses::default();
        assert_eq!(
            preferred_after(&mut addresses, 0, 1, &[&[1, 2, 3], &[2, 3], &[3, 1]]),
            [1, 1, 1]
        );
        // Nine answers without it, over days; and ninety seconds with an answer each.
        assert_eq!(
            preferred_after(&mut addresses, 100, 100_000, &[&[2, 3][..]; 10]),
            [1, 1, 1, 1, 1, 1, 1, 1, 1, 2]
        );
        assert_eq!(preferred_after(&mut addresses, 2_000_000, 1, &[&[1, 2]]), [1]);
        let rest = preferred_after(&mut addresses, 2_000_001, 1, &[&[2][..]; 90]);
        assert_eq!((rest[88], rest[89]), (1, 2));
    }

    #[test]
    fn a_name_that_moves_is_followed_at_once() {
        let mut addresses = Addresses::default();
        assert_eq!(
            preferred_after(&mut addresses, 0, 60, &[&[1], &[1], &[2], &[2], &[7, 8], &[8, 7]]),
            [1, 1, 2, 2, 7, 7]
        );
    }

    #[test]
    fn a_name_that_goes_round_settles() {
        let round: Vec<&[u8]> = [&[3u8][..], &[1], &[2]].into_iter().cycle().take(12).collect();
        assert_eq!(
            preferred_after(&mut Addresses::default(), 0, 60, &round),
            [3, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1]
        );
    }

    #[tokio::test]
    async fn the_system_resolves_its_own_name() {
        let mut resolver = Resolver::new(Box::new(SystemLookup), HOLD);
        let known = look_up(&mut resolver, &["localhost"]).await;
        assert!(
            known.address("localhost").is_ok_and(|address| address.is_loopback()),
            "{:?}",
            known.address("localhost")
        );
    }
}
