//! The servers that a file has which is in place: those of a backend whose list nobody knows stay
//! so.

use std::collections::{BTreeMap, BTreeSet};

use super::words::words;
use crate::server::{MAX_WEIGHT, Server, ServerAddress, ServerOptions, is_valid_name};

/// What begins a section.
const SECTIONS: &str = "acme backend cache crt-store defaults fcgi-app frontend global http-errors \
    listen log-forward log-profile mailers peers program resolvers ring traces userlist";

/// The servers of these backends, where the text has such a backend; none where it has servers that
/// can't be told as Mapsmith writes them.
pub fn servers(text: &str, backends: &BTreeSet<&str>) -> BTreeMap<String, Option<Vec<Server>>> {
    let mut found: BTreeMap<String, Option<Vec<Server>>> = BTreeMap::new();
    let mut within: Option<String> = None;
    for line in text.lines() {
        let Some(first) = line.split_ascii_whitespace().next() else { continue };
        if SECTIONS.split_ascii_whitespace().any(|section| section == first) {
            let name = words(line).ok().and_then(|words| words.into_iter().nth(1));
            within = name.filter(|name| first == "backend" && backends.contains(name.as_str()));
            if let Some(name) = &within {
                found.entry(name.clone()).or_insert_with(|| Some(Vec::new()));
            }
            continue;
        }
        let Some(servers) = within.as_ref().and_then(|name| found.get_mut(name)) else { continue };
        match first {
            "server" => match (server(line), servers.as_mut()) {
                (Some(server), Some(servers)) => servers.push(server),
                _ => *servers = None,
            },
            "server-template" => *servers = None,
            _ => {}
        }
    }
    found
}

/// `server NAME IP:PORT [weight NUMBER] [backup] ..`.
fn server(line: &str) -> Option<Server> {
    let words = words(line).ok()?;
    let mut words = words.iter().map(String::as_str).skip(1).peekable();
    let name = words.next().filter(|name| is_valid_name(name))?.to_owned();
    let address: std::net::SocketAddr = words.next()?.parse().ok()?;
    let weight = match words.next_if_eq(&"weight") {
        Some(_) => Some(words.next()?.parse().ok().filter(|weight| *weight <= MAX_WEIGHT)?),
        None => None,
    };
    let backup = words.next_if_eq(&"backup").is_some();
    let options = ServerOptions { other: words.map(str::to_owned).collect(), ..Default::default() };
    let address = ServerAddress { ip: address.ip(), port: address.port() };
    Some(Server { name, address, weight, backup, options })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::render;
    use crate::render::tests::{backend, server};

    fn read(text: &str) -> BTreeMap<String, Option<Vec<Server>>> {
        servers(text, &BTreeSet::from(["web", "none"]))
    }

    #[test]
    fn the_servers_of_a_rendered_file_are_rendered_the_same_again() {
        let mut web = backend("web");
        let options = ["check", "inter 2s", "maxconn 5", "sni str(a)"].map(str::to_owned);
        web.servers = vec![
            Server {
                weight: Some(7),
                backup: true,
                options: ServerOptions::parse(&options).unwrap(),
                ..server("a", "10.0.0.1:80")
            },
            server("b", "[2001:db8::1]:8080"),
        ];
        let mut config = crate::config::Config {
            backends: vec![web, backend("none"), backend("other")],
            ..Default::default()
        };
        let text = render(&config).text().to_owned();
        let mut found = read(&text);
        assert_eq!(found.remove("none"), Some(Some(Vec::new())));
        let again = found.remove("web").flatten().unwrap();
        assert_eq!(again.len(), 2);
        assert!(found.is_empty(), "{found:?}");
        config.backends[0].servers = again;
        assert_eq!(render(&config).text(), text);
    }

    #[test]
    fn servers_that_can_not_be_told_are_not_taken_for_none() {
        for line in [
            "server a web.example.com:80",
            "server a 10.0.0.1:80 weight many",
            "server a 10.0.0.1:80 id \"$ID\"",
            "server-template a 5 10.0.0.1:80",
        ] {
            let text = format!("backend web\n  server b 10.0.0.2:80\n  {line}\nbackend none\n");
            let found = read(&text);
            assert_eq!(found["web"], None, "{line}");
            assert_eq!(found["none"], Some(Vec::new()), "{line}");
        }
        assert!(read("listen web\n  server a 10.0.0.1:80\n").is_empty());
    }
}
