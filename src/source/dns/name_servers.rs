//! The name servers, asked one after the other: the next one where one can't say what is.
//!
//! Each has a client of its own, so that what it said is known, and no cache: a poll asks.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::proto::op::{DnsRequestOptions, Query};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use tokio::time::{Instant, timeout};

use super::answer::{Absence, Answer, Failure, of_error, read};
use super::keys::DnsKeys;
use crate::source::error::SourceErrorKind;

/// Where the system's name servers are.
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The most of them that are asked, as of those in the settings.
const MOST_SERVERS: usize = 16;
/// The most bytes of that file.
const MOST_BYTES: u64 = 64 * 1024;

/// The most times that an answer names another name to ask for.
const MOST_ALIASES: usize = 8;

/// Name servers, in the order in which they are preferred.
pub(super) struct NameServers {
    servers: Vec<NameServer>,
    keys: DnsKeys,
    /// The one that answered last, and since when it is asked first.
    first: Mutex<(usize, Instant)>,
}

struct NameServer {
    address: SocketAddr,
    client: NameServerPool<TokioRuntimeProvider>,
}

/// What is known of a name.
#[derive(Debug)]
pub(super) enum Lookup {
    /// Its records, for how many seconds, and the bytes of the message.
    Records { records: Vec<RData>, ttl: u32, bytes: u64 },
    /// It has none, as this server says.
    Absent { absence: Absence, ttl: Option<u32>, server: SocketAddr },
    /// No server said what is; why of each, in the order in which they were asked.
    Failed(Vec<(SocketAddr, Failure)>),
}

impl NameServers {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// If the client can't be made.
    pub(super) fn new(addresses: &[SocketAddr], keys: &DnsKeys) -> Result<Self, NetError> {
        let server = |address: &SocketAddr| -> Result<NameServer, NetError> {
            let at_port = |mut connection: ConnectionConfig| {
                connection.port = address.port();
                connection
            };
            let connections =
                [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(at_port).to_vec();
            let server = NameServerConfig::new(address.ip(), true, connections);
            let mut options = ResolverOpts::default();
            options.timeout = keys.query_timeout;
            let context = Arc::new(PoolContext::new(options, TlsConfig::new()?));
            let provider = TokioRuntimeProvider::default();
            let client = NameServerPool::from_config([server], context, provider);
            Ok(NameServer { address: *address, client })
        };
        Ok(Self {
            servers: addresses.iter().map(server).collect::<Result<_, _>>()?,
            keys: keys.clone(),
            first: Mutex::new((0, Instant::now())),
        })
    }

    /// Whether these are the servers at these addresses.
    pub(super) fn are(&self, addresses: &[SocketAddr]) -> bool {
        self.servers.iter().map(|server| &server.address).eq(addresses)
    }

    /// Has the first one asked first again, if another one has been for so long.
    pub(super) fn prefer_first(&self, after: Duration) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.1.elapsed() >= after {
            *first = (0, Instant::now());
        }
    }

    /// The records of this type that a name has, aliases followed.
    pub(super) async fn look_up(&self, name: &Name, kind: RecordType) -> Lookup {
        let (mut name, mut smallest) = (name.clone(), u32::MAX);
        for _ in 0..MOST_ALIASES {
            match self.ask(&name, kind).await {
                Ok((_, bytes, Answer::Records { records, ttl })) => {
                    return Lookup::Records { records, ttl: smallest.min(ttl), bytes };
                }
                Ok((server, _, Answer::Absent { absence, ttl })) => {
                    return Lookup::Absent { absence, ttl, server };
                }
                Ok((_, _, Answer::Alias { name: target, ttl })) => {
                    (name, smallest) = (target, smallest.min(ttl));
                }
                Err(failures) => return Lookup::Failed(failures),
            }
        }
        let failure = Failure::Malformed("its aliases (CNAME) lead nowhere".to_owned());
        Lookup::Failed(
            self.servers.iter().map(|server| (server.address, failure.clone())).collect(),
        )
    }

    /// What the first server says that can say what is, and in how many bytes.
    async fn ask(
        &self,
        name: &Name,
        kind: RecordType,
    ) -> Result<(SocketAddr, u64, Answer), Vec<(SocketAddr, Failure)>> {
        let (first, _) = *self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failures = Vec::new();
        for attempt in 0..self.keys.attempts {
            for step in 0..self.servers.len() {
                let index = (first + step) % self.servers.len();
                let server = &self.servers[index];
                match self.ask_one(server, name, kind).await {
                    Ok((bytes, answer)) => {
                        if index != first {
                            let mut first =
                                self.first.lock().unwrap_or_else(PoisonError::into_inner);
                            *first = (index, Instant::now());
                        }
                        return Ok((server.address, bytes, answer));
                    }
                    Err(failure) if attempt == 0 => failures.push((server.address, failure)),
                    Err(failure) => failures[step].1 = failure,
                }
            }
        }
        Err(failures)
    }

    async fn ask_one(
        &self,
        server: &NameServer,
        name: &Name,
        kind: RecordType,
    ) -> Result<(u64, Answer), Failure> {
        let query = Query::query(name.clone(), kind);
        let answer = server.client.lookup(query, DnsRequestOptions::default()).first_answer();
        let bound = self.keys.query_timeout;
        match timeout(bound, answer).await {
            Err(_) => Err(Failure::NoAnswer(bound)),
            Ok(Ok(message)) => Ok((message.as_buffer().len() as u64, read(name, kind, &message)?)),
            Ok(Err(error)) => Ok((0, of_error(error, bound)?)),
        }
    }
}

/// The system's name servers. Blocks.
///
/// # Errors
/// If the file can't be read, or names none.
pub(super) fn of_system(path: &Path) -> Result<Vec<SocketAddr>, SourceErrorKind> {
    use std::io::Read as _;
    let fault =
        |what: String| SourceErrorKind::Setup(format!("{}: {what}; set servers", path.display()));
    let mut text = Vec::new();
    let file = std::fs::File::open(path);
    file.and_then(|file| file.take(MOST_BYTES).read_to_end(&mut text))
        .map_err(|error| fault(error.to_string()))?;
    let (parsed, _) = resolv_conf::Config::parse_with_errors(&text);
    // One with a zone is of a single link: the client can't be told which.
    let servers = parsed.nameservers.into_iter().filter_map(|server| match server {
        resolv_conf::ScopedIp::V4(ip) => Some(SocketAddr::new(ip.into(), 53)),
        resolv_conf::ScopedIp::V6(ip, None) => Some(SocketAddr::new(ip.into(), 53)),
        resolv_conf::ScopedIp::V6(_, Some(_)) => None,
    });
    let servers: Vec<_> = servers.take(MOST_SERVERS).collect();
    if servers.is_empty() {
        return Err(fault("it names no name server".to_owned()));
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_name_servers_are_those_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        std::fs::write(
            &path,
            "# made by hand\nsearch example.test\nnameserver 10.0.0.53\noptions ndots:5\n\
             nameserver fe80::1%eth0\nnameserver fd00::53\nnonsense\n",
        )
        .unwrap();
        let servers: Vec<_> = of_system(&path).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.53:53", "[fd00::53]:53"]);
        std::fs::write(&path, "search example.test\n").unwrap();
        let fault = of_system(&path).unwrap_err().to_string();
        assert!(fault.contains("names no name server; set servers"), "{fault}");
        let fault = of_system(&folder.path().join("gone")).unwrap_err().to_string();
        assert!(fault.contains("gone: No such file") && fault.contains("set servers"), "{fault}");
    }
}
