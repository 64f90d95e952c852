//! A real ZooKeeper of a test's own, and a client that writes its nodes.

mod client;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::authority::Authority;
use crate::daemon::Daemon;
use crate::{eventually, free_port, program, text_of};
use client::Client;

/// Its heap is small and its compiler quick: it starts in half a second, and a test asks it little.
const JAVA_OPTIONS: [&str; 5] = [
    "-Xmx128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Dzookeeper.jmx.log4j.disable=true",
];

/// What only the server of TLS needs; without it ZooKeeper does with its own sockets.
const TLS_OPTION: &str =
    "-Dzookeeper.serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory";

/// The jars, in Debian's folder of them.
const JARS: [&str; 15] = [
    "zookeeper",
    "slf4j-simple",
    "netty-buffer",
    "netty-codec",
    "netty-common",
    "netty-handler",
    "netty-resolver",
    "netty-transport",
    "netty-transport-native-epoll",
    "netty-transport-native-unix-common",
    "netty-tcnative",
    "metrics-core",
    "snappy-java",
    "slf4j-api",
    "zookeeper-jute",
];

/// How often it looks whether sessions have expired; a session is at least as long.
const TICK: Duration = Duration::from_millis(250);

/// A running ZooKeeper and its folder, both gone on drop.
pub struct ZooKeeper {
    address: SocketAddr,
    /// Where it speaks TLS, if it does.
    tls: Option<SocketAddr>,
    daemon: Daemon,
    client: Client,
}

impl ZooKeeper {
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// One that speaks TLS too, with the authority's certificate `zookeeper`, to clients with a
    /// certificate of that authority.
    pub fn start_with_tls(authority: &Authority) -> Self {
        Self::start_with(Some(authority))
    }

    fn start_with(authority: Option<&Authority>) -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let address = loopback(free_port());
        let tls = authority.map(|_| loopback(free_port()));
        let daemon = Daemon::new("ZooKeeper", |folder| {
            let mut text = configure(folder, address.port());
            let mut command = vec![text_path(&program("java"))];
            command.extend(JAVA_OPTIONS.map(str::to_owned));
            if let (Some(authority), Some(tls)) = (authority, tls) {
                command.push(TLS_OPTION.to_owned());
                text += &configure_tls(authority, tls.port());
            }
            let file = folder.join("zoo.cfg");
            fs::write(&file, text).expect("a configuration file");
            let jars = JARS.map(|jar| format!("/usr/share/java/{jar}.jar"));
            assert!(Path::new(&jars[0]).is_file(), "ZooKeeper is not installed: run scripts/setup");
            let jars = jars.join(":");
            let main = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
            command.extend(["-cp".to_owned(), jars, main.to_owned(), text_path(&file)]);
            command
        });
        let zookeeper = Self { address, tls, daemon, client: Client::new(address) };
        zookeeper.launch();
        zookeeper
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it answers in TLS.
    ///
    /// # Panics
    /// Where it was started without.
    pub fn tls_address(&self) -> SocketAddr {
        self.tls.expect("it was started with TLS")
    }

    /// Creates a node, and the nodes above it where they are missing.
    pub fn create(&self, path: &str, data: &str) {
        self.client.create(path, data.as_bytes(), None);
    }

    /// The same for one user's eyes: nobody else may read it.
    pub fn create_for(&self, path: &str, data: &str, user: &str, password: &str) {
        self.client.create(path, data.as_bytes(), Some((user, password)));
    }

    /// Creates many nodes below a path, which is created too.
    pub fn create_all(&self, path: &str, children: impl IntoIterator<Item = (String, String)>) {
        self.client.create_all(path, children.into_iter().collect());
    }

    /// Replaces what a node holds.
    pub fn set(&self, path: &str, data: &[u8]) {
        self.client.set(path, data);
    }

    /// Deletes a node without children.
    pub fn delete(&self, path: &str) {
        self.client.delete(path);
    }

    /// Deletes a node and everything below it.
    pub fn delete_all(&self, path: &str) {
        self.client.delete_all(path);
    }

    /// How many sessions it has. Its own client keeps none.
    pub fn sessions(&self) -> usize {
        let dump = self.ask("dump").expect("ZooKeeper answers");
        let sets = dump.split_once("Session Sets").map_or("", |(_, sets)| sets);
        let sets = sets.split_once("ephemeral nodes").map_or(sets, |(sets, _)| sets);
        sets.lines().filter(|line| line.trim_start().starts_with("0x")).count()
    }

    /// Waits until it has no session any more: those that nobody keeps alive have expired.
    pub fn expire_sessions(&self) {
        eventually("every session expires", Duration::from_secs(60), || {
            (self.sessions() == 0).then_some(())
        });
    }

    /// What it says to a command of four letters.
    pub fn ask(&self, command: &str) -> io::Result<String> {
        self.ask_within(Duration::from_secs(30), command)
    }

    fn ask_within(&self, patience: Duration, command: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(command.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Ends it with SIGKILL.
    pub fn kill(&self) {
        self.daemon.kill();
    }

    /// Ends it as an administrator does.
    pub fn stop(&self) {
        self.daemon.stop();
    }

    /// Starts it again at the same address with the same data; kills it first if it runs.
    pub fn restart(&self) {
        self.launch();
    }

    /// Kills it and starts it again with nothing of what it knew, sessions included.
    pub fn restart_empty(&self) {
        self.kill();
        fs::remove_dir_all(self.daemon.folder().join("data")).expect("the data can be removed");
        self.launch();
    }

    /// `STOP` has it take connections and answer none, `CONT` ends that.
    pub fn signal(&self, name: &str) {
        self.daemon.signal(name);
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    fn launch(&self) {
        // It answers `ruok` before it serves, and never answers what it is asked at a bad moment.
        self.daemon.launch(|| {
            let answer = self.ask_within(Duration::from_millis(500), "srvr");
            answer.is_ok_and(|answer| answer.contains("Mode:"))
        });
    }
}

fn configure(folder: &Path, port: u16) -> String {
    let tick = TICK.as_millis();
    format!(
        "tickTime={tick}\ndataDir={}/data\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
         admin.enableServer=false\n4lw.commands.whitelist=*\nmaxClientCnxns=0\n\
         minSessionTimeout={tick}\nmaxSessionTimeout=60000\n",
        folder.display()
    )
}

/// It takes PEM where the file's name ends so, and the key must stand before its certificate.
fn configure_tls(authority: &Authority, port: u16) -> String {
    let (certificate, key) = (authority.certificate("zookeeper"), authority.key("zookeeper"));
    let both = certificate.with_file_name("zookeeper.store.pem");
    fs::write(&both, text_of(&key) + &text_of(&certificate)).expect("a file");
    format!(
        "secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n\
         ssl.keyStore.location={}\nssl.trustStore.location={}\n",
        text_path(&both),
        text_path(&authority.ca())
    )
}

fn text_path(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_written_and_survive_a_restart_and_no_session_stays() {
        let zookeeper = ZooKeeper::start();
        zookeeper.create("/a/b", "1");
        zookeeper.create_all("/many", (0..100).map(|n| (format!("n{n}"), n.to_string())));
        zookeeper.create_for("/secret", "x", "user", "password");
        zookeeper.kill();
        zookeeper.restart();
        zookeeper.set("/a/b", b"2");
        zookeeper.delete_all("/many");
        zookeeper.delete("/a/b");
        zookeeper.expire_sessions();
        let nodes = zookeeper.ask("srvr").unwrap();
        // The root, ZooKeeper's own four, /a and /secret.
        assert!(nodes.contains("Node count: 7"), "{nodes}");
        zookeeper.restart_empty();
        let nodes = zookeeper.ask("srvr").unwrap();
        assert!(nodes.contains("Node count: 5"), "{nodes}");
    }
}
