//! Host names of servers -> addresses. HAProxy never resolves what it is given at runtime, so it is done here, at each round of polls.
//!
//! A name that does not resolve keeps its last address: a resolver in trouble must not take servers away.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::{Instant, timeout_at};

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

/// What is known of a name.
#[derive(Debug, Default)]
struct Known {
    address: Option<IpAddr>,
    error: Option<String>,
}

/// The names in use and their addresses.
pub struct Resolver {
    lookup: Box<dyn Lookup>,
    known: BTreeMap<String, Known>,
}

impl Resolver {
    /// Knows no name yet.
    pub fn new(lookup: Box<dyn Lookup>) -> Self {
        Self { lookup, known: BTreeMap::new() }
    }

    /// Whether each of the names was looked up at least once.
    pub fn has_tried(&self, hosts: &BTreeSet<String>) -> bool {
        hosts.iter().all(|host| self.known.contains_key(host))
    }

    /// Whether some name has never resolved.
    pub fn lacks_addresses(&self) -> bool {
        self.known.values().any(|known| known.address.is_none())
    }

    /// Looks these names up, within five seconds, and forgets all others.
    pub async fn refresh(&mut self, hosts: BTreeSet<String>) {
        let deadline = Instant::now() + ROUND_BOUND;
        self.known.retain(|host, _| hosts.contains(host));
        let lookup = &*self.lookup;
        let answers = stream::iter(hosts).map(|host| async move {
            let outcome = if Instant::now() >= deadline {
                Err("the resolver was too busy with other names".to_owned())
            } else {
                match timeout_at(deadline, lookup.look_up(&host)).await {
                    Ok(Ok(addresses)) => preferred(addresses).ok_or_else(|| "it has no address a server can have".to_owned()),
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
                Ok(address) => {
                    if known.error.take().is_some() {
                        tracing::info!(host, %address, "the host name resolves again");
                    }
                    known.address = Some(address);
                }
                Err(error) => {
                    if known.error.as_ref() != Some(&error) {
                        let meanwhile = match known.address {
                            Some(address) => format!("it keeps its last address {address}"),
                            None => "its server is left out".to_owned(),
                        };
                        tracing::warn!(host, error, "the host name does not resolve; {meanwhile}");
                    }
                    known.error = Some(error);
                }
            }
        }
    }

    /// The name's last known address, or why there is none.
    ///
    /// # Errors
    /// The resolver's last words.
    pub fn address(&self, host: &str) -> Result<IpAddr, &str> {
        match self.known.get(host) {
            Some(Known { address: Some(address), .. }) => Ok(*address),
            Some(Known { error: Some(error), .. }) => Err(error),
            _ => Err("it was not looked up yet"),
        }
    }

    /// Why the name keeps an older address, if it does.
    pub fn stale(&self, host: &str) -> Option<&str> {
        self.known.get(host).filter(|known| known.address.is_some())?.error.as_deref()
    }
}

/// Of several addresses the lowest IPv4 one, else the lowest IPv6 one: the same on every gateway, whatever the order of the answer.
fn preferred(addresses: Vec<IpAddr>) -> Option<IpAddr> {
    // V4 sorts before V6.
    addresses.into_iter().filter(|address| !address.is_unspecified() && !address.is_multicast()).min()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

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

    fn hosts(hosts: &[&str]) -> BTreeSet<String> {
        hosts.iter().map(|host| (*host).to_owned()).collect()
    }

    #[tokio::test]
    async fn of_several_addresses_the_lowest_of_the_preferred_family_counts_whatever_the_order() {
        let script = Script::default();
        let mut resolver = Resolver::new(Box::new(script.clone()));
        for addresses in [["::1", "10.0.0.9", "10.0.0.10", "0.0.0.0"], ["10.0.0.10", "0.0.0.0", "10.0.0.9", "::1"]] {
            script.says("a", &addresses);
            resolver.refresh(hosts(&["a"])).await;
            assert_eq!(resolver.address("a"), Ok(IpAddr::from([10, 0, 0, 9])));
        }
        script.says("a", &["fe80::2", "fe80::1"]);
        resolver.refresh(hosts(&["a"])).await;
        assert_eq!(resolver.address("a").unwrap().to_string(), "fe80::1");
    }

    #[tokio::test]
    async fn a_name_that_fails_keeps_its_last_address_and_one_that_never_resolved_has_none() {
        let script = Script::default();
        let mut resolver = Resolver::new(Box::new(script.clone()));
        script.says("a", &["10.0.0.1"]);
        script.says("empty", &[]);
        assert!(!resolver.has_tried(&hosts(&["a"])));
        resolver.refresh(hosts(&["a", "b", "empty"])).await;
        assert!(resolver.has_tried(&hosts(&["a", "b"])));
        assert_eq!(resolver.address("b"), Err("no such name"));
        assert!(resolver.lacks_addresses());
        assert_eq!(resolver.address("empty"), Err("it has no address a server can have"));
        script.0.lock().unwrap().clear();
        resolver.refresh(hosts(&["a", "b"])).await;
        assert_eq!(resolver.address("a"), Ok(IpAddr::from([10, 0, 0, 1])));
        assert_eq!((resolver.stale("a"), resolver.stale("b")), (Some("no such name"), None));
        script.says("a", &["10.0.0.2"]);
        resolver.refresh(hosts(&["a"])).await;
        assert_eq!((resolver.address("a"), resolver.stale("a")), (Ok(IpAddr::from([10, 0, 0, 2])), None));
        assert_eq!(resolver.address("b"), Err("it was not looked up yet"), "names out of use are forgotten");
    }

    #[tokio::test]
    async fn the_system_resolves_its_own_name() {
        let mut resolver = Resolver::new(Box::new(SystemLookup));
        resolver.refresh(hosts(&["localhost"])).await;
        assert!(resolver.address("localhost").is_ok_and(|address| address.is_loopback()), "{:?}", resolver.address("localhost"));
    }
}
