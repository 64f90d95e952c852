//! Reloads under load: no request fails, no connection is refused, a download and a WebSocket go
//! on, and the old workers stay within their bound. Ten reloads; two hundred with
//! `MAPSMITH_TEST_LONG`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mapsmith::supervise::budget::{Budget, Due, Limits};
use mapsmith::supervise::reload::Outcome;
use mapsmith::supervise::sockets::Sockets;

use super::PATIENCE;
use super::managed::Managed;
use crate::support::authority::Authority;
use crate::support::haproxy::installed;
use crate::support::http::{self, Connection};
use crate::support::{eventually, free_port};

/// Of each kind of client.
const CLIENTS: usize = 2;
const LIMITS: Limits = Limits { interval: Duration::from_millis(200), max_old_workers: 4 };
/// Requests of one run of curl, which are on one connection of HTTP/2.
const MULTIPLEXED: usize = 500;
/// Pieces of the download that are sent while reloads go on.
const PIECE: &[u8] = &[b'x'; 1000];

/// A server of one download, which ends when it is told to.
fn downloads(ending: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it has one");
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
            let mut sent = stream.write_all(head.as_bytes()).is_ok();
            while sent && !ending.load(Ordering::Relaxed) {
                sent = stream.write_all(PIECE).is_ok();
                thread::sleep(Duration::from_millis(5));
            }
            let _ = stream.write_all(b"end");
        }
    });
    address
}

/// A server of WebSockets (RFC 6455) that sends back whatever comes.
fn sockets() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it has one");
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let upgraded = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            let mut bytes = [0; 4096];
            // How a client leaves is the client's affair.
            let _ = stream.read(&mut bytes).and_then(|_| stream.write_all(upgraded.as_bytes()));
            while let Ok(read @ 1..) = stream.read(&mut bytes) {
                if stream.write_all(&bytes[..read]).is_err() {
                    break;
                }
            }
        }
    });
    address
}

/// A client's WebSocket.
struct Socket(BufReader<TcpStream>);

impl Socket {
    fn open(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a bound on reading");
        let request = "GET /socket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).expect("an answer") > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self(reader)
    }

    /// Sends a text and gets it back.
    fn exchange(&mut self, text: &str) {
        let length = u8::try_from(text.len()).expect("a short text");
        // A frame whose mask changes nothing.
        let frame = [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat();
        self.0.get_mut().write_all(&frame).expect("it is open");
        let mut back = vec![0; frame.len()];
        self.0.read_exact(&mut back).expect("it is open");
        assert_eq!(back, frame);
    }
}

/// Clients that ask all the time, and what failed.
struct Clients {
    ending: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Clients {
    fn start(web: SocketAddr, multiplexed: SocketAddr) -> Self {
        let mut clients =
            Self { ending: Arc::default(), answered: Arc::default(), threads: Vec::new() };
        for _ in 0..CLIENTS {
            let mut kept = None;
            clients.ask(move || on_kept(web, &mut kept).map(|()| 1));
            clients.ask(move || good(http::request(web, "GET", "/", &[], "")).map(|_| 1));
        }
        clients.ask(move || by_curl(multiplexed));
        clients
    }

    fn ask(&mut self, mut one: impl FnMut() -> Result<usize, String> + Send + 'static) {
        let (ending, answered) = (Arc::clone(&self.ending), Arc::clone(&self.answered));
        self.threads.push(thread::spawn(move || {
            let mut failed = Vec::new();
            while !ending.load(Ordering::Relaxed) {
                match one() {
                    Ok(count) => _ = answered.fetch_add(count, Ordering::Relaxed),
                    Err(error) => failed.push(error),
                }
            }
            failed
        }));
    }

    fn stop(self) -> (usize, Vec<String>) {
        self.ending.store(true, Ordering::Relaxed);
        let ended = self.threads.into_iter().map(|thread| thread.join().expect("no panic"));
        let failed = ended.flatten().collect();
        (self.answered.load(Ordering::Relaxed), failed)
    }
}

fn good(answer: std::io::Result<http::Response>) -> Result<bool, String> {
    match answer {
        Ok(answer) if answer.status == 200 => Ok(answer.reusable),
        Ok(answer) => Err(format!("status {}", answer.status)),
        Err(error) => Err(error.to_string()),
    }
}

/// A request on a kept connection; one that fails there counts, as it would for a client that can't
/// repeat it.
fn on_kept(web: SocketAddr, kept: &mut Option<Connection>) -> Result<(), String> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(web).map_err(|error| format!("new: {error}"))?,
    };
    let reusable =
        good(connection.request("GET", "/", &[], "")).map_err(|error| format!("kept: {error}"))?;
    *kept = reusable.then_some(connection);
    Ok(())
}

/// Requests on one connection of HTTP/2 after the other.
fn by_curl(web: SocketAddr) -> Result<usize, String> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--insecure", "--http2", "--max-time", "60"])
        .args(["--write-out", "%{stderr}%{http_code} %{http_version}\n", "--output", "/dev/null"])
        .arg(format!("https://{web}/[1-{MULTIPLEXED}]"))
        .output()
        .map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&output.stderr);
    let answered = told.lines().filter(|line| *line == "200 2").count();
    let is_good = answered == MULTIPLEXED && output.status.success();
    is_good.then_some(answered).ok_or_else(|| {
        let other = told.lines().find(|line| *line != "200 2").unwrap_or_default();
        format!("curl: {answered} of {MULTIPLEXED}: {other}: {}", output.status)
    })
}

/// A frontend of HTTP/2 that answers with the word too, and one of the download and the WebSocket.
fn beside(
    answering: &str,
    word: &str,
    [multiplexed, slow]: [u16; 2],
    certificate: &str,
    [origin, sockets]: [SocketAddr; 2],
) -> String {
    format!(
        "{answering}frontend multiplexed\n    \
        bind 127.0.0.1:{multiplexed} ssl crt {certificate} alpn h2\n    \
        http-request return status 200 content-type text/plain string {word}\n\
        frontend slow\n    bind 127.0.0.1:{slow}\n    \
        use_backend sockets if {{ path /socket }}\n    default_backend origin\n\
        backend origin\n    timeout server 60s\n    server origin {origin}\n\
        backend sockets\n    timeout tunnel 30m\n    server sockets {sockets}\n"
    )
    // As they are rendered.
    .replace("hard-stop-after 20s", "hard-stop-after 30m\n    mworker-max-reloads 10000")
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_under_load_fail_no_request_and_cut_no_download_or_websocket() {
    let long = std::env::var_os("MAPSMITH_TEST_LONG").is_some();
    let reloads = if long { 200 } else { 10 };
    for binary in installed() {
        let managed = Managed::new(binary);
        let (multiplexed, slow) = (free_port(), free_port());
        let authority = Authority::create(managed.folder.path());
        authority.issue("gateway");
        let certificate = authority.both("gateway").display().to_string();
        let finished = Arc::<AtomicBool>::default();
        let (origin, sockets) = (downloads(Arc::clone(&finished)), sockets());
        let text = |word: &str| {
            let answering = managed.folder.answering(word);
            beside(&answering, word, [multiplexed, slow], &certificate, [origin, sockets])
        };
        managed.folder.write(&text("w0"));
        let running = managed.launch().start(&mut Sockets::default()).await.unwrap();
        let mut download = TcpStream::connect(("127.0.0.1", slow)).unwrap();
        download.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        download.read_exact(&mut [0; 1000]).unwrap();
        let reader = thread::spawn(move || {
            let mut body = Vec::new();
            download.read_to_end(&mut body).map(|_| body)
        });
        let mut socket = Socket::open(slow);
        let clients = Clients::start(managed.folder.address, ([127, 0, 0, 1], multiplexed).into());
        let began = Instant::now();
        let (mut budget, mut most_old) = (Budget::new(LIMITS), 0);
        for number in 1..=reloads {
            budget.want(number, Instant::now());
            let mut old = 0;
            let deadline = Instant::now() + PATIENCE;
            loop {
                if let Ok(listed) = running.master().processes().await {
                    old = listed.old_workers.len();
                    most_old = most_old.max(old);
                    if budget.due(old, Instant::now()) == Due::Now {
                        break;
                    }
                }
                assert!(Instant::now() < deadline, "{old} old workers stay");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            budget.begin(Instant::now());
            let word = format!("w{number}");
            managed.folder.write(&text(&word));
            let checked = managed.folder.check().await;
            match running.reloader().reload(&checked).await {
                Outcome::Loaded { .. } => {
                    managed.folder.comes_to_answer(&word);
                    socket.exchange(&word);
                }
                other => panic!("reload {number}: {other:?}\n{}", running.said().without_secrets()),
            }
        }
        let took = began.elapsed();
        let (answered, failed) = clients.stop();
        println!(
            "{reloads} reloads in {took:?}: {answered} requests, {} failed, {most_old} old workers \
            at most",
            failed.len()
        );
        assert_eq!(failed, Vec::<String>::new(), "of {answered}");
        assert!(answered > 100 * reloads && most_old <= LIMITS.max_old_workers);
        let listed = running.master().processes().await.unwrap();
        assert!(!listed.old_workers.is_empty(), "the worker of the download and the WebSocket");
        socket.exchange("end");
        drop(socket);
        finished.store(true, Ordering::Relaxed);
        let body = reader.join().unwrap().expect("it is not cut");
        assert!(body.ends_with(b"end"), "{} bytes", body.len());
        eventually("the old workers end", PATIENCE, || {
            let path = managed.folder.file("master.sock").display().to_string();
            let listed = crate::support::haproxy::ask(&format!("unix@{path}"), "show proc;quit");
            (!listed.ok()?.contains("# old workers")).then_some(())
        });
    }
}
