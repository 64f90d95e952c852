//! What a server learns of a client: that it was here before (a cookie), and who it is (the PROXY
//! protocol).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::{Declared, server};
use crate::support::free_port;
use crate::support::haproxy::{Binary, installed};
use crate::support::master::Master;

/// A backend of these servers whose clients come back by a cookie.
fn sticky(binary: &Binary, masters: &[&Master]) -> Declared {
    let servers: Vec<_> =
        masters.iter().map(|master| server(master.name(), master.address())).collect();
    Declared::start(binary, |address| {
        format!(
            "[[frontend]]
            name = \"web\"
            bind = [\"{address}\"]
            default_backend = \"app\"
            [[backend]]
            name = \"app\"
            check = {{ interval = \"200ms\" }}
            redispatch = true
            cookie = {{ name = \"SRV\", key = \"shared\" }}
            servers = [{}]\n",
            servers.join(", ")
        )
    })
}

#[test]
fn clients_come_back_to_their_server_at_each_gateway_and_whatever_the_order_of_servers() {
    let masters = ["app1", "app2", "app3"].map(Master::start);
    let [app1, app2, app3] = masters.each_ref();
    for binary in installed() {
        let one = sticky(binary, &[app1, app2, app3]);
        // Another gateway, with the servers in another order and one of them gone.
        let other = sticky(binary, &[app3, app1]);
        let mut values = Vec::new();
        for _ in 0..3 {
            let first = one.get("/");
            let cookie = first.header("set-cookie").expect("a cookie");
            let cookie = cookie.split(';').next().expect("its value").to_owned();
            for _ in 0..4 {
                let again = one.get_with("/", &[("Cookie", &cookie)]);
                assert_eq!(again.body, first.body, "HAProxy {:?}", binary.version);
            }
            let there = other.get_with("/", &[("Cookie", &cookie)]);
            match first.body.as_str() {
                // Its server is not there: another one answers, and says so by its own cookie.
                "app2" => assert!(there.status == 200 && there.header("set-cookie").is_some()),
                same => assert_eq!(there.body, same, "HAProxy {:?}", binary.version),
            }
            values.push(cookie);
        }
        values.sort();
        values.dedup();
        assert_eq!(values.len(), 3, "a value for each server: {values:?}");
    }
}

/// A server that answers with the addresses of the PROXY protocol's version 2 header that it got.
fn told_by_proxy() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = [0; 28];
            // How a client leaves is the client's affair.
            let _ = stream.read_exact(&mut head);
            let _ = stream.read(&mut [0; 4096]);
            let told = match head.split_at(16) {
                // PROXY over TCP on IPv4, with 12 bytes of addresses and no more.
                (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c", addresses) => {
                    let port = u16::from_be_bytes([addresses[8], addresses[9]]);
                    let from: [u8; 4] = addresses[..4].try_into().expect("four bytes");
                    SocketAddr::from((from, port)).to_string()
                }
                _ => format!("{head:?}"),
            };
            let length = told.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{told}"
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

/// What comes back on a connection, and what address that has.
fn asked(at: SocketAddr, header: &str) -> (String, SocketAddr) {
    let mut stream = TcpStream::connect(at).expect("HAProxy listens");
    let own = stream.local_addr().expect("it is bound");
    let request = format!("{header}GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("HAProxy reads");
    let mut answer = String::new();
    // What HAProxy refuses it may reset.
    let _ = stream.read_to_string(&mut answer);
    let body = answer.split_once("\r\n\r\n").map_or(answer.as_str(), |(_, body)| body);
    (body.to_owned(), own)
}

#[test]
fn servers_are_told_by_the_proxy_protocol_who_the_client_is() {
    let told = told_by_proxy();
    for binary in installed() {
        let accepting = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let haproxy = Declared::start(binary, |address| {
            format!(
                "[[frontend]]
                name = \"web\"
                bind = [\"{address}\", {{ address = \"{accepting}\", accept_proxy = true }}]
                default_backend = \"app\"
                [[backend]]
                name = \"app\"
                send_proxy = true
                servers = [{}]\n",
                server("app1", told)
            )
        });
        let (body, client) = asked(haproxy.address, "");
        assert_eq!(body, client.to_string(), "HAProxy {:?}", binary.version);
        // What another proxy in front says of its client is passed on.
        let one = "PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n";
        assert_eq!(asked(accepting, one).0, "192.0.2.7:4711", "HAProxy {:?}", binary.version);
        // Without that header nobody comes in there.
        let (body, _) = asked(accepting, "");
        assert!(!body.contains("127.0.0.1:"), "HAProxy {:?}: {body}", binary.version);
    }
}
