//! Addresses that somebody else has, or nobody can have. HAProxy's check opens no port, and a reload
//! that fails at one is not for nothing: 2.6 loses the sockets that it inherited, and from 3.2 on the
//! worker that goes on has lost the Runtime API's socket.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use mapsmith_core::config::values::BindAddress;
use mapsmith_core::config::{Config, ListensAt};
use mapsmith_core::render::verdict::Remark;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketType, bind, socket};

/// What is said of an address that no interface has.
const NO_ADDRESS: &str = "is no address of this machine";

/// An alert for each address that another program has, beside those that are HAProxy's own.
pub(crate) fn taken(config: &Config, is_own: impl Fn(&BindAddress) -> bool) -> Vec<Remark> {
    let others = binds(config).filter(|(_, address)| !is_own(address));
    let taken = others.filter(|(_, address)| address.internet().is_some_and(is_taken));
    let alert = |(setting, address)| {
        Remark::alert(Some(setting), format!("{address} is taken by another program"))
    };
    taken.map(alert).collect()
}

/// An alert for each address that no HAProxy on this host can have, whoever else listens: one of
/// another machine, and a unix socket without a folder. It would not start, nor reload. Not asked
/// of those that it listens at already: its workers inherit them, also where they are gone since.
pub(crate) fn unfit(config: &Config, is_own: impl Fn(&BindAddress) -> bool) -> Vec<Remark> {
    // A template may have HAProxy listen otherwise (`transparent`), or elsewhere.
    if config.template.is_some() {
        return Vec::new();
    }
    // Lines that nobody reads here may put something before each path.
    let is_moved = !config.includes.is_empty()
        || config.process.global.iter().any(|line| line.as_str().contains("unix-bind"));
    let others = binds(config).filter(|(_, address)| !is_own(address));
    let alert = |(setting, address): (String, &BindAddress)| {
        let why = match address.listens_at() {
            ListensAt::Internet(at) if try_to_bind(at) == Some(Errno::ADDRNOTAVAIL) => {
                NO_ADDRESS.to_owned()
            }
            ListensAt::Path(_) if !is_moved => folder_obstacle(address)?,
            _ => return None,
        };
        Some(Remark::alert(Some(setting), format!("{address} {why}")))
    };
    others.filter_map(alert).collect()
}

/// Why there is no room for a unix socket.
fn folder_obstacle(address: &BindAddress) -> Option<String> {
    // As it is written: another folder may lie behind a link.
    let folder = Path::new(address.as_str().strip_prefix("unix@")?).parent()?;
    match fs::metadata(folder) {
        Ok(found) if !found.is_dir() => {
            Some(format!("has no folder: {} is none", folder.display()))
        }
        Err(error) => match error.kind() {
            ErrorKind::NotFound => {
                Some(format!("has no folder: {} is not there", folder.display()))
            }
            ErrorKind::NotADirectory => {
                Some(format!("has no folder: {} is below a file", folder.display()))
            }
            // HAProxy may be allowed what Mapsmith is not.
            _ => None,
        },
        Ok(_) => None,
    }
}

/// All addresses that HAProxy listens at, each with its setting.
fn binds(config: &Config) -> impl Iterator<Item = (String, &BindAddress)> {
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
    binds.chain(of_process.map(|(setting, bind)| (setting.to_owned(), bind)))
}

/// Why this user can't listen there, whoever has the address.
pub(crate) fn obstacle(address: &BindAddress) -> Option<String> {
    let address = address.internet()?;
    let why = match try_to_bind(address)? {
        Errno::ADDRINUSE => "is taken by another program",
        Errno::ACCESS => "may not be listened on by the user that Mapsmith runs as",
        Errno::ADDRNOTAVAIL => NO_ADDRESS,
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

    use mapsmith_core::config::values::Name;
    use mapsmith_core::config::{Bind, Frontend, KeepAlive, Mode, Native, Template};

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
    #[test]
    fn an_address_of_another_machine_and_a_socket_without_a_folder_are_unfit() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().display();
        fs::write(folder.path().join("file"), "").unwrap();
        let bind = |text: &str| Bind {
            address: BindAddress::try_from(text.to_owned()).unwrap(),
            tls: None,
            accept_proxy: false,
        };
        let frontend = |binds| Frontend {
            name: Name::try_from("web".to_owned()).unwrap(),
            mode: Mode::Http,
            binds,
            maxconn: None,
            keep_alive: KeepAlive::Both,
            forwarded_for: false,
            route: None,
            rules: Vec::new(),
            default_backend: None,
            natives: Vec::new(),
        };
        let told = |config: &Config| -> Vec<String> {
            unfit(config, |_| false).into_iter().map(|remark| remark.text).collect()
        };
        // For documentation alone (RFC 5737).
        let texts = [
            "192.0.2.1:21397".to_owned(),
            format!("unix@{here}/none/x.sock"),
            format!("unix@{here}/file/x.sock"),
            format!("unix@{here}/x.sock"),
            "127.0.0.1:21397".to_owned(),
            ":21397".to_owned(),
            "fd@7".to_owned(),
        ];
        let binds: Vec<_> = texts.iter().map(|text| bind(text)).collect();
        let mut config = Config { frontends: vec![frontend(binds)], ..Config::default() };
        let all = [
            "192.0.2.1:21397 is no address of this machine".to_owned(),
            format!("unix@{here}/none/x.sock has no folder: {here}/none is not there"),
            format!("unix@{here}/file/x.sock has no folder: {here}/file is none"),
        ];
        assert_eq!(told(&config), all);
        assert_eq!(unfit(&config, |_| true), [], "they are HAProxy's own");
        let moved = Native::try_from("unix-bind prefix /x".to_owned()).unwrap();
        config.process.global = vec![moved];
        assert_eq!(told(&config), all[..1], "paths lead elsewhere");
        config.template = Some(Template { name: "t".to_owned(), source: "".into() });
        assert_eq!(told(&config), [""; 0], "the template says how HAProxy listens");
    }
}
