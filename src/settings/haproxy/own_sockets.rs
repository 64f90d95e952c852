//! Where no frontend may listen: Mapsmith's own sockets, and those that it reaches HAProxy by.
//!
//! HAProxy puts its socket in the place of whatever has the path, and shares a port with whoever
//! lets it. A frontend there would cut Mapsmith off, or answer in its name.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use haproxy_runtime::RuntimeAddress;
use mapsmith_core::config::Native;
use mapsmith_core::render::words::words;

use super::Haproxy;
use crate::settings::Settings;

/// An address of a `bind` line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Path(PathBuf),
    /// All ports from the first to the last.
    Internet(IpAddr, u16, u16),
    /// An abstract socket, a descriptor, or what HAProxy is to judge.
    Elsewhere,
}

/// What is not for frontends, by its key in the settings.
struct Own {
    key: String,
    at: At,
    /// Whether all paths below it are Mapsmith's, too.
    is_folder: bool,
}

pub(in crate::settings) fn problems(settings: &Settings, problems: &mut Vec<String>) {
    let Some(haproxy) = &settings.haproxy else { return };
    let (own, prefix) = (own(settings, haproxy), prefix(&haproxy.global));
    let mut check = |place: String, address: &str| {
        if let Some(why) = why_not(address, &prefix, &own) {
            problems.push(format!("{place}: {address} {why}"));
        }
    };
    for (index, frontend) in settings.frontends.iter().enumerate() {
        for (at, bind) in frontend.bind.iter().enumerate() {
            check(format!("frontend[{index}].bind[{at}]"), bind.address.as_str());
        }
        for (at, native) in frontend.natives.iter().enumerate() {
            let Ok(words) = words(native.as_str()) else { continue };
            let [first, addresses, ..] = &words[..] else { continue };
            for address in addresses.split(',').filter(|_| first == "bind") {
                check(format!("frontend[{index}].natives[{at}]"), address);
            }
        }
    }
}

/// Everything that is not for frontends.
fn own(settings: &Settings, haproxy: &Haproxy) -> Vec<Own> {
    let mut own = Vec::new();
    let mut add = |key: String, at: At| own.push(Own { key, at, is_folder: false });
    let path = |path: &Path| At::Path(path.to_owned());
    let listens = |address: SocketAddr| match address.port() {
        0 => At::Elsewhere,
        port => At::Internet(address.ip(), port, port),
    };
    if let Some(socket) = haproxy.model().socket {
        add("haproxy.socket".to_owned(), path(Path::new(socket.as_str())));
    }
    if let Some(socket) = haproxy.master_socket() {
        add("haproxy.master_socket".to_owned(), path(&socket));
    }
    let stats = haproxy.stats.as_ref().map(|stats| ("haproxy.stats.bind", &stats.bind));
    let metrics = haproxy.metrics.as_ref().map(|metrics| ("haproxy.metrics.bind", &metrics.bind));
    let health = haproxy.health.as_ref().map(|health| ("haproxy.health", health));
    for (key, bind) in [stats, metrics, health].into_iter().flatten() {
        // What else they are is compared where all of HAProxy's addresses are.
        if let at @ At::Path(_) = at(bind.as_str(), "") {
            add(key.to_owned(), at);
        }
    }
    for (index, instance) in settings.instances.iter().enumerate() {
        let at = match &instance.runtime {
            RuntimeAddress::Unix(socket) => path(socket),
            RuntimeAddress::Tcp(address) => address.parse().map_or(At::Elsewhere, listens),
            _ => At::Elsewhere,
        };
        add(format!("instance[{index}].runtime"), at);
    }
    add("api.listen".to_owned(), listens(settings.api.listen));
    for clients in settings.compat.listeners() {
        add(format!("compat.{}.listen", clients.name), listens(clients.listen));
    }
    // With a backend the frontend is HAProxy's, and compared with the others.
    let commands = settings.commands.as_ref().filter(|it| it.backend.is_none());
    if let Some(address) = commands.and_then(|commands| commands.plain_address()) {
        add("commands.gateway".to_owned(), listens(address));
    }
    if haproxy.is_supervised() {
        let at = path(haproxy.files().path());
        own.push(Own { key: "haproxy.folder".to_owned(), at, is_folder: true });
    }
    own
}

/// Why a frontend may not listen there; none where it may.
fn why_not(address: &str, prefix: &str, own: &[Own]) -> Option<String> {
    match at(address, prefix) {
        At::Path(path) if !path.is_absolute() => {
            Some("is no whole path: HAProxy would look for it where it was started".to_owned())
        }
        At::Path(path) => {
            let wanted = forms(&path);
            let is_own = |it: &&Own| {
                let At::Path(of) = &it.at else { return false };
                let of = forms(of);
                let mut pairs = wanted.iter().flat_map(|one| of.iter().map(move |of| (one, of)));
                pairs.any(|(one, of)| one == of || it.is_folder && one.starts_with(of))
            };
            if let Some(own) = own.iter().find(is_own) {
                let lies = if own.is_folder { "lies in" } else { "is" };
                let text = "where Mapsmith's own sockets are; take another path";
                return Some(format!("{lies} {}, {text}", own.key));
            }
            let found = fs::symlink_metadata(&path).ok()?.file_type();
            (!found.is_socket()).then(|| {
                "is there and no socket: HAProxy would take its place; take another path".to_owned()
            })
        }
        At::Internet(ip, first, last) => {
            let is_own = |it: &&Own| match it.at {
                At::Internet(of, port, _) => {
                    let meets = ip == of || ip.is_unspecified() || of.is_unspecified();
                    meets && (first..=last).contains(&port)
                }
                _ => false,
            };
            let own = own.iter().find(is_own)?;
            Some(format!("is {}, where Mapsmith's own socket is; take another address", own.key))
        }
        At::Elsewhere => None,
    }
}

/// What `unix-bind prefix` puts before the paths of all frontends' sockets.
fn prefix(global: &[Native]) -> String {
    let of_line = |line: &Native| {
        let words = words(line.as_str()).ok().filter(|words| words[0] == "unix-bind")?;
        let at = words.iter().position(|word| word == "prefix")?;
        words.get(at + 1).cloned()
    };
    global.iter().filter_map(of_line).next_back().unwrap_or_default()
}

/// An address as HAProxy reads it.
fn at(address: &str, prefix: &str) -> At {
    let is_kind = |text: &str| text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'+');
    let (kind, rest) = match address.split_once('@').filter(|(kind, _)| is_kind(kind)) {
        Some((kind, rest)) => (kind.rsplit('+').next().unwrap_or_default(), rest),
        None if address.starts_with('/') => ("unix", address),
        None => ("", address),
    };
    match kind {
        "unix" | "uxst" | "uxdg" => At::Path(PathBuf::from(format!("{prefix}{rest}"))),
        "fd" | "sockpair" | "abns" | "abnsz" | "rhttp" => At::Elsewhere,
        kind => internet(rest, kind.ends_with('6')).unwrap_or(At::Elsewhere),
    }
}

/// `HOST:PORT` or `HOST:FIRST-LAST`.
fn internet(text: &str, is_v6: bool) -> Option<At> {
    let (host, ports) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip = match host {
        "" | "*" if is_v6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        "" | "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => host.parse::<IpAddr>().ok()?.to_canonical(),
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    Some(At::Internet(ip, first.parse().ok()?, last.parse().ok()?))
}

/// A path as it reads, without `.`, `..` and empty parts, and as the file system has its folder.
fn forms(path: &Path) -> Vec<PathBuf> {
    let mut read = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(part) => read.push(part),
            Component::ParentDir => _ = read.pop(),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let real = |path: &Path| Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?));
    let real = [real(path), real(&read)];
    std::iter::once(read).chain(real.into_iter().flatten()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use proptest::prelude::*;

    use super::*;
    use crate::settings::tests::load;

    /// What is wrong with a frontend of these lines, in a folder of its own.
    fn told(folder: &Path, frontend: &str, more: &str) -> String {
        let folder = folder.display();
        let text = format!(
            "[haproxy]\nmanaged = true\nfolder = \"{folder}/h\"\n{more}\
            [api]\nlisten = \"127.0.0.1:7070\"\n[store]\npath = \"s.db\"\n\
            [compat.thalassa]\nlisten = \"127.0.0.1:9000\"\n\
            [[instance]]\nname = \"other\"\nruntime = \"unix@{folder}/other.sock\"\n\
            [[instance]]\nname = \"far\"\nruntime = \"tcp@127.0.0.1:9999\"\n\
            [[frontend]]\nname = \"web\"\ndefault_backend = \"app\"\n{frontend}\n\
            [[backend]]\nname = \"app\"\nservers = []\n"
        );
        load(&text, &[]).err().unwrap_or_default()
    }

    #[test]
    fn no_frontend_listens_where_mapsmith_does() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("h")).unwrap();
        symlink(folder.path().join("h"), folder.path().join("link")).unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let _there = UnixListener::bind(folder.path().join("free.sock")).unwrap();
        let here = folder.path().display();
        for (bind, part) in [
            (format!("unix@{here}/h/admin.sock"), "haproxy.socket"),
            (format!("unix@{here}/h/master.sock"), "haproxy.master_socket"),
            (format!("unix@{here}/h/x.sock"), "haproxy.folder"),
            (format!("unix@{here}//x/.././h/./x/y.sock"), "haproxy.folder"),
            (format!("unix@{here}/link/x.sock"), "haproxy.folder"),
            (format!("unix@{here}/link/../h/x.sock"), "haproxy.folder"),
            (format!("unix@{here}/other.sock"), "instance[0].runtime"),
            (format!("unix@{here}/file"), "is there and no socket"),
            (format!("unix@{here}"), "is there and no socket"),
            ("127.0.0.1:7070".to_owned(), "api.listen"),
            (":7070".to_owned(), "api.listen"),
            ("[::]:9000".to_owned(), "compat.thalassa.listen"),
            ("127.0.0.1:9999".to_owned(), "instance[1].runtime"),
        ] {
            for (key, lines) in [
                ("bind[0]", format!("bind = [\"{bind}\"]")),
                ("natives[0]", format!("bind = []\nnatives = [\"bind {bind} defer-accept\"]")),
                ("natives[0]", format!("bind = []\nnatives = [\"bind :81,{bind}\"]")),
            ] {
                let told = told(folder.path(), &lines, "");
                let place = format!("frontend[0].{key}: {bind} ");
                assert!(told.contains(&place) && told.contains(part), "{lines}: {told}");
            }
        }
        for bind in [
            format!("{here}/h/x.sock"),
            format!("uxst@{here}/h/x.sock"),
            format!("stream+unix@{here}/h/x.sock"),
            "unix@x.sock".to_owned(),
            "ipv4@:7000-7100".to_owned(),
        ] {
            let lines = format!("bind = []\nnatives = [\"bind {bind}\"]");
            assert!(told(folder.path(), &lines, "").contains("frontend[0].natives[0]"), "{bind}");
        }
        let global = format!("global = [\"unix-bind mode 600 prefix {here}/h\"]\n");
        let moved = told(folder.path(), "bind = [\"unix@/x.sock\"]", &global);
        assert!(moved.contains("lies in haproxy.folder"), "{moved}");
        for bind in [
            format!("unix@{here}/free.sock"),
            format!("unix@{here}/hx.sock"),
            "127.0.0.2:7070".to_owned(),
            "127.0.0.1:7071".to_owned(),
        ] {
            assert_eq!(told(folder.path(), &format!("bind = [\"{bind}\"]"), ""), "", "{bind}");
        }
        let lines = "bind = []\nnatives = [\"bind abns@x\", \"bind unix@/run/a,:80 ssl crt /c\"]";
        assert_eq!(told(folder.path(), lines, ""), "");
    }

    const DETOUR: &str = "(/\\.|/|/x/\\.\\.|/x/y/\\.\\./\\.\\.)";

    proptest! {
        #[test]
        fn no_detour_leads_into_a_folder(
            first in DETOUR, second in DETOUR, third in DETOUR
        ) {
            let own = [Own {
                key: "haproxy.folder".to_owned(),
                at: At::Path("/no/folder".into()),
                is_folder: true,
            }];
            let path = format!("unix@{first}/no{second}/folder{third}/x.sock");
            prop_assert!(why_not(&path, "", &own).is_some(), "{}", path);
        }
    }
}
