//! DNS as a source of servers: real name servers, and what each of their answers means.

mod lines;

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith::settings::Selector;
use mapsmith::source::{self, Extent, Feed, Polled};
use mapsmith_core::server::list::Host;
use mapsmith_core::status::PollKind;
use mapsmith_core::{Invalid, ServerList, Snapshot};
use serde_json::{Value, json};

use crate::sources::assert_says;
use crate::support::dns::{Bind, Dnsmasq};

/// One name of a source, and what it said last.
struct Name {
    feed: Box<dyn Feed<ServerList>>,
    current: Option<Snapshot<ServerList>>,
}

impl Name {
    /// A source of these name servers and further settings, and a selector of it.
    fn new(servers: &[String], settings: Value, from: Value) -> Self {
        let mut all = json!({"name": "dns", "type": "dns", "servers": servers});
        all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let settings = serde_json::from_value(all).unwrap();
        let registry = source::registry(&settings, true).unwrap_or_else(|error| panic!("{error}"));
        let mut selector = json!({"source": "dns"});
        for (key, value) in from.as_object().unwrap() {
            let text = value.as_str().map_or(value.to_string(), str::to_owned);
            selector[key] = if value.is_array() { value.clone() } else { json!([text]) };
        }
        let selector: Selector = serde_json::from_value(selector).unwrap();
        Self { feed: registry.servers(&selector).unwrap(), current: None }
    }

    async fn poll(&mut self) -> Result<Polled<ServerList>, String> {
        let poll = self.feed.poll(Extent::Changes, self.current.as_ref(), Timestamp::UNIX_EPOCH);
        let polled = poll.await.map_err(|error| error.to_string())?;
        self.current = Some(Snapshot {
            entries: Arc::clone(&polled.entries),
            rejections: Arc::clone(&polled.rejections),
            answered_at: Timestamp::UNIX_EPOCH,
        });
        Ok(polled)
    }

    /// `name address:port`, and weight and `backup` where there are.
    async fn servers(&mut self) -> Vec<String> {
        described(&self.poll().await.unwrap_or_else(|error| panic!("{error}")))
    }

    async fn failure(&mut self) -> String {
        match self.poll().await {
            Ok(polled) => panic!("an answer: {:?}", described(&polled)),
            Err(message) => message,
        }
    }
}

fn described(polled: &Polled<ServerList>) -> Vec<String> {
    let servers = polled.entries.servers.iter().map(|server| {
        let address = match &server.host {
            Host::Address(ip) => std::net::SocketAddr::new(*ip, server.port).to_string(),
            Host::Name(name) => format!("{name}:{}", server.port),
        };
        let weight = server.weight.map(|weight| format!(" {weight}")).unwrap_or_default();
        let backup = if server.backup { " backup" } else { "" };
        format!("{} {address}{weight}{backup}", server.name)
    });
    servers.collect()
}

const WEB: &str = "web.example.test";

fn host(name: &str) -> Value {
    json!({"name": name, "port": 8080})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hosts_addresses_are_servers_however_the_name_is_written_and_whatever_it_stands_for() {
    let bind = Bind::start(&[
        "web.example.test. A 10.0.0.2",
        "web.example.test. A 10.0.0.1",
        "web.example.test. AAAA fd00::1",
        "www.example.test. CNAME Web.Example.test.",
        "six.example.test. AAAA fd00::6",
    ]);
    let dnsmasq = Dnsmasq::start(&[
        "host-record=web.example.test,10.0.0.2,fd00::1",
        "host-record=web.example.test,10.0.0.1",
        "host-record=six.example.test,fd00::6",
        "cname=www.example.test,web.example.test",
    ]);
    let four = ["10.0.0.1:8080 10.0.0.1:8080", "10.0.0.2:8080 10.0.0.2:8080"];
    let six = "fd00::1:8080 [fd00::1]:8080";
    for server in [bind.address(), dnsmasq.address()] {
        let name = |from: Value| Name::new(std::slice::from_ref(&server), json!({}), from);
        for text in [WEB, "WEB.Example.TEST", "web.example.test.", "www.example.test"] {
            let all = name(host(text)).servers().await;
            assert_eq!(all, [&four[..], &[six]].concat(), "{text} at {server}");
        }
        let of = |family: &str| json!({"name": WEB, "port": 8080, "family": family});
        assert_eq!(name(of("ipv4")).servers().await, four);
        assert_eq!(name(of("ipv6")).servers().await, [six]);
        // One family is enough where both are asked for.
        let only = name(host("six.example.test")).servers().await;
        assert_eq!(only, ["fd00::6:8080 [fd00::6]:8080"]);
    }
    let mut web = Name::new(&[bind.address()], json!({}), host(WEB));
    let first = web.poll().await.unwrap();
    let second = web.poll().await.unwrap();
    assert_eq!(second.kind, PollKind::Full, "a poll asks");
    assert!(Arc::ptr_eq(&first.entries, &second.entries), "what is equal is held once");
    bind.update(&["delete web.example.test. A 10.0.0.2"]);
    assert_eq!(web.servers().await, [four[0], six], "nothing is kept from one poll to the next");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_hosts_are_one_list_and_one_that_is_gone_keeps_all_of_it() {
    let bind = Bind::start(&[
        "a.example.test. A 10.0.0.1",
        "b.example.test. A 10.0.0.2",
        "b.example.test. A 10.0.0.1",
    ]);
    let hosts = json!({"hosts": ["a.example.test:80", "B.example.test:80", "b.example.test:81"]});
    let mut both = Name::new(&[bind.address()], json!({}), hosts.clone());
    let expected = ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80", "10.0.0.2:81"];
    let expected = expected.map(|server| format!("{server} {server}"));
    assert_eq!(both.servers().await, expected);
    bind.update(&["delete a.example.test. A"]);
    let failure = both.failure().await;
    assert!(failure.contains("a.example.test (A, AAAA)"), "{failure}");
    let settings = json!({"nxdomain": "empty", "nodata": "empty"});
    let mut left = Name::new(&[bind.address()], settings, hosts);
    assert_eq!(left.servers().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_can_not_be_resolved_are_told_apart_and_each_is_kept_or_empty_by_its_setting() {
    let bind = Bind::start(&["text.example.test. TXT x"]);
    let silent = Bind::start(&[]);
    silent.signal("STOP");
    let dead = Bind::start(&[]);
    dead.kill();
    for (setting, server, name, parts) in [
        (
            "nxdomain",
            &bind,
            "gone.example.test",
            &[
                "gone.example.test (A, AAAA): 127.0.0.1:",
                "does not exist (NXDOMAIN)",
                "set nxdomain",
            ][..],
        ),
        ("nodata", &bind, "text.example.test", &["has no such record", "set nodata"]),
        ("servfail", &bind, "web.broken.test", &["could not resolve it (SERVFAIL)"]),
        ("no_answer", &silent, WEB, &["gave no answer within 300ms"]),
        ("no_answer", &dead, WEB, &["gave no answer within 300ms"]),
    ] {
        let servers = [server.address()];
        // As long as it takes, but where nothing comes.
        let patience = if setting == "no_answer" { "300ms" } else { "10s" };
        let quick = || json!({"query_timeout": patience, "attempts": 1});
        let message = Name::new(&servers, quick(), host(name)).failure().await;
        assert_says(&message, parts);
        let mut others = quick();
        for other in ["nxdomain", "nodata", "servfail", "no_answer"] {
            others[other] = json!(if other == setting { "keep" } else { "empty" });
        }
        let message = Name::new(&servers, others, host(name)).failure().await;
        assert_says(&message, parts);
        let mut empty = quick();
        empty[setting] = json!("empty");
        let mut feed = Name::new(&servers, empty, host(name));
        assert_eq!(feed.servers().await, [""; 0], "{setting}");
        let warning = feed.feed.notes().warning.unwrap();
        assert_says(&warning, &[name, &format!("{setting} = \"empty\"")]);
    }
    let mut all_empty = json!({"query_timeout": "10s", "attempts": 1});
    for setting in ["nxdomain", "nodata", "servfail", "no_answer"] {
        all_empty[setting] = json!("empty");
    }
    let message =
        Name::new(&[bind.address()], all_empty, host("web.elsewhere.test")).failure().await;
    assert_says(&message, &["web.elsewhere.test", "refused (REFUSED)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_name_server_can_not_say_what_is_the_next_one_is_asked() {
    let (first, second) = (Bind::start(&["web.example.test. A 10.0.0.1"]), Bind::start(&[]));
    second.update(&["add web.example.test. 1 A 10.0.0.2"]);
    let servers = [first.address(), second.address()];
    let quick = json!({"query_timeout": "1s", "attempts": 1});
    let mut web = Name::new(&servers, quick.clone(), host(WEB));
    let (one, two) = (["10.0.0.1:8080 10.0.0.1:8080"], ["10.0.0.2:8080 10.0.0.2:8080"]);
    assert_eq!(web.servers().await, one);
    first.signal("STOP");
    assert_eq!(web.servers().await, two);
    first.signal("CONT");
    assert_eq!(web.servers().await, two, "the one that answered last is asked first");
    let poll = web.feed.poll(Extent::Everything, None, Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(described(&poll), one, "a reload begins with the first one again");
    first.kill();
    assert_eq!(web.servers().await, two);
    second.signal("STOP");
    assert_says(
        &web.failure().await,
        &[
            &format!("{} gave no answer within 1s", second.address()),
            &format!("{} gave no answer within 1s", first.address()),
        ],
    );
    // The name does not exist: an answer, which the second server is not asked to confirm.
    first.restart();
    let message = Name::new(&servers, quick, host("gone.example.test")).failure().await;
    assert_says(&message, &["NXDOMAIN", &first.address()]);
}

/// A name server that answers over UDP with what this makes of the question, and over TCP with
/// these bytes, whatever is asked.
fn stand_in(answer: fn(&[u8]) -> Vec<u8>, over_tcp: &'static [u8]) -> String {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        // Another process may have the port there.
        let Ok(tcp) = TcpListener::bind(address) else { continue };
        thread::spawn(move || {
            let mut question = [0; 4096];
            while let Ok((length, client)) = udp.recv_from(&mut question) {
                let _ = udp.send_to(&answer(&question[..length]), client);
            }
        });
        thread::spawn(move || {
            for connection in tcp.incoming() {
                let Ok(mut connection) = connection else { return };
                let mut question = [0; 4096];
                let _ = connection.read(&mut question);
                let _ = connection.write_all(over_tcp);
            }
        });
        return address.to_string();
    }
}

/// The question as an answer with these flags.
fn answered(question: &[u8], flags: [u8; 2]) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2..4].copy_from_slice(&flags);
    answer
}

/// The question as an answer that is cut off: the client has to ask over TCP.
fn truncated(question: &[u8]) -> Vec<u8> {
    answered(question, [0x86, 0])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_garbage_or_cut_off_is_a_failure() {
    let large: &'static [u8] = Box::leak(vec![0xff; 10 * 1024 * 1024].into_boxed_slice());
    for (what, server) in [
        ("noise", stand_in(|_| b"noise, and more of it than a header".to_vec(), b"")),
        ("its own id and noise", stand_in(|question| [&question[..2], &[255; 40]].concat(), b"")),
        ("nothing", stand_in(|_| Vec::new(), b"")),
        (
            "another name",
            stand_in(
                |question| {
                    let mut answer = answered(question, [0x84, 0]);
                    answer[13] ^= 1;
                    answer
                },
                b"",
            ),
        ),
        ("cut off, and nothing over TCP", stand_in(truncated, b"")),
        ("cut off over TCP", stand_in(truncated, b"\x01\x00half")),
        ("noise over TCP", stand_in(truncated, b"\x00\x04half")),
        ("ten megabytes over TCP", stand_in(truncated, large)),
        (
            "a datagram as large as there is, that says to have 500 records",
            stand_in(
                |question| {
                    let mut answer = answered(question, [0x84, 0]);
                    answer[6..8].copy_from_slice(&500_u16.to_be_bytes());
                    answer.resize(60_000, 0xff);
                    answer
                },
                b"",
            ),
        ),
    ] {
        let settings = json!({"query_timeout": "300ms", "attempts": 1, "nodata": "empty"});
        let message = Name::new(&[server], settings, host(WEB)).failure().await;
        let place = "web.example.test (A, AAAA): 127.0.0.1:";
        assert!(message.starts_with(place), "{what}: {message}");
    }
}

const SERVICE: &str = "_web._tcp.example.test";

#[tokio::test(flavor = "multi_thread")]
async fn a_services_records_are_servers_with_weights_and_backups() {
    let bind = Bind::start(&[
        "_web._tcp.example.test. SRV 10 60 8001 a.example.test.",
        "_web._tcp.example.test. SRV 10 40 8002 B.example.test.",
        "_web._tcp.example.test. SRV 20 0 8003 c.example.test.",
        "a.example.test. A 10.0.0.1",
        "b.example.test. CNAME b2.example.test.",
        "b2.example.test. A 10.0.0.2",
        "c.example.test. A 10.0.0.3",
        "c.example.test. AAAA fd00::3",
        "_none._tcp.example.test. SRV 0 0 0 .",
    ]);
    let dnsmasq = Dnsmasq::start(&[
        "srv-host=_web._tcp.example.test,a.example.test,8001,10,60",
        "srv-host=_web._tcp.example.test,b.example.test,8002,10,40",
        "srv-host=_web._tcp.example.test,c.example.test,8003,20,0",
        "host-record=a.example.test,10.0.0.1",
        "host-record=b.example.test,10.0.0.2",
        "host-record=c.example.test,10.0.0.3,fd00::3",
    ]);
    for server in [bind.address(), dnsmasq.address()] {
        let mut web = Name::new(&[server], json!({}), json!({"srv": "_WEB._tcp.example.test."}));
        assert_eq!(
            web.servers().await,
            [
                "a.example.test:8001 10.0.0.1:8001 60",
                "b.example.test:8002 10.0.0.2:8002 40",
                "c.example.test:8003:10.0.0.3 10.0.0.3:8003 1 backup",
                "c.example.test:8003:fd00::3 [fd00::3]:8003 1 backup",
            ]
        );
    }
    let none = json!({"srv": "_none._tcp.example.test"});
    let message = Name::new(&[bind.address()], json!({}), none.clone()).failure().await;
    assert_says(&message, &["_none._tcp.example.test (SRV)", "there is no such service"]);
    let mut none = Name::new(&[bind.address()], json!({"nodata": "empty"}), none);
    assert_eq!(none.servers().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_an_address_is_rejected_alone_and_one_that_is_not_resolved_is_a_failure() {
    let bind = Bind::start(&[
        "_web._tcp.example.test. SRV 10 60 8001 a.example.test.",
        "_web._tcp.example.test. SRV 10 40 8002 gone.example.test.",
        "a.example.test. A 10.0.0.1",
    ]);
    let from = || json!({"srv": SERVICE});
    let alone = ["a.example.test:8001 10.0.0.1:8001 60"];
    let mut web = Name::new(&[bind.address()], json!({}), from());
    let polled = web.poll().await.unwrap();
    assert_eq!(described(&polled), alone);
    assert_eq!(polled.rejections.counts[&Invalid::ServerAddress], 1);
    let rejected = &polled.entries.rejected[0];
    assert_eq!(rejected.name.as_deref(), Some("gone.example.test:8002"), "its server stays");
    assert_says(&rejected.reason, &["does not exist (NXDOMAIN)"]);
    assert!(polled.bytes > 60, "{}", polled.bytes);
    // Each of its servers stays, whatever they are called, and for as long as it takes.
    let target = "add gone.example.test. 1 A 10.0.0.";
    bind.update(&[&format!("{target}8"), &format!("{target}9")]);
    assert_eq!(web.servers().await.len(), 3);
    bind.update(&["delete gone.example.test."]);
    for _ in 0..2 {
        let polled = web.poll().await.unwrap();
        let names: Vec<_> =
            polled.entries.rejected.iter().filter_map(|row| row.name.as_deref()).collect();
        assert_eq!(names, ["gone.example.test:8002:10.0.0.8", "gone.example.test:8002:10.0.0.9"]);
    }
    let mut empty = Name::new(&[bind.address()], json!({"nxdomain": "empty"}), from());
    let polled = empty.poll().await.unwrap();
    assert_eq!(
        (described(&polled), polled.rejections.total()),
        (alone.map(String::from).to_vec(), 0)
    );
    assert_says(&empty.feed.notes().warning.unwrap(), &["gone.example.test (A, AAAA)"]);
    bind.update(&["add _web._tcp.example.test. 1 SRV 10 1 8003 x.broken.test."]);
    let message = web.failure().await;
    assert_says(&message, &["x.broken.test (A, AAAA)", "SERVFAIL"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_records_come_over_tcp_whole() {
    let address = |at: usize| format!("10.1.{}.{}", at / 250, at % 250 + 1);
    let hosts: Vec<_> = (0..500).map(|at| format!("web.example.test. A {}", address(at))).collect();
    let targets: Vec<_> = (0..500)
        .flat_map(|at| {
            [
                format!("_web._tcp.example.test. SRV 10 1 8080 t{at:03}.example.test."),
                format!("t{at:03}.example.test. A {}", address(at)),
            ]
        })
        .collect();
    let records: Vec<&str> = hosts.iter().chain(&targets).map(String::as_str).collect();
    let bind = Bind::start(&records);
    let hosts: Vec<_> =
        (0..500).map(|at| format!("host-record=web.example.test,{}", address(at))).collect();
    let dnsmasq = Dnsmasq::start(&hosts.iter().map(String::as_str).collect::<Vec<_>>());
    for server in [bind.address(), dnsmasq.address()] {
        let mut web = Name::new(&[server], json!({}), host(WEB));
        assert_eq!(web.servers().await.len(), 500);
    }
    let mut service = Name::new(&[bind.address()], json!({}), json!({"srv": SERVICE}));
    let servers = service.servers().await;
    assert_eq!((servers.len(), &*servers[499]), (500, "t499.example.test:8080 10.1.1.250:8080 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_ttl_says_when_to_ask_again_within_bounds() {
    let bind = Bind::start(&[
        "short.example.test. 1 CNAME long.example.test.",
        "long.example.test. 3600 A 10.0.0.1",
    ]);
    let comes = async |name: &str, settings: Value, bound: Duration| {
        let mut name = Name::new(&[bind.address()], settings, host(name));
        let nothing_yet = tokio::time::timeout(Duration::from_millis(50), name.feed.changed());
        assert!(nothing_yet.await.is_err(), "before the first poll the poller polls by itself");
        name.poll().await.unwrap();
        tokio::time::timeout(bound, name.feed.changed()).await.is_ok()
    };
    let (at_once, long) = (Duration::from_millis(300), Duration::from_secs(30));
    assert!(comes("short.example.test", json!({"min_ttl": "1s"}), long).await);
    assert!(comes("long.example.test", json!({"min_ttl": "1s", "max_ttl": "1s"}), long).await);
    assert!(!comes("long.example.test", json!({"min_ttl": "1s"}), at_once).await);
    assert!(!comes("short.example.test", json!({"min_ttl": "1m"}), at_once).await);
}
