//! Addresses that somebody else has. HAProxy's check opens no port, and a reload that fails at one
//! is not for nothing: 2.6 loses the sockets that it inherited, and from 3.2 on the worker that
//! goes on has lost the Runtime API's socket.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use mapsmith_core::config::values::BindAddress;
use mapsmith_core::config::{Config, ListensAt};
use mapsmith_core::render::verdict::Remark;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketType, bind, socket};

/// An alert for each address that another program has, beside those that are HAProxy's own.
pub(crate) fn taken(config: &Config, is_own: impl Fn(&BindAddress) -> bool) -> Vec<Remark> {
    let frontends = config.frontends.iter().enumerate();
    let binds = frontends.flat_map(|(index, frontend)| {
        let binds = frontend.binds.iter().enumerate();
        binds.map(move |(at, bind)| (format!("frontend[{index}].bind[{at}]"), &bind.address))
    });
    let process = &config.process;
    let stats = process.stats.as_ref().map(|stats| ("haproxy.stats.bind", &stats.bind));
    let metrics = process.metrics.as_ref().map(|metrics| ("haproxy.metrics.bind", &metrics.bind));
    let health = process.health.as_ref().map(|health| ("haproxy.health", &health.bind));
    let challenges = process
        .challenges
        .as_ref()
        .and_then(|challenges| challenges.bind.as_ref().map(|bind| ("acme.port_80", bind)));
    let commands = config.command_gateway().map(|it| ("commands.gateway", &it.bind));
    let of_process = [stats, metrics, health, challenges, commands].into_iter().flatten();
    let binds = binds.chain(of_process.map(|(setting, bind)| (setting.to_owned(), bind)));
    let others = binds.filter(|(_, address)| !is_own(address));
    let taken = others.filter(|(_, address)| address.internet().is_some_and(is_taken));
    let alert = |(setting, address)| {
        Remark::alert(Some(setting), format!("{address} is taken by another program"))
    };
    taken.map(alert).collect()
}

/// Why this user can't listen there, whoever has the address.
pub(crate) fn obstacle(address: &BindAddress) -> Option<String> {
    let address = address.internet()?;
    let why = match try_to_bind(address)? {
        Errno::ADDRINUSE => "is taken by another program",
        Errno::ACCESS => "may not be listened on by the user that Mapsmith runs as",
        Errno::ADDRNOTAVAIL => "is no address of this machine",
        _ => return None,
    };
    Some(format!("{address} {why}"))
}

/// That another program has the address, if so.
pub(super) fn taken_by_others(address: &BindAddress) -> Option<String> {
    is_taken(address.internet()?).then(|| format!("{address} is taken by another program"))
}

/// Whether nobody else can listen there. HAProxies share a port, so one that has it does not count.
fn is_taken(address: SocketAddr) -> bool {
    try_to_bind(address) == Some(Errno::ADDRINUSE)
}

/// What keeps a socket from this address, if anything does.
fn try_to_bind(address: SocketAddr) -> Option<Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket(family, SocketType::STREAM, None).ok()?;
    set_socket_reuseaddr(&socket, true).and(set_socket_reuseport(&socket, true)).ok()?;
    // What else may be wrong is HAProxy's to say. It does not listen, so nobody connects to it.
    bind(&socket, &address).err()
}

/// Where a rendered configuration listens: one word of it is one address.
pub(crate) fn of_text(text: &str) -> BTreeSet<ListensAt> {
    let words = text.lines().flat_map(str::split_ascii_whitespace);
    let addresses = words.filter_map(|word| BindAddress::try_from(word.to_owned()).ok());
    addresses.map(|address| address.listens_at()).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_of_another_program_is_taken_and_one_that_is_shared_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(is_taken(address));
        drop(listener);
        assert!(!is_taken(address));
        // As HAProxy listens.
        let shared = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        set_socket_reuseport(&shared, true).unwrap();
        bind(&shared, &address).unwrap();
        rustix::net::listen(&shared, 1).unwrap();
        assert!(!is_taken(address));
    }
}
