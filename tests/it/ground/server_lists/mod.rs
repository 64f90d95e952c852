//! The facts about HAProxy's servers at runtime that the code relies on, one a test, in every
//! version that is installed: read through the client that relies on them.

mod changing;
mod options;
mod removing;
mod states;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use haproxy_runtime::{
    Refusal, RuntimeClient, RuntimeError, ServerCommand, ServerPath, ServerState, ServersClient,
};
use mapsmith_core::ObservedServers;
use mapsmith_core::server::{ObservedServer, Server, ServerAddress, ServerOptions};

use crate::support::haproxy::{Binary, Gateway, installed};

const BOUND: Duration = Duration::from_secs(30);

/// An address that nobody listens on: port 1 of the loopback address.
const NOBODY: &str = "127.0.0.1:1";

/// A gateway with more sections, and the client under test.
struct Scene {
    gateway: Gateway,
    client: ServersClient,
    runtime: tokio::runtime::Runtime,
}

impl Scene {
    /// Node `node1` is served by backend `b`.
    fn start(binary: &Binary, sections: &str) -> Self {
        let gateway = Gateway::plan(binary).entry("node1", "b").more(sections).start();
        let address = gateway.runtime_address().parse().expect("a runtime address");
        let client = ServersClient::new(RuntimeClient::new(address, BOUND), 15_000);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { gateway, client, runtime }
    }

    fn observe(&self) -> ObservedServers {
        self.runtime.block_on(self.client.observe()).expect("a look")
    }

    fn server(&self, backend: &str, server: &str) -> ObservedServer {
        let seen = self.observe();
        seen[backend]
            .servers
            .get(server)
            .unwrap_or_else(|| panic!("no {backend}/{server} in {seen:?}"))
            .clone()
    }

    fn run(&self, commands: &[ServerCommand]) -> Vec<Result<(), Refusal>> {
        self.runtime.block_on(self.client.run(commands)).expect("a whole answer")
    }

    fn one(&self, command: ServerCommand) -> Result<(), Refusal> {
        self.run(&[command]).remove(0)
    }

    fn wait(
        &self,
        at: &ServerPath,
        delay: Duration,
    ) -> Result<Result<bool, Refusal>, RuntimeError> {
        self.runtime.block_on(self.client.wait_removable(at, delay))
    }

    fn version(&self) -> (u32, u32) {
        self.gateway.version()
    }
}

/// Runs a check against every installed HAProxy with these sections. Node `node1` is served by
/// backend `b`.
fn every_version(sections: &str, check: impl Fn(&Scene)) {
    for binary in installed() {
        // Shown when the check fails.
        println!("HAProxy {:?}", binary.version);
        check(&Scene::start(binary, sections));
    }
}

fn at(backend: &str, server: &str) -> ServerPath {
    ServerPath::new(backend, server).expect("valid names")
}

fn address(text: &str) -> ServerAddress {
    let address: SocketAddr = text.parse().expect("an address");
    ServerAddress { ip: address.ip(), port: address.port() }
}

fn add(backend: &str, name: &str, options: &[&str]) -> ServerCommand {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    let options = ServerOptions::parse(&options).unwrap_or_else(|error| panic!("{error}"));
    let server = Server {
        name: name.to_owned(),
        address: address(NOBODY),
        weight: None,
        backup: false,
        options,
    };
    ServerCommand::Add { at: at(backend, name), server: Box::new(server) }
}

fn set_state(backend: &str, server: &str, state: ServerState) -> ServerCommand {
    ServerCommand::SetState { at: at(backend, server), state }
}

fn delete(backend: &str, server: &str) -> ServerCommand {
    ServerCommand::Delete { at: at(backend, server) }
}

/// A master whose answers wait until the test gives them.
struct HeldMaster(TcpListener);

impl HeldMaster {
    fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").expect("a free port"))
    }

    fn address(&self) -> String {
        self.0.local_addr().expect("a bound address").to_string()
    }

    /// The next connection, when its request has come.
    fn request(&self) -> Stream {
        let mut stream = Stream::of(self.0.accept().expect("a connection").0);
        stream.read_head();
        stream
    }
}

/// One side of an HTTP connection, in the rough.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(BOUND)).expect("a bound");
        Self(BufReader::new(stream))
    }

    fn client(gateway: &Gateway) -> Self {
        Self::of(TcpStream::connect(gateway.http_address()).expect("the gateway listens"))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("the other end is there");
    }

    fn ask(&mut self) {
        self.send("GET / HTTP/1.1\r\nHost: gateway\r\nX-Node-Name: node1\r\n\r\n");
    }

    fn answer(&mut self) {
        self.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }

    /// The first line of the next message; empty where the connection ended.
    fn read_head(&mut self) -> String {
        let mut first = String::new();
        self.0.read_line(&mut first).expect("something comes");
        let mut line = first.clone();
        while !line.trim_end().is_empty() {
            line.clear();
            self.0.read_line(&mut line).expect("the head is whole");
        }
        first.trim_end().to_owned()
    }
}

const DYNAMIC: &str = "backend b\n    balance roundrobin\n";
