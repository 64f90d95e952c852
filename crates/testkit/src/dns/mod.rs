//! Real name servers of a test's own: BIND, whose zone a test changes while it runs, and dnsmasq,
//! which answers from a file. Both answer over UDP and TCP, for the zone `test.`.

mod bind;
mod dnsmasq;

use std::net::SocketAddr;
use std::process::Command;

pub use bind::Bind;
pub use dnsmasq::Dnsmasq;

use crate::program;

/// The zone that both answer for.
pub const ZONE: &str = "test";

/// What `dig` finds: the answer's records, each as its type has it (`10.0.0.1`, or `10 60 80
/// a.test.`), sorted, and the status (`NOERROR`, `NXDOMAIN`, ...). Nothing where no answer came.
pub fn dig(server: SocketAddr, name: &str, of: &str) -> Option<(String, Vec<String>)> {
    let (at, port) = (format!("@{}", server.ip()), server.port().to_string());
    let arguments = [&at, "-p", &port, "+time=1", "+tries=1", "+noall", "+comments", "+answer"];
    let output = Command::new(program("dig")).args(arguments).args([name, of]).output();
    let printed = String::from_utf8_lossy(&output.expect("dig starts").stdout).into_owned();
    let (_, status) = printed.split_once("status: ")?;
    let status = status.split(',').next()?.to_owned();
    let records = printed.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
    let value = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        (words.get(3) == Some(&of)).then(|| words[4..].join(" "))
    };
    let mut records: Vec<_> = records.filter_map(value).collect();
    records.sort();
    Some((status, records))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(server: SocketAddr, name: &str, of: &str) -> (String, Vec<String>) {
        dig(server, name, of).expect("an answer")
    }

    fn records(records: &[&str]) -> (String, Vec<String>) {
        ("NOERROR".to_owned(), records.iter().map(|record| (*record).to_owned()).collect())
    }

    #[test]
    fn binds_zone_changes_while_it_runs_and_survives_a_restart() {
        let bind = Bind::start();
        let at = bind.address();
        assert_eq!(found(at, "web.test", "A").0, "NXDOMAIN");
        bind.add("web", 1, "A", "10.0.0.1");
        bind.add("web", 1, "A", "10.0.0.2");
        bind.add("_web._tcp", 1, "SRV", "10 60 8080 web.test.");
        assert_eq!(found(at, "web.test", "A"), records(&["10.0.0.1", "10.0.0.2"]));
        bind.kill();
        assert!(dig(at, "web.test", "A").is_none());
        bind.restart();
        assert_eq!(found(at, "_web._tcp.test", "SRV"), records(&["10 60 8080 web.test."]));
        bind.delete("web", "A 10.0.0.1");
        assert_eq!(found(at, "web.test", "A"), records(&["10.0.0.2"]));
        // Another type: the name is there, and has none.
        assert_eq!(found(at, "web.test", "AAAA"), records(&[]));
        bind.update(&["delete web.test. A", "add web.test. 1 AAAA ::1"]);
        assert_eq!(found(at, "web.test", "AAAA"), records(&["::1"]));
    }

    #[test]
    fn five_hundred_records_come_by_tcp() {
        let bind = Bind::start();
        let adds: Vec<_> = (0..500)
            .map(|number| format!("add many.test. 1 A 10.0.{}.{}", number / 250, number % 250 + 1))
            .collect();
        bind.update(&adds);
        assert_eq!(found(bind.address(), "many.test", "A").1.len(), 500);
    }

    #[test]
    fn dnsmasq_answers_from_its_file() {
        let dnsmasq = Dnsmasq::start(
            &[("web", "10.0.0.1"), ("web", "10.0.0.2")],
            &[("_web._tcp", "web", 8080, 10, 60)],
        );
        let at = dnsmasq.address();
        assert_eq!(found(at, "web.test", "A"), records(&["10.0.0.1", "10.0.0.2"]));
        assert_eq!(found(at, "_web._tcp.test", "SRV"), records(&["10 60 8080 web.test."]));
        assert_eq!(found(at, "gone.test", "A").0, "NXDOMAIN");
        dnsmasq.hosts(&[("web", "10.0.0.3")]);
        assert_eq!(found(at, "web.test", "A"), records(&["10.0.0.3"]));
    }
}
