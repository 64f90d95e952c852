//! Who listens at an address beside HAProxy, as far as `/proc` tells. A program that shares its
//! port (`SO_REUSEPORT`) takes a part of the connections, and nothing refuses that: neither
//! HAProxy's check nor its start.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use mapsmith_core::config::Config;
use mapsmith_core::config::values::BindAddress;

/// The state of a socket that listens, in the kernel's table.
const LISTENS: &str = "0A";

/// A frontend's address that another program listens at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shared {
    pub frontend: String,
    /// Like `bind[0]`.
    pub setting: String,
    /// Where and who.
    pub text: String,
}

/// The addresses of frontends that another program than HAProxy with this file listens at. What is
/// not known to be another one's is not told.
pub(crate) fn shared(config: &Config, file: &Path) -> Vec<Shared> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).ok());
    let listening: Vec<_> =
        tables.iter().flatten().flat_map(|table| table.lines().filter_map(listener)).collect();
    let at = |bind: &BindAddress| {
        let address = bind.internet();
        let meets = listening.iter().filter(move |(of, _)| address.is_some_and(|it| meet(it, *of)));
        meets.map(|(_, inode)| *inode).collect::<BTreeSet<u64>>()
    };
    let frontends = config.frontends.iter();
    let binds = frontends.flat_map(|frontend| {
        let binds = frontend.binds.iter().enumerate();
        binds.map(move |(index, bind)| (frontend.name.as_str(), index, &bind.address))
    });
    let taken: Vec<_> = binds
        .map(|(frontend, index, bind)| (frontend, index, bind, at(bind)))
        .filter(|(.., inodes)| !inodes.is_empty())
        .collect();
    if taken.is_empty() {
        return Vec::new();
    }
    let holders = holders(&taken.iter().flat_map(|(.., inodes)| inodes).copied().collect());
    let told = taken.into_iter().filter_map(|(frontend, index, bind, inodes)| {
        let who = inodes.iter().find_map(|inode| other(holders.get(inode)?, file))?;
        Some(Shared {
            frontend: frontend.to_owned(),
            setting: format!("bind[{index}]"),
            text: format!("{who} listens at {bind} too; until it ends connections may go there"),
        })
    });
    told.collect()
}

/// A socket of the kernel's table that listens: where, and which one.
fn listener(line: &str) -> Option<(SocketAddr, u64)> {
    // `  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 INODE ..`
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != LISTENS {
        return None;
    }
    let (host, port) = address.split_once(':')?;
    let words: Vec<u32> = (0..host.len() / 8)
        .filter_map(|at| u32::from_str_radix(host.get(at * 8..at * 8 + 8)?, 16).ok())
        .collect();
    // Each word is in the machine's own order.
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    let address = SocketAddr::new(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?);
    Some((address, inode.parse().ok()?))
}

/// Whether connections to one may be the other's.
fn meet(bind: SocketAddr, other: SocketAddr) -> bool {
    let is_any = |ip: IpAddr| ip.is_unspecified();
    let is_same_kind = bind.is_ipv4() == other.is_ipv4();
    bind.port() == other.port()
        && (bind.ip() == other.ip()
            || (is_same_kind && (is_any(bind.ip()) || is_any(other.ip())))
            // One for all of IPv6 has mostly all of IPv4 too.
            || (other.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                && bind.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
}

/// The processes that have these sockets, of those that may be looked at.
fn holders(inodes: &BTreeSet<u64>) -> BTreeMap<u64, BTreeSet<u32>> {
    let mut found: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode = target.to_str().and_then(|text| {
                text.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
            });
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                found.entry(inode).or_default().insert(pid);
            }
        }
    }
    found
}

/// The program that has a socket, where no process has it that is HAProxy with this file, or holds
/// sockets for it.
fn other(holders: &BTreeSet<u32>, file: &Path) -> Option<String> {
    let commands: Option<Vec<_>> = holders.iter().map(|pid| command(*pid)).collect();
    let commands = commands?;
    let is_own = |(pid, name, arguments): &(u32, String, Vec<String>)| {
        *pid == std::process::id()
            || *pid == 1
            || name == "mapsmith"
            || has_file(arguments, file).unwrap_or(name.starts_with("haproxy"))
    };
    if commands.iter().any(is_own) {
        return None;
    }
    commands.first().map(|(pid, name, _)| format!("{name} (process {pid})"))
}

/// Whether one of these arguments is the file, or a folder above it; none where they can't be told
/// from it: by a path in a container, or from a folder that is not known.
fn has_file(arguments: &[String], file: &Path) -> Option<bool> {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let named = arguments.windows(2).filter(|pair| pair[0] == "-f").map(|pair| Path::new(&pair[1]));
    let named: Vec<_> = named.collect();
    if named.iter().any(|path| real(file).starts_with(real(path))) {
        return Some(true);
    }
    let are_known = named.iter().all(|path| path.is_absolute() && path.exists());
    (are_known && !named.is_empty()).then_some(false)
}

/// The name of a process, and what it was started with.
fn command(pid: u32) -> Option<(u32, String, Vec<String>)> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = arguments.split(|byte| *byte == 0);
    let arguments = arguments.map(|it| String::from_utf8_lossy(it).into_owned()).collect();
    Some((pid, name, arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_the_kernels_table_is_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  \
            1000        0 4711 1 0000000000000000 100 0 0 10 0";
        let local = u32::from_ne_bytes([127, 0, 0, 1]);
        let line = line.replace("0100007F", &format!("{local:08X}"));
        assert_eq!(listener(&line), Some(("127.0.0.1:8080".parse().unwrap(), 4711)));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None, "it is connected");
        let six = line.replace(&format!("{local:08X}"), &"0".repeat(32));
        assert_eq!(listener(&six), Some(("[::]:8080".parse().unwrap(), 4711)));
        assert_eq!(listener("  sl  local_address rem_address   st"), None);
    }

    #[test]
    fn addresses_meet_where_connections_to_one_may_be_the_others() {
        let meet = |one: &str, other: &str| meet(one.parse().unwrap(), other.parse().unwrap());
        assert!(meet("0.0.0.0:80", "127.0.0.1:80") && meet("127.0.0.1:80", "0.0.0.0:80"));
        assert!(meet("0.0.0.0:80", "[::]:80"));
        assert!(!meet("127.0.0.1:80", "127.0.0.2:80") && !meet("127.0.0.1:80", "127.0.0.1:81"));
        assert!(!meet("[::1]:80", "0.0.0.0:80"));
    }

    #[test]
    fn what_this_process_holds_is_its_own() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let address = listener.local_addr().unwrap();
        let found = table.lines().filter_map(super::listener).find(|(of, _)| *of == address);
        let inode = found.unwrap().1;
        let holders = holders(&BTreeSet::from([inode]));
        assert!(holders[&inode].contains(&std::process::id()), "{holders:?}");
        assert_eq!(other(&holders[&inode], Path::new("/etc/haproxy/haproxy.cfg")), None);
    }

    #[test]
    fn a_haproxy_is_known_by_its_file_and_in_doubt_it_is_our_own() {
        let folder = tempfile::tempdir().unwrap();
        let (own, other) = (folder.path().join("haproxy.cfg"), folder.path().join("other.cfg"));
        fs::write(&own, "").unwrap();
        fs::write(&other, "").unwrap();
        let has = |file: &Path| {
            let arguments = ["haproxy", "-W", "-f", file.to_str().unwrap()].map(str::to_owned);
            has_file(&arguments, &own)
        };
        assert_eq!(has(&own), Some(true));
        assert_eq!(has(folder.path()), Some(true), "all files of the folder");
        assert_eq!(has(&other), Some(false));
        assert_eq!(has(Path::new("/of/a/container/haproxy.cfg")), None);
        assert_eq!(has(Path::new("haproxy.cfg")), None);
    }
}
