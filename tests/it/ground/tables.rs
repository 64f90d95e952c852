//! The facts about HAProxy's stick tables that the code relies on, in every version that is
//! installed: what redispatch learns is listed and forgotten, whatever clients sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use haproxy_runtime::table::Row;
use haproxy_runtime::{RuntimeClient, TableClient, TableName, TableSize};

use crate::support::haproxy::{Gateway, installed};
use crate::support::master::Master;
use crate::support::{eventually, free_port};

const BOUND: Duration = Duration::from_secs(30);

/// The redispatching backend as Mapsmith ships it, where every node is mapped to a dead master.
fn redispatching(alive: &Master) -> String {
    format!(
        "backend puppet\n    balance roundrobin\n    option redispatch 1\n    retries 3\n    \
            retry-on conn-failure 404\n    \
         http-request set-var(txn.node) req.fhdr(X-Key)\n    http-request del-header X-Key\n    \
         http-request set-var(txn.master) str(master1)\n    \
         stick-table type string len 255 size 100k expire 10m\n    acl learned \
         var(txn.node),in_table(puppet)\n    \
         acl as_mapped srv_name,strcmp(txn.master) eq 0\n    \
         use-server %[var(txn.master)] if {{ var(txn.master) -m found }} !learned\n    stick \
         match var(txn.node)\n    \
         stick store-response var(txn.node) if {{ status 200:299 }} !as_mapped\n    \
         stick store-response var(txn.node) if {{ status 200:299 }} learned\n    server master1 \
         127.0.0.1:{}\n    server master2 {}\n\
         backend other\n    stick-table type ip size 10 expire 1m store gpc0\n\
         backend held\n    stick-table type string len 32 size 10 expire 1m store conn_cur\n    \
         http-request track-sc0 req.hdr(X-Key)\n",
        free_port(),
        alive.address()
    )
}

struct Table {
    client: TableClient,
    runtime: tokio::runtime::Runtime,
}

impl Table {
    fn of(gateway: &Gateway, name: &str) -> Self {
        let client =
            RuntimeClient::new(gateway.runtime_address().parse().expect("an address"), BOUND);
        let client = TableClient::new(client, TableName::new(name).expect("a valid name"), 15_000);
        Self {
            client,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
        }
    }

    fn list(&self) -> (TableSize, Vec<Row>) {
        let mut rows = Vec::new();
        let size = self
            .runtime
            .block_on(self.client.list(usize::MAX, |row| rows.push(row)))
            .expect("a table")
            .0;
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        (size, rows)
    }

    fn keys(&self) -> Vec<Vec<u8>> {
        self.list().1.into_iter().map(|row| row.key).collect()
    }

    fn forget(&self, keys: &[Vec<u8>]) -> usize {
        self.runtime
            .block_on(self.client.forget(keys.iter().map(Vec::as_slice)))
            .expect("HAProxy forgets")
    }
}

/// Sends a request with a key of any bytes.
fn send(gateway: SocketAddr, key: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(gateway).expect("the gateway listens");
    stream.set_read_timeout(Some(BOUND)).expect("a bound");
    let request = [
        b"GET / HTTP/1.1\r\nHost: gateway\r\nX-Node-Name: node1\r\nConnection: close\r\nX-Key: ",
        key,
        b"\r\n\r\n",
    ];
    stream.write_all(&request.concat()).expect("the gateway reads");
    stream
}

fn request(gateway: SocketAddr, key: &[u8]) -> String {
    let mut answer = Vec::new();
    send(gateway, key).read_to_end(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn learned_routes_are_listed_and_forgotten_whatever_clients_sent() {
    let mut keys: Vec<Vec<u8>> = [
        "node1",
        "a b",
        "a;b",
        r"a\b",
        "a\"b",
        "a'b",
        "k=v use=0",
        "a#b",
        "<<",
        "a << b",
        "x<<",
        r"\x41",
        "é",
        "a,b",
    ]
    .into_iter()
    .map(|key| key.as_bytes().to_vec())
    .collect();
    keys.extend([b"\xff\xfe".to_vec(), b"a\tb".to_vec()]);
    keys.sort();
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let master = Master::start("master2");
        let gateway =
            Gateway::plan(binary).entry("node1", "puppet").more(&redispatching(&master)).start();
        let table = Table::of(&gateway, "puppet");
        for key in &keys {
            let answer = request(gateway.http_address(), key);
            assert!(
                answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("master2"),
                "{key:?}: {answer}"
            );
        }
        let (size, rows) = table.list();
        assert_eq!(
            (size.name.as_str(), size.kind.as_str(), size.size),
            ("puppet", "string", 102_400)
        );
        assert_eq!(size.used, keys.len() as u64);
        assert_eq!(rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>(), keys);
        for row in &rows {
            assert_eq!((row.server_id, row.server.as_deref()), (Some(2), Some("master2")));
            // HAProxy's clock moves between its ticks: it has told 600,001 ms.
            assert!(
                row.expires_in > Duration::ZERO && row.expires_in < Duration::from_secs(601),
                "{row:?}"
            );
        }

        let (gone, left) = keys.split_at(keys.len() / 2);
        assert_eq!(table.forget(gone), 0);
        assert_eq!(table.keys(), left);
        assert_eq!(table.forget(&keys), 0, "forgetting what is forgotten is no error");
        assert!(table.keys().is_empty());
    }
}

#[test]
fn of_a_large_table_little_more_is_read_than_is_asked_for() {
    const ROWS: u64 = 10_000;
    for binary in installed() {
        let master = Master::start("master2");
        let gateway = Gateway::plan(binary).more(&redispatching(&master)).start();
        for first in (0..ROWS).step_by(500) {
            let rows: Vec<_> =
                (first..first + 500).map(|row| format!("set table puppet key k{row}")).collect();
            gateway.command(&rows.join(";"));
        }
        let table = Table::of(&gateway, "puppet");
        for (most, at_most) in [(1000, 5000), (usize::MAX, ROWS)] {
            let mut read = 0;
            let (size, left) =
                table.runtime.block_on(table.client.list(most, |_| read += 1)).expect("a table");
            assert_eq!((size.used, read + left), (ROWS, ROWS), "HAProxy {:?}", binary.version);
            assert!(
                (1000..=at_most).contains(&read),
                "HAProxy {:?}: {read} rows for {most}",
                binary.version
            );
            assert_eq!(left == 0, most == usize::MAX);
        }
    }
}

#[test]
fn a_key_without_a_character_is_learned_and_can_only_expire() {
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let master = Master::start("master2");
        let gateway =
            Gateway::plan(binary).entry("node1", "puppet").more(&redispatching(&master)).start();
        let table = Table::of(&gateway, "puppet");
        request(gateway.http_address(), b"");
        assert_eq!(table.keys(), [b""]);
        assert_eq!(gateway.command("clear table puppet key "), "Key value expected\n\n");
        assert_eq!(table.forget(&[Vec::new()]), 1);
        assert_eq!(table.keys(), [b""]);
    }
}

#[test]
fn a_key_that_a_request_holds_stays_and_is_counted() {
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let master = Master::start("master2");
        let sections = format!(
            "{}    server held {}\n",
            redispatching(&master),
            listener.local_addr().unwrap()
        );
        let gateway = Gateway::plan(binary).entry("node1", "held").more(&sections).start();
        let table = Table::of(&gateway, "held");
        let client = send(gateway.http_address(), b"key");
        let (held, _) = listener.accept().unwrap();
        let (_, rows) = table.list();
        assert_eq!((rows.len(), rows[0].server_id, &rows[0].server), (1, None, &None));
        assert_eq!(table.forget(&[b"key".to_vec(), b"other".to_vec()]), 1);
        assert_eq!(table.keys(), [b"key"]);
        drop((client, held));
        eventually("the key is let go", BOUND, || {
            (table.forget(&[b"key".to_vec()]) == 0).then_some(())
        });
        assert!(table.keys().is_empty());
    }
}

#[test]
fn a_learned_route_outlives_its_server() {
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let master = Master::start("master2");
        let gateway =
            Gateway::plan(binary).entry("node1", "puppet").more(&redispatching(&master)).start();
        let table = Table::of(&gateway, "puppet");
        request(gateway.http_address(), b"node1");
        eventually("the server is removed", BOUND, || {
            let reply =
                gateway.command("set server puppet/master2 state maint;del server puppet/master2");
            reply.contains("Server deleted.").then_some(())
        });
        let (_, rows) = table.list();
        assert_eq!((rows[0].server_id, rows[0].server.as_deref()), (Some(2), Some("master2")));
    }
}

#[test]
fn all_tables_are_listed_and_one_that_is_not_there_is_told() {
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let master = Master::start("master2");
        let gateway = Gateway::plan(binary).more(&redispatching(&master)).start();
        let table = Table::of(&gateway, "nowhere");
        let mut tables = table.runtime.block_on(table.client.tables()).unwrap();
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        let seen: Vec<_> = tables
            .iter()
            .map(|table| (table.name.as_str(), table.kind.as_str(), table.size, table.used))
            .collect();
        assert_eq!(
            seen,
            [("held", "string", 10, 0), ("other", "ip", 10, 0), ("puppet", "string", 102_400, 0)]
        );
        let error =
            table.runtime.block_on(table.client.list(usize::MAX, |_| ())).unwrap_err().to_string();
        assert!(error.contains("has no stick table"), "{error}");
        let error = table
            .runtime
            .block_on(table.client.forget([b"a".as_slice()].into_iter()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("has no stick table"), "{error}");
    }
}
